// What was acknowledged is still there after `kill -9`, step by step through a visit.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { Server, eventually } from "../lib/server.mjs";
import { arrive } from "../lib/visit.mjs";

test("kill -9 after each acknowledged step of a visit loses nothing", async () => {
  const server = await Server.start();
  try {
    let clinician = await server.signIn("clinician");
    const guest = await arrive(server);
    const { id, conversation_id: conversation } = guest.visit;
    const visit = async () => (await server.api(clinician, "GET", `/api/visits/${id}`)).body;
    const patient = (await visit()).subject_ref;
    assert.match(patient, /^Patient\//);

    await server.restart();
    assert.equal((await visit()).state, "waiting");
    assert.ok((await visit()).guest.consented_at);

    assert.equal((await server.api(clinician, "POST", `/api/visits/${id}/admit`)).status, 200);
    await server.restart();
    assert.equal((await visit()).state, "admitted");

    const client_id = randomUUID();
    const message = { client_id, body: { text: "Does it hurt here?" } };
    const messages = `/api/messaging/conversations/${conversation}/messages`;
    const sent = await server.api(guest.token, "POST", messages, message);
    assert.equal(sent.body.message.seq, 1);
    await server.restart();
    const again = await server.api(guest.token, "POST", messages, message);
    assert.deepEqual([again.body.message.seq, again.body.duplicate], [1, true]);
    assert.equal((await server.api(clinician, "GET", `${messages}?after=0`)).body.messages.length, 1);

    // Half an upload: the offset that was answered is the offset found again.
    const bytes = Buffer.alloc(200_000, 7);
    const upload = (path, method, headers, body) =>
      fetch(new URL(path, server.url), { method, body, headers: { authorization: `Bearer ${guest.token}`, "tus-resumable": "1.0.0", ...headers } });
    const meta = Object.entries({ filename: "x.bin", filetype: "application/octet-stream", conversation })
      .map(([k, v]) => `${k} ${Buffer.from(v).toString("base64")}`).join(",");
    const created = await upload("/files", "POST", { "upload-length": String(bytes.length), "upload-metadata": meta });
    assert.equal(created.status, 201);
    const location = created.headers.get("location");
    const patch = (offset, part) => upload(location, "PATCH", { "upload-offset": String(offset), "content-type": "application/offset+octet-stream" }, part);
    assert.equal((await patch(0, bytes.subarray(0, 120_000))).headers.get("upload-offset"), "120000");
    await server.restart();
    assert.equal((await upload(location, "HEAD", {})).headers.get("upload-offset"), "120000");
    assert.equal((await patch(120_000, bytes.subarray(120_000))).status, 204);

    const device = (await server.api(clinician, "POST", "/api/records/devices", { patient_id: patient.slice(8), name: "Band", kind: "wearable" })).body;
    const reading = JSON.stringify([{ n: "heart-rate", u: "beat/min", v: 66, t: Date.now() / 1000 }]);
    const published = spawn("mosquitto_pub", [
      "-h", "127.0.0.1", "-p", String(server.mqttPort), "-i", "band", "-u", device.username, "-P", device.password, "-q", "1", "-t", device.topic, "-m", reading,
    ]);
    assert.equal(await new Promise((resolve) => published.once("exit", resolve)), 0);
    await server.restart();
    await eventually("the acknowledged reading in the record", async () => {
      const { body } = await server.api(clinician, "GET", `/fhir/R4/Observation?device=Device/${device.id}`);
      return body.entry?.length === 1;
    });

    const made = await server.api(clinician, "POST", "/fhir/R4/Condition", { resourceType: "Condition", subject: { reference: patient }, code: { text: "Sprained ankle" } });
    assert.equal(made.status, 201);
    await server.restart();
    assert.equal((await server.api(clinician, "GET", `/fhir/R4/Condition/${made.body.id}`)).body.code.text, "Sprained ankle");

    assert.equal((await server.api(clinician, "POST", `/api/visits/${id}/end`)).status, 200);
    await server.restart();
    assert.equal((await visit()).state, "ended");
    const encounter = await eventually("the finished Encounter", async () => {
      const { body } = await server.api(clinician, "GET", `/fhir/R4/Encounter?identifier=urn:uuid:${id}`);
      const found = body.entry?.[0]?.resource;
      return found?.status === "finished" && found;
    });
    assert.equal(encounter.subject.reference, patient);
    await eventually("the chat in the record", async () => {
      const { body } = await server.api(clinician, "GET", `/fhir/R4/Communication?encounter=Encounter/${encounter.id}`);
      return body.entry?.some((e) => e.resource.payload?.[0]?.contentString === "Does it hurt here?");
    });
    clinician = await server.signIn("clinician");
    assert.equal((await server.api(clinician, "GET", "/api/identity/me")).status, 200);
  } finally {
    await server.stop();
  }
});
