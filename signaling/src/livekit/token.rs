//! LiveKit access tokens: JWT, HS256, the API key as issuer. The key also names the tenant.

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::TenantId;

/// An API key of a tenant.
#[derive(Clone)]
pub struct ApiKey {
    pub tenant: TenantId,
    pub key: Arc<str>,
    pub secret: Arc<[u8]>,
}

/// Where API keys come from. Called for each token: it must answer from memory.
pub trait ApiKeys: Send + Sync + 'static {
    fn by_key(&self, key: &str) -> Option<ApiKey>;
    /// The key with which the tenant's own tokens are made.
    fn of_tenant(&self, tenant: TenantId) -> Option<ApiKey>;
}

/// The claims of a token as LiveKit's SDKs write them. Unknown claims are ignored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    pub iss: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sub: String,
    pub exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub video: VideoGrant,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub attributes: HashMap<String, String>,
}

/// What the bearer may do with rooms. Absent publish and subscribe grants mean yes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VideoGrant {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub room_create: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub room_list: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub room_admin: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub room_join: bool,
    pub room: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("no authorization token")]
    Missing,
    #[error("unknown API key")]
    UnknownKey,
    /// Altered, expired, or not a token at all.
    #[error("invalid token: {0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
}

/// Choose the crypto of `jsonwebtoken` for the process. Harmless when called again.
pub fn install_crypto() {
    // An error says that a provider stands already; there is only one stack in the product.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

pub(super) fn sign(key: &ApiKey, claims: &Claims) -> Result<String, TokenError> {
    Ok(jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        claims,
        &EncodingKey::from_secret(&key.secret),
    )?)
}

