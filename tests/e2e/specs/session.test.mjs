// A session from its beginning to its end, in Chromium: the fields of the door, signing out, signing in anew, proving oneself in the
// middle of a call, and what somebody prefers, which goes with them to another browser.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, launch, person, received } from "../lib/browser.mjs";
import { shot } from "../lib/look.mjs";
import { Server, eventually } from "../lib/server.mjs";
import { arrive } from "../lib/visit.mjs";

const PASSWORD = "a kite over the harbour";
const DOCTOR = "marsh@harbour.example";
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
const desktop = { viewport: { width: 1280, height: 900 } };
const tokenOf = (page) => page.evaluate(() => JSON.parse(sessionStorage.getItem("medtech.session"))?.token ?? null);
const me = (token) => server.api(token, "GET", "/api/identity/me");

async function signIn(page) {
  await page.goto(server.url);
  await id(page, "signin-email").fill(DOCTOR);
  await id(page, "signin-password").fill(PASSWORD);
  await id(page, "signin-submit").click();
  await id(page, "nav-today").waitFor();
}

test("password fields are masked, named for password managers, and take what is pasted", async () => {
  const page = await person(browser, { ...desktop, permissions: ["camera", "microphone", "clipboard-read", "clipboard-write"] });
  await page.goto(server.url);
  const attributes = (name) => id(page, name).evaluate((field) => [field.type, field.autocomplete.split(" ")[0]]);
  assert.deepEqual(await attributes("signin-email"), ["email", "username"]);
  assert.deepEqual(await attributes("signin-password"), ["password", "current-password"]);
  await id(page, "signin-email").fill(DOCTOR);
  await page.evaluate((text) => navigator.clipboard.writeText(text), PASSWORD);
  await id(page, "signin-password").focus();
  await page.keyboard.press("Control+V");
  assert.equal(await id(page, "signin-password").inputValue(), PASSWORD);
  await page.keyboard.press("Enter");
  await id(page, "nav-today").waitFor();
  await page.goto(`${server.url}/app/account/security`);
  await id(page, "password-change").click();
  assert.deepEqual(await attributes("password-current"), ["password", "current-password"]);
  assert.deepEqual(await attributes("password-new"), ["password", "new-password"]);
  await page.evaluate(() => navigator.clipboard.writeText("pasted, not typed"));
  await id(page, "password-new").focus();
  await page.keyboard.press("Control+V");
  assert.equal(await id(page, "password-new").inputValue(), "pasted, not typed");
  assert.deepEqual(page.problems, []);
});

test("signing out by the menu leaves nothing on the screen, in the tab or behind the back button", async () => {
  const page = await person(browser, desktop);
  await signIn(page);
  await id(page, "appointment").first().waitFor();
  const names = await page.evaluate(() => [...document.querySelectorAll("[data-testid=appointment]")].map((row) => row.innerText.split("\n").find((line) => / /.test(line))));
  assert.ok(names.length > 0);
  const token = await tokenOf(page);
  await page.evaluate(() => sessionStorage.setItem("medtech.draft.x", '"left behind"'));
  const told = page.waitForResponse((r) => r.url().endsWith("/api/identity/sign-out"));
  await id(page, "user-menu").click();
  await accessible(page, "the menu");
  await id(page, "sign-out").click();
  assert.equal((await (await told).allHeaders())["clear-site-data"], '"cache"');
  await id(page, "signin-email").waitFor();
  const nothing = async () => {
    const left = await page.evaluate(() => [document.body.innerText, JSON.stringify({ ...sessionStorage })]);
    for (const name of names.filter(Boolean)) assert.ok(!left.some((text) => text.includes(name)), `${name} is still there`);
    assert.ok(!/mt_\d|left behind/.test(left[1]), left[1]);
  };
  await nothing();
  await page.goBack().catch(() => undefined);
  await id(page, "signin-email").waitFor();
  await nothing();
  assert.equal((await me(token)).status, 401);
});

test("signing in anew in a tab ends the session it held", async () => {
  const page = await person(browser, desktop);
  await signIn(page);
  const before = await tokenOf(page);
  await page.goto(server.addresses.clinician);
  await eventually("another session", async () => { const now = await tokenOf(page); return now !== null && now !== before; });
  assert.equal((await me(before)).status, 401);
  assert.equal((await me(await tokenOf(page))).status, 200);
});

