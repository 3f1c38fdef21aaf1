//! Sealing of RTP and RTCP, and opening of RTCP (SRTP: RFC 3711, with AES-GCM: RFC 7714). The ciphers are aws-lc-rs's.

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

/// How a connection's media is protected, by what its handshake chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// SRTP_AES128_CM_HMAC_SHA1_80
    Counter,
    /// SRTP_AEAD_AES_128_GCM
    Gcm128,
    /// SRTP_AEAD_AES_256_GCM
    Gcm256,
}

impl Profile {
    /// Bytes of a master key and of a master salt.
    pub(crate) fn lengths(self) -> (usize, usize) {
        match self {
            Profile::Counter => (16, 14),
            Profile::Gcm128 => (16, 12),
            Profile::Gcm256 => (32, 12),
        }
    }
}

const HMAC_TAG: usize = 10;
/// The flag of an SRTCP index that says that the packet is encrypted.
const ENCRYPTED: u32 = 1 << 31;
/// SSRC and what goes before it, in RTCP.
const RTCP_HEADER: usize = 8;

/// Seals what one side of a connection sends.
pub(crate) struct Sealer {
    rtp: Cipher,
    rtcp: Cipher,
}

/// Opens the reports that the other side sends.
pub(crate) struct Opener {
    rtcp: Cipher,
}

impl Sealer {
    /// `None` when the lengths are not those of the profile.
    pub(crate) fn new(profile: Profile, master: &[u8], salt: &[u8]) -> Option<Sealer> {
        Some(Sealer {
            rtp: Cipher::derived(profile, master, salt, 0)?,
            rtcp: Cipher::derived(profile, master, salt, 3)?,
        })
    }

    /// Protect `packet`, whose header is `header` bytes long. `index` is the sequence number with the roll-over counter
    /// above it; an index is never used twice with one SSRC, except for the very same packet.
    pub(crate) fn rtp(&self, packet: &mut Vec<u8>, header: usize, index: u64) -> Option<()> {
        let ssrc = ssrc_at(packet, 8)?;
        let (head, body) = packet.split_at_mut_checked(header)?;
        match &self.rtp {
            Cipher::Counter { key, salt, auth } => {
                counter(key, counter_iv(salt, ssrc, index), body)?;
                let mut tag = hmac::Context::with_key(auth);
                tag.update(packet);
                // Truncation is meant: the roll-over counter has 32 bits.
                tag.update(&((index >> 16) as u32).to_be_bytes());
                packet.extend_from_slice(tag.sign().as_ref().get(..HMAC_TAG)?);
            }
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, ssrc, index);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*head), body).ok()?;
                packet.extend_from_slice(tag.as_ref());
            }
        }
        Some(())
    }

    /// Protect a compound packet; `index` counts the packets sent.
    pub(crate) fn rtcp(&self, packet: &mut Vec<u8>, index: u32) -> Option<()> {
        let ssrc = ssrc_at(packet, 4)?;
        let index = index & !ENCRYPTED;
        let trailer = (index | ENCRYPTED).to_be_bytes();
        let (head, body) = packet.split_at_mut_checked(RTCP_HEADER)?;
        match &self.rtcp {
            Cipher::Counter { key, salt, auth } => {
                counter(key, counter_iv(salt, ssrc, index.into()), body)?;
                packet.extend_from_slice(&trailer);
                let tag = hmac::sign(auth, packet);
                packet.extend_from_slice(tag.as_ref().get(..HMAC_TAG)?);
            }
            Cipher::Gcm { key, salt } => {
                let aad = [&*head, &trailer].concat();
                let nonce = gcm_nonce(salt, ssrc, index.into());
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&aad), body).ok()?;
                packet.extend_from_slice(tag.as_ref());
                packet.extend_from_slice(&trailer);
            }
        }
        Some(())
    }
}

impl Opener {
    pub(crate) fn new(profile: Profile, master: &[u8], salt: &[u8]) -> Option<Opener> {
        Some(Opener {
            rtcp: Cipher::derived(profile, master, salt, 3)?,
        })
    }

    /// The compound packet in a datagram, and its index; `None` unless it is authentic and was encrypted.
    pub(crate) fn rtcp(&self, datagram: &[u8]) -> Option<(u32, Vec<u8>)> {
        let ssrc = ssrc_at(datagram, 4)?;
        // The tag of AES-GCM stands before the index, that of HMAC behind it.
        let end = match &self.rtcp {
            Cipher::Counter { .. } => datagram.len().checked_sub(HMAC_TAG)?,
            Cipher::Gcm { .. } => datagram.len(),
        };
        let (sealed, trailer) = datagram.get(..end)?.split_last_chunk::<4>()?;
        let flagged = u32::from_be_bytes(*trailer);
        if flagged & ENCRYPTED == 0 || sealed.len() < RTCP_HEADER {
            return None;
        }
        let index = flagged & !ENCRYPTED;
        let mut packet = sealed.to_vec();
        match &self.rtcp {
            Cipher::Counter { key, salt, auth } => {
                let expected = hmac::sign(auth, datagram.get(..end)?);
                verify_slices_are_equal(expected.as_ref().get(..HMAC_TAG)?, datagram.get(end..)?).ok()?;
                let body = packet.get_mut(RTCP_HEADER..)?;
                counter(key, counter_iv(salt, ssrc, index.into()), body)?;
            }
            Cipher::Gcm { key, salt } => {
                let (head, body) = packet.split_at_mut_checked(RTCP_HEADER)?;
                let aad = [&*head, trailer].concat();
                let nonce = gcm_nonce(salt, ssrc, index.into());
                let length = key.open_in_place(nonce, Aad::from(&aad), body).ok()?.len();
                packet.truncate(RTCP_HEADER + length);
            }
        }
        Some((index, packet))
    }
}

