//! Where each tenant's file stood, kept in the system's file; and where that one stood, kept in the seals of the others. So a
//! clinic's file put back to an earlier time, log and seal and all, is refused, and so is the system's. Whoever puts back
//! everything at once is found by the audit trail's checkpoints kept elsewhere.

use super::{
    pages::{self, stale},
    sqlite::{Sqlite, Writer},
    value::Val,
};
use crate::{Error, Result, TenantId};
use medtech_pages::{
    Standing,
    freshness::{self, Point},
    scrub::{Found, Scrub},
    store,
};
use std::{path::Path, time::Duration};

/// In the system's file alone. `file` is the number of the tenant whose file stood there.
pub(super) const TABLE: &str = "CREATE TABLE IF NOT EXISTS page_anchor (tenant BIGINT NOT NULL, file BIGINT NOT NULL,
    generation BIGINT NOT NULL, log BYTEA, frame BIGINT, tag BYTEA, PRIMARY KEY (tenant, file))";
const FIND: &str = "SELECT generation, log, frame, tag FROM page_anchor WHERE tenant = $1 AND file = $2";
/// A file that an operator has put back begins so far above what was seen of the one before.
const LEAP: u64 = 1 << 32;
const KEEP: &str = "INSERT INTO page_anchor (tenant, file, generation, log, frame, tag) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (tenant, file) DO UPDATE SET generation = excluded.generation, log = excluded.log, frame = excluded.frame,
    tag = excluded.tag WHERE excluded.generation >= page_anchor.generation AND page_anchor.generation >= 0";
/// A tenant whose file was erased, or is being: no file of it is opened or made again.
const BURY: &str = "INSERT INTO page_anchor (tenant, file, generation) VALUES ($1, $2, $3)
    ON CONFLICT (tenant, file) DO UPDATE SET generation = excluded.generation, log = NULL, frame = NULL, tag = NULL";
const BURIED: i64 = -1;

/// Pages of a scrub's step.
const STEP: u32 = 64;

impl Sqlite {
    /// Where a tenant's file was last seen to stand.
    pub(super) fn anchor_of(&self, tenant: TenantId, system: &Writer) -> Result<Option<Standing>> {
        let rows = self.query_system(system, &FIND.into(), &[tenant.number().into()])?;
        let Some(row) = rows.first() else { return Ok(None) };
        let log = match (row.opt_blob(1)?, row.opt_i64(2)?, row.opt_blob(3)?) {
            (Some(log), Some(frame), Some(tag)) => Some(Point {
                log: log.try_into().unwrap_or_default(),
                frame: u32::try_from(frame).unwrap_or(u32::MAX),
                tag: tag.try_into().unwrap_or_default(),
            }),
            _ => None,
        };
        Ok(Some(Standing {
            generation: u64::try_from(row.i64(0)?).unwrap_or_default(),
            log,
            outside: 0,
            epoch: 0,
        }))
    }

    pub(super) fn is_erased(&self, tenant: TenantId, system: &Writer) -> Result<bool> {
        let rows = self.query_system(system, &FIND.into(), &[tenant.number().into()])?;
        rows.first().map_or(Ok(false), |row| Ok(row.i64(0)? == BURIED))
    }

    pub(super) async fn bury(&self, tenant: TenantId) -> Result<()> {
        let args = [tenant.number().into(), BURIED.into()];
        self.write(
            TenantId::SYSTEM,
            Box::new(move |tx| Box::pin(async move { tx.exec(BURY, &args).await.map(drop) })),
        )
        .await
    }

    fn system_standing(&self) -> Result<Option<Standing>> {
        standing(&self.dir.join(pages::SYSTEM_FILE))
    }

    /// Notes where the open files stand now. What is committed after that can be cut from a log unnoticed.
    pub(crate) async fn anchor(&self) -> Result<()> {
        let system = self.writer(TenantId::SYSTEM)?;
        let mut moved = Vec::new();
        for (tenant, writer) in self.open_writers() {
            let Some(stands) = standing(&writer.path)?.filter(|_| tenant != TenantId::SYSTEM) else {
                continue;
            };
            let before = self.anchor_of(tenant, &system)?;
            if before.is_none_or(|b| (b.generation, &b.log) != (stands.generation, &stands.log)) {
                moved.push((tenant, stands));
            }
        }
        for (tenant, stands) in moved {
            self.keep(tenant, stands).await?;
        }
        if let Some(system) = self.system_standing()? {
            for (tenant, writer) in self.open_writers() {
                if tenant != TenantId::SYSTEM {
                    writer.ring.remember(system.generation);
                }
            }
        }
        Ok(())
    }