/// Check a token and tell whose it is. `now`: seconds since the epoch.
pub(super) fn verify(keys: &dyn ApiKeys, token: &str, now: u64) -> Result<(ApiKey, Claims), TokenError> {
    const LEEWAY: u64 = 10;
    if token.is_empty() {
        return Err(TokenError::Missing);
    }
    // The issuer is read unverified only to find the key that must verify it.
    let issuer = jsonwebtoken::dangerous::insecure_decode_claims::<Issuer>(token)?;
    let key = keys.by_key(&issuer.iss).ok_or(TokenError::UnknownKey)?;
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.set_issuer(&[&*key.key]);
    validation.set_required_spec_claims(&["exp", "iss"]);
    let claims: Claims = jsonwebtoken::decode(token, &DecodingKey::from_secret(&key.secret), &validation)?.claims;
    if claims.exp + LEEWAY < now {
        return Err(TokenError::Invalid(
            jsonwebtoken::errors::ErrorKind::ExpiredSignature.into(),
        ));
    }
    if claims.nbf.is_some_and(|nbf| nbf > now + LEEWAY) {
        return Err(TokenError::Invalid(
            jsonwebtoken::errors::ErrorKind::ImmatureSignature.into(),
        ));
    }
    Ok((key, claims))
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(ApiKey);
    impl ApiKeys for One {
        fn by_key(&self, key: &str) -> Option<ApiKey> {
            (key == &*self.0.key).then(|| self.0.clone())
        }
        fn of_tenant(&self, tenant: TenantId) -> Option<ApiKey> {
            (tenant == self.0.tenant).then(|| self.0.clone())
        }
    }

    fn key(secret: &[u8]) -> ApiKey {
        ApiKey {
            tenant: TenantId::from_number(7),
            key: "key".into(),
            secret: secret.into(),
        }
    }

    #[test]
    fn only_our_own_valid_tokens_pass() {
        install_crypto();
        let keys = One(key(b"a secret of thirty-two bytes long"));
        let claims = Claims {
            iss: "key".into(),
            sub: "ann".into(),
            exp: 1_000,
            ..Claims::default()
        };
        let token = sign(&keys.0, &claims).unwrap();
        let (found, read) = verify(&keys, &token, 900).unwrap();
        assert_eq!((found.tenant, read.sub.as_str()), (TenantId::from_number(7), "ann"));
        assert!(
            matches!(verify(&keys, &token, 2_000), Err(TokenError::Invalid(_))),
            "expired"
        );
        let forged = sign(&key(b"another secret of the same length"), &claims).unwrap();
        assert!(
            matches!(verify(&keys, &forged, 900), Err(TokenError::Invalid(_))),
            "forged"
        );
        let other = sign(
            &keys.0,
            &Claims {
                iss: "other".into(),
                ..claims
            },
        )
        .unwrap();
        assert!(matches!(verify(&keys, &other, 900), Err(TokenError::UnknownKey)));
        assert!(matches!(verify(&keys, "", 900), Err(TokenError::Missing)));
        assert!(verify(&keys, "a.b.c", 900).is_err());
    }

    /// Signs whatever header it is given, as an attacker would who has this secret.
    fn made(header: &serde_json::Value, claims: &Claims, secret: &[u8]) -> String {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
        let claims = serde_json::to_string(claims).unwrap();
        let message = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        format!(
            "{message}.{}",
            B64.encode(aws_lc_rs::hmac::sign(&key, message.as_bytes()))
        )
    }

    #[test]
    fn the_header_chooses_neither_algorithm_nor_key() {
        install_crypto();
        let (secret, evil) = (
            b"a secret of thirty-two bytes long",
            b"the attacker's own secret, as long",
        );
        let keys = One(key(secret));
        let claims = Claims {
            iss: "key".into(),
            sub: "ann".into(),
            exp: 1_000,
            ..Claims::default()
        };
        let good = serde_json::json!({"alg": "HS256", "typ": "JWT"});
        assert!(verify(&keys, &made(&good, &claims, secret), 900).is_ok());
        for alg in ["none", "None", "HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", ""] {
            for secret in [&secret[..], &evil[..], b""] {
                let token = made(&serde_json::json!({"alg": alg, "typ": "JWT"}), &claims, secret);
                assert!(verify(&keys, &token, 900).is_err(), "{alg}");
            }
        }
        let bare = made(&serde_json::json!({"alg": "none"}), &claims, b"");
        let unsigned = bare.rsplit_once('.').unwrap().0.to_owned() + ".";
        assert!(verify(&keys, &unsigned, 900).is_err(), "no signature");
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
        for (name, value) in [
            ("jku", serde_json::json!("https://evil.example/keys")),
            ("x5u", serde_json::json!("https://evil.example/cert")),
            ("kid", serde_json::json!("../../evil")),
            ("kid", serde_json::json!("' OR '1'='1")),
            ("jwk", serde_json::json!({"kty": "oct", "k": B64.encode(evil)})),
        ] {
            let mut header = good.clone();
            header[name] = value;
            assert!(verify(&keys, &made(&header, &claims, evil), 900).is_err(), "{name}");
        }
    }

    #[test]
    fn a_token_is_good_from_its_time_to_its_end() {
        install_crypto();
        let keys = One(key(b"a secret of thirty-two bytes long"));
        let claims = Claims {
            iss: "key".into(),
            exp: 1_000,
            nbf: Some(500),
            ..Claims::default()
        };
        let token = sign(&keys.0, &claims).unwrap();
        for (now, good) in [
            (400, false),
            (489, false),
            (490, true),
            (500, true),
            (1_000, true),
            (1_010, true),
            (1_011, false),
        ] {
            assert_eq!(verify(&keys, &token, now).is_ok(), good, "{now}");
        }
        // One that names no end is none.
        let endless = made(
            &serde_json::json!({"alg": "HS256"}),
            &Claims { exp: 0, ..claims },
            b"a secret of thirty-two bytes long",
        );
        assert!(verify(&keys, &endless, 900).is_err());
    }

    #[test]
    fn a_session_is_no_media_token_and_a_media_token_no_session() {
        install_crypto();
        let keys = One(key(b"a secret of thirty-two bytes long"));
        let session = format!("mt_7_{}", medtech_kernel::id::token());
        assert_eq!(
            medtech_kernel::auth::tenant_of(&session),
            Some(TenantId::from_number(7))
        );
        for text in [session.clone(), format!("{session}.x.y"), format!("a.{session}.b")] {
            assert!(verify(&keys, &text, 900).is_err(), "{text}");
        }
        let claims = Claims {
            iss: "key".into(),
            sub: "ann".into(),
            exp: 1_000,
            ..Claims::default()
        };
        let media = sign(&keys.0, &claims).unwrap();
        // Sessions are looked up only where a token names their tenant (`Sessions::verify`).
        for text in [media.clone(), format!("mt_7_{media}")] {
            assert_eq!(medtech_kernel::auth::tenant_of(&text), None, "{text}");
        }
    }
}
