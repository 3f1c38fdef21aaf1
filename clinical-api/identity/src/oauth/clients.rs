//! The register of applications, for administrators. Nobody else, and no program, registers one.

use super::{
    OAuth,
    client::{Client, Metadata, Method},
    consent::person,
    issuer::Site,
    store,
};
use axum::{
    Json,
    extract::{Path, State},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use medtech_kernel::{
    Error, Result,
    auth::Principal,
    clock::rfc3339,
    http::Body,
    id,
    policy::{Action, Resource},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Serialize)]
pub(crate) struct Shown {
    client_id: String,
    active: bool,
    created_at: String,
    updated_at: String,
    #[serde(flatten)]
    metadata: Metadata,
    /// Given once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct All {
    clients: Vec<Shown>,
}

#[derive(Deserialize)]
pub(crate) struct Update {
    active: bool,
    #[serde(flatten)]
    metadata: serde_json::Map<String, serde_json::Value>,
}

fn shown(client: Client, client_secret: Option<String>) -> Shown {
    Shown {
        client_id: client.id,
        active: client.active,
        created_at: rfc3339(client.created_at),
        updated_at: rfc3339(client.updated_at),
        metadata: client.metadata,
        client_secret,
    }
}

type Secret = ([(HeaderName, HeaderValue); 1], Json<Shown>);

fn once(client: Client, secret: Option<String>) -> Secret {
    let keep = HeaderValue::from_static("no-store");
    ([(header::CACHE_CONTROL, keep)], Json(shown(client, secret)))
}

fn unknown() -> Error {
    Error::not_found("oauth.client_unknown", "There is no such application.")
}

impl OAuth {
    async fn administrator(&self, who: &Principal, id: &str) -> Result<()> {
        person(who)?;
        let what = Resource::new("oauth_client", id);
        self.ctx.policy.require(who, Action::Administer, &what).await
    }

    /// Keeps a client. When it loses what it had, its grants end: the next time it asks again.
    async fn save(&self, site: &Site, who: Principal, client: Client, action: &'static str, anew: bool) -> Result<()> {
        let sessions = self.ctx.sessions.clone();
        self.ctx
            .db
            .write(site.id(), move |tx| {
                Box::pin(async move {
                    store::save_client(tx, &client).await?;
                    if anew || !client.active {
                        for grant in store::grants_of_client(tx, &client.id).await? {
                            store::end_grant(tx, &sessions, grant).await?;
                        }
                        sessions.revoke_subject(tx, &format!("client:{}", client.id)).await?;
                    }
                    let target = format!("oauth_client:{}", client.id);
                    crate::audited(tx, &who.subject, action, &target, "success", "application").await
                })
            })
            .await
    }

    async fn one(&self, site: &Site, id: &str) -> Result<Client> {
        store::client(&self.ctx.db, site.id(), id).await?.ok_or_else(unknown)
    }

    /// A scope with a query is registered only where the query can be kept.
    async fn understood(&self, site: &Site, metadata: &Metadata) -> Result<()> {
        match self.unkept(site.id(), &metadata.scope).await? {
            Some(why) => Err(Error::unprocessable(
                "oauth.client",
                format!("This scope cannot be kept: {why}"),
            )),
            None => Ok(()),
        }
    }

    /// In development keys may be published on this machine.
    fn development(&self) -> bool {
        self.ctx.config.public_url.is_none()
    }
}

/// A new secret, and what is kept of it.
fn secret_for(method: Method) -> (Option<String>, Option<[u8; 32]>) {
    match method {
        Method::ClientSecretBasic => {
            let secret = id::token();
            let hash = id::sha256(secret.as_bytes());
            (Some(secret), Some(hash))
        }
        Method::None | Method::PrivateKeyJwt => (None, None),
    }
}

pub(crate) async fn list(State(oauth): State<Arc<OAuth>>, site: Site, who: Principal) -> Result<Json<All>> {
    oauth.administrator(&who, "").await?;
    let clients = store::clients(&oauth.ctx.db, site.id()).await?;
    Ok(Json(All {
        clients: clients.into_iter().map(|c| shown(c, None)).collect(),
    }))
}

