//! What the record does when something happened: visits, messages, readings. Each handler is one transaction that
//! begins by marking the event as handled, so an event that comes twice is written once.

use crate::{
    Records,
    encounter::{self, Step, VisitEvent},
    message::{self, Context, MessageCreated},
    store::{self, Claim, Visit},
    vitals::{self, Reading},
};
use medtech_kernel::{
    Error, Module, Result, TenantId, Tx,
    audit::Origin,
    bus::{Event, once},
    clock::Millis,
    error::Kind,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

/// Body of `device.readings`.
#[derive(Debug, Deserialize)]
struct Readings {
    /// The device's id, with or without `device:`.
    device: String,
    /// `patient:{id}`.
    feeds: String,
    /// Of the connection that they came by.
    #[serde(default)]
    session: Option<Uuid>,
    readings: Vec<Reading>,
}

impl Records {
    /// A step of a visit: the Encounter follows.
    pub(crate) async fn on_visit(&self, event: Event, step: Step) -> Result<()> {
        let body: VisitEvent = event.parse()?;
        let who = self.practitioners(event.tenant, &body).await?;
        let this = self.clone();
        self.ctx
            .db
            .write(event.tenant, move |tx| {
                Box::pin(async move {
                    if !once(tx, Self::NAME, event.id).await? {
                        return Ok(());
                    }
                    let actor = event.actor.unwrap_or_else(|| body.host.subject.clone());
                    let mut visit = store::take(tx, body.visit_id)
                        .await?
                        .unwrap_or_else(|| new_visit(&body));
                    if step == Step::Planned {
                        return store::save(tx, &visit).await;
                    }
                    if let Some(patient) = patient_id(body.subject_ref.as_deref()) {
                        visit.patient = Some(patient.to_owned());
                    }
                    let before = this.encounter_of(tx, &visit).await?;
                    let after = encounter::fold(before, step, event.at, &body, &who);
                    visit.encounter = Some(this.fhir.put_in(tx, &actor, after).await?);
                    let first = body
                        .participants
                        .iter()
                        .flat_map(|p| &p.intervals)
                        .map(|i| i.from.0)
                        .min();
                    if step == Step::Admitted {
                        visit.started_at = visit.started_at.into_iter().chain(first).chain([event.at]).min();
                    }
                    if step == Step::Ended {
                        visit.started_at = visit.started_at.into_iter().chain(first).min();
                        visit.ended_at = Some(body.ended_at.map_or(event.at, |t| t.0));
                    }
                    store::save(tx, &visit).await
                })
            })
            .await
    }

    /// A message of a visit's conversation: a Communication, and a DocumentReference for its file.
    pub(crate) async fn on_message(&self, event: Event) -> Result<()> {
        let body: MessageCreated = event.parse()?;
        // Conversations about something else than a visit are not part of the record.
        let Some(id) = body
            .topic
            .as_deref()
            .and_then(|t| t.strip_prefix("visit:"))
            .and_then(|t| t.parse::<Uuid>().ok())
        else {
            return Ok(());
        };
        // The visit's own event is on its way under another key: try again after it.
        let visit = store::find(&self.ctx.db, event.tenant, id).await?.ok_or_else(|| {
            Error::unavailable("records.visit_unknown", "The visit of this message is not known yet.")
        })?;
        let Some(patient) = visit.patient.clone() else {
            return Ok(());
        };
        let sender = if body.message.sender.subject == visit.guest {
            Some(format!("Patient/{patient}"))
        } else {
            self.practitioner_of(event.tenant, &body.message.sender.subject).await?
        };
        let this = self.clone();
        self.ctx
            .db
            .write(event.tenant, move |tx| {
                Box::pin(async move {
                    if !once(tx, Self::NAME, event.id).await? {
                        return Ok(());
                    }
                    let actor = body.message.sender.subject.clone();
                    let visit = store::take(tx, id).await?.unwrap_or(visit);
                    let encounter = this.ensure_encounter(tx, &actor, visit).await?;
                    let context = Context {
                        patient: &patient,
                        encounter: Some(&encounter),
                        sender: sender.as_deref(),
                    };
                    if let Some(document) = message::document(&body.message, &context) {
                        this.fhir.put_in(tx, &actor, document).await?;
                    }
                    this.fhir
                        .put_in(tx, &actor, message::communication(&body.message, &context))
                        .await
                        .map(|_| ())
                })
            })
            .await
    }

    /// Readings of a device: Observations, linked to the visit that was under way when they were taken.
    pub(crate) async fn on_readings(&self, event: Event) -> Result<()> {
        let body: Readings = event.parse()?;
        let Some(patient) = body.feeds.strip_prefix("patient:").map(str::to_owned) else {
            return Err(Error::bad("records.feeds", "A device feeds a patient."));
        };
        let device = body.device.trim_start_matches("device:").to_owned();
        let this = self.clone();
        let origin = Origin {
            session: body.session,
            ..Origin::default()
        };
        let written = self.ctx.db.write(event.tenant, move |tx| {
                Box::pin(async move {
                    if !once(tx, Self::NAME, event.id).await? {
                        return Ok(());
                    }
                    let visits = store::visits_of(tx, &patient).await?;
                    let actor = format!("device:{device}");
                    let registered = registered_at(&device);
                    for draft in vitals::observations(&body.readings, &patient, &format!("Device/{device}"), registered) {
                        let claim = store::claim_reading(tx, &device, &draft).await?;
                        if claim == Claim::Repeat {
                            continue;
                        }
                        let mut observation = draft.resource;
                        if let Some(encounter) = under_way(&visits, draft.taken_at) {
                            observation["encounter"] = crate::fhirish::reference(&format!("Encounter/{encounter}"));
                        }
                        match this.fhir.put_in(tx, &actor, observation).await {
                            // One reading that no record can hold must not keep the others out.
                            Err(e) if matches!(e.kind, Kind::BadRequest | Kind::Unprocessable) => {
                                tracing::warn!(tenant = %tx.tenant(), device, code = e.code, "a reading was refused by the record");
                            }
                            other => {
                                let observation = other?;
                                if claim == Claim::SameTime {
                                    tracing::warn!(tenant = %tx.tenant(), device, observation, "a device gave the same time to another reading: is its clock set?");
                                }
                            }
                        }
                    }
                    Ok(())
                })
            });
        origin.scope(written).await
    }

    /// The Practitioner references of the people in a visit who have one.
    async fn practitioners(&self, tenant: TenantId, event: &VisitEvent) -> Result<HashMap<String, String>> {
        let mut out = HashMap::new();
        let everyone = event
            .participants
            .iter()
            .map(|p| &p.subject)
            .chain([&event.host.subject]);
        for subject in everyone.filter(|s| s.starts_with("user:")) {
            if !out.contains_key(subject)
                && let Some(practitioner) = self.practitioner_of(tenant, subject).await?
            {
                out.insert(subject.clone(), practitioner);
            }
        }
        Ok(out)
    }

    /// `Practitioner/{id}` of a user.
    async fn practitioner_of(&self, tenant: TenantId, subject: &str) -> Result<Option<String>> {
        let selves = self.ctx.policy.objects_of(tenant, subject, "self").await?;
        Ok(selves
            .iter()
            .find_map(|o| o.strip_prefix("practitioner:"))
            .map(|id| format!("Practitioner/{id}")))
    }

    async fn encounter_of(&self, tx: &mut Tx, visit: &Visit) -> Result<Option<Value>> {
        match &visit.encounter {
            Some(id) => self.fhir.find_in(tx, "Encounter", id).await,
            None => Ok(None),
        }
    }

    /// The visit's Encounter; a message that comes before the patient makes it, planned.
    async fn ensure_encounter(&self, tx: &mut Tx, actor: &str, mut visit: Visit) -> Result<String> {
        if let Some(encounter) = visit.encounter {
            return Ok(encounter);
        }
        let subject = visit.patient.as_ref().map(|p| format!("Patient/{p}"));
        let plan = VisitEvent::planned(visit.id, visit.context.clone(), subject);
        let planned = encounter::fold(None, Step::Planned, tx.now(), &plan, &HashMap::new());
        let id = self.fhir.put_in(tx, actor, planned).await?;
        visit.encounter = Some(id.clone());
        store::save(tx, &visit).await?;
        Ok(id)
    }
}

fn new_visit(event: &VisitEvent) -> Visit {
    Visit {
        id: event.visit_id,
        encounter: None,
        patient: patient_id(event.subject_ref.as_deref()).map(str::to_owned),
        context: event.context_ref.clone(),
        host: event.host.subject.clone(),
        guest: event.guest.subject.clone(),
        started_at: None,
        ended_at: None,
    }
}

/// When a device was registered: its id tells. One that came by another way has an id of another kind.
fn registered_at(device: &str) -> Option<Millis> {
    let (seconds, nanos) = device.parse::<Uuid>().ok()?.get_timestamp()?.to_unix();
    Millis::try_from(seconds)
        .ok()?
        .checked_mul(1000)?
        .checked_add(i64::from(nanos / 1_000_000))
}

fn patient_id(subject: Option<&str>) -> Option<&str> {
    subject?.strip_prefix("Patient/").filter(|id| !id.is_empty())
}

/// The Encounter of the visit that was under way at `at`.
fn under_way(visits: &[Visit], at: Millis) -> Option<&str> {
    visits
        .iter()
        .find(|v| v.started_at.is_some_and(|s| s <= at) && v.ended_at.is_none_or(|e| at <= e))
        .and_then(|v| v.encounter.as_deref())
}
