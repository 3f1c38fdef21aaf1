//! From the query string to a [`Request`]: what is known is resolved to numbers, what is not is refused or reported.

use super::{
    Access, Clause, DEFAULT_COUNT, Include, MOST,
    access::{guard, within},
    gate, url, value,
};
use crate::{
    definitions::{Definitions, Kind, Param, ResourceDef},
    outcome::Failure,
    store::{Exec, Shelf},
};
use medtech_kernel::{Error, error, policy, scope::Letter};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// The main date of the type.
    Main,
    Updated,
    Id,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Summary {
    Full,
    Count,
}

/// A search, ready to run.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) def: &'static ResourceDef,
    pub(crate) clauses: Vec<Clause>,
    /// How many of them, from the first, are what the caller may see and not what was asked.
    guards: usize,
    pub(crate) sort: Sort,
    pub(crate) ascending: bool,
    pub(crate) count: usize,
    pub(crate) cursor: Option<(i64, i64)>,
    pub(crate) total: bool,
    pub(crate) summary: Summary,
    pub(crate) includes: Vec<Include>,
    /// Elements asked for; empty: all.
    pub(crate) elements: Vec<String>,
    /// What was understood, as a query string without the cursor.
    pub(crate) understood: String,
    /// Parameters that were passed over.
    pub(crate) ignored: Vec<String>,
}

/// What a value is resolved with.
pub(super) struct Context<'a, 'b> {
    pub(super) exec: &'a mut Exec<'b>,
    pub(super) shelf: &'a Shelf,
    pub(super) base: &'a str,
    pub(super) access: &'a Access,
    /// It is a scope's own query that is read.
    pub(super) narrowing: bool,
}

impl<'a, 'b> Context<'a, 'b> {
    pub(super) fn new(exec: &'a mut Exec<'b>, shelf: &'a Shelf, base: &'a str, access: &'a Access) -> Self {
        Self {
            exec,
            shelf,
            base,
            access,
            narrowing: false,
        }
    }
}

pub(super) fn refuse(what: impl Into<String>) -> Failure {
    Failure::one(error::Kind::BadRequest, "invalid", what)
}

pub(super) fn unsupported(what: impl Into<String>) -> Failure {
    Failure::one(error::Kind::BadRequest, "not-supported", what)
}

/// Reads a query. With `strict` an unknown parameter is an error, else it is passed over and reported.
pub(crate) async fn parse(
    exec: &mut Exec<'_>,
    shelf: &Shelf,
    base: &str,
    def: &'static ResourceDef,
    access: &Access,
    query: &[(String, String)],
    strict: bool,
) -> Result<Request, Failure> {
    let mut request = Request {
        def,
        clauses: Vec::new(),
        guards: 0,
        sort: Sort::Main,
        ascending: false,
        count: DEFAULT_COUNT,
        cursor: None,
        total: false,
        summary: Summary::Full,
        includes: Vec::new(),
        elements: Vec::new(),
        understood: String::new(),
        ignored: Vec::new(),
    };
    let mut context = Context::new(exec, shelf, base, access);
    if !policy::seeded("search") {
        let view = access.view(def.name, Letter::Search);
        request.clauses = guard(&mut context, def, &view).await?;
    }
    request.guards = request.clauses.len();
    for (name, text) in query {
        if name.contains('\0') || text.contains('\0') {
            return Err(refuse("the character U+0000 is not allowed"));
        }
        let understood = match result(&mut request, shelf, name, text)? {
            Some(understood) => understood,
            None => match clause(&mut context, def, name, text, 0).await? {
                Some(clause) => {
                    request.clauses.push(clause);
                    true
                }
                None => false,
            },
        };
        if understood && name != "_cursor" {
            let sign = if request.understood.is_empty() { "" } else { "&" };
            request
                .understood
                .push_str(&format!("{sign}{}={}", url::encode(name), url::encode(text)));
        } else if !understood {
            if strict {
                return Err(unsupported(format!("{} has no search parameter {name:.80}", def.name)));
            }
            request.ignored.push(name.chars().take(80).collect());
        }
    }
    Ok(request)
}

impl Request {
    /// The bug that counts what is not shown.
    pub(super) fn without_guard(&self) -> Self {
        Self {
            clauses: self.clauses.get(self.guards..).unwrap_or_default().to_vec(),
            guards: 0,
            includes: Vec::new(),
            elements: Vec::new(),
            understood: String::new(),
            ignored: Vec::new(),
            ..*self
        }
    }
}

/// The conditions of what the caller may see of another type than the one searched for. A type of which they see nothing
/// is refused by its name alone.
async fn beyond(
    context: &mut Context<'_, '_>,
    def: &'static ResourceDef,
    inner: Clause,
    check: &'static str,
) -> Result<Vec<Clause>, Failure> {
    let mut all = vec![inner];
    if !policy::seeded(check) {
        let view = context.access.require(def.name, Letter::Search)?;
        all.extend(guard(context, def, &view).await?);
    }
    Ok(all)
}

