//! Certificates from an ACME authority (RFC 8555), for every name by which people come: obtained, renewed at two thirds
//! of their time, shared by all servers through the database. [`order`] is the conversation, [`answer`] the proof.
//!
//! A name that fails is asked for again later and later; no more than so many are asked for in an hour.

pub(crate) mod answer;
mod http;
mod order;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use super::certificates::{Certificates, Pair};
use http::Caller;
use medtech_kernel::{
    Ctx, Error, Result,
    clock::Millis,
    config::{AcmeChallenge, Config, is_this_machine},
    id,
    tenant::Status,
};
use order::Failure;
use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::Stored;
use tokio::sync::{Notify, watch};

/// Names that certificates are asked for: those of the first clinics. `medtech doctor` tells of the others.
pub(crate) const MOST: usize = 300;
/// Orders of this process in an hour; well below what public authorities take from one account.
const AN_HOUR: usize = 60;
const HOUR: Millis = 3_600_000;
/// One order, with all its waiting.
const WHOLE: Duration = Duration::from_secs(240);
/// No other server asks for the name meanwhile, and the answers stand as long.
const CLAIM: Millis = 300_000;
/// How long after the first failure it is asked again, doubled each time, and at most.
const AGAIN: Millis = 15 * 60_000;
const SELDOM: Millis = 12 * HOUR;
/// How often it is looked for what is due.
const LOOK: Duration = Duration::from_secs(60);

pub(crate) struct Acme {
    ctx: Ctx,
    certificates: Arc<Certificates>,
    caller: Caller,
    directory: String,
    contact: Vec<String>,
    ways: Vec<AcmeChallenge>,
    /// When orders of the last hour were made; at most [`AN_HOUR`].
    recent: Mutex<VecDeque<Millis>>,
}

impl Acme {
    /// `None` where no authority is configured.
    pub(crate) fn new(ctx: &Ctx, certificates: &Arc<Certificates>) -> Result<Option<Self>> {
        let tls = &ctx.config.tls;
        let Some(directory) = tls.acme_directory.clone() else {
            return Ok(None);
        };
        let contact = tls.acme_contact.iter().map(|mail| format!("mailto:{mail}"));
        Ok(Some(Self {
            caller: Caller::new(tls)?,
            contact: contact.collect(),
            ways: ways(&ctx.config),
            recent: Mutex::default(),
            certificates: certificates.clone(),
            ctx: ctx.clone(),
            directory,
        }))
    }

