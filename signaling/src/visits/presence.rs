//! Is the guest there? Kept in memory: media connections, live-channel connections and requests.
//!
//! One entry for each visit whose guest is connected or was seen a moment ago.

use medtech_kernel::{TenantId, clock::Millis};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};
use uuid::Uuid;

/// A guest seen this recently still holds the link on that browser.
pub(super) const HOLD_MS: Millis = 30_000;
/// After a connection was seen to end, a reload has this long before the guest is shown as away.
const AWAY_MS: Millis = 5_000;

type Key = (TenantId, Uuid);

#[derive(Default)]
struct Seen {
    last: Millis,
    media: bool,
    channels: u32,
    dropped: bool,
    shown: bool,
}

impl Seen {
    fn connected(&self) -> bool {
        self.media || self.channels > 0
    }

    fn online(&self, now: Millis) -> bool {
        self.connected() || now - self.last < if self.dropped { AWAY_MS } else { HOLD_MS }
    }
}

/// All guests seen.
#[derive(Default)]
pub(crate) struct Presence {
    guests: Mutex<HashMap<Key, Seen>>,
    /// Visits with a media connection of either side: whose last sight must be written down.
    connected: Mutex<HashSet<Key>>,
}

impl Presence {
    fn guests(&self) -> MutexGuard<'_, HashMap<Key, Seen>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest sent a request.
    pub(crate) fn touch(&self, key: Key, now: Millis) {
        let mut guests = self.guests();
        let seen = guests.entry(key).or_default();
        (seen.last, seen.dropped) = (now, false);
    }

    pub(crate) fn media(&self, key: Key, active: bool, now: Millis) {
        let mut guests = self.guests();
        let seen = guests.entry(key).or_default();
        (seen.media, seen.last, seen.dropped) = (active, now, !active);
    }

    /// A live-channel connection of the guest came or went.
    pub(crate) fn channel(&self, key: Key, joined: bool, now: Millis) {
        let mut guests = self.guests();
        let seen = guests.entry(key).or_default();
        seen.channels = if joined {
            seen.channels.saturating_add(1)
        } else {
            seen.channels.saturating_sub(1)
        };
        (seen.last, seen.dropped) = (now, !joined);
    }

    pub(crate) fn online(&self, key: Key, now: Millis) -> bool {
        self.guests().get(&key).is_some_and(|s| s.online(now))
    }

    /// Does a browser still hold the link?
    pub(crate) fn holds(&self, key: Key, now: Millis) -> bool {
        self.guests()
            .get(&key)
            .is_some_and(|s| s.connected() || now - s.last < HOLD_MS)
    }

    pub(crate) fn forget(&self, key: Key) {
        self.guests().remove(&key);
        self.set_connected(key, false);
    }

    /// The visits whose `online` differs from what was last shown; they count as shown from now on, unless
    /// [`Presence::not_shown`] says otherwise.
    pub(crate) fn turned(&self, now: Millis) -> Vec<Key> {
        let mut turned = Vec::new();
        self.guests().retain(|key, seen| {
            let online = seen.online(now);
            if online != seen.shown {
                seen.shown = online;
                turned.push(*key);
                return true;
            }
            // Nothing is said by an entry of one who has long been away.
            seen.connected() || now - seen.last < HOLD_MS
        });
        turned
    }

    /// What [`Presence::turned`] gave out did not reach anybody.
    pub(crate) fn not_shown(&self, key: Key) {
        if let Some(seen) = self.guests().get_mut(&key) {
            seen.shown = !seen.shown;
        }
    }

    pub(crate) fn set_connected(&self, key: Key, connected: bool) {
        let mut all = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if connected {
            all.insert(key);
        } else {
            all.remove(&key);
        }
    }

    /// Tenants with anybody connected.
    pub(crate) fn connected_tenants(&self) -> HashSet<TenantId> {
        self.connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(t, _)| *t)
            .collect()
    }
}
