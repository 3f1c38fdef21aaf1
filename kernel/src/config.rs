//! Configuration: one typed structure, from a file and the environment. Unknown keys are refused.
//!
//! A key `section.name` of the file is `MEDTECH_SECTION_NAME` in the environment; the environment wins.

use crate::{Error, Result, db::Location, secret::exposed};
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
    pub tls: Tls,
    pub identity: Identity,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Where ranges of stolen passwords are asked for, `https://api.pwnedpasswords.com/range` for instance. Absent: nowhere.
    pub breached_passwords_url: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port of the web server without TLS.
    pub bind: SocketAddr,
    /// Address and port with TLS; opened where certificates are configured.
    pub tls_bind: SocketAddr,
    /// Networks of the proxies in front of it, whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Serve others than this machine and the proxies without TLS.
    pub allow_plain: bool,
}

/// Certificates of the web and device ports. Absent: these ports are not opened.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM: the certificate, then those between it and the root.
    pub cert: Option<PathBuf>,
    /// PEM: its private key.
    pub key: Option<PathBuf>,
    /// Pairs `NAME.crt` (or `.pem`) and `NAME.key`, chosen by the name that the client asks for.
    pub directory: Option<PathBuf>,
    /// `https://...` of the directory of an ACME authority (RFC 8555), from which certificates are obtained and renewed.
    pub acme_directory: Option<String>,
    /// PEM file of the authorities that vouch for that server, instead of the system's.
    pub acme_root_cert: Option<PathBuf>,
    /// Mail addresses that the authority may write to.
    pub acme_contact: Vec<String>,
    /// How names are proven, the first first. Empty: `tls-alpn-01`, and `http-01` where `http.bind` has port 80.
    pub acme_challenges: Vec<AcmeChallenge>,
}

/// A way to prove that a name leads here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum AcmeChallenge {
    /// By a handshake on the port with TLS, which the authority reaches at port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// By a page of the port without TLS, which it reaches at port 80 (RFC 8555, 8.3).
    #[serde(rename = "http-01")]
    Http01,
}

impl Tls {
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.has_files() || self.acme_directory.is_some()
    }

    /// Are certificates read from files?
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.cert.is_some() || self.key.is_some() || self.directory.is_some()
    }
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
    /// Serve although the application's role stands above row security. For a trial, never for patients.
    pub allow_privileged_role: bool,
    /// PEM file of the authorities that vouch for the server, besides the public ones.
    pub root_cert: Option<PathBuf>,
    /// Reach another machine without TLS, or without checking its certificate.
    pub allow_plain: bool,
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
    /// Address and port of the device endpoint without TLS.
    pub bind: SocketAddr,
    /// Address and port with TLS; opened where certificates are configured.
    pub tls_bind: SocketAddr,
    /// `mqtts://user:password@host:port` (or `mqtt://`) of an external broker to consume from as well.
    pub broker: Option<String>,
    /// PEM file of the authorities that vouch for the broker, instead of the system's.
    pub broker_root_cert: Option<PathBuf>,
    /// Take devices, and reach a broker, on other machines without TLS.
    pub allow_plain: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mail {
    /// `smtp://` or `smtps://` address of the mail server. Absent: mails go to the local outbox page.
    pub smtp: Option<String>,
    /// Sender.
    pub from: String,
    /// PEM file of the authorities that vouch for the mail server, instead of the system's.
    pub root_cert: Option<PathBuf>,
    /// Hand mails to another machine without TLS.
    pub allow_plain: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    /// `tcp://host:port` or `unix:/path` of a clamd that looks at every file before anybody may read it. Absent: nobody does.
    pub scanner: Option<String>,
    /// Hand files to a scanner on another machine, without TLS (clamd knows none).
    pub allow_plain: bool,
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

impl Database {
    /// The address, with the authorities that vouch for the server.
    #[must_use]
    pub fn with_root(&self, url: &str) -> String {
        let Some(root) = &self.root_cert else {
            return url.to_owned();
        };
        let path: String = url::form_urlencoded::byte_serialize(root.as_os_str().as_encoded_bytes()).collect();
        let and = if url.contains('?') { '&' } else { '?' };
        format!("{url}{and}sslrootcert={path}")
    }
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
            identity: Identity::default(),
            tls: Tls::default(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            tls_bind: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8443)),
            trusted_proxies: Vec::new(),
            allow_plain: false,
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
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
            tls_bind: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8883)),
            broker: None,
            broker_root_cert: None,
            allow_plain: false,
        }
    }
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            smtp: None,
            from: "MedTech <no-reply@localhost>".into(),
            root_cert: None,
            allow_plain: false,
        }
    }
}

/// `MEDTECH_LOG` is read by the log itself, `MEDTECH_TEST_PG` and `MEDTECH_TEST_CLAMD` by tests.
const NOT_KEYS: [&str; 3] = ["log", "test_pg", "test_clamd"];
/// Keys that hold a password. Each can stand in a file of its own instead, named by the key with `_file` behind it.
const SECRETS: [(&str, &str); 4] = [
    ("database", "url"),
    ("database", "owner_url"),
    ("mqtt", "broker"),
    ("mail", "smtp"),
];
/// The sections of the file, for taking `MEDTECH_SECTION_NAME` apart.
const SECTIONS: [&str; 11] = [
    "http", "database", "media", "mqtt", "mail", "files", "log", "limits", "vault", "identity", "tls",
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
        read_secrets(&mut table)?;
        table.try_into().map_err(|e: toml::de::Error| wrong(e.to_string()))
    }

    /// The address people type.
    #[must_use]
    pub fn public_url(&self) -> String {
        self.public_url.clone().unwrap_or_else(|| match self.tls.is_on() {
            true => format!("https://localhost:{}", self.http.tls_bind.port()),
            false => format!("http://localhost:{}", self.http.bind.port()),
        })
    }

    #[must_use]
    pub fn location(&self) -> Location {
        match &self.database.url {
            Some(url) => Location::Postgres {
                url: self.database.with_root(url),
                owner_url: self
                    .database
                    .owner_url
                    .as_deref()
                    .map(|url| self.database.with_root(url)),
            },
            None => Location::Sqlite(self.data_dir.join("db")),
        }
    }
}

