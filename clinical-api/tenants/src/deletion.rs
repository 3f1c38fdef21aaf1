//! The end of a clinic: a week after it was decided, everything of it is deleted, on both engines, and a certificate of
//! that stays in the system's own trail.

use crate::{TenantsModule, export};
use axum::{Json, extract::State};
use medtech_kernel::{
    Error, Result, Tenant, TenantId,
    audit::{self, Filter},
    auth::Principal,
    clock::rfc3339,
    tenant::Status,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// Certificates shown.
const MOST: i64 = 200;

impl TenantsModule {
    /// Deletes every clinic whose time has come. One that fails is tried again at the next look.
    pub async fn reap(&self) {
        let now = self.ctx.clock.now_ms();
        for tenant in self.ctx.tenants.all() {
            if tenant.status != Status::Deleting || tenant.delete_at.is_none_or(|at| at > now) {
                continue;
            }
            match self.erase(&tenant).await {
                Ok(()) => tracing::info!(tenant = %tenant.id, "a clinic was deleted"),
                Err(e) => tracing::error!(tenant = %tenant.id, error = %e, "a clinic could not be deleted yet"),
            }
        }
    }

    async fn erase(&self, tenant: &Tenant) -> Result<()> {
        let id = tenant.id;
        // Without its database, since an earlier attempt was cut short or its file is refused, the rest goes all the same.
        let head = unless_refused(audit::page(&self.ctx.db, id, &Filter::default(), 1).await)?;
        let known = head.is_some();
        let head = head.unwrap_or_default();
        let head = head
            .first()
            .map(|e| (e.seq, e.hash.iter().map(|b| format!("{b:02x}")).collect::<String>()));
        // Files first: they are found by the rows.
        let files = unless_refused(self.house.erase_files(id).await)?;
        for path in [export::dir(&self.ctx, id), self.checkpoints(id)] {
            remove(path).await?;
        }
        let rows: BTreeMap<String, u64> = self
            .ctx
            .db
            .erase_tenant(id)
            .await?
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect();
        // What a backup still holds cannot be read any more.
        self.ctx.vault.shred_tenant(&self.ctx.db, id).await?;
        let certificate = json!({
            "clinic": id,
            "slug": tenant.slug,
            "erased_at": rfc3339(self.ctx.clock.now_ms()),
            // What could not be counted (any more) is not said to have been nothing.
            "rows": known.then(|| rows.values().sum::<u64>()),
            "tables": rows,
            "files": files,
            "audit_entries": known.then(|| head.as_ref().map_or(0, |(seq, _)| *seq)),
            "audit_head_sha256": head.map(|(_, hash)| hash),
        });
        self.ctx.tenants.bury(id, certificate.to_string(), "system").await
    }

    /// What vouches for the trail outside of the database.
    fn checkpoints(&self, id: TenantId) -> PathBuf {
        let dir = self.ctx.config.data_dir.join("audit");
        dir.join(format!("checkpoints-{id}.log"))
    }
}

fn unless_refused<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(e) if e.is_refused_file() => Ok(None),
        found => found.map(Some),
    }
}

async fn remove(path: PathBuf) -> Result<()> {
    let gone = match tokio::fs::metadata(&path).await {
        Ok(meta) if meta.is_dir() => tokio::fs::remove_dir_all(&path).await,
        Ok(_) => tokio::fs::remove_file(&path).await,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    };
    gone.map_err(|e| Error::internal("tenants.erase", e))
}

#[derive(Serialize)]
pub(crate) struct Certificates {
    certificates: Vec<Value>,
}

/// `GET /certificates`: what is left of the clinics that were deleted, the newest first.
pub(crate) async fn certificates(State(this): State<Arc<TenantsModule>>, who: Principal) -> Result<Json<Certificates>> {
    this.installation(&who).await?;
    let filter = Filter {
        action: Some("delete".into()),
        ..Filter::default()
    };
    let found = audit::page(&this.ctx.db, TenantId::SYSTEM, &filter, MOST).await?;
    let certificates = found
        .iter()
        .filter_map(|e| serde_json::from_str(&e.detail).ok())
        .collect();
    Ok(Json(Certificates { certificates }))
}
