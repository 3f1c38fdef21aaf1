//! The doors of the appointments module: the day, and booking.

use crate::{
    Appointments, actors,
    book::{Booked, NewAppointment, person_name},
    day::day,
    link,
    store::{self, Booking},
    text,
};
use axum::{
    Json, Router,
    extract::{Query, State},
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use medtech_fhir::Access;
use medtech_kernel::{
    Error, Result, TenantId,
    auth::{Principal, Role},
    clock::rfc3339,
    http::{Body, TenantCtx, idempotency_key, require},
    policy::Action,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::HashSet, sync::Arc};
use uuid::Uuid;

pub(crate) fn routes(appointments: Arc<Appointments>) -> Router {
    Router::new()
        .route("/today", get(today))
        .route("/", post(create))
        .with_state(appointments)
}

#[derive(Deserialize)]
struct Day {
    #[serde(default)]
    date: Option<String>,
}

#[derive(Serialize)]
struct Today {
    appointments: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    id: String,
    start: String,
    end: String,
    status: String,
    reason: Option<String>,
    patient: Patient,
    #[serde(skip_serializing_if = "Option::is_none")]
    visit_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    visit_link: Option<String>,
}

#[derive(Serialize)]
struct Patient {
    id: String,
    name: String,
    birth_date: Option<String>,
    sex: Option<String>,
}

/// A clinician's own appointments; everyone's for those who have none. Of either, what they may see of the record.
async fn today(
    State(this): State<Arc<Appointments>>,
    TenantCtx(tenant): TenantCtx,
    who: Principal,
    Query(ask): Query<Day>,
) -> Result<Json<Today>> {
    require(&this.ctx, &who, Action::Read, "appointment", "*").await?;
    let (from, to) = day(ask.date.as_deref(), &tenant.zone, this.ctx.clock.now_ms())?;
    let selves = this.ctx.policy.objects_of(tenant.id, &who.subject, "self").await?;
    let practitioner = selves.iter().find_map(|o| o.strip_prefix("practitioner:"));
    let access = this.fhir.access(&who).await?;
    let mut seen = HashSet::new();
    let mut appointments = Vec::new();
    for booking in store::between(&this.ctx.db, tenant.id, practitioner, from, to).await? {
        if seen.insert(booking.appointment.clone()) {
            appointments.extend(this.entry(tenant.id, &access, booking).await?);
        }
    }
    let shown = appointments.iter().map(|a: &Entry| format!("patient:{}", a.patient.id));
    this.lists.note(&who, "appointments", shown.collect()).await?;
    Ok(Json(Today { appointments }))
}

impl Appointments {
    async fn entry(&self, tenant: TenantId, access: &Access, booking: Booking) -> Result<Option<Entry>> {
        let found = self
            .fhir
            .find_for(tenant, access, "Appointment", &booking.appointment)
            .await?;
        let Some(resource) = found else {
            return Ok(None);
        };
        let Some(patient_id) = actors(&resource, "Patient").next() else {
            return Ok(None);
        };
        let Some(patient) = self.fhir.find_for(tenant, access, "Patient", patient_id).await? else {
            return Ok(None);
        };
        let status = text(&resource, "status").unwrap_or_default();
        // A link to a visit that is over, or was called off, would only disappoint.
        let open = booking
            .visit
            .filter(|_| matches!(status, "booked" | "arrived" | "checked-in"));
        let reason = resource
            .pointer("/reasonCode/0/text")
            .or_else(|| resource.get("description"));
        Ok(Some(Entry {
            start: rfc3339(booking.start),
            end: rfc3339(booking.end),
            status: status.to_owned(),
            reason: reason.and_then(Value::as_str).map(str::to_owned),
            patient: Patient {
                id: patient_id.to_owned(),
                name: person_name(&patient).unwrap_or_else(|| "Unnamed patient".to_owned()),
                birth_date: text(&patient, "birthDate").map(str::to_owned),
                sex: text(&patient, "gender").map(str::to_owned),
            },
            visit_id: booking.visit,
            visit_link: open.map(|visit| link::page(&link::token(&self.ctx.root, tenant, visit))),
            id: booking.appointment,
        }))
    }
}

type Created = (StatusCode, [(header::HeaderName, HeaderValue); 1], Json<Booked>);

async fn create(
    State(this): State<Arc<Appointments>>,
    who: Principal,
    headers: HeaderMap,
    Body(ask): Body<NewAppointment>,
) -> Result<Created> {
    require(&this.ctx, &who, Action::Write, "appointment", "*").await?;
    // An appointment gives a clinician access to the record, so they do not give themselves one with a stranger.
    if !who.has(Role::Staff) && !who.has(Role::Admin) {
        require(&this.ctx, &who, Action::Read, "patient", &ask.patient_id).await?;
    }
    if ask.end <= this.ctx.clock.now_ms() {
        return Err(Error::unprocessable(
            "appointments.past",
            "An appointment can't be made for a time that has passed.",
        ));
    }
    let booked = this
        .book(who.tenant, &who.subject, idempotency_key(&headers)?, ask)
        .await?;
    Ok((
        StatusCode::CREATED,
        [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        Json(booked),
    ))
}
