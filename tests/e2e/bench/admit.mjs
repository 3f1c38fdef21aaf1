// How long from the clinician's click on "Admit" to the patient's first presented frame. Five times in one browser, both
// pages on this machine, so that their clocks are one. The last line is JSON, times in milliseconds.
//   E2E_SERVER=target/release/medtech node bench/admit.mjs
import { launch, person } from "../lib/browser.mjs";
import { Server, eventually } from "../lib/server.mjs";

const ROUNDS = 5;
const id = (page, name) => page.getByTestId(name);

/** Runs in the patient's page: notes when the first frame of each video element of the other side is presented. */
function watchFrames() {
  const seen = new WeakSet();
  window.__presented = [];
  new MutationObserver(() => {
    const video = document.querySelector('[data-testid="remote-video"]');
    if (!video || seen.has(video)) return;
    seen.add(video);
    video.requestVideoFrameCallback((now) => window.__presented.push(performance.timeOrigin + now));
  }).observe(document, { childList: true, subtree: true });
}

/** Runs in the clinician's page: notes when the click arrives at the button. */
function watchClicks() {
  window.addEventListener("click", (event) => {
    if (event.target.closest('[data-testid="admit"]')) window.__clicked = performance.timeOrigin + event.timeStamp;
  }, true);
}

const server = await Server.start();
const browser = await launch();
try {
  const clinician = await person(browser, { viewport: { width: 1440, height: 900 } });
  const patient = await person(browser, { viewport: { width: 390, height: 844 } });
  await clinician.addInitScript(watchClicks);
  await patient.addInitScript(watchFrames);
  await patient.goto(server.addresses.patient);
  await id(patient, "visit-start").click();
  await eventually("the device check passes", async () => {
    const go = id(patient, "device-continue");
    if (await go.isEnabled({ timeout: 200 }).catch(() => false)) await go.click({ timeout: 1000 }).catch(() => {});
    return id(patient, "consent-check").isVisible();
  });
  await id(patient, "consent-check").check();
  await id(patient, "consent-accept").click();
  await id(patient, "waiting-room").waitFor();
  await clinician.goto(server.addresses.clinician);
  await clinician.waitForURL("**/app/today");
  await id(clinician, "open-next").click();
  await clinician.locator('[data-testid="stage"][data-phase="connected"]').waitFor();

  const times = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    await id(patient, "waiting-room").waitFor();
    await eventually("the patient's own picture", () => id(patient, "self-view").evaluate((video) => video.videoWidth > 0));
    await patient.evaluate(() => void (window.__presented.length = 0));
    await id(clinician, "admit").click();
    const presented = await eventually("a presented frame", () => patient.evaluate(() => window.__presented[0]), 60_000);
    times.push(Math.round(presented - (await clinician.evaluate(() => window.__clicked))));
    console.log(`admit ${round + 1}: ${times.at(-1)} ms`);
    if (round + 1 < ROUNDS) await id(clinician, "hold").click();
  }
  const sorted = times.toSorted((a, b) => a - b);
  console.log(JSON.stringify({ admit_to_first_frame_ms: { median: sorted[Math.floor(ROUNDS / 2)], worst: sorted.at(-1), all: times } }));
} finally {
  await browser.close();
  await server.stop();
}
