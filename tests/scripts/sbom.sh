#!/usr/bin/env bash
# Bills of materials of what is shipped, as CycloneDX JSON from both lock files: sbom.sh DIRECTORY
# The crates of the binary `medtech`, and the packages that the web client is made of and built with.
set -euo pipefail
cd "$(dirname "$0")/../.."
to=$(realpath -m "${1:-target/sbom}")
mkdir -p "$to"
command -v cargo-cyclonedx >/dev/null || cargo install --locked --debug --quiet cargo-cyclonedx@0.5.9
# The tool writes beside each manifest: taken from there.
trap 'find . -name medtech-sbom.json -not -path "*/node_modules/*" -not -path "./target/*" -delete' EXIT
cargo cyclonedx --quiet --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu \
  --manifest-path server/Cargo.toml --override-filename medtech-sbom
mv server/medtech-sbom.json "$to/medtech.cdx.json"
(cd web-client && npm sbom --sbom-format cyclonedx --sbom-type application --package-lock-only) >"$to/web-client.cdx.json"
node --input-type=module - "$to" <<'CHECK'
import { readFileSync } from 'node:fs';
import assert from 'node:assert';
const to = process.argv[2];
const json = (path) => JSON.parse(readFileSync(path, 'utf8'));
const key = (name, version) => `${name} ${version}`;
const listed = new Set(json(`${to}/medtech.cdx.json`).components.map((c) => key(c.name, c.version)));
// Cargo.lock: tables of one-line values, and lists that are of no interest here.
const locked = new Map();
for (const table of readFileSync('Cargo.lock', 'utf8').split('[[package]]').slice(1)) {
  const value = (name) => table.match(new RegExp(`^${name} = "(.*)"$`, 'm'))?.[1];
  locked.set(key(value('name'), value('version')), { source: value('source'), checksum: value('checksum') });
}
assert.deepEqual([...listed].filter((c) => !locked.has(c)), [], 'not in Cargo.lock');
for (const name of ['tokio', 'axum', 'rustls', 'aws-lc-rs', 'sqlx', 'rusqlite', 'str0m']) {
  assert([...listed].some((c) => c.startsWith(`${name} `)), `${name} is missing`);
}
// Nothing from elsewhere than the registry, our own crates aside.
for (const [name, { source, checksum }] of locked) {
  assert((source ?? 'registry+').startsWith('registry+'), `${name}: ${source}`);
  assert(source === undefined || /^[0-9a-f]{64}$/.test(checksum ?? ''), `${name} has no checksum`);
}
const client = json(`${to}/web-client.cdx.json`);
const got = new Set(client.components.map((c) => key(c.group ? `${c.group}/${c.name}` : c.name, c.version)));
const inside = Object.entries(json('web-client/package-lock.json').packages).filter(([path, p]) => path !== '' && !p.optional);
const missing = inside.map(([path, p]) => key(p.name ?? path.split('node_modules/').at(-1), p.version)).filter((c) => !got.has(c));
assert.deepEqual(missing, [], "not in the web client's bill");
console.log(`${listed.size} crates, ${got.size} packages of the web client`);
CHECK
