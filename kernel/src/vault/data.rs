//! Data keys: one for each patient, file or conversation, one for the rest of a tenant each month. They stand wrapped in
//! the tenant's own store, and what they seal says which of them opens it.
//!
//! Sealed bytes are `format | key id | nonce | ciphertext | tag`. Authenticated with them: the tenant, the key and the
//! place (table and row), so that bytes copied to another place do not open there.

use super::{
    TenantKeys, Vault,
    cipher::{Key, OVERHEAD, aad},
};
use crate::{Db, Error, Result, Row, TenantId, Tx, Val, clock::Millis, db::Sql, id};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const HEAD: usize = 9;
/// Keys held in memory; past that the cache starts anew.
const CACHE: usize = 50_000;
/// Keys asked for in one statement.
const AT_ONCE: usize = 100;
/// Thirty days: how long one key of a tenant's own is used.
const SPELL: Millis = 30 * 24 * 3_600_000;

/// What a data key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    Patient,
    File,
    Conversation,
    /// Whatever belongs to nobody in particular.
    Tenant,
}

impl Class {
    pub(super) const ALL: [Self; 4] = [Self::Patient, Self::File, Self::Conversation, Self::Tenant];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Patient => "patient",
            Self::File => "file",
            Self::Conversation => "conversation",
            Self::Tenant => "tenant",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }
}

/// Whose key seals.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub class: Class,
    /// The logical id of the Patient, the id of the file or the conversation.
    pub subject: &'a str,
}

impl Scope<'static> {
    /// Nobody's in particular.
    pub const TENANT: Self = Self {
        class: Class::Tenant,
        subject: "",
    };
}

impl<'a> Scope<'a> {
    #[must_use]
    pub fn patient(subject: &'a str) -> Self {
        Self {
            class: Class::Patient,
            subject,
        }
    }
}

struct DataKey {
    id: i64,
    key: Arc<Key>,
}

#[derive(Default)]
pub(super) struct Cache(RwLock<Known>);

#[derive(Default)]
struct Known {
    by_id: HashMap<(TenantId, i64), Arc<DataKey>>,
    by_name: HashMap<(TenantId, Class, String), i64>,
    /// Destroyed while we ran: a transaction that was under way must not bring them back.
    gone: HashSet<(TenantId, i64)>,
}

impl Cache {
    fn by_id(&self, tenant: TenantId, id: i64) -> Option<Arc<DataKey>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.by_id.get(&(tenant, id)).cloned()
    }

    fn by_name(&self, tenant: TenantId, class: Class, subject: &str) -> Option<Arc<DataKey>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let id = known.by_name.get(&(tenant, class, subject.to_owned()))?;
        known.by_id.get(&(tenant, *id)).cloned()
    }

    fn learn(&self, tenant: TenantId, name: Option<(Class, String)>, key: Arc<DataKey>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.gone.contains(&(tenant, key.id)) {
            return;
        }
        if known.by_id.len() >= CACHE {
            known.by_id.clear();
            known.by_name.clear();
        }
        if let Some((class, subject)) = name {
            known.by_name.insert((tenant, class, subject), key.id);
        }
        known.by_id.insert((tenant, key.id), key);
    }

    /// Forgets one key of a tenant, or all.
    pub(super) fn forget(&self, tenant: TenantId, one: Option<i64>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known
            .by_id
            .retain(|(t, id), _| *t != tenant || one.is_some_and(|one| one != *id));
        known
            .by_name
            .retain(|(t, ..), id| *t != tenant || one.is_some_and(|one| one != *id));
        known.gone.extend(one.map(|one| (tenant, one)));
    }
}

const FIND: &str = "SELECT id, version, wrapped FROM data_key WHERE tenant = $1 AND class = $2 AND subject = $3";
const MAKE: &str = "INSERT INTO data_key (tenant, id, class, subject, version, wrapped, made_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
const BY_IDS: &str = "SELECT id, class, subject, version, wrapped FROM data_key WHERE tenant = $1 AND id IN";
const SHRED: &str = "UPDATE data_key SET wrapped = NULL, gone_at = $4 WHERE tenant = $1 AND class = $2 AND subject = $3
    AND wrapped IS NOT NULL";
const TOMBSTONE: &str = "INSERT INTO data_key (tenant, id, class, subject, version, wrapped, made_at, gone_at)
    VALUES ($1, $2, $3, $4, 0, NULL, $5, $5) ON CONFLICT DO NOTHING";

