// Hostile, malformed and unlucky clients at every door: a clear refusal, nothing lost, nobody else disturbed, nothing told.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";
import { GARBAGE, raw, spoiled, wire } from "../lib/hostile.mjs";
import { Server, eventually } from "../lib/server.mjs";
import { arrive } from "../lib/visit.mjs";

let server, port, clinician, admin, guest, patient, practitioner;
before(async () => {
  server = await Server.start();
  port = Number(new URL(server.url).port);
  [clinician, admin] = [await server.signIn("clinician"), await server.signIn("admin")];
  guest = await arrive(server);
  const first = async (type) => (await server.api(clinician, "GET", `/fhir/R4/${type}?_count=1`)).body.entry[0].resource.id;
  [patient, practitioner] = [await first("Patient"), await first("Practitioner")];
});
after(() => server?.stop());

/** A request that may fail, but not badly: no 5xx, and a refusal with a stable code. */
async function ask(method, path, body, { token = clinician, type, headers = {} } = {}) {
  const fhir = path.startsWith("/fhir");
  const answer = await fetch(server.url + path, {
    method, body,
    headers: { ...(token && { authorization: `Bearer ${token}` }), ...(body !== undefined && { "content-type": type ?? (fhir ? "application/fhir+json" : "application/json") }), ...headers },
  });
  const text = await answer.text();
  const what = `${method} ${path.slice(0, 100)} ${String(body).slice(0, 100)}: ${answer.status} ${text.slice(0, 200)}`;
  assert.ok(answer.status < 500, what);
  if (answer.status >= 400 && method !== "HEAD") {
    assert.match(answer.headers.get("content-type"), /json/, what);
    const refusal = JSON.parse(text);
    if (refusal.resourceType) assert.ok(refusal.issue[0].code && refusal.issue[0].diagnostics, what);
    else assert.match(refusal.code, /^[a-z]+\.[a-z_]+$/, what);
  }
  return { status: answer.status, text };
}

async function unharmed() {
  assert.equal((await fetch(server.url + "/readyz")).status, 200);
  const metrics = await (await fetch(server.url + "/metrics")).text();
  assert.match(metrics, /medtech_panics_total 0\n/);
  return metrics;
}

const ids = () => ({ visit: guest.visit.id, conversation: guest.visit.conversation_id });
const bodies = () => [
  ["/api/identity/links/exchange", { link: "x" }],
  ["/api/tenants", { slug: "t" + randomUUID().slice(0, 6), name: "N", zone: "Europe/Berlin", domains: [`${randomUUID()}.example`] }, admin],
  ["/api/appointments", { patient_id: patient, practitioner_id: practitioner, start: "2027-01-01T10:00:00Z", end: "2027-01-01T10:20:00Z", reason: "r" }],
  ["/api/visits/open", { link: "x", device: { id: randomUUID(), name: "n" } }],
  [`/api/visits/${ids().visit}/device-check`, { camera: "ok", microphone: "ok", speaker: "ok" }, guest.token],
  [`/api/visits/${ids().visit}/consent`, { accepted: true, text_version: "1", language: "en" }, guest.token],
  [`/api/messaging/conversations/${ids().conversation}/messages`, { client_id: randomUUID(), body: { text: "t", file: { id: randomUUID() } } }, guest.token],
  [`/api/messaging/conversations/${ids().conversation}/receipts`, { delivered_upto: 1, read_upto: 1 }, guest.token],
  ["/api/records/devices", { patient_id: patient, name: "n", kind: "k" }],
  ["/fhir/R4/Patient", { resourceType: "Patient", name: [{ family: "F" }], birthDate: "1980-01-01" }],
  ["/fhir/R4/Observation", { resourceType: "Observation", status: "final", code: { text: "x" }, subject: { reference: "Patient/" + patient }, valueQuantity: { value: 1, unit: "kg" }, effectiveDateTime: "2020-01-01T00:00:00Z" }],
  ["/fhir/R4", { resourceType: "Bundle", type: "transaction", entry: [{ fullUrl: "urn:uuid:" + randomUUID(), resource: { resourceType: "Patient" }, request: { method: "POST", url: "Patient", ifNoneExist: "identifier=x" } }] }],
];

