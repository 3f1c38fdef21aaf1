//! What a token is (RFC 7662), whose it is (OpenID Connect userinfo), and its end (RFC 7009).

use super::{
    OAuth,
    client::{Client, Method},
    form::Form,
    issuer::Site,
    refusal::{Outcome, Refusal},
    store, token,
};
use crate::store as people;
use axum::{
    Json,
    body::Bytes,
    extract::{RawQuery, State},
};
use http::{HeaderMap, StatusCode};
use medtech_kernel::{
    auth::{Principal, tenant_of},
    error::Kind,
    http::bearer,
    id,
    scope::Scopes,
};
use serde_json::{Value, json};
use std::sync::Arc;

impl OAuth {
    /// The principal of an access token that was given to a client; our own sessions are none of anybody's business.
    async fn access(&self, site: &Site, token: &str) -> Outcome<Option<Principal>> {
        match self.ctx.sessions.verify(site.id(), token).await {
            Ok(who) if who.grant.client.is_some() => Ok(Some(who)),
            Ok(_) => Ok(None),
            Err(e) if e.kind == Kind::Unauthorized => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    async fn described(&self, site: &Site, caller: &Client, given: &str) -> Outcome<Value> {
        let inactive = json!({"active": false});
        let (given, jkt) = match self.unbound(site.id(), given) {
            Some((inner, jkt)) => (inner, Some(jkt)),
            None => (given.to_owned(), None),
        };
        let given = given.as_str();
        if let Some(who) = self.access(site, given).await? {
            let open = self.ctx.sessions.list(site.id(), &who.subject).await?;
            let Some(session) = open.into_iter().find(|s| s.id == who.session) else {
                return Ok(inactive);
            };
            let grant = store::grant_of_session(&self.ctx.db, site.id(), who.session).await?;
            let scopes = who.grant.scopes.clone().unwrap_or_default();
            let mut answer = json!({
                "active": true,
                "token_type": "Bearer",
                "scope": scopes,
                "client_id": who.grant.client,
                "sub": who.subject_id(),
                "iss": site.issuer,
                "iat": session.created_at / 1000,
                "exp": session.expires_at / 1000,
            });
            if let Some(jkt) = jkt {
                answer["token_type"] = "DPoP".into();
                answer["cnf"] = json!({"jkt": jkt});
            }
            let mut put = |name: &str, value: Option<String>| {
                if let Some(value) = value {
                    answer[name] = value.into();
                }
            };
            put("patient", who.grant.patient.clone());
            put("encounter", grant.and_then(|g| g.encounter));
            if let Some(user) = who.subject.strip_prefix("user:").and_then(|id| id.parse().ok())
                && let Some(user) = people::by_id(&self.ctx.db, site.id(), user).await?
            {
                put(
                    "fhirUser",
                    token::claims(site, &user, &Scopes::parse(&scopes)).fhir_user,
                );
            }
            return Ok(answer);
        }
        let now = self.ctx.clock.now_ms();
        let found = store::refresh(&self.ctx.db, site.id(), id::sha256(given.as_bytes())).await?;
        let Some(found) = found.filter(|r| r.used_at.is_none() && r.expires_at > now) else {
            return Ok(inactive);
        };
        let grant = store::grant(&self.ctx.db, site.id(), found.grant).await?;
        let stands = |g: &store::Grant| g.client == caller.id && g.ended_at.is_none() && g.ends_at > now;
        Ok(match grant.filter(stands) {
            None => inactive,
            Some(g) => json!({
                "active": true, "scope": g.scopes, "client_id": g.client, "iss": site.issuer, "exp": found.expires_at / 1000,
                "sub": g.subject.strip_prefix("user:"),
            }),
        })
    }
}

/// For clients that can prove who they are: a resource server that was shown a token is one.
pub(crate) async fn introspect(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Outcome<Json<Value>> {
    let form = Form::posted(&headers, query.as_deref(), &body)?;
    let caller = oauth.client_of(&site, &headers, &form).await?;
    if caller.metadata.token_endpoint_auth_method == Method::None {
        return Err(Refusal::client("Only an application that proves who it is may ask."));
    }
    let given = form.require("token")?;
    oauth.described(&site, &caller, given).await.map(Json)
}

/// One answer for a token of the client, of another, and for none.
pub(crate) async fn revoke(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Outcome<StatusCode> {
    let form = Form::posted(&headers, query.as_deref(), &body)?;
    let caller = oauth.client_of(&site, &headers, &form).await?;
    let given = form.require("token")?;
    // A token that is bound to a key ends without it: that does no harm (RFC 7009).
    let inner = oauth.unbound(site.id(), given);
    let given = inner.as_ref().map_or(given, |(inner, _)| inner);
    let sessions = oauth.ctx.sessions.clone();
    if let Some(who) = oauth.access(&site, given).await? {
        if who.grant.client.as_deref() == Some(caller.id.as_str()) {
            let revoked = oauth.ctx.db.write(site.id(), move |tx| {
                Box::pin(async move {
                    let target = format!("oauth_client:{}", caller.id);
                    crate::audited(tx, &who.subject, "delete", &target, "success", "token").await?;
                    sessions.revoke(tx, who.session).await
                })
            });
            revoked.await?;
        }
        return Ok(StatusCode::OK);
    }
    let hash = id::sha256(given.as_bytes());
    let revoked = oauth.ctx.db.write(site.id(), move |tx| {
        Box::pin(async move {
            let Some(found) = store::refresh_in(tx, hash).await? else {
                return Ok(());
            };
            let grant = store::grant_in(tx, found.grant).await?;
            if let Some(grant) = grant.filter(|g| g.client == caller.id)
                && store::end_grant(tx, &sessions, grant.id).await?
            {
                let target = format!("oauth_client:{}", caller.id);
                crate::audited(tx, &grant.subject, "delete", &target, "success", "grant").await?;
            }
            Ok(())
        })
    });
    revoked.await?;
    Ok(StatusCode::OK)
}

pub(crate) async fn userinfo(State(oauth): State<Arc<OAuth>>, site: Site, headers: HeaderMap) -> Outcome<Json<Value>> {
    let given = bearer(&headers).ok_or_else(Refusal::token)?;
    if tenant_of(given) != Some(site.id()) {
        return Err(Refusal::token());
    }
    let who = oauth.access(&site, given).await?.ok_or_else(Refusal::token)?;
    let scopes = Scopes::parse(who.grant.scopes.as_deref().unwrap_or_default());
    if !scopes.named("openid") {
        return Err(Refusal::scope());
    }
    let id = who.subject.strip_prefix("user:").and_then(|id| id.parse().ok());
    let user = match id {
        Some(id) => people::by_id(&oauth.ctx.db, site.id(), id).await?.filter(|u| u.active),
        None => None,
    };
    let user = user.ok_or_else(Refusal::token)?;
    let mut answer = serde_json::to_value(token::claims(&site, &user, &scopes))
        .map_err(|e| medtech_kernel::Error::internal("oauth.userinfo", e))?;
    answer["sub"] = user.id.to_string().into();
    Ok(Json(answer))
}
