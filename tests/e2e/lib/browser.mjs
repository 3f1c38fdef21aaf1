// Debian's Chromium with a fake camera and microphone, driven by playwright-core.
import assert from "node:assert/strict";
import { AxeBuilder } from "@axe-core/playwright";
import { chromium } from "playwright-core";

export const launch = (...more) =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
      "--autoplay-policy=no-user-gesture-required", ...more,
    ],
  });

/** A person: a browser context of their own, with a page whose errors are collected. */
export async function person(browser, options = {}) {
  // Without motion, so that a look is looked at when it stands and not on its way there.
  const context = await browser.newContext({ permissions: ["camera", "microphone"], reducedMotion: "reduce", ...options });
  await context.addInitScript(watchPeerConnections);
  const page = await context.newPage();
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(String(error)));
  return page;
}

/** Runs in the page: keeps every peer connection, so that statistics can be read from outside. */
function watchPeerConnections() {
  const all = (window.__peers = []);
  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    constructor(...args) {
      super(...args);
      all.push(this);
    }
  };
}

/** What the page has received so far, over all its connections. */
export const received = (page) =>
  page.evaluate(async () => {
    const sum = { framesDecoded: 0, audioEnergy: 0, packets: 0, connections: window.__peers.length };
    for (const peer of window.__peers) {
      if (peer.connectionState === "closed") continue;
      for (const [, report] of await peer.getStats()) {
        if (report.type !== "inbound-rtp") continue;
        sum.packets += report.packetsReceived ?? 0;
        if (report.kind === "video") sum.framesDecoded += report.framesDecoded ?? 0;
        if (report.kind === "audio") sum.audioEnergy += report.totalAudioEnergy ?? 0;
      }
    }
    return sum;
  });

/** No barrier that axe can find, by WCAG 2.2 A and AA. */
export async function accessible(page, what) {
  // What is still on its way to a new look arrives first: two frames, and every transition that has an end.
  await page.evaluate(async () => {
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    await frame();
    await frame();
    const ending = document.getAnimations().filter((a) => Number.isFinite(a.effect?.getComputedTiming().endTime ?? NaN));
    await Promise.allSettled(ending.map((a) => a.finished));
  });
  const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]).analyze();
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target} ${n.html.slice(0, 160)}`).join(" | ")}`), [], what);
}
