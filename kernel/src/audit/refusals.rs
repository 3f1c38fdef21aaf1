//! Refusals in the trail: who was refused what, and why. Bounded, so that a flood of them cannot fill the disk: in a minute
//! each session has at most [`NAMED`] entries for a kind of act and a reason, and one that counts the rest.

use super::{Entry, write_all};
use crate::{Db, TenantId};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use uuid::Uuid;

/// Things named one by one, a session, act, kind, reason and minute.
pub const NAMED: usize = 8;
/// Sessions and acts of a clinic remembered at once. Beyond it its refusals are counted together.
const MOST: usize = 1024;
/// Lines of a clinic that wait after their write failed. Beyond it they are counted.
const WAITING: usize = 1024;
/// How soon the first of a kind stands in the trail.
const TURN: Duration = Duration::from_secs(1);
/// After so many turns the rest is counted, and names are taken anew.
const TURNS: u32 = 60;

/// Somebody was refused something.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    pub tenant: TenantId,
    pub actor: &'a str,
    pub session: Option<Uuid>,
    /// Of the policy: `read`, `join`, ...
    pub act: &'static str,
    pub kind: &'static str,
    pub id: &'a str,
    pub why: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    actor: String,
    session: Option<Uuid>,
    act: &'static str,
    kind: &'static str,
    why: &'static str,
}

#[derive(Default)]
struct Seen {
    /// Not written yet.
    waiting: Vec<String>,
    named: HashSet<String>,
    more: u64,
    turns: u32,
}

#[derive(Default)]
struct Unwritten {
    lines: Vec<Line>,
    /// Of those beyond [`WAITING`].
    more: usize,
}

/// Refusals on their way into the trail. Clones share it.
#[derive(Clone)]
pub struct Refusals(Arc<Inner>);

struct Inner {
    db: Db,
    seen: Mutex<HashMap<TenantId, HashMap<Key, Seen>>>,
    /// What could not be written, to be written before anything newer.
    unwritten: Mutex<HashMap<TenantId, Unwritten>>,
    running: std::sync::atomic::AtomicBool,
}

impl Refusals {
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self(Arc::new(Inner {
            db,
            seen: Mutex::default(),
            unwritten: Mutex::default(),
            running: false.into(),
        }))
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<TenantId, HashMap<Key, Seen>>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unwritten(&self) -> MutexGuard<'_, HashMap<TenantId, Unwritten>> {
        self.0.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a refusal in. Never waits; it is written within [`TURN`] by a task that ends when nothing is left to do.
    pub fn note(&self, refusal: Refusal<'_>) {
        {
            let mut clinics = self.seen();
            // One clinic's flood blurs nothing of another's.
            let all = clinics.entry(refusal.tenant).or_default();
            let key = Key {
                actor: plain(refusal.actor, 100),
                session: refusal.session,
                act: refusal.act,
                kind: refusal.kind,
                why: refusal.why,
            };
            let key = if all.len() < MOST || all.contains_key(&key) {
                key
            } else {
                Key {
                    actor: "several".to_owned(),
                    session: None,
                    act: "execute",
                    kind: "*",
                    why: "too many refusals to tell apart",
                }
            };
            let seen = all.entry(key).or_default();
            let id = plain(refusal.id, 64);
            if seen.named.contains(&id) || seen.named.len() >= NAMED {
                seen.more += 1;
            } else {
                seen.named.insert(id.clone());
                seen.waiting.push(id);
            }
        }
        self.start();
    }

    /// An attempt round the rules by someone unknown (a forged token, another site's page, an altered link, a flood), by
    /// the network it came from: see [`network`].
    pub fn attempt(&self, tenant: TenantId, address: IpAddr, what: &'static str) {
        let actor = format!("network:{}", network(address));
        self.note(Refusal {
            tenant,
            actor: &actor,
            session: None,
            act: "execute",
            kind: "door",
            id: what,
            why: what,
        });
    }

    /// Writes what waits now, counts included.
    pub async fn flush(&self) {
        self.write(true).await;
    }