test("bodies: every place spoiled, and what is no JSON", async () => {
  for (const [path, good, token] of bodies()) {
    for (const body of spoiled(good)) await ask("POST", path, body, { token });
    for (const body of GARBAGE.slice(0, -1)) assert.ok((await ask("POST", path, body, { token })).status >= 400, `${path} ${String(body).slice(0, 20)}`);
    for (const type of ["text/plain", "application/xml", "multipart/form-data; boundary=x"]) {
      assert.ok((await ask("POST", path, JSON.stringify(good), { token, type })).status >= 400, `${path} ${type}`);
    }
  }
  // Too large: whoever still writes when the refusal comes may find the connection closed instead.
  for (const [path, , token] of bodies()) {
    const status = await ask("POST", path, GARBAGE.at(-1), { token }).then((answer) => answer.status, (error) => (error instanceof TypeError ? "closed" : Promise.reject(error)));
    assert.ok([400, 413, "closed"].includes(status), `${path} ${status}`);
  }
  await ask("POST", "/api/identity/sign-in", JSON.stringify({ email: "a\0@b.c", password: "\0".repeat(100_000) }), { token: null });
  await unharmed();
});

test("addresses: ids, queries and methods that make no sense", async () => {
  const at = [
    "/api/visits/x", "/api/visits?all=9999", "/api/visits?all=x", "/api/appointments/today?date=-9999-01-01", "/api/nothing", "/api",
    "/api/messaging/conversations/x", `/api/messaging/conversations/${ids().conversation}/messages?limit=99999999999999999999`,
    "/api/records/patients/%00/chart", "/api/records/patients/..%2f..%2fx/chart", "/api/notifications/alerts?board=%00", "/files/%2e%2e%2fx", "/files/x",
    "/fhir/R4/Patient/%00", "/fhir/R4/Patient/%ff", `/fhir/R4/Patient/${patient}/_history/99999999999999999999`, "/fhir/R4/$x",
  ];
  for (const path of at) for (const method of ["GET", "POST", "PUT", "PATCH", "DELETE", "MKCALENDAR"]) await ask(method, path, ["GET", "DELETE"].includes(method) ? undefined : "{}");
  const queries = [
    "_count=-1", "_count=99999999999999999999", "_cursor=AAAA", "_sort=" + "-".repeat(1000), "birthdate=ge9999999", "birthdate=9999-12-31", "name=%00", "name=%ff",
    "name=" + "a,".repeat(2000), "_id=" + "a,".repeat(2000), "_include=*", "_has:".repeat(50) + "=1", "organization.name.x.y=z", "_lastUpdated=gt1e400", "identifier=||||", "name:missing=maybe", "x".repeat(3000) + "=1",
  ];
  for (const query of queries) await ask("GET", `/fhir/R4/Patient?${query}`);
  for (const query of ["value-quantity=1e400", "value-quantity=NaN", "value-quantity=5|||", "date=gt2020-13-45", "code-value-quantity=$", "patient=Patient/" + "x".repeat(300)]) await ask("GET", `/fhir/R4/Observation?${query}`);
  // A cursor is the server's own word: altered it is refused, and it does not open another search.
  const page = (await server.api(clinician, "GET", "/fhir/R4/Patient?_count=2")).body;
  const next = new URL(page.link.find((l) => l.relation === "next").url);
  const [key, cursor] = [...next.searchParams].find(([k]) => !["_count"].includes(k));
  for (const other of [cursor.slice(0, -3), cursor + "AAAA", [...cursor].reverse().join("")]) {
    assert.equal((await ask("GET", `/fhir/R4/Patient?_count=2&${key}=${encodeURIComponent(other)}`)).status, 400, other);
  }
});

