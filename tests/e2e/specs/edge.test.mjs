// The web server's edge: floods, forged addresses, other sites' pages, and what browsers are told to forbid.
import assert from "node:assert/strict";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { launch } from "../lib/browser.mjs";
import { Server, eventually } from "../lib/server.mjs";

let server;
before(async () => {
  server = await Server.start({
    MEDTECH_PUBLIC_URL: "https://clinic.localhost", MEDTECH_HTTP_TRUSTED_PROXIES: "127.0.0.2/32",
    MEDTECH_LIMITS_NETWORK_PER_SECOND: "1", MEDTECH_LIMITS_NETWORK_BURST: "50",
  });
});
after(() => server?.stop());

const ask = (path, headers = {}, init = {}) => fetch(server.url + path, { headers, ...init });

test("another site's page can neither change anything nor open a live connection", async () => {
  const token = await server.signIn("admin");
  const post = (headers) => ask("/api/identity/sign-out", { authorization: `Bearer ${token}`, ...headers }, { method: "POST" });
  for (const headers of [{ origin: "https://evil.example" }, { origin: "null" }, { "sec-fetch-site": "cross-site" }]) {
    const answer = await post(headers);
    assert.equal(answer.status, 403);
    assert.equal((await answer.json()).code, "http.origin");
  }
  const open = (origin) =>
    new Promise((resolve) => {
      const socket = new WebSocket(server.url.replace("http", "ws") + "/connection/websocket", { origin });
      socket.on("open", () => resolve(socket.terminate() ?? 101));
      socket.on("unexpected-response", (_, response) => resolve(response.statusCode));
      socket.on("error", () => {});
    });
  assert.equal(await open("https://evil.example"), 403);
  assert.equal(await open(server.url), 101);
  assert.equal((await post({ origin: server.url, "sec-fetch-site": "same-origin" })).status, 204);
});

test("measurements are for this machine's own collector and for administrators", async () => {
  const behind = { "x-forwarded-for": "203.0.113.9" };
  assert.equal((await ask("/metrics")).status, 200);
  assert.equal((await ask("/metrics", behind)).status, 401);
  for (const [who, status] of [["admin", 200], ["clinician", 403]]) {
    const token = await server.signIn(who);
    assert.equal((await ask("/metrics", { ...behind, authorization: `Bearer ${token}` })).status, status, who);
  }
  // The refusal is told in the trail, beside the answer: a moment later.
  const token = await server.signIn("admin");
  await eventually("the refusal is in the trail", async () => {
    const { entries } = (await server.api(token, "GET", "/api/tenants/audit?limit=20")).body;
    return entries.some((entry) => entry.target === "metrics:*" && entry.outcome === "denied");
  });
});

/** Bytes on the wire, for what `fetch` would not send; answers the status. */
const wire = (method, path) =>
  new Promise((resolve, reject) => {
    const { hostname, port } = new URL(server.url);
    const socket = connect(Number(port), hostname, () => socket.write(`${method} ${path} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nConnection: close\r\n\r\n`));
    let text = "";
    socket.on("data", (chunk) => (text += chunk)).on("end", () => resolve(Number(text.split(" ")[1]))).on("error", reject);
  });

test("nothing is done by reading, and nothing is there but what is meant to be", async () => {
  const token = await server.signIn("admin");
  const trail = async (limit) => (await server.api(token, "GET", `/api/tenants/audit?limit=${limit}`)).body.entries;
  const { paths } = await (await ask("/api/openapi.json")).json();
  const [{ seq: before }] = await trail(1);
  for (const [path, operations] of Object.entries(paths)) {
    if (operations.get) continue;
    const { status } = await ask(path.replaceAll(/\{\w+\}/g, "0"), { authorization: `Bearer ${token}` });
    assert.ok(status === 404 || status === 405, `GET ${path}: ${status}`);
  }
  const since = (await trail(100)).filter((entry) => entry.seq > before);
  assert.ok(since.length <= 1, `only the reading of the trail itself is in the trail: ${JSON.stringify(since)}`);
  for (const [method, path] of [["TRACE", "/api/identity/me"], ["TRACK", "/"], ["GET", "/.git/config"], ["GET", "/assets/"], ["GET", "/assets/../Cargo.toml"], ["GET", "/%2e%2e/%2e%2e/etc/passwd"]]) {
    const status = await wire(method, path);
    assert.ok([400, 404, 405].includes(status), `${method} ${path}: ${status}`);
  }
});

