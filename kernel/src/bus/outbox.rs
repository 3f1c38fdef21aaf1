//! The outbox: appending in the caller's transaction, and the worker of each group.

use super::{Bus, Event};
use crate::{
    Error, Result, TenantId, Tx, Val,
    clock::Millis,
    db::{Db, Row},
    tenant::Tenants,
    vault::Texts,
};
use serde_json::value::RawValue;
use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, timeout},
};
use uuid::Uuid;

/// Rows read at once.
const BATCH: i64 = 100;
/// After this many failures a row goes to the dead letters, and its key moves on.
const ATTEMPTS: i64 = 8;
/// Delayed rows are looked for this often at the latest.
const TICK: Duration = Duration::from_millis(500);
/// Handled rows are deleted together, but none stands longer than this, however slow the next handler is.
const LINGER: Duration = Duration::from_millis(20);

const NEXT_SEQ: &str = "INSERT INTO outbox_seq (tenant, last) VALUES ($1, $2)
    ON CONFLICT (tenant) DO UPDATE SET last = outbox_seq.last + $2 RETURNING last";
const APPEND: &str = "INSERT INTO outbox (tenant, grp, seq, id, kind, ekey, actor, at, body, due_at, attempts)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0)";
/// A row is due when it, and every earlier row of its key, is: a row that backs off holds its key.
const DUE: &str = "SELECT o.seq, o.id, o.kind, o.ekey, o.actor, o.at, o.body, o.attempts FROM outbox o
    WHERE o.tenant = $1 AND o.grp = $2 AND o.due_at <= $3 AND NOT EXISTS (SELECT 1 FROM outbox e
        WHERE e.tenant = $1 AND e.grp = $2 AND e.ekey = o.ekey AND e.seq < o.seq AND e.due_at > $3)
    ORDER BY o.seq LIMIT $4";
const DONE: &str = "DELETE FROM outbox WHERE tenant = $1 AND grp = $2 AND seq = $3";
const BACK_OFF: &str =
    "UPDATE outbox SET attempts = attempts + 1, due_at = $4 WHERE tenant = $1 AND grp = $2 AND seq = $3";
const PARK: &str = "INSERT INTO dead_letter (tenant, grp, id, kind, ekey, actor, at, body, error, parked_at)
    SELECT tenant, grp, id, kind, ekey, actor, at, body, $4, $5 FROM outbox WHERE tenant = $1 AND grp = $2 AND seq = $3
    ON CONFLICT DO NOTHING";
const ONCE: &str = "INSERT INTO consumed (tenant, grp, id, at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
const BACKLOG: &str = "SELECT grp, COUNT(*), MIN(due_at) FROM outbox WHERE tenant = $1 GROUP BY grp ORDER BY grp";
const PARKED: &str =
    "SELECT grp, id, kind, ekey, error, parked_at FROM dead_letter WHERE tenant = $1 ORDER BY parked_at DESC LIMIT 200";

