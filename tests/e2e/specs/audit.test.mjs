// The audit trail: the administrator's screen in Chromium, and the proof of the chain at the machine after somebody wrote into the database.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { accessible, launch, person } from "../lib/browser.mjs";
import { Server, binary, eventually } from "../lib/server.mjs";

const shots = process.env.SCREENSHOTS;
let server, browser;
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

test("an administrator sees who did what, filters it by keyboard, and verifies the chain", async () => {
  const clinician = await server.signIn("clinician");
  const { body } = await server.api(clinician, "GET", "/fhir/R4/Observation?_count=1");
  const seen = `Observation/${body.entry[0].resource.id}`;
  assert.equal((await server.api(clinician, "GET", `/fhir/R4/${seen}`)).status, 200);

  const page = await person(browser, { viewport: { width: 1440, height: 900 } });
  await page.goto(server.addresses.admin);
  await id(page, "nav-audit").click();
  await id(page, "audit-entry").first().waitFor();
  await accessible(page, "audit");
  await shot(page, "audit-light");

  // Who came with a token of the machine, what else was done in that session, and whose names a list showed.
  assert.equal((await server.api(clinician, "GET", "/fhir/R4/Patient?_count=20")).status, 200);
  await id(page, "audit-issued").selectOption("machine");
  await page.waitForURL((url) => url.searchParams.get("issued") === "machine");
  await page.locator("[data-testid=audit-entry] .chip", { hasText: "taken at the machine" }).first().waitFor();
  await page.getByRole("button", { name: /^Same session / }).first().click();
  await page.waitForURL((url) => /^[\da-f-]{36}$/.test(url.searchParams.get("session") ?? ""));
  await id(page, "audit-entry").first().waitFor();
  await id(page, "audit-clear").click();
  await eventually("the list stands in the trail", async () => {
    await page.reload();
    await id(page, "audit-entry").first().waitFor();
    return (await id(page, "audit-concerned").count()) > 0;
  });
  await id(page, "audit-concerned").first().locator("summary").click();
  const patient = id(page, "audit-concerned").first().locator(".audit-pick").first();
  await patient.waitFor();
  await accessible(page, "audit, a list of patients");
  await shot(page, "audit-list-open");
  const named = await patient.innerText();
  await patient.click();
  await page.waitForURL((url) => url.searchParams.get("target") === `Patient/${named}`);
  await page.locator("[data-testid=audit-entry] [data-testid=audit-concerned]").first().waitFor();
  await id(page, "audit-clear").click();

  // By keyboard: a target and Enter; the address keeps it.
  await eventually("the read stands in the trail", async () => {
    await id(page, "audit-target").fill(seen);
    await id(page, "audit-target").press("Enter");
    await page.waitForURL((url) => url.searchParams.get("target") === seen);
    const row = page.locator("[data-testid=audit-entry]", { hasText: seen }).first();
    return /Read/.test(await row.innerText({ timeout: 1000 }));
  });
  const first = page.locator("[data-testid=audit-entry] .audit-pick").first();
  await eventually("the person is named", async () => !/^user:/.test(await first.innerText()));
  await page.reload();
  await id(page, "audit-entry").first().waitFor();
  assert.equal(await id(page, "audit-target").inputValue(), seen);

  // A choice acts at once; nothing fits; and the way back.
  await id(page, "audit-action").selectOption("delete");
  await page.locator(".empty").waitFor();
  await shot(page, "audit-empty");
  await id(page, "audit-clear").click();
  await id(page, "audit-entry").first().waitFor();
  assert.equal(new URL(page.url()).search, "");

  // Older entries, and Back.
  const top = Number(await id(page, "audit-entry").first().getAttribute("data-seq"));
  const bottom = Number(await id(page, "audit-entry").last().getAttribute("data-seq"));
  await id(page, "audit-older").click();
  await eventually("the older page", async () => Number(await id(page, "audit-entry").first().getAttribute("data-seq")) < bottom);
  await page.goBack();
  await eventually("the newest page again", async () => Number(await id(page, "audit-entry").first().getAttribute("data-seq")) >= top);

  await id(page, "audit-verify").focus();
  await page.keyboard.press("Enter");
  await id(page, "audit-intact").waitFor();
  await accessible(page, "audit, verified");

  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "audit, dark");
  await shot(page, "audit-dark");
  await page.setViewportSize({ width: 390, height: 844 });
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wider, 0, "nothing sticks out on a phone");
  await accessible(page, "audit, phone");
  await shot(page, "audit-phone-dark");
  await id(page, "audit-entry").first().evaluate((row) => row.scrollIntoView());
  await page.emulateMedia({ colorScheme: "light" });
  await shot(page, "audit-phone-light");
  assert.deepEqual(page.problems, []);

  const doctor = await person(browser, { viewport: { width: 1440, height: 900 } });
  await doctor.goto(server.addresses.clinician);
  await id(doctor, "nav-today").waitFor();
  assert.equal(await id(doctor, "nav-audit").count(), 0, "only administrators have the entry");
  await doctor.goto(`${server.url}/app/audit`);
  await id(doctor, "error-state").waitFor();
  // Nor is there half of an administrators' page, with buttons that would be refused.
  await doctor.goto(`${server.url}/app/admin/people`);
  await id(doctor, "error-state").waitFor();
  assert.equal(await id(doctor, "invite").count(), 0);
});

/** Runs `medtech audit`. */
const audit = (...args) => spawnSync(binary, ["audit", ...args], { env: server.env, encoding: "utf8", maxBuffer: 1 << 28 });

test("at the machine: export is whole, and an edit or a cut made while the server is away is found", async () => {
  const token = await server.signIn("admin");
  const { body } = await server.api(token, "POST", "/api/tenants/audit/verify");
  assert.equal(body.intact, true);
  server.process.kill("SIGTERM");
  await server.gone;

  const good = audit("verify");
  assert.equal(good.status, 0, good.stdout + good.stderr);
  // A clean stop signs the end: nothing is left unvouched.
  const [, entries] = good.stdout.match(/: (\d+) entries/);
  assert.match(good.stdout, new RegExp(`up to entry ${entries} `));

  const slug = good.stdout.match(/ok +(\S+):/)[1];
  const events = audit("export", "--tenant", slug).stdout.trim().split("\n").map((line) => JSON.parse(line));
  assert.equal(events.length, Number(entries) + 1, "every entry, and the export itself");
  assert.ok(events.every((e) => e.resourceType === "AuditEvent"));
  assert.equal(audit("export", "--tenant", "nobody").status, 1);

  // The file is encrypted: only somebody who also has the root key can do this.
  const editor = join(dirname(binary), "examples", "edit_database");
  const sql = (text) => execFileSync(editor, [server.dir, "1", text]);
  sql("UPDATE audit SET actor = 'user:somebody-else' WHERE seq = 5");
  const edited = audit("verify", "--tenant", slug);
  assert.equal(edited.status, 1);
  assert.match(edited.stdout, /entry 5 was altered/);

  const log = join(server.dir, "audit", (await readdir(join(server.dir, "audit")))[0]);
  sql(`DELETE FROM audit WHERE seq > 10; DELETE FROM audit_checkpoint`);
  assert.match(audit("verify", "--tenant", slug).stdout, /cut off: entries 11 to at least/);
  const lines = (await readFile(log, "utf8")).split("\n");
  await writeFile(log, lines.map((l) => l.replace(/"seq":\d+/, '"seq":4')).join("\n"));
  assert.match(audit("verify", "--tenant", slug).stdout, /not signed with our key/);
});
