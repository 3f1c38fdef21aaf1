//! A clinic's data as one archive: every FHIR resource as NDJSON, people, conversations and files, the audit trail with
//! its hashes, and a manifest with the SHA-256 of each. Made beside the requests; a person with a fresh proof fetches it.

pub mod age;
mod archive;
pub(crate) mod http;
mod store;

use crate::{House, Part, TenantsModule, Turn};
use archive::{Archive, Item};
use aws_lc_rs::digest::{Context, SHA256};
use medtech_fhir::Access;
use medtech_kernel::{
    Ctx, Error, Result, Tenant, TenantId,
    audit::{self, Origin},
    clock::{Millis, rfc3339},
    id,
};
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};
use store::Job;
use uuid::Uuid;

/// How long an archive can be fetched.
pub(crate) const KEPT: Millis = 24 * 3_600_000;
/// Bytes of NDJSON after which a new file begins.
const FILE: usize = 8 << 20;
/// Rows read at once.
const ROWS: i64 = 500;
/// Bytes of a file read at once.
const PIECE: u64 = 1 << 20;

/// Where a clinic's archives lie.
pub(crate) fn dir(ctx: &Ctx, tenant: TenantId) -> PathBuf {
    ctx.config.data_dir.join("exports").join(format!("tenant-{tenant}"))
}

fn place(ctx: &Ctx, tenant: TenantId, job: &Job) -> PathBuf {
    let tail = if job.sealed { "tar.age" } else { "tar" };
    dir(ctx, tenant).join(format!("{}.{tail}", job.id))
}

impl TenantsModule {
    /// Begins an export of a clinic, unless one is under way; it goes on beside the requests.
    pub(crate) async fn begin_export(
        self: &Arc<Self>,
        tenant: &Tenant,
        actor: &str,
        passphrase: Option<String>,
    ) -> Result<Job> {
        let turn = Turn::to_export(self, tenant.id)
            .ok_or_else(|| Error::conflict("tenants.exporting", "An export of this clinic is being made already."))?;
        let steps = medtech_fhir::resource_types().len() + Part::ALL.len() + 2;
        let job = Job {
            id: id::new_id(&self.ctx.clock),
            asked_by: actor.to_owned(),
            asked_at: self.ctx.clock.now_ms(),
            sealed: passphrase.is_some(),
            state: "running".into(),
            step: String::new(),
            steps_done: 0,
            steps: i64::try_from(steps).unwrap_or(i64::MAX),
            bytes: 0,
            sha256: None,
            ended_at: None,
        };
        store::add(&self.ctx.db, tenant.id, &job).await?;
        let (this, tenant, started) = (self.clone(), tenant.clone(), job.clone());
        tokio::spawn(Origin::current().scope(async move {
            let _turn = turn;
            let outcome = this.export(&tenant, &started, passphrase).await;
            if let Err(e) = &outcome {
                tracing::error!(tenant = %tenant.id, job = %started.id, error = %e, "an export failed");
                let _ = tokio::fs::remove_file(place(&this.ctx, tenant.id, &started)).await;
            }
            if let Err(e) = store::end(&this.ctx.db, tenant.id, &started, outcome.ok()).await {
                tracing::error!(tenant = %tenant.id, job = %started.id, error = %e, "the end of an export was not noted");
            }
        }));
        Ok(job)
    }

    async fn export(&self, tenant: &Tenant, job: &Job, passphrase: Option<String>) -> Result<(u64, String)> {
        let archive = Archive::begin(place(&self.ctx, tenant.id, job), passphrase, job.asked_at);
        let mut work = Work {
            this: self,
            tenant: tenant.id,
            job,
            archive,
            done: 0,
        };
        match work.all(tenant).await {
            Ok(()) => work.archive.finish().await,
            // What the disk said is the better reason.
            Err(e) => Err(work
                .archive
                .finish()
                .await
                .err()
                .filter(|d| d.code == "tenants.disk_full")
                .unwrap_or(e)),
        }
    }
}

/// An export under way.
struct Work<'a> {
    this: &'a TenantsModule,
    tenant: TenantId,
    job: &'a Job,
    archive: Archive,
    done: i64,
}

/// Lines gathered for the next file.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    count: u64,
    files: u32,
}

