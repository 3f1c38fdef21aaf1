// Administration in Chromium: people invited by mail and locked, clinics made, closed and deleted, settings that go back, the
// clinic's data as an archive whose manifest is true; and the pages everyone has.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { accessible, launch, person } from "../lib/browser.mjs";
import { bears, fits } from "../lib/look.mjs";
import { Server, eventually } from "../lib/server.mjs";

const shots = process.env.SCREENSHOTS;
let server, browser, admin;
before(async () => {
  if (shots) await mkdir(shots, { recursive: true });
  server = await Server.start();
  browser = await launch();
  admin = await person(browser, { viewport: { width: 1280, height: 900 }, acceptDownloads: true });
  await admin.goto(server.addresses.admin);
  await id(admin, "nav-admin").click();
  await id(admin, "person").first().waitFor();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const id = (page, name) => page.getByTestId(name);
const PASSWORD = "a calm river at noon";

/** Light and dark, desk and phone: no barrier, and nothing sticks out. */
async function looks(page, name) {
  for (const [scheme, width, height] of [["light", 1280, 900], ["dark", 1280, 900], ["light", 390, 844], ["dark", 390, 844]]) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width, height });
    // The colours of an open dialog follow a change of scheme some frames later: what stands is judged.
    await eventually(`${name}, ${scheme}, ${width}`, async () => (await accessible(page, name), true), 8000);
    await fits(page, `${name} at ${width}`);
    if (shots) await page.screenshot({ path: `${shots}/${name}-${scheme}-${width}.png` });
  }
  await page.emulateMedia({ colorScheme: "light" });
  await bears(page, name);
  await page.setViewportSize({ width: 1280, height: 900 });
}

