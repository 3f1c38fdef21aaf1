//! The demo clinic: people, records, and a day of appointments around now. Made step by step, each step harmless when
//! its outcome is there, so that it may be run again, also after it was cut short.

mod chart;
mod people;

use crate::app::Clinic;
use chart::NUMBERS;
use medtech_appointments::{NewAppointment, Planned};
use medtech_fhir::Access;
use medtech_identity::{NewUser, User};
use medtech_kernel::{
    Error, Result, Tenant,
    audit::{self, Entry},
    auth::Role,
    clock::Millis,
    error::Kind,
    tenant::Settings,
};
use people::{PATIENTS, WORKERS};
use serde_json::{Value, json};

/// The clinic's short name: `demo.localhost`.
pub(crate) const SLUG: &str = "demo";
const NAME: &str = "Harbour Clinic";
const ZONE: &str = "Europe/London";
const ACTOR: &str = "system";
const MINUTE: Millis = 60_000;
/// Appointments begin at these minutes.
const GRID: Millis = 5 * MINUTE;

/// Appointments of the day: minutes from now, length, patient, reason. The one at 0 is ready to start.
const DAY_PLAN: &[(i64, i64, usize, &str)] = &[
    (0, 30, 0, "Blood pressure review"),
    (45, 20, 1, "Diabetes follow-up"),
    (75, 20, 4, "Thyroid medication review"),
    (105, 20, 9, "Kidney function follow-up"),
    (150, 20, 16, "Cholesterol results"),
];

/// Makes the demo clinic, or what is missing of it.
pub(crate) async fn ensure(clinic: &Clinic) -> Result<()> {
    let tenant = match clinic.ctx.tenants.by_slug(SLUG) {
        Some(tenant) => tenant,
        None => {
            let tenant = clinic.ctx.tenants.create(SLUG, NAME, ZONE, &[]).await?;
            ease(clinic, &tenant).await?;
            tenant
        }
    };
    let doctor = workers(clinic, &tenant).await?;
    let patients = patients(clinic, &tenant, &doctor).await?;
    patient_account(clinic, &tenant, patients.first()).await?;
    today(clinic, &tenant, &doctor, &patients).await
}

/// The printed addresses sign people in by themselves: one factor is enough in the demo clinic, and its trail says so.
async fn ease(clinic: &Clinic, tenant: &Tenant) -> Result<()> {
    let settings = Settings {
        require_two_factors: false,
        ..Settings::default()
    };
    clinic.ctx.tenants.set_settings(tenant.id, &settings).await?;
    let noted = clinic.ctx.db.write(tenant.id, |tx| {
        Box::pin(async move {
            let entry = Entry {
                actor: ACTOR,
                action: "update",
                target: "tenant settings",
                outcome: "success",
                detail: "require_two_factors false: the demo clinic",
            };
            audit::write(tx, entry).await
        })
    });
    noted.await
}

/// The visit page of the patient whose appointment is ready, `/visit#TOKEN`; `None` when nothing can be opened now.
pub(crate) async fn patient_page(clinic: &Clinic, tenant: &Tenant) -> Result<Option<String>> {
    let doctor = clinic.identity.find_by_email(tenant.id, &address("marsh")).await?;
    let Some(practitioner) = doctor.and_then(|d| d.practitioner) else {
        return Ok(None);
    };
    let around = near(clinic, tenant, &practitioner).await?;
    Ok(ready(&around, clinic.ctx.clock.now_ms()).map(|p| p.visit_link.clone()))
}

/// The person of the demo who stands for a role: the clinician is the one with the appointments, the patient the one of
/// the first. Not simply the oldest: accounts made in one millisecond have no order.
pub(crate) async fn person(clinic: &Clinic, tenant: &Tenant, role: Role) -> Result<Option<User>> {
    let email = match role {
        Role::Patient => PATIENTS.first().map(|p| address(&p.given.to_lowercase())),
        _ => WORKERS.iter().find(|w| w.role == role.name()).map(|w| address(w.key)),
    };
    match email {
        Some(email) => clinic.identity.find_by_email(tenant.id, &email).await,
        None => Ok(None),
    }
}

fn absent() -> Error {
    Error::not_found(
        "demo.absent",
        "There is no demo clinic here yet. Run `medtech demo` first.",
    )
}

fn address(key: &str) -> String {
    format!("{key}@harbour.example")
}

/// Everyone who works here; answers the logical id of the first clinician's Practitioner.
async fn workers(clinic: &Clinic, tenant: &Tenant) -> Result<String> {
    let mut doctor = None;
    for worker in WORKERS {
        let user = match clinic.identity.find_by_email(tenant.id, &address(worker.key)).await? {
            Some(user) => user,
            None => employ(clinic, tenant, worker).await?,
        };
        doctor = doctor.or(user.practitioner);
    }
    doctor.ok_or_else(absent)
}

