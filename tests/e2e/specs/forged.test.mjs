// What a client may not say: fields that are not its own, parameters twice, text encoded twice; and what no answer tells.
import assert from "node:assert/strict";
import { createHash, randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { outsideProvider } from "../lib/provider.mjs";
import { Server } from "../lib/server.mjs";
import { arrive } from "../lib/visit.mjs";

let server, outside, clinician, admin, guest, self, patient, practitioner;
before(async () => {
  server = await Server.start({ MEDTECH_LIMITS_SESSION_PER_SECOND: "0", MEDTECH_LIMITS_NETWORK_PER_SECOND: "0" });
  [clinician, admin] = [await server.signIn("clinician"), await server.signIn("admin")];
  outside = await outsideProvider(`${server.url}/sso`);
  self = await server.run("token", "--user", "patient");
  guest = await arrive(server);
  const first = async (type) => (await server.api(clinician, "GET", `/fhir/R4/${type}?_count=1`)).body.entry[0].resource.id;
  [patient, practitioner] = [await first("Patient"), await first("Practitioner")];
});
after(async () => {
  await outside?.close();
  await server?.stop();
});

const STRANGER = "0f0f0f0f-0f0f-7f0f-8f0f-0f0f0f0f0f0f";
const LONG_AGO = "1999-09-09T09:09:09Z";
/** Every mark that none of these fields may leave behind. */
const MARKS = [STRANGER, "1999-09-09T09", "936868149000", "777777777", "forged"];
const FIELDS = {
  id: STRANGER, uuid: STRANGER, user: `user:${STRANGER}`, user_id: STRANGER, subject: `user:${STRANGER}`, subject_ref: `Patient/${STRANGER}`, actor: `user:${STRANGER}`, author: `user:${STRANGER}`,
  owner: `user:${STRANGER}`, sender: { subject: `user:${STRANGER}`, name: "forged" }, created_by: STRANGER, reviewed_by: STRANGER, acknowledged_by: STRANGER, granted_by: STRANGER,
  tenant: 777777777, tenant_id: 777777777, at: LONG_AGO, created_at: LONG_AGO, updated_at: LONG_AGO, granted_at: LONG_AGO, seen_at: LONG_AGO, expires_at: LONG_AGO, until: LONG_AGO, proved_at: 936868149000,
  version: 777777777, seq: 777777777, meta: { versionId: "777777777", lastUpdated: LONG_AGO }, roles: ["admin", "forged"], role: "forged", scopes: "forged", scope: "forged", assurance: "forged", grant: { client: "forged" },
  state: "forged", status: "forged", standing: "forged", active: "forged", permissions: ["forged"], credential: "forged", password_hash: "forged", token: "forged", access_token: "forged", __proto__x: "forged", is_admin: true, topic: "forged",
};

/** An application that somebody was asked to let in: the request, and what its code is exchanged with. */
async function asked(scope = "openid launch/patient patient/*.rs") {
  const verifier = randomUUID() + randomUUID();
  const challenge = createHash("sha256").update(verifier).digest("base64url");
  const parameters = new URLSearchParams({
    response_type: "code", client_id: made.client, redirect_uri: "https://app.example/back", scope, state: "s", aud: `${server.url}/fhir/R4`, code_challenge: challenge, code_challenge_method: "S256",
  });
  const answer = await fetch(`${server.url}/oauth2/authorize?${parameters}`, { redirect: "manual" });
  return { request: new URL(answer.headers.get("location"), server.url).searchParams.get("request"), verifier };
}

/** The application with what the clinician let it have. */
async function letIn() {
  const { request, verifier } = await asked();
  const decided = await server.api(clinician, "POST", `/api/identity/authorizations/${request}/decision`, { allow: true, scopes: ["openid", "launch/patient", "patient/*.rs"], patient });
  assert.equal(decided.status, 200, JSON.stringify(decided.body));
  const code = new URL(decided.body.redirect).searchParams.get("code");
  const exchanged = await fetch(`${server.url}/oauth2/token`, {
    method: "POST", body: new URLSearchParams({ grant_type: "authorization_code", client_id: made.client, redirect_uri: "https://app.example/back", code, code_verifier: verifier }),
  });
  assert.equal(exchanged.status, 200);
  return { ...(await exchanged.json()), code };
}

/** The good body with every field beside it that it has not itself. */
const forged = (good) => ({ ...FIELDS, ...good });

const made = { password: null };
const browser = Buffer.alloc(32, 7).toString("base64url");
const registration = (name) => ({ client_name: name, redirect_uris: ["https://app.example/back"], initiate_login_uri: "https://app.example/launch", scope: "openid launch launch/patient patient/*.rs", token_endpoint_auth_method: "none", grant_types: ["authorization_code"] });
const provider = (name) => ({ active: true, client_secret: "s3cret-of-the-test", settings: { name, issuer: outside.issuer, client_id: "medtech", domains: ["sso.test"], create: null } });
const unique = () => randomUUID().slice(0, 8);

/** Who, how, where, a body that is good each time it is asked for, and where the outcome can be read. */
const doors = () => [
  [admin, "POST", "/api/identity/users", () => ({ email: `u${unique()}@forged-fields.test`.replace("forged", "fields"), name: "New", roles: ["clinician"] }), ["/api/identity/users"], (b) => (made.user = b.id)],
  [admin, "PATCH", () => `/api/identity/users/${made.user}`, () => ({ name: `N ${unique()}` }), ["/api/identity/users"]],
  [admin, "POST", "/api/identity/roles", () => ({ name: `R ${unique()}`, permissions: ["clinician.record.directory.see"] }), ["/api/identity/roles"], (b) => (made.role = b)],
  [admin, "PUT", () => `/api/identity/roles/${made.role.id}`, () => ({ name: `R ${unique()}`, permissions: ["staff.thing.board.read"], version: made.role.version }), ["/api/identity/roles", "/api/identity/access/rules"], (b) => (made.role = b)],
  [clinician, "PUT", "/api/identity/me/preferences", async () => (await server.api(clinician, "GET", "/api/identity/me/preferences")).body, ["/api/identity/me/preferences", "/api/identity/me"]],
  [clinician, "PUT", "/api/identity/me/profile", async () => ({ name: (await server.api(clinician, "GET", "/api/identity/me/profile")).body.name }), ["/api/identity/me/profile", "/api/identity/me"]],
  [admin, "POST", "/api/identity/clients", () => ({ client_name: `C ${unique()}`, redirect_uris: ["https://app.example/back"], scope: "openid", token_endpoint_auth_method: "none", grant_types: ["authorization_code"] }), ["/api/identity/clients"], (b) => (made.client = b.client_id)],
  [admin, "PUT", () => `/api/identity/clients/${made.client}`, () => ({ ...registration(`C ${unique()}`), active: true }), ["/api/identity/clients"]],
  [clinician, "POST", "/api/identity/launches", () => ({ client_id: made.client, patient }), ["/api/identity/clients"]],
  [clinician, "POST", () => `/api/identity/authorizations/${made.request}/decision`, async () => { made.request = (await asked()).request; return { allow: true, scopes: ["openid", "launch/patient", "patient/*.rs"], patient }; }, ["/api/identity/me/apps"]],
  [clinician, "PATCH", () => `/api/identity/me/apps/${made.client}`, async () => { await letIn(); return { without: ["patient/*.rs"] }; }, ["/api/identity/me/apps"]],
  [admin, "POST", "/api/identity/sso-providers", () => provider(`P ${unique()}`), ["/api/identity/sso-providers"], (b) => (made.provider = b.id)],
  [admin, "PUT", () => `/api/identity/sso-providers/${made.provider}`, () => provider(`P ${unique()}`), ["/api/identity/sso-providers"]],
  [admin, "POST", "/api/identity/decide", () => ({ user: made.user, action: "read", resource: { kind: "patient", id: patient } }), ["/api/identity/access/rules"]],
  [null, "POST", "/api/identity/links/request", () => ({ email: "nobody@fields.test", browser }), ["/api/identity/users", "/api/identity/sessions"]],
  [null, "POST", "/api/identity/password/forgotten", () => ({ email: "nobody@fields.test", browser }), ["/api/identity/users", "/api/identity/sessions"]],
  [null, "POST", "/api/identity/links/exchange", () => ({ link: server.addresses.clinician.split("#")[1] }), ["/api/identity/me", "/api/identity/sessions"]],
  [clinician, "POST", "/api/identity/me/email", () => ({ email: `e${unique()}@fields.test`, browser }), ["/api/identity/me/profile", "/api/identity/users"]],
  [clinician, "POST", "/api/identity/me/password", () => ({ ...(made.password && { current: made.password }), new: (made.password = `a calm river ${unique()}`) }), ["/api/identity/me", "/api/identity/sessions"]],
  [null, "POST", "/api/identity/sign-in", () => ({ email: "marsh@harbour.example", password: made.password }), ["/api/identity/me", "/api/identity/sessions"], (b) => (made.token = b.access_token)],
  // The token changes with each proof.
  [() => made.token, "POST", "/api/identity/step-up/password", () => ({ password: made.password }), ["/api/identity/me", "/api/identity/sessions"], (b) => (made.token = b.access_token)],
  [self, "POST", "/api/identity/proxies", () => ({ name: "Carla", email: `p${unique()}@fields.test`, relationship: "carer", scope: ["appointments"] }), ["/api/identity/proxies", "/api/identity/users"]],
  [admin, "POST", "/api/tenants", () => ({ slug: `t${unique()}`, name: "N", zone: "Europe/Berlin", domains: [] }), ["/api/tenants"], (b) => (made.tenant = b.clinic ?? b)],
  [admin, "PATCH", () => `/api/tenants/${made.tenant.id}`, () => ({ name: `N ${unique()}` }), ["/api/tenants", () => `/api/tenants/${made.tenant.id}`]],
  [admin, "POST", () => `/api/tenants/${made.tenant.id}/domains`, () => ({ host: `h${unique()}.fields.test` }), ["/api/tenants", () => `/api/tenants/${made.tenant.id}`]],
  [admin, "POST", "/api/tenants/own/export", () => ({}), ["/api/tenants/exports"]],
  [admin, "POST", () => `/api/tenants/${made.tenant.id}/delete`, () => ({ slug: made.tenant.slug }), ["/api/tenants", () => `/api/tenants/${made.tenant.id}`]],
  [admin, "PUT", "/api/tenants/settings", async () => ({ version: (await server.api(admin, "GET", "/api/tenants/settings")).body.version, settings: { idle_minutes: 20 } }), ["/api/tenants/settings"]],
  [admin, "POST", "/api/tenants/settings/rollback", async () => ({ version: (await server.api(admin, "GET", "/api/tenants/settings")).body.version }), ["/api/tenants/settings", "/api/tenants/settings/versions"]],
  [clinician, "POST", "/api/appointments", () => { const at = Date.now() + 864e5 + Math.floor(Math.random() * 1e4) * 36e5; return { patient_id: patient, practitioner_id: practitioner, start: new Date(at).toISOString(), end: new Date(at + 12e5).toISOString(), reason: "r" }; }, ["/api/appointments/today", "/fhir/R4/Appointment"]],
  [null, "POST", "/api/visits/open", () => ({ link: guest.link, device: guest.device }), [() => `/api/visits/${guest.visit.id}`], (b) => (guest.token = b.access_token)],
  [() => guest.token, "POST", () => `/api/visits/${guest.visit.id}/device-check`, () => ({ camera: "ok", microphone: "ok", speaker: "ok" }), [() => `/api/visits/${guest.visit.id}`]],
  [() => guest.token, "POST", () => `/api/visits/${guest.visit.id}/consent`, () => ({ accepted: true, text_version: "1", language: "en" }), [() => `/api/visits/${guest.visit.id}`, "/fhir/R4/Consent"]],
  [clinician, "POST", () => `/api/visits/${guest.visit.id}/admit`, () => ({}), [() => `/api/visits/${guest.visit.id}`, "/api/visits"]],
  [clinician, "POST", () => `/api/visits/${guest.visit.id}/hold`, () => ({}), [() => `/api/visits/${guest.visit.id}`]],
  [() => guest.token, "POST", () => `/api/messaging/conversations/${guest.visit.conversation_id}/messages`, () => ({ client_id: randomUUID(), body: { text: "t" } }), [() => `/api/messaging/conversations/${guest.visit.conversation_id}/messages`]],
  [() => guest.token, "POST", () => `/api/messaging/conversations/${guest.visit.conversation_id}/receipts`, () => ({ delivered_upto: 1, read_upto: 1 }), [() => `/api/messaging/conversations/${guest.visit.conversation_id}`]],
  [clinician, "POST", "/api/records/devices", () => ({ patient_id: patient, name: "n", kind: "wearable" }), ["/fhir/R4/Device"]],
  [clinician, "POST", () => `/api/records/patients/${patient}/break-glass`, () => ({ reason_code: "emergency", text: "unconscious, no relatives here" }), ["/api/records/break-glass?all=1"], (b) => (made.glass = b.id)],
  [admin, "POST", () => `/api/records/break-glass/${made.glass}/assign`, () => ({ assignee: null }), ["/api/records/break-glass?all=1"]],
  [admin, "POST", () => `/api/records/break-glass/${made.glass}/review`, () => ({ review: "justified" }), ["/api/records/break-glass?all=1"]],
  [clinician, "POST", "/fhir/R4/Patient", () => ({ resourceType: "Patient", active: true, name: [{ family: "F" }] }), [(b) => `/fhir/R4/Patient/${b.id}`, (b) => `/fhir/R4/Patient/${b.id}/_history`], (b) => (made.patient = b.id), { id: STRANGER, meta: FIELDS.meta }],
  [clinician, "PUT", () => `/fhir/R4/Patient/${made.patient}`, () => ({ resourceType: "Patient", id: made.patient, active: true, name: [{ family: "G" }] }), [() => `/fhir/R4/Patient/${made.patient}`], null, { meta: FIELDS.meta }],
  [clinician, "POST", "/fhir/R4", () => ({ resourceType: "Bundle", type: "transaction", entry: [{ resource: { resourceType: "Patient", id: STRANGER, meta: FIELDS.meta, active: true }, request: { method: "POST", url: "Patient" } }] }), ["/fhir/R4/Patient?_sort=-_lastUpdated&_count=3"], null, {}],
  [admin, "POST", "/api/operations/erasures", () => ({ patient: made.patient }), ["/fhir/R4/Patient?_sort=-_lastUpdated&_count=3"]],
];

test("fields that are not the sender's to set are refused or not kept", async () => {
  const call = (it, ...args) => (typeof it === "function" ? it(...args) : it);
  const roles = async (token) => (await server.api(token, "GET", "/api/identity/me")).body.roles;
  const before = [await roles(clinician), await roles(admin)];
  for (const [who, method, path, good, looks, note, more] of doors()) {
    const [token, body] = [call(who), await good()];
    const at = call(path);
    const plain = await server.api(token, method, at, body);
    assert.ok(plain.status < 300, `${method} ${at}: ${plain.status} ${JSON.stringify(plain.body)}`);
    if (note) note(plain.body);
    const again = await good();
    const answer = await server.api(call(who), method, call(path), more ? { ...again, ...more } : forged(again));
    assert.ok(answer.status < 500, `${method} ${at}: ${answer.status}`);
    if (note && answer.status < 300) note(answer.body);
    // A refusal may quote the name of a field, never its value.
    for (const mark of MARKS) assert.ok(!JSON.stringify(answer.body ?? "").includes(mark), `${method} ${at} answers ${mark}: ${JSON.stringify(answer.body)}`);
    for (const look of looks) {
      const where = call(look, answer.status < 300 ? answer.body : plain.body);
      for (const eyes of [clinician, admin, self]) {
        const { status, body } = await server.api(eyes, "GET", where);
        assert.ok(status < 500);
        if (status < 300) for (const mark of MARKS) assert.ok(!JSON.stringify(body).includes(mark), `${method} ${at} left ${mark} at ${where}: ${JSON.stringify(body)}`);
      }
    }
  }
  assert.deepEqual([await roles(clinician), await roles(admin)], before);
  // Nothing of it in the trail either, which is everything that was done.
  const trail = JSON.stringify((await server.api(admin, "GET", "/api/tenants/audit?limit=200")).body);
  for (const mark of MARKS) assert.ok(!trail.includes(mark), mark);
});

test("a parameter that comes twice is refused at our own doors", async () => {
  for (const path of ["/api/tenants/audit?limit=1&limit=2", "/api/tenants/audit?limit=1&l%69mit=2", "/api/records/break-glass?all=0&all=1", "/api/visits?all=0&all=1", "/api/identity/me?x=1&x=1", "/api/appointments/today?date=2027-01-01&date=2027-01-02"]) {
    const { status, body } = await server.api(admin, "GET", path);
    assert.deepEqual([status, body.code], [400, "http.query_twice"], path);
  }
  assert.equal((await server.api(admin, "GET", "/api/tenants/audit?limit=1")).status, 200);
});

test("text that is encoded twice stays text", async () => {
  const own = await server.api(clinician, "GET", `/fhir/R4/Patient/${patient}`);
  assert.equal(own.status, 200);
  const coded = (text, times) => (times === 0 ? text : coded([...text].map((c) => "%" + c.charCodeAt(0).toString(16)).join("").replaceAll("%", times > 1 ? "%25" : "%"), 0));
  // Once is the id itself; twice is another text, which is no id.
  assert.equal((await server.api(clinician, "GET", `/api/visits/${coded(guest.visit.id, 1)}`)).status, 200);
  for (const path of [
    `/fhir/R4/Patient/${coded(patient, 2)}`, `/fhir/R4/%2550atient/${patient}`, "/files/%252e%252e%252fx", "/api/records/patients/%252e%252e%252fx/chart", `/api/visits/${coded(guest.visit.id, 2)}`,
    "/assets/%252e%252e/%252e%252e/etc/passwd", "/%252e%252e/etc/passwd",
  ]) {
    const answer = await fetch(server.url + path, { headers: { authorization: `Bearer ${clinician}` } });
    const text = await answer.text();
    assert.ok([400, 403, 404].includes(answer.status) || /<!doctype html>/i.test(text), `${path}: ${answer.status} ${text.slice(0, 200)}`);
    assert.doesNotMatch(text, /root:x:/);
  }
  const name = "O%2527Brien%252e&amp;lt;b&amp;gt;";
  const person = await server.api(clinician, "POST", "/fhir/R4/Patient", { resourceType: "Patient", name: [{ family: name }] });
  assert.equal(person.status, 201);
  assert.equal((await server.api(clinician, "GET", `/fhir/R4/Patient/${person.body.id}`)).body.name[0].family, name);
  const hits = async (query) => (await server.api(clinician, "GET", `/fhir/R4/Patient?_id=${person.body.id}&family:exact=${query}`)).body.entry?.length ?? 0;
  assert.equal(await hits(encodeURIComponent(name)), 1);
  assert.equal(await hits(encodeURIComponent(encodeURIComponent(name))), 0);
  assert.equal(await hits(encodeURIComponent(decodeURIComponent(name))), 0);
  const message = { client_id: randomUUID(), body: { text: name } };
  const path = `/api/messaging/conversations/${guest.visit.conversation_id}/messages`;
  assert.equal((await server.api(guest.token, "POST", path, message)).body.message.body.text, name);
});

/** Every path of the description that can be read, with real ids where there are some. */
async function readable() {
  const { paths } = JSON.parse(await readFile(new URL("../../../server/src/openapi.json", import.meta.url), "utf8"));
  const all = Object.entries(paths).filter(([, operations]) => operations.get).map(([path]) => path);
  const more = [
    "/api/identity/users", "/api/identity/me/profile", "/api/identity/me/preferences", "/api/identity/proxies", "/api/identity/clients", "/api/identity/sso-providers", "/api/tenants", "/api/tenants/settings",
    "/api/records/break-glass?all=1", "/fhir/R4/Patient", "/fhir/R4/Practitioner", "/fhir/R4/Device", "/fhir/R4/Appointment", "/fhir/R4/Observation?_count=20", "/fhir/R4/AuditEvent",
  ];
  const ids = { id: guest.visit.id, request: "x", client: "x" };
  return [...new Set([...all, ...more])].map((path) => path.replace("/api/records/patients/{id}", `/api/records/patients/${patient}`).replace("/conversations/{id}", `/conversations/${guest.visit.conversation_id}`).replaceAll(/\{(\w+)\}/g, (_, key) => ids[key] ?? "x"));
}

const OPEN = /^\/(\.well-known|oauth2\/jwks|api\/openapi|fhir\/R4\/(metadata|\.well-known))/;

test("no answer holds a password's hash or a secret, and none is kept by a cache or given to another origin", async () => {
  // A visit's link is not among them: the clinician is shown it, to hand it over.
  const secret = (await server.api(clinician, "POST", "/api/records/devices", { patient_id: patient, name: "n", kind: "wearable" })).body.password;
  const client = await server.api(admin, "POST", "/api/identity/clients", { client_name: "Secret keeper", redirect_uris: ["https://app.example/back"], scope: "openid", token_endpoint_auth_method: "client_secret_basic", grant_types: ["authorization_code"] });
  assert.equal(client.status, 201, JSON.stringify(client.body));
  const own = await server.api(admin, "POST", "/api/identity/clients", registration("Reader of one record"));
  assert.equal(own.status, 201, JSON.stringify(own.body));
  made.client = own.body.client_id;
  const { access_token: application, code } = await letIn();
  const rootKey = await readFile(`${server.dir}/secrets/root.key`);
  const secrets = [secret, client.body.client_secret, clinician, admin, self, application, code, guest.token, rootKey.toString("utf8").trim(), rootKey.toString("base64"), rootKey.toString("hex"), "$argon2", "password_hash", "PRIVATE KEY", '"d":"'].filter((s) => typeof s === "string" && s.length >= 4);
  assert.ok(secrets.length >= 13, String(secrets.length));
  const walked = await readable();
  assert.ok(walked.length >= 40, String(walked.length));
  const callers = [["clinician", clinician], ["admin", admin], ["patient", self], ["application", application], ["guest", guest.token], ["nobody", null]];
  // Each of them is who they are said to be, so that what follows is their answers and not refusals.
  for (const [who, path, expected] of [["clinician", "/api/identity/me", 200], ["admin", "/api/identity/users", 200], ["patient", "/api/identity/me/access-log", 200], ["application", `/fhir/R4/Patient/${patient}`, 200], ["guest", `/api/visits/${guest.visit.id}`, 200], ["nobody", "/api/identity/me", 401]]) {
    assert.equal((await server.api(callers.find(([name]) => name === who)[1], "GET", path)).status, expected, `${who} ${path}`);
  }
  for (const [who, token] of callers) {
    for (const path of walked) {
      const answer = await fetch(server.url + path, { headers: { origin: "https://evil.example", ...(token && { authorization: `Bearer ${token}` }) } });
      const text = await answer.text();
      for (const kept of secrets) assert.ok(!text.includes(kept), `${who} ${path} tells ${kept}`);
      // Descriptions and public keys are for everybody; /rtc answers every origin and tells nothing (it opens by a token alone).
      if (OPEN.test(path)) continue;
      assert.equal(answer.headers.get("access-control-allow-origin"), null, `${who} ${path} for other origins`);
      assert.equal(answer.headers.get("access-control-allow-credentials"), null, path);
      if (path.startsWith("/api/") || path.startsWith("/fhir/")) assert.match(answer.headers.get("cache-control") ?? "", /no-store/, `${who} ${path}`);
      const policy = answer.headers.get("content-security-policy");
      assert.match(policy, /base-uri 'none'/, path);
      assert.match(policy, /frame-ancestors 'none'/, path);
    }
    // Asked in advance, as browsers do for another site's page.
    for (const path of walked.filter((path) => !OPEN.test(path))) {
      const asked = await fetch(server.url + path, { method: "OPTIONS", headers: { origin: "https://evil.example", "access-control-request-method": "POST", "access-control-request-headers": "authorization" } });
      assert.equal(asked.headers.get("access-control-allow-origin"), null, `${who} OPTIONS ${path}`);
    }
  }
  const metadata = Object.entries({ filename: "x.txt", filetype: "text/plain", conversation: guest.visit.conversation_id }).map(([k, v]) => `${k} ${Buffer.from(v).toString("base64")}`).join(",");
  const tus = { authorization: `Bearer ${guest.token}`, "tus-resumable": "1.0.0", origin: server.url };
  const file = await fetch(server.url + "/files", { method: "POST", body: "x", headers: { ...tus, "upload-length": "1", "upload-metadata": metadata, "content-type": "application/offset+octet-stream" } });
  const download = await fetch(new URL(file.headers.get("location"), server.url), { headers: tus });
  assert.equal(download.headers.get("cache-control"), "private, no-store");
  assert.equal(download.headers.get("access-control-allow-origin"), null);
  assert.equal(download.headers.get("cross-origin-resource-policy"), "same-origin");
});
