//! Transactions: all entries or none, in the order deletes, creates, updates, reads; references between entries and
//! conditional references resolved (R4 http.html#transaction).

pub(crate) mod rewrite;

use crate::{
    definitions::ResourceDef,
    engine::{Fhir, bad, type_of},
    extract::hash,
    outcome::{Failure, Issue},
    search::{self, Access},
    store::{By, Change, Exec, Shelf, Target, Written},
};
use medtech_kernel::{TenantId, Tx, error::Kind, policy, scope::Letter};
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Entries of one bundle, at most.
pub(crate) const MOST_ENTRIES: usize = 5_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Method {
    Delete,
    Post,
    Put,
    Get,
}

/// One entry, read but not yet resolved.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) method: Method,
    /// `Type`, `Type/id`, with the query behind `?`.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) full_url: Option<String>,
    pub(crate) resource: Option<Value>,
    pub(crate) if_match: Option<i64>,
    pub(crate) if_none_exist: Option<String>,
    pub(crate) if_none_match: Option<String>,
}

/// What becomes of an entry: a change, a resource that was there already, or nothing to write (a read).
enum Planned {
    Change(Box<Change>),
    Existing(&'static ResourceDef, String),
    Read,
}

/// The result of an entry, in the order of the bundle.
pub(crate) enum Done {
    Written(Written),
    /// A conditional create that found its resource.
    Existing(&'static ResourceDef, String),
    /// To be read after the commit.
    Read,
}

/// Reads the entries of a `Bundle`.
pub(crate) fn entries(bundle: &mut Value) -> Result<Vec<Entry>, Failure> {
    let list = match bundle.get_mut("entry").map(Value::take) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(bad("Bundle.entry", "an array is needed")),
    };
    if list.len() > MOST_ENTRIES {
        return Err(Failure::one(
            Kind::TooLarge,
            "too-costly",
            format!("at most {MOST_ENTRIES} entries"),
        ));
    }
    list.into_iter().enumerate().map(|(i, e)| entry(i, e)).collect()
}

fn entry(i: usize, mut value: Value) -> Result<Entry, Failure> {
    let at = |what: &str| format!("Bundle.entry[{i}].{what}");
    let request = value.get_mut("request").map(Value::take).unwrap_or(Value::Null);
    let text = |name: &str| request.get(name).and_then(Value::as_str).map(str::to_owned);
    let method = match text("method").as_deref() {
        Some("GET") => Method::Get,
        Some("POST") => Method::Post,
        Some("PUT") => Method::Put,
        Some("DELETE") => Method::Delete,
        other => {
            return Err(bad(
                &at("request.method"),
                format!(
                    "GET, POST, PUT or DELETE is needed, not {:.20}",
                    other.unwrap_or("nothing")
                ),
            ));
        }
    };
    let url = text("url").ok_or_else(|| bad(&at("request.url"), "this element is required"))?;
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (url, None),
    };
    let if_match = match text("ifMatch") {
        None => None,
        Some(tag) => Some(version_of(&tag).ok_or_else(|| bad(&at("request.ifMatch"), "W/\"version\" is needed"))?),
    };
    let resource = value.get_mut("resource").map(Value::take).filter(|r| !r.is_null());
    if resource.is_none() && matches!(method, Method::Post | Method::Put) {
        return Err(bad(&at("resource"), "this element is required"));
    }
    Ok(Entry {
        method,
        path: path.trim_start_matches('/').to_owned(),
        query,
        full_url: value.get("fullUrl").and_then(Value::as_str).map(str::to_owned),
        resource,
        if_match,
        if_none_exist: text("ifNoneExist"),
        if_none_match: text("ifNoneMatch"),
    })
}

/// The version in an entity tag `W/"3"`.
pub(crate) fn version_of(tag: &str) -> Option<i64> {
    tag.trim().trim_start_matches("W/").trim_matches('"').parse().ok()
}

fn located(i: usize, f: Failure) -> Failure {
    match f {
        Failure::Issues(kind, issues) => {
            let named = |issue: Issue| {
                let place = format!("Bundle.entry[{i}]");
                let expression = if issue.expression.is_empty() {
                    place
                } else {
                    format!("{place}.resource.{}", issue.expression)
                };
                Issue { expression, ..issue }
            };
            // Transactions fail as a whole; 404 of an entry is a fault of the bundle.
            let kind = if kind == Kind::NotFound { Kind::BadRequest } else { kind };
            Failure::Issues(kind, issues.into_iter().map(named).collect())
        }
        other => other,
    }
}

