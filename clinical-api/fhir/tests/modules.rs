//! What modules build on: resources inside their own transactions, durable events, the same rules without HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use medtech_fhir::{Access, Failure, Fhir};
use medtech_kernel::{
    Error, Migration, Result,
    db::Script,
    error::Kind,
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};

/// A module's own table.
const OWN: &[Migration] = &[Migration {
    module: "own",
    number: 1,
    sql: Script::Both("CREATE TABLE own_row (tenant BIGINT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (tenant, id));"),
}];
const SCHEMA: &[&[Migration]] = &[medtech_fhir::MIGRATIONS, OWN];
const ACTOR: &str = "user:00000000-0000-0000-0000-000000000001";

fn observation(patient: &str, value: i64) -> Value {
    json!({"resourceType": "Observation", "status": "final", "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": format!("Patient/{patient}")}, "effectiveDateTime": "2026-03-02T09:00:00Z", "valueQuantity": {"value": value}})
}

async fn together(world: &World) -> Result<()> {
    let (ctx, tenant) = (&world.ctx, world.north.id);
    ctx.bus.register("watcher", &["fhir.Observation.changed"]);
    let fhir = Fhir::new(ctx.clone());
    let patient = fhir
        .create(
            tenant,
            ACTOR,
            json!({"resourceType": "Patient", "name": [{"family": "Haddad"}]}),
        )
        .await?;

    // A module's row and two resources: all of it, or none.
    for fails in [true, false] {
        let (inside, id) = (fhir.clone(), patient.id.clone());
        let done = ctx.db.write(tenant, move |tx| {
            Box::pin(async move {
                tx.exec("INSERT INTO own_row (tenant, id) VALUES ($1, $2)", &["x".into()])
                    .await?;
                let first = inside.create_in(tx, ACTOR, observation(&id, 70)).await?;
                let seen = inside
                    .search_in(tx, &Access::All, "Observation", &format!("patient={id}"))
                    .await?;
                assert_eq!(seen.resources.len(), 1, "a transaction sees its own writes");
                inside
                    .update_in(tx, ACTOR, &first.id, observation(&id, 71), Some(1))
                    .await?;
                inside.create_in(tx, ACTOR, observation(&id, 72)).await?;
                if fails {
                    Err(Error::conflict("own.no", "no"))
                } else {
                    Ok(first.id)
                }
            })
        });
        let (rows, found, events) = (
            "SELECT COUNT(*) FROM own_row WHERE tenant = $1",
            "code=http://loinc.org|8867-4&_sort=-date",
            "SELECT COUNT(*) FROM outbox WHERE tenant = $1 AND grp = 'watcher'",
        );
        let expected = if fails { (0, 0, 0) } else { (1, 2, 3) };
        assert_eq!(done.await.is_err(), fails);
        let count = |sql: &'static str| async move { ctx.db.query_one(tenant, sql, &[]).await?.i64(0) };
        let resources = fhir.search(tenant, &Access::All, "Observation", found).await?.resources;
        assert_eq!((count(rows).await?, resources.len(), count(events).await?), expected);
        for r in &resources {
            assert!(r.value()?["valueQuantity"]["value"].as_i64() >= Some(71));
        }
    }
    let events = ctx.bus.waiting(tenant, "watcher").await?;
    let event = events.first().unwrap();
    let body: Value = serde_json::from_str(event.body.get()).unwrap();
    assert_eq!(
        (body["type"].as_str(), body["op"].as_str(), body["patient"].as_str()),
        (Some("Observation"), Some("create"), Some(patient.id.as_str()))
    );
    assert_eq!(event.key, format!("Observation/{}", body["id"].as_str().unwrap()));

    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"fullUrl": "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a", "resource": {"resourceType": "Encounter", "status": "finished", "class": {"code": "VR"}, "subject": {"reference": patient.reference()}}, "request": {"method": "POST", "url": "Encounter"}},
        {"resource": {"resourceType": "Communication", "status": "completed", "encounter": {"reference": "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a"}}, "request": {"method": "POST", "url": "Communication"}}]});
    let made = fhir.transaction(tenant, ACTOR, bundle).await?;
    assert_eq!(made[1].value()?["encounter"]["reference"], made[0].reference());
    let by = fhir
        .search(
            tenant,
            &Access::Compartment(patient.id.clone()),
            "Encounter",
            "_revinclude=Communication:encounter",
        )
        .await?;
    assert_eq!(
        (by.resources.len(), by.included.len()),
        (1, 0),
        "the message has no patient and is not the patient's"
    );

    let wrong = fhir
        .create(tenant, ACTOR, json!({"resourceType": "Observation", "status": "final"}))
        .await;
    match wrong {
        Err(Failure::Issues(Kind::Unprocessable, issues)) => assert_eq!(issues[0].expression, "Observation.code"),
        other => panic!("{other:?}"),
    }
    let stale = fhir
        .update(tenant, ACTOR, &patient.id, json!({"resourceType": "Patient"}), Some(9))
        .await;
    assert_eq!(
        stale.map_err(|f| Error::from(f).kind).err(),
        Some(Kind::PreconditionFailed)
    );
    fhir.delete(tenant, ACTOR, "Patient", &patient.id).await?;
    let gone = fhir.read(tenant, &Access::All, "Patient", &patient.id).await;
    assert_eq!(gone.map_err(|f| f.kind()).err(), Some(Kind::Gone));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_and_a_modules_rows_stand_or_fall_together() {
    on_both_engines(SCHEMA, |w| Box::pin(together(w))).await;
}

async fn racing(world: &World) -> Result<()> {
    let fhir = Fhir::new(world.ctx.clone());
    let tenant = world.north.id;
    let patient = fhir.create(tenant, ACTOR, json!({"resourceType": "Patient"})).await?;
    let writers = (0..20).map(|n| {
        let (fhir, id) = (fhir.clone(), patient.id.clone());
        async move {
            fhir.update(
                tenant,
                ACTOR,
                &id,
                json!({"resourceType": "Patient", "name": [{"family": format!("n{n}")}]}),
                None,
            )
            .await
        }
    });
    let done = futures_util::future::join_all(writers).await;
    let wins = done.iter().filter(|d| d.is_ok()).count();
    let last = fhir.read(tenant, &Access::All, "Patient", &patient.id).await?;
    assert_eq!(
        usize::try_from(last.version).unwrap(),
        1 + wins,
        "every acknowledged update is a version"
    );
    assert_eq!(
        fhir.search(tenant, &Access::All, "Patient", "family=n")
            .await?
            .resources
            .len(),
        1
    );
    let from_one = (0..8).map(|_| {
        fhir.update(
            tenant,
            ACTOR,
            &patient.id,
            json!({"resourceType": "Patient"}),
            Some(last.version),
        )
    });
    let wins = futures_util::future::join_all(from_one)
        .await
        .iter()
        .filter(|d| d.is_ok())
        .count();
    assert_eq!(wins, 1, "one of those who saw the same version");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_updates_lose_nothing() {
    on_both_engines(SCHEMA, |w| Box::pin(racing(w))).await;
}
