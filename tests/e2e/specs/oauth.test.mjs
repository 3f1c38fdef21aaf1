// The authorization server, met by clients that we did not write: openid-client, fhirclient in Chromium, assertions made by jose.
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { after, before, test } from "node:test";
import * as jose from "jose";
import * as oidc from "openid-client";
import { accessible, launch, person } from "../lib/browser.mjs";
import { outsideProvider } from "../lib/provider.mjs";
import { Server, eventually } from "../lib/server.mjs";
import { smartApp } from "../lib/smart.mjs";

const shots = process.env.SCREENSHOTS;
let server, browser, app, admin, patient;
const id = (page, name) => page.getByTestId(name);
const shot = (page, name) => shots && page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
const insecure = { execute: [oidc.allowInsecureRequests] };

before(async () => {
  if (shots) await mkdir(shots, { recursive: true });
  server = await Server.start();
  browser = await launch();
  app = await smartApp(`${server.url}/fhir/R4`);
  admin = await server.signIn("admin");
  const clinician = await server.signIn("clinician");
  patient = (await server.api(clinician, "GET", "/fhir/R4/Patient?_count=1")).body.entry[0].resource;
});
after(async () => {
  await browser?.close();
  await app?.close();
  await server?.stop();
});

async function register(more) {
  const { status, body } = await server.api(admin, "POST", "/api/identity/clients", {
    client_name: "Growth Chart", token_endpoint_auth_method: "none", grant_types: ["authorization_code", "refresh_token"],
    redirect_uris: [`${app.url}/app`, `${app.url}/cb`], post_logout_redirect_uris: [`${app.url}/bye`], initiate_login_uri: `${app.url}/launch`,
    scope: "openid fhirUser profile email launch launch/patient launch/encounter offline_access online_access patient/*.rs user/*.rs", ...more,
  });
  assert.equal(status, 201, JSON.stringify(body));
  return body;
}

/** The clinician, signed in by the printed address. */
async function clinician(options = {}) {
  const page = await person(browser, { viewport: { width: 1280, height: 900 }, ...options });
  await page.goto(server.addresses.clinician);
  await id(page, "nav-today").waitFor();
  return page;
}

const family = (p) => p.name[0].family ?? p.name[0].text;

async function choosePatient(page) {
  await id(page, "consent-search").fill(family(patient));
  await page.locator(`[data-testid=consent-patient][value="${patient.id}"]`).check();
}

