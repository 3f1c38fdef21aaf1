//! Public keys of authenticators: COSE_Key (RFC 9053) of the three algorithms that we offer, verified by aws-lc-rs.

use super::ceremony::Refusal;
use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use ciborium::Value;

/// COSE algorithm identifiers in the order in which they are offered: ES256, EdDSA (Ed25519), RS256.
pub(crate) const ALGORITHMS: [i64; 3] = [-7, -8, -257];

/// A key that can check a signature.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The uncompressed point (SEC 1, 2.3.3).
    Es256(Vec<u8>),
    Ed25519(Vec<u8>),
    Rs256 {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

impl Key {
    /// Reads a stored COSE_Key.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Refusal> {
        Self::parse(&super::ceremony::cbor(bytes)?)
    }

    /// A key whose type, algorithm and curve belong together.
    pub(crate) fn parse(value: &Value) -> Result<Self, Refusal> {
        let map = value.as_map().ok_or(Refusal::Key)?;
        let find = |label: i64| {
            let mut found = map.iter().filter(|(k, _)| integer(k) == Some(label)).map(|(_, v)| v);
            let first = found.next();
            // A label that stands twice says two things.
            if found.next().is_some() { None } else { first }
        };
        let number = |label| find(label).and_then(integer).ok_or(Refusal::Key);
        let bytes = |label, length: Option<usize>| {
            let bytes = find(label).and_then(Value::as_bytes).ok_or(Refusal::Key)?;
            match length {
                Some(length) if bytes.len() != length => Err(Refusal::Key),
                _ => Ok(bytes.clone()),
            }
        };
        // kty 1, alg 3; crv -1, x -2, y -3; n -1, e -2 (RFC 9053, 7; RFC 8230, 4).
        match (number(1)?, number(3)?) {
            (2, -7) if number(-1)? == 1 => {
                let mut point = vec![4];
                point.extend(bytes(-2, Some(32))?);
                point.extend(bytes(-3, Some(32))?);
                Ok(Self::Es256(point))
            }
            (1, -8) if number(-1)? == 6 => Ok(Self::Ed25519(bytes(-2, Some(32))?)),
            (3, -257) => Ok(Self::Rs256 {
                n: bytes(-1, None)?,
                e: bytes(-2, None)?,
            }),
            (_, algorithm) if !ALGORITHMS.contains(&algorithm) => Err(Refusal::Algorithm),
            _ => Err(Refusal::Key),
        }
    }

    pub(crate) fn algorithm(&self) -> i64 {
        match self {
            Self::Es256(_) => -7,
            Self::Ed25519(_) => -8,
            Self::Rs256 { .. } => -257,
        }
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::Es256(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, point).verify(message, signature)
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature),
            Self::Rs256 { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
        }
        .map_err(|_| Refusal::Signature)
    }
}

fn integer(value: &Value) -> Option<i64> {
    i64::try_from(i128::from(value.as_integer()?)).ok()
}
