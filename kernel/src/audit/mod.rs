//! The audit trail: written in the transaction of the act, each entry chained to the one before by SHA-256.
//!
//! Read in this order: this file (an entry, and the chain), [`checkpoint`] (signed statements of where the chain ended, so
//! that a cut tail is found), [`verify`] (the walk that finds what was tampered with), [`trail`] (reading it), [`refusals`] (what was
//! refused, bounded), [`origin`] (from where an act came), [`written`] (digests of what was written, held against the stores).

mod checkpoint;
mod lists;
mod origin;
mod refusals;
mod trail;
mod verify;
mod written;

pub use checkpoint::{Checkpoint, Outcome, checkpoint, checkpoint_all, keep, public_key};
pub use lists::Lists;
pub use origin::Origin;
pub use refusals::{NAMED, Refusal, Refusals, network};
pub use trail::{Filter, Found, about, concerned, page, range};
pub use verify::{Finding, Report, examine, verify};
pub use written::{Difference, Fault, Held, Written, end, erased, written};

use crate::{
    Result, Tx,
    clock::Millis,
    db::{Insert, Ty},
};
use aws_lc_rs::digest;
use uuid::Uuid;

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
        ("session", Ty::Uuid),
        ("network", Ty::Text),
        ("issued", Ty::Text),
        ("digest", Ty::Blob),
        ("concerned", Ty::Blob),
    ],
);
static CONCERNED: Insert = Insert::new("audit_about", &[("seq", Ty::I64), ("patient", Ty::Text)]);
/// On PostgreSQL two transactions of a tenant must not chain to the same entry.
const LOCK: &str = "SELECT pg_advisory_xact_lock(1635083369, $1::int)";

/// An entry with what else is known of it.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    pub entry: Entry<'a>,
    /// Whose records it is about: logical ids of Patients. Several stand in a table of their own, vouched for by the entry.
    pub patients: Vec<&'a str>,
    /// HMAC-SHA-256 of what was written ([`crate::vault::Vault::blind`]), 32 bytes each, in the order of the detail. Keyed: a plain
    /// digest would let whoever reads the trail try short contents against it, also of what was erased.
    pub digest: Option<&'a [u8]>,
    /// Where it is not the transaction's own.
    pub origin: Option<&'a Origin>,
}

impl<'a> Record<'a> {
    /// One whose target is `Patient/{id}` is about that patient.
    #[must_use]
    pub fn new(entry: Entry<'a>) -> Self {
        Self {
            entry,
            patients: Vec::new(),
            digest: None,
            origin: None,
        }
    }

    /// About these patients' records as well.
    #[must_use]
    pub fn about<I: IntoIterator<Item = &'a str>>(mut self, patients: I) -> Self {
        self.patients.extend(patients);
        self
    }

    #[must_use]
    pub fn wrote(mut self, digest: &'a [u8]) -> Self {
        self.digest = Some(digest);
        self
    }

    #[must_use]
    pub fn from(mut self, origin: &'a Origin) -> Self {
        self.origin = Some(origin);
        self
    }
}

/// Appends an entry to the tenant's chain. One whose target is `Patient/{id}` is about that patient.
pub async fn write(tx: &mut Tx, entry: Entry<'_>) -> Result<()> {
    record(tx, vec![Record::new(entry)]).await
}