/// A cipher with session keys.
#[expect(
    clippy::large_enum_variant,
    reason = "a few for each connection, and no detour for each packet"
)]
enum Cipher {
    Counter {
        key: EncryptingKey,
        salt: [u8; 14],
        auth: hmac::Key,
    },
    Gcm {
        key: LessSafeKey,
        salt: [u8; 12],
    },
}

impl Cipher {
    /// With the session keys of RTP (`label` 0) or RTCP (3), RFC 3711 section 4.3.
    fn derived(profile: Profile, master: &[u8], salt: &[u8], label: u8) -> Option<Cipher> {
        if (master.len(), salt.len()) != profile.lengths() {
            return None;
        }
        let mut key = Zeroizing::new(vec![0; master.len()]);
        derive(master, salt, label, &mut key)?;
        let session = |label, out: &mut [u8]| derive(master, salt, label, out);
        match profile {
            Profile::Counter => {
                let (mut auth, mut salt) = (Zeroizing::new([0; 20]), [0; 14]);
                session(label + 1, &mut auth[..])?;
                session(label + 2, &mut salt)?;
                Cipher::counter(&key, &auth[..], salt)
            }
            Profile::Gcm128 | Profile::Gcm256 => {
                let mut salt = [0; 12];
                session(label + 2, &mut salt)?;
                Cipher::gcm(&key, salt)
            }
        }
    }

    fn counter(key: &[u8], auth: &[u8], salt: [u8; 14]) -> Option<Cipher> {
        Some(Cipher::Counter {
            key: EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, key).ok()?).ok()?,
            salt,
            auth: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, auth),
        })
    }

    fn gcm(key: &[u8], salt: [u8; 12]) -> Option<Cipher> {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        Some(Cipher::Gcm {
            key: LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?),
            salt,
        })
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

/// The key stream that starts at label XOR salt. A salt of 96 bits stands left in its 112.
fn derive(master: &[u8], salt: &[u8], label: u8, out: &mut [u8]) -> Option<()> {
    let mut iv = [0; 16];
    iv.get_mut(..salt.len())?.copy_from_slice(salt);
    iv[7] ^= label;
    let algorithm = if master.len() == 32 { &AES_256 } else { &AES_128 };
    let key = EncryptingKey::ctr(UnboundCipherKey::new(algorithm, master).ok()?).ok()?;
    out.fill(0);
    counter(&key, iv, out)
}

fn counter(key: &EncryptingKey, iv: [u8; 16], body: &mut [u8]) -> Option<()> {
    let done: Result<_, Unspecified> = key.less_safe_encrypt(body, EncryptionContext::Iv128(FixedLength::from(&iv)));
    done.ok().map(|_| ())
}

/// RFC 3711 section 4.1.1: salt · 2¹⁶ XOR SSRC · 2⁶⁴ XOR index · 2¹⁶.
fn counter_iv(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let mut iv = [0; 16];
    let salt = salt.iter().copied().chain([0, 0]);
    let mixed = (u128::from(ssrc) << 64) ^ (u128::from(index & 0xffff_ffff_ffff) << 16);
    for ((out, salt), mixed) in iv.iter_mut().zip(salt).zip(mixed.to_be_bytes()) {
        *out = salt ^ mixed;
    }
    iv
}

/// RFC 7714 sections 8.1 and 9.1: two zero bytes, SSRC, index (48 bits), XOR salt.
fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mixed = (u128::from(ssrc) << 48) | u128::from(index & 0xffff_ffff_ffff);
    let mut nonce = [0; 12];
    for ((out, salt), mixed) in nonce.iter_mut().zip(salt).zip(mixed.to_be_bytes().into_iter().skip(4)) {
        *out = salt ^ mixed;
    }
    Nonce::assume_unique_for_key(nonce)
}

