// Every door, knocked at by clients that we did not write.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";
import { Centrifuge } from "centrifuge";
import { Client as FhirClient } from "fhir-kit-client";
import * as tus from "tus-js-client";
import WebSocket from "ws";
import { Server, eventually } from "../lib/server.mjs";
import { arrive } from "../lib/visit.mjs";

let server, clinician, admin;
before(async () => {
  server = await Server.start();
  [clinician, admin] = [await server.signIn("clinician"), await server.signIn("admin")];
});
after(() => server?.stop());

const live = (token) => new Centrifuge(server.url.replace("http", "ws") + "/connection/websocket", { token, websocket: WebSocket });

function mosquittoPub(device, topic, payload, password = device.password) {
  const child = spawn("mosquitto_pub", [
    "-h", "127.0.0.1", "-p", String(server.mqttPort), "-i", randomUUID(), "-u", device.username, "-P", password, "-q", "1", "-t", topic, "-m", payload,
  ]);
  return new Promise((resolve) => child.once("exit", resolve));
}

async function somePatient() {
  const { body } = await server.api(clinician, "GET", "/fhir/R4/Patient?_count=1");
  return body.entry[0].resource;
}

test("operations: alive, ready, measured, described", async () => {
  assert.equal((await fetch(server.url + "/healthz")).status, 200);
  assert.equal((await fetch(server.url + "/readyz")).status, 200);
  assert.match(await (await fetch(server.url + "/metrics")).text(), /medtech_http_request_seconds_bucket/);
  const description = await (await fetch(server.url + "/api/openapi.json")).json();
  assert.match(description.openapi, /^3\.1/);
});