// The mail's link of a new password, opened in another tab of the browser that asked.
async function forgotten(page, email) {
  const links = async () => [...(await (await fetch(`${server.url}/dev/outbox`)).text()).matchAll(/http:\/\/localhost:\d+\/enter#[\w-]+/g)].map(([link]) => link);
  const before = new Set(await links());
  await page.goto(server.url);
  await id(page, "signin-email").fill(email);
  await id(page, "signin-forgotten").click();
  await id(page, "link-sent").waitFor();
  const link = await eventually("the mail", async () => (await links()).find((link) => !before.has(link)));
  const tab = await page.context().newPage();
  await tab.goto(link);
  await id(tab, "reset-password").waitFor();
  return { link, tab };
}

test("a forgotten password is replaced by mail, in the browser that asked", async () => {
  const token = await server.run("token", "--user", "patient");
  const { body: user } = await server.api(token, "GET", "/api/identity/me/profile");
  const set = await server.api(token, "POST", "/api/identity/me/password", { new: "a lantern at the pier" });
  assert.equal(set.status, 204, JSON.stringify(set.body));
  const page = await person(browser, desktop);
  const { link, tab } = await forgotten(page, user.email);
  const stranger = await person(browser, desktop);
  await stranger.goto(link);
  await id(stranger, "enter-error").waitFor();
  assert.equal(await id(stranger, "enter-error").getAttribute("data-code"), "link.other_browser");
  // What the mailbox alone does not know.
  await id(tab, "reset-password").fill("Password1234");
  await id(tab, "reset-submit").click();
  await id(tab, "birth-date").fill("1968-04-12");
  await id(tab, "reset-submit").click();
  await id(tab, "reset-error").waitFor();
  await accessible(tab, "a new password");
  await shot(tab, "reset");
  assert.equal(await id(tab, "reset-password").getAttribute("autocomplete"), "new-password");
  await id(tab, "reset-password").fill("another kite, another harbour");
  await id(tab, "reset-submit").click();
  await id(tab, "reset-done").waitFor();
  assert.equal(await tab.evaluate(() => sessionStorage.getItem("medtech.session")), null, "it opens no session");
  await tab.goto(server.url);
  await id(tab, "signin-email").fill(user.email);
  await id(tab, "signin-password").fill("another kite, another harbour");
  await id(tab, "signin-submit").click();
  await id(tab, "user-menu").waitFor();
  assert.deepEqual(page.problems, []);
});

test("who sees records of others and has no second factor gets no new password by mail alone", async () => {
  const { tab } = await forgotten(await person(browser, desktop), DOCTOR);
  await id(tab, "reset-password").fill("another kite, another harbour");
  await id(tab, "reset-submit").click();
  await id(tab, "enter-error").waitFor();
  assert.equal(await id(tab, "enter-error").getAttribute("data-code"), "password.ask_administrator");
  await accessible(tab, "ask an administrator");
  await signIn(tab);
});

test("proving oneself in the middle of a call: a new token, the same call", async () => {
  const page = await person(browser, { viewport: { width: 1440, height: 900 } });
  await signIn(page);
  const { visit, token: guest } = await arrive(server);
  await page.goto(`${server.url}/app/queue`);
  await id(page, "admit").first().click();
  await page.waitForURL("**/app/visit/*");
  await eventually("the call stands", async () => page.evaluate(() => window.__peers.some((peer) => peer.connectionState === "connected")));
  const before = await tokenOf(page);
  const sent = () => page.evaluate(async () => {
    let packets = 0;
    for (const peer of window.__peers) for (const [, report] of await peer.getStats()) if (report.type === "outbound-rtp") packets += report.packetsSent ?? 0;
    return { packets, standing: window.__peers.filter((peer) => peer.connectionState === "connected").length, made: window.__peers.length };
  });
  await eventually("sound goes out", async () => (await sent()).packets > 0);
  const call = await sent();
  const heard = [];
  page.on("websocket", (socket) => socket.url().includes("/connection/") && socket.on("framereceived", ({ payload }) => heard.push(String(payload))));
  // The session is younger than ten minutes, so the server's refusal is given in its place, once.
  const refusal = { type: "urn:medtech:problem:auth.step_up", title: "Forbidden", status: 403, code: "auth.step_up", detail: "", correlation: "x" };
  let asked = 0;
  await page.route("**/api/identity/me/preferences", (route) =>
    route.request().method() === "PUT" && asked++ === 0 ? route.fulfill({ status: 403, contentType: "application/problem+json", json: refusal }) : route.continue());
  await id(page, "user-menu").click();
  await page.getByRole("menuitemradio", { name: "Dark" }).click();
  await id(page, "stepup-password").fill(PASSWORD);
  await shot(page, "stepup-in-call");
  await id(page, "stepup-password-submit").click();
  await id(page, "stepup").waitFor({ state: "hidden" });
  await eventually("what was asked goes on", () => asked === 2);
  const after = await tokenOf(page);
  assert.notEqual(after, before);
  assert.deepEqual([(await me(before)).status, (await me(after)).status], [401, 200]);
  // The live channels stand again under the new token, and bring what the guest says now.
  const conversation = (await server.api(guest, "GET", `/api/visits/${visit.id}`)).body.conversation_id;
  await eventually("the channels are joined again", () => heard.some((frame) => frame.includes(`conversation:${conversation}`) || frame.includes('"recovered"')));
  const said = await server.api(guest, "POST", `/api/messaging/conversations/${conversation}/messages`, { client_id: crypto.randomUUID(), body: { text: "Can you still hear me?" } });
  assert.ok(said.status < 300, JSON.stringify(said.body));
  await eventually("it comes over the live channel", () => heard.some((frame) => frame.includes("Can you still hear me?")));
  await eventually("the call has gone on", async () => (await sent()).packets > call.packets + 50);
  const now = await sent();
  assert.deepEqual([now.standing, now.made], [call.standing, call.made], "on the same connections");
  assert.equal(await id(page, "reauth").count(), 0);
  await shot(page, "after-stepup-in-call");
  assert.deepEqual(page.problems, []);
});

test("what somebody prefers acts at once, holds at twice the size, and is there in another browser", async () => {
  const page = await person(browser, desktop);
  await signIn(page);
  await id(page, "appointment").first().waitFor();
  await page.goto(`${server.url}/app/account/preferences`);
  const root = (what) => page.evaluate((name) => getComputedStyle(document.documentElement)[name], what);
  assert.equal(await root("fontSize"), "16px");
  await id(page, "prefer-text_size").selectOption("largest");
  await eventually("twice the size", async () => (await root("fontSize")) === "32px");
  await id(page, "prefer-theme").selectOption("dark");
  await eventually("dark", async () => (await root("colorScheme")) === "dark");
  const ink = () => page.evaluate(() => getComputedStyle(document.documentElement).getPropertyValue("--ink-3"));
  const plain = await ink();
  await id(page, "prefer-contrast").selectOption("more");
  await eventually("more contrast", async () => (await ink()) !== plain);
  await id(page, "prefer-clock").selectOption("12");
  await accessible(page, "preferences, twice the size, dark, more contrast");
  await shot(page, "preferences-largest");
  // Nothing sticks out, at a desk and on a phone.
  for (const [width, place] of [[1280, "today"], [1280, "account/preferences"], [390, "account/preferences"], [390, "today"]]) {
    await page.setViewportSize({ width, height: 900 });
    await page.goto(`${server.url}/app/${place}`);
    await id(page, place === "today" ? "nav-today" : "prefer-clock").waitFor();
    if (place === "today") await id(page, "appointment").first().waitFor();
    const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    await shot(page, `largest-${place.replace("/", "-")}-${width}`);
    assert.equal(wider, 0, `${place} at ${width}`);
  }
  const times = () => page.evaluate(() => [...document.querySelectorAll(".day-time strong")].map((time) => time.innerText));
  assert.ok((await times()).every((time) => /^\d{1,2}:\d\d\s[AP]M$/.test(time)), (await times()).join());
  await page.goto(`${server.url}/app/account/profile`);
  await page.locator("select[name=zone]").selectOption("Asia/Tokyo");
  await page.locator("select[name=language]").selectOption("es");
  await id(page, "profile-save").click();
  await eventually("in Spanish", async () => (await root("lang")) || (await page.evaluate(() => document.documentElement.lang)) === "es");

  const other = await person(browser, desktop);
  await signIn(other);
  await id(other, "appointment").first().waitFor();
  await eventually("the same on another device", () => other.evaluate(() => {
    const root = document.documentElement;
    return root.lang === "es" && getComputedStyle(root).fontSize === "32px" && getComputedStyle(root).colorScheme === "dark" && root.dataset.contrast === "more";
  }));
  const shown = await other.evaluate(() => [...document.querySelectorAll(".day-time strong")].map((time) => time.innerText));
  const token = await tokenOf(other);
  const day = await server.api(token, "GET", "/api/appointments/today");
  const wanted = day.body.appointments.map((a) => new Intl.DateTimeFormat("es", { hour: "numeric", minute: "2-digit", hourCycle: "h12", timeZone: "Asia/Tokyo" }).format(new Date(a.start)));
  const same = (text) => text.replace(/\s/g, " ");
  assert.deepEqual(shown.map(same).sort(), wanted.map(same).sort());
  await shot(other, "another-browser");
  assert.deepEqual([...page.problems, ...other.problems], []);
});
