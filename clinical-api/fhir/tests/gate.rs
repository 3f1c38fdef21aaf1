//! A read is judged by the resource's own body, a search by its index rows: what one shows the other shows, for every kind
//! of view and every way in which a resource is somebody's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::common::site;
use medtech_fhir::MIGRATIONS;
use medtech_kernel::{
    Migration, Result,
    auth::Role,
    policy::{self, Treatment},
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};

const SCHEMA: &[&[Migration]] = &[MIGRATIONS];
const HOUR: i64 = 3_600_000;

fn resources() -> Vec<Value> {
    let of = |id: &str, patient: &str, label: &str| {
        let mut made = json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"},
            "subject": {"reference": format!("Patient/{patient}")}});
        if !label.is_empty() {
            made["meta"] = json!({"security": [{"system": "urn:any", "code": label}]});
        }
        made
    };
    let mut all = vec![
        json!({"resourceType": "Patient", "id": "a"}),
        json!({"resourceType": "Patient", "id": "b", "link": [{"other": {"reference": "Patient/a"}, "type": "seealso"}]}),
        json!({"resourceType": "Patient", "id": "c", "meta": {"security": [{"code": "V"}]}}),
        json!({"resourceType": "Device", "id": "d-a", "patient": {"reference": "Patient/a"}}),
        json!({"resourceType": "Device", "id": "d-b", "patient": {"reference": "Patient/b"}}),
        json!({"resourceType": "Device", "id": "d"}),
        json!({"resourceType": "Slot", "id": "slot", "status": "free", "schedule": {"reference": "Schedule/x"},
            "start": "2026-03-02T09:00:00Z", "end": "2026-03-02T10:00:00Z"}),
        json!({"resourceType": "Appointment", "id": "nobodys", "status": "proposed",
            "participant": [{"status": "accepted", "actor": {"reference": "Practitioner/p"}}]}),
        json!({"resourceType": "Appointment", "id": "both", "status": "proposed", "participant": [
            {"status": "accepted", "actor": {"reference": "Patient/a"}}, {"status": "accepted", "actor": {"reference": "Patient/c"}}]}),
        json!({"resourceType": "Observation", "id": "nowhere", "status": "final", "code": {"text": "x"}}),
        json!({"resourceType": "Observation", "id": "told", "status": "final", "code": {"text": "Patient/a"}, "note": [{"text": "\"security\""}],
            "performer": [{"reference": "Patient/b"}]}),
        json!({"resourceType": "Organization", "id": "o", "name": "Patient/a"}),
        json!({"resourceType": "Practitioner", "id": "p"}),
    ];
    for patient in ["a", "b", "c"] {
        for label in ["", "PSY", "ETH", "V", "N"] {
            all.push(of(&format!("o-{patient}-{label}").to_lowercase(), patient, label));
        }
    }
    all
}

async fn one_answer(w: &World) -> Result<()> {
    w.demand_relationships(&w.north).await?;
    let (site, t) = (site(w), w.north.id);
    for made in resources() {
        let id = made["id"].as_str().unwrap().to_owned();
        site.fhir.update(t, "system", &id, made, None).await.unwrap();
    }
    // A Patient under an id of ours, and what is theirs.
    let ours = site
        .fhir
        .create(t, "system", json!({"resourceType": "Patient"}))
        .await
        .unwrap()
        .id;
    let theirs = json!({"resourceType": "Observation", "id": "o-ours", "status": "final", "code": {"text": "x"},
        "subject": {"reference": format!("Patient/{ours}")}});
    site.fhir.update(t, "system", "o-ours", theirs, None).await.unwrap();
    let mut all: Vec<(String, String)> = resources()
        .iter()
        .map(|r| {
            (
                r["resourceType"].as_str().unwrap().to_owned(),
                r["id"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    all.extend([
        ("Patient".to_owned(), ours.clone()),
        ("Observation".to_owned(), "o-ours".to_owned()),
    ]);

    let treated: [(&str, Vec<&str>); 4] = [
        ("user:none", vec![]),
        ("user:one", vec!["a"]),
        ("user:two", vec!["a", "c"]),
        ("user:ours", vec![&ours, "b"]),
    ];
    for (who, patients) in treated {
        for patient in patients {
            let treatment = Treatment {
                who: who.to_owned(),
                patient: patient.to_owned(),
                from: w.ctx.clock.now_ms() - HOUR,
                until: w.ctx.clock.now_ms() + HOUR,
            };
            let source = format!("Appointment/{who}-{patient}");
            let write = w.ctx.db.write(t, move |tx| {
                Box::pin(async move { policy::treat(tx, &source, &[treatment]).await })
            });
            write.await?;
        }
    }
    let own = w.ctx.db.write(t, |tx| {
        Box::pin(async move { policy::relate(tx, "user:patient", "self", "patient:a", None).await })
    });
    own.await?;

    let callers = [
        ("user:none", Role::Clinician),
        ("user:one", Role::Clinician),
        ("user:two", Role::Clinician),
        ("user:ours", Role::Clinician),
        ("user:patient", Role::Patient),
        ("user:desk", Role::Staff),
        ("user:admin", Role::Admin),
    ];
    let door = site.client(w, &w.north, Role::Guest).await?;
    let consents = [
        None,
        Some(json!({"type": "deny", "class": [{"code": "Observation"}]})),
        Some(
            json!({"type": "permit", "provision": [{"type": "deny", "securityLabel": [{"code": "PSY"}, {"code": "N"}]}]}),
        ),
    ];
    let (mut shown, mut hidden) = (0, 0);
    for (at, provision) in consents.into_iter().enumerate() {
        if let Some(provision) = provision {
            let consent = json!({"resourceType": "Consent", "id": "consent", "status": "active", "scope": {"text": "privacy"},
                "category": [{"text": "x"}], "policyRule": {"text": "x"}, "patient": {"reference": "Patient/a"}, "provision": provision});
            site.fhir.update(t, "system", "consent", consent, None).await.unwrap();
        }
        for (subject, role) in callers {
            let client = door.with_token(&w.sign_in(&w.north, subject, role).await?.1);
            for (ty, id) in &all {
                let read = client.get(&format!("{ty}/{id}")).await.status == 200;
                let found = client.get(&format!("{ty}?_id={id}")).await;
                let found = found.status == 200 && found.ids().contains(id);
                assert_eq!(read, found, "{subject} {ty}/{id}, consent {at}: read and found");
                if read { shown += 1 } else { hidden += 1 }
            }
        }
    }
    assert!(shown > 100 && hidden > 100, "{shown} shown, {hidden} hidden");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_shows_what_a_search_shows() {
    on_both_engines(SCHEMA, |w| Box::pin(one_answer(w))).await;
}
