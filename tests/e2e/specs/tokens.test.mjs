// What an application gets without a screen, with a key of its own, for a part of the record, and when it is over: met by the
// unmodified openid-client and jose. And what a person sees of it, and takes back.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { Centrifuge } from "centrifuge";
import * as jose from "jose";
import * as oidc from "openid-client";
import WebSocket from "ws";
import { accessible, launch, person } from "../lib/browser.mjs";
import { looks, shot } from "../lib/look.mjs";
import { Server, eventually } from "../lib/server.mjs";
import { smartApp } from "../lib/smart.mjs";

const id = (page, name) => page.getByTestId(name);
const insecure = { execute: [oidc.allowInsecureRequests] };
let server, browser, app, admin, patient;

before(async () => {
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
    client_name: "Growth Chart", token_endpoint_auth_method: "none", grant_types: ["authorization_code", "refresh_token"], redirect_uris: [`${app.url}/cb`],
    scope: "openid profile launch/patient offline_access patient/*.cruds", ...more,
  });
  assert.equal(status, 201, JSON.stringify(body));
  return body.client_id;
}

const discover = (client) => oidc.discovery(new URL(server.url), client, { id_token_signed_response_alg: "ES384" }, oidc.None(), insecure);

async function clinician() {
  const page = await person(browser, { viewport: { width: 1280, height: 900 } });
  await page.goto(server.addresses.clinician);
  await id(page, "nav-today").waitFor();
  return page;
}

const tokenOf = (page) => page.evaluate(() => JSON.parse(sessionStorage.getItem("medtech.session")).token);

/** To the application and back: where the browser arrives, and what is needed to go on. */
async function ask(page, config, parameters, decide) {
  const [verifier, nonce, state] = [oidc.randomPKCECodeVerifier(), oidc.randomNonce(), oidc.randomState()];
  const to = oidc.buildAuthorizationUrl(config, {
    redirect_uri: `${app.url}/cb`, code_challenge: await oidc.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256", nonce, state,
    aud: `${server.url}/fhir/R4`, ...parameters,
  });
  await page.goto(to.href);
  await decide?.(page);
  await page.waitForURL(`${app.url}/cb?**`);
  return { url: new URL(page.url()), checks: { pkceCodeVerifier: verifier, expectedNonce: nonce, expectedState: state, idTokenExpected: true } };
}

async function consent(page) {
  await id(page, "consent-search").fill(patient.name[0].family ?? patient.name[0].text);
  await page.locator(`[data-testid=consent-patient][value="${patient.id}"]`).check();
  await id(page, "consent-allow").click();
}

test("prompt=none: openid-client hears what is missing, and gets a code where nothing is; no screen is shown", async () => {
  const config = await discover(await register({}));
  const scope = "openid profile launch/patient offline_access patient/Observation.rs";
  const silent = async (page, more = {}) => {
    const { url, checks } = await ask(page, config, { scope, prompt: "none", ...more });
    return oidc.authorizationCodeGrant(config, url, checks).then((t) => t, (e) => e.error ?? e.cause?.get?.("error") ?? String(e));
  };
  const stranger = await person(browser);
  assert.equal(await silent(stranger), "login_required");
  const page = await clinician();
  assert.equal(await silent(page), "consent_required");
  await page.goBack();
  const first = await ask(page, config, { scope }, consent);
  const tokens = await oidc.authorizationCodeGrant(config, first.url, first.checks);
  const seen = [];
  page.on("framenavigated", (frame) => seen.push(frame.url()));
  const again = await silent(page);
  assert.equal(again.claims().sub, tokens.claims().sub);
  assert.equal(again.patient, patient.id);
  assert.equal(again.claims().auth_time, tokens.claims().auth_time);
  assert.ok(seen.every((url) => !url.includes("/app/authorize?")), "no screen");
  assert.equal((await silent(page, { id_token_hint: tokens.id_token, max_age: "3600" })).claims().sub, tokens.claims().sub);
  assert.equal(await silent(page, { max_age: "0" }), "login_required");
  assert.equal(await silent(page, { login_hint: "somebody@else.example" }), "login_required");
  const other = await person(browser, { viewport: { width: 1280, height: 900 } });
  await other.goto(server.addresses.admin);
  await id(other, "nav-admin").waitFor();
  assert.equal(await silent(other, { id_token_hint: tokens.id_token }), "login_required");
  // A hint fills in the door, and stands in no address that a server sees.
  const late = await person(browser);
  const to = oidc.buildAuthorizationUrl(config, { redirect_uri: `${app.url}/cb`, scope, state: "s", aud: `${server.url}/fhir/R4`, code_challenge: "x".repeat(43), code_challenge_method: "S256", login_hint: "ada@clinic.example" });
  await late.goto(to.href);
  await id(late, "signin-email").waitFor();
  assert.equal(await id(late, "signin-email").inputValue(), "ada@clinic.example");
  assert.deepEqual([...page.problems, ...stranger.problems, ...late.problems], []);
});

