//! `private_key_jwt` (RFC 7523, SMART backend services): an assertion signed by the client, good once and for minutes.

use super::{
    MINUTE, OAuth, SECOND,
    client::{Client, Method},
    issuer::Site,
    jwt::{self, Audience},
    refusal::Outcome,
    store,
};
use jsonwebtoken::{Algorithm, jwk::JwkSet};
use medtech_kernel::{clock::Millis, id};
use serde::Deserialize;
use std::sync::Arc;

/// What SMART App Launch asks of both sides.
const ALGORITHMS: [Algorithm; 2] = [Algorithm::ES384, Algorithm::RS384];
/// Farthest expiry.
const LIFE: Millis = 5 * MINUTE;
/// Clocks differ.
const SKEW: Millis = 10 * SECOND;
const LONGEST: usize = 8 * 1024;

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    /// Seconds.
    exp: f64,
    jti: String,
    nbf: Option<f64>,
    iat: Option<f64>,
}

#[derive(Deserialize)]
struct Named {
    sub: String,
}

fn millis(seconds: f64) -> Option<Millis> {
    // Beyond this no time is meant.
    (seconds.is_finite() && seconds.abs() < 1e12).then_some((seconds * 1000.0) as Millis)
}

impl OAuth {
    /// The client that signed the assertion; `None` for every reason not to believe it.
    pub(crate) async fn asserted(&self, site: &Site, named: Option<&str>, assertion: &str) -> Outcome<Option<Client>> {
        if assertion.len() > LONGEST {
            return Ok(None);
        }
        let Some(header) = jwt::header(assertion) else {
            return Ok(None);
        };
        let Ok(Named { sub }) = jsonwebtoken::dangerous::insecure_decode_claims(assertion) else {
            return Ok(None);
        };
        if named.is_some_and(|n| n != sub) {
            return Ok(None);
        }
        let Ok(client) = self.registered(site, &sub, Method::PrivateKeyJwt).await else {
            return Ok(None);
        };
        let Some(keys) = self.keys_of(&client, &header.kid).await else {
            return Ok(None);
        };
        let Some(claims) = jwt::verify::<Claims>(assertion, &keys, &ALGORITHMS) else {
            return Ok(None);
        };
        let now = self.ctx.clock.now_ms();
        let Some(expires_at) = self.check(site, &client, &claims, now) else {
            return Ok(None);
        };
        let (id, jti) = (client.id.clone(), id::sha256(claims.jti.as_bytes()));
        let first = self
            .ctx
            .db
            .write(site.id(), move |tx| {
                Box::pin(async move { store::use_jti(tx, &id, jti, expires_at).await })
            })
            .await?;
        Ok(first.then_some(client))
    }

    /// When it expires, if its claims hold.
    fn check(&self, site: &Site, client: &Client, claims: &Claims, now: Millis) -> Option<Millis> {
        let ours = [site.at("/oauth2/token"), site.issuer.clone()];
        let aud = &claims.aud.0;
        let to_us = !aud.is_empty() && aud.iter().all(|a| ours.contains(a));
        let expires_at = millis(claims.exp)?;
        let begun = |at: Option<f64>| at.is_none_or(|at| millis(at).is_some_and(|at| at <= now + SKEW));
        let fine = claims.iss == client.id
            && claims.sub == client.id
            && to_us
            && expires_at > now
            && expires_at <= now + LIFE + SKEW
            && begun(claims.nbf)
            && begun(claims.iat)
            && (1..=200).contains(&claims.jti.len());
        fine.then_some(expires_at)
    }

    async fn keys_of(&self, client: &Client, kid: &str) -> Option<Arc<JwkSet>> {
        match (&client.metadata.jwks, &client.metadata.jwks_uri) {
            (Some(keys), _) => jwt::key_set(keys).map(Arc::new),
            (None, Some(address)) => self.jwks.keys(address, kid, self.ctx.clock.now_ms()).await,
            (None, None) => None,
        }
    }
}
