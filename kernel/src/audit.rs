//! The audit trail: written in the transaction of the act, each entry chained to the one before by SHA-256.

use crate::{Result, Tx, id};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

/// What happened, without clinical content: identifiers only.
#[derive(Clone, Debug)]
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
const APPEND: &str = "INSERT INTO audit (tenant, seq, at, actor, action, target, outcome, detail, hash)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
/// On PostgreSQL two transactions of a tenant must not chain to the same entry.
const LOCK: &str = "SELECT pg_advisory_xact_lock(1635083369, $1::int)";
const CHAIN: &str = "SELECT seq, at, actor, action, target, outcome, detail, hash FROM audit WHERE tenant = $1 AND seq > $2 ORDER BY seq LIMIT 1000";

/// Appends an entry to the tenant's chain.
pub async fn write(tx: &mut Tx, entry: Entry<'_>) -> Result<()> {
    if tx.engine() == crate::db::Engine::Postgres {
        tx.query(LOCK, &[]).await?;
    }
    let (seq, previous) = match tx.query_opt(LAST, &[]).await? {
        Some(row) => (row.i64(0)? + 1, row.blob(1)?.to_vec()),
        None => (1, vec![0; 32]),
    };
    let now = tx.now();
    let hash = link(
        &previous,
        seq,
        now,
        [entry.actor, entry.action, entry.target, entry.outcome, entry.detail],
    );
    tx.exec(
        APPEND,
        &[
            seq.into(),
            now.into(),
            entry.actor.into(),
            entry.action.into(),
            entry.target.into(),
            entry.outcome.into(),
            entry.detail.into(),
            hash.into(),
        ],
    )
    .await
    .map(|_| ())
}

/// Walks a tenant's chain. `Ok(Err(seq))` names the first entry that does not follow from the one before.
pub async fn verify(db: &crate::Db, tenant: crate::TenantId) -> Result<std::result::Result<i64, i64>> {
    let (mut seen, mut previous) = (0_i64, vec![0_u8; 32]);
    loop {
        let rows = db.query(tenant, CHAIN, &[seen.into()]).await?;
        if rows.is_empty() {
            return Ok(Ok(seen));
        }
        for r in &rows {
            let seq = r.i64(0)?;
            let hash = link(
                &previous,
                seq,
                r.i64(1)?,
                [r.text(2)?, r.text(3)?, r.text(4)?, r.text(5)?, r.text(6)?],
            );
            if seq != seen + 1 || hash != r.blob(7)? {
                return Ok(Err(seq));
            }
            (seen, previous) = (seq, hash.to_vec());
        }
    }
}

/// Each field is preceded by its length, so that no two entries have the same bytes.
fn link(previous: &[u8], seq: i64, at: i64, fields: [&str; 5]) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(256);
    bytes.push(0);
    bytes.extend_from_slice(previous);
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend_from_slice(&at.to_be_bytes());
    for field in fields {
        bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
        bytes.extend_from_slice(field.as_bytes());
    }
    id::sha256(&bytes)
}

/// A hash in short printable form, for logs and checkpoints.
#[must_use]
pub fn printable(hash: &[u8]) -> String {
    STANDARD_NO_PAD.encode(hash)
}
