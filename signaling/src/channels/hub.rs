//! The hub as the rest of the product sees it.

use super::{
    client,
    counters::{Counters, add},
    live,
    protocol::{Disconnect, one_line},
    rules,
    shard::{self, Key, Msg, PresenceChange, Present, Shared},
};
use crate::websocket::{Limits, Upgrade};
use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, header};
use medtech_kernel::{
    BoxFuture, ChannelRule, Ctx, Error, Result, TenantId,
    auth::{Principal, Revoked},
    bus::Event,
    policy::{AccessChanged, Resource},
    tenant::Status,
};
use serde_json::value::RawValue;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

/// Bytes of one publication's data.
const MAX_PUBLICATION: usize = 256 * 1024;

/// Limits of the hub; the defaults are Centrifugo's where it has one.
#[derive(Clone, Debug)]
pub struct Options {
    pub socket: Limits,
    pub shards: usize,
    /// Messages that may wait for a shard. Commands wait for room; a publication that finds none is dropped, and the
    /// shard's channels change their epoch so that their clients know.
    pub inbox: usize,
    pub max_connections: u64,
    pub channels_per_client: usize,
    pub commands_per_second: u32,
    pub burst: u32,
    pub connect_deadline: Duration,
    pub rpc_timeout: Duration,
    /// How often each clinic is asked whether access was withdrawn or came to its end, so that an event that was lost
    /// still bites; `None` leaves it to [`Hub::watch`].
    pub watch: Option<Duration>,
    /// One step of the 25-step ping wheel; `None` leaves the wheel to [`Hub::turn`].
    pub second: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            socket: Limits::default(),
            shards: std::thread::available_parallelism().map_or(1, |n| n.get().min(8)),
            inbox: 16 * 1024,
            max_connections: 100_000,
            channels_per_client: 128,
            commands_per_second: 50,
            burst: 300,
            connect_deadline: Duration::from_secs(10),
            rpc_timeout: Duration::from_secs(10),
            watch: Some(Duration::from_secs(10)),
            second: Some(Duration::from_secs(1)),
        }
    }
}

/// The live channels. Clones share them.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

type Handler = Arc<dyn Fn(Principal, Box<RawValue>) -> BoxFuture<'static, Result<Box<RawValue>>> + Send + Sync>;
type Listener = Box<dyn Fn(&Event) + Send + Sync>;

pub(super) struct Inner {
    pub(super) ctx: Ctx,
    pub(super) options: Options,
    pub(super) counters: Arc<Counters>,
    pub(super) next_conn: AtomicU64,
    /// Bumped before a revocation is handed to the shards.
    pub(super) revocations: AtomicU64,
    /// Bumped before a withdrawal of access is handed to the shards.
    pub(super) withdrawals: AtomicU64,
    /// Bumped when events were lost that may have been revocations: every connection is looked at again.
    pub(super) doubts: AtomicU64,
    /// A connection ended.
    pub(super) gone: Notify,
    /// What the policy last said of each clinic's withdrawals.
    epochs: Mutex<HashMap<TenantId, (i64, i64)>>,
    rules: HashMap<&'static str, &'static ChannelRule>,
    handlers: RwLock<HashMap<&'static str, Handler>>,
    listeners: RwLock<Vec<Listener>>,
    shards: Vec<Lane>,
    hasher: RandomState,
    draining: AtomicBool,
    changes: broadcast::Sender<PresenceChange>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Lane {
    inbox: mpsc::Sender<Msg>,
    lossy: Arc<AtomicBool>,
}

impl Hub {
    /// Starts the shards and takes the bus's live events. Must be called inside a runtime, once for each bus.
    pub fn start(ctx: Ctx, rules: Vec<&'static ChannelRule>) -> Result<Self> {
        Self::start_with(ctx, rules, Options::default())
    }

