//! The doors: which providers there are, to one of them and back; and their register, for administrators.

use super::{
    PATIENCE, Sso,
    exchange::PURPOSE,
    provider::{Provider, Settings, endpoint},
    store,
};
use crate::{
    Identity,
    http::{Secret, SignedIn, signed_in},
    oauth::{Site, person},
    seal,
};
use axum::{
    Json, Router,
    extract::{Path, RawQuery, State},
    routing::{get, post, put},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode};
use medtech_kernel::{
    Error, Result,
    auth::Principal,
    clock::rfc3339,
    http::Body,
    id,
    policy::{Action, Resource},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use url::{Url, form_urlencoded};

pub(crate) fn routes(identity: Arc<Identity>) -> Router {
    Router::new()
        .route("/sso", get(buttons))
        .route("/sso/{id}/start", post(start))
        .route("/sso/{id}/logout", post(super::logout::logout))
        .route("/sso/finish", post(finish))
        .route("/sso-providers", get(list).post(create))
        .route("/sso-providers/{id}", put(update).delete(remove))
        .with_state(identity)
}

/// Where the provider sends the browser back: a page of the web client.
fn redirect_uri(site: &Site) -> String {
    site.at("/sso")
}

fn unknown() -> Error {
    Error::not_found("sso.provider_unknown", "There is no such sign-in provider.")
}

async fn buttons(State(identity): State<Arc<Identity>>, site: Site) -> Result<Json<Value>> {
    let all = store::providers(&identity.ctx.db, site.id()).await?;
    let shown: Vec<Value> = (all.iter().filter(|p| p.active))
        .map(|p| json!({"id": p.id, "name": p.settings.name}))
        .collect();
    Ok(Json(json!({ "providers": shown })))
}

/// `browser` stays in the browser that asked: the answer is taken from it alone. With `?fresh=true` the provider asks who it
/// is although it knows them: a session there that is older than what is wanted here would lead round in a circle.
async fn start(
    State(identity): State<Arc<Identity>>,
    site: Site,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>> {
    let fresh = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).any(|(n, v)| n == "fresh" && v == "true");
    let provider = store::provider(&identity.ctx.db, site.id(), &name).await?;
    let provider = provider.filter(|p| p.active).ok_or_else(unknown)?;
    let document = identity.sso.document(&provider.settings.issuer).await?;
    let (state, browser) = (id::token(), id::token());
    let kept = store::State {
        provider: provider.id,
        browser: id::sha256(browser.as_bytes()),
        nonce: id::token(),
        verifier: id::token(),
    };
    let mut to =
        Url::parse(&endpoint(&document, "authorization_endpoint")?).map_err(|e| Error::internal("sso.address", e))?;
    to.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &provider.settings.client_id)
        .append_pair("redirect_uri", &redirect_uri(&site))
        .append_pair("scope", "openid email profile")
        .append_pair("state", &state)
        .append_pair("nonce", &kept.nonce)
        .append_pair(
            "code_challenge",
            &URL_SAFE_NO_PAD.encode(id::sha256(kept.verifier.as_bytes())),
        )
        .append_pair("code_challenge_method", "S256");
    if fresh {
        to.query_pairs_mut()
            .append_pair("prompt", "login")
            .append_pair("max_age", "0");
    }
    let (hash, expires_at) = (id::sha256(state.as_bytes()), identity.ctx.clock.now_ms() + PATIENCE);
    identity
        .ctx
        .db
        .write(site.id(), move |tx| {
            Box::pin(async move { store::begin(tx, hash, &kept, expires_at).await })
        })
        .await?;
    Ok(Json(json!({"redirect": String::from(to), "browser": browser})))
}

#[derive(Deserialize)]
struct Back {
    state: String,
    code: String,
    iss: Option<String>,
    browser: String,
}

async fn finish(
    State(identity): State<Arc<Identity>>,
    site: Site,
    headers: HeaderMap,
    Body(back): Body<Back>,
) -> Result<Secret<SignedIn>> {
    let over = || {
        Error::forbidden(
            "sso.over",
            "This sign-in is over, or it began in another browser. Please try again.",
        )
    };
    let hash = id::sha256(back.state.as_bytes());
    let taken = identity.ctx.db.write(site.id(), move |tx| {
        Box::pin(async move { store::take(tx, hash).await })
    });
    let kept = taken.await?.ok_or_else(over)?;
    if kept.browser != id::sha256(back.browser.as_bytes()) {
        return Err(over());
    }
    let provider = store::provider(&identity.ctx.db, site.id(), &kept.provider).await?;
    let provider = provider.filter(|p| p.active).ok_or_else(unknown)?;
    let sso: &Sso = &identity.sso;
    let document = sso.document(&provider.settings.issuer).await?;
    // RFC 9207: an answer of another provider is not taken for this one's.
    let says = document.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true));
    if back.iss.as_ref().map_or(says, |iss| *iss != provider.settings.issuer) {
        return Err(over());
    }
    let who = sso
        .exchange(
            site.id(),
            &provider,
            &back.code,
            &kept.verifier,
            &kept.nonce,
            &redirect_uri(&site),
        )
        .await?;
    let device = crate::agent::describe(&headers);
    identity.enter(site.id(), &provider, who, &device).await.map(signed_in)
}

