// What the passing of time does, on a server whose clock is days ahead: links and sessions end, and say so plainly.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, launch, person } from "../lib/browser.mjs";
import { Server } from "../lib/server.mjs";

const shot = async (page, name) => process.env.SCREENSHOTS && page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png` });
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

test("days later a visit link has expired, and a session asks for a new sign-in and leads back", async () => {
  const link = server.addresses.patient;
  const clinician = await person(browser);
  await clinician.goto(server.addresses.clinician);
  await clinician.waitForURL(/\/app\//);
  const token = await server.signIn("clinician");
  assert.equal((await server.api(token, "GET", "/api/identity/me")).status, 200);

  await server.later("+3d");

  const patient = await person(browser, { viewport: { width: 390, height: 844 } });
  await patient.goto(link);
  await id(patient, "visit-problem").waitFor();
  assert.equal(await id(patient, "visit-problem").getAttribute("data-code"), "visit.link_expired");
  assert.match(await id(patient, "visit-problem").innerText(), /too old.*send you a new link/s);
  await accessible(patient, "an expired link");
  await shot(patient, "patient-link-expired");
  assert.deepEqual(patient.problems, []);

  const answer = await server.api(token, "GET", "/api/identity/me");
  assert.deepEqual([answer.status, answer.body.code], [401, "auth.token_expired"]);
  // The screen that stood open notices by itself, keeps its place, and asks.
  await id(clinician, "reauth").waitFor();
  await accessible(clinician, "an ended session");
  await shot(clinician, "clinician-session-ended");
});
