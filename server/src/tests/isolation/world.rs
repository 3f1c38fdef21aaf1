//! A world to walk through: each clinic with records that its own people see differently, each kind of record with a mark.

use super::{Caller, HOUR, House, Stand};
use medtech_identity::NewUser;
use medtech_kernel::{
    Error, Result, Tenant,
    auth::{Assurance, Grant, NewSession, Role},
    policy,
    testkit::World,
};
use serde_json::{Value, json};

/// Marks of a clinic's records, without the clinic's name behind them.
pub(super) const NEAR: &str = "ClinNear";
pub(super) const WHY: &str = "WhyNear";
pub(super) const OUT: &str = "ClinOut";
pub(super) const NAME_OUT: &str = "NameOut";
pub(super) const SEALED: &str = "ClinSeal";
pub(super) const DENIED: &str = "ClinDeny";
pub(super) const NAME_DENIED: &str = "NameDeny";
/// Somebody known to everybody, whose record says so.
pub(super) const NAME_VIP: &str = "NameVip";
const EVERY: [&str; 8] = [NEAR, WHY, OUT, NAME_OUT, SEALED, DENIED, NAME_DENIED, NAME_VIP];

/// What this caller must not find of the own clinic's.
pub(super) fn forbidden(caller: &str) -> Vec<&'static str> {
    let but = |seen: &[&str]| EVERY.iter().filter(|m| !seen.contains(m)).copied().collect();
    match caller {
        "clinician" => but(&[NEAR, WHY]),
        "staff" | "admin" => but(&[NAME_OUT, NAME_DENIED]),
        "patient" => but(&[NEAR, WHY, SEALED]),
        "app" => but(&[NEAR]),
        _ => but(&[]),
    }
}

