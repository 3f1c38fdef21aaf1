//! A new version of a tenant's key while everything runs: it is made, every server learns it, then the data keys are
//! wrapped anew, some at a time. What they seal stays as it is.

use super::{Purpose, REFRESH, Vault};
use crate::{
    Db, Error, Result, TenantId,
    audit::{self, Entry},
    db::Engine,
};
use std::{collections::BTreeMap, time::Duration};

/// Data keys wrapped anew in one transaction.
const BATCH: i64 = 500;
/// Every server has looked at the keys by then.
const SETTLE: Duration = Duration::from_secs(REFRESH.as_secs() * 3);

const NEXT: &str =
    "SELECT COALESCE(MAX(version), 0) + 1 FROM vault_key WHERE tenant = $1 AND owner = $2 AND purpose = $3";
const BEHIND: &str = "SELECT id, class, subject, version, wrapped FROM data_key
    WHERE tenant = $1 AND version < $2 AND wrapped IS NOT NULL ORDER BY version, id LIMIT $3";
const REWRAP: &str = "UPDATE data_key SET version = $4, wrapped = $5 WHERE tenant = $1 AND id = $2 AND version = $3
    AND wrapped IS NOT NULL";
const COUNTS: &str =
    "SELECT version, COUNT(*) FROM data_key WHERE tenant = $1 AND wrapped IS NOT NULL GROUP BY version";
const GONE: &str = "SELECT COUNT(*) FROM data_key WHERE tenant = $1 AND wrapped IS NULL";

/// What a rotation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rotated {
    pub version: i64,
    pub rewrapped: u64,
}

/// How a tenant's keys stand.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Standing {
    /// The version that wraps now.
    pub version: i64,
    /// Data keys by the version that wraps them.
    pub data_keys: BTreeMap<i64, i64>,
    pub destroyed: i64,
}

/// Makes a new version and wraps every data key with it. `alone`: no other process serves this store, so none has to
/// learn of the version before it is used.
pub async fn rotate(vault: &Vault, db: &Db, owner: TenantId, actor: &str, alone: bool) -> Result<Rotated> {
    // A tenant whose keys were destroyed gets no new ones.
    vault.tenant(owner)?;
    let v = vault.clone();
    let version = db
        .write(TenantId::SYSTEM, move |tx| {
            Box::pin(async move {
                let args = [owner.number().into(), Purpose::Wrap.name().into()];
                let version = tx.query_one(NEXT, &args).await?.i64(0)?;
                match v.add(tx, owner, Purpose::Wrap, version).await? {
                    1 => Ok(version),
                    _ => Err(Error::conflict("vault.rotating", "The keys are being rotated already.")),
                }
            })
        })
        .await?;
    audited(db, owner, actor, format!("rotate to version {version}")).await?;
    if !alone || db.engine() == Engine::Postgres {
        tokio::time::sleep(SETTLE).await;
    }
    vault.reload(db).await?;
    let rewrapped = rewrap(vault, db, owner).await?;
    Ok(Rotated { version, rewrapped })
}

/// Wraps what an older version still wraps; answers how many.
pub async fn rewrap(vault: &Vault, db: &Db, owner: TenantId) -> Result<u64> {
    let mut all = 0;
    loop {
        let keys = vault.tenant(owner)?;
        let newest = *keys.wrapping.last_key_value().ok_or_else(super::no_key)?.0;
        let (read, done) = db
            .write(owner, move |tx| {
                Box::pin(async move {
                    let rows = tx.query(BEHIND, &[newest.into(), BATCH.into()]).await?;
                    let mut done = 0;
                    for row in &rows {
                        let (id, was) = (row.i64(0)?, row.i64(3)?);
                        let name = (row.text(1)?, row.text(2)?);
                        let (version, wrapped) = keys.rewrap(owner, id, name, was, row.blob(4)?)?;
                        let args = [id.into(), was.into(), version.into(), wrapped.into()];
                        done += tx.exec(REWRAP, &args).await?;
                    }
                    Ok((rows.len(), done))
                })
            })
            .await?;
        all += done;
        if i64::try_from(read).unwrap_or(BATCH) < BATCH {
            return Ok(all);
        }
    }
}

pub async fn standing(vault: &Vault, db: &Db, owner: TenantId) -> Result<Standing> {
    let version = vault.tenant(owner)?.wrapping.keys().last().copied().unwrap_or(0);
    let mut data_keys = BTreeMap::new();
    for row in db.query(owner, COUNTS, &[]).await? {
        data_keys.insert(row.i64(0)?, row.i64(1)?);
    }
    let destroyed = db.query_one(owner, GONE, &[]).await?.i64(0)?;
    Ok(Standing {
        version,
        data_keys,
        destroyed,
    })
}

async fn audited(db: &Db, owner: TenantId, actor: &str, detail: String) -> Result<()> {
    let actor = actor.to_owned();
    db.write(owner, move |tx| {
        Box::pin(async move {
            let entry = Entry {
                actor: &actor,
                action: "update",
                target: "key:tenant",
                outcome: "success",
                detail: &detail,
            };
            audit::write(tx, entry).await
        })
    })
    .await
}
