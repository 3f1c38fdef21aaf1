//! Bodies at rest: compressed, then sealed under the key of the patient they are about, or else the clinic's. A body
//! belongs to its row number and version and opens nowhere else, so the history takes its bytes as they are.

use super::{Cover, Exec};
use crate::codec;
use medtech_kernel::{
    Result, Row, Tx, Val,
    vault::{self, Door, Keys, Scope},
};

/// Added to the number of the dictionary: the body is sealed, and so is what the index says of records.
pub(crate) const SEALED: i64 = 1 << 16;
/// Added besides: the index rows of every type are blinded, where they are.
pub(crate) const VEILED: i64 = 1 << 17;

/// What the columns `dict` and `body` get. Whatever is in the records of several patients is the clinic's: erasing one
/// of them must not take the others' away.
pub(crate) async fn seal(tx: &mut Tx, patients: &[String], rid: i64, version: i64, packed: &[u8]) -> Result<[Val; 2]> {
    let scope = match patients {
        [one] => Scope::patient(one),
        _ => Scope::TENANT,
    };
    let sealed = tx.seal(scope, &place(rid, version), packed).await?;
    Ok([(codec::CURRENT | SEALED | VEILED).into(), sealed.into()])
}

/// What the index rows of the body at this column look like.
pub(crate) fn cover(row: &Row, at: usize) -> Result<Cover> {
    let dict = row.opt_i64(at - 1)?.unwrap_or_default();
    Ok(Cover {
        records: dict & SEALED != 0,
        others: dict & VEILED != 0,
    })
}

fn place(rid: i64, version: i64) -> String {
    format!("fhir/{rid}/{version}")
}

/// The keys of some rows, each of which has a body at one of the columns `at` (and its dictionary before it).
pub(crate) struct Bodies(Keys);

impl Bodies {
    pub(crate) async fn of(exec: &mut Exec<'_>, rows: &[Row], at: &[usize]) -> Result<Self> {
        let mut ids = Vec::new();
        for row in rows {
            for at in at {
                if let Some(dict) = row.opt_i64(at - 1)?.filter(|d| d & SEALED != 0)
                    && let Some(bytes) = row.opt_blob(*at)?
                {
                    debug_assert!(dict > 0, "a dictionary has a number");
                    ids.extend(vault::key_id(bytes));
                }
            }
        }
        let door = match exec {
            Exec::Db(db, tenant) => Door::Db(db, *tenant),
            Exec::Tx(tx) => Door::Tx(tx),
        };
        vault::keys(door, ids).await.map(Self)
    }

    /// The stored form; empty where nothing is left, `None` where its key was destroyed.
    pub(crate) fn body(&self, row: &Row, at: usize, rid: i64, version: i64) -> Result<Option<String>> {
        let Some(bytes) = row.opt_blob(at)? else {
            return Ok(Some(String::new()));
        };
        let dict = row.i64(at - 1)?;
        // Written before bodies were sealed.
        if dict & SEALED == 0 {
            return codec::decompress(dict, bytes).map(Some);
        }
        match self.0.open(&place(rid, version), bytes) {
            Ok(packed) => codec::decompress(dict & !(SEALED | VEILED), &packed).map(Some),
            Err(e) if e.code == "vault.erased" => Ok(None),
            Err(e) => Err(e),
        }
    }
}
