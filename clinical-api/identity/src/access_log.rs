//! "Who saw my record": the audit trail of one patient, in the patient's own words and with nobody else's data.

use crate::{Identity, store};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use medtech_kernel::{
    Error, Result,
    audit::{self, Entry, Found},
    auth::{Principal, Role},
    clock::rfc3339,
    http::require,
    policy::Action,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

const PAGE: i64 = 50;
const LONGEST: i64 = 200;
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
    let ctx = &identity.ctx;
    let own = ctx.policy.objects_of(who.tenant, &who.subject, "self").await?;
    let Some(patient) = own.iter().find_map(|o| o.strip_prefix("patient:")) else {
        return Err(Error::forbidden(
            "identity.no_record",
            "There is no record of yours here.",
        ));
    };
    let mut found = audit::about(&ctx.db, who.tenant, patient, ask.after, limit + 1).await?;
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
                let person = person(&identity, &who, &f.actor, &selves).await?;
                known.insert(f.actor.clone(), person.clone());
                person
            }
        };
        entries.push(Line {
            at: rfc3339(f.at),
            who: person,
            what: types(&f),
            action: f.action,
            outcome: f.outcome,
        });
    }
    let (actor, target) = (who.subject, format!("Patient/{patient}"));
    ctx.db
        .write(who.tenant, move |tx| {
            Box::pin(async move {
                let entry = Entry {
                    actor: &actor,
                    action: "read",
                    target: &target,
                    outcome: "success",
                    detail: "access log",
                };
                audit::write(tx, entry).await
            })
        })
        .await?;
    Ok(Json(Log { entries, next }))
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