/** The newest link that the local outbox holds for an address, at a host. */
async function mailed(page, host, address) {
  return eventually(`a mail to ${address}`, async () => {
    await page.goto(`${server.url.replace("localhost", host)}/dev/outbox`);
    const mail = page.locator("article", { hasText: `To: ${address}` }).first();
    return (await mail.locator("pre").innerText({ timeout: 500 })).match(/https?:\S+\/enter#\S+/)?.[0];
  });
}

test("somebody is invited, comes by the mail's link, chooses a password, signs in, and is locked out while at work", async () => {
  await looks(admin, "people");
  await id(admin, "invite").click();
  await id(admin, "invite-name").fill("Nina Nowak");
  await id(admin, "invite-email").fill("nina@harbour.example");
  await looks(admin, "people-invite");
  // A slip of the hand beside the dialog loses nothing.
  await admin.mouse.click(8, 450);
  assert.equal(await id(admin, "invite-name").inputValue(), "Nina Nowak");
  await id(admin, "invite-send").click();
  await id(admin, "invited").waitFor();
  await id(admin, "people-search").fill("nina");
  const row = admin.locator("[data-testid=person][data-email='nina@harbour.example']");
  await row.getByText("Invited", { exact: true }).waitFor();

  const nina = await person(browser, { viewport: { width: 1280, height: 900 } });
  const link = await mailed(nina, "localhost", "nina@harbour.example");
  await nina.goto(link);
  await id(nina, "welcome").waitFor();
  await looks(nina, "welcome");
  await id(nina, "welcome-password").fill(PASSWORD);
  await id(nina, "welcome-submit").click();
  await id(nina, "nav-today").waitFor();
  await nina.waitForURL(/\/app\/today$/);

  const again = await person(browser);
  await again.goto(link);
  await id(again, "enter-error").waitFor();
  await again.goto(server.url);
  await id(again, "signin-email").fill("nina@harbour.example");
  await id(again, "signin-password").fill(PASSWORD);
  await id(again, "signin-submit").click();
  await id(again, "nav-today").waitFor();

  await admin.reload();
  await id(admin, "people-search").fill("nina");
  await row.getByText("Active", { exact: true }).waitFor();
  await row.getByTestId("person-open").click();
  await id(admin, "person-sheet").getByText("2 sessions open").waitFor();
  await looks(admin, "person");
  // What cannot be brought back is asked first, and changes nothing until it is answered.
  await id(admin, "act-reset").click();
  await id(admin, "act-reset-sure").waitFor();
  await id(admin, "person-sheet").getByRole("button", { name: "Cancel" }).click();
  await id(admin, "person-sheet").getByText("2 sessions open").waitFor();
  await id(admin, "act-lock").click();
  // At once, without any click of hers: the live channel has gone with the session.
  await id(nina, "reauth").waitFor({ timeout: 5000 });
  await id(again, "reauth").waitFor({ timeout: 5000 });
  await id(nina, "signin-email").fill("nina@harbour.example");
  await id(nina, "signin-password").fill(PASSWORD);
  await id(nina, "signin-submit").click();
  await id(nina, "signin-error").waitFor();
  await id(admin, "person-sheet").getByText("Locked").waitFor();
  await id(admin, "sheet-close").click();

  await id(admin, "admin-roles").click();
  await id(admin, "role-admin").waitFor();
  await looks(admin, "roles");
  assert.deepEqual(admin.problems, []);
});

test("a new clinic's first administrator comes in at its own address; closed, nobody does; deletion asks for the name and can be undone", async () => {
  await id(admin, "admin-clinics").click();
  await id(admin, "clinic-add").click();
  await id(admin, "clinic-name").fill("Hill Clinic");
  await id(admin, "clinic-slug").fill("hill");
  await id(admin, "clinic-admin-name").fill("Hana Hill");
  await id(admin, "clinic-admin-email").fill("hana@hill.example");
  await id(admin, "clinic-create").click();
  const link = await id(admin, "clinic-link").innerText();
  assert.match(link, /^http:\/\/hill\.localhost:\d+\/enter#/);
  await looks(admin, "clinics");

  const hana = await person(browser, { viewport: { width: 1280, height: 900 } });
  assert.equal(await mailed(hana, "hill.localhost", "hana@hill.example"), link);
  await hana.goto(link);
  await id(hana, "welcome-password").fill(PASSWORD);
  await id(hana, "welcome-submit").click();
  // A new clinic asks for a second step before anything clinical.
  await hana.waitForURL(/\/app\/account\/security$/);
  await id(hana, "security-required").waitFor();
  await id(hana, "nav-admin").click();
  await id(hana, "person").first().waitFor();
  assert.equal(await id(hana, "person").count(), 1, "nobody of the other clinic");
  assert.equal(await id(hana, "admin-clinics").count(), 0, "the installation is not hers");

  const row = admin.locator("[data-testid=clinic][data-slug=hill]");
  await row.getByTestId("clinic-open").click();
  await looks(admin, "clinic");
  await id(admin, "clinic-suspend").click();
  await id(admin, "clinic-resume").waitFor();
  await id(hana, "reauth").waitFor({ timeout: 5000 });
  const closed = await hana.evaluate(async () => {
    const answer = await fetch("/api/tenants/current");
    return [answer.status, (await answer.json()).code];
  });
  assert.deepEqual(closed, [403, "tenant.suspended"]);
  await id(admin, "clinic-resume").click();
  await id(admin, "clinic-suspend").waitFor();
  await hana.reload();
  await id(hana, "person").first().waitFor();

  await id(admin, "clinic-delete").click();
  assert.ok(await id(admin, "delete-do").isDisabled());
  await id(admin, "delete-slug").fill("hil");
  assert.ok(await id(admin, "delete-do").isDisabled());
  await id(admin, "delete-slug").fill("hill");
  await looks(admin, "clinic-delete");
  await id(admin, "delete-do").click();
  await id(admin, "clinic-resume").waitFor();
  await id(hana, "reauth").waitFor({ timeout: 5000 });
  await id(admin, "clinic-resume").click();
  await id(admin, "clinic-suspend").waitFor();
  await id(admin, "sheet-close").click();
  assert.deepEqual(admin.problems, []);
});

test("settings act at once and go back to an earlier version", async () => {
  await id(admin, "admin-settings").click();
  const newest = async () => Number(await id(admin, "version").first().getAttribute("data-version"));
  for (const minutes of ["30", "45"]) {
    const before = await newest();
    await id(admin, "setting-idle_minutes").fill(minutes);
    await id(admin, "settings-save").click();
    await eventually("saved", async () => (await newest()) > before && (await id(admin, "version").first().innerText()).includes("in force") && (await id(admin, "setting-idle_minutes").inputValue()) === minutes);
  }
  await looks(admin, "settings");
  const [{ version }] = (await server.api(await server.run("token", "--user", "admin"), "GET", "/api/tenants/settings/versions")).body.versions.filter((v) => v.settings.idle_minutes === 30);
  await admin.locator(`[data-testid=version][data-version='${version}']`).getByTestId("settings-back").click();
  await eventually("back", async () => (await id(admin, "setting-idle_minutes").inputValue()) === "30");
  assert.deepEqual(admin.problems, []);
});

/** Name to bytes of a tar archive (POSIX ustar, as far as we use it). */
function untar(bytes) {
  const files = new Map();
  for (let at = 0; at + 512 <= bytes.length && bytes[at] !== 0;) {
    const text = (from, length) => bytes.subarray(at + from, at + from + length).toString().replace(/\0.*$/s, "");
    const size = parseInt(text(124, 12), 8);
    files.set(text(0, 100), bytes.subarray(at + 512, at + 512 + size));
    at += 512 + Math.ceil(size / 512) * 512;
  }
  return files;
}

test("the clinic's data comes as an archive, and the manifest's checksums are those of its files", async () => {
  await id(admin, "admin-data").click();
  await id(admin, "export-begin").click();
  await admin.locator("[data-testid=export][data-state=done]").waitFor({ timeout: 60_000 });
  await looks(admin, "data");
  const [download] = await Promise.all([admin.waitForEvent("download"), id(admin, "export-download").click()]);
  const bytes = await readFile(await download.path());
  const sha = (b) => createHash("sha256").update(b).digest("hex");
  assert.equal(sha(bytes), await id(admin, "export").getAttribute("data-sha256"));
  const files = untar(bytes);
  const manifest = JSON.parse(files.get("manifest.json"));
  assert.equal(manifest.files.length, files.size - 1);
  for (const file of manifest.files) assert.deepEqual([sha(files.get(file.path)), files.get(file.path).length], [file.sha256, file.size], file.path);
  assert.ok(files.get("fhir/Patient.ndjson").toString().trim().split("\n").every((line) => JSON.parse(line).resourceType === "Patient"));
  assert.ok(files.get("users.ndjson").toString().includes("nina@harbour.example") && !bytes.includes("hana@hill.example"));
  assert.deepEqual(admin.problems, []);
});

test("a patient reads who saw the record, keeps it as a table, lets a carer in, and says how they like it", async () => {
  const doctor = await server.signIn("clinician");
  const token = await server.run("token", "--user", "patient");
  const { body: me } = await server.api(token, "GET", "/api/identity/me");
  assert.equal((await server.api(doctor, "GET", `/fhir/R4/Patient/${me.user.patient_id}`)).status, 200);

  const page = await person(browser, { viewport: { width: 1280, height: 900 }, acceptDownloads: true });
  await page.addInitScript(([token, user]) => {
    if (location.hostname === "localhost") sessionStorage.setItem("medtech.session", JSON.stringify({ token, expiresAt: "2099-01-01T00:00:00Z", user }));
  }, [token, me.user]);
  await page.goto(`${server.url}/app/account/privacy`);
  await eventually("the clinician's look stands in plain words", async () => {
    await page.reload();
    await id(page, "log-line").first().waitFor();
    return /\(a clinician\) looked at: name, birth date/.test(await page.locator("[aria-label='Who saw my record']").innerText());
  });
  // No name of a type, no code: every line is words.
  assert.doesNotMatch(await page.locator("[aria-label='Who saw my record']").innerText(), /\b(?:[A-Z][a-z]+){2,}\b|\b[a-z]+[._][a-z]+\b/);
  await looks(page, "privacy");
  const [table] = await Promise.all([page.waitForEvent("download"), id(page, "log-csv").click()]);
  assert.match(await readFile(await table.path(), "utf8"), /^at,who,role,action,what,outcome,emergency\r\n"20/);
  const [bundle] = await Promise.all([page.waitForEvent("download"), id(page, "log-fhir").click()]);
  assert.equal(JSON.parse(await readFile(await bundle.path(), "utf8")).entry[0].resource.resourceType, "AuditEvent");

  await id(page, "proxy-add").click();
  await id(page, "proxy-name").fill("Carla Carer");
  await id(page, "proxy-email").fill("carla@harbour.example");
  await looks(page, "proxy");
  await id(page, "proxy-send").click();
  await page.locator("[data-testid=proxy][data-state=asked]").waitFor();
  const carla = await person(browser, { viewport: { width: 390, height: 844 } });
  await carla.goto(await mailed(carla, "localhost", "carla@harbour.example"));
  await id(carla, "welcome-password").fill(PASSWORD);
  await id(carla, "welcome-submit").click();
  await carla.waitForURL(/account\/profile/);
  await id(carla, "account-privacy").click();
  await id(carla, "proxy-accept").click();
  await carla.locator("[data-testid=proxy][data-state=active]").waitFor();
  await page.reload();
  await page.locator("[data-testid=proxy][data-state=active]").getByTestId("proxy-end").click();
  await page.getByText("Nobody acts for you").waitFor();

  await id(page, "account-profile").click();
  await id(page, "profile-name").waitFor();
  await looks(page, "profile");
  await id(page, "account-preferences").click();
  await id(page, "prefer-theme").selectOption("dark");
  await eventually("the choice stands", async () => (await server.api(token, "GET", "/api/identity/me/preferences")).body.theme === "dark");
  await looks(page, "preferences");
  assert.deepEqual(page.problems, []);
});
