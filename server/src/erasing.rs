//! What the hub keeps of a patient, for the engine of records when it erases one: the conversations of their visits, with the
//! files, and how the visits call them.

use medtech_fhir::Elsewhere;
use medtech_kernel::{
    BoxFuture, Ctx, Result, TenantId, Tx,
    audit::{self, Entry},
};
use medtech_messaging::Messaging;
use medtech_signaling::visits;
use std::sync::Arc;
use uuid::Uuid;

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Visited {
    ctx: Ctx,
    messaging: Arc<Messaging>,
}

/// What goes in the one transaction that ends it.
struct Ending {
    patient: String,
    actor: String,
    visits: Vec<Uuid>,
    /// Accounts of the patient; the guests of the visits are theirs, too.
    own: Vec<String>,
    /// Conversations, each with the files whose keys are destroyed.
    conversations: Vec<(Uuid, Vec<Uuid>)>,
}

impl Visited {
    pub(crate) fn new(ctx: Ctx, messaging: Arc<Messaging>) -> Self {
        Self { ctx, messaging }
    }

    async fn take_away(&self, tenant: TenantId, patient: &str, actor: &str) -> Result<bool> {
        let (policy, object) = (&self.ctx.policy, format!("patient:{patient}"));
        let topics = policy.subjects_of(tenant, &object, "about").await?;
        let visits: Vec<Uuid> = topics
            .iter()
            .filter_map(|t| t.strip_prefix("visit:")?.parse().ok())
            .collect();
        if visits.is_empty() {
            return Ok(false);
        }
        let own = policy.subjects_of(tenant, &object, "self").await?;
        loop {
            let mut conversations = Vec::new();
            for topic in &topics {
                for conversation in self.messaging.standing(tenant, topic).await? {
                    let files = self.messaging.shred(tenant, conversation, actor).await?;
                    conversations.push((conversation, files));
                }
            }
            let ending = Ending {
                patient: patient.to_owned(),
                actor: actor.to_owned(),
                visits: visits.clone(),
                own: own.clone(),
                conversations,
            };
            let messaging = self.messaging.clone();
            let done = self
                .ctx
                .db
                .write(tenant, move |tx| {
                    Box::pin(async move { ending.write(tx, &messaging).await })
                })
                .await?;
            // Otherwise a file came in between: once more, with its key.
            if let Some(done) = done {
                return Ok(done);
            }
        }
    }
}

impl Ending {
    /// Whether there was anything; `None` when the keys have to be looked at again.
    async fn write(self, tx: &mut Tx, messaging: &Messaging) -> Result<Option<bool>> {
        let (mut subjects, mut named) = (self.own, 0);
        for visit in &self.visits {
            if let Some((guest, changed)) = visits::forget_in(tx, *visit).await? {
                subjects.push(guest);
                named += u64::from(changed);
            }
        }
        for (conversation, files) in &self.conversations {
            if !messaging.blank_in(tx, *conversation, files, &subjects).await? {
                return Ok(None);
            }
        }
        if named == 0 && self.conversations.is_empty() {
            return Ok(Some(false));
        }
        let files: usize = self.conversations.iter().map(|(_, files)| files.len()).sum();
        let detail = format!(
            "erased: conversations {}, files {files}, visits {named}",
            self.conversations.len()
        );
        let target = format!("Patient/{}", self.patient);
        let entry = Entry {
            actor: &self.actor,
            action: "delete",
            target: &target,
            outcome: "success",
            detail: &detail,
        };
        audit::write(tx, entry).await?;
        Ok(Some(true))
    }
}

impl Elsewhere for Visited {
    fn erase<'a>(&'a self, tenant: TenantId, patient: &'a str, actor: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.take_away(tenant, patient, actor))
    }
}