test("resources: deep, cyclic, huge, at the edges of numbers and times", async () => {
  const extension = (n) => '{"url":"u","extension":['.repeat(n) + '{"url":"u","valueString":"x"}' + "]}".repeat(n);
  const observation = (more) => `{"resourceType":"Observation","status":"final","code":{"text":"x"},${more}}`;
  const refused = [
    `{"resourceType":"Patient","extension":[${extension(1000)}]}`, observation('"valueQuantity":{"value":1e400}'), observation('"valueQuantity":{"value":1e1000000000}'),
    observation('"subject":{"reference":"Patient/../../x"}'), observation('"subject":{"reference":"Patient/\\u0000"}'), observation('"effectiveDateTime":"2020-01-01T24:00:00Z"'),
    observation('"valueInteger":99999999999'), '{"resourceType":"Patient","name":[null]}', '{"resourceType":"Patient","name":[]}', '{"resourceType":"Patient","_birthDate":5}',
  ];
  for (const body of refused) assert.ok([400, 422].includes((await ask("POST", `/fhir/R4/${/"resourceType":"(\w+)/.exec(body)[1]}`, body)).status), body.slice(0, 100));
  const cyclic = { resourceType: "Observation", status: "final", code: { text: "x" }, subject: { reference: "#a" }, contained: [{ resourceType: "Patient", id: "a", link: [{ other: { reference: "#a" }, type: "refer" }] }] };
  const made = JSON.parse((await ask("POST", "/fhir/R4/Observation", JSON.stringify(cyclic))).text);
  assert.equal((await ask("GET", `/fhir/R4/Observation?_id=${made.id}&_include=Observation:subject`)).status, 200);
  // A decimal comes back digit by digit.
  const digits = "0.1000000000000000000000000000000000001";
  const exact = await ask("POST", "/fhir/R4/Observation", observation(`"subject":{"reference":"Patient/${patient}"},"valueQuantity":{"value":${digits}}`));
  assert.ok(exact.text.includes(digits), exact.text);
  const entries = Array(20_000).fill({ request: { method: "GET", url: "Patient?_count=1000" } });
  assert.equal((await ask("POST", "/fhir/R4", JSON.stringify({ resourceType: "Bundle", type: "batch", entry: entries }))).status, 413);
  await unharmed();
});