    fn start(&self) {
        use std::sync::atomic::Ordering::AcqRel;
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.0.running.swap(true, AcqRel) {
            return;
        }
        let this = self.clone();
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(TURN).await;
                this.write(false).await;
                let all = this.seen();
                if all.is_empty() && this.unwritten().is_empty() {
                    // Under the lock: whoever notes next starts the task again.
                    this.0.running.store(false, std::sync::atomic::Ordering::Release);
                    return;
                }
            }
        });
    }

    async fn write(&self, all: bool) {
        let mut out: HashMap<TenantId, Vec<Line>> = HashMap::new();
        self.seen().retain(|tenant, clinic| {
            clinic.retain(|key, seen| {
                seen.turns += 1;
                let over = all || seen.turns >= TURNS;
                let lines = out.entry(*tenant).or_default();
                lines.extend(seen.waiting.drain(..).map(|id| Line::of(key, Some(&id), 1)));
                if over && seen.more > 0 {
                    lines.push(Line::of(key, None, seen.more));
                }
                !over
            });
            !clinic.is_empty()
        });
        // Taken out for the time of the write, so that two that write at once write nothing twice.
        let mut lost: HashMap<TenantId, usize> = HashMap::new();
        for (tenant, mut before) in std::mem::take(&mut *self.unwritten()) {
            let lines = out.entry(tenant).or_default();
            before.lines.append(lines);
            *lines = before.lines;
            lost.insert(tenant, before.more);
        }
        for (tenant, lines) in out.into_iter().filter(|(_, lines)| !lines.is_empty()) {
            let again = lost.remove(&tenant);
            let (lines, more) = (Arc::new(lines), again.unwrap_or(0));
            let ours = Arc::clone(&lines);
            let written = self.0.db.write(tenant, move |tx| {
                Box::pin(async move {
                    let counted = (more > 0).then(|| Line::lost(more));
                    let entries: Vec<_> = ours.iter().chain(&counted).map(|l| (l.entry(), None)).collect();
                    write_all(tx, &entries).await
                })
            });
            match written.await {
                Ok(()) => {}
                // With the clinic its trail went.
                Err(e) if e.code == "db.tenant_erased" => {}
                Err(e) => {
                    if again.is_none() {
                        tracing::error!(%tenant, count = lines.len(), code = e.code, "refusals could not be written into the trail yet");
                    }
                    self.keep(tenant, &lines, more);
                }
            }
        }
    }

    fn keep(&self, tenant: TenantId, lines: &[Line], more: usize) {
        let mut all = self.unwritten();
        let waiting = all.entry(tenant).or_default();
        let room = WAITING.saturating_sub(waiting.lines.len());
        waiting.lines.extend(lines.iter().take(room).cloned());
        waiting.more += more + lines.len().saturating_sub(room);
    }
}

#[derive(Clone)]
struct Line {
    actor: String,
    act: &'static str,
    target: String,
    detail: String,
}

impl Line {
    fn of(key: &Key, id: Option<&str>, count: u64) -> Self {
        let target = match (key.kind, id) {
            // So it is found by the patient, too.
            ("patient", Some(id)) => format!("Patient/{id}"),
            (kind, Some(id)) => format!("{kind}:{id}"),
            (kind, None) => format!("{kind}:*"),
        };
        let mut detail = format!("{} {}: {}", key.act, key.kind, key.why);
        if let Some(session) = key.session {
            detail.push_str(&format!("; session {session}"));
        }
        if id.is_none() {
            detail.push_str(&format!("; {count} more within a minute"));
        }
        Self {
            actor: key.actor.clone(),
            act: key.act,
            target,
            detail,
        }
    }

    /// So many that waited for the trail were more than could wait.
    fn lost(count: usize) -> Self {
        Self {
            actor: "several".to_owned(),
            act: "execute",
            target: "*:*".to_owned(),
            detail: format!("{count} refusals could not be kept until the trail took them"),
        }
    }

    fn entry(&self) -> Entry<'_> {
        Entry {
            actor: &self.actor,
            action: match self.act {
                "read" | "subscribe" | "search" => "read",
                "create" => "create",
                "write" | "update" => "update",
                "delete" => "delete",
                _ => "execute",
            },
            target: &self.target,
            outcome: "denied",
            detail: &self.detail,
        }
    }
}

/// What a caller sent, made fit for the trail.
fn plain(text: &str, most: usize) -> String {
    let fit = |c: char| c.is_ascii_alphanumeric() || "-._:/*+ ".contains(c);
    text.chars().map(|c| if fit(c) { c } else { '?' }).take(most).collect()
}

/// The network of an address, as it stands in the trail: the first 24 bits of IPv4, the first 48 of IPv6. Enough to see that
/// attempts belong together and from whose network they came, not which device of a household it was.
#[must_use]
pub fn network(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => network(IpAddr::V4(v4)),
            None => {
                let [a, b, c, ..] = v6.segments();
                format!("{a:x}:{b:x}:{c:x}::/48")
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_cut_to_their_network() {
        for (address, cut) in [
            ("203.0.113.77", "203.0.113.0/24"),
            ("::ffff:203.0.113.77", "203.0.113.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ] {
            assert_eq!(network(address.parse().expect("an address")), cut);
        }
    }
}
