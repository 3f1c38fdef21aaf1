//! The numbers of codes and of clients' ids within a transaction.

use super::{Change, Shelf, Target, shelf::CodeKey};
use crate::{
    definitions::{Definitions, ResourceDef},
    extract::{Extracted, Reference},
    index::{Numbers, clip},
    outcome::Failure,
};
use medtech_kernel::Tx;
use std::{collections::HashMap, sync::Arc};

/// What a transaction has interned so far.
#[derive(Default)]
pub(super) struct State {
    pub(super) names: Interned,
    new_codes: Vec<(CodeKey, i64)>,
    new_xids: Vec<((i64, String), i64)>,
}

impl State {
    /// Row number, logical id, and whether the id is one of ours.
    pub(super) async fn row(
        &mut self,
        tx: &mut Tx,
        shelf: &Shelf,
        change: &Change,
    ) -> Result<(i64, String, bool), Failure> {
        match &change.target {
            Target::New(rid) => Ok((*rid, shelf.ids.id(*rid), true)),
            Target::Id(id) => match shelf.ids.rid(id) {
                Some(rid) => Ok((rid, id.clone(), true)),
                None => Ok((self.target(tx, shelf, change.def, id).await?, id.clone(), false)),
            },
        }
    }

    async fn target(&mut self, tx: &mut Tx, shelf: &Shelf, def: &ResourceDef, id: &str) -> Result<i64, Failure> {
        if let Some(rid) = shelf.ids.rid(id) {
            return Ok(rid);
        }
        let key = (def.number, id.to_owned());
        let (rid, new) = shelf.intern_xid(tx, &key).await?;
        if new {
            self.new_xids.push((key, rid));
        }
        Ok(rid)
    }

    pub(super) async fn intern(&mut self, tx: &mut Tx, shelf: &Shelf, found: &Extracted) -> Result<(), Failure> {
        let units = found
            .quantities
            .iter()
            .filter_map(|(_, unit, _)| unit.as_ref())
            .map(|(c, s)| (c, s));
        for (code, system) in found.codes.iter().map(|(_, c, s)| (c, s)).chain(units) {
            let key = (clip(code).to_owned(), clip(system).to_owned());
            if !self.names.codes.contains_key(&key) {
                let (id, new) = shelf.intern_code(tx, &key).await?;
                if new {
                    self.new_codes.push((key.clone(), id));
                }
                self.names.codes.insert(key, id);
            }
        }
        for (_, to) in &found.references {
            if let Reference::Local(ty, id) = to
                && !self.names.targets.contains_key(&(*ty, id.clone()))
            {
                let Some(def) = Definitions::get().resource(ty) else {
                    continue;
                };
                let rid = self.target(tx, shelf, def, id).await?;
                self.names.targets.insert((*ty, id.clone()), rid);
            }
        }
        Ok(())
    }

    /// Tells the caches, once it is committed.
    pub(super) fn publish(self, tx: &mut Tx, shelf: &Arc<Shelf>) {
        let (shelf, codes, xids) = (Arc::clone(shelf), self.new_codes, self.new_xids);
        if !codes.is_empty() || !xids.is_empty() {
            tx.after_commit(move || shelf.learn(codes, xids));
        }
    }
}

/// Numbers of this transaction: what the caches know and what it interned itself.
#[derive(Default)]
pub(super) struct Interned {
    codes: HashMap<CodeKey, i64>,
    targets: HashMap<(&'static str, String), i64>,
}

impl Numbers for Interned {
    fn code(&self, code: &str, system: &str) -> i64 {
        self.codes
            .get(&(clip(code).to_owned(), clip(system).to_owned()))
            .copied()
            .unwrap_or(-1)
    }

    fn target(&self, ty: &'static str, id: &str) -> i64 {
        self.targets.get(&(ty, id.to_owned())).copied().unwrap_or(-1)
    }
}
