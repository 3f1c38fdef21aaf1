//! Rows as the earlier releases wrote them: first everything in clear, then all but the names outside of patients' records.

use crate::{
    Fhir, codec,
    search::Access,
    store::{Cover, Exec, Veil, current},
};
use medtech_kernel::{
    Error, Result, TenantId, Val,
    db::Engine,
    testkit::{World, on_both_engines, scan::legible},
    vault,
};
use serde_json::{Value, json};

const BODY: &str = "UPDATE fhir_res SET dict = $3, body = $4 WHERE tenant = $1 AND rid = $2";
const VERSION: &str = "UPDATE fhir_hist SET dict = 1, body = $4 WHERE tenant = $1 AND rid = $2 AND ver = $3";
const NO_TEXTS: &str = "DELETE FROM fhir_str WHERE tenant = $1 AND rid = $2";
const TEXT: &str = "INSERT INTO fhir_str (tenant, k, norm, rid) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
const NO_HASHES: &str = "DELETE FROM fhir_tok WHERE tenant = $1 AND rid = $2 AND code < 0";
const HASH: &str = "INSERT INTO fhir_tok (tenant, k, code, ord, rid)
    SELECT $1, $2, $3, ord, rid FROM fhir_res WHERE tenant = $1 AND rid = $4 ON CONFLICT DO NOTHING";
const OPEN: &str = "SELECT (SELECT COUNT(*) FROM fhir_res WHERE tenant = $1 AND dict < 65536 AND del = 0)
    + (SELECT COUNT(*) FROM fhir_hist WHERE tenant = $1 AND dict < 65536)";

async fn exec(w: &World, sql: &'static str, args: Vec<Val>) -> Result<()> {
    let done = w.ctx.db.write(w.north.id, move |tx| {
        Box::pin(async move { tx.exec(sql, &args).await.map(drop) })
    });
    done.await
}

/// Makes a resource's row one of an older release.
async fn age(w: &World, fhir: &Fhir, ty: &str, id: &str, cover: Cover) -> Result<i64> {
    let north = w.north.id;
    let (def, shelf) = (crate::engine::type_of(ty).map_err(Error::from)?, fhir.shelf(north));
    let rid = shelf.ids.rid(id).expect("an id of ours");
    let stored = current(&mut Exec::Db(&w.ctx.db, north), def, rid)
        .await?
        .expect("a row");
    let mut found = def.plan().run(&stored.value()?, &fhir.0.base);
    if !cover.records {
        let packed = codec::compress(&stored.body)?;
        exec(w, BODY, vec![rid.into(), codec::CURRENT.into(), packed.into()]).await?;
    } else {
        let take = "UPDATE fhir_res SET dict = 65537 WHERE tenant = $1 AND rid = $2";
        exec(w, take, vec![rid.into()]).await?;
    }
    if w.ctx.db.engine() == Engine::Postgres {
        Veil::new(w.ctx.vault.clone(), north).over(cover, def, &mut found)?;
    }
    exec(w, NO_TEXTS, vec![rid.into()]).await?;
    exec(w, NO_HASHES, vec![rid.into()]).await?;
    for (k, norm) in &found.strings {
        exec(w, TEXT, vec![(*k).into(), norm.into(), rid.into()]).await?;
    }
    for (k, hash) in &found.hashes {
        exec(w, HASH, vec![(*k).into(), (*hash).into(), rid.into()]).await?;
    }
    Ok(rid)
}

async fn ids(fhir: &Fhir, tenant: TenantId, ty: &str, query: &str) -> Result<Vec<Value>> {
    let found = fhir.list(tenant, ty, query).await?;
    Ok(found.iter().map(|r| r["id"].clone()).collect())
}