test("fhir-kit-client: create, read, search, update, history, transaction, delete", async () => {
  const client = new FhirClient({ baseUrl: server.url + "/fhir/R4", bearerToken: clinician });
  assert.equal((await client.capabilityStatement()).fhirVersion, "4.0.1");
  const family = "Q" + randomUUID().slice(0, 8);
  const made = await client.create({
    resourceType: "Patient",
    body: { resourceType: "Patient", name: [{ family, given: ["Ada"] }], birthDate: "1980-05" },
  });
  assert.ok(made.id);
  const read = await client.read({ resourceType: "Patient", id: made.id });
  assert.equal(read.birthDate, "1980-05");
  const found = await client.search({ resourceType: "Patient", searchParams: { family } });
  assert.deepEqual(found.entry.map((e) => e.resource.id), [made.id]);
  await client.update({ resourceType: "Patient", id: made.id, body: { ...read, birthDate: "1980-05-04" } });
  const history = await client.history({ resourceType: "Patient", id: made.id });
  assert.deepEqual(history.entry.map((e) => e.resource.birthDate), ["1980-05-04", "1980-05"]);
  const full = "urn:uuid:" + randomUUID();
  const bundle = await client.transaction({
    body: {
      resourceType: "Bundle",
      type: "transaction",
      entry: [
        { fullUrl: full, resource: { resourceType: "Encounter", status: "finished", class: { code: "VR" }, subject: { reference: "Patient/" + made.id } }, request: { method: "POST", url: "Encounter" } },
        { resource: { resourceType: "Observation", status: "final", code: { text: "weight" }, valueQuantity: { value: 70.10, unit: "kg" }, subject: { reference: "Patient/" + made.id }, encounter: { reference: full } }, request: { method: "POST", url: "Observation" } },
      ],
    },
  });
  assert.deepEqual(bundle.entry.map((e) => e.response.status.slice(0, 3)), ["201", "201"]);
  const observation = await client.search({ resourceType: "Observation", searchParams: { patient: made.id } });
  assert.match(observation.entry[0].resource.encounter.reference, /^Encounter\//);
  await client.delete({ resourceType: "Patient", id: made.id });
  await assert.rejects(client.read({ resourceType: "Patient", id: made.id }), (e) => e.response.status === 410);
});

test("FHIR: bad resources are refused with an OperationOutcome that names the place", async () => {
  for (const body of [
    { resourceType: "Patient", birthDate: "yesterday" },
    { resourceType: "Patient", shoeSize: 44 },
    { resourceType: "Observation", status: "final" },
    { resourceType: "Dragon" },
  ]) {
    const { status, body: outcome } = await server.api(clinician, "POST", `/fhir/R4/${body.resourceType}`, body);
    assert.ok(status >= 400 && status < 500, `${JSON.stringify(body)}: ${status}`);
    assert.equal(outcome.resourceType, "OperationOutcome");
    assert.ok(outcome.issue[0].diagnostics || outcome.issue[0].details?.text);
  }
  const garbage = await fetch(server.url + "/fhir/R4/Patient", {
    method: "POST", headers: { authorization: `Bearer ${clinician}`, "content-type": "application/fhir+json" }, body: "{not json",
  });
  assert.equal(garbage.status, 400);
  assert.equal((await server.api(null, "GET", "/fhir/R4/Patient")).status, 401);
});

test("a patient sees the own record and no other", async () => {
  const patient = await server.run("token", "--user", "patient");
  const { body: me } = await server.api(patient, "GET", "/api/identity/me");
  const own = me.user.patient_id;
  assert.equal((await server.api(patient, "GET", `/fhir/R4/Patient/${own}`)).status, 200);
  const { body: all } = await server.api(clinician, "GET", "/fhir/R4/Patient?_count=50");
  const others = all.entry.map((e) => e.resource.id).filter((id) => id !== own);
  assert.ok(others.length > 5);
  for (const id of others) assert.ok([403, 404].includes((await server.api(patient, "GET", `/fhir/R4/Patient/${id}`)).status));
  const { body: seen } = await server.api(patient, "GET", "/fhir/R4/Observation?_count=200");
  for (const { resource } of seen.entry ?? []) assert.equal(resource.subject.reference, `Patient/${own}`);
});

test("centrifuge: subscribe, receive, recover what was missed, be refused elsewhere", async () => {
  const guest = await arrive(server);
  const conversation = guest.visit.conversation_id;
  const send = (text) => server.api(guest.token, "POST", `/api/messaging/conversations/${conversation}/messages`, { client_id: randomUUID(), body: { text } });
  const client = live(clinician);
  const [got, recovered] = [[], []];
  const subscription = client.newSubscription(`conversation:${conversation}`, { recoverable: true, positioned: true });
  subscription.on("publication", ({ data }) => data.kind === "message.created" && got.push(data.message.body.text));
  subscription.on("subscribed", (context) => recovered.push(context.recovered));
  subscription.subscribe();
  client.connect();
  await subscription.ready(10_000);
  await send("one");
  await eventually("first message", () => got.includes("one"));
  client.disconnect();
  await send("two");
  await send("three");
  client.connect();
  await eventually("the missed messages, once each and in order", () => got.length >= 3);
  assert.deepEqual(got, ["one", "two", "three"]);
  assert.equal(recovered.at(-1), true);

  const answer = await client.rpc("message.send", { conversation_id: conversation, client_id: randomUUID(), body: { text: "by rpc" } });
  assert.equal(answer.data.message.seq, 4);

  const stranger = live(guest.token);
  const refused = stranger.newSubscription("board:main");
  const outcome = new Promise((resolve) => refused.on("unsubscribed", (c) => resolve(c.code)).on("error", (c) => resolve(c.error.code)));
  refused.subscribe();
  stranger.connect();
  assert.equal(await outcome, 103);
  client.disconnect();
  stranger.disconnect();
});

test("a malformed frame ends its own connection and no other", async () => {
  const good = live(clinician);
  const { body: me } = await server.api(clinician, "GET", "/api/identity/me");
  const subscription = good.newSubscription(`user:${me.user.id.replace(/^user:/, "")}`);
  subscription.subscribe();
  good.connect();
  await subscription.ready(10_000);
  const bad = new WebSocket(server.url.replace("http", "ws") + "/connection/websocket");
  const closed = new Promise((resolve) => bad.on("close", resolve));
  await new Promise((resolve) => bad.on("open", resolve));
  bad.send("{{{");
  assert.equal(await closed, 3501);
  assert.equal(good.state, "connected");
  good.disconnect();
});

test("mosquitto_pub: readings become Observations; foreign topics, wrong secrets and garbage do not", async () => {
  const patient = await somePatient();
  const made = await server.api(clinician, "POST", "/api/records/devices", { patient_id: patient.id, name: "Wrist band", kind: "wearable" });
  assert.equal(made.status, 201);
  const device = made.body;
  const at = Date.now() / 1000;
  assert.equal(await mosquittoPub(device, device.topic, JSON.stringify([{ n: "heart-rate", u: "beat/min", v: 71, t: at }])), 0);
  assert.equal(await mosquittoPub(device, device.topic, JSON.stringify([{ n: "spo2", u: "%", v: 97.5, t: at }])), 0);
  const query = `/fhir/R4/Observation?patient=${patient.id}&device=Device/${device.id}`;
  const entries = await eventually("two Observations", async () => {
    const { body } = await server.api(clinician, "GET", query);
    return body.entry?.length === 2 && body.entry.map((e) => e.resource);
  });
  const values = Object.fromEntries(entries.map((o) => [o.code.coding.find((c) => c.system === "http://loinc.org").code, o.valueQuantity]));
  assert.equal(values["8867-4"].value, 71);
  assert.equal(values["8867-4"].code, "/min");
  assert.equal((values["59408-5"] ?? values["2708-6"]).value, 97.5);

  assert.notEqual(await mosquittoPub(device, device.topic, "[]", "wrong"), 0);
  await mosquittoPub(device, `devices/${randomUUID()}/readings`, JSON.stringify([{ n: "heart-rate", u: "beat/min", v: 1 }]));
  await mosquittoPub(device, device.topic, "not senml");
  assert.equal(await mosquittoPub(device, device.topic, JSON.stringify([{ n: "heart-rate", u: "beat/min", v: 72, t: at + 1 }])), 0);
  await eventually("the third", async () => (await server.api(clinician, "GET", query)).body.entry.length === 3);
});

test("tus-js-client: an upload in pieces, read back whole and in part, by members only", async () => {
  const other = await Server.start();
  try {
    const guest = await arrive(other);
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i % 251));
    const upload = await new Promise((resolve, reject) => {
      const task = new tus.Upload(bytes, {
        endpoint: other.url + "/files",
        headers: { authorization: `Bearer ${guest.token}` },
        metadata: { filename: "chest.png", filetype: "image/png", conversation: guest.visit.conversation_id },
        chunkSize: 64 * 1024,
        onError: reject,
        onSuccess: () => resolve(task),
      });
      task.start();
    });
    const read = (token, headers = {}) => fetch(new URL(upload.url, other.url), { headers: { ...(token && { authorization: `Bearer ${token}` }), ...headers } });
    assert.deepEqual(Buffer.from(await (await read(guest.token)).arrayBuffer()), bytes);
    const part = await read(guest.token, { range: "bytes=10-19" });
    assert.equal(part.status, 206);
    assert.deepEqual(Buffer.from(await part.arrayBuffer()), bytes.subarray(10, 20));
    assert.equal((await read(null)).status, 401);
    assert.ok([403, 404].includes((await read(await other.signIn("staff"))).status));
  } finally {
    await other.stop();
  }
});

