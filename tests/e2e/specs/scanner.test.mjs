// What people see of a scanner of files: a file that waits, one that was found clean, one that was refused.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createServer } from "node:net";
import { test } from "node:test";
import { accessible, launch, person } from "../lib/browser.mjs";
import { Server, eventually } from "../lib/server.mjs";
import { arrive } from "../lib/visit.mjs";

/** Speaks INSTREAM of clamd(8), and answers when it is let. */
async function scanner() {
  const waiting = [];
  let open = false;
  const server = createServer((socket) => {
    let got = Buffer.alloc(0);
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      got = Buffer.concat([got, chunk]);
      if (!got.subarray(-4).equals(Buffer.alloc(4))) return;
      const answer = () => socket.end(got.includes("harm") ? "stream: Test FOUND\0" : "stream: OK\0");
      if (open) answer();
      else waiting.push(answer);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `tcp://127.0.0.1:${server.address().port}`,
    release: () => ((open = true), waiting.splice(0).forEach((answer) => answer())),
    close: () => server.close(),
  };
}

test("a file waits for the scanner before anybody reads it, and the chat says so", async () => {
  const clamd = await scanner();
  const server = await Server.start({ MEDTECH_FILES_SCANNER: clamd.address });
  const browser = await launch();
  try {
    const clinician = await server.signIn("clinician");
    const guest = await arrive(server);
    const { id, conversation_id: conversation } = guest.visit;
    const share = async (name, content) => {
      const metadata = Object.entries({ filename: name, filetype: "text/plain", conversation }).map(([k, v]) => `${k} ${Buffer.from(v).toString("base64")}`).join(",");
      const headers = { authorization: `Bearer ${guest.token}`, "tus-resumable": "1.0.0", "upload-length": String(content.length), "upload-metadata": metadata, "content-type": "application/offset+octet-stream" };
      const made = await fetch(server.url + "/files", { method: "POST", body: content, headers });
      const file = made.headers.get("location").split("/").at(-1);
      const sent = await server.api(guest.token, "POST", `/api/messaging/conversations/${conversation}/messages`, { client_id: randomUUID(), body: { file: { id: file } } });
      assert.equal(sent.body.message.body.file.state, "waiting");
      return file;
    };
    const [good, bad] = [await share("good.txt", "all well"), await share("bad.txt", "does harm")];
    const page = await person(browser, { viewport: { width: 1440, height: 900 } });
    await page.goto(server.addresses.clinician);
    await page.waitForURL(/\/app\//);
    await page.goto(`${server.url}/app/visit/${id}`);
    const card = (name) => page.getByTestId("file").filter({ hasText: name });
    for (const name of ["good.txt", "bad.txt"]) {
      await card(name).waitFor();
      assert.equal(await card(name).getAttribute("data-state"), "waiting");
      assert.ok(await card(name).isDisabled());
      assert.match(await card(name).textContent(), /Being checked/);
    }
    assert.equal((await server.api(clinician, "GET", `/files/${good}`)).body.code, "file.checking");
    clamd.release();
    await eventually("the chat says what was found", async () => (await card("good.txt").getAttribute("data-state")) === "clean" && (await card("bad.txt").getAttribute("data-state")) === "harmful");
    assert.ok(await card("good.txt").isEnabled());
    assert.ok(await card("bad.txt").isDisabled());
    assert.match(await card("bad.txt").textContent(), /Refused/);
    await accessible(page, "a conversation with a refused file");
    if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/scanner.png` });
    const download = page.waitForEvent("download");
    await card("good.txt").click();
    assert.equal((await download).suggestedFilename(), "good.txt");
    assert.equal((await server.api(clinician, "GET", `/files/${bad}`)).body.code, "file.harmful");
    // The same after a reload: it is not only what was heard.
    await page.reload();
    await card("bad.txt").waitFor();
    assert.equal(await card("bad.txt").getAttribute("data-state"), "harmful");
    assert.deepEqual(page.problems, []);
  } finally {
    clamd.release();
    await browser.close();
    await server.stop();
    clamd.close();
  }
});
