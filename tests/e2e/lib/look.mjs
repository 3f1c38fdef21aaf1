// How a screen looks: pictures where SCREENSHOTS names a folder, no barrier that axe finds, nothing that sticks out.
import assert from "node:assert/strict";
import { accessible } from "./browser.mjs";

const shots = process.env.SCREENSHOTS;

export const shot = (page, name) => shots && page.screenshot({ path: `${shots}/${name}.png` });

/** Desk and phone, light and dark. */
export async function looks(page, name) {
  for (const [scheme, width, height] of [["light", 1280, 900], ["dark", 390, 844]]) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height });
    await accessible(page, `${name}, ${scheme}, ${width}`);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0, `${name} sticks out at ${width}`);
    await shot(page, `${name}-${scheme}-${width}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 900 });
}