async fn employ(clinic: &Clinic, tenant: &Tenant, worker: &people::Worker) -> Result<User> {
    let practitioner = match worker.specialty {
        None => None,
        Some(specialty) => {
            let number = format!("staff-{}", worker.key);
            let resource = json!({
                "resourceType": "Practitioner",
                "identifier": [{"system": NUMBERS, "value": number}],
                "active": true,
                "name": [{"use": "official", "prefix": ["Dr."], "given": [worker.given], "family": worker.family}],
                "qualification": [{"code": {"text": specialty}}],
            });
            Some(once(clinic, tenant, "Practitioner", &number, resource).await?)
        }
    };
    let role = Role::parse(worker.role).ok_or_else(|| Error::internal("demo.role", "a worker's role is unknown"))?;
    let new = NewUser {
        email: address(worker.key),
        name: worker.name.to_owned(),
        roles: vec![role],
        password: None,
        practitioner,
        patient: None,
    };
    clinic.identity.create_user(tenant.id, new).await
}

/// The resource with this number of ours, made when it is missing.
async fn once(clinic: &Clinic, tenant: &Tenant, kind: &str, number: &str, resource: Value) -> Result<String> {
    match numbered(clinic, tenant, kind, number).await? {
        Some(id) => Ok(id),
        None => Ok(clinic
            .fhir
            .create(tenant.id, ACTOR, resource)
            .await
            .map_err(Error::from)?
            .id),
    }
}

async fn numbered(clinic: &Clinic, tenant: &Tenant, kind: &str, number: &str) -> Result<Option<String>> {
    let query = format!("identifier={NUMBERS}|{number}&_count=1");
    let found = clinic
        .fhir
        .search(tenant.id, &Access::All, kind, &query)
        .await
        .map_err(Error::from)?;
    Ok(found.resources.into_iter().next().map(|r| r.id))
}

/// Every patient with the whole record, a transaction each; answers the logical ids in the order of the list.
async fn patients(clinic: &Clinic, tenant: &Tenant, practitioner: &str) -> Result<Vec<String>> {
    let (practitioner, now) = (format!("Practitioner/{practitioner}"), clinic.ctx.clock.now_ms());
    let mut ids = Vec::with_capacity(PATIENTS.len());
    for (number, person) in PATIENTS.iter().enumerate() {
        let id = match numbered(clinic, tenant, "Patient", &chart::record_number(number)).await? {
            Some(id) => id,
            None => {
                let bundle = chart::bundle(person, number, &practitioner, now);
                let written = clinic
                    .fhir
                    .transaction(tenant.id, ACTOR, bundle)
                    .await
                    .map_err(Error::from)?;
                let patient = written.into_iter().find(|r| r.resource_type == "Patient");
                patient
                    .ok_or_else(|| Error::internal("demo.patient", "the patient's bundle answered no patient"))?
                    .id
            }
        };
        ids.push(id);
    }
    Ok(ids)
}

/// The first patient can sign in too.
async fn patient_account(clinic: &Clinic, tenant: &Tenant, patient: Option<&String>) -> Result<()> {
    let (Some(id), Some(person)) = (patient, PATIENTS.first()) else {
        return Ok(());
    };
    let email = address(&person.given.to_lowercase());
    if clinic.identity.find_by_email(tenant.id, &email).await?.is_none() {
        let new = NewUser {
            email,
            name: format!("{} {}", person.given, person.family),
            roles: vec![Role::Patient],
            password: None,
            practitioner: None,
            patient: Some(id.clone()),
        };
        clinic.identity.create_user(tenant.id, new).await?;
    }
    Ok(())
}