    async fn keep(&self, tenant: TenantId, stands: Standing) -> Result<()> {
        let generation = i64::try_from(stands.generation).unwrap_or(i64::MAX);
        let (log, frame, tag) = match stands.log {
            Some(p) => (
                Val::from(p.log.to_vec()),
                i64::from(p.frame).into(),
                Val::from(p.tag.to_vec()),
            ),
            None => (
                Val::Null(super::Ty::Blob),
                Val::Null(super::Ty::I64),
                Val::Null(super::Ty::Blob),
            ),
        };
        let args = [tenant.number().into(), generation.into(), log, frame, tag];
        self.write(
            TenantId::SYSTEM,
            Box::new(move |tx| Box::pin(async move { tx.exec(KEEP, &args).await.map(drop) })),
        )
        .await
    }

    /// At a clean stop: every log is taken in and emptied, and what stands then is noted, so that nothing can be cut off.
    pub(crate) async fn settle(&self) -> Result<()> {
        let writers = self.open_writers();
        for (tenant, writer) in &writers {
            if *tenant != TenantId::SYSTEM {
                empty_log(writer).await?;
            }
        }
        self.anchor().await?;
        let Some((_, system)) = writers.iter().find(|(t, _)| *t == TenantId::SYSTEM) else {
            return Ok(());
        };
        empty_log(system).await?;
        let Some(stands) = self.system_standing()? else {
            return Ok(());
        };
        for (tenant, writer) in &writers {
            if *tenant != TenantId::SYSTEM {
                writer.ring.remember(stands.generation);
                freshness::remember_now(&writer.path).map_err(|e| Error::internal("db.seal", e))?;
            }
        }
        Ok(())
    }

    /// Takes what lies under a tenant's name for its newest state: an operator has put it back, and says so.
    pub(crate) async fn accept_restored(&self, tenant: TenantId) -> Result<()> {
        self.close(tenant)?;
        let name = pages::file_name(tenant);
        let path = self.dir.join(&name);
        let ring = self.keys.ring(tenant, &name);
        let system = self.writer(TenantId::SYSTEM)?;
        let seen = self.anchor_of(tenant, &system)?.map_or(0, |s| s.generation);
        let generation = accept(&ring, &path, seen).await?;
        let stands = Standing {
            generation,
            log: None,
            outside: 0,
            epoch: ring.epoch(),
        };
        self.keep(tenant, stands).await
    }

    /// The same for the system's file, before it can be opened.
    pub(crate) async fn accept_system(dir: &Path, keys: &super::PageKeys) -> Result<()> {
        let ring = keys.ring(TenantId::SYSTEM, pages::SYSTEM_FILE);
        accept(&ring, &dir.join(pages::SYSTEM_FILE), 0).await.map(drop)
    }

    /// Reads every page of a tenant's file, `pause` between a few of them.
    pub(crate) async fn scrub(
        &self,
        tenant: TenantId,
        pause: Duration,
        mut progress: impl FnMut(u32, u32) + Send,
    ) -> Result<Found> {
        let Writer { path, ring, .. } = self.writer(tenant)?;
        let mut scrub = Scrub::begin(&ring, &path).map_err(pages::page_error)?;
        loop {
            let found = scrub.step(STEP);
            let (done, all) = scrub.progress();
            progress(done, all);
            if let Some(found) = found {
                return Ok(found);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// A tenant's file that has seen a later state of the system's file than there is: that one was put back.
pub(super) fn require_system(system: &Path, tenant: &Path) -> Result<()> {
    let stands = standing(system)?.map_or(0, |s| s.generation);
    match standing(tenant)? {
        Some(seen) if seen.outside > stands => Err(stale(format!(
            "{}: generation {stands}, and another file has seen {}",
            pages::SYSTEM_FILE,
            seen.outside
        ))),
        _ => Ok(()),
    }
}

fn standing(path: &Path) -> Result<Option<Standing>> {
    freshness::standing(path).map_err(|e| Error::internal("db.seal", e))
}

async fn empty_log(writer: &Writer) -> Result<()> {
    let (ring, path) = (writer.ring.clone(), writer.path.clone());
    tokio::task::spawn_blocking(move || pages::empty_log(&ring, &path).map(drop))
        .await
        .map_err(|e| Error::internal("db.settle_task", e))?
}

async fn accept(ring: &medtech_pages::Ring, path: &Path, seen: u64) -> Result<u64> {
    let (ring, path) = (ring.clone(), path.to_owned());
    let work = move || {
        let told = store::generation(&ring, &path).unwrap_or_default();
        let generation = seen.max(told).saturating_add(LEAP);
        store::adopt(&ring, &path, generation, |_| Ok(true)).map_err(pages::page_error)?;
        Ok(generation)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("db.accept_task", e))?
}