impl TenantKeys {
    fn unwrap(&self, tenant: TenantId, id: i64, name: (&str, &str), version: i64, wrapped: &[u8]) -> Result<DataKey> {
        let with = self.wrapping.get(&version).ok_or_else(|| {
            Error::unavailable(
                "vault.key_version",
                "The keys are being changed. Try again in a moment.",
            )
        })?;
        let bytes = Zeroizing::new(with.open(&bound(tenant, id, name, version), wrapped)?);
        let bytes = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|e| Error::internal("vault.data_key", e))?;
        Ok(DataKey {
            id,
            key: Arc::new(Key::new(&Zeroizing::new(bytes))?),
        })
    }

    /// The newest version, and the bytes wrapped with it.
    pub(super) fn wrap(&self, tenant: TenantId, id: i64, name: (&str, &str), bytes: &[u8]) -> Result<(i64, Vec<u8>)> {
        let (version, key) = self.wrapping.last_key_value().ok_or_else(super::no_key)?;
        Ok((*version, key.seal(&bound(tenant, id, name, *version), bytes)?))
    }

    /// The same data key wrapped with the newest version.
    pub(super) fn rewrap(
        &self,
        tenant: TenantId,
        id: i64,
        name: (&str, &str),
        version: i64,
        wrapped: &[u8],
    ) -> Result<(i64, Vec<u8>)> {
        let old = self.wrapping.get(&version).ok_or_else(super::no_key)?;
        let bytes = Zeroizing::new(old.open(&bound(tenant, id, name, version), wrapped)?);
        self.wrap(tenant, id, name, &bytes)
    }
}

fn bound(tenant: TenantId, id: i64, (class, subject): (&str, &str), version: i64) -> Vec<u8> {
    aad(&[
        b"medtech data key 1",
        &tenant.number().to_be_bytes(),
        &id.to_be_bytes(),
        class.as_bytes(),
        subject.as_bytes(),
        &version.to_be_bytes(),
    ])
}

fn place(tenant: TenantId, id: i64, context: &str) -> Vec<u8> {
    aad(&[
        b"medtech sealed 1",
        &tenant.number().to_be_bytes(),
        &id.to_be_bytes(),
        context.as_bytes(),
    ])
}

fn erased() -> Error {
    Error::gone("vault.erased", "This was erased, and cannot be read again.")
}

impl Tx {
    /// Seals bytes under the key of `scope`, which is made if need be. `context` names the place they go to and must be
    /// given again to open them.
    pub async fn seal(&mut self, scope: Scope<'_>, context: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let key = self.data_key(scope).await?;
        let mut out = Vec::with_capacity(HEAD + plain.len() + OVERHEAD);
        out.push(FORMAT);
        out.extend_from_slice(&key.id.to_be_bytes());
        key.key
            .seal_into(&place(self.tenant(), key.id, context), plain, &mut out)?;
        Ok(out)
    }

    /// Opens what [`Tx::seal`] sealed for this place.
    pub async fn unseal(&mut self, context: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        keys(Door::Tx(self), key_id(sealed)).await?.open(context, sealed)
    }

    /// The number of the key of `scope`, made if need be: what a file's row keeps.
    pub async fn data_key_id(&mut self, scope: Scope<'_>) -> Result<i64> {
        Ok(self.data_key(scope).await?.id)
    }

    async fn data_key(&mut self, scope: Scope<'_>) -> Result<Arc<DataKey>> {
        let (vault, tenant) = (self.vault()?.clone(), self.tenant());
        let month;
        let subject = match scope.class {
            Class::Tenant => {
                month = self.now().div_euclid(SPELL).to_string();
                &*month
            }
            _ => scope.subject,
        };
        if let Some(key) = vault.0.data.by_name(tenant, scope.class, subject) {
            return Ok(key);
        }
        let (name, keys) = ((scope.class.name(), subject), vault.tenant(tenant)?);
        let find = [name.0.into(), name.1.into()];
        let mut row = self.query_opt(FIND, &find).await?;
        if row.is_none() {
            let id = i64::from_be_bytes(id::random()) & i64::MAX;
            let secret = Zeroizing::new(id::random::<32>());
            let (version, wrapped) = keys.wrap(tenant, id, name, &*secret)?;
            let now = self.now();
            let args = [
                id.into(),
                name.0.into(),
                name.1.into(),
                version.into(),
                wrapped.into(),
                now.into(),
            ];
            self.exec(MAKE, &args).await?;
            row = Some(self.query_one(FIND, &find).await?);
        }
        let row = row.ok_or_else(erased)?;
        let wrapped = row.opt_blob(2)?.ok_or_else(erased)?;
        let key = Arc::new(keys.unwrap(tenant, row.i64(0)?, name, row.i64(1)?, wrapped)?);
        // Only what is committed may be known to others.
        let (learnt, name) = (key.clone(), (scope.class, subject.to_owned()));
        self.after_commit(move || vault.0.data.learn(tenant, Some(name), learnt));
        Ok(key)
    }