/// Fills the day when nothing can be started now.
async fn today(clinic: &Clinic, tenant: &Tenant, practitioner: &str, patients: &[String]) -> Result<()> {
    let now = clinic.ctx.clock.now_ms();
    let around = near(clinic, tenant, practitioner).await?;
    if ready(&around, now).is_some() {
        return Ok(());
    }
    let first = now - now.rem_euclid(GRID);
    // A clinic that has a day already only needs the next one to begin.
    let plan = if around.iter().any(|p| p.start > now) {
        DAY_PLAN.get(..1).unwrap_or(DAY_PLAN)
    } else {
        DAY_PLAN
    };
    for (minutes, length, patient, reason) in plan {
        let Some(patient) = patients.get(*patient) else {
            continue;
        };
        let mut start = first + minutes * MINUTE;
        // Beside what is there: the next free time within the hour.
        let limit = start + 60 * MINUTE;
        while start < limit {
            let new = NewAppointment {
                patient_id: patient.clone(),
                practitioner_id: practitioner.to_owned(),
                start,
                end: start + length * MINUTE,
                reason: (*reason).to_owned(),
            };
            match clinic.appointments.book(tenant.id, ACTOR, None, new).await {
                Ok(_) => break,
                Err(e) if e.kind == Kind::Conflict => start += GRID,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

/// Appointments from two hours before now to two hours after.
async fn near(clinic: &Clinic, tenant: &Tenant, practitioner: &str) -> Result<Vec<Planned>> {
    let (now, span) = (clinic.ctx.clock.now_ms(), 120 * MINUTE);
    clinic
        .appointments
        .planned(tenant.id, practitioner, now - span, now + span)
        .await
}

/// The appointment a patient would open now: one that is under way, else the one that began last, else the next
/// within the hour.
fn ready(around: &[Planned], now: Millis) -> Option<&Planned> {
    let open =
        |p: &&Planned| matches!(p.status.as_str(), "booked" | "arrived" | "checked-in") && p.end + 30 * MINUTE > now;
    let begun = around.iter().filter(open).filter(|p| p.start <= now + GRID);
    begun
        .max_by_key(|p| (p.status != "booked", p.start))
        .or_else(|| around.iter().filter(open).find(|p| p.start <= now + 60 * MINUTE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn planned(id: &str, start: i64, status: &str) -> Planned {
        let (start, end) = (start * MINUTE, (start + 20) * MINUTE);
        Planned {
            id: id.into(),
            start,
            end,
            status: status.into(),
            visit: Uuid::nil(),
            visit_link: String::new(),
        }
    }

    #[test]
    fn the_ready_one_is_under_way_or_just_begun_or_next() {
        let now = 1_000 * MINUTE;
        let id = |list: &[Planned]| ready(list, now).map(|p| p.id.clone());
        let all = [
            planned("over", 940, "booked"),
            planned("done", 990, "fulfilled"),
            planned("now", 998, "booked"),
            planned("next", 1_040, "booked"),
        ];
        assert_eq!(id(&all).as_deref(), Some("now"));
        assert_eq!(
            id(&[planned("arrived", 985, "arrived"), planned("now", 998, "booked")]).as_deref(),
            Some("arrived")
        );
        assert_eq!(
            id(&[planned("done", 990, "fulfilled"), planned("next", 1_040, "booked")]).as_deref(),
            Some("next")
        );
        assert_eq!(
            id(&[planned("far", 1_090, "booked"), planned("gone", 998, "cancelled")]),
            None
        );
    }

    #[tokio::test]
    async fn made_again_it_is_the_same_clinic() {
        use medtech_kernel::{Module, testkit::on_both_engines};
        let tables = [
            medtech_fhir::MIGRATIONS,
            medtech_identity::Identity::migrations(),
            medtech_records::Records::migrations(),
            medtech_appointments::Appointments::migrations(),
        ];
        on_both_engines(&tables, |w| {
            Box::pin(async move {
                let clinic = crate::app::clinic(w.ctx.clone());
                let count = async |tenant: &Tenant| {
                    let mut all = Vec::new();
                    for kind in [
                        "Patient",
                        "Practitioner",
                        "Condition",
                        "DiagnosticReport",
                        "Appointment",
                    ] {
                        let found = clinic.fhir.search(tenant.id, &Access::All, kind, "_count=1000").await;
                        all.push(found.map(|f| f.resources.len()).map_err(Error::from));
                    }
                    all.into_iter().collect::<Result<Vec<usize>>>()
                };
                ensure(&clinic).await?;
                let tenant = clinic.ctx.tenants.by_slug(SLUG).ok_or_else(absent)?;
                let (made, page) = (count(&tenant).await?, patient_page(&clinic, &tenant).await?);
                assert_eq!(
                    (made.first(), made.get(1), made.get(4)),
                    (Some(&25), Some(&3), Some(&DAY_PLAN.len()))
                );
                assert!(page.as_ref().is_some_and(|p| p.starts_with("/visit#")));
                ensure(&clinic).await?;
                assert_eq!(
                    (count(&tenant).await?, patient_page(&clinic, &tenant).await?),
                    (made, page.clone())
                );
                // The clock stands still here, so every account is as old as the other.
                for role in [Role::Admin, Role::Clinician, Role::Staff, Role::Patient] {
                    let found = person(&clinic, &tenant, role).await?;
                    assert!(found.is_some_and(|u| u.roles == [role]), "{role:?}");
                }
                let doctor = person(&clinic, &tenant, Role::Clinician)
                    .await?
                    .and_then(|d| d.practitioner);
                let days = near(&clinic, &tenant, &doctor.unwrap_or_default()).await?;
                assert_eq!(
                    days.len(),
                    DAY_PLAN.len() - 1,
                    "the clinician shown is the one with the appointments"
                );
                // The next day there is something to start again.
                clinic.ctx.clock.advance(chart::DAY);
                assert_eq!(patient_page(&clinic, &tenant).await?, None);
                ensure(&clinic).await?;
                assert_ne!(patient_page(&clinic, &tenant).await?, page);
                assert!(count(&w.north).await?.iter().all(|n| *n == 0));
                Ok(())
            })
        })
        .await;
    }
}
