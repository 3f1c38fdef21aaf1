//! How sessions change hands and end beside being revoked: a new token after a fresh proof, the token of a browser that
//! signs in anew, too many at once, and silence.

use super::{Assurance, Revoked, Sessions};
use crate::{Result, TenantId, Tx, bus::Event, clock::Millis, id, tenant::Tenants};
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

const RENEW: &str =
    "UPDATE session SET hash = $3, assurance = $4, proved_at = $5, seen_at = $5 WHERE tenant = $1 AND id = $2";
const REVOKE_TOKEN: &str = "DELETE FROM session WHERE tenant = $1 AND hash = $2 RETURNING subject, id, client";
// Applications' sessions are bounded by their own rules.
const BEYOND: &str = "SELECT id FROM session WHERE tenant = $1 AND subject = $2 AND client IS NULL AND expires_at > $3
    AND (idle_ms IS NULL OR seen_at + idle_ms > $3) ORDER BY created_at DESC, id DESC LIMIT 1000";
// Those whose time or silence ran out after `$2`, at `$3` at the latest.
const OVER: &str = "SELECT subject, id, client FROM session WHERE tenant = $1 AND expires_at > $2
    AND (idle_ms IS NULL OR seen_at + idle_ms > $2) AND (expires_at <= $3 OR seen_at + idle_ms <= $3)";
// No application is in a call for its user.
const STANDS: &str =
    "SELECT COUNT(*) FROM session WHERE tenant = $1 AND subject = $2 AND client IS NULL AND expires_at > $3
    AND (idle_ms IS NULL OR seen_at + idle_ms > $3)";

/// How often sessions that ended by silence or time are looked for: what they hold open stays open this much longer.
const LOOK: Duration = Duration::from_secs(10);

/// Why a session ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody ends it, and all that it holds open.
    Wanted,
    /// A newer one of the same person takes its place.
    Replaced,
}

impl Sessions {
    /// Whose sessions ended.
    pub(super) async fn ended_as(
        &self,
        tx: &mut Tx,
        sql: &'static str,
        which: &[crate::Val],
        why: Why,
    ) -> Result<Vec<String>> {
        let rows = tx.query(sql, which).await?;
        if !rows.is_empty() {
            crate::policy::withdrawn(tx).await?;
        }
        let mut ended = Vec::new();
        for row in rows {
            let (subject, now) = (row.string(0)?, tx.now());
            let mut elsewhere = row.opt_text(2)?.is_some();
            if !elsewhere && why == Why::Replaced {
                let stands = tx.query(STANDS, &[subject.as_str().into(), now.into()]).await?;
                elsewhere = stands.first().map(|row| row.i64(0)).transpose()?.unwrap_or(0) > 0;
            }
            let body = Revoked {
                session: row.uuid(1)?,
                elsewhere,
                subject,
            };
            let event = Event::of(tx, "session.revoked", body.subject.clone(), &body)?;
            self.bus.publish_after(tx, event);
            ended.push(body.subject);
        }
        Ok(ended)
    }

    /// Its owner proved themselves again: the session goes on under a new token, and the old one opens nothing any more.
    pub async fn renew(&self, tx: &mut Tx, session: Uuid, assurance: Assurance) -> Result<String> {
        let token = format!("mt_{}_{}", tx.tenant(), id::token());
        let now = tx.now();
        let hash = id::sha256(token.as_bytes());
        tx.exec(
            RENEW,
            &[session.into(), hash.into(), assurance.name().into(), now.into()],
        )
        .await?;
        // Whoever still holds something open by the old token is looked at again.
        crate::policy::withdrawn(tx).await?;
        Ok(token)
    }

    /// Ends the session of a token, whoever's it is: holding it is enough to put it away. Its subject, if there was one.
    pub async fn revoke_token(&self, tx: &mut Tx, token: &str) -> Result<Option<String>> {
        let hash = id::sha256(token.as_bytes());
        let ended = self.ended_as(tx, REVOKE_TOKEN, &[hash.into()], Why::Replaced).await?;
        Ok(ended.into_iter().next())
    }

    /// Ends the oldest sessions of a subject beyond the `most` newest ones; how many.
    pub async fn keep_newest(&self, tx: &mut Tx, subject: &str, most: usize) -> Result<usize> {
        let now = tx.now();
        let rows = tx.query(BEYOND, &[subject.into(), now.into()]).await?;
        let old: Vec<Uuid> = rows.iter().skip(most).map(|row| row.uuid(0)).collect::<Result<_>>()?;
        for session in &old {
            let which = [(*session).into()];
            self.ended_as(tx, super::REVOKE_ID, &which, Why::Replaced).await?;
        }
        Ok(old.len())
    }

    /// Closes what sessions hold open that ended by silence or by their time after `since`, `until` at the latest. The rows
    /// stay: a token that ended by time is told from one that never was.
    pub async fn close_over(&self, tenant: TenantId, since: Millis, until: Millis) -> Result<usize> {
        let rows = self.db.query(tenant, OVER, &[since.into(), until.into()]).await?;
        for row in &rows {
            let subject = row.string(0)?;
            let args = [subject.as_str().into(), until.into()];
            let stands = self.db.query_one(tenant, STANDS, &args).await?.i64(0)?;
            let body = Revoked {
                session: row.uuid(1)?,
                elsewhere: stands > 0 || row.opt_text(2)?.is_some(),
                subject,
            };
            let event = Event::new(&self.clock, tenant, "session.revoked", body.subject.clone(), &body)?;
            self.bus.publish(event);
        }
        Ok(rows.len())
    }

    /// Looks for sessions that ended by silence or time, until `stop` turns true.
    pub async fn watch_over(self, tenants: Tenants, mut stop: watch::Receiver<bool>) {
        let mut since = self.clock.now_ms();
        let mut every = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let until = self.clock.now_ms();
            let mut whole = true;
            for tenant in tenants.all() {
                if let Err(e) = self.close_over(tenant.id, since, until).await {
                    whole = false;
                    tracing::warn!(tenant = %tenant.id, error = ?e, "sessions that are over will be looked for again");
                }
            }
            // A clock that was set back must not hide what ends meanwhile.
            if whole || until < since {
                since = until;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::OVER;
    use crate::{
        Val,
        db::{Engine, Sql},
        testkit::on_both_engines,
    };

    /// Asked of every clinic every few seconds.
    #[tokio::test]
    async fn sessions_that_are_over_are_not_looked_for_among_all() {
        on_both_engines(&[], |w| {
            Box::pin(async move {
                if w.ctx.db.engine() == Engine::Postgres {
                    // Its plan follows from how much there is.
                    return Ok(());
                }
                let by_id = "SELECT subject FROM session WHERE tenant = $1 AND id = $2";
                let id = Val::from(uuid::Uuid::nil());
                for (sql, args, index) in [
                    (OVER, vec![1_i64.into(), 2_i64.into()], "session_expires"),
                    (by_id, vec![id], "session_id"),
                ] {
                    let text = Sql::built(format!("EXPLAIN QUERY PLAN {sql}"));
                    let plan = w.ctx.db.query_one(w.north.id, text, &args).await?;
                    let plan = plan.text(3)?;
                    assert!(plan.contains(&format!("INDEX {index} ")), "{plan}");
                }
                Ok(())
            })
        })
        .await;
    }
}
