//! How guessing passwords is hindered without keeping the owner out: attempts are counted by where they come from.
//!
//! A browser in which the owner has signed in before counts for itself (as in OWASP's device cookies). Whoever comes from
//! elsewhere counts for the account and their network, for the account and all strangers, and for their network and all
//! accounts. Passkeys, mailed links and open sessions are counted by none of these. The figures are told in
//! docs/security/sign-in.md.

use crate::{Identity, audited, caller::Caller, store, too_many};
use medtech_kernel::{Error, Result, TenantId, Tx, clock::Millis, id};
use uuid::Uuid;

/// Attempts from one place at one account within [`WINDOW`].
pub(crate) const ATTEMPTS: i64 = 10;
pub(crate) const WINDOW: Millis = 15 * MINUTE;
/// Wrong passwords of one known browser, and of all strangers together, for one account in a day.
pub(crate) const OF_BROWSER: i64 = 50;
pub(crate) const OF_STRANGERS: i64 = 100;
/// Of all strangers together in an hour: what slows a guesser with many networks.
const OF_STRANGERS_HOUR: i64 = 30;
/// Wrong passwords of one network over all accounts: a list of stolen ones that is tried through.
pub(crate) const OF_NETWORK: i64 = 200;

const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;

/// What counts together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) key: [u8; 32],
    most: i64,
    window: Millis,
    /// Emptied by the right password; of the others only the right attempt itself is taken back.
    own: bool,
}

impl Bucket {
    fn of(parts: &[&str], most: i64, window: Millis, own: bool) -> Self {
        // The parts are told apart by a character that is in none of them.
        let key = id::sha256(parts.join("\n").as_bytes());
        Self { key, most, window, own }
    }
}

/// Where attempts at a password are counted, the narrowest first.
pub(crate) fn buckets(email: &str, caller: &Caller, known: bool) -> Vec<Bucket> {
    if let Some(browser) = caller.browser.filter(|_| known) {
        let browser: String = browser.iter().map(|b| format!("{b:02x}")).collect();
        return vec![
            Bucket::of(&["browser", email, &browser], ATTEMPTS, WINDOW, true),
            Bucket::of(&["browser, day", email, &browser], OF_BROWSER, DAY, true),
        ];
    }
    let network = caller.network.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    vec![
        Bucket::of(&["network", email, &network], ATTEMPTS, WINDOW, true),
        Bucket::of(&["network, all", &network], OF_NETWORK, WINDOW, false),
        Bucket::of(&["strangers, hour", email], OF_STRANGERS_HOUR, HOUR, false),
        Bucket::of(&["strangers", email], OF_STRANGERS, DAY, false),
    ]
}

/// For somebody who is signed in: counted in their own session, which no stranger reaches.
pub(crate) fn of_session(session: Uuid) -> Vec<Bucket> {
    vec![Bucket::of(&["session", &session.to_string()], ATTEMPTS, WINDOW, true)]
}

impl Identity {
    /// Counts an attempt before it is looked at, so that many at once cannot slip past the limit. A refused one does not fill
    /// the wider buckets, and is written down.
    pub(crate) async fn count_attempt(&self, tenant: TenantId, buckets: Vec<Bucket>) -> Result<()> {
        let refused = self.ctx.db.write(tenant, move |tx| {
            Box::pin(async move {
                for bucket in &buckets {
                    let (count, until) = store::attempt(tx, bucket.key, bucket.window).await?;
                    if count > bucket.most {
                        let why = "password, too many attempts";
                        audited(tx, "anonymous", "execute", "sign-in", "denied", why).await?;
                        return Ok(Some(until));
                    }
                }
                Ok(None)
            })
        });
        match refused.await? {
            None => Ok(()),
            Some(until) => Err::<(), Error>(too_many(until - self.ctx.clock.now_ms())),
        }
    }
}

/// The password was right.
pub(crate) async fn forget(tx: &mut Tx, buckets: &[Bucket]) -> Result<()> {
    for bucket in buckets {
        match bucket.own {
            true => store::forget_attempts(tx, bucket.key).await?,
            false => store::take_back_attempt(tx, bucket.key).await?,
        }
    }
    Ok(())
}