test("a key of its own: openid-client's DPoP reads the record, refreshes, and nobody else does with the same tokens", async () => {
  const client = await register({ dpop_bound_access_tokens: true });
  const config = await discover(client);
  assert.deepEqual(config.serverMetadata().dpop_signing_alg_values_supported, ["ES256"]);
  const keys = await oidc.randomDPoPKeyPair("ES256", { extractable: true });
  const DPoP = oidc.getDPoPHandle(config, keys);
  const page = await clinician();
  const jkt = await DPoP.calculateThumbprint();
  const { url, checks } = await ask(page, config, { scope: "openid launch/patient offline_access patient/*.rs", dpop_jkt: jkt }, consent);
  const tokens = await oidc.authorizationCodeGrant(config, url, checks, undefined, { DPoP });
  assert.equal(tokens.token_type, "dpop");
  const record = new URL(`${server.url}/fhir/R4/Patient/${patient.id}`);
  const read = (token, handle) => oidc.fetchProtectedResource(config, token, record, "GET", undefined, undefined, handle ? { DPoP: handle } : undefined);
  const mine = await read(tokens.access_token, DPoP);
  assert.equal((await mine.json()).id, patient.id);
  assert.equal((await oidc.fetchUserInfo(config, tokens.access_token, tokens.claims().sub, { DPoP })).sub, tokens.claims().sub);
  const renewed = await oidc.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP });
  assert.equal((await (await read(renewed.access_token, DPoP)).json()).id, patient.id);
  // The tokens in other hands.
  const thief = oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair("ES256"));
  await assert.rejects(read(renewed.access_token, thief));
  await assert.rejects(oidc.refreshTokenGrant(config, renewed.refresh_token, undefined, { DPoP: thief }));
  await assert.rejects(oidc.refreshTokenGrant(config, renewed.refresh_token));
  for (const path of ["/fhir/R4/Patient", "/api/identity/me", "/oauth2/userinfo"]) assert.equal((await server.api(renewed.access_token, "GET", path)).status, 401, path);
  // A proof, made by jose, is good once and for one address.
  const proof = async (claims) => {
    const jwk = await jose.exportJWK(keys.publicKey);
    return new jose.SignJWT({ jti: crypto.randomUUID(), htm: "GET", htu: record.href, ath: jose.base64url.encode(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(renewed.access_token)))), ...claims })
      .setProtectedHeader({ alg: "ES256", typ: "dpop+jwt", jwk }).setIssuedAt().sign(keys.privateKey);
  };
  const get = async (dpop, address = record) => fetch(address, { headers: { authorization: `DPoP ${renewed.access_token}`, dpop } });
  const told = await get(await proof({}));
  assert.equal(told.status, 401);
  assert.match(told.headers.get("www-authenticate"), /use_dpop_nonce/);
  const nonce = told.headers.get("dpop-nonce");
  const good = await proof({ nonce });
  assert.equal((await get(good)).status, 200);
  assert.equal((await get(good)).status, 401, "used before");
  assert.equal((await get(await proof({ nonce }), `${server.url}/fhir/R4/Observation`)).status, 401, "of another address");
  assert.equal((await get(await proof({ nonce, ath: undefined }))).status, 401, "of no token");
});

