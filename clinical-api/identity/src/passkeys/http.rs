//! The doors of passkeys: make one, use one, name and remove them.

use super::{
    Assertion, MOST, Site,
    ceremony::{self, Refusal},
    decoded, expected,
    store::{self, Kind},
};
use crate::{Identity, agent, audited, caller::Caller, factors::Changed, http::signed_in, store as users};
use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, patch, post},
};
use http::{HeaderMap, StatusCode, header};
use medtech_kernel::{
    Error, Result, Tenant,
    auth::{Assurance, Principal, Role},
    clock::serde_rfc3339,
    http::{Body, TenantCtx},
    policy::Action,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;

pub(crate) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/passkeys", get(list))
        .route("/passkeys/{id}", patch(rename).delete(remove))
        .route("/passkeys/register/start", post(register_start))
        .route("/passkeys/register/finish", post(register_finish))
        .route("/passkeys/authenticate/start", post(authenticate_start))
        .route("/passkeys/authenticate/finish", post(authenticate_finish))
}

/// The site of a request, or why there can be no passkeys here.
pub(crate) fn site(identity: &Identity, tenant: &Tenant, headers: &HeaderMap) -> Result<Site> {
    let host = headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or_default();
    Site::of(&identity.ctx, tenant, host)
        .ok_or_else(|| Error::unprocessable("identity.passkey_host", "Passkeys need the clinic's own web address."))
}

async fn authenticate_start(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    headers: HeaderMap,
) -> Result<Json<Value>> {
    let site = site(&identity, &tenant, &headers)?;
    identity
        .request(tenant.id, site, Kind::SignIn, None, None)
        .await
        .map(Json)
}

async fn authenticate_finish(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    caller: Caller,
    Body(body): Body<Assertion>,
) -> Result<crate::http::Secret<crate::http::SignedIn>> {
    identity.sign_in_passkey(tenant.id, &body, caller).await.map(signed_in)
}

async fn register_start(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    who: Principal,
    headers: HeaderMap,
) -> Result<Json<Value>> {
    let user = identity.may_change(&who).await?;
    let site = site(&identity, &tenant, &headers)?;
    let user = users::by_id(&identity.ctx.db, tenant.id, user)
        .await?
        .ok_or_else(crate::unknown_user)?;
    identity.creation(&tenant, site, &user, who.session).await.map(Json)
}

/// `RegistrationResponseJSON` with the ceremony it finishes.
#[derive(Deserialize)]
struct Registration {
    ceremony: String,
    credential: NewCredential,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct NewCredential {
    id: String,
    response: NewResponse,
}

#[derive(Deserialize)]
struct NewResponse {
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    #[serde(rename = "attestationObject")]
    attestation: String,
    #[serde(default)]
    transports: Vec<String>,
}

#[derive(Serialize)]
struct Made {
    id: Uuid,
}

async fn register_finish(
    State(identity): State<Arc<Identity>>,
    who: Principal,
    headers: HeaderMap,
    Body(body): Body<Registration>,
) -> Result<(StatusCode, Json<Made>)> {
    // Fresh enough at the start: the ceremony is five minutes of its own.
    let user = identity.owner(&who, Action::Write, "credential").await?;
    let name = match &body.name {
        Some(name) => named(name)?,
        None => agent::describe(&headers),
    };
    let secret = body.ceremony.clone();
    let taken = identity.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move { store::take(tx, Kind::Register, &secret).await })
    });
    let own = |t: &store::Ceremony| t.user == Some(user) && t.session == Some(who.session);
    let found = match taken.await?.filter(own) {
        None => Err(Refusal::Ceremony),
        Some(taken) => made(&taken, &body.credential).map(|new| (taken, new)),
    };
    // Names of ways to reach an authenticator (WebAuthn, 5.8.4); what else is said here is not kept.
    let transports: Vec<&str> = body.credential.response.transports.iter().map(String::as_str).collect();
    let transports: Vec<&str> = ["usb", "nfc", "ble", "smart-card", "hybrid", "internal"]
        .into_iter()
        .filter(|t| transports.contains(t))
        .collect();
    let transports = transports.join(" ");
    let this = identity.clone();
    let made = identity.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move {
            let refusal = match found {
                Err(refusal) => refusal,
                Ok((taken, new)) => {
                    if store::count(tx, user).await? >= MOST {
                        let text = format!("At most {MOST} passkeys. Please remove one first.");
                        return Err(Error::conflict("identity.passkeys_many", text));
                    }
                    match store::insert(tx, user, &new, &taken.rp_id, &transports, &name).await? {
                        None => Refusal::AlreadyRegistered,
                        Some(id) => {
                            this.ctx.sessions.proved(tx, who.session, Assurance::Two).await?;
                            this.changed(tx, &who, user, Changed::PasskeyAdded).await?;
                            return Ok(Ok(id));
                        }
                    }
                }
            };
            let why = format!("passkey: {}", refusal.name());
            audited(tx, &who.subject, "create", &who.subject, "denied", &why).await?;
            Ok(Err(refused_registration()))
        })
    });
    made.await?.map(|id| (StatusCode::CREATED, Json(Made { id })))
}

