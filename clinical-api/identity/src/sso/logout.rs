//! OpenID Connect Back-Channel Logout 1.0, as the relying party: an outside provider says that somebody's session there is
//! over, and the sessions that came of it end here, with their sockets and their media.

use super::{
    Sso,
    exchange::ALGORITHMS,
    provider::{Provider, endpoint},
    store,
};
use crate::{
    Identity, audited,
    oauth::{Audience, LOGOUT_EVENT, Site, jwt, use_jti},
};
use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use medtech_kernel::{Error, Result, clock::Millis, error::Kind, id};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use url::form_urlencoded;

/// How old a message may be, and how far ahead of our clock; seconds.
const OLD: f64 = 600.0;
const AHEAD: f64 = 60.0;
/// A message is known for as long as it could be believed.
const KNOWN: Millis = 20 * 60_000;
const LONGEST: usize = 16 * 1024;

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    iat: f64,
    exp: Option<f64>,
    jti: String,
    sub: Option<String>,
    sid: Option<String>,
    events: Map<String, Value>,
    nonce: Option<Value>,
}

/// Answers 200 when the sessions are over, also where there were none; 400 to what is not to be believed.
pub(super) async fn logout(
    State(identity): State<Arc<Identity>>,
    site: Site,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response> {
    let outcome = match token(&headers, &body) {
        Some(token) => identity.ended_outside(&site, &name, &token).await,
        None => Err(refused()),
    };
    let keep = [(header::CACHE_CONTROL, "no-store")];
    match outcome {
        Ok(()) => Ok((StatusCode::OK, keep).into_response()),
        Err(e) if matches!(e.kind, Kind::Internal | Kind::Unavailable) => Err(e),
        Err(_) => {
            tracing::info!(tenant = %site.id(), "a logout of an outside provider was refused");
            let body = Json(json!({"error": "invalid_request", "error_description": "The logout token is not good."}));
            Ok((StatusCode::BAD_REQUEST, keep, body).into_response())
        }
    }
}

fn refused() -> Error {
    Error::bad("sso.logout", "The logout token is not good.")
}

/// The one `logout_token` of a form.
fn token(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let form = kind.split(';').next()?.trim();
    if !form.eq_ignore_ascii_case("application/x-www-form-urlencoded") || body.len() > LONGEST {
        return None;
    }
    let mut all = form_urlencoded::parse(body).filter(|(name, _)| name == "logout_token");
    let (one, more) = (all.next()?, all.next());
    more.is_none().then(|| one.1.into_owned())
}

impl Identity {
    async fn ended_outside(&self, site: &Site, name: &str, token: &str) -> Result<()> {
        let provider = store::provider(&self.ctx.db, site.id(), name).await?;
        let provider = provider.filter(|p| p.active).ok_or_else(refused)?;
        let claims = self.sso.told(&provider, token).await?;
        let (sessions, provider) = (self.ctx.sessions.clone(), provider.id);
        let until = self.ctx.clock.now_ms() + KNOWN;
        let done = self.ctx.db.write(site.id(), move |tx| {
            Box::pin(async move {
                let jti = id::sha256(claims.jti.as_bytes());
                if !use_jti(tx, &format!("sso:{provider}"), jti, until).await? {
                    return Err(refused());
                }
                let ended = store::sessions(tx, &provider, claims.sub.as_deref(), claims.sid.as_deref()).await?;
                for session in &ended {
                    sessions.revoke(tx, *session).await?;
                }
                store::no_sessions(tx, &ended).await?;
                let detail = format!("{} sessions ended by the outside provider", ended.len());
                audited(
                    tx,
                    &format!("sso:{provider}"),
                    "execute",
                    "sign-out",
                    "success",
                    &detail,
                )
                .await
            })
        });
        done.await
    }
}

impl Sso {
    /// Section 2.6: what a logout token must be before anything ends.
    async fn told(&self, provider: &Provider, token: &str) -> Result<Claims> {
        let now = self.oauth.ctx.clock.now_ms();
        let head = jsonwebtoken::decode_header(token).map_err(|_| refused())?;
        // Providers of the first drafts say JWT, or nothing.
        let typed = head.typ.as_deref().is_none_or(|t| {
            ["logout+jwt", "application/logout+jwt", "jwt"]
                .iter()
                .any(|ours| t.eq_ignore_ascii_case(ours))
        });
        let kid = jwt::header(token).filter(|_| typed).ok_or_else(refused)?.kid;
        let document = self.document(&provider.settings.issuer).await?;
        let keys = self.oauth.jwks.keys(&endpoint(&document, "jwks_uri")?, &kid, now).await;
        let keys = keys.ok_or_else(refused)?;
        let claims: Claims = jwt::verify(token, &keys, &ALGORITHMS).ok_or_else(refused)?;
        let seconds = now as f64 / 1000.0;
        let length = |text: &Option<String>| {
            text.as_ref()
                .is_none_or(|t| (1..=255).contains(&t.len()) && !t.contains('\0'))
        };
        let fine = claims.iss == provider.settings.issuer
            && claims.aud.0.contains(&provider.settings.client_id)
            && claims.iat > seconds - OLD
            && claims.iat < seconds + AHEAD
            && claims.exp.is_none_or(|exp| exp > seconds - AHEAD)
            && (1..=255).contains(&claims.jti.len())
            && (claims.sub.is_some() || claims.sid.is_some())
            && length(&claims.sub)
            && length(&claims.sid)
            && claims.events.get(LOGOUT_EVENT).is_some_and(Value::is_object)
            // So that an ID token is never taken for one.
            && claims.nonce.is_none();
        if fine { Ok(claims) } else { Err(refused()) }
    }
}
