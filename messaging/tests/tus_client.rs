//! A real server that is killed in the middle of uploads: by raw requests, and by the unmodified `tus-js-client`.
//!
//! The second needs Node and `npm ci` in `tests/e2e`; without the installed client it says so and passes over.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
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

    /// Sends the head of a request and as much of its body as is given; the connection stays open.
    fn begin(&self, method: &str, path: &str, headers: &[(&str, String)], body: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nConnection: close\r\n");
        head.push_str(&format!("Authorization: Bearer {}\r\n", self.token));
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        socket.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        socket.write_all(body).unwrap();
        socket
    }

    /// A whole request: the status and the value of one header.
    fn ask(&self, method: &str, path: &str, headers: &[(&str, String)], body: &[u8], wanted: &str) -> (u16, String) {
        let mut all = headers.to_vec();
        all.push(("Content-Length", body.len().to_string()));
        let mut answer = Vec::new();
        self.begin(method, path, &all, body).read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let value = answer.lines().find_map(|l| {
            let (name, value) = l.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        });
        (status, value.unwrap_or_default())
    }

    /// Is what members read these bytes, and what lies on the disk none of them?
    fn holds(&self, path: &str, object: &Path, content: &[u8]) {
        let mut answer = Vec::new();
        self.begin("GET", path, &[], b"").read_to_end(&mut answer).unwrap();
        let body = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        assert!(&answer[body..] == content, "the stored bytes differ");
        let stored = std::fs::read(object).unwrap();
        for at in (0..content.len() - 16).step_by(50_000) {
            let piece = &content[at..at + 16];
            assert!(!stored.windows(16).any(|w| w == piece), "bytes lie in clear");
        }
    }

    fn create(&self, length: usize) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let metadata = format!(
            "filename {},conversation {}",
            STANDARD.encode("a.bin"),
            STANDARD.encode(&self.conversation)
        );
        let headers = [("Upload-Length", length.to_string()), ("Upload-Metadata", metadata)];
        let (status, location) = self.ask("POST", "/files", &headers, b"", "location");
        assert_eq!(status, 201);
        location
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

fn append_headers(offset: usize) -> Vec<(&'static str, String)> {
    vec![
        ("Content-Type", "application/offset+octet-stream".to_owned()),
        ("Upload-Offset", offset.to_string()),
    ]
}

/// Waits until the server has begun to write: the file grows past `len`.
fn until_longer(file: &Path, len: u64) {
    while std::fs::metadata(file).map_or(0, |m| m.len()) <= len {
        std::thread::yield_now();
    }
}

#[test]
fn a_kill_inside_a_request_keeps_what_is_on_disk_and_nothing_unverified() {
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..2_000_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (acknowledged, cut) = (300_000, 1_500_000);
    let mut server = Server::start(dir.path(), 0);
    for checksum in [false, true] {
        let path = server.create(content.len());
        let part = dir.path().join(format!(
            "files/tenant-1/partial/{}.part",
            path.rsplit_once('/').unwrap().1
        ));
        let (status, offset) = server.ask(
            "PATCH",
            &path,
            &append_headers(0),
            &content[..acknowledged],
            "upload-offset",
        );
        assert_eq!((status, offset.as_str()), (204, "300000"));

        let mut headers = append_headers(acknowledged);
        headers.push(("Content-Length", (content.len() - acknowledged).to_string()));
        if checksum {
            headers.push(("Upload-Checksum", "sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=".to_owned()));
        }
        let open = server.begin("PATCH", &path, &headers, &content[acknowledged..cut]);
        until_longer(&part, acknowledged as u64);
        server.kill();
        drop(open);

        server = Server::start(dir.path(), 0);
        let (status, offset) = server.ask("HEAD", &path, &[], b"", "upload-offset");
        let offset: usize = offset.parse().unwrap();
        assert_eq!(status, 200);
        if checksum {
            assert_eq!(offset, acknowledged, "unverified bytes were kept");
        } else {
            assert!(offset > acknowledged && offset <= cut, "{offset}");
        }
        let (status, end) = server.ask(
            "PATCH",
            &path,
            &append_headers(offset),
            &content[offset..],
            "upload-offset",
        );
        assert_eq!((status, end.as_str()), (204, "2000000"));
        let object = dir
            .path()
            .join(format!("files/tenant-1/object/{}", path.rsplit_once('/').unwrap().1));
        server.holds(&path, &object, &content);
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
    let object = data.join("files/tenant-1/object").join(id);
    server.holds(&format!("/files/{id}"), &object, &content);
    assert_eq!(
        std::fs::read_dir(data.join("files/tenant-1/partial")).unwrap().count(),
        0
    );
}