/// Ids of what lies outside of every relationship, by the kinds of [`Stand::ids`].
pub(super) struct Outside {
    pub(super) ids: Vec<(&'static str, String)>,
}

impl House {
    /// Adds to a stand what nobody treats, what is sealed, what a patient denies, and callers who see less.
    pub(super) async fn furnish(&self, w: &World, tenant: &Tenant, stand: &mut Stand) -> Result<Outside> {
        let t = tenant.id;
        let put = async |id: String, resource: Value| {
            let mut resource = resource;
            resource["id"] = json!(id);
            let made = self.clinic.fhir.update(t, "system", &id, resource, None).await;
            made.map_err(Error::from).map(|r| r.id)
        };
        let slug = &tenant.slug;
        let near = stand.id("patient").to_owned();
        let doctor = stand.id("practitioner").to_owned();
        let person = |name: &str, more: Value| {
            let mut p = json!({"resourceType": "Patient", "name": [{"family": format!("{name}{slug}")}],
                "identifier": [{"system": "urn:mrn", "value": name}], "birthDate": "1977-07-07"});
            for (key, value) in more.as_object().into_iter().flatten() {
                p[key] = value.clone();
            }
            p
        };
        let observation = |mark: &str, patient: &str, more: Value| {
            let mut o = json!({"resourceType": "Observation", "status": "final", "code": {"coding": [{"system": "urn:c", "code": format!("code-{mark}")}], "text": format!("{mark}{slug}")},
                "subject": {"reference": format!("Patient/{patient}")}, "effectiveDateTime": "2026-03-01T10:00:00Z"});
            for (key, value) in more.as_object().into_iter().flatten() {
                o[key] = value.clone();
            }
            o
        };
        let encounter = |mark: &str, patient: &str| {
            json!({"resourceType": "Encounter", "status": "finished", "class": {"code": "VR"}, "subject": {"reference": format!("Patient/{patient}")},
                "reasonCode": [{"coding": [{"system": "urn:c", "code": format!("code-{mark}")}], "text": format!("{mark}{slug}")}],
                "period": {"start": "2026-03-01T10:00:00Z", "end": "2026-03-01T11:00:00Z"}})
        };
        let out = put("outsider".into(), person(NAME_OUT, json!({}))).await?;
        let very = json!({"meta": {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}]}});
        put("vip".into(), person(NAME_VIP, very)).await?;
        let o_out = put("o-outside".into(), observation(OUT, &out, json!({}))).await?;
        put("e-outside".into(), encounter(OUT, &out)).await?;
        // Nobody of the clinic sees who denies: not their doctor, and not the desk what is clinical.
        let reference = json!([{"reference": format!("Practitioner/{doctor}")}]);
        let denier = put(
            "denier".into(),
            person(NAME_DENIED, json!({"generalPractitioner": reference})),
        )
        .await?;
        put("o-denied".into(), observation(DENIED, &denier, json!({}))).await?;
        put(
            "consent".into(),
            json!({"resourceType": "Consent", "status": "active", "scope": {"text": "privacy"}, "category": [{"text": "x"}],
                "patient": {"reference": format!("Patient/{denier}")}, "policyRule": {"text": "x"},
                "provision": {"type": "deny", "actor": [{"role": {"text": "x"}, "reference": {"reference": format!("Practitioner/{doctor}")}}]}}),
        )
        .await?;
        put(
            "o-near".into(),
            observation(
                NEAR,
                &near,
                json!({"hasMember": [{"reference": format!("Observation/{o_out}")}]}),
            ),
        )
        .await?;
        put("e-near".into(), encounter(WHY, &near)).await?;
        let sealed = json!({"meta": {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}]}});
        put("o-sealed".into(), observation(SEALED, &near, sealed)).await?;
        // First filed under the wrong patient.
        put("o-moved".into(), observation(OUT, &out, json!({}))).await?;
        put("o-moved".into(), observation(NEAR, &near, json!({}))).await?;

        let locum = NewUser {
            email: format!("locum@{slug}.example"),
            name: format!("Locum {}", stand.mark),
            roles: vec![Role::Clinician],
            password: None,
            practitioner: None,
            patient: None,
        };
        let locum = self.clinic.identity.create_user(t, locum).await?;
        let host = stand.caller("nobody").host.clone();
        let token = self.clinic.identity.issue_token(t, locum.id, HOUR * 12, "test").await?;
        let caller = |token: String| Caller {
            host: host.clone(),
            token: Some(token),
        };
        stand.callers.push(("locum", caller(token)));
        // Who stands for the patient where appointments are concerned, and in nothing else.
        let carer = NewUser {
            email: format!("carer@{slug}.example"),
            name: format!("Carer {}", stand.mark),
            roles: vec![Role::Patient],
            password: None,
            practitioner: None,
            patient: None,
        };
        let carer = self.clinic.identity.create_user(t, carer).await?;
        let token = self.clinic.identity.issue_token(t, carer.id, HOUR * 12, "test").await?;
        stand.callers.push(("carer", caller(token)));
        let (subject, of) = (format!("user:{}", carer.id), format!("patient:{near}"));
        let agreed = self.clinic.ctx.db.write(t, move |tx| {
            Box::pin(async move {
                for relation in ["proxy", "proxy.appointments"] {
                    policy::relate(tx, &subject, relation, &of, None).await?;
                }
                Ok(())
            })
        });
        agreed.await?;
        // Whom the visit is about is known.
        let (visit, about) = (stand.id("visit").to_owned(), format!("patient:{near}"));
        let related = self.clinic.ctx.db.write(t, move |tx| {
            Box::pin(async move { policy::relate(tx, &format!("visit:{visit}"), "about", &about, None).await })
        });
        related.await?;
        // An application the patient's doctor lets read observations of this one patient.
        let doctor = self.principal(w, tenant, stand.caller("clinician")).await?;
        let device = format!("device:{}", stand.id("device"));
        let app = NewSession {
            subject: doctor.subject.clone(),
            name: "App".into(),
            roles: doctor.roles.clone(),
            ttl_ms: HOUR * 12,
            note: "app".into(),
            grant: Grant {
                assurance: Assurance::Two,
                client: Some("app".into()),
                scopes: Some("patient/Observation.rs".into()),
                patient: Some(near),
                machine: false,
            },
            idle_ms: None,
        };
        let device = NewSession {
            subject: device,
            name: "Device".into(),
            roles: vec![Role::Device],
            grant: Assurance::Bearer.into(),
            ..app.clone()
        };
        for (name, new) in [("app", app), ("device", device)] {
            stand.callers.push((name, caller(self.issue(tenant, new).await?)));
        }
        Ok(Outside {
            ids: vec![
                ("patient", out),
                ("observation", o_out),
                ("visit", uuid::Uuid::from_u128(5).to_string()),
            ],
        })
    }

    pub(super) async fn issue(&self, tenant: &Tenant, new: NewSession) -> Result<String> {
        let sessions = self.clinic.ctx.sessions.clone();
        let issued = self.clinic.ctx.db.write(tenant.id, move |tx| {
            Box::pin(async move { sessions.issue(tx, new).await })
        });
        issued.await.map(|(token, _)| token)
    }

    pub(super) async fn principal(
        &self,
        w: &World,
        tenant: &Tenant,
        who: &Caller,
    ) -> Result<medtech_kernel::auth::Principal> {
        let token = who.token.clone().unwrap_or_default();
        w.ctx.sessions.verify(tenant.id, &token).await
    }
}
