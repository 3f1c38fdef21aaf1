//! What is kept in memory of one tenant: its id permutation, interned codes, client ids, and a block of row numbers.

use super::{Exec, Veil};
use crate::{definitions::ResourceDef, ids::Permutation, index::clip};
use medtech_kernel::{Ctx, Db, Result, TenantId, Tx, db::Engine};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError, RwLock},
};

/// Row numbers taken from the database at once. What is left of a block at a stop is never used.
const BLOCK: i64 = 1024;
/// Entries of a cache; past that it starts anew.
const CACHE: usize = 200_000;

const NEXT: &str = "INSERT INTO fhir_next (tenant, next) VALUES ($1, 1 + $2)
    ON CONFLICT (tenant) DO UPDATE SET next = fhir_next.next + $2 RETURNING next";
const FIND_XID: &str = "SELECT rid FROM fhir_xid WHERE tenant = $1 AND ty = $2 AND id = $3";
const ADD_XID: &str = "INSERT INTO fhir_xid (tenant, ty, id, rid) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
const FIND_CODE: &str = "SELECT id FROM fhir_code WHERE tenant = $1 AND code = $2 AND sys = $3";
const ADD_CODE: &str = "INSERT INTO fhir_code (tenant, code, sys) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

pub(crate) type CodeKey = (String, String);
pub(crate) type XidKey = (i64, String);

pub(crate) struct Shelf {
    pub(crate) tenant: TenantId,
    pub(crate) ids: Permutation,
    /// Where index rows are blinded.
    pub(crate) veil: Option<Veil>,
    codes: RwLock<HashMap<CodeKey, i64>>,
    xids: RwLock<HashMap<XidKey, i64>>,
    /// (next, end)
    block: Mutex<(i64, i64)>,
}

impl Shelf {
    pub(crate) fn new(tenant: TenantId, ctx: &Ctx) -> Self {
        Self {
            tenant,
            ids: Permutation::new(&ctx.root.derive("fhir.ids", tenant)),
            veil: (ctx.db.engine() == Engine::Postgres).then(|| Veil::new(ctx.vault.clone(), tenant)),
            codes: RwLock::default(),
            xids: RwLock::default(),
            block: Mutex::new((0, 0)),
        }
    }

    /// A number that stands for a text, as it stands in the index.
    pub(crate) fn number(&self, hash: i64) -> Result<i64> {
        self.veil.as_ref().map_or(Ok(hash), |veil| veil.number(hash))
    }

    fn take(&self, n: i64) -> Option<i64> {
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        let first = block.0;
        (first + n <= block.1).then(|| {
            block.0 += n;
            first
        })
    }

    /// `n` row numbers in a row; answers the first. For use outside of a transaction.
    pub(crate) async fn reserve(&self, db: &Db, n: usize) -> Result<i64> {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        if let Some(first) = self.take(n) {
            return Ok(first);
        }
        let size = n + BLOCK;
        let end = db
            .write(self.tenant, move |tx| {
                Box::pin(async move { tx.query_one(NEXT, &[size.into()]).await?.i64(0) })
            })
            .await?;
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        *block = (end - size + n, end);
        Ok(end - size)
    }

    /// The same inside a transaction. What a rolled back transaction took is handed out again, so nothing of it is kept.
    pub(crate) async fn reserve_in(&self, tx: &mut Tx, n: usize) -> Result<i64> {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        match self.take(n) {
            Some(first) => Ok(first),
            None => Ok(tx.query_one(NEXT, &[n.into()]).await?.i64(0)? - n),
        }
    }

    pub(crate) fn known_code(&self, code: &str, system: &str) -> Option<i64> {
        let key = (clip(code).to_owned(), clip(system).to_owned());
        self.codes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .copied()
    }

    fn known_xid(&self, key: &XidKey) -> Option<i64> {
        self.xids
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .copied()
    }

    /// Publishes what a committed transaction interned.
    pub(crate) fn learn(&self, codes: Vec<(CodeKey, i64)>, xids: Vec<(XidKey, i64)>) {
        extend(&self.codes, codes);
        extend(&self.xids, xids);
    }

    /// The number of a code, made if need be. The flag says that it is not in the cache.
    pub(crate) async fn intern_code(&self, tx: &mut Tx, key: &CodeKey) -> Result<(i64, bool)> {
        if let Some(id) = self.known_code(&key.0, &key.1) {
            return Ok((id, false));
        }
        let args = [(&key.0).into(), (&key.1).into()];
        if let Some(row) = tx.query_opt(FIND_CODE, &args).await? {
            return Ok((row.i64(0)?, true));
        }
        tx.exec(ADD_CODE, &args).await?;
        Ok((tx.query_one(FIND_CODE, &args).await?.i64(0)?, true))
    }

    /// The row number behind a client's id, reserved if need be.
    pub(crate) async fn intern_xid(&self, tx: &mut Tx, key: &XidKey) -> Result<(i64, bool)> {
        if let Some(rid) = self.known_xid(key) {
            return Ok((rid, false));
        }
        let find = [key.0.into(), (&key.1).into()];
        if let Some(row) = tx.query_opt(FIND_XID, &find).await? {
            return Ok((row.i64(0)?, true));
        }
        let rid = self.reserve_in(tx, 1).await?;
        tx.exec(ADD_XID, &[key.0.into(), (&key.1).into(), rid.into()]).await?;
        Ok((tx.query_one(FIND_XID, &find).await?.i64(0)?, true))
    }
}

fn extend<K: Eq + std::hash::Hash>(cache: &RwLock<HashMap<K, i64>>, new: Vec<(K, i64)>) {
    if new.is_empty() {
        return;
    }
    let mut cache = cache.write().unwrap_or_else(PoisonError::into_inner);
    if cache.len() + new.len() > CACHE {
        cache.clear();
    }
    cache.extend(new);
}

/// The row behind a logical id: ours by arithmetic, a client's by look-up.
pub(crate) async fn resolve(exec: &mut Exec<'_>, shelf: &Shelf, def: &ResourceDef, id: &str) -> Result<Option<i64>> {
    if let Some(rid) = shelf.ids.rid(id) {
        return Ok(Some(rid));
    }
    if !crate::validate::is_id(id) {
        return Ok(None);
    }
    let key = (def.number, id.to_owned());
    if let Some(rid) = shelf.known_xid(&key) {
        return Ok(Some(rid));
    }
    let Some(row) = exec.query_opt(FIND_XID, &[key.0.into(), id.into()]).await? else {
        return Ok(None);
    };
    let rid = row.i64(0)?;
    // Inside of a transaction it may be one that is never committed.
    if matches!(exec, Exec::Db(..)) {
        shelf.learn(Vec::new(), vec![(key, rid)]);
    }
    Ok(Some(rid))
}
