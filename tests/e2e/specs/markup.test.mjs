// Text that people type is text on every screen: nothing in it runs, nothing in it is fetched.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";
import { launch, person } from "../lib/browser.mjs";
import { MARKUP } from "../lib/markup.mjs";
import { Server, eventually } from "../lib/server.mjs";
import { arrive } from "../lib/visit.mjs";

let server, browser, clinician, admin, guest, visit;
before(async () => {
  server = await Server.start({ MEDTECH_LIMITS_SESSION_PER_SECOND: "0", MEDTECH_LIMITS_NETWORK_PER_SECOND: "0" });
  browser = await launch();
  [clinician, admin] = [await server.signIn("clinician"), await server.signIn("admin")];
  guest = await arrive(server);
  visit = guest.visit;
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

async function send(token, method, path, body) {
  const answer = await server.api(token, method, path, body);
  assert.ok(answer.status < 300, `${method} ${path} ${JSON.stringify(body)}: ${answer.status} ${JSON.stringify(answer.body)}`);
  return answer.body;
}

const base64 = (text) => Buffer.from(text).toString("base64");

/** A person whose page tells of whatever ran, opened a dialogue, left the site, or stands there as an element. */
async function watched(address) {
  const page = await person(browser, { viewport: { width: 1280, height: 900 } });
  page.strange = [];
  page.on("dialog", (dialog) => (page.strange.push(`dialogue ${dialog.message()}`), dialog.dismiss()));
  const own = new URL(server.url).host;
  page.on("request", (request) => {
    const to = new URL(request.url());
    if (/^(https?|wss?):$/.test(to.protocol) && to.host !== own) page.strange.push(`a request to ${request.url()}`);
  });
  await page.goto(address);
  return page;
}

/** A watched person with a session that was begun elsewhere. */
async function signedIn(token) {
  const page = await watched("about:blank");
  const { user } = (await server.api(token, "GET", "/api/identity/me")).body;
  await page.addInitScript(([token, user, host]) => {
    if (location.host === host) sessionStorage.setItem("medtech.session", JSON.stringify({ token, expiresAt: "2099-01-01T00:00:00Z", user }));
  }, [token, user, new URL(server.url).host]);
  return page;
}

const id = (page, name) => page.getByTestId(name);

async function nothingRan(page, where) {
  const found = await page.evaluate(() => ({
    ran: window.__ran ?? null,
    // What the texts would have made: elements with these, which the application itself never has.
    elements: [...document.querySelectorAll("[onerror],[onload],[onfocus],[ontoggle],[onstart],[onbegin],[onblur],[srcdoc],base,embed,object,marquee,[href^='javascript:'],[src*='evil.invalid'],[href*='evil.invalid'],[action*='evil.invalid']")].map((e) => e.outerHTML.slice(0, 120)),
  }));
  assert.deepEqual({ ...found, strange: page.strange, problems: page.problems }, { ran: null, elements: [], strange: [], problems: [] }, where);
}

/** How many of the texts can be read on the page as they were typed. */
const literal = (page) =>
  page.evaluate((texts) => {
    const fields = [...document.querySelectorAll("input,textarea")].map((f) => f.value);
    const shown = (document.body.textContent ?? "") + fields.join("\n");
    return texts.filter((t) => shown.includes(t)).length;
  }, MARKUP);

test("markup in every field is text on every screen", async () => {
  assert.ok(MARKUP.length >= 40);
  const patient = (await send(clinician, "GET", `/api/visits/${visit.id}`)).subject_ref;
  const conversation = `/api/messaging/conversations/${visit.conversation_id}/messages`;
  const upload = async (name) => {
    const metadata = Object.entries({ filename: name, filetype: "text/plain", conversation: visit.conversation_id }).map(([k, v]) => `${k} ${base64(v)}`).join(",");
    const made = await fetch(server.url + "/files", {
      method: "POST", body: "x",
      headers: { authorization: `Bearer ${guest.token}`, "tus-resumable": "1.0.0", "upload-length": "1", "upload-metadata": metadata, "content-type": "application/offset+octet-stream" },
    });
    assert.equal(made.status, 201);
    return made.headers.get("location").split("/").at(-1);
  };
  const practitioner = (await server.api(clinician, "GET", "/fhir/R4/Practitioner?_count=1")).body.entry[0].resource.id;
  const person_ = (await server.api(clinician, "GET", `/fhir/R4/${patient}`)).body;
  const begin = Date.now() + 3_600_000;
  for (const [n, text] of MARKUP.entries()) {
    await send(guest.token, "POST", conversation, { client_id: randomUUID(), body: { text } });
    await send(guest.token, "POST", conversation, { client_id: randomUUID(), body: { file: { id: await upload(`${text.replaceAll("/", "")}.txt`) } } });
    await send(clinician, "POST", "/fhir/R4/Observation", {
      resourceType: "Observation", status: "final", code: { text }, subject: { reference: patient }, valueString: text, effectiveDateTime: new Date().toISOString(), note: [{ text }],
      category: [{ coding: [{ system: "http://terminology.hl7.org/CodeSystem/observation-category", code: "laboratory" }] }],
    });
    for (const [resourceType, more] of [["Condition", { clinicalStatus: { coding: [{ system: "http://terminology.hl7.org/CodeSystem/condition-clinical", code: "active" }] } }], ["AllergyIntolerance", {}], ["MedicationStatement", { status: "active" }]]) {
      const about = resourceType === "AllergyIntolerance" ? { patient: { reference: patient } } : { subject: { reference: patient } };
      await send(clinician, "POST", `/fhir/R4/${resourceType}`, { resourceType, ...about, ...more, [resourceType === "MedicationStatement" ? "medicationCodeableConcept" : "code"]: { text }, note: [{ text }] });
    }
    await send(clinician, "POST", "/api/records/devices", { patient_id: patient.slice(8), name: text.slice(0, 60), kind: "wearable" });
    await send(admin, "POST", "/api/identity/users", { email: `m${n}@markup.example`, name: text, roles: ["clinician"] });
    const [start, end] = [begin + n * 1_200_000, begin + (n + 1) * 1_200_000].map((t) => new Date(t).toISOString());
    if (n < 12) await send(clinician, "POST", "/api/appointments", { patient_id: patient.slice(8), practitioner_id: practitioner, start, end, reason: text });
  }
  // The patient's own name is markup too, and so is the clinic's.
  await send(clinician, "PUT", `/fhir/R4/${patient}`, { ...person_, name: [{ family: MARKUP[9], given: [MARKUP[13]] }] });
  const settings = await send(admin, "GET", "/api/tenants/settings");
  const texts = Object.fromEntries(Object.entries(settings.settings).filter(([k, v]) => typeof v === "string" && /name|text|greeting|line|title|contact/.test(k)).map(([k]) => [k, MARKUP[0]]));
  const changed = await server.api(admin, "PUT", "/api/tenants/settings", { version: settings.version, settings: texts });
  assert.ok(changed.status === 200 || changed.status === 422 || changed.status === 400, JSON.stringify(changed.body));
  const [tenant] = (await send(admin, "GET", "/api/tenants")).clinics;
  await send(admin, "PATCH", `/api/tenants/${tenant.id}`, { name: MARKUP[0] });

  const screens = {
    clinician: ["/app/today", "/app/queue", "/app/board", `/app/visit/${visit.id}`, "/app/account/security", "/app/account/profile", "/app/account/preferences", "/app/account/privacy"],
    admin: ["/app/admin/people", "/app/admin/roles", "/app/admin/clinics", "/app/admin/settings", "/app/admin/data", "/app/audit", "/app/access", "/app/clients", "/app/account/profile", "/app/account/security"],
  };
  let read = 0;
  for (const [who, paths] of Object.entries(screens)) {
    const page = await watched(server.addresses[who]);
    await page.waitForURL(/\/app\//);
    for (const path of paths) {
      await page.goto(server.url + path);
      await page.getByRole("main").first().waitFor();
      await page.waitForLoadState("networkidle").catch(() => {});
      // Every tab and drawer that the screen has.
      for (const tab of await page.getByRole("tab").all()) await tab.click({ timeout: 2000 }).catch(() => {});
      read = Math.max(read, await literal(page));
      await nothingRan(page, `${who} ${path}`);
    }
    await page.context().close();
  }
  assert.ok(read >= 10, `${read} texts were read on the best screen`);

  // Typed by hand, sent, and read by the other side.
  const host = await watched(server.addresses.clinician);
  await host.waitForURL(/\/app\//);
  await host.goto(`${server.url}/app/visit/${visit.id}`);
  const box = host.getByTestId("chat-input");
  await box.waitFor({ timeout: 15_000 });
  for (const text of MARKUP.slice(0, 12)) {
    await box.fill(`typed ${text}`);
    await box.press("Enter");
  }
  await eventually("the typed texts stand in the conversation", async () => {
    const { messages } = await send(clinician, "GET", `${conversation}?after=0&limit=500`);
    const said = messages.map((m) => m.body.text);
    return MARKUP.slice(0, 12).every((text) => said.includes(`typed ${text}`));
  });
  await nothingRan(host, "the conversation");
  const shown = await eventually("all of the conversation is shown", async () => {
    const n = await literal(host);
    return n >= 40 && n;
  });
  assert.ok(shown >= 40, String(shown));
  await host.context().close();

  // What goes out by mail is shown to administrators on a page of its own.
  const outbox = await watched("about:blank");
  await outbox.setExtraHTTPHeaders({ authorization: `Bearer ${admin}` });
  const answer = await outbox.goto(server.url + "/dev/outbox");
  assert.equal(answer.status(), 200);
  await nothingRan(outbox, "/dev/outbox");
  assert.ok((await outbox.evaluate(() => document.body.textContent)).includes("markup.example"));
});

/** Writes into the fields of a form by hand, sends it, and sees each text again as it was typed. */
async function types(page, fields, button, done) {
  for (const [field, text] of Object.entries(fields)) await page.locator(`[name=${field}]`).fill(text);
  await id(page, button).click();
  await done();
}

test("markup is text on the guest's screens: welcome, devices, consent, waiting room, consultation, chat, end", async () => {
  // Everybody and everything that these screens name is markup: who comes, who expects them, what the clinic is called.
  const practitioner = (await server.api(clinician, "GET", `/fhir/R4/Practitioner/${(await server.api(clinician, "GET", "/api/identity/me")).body.user.practitioner_id}`)).body;
  const patient = (await send(clinician, "GET", "/fhir/R4/Patient?_count=50")).entry.map((e) => e.resource).find((p) => p.birthDate);
  const names = { practitioner: `Dr ${MARKUP[10]}`, given: MARKUP[22], clinic: MARKUP[12] };
  await send(clinician, "PUT", `/fhir/R4/Practitioner/${practitioner.id}`, { ...practitioner, name: [{ text: names.practitioner, family: names.practitioner }] });
  await send(clinician, "PUT", `/fhir/R4/Patient/${patient.id}`, { ...patient, name: [{ given: [names.given], family: MARKUP[19] }] });
  const [clinic] = (await send(admin, "GET", "/api/tenants")).clinics;
  await send(admin, "PATCH", `/api/tenants/${clinic.id}`, { name: names.clinic });
  // Nobody else waits: the first in line is told whom they will meet.
  await send(clinician, "POST", `/api/visits/${visit.id}/admit`, {});
  const booked = await send(clinician, "POST", "/api/appointments", {
    patient_id: patient.id, practitioner_id: practitioner.id, start: new Date(Date.now() + 40 * 864e5).toISOString(), end: new Date(Date.now() + 40 * 864e5 + 12e5).toISOString(), reason: MARKUP[3],
  });
  const page = await watched(server.url + booked.visit_link);
  /** The screen stands, shows what it should as it was typed, and nothing of it ran. */
  const screen = async (name, texts) => {
    const where = await eventually(`${name} shows its texts`, async () => {
      const shown = await page.evaluate(() => document.body.textContent + [...document.querySelectorAll("[aria-label]")].map((e) => e.getAttribute("aria-label")).join("\n"));
      return texts.every((text) => shown.includes(text)) && name;
    }, 20_000).catch(async (error) => { throw new Error(`${error.message}: ${await page.evaluate(() => document.body.textContent)}`); });
    await nothingRan(page, where);
  };
  await id(page, "visit-start").waitFor();
  await screen("welcome", [names.clinic, names.practitioner]);
  await id(page, "visit-start").click();
  const consent = id(page, "consent-check");
  await id(page, "device-allow").or(id(page, "device-continue")).or(consent).first().waitFor();
  await screen("device check", [names.clinic]);
  await eventually("the device check passes", async () => {
    for (const button of ["device-allow", "device-continue"]) {
      if (await id(page, button).isEnabled({ timeout: 200 }).catch(() => false)) await id(page, button).click({ timeout: 1000 }).catch(() => {});
    }
    return consent.isVisible();
  });
  await screen("consent", [names.clinic, names.practitioner]);
  await consent.check();
  await id(page, "consent-accept").click();
  await id(page, "waiting-room").waitFor();
  await screen("waiting room", [names.clinic, names.practitioner]);

  // What the clinician and the guest write by hand, on the guest's side, while waiting and in the consultation.
  const own = await send(clinician, "GET", `/api/visits/${booked.visit_id}`);
  const talk = `/api/messaging/conversations/${own.conversation_id}/messages`;
  for (const text of MARKUP) await send(clinician, "POST", talk, { client_id: randomUUID(), body: { text } });
  await id(page, "open-chat").click();
  const wholeTalk = async (where, typed) => {
    const list = id(page, "chat-list");
    // Shown in parts where it is long: from the end to the beginning, all that was ever seen.
    const seen = new Set();
    await eventually(`${where}: all texts are shown`, async () => {
      const shown = await list.evaluate((e) => { const text = e.textContent; e.scrollTop = e.scrollTop > 0 ? Math.max(0, e.scrollTop - e.clientHeight / 2) : e.scrollHeight; return text; });
      for (const text of [...MARKUP, ...typed]) if (shown.includes(text)) seen.add(text);
      return seen.size === MARKUP.length + typed.length;
    });
    await nothingRan(page, where);
  };
  const typed = [];
  const write = async (texts) => {
    for (const text of texts) {
      await id(page, "chat-input").fill(text);
      await id(page, "chat-input").press("Enter");
      typed.push(text);
    }
  };
  await write(MARKUP.slice(0, 8).map((text) => `waiting ${text}`));
  await wholeTalk("the chat of the waiting room", typed);
  await id(page, "close-chat").click();
  await send(clinician, "POST", `/api/visits/${own.id}/admit`, {});
  await id(page, "consult").waitFor();
  await screen("consultation", [names.practitioner]);
  await id(page, "toggle-chat").click();
  await write(MARKUP.slice(8, 16).map((text) => `inside ${text}`));
  await wholeTalk("the chat of the consultation", typed);
  await send(clinician, "POST", `/api/visits/${own.id}/end`, {});
  await id(page, "visit-ended").waitFor();
  await screen("end", [names.clinic, names.practitioner]);
  await page.context().close();
});

test("names and notes that are typed by hand are text: the patient's account, the carer's, the clinician's notes", async () => {
  const token = await server.run("token", "--user", "patient");
  let page = await signedIn(token);
  await page.goto(`${server.url}/app/account/profile`);
  for (const [n, text] of MARKUP.slice(0, 6).entries()) {
    const [name, pronouns] = [`${n} ${text}`, MARKUP[n + 30].slice(0, 40)];
    await id(page, "profile-name").waitFor();
    await types(page, { name, pronouns }, "profile-save", () => eventually("the name is kept", async () => (await server.api(token, "GET", "/api/identity/me/profile")).body.name === name));
    await nothingRan(page, `profile ${n}`);
    await page.reload();
    await id(page, "profile-name").waitFor();
    assert.equal(await id(page, "profile-name").inputValue(), name);
    assert.equal(await page.locator("[name=pronouns]").inputValue(), pronouns);
    await nothingRan(page, `profile ${n} again`);
  }
  await page.context().close();
  page = await signedIn(token);
  await page.goto(`${server.url}/app/account/privacy`);
  await id(page, "user-menu").click();
  await id(page, "my-account").waitFor();
  await eventually("the menu says the name", () => page.evaluate((name) => document.body.textContent.includes(name), `5 ${MARKUP[5]}`));
  await nothingRan(page, "the menu");
  await page.keyboard.press("Escape");
  for (const [n, text] of [MARKUP[0], MARKUP[9], MARKUP[23]].entries()) {
    await id(page, "proxy-add").click();
    await id(page, "proxy-name").waitFor();
    await types(page, { name: `Carer ${text}`, email: `carer${n}@markup.example` }, "proxy-send", () => page.getByTestId("proxy").filter({ hasText: `Carer ${text}` }).waitFor());
    await nothingRan(page, `proxy ${n}`);
  }
  for (const path of ["privacy", "security", "preferences", "profile"]) {
    await page.goto(`${server.url}/app/account/${path}`);
    await page.getByRole("main").first().waitFor();
    await page.waitForLoadState("networkidle").catch(() => {});
    await nothingRan(page, `the patient's ${path}`);
  }
  await page.context().close();

  const host = await signedIn(clinician);
  await host.goto(`${server.url}/app/visit/${visit.id}`);
  const note = id(host, "note");
  await note.waitFor({ timeout: 20_000 });
  await note.fill(MARKUP.join("\n"));
  await note.blur();
  await nothingRan(host, "the note");
  await host.reload();
  await eventually("the note came back as it was typed", async () => (await note.inputValue()) === MARKUP.join("\n"));
  await nothingRan(host, "the note again");
  await host.context().close();
});

test("an uploaded picture or page with a script in it runs nothing when it is opened", async () => {
  const script = "document.documentElement.setAttribute('ran', '1'); window.__ran = 1; fetch('//evil.invalid/x')";
  const files = [
    ["picture.svg", "image/svg+xml", `<svg xmlns="http://www.w3.org/2000/svg" onload="${script}"><script>${script}</script></svg>`],
    ["picture.jpg", "image/jpeg", `<svg xmlns="http://www.w3.org/2000/svg"><script>${script}</script></svg>`],
    ["page.html", "text/html", `<!doctype html><script>${script}</script>`],
    ["page.txt", "text/plain", `<!doctype html><script>${script}</script>`],
    ["both.pdf", "application/pdf", `%PDF-1.7\n<html><script>${script}</script>`],
  ];
  for (const [name, type, content] of files) {
    const metadata = Object.entries({ filename: name, filetype: type, conversation: visit.conversation_id }).map(([k, v]) => `${k} ${base64(v)}`).join(",");
    const headers = { authorization: `Bearer ${guest.token}`, "tus-resumable": "1.0.0" };
    const made = await fetch(server.url + "/files", { method: "POST", body: content, headers: { ...headers, "upload-length": String(content.length), "upload-metadata": metadata, "content-type": "application/offset+octet-stream" } });
    const at = server.url + made.headers.get("location");
    const plain = await fetch(at, { headers });
    assert.equal(plain.headers.get("x-content-type-options"), "nosniff");
    assert.match(plain.headers.get("content-disposition"), /^attachment;/);
    // Opened as a page: kept as a download. Opened without that word, as a browser that ignores it would: run in no origin, without scripts.
    for (const inline of [false, true]) {
      const page = await watched("about:blank");
      await page.route("**/files/*", async (route) => {
        const answer = await route.fetch({ headers: { ...route.request().headers(), ...headers } });
        const kept = { ...answer.headers() };
        if (inline) delete kept["content-disposition"];
        if (inline && /octet-stream/.test(kept["content-type"])) kept["content-type"] = type;
        await route.fulfill({ response: answer, headers: kept });
      });
      const download = page.waitForEvent("download").catch(() => null);
      const shown = await page.goto(at).then(() => true, () => false);
      if (!inline) assert.ok(!shown, `${name} is kept, not shown`);
      // Going there ends when the page has loaded, or when it turns out to be a download.
      if (!shown) assert.ok(await download, `${name} is kept`);
      assert.equal(await page.evaluate(() => window.__ran ?? document.documentElement.getAttribute("ran")), null, `${name} ${inline}`);
      assert.deepEqual(page.strange, [], name);
      await page.context().close();
    }
    // As a picture or a frame of our own page.
    const page = await watched(server.url);
    const framed = page.evaluate((address) => {
      const frame = document.createElement("iframe");
      frame.src = address;
      const loaded = new Promise((resolve) => (frame.onload = resolve));
      document.body.append(frame);
      return loaded.then(() => true);
    }, at);
    // It has loaded, if only what the browser shows in its place, or it was taken for a download.
    const kept = page.waitForEvent("download").then(() => true, () => false);
    assert.ok(await Promise.race([framed, kept]), `${name} in a frame`);
    assert.equal(await page.evaluate(() => window.__ran ?? null), null);
    await page.context().close();
  }
});
