//! Every version as it lies in the store, reduced to what it takes to hold it against the audit trail.

use super::{Exec, Shelf, sealed::Bodies};
use crate::{codec, definitions::Definitions, held::VERSION};
use medtech_kernel::{Db, Result, Row, TenantId, clock::Millis};
use std::ops::Range;

/// Rows read at once.
const PAGE: i64 = 500;

const EXTENT: &str =
    "SELECT (SELECT COUNT(*) FROM fhir_res WHERE tenant = $1) + (SELECT COUNT(*) FROM fhir_hist WHERE tenant = $1),
    (SELECT COALESCE(MAX(rid), 0) FROM fhir_res WHERE tenant = $1)";
const NOW: &str = "SELECT rid, ver, upd, del, dict, body, ty FROM fhir_res
    WHERE tenant = $1 AND rid > $2 AND rid < $3 ORDER BY rid LIMIT $4";
const BEFORE: &str =
    "SELECT h.rid, h.ver, h.upd, CASE WHEN h.op = 3 THEN 1 ELSE 0 END, h.dict, h.body, r.ty FROM fhir_hist h
    LEFT JOIN fhir_res r ON r.tenant = h.tenant AND r.rid = h.rid
    WHERE h.tenant = $1 AND h.rid >= $2 AND (h.rid > $2 OR h.ver > $3) AND h.rid < $4 ORDER BY h.rid, h.ver LIMIT $5";

/// What there is of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Of the stored form, as the trail has it.
    Digest([u8; 32]),
    /// Its key was destroyed.
    Shredded,
    /// It does not open, or is no body.
    Broken,
}

/// One version.
pub(crate) struct Checked {
    pub(crate) rid: i64,
    pub(crate) version: i64,
    pub(crate) updated: Millis,
    pub(crate) deleted: bool,
    /// The number of the resource's type; `None` for a history whose resource is gone.
    pub(crate) ty: Option<i64>,
    pub(crate) left: Left,
    /// The stored form is empty.
    pub(crate) empty: bool,
    /// The id that a client chose, where the body says it.
    client: Option<String>,
}

impl Checked {
    /// `Type/id`
    pub(crate) fn name(&self, shelf: &Shelf) -> String {
        let def = Definitions::get()
            .resources()
            .iter()
            .find(|d| Some(d.number) == self.ty);
        let id = self.client.clone().unwrap_or_else(|| shelf.ids.id(self.rid));
        format!("{}/{id}", def.map_or("?", |d| d.name))
    }
}

/// How many versions there are, and the last row number.
pub(crate) async fn extent(db: &Db, tenant: TenantId) -> Result<(i64, i64)> {
    let row = db.query_one(tenant, EXTENT, &[]).await?;
    Ok((row.i64(0)?, row.i64(1)?))
}

/// Every version of the rows with numbers in this range: first the current ones, then the history.
pub(crate) async fn checked(
    db: &Db,
    tenant: TenantId,
    rids: Range<i64>,
    each: &mut (dyn FnMut(Checked) + Send),
) -> Result<()> {
    let mut after = rids.start.saturating_sub(1);
    loop {
        let args = [after.into(), rids.end.into(), PAGE.into()];
        let rows = db.query(tenant, NOW, &args).await?;
        let Some(last) = rows.last() else { break };
        after = last.i64(0)?;
        all(db, tenant, &rows, each).await?;
    }
    let mut after = (rids.start, i64::MIN);
    loop {
        let args = [after.0.into(), after.1.into(), rids.end.into(), PAGE.into()];
        let rows = db.query(tenant, BEFORE, &args).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = (last.i64(0)?, last.i64(1)?);
        all(db, tenant, &rows, each).await?;
    }
}

async fn all(db: &Db, tenant: TenantId, rows: &[Row], each: &mut (dyn FnMut(Checked) + Send)) -> Result<()> {
    let bodies = Bodies::of(&mut Exec::Db(db, tenant), rows, &[5]).await?;
    for row in rows {
        let (rid, version, ty) = (row.i64(0)?, row.i64(1)?, row.opt_i64(6)?);
        let body = bodies.body(row, 5, rid, version);
        let def = Definitions::get().resources().iter().find(|d| Some(d.number) == ty);
        let client = match (&body, def) {
            (Ok(Some(body)), Some(def)) => codec::client_id(def.name, body).map(str::to_owned),
            _ => None,
        };
        each(Checked {
            rid,
            version,
            updated: row.i64(2)?,
            deleted: row.i64(3)? != 0,
            ty,
            empty: matches!(&body, Ok(Some(body)) if body.is_empty()),
            left: match body {
                Ok(Some(body)) => Left::Digest(db.vault()?.blind(tenant, VERSION, &body)?),
                Ok(None) => Left::Shredded,
                Err(_) => Left::Broken,
            },
            client,
        });
    }
    // On SQLite nothing above waits: let others have the thread.
    tokio::task::yield_now().await;
    Ok(())
}
