//! What goes on beside the requests: last sights written, and the start.

use super::{Command, Visits, machine::Input, rooms::Sync, store};
use medtech_kernel::{Error, Result, TenantId, audit, policy::relate};
use std::{sync::PoisonError, time::Duration};
use tokio::{sync::watch, task::JoinHandle};
use uuid::Uuid;

/// How often those connected are written down as seen: after a crash an open interval is at most this much too short.
pub(super) const BEAT: Duration = Duration::from_secs(3);

impl Visits {
    /// Repairs what a crash left open and starts the tasks. Call once, before serving; they end when `stop` turns true.
    pub async fn start(&self, stop: watch::Receiver<bool>) -> Result<Vec<JoinHandle<()>>> {
        self.relate_older().await?;
        self.recover().await?;
        let inbox = self.0.sync_inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        let inbox = inbox.ok_or_else(|| Error::internal("visit.started_twice", "visits were started before"))?;
        let rooms = tokio::spawn(self.clone().bring_in_line_until(inbox, stop.clone()));
        let (this, mut stopping) = (self.clone(), stop.clone());
        let beats = tokio::spawn(async move {
            let mut every = tokio::time::interval(BEAT);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    _ = every.tick() => {}
                    _ = stopping.wait_for(|s| *s) => return,
                }
                this.beat().await;
            }
        });
        let again = tokio::spawn(self.clone().recheck_until(stop));
        Ok(vec![rooms, beats, again])
    }

    /// Visits asked for before they were related to the patient they are about: without that nobody could join them as a
    /// colleague, nor the patient's refusals hold. What is related already stays as it is.
    async fn relate_older(&self) -> Result<()> {
        for tenant in self.0.ctx.tenants.all() {
            match self.relate_older_of(tenant.id).await {
                // That clinic cannot be served; the others are.
                Err(e) if e.is_refused_file() => {}
                other => other?,
            }
        }
        Ok(())
    }

    async fn relate_older_of(&self, tenant: TenantId) -> Result<()> {
        let unrelated = store::about_nobody(&self.0.ctx.db, tenant).await?;
        // A transaction each: a clinic with many visits must not hold up the others' writes.
        for (visit, patient) in unrelated {
            let related = self.0.ctx.db.write(tenant, move |tx| {
                Box::pin(async move {
                    let target = format!("visit:{visit}");
                    relate(tx, &target, "about", &format!("patient:{patient}"), None).await?;
                    let entry = audit::Entry {
                        actor: "system",
                        action: "update",
                        target: &target,
                        outcome: "success",
                        detail: "related to the patient it is about",
                    };
                    audit::write_all(tx, &[(entry, Some(&patient))]).await
                })
            });
            related.await?;
        }
        Ok(())
    }

    /// No connection outlives the process: open intervals end when their participant was last seen.
    async fn recover(&self) -> Result<()> {
        for tenant in self.0.ctx.tenants.all() {
            match self.recover_of(tenant.id).await {
                // That clinic cannot be served; the others are.
                Err(e) if e.is_refused_file() => {}
                other => other?,
            }
        }
        Ok(())
    }

    async fn recover_of(&self, tenant: TenantId) -> Result<()> {
        for id in store::connected(&self.0.ctx.db, tenant).await? {
            let this = self.clone();
            self.0
                .ctx
                .db
                .write(tenant, move |tx| {
                    Box::pin(async move {
                        let Some(record) = store::take(tx, id).await? else {
                            return Ok(());
                        };
                        let input = Input::Restarted {
                            host_seen: record.host_seen,
                            guest_seen: record.guest_seen,
                        };
                        this.step(tx, record, &Command::new("system", "restart", None), &input, |_| {})
                            .await
                            .map(|_| ())
                    })
                })
                .await?;
            tracing::info!(%tenant, visit = %id, "visit continues after a restart");
        }
        // The rooms have forgotten who may do what: a token made before the restart must not open a lobby, nor keep
        // out someone who was admitted since.
        for id in store::under_way(&self.0.ctx.db, tenant).await? {
            if let Err(e) = self.bring_in_line(&Sync::new(tenant, id)).await {
                tracing::error!(%tenant, visit = %id, error = ?e, "room does not follow its visit yet");
                // Tried again by the task. When there are too many of them, by the look every half minute.
                let _ = self.0.sync.try_send(Sync::new(tenant, id));
            }
        }
        Ok(())
    }

    /// One clinic's trouble is not another's, nor one visit's: it is told, and made good at the next beat.
    pub(super) async fn beat(&self) {
        for tenant in self.0.seen.connected_tenants() {
            if let Err(e) = self.0.ctx.db.write(tenant, |tx| Box::pin(store::beat(tx))).await {
                tracing::warn!(%tenant, error = ?e, "visits: could not write who is connected");
            }
        }
        for (tenant, visit) in self.0.seen.turned(self.0.ctx.clock.now_ms()) {
            if let Err(e) = self.show_turned(tenant, visit).await {
                self.0.seen.not_shown((tenant, visit));
                tracing::warn!(%tenant, %visit, error = ?e, "visits: could not show who is there");
            }
        }
    }

    async fn show_turned(&self, tenant: TenantId, id: Uuid) -> Result<()> {
        let this = self.clone();
        let shown = self.0.ctx.db.write(tenant, move |tx| {
            Box::pin(async move {
                // Taken, so that the view carries a newer `rev` than the last one.
                match store::take(tx, id).await? {
                    Some(record) => this.show(tx, &record, false).await,
                    None => Ok(()),
                }
            })
        });
        shown.await
    }
}
