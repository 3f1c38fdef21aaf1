//! The engine's face for modules: resources by value, no HTTP. Each call has a tenant and an actor; the `*_in` forms run
//! inside a caller's own transaction.

use crate::{
    codec,
    definitions::{Definitions, ResourceDef},
    devices, held,
    outcome::{Failure, Issue},
    reads::Reads,
    search::{self, Access, Owned},
    store::{self, Body, By, Change, Exec, Shelf, Target, Written, apply},
    validate,
};
use medtech_kernel::{Ctx, Error, TenantId, Tx, audit, auth::Principal, error, policy, policy::View, scope::Letter};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

/// Where the engine stands under the server's address.
pub const PATH: &str = "/fhir/R4";
/// A write that lost a race is tried so many times.
const ATTEMPTS: usize = 5;

/// The R4 engine. Clones share it.
#[derive(Clone)]
pub struct Fhir(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) ctx: Ctx,
    shelves: RwLock<HashMap<TenantId, Arc<Shelf>>>,
    /// Our own address, whose absolute references are local.
    pub(crate) base: String,
    pub(crate) reads: Reads,
}

/// A resource as served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub resource_type: &'static str,
    pub id: String,
    pub version: i64,
    /// Unix milliseconds.
    pub updated: i64,
    json: String,
}

impl Resource {
    /// `Type/id`
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}/{}", self.resource_type, self.id)
    }

    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Parsed; decimals keep their digits.
    pub fn value(&self) -> Result<Value, Error> {
        serde_json::from_str(&self.json).map_err(|e| Error::internal("fhir.body_not_json", e))
    }

    pub(crate) fn of(def: &'static ResourceDef, id: String, version: i64, updated: i64, stored: &str) -> Self {
        let json = codec::served(def.name, &id, version, updated, stored);
        Self {
            resource_type: def.name,
            id,
            version,
            updated,
            json,
        }
    }

    pub(crate) fn into_json(self) -> String {
        self.json
    }
}

/// What a search found for a module.
#[derive(Debug)]
pub struct Found {
    pub resources: Vec<Resource>,
    /// Resources that came by `_include` and `_revinclude`.
    pub included: Vec<Resource>,
    /// Pass this as `_cursor` for the next page.
    pub next: Option<String>,
}

pub(crate) fn type_of(name: &str) -> Result<&'static ResourceDef, Failure> {
    let unknown = || {
        Failure::one(
            error::Kind::NotFound,
            "not-supported",
            format!("{name:.60} is not a resource type of R4"),
        )
    };
    Definitions::get().resource(name).ok_or_else(unknown)
}

/// The resource types of R4, by name.
#[must_use]
pub fn resource_types() -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Definitions::get().resources().iter().map(|r| r.name).collect();
    names.sort_unstable();
    names
}

impl Fhir {
    /// Needs a running Tokio runtime: the audit of reads is written by a task of its own.
    #[must_use]
    pub fn new(ctx: Ctx) -> Self {
        let origin = ctx
            .config
            .public_url
            .clone()
            .unwrap_or_else(|| format!("http://localhost:{}", ctx.config.http.bind.port()));
        let base = format!("{}{PATH}", origin.trim_end_matches('/'));
        let reads = Reads::start(ctx.db.clone());
        Self(Arc::new(Inner {
            ctx,
            shelves: RwLock::default(),
            base,
            reads,
        }))
    }

    /// What a principal may see, as the policy has it now.
    pub async fn access(&self, who: &Principal) -> Result<Access, Error> {
        let sight = self.0.ctx.policy.sight(who).await?;
        Ok(Access::Sight(sight))
    }

    /// Creates a resource under an id of ours.
    pub async fn create(&self, tenant: TenantId, actor: &str, resource: Value) -> Result<Resource, Failure> {
        let shelf = self.shelf(tenant);
        let target = Target::New(shelf.reserve(&self.0.ctx.db, 1).await?);
        let change = self.prepare(&shelf, target, resource, None, None)?;
        self.commit(tenant, actor, "create", vec![change])
            .await?
            .pop()
            .ok_or_else(nothing)
            .map(Written::resource)
    }