test("HTTP: hosts, huge headers, half requests", async () => {
  const get = (headers, path = "/api/identity/me") => raw(port, `GET ${path} HTTP/1.1\r\n${headers}\r\n\r\n`.replace("TOKEN", `Authorization: Bearer ${clinician}\r\nConnection: close`));
  for (const host of [`localhost:${port}`, "demo.localhost", "DEMO.localhost:1", "demo.localhost.", "[::1]:9", "127.0.0.1"]) {
    assert.equal((await get(`Host: ${host}\r\nTOKEN`)).status, 200, host);
  }
  const slug = "h" + randomUUID().slice(0, 8);
  assert.equal((await server.api(admin, "POST", "/api/tenants", { slug, name: "Hill Clinic", zone: "Europe/Berlin", domains: [`${slug}.example`] })).status, 201);
  // The other clinic's addresses, however they are written, take no token of this one; and headers of proxies decide nothing.
  for (const host of [`${slug}.localhost`, `${slug}.LOCALHOST.:80`, `${slug}.example`, `${slug}.example.:443`]) {
    const { status, text } = await get(`Host: ${host}\r\nX-Forwarded-Host: demo.localhost\r\nForwarded: host=demo.localhost\r\nTOKEN`);
    assert.equal(status, 401, `${host} ${text}`);
    assert.match((await get(`Host: ${host}\r\nX-Forwarded-Host: demo.localhost\r\nConnection: close`, "/api/tenants/current")).text, /Hill Clinic/);
  }
  assert.equal((await get(`Host: demo.localhost\r\nX-Forwarded-Host: ${slug}.localhost\r\nTOKEN`)).status, 200);
  assert.equal((await get("Host: nobody.localhost\r\nTOKEN")).status, 404);
  assert.equal((await get("TOKEN")).status, 400);
  assert.equal((await get(`Host: demo.localhost\r\nHost: ${slug}.localhost\r\nTOKEN`)).status, 400);
  assert.equal((await get(`Host: demo.localhost\r\nX-Big: ${"x".repeat(300_000)}\r\nTOKEN`)).status, 431);
  assert.equal((await get(`Host: demo.localhost\r\n${"X-A: b\r\n".repeat(500)}TOKEN`)).status, 431);
  for (const bytes of ["\x16\x03\x01\x02\x00\x01", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\0\0\0\0\r\n\r\n", "POST /api/identity/sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"]) {
    const { status } = await raw(port, bytes, { end: true });
    assert.ok(!(status >= 500 || status === 200), `${JSON.stringify(bytes)} ${status}`);
  }
  const odd = await Promise.all(Array.from({ length: 50 }, (_, i) => fetch(server.url + "/healthz", { method: `ODD${i}` })));
  assert.ok(odd.every((r) => r.status === 405));
  const metrics = await unharmed();
  assert.ok(!metrics.includes("ODD") && !metrics.includes("MKCALENDAR"), "a method somebody invented is no label");
});

test("sockets: frames nobody should send end their own connection with a code", async () => {
  const { body: me } = await server.api(clinician, "GET", "/api/identity/me");
  const good = new Centrifuge(server.url.replace("http", "ws") + "/connection/websocket", { token: clinician, websocket: WebSocket });
  const subscription = good.newSubscription(`user:${me.user.id.replace(/^user:/, "")}`);
  subscription.subscribe();
  good.connect();
  await subscription.ready(10_000);
  const speak = (...messages) =>
    new Promise((resolve) => {
      const socket = new WebSocket(server.url.replace("http", "ws") + "/connection/websocket");
      socket.on("open", () => messages.forEach((m) => socket.send(m)));
      socket.on("close", resolve).on("error", () => {});
    });
  const connect = JSON.stringify({ id: 1, connect: { token: clinician } });
  for (const [what, ...messages] of [
    ["deep", "[".repeat(60_000)], ["binary", Buffer.from([1, 2, 3])], ["big", "x".repeat(2 << 20)], ["empty", ""], ["null", "null"], ["NUL", '{"id":1,"connect":{"token":"\\u0000"}}'],
    ["no token", '{"id":1,"connect":{}}'], ["before connect", '{"id":1,"subscribe":{"channel":"board:main"}}'], ["huge id", '{"id":99999999999999999999,"connect":{}}'], ["twice", connect + "\n" + connect.replace('"id":1', '"id":2')], ["garbage after", connect, "{{{"],
  ]) {
    const code = await speak(...messages);
    assert.ok((code >= 3500 && code < 5000) || [1002, 1003, 1007, 1009].includes(code), `${what}: ${code}`);
  }
  // A channel that is not one's own, or is none, answers alike.
  for (const channel of [`patient:${patient}`, "patient:nobody", "board:main", "queue:" + randomUUID(), "conversation:" + randomUUID(), "encounter:" + randomUUID(), "user:" + randomUUID(), "dragon:1", "user", ":", "\0", "x".repeat(10_000)]) {
    const stranger = new Centrifuge(server.url.replace("http", "ws") + "/connection/websocket", { token: guest.token, websocket: WebSocket });
    const refused = stranger.newSubscription(channel);
    const code = new Promise((resolve) => refused.on("unsubscribed", (c) => resolve(c.code)).on("error", (c) => resolve(c.error.code)).on("subscribed", () => resolve("subscribed")));
    const cut = new Promise((resolve) => stranger.on("disconnected", (c) => resolve(c.code)));
    refused.subscribe();
    stranger.connect();
    assert.ok([102, 103, 107].includes(await Promise.race([code, cut])) || (await Promise.race([cut, code])) >= 3500, channel.slice(0, 40));
    stranger.disconnect();
  }
  const ours = (method, data) => good.rpc(method, data).then(() => "done", (e) => e.code);
  for (const [method, data] of [["visit.admit", { id: "x" }], ["visit.admit", { id: randomUUID() }], ["visit.admit", null], ["message.send", { conversation_id: randomUUID(), client_id: randomUUID(), body: { text: "x" } }], ["message.send", [[[]]]], ["typing", { conversation_id: "\0" }], ["x".repeat(1000), {}]]) {
    assert.ok([102, 103, 104, 107, 108, 422].includes(await ours(method, data)), `${method.slice(0, 20)} ${JSON.stringify(data)}: ${await ours(method, data)}`);
  }
  assert.equal(good.state, "connected");
  good.disconnect();
  await unharmed();
});

test("uploads: offsets that lie, lengths that overflow, names that are paths", async () => {
  const tus = (method, path, headers, body) =>
    fetch(new URL(path, server.url), { method, body, headers: { authorization: `Bearer ${guest.token}`, "tus-resumable": "1.0.0", ...headers } });
  const meta = (pairs) => Object.entries(pairs).map(([k, v]) => `${k} ${Buffer.from(v).toString("base64")}`).join(",");
  const conversation = ids().conversation;
  const names = { filename: "../../../root.key\0\r\nX: y", filetype: "text/html\r\nX: y", conversation };
  for (const length of ["-1", "1e3", "99999999999999999999", "9223372036854775807", "", "0x10", "1, 2"]) {
    assert.ok([400, 413].includes((await tus("POST", "/files", { "upload-length": length, "upload-metadata": meta(names) })).status), length);
  }
  for (const metadata of ["", "filename !!!", meta({ filename: "x" }), meta({ conversation: "x" }), "x".repeat(10_000)]) {
    assert.equal((await tus("POST", "/files", { "upload-length": "10", "upload-metadata": metadata })).status, 400, metadata.slice(0, 50));
  }
  assert.ok([403, 404].includes((await tus("POST", "/files", { "upload-length": "10", "upload-metadata": meta({ conversation: randomUUID() }) })).status));
  const made = await tus("POST", "/files", { "upload-length": "10", "upload-metadata": meta(names) });
  assert.equal(made.status, 201);
  const at = made.headers.get("location");
  const patch = (offset, body, more = {}) => tus("PATCH", at, { "upload-offset": offset, "content-type": "application/offset+octet-stream", ...more }, body);
  for (const [offset, status] of [["5", 409], ["-1", 400], ["99999999999999999999", 400], ["x", 400], ["9223372036854775807", 409]]) assert.equal((await patch(offset, "12345")).status, status, offset);
  assert.ok([400, 413].includes((await patch("0", "12345678901234567890")).status), "more than was promised");
  assert.equal((await patch("0", "12345", { "upload-checksum": "sha256 " + Buffer.alloc(32).toString("base64") })).status, 460);
  const { headers } = await tus("HEAD", at, {});
  const stands = Number(headers.get("upload-offset"));
  assert.ok(stands === 0 || stands === 10, String(stands));
  if (stands === 0) assert.equal((await patch("0", "1234567890")).status, 204);
  const read = await fetch(new URL(at, server.url), { headers: { authorization: `Bearer ${guest.token}` } });
  assert.doesNotMatch(read.headers.get("content-disposition"), /\.\.|[/\\]/);
  assert.match(read.headers.get("content-disposition"), /^attachment/);
  assert.equal(read.headers.get("x"), null);
  assert.equal(read.headers.get("x-content-type-options"), "nosniff");
  assert.notEqual((await fetch(new URL(at, server.url), { headers: { authorization: `Bearer ${admin}` } })).status, 200);
  await unharmed();
});

test("devices: packs and packets nobody should send, and times that cannot be", async () => {
  const device = (await server.api(clinician, "POST", "/api/records/devices", { patient_id: patient, name: "Band", kind: "wearable" })).body;
  const publish = (payload, topic = device.topic) => {
    const child = spawn("mosquitto_pub", ["-h", "127.0.0.1", "-p", String(server.mqttPort), "-V", "5", "-u", device.username, "-P", device.password, "-q", "1", "-t", topic, "-s"], { stdio: ["pipe", "ignore", "ignore"] });
    child.stdin.on("error", () => {});
    child.stdin.end(payload);
    return new Promise((resolve) => child.once("exit", resolve));
  };
  const live = new Centrifuge(server.url.replace("http", "ws") + "/connection/websocket", { token: clinician, websocket: WebSocket });
  const moments = [];
  const watch = live.newSubscription(`patient:${patient}`);
  watch.on("publication", ({ data }) => data.kind === "reading" && moments.push(Date.parse(data.at)));
  watch.subscribe();
  live.connect();
  await watch.ready(10_000);
  const record = (more) => JSON.stringify([{ n: "heart-rate", u: "beat/min", v: 61, ...more }]);
  const now = Date.now() / 1000;
  for (const payload of [
    '[{"n":"heart-rate","u":"beat/min","v":NaN}]', '[{"n":"heart-rate","v":1e400}]', record({ v: "61" }), record({ n: "../x" }), record({ n: "a\0" }), record({ u: "x".repeat(100) }), record({ t: 1e300 }), record({ t: -1e300 }),
    record({ t: now + 400 * 86_400 }), record({ t: 86_400 * 30 }), record({ "x_": 1 }), "[]", "{}", "[".repeat(50_000), JSON.stringify(Array(5000).fill({ n: "heart-rate", u: "beat/min", v: 1 })), "x".repeat(1 << 20), "\xff\xfe",
  ]) await publish(payload);
  for (const topic of ["devices/+/readings", "#", "$SYS/x", device.topic + "/x", `devices/${randomUUID()}/readings`, device.topic.replace("readings", "commands")]) await publish(record({ v: 199, t: now }), topic);
  for (const bytes of [[0x10, 0xff, 0xff, 0xff, 0xff, 0xff], [0x10, 0x00], [0x30, 0x02, 0x00, 0x00], [0xf0, 0xff, 0xff, 0xff, 0x7f], [0x10, 0xff, 0xff, 0xff, 0x7f], [0x47, 0x45, 0x54, 0x20, 0x2f]]) {
    const { text } = await raw(server.mqttPort, Buffer.from(bytes), { end: true });
    assert.ok(text.length < 20);
  }
  assert.equal(await publish(record({ v: 62, t: now })), 0);
  const found = await eventually("the good reading", async () => {
    const { body } = await server.api(clinician, "GET", `/fhir/R4/Observation?device=Device/${device.id}&_count=50`);
    return body.entry?.some((e) => e.resource.valueQuantity.value === 62) && body.entry;
  });
  // Two packs were of a device whose clock is ahead: they count, at the time they came.
  const taken = found.map(({ resource: o }) => [o.valueQuantity.value, Date.parse(o.effectiveDateTime) <= Date.now()]);
  assert.deepEqual(taken.sort(), [[61, true], [61, true], [62, true]]);
  await eventually("they are seen live", () => moments.length === 3);
  assert.ok(moments.every((at) => at <= Date.now() + 300_000), "nor does a screen show a time that has not come");
  live.disconnect();
  await unharmed();
});

test("a lost socket in mid-visit: the others go on, and the lost one comes back to its place", async () => {
  const other = await Server.start();
  const cuttable = await wire(Number(new URL(other.url).port));
  try {
    const [host, visitor] = [await other.signIn("clinician"), await arrive(other)];
    const { id, conversation_id: conversation } = visitor.visit;
    const join = (at, token) => {
      const client = new Centrifuge(`ws://localhost:${at}/connection/websocket`, { token, websocket: WebSocket, minReconnectDelay: 300, maxReconnectDelay: 500 });
      const got = [];
      const chat = client.newSubscription(`conversation:${conversation}`, { recoverable: true, positioned: true });
      chat.on("publication", ({ data }) => data.kind === "message.created" && got.push(data.message.body.text));
      chat.subscribe();
      client.newSubscription(`encounter:${id}`).subscribe();
      client.connect();
      return { client, chat, got };
    };
    const [near, far] = [join(new URL(other.url).port, host), join(cuttable.port, visitor.token)];
    await Promise.all([near.chat.ready(10_000), far.chat.ready(10_000)]);
    assert.equal((await other.api(host, "POST", `/api/visits/${id}/admit`)).status, 200);
    const arrived = (await other.api(host, "GET", `/api/visits/${id}`)).body.arrived_at;
    const lost = new Promise((resolve) => far.chat.once("subscribing", resolve));
    cuttable.cut();
    await lost;
    await near.client.rpc("message.send", { conversation_id: conversation, client_id: randomUUID(), body: { text: "Are you there?" } });
    await eventually("the host hears itself", () => near.got.length === 1);
    await eventually("the lost one has what it missed", () => far.got.length === 1);
    await far.client.rpc("message.send", { conversation_id: conversation, client_id: randomUUID(), body: { text: "Back." } });
    await eventually("and is heard", () => near.got.at(-1) === "Back.");
    const visit = (await other.api(host, "GET", `/api/visits/${id}`)).body;
    assert.deepEqual([visit.state, visit.arrived_at], ["admitted", arrived]);
    near.client.disconnect();
    far.client.disconnect();
  } finally {
    await cuttable.close();
    await other.stop();
  }
});

test("memory: thousands of bad requests leave no growth", async () => {
  const resident = async () => Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${server.process.pid}/status`, "utf8"))[1]);
  const round = async (n) => {
    for (let i = 0; i < n; i += 50) {
      await Promise.all(Array.from({ length: 50 }, () => [
        fetch(server.url + "/api/visits/open", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ link: randomUUID(), device: { id: randomUUID() } }) }).then((r) => r.arrayBuffer()),
        fetch(server.url + `/x${randomUUID()}`, { headers: { authorization: `Bearer mt_1_${randomUUID()}` } }).then((r) => r.arrayBuffer()),
        fetch(server.url + "/fhir/R4/Patient", { method: "POST", headers: { authorization: `Bearer ${clinician}`, "content-type": "application/fhir+json" }, body: `{"resourceType":"Patient","${randomUUID()}":1}` }).then((r) => r.arrayBuffer()),
        raw(server.mqttPort, Buffer.from([0x10, 0x00]), { end: true }),
      ]).flat());
    }
  };
  // The database's page cache and the allocator fill up once; what leaks grows in every round.
  const seen = [];
  for (let i = 0; i < 5; i++) {
    await round(400);
    seen.push(await resident());
  }
  const steps = seen.slice(1).map((kb, i) => kb - seen[i]);
  assert.ok(Math.min(...steps) < 512, `every round of requests left something: ${seen} KB`);
});

test("nothing clinical, and no secret, in logs, addresses or metrics", async () => {
  const other = await Server.start({ MEDTECH_LOG: "debug" });
  other.logLimit = 50_000_000;
  try {
    const tag = "Zq" + randomUUID().slice(0, 8);
    const host = await other.signIn("clinician");
    const visitor = await arrive(other);
    const { id, conversation_id: conversation } = visitor.visit;
    const subject = (await other.api(host, "GET", `/api/visits/${id}`)).body.subject_ref;
    await other.api(host, "POST", `/api/visits/${id}/admit`);
    const media = (await other.api(visitor.token, "POST", `/api/visits/${id}/media`)).body;
    const chat = new Centrifuge(other.url.replace("http", "ws") + "/connection/websocket", { token: host, websocket: WebSocket });
    chat.connect();
    await chat.ready(10_000);
    await chat.rpc("message.send", { conversation_id: conversation, client_id: randomUUID(), body: { text: `${tag}live hurts` } });
    chat.disconnect();
    await other.api(visitor.token, "POST", `/api/messaging/conversations/${conversation}/messages`, { client_id: randomUUID(), body: { text: `${tag}text hurts` } });
    const meta = Object.entries({ filename: `${tag}file.png`, filetype: "image/png", conversation }).map(([k, v]) => `${k} ${Buffer.from(v).toString("base64")}`).join(",");
    const file = await fetch(other.url + "/files", { method: "POST", headers: { authorization: `Bearer ${visitor.token}`, "tus-resumable": "1.0.0", "upload-length": "9", "upload-metadata": meta, "content-type": "application/offset+octet-stream" }, body: "123456789" });
    assert.equal(file.status, 201);
    const device = (await other.api(host, "POST", "/api/records/devices", { patient_id: subject.slice(8), name: `${tag}band`, kind: "wearable" })).body;
    for (const payload of [`[{"n":"heart-rate","u":"beat/min","v":77.31415}]`, `${tag}garbage`]) {
      const child = spawn("mosquitto_pub", ["-h", "127.0.0.1", "-p", String(other.mqttPort), "-u", device.username, "-P", device.password, "-q", "1", "-t", device.topic, "-m", payload]);
      await new Promise((resolve) => child.once("exit", resolve));
    }
    await other.api(host, "POST", "/fhir/R4/Patient", { resourceType: "Patient", name: [{ family: `${tag}family` }], birthDate: `${tag}date` });
    const made = (await other.api(host, "POST", "/fhir/R4/Observation", {
      resourceType: "Observation", status: "final", code: { text: `${tag}potassium` }, subject: { reference: subject }, valueQuantity: { value: 6.831415, unit: "mmol/L" },
      category: [{ coding: [{ system: "http://terminology.hl7.org/CodeSystem/observation-category", code: "laboratory" }] }],
      interpretation: [{ coding: [{ system: "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", code: "HH" }] }],
    })).body;
    await other.api(host, "POST", "/fhir/R4/DiagnosticReport", { resourceType: "DiagnosticReport", status: "final", subject: { reference: subject }, code: { text: `${tag}electrolytes` }, result: [{ reference: `Observation/${made.id}` }] });
    await other.api(host, "GET", `/fhir/R4/Patient?family=${tag}search`);
    await other.api(null, "POST", "/api/identity/sign-in", { email: `${tag}@mail.example`, password: `${tag}password` });
    await fetch(other.url + "/fhir/R4/Patient", { method: "POST", headers: { authorization: `Bearer ${host}`, "content-type": "application/fhir+json" }, body: `{"resourceType":"Patient","${tag}` });
    await other.api(host, "POST", `/api/visits/${id}/end`);
    await eventually("the finished Encounter", async () => (await other.api(host, "GET", `/fhir/R4/Encounter?identifier=urn:uuid:${id}`)).body.entry?.[0]?.resource.status === "finished");
    const person = (await other.api(host, "GET", `/fhir/R4/${subject}`)).body;
    const metrics = await (await fetch(other.url + "/metrics")).text();
    const outbox = await (await fetch(other.url + "/dev/outbox", { headers: { authorization: `Bearer ${host}` } })).text();
    const secrets = [
      tag, tag.toLowerCase(), Buffer.from(`${tag}file.png`).toString("base64"), "77.31415", "6.831415", person.name[0].family, person.name[0].given[0], person.birthDate, "Blood pressure review",
      host, visitor.token, media.token, visitor.link, device.password, "mt_1_", ...Object.values(other.addresses).map((a) => a.split("#")[1]).filter(Boolean),
    ];
    const log = other.log.replaceAll(/\u001b\[[0-9;]*m/g, "");
    assert.ok(log.includes("DEBUG"), "the log is on");
    for (const secret of secrets) {
      const line = log.split("\n").find((l) => l.includes(secret));
      assert.equal(line, undefined, `${secret} in the log`);
      assert.ok(!metrics.includes(secret), `${secret} in the metrics`);
    }
    for (const secret of [tag, "6.831415"]) assert.ok(!outbox.includes(secret), `${secret} in a mail`);
  } finally {
    await other.stop();
  }
});
