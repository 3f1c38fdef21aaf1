//! What is known of principals, kept between their requests. A sight is used again only while the clinic's epoch stands
//! where it was read (it moves in the transaction of everything that gives or takes access, whichever server writes it), no
//! time in its facts has come, and the principal and the clinic's settings are the same.

use super::{Sight, View, consent::Rules, seeded::dropped};
use crate::{Tenant, TenantId, auth::Principal, clock::Millis, scope::Letter, tenant::Status};
use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
};
use uuid::Uuid;

/// Patients and rules in the sights of one half; the other half is the one before it, so the ones unused for longest go
/// first.
const HALF: usize = 100_000;
/// What a sight weighs besides.
const EACH: usize = 64;
/// Types of which one sight keeps views.
const KINDS: usize = 256;

#[derive(Default)]
pub(super) struct Kept {
    sights: Mutex<Sights>,
    consents: Mutex<HashMap<TenantId, Arc<[Rules]>>>,
}

#[derive(Default)]
struct Sights {
    young: HashMap<(TenantId, Uuid), Entry>,
    old: HashMap<(TenantId, Uuid), Entry>,
    weight: usize,
}

#[derive(Clone)]
struct Entry {
    sight: Arc<Sight>,
    epoch: i64,
    until: Millis,
    /// A bug on purpose: what was seen with it holds no longer than it.
    dropped: &'static str,
}

impl Kept {
    /// What was read of this principal, if it still holds.
    pub(super) fn get(&self, who: &Principal, tenant: Option<&Tenant>, epoch: i64, now: Millis) -> Option<Arc<Sight>> {
        let key = (who.tenant, who.session);
        let mut sights = lock(&self.sights);
        let entry = match sights.young.get(&key) {
            Some(entry) => entry.clone(),
            None => {
                let entry = sights.old.remove(&key)?;
                sights.put(key, entry.clone());
                entry
            }
        };
        drop(sights);
        entry.holds(who, tenant, epoch, now).then_some(entry.sight)
    }

    pub(super) fn put(&self, sight: &Arc<Sight>, epoch: i64, until: Millis) {
        let key = (sight.who.tenant, sight.who.session);
        let entry = Entry {
            sight: Arc::clone(sight),
            epoch,
            until,
            dropped: dropped(),
        };
        lock(&self.sights).put(key, entry);
    }

    /// The rules of a clinic's Consents, one copy for all who look.
    pub(super) fn shared(&self, tenant: TenantId, rules: Vec<Rules>) -> Arc<[Rules]> {
        let mut all = lock(&self.consents);
        match all.get(&tenant) {
            Some(known) if **known == *rules => Arc::clone(known),
            _ => {
                let rules: Arc<[Rules]> = rules.into();
                all.insert(tenant, Arc::clone(&rules));
                rules
            }
        }
    }
}

impl Sights {
    fn put(&mut self, key: (TenantId, Uuid), entry: Entry) {
        self.weight += entry.sight.weight();
        if self.weight > HALF {
            self.old = std::mem::take(&mut self.young);
            self.weight = entry.sight.weight();
        }
        if let Some(before) = self.young.insert(key, entry) {
            self.weight = self.weight.saturating_sub(before.sight.weight());
        }
    }
}

impl Entry {
    fn holds(&self, who: &Principal, tenant: Option<&Tenant>, epoch: i64, now: Millis) -> bool {
        let sight = &*self.sight;
        let clinic = tenant.is_some_and(|t| {
            (
                t.status,
                t.settings.require_two_factors,
                t.settings.relationship_required,
            ) == (sight.status, sight.two_factors, sight.relationship_required)
        });
        clinic
            && self.dropped == dropped()
            && sight.status == Status::Active
            && self.epoch == epoch
            && sight.now <= now
            && now < self.until
            && sight.who == *who
    }
}

impl Sight {
    fn weight(&self) -> usize {
        let sets = [&self.own, &self.proxied, &self.treated, &self.broken];
        // Each type looked at makes sets of its own of them.
        EACH + sets.iter().map(|s| s.len()).sum::<usize>() * 8
    }
}

/// The views of one sight, each made once.
#[derive(Default)]
pub(super) struct Views([RwLock<HashMap<Box<str>, Arc<View>>>; Letter::ALL.len()]);

impl Views {
    pub(super) fn get_or_make(&self, kind: &str, letter: Letter, make: impl FnOnce() -> View) -> Arc<View> {
        let Some(views) = self.0.get(letter as usize) else {
            return Arc::new(make());
        };
        if let Some(view) = views.read().unwrap_or_else(PoisonError::into_inner).get(kind) {
            return Arc::clone(view);
        }
        let view = Arc::new(make());
        let mut views = views.write().unwrap_or_else(PoisonError::into_inner);
        if views.len() < KINDS {
            views.insert(kind.into(), Arc::clone(&view));
        }
        view
    }
}

/// A place for what follows from a value alone and is costly to make. Says nothing in comparisons, and a copy begins empty.
#[derive(Default)]
pub struct Beside(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Beside {
    /// What was put there, if it is of this type.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::clone(self.0.get()?).downcast().ok()
    }

    /// The first that is put there stays.
    pub fn put<T: Any + Send + Sync>(&self, made: Arc<T>) {
        let _ = self.0.set(made);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

macro_rules! says_nothing {
    ($($name:ident),*) => {$(
        impl Clone for $name {
            fn clone(&self) -> Self {
                Self::default()
            }
        }
        impl PartialEq for $name {
            fn eq(&self, _: &Self) -> bool {
                true
            }
        }
        impl Eq for $name {}
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("_")
            }
        }
    )*};
}
says_nothing!(Views, Beside);
