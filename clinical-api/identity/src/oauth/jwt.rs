//! Signed tokens of others and of ours. The algorithm is pinned by the key, never taken from the token; times are
//! checked by the context's clock.

use super::keys::Signer;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};
use medtech_kernel::{Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// One audience or several.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "serde_json::Value")]
pub(crate) struct Audience(pub(crate) Vec<String>);

impl From<serde_json::Value> for Audience {
    /// What is neither a text nor a list of texts is an audience nobody is.
    fn from(value: serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::String(one) => Self(vec![one]),
            Value::Array(all) => Self(
                all.into_iter()
                    .map(|v| match v {
                        Value::String(s) => s,
                        _ => String::new(),
                    })
                    .collect(),
            ),
            _ => Self::default(),
        }
    }
}

/// What a token says of itself before anything is believed.
pub(crate) struct Unverified {
    pub(crate) alg: Algorithm,
    pub(crate) kid: String,
}

/// Reads the header: a key must be named, nothing critical asked for.
pub(crate) fn header(token: &str) -> Option<Unverified> {
    let header = jsonwebtoken::decode_header(token).ok()?;
    if header.crit.is_some() {
        return None;
    }
    Some(Unverified {
        alg: header.alg,
        kid: header.kid?,
    })
}

/// The claims of a token that the key of its `kid` signed with an algorithm that fits key and list.
pub(crate) fn verify<T: DeserializeOwned>(token: &str, keys: &JwkSet, allowed: &[Algorithm]) -> Option<T> {
    let header = header(token)?;
    if !allowed.contains(&header.alg) {
        return None;
    }
    let named = |k: &&Jwk| k.common.key_id.as_deref() == Some(header.kid.as_str()) && fits(k, header.alg);
    let key = keys.keys.iter().find(named)?;
    let mut validation = Validation::new(header.alg);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let key = DecodingKey::from_jwk(key).ok()?;
    jsonwebtoken::decode(token, &key, &validation).ok().map(|t| t.claims)
}

/// May this key be used with this algorithm?
fn fits(key: &Jwk, alg: Algorithm) -> bool {
    let kind = match &key.algorithm {
        AlgorithmParameters::EllipticCurve(p) => matches!(
            (&p.curve, alg),
            (EllipticCurve::P256, Algorithm::ES256) | (EllipticCurve::P384, Algorithm::ES384)
        ),
        AlgorithmParameters::RSA(_) => matches!(alg, Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512),
        _ => false,
    };
    let named = key
        .common
        .key_algorithm
        .is_none_or(|named| named.to_string() == format!("{alg:?}"));
    let purpose = key
        .common
        .public_key_use
        .as_ref()
        .is_none_or(|u| *u == PublicKeyUse::Signature);
    kind && named && purpose
}

/// Signs claims with a key of ours. `typ` says what the token is, so that one is not taken for another (RFC 8725, 3.11).
pub(crate) fn sign(signer: &Signer, typ: &str, claims: &impl Serialize) -> Result<String> {
    let header = Header {
        typ: Some(typ.to_owned()),
        kid: Some(signer.kid.clone()),
        ..Header::new(Algorithm::ES384)
    };
    let key = EncodingKey::from_ec_der(&signer.pkcs8);
    jsonwebtoken::encode(&header, claims, &key).map_err(|e| Error::internal("oauth.sign", e))
}

/// A set of keys as clients publish it; what we do not understand in it is passed over.
pub(crate) fn key_set(text: &serde_json::Value) -> Option<JwkSet> {
    let keys = text.get("keys")?.as_array()?;
    let keys = keys
        .iter()
        .filter_map(|k| serde_json::from_value::<Jwk>(k.clone()).ok())
        .collect();
    Some(JwkSet { keys })
}
