//! The doors of identity: sign in, by password or by link; who am I; sign out.

use crate::{Identity, Opened, User, access_log, decide, store};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};
use medtech_kernel::{
    Error, Result,
    auth::{Principal, Role},
    clock::rfc3339,
    http::{Body, TenantCtx},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

pub(crate) fn routes(identity: Arc<Identity>) -> Router {
    Router::new()
        .route("/sign-in", post(sign_in))
        .route("/links/exchange", post(exchange))
        .route("/me", get(me))
        .route("/me/access-log", get(access_log::mine))
        .route("/names", get(access_log::names))
        .route("/decide", post(decide::decide))
        .route("/sign-out", post(sign_out))
        .with_state(identity)
}

#[derive(Deserialize)]
struct SignIn {
    email: String,
    password: String,
}

#[derive(Deserialize)]
struct Exchange {
    link: String,
}

#[derive(Serialize)]
struct Who {
    id: Uuid,
    name: String,
    roles: Vec<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    practitioner_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patient_id: Option<String>,
}

impl From<User> for Who {
    fn from(u: User) -> Self {
        Self {
            id: u.id,
            name: u.name,
            roles: u.roles,
            practitioner_id: u.practitioner,
            patient_id: u.patient,
        }
    }
}

#[derive(Serialize)]
struct SignedIn {
    access_token: String,
    expires_at: String,
    user: Who,
}

/// Answers that carry a token are kept by nobody on the way.
type Secret<T> = ([(header::HeaderName, HeaderValue); 1], Json<T>);

fn signed_in(opened: Opened) -> Secret<SignedIn> {
    let body = SignedIn {
        access_token: opened.token,
        expires_at: rfc3339(opened.expires_at),
        user: opened.user.into(),
    };
    (
        [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        Json(body),
    )
}

async fn sign_in(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    Body(body): Body<SignIn>,
) -> Result<Secret<SignedIn>> {
    identity
        .sign_in(tenant.id, &body.email, &body.password)
        .await
        .map(signed_in)
}

async fn exchange(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    Body(body): Body<Exchange>,
) -> Result<Secret<SignedIn>> {
    identity.exchange(tenant.id, &body.link).await.map(signed_in)
}

#[derive(Serialize)]
struct Me {
    user: Who,
    tenant: Clinic,
}

#[derive(Serialize)]
struct Clinic {
    slug: Arc<str>,
    name: Arc<str>,
    zone: Arc<str>,
}

async fn me(State(identity): State<Arc<Identity>>, TenantCtx(tenant): TenantCtx, who: Principal) -> Result<Json<Me>> {
    let id = who
        .subject_id()
        .parse()
        .map_err(|_| Error::forbidden("identity.not_a_user", "This is for people who signed in."))?;
    let user = match who.subject.starts_with("user:") {
        true => store::by_id(&identity.ctx.db, tenant.id, id)
            .await?
            .filter(|u| u.active),
        false => None,
    };
    let user = match user {
        Some(user) => user.into(),
        None if who.subject.starts_with("user:") => {
            return Err(Error::unauthorized(
                "identity.user_gone",
                "Your account is no longer active.",
            ));
        }
        // A guest of a visit: what the session itself says.
        None => Who {
            id,
            name: who.name.to_string(),
            roles: who.roles,
            practitioner_id: None,
            patient_id: None,
        },
    };
    Ok(Json(Me {
        user,
        tenant: Clinic {
            slug: tenant.slug,
            name: tenant.name,
            zone: tenant.zone,
        },
    }))
}

async fn sign_out(State(identity): State<Arc<Identity>>, who: Principal) -> Result<StatusCode> {
    let sessions = identity.ctx.sessions.clone();
    identity
        .ctx
        .db
        .write(who.tenant, move |tx| {
            Box::pin(async move {
                crate::audited(tx, &who.subject, "execute", "sign-out", "success", "session").await?;
                sessions.revoke(tx, who.session).await
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
