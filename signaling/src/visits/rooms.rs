//! Rooms follow their visits: one task brings them in line, and again until it has worked.

use super::{Visits, machine::Side, machine::State, media::Rights, store};
use medtech_kernel::{Result, TenantId};
use std::{collections::HashMap, time::Duration};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

/// What failed is tried again this soon.
const AGAIN: Duration = Duration::from_secs(1);
/// Rooms kept that could not be brought in line. Beyond, the look every half minute finds who is still there.
const LATE: usize = 4096;

/// A room to bring in line with its visit. It says which, not what: whatever the order of commands was, the last look
/// at the visit decides.
pub(crate) struct Sync {
    pub tenant: TenantId,
    pub id: Uuid,
    /// Who gave up the place and is to be disconnected.
    pub remove: Option<String>,
    /// Told when it was tried.
    pub tried: Option<oneshot::Sender<()>>,
}

impl Sync {
    pub(super) fn new(tenant: TenantId, id: Uuid) -> Self {
        Self {
            tenant,
            id,
            remove: None,
            tried: None,
        }
    }
}

impl Visits {
    /// Brings a room in line with its visit, soon.
    pub(super) async fn sync(&self, sync: Sync) {
        // Fails only when the process stops, and then the rooms stop too.
        let _ = self.0.sync.send(sync).await;
    }

    /// Brings a room in line with its visit, and waits until that was tried.
    pub(super) async fn sync_now(&self, tenant: TenantId, id: Uuid) {
        let (tried, answer) = oneshot::channel();
        let tried = Some(tried);
        self.sync(Sync {
            tried,
            ..Sync::new(tenant, id)
        })
        .await;
        // Unanswered only when the process stops.
        let _ = answer.await;
    }

    pub(super) async fn bring_in_line_until(self, mut inbox: mpsc::Receiver<Sync>, mut stop: watch::Receiver<bool>) {
        // By visit, with who is to be disconnected: at most one entry each.
        let mut late: HashMap<(TenantId, Uuid), Option<String>> = HashMap::new();
        let mut again = self.0.ctx.clock.every(AGAIN);
        loop {
            let due = tokio::select! {
                sync = inbox.recv() => match sync {
                    Some(sync) => vec![sync],
                    None => return,
                },
                () = again.next() => late.keys().map(|(tenant, id)| Sync::new(*tenant, *id)).collect(),
                _ = stop.wait_for(|s| *s) => return,
            };
            for mut sync in due {
                let key = (sync.tenant, sync.id);
                let before = late.remove(&key);
                sync.remove = sync.remove.or(before.clone().flatten());
                if let Err(e) = self.bring_in_line(&sync).await {
                    if before.is_none() {
                        tracing::error!(tenant = %sync.tenant, visit = %sync.id, error = ?e, "room does not follow its visit yet");
                    }
                    if late.len() < LATE {
                        late.insert(key, sync.remove.take());
                    } else {
                        tracing::error!(tenant = %sync.tenant, visit = %sync.id, "too many rooms do not follow their visits");
                    }
                }
                if let Some(tried) = sync.tried {
                    // Nobody waits any more.
                    let _ = tried.send(());
                }
            }
        }
    }

    pub(super) async fn bring_in_line(&self, sync: &Sync) -> Result<()> {
        let Some(record) = store::read(&self.0.ctx.db, sync.tenant, sync.id).await? else {
            return Ok(());
        };
        let (media, room) = (&self.0.media, sync.id.to_string());
        if record.now.state == State::Ended {
            return media.close(sync.tenant, &room).await;
        }
        if let Some(identity) = &sync.remove
            && record.now.guest.connection.is_none()
        {
            media.remove(sync.tenant, &room, identity).await?;
        }
        let colleagues = record
            .colleagues
            .iter()
            .map(|c| (&c.subject, record.colleague_rights()));
        for (subject, rights) in std::iter::once((&record.guest.subject, record.rights(Side::Guest))).chain(colleagues)
        {
            // Who was put out has no rights until they are let in again.
            let barred = self.0.recheck.is_barred(sync.tenant, sync.id, subject);
            let rights = if barred { Rights::NONE } else { rights };
            media.set_rights(sync.tenant, &room, subject, rights).await?;
        }
        Ok(())
    }
}
