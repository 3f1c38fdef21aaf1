use super::*;
use ::http::{Request, StatusCode};
use axum::{Extension, Router, body::Body};
use http_body_util::BodyExt;
use medtech_fhir::Fhir;
use medtech_identity::{Identity, NewUser};
use medtech_kernel::{
    Migration, Module,
    audit::{Found, Origin},
    auth::Role,
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;

fn tables() -> [&'static [Migration]; 2] {
    [medtech_fhir::MIGRATIONS, Identity::migrations()]
}

async fn call(app: &Router, method: &str, path: &str, token: &str, body: Option<Value>) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "north.localhost")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/fhir+json");
    let body = body.map_or(Body::empty(), |b| Body::from(b.to_string()));
    let answer = app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn user(w: &World, identity: &Identity, role: Role, patient: Option<&str>) -> Result<String> {
    let new = NewUser {
        email: format!("{}-{}@north.example", role.name(), patient.unwrap_or("")),
        name: format!("A {}", role.name()),
        roles: vec![role],
        password: None,
        practitioner: None,
        patient: patient.map(str::to_owned),
    };
    let user = identity.create_user(w.north.id, new).await?;
    identity.issue_token(w.north.id, user.id, 3_600_000, "test").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_finds_the_clinicians_read_of_an_observation_in_the_own_log() {
    on_both_engines(&tables(), |w| {
        Box::pin(async move {
            let fhir = Fhir::new(w.ctx.clone());
            let identity = Arc::new(Identity::new(w.ctx.clone()));
            let app = fhir
                .router()
                .merge(Router::new().nest("/api/identity", identity.clone().routes()))
                .layer(Extension(w.ctx.clone()));
            let doctor = user(w, &identity, Role::Clinician, None).await?;
            let anna = user(w, &identity, Role::Patient, Some("anna")).await?;
            let bert = user(w, &identity, Role::Patient, Some("bert")).await?;
            for (id, resource) in [
                ("Patient/anna", json!({"resourceType": "Patient", "id": "anna"})),
                ("Patient/bert", json!({"resourceType": "Patient", "id": "bert"})),
                (
                    "Observation/o1",
                    json!({"resourceType": "Observation", "id": "o1", "status": "final", "code": {"text": "weight"}, "subject": {"reference": "Patient/anna"}}),
                ),
            ] {
                let (status, body) = call(&app, "PUT", &format!("/fhir/R4/{id}"), &doctor, Some(resource)).await;
                assert_eq!(status, StatusCode::CREATED, "{body}");
            }
            let (status, _) = call(&app, "GET", "/fhir/R4/Observation/o1", &doctor, None).await;
            assert_eq!(status, StatusCode::OK);
            fhir.flush_audit().await;
            let (_, log) = call(&app, "GET", "/api/identity/me/access-log", &anna, None).await;
            let newest = &log["entries"][0];
            assert_eq!(
                (&newest["who"]["name"], &newest["who"]["role"], &newest["action"], &newest["what"]),
                (&json!("A clinician"), &json!("clinician"), &json!("read"), &json!(["Observation"])),
                "{log}"
            );
            assert!(!log.to_string().contains("bert"));
            let (_, other) = call(&app, "GET", "/api/identity/me/access-log", &bert, None).await;
            let kinds: Vec<&Value> = other["entries"].as_array().unwrap().iter().map(|e| &e["what"]).collect();
            assert_eq!(kinds, [&json!(["Patient"])], "{other}");
            Ok(())
        })
    })
    .await;
}

fn found(action: &str, target: &str, detail: &str, patient: Option<&str>) -> Found {
    Found {
        seq: 7,
        at: 1_772_442_000_000,
        actor: "user:0190a000-0000-7000-8000-000000000001".into(),
        action: action.into(),
        target: target.into(),
        outcome: "success".into(),
        detail: detail.into(),
        patient: patient.map(str::to_owned),
        patients: 0,
        hash: [9; 32],
        origin: Origin::default(),
        digest: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_entry_is_a_valid_audit_event() {
    let w = World::sqlite(&tables()).await.unwrap();
    let fhir = Fhir::new(w.ctx.clone());
    for (action, target, detail, patient, ty, subtype) in [
        ("read", "Observation/o1", "read", Some("p1"), "rest", Some("read")),
        ("read", "Observation/o1", "vread", Some("p1"), "rest", Some("vread")),
        (
            "read",
            "Observation",
            "search patient code",
            Some("p1"),
            "rest",
            Some("search-type"),
        ),
        ("read", "Patient", "history", None, "rest", Some("history-type")),
        (
            "read",
            "Patient/p1",
            "history",
            Some("p1"),
            "rest",
            Some("history-instance"),
        ),
        ("create", "Patient/p1", "version 1", Some("p1"), "rest", Some("create")),
        ("delete", "Patient/p1", "version 2", Some("p1"), "rest", Some("delete")),
        (
            "execute",
            "Bundle",
            "create Patient/p1",
            Some("p1"),
            "rest",
            Some("transaction"),
        ),
        ("execute", "sign-in", "password", None, "110114", Some("110122")),
        ("execute", "sign-out", "session", None, "110114", Some("110123")),
        ("read", "audit", "", None, "110101", None),
        (
            "create",
            "Message/0190a000-0000-7000-8000-000000000001",
            "conversation:1",
            None,
            "110100",
            None,
        ),
        (
            "update",
            "visit:0190a000-0000-7000-8000-000000000001",
            "admit",
            None,
            "110100",
            None,
        ),
        ("read", "Observation/what ever ../", "read", None, "110100", None),
    ] {
        let event = event::of(&w.north, &found(action, target, detail, patient), &[]);
        assert_eq!(
            (&event["type"]["code"], event["subtype"][0]["code"].as_str()),
            (&json!(ty), subtype),
            "{target}"
        );
        let people = event["entity"].as_array().unwrap().len() - 1;
        assert_eq!(people, usize::from(patient.is_some()));
        // The engine's own validation stands before every create.
        let stored = fhir.create(w.north.id, "system", event).await;
        assert!(stored.is_ok(), "{action} {target}: {:?}", stored.err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_whole_in_order_and_inside_its_times() {
    on_both_engines(&tables(), |w| {
        Box::pin(async move {
            for n in 0..1500_i64 {
                let target = format!("Observation/o{n}");
                w.ctx.clock.advance(1000);
                w.ctx
                    .db
                    .write(w.north.id, move |tx| {
                        Box::pin(async move {
                            let entry = Entry {
                                actor: "user:1",
                                action: "read",
                                target: &target,
                                outcome: "success",
                                detail: "read",
                            };
                            audit::write(tx, entry).await
                        })
                    })
                    .await?;
            }
            let start = medtech_kernel::testkit::START;
            for (times, count) in [(0..i64::MAX, 1501), (start + 1000..start + 1_200_000, 1199)] {
                let mut out = Vec::new();
                export(&w.ctx, &w.north, times, &mut out).await?;
                let lines: Vec<Value> = String::from_utf8(out)
                    .unwrap()
                    .lines()
                    .map(|l| serde_json::from_str(l).unwrap())
                    .collect();
                assert_eq!(lines.len(), count);
                assert!(
                    lines
                        .windows(2)
                        .all(|l| l[0]["recorded"].as_str() <= l[1]["recorded"].as_str())
                );
            }
            Ok(())
        })
    })
    .await;
}