test("an administrator registers an application on the screen; its secret is shown once", async () => {
  const page = await person(browser, { viewport: { width: 1280, height: 900 } });
  await page.goto(server.addresses.admin);
  await id(page, "nav-admin").click();
  await id(page, "admin-clients").click();
  await page.locator(".empty").waitFor();
  await accessible(page, "no applications");
  await id(page, "clients-add").click();
  await id(page, "client-name").fill("Night Watch");
  await id(page, "client-kind-secret").check();
  await id(page, "client-redirects").fill("javascript:alert(1)");
  await id(page, "client-submit").click();
  await id(page, "client-error").waitFor();
  await id(page, "client-redirects").fill("https://night.example/cb");
  await accessible(page, "register an application");
  await shot(page, "clients-register");
  await id(page, "client-submit").click();
  await id(page, "clients-made").waitFor();
  assert.match(await id(page, "clients-made").innerText(), /Night Watch[\s\S]*[\w-]{43}/);
  await accessible(page, "an application is registered");
  await shot(page, "clients-made");
  await page.reload();
  await id(page, "client").first().waitFor();
  assert.equal(await id(page, "clients-made").count(), 0);
  await page.emulateMedia({ colorScheme: "dark" });
  await page.setViewportSize({ width: 390, height: 844 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0, "nothing sticks out on a phone");
  await shot(page, "clients-phone-dark");
  await id(page, "client-remove").first().click();
  await id(page, "client-remove-yes").click();
  await page.locator(".empty").waitFor();
  assert.deepEqual(page.problems, []);
});

test("openid-client signs a clinician in, refreshes, introspects, pushes, revokes and signs out", async () => {
  const registered = await register({ client_name: "Rota", token_endpoint_auth_method: "client_secret_basic" });
  const config = await oidc.discovery(new URL(server.url), registered.client_id, { id_token_signed_response_alg: "ES384" }, oidc.ClientSecretBasic(registered.client_secret), insecure);
  const page = await clinician();
  const signIn = async (build, scope) => {
    const [verifier, nonce, state] = [oidc.randomPKCECodeVerifier(), oidc.randomNonce(), oidc.randomState()];
    const to = await build(config, {
      redirect_uri: `${app.url}/cb`, scope, code_challenge: await oidc.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256", nonce, state,
    });
    await page.goto(to.href);
    await id(page, "consent-allow").click();
    await page.waitForURL(`${app.url}/cb?**`);
    return oidc.authorizationCodeGrant(config, new URL(page.url()), { pkceCodeVerifier: verifier, expectedNonce: nonce, expectedState: state, idTokenExpected: true });
  };
  const tokens = await signIn(oidc.buildAuthorizationUrl, "openid profile email offline_access");
  const { sub, fhirUser, name } = tokens.claims();
  assert.match(fhirUser, new RegExp(`^${server.url}/fhir/R4/Practitioner/`));
  const info = await oidc.fetchUserInfo(config, tokens.access_token, sub);
  assert.equal(info.name, name);
  assert.match(info.email, /@/);
  const fresh = await oidc.refreshTokenGrant(config, tokens.refresh_token);
  assert.notEqual(fresh.refresh_token, tokens.refresh_token);
  const known = await oidc.tokenIntrospection(config, fresh.access_token);
  assert.equal(known.active, true);
  assert.equal(known.client_id, registered.client_id);
  await oidc.tokenRevocation(config, fresh.refresh_token);
  assert.equal((await oidc.tokenIntrospection(config, fresh.access_token)).active, false);
  await assert.rejects(oidc.refreshTokenGrant(config, fresh.refresh_token), /invalid_grant|response body/);

  const pushed = await signIn(oidc.buildAuthorizationUrlWithPAR, "openid");
  assert.equal(pushed.claims().sub, sub);
  const out = oidc.buildEndSessionUrl(config, { id_token_hint: pushed.id_token, post_logout_redirect_uri: `${app.url}/bye`, state: "s" });
  await page.goto(out.href);
  assert.equal(page.url(), `${app.url}/bye?state=s`);
  assert.equal((await oidc.tokenIntrospection(config, pushed.access_token)).active, false);
  // Signed out here as well: the tab asks again.
  await page.goto(`${server.url}/app/today`);
  await id(page, "signin-email").waitFor();
  assert.deepEqual(page.problems, []);
});

test("fhirclient launches itself, the clinician chooses a patient and takes one permission away; the app reads the Patient", async () => {
  const { client_id } = await register({});
  Object.assign(app, { clientId: client_id, scope: "openid fhirUser profile launch/patient offline_access patient/Patient.rs patient/Observation.rs" });
  // Not signed in: first to the door, and from there back to the question.
  const page = await person(browser, { viewport: { width: 1280, height: 900 } });
  await page.goto(`${app.url}/standalone`);
  await id(page, "signin-email").waitFor();
  await page.goto(server.addresses.clinician);
  await id(page, "consent-search").waitFor();
  assert.match(await page.locator("h1").innerText(), /Growth Chart asks for access/);
  assert.equal(await id(page, "consent-allow").isDisabled(), true, "a patient first");
  await choosePatient(page);
  await page.locator('[data-testid=consent-scope][data-scope="offline_access"]').uncheck();
  await accessible(page, "consent");
  await shot(page, "consent-light");
  await page.emulateMedia({ colorScheme: "dark" });
  await page.setViewportSize({ width: 390, height: 844 });
  await accessible(page, "consent on a phone, dark");
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0, "nothing sticks out on a phone");
  await shot(page, "consent-phone-dark");
  // By keyboard.
  await id(page, "consent-allow").focus();
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => ["ready", "failed"].includes(document.title));
  assert.equal(await page.title(), "ready", await page.locator("#out").innerText());
  const result = await page.evaluate(() => window.result);
  assert.equal(result.patient.id, patient.id);
  assert.equal(result.patient.resourceType, "Patient");
  assert.match(result.fhirUser, /^Practitioner\/|\/Practitioner\//);
  assert.equal(result.token.refresh_token, undefined);
  assert.ok(!result.token.scope.includes("offline_access"));
  // The app's token opens FHIR, and none of our own doors.
  const { status, body } = await server.api(result.token.access_token, "GET", "/api/identity/me");
  assert.deepEqual([status, body.code], [403, "auth.application"]);
  assert.deepEqual(page.problems, []);
});