test("every answer says what a browser may do with it", async () => {
  const common = (answer) => {
    assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
    assert.match(answer.headers.get("strict-transport-security"), /max-age=63072000; includeSubDomains/);
    assert.equal(answer.headers.get("referrer-policy"), "no-referrer");
    assert.equal(answer.headers.get("x-frame-options"), "DENY");
    assert.match(answer.headers.get("content-security-policy"), /default-src 'none'.*frame-ancestors 'none'/);
  };
  const page = await ask("/");
  common(page);
  const policy = page.headers.get("content-security-policy");
  assert.match(policy, /script-src 'self'(;| )/);
  assert.match(policy, /'nonce-[A-Za-z0-9+/=_-]{20,}'/);
  assert.match(policy, /require-trusted-types-for 'script'/);
  assert.match(policy, /base-uri 'none'/);
  assert.doesNotMatch(policy, /unsafe|\*/);
  assert.notEqual(policy, (await ask("/")).headers.get("content-security-policy"), "the nonce is new in every page");
  common(await ask("/healthz"));
  common(await ask("/fhir/R4/metadata"));
  common(await ask("/nowhere/at/all.png"));
  const signed = { authorization: `Bearer ${await server.signIn("clinician")}`, origin: "https://evil.example" };
  for (const path of ["/api/identity/me", "/api/appointments/today", "/fhir/R4/Patient?_count=1"]) {
    const answer = await ask(path, signed);
    assert.equal(answer.headers.get("cache-control"), "no-store", path);
    assert.equal(answer.headers.get("access-control-allow-origin"), null, path);
  }
});

test("a flood of strangers is told when to come again, whatever address or token they make up; who is signed in goes on", async () => {
  const token = await server.signIn("clinician");
  const signed = { authorization: `Bearer ${token}` };
  assert.equal((await ask("/api/identity/me", signed)).status, 200);
  let refused = 0;
  for (let n = 0; n < 120; n++) {
    const made_up = { "x-forwarded-for": `198.51.${n}.1`, authorization: `Bearer mt_1_${String(n).padStart(43, "x")}` };
    // An open route answers whatever the token: that must not make it a good one.
    const answer = await ask(n % 2 ? "/api/tenants/current" : "/api/identity/me", made_up);
    if (answer.status !== 429) continue;
    refused += 1;
    assert.match(answer.headers.get("retry-after"), /^[1-9]\d*$/);
    assert.equal((await answer.json()).code, "http.too_many");
  }
  assert.ok(refused >= 50, `${refused} refused`);
  const fhir = await ask("/fhir/R4/Patient");
  assert.equal(fhir.status, 429);
  assert.equal((await fhir.json()).issue[0].code, "throttled");
  for (let n = 0; n < 100; n++) assert.equal((await ask("/api/identity/me", signed)).status, 200);
  // The client's own files and the operator's probes are not counted.
  for (const path of ["/", "/healthz", "/readyz"]) assert.equal((await ask(path)).status, 200, path);
});

