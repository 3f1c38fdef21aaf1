// TLS of our own, by programs of others: openssl, curl, Mosquitto and Chromium; what is refused at the start; and where a
// message ends, with and without TLS.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connect as secure } from "node:tls";
import { launch, person, received } from "../lib/browser.mjs";
import { attacks, hidden, wire } from "../lib/framing.mjs";
import { freePort } from "../lib/ports.mjs";
import { Server, binary, eventually } from "../lib/server.mjs";
import { authority, spki } from "../lib/tls.mjs";

let server, ours, foreign, web, devices, directory;
before(async () => {
  [ours, foreign] = [authority(), authority("Another authority")];
  directory = mkdtempSync(join(tmpdir(), "medtech-tls-"));
  put("main", ours.issue("main", "localhost", "demo.localhost", "127.0.0.1"));
  put("north", ours.issue("north", "north.localhost"));
  [web, devices] = [await freePort(), await freePort()];
  server = await Server.start({ MEDTECH_TLS_DIRECTORY: directory, MEDTECH_HTTP_TLS_BIND: `127.0.0.1:${web}`, MEDTECH_MQTT_TLS_BIND: `127.0.0.1:${devices}` });
});
after(async () => {
  await server?.stop();
  for (const dir of [directory, ours?.dir, foreign?.dir]) if (dir) rmSync(dir, { recursive: true, force: true });
});

/** Both files at once, as far as files can be. */
function put(name, { cert, key }) {
  for (const [from, end] of [[key, "key"], [cert, "crt"]]) {
    copyFileSync(from, join(directory, `${name}.new`));
    renameSync(join(directory, `${name}.new`), join(directory, `${name}.${end}`));
  }
}

/** What `openssl s_client` negotiated; null when there was no handshake. */
function handshake(port, ...options) {
  const { stdout, status } = spawnSync("openssl", ["s_client", "-connect", `localhost:${port}`, "-CAfile", ours.ca, "-verify_return_error", ...options], { input: "", encoding: "utf8", timeout: 20_000 });
  const suite = /Cipher is (\S+)/.exec(stdout)?.[1];
  if (status !== 0 || !suite || suite === "(NONE)") return null;
  return { suite, version: /New, (\S+),/.exec(stdout)?.[1], alpn: /ALPN protocol: (\S+)/.exec(stdout)?.[1], name: /subject=CN ?= ?(\S+)/.exec(stdout)?.[1] };
}

test("TLS 1.2 and 1.3 with authenticated encryption and nothing else is spoken", () => {
  for (const port of [web, devices]) {
    for (const [version, suites] of [["-tls1_3", ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"]], ["-tls1_2", ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"]]]) {
      for (const suite of suites) {
        const list = version === "-tls1_3" ? "-ciphersuites" : "-cipher";
        assert.equal(handshake(port, version, list, suite)?.suite, suite, `${port} ${suite}`);
      }
      assert.ok(/AES.?256.GCM/.test(handshake(port, version).suite), "the strongest first");
    }
    for (const old of ["-tls1", "-tls1_1"]) assert.equal(handshake(port, old, "-cipher", "ALL:@SECLEVEL=0"), null, `${port} ${old}`);
    for (const weak of ["ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES256-SHA", "ECDHE-ECDSA-AES128-SHA256", "AES256-GCM-SHA384", "DHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-CCM", "NULL-SHA256", "AECDH-AES256-SHA"]) {
      assert.equal(handshake(port, "-tls1_2", "-cipher", `${weak}:@SECLEVEL=0`), null, `${port} ${weak}`);
    }
    assert.equal(handshake(port, "-tls1_3", "-groups", "P-521"), null, "a curve that is not offered");
  }
  assert.equal(handshake(web, "-alpn", "h2,http/1.1").alpn, "http/1.1");
  assert.equal(handshake(web, "-CAfile", foreign.ca), null, "the test itself checks certificates");
});

test("each name gets its own certificate, and curl and others believe it", async () => {
  assert.equal(handshake(web, "-servername", "north.localhost").name, "north.localhost");
  assert.equal(handshake(web, "-servername", "demo.localhost").name, "localhost");
  assert.equal(handshake(web, "-servername", "stranger.example"), null, "no certificate of somebody else's name");
  const curl = (ca, ...more) => spawnSync("curl", ["-sS", "--noproxy", "*", "--cacert", ca, ...more, `https://localhost:${web}/healthz`], { encoding: "utf8" });
  assert.equal(curl(ours.ca).stdout, "ok\n");
  assert.equal(curl(ours.ca, "--tlsv1.2", "--tls-max", "1.2").stdout, "ok\n");
  assert.equal(curl(foreign.ca).status, 60, "an authority that does not vouch for us");
  assert.equal(curl(ours.ca, "--tls-max", "1.1").status, 35);
  const clear = spawnSync("curl", ["-sS", "--noproxy", "*", `http://localhost:${web}/healthz`], { encoding: "utf8" });
  assert.notEqual(clear.status, 0, "nothing is answered in clear there");
  const metrics = await (await fetch(server.url + "/metrics")).text();
  const ends = Number(/medtech_tls_certificate_expiry_seconds\{names="north.localhost"\} (\d+)/.exec(metrics)?.[1]);
  assert.ok(Math.abs(ends - Date.now() / 1000 - 86_400) < 600, `ends in a day: ${ends}`);
});

