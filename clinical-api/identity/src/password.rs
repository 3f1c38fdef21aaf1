//! Passwords: argon2id (RFC 9106) in PHC string form, hashed on a bounded number of blocking threads.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use medtech_kernel::{Error, Result, id};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

/// OWASP's floor: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Accepted lengths, in characters.
const SHORTEST: usize = 12;
const LONGEST: usize = 128;
/// Sign-ins that may wait for a hashing thread; the next one is asked to try again.
const QUEUE: usize = 256;

/// The hashing threads. Clones share them.
#[derive(Clone)]
pub(crate) struct Hasher {
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    /// Verified against when there is no such account, so that the work is the same.
    decoy: Arc<str>,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let decoy = encode(PASSES, MEMORY_KIB, LANES, &id::random::<16>(), &id::random::<32>());
        Self {
            permits: Arc::new(Semaphore::new(threads)),
            waiting: Arc::default(),
            decoy: decoy.into(),
        }
    }

    /// The PHC string to store.
    ///
    /// `known`: words about its owner, which are easy to guess for those who know them.
    pub(crate) async fn hash(&self, pepper: [u8; 32], password: &str, known: &[&str]) -> Result<String> {
        let password = normal(password);
        let length = password.chars().count();
        if !(SHORTEST..=LONGEST).contains(&length) {
            return Err(Error::unprocessable(
                "identity.password_length",
                "A password has 12 to 128 characters.",
            ));
        }
        let known: Vec<String> = known.iter().map(|word| (*word).to_owned()).collect();
        self.run(move || {
            if guessable(&password, &known) {
                return Err(Error::unprocessable(
                    "identity.password_weak",
                    "This password is easy to guess, or is on lists of stolen passwords. Choose another one: four random words do well.",
                ));
            }
            let salt = id::random::<16>();
            let hash = derive(&pepper, &password, &salt, (MEMORY_KIB, PASSES, LANES))?;
            Ok(encode(PASSES, MEMORY_KIB, LANES, &salt, &hash))
        })
        .await
    }

    /// Is it the password? Without a stored hash the answer is no, after the same work.
    pub(crate) async fn verify(&self, pepper: [u8; 32], password: &str, stored: Option<&str>) -> Result<bool> {
        let known = stored.is_some();
        let stored = stored.unwrap_or(&self.decoy).to_owned();
        // An overlong password is not worth hashing and can't be right; its first part keeps the work equal.
        let fits = password.len() <= 4 * LONGEST;
        let password = normal(password.get(..4 * LONGEST).filter(|_| !fits).unwrap_or(password));
        let fits = fits && password.chars().count() <= LONGEST;
        let password: String = password.chars().take(LONGEST).collect();
        self.run(move || {
            let Some((memory, passes, lanes, salt, expected)) = decode(&stored) else {
                return Err(Error::internal("identity.password_hash", "a stored hash is malformed"));
            };
            let hash = derive(&pepper, &password, &salt, (memory, passes, lanes))?;
            Ok(aws_lc_rs::constant_time::verify_slices_are_equal(&hash, &expected).is_ok() && known && fits)
        })
        .await
    }

    /// Holds every hashing thread, as long hashes would.
    #[cfg(test)]
    pub(crate) async fn hold_all(&self) -> tokio::sync::OwnedSemaphorePermit {
        let all = u32::try_from(self.permits.available_permits()).expect("a few");
        self.permits.clone().acquire_many_owned(all).await.expect("open")
    }

    /// Sign-ins that wait for a thread or have one.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let _place = Place::take(&self.waiting)?;
        let permit = self
            .permits
            .clone()
            .acquire_owned()
            .await
            .map_err(|e| Error::internal("identity.hasher", e))?;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        })
        .await
        .map_err(|e| Error::internal("identity.hasher", e))?
    }
}

/// One form for what looks the same, however a keyboard wrote it (NFKC, as RFC 8265 and NIST SP 800-63B advise).
fn normal(password: &str) -> String {
    password.nfkc().collect()
}

/// Characters that a password has beside its owner's name and address.
const OWN: usize = 8;

/// Within reach of a patient guesser: common and stolen passwords, keyboard walks, dates, names, and their usual disguises;
/// and for those who know its owner, what is hardly more than a name.
fn guessable(password: &str, known: &[String]) -> bool {
    let words: Vec<&str> = known
        .iter()
        .flat_map(|text| text.split(|c: char| !c.is_alphanumeric()))
        .filter(|word| word.len() > 2)
        .chain(["medtech"])
        .collect();
    let mut rest = password.to_lowercase();
    for word in &words {
        rest = rest.replace(&word.to_lowercase(), "");
    }
    rest.chars().count() < OWN || zxcvbn::zxcvbn(password, &words).score() < zxcvbn::Score::Three
}