    pub fn start_with(ctx: Ctx, rules: Vec<&'static ChannelRule>, options: Options) -> Result<Self> {
        let live = ctx.bus.attach_live()?;
        let counters = Arc::<Counters>::default();
        let (changes, _) = broadcast::channel(4096);
        let (mut shards, mut threads) = (Vec::new(), Vec::new());
        for number in 0..options.shards.max(1) {
            let (inbox, receiver) = mpsc::channel(options.inbox.max(1));
            let lossy = Arc::<AtomicBool>::default();
            let shared = Shared {
                clock: ctx.clock.clone(),
                counters: Arc::clone(&counters),
                changes: changes.clone(),
                lossy: Arc::clone(&lossy),
            };
            let thread = std::thread::Builder::new().name(format!("live-{number}"));
            let thread = thread
                .spawn(move || shard::run(shared, receiver))
                .map_err(|e| Error::internal("live.thread", e))?;
            shards.push(Lane { inbox, lossy });
            threads.push(thread);
        }
        let second = options.second;
        let inner = Arc::new(Inner {
            ctx,
            options,
            counters,
            next_conn: AtomicU64::new(0),
            revocations: AtomicU64::new(0),
            withdrawals: AtomicU64::new(0),
            doubts: AtomicU64::new(0),
            gone: Notify::new(),
            epochs: Mutex::default(),
            rules: rules.into_iter().map(|rule| (rule.kind, rule)).collect(),
            handlers: RwLock::default(),
            listeners: RwLock::default(),
            shards,
            hasher: RandomState::new(),
            draining: AtomicBool::new(false),
            changes,
            threads: Mutex::new(threads),
        });
        tokio::spawn(feed(Arc::downgrade(&inner), live));
        if let Some(every) = inner.options.watch {
            tokio::spawn(watch(Arc::downgrade(&inner), every));
        }
        if let Some(second) = second {
            tokio::spawn(wheel(Arc::downgrade(&inner), second));
        }
        Ok(Self(inner))
    }

    /// `/connection/websocket`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/connection/websocket", get(connect))
            .with_state(Arc::clone(&self.0))
    }

    /// Registers what answers a client's `rpc` of this name. Calls of one client run one after the other.
    pub fn rpc<F, Fut>(&self, method: &'static str, handler: F)
    where
        F: Fn(Principal, Box<RawValue>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Box<RawValue>>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |principal, data| Box::pin(handler(principal, data)));
        self.0
            .handlers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(method, handler);
    }

    /// Publishes JSON to a channel, past the bus. Never blocks. Fails when it is no JSON, too large, or the channel has no
    /// rule.
    pub fn publish(&self, tenant: TenantId, channel: &str, data: impl AsRef<[u8]>) -> Result<()> {
        let data: &RawValue =
            serde_json::from_slice(data.as_ref()).map_err(|_| Error::bad("live.not_json", "A publication is JSON."))?;
        if data.get().len() > MAX_PUBLICATION {
            return Err(Error::too_large(
                "live.publication_too_large",
                "The publication is too large.",
            ));
        }
        let (rule, _) = rules::split(&self.0.rules, channel).ok_or_else(unknown_channel)?;
        let key = Key {
            tenant,
            name: channel.into(),
        };
        let lane = self.0.lane(&key);
        let msg = Msg::Publish {
            key,
            rule,
            data: one_line(data.get()).into_owned(),
        };
        if let Some(lane) = lane
            && lane.inbox.try_send(msg).is_err()
        {
            lane.lossy.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Who is in a channel now, one entry a connection. Empty where the rule has no presence.
    pub async fn presence(&self, tenant: TenantId, channel: &str) -> Result<Vec<Present>> {
        let key = Key {
            tenant,
            name: channel.into(),
        };
        let (answer, present) = oneshot::channel();
        let stopped = || Error::unavailable("live.stopped", "The live channels are shutting down.");
        self.0
            .to_channel(
                &key,
                Msg::Present {
                    key: key.clone(),
                    answer,
                },
            )
            .await
            .map_err(|_| stopped())?;
        present.await.map_err(|_| stopped())
    }

    /// Joins and leaves as they happen, in channels with presence. A receiver that lags is told so and asks
    /// [`Hub::presence`].
    #[must_use]
    pub fn presence_changes(&self) -> broadcast::Receiver<PresenceChange> {
        self.0.changes.subscribe()
    }

    /// Calls `listener` with every live event of the bus, in order. It must be quick and must not block.
    pub fn listen(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.0
            .listeners
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(listener));
    }

    /// Ends a subject's subscriptions to a channel: access was withdrawn (call it after the commit). The connection stays.
    /// Without this call it happens within five minutes.
    pub async fn expel(&self, tenant: TenantId, channel: &str, subject: &str) {
        let key = Key {
            tenant,
            name: channel.into(),
        };
        self.0.withdrawals.fetch_add(1, Ordering::AcqRel);
        // Fails only when stopped, and then there are no subscriptions.
        let _ = self
            .0
            .to_channel(
                &key,
                Msg::Expel {
                    key: key.clone(),
                    subject: subject.into(),
                },
            )
            .await;
    }

    /// Names and values for `/metrics`.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.0.counters.snapshot()
    }

