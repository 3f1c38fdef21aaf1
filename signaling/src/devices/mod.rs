//! Devices: readings come in over MQTT, reach those who watch at once, and are acknowledged when they are durable.
//!
//! [`senml`] reads what a device sends, [`ingest`] groups and records it, [`mqtt`] is our own narrow endpoint and
//! [`broker`] the way in from an external broker. A device publishes to `devices/{its id}/readings`, hears
//! `devices/{its id}/commands`, and reaches nothing else.
//!
//! What a reading means is not known here. It goes to the channel that the device *feeds* (a relation), as it is.

mod broker;
mod ingest;
pub mod mqtt;
mod relay;
pub mod senml;
#[cfg(test)]
mod tests;

use ingest::Ingest;
use medtech_kernel::{
    Ctx, Error, Migration, Result, TenantId,
    auth::Revoked,
    bus::Event,
    clock::{Millis, rfc3339},
    config,
    policy::AccessChanged,
};
use mqtt::registry::{End, Registry};
use rustls::ServerConfig;
use senml::Reading;
use serde::Serialize;
use serde_json::Number;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot, watch},
};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

/// Durable event with the readings of one device: see [`ingest`].
pub const READINGS: &str = "device.readings";
/// Connections at one time, over all tenants. More are refused until one ends.
const CONNECTIONS: usize = 10_000;

/// How far ahead of our own clock a device may be before live screens are shown the time of receipt: a reading of next
/// year would be the latest for a year.
const SKEW: Millis = 60_000;

/// Turns a device's own name for a measurement into (code, name to show), where it is known.
pub type Describe = fn(&str) -> Option<(String, String)>;

/// Does `mqtt.broker` lead to another machine without TLS?
pub fn is_broker_plain(config: &config::Mqtt) -> Result<bool> {
    broker::is_plain(config)
}

/// The device side of the hub. Clones share it.
#[derive(Clone)]
pub struct Devices(Arc<Inner>);

struct Inner {
    ctx: Ctx,
    describe: Describe,
    ingest: Ingest,
    registry: Registry,
    slots: Arc<Semaphore>,
    /// How often a device lost what it fed: what is remembered of that is asked for again.
    moved: AtomicU64,
    stop: watch::Receiver<bool>,
    addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
}

/// Body of the live event `reading`.
#[derive(Serialize)]
struct Live<'a> {
    code: &'a str,
    name: &'a str,
    value: &'a Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    at: String,
    device: &'a str,
}

async fn bind(at: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let open = async {
        let listener = TcpListener::bind(at).await?;
        let addr = listener.local_addr()?;
        std::io::Result::Ok((listener, addr))
    };
    open.await.map_err(|e| {
        let what = format!("Cannot listen on {at} for devices: {e}. `medtech doctor` says more.");
        Error::unavailable("devices.bind", what)
    })
}

/// Answers when a pack is durable; an error or a lost sender when it is not.
type Durable = oneshot::Receiver<Result<()>>;

impl Devices {
    /// Opens the MQTT port (`mqtt.bind`), and the way in from `mqtt.broker` where one is configured. All of it ends when
    /// `stop` turns true.
    pub async fn start(ctx: Ctx, stop: watch::Receiver<bool>) -> Result<Self> {
        Self::start_with(ctx, |_| None, None, stop).await
    }

    /// The same, with TLS on `mqtt.tls_bind` where it is given, and with somebody who knows codes and names of measurements, for live screens. Where `describe` knows
    /// nothing, the device's own name is passed on.
    pub async fn start_with(
        ctx: Ctx,
        describe: Describe,
        tls: Option<Arc<ServerConfig>>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self> {
        let (listener, addr) = bind(ctx.config.mqtt.bind).await?;
        let secured = match tls {
            Some(tls) => Some((bind(ctx.config.mqtt.tls_bind).await?, TlsAcceptor::from(tls))),
            None => None,
        };
        let ingest = Ingest::new(ctx.clone());
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let devices = Self(Arc::new(Inner {
            ctx,
            describe,
            ingest,
            registry: Registry::default(),
            slots,
            moved: AtomicU64::new(0),
            stop,
            addr,
            tls_addr: secured.as_ref().map(|((_, addr), _)| *addr),
        }));
        if let Some(url) = &devices.0.ctx.config.mqtt.broker {
            broker::start(devices.clone(), url)?;
        }
        tokio::spawn(mqtt::listen(devices.clone(), listener, None));
        if let Some(((listener, _), tls)) = secured {
            tokio::spawn(mqtt::listen(devices.clone(), listener, Some(tls)));
        }
        Ok(devices)
    }

    /// Devices keep nothing of their own: readings go straight into the outbox.
    #[must_use]
    pub fn migrations() -> &'static [Migration] {
        &[]
    }

    /// Where the MQTT port is.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// Where the MQTT port with TLS is, if there is one.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.0.tls_addr
    }

    /// `/mqtt`: MQTT over WebSocket.
    pub fn router(&self) -> axum::Router {
        mqtt::websocket::routes(self.clone())
    }

    /// Sends a command to a device that is connected and listens. Answers how many connections took it; a device that is
    /// away gets nothing.
    #[must_use]
    pub fn command(&self, tenant: TenantId, device: &str, payload: bytes::Bytes) -> usize {
        self.0.registry.command(tenant, device, &payload)
    }

    /// Hand every live event here: a revoked device is cut at once, and one given to somebody else writes to them from then on.
    pub fn on_live(&self, event: &Event) {
        if event.kind == "access.changed"
            && let Ok(changed) = event.parse::<AccessChanged>()
            && changed.subject.is_some_and(|s| s.starts_with("device:"))
        {
            self.0.moved.fetch_add(1, Ordering::Relaxed);
        }
        if event.kind == "session.revoked"
            && let Ok(revoked) = event.parse::<Revoked>()
            && let Some(device) = revoked.subject.strip_prefix("device:")
        {
            self.0
                .registry
                .end(event.tenant, device, Some(revoked.session), End::Revoked);
        }
    }

    /// What the device feeds: the channel of whoever it measures.
    async fn feeds(&self, tenant: TenantId, device: &str) -> Result<Option<String>> {
        let found = self
            .0
            .ctx
            .policy
            .objects_of(tenant, &format!("device:{device}"), "feeds")
            .await?;
        Ok(found.into_iter().next())
    }

    /// Takes a checked pack in: live at once, durable soon. Waits while the group before it is being written.
    async fn take(
        &self,
        tenant: TenantId,
        device: &str,
        session: Option<Uuid>,
        feeds: &str,
        received_at: Millis,
        readings: Vec<Reading>,
    ) -> Durable {
        for reading in &readings {
            let known = (self.0.describe)(reading.code());
            let (code, name) = match &known {
                Some((code, name)) => (code.as_str(), name.as_str()),
                None => (reading.code(), reading.label()),
            };
            let live = Live {
                code,
                name,
                value: &reading.value,
                unit: reading.unit.as_deref(),
                at: rfc3339(if reading.at > received_at.saturating_add(SKEW) {
                    received_at
                } else {
                    reading.at
                }),
                device,
            };
            match Event::new(&self.0.ctx.clock, tenant, "reading", format!("device:{device}"), &live) {
                Ok(event) => self.0.ctx.bus.publish(event.on(feeds)),
                Err(e) => tracing::error!(%tenant, device, error = ?e, "reading could not be shown"),
            }
        }
        self.0
            .ingest
            .submit(
                tenant,
                ingest::Pack {
                    device: device.to_owned(),
                    feeds: feeds.to_owned(),
                    session,
                    received_at,
                    readings,
                },
            )
            .await
    }
}
