//! What an Appointment does when its visit moves on, and what the bookings and the visit do when the Appointment changes.

use crate::{
    Appointments, actors,
    book::{LINK_GRACE, person_name},
    store::{self, Booking},
    text,
};
use medtech_kernel::{
    Error, Module, Result, Tx,
    bus::{Event, once},
    clock::{parse_rfc3339, rfc3339},
    policy,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// The part of a visit's event that matters here.
#[derive(Deserialize)]
struct Visit {
    #[serde(default)]
    context_ref: Option<String>,
    #[serde(default)]
    arrived_at: Option<Value>,
}

/// Body of `visit.rescheduled`. What is absent stays as it is.
#[derive(Serialize)]
struct VisitRescheduled {
    visit_id: Uuid,
    start: String,
    link_expires: String,
    subject_ref: Option<String>,
    guest_name: Option<String>,
}

/// Body of `visit.cancelled`.
#[derive(Serialize)]
struct VisitCancelled {
    visit_id: Uuid,
}

/// Body of `fhir.Appointment.changed`.
#[derive(Deserialize)]
struct Changed {
    id: String,
}

impl Appointments {
    pub(crate) async fn on_visit(&self, event: Event) -> Result<()> {
        let visit: Visit = event.parse()?;
        let Some(id) = visit
            .context_ref
            .and_then(|r| r.strip_prefix("Appointment/").map(str::to_owned))
        else {
            return Ok(());
        };
        let came = visit.arrived_at.is_some_and(|at| !at.is_null());
        let this = self.clone();
        self.ctx
            .db
            .write(event.tenant, move |tx| {
                Box::pin(async move {
                    if !once(tx, Self::NAME, event.id).await? {
                        return Ok(());
                    }
                    let Some(mut appointment) = this.fhir.find_in(tx, "Appointment", &id).await? else {
                        return Ok(());
                    };
                    let Some(status) = next(text(&appointment, "status").unwrap_or_default(), &event.kind, came) else {
                        return Ok(());
                    };
                    appointment["status"] = json!(status);
                    let actor = event.actor.as_deref().unwrap_or("system");
                    this.fhir
                        .update_in(tx, actor, &id, appointment, None)
                        .await
                        .map_err(Error::from)
                        .map(|_| ())
                })
            })
            .await
    }

    /// However an Appointment was written, the clinician's time is what it says, and so is its visit.
    pub(crate) async fn on_changed(&self, event: Event) -> Result<()> {
        let Changed { id } = event.parse()?;
        let this = self.clone();
        let actor = event.actor.unwrap_or_else(|| "system".to_owned());
        self.ctx
            .db
            .write(event.tenant, move |tx| {
                Box::pin(async move {
                    let before = store::of(tx, &id).await?.into_iter().find(|b| b.visit.is_some());
                    let visit = before.as_ref().and_then(|b| b.visit);
                    store::clear(tx, &id).await?;
                    let appointment = this.fhir.find_in(tx, "Appointment", &id).await?;
                    if let Some(before) = &before {
                        this.tell_visit(tx, &actor, before, appointment.as_ref()).await?;
                    }
                    let Some(appointment) = appointment else {
                        return Ok(());
                    };
                    let time = |field| text(&appointment, field).and_then(parse_rfc3339);
                    let (Some(start), Some(end)) = (time("start"), time("end")) else {
                        return Ok(());
                    };
                    let active = takes_time(text(&appointment, "status").unwrap_or_default());
                    for practitioner in actors(&appointment, "Practitioner") {
                        let booking = Booking {
                            appointment: id.clone(),
                            practitioner: practitioner.to_owned(),
                            start,
                            end,
                            active,
                            visit,
                        };
                        store::save(tx, &booking).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Tells the visit that was booked with an Appointment what has changed for it. The visit decides whether it is too late.
    async fn tell_visit(&self, tx: &mut Tx, actor: &str, before: &Booking, now: Option<&Value>) -> Result<()> {
        let Some(visit_id) = before.visit else { return Ok(()) };
        let visit = format!("visit:{visit_id}");
        let status = now.and_then(|a| text(a, "status"));
        let event = match now {
            Some(appointment) if !matches!(status, Some("cancelled" | "entered-in-error")) => {
                let time = |field| text(appointment, field).and_then(parse_rfc3339);
                let (Some(start), Some(end)) = (time("start"), time("end")) else {
                    return Ok(());
                };
                let known = policy::patient_of(tx, &visit).await?;
                let patient = match &known {
                    Some(known) if actors(appointment, "Patient").any(|p| p == known) => None,
                    _ => actors(appointment, "Patient").next(),
                };
                if matches!(status, Some("fulfilled" | "noshow"))
                    || ((before.start, before.end) == (start, end) && patient.is_none())
                {
                    return Ok(());
                }
                let guest = match patient {
                    Some(patient) => self.fhir.find_in(tx, "Patient", patient).await?,
                    None => None,
                };
                let plan = VisitRescheduled {
                    visit_id,
                    start: rfc3339(start),
                    link_expires: rfc3339(end + LINK_GRACE),
                    subject_ref: patient.map(|p| format!("Patient/{p}")),
                    guest_name: patient.map(|_| {
                        guest
                            .as_ref()
                            .and_then(person_name)
                            .unwrap_or_else(|| "Patient".to_owned())
                    }),
                };
                Event::of(tx, "visit.rescheduled", visit, &plan)?
            }
            // Cancelled, a mistake, or deleted.
            _ => Event::of(tx, "visit.cancelled", visit, &VisitCancelled { visit_id })?,
        };
        self.ctx.bus.record(tx, event.by(actor)).await
    }
}

/// The status after an event, when it changes. An Appointment never goes back, and what was cancelled stays so. A visit
/// that ended with nobody having come is a no-show.
fn next(status: &str, kind: &str, came: bool) -> Option<&'static str> {
    let next = match kind {
        "visit.arrived" | "visit.admitted" => "arrived",
        "visit.ended" if came => "fulfilled",
        "visit.ended" => "noshow",
        _ => return None,
    };
    let before: &[&str] = match next {
        "arrived" => &["proposed", "pending", "booked"],
        _ => &["proposed", "pending", "booked", "arrived", "checked-in"],
    };
    before.contains(&status).then_some(next)
}

/// What is over, even before its planned end, leaves the rest of the time free.
fn takes_time(status: &str) -> bool {
    !matches!(
        status,
        "cancelled" | "noshow" | "entered-in-error" | "waitlist" | "proposed" | "fulfilled"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_only_moves_forward() {
        assert_eq!(next("booked", "visit.arrived", true), Some("arrived"));
        assert_eq!(next("arrived", "visit.arrived", true), None);
        assert_eq!(next("arrived", "visit.admitted", true), None);
        assert_eq!(next("booked", "visit.admitted", true), Some("arrived"));
        assert_eq!(next("arrived", "visit.ended", true), Some("fulfilled"));
        assert_eq!(next("booked", "visit.ended", false), Some("noshow"));
        for done in ["fulfilled", "cancelled", "noshow", "entered-in-error"] {
            for kind in ["visit.arrived", "visit.admitted", "visit.ended"] {
                assert_eq!(next(done, kind, true), None);
            }
        }
    }
}