    /// One look at every clinic, for those who keep time themselves.
    pub async fn watch(&self) {
        self.0.watch().await;
    }

    /// One step of the ping wheel, for those who keep time themselves.
    pub async fn turn(&self) {
        self.0.to_all(|| Msg::Tick).await;
    }

    /// Refuses new connections, closes the others with 3001 so that clients go elsewhere, and stops.
    pub async fn shutdown(&self) {
        let inner = &self.0;
        inner.draining.store(true, Ordering::Release);
        inner.to_all(|| Msg::Drain).await;
        let drained = async {
            loop {
                let gone = inner.gone.notified();
                if inner.counters.connections.load(Ordering::Acquire) == 0 {
                    return;
                }
                gone.await;
            }
        };
        let _ = tokio::time::timeout(inner.options.socket.closing + Duration::from_secs(1), drained).await;
        inner.to_all(|| Msg::Stop).await;
        let threads = std::mem::take(&mut *inner.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| drop(t.join())));
        let _ = joined.await;
    }
}

fn unknown_channel() -> Error {
    Error::not_found("live.unknown_channel", "There is no such channel.")
}

impl Inner {
    pub(super) fn rule_of(&self, channel: &str) -> Option<(&'static ChannelRule, Resource)> {
        rules::split(&self.rules, channel).map(|(rule, id)| (rule, rules::resource(rule, id)))
    }

    pub(super) fn handler(&self, method: &str) -> Option<Handler> {
        self.handlers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(method)
            .cloned()
    }

    fn lane(&self, key: &Key) -> Option<&Lane> {
        self.at(self.hasher.hash_one(key))
    }

    fn at(&self, number: u64) -> Option<&Lane> {
        let count = self.shards.len().max(1) as u64;
        self.shards.get(usize::try_from(number % count).unwrap_or(0))
    }

    /// Waits for room: a client's commands press back on that client alone.
    pub(super) async fn to_channel(&self, key: &Key, msg: Msg) -> Result<(), Disconnect> {
        reach(self.lane(key), msg).await
    }

    pub(super) async fn to_home(&self, conn: u64, msg: Msg) -> Result<(), Disconnect> {
        reach(self.at(conn), msg).await
    }

    /// Connections of a subject, or of all of a clinic, ask again whether they may be where they are.
    async fn look_again(&self, tenant: TenantId, subject: Option<String>) {
        // A subscription under way asks again as well.
        self.withdrawals.fetch_add(1, Ordering::AcqRel);
        self.to_all(|| Msg::LookAgain {
            tenant,
            subject: subject.clone(),
        })
        .await;
    }

    async fn watch(&self) {
        for tenant in self.ctx.tenants.all() {
            let last = self
                .epochs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&tenant.id)
                .copied();
            match self.ctx.policy.epoch(tenant.id, last).await {
                Ok((now, changed)) => {
                    self.epochs
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(tenant.id, now);
                    let suspended = tenant.status != Status::Active;
                    if changed || suspended {
                        self.look_again(tenant.id, None).await;
                    }
                }
                Err(e) => {
                    tracing::warn!(tenant = %tenant.id, code = e.code, "live: withdrawals could not be looked for")
                }
            }
        }
    }

    async fn to_all(&self, msg: impl Fn() -> Msg) {
        for lane in &self.shards {
            let _ = lane.inbox.send(msg()).await;
        }
    }

    /// For a connection's end, where there is no waiting.
    pub(super) fn must_reach_channel(&self, key: &Key, msg: Msg) {
        must_reach(self.lane(key), msg);
    }

    pub(super) fn must_reach_home(&self, conn: u64, msg: Msg) {
        must_reach(self.at(conn), msg);
    }
}

