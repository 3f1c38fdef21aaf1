//! From packs to durable events: a task for each tenant groups what arrives within [`WINDOW`] and records one
//! `device.readings` for each device of the group, in one transaction. Only after its commit are the packs answered.

use super::{Durable, READINGS, senml::Reading};
use medtech_kernel::{
    Ctx, Error, Result, TenantId,
    bus::Event,
    clock::{Millis, rfc3339},
};
use serde::Serialize;
use serde_json::Number;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use uuid::Uuid;

/// The longest a reading waits for company.
const WINDOW: Duration = Duration::from_millis(250);
/// Readings of one device that end the wait.
const DEVICE_READINGS: usize = 200;
/// Readings of all devices that end the wait.
const GROUP_READINGS: usize = 2_000;
/// Packs that wait for the group before theirs. When it is full, connections stop reading: the devices feel it.
const QUEUE: usize = 1_024;

/// One checked pack.
pub(super) struct Pack {
    pub device: String,
    pub feeds: String,
    /// Of the device's own connection; none where a broker vouches for it.
    pub session: Option<Uuid>,
    pub received_at: Millis,
    pub readings: Vec<Reading>,
}

type Job = (Pack, oneshot::Sender<Result<()>>);

pub(super) struct Ingest {
    ctx: Ctx,
    tenants: Arc<Mutex<HashMap<TenantId, mpsc::Sender<Job>>>>,
}

/// Body of `device.readings`.
#[derive(Serialize)]
struct Body<'a> {
    device: &'a str,
    feeds: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Uuid>,
    readings: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    received_at: String,
    at: String,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    value: &'a Number,
}

impl Ingest {
    pub(super) fn new(ctx: Ctx) -> Self {
        Self {
            ctx,
            tenants: Arc::default(),
        }
    }

    pub(super) async fn submit(&self, tenant: TenantId, pack: Pack) -> Durable {
        let (done, durable) = oneshot::channel();
        let inbox = self.inbox(tenant);
        // The task lives as long as this struct; if it died, dropping `done` tells the waiter.
        let _ = inbox.send((pack, done)).await;
        durable
    }

    fn inbox(&self, tenant: TenantId) -> mpsc::Sender<Job> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants
            .entry(tenant)
            .or_insert_with(|| {
                let (tx, rx) = mpsc::channel(QUEUE);
                tokio::spawn(run(self.ctx.clone(), tenant, rx));
                tx
            })
            .clone()
    }
}

async fn run(ctx: Ctx, tenant: TenantId, mut inbox: mpsc::Receiver<Job>) {
    while let Some(first) = inbox.recv().await {
        let until = Instant::now() + WINDOW;
        let mut group = vec![];
        let (mut total, mut of_device) = (0, HashMap::<String, usize>::new());
        let mut next = Some(first);
        while let Some((pack, done)) = next {
            total += pack.readings.len();
            let own = of_device.entry(pack.device.clone()).or_default();
            *own += pack.readings.len();
            let full = *own >= DEVICE_READINGS || total >= GROUP_READINGS;
            group.push((pack, done));
            next = if full {
                None
            } else {
                timeout_at(until, inbox.recv()).await.ok().flatten()
            };
        }
        let (packs, waiting): (Vec<Pack>, Vec<_>) = group.into_iter().unzip();
        let outcome = record(&ctx, tenant, packs).await;
        if let Err(e) = &outcome {
            tracing::error!(%tenant, packs = waiting.len(), error = ?e, "readings could not be recorded; the devices will send them again");
        }
        for done in waiting {
            let _ = done.send(match &outcome {
                Ok(()) => Ok(()),
                Err(e) => Err(Error::unavailable("devices.not_recorded", e.message.clone())),
            });
        }
    }
}

async fn record(ctx: &Ctx, tenant: TenantId, packs: Vec<Pack>) -> Result<()> {
    if !ctx.bus.is_consumed(READINGS) {
        // Recording for nobody writes nothing, and what is not written must not be acknowledged.
        return Err(Error::unavailable(
            "devices.no_consumer",
            "Nothing here takes readings.",
        ));
    }
    let bus = ctx.bus.clone();
    ctx.db
        .write(tenant, move |tx| {
            Box::pin(async move {
                let mut devices: BTreeMap<(&str, &str, Option<Uuid>), Vec<Line<'_>>> = BTreeMap::new();
                for pack in &packs {
                    let lines = devices.entry((&pack.device, &pack.feeds, pack.session)).or_default();
                    lines.extend(pack.readings.iter().map(|r| Line {
                        received_at: rfc3339(pack.received_at),
                        at: rfc3339(r.at),
                        name: r.code(),
                        unit: r.unit.as_deref(),
                        value: &r.value,
                    }));
                }
                for ((device, feeds, session), readings) in devices {
                    let key = format!("device:{device}");
                    let event = Event::of(
                        tx,
                        READINGS,
                        key.clone(),
                        &Body {
                            device,
                            feeds,
                            session,
                            readings,
                        },
                    )?
                    .by(key);
                    bus.record(tx, event).await?;
                }
                Ok(())
            })
        })
        .await
}