    /// The same inside a transaction.
    pub async fn create_in(&self, tx: &mut Tx, actor: &str, resource: Value) -> Result<Resource, Failure> {
        let shelf = self.shelf(tx.tenant());
        let target = Target::New(shelf.reserve_in(tx, 1).await?);
        let change = self.prepare(&shelf, target, resource, None, None)?;
        self.apply_in(tx, actor, "create", vec![change])
            .await?
            .pop()
            .ok_or_else(nothing)
            .map(Written::resource)
    }

    /// Writes `Type/id`; makes it where it is not there. `if_match` names the version that must be current.
    pub async fn update(
        &self,
        tenant: TenantId,
        actor: &str,
        id: &str,
        resource: Value,
        if_match: Option<i64>,
    ) -> Result<Resource, Failure> {
        let change = self.prepare(&self.shelf(tenant), Target::Id(id.to_owned()), resource, None, if_match)?;
        self.commit(tenant, actor, "update", vec![change])
            .await?
            .pop()
            .ok_or_else(nothing)
            .map(Written::resource)
    }

    /// The same inside a transaction.
    pub async fn update_in(
        &self,
        tx: &mut Tx,
        actor: &str,
        id: &str,
        resource: Value,
        if_match: Option<i64>,
    ) -> Result<Resource, Failure> {
        let change = self.prepare(
            &self.shelf(tx.tenant()),
            Target::Id(id.to_owned()),
            resource,
            None,
            if_match,
        )?;
        self.apply_in(tx, actor, "update", vec![change])
            .await?
            .pop()
            .ok_or_else(nothing)
            .map(Written::resource)
    }

    /// Deletes a resource; its history stays. Deleting what is not there is no error.
    pub async fn delete(&self, tenant: TenantId, actor: &str, ty: &str, id: &str) -> Result<(), Failure> {
        let change = Change {
            def: type_of(ty)?,
            target: Target::Id(id.to_owned()),
            body: None,
            if_match: None,
            must_be_new: false,
        };
        self.commit(tenant, actor, "delete", vec![change]).await.map(|_| ())
    }

    /// The same inside a transaction.
    pub async fn delete_in(&self, tx: &mut Tx, actor: &str, ty: &str, id: &str) -> Result<(), Failure> {
        let change = Change {
            def: type_of(ty)?,
            target: Target::Id(id.to_owned()),
            body: None,
            if_match: None,
            must_be_new: false,
        };
        self.apply_in(tx, actor, "delete", vec![change]).await.map(|_| ())
    }

    /// The current version, as far as `access` reaches: what lies outside of it is not known. Not audited: the module
    /// that reads for a person audits in its own words.
    pub async fn read(&self, tenant: TenantId, access: &Access, ty: &str, id: &str) -> Result<Resource, Failure> {
        let mut exec = Exec::Db(&self.0.ctx.db, tenant);
        Ok(self.read_with(&mut exec, tenant, access, ty, id).await?.0)
    }

    /// The same inside a transaction.
    pub async fn read_in(&self, tx: &mut Tx, access: &Access, ty: &str, id: &str) -> Result<Resource, Failure> {
        let tenant = tx.tenant();
        Ok(self.read_with(&mut Exec::Tx(tx), tenant, access, ty, id).await?.0)
    }

    /// Searches with a query string as after the question mark. Unknown parameters are errors.
    pub async fn search(&self, tenant: TenantId, access: &Access, ty: &str, query: &str) -> Result<Found, Failure> {
        self.search_with(&mut Exec::Db(&self.0.ctx.db, tenant), tenant, access, ty, query)
            .await
    }

    /// The same inside a transaction.
    pub async fn search_in(&self, tx: &mut Tx, access: &Access, ty: &str, query: &str) -> Result<Found, Failure> {
        let tenant = tx.tenant();
        self.search_with(&mut Exec::Tx(tx), tenant, access, ty, query).await
    }

