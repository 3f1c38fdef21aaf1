//! How often may they ask? A bucket for each session, and one for each network of those who show no good token.
//!
//! A token is given a bucket of its own only after it was found good: forged ones are charged to the network they come
//! from, and mint nothing. Both tables are bounded.

use super::address::{self, Peer};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use http::{HeaderValue, StatusCode, header};
use ipnet::IpNet;
use medtech_kernel::{
    Error,
    audit::{Origin, network},
    config::Limits as Config,
    error::Code,
    http::{Network, Verified, bearer},
    id,
};
use serde_json::json;
use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

type Bucket<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Entries of one half of a table; the other half is the one before it.
const HALF: usize = 100_000;

/// Buckets by key: two generations, so that the ones unused for longest go first, without a list to keep.
struct Table<K, C: Clock> {
    quota: Option<Quota>,
    clock: C,
    half: usize,
    young: HashMap<K, Arc<Bucket<C>>>,
    old: HashMap<K, Arc<Bucket<C>>>,
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> Table<K, C> {
    fn new(per_second: u32, burst: u32, half: usize, clock: C) -> Self {
        let quota = NonZeroU32::new(per_second)
            .map(|rate| Quota::per_second(rate).allow_burst(NonZeroU32::new(burst).unwrap_or(rate)));
        let (young, old) = Default::default();
        Self {
            quota,
            clock,
            half,
            young,
            old,
        }
    }

    fn get(&mut self, key: &K) -> Option<Arc<Bucket<C>>> {
        if let Some(bucket) = self.young.get(key) {
            return Some(bucket.clone());
        }
        let bucket = self.old.remove(key)?;
        self.put(key.clone(), bucket.clone());
        Some(bucket)
    }

    fn get_or_make(&mut self, key: &K) -> Option<Arc<Bucket<C>>> {
        let quota = self.quota?;
        Some(self.get(key).unwrap_or_else(|| {
            let bucket = Arc::new(RateLimiter::direct_with_clock(quota, self.clock.clone()));
            self.put(key.clone(), bucket.clone());
            bucket
        }))
    }

    fn put(&mut self, key: K, bucket: Arc<Bucket<C>>) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, bucket);
    }
}

/// The limits of this process.
pub(crate) struct Limits<C: Clock = MonotonicClock> {
    trusted: Vec<IpNet>,
    clock: C,
    sessions: Mutex<Table<[u8; 32], C>>,
    networks: Mutex<Table<IpNet, C>>,
}

impl Limits {
    pub(crate) fn new(config: &Config, trusted: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self::with_clock(config, trusted, HALF, MonotonicClock))
    }
}

impl<C: Clock + Clone> Limits<C> {
    fn with_clock(config: &Config, trusted: Vec<IpNet>, half: usize, clock: C) -> Self {
        let sessions = Table::new(config.session_per_second, config.session_burst, half, clock.clone());
        let networks = Table::new(config.network_per_second, config.network_burst, half, clock.clone());
        Self {
            trusted,
            clock,
            sessions: sessions.into(),
            networks: networks.into(),
        }
    }

