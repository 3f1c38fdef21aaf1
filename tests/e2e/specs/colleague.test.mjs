// A colleague at somebody else's visit: looks on, joins in everyone's sight, and is out of the call the moment access ends.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, person, received } from "../lib/browser.mjs";
import { looks, shot } from "../lib/look.mjs";
import { Server, eventually } from "../lib/server.mjs";
import { arrive } from "../lib/visit.mjs";

const id = (page, name) => page.getByTestId(name);
let server, browser;
before(async () => {
  server = await Server.start();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

/** A clinician who was invited, came by the mail's link and chose a password. */
async function colleague() {
  const admin = await server.run("token", "--user", "admin");
  const made = await server.api(admin, "POST", "/api/identity/users", { email: "cora@harbour.example", name: "Cora Cover", roles: ["clinician"] });
  assert.equal(made.status, 201);
  const link = await eventually("the invitation", async () => {
    const outbox = await (await fetch(`${server.url}/dev/outbox`, { headers: { authorization: `Bearer ${admin}` } })).text();
    return outbox.match(/https?:\/\/[^\s<"]+\/enter#[\w-]+/)?.[0];
  });
  const page = await person(browser, { viewport: { width: 1280, height: 900 } });
  await page.goto(link);
  await id(page, "welcome-password").fill("a calm river at noon");
  await id(page, "welcome-submit").click();
  await page.waitForURL(/\/app\/today$/);
  return page;
}

/** Nothing arrives any more: many looks without one packet. */
async function silent(page) {
  let [calm, last] = [0, -1];
  await eventually("no packet arrives", async () => {
    const { packets } = await received(page);
    [calm, last] = [packets === last ? calm + 1 : 0, packets];
    return calm >= 40;
  });
}

async function sees(page) {
  const start = (await received(page)).framesDecoded;
  await eventually("a picture arrives", async () => (await received(page)).framesDecoded > start + 10, 60_000);
}

test("a colleague looks on, joins, and is put out when access ends", async () => {
  const patient = await arrive(server);
  const host = await person(browser, { viewport: { width: 1280, height: 900 } });
  await host.goto(server.addresses.clinician);
  await host.waitForURL("**/app/today");
  await host.goto(`${server.url}/app/visit/${patient.visit.id}`);
  await id(host, "admit").click();
  await id(host, "hold").waitFor();

  const page = await colleague();
  await page.goto(`${server.url}/app/visit/${patient.visit.id}`);
  await id(page, "look-only").waitFor();
  for (const absent of ["join-visit", "stage", "toggle-chat", "admit", "hold", "end"]) assert.equal(await id(page, absent).count(), 0, absent);
  await looks(page, "colleague-outside");
  assert.equal((await received(page)).packets, 0);

  // With the chart comes the offer to join.
  await id(page, "glass-reason").selectOption("covering");
  await id(page, "glass-text").fill("Dr. Marsh asks for a second opinion now.");
  await id(page, "glass-open").click();
  await id(page, "join-visit").waitFor();
  await looks(page, "colleague-offered");
  assert.equal((await received(page)).packets, 0, "a look is no call");
  await id(page, "join-visit").click();
  await sees(page);
  await id(host, "also-here").filter({ hasText: "Cora Cover" }).waitFor();
  const { colleagues } = (await server.api(patient.token, "GET", `/api/visits/${patient.visit.id}`)).body;
  assert.deepEqual(colleagues.map((c) => c.name), ["Cora Cover"], "the patient is told");
  for (const absent of ["admit", "hold", "end"]) assert.equal(await id(page, absent).count(), 0, absent);
  await looks(page, "colleague-joined");
  await shot(host, "colleague-host");

  // Emergency access ends, and with it everything that stood on it.
  await id(page, "glass-end").click();
  await id(page, "look-only").waitFor();
  await silent(page);
  await eventually("the host sees them go", async () => (await id(host, "also-here").count()) === 0);
  assert.deepEqual((await server.api(patient.token, "GET", `/api/visits/${patient.visit.id}`)).body.colleagues, []);
  const trail = (await server.api(await server.run("token", "--user", "admin"), "GET", `/api/tenants/audit?target=visit:${patient.visit.id}&limit=50`)).body.entries;
  for (const mark of ["a colleague joined", "a colleague's part ended"]) assert.ok(trail.some((e) => e.detail.startsWith(mark)), mark);
  assert.deepEqual([host.problems, page.problems], [[], []]);
});

test("a host whose account is locked is out of the call at once", async () => {
  const { appointments } = (await server.api(await server.signIn("clinician"), "GET", "/api/appointments/today")).body;
  assert.ok(appointments.length > 0);
  const admin = await server.run("token", "--user", "admin");
  const host = await person(browser, { viewport: { width: 1280, height: 900 } });
  await host.goto(server.addresses.clinician);
  await host.waitForURL("**/app/today");
  const visit = appointments.find((a) => a.visit_id)?.visit_id;
  await host.goto(`${server.url}/app/visit/${visit}`);
  await eventually("the host is in the room", async () => (await id(host, "stage").getAttribute("data-phase")) === "connected");
  const { host: self } = (await server.api(await server.signIn("clinician"), "GET", `/api/visits/${visit}`)).body;
  const locked = await server.api(admin, "POST", `/api/identity/users/${self.subject.split(":")[1]}/lock`, {});
  assert.ok(locked.status < 300, `${locked.status}`);
  await eventually("the call has ended", async () => (await id(host, "stage").getAttribute("data-phase").catch(() => null)) !== "connected");
});
