//! "Who saw my record": the audit trail of one patient, in the patient's own words and with nobody else's data.

use crate::{Identity, store};
use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use http::header;
use medtech_kernel::{
    Error, Result,
    audit::{self, Entry, Found},
    auth::{Principal, Role},
    clock::rfc3339,
    http::require,
    policy::Action,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

const PAGE: i64 = 50;
const LONGEST: i64 = 200;
/// Entries of a file, at most: the newest.
const LONGEST_FILE: usize = 10_000;
/// People asked after at once.
const MOST_NAMES: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// `next` of the page before.
    after: Option<i64>,
    limit: Option<i64>,
}

#[derive(Serialize)]
pub(crate) struct Log {
    entries: Vec<Line>,
    /// Pass this as `after` for what is older; null at the end.
    next: Option<i64>,
}

#[derive(Serialize)]
struct Line {
    at: String,
    who: Who,
    /// `read`, `create`, `update`, `delete` or `execute`.
    action: String,
    /// Resource types that were seen or changed.
    what: BTreeSet<String>,
    outcome: String,
    /// Somebody opened the record in an emergency, without being in charge of the patient.
    emergency: bool,
}

#[derive(Serialize, Clone)]
struct Who {
    /// Absent where it was no person of the clinic.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// A role, or `guest`, `device`, `system`.
    role: String,
    /// The patient's own doing.
    you: bool,
}

/// `GET /me/access-log`: newest first.
pub(crate) async fn mine(
    State(identity): State<Arc<Identity>>,
    who: Principal,
    ask: Result<Query<Ask>, QueryRejection>,
) -> Result<Json<Log>> {
    let Query(ask) = ask.map_err(|e| Error::bad("identity.query", format!("This is not understood: {e}")))?;
    let limit = ask.limit.unwrap_or(PAGE);
    if !(1..=LONGEST).contains(&limit) {
        let text = format!("A page has 1 to {LONGEST} entries.");
        return Err(Error::bad("identity.limit", text));
    }
    let patient = own_record(&identity, &who).await?;
    let (entries, next) = lines(&identity, &who, &patient, ask.after, limit).await?;
    looked(&identity, &who, &patient, "access log").await?;
    Ok(Json(Log { entries, next }))
}

/// `GET /me/access-log/{csv|fhir}`: the log as a file, to keep: a table, or a Bundle of AuditEvents.
pub(crate) async fn file(
    State(identity): State<Arc<Identity>>,
    who: Principal,
    Path(format): Path<String>,
) -> Result<Response> {
    let patient = own_record(&identity, &who).await?;
    let (kind, name) = match format.as_str() {
        "csv" => ("text/csv; charset=utf-8", "access-log.csv"),
        "fhir" => ("application/fhir+json", "access-log.json"),
        _ => return Err(Error::not_found("http.not_found", "There is nothing at this address.")),
    };
    let (mut all, mut after) = (Vec::new(), None);
    while all.len() < LONGEST_FILE {
        let (entries, next) = lines(&identity, &who, &patient, after, LONGEST).await?;
        all.extend(entries);
        after = next;
        if after.is_none() {
            break;
        }
    }
    looked(&identity, &who, &patient, "access log, file").await?;
    let body = if format == "csv" {
        csv(&all)
    } else {
        bundle(&all, &patient)
    };
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, body).into_response())
}

async fn own_record(identity: &Identity, who: &Principal) -> Result<String> {
    let own = identity.ctx.policy.objects_of(who.tenant, &who.subject, "self").await?;
    let found = own.iter().find_map(|o| o.strip_prefix("patient:")).map(str::to_owned);
    found.ok_or_else(|| Error::forbidden("identity.no_record", "There is no record of yours here."))
}

