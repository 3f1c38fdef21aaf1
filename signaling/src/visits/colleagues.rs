//! Colleagues in somebody else's visit: whoever may see the patient's chart may join, in sight of everyone in it and of the
//! trail. They may do in the call what the guest may, and lead nothing.

use super::{
    Visits, ended,
    machine::State,
    media::Rights,
    model::{May, Record},
    not_found,
    rooms::Sync,
    store,
};
use medtech_kernel::{
    Error, Result, Tx, audit,
    auth::Principal,
    policy::{Action, COLLEAGUE, Resource, patient_of, relate_as, unrelate},
};
use uuid::Uuid;

/// More than this many would make a lecture of a visit.
const MOST: usize = 5;

impl Visits {
    /// What somebody of the clinic may do with this visit now.
    pub(super) async fn may(&self, who: &Principal, record: &Record) -> Result<Vec<May>> {
        let mut all = Vec::new();
        if record.now.state == State::Ended {
            return Ok(all);
        }
        let visit = Resource::new("visit", record.id.to_string());
        let policy = &self.0.ctx.policy;
        if policy.decide(who, Action::Admit, &visit).await?.allow {
            all.push(May::Lead);
        }
        let known = record.side(&who.subject).is_some() || record.colleague(&who.subject).is_some();
        if known && policy.decide(who, Action::Join, &visit).await?.allow {
            all.push(May::Talk);
        } else if !known && policy.decide(who, Action::Publish, &visit).await?.allow {
            all.push(May::Join);
        }
        Ok(all)
    }

    /// The caller has asked the policy.
    pub(super) async fn attend(&self, who: &Principal, id: Uuid) -> Result<Record> {
        let (this, who) = (self.clone(), who.clone());
        let (tenant, subject) = (who.tenant, who.subject.clone());
        let record = self
            .0
            .ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move { this.attend_in(tx, &who, id).await })
            })
            .await?;
        self.0.recheck.open_again(tenant, id, &subject);
        self.sync(Sync::new(tenant, id)).await;
        Ok(record)
    }

    async fn attend_in(&self, tx: &mut Tx, who: &Principal, id: Uuid) -> Result<Record> {
        let record = store::take(tx, id).await?.ok_or_else(not_found)?;
        if record.now.state == State::Ended {
            return Err(ended());
        }
        if record.side(&who.subject).is_some() || record.colleague(&who.subject).is_some() {
            return Ok(record);
        }
        if record.colleagues.len() >= MOST {
            return Err(Error::conflict("visit.full", "No more colleagues can join this visit."));
        }
        for kind in ["visit", "encounter"] {
            relate_as(tx, &who.subject, COLLEAGUE, &format!("{kind}:{id}"), &who.name).await?;
        }
        if let Some(conversation) = record.conversation {
            self.0
                .conversations
                .add_in(tx, conversation, &who.subject, &who.name)
                .await?;
        }
        self.noted(tx, &who.subject, &record, "a colleague joined").await?;
        let record = store::peek(tx, id).await?.ok_or_else(not_found)?;
        self.show(tx, &record, false).await?;
        Ok(record)
    }

    /// Ends a colleague's part in a visit. Nothing happens when they have none.
    pub(super) async fn dismiss(&self, who: &Principal, id: Uuid, subject: String) -> Result<Record> {
        self.end_part(who.tenant, &who.subject, id, subject).await
    }

    pub(super) async fn end_part(
        &self,
        tenant: medtech_kernel::TenantId,
        actor: &str,
        id: Uuid,
        subject: String,
    ) -> Result<Record> {
        let (this, actor, gone) = (self.clone(), actor.to_owned(), subject.clone());
        let record = self.0.ctx.db.write(tenant, move |tx| {
            Box::pin(async move {
                let mut record = store::take(tx, id).await?.ok_or_else(not_found)?;
                let was = record.colleague(&subject).is_some();
                if was {
                    this.dismiss_in(tx, &record, &subject).await?;
                    this.noted(tx, &actor, &record, &format!("a colleague's part ended: {subject}"))
                        .await?;
                    record.colleagues.retain(|c| c.subject != subject);
                    this.show(tx, &record, false).await?;
                }
                Ok((record, was))
            })
        });
        let (record, was) = record.await?;
        if was {
            self.0.recheck.bar(tenant, id, &gone);
            let room = id.to_string();
            self.0.media.set_rights(tenant, &room, &gone, Rights::NONE).await?;
            self.0.media.remove(tenant, &room, &gone).await?;
        }
        Ok(record)
    }

    pub(super) async fn dismiss_in(&self, tx: &mut Tx, record: &Record, subject: &str) -> Result<()> {
        for kind in ["visit", "encounter"] {
            unrelate(tx, subject, COLLEAGUE, &format!("{kind}:{}", record.id)).await?;
        }
        match record.conversation {
            Some(conversation) => self.0.conversations.remove_in(tx, conversation, subject).await,
            None => Ok(()),
        }
    }

    async fn noted(&self, tx: &mut Tx, actor: &str, record: &Record, detail: &str) -> Result<()> {
        let target = format!("visit:{}", record.id);
        let entry = audit::Entry {
            actor,
            action: "update",
            target: &target,
            outcome: "success",
            detail,
        };
        let patient = patient_of(tx, &target).await?;
        audit::write_all(tx, &[(entry, patient.as_deref())]).await
    }
}
