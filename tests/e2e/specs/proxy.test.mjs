// Behind nginx, as many clinics will stand: no request slips in between two, nobody makes up an address, and live channels
// and uploads pass.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { accessSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { attacks, hidden, wire } from "../lib/framing.mjs";
import { freePort } from "../lib/ports.mjs";
import { Server, eventually } from "../lib/server.mjs";
import { arrive } from "../lib/visit.mjs";

const nginx = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/bin/nginx"].find((path) => {
  try {
    return accessSync(path) ?? true;
  } catch {
    return false;
  }
});
const options = { skip: !nginx && "nginx is not installed (tests/scripts/install.sh)" };

let server, proxy, port, dir;
before(async () => {
  if (!nginx) return;
  // This machine's usual address is the proxy's; clients come from others of its.
  server = await Server.start({ MEDTECH_HTTP_TRUSTED_PROXIES: "127.0.0.1/32" });
  dir = mkdtempSync(join(tmpdir(), "medtech-nginx-"));
  port = await freePort();
  const own = new URL(server.url).port;
  const places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${dir}/${name};`).join(" ");
  writeFileSync(join(dir, "nginx.conf"), `
    daemon off; worker_processes 1; pid ${dir}/pid; error_log ${dir}/error.log warn;
    events { worker_connections 256; }
    http {
      ${places}
      log_format told '$request_method $uri $upstream_status';
      access_log ${dir}/access.log told;
      map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
      upstream medtech { server 127.0.0.1:${own}; keepalive 4; }
      server {
        listen 127.0.0.1:${port};
        client_max_body_size 0;
        location / {
          proxy_pass http://medtech; proxy_http_version 1.1; proxy_request_buffering off;
          proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
          proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
        }
      }
    }`);
  proxy = spawn(nginx, ["-e", join(dir, "error.log"), "-c", join(dir, "nginx.conf")], { stdio: "ignore" });
  await eventually("nginx", async () => (await ask("/healthz")).status === 200);
});
after(async () => {
  if (proxy?.exitCode === null) {
    proxy.kill();
    await new Promise((resolve) => proxy.once("exit", resolve));
  }
  await server?.stop();
  if (dir) rmSync(dir, { recursive: true, force: true });
});

/** A request through nginx, or to the server itself, from an address of this machine. */
function ask(path, { from = "127.0.0.2", headers = {}, to = port } = {}) {
  return new Promise((resolve, reject) => {
    const agent = new Agent({ keepAlive: false });
    request({ host: "127.0.0.1", port: to, path, localAddress: from, headers: { host: `localhost:${to}`, ...headers }, agent }, (answer) => {
      let text = "";
      answer.on("data", (chunk) => (text += chunk)).on("end", () => resolve({ status: answer.statusCode, text }));
    }).on("error", reject).end();
  });
}

/** How many requests the server has answered that were not this collector's own, and how many of them for what hides. */
async function answered() {
  const metrics = await (await fetch(server.url + "/metrics")).text();
  const counts = [...metrics.matchAll(/^medtech_http_request_seconds_count\{(.*)\} (\d+)$/gm)].map(([, labels, n]) => [labels, Number(n)]);
  const others = counts.filter(([labels]) => !(labels.includes('route="/metrics"') && labels.includes('status="200"')));
  const sum = (list) => list.reduce((all, [, n]) => all + n, 0);
  return { all: sum(others), hidden: sum(others.filter(([labels]) => labels.includes('route="/metrics"'))) };
}

/** What nginx has handed on. */
function handedOn() {
  const lines = readFileSync(join(dir, "access.log"), "latin1").split("\n").filter((line) => /\d$/.test(line));
  return { all: lines.length, hidden: lines.filter((line) => line.startsWith("GET /metrics ")).length };
}

test("what nginx hands on and what the server answers are the same requests, whatever is sent", options, async () => {
  const open = () => connect({ port, host: "127.0.0.1", localAddress: "127.0.0.2" });
  const good = await wire(open, hidden.replace("/metrics", "/healthz") + hidden.replace("/metrics", "/healthz"));
  assert.deepEqual(good.statuses, [200, 200], "two requests in a row are two");
  const start = { server: await answered(), nginx: handedOn() };
  /** What is no request to the server's routes (400) is not counted there; what hides is on neither side or on both. */
  const same = async (since) => {
    const [ours, theirs] = [await answered(), handedOn()];
    const [by, handed] = [[ours, since.server], [theirs, since.nginx]].map(([now, then]) => ({ all: now.all - then.all, hidden: now.hidden - then.hidden }));
    return by.all > 0 && handed.all > 0 && by.all <= handed.all && by.hidden === handed.hidden;
  };
  for (const [name, bytes] of Object.entries(attacks)) {
    const before = { server: await answered(), nginx: handedOn() };
    const { got } = await wire(open, bytes);
    assert.ok(!got.includes("medtech_http_request_seconds"), `${name}: the hidden request was answered`);
    assert.equal((await ask("/healthz")).status, 200, `${name}: the next in line`);
    await eventually(`${name}: both have counted the same`, () => same(before));
  }
  // Once more over all of them, for what was counted late.
  await eventually("both have counted the same", () => same(start));
  const theirs = handedOn();
  assert.ok(theirs.all - start.nginx.all >= Object.keys(attacks).length, "the test itself counts");
});

test("behind the proxy nobody is this machine, and nobody makes up an address", options, async () => {
  for (const headers of [{}, { "x-forwarded-for": "127.0.0.1" }, { "x-forwarded-for": "::1", "x-real-ip": "127.0.0.1", forwarded: "for=127.0.0.1" }]) {
    assert.equal((await ask("/metrics", { headers })).status, 401, JSON.stringify(headers));
  }
  const limited = await Server.start({ MEDTECH_HTTP_TRUSTED_PROXIES: "127.0.0.1/32", MEDTECH_LIMITS_NETWORK_PER_SECOND: "1", MEDTECH_LIMITS_NETWORK_BURST: "20" });
  try {
    const own = Number(new URL(limited.url).port);
    // As nginx writes it: what the client said, and behind it where it came from.
    const by = (proxied, made, n, from) => ask("/api/openapi.json", { from: proxied, to: own, headers: { "x-forwarded-for": `198.51.${n}.7${made ? `, ${from}` : ""}` } });
    const statuses = async (proxied, made, from) => {
      const all = [];
      for (let n = 0; n < 40; n += 1) all.push((await by(proxied, made, n, from)).status);
      return all;
    };
    assert.ok((await statuses("127.0.0.1", true, "203.0.113.9")).includes(429), "one network by the proxy's word, whatever it says itself");
    assert.equal((await by("127.0.0.1", true, 1, "192.0.2.9")).status, 200, "another network by the proxy's word");
    assert.ok((await statuses("127.0.0.7", false)).includes(429), "who is no proxy is who the connection says");
  } finally {
    await limited.stop();
  }
});

test("live channels pass both ways", options, async () => {
  const socket = connect({ port, host: "127.0.0.1", localAddress: "127.0.0.2" });
  const chunks = [];
  socket.on("data", (chunk) => chunks.push(chunk)).on("error", () => {});
  const got = () => Buffer.concat(chunks);
  socket.write(`GET /connection/websocket HTTP/1.1\r\nHost: localhost:${port}\r\nOrigin: http://localhost:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`);
  await eventually("the upgrade", () => got().includes("\r\n\r\n"));
  const head = got().toString("latin1");
  assert.match(head, /^HTTP\/1\.1 101 /);
  assert.ok(head.includes("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "RFC 6455, 1.3");
  // A ping with "ab" in it, masked with zeros, and its pong (RFC 6455, 5.5.3).
  socket.write(Buffer.from([0x89, 0x82, 0, 0, 0, 0, 0x61, 0x62]));
  await eventually("the pong", () => got().includes(Buffer.from([0x8a, 0x02, 0x61, 0x62])));
  socket.destroy();
});

test("an upload passes, piece by piece and whole", options, async () => {
  const through = Object.assign(Object.create(Server.prototype), server, { url: `http://localhost:${port}` });
  const guest = await arrive(through);
  const bytes = Buffer.from(Uint8Array.from({ length: 3_000_000 }, (_, n) => (n * 31) % 251));
  const metadata = Object.entries({ filename: "x.bin", conversation: guest.visit.conversation_id }).map(([k, v]) => `${k} ${Buffer.from(v).toString("base64")}`).join(",");
  const send = (path, method, headers, body) => fetch(new URL(path, through.url), { method, body, headers: { authorization: `Bearer ${guest.token}`, "tus-resumable": "1.0.0", ...headers } });
  const made = await send("/files", "POST", { "upload-length": String(bytes.length), "upload-metadata": metadata });
  assert.equal(made.status, 201);
  const place = made.headers.get("location");
  for (const [from, to] of [[0, 1_000_000], [1_000_000, bytes.length]]) {
    const put = await send(place, "PATCH", { "upload-offset": String(from), "content-type": "application/offset+octet-stream" }, bytes.subarray(from, to));
    assert.equal(put.status, 204);
    assert.equal(put.headers.get("upload-offset"), String(to));
  }
  assert.deepEqual(Buffer.from(await (await send(place, "GET", {})).arrayBuffer()), bytes);
});
