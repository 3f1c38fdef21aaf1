//! The applications that act for a user: seen and ended by the user.

use super::{
    OAuth,
    consent::{FIXED, person},
    issuer::Site,
    store,
};
use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use medtech_kernel::{Error, Result, auth::Principal, clock::rfc3339, http::Body};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Serialize)]
pub(crate) struct Apps {
    apps: Vec<App>,
}

#[derive(Serialize)]
struct App {
    id: String,
    name: String,
    /// Of all that was allowed and stands.
    scopes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    patients: Vec<String>,
    since: String,
    last_used: String,
    /// It can go on while the user is away.
    offline: bool,
}

pub(crate) async fn list(State(oauth): State<Arc<OAuth>>, site: Site, who: Principal) -> Result<Json<Apps>> {
    person(&who)?;
    let now = oauth.ctx.clock.now_ms();
    let mut by_client: BTreeMap<String, Vec<store::Grant>> = BTreeMap::new();
    for grant in store::grants_of(&oauth.ctx.db, site.id(), &who.subject, now).await? {
        by_client.entry(grant.client.clone()).or_default().push(grant);
    }
    let mut apps = Vec::new();
    for (id, grants) in by_client {
        let client = store::client(&oauth.ctx.db, site.id(), &id).await?;
        let mut scopes: Vec<String> = grants
            .iter()
            .flat_map(|g| g.scopes.split(' ').map(str::to_owned))
            .collect();
        scopes.sort();
        scopes.dedup();
        let mut patients: Vec<String> = grants.iter().filter_map(|g| g.patient.clone()).collect();
        patients.sort();
        patients.dedup();
        let since = grants.iter().map(|g| g.created_at).min().unwrap_or(now);
        let used = grants.iter().map(|g| g.used_at).max().unwrap_or(now);
        apps.push(App {
            name: client.map_or_else(|| id.clone(), |c| c.metadata.client_name),
            offline: scopes.iter().any(|s| s == "offline_access"),
            since: rfc3339(since),
            last_used: rfc3339(used),
            id,
            scopes,
            patients,
        });
    }
    Ok(Json(Apps { apps }))
}

/// Ends every grant of the user to the application, with its tokens.
pub(crate) async fn end(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    who: Principal,
    Path(client): Path<String>,
) -> Result<StatusCode> {
    person(&who)?;
    let now = oauth.ctx.clock.now_ms();
    let grants = store::grants_of(&oauth.ctx.db, site.id(), &who.subject, now).await?;
    let ids: Vec<_> = grants
        .into_iter()
        .filter(|g| g.client == client)
        .map(|g| g.id)
        .collect();
    if ids.is_empty() {
        return Err(Error::not_found(
            "oauth.app_unknown",
            "No such application acts for you.",
        ));
    }
    let sessions = oauth.ctx.sessions.clone();
    oauth
        .ctx
        .db
        .write(site.id(), move |tx| {
            Box::pin(async move {
                for id in ids {
                    store::end_grant(tx, &sessions, id).await?;
                }
                let target = format!("oauth_client:{client}");
                crate::audited(tx, &who.subject, "delete", &target, "success", "application ended").await
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub(crate) struct Fewer {
    /// Permissions that are taken back.
    without: Vec<String>,
}

/// Takes single permissions back. Tokens that are out still say the old ones, so they end; the application asks for new
/// ones with what is left. With nothing left that gives access, the application is ended.
pub(crate) async fn narrow(
    State(oauth): State<Arc<OAuth>>,
    site: Site,
    who: Principal,
    Path(client): Path<String>,
    Body(fewer): Body<Fewer>,
) -> Result<StatusCode> {
    person(&who)?;
    let sessions = oauth.ctx.sessions.clone();
    let done = oauth.ctx.db.write(site.id(), move |tx| {
        Box::pin(async move {
            let mut changed = false;
            // As they are now: of two that take something back at once, neither gives it back to the other.
            for grant in store::grants_of_in(tx, &who.subject).await? {
                let words: Vec<&str> = grant.scopes.split(' ').collect();
                let left: Vec<&str> = (words.iter().copied())
                    .filter(|w| FIXED.contains(w) || !fewer.without.iter().any(|f| f == w))
                    .collect();
                if grant.client != client || left.len() == words.len() {
                    continue;
                }
                changed = true;
                if left.iter().any(|w| !FIXED.contains(w)) {
                    store::narrow_grant(tx, grant.id, &left.join(" ")).await?;
                    store::end_access(tx, &sessions, grant.id).await?;
                } else {
                    store::end_grant(tx, &sessions, grant.id).await?;
                }
            }
            if !changed {
                return Err(Error::not_found(
                    "oauth.app_unknown",
                    "No such application has this permission of yours.",
                ));
            }
            let target = format!("oauth_client:{client}");
            crate::audited(tx, &who.subject, "update", &target, "success", "permissions taken back").await
        })
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}
