//! The audit trail: written in the transaction of the act, each entry chained to the one before by SHA-256.
//!
//! Read in this order: this file (an entry, and the chain), [`checkpoint`] (signed statements of where the chain ended, so
//! that a cut tail is found), [`verify`] (the walk that finds what was tampered with), [`trail`] (reading it), [`refusals`] (what was refused, bounded).

mod checkpoint;
mod refusals;
mod trail;
mod verify;

pub use checkpoint::{Checkpoint, Outcome, checkpoint, checkpoint_all, keep, public_key};
pub use refusals::{NAMED, Refusal, Refusals, network};
pub use trail::{Filter, Found, about, page, range};
pub use verify::{Finding, Report, examine, verify};

use crate::{
    Result, Tx,
    clock::Millis,
    db::{Insert, Ty},
};
use aws_lc_rs::digest;

/// What happened, without clinical content: identifiers only.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Subject, as in `Principal::subject`.
    pub actor: &'a str,
    /// `create`, `read`, `update`, `delete` or `execute` (FHIR audit-event-action).
    pub action: &'static str,
    /// `Patient/{id}`, `visit:{id}`, ...
    pub target: &'a str,
    /// `success` or `denied`.
    pub outcome: &'static str,
    /// Route or query shape, never values.
    pub detail: &'a str,
}

const LAST: &str = "SELECT seq, hash FROM audit WHERE tenant = $1 ORDER BY seq DESC LIMIT 1";
static APPEND: Insert = Insert::new(
    "audit",
    &[
        ("seq", Ty::I64),
        ("at", Ty::I64),
        ("actor", Ty::Text),
        ("action", Ty::Text),
        ("target", Ty::Text),
        ("outcome", Ty::Text),
        ("detail", Ty::Text),
        ("patient", Ty::Text),
        ("hash", Ty::Blob),
    ],
);
/// On PostgreSQL two transactions of a tenant must not chain to the same entry.
const LOCK: &str = "SELECT pg_advisory_xact_lock(1635083369, $1::int)";

/// Appends an entry to the tenant's chain. One whose target is `Patient/{id}` is about that patient.
pub async fn write(tx: &mut Tx, entry: Entry<'_>) -> Result<()> {
    write_all(tx, &[(entry, None)]).await
}

/// Appends entries in order; each may say whose record it is about (the logical id of the Patient).
pub async fn write_all(tx: &mut Tx, entries: &[(Entry<'_>, Option<&str>)]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    if tx.engine() == crate::db::Engine::Postgres {
        tx.query(LOCK, &[]).await?;
    }
    let (mut seq, mut hash) = match tx.query_opt(LAST, &[]).await? {
        Some(row) => (row.i64(0)?, as_hash(row.blob(1)?)),
        None => (0, [0; 32]),
    };
    let at = tx.now();
    let mut values = Vec::with_capacity(entries.len() * APPEND.columns.len());
    let mut bytes = Vec::with_capacity(512);
    for (entry, patient) in entries {
        let patient = patient.or_else(|| entry.target.strip_prefix("Patient/").filter(|id| !id.contains('/')));
        // Nobody has written so many; whoever forged such a number is found by the walk.
        seq = seq
            .checked_add(1)
            .ok_or_else(|| crate::Error::internal("audit.full", "the chain ends with the last number there is"))?;
        hash = Linked {
            seq,
            at,
            fields: [entry.actor, entry.action, entry.target, entry.outcome, entry.detail],
            patient,
        }
        .hash(&hash, &mut bytes);
        values.extend([
            seq.into(),
            at.into(),
            entry.actor.into(),
            entry.action.into(),
            entry.target.into(),
            entry.outcome.into(),
            entry.detail.into(),
            patient.into(),
            hash.into(),
        ]);
    }
    tx.insert(&APPEND, &values).await.map(|_| ())
}

/// What an entry's hash is over, besides the entry before.
struct Linked<'a> {
    seq: i64,
    at: Millis,
    /// Actor, action, target, outcome, detail.
    fields: [&'a str; 5],
    patient: Option<&'a str>,
}

impl Linked<'_> {
    /// Each field is preceded by its length, so that no two entries have the same bytes. The first byte tells entries with
    /// a patient from those without: one cannot be turned into the other.
    fn hash(&self, previous: &[u8; 32], bytes: &mut Vec<u8>) -> [u8; 32] {
        bytes.clear();
        bytes.push(u8::from(self.patient.is_some()));
        bytes.extend_from_slice(previous);
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.at.to_be_bytes());
        for field in self.fields.iter().chain(&self.patient) {
            bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
            bytes.extend_from_slice(field.as_bytes());
        }
        as_hash(digest::digest(&digest::SHA256, bytes).as_ref())
    }
}

/// What is not 32 bytes long was not written by us and matches nothing.
fn as_hash(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap_or([0xff; 32])
}