fn ssrc_at(packet: &[u8], at: usize) -> Option<u32> {
    let bytes = packet.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let number = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(number).collect()
    }

    /// RFC 3711 appendix B.3.
    #[test]
    fn keys_are_derived_as_published() {
        let master = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
        let derived = |label, length| {
            let mut out = vec![0; length];
            derive(&master, &salt, label, &mut out).unwrap();
            out
        };
        assert_eq!(derived(0, 16), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(derived(2, 14), hex("30CBBC08863D8C85D49DB34A9AE1"));
        let auth = "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCEE049646C43D9327AD175578EF72270986371C10C9A369AC2F94A8C5FBCDDDC256D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2";
        assert_eq!(derived(1, 94), hex(auth));
    }

    /// RFC 3711 appendix B.2: SSRC and index of zero.
    #[test]
    fn the_key_stream_is_as_published() {
        let key = hex("2B7E151628AED2A6ABF7158809CF4F3C");
        let salt: [u8; 14] = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap();
        let key = EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, &key).unwrap()).unwrap();
        let mut stream = vec![0; 0xff02 * 16];
        counter(&key, counter_iv(&salt, 0, 0), &mut stream).unwrap();
        let block = |at: usize| &stream[at * 16..][..16];
        assert_eq!(block(0), hex("E03EAD0935C95E80E166B16DD92B4EB4"));
        assert_eq!(block(1), hex("D23513162B02D0F72A43A2FE4A5F97AB"));
        assert_eq!(block(2), hex("41E95B3BB0A2E8DD477901E4FCA894C0"));
        assert_eq!(block(0xfeff), hex("EC8CDF7398607CB0F2D21675EA9EA1E4"));
        assert_eq!(block(0xff00), hex("362B7C3C6773516318A077D7FC5073AE"));
        assert_eq!(block(0xff01), hex("6A2CC3787889374FBEB4C81B17BA6C44"));
    }

    /// RFC 7714 section 16: session keys, a packet, the same packet sealed.
    #[test]
    fn gcm_seals_rtp_as_published() {
        let packet = hex(
            "8040f17b8041f8d35501a0b2 47616c6c69612065 7374206f6d6e6973 2064697669736120 696e207061727465 7320747265 73",
        );
        let salt: [u8; 12] = hex("517569642070726f2071756f").try_into().unwrap();
        let cases = [
            (
                "000102030405060708090a0b0c0d0e0f",
                "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
            ),
            (
                "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
                "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
            ),
        ];
        for (key, sealed) in cases {
            let sealer = Sealer {
                rtp: Cipher::gcm(&hex(key), salt).unwrap(),
                rtcp: Cipher::gcm(&hex(key), salt).unwrap(),
            };
            let mut got = packet.clone();
            // ROC 0, sequence number f17b.
            sealer.rtp(&mut got, 12, 0xf17b).unwrap();
            assert_eq!(got, hex(sealed));
        }
    }

    /// RFC 7714 section 17: index 5d4.
    #[test]
    fn gcm_seals_rtcp_as_published() {
        let packet = hex(
            "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61deadbeefdeadbeefdeadbeefdeadbeefdeadbeef",
        );
        let salt: [u8; 12] = hex("517569642070726f2071756f").try_into().unwrap();
        let cases = [
            (
                "000102030405060708090a0b0c0d0e0f",
                "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4",
            ),
            (
                "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
                "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f658c61de0476f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
            ),
        ];
        for (key, sealed) in cases {
            let cipher = || Cipher::gcm(&hex(key), salt).unwrap();
            let mut got = packet.clone();
            let sealer = Sealer {
                rtp: cipher(),
                rtcp: cipher(),
            };
            sealer.rtcp(&mut got, 0x5d4).unwrap();
            assert_eq!(got, hex(sealed));
            let opened = Opener { rtcp: cipher() }.rtcp(&got).unwrap();
            assert_eq!(opened, (0x5d4, packet.clone()));
        }
    }

    const PROFILES: [Profile; 3] = [Profile::Counter, Profile::Gcm128, Profile::Gcm256];

    fn keys(profile: Profile, fill: u8) -> (Vec<u8>, Vec<u8>) {
        let (key, salt) = profile.lengths();
        (vec![fill; key], vec![fill ^ 0xff; salt])
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_a_changed_bit_does_not(
            body in proptest::collection::vec(any::<u8>(), 0..200), index in 0u32..1 << 31, at in any::<prop::sample::Index>(), bit in 0u8..8
        ) {
            let packet = [&[0x80, 201, 0, 1, 9, 9, 9, 9][..], &body].concat();
            for profile in PROFILES {
                let (key, salt) = keys(profile, 7);
                let mut sealed = packet.clone();
                Sealer::new(profile, &key, &salt).unwrap().rtcp(&mut sealed, index).unwrap();
                let opener = Opener::new(profile, &key, &salt).unwrap();
                prop_assert_eq!(opener.rtcp(&sealed), Some((index, packet.clone())));
                let at = at.index(sealed.len());
                sealed[at] ^= 1 << bit;
                prop_assert_eq!(opener.rtcp(&sealed), None);
            }
        }

        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), header in 0usize..120) {
            for profile in PROFILES {
                let (key, salt) = keys(profile, 1);
                prop_assert_eq!(Opener::new(profile, &key, &salt).unwrap().rtcp(&bytes), None);
                let sealer = Sealer::new(profile, &key, &salt).unwrap();
                sealer.rtp(&mut bytes, header, 5);
                sealer.rtcp(&mut bytes, 5);
            }
        }
    }

    #[test]
    fn keys_of_another_length_are_refused() {
        assert!(Sealer::new(Profile::Gcm256, &[0; 16], &[0; 12]).is_none());
        assert!(Opener::new(Profile::Counter, &[0; 16], &[0; 12]).is_none());
    }
}