async fn reach(lane: Option<&Lane>, msg: Msg) -> Result<(), Disconnect> {
    match lane {
        Some(lane) => lane.inbox.send(msg).await.map_err(|_| Disconnect::SHUTDOWN),
        None => Err(Disconnect::SHUTDOWN),
    }
}

fn must_reach(lane: Option<&Lane>, msg: Msg) {
    let Some(lane) = lane else { return };
    if let Err(mpsc::error::TrySendError::Full(msg)) = lane.inbox.try_send(msg)
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        let inbox = lane.inbox.clone();
        // Bounded by the connections there are: each ends once.
        runtime.spawn(async move { inbox.send(msg).await });
    }
}

/// From the bus to the shards, in order. When a shard is full this waits, and the bus counts what it has to drop.
async fn feed(hub: Weak<Inner>, mut live: mpsc::Receiver<Event>) {
    let mut dropped = 0;
    // As in a shard: what was lost came after the events that waited then.
    let mut lost_in = None;
    while let Some(event) = live.recv().await {
        let Some(hub) = hub.upgrade() else { return };
        // Publications of any channel may be among what was dropped, and so may revocations.
        let now_dropped = hub.ctx.bus.dropped();
        if now_dropped != dropped {
            dropped = now_dropped;
            lost_in = Some(live.len());
            hub.doubts.fetch_add(1, Ordering::AcqRel);
        }
        deliver(&hub, &event).await;
        lost_in = match lost_in {
            Some(0) => {
                hub.to_all(|| Msg::Lost).await;
                None
            }
            waiting => waiting.map(|n| n - 1),
        };
    }
}

async fn deliver(hub: &Inner, event: &Event) {
    if event.kind == "access.changed" {
        let subject = event.parse::<AccessChanged>().ok().and_then(|c| c.subject);
        hub.look_again(event.tenant, subject).await;
    }
    if event.kind == "session.revoked" {
        match event.parse::<Revoked>() {
            Ok(Revoked { session, .. }) => {
                hub.revocations.fetch_add(1, Ordering::AcqRel);
                hub.to_all(|| Msg::Revoke {
                    tenant: event.tenant,
                    session,
                })
                .await;
            }
            Err(e) => tracing::error!(code = e.code, "live: a revocation could not be read"),
        }
    }
    for listener in hub.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
        listener(event);
    }
    let Some(channel) = event.channel.as_deref() else {
        return;
    };
    let Some((rule, _)) = rules::split(&hub.rules, channel) else {
        tracing::warn!(kind = %event.kind, "live: an event names a channel that no rule covers");
        return;
    };
    let data = live::data(event);
    if data.len() > MAX_PUBLICATION {
        tracing::warn!(kind = %event.kind, "live: an event is too large to publish");
        return;
    }
    let key = Key {
        tenant: event.tenant,
        name: channel.into(),
    };
    let data = one_line(&data).into_owned();
    let _ = hub
        .to_channel(
            &key,
            Msg::Publish {
                key: key.clone(),
                rule,
                data,
            },
        )
        .await;
}

async fn watch(hub: Weak<Inner>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(hub) = hub.upgrade() else { return };
        hub.watch().await;
    }
}

async fn wheel(hub: Weak<Inner>, second: Duration) {
    let mut ticks = tokio::time::interval(second);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(hub) = hub.upgrade() else { return };
        hub.to_all(|| Msg::Tick).await;
    }
}

async fn connect(State(hub): State<Arc<Inner>>, headers: HeaderMap, upgrade: Upgrade) -> Response {
    let refuse = |answer: Response| {
        add(&hub.counters.refused, 1);
        answer
    };
    let full = hub.counters.connections.load(Ordering::Relaxed) >= hub.options.max_connections;
    if full || hub.draining.load(Ordering::Acquire) {
        let busy = Error::unavailable("live.busy", "The live channels take no new connections now.");
        return refuse(busy.into_response());
    }
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let Some(tenant) = host.and_then(|host| hub.ctx.tenants.by_host(host)) else {
        let unknown = Error::not_found("tenant.unknown", "There is no clinic at this address.");
        return refuse(unknown.into_response());
    };
    match upgrade.require_same_origin() {
        Ok(upgrade) => {
            let limits = hub.options.socket;
            upgrade
                .limits(limits)
                .accept(move |reader| client::run(hub, tenant.id, reader))
        }
        Err(refused) => refuse(refused.into_response()),
    }
}
