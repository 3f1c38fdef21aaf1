//! What is known of principals, kept between their requests. A sight is used again only while the clinic's epoch stands
//! where it was read (it moves in the transaction of everything that gives or takes access, whichever server writes it), no
//! time in its facts has come, and the principal and the clinic's settings are the same.

use super::{Patients, Reach, Sight, View, consent::Rules, seeded::dropped};
use crate::{Tenant, TenantId, auth::Principal, clock::Millis, scope::Letter, tenant::Status};
use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};
use uuid::Uuid;

/// Patients and barriers in the sights of one half, their views included; the other half is the one before it, so the ones
/// unused for longest go first. The rules of Consents are one copy a clinic.
const HALF: usize = 100_000;
/// What a sight weighs besides.
const EACH: usize = 64;
/// Types of which one sight keeps views.
const KINDS: usize = 256;
/// What the views of one sight may weigh together; those beyond are made for each question.
const VIEWS: usize = 50_000;
/// What a barrier weighs besides its patients.
const BARRIER: usize = 8;

#[derive(Default)]
pub(super) struct Kept {
    sights: Mutex<Sights>,
    consents: Mutex<HashMap<TenantId, Arc<[Rules]>>>,
    /// As of an epoch: when Consents begin and end, in order.
    turns: Mutex<HashMap<TenantId, (i64, Vec<Millis>)>>,
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
    /// With what it was counted; views are made later.
    weight: usize,
    /// A bug on purpose: what was seen with it holds no longer than it.
    dropped: &'static str,
}

impl Kept {
    /// What was read of this principal, if it still holds.
    pub(super) fn get(&self, who: &Principal, tenant: Option<&Tenant>, epoch: i64, now: Millis) -> Option<Arc<Sight>> {
        let key = (who.tenant, who.session);
        let mut sights = lock(&self.sights);
        let entry = sights.young.get(&key).or_else(|| sights.old.get(&key))?.clone();
        if !entry.holds(who, tenant, epoch, now) {
            sights.remove(&key);
            return None;
        }
        if !sights.young.contains_key(&key) || entry.sight.weight() != entry.weight {
            sights.remove(&key);
            sights.put(key, entry.clone());
        }
        Some(entry.sight)
    }

    pub(super) fn put(&self, sight: &Arc<Sight>, epoch: i64, until: Millis) {
        let key = (sight.who.tenant, sight.who.session);
        let entry = Entry {
            sight: Arc::clone(sight),
            epoch,
            until,
            weight: 0,
            dropped: dropped(),
        };
        lock(&self.sights).put(key, entry);
    }

    /// The first time after `at` at which a Consent of the clinic begins or ends; `None` where that is not known for the epoch.
    pub(super) fn turn(&self, tenant: TenantId, epoch: i64, at: Millis) -> Option<Millis> {
        let all = lock(&self.turns);
        let (_, times) = all.get(&tenant).filter(|(of, _)| *of == epoch)?;
        Some(after(times, at))
    }

    /// Keeps them, in order, and answers the same.
    pub(super) fn keep_turns(&self, tenant: TenantId, epoch: i64, times: Vec<Millis>, at: Millis) -> Millis {
        let next = after(&times, at);
        lock(&self.turns).insert(tenant, (epoch, times));
        next
    }

    /// The rules of a clinic's Consents, one copy for all who look.
    pub(super) fn shared(&self, tenant: TenantId, rules: Vec<Rules>) -> Arc<[Rules]> {
        let mut all = lock(&self.consents);
        match all.get(&tenant) {
            Some(known) if **known == *rules => Arc::clone(known),
            _ => {
                let rules: Arc<[Rules]> = rules.into();
                all.insert(tenant, Arc::clone(&rules));
                drop(all);
                lock(&self.sights).forget_others(tenant, &rules);
                rules
            }
        }
    }
}

fn after(times: &[Millis], at: Millis) -> Millis {
    let passed = times.partition_point(|time| *time <= at);
    times.get(passed).copied().unwrap_or(Millis::MAX)
}

