//! The store: one write path, reads by id, history.

mod checked;
mod exec;
mod fields;
mod history;
mod intern;
mod reseal;
mod sealed;
mod shelf;
mod veil;
mod write;

pub(crate) use checked::{Checked, Left, checked, extent};
pub(crate) use exec::Exec;
pub(crate) use history::{Version, instance_history, type_history, version};
pub(crate) use reseal::{History, open_bodies, open_versions, seal_bodies, seal_versions};
pub(crate) use shelf::{Shelf, resolve};
pub(crate) use veil::{Cover, Veil};
pub(crate) use write::{Body, By, Change, Op, Target, Written, about, apply, patients};

use crate::{codec, definitions::ResourceDef};
use medtech_kernel::{Error, Result, Row};
use sealed::Bodies;

/// A row of `fhir_res`.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) rid: i64,
    pub(crate) version: i64,
    pub(crate) updated: i64,
    pub(crate) deleted: bool,
    /// Which of its index rows are blinded, where they are.
    pub(crate) cover: Cover,
    /// The stored form; empty where nothing is left.
    pub(crate) body: String,
}

const READ: &str = "SELECT rid, ver, upd, del, ord, dict, body, ty FROM fhir_res WHERE tenant = $1 AND rid = $2";

/// The current row, whatever its state.
pub(crate) async fn current(exec: &mut Exec<'_>, def: &ResourceDef, rid: i64) -> Result<Option<Stored>> {
    match exec.query_opt(READ, &[rid.into()]).await? {
        Some(row) if row.i64(7)? == def.number => Ok(stored_all(exec, &[row]).await?.pop()),
        _ => Ok(None),
    }
}

/// Rows with the columns `rid, ver, upd, del, ord, dict, body`. One whose key was destroyed is as if deleted.
pub(crate) async fn stored_all(exec: &mut Exec<'_>, rows: &[Row]) -> Result<Vec<Stored>> {
    let bodies = Bodies::of(exec, rows, &[6]).await?;
    let one = |row: &Row| {
        let (rid, version) = (row.i64(0)?, row.i64(1)?);
        let body = bodies.body(row, 6, rid, version)?;
        Ok(Stored {
            rid,
            version,
            updated: row.i64(2)?,
            deleted: row.i64(3)? != 0 || body.is_none(),
            cover: sealed::cover(row, 6)?,
            body: body.unwrap_or_default(),
        })
    };
    rows.iter().map(one).collect()
}

impl Stored {
    /// The logical id: a client's stands in the body.
    pub(crate) fn id(&self, shelf: &Shelf, ty: &str) -> String {
        codec::client_id(ty, &self.body).map_or_else(|| shelf.ids.id(self.rid), str::to_owned)
    }

    pub(crate) fn value(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body).map_err(|e| Error::internal("fhir.body_not_json", e))
    }
}
