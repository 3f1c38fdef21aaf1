// Pictures of the real screens (to be reduced to 256 colours afterwards) for the README: a visit between two browsers, with drawn people before the cameras.
//   E2E_SERVER=target/debug/medtech node bench/screenshots.mjs ../../docs/screenshots
import { spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { launch, person } from "../lib/browser.mjs";
import { Server, eventually } from "../lib/server.mjs";

const folder = process.argv[2] ?? "../../docs/screenshots";
const id = (page, name) => page.getByTestId(name);
const DESK = { viewport: { width: 1280, height: 800 }, reducedMotion: "reduce" };
const PHONE = { viewport: { width: 390, height: 844 }, reducedMotion: "reduce" };

const PEOPLE = {
  patient: { wall: ["#e9ddcb", "#cdb99c"], skin: "#e8b998", shade: "#d9a280", hair: "#8d8a88", cloth: "#6c7fa8", collar: "#5a6c94", coat: false, long: false },
  clinician: { wall: ["#cfe0df", "#a8c4c3"], skin: "#c98f6b", shade: "#b57b58", hair: "#33241d", cloth: "#f4f6f7", collar: "#3f7f86", coat: true, long: true },
};

/** Runs in the page: in place of the camera's picture there is a drawn person, who breathes. */
function drawnCamera(look) {
  const native = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  const canvas = Object.assign(document.createElement("canvas"), { width: 960, height: 720 });
  const c = canvas.getContext("2d");
  const fill = (style, draw) => { c.fillStyle = style; c.beginPath(); draw(); c.fill(); };
  const paint = () => {
    const sway = Math.sin(performance.now() / 1400) * 4;
    const wall = c.createLinearGradient(0, 0, 960, 720);
    wall.addColorStop(0, look.wall[0]);
    wall.addColorStop(1, look.wall[1]);
    c.fillStyle = wall;
    c.fillRect(0, 0, 960, 720);
    fill("rgba(255,255,255,.35)", () => c.roundRect(70, 70, 190, 250, 14));
    fill("rgba(90,110,90,.28)", () => c.ellipse(840, 560, 90, 190, 0.2, 0, 7));
    c.save();
    c.translate(sway, sway / 3);
    if (look.long) fill(look.hair, () => c.roundRect(345, 190, 270, 330, 120));
    fill(look.cloth, () => c.roundRect(215, 520, 530, 420, [190, 190, 0, 0]));
    fill(look.shade, () => c.roundRect(425, 420, 110, 140, 50));
    fill(look.collar, () => { c.moveTo(400, 525); c.quadraticCurveTo(480, 640, 560, 525); c.lineTo(480, look.coat ? 720 : 575); });
    if (look.coat) { c.strokeStyle = "#2f3b40"; c.lineWidth = 9; c.beginPath(); c.moveTo(395, 540); c.bezierCurveTo(390, 660, 440, 690, 470, 690); c.stroke(); fill("#2f3b40", () => c.arc(478, 692, 17, 0, 7)); }
    fill(look.skin, () => c.ellipse(480, 320, 108, 138, 0, 0, 7));
    fill(look.hair, () => { c.moveTo(366, 330); c.bezierCurveTo(350, 130, 610, 130, 594, 330); c.bezierCurveTo(580, 250, 540, 232, 470, 236); c.bezierCurveTo(410, 240, 380, 270, 366, 330); });
    for (const x of [438, 522]) fill("#2b211d", () => c.ellipse(x, 322, 9, Math.abs(sway) > 3.97 ? 2 : 10, 0, 0, 7));
    c.strokeStyle = look.hair; c.lineWidth = 7; c.lineCap = "round";
    for (const x of [438, 522]) { c.beginPath(); c.moveTo(x - 22, 296); c.quadraticCurveTo(x, 284, x + 22, 296); c.stroke(); }
    c.strokeStyle = look.shade; c.lineWidth = 6; c.beginPath(); c.moveTo(482, 330); c.quadraticCurveTo(494, 362, 474, 366); c.stroke();
    c.strokeStyle = "#9c4f46"; c.lineWidth = 8; c.beginPath(); c.moveTo(446, 402); c.quadraticCurveTo(480, 428, 514, 402); c.stroke();
    c.restore();
  };
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = new MediaStream();
    if (wanted.audio) for (const track of (await native({ audio: wanted.audio })).getTracks()) stream.addTrack(track);
    if (wanted.video) {
      paint();
      setInterval(paint, 66);
      for (const track of canvas.captureStream(15).getTracks()) stream.addTrack(track);
    }
    return stream;
  };
}

const someone = async (browser, look, options) => {
  const page = await person(browser, options);
  await page.addInitScript(drawnCamera, PEOPLE[look]);
  return page;
};
const shot = async (page, name) => {
  await page.evaluate(() => document.fonts.ready);
  await page.screenshot({ path: join(folder, `${name}.png`) });
  console.log(name);
};
async function wait(page, address) {
  await page.goto(address);
  await id(page, "visit-start").click();
  await eventually("the device check passes", async () => {
    const go = id(page, "device-continue");
    if (await go.isEnabled({ timeout: 200 }).catch(() => false)) await go.click({ timeout: 1000 }).catch(() => {});
    return id(page, "consent-check").isVisible();
  });
  await id(page, "consent-check").check();
  await id(page, "consent-accept").click();
  await id(page, "waiting-room").waitFor();
}
const pictured = (page) => eventually("a picture", () => id(page, "remote-video").evaluate((v) => v.videoWidth >= 320 && v.currentTime > 1));