fn refused_registration() -> Error {
    Error::unprocessable(
        "identity.passkey_refused",
        "This passkey could not be added. Please try again.",
    )
}

fn made(taken: &store::Ceremony, new: &NewCredential) -> std::result::Result<ceremony::Registered, Refusal> {
    let data = decoded(&new.response.client_data)?;
    let made = ceremony::register(&expected(taken), &data, &decoded(&new.response.attestation)?)?;
    if decoded(&new.id)? != made.credential {
        return Err(Refusal::CredentialId);
    }
    Ok(made)
}

#[derive(Serialize)]
struct Listed {
    id: Uuid,
    name: String,
    #[serde(with = "serde_rfc3339")]
    created_at: i64,
    #[serde(with = "serde_rfc3339::option")]
    last_used_at: Option<i64>,
    /// Kept by its provider on several devices.
    synced: bool,
}

#[derive(Serialize)]
struct List {
    passkeys: Vec<Listed>,
}

async fn list(State(identity): State<Arc<Identity>>, who: Principal) -> Result<Json<List>> {
    let user = identity.owner(&who, Action::Read, "credential").await?;
    let all = store::of_user(&identity.ctx.db, who.tenant, user).await?;
    let passkeys = all
        .into_iter()
        .map(|p| Listed {
            id: p.id,
            name: p.name,
            created_at: p.created_at,
            last_used_at: p.used_at,
            synced: p.backed_up,
        })
        .collect();
    Ok(Json(List { passkeys }))
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

fn named(name: &str) -> Result<String> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > 80 || name.chars().any(char::is_control) {
        return Err(Error::unprocessable(
            "identity.passkey_name",
            "A passkey's name has 1 to 80 characters.",
        ));
    }
    Ok(name.to_owned())
}

fn unknown() -> Error {
    Error::not_found("identity.passkey_unknown", "There is no such passkey.")
}

fn parsed(id: &str) -> Result<Uuid> {
    Uuid::try_parse(id).map_err(|_| unknown())
}

async fn rename(
    State(identity): State<Arc<Identity>>,
    who: Principal,
    Path(id): Path<String>,
    Body(Name { name }): Body<Name>,
) -> Result<StatusCode> {
    let user = identity.owner(&who, Action::Write, "credential").await?;
    let (id, name) = (parsed(&id)?, named(&name)?);
    let renamed = identity.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move {
            if !store::rename(tx, id, user, &name).await? {
                return Err(unknown());
            }
            audited(tx, &who.subject, "update", &who.subject, "success", "passkey renamed").await
        })
    });
    renamed.await.map(|()| StatusCode::NO_CONTENT)
}

async fn remove(State(identity): State<Arc<Identity>>, who: Principal, Path(id): Path<String>) -> Result<StatusCode> {
    let user = identity.may_change(&who).await?;
    let id = parsed(&id)?;
    let this = identity.clone();
    let removed = identity.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move {
            if !store::remove(tx, id, user).await? {
                return Err(unknown());
            }
            let left = crate::factors::store::standing_in(tx, user).await?;
            // Patients come in by a link as well.
            if !left.password && left.passkeys == 0 && !who.has(Role::Patient) {
                return Err(Error::conflict(
                    "identity.last_credential",
                    "This is all you can sign in with. Set a password or add another passkey first.",
                ));
            }
            this.changed(tx, &who, user, Changed::PasskeyRemoved).await
        })
    });
    removed.await.map(|()| StatusCode::NO_CONTENT)
}
