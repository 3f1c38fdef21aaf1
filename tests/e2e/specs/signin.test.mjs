// Every way in, in Chromium: passkeys by its virtual authenticator, codes of an app by an independent library, recovery codes,
// a link by mail, and what ends a session.
import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";
import { Secret, TOTP } from "otpauth";
import { accessible, launch, person } from "../lib/browser.mjs";
import { Server, eventually } from "../lib/server.mjs";

const shots = process.env.SCREENSHOTS;
const PASSWORD = "a kite over the harbour";
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
const shot = (page, name) => shots && page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
const desktop = { viewport: { width: 1280, height: 900 } };
const phone = { viewport: { width: 390, height: 844 } };

/** The person's device: keys that never leave it, and a finger that touches it when it is told to. */
async function authenticator(page) {
  // The browser's own suggestions ask the device by themselves: only where a test is about them.
  await page.addInitScript(() => {
    if (localStorage.getItem("test.suggestions") === null) PublicKeyCredential.isConditionalMediationAvailable = async () => false;
  });
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  const options = { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: false };
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", { options });
  const present = (enabled) => cdp.send("WebAuthn.setAutomaticPresenceSimulation", { authenticatorId, enabled });
  return {
    /** Touches the device for what `act` makes the browser ask, until `then` is so. What was asked before stays unanswered. */
    touch: async (act, then) => {
      await present(true);
      try {
        await act();
        return await then();
      } finally {
        await present(false);
      }
    },
    verifies: (isUserVerified) => cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified }),
    credentials: async () => (await cdp.send("WebAuthn.getCredentials", { authenticatorId })).credentials,
  };
}

/** A code of an app: of now, or of the step before, which the server still takes. Not at the edge of a step, where one more passes. */
async function code(secret, steps = 0) {
  await eventually("a step that stays", () => Date.now() % 30_000 < 25_000);
  return new TOTP({ secret: Secret.fromBase32(secret.replaceAll(" ", "")) }).generate({ timestamp: Date.now() + steps * 30_000 });
}

async function signOut(page) {
  await id(page, "user-menu").click();
  await id(page, "sign-out").click();
  await id(page, "signin-email").waitFor();
}

async function security(page) {
  await id(page, "user-menu").click();
  await id(page, "menu-security").click();
  await id(page, "sessions").waitFor();
}

async function password(page, email, text = PASSWORD) {
  await id(page, "signin-email").fill(email);
  await id(page, "signin-password").fill(text);
  await id(page, "signin-submit").click();
}

const DOCTOR = "marsh@harbour.example";