    /// Looks for what is due until `stop` turns true, and whenever `look` says so.
    pub(crate) async fn run(self: Arc<Self>, look: Arc<Notify>, mut stop: watch::Receiver<bool>) {
        let mut every = tokio::time::interval(LOOK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = look.notified() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            tokio::select! {
                done = self.round() => if let Err(e) = done {
                    tracing::warn!(error = ?e, "tls: certificates will be asked for again");
                },
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Asks for every certificate that is due, one after the other.
    pub(crate) async fn round(&self) -> Result<()> {
        let names = Names::of(&self.ctx);
        let wanted: BTreeSet<&String> = names
            .wanted
            .iter()
            .filter(|n| !self.certificates.is_in_files(n))
            .collect();
        let known = store::hosts(&self.ctx.db).await?;
        let new = wanted.iter().filter(|n| !known.iter().any(|k| k.host == ***n));
        let new: Vec<String> = new.map(|n| (*n).clone()).collect();
        let gone = known.iter().filter(|k| !names.registered.contains(&k.host));
        let gone: Vec<String> = gone.map(|k| k.host.clone()).collect();
        if !new.is_empty() || !gone.is_empty() {
            store::change(&self.ctx.db, new, gone).await?;
        }
        for due in store::hosts(&self.ctx.db).await? {
            let now = self.ctx.clock.now_ms();
            if due.next_at > now || due.claimed_until > now || !wanted.contains(&due.host) {
                continue;
            }
            if !self.may_order(now) {
                tracing::warn!("tls: more certificates are due than are asked for in an hour");
                break;
            }
            if store::claim(&self.ctx.db, &due.host, now + CLAIM, now).await? && self.renew(&due).await? {
                break;
            }
        }
        self.load().await
    }

    /// Asks for one, and notes what came of it; true when nothing more is to be asked now.
    async fn renew(&self, due: &store::Host) -> Result<bool> {
        let db = &self.ctx.db;
        let turn = usize::try_from(due.failures).unwrap_or_default() % self.ways.len().max(1);
        let way = self.ways.get(turn).copied().unwrap_or(AcmeChallenge::TlsAlpn01);
        let asked = tokio::time::timeout(WHOLE, self.obtain(&due.host, way)).await;
        let outcome = asked.unwrap_or_else(|_| Err(Failure::new("the authority took too long")));
        let now = self.ctx.clock.now_ms();
        let failure = match outcome.and_then(|stored| Ok((examined(&due.host, &stored, now)?, stored))) {
            Ok((pair, stored)) => {
                let (begins, ends) = (millis(pair.begins), millis(pair.ends));
                store::issued(db, &due.host, stored, renewal(begins, ends, now), ends).await?;
                tracing::info!(host = %due.host, "tls: a certificate was issued");
                self.load().await?;
                return Ok(false);
            }
            Err(failure) => failure,
        };
        tracing::warn!(host = %due.host, why = %failure.why, "tls: no certificate was issued");
        store::failed(db, &due.host, now + pause(due.failures), &failure.why).await?;
        if failure.is_unknown {
            store::forget_account(db, &self.directory).await?;
        }
        if failure.is_limited {
            store::wait(db, now + HOUR).await?;
        }
        Ok(failure.is_limited)
    }

    /// Takes over what the database holds, if it is something else than before.
    pub(crate) async fn load(&self) -> Result<()> {
        load(&self.ctx, &self.certificates).await
    }

    fn may_order(&self, now: Millis) -> bool {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|at| now - at < HOUR);
        let may = recent.len() < AN_HOUR;
        if may {
            recent.push_back(now);
        }
        may
    }
}

/// Puts the issued certificates among those that are shown.
pub(crate) async fn load(ctx: &Ctx, certificates: &Certificates) -> Result<()> {
    let print = id::sha256(store::versions(&ctx.db).await?.as_bytes());
    if print == certificates.issued_print() {
        return Ok(());
    }
    let stored = store::pairs(&ctx.db).await?;
    let pairs = stored.iter().filter_map(|(host, stored)| match pair(host, stored) {
        Ok(pair) => Some(pair),
        Err(e) => {
            tracing::error!(host, why = %e.message, "tls: a stored certificate cannot be used");
            None
        }
    });
    certificates.take_issued(pairs.collect(), print);
    Ok(())
}

/// Where an authority may be called at all, and how names are proven.
pub(crate) fn check(config: &Config) -> Result<()> {
    let Some(directory) = &config.tls.acme_directory else {
        return Ok(());
    };
    if url::Url::parse(directory).is_ok_and(|url| url.scheme() == "https" && url.has_host()) {
        return Ok(());
    }
    let text = "tls.acme_directory is the https:// address of an authority's directory";
    Err(Error::bad("config.tls", text))
}

fn ways(config: &Config) -> Vec<AcmeChallenge> {
    match config.tls.acme_challenges.as_slice() {
        [] if config.http.bind.port() == 80 => vec![AcmeChallenge::TlsAlpn01, AcmeChallenge::Http01],
        [] => vec![AcmeChallenge::TlsAlpn01],
        chosen => chosen.to_vec(),
    }
}

/// The names by which people come.
pub(crate) struct Names {
    /// Those of clinics that are served, the installation's own first; at most [`MOST`].
    pub(crate) wanted: Vec<String>,
    /// How many more there are.
    pub(crate) left_out: usize,
    /// Those of closed clinics as well.
    registered: BTreeSet<String>,
}

impl Names {
    pub(crate) fn of(ctx: &Ctx) -> Self {
        let own = ctx
            .config
            .public_url
            .as_deref()
            .and_then(|url| url::Url::parse(url).ok());
        let own = own.filter(|url| url.scheme() == "https");
        let own = own.and_then(|url| url.host_str().map(str::to_ascii_lowercase));
        let (mut wanted, mut registered) = (Vec::new(), BTreeSet::new());
        let mut add = |host: String, is_served: bool| {
            if !is_name(&host) {
                return;
            }
            if registered.insert(host.clone()) && is_served {
                wanted.push(host);
            }
        };
        if let Some(host) = own {
            add(host, true);
        }
        for tenant in ctx.tenants.all() {
            for host in ctx.tenants.domains_of(tenant.id) {
                add(host, tenant.status == Status::Active);
            }
        }
        let left_out = wanted.len().saturating_sub(MOST);
        wanted.truncate(MOST);
        Self {
            wanted,
            left_out,
            registered,
        }
    }
}

/// A name that an authority can vouch for: no address, and not one of this machine alone.
fn is_name(host: &str) -> bool {
    host.contains('.') && !is_this_machine(host) && host.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
}

fn pair(host: &str, stored: &Stored) -> Result<Pair> {
    let place = PathBuf::from(format!("of {host} (ACME)"));
    Pair::of_pem(&place, &place, stored.certificate.as_bytes(), stored.key.as_bytes())
}

/// What the authority sent is for this name, fits the key, and is good now.
fn examined(host: &str, stored: &Stored, now: Millis) -> std::result::Result<Pair, Failure> {
    let pair = pair(host, stored)?;
    match pair.names.iter().any(|n| n == host) && millis(pair.ends) > now {
        true => Ok(pair),
        false => Err(Failure::new(
            "the authority sent a certificate of another name, or one that has ended",
        )),
    }
}

fn millis(seconds: u64) -> Millis {
    i64::try_from(seconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000)
}

/// When it is asked for again: at two thirds of its time, and not within the hour.
fn renewal(begins: Millis, ends: Millis, now: Millis) -> Millis {
    let third = ends.saturating_sub(begins) / 3;
    (ends - third).max(now + HOUR).min(ends.max(now + AGAIN))
}

/// After so many failures before this one.
fn pause(failures: i64) -> Millis {
    let doubled = u32::try_from(failures.clamp(0, 20)).unwrap_or(20);
    AGAIN.saturating_mul(1_i64 << doubled).min(SELDOM)
}
