// Certificates by ACME from a real authority (Pebble): every clinic's name gets one, without anything else installed.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { connect } from "node:tls";
import { authorityByAcme } from "../lib/acme.mjs";
import { database, postgres, sql } from "../lib/postgres.mjs";
import { freePort } from "../lib/ports.mjs";
import { Server, binary, eventually } from "../lib/server.mjs";

/** What is shown for a name: the certificate, if a client of the authority's root believes it; else why not. */
function shown(port, name, ca, options = {}) {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1", servername: name, ca, ...options }, () => {
      resolve({ serial: socket.getPeerCertificate().serialNumber, until: Date.parse(socket.getPeerCertificate().valid_to), alpn: socket.alpnProtocol, names: socket.getPeerCertificate().subjectaltname });
      socket.destroy();
    });
    socket.once("error", (error) => resolve({ error: error.code ?? error.message })).once("close", () => resolve({ error: "closed" }));
  });
}

/** A server beside its authority, with clinics of these names. */
async function standing(t, extra, ...names) {
  const [web, devices] = [await freePort(), await freePort()];
  const plain = await freePort();
  const authority = await authorityByAcme(web, plain);
  if (!authority) return t.skip("Pebble is not installed");
  t.after(() => authority.stop());
  const ports = { MEDTECH_HTTP_BIND: `127.0.0.1:${plain}`, MEDTECH_HTTP_TLS_BIND: `127.0.0.1:${web}`, MEDTECH_MQTT_TLS_BIND: `127.0.0.1:${devices}` };
  const server = await Server.start({ ...ports, ...authority.env, ...extra });
  server.url = `http://localhost:${plain}`;
  t.after(() => server.stop());
  const admin = await server.signIn("admin");
  const clinics = {};
  for (const [at, name] of names.entries()) {
    const made = await server.api(admin, "POST", "/api/tenants", { slug: `c${at}`, name: `Clinic ${at}`, zone: "Europe/Berlin", domains: [name] });
    assert.equal(made.status, 201, JSON.stringify(made.body));
    clinics[name] = made.body.id;
  }
  const look = () => server.process.kill("SIGHUP");
  const issued = (name, other) => eventually(`a certificate of ${name}`, async () => {
    const { serial } = await shown(web, name, authority.root);
    return serial && serial !== other && shown(web, name, authority.root);
  }, 90_000).catch((e) => { throw new Error(`${e.message}\n${server.log.slice(-4000)}\n${authority.log.slice(-4000)}`); });
  return { server, authority, web, devices, admin, clinics, look, issued };
}

test("every clinic's name gets its certificate by a handshake, keeps it over a restart, and gets the next at two thirds", async (t) => {
  const all = await standing(t, {}, "north.example", "South.Clinics.example", "closed.example");
  if (!all) return;
  const { server, authority, web, devices, admin, clinics, look, issued } = all;
  assert.equal((await server.api(admin, "POST", `/api/tenants/${clinics["closed.example"]}/suspend`)).status, 200);
  look();
  const north = await issued("north.example");
  assert.equal(north.names, "DNS:north.example");
  assert.ok(Math.abs(north.until - Date.now() - 90 * 86_400_000) < 3_600_000, String(north.until));
  const south = await issued("south.clinics.example");
  assert.notEqual(south.serial, north.serial);
  assert.equal((await shown(devices, "north.example", authority.root)).serial, north.serial, "devices see the same");
  for (const none of ["closed.example", "stranger.example", "localhost"]) assert.ok((await shown(web, none, authority.root)).error, none);
  // The protocol of proofs opens nothing, and does not get in the way of others.
  assert.ok((await shown(web, "north.example", authority.root, { ALPNProtocols: ["acme-tls/1"] })).error);
  assert.equal((await shown(web, "north.example", authority.root, { ALPNProtocols: ["acme-tls/1", "http/1.1"] })).alpn, "http/1.1");
  const metrics = await (await fetch(server.url + "/metrics")).text();
  const ends = Number(/medtech_tls_certificate_expiry_seconds\{names="north.example"\} (\d+)/.exec(metrics)?.[1]);
  assert.ok(Math.abs(ends * 1000 - north.until) < 2_000, metrics.split("\n").filter((l) => l.includes("tls")).join());
  // No key of it lies about.
  const files = readdirSync(server.dir, { recursive: true, withFileTypes: true }).filter((f) => f.isFile());
  for (const file of files) {
    const bytes = readFileSync(join(file.parentPath, file.name));
    for (const word of ["PRIVATE KEY", "key_pkcs8"]) assert.ok(!bytes.includes(word), `${file.name}: ${word}`);
  }
  await server.restart();
  assert.equal((await shown(web, "north.example", authority.root)).serial, north.serial, "from its first moment on");
  await server.later("+61d");
  const next = await issued("north.example", north.serial);
  assert.notEqual(next.serial, north.serial);
  await server.kill();
  const told = spawnSync(binary, ["doctor"], { env: server.env, encoding: "utf8", timeout: 60_000 }).stdout;
  assert.match(told, /ok +certificate of north\.example: renewed from /);
});

