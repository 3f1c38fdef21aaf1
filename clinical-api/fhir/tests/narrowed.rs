//! SMART scopes that a query narrows (`user/Observation.rs?category=laboratory`), at every way in and out, and tried hard.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use crate::common::{Answer, Client, Site, site};
use medtech_fhir::MIGRATIONS;
use medtech_kernel::{
    Migration, Result,
    auth::{Assurance, Grant, NewSession, Role},
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};

const SCHEMA: &[&[Migration]] = &[MIGRATIONS];
const LAB: &str = "category=urn:cat|laboratory";

fn observation(id: &str, category: &str, value: i64) -> Value {
    json!({"resourceType": "Observation", "id": id, "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}, "effectiveDateTime": "2026-03-01T10:00:00Z",
        "subject": {"reference": "Patient/near"}, "valueQuantity": {"value": value, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"},
        "category": [{"coding": [{"system": "urn:cat", "code": category}]}]})
}

struct House {
    site: Site,
    doctor: Client,
}

impl House {
    /// One patient with a laboratory value and a vital sign that points at it; another patient with a laboratory value.
    async fn open(w: &World) -> Result<Self> {
        let site = site(w);
        let mut vital = observation("vital", "vital-signs", 60);
        vital["hasMember"] = json!([{"reference": "Observation/lab"}]);
        let mut lab = observation("lab", "laboratory", 120);
        lab["derivedFrom"] = json!([{"reference": "Observation/vital"}]);
        let mut far = observation("lab-far", "laboratory", 130);
        far["subject"]["reference"] = "Patient/far".into();
        let patient = |id: &str, born: &str| json!({"resourceType": "Patient", "id": id, "birthDate": born, "name": [{"family": format!("Family{id}")}]});
        for resource in [
            patient("near", "1980-02-01"),
            patient("far", "1990-07-15"),
            observation("vital", "vital-signs", 1),
            lab,
            vital,
            far,
        ] {
            let id = resource["id"].as_str().unwrap().to_owned();
            site.fhir
                .update(w.north.id, "system", &id, resource, None)
                .await
                .unwrap();
        }
        let doctor = site.client(w, &w.north, Role::Clinician).await?;
        Ok(Self { site, doctor })
    }

    async fn app(&self, w: &World, scopes: &str) -> Result<Client> {
        let sessions = w.ctx.sessions.clone();
        let new = NewSession {
            subject: "user:00000000-0000-0000-0000-0000000000d0".into(),
            name: "doctor".into(),
            roles: vec![Role::Clinician],
            ttl_ms: 86_400_000,
            note: "test".into(),
            grant: Grant {
                assurance: Assurance::Two,
                client: Some("app".into()),
                scopes: Some(scopes.into()),
                patient: Some("near".into()),
                ..Grant::default()
            },
            idle_ms: None,
        };
        let issued = w.ctx.db.write(w.north.id, move |tx| {
            Box::pin(async move { sessions.issue(tx, new).await })
        });
        Ok(self.doctor.with_token(&issued.await?.0))
    }
}

fn code(a: &Answer) -> u16 {
    a.status.as_u16()
}

fn sorted(a: &Answer) -> Vec<String> {
    let mut ids = a.ids();
    ids.sort();
    ids
}

async fn ways_out(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    let app = h.app(w, &format!("patient/Observation.rs?{LAB}")).await?;
    assert_eq!(app.get("Observation").await.ids(), ["lab"]);
    for empty in [
        "Observation?category=vital-signs",
        "Observation?_id=vital",
        "Observation?code=8867-4&value-quantity=60",
        "Observation?category:not=laboratory",
        "Observation?category:missing=true",
        "Observation?_id=lab-far",
        // Ways that lead through what is not in the scope.
        "Observation?has-member:Observation.status=final",
        "Observation?derived-from:Observation.status=final",
        "Observation?_has:Observation:derived-from:category=vital-signs",
        "Observation?_has:Observation:has-member:status=final",
    ] {
        let a = app.get(empty).await;
        assert_eq!((code(&a), a.ids()), (200, Vec::new()), "{empty}: {}", a.text);
        let total = app.get(&format!("{empty}&_summary=count")).await;
        assert_eq!(total.at("/total"), 0, "{empty}");
    }
    for closed in [
        "Observation?subject:Patient.family=x",
        "Observation?patient:Patient.birthdate=1980-02-01",
        "Patient?_has:Observation:patient:category=laboratory",
        "Patient/near",
        "Observation/_history",
    ] {
        assert_eq!(code(&app.get(closed).await), 403, "{closed}");
    }
    let unnamed = app.get("Observation?patient.birthdate=1980-02-01").await;
    assert_eq!(code(&unnamed), 400, "a chain whose every type is closed leads nowhere");
    for (path, status) in [
        ("Observation/lab", 200),
        ("Observation/lab/_history/1", 200),
        ("Observation/lab/_history", 200),
        ("Observation/vital", 404),
        ("Observation/vital/_history/1", 404),
        ("Observation/vital/_history", 404),
        ("Observation/lab-far", 404),
    ] {
        assert_eq!(code(&app.get(path).await), status, "{path}");
    }
    for along in [
        "_include=Observation:derived-from",
        "_include=Observation:*",
        "_revinclude=Observation:has-member",
    ] {
        assert_eq!(app.get(&format!("Observation?{along}")).await.ids(), ["lab"], "{along}");
    }
    // In a batch as alone.
    let entry = |url: &str| json!({"request": {"method": "GET", "url": url}});
    let batch = json!({"resourceType": "Bundle", "type": "batch", "entry": [entry("Observation/vital"), entry("Observation/lab"), entry("Observation?_id=vital")]});
    let answer = app.post("", &batch).await.json();
    assert_eq!(answer["entry"][0]["response"]["status"], "404");
    assert_eq!(answer["entry"][1]["resource"]["id"], "lab");
    assert!(answer["entry"][2]["resource"].get("entry").is_none(), "{answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrowed_scope_holds_at_every_way_out() {
    on_both_engines(SCHEMA, |w| Box::pin(ways_out(w))).await;
}

async fn versions(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    // It was a vital sign, then a laboratory value of another status, then one as the scope has it.
    for (category, status) in [
        ("vital-signs", "final"),
        ("laboratory", "preliminary"),
        ("laboratory", "final"),
    ] {
        let mut o = observation("moved", category, 61);
        o["status"] = status.into();
        h.site
            .fhir
            .update(w.north.id, "system", "moved", o, None)
            .await
            .unwrap();
    }
    let history = |a: &Answer| -> Vec<String> {
        let all = a.json()["entry"].as_array().cloned().unwrap_or_default();
        all.iter()
            .map(|e| e["resource"]["meta"]["versionId"].as_str().unwrap().to_owned())
            .collect()
    };
    for (query, shown) in [
        (LAB, vec!["3", "2"]),
        ("category=laboratory&status=final", vec!["3"]),
        ("category:not=vital-signs", vec!["3", "2"]),
        ("status=final,amended&code=http://loinc.org|8867-4", vec!["3", "1"]),
        (
            "subject=Patient/near&date=ge2026-01-01&value-quantity=lt62",
            vec!["3", "2", "1"],
        ),
        ("category=urn:cat|&_id=moved", vec!["3", "2", "1"]),
        // What lies behind a chain is not told of a version that is past.
        ("subject:Patient.birthdate=1980-02-01", vec![]),
    ] {
        let app = h
            .app(w, &format!("user/Observation.rs?{query} user/Patient.rs"))
            .await?;
        assert_eq!(code(&app.get("Observation/moved").await), 200, "{query}");
        let all = app.get("Observation/moved/_history").await;
        assert_eq!(history(&all), shown, "{query}");
        for version in ["1", "2", "3"] {
            let one = app.get(&format!("Observation/moved/_history/{version}")).await;
            assert_eq!(code(&one) == 200, shown.contains(&version), "{query} {version}");
        }
    }
    // Deleted, it is known by its last state.
    h.site
        .fhir
        .delete(w.north.id, "system", "Observation", "moved")
        .await
        .unwrap();
    let (app, other) = (
        h.app(w, "user/Observation.rs?category=laboratory").await?,
        h.app(w, "user/Observation.rs?category=vital-signs").await?,
    );
    assert_eq!(code(&app.get("Observation/moved").await), 410);
    assert_eq!(code(&other.get("Observation/moved").await), 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrowed_scope_holds_for_each_version() {
    on_both_engines(SCHEMA, |w| Box::pin(versions(w))).await;
}

/// Codes, addresses and names are their writer's, however they begin.
async fn likenesses(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    let mut o = observation("like", "sealed2:a", 61);
    o["code"]["coding"][0] = json!({"system": "sealed2:system", "code": "sealed2:b"});
    o["meta"] = json!({"profile": ["sealed2:profile"]});
    o["identifier"] = json!([{"system": "sealed2:ids", "value": "sealed2:c"}]);
    o["valueQuantity"]["code"] = "sealed2:unit".into();
    let patient =
        json!({"resourceType": "Patient", "id": "like", "name": [{"family": "sealed2:x", "text": "sealed2:y"}]});
    for resource in [o.clone(), o, patient] {
        let path = format!("{}/like", resource["resourceType"].as_str().unwrap());
        let written = h.doctor.put(&path, &resource).await;
        assert!(written.status.is_success(), "{}", written.text);
    }
    for query in [
        "category=urn:cat|sealed2:a",
        "category=sealed2:a",
        "code=sealed2:system|sealed2:b",
        "_profile=sealed2:profile",
        "identifier=sealed2:ids|sealed2:c",
    ] {
        let found = h.doctor.get(&format!("Observation?{query}")).await;
        assert_eq!((code(&found), found.ids()), (200, vec!["like".to_owned()]), "{query}");
        let app = h.app(w, &format!("user/Observation.rs?{query}")).await?;
        let history = app.get("Observation/like/_history").await;
        assert_eq!(
            (code(&history), history.ids().len()),
            (200, 2),
            "{query}: {}",
            history.text
        );
    }
    let other = h.app(w, "user/Observation.rs?category=sealed2:other").await?;
    assert_eq!(code(&other.get("Observation/like/_history").await), 404);
    let named = h.doctor.get("Patient?family=sealed2:x").await;
    assert_eq!(named.ids(), ["like"], "{}", named.text);
    assert_eq!(named.at("/entry/0/resource/name/0/family"), "sealed2:x");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_begins_like_a_sealed_text_is_a_code() {
    on_both_engines(SCHEMA, |w| Box::pin(likenesses(w))).await;
}

async fn writes(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    let app = h.app(w, &format!("user/Observation.cruds?{LAB}")).await?;
    assert_eq!(
        code(&app.post("Observation", &observation("x", "laboratory", 1)).await),
        201
    );
    let (refused, ours) = (observation("x", "vital-signs", 2), observation("own", "laboratory", 3));
    assert_eq!(code(&app.post("Observation", &refused).await), 403);
    assert_eq!(code(&app.put("Observation/own", &ours).await), 201);
    // Neither out of the scope nor into it.
    assert_eq!(
        code(&app.put("Observation/own", &observation("own", "vital-signs", 3)).await),
        403
    );
    assert_eq!(
        code(
            &app.put("Observation/vital", &observation("vital", "laboratory", 4))
                .await
        ),
        403
    );
    assert_eq!(
        code(
            &app.put("Observation/vital", &observation("vital", "vital-signs", 4))
                .await
        ),
        403
    );
    assert_eq!(
        code(&app.send("DELETE", "Observation/vital", &[], "").await),
        204,
        "as if it were not there"
    );
    assert_eq!(code(&h.doctor.get("Observation/vital").await), 200, "and it still is");
    let entry = |o: &Value| json!({"resource": o, "request": {"method": "POST", "url": "Observation"}});
    let both = json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry(&observation("a", "laboratory", 5)), entry(&refused)]});
    let before = h.doctor.get("Observation?_summary=count").await.at("/total");
    assert_eq!(code(&app.post("", &both).await), 403);
    assert_eq!(
        h.doctor.get("Observation?_summary=count").await.at("/total"),
        before,
        "all or none"
    );
    let exists = app
        .send(
            "POST",
            "Observation",
            &[
                ("content-type", "application/fhir+json"),
                ("if-none-exist", "_id=vital"),
            ],
            refused.to_string(),
        )
        .await;
    assert_eq!(code(&exists), 403, "a condition finds nothing outside of the scope");
    assert_eq!(code(&app.send("DELETE", "Observation/own", &[], "").await), 204);
    assert_eq!(code(&h.doctor.get("Observation/own").await), 410);
    // Letters are narrowed each by its own scope.
    let app = h
        .app(w, &format!("user/Observation.rs user/Observation.cu?{LAB}"))
        .await?;
    assert_eq!(code(&app.get("Observation/vital").await), 200);
    assert_eq!(
        code(
            &app.put("Observation/vital", &observation("vital", "vital-signs", 4))
                .await
        ),
        403
    );
    assert_eq!(
        code(&app.put("Observation/lab", &observation("lab", "laboratory", 9)).await),
        200
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrowed_scope_holds_for_writes() {
    on_both_engines(SCHEMA, |w| Box::pin(writes(w))).await;
}

async fn together(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    for (scopes, seen) in [
        // More than one scope: each gives what it gives.
        (
            "user/Observation.rs?category=laboratory user/Observation.rs?category=vital-signs",
            vec!["lab", "lab-far", "vital"],
        ),
        (
            "user/Observation.rs?category=laboratory patient/Observation.rs",
            vec!["lab", "lab-far", "vital"],
        ),
        (
            "user/Observation.rs?_id=lab-far patient/Observation.rs?category=vital-signs",
            vec!["lab-far", "vital"],
        ),
        (
            "patient/Observation.rs?category=laboratory patient/Observation.rs",
            vec!["lab", "vital"],
        ),
        ("patient/Observation.rs?_id=lab-far", vec![]),
        // Conditions of one query are all demanded, the same twice as well.
        ("user/Observation.rs?category=laboratory&category=vital-signs", vec![]),
        (
            "user/Observation.rs?category=laboratory&value-quantity=gt125",
            vec!["lab-far"],
        ),
        (
            "user/Observation.rs?category=laboratory,vital-signs",
            vec!["lab", "lab-far", "vital"],
        ),
        // Escapes are a value's and never the query's.
        ("user/Observation.rs?category=laboratory%26status=final", vec![]),
        (
            "user/Observation.rs?category=laboratory%2Cvital-signs",
            vec!["lab", "lab-far", "vital"],
        ),
        (
            "user/Observation.rs?category=urn:cat%7Claboratory",
            vec!["lab", "lab-far"],
        ),
        ("user/Observation.rs?category=laboratory%20", vec![]),
        // What is no condition gives nothing.
        ("user/Observation.rs?nonsense=1", vec![]),
        ("user/Observation.rs?_count=100", vec![]),
        ("user/Observation.rs?_include=Observation:subject", vec![]),
        ("user/Observation.rs?category:unheard=1", vec![]),
        ("user/Observation.rs?category=laboratory&nonsense=1", vec![]),
        // A chain goes where its user lets the application go, and no farther.
        ("user/Observation.rs?subject:Patient.birthdate=1980-02-01", vec![]),
        (
            "user/Observation.rs?subject:Patient.birthdate=1980-02-01 user/Patient.rs",
            vec!["lab", "vital"],
        ),
        (
            "user/Observation.rs?subject:Patient.birthdate=1980-02-01 user/Patient.r",
            vec![],
        ),
        // Two scopes that ask each other come to an end.
        (
            "user/Observation.rs?subject:Patient.birthdate=1980-02-01 user/Patient.rs?_has:Observation:patient:category=laboratory",
            vec![],
        ),
    ] {
        let app = h.app(w, scopes).await?;
        let answer = app.get("Observation").await;
        assert_eq!(code(&answer), 200, "{scopes}: {}", answer.text);
        assert_eq!(sorted(&answer), seen, "{scopes}");
        for id in ["lab", "lab-far", "vital"] {
            let read = code(&app.get(&format!("Observation/{id}")).await);
            assert_eq!(read == 200, seen.contains(&id), "{scopes} {id}");
        }
    }
    // What has not the form of a scope covers no type at all.
    for scopes in [
        "user/Observation.rs?category=laboratory?x=y",
        "user/Observation.rs?category",
        "user/Observation.rs?",
    ] {
        assert_eq!(code(&h.app(w, scopes).await?.get("Observation").await), 403, "{scopes}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_of_scopes_mean_what_they_say() {
    on_both_engines(SCHEMA, |w| Box::pin(together(w))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_search_cannot_do_is_refused_by_its_name() {
    on_both_engines(SCHEMA, |w| {
        Box::pin(async move {
            let h = House::open(w).await?;
            let ask = async |query: &str| h.site.fhir.narrows(w.north.id, "Observation", query).await;
            for good in [
                LAB,
                "status=final&date=ge2026-01-01",
                "subject:Patient.birthdate=1980-02-01",
                "category:not=laboratory",
            ] {
                assert!(ask(good).await.is_ok(), "{good}");
            }
            for (bad, name) in [
                ("nonsense=1", "nonsense"),
                ("category=laboratory&_sort=date", "_sort"),
                ("_include=Observation:subject", "_include"),
                ("category:unheard=1", "category:unheard"),
                ("date=yesterday", "prefix ye"),
                ("code-value-quantity=x$1", "code-value-quantity"),
            ] {
                let why = ask(bad)
                    .await
                    .err()
                    .map(|f| f.outcome().to_string())
                    .unwrap_or_default();
                assert!(why.contains(name), "{bad}: {why}");
            }
            Ok(())
        })
    })
    .await;
}
