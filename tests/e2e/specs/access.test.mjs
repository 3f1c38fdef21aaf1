// A colleague who does not treat a patient: the chart is closed to them, the glass is broken, told and reviewed, and mended.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, launch, person } from "../lib/browser.mjs";
import { bears, fits } from "../lib/look.mjs";
import { Server, eventually } from "../lib/server.mjs";

const shots = process.env.SCREENSHOTS;
const id = (page, name) => page.getByTestId(name);
const PASSWORD = "a calm river at noon";
let server, browser;
before(async () => {
  server = await Server.start();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

/** Desk and phone, light and dark: no barrier, and nothing sticks out. */
async function looks(page, name) {
  for (const [scheme, width, height] of [["light", 1280, 900], ["dark", 390, 844]]) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height });
    await accessible(page, `${name}, ${scheme}, ${width}`);
    await fits(page, `${name} at ${width}`);
    if (shots) await page.screenshot({ path: `${shots}/${name}-${scheme}-${width}.png` });
  }
  await page.emulateMedia({ colorScheme: "light" });
  await bears(page, name);
  await page.setViewportSize({ width: 1280, height: 900 });
}

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
  await id(page, "welcome-password").fill(PASSWORD);
  await id(page, "welcome-submit").click();
  await page.waitForURL(/\/app\/today$/);
  return { page, user: made.body.id };
}

test("emergency access: refused, broken with a reason, told, explained, reviewed, ended", async () => {
  const { page, user } = await colleague();
  const { appointments } = (await server.api(await server.signIn("clinician"), "GET", "/api/appointments/today")).body;
  const { patient, visit_id: visit } = appointments[0];
  await page.goto(`${server.url}/app/visit/${visit}`);
  await id(page, "break-glass").waitFor();
  assert.ok(!(await id(page, "break-glass").innerText()).includes("Penicillin"));
  await looks(page, "glass-refused");

  await id(page, "glass-reason").selectOption("covering");
  await id(page, "glass-text").fill("Dr. Marsh is in theatre, the patient is on the phone.");
  await id(page, "glass-open").click();
  await id(page, "chart").getByText("Penicillin").first().waitFor();
  await id(page, "glass-end").waitFor();
  // The allergies stay in sight: the banner takes room of its own.
  const [allergy, body] = await Promise.all([".chart-top", ".chart-body"].map((part) => page.locator(part).boundingBox()));
  assert.ok(allergy.y + allergy.height <= body.y + 1, "the chart's head lies under its body");
  await looks(page, "glass-broken");

  const admin = await person(browser, { viewport: { width: 1280, height: 900 } });
  await admin.goto(server.addresses.admin);
  await id(admin, "alert").filter({ hasText: "Emergency access" }).first().waitFor();
  assert.ok(!(await id(admin, "alert").first().innerText()).includes(patient.name), "the board names nobody");
  await id(admin, "nav-admin").click();
  await id(admin, "admin-access").click();
  await id(admin, "emergency").filter({ hasText: "Cora Cover" }).waitFor();
  await id(admin, "review-due").waitFor();
  await id(admin, "review-assign").selectOption({ index: 1 });
  await id(admin, "reviews-show").selectOption("overdue");
  await id(admin, "no-reviews").waitFor();
  await id(admin, "reviews-show").selectOption("mine");
  await id(admin, "emergency").filter({ hasText: "Cora Cover" }).waitFor();
  await looks(admin, "access-review");
  await id(admin, "sees-search").fill("cora");
  await id(admin, "sees-user").selectOption(user);
  await id(admin, "sees-patient-search").fill(patient.name.split(" ")[1]);
  await id(admin, "sees-patient").selectOption({ index: 1 });
  await id(admin, "sees-ask").click();
  await id(admin, "sees").waitFor();
  // The decision is told in words: no code, no name of a type, and each reason once.
  const [reasons, table] = [await admin.locator(".access-steps li").allInnerTexts(), await id(admin, "sees").innerText()];
  assert.ok(reasons.length > 3 && reasons.some((r) => r.endsWith("It is open as emergency access.")), reasons.join("|"));
  assert.equal(new Set(reasons).size, reasons.length);
  for (const text of [...reasons, table]) assert.doesNotMatch(text, /[a-z]+[._][a-z]+|\b(?:[A-Z][a-z]+){2,}\b|Another rule/);
  await looks(admin, "access-sees");
  await id(admin, "review-text").fill("Asked Dr. Marsh: it was so.");
  await id(admin, "review-done").click();
  await id(admin, "no-reviews").waitFor();

  await id(page, "glass-end").click();
  await id(page, "break-glass").waitFor();
  const log = (await server.api(await server.run("token", "--user", "admin"), "GET", `/api/tenants/audit?actor=user:${user}&limit=50`)).body.entries;
  for (const mark of ["break-glass begun: covering", "chart; break-glass", "break-glass ended"]) assert.ok(log.some((e) => e.detail.includes(mark)), mark);
  assert.deepEqual([page.problems, admin.problems], [[], []]);
});
