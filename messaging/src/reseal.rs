//! Messages of an older release are sealed under the key of their conversation, a small piece at a time.

use crate::{Messaging, store};
use medtech_kernel::{Result, TenantId, vault};
use uuid::Uuid;

impl Messaging {
    /// Seals the texts that are not; answers how many were not.
    pub async fn reseal(&self, tenant: TenantId) -> Result<u64> {
        let (mut all, mut after) = (0, (Uuid::nil(), 0));
        loop {
            let (sealed, last) = self
                .ctx
                .db
                .write(tenant, move |tx| {
                    Box::pin(async move {
                        let (sealed, last) = store::seal_some(tx, after).await?;
                        vault::note(tx, "message.body", sealed, last.is_none()).await?;
                        Ok((sealed, last))
                    })
                })
                .await?;
            all += sealed;
            match last {
                Some(last) => after = last,
                None => return Ok(all),
            }
        }
    }
}
