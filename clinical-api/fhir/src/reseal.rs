//! What an older release wrote is sealed as we would write it, a small piece at a time, while everything runs.

use crate::{Fhir, store};
use medtech_kernel::{Result, TenantId, vault};

impl Fhir {
    /// Seals bodies and blinds index rows that are not; answers how many were not. A sweep that was cut off begins again,
    /// and passes over what is done.
    pub async fn reseal(&self, tenant: TenantId) -> Result<u64> {
        Ok(self.reseal_bodies(tenant).await? + self.reseal_history(tenant).await?)
    }

    async fn reseal_bodies(&self, tenant: TenantId) -> Result<u64> {
        let (mut all, mut after) = (0, i64::MIN);
        loop {
            let (fhir, shelf) = (self.clone(), self.shelf(tenant));
            let (mended, last) = self
                .0
                .ctx
                .db
                .write(tenant, move |tx| {
                    Box::pin(async move {
                        let (mended, last) = store::bodies(tx, &shelf, &fhir.0.base, after).await?;
                        vault::note(tx, "fhir_res", mended, last.is_none()).await?;
                        Ok((mended, last))
                    })
                })
                .await?;
            all += mended;
            match last {
                Some(last) => after = last,
                None => return Ok(all),
            }
        }
    }

    async fn reseal_history(&self, tenant: TenantId) -> Result<u64> {
        let (mut all, mut after) = (0, (i64::MIN, 0));
        loop {
            let (fhir, shelf) = (self.clone(), self.shelf(tenant));
            let (mended, last) = self
                .0
                .ctx
                .db
                .write(tenant, move |tx| {
                    Box::pin(async move {
                        let (mended, last) = store::history(tx, &shelf, &fhir.0.base, after).await?;
                        vault::note(tx, "fhir_hist", mended, last.is_none()).await?;
                        Ok((mended, last))
                    })
                })
                .await?;
            all += mended;
            match last {
                Some(last) => after = last,
                None => return Ok(all),
            }
        }
    }
}

#[cfg(test)]
mod tests;
