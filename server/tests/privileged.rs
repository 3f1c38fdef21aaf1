//! The real program with a database role that row security does not bind. Needs `MEDTECH_TEST_PG`, the owner's address.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a failed test panics; another process is polled"
)]

use crate::common::{Server, medtech};
use std::{
    os::unix::fs::PermissionsExt,
    process::Stdio,
    time::{Duration, Instant},
};

#[test]
fn serve_refuses_a_role_that_sees_every_clinic_unless_told_otherwise() {
    let Ok(url) = std::env::var("MEDTECH_TEST_PG") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    // The address holds a password in earnest: from a file that nobody else reads.
    let file = dir.path().join("database-url");
    std::fs::write(&file, format!("{url}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let vars = [("MEDTECH_DATABASE_URL_FILE", file.to_str().unwrap())];
    let mut child = medtech(dir.path(), &vars)
        .env("MEDTECH_HTTP_BIND", "127.0.0.1:0")
        .arg("serve")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it serves");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && said.contains("NOBYPASSRLS"), "{said}");
    assert!(!said.contains(&url), "the address is told to nobody");

    let doctor = medtech(dir.path(), &vars).arg("doctor").output().unwrap();
    assert!(
        String::from_utf8_lossy(&doctor.stdout).contains("BYPASSED"),
        "{doctor:?}"
    );

    let allowed = [vars[0], ("MEDTECH_DATABASE_ALLOW_PRIVILEGED_ROLE", "true")];
    let mut server = Server::start(dir.path(), &allowed);
    server.until("/readyz", 200);
    server.stop();
}
