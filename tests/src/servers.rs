//! The servers that are measured: ours, and a LiveKit server where one is installed. Each on free loopback ports with a
//! directory of its own.

use crate::http::Client;
use crate::process::{Process, command, free_port, free_udp_port};
use crate::{Context, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A server that forwards media.
pub enum MediaServer<'a> {
    Ours(&'a Medtech),
    LiveKit(&'a LiveKit),
}

impl MediaServer<'_> {
    pub fn process(&self) -> &Process {
        match self {
            Self::Ours(server) => &server.process,
            Self::LiveKit(server) => &server.process,
        }
    }

    pub fn address(&self) -> String {
        let port = match self {
            Self::Ours(server) => server.port,
            Self::LiveKit(server) => server.port,
        };
        format!("ws://localhost:{port}")
    }

    /// A token to join `room` with all rights.
    pub async fn token(&self, room: &str, identity: &str) -> Result<String> {
        match self {
            Self::Ours(server) => server.command(&["token", "--room", room, "--identity", identity]).await,
            Self::LiveKit(_) => LiveKit::token(room, identity),
        }
    }
}

/// Our server on a data directory that outlives restarts.
pub struct Medtech {
    pub process: Process,
    pub port: u16,
    installation: Installation,
}

/// Where our server runs: program, directory and ports.
pub struct Installation {
    program: PathBuf,
    env: Vec<(String, String)>,
    port: u16,
    _directory: TempDir,
}

impl Installation {
    pub fn new(program: &Path) -> Result<Self> {
        let directory = TempDir::with_prefix("medtech-bench-").context("a directory")?;
        let port = free_port()?;
        let env = [
            ("MEDTECH_DATA_DIR", directory.path().display().to_string()),
            ("MEDTECH_DEMO", "true".into()),
            // What is measured is the work, not the door that would refuse it.
            ("MEDTECH_LIMITS_SESSION_PER_SECOND", "0".into()),
            ("MEDTECH_LIMITS_NETWORK_PER_SECOND", "0".into()),
            ("MEDTECH_HTTP_BIND", format!("127.0.0.1:{port}")),
            ("MEDTECH_MQTT_BIND", format!("127.0.0.1:{}", free_port()?)),
            ("MEDTECH_MEDIA_BIND", "127.0.0.1".into()),
            ("MEDTECH_MEDIA_UDP_PORT", free_udp_port()?.to_string()),
            ("MEDTECH_MEDIA_THREADS", "1".into()),
            ("MEDTECH_MEDIA_ADVERTISE", "127.0.0.1".into()),
        ];
        let env = env.map(|(key, value)| (key.to_owned(), value)).to_vec();
        Ok(Self {
            program: program.to_owned(),
            env,
            port,
            _directory: directory,
        })
    }

    /// Starts the server; also tells how long it took until it said that it is ready.
    pub async fn start(self) -> Result<(Medtech, Duration)> {
        let began = Instant::now();
        let mut process = Process::start(&self.program, &["serve"], &self.env)?;
        ready(&mut process, self.port, "/readyz", began).await?;
        let took = began.elapsed();
        Ok((
            Medtech {
                process,
                port: self.port,
                installation: self,
            },
            took,
        ))
    }
}

impl Medtech {
    /// Ends the server; the data stays.
    pub async fn stop(self) -> Installation {
        self.process.stop().await;
        self.installation
    }

    /// The last line of what a subcommand prints.
    pub async fn command(&self, args: &[&str]) -> Result<String> {
        let mut command = command(&self.installation.program, args, &self.installation.env);
        let what = format!("medtech {}", args.join(" "));
        let output = tokio::task::spawn_blocking(move || command.output())
            .await?
            .context(&what)?;
        if !output.status.success() {
            return Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().lines().last().map(str::to_owned).context(what)
    }

    /// A connection with the access token of the demo clinic's user of this role.
    pub async fn client(&self, role: &str) -> Result<Client> {
        Client::connect(self.port, Some(&self.user_token(role).await?)).await
    }

    pub async fn user_token(&self, role: &str) -> Result<String> {
        self.command(&["token", "--user", role]).await
    }

    /// The secret part of an address that the server printed for `who`.
    pub fn printed_link(&self, who: &str) -> Result<String> {
        let lines = self.process.log();
        let line = lines
            .iter()
            .find(|line| line.strip_prefix("  ").is_some_and(|l| l.starts_with(who)));
        line.and_then(|l| Some(l.split_once('#')?.1.trim().to_owned()))
            .context(format!("no address printed for {who}"))
    }
}

/// An unmodified LiveKit server.
pub struct LiveKit {
    pub process: Process,
    pub port: u16,
    _directory: TempDir,
}

const LIVEKIT_KEY: &str = "bench";
const LIVEKIT_SECRET: &str = "only-for-a-bench-on-the-loopback-interface";

impl LiveKit {
    /// The program in `PEERS_DIR` (there also under the name that `go install` gives it), or in `PATH`.
    pub fn find() -> Option<PathBuf> {
        let peers = std::env::var_os("PEERS_DIR").map(PathBuf::from);
        let own = peers
            .iter()
            .flat_map(|dir| [dir.join("livekit-server"), dir.join("server")]);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let shared: Vec<_> = std::env::split_paths(&path)
            .map(|dir| dir.join("livekit-server"))
            .collect();
        own.chain(shared).find(|program| program.is_file())
    }

    pub async fn start(program: &Path) -> Result<Self> {
        let directory = TempDir::with_prefix("livekit-bench-").context("a directory")?;
        let (port, udp) = (free_port()?, free_udp_port()?);
        let config = json!({
            "port": port,
            "bind_addresses": ["127.0.0.1"],
            "rtc": {
                "udp_port": udp,
                "tcp_port": 0,
                "use_external_ip": false,
                "node_ip": "127.0.0.1",
                "enable_loopback_candidate": true,
                "ips": {"includes": ["127.0.0.1/32"]},
            },
            "keys": {LIVEKIT_KEY: LIVEKIT_SECRET},
            "logging": {"level": "error"},
        });
        // Every JSON text is YAML too.
        let file = directory.path().join("livekit.yaml");
        std::fs::write(&file, config.to_string()).context("writing LiveKit's configuration")?;
        let began = Instant::now();
        let mut process = Process::start(program, &["--config".as_ref(), file.as_os_str()], &[])?;
        ready(&mut process, port, "/", began).await?;
        Ok(Self {
            process,
            port,
            _directory: directory,
        })
    }

    pub async fn stop(self) {
        self.process.stop().await;
    }

    fn token(room: &str, identity: &str) -> Result<String> {
        // An error says that it is installed already.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let claims = json!({
            "iss": LIVEKIT_KEY,
            "sub": identity,
            "exp": jiff::Timestamp::now().as_second() + 3600,
            "video": {"roomJoin": true, "room": room, "canPublish": true, "canSubscribe": true},
        });
        let key = EncodingKey::from_secret(LIVEKIT_SECRET.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).context("signing a token")
    }
}

/// Waits until `path` answers with success.
async fn ready(process: &mut Process, port: u16, path: &str, began: Instant) -> Result<()> {
    loop {
        process.check_alive()?;
        if let Ok(mut client) = Client::connect(port, None).await
            && client
                .send(hyper::Method::GET, path, None)
                .await
                .is_ok_and(|answer| answer.status.is_success())
        {
            return Ok(());
        }
        if began.elapsed() > READY_WITHIN {
            return Err(format!("the server was not ready in time:\n{}", process.log().join("\n")).into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