/// Some lines, newest first, and where older ones begin.
async fn lines(
    identity: &Identity,
    who: &Principal,
    patient: &str,
    after: Option<i64>,
    limit: i64,
) -> Result<(Vec<Line>, Option<i64>)> {
    let ctx = &identity.ctx;
    let mut found = audit::about(&ctx.db, who.tenant, patient, after, limit + 1).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > wanted;
    found.truncate(wanted);
    let next = found.last().filter(|_| more).map(|f| f.seq);
    let selves = ctx
        .policy
        .subjects_of(who.tenant, &format!("patient:{patient}"), "self")
        .await?;
    let mut known: HashMap<String, Who> = HashMap::new();
    let mut entries = Vec::with_capacity(found.len());
    for f in found {
        let person = match known.get(&f.actor) {
            Some(person) => person.clone(),
            None => {
                let person = person(identity, who, &f.actor, &selves).await?;
                known.insert(f.actor.clone(), person.clone());
                person
            }
        };
        entries.push(Line {
            at: rfc3339(f.at),
            who: person,
            what: types(&f),
            emergency: f.detail.contains("break-glass"),
            action: f.action,
            outcome: f.outcome,
        });
    }
    Ok((entries, next))
}

/// Looking at the log is itself a look at the record.
async fn looked(identity: &Identity, who: &Principal, patient: &str, detail: &'static str) -> Result<()> {
    let (actor, target) = (who.subject.clone(), format!("Patient/{patient}"));
    identity
        .ctx
        .db
        .write(who.tenant, move |tx| {
            Box::pin(async move {
                let entry = Entry {
                    actor: &actor,
                    action: "read",
                    target: &target,
                    outcome: "success",
                    detail,
                };
                audit::write(tx, entry).await
            })
        })
        .await
}

/// RFC 4180. A cell that a table program would take for a formula begins with an apostrophe.
fn csv(lines: &[Line]) -> String {
    let cell = |text: &str| {
        let text = match text.chars().next() {
            Some('=' | '+' | '-' | '@' | '\t' | '\r') => format!("'{text}"),
            _ => text.to_owned(),
        };
        format!("\"{}\"", text.replace('"', "\"\""))
    };
    let mut out = "at,who,role,action,what,outcome,emergency\r\n".to_owned();
    for line in lines {
        let what: Vec<&str> = line.what.iter().map(String::as_str).collect();
        let cells = [
            line.at.as_str(),
            line.who.name.as_deref().unwrap_or_default(),
            &line.who.role,
            &line.action,
            &what.join(" "),
            &line.outcome,
            if line.emergency { "yes" } else { "no" },
        ];
        out.push_str(&cells.map(cell).join(","));
        out.push_str("\r\n");
    }
    out
}

/// A collection of R4 AuditEvents, as far as the patient may know: who, when, what kind, how it ended.
fn bundle(lines: &[Line], patient: &str) -> String {
    let entry = |line: &Line| {
        let what = line
            .what
            .iter()
            .map(|kind| json!({"type": {"system": "http://hl7.org/fhir/resource-types", "code": kind}}));
        let about = json!({"what": {"reference": format!("Patient/{patient}")}, "role": {"system": "http://terminology.hl7.org/CodeSystem/object-role", "code": "1"}});
        let mut event = json!({
            "resourceType": "AuditEvent",
            "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"},
            "action": match line.action.as_str() { "create" => "C", "read" => "R", "update" => "U", "delete" => "D", _ => "E" },
            "recorded": line.at,
            "outcome": if line.outcome == "success" { "0" } else { "4" },
            "agent": [{"who": {"display": line.who.name.as_deref().unwrap_or(&line.who.role)}, "role": [{"text": line.who.role}], "requestor": true}],
            "source": {"observer": {"display": "MedTech"}},
            "entity": std::iter::once(about).chain(what).collect::<Vec<_>>(),
        });
        if line.emergency {
            event["purposeOfEvent"] =
                json!([{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "BTG"}]}]);
        }
        json!({ "resource": event })
    };
    let entries: Vec<Value> = lines.iter().map(entry).collect();
    json!({"resourceType": "Bundle", "type": "collection", "entry": entries}).to_string()
}