pub(super) async fn append(tx: &mut Tx, groups: &[&'static str], event: &Event, due: Millis) -> Result<()> {
    let count = i64::try_from(groups.len()).unwrap_or(i64::MAX);
    let last = tx.query_one(NEXT_SEQ, &[count.into()]).await?.i64(0)?;
    let body: Arc<str> = tx.veil(&place(event.id), event.body.get().to_owned()).await?.into();
    for (group, seq) in groups.iter().zip(last - count + 1..) {
        let args: [Val; 9] = [
            (*group).into(),
            seq.into(),
            event.id.into(),
            (&*event.kind).into(),
            (&event.key).into(),
            event.actor.clone().into(),
            event.at.into(),
            body.clone().into(),
            due.into(),
        ];
        tx.exec(APPEND, &args).await?;
    }
    Ok(())
}

/// Marks the event as handled by the group, in the handler's own transaction. `false`: it was handled before, so do nothing.
pub async fn once(tx: &mut Tx, group: &str, event: Uuid) -> Result<bool> {
    let now = tx.now();
    Ok(tx.exec(ONCE, &[group.into(), event.into(), now.into()]).await? == 1)
}

/// An event that was given up.
#[derive(Debug, serde::Serialize)]
pub struct DeadLetter {
    pub group: String,
    pub id: Uuid,
    pub kind: String,
    pub key: String,
    pub error: String,
    pub parked_at: Millis,
}

pub(super) async fn dead_letters(db: &Db, tenant: TenantId) -> Result<Vec<DeadLetter>> {
    let rows = db.query(tenant, PARKED, &[]).await?;
    rows.iter()
        .map(|r| {
            Ok(DeadLetter {
                group: r.string(0)?,
                id: r.uuid(1)?,
                kind: r.string(2)?,
                key: r.string(3)?,
                error: r.string(4)?,
                parked_at: r.i64(5)?,
            })
        })
        .collect()
}

pub(super) async fn backlog(db: &Db, tenant: TenantId) -> Result<Vec<(String, i64, Millis)>> {
    db.query(tenant, BACKLOG, &[])
        .await?
        .iter()
        .map(|r| Ok((r.string(0)?, r.i64(1)?, r.i64(2)?)))
        .collect()
}

/// The tenants in which a group has something new. One worker listens.
#[derive(Default)]
pub(super) struct Wake {
    tenants: Mutex<BTreeSet<TenantId>>,
    bell: Notify,
}

impl Wake {
    pub(super) fn ring(&self, tenant: TenantId) {
        self.tenants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(tenant);
        // Kept for a worker that does not listen right now.
        self.bell.notify_one();
    }

    fn take(&self) -> BTreeSet<TenantId> {
        std::mem::take(&mut *self.tenants.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The worker of one group: after a commit it looks where the commit said, at ticks through every tenant.
pub(super) async fn run<F, Fut>(
    bus: Bus,
    group: &'static str,
    tenants: Tenants,
    mut stop: watch::Receiver<bool>,
    handler: F,
) where
    F: Fn(Event) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let wake = bus.wake_of(group);
    // The first tick is at once: what was left when the process ended.
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow() {
        let mut due = BTreeSet::new();
        tokio::select! {
            () = wake.bell.notified() => due = wake.take(),
            _ = ticks.tick() => due.extend(tenants.all().iter().map(|t| t.id)),
            // Without a sender nobody can say stop any more.
            changed = stop.changed() => if changed.is_err() { return },
        }
        for tenant in due {
            if *stop.borrow() {
                return;
            }
            // Deleted in the meantime: asking would make its storage again.
            if tenants.by_id(tenant).is_none() {
                continue;
            }
            if let Err(e) = drain(&bus, group, tenant, &handler).await {
                tracing::warn!(group, tenant = %tenant, error = ?e, "outbox: will try again");
            }
        }
    }
}

async fn drain<F, Fut>(bus: &Bus, group: &'static str, tenant: TenantId, handler: &F) -> Result<()>
where
    F: Fn(Event) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    loop {
        let now = bus.0.clock.now_ms();
        let rows = bus
            .0
            .db
            .query(tenant, DUE, &[group.into(), now.into(), BATCH.into()])
            .await?;
        let mut done = Done {
            bus,
            tenant,
            group,
            seqs: Vec::new(),
            since: Instant::now(),
        };
        let outcome = deliver(&rows, &mut done, handler).await;
        // Also after an error: what was handled is not delivered again.
        done.write().await?;
        let held = outcome?;
        // Fewer rows than asked for were all there was; whatever came since has rung the bell.
        if held || i64::try_from(rows.len()).unwrap_or(BATCH) < BATCH {
            return Ok(());
        }
    }
}

/// Hands the rows over, one after the other; answers whether a key is held back by a failure.
async fn deliver<F, Fut>(rows: &[Row], done: &mut Done<'_>, handler: &F) -> Result<bool>
where
    F: Fn(Event) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let (bus, tenant, group) = (done.bus, done.tenant, done.group);
    let mut held: HashSet<String> = HashSet::new();
    let texts = Texts::of(&bus.0.db, tenant, rows, 6).await?;
    for row in rows {
        let (seq, event, attempts) = (row.i64(0)?, event(tenant, row, &texts)?, row.i64(7)?);
        if held.contains(&event.key) {
            continue;
        }
        let (key, kind, id) = (event.key.clone(), event.kind.clone(), event.id);
        // A task of its own: a handler that panics is a failed attempt, not the end of the worker.
        let mut task = tokio::spawn(handler(event));
        let outcome = match timeout(LINGER, &mut task).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // Tried again at the end of the batch, and an error is told there.
                let _ = done.write().await;
                task.await
            }
        };
        let outcome = outcome.unwrap_or_else(|e| Err(Error::internal("bus.handler_panicked", e)));
        if let Err(e) = outcome {
            tracing::warn!(group, tenant = %tenant, kind = %kind, event = %id, attempts, error = ?e, "outbox: delivery failed");
            fail(bus, tenant, group, seq, attempts, &e).await?;
            held.insert(key);
        } else {
            done.push(seq).await?;
        }
    }
    Ok(!held.is_empty())
}

/// Rows that were handled and still stand: until they are deleted, an end of the process would deliver them again.
struct Done<'a> {
    bus: &'a Bus,
    tenant: TenantId,
    group: &'static str,
    seqs: Vec<i64>,
    since: Instant,
}

