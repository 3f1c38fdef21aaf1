//! Identifiers and randomness.

use crate::Clock;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

/// A new UUIDv7 (RFC 9562): ordered by the clock it is given, random in the rest.
#[must_use]
pub fn new_id(clock: &Clock) -> Uuid {
    uuid_v7(clock.now_ms())
}

/// A UUIDv7 for the given time in milliseconds.
#[must_use]
pub fn uuid_v7(at: i64) -> Uuid {
    let millis = u64::try_from(at).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random::<10>()).into_uuid()
}

/// `N` bytes from the operating system's generator.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    #[expect(
        clippy::expect_used,
        reason = "invariant: the system generator works, or no secret of ours can be made"
    )]
    aws_lc_rs::rand::fill(&mut bytes).expect("system random generator");
    bytes
}

/// A 256-bit secret in URL-safe base64 without padding (43 characters).
#[must_use]
pub fn token() -> String {
    URL_SAFE_NO_PAD.encode(random::<32>())
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0_u8; 32];
    for (to, from) in out
        .iter_mut()
        .zip(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
    {
        *to = *from;
    }
    out
}
