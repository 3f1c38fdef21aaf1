//! Who sees what, through every way out: reads, versions, searches and what they can be asked, bundles, scopes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

use crate::common::{Answer, Client, Site, site};
use medtech_fhir::MIGRATIONS;
use medtech_kernel::{
    Migration, Result,
    auth::{Assurance, Grant, NewSession, Role},
    policy::{self, Treatment},
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};

const SCHEMA: &[&[Migration]] = &[MIGRATIONS];
const DOCTOR: &str = "user:00000000-0000-0000-0000-0000000000d0";
const OTHER: &str = "user:00000000-0000-0000-0000-0000000000d1";
const PATIENT: &str = "user:00000000-0000-0000-0000-0000000000a0";
const DAY: i64 = 86_400_000;

struct House {
    site: Site,
    /// The clinic without limits, to make things with.
    doctor: Client,
    other: Client,
    staff: Client,
    patient: Client,
}

async fn token(w: &World, subject: &str, roles: &[Role], grant: Grant) -> Result<String> {
    let sessions = w.ctx.sessions.clone();
    let new = NewSession {
        subject: subject.to_owned(),
        name: subject.to_owned(),
        roles: roles.to_vec(),
        ttl_ms: DAY,
        note: "test".into(),
        grant,
        idle_ms: None,
    };
    let issued = w.ctx.db.write(w.north.id, move |tx| {
        Box::pin(async move { sessions.issue(tx, new).await })
    });
    issued.await.map(|(token, _)| token)
}

