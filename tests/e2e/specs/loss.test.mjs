// What others do to us: the database and the broker go away in the middle of work and come back.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { cluster } from "../lib/cluster.mjs";
import { freePort } from "../lib/ports.mjs";
import { Server, eventually } from "../lib/server.mjs";
import { arrive } from "../lib/visit.mjs";

test("the database goes away in the middle and comes back: refusals say when to come again, and nothing acknowledged is lost", { timeout: 240_000 }, async () => {
  const pg = await cluster();
  assert.ok(pg, "PostgreSQL is installed for the tests");
  const server = await Server.start({ ...pg.env, MEDTECH_LOG_FORMAT: "json" });
  server.logLimit = 20_000_000;
  try {
    const clinician = await server.signIn("clinician");
    const guest = await arrive(server);
    const path = `/api/messaging/conversations/${guest.visit.conversation_id}/messages`;
    const said = [];
    const say = async (text) => {
      const message = { client_id: randomUUID(), body: { text } };
      const answer = await server.api(guest.token, "POST", path, message);
      if (answer.status === 201 || answer.status === 200) said.push(text);
      return answer;
    };
    for (let n = 0; n < 5; n++) assert.equal((await say(`before ${n}`)).status, 201);
    for (const mode of ["fast", "immediate"]) {
      // Requests under way while it goes.
      const under = Array.from({ length: 20 }, (_, n) => say(`${mode} ${n}`));
      await pg.stop(mode);
      // At once: each may wait as long as a connection is waited for.
      const refused = [["GET", `${path}?after=0`], ["POST", path], ["GET", "/fhir/R4/Patient"], ["GET", "/api/identity/me"]].map(async ([method, at]) => {
        const answer = await server.api(clinician, method, at, method === "POST" ? { client_id: randomUUID(), body: { text: "lost" } } : undefined);
        assert.equal(answer.status, 503, `${method} ${at}: ${JSON.stringify(answer.body)}`);
        assert.match(answer.headers.get("retry-after") ?? "", /^[1-9]\d*$/, `${method} ${at}`);
        assert.doesNotMatch(JSON.stringify(answer.body), /postgres|127\.0\.0\.1|refused|sqlx|terminat/i);
      });
      const ready = async () => {
        const answer = await fetch(server.url + "/readyz");
        assert.equal(answer.status, 503);
        assert.equal((await answer.json()).database, false);
        assert.equal((await fetch(server.url + "/healthz")).status, 200, "the process lives");
      };
      const [answers] = await Promise.all([Promise.all(under), ready(), ...refused]);
      for (const answer of answers) assert.ok([200, 201, 503].includes(answer.status), `${answer.status} ${JSON.stringify(answer.body)}`);
      await pg.start();
      await eventually("it is ready again", async () => (await fetch(server.url + "/readyz")).status === 200, 90_000);
      await eventually("messages go through again", async () => (await say(`after ${mode} ${randomUUID()}`)).status === 201, 60_000);
    }
    const { body } = await server.api(clinician, "GET", `${path}?after=0&limit=500`);
    const kept = body.messages.map((m) => m.body.text);
    for (const text of said) assert.ok(kept.includes(text), `acknowledged and not there: ${text}`);
    assert.deepEqual(body.messages.map((m) => m.seq), body.messages.map((_, n) => n + 1), "no number is missing");
    const metrics = await (await fetch(server.url + "/metrics")).text();
    assert.match(metrics, /medtech_panics_total 0\n/);
    assert.match(metrics, /medtech_http_refusals_total\{code="db\.[a-z_]+"\} [1-9]/);
    for (const line of server.log.trim().split("\n")) assert.doesNotThrow(() => JSON.parse(line), line);
  } finally {
    await server.stop();
    await pg.remove();
  }
});

test("the broker goes away and comes back: readings flow again, and everything else goes on meanwhile", { timeout: 120_000 }, async () => {
  const dir = mkdtempSync(join(tmpdir(), "medtech-broker-"));
  const port = await freePort();
  writeFileSync(join(dir, "m.conf"), `listener ${port} 127.0.0.1\nallow_anonymous true\npersistence false\n`);
  let broker;
  const start = () => (broker = spawn("mosquitto", ["-c", join(dir, "m.conf")], { stdio: "ignore" }));
  const stop = () => new Promise((resolve) => (broker.once("exit", resolve), broker.kill("SIGKILL")));
  start();
  const server = await Server.start({ MEDTECH_MQTT_BROKER: `mqtt://u:p@127.0.0.1:${port}` });
  try {
    const clinician = await server.signIn("clinician");
    const patient = (await server.api(clinician, "GET", "/fhir/R4/Patient?_count=1")).body.entry[0].resource.id;
    const device = (await server.api(clinician, "POST", "/api/records/devices", { patient_id: patient, name: "Band", kind: "wearable" })).body;
    const publish = (value) =>
      new Promise((resolve) => {
        const reading = JSON.stringify([{ n: "heart-rate", u: "beat/min", v: value, t: Date.now() / 1000 }]);
        spawn("mosquitto_pub", ["-h", "127.0.0.1", "-p", String(port), "-q", "1", "-t", device.topic, "-m", reading], { stdio: "ignore" }).once("exit", resolve);
      });
    const count = async () => (await server.api(clinician, "GET", `/fhir/R4/Observation?device=Device/${device.id}&_count=100`)).body.entry?.length ?? 0;
    // The server may still be on its way to the broker: published until one arrives.
    await eventually("a reading arrives", async () => (await publish(61)) === 0 && (await count()) >= 1, 60_000);
    const before = await count();
    await stop();
    assert.equal((await fetch(server.url + "/readyz")).status, 200);
    assert.equal((await server.api(clinician, "GET", "/fhir/R4/Patient?_count=1")).status, 200);
    start();
    await eventually("readings flow again", async () => (await publish(62)) === 0 && (await count()) > before, 60_000);
    assert.match(await (await fetch(server.url + "/metrics")).text(), /medtech_panics_total 0\n/);
  } finally {
    await server.stop();
    await stop().catch(() => {});
    rmSync(dir, { recursive: true, force: true });
  }
});
