//! Logical ids: a keyed permutation of the row number, so that ids need no column, no index, and tell nothing.
//!
//! A Feistel network over 64 bits with HMAC-SHA256 as round function, printed in base 32. Row numbers stay below
//! 2^40: a text that was not made here decodes to something larger, all but once in 16 million times, and is then
//! looked up like any client's id.

use aws_lc_rs::hmac;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 13;
const ROUNDS: u8 = 4;
const LIMIT: u64 = 1 << 40;

/// One tenant's permutation.
pub(crate) struct Permutation(hmac::Key);

impl Permutation {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    fn round(&self, round: u8, half: u32) -> u32 {
        let [a, b, c, d] = half.to_be_bytes();
        let tag = hmac::sign(&self.0, &[round, a, b, c, d]);
        tag.as_ref()
            .first_chunk::<4>()
            .map_or(0, |head| u32::from_be_bytes(*head))
    }

    /// The logical id of a row.
    pub(crate) fn id(&self, rid: i64) -> String {
        let rid = rid as u64;
        let (mut left, mut right) = ((rid >> 32) as u32, rid as u32);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(round, right));
        }
        let mut bits = (u64::from(left) << 32) | u64::from(right);
        let mut out = [0_u8; LENGTH];
        for place in out.iter_mut().rev() {
            *place = ALPHABET.get((bits & 31) as usize).copied().unwrap_or(b'0');
            bits >>= 5;
        }
        out.iter().map(|b| char::from(*b)).collect()
    }

    /// The row of an id of ours; `None` for every other text.
    pub(crate) fn rid(&self, id: &str) -> Option<i64> {
        if id.len() != LENGTH {
            return None;
        }
        let mut bits: u64 = 0;
        for (i, b) in id.bytes().enumerate() {
            let digit = ALPHABET.iter().position(|a| *a == b)? as u64;
            // 13 digits hold 65 bits; the first has only four of them.
            if i == 0 && digit > 15 {
                return None;
            }
            bits = (bits << 5) | digit;
        }
        let (mut left, mut right) = ((bits >> 32) as u32, bits as u32);
        for round in (0..ROUNDS).rev() {
            (left, right) = (right ^ self.round(round, left), left);
        }
        let rid = (u64::from(left) << 32) | u64::from(right);
        (rid > 0 && rid < LIMIT).then_some(rid as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_leads_back_and_only_with_its_own_key() {
        let ours = Permutation::new(&[1; 32]);
        let theirs = Permutation::new(&[2; 32]);
        for rid in [1_i64, 2, 3, 1_000, 1 << 33, (1 << 40) - 1] {
            let id = ours.id(rid);
            assert!(id.len() == LENGTH && crate::validate::is_id(&id));
            assert_eq!(ours.rid(&id), Some(rid));
            assert_eq!(theirs.rid(&id), None);
        }
        assert_ne!(ours.id(1), ours.id(2));
        for other in ["", "patient-1", "zzzzzzzzzzzzz", "0000000000000", "ééééééé"] {
            assert_eq!(ours.rid(other), None);
        }
    }
}
