//! Encryption at rest: the root key opens the keys of each tenant, those open its data keys, and those seal its data.
//!
//! Read in this order: [`root`] (who keeps the root key), this file (the keys of tenants), [`data`] (data keys, sealing and
//! opening), [`column`] (texts of single columns), [`rotate`] (a new key while the server runs), [`ledger`] (what was erased
//! stays erased), [`sweep`] (what was written before it was sealed), [`cipher`].
//!
//! A tenant has four secrets, each drawn at random and wrapped by the root: one that wraps data keys (in versions), one
//! that blinds what is searched, one from which the pages of its file are sealed, one from which single columns are.
//! Destroying them destroys the tenant.

mod cipher;
mod column;
mod data;
mod ledger;
mod root;
mod rotate;
mod sweep;
#[cfg(test)]
mod tests;
mod text;

pub use cipher::{Key, OVERHEAD, aad};
pub use column::{Blind, Field, SealedText, Secret};
pub(crate) use column::{coming_out, going_in};
pub use data::{Class, Door, Keys, Scope, key_id, keys};
pub use ledger::{Erasure, Ledger, UnderWay};
pub use root::{External, Fetched, KeyFile, KeyService, Opened, Passphrase, RootProvider, Sealed, protect, unlock};
pub use rotate::{Rotated, Standing, rewrap, rotate, standing};
pub use sweep::{Cell, Progress, Sheet, is_settled, looked_through, note, progress, sweep};
pub use text::Texts;

use crate::{
    Db, Error, Result, TenantId, Tx, id,
    secret::{Root, expand},
};
use aws_lc_rs::hmac;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// How often a server looks whether another process made, rotated or destroyed keys.
pub const REFRESH: Duration = Duration::from_secs(1);

/// The keys at hand. Clones share them.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    root: Root,
    ledger: Ledger,
    tenants: RwLock<HashMap<TenantId, Arc<TenantKeys>>>,
    data: data::Cache,
    /// What the tables said when they were last read: (rows, last change, erasures).
    seen: RwLock<(i64, i64, i64)>,
}

#[derive(Default)]
struct TenantKeys {
    wrapping: BTreeMap<i64, Key>,
    index: Option<Bytes>,
    page: Option<Bytes>,
    column: Option<Bytes>,
    /// Keys derived from `column`.
    columns: RwLock<HashMap<Which, Arc<Key>>>,
}

type Bytes = Zeroizing<[u8; 32]>;
/// A column and an epoch.
type Which = (&'static str, &'static str, u32);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Wrap,
    Index,
    Page,
    Column,
}

impl Purpose {
    const ALL: [Self; 4] = [Self::Wrap, Self::Index, Self::Page, Self::Column];

    fn name(self) -> &'static str {
        match self {
            Self::Wrap => "kek",
            Self::Index => "index",
            Self::Page => "page",
            Self::Column => "column",
        }
    }
}

/// For tests: what the keys of clinics and of data are called.
#[cfg(feature = "testkit")]
pub fn key_names() -> impl Iterator<Item = &'static str> {
    let of_clinics = Purpose::ALL.into_iter().map(Purpose::name);
    of_clinics.chain(Class::ALL.into_iter().map(Class::name))
}

const ALL: &str = "SELECT owner, purpose, version, wrapped FROM vault_key WHERE tenant = $1 AND wrapped IS NOT NULL";
const OF: &str = "SELECT purpose FROM vault_key WHERE tenant = $1 AND owner = $2";
const ADD: &str = "INSERT INTO vault_key (tenant, owner, purpose, version, wrapped, made_at, changed_at)
    VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT DO NOTHING";
const DESTROY: &str = "UPDATE vault_key SET wrapped = NULL, changed_at = $3 WHERE tenant = $1 AND owner = $2";
const STATE: &str = "SELECT (SELECT COUNT(*) FROM vault_key WHERE tenant = $1),
    (SELECT COALESCE(MAX(changed_at), 0) FROM vault_key WHERE tenant = $1),
    (SELECT COUNT(*) FROM erasure WHERE tenant = $1)";
