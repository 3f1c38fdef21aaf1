//! The outbox: appending in the caller's transaction, and the worker of each group.

use super::{Bus, Event};
use crate::{
    Error, Result, TenantId, Tx, Val,
    clock::Millis,
    db::{Db, Row},
    tenant::Tenants,
};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::HashSet, time::Duration};
use tokio::sync::watch;
use uuid::Uuid;

/// Rows read at once.
const BATCH: i64 = 100;
/// After this many failures a row goes to the dead letters, and its key moves on.
const ATTEMPTS: i64 = 8;
/// Delayed rows are looked for this often at the latest.
const TICK: Duration = Duration::from_millis(500);

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
    for (group, seq) in groups.iter().zip(last - count + 1..) {
        let args: [Val; 9] = [
            (*group).into(),
            seq.into(),
            event.id.into(),
            (&*event.kind).into(),
            (&event.key).into(),
            event.actor.clone().into(),
            event.at.into(),
            event.body.get().into(),
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

/// The worker of one group: wakes after commits and at ticks, and goes through every tenant.
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
    let mut wake = bus.0.wake.subscribe();
    while !*stop.borrow() {
        for tenant in tenants.all() {
            if *stop.borrow() {
                return;
            }
            if let Err(e) = drain(&bus, group, tenant.id, &handler).await {
                tracing::warn!(group, tenant = %tenant.id, error = ?e, "outbox: will try again");
            }
        }
        tokio::select! {
            _ = wake.changed() => {}
            () = tokio::time::sleep(TICK) => {}
            _ = stop.changed() => {}
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
        let mut held: HashSet<String> = HashSet::new();
        for row in &rows {
            let (seq, event, attempts) = (row.i64(0)?, event(tenant, row)?, row.i64(7)?);
            if held.contains(&event.key) {
                continue;
            }
            let (key, kind, id) = (event.key.clone(), event.kind.clone(), event.id);
            // A task of its own: a handler that panics is a failed attempt, not the end of the worker.
            let outcome = match tokio::spawn(handler(event)).await {
                Ok(outcome) => outcome,
                Err(e) => Err(Error::internal("bus.handler_panicked", e)),
            };
            if let Err(e) = outcome {
                tracing::warn!(group, tenant = %tenant, kind = %kind, event = %id, attempts, error = ?e, "outbox: delivery failed");
                fail(bus, tenant, group, seq, attempts, &e).await?;
                held.insert(key);
            } else {
                bus.0
                    .db
                    .write(tenant, move |tx| {
                        Box::pin(async move { tx.exec(DONE, &[group.into(), seq.into()]).await })
                    })
                    .await?;
            }
        }
        if rows.is_empty() || !held.is_empty() {
            return Ok(());
        }
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

fn event(tenant: TenantId, row: &Row) -> Result<Event> {
    Ok(Event {
        id: row.uuid(1)?,
        tenant,
        kind: Cow::Owned(row.string(2)?),
        key: row.string(3)?,
        channel: None,
        actor: row.opt_text(4)?.map(str::to_owned),
        at: row.i64(5)?,
        body: RawValue::from_string(row.string(6)?).map_err(|e| Error::internal("bus.body", e))?,
    })
}
