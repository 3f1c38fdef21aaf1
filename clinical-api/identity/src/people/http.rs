//! The doors of people: administrators' list, everyone's own page, proxies.

use super::{
    Standing,
    admin::{Act, Edit},
    me::{Acceptance, NewProfile, Preferences, Profile},
    proxy::{self, Grant},
    records::Candidate,
    store,
};
use crate::{Identity, NewUser, unknown_user};
use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    routing::{delete, get, post},
};
use http::StatusCode;
use medtech_kernel::{
    Error, Result,
    auth::{Principal, Role},
    clock::{Millis, rfc3339},
    http::Body,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

const PAGE: i64 = 50;
const LONGEST: i64 = 200;

pub(crate) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/users", get(list).post(invite))
        .route("/users/{id}", get(one).patch(edit))
        .route("/users/{id}/{act}", post(act))
        .route("/records", get(records))
        .route("/me/profile", get(profile).put(set_profile))
        .route("/me/preferences", get(preferences).put(set_preferences))
        .route("/me/invitation", post(accept_invitation))
        .route("/proxies", get(proxies).post(grant))
        .route("/proxies/mine", get(acting_for))
        .route("/proxies/{id}", delete(end_proxy))
        .route("/proxies/{id}/accept", post(accept_proxy))
}

type Shared = State<Arc<Identity>>;

#[derive(Serialize)]
struct Person {
    id: Uuid,
    email: String,
    name: String,
    roles: Vec<Role>,
    standing: Standing,
    #[serde(skip_serializing_if = "Option::is_none")]
    practitioner_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patient_id: Option<String>,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    invited_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invitation_ends: Option<String>,
}

