//! TLS of our own for the web and device ports: which versions, suites and curves are offered, and the certificates of
//! [`certificates`], which are read again while everything runs, or come from an authority ([`acme`]). [`exposure`] says
//! what may not stand open without it.

pub(crate) mod acme;
pub(crate) mod certificates;
pub(crate) mod examine;
pub(crate) mod exposure;
mod gate;

use acme::Acme;
use certificates::Certificates;
pub(crate) use gate::Gate;
use medtech_kernel::{Ctx, Error, Result, config::Config};
use rustls::{
    ServerConfig,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, cipher_suite as suite, kx_group as group},
    },
    version::{TLS12, TLS13},
};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, watch},
    task::JoinSet,
};

/// How often the files, and what other servers were issued, are looked at; SIGHUP has it done now.
const LOOK: Duration = Duration::from_secs(60);

/// What the ports with TLS work with.
pub(crate) struct Tls {
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) web: Gate,
    pub(crate) mqtt: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the certificates; `None` where none are configured. What is wrong with them stops the start.
    pub(crate) fn open(config: &Config) -> Result<Option<Self>> {
        acme::check(config)?;
        if !config.tls.is_on() {
            return Ok(None);
        }
        let certificates = Arc::new(Certificates::load(&config.tls)?);
        let failed = |e| Error::internal("tls.config", e);
        Ok(Some(Self {
            web: Gate {
                config: Arc::new(server(&certificates, &[b"http/1.1"]).map_err(failed)?),
                answers: config.tls.acme_directory.as_ref().map(|_| Arc::default()),
            },
            mqtt: Arc::new(server(&certificates, &[]).map_err(failed)?),
            certificates,
        }))
    }

    /// What was issued before, now that the storage is open; and who asks for more, where an authority is configured.
    pub(crate) async fn on_ground(&self, ctx: &Ctx) -> Result<Option<Arc<Acme>>> {
        let Some(acme) = Acme::new(ctx, &self.certificates)? else {
            return Ok(None);
        };
        acme.load().await?;
        if let Some(answers) = &self.web.answers {
            let _: std::result::Result<(), Ctx> = OnceLock::set(answers, ctx.clone());
        }
        Ok(Some(Arc::new(acme)))
    }
}

/// SIGHUP, heard from the moment of the call: it would end the process otherwise.
pub(crate) fn hangup() -> Result<Signal> {
    signal(SignalKind::hangup()).map_err(|e| Error::internal("tls.signal", e))
}

/// Looks for new certificates until `stop` turns true. Connections that stand stay as they are.
pub(crate) fn keep(
    certificates: Option<Arc<Certificates>>,
    acme: Option<Arc<Acme>>,
    mut hangup: Signal,
    mut stop: watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let asked = Arc::new(Notify::new());
    if let Some(acme) = acme.clone() {
        tasks.spawn(acme.run(asked.clone(), stop.clone()));
    }
    tasks.spawn(async move {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                _ = hangup.recv() => {
                    tracing::info!("asked to look again (SIGHUP)");
                    asked.notify_one();
                }
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if let Some(certificates) = certificates.clone() {
                // The files may lie on a slow disk.
                let _ = tokio::task::spawn_blocking(move || certificates.look_again()).await;
            }
            if let Some(acme) = &acme
                && let Err(e) = acme.load().await
            {
                tracing::warn!(error = ?e, "tls: the issued certificates stay as they were");
            }
        }
    });
    tasks
}

/// Suites with authenticated encryption and forward secrecy alone; a key exchange that a quantum computer of later does
/// not open goes first.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ],
        kx_groups: vec![group::X25519MLKEM768, group::X25519, group::SECP256R1, group::SECP384R1],
        ..aws_lc_rs::default_provider()
    }
}

fn server(certificates: &Arc<Certificates>, protocols: &[&[u8]]) -> std::result::Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificates.clone());
    config.ignore_client_order = true;
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    // Sealed under a key of this process alone, which changes every six hours and is forgotten after twelve.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}
