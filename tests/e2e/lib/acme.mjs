// Pebble, the ACME server that is made for tests (Debian: pebble), and a name server by which it finds names: all lead
// here but those that begin with "elsewhere".
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { accessSync, constants, writeFileSync } from "node:fs";
import { get } from "node:https";
import { createServer } from "node:net";
import { delimiter, join } from "node:path";
import { freePort } from "./ports.mjs";
import { eventually } from "./server.mjs";
import { authority } from "./tls.mjs";

/** Where it is: in PEERS_DIR or on the path; undefined where it is not. */
const pebble = [process.env.PEERS_DIR, ...(process.env.PATH ?? "").split(delimiter)].filter(Boolean).map((dir) => join(dir, "pebble")).find((path) => {
  try {
    return accessSync(path, constants.X_OK) ?? true;
  } catch {
    return false;
  }
});

/** A (type 1) with an address of this machine; every other type has no records. */
function answered(query) {
  let end = 12;
  const labels = [];
  while (query[end]) labels.push(query.toString("latin1", end + 1, (end += query[end] + 1)));
  const question = query.subarray(12, end + 5);
  const head = Buffer.from(query.subarray(0, 12));
  head.writeUInt16BE(0x8180, 2);
  const isA = query.readUInt16BE(end + 1) === 1;
  for (const [at, count] of [[4, 1], [6, isA ? 1 : 0], [8, 0], [10, 0]]) head.writeUInt16BE(count, at);
  const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, labels[0].startsWith("elsewhere") ? 9 : 1]);
  return Buffer.concat([head, question, ...(isA ? [record] : [])]);
}

/** Runs; `null` where there is no Pebble. It looks at these ports instead of 443 and 80. */
export async function authorityByAcme(tlsPort, httpPort) {
  if (!pebble) return null;
  const names = createSocket("udp4");
  names.on("message", (query, from) => names.send(answered(query), from.port, from.address));
  await new Promise((resolve) => names.bind(0, "127.0.0.1", resolve));
  // The same by TCP (RFC 1035, 4.2.2), which some of its versions ask by.
  const byTcp = createServer((socket) => {
    let got = Buffer.alloc(0);
    socket.on("error", () => {}).on("data", (chunk) => {
      got = Buffer.concat([got, chunk]);
      while (got.length > 2 && got.length >= 2 + got.readUInt16BE(0)) {
        const answer = answered(got.subarray(2, 2 + got.readUInt16BE(0)));
        got = got.subarray(2 + got.readUInt16BE(0));
        socket.write(Buffer.concat([Buffer.from([answer.length >> 8, answer.length & 255]), answer]));
      }
    });
  });
  await new Promise((resolve) => byTcp.listen(names.address().port, "127.0.0.1", resolve));
  const ours = authority("Authority of Pebble's own door", 365);
  const { cert, key } = ours.issue("pebble", "localhost", "127.0.0.1");
  const [port, management] = [await freePort(), await freePort()];
  const days = 90 * 86_400;
  const config = join(ours.dir, "pebble.json");
  writeFileSync(config, JSON.stringify({ pebble: {
    listenAddress: `127.0.0.1:${port}`, managementListenAddress: `127.0.0.1:${management}`, certificate: cert, privateKey: key, httpPort, tlsPort,
    ocspResponderURL: "", externalAccountBindingRequired: false, retryAfter: { authz: 1, order: 1 }, certificateValidityPeriod: days, profiles: { default: { description: "ninety days", validityPeriod: days } },
  } }));
  // Bad nonces as often as it likes: they are a part of the protocol. Proofs are looked at with little delay.
  const child = spawn(pebble, ["-config", config, "-dnsserver", `127.0.0.1:${names.address().port}`], { env: { ...process.env, PEBBLE_VA_SLEEPTIME: "1", PEBBLE_AUTHZREUSE: "0" }, stdio: ["ignore", "pipe", "pipe"] });
  const told = { log: "" };
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (told.log += chunk));
  const fetched = (address) => new Promise((resolve, reject) => {
    get(address, { ca: ours.pem() }, (answer) => {
      let text = "";
      answer.on("data", (chunk) => (text += chunk)).on("end", () => resolve(text));
    }).on("error", reject);
  });
  const root = await eventually("Pebble", () => fetched(`https://localhost:${management}/roots/0`)).catch((e) => { throw new Error(`${e.message}\n${told.log}`); });
  return {
    root,
    env: { MEDTECH_TLS_ACME_DIRECTORY: `https://localhost:${port}/dir`, MEDTECH_TLS_ACME_ROOT_CERT: ours.ca, MEDTECH_TLS_ACME_CONTACT: "operator@clinic.example" },
    get log() { return told.log; },
    stop: async () => {
      names.close();
      byTcp.close();
      if (child.exitCode === null) {
        child.kill();
        await new Promise((resolve) => child.once("exit", resolve));
      }
    },
  };
}
