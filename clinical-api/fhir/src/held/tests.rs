//! Somebody with the keys and the database changes what was written: held against the trail, each change is named, and nothing
//! else. What was deleted or erased in order is no fault, nor is what older releases wrote.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::{Fhir, codec};
use medtech_kernel::{
    Result, TenantId, Val,
    audit::{Fault, Held},
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};

const ACTOR: &str = "user:1";
const ROWS: &str = "SELECT rid, ver, dict, body FROM fhir_res WHERE tenant = $1 AND rid = $2";
const EDIT: &str = "UPDATE fhir_res SET dict = $3, body = $4 WHERE tenant = $1 AND rid = $2";
const EDIT_OLD: &str = "UPDATE fhir_hist SET dict = $3, body = $4 WHERE tenant = $1 AND rid = $2 AND ver = 1";
const BACK: &str = "UPDATE fhir_res SET ver = $3, del = 0, dict = $4, body = $5 WHERE tenant = $1 AND rid = $2";
const OLD: &str = "SELECT rid, ver, dict, body FROM fhir_hist WHERE tenant = $1 AND rid = $2 AND ver = 1";
const DROP: &str = "DELETE FROM fhir_hist WHERE tenant = $1 AND rid = $2 AND ver = 1";
const DROP_ALL: &str = "DELETE FROM fhir_res WHERE tenant = $1 AND rid = $2";
const KEEP: &str = "INSERT INTO fhir_hist (tenant, rid, ver, upd, op, dict, body) VALUES ($1, $2, 1, 0, 1, $3, $4)";
const INVENT: &str = "INSERT INTO fhir_res (tenant, rid, ty, ver, upd, del, ord, dict, body)
    SELECT tenant, 900000, ty, 1, upd, 0, ord, $3, $4 FROM fhir_res WHERE tenant = $1 AND rid = $2";
const UNINVENT: &str = "DELETE FROM fhir_res WHERE tenant = $1 AND rid = 900000";
const FORGET: &str = "UPDATE audit SET digest = NULL WHERE tenant = $1 AND seq <= $2";

fn observation(patient: &str, value: i64) -> Value {
    json!({"resourceType": "Observation", "status": "final", "code": {"text": "weight"},
        "subject": {"reference": format!("Patient/{patient}")}, "valueQuantity": {"value": value}})
}

/// As whoever has the code and the keys would write it.
fn body(patient: &str, value: i64) -> [Val; 2] {
    let stored = codec::stored("Observation", &observation(patient, value), None);
    [codec::CURRENT.into(), codec::compress(&stored).unwrap().into()]
}

/// Anna's weight, corrected once; Bert's, deleted; a bundle's worth of a client's own ids.
async fn fill(fhir: &Fhir, tenant: TenantId) -> Result<(i64, String)> {
    let shelf = fhir.shelf(tenant);
    let person = json!({"resourceType": "Patient"});
    let anna = fhir.create(tenant, ACTOR, person.clone()).await?.id;
    let bert = fhir.create(tenant, ACTOR, person).await?.id;
    let weight = fhir.create(tenant, ACTOR, observation(&anna, 70)).await?.id;
    fhir.update(tenant, ACTOR, &weight, observation(&anna, 71), None)
        .await?;
    let gone = fhir.create(tenant, ACTOR, observation(&bert, 80)).await?.id;
    fhir.delete(tenant, ACTOR, "Observation", &gone).await?;
    let mut own = observation(&anna, 72);
    own["id"] = json!("mine");
    fhir.update(tenant, ACTOR, "mine", own, None).await?;
    fhir.delete(tenant, ACTOR, "Observation", "mine").await?;
    Ok((shelf.ids.rid(&weight).unwrap(), anna))
}

fn faults(held: &Held) -> Vec<(String, Fault)> {
    held.differences.iter().map(|d| (d.what.clone(), d.fault)).collect()
}