/// A place in the queue, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self> {
        if waiting.fetch_add(1, Ordering::SeqCst) >= QUEUE {
            waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::unavailable(
                "identity.busy",
                "Many people are signing in. Please try again in a moment.",
            ));
        }
        Ok(Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// `pepper` is argon2's secret input: a copy of the database alone does not let anyone guess.
fn derive(pepper: &[u8], password: &str, salt: &[u8], (memory, passes, lanes): (u32, u32, u32)) -> Result<[u8; 32]> {
    let failed = |e: argon2::Error| Error::internal("identity.argon2", e.to_string());
    let params = Params::new(memory, passes, lanes, Some(32)).map_err(failed)?;
    let mut out = [0_u8; 32];
    Argon2::new_with_secret(pepper, Algorithm::Argon2id, Version::V0x13, params)
        .map_err(failed)?
        .hash_password_into(password.as_bytes(), salt, &mut out)
        .map_err(failed)?;
    Ok(out)
}

fn encode(passes: u32, memory: u32, lanes: u32, salt: &[u8], hash: &[u8]) -> String {
    let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
    format!("$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${hash}")
}

type Decoded = (u32, u32, u32, Vec<u8>, Vec<u8>);

fn decode(phc: &str) -> Option<Decoded> {
    let mut parts = phc.strip_prefix("$argon2id$v=19$")?.split('$');
    let mut params = parts.next()?.split(',');
    let mut number = |name: &str| params.next()?.strip_prefix(name)?.parse().ok();
    let (memory, passes, lanes) = (number("m=")?, number("t=")?, number("p=")?);
    let salt = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
    let hash = STANDARD_NO_PAD.decode(parts.next()?).ok().filter(|h| h.len() == 32)?;
    parts.next().is_none().then_some((memory, passes, lanes, salt, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEPPER: [u8; 32] = [7; 32];

    #[tokio::test]
    async fn right_wrong_and_absent() -> Result<()> {
        let hasher = Hasher::new();
        let stored = hasher.hash(PEPPER, "correct horse battery", &[]).await?;
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(hasher.verify(PEPPER, "correct horse battery", Some(&stored)).await?);
        assert!(!hasher.verify(PEPPER, "correct horse batterz", Some(&stored)).await?);
        assert!(!hasher.verify(PEPPER, "correct horse battery", None).await?);
        assert!(
            !hasher.verify([8; 32], "correct horse battery", Some(&stored)).await?,
            "another pepper"
        );
        assert_ne!(
            stored,
            hasher.hash(PEPPER, "correct horse battery", &[]).await?,
            "salted"
        );
        Ok(())
    }

    #[tokio::test]
    async fn length_is_checked_before_work() {
        let hasher = Hasher::new();
        for bad in ["short", &"x".repeat(129)] {
            assert_eq!(
                hasher.hash(PEPPER, bad, &[]).await.err().map(|e| e.code),
                Some("identity.password_length")
            );
        }
    }

    #[tokio::test]
    async fn what_everybody_tries_first_is_refused() {
        let hasher = Hasher::new();
        let known = ["anna.keller@north.example", "Dr. Anna Keller"];
        for bad in [
            "password1234",
            "Password123!",
            "P@ssw0rd2024",
            "qwertyuiop12",
            "123456789012",
            "aaaaaaaaaaaa",
            "abcabcabcabc",
            "iloveyou1234",
            "annakeller12",
            "medtech12345",
            "letmein12345",
            "ｐａｓｓｗｏｒｄ１２３４",
        ] {
            assert_eq!(
                hasher.hash(PEPPER, bad, &known).await.err().map(|e| e.code),
                Some("identity.password_weak"),
                "{bad}"
            );
        }
        for good in ["correct horse battery", "a long enough password", "xk3Lq9vTz0pw"] {
            assert!(hasher.hash(PEPPER, good, &known).await.is_ok(), "{good}");
        }
    }

    #[tokio::test]
    async fn the_same_letters_in_another_encoding_are_the_same_password() -> Result<()> {
        let hasher = Hasher::new();
        let stored = hasher
            .hash(PEPPER, "Zu\u{0308}rich sommernacht \u{fb01}ve", &[])
            .await?;
        assert!(
            hasher
                .verify(PEPPER, "Z\u{00fc}rich sommernacht five", Some(&stored))
                .await?
        );
        assert!(!hasher.verify(PEPPER, "Zurich sommernacht five", Some(&stored)).await?);
        Ok(())
    }

    /// The vector of the reference implementation's README: `argon2id`, v=19, m=65536, t=2, p=1, "password", "somesalt".
    #[test]
    fn agrees_with_the_reference_implementation() -> Result<()> {
        let out = derive(&[], "password", b"somesalt", (65_536, 2, 1))?;
        let hex: String = out.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7");
        Ok(())
    }
}