test("fhirclient is launched from the record, and refreshes; the user sees it and ends it", async () => {
  const { client_id } = await register({ client_name: "Anticoagulation" });
  Object.assign(app, { clientId: client_id, scope: "openid fhirUser launch online_access patient/*.rs" });
  const page = await clinician();
  const token = await page.evaluate(() => JSON.parse(sessionStorage.getItem("medtech.session")).token);
  const launched = await server.api(token, "POST", "/api/identity/launches", { client_id, patient: patient.id, encounter: "e-1" });
  assert.equal(launched.status, 201, JSON.stringify(launched.body));
  await page.goto(launched.body.url);
  await id(page, "consent-fixed").waitFor();
  await page.getByText(family(patient)).first().waitFor();
  await accessible(page, "consent, launched");
  await shot(page, "consent-launched");
  await id(page, "consent-allow").click();
  await page.waitForFunction(() => ["ready", "failed"].includes(document.title));
  assert.equal(await page.title(), "ready", await page.locator("#out").innerText());
  const result = await page.evaluate(() => window.result);
  assert.deepEqual([result.id, result.encounter, result.token.need_patient_banner], [patient.id, "e-1", true]);
  const refreshed = await page.evaluate(() => window.client.refresh().then((s) => s.tokenResponse.access_token));
  assert.notEqual(refreshed, result.token.access_token);
  const apps = await server.api(token, "GET", "/api/identity/me/apps");
  const mine = apps.body.apps.find((a) => a.id === client_id);
  assert.deepEqual([mine.name, mine.patients], ["Anticoagulation", [patient.id]]);
  assert.equal((await server.api(token, "DELETE", `/api/identity/me/apps/${client_id}`)).status, 204);
  assert.equal((await server.api(refreshed, "GET", `/fhir/R4/Patient/${patient.id}`)).status, 401);
  const again = await page.evaluate(() => window.client.refresh().then(() => "refreshed", () => "refused"));
  assert.equal(again, "refused");
});

test("who refuses is sent back with the refusal; an old request says so", async () => {
  const { client_id } = await register({});
  const page = await clinician();
  const query = new URLSearchParams({
    response_type: "code", client_id, redirect_uri: `${app.url}/cb`, scope: "openid", state: "s", code_challenge: "x".repeat(43), code_challenge_method: "S256",
  });
  await page.goto(`${server.url}/oauth2/authorize?${query}`);
  await id(page, "consent-refuse").click();
  await page.waitForURL(`${app.url}/cb?**`);
  const back = new URL(page.url()).searchParams;
  assert.deepEqual([back.get("error"), back.get("state"), back.get("iss")], ["access_denied", "s", server.url]);
  await page.goto(`${server.url}/app/authorize?request=made-up`);
  await page.locator(".empty").waitFor();
  await accessible(page, "a request that is over");
  await shot(page, "consent-gone");
  // An address that is not registered: a page of ours, and no way there.
  query.set("redirect_uri", "https://evil.example/");
  const refused = await page.goto(`${server.url}/oauth2/authorize?${query}`);
  assert.equal(refused.status(), 400);
  await accessible(page, "a request that was refused");
  await shot(page, "consent-refused");
});

