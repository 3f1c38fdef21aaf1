//! Configuration: one typed structure, from a file and the environment. Unknown keys are refused.
//!
//! A key `section.name` of the file is `MEDTECH_SECTION_NAME` in the environment; the environment wins.

use crate::{Error, Result, db::Location};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// The whole configuration, with its defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the data lies.
    pub data_dir: PathBuf,
    /// The address people type, without a path; used in links and mails. Default: `http://localhost:{http port}`.
    pub public_url: Option<String>,
    /// Create the demo clinic at the first start.
    pub demo: bool,
    pub http: Http,
    pub database: Database,
    pub media: Media,
    pub mqtt: Mqtt,
    pub mail: Mail,
    pub files: Files,
    pub log: Log,
    pub limits: Limits,
    pub vault: Vault,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port of the web server.
    pub bind: SocketAddr,
    /// Networks of the proxies in front of it, whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// How often may they ask; 0 switches a limit off. Of this process: several of them allow so many times as much.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests a second of one session, and how many at once.
    pub session_per_second: u32,
    pub session_burst: u32,
    /// Requests a second of one network (IPv4 /24, IPv6 /64) without a valid token, and how many at once.
    pub network_per_second: u32,
    pub network_burst: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// `postgres://...` of the application's role. Absent: SQLite in the data directory.
    pub url: Option<String>,
    /// `postgres://...` of the role that owns the tables and migrates them. Absent: the application's role.
    pub owner_url: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Media {
    /// Address the media threads bind; 0.0.0.0 for all.
    pub bind: IpAddr,
    /// UDP port of the first media thread; each further thread takes the next. 0: any free port.
    pub udp_port: u16,
    /// Media threads. 0: one for each core.
    pub threads: usize,
    /// Addresses told to browsers. Empty: this machine's own.
    pub advertise: Vec<IpAddr>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    /// Address and port of the device endpoint.
    pub bind: SocketAddr,
    /// `mqtt://user:password@host:port` of an external broker to consume from as well.
    pub broker: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mail {
    /// `smtp://` or `smtps://` address of the mail server. Absent: mails go to the local outbox page.
    pub smtp: Option<String>,
    /// Sender.
    pub from: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    /// `tcp://host:port` or `unix:/path` of a clamd that looks at every file before anybody may read it. Absent: nobody does.
    pub scanner: Option<String>,
}

/// The log of the process, on its standard error. Which entries: `MEDTECH_LOG`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line, for programs.
    Json,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vault {
    /// Who keeps the root key.
    pub root: RootKind,
    /// The key file. Absent: `{data_dir}/secrets/root.key`.
    pub key_file: Option<PathBuf>,
    /// A file that holds the passphrase; its last line end does not count.
    pub passphrase_file: Option<PathBuf>,
    /// What was erased, one line each, to be kept outside of backups. Absent: `{data_dir}/erasures.jsonl`.
    pub erasure_ledger: Option<PathBuf>,
}

/// Who keeps the root key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RootKind {
    #[default]
    File,
    Passphrase,
    External,
}

impl RootKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Passphrase => "passphrase",
            Self::External => "external",
        }
    }
}

impl Vault {
    #[must_use]
    pub fn key_file(&self, data_dir: &Path) -> PathBuf {
        self.key_file
            .clone()
            .unwrap_or_else(|| data_dir.join("secrets").join("root.key"))
    }

    #[must_use]
    pub fn erasure_ledger(&self, data_dir: &Path) -> PathBuf {
        self.erasure_ledger
            .clone()
            .unwrap_or_else(|| data_dir.join("erasures.jsonl"))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
            public_url: None,
            demo: false,
            http: Http::default(),
            database: Database::default(),
            media: Media::default(),
            mqtt: Mqtt::default(),
            mail: Mail::default(),
            files: Files::default(),
            log: Log::default(),
            limits: Limits::default(),
            vault: Vault::default(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            trusted_proxies: Vec::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            session_per_second: 200,
            session_burst: 1_000,
            network_per_second: 100,
            network_burst: 1_000,
        }
    }
}

