//! Passwords: argon2id (RFC 9106) in PHC string form, hashed on a bounded number of blocking threads.

use crate::cost::{Cost, FLOOR};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use medtech_kernel::{Error, Result, id};
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

const LANES: u32 = 1;
/// Hashes at once at most, whatever the machine has: each takes its memory.
const THREADS: usize = 8;
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
    standard: Arc<RwLock<Standard>>,
    /// Blocks filled so far, for tests that compare work and not time.
    #[cfg(test)]
    filled: Arc<std::sync::atomic::AtomicU64>,
}

/// What is asked of a hash today.
#[derive(Clone)]
struct Standard {
    cost: Cost,
    /// Verified against when there is no such account, so that the work is the same.
    decoy: Arc<str>,
}

impl Standard {
    fn of(cost: Cost) -> Self {
        Self {
            cost,
            decoy: encode(cost, &id::random::<16>(), &id::random::<32>()).into(),
        }
    }
}

/// What a password was found to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Wrong,
    Right,
    /// Right, and its hash was cheaper than what is asked today: this one is to be stored.
    Renewed(String),
}

impl Hasher {
    pub(crate) fn new() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            permits: Arc::new(Semaphore::new(threads.min(THREADS))),
            waiting: Arc::default(),
            standard: Arc::new(RwLock::new(Standard::of(FLOOR))),
            #[cfg(test)]
            filled: Arc::default(),
        }
    }

    /// What hashes cost from now on.
    pub(crate) fn set(&self, cost: Cost) {
        *self.standard.write().unwrap_or_else(PoisonError::into_inner) = Standard::of(cost);
    }

    fn standard(&self) -> Standard {
        self.standard.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// [`derive`], counted.
    fn counted(&self, pepper: &[u8], password: &str, salt: &[u8], cost: Cost) -> Result<[u8; 32]> {
        #[cfg(test)]
        self.filled.fetch_add(cost.work(), Ordering::SeqCst);
        derive(pepper, password, salt, cost)
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
        let (this, cost) = (self.clone(), self.standard().cost);
        self.run(move || {
            if guessable(&password, &known) {
                return Err(Error::unprocessable(
                    "identity.password_weak",
                    "This password is easy to guess, or is on lists of stolen passwords. Choose another one: four random words do well.",
                ));
            }
            let salt = id::random::<16>();
            let hash = this.counted(&pepper, &password, &salt, cost)?;
            Ok(encode(cost, &salt, &hash))
        })
        .await
    }

    /// Is it the password? Without a stored hash the answer is no, after the same work; and a hash from when less was asked
    /// takes as much work to refuse.
    pub(crate) async fn verify(&self, pepper: [u8; 32], password: &str, stored: Option<&str>) -> Result<Verdict> {
        let known = stored.is_some();
        let Standard { cost: full, decoy } = self.standard();
        let stored = stored.unwrap_or(&decoy).to_owned();
        // An overlong password is not worth hashing and can't be right; its first part keeps the work equal.
        let fits = password.len() <= 4 * LONGEST;
        let password = normal(password.get(..4 * LONGEST).filter(|_| !fits).unwrap_or(password));
        let fits = fits && password.chars().count() <= LONGEST;
        let password: String = password.chars().take(LONGEST).collect();
        let this = self.clone();
        self.run(move || {
            let Some((cost, salt, expected)) = decode(&stored) else {
                return Err(Error::internal("identity.password_hash", "a stored hash is malformed"));
            };
            let hash = this.counted(&pepper, &password, &salt, cost)?;
            let right = aws_lc_rs::constant_time::verify_slices_are_equal(&hash, &expected).is_ok() && known && fits;
            match (right, cost.missing(full)) {
                (true, None) => Ok(Verdict::Right),
                (true, Some(_)) => {
                    let salt = id::random::<16>();
                    let hash = this.counted(&pepper, &password, &salt, full)?;
                    Ok(Verdict::Renewed(encode(full, &salt, &hash)))
                }
                (false, missing) => {
                    if let Some(missing) = missing {
                        this.counted(&pepper, &password, &salt, missing)?;
                    }
                    Ok(Verdict::Wrong)
                }
            }
        })
        .await
    }

    /// A short secret that was made here, stretched as a password of the floor is.
    pub(crate) async fn stretch(
        &self,
        pepper: [u8; 32],
        secrets: Vec<String>,
        salt: [u8; 16],
    ) -> Result<Vec<[u8; 32]>> {
        let this = self.clone();
        self.run(move || {
            let one = |secret: String| this.counted(&pepper, &secret, &salt, FLOOR);
            secrets.into_iter().map(one).collect()
        })
        .await
    }

    /// Blocks filled so far.
    #[cfg(test)]
    pub(crate) fn filled(&self) -> u64 {
        self.filled.load(Ordering::SeqCst)
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
pub(crate) fn normal(password: &str) -> String {
    password.nfkc().collect()
}

/// Characters that a password has beside its owner's name and address.
const OWN: usize = 8;

/// What everyone in the field thinks of first; beside it stand the names of the clinic and of the person. The list is told in
/// docs/security/sign-in.md.
pub(crate) const WORDS: [&str; 32] = [
    "medtech",
    "nextgen",
    "clinic",
    "hospital",
    "medical",
    "medicine",
    "health",
    "healthcare",
    "doctor",
    "nurse",
    "patient",
    "surgery",
    "pharmacy",
    "praxis",
    "klinik",
    "krankenhaus",
    "arzt",
    "patienten",
    "gesundheit",
    "clinica",
    "medico",
    "salud",
    "enfermera",
    "paciente",
    "clinique",
    "medecin",
    "sante",
    "infirmiere",
    "telehealth",
    "telemedicine",
    "login",
    "welcome",
];

/// Within reach of a patient guesser: common and stolen passwords, keyboard walks, dates, names, and their usual disguises;
/// and for those who know its owner, what is hardly more than a name.
fn guessable(password: &str, known: &[String]) -> bool {
    let mut words: Vec<&str> = known
        .iter()
        .flat_map(|text| text.split(|c: char| !c.is_alphanumeric()))
        .filter(|word| word.len() > 2)
        .chain(WORDS)
        .collect();
    // A word goes before what it begins with.
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
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
pub(crate) fn derive(pepper: &[u8], password: &str, salt: &[u8], cost: Cost) -> Result<[u8; 32]> {
    let failed = |e: argon2::Error| Error::internal("identity.argon2", e.to_string());
    let params = Params::new(cost.memory, cost.passes, LANES, Some(32)).map_err(failed)?;
    let mut out = [0_u8; 32];
    Argon2::new_with_secret(pepper, Algorithm::Argon2id, Version::V0x13, params)
        .map_err(failed)?
        .hash_password_into(password.as_bytes(), salt, &mut out)
        .map_err(failed)?;
    Ok(out)
}

fn encode(cost: Cost, salt: &[u8], hash: &[u8]) -> String {
    let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
    let Cost { memory, passes } = cost;
    format!("$argon2id$v=19$m={memory},t={passes},p={LANES}${salt}${hash}")
}

fn decode(phc: &str) -> Option<(Cost, Vec<u8>, Vec<u8>)> {
    let mut parts = phc.strip_prefix("$argon2id$v=19$")?.split('$');
    let mut params = parts.next()?.split(',');
    let mut number = |name: &str| params.next()?.strip_prefix(name)?.parse().ok();
    let (memory, passes, lanes) = (number("m=")?, number("t=")?, number("p=")?);
    let salt = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
    let hash = STANDARD_NO_PAD.decode(parts.next()?).ok().filter(|h| h.len() == 32)?;
    let whole = parts.next().is_none() && lanes == LANES;
    whole.then_some((Cost { memory, passes }, salt, hash))
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
        let is = async |pepper, password: &str, stored: Option<&str>| hasher.verify(pepper, password, stored).await;
        assert_eq!(
            is(PEPPER, "correct horse battery", Some(&stored)).await?,
            Verdict::Right
        );
        assert_eq!(
            is(PEPPER, "correct horse batterz", Some(&stored)).await?,
            Verdict::Wrong
        );
        assert_eq!(is(PEPPER, "correct horse battery", None).await?, Verdict::Wrong);
        assert_eq!(
            is([8; 32], "correct horse battery", Some(&stored)).await?,
            Verdict::Wrong,
            "another pepper"
        );
        // As it was typed: case, outer and inner spaces, and every one of 128 characters count.
        for near in [
            "Correct horse battery",
            " correct horse battery",
            "correct horse battery ",
            "correct  horse battery",
        ] {
            assert_eq!(is(PEPPER, near, Some(&stored)).await?, Verdict::Wrong, "{near}");
        }
        let long: String = (0..128_u32).filter_map(|n| char::from_u32(0x4e00 + n * 7)).collect();
        let stored_long = hasher.hash(PEPPER, &long, &[]).await?;
        assert_eq!(is(PEPPER, &long, Some(&stored_long)).await?, Verdict::Right);
        let cut: String = long.chars().take(127).collect();
        assert_eq!(is(PEPPER, &cut, Some(&stored_long)).await?, Verdict::Wrong);
        let longer = format!("{long}x");
        assert_eq!(is(PEPPER, &longer, Some(&stored_long)).await?, Verdict::Wrong);
        assert_ne!(
            stored,
            hasher.hash(PEPPER, "correct horse battery", &[]).await?,
            "salted"
        );
        Ok(())
    }

    /// Work is counted in the blocks that argon2 fills: what an answer takes says nothing of the account.
    #[tokio::test]
    async fn every_refusal_takes_the_same_work_and_an_old_hash_is_renewed_once_right() -> Result<()> {
        let hasher = Hasher::new();
        let old = hasher.hash(PEPPER, "correct horse battery", &[]).await?;
        let dear = Cost {
            memory: 24_000,
            passes: 3,
        };
        hasher.set(dear);
        let new = hasher.hash(PEPPER, "correct horse battery", &[]).await?;
        assert!(new.starts_with("$argon2id$v=19$m=24000,t=3,p=1$"), "{new}");
        let mut works = Vec::new();
        for stored in [Some(&*old), Some(&*new), None] {
            for password in ["not the password", "short", &"x".repeat(5000)] {
                let before = hasher.filled();
                assert_eq!(hasher.verify(PEPPER, password, stored).await?, Verdict::Wrong);
                works.push(hasher.filled() - before);
            }
        }
        assert!(
            works.iter().all(|w| dear.work() - w < u64::from(dear.passes)),
            "{works:?}"
        );
        let Verdict::Renewed(renewed) = hasher.verify(PEPPER, "correct horse battery", Some(&old)).await? else {
            panic!("an old hash is renewed");
        };
        assert!(renewed.starts_with("$argon2id$v=19$m=24000,t=3,p=1$"), "{renewed}");
        assert_eq!(
            hasher.verify(PEPPER, "correct horse battery", Some(&renewed)).await?,
            Verdict::Right
        );
        // A dearer one than today's stays as it is.
        hasher.set(FLOOR);
        assert_eq!(
            hasher.verify(PEPPER, "correct horse battery", Some(&new)).await?,
            Verdict::Right
        );
        Ok(())
    }

    #[tokio::test]
    async fn nothing_of_the_field_the_clinic_or_the_person_makes_a_password() {
        let hasher = Hasher::new();
        let known = [
            "anna.keller@north.example",
            "Dr. Anna Keller",
            "Nordlicht Herzzentrum",
            "nordlicht",
        ];
        for bad in [
            "nordlicht1234",
            "Nordlicht-Herzzentrum",
            "Herzzentrum2026!",
            "KellerNordlicht",
            "doctorclinic1",
            "Krankenhaus12",
            "telehealth2026",
        ] {
            let refused = hasher.hash(PEPPER, bad, &known).await.err().map(|e| e.code);
            assert_eq!(refused, Some("identity.password_weak"), "{bad}");
        }
        for word in WORDS {
            let refused = hasher
                .hash(PEPPER, &format!("{word}1234{word}"), &[])
                .await
                .err()
                .map(|e| e.code);
            assert_eq!(refused, Some("identity.password_weak"), "{word}");
        }
        assert!(
            hasher
                .hash(PEPPER, "seven doctors walk to the nordlicht", &known)
                .await
                .is_ok()
        );
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
        let same = hasher.verify(PEPPER, "Z\u{00fc}rich sommernacht five", Some(&stored));
        assert_eq!(same.await?, Verdict::Right);
        let other = hasher.verify(PEPPER, "Zurich sommernacht five", Some(&stored));
        assert_eq!(other.await?, Verdict::Wrong);
        Ok(())
    }

    /// The vector of the reference implementation's README: `argon2id`, v=19, m=65536, t=2, p=1, "password", "somesalt".
    #[test]
    fn agrees_with_the_reference_implementation() -> Result<()> {
        let out = derive(
            &[],
            "password",
            b"somesalt",
            Cost {
                memory: 65_536,
                passes: 2,
            },
        )?;
        let hex: String = out.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7");
        Ok(())
    }
}
