// Starts the real server on free ports with a data directory of its own, and stops what it started.
import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort } from "./ports.mjs";
import { database } from "./postgres.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "../../..");
export const binary = process.env.E2E_SERVER ?? join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "debug/medtech");

/** One installation: its directory and ports stay the same over restarts. */
export class Server {
  static async start(extra = {}) {
    const server = new Server();
    server.dir = await mkdtemp(join(tmpdir(), "medtech-e2e-"));
    const [http, mqtt, udp] = [await freePort(), await freePort(), await freePort()];
    server.mqttPort = mqtt;
    server.url = `http://localhost:${http}`;
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("MEDTECH_"));
    server.env = {
      ...Object.fromEntries(inherited),
      MEDTECH_DATA_DIR: server.dir,
      MEDTECH_DEMO: "true",
      MEDTECH_HTTP_BIND: `127.0.0.1:${http}`,
      MEDTECH_MQTT_BIND: `127.0.0.1:${mqtt}`,
      MEDTECH_MEDIA_BIND: "127.0.0.1",
      MEDTECH_MEDIA_UDP_PORT: String(udp),
      MEDTECH_MEDIA_THREADS: "1",
      MEDTECH_MEDIA_ADVERTISE: "127.0.0.1",
      // Any specification can be run on PostgreSQL: E2E_ENGINE=postgres.
      ...(process.env.E2E_ENGINE === "postgres" ? await database() : {}),
      ...extra,
    };
    await server.launch();
    return server;
  }

  /** Starts the process; resolves when it says that it is ready. `addresses` holds what it printed. */
  async launch() {
    this.addresses = {};
    this.log = "";
    this.process = spawn(binary, ["serve"], { env: this.env, stdio: ["ignore", "pipe", "pipe"] });
    this.gone = new Promise((resolve) => this.process.once("exit", resolve).once("error", resolve));
    this.process.stderr.on("data", (chunk) => (this.log = (this.log + chunk).slice(-(this.logLimit ?? 200_000))));
    await new Promise((resolve, reject) => {
      let printed = "";
      this.process.stdout.on("data", (chunk) => {
        printed += chunk;
        for (const [, who, address] of printed.matchAll(/^ {2}(\w+) +(\S+)$/gm)) this.addresses[who] = address;
        if (/ready at/.test(printed) && this.addresses.devices) resolve();
      });
      this.gone.then((code) => reject(new Error(`the server ended with ${code}\n${this.log}`)));
    });
  }

  /** Like a power cut: no chance to finish anything. */
  async kill() {
    this.process.kill("SIGKILL");
    await this.gone;
  }

  async restart() {
    await this.kill();
    await this.launch();
  }

  /** Starts again with a wall clock that is this much ahead, in libfaketime's words (`+3d`); timers run as ever. */
  async later(ahead) {
    await this.kill();
    const library = readdirSync("/usr/lib").map((arch) => `/usr/lib/${arch}/faketime/libfaketime.so.1`).find(existsSync);
    Object.assign(this.env, { LD_PRELOAD: library, FAKETIME: ahead, FAKETIME_DONT_FAKE_MONOTONIC: "1" });
    await this.launch();
  }

  async stop() {
    if (this.process.exitCode === null) {
      this.process.kill("SIGTERM");
      await this.gone;
    }
    await rm(this.dir, { recursive: true, force: true });
  }

  /** What a subcommand prints, last line. */
  async run(...args) {
    const child = spawn(binary, args, { env: this.env, stdio: ["ignore", "pipe", "pipe"] });
    let [out, err] = ["", ""];
    child.stdout.on("data", (chunk) => (out += chunk));
    child.stderr.on("data", (chunk) => (err += chunk));
    const code = await new Promise((resolve) => child.once("exit", resolve));
    if (code !== 0) throw new Error(`medtech ${args.join(" ")} ended with ${code}: ${err}`);
    return out.trim().split("\n").at(-1);
  }

  /** A request with a token; answers { status, body }. */
  async api(token, method, path, body, headers = {}) {
    const response = await fetch(this.url + path, {
      method,
      headers: {
        ...(token ? { authorization: `Bearer ${token}` } : {}),
        ...(body === undefined ? {} : { "content-type": path.startsWith("/fhir") ? "application/fhir+json" : "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    return { status: response.status, headers: response.headers, body: text ? JSON.parse(text) : null };
  }

  /** Exchanges a printed sign-in address for an access token. */
  async signIn(who) {
    const link = this.addresses[who].split("#")[1];
    const { status, body } = await this.api(null, "POST", "/api/identity/links/exchange", { link });
    if (status !== 200) throw new Error(`sign-in of ${who}: ${status} ${JSON.stringify(body)}`);
    return body.access_token;
  }
}

/** Waits until `probe` answers something true; fails with `what` after half a minute. */
export async function eventually(what, probe, patience = 30_000) {
  const end = Date.now() + patience;
  let last;
  for (;;) {
    try {
      last = await probe();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`${what}: ${last instanceof Error ? last.message : JSON.stringify(last)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
