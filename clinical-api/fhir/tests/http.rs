//! The door at `/fhir/R4`: interactions, versions, conditions, bundles, access, hostile input.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use crate::common::site;
use medtech_kernel::{
    Result, audit,
    auth::Role,
    policy,
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};

const SCHEMA: &[&[medtech_kernel::Migration]] = &[medtech_fhir::MIGRATIONS];

async fn crud(world: &World) -> Result<()> {
    let c = site(world).client(world, &world.north, Role::Clinician).await?;
    let made = c.post("Patient", &json!({"resourceType": "Patient", "id": "chosen-by-client", "name": [{"family": "Ångström"}], "multipleBirthInteger": 2})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.at("/id").as_str().unwrap().to_owned();
    assert_ne!(id, "chosen-by-client");
    assert_eq!(made.etag(), "W/\"1\"");
    assert!(
        made.headers["location"]
            .to_str()
            .unwrap()
            .ends_with(&format!("/fhir/R4/Patient/{id}/_history/1"))
    );
    assert_eq!(made.headers["content-type"], "application/fhir+json; charset=utf-8");
    assert_eq!(made.at("/meta/lastUpdated"), "2026-03-02T09:00:00.000Z");

    let path = format!("Patient/{id}");
    let read = c.get(&path).await;
    assert_eq!(
        (read.status.as_u16(), read.at("/name/0/family")),
        (200, json!("Ångström"))
    );
    assert_eq!(
        c.send("GET", &path, &[("if-none-match", "W/\"1\"")], "").await.status,
        304
    );

    world.ctx.clock.advance(1000);
    let second = json!({"resourceType": "Patient", "id": id, "name": [{"family": "Berg"}]});
    let updated = c.put(&path, &second).await;
    assert_eq!((updated.status.as_u16(), updated.etag()), (200, "W/\"2\""));
    let json = [("content-type", "application/fhir+json"), ("if-match", "W/\"1\"")];
    assert_eq!(c.send("PUT", &path, &json, second.to_string()).await.status, 412);
    let json = [("content-type", "application/fhir+json"), ("if-match", "W/\"2\"")];
    assert_eq!(c.send("PUT", &path, &json, second.to_string()).await.etag(), "W/\"3\"");

    assert_eq!(
        c.get(&format!("{path}/_history/1")).await.at("/name/0/family"),
        "Ångström"
    );
    assert_eq!(c.get(&format!("{path}/_history/9")).await.status, 404);
    assert_eq!(c.get("Patient?family=angstrom").await.ids(), Vec::<String>::new());
    assert_eq!(c.get("Patient?family=berg").await.ids(), std::slice::from_ref(&id));

    assert_eq!(c.delete(&path).await.status, 204);
    assert_eq!(c.delete(&path).await.status, 204);
    assert_eq!(c.get(&path).await.status, 410);
    assert_eq!(c.get("Patient").await.ids(), Vec::<String>::new());
    assert_eq!(c.get(&format!("Patient?_id={id}")).await.ids(), Vec::<String>::new());
    let history = c.get(&format!("{path}/_history")).await;
    let methods: Vec<Value> = history.json()["entry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["request"]["method"].clone())
        .collect();
    assert_eq!(methods, ["DELETE", "PUT", "PUT", "POST"]);
    assert_eq!(history.at("/total"), 4);
    let first = c.get(&format!("{path}/_history?_count=3")).await;
    assert_eq!(
        c.get(&first.link("next").unwrap()).await.json()["entry"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let back = c.put(&path, &second).await;
    assert_eq!(
        (back.etag(), c.get("Patient?family=berg").await.ids()),
        ("W/\"5\"", vec![id.clone()])
    );
    let of_type = c.get("Patient/_history").await;
    assert_eq!(of_type.json()["entry"].as_array().unwrap().len(), 5);
    assert_eq!(of_type.at("/entry/4/resource/name/0/family"), "Ångström");

    // A client's own id.
    let own = json!({"resourceType": "Organization", "id": "ward-7", "name": "Ward 7"});
    assert_eq!(c.put("Organization/ward-7", &own).await.status, 201);
    assert_eq!(c.put("Organization/ward-7", &own).await.status, 200);
    let only_new = [("content-type", "application/json"), ("if-none-match", "*")];
    assert_eq!(
        c.send("PUT", "Organization/ward-7", &only_new, own.to_string())
            .await
            .status,
        412
    );
    assert_eq!(c.get("Organization?name=ward").await.ids(), ["ward-7"]);
    assert_eq!(c.delete("Organization/ward-7").await.status, 204);
    assert_eq!(
        c.get("Organization/_history?_count=1").await.at("/entry/0/request/url"),
        "Organization/ward-7"
    );
    assert_eq!(c.get(&format!("Organization/{id}")).await.status, 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_live_through_their_versions() {
    on_both_engines(SCHEMA, |w| Box::pin(crud(w))).await;
}

async fn digits(world: &World) -> Result<()> {
    let c = site(world).client(world, &world.north, Role::Clinician).await?;
    let text = r#"{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":0.010,"unit":"mg"},"referenceRange":[{"low":{"value":1.0E-3},"high":{"value":12345678901234567890.10}}]}"#;
    let made = c
        .send(
            "POST",
            "Observation",
            &[("content-type", "application/fhir+json")],
            text,
        )
        .await;
    let read = c
        .get(&format!("Observation/{}", made.at("/id").as_str().unwrap()))
        .await;
    for kept in ["0.010", "12345678901234567890.10"] {
        assert!(read.text.contains(kept), "{kept}: {}", read.text);
    }
    assert_eq!(c.get("Observation?value-quantity=0.010||mg").await.ids().len(), 1);
    assert_eq!(c.get("Observation?value-quantity=0.01").await.ids().len(), 1);
    assert_eq!(c.get("Observation?value-quantity=gt0.010").await.ids().len(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn decimals_keep_their_digits() {
    on_both_engines(SCHEMA, |w| Box::pin(digits(w))).await;
}

async fn conditions(world: &World) -> Result<()> {
    let c = site(world).client(world, &world.north, Role::Staff).await?;
    let p = |family: &str, mrn: &str| json!({"resourceType": "Patient", "identifier": [{"system": "urn:mrn", "value": mrn}], "name": [{"family": family}]});
    let once = |mrn: &'static str| [("content-type", "application/fhir+json"), ("if-none-exist", mrn)];
    let a = c
        .send(
            "POST",
            "Patient",
            &once("identifier=urn:mrn|1"),
            p("A", "1").to_string(),
        )
        .await;
    let b = c
        .send(
            "POST",
            "Patient",
            &once("identifier=urn:mrn|1"),
            p("B", "1").to_string(),
        )
        .await;
    assert_eq!((a.status.as_u16(), b.status.as_u16()), (201, 200));
    assert_eq!(a.at("/id"), b.at("/id"));
    let at_once: Vec<_> = (0..24)
        .map(|_| async {
            c.send(
                "POST",
                "Patient",
                &once("identifier=urn:mrn|2"),
                p("C", "2").to_string(),
            )
            .await
            .status
            .as_u16()
        })
        .collect();
    let mut statuses = futures_util::future::join_all(at_once).await;
    statuses.sort_unstable();
    assert_eq!(
        (statuses[22], statuses[23]),
        (200, 201),
        "exactly one of many makes the resource"
    );
    assert_eq!(c.get("Patient?identifier=urn:mrn|2").await.ids().len(), 1);
    let put = c.put("Patient?identifier=urn:mrn|1", &p("Renamed", "1")).await;
    assert_eq!((put.status.as_u16(), put.at("/id")), (200, a.at("/id")));
    assert_eq!(c.put("Patient?identifier=urn:mrn|3", &p("New", "3")).await.status, 201);
    assert_eq!(c.post("Patient", &p("Twin", "1")).await.status, 201);
    assert_eq!(
        c.put("Patient?identifier=urn:mrn|1", &p("Which", "1")).await.status,
        412
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn conditional_writes_find_their_resource_or_make_one() {
    on_both_engines(SCHEMA, |w| Box::pin(conditions(w))).await;
}

async fn bundles(world: &World) -> Result<()> {
    let c = site(world).client(world, &world.north, Role::Clinician).await?;
    let urn = "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a";
    let bundle = |status: &str| {
        json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"resource": {"resourceType": "Observation", "status": status, "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}, "subject": {"reference": urn},
            "performer": [{"reference": "Practitioner?identifier=urn:npi|7"}]}, "request": {"method": "POST", "url": "Observation"}},
        {"fullUrl": urn, "resource": {"resourceType": "Patient", "name": [{"family": "Okafor"}]}, "request": {"method": "POST", "url": "Patient"}},
        {"request": {"method": "GET", "url": "Patient?family=okafor"}}]})
    };
    assert_eq!(
        c.post("", &bundle("final")).await.status,
        412,
        "the practitioner is not there yet"
    );
    assert_eq!(c.get("Patient").await.ids().len(), 0);
    let doctor = c
        .post(
            "Practitioner",
            &json!({"resourceType": "Practitioner", "identifier": [{"system": "urn:npi", "value": "7"}]}),
        )
        .await;
    let bad = c.post("", &bundle("not-a-status")).await;
    assert_eq!(
        (bad.status.as_u16(), bad.at("/issue/0/expression/0")),
        (422, json!("Bundle.entry[0].resource.Observation.status"))
    );
    assert_eq!(c.get("Patient").await.ids().len(), 0, "all or none");
    let done = c.post("", &bundle("final")).await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(done.at("/entry/0/response/status"), "201");
    let patient = done.at("/entry/1/resource/id").as_str().unwrap().to_owned();
    assert_eq!(
        done.at("/entry/0/resource/subject/reference"),
        format!("Patient/{patient}")
    );
    assert_eq!(
        done.at("/entry/0/resource/performer/0/reference"),
        format!("Practitioner/{}", doctor.at("/id").as_str().unwrap())
    );
    assert_eq!(done.at("/entry/2/resource/entry/0/resource/id"), patient);
    assert_eq!(
        c.get(&format!("Observation?patient={patient}&code=http://loinc.org|8867-4"))
            .await
            .ids()
            .len(),
        1
    );

    let batch = json!({"resourceType": "Bundle", "type": "batch", "entry": [
        {"request": {"method": "GET", "url": format!("Patient/{patient}")}},
        {"resource": {"resourceType": "Patient", "gender": "robot"}, "request": {"method": "POST", "url": "Patient"}},
        {"request": {"method": "GET", "url": "Patient/nobody"}},
        {"request": {"method": "DELETE", "url": format!("Patient/{patient}")}}]});
    let done = c.post("", &batch).await;
    let statuses: Vec<Value> = done.json()["entry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["response"]["status"].clone())
        .collect();
    assert_eq!(statuses, ["200", "422", "404", "204"]);
    let lost = json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": urn}}, "request": {"method": "POST", "url": "Observation"}}]});
    assert_eq!(c.post("", &lost).await.status, 400);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_are_one_or_many() {
    on_both_engines(SCHEMA, |w| Box::pin(bundles(w))).await;
}

async fn isolation(world: &World) -> Result<()> {
    let s = site(world);
    let north = s.client(world, &world.north, Role::Clinician).await?;
    let south = s.client(world, &world.south, Role::Clinician).await?;
    let east = s.client(world, &world.east, Role::Clinician).await?;
    let p = |name: &str| json!({"resourceType": "Patient", "id": "same", "identifier": [{"system": "urn:mrn", "value": "1"}], "name": [{"family": name}]});
    let o = json!({"resourceType": "Observation", "id": "o", "status": "final", "code": {"coding": [{"system": "l", "code": "c"}]}, "subject": {"reference": "Patient/same"}});
    for (c, name) in [(&north, "North"), (&south, "South")] {
        assert_eq!(c.put("Patient/same", &p(name)).await.status, 201);
        assert_eq!(c.put("Observation/o", &o).await.status, 201);
    }
    let secret = north
        .post(
            "Patient",
            &json!({"resourceType": "Patient", "name": [{"family": "Secret"}]}),
        )
        .await;
    let secret = secret.at("/id").as_str().unwrap().to_owned();
    for (c, name) in [(&north, "North"), (&south, "South")] {
        assert_eq!(c.get("Patient/same").await.at("/name/0/family"), name);
        assert_eq!(
            c.get("Patient?identifier=urn:mrn|1")
                .await
                .at("/entry/0/resource/name/0/family"),
            name
        );
        assert_eq!(c.get("Observation?patient=Patient/same&code=c").await.ids(), ["o"]);
        assert_eq!(c.get("Patient?_has:Observation:patient:code=c").await.ids(), ["same"]);
        assert_eq!(
            c.get("Observation?_include=Observation:patient")
                .await
                .at("/entry/1/resource/name/0/family"),
            name
        );
    }
    for path in [
        "Patient",
        "Observation?code=c",
        "Patient?identifier=urn:mrn|1",
        "Patient?family=north",
    ] {
        assert_eq!(east.get(path).await.ids(), Vec::<String>::new(), "{path}");
    }
    assert_eq!(south.get(&format!("Patient/{secret}")).await.status, 404);
    assert_eq!(
        south.get(&format!("Patient?_id={secret}")).await.ids(),
        Vec::<String>::new()
    );
    assert_eq!(
        south.get("Patient/_history").await.json()["entry"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // A token of one clinic at another clinic's address.
    let foreign = south.with_token(north.token()).get("Patient").await;
    assert_eq!(
        (foreign.status.as_u16(), foreign.at("/resourceType")),
        (401, json!("OperationOutcome"))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_clinics_with_the_same_ids_see_only_their_own() {
    on_both_engines(SCHEMA, |w| Box::pin(isolation(w))).await;
}

async fn access(world: &World) -> Result<()> {
    let s = site(world);
    let staff = s.client(world, &world.north, Role::Clinician).await?;
    for id in ["mine", "other"] {
        staff
            .put(
                &format!("Patient/{id}"),
                &json!({"resourceType": "Patient", "id": id, "name": [{"family": id}]}),
            )
            .await;
        staff.put(&format!("Observation/obs-{id}"), &json!({"resourceType": "Observation", "id": format!("obs-{id}"), "status": "final", "code": {"coding": [{"code": "c"}]}, "subject": {"reference": format!("Patient/{id}")}})).await;
    }
    staff.put("Basic/b", &json!({"resourceType": "Basic", "id": "b", "code": {"text": "x"}, "subject": {"reference": "Observation/obs-mine"}})).await;
    let subject = "user:00000000-0000-0000-0000-00000000000a";
    world
        .ctx
        .db
        .write(world.north.id, move |tx| {
            Box::pin(async move { policy::relate(tx, subject, "self", "patient:mine", None).await })
        })
        .await?;
    let (_, token) = world.sign_in(&world.north, subject, Role::Patient).await?;
    let me = staff.with_token(&token);
    assert_eq!(me.get("Patient/mine").await.status, 200);
    assert_eq!(me.get("Patient").await.ids(), ["mine"]);
    assert_eq!(me.get("Observation").await.ids(), ["obs-mine"]);
    assert_eq!(me.get("Observation?code=c").await.ids(), ["obs-mine"]);
    assert_eq!(me.get("Observation?code=c&_total=accurate").await.at("/total"), 1);
    assert_eq!(me.get("Observation?patient=other").await.ids(), Vec::<String>::new());
    assert_eq!(
        me.get("Patient?_revinclude=Observation:patient").await.ids(),
        ["mine", "obs-mine"]
    );
    for path in [
        "Patient/other",
        "Observation/obs-other",
        "Observation/obs-other/_history",
        "Observation/obs-other/_history/1",
    ] {
        assert_eq!(me.get(path).await.status, 404, "{path}");
    }
    // A result first filed under the wrong patient: the earlier version is not the right patient's to see.
    let misfiled = |p: &str| json!({"resourceType": "Observation", "id": "moved", "status": "final", "code": {"text": "x"}, "subject": {"reference": format!("http://north.localhost/fhir/R4/Patient/{p}")}});
    staff.put("Observation/moved", &misfiled("other")).await;
    staff.put("Observation/moved", &misfiled("mine")).await;
    assert_eq!(
        me.get("Observation/moved").await.at("/subject/reference"),
        "Patient/mine"
    );
    assert_eq!(me.get("Observation/moved/_history/1").await.status, 404);
    assert_eq!(
        me.get("Observation/moved/_history").await.json()["entry"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    staff.delete("Observation/moved").await;
    assert_eq!(me.get("Patient/_history").await.status, 403);
    assert_eq!(me.get("Patient/mine/_history").await.status, 200);
    assert_eq!(
        me.put("Patient/mine", &json!({"resourceType": "Patient", "id": "mine"}))
            .await
            .status,
        403
    );
    assert_eq!(me.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"request": {"method": "DELETE", "url": "Patient/other"}}]})).await.status, 403);
    assert_eq!(staff.get("Patient/other").await.status, 200);
    for role in [Role::Guest, Role::Device] {
        let (_, token) = world
            .sign_in(&world.north, "guest:00000000-0000-0000-0000-00000000000b", role)
            .await?;
        assert_eq!(staff.with_token(&token).get("Patient/mine").await.status, 403);
    }
    assert_eq!(staff.with_token("").get("Patient").await.status, 401);
    assert_eq!(staff.with_token("").get("metadata").await.status, 200);

    s.fhir.flush_audit().await;
    let rows = world
        .ctx
        .db
        .query(
            world.north.id,
            "SELECT action, target, outcome FROM audit WHERE tenant = $1",
            &[],
        )
        .await?;
    let has = |action: &str, target: &str, outcome: &str| {
        rows.iter()
            .any(|r| (r.text(0).unwrap(), r.text(1).unwrap(), r.text(2).unwrap()) == (action, target, outcome))
    };
    assert!(
        has("update", "Patient/mine", "success")
            && has("read", "Patient/mine", "success")
            && has("read", "Patient/other", "denied")
    );
    assert!(audit::verify(&world.ctx.db, world.north.id).await?.is_ok());
    Ok(())
}

/// The chain is full: nothing can be appended to it, on either engine.
const FULL: &str = "INSERT INTO audit (tenant, seq, at, actor, action, target, outcome, detail, hash)
    VALUES ($1, 9223372036854775807, 0, 'x', 'x', 'x', 'x', 'x', $2)";
const ROOM: &str = "DELETE FROM audit WHERE tenant = $1 AND seq = 9223372036854775807";

async fn delayed(world: &World) -> Result<()> {
    let s = site(world);
    let (north, south) = (&world.north, &world.south);
    let reads = async |tenant: medtech_kernel::TenantId| {
        let sql = "SELECT COUNT(*) FROM audit WHERE tenant = $1 AND action = 'read' AND target LIKE 'Patient/%'";
        world.ctx.db.query_one(tenant, sql, &[]).await?.i64(0)
    };
    let mut readers = Vec::new();
    for tenant in [north, south] {
        let c = s.client(world, tenant, Role::Clinician).await?;
        let made = s
            .fhir
            .create(tenant.id, "system", json!({"resourceType": "Patient"}))
            .await?;
        readers.push((c, format!("Patient/{}", made.id)));
    }
    world.forge(north.id, FULL, vec![vec![0_u8; 32].into()]).await?;
    for (c, path) in &readers {
        for _ in 0..3 {
            assert_eq!(c.get(path).await.status, 200);
        }
    }
    // The other clinic's are written meanwhile, and of this one's none is.
    let begun = std::time::Instant::now();
    while reads(south.id).await? < 3 {
        assert!(begun.elapsed().as_secs() < 60, "one clinic's trail holds up another's");
        tokio::task::yield_now().await;
    }
    assert_eq!(reads(north.id).await?, 0);
    world.forge(north.id, ROOM, Vec::new()).await?;
    s.fhir.flush_audit().await;
    assert_eq!((reads(north.id).await?, reads(south.id).await?), (3, 3));
    assert!(audit::verify(&world.ctx.db, north.id).await?.is_ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_could_not_be_written_down_is_written_later() {
    on_both_engines(SCHEMA, |w| Box::pin(delayed(w))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_sees_the_own_record_and_a_guest_none() {
    on_both_engines(SCHEMA, |w| Box::pin(access(w))).await;
}

/// What the trail says about a patient, sorted: reads are written a moment after writes.
async fn told(world: &World, site: &crate::common::Site, patient: &str) -> Result<Vec<String>> {
    site.fhir.flush_audit().await;
    let found = audit::about(&world.ctx.db, world.north.id, patient, None, 1000).await?;
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|f| format!("{} {} {}", f.action, f.target, f.detail))
        .collect();
    lines.sort();
    Ok(lines)
}

async fn whose(world: &World) -> Result<()> {
    let s = site(world);
    let c = s.client(world, &world.north, Role::Clinician).await?;
    for id in ["anna", "bert"] {
        c.put(&format!("Patient/{id}"), &json!({"resourceType": "Patient", "id": id}))
            .await;
    }
    let weight = |id: &str, patient: &str| {
        json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "weight"},
            "subject": {"reference": format!("Patient/{patient}")}})
    };
    c.put("Observation/o1", &weight("o1", "anna")).await;
    c.get("Observation/o1").await;
    c.get("Observation?status=final").await;
    // Corrected: it was the other's. Both are concerned; what was read of the first version was Anna's.
    c.put("Observation/o1", &weight("o1", "bert")).await;
    c.get("Observation/o1/_history/1").await;
    c.get("Observation/o1").await;
    c.get("Observation/o1/_history").await;
    let both = json!({"resourceType": "Appointment", "id": "a1", "status": "booked", "participant": [
        {"actor": {"reference": "Patient/anna"}, "status": "accepted"},
        {"actor": {"reference": "Patient/bert"}, "status": "accepted"}]});
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"request": {"method": "PUT", "url": "Appointment/a1"}, "resource": both},
        {"request": {"method": "PUT", "url": "Observation/o2"}, "resource": weight("o2", "bert")},
        {"request": {"method": "PUT", "url": "Location/l1"}, "resource": {"resourceType": "Location", "id": "l1"}}]});
    assert_eq!(c.post("", &bundle).await.status, 200);
    c.delete("Observation/o2").await;
    c.get("Patient?_revinclude=Observation:subject").await;
    assert_eq!(
        told(world, &s, "anna").await?,
        [
            "execute Bundle create Appointment/a1/_history/1",
            "read Observation search status",
            "read Observation/o1 history",
            "read Observation/o1 read",
            "read Observation/o1 vread",
            "read Patient search _revinclude",
            "update Observation/o1 version 1",
            "update Observation/o1 version 2",
            "update Patient/anna version 1",
        ]
    );
    let bert = told(world, &s, "bert").await?;
    assert!(
        bert.contains(&"execute Bundle create Appointment/a1/_history/1, create Observation/o2/_history/1".to_owned()),
        "{bert:?}"
    );
    assert!(bert.contains(&"delete Observation/o2 version 2".to_owned()), "{bert:?}");
    assert!(!bert.contains(&"read Observation/o1 vread".to_owned()), "{bert:?}");
    assert!(audit::verify(&world.ctx.db, world.north.id).await?.is_ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_names_the_patients_whose_records_were_seen_or_changed() {
    on_both_engines(SCHEMA, |w| Box::pin(whose(w))).await;
}

async fn hostile(world: &World) -> Result<()> {
    let c = site(world).client(world, &world.north, Role::Clinician).await?;
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let nested = format!(r#"{{"resourceType":"Patient","contained":{}}}"#, deep);
    let bodies = [
        "",
        "{",
        "null",
        "[]",
        "\"x\"",
        "{\"resourceType\":7}",
        "{\"resourceType\":\"\"}",
        "\u{0}",
        "{\"resourceType\":\"Patient\",\"name\":{}}",
        &deep,
        &nested,
        "{\"resourceType\":\"Patient\",\"birthDate\":\"2020-02-31\"}",
        "{\"resourceType\":\"Patient\",\"multipleBirthInteger\":99999999999999999999}",
        "{\"resourceType\":\"Observation\"}",
        "{\"resourceType\":\"Patient\",\"implicitRules\":\"a\\u0000\"}",
    ];
    for body in bodies {
        let answer = c
            .send(
                "POST",
                "Patient",
                &[("content-type", "application/fhir+json")],
                body.to_owned(),
            )
            .await;
        assert!(answer.status.is_client_error(), "{} {body:.100}", answer.status);
        assert_eq!(answer.at("/resourceType"), "OperationOutcome");
    }
    let queries = [
        "birthdate=x",
        "birthdate=gt",
        "birthdate=zz2020",
        "_count=-1",
        "_count=x",
        "_sort=nothing",
        "_sort=gender,birthdate",
        "_cursor=1.x",
        "_cursor=%00",
        "gender=a|b|c",
        "name=",
        "name=,",
        "_include=x",
        "_include=Patient:nothing",
        "_has:Observation=x",
        "_has:Nobody:patient:code=x",
        "_has:Observation:patient:nothing=x",
        "general-practitioner.name.x=1",
        "general-practitioner.name=x",
        "_summary=text",
        "gender:exact=male",
        "name:text=x",
        "birthdate:missing=maybe",
        "_text=x",
        "_total=all",
        "organization:Nobody.name=x",
    ];
    for query in queries {
        let answer = c.get(&format!("Patient?{query}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.at("/resourceType")),
            (400, json!("OperationOutcome")),
            "{query}: {}",
            answer.text
        );
    }
    for path in [
        "Location?near=1",
        "Observation?code-value-quantity=x$1",
        "Patient?_query=x",
    ] {
        assert_eq!(c.get(path).await.at("/issue/0/code"), "not-supported", "{path}");
    }
    for query in [
        "name=%27%3B%20DROP%20TABLE%20fhir_res%3B--",
        "name=%F0%90",
        "name:contains=%25_!",
        "identifier=|",
        "_id=..,..",
        "birthdate=ge0001-01-01&birthdate=le9999-12-31",
        "gender=%00x",
    ] {
        let answer = c.get(&format!("Patient?{query}")).await;
        assert!(
            answer.status.as_u16() == 200 || answer.status.as_u16() == 400,
            "{query}: {}",
            answer.text
        );
    }
    for (method, path, status) in [
        ("GET", "Nobody", 404),
        ("GET", "Patient/x/y", 404),
        ("PATCH", "Patient/x", 400),
        ("GET", "Patient/a%20b", 404),
        ("DELETE", "Patient?name=x", 400),
        ("DELETE", "Patient/%00", 404),
        ("GET", "", 404),
        ("PUT", "Patient/x", 400),
    ] {
        let answer = c
            .send(
                method,
                path,
                &[],
                if method == "PUT" {
                    r#"{"resourceType":"Patient"}"#
                } else {
                    ""
                },
            )
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.at("/resourceType")),
            (status, json!("OperationOutcome")),
            "{method} {path}: {}",
            answer.text
        );
    }
    assert_eq!(
        c.send("GET", "Patient", &[("accept", "application/fhir+xml")], "")
            .await
            .status,
        400
    );
    let entry = json!({"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": "Patient/\0"}}, {"request": {"method": "GET", "url": "Patient?\0=\0"}}]});
    assert_eq!(c.post("", &entry).await.at("/entry/0/response/status"), "404");
    // Unknown parameters: passed over and reported, or refused when the client is strict.
    let lenient = c.get("Patient?nonsense=1&gender=male").await;
    assert!(lenient.link("self").unwrap().ends_with("/fhir/R4/Patient?gender=male"));
    assert_eq!(lenient.at("/entry/0/search/mode"), "outcome");
    assert_eq!(
        c.send("GET", "Patient?nonsense=1", &[("prefer", "handling=strict")], "")
            .await
            .status,
        400
    );
    let minimal = c
        .send(
            "POST",
            "Patient",
            &[("content-type", "application/fhir+json"), ("prefer", "return=minimal")],
            r#"{"resourceType":"Patient"}"#,
        )
        .await;
    assert_eq!((minimal.status.as_u16(), minimal.text.as_str()), (201, ""));
    assert_eq!(c.get("metadata").await.at("/fhirVersion"), "4.0.1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_input_is_answered_with_an_outcome() {
    on_both_engines(SCHEMA, |w| Box::pin(hostile(w))).await;
}
