//! Booking: the clinician's time, the Appointment and the visit, all or nothing.

use crate::{Appointments, link, store, text};
use medtech_kernel::{
    Error, Result, TenantId, Tx,
    bus::Event,
    clock::{Millis, rfc3339, serde_rfc3339},
    http::{remember, remembered},
    id, policy,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// The longest appointment.
const LONGEST: Millis = 12 * 3_600_000;
/// The patient's link works this long after the planned end: consultations run late.
pub(crate) const LINK_GRACE: Millis = 12 * 3_600_000;

/// An appointment to be made.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct NewAppointment {
    pub patient_id: String,
    pub practitioner_id: String,
    #[serde(with = "serde_rfc3339")]
    pub start: Millis,
    #[serde(with = "serde_rfc3339")]
    pub end: Millis,
    #[serde(default)]
    pub reason: String,
}

/// What was booked.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Booked {
    pub id: String,
    pub visit_id: Uuid,
    /// `/visit#TOKEN`, for the patient.
    pub visit_link: String,
}

/// What is remembered under an idempotency key: not the link's secret, which follows from the visit.
#[derive(Deserialize, Serialize)]
struct Known {
    id: String,
    visit_id: Uuid,
}

/// Body of `visit.requested`.
#[derive(Serialize)]
struct VisitRequested<'a> {
    visit_id: Uuid,
    title: &'a str,
    start: String,
    host: Person<'a>,
    guest: Person<'a>,
    subject_ref: String,
    context_ref: String,
    link_hash: String,
    link_expires: String,
}

#[derive(Serialize)]
struct Person<'a> {
    subject: &'a str,
    name: &'a str,
}

/// Who meets, by name.
struct Meeting {
    host: String,
    host_name: String,
    guest_name: String,
}

const ROUTE: &str = "appointments";