const OWNERS: &str = "SELECT id FROM tenant WHERE tenant = $1";
const VERIFIER: &str = "SELECT verifier FROM vault_root WHERE tenant = $1";
const SET_VERIFIER: &str = "INSERT INTO vault_root (tenant, verifier) VALUES ($1, $2) ON CONFLICT DO NOTHING";

impl Vault {
    /// With the root key. The keys of tenants come by [`Vault::load`].
    #[must_use]
    pub fn new(root: Root, ledger: Ledger) -> Self {
        Self(Arc::new(Inner {
            root,
            ledger,
            tenants: RwLock::default(),
            data: data::Cache::default(),
            seen: RwLock::default(),
        }))
    }

    /// Reads the keys of every tenant, makes those that a tenant of an older release lacks, and carries out again what
    /// the ledger says was erased. A root key that is not this store's is refused.
    pub async fn load(&self, db: &Db) -> Result<()> {
        let verifier = root::verifier(&self.0.root);
        let known = db
            .write(TenantId::SYSTEM, move |tx| {
                Box::pin(async move {
                    tx.exec(SET_VERIFIER, &[verifier.into()]).await?;
                    let known = tx.query_one(VERIFIER, &[]).await?;
                    Ok(known.blob(0)? == verifier)
                })
            })
            .await?;
        if !known {
            return Err(root::wrong_key().into());
        }
        let vault = self.clone();
        db.write(TenantId::SYSTEM, move |tx| {
            Box::pin(async move {
                let mut owners = vec![TenantId::SYSTEM];
                for row in tx.query(OWNERS, &[]).await? {
                    owners.push(TenantId::from_number(row.i64(0)?));
                }
                for owner in owners {
                    vault.provide(tx, owner).await?;
                }
                Ok(())
            })
        })
        .await?;
        self.reload(db).await?;
        db.seal_plain_files()?;
        ledger::replay(self, db).await
    }

    /// Makes the keys of a tenant that has none, in the transaction of the system tenant that registers it.
    pub(crate) async fn provide(&self, tx: &mut Tx, owner: TenantId) -> Result<()> {
        let there = tx.query(OF, &[owner.number().into()]).await?;
        let there = there.iter().map(|r| r.string(0)).collect::<Result<Vec<_>>>()?;
        for purpose in Purpose::ALL {
            if !there.iter().any(|name| name == purpose.name()) {
                self.add(tx, owner, purpose, 1).await?;
            }
        }
        Ok(())
    }

    async fn add(&self, tx: &mut Tx, owner: TenantId, purpose: Purpose, version: i64) -> Result<u64> {
        let secret = Zeroizing::new(id::random::<32>());
        let wrapped = self.wrapper(owner)?.seal(&bound(owner, purpose, version), &*secret)?;
        let now = tx.now();
        let args = [
            owner.number().into(),
            purpose.name().into(),
            version.into(),
            wrapped.into(),
            now.into(),
        ];
        tx.exec(ADD, &args).await
    }

    /// What wraps the keys of a tenant.
    fn wrapper(&self, owner: TenantId) -> Result<Key> {
        Key::new(&Zeroizing::new(self.0.root.derive("vault key wrap 1", owner)))
    }

    /// Reads the keys of tenants again.
    pub async fn reload(&self, db: &Db) -> Result<()> {
        let seen = state(db).await?;
        let mut fresh: HashMap<TenantId, TenantKeys> = HashMap::new();
        for row in db.query(TenantId::SYSTEM, ALL, &[]).await? {
            let owner = TenantId::from_number(row.i64(0)?);
            let (name, version) = (row.text(1)?, row.i64(2)?);
            let Some(purpose) = Purpose::ALL.into_iter().find(|p| p.name() == name) else {
                continue;
            };
            let secret = Zeroizing::new(
                self.wrapper(owner)?
                    .open(&bound(owner, purpose, version), row.blob(3)?)?,
            );
            let secret = <[u8; 32]>::try_from(secret.as_slice()).map_err(|e| Error::internal("vault.key", e))?;
            let (keys, secret) = (fresh.entry(owner).or_default(), Zeroizing::new(secret));
            match purpose {
                Purpose::Wrap => drop(keys.wrapping.insert(version, Key::new(&secret)?)),
                Purpose::Index => keys.index = Some(secret),
                Purpose::Page => keys.page = Some(secret),
                Purpose::Column => keys.column = Some(secret),
            }
        }
        let fresh = fresh.into_iter().map(|(owner, keys)| (owner, Arc::new(keys))).collect();
        *self.0.tenants.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        *self.0.seen.write().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(())
    }