/// Puts the contents of `{key}_file` in the place of the key.
fn read_secrets(table: &mut toml::Table) -> Result<()> {
    let wrong = |what: String| Error::bad("config.invalid", what);
    for (section, key) in SECRETS {
        let Some(inner) = table.get_mut(section).and_then(toml::Value::as_table_mut) else {
            continue;
        };
        let Some(file) = inner.remove(&format!("{key}_file")) else {
            continue;
        };
        let name = format!("{section}.{key}");
        if inner.contains_key(key) {
            return Err(wrong(format!("{name} and {name}_file are both given")));
        }
        let path = Path::new(
            file.as_str()
                .ok_or_else(|| wrong(format!("{name}_file is not a path")))?,
        );
        if let Some(why) = exposed(path) {
            return Err(wrong(why));
        }
        let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("{name}_file {}: {e}", path.display())))?;
        inner.insert(key.to_owned(), text.trim_end_matches(['\r', '\n']).into());
    }
    Ok(())
}

/// Is this host name or address this machine itself, so that nothing leaves it on the way there?
#[must_use]
pub fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// The environment knows only text: numbers, truth values and lists are recognised by their key.
fn value(section: &str, name: &str, text: &str) -> toml::Value {
    match (section, name) {
        ("media", "udp_port" | "threads") | ("limits", _) => {
            text.parse::<i64>().map_or_else(|_| text.into(), toml::Value::from)
        }
        ("", "demo") | ("database", "allow_privileged_role") | (_, "allow_plain") => {
            text.parse::<bool>().map_or_else(|_| text.into(), toml::Value::from)
        }
        ("media", "advertise") | ("http", "trusted_proxies") | ("tls", "acme_contact" | "acme_challenges") => text
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
            ("MEDTECH_TLS_CERT", "/etc/m/tls.crt"),
            ("MEDTECH_HTTP_TLS_BIND", "127.0.0.1:9443"),
            ("MEDTECH_MQTT_ALLOW_PLAIN", "true"),
            ("MEDTECH_TLS_ACME_CHALLENGES", "http-01, tls-alpn-01"),
            ("HOME", "/x"),
        ])?;
        assert_eq!(c.data_dir, Path::new("/srv/m"));
        assert_eq!(c.public_url(), "https://localhost:9443");
        assert!(c.mqtt.allow_plain && !c.http.allow_plain && c.tls.is_on());
        assert_eq!((c.media.udp_port, c.media.advertise.len(), c.demo), (0, 2, true));
        assert_eq!(c.tls.acme_challenges, [AcmeChallenge::Http01, AcmeChallenge::TlsAlpn01]);
        assert!(env(&[("MEDTECH_TLS_ACME_CHALLENGES", "dns-01")]).is_err());
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn a_password_can_stand_in_a_file_that_nobody_else_reads() -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("database-url");
        let name = path.to_str().unwrap();
        std::fs::write(&path, "postgres://app:secret@db/clinic\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o600);
        let c = env(&[("MEDTECH_DATABASE_URL_FILE", name), ("MEDTECH_MAIL_SMTP_FILE", name)])?;
        assert_eq!(c.database.url.as_deref(), Some("postgres://app:secret@db/clinic"));
        assert_eq!(c.mail.smtp, c.database.url);
        // Both at once, a file that is not there, and one that others read: none of their contents in the answer.
        for (pairs, says) in [
            (
                vec![
                    ("MEDTECH_DATABASE_URL_FILE", name),
                    ("MEDTECH_DATABASE_URL", "postgres://x"),
                ],
                "both given",
            ),
            (
                vec![("MEDTECH_MQTT_BROKER_FILE", "/nowhere/at/all")],
                "mqtt.broker_file",
            ),
        ] {
            let refused = env(&pairs).unwrap_err().message;
            assert!(refused.contains(says) && !refused.contains("secret"), "{refused}");
        }
        for wide in [0o640, 0o604, 0o620] {
            mode(wide);
            let refused = env(&[("MEDTECH_DATABASE_URL_FILE", name)]).unwrap_err().message;
            assert!(
                refused.contains("chmod 600") && !refused.contains("secret"),
                "{refused}"
            );
        }
        Ok(())
    }

    #[test]
    fn without_a_word_only_this_machine_is_served() -> Result<()> {
        let c = env(&[])?;
        assert_eq!(c.public_url(), "http://localhost:8080");
        assert!(c.http.bind.ip().is_loopback() && c.mqtt.bind.ip().is_loopback() && !c.tls.is_on());
        Ok(())
    }

    #[test]
    fn this_machine_has_many_names_and_others_none_of_them() {
        for near in [
            "localhost",
            "Demo.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_this_machine(near), "{near}");
        }
        for far in [
            "",
            "0.0.0.0",
            "192.0.2.1",
            "localhost.example",
            "notlocalhost",
            "::",
            "2001:db8::1",
        ] {
            assert!(!is_this_machine(far), "{far}");
        }
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
