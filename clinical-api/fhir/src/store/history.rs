//! Versions: one, those of a resource, those of a type.

use super::{Bodies, Exec, Op, Shelf, Stored, current};
use crate::{codec, definitions::ResourceDef};
use medtech_kernel::Result;

/// One version of a resource.
pub(crate) struct Version {
    pub(crate) stored: Stored,
    pub(crate) op: Op,
    /// Its place in the log, where the history of a type was asked for.
    pub(crate) seq: i64,
}

const ONE: &str = "SELECT rid, ver, upd, op, dict, body FROM fhir_hist WHERE tenant = $1 AND rid = $2 AND ver = $3";
const OLDER: &str = "SELECT rid, ver, upd, op, dict, body FROM fhir_hist WHERE tenant = $1 AND rid = $2 AND ver < $3 ORDER BY ver DESC LIMIT $4";
const OF_TYPE: &str = "SELECT l.rid, l.ver, l.at, l.op, h.dict, h.body, l.seq, r.dict, r.body, r.ver FROM (
        SELECT rid, ver, at, op, seq FROM fhir_log WHERE tenant = $1 AND ty = $2 AND seq < $3 AND at >= $4 ORDER BY seq DESC LIMIT $5) l
    LEFT JOIN fhir_hist h ON h.tenant = $1 AND h.rid = l.rid AND h.ver = l.ver
    LEFT JOIN fhir_res r ON r.tenant = $1 AND r.rid = l.rid AND r.ver = l.ver ORDER BY l.seq DESC";

fn op_of(now: &Stored) -> Op {
    match now {
        Stored { deleted: true, .. } => Op::Delete,
        Stored { version: 1, .. } => Op::Create,
        _ => Op::Update,
    }
}

fn old(bodies: &Bodies, row: &medtech_kernel::Row) -> Result<Version> {
    let op = Op::parse(row.i64(3)?);
    let body = bodies.body(row, 5, row.i64(0)?, row.i64(1)?)?;
    let stored = Stored {
        rid: row.i64(0)?,
        version: row.i64(1)?,
        updated: row.i64(2)?,
        deleted: op == Op::Delete || body.is_none(),
        cover: super::Cover::NONE,
        body: body.unwrap_or_default(),
    };
    Ok(Version { stored, op, seq: 0 })
}

/// One version; `None` when there never was such a one.
pub(crate) async fn version(exec: &mut Exec<'_>, def: &ResourceDef, rid: i64, number: i64) -> Result<Option<Version>> {
    let Some(now) = current(exec, def, rid).await? else {
        return Ok(None);
    };
    if now.version == number {
        let op = op_of(&now);
        return Ok(Some(Version {
            stored: now,
            op,
            seq: 0,
        }));
    }
    let rows = exec.query(ONE, &[rid.into(), number.into()]).await?;
    let bodies = Bodies::of(exec, &rows, &[5]).await?;
    rows.first().map(|row| old(&bodies, row)).transpose()
}

/// Versions older than `below` (exclusive), newest first.
pub(crate) async fn instance_history(
    exec: &mut Exec<'_>,
    def: &ResourceDef,
    rid: i64,
    below: i64,
    count: i64,
) -> Result<Option<Vec<Version>>> {
    let Some(now) = current(exec, def, rid).await? else {
        return Ok(None);
    };
    let mut all = Vec::new();
    if now.version < below {
        let op = op_of(&now);
        all.push(Version {
            stored: now,
            op,
            seq: 0,
        });
    }
    let left = count - i64::try_from(all.len()).unwrap_or(0);
    let rows = exec.query(OLDER, &[rid.into(), below.into(), left.into()]).await?;
    let bodies = Bodies::of(exec, &rows, &[5]).await?;
    for row in &rows {
        all.push(old(&bodies, row)?);
    }
    Ok(Some(all))
}

/// Changes of a type before `below` in the log, newest first.
pub(crate) async fn type_history(
    exec: &mut Exec<'_>,
    def: &ResourceDef,
    below: i64,
    since: i64,
    count: i64,
) -> Result<Vec<Version>> {
    let rows = exec
        .query(OF_TYPE, &[def.number.into(), below.into(), since.into(), count.into()])
        .await?;
    let bodies = Bodies::of(exec, &rows, &[5, 8]).await?;
    rows.iter()
        .map(|row| {
            let op = Op::parse(row.i64(3)?);
            let at = if row.opt_i64(9)?.is_some() { 8 } else { 5 };
            let body = bodies.body(row, at, row.i64(0)?, row.i64(1)?)?;
            let stored = Stored {
                rid: row.i64(0)?,
                version: row.i64(1)?,
                updated: row.i64(2)?,
                deleted: op == Op::Delete || body.is_none(),
                cover: super::Cover::NONE,
                body: body.unwrap_or_default(),
            };
            Ok(Version {
                stored,
                op,
                seq: row.i64(6)?,
            })
        })
        .collect()
}

impl Version {
    pub(crate) fn id(&self, shelf: &Shelf, ty: &str) -> String {
        codec::client_id(ty, &self.stored.body).map_or_else(|| shelf.ids.id(self.stored.rid), str::to_owned)
    }
}
