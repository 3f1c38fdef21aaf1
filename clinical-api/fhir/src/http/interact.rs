//! The interactions of R4: what each method means at each place.

use super::{Ask, Caller, Reply};
use crate::{
    Fhir, Resource,
    bundle::{hold, release, version_of},
    definitions::ResourceDef,
    engine::{bad, type_of},
    extract::hash,
    outcome::Failure,
    reads::Read,
    search::Access,
    store::{self, Change, Exec, Target, Written},
};
use medtech_kernel::{
    Error,
    audit::{Origin, Refusal},
    error::Kind,
    scope::Letter,
};
use serde_json::Value;

impl Fhir {
    /// Answers one request, or one entry of a batch. What was refused stands in the trail.
    pub(crate) async fn interact(&self, who: &Caller, ask: Ask) -> Result<Reply, Failure> {
        let (act, path) = (act(&ask.method), ask.path.clone());
        let answer = self.answer(who, ask).await;
        if let Err(failure) = &answer
            && failure.kind() == Kind::Forbidden
        {
            let mut parts = path.split('/').filter(|p| !p.is_empty());
            let kind = parts
                .next()
                .and_then(|ty| type_of(ty).ok())
                .map_or("Bundle", |def| def.name);
            self.0.ctx.policy.refusals().note(Refusal {
                tenant: who.tenant,
                actor: &who.subject,
                session: Some(who.session),
                act,
                kind: if kind == "Patient" { "patient" } else { kind },
                id: parts.next().unwrap_or("*"),
                why: match failure {
                    Failure::Kernel(e) => e.code,
                    _ => "fhir.element",
                },
            });
        }
        answer
    }

    async fn answer(&self, who: &Caller, mut ask: Ask) -> Result<Reply, Failure> {
        let path = ask.path.clone();
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        let method = ask.method.clone();
        match (method.as_str(), parts.as_slice()) {
            ("POST", []) => self.bundle(who, ask).await,
            ("GET", [ty]) => self.searchset(who, type_of(ty)?, &ask).await,
            ("POST", [ty]) => {
                let def = type_of(ty)?;
                self.http_create(who, def, &mut ask).await
            }
            ("GET", [ty, "_history"]) => self.type_history(who, type_of(ty)?, &ask).await,
            ("GET", [ty, id]) => self.http_read(who, type_of(ty)?, id, &ask).await,
            ("PUT", [ty]) => self.conditional_update(who, type_of(ty)?, &mut ask).await,
            ("PUT", [ty, id]) => self.http_update(who, type_of(ty)?, id, &mut ask).await,
            ("DELETE", [ty, id]) => self.http_delete(who, type_of(ty)?, id, &ask).await,
            ("GET", [ty, id, "_history"]) => self.instance_history(who, type_of(ty)?, id, &ask).await,
            ("GET", [ty, id, "_history", version]) => self.vread(who, type_of(ty)?, id, version).await,
            ("PATCH", _) | ("DELETE", [_]) => Err(Failure::one(
                Kind::BadRequest,
                "not-supported",
                format!("{method} here"),
            )),
            _ => Err(Failure::one(
                Kind::NotFound,
                "not-supported",
                format!("{method:.10} {path:.80} is no interaction of this server"),
            )),
        }
    }

    /// 403 unless the caller may do this with some resource of the type.
    pub(super) fn may(who: &Caller, def: &'static ResourceDef, letter: Letter) -> Result<(), Failure> {
        let view = who.access.require(def.name, letter);
        if let (Err(_), Letter::Create | Letter::Update | Letter::Delete) = (&view, letter)
            && who.access.view(def.name, letter).why == "policy.relationship"
        {
            // Whose it would be decides.
            return Ok(());
        }
        view.map(|_| ())
    }

    /// Whose records a resource as stored belongs to.
    pub(super) fn about(&self, def: &'static ResourceDef, id: &str, stored: &str) -> Vec<String> {
        store::about(def, id, stored, &self.0.base)
    }

    pub(super) async fn note(&self, who: &Caller, target: String, detail: &str, found: bool, patients: Vec<String>) {
        let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
        let (target, detail) = (clean(&target), clean(detail));
        let outcome = if found { "success" } else { "denied" };
        let emergency = |patient: &String| match &who.access {
            Access::Sight(sight) => sight.is_emergency(patient),
            _ => false,
        };
        // What stands on a broken glass alone is marked, and told apart from the rest.
        let (flagged, plain): (Vec<String>, Vec<String>) = patients.into_iter().partition(emergency);
        let mut notes = Vec::new();
        if !plain.is_empty() || flagged.is_empty() {
            notes.push((detail.clone(), plain));
        }
        if !flagged.is_empty() {
            notes.push((format!("{detail}; break-glass"), flagged));
        }
        for (detail, patients) in notes {
            let read = Read {
                tenant: who.tenant,
                actor: who.subject.clone(),
                target: target.clone(),
                detail,
                outcome,
                patients,
                origin: Origin::current(),
            };
            self.0.reads.note(read).await;
        }
    }