pub(crate) async fn get(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    who: Principal,
    Path(id): Path<String>,
) -> Result<Json<Shown>> {
    oauth.administrator(&who, &id).await?;
    Ok(Json(shown(oauth.one(&site, &id).await?, None)))
}

pub(crate) async fn create(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    who: Principal,
    Body(metadata): Body<Metadata>,
) -> Result<(StatusCode, Secret)> {
    oauth.administrator(&who, "").await?;
    let now = oauth.ctx.clock.now_ms();
    who.require_fresh(now)?;
    metadata.check(oauth.development())?;
    oauth.understood(&site, &metadata).await?;
    let (secret, hash) = secret_for(metadata.token_endpoint_auth_method);
    let client = Client {
        id: id::new_id(&oauth.ctx.clock).to_string(),
        metadata,
        secret: hash,
        active: true,
        created_at: now,
        updated_at: now,
    };
    oauth.save(&site, who, client.clone(), "create", false).await?;
    Ok((StatusCode::CREATED, once(client, secret)))
}

pub(crate) async fn update(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    who: Principal,
    Path(id): Path<String>,
    Body(update): Body<Update>,
) -> Result<Secret> {
    oauth.administrator(&who, &id).await?;
    let now = oauth.ctx.clock.now_ms();
    who.require_fresh(now)?;
    let metadata: Metadata = serde_json::from_value(update.metadata.into())
        .map_err(|e| Error::bad("http.body", format!("The request's body is not as expected: {e}")))?;
    metadata.check(oauth.development())?;
    oauth.understood(&site, &metadata).await?;
    let old = oauth.one(&site, &id).await?;
    let method = metadata.token_endpoint_auth_method;
    let (secret, hash) = match method == old.metadata.token_endpoint_auth_method {
        true => (None, old.secret),
        false => secret_for(method),
    };
    // A grant that stands was given under what the application was then.
    let anew = method != old.metadata.token_endpoint_auth_method
        || metadata.scope != old.metadata.scope
        || metadata.grant_types != old.metadata.grant_types
        || metadata.dpop_bound_access_tokens != old.metadata.dpop_bound_access_tokens;
    let client = Client {
        metadata,
        secret: hash,
        active: update.active,
        updated_at: now,
        ..old
    };
    oauth.save(&site, who, client.clone(), "update", anew).await?;
    Ok(once(client, secret))
}

/// A new secret; the old one is worth nothing from here on.
pub(crate) async fn new_secret(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    who: Principal,
    Path(id): Path<String>,
) -> Result<Secret> {
    oauth.administrator(&who, &id).await?;
    let now = oauth.ctx.clock.now_ms();
    who.require_fresh(now)?;
    let old = oauth.one(&site, &id).await?;
    let (secret, hash) = secret_for(old.metadata.token_endpoint_auth_method);
    if secret.is_none() {
        return Err(Error::unprocessable(
            "oauth.no_secret",
            "This application has no secret.",
        ));
    }
    let client = Client {
        secret: hash,
        updated_at: now,
        ..old
    };
    oauth.save(&site, who, client.clone(), "update", false).await?;
    Ok(once(client, secret))
}

pub(crate) async fn delete(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    who: Principal,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    oauth.administrator(&who, &id).await?;
    who.require_fresh(oauth.ctx.clock.now_ms())?;
    let client = oauth.one(&site, &id).await?;
    let sessions = oauth.ctx.sessions.clone();
    oauth
        .ctx
        .db
        .write(site.id(), move |tx| {
            Box::pin(async move {
                for grant in store::grants_of_client(tx, &client.id).await? {
                    store::end_grant(tx, &sessions, grant).await?;
                }
                sessions.revoke_subject(tx, &format!("client:{}", client.id)).await?;
                store::delete_client(tx, &client.id).await?;
                let target = format!("oauth_client:{}", client.id);
                crate::audited(tx, &who.subject, "delete", &target, "success", "application").await
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
