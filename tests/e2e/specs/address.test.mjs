// One's own e-mail address, in Chromium: asked for with a fresh proof, proved in the browser that asked, taken back from the old
// mailbox; and an administrator changes somebody's.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, launch, person } from "../lib/browser.mjs";
import { shot } from "../lib/look.mjs";
import { Server, eventually } from "../lib/server.mjs";

const PASSWORD = "a kite over the harbour";
const OLD = "marsh@harbour.example";
const NEW = "j.marsh@harbour.example";
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
const phone = { viewport: { width: 390, height: 844 } };
const desktop = { viewport: { width: 1280, height: 900 } };
const links = async (kind) => [...(await (await fetch(`${server.url}/dev/outbox`)).text()).matchAll(new RegExp(`http://localhost:\\d+/address/${kind}#[\\w-]+`, "g"))].map(([link]) => link);
const newest = (kind, before) => eventually(`a mail: ${kind}`, async () => (await links(kind)).find((link) => !before.includes(link)));

async function signIn(page, email) {
  await page.goto(server.url);
  await id(page, "signin-email").fill(email);
  await id(page, "signin-password").fill(PASSWORD);
  await id(page, "signin-submit").click();
}

async function change(page, email) {
  const before = { confirm: await links("confirm"), undo: await links("undo") };
  await page.goto(`${server.url}/app/account/profile`);
  await id(page, "address-change").click();
  await id(page, "address-new").fill(email);
  await accessible(page, "asking for another address");
  await shot(page, "address-ask");
  await id(page, "address-send").click();
  await id(page, "address-waits").waitFor();
  assert.match(await id(page, "address-waits").innerText(), new RegExp(email.replaceAll(".", "\\.")));
  assert.equal(await id(page, "address-now").innerText(), OLD, "nothing is changed by asking");
  return { confirm: await newest("confirm", before.confirm), undo: await newest("undo", before.undo) };
}

test("a new address is proved in the browser that asked, and the old mailbox takes it back", async () => {
  const page = await person(browser, phone);
  await signIn(page, OLD);
  await id(page, "nav-today").waitFor();
  const { confirm } = await change(page, NEW);
  await shot(page, "address-waits");

  const stranger = await person(browser, desktop);
  await stranger.goto(confirm);
  await id(stranger, "address-confirm").click();
  await id(stranger, "address-problem").waitFor();
  assert.equal(await id(stranger, "address-problem").getAttribute("data-code"), "link.other_browser");

  const before = await links("undo");
  const tab = await page.context().newPage();
  await tab.goto(confirm);
  await id(tab, "address-confirm").waitFor();
  assert.ok(!tab.url().includes("#"), "the secret is gone from the address bar");
  await accessible(tab, "proving the address");
  await shot(tab, "address-confirm");
  await tab.keyboard.press("Tab");
  await id(tab, "address-confirm").focus();
  await tab.keyboard.press("Enter");
  await id(tab, "address-done").waitFor();
  await accessible(tab, "a new address");
  // The session that asked is over, without a click.
  await id(page, "signin-email").waitFor();

  const other = await person(browser, { ...desktop, colorScheme: "dark" });
  await signIn(other, NEW);
  await id(other, "nav-today").waitFor();
  await other.goto(`${server.url}/app/account/profile`);
  await id(other, "address-now").waitFor();
  assert.equal(await id(other, "address-now").innerText(), NEW);
  await shot(other, "address-dark");

  // From the old mailbox, in whatever browser.
  await stranger.goto(await newest("undo", before));
  await id(stranger, "address-undo").waitFor();
  await accessible(stranger, "taking it back");
  await shot(stranger, "address-undo");
  await id(stranger, "address-undo").click();
  await id(stranger, "address-done").waitFor();
  await id(other, "signin-email").waitFor();
  await signIn(other, OLD);
  await id(other, "nav-today").waitFor();
  assert.deepEqual([page, stranger, other].flatMap((p) => p.problems), []);
});

test("an administrator changes somebody's address: both are told, and the person is out", async () => {
  const token = await server.signIn("admin");
  const { body } = await server.api(token, "GET", `/api/identity/users?search=${OLD}`);
  const user = body.users.find((u) => u.email === OLD);
  const session = await server.run("token", "--user", "clinician");
  const page = await person(browser, desktop);
  await page.goto(server.addresses.admin);
  await id(page, "admin-people").or(id(page, "nav-today")).or(id(page, "user-menu")).first().waitFor();
  await page.goto(`${server.url}/app/admin/people`);
  await id(page, "people-search").fill("marsh");
  await page.locator(`[data-testid=person][data-email="${OLD}"]`).getByTestId("person-open").click();
  await id(page, "person-email").fill("dr.marsh@harbour.example");
  await accessible(page, "a person");
  await id(page, "person-save").click();
  await page.locator('[data-testid=person][data-email="dr.marsh@harbour.example"]').waitFor();
  assert.equal((await server.api(session, "GET", "/api/identity/me")).status, 401);
  await eventually("both are told", async () => {
    const outbox = await (await fetch(`${server.url}/dev/outbox`)).text();
    return outbox.split("Your clinic changed your e-mail address").length >= 3 && outbox.includes("dr.marsh@harbour.example");
  });
  // Their own they prove themselves.
  const me = await server.api(token, "GET", "/api/identity/me");
  const own = await server.api(token, "PATCH", `/api/identity/users/${me.body.id ?? me.body.user?.id}`, { email: "x@harbour.example" });
  assert.deepEqual([own.status, own.body.code], [409, "identity.email_own"]);
  assert.ok(user.id);
});
