//! The real program without its root key.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a failed test panics; another process is polled"
)]

use crate::common::{Server, medtech};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn put(path: &std::path::Path, bytes: &[u8], mode: u32) {
    // Never wider than it is meant to be, not even for a moment.
    let next = path.with_extension("put");
    let _ = std::fs::remove_file(&next);
    let mut options = std::fs::File::options();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), mode);
    std::io::Write::write_all(&mut options.open(&next).unwrap(), bytes).unwrap();
    std::fs::rename(next, path).unwrap();
}

#[test]
fn without_its_key_file_the_server_says_so_and_serves_nothing_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("secrets/root.key");
    let mut server = Server::start(dir.path(), &[]);
    server.until("/readyz", 200);
    assert_eq!(
        server
            .ask("POST", "/api/operations/unseal", JSON, b"{}")
            .unwrap()
            .status,
        409
    );
    server.stop();
    let bytes = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();

    let mut server = Server::start(dir.path(), &[]);
    let ready = server.until("/readyz", 503);
    assert!(
        ready.body.contains("\"sealed\":true") && ready.body.contains("root.key"),
        "{}",
        ready.body
    );
    assert_eq!(server.until("/healthz", 200).body, "ok\n");
    for path in [
        "/fhir/R4/Patient",
        "/api/identity/me",
        "/metrics",
        "/files",
        "/connection/websocket",
    ] {
        let answer = server.ask("GET", path, &[], b"").unwrap();
        assert!(
            answer.status == 503 && answer.body.contains("\"vault.sealed\""),
            "{path}: {answer:?}"
        );
        assert!(answer.head.to_lowercase().contains("retry-after"));
    }
    assert!(
        server
            .ask("GET", "/", &[], b"")
            .unwrap()
            .body
            .contains("<h1>MedTech is sealed</h1>")
    );
    assert!(!key.exists(), "no second root key is made beside data");
    assert!(
        std::fs::read_to_string(&server.log)
            .unwrap()
            .contains("MedTech is sealed: The root key file")
    );
    let doctor = medtech(dir.path(), &[]).arg("doctor").output().unwrap();
    assert!(
        String::from_utf8_lossy(&doctor.stdout).contains("WRONG  vault: sealed"),
        "{doctor:?}"
    );
    // Another key is not its key.
    put(&key, &[1; 32], 0o600);
    assert_eq!(server.until("/readyz", 503).status, 503);
    // Nor is the right one, where others may read it.
    put(&key, &bytes, 0o640);
    let told = |server: &mut Server| server.until("/readyz", 503).body.contains("chmod 600");
    while !told(&mut server) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    put(&key, &bytes, 0o600);
    server.until("/readyz", 200);
    server.stop();
}

#[test]
fn the_passphrase_opens_it_and_a_wrong_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let vars = [("MEDTECH_VAULT_ROOT", "passphrase")];
    let unseal = |server: &Server, word: &str| {
        let body = format!("{{\"passphrase\":\"{word}\"}}");
        server
            .ask("POST", "/api/operations/unseal", JSON, body.as_bytes())
            .unwrap()
    };
    let mut server = Server::start(dir.path(), &vars);
    server.until("/readyz", 503);
    let short = unseal(&server, "short");
    assert!(
        short.status == 422 && short.body.contains("vault.passphrase_short"),
        "{short:?}"
    );
    // The next guess has to wait for a while; it is not lost.
    let mut first = unseal(&server, "correct horse battery");
    while first.status == 429 {
        std::thread::sleep(std::time::Duration::from_millis(200));
        first = unseal(&server, "correct horse battery");
    }
    assert_eq!(first.status, 200, "{first:?}");
    server.until("/readyz", 200);
    server.stop();
    assert!(!dir.path().join("secrets/root.key").exists());

    let mut server = Server::start(dir.path(), &vars);
    server.until("/readyz", 503);
    let wrong = unseal(&server, "correct horse batterz");
    assert!(
        wrong.status == 403 && wrong.body.contains("vault.wrong_passphrase"),
        "{wrong:?}"
    );
    assert_eq!(unseal(&server, "correct horse battery").status, 429);
    // A file that appears is as good.
    server.stop();
    let word = dir.path().join("word");
    let named = [vars[0], ("MEDTECH_VAULT_PASSPHRASE_FILE", word.to_str().unwrap())];
    let mut server = Server::start(dir.path(), &named);
    server.until("/readyz", 503);
    put(&word, b"correct horse battery\n", 0o600);
    server.until("/readyz", 200);
    server.stop();
    for file in ["server.log", "secrets/vault.json"] {
        let text = std::fs::read_to_string(dir.path().join(file)).unwrap();
        assert!(!text.contains("horse"), "{file}");
    }
}