impl From<store::Person> for Person {
    fn from(p: store::Person) -> Self {
        Self {
            id: p.user.id,
            email: p.user.email,
            name: p.user.name,
            roles: p.user.roles,
            standing: p.standing,
            practitioner_id: p.user.practitioner,
            patient_id: p.user.patient,
            created_at: rfc3339(p.created_at),
            invited_at: p.sent_at.map(rfc3339),
            invitation_ends: p.expires_at.map(rfc3339),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ask {
    search: String,
    role: String,
    after: Option<Uuid>,
    limit: Option<i64>,
}

#[derive(Serialize)]
struct Page {
    users: Vec<Person>,
    /// Pass this as `after` for more; null at the end.
    next: Option<Uuid>,
}

fn understood<T>(ask: Result<Query<T>, QueryRejection>) -> Result<T> {
    let Query(ask) = ask.map_err(|e| Error::bad("identity.query", format!("This is not understood: {e}")))?;
    Ok(ask)
}

async fn list(State(this): Shared, who: Principal, ask: Result<Query<Ask>, QueryRejection>) -> Result<Json<Page>> {
    this.require_admin(&who).await?;
    let ask = understood(ask)?;
    let limit = ask.limit.unwrap_or(PAGE);
    if !(1..=LONGEST).contains(&limit) {
        let text = format!("A page has 1 to {LONGEST} people.");
        return Err(Error::bad("identity.limit", text));
    }
    if !ask.role.is_empty() && Role::parse(&ask.role).is_none() {
        return Err(Error::bad("identity.roles", "There is no such role."));
    }
    let wanted = store::Ask {
        search: ask.search.trim(),
        role: &ask.role,
        after: ask.after,
        limit: limit + 1,
    };
    let mut found = store::page(&this.ctx.db, who.tenant, &wanted, this.ctx.clock.now_ms()).await?;
    let more = found.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(Page {
        next: found.last().filter(|_| more).map(|p| p.user.id),
        users: found.into_iter().map(Into::into).collect(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invite {
    email: String,
    name: String,
    roles: Vec<Role>,
    #[serde(default)]
    practitioner_id: Option<String>,
    #[serde(default)]
    patient_id: Option<String>,
}

async fn invite(State(this): Shared, who: Principal, Body(new): Body<Invite>) -> Result<(StatusCode, Json<Person>)> {
    this.require_admin(&who).await?;
    who.require_fresh(this.ctx.clock.now_ms())?;
    let new = NewUser {
        email: new.email,
        name: new.name,
        roles: new.roles,
        password: None,
        practitioner: new.practitioner_id.filter(|id| !id.is_empty()),
        patient: new.patient_id.filter(|id| !id.is_empty()),
    };
    let invited = this.invite(who.tenant, &who.subject, new).await?;
    Ok((StatusCode::CREATED, person(&this, &who, invited.user.id).await?))
}

async fn person(this: &Identity, who: &Principal, id: Uuid) -> Result<Json<Person>> {
    let found = store::one(&this.ctx.db, who.tenant, id, this.ctx.clock.now_ms()).await?;
    found.map(|p| Json(p.into())).ok_or_else(unknown_user)
}

/// What is no identifier is the identifier of nobody.
fn id_of(text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| unknown_user())
}

#[derive(Serialize)]
struct Detail {
    #[serde(flatten)]
    person: Person,
    sessions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_at: Option<String>,
}

async fn one(State(this): Shared, who: Principal, Path(id): Path<String>) -> Result<Json<Detail>> {
    this.require_admin(&who).await?;
    let id = id_of(&id)?;
    let found = store::one(&this.ctx.db, who.tenant, id, this.ctx.clock.now_ms()).await?;
    let found = found.ok_or_else(unknown_user)?;
    let sessions = this.ctx.sessions.list(who.tenant, &found.user.subject()).await?;
    Ok(Json(Detail {
        seen_at: sessions.iter().map(|s| s.seen_at.max(s.created_at)).max().map(rfc3339),
        sessions: sessions.len(),
        person: found.into(),
    }))
}

async fn edit(
    State(this): Shared,
    who: Principal,
    Path(id): Path<String>,
    Body(edit): Body<Edit>,
) -> Result<Json<Person>> {
    this.require_admin(&who).await?;
    this.edit(&who, id_of(&id)?, edit).await.map(|p| Json(p.into()))
}

async fn act(State(this): Shared, who: Principal, Path((id, act)): Path<(String, String)>) -> Result<Json<Person>> {
    this.require_admin(&who).await?;
    let id = id_of(&id)?;
    let act = match act.as_str() {
        "lock" => Act::Lock,
        "unlock" => Act::Unlock,
        "end-sessions" => Act::EndSessions,
        "reset" => Act::Reset,
        "invite" => {
            who.require_fresh(this.ctx.clock.now_ms())?;
            this.invite_again(who.tenant, &who.subject, id).await?;
            return person(&this, &who, id).await;
        }
        "withdraw" => {
            this.withdraw(who.tenant, &who.subject, id).await?;
            return person(&this, &who, id).await;
        }
        _ => return Err(Error::not_found("http.not_found", "There is nothing at this address.")),
    };
    this.act(&who, id, act).await.map(|p| Json(p.into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    kind: String,
    search: String,
}

#[derive(Serialize)]
struct Candidates {
    records: Vec<Candidate>,
}

async fn records(
    State(this): Shared,
    who: Principal,
    ask: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Candidates>> {
    this.require_admin(&who).await?;
    let ask = understood(ask)?;
    let records = this.candidates(who.tenant, &ask.kind, &ask.search).await?;
    Ok(Json(Candidates { records }))
}

async fn profile(State(this): Shared, who: Principal) -> Result<Json<Profile>> {
    this.profile(&who).await.map(Json)
}

async fn set_profile(State(this): Shared, who: Principal, Body(new): Body<NewProfile>) -> Result<Json<Profile>> {
    this.set_profile(&who, new).await.map(Json)
}

async fn preferences(State(this): Shared, who: Principal) -> Result<Json<Preferences>> {
    this.preferences(&who).await.map(Json)
}

async fn set_preferences(
    State(this): Shared,
    who: Principal,
    Body(new): Body<Preferences>,
) -> Result<Json<Preferences>> {
    this.set_preferences(&who, new).await.map(Json)
}

async fn accept_invitation(State(this): Shared, who: Principal, Body(with): Body<Acceptance>) -> Result<Json<Profile>> {
    this.accept_invitation(&who, with).await.map(Json)
}

#[derive(Serialize)]
struct Proxy {
    id: Uuid,
    patient_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    patient_name: Option<String>,
    name: String,
    email: String,
    relationship: String,
    scope: Vec<String>,
    state: &'static str,
    granted_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<String>,
    /// It ends because the patient comes of age.
    ends_with_childhood: bool,
}

fn shown(p: store::Proxy, patient_name: Option<String>, now: Millis) -> Proxy {
    Proxy {
        state: proxy::state(&p, now),
        ends_with_childhood: p.of_age.is_some() && p.of_age == p.ends(),
        ends_at: p.ended_at.or(p.ends()).map(rfc3339),
        id: p.id,
        patient_id: p.patient,
        patient_name,
        name: p.name,
        email: p.email,
        relationship: p.relationship,
        scope: p.scope,
        granted_at: rfc3339(p.granted_at),
    }
}

#[derive(Serialize)]
struct Proxies {
    proxies: Vec<Proxy>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Of {
    patient: Option<String>,
}

async fn proxies(State(this): Shared, who: Principal, ask: Result<Query<Of>, QueryRejection>) -> Result<Json<Proxies>> {
    let found = this.proxies_of(&who, understood(ask)?.patient).await?;
    let now = this.ctx.clock.now_ms();
    let proxies = found.into_iter().map(|p| shown(p, None, now)).collect();
    Ok(Json(Proxies { proxies }))
}

async fn acting_for(State(this): Shared, who: Principal) -> Result<Json<Proxies>> {
    let now = this.ctx.clock.now_ms();
    let found = this.acting_for(&who).await?;
    let proxies = found.into_iter().map(|(p, name)| shown(p, Some(name), now)).collect();
    Ok(Json(Proxies { proxies }))
}

async fn grant(State(this): Shared, who: Principal, Body(new): Body<Grant>) -> Result<(StatusCode, Json<Proxy>)> {
    let made = this.grant(&who, new).await?;
    Ok((StatusCode::CREATED, Json(shown(made, None, this.ctx.clock.now_ms()))))
}

fn proxy_id(text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| Error::not_found("proxy.unknown", "There is no such access."))
}

async fn accept_proxy(State(this): Shared, who: Principal, Path(id): Path<String>) -> Result<Json<Proxy>> {
    let accepted = this.accept_proxy(&who, proxy_id(&id)?).await?;
    Ok(Json(shown(accepted, None, this.ctx.clock.now_ms())))
}

async fn end_proxy(State(this): Shared, who: Principal, Path(id): Path<String>) -> Result<StatusCode> {
    this.end_proxy(&who, proxy_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