test("the page runs under its own policy without one violation", async () => {
  const plain = await Server.start();
  const browser = await launch();
  try {
    const page = await browser.newPage();
    const violations = [];
    page.on("console", (message) => /Content Security Policy|Trusted/.test(message.text()) && violations.push(message.text()));
    await page.goto(plain.addresses.clinician);
    await page.waitForURL(/\/app\//);
    await page.getByRole("main").waitFor();
    await page.goto(plain.addresses.patient);
    await page.getByRole("main").waitFor();
    assert.deepEqual(violations, []);
  } finally {
    await browser.close();
    await plain.stop();
  }
});

test("attempts to get round the rules are counted by their kind, name nobody, and write no line of their own", async () => {
  const other = await Server.start({ MEDTECH_LOG: "trace", MEDTECH_LOG_FORMAT: "json", MEDTECH_LIMITS_NETWORK_PER_SECOND: "1", MEDTECH_LIMITS_NETWORK_BURST: "60" });
  other.logLimit = 50_000_000;
  try {
    const [token, admin] = [await other.signIn("clinician"), await other.signIn("admin")];
    const at = (path, headers = {}, init = {}) => fetch(other.url + path, { headers, ...init }).then(async (answer) => ({ status: answer.status, text: await answer.text() }));
    const json = { "content-type": "application/json" };
    // A foreign page, a forged token, an altered link, a doubled parameter, somebody else's door.
    assert.equal((await at("/api/identity/sign-out", { origin: "https://evil.example", authorization: `Bearer ${token}` }, { method: "POST" })).status, 403);
    for (let n = 0; n < 3; n++) assert.equal((await at("/api/identity/me", { authorization: `Bearer mt_1_${"x".repeat(43)}` })).status, 401);
    const link = other.addresses.clinician.split("#")[1];
    const altered = (link[0] === "A" ? "B" : "A") + link.slice(1);
    assert.ok((await at("/api/identity/links/exchange", json, { method: "POST", body: JSON.stringify({ link: altered }) })).status >= 400);
    assert.equal((await at("/api/visits?all=1&all=1", { authorization: `Bearer ${token}` })).status, 400);
    assert.equal((await at("/metrics", { authorization: `Bearer ${token}` })).status, 403);
    // Line ends and a terminal's commands in every place that a request has.
    const line = '\n2026-01-01T00:00:00Z ERROR forged\r\n{"level":"ERROR","message":"forged"}\u001b[2J\u2028forged';
    const coded = encodeURIComponent(line);
    for (const path of [`/fhir/R4/Patient/${coded}`, `/fhir/R4/${coded}`, `/fhir/R4/Patient?name=${coded}&${coded}=1`, `/api/visits/${coded}`, `/api/records/patients/${coded}/chart`, `/files/${coded}`, `/api/tenants/audit?target=${coded}`, `/${coded}`]) {
      await at(path, { authorization: `Bearer ${token}`, "user-agent": encodeURIComponent("x") + "\u0085forged\u009b31m", "x-request-id": "a\u0085forged" });
      await at(path, { authorization: `Bearer ${admin}` });
    }
    await at("/api/identity/sign-in", json, { method: "POST", body: JSON.stringify({ email: `a${line}@example.org`, password: line }) });
    await at("/fhir/R4/Patient", { authorization: `Bearer ${token}`, "content-type": "application/fhir+json" }, { method: "POST", body: JSON.stringify({ resourceType: line, [line]: line }) });
    // A flood at the end, since nobody else is let in after it.
    let floods = 0;
    for (let n = 0; n < 120; n++) if ((await at("/dev/outbox")).status === 429) floods += 1;
    assert.ok(floods >= 40, `${floods} requests to /dev/outbox were too many`);
    assert.equal((await at("/mqtt")).status, 429, "the door of devices is counted too");
    const metrics = (await at("/metrics")).text;
    const counted = (code) => Number(new RegExp(`^medtech_http_refusals_total\\{code="${code.replace(".", "\\.")}"\\} (\\d+)$`, "m").exec(metrics)?.[1] ?? 0);
    assert.equal(counted("http.origin"), 1);
    assert.equal(counted("http.query_twice"), 1);
    assert.ok(counted("auth.token_unknown") >= 3, metrics);
    assert.ok(counted("link.unknown") + counted("link.invalid") >= 1, metrics);
    assert.ok(counted("policy.denied") >= 1);
    assert.ok(counted("http.too_many") >= floods);
    for (const [, labels] of metrics.matchAll(/^medtech_http_refusals_total\{(.*)\} \d+$/gm)) assert.match(labels, /^code="[a-z]+\.[a-z_]+"$/);
    const trail = (await other.api(admin, "GET", "/api/tenants/audit?limit=200")).body;
    // eslint-disable-next-line no-control-regex
    for (const entry of trail.entries) for (const value of Object.values(entry)) assert.doesNotMatch(String(value), /[\u0000-\u001f\u007f-\u009f]/);
    // The last line is the server's own: so the log was on all the time.
    other.process.kill("SIGTERM");
    await other.gone;
    const lines = other.log.split("\n").filter(Boolean);
    assert.equal(JSON.parse(lines.at(-1)).message, "stopping");
    for (const entry of lines) {
      const { level, target, timestamp } = JSON.parse(entry);
      assert.ok(level && target && /Z$/.test(timestamp), entry);
      // eslint-disable-next-line no-control-regex
      assert.doesNotMatch(entry, /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/, entry);
      assert.doesNotMatch(entry, /^.{0,60}forged/, entry);
    }
  } finally {
    await other.stop();
  }
});
