//! Batch and transaction over HTTP.

use super::{Ask, Caller, Reply};
use crate::{
    Fhir, Resource,
    bundle::{Done, Entry, Method, entries},
    engine::type_of,
    outcome::Failure,
    store::Op,
};
use medtech_kernel::{clock, error::Kind, scope::Letter};
use serde_json::Value;

impl Fhir {
    pub(super) async fn bundle(&self, who: &Caller, mut ask: Ask) -> Result<Reply, Failure> {
        let mut bundle = ask.body.take().unwrap_or(Value::Null);
        let kind = match (
            bundle.get("resourceType").and_then(Value::as_str),
            bundle.get("type").and_then(Value::as_str),
        ) {
            (Some("Bundle"), Some(kind @ ("transaction" | "batch"))) => kind.to_owned(),
            _ => {
                return Err(Failure::one(
                    Kind::BadRequest,
                    "invalid",
                    "a Bundle of type transaction or batch is needed",
                ));
            }
        };
        let list = entries(&mut bundle)?;
        let out = if kind == "batch" {
            self.batch(who, &ask, list).await
        } else {
            self.http_transaction(who, &ask, list).await?
        };
        Ok(Reply::of(
            200,
            format!(
                r#"{{"resourceType":"Bundle","type":"{kind}-response","entry":[{}]}}"#,
                out.join(",")
            ),
        ))
    }

    /// Each entry on its own; a failure is that entry's answer.
    async fn batch(&self, who: &Caller, ask: &Ask, list: Vec<Entry>) -> Vec<String> {
        let mut out = Vec::with_capacity(list.len());
        for entry in list {
            out.push(match Box::pin(self.alone(who, ask, entry)).await {
                Ok(reply) => answer(&reply),
                Err(failure) => format!(
                    r#"{{"response":{{"status":"{}","outcome":{}}}}}"#,
                    failure.status(),
                    failure.outcome()
                ),
            });
        }
        out
    }

    async fn alone(&self, who: &Caller, ask: &Ask, entry: Entry) -> Result<Reply, Failure> {
        let method = match entry.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
        };
        if entry.path.is_empty() {
            return Err(Failure::one(
                Kind::BadRequest,
                "not-supported",
                "a bundle inside of a bundle",
            ));
        }
        let one = Ask {
            method: method.to_owned(),
            path: entry.path,
            query: entry.query.unwrap_or_default(),
            body: entry.resource,
            if_match: entry.if_match.map(|v| v.to_string()),
            if_none_match: entry.if_none_match,
            if_none_exist: entry.if_none_exist,
            strict: ask.strict,
            base: ask.base.clone(),
        };
        self.interact(who, one).await
    }

    async fn http_transaction(&self, who: &Caller, ask: &Ask, list: Vec<Entry>) -> Result<Vec<String>, Failure> {
        for entry in &list {
            let letter = match entry.method {
                Method::Get => continue,
                Method::Post => Letter::Create,
                Method::Put => Letter::Update,
                Method::Delete => Letter::Delete,
            };
            // What is no type is refused with the rest of what is wrong with the bundle.
            if let Ok(def) = type_of(entry.path.split('/').next().unwrap_or_default()) {
                Self::may(who, def, letter)?;
            }
        }
        let reads: Vec<Option<Entry>> = list
            .iter()
            .map(|e| (e.method == Method::Get).then(|| e.clone()))
            .collect();
        let done = self.transact(who.tenant, who.by(), list).await?;
        let mut out = Vec::with_capacity(done.len());
        for (done, read) in done.into_iter().zip(reads) {
            out.push(match done {
                Done::Written(w) if w.op == Op::Delete => r#"{"response":{"status":"204"}}"#.to_owned(),
                Done::Written(w) => {
                    let status = if w.op == Op::Create { 201 } else { 200 };
                    stored(ask, status, w.resource())
                }
                Done::Existing(def, id) => stored(ask, 200, self.read(who.tenant, &who.access, def.name, &id).await?),
                Done::Read => match read {
                    Some(entry) => answer(&Box::pin(self.alone(who, ask, entry)).await?),
                    None => r#"{"response":{"status":"200"}}"#.to_owned(),
                },
            });
        }
        Ok(out)
    }
}

fn stored(ask: &Ask, status: u16, resource: Resource) -> String {
    let location = Some(format!(
        "{}/{}/_history/{}",
        ask.base,
        resource.reference(),
        resource.version
    ));
    answer(&Reply {
        version: Some(resource.version),
        updated: Some(resource.updated),
        location,
        ..Reply::of(status, resource.into_json())
    })
}

fn answer(reply: &Reply) -> String {
    let body = reply
        .body
        .as_ref()
        .map_or(String::new(), |b| format!(r#""resource":{b},"#));
    let location = reply.location.as_ref().map_or(String::new(), |l| {
        format!(r#","location":{}"#, Value::String(l.clone()))
    });
    let etag = reply
        .version
        .map_or(String::new(), |v| format!(r#","etag":"W/\"{v}\"""#));
    let at = reply
        .updated
        .map_or(String::new(), |u| format!(r#","lastModified":"{}""#, clock::rfc3339(u)));
    format!(
        r#"{{{body}"response":{{"status":"{}"{location}{etag}{at}}}}}"#,
        reply.status
    )
}
