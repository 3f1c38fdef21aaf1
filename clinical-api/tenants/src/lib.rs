//! Tenants: the clinic at an address, new clinics, and the audit trail for administrators.

mod audit;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use http::StatusCode;
use medtech_kernel::{
    Ctx, Error, Migration, Module, Result, Tenant, TenantId,
    audit::{Entry, write},
    auth::{Principal, Role},
    http::{Body, TenantCtx},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

/// The module. Its table is the kernel's register of tenants.
pub struct TenantsModule {
    ctx: Ctx,
    /// Clinics whose audit trail is being verified.
    verifying: Mutex<HashSet<TenantId>>,
}

impl TenantsModule {
    #[must_use]
    pub fn new(ctx: Ctx) -> Self {
        Self {
            ctx,
            verifying: Mutex::default(),
        }
    }
}

impl Module for TenantsModule {
    const NAME: &'static str = "tenants";

    fn migrations() -> &'static [Migration] {
        &[]
    }

    fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route("/current", get(current))
            .route("/", post(create))
            .route("/audit", get(audit::page))
            .route("/audit/verify", post(audit::verify))
            .with_state(self)
    }
}

#[derive(Serialize)]
struct Current {
    slug: Arc<str>,
    name: Arc<str>,
    zone: Arc<str>,
}

impl From<Tenant> for Current {
    fn from(t: Tenant) -> Self {
        Self {
            slug: t.slug,
            name: t.name,
            zone: t.zone,
        }
    }
}

/// Open to everyone: the sign-in page shows whose it is.
async fn current(TenantCtx(tenant): TenantCtx) -> Json<Current> {
    Json(tenant.into())
}

#[derive(Deserialize)]
struct NewTenant {
    slug: String,
    name: String,
    /// IANA time zone.
    zone: String,
    /// Host names of its own.
    #[serde(default)]
    domains: Vec<String>,
}

#[derive(Serialize)]
struct Created {
    id: TenantId,
    #[serde(flatten)]
    tenant: Current,
}

/// A new clinic. The installation is run by its first clinic: administrators of another one govern their own clinic
/// alone.
async fn create(
    State(this): State<Arc<TenantsModule>>,
    who: Principal,
    Body(new): Body<NewTenant>,
) -> Result<(StatusCode, Json<Created>)> {
    let first = this.ctx.tenants.all().into_iter().next().map(|t| t.id);
    if !who.has(Role::Admin) || first != Some(who.tenant) {
        return Err(Error::forbidden("policy.denied", "You do not have access to this."));
    }
    let name = new.name.trim();
    if name.is_empty() || name.chars().count() > 200 {
        return Err(Error::unprocessable(
            "tenants.name",
            "A clinic's name has 1 to 200 characters.",
        ));
    }
    if this.ctx.tenants.by_slug(&new.slug).is_some() {
        return Err(Error::conflict(
            "tenants.slug_taken",
            "There is a clinic with this short name already.",
        ));
    }
    let host = |d: &String| {
        !d.is_empty() && d.len() <= 253 && d.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
    };
    if new.domains.len() > 20 || !new.domains.iter().all(host) {
        return Err(Error::unprocessable(
            "tenants.domains",
            "Each address is a host name, without port or path; at most 20.",
        ));
    }
    let tenant = this
        .ctx
        .tenants
        .create(&new.slug, name, &new.zone, &new.domains)
        .await?;
    let (id, subject) = (tenant.id, who.subject);
    this.ctx
        .db
        .write(who.tenant, move |tx| {
            Box::pin(async move {
                let target = format!("tenant:{id}");
                write(
                    tx,
                    Entry {
                        actor: &subject,
                        action: "create",
                        target: &target,
                        outcome: "success",
                        detail: "tenant",
                    },
                )
                .await
            })
        })
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(Created {
            id,
            tenant: tenant.into(),
        }),
    ))
}

#[cfg(test)]
mod tests;