impl Appointments {
    /// Books; 409 `appointments.clash` when the clinician is taken. The same `key` gives the same answer again.
    pub async fn book(
        &self,
        tenant: TenantId,
        actor: &str,
        key: Option<String>,
        new: NewAppointment,
    ) -> Result<Booked> {
        if new.end <= new.start || new.end - new.start > LONGEST {
            return Err(Error::unprocessable(
                "appointments.times",
                "An appointment ends after it starts, within 12 hours.",
            ));
        }
        if new.reason.chars().count() > 1000 {
            return Err(Error::unprocessable(
                "appointments.reason",
                "The reason has at most 1,000 characters.",
            ));
        }
        let meeting = self.meeting(tenant, &new).await?;
        let (this, actor) = (self.clone(), actor.to_owned());
        let known = self
            .ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    let request = serde_json::to_vec(&new).map_err(|e| Error::internal("appointments.request", e))?;
                    if let Some(key) = &key
                        && let Some(answer) = remembered(tx, &actor, ROUTE, key, &request).await?
                    {
                        return serde_json::from_str(&answer).map_err(|e| Error::internal("appointments.answer", e));
                    }
                    let known = this.book_in(tx, &actor, &new, &meeting).await?;
                    if let Some(key) = &key {
                        remember(tx, &actor, ROUTE, key, &request, &known).await?;
                    }
                    Ok(known)
                })
            })
            .await?;
        let Known { id, visit_id } = known;
        Ok(Booked {
            id,
            visit_id,
            visit_link: link::page(&link::token(&self.ctx.root, tenant, visit_id)),
        })
    }

    /// The people behind the references. The clinician must be someone who can sign in: nobody else can host a visit.
    async fn meeting(&self, tenant: TenantId, new: &NewAppointment) -> Result<Meeting> {
        let unknown =
            |what: &str| Error::unprocessable("appointments.participant", format!("There is no such {what}."));
        let patient = self
            .fhir
            .find(tenant, "Patient", &new.patient_id)
            .await?
            .ok_or_else(|| unknown("patient"))?;
        let practitioner = self
            .fhir
            .find(tenant, "Practitioner", &new.practitioner_id)
            .await?
            .ok_or_else(|| unknown("clinician"))?;
        let users = self
            .ctx
            .policy
            .subjects_of(tenant, &format!("practitioner:{}", new.practitioner_id), "self")
            .await?;
        let host = users.into_iter().find(|s| s.starts_with("user:")).ok_or_else(|| {
            Error::unprocessable(
                "appointments.no_account",
                "This clinician has no account yet, so a visit can't be hosted.",
            )
        })?;
        Ok(Meeting {
            host,
            host_name: person_name(&practitioner).unwrap_or_else(|| "Clinician".to_owned()),
            guest_name: person_name(&patient).unwrap_or_else(|| "Patient".to_owned()),
        })
    }

    async fn book_in(&self, tx: &mut Tx, actor: &str, new: &NewAppointment, who: &Meeting) -> Result<Known> {
        store::reserve(tx, &new.practitioner_id, new.start, new.end).await?;
        let visit = id::uuid_v7(tx.now());
        let resource = appointment(new, who, visit, tx.now());
        let id = self.fhir.create_in(tx, actor, resource).await.map_err(Error::from)?.id;
        let booking = store::Booking {
            appointment: id.clone(),
            practitioner: new.practitioner_id.clone(),
            start: new.start,
            end: new.end,
            active: true,
            visit: Some(visit),
        };
        store::save(tx, &booking).await?;
        let guest = format!("guest:{}", id::uuid_v7(tx.now()));
        let body = VisitRequested {
            visit_id: visit,
            title: &format!("Video visit with {}", who.host_name),
            start: rfc3339(new.start),
            host: Person {
                subject: &who.host,
                name: &who.host_name,
            },
            guest: Person {
                subject: &guest,
                name: &who.guest_name,
            },
            subject_ref: format!("Patient/{}", new.patient_id),
            context_ref: format!("Appointment/{id}"),
            link_hash: link::hash(&link::token(&self.ctx.root, tx.tenant(), visit)),
            link_expires: rfc3339(new.end + LINK_GRACE),
        };
        // Whose record the visit is about: what decides who else may join it.
        let (about, patient) = (format!("visit:{visit}"), format!("patient:{}", new.patient_id));
        policy::relate(tx, &about, "about", &patient, None).await?;
        let event = Event::of(tx, "visit.requested", about, &body)?.by(actor);
        self.ctx.bus.record(tx, event).await?;
        Ok(Known { id, visit_id: visit })
    }
}

fn appointment(new: &NewAppointment, who: &Meeting, visit: Uuid, now: Millis) -> Value {
    let participant = |kind: &str, id: &str, name: &str| {
        json!({
            "actor": {"reference": format!("{kind}/{id}"), "display": name},
            "required": "required",
            "status": "accepted",
        })
    };
    let mut out = json!({
        "resourceType": "Appointment",
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": format!("urn:uuid:{visit}")}],
        "status": "booked",
        "serviceType": [{"text": "Video visit"}],
    });
    if !new.reason.trim().is_empty() {
        out["reasonCode"] = json!([{"text": new.reason.trim()}]);
    }
    out["start"] = json!(rfc3339(new.start));
    out["end"] = json!(rfc3339(new.end));
    out["created"] = json!(rfc3339(now));
    out["participant"] = json!([
        participant("Patient", &new.patient_id, &who.guest_name),
        participant("Practitioner", &new.practitioner_id, &who.host_name),
    ]);
    out
}

/// The name to call someone by: the usual or official one, as given or put together.
pub(crate) fn person_name(of: &Value) -> Option<String> {
    let names = of.get("name")?.as_array()?;
    let by_use = |wanted: &str| names.iter().find(|n| text(n, "use") == Some(wanted));
    let name = by_use("usual")
        .or_else(|| by_use("official"))
        .or_else(|| names.first())?;
    if let Some(whole) = text(name, "text") {
        return Some(whole.to_owned());
    }
    let list = |field: &str| {
        name.get(field)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    };
    let parts: Vec<&str> = list("prefix")
        .chain(list("given"))
        .chain(text(name, "family"))
        .collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}