test("a clinician's ways in", async (t) => {
  const page = await person(browser, { ...desktop, acceptDownloads: true });
  const device = await authenticator(page);
  let secret, codes;
  const step = async (name, body) => {
    let failure;
    await t.test(name, () => body().catch((error) => { failure = error; throw error; }));
    if (failure) {
      await page.screenshot({ path: `${shots ?? tmpdir()}/failed-signin.png` });
      throw failure;
    }
  };

  await step("the door offers every way, to everyone", async () => {
    await page.goto(server.url);
    await id(page, "signin-passkey").waitFor();
    await accessible(page, "sign-in");
    await shot(page, "signin-desktop");
    await page.emulateMedia({ colorScheme: "dark" });
    await page.setViewportSize(phone.viewport);
    await accessible(page, "sign-in, phone, dark");
    await shot(page, "signin-phone-dark");
    await page.emulateMedia({ colorScheme: "light" });
    await page.setViewportSize(desktop.viewport);
    await password(page, "nobody@harbour.example");
    await id(page, "signin-error").waitFor();
    await accessible(page, "sign-in, wrong");
  });

  await step("a password is set, a guessable one refused", async () => {
    await page.goto(server.addresses.clinician);
    await id(page, "nav-today").waitFor();
    await security(page);
    await id(page, "security-required").or(id(page, "passkeys")).first().waitFor();
    await accessible(page, "security");
    await id(page, "password-change").click();
    await id(page, "password-new").fill("Password1234");
    await id(page, "password-save").click();
    await id(page, "password-error").waitFor();
    await accessible(page, "password dialog");
    await id(page, "password-new").fill(PASSWORD);
    await id(page, "password-save").click();
    await eventually("it is set", async () => (await id(page, "password-state").getAttribute("data-on")) === "true");
  });

  await step("a passkey is added and named; it signs in by itself", async () => {
    await device.touch(() => id(page, "passkey-add").click(), () => id(page, "passkey").waitFor());
    const [credential] = await device.credentials();
    assert.deepEqual([credential.rpId, credential.isResidentCredential], ["localhost", true]);
    await id(page, "passkey-rename").click();
    await id(page, "passkey-name-input").fill("Desk at the window");
    await id(page, "passkey-name-save").click();
    await page.getByText("Desk at the window").first().waitFor();
    await signOut(page);
    await device.touch(() => id(page, "signin-passkey").click(), () => id(page, "nav-today").waitFor());
    const session = await page.evaluate(() => JSON.parse(sessionStorage.getItem("medtech.session")));
    const me = await server.api(session.token, "GET", "/api/identity/me");
    assert.equal(me.body.session.assurance, "two");
    assert.ok((await device.credentials())[0].signCount > credential.signCount);
  });

  await step("a finger that is not right, and a passkey of nobody, do not", async () => {
    await signOut(page);
    await device.verifies(false);
    await device.touch(() => id(page, "signin-passkey").click(), () =>
      eventually("the browser gives up", async () => (await id(page, "signin-passkey").getAttribute("aria-busy")) === null));
    assert.equal(await page.evaluate(() => sessionStorage.getItem("medtech.session")), null);
    await device.verifies(true);
    await device.touch(() => id(page, "signin-passkey").click(), () => id(page, "nav-today").waitFor());
  });

  await step("a passkey picked among the browser's suggestions signs in without a click", async () => {
    await signOut(page);
    await page.evaluate(() => localStorage.setItem("test.suggestions", "1"));
    await device.touch(() => page.reload(), () => id(page, "nav-today").waitFor());
    await page.evaluate(() => localStorage.removeItem("test.suggestions"));
    await page.reload();
    await id(page, "nav-today").waitFor();
  });

  await step("an authenticator app is set up", async () => {
    await security(page);
    await id(page, "totp-start").click();
    await id(page, "totp-qr").waitFor();
    secret = await id(page, "totp-secret").innerText();
    await accessible(page, "authenticator dialog");
    await shot(page, "totp-desktop");
    await id(page, "totp-code").fill("000000");
    await id(page, "totp-confirm").click();
    await id(page, "totp-error").waitFor();
    await id(page, "totp-code").fill(await code(secret, -1));
    await id(page, "totp-confirm").click();
    await eventually("it is on", async () => (await id(page, "totp-state").getAttribute("data-on")) === "true");
  });

  await step("recovery codes are shown once, to be saved, copied and printed", async () => {
    await id(page, "recovery-new").click();
    const [download] = await Promise.all([page.waitForEvent("download"), id(page, "recovery-save").click()]);
    codes = (await id(page, "recovery-codes").innerText()).split(/\s+/).filter((text) => text.includes("-"));
    assert.equal(new Set(codes).size, 10);
    const saved = await readFile(await download.path(), "utf8");
    assert.ok(codes.every((text) => saved.includes(text)));
    await accessible(page, "recovery codes");
    await shot(page, "recovery-desktop");
    await page.emulateMedia({ media: "print" });
    await shot(page, "recovery-print");
    await page.emulateMedia({ media: "screen" });
    await id(page, "recovery-done").click();
    assert.equal(await id(page, "recovery-left").getAttribute("data-left"), "10");
    await shot(page, "security-desktop");
    await page.emulateMedia({ colorScheme: "dark" });
    await page.setViewportSize(phone.viewport);
    const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(wider, 0, "nothing sticks out on a phone");
    await page.setViewportSize({ width: 390, height: await page.evaluate(() => document.documentElement.scrollHeight + 200) });
    await accessible(page, "security, phone, dark");
    await page.setViewportSize(phone.viewport);
    await shot(page, "security-phone-dark");
    await page.emulateMedia({ colorScheme: "light" });
    await page.setViewportSize(desktop.viewport);
  });

  await step("after the password a code is asked for", async () => {
    await signOut(page);
    await password(page, DOCTOR);
    await id(page, "second-step").waitFor();
    await accessible(page, "second step");
    await shot(page, "second-step");
    await id(page, "second-code").fill("000000");
    await id(page, "second-submit").click();
    await id(page, "signin-error").waitFor();
    await id(page, "second-code").fill(await code(secret));
    await id(page, "second-submit").click();
    await id(page, "nav-today").waitFor();
  });

  await step("a recovery code works in its place, once; so does the passkey", async () => {
    await signOut(page);
    await password(page, DOCTOR);
    await id(page, "second-other").click();
    await id(page, "second-recovery").fill(codes[0].toUpperCase());
    await id(page, "second-submit").click();
    await id(page, "nav-today").waitFor();
    await signOut(page);
    await password(page, DOCTOR);
    await id(page, "second-other").click();
    await id(page, "second-recovery").fill(codes[0]);
    await id(page, "second-submit").click();
    await id(page, "signin-error").waitFor();
    await device.touch(() => id(page, "second-passkey").click(), () => id(page, "nav-today").waitFor());
  });

  await step("a fresh proof is asked for, and what was asked goes on by itself", async () => {
    await security(page);
    // The session is younger than ten minutes, so the server's refusal is given in its place, once.
    const refusal = { type: "urn:medtech:problem:auth.step_up", title: "Forbidden", status: 403, code: "auth.step_up", detail: "", correlation: "x" };
    let refused = 0;
    await page.route("**/api/identity/totp", (route) => (refused++ === 0 ? route.fulfill({ status: 403, contentType: "application/problem+json", json: refusal }) : route.continue()));
    await id(page, "totp-remove").click();
    await id(page, "totp-remove-confirm").click();
    await id(page, "stepup").waitFor();
    await id(page, "stepup-password").waitFor();
    await accessible(page, "step-up");
    await shot(page, "stepup");
    await id(page, "stepup-password").fill("not this one at all");
    await id(page, "stepup-password-submit").click();
    await id(page, "stepup-error").waitFor();
    await device.touch(() => id(page, "stepup-passkey").click(), () => id(page, "stepup").waitFor({ state: "hidden" }));
    await eventually("the request was repeated", async () => (await id(page, "totp-state").getAttribute("data-on")) === "false");
    assert.equal(refused, 2);
    await page.unroute("**/api/identity/totp");
  });

  await step("the passkey is removed, and does not sign in any more", async () => {
    await id(page, "passkey-remove").click();
    await id(page, "passkey-remove-confirm").click();
    await id(page, "passkey").waitFor({ state: "detached" });
    await signOut(page);
    await device.touch(() => id(page, "signin-passkey").click(), () => id(page, "signin-error").waitFor());
    await password(page, DOCTOR);
    await id(page, "nav-today").waitFor();
  });

  await step("whoever changes something is told by mail, without what it was", async () => {
    const outbox = await (await fetch(`${server.url}/dev/outbox`)).text();
    assert.match(outbox, /Your sign-in was changed/);
    assert.doesNotMatch(outbox, /passkey (added|removed)/);
  });
  assert.deepEqual(page.problems, []);
});

