//! Keys that others publish at an address: fetched when they are needed, kept a while, and asked for again at most every
//! half minute, however many tokens name a key that is not there.

use super::{MINUTE, Outbound, SECOND, jwt};
use jsonwebtoken::jwk::JwkSet;
use medtech_kernel::clock::Millis;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// Keys older than this are fetched again.
const FRESH: Millis = 10 * MINUTE;
/// Between two requests to one address.
const COOL_DOWN: Millis = 30 * SECOND;
/// Addresses kept; when there are more, the one asked longest ago goes.
const MOST: usize = 256;

type Keys = Option<Arc<JwkSet>>;

#[derive(Clone)]
struct Entry {
    keys: Keys,
    fetched_at: Millis,
    asked_at: Millis,
    /// Closes when the request under way has ended.
    under_way: Option<watch::Receiver<()>>,
}

/// The cache, by address.
pub(crate) struct Remote {
    outbound: Outbound,
    entries: Mutex<HashMap<String, Entry>>,
}

enum Step {
    Have(Arc<JwkSet>),
    Wait(watch::Receiver<()>),
    Fetch(watch::Sender<()>),
    Nothing,
}

impl Remote {
    pub(crate) fn new(outbound: Outbound) -> Self {
        Self {
            outbound,
            entries: Mutex::default(),
        }
    }

    pub(crate) fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// The keys at an address, asked again when `kid` is not among those we have. `None` when there are none to be had.
    pub(crate) async fn keys(&self, address: &str, kid: &str, now: Millis) -> Keys {
        for _ in 0..2 {
            match self.step(address, kid, now) {
                Step::Have(keys) => return Some(keys),
                Step::Nothing => return self.kept(address),
                Step::Wait(mut under_way) => {
                    // Ends with the sender, whatever became of the request.
                    let _ = under_way.changed().await;
                }
                Step::Fetch(done) => {
                    let answer = self.outbound.get_json(address, None).await;
                    let keys = match answer {
                        Ok(text) => jwt::key_set(&text).map(Arc::new),
                        Err(e) => {
                            tracing::warn!(code = e.code, "keys of another server could not be fetched");
                            None
                        }
                    };
                    self.note(address, keys, now);
                    drop(done);
                    return self.kept(address);
                }
            }
        }
        self.kept(address)
    }

    fn step(&self, address: &str, kid: &str, now: Millis) -> Step {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(address) {
            if let Some(under_way) = entry.under_way.as_ref().filter(|u| u.has_changed().is_ok()) {
                return Step::Wait(under_way.clone());
            }
            if let Some(keys) = entry.keys.as_ref().filter(|_| now < entry.fetched_at + FRESH)
                && keys.keys.iter().any(|k| k.common.key_id.as_deref() == Some(kid))
            {
                return Step::Have(keys.clone());
            }
            if now < entry.asked_at + COOL_DOWN {
                return Step::Nothing;
            }
        } else if entries.len() >= MOST
            && let Some(oldest) = entries.iter().min_by_key(|(_, e)| e.asked_at).map(|(a, _)| a.clone())
        {
            entries.remove(&oldest);
        }
        let (done, under_way) = watch::channel(());
        let entry = entries.entry(address.to_owned()).or_insert(Entry {
            keys: None,
            fetched_at: now,
            asked_at: now,
            under_way: None,
        });
        entry.asked_at = now;
        entry.under_way = Some(under_way);
        Step::Fetch(done)
    }

    /// A failure leaves the keys of before for as long as they are fresh.
    fn note(&self, address: &str, keys: Keys, now: Millis) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = entries.get_mut(address) else { return };
        entry.under_way = None;
        if keys.is_some() {
            entry.keys = keys;
            entry.fetched_at = now;
        } else if now >= entry.fetched_at + FRESH {
            entry.keys = None;
        }
    }

    fn kept(&self, address: &str) -> Keys {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(address).and_then(|e| e.keys.clone())
    }
}