test("a part of the record: the screen says which and for how long, the application gets that part, and a permission is taken back on the screen", async () => {
  const config = await discover(await register({ client_name: "Lab Trends" }));
  const lab = "patient/Observation.rs?category=http://terminology.hl7.org/CodeSystem/observation-category|vital-signs";
  const page = await clinician();
  const { url, checks } = await ask(page, config, { scope: `openid launch/patient offline_access patient/Patient.r ${lab}` }, async () => {
    await id(page, "consent-search").waitFor();
    const words = await page.locator(".consent-scopes").innerText();
    assert.match(words, /Know that it is you/);
    assert.match(words, /See measurements and results, only: vital signs/);
    assert.match(words, /See name, birth date and contact details/);
    assert.match(words, /Keep its access while you are away/);
    assert.match(await id(page, "consent-lasts").innerText(), /365 days/);
    await page.locator('[data-testid=consent-scope][data-scope="offline_access"]').uncheck();
    assert.match(await id(page, "consent-lasts").innerText(), /1 hour\b/);
    await page.locator('[data-testid=consent-scope][data-scope="offline_access"]').check();
    await looks(page, "consent-narrowed");
    await consent(page);
  });
  const tokens = await oidc.authorizationCodeGrant(config, url, checks);
  const get = async (path, token = tokens.access_token) => server.api(token, "GET", `/fhir/R4/${path}`);
  const found = (await get("Observation?_count=200")).body.entry ?? [];
  assert.ok(found.length > 0, "vital signs of the demo clinic");
  for (const { resource } of found) assert.ok(JSON.stringify(resource.category).includes("vital-signs"), resource.id);
  assert.equal((await get("Observation?category=laboratory")).body.entry, undefined);
  assert.equal((await get("Condition")).status, 403);
  // What cannot be kept is refused by its name, and nobody is asked.
  const refused = await ask(page, config, { scope: "openid launch/patient patient/Observation.rs?nonsense=1" });
  assert.equal(refused.url.searchParams.get("error"), "invalid_scope");
  assert.match(refused.url.searchParams.get("error_description"), /nonsense/);

  await page.goto(`${server.url}/app/account/privacy`);
  const row = page.locator("[data-testid=app]", { hasText: "Lab Trends" });
  await row.waitFor();
  assert.match(await row.innerText(), /See measurements and results, only: vital signs/);
  await accessible(page, "connected applications");
  await row.scrollIntoViewIfNeeded();
  await shot(page, "apps-permissions");
  await row.locator('[data-testid=app-scope][data-scope^="patient/Observation"]').getByTestId("app-take-back").click();
  await eventually("the permission is gone", async () => (await row.locator('[data-scope^="patient/Observation"]').count()) === 0);
  assert.equal((await get("Observation")).status, 401, "what said more is over");
  const renewed = await oidc.refreshTokenGrant(config, tokens.refresh_token);
  assert.equal((await get("Observation", renewed.access_token)).status, 403);
  assert.equal((await get(`Patient/${patient.id}`, renewed.access_token)).status, 200);
  await id(row, "app-end").click();
  await row.waitFor({ state: "detached" });
  await assert.rejects(oidc.refreshTokenGrant(config, renewed.refresh_token));
  assert.deepEqual(page.problems, []);
});

test("when the session ends the application is told, by a message that jose believes; and again until it takes it", async () => {
  const told = [];
  let status = 503;
  const listener = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    told.push(new URLSearchParams(body).get("logout_token"));
    response.writeHead(status).end();
    status = 200;
  });
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
  try {
    const client = await register({ client_name: "Rounds", backchannel_logout_uri: `http://localhost:${listener.address().port}/bye`, backchannel_logout_session_required: true });
    const config = await discover(client);
    assert.equal(config.serverMetadata().backchannel_logout_session_supported, true);
    const page = await clinician();
    const { url, checks } = await ask(page, config, { scope: "openid" }, () => id(page, "consent-allow").click());
    const tokens = await oidc.authorizationCodeGrant(config, url, checks);
    await page.goto(`${server.url}/app/today`);
    await server.api(await tokenOf(page), "POST", "/api/identity/sign-out");
    await eventually("the message, refused once", () => told.length >= 2, 60_000);
    const keys = jose.createRemoteJWKSet(new URL(config.serverMetadata().jwks_uri));
    for (const token of told) {
      const { payload, protectedHeader } = await jose.jwtVerify(token, keys, { issuer: server.url, audience: client, typ: "logout+jwt", maxTokenAge: "2m" });
      assert.deepEqual([payload.sid, payload.sub, payload.nonce, protectedHeader.alg], [tokens.claims().sid, tokens.claims().sub, undefined, "ES384"]);
      assert.deepEqual(payload.events, { "http://schemas.openid.net/event/backchannel-logout": {} });
    }
  } finally {
    listener.closeAllConnections();
    listener.close();
  }
});

