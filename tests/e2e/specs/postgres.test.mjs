// The whole server on PostgreSQL: a visit's acknowledged steps over `kill -9`, and the wall between tenants below us.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { database, postgres, sql } from "../lib/postgres.mjs";
import { Server, eventually } from "../lib/server.mjs";
import { arrive } from "../lib/visit.mjs";

test("on PostgreSQL: a visit from arrival to Encounter, the power cut between its steps", { skip: !postgres && "MEDTECH_TEST_PG is not set" }, async () => {
  const db = await database();
  const server = await Server.start(db);
  try {
    const clinician = await server.signIn("clinician");
    const ask = async (method, path, body, status = 200, token = clinician) => {
      const answer = await server.api(token, method, path, body);
      assert.equal(answer.status, status, `${method} ${path}: ${JSON.stringify(answer.body)}`);
      return answer.body;
    };
    const guest = await arrive(server);
    const { id, conversation_id: conversation } = guest.visit;
    await server.restart();
    const patient = (await ask("GET", `/api/visits/${id}`)).subject_ref;
    assert.equal((await ask("GET", `/api/visits/${id}`)).state, "waiting");
    await ask("POST", `/api/visits/${id}/admit`);
    const messages = `/api/messaging/conversations/${conversation}/messages`;
    const message = { client_id: randomUUID(), body: { text: "Seit gestern – ça fait mal \u{1F915}" } };
    await ask("POST", messages, message, 201, guest.token);

    const bytes = Buffer.alloc(70_000, 5);
    const metadata = Object.entries({ filename: "x.bin", conversation }).map(([k, v]) => `${k} ${Buffer.from(v).toString("base64")}`).join(",");
    const upload = (path, method, headers, body) =>
      fetch(new URL(path, server.url), { method, body, headers: { authorization: `Bearer ${guest.token}`, "tus-resumable": "1.0.0", ...headers } });
    const location = (await upload("/files", "POST", { "upload-length": String(bytes.length), "upload-metadata": metadata })).headers.get("location");
    const offset = { "upload-offset": "0", "content-type": "application/offset+octet-stream" };
    assert.equal((await upload(location, "PATCH", offset, bytes)).status, 204);
    await server.restart();
    assert.equal((await ask("GET", `${messages}?after=0`)).messages[0].body.text, message.body.text);
    assert.equal((await ask("POST", messages, message, 200, guest.token)).duplicate, true);
    assert.deepEqual(Buffer.from(await (await upload(location, "GET", {})).arrayBuffer()), bytes);

    const device = await ask("POST", "/api/records/devices", { patient_id: patient.slice(8), name: "Band", kind: "wearable" }, 201);
    const reading = JSON.stringify([{ n: "heart-rate", u: "beat/min", v: 66, t: Date.now() / 1000 }]);
    const published = spawn("mosquitto_pub", ["-h", "127.0.0.1", "-p", String(server.mqttPort), "-i", "band", "-u", device.username, "-P", device.password, "-q", "1", "-t", device.topic, "-m", reading]);
    assert.equal(await new Promise((resolve) => published.once("exit", resolve)), 0);
    await server.restart();
    await eventually("the acknowledged reading", async () => (await ask("GET", `/fhir/R4/Observation?device=Device/${device.id}`)).entry?.length === 1);

    // In one transaction, so that the report speaks for its observation and there is one alert.
    const full = "urn:uuid:" + randomUUID();
    const observation = {
      resourceType: "Observation", status: "final", code: { text: "Potassium" }, subject: { reference: patient },
      category: [{ coding: [{ system: "http://terminology.hl7.org/CodeSystem/observation-category", code: "laboratory" }] }],
      effectiveDateTime: new Date().toISOString(), valueQuantity: { value: 6.80, unit: "mmol/L" },
      interpretation: [{ coding: [{ system: "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", code: "HH" }] }],
    };
    const report = { resourceType: "DiagnosticReport", status: "final", subject: { reference: patient }, code: { text: "Electrolytes" }, result: [{ reference: full }] };
    const entry = [{ fullUrl: full, resource: observation, request: { method: "POST", url: "Observation" } }, { resource: report, request: { method: "POST", url: "DiagnosticReport" } }];
    await ask("POST", "/fhir/R4", { resourceType: "Bundle", type: "transaction", entry });
    await server.restart();
    const staff = await server.signIn("staff");
    const alerts = async () => (await ask("GET", "/api/notifications/alerts?board=main", undefined, 200, staff)).alerts;
    await eventually("the alert on the board", async () => (await alerts()).length > 0);

    await ask("POST", `/api/visits/${id}/end`);
    await server.restart();
    assert.deepEqual((await alerts()).map((a) => a.severity), ["critical"], "once, however often it was delivered");
    const encounter = await eventually("the finished Encounter", async () => {
      const found = (await ask("GET", `/fhir/R4/Encounter?identifier=urn:uuid:${id}`)).entry?.[0]?.resource;
      return found?.status === "finished" && found;
    });
    assert.equal(encounter.subject.reference, patient);
    await eventually("the chat in the record", async () => (await ask("GET", `/fhir/R4/Communication?encounter=Encounter/${encounter.id}`)).entry?.length >= 1);

    // The application's role, without the application: no tenant, no rows; a wrong tenant, no rows; and no way around.
    const [app, owner] = [db.MEDTECH_DATABASE_URL, db.MEDTECH_DATABASE_OWNER_URL];
    const tables = await sql(owner, "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant' WHERE c.relkind = 'r' ORDER BY 1");
    assert.ok(tables.length > 20);
    assert.deepEqual(tables.filter(([, forced]) => forced !== "t"), []);
    const counts = tables.map(([name]) => `(SELECT count(*) FROM "${name}")`).join(" + ");
    const as = (tenant) => sql(app, `SET app.tenant = '${tenant}'`, `SELECT ${counts}`).then((rows) => Number(rows.at(-1)[0]));
    assert.ok((await as(1)) > 1000);
    assert.deepEqual([Number((await sql(app, `SELECT ${counts}`))[0][0]), await as(""), await as(2)], [0, 0, 0]);
    await assert.rejects(sql(app, "SET app.tenant = '2'", "INSERT INTO idempotency (tenant, subject, route, ikey, request, answer, at) VALUES (1, 's', 'r', 'k', '', '', 0)"), /row-level security/);
    for (const escape of ["SET ROLE postgres", "ALTER TABLE session DISABLE ROW LEVEL SECURITY", "DROP POLICY tenant_wall ON session", "SET row_security = off; SELECT * FROM session"]) {
      await assert.rejects(sql(app, escape), escape);
    }
  } finally {
    await server.stop();
  }
});