impl Done<'_> {
    async fn push(&mut self, seq: i64) -> Result<()> {
        if self.seqs.is_empty() {
            self.since = Instant::now();
        }
        self.seqs.push(seq);
        if self.since.elapsed() >= LINGER {
            self.write().await?;
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<()> {
        if self.seqs.is_empty() {
            return Ok(());
        }
        let (group, seqs) = (self.group, self.seqs.clone());
        self.bus
            .0
            .db
            .write(self.tenant, move |tx| {
                Box::pin(async move {
                    for seq in seqs {
                        tx.exec(DONE, &[group.into(), seq.into()]).await?;
                    }
                    Ok(())
                })
            })
            .await?;
        self.seqs.clear();
        Ok(())
    }
}

async fn fail(bus: &Bus, tenant: TenantId, group: &'static str, seq: i64, attempts: i64, error: &Error) -> Result<()> {
    let code = error.code;
    bus.0
        .db
        .write(tenant, move |tx| {
            Box::pin(async move {
                let now = tx.now();
                if attempts + 1 >= ATTEMPTS {
                    tx.exec(PARK, &[group.into(), seq.into(), code.into(), now.into()])
                        .await?;
                    tx.exec(DONE, &[group.into(), seq.into()]).await
                } else {
                    // 0.25, 0.5, 1, 2, ... seconds
                    let wait = 250_i64 << attempts.clamp(0, 20);
                    tx.exec(BACK_OFF, &[group.into(), seq.into(), (now + wait).into()])
                        .await
                }
            })
        })
        .await
        .map(|_| ())
}

#[cfg(feature = "testkit")]
pub(super) async fn unsettled(db: &Db, tenant: TenantId, now: Millis) -> Result<Option<Millis>> {
    const UNSETTLED: &str = "SELECT MIN(due_at) FROM outbox WHERE tenant = $1 AND (due_at <= $2 OR attempts > 0)";
    db.query_one(tenant, UNSETTLED, &[now.into()]).await?.opt_i64(0)
}

#[cfg(feature = "testkit")]
pub(super) async fn waiting(db: &Db, tenant: TenantId, group: &'static str) -> Result<Vec<Event>> {
    const WAITING: &str =
        "SELECT seq, id, kind, ekey, actor, at, body FROM outbox WHERE tenant = $1 AND grp = $2 ORDER BY seq";
    let rows = db.query(tenant, WAITING, &[group.into()]).await?;
    let texts = Texts::of(db, tenant, &rows, 6).await?;
    rows.iter().map(|row| event(tenant, row, &texts)).collect()
}

/// Where an event's body is sealed to: every group's row, and the dead letter it may become.
fn place(event: Uuid) -> String {
    format!("outbox/{event}")
}

fn event(tenant: TenantId, row: &Row, texts: &Texts) -> Result<Event> {
    let body = texts.open(&place(row.uuid(1)?), row.text(6)?)?;
    Ok(Event {
        id: row.uuid(1)?,
        tenant,
        kind: Cow::Owned(row.string(2)?),
        key: row.string(3)?,
        channel: None,
        actor: row.opt_text(4)?.map(str::to_owned),
        at: row.i64(5)?,
        body: RawValue::from_string(body).map_err(|e| Error::internal("bus.body", e))?,
    })
}