await mkdir(folder, { recursive: true });
const server = await Server.start();
const browser = await launch();
try {
  const [patient, clinician] = [await someone(browser, "patient", PHONE), await someone(browser, "clinician", DESK)];
  const token = await server.signIn("clinician");
  const { appointments } = (await server.api(token, "GET", "/api/appointments/today")).body;
  await clinician.goto(server.addresses.clinician);
  await id(clinician, "appointment").first().waitFor();
  await wait(patient, server.addresses.patient);
  await eventually("the own picture", () => id(patient, "self-view").evaluate((v) => v.videoWidth > 0));
  await shot(patient, "patient-waiting");
  await clinician.locator('[data-testid="visit-state"][data-state="waiting"]').first().waitFor();
  await shot(clinician, "clinician-today");
  const others = [];
  for (const next of [1, 2]) {
    const other = await someone(browser, "patient", PHONE);
    await wait(other, server.url + appointments[next].visit_link);
    others.push(other);
  }
  await id(clinician, "nav-queue").click();
  await eventually("three wait", async () => (await id(clinician, "queue-row").count()) === 3);
  await shot(clinician, "clinician-queue");
  await id(clinician, "admit").first().click();
  await id(patient, "consult").waitFor();
  await Promise.all([pictured(clinician), pictured(patient)]);
  await eventually("a sharp picture", () => id(patient, "remote-video").evaluate((v) => v.videoWidth >= 480), 10_000).catch(() => console.log("the picture stayed small"));
  await shot(patient, "patient-consult");

  const visit = clinician.url().split("/visit/")[1];
  const { subject_ref: subject } = (await server.api(token, "GET", `/api/visits/${visit}`)).body;
  const device = (await server.api(token, "POST", "/api/records/devices", { patient_id: subject.slice(8), name: "Wrist band", kind: "wearable" })).body;
  const say = async (page, text) => { await id(page, "chat-input").fill(text); await id(page, "chat-input").press("Enter"); await id(clinician, "chat").getByText(text).waitFor(); };
  await id(patient, "toggle-chat").click();
  await say(patient, "I wrote down my values of this week.");
  await id(patient, "chat-file").setInputFiles({ name: "blood-pressure-week-47.pdf", mimeType: "application/pdf", buffer: Buffer.alloc(184_000, 32) });
  await id(clinician, "file").waitFor();
  await say(clinician, "Thank you, I have them here.");
  await id(clinician, "note").fill("Dizzy when standing up since Tuesday. No chest pain, no breathlessness.\nHome values 128-142 / 78-88. Takes the tablets in the morning.\nPlan: repeat potassium today, take the evening dose from now on.");
  const readings = [[74, 98], [78, 98], [76, 97], [83, 98], [88, 97], [86, 97], [92, 97], [90, 98]];
  // Taken a quarter of a minute apart, as a band would that had been away from the network.
  for (const [i, [rate, saturation]] of readings.entries()) {
    const t = Date.now() / 1000 - 15 * (readings.length - 1 - i);
    const message = [{ n: "heart-rate", u: "beat/min", v: rate }, { n: "spo2", u: "%", v: saturation }].map((r) => ({ ...r, t }));
    const sent = spawn("mosquitto_pub", ["-h", "127.0.0.1", "-p", String(server.mqttPort), "-i", "wristband", "-u", device.username, "-P", device.password, "-q", "1", "-t", device.topic, "-m", JSON.stringify(message)]);
    await new Promise((resolve) => sent.once("exit", resolve));
    await clinician.locator(`[data-testid="vital"][data-value="${rate}"]`).first().waitFor();
  }
  const laboratory = [{ coding: [{ system: "http://terminology.hl7.org/CodeSystem/observation-category", code: "laboratory" }] }];
  const results = [];
  for (const [code, name, value, low, high] of [["2823-3", "Potassium", 6.1, 3.5, 5.1], ["2951-2", "Sodium", 138, 136, 145]]) {
    const critical = value > high ? { interpretation: [{ coding: [{ system: "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", code: "HH" }] }] } : {};
    const made = await server.api(token, "POST", "/fhir/R4/Observation", {
      resourceType: "Observation", status: "final", category: laboratory, subject: { reference: subject }, effectiveDateTime: new Date().toISOString(),
      code: { coding: [{ system: "http://loinc.org", code, display: name }], text: name }, valueQuantity: { value, unit: "mmol/L" },
      referenceRange: [{ low: { value: low, unit: "mmol/L" }, high: { value: high, unit: "mmol/L" } }], ...critical,
    });
    results.push({ reference: `Observation/${made.body.id}` });
  }
  const now = new Date().toISOString();
  await server.api(token, "POST", "/fhir/R4/DiagnosticReport", { resourceType: "DiagnosticReport", status: "final", subject: { reference: subject }, effectiveDateTime: now, issued: now, code: { text: "Electrolytes" }, result: results });
  await id(clinician, "result-card").filter({ hasText: "Electrolytes" }).getByText("6.1").first().waitFor();
  await id(clinician, "note").blur();
  await clinician.mouse.move(640, 4);
  await shot(clinician, "clinician-consultation");
  await clinician.emulateMedia({ colorScheme: "dark" });
  await shot(clinician, "clinician-consultation-dark");

  const staff = await person(browser, DESK);
  await staff.goto(server.addresses.staff);
  await id(staff, "alert").first().waitFor();
  await eventually("two still wait", async () => (await id(staff, "board-waiting").getByRole("listitem").count()) === 2);
  await shot(staff, "staff-board");
} finally {
  await browser.close();
  await server.stop();
}
