//! `_include` and `_revinclude`: what matches refer to, and what refers to matches.

use super::{
    Access, Hit,
    access::guard,
    parse::{Context, refuse, unsupported},
    sql::Sql,
    url,
};
use crate::{
    definitions::{Definitions, Kind, ResourceDef},
    extract::Reference,
    outcome::Failure,
    store::{Exec, Shelf, Stored, resolve, stored_all},
};
use medtech_kernel::{db, policy, scope::Letter};
use std::collections::{HashMap, HashSet};

/// Resources included with one page, at most.
const MOST_INCLUDED: usize = 1000;

#[derive(Debug)]
pub(crate) struct Include {
    reverse: bool,
    /// Where the reference stands.
    from: &'static ResourceDef,
    /// `None`: any reference.
    param: Option<&'static str>,
    target: Option<&'static str>,
}

impl Include {
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, Failure> {
        if name.ends_with(":iterate") {
            return Err(unsupported(name));
        }
        let parts = url::split(text, ':');
        let mut parts = parts.iter().map(String::as_str);
        let (ty, code, target) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next());
        let all = Definitions::get();
        let from = all
            .resource(ty)
            .ok_or_else(|| refuse(format!("{name}: {ty:.60} is no resource type")))?;
        let param = match code {
            "*" => None,
            code => Some(
                from.param(code)
                    .filter(|p| p.kind == Kind::Reference && p.supported())
                    .ok_or_else(|| refuse(format!("{name}: {ty} has no reference parameter {code:.60}")))?
                    .code,
            ),
        };
        let target = match target {
            None | Some("") => None,
            Some(t) => Some(
                all.resource(t)
                    .ok_or_else(|| refuse(format!("{name}: {t:.60} is no resource type")))?
                    .name,
            ),
        };
        Ok(Self {
            reverse: name == "_revinclude",
            from,
            param,
            target,
        })
    }

    fn ks(&self) -> Vec<i64> {
        let wanted = |p: &&crate::definitions::Param| {
            p.kind == Kind::Reference && p.supported() && self.param.is_none_or(|c| c == p.code)
        };
        self.from.params.iter().filter(wanted).map(|p| p.k).collect()
    }
}

/// What comes along with a page: each resource once, with its type.
pub(crate) async fn included(
    exec: &mut Exec<'_>,
    shelf: &Shelf,
    base: &str,
    def: &'static ResourceDef,
    access: &Access,
    includes: &[Include],
    hits: &[Hit],
) -> Result<Vec<(&'static ResourceDef, Stored)>, Failure> {
    let mut seen: HashSet<i64> = hits.iter().map(|h| h.stored.rid).collect();
    let mut wanted: HashMap<&'static str, Vec<i64>> = HashMap::new();
    let mut add = |ty: &'static str, rid: i64| {
        if seen.len() < MOST_INCLUDED + hits.len() && seen.insert(rid) {
            wanted.entry(ty).or_default().push(rid);
        }
    };
    for include in includes {
        let ks = include.ks();
        if include.reverse {
            if include.target.is_some_and(|t| t != def.name) || hits.is_empty() {
                continue;
            }
            let rids: Vec<i64> = hits.iter().map(|h| h.stored.rid).collect();
            let mut sql = Sql::default();
            let text = format!(
                "SELECT rid FROM fhir_ref WHERE tenant = $1 AND {} AND {} ORDER BY tgt, k, ord DESC, rid LIMIT {}",
                sql.list("tgt", &rids),
                sql.list("k", &ks),
                sql.arg(i64::try_from(MOST_INCLUDED).unwrap_or(i64::MAX)),
            );
            for row in exec.query(db::Sql::built(text), &sql.args).await? {
                add(include.from.name, row.i64(0)?);
            }
        } else if include.from.name == def.name {
            for hit in hits {
                let found = def.plan().run(&hit.stored.value()?, base);
                for (k, to) in found.references {
                    let Reference::Local(ty, id) = to else { continue };
                    if !ks.contains(&k) || include.target.is_some_and(|t| t != ty) {
                        continue;
                    }
                    let Some(target) = Definitions::get().resource(ty) else {
                        continue;
                    };
                    if let Some(rid) = resolve(exec, shelf, target, &id).await? {
                        add(target.name, rid);
                    }
                }
            }
        }
    }
    let mut out = Vec::new();
    let mut types: Vec<_> = wanted.into_iter().collect();
    types.sort_unstable();
    for (ty, rids) in types {
        let Some(def) = Definitions::get().resource(ty) else {
            continue;
        };
        let mut sql = Sql::default();
        let mut text = format!(
            "SELECT r.rid, r.ver, r.upd, r.del, r.ord, r.dict, r.body FROM fhir_res r WHERE r.tenant = $1 AND {} AND r.ty = {} AND r.del = 0",
            sql.list("r.rid", &rids),
            sql.arg(def.number),
        );
        let view = access.view(def.name, Letter::Read);
        if !policy::seeded("include") {
            let mut context = Context::new(&mut *exec, shelf, base, access);
            for clause in guard(&mut context, def, &view).await? {
                text.push_str(&format!(" AND {}", clause.test(&mut sql, "r")));
            }
        }
        let rows = exec.query(db::Sql::built(text), &sql.args).await?;
        let found = stored_all(exec, &rows).await?;
        out.extend(found.into_iter().filter(|s| !s.deleted).map(|s| (def, s)));
    }
    Ok(out)
}
