//! The engine as the attached modules use it, in the clinic's own name: plain values, and `None` for what is not there.

use crate::{Access, Fhir, Resource};
use medtech_kernel::{Error, Result, TenantId, Tx, error::Kind};
use serde_json::Value;

impl Fhir {
    /// A resource as it stands; `None` when it never was or is deleted.
    pub async fn find(&self, tenant: TenantId, kind: &str, id: &str) -> Result<Option<Value>> {
        found(self.read(tenant, &Access::All, kind, id).await.map_err(Error::from))
    }

    /// The same for someone: `None` also for what they may not see.
    pub async fn find_for(&self, tenant: TenantId, access: &Access, kind: &str, id: &str) -> Result<Option<Value>> {
        found(self.read(tenant, access, kind, id).await.map_err(Error::from))
    }

    /// The same within a transaction, which sees its own writes.
    pub async fn find_in(&self, tx: &mut Tx, kind: &str, id: &str) -> Result<Option<Value>> {
        found(self.read_in(tx, &Access::All, kind, id).await.map_err(Error::from))
    }

    /// The first page of a search, as values.
    pub async fn list(&self, tenant: TenantId, kind: &str, query: &str) -> Result<Vec<Value>> {
        self.list_for(tenant, &Access::All, kind, query).await
    }

    /// The same for someone: what they may see of it.
    pub async fn list_for(&self, tenant: TenantId, access: &Access, kind: &str, query: &str) -> Result<Vec<Value>> {
        let page = self.search(tenant, access, kind, query).await.map_err(Error::from)?;
        page.resources.iter().map(Resource::value).collect()
    }

    /// Creates the resource, or updates it where it carries an id. Answers its id.
    pub async fn put_in(&self, tx: &mut Tx, actor: &str, resource: Value) -> Result<String> {
        let written = match resource.get("id").and_then(Value::as_str).map(str::to_owned) {
            Some(id) => self.update_in(tx, actor, &id, resource, None).await,
            None => self.create_in(tx, actor, resource).await,
        };
        Ok(written.map_err(Error::from)?.id)
    }
}

fn found(read: Result<Resource>) -> Result<Option<Value>> {
    match read {
        Ok(resource) => resource.value().map(Some),
        Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => Ok(None),
        Err(e) => Err(e),
    }
}
