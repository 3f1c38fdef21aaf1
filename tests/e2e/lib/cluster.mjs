// A PostgreSQL of a test's own, which can be stopped and started while a server stands on it.
import { execFileSync, spawn } from "node:child_process";
import { chownSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./ports.mjs";
import { sql } from "./postgres.mjs";

const versions = () => {
  try {
    return readdirSync("/usr/lib/postgresql").sort((a, b) => b - a);
  } catch {
    return [];
  }
};

/** `null` where PostgreSQL is not installed. */
export async function cluster() {
  const [version] = versions();
  if (!version) return null;
  const bin = `/usr/lib/postgresql/${version}/bin`;
  const dir = mkdtempSync(join(tmpdir(), "medtech-pg-"));
  // PostgreSQL refuses to run as root.
  const root = process.getuid() === 0;
  if (root) {
    const [uid, gid] = ["-u", "-g"].map((flag) => Number(execFileSync("id", [flag, "postgres"])));
    chownSync(dir, uid, gid);
  }
  const run = (program, ...args) => {
    const own = root ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", join(bin, program), ...args] : [join(bin, program), ...args];
    // Not waited for by the whole process: what a test has under way goes on meanwhile.
    return new Promise((resolve, reject) => {
      const child = spawn(own[0], own.slice(1), { cwd: dir, stdio: "ignore" });
      child.once("error", reject).once("exit", (code) => (code === 0 ? resolve() : reject(new Error(`${program} ended with ${code}`))));
    });
  };
  const port = await freePort();
  await run("initdb", "-D", `${dir}/data`, "-U", "postgres", "-A", "trust", "--locale=C", "-E", "UTF8");
  const start = () => run("pg_ctl", "-D", `${dir}/data`, "-w", "-l", `${dir}/log`, "-o", `-p ${port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=${dir}`, "start");
  const stop = (mode = "fast") => run("pg_ctl", "-D", `${dir}/data`, "-w", "-m", mode, "stop");
  await start();
  const owner = `postgres://postgres@127.0.0.1:${port}/postgres`;
  await sql(owner, "CREATE ROLE app LOGIN PASSWORD 'app' NOSUPERUSER NOBYPASSRLS");
  return {
    start, stop,
    env: { MEDTECH_DATABASE_URL: `postgres://app:app@127.0.0.1:${port}/postgres`, MEDTECH_DATABASE_OWNER_URL: owner },
    remove: async () => {
      // It may stand still already.
      await stop("immediate").catch(() => {});
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
