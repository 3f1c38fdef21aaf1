//! Rooms after a withdrawal: whoever is connected, or takes part as a colleague, is asked for again, and goes when the policy
//! says no. At once when access was withdrawn, and every [`EVERY`] for what nobody heard of (a lost event, another server's change, time that ran out).

use super::{
    Visits,
    media::{MediaEvent, Present, Rights},
    store,
};
use medtech_kernel::{Result, TenantId, auth::Principal, clock::Millis, policy::Resource};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

const EVERY: Duration = Duration::from_secs(30);

/// A difference between the rooms and what is written that is older than this is no event on its way.
const ON_ITS_WAY_MS: Millis = 5_000;

/// A connection that is there and not written, or (`active` is false) written and not there.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Difference {
    tenant: TenantId,
    visit: Uuid,
    subject: String,
    connection: String,
    active: bool,
}

/// Which tenants wait for a look, and who was put out: their old tokens open a room without rights until they get a new one.
#[derive(Default)]
pub(super) struct Recheck {
    /// At most one entry a tenant: withdrawals that come together are one look.
    waiting: Mutex<HashSet<TenantId>>,
    wake: Notify,
    barred: Mutex<HashSet<(TenantId, Uuid, String)>>,
    /// Found at the last look, and since when.
    differ: Mutex<HashMap<Difference, Millis>>,
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
        let mut connected = HashMap::new();
        for Present {
            room,
            identity,
            connection,
        } in self.0.media.present(tenant).await?
        {
            if let Ok(visit) = room.parse::<Uuid>() {
                if let Some(connection) = connection {
                    connected.insert((visit, identity.clone()), connection);
                }
                seen.insert((visit, identity));
            }
        }
        if let Err(e) = self.reconcile(tenant, connected).await {
            tracing::error!(%tenant, error = ?e, "who is connected could not be compared");
        }
        // A room that missed a change of its visit: first what the visit says, then what the policy takes away.
        for visit in seen.iter().map(|(visit, _)| *visit).collect::<HashSet<_>>() {
            self.sync_now(tenant, visit).await;
        }
        for (visit, identity) in seen.clone() {
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

    /// Makes good what events that were lost should have told: who is connected now, and who is not any more.
    async fn reconcile(&self, tenant: TenantId, mut here: HashMap<(Uuid, String), String>) -> Result<()> {
        let now = self.0.ctx.clock.now_ms();
        let difference = |(visit, subject), connection, active| Difference {
            tenant,
            visit,
            subject,
            connection,
            active,
        };
        let mut found = Vec::new();
        for (visit, subject, connection) in store::connections(&self.0.ctx.db, tenant).await? {
            let key = (visit, subject);
            match here.get(&key) {
                Some(other) if *other == connection => drop(here.remove(&key)),
                // Taken for the other one below.
                Some(_) => {}
                None => found.push(difference(key, connection, false)),
            }
        }
        found.extend(
            here.into_iter()
                .map(|(key, connection)| difference(key, connection, true)),
        );
        let old: Vec<(Difference, Millis)> = {
            let mut differ = self.0.recheck.differ.lock().unwrap_or_else(PoisonError::into_inner);
            let found: HashMap<Difference, Millis> = found
                .into_iter()
                .map(|d| (differ.get(&d).copied().unwrap_or(now), d))
                .map(|(since, d)| (d, since))
                .collect();
            differ.retain(|d, _| d.tenant != tenant);
            differ.extend(found.clone());
            found
                .into_iter()
                .filter(|(_, since)| now - since >= ON_ITS_WAY_MS)
                .collect()
        };
        for (
            Difference {
                visit,
                subject,
                connection,
                active,
                ..
            },
            at,
        ) in old
        {
            let event = MediaEvent {
                tenant,
                room: visit.to_string(),
                identity: subject,
                connection,
                active,
                at,
            };
            if let Err(e) = self.on_media_event(event).await {
                tracing::error!(%tenant, %visit, error = ?e, "who is connected could not be written");
            }
        }
        Ok(())
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
}
