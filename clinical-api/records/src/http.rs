//! The doors of the records module: the chart of a patient, and devices.

use crate::{
    Records,
    chart::{self, Chart},
    fhirish::{target, text},
    glass,
    results::{self, Card},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{delete, get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use medtech_fhir::Access;
use medtech_kernel::{
    Error, Module, Result, TenantId, Tx,
    audit::{self, Entry},
    auth::{Assurance, NewSession, Principal, Role},
    clock::Millis,
    http::{Body, idempotency_key, remember, remembered, require},
    id,
    policy::Action,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

/// A device's credential lasts a year; then it is registered anew.
const CREDENTIAL: Millis = 365 * 86_400_000;
/// Results on a chart.
const RESULTS: usize = 10;
/// The vital signs a chart looks for, each with the codes that mean it.
const VITALS: [&str; 9] = [
    "8867-4",
    "59408-5,2708-6",
    "85354-9",
    "8480-6",
    "8462-4",
    "9279-1",
    "8310-5",
    "29463-7",
    "8302-2",
];

pub(crate) fn routes(records: Arc<Records>) -> Router {
    Router::new()
        .route("/patients/{id}/chart", get(chart_of))
        .route("/patients/{id}/break-glass", post(glass::begin))
        .route("/patients/{id}/break-glass/end", post(glass::end))
        .route("/break-glass", get(glass::list))
        .route("/break-glass/mine", get(glass::mine))
        .route("/break-glass/{id}/review", post(glass::review))
        .route("/break-glass/{id}/assign", post(glass::assign))
        .route("/devices", post(register))
        .route("/devices/{id}/credential", delete(withdraw))
        .with_state(records)
}

async fn chart_of(State(records): State<Arc<Records>>, who: Principal, Path(id): Path<String>) -> Result<Json<Chart>> {
    require(&records.ctx, &who, Action::Read, "patient", &id).await?;
    let access = records.fhir.access(&who).await?;
    let chart = records.chart(who.tenant, &access, &id).await?;
    let emergency = matches!(&access, Access::Sight(s) if s.is_emergency(&id));
    records
        .ctx
        .db
        .write(who.tenant, move |tx| {
            Box::pin(async move {
                let target = format!("Patient/{id}");
                let entry = Entry {
                    actor: &who.subject,
                    action: "read",
                    target: &target,
                    outcome: "success",
                    detail: if emergency { "chart; break-glass" } else { "chart" },
                };
                audit::write(tx, entry).await
            })
        })
        .await?;
    Ok(Json(chart))
}

impl Records {
    /// Of all that is there, what this access shows.
    async fn chart(&self, tenant: TenantId, access: &Access, id: &str) -> Result<Chart> {
        let patient = self.patient(tenant, id).await?;
        let of = |kind: &'static str, more: &str| {
            let query = format!("patient={id}{more}");
            async move { self.fhir.list_for(tenant, access, kind, &query).await }
        };
        let allergies = of("AllergyIntolerance", "&_count=200").await?;
        let conditions = of("Condition", "&_count=200").await?;
        let mut medications = of("MedicationRequest", "&status=active&_count=200").await?;
        medications.extend(of("MedicationStatement", "&status=active&_count=200").await?);
        let mut vitals = Vec::new();
        for codes in VITALS {
            vitals.extend(of("Observation", &format!("&code={codes}&_sort=-date&_count=1")).await?);
        }
        let cards = self.latest_results(tenant, access, id).await?;
        Ok(Chart {
            patient: chart::patient(&patient),
            allergies: allergies.iter().filter_map(chart::allergy).collect(),
            conditions: conditions.iter().filter_map(chart::condition).collect(),
            medications: medications.iter().filter_map(chart::medication).collect(),
            vitals: chart::latest(&vitals),
            results: cards,
        })
    }

    /// The newest laboratory results: reports, and observations that belong to none.
    async fn latest_results(&self, tenant: TenantId, access: &Access, patient: &str) -> Result<Vec<Card>> {
        let mut found: Vec<Value> = Vec::new();
        // A report need not say when it was taken: those that do not are found by when they came.
        for (kind, sort) in [
            ("DiagnosticReport", "-_lastUpdated"),
            ("DiagnosticReport", "-date"),
            ("Observation", "-date"),
        ] {
            let category = if kind == "Observation" {
                "&category=laboratory"
            } else {
                ""
            };
            let query = format!("patient={patient}{category}&_sort={sort}&_count={RESULTS}");
            found.extend(self.fhir.list_for(tenant, access, kind, &query).await?);
        }
        found.retain(|of| results::is_laboratory(of) && results::has_result(of));
        found.sort_by_key(|of| std::cmp::Reverse(results::time_of(of)));
        let mut cards: Vec<Card> = Vec::new();
        for of in found {
            if cards.len() == RESULTS {
                break;
            }
            let id = text(&of, "id").unwrap_or_default();
            let known = cards.iter().any(|card| card.id == id);
            if known || text(&of, "resourceType") == Some("Observation") && self.report_of(tenant, id).await?.is_some()
            {
                continue;
            }
            let observations = self.results_of(tenant, access, &of).await?;
            cards.push(results::card(&of, &observations));
        }
        Ok(cards)
    }

    pub(crate) async fn patient(&self, tenant: TenantId, id: &str) -> Result<Value> {
        let found = if is_id(id) {
            self.fhir.find(tenant, "Patient", id).await?
        } else {
            None
        };
        found.ok_or_else(|| Error::not_found("records.patient_unknown", "There is no such patient."))
    }
}

/// R4 `id`: it goes into searches, so nothing else may.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

#[derive(Deserialize, Serialize)]
struct Register {
    patient_id: String,
    name: String,
    kind: String,
}

#[derive(Serialize)]
struct Registered {
    id: Uuid,
    username: String,
    password: String,
    topic: String,
}

/// What is remembered of a registration: not the secret.
#[derive(Deserialize, Serialize)]
struct Known {
    id: Uuid,
}

type Created = (StatusCode, [(header::HeaderName, HeaderValue); 1], Json<Registered>);

async fn register(
    State(records): State<Arc<Records>>,
    who: Principal,
    headers: HeaderMap,
    Body(ask): Body<Register>,
) -> Result<Created> {
    let fits =
        |text: &str| !text.trim().is_empty() && text.chars().count() <= 100 && !text.chars().any(char::is_control);
    if !fits(&ask.name) || !fits(&ask.kind) {
        return Err(Error::unprocessable(
            "records.device_name",
            "A device has a name and a kind of 1 to 100 characters.",
        ));
    }
    require(&records.ctx, &who, Action::Write, "patient", &ask.patient_id).await?;
    records.patient(who.tenant, &ask.patient_id).await?;
    let key = idempotency_key(&headers)?;
    let this = records.clone();
    let made = records
        .ctx
        .db
        .write(who.tenant, move |tx| {
            Box::pin(async move { this.register(tx, &who, key, ask).await })
        })
        .await?;
    Ok((
        StatusCode::CREATED,
        [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        Json(made),
    ))
}

/// Ends the credential of a device: for whoever may write the record that it writes to.
async fn withdraw(State(records): State<Arc<Records>>, who: Principal, Path(id): Path<String>) -> Result<StatusCode> {
    let unknown = || Error::not_found("records.device_unknown", "There is no such device.");
    if !is_id(&id) {
        return Err(unknown());
    }
    let access = records.fhir.access(&who).await?;
    let device = records.fhir.find_for(who.tenant, &access, "Device", &id).await?;
    let patient = device.as_ref().and_then(|d| target(d.get("patient")?, "Patient"));
    let patient = patient.ok_or_else(unknown)?.to_owned();
    require(&records.ctx, &who, Action::Write, "patient", &patient).await?;
    let sessions = records.ctx.sessions.clone();
    records
        .ctx
        .db
        .write(who.tenant, move |tx| {
            Box::pin(async move {
                let subject = format!("device:{id}");
                sessions.revoke_subject(tx, &subject).await?;
                let entry = Entry {
                    actor: &who.subject,
                    action: "delete",
                    target: &subject,
                    outcome: "success",
                    detail: "device credential",
                };
                audit::record(tx, vec![audit::Record::new(entry).about([patient.as_str()])]).await
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Records {
    /// A command repeated under its key answers for the same device with a new secret, and the old one ends: the secret
    /// itself is never kept.
    async fn register(&self, tx: &mut Tx, who: &Principal, key: Option<String>, ask: Register) -> Result<Registered> {
        const ROUTE: &str = "records/devices";
        let request = serde_json::to_vec(&ask).map_err(|e| Error::internal("records.request", e))?;
        let before: Option<Known> = match &key {
            Some(key) => match remembered(tx, &who.subject, ROUTE, key, &request).await? {
                Some(text) => Some(serde_json::from_str(&text).map_err(|e| Error::internal("records.answer", e))?),
                None => None,
            },
            None => None,
        };
        let device = before.as_ref().map_or_else(|| id::uuid_v7(tx.now()), |known| known.id);
        let subject = format!("device:{device}");
        if before.is_some() {
            self.ctx.sessions.revoke_subject(tx, &subject).await?;
        } else {
            let resource = json!({
                "resourceType": "Device",
                "id": device,
                "identifier": [crate::fhirish::uri_identifier(&format!("urn:uuid:{device}"))],
                "status": "active",
                "deviceName": [{"name": ask.name.trim(), "type": "user-friendly-name"}],
                "type": {"text": ask.kind.trim()},
                "patient": crate::fhirish::reference(&format!("Patient/{}", ask.patient_id)),
            });
            // What it feeds follows from the resource.
            self.fhir.put_in(tx, &who.subject, resource).await?;
            if let Some(key) = &key {
                remember(tx, &who.subject, ROUTE, key, &request, &Known { id: device }).await?;
            }
        }
        let new = NewSession {
            subject: subject.clone(),
            name: ask.name.trim().to_owned(),
            roles: vec![Role::Device],
            ttl_ms: CREDENTIAL,
            note: Self::NAME.to_owned(),
            grant: Assurance::Bearer.into(),
            idle_ms: None,
        };
        let (password, _) = self.ctx.sessions.issue(tx, new).await?;
        let entry = Entry {
            actor: &who.subject,
            action: "create",
            target: &subject,
            outcome: "success",
            detail: "device credential",
        };
        audit::write(tx, entry).await?;
        Ok(Registered {
            id: device,
            username: device.to_string(),
            password,
            topic: format!("devices/{device}/readings"),
        })
    }
}