    /// Takes notice of what another process did to the keys.
    pub async fn refresh(&self, db: &Db) -> Result<()> {
        let (now, seen) = (
            state(db).await?,
            *self.0.seen.read().unwrap_or_else(PoisonError::into_inner),
        );
        if now != seen {
            self.reload(db).await?;
            if now.2 != seen.2 {
                ledger::replay(self, db).await.inspect_err(|_| {
                    // Nothing has changed by the next look; it is to be tried all the same.
                    self.0.seen.write().unwrap_or_else(PoisonError::into_inner).2 = -1;
                })?;
            }
        }
        Ok(())
    }

    fn tenant(&self, tenant: TenantId) -> Result<Arc<TenantKeys>> {
        let tenants = self.0.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.get(&tenant).cloned().ok_or_else(no_key)
    }

    /// The key of a tenant's file in an epoch of its pages. The system tenant's comes from the root alone, since its
    /// file is where the others' keys are read from.
    pub fn page_key(&self, tenant: TenantId, epoch: u32) -> Result<[u8; 32]> {
        if tenant == TenantId::SYSTEM {
            return Ok(self.0.root.derive(&format!("vault page {epoch}"), tenant));
        }
        let label = format!("page {epoch}");
        let keys = self.tenant(tenant)?;
        let secret = keys.page.as_ref().ok_or_else(no_key)?;
        Ok(expand(secret, &[label.as_bytes()]))
    }

    /// What stands in an index for a value: the same value in the same field of the same tenant gives the same bytes,
    /// and without the key nothing is learnt from them but which rows are alike.
    pub fn blind(&self, tenant: TenantId, field: &str, value: &str) -> Result<[u8; 32]> {
        let keys = self.tenant(tenant)?;
        let secret = keys.index.as_ref().ok_or_else(no_key)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &**secret);
        let tag = hmac::sign(&key, &aad(&[field.as_bytes(), value.as_bytes()]));
        tag.as_ref().try_into().map_err(|e| Error::internal("vault.blind", e))
    }

    /// Destroys every key of a tenant: nothing of it can be read again, in no backup. The ledger first.
    pub async fn shred_tenant(&self, db: &Db, owner: TenantId) -> Result<()> {
        ledger::note(self, db, owner, "tenant", "").await?;
        self.destroy_tenant(db, owner).await
    }

    async fn destroy_tenant(&self, db: &Db, owner: TenantId) -> Result<()> {
        db.write(TenantId::SYSTEM, move |tx| {
            Box::pin(async move {
                let now = tx.now();
                tx.exec(DESTROY, &[owner.number().into(), now.into()]).await
            })
        })
        .await?;
        self.0.data.forget(owner, None);
        self.reload(db).await
    }
}

/// Keeps an eye on the keys until `stop` turns true.
pub async fn keep(vault: Vault, db: Db, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(REFRESH);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if let Err(e) = vault.refresh(&db).await {
            tracing::warn!(error = ?e, "the keys will be looked at again");
        }
    }
}

async fn state(db: &Db) -> Result<(i64, i64, i64)> {
    let row = db.query_one(TenantId::SYSTEM, STATE, &[]).await?;
    Ok((row.i64(0)?, row.i64(1)?, row.i64(2)?))
}

fn bound(owner: TenantId, purpose: Purpose, version: i64) -> Vec<u8> {
    aad(&[
        b"medtech vault key 1",
        &owner.number().to_be_bytes(),
        purpose.name().as_bytes(),
        &version.to_be_bytes(),
    ])
}

fn no_key() -> Error {
    Error::unavailable(
        "vault.no_key",
        "The clinic's keys are not here. Nothing of it can be read.",
    )
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(..)")
    }
}