fn observation(id: &str, patient: &str, value: i64, labels: &[&str]) -> Value {
    let security: Vec<Value> = labels.iter().map(|l| json!({"system": "urn:any", "code": l})).collect();
    let mut made = json!({"resourceType": "Observation", "id": id, "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}, "effectiveDateTime": "2026-03-01T10:00:00Z",
        "subject": {"reference": format!("Patient/{patient}")}, "valueQuantity": {"value": value, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"},
        "category": [{"coding": [{"system": "urn:cat", "code": if value > 100 { "laboratory" } else { "vital-signs" }}]}]});
    if !security.is_empty() {
        made["meta"] = json!({"security": security});
    }
    made
}

impl House {
    /// `near` is treated by the doctor, `far` by nobody.
    async fn open(w: &World) -> Result<Self> {
        w.demand_relationships(&w.north).await?;
        let site = site(w);
        let t = w.north.id;
        for (id, born) in [("near", "1980-02-01"), ("far", "1990-07-15")] {
            let patient = json!({"resourceType": "Patient", "id": id, "birthDate": born, "identifier": [{"system": "urn:mrn", "value": id}],
                "name": [{"family": format!("Family{id}")}]});
            site.fhir.update(t, "system", id, patient, None).await.unwrap();
            let o = observation(&format!("o-{id}"), id, if id == "far" { 77 } else { 60 }, &[]);
            site.fhir
                .update(t, "system", &format!("o-{id}"), o, None)
                .await
                .unwrap();
            let encounter = json!({"resourceType": "Encounter", "id": format!("e-{id}"), "status": "finished", "class": {"code": "VR"},
                "subject": {"reference": format!("Patient/{id}")}, "reasonCode": [{"coding": [{"system": "urn:why", "code": format!("why-{id}")}], "text": "SecretReason"}],
                "period": {"start": "2026-03-01T09:00:00Z"}});
            site.fhir
                .update(t, "system", &format!("e-{id}"), encounter, None)
                .await
                .unwrap();
        }
        let write = w.ctx.db.write(t, |tx| {
            Box::pin(async move {
                policy::relate(tx, DOCTOR, "self", "practitioner:pd", None).await?;
                policy::relate(tx, OTHER, "self", "practitioner:po", None).await?;
                policy::relate(tx, PATIENT, "self", "patient:near", None).await?;
                let by = Treatment {
                    who: "practitioner:pd".into(),
                    patient: "near".into(),
                    from: tx.now() - DAY,
                    until: tx.now() + DAY,
                };
                policy::treat(tx, "Appointment/1", &[by]).await
            })
        });
        write.await?;
        let base = site.client(w, &w.north, Role::Guest).await?;
        let two = || Grant::from(Assurance::Two);
        let client = async |subject: &str, role| token(w, subject, &[role], two()).await.map(|t| base.with_token(&t));
        Ok(Self {
            doctor: client(DOCTOR, Role::Clinician).await?,
            other: client(OTHER, Role::Clinician).await?,
            staff: client("user:staff", Role::Staff).await?,
            patient: client(PATIENT, Role::Patient).await?,
            site,
        })
    }

    async fn scoped(
        &self,
        w: &World,
        subject: &str,
        roles: &[Role],
        scopes: &str,
        patient: Option<&str>,
    ) -> Result<Client> {
        let grant = Grant {
            assurance: Assurance::Two,
            client: Some("app".into()),
            scopes: Some(scopes.into()),
            patient: patient.map(str::to_owned),
            ..Grant::default()
        };
        Ok(self.doctor.with_token(&token(w, subject, roles, grant).await?))
    }
}

fn code(a: &Answer) -> u16 {
    a.status.as_u16()
}

async fn relationship(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    let d = &h.doctor;
    assert_eq!(code(&d.get("Patient/near").await), 200);
    assert_eq!(d.get("Patient").await.ids(), ["near"]);
    assert_eq!(d.get("Observation").await.ids(), ["o-near"]);
    assert_eq!(d.get("Observation?_summary=count").await.at("/total"), 1);
    assert_eq!(d.get("Observation?code=8867-4&_total=accurate").await.at("/total"), 1);
    // What is somebody else's answers as what is not there.
    for (there, nowhere) in [
        ("Patient/far", "Patient/fax"),
        ("Patient/far/_history", "Patient/fax/_history"),
        ("Patient/far/_history/1", "Patient/fax/_history/1"),
        ("Observation/o-far", "Observation/o-fax"),
    ] {
        let (a, b) = (d.get(there).await, d.get(nowhere).await);
        assert_eq!(
            (code(&a), a.text.replace("far", "X")),
            (code(&b), b.text.replace("fax", "X")),
            "{there}"
        );
        assert_eq!(code(&a), 404);
    }
    for query in [
        "Observation?patient=far",
        "Observation?subject:Patient.identifier=far",
        "Patient?_has:Observation:patient:value-quantity=77",
        "Observation?value-quantity=77",
        "Patient?_id=far",
        "Encounter?reason-code=why-far",
    ] {
        let a = d.get(query).await;
        assert_eq!((code(&a), a.ids()), (200, Vec::new()), "{query}");
    }
    assert_eq!(
        d.get("Patient?_revinclude=Observation:patient").await.ids(),
        ["near", "o-near"]
    );
    // A resource of their own that points at somebody else's: the include brings nothing.
    let mut link = observation("o-link", "near", 61, &[]);
    link["hasMember"] = json!([{"reference": "Observation/o-far"}]);
    assert_eq!(code(&d.put("Observation/o-link", &link).await), 201);
    assert_eq!(
        d.get("Observation?_id=o-link&_include=Observation:has-member")
            .await
            .ids(),
        ["o-link"]
    );
    assert_eq!(
        d.get("Observation?has-member:Observation.value-quantity=77")
            .await
            .ids(),
        Vec::<String>::new()
    );
    // Writes.
    assert_eq!(
        code(&d.post("Observation", &observation("x", "far", 1, &[])).await),
        403
    );
    assert_eq!(
        code(&d.put("Observation/o-far", &observation("o-far", "near", 1, &[])).await),
        403
    );
    assert_eq!(
        code(&d.put("Observation/o-near", &observation("o-near", "far", 1, &[])).await),
        403
    );
    let (gone, never) = (
        d.delete("Observation/o-far").await,
        d.delete("Observation/o-none").await,
    );
    assert_eq!((code(&gone), gone.etag()), (code(&never), never.etag()));
    assert_eq!(
        h.site.fhir.find(w.north.id, "Observation", "o-far").await?.unwrap()["valueQuantity"]["value"],
        77
    );
    // A condition finds nobody else's resource: what comes of it does not tell.
    let once = [
        ("content-type", "application/fhir+json"),
        ("if-none-exist", "identifier=urn:mrn|far"),
    ];
    let patient = json!({"resourceType": "Patient", "name": [{"family": "New"}]});
    let made = d.send("POST", "Patient", &once, patient.to_string()).await;
    assert_eq!(code(&made), 201);
    // Whom they register they treat, and may write for in the same breath.
    let new = made.at("/id").as_str().unwrap().to_owned();
    assert_eq!(code(&d.get(&format!("Patient/{new}")).await), 200);
    assert_eq!(code(&h.other.get(&format!("Patient/{new}")).await), 404);
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"fullUrl": "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a", "resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient"}},
        {"resource": {"resourceType": "Condition", "subject": {"reference": "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a"}}, "request": {"method": "POST", "url": "Condition"}}]});
    assert_eq!(code(&d.post("", &bundle).await), 200);
    assert_eq!(code(&d.get("Patient/_history").await), 403);
    // Time brings it to its end.
    w.ctx.clock.advance(8 * DAY);
    let late = h
        .doctor
        .with_token(&token(w, DOCTOR, &[Role::Clinician], Assurance::Two.into()).await?);
    assert_eq!(late.get("Patient").await.ids(), Vec::<String>::new());
    assert_eq!(code(&late.get("Patient/near").await), 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clinicians_see_the_patients_they_treat() {
    on_both_engines(SCHEMA, |w| Box::pin(relationship(w))).await;
}

async fn front_desk(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    let s = &h.staff;
    assert_eq!(s.get("Patient").await.ids().len(), 2);
    let encounter = s.get("Encounter/e-near").await;
    assert_eq!((code(&encounter), encounter.at("/status")), (200, json!("finished")));
    for path in [
        "Encounter/e-near",
        "Encounter",
        "Encounter/e-near/_history",
        "Encounter/e-near/_history/1",
        "Patient?_revinclude=Encounter:patient",
    ] {
        let a = s.get(path).await;
        assert!(
            code(&a) == 200 && !a.text.contains("SecretReason") && !a.text.contains("why-"),
            "{path}: {}",
            a.text
        );
    }
    for path in [
        "Observation",
        "Observation/o-near",
        "Condition",
        "Encounter?reason-code=why-near",
        "Encounter?reason-code:missing=true",
        "Patient?_has:Observation:patient:code=8867-4",
        "Patient?_has:Encounter:patient:reason-code=why-near",
        "Encounter?diagnosis:Condition.code=x",
    ] {
        assert_eq!(code(&s.get(path).await), 403, "{path}");
    }
    assert_eq!(s.get("Patient?_revinclude=Observation:patient").await.ids().len(), 2);
    assert_eq!(
        code(
            &s.put("Observation/o-near", &observation("o-near", "near", 1, &[]))
                .await
        ),
        403
    );
    assert_eq!(
        code(
            &s.put("Patient/near", &json!({"resourceType": "Patient", "id": "near"}))
                .await
        ),
        200
    );
    // Administrators run accounts; what is clinical is closed to them.
    let admin = s.with_token(&token(w, "user:admin", &[Role::Admin], Assurance::Two.into()).await?);
    assert_eq!(code(&admin.get("Patient/near").await), 200);
    assert_eq!(
        (
            code(&admin.get("Observation/o-near").await),
            code(&admin.get("Encounter/e-near").await)
        ),
        (404, 404)
    );
    assert_eq!(
        code(
            &admin
                .put("Patient/near", &json!({"resourceType": "Patient", "id": "near"}))
                .await
        ),
        403
    );
    // A session of one factor, where the clinic demands two.
    let one = s.with_token(&token(w, DOCTOR, &[Role::Clinician], Assurance::One.into()).await?);
    assert_eq!(code(&one.get("Patient").await), 403);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_front_desk_sees_who_comes_and_not_why() {
    on_both_engines(SCHEMA, |w| Box::pin(front_desk(w))).await;
}

/// Somebody stands for `near` in some parts of the record; what is not of a part is as if it were not there.
async fn in_parts(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    let t = w.north.id;
    let of = |kind: &str, id: &str, more: Value| {
        let mut made = json!({"resourceType": kind, "id": id, "status": "final"});
        made.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        made
    };
    let near = json!({"reference": "Patient/near"});
    let code_of = json!({"coding": [{"system": "urn:c", "code": "c"}]});
    let actor = json!([{"status": "accepted", "actor": near}]);
    let all = [
        of(
            "Patient",
            "near",
            json!({"status": null, "birthDate": "1980-02-01", "name": [{"family": "Familynear"}], "gender": "female",
            "identifier": [{"system": "urn:mrn", "value": "near"}], "telecom": [{"system": "phone", "value": "555"}], "address": [{"city": "Secretcity"}]}),
        ),
        of(
            "Appointment",
            "a-near",
            json!({"status": "booked", "start": "2026-03-02T10:00:00Z", "end": "2026-03-02T10:10:00Z", "participant": actor}),
        ),
        of("DiagnosticReport", "r-near", json!({"code": code_of, "subject": near})),
        of(
            "Communication",
            "m-near",
            json!({"status": "completed", "subject": near}),
        ),
        of(
            "DocumentReference",
            "d-near",
            json!({"status": "current", "subject": near, "content": [{"attachment": {"title": "x"}}]}),
        ),
        of(
            "Condition",
            "c-near",
            json!({"status": null, "code": code_of, "subject": near}),
        ),
        of(
            "Consent",
            "k-near",
            json!({"status": "active", "scope": code_of, "category": [code_of], "patient": near, "policyRule": code_of}),
        ),
        of(
            "Provenance",
            "p-near",
            json!({"status": null, "target": [near], "recorded": "2026-03-01T10:00:00Z", "agent": [{"who": {"reference": "Practitioner/pd"}}]}),
        ),
    ];
    for mut one in all {
        let map = one.as_object_mut().unwrap();
        map.retain(|_, value| !value.is_null());
        let id = one["id"].as_str().unwrap().to_owned();
        h.site.fhir.update(t, "system", &id, one, None).await.unwrap();
    }
    let record = [
        "Patient/near",
        "Appointment/a-near",
        "DiagnosticReport/r-near",
        "Observation/o-near",
        "Communication/m-near",
        "DocumentReference/d-near",
        "Condition/c-near",
        "Consent/k-near",
        "Provenance/p-near",
        "Encounter/e-near",
    ];
    let (appointments, results): (&[&str], &[&str]) = (&record[..2], &record[2..4]);
    let until = w.ctx.clock.now_ms() + DAY / 2;
    let mut everyone = Vec::new();
    for (name, parts, shown) in [
        ("appointments", &["appointments"][..], appointments.to_vec()),
        ("results", &["results"], results.to_vec()),
        ("messages", &["messages"], record[4..6].to_vec()),
        ("two", &["appointments", "results"], record[..4].to_vec()),
        ("whole", &["appointments", "results", "messages"], record.to_vec()),
    ] {
        let subject = format!("user:{name}");
        let granted = subject.clone();
        let write = w.ctx.db.write(t, move |tx| {
            Box::pin(async move {
                // As accepting writes it.
                policy::relate(tx, &granted, "proxy", "patient:near", Some(until)).await?;
                for part in parts {
                    policy::relate(tx, &granted, &format!("proxy.{part}"), "patient:near", Some(until)).await?;
                }
                Ok(())
            })
        });
        write.await?;
        let c = h
            .doctor
            .with_token(&token(w, &subject, &[Role::Patient], Assurance::Two.into()).await?);
        for path in record {
            let (kind, id) = path.split_once('/').unwrap();
            let expected = shown.contains(&path);
            assert_eq!(code(&c.get(path).await) == 200, expected, "{name} reads {path}");
            assert_eq!(
                code(&c.get(&format!("{path}/_history")).await) == 200,
                expected,
                "{name}: versions of {path}"
            );
            let found = c.get(kind).await;
            let ids = if code(&found) == 200 { found.ids() } else { Vec::new() };
            assert_eq!(
                ids,
                if expected { vec![id] } else { Vec::new() },
                "{name} searches {kind}"
            );
            let count = c.get(&format!("{kind}?_summary=count")).await;
            assert_eq!(count.at("/total") == json!(1), expected, "{name} counts {kind}");
        }
        // By way of what they see.
        let whole = name == "whole";
        let patient = shown.contains(&"Patient/near");
        let (sees_results, sees_dates) = (parts.contains(&"results"), parts.contains(&"appointments"));
        for (query, expected) in [
            ("Appointment?_include=Appointment:patient", vec!["a-near", "near"]),
            ("Appointment?_id=a-near&patient.name=Familynear", vec!["a-near"]),
        ] {
            let a = c.get(query).await;
            assert_eq!(code(&a) == 200, sees_dates, "{name} {query}");
            assert!(!sees_dates || a.ids() == expected, "{name} {query}: {}", a.text);
            assert_eq!(
                a.text.contains("Secretcity"),
                whole && query.contains("_include"),
                "{name} {query}"
            );
        }
        if sees_results {
            let a = c.get("Observation?_id=o-near&_include=Observation:patient").await;
            assert_eq!(
                a.ids(),
                if patient {
                    vec!["o-near", "near"]
                } else {
                    vec!["o-near"]
                },
                "{name}"
            );
        }
        if patient {
            let a = c.get("Patient?_revinclude=Observation:patient&_revinclude=Condition:patient&_revinclude=Appointment:patient").await;
            let mut ids = a.ids();
            ids.sort_unstable();
            let mut expected = vec!["a-near", "near"];
            expected.extend(sees_results.then_some("o-near"));
            expected.extend(whole.then_some("c-near"));
            expected.sort_unstable();
            assert_eq!(ids, expected, "{name}");
            let a = c.get("Patient/near").await;
            assert_eq!(
                (a.at("/name/0/family"), a.at("/birthDate")),
                (json!("Familynear"), json!("1980-02-01"))
            );
            for element in ["telecom", "address", "identifier", "gender"] {
                assert_eq!(!a.at(&format!("/{element}")).is_null(), whole, "{name} {element}");
            }
        }
        for query in [
            "Patient?identifier=near",
            "Patient?address-city=Secretcity",
            "Patient?phone=555",
            "Appointment?patient.identifier=near",
            "Patient?_has:Condition:patient:code=c",
            "Patient?_has:Observation:patient:code=8867-4&_has:Condition:patient:code=c",
        ] {
            let a = c.get(query).await;
            assert_eq!(
                code(&a) == 200 && !a.ids().is_empty(),
                whole,
                "{name} {query}: {}",
                a.text
            );
        }
        // The chart, the live channel, and what the record says of it.
        let ask = async |action| {
            let who = w
                .ctx
                .sessions
                .verify(t, &token(w, &subject, &[Role::Patient], Assurance::Two.into()).await?)
                .await?;
            Ok::<_, medtech_kernel::Error>(
                w.ctx
                    .policy
                    .decide(&who, action, &policy::Resource::new("patient", "near"))
                    .await?
                    .allow,
            )
        };
        assert_eq!(ask(policy::Action::Read).await?, sees_results, "{name}: chart");
        assert_eq!(ask(policy::Action::Subscribe).await?, sees_results, "{name}: live");
        assert!(!ask(policy::Action::Write).await?, "{name}");
        // Writes.
        let mut phone = h.site.fhir.find(t, "Patient", "near").await?.unwrap();
        phone["telecom"] = json!([{"system": "phone", "value": "666"}]);
        assert_eq!(code(&c.put("Patient/near", &phone).await) == 200, whole, "{name}");
        let o = observation("o-near", "near", 61, &[]);
        assert_eq!(code(&c.put("Observation/o-near", &o).await), 403, "{name}");
        let cancelled =
            json!({"resourceType": "Appointment", "id": "a-near", "status": "cancelled", "participant": actor});
        assert_eq!(code(&c.put("Appointment/a-near", &cancelled).await), 403, "{name}");
        everyone.push((name, c, shown));
    }
    w.ctx.clock.advance(DAY / 2);
    for (name, c, shown) in everyone {
        for path in shown {
            assert!(
                matches!(code(&c.get(path).await), 403 | 404),
                "{name} {path}: the child has come of age"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_for_a_patient_in_some_parts_has_those_alone() {
    on_both_engines(SCHEMA, |w| Box::pin(in_parts(w))).await;
}

/// Which elements each may change of the one Patient both may write.
async fn single_fields(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    let t = w.north.id;
    let mut near = h.site.fhir.find(t, "Patient", "near").await?.unwrap();
    near["extension"] = json!([{"url": "urn:blood-group", "valueString": "0"}]);
    near["telecom"] = json!([{"system": "phone", "value": "1"}]);
    h.site.fhir.update(t, "system", "near", near, None).await.unwrap();
    let put = async |who: &Client, change: &(dyn Fn(&mut Value) + Sync)| {
        let mut now = h.site.fhir.find(t, "Patient", "near").await.unwrap().unwrap();
        change(&mut now);
        who.put("Patient/near", &now).await
    };
    let named = |a: &Answer| a.at("/issue/0/expression/0").as_str().unwrap_or_default().to_owned();
    let phone = |p: &mut Value| p["telecom"] = json!([{"system": "phone", "value": "2"}]);
    let blood = |p: &mut Value| p["extension"] = json!([{"url": "urn:blood-group", "valueString": "AB"}]);
    let born = |p: &mut Value| p["birthDate"] = json!("1980-01-02");
    let bare = |p: &mut Value| drop(p.as_object_mut().unwrap().remove("extension"));

    assert_eq!(
        code(&put(&h.staff, &born).await),
        200,
        "the front desk keeps who somebody is"
    );
    for change in [&blood as &(dyn Fn(&mut Value) + Sync), &bare] {
        let refused = put(&h.staff, change).await;
        assert_eq!((code(&refused), named(&refused)), (403, "Patient.extension".to_owned()));
    }
    let made = json!({"resourceType": "Patient", "name": [{"family": "New"}], "extension": [{"url": "urn:blood-group", "valueString": "0"}]});
    assert_eq!(code(&h.staff.post("Patient", &made).await), 403);

    assert_eq!(
        code(&put(&h.patient, &phone).await),
        200,
        "patients keep how they are reached"
    );
    for (change, element) in [
        (&blood as &(dyn Fn(&mut Value) + Sync), "extension"),
        (&born, "birthDate"),
    ] {
        let changed = |p: &mut Value| {
            change(p);
            p["birthDate"] = if element == "birthDate" {
                json!("1999-09-09")
            } else {
                p["birthDate"].clone()
            };
        };
        let refused = put(&h.patient, &changed).await;
        assert_eq!((code(&refused), named(&refused)), (403, format!("Patient.{element}")));
    }
    let far = json!({"resourceType": "Patient", "id": "far", "telecom": [{"system": "phone", "value": "3"}]});
    assert_eq!(
        code(&h.patient.put("Patient/far", &far).await),
        403,
        "and nobody else's"
    );
    assert_eq!(
        code(&put(&h.doctor, &blood).await),
        200,
        "clinicians write what they find"
    );
    let now = h.site.fhir.find(t, "Patient", "near").await?.unwrap();
    assert_eq!(now["extension"][0]["valueString"], "AB");
    assert_eq!(
        (&now["telecom"][0]["value"], &now["birthDate"]),
        (&json!("2"), &json!("1980-01-02"))
    );
    Ok(())
}

#[tokio::test]
async fn single_elements_are_written_by_who_may() {
    on_both_engines(SCHEMA, |w| Box::pin(single_fields(w))).await;
}

/// A database in which who treats whom was not kept: read again from its resources, in pieces, over a restart.
async fn older(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    let t = w.north.id;
    let now = w.ctx.clock.now_ms();
    let reference = json!([{"reference": "Practitioner/po"}]);
    for n in 0..250 {
        let patient = json!({"resourceType": "Patient", "id": format!("old{n}"), "generalPractitioner": reference});
        h.site
            .fhir
            .update(t, "system", &format!("old{n}"), patient, None)
            .await
            .unwrap();
    }
    let visit = json!({"resourceType": "Encounter", "id": "old", "status": "in-progress", "class": {"code": "VR"}, "subject": {"reference": "Patient/far"},
        "participant": [{"individual": {"reference": "Practitioner/po"}}], "period": {"start": medtech_kernel::clock::rfc3339(now)}});
    h.site.fhir.update(t, "system", "old", visit, None).await.unwrap();
    assert_eq!(h.other.get("Patient?_summary=count").await.at("/total"), 251);
    w.forge(
        t,
        "DELETE FROM treatment WHERE tenant = $1 AND who = 'practitioner:po'",
        Vec::new(),
    )
    .await?;
    // As a server that starts would: nothing is kept in memory of before.
    w.forge(
        t,
        "UPDATE access_epoch SET epoch = epoch + 1 WHERE tenant = $1",
        Vec::new(),
    )
    .await?;
    assert_eq!(h.other.get("Patient?_summary=count").await.at("/total"), 0);

    assert!(h.site.fhir.backfill_piece(t).await?, "there is more");
    let some = h
        .other
        .get("Patient?_summary=count")
        .await
        .at("/total")
        .as_i64()
        .unwrap();
    assert!((1..250).contains(&some), "a piece: {some}");
    let (_stop, running) = tokio::sync::watch::channel(false);
    medtech_fhir::Fhir::new(w.ctx.clone()).backfill(running).await;
    assert_eq!(h.other.get("Patient?_summary=count").await.at("/total"), 251);
    assert!(!h.site.fhir.backfill_piece(t).await?);
    // What is gone on purpose does not come back with the next start.
    w.forge(
        t,
        "DELETE FROM treatment WHERE tenant = $1 AND who = 'practitioner:po'",
        Vec::new(),
    )
    .await?;
    // As a server that starts would: nothing is kept in memory of before.
    w.forge(
        t,
        "UPDATE access_epoch SET epoch = epoch + 1 WHERE tenant = $1",
        Vec::new(),
    )
    .await?;
    assert!(!h.site.fhir.backfill_piece(t).await?);
    assert_eq!(h.other.get("Patient?_summary=count").await.at("/total"), 0);
    Ok(())
}

#[tokio::test]
async fn treatments_of_an_older_database_are_read_from_its_resources() {
    on_both_engines(SCHEMA, |w| Box::pin(older(w))).await;
}

async fn labels(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    let t = w.north.id;
    for (id, label) in [("psy", "PSY"), ("sud", "ETH"), ("v", "V")] {
        h.site
            .fhir
            .update(t, "system", id, observation(id, "near", 90, &[label]), None)
            .await
            .unwrap();
    }
    // It was labelled once it was known what it is; the earlier version is no way around the label.
    h.site
        .fhir
        .update(t, "system", "late", observation("late", "near", 91, &[]), None)
        .await
        .unwrap();
    h.site
        .fhir
        .update(t, "system", "late", observation("late", "near", 91, &["SUD"]), None)
        .await
        .unwrap();
    let ids = |a: Answer| {
        let mut ids = a.ids();
        ids.sort();
        ids
    };
    assert_eq!(ids(h.doctor.get("Observation").await), ["o-near", "psy"]);
    assert_eq!(h.doctor.get("Observation?_summary=count").await.at("/total"), 2);
    for path in [
        "Observation/sud",
        "Observation/late",
        "Observation/late/_history",
        "Observation/late/_history/1",
    ] {
        assert_eq!(code(&h.doctor.get(path).await), 404, "{path}");
    }
    assert_eq!(
        ids(h.doctor.get("Observation?_security=ETH").await),
        Vec::<String>::new()
    );
    assert_eq!(
        ids(h.doctor.get("Patient?_has:Observation:patient:_security=V").await),
        Vec::<String>::new()
    );
    assert_eq!(
        ids(h.patient.get("Observation").await),
        ["late", "o-near", "psy", "sud", "v"]
    );
    // The patient opens what concerns substance use to this doctor, by name.
    let consent = json!({"resourceType": "Consent", "id": "c1", "status": "active", "scope": {"text": "privacy"}, "category": [{"text": "x"}],
        "patient": {"reference": "Patient/near"}, "policyRule": {"text": "x"},
        "provision": {"type": "permit", "provision": [{"type": "permit", "securityLabel": [{"code": "ETH"}, {"code": "SUD"}],
            "actor": [{"role": {"text": "x"}, "reference": {"reference": "Practitioner/pd"}}]}]}});
    h.site.fhir.update(t, "system", "c1", consent, None).await.unwrap();
    assert_eq!(ids(h.doctor.get("Observation").await), ["late", "o-near", "psy", "sud"]);
    h.site.fhir.delete(t, "system", "Consent", "c1").await.unwrap();
    assert_eq!(ids(h.doctor.get("Observation").await), ["o-near", "psy"]);
    // A clinic that demands no relationship still shows what is labelled to those who have one.
    let settings = medtech_kernel::tenant::Settings {
        relationship_required: false,
        ..Default::default()
    };
    w.ctx.tenants.set_settings(t, &settings).await?;
    assert_eq!(ids(h.other.get("Observation").await), ["o-far", "o-near"]);
    assert_eq!(code(&h.other.get("Observation/psy").await), 404);
    assert_eq!(
        h.other.get("Observation/_history").await.json()["entry"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_ask_for_more_than_a_role() {
    on_both_engines(SCHEMA, |w| Box::pin(labels(w))).await;
}

async fn consents(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    let consent = |provision: Value| {
        json!({"resourceType": "Consent", "id": "c", "status": "active", "scope": {"text": "privacy"}, "category": [{"text": "x"}],
        "patient": {"reference": "Patient/near"}, "policyRule": {"text": "x"}, "provision": provision})
    };
    let put = async |c: Value| {
        h.site
            .fhir
            .update(w.north.id, "system", "c", c, None)
            .await
            .map(|_| ())
            .unwrap()
    };
    put(consent(json!({"type": "deny", "actor": [{"role": {"text": "x"}, "reference": {"reference": "Practitioner/pd"}}], "class": [{"code": "Observation"}]}))).await;
    assert_eq!(h.doctor.get("Observation").await.ids(), Vec::<String>::new());
    assert_eq!(code(&h.doctor.get("Observation/o-near").await), 404);
    assert_eq!(
        h.doctor.get("Patient?_revinclude=Observation:patient").await.ids(),
        ["near"]
    );
    assert_eq!(
        h.doctor.get("Patient?_has:Observation:patient:code=8867-4").await.ids(),
        Vec::<String>::new()
    );
    assert_eq!(
        code(&h.doctor.post("Observation", &observation("n", "near", 5, &[])).await),
        403
    );
    assert_eq!(h.doctor.get("Encounter").await.ids(), ["e-near"]);
    assert_eq!(h.patient.get("Observation").await.ids(), ["o-near"]);
    put(consent(json!({"type": "deny"}))).await;
    assert_eq!(h.doctor.get("Patient").await.ids(), Vec::<String>::new());
    assert_eq!(h.staff.get("Patient").await.ids(), ["far"]);
    // Withdrawn, it holds no longer.
    let mut over = consent(json!({"type": "deny"}));
    over["status"] = json!("inactive");
    put(over).await;
    assert_eq!(h.doctor.get("Observation").await.ids(), ["o-near"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_patient_denies_is_not_there() {
    on_both_engines(SCHEMA, |w| Box::pin(consents(w))).await;
}

async fn scopes(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    h.site
        .fhir
        .update(w.north.id, "system", "lab", observation("lab", "near", 120, &[]), None)
        .await
        .unwrap();
    let doctor = &[Role::Clinician];
    let c = h.scoped(w, DOCTOR, doctor, "openid user/Observation.rs", None).await?;
    assert_eq!(
        (
            code(&c.get("Observation/o-near").await),
            c.get("Observation").await.ids().len()
        ),
        (200, 2)
    );
    assert_eq!(
        code(&c.get("Observation/o-far").await),
        404,
        "a scope gives nothing that its user has not"
    );
    for path in [
        "Patient/near",
        "Patient",
        "Condition",
        "Observation?subject:Patient.family=x",
        "Encounter",
    ] {
        assert_eq!(code(&c.get(path).await), 403, "{path}");
    }
    assert_eq!(c.get("Observation?_include=Observation:subject").await.ids().len(), 2);
    assert_eq!(
        code(
            &c.put("Observation/o-near", &observation("o-near", "near", 1, &[]))
                .await
        ),
        403
    );
    let read = h.scoped(w, DOCTOR, doctor, "user/Observation.r", None).await?;
    assert_eq!(
        (
            code(&read.get("Observation/o-near").await),
            code(&read.get("Observation").await)
        ),
        (200, 403)
    );
    let search = h.scoped(w, DOCTOR, doctor, "user/Observation.s", None).await?;
    assert_eq!(
        (
            code(&search.get("Observation/o-near").await),
            code(&search.get("Observation").await)
        ),
        (403, 200)
    );
    // One patient in context; another one's, or none, is nothing.
    for (patient, seen) in [(Some("near"), 2), (Some("far"), 0), (None, 0)] {
        let c = h.scoped(w, DOCTOR, doctor, "patient/*.rs", patient).await?;
        let a = c.get("Observation").await;
        let ids = if code(&a) == 200 { a.ids().len() } else { 0 };
        assert_eq!(ids, seen, "{patient:?} {}", a.text);
    }
    let labs = h
        .scoped(
            w,
            PATIENT,
            &[Role::Patient],
            "patient/Observation.rs?category=laboratory patient/Patient.rs",
            Some("near"),
        )
        .await?;
    assert_eq!(labs.get("Observation").await.ids(), ["lab"]);
    assert_eq!(labs.get("Observation?_summary=count").await.at("/total"), 1);
    assert_eq!(
        (
            code(&labs.get("Observation/lab").await),
            code(&labs.get("Observation/o-near").await)
        ),
        (200, 404)
    );
    assert_eq!(
        labs.get("Patient?_revinclude=Observation:patient").await.ids(),
        ["near", "lab"]
    );
    // Scopes for services give a person nothing, and a service nothing but them.
    let person = h.scoped(w, DOCTOR, doctor, "system/*.cruds", None).await?;
    assert_eq!(code(&person.get("Observation").await), 403);
    let service = h
        .scoped(w, "client:backend", &[], "system/Observation.rs", None)
        .await?;
    assert_eq!(service.get("Observation").await.ids().len(), 3);
    assert_eq!(code(&service.get("Patient").await), 403);
    let other = h.scoped(w, "client:backend", &[], "user/Observation.rs", None).await?;
    assert_eq!(code(&other.get("Observation").await), 403);
    let bare = h
        .doctor
        .with_token(&token(w, "client:backend", &[], Assurance::Two.into()).await?);
    assert_eq!(code(&bare.get("Observation").await), 403);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_bind_every_interaction() {
    on_both_engines(SCHEMA, |w| Box::pin(scopes(w))).await;
}

/// What an answer says beside what was asked.
fn said(a: &Answer) -> String {
    let mut v = a.json();
    for key in ["link", "meta", "id"] {
        v.as_object_mut().unwrap().remove(key);
    }
    format!("{} {} {v}", code(a), a.etag())
}

/// What is asked, by whom, and the query of each step.
type Question<'a> = (&'static str, &'a Client, fn(u32) -> String);

async fn inference(w: &World) -> Result<()> {
    let h = House::open(w).await?;
    // A value of each kind that is not theirs to see, asked for by halving: 32 questions, one answer.
    let far: [Question<'_>; 7] = [
        ("a birth date", &h.doctor, |n| {
            format!("Patient?birthdate=ge{}-01-01&_total=accurate", 1900 + n * 4)
        }),
        ("a count", &h.doctor, |n| {
            format!("Observation?value-quantity=ge{}&_summary=count", 62 + n)
        }),
        ("by _has", &h.doctor, |n| {
            format!("Patient?_id=far&_has:Observation:patient:value-quantity=le{}", 60 + n)
        }),
        ("by a chain", &h.doctor, |n| {
            format!("Observation?patient=far&subject:Patient.birthdate=lt{}-01-01", 1960 + n)
        }),
        ("sorted", &h.doctor, |n| {
            format!("Observation?patient=far&date=ge2026-03-{:02}&_sort=date", 1 + n % 28)
        }),
        ("a reason", &h.staff, |n| {
            format!(
                "Encounter?reason-code={}",
                if n % 2 == 0 {
                    "why-near".to_owned()
                } else {
                    format!("why-{n}")
                }
            )
        }),
        ("a diagnosis by _has", &h.staff, |n| {
            format!("Patient?_has:Observation:patient:value-quantity=le{}", 60 + n)
        }),
    ];
    let mut queries = 0;
    for (what, who, query) in far {
        let mut answers = Vec::new();
        for n in 0..32 {
            let q = query(n);
            // The first counts what is theirs to see: the same questions with the other patient alone.
            let a = who.get(&q).await;
            queries += 1;
            answers.push(said(&a));
        }
        if what == "a birth date" {
            // Theirs alone moves it: 1980.
            let with: Vec<_> = answers
                .iter()
                .enumerate()
                .filter(|(_, a)| a.contains("near"))
                .map(|(n, _)| n)
                .collect();
            assert_eq!(with, (0..=20).collect::<Vec<_>>());
            assert!(
                answers
                    .iter()
                    .all(|a| !a.contains("far") && !a.contains(r#""total":2"#))
            );
            continue;
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{what} can be told: {answers:?}");
    }
    // Conditional writes and entity tags.
    let mut outcomes = Vec::new();
    for n in 0..32 {
        let condition = format!("birthdate=ge{}-01-01&identifier=urn:mrn|far", 1975 + n);
        let headers = [
            ("content-type", "application/fhir+json"),
            ("if-none-exist", condition.as_str()),
        ];
        let a = h
            .doctor
            .send(
                "POST",
                "Patient",
                &headers,
                json!({"resourceType": "Patient"}).to_string(),
            )
            .await;
        let b = h
            .doctor
            .send(
                "PUT",
                "Observation/o-far",
                &[
                    ("content-type", "application/fhir+json"),
                    ("if-match", &format!("W/\"{n}\"")),
                ],
                observation("o-far", "near", 1, &[]).to_string(),
            )
            .await;
        let c = h
            .doctor
            .send(
                "GET",
                "Observation/o-far",
                &[("if-none-match", &format!("W/\"{n}\""))],
                "",
            )
            .await;
        outcomes.push((code(&a), code(&b), code(&c)));
        queries += 3;
    }
    outcomes.dedup();
    assert_eq!(outcomes, [(201, 412, 404)]);
    println!("{queries} questions about what is hidden, 0 bits");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_cannot_be_inferred() {
    on_both_engines(SCHEMA, |w| Box::pin(inference(w))).await;
}