test("a backend service comes with an assertion made by jose, and by openid-client", async () => {
  const { publicKey, privateKey } = await jose.generateKeyPair("ES384", { extractable: true });
  const jwk = { ...(await jose.exportJWK(publicKey)), kid: "k1", alg: "ES384", use: "sig" };
  const { client_id } = await register({
    client_name: "Export", token_endpoint_auth_method: "private_key_jwt", grant_types: ["client_credentials"], scope: "system/*.rs",
    redirect_uris: undefined, post_logout_redirect_uris: undefined, initiate_login_uri: undefined, jwks: { keys: [jwk] },
  });
  const smart = await (await fetch(`${server.url}/fhir/R4/.well-known/smart-configuration`)).json();
  const assertion = await new jose.SignJWT({}).setProtectedHeader({ alg: "ES384", kid: "k1", typ: "JWT" }).setIssuer(client_id).setSubject(client_id)
    .setAudience(smart.token_endpoint).setJti(crypto.randomUUID()).setIssuedAt().setExpirationTime("4m").sign(privateKey);
  const form = () => fetch(smart.token_endpoint, {
    method: "POST",
    body: new URLSearchParams({ grant_type: "client_credentials", scope: "system/Patient.rs", client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", client_assertion: assertion }),
  });
  const answer = await form();
  const body = await answer.json();
  assert.deepEqual([answer.status, body.scope, body.expires_in], [200, "system/Patient.rs", 3600], JSON.stringify(body));
  assert.equal((await form()).status, 401, "an assertion is good once");

  const config = await oidc.discovery(new URL(server.url), client_id, undefined, oidc.PrivateKeyJwt({ key: privateKey, kid: "k1" }), insecure);
  const token = await oidc.clientCredentialsGrant(config, { scope: "system/*.rs" });
  const known = await oidc.tokenIntrospection(config, token.access_token);
  assert.deepEqual([known.active, known.client_id, known.scope], [true, client_id, "system/*.rs"]);
});

test("an administrator adds an outside provider; a nurse signs in with it, is made a user, and comes back as the same", async () => {
  const outside = await outsideProvider(`${server.url}/sso`);
  try {
    const page = await person(browser, { viewport: { width: 1280, height: 900 } });
    await page.goto(server.addresses.admin);
    await id(page, "nav-admin").click();
  await id(page, "admin-clients").click();
    await id(page, "sso-add").click();
    for (const [name, value] of [["name", "Harbour Hospital"], ["issuer", outside.issuer], ["client", "medtech"], ["secret", "a secret of some length"], ["domains", "hospital.example"]]) await id(page, `sso-${name}`).fill(value);
    await id(page, "sso-create").selectOption("staff");
    await accessible(page, "add a provider");
    await shot(page, "sso-add");
    await id(page, "sso-submit").click();
    await id(page, "sso-provider").waitFor();
    await accessible(page, "a provider is there");
    await shot(page, "sso-provider");

    const come = async (login) => {
      const nurse = await person(browser, { viewport: { width: 390, height: 844 } });
      await nurse.goto(server.url);
      await id(nurse, "sso-start").waitFor();
      if (login === "jo") {
        await accessible(nurse, "sign in with a provider");
        await shot(nurse, "sso-signin-phone");
      }
      await id(nurse, "sso-start").click();
      // The provider's own pages.
      await nurse.locator("input[name=login]").fill(login);
      await nurse.locator("input[name=password]").fill("x");
      await nurse.locator("button[type=submit]").click();
      await nurse.getByRole("button", { name: "Continue" }).click();
      return nurse;
    };
    const jo = await come("jo");
    await id(jo, "nav-board").waitFor();
    assert.equal(new URL(jo.url()).search, "", "the answer is gone from the address");
    const who = await jo.evaluate(() => JSON.parse(sessionStorage.getItem("medtech.session")).user);
    assert.deepEqual([who.name, who.roles], ["Nurse jo", ["staff"]]);
    const again = await come("jo");
    await id(again, "nav-board").waitFor();
    assert.equal(await again.evaluate(() => JSON.parse(sessionStorage.getItem("medtech.session")).user.id), who.id);

    // Signed out there: the message of the unmodified provider ends what came of that session, with what it holds open.
    outside.logoutUri = await id(page, "sso-logout").innerText();
    const tokenOf = (tab) => tab.evaluate(() => JSON.parse(sessionStorage.getItem("medtech.session")).token);
    const [first, second] = [await tokenOf(jo), await tokenOf(again)];
    const closed = again.evaluate(() => new Promise((resolve) => {
      const poll = () => (document.querySelector("[role=dialog], [role=alertdialog]") ? resolve(true) : setTimeout(poll, 50));
      poll();
    }));
    const leaving = await again.context().newPage();
    await leaving.goto(`${outside.issuer}/session/end`);
    await leaving.getByRole("button", { name: /yes/i }).click();
    await eventually("the provider's message", () => outside.relayed.length > 0);
    assert.deepEqual(outside.relayed.map((r) => r.status), [200]);
    assert.equal((await server.api(second, "GET", "/api/identity/me")).status, 401, "what came of that session is over");
    assert.equal((await server.api(first, "GET", "/api/identity/me")).status, 200, "another session there is another here");
    assert.equal(await closed, true, "the screen says so without being touched");
    // The same message again, by a thief: nothing.
    const replay = await fetch(outside.logoutUri, { method: "POST", body: new URLSearchParams({ logout_token: outside.relayed[0].token }) });
    assert.equal(replay.status, 400);

    // Somebody else's answer is worth nothing in this browser.
    const thief = await person(browser);
    await thief.goto(`${server.url}/sso?state=made-up&code=stolen&iss=${encodeURIComponent(outside.issuer)}`);
    await id(thief, "sso-failed").waitFor();
    assert.equal(await id(thief, "sso-failed").getAttribute("data-code"), "sso.over");
    await accessible(thief, "a sign-in that failed");
    await shot(thief, "sso-failed");
    // Switched off, it is no way in.
    await id(page, "sso-provider").locator(".toggle").click();
    await page.locator("[data-testid=sso-provider][data-off]").waitFor();
    await thief.goto(server.url);
    await id(thief, "signin-email").waitFor();
    const { body } = await server.api(null, "GET", "/api/identity/sso");
    assert.deepEqual(body, { providers: [] });
    assert.deepEqual([...page.problems, ...jo.problems], []);
  } finally {
    await outside.close();
  }
});
