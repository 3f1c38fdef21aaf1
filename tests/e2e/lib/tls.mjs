// An authority of the test's own, made by openssl, and certificates of it.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const openssl = (...args) => execFileSync("openssl", args, { stdio: ["ignore", "pipe", "pipe"] });

/** Files `ca` and, for each name, `{name}.crt` and `{name}.key` by `issue(name, ...names)`; `issueToClient` the same for who calls. */
export function authority(title = "Authority of the test", days = 1) {
  const dir = mkdtempSync(join(tmpdir(), "medtech-ca-"));
  const at = (file) => join(dir, file);
  openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", String(days + 1), "-subj", `/CN=${title}`, "-keyout", at("ca.key"), "-out", at("ca.pem"));
  const issueFor = (usage) => (stem, ...names) => {
    const [cert, key, request, extensions] = ["crt", "key", "csr", "ext"].map((end) => at(`${stem}.${end}`));
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", `/CN=${names[0]}`, "-keyout", key, "-out", request);
    const all = names.map((n) => `${/^[\d.]+$/.test(n) ? "IP" : "DNS"}:${n}`).join(",");
    writeFileSync(extensions, `subjectAltName=${all}\nextendedKeyUsage=${usage}\nbasicConstraints=CA:FALSE\n`);
    openssl("x509", "-req", "-in", request, "-CA", at("ca.pem"), "-CAkey", at("ca.key"), "-CAcreateserial", "-days", String(days), "-extfile", extensions, "-out", cert);
    return { cert, key };
  };
  return { dir, ca: at("ca.pem"), pem: () => readFileSync(at("ca.pem"), "utf8"), issue: issueFor("serverAuth"), issueToClient: issueFor("clientAuth") };
}

/** SHA-256 of a certificate's key, as Chromium's list of pardoned keys wants it. */
export function spki(cert) {
  const key = openssl("x509", "-in", cert, "-pubkey", "-noout");
  const der = execFileSync("openssl", ["pkey", "-pubin", "-outform", "der"], { input: key });
  return execFileSync("openssl", ["dgst", "-sha256", "-binary"], { input: der }).toString("base64");
}