/// Appends entries in order; each may say whose record it is about (the logical id of the Patient).
pub async fn write_all(tx: &mut Tx, entries: &[(Entry<'_>, Option<&str>)]) -> Result<()> {
    let all = entries
        .iter()
        .map(|(entry, patient)| Record::new(*entry).about(*patient));
    record(tx, all.collect()).await
}

/// Appends entries in order, with all that is known of them.
pub async fn record(tx: &mut Tx, records: Vec<Record<'_>>) -> Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    if tx.engine() == crate::db::Engine::Postgres {
        tx.query(LOCK, &[]).await?;
    }
    let (mut seq, mut hash) = match tx.query_opt(LAST, &[]).await? {
        Some(row) => (row.i64(0)?, as_hash(row.blob(1)?)),
        None => (0, [0; 32]),
    };
    let (at, here) = (tx.now(), tx.origin.clone());
    let mut values = Vec::with_capacity(records.len() * APPEND.columns.len());
    let mut listed = Vec::new();
    let mut bytes = Vec::with_capacity(512);
    for Record {
        entry,
        mut patients,
        digest,
        origin,
    } in records
    {
        patients.sort_unstable();
        patients.dedup();
        let of_target = || entry.target.strip_prefix("Patient/").filter(|id| !id.contains('/'));
        let (patient, concerned) = match patients.as_slice() {
            [] => (of_target(), None),
            [one] => (Some(*one), None),
            several => (None, Some(list_digest(several))),
        };
        let origin = origin.unwrap_or(&here);
        // Nobody has written so many; whoever forged such a number is found by the walk.
        seq = seq
            .checked_add(1)
            .ok_or_else(|| crate::Error::internal("audit.full", "the chain ends with the last number there is"))?;
        hash = Linked {
            seq,
            at,
            fields: [entry.actor, entry.action, entry.target, entry.outcome, entry.detail],
            patient,
            more: More {
                session: origin.session,
                network: origin.network.as_deref(),
                issued: origin.machine.then_some(origin::MACHINE),
                digest,
                concerned: concerned.as_ref().map(<[u8; 32]>::as_slice),
            },
        }
        .hash(&hash, &mut bytes);
        if concerned.is_some() {
            listed.extend(patients.iter().flat_map(|p| [seq.into(), (*p).into()]));
        }
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
            origin.session.into(),
            origin.network.as_deref().into(),
            origin.machine.then_some(origin::MACHINE).into(),
            digest.into(),
            concerned.into(),
        ]);
    }
    tx.insert(&APPEND, &values).await?;
    tx.insert(&CONCERNED, &listed).await.map(|_| ())
}

/// Over a list of patients in the order of their ids, each preceded by its length.
fn list_digest<P: AsRef<str>>(patients: &[P]) -> [u8; 32] {
    let mut sha = digest::Context::new(&digest::SHA256);
    for patient in patients.iter().map(AsRef::as_ref) {
        sha.update(&(patient.len() as u64).to_be_bytes());
        sha.update(patient.as_bytes());
    }
    as_hash(sha.finish().as_ref())
}

/// What an entry's hash is over, besides the entry before.
struct Linked<'a> {
    seq: i64,
    at: Millis,
    /// Actor, action, target, outcome, detail.
    fields: [&'a str; 5],
    patient: Option<&'a str>,
    more: More<'a>,
}

/// What entries of older releases do not have.
#[derive(Default)]
struct More<'a> {
    session: Option<Uuid>,
    network: Option<&'a str>,
    issued: Option<&'a str>,
    digest: Option<&'a [u8]>,
    concerned: Option<&'a [u8]>,
}

impl Linked<'_> {
    /// Each field is preceded by its length, so that no two entries have the same bytes. The first byte tells entries with
    /// a patient from those without, and where there is anything more, which of it: one cannot be turned into the other.
    fn hash(&self, previous: &[u8; 32], bytes: &mut Vec<u8>) -> [u8; 32] {
        let more = &self.more;
        let session = more.session.map(Uuid::into_bytes);
        let more = [
            session.as_ref().map(<[u8; 16]>::as_slice),
            more.network.map(str::as_bytes),
            more.issued.map(str::as_bytes),
            more.digest,
            more.concerned,
        ];
        let mut kind = u8::from(self.patient.is_some());
        for (i, field) in more.iter().enumerate() {
            kind |= u8::from(field.is_some()) << (i + 1);
        }
        bytes.clear();
        bytes.push(kind);
        bytes.extend_from_slice(previous);
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.at.to_be_bytes());
        let texts = self.fields.iter().chain(&self.patient).map(|f| f.as_bytes());
        for field in texts.chain(more.into_iter().flatten()) {
            bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
            bytes.extend_from_slice(field);
        }
        as_hash(digest::digest(&digest::SHA256, bytes).as_ref())
    }
}

/// What is not 32 bytes long was not written by us and matches nothing.
fn as_hash(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap_or([0xff; 32])
}
