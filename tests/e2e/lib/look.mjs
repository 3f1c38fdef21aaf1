// How a screen looks: pictures where SCREENSHOTS names a folder, no barrier that axe finds, nothing that sticks out.
import assert from "node:assert/strict";
import { accessible } from "./browser.mjs";
import { eventually } from "./server.mjs";

const shots = process.env.SCREENSHOTS;

export const shot = (page, name) => shots && page.screenshot({ path: `${shots}/${name}.png` });

/**
 * Nothing leads sideways: not the page, and no part of it that scrolls by itself, as dialogs and the content above a phone's bar do.
 * A wide table in a frame of its own may.
 */
export async function fits(page, what) {
  const wide = () => page.evaluate(() => [...document.querySelectorAll("html, body, body *")]
    .filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1 && !e.matches("textarea, input, select, pre, .audit-list, .audit-list *"))
    .filter((e) => e.matches("html") || ["auto", "scroll"].includes(getComputedStyle(e).overflowX))
    .map((e) => `${e.tagName}.${e.className} ${e.scrollWidth} > ${e.clientWidth}`));
  // A dialog or a popover takes its place a frame after the window has a new size.
  await eventually(`${what} sticks out`, async () => (await wide()).length === 0, 3000).catch(async () => assert.deepEqual(await wide(), [], `${what} sticks out`));
}

/** The narrowest phone, and twice the text on a usual one. */
export async function bears(page, what) {
  const size = page.viewportSize();
  for (const [width, text] of [[320, "100%"], [390, "200%"]]) {
    await page.setViewportSize({ width, height: 800 });
    await page.evaluate((fontSize) => void (document.documentElement.style.fontSize = fontSize), text);
    await fits(page, `${what} at ${width} px and ${text}`);
    await shot(page, `${what.replaceAll(" ", "-")}-${width}-${text.slice(0, 3)}`);
  }
  await page.evaluate(() => void (document.documentElement.style.fontSize = ""));
  await page.setViewportSize(size);
}

/** Desk and phone, light and dark. */
export async function looks(page, name) {
  for (const [scheme, width, height] of [["light", 1280, 900], ["dark", 390, 844]]) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height });
    await accessible(page, `${name}, ${scheme}, ${width}`);
    await fits(page, `${name} at ${width}`);
    await shot(page, `${name}-${scheme}-${width}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 900 });
}