#[tokio::test]
async fn what_older_releases_wrote_is_sealed_and_found_as_before() {
    on_both_engines(&[crate::MIGRATIONS], |w| {
        Box::pin(async move {
            let (north, fhir) = (w.north.id, Fhir::new(w.ctx.clone()));
            let person = |family: &str| json!([{"family": family, "given": ["Ida"]}]);
            let patient = json!({"resourceType": "Patient", "name": person("Quillfeather"),
                "identifier": [{"system": "urn:mrn", "value": "MRN-70417"}]});
            let made = fhir.create(north, "t", patient.clone()).await.map_err(Error::from)?;
            let mut second = patient;
            second["id"] = json!(made.id);
            second["birthDate"] = json!("1970-01-01");
            fhir.update(north, "t", &made.id, second, None)
                .await
                .map_err(Error::from)?;
            let doctor = json!({"resourceType": "Practitioner", "name": person("Quilldoctor")});
            let doctor = fhir.create(north, "t", doctor).await.map_err(Error::from)?;
            let house = json!({"resourceType": "Organization", "name": "Quillhouse"});
            let house = fhir.create(north, "t", house).await.map_err(Error::from)?;

            // The first release: body, history, identifier and name in clear. The second: names outside of records.
            let old = age(w, &fhir, "Patient", &made.id, Cover::NONE).await?;
            let first = fhir
                .read(north, &Access::All, "Patient", &made.id)
                .await
                .map_err(Error::from)?;
            let packed = codec::compress(first.json())?;
            exec(w, VERSION, vec![old.into(), 1.into(), packed.into()]).await?;
            age(w, &fhir, "Organization", &house.id, Cover::NONE).await?;
            let half = Cover {
                records: true,
                others: false,
            };
            age(w, &fhir, "Practitioner", &doctor.id, half).await?;
            let clear = legible(&w.columns().await?, &["quillfeather", "quilldoctor", "quillhouse"]);
            let on_postgres = w.ctx.db.engine() == Engine::Postgres;
            let named = clear.iter().filter(|c| c.starts_with("fhir_str.")).count();
            assert_eq!(named, if on_postgres { 3 } else { 0 }, "{clear:?}");
            assert!(w.ctx.db.query_one(north, OPEN, &[]).await?.i64(0)? >= 3);

            // Somebody writes the row before the sweep comes to it.
            let mut changed = doctor.value()?;
            changed["active"] = json!(true);
            fhir.update(north, "t", &doctor.id, changed, None)
                .await
                .map_err(Error::from)?;
            assert_eq!(
                ids(&fhir, north, "Practitioner", "family=quilld").await?,
                [json!(doctor.id)]
            );
            age(w, &fhir, "Practitioner", &doctor.id, half).await?;

            // Two bodies, one earlier version; and the doctor's index rows, where such are blinded.
            assert_eq!(fhir.reseal(north).await?, if on_postgres { 4 } else { 3 });
            assert_eq!(fhir.reseal(north).await?, 0, "nothing is left");
            assert_eq!(w.ctx.db.query_one(north, OPEN, &[]).await?.i64(0)?, 0);
            let clear = legible(
                &w.columns().await?,
                &["quillfeather", "quilldoctor", "quillhouse", "MRN-70417"],
            );
            assert_eq!(clear, Vec::<String>::new());
            let again = fhir
                .read(north, &Access::All, "Patient", &made.id)
                .await
                .map_err(Error::from)?;
            assert_eq!(again.json(), first.json(), "body, version and time as they were");
            for (ty, query, id) in [
                ("Patient", "family=quillf", &made.id),
                ("Patient", "family:exact=Quillfeather", &made.id),
                ("Patient", "identifier=urn:mrn|MRN-70417", &made.id),
                ("Practitioner", "given=ida", &doctor.id),
                ("Organization", "name=quillhouse", &house.id),
            ] {
                assert_eq!(ids(&fhir, north, ty, query).await?, [json!(id)], "{ty}?{query}");
            }
            let progress = vault::progress(&w.ctx.db, north).await?;
            assert!(
                progress.len() == 2 && progress.iter().all(|p| p.done_at.is_some()),
                "{progress:?}"
            );
            // Nobody else writes in clear: a day later it is looked once more, and then never again.
            let day = 24 * 3_600_000;
            for (found, later) in [(1, day), (1, day), (0, day), (0, 0)] {
                if found == 1 {
                    age(w, &fhir, "Organization", &house.id, Cover::NONE).await?;
                }
                assert_eq!(fhir.reseal(north).await?, found);
                w.ctx.clock.advance(later);
            }
            assert_eq!(fhir.reseal(north).await?, 0);
            assert!(vault::is_settled(&w.ctx.db, north, "fhir_res").await?);
            assert!(vault::is_settled(&w.ctx.db, north, "fhir_hist").await?);
            // And what is erased afterwards takes the swept versions with it.
            fhir.erase_patient(north, &made.id, "t", &()).await?;
            assert!(fhir.find(north, "Patient", &made.id).await?.is_none());
            Ok(())
        })
    })
    .await;
}