async fn person(identity: &Identity, who: &Principal, actor: &str, selves: &[String]) -> Result<Who> {
    let you = actor == who.subject || selves.iter().any(|s| s == actor);
    let (kind, id) = actor.split_once(':').unwrap_or((actor, ""));
    let user = match id.parse() {
        Ok(id) if kind == "user" => store::by_id(&identity.ctx.db, who.tenant, id).await?,
        _ => None,
    };
    Ok(match user {
        Some(user) => Who {
            role: user.roles.first().map_or("user", |r| r.name()).to_owned(),
            name: Some(user.name),
            you,
        },
        None => Who {
            name: None,
            role: match kind {
                "user" | "guest" | "device" => kind,
                _ => "system",
            }
            .to_owned(),
            you,
        },
    })
}

/// The kinds of resource an entry is about. A Bundle's entry lists what it changed as `create Type/id, update Type/id`.
fn types(f: &Found) -> BTreeSet<String> {
    let name = |text: &str| text.split('/').next().unwrap_or(text).to_owned();
    // A visit is an encounter to whoever reads the log.
    if f.target.starts_with("visit:") {
        return BTreeSet::from(["Encounter".to_owned()]);
    }
    let listed = match f.target.as_str() {
        "appointments" => Some("Appointment"),
        "visits" => Some("Encounter"),
        target if target.starts_with("conversation:") => Some("Message"),
        _ => None,
    };
    if let Some(kind) = listed {
        return BTreeSet::from([kind.to_owned()]);
    }
    if f.target == "Bundle" {
        return f
            .detail
            .split(", ")
            .filter_map(|part| part.split(' ').nth(1))
            .map(name)
            .collect();
    }
    BTreeSet::from([name(&f.target)])
}

#[derive(Deserialize)]
pub(crate) struct Of {
    /// Subjects, separated by commas.
    of: String,
}

#[derive(Serialize)]
pub(crate) struct Names {
    people: BTreeMap<String, Person>,
}

#[derive(Serialize)]
struct Person {
    name: String,
    roles: Vec<Role>,
}

/// `GET /names?of=user:…,user:…`: whom the subjects of the audit trail stand for. For administrators.
pub(crate) async fn names(
    State(identity): State<Arc<Identity>>,
    who: Principal,
    ask: Result<Query<Of>, QueryRejection>,
) -> Result<Json<Names>> {
    require(&identity.ctx, &who, Action::Administer, "user", "*").await?;
    let Query(ask) = ask.map_err(|e| Error::bad("identity.query", format!("This is not understood: {e}")))?;
    let subjects: BTreeSet<&str> = ask.of.split(',').collect();
    if subjects.len() > MOST_NAMES {
        let text = format!("At most {MOST_NAMES} people at once.");
        return Err(Error::bad("identity.limit", text));
    }
    let mut people = BTreeMap::new();
    for subject in subjects {
        let Some(id) = subject.strip_prefix("user:").and_then(|id| id.parse().ok()) else {
            continue;
        };
        if let Some(user) = store::by_id(&identity.ctx.db, who.tenant, id).await? {
            let person = Person {
                name: user.name,
                roles: user.roles,
            };
            people.insert(subject.to_owned(), person);
        }
    }
    Ok(Json(Names { people }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_formulas_and_every_quote_is_closed() {
        let line = Line {
            at: "2026-03-02T09:00:00.000Z".into(),
            who: Who {
                name: Some("=SUM(1) \"x\"".into()),
                role: "clinician".into(),
                you: false,
            },
            action: "read".into(),
            what: BTreeSet::from(["Observation".into(), "Patient".into()]),
            outcome: "success".into(),
            emergency: true,
        };
        let table = csv(&[line]);
        assert_eq!(
            table.lines().nth(1),
            Some(
                r#""2026-03-02T09:00:00.000Z","'=SUM(1) ""x""","clinician","read","Observation Patient","success","yes""#
            )
        );
    }
}
