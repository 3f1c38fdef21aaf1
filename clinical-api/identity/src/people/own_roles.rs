//! Roles of the clinic's own, at the administrators' doors: looked at, made, changed, taken away when nobody has them.

use super::store;
use crate::{Identity, audited};
use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use http::StatusCode;
use medtech_kernel::{
    Error, Result, Tx,
    auth::{Principal, Role},
    clock::rfc3339,
    http::{Body, require},
    policy::{
        Action, announce,
        own::{self, OwnRole, Wanted, What},
    },
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

pub(crate) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/roles", get(list).post(make))
        .route("/roles/{id}", get(versions).put(change).delete(remove))
}

type Shared = State<Arc<Identity>>;

#[derive(Serialize)]
struct Shown {
    id: Uuid,
    /// As it stands among a person's roles.
    role: Role,
    version: i64,
    name: String,
    permissions: Vec<String>,
    changed_at: String,
    changed_by: String,
    gone: bool,
    /// How many people have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    people: Option<i64>,
}

fn shown(role: OwnRole, people: Option<i64>) -> Shown {
    Shown {
        id: role.id,
        role: Role::Own(role.id),
        version: role.version,
        name: role.name,
        permissions: role.permissions.iter().map(ToString::to_string).collect(),
        changed_at: rfc3339(role.at),
        changed_by: role.actor,
        gone: role.gone,
        people,
    }
}

/// One permission that can be chosen, in the words of the rules page.
#[derive(Serialize)]
struct Choice {
    permission: String,
    of: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    act: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    breadth: Option<&'static str>,
}

#[derive(Serialize)]
struct Roles {
    roles: Vec<Shown>,
    choices: Vec<Choice>,
}

async fn list(State(this): Shared, who: Principal) -> Result<Json<Roles>> {
    require(&this.ctx, &who, Action::Read, "policy", "*").await?;
    let mut roles = Vec::new();
    for role in own::all(&this.ctx.db, who.tenant).await? {
        let people = store::with_role(&this.ctx.db, who.tenant, Role::Own(role.id)).await?;
        roles.push(shown(role, Some(people)));
    }
    let choices = own::choosable().into_iter().map(|p| {
        let (class, kind, act) = match p.what {
            What::Record(class, step) => (Some(class.name()), None, step.name()),
            What::Thing(kind, action) => (None, Some(kind), action.name()),
        };
        Choice {
            permission: p.to_string(),
            of: p.of,
            class,
            kind,
            act,
            breadth: own::breadth(p.of, p.what),
        }
    });
    Ok(Json(Roles {
        roles,
        choices: choices.collect(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    name: String,
    permissions: Vec<String>,
    /// The version that was looked at; of a new one, none.
    #[serde(default)]
    version: Option<i64>,
}

fn id_of(text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| own::unknown())
}

impl Identity {
    /// Only administrators who proved themselves afresh: a role is as good as a key.
    async fn may_shape_roles(&self, who: &Principal) -> Result<()> {
        require(&self.ctx, who, Action::Administer, "policy", "*").await?;
        who.require_fresh(self.ctx.clock.now_ms())
    }

    async fn put_role(&self, who: Principal, id: Option<(Uuid, i64)>, edit: Edit) -> Result<Shown> {
        let wanted = Wanted::check(&edit.name, &edit.permissions)?;
        let bus = self.ctx.bus.clone();
        let done = self.ctx.db.write(who.tenant, move |tx| {
            Box::pin(async move {
                let role = own::put(tx, id, wanted, &who.subject).await?;
                let texts: Vec<String> = role.permissions.iter().map(ToString::to_string).collect();
                let detail = format!("version {}: {}", role.version, texts.join(" "));
                let act = if role.version == 1 { "create" } else { "update" };
                audited(tx, &who.subject, act, &format!("role:{}", role.id), "success", &detail).await?;
                // Whoever holds something open by it is asked again.
                announce(&bus, tx, None)?;
                Ok(shown(role, None))
            })
        });
        done.await
    }
}

async fn make(State(this): Shared, who: Principal, Body(new): Body<Edit>) -> Result<(StatusCode, Json<Shown>)> {
    this.may_shape_roles(&who).await?;
    Ok((StatusCode::CREATED, Json(this.put_role(who, None, new).await?)))
}

async fn change(
    State(this): Shared,
    who: Principal,
    Path(id): Path<String>,
    Body(edit): Body<Edit>,
) -> Result<Json<Shown>> {
    this.may_shape_roles(&who).await?;
    let seen = edit
        .version
        .ok_or_else(|| Error::unprocessable("policy.role_version", "Say which version of the role you looked at."))?;
    this.put_role(who, Some((id_of(&id)?, seen)), edit).await.map(Json)
}

async fn remove(State(this): Shared, who: Principal, Path(id): Path<String>) -> Result<StatusCode> {
    this.may_shape_roles(&who).await?;
    let (id, bus) = (id_of(&id)?, this.ctx.bus.clone());
    let done = this.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move {
            let role = own::remove(tx, id, &who.subject).await?;
            if store::with_role_in(tx, Role::Own(id)).await? > 0 {
                return Err(Error::conflict(
                    "policy.role_used",
                    "Somebody has this role. Give them another one first.",
                ));
            }
            let detail = format!("version {}", role.version);
            audited(tx, &who.subject, "delete", &format!("role:{id}"), "success", &detail).await?;
            announce(&bus, tx, None)
        })
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
struct Versions {
    versions: Vec<Shown>,
}

/// `GET /roles/{id}`: every version, the newest first.
async fn versions(State(this): Shared, who: Principal, Path(id): Path<String>) -> Result<Json<Versions>> {
    require(&this.ctx, &who, Action::Read, "policy", "*").await?;
    let all = own::versions(&this.ctx.db, who.tenant, id_of(&id)?).await?;
    if all.is_empty() {
        return Err(own::unknown());
    }
    Ok(Json(Versions {
        versions: all.into_iter().map(|r| shown(r, None)).collect(),
    }))
}

/// 422 unless those of the clinic's own among them are there.
pub(super) async fn known_in(tx: &mut Tx, roles: &[Role]) -> Result<()> {
    if roles.iter().all(|r| r.own().is_none()) {
        return Ok(());
    }
    let all = own::all_in(tx).await?;
    if roles
        .iter()
        .filter_map(|r| r.own())
        .all(|id| all.iter().any(|r| r.id == id))
    {
        return Ok(());
    }
    Err(super::no_role())
}
