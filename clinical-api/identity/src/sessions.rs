//! The sessions of a person, as their owner sees and ends them.

use crate::{Identity, audited};
use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{delete, get, post},
};
use http::StatusCode;
use medtech_kernel::{
    Error, Result,
    auth::{Assurance, Principal},
    clock::serde_rfc3339,
    policy::Action,
};
use serde::Serialize;
use std::sync::Arc;
use uuid::Uuid;

pub(crate) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/sessions", get(list))
        .route("/sessions/{id}", delete(end))
        .route("/sessions/end-others", post(end_others))
}

#[derive(Serialize)]
struct Listed {
    id: Uuid,
    /// The browser, in plain words; empty where it did not say.
    note: String,
    #[serde(with = "serde_rfc3339")]
    created_at: i64,
    #[serde(with = "serde_rfc3339")]
    last_seen_at: i64,
    #[serde(with = "serde_rfc3339")]
    expires_at: i64,
    current: bool,
    assurance: Assurance,
    /// The application that acts in it; absent for our own pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
}

#[derive(Serialize)]
struct List {
    sessions: Vec<Listed>,
}

async fn list(State(identity): State<Arc<Identity>>, who: Principal) -> Result<Json<List>> {
    identity.owner(&who, Action::Read, "session").await?;
    let all = identity.ctx.sessions.list(who.tenant, &who.subject).await?;
    let sessions = all
        .into_iter()
        .map(|s| Listed {
            current: s.id == who.session,
            id: s.id,
            note: s.note,
            created_at: s.created_at,
            last_seen_at: s.seen_at,
            expires_at: s.expires_at,
            assurance: s.grant.assurance,
            client: s.grant.client,
        })
        .collect();
    Ok(Json(List { sessions }))
}

/// Another session asks for a fresh proof, so that nobody at a borrowed screen puts its owner out; the own one does not.
async fn end(State(identity): State<Arc<Identity>>, who: Principal, Path(id): Path<String>) -> Result<StatusCode> {
    identity.owner(&who, Action::Write, "session").await?;
    if !id.eq_ignore_ascii_case(&who.session.to_string()) {
        who.require_fresh(identity.ctx.clock.now_ms())?;
    }
    let unknown = || Error::not_found("identity.session_unknown", "There is no such session.");
    let id = Uuid::try_parse(&id).map_err(|_| unknown())?;
    let this = identity.clone();
    let ended = identity.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move {
            if !this.ctx.sessions.revoke_own(tx, &who.subject, id).await? {
                return Err(unknown());
            }
            audited(
                tx,
                &who.subject,
                "delete",
                &format!("session:{id}"),
                "success",
                "session",
            )
            .await
        })
    });
    ended.await.map(|()| StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
struct Ended {
    ended: u64,
}

async fn end_others(State(identity): State<Arc<Identity>>, who: Principal) -> Result<Json<Ended>> {
    identity.owner(&who, Action::Write, "session").await?;
    who.require_fresh(identity.ctx.clock.now_ms())?;
    let this = identity.clone();
    let ended = identity.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move {
            let ended = this.ctx.sessions.revoke_others(tx, &who.subject, who.session).await?;
            audited(tx, &who.subject, "delete", &who.subject, "success", "other sessions").await?;
            Ok(ended)
        })
    });
    Ok(Json(Ended { ended: ended.await? }))
}
