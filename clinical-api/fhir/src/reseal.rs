//! What an older release wrote is sealed as we would write it, while everything runs: looked for beside the writers, a bounded
//! piece at a time, and a writer only for a few of the rows that are found.

use crate::{Fhir, store, store::History};
use medtech_kernel::{Result, TenantId, vault};

/// Rows of one transaction: while it runs, other writers of the clinic wait.
const BATCH: usize = 50;
const BODIES: &str = "fhir_res";
const VERSIONS: &str = "fhir_hist";

impl Fhir {
    /// Seals bodies and blinds index rows that are not; answers how many were not. A sweep that was cut off begins again,
    /// and passes over what is done; where nothing can be left, nothing is read.
    pub async fn reseal(&self, tenant: TenantId) -> Result<u64> {
        Ok(self.reseal_bodies(tenant).await? + self.reseal_history(tenant).await?)
    }

    async fn reseal_bodies(&self, tenant: TenantId) -> Result<u64> {
        let db = &self.0.ctx.db;
        if vault::is_settled(db, tenant, BODIES).await? {
            return Ok(0);
        }
        let (mut all, mut next) = (0, Some(i64::MIN));
        while let Some(after) = next {
            let (open, last) = store::open_bodies(db, tenant, after).await?;
            for rids in open.chunks(BATCH) {
                let (fhir, shelf, rids) = (self.clone(), self.shelf(tenant), rids.to_vec());
                let piece = db.write(tenant, move |tx| {
                    Box::pin(async move {
                        let mended = store::seal_bodies(tx, &shelf, &fhir.0.base, &rids).await?;
                        vault::note(tx, BODIES, mended, false).await?;
                        Ok(mended)
                    })
                });
                all += piece.await?;
            }
            next = last;
        }
        vault::looked_through(db, tenant, BODIES).await?;
        Ok(all)
    }

    async fn reseal_history(&self, tenant: TenantId) -> Result<u64> {
        let db = &self.0.ctx.db;
        if vault::is_settled(db, tenant, VERSIONS).await? {
            return Ok(0);
        }
        let (mut all, mut next): (u64, Option<History>) = (0, Some((i64::MIN, 0)));
        while let Some(after) = next {
            let (open, last) = store::open_versions(db, tenant, after).await?;
            for places in open.chunks(BATCH) {
                let (fhir, shelf, places) = (self.clone(), self.shelf(tenant), places.to_vec());
                let piece = db.write(tenant, move |tx| {
                    Box::pin(async move {
                        let mended = store::seal_versions(tx, &shelf, &fhir.0.base, &places).await?;
                        vault::note(tx, VERSIONS, mended, false).await?;
                        Ok(mended)
                    })
                });
                all += piece.await?;
            }
            next = last;
        }
        vault::looked_through(db, tenant, VERSIONS).await?;
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
