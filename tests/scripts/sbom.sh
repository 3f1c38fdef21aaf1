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
python3 - "$to" <<'CHECK'
import json, re, sys, tomllib
to = sys.argv[1]
bom = json.load(open(f"{to}/medtech.cdx.json"))
listed = {(c["name"], c["version"]) for c in bom["components"]}
locked = {(p["name"], p["version"]): p for p in tomllib.load(open("Cargo.lock", "rb"))["package"]}
strange = [c for c in listed if c not in locked]
assert not strange, f"not in Cargo.lock: {strange}"
for name in ["tokio", "axum", "rustls", "aws-lc-rs", "sqlx", "rusqlite", "str0m"]:
    assert any(n == name for n, _ in listed), f"{name} is missing"
# Nothing from elsewhere than the registry, our own crates aside.
for (name, version), package in locked.items():
    assert package.get("source", "registry+").startswith("registry+"), f"{name} {version}: {package.get('source')}"
    assert "source" not in package or re.fullmatch("[0-9a-f]{64}", package.get("checksum", "")), f"{name} has no checksum"
client = json.load(open(f"{to}/web-client.cdx.json"))
packages = json.load(open("web-client/package-lock.json"))["packages"]
inside = {(p.get("name") or path.split("node_modules/")[-1], p["version"]) for path, p in packages.items() if path and not p.get("optional")}
got = {((c.get("group", "") + "/" if c.get("group") else "") + c["name"], c["version"]) for c in client["components"]}
missing = {c for c in inside if c not in got}
assert not missing, f"not in the web client's bill: {sorted(missing)[:5]}"
print(f"{len(listed)} crates, {len(got)} packages of the web client")
CHECK