test("a session ended elsewhere closes this one at once", async () => {
  const [here, there] = [await person(browser, desktop), await person(browser, desktop)];
  for (const page of [here, there]) {
    await page.goto(server.url);
    await password(page, DOCTOR);
    await id(page, "nav-today").waitFor();
  }
  await security(there);
  await there.reload();
  await id(there, "session").first().waitFor();
  assert.equal(await there.locator("[data-testid=session][data-current=true]").count(), 1);
  await there.getByText("Chrome, Linux").first().waitFor();
  await id(there, "sessions-end-others").click();
  // Told over the live socket: the other page need not ask for anything.
  await id(here, "reauth").waitFor({ timeout: 10_000 });
  await accessible(here, "signed out elsewhere");
  await shot(here, "reauth");
  await password(here, DOCTOR);
  await id(here, "reauth").waitFor({ state: "hidden" });
});

test("a patient asks for a link by mail", async () => {
  const admin = await server.signIn("admin");
  const page = await person(browser, phone);
  await page.goto(server.url);
  await id(page, "signin-link").click();
  assert.equal(await id(page, "link-sent").count(), 0, "not without an address");
  const { email, born } = await patient(admin);
  await id(page, "signin-email").fill(email);
  await id(page, "signin-link").click();
  await id(page, "link-sent").waitFor();
  await accessible(page, "link sent");
  await shot(page, "link-sent-phone");
  const link = await eventually("the mail", async () => {
    const outbox = await (await fetch(`${server.url}/dev/outbox`)).text();
    return outbox.match(/http:\/\/localhost:\d+\/enter#[\w-]+/)?.[0];
  });
  // A mail scanner that follows it, and somebody it was forwarded to.
  assert.equal((await fetch(link)).status, 200);
  const stranger = await person(browser, phone);
  await stranger.goto(link);
  await id(stranger, "enter-error").waitFor();
  assert.equal(await id(stranger, "enter-error").getAttribute("data-code"), "link.other_browser");
  await accessible(stranger, "link of another browser");
  await shot(stranger, "link-other-browser-phone");
  // The one who asked, in another tab of the same browser.
  const tab = await page.context().newPage();
  await tab.goto(link);
  await id(tab, "enter-birth").waitFor();
  await accessible(tab, "date of birth");
  await shot(tab, "birth-phone");
  await id(tab, "birth-date").fill("1901-01-01");
  await id(tab, "birth-submit").click();
  await id(tab, "enter-birth-wrong").waitFor();
  await id(tab, "birth-date").fill(born);
  await id(tab, "birth-submit").click();
  await id(tab, "profile-name").waitFor();
  const again = await page.context().newPage();
  await again.goto(link);
  await id(again, "enter-error").waitFor();
  assert.deepEqual(page.problems, []);
});

/** The demo's patient: mail address and date of birth. */
async function patient(admin) {
  const token = await server.run("token", "--user", "patient");
  const me = await server.api(token, "GET", "/api/identity/me");
  const record = await server.api(admin, "GET", `/fhir/R4/Patient/${me.body.user.patient_id}`);
  return { email: `${record.body.name[0].given[0].toLowerCase()}@harbour.example`, born: record.body.birthDate };
}

test("silence is warned of, and then ends the session", async () => {
  const page = await person(browser, desktop);
  await page.clock.install();
  await page.goto(server.url);
  const told = page.waitForResponse((r) => r.url().endsWith("/api/identity/me"));
  await password(page, DOCTOR);
  await id(page, "nav-today").waitFor();
  await (await told).finished();
  // The clinic's name comes with the same answer that starts the clock.
  await page.getByText("Harbour").first().waitFor();
  await page.clock.fastForward(14 * 60_000 + 5000);
  await id(page, "idle-warning").waitFor();
  await accessible(page, "silence");
  await shot(page, "idle-warning");
  await id(page, "idle-stay").click();
  await id(page, "idle-warning").waitFor({ state: "hidden" });
  await page.clock.fastForward(15 * 60_000 + 5000);
  await id(page, "signin-left").waitFor();
  await shot(page, "idle-ended");
  assert.equal(await page.evaluate(() => sessionStorage.getItem("medtech.session")), null);
});

test("where the clinic asks for a second step, setting it up comes first", async () => {
  const page = await person(browser, desktop);
  const device = await authenticator(page);
  const refusal = { type: "urn:medtech:problem:auth.second_factor", title: "Forbidden", status: 403, code: "auth.second_factor", detail: "Please set up a second step to see clinical data.", correlation: "x" };
  let open = false;
  await page.route("**/api/appointments/**", (route) => (open ? route.continue() : route.fulfill({ status: 403, contentType: "application/problem+json", json: refusal })));
  await page.goto(server.url);
  await password(page, DOCTOR);
  await id(page, "security-required").waitFor();
  await accessible(page, "enrolment");
  await shot(page, "enrolment");
  open = true;
  await device.touch(() => id(page, "passkey-add").click(), () => id(page, "passkey").waitFor());
  await id(page, "security-required").waitFor({ state: "detached" });
  await id(page, "nav-today").click();
  await id(page, "appointment").first().waitFor();
});