test("links: altered, and on a second device", async () => {
  const other = await Server.start();
  try {
    const guest = await arrive(other);
    const open = (link, id = randomUUID(), extra = {}) => other.api(null, "POST", "/api/visits/open", { link, device: { id, name: "other" }, ...extra });
    const altered = guest.link.slice(0, -1) + (guest.link.endsWith("A") ? "B" : "A");
    assert.deepEqual([(await open(altered)).status, (await open(altered)).body.code], [403, "visit.link_invalid"]);
    assert.deepEqual([(await open(guest.link)).status, (await open(guest.link)).body.code], [409, "visit.link_in_use"]);
    assert.equal((await open(guest.link, guest.device.id)).status, 200);
    assert.equal((await other.api(guest.token, "GET", `/api/visits/${guest.visit.id}`)).body.state, "waiting");
  } finally {
    await other.stop();
  }
});

test("nothing that needs a role is open without one", async () => {
  const description = await (await fetch(server.url + "/api/openapi.json")).json();
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      if (operation.security?.length === 0) continue;
      const url = path.replace(/\{\w+\}/g, randomUUID());
      const { status } = await fetch(server.url + url, { method: method.toUpperCase(), headers: { "tus-resumable": "1.0.0" } });
      assert.ok([401, 403].includes(status), `${method} ${path}: ${status}`);
    }
  }
  assert.equal((await server.api(admin, "GET", "/api/identity/me")).status, 200);
});