    /// How long to wait, if this request is one too many.
    fn charge(&self, token: Option<&[u8; 32]>, client: IpAddr) -> Result<(), Duration> {
        let known = token.and_then(|token| lock(&self.sessions).get(token));
        let bucket = known.or_else(|| lock(&self.networks).get_or_make(&address::network(client)));
        let Some(bucket) = bucket else { return Ok(()) };
        bucket.check().map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// The token was good: from now on it has its own bucket.
    fn is_good(&self, token: &[u8; 32]) {
        lock(&self.sessions).get_or_make(token);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The doors that cost something. The client's own files are sent to whoever asks.
const DOORS: [&str; 9] = [
    "/api/",
    "/fhir/",
    "/oauth2/",
    "/files",
    "/rtc",
    "/twirp/",
    "/connection/",
    "/mqtt",
    "/dev/",
];
/// Refuses what is too much, with 429 and when to come again.
pub(crate) async fn limit(State(limits): State<Arc<Limits>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !DOORS.iter().any(|door| path.starts_with(door)) {
        return next.run(request).await;
    }
    let fhir = path.starts_with("/fhir/");
    let token = bearer(request.headers()).map(|token| id::sha256(token.as_bytes()));
    let peer = request.extensions().get::<Peer>().map(|p| p.0.ip());
    let mut origin = Origin::default();
    if let Some(peer) = peer {
        let client = address::client(peer, request.headers(), &limits.trusted);
        if let Err(wait) = limits.charge(token.as_ref(), client) {
            return too_many(fhir, wait);
        }
        request.extensions_mut().insert(Network(address::network(client)));
        origin.network = Some(network(client));
    }
    let verified = Verified::default();
    request.extensions_mut().insert(verified.clone());
    let response = origin.scope(next.run(request)).await;
    if let Some(token) = token
        && verified.is_set()
    {
        limits.is_good(&token);
    }
    response
}

fn too_many(fhir: bool, wait: Duration) -> Response {
    let text = "Too many requests. Please wait a moment and try again.";
    let mut response = if fhir {
        let issue = json!({"severity": "error", "code": "throttled", "diagnostics": text});
        let body = json!({"resourceType": "OperationOutcome", "issue": [issue]}).to_string();
        let kind = [(header::CONTENT_TYPE, "application/fhir+json; charset=utf-8")];
        (StatusCode::TOO_MANY_REQUESTS, kind, body).into_response()
    } else {
        Error::too_many("http.too_many", text).into_response()
    };
    response.extensions_mut().insert(Code("http.too_many"));
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    const CONFIG: Config = Config {
        session_per_second: 10,
        session_burst: 20,
        network_per_second: 1,
        network_burst: 5,
    };

    fn limits(half: usize) -> (Limits<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limits::with_clock(&CONFIG, Vec::new(), half, clock.clone()), clock)
    }

    fn allowed(limits: &Limits<FakeRelativeClock>, token: Option<[u8; 32]>, client: [u8; 4], tries: usize) -> usize {
        (0..tries)
            .filter(|_| limits.charge(token.as_ref(), IpAddr::from(client)).is_ok())
            .count()
    }

    #[test]
    fn a_network_without_a_token_has_its_burst_and_then_its_rate() {
        let (limits, clock) = limits(HALF);
        assert_eq!(allowed(&limits, None, [203, 0, 113, 1], 50), 5);
        // Another address of the same network does not begin anew; another network does.
        assert_eq!(allowed(&limits, None, [203, 0, 113, 200], 50), 0);
        assert_eq!(allowed(&limits, None, [203, 0, 114, 1], 50), 5);
        clock.advance(Duration::from_secs(3));
        assert_eq!(allowed(&limits, None, [203, 0, 113, 1], 50), 3);
    }

    #[test]
    fn forged_tokens_are_charged_to_their_network_and_a_good_one_is_not_hindered_by_them() {
        let (limits, _) = limits(HALF);
        limits.is_good(&[1; 32]);
        let forged: usize = (2..=60)
            .map(|n| allowed(&limits, Some([n; 32]), [203, 0, 113, 1], 1))
            .sum();
        assert_eq!(forged, 5);
        assert_eq!(lock(&limits.sessions).young.len(), 1);
        assert_eq!(allowed(&limits, Some([1; 32]), [203, 0, 113, 1], 50), 20);
    }

    #[test]
    fn the_tables_are_bounded_and_keep_who_comes_often() {
        let (limits, _) = limits(10);
        assert_eq!(allowed(&limits, None, [10, 0, 0, 1], 50), 5);
        for n in 1..=200 {
            let _ = limits.charge(None, IpAddr::from([10, 1, n, 1]));
            assert!(limits.charge(None, IpAddr::from([10, 0, 0, 1])).is_err());
            let table = lock(&limits.networks);
            assert!(table.young.len() + table.old.len() <= 20);
        }
    }

    #[test]
    fn zero_switches_a_limit_off() {
        let off = Config {
            network_per_second: 0,
            ..CONFIG
        };
        let limits = Limits::with_clock(&off, Vec::new(), HALF, FakeRelativeClock::default());
        assert_eq!(allowed(&limits, None, [10, 0, 0, 1], 500), 500);
    }

    #[test]
    fn a_refusal_says_when_to_come_again() {
        let (limits, _) = limits(HALF);
        allowed(&limits, None, [10, 0, 0, 1], 5);
        let wait = limits.charge(None, IpAddr::from([10, 0, 0, 1])).expect_err("too many");
        for fhir in [false, true] {
            let answer = too_many(fhir, wait);
            assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
        }
    }
}