    /// Destroys a key and leaves a tombstone: nothing sealed under it opens again, and no other takes its name. `false`
    /// when it was destroyed before. [`super::Ledger`] must know of it first.
    pub(super) async fn destroy(&mut self, scope: Scope<'_>) -> Result<bool> {
        let (vault, tenant, now) = (self.vault()?.clone(), self.tenant(), self.now());
        let name: [Val; 2] = [scope.class.name().into(), scope.subject.into()];
        let [class, subject] = name.clone();
        let done = self.exec(SHRED, &[class, subject, now.into()]).await? == 1;
        let made = if done {
            0
        } else {
            let [class, subject] = name.clone();
            let id = i64::from_be_bytes(id::random()) & i64::MAX;
            self.exec(TOMBSTONE, &[id.into(), class, subject, now.into()]).await?
        };
        let id = self.query_one(FIND, &name).await?.i64(0)?;
        self.after_commit(move || vault.0.data.forget(tenant, Some(id)));
        Ok(done || made == 1)
    }
}

/// Where keys are read: outside of a transaction, or inside.
pub enum Door<'a> {
    Db(&'a Db, TenantId),
    Tx(&'a mut Tx),
}

impl Door<'_> {
    fn tenant(&self) -> TenantId {
        match self {
            Self::Db(_, tenant) => *tenant,
            Self::Tx(tx) => tx.tenant(),
        }
    }

    fn vault(&self) -> Result<Vault> {
        match self {
            Self::Db(db, _) => db.vault().cloned(),
            Self::Tx(tx) => tx.vault().cloned(),
        }
    }

    async fn query(&mut self, sql: Sql, args: &[Val]) -> Result<Vec<Row>> {
        match self {
            Self::Db(db, tenant) => db.query(*tenant, sql, args).await,
            Self::Tx(tx) => tx.query(sql, args).await,
        }
    }
}

/// The key that sealed these bytes.
#[must_use]
pub fn key_id(sealed: &[u8]) -> Option<i64> {
    match sealed.split_first() {
        Some((&FORMAT, rest)) => Some(i64::from_be_bytes(*rest.first_chunk()?)),
        _ => None,
    }
}

/// Some data keys of a tenant, for opening many rows.
pub struct Keys {
    tenant: TenantId,
    at_hand: HashMap<i64, Arc<DataKey>>,
}

/// Fetches the keys of some sealed rows. A key that was destroyed is left out.
pub async fn keys(mut door: Door<'_>, ids: impl IntoIterator<Item = i64>) -> Result<Keys> {
    let (tenant, vault) = (door.tenant(), door.vault()?);
    let (mut at_hand, mut missing) = (HashMap::new(), Vec::new());
    for id in ids {
        if at_hand.contains_key(&id) || missing.contains(&Val::I64(id)) {
            continue;
        }
        match vault.0.data.by_id(tenant, id) {
            Some(key) => drop(at_hand.insert(id, key)),
            None => missing.push(Val::I64(id)),
        }
    }
    for some in missing.chunks(AT_ONCE) {
        let marks: Vec<String> = (2..some.len() + 2).map(|n| format!("${n}")).collect();
        let sql = format!("{BY_IDS} ({})", marks.join(", "));
        for row in door.query(Sql::built(sql), some).await? {
            let Some(wrapped) = row.opt_blob(4)? else { continue };
            let (id, name, version) = (row.i64(0)?, (row.text(1)?, row.text(2)?), row.i64(3)?);
            let opened = vault.tenant(tenant)?.unwrap(tenant, id, name, version, wrapped);
            let key = match (&mut door, opened) {
                // Another process may have made this version just now.
                (Door::Db(db, _), Err(e)) if e.code == "vault.key_version" => {
                    vault.reload(db).await?;
                    vault.tenant(tenant)?.unwrap(tenant, id, name, version, wrapped)
                }
                (_, other) => other,
            };
            let key = Arc::new(key?);
            // In a transaction it may be one that is never committed.
            if matches!(door, Door::Db(..)) {
                vault.0.data.learn(tenant, None, key.clone());
            }
            at_hand.insert(id, key);
        }
    }
    Ok(Keys { tenant, at_hand })
}

impl Keys {
    /// What was sealed for this place. 410 where its key was destroyed.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let id = key_id(sealed).ok_or_else(|| Error::internal("vault.format", "not sealed bytes"))?;
        let key = self.at_hand.get(&id).ok_or_else(erased)?;
        key.key
            .open(&place(self.tenant, id, context), sealed.get(HEAD..).unwrap_or_default())
    }

    /// The key of this number, for those who lay out bytes themselves.
    pub fn cipher(&self, id: i64) -> Result<Arc<Key>> {
        self.at_hand.get(&id).map(|found| found.key.clone()).ok_or_else(erased)
    }
}
