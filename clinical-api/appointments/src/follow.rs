//! What an Appointment does when its visit moves on, and what the bookings do when the Appointment changes.

use crate::{Appointments, actors, store, text};
use medtech_kernel::{
    Error, Module, Result,
    bus::{Event, once},
    clock::parse_rfc3339,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The part of a visit's event that matters here.
#[derive(Deserialize)]
struct Visit {
    #[serde(default)]
    context_ref: Option<String>,
    #[serde(default)]
    arrived_at: Option<Value>,
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

    /// However an Appointment was written, the clinician's time is what it says.
    pub(crate) async fn on_changed(&self, event: Event) -> Result<()> {
        let Changed { id } = event.parse()?;
        let this = self.clone();
        self.ctx
            .db
            .write(event.tenant, move |tx| {
                Box::pin(async move {
                    let visit = store::of(tx, &id).await?.into_iter().find_map(|b| b.visit);
                    store::clear(tx, &id).await?;
                    let Some(appointment) = this.fhir.find_in(tx, "Appointment", &id).await? else {
                        return Ok(());
                    };
                    let time = |field| text(&appointment, field).and_then(parse_rfc3339);
                    let (Some(start), Some(end)) = (time("start"), time("end")) else {
                        return Ok(());
                    };
                    let active = takes_time(text(&appointment, "status").unwrap_or_default());
                    for practitioner in actors(&appointment, "Practitioner") {
                        let booking = store::Booking {
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