/// A parameter that would tell what is left out: only of the patients whose resources are shown whole.
async fn unhidden(
    context: &mut Context<'_, '_>,
    def: &'static ResourceDef,
    code: &str,
    clause: Clause,
) -> Result<Clause, Failure> {
    let view = context.access.view(def.name, Letter::Search);
    let Some(redaction) = view.redaction.as_ref().filter(|r| r.parameters.contains(&code)) else {
        return Ok(clause);
    };
    if policy::seeded("redacted parameter") {
        return Ok(clause);
    }
    if redaction.whole.is_empty() {
        return Err(Error::forbidden("fhir.denied", "You do not have access to this here.").into());
    }
    let numbers = gate::numbers(context.exec, context.shelf, &view).await?;
    let whole = within(def, &numbers.whole);
    Ok(Clause::All(vec![clause, whole]))
}

/// Parameters that shape the answer. `None`: it is another kind of parameter. `Some(false)`: passed over.
fn result(request: &mut Request, shelf: &Shelf, name: &str, text: &str) -> Result<Option<bool>, Failure> {
    match name {
        "_count" => {
            let count: usize = text.parse().map_err(|_| refuse("_count is a whole number"))?;
            if count == 0 {
                request.summary = Summary::Count;
            } else {
                request.count = count.min(MOST);
            }
        }
        "_sort" => sort(request, text)?,
        "_cursor" => {
            let wrong = || refuse("this page address is not one of ours");
            let (place, id) = text.split_once('.').ok_or_else(wrong)?;
            request.cursor = Some((
                place.parse().map_err(|_| wrong())?,
                shelf.ids.rid(id).ok_or_else(wrong)?,
            ));
        }
        "_total" => match text {
            "accurate" => request.total = true,
            "none" | "estimate" => {}
            _ => return Err(refuse("_total is none, estimate or accurate")),
        },
        "_summary" => match text {
            "count" => request.summary = Summary::Count,
            "false" => {}
            other => return Err(unsupported(format!("_summary={other:.40}"))),
        },
        "_elements" => request
            .elements
            .extend(text.split(',').map(|e| e.trim().to_owned()).filter(|e| !e.is_empty())),
        "_include" | "_revinclude" | "_include:iterate" | "_revinclude:iterate" => {
            request.includes.push(Include::parse(name, text)?);
        }
        // How it is written is settled by the HTTP layer.
        "_format" | "_pretty" => {}
        _ => return Ok(None),
    }
    Ok(Some(true))
}

fn sort(request: &mut Request, text: &str) -> Result<(), Failure> {
    // Every order ends in the row number already, so a second key is only taken where it says nothing new.
    let key = match url::split(text, ',').as_slice() {
        [one] => one.clone(),
        _ => return Err(unsupported("sorting by more than one parameter")),
    };
    let (code, descending) = key.strip_prefix('-').map_or((key.as_str(), false), |code| (code, true));
    request.sort = match code {
        "_lastUpdated" => Sort::Updated,
        "_id" => Sort::Id,
        code if request.def.main_date == Some(code) => Sort::Main,
        other => {
            let main = request.def.main_date.map_or(String::new(), |d| format!("{d}, "));
            return Err(unsupported(format!(
                "sorting by {other:.60}; {} can be sorted by {main}_lastUpdated, _id",
                request.def.name
            )));
        }
    };
    request.ascending = !descending;
    Ok(())
}

/// One condition of a query. `None`: there is no such parameter.
pub(super) async fn clause(
    context: &mut Context<'_, '_>,
    def: &'static ResourceDef,
    name: &str,
    text: &str,
    depth: u8,
) -> Result<Option<Clause>, Failure> {
    if let Some(rest) = name.strip_prefix("_has:") {
        return has(context, def, rest, text, depth).await.map(Some);
    }
    let (head, chained) = match name.split_once('.') {
        Some((head, rest)) => (head, Some(rest)),
        None => (name, None),
    };
    let (code, modifier) = match head.split_once(':') {
        Some((code, modifier)) => (code, Some(modifier)),
        None => (head, None),
    };
    let Some(param) = def.param(code) else { return Ok(None) };
    if !param.supported() {
        return Err(unsupported(format!(
            "{} search by {code} ({})",
            def.name,
            param.kind.name()
        )));
    }
    let found = if let Some(rest) = chained {
        chain(context, def, param, modifier, rest, text, depth).await?
    } else if text.is_empty() {
        return Err(refuse(format!("{head:.60} has no value")));
    } else if modifier == Some("missing") {
        missing(param, text)?
    } else {
        value::clause(context, def, param, modifier, text).await?
    };
    unhidden(context, def, param.code, found).await.map(Some)
}

