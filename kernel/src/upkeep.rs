//! Housekeeping: what has served its time goes away, tenant by tenant, a bounded piece at a time.

use crate::{Db, Result, TenantId, clock::Millis, tenant::Tenants};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::sync::watch;

/// How often every tenant is looked at.
const EVERY: Duration = Duration::from_secs(3600);
/// A repeated command is recognised for a week.
const IDEMPOTENCY_MS: Millis = 7 * DAY;
/// A repeated durable event is recognised for a month; the outbox gives up long before.
const CONSUMED_MS: Millis = 30 * DAY;
/// A session that ended is kept a month for the list of sessions.
const SESSION_MS: Millis = 30 * DAY;
/// A relation that ended stands a while longer, so that every look for what has ended still finds it.
const RELATION_MS: Millis = 3_600_000;
const DAY: Millis = 24 * 3_600_000;

const OLD_ANSWERS: &str = "DELETE FROM idempotency WHERE tenant = $1 AND at < $2";
const OLD_EVENTS: &str = "DELETE FROM consumed WHERE tenant = $1 AND at < $2";
const OLD_SESSIONS: &str = "DELETE FROM session WHERE tenant = $1 AND expires_at < $2";
const OLD_RELATIONS: &str = "DELETE FROM relation WHERE tenant = $1 AND until_at < $2";

/// Looks after every tenant at once and then every hour, until `stop` turns true.
pub async fn run(db: Db, tenants: Tenants, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        for tenant in tenants.all() {
            if let Err(e) = tidy(&db, tenant.id).await {
                tracing::warn!(tenant = %tenant.id, error = ?e, "housekeeping will be tried again");
            }
        }
    }
}

/// A few pages, then a pause: under three megabytes a second, whatever else goes on.
const SCRUB_PAUSE: Duration = Duration::from_millis(100);
/// How often every page is read.
const SCRUB_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What the last look through the pages of all files has found.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// Pages read since the start.
    pub pages: AtomicU64,
    /// Pages refused in the last round, and files that could not be read.
    pub bad: AtomicU64,
    /// Rounds ended.
    pub rounds: AtomicU64,
}

/// Reads every page of every tenant's file, slowly, once a day, until `stop` turns true: damage is found before somebody
/// needs the page.
pub async fn scrub(db: Db, tenants: Tenants, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(SCRUB_EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        tokio::select! {
            () = scrub_all(&db, &tenants, SCRUB_PAUSE) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// One round.
pub async fn scrub_all(db: &Db, tenants: &Tenants, pause: Duration) {
    let seen = db.scrubbed();
    let mut bad = 0;
    for tenant in std::iter::once(TenantId::SYSTEM).chain(tenants.all().into_iter().map(|t| t.id)) {
        match db.scrub(tenant, pause, |_, _| {}).await {
            Ok(None) => return,
            Ok(Some(found)) => {
                seen.pages.fetch_add(u64::from(found.pages), Ordering::Relaxed);
                if let Some((place, why)) = found.places.first() {
                    bad += found.places.len().max(found.bad as usize) as u64;
                    tracing::error!(%tenant, place, %why, bad = found.bad, "pages of a database file are refused");
                }
            }
            Err(e) => {
                bad += 1;
                tracing::error!(%tenant, error = ?e, "the pages of a database file could not be read");
            }
        }
    }
    seen.bad.store(bad, Ordering::Relaxed);
    seen.rounds.fetch_add(1, Ordering::Relaxed);
}

/// Removes what has served its time; answers how many rows went.
pub async fn tidy(db: &Db, tenant: TenantId) -> Result<u64> {
    let mut gone = 0;
    for (sql, keep) in [
        (OLD_ANSWERS, IDEMPOTENCY_MS),
        (OLD_EVENTS, CONSUMED_MS),
        (OLD_SESSIONS, SESSION_MS),
        (OLD_RELATIONS, RELATION_MS),
    ] {
        gone += db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    let before = tx.now() - keep;
                    tx.exec(sql, &[before.into()]).await
                })
            })
            .await?;
    }
    Ok(gone)
}
