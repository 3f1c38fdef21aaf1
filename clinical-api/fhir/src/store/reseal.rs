//! Rows of an older release as they are written today: their bodies sealed, their index rows blinded. What the resource
//! says, its version and its time stay as they are.

use super::{Cover, Exec, Shelf, about, intern::State, sealed, stored_all};
use crate::{
    codec,
    definitions::Definitions,
    index::{Batch, Rows},
    outcome::Failure,
};
use medtech_kernel::{Tx, Val, db::Engine};
use std::sync::Arc;

/// Rows of one transaction: while it runs, other writers of the clinic wait.
const BATCH: usize = 50;

const OLD: &str = "SELECT rid, ver, upd, del, ord, dict, body, ty FROM fhir_res
    WHERE tenant = $1 AND rid > $2 AND dict < $3 AND del = 0 AND body IS NOT NULL ORDER BY rid LIMIT $4";
const SEAL: &str = "UPDATE fhir_res SET dict = $4, body = $5 WHERE tenant = $1 AND rid = $2 AND ver = $3";
const OLD_VERSIONS: &str = "SELECT h.rid, h.ver, h.upd, 0, 0, h.dict, h.body, r.ty FROM fhir_hist h
    JOIN fhir_res r ON r.tenant = h.tenant AND r.rid = h.rid
    WHERE h.tenant = $1 AND (h.rid > $2 OR (h.rid = $2 AND h.ver > $3)) AND h.dict < $4 AND h.op <> 3
    AND h.body IS NOT NULL ORDER BY h.rid, h.ver LIMIT $5";
const SEAL_VERSION: &str = "UPDATE fhir_hist SET dict = $4, body = $5 WHERE tenant = $1 AND rid = $2 AND ver = $3";

fn limit() -> Val {
    i64::try_from(BATCH).unwrap_or(i64::MAX).into()
}

/// The bodies after a row, and their index rows: how many were mended, and the last one unless that was all.
pub(crate) async fn bodies(
    tx: &mut Tx,
    shelf: &Arc<Shelf>,
    base: &str,
    after: i64,
) -> Result<(u64, Option<i64>), Failure> {
    // On SQLite nothing is blinded, so there is only the body to seal.
    let below = match tx.engine() {
        Engine::Sqlite => sealed::SEALED,
        Engine::Postgres => sealed::VEILED,
    };
    let rows = tx.query(OLD, &[after.into(), below.into(), limit()]).await?;
    let found = stored_all(&mut Exec::Tx(tx), &rows).await?;
    let (mut state, mut batch, mut mended) = (State::default(), Batch::default(), 0);
    for (row, stored) in rows.iter().zip(&found) {
        let number = row.i64(7)?;
        let def = Definitions::get().resources().iter().find(|d| d.number == number);
        // One whose key was destroyed is taken away at the next start.
        let Some(def) = def.filter(|_| !stored.deleted) else {
            continue;
        };
        let [dict, body] = if stored.cover.records {
            let kept = row.opt_blob(6)?.map(<[u8]>::to_vec);
            [(row.i64(5)? | sealed::VEILED).into(), Val::from(kept)]
        } else {
            let patients = about(def, &stored.id(shelf, def.name), &stored.body, base);
            let packed = codec::compress(&stored.body)?;
            match sealed::seal(tx, &patients, stored.rid, stored.version, &packed).await {
                Err(e) if e.code == "vault.erased" => continue,
                other => other?,
            }
        };
        if let Some(veil) = &shelf.veil {
            let as_it_was = def.plan().run(&stored.value()?, base);
            state.intern(tx, shelf, &as_it_was).await?;
            let (mut old, mut new) = (as_it_was.clone(), as_it_was);
            veil.over(stored.cover, def, &mut old)?;
            veil.over(Cover::ALL, def, &mut new)?;
            let built = |found| Rows::build(def, stored.rid, stored.updated, found, &state.names);
            batch.change(stored.rid, Some(built(&old)), Some(built(&new)));
        }
        tx.exec(SEAL, &[stored.rid.into(), stored.version.into(), dict, body])
            .await?;
        mended += 1;
    }
    batch.write(tx).await?;
    state.publish(tx, shelf);
    let last = found.last().filter(|_| rows.len() == BATCH).map(|s| s.rid);
    Ok((mended, last))
}

/// A place in the history: row and version.
type History = (i64, i64);

/// The same for earlier versions, which have no index rows.
pub(crate) async fn history(
    tx: &mut Tx,
    shelf: &Shelf,
    base: &str,
    after: History,
) -> Result<(u64, Option<History>), Failure> {
    let args = [after.0.into(), after.1.into(), sealed::SEALED.into(), limit()];
    let rows = tx.query(OLD_VERSIONS, &args).await?;
    let found = stored_all(&mut Exec::Tx(tx), &rows).await?;
    let mut mended = 0;
    for (row, stored) in rows.iter().zip(&found) {
        let number = row.i64(7)?;
        let Some(def) = Definitions::get().resources().iter().find(|d| d.number == number) else {
            continue;
        };
        let patients = about(def, &stored.id(shelf, def.name), &stored.body, base);
        let packed = codec::compress(&stored.body)?;
        let [dict, body] = match sealed::seal(tx, &patients, stored.rid, stored.version, &packed).await {
            Err(e) if e.code == "vault.erased" => continue,
            other => other?,
        };
        tx.exec(SEAL_VERSION, &[stored.rid.into(), stored.version.into(), dict, body])
            .await?;
        mended += 1;
    }
    let last = found.last().filter(|_| rows.len() == BATCH).map(|s| (s.rid, s.version));
    Ok((mended, last))
}
