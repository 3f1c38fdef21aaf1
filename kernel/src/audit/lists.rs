//! Lists with the names of patients (the day, the waiting list) in the trail: one entry a look, about everyone on it. Screens ask
//! again every minute: whom a session was shown a short while ago is not named again, so that the trail does not drown.

use super::{Entry, Record, record};
use crate::{Db, Result, TenantId, auth::Principal, clock::Millis, policy::patient_of};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};
use uuid::Uuid;

/// For so long a session that looks again is not told of anew.
const AGAIN: Millis = 15 * 60_000;
/// Sessions and lists remembered; beyond it the memory starts anew, and some looks stand twice.
const MOST: usize = 2048;

/// What sessions were shown. One for each owner of lists.
pub struct Lists {
    db: Db,
    seen: Mutex<HashMap<Key, (Millis, HashSet<String>)>>,
}

type Key = (TenantId, Uuid, &'static str);

impl Lists {
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self {
            db,
            seen: Mutex::default(),
        }
    }

    /// `who` was shown a list of these: `patient:{id}`, or what is about a patient by the policy (`visit:{id}`).
    pub async fn note(&self, who: &Principal, list: &'static str, shown: Vec<String>) -> Result<()> {
        let key = (who.tenant, who.session, list);
        let fresh = self.fresh(key, shown);
        if fresh.is_empty() {
            return Ok(());
        }
        let (actor, named) = (who.subject.clone(), fresh.clone());
        self.db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    let mut patients = Vec::with_capacity(named.len());
                    for of in &named {
                        match of.strip_prefix("patient:") {
                            Some(patient) => patients.push(patient.to_owned()),
                            None => patients.extend(patient_of(tx, of).await?),
                        }
                    }
                    if patients.is_empty() {
                        return Ok(());
                    }
                    let entry = Entry {
                        actor: &actor,
                        action: "read",
                        target: list,
                        outcome: "success",
                        detail: "list of names",
                    };
                    let one = Record::new(entry).about(patients.iter().map(String::as_str));
                    record(tx, vec![one]).await
                })
            })
            .await?;
        // Only what stands in the trail counts as told.
        self.tell(key, fresh);
        Ok(())
    }

    /// Is `what` to be named in the trail, as one of a kind, before this session is shown it? Say [`Lists::told`] when it stands there.
    pub fn is_new(&self, who: &Principal, kind: &'static str, what: &str) -> bool {
        let key = (who.tenant, who.session, kind);
        !self.fresh(key, vec![what.to_owned()]).is_empty()
    }

    /// It stands in the trail that this session was shown it.
    pub fn told(&self, who: &Principal, kind: &'static str, what: String) {
        self.tell((who.tenant, who.session, kind), vec![what]);
    }

    fn tell(&self, key: Key, shown: Vec<String>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MOST && !seen.contains_key(&key) {
            seen.clear();
        }
        let now = self.db.now();
        seen.entry(key).or_insert_with(|| (now, HashSet::new())).1.extend(shown);
    }

    /// Those of whom the session was not told lately.
    fn fresh(&self, key: Key, shown: Vec<String>) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.get(&key).is_some_and(|(since, _)| since + AGAIN <= self.db.now()) {
            seen.remove(&key);
        }
        let known = seen.get(&key).map(|(_, known)| known);
        let mut fresh: Vec<String> = shown
            .into_iter()
            .filter(|s| known.is_none_or(|k| !k.contains(s)))
            .collect();
        fresh.sort_unstable();
        fresh.dedup();
        fresh
    }
}