async fn tampered(w: &World) -> Result<()> {
    let fhir = Fhir::new(w.ctx.clone());
    let (north, south) = (w.north.id, w.south.id);
    let (rid, anna) = fill(&fhir, north).await?;
    fill(&fhir, south).await?;
    fill(&fhir, w.east.id).await?;
    let whole = fhir.held(north).await?;
    assert_eq!(
        (whole.right, whole.wrong, whole.uncovered, whole.erased),
        (8, 0, 0, 0),
        "{whole:?}"
    );

    let name = format!("Observation/{}/_history", fhir.shelf(north).ids.id(rid));
    let row = |sql: &'static str| async move {
        let row = w.ctx.db.query_one(north, sql, &[rid.into()]).await?;
        Ok::<_, medtech_kernel::Error>([row.get(2).cloned().unwrap(), row.get(3).cloned().unwrap()])
    };
    let (now, before) = (row(ROWS).await?, row(OLD).await?);
    let with = |rid: i64, more: &[Val]| {
        std::iter::once(Val::from(rid))
            .chain(more.iter().cloned())
            .collect::<Vec<_>>()
    };
    let other = body(&anna, 99);
    let first: Vec<Val> = std::iter::once(Val::from(1)).chain(before.iter().cloned()).collect();
    let second: Vec<Val> = std::iter::once(Val::from(2)).chain(now.iter().cloned()).collect();
    type Acts = Vec<(&'static str, Vec<Val>)>;
    type Case = (&'static str, Acts, Acts, Vec<(String, Fault)>);
    let cases: Vec<Case> = vec![
        (
            "edited",
            vec![(EDIT, with(rid, &other))],
            vec![(EDIT, with(rid, &now))],
            vec![(format!("{name}/2"), Fault::Altered)],
        ),
        (
            "an earlier version edited",
            vec![(EDIT_OLD, with(rid, &other))],
            vec![(EDIT_OLD, with(rid, &before))],
            vec![(format!("{name}/1"), Fault::Altered)],
        ),
        (
            "dropped",
            vec![(DROP, with(rid, &[]))],
            vec![(KEEP, with(rid, &before))],
            vec![(format!("{name}/1"), Fault::Lost)],
        ),
        (
            "one body in another's place",
            vec![(EDIT, with(rid, &before))],
            vec![(EDIT, with(rid, &now))],
            vec![(format!("{name}/2"), Fault::Unreadable)],
        ),
        (
            "an earlier version brought back",
            vec![(BACK, with(rid, &first)), (DROP, with(rid, &[]))],
            vec![(BACK, with(rid, &second)), (KEEP, with(rid, &before))],
            vec![(format!("{name}/2"), Fault::Lost)],
        ),
        (
            "invented",
            vec![(INVENT, with(rid, &other))],
            vec![(UNINVENT, vec![])],
            vec![(
                format!("Observation/{}/_history/1", fhir.shelf(north).ids.id(900_000)),
                Fault::Invented,
            )],
        ),
    ];
    for (what, acts, undo, expected) in cases {
        for (sql, args) in acts {
            w.forge(north, sql, args).await?;
        }
        assert_eq!(faults(&fhir.held(north).await?), expected, "{what}");
        for (sql, args) in undo {
            w.forge(north, sql, args).await?;
        }
        let again = fhir.held(north).await?;
        assert_eq!((again.right, again.wrong), (8, 0), "{what}, undone: {again:?}");
    }
    for neighbour in [south, w.east.id] {
        assert_eq!(fhir.held(neighbour).await?.right, 8);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_changed_behind_the_servers_back_is_named() {
    on_both_engines(&[crate::MIGRATIONS], |w| Box::pin(tampered(w))).await;
}

async fn erased(w: &World) -> Result<()> {
    let fhir = Fhir::new(w.ctx.clone());
    let north = w.north.id;
    let (rid, anna) = fill(&fhir, north).await?;
    fhir.erase_patient(north, &anna, "user:admin", &()).await?;
    let held = fhir.held(north).await?;
    assert_eq!(held.wrong, 0, "{held:?}");
    // Bert and his weight's two versions stand as they were, and so do the three deletions of what was Anna's; her own
    // versions are gone in order.
    assert!(held.erased >= 4 && held.right >= 3, "{held:?}");
    let back: Vec<Val> = [Val::from(rid), Val::from(2)]
        .into_iter()
        .chain(body(&anna, 71))
        .collect();
    w.forge(north, BACK, back).await?;
    let found = faults(&fhir.held(north).await?);
    let name = format!("Observation/{}/_history", fhir.shelf(north).ids.id(rid));
    assert!(found.contains(&(format!("{name}/2"), Fault::BroughtBack)), "{found:?}");
    // Gone without being erased is something else.
    w.forge(north, DROP_ALL, vec![fhir.shelf(north).ids.rid(&anna).unwrap().into()])
        .await?;
    fill(&fhir, w.south.id).await?;
    let (other, _) = fill(&fhir, w.east.id).await?;
    w.forge(w.east.id, DROP_ALL, vec![other.into()]).await?;
    assert_eq!(fhir.held(w.east.id).await?.wrong, 1);
    assert_eq!(fhir.held(w.south.id).await?.wrong, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_erased_is_told_from_what_was_lost_and_found_when_it_is_back() {
    on_both_engines(&[crate::MIGRATIONS], |w| Box::pin(erased(w))).await;
}

async fn older(w: &World) -> Result<()> {
    let fhir = Fhir::new(w.ctx.clone());
    let north = w.north.id;
    fill(&fhir, north).await?;
    let end = medtech_kernel::audit::end(&w.ctx.db, north).await?;
    w.forge(north, FORGET, vec![end.into()]).await?;
    let held = fhir.held(north).await?;
    assert_eq!((held.right, held.uncovered, held.wrong), (0, 8, 0), "{held:?}");
    w.ctx.clock.advance(1000);
    fhir.create(north, ACTOR, json!({"resourceType": "Patient"})).await?;
    let held = fhir.held(north).await?;
    assert_eq!((held.right, held.uncovered, held.wrong), (1, 8, 0), "{held:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_older_releases_wrote_is_not_covered_and_no_fault() {
    on_both_engines(&[crate::MIGRATIONS], |w| Box::pin(older(w))).await;
}