    async fn http_read(&self, who: &Caller, def: &'static ResourceDef, id: &str, ask: &Ask) -> Result<Reply, Failure> {
        Self::may(who, def, Letter::Read)?;
        let mut exec = Exec::Db(&self.0.ctx.db, who.tenant);
        let found = self.read_with(&mut exec, who.tenant, &who.access, def.name, id).await;
        let (found, about) = match found {
            Ok((resource, about)) => (Ok(resource), about),
            Err(e) => (Err(e), Vec::new()),
        };
        self.note(who, format!("{}/{id}", def.name), "read", found.is_ok(), about)
            .await;
        let resource = found?;
        if ask.if_none_match.as_deref().and_then(version_of) == Some(resource.version) {
            return Ok(Reply {
                version: Some(resource.version),
                ..Reply::of(304, None)
            });
        }
        Ok(Reply {
            version: Some(resource.version),
            updated: Some(resource.updated),
            ..Reply::of(200, resource.into_json())
        })
    }

    async fn vread(&self, who: &Caller, def: &'static ResourceDef, id: &str, version: &str) -> Result<Reply, Failure> {
        Self::may(who, def, Letter::Read)?;
        let shelf = self.shelf(who.tenant);
        let mut exec = Exec::Db(&self.0.ctx.db, who.tenant);
        let unknown = || Failure::not_found(def.name, id);
        let rid = store::resolve(&mut exec, &shelf, def, id).await?.ok_or_else(unknown)?;
        let now = store::current(&mut exec, def, rid).await?.ok_or_else(unknown)?;
        let view = who.access.view(def.name, Letter::Read);
        let seen = self
            .may_see(&mut exec, &shelf, def, &who.access, &view, &now, None)
            .await?;
        let found = match version.parse() {
            Ok(number) if seen => store::version(&mut exec, def, rid, number).await?,
            _ => None,
        };
        let shown = match &found {
            Some(found) => {
                self.version_shows(&mut exec, &shelf, def, &who.access, &found.stored)
                    .await?
            }
            None => false,
        };
        let found = found.filter(|_| shown);
        let about = found
            .as_ref()
            .map_or(Vec::new(), |f| self.about(def, id, &f.stored.body));
        self.note(who, format!("{}/{id}", def.name), "vread", seen, about).await;
        let found = found.ok_or_else(unknown)?;
        if found.stored.deleted {
            return Err(Failure::gone(def.name, id));
        }
        let resource = Resource::of(
            def,
            id.to_owned(),
            found.stored.version,
            found.stored.updated,
            &found.stored.body,
        );
        let resource = self.redacted(def, &who.access.view(def.name, Letter::Read), resource)?;
        Ok(Reply {
            version: Some(resource.version),
            updated: Some(resource.updated),
            ..Reply::of(200, resource.into_json())
        })
    }

    async fn http_create(&self, who: &Caller, def: &'static ResourceDef, ask: &mut Ask) -> Result<Reply, Failure> {
        Self::may(who, def, Letter::Create)?;
        let shelf = self.shelf(who.tenant);
        let target = Target::New(shelf.reserve(&self.0.ctx.db, 1).await?);
        let mut resource = ask.body.take().unwrap_or(Value::Null);
        // The server chooses the id; a client that wants its own uses PUT.
        resource.as_object_mut().map(|r| r.remove("id"));
        let change = self.prepare(&shelf, target, resource, Some(def), None)?;
        let Some(condition) = ask.if_none_exist.take() else {
            return self
                .commit(who.tenant, who.by(), "create", vec![change])
                .await
                .and_then(|w| written(w, ask));
        };
        let (fhir, by) = (self.clone(), who.by());
        let question = format!("{}?{condition}", def.name);
        let done = self.0.ctx.db.write(who.tenant, move |tx| {
            Box::pin(async move {
                let shelf = fhir.shelf(tx.tenant());
                let guard = hash(&["guard", def.name, &condition]);
                hold(tx, guard).await?;
                let there = fhir.one(&mut Exec::Tx(tx), &shelf, &by.access, &question).await?.1;
                let made = match there {
                    Some(id) => Err(id),
                    None => Ok(fhir.apply_in(tx, by, "create", vec![change]).await?),
                };
                release(tx, guard).await?;
                Ok(made)
            })
        });
        match done.await? {
            Ok(made) => written(made, ask),
            Err(id) => {
                let there = self.read(who.tenant, &who.access, def.name, &id).await?;
                let about = self.about(def, &id, there.json());
                self.note(who, there.reference(), "read", true, about).await;
                let location = Some(format!("{}/{}/_history/{}", ask.base, there.reference(), there.version));
                Ok(Reply {
                    version: Some(there.version),
                    updated: Some(there.updated),
                    location,
                    ..Reply::of(200, there.into_json())
                })
            }
        }
    }

