// One real consultation through every part of the house: two Chromium browsers with fake cameras, a wearable, a laboratory.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";
import { accessible, launch, person, received } from "../lib/browser.mjs";
import { Server, eventually } from "../lib/server.mjs";

const shots = process.env.SCREENSHOTS;
let server, browser, token;
before(async () => {
  if (shots) await mkdir(shots, { recursive: true });
  server = await Server.start();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const id = (page, name) => page.getByTestId(name);
const shot = (page, name) => shots && page.screenshot({ path: `${shots}/${name}.png` });

/** Pictures and sound arrive now: both counters grow past where they were. */
async function seesAndHears(page, who) {
  const start = await received(page);
  const shown = () => id(page, "remote-video").evaluate((video) => ({ width: video.videoWidth, time: video.currentTime, frames: video.getVideoPlaybackQuality().totalVideoFrames }));
  await id(page, "remote-video").waitFor();
  const picture = await shown();
  await eventually(`${who} sees and hears the other`, async () => {
    const [now, then] = [await received(page), await shown()];
    const decoded = now.framesDecoded > start.framesDecoded + 10 && now.audioEnergy > start.audioEnergy;
    return decoded && then.width > 0 && then.time > picture.time && then.frames > picture.frames;
  }, 60_000);
}

function publish(device, readings) {
  const child = spawn("mosquitto_pub", [
    "-h", "127.0.0.1", "-p", String(server.mqttPort), "-i", "wristband", "-u", device.username, "-P", device.password, "-q", "1", "-t", device.topic,
    "-m", JSON.stringify(readings.map((r) => ({ ...r, t: Date.now() / 1000 }))),
  ]);
  return new Promise((resolve) => child.once("exit", resolve));
}

test("the first visit", async (t) => {
  const clinician = await person(browser, { viewport: { width: 1440, height: 900 } });
  const patient = await person(browser, { viewport: { width: 390, height: 844 } });
  const visitId = () => clinician.url().split("/visit/")[1];
  let subject;
  // A step that fails ends the story: those after it stand on it.
  const step = async (name, body) => {
    let failure;
    await t.test(name, () => body().catch((error) => { failure = error; throw error; }));
    if (failure) {
      await Promise.all([clinician, patient].map((page, i) => page.screenshot({ path: `${shots ?? tmpdir()}/failed-${i}.png` })));
      throw failure;
    }
  };

  await step("the clinician opens the printed address and sees today", async () => {
    await clinician.goto(server.addresses.clinician);
    await clinician.waitForURL("**/app/today");
    await id(clinician, "appointment").first().waitFor();
    assert.ok(!clinician.url().includes("#"), "the link's secret leaves the address bar");
    await accessible(clinician, "today");
    await shot(clinician, "clinician-today");
  });

  await step("the patient opens the link, passes the device check, consents and waits", async () => {
    await clinician.goto(server.url + "/app/queue");
    await patient.goto(server.addresses.patient);
    await id(patient, "visit-start").waitFor();
    await accessible(patient, "welcome");
    await shot(patient, "patient-welcome");
    await id(patient, "visit-start").click();
    // With devices that are allowed already the check may begin, and with a microphone that hears even pass, by itself.
    const next = id(patient, "consent-check");
    await id(patient, "device-allow").or(id(patient, "device-continue")).or(next).first().waitFor();
    await shot(patient, "patient-device-check");
    await eventually("the device check passes", async () => {
      for (const button of ["device-allow", "device-continue"]) {
        if (await id(patient, button).isEnabled({ timeout: 200 }).catch(() => false)) await id(patient, button).click({ timeout: 1000 }).catch(() => {});
      }
      return next.isVisible();
    });
    await id(patient, "consent-check").check();
    await accessible(patient, "consent");
    await shot(patient, "patient-consent");
    await id(patient, "consent-accept").click();
    await id(patient, "waiting-room").waitFor();
    await accessible(patient, "waiting room");
    await shot(patient, "patient-waiting");
  });

  await step("the queue shows the arrival live, and the clinician admits", async () => {
    await id(clinician, "queue-row").first().waitFor();
    await accessible(clinician, "queue");
    await shot(clinician, "clinician-queue");
    assert.equal((await received(patient)).packets, 0, "nothing reaches the one who waits");
    await id(clinician, "admit").first().click();
    await id(patient, "consult").waitFor();
    await clinician.waitForURL("**/app/visit/*");
  });

  await step("both see and hear each other", async () => {
    await Promise.all([seesAndHears(clinician, "the clinician"), seesAndHears(patient, "the patient")]);
    await accessible(clinician, "consultation");
    await accessible(patient, "consult");
    await shot(clinician, "clinician-consultation");
    await shot(patient, "patient-consult");
  });

  await step("sent back to wait and admitted again, on the same connection", async () => {
    const connections = (await received(patient)).connections;
    assert.equal(connections, 1, "one connection serves both directions");
    await id(clinician, "hold").click();
    await id(patient, "waiting-room").waitFor();
    // Sound alone would bring a packet every 20 ms: forty looks without one, each a round trip to the browser, mean silence.
    let [calm, last] = [0, -1];
    await eventually("nothing reaches the one who waits again", async () => {
      const { packets } = await received(patient);
      [calm, last] = [packets === last ? calm + 1 : 0, packets];
      return calm >= 40;
    });
    await id(clinician, "admit").first().click();
    await id(patient, "consult").waitFor();
    await Promise.all([seesAndHears(clinician, "the clinician"), seesAndHears(patient, "the patient")]);
    assert.equal((await received(patient)).connections, connections, "no new connection was needed");
  });

  await step("a reload on either side comes back into the same visit", async () => {
    for (const [page, place, who] of [[patient, "consult", "the patient"], [clinician, "consultation", "the clinician"]]) {
      await page.reload();
      await id(page, place).waitFor();
      await seesAndHears(page, who);
    }
    await Promise.all([seesAndHears(clinician, "the clinician"), seesAndHears(patient, "the patient")]);
  });

  await step("they chat, and a file goes across", async () => {
    if (!(await id(patient, "chat").isVisible())) await id(patient, "toggle-chat").click();
    await id(patient, "chat-input").fill("It hurts when I breathe in.");
    await id(patient, "chat-send").click();
    const chat = id(clinician, "chat");
    await chat.getByText("It hurts when I breathe in.").waitFor();
    await id(clinician, "chat-input").fill("Since when?");
    await id(clinician, "chat-input").press("Enter");
    await id(patient, "chat").getByText("Since when?").waitFor();
    await id(patient, "chat-file").setInputFiles({ name: "rash.png", mimeType: "image/png", buffer: Buffer.alloc(150_000, 3) });
    const file = chat.getByTestId("file");
    await file.waitFor();
    assert.match(await file.innerText(), /rash\.png/);
    await shot(patient, "patient-chat");
  });

  await step("a wearable's readings move on the chart and stand in the record", async () => {
    token = await server.signIn("clinician");
    subject = (await server.api(token, "GET", `/api/visits/${visitId()}`)).body.subject_ref;
    const device = (await server.api(token, "POST", "/api/records/devices", { patient_id: subject.slice(8), name: "Wrist band", kind: "wearable" })).body;
    for (const [rate, saturation] of [[81, 98], [84, 97], [133, 94]]) {
      assert.equal(await publish(device, [{ n: "heart-rate", u: "beat/min", v: rate }, { n: "spo2", u: "%", v: saturation }]), 0);
      await id(clinician, "vital").filter({ hasText: String(rate) }).first().waitFor();
      await id(clinician, "vital").filter({ hasText: String(saturation) }).first().waitFor();
    }
    await eventually("six Observations", async () => {
      const { body } = await server.api(token, "GET", `/fhir/R4/Observation?device=Device/${device.id}&_count=50`);
      return body.entry?.length === 6;
    });
  });

  await step("a laboratory result appears inside the open consultation and on the staff board", async () => {
    const staff = await person(browser, { viewport: { width: 1440, height: 900 } });
    await staff.goto(server.addresses.staff);
    await staff.waitForURL("**/app/**");
    await staff.goto(server.url + "/app/board");
    const coding = [{ system: "http://loinc.org", code: "2823-3", display: "Potassium [Moles/volume] in Serum or Plasma" }];
    const observation = await server.api(token, "POST", "/fhir/R4/Observation", {
      resourceType: "Observation", status: "final", code: { coding }, subject: { reference: subject },
      category: [{ coding: [{ system: "http://terminology.hl7.org/CodeSystem/observation-category", code: "laboratory" }] }],
      effectiveDateTime: new Date().toISOString(),
      valueQuantity: { value: 6.8, unit: "mmol/L", system: "http://unitsofmeasure.org", code: "mmol/L" },
      interpretation: [{ coding: [{ system: "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", code: "HH" }] }],
    });
    assert.equal(observation.status, 201);
    const report = await server.api(token, "POST", "/fhir/R4/DiagnosticReport", {
      resourceType: "DiagnosticReport", status: "final", subject: { reference: subject }, issued: new Date().toISOString(),
      code: { text: "Electrolytes" }, result: [{ reference: `Observation/${observation.body.id}` }],
    });
    assert.equal(report.status, 201);
    await id(clinician, "result-card").filter({ hasText: "Electrolytes" }).first().waitFor();
    await id(staff, "alert").first().waitFor();
    assert.ok(!(await id(staff, "alert").first().innerText()).includes("6.8"), "no value on the staff board");
    await accessible(staff, "board");
    await accessible(clinician, "consultation with a result");
    await shot(clinician, "clinician-consultation-result");
    await shot(staff, "staff-board");
    await id(staff, "acknowledge").first().click();
    // The clinician is written to, without a clinical word: the mail lies in the local outbox.
    const headers = { authorization: `Bearer ${await server.signIn("admin")}` };
    const mails = await eventually("a mail to the clinician", async () => {
      const page = await (await fetch(server.url + "/dev/outbox", { headers })).text();
      return page.includes("@") && page;
    });
    const name = await id(clinician, "chart").locator("h1, h2").first().innerText();
    for (const secret of ["Electrolytes", "Potassium", name]) assert.ok(!mails.includes(secret), secret);
    // As a number of its own: the seconds of a time of day may contain the digits.
    assert.ok(!/(?<!\d)6\.8(?!\d)/.test(mails), "no value in a mail");
    assert.deepEqual(staff.problems, []);
  });

  await step("the visit ends; the Encounter has the true times, the chat and the readings", async () => {
    const visit = visitId();
    await id(clinician, "end").click();
    await id(clinician, "end-confirm").click();
    await id(patient, "visit-ended").waitFor();
    await accessible(patient, "ended");
    await shot(patient, "patient-ended");
    const encounter = await eventually("the finished Encounter", async () => {
      const { body } = await server.api(token, "GET", `/fhir/R4/Encounter?identifier=urn:uuid:${visit}`);
      return body.entry?.[0]?.resource.status === "finished" && body.entry[0].resource;
    });
    assert.equal(encounter.class.code, "VR");
    assert.equal(encounter.subject.reference, subject);
    const { body: truth } = await server.api(token, "GET", `/api/visits/${visit}`);
    const seconds = (time) => Math.floor(Date.parse(time) / 1000);
    for (const person of truth.participants) {
      assert.ok(person.intervals.length >= 2, "the reload shows as two intervals");
      for (const { from, to } of person.intervals) assert.ok(Date.parse(from) <= Date.parse(to));
    }
    const starts = encounter.participant.map((p) => seconds(p.period.start));
    assert.ok(starts.includes(seconds(truth.participants[0].intervals[0].from)));
    const { body: chat } = await server.api(token, "GET", `/fhir/R4/Communication?encounter=Encounter/${encounter.id}&_count=50`);
    const texts = chat.entry.flatMap((e) => e.resource.payload ?? []);
    assert.ok(texts.some((p) => p.contentString === "It hurts when I breathe in."));
    assert.ok(texts.some((p) => /^\/files\//.test(p.contentAttachment?.url ?? "")));
    const { body: readings } = await server.api(token, "GET", `/fhir/R4/Observation?encounter=Encounter/${encounter.id}&_count=50`);
    assert.equal(readings.entry.length, 6);
  });

  assert.deepEqual([...clinician.problems, ...patient.problems], []);
});

test("a device without a camera, and a denied one, get help and a way on", async () => {
  const context = await browser.newContext({ viewport: { width: 390, height: 844 }, permissions: [] });
  const page = await context.newPage();
  await page.addInitScript(() => {
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", "NotAllowedError"));
  });
  const other = await Server.start();
  try {
    await page.goto(other.addresses.patient);
    await page.getByTestId("visit-start").click();
    await page.getByTestId("device-allow").click();
    await page.getByTestId("device-retry").first().waitFor();
    await shot(page, "patient-denied");
  } finally {
    await context.close();
    await other.stop();
  }
});

test("an altered link says what to do", async () => {
  const page = await person(browser, { viewport: { width: 390, height: 844 } });
  await page.goto(server.url + "/visit#" + "A".repeat(43));
  await page.getByTestId("visit-problem").waitFor();
  await accessible(page, "link problem");
  await shot(page, "patient-link-problem");
});
