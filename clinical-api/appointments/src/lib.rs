//! Appointments: who meets whom and when. A booking writes the FHIR Appointment, takes the clinician's time, and asks
//! the hub for a visit, in one transaction; the Appointment then follows the visit.

mod book;
mod day;
mod follow;
mod http;
mod link;
mod store;

pub use book::{Booked, NewAppointment};

use axum::Router;
use medtech_fhir::Fhir;
use medtech_kernel::{Ctx, Migration, Module, Result, TenantId, audit::Lists, bus::Event, clock::Millis};
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;

/// The module. Clones share everything.
#[derive(Clone)]
pub struct Appointments {
    ctx: Ctx,
    fhir: Fhir,
    lists: Arc<Lists>,
}

/// An appointment with a visit, for callers that compose: who it is with, when, and the patient's page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub id: String,
    pub start: Millis,
    pub end: Millis,
    /// R4 AppointmentStatus.
    pub status: String,
    pub visit: Uuid,
    /// `/visit#TOKEN`
    pub visit_link: String,
}

impl Appointments {
    #[must_use]
    pub fn new(ctx: Ctx, fhir: Fhir) -> Self {
        Self {
            lists: Arc::new(Lists::new(ctx.db.clone())),
            ctx,
            fhir,
        }
    }

    /// A Practitioner's appointments with a visit that start in `from..to`, by time.
    pub async fn planned(
        &self,
        tenant: TenantId,
        practitioner: &str,
        from: Millis,
        to: Millis,
    ) -> Result<Vec<Planned>> {
        let mut out = Vec::new();
        for booking in store::between(&self.ctx.db, tenant, Some(practitioner), from, to).await? {
            let (Some(visit), Some(resource)) = (
                booking.visit,
                self.fhir.find(tenant, "Appointment", &booking.appointment).await?,
            ) else {
                continue;
            };
            out.push(Planned {
                id: booking.appointment,
                start: booking.start,
                end: booking.end,
                status: text(&resource, "status").unwrap_or_default().to_owned(),
                visit,
                visit_link: link::page(&link::token(&self.ctx.root, tenant, visit)),
            });
        }
        Ok(out)
    }
}

fn text<'a>(of: &'a Value, field: &str) -> Option<&'a str> {
    of.get(field).and_then(Value::as_str)
}

/// The logical ids of the participants of one type.
fn actors<'a>(appointment: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a str> {
    let participants = appointment
        .get("participant")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    participants.filter_map(move |p| {
        let (rest, id) = text(p.get("actor")?, "reference")?.rsplit_once('/')?;
        (rest == kind || rest.ends_with(&format!("/{kind}"))).then_some(id)
    })
}

impl Module for Appointments {
    const NAME: &'static str = "appointments";

    fn migrations() -> &'static [Migration] {
        store::MIGRATIONS
    }

    fn routes(self: Arc<Self>) -> Router {
        http::routes(self)
    }

    fn consumes() -> &'static [&'static str] {
        &[
            "visit.arrived",
            "visit.admitted",
            "visit.ended",
            "fhir.Appointment.changed",
        ]
    }

    async fn on_event(&self, event: Event) -> Result<()> {
        match &*event.kind {
            "fhir.Appointment.changed" => self.on_changed(event).await,
            _ => self.on_visit(event).await,
        }
    }
}

#[cfg(test)]
mod tests;