/// A condition that must be one: what is no search parameter of the type is refused by its name.
pub(super) async fn condition(
    context: &mut Context<'_, '_>,
    def: &'static ResourceDef,
    name: &str,
    text: &str,
) -> Result<Clause, Failure> {
    if name.contains('\0') || text.contains('\0') {
        return Err(refuse("the character U+0000 is not allowed"));
    }
    clause(context, def, name, text, 0)
        .await?
        .ok_or_else(|| unsupported(format!("{} has no search parameter {name:.80}", def.name)))
}

fn missing(param: &Param, text: &str) -> Result<Clause, Failure> {
    let present = match (param.code, param.kind) {
        ("_id" | "_lastUpdated", _) => return Err(unsupported(format!("{}:missing", param.code))),
        (_, Kind::Token) => Clause::Present {
            table: "fhir_tok",
            k: param.k,
        },
        (_, Kind::Reference) => Clause::Present {
            table: "fhir_ref",
            k: param.k,
        },
        (_, Kind::Date) => Clause::Present {
            table: "fhir_dat",
            k: param.k,
        },
        (_, Kind::String) => Clause::Present {
            table: "fhir_str",
            k: param.k,
        },
        (_, Kind::Quantity | Kind::Number) => Clause::Present {
            table: "fhir_qty",
            k: param.k,
        },
        (_, Kind::Uri) => Clause::Present {
            table: "fhir_uri",
            k: param.k,
        },
        _ => return Err(unsupported(format!("{}:missing", param.code))),
    };
    match text {
        "true" => Ok(Clause::Not(Box::new(present))),
        "false" => Ok(present),
        _ => Err(refuse(format!("{}:missing is true or false", param.code))),
    }
}

/// `subject:Patient.name=..`, one level.
async fn chain(
    context: &mut Context<'_, '_>,
    def: &'static ResourceDef,
    param: &Param,
    modifier: Option<&str>,
    rest: &str,
    text: &str,
    depth: u8,
) -> Result<Clause, Failure> {
    if param.kind != Kind::Reference {
        return Err(refuse(format!("{} is no reference and cannot be followed", param.code)));
    }
    if depth > 0 || rest.contains('.') {
        return Err(unsupported("chains of more than one step"));
    }
    let all = Definitions::get();
    let targets: Vec<&'static ResourceDef> = match modifier {
        Some(ty) => vec![
            all.resource(ty)
                .ok_or_else(|| refuse(format!("{ty:.60} is no resource type")))?,
        ],
        None if param.targets.is_empty() => {
            return Err(refuse(format!("name the type: {}:Type.{rest:.40}", param.code)));
        }
        None => param.targets.iter().filter_map(|t| all.resource(t)).collect(),
    };
    let mut found = Vec::new();
    for target in targets {
        // Where the type was not named, those that lack the parameter are passed over.
        match Box::pin(clause(context, target, rest, text, depth + 1)).await {
            Ok(Some(inner)) => match Box::pin(beyond(context, target, inner, "chain")).await {
                Ok(inner) => found.push(Clause::Chain {
                    k: param.k,
                    def: target,
                    inner,
                }),
                Err(e) if modifier.is_some() || e.kind() != error::Kind::Forbidden => return Err(e),
                Err(_) => {}
            },
            Ok(None) => {}
            Err(e) if modifier.is_some() => return Err(e),
            Err(_) => {}
        }
    }
    match found.len() {
        0 => Err(refuse(format!(
            "{}.{rest:.60} leads nowhere from {}",
            param.code, def.name
        ))),
        1 => Ok(found.remove(0)),
        _ => Err(refuse(format!(
            "{}.{rest:.60} could mean several types; name one: {}:Type.{rest:.60}",
            param.code, param.code
        ))),
    }
}

/// `_has:Observation:patient:code=..`
async fn has(
    context: &mut Context<'_, '_>,
    def: &'static ResourceDef,
    rest: &str,
    text: &str,
    depth: u8,
) -> Result<Clause, Failure> {
    let mut parts = rest.splitn(3, ':');
    let (Some(ty), Some(reference), Some(inner)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(refuse("_has is _has:Type:reference:parameter"));
    };
    if depth > 0 || inner.starts_with("_has") {
        return Err(unsupported("_has inside of _has or of a chain"));
    }
    let from = Definitions::get()
        .resource(ty)
        .ok_or_else(|| refuse(format!("{ty:.60} is no resource type")))?;
    let param = from
        .param(reference)
        .filter(|p| p.kind == Kind::Reference && p.supported());
    let param = param.ok_or_else(|| refuse(format!("{ty:.60} has no reference parameter {reference:.60}")))?;
    if !param.targets.is_empty() && !param.targets.contains(&def.name) {
        return Err(refuse(format!(
            "{ty:.60}.{reference:.60} does not lead to {}",
            def.name
        )));
    }
    match Box::pin(clause(context, from, inner, text, depth + 1)).await? {
        Some(inner) => Ok(Clause::Has {
            k: param.k,
            def: from,
            inner: Box::pin(beyond(context, from, inner, "has")).await?,
        }),
        None => Err(refuse(format!("{ty:.60} has no search parameter {inner:.60}"))),
    }
}