test("an application's token opens a patient's channel as far as its scopes reach, and neither files nor messages nor rooms", async () => {
  const page = await clinician();
  const me = await page.evaluate(() => JSON.parse(sessionStorage.getItem("medtech.session")).user.id);
  const config = await discover(await register({ client_name: "Doors" }));
  const tokenFor = async (scope) => {
    const { url, checks } = await ask(page, config, { scope: `openid launch/patient ${scope}` }, consent);
    return (await oidc.authorizationCodeGrant(config, url, checks)).access_token;
  };
  const joins = async (token, channel) => {
    const client = new Centrifuge(server.url.replace("http", "ws") + "/connection/websocket", { token, websocket: WebSocket });
    try {
      const subscription = client.newSubscription(channel);
      const outcome = new Promise((resolve) => {
        subscription.on("subscribed", () => resolve("joined")).on("unsubscribed", ({ code }) => resolve(code)).on("error", ({ error }) => resolve(error.code));
        client.on("disconnected", ({ code }) => resolve(`disconnected ${code}`));
      });
      subscription.subscribe();
      client.connect();
      return await outcome;
    } finally {
      client.disconnect();
    }
  };
  const all = await tokenFor("patient/Observation.rs patient/DiagnosticReport.rs");
  const some = await tokenFor("patient/Patient.rs patient/Observation.rs");
  const part = await tokenFor("patient/DiagnosticReport.rs patient/Observation.rs?category=laboratory");
  assert.equal(await joins(all, `patient:${patient.id}`), "joined");
  for (const token of [some, part]) assert.notEqual(await joins(token, `patient:${patient.id}`), "joined");
  for (const channel of [`user:${me}`, "board:main", `queue:${me}x`, `conversation:${crypto.randomUUID()}`]) assert.notEqual(await joins(all, channel), "joined", channel);
  for (const [method, path, body] of [
    ["POST", "/files"], ["GET", `/files/${crypto.randomUUID()}`], ["GET", `/api/messaging/conversations/${crypto.randomUUID()}/messages`],
    ["POST", `/api/messaging/conversations/${crypto.randomUUID()}/messages`, {}], ["GET", "/api/visits"], ["GET", "/api/identity/me"], ["GET", "/api/notifications/alerts"],
  ]) {
    const tus = path.startsWith("/files") ? { "tus-resumable": "1.0.0", "upload-length": "1" } : {};
    const { status, body: problem } = await server.api(all, method, path, body, tus);
    assert.deepEqual([status, problem.code], [403, "auth.application"], `${method} ${path}`);
  }
  // Neither a session nor an application's token is a media token.
  for (const token of [all, await tokenOf(page).catch(() => admin), admin]) {
    const answer = await fetch(`${server.url}/rtc/validate?access_token=${token}`);
    assert.equal(answer.status, 401);
  }
});

test("our own page gives its token to its own origin alone, and never in an address", async () => {
  const page = await person(browser, { viewport: { width: 1280, height: 900 } });
  const requests = [];
  page.on("request", (request) => requests.push(request));
  const sockets = [];
  page.on("websocket", (socket) => sockets.push(socket.url()));
  await page.goto(server.addresses.clinician);
  await id(page, "nav-today").waitFor();
  for (const place of ["queue", "board", "account/privacy", "account/security", "account/profile", "today"]) {
    await page.goto(`${server.url}/app/${place}`);
    await page.locator("main h1, main h2").first().waitFor();
  }
  const token = await tokenOf(page);
  const origin = new URL(server.url).origin;
  let carried = 0;
  for (const request of requests) {
    const headers = await request.allHeaders();
    const url = new URL(request.url());
    assert.ok(!request.url().includes(token), "in an address");
    assert.ok(!(headers.referer ?? "").includes(token), "in a referrer");
    const has = Object.values(headers).some((value) => value.includes(token)) || (request.postData() ?? "").includes(token);
    if (has) {
      carried += 1;
      assert.equal(url.origin, origin, request.url());
    }
    if (url.protocol.startsWith("http")) assert.equal(url.origin, origin, "nothing at all is fetched from elsewhere");
  }
  assert.ok(carried > 5, `${carried} requests carried it`);
  for (const url of sockets) assert.ok(!url.includes(token) && new URL(url).host === new URL(server.url).host, url);
  // It stands in this tab's own storage, and in no cookie.
  assert.deepEqual(await page.context().cookies(), []);
  assert.equal(await page.evaluate((t) => Object.values({ ...localStorage }).some((v) => v.includes(t)), token), false);
});