impl Sights {
    fn put(&mut self, key: (TenantId, Uuid), mut entry: Entry) {
        self.remove(&key);
        entry.weight = entry.sight.weight();
        if self.weight + entry.weight > HALF {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight += entry.weight;
        self.young.insert(key, entry);
    }

    fn remove(&mut self, key: &(TenantId, Uuid)) {
        self.old.remove(key);
        if let Some(before) = self.young.remove(key) {
            self.weight = self.weight.saturating_sub(before.weight);
        }
    }

    /// Those of a clinic that were made with other rules of its Consents, which they alone keep.
    fn forget_others(&mut self, tenant: TenantId, rules: &Arc<[Rules]>) {
        let other =
            |key: &(TenantId, Uuid), entry: &Entry| key.0 == tenant && !Arc::ptr_eq(&entry.sight.consents, rules);
        self.old.retain(|key, entry| !other(key, entry));
        self.young.retain(|key, entry| !other(key, entry));
        self.weight = self.young.values().map(|entry| entry.weight).sum();
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
        EACH + sets.into_iter().chain(&self.parts).map(Patients::len).sum::<usize>()
            + self.views.weight.load(Ordering::Relaxed)
    }
}

impl View {
    /// What it holds: the patients it names, and a little for each barrier and type.
    fn weight(&self) -> usize {
        let reach = self.reach.iter().map(|r| match r {
            Reach::Of(patients) => patients.len(),
            Reach::Everything | Reach::Nobodys => 0,
        });
        let barriers = self.barriers.iter().map(|b| BARRIER + b.patients.len());
        let whole = self.redaction.as_ref().map_or(0, |r| r.whole.len());
        BARRIER + reach.chain(barriers).sum::<usize>() + whole
    }
}

/// The views of one sight, each made once while they are not too much together.
#[derive(Default)]
pub(super) struct Views {
    by_letter: [RwLock<HashMap<Box<str>, Arc<View>>>; Letter::ALL.len()],
    weight: AtomicUsize,
}

impl Views {
    pub(super) fn get_or_make(&self, kind: &str, letter: Letter, make: impl FnOnce() -> View) -> Arc<View> {
        let Some(views) = self.by_letter.get(letter as usize) else {
            return Arc::new(make());
        };
        if let Some(view) = views.read().unwrap_or_else(PoisonError::into_inner).get(kind) {
            return Arc::clone(view);
        }
        let view = Arc::new(make());
        let mut views = views.write().unwrap_or_else(PoisonError::into_inner);
        let weight = view.weight();
        let before = self.weight.load(Ordering::Relaxed);
        if views.len() < KINDS && before + weight <= VIEWS && !views.contains_key(kind) {
            views.insert(kind.into(), Arc::clone(&view));
            self.weight.fetch_add(weight, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::Role, policy::consent::Provision, tenant::Settings};

    const CLINIC: TenantId = TenantId::from_number(1);

    /// A clinician's sight in a clinic where many patients deny something that is labelled, each by a label of their own: what
    /// they deny alike is one barrier.
    fn sight(session: u128, consents: &Arc<[Rules]>) -> Arc<Sight> {
        Arc::new(Sight {
            who: Principal {
                tenant: CLINIC,
                subject: "user:1".into(),
                roles: vec![Role::Clinician],
                session: Uuid::from_u128(session),
                name: "x".into(),
                grant: Default::default(),
                proved_at: 0,
            },
            status: Status::Active,
            two_factors: false,
            relationship_required: false,
            now: 0,
            own: Default::default(),
            proxied: Default::default(),
            parts: Default::default(),
            treated: Default::default(),
            broken: Default::default(),
            names: Vec::new(),
            consents: Arc::clone(consents),
            scopes: None,
            views: Default::default(),
        })
    }

    fn denials(count: usize) -> Vec<Rules> {
        let label = |n: usize| Provision {
            labels: vec![format!("L{n}")],
            ..Provision::default()
        };
        let one = |n: usize| Rules {
            patient: format!("p{n}"),
            root: Provision {
                permit: true,
                inner: vec![label(n)],
                ..Provision::default()
            },
        };
        (0..count).map(one).collect()
    }

    fn clinic() -> Tenant {
        Tenant {
            id: CLINIC,
            slug: "north".into(),
            name: "North".into(),
            zone: "UTC".into(),
            status: Status::Active,
            settings: Arc::new(Settings {
                require_two_factors: false,
                relationship_required: false,
                ..Settings::default()
            }),
            settings_version: 0,
            quotas: Default::default(),
            delete_at: None,
        }
    }

    #[test]
    fn views_of_many_denials_are_weighed_and_not_kept_without_end() {
        let (kept, clinic) = (Kept::default(), clinic());
        let few = sight(0, &kept.shared(CLINIC, denials(3)));
        let many = kept.shared(CLINIC, denials(5_000));
        let is_kept = |sight: &Sight, kind: &str| {
            let view = || sight.view(kind, Letter::Read);
            assert_eq!(*view(), *view(), "kept or not, it says the same");
            Arc::ptr_eq(&view(), &view())
        };
        assert!(
            ["Observation", "Condition", "Encounter"]
                .iter()
                .all(|kind| is_kept(&few, kind))
        );
        let sights: Vec<_> = (1..=12).map(|n| sight(n, &many)).collect();
        for sight in &sights {
            kept.put(sight, 1, Millis::MAX);
            assert!(is_kept(sight, "Observation"));
            assert!(!is_kept(sight, "Condition"), "beyond what one sight may keep");
            // The next question of the session.
            kept.get(&sight.who, Some(&clinic), 1, 1);
        }
        let at_hand = sights
            .iter()
            .filter(|s| kept.get(&s.who, Some(&clinic), 1, 1).is_some());
        assert!((1..=4).contains(&at_hand.count()), "a view of 5000 barriers weighs");
    }

    #[test]
    fn what_holds_no_longer_is_not_kept_either() {
        let (kept, clinic) = (Kept::default(), clinic());
        let first = sight(1, &kept.shared(CLINIC, denials(1)));
        kept.put(&first, 1, Millis::MAX);
        assert!(kept.get(&first.who, Some(&clinic), 1, 1).is_some());
        assert!(kept.get(&first.who, Some(&clinic), 2, 1).is_none());
        assert_eq!(Arc::strong_count(&first), 1, "access was given or taken since");
        kept.put(&first, 2, Millis::MAX);
        kept.shared(CLINIC, denials(2));
        assert_eq!(Arc::strong_count(&first), 1, "nor rules that stand no more");
    }
}
