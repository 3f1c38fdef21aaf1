//! A code of the provider becomes who somebody is there: the code is exchanged over our own connection, and the ID token is
//! believed only when all of it fits.

use super::{
    Sso,
    provider::{Provider, endpoint},
};
use crate::{
    oauth::{Audience, jwt},
    seal,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use jsonwebtoken::Algorithm;
use medtech_kernel::{Error, Result, TenantId, clock::Millis};
use serde::Deserialize;
use serde_json::Value;
use url::form_urlencoded;

pub(super) const PURPOSE: &str = "sso client secret";
pub(super) const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::RS384, Algorithm::ES256, Algorithm::ES384];
/// Clocks differ; seconds.
const SKEW: f64 = 60.0;

/// Who somebody is at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) sub: String,
    /// Only an address that the provider has verified.
    pub(super) email: Option<String>,
    pub(super) name: Option<String>,
    /// How they proved themselves there, as the provider names it.
    pub(super) acr: Option<String>,
    pub(super) amr: Vec<String>,
    /// And when.
    pub(super) auth_time: Option<Millis>,
    /// Its session, by which a sign-out there names it.
    pub(super) sid: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: f64,
    iat: f64,
    nonce: Option<String>,
    email: Option<String>,
    email_verified: Option<Value>,
    name: Option<String>,
    acr: Option<String>,
    #[serde(default)]
    amr: Audience,
    auth_time: Option<f64>,
    sid: Option<String>,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    access_token: Option<String>,
}

fn refused() -> Error {
    Error::unauthorized(
        "sso.refused",
        "The provider's answer could not be accepted. Please try again.",
    )
}

impl Sso {
    pub(super) async fn exchange(
        &self,
        tenant: TenantId,
        provider: &Provider,
        code: &str,
        verifier: &str,
        nonce: &str,
        redirect_uri: &str,
    ) -> Result<Person> {
        let document = self.document(&provider.settings.issuer).await?;
        let client = &provider.settings.client_id;
        let secret = match &provider.sealed {
            Some(sealed) => {
                let clear = seal::open(&self.oauth.ctx.root, PURPOSE, tenant, &provider.id, sealed)?;
                Some(String::from_utf8(clear).map_err(|e| Error::internal("sso.secret", e))?)
            }
            None => None,
        };
        let methods = document
            .get("token_endpoint_auth_methods_supported")
            .and_then(Value::as_array);
        // Basic is what is meant when nothing is said (OpenID Connect Discovery, 3).
        let basic = methods.is_none_or(|m| m.iter().any(|m| m == "client_secret_basic"));
        let mut request = Request::builder()
            .method(Method::POST)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let mut pairs = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", verifier),
            ("redirect_uri", redirect_uri),
        ];
        match &secret {
            Some(secret) if basic => request = request.header(header::AUTHORIZATION, credentials(client, secret)),
            Some(secret) => pairs.extend([("client_id", client.as_str()), ("client_secret", secret)]),
            None => pairs.push(("client_id", client)),
        }
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        let outbound = self.oauth.jwks.outbound();
        let answer = outbound
            .send(&endpoint(&document, "token_endpoint")?, request, Bytes::from(body))
            .await?;
        if answer.status != StatusCode::OK {
            tracing::warn!(
                provider = provider.id,
                status = answer.status.as_u16(),
                "a sign-in provider refused a code"
            );
            return Err(refused());
        }
        let tokens: Tokens = serde_json::from_slice(&answer.body).map_err(|_| refused())?;
        let claims = self.believe(provider, &document, &tokens.id_token, nonce).await?;
        let mut person = Person {
            sub: claims.sub,
            email: verified(claims.email, claims.email_verified.as_ref()),
            name: claims.name,
            acr: claims.acr,
            amr: claims.amr.0,
            auth_time: claims.auth_time.map(|s| (s * 1000.0) as Millis),
            sid: claims.sid,
        };
        // Many providers give mail and name at the userinfo endpoint alone.
        if person.email.is_none()
            && let (Some(token), Ok(address)) = (&tokens.access_token, endpoint(&document, "userinfo_endpoint"))
        {
            let info = outbound.get_json(&address, Some(token)).await?;
            // Of the same person (OpenID Connect Core, 5.3.2).
            if info.get("sub").and_then(Value::as_str) == Some(person.sub.as_str()) {
                let text = |name: &str| info.get(name).and_then(Value::as_str).map(str::to_owned);
                person.email = verified(text("email"), info.get("email_verified"));
                person.name = person.name.or(text("name"));
            }
        }
        Ok(person)
    }

    async fn believe(&self, provider: &Provider, document: &Value, id_token: &str, nonce: &str) -> Result<Claims> {
        let now = self.oauth.ctx.clock.now_ms();
        let kid = jwt::header(id_token).ok_or_else(refused)?.kid;
        let keys = self.oauth.jwks.keys(&endpoint(document, "jwks_uri")?, &kid, now).await;
        let keys = keys.ok_or_else(refused)?;
        let claims: Claims = jwt::verify(id_token, &keys, &ALGORITHMS).ok_or_else(refused)?;
        let seconds = now as f64 / 1000.0;
        let client = &provider.settings.client_id;
        let aud = &claims.aud.0;
        let to_us = aud.contains(client)
            && (aud.len() == 1 || claims.azp.is_some())
            && claims.azp.as_ref().is_none_or(|azp| azp == client);
        let fine = claims.iss == provider.settings.issuer
            && to_us
            && claims.nonce.as_deref() == Some(nonce)
            && claims.exp > seconds - SKEW
            && (claims.iat - seconds).abs() < 600.0
            // Nobody proves themselves after the token that says so.
            && claims.auth_time.is_none_or(|at| at > 0.0 && at < seconds + SKEW)
            && claims.sid.as_ref().is_none_or(|sid| sid.len() <= 255 && !sid.contains('\0'))
            && (1..=255).contains(&claims.sub.len())
            && !claims.sub.contains('\0');
        if fine { Ok(claims) } else { Err(refused()) }
    }
}

fn verified(email: Option<String>, verified: Option<&Value>) -> Option<String> {
    // Some send the truth as text.
    let yes = verified.is_some_and(|v| v == &Value::Bool(true) || v == "true");
    email.filter(|_| yes)
}

fn credentials(client: &str, secret: &str) -> String {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", encoded(client), encoded(secret)))
    )
}
