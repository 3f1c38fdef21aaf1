//! `/api/visits`: the same commands as over the live socket, and what only a page needs.

use super::{
    Command, LINK_LIFE_MS, Visits,
    machine::{Input, Side, State},
    model::{Consent, DeviceCheck, Record, View},
    not_found,
    open::{Open, Opened},
    over, store,
};
use axum::{
    Json, Router,
    extract::{Path, Query, State as Shared},
    routing::{delete, get, post},
};
use http::HeaderMap;
use medtech_kernel::{
    Error, Result,
    auth::Principal,
    http::{Body, TenantCtx, idempotency_key},
    policy::{Action, Resource},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(super) fn routes(visits: Visits) -> Router {
    Router::new()
        .route("/", get(list))
        .route("/open", post(open))
        .route("/{id}", get(one))
        .route("/{id}/device-check", post(device_check))
        .route("/{id}/consent", post(consent))
        .route("/{id}/admit", post(admit))
        .route("/{id}/hold", post(hold))
        .route("/{id}/end", post(end))
        .route("/{id}/leave", post(leave))
        .route("/{id}/media", post(media))
        .route("/{id}/colleagues", post(join))
        .route("/{id}/colleagues/{subject}", delete(dismiss))
        .with_state(visits)
}

async fn open(
    Shared(visits): Shared<Visits>,
    TenantCtx(tenant): TenantCtx,
    Body(ask): Body<Open>,
) -> Result<Json<Opened>> {
    visits.open(tenant.id, ask).await.map(Json)
}

#[derive(Deserialize)]
struct Which {
    all: Option<u8>,
}

#[derive(Serialize)]
struct List {
    visits: Vec<View>,
}

async fn list(Shared(visits): Shared<Visits>, who: Principal, Query(which): Query<Which>) -> Result<Json<List>> {
    let all = which.all == Some(1);
    let asked = match all {
        true => Resource::new("visits", "*"),
        false => Resource::new("queue", who.subject_id()),
    };
    visits.0.ctx.policy.require(&who, Action::Read, &asked).await?;
    let since = visits.0.ctx.clock.now_ms() - LINK_LIFE_MS;
    let records = store::open(&visits.0.ctx.db, who.tenant, (!all).then_some(&*who.subject), since).await?;
    let mut shown = Vec::with_capacity(records.len());
    for record in &records {
        shown.push(visits.view(&who, record).await?);
    }
    let named = records.iter().map(|record| format!("visit:{}", record.id)).collect();
    visits.0.lists.note(&who, "visits", named).await?;
    Ok(Json(List { visits: shown }))
}

impl Visits {
    /// The visit, when `who` may do `action` with it. A guest's request shows that the guest is there.
    pub(super) async fn reach(&self, who: &Principal, action: Action, id: Uuid) -> Result<Record> {
        self.0
            .ctx
            .policy
            .require(who, action, &Resource::new("visit", id.to_string()))
            .await?;
        let record = store::read(&self.0.ctx.db, who.tenant, id)
            .await?
            .ok_or_else(not_found)?;
        if record.side(&who.subject) == Some(Side::Guest) && record.now.state != State::Ended {
            self.0.seen.touch((who.tenant, id), self.0.ctx.clock.now_ms());
        }
        Ok(record)
    }

    /// The guest alone answers for the guest: staff cannot consent in the patient's place.
    async fn reach_as_guest(&self, who: &Principal, id: Uuid) -> Result<Record> {
        let record = self.reach(who, Action::Join, id).await?;
        if record.side(&who.subject) == Some(Side::Guest) {
            Ok(record)
        } else {
            Err(Error::forbidden("policy.denied", "Only the patient can do this."))
        }
    }

    /// A command of the host (admit, hold, end) or of the guest (leave).
    pub(super) async fn command(
        &self,
        who: &Principal,
        id: Uuid,
        name: &'static str,
        key: Option<String>,
    ) -> Result<View> {
        let input = match name {
            "admit" => Input::Admit,
            "hold" => Input::Hold,
            "end" => Input::End,
            _ => Input::Leave,
        };
        if input == Input::Leave {
            self.reach_as_guest(who, id).await?;
        } else {
            self.reach(who, Action::Admit, id).await?;
        }
        let record = self
            .change(who.tenant, id, Command::new(&who.subject, name, key), input, |_| {})
            .await?;
        self.view(who, &record).await
    }
}

async fn one(Shared(visits): Shared<Visits>, who: Principal, Path(id): Path<Uuid>) -> Result<Json<View>> {
    let record = visits.reach(&who, Action::Read, id).await?;
    visits.view(&who, &record).await.map(Json)
}

async fn device_check(
    Shared(visits): Shared<Visits>,
    who: Principal,
    Path(id): Path<Uuid>,
    Body(check): Body<DeviceCheck>,
) -> Result<Json<View>> {
    visits.reach_as_guest(&who, id).await?;
    let command = Command::new(&who.subject, "device-check", None);
    let record = visits
        .change(who.tenant, id, command, Input::DeviceCheck, |r| r.check = Some(check))
        .await?;
    visits.view(&who, &record).await.map(Json)
}

async fn consent(
    Shared(visits): Shared<Visits>,
    who: Principal,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Body(consent): Body<Consent>,
) -> Result<Json<View>> {
    visits.reach_as_guest(&who, id).await?;
    if !consent.accepted {
        return Err(Error::unprocessable(
            "visit.consent_needed",
            "The visit needs your consent. Without it you can still call the clinic.",
        ));
    }
    let short = |t: &str, max: usize| !t.is_empty() && t.len() <= max && !t.chars().any(char::is_control);
    if !short(&consent.text_version, 64) || !short(&consent.language, 35) {
        return Err(Error::unprocessable(
            "visit.consent_text",
            "The version and language of the text are missing or too long.",
        ));
    }
    let command = Command::new(&who.subject, "consent", idempotency_key(&headers)?);
    let record = visits
        .change(who.tenant, id, command, Input::Consent, |r| r.consent = Some(consent))
        .await?;
    visits.view(&who, &record).await.map(Json)
}

macro_rules! commands {
    ($($name:ident),*) => {$(
        async fn $name(Shared(visits): Shared<Visits>, who: Principal, Path(id): Path<Uuid>, headers: HeaderMap) -> Result<Json<View>> {
            visits.command(&who, id, stringify!($name), idempotency_key(&headers)?).await.map(Json)
        }
    )*};
}

commands!(admit, hold, end, leave);

#[derive(Serialize)]
struct Ticket {
    url: String,
    token: String,
    room: String,
    identity: String,
}

async fn media(
    Shared(visits): Shared<Visits>,
    who: Principal,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Json<Ticket>> {
    let record = visits.reach(&who, Action::Join, id).await?;
    let (side, name, rights) = match (record.side(&who.subject), record.colleague(&who.subject)) {
        (Some(side), _) => (Some(side), &record.person(side).name, record.rights(side)),
        (None, Some(colleague)) => (None, &colleague.name, record.colleague_rights()),
        (None, None) => return Err(not_found()),
    };
    match record.now.state {
        State::Ended => return Err(over(&record)),
        State::Scheduled | State::DeviceCheck if side == Some(Side::Guest) => {
            return Err(Error::conflict(
                "visit.not_ready",
                "Finish the device check and give consent first.",
            ));
        }
        _ => {}
    }
    let room = id.to_string();
    visits.let_in(&who, id, rights).await?;
    let token = visits.0.media.token(who.tenant, &room, &who.subject, name, rights)?;
    Ok(Json(Ticket {
        url: socket_url(&visits.0.ctx.config.public_url(), &headers),
        token,
        room,
        identity: who.subject,
    }))
}

/// Joins somebody else's visit as a colleague: told to everyone in it, and recorded.
async fn join(Shared(visits): Shared<Visits>, who: Principal, Path(id): Path<Uuid>) -> Result<Json<View>> {
    visits.reach(&who, Action::Publish, id).await?;
    let record = visits.attend(&who, id).await?;
    visits.view(&who, &record).await.map(Json)
}

/// Ends a colleague's part: by themselves, or by whoever leads the visit.
async fn dismiss(
    Shared(visits): Shared<Visits>,
    who: Principal,
    Path((id, subject)): Path<(Uuid, String)>,
) -> Result<Json<View>> {
    let action = if subject == who.subject {
        Action::Read
    } else {
        Action::Admit
    };
    visits.reach(&who, action, id).await?;
    let record = visits.dismiss(&who, id, subject).await?;
    visits.view(&who, &record).await.map(Json)
}

/// The page's own origin as a WebSocket address.
fn socket_url(public: &str, headers: &HeaderMap) -> String {
    let (scheme, own_host) = public.split_once("://").unwrap_or(("http", public));
    let host = headers
        .get(http::header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or(own_host);
    let forwarded = headers.get("x-forwarded-proto").and_then(|h| h.to_str().ok());
    let secure = forwarded.unwrap_or(scheme) == "https";
    format!("{}://{host}/", if secure { "wss" } else { "ws" })
}
