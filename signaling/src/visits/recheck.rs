//! Rooms after a withdrawal: whoever is connected, or takes part as a colleague, is asked for again, and goes when the policy
//! says no. At once when access was withdrawn, and every [`EVERY`] for what nobody heard of (a lost event, another server's change, time that ran out).

use super::{Visits, background::Sync, media::Rights, store};
use medtech_kernel::{Result, TenantId, auth::Principal, policy::Resource};
use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

const EVERY: Duration = Duration::from_secs(30);

/// Which tenants wait for a look, and who was put out: their old tokens open a room without rights until they get a new one.
#[derive(Default)]
pub(super) struct Recheck {
    /// At most one entry a tenant: withdrawals that come together are one look.
    waiting: Mutex<HashSet<TenantId>>,
    wake: Notify,
    barred: Mutex<HashSet<(TenantId, Uuid, String)>>,
}

impl Recheck {
    fn barred(&self) -> MutexGuard<'_, HashSet<(TenantId, Uuid, String)>> {
        self.barred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_barred(&self, tenant: TenantId, visit: Uuid, subject: &str) -> bool {
        self.barred().contains(&(tenant, visit, subject.to_owned()))
    }

    pub(super) fn bar(&self, tenant: TenantId, visit: Uuid, subject: &str) {
        self.barred().insert((tenant, visit, subject.to_owned()));
    }

    /// Was it barred until now?
    pub(super) fn open_again(&self, tenant: TenantId, visit: Uuid, subject: &str) -> bool {
        self.barred().remove(&(tenant, visit, subject.to_owned()))
    }

    /// A visit that ended has no room any more.
    pub(super) fn forget(&self, tenant: TenantId, visit: Uuid) {
        self.barred().retain(|(t, v, _)| (*t, *v) != (tenant, visit));
    }
}

impl Visits {
    /// Access may have been withdrawn in a clinic: its rooms are looked at at once. Never waits.
    pub fn look_again(&self, tenant: TenantId) {
        let mut waiting = self.0.recheck.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(tenant);
        self.0.recheck.wake.notify_one();
    }

    pub(super) async fn recheck_until(self, mut stop: watch::Receiver<bool>) {
        let mut every = self.0.ctx.clock.every(EVERY);
        loop {
            let tenants: Vec<TenantId> = tokio::select! {
                () = every.next() => self.0.ctx.tenants.all().into_iter().map(|t| t.id).collect(),
                () = self.0.recheck.wake.notified() => {
                    let mut waiting = self.0.recheck.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    std::mem::take(&mut *waiting).into_iter().collect()
                }
                _ = stop.wait_for(|s| *s) => return,
            };
            for tenant in tenants {
                if let Err(e) = self.recheck(tenant).await {
                    tracing::error!(%tenant, error = ?e, "who is in the rooms could not be looked at again");
                }
            }
        }
    }

    /// Looks at everyone in the rooms of a clinic, and at the colleagues who are in none; answers how many went.
    pub async fn recheck(&self, tenant: TenantId) -> Result<usize> {
        let (mut gone, mut seen) = (0, HashSet::new());
        for (room, identity) in self.0.media.present(tenant).await? {
            let Ok(visit) = room.parse::<Uuid>() else { continue };
            seen.insert((visit, identity.clone()));
            if !self.may_stay(tenant, visit, &identity).await? {
                self.put_out(tenant, visit, identity).await?;
                gone += 1;
            }
        }
        // A colleague's part holds the visit's conversation open, with or without media. Nobody has to be signed in to lose
        // it: who joined and left everything comes back by joining again.
        for (visit, subject) in store::colleagues(&self.0.ctx.db, tenant).await? {
            let here = seen.contains(&(visit, subject.clone()));
            if here || self.may_stay(tenant, visit, &subject).await? {
                continue;
            }
            tracing::info!(%tenant, %visit, subject, "the part of a colleague whose access was withdrawn ends");
            match self.end_part(tenant, "system", visit, subject).await {
                Ok(_) => gone += 1,
                // A relation to no visit gives no conversation.
                Err(e) if e.code == "visit.unknown" => {}
                Err(e) => return Err(e),
            }
        }
        Ok(gone)
    }

    async fn may_stay(&self, tenant: TenantId, visit: Uuid, subject: &str) -> Result<bool> {
        let sessions = self.0.ctx.sessions.standing(tenant, subject).await?;
        let asked = Resource::new("visit", visit.to_string());
        self.0.ctx.policy.may_stay(&sessions, &asked).await
    }

    async fn put_out(&self, tenant: TenantId, visit: Uuid, subject: String) -> Result<()> {
        let Some(record) = store::read(&self.0.ctx.db, tenant, visit).await? else {
            // Not a room of a visit: whoever made it decides.
            return Ok(());
        };
        tracing::info!(%tenant, %visit, subject, "somebody whose access was withdrawn is put out of a room");
        self.0.recheck.bar(tenant, visit, &subject);
        let room = visit.to_string();
        // First the rights, which hold for whoever comes back with an older token.
        self.0.media.set_rights(tenant, &room, &subject, Rights::NONE).await?;
        self.0.media.remove(tenant, &room, &subject).await?;
        if record.colleague(&subject).is_some() {
            // With the call goes the conversation, and they are no longer shown as taking part.
            self.end_part(tenant, "system", visit, subject).await?;
        }
        Ok(())
    }

    /// The policy has let somebody in: what an earlier withdrawal barred is open again.
    pub(super) async fn let_in(&self, who: &Principal, visit: Uuid, rights: Rights) -> Result<()> {
        if self.0.recheck.open_again(who.tenant, visit, &who.subject) {
            let room = visit.to_string();
            self.0.media.set_rights(who.tenant, &room, &who.subject, rights).await?;
        }
        Ok(())
    }

    /// Brings a room in line with its visit, soon.
    pub(super) async fn sync(&self, sync: Sync) {
        // Fails only when the process stops, and then the rooms stop too.
        let _ = self.0.sync.send(sync).await;
    }
}
