//! What a clinic has chosen: typed, bounded, every version kept, in force at once in every process.

use crate::TenantsModule;
use axum::{Json, extract::State};
use medtech_kernel::{
    Error, Result,
    auth::Principal,
    clock::rfc3339,
    http::Body,
    tenant::{Settings, Version},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

type Shared = State<Arc<TenantsModule>>;

#[derive(Serialize)]
pub(crate) struct Standing {
    settings: Settings,
    version: i64,
    defaults: Settings,
}

fn standing(this: &TenantsModule, who: &Principal) -> Result<Standing> {
    let unknown = || Error::not_found("tenant.unknown", "There is no such clinic.");
    let tenant = this.ctx.tenants.by_id(who.tenant).ok_or_else(unknown)?;
    Ok(Standing {
        settings: Settings::clone(&tenant.settings),
        version: tenant.settings_version,
        defaults: Settings::default(),
    })
}

pub(crate) async fn get(State(this): Shared, who: Principal) -> Result<Json<Standing>> {
    this.own(&who).await?;
    standing(&this, &who).map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    /// The version that was looked at when this was decided.
    version: i64,
    /// What is absent stays as it is; what is not known is refused.
    settings: Map<String, Value>,
}

fn fields(settings: &Settings) -> Result<Map<String, Value>> {
    match serde_json::to_value(settings).map_err(|e| Error::internal("tenant.settings", e))? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Error::internal("tenant.settings", "settings are an object")),
    }
}

pub(crate) async fn put(State(this): Shared, who: Principal, Body(change): Body<Change>) -> Result<Json<Standing>> {
    this.own(&who).await?;
    let before = standing(&this, &who)?.settings;
    let mut all = fields(&before)?;
    for (name, value) in change.settings {
        match all.get_mut(&name) {
            Some(field) => *field = value,
            None => {
                let text = format!("There is no setting `{name:.60}`.");
                return Err(Error::unprocessable("tenant.settings_unknown", text));
            }
        }
    }
    let after: Settings = serde_json::from_value(Value::Object(all))
        .map_err(|e| Error::unprocessable("tenant.settings_type", format!("This does not fit: {e}")))?;
    choose(&this, &who, before, after, Some(change.version), "").await
}

async fn choose(
    this: &TenantsModule,
    who: &Principal,
    before: Settings,
    after: Settings,
    expected: Option<i64>,
    why: &str,
) -> Result<Json<Standing>> {
    who.require_fresh(this.ctx.clock.now_ms())?;
    let tenants = &this.ctx.tenants;
    let version = tenants
        .change_settings(who.tenant, &after, &who.subject, expected)
        .await?;
    let (old, new) = (fields(&before)?, fields(&after)?);
    let changed = new.iter().filter(|(name, value)| old.get(*name) != Some(value));
    let changed: Vec<String> = changed
        .map(|(name, value)| format!("{name} {} -> {value}", old.get(name).unwrap_or(&Value::Null)))
        .collect();
    let detail = format!("version {version}{why}: {}", changed.join(", "));
    this.note(who, "update", "settings", detail).await?;
    standing(this, who).map(Json)
}

#[derive(Serialize)]
pub(crate) struct Versions {
    versions: Vec<Shown>,
}

#[derive(Serialize)]
struct Shown {
    version: i64,
    at: String,
    actor: String,
    settings: Settings,
}

impl From<Version> for Shown {
    fn from(v: Version) -> Self {
        Self {
            version: v.version,
            at: rfc3339(v.at),
            actor: v.actor,
            settings: v.settings,
        }
    }
}

pub(crate) async fn versions(State(this): Shared, who: Principal) -> Result<Json<Versions>> {
    this.own(&who).await?;
    let all = this.ctx.tenants.versions(who.tenant).await?;
    Ok(Json(Versions {
        versions: all.into_iter().map(Into::into).collect(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Back {
    version: i64,
}

/// The settings of an earlier version, as a new one. Version 0 is how it was before anything was chosen.
pub(crate) async fn rollback(State(this): Shared, who: Principal, Body(back): Body<Back>) -> Result<Json<Standing>> {
    this.own(&who).await?;
    let before = standing(&this, &who)?.settings;
    let unknown = || Error::not_found("tenant.settings_version", "There is no such version.");
    let wanted = if back.version == 0 {
        Settings::default()
    } else {
        let all = this.ctx.tenants.versions(who.tenant).await?;
        all.into_iter()
            .find(|v| v.version == back.version)
            .ok_or_else(unknown)?
            .settings
    };
    let why = format!(", back to {}", back.version);
    choose(&this, &who, before, wanted, None, &why).await
}
