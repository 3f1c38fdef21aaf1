//! The table of verdicts: every statement, and nothing else.

use super::Verdict;
use medtech_kernel::{Db, Result, TenantId, Tx, clock::Millis};
use std::collections::HashMap;
use uuid::Uuid;

const PUT: &str = "INSERT INTO file_verdict (tenant, file, verdict, at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (tenant, file) DO UPDATE SET verdict = excluded.verdict, at = excluded.at";
const WAIT: &str = "INSERT INTO file_verdict (tenant, file, verdict, at) VALUES ($1, $2, 'waiting', $3)
    ON CONFLICT (tenant, file) DO NOTHING";
const WAIT_ALL: &str = "INSERT INTO file_verdict (tenant, file, verdict, at)
    SELECT tenant, id, 'waiting', created_at FROM shared_file WHERE tenant = $1 AND sha256 IS NOT NULL
    ON CONFLICT (tenant, file) DO NOTHING";
const GET: &str = "SELECT verdict FROM file_verdict WHERE tenant = $1 AND file = $2";
const OF_PAGE: &str = "SELECT v.file, v.verdict FROM message m
    JOIN file_verdict v ON v.tenant = m.tenant AND v.file = m.file
    WHERE m.tenant = $1 AND m.conversation = $2 AND m.seq > $3 AND m.seq <= $4 AND m.file IS NOT NULL";
const WAITING: &str = "SELECT file FROM file_verdict WHERE tenant = $1 AND verdict = 'waiting' AND at <= $3
    ORDER BY at LIMIT $2";
const CREATED: &str = "SELECT created_at FROM shared_file WHERE tenant = $1 AND id = $2";
const HARMFUL: &str = "SELECT file FROM file_verdict WHERE tenant = $1 AND verdict = 'harmful' AND file > $2
    ORDER BY file LIMIT $3";
const POSTPONE: &str = "UPDATE file_verdict SET at = $3 WHERE tenant = $1 AND file = $2 AND verdict = 'waiting'";
const DROP: &str = "DELETE FROM file_verdict WHERE tenant = $1 AND file = $2";

pub(super) async fn put(tx: &mut Tx, file: Uuid, verdict: Verdict) -> Result<()> {
    let args = [file.into(), verdict.name().into(), tx.now().into()];
    tx.exec(PUT, &args).await.map(drop)
}

/// Known from the moment a file is complete, so that a crash before the scan forgets nothing.
pub(super) async fn wait(tx: &mut Tx, file: Uuid) -> Result<()> {
    tx.exec(WAIT, &[file.into(), tx.now().into()]).await.map(drop)
}

/// Every finished file that was never looked at.
pub(super) async fn wait_all(tx: &mut Tx) -> Result<()> {
    tx.exec(WAIT_ALL, &[]).await.map(drop)
}

pub(super) async fn get(db: &Db, tenant: TenantId, file: Uuid) -> Result<Option<Verdict>> {
    let row = db.query_opt(tenant, GET, &[file.into()]).await?;
    row.map(|r| Ok(Verdict::parse(r.text(0)?))).transpose()
}

pub(super) async fn get_in(tx: &mut Tx, file: Uuid) -> Result<Option<Verdict>> {
    let row = tx.query_opt(GET, &[file.into()]).await?;
    row.map(|r| Ok(Verdict::parse(r.text(0)?))).transpose()
}

/// Of the files of some messages: behind the first number, up to and with the last.
pub(super) async fn of_page(
    db: &Db,
    tenant: TenantId,
    conversation: Uuid,
    after: i64,
    last: i64,
) -> Result<HashMap<Uuid, Verdict>> {
    let args = [conversation.into(), after.into(), last.into()];
    let rows = db.query(tenant, OF_PAGE, &args).await?;
    rows.iter()
        .map(|r| Ok((r.uuid(0)?, Verdict::parse(r.text(1)?))))
        .collect()
}

pub(super) async fn waiting(db: &Db, tenant: TenantId, limit: i64) -> Result<Vec<Uuid>> {
    let rows = db.query(tenant, WAITING, &[limit.into(), db.now().into()]).await?;
    rows.iter().map(|r| r.uuid(0)).collect()
}

/// Harmful files behind one, in the order of their ids.
pub(super) async fn harmful(db: &Db, tenant: TenantId, after: Uuid, limit: i64) -> Result<Vec<Uuid>> {
    let rows = db.query(tenant, HARMFUL, &[after.into(), limit.into()]).await?;
    rows.iter().map(|r| r.uuid(0)).collect()
}

/// To the end of the queue: what cannot be looked at now holds up nothing else.
pub(super) async fn postpone(tx: &mut Tx, file: Uuid) -> Result<()> {
    tx.exec(POSTPONE, &[file.into(), tx.now().into()]).await.map(drop)
}

/// The same, and not tried again before the file is twice as old; within bounds.
pub(super) async fn hold(tx: &mut Tx, file: Uuid, least: Millis, most: Millis) -> Result<()> {
    let Some(row) = tx.query_opt(CREATED, &[file.into()]).await? else {
        return forget(tx, file).await;
    };
    let age = tx.now().saturating_sub(row.i64(0)?);
    let at = tx.now().saturating_add(age.clamp(least, most));
    tx.exec(POSTPONE, &[file.into(), at.into()]).await.map(drop)
}

pub(super) async fn forget(tx: &mut Tx, file: Uuid) -> Result<()> {
    tx.exec(DROP, &[file.into()]).await.map(drop)
}
