//! Bodies lie sealed, each in its place; an erased patient's record is gone, and nobody else's.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use crate::common::site;
use http::StatusCode;
use medtech_kernel::{
    Result,
    auth::Role,
    testkit::{World, on_both_engines},
    vault,
};
use serde_json::{Value, json};

fn observation(patient: &str, text: &str) -> Value {
    json!({"resourceType": "Observation", "status": "final", "code": {"text": text},
        "subject": {"reference": format!("Patient/{patient}")}, "effectiveDateTime": "2026-03-02T09:00:00Z"})
}

fn patient(family: &str, mrn: &str) -> Value {
    json!({"resourceType": "Patient", "name": [{"family": family}], "identifier": [{"system": "urn:mrn", "value": mrn}]})
}

async fn erased(world: &World) -> Result<()> {
    let site = site(world);
    let (ctx, north) = (&world.ctx, world.north.id);
    let c = site.client(world, &world.north, Role::Clinician).await?;
    let id = |answer: crate::common::Answer| answer.at("/id").as_str().unwrap().to_owned();
    let (anna, bert) = (
        id(c.post("Patient", &patient("Quillfeather", "4711")).await),
        id(c.post("Patient", &patient("Obermoser", "4712")).await),
    );
    let (hers, his) = (
        id(c.post("Observation", &observation(&anna, "a strange rash")).await),
        id(c.post("Observation", &observation(&bert, "a cough")).await),
    );
    let mut again = observation(&anna, "a healing rash");
    again["id"] = json!(hers);
    assert_eq!(
        c.put(&format!("Observation/{hers}"), &again).await.status,
        StatusCode::OK
    );
    let mut own = observation(&anna, "under a name of the client's");
    own["id"] = json!("of-hers");
    assert_eq!(c.put("Observation/of-hers", &own).await.status, StatusCode::CREATED);
    let both = json!({"resourceType": "Appointment", "status": "booked", "description": "family talk", "participant": [
        {"actor": {"reference": format!("Patient/{anna}")}, "status": "accepted"},
        {"actor": {"reference": format!("Patient/{bert}")}, "status": "accepted"}]});
    let shared = id(c.post("Appointment", &both).await);

    // Every body is sealed, and none opens in another's place.
    let rows = ctx
        .db
        .query(
            north,
            "SELECT rid, dict, body FROM fhir_res WHERE tenant = $1 ORDER BY rid",
            &[],
        )
        .await?;
    for row in &rows {
        assert!(row.i64(1)? >= 1 << 16 && vault::key_id(row.blob(2)?).is_some());
    }
    let keys: Vec<_> = rows.iter().map(|r| vault::key_id(r.blob(2).unwrap())).collect();
    assert_ne!(keys[0], keys[1], "each patient has a key");
    let find = "SELECT r.rid FROM fhir_res r WHERE r.tenant = $1 AND r.body = $2";
    assert_eq!(ctx.db.query(north, find, &[rows[0].blob(2)?.into()]).await?.len(), 1);
    let (theirs, mine) = (rows[1].blob(2)?.to_vec(), rows[1].i64(0)?);
    let swap = |body: Vec<u8>| {
        ctx.db.write(north, move |tx| {
            Box::pin(async move {
                tx.exec(
                    "UPDATE fhir_res SET body = $3 WHERE tenant = $1 AND rid = $2",
                    &[mine.into(), body.into()],
                )
                .await
            })
        })
    };
    swap(rows[0].blob(2)?.to_vec()).await?;
    assert_eq!(
        c.get(&format!("Patient/{bert}")).await.status,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    swap(theirs).await?;
    assert_eq!(c.get(&format!("Patient/{bert}")).await.status, StatusCode::OK);

    // Erased.
    assert!(
        site.fhir
            .erase_patient(north, "nobody", "user:admin", &())
            .await
            .is_err()
    );
    assert!(
        site.fhir
            .erase_patient(world.south.id, &anna, "user:admin", &())
            .await
            .is_err()
    );
    assert_eq!(site.fhir.erase_patient(north, &anna, "user:admin", &()).await?, 3);
    for path in [
        format!("Patient/{anna}"),
        format!("Observation/{hers}"),
        "Observation/of-hers".to_owned(),
    ] {
        // Whose it was is not known any more, so nobody is told that there was something.
        assert_eq!(c.get(&path).await.status, StatusCode::NOT_FOUND, "{path}");
        for version in 1..3 {
            let old = c.get(&format!("{path}/_history/{version}")).await;
            assert!(
                !old.status.is_success() && !old.text.contains("rash"),
                "{path} {version} {}",
                old.text
            );
        }
        let history = c.get(&format!("{path}/_history")).await;
        assert!(
            !history.text.contains("rash") && !history.text.contains("Quillfeather"),
            "{}",
            history.text
        );
    }
    for query in [
        "Patient?family=quill",
        "Patient?identifier=urn:mrn|4711",
        "Observation?_sort=date",
    ] {
        let found = c.get(query).await;
        assert!(
            found.status.is_success() && !found.ids().contains(&anna) && !found.ids().contains(&hers),
            "{query}"
        );
    }
    assert!(!c.get("Observation/_history").await.text.contains("rash"));
    // Others' records stand, also where hers was in them.
    assert_eq!(c.get(&format!("Observation/{his}")).await.status, StatusCode::OK);
    assert_eq!(c.get(&format!("Appointment/{shared}")).await.status, StatusCode::OK);
    assert_eq!(c.get("Patient?identifier=urn:mrn|4712").await.ids(), [bert]);
    // Nothing new can be written about her, and the trail says who did it.
    let late = c.post("Observation", &observation(&anna, "late")).await;
    assert_eq!(late.status, StatusCode::GONE, "{}", late.text);
    let trail = "SELECT target FROM audit WHERE tenant = $1 AND actor = 'user:admin' AND patient = $2 ORDER BY seq";
    let entries = ctx.db.query(north, trail, &[(&anna).into()]).await?;
    assert_eq!(entries.last().unwrap().text(0)?, format!("key:patient/{anna}"));
    assert_eq!(site.fhir.erase_again(north, &()).await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_erased_patient_is_gone_and_nobody_else() {
    on_both_engines(&[medtech_fhir::MIGRATIONS], |w| Box::pin(erased(w))).await;
}

/// Whoever looks after the keys does so all the time, in the middle of the work too.
#[tokio::test]
async fn a_long_erasure_is_the_same_whoever_looks_after_the_keys_meanwhile() {
    on_both_engines(&[medtech_fhir::MIGRATIONS], |w| {
        Box::pin(async move {
            let site = site(w);
            let north = w.north.id;
            let anna = site
                .fhir
                .create(north, "system", patient("Quillfeather", "4711"))
                .await?;
            let anna = anna.id.to_string();
            // More than one transaction takes away.
            for n in 0..120 {
                site.fhir
                    .create(north, "system", observation(&anna, &format!("finding {n}")))
                    .await?;
            }
            let erasing = site.fhir.erase_patient(north, &anna, "user:admin", &());
            let watching = async {
                loop {
                    // What another process has erased calls for a look at the ledger, again and again.
                    w.ctx.vault.erase_again(&w.ctx.db).await.unwrap();
                    w.ctx.vault.refresh(&w.ctx.db).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let gone = tokio::select! {
                gone = erasing => gone?,
                () = watching => unreachable!(),
            };
            assert_eq!(gone, 121);
            // Each of them is in the trail, by whoever asked.
            let filter = medtech_kernel::audit::Filter {
                action: Some("delete".into()),
                ..Default::default()
            };
            let trail = medtech_kernel::audit::page(&w.ctx.db, north, &filter, 500).await?;
            assert_eq!(trail.len(), 122, "121 resources and the key");
            assert!(trail.iter().all(|e| e.actor == "user:admin"));
            Ok(())
        })
    })
    .await;
}