impl Fhir {
    /// Runs a transaction Bundle; answers what became of each entry.
    pub(crate) async fn transact(
        &self,
        tenant: TenantId,
        by: impl Into<By>,
        entries: Vec<Entry>,
    ) -> Result<Vec<Done>, Failure> {
        let by = by.into();
        let shelf = self.shelf(tenant);
        let first = shelf.reserve(&self.0.ctx.db, entries.len().max(1)).await?;
        let looks = entries
            .iter()
            .any(|e| e.if_none_exist.is_some() || (e.query.is_some() && e.method != Method::Get))
            || entries
                .iter()
                .filter_map(|e| e.resource.as_ref())
                .any(rewrite::has_conditional);
        if !looks {
            // Everything is known before the write: the writer gets ready rows.
            let planned = self
                .plan(
                    &mut Exec::Db(&self.0.ctx.db, tenant),
                    &shelf,
                    &by.access,
                    entries,
                    first,
                )
                .await?;
            let (changes, rest) = split(planned);
            let written = if changes.is_empty() {
                Vec::new()
            } else {
                self.commit(tenant, by, "execute", changes).await?
            };
            return Ok(join(written, rest));
        }
        let (fhir, entries) = (self.clone(), Arc::new(entries));
        let work = self.0.ctx.db.write(tenant, move |tx| {
            Box::pin(async move { Ok(fhir.transact_in(tx, by, Vec::clone(&entries), first).await?) })
        });
        Ok(work.await?)
    }

    /// A transaction Bundle inside a transaction; answers the resources written, in the order of the entries.
    pub async fn transaction_in(
        &self,
        tx: &mut Tx,
        actor: &str,
        mut bundle: Value,
    ) -> Result<Vec<crate::Resource>, Failure> {
        let entries = entries(&mut bundle)?;
        let first = self.shelf(tx.tenant()).reserve_in(tx, entries.len().max(1)).await?;
        Ok(written(self.transact_in(tx, actor.into(), entries, first).await?))
    }

    /// The same on its own.
    pub async fn transaction(
        &self,
        tenant: TenantId,
        actor: &str,
        mut bundle: Value,
    ) -> Result<Vec<crate::Resource>, Failure> {
        let entries = entries(&mut bundle)?;
        Ok(written(self.transact(tenant, actor, entries).await?))
    }

    async fn transact_in(&self, tx: &mut Tx, by: By, entries: Vec<Entry>, first: i64) -> Result<Vec<Done>, Failure> {
        let shelf = self.shelf(tx.tenant());
        let mut guards: Vec<i64> = entries
            .iter()
            .flat_map(|e| {
                [&e.if_none_exist, &e.query]
                    .into_iter()
                    .flatten()
                    .map(|q| hash(&["guard", &e.path, q]))
            })
            .collect();
        guards.sort_unstable();
        guards.dedup();
        for guard in &guards {
            hold(tx, *guard).await?;
        }
        let planned = self.plan(&mut Exec::Tx(tx), &shelf, &by.access, entries, first).await?;
        let (changes, rest) = split(planned);
        let written = if changes.is_empty() {
            Vec::new()
        } else {
            self.apply_in(tx, by, "execute", changes).await?
        };
        for guard in guards {
            release(tx, guard).await?;
        }
        Ok(join(written, rest))
    }

