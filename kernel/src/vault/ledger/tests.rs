//! An erasure under way is its own: nobody who looks after the ledger finishes it, unless whoever began it is gone.

use super::*;
use crate::{
    testkit::on_both_engines,
    vault::tests::{another, open, seal},
};

/// Who was audited for the destruction of a patient's key.
async fn erasers(db: &Db, tenant: TenantId, patient: &str) -> Result<Vec<String>> {
    let filter = audit::Filter {
        action: Some("delete".into()),
        ..audit::Filter::default()
    };
    let all = audit::page(db, tenant, &filter, 100).await?;
    let target = format!("key:patient/{patient}");
    Ok(all
        .into_iter()
        .filter(|e| e.target == target)
        .map(|e| e.actor)
        .collect())
}

#[tokio::test]
async fn an_erasure_under_way_is_not_finished_by_whoever_looks_after_the_keys() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (db, vault, north) = (&w.ctx.db, &w.ctx.vault, w.north.id);
            let sealed = seal(db, north, "p1", "", "still needed").await?;
            let under_way = vault.announce(db, north, Scope::patient("p1")).await?;
            // Another erasure calls for a look at the ledger: in this process, in one beside it, and on another server.
            seal(db, north, "p2", "", "x").await?;
            vault.shred(db, north, Scope::patient("p2"), "user:admin").await?;
            vault.reload(db).await?;
            vault.0.seen.write().unwrap().2 = -1;
            vault.refresh(db).await?;
            let beside = another(w).await?;
            let theirs = Vault::new(w.ctx.root.clone(), Ledger::at(w.dir.path().join("theirs.jsonl")));
            theirs.load(&db.clone().with_vault(theirs.clone())).await?;
            assert_eq!(open(&beside.db, north, "", &sealed).await?, b"still needed");
            // It ends as what it is.
            assert!(vault.shred(db, north, Scope::patient("p1"), "user:admin").await?);
            drop(under_way);
            assert_eq!(open(db, north, "", &sealed).await.unwrap_err().code, "vault.erased");
            theirs.refresh(&db.clone().with_vault(theirs.clone())).await?;
            assert_eq!(theirs.ledger()?, (2, 0));
            for patient in ["p1", "p2"] {
                assert_eq!(erasers(db, north, patient).await?, ["user:admin"], "{patient}");
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn an_erasure_that_a_crash_cut_short_is_finished_at_the_next_start() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (db, north) = (&w.ctx.db, w.north.id);
            let sealed = seal(db, north, "p1", "", "gone").await?;
            drop(w.ctx.vault.announce(db, north, Scope::patient("p1")).await?);
            let next = another(w).await?;
            assert_eq!(
                open(&next.db, north, "", &sealed).await.unwrap_err().code,
                "vault.erased"
            );
            let theirs = Vault::new(w.ctx.root.clone(), Ledger::at(w.dir.path().join("theirs.jsonl")));
            theirs.load(&db.clone().with_vault(theirs.clone())).await?;
            assert_eq!(theirs.ledger()?, (1, 0));
            Ok(())
        })
    })
    .await;
}

/// A key of class `tenant` is one month's, not the whole of the clinic.
#[tokio::test]
async fn a_months_key_that_was_erased_takes_no_clinic_with_it() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (db, north) = (&w.ctx.db, w.north.id);
            let sealed = seal(db, north, "p1", "", "kept").await?;
            let month = Scope {
                class: Class::Tenant,
                subject: "1",
            };
            w.ctx.vault.shred(db, north, month, "user:admin").await?;
            let next = another(w).await?;
            assert_eq!(open(&next.db, north, "", &sealed).await?, b"kept");
            assert!(next.vault.page_key(north, 1).is_ok());
            Ok(())
        })
    })
    .await;
}
