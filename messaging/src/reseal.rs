//! Messages of an older release are sealed under the key of their conversation: looked for beside the writers, a bounded piece
//! at a time, and a writer only for a few of those that are found.

use crate::{Messaging, store};
use medtech_kernel::{Result, TenantId, vault};
use uuid::Uuid;

/// Messages of one transaction: while it runs, other writers of the clinic wait.
const BATCH: usize = 100;
const SHEET: &str = "message.body";

impl Messaging {
    /// Seals the texts that are not; answers how many were not. Where nothing can be left, nothing is read.
    pub async fn reseal(&self, tenant: TenantId) -> Result<u64> {
        let db = &self.ctx.db;
        if vault::is_settled(db, tenant, SHEET).await? {
            return Ok(0);
        }
        let (mut all, mut next) = (0, Some((Uuid::nil(), 0)));
        while let Some(after) = next {
            let (open, last) = store::open_texts(db, tenant, after).await?;
            for places in open.chunks(BATCH) {
                let places = places.to_vec();
                let piece = db.write(tenant, move |tx| {
                    Box::pin(async move {
                        let sealed = store::seal_some(tx, &places).await?;
                        vault::note(tx, SHEET, sealed, false).await?;
                        Ok(sealed)
                    })
                });
                all += piece.await?;
            }
            next = last;
        }
        vault::looked_through(db, tenant, SHEET).await?;
        Ok(all)
    }
}
