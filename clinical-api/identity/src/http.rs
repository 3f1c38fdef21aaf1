//! The doors of identity: sign in, by password or by link; who am I; sign out.

use crate::{
    Identity, Opened, User, access_log, account, address,
    caller::Caller,
    decide, device_key, forgotten, links, passkeys, people, sessions,
    sign_in::{Proof, Step, Ticket},
    sso, step_up, store,
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use medtech_kernel::{
    Error, Result,
    auth::{Assurance, Principal, Role},
    clock::rfc3339,
    http::{Body, TenantCtx},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

pub(crate) fn routes(identity: Arc<Identity>) -> Router {
    let applications = identity.oauth.clone().api().merge(sso::routes(identity.clone()));
    Router::new()
        .route("/sign-in", post(sign_in))
        .route("/sign-in/second", post(second))
        .route("/sign-in/second/passkey", post(second_passkey))
        .merge(links::routes())
        .merge(forgotten::routes())
        .merge(passkeys::http::routes())
        .merge(sessions::routes())
        .merge(step_up::routes())
        .merge(account::routes())
        .merge(address::routes())
        .route("/me", get(me))
        .route("/me/access-log", get(access_log::mine))
        .route("/me/device-key", get(device_key::mine))
        .route("/me/access-log/{format}", get(access_log::file))
        .route("/names", get(access_log::names))
        .route("/decide", post(decide::decide))
        .route("/access/rules", get(decide::rules))
        .route("/sign-out", post(sign_out))
        .merge(people::routes())
        .merge(people::role_routes())
        .with_state(identity)
        .merge(applications)
}

#[derive(Deserialize)]
struct SignIn {
    email: String,
    password: String,
}

#[derive(Serialize)]
struct Who {
    id: Uuid,
    name: String,
    roles: Vec<Role>,
    /// Fixed roles that those of the clinic's own are made of: which pages are for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    acts_as: Vec<Role>,
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
            acts_as: Vec::new(),
            practitioner_id: u.practitioner,
            patient_id: u.patient,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct SignedIn {
    access_token: String,
    expires_at: String,
    user: Who,
    assurance: Assurance,
}

impl From<Opened> for SignedIn {
    fn from(opened: Opened) -> Self {
        Self {
            access_token: opened.token,
            expires_at: rfc3339(opened.expires_at),
            user: Who {
                acts_as: opened.acts_as,
                ..opened.user.into()
            },
            assurance: opened.assurance,
        }
    }
}

/// Answers that carry a token are kept by nobody on the way.
pub(crate) type Secret<T> = ([(HeaderName, HeaderValue); 1], Json<T>);

pub(crate) fn secret<T>(body: T) -> Secret<T> {
    (
        [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        Json(body),
    )
}

pub(crate) fn signed_in(opened: Opened) -> Secret<SignedIn> {
    secret(opened.into())
}

/// The answer to a right password: a session, or what is asked for next.
#[derive(Serialize)]
#[serde(untagged)]
enum Answered {
    In(Box<SignedIn>),
    Second { second_factor: Ticket },
}

async fn sign_in(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    caller: Caller,
    Body(body): Body<SignIn>,
) -> Result<Secret<Answered>> {
    let step = identity.sign_in(tenant.id, &body.email, &body.password, caller).await?;
    Ok(secret(match step {
        Step::In(opened) => Answered::In(Box::new((*opened).into())),
        Step::Second(second_factor) => Answered::Second { second_factor },
    }))
}

#[derive(Deserialize)]
struct Second {
    ticket: String,
    #[serde(flatten)]
    proof: Proof,
}

async fn second(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    caller: Caller,
    Body(body): Body<Second>,
) -> Result<Secret<SignedIn>> {
    identity
        .second(tenant.id, body.ticket, body.proof, caller)
        .await
        .map(signed_in)
}

#[derive(Deserialize)]
struct OfTicket {
    ticket: String,
}

async fn second_passkey(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    headers: HeaderMap,
    Body(body): Body<OfTicket>,
) -> Result<Secret<serde_json::Value>> {
    let site = passkeys::http::site(&identity, &tenant, &headers)?;
    identity.second_passkey(tenant.id, &body.ticket, site).await.map(secret)
}

#[derive(Serialize)]
struct Me {
    user: Who,
    tenant: Clinic,
    session: Session,
}

#[derive(Serialize)]
struct Session {
    assurance: Assurance,
    /// It ends after this much silence, in minutes; absent: only with its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_minutes: Option<u32>,
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
    let staff = who.roles.iter().any(|r| r.is_staff());
    let session = Session {
        assurance: who.grant.assurance,
        idle_minutes: Some(tenant.settings.idle_minutes).filter(|minutes| staff && *minutes > 0),
    };
    let user = match user {
        Some(user) => Who {
            acts_as: identity.acts_as(tenant.id, &user.roles).await?,
            ..user.into()
        },
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
            acts_as: Vec::new(),
            practitioner_id: None,
            patient_id: None,
        },
    };
    Ok(Json(Me {
        user,
        session,
        tenant: Clinic {
            slug: tenant.slug,
            name: tenant.name,
            zone: tenant.zone,
        },
    }))
}

/// What the browser has of us in its cache goes as well; what the page itself keeps, the page puts away.
async fn sign_out(
    State(identity): State<Arc<Identity>>,
    who: Principal,
) -> Result<(StatusCode, [(HeaderName, HeaderValue); 1])> {
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
    let clear = HeaderName::from_static("clear-site-data");
    Ok((StatusCode::NO_CONTENT, [(clear, HeaderValue::from_static("\"cache\""))]))
}