test("devices publish by TLS, and by nothing else on that port", async () => {
  const clinician = await server.signIn("clinician");
  const patient = (await server.api(clinician, "GET", "/fhir/R4/Patient?_count=1")).body.entry[0].resource.id;
  const made = await server.api(clinician, "POST", "/api/records/devices", { patient_id: patient, name: "Band", kind: "wearable" });
  assert.equal(made.status, 201, JSON.stringify(made.body));
  const { id, username, password, topic } = made.body;
  const publish = (...more) => {
    const reading = JSON.stringify([{ n: "heart-rate", u: "beat/min", v: 66, t: Date.now() / 1000 }]);
    const child = spawn("mosquitto_pub", ["-h", "localhost", "-p", String(devices), "-u", username, "-P", password, "-q", "1", "-t", topic, "-m", reading, ...more], { stdio: "ignore" });
    return new Promise((resolve) => child.once("exit", resolve));
  };
  assert.notEqual(await publish(), 0);
  assert.notEqual(await publish("--cafile", foreign.ca), 0);
  assert.equal(await publish("--cafile", ours.ca), 0);
  await eventually("the reading", async () => (await server.api(clinician, "GET", `/fhir/R4/Observation?device=Device/${id}`)).body.entry?.length === 1);
});

test("the visit's first steps over https and wss, in Chromium", async () => {
  const browser = await launch(`--ignore-certificate-errors-spki-list=${spki(join(directory, "main.crt"))}`);
  try {
    const sockets = [];
    const [clinician, patient] = [await person(browser), await person(browser)];
    for (const page of [clinician, patient]) page.on("websocket", (socket) => sockets.push(socket.url()));
    const clear = [];
    for (const page of [clinician, patient]) page.on("request", (request) => /^(http|ws):/.test(request.url()) && clear.push(request.url()));
    assert.ok(server.addresses.patient.startsWith(`https://localhost:${web}/`), server.addresses.patient);
    const on = (page, name) => page.getByTestId(name);
    await clinician.goto(server.addresses.clinician);
    await clinician.waitForURL("**/app/today");
    await clinician.goto(`https://localhost:${web}/app/queue`);
    const opened = await patient.goto(server.addresses.patient);
    assert.equal((await opened.securityDetails()).protocol, "TLS 1.3");
    await on(patient, "visit-start").click();
    const next = on(patient, "consent-check");
    await eventually("the device check passes", async () => {
      for (const button of ["device-allow", "device-continue"]) {
        if (await on(patient, button).isEnabled({ timeout: 200 }).catch(() => false)) await on(patient, button).click({ timeout: 1000 }).catch(() => {});
      }
      return next.isVisible();
    });
    await next.check();
    await on(patient, "consent-accept").click();
    await on(patient, "waiting-room").waitFor();
    await on(clinician, "queue-row").first().waitFor();
    await on(clinician, "admit").first().click();
    await on(patient, "consult").waitFor();
    await eventually("pictures arrive", async () => (await received(patient)).framesDecoded > 10, 60_000);
    const paths = sockets.map((url) => new URL(url)).map((url) => `${url.protocol}//${url.host}${url.pathname}`);
    assert.ok(paths.includes(`wss://localhost:${web}/connection/websocket`) && paths.some((p) => p.includes("/rtc")), paths.join());
    assert.deepEqual(paths.filter((p) => !p.startsWith("wss://")), []);
    assert.deepEqual(clear, [], "nothing in clear");
    assert.deepEqual([...clinician.problems, ...patient.problems], []);
  } finally {
    await browser.close();
  }
});

