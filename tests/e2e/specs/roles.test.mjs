// A role of the clinic's own, in Chromium: put together by keyboard, given to somebody, changed while they are at work, deleted when
// nobody has it.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, launch, person } from "../lib/browser.mjs";
import { shot } from "../lib/look.mjs";
import { Server, eventually } from "../lib/server.mjs";

let server, browser;
before(async () => {
  server = await Server.start();
  browser = await launch();
  const token = await server.signIn("clinician");
  const set = await server.api(token, "POST", "/api/identity/me/password", { new: PASSWORD });
  assert.equal(set.status, 204, JSON.stringify(set.body));
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const id = (page, name) => page.getByTestId(name);
const PASSWORD = "a kite over the harbour";
const BOARD = ["staff.thing.board.read", "staff.thing.board.subscribe"];

test("a role is made by keyboard, given, changed at once for who is at work, and deleted when unused", async () => {
  const admin = await person(browser, { viewport: { width: 1280, height: 900 } });
  await admin.goto(server.addresses.admin);
  await id(admin, "nav-admin").click();
  await id(admin, "person").first().waitFor();
  await admin.goto(`${server.url}/app/admin/roles`);
  await id(admin, "role-new").focus();
  await admin.keyboard.press("Enter");
  await id(admin, "role-name").focus();
  await admin.keyboard.type("Nurse");
  for (const permission of [...BOARD, "clinician.record.directory.see"]) {
    await admin.locator(`[data-testid="${permission}"]`).focus();
    await admin.keyboard.press("Space");
  }
  assert.equal(await admin.locator("[data-testid*='glass'], [data-testid^='admin.']").count(), 0, "what goes round the rules is not offered");
  await accessible(admin, "a new role");
  await shot(admin, "role-new");
  await id(admin, "role-save").focus();
  await admin.keyboard.press("Enter");
  const row = admin.locator("[data-testid=own-role][data-name=Nurse]");
  await row.waitFor();
  // The rules page shows it as it shows the fixed ones.
  await admin.locator("section[data-testid^=role-own]").waitFor();

  const people = await server.signIn("admin");
  const { body: made } = await server.api(people, "GET", "/api/identity/roles");
  const role = made.roles.find((r) => r.name === "Nurse");
  await admin.goto(`${server.url}/app/admin/people`);
  await id(admin, "people-search").fill("marsh");
  await id(admin, "person-open").first().click();
  await admin.locator("[data-testid=role-own][data-name=Nurse]").check();
  await id(admin, "role-clinician").uncheck();
  await id(admin, "person-save").click();
  await admin.getByText("Nurse", { exact: false }).first().waitFor();
  await eventually("the role is theirs", async () => (await server.api(people, "GET", "/api/identity/roles")).body.roles[0].people === 1);
  const entered = await server.api(null, "POST", "/api/identity/sign-in", { email: "marsh@harbour.example", password: PASSWORD });
  assert.deepEqual([entered.body.user.roles, entered.body.user.acts_as], [[role.role], ["clinician", "staff"]]);
  const token = entered.body.access_token;
  const sees = async () => (await server.api(token, "GET", "/fhir/R4/Practitioner")).body.entry?.length ?? 0;
  const charts = async () => (await server.api(token, "GET", "/fhir/R4/Observation")).body.entry?.length ?? 0;
  const alerts = async () => (await server.api(token, "GET", "/api/notifications/alerts?board=main")).status;
  const today = async () => (await server.api(token, "GET", "/api/appointments/today")).status;
  assert.ok((await sees()) > 0);
  assert.deepEqual([await charts(), await alerts(), await today()], [0, 200, 403], "what was chosen, and what was not");
  const changed = await server.api(people, "PUT", `/api/identity/roles/${role.id}`, { name: "Nurse", permissions: BOARD, version: role.version });
  assert.equal(changed.status, 200, JSON.stringify(changed.body));
  assert.equal(await sees(), 0, "in the session that stands");
  // On a phone, in the dark.
  for (const [colorScheme, width, height] of [["dark", 390, 844], ["light", 390, 844], ["dark", 1280, 900]]) {
    await admin.emulateMedia({ colorScheme });
    await admin.setViewportSize({ width, height });
    await admin.goto(`${server.url}/app/admin/roles`);
    await row.getByTestId("own-role-open").click();
    await id(admin, "role-name").waitFor();
    await eventually(`a role, ${colorScheme}, ${width}`, async () => (await accessible(admin, "a role"), true), 8000);
    assert.equal(await admin.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0);
    await shot(admin, `role-${colorScheme}-${width}`);
    await admin.keyboard.press("Escape");
  }
  await row.getByTestId("own-role-open").click();
  await id(admin, "role-delete").click();
  await id(admin, "failed").waitFor();
  const { body } = await server.api(people, "GET", "/api/identity/users?search=marsh");
  await server.api(people, "PATCH", `/api/identity/users/${body.users[0].id}`, { roles: ["clinician"] });
  await id(admin, "role-delete").click();
  await row.waitFor({ state: "detached" });
  assert.deepEqual(admin.problems, []);
});
