//! `medtech doctor`: what this machine offers, and how to mend what is wrong.

use crate::{
    app, keys, say,
    tls::{acme, certificates::Certificates, examine, exposure},
};
use medtech_kernel::{Ctx, Result, TenantId, config::Config};
use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::ExitCode,
    time::Duration,
};

/// Pages between two words about the progress: half a gigabyte.
const TELL: u32 = 1 << 17;

/// Free space under which the server should not be started.
const LEAST_FREE: u64 = 1 << 30;

pub(crate) struct Finding {
    pub(crate) what: String,
    /// How to mend it, when it is wrong.
    pub(crate) mend: Option<String>,
}

pub(crate) fn ok(what: impl Into<String>) -> Finding {
    Finding {
        what: what.into(),
        mend: None,
    }
}

pub(crate) fn wrong(what: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding {
        what: what.into(),
        mend: Some(mend.into()),
    }
}

/// Prints every finding; the exit code tells whether all is well.
pub(crate) async fn run(config: &Config) -> Result<ExitCode> {
    let mut findings = vec![ok(format!("version {}", env!("CARGO_PKG_VERSION")))];
    findings.push(disk(&config.data_dir));
    findings.push(clock());
    findings.push(tcp("web", config.http.bind));
    findings.push(tcp("devices (MQTT)", config.mqtt.bind));
    if config.tls.is_on() {
        findings.push(tcp("web by TLS", config.http.tls_bind));
        findings.push(tcp("devices by TLS", config.mqtt.tls_bind));
    }
    findings.push(udp(config));
    findings.push(scanner(config).await);
    findings.extend(connections(config));
    let mut clinics = None;
    let served = keys::is_served(config);
    match app::open(config.clone()).await {
        Ok(ctx) => {
            clinics = Some(ctx.clone());
            findings.push(match keys::doctor(&ctx).await? {
                (what, None) => ok(what),
                (what, Some(mend)) => wrong(what, mend),
            });
            findings.push(passwords(&ctx).await?);
            for (name, value) in ctx.db.inspect().await? {
                findings.push(if value.starts_with("BYPASSED") {
                    wrong(format!("database {name}"), value)
                } else {
                    ok(format!("database {name}: {value}"))
                });
            }
            if !served {
                pages(&ctx, &mut findings).await;
            }
        }
        Err(e) if e.code == "app.data_dir_in_use" => findings.push(ok("database: in use by a running server")),
        Err(e) if e.code.starts_with("vault.") => findings.push(wrong(
            "vault: sealed; the server starts, and serves nothing until it is opened",
            e.message,
        )),
        Err(e) if e.code == "db.page_stale" => findings.push(stale("system", &e)),
        Err(e) => findings.push(wrong(
            format!(
                "database: {} {}",
                e.message,
                e.source.map(|s| s.to_string()).unwrap_or_default()
            ),
            "check MEDTECH_DATABASE_URL, or the rights on the data directory",
        )),
    }
    findings.extend(certificates(config, clinics.as_ref()).await?);
    let mut healthy = true;
    for finding in &findings {
        match &finding.mend {
            None => say(&format!("ok     {}", finding.what)),
            Some(mend) => {
                healthy = false;
                say(&format!("WRONG  {}\n       mend: {mend}", finding.what));
            }
        }
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn scanner(config: &Config) -> Finding {
    match medtech_messaging::files::scan::check(config).await {
        None => ok("files are not scanned for malware (files.scanner is not set)"),
        Some(Ok(())) => ok("the scanner of files answers"),
        Some(Err(e)) => wrong(
            format!("the scanner of files: {e}; no uploaded file can be read"),
            "start clamd, or correct MEDTECH_FILES_SCANNER (tcp://host:port or unix:/path)",
        ),
    }
}

/// Measures what a password hash may cost here, and keeps it.
async fn passwords(ctx: &Ctx) -> Result<Finding> {
    let m = app::clinic(ctx.clone()).identity.measure().await?;
    let (mib, ms) = (m.memory / 1024, m.took.as_millis());
    let what = format!(
        "passwords: argon2id with {mib} MiB and {} passes takes {ms} ms",
        m.passes
    );
    Ok(match (m.took > Duration::from_secs(1), m.taken) {
        (true, _) => wrong(
            what,
            "signing in is slow: give this machine more processors, or less to do",
        ),
        (false, true) => ok(format!("{what}; used from the next start on")),
        (false, false) => ok(what),
    })
}

/// What stands open to others; what is accepted by a key is told as well.
fn connections(config: &Config) -> Vec<Finding> {
    let mut found = exposure::listening(config);
    match exposure::outgoing(config) {
        Ok(more) => found.extend(more),
        Err(e) => return vec![wrong(e.message, "correct this address")],
    }
    if found.is_empty() {
        return vec![ok("connections: nothing stands open to other machines without TLS")];
    }
    let all = found.into_iter().map(|f| match f.accepted {
        true => ok(format!("WARNING, accepted by the configuration: {}", f.what)),
        false => wrong(f.what, f.mend),
    });
    all.collect()
}

/// The certificates, for the names by which people come.
async fn certificates(config: &Config, ctx: Option<&Ctx>) -> Result<Vec<Finding>> {
    if !config.tls.is_on() {
        return Ok(Vec::new());
    }
    let certificates = match Certificates::load(&config.tls) {
        Ok(certificates) => certificates,
        Err(e) => {
            return Ok(vec![wrong(
                e.message,
                "put the certificate's chain and its own key there, in PEM",
            )]);
        }
    };
    let mut found = Vec::new();
    if let Some(ctx) = ctx.filter(|_| config.tls.acme_directory.is_some()) {
        acme::load(ctx, &certificates).await?;
        found = examine::issued(&acme::store::hosts(&ctx.db).await?, &acme::Names::of(ctx));
    }
    let url = config.public_url();
    let mut names = vec![url.clone()];
    for tenant in ctx.iter().flat_map(|ctx| ctx.tenants.all()) {
        names.extend(ctx.map(|ctx| ctx.tenants.address_of(&tenant, &url)));
    }
    let hosts = names
        .iter()
        .filter_map(|name| url::Url::parse(name).ok()?.host_str().map(str::to_owned));
    let now = medtech_kernel::Clock::system().now_ms();
    found.extend(examine::certificates(&certificates, hosts.collect(), now));
    Ok(found)
}

/// Reads every page of every database file. (While a server runs it does so itself, once a day; `/metrics` tells.)
async fn pages(ctx: &Ctx, findings: &mut Vec<Finding>) {
    let clinics = ctx.tenants.all().into_iter().map(|t| (t.id, t.slug.to_string()));
    for (tenant, name) in std::iter::once((TenantId::SYSTEM, "system".to_owned())).chain(clinics) {
        let mut told = 0;
        let progress = |done: u32, all: u32| {
            if done / TELL > told {
                told = done / TELL;
                say(&format!("...    {name}: {done} of {all} pages read"));
            }
        };
        match ctx.db.scrub(tenant, Duration::ZERO, progress).await {
            Ok(None) => return,
            Ok(Some(found)) if found.places.is_empty() => findings.push(ok(format!(
                "pages of {name}: {} read, all authentic and the newest",
                found.pages
            ))),
            Ok(Some(found)) => {
                let places: Vec<String> = found.places.iter().map(|(p, why)| format!("{p}: {why}")).collect();
                findings.push(wrong(
                    format!(
                        "pages of {name}: {} of {} refused: {}",
                        found.bad,
                        found.pages + found.bad,
                        places.join("; ")
                    ),
                    "put the file back from a backup, then `medtech keys accept-restored`",
                ));
            }
            Err(e) if e.code == "db.page_stale" => findings.push(stale(&name, &e)),
            Err(e) => findings.push(wrong(
                format!("pages of {name}: {e:?}"),
                "put the file back from a backup, then `medtech keys accept-restored`",
            )),
        }
    }
}

fn stale(name: &str, error: &medtech_kernel::Error) -> Finding {
    let why = error.source.as_ref().map(ToString::to_string).unwrap_or_default();
    wrong(
        format!("database of {name}: {why}"),
        "put the newest files back; or, restored on purpose, `medtech keys accept-restored`",
    )
}

fn disk(dir: &Path) -> Finding {
    if let Err(e) = std::fs::create_dir_all(dir) {
        return wrong(
            format!("data directory {}: {e}", dir.display()),
            "set MEDTECH_DATA_DIR to a directory this user may write",
        );
    }
    match free_bytes(dir) {
        Ok(free) if free < LEAST_FREE => wrong(
            format!("{} MiB free in {}", free >> 20, dir.display()),
            "free at least 1 GiB, or move the data directory",
        ),
        Ok(free) => ok(format!("{} GiB free in {}", free >> 30, dir.display())),
        Err(e) => wrong(
            format!("free space of {}: {e}", dir.display()),
            "check that the disk is mounted",
        ),
    }
}

/// Bytes an ordinary user may still write to the file system of `dir`.
pub(crate) fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A clock before this release was made cannot be right: certificates and tokens would fail.
fn clock() -> Finding {
    let now = medtech_kernel::Clock::system().now_ms();
    let at = medtech_kernel::clock::rfc3339(now);
    if now < 1_780_000_000_000 {
        wrong(
            format!("the clock says {at}"),
            "set the clock, best by NTP (timedatectl set-ntp true)",
        )
    } else {
        ok(format!("clock {at}"))
    }
}

fn tcp(what: &str, addr: SocketAddr) -> Finding {
    match TcpListener::bind(addr) {
        Ok(_) => ok(format!("TCP {addr} for {what} is free")),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => wrong(
            format!("TCP {addr} for {what} is taken"),
            "a server already runs there, or choose another port (MEDTECH_HTTP_BIND, MEDTECH_MQTT_BIND, MEDTECH_HTTP_TLS_BIND, MEDTECH_MQTT_TLS_BIND)",
        ),
        Err(e) => wrong(
            format!("TCP {addr} for {what}: {e}"),
            "choose a port above 1023, or grant CAP_NET_BIND_SERVICE",
        ),
    }
}

fn udp(config: &Config) -> Finding {
    let addr = SocketAddr::new(config.media.bind, config.media.udp_port);
    match UdpSocket::bind(addr) {
        Ok(_) => ok(format!("UDP {addr} for media is free; open it in the firewall")),
        Err(e) => wrong(
            format!("UDP {addr} for media: {e}"),
            "choose another port with MEDTECH_MEDIA_UDP_PORT and open it in the firewall",
        ),
    }
}
