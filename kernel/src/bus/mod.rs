//! Two kinds of event, never mixed.
//!
//! * [`Bus::publish`]: live. To whoever listens now; at most once; never blocks.
//! * [`Bus::record`]: durable. An outbox row in the caller's own transaction, for each group that consumes the kind;
//!   delivered at least once, in order for each key; what fails too often goes to the dead letters.

mod outbox;

use crate::{Clock, Error, Result, TenantId, Tx, clock::Millis, db::Db, id, tenant::Tenants};
use serde::Serialize;
use serde_json::value::RawValue;
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use outbox::Wake;
pub use outbox::{DeadLetter, once};

/// Live events that may wait for the hub. When it is full, live events are dropped and counted: they are at most once,
/// and clients recover what a channel's history holds.
const LIVE_QUEUE: usize = 65_536;

/// Something that happened. The body is opaque to the bus.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: Uuid,
    pub tenant: TenantId,
    /// Dotted name, for instance `visit.admitted`.
    pub kind: Cow<'static, str>,
    /// Durable events of one key are delivered in order.
    pub key: String,
    /// The live channel it is meant for, for instance `patient:{id}`.
    pub channel: Option<String>,
    /// Who caused it: a subject, as in `Principal::subject`.
    pub actor: Option<String>,
    pub at: Millis,
    pub body: Box<RawValue>,
}

impl Event {
    /// An event of now. Fails only when the body cannot be written as JSON.
    pub fn new(
        clock: &Clock,
        tenant: TenantId,
        kind: impl Into<Cow<'static, str>>,
        key: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<Self> {
        Self::at(clock.now_ms(), tenant, kind, key, body)
    }

    /// An event of the transaction's time and tenant.
    pub fn of(
        tx: &Tx,
        kind: impl Into<Cow<'static, str>>,
        key: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<Self> {
        Self::at(tx.now(), tx.tenant(), kind, key, body)
    }

    fn at(
        at: Millis,
        tenant: TenantId,
        kind: impl Into<Cow<'static, str>>,
        key: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<Self> {
        let body = serde_json::value::to_raw_value(body).map_err(|e| Error::internal("bus.body", e))?;
        Ok(Self {
            id: id::uuid_v7(at),
            tenant,
            kind: kind.into(),
            key: key.into(),
            channel: None,
            actor: None,
            at,
            body,
        })
    }

    /// Names the live channel.
    #[must_use]
    pub fn on(mut self, channel: impl Into<String>) -> Self {
        self.channel = Some(channel.into());
        self
    }

    /// Names who caused it.
    #[must_use]
    pub fn by(mut self, actor: impl Into<String>) -> Self {
        self.actor = Some(actor.into());
        self
    }

    /// The body as a type of the reader's. A body that does not fit is an error of the sender's.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.body.get()).map_err(|e| Error::internal("bus.body", e))
    }
}

/// The bus. Clones share it.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    live: OnceLock<mpsc::Sender<Event>>,
    dropped: AtomicU64,
    /// Which groups consume a kind: decides which outbox rows a `record` writes.
    groups: RwLock<HashMap<&'static str, Vec<&'static str>>>,
    /// How a commit tells the worker of a group where there is something to do.
    wakes: RwLock<HashMap<&'static str, Arc<Wake>>>,
}

impl Bus {
    #[must_use]
    pub fn new(db: Db, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            db,
            clock,
            live: OnceLock::new(),
            dropped: AtomicU64::new(0),
            groups: RwLock::default(),
            wakes: RwLock::default(),
        }))
    }

    /// The hub's inbox: every live event from now on. May be taken once.
    pub fn attach_live(&self) -> Result<mpsc::Receiver<Event>> {
        let (tx, rx) = mpsc::channel(LIVE_QUEUE);
        self.0
            .live
            .set(tx)
            .map_err(|_| Error::internal("bus.live_taken", "the live events already have a reader"))?;
        Ok(rx)
    }

    /// To whoever listens now. At most once; never blocks.
    pub fn publish(&self, event: Event) {
        if let Some(live) = self.0.live.get()
            && live.try_send(event).is_err()
        {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Publishes after the transaction's commit, and only then.
    pub fn publish_after(&self, tx: &mut Tx, event: Event) {
        let bus = self.clone();
        tx.after_commit(move || bus.publish(event));
    }

    /// Live events that found the hub's inbox full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Durable: a row for each consuming group, in this transaction.
    pub async fn record(&self, tx: &mut Tx, event: Event) -> Result<()> {
        let due = tx.now();
        self.record_at(tx, event, due).await
    }

    /// Durable, delivered no earlier than `due`.
    pub async fn record_at(&self, tx: &mut Tx, event: Event, due: Millis) -> Result<()> {
        let groups = self
            .0
            .groups
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&*event.kind)
            .cloned()
            .unwrap_or_default();
        if groups.is_empty() {
            return Ok(());
        }
        outbox::append(tx, &groups, &event, due).await?;
        let (tenant, wakes) = (tx.tenant(), groups.iter().map(|g| self.wake_of(g)).collect::<Vec<_>>());
        tx.after_commit(move || wakes.iter().for_each(|wake| wake.ring(tenant)));
        Ok(())
    }

    /// Is there a group that consumes this kind? Lets a writer skip making a body nobody reads.
    #[must_use]
    pub fn is_consumed(&self, kind: &str) -> bool {
        self.0
            .groups
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(kind)
    }

    fn wake_of(&self, group: &'static str) -> Arc<Wake> {
        let known = self.0.wakes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(wake) = known.get(group) {
            return wake.clone();
        }
        drop(known);
        let mut wakes = self.0.wakes.write().unwrap_or_else(PoisonError::into_inner);
        wakes.entry(group).or_default().clone()
    }

    /// Registers a group for kinds. Every group is registered before the first write, so that nothing recorded is missed.
    pub fn register(&self, group: &'static str, kinds: &'static [&'static str]) {
        let mut groups = self.0.groups.write().unwrap_or_else(PoisonError::into_inner);
        for kind in kinds {
            let of_kind = groups.entry(kind).or_default();
            if !of_kind.contains(&group) {
                of_kind.push(group);
            }
        }
    }

    /// Delivers to a registered group until `stop` turns true. The handler answers `Ok` when its work is durable.
    pub fn consume<F, Fut>(
        &self,
        group: &'static str,
        tenants: Tenants,
        stop: watch::Receiver<bool>,
        handler: F,
    ) -> tokio::task::JoinHandle<()>
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        tokio::spawn(outbox::run(self.clone(), group, tenants, stop, handler))
    }

    /// Rows that wait for a group, oldest due time first: for readiness and metrics.
    pub async fn backlog(&self, tenant: TenantId) -> Result<Vec<(String, i64, Millis)>> {
        outbox::backlog(&self.0.db, tenant).await
    }

    /// For tests: when what is due now, or was tried and failed, is (next) due; `None` when all that remains is for later.
    #[cfg(feature = "testkit")]
    pub async fn unsettled(&self, tenant: TenantId) -> Result<Option<Millis>> {
        outbox::unsettled(&self.0.db, tenant, self.0.clock.now_ms()).await
    }

    /// For tests: what waits for a group, in order, opened.
    #[cfg(feature = "testkit")]
    pub async fn waiting(&self, tenant: TenantId, group: &'static str) -> Result<Vec<Event>> {
        outbox::waiting(&self.0.db, tenant, group).await
    }

    /// What was given up, newest first.
    pub async fn dead_letters(&self, tenant: TenantId) -> Result<Vec<DeadLetter>> {
        outbox::dead_letters(&self.0.db, tenant).await
    }
}
