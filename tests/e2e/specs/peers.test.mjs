// The connections that we open: a PostgreSQL and a mail server with TLS, of an authority that we know, and of one we do not.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { chmodSync, chownSync, copyFileSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { TLSSocket, createSecureContext } from "node:tls";
import { freePort } from "../lib/ports.mjs";
import { Server, binary, eventually } from "../lib/server.mjs";
import { authority } from "../lib/tls.mjs";

let ours, foreign;
before(() => ([ours, foreign] = [authority(), authority("Another authority")]));
after(() => [ours, foreign].forEach((a) => a && rmSync(a.dir, { recursive: true, force: true })));

/** A private PostgreSQL that takes connections by TLS alone; `way` is how who calls is known: `trust`, or `cert` of ours. */
async function postgres(way = "trust") {
  const version = readdirSync("/usr/lib/postgresql").sort((a, b) => a - b).at(-1);
  const bin = `/usr/lib/postgresql/${version}/bin`;
  const dir = mkdtempSync(join(tmpdir(), "medtech-pg-"));
  const port = await freePort();
  const { cert, key } = ours.issue("database", "localhost");
  const files = [cert, key, ours.ca].map((from, i) => (copyFileSync(from, join(dir, `server.${i}`)), join(dir, `server.${i}`)));
  const root = process.getuid() === 0;
  const number = (flag) => (root ? Number(execFileSync("id", [flag, "postgres"])) : undefined);
  files.forEach((file) => chmodSync(file, 0o600));
  if (root) [dir, ...files].forEach((path) => chownSync(path, number("-u"), number("-g")));
  const run = (name, ...args) => execFileSync(join(bin, name), args, { stdio: "ignore", cwd: dir, ...(root ? { uid: number("-u"), gid: number("-g") } : {}) });
  const data = join(dir, "data");
  run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "--locale=C", "-E", "UTF8");
  execFileSync("sh", ["-c", `echo 'hostssl all all 127.0.0.1/32 ${way}' > ${data}/pg_hba.conf`]);
  const options = `-p ${port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=${dir} -c fsync=off -c ssl=on -c ssl_cert_file=${files[0]} -c ssl_key_file=${files[1]} -c ssl_ca_file=${files[2]}`;
  run("pg_ctl", "-D", data, "-w", "-l", join(dir, "log"), "-o", options, "start");
  return {
    port,
    stop: () => {
      run("pg_ctl", "-D", data, "-m", "immediate", "stop");
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** `medtech migrate` against an address: its exit code and what it said. */
async function migrate(extra) {
  const dir = mkdtempSync(join(tmpdir(), "medtech-start-"));
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("MEDTECH_"));
  const child = spawn(binary, ["migrate"], { env: { ...Object.fromEntries(inherited), MEDTECH_DATA_DIR: dir, ...extra }, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (said += chunk));
  const code = await new Promise((resolve) => child.once("close", resolve));
  rmSync(dir, { recursive: true, force: true });
  return { code, said };
}

test("the database is reached by TLS whose certificate and name are checked", { timeout: 240_000 }, async () => {
  const db = await postgres();
  try {
    const url = (host, mode) => `postgres://postgres@${host}:${db.port}/postgres?sslmode=${mode}`;
    const wrong = await migrate({ MEDTECH_DATABASE_URL: url("localhost", "verify-full"), MEDTECH_DATABASE_ROOT_CERT: foreign.ca });
    assert.notEqual(wrong.code, 0);
    assert.match(wrong.said, /UnknownIssuer|certificate/i);
    const name = await migrate({ MEDTECH_DATABASE_URL: url("127.0.0.1", "verify-full"), MEDTECH_DATABASE_ROOT_CERT: ours.ca });
    assert.notEqual(name.code, 0, "a name that the certificate has not");
    const clear = await migrate({ MEDTECH_DATABASE_URL: url("localhost", "disable") });
    assert.notEqual(clear.code, 0, "the server itself takes TLS alone");
    const right = await migrate({ MEDTECH_DATABASE_URL: url("localhost", "verify-full"), MEDTECH_DATABASE_ROOT_CERT: ours.ca });
    assert.equal(right.code, 0, right.said);
  } finally {
    db.stop();
  }
});

test("to the database the server proves itself by a client certificate of its own, without any password", { timeout: 240_000 }, async () => {
  const db = await postgres("cert");
  try {
    const url = ({ cert, key } = {}) => `postgres://postgres@localhost:${db.port}/postgres?sslmode=verify-full${cert ? `&sslcert=${encodeURIComponent(cert)}&sslkey=${encodeURIComponent(key)}` : ""}`;
    const by = (pair) => migrate({ MEDTECH_DATABASE_URL: url(pair), MEDTECH_DATABASE_ROOT_CERT: ours.ca });
    for (const [what, pair] of [["none", undefined], ["of another authority", foreign.issueToClient("app", "postgres")], ["of another name", ours.issueToClient("other", "somebody")], ["of a server", ours.issue("web", "postgres")]]) {
      assert.notEqual((await by(pair)).code, 0, `a certificate ${what}`);
    }
    const right = await by(ours.issueToClient("app", "postgres"));
    assert.equal(right.code, 0, right.said);
  } finally {
    db.stop();
  }
});

/** As much of SMTP as a mail needs, with STARTTLS (RFC 3207); `clear` offers none. */
async function mailServer({ cert, key }, clear = false) {
  const mails = [];
  const context = createSecureContext({ cert: readFileSync(cert), key: readFileSync(key) });
  const talk = (socket, secured) => {
    let [data, text] = [false, ""];
    socket.on("error", () => {});
    const hear = (chunk) => {
      text += chunk;
      for (let end; (end = text.indexOf("\r\n")) >= 0; ) {
        const line = text.slice(0, end);
        text = text.slice(end + 2);
        if (data) {
          if (line === ".") (data = false), mails.push({ secured }), socket.write("250 taken\r\n");
        } else if (/^EHLO/i.test(line)) socket.write(secured || clear ? "250 here\r\n" : "250-here\r\n250 STARTTLS\r\n");
        else if (/^STARTTLS/i.test(line)) {
          socket.removeListener("data", hear);
          socket.write("220 go\r\n");
          const tls = new TLSSocket(socket, { isServer: true, secureContext: context });
          return talk(tls, true);
        } else if (/^DATA/i.test(line)) (data = true), socket.write("354 go on\r\n");
        else socket.write("250 ok\r\n");
      }
    };
    socket.on("data", hear);
  };
  const connections = { count: 0 };
  const server = createServer((socket) => (connections.count++, socket.write("220 mail\r\n"), talk(socket, false)));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { port: server.address().port, mails, connections, close: () => server.close() };
}

test("mails go out by STARTTLS to a server whose certificate is checked, and never in clear", { timeout: 240_000 }, async () => {
  const pair = ours.issue("mail", "localhost");
  for (const [ca, clear, arrives] of [[ours.ca, false, true], [foreign.ca, false, false], [ours.ca, true, false]]) {
    const mail = await mailServer(pair, clear);
    const server = await Server.start({ MEDTECH_MAIL_SMTP: `smtp://localhost:${mail.port}?tls=required`, MEDTECH_MAIL_ROOT_CERT: ca });
    try {
      const admin = await server.signIn("admin");
      const invited = await server.api(admin, "POST", "/api/identity/users", { name: "Ada Example", email: "ada@example.com", roles: ["clinician"] });
      assert.ok(invited.status < 300, JSON.stringify(invited.body));
      if (arrives) {
        await eventually("the mail", () => mail.mails.length > 0);
        assert.ok(mail.mails.every((m) => m.secured), "by TLS");
      } else {
        await eventually("the attempt, and another", () => mail.connections.count > 1, 60_000);
        assert.equal(mail.mails.length, 0, clear ? "nothing in clear" : "nothing to somebody else");
      }
    } finally {
      await server.stop();
      mail.close();
    }
  }
});
