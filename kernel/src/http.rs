//! What every HTTP handler shares: the tenant and the principal of a request, JSON bodies, idempotent commands.

use crate::{
    Ctx, Error, Result, Tenant, TenantId, Tx,
    audit::Origin,
    auth::Principal,
    config::Config,
    id,
    policy::{self, Action, Resource},
    tenant::Tenants,
    vault::Texts,
};
use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, OptionalFromRequestParts, Request},
};
use http::{HeaderMap, header, request::Parts};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Puts the context within reach of the extractors: `router.layer(Extension(ctx))`.
pub use axum::Extension;

/// The tenant of the request, by its host name.
#[derive(Clone, Debug)]
pub struct TenantCtx(pub Tenant);

impl<S: Send + Sync> FromRequestParts<S> for TenantCtx {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        tenant(parts).map(Self)
    }
}

/// The network that a request came from (IPv4 /24, IPv6 /64), put into it by the gateway. What counts attempts counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub ipnet::IpNet);

fn ctx(parts: &Parts) -> Result<Ctx> {
    parts
        .extensions
        .get::<Ctx>()
        .cloned()
        .ok_or_else(|| Error::internal("http.no_context", "the context layer is missing"))
}

fn tenant(parts: &Parts) -> Result<Tenant> {
    // Two of them: a server before us may have believed the other one (RFC 9112, 3.2).
    if parts.headers.get_all(header::HOST).iter().nth(1).is_some() {
        return Err(Error::bad("http.hosts", "The request names more than one host."));
    }
    let host = parts
        .headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .or_else(|| parts.uri.host());
    let host = host.ok_or_else(|| Error::bad("http.no_host", "The request names no host."))?;
    let found = ctx(parts)?.tenants.by_host(host);
    let tenant = found.ok_or_else(|| Error::not_found("tenant.unknown", "There is no clinic at this address."))?;
    tenant.require_open()?;
    Ok(tenant)
}

/// The bearer token of a request (RFC 6750), if it carries one.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The principal of the bearer token, whoever acts with it.
async fn verified(parts: &mut Parts) -> Result<Principal> {
    let token = bearer(&parts.headers).ok_or_else(|| Error::unauthorized("auth.token_missing", "Please sign in."))?;
    let tenant = tenant(parts)?;
    let who = ctx(parts)?.sessions.verify(tenant.id, token).await?;
    Origin::found(&who);
    if let Some(verified) = parts.extensions.get::<Verified>() {
        verified.0.store(true, Ordering::Relaxed);
    }
    Ok(who)
}

/// Our own web client's sessions, guests and devices. A token given to an OAuth client is refused: it opens the doors
/// that say [`Acting`], and none that forgot to say anything.
impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let who = verified(parts).await?;
        let application = who.grant.client.is_some() || who.subject.starts_with("client:");
        match application && !policy::seeded("app outside") {
            false => Ok(who),
            true => Err(Error::forbidden(
                "auth.application",
                "Applications reach the clinical records by FHIR, and nothing else.",
            )),
        }
    }
}

/// A principal that may be an application of somebody, held to its scopes by the policy.
#[derive(Clone, Debug)]
pub struct Acting(pub Principal);

impl<S: Send + Sync> FromRequestParts<S> for Acting {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        verified(parts).await.map(Self)
    }
}

/// The public address of a clinic, without a slash at the end: scheme, host and port. The default clinic goes by the
/// configured address whatever the `Host` header says, so that nobody can make it speak for another name; any other clinic
/// was found by a host name of its own, and goes by that.
pub fn origin(config: &Config, tenants: &Tenants, tenant: TenantId, host: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if host.is_empty() || !host.chars().all(plain) {
        return Err(Error::bad("http.host", "The request's host name is not one."));
    }
    let host = host.to_ascii_lowercase();
    let Some(public) = &config.public_url else {
        return Ok(format!("http://{host}"));
    };
    let public = public.trim_end_matches('/');
    let default = tenants.by_host("").is_some_and(|t| t.id == tenant);
    let scheme = public.split_once("://").map_or("https", |(scheme, _)| scheme);
    Ok(if default {
        public.to_owned()
    } else {
        format!("{scheme}://{host}")
    })
}

/// A mark on a request that its bearer token was found good, for what surrounds the handlers.
#[derive(Clone, Debug, Default)]
pub struct Verified(Arc<AtomicBool>);

impl Verified {
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Principal {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>> {
        if bearer(&parts.headers).is_none() {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state)
            .await
            .map(Some)
    }
}

/// A JSON body whose refusals are problem documents.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(e) if e.status() == http::StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Error::too_large("http.body_too_large", "The request is too large."))
            }
            Err(e) => Err(Error::bad(
                "http.body",
                format!("The request's body is not as expected: {}", e.body_text()),
            )),
        }
    }
}

const REMEMBERED: &str =
    "SELECT request, answer FROM idempotency WHERE tenant = $1 AND subject = $2 AND route = $3 AND ikey = $4";
const REMEMBER: &str =
    "INSERT INTO idempotency (tenant, subject, route, ikey, request, answer, at) VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// The `Idempotency-Key` of a request, at most 200 characters.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    match headers.get("idempotency-key").map(|v| v.to_str()) {
        None => Ok(None),
        Some(Ok(key)) if !key.is_empty() && key.len() <= 200 => Ok(Some(key.to_owned())),
        Some(_) => Err(Error::bad(
            "http.idempotency_key",
            "The idempotency key is 1 to 200 printable characters.",
        )),
    }
}

/// The answer given before to the same command, if any. The same key with another request is refused (409).
pub async fn remembered(tx: &mut Tx, subject: &str, route: &str, key: &str, request: &[u8]) -> Result<Option<String>> {
    let rows = tx
        .query(REMEMBERED, &[subject.into(), route.into(), key.into()])
        .await?;
    match rows.first() {
        None => Ok(None),
        Some(row) if row.blob(0)? == id::sha256(request) => {
            let texts = Texts::of_tx(tx, &rows, 1).await?;
            texts.open(&place(subject, route, key), row.text(1)?).map(Some)
        }
        Some(_) => Err(Error::conflict(
            "http.idempotency_reused",
            "This idempotency key was used for another request.",
        )),
    }
}

/// Keeps the answer, in the transaction of the effect.
pub async fn remember(
    tx: &mut Tx,
    subject: &str,
    route: &str,
    key: &str,
    request: &[u8],
    answer: &impl Serialize,
) -> Result<()> {
    let answer = serde_json::to_string(answer).map_err(|e| Error::internal("http.answer", e))?;
    let answer = tx.veil(&place(subject, route, key), answer).await?;
    let now = tx.now();
    tx.exec(
        REMEMBER,
        &[
            subject.into(),
            route.into(),
            key.into(),
            id::sha256(request).into(),
            answer.into(),
            now.into(),
        ],
    )
    .await
    .map(|_| ())
}

fn place(subject: &str, route: &str, key: &str) -> String {
    format!("idempotency/{subject}/{route}/{key}")
}

/// Shorthand for handlers: 403 unless the policy allows it.
pub async fn require(
    ctx: &Ctx,
    who: &Principal,
    action: Action,
    kind: &'static str,
    id: impl Into<String>,
) -> Result<()> {
    ctx.policy.require(who, action, &Resource::new(kind, id)).await
}
