//! The unmodified `tus-js-client` against a real server that is killed in the middle of an upload.
//!
//! Needs Node and `npm ci` in `tests/e2e`; without the installed client the test says so and passes over.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

struct Server {
    child: Child,
    address: String,
    token: String,
    conversation: String,
}

impl Server {
    fn start(data: &Path, port: u16) -> Self {
        // Examples are built with the tests and lie beside them.
        let here = std::env::current_exe().unwrap();
        let program = here.parent().and_then(Path::parent).unwrap().join("examples/files");
        let mut child = Command::new(program)
            .args([data.as_os_str(), port.to_string().as_ref()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut next = || lines.next().unwrap();
        Self {
            address: next(),
            token: next(),
            conversation: next(),
            child,
        }
    }

    /// SIGKILL: no chance to tidy up.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn upload(&self, clients: &Path, file: &Path, urls: &Path, abort_after: Option<u64>) -> serde_json::Value {
        let mut node = Command::new("node");
        node.arg(clients.join("tus.mjs"))
            .args([
                &format!("http://{}/files", self.address),
                &self.token,
                &self.conversation,
            ])
            .args([file, urls]);
        if let Some(bytes) = abort_after {
            node.arg(bytes.to_string());
        }
        let out = node.output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success(), "{text} {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_aborted_upload_resumes_after_the_server_was_killed() {
    let clients = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/clients");
    if !clients.join("../e2e/node_modules/tus-js-client").exists() {
        eprintln!("skipped: the client is not installed (npm ci in tests/e2e)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (data, file, urls) = (
        dir.path().join("data"),
        dir.path().join("source"),
        dir.path().join("urls.json"),
    );
    std::fs::create_dir(&data).unwrap();
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(&file, &content).unwrap();

    let server = Server::start(&data, 0);
    let first = server.upload(&clients, &file, &urls, Some(1_000_000));
    let reached = first["aborted"].as_u64().unwrap();
    assert!((1_000_000..3_000_000).contains(&reached), "{first}");
    let port: u16 = server.address.rsplit_once(':').unwrap().1.parse().unwrap();
    server.kill();

    let server = Server::start(&data, port);
    let second = server.upload(&clients, &file, &urls, None);
    let sent: Vec<&str> = second["sent"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|s| s.as_str())
        .collect();
    // It asked where the upload stands, was told at least what had been acknowledged, and made no new one.
    let resumed: u64 = sent
        .first()
        .and_then(|s| s.strip_prefix("HEAD 200 "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        resumed >= reached && sent.iter().all(|s| !s.starts_with("POST")),
        "{sent:?}"
    );
    assert_eq!(sent.last(), Some(&"PATCH 204 3000000"));

    let id = second["url"].as_str().unwrap().rsplit_once('/').unwrap().1;
    let object = std::fs::read(data.join("files/tenant-1/object").join(id)).unwrap();
    assert!(object == content, "the stored bytes differ");
    assert_eq!(
        std::fs::read_dir(data.join("files/tenant-1/partial")).unwrap().count(),
        0
    );
}