    /// The resource, and whose it is.
    pub(crate) async fn read_with(
        &self,
        exec: &mut Exec<'_>,
        tenant: TenantId,
        access: &Access,
        ty: &str,
        id: &str,
    ) -> Result<(Resource, Vec<String>), Failure> {
        let (def, shelf) = (type_of(ty)?, self.shelf(tenant));
        let unknown = || Failure::not_found(ty, id);
        let rid = store::resolve(exec, &shelf, def, id).await?.ok_or_else(unknown)?;
        let stored = store::current(exec, def, rid).await?.ok_or_else(unknown)?;
        let owned = Owned::of(def, &stored.body, &self.0.base);
        let view = access.view(ty, Letter::Read);
        if !self
            .may_see(exec, &shelf, def, access, &view, &stored, Some(&owned))
            .await?
        {
            return Err(unknown());
        }
        if stored.deleted {
            return Err(Failure::gone(ty, id));
        }
        let whole = Resource::of(def, id.to_owned(), stored.version, stored.updated, &stored.body);
        Ok((self.redacted(def, &view, whole)?, owned.about(def, id)))
    }

    async fn search_with(
        &self,
        exec: &mut Exec<'_>,
        tenant: TenantId,
        access: &Access,
        ty: &str,
        query: &str,
    ) -> Result<Found, Failure> {
        let (def, shelf) = (type_of(ty)?, self.shelf(tenant));
        let pairs = search::url::pairs(query);
        let request = search::parse(exec, &shelf, &self.0.base, def, access, &pairs, true).await?;
        let page = search::page(exec, &request).await?;
        let along = search::included(exec, &shelf, &self.0.base, def, access, &request.includes, &page.hits).await?;
        let next = page.hits.last().filter(|_| page.more).map(|h| cursor(&shelf, h));
        let one = |def: &'static ResourceDef, s: &store::Stored| {
            let whole = Resource::of(def, s.id(&shelf, def.name), s.version, s.updated, &s.body);
            self.redacted(def, &access.view(def.name, Letter::Read), whole)
        };
        Ok(Found {
            resources: page
                .hits
                .iter()
                .map(|h| one(def, &h.stored))
                .collect::<Result<_, _>>()?,
            included: along.iter().map(|(def, s)| one(def, s)).collect::<Result<_, _>>()?,
            next,
        })
    }

    /// Is the resource inside of what the caller may see? `owned` is whose it is, where that is known already. By its current or, once deleted, last known place.
    #[expect(clippy::too_many_arguments, reason = "where to look, who looks, and at what")]
    pub(crate) async fn may_see(
        &self,
        exec: &mut Exec<'_>,
        shelf: &Shelf,
        def: &'static ResourceDef,
        access: &Access,
        view: &View,
        stored: &store::Stored,
        owned: Option<&Owned>,
    ) -> Result<bool, Failure> {
        if view.is_everything() || policy::seeded("read") {
            return Ok(true);
        }
        if view.is_nothing() {
            return Ok(false);
        }
        if stored.deleted {
            let last = store::version(exec, def, stored.rid, stored.version - 1).await?;
            return match last {
                Some(last) if !last.stored.body.is_empty() => {
                    self.shows(exec, shelf, def, access, view, &last.stored).await
                }
                _ => Ok(false),
            };
        }
        search::sees(exec, shelf, &self.0.base, def, access, view, stored, owned).await
    }

    /// Is this one version inside of what the caller may see? A resource may have been about someone else before.
    pub(crate) async fn version_shows(
        &self,
        exec: &mut Exec<'_>,
        shelf: &Shelf,
        def: &'static ResourceDef,
        access: &Access,
        version: &store::Stored,
    ) -> Result<bool, Failure> {
        let view = access.view(def.name, Letter::Read);
        if view.is_everything() || version.body.is_empty() || policy::seeded("version") {
            return Ok(true);
        }
        self.shows(exec, shelf, def, access, &view, version).await
    }

    async fn shows(
        &self,
        exec: &mut Exec<'_>,
        shelf: &Shelf,
        def: &'static ResourceDef,
        access: &Access,
        view: &View,
        version: &store::Stored,
    ) -> Result<bool, Failure> {
        let (body, base) = (version.value()?, &self.0.base);
        Ok(search::holds(view, def, &version.id(shelf, def.name), &body, base)
            && search::version_fits(exec, shelf, base, def, access, view, version, &body).await?)
    }

    /// Can a SMART scope be narrowed by this query (`category=laboratory`)? Else why not, by the parameter's name.
    pub async fn narrows(&self, tenant: TenantId, ty: &str, query: &str) -> Result<(), Failure> {
        let (def, shelf) = (type_of(ty)?, self.shelf(tenant));
        let mut exec = Exec::Db(&self.0.ctx.db, tenant);
        search::understood(&mut exec, &shelf, &self.0.base, def, query).await
    }

    /// The resource as the caller may see it: what is clinical left out for those who see no clinical content.
    pub(crate) fn redacted(
        &self,
        def: &'static ResourceDef,
        view: &View,
        resource: Resource,
    ) -> Result<Resource, Failure> {
        if view.redaction.is_none() || policy::seeded("redaction") {
            return Ok(resource);
        }
        let mut value = resource.value()?;
        let owners = search::owners(def, &resource.id, &def.places().run(&value, &self.0.base));
        let hidden = view.hidden(&owners);
        if let Some(map) = value.as_object_mut() {
            map.retain(|key, _| !hidden.contains(&key.trim_start_matches('_')));
        }
        Ok(Resource {
            json: value.to_string(),
            ..resource
        })
    }

    pub(crate) fn shelf(&self, tenant: TenantId) -> Arc<Shelf> {
        if let Some(shelf) = self
            .0
            .shelves
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&tenant)
        {
            return Arc::clone(shelf);
        }
        let mut shelves = self.0.shelves.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Shelf::new(tenant, &self.0.ctx));
        Arc::clone(shelves.entry(tenant).or_insert_with(new))
    }

    /// Validates a resource and makes it ready to be stored. `expected` is the type the request names.
    pub(crate) fn prepare(
        &self,
        shelf: &Shelf,
        target: Target,
        resource: Value,
        expected: Option<&'static ResourceDef>,
        if_match: Option<i64>,
    ) -> Result<Change, Failure> {
        let issues = validate::resource(&resource);
        if !issues.is_empty() {
            return Err(Failure::Issues(error::Kind::Unprocessable, issues));
        }
        let ty = resource.get("resourceType").and_then(Value::as_str).unwrap_or("");
        let def = type_of(ty)?;
        if let Some(expected) = expected.filter(|e| e.name != def.name) {
            return Err(bad("resourceType", format!("{ty} was sent to {}", expected.name)));
        }
        let client = match &target {
            Target::New(_) => None,
            Target::Id(id) => {
                if !validate::is_id(id) {
                    return Err(bad("id", "an id is letters, digits, - and ., at most 64"));
                }
                if resource.get("id").and_then(Value::as_str).is_some_and(|own| own != id) {
                    return Err(bad("id", "the id in the resource and the id in the address differ"));
                }
                // An id of ours follows from the row number and is not stored.
                Some(id.as_str()).filter(|id| shelf.ids.rid(id).is_none())
            }
        };
        let stored = codec::stored(def.name, &resource, client);
        let found = def.plan().run(&resource, &self.0.base);
        let packed = codec::compress(&stored)?;
        Ok(Change {
            def,
            body: Some(Body { stored, packed, found }),
            target,
            if_match,
            must_be_new: false,
        })
    }

    /// Applies prepared changes in one transaction, with their audit entry.
    pub(crate) async fn commit(
        &self,
        tenant: TenantId,
        by: impl Into<By>,
        action: &'static str,
        changes: Vec<Change>,
    ) -> Result<Vec<Written>, Failure> {
        let (by, changes) = (by.into(), Arc::new(changes));
        let mut tries = 0;
        loop {
            let (fhir, changes, by) = (self.clone(), Arc::clone(&changes), by.clone());
            let done = self
                .0
                .ctx
                .db
                .write(tenant, move |tx| {
                    Box::pin(async move { Ok(fhir.apply_in(tx, by, action, Vec::clone(&changes)).await?) })
                })
                .await;
            tries += 1;
            match done.map_err(Failure::from) {
                Err(Failure::Stale { named: false }) if tries < ATTEMPTS => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn apply_in(
        &self,
        tx: &mut Tx,
        by: impl Into<By>,
        action: &'static str,
        changes: Vec<Change>,
    ) -> Result<Vec<Written>, Failure> {
        let (by, shelf) = (by.into(), self.shelf(tx.tenant()));
        let written = apply(tx, &shelf, &self.0.ctx.bus, &self.0.base, &by, changes).await?;
        let (sessions, bus) = (&self.0.ctx.sessions, &self.0.ctx.bus);
        devices::follow(tx, sessions, bus, &self.0.base, &by, &written).await?;
        audited(tx, &by.subject, action, &written).await?;
        Ok(written)
    }
}

/// An entry for each patient concerned, which names nothing of the others; one without a patient for the rest.
async fn audited(tx: &mut Tx, actor: &str, action: &'static str, written: &[Written]) -> Result<(), Error> {
    let (target, action) = match written {
        [one] => (format!("{}/{}", one.def.name, one.id), action),
        _ => ("Bundle".to_owned(), "execute"),
    };
    // What each patient's entry tells of, and the digests of the versions in the same order.
    let mut told: BTreeMap<Option<&str>, (Vec<String>, Vec<u8>)> = BTreeMap::new();
    for w in written {
        let digest = match w.changed {
            true => Some(tx.vault()?.blind(tx.tenant(), held::VERSION, &w.stored)?),
            false => None,
        };
        let detail = match (written.len(), w.changed) {
            (1, _) => format!("version {}", w.version),
            (_, true) => format!("{} {}/{}/_history/{}", w.op.name(), w.def.name, w.id, w.version),
            (_, false) => format!("{} {}/{}", w.op.name(), w.def.name, w.id),
        };
        let of_none = w.patients.is_empty().then_some(None);
        for patient in w.patients.iter().map(|p| Some(p.as_str())).chain(of_none) {
            let (details, digests) = told.entry(patient).or_default();
            details.push(detail.clone());
            digests.extend(digest.iter().flatten());
        }
    }
    if written.is_empty() {
        told.insert(None, Default::default());
    }
    let told: Vec<_> = told
        .into_iter()
        .map(|(p, (d, digests))| (p, d.join(", "), digests))
        .collect();
    let records = told.iter().map(|(patient, detail, digests)| {
        let record = audit::Record::new(audit::Entry {
            actor,
            action,
            target: &target,
            outcome: "success",
            detail,
        });
        match digests.as_slice() {
            [] => record.about(*patient),
            digests => record.about(*patient).wrote(digests),
        }
    });
    audit::record(tx, records.collect()).await
}

pub(crate) fn cursor(shelf: &Shelf, hit: &search::Hit) -> String {
    format!("{}.{}", hit.place, shelf.ids.id(hit.stored.rid))
}

pub(crate) fn bad(expression: &str, why: impl Into<String>) -> Failure {
    Failure::Issues(error::Kind::BadRequest, vec![Issue::new("value", expression, why)])
}

fn nothing() -> Failure {
    Failure::Kernel(Error::internal("fhir.nothing_written", "a write answered nothing"))
}

impl Written {
    pub(crate) fn resource(self) -> Resource {
        Resource::of(self.def, self.id, self.version, self.updated, &self.stored)
    }
}
