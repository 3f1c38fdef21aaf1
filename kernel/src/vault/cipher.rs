//! AES-256-GCM with a nonce drawn for each message, and the text that is authenticated with it.

use crate::{Error, Result};
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};

/// Bytes that sealing adds: the nonce before, the tag behind.
pub const OVERHEAD: usize = NONCE + TAG;
const NONCE: usize = 12;
const TAG: usize = 16;

/// A key made ready. Its bytes are not kept, and it has no `Debug`. At most 2^32 messages may be sealed with one
/// (NIST SP 800-38D, 8.3): data keys are for one subject, or for one month.
pub struct Key(RandomizedNonceKey);

impl Key {
    pub fn new(bytes: &[u8; 32]) -> Result<Self> {
        RandomizedNonceKey::new(&AES_256_GCM, bytes)
            .map(Self)
            .map_err(|e| Error::internal("vault.key", e))
    }

    /// `nonce | ciphertext | tag`, appended to `out`.
    pub fn seal_into(&self, aad: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.extend_from_slice(&[0; NONCE]);
        out.extend_from_slice(plain);
        let failed = |_| Error::internal("vault.seal", "the cipher refused");
        let body = out.get_mut(start + NONCE..).unwrap_or_default();
        let (nonce, tag) = self
            .0
            .seal_in_place_separate_tag(Aad::from(aad), body)
            .map_err(failed)?;
        if let Some(place) = out.get_mut(start..start + NONCE) {
            place.copy_from_slice(nonce.as_ref());
        }
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }

    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(plain.len() + OVERHEAD);
        self.seal_into(aad, plain, &mut out)?;
        Ok(out)
    }

    /// What was sealed under the same `aad`. Anything changed, moved or cut is refused.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let refused = || Error::internal("vault.tampered", "sealed bytes are not as they were written");
        let (nonce, body) = sealed.split_at_checked(NONCE).ok_or_else(refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| refused())?;
        let mut body = body.to_vec();
        let length = self
            .0
            .open_in_place(nonce, Aad::from(aad), &mut body)
            .map_err(|_| refused())?
            .len();
        body.truncate(length);
        Ok(body)
    }
}

/// Text to authenticate: each part is preceded by its length, so that no two lists of parts have the same bytes.
pub fn aad(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|p| p.len() + 4).sum());
    for part in parts {
        out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_bytes_under_the_same_text_open() {
        let (key, other) = (Key::new(&[1; 32]).unwrap(), Key::new(&[2; 32]).unwrap());
        for plain in [&b""[..], b"a", &[7; 5000]] {
            let sealed = key.seal(b"here", plain).unwrap();
            assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            assert_eq!(key.open(b"here", &sealed).unwrap(), plain);
            assert!(key.open(b"there", &sealed).is_err() && other.open(b"here", &sealed).is_err());
            assert_ne!(key.seal(b"here", plain).unwrap(), sealed);
            for at in [0, 12, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert!(key.open(b"here", &changed).is_err());
            }
            assert!(key.open(b"here", &sealed[..sealed.len() - 1]).is_err());
        }
        assert!(key.open(b"", b"short").is_err());
        assert_ne!(aad(&[b"ab", b"c"]), aad(&[b"a", b"bc"]));
    }

    /// Test case 16 of the GCM specification (McGrew, Viega), in our layout.
    #[test]
    fn the_cipher_is_aes_256_gcm() {
        let hex = |s: &str| -> Vec<u8> {
            (0..s.len() / 2)
                .map(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).unwrap())
                .collect()
        };
        let key: [u8; 32] = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
            .try_into()
            .unwrap();
        let sealed = hex(concat!(
            "cafebabefacedbaddecaf888",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b"
        ));
        let plain = hex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        );
        let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        assert_eq!(Key::new(&key).unwrap().open(&aad, &sealed).unwrap(), plain);
    }
}