#[derive(Serialize)]
struct Shown {
    id: String,
    active: bool,
    created_at: String,
    has_secret: bool,
    /// What to enter at the provider.
    redirect_uri: String,
    /// Where it tells us that a session there is over.
    backchannel_logout_uri: String,
    #[serde(flatten)]
    settings: Settings,
}

fn shown(site: &Site, p: Provider) -> Shown {
    Shown {
        backchannel_logout_uri: site.at(&format!("/api/identity/sso/{}/logout", p.id)),
        id: p.id,
        active: p.active,
        created_at: rfc3339(p.created_at),
        has_secret: p.sealed.is_some(),
        redirect_uri: redirect_uri(site),
        settings: p.settings,
    }
}

#[derive(Deserialize)]
struct Change {
    active: bool,
    /// Absent: as it was.
    client_secret: Option<String>,
    settings: Settings,
}

impl Identity {
    async fn sso_administrator(&self, who: &Principal, changes: bool) -> Result<()> {
        person(who)?;
        let what = Resource::new("oauth_client", "");
        self.ctx.policy.require(who, Action::Administer, &what).await?;
        if changes {
            who.require_fresh(self.ctx.clock.now_ms())?;
        }
        Ok(())
    }

    async fn keep_provider(
        &self,
        site: &Site,
        who: Principal,
        mut p: Provider,
        change: Change,
        known: bool,
    ) -> Result<Provider> {
        let mut settings = change.settings;
        settings.check(self.ctx.config.public_url.is_none())?;
        // Whoever is behind another issuer is somebody else, whatever their identifier.
        let another = known && settings.issuer != p.settings.issuer;
        p.settings = settings;
        p.active = change.active;
        if let Some(secret) = change.client_secret.filter(|s| !s.is_empty()) {
            p.sealed = Some(seal::seal(
                &self.ctx.root,
                PURPOSE,
                site.id(),
                &p.id,
                secret.as_bytes(),
            )?);
        }
        let kept = p.clone();
        self.ctx
            .db
            .write(site.id(), move |tx| {
                Box::pin(async move {
                    if another {
                        store::forget(tx, &kept.id).await?;
                    }
                    store::save(tx, &kept).await?;
                    let (action, target) = (if known { "update" } else { "create" }, format!("sso:{}", kept.id));
                    crate::audited(tx, &who.subject, action, &target, "success", "sign-in provider").await
                })
            })
            .await?;
        Ok(p)
    }
}

async fn list(State(identity): State<Arc<Identity>>, site: Site, who: Principal) -> Result<Json<Value>> {
    identity.sso_administrator(&who, false).await?;
    let all = store::providers(&identity.ctx.db, site.id()).await?;
    let all: Vec<Shown> = all.into_iter().map(|p| shown(&site, p)).collect();
    Ok(Json(json!({ "providers": all })))
}

async fn create(
    State(identity): State<Arc<Identity>>,
    site: Site,
    who: Principal,
    Body(change): Body<Change>,
) -> Result<(StatusCode, Json<Shown>)> {
    identity.sso_administrator(&who, true).await?;
    let new = Provider {
        id: id::new_id(&identity.ctx.clock).to_string(),
        settings: change.settings.clone(),
        sealed: None,
        active: true,
        created_at: identity.ctx.clock.now_ms(),
    };
    let made = identity.keep_provider(&site, who, new, change, false).await?;
    Ok((StatusCode::CREATED, Json(shown(&site, made))))
}

async fn update(
    State(identity): State<Arc<Identity>>,
    site: Site,
    who: Principal,
    Path(name): Path<String>,
    Body(change): Body<Change>,
) -> Result<Json<Shown>> {
    identity.sso_administrator(&who, true).await?;
    let old = store::provider(&identity.ctx.db, site.id(), &name)
        .await?
        .ok_or_else(unknown)?;
    let kept = identity.keep_provider(&site, who, old, change, true).await?;
    Ok(Json(shown(&site, kept)))
}

async fn remove(
    State(identity): State<Arc<Identity>>,
    site: Site,
    who: Principal,
    Path(name): Path<String>,
) -> Result<StatusCode> {
    identity.sso_administrator(&who, true).await?;
    let old = store::provider(&identity.ctx.db, site.id(), &name)
        .await?
        .ok_or_else(unknown)?;
    identity
        .ctx
        .db
        .write(site.id(), move |tx| {
            Box::pin(async move {
                store::delete(tx, &old.id).await?;
                let target = format!("sso:{}", old.id);
                crate::audited(tx, &who.subject, "delete", &target, "success", "sign-in provider").await
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