    async fn http_update(
        &self,
        who: &Caller,
        def: &'static ResourceDef,
        id: &str,
        ask: &mut Ask,
    ) -> Result<Reply, Failure> {
        Self::may(who, def, Letter::Update)?;
        let resource = ask.body.take().unwrap_or(Value::Null);
        if resource.get("id").is_none() {
            return Err(bad(
                &format!("{}.id", def.name),
                "an update carries the id of its address",
            ));
        }
        let if_match = tag(ask.if_match.as_deref())?;
        let mut change = self.prepare(
            &self.shelf(who.tenant),
            Target::Id(id.to_owned()),
            resource,
            Some(def),
            if_match,
        )?;
        change.must_be_new = ask.if_none_match.as_deref() == Some("*");
        self.commit(who.tenant, who.by(), "update", vec![change])
            .await
            .and_then(|w| written(w, ask))
    }

    /// `PUT Type?query`: none makes, one replaces, several are refused.
    async fn conditional_update(
        &self,
        who: &Caller,
        def: &'static ResourceDef,
        ask: &mut Ask,
    ) -> Result<Reply, Failure> {
        Self::may(who, def, Letter::Update)?;
        let shelf = self.shelf(who.tenant);
        let new = shelf.reserve(&self.0.ctx.db, 1).await?;
        let mut resource = ask.body.take().unwrap_or(Value::Null);
        let own = resource
            .as_object_mut()
            .and_then(|r| r.remove("id"))
            .and_then(|id| id.as_str().map(str::to_owned));
        let if_match = tag(ask.if_match.as_deref())?;
        let (fhir, by, query) = (self.clone(), who.by(), ask.query.clone());
        let done = self.0.ctx.db.write(who.tenant, move |tx| {
            Box::pin(async move {
                let shelf = fhir.shelf(tx.tenant());
                let guard = hash(&["guard", def.name, &query]);
                hold(tx, guard).await?;
                let found = fhir
                    .one(&mut Exec::Tx(tx), &shelf, &by.access, &format!("{}?{query}", def.name))
                    .await?
                    .1;
                let target = match (found, own) {
                    (Some(id), Some(own)) if id != own => {
                        return Err(bad("id", "the resource that fits has another id").into());
                    }
                    (Some(id), _) | (None, Some(id)) => Target::Id(id),
                    (None, None) => Target::New(new),
                };
                let change = fhir.prepare(&shelf, target, resource, Some(def), if_match)?;
                let made = fhir.apply_in(tx, by, "update", vec![change]).await?;
                release(tx, guard).await?;
                Ok(made)
            })
        });
        written(done.await?, ask)
    }

    async fn http_delete(
        &self,
        who: &Caller,
        def: &'static ResourceDef,
        id: &str,
        ask: &Ask,
    ) -> Result<Reply, Failure> {
        Self::may(who, def, Letter::Delete)?;
        if !crate::validate::is_id(id) {
            return Err(Failure::not_found(def.name, id));
        }
        let if_match = tag(ask.if_match.as_deref())?;
        let change = Change {
            def,
            target: Target::Id(id.to_owned()),
            body: None,
            if_match,
            must_be_new: false,
        };
        let done = self.commit(who.tenant, who.by(), "delete", vec![change]).await?;
        Ok(Reply {
            version: done.first().filter(|w| w.changed).map(|w| w.version),
            ..Reply::of(204, None)
        })
    }
}

fn act(method: &str) -> &'static str {
    match method {
        "GET" => "read",
        "PUT" => "update",
        "DELETE" => "delete",
        _ => "create",
    }
}

/// `If-Match`, if it names a version.
fn tag(text: Option<&str>) -> Result<Option<i64>, Failure> {
    match text {
        None => Ok(None),
        Some(text) => version_of(text)
            .map(Some)
            .ok_or_else(|| Failure::one(Kind::BadRequest, "invalid", "If-Match is W/\"version\"")),
    }
}

fn written(mut done: Vec<Written>, ask: &Ask) -> Result<Reply, Failure> {
    let one = done
        .pop()
        .ok_or_else(|| Error::internal("fhir.nothing_written", "a write answered nothing"))?;
    // A resource that comes back after its deletion is made anew, though its versions go on.
    let status = if one.op == store::Op::Create { 201 } else { 200 };
    let resource = one.resource();
    let location = Some(format!(
        "{}/{}/_history/{}",
        ask.base,
        resource.reference(),
        resource.version
    ));
    Ok(Reply {
        version: Some(resource.version),
        updated: Some(resource.updated),
        location,
        ..Reply::of(status, resource.into_json())
    })
}