test("by a page where that is chosen; a name that leads elsewhere is told, asked for seldom, and holds nobody up", async (t) => {
  const all = await standing(t, { MEDTECH_TLS_ACME_CHALLENGES: "http-01" }, "elsewhere.example", "north.example");
  if (!all) return;
  const { server, web, authority, look, issued } = all;
  look();
  await issued("north.example");
  const failing = await eventually("the failure", async () => {
    const text = await (await fetch(server.url + "/metrics")).text();
    return /medtech_tls_certificate_failures\{names="elsewhere.example"\} (\d+)/.exec(text)?.[1];
  }, 90_000);
  assert.equal(failing, "1");
  assert.ok((await shown(web, "elsewhere.example", authority.root)).error);
  // Looked at again at once: it is not asked for again.
  const before = authority.log;
  look();
  await eventually("the look", () => server.log.split("asked to look again").length > 2);
  assert.equal((await fetch(`${server.url}/.well-known/acme-challenge/nothing`)).status, 404);
  await server.restart();
  const told = spawnSync(binary, ["doctor"], { env: server.env, encoding: "utf8", timeout: 60_000 }).stdout;
  assert.match(told, /WRONG +certificate of elsewhere\.example: not issued, 1 times in a row: .+; asked for again at /);
  assert.ok(!authority.log.slice(before.length).includes("elsewhere.example"), "a second order");
});

test("servers on one database share the sealed certificates", { skip: !postgres && "MEDTECH_TEST_PG is not set" }, async (t) => {
  const db = await database();
  const all = await standing(t, db, "north.example");
  if (!all) return;
  const { server, web, authority, issued, look } = all;
  look();
  const first = await issued("north.example");
  const [sealed] = await sql(db.MEDTECH_DATABASE_OWNER_URL, "SELECT pair FROM acme_host", "SELECT credentials FROM acme_account");
  for (const text of sealed) assert.match(text, /^sealed1:/);
  const [otherWeb, otherDevices] = [await freePort(), await freePort()];
  const key = join(server.dir, "secrets/root.key");
  const other = await Server.start({ ...db, ...authority.env, MEDTECH_VAULT_KEY_FILE: key, MEDTECH_HTTP_TLS_BIND: `127.0.0.1:${otherWeb}`, MEDTECH_MQTT_TLS_BIND: `127.0.0.1:${otherDevices}` });
  t.after(() => other.stop());
  assert.equal((await shown(otherWeb, "north.example", authority.root)).serial, first.serial);
  assert.equal((await shown(web, "north.example", authority.root)).serial, first.serial);
});

test("SIGHUP ends no server, with certificates or without", async () => {
  const server = await Server.start();
  try {
    for (const times of [1, 2, 3]) {
      server.process.kill("SIGHUP");
      await eventually("it was heard", () => server.log.split("asked to look again").length > times);
    }
    assert.equal(await (await fetch(server.url + "/healthz")).text(), "ok\n");
    assert.equal(server.process.exitCode, null);
    assert.equal(server.process.signalCode, null);
  } finally {
    await server.stop();
  }
});
