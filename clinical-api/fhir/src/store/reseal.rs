//! Rows of an older release as they are written today: their bodies sealed, their index rows blinded. What the resource
//! says, its version and its time stay as they are.

use super::{Cover, Exec, Shelf, about, intern::State, sealed, stored_all};
use crate::{
    codec,
    definitions::Definitions,
    index::{Batch, Rows},
    outcome::Failure,
};
use medtech_kernel::{Db, Error, Result, Row, TenantId, Tx, Val, db::Engine};
use std::sync::Arc;

/// Rows that are looked at with one question, beside the writers.
const RANGE: usize = 1000;

const LOOK: &str = "SELECT rid, dict < $3 AND del = 0 AND body IS NOT NULL FROM fhir_res
    WHERE tenant = $1 AND rid > $2 ORDER BY rid LIMIT $4";
const OLD: &str = "SELECT rid, ver, upd, del, ord, dict, body, ty FROM fhir_res
    WHERE tenant = $1 AND rid = $2 AND dict < $3 AND del = 0 AND body IS NOT NULL";
const SEAL: &str = "UPDATE fhir_res SET dict = $4, body = $5 WHERE tenant = $1 AND rid = $2 AND ver = $3";
const LOOK_AT_VERSIONS: &str = "SELECT rid, ver, dict < $4 AND op <> 3 AND body IS NOT NULL FROM fhir_hist
    WHERE tenant = $1 AND (rid, ver) > ($2, $3) ORDER BY rid, ver LIMIT $5";
const OLD_VERSION: &str = "SELECT h.rid, h.ver, h.upd, 0, 0, h.dict, h.body, r.ty FROM fhir_hist h
    JOIN fhir_res r ON r.tenant = h.tenant AND r.rid = h.rid
    WHERE h.tenant = $1 AND h.rid = $2 AND h.ver = $3 AND h.dict < $4 AND h.op <> 3 AND h.body IS NOT NULL";
const SEAL_VERSION: &str = "UPDATE fhir_hist SET dict = $4, body = $5 WHERE tenant = $1 AND rid = $2 AND ver = $3";

/// A place in the history: row and version.
pub(crate) type History = (i64, i64);

/// On SQLite nothing is blinded, so there is only the body to seal.
fn below(engine: Engine) -> Val {
    match engine {
        Engine::Sqlite => sealed::SEALED,
        Engine::Postgres => sealed::VEILED,
    }
    .into()
}

fn limit() -> Val {
    i64::try_from(RANGE).unwrap_or(i64::MAX).into()
}

/// Of the next rows after one, those that are not as we write them; and the last one, unless that was all.
pub(crate) async fn open_bodies(db: &Db, tenant: TenantId, after: i64) -> Result<(Vec<i64>, Option<i64>)> {
    let args = [after.into(), below(db.engine()), limit()];
    let rows = db.query(tenant, LOOK, &args).await?;
    let mut open = Vec::new();
    for row in &rows {
        if row.bool(1)? {
            open.push(row.i64(0)?);
        }
    }
    let last = rows.last().filter(|_| rows.len() == RANGE);
    Ok((open, last.map(|row| row.i64(0)).transpose()?))
}

/// The same of earlier versions.
pub(crate) async fn open_versions(
    db: &Db,
    tenant: TenantId,
    after: History,
) -> Result<(Vec<History>, Option<History>)> {
    let args = [after.0.into(), after.1.into(), sealed::SEALED.into(), limit()];
    let rows = db.query(tenant, LOOK_AT_VERSIONS, &args).await?;
    let place = |row: &Row| Ok::<_, Error>((row.i64(0)?, row.i64(1)?));
    let mut open = Vec::new();
    for row in &rows {
        if row.bool(2)? {
            open.push(place(row)?);
        }
    }
    let last = rows.last().filter(|_| rows.len() == RANGE);
    Ok((open, last.map(place).transpose()?))
}

/// Seals those of these bodies that are still open, and blinds their index rows; answers how many were.
pub(crate) async fn seal_bodies(tx: &mut Tx, shelf: &Arc<Shelf>, base: &str, rids: &[i64]) -> Result<u64, Failure> {
    let mut rows = Vec::with_capacity(rids.len());
    for rid in rids {
        let below = below(tx.engine());
        rows.extend(tx.query_opt(OLD, &[(*rid).into(), below]).await?);
    }
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
    Ok(mended)
}

/// The same for earlier versions, which have no index rows.
pub(crate) async fn seal_versions(tx: &mut Tx, shelf: &Shelf, base: &str, places: &[History]) -> Result<u64, Failure> {
    let mut rows = Vec::with_capacity(places.len());
    for (rid, version) in places {
        let args = [(*rid).into(), (*version).into(), sealed::SEALED.into()];
        rows.extend(tx.query_opt(OLD_VERSION, &args).await?);
    }
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
    Ok(mended)
}
