//! The real program on a free port, and requests to it over a plain socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a failed test panics; another process is polled"
)]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    pub(crate) log: PathBuf,
}

pub(crate) fn medtech(data: &Path, vars: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_medtech"));
    command
        .env("MEDTECH_DATA_DIR", data)
        .env("MEDTECH_MQTT_BIND", "127.0.0.1:0")
        .env("MEDTECH_MEDIA_BIND", "127.0.0.1")
        .env("MEDTECH_MEDIA_UDP_PORT", "0")
        .env("MEDTECH_MEDIA_THREADS", "1")
        .env("MEDTECH_MEDIA_ADVERTISE", "127.0.0.1")
        .envs(vars.iter().copied());
    command
}

impl Server {
    pub(crate) fn start(data: &Path, vars: &[(&str, &str)]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = data.join("server.log");
        std::fs::create_dir_all(data).unwrap();
        let out = || Stdio::from(std::fs::File::options().create(true).append(true).open(&log).unwrap());
        let child = medtech(data, vars)
            .env("MEDTECH_HTTP_BIND", format!("127.0.0.1:{port}"))
            .env("MEDTECH_LOG", "debug")
            .arg("serve")
            .stdout(out())
            .stderr(out())
            .spawn()
            .unwrap();
        Self { child, port, log }
    }

    /// Waits until the answer has this status: what the operator's probe would do.
    pub(crate) fn until(&mut self, path: &str, status: u16) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Ok(answer) = self.ask("GET", path, &[], b"")
                && answer.status == status
            {
                return answer;
            }
            let ended = self.child.try_wait().unwrap();
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{path} never was {status}: {ended:?}\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let extra: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{extra}\r\n"
        )?;
        stream.write_all(body)?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        let at = all
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .ok_or(std::io::ErrorKind::InvalidData)?;
        let head = String::from_utf8_lossy(&all[..at]).into_owned();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .ok_or(std::io::ErrorKind::InvalidData)?;
        let body = String::from_utf8_lossy(&all[at + 4..]).into_owned();
        Ok(Answer { status, head, body })
    }

    /// As an operator stops it; returns when it has ended.
    pub(crate) fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}