impl Default for Media {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            udp_port: 7882,
            threads: 0,
            advertise: Vec::new(),
        }
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1883)),
            broker: None,
        }
    }
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            smtp: None,
            from: "MedTech <no-reply@localhost>".into(),
        }
    }
}

/// `MEDTECH_LOG` is read by the log itself, `MEDTECH_TEST_PG` by tests.
const NOT_KEYS: [&str; 2] = ["log", "test_pg"];
/// The sections of the file, for taking `MEDTECH_SECTION_NAME` apart.
const SECTIONS: [&str; 9] = [
    "http", "database", "media", "mqtt", "mail", "files", "log", "limits", "vault",
];

impl Config {
    /// Reads the file (if one is named) and the environment over it.
    pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self> {
        let wrong = |what: String| Error::bad("config.invalid", what);
        let mut table = match file {
            None => toml::Table::new(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| wrong(format!("{}: {e}", path.display())))?
                .parse()
                .map_err(|e| wrong(format!("{}: {e}", path.display())))?,
        };
        for (name, text) in environment {
            let Some(key) = name.strip_prefix("MEDTECH_").map(str::to_ascii_lowercase) else {
                continue;
            };
            if NOT_KEYS.contains(&key.as_str()) {
                continue;
            }
            let section = SECTIONS
                .iter()
                .find_map(|s| key.strip_prefix(s)?.strip_prefix('_').map(|rest| (*s, rest.to_owned())));
            match section {
                Some((section, name)) => {
                    let inner = table.entry(section).or_insert_with(|| toml::Table::new().into());
                    let inner = inner
                        .as_table_mut()
                        .ok_or_else(|| wrong(format!("{section} is not a table")))?;
                    inner.insert(name.clone(), value(section, &name, &text));
                }
                None => {
                    table.insert(key.clone(), value("", &key, &text));
                }
            }
        }
        table.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))
    }

    /// The address people type.
    #[must_use]
    pub fn public_url(&self) -> String {
        self.public_url
            .clone()
            .unwrap_or_else(|| format!("http://localhost:{}", self.http.bind.port()))
    }

    #[must_use]
    pub fn location(&self) -> Location {
        match &self.database.url {
            Some(url) => Location::Postgres {
                url: url.clone(),
                owner_url: self.database.owner_url.clone(),
            },
            None => Location::Sqlite(self.data_dir.join("db")),
        }
    }
}

/// The environment knows only text: numbers, truth values and lists are recognised by their key.
fn value(section: &str, name: &str, text: &str) -> toml::Value {
    match (section, name) {
        ("media", "udp_port" | "threads") | ("limits", _) => {
            text.parse::<i64>().map_or_else(|_| text.into(), toml::Value::from)
        }
        ("", "demo") => text.parse::<bool>().map_or_else(|_| text.into(), toml::Value::from),
        ("media", "advertise") | ("http", "trusted_proxies") => text
            .split(',')
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .map(toml::Value::from)
            .collect::<Vec<_>>()
            .into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Result<Config> {
        Config::load(None, pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn environment_sets_every_kind_of_key() -> Result<()> {
        let c = env(&[
            ("MEDTECH_DATA_DIR", "/srv/m"),
            ("MEDTECH_HTTP_BIND", "127.0.0.1:9000"),
            ("MEDTECH_MEDIA_UDP_PORT", "0"),
            ("MEDTECH_MEDIA_ADVERTISE", "127.0.0.1, 10.0.0.2"),
            ("MEDTECH_DEMO", "true"),
            ("HOME", "/x"),
        ])?;
        assert_eq!(c.data_dir, Path::new("/srv/m"));
        assert_eq!(c.public_url(), "http://localhost:9000");
        assert_eq!((c.media.udp_port, c.media.advertise.len(), c.demo), (0, 2, true));
        Ok(())
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        for key in ["MEDTECH_HTTP_BNID", "MEDTECH_COLOUR"] {
            let refused = env(&[(key, "x")]).err().map(|e| e.message.to_lowercase());
            assert!(
                refused.is_some_and(|m| m.contains("bnid") || m.contains("colour")),
                "{key}"
            );
        }
    }
}
