//! The table of exports: every statement, and nothing else.

use medtech_kernel::{Db, Result, Row, TenantId, clock::Millis};
use uuid::Uuid;

const ADD: &str =
    "INSERT INTO tenants_export (tenant, id, asked_by, asked_at, sealed, state, step, steps_done, steps, bytes)
    VALUES ($1, $2, $3, $4, $5, 'running', '', 0, $6, 0)";
const STEP: &str = "UPDATE tenants_export SET step = $3, steps_done = $4 WHERE tenant = $1 AND id = $2";
const END: &str =
    "UPDATE tenants_export SET state = $3, step = '', steps_done = $4, bytes = $5, sha256 = $6, ended_at = $7
    WHERE tenant = $1 AND id = $2";
const COLUMNS: &str =
    "SELECT id, asked_by, asked_at, sealed, state, step, steps_done, steps, bytes, sha256, ended_at FROM tenants_export
    WHERE tenant = $1 ORDER BY asked_at DESC, id DESC LIMIT 50";
const ONE: &str =
    "SELECT id, asked_by, asked_at, sealed, state, step, steps_done, steps, bytes, sha256, ended_at FROM tenants_export
    WHERE tenant = $1 AND id = $2";
const INTERRUPTED: &str = "UPDATE tenants_export SET state = 'failed', step = '', ended_at = $2
    WHERE tenant = $1 AND state = 'running'";
const REMOVED: &str = "UPDATE tenants_export SET state = 'removed' WHERE tenant = $1 AND id = $2";

/// An export: `running`, `done`, `failed`, or `removed` after its time.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: Uuid,
    pub(crate) asked_by: String,
    pub(crate) asked_at: Millis,
    pub(crate) sealed: bool,
    pub(crate) state: String,
    pub(crate) step: String,
    pub(crate) steps_done: i64,
    pub(crate) steps: i64,
    pub(crate) bytes: u64,
    pub(crate) sha256: Option<String>,
    pub(crate) ended_at: Option<Millis>,
}

fn job(row: &Row) -> Result<Job> {
    Ok(Job {
        id: row.uuid(0)?,
        asked_by: row.string(1)?,
        asked_at: row.i64(2)?,
        sealed: row.bool(3)?,
        state: row.string(4)?,
        step: row.string(5)?,
        steps_done: row.i64(6)?,
        steps: row.i64(7)?,
        bytes: u64::try_from(row.i64(8)?).unwrap_or(0),
        sha256: row.opt_text(9)?.map(str::to_owned),
        ended_at: row.opt_i64(10)?,
    })
}

async fn run(db: &Db, tenant: TenantId, sql: &'static str, args: Vec<medtech_kernel::Val>) -> Result<()> {
    db.write(tenant, move |tx| {
        Box::pin(async move { tx.exec(sql, &args).await.map(drop) })
    })
    .await
}

/// Notes the beginning, in the trail, too.
pub(super) async fn add(db: &Db, tenant: TenantId, j: &Job) -> Result<()> {
    let j = j.clone();
    db.write(tenant, move |tx| {
        Box::pin(async move {
            let args = [
                j.id.into(),
                (&j.asked_by).into(),
                j.asked_at.into(),
                j.sealed.into(),
                j.steps.into(),
            ];
            tx.exec(ADD, &args).await?;
            let target = format!("export:{}", j.id);
            let entry = medtech_kernel::audit::Entry {
                actor: &j.asked_by,
                action: "execute",
                target: &target,
                outcome: "success",
                detail: if j.sealed { "export, sealed" } else { "export, plain" },
            };
            medtech_kernel::audit::write(tx, entry).await
        })
    })
    .await
}

pub(super) async fn step(db: &Db, tenant: TenantId, id: Uuid, name: &str, done: i64) -> Result<()> {
    run(db, tenant, STEP, vec![id.into(), name.into(), done.into()]).await
}

/// `done` with size and SHA-256, or failed.
pub(super) async fn end(db: &Db, tenant: TenantId, j: &Job, done: Option<(u64, String)>) -> Result<()> {
    let (id, steps) = (j.id, j.steps);
    db.write(tenant, move |tx| {
        Box::pin(async move {
            let now = tx.now();
            let (state, steps, (bytes, sha256)) = match done {
                Some((bytes, sha256)) => ("done", steps, (bytes, Some(sha256))),
                None => ("failed", 0, (0, None)),
            };
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            let args = [
                id.into(),
                state.into(),
                steps.into(),
                bytes.into(),
                sha256.into(),
                now.into(),
            ];
            tx.exec(END, &args).await.map(drop)
        })
    })
    .await
}

pub(super) async fn list(db: &Db, tenant: TenantId) -> Result<Vec<Job>> {
    db.query(tenant, COLUMNS, &[]).await?.iter().map(job).collect()
}

pub(super) async fn one(db: &Db, tenant: TenantId, id: Uuid) -> Result<Option<Job>> {
    db.query_opt(tenant, ONE, &[id.into()])
        .await?
        .as_ref()
        .map(job)
        .transpose()
}

pub(super) async fn interrupted(db: &Db, tenant: TenantId) -> Result<()> {
    db.write(tenant, move |tx| {
        Box::pin(async move {
            let now = tx.now();
            tx.exec(INTERRUPTED, &[now.into()]).await.map(drop)
        })
    })
    .await
}

pub(super) async fn removed(db: &Db, tenant: TenantId, id: Uuid) -> Result<()> {
    run(db, tenant, REMOVED, vec![id.into()]).await
}
