//! The clinics of the installation, for those who run it.

use crate::{FirstAdmin, TenantsModule, Usage};
use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use medtech_kernel::{
    Error, Result, Tenant, TenantId,
    auth::Principal,
    clock::{Millis, rfc3339},
    http::{Body, TenantCtx},
    tenant::{NewTenant, Quotas, Status},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How long a clinic stands closed before it is deleted.
pub(crate) const GRACE: Millis = 7 * 24 * 3_600_000;

type Shared = State<Arc<TenantsModule>>;

#[derive(Serialize)]
pub(crate) struct Current {
    slug: Arc<str>,
    name: Arc<str>,
    zone: Arc<str>,
    language: String,
    /// Its administrators run the installation.
    home: bool,
}

/// Open to everyone: the sign-in page shows whose it is.
pub(crate) async fn current(State(this): Shared, TenantCtx(tenant): TenantCtx) -> Json<Current> {
    Json(Current {
        home: this.ctx.tenants.is_home(tenant.id),
        language: tenant.settings.language.clone(),
        slug: tenant.slug,
        name: tenant.name,
        zone: tenant.zone,
    })
}

#[derive(Serialize)]
pub(crate) struct Clinic {
    id: TenantId,
    slug: Arc<str>,
    name: Arc<str>,
    zone: Arc<str>,
    status: Status,
    /// The first clinic, which can be neither closed nor deleted.
    home: bool,
    address: String,
    domains: Vec<String>,
    quotas: Quotas,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_at: Option<String>,
}

fn shown(this: &TenantsModule, t: Tenant) -> Clinic {
    Clinic {
        home: this.ctx.tenants.is_home(t.id),
        address: this.ctx.tenants.address_of(&t, &this.ctx.config.public_url()),
        domains: this.ctx.tenants.domains_of(t.id),
        delete_at: t.delete_at.map(rfc3339),
        id: t.id,
        slug: t.slug,
        name: t.name,
        zone: t.zone,
        status: t.status,
        quotas: t.quotas,
    }
}

#[derive(Serialize)]
pub(crate) struct Clinics {
    clinics: Vec<Clinic>,
}

pub(crate) async fn list(State(this): Shared, who: Principal) -> Result<Json<Clinics>> {
    this.installation(&who).await?;
    let clinics = this.ctx.tenants.all().into_iter().map(|t| shown(&this, t)).collect();
    Ok(Json(Clinics { clinics }))
}

#[derive(Serialize)]
pub(crate) struct Detail {
    #[serde(flatten)]
    clinic: Clinic,
    usage: Usage,
}

async fn find(this: &TenantsModule, who: &Principal, id: &str) -> Result<Tenant> {
    this.installation(who).await?;
    let found = id
        .parse()
        .ok()
        .and_then(|n| this.ctx.tenants.by_id(TenantId::from_number(n)));
    found.ok_or_else(|| Error::not_found("tenant.unknown", "There is no such clinic."))
}

/// The moment its present day began: a binary search would be too clever for a clock that moves once a second.
fn day_began(tenant: &Tenant, now: Millis) -> Millis {
    let today = tenant.day(now);
    let mut at = now - now.rem_euclid(900_000);
    while tenant.day(at - 1) == today {
        at -= 900_000;
    }
    at
}

pub(crate) async fn one(State(this): Shared, who: Principal, Path(id): Path<String>) -> Result<Json<Detail>> {
    let tenant = find(&this, &who, &id).await?;
    let today = day_began(&tenant, this.ctx.clock.now_ms());
    let usage = this.house.usage(tenant.id, today).await?;
    Ok(Json(Detail {
        clinic: shown(&this, tenant),
        usage,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct New {
    slug: String,
    name: String,
    /// IANA time zone.
    zone: String,
    /// Host names of its own.
    #[serde(default)]
    domains: Vec<String>,
    #[serde(default)]
    admin: Option<Admin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Admin {
    email: String,
    name: String,
}

#[derive(Serialize)]
pub(crate) struct Created {
    #[serde(flatten)]
    clinic: Clinic,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<FirstAdmin>,
}

/// A new clinic, and its first administrator asked in.
pub(crate) async fn create(
    State(this): Shared,
    who: Principal,
    Body(new): Body<New>,
) -> Result<(StatusCode, Json<Created>)> {
    this.installation(&who).await?;
    who.require_fresh(this.ctx.clock.now_ms())?;
    if let Some(admin) = &new.admin
        && (!admin.email.contains('@') || admin.name.trim().is_empty())
    {
        let text = "The first administrator has a name and an e-mail address.";
        return Err(Error::unprocessable("tenants.admin", text));
    }
    let make = NewTenant {
        slug: new.slug,
        name: new.name,
        zone: new.zone,
        domains: new.domains,
    };
    let tenant = this.ctx.tenants.create_by(make, &who.subject).await?;
    let target = format!("tenant:{}", tenant.id);
    this.note(&who, "create", &target, "tenant".into()).await?;
    let admin = match new.admin {
        None => None,
        Some(admin) => Some(
            this.house
                .first_admin(tenant.id, &who.subject, admin.email, admin.name)
                .await?,
        ),
    };
    let clinic = shown(&this, tenant);
    Ok((StatusCode::CREATED, Json(Created { clinic, admin })))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Edit {
    name: Option<String>,
    zone: Option<String>,
    quotas: Option<Quotas>,
}

pub(crate) async fn edit(
    State(this): Shared,
    who: Principal,
    Path(id): Path<String>,
    Body(edit): Body<Edit>,
) -> Result<Json<Clinic>> {
    let tenant = find(&this, &who, &id).await?;
    if edit.name.is_some() || edit.zone.is_some() {
        let name = edit.name.as_deref().unwrap_or(&tenant.name);
        let zone = edit.zone.as_deref().unwrap_or(&tenant.zone);
        this.ctx.tenants.describe(tenant.id, name, zone, &who.subject).await?;
        let detail = format!("name and zone, {} -> {zone}", tenant.zone);
        this.note(&who, "update", &format!("tenant:{id}"), detail).await?;
    }
    if let Some(quotas) = &edit.quotas {
        this.ctx.tenants.set_quotas(tenant.id, quotas, &who.subject).await?;
        let detail = format!("quotas {:?} -> {quotas:?}", tenant.quotas);
        this.note(&who, "update", &format!("tenant:{id}"), detail).await?;
    }
    find(&this, &who, &id).await.map(|t| Json(shown(&this, t)))
}

async fn set(
    this: &TenantsModule,
    who: &Principal,
    tenant: &Tenant,
    status: Status,
    delete_at: Option<Millis>,
) -> Result<Json<Clinic>> {
    if this.ctx.tenants.is_home(tenant.id) {
        return Err(Error::conflict(
            "tenants.home",
            "The first clinic runs the installation: it can be neither closed nor deleted.",
        ));
    }
    who.require_fresh(this.ctx.clock.now_ms())?;
    let tenants = &this.ctx.tenants;
    tenants.set_state(tenant.id, status, delete_at, &who.subject).await?;
    let detail = format!("{} -> {}", tenant.status.name(), status.name());
    this.note(who, "update", &format!("tenant:{}", tenant.id), detail)
        .await?;
    find(this, who, &tenant.id.to_string())
        .await
        .map(|t| Json(shown(this, t)))
}

pub(crate) async fn suspend(State(this): Shared, who: Principal, Path(id): Path<String>) -> Result<Json<Clinic>> {
    let tenant = find(&this, &who, &id).await?;
    if tenant.status == Status::Deleting {
        return Err(Error::conflict(
            "tenants.deleting",
            "This clinic is about to be deleted.",
        ));
    }
    set(&this, &who, &tenant, Status::Suspended, None).await
}

/// Opens a clinic again, also one that was about to be deleted.
pub(crate) async fn resume(State(this): Shared, who: Principal, Path(id): Path<String>) -> Result<Json<Clinic>> {
    let tenant = find(&this, &who, &id).await?;
    set(&this, &who, &tenant, Status::Active, None).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirmation {
    /// The clinic's short name, typed.
    slug: String,
}

/// Closes a clinic, to be deleted a week from now.
pub(crate) async fn delete(
    State(this): Shared,
    who: Principal,
    Path(id): Path<String>,
    Body(typed): Body<Confirmation>,
) -> Result<Json<Clinic>> {
    let tenant = find(&this, &who, &id).await?;
    if typed.slug != *tenant.slug {
        return Err(Error::unprocessable(
            "tenants.confirmation",
            "This is not the clinic's short name. Nothing was deleted.",
        ));
    }
    let at = tenant.delete_at.unwrap_or(this.ctx.clock.now_ms() + GRACE);
    set(&this, &who, &tenant, Status::Deleting, Some(at)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Domain {
    host: String,
}

pub(crate) async fn add_domain(
    State(this): Shared,
    who: Principal,
    Path(id): Path<String>,
    Body(new): Body<Domain>,
) -> Result<Json<Clinic>> {
    let tenant = find(&this, &who, &id).await?;
    // Whoever has the host name has the clinic's visitors.
    who.require_fresh(this.ctx.clock.now_ms())?;
    if this.ctx.tenants.domains_of(tenant.id).len() >= 20 {
        return Err(Error::unprocessable(
            "tenants.domains",
            "A clinic has at most 20 host names.",
        ));
    }
    let host = this.ctx.tenants.add_domain(tenant.id, &new.host, &who.subject).await?;
    this.note(&who, "update", &format!("tenant:{id}"), format!("domain {host} added"))
        .await?;
    Ok(Json(shown(&this, tenant)))
}

pub(crate) async fn remove_domain(
    State(this): Shared,
    who: Principal,
    Path((id, host)): Path<(String, String)>,
) -> Result<Json<Clinic>> {
    let tenant = find(&this, &who, &id).await?;
    this.ctx.tenants.remove_domain(tenant.id, &host, &who.subject).await?;
    this.note(
        &who,
        "update",
        &format!("tenant:{id}"),
        format!("domain {host} removed"),
    )
    .await?;
    Ok(Json(shown(&this, tenant)))
}
