//! Bundles that answer: searchset and history, written by splicing bodies that are JSON already.

use super::{Ask, Caller, Reply};
use crate::{
    Fhir, Issue, Resource,
    bundle::version_of,
    definitions::ResourceDef,
    engine::cursor,
    outcome::{Failure, outcome},
    search::{self, Summary},
    store::{self, Exec, Op, Version},
};
use medtech_kernel::{
    clock,
    error::Kind,
    policy::{self, Reach},
    scope::Letter,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Versions on one page of a history, unless asked otherwise.
const HISTORY: i64 = 50;

struct Writer {
    out: String,
    entries: usize,
}

impl Writer {
    fn new(kind: &str, total: Option<i64>, links: &[(&str, String)], at: i64) -> Self {
        let total = total.map_or(String::new(), |t| format!(r#","total":{t}"#));
        let links: Vec<Value> = links
            .iter()
            .map(|(relation, url)| json!({"relation": relation, "url": url}))
            .collect();
        let out = format!(
            r#"{{"resourceType":"Bundle","type":"{kind}","meta":{{"lastUpdated":"{}"}}{total},"link":{}"#,
            clock::rfc3339(at),
            Value::Array(links)
        );
        Self { out, entries: 0 }
    }

    /// `rest` are further members of the entry, without braces.
    fn entry(&mut self, full_url: &str, resource: Option<&str>, rest: &str) {
        self.out
            .push_str(if self.entries == 0 { r#","entry":[{"# } else { ",{" });
        self.entries += 1;
        if !full_url.is_empty() {
            self.out
                .push_str(&format!(r#""fullUrl":{},"#, Value::String(full_url.to_owned())));
        }
        if let Some(resource) = resource {
            self.out.push_str(r#""resource":"#);
            self.out.push_str(resource);
            self.out.push(',');
        }
        self.out.push_str(rest);
        self.out.push('}');
    }

    fn finish(mut self) -> String {
        self.out.push_str(if self.entries == 0 { "}" } else { "]}" });
        self.out
    }
}

impl Fhir {
    pub(super) async fn searchset(&self, who: &Caller, def: &'static ResourceDef, ask: &Ask) -> Result<Reply, Failure> {
        let pairs = search::url::pairs(&ask.query);
        let names: Vec<&str> = pairs.iter().map(|(k, _)| k.as_str()).collect();
        let mut seen = BTreeSet::new();
        let reply = self.found(who, def, ask, &pairs, &mut seen).await;
        let detail = format!("search {}", names.join(" "));
        self.note(who, def.name.to_owned(), &detail, true, seen.into_iter().collect())
            .await;
        reply
    }

    /// `seen` is told the patients of whom something is shown.
    async fn found(
        &self,
        who: &Caller,
        def: &'static ResourceDef,
        ask: &Ask,
        pairs: &[(String, String)],
        seen: &mut BTreeSet<String>,
    ) -> Result<Reply, Failure> {
        Self::may(who, def, Letter::Search)?;
        let shelf = self.shelf(who.tenant);
        let mut exec = Exec::Db(&self.0.ctx.db, who.tenant);
        let request = search::parse(&mut exec, &shelf, &ask.base, def, &who.access, pairs, ask.strict).await?;
        let now = self.0.ctx.clock.now_ms();
        let place = format!("{}/{}", ask.base, def.name);
        let address = |more: &str| {
            let parts: Vec<&str> = [request.understood.as_str(), more]
                .into_iter()
                .filter(|p| !p.is_empty())
                .collect();
            if parts.is_empty() {
                place.clone()
            } else {
                format!("{place}?{}", parts.join("&"))
            }
        };
        if request.summary == Summary::Count {
            let total = search::count(&mut exec, &request).await?;
            return Ok(Reply::of(
                200,
                Writer::new("searchset", Some(total), &[("self", address(""))], now).finish(),
            ));
        }
        let page = search::page(&mut exec, &request).await?;
        let along = search::included(
            &mut exec,
            &shelf,
            &self.0.base,
            def,
            &who.access,
            &request.includes,
            &page.hits,
        )
        .await?;
        let total = if request.total {
            Some(search::count(&mut exec, &request).await?)
        } else if request.cursor.is_none() && !page.more {
            i64::try_from(page.hits.len()).ok()
        } else {
            None
        };
        let mut links = vec![("self", address(""))];
        if let Some(last) = page.hits.last().filter(|_| page.more) {
            links.push(("next", address(&format!("_cursor={}", cursor(&shelf, last)))));
        }
        let mut out = Writer::new("searchset", total, &links, now);
        let matches = page
            .hits
            .iter()
            .map(|h| (def, &h.stored, r#""search":{"mode":"match"}"#));
        let included = along.iter().map(|(def, s)| (*def, s, r#""search":{"mode":"include"}"#));
        for (def, stored, mode) in matches.chain(included) {
            let resource = Resource::of(
                def,
                stored.id(&shelf, def.name),
                stored.version,
                stored.updated,
                &stored.body,
            );
            seen.extend(self.about(def, &resource.id, &stored.body));
            let url = format!("{}/{}", ask.base, resource.reference());
            let resource = self.redacted(def, &who.access.view(def.name, Letter::Read), resource)?;
            let json = if request.elements.is_empty() {
                resource.into_json()
            } else {
                subset(def, &resource, &request.elements)?
            };
            out.entry(&url, Some(&json), mode);
        }
        if !request.ignored.is_empty() {
            let issue = Issue::new(
                "not-supported",
                "",
                format!("passed over: {}", request.ignored.join(", ")),
            );
            out.entry(
                "",
                Some(&outcome("warning", &[issue]).to_string()),
                r#""search":{"mode":"outcome"}"#,
            );
        }
        Ok(Reply::of(200, out.finish()))
    }

    pub(super) async fn instance_history(
        &self,
        who: &Caller,
        def: &'static ResourceDef,
        id: &str,
        ask: &Ask,
    ) -> Result<Reply, Failure> {
        let shelf = self.shelf(who.tenant);
        let mut exec = Exec::Db(&self.0.ctx.db, who.tenant);
        let unknown = || Failure::not_found(def.name, id);
        Self::may(who, def, Letter::Read)?;
        let page = HistoryPage::of(ask)?;
        let rid = store::resolve(&mut exec, &shelf, def, id).await?.ok_or_else(unknown)?;
        let now = store::current(&mut exec, def, rid).await?.ok_or_else(unknown)?;
        let read = who.access.view(def.name, Letter::Read);
        let seen = self
            .may_see(&mut exec, &shelf, def, &who.access, &read, &now, None)
            .await?;
        if !seen {
            self.note(who, format!("{}/{id}", def.name), "history", false, Vec::new())
                .await;
            return Err(unknown());
        }
        let below = page.below.unwrap_or(i64::MAX);
        let mut versions = store::instance_history(&mut exec, def, rid, below, page.count + 1)
            .await?
            .unwrap_or_default();
        versions.retain(|v| v.stored.updated >= page.since);
        // The page ends where it would if everything were shown, so that what is not shown moves nothing.
        let next = page.next(&versions, |v| v.stored.version);
        let all = versions.len();
        let mut shown = Vec::new();
        for v in versions.into_iter().take(page.size()) {
            if self
                .version_shows(&mut exec, &shelf, def, &who.access, &v.stored)
                .await?
            {
                shown.push(v);
            }
        }
        let about = self.about_all(&shelf, def, &shown);
        self.note(who, format!("{}/{id}", def.name), "history", true, about)
            .await;
        // A total would count what is not shown.
        let whole = shown.len() == all || who.access.view(def.name, Letter::Read).is_everything();
        let total = (page.below.is_none() && page.since == i64::MIN && whole).then_some(now.version);
        self.history(who, def, ask, &format!("{}/{id}", def.name), &shown, total, next)
    }

    pub(super) async fn type_history(
        &self,
        who: &Caller,
        def: &'static ResourceDef,
        ask: &Ask,
    ) -> Result<Reply, Failure> {
        let view = who.access.require(def.name, Letter::Search)?;
        if !view.reach.contains(&Reach::Everything) || !view.narrowed.is_empty() {
            return Err(Failure::one(
                Kind::Forbidden,
                "forbidden",
                "the history of a whole type is for the clinic",
            ));
        }
        let shelf = self.shelf(who.tenant);
        let page = HistoryPage::of(ask)?;
        let read = who.access.view(def.name, Letter::Read);
        let mut exec = Exec::Db(&self.0.ctx.db, who.tenant);
        let versions = store::type_history(
            &mut exec,
            def,
            page.below.unwrap_or(i64::MAX),
            page.since,
            page.count + 1,
        )
        .await?;
        let next = page.next(&versions, |v| v.seq);
        let mut shown = Vec::new();
        for v in versions.into_iter().take(page.size()) {
            let unasked = view.is_everything() || policy::seeded("history");
            let now = match unasked {
                true => None,
                false => store::current(&mut exec, def, v.stored.rid).await?,
            };
            let seen = match &now {
                Some(now) => {
                    self.may_see(&mut exec, &shelf, def, &who.access, &read, now, None)
                        .await?
                }
                None => true,
            };
            if unasked
                || (seen
                    && self
                        .version_shows(&mut exec, &shelf, def, &who.access, &v.stored)
                        .await?)
            {
                shown.push(v);
            }
        }
        let about = self.about_all(&shelf, def, &shown);
        self.note(who, def.name.to_owned(), "history", true, about).await;
        self.history(who, def, ask, def.name, &shown, None, next)
    }

    fn about_all(&self, shelf: &store::Shelf, def: &'static ResourceDef, versions: &[Version]) -> Vec<String> {
        let all: BTreeSet<String> = versions
            .iter()
            .flat_map(|v| self.about(def, &v.id(shelf, def.name), &v.stored.body))
            .collect();
        all.into_iter().collect()
    }

    #[expect(clippy::too_many_arguments, reason = "the two histories differ in these values only")]
    fn history(
        &self,
        who: &Caller,
        def: &'static ResourceDef,
        ask: &Ask,
        place: &str,
        versions: &[Version],
        total: Option<i64>,
        next: Option<(i64, i64)>,
    ) -> Result<Reply, Failure> {
        let shelf = self.shelf(who.tenant);
        let view = who.access.view(def.name, Letter::Read);
        let mut links = vec![("self", format!("{}/{place}/_history", ask.base))];
        if let Some((count, last)) = next {
            links.push((
                "next",
                format!("{}/{place}/_history?_count={count}&_cursor={last}", ask.base),
            ));
        }
        let mut out = Writer::new("history", total, &links, self.0.ctx.clock.now_ms());
        for v in versions {
            let id = v.id(&shelf, def.name);
            let (method, url, status) = match v.op {
                Op::Create => ("POST", def.name.to_owned(), 201),
                Op::Update => ("PUT", format!("{}/{id}", def.name), 200),
                Op::Delete => ("DELETE", format!("{}/{id}", def.name), 204),
            };
            let rest = format!(
                r#""request":{{"method":"{method}","url":"{url}"}},"response":{{"status":"{status}","etag":"W/\"{}\"","lastModified":"{}"}}"#,
                v.stored.version,
                clock::rfc3339(v.stored.updated)
            );
            let body = match v.op {
                Op::Delete => None,
                _ => {
                    let whole = Resource::of(def, id.clone(), v.stored.version, v.stored.updated, &v.stored.body);
                    Some(self.redacted(def, &view, whole)?.into_json())
                }
            };
            out.entry(&format!("{}/{}/{id}", ask.base, def.name), body.as_deref(), &rest);
        }
        Ok(Reply::of(200, out.finish()))
    }
}

struct HistoryPage {
    count: i64,
    below: Option<i64>,
    since: i64,
}

impl HistoryPage {
    fn size(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Size and last key of this page, when there is more behind it.
    fn next(&self, versions: &[Version], key: impl Fn(&Version) -> i64) -> Option<(i64, i64)> {
        let last = versions.get(self.size().checked_sub(1)?)?;
        (versions.len() > self.size()).then(|| (self.count, key(last)))
    }

    fn of(ask: &Ask) -> Result<Self, Failure> {
        let mut page = Self {
            count: HISTORY,
            below: None,
            since: i64::MIN,
        };
        let wrong = |what: &str| Failure::one(Kind::BadRequest, "invalid", format!("{what} is not understood"));
        for (name, value) in search::url::pairs(&ask.query) {
            match name.as_str() {
                "_count" => {
                    page.count = value
                        .parse::<i64>()
                        .ok()
                        .filter(|c| *c > 0)
                        .ok_or_else(|| wrong("_count"))?
                        .min(1000)
                }
                "_cursor" => page.below = Some(version_of(&value).ok_or_else(|| wrong("_cursor"))?),
                "_since" => {
                    page.since = clock::parse_rfc3339(&value.replace(' ', "+")).ok_or_else(|| wrong("_since"))?
                }
                "_format" | "_pretty" => {}
                other if ask.strict => return Err(wrong(other)),
                _ => {}
            }
        }
        Ok(page)
    }
}

/// `_elements`: those asked for, and what must be there; marked as a part.
fn subset(def: &ResourceDef, resource: &Resource, wanted: &[String]) -> Result<String, Failure> {
    let mut value = resource.value()?;
    let ty = crate::definitions::Definitions::get().type_def(def.name);
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| {
            let name = key.trim_start_matches('_');
            let element = ty.and_then(|t| t.fields.get(name).and_then(|(e, _)| t.elements.get(*e)));
            let keep = matches!(key.as_str(), "resourceType" | "id" | "meta") || element.is_some_and(|e| e.required);
            keep || wanted.iter().any(|w| w == name || element.is_some_and(|e| e.name == w))
        });
        if let Some(Value::Object(meta)) = map.get_mut("meta") {
            let tag =
                json!({"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"});
            match meta.get_mut("tag").and_then(Value::as_array_mut) {
                Some(tags) => tags.push(tag),
                None => {
                    meta.insert("tag".to_owned(), json!([tag]));
                }
            }
        }
    }
    Ok(value.to_string())
}