impl Work<'_> {
    async fn all(&mut self, tenant: &Tenant) -> Result<()> {
        for ty in medtech_fhir::resource_types() {
            self.step(ty).await?;
            self.resources(ty).await?;
        }
        for part in Part::ALL {
            self.step(part.name()).await?;
            self.part(part).await?;
        }
        self.step("audit").await?;
        let head = self.audit().await?;
        self.step("manifest").await?;
        let manifest = json!({
            "format": "medtech clinic export 1",
            "clinic": {"slug": tenant.slug, "name": tenant.name, "zone": tenant.zone},
            "settings": *tenant.settings,
            "made_at": rfc3339(self.job.asked_at),
            "audit": {"entries": head.0, "head_sha256": head.1},
            "files": self.archive.items,
        });
        let text = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::internal("tenants.manifest", e))?;
        self.archive.add("manifest.json".into(), None, text).await
    }

    async fn step(&mut self, name: &str) -> Result<()> {
        store::step(&self.this.ctx.db, self.tenant, self.job.id, name, self.done).await?;
        self.done += 1;
        Ok(())
    }

    async fn line(&mut self, name: &str, lines: &mut Lines, text: &str) -> Result<()> {
        lines.bytes.extend_from_slice(text.as_bytes());
        lines.bytes.push(b'\n');
        lines.count += 1;
        if lines.bytes.len() >= FILE {
            self.close(name, lines).await?;
        }
        Ok(())
    }

    async fn close(&mut self, name: &str, lines: &mut Lines) -> Result<()> {
        if lines.count == 0 {
            return Ok(());
        }
        lines.files += 1;
        let path = match lines.files {
            1 => format!("{name}.ndjson"),
            n => format!("{name}.{n}.ndjson"),
        };
        let bytes = std::mem::take(&mut lines.bytes);
        self.archive
            .add(path, Some(std::mem::take(&mut lines.count)), bytes)
            .await
    }

    async fn resources(&mut self, ty: &'static str) -> Result<()> {
        let (name, mut lines, mut cursor) = (format!("fhir/{ty}"), Lines::default(), None::<String>);
        loop {
            let query = match &cursor {
                None => "_sort=_id&_count=500".to_owned(),
                Some(cursor) => format!("_sort=_id&_count=500&_cursor={cursor}"),
            };
            let found = self.this.fhir.search(self.tenant, &Access::All, ty, &query).await?;
            for resource in &found.resources {
                self.line(&name, &mut lines, resource.json()).await?;
            }
            cursor = found.next;
            if cursor.is_none() {
                return self.close(&name, &mut lines).await;
            }
        }
    }

    async fn part(&mut self, part: Part) -> Result<()> {
        let house: Arc<dyn House> = self.this.house.clone();
        let (mut lines, mut after) = (Lines::default(), None);
        loop {
            let page = house.page(self.tenant, part, after).await?;
            for row in &page.rows {
                // One whose key was destroyed is left out, with its description.
                if part == Part::Files && !self.file(&*house, row).await? {
                    continue;
                }
                self.line(part.name(), &mut lines, &row.to_string()).await?;
            }
            after = page.next;
            if after.is_none() {
                return self.close(part.name(), &mut lines).await;
            }
        }
    }

    /// A file's bytes, under its number: what people call it stands in the description. `false` when it was erased.
    async fn file(&mut self, house: &dyn House, row: &Value) -> Result<bool> {
        let wrong = || Error::internal("tenants.file", "a file's description lacks its number, size or SHA-256");
        let id: Uuid = row
            .get("id")
            .and_then(Value::as_str)
            .and_then(|i| i.parse().ok())
            .ok_or_else(wrong)?;
        let size = row.get("size").and_then(Value::as_u64).ok_or_else(wrong)?;
        let expected = row.get("sha256").and_then(Value::as_str).ok_or_else(wrong)?;
        let (path, mut sha, mut at) = (format!("files/{id}"), Context::new(&SHA256), 0);
        let mut next = match size {
            0 => None,
            _ => match house.file(self.tenant, id, 0..size.min(PIECE)).await {
                Err(e) if e.code == "vault.erased" => return Ok(false),
                first => Some(first?),
            },
        };
        self.archive.open(path.clone(), size).await?;
        while at < size {
            let bytes = match next.take() {
                Some(first) => first,
                None => house.file(self.tenant, id, at..size.min(at + PIECE)).await?,
            };
            if bytes.is_empty() {
                return Err(Error::internal("tenants.file", "a file is shorter than it was"));
            }
            at += bytes.len() as u64;
            sha.update(&bytes);
            self.archive.piece(bytes).await?;
        }
        let sha256 = archive::hex(sha.finish().as_ref());
        // A deletion destroys the original after this: an archive that does not hold what was sent must not be taken for one.
        if sha256 != expected {
            return Err(Error::internal("tenants.file", "a file is not what was sent"));
        }
        self.archive.items.push(Item {
            path,
            count: None,
            size,
            sha256,
        });
        Ok(true)
    }

    /// The trail with its hashes, so that it can be proved elsewhere; answers how many entries, and the last one's hash.
    async fn audit(&mut self) -> Result<(i64, Option<String>)> {
        let (mut lines, mut after, mut head) = (Lines::default(), 0, None);
        loop {
            let found = audit::range(&self.this.ctx.db, self.tenant, after, 0..Millis::MAX, ROWS).await?;
            let Some(last) = found.last() else {
                self.close("audit", &mut lines).await?;
                return Ok((after, head));
            };
            (after, head) = (last.seq, Some(archive::hex(&last.hash)));
            for e in &found {
                let value = json!({
                    "seq": e.seq, "at": e.at, "actor": e.actor, "action": e.action, "target": e.target,
                    "outcome": e.outcome, "detail": e.detail, "patient": e.patient, "sha256": archive::hex(&e.hash),
                });
                self.line("audit", &mut lines, &value.to_string()).await?;
            }
        }
    }
}

/// At a start: what was under way when the process ended has failed.
pub(crate) async fn end_the_interrupted(this: &TenantsModule) {
    for tenant in this.ctx.tenants.all() {
        if let Err(e) = store::interrupted(&this.ctx.db, tenant.id).await {
            tracing::warn!(tenant = %tenant.id, error = %e, "exports that were cut short were not noted");
        }
    }
}

/// Archives are not kept for ever: each is a copy of everything.
pub(crate) async fn remove_old(this: &TenantsModule) {
    let before = this.ctx.clock.now_ms() - KEPT;
    for tenant in this.ctx.tenants.all() {
        let removed = async {
            for job in store::list(&this.ctx.db, tenant.id).await? {
                if job.state == "done" && job.ended_at.is_some_and(|at| at <= before) {
                    let _ = tokio::fs::remove_file(place(&this.ctx, tenant.id, &job)).await;
                    store::removed(&this.ctx.db, tenant.id, job.id).await?;
                }
            }
            Ok::<(), Error>(())
        };
        if let Err(e) = removed.await {
            tracing::warn!(tenant = %tenant.id, error = %e, "old exports were not removed");
        }
    }
}