test("new certificates are taken over and no connection is dropped for it", async () => {
  const open = () =>
    new Promise((resolve, reject) => {
      const socket = secure({ port: web, host: "localhost", servername: "north.localhost", ca: ours.pem() }, () => resolve(socket)).once("error", reject);
    });
  const ask = (socket) =>
    new Promise((resolve, reject) => {
      socket.once("data", (chunk) => resolve(String(chunk).split(" ")[1])).once("close", () => reject(new Error("closed")));
      socket.write("GET /healthz HTTP/1.1\r\nHost: north.localhost\r\n\r\n");
    });
  const old = await open();
  const serial = old.getPeerCertificate().serialNumber;
  assert.equal(await ask(old), "200");
  put("north", ours.issue("north2", "north.localhost"));
  server.process.kill("SIGHUP");
  await eventually("another certificate", async () => {
    const fresh = await open();
    const shown = fresh.getPeerCertificate().serialNumber;
    fresh.destroy();
    return shown !== serial;
  });
  assert.equal(await ask(old), "200", "the connection of before");
  old.destroy();
});

/** How a start with these keys ends; it must, by itself. */
function start(extra, command = "serve") {
  const dir = mkdtempSync(join(tmpdir(), "medtech-start-"));
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("MEDTECH_"));
  const env = { ...Object.fromEntries(inherited), MEDTECH_DATA_DIR: dir, MEDTECH_HTTP_BIND: "127.0.0.1:0", MEDTECH_MQTT_BIND: "127.0.0.1:0", MEDTECH_MEDIA_UDP_PORT: "0", ...extra };
  const { status, stdout, stderr } = spawnSync(binary, [command], { env, encoding: "utf8", timeout: 60_000 });
  rmSync(dir, { recursive: true, force: true });
  return { status, text: stdout + stderr };
}

test("what would stand open to others is refused at the start, with the mending", () => {
  const named = { MEDTECH_PUBLIC_URL: "https://clinic.example" };
  for (const [extra, word] of [
    [{ ...named, MEDTECH_HTTP_BIND: "0.0.0.0:0" }, "http.bind"],
    [{ ...named, MEDTECH_MQTT_BIND: "0.0.0.0:0" }, "mqtt.bind"],
    [{ ...named, MEDTECH_HTTP_BIND: "0.0.0.0:0", MEDTECH_HTTP_TRUSTED_PROXIES: "0.0.0.0/0" }, "trusted_proxies"],
    [{ ...named, MEDTECH_DEMO: "true" }, "demo"],
    [{ MEDTECH_DEMO: "true", MEDTECH_HTTP_BIND: "0.0.0.0:0", MEDTECH_HTTP_ALLOW_PLAIN: "true" }, "demo"],
    [{ MEDTECH_DATABASE_URL: "postgres://u:geheim@db.invalid/m" }, "sslmode=verify-full"],
    [{ MEDTECH_DATABASE_URL: "postgres://u:geheim@db.invalid/m?sslmode=require" }, "sslmode=verify-full"],
    [{ MEDTECH_MAIL_SMTP: "smtp://u:geheim@mail.invalid?tls=opportunistic" }, "smtps://"],
    [{ MEDTECH_MQTT_BROKER: "mqtt://u:geheim@broker.invalid" }, "mqtts://"],
  ]) {
    const { status, text } = start(extra);
    assert.equal(status, 1, `${JSON.stringify(extra)}: ${text}`);
    assert.ok(text.includes(word) && text.includes("To mend it"), text);
    assert.ok(!text.includes("geheim"), "no password");
    assert.ok(!text.includes("ready at"));
  }
  const told = start({ ...named, MEDTECH_MQTT_BIND: "0.0.0.0:0", MEDTECH_MQTT_ALLOW_PLAIN: "true" }, "doctor");
  assert.match(told.text, /WARNING, accepted by the configuration: mqtt\.bind/);
  assert.match(start({ ...named, MEDTECH_MQTT_BIND: "0.0.0.0:0" }, "doctor").text, /WRONG {2}mqtt\.bind/);
});

test("where a message ends is never in doubt: each attack is refused once, with and without TLS", async () => {
  const port = Number(new URL(server.url).port);
  const ways = { plain: () => connect(port, "127.0.0.1"), tls: () => secure({ port: web, host: "localhost", servername: "localhost", ca: ours.pem() }) };
  for (const [way, open] of Object.entries(ways)) {
    const one = hidden.replace("/metrics", "/healthz");
    // The second says that it is the last, so that the server closes and nobody waits for silence.
    const good = await wire(open, one + one.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    assert.ok(good.closed, `${way}: the server closes where it was asked to`);
    assert.deepEqual(good.statuses, [200, 200], `${way}: two requests in a row are two`);
    for (const [name, bytes] of Object.entries(attacks)) {
      const { statuses, got } = await wire(open, bytes);
      assert.ok(statuses.length <= 1, `${way}, ${name}: more than one answer: ${statuses}`);
      assert.ok(!got.includes("medtech_http_request_seconds"), `${way}, ${name}: the hidden request was answered`);
      assert.ok(statuses.every((s) => s >= 400), `${way}, ${name}: ${statuses}`);
    }
  }
});
