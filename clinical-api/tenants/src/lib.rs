//! Tenants: the clinic at an address; making, closing, limiting and deleting clinics; their settings; their data as one
//! archive; and the audit trail for administrators.
//!
//! [`clinics`] is for the administrators of the installation: those of its first clinic ([`installation`]), who see that
//! other clinics are there and never what is in them. [`settings`] and [`export`] are for a clinic's own administrators.
//! [`house`] is what other parts of the product do for a clinic as a whole, [`deletion`] the end of one.

mod audit;
mod clinics;
mod deletion;
mod export;
pub mod house;
mod settings;

pub use export::age;
pub use house::{FirstAdmin, House, Page, Part, Usage};

use axum::{
    Router,
    routing::{delete, get, post},
};
use medtech_fhir::Fhir;
use medtech_kernel::{
    Ctx, Error, Migration, Module, Result, TenantId,
    audit::{Entry, write},
    auth::Principal,
    db::Script,
    policy::{Action, Resource},
    tenant::Status,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

/// The module. Its register of tenants is the kernel's.
pub struct TenantsModule {
    ctx: Ctx,
    fhir: Fhir,
    house: Arc<dyn House>,
    /// Clinics whose audit trail is being verified.
    verifying: Mutex<HashSet<TenantId>>,
    /// Clinics that are being exported.
    exporting: Mutex<HashSet<TenantId>>,
}

/// How often it is looked whether a clinic's time has come.
const REAP: Duration = Duration::from_secs(60);

impl TenantsModule {
    #[must_use]
    pub fn new(ctx: Ctx, fhir: Fhir, house: Arc<dyn House>) -> Self {
        Self {
            ctx,
            fhir,
            house,
            verifying: Mutex::default(),
            exporting: Mutex::default(),
        }
    }

    /// Follows the register, closes what a closed clinic holds open, ends exports that a stop cut short, and deletes
    /// clinics whose time has come; until `stop` turns true.
    #[must_use]
    pub fn start(self: &Arc<Self>, stop: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
        let (tenants, follow) = (self.ctx.tenants.clone(), stop.clone());
        let (closing, until) = (self.clone(), stop.clone());
        let (reaping, mut reap) = (self.clone(), stop.clone());
        vec![
            tokio::spawn(async move { tenants.follow(follow).await }),
            tokio::spawn(async move { closing.close_the_closed(until).await }),
            tokio::spawn(async move {
                export::end_the_interrupted(&reaping).await;
                let mut every = tokio::time::interval(REAP);
                loop {
                    tokio::select! {
                        _ = every.tick() => {}
                        _ = reap.wait_for(|stop| *stop) => return,
                    }
                    reaping.reap().await;
                    export::remove_old(&reaping).await;
                }
            }),
        ]
    }

    /// In every process: sessions of a clinic that is served no more lose their sockets and their media at once.
    async fn close_the_closed(&self, mut stop: watch::Receiver<bool>) {
        let mut told = self.ctx.tenants.subscribe();
        let mut known: HashMap<TenantId, Status> = HashMap::new();
        loop {
            for tenant in self.ctx.tenants.all() {
                let before = known.insert(tenant.id, tenant.status);
                if tenant.status == Status::Active || before.is_none_or(|b| b != Status::Active) {
                    continue;
                }
                match self.ctx.sessions.close_all(tenant.id).await {
                    Ok(closed) => tracing::info!(tenant = %tenant.id, closed, "a clinic was closed"),
                    Err(e) => tracing::error!(tenant = %tenant.id, error = %e, "a closed clinic's sessions go on"),
                }
            }
            tokio::select! {
                changed = told.changed() => if changed.is_err() { return },
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// The permission `installation`: administrators of the first clinic.
    async fn installation(&self, who: &Principal) -> Result<()> {
        let what = Resource::new("tenant", "*");
        self.ctx.policy.require(who, Action::Administer, &what).await?;
        if self.ctx.tenants.is_home(who.tenant) {
            return Ok(());
        }
        Err(Error::forbidden("policy.denied", "You do not have access to this."))
    }

    /// A clinic's own administrators.
    async fn own(&self, who: &Principal) -> Result<()> {
        let what = Resource::new("tenant", who.tenant.to_string());
        self.ctx.policy.require(who, Action::Administer, &what).await
    }

    async fn note(&self, who: &Principal, action: &'static str, target: &str, detail: String) -> Result<()> {
        let (actor, target) = (who.subject.clone(), target.to_owned());
        self.ctx
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    let entry = Entry {
                        actor: &actor,
                        action,
                        target: &target,
                        outcome: "success",
                        detail: &detail,
                    };
                    write(tx, entry).await
                })
            })
            .await
    }
}

/// The right to do something to a clinic alone, given back when dropped.
struct Turn(Arc<TenantsModule>, TenantId);

impl Turn {
    fn to_export(this: &Arc<TenantsModule>, tenant: TenantId) -> Option<Self> {
        let mut all = this.exporting.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(tenant).then(|| Self(this.clone(), tenant))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0
            .exporting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.1);
    }
}

impl Module for TenantsModule {
    const NAME: &'static str = "tenants";

    fn migrations() -> &'static [Migration] {
        const ALL: &[Migration] = &[Migration {
            module: "tenants",
            number: 1,
            sql: Script::Both(include_str!("../migrations/0001_exports.sql")),
        }];
        ALL
    }

    fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route("/current", get(clinics::current))
            .route("/", get(clinics::list).post(clinics::create))
            .route("/{id}", get(clinics::one).patch(clinics::edit))
            .route("/{id}/suspend", post(clinics::suspend))
            .route("/{id}/resume", post(clinics::resume))
            .route("/{id}/delete", post(clinics::delete))
            .route("/{id}/domains", post(clinics::add_domain))
            .route("/{id}/domains/{host}", delete(clinics::remove_domain))
            .route("/{id}/export", post(export::http::begin))
            .route("/certificates", get(deletion::certificates))
            .route("/exports", get(export::http::list))
            .route("/exports/{id}", get(export::http::one))
            .route("/exports/{id}/archive", get(export::http::download))
            .route("/settings", get(settings::get).put(settings::put))
            .route("/settings/versions", get(settings::versions))
            .route("/settings/rollback", post(settings::rollback))
            .route("/audit", get(audit::page))
            .route("/audit/{seq}/patients", get(audit::patients))
            .route("/audit/verify", post(audit::verify))
            .with_state(self)
    }
}

#[cfg(test)]
mod tests;
