//! Opening a visit by its link: one browser at a time, no account.

use super::{
    Command, Visits,
    machine::{Input, State},
    model::View,
    over, store,
};
use medtech_kernel::{
    Error, Result, TenantId, Tx,
    auth::{Assurance, NewSession, Role},
    id,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A guest's session lasts at most this long; it is revoked soon after the visit's end anyway.
const SESSION_MS: i64 = 12 * 3_600_000;

#[derive(Debug, Deserialize)]
pub(crate) struct Open {
    pub link: String,
    pub device: Device,
    #[serde(default)]
    pub take_over: bool,
}

/// The browser: an id it keeps for itself, and what it calls itself.
#[derive(Debug, Deserialize)]
pub(crate) struct Device {
    pub id: Uuid,
    #[serde(default)]
    pub name: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Opened {
    pub access_token: String,
    pub visit: View,
    pub me: super::model::Person,
}

impl Visits {
    pub(crate) async fn open(&self, tenant: TenantId, ask: Open) -> Result<Opened> {
        let this = self.clone();
        let (token, record) = self
            .0
            .ctx
            .db
            .write(tenant, move |tx| Box::pin(this.open_in(tx, ask)))
            .await?;
        let who = self.0.ctx.sessions.verify(tenant, &token).await?;
        let visit = self.view(&who, &record).await?;
        Ok(Opened {
            access_token: token,
            visit,
            me: record.guest,
        })
    }

    async fn open_in(self, tx: &mut Tx, ask: Open) -> Result<(String, super::Record)> {
        let invalid = || {
            Error::forbidden(
                "visit.link_invalid",
                "This link is not valid. Please open it exactly as you received it.",
            )
        };
        let hash = id::sha256(ask.link.as_bytes());
        let link = store::link(tx, hash).await?.ok_or_else(invalid)?;
        let record = store::take(tx, link.visit).await?.ok_or_else(invalid)?;
        // Read again behind the visit's row: of two browsers that open at once, the second sees the first.
        let link = store::link(tx, hash).await?.ok_or_else(invalid)?;
        if record.now.state == State::Ended {
            return Err(over(&record));
        }
        let same = link.device == Some(ask.device.id);
        let under_way = record.now.state == State::Waiting || record.now.state.is_inside();
        if link.expires_at <= tx.now() && !(same && under_way) {
            return Err(Error::gone(
                "visit.link_expired",
                "This link has expired. Please ask the clinic for a new one.",
            ));
        }
        let key = (tx.tenant(), record.id);
        if link.device.is_some() && !same {
            if self.0.seen.holds(key, tx.now()) {
                return Err(Error::conflict(
                    "visit.link_in_use",
                    "This visit is open on another device. Close it there, or try again half a minute after it was closed.",
                ));
            }
            if !ask.take_over {
                return Err(Error::conflict(
                    "visit.link_in_use",
                    "This visit was opened on another device. You can continue here instead.",
                ));
            }
            self.0.ctx.sessions.revoke_subject(tx, &record.guest.subject).await?;
        }
        let name: String = ask.device.name.chars().filter(|c| !c.is_control()).take(100).collect();
        if !same {
            store::bind(tx, hash, ask.device.id, &name).await?;
        }
        let session = NewSession {
            subject: record.guest.subject.clone(),
            name: record.guest.name.clone(),
            roles: vec![Role::Guest],
            ttl_ms: SESSION_MS,
            note: name,
            grant: Assurance::Bearer.into(),
            idle_ms: None,
        };
        let (token, _) = self.0.ctx.sessions.issue(tx, session).await?;
        self.0.seen.touch(key, tx.now());
        let command = Command::new(&record.guest.subject, "open", None);
        let record = self.step(tx, record, &command, &Input::Open, |_| {}).await?;
        Ok((token, record))
    }
}