    async fn plan(
        &self,
        exec: &mut Exec<'_>,
        shelf: &Shelf,
        access: &Access,
        mut entries: Vec<Entry>,
        first: i64,
    ) -> Result<Vec<Planned>, Failure> {
        let mut places = HashMap::new();
        let mut targets: Vec<(Option<&'static ResourceDef>, Option<Target>, Option<String>)> =
            Vec::with_capacity(entries.len());
        for (i, (entry, rid)) in entries.iter().zip(first..).enumerate() {
            let (def, target, existing) = self
                .target(exec, shelf, access, entry, rid)
                .await
                .map_err(|f| located(i, f))?;
            let id = match (&target, &existing) {
                (Some(Target::New(rid)), _) => Some(shelf.ids.id(*rid)),
                (Some(Target::Id(id)), _) | (None, Some(id)) => Some(id.clone()),
                (None, None) => None,
            };
            if let (Some(def), Some(id), Some(url)) = (def, &id, &entry.full_url) {
                // A relative reference is read against the full address of an entry.
                let own = url.rsplit('/').next().unwrap_or("");
                let relative = format!("{}/{own}", def.name);
                if url.contains("://") && url.ends_with(&format!("/{relative}")) {
                    places.insert(relative, format!("{}/{id}", def.name));
                }
            }
            if let (Some(def), Some(id), Some(url)) = (def, id, &entry.full_url)
                && places.insert(url.clone(), format!("{}/{id}", def.name)).is_some()
            {
                return Err(located(
                    i,
                    Failure::one(Kind::BadRequest, "invalid", "two entries have the same fullUrl"),
                ));
            }
            targets.push((def, target, existing));
        }
        let mut wanted = HashSet::new();
        for (i, entry) in entries.iter_mut().enumerate() {
            if let Some(resource) = &mut entry.resource {
                rewrite::collect(resource, &places, &mut wanted)
                    .map_err(|why| located(i, Failure::one(Kind::BadRequest, "invalid", why)))?;
            }
        }
        // Conditional references: exactly one match each.
        for question in wanted {
            let found = self.one(exec, shelf, access, &question).await?;
            let id = found.1.ok_or_else(|| {
                Failure::one(
                    Kind::PreconditionFailed,
                    "not-found",
                    format!("the conditional reference to {} matches nothing", found.0.name),
                )
            })?;
            places.insert(question, format!("{}/{id}", found.0.name));
        }
        let mut seen = HashSet::new();
        let mut planned = Vec::with_capacity(entries.len());
        for (i, (mut entry, (def, target, existing))) in entries.into_iter().zip(targets).enumerate() {
            if let Some(Target::Id(id)) = &target
                && !seen.insert((def.map(|d| d.number), id.clone()))
            {
                return Err(located(
                    i,
                    Failure::one(Kind::BadRequest, "invalid", "a resource stands twice in the bundle"),
                ));
            }
            planned.push(match (def, target, existing) {
                (Some(def), None, Some(id)) => Planned::Existing(def, id),
                (Some(def), Some(target), _) if entry.method == Method::Delete => Planned::Change(Box::new(Change {
                    def,
                    target,
                    body: None,
                    if_match: entry.if_match,
                    must_be_new: false,
                })),
                (Some(def), Some(target), _) => {
                    let mut resource = entry.resource.take().unwrap_or(Value::Null);
                    rewrite::replace(&mut resource, &places);
                    if matches!(target, Target::New(_)) || entry.query.is_some() {
                        // The server chooses the id, whatever the client wrote.
                        resource.as_object_mut().map(|r| r.remove("id"));
                    }
                    let change = self.prepare(shelf, target, resource, Some(def), entry.if_match);
                    Planned::Change(Box::new(change.map_err(|f| located(i, f))?))
                }
                _ => Planned::Read,
            });
        }
        Ok(planned)
    }

    /// Type, row to write, and the id of what a conditional create found.
    async fn target(
        &self,
        exec: &mut Exec<'_>,
        shelf: &Shelf,
        access: &Access,
        entry: &Entry,
        rid: i64,
    ) -> Result<(Option<&'static ResourceDef>, Option<Target>, Option<String>), Failure> {
        if entry.method == Method::Get {
            return Ok((None, None, None));
        }
        let (ty, id) = match entry.path.split_once('/') {
            Some((ty, id)) => (ty, Some(id)),
            None => (entry.path.as_str(), None),
        };
        let def = type_of(ty)?;
        match (entry.method, id, &entry.query) {
            (Method::Post, None, None) => match &entry.if_none_exist {
                None => Ok((Some(def), Some(Target::New(rid)), None)),
                Some(query) => match self.one(exec, shelf, access, &format!("{ty}?{query}")).await?.1 {
                    Some(id) => Ok((Some(def), None, Some(id))),
                    None => Ok((Some(def), Some(Target::New(rid)), None)),
                },
            },
            (Method::Put, None, Some(query)) => {
                match self.one(exec, shelf, access, &format!("{ty}?{query}")).await?.1 {
                    Some(id) => Ok((Some(def), Some(Target::Id(id)), None)),
                    None => Ok((Some(def), Some(Target::New(rid)), None)),
                }
            }
            (Method::Put | Method::Delete, Some(id), None) => Ok((Some(def), Some(Target::Id(id.to_owned())), None)),
            (Method::Delete, None, Some(_)) => {
                Err(Failure::one(Kind::BadRequest, "not-supported", "conditional delete"))
            }
            _ => Err(Failure::one(
                Kind::BadRequest,
                "invalid",
                "this method does not go with this address",
            )),
        }
    }

    /// The one resource a condition `Type?query` means, if any, of those that the caller may see; several are refused.
    pub(crate) async fn one(
        &self,
        exec: &mut Exec<'_>,
        shelf: &Shelf,
        access: &Access,
        question: &str,
    ) -> Result<(&'static ResourceDef, Option<String>), Failure> {
        let (ty, query) = question.split_once('?').unwrap_or((question, ""));
        let def = type_of(ty)?;
        let pairs = search::url::pairs(query);
        if pairs.is_empty() {
            return Err(Failure::one(
                Kind::PreconditionFailed,
                "invalid",
                "a condition needs at least one parameter",
            ));
        }
        let access = if policy::seeded("conditional") {
            &Access::All
        } else {
            access
        };
        access.require(def.name, Letter::Search)?;
        let mut request = search::parse(exec, shelf, &self.0.base, def, access, &pairs, true).await?;
        request.count = 1;
        let page = search::page(exec, &request).await?;
        if page.more {
            return Err(Failure::one(
                Kind::PreconditionFailed,
                "multiple-matches",
                format!("several {ty} fit the condition"),
            ));
        }
        Ok((def, page.hits.first().map(|h| h.stored.id(shelf, ty))))
    }
}

/// On PostgreSQL two conditional writes of one criterion wait for each other; on SQLite there is one writer anyway.
pub(crate) async fn hold(tx: &mut Tx, guard: i64) -> Result<(), Failure> {
    tx.exec(
        "INSERT INTO fhir_guard (tenant, h) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        &[guard.into()],
    )
    .await?;
    Ok(())
}

pub(crate) async fn release(tx: &mut Tx, guard: i64) -> Result<(), Failure> {
    tx.exec("DELETE FROM fhir_guard WHERE tenant = $1 AND h = $2", &[guard.into()])
        .await?;
    Ok(())
}

/// Changes in FHIR's order of methods, and what remains, each with its place in the bundle.
fn split(planned: Vec<Planned>) -> (Vec<Change>, Vec<Rest>) {
    let mut changes = Vec::new();
    let mut rest = Vec::new();
    for (place, p) in planned.into_iter().enumerate() {
        match p {
            Planned::Change(c) => changes.push((c.body.is_some(), matches!(c.target, Target::Id(_)), place, c)),
            Planned::Existing(def, id) => rest.push(Rest {
                place,
                done: Some(Done::Existing(def, id)),
            }),
            Planned::Read => rest.push(Rest {
                place,
                done: Some(Done::Read),
            }),
        }
    }
    changes.sort_by_key(|(writes, by_id, place, _)| (*writes, *by_id, *place));
    rest.extend(changes.iter().map(|(_, _, place, _)| Rest {
        place: *place,
        done: None,
    }));
    (changes.into_iter().map(|(.., c)| *c).collect(), rest)
}

struct Rest {
    place: usize,
    /// `None`: the next of the changes.
    done: Option<Done>,
}

fn join(written: Vec<Written>, rest: Vec<Rest>) -> Vec<Done> {
    let mut written = written.into_iter();
    let mut all: Vec<(usize, Done)> = rest
        .into_iter()
        .filter_map(|r| Some((r.place, r.done.or_else(|| written.next().map(Done::Written))?)))
        .collect();
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, done)| done).collect()
}

fn written(done: Vec<Done>) -> Vec<crate::Resource> {
    done.into_iter()
        .filter_map(|d| match d {
            Done::Written(w) if w.changed && !w.stored.is_empty() => Some(w.resource()),
            _ => None,
        })
        .collect()
}
