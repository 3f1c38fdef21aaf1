// The screens under strain: a killed server, a lost network, a second device, an ended session; by keyboard alone, at 320 px,
// in the dark and in forced colours. What the story of the first visit does not touch.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";
import { accessible, launch, person, received } from "../lib/browser.mjs";
import { fits } from "../lib/look.mjs";
import { Server, eventually } from "../lib/server.mjs";

let server, browser, token, appointments;
before(async () => {
  server = await Server.start();
  browser = await launch();
  token = await server.signIn("clinician");
  appointments = (await server.api(token, "GET", "/api/appointments/today")).body.appointments;
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const id = (page, name) => page.getByTestId(name);
const PHONE = { viewport: { width: 390, height: 844 } };
const DESK = { viewport: { width: 1440, height: 900 } };

/** A patient who has come as far as the waiting room. */
async function waiting(link) {
  const page = await person(browser, PHONE);
  await page.goto(new URL(link, server.url).href);
  await id(page, "visit-start").click();
  const next = id(page, "consent-check");
  await eventually("the device check passes", async () => {
    const go = id(page, "device-continue");
    if (await go.isEnabled({ timeout: 200 }).catch(() => false)) await go.click({ timeout: 1000 }).catch(() => {});
    return next.isVisible();
  });
  await next.check();
  await id(page, "consent-accept").click();
  await id(page, "waiting-room").waitFor();
  return page;
}

/** New frames are decoded and shown, and sound comes. Nobody touches the page. */
async function alive(page, who) {
  const state = async () => ({
    ...(await received(page)),
    ...(await id(page, "remote-video").evaluate((v) => ({ width: v.videoWidth, shown: v.getVideoPlaybackQuality().totalVideoFrames }), null, { timeout: 2000 })),
  });
  let start = null;
  await eventually(`${who} sees and hears the other`, async () => {
    // A call that comes back shows in a new element, whose counters begin at zero.
    const now = await state().catch(() => null);
    if (now === null || start === null || now.shown < start.shown || now.framesDecoded < start.framesDecoded) {
      start = now;
      return false;
    }
    return now.width > 0 && now.shown > start.shown + 5 && now.framesDecoded > start.framesDecoded + 5 && now.audioEnergy > start.audioEnergy;
  }, 60_000);
}

/** Nothing comes any more: sound alone would bring a packet every 20 ms, and forty looks take longer than that. */
async function silent(page, who) {
  let [calm, last] = [0, -1];
  await eventually(`nothing reaches ${who}`, async () => {
    const { packets } = await received(page);
    [calm, last] = [packets === last ? calm + 1 : 0, packets];
    return calm >= 40;
  });
}

const together = (clinician, patient) => Promise.all([alive(clinician, "the clinician"), alive(patient, "the patient")]);

/** Cuts a page from the network; answers how to bring it back. */
async function offline(page) {
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Network.enable");
  const set = (cut) => devtools.send("Network.emulateNetworkConditions", { offline: cut, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  await set(true);
  return async () => {
    await set(false);
    await devtools.detach();
  };
}

const LOOKS = { dark: { colorScheme: "dark", forcedColors: "none" }, forced: { colorScheme: "light", forcedColors: "active" } };

/** As it is in each look, and on the narrowest phone nothing leads sideways; in both sizes of text. */
async function bears(page, what) {
  for (const [look, media] of Object.entries(LOOKS)) {
    await page.emulateMedia(media);
    await accessible(page, `${what}, ${look}`);
  }
  await page.emulateMedia({ colorScheme: "light", forcedColors: "none" });
  const size = page.viewportSize();
  for (const [width, text] of [[320, "100%"], [390, "200%"]]) {
    await page.setViewportSize({ width, height: 700 });
    await page.evaluate((fontSize) => void (document.documentElement.style.fontSize = fontSize), text);
    await fits(page, `${what} at ${width} px and ${text}`);
  }
  await page.evaluate(() => void (document.documentElement.style.fontSize = ""));
  await page.setViewportSize(size);
}

async function tabTo(page, name) {
  for (let presses = 0; presses < 40; presses += 1) {
    await page.keyboard.press("Tab");
    if (await page.evaluate((testId) => document.activeElement?.dataset.testid === testId, name)) return;
  }
  assert.fail(`no Tab leads to ${name}`);
}

test("a consultation under strain", async (t) => {
  const clinician = await person(browser, DESK);
  await clinician.goto(server.addresses.clinician);
  await id(clinician, "appointment").first().waitFor();
  const visit = appointments[0].visit_id;
  let patient = await waiting(appointments[0].visit_link);
  const step = async (name, body) => {
    let failure;
    await t.test(name, () => body().catch((error) => { failure = error; throw error; }));
    if (failure) {
      await Promise.all([clinician, patient].map((page, i) => page.screenshot({ path: `${process.env.SCREENSHOTS ?? tmpdir()}/screens-failed-${i}.png` })));
      throw failure;
    }
  };

  await step("waiting room, day and queue bear every look and size", async () => {
    await bears(patient, "the waiting room");
    await bears(clinician, "today");
    await clinician.goto(`${server.url}/app/queue`);
    await id(clinician, "queue-row").first().waitFor();
    await bears(clinician, "the queue");
  });

  await step("the keyboard alone admits the patient", async () => {
    await tabTo(clinician, "admit");
    await clinician.keyboard.press("Enter");
    await id(patient, "consult").waitFor();
    await clinician.waitForURL(`**/app/visit/${visit}`);
    await together(clinician, patient);
  });

  await step("the consultation bears every look and size, on both sides", async () => {
    await bears(patient, "the patient's consultation");
    await id(clinician, "close-chat").click();
    await bears(clinician, "the clinician's consultation");
    await id(clinician, "toggle-chat").click();
  });

  await step("another microphone in the middle of the call", async () => {
    await id(patient, "call-devices").click();
    const choice = id(patient, "call-microphone");
    const [before, other] = [await choice.inputValue(), await choice.locator("option").last().getAttribute("value")];
    assert.notEqual(before, other);
    await choice.selectOption(other);
    await eventually("the other microphone is in use", async () => (await choice.inputValue()) === other);
    await patient.keyboard.press("Escape");
    await id(patient, "device-panel").waitFor({ state: "hidden" });
    await alive(clinician, "the clinician");
  });

  await step("a message written offline goes out once", async () => {
    const back = await offline(patient);
    await id(patient, "toggle-chat").click();
    await id(patient, "chat-input").fill("Written without a network.");
    await id(patient, "chat-input").press("Enter");
    await id(patient, "message-pending").waitFor();
    await id(patient, "connection-banner").waitFor();
    await back();
    await id(clinician, "chat").getByText("Written without a network.").waitFor();
    await id(patient, "message-pending").waitFor({ state: "detached" });
    const { conversation_id: conversation } = (await server.api(token, "GET", `/api/visits/${visit}`)).body;
    const { messages } = (await server.api(token, "GET", `/api/messaging/conversations/${conversation}/messages?after=0`)).body;
    assert.equal(messages.filter((m) => m.body.text === "Written without a network.").length, 1);
    assert.equal(await id(clinician, "message").filter({ hasText: "Written without a network." }).count(), 1);
  });

  await step("the server is killed in mid-consultation: both come back into it by themselves", async () => {
    await id(clinician, "note").fill("Chest pain since Tuesday.");
    await server.kill();
    await id(patient, "call-reconnecting").waitFor();
    await server.launch();
    await together(clinician, patient);
    assert.equal(await id(clinician, "consultation").getAttribute("data-state"), "in_consult");
    assert.equal(await id(clinician, "note").inputValue(), "Chest pain since Tuesday.");
    assert.equal(await id(patient, "chat").getByText("Written without a network.").count(), 1);
  });

  await step("a file comes out as it went in", async () => {
    const bytes = randomBytes(3_000_000);
    await id(patient, "chat-file").setInputFiles({ name: "scan.pdf", mimeType: "application/pdf", buffer: bytes });
    const file = id(clinician, "file").filter({ hasText: "scan.pdf" });
    await file.waitFor();
    const [download] = await Promise.all([clinician.waitForEvent("download"), file.click()]);
    assert.equal(download.suggestedFilename(), "scan.pdf");
    const hash = (data) => createHash("sha256").update(data).digest("hex");
    assert.equal(hash(await readFile(await download.path())), hash(bytes));
  });

  await step("a session that ends is renewed in place, and the note stays", async () => {
    const used = await clinician.evaluate(() => JSON.parse(sessionStorage.getItem("medtech.session")).token);
    assert.equal((await server.api(used, "POST", "/api/identity/sign-out")).status, 204);
    // Whoever has no session has no media either, and the other is told; it comes back with the new one, without a click.
    await id(clinician, "reauth").waitFor();
    await Promise.all([silent(clinician, "the clinician"), silent(patient, "the patient")]);
    await id(patient, "remote-video").waitFor({ state: "detached" });
    await id(patient, "stage").getByText("is not connected at the moment").waitFor();
    assert.ok(await id(patient, "consult").isVisible(), "the visit goes on");
    await id(clinician, "signin-email").fill("marsh@harbour.example");
    await id(clinician, "signin-password").fill("not the right password");
    await id(clinician, "signin-submit").click();
    await id(clinician, "signin-error").waitFor();
    // The demo's people have no password: a fresh session of a sign-in link is handed out in its place.
    const [, link] = server.addresses.clinician.split("#");
    const { body } = await server.api(null, "POST", "/api/identity/links/exchange", { link });
    await clinician.route("**/api/identity/sign-in", (route) => route.fulfill({ json: body }));
    await id(clinician, "signin-submit").click();
    await id(clinician, "reauth").waitFor({ state: "hidden" });
    assert.equal(await id(clinician, "note").inputValue(), "Chest pain since Tuesday.");
    await id(clinician, "chat-input").fill("I am back.");
    await id(clinician, "chat-input").press("Enter");
    await id(patient, "chat").getByText("I am back.").waitFor();
    await together(clinician, patient);
  });

  await step("somebody else waits: the clinician is told, looks, and finds the way back", async () => {
    const other = await waiting(appointments[1].visit_link);
    await id(clinician, "nav-waiting").waitFor();
    await id(clinician, "nav-queue").click();
    await id(clinician, "queue-row").filter({ hasText: appointments[1].patient.name }).waitFor();
    await id(clinician, "back-to-visit").getByRole("link", { name: appointments[0].patient.name }).click();
    await together(clinician, patient);
    await other.close();
  });

  await step("a second device is told, waits, and takes over when the first is gone", async () => {
    const second = await person(browser, PHONE);
    await second.goto(new URL(appointments[0].visit_link, server.url).href);
    await id(second, "visit-problem").waitFor();
    assert.equal(await id(second, "visit-problem").getAttribute("data-code"), "visit.link_in_use");
    await accessible(second, "in use");
    await id(second, "problem-action").click();
    await alive(patient, "the patient on the first device");
    const gone = patient;
    patient = second;
    assert.deepEqual(gone.problems, []);
    await gone.close();
    await id(second, "consult").waitFor({ timeout: 60_000 });
    await together(clinician, second);
  });

  assert.deepEqual([...clinician.problems, ...patient.problems], []);
});

test("a critical result reaches the bell, wherever its reader is", async () => {
  const clinician = await person(browser, DESK);
  await clinician.goto(server.addresses.clinician);
  await id(clinician, "appointment").first().waitFor();
  const subject = (await server.api(token, "GET", `/api/visits/${appointments[2].visit_id}`)).body.subject_ref;
  const coding = (system, code) => [{ system, code }];
  const made = await server.api(token, "POST", "/fhir/R4/Observation", {
    resourceType: "Observation", status: "final", code: { coding: coding("http://loinc.org", "2823-3") }, subject: { reference: subject },
    category: [{ coding: coding("http://terminology.hl7.org/CodeSystem/observation-category", "laboratory") }],
    effectiveDateTime: new Date().toISOString(), valueQuantity: { value: 6.9, unit: "mmol/L" },
    interpretation: [{ coding: coding("http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "HH") }],
  });
  assert.equal(made.status, 201);
  await id(clinician, "notice-arrived").waitFor();
  await id(clinician, "notices-unread").waitFor();
  await id(clinician, "notices").click();
  const row = id(clinician, "notice").first();
  await row.waitFor();
  // On a phone the list stands above the bar, whole, and the page below it stays where it is.
  await clinician.keyboard.press("Escape");
  await clinician.setViewportSize(PHONE.viewport);
  await id(clinician, "notices").click();
  await row.waitFor();
  await eventually("the list is within the screen", async () => {
    const box = await id(clinician, "notices-list").boundingBox();
    return box.x >= 0 && box.y >= 0 && box.x + box.width <= 390 && box.y + box.height <= 844;
  });
  assert.deepEqual(await clinician.evaluate(() => [document.documentElement.scrollTop, document.documentElement.scrollHeight - innerHeight]), [0, 0]);
  await fits(clinician, "notices on a phone");
  assert.ok(!(await row.innerText()).includes("6.9"), "no value in a notice");
  await accessible(clinician, "notices");
  await row.click();
  // The patient is not in a visit now: what is to be done stands on the board.
  await clinician.waitForURL("**/app/board");
  await id(clinician, "notices-unread").waitFor({ state: "detached" });
});

test("the day gives out the patient's link; the welcome page gives out a calendar entry", async () => {
  const clinician = await person(browser, { ...DESK, permissions: ["camera", "microphone", "clipboard-read", "clipboard-write"] });
  await clinician.goto(server.addresses.clinician);
  await id(clinician, "copy-link").last().click();
  const address = await eventually("a copied link", () => clinician.evaluate(() => navigator.clipboard.readText()));
  assert.equal(address, new URL(appointments.at(-1).visit_link, server.url).href);
  const invited = await person(browser, PHONE);
  await invited.goto(address);
  await id(invited, "visit-host").waitFor();
  await bears(invited, "welcome");
  const [download] = await Promise.all([invited.waitForEvent("download"), id(invited, "add-to-calendar").click()]);
  const entry = (await readFile(await download.path(), "utf8")).replaceAll("\r\n ", "");
  assert.match(entry, /^BEGIN:VCALENDAR\r\n/);
  assert.ok(entry.includes(`URL:${address}\r\n`));
  assert.ok(entry.includes(`DTSTART:${appointments.at(-1).start.slice(0, 19).replace(/[-:]/g, "")}Z\r\n`));
});

test("the staff board follows the queues live", async () => {
  const staff = await person(browser, DESK);
  await staff.goto(server.addresses.staff);
  await staff.waitForURL("**/app/board");
  await id(staff, "board-waiting").waitFor();
  // From here on nothing is read any more: what appears has come over the live channel.
  await eventually("the first reading", () => staff.evaluate(() => performance.getEntriesByType("resource").some((e) => e.name.includes("/api/visits"))));
  await staff.route("**/api/visits*", (route) => route.abort());
  const patient = await waiting(appointments[3].visit_link);
  await id(staff, "board-waiting").getByText(appointments[3].patient.name).waitFor({ timeout: 8000 });
  await patient.close();
});
