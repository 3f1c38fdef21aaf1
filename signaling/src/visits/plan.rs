//! What whoever asked for a visit says of it later: another time, another patient, or that it is off.

use super::{
    Command, Visits,
    machine::{Input, State},
    model::{Cancelled, Rescheduled},
    store,
};
use medtech_kernel::{
    Module, Result, Tx, audit,
    bus::{Event, once},
    policy::{relate, unrelate},
};
use uuid::Uuid;

impl Visits {
    pub(super) async fn rescheduled(&self, event: &Event) -> Result<()> {
        let plan: Rescheduled = event.parse()?;
        let (this, id) = (self.clone(), event.id);
        let actor = event.actor.clone().unwrap_or_else(|| "system".to_owned());
        let moved = self.0.ctx.db.write(event.tenant, move |tx| {
            Box::pin(async move { this.rescheduled_in(tx, id, &actor, &plan).await })
        });
        moved.await
    }

    /// Nothing changes for a visit that somebody waits in, or is in, or that is over.
    async fn rescheduled_in(&self, tx: &mut Tx, event: Uuid, actor: &str, plan: &Rescheduled) -> Result<()> {
        if !once(tx, Self::NAME, event).await? {
            return Ok(());
        }
        let Some(before) = store::take(tx, plan.visit_id).await? else {
            return Ok(());
        };
        if !matches!(before.now.state, State::Scheduled | State::DeviceCheck) {
            return Ok(());
        }
        store::reschedule(tx, &before, plan).await?;
        let target = format!("visit:{}", before.id);
        let patient = |reference: &Option<String>| {
            let id = reference.as_ref()?.strip_prefix("Patient/")?;
            Some(id.to_owned())
        };
        let (was, is) = (patient(&before.subject_ref), patient(&plan.subject_ref));
        if let (Some(is), true) = (&is, was != is) {
            if let Some(was) = &was {
                unrelate(tx, &target, "about", &format!("patient:{was}")).await?;
            }
            relate(tx, &target, "about", &format!("patient:{is}"), None).await?;
        }
        let entry = audit::Entry {
            actor,
            action: "update",
            target: &target,
            outcome: "success",
            detail: "rescheduled",
        };
        // It stands in the log of the patient it was about, too.
        let about: Vec<Option<&str>> = match (&was, &is) {
            (Some(was), Some(is)) if was != is => vec![Some(was), Some(is)],
            (was, is) => vec![is.as_deref().or(was.as_deref())],
        };
        let entries: Vec<_> = about.into_iter().map(|patient| (entry, patient)).collect();
        audit::write_all(tx, &entries).await?;
        if let Some(record) = store::peek(tx, before.id).await? {
            self.show(tx, &record, false).await?;
        }
        Ok(())
    }

    /// Ends it, unless the patient is inside: then the host ends it.
    pub(super) async fn cancelled(&self, event: &Event) -> Result<()> {
        let Cancelled { visit_id } = event.parse()?;
        let actor = event.actor.as_deref().unwrap_or("system");
        let command = Command::new(actor, "cancel", None);
        match self
            .change(event.tenant, visit_id, command, Input::Cancel, |_| {})
            .await
        {
            Err(e) if e.code == "visit.unknown" => Ok(()),
            other => other.map(|_| ()),
        }
    }
}
