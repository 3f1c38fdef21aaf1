//! Digests of what was written: an entry of the trail carries the SHA-256 of every version it tells of, so that a store can be held
//! against the chain. Each store does that for what it holds; what they have in common is here.

use crate::{Db, Result, Row, TenantId, clock::Millis};
use serde::Serialize;
use std::fmt;

/// More differences than a person will look at.
const MOST: usize = 100;

const WRITTEN: &str = "SELECT seq, at, action, target, detail, patient, digest FROM audit
    WHERE tenant = $1 AND seq > $2 AND seq <= $3 AND digest IS NOT NULL ORDER BY seq";
const ERASED: &str = "SELECT target, at FROM audit
    WHERE tenant = $1 AND action = 'delete' AND detail = 'erased' AND outcome = 'success' ORDER BY seq";
const LAST: &str = "SELECT COALESCE(MAX(seq), 0) FROM audit WHERE tenant = $1";

/// An entry that tells of a writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub seq: i64,
    pub at: Millis,
    pub action: String,
    pub target: String,
    pub detail: String,
    pub patient: Option<String>,
    digest: Vec<u8>,
}

impl Written {
    /// The digests, in the order of the detail.
    pub fn digests(&self) -> impl Iterator<Item = [u8; 32]> {
        self.digest.chunks(32).map(super::as_hash)
    }
}

/// The entries with digests after number `after`, up to `until`, oldest first. Ask for a few thousand numbers at once.
pub async fn written(db: &Db, tenant: TenantId, after: i64, until: i64) -> Result<Vec<Written>> {
    // On SQLite nothing here waits: let others have the thread.
    tokio::task::yield_now().await;
    let rows = db.query(tenant, WRITTEN, &[after.into(), until.into()]).await?;
    rows.iter().map(of_row).collect()
}

/// What the trail says was erased (its key destroyed) and when, of keys whose names begin with `kind`.
pub async fn erased(db: &Db, tenant: TenantId, kind: &str) -> Result<Vec<(String, Millis)>> {
    let rows = db.query(tenant, ERASED, &[]).await?;
    let mut all = Vec::new();
    for row in &rows {
        if let Some(subject) = row.text(0)?.strip_prefix(kind) {
            all.push((subject.to_owned(), row.i64(1)?));
        }
    }
    Ok(all)
}

/// The number of the last entry.
pub async fn end(db: &Db, tenant: TenantId) -> Result<i64> {
    db.query_one(tenant, LAST, &[]).await?.i64(0)
}

fn of_row(row: &Row) -> Result<Written> {
    Ok(Written {
        seq: row.i64(0)?,
        at: row.i64(1)?,
        action: row.string(2)?,
        target: row.string(3)?,
        detail: row.string(4)?,
        patient: row.opt_text(5)?.map(str::to_owned),
        digest: row.blob(6)?.to_vec(),
    })
}

/// What is wrong with something that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It is not what was written.
    Altered,
    /// It is gone, and nobody deleted or erased it.
    Lost,
    /// It stands there, and no entry tells of its writing.
    Invented,
    /// It was erased, and is there again.
    BroughtBack,
    /// It cannot be opened.
    Unreadable,
}

/// One thing that is not as the chain says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `Observation/{id}/_history/{version}`, `Message/{id}`, `File/{id}`.
    pub what: String,
    pub fault: Fault,
    /// The entry that tells of its writing.
    pub seq: Option<i64>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, seq) = (&self.what, self.seq.unwrap_or_default());
        match self.fault {
            Fault::Altered => write!(f, "{what} is not what entry {seq} says was written"),
            Fault::Lost => write!(
                f,
                "{what}, which entry {seq} says was written, is gone; nobody deleted it"
            ),
            Fault::Invented => write!(f, "{what} stands there, and no entry tells of its writing"),
            Fault::BroughtBack => write!(f, "{what} of entry {seq} was erased, and is there again"),
            Fault::Unreadable => write!(f, "{what} of entry {seq} cannot be opened"),
        }
    }
}

/// What came of holding a store against the chain.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Held {
    /// As written.
    pub right: i64,
    /// Gone because their patient was erased, or because somebody deleted them.
    pub erased: i64,
    /// From before digests were kept.
    pub uncovered: i64,
    pub wrong: i64,
    /// At most 100; there may be more.
    pub differences: Vec<Difference>,
}

impl Held {
    pub fn differs(&mut self, what: String, fault: Fault, seq: Option<i64>) {
        self.wrong += 1;
        if self.differences.len() < MOST {
            self.differences.push(Difference { what, fault, seq });
        }
    }
}
