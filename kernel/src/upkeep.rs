//! Housekeeping: what has served its time goes away, tenant by tenant, a bounded piece at a time.

use crate::{Db, Result, TenantId, clock::Millis, tenant::Tenants};
use std::time::Duration;
use tokio::sync::watch;

/// How often every tenant is looked at.
const EVERY: Duration = Duration::from_secs(3600);
/// A repeated command is recognised for a week.
const IDEMPOTENCY_MS: Millis = 7 * DAY;
/// A repeated durable event is recognised for a month; the outbox gives up long before.
const CONSUMED_MS: Millis = 30 * DAY;
/// A session that ended is kept a month for the list of sessions.
const SESSION_MS: Millis = 30 * DAY;
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

/// Removes what has served its time; answers how many rows went.
pub async fn tidy(db: &Db, tenant: TenantId) -> Result<u64> {
    let mut gone = 0;
    for (sql, keep) in [
        (OLD_ANSWERS, IDEMPOTENCY_MS),
        (OLD_EVENTS, CONSUMED_MS),
        (OLD_SESSIONS, SESSION_MS),
        (OLD_RELATIONS, 0),
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
