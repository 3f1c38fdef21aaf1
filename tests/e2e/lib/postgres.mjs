// A database of its own on the PostgreSQL of MEDTECH_TEST_PG, and in it a role that is neither owner nor above row security.
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";

export const postgres = process.env.MEDTECH_TEST_PG;

/** What `psql` prints for a statement: rows of columns. */
export async function sql(url, ...statements) {
  const child = spawn("psql", ["--no-psqlrc", "-qAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", ...statements.flatMap((s) => ["-c", s]), url], { stdio: ["ignore", "pipe", "pipe"] });
  let [out, err] = ["", ""];
  child.stdout.on("data", (chunk) => (out += chunk));
  child.stderr.on("data", (chunk) => (err += chunk));
  const code = await new Promise((resolve, reject) => child.once("close", resolve).once("error", reject));
  if (code !== 0) throw new Error(err);
  return out.trim() ? out.trim().split("\n").map((line) => line.split("\t")) : [];
}

/** The environment of a server on a new database; `MEDTECH_DATABASE_URL` is the application's role. */
export async function database() {
  const name = "t" + randomBytes(8).toString("hex");
  const owner = postgres.replace(/\/[^/]*$/, "/" + name);
  const role = new URL(owner);
  [role.username, role.password] = [name, name];
  await sql(
    postgres,
    `CREATE DATABASE ${name} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'`,
    `CREATE ROLE ${name} LOGIN PASSWORD '${name}' NOSUPERUSER NOBYPASSRLS`,
  );
  return { MEDTECH_DATABASE_URL: role.href, MEDTECH_DATABASE_OWNER_URL: owner };
}
