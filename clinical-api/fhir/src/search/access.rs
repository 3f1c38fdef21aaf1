//! What a caller may see, as conditions of a search. Every type a search touches, be it as result, chain, `_has` or
//! include, carries the conditions of that type, so that nothing can be told from what is not in view.

use super::{
    Clause, fits,
    gate::{self, Numbers, Owned},
    parse::Context,
    url,
};
use crate::{
    definitions::ResourceDef,
    extract::{Extracted, Reference},
    outcome::Failure,
    store,
};
use medtech_kernel::{
    Error, db,
    error::Kind,
    policy::{Barrier, Narrow, Reach, Sight, View, label},
    scope::Letter,
};
use std::{collections::HashMap, sync::Arc};

/// What a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything of the tenant: the clinic itself, in whose name modules act.
    All,
    /// What belongs to one patient, by logical id.
    Compartment(String),
    /// What the policy shows to someone.
    Sight(Arc<Sight>),
    /// Nothing.
    None,
}

impl Access {
    /// What of a type may be reached by a letter of `cruds`.
    #[must_use]
    pub fn view(&self, kind: &str, letter: Letter) -> Arc<View> {
        let view = match self {
            Self::All => View::everything(),
            Self::Compartment(patient) if matches!(letter, Letter::Read | Letter::Search) => View::of(patient),
            Self::Compartment(_) | Self::None => View::default(),
            Self::Sight(sight) => return sight.view(kind, letter),
        };
        Arc::new(view)
    }

    /// The view, or the reason why there is none.
    pub(crate) fn require(&self, kind: &str, letter: Letter) -> Result<Arc<View>, Failure> {
        if let Self::Sight(sight) = self
            && let Some(refusal) = sight.refusal()
        {
            return Err(refusal.into());
        }
        let view = self.view(kind, letter);
        // Nothing for want of a relationship is an empty record, not a closed door.
        if !view.is_nothing() || (view.why == "policy.relationship" && matches!(letter, Letter::Read | Letter::Search))
        {
            return Ok(view);
        }
        Err(match view.why {
            "auth.scope" => Error::forbidden("auth.scope", "The application was not given access to this."),
            _ => Error::forbidden("fhir.denied", "You do not have access to this here."),
        }
        .into())
    }
}

/// Parameters by which a resource is some patient's though R4 places it in no compartment.
pub(crate) fn links(def: &ResourceDef) -> &'static [&'static str] {
    match def.name {
        "Device" => &["patient"],
        _ => &[],
    }
}

/// The patients whose a resource is, by what was found in it.
pub(crate) fn owners(def: &ResourceDef, id: &str, found: &Extracted) -> Vec<String> {
    let mut all: Vec<String> = store::patients(def, found).map(str::to_owned).collect();
    if def.name == "Patient" {
        all.push(id.to_owned());
    }
    for k in links(def).iter().filter_map(|code| def.param(code)).map(|p| p.k) {
        all.extend(found.references.iter().filter_map(|(at, to)| match to {
            Reference::Local("Patient", id) if *at == k => Some(id.clone()),
            _ => None,
        }));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Is a resource, given whole, in the view?
pub(crate) fn holds(view: &View, def: &'static ResourceDef, id: &str, body: &serde_json::Value, base: &str) -> bool {
    let found = def.plan().run(body, base);
    let labels: Vec<&str> = label::of(body).collect();
    view.shows(&owners(def, id, &found), &labels)
}

const CODES: &str = "SELECT id, code FROM fhir_code WHERE tenant = $1 AND code IN (";

/// Is a living resource in the view? Told from its body; what a scope's query narrows, from the index. `access` is whose
/// view it is.
#[expect(clippy::too_many_arguments, reason = "where to look, who looks, and at what")]
pub(crate) async fn sees(
    exec: &mut store::Exec<'_>,
    shelf: &store::Shelf,
    base: &str,
    def: &'static ResourceDef,
    access: &Access,
    view: &View,
    stored: &store::Stored,
    owned: Option<&Owned>,
) -> Result<bool, Failure> {
    if view.is_nothing() {
        return Ok(false);
    }
    if view.narrowed.is_empty() {
        let numbers = gate::numbers(exec, shelf, view).await?;
        let made;
        let owned = match owned {
            Some(owned) => owned,
            None => {
                made = Owned::of(def, &stored.body, base);
                &made
            }
        };
        return owned.is_in(exec, shelf, def, view, &numbers, stored.rid).await;
    }
    let mut context = Context::new(&mut *exec, shelf, base, access);
    let clauses = guard(&mut context, def, view).await?;
    Ok(super::run::sees(exec, stored.rid, &clauses).await?)
}

/// The conditions of a view on resources of a type.
pub(super) async fn guard(
    context: &mut Context<'_, '_>,
    def: &'static ResourceDef,
    view: &View,
) -> Result<Vec<Clause>, Failure> {
    let mut all = Vec::new();
    if view.is_nothing() {
        return Ok(vec![Clause::Nothing]);
    }
    let numbers = gate::numbers(context.exec, context.shelf, view).await?;
    if !view.reach.contains(&Reach::Everything) {
        let mut any = Vec::new();
        for (reach, numbers) in view.reach.iter().zip(&numbers.reach) {
            match reach {
                Reach::Everything => {}
                Reach::Of(_) => any.push(within(def, numbers)),
                Reach::Nobodys => any.push(Clause::Nobodys),
            }
        }
        all.push(match any.len() {
            1 => any.remove(0),
            _ => Clause::Any(any),
        });
    }
    let codes = codes(context, &view.barriers).await?;
    for (barrier, numbers) in view.barriers.iter().zip(&numbers.barriers) {
        all.extend(hides(def, barrier, numbers, &codes).map(|c| Clause::Not(Box::new(c))));
    }
    if !view.narrowed.is_empty() {
        all.push(scoped(context, def, view).await?);
    }
    Ok(all)
}

/// What one narrowed scope leaves. What of its query is not understood fits nothing. It is asked as the caller would ask
/// it: where the way of a chain is closed to them, so it is to their scope.
async fn narrowed(
    context: &mut Context<'_, '_>,
    def: &'static ResourceDef,
    narrow: &Narrow,
) -> Result<Vec<Clause>, Failure> {
    let mut all = Vec::new();
    if let Some(patient) = &narrow.patient {
        let one = gate::numbers_of(context.exec, context.shelf, &[patient.clone()].into()).await?;
        all.push(within(def, &one));
    }
    let mut own = Context {
        exec: &mut *context.exec,
        shelf: context.shelf,
        base: context.base,
        access: context.access,
        narrowing: true,
    };
    for (name, text) in url::pairs(&narrow.query) {
        match super::parse::condition(&mut own, def, &name, &text).await {
            Ok(clause) => all.push(clause),
            Err(Failure::Issues(..)) => return Ok(vec![Clause::Nothing]),
            Err(Failure::Kernel(e)) if e.kind == Kind::Forbidden => return Ok(vec![Clause::Nothing]),
            Err(other) => return Err(other),
        }
    }
    Ok(all)
}

/// The conditions of a view's scopes alone: one of them must fit.
async fn scoped(context: &mut Context<'_, '_>, def: &'static ResourceDef, view: &View) -> Result<Clause, Failure> {
    if context.narrowing {
        // A scope's own chain through a type that is narrowed as well: nothing, before it turns in a circle.
        return Ok(Clause::Nothing);
    }
    let mut any = Vec::new();
    for narrow in &view.narrowed {
        any.push(Clause::All(Box::pin(narrowed(context, def, narrow)).await?));
    }
    Ok(Clause::Any(any))
}

/// Does a living resource fit what scopes leave to a letter? Says nothing of the rest of the view.
pub(crate) async fn fits_scopes(
    exec: &mut store::Exec<'_>,
    shelf: &store::Shelf,
    base: &str,
    def: &'static ResourceDef,
    access: &Access,
    letter: Letter,
    rid: i64,
) -> Result<bool, Failure> {
    let view = access.view(def.name, letter);
    if view.narrowed.is_empty() {
        return Ok(true);
    }
    let mut context = Context::new(&mut *exec, shelf, base, access);
    let clause = scoped(&mut context, def, &view).await?;
    Ok(super::run::sees(exec, rid, &[clause]).await?)
}

/// The same of a resource as it was, or as it will be: by its own search values, and `false` where these do not tell it.
#[expect(clippy::too_many_arguments, reason = "where to look, who looks, and at what")]
pub(crate) async fn version_fits(
    exec: &mut store::Exec<'_>,
    shelf: &store::Shelf,
    base: &str,
    def: &'static ResourceDef,
    access: &Access,
    view: &View,
    version: &store::Stored,
    body: &serde_json::Value,
) -> Result<bool, Failure> {
    if view.narrowed.is_empty() {
        return Ok(true);
    }
    let mut context = Context::new(&mut *exec, shelf, base, access);
    let clause = scoped(&mut context, def, view).await?;
    fits::fits(exec, shelf, base, def, &clause, version, body).await
}

/// Can a scope be narrowed to this? The text says what cannot be searched so.
pub(crate) async fn understood(
    exec: &mut store::Exec<'_>,
    shelf: &store::Shelf,
    base: &str,
    def: &'static ResourceDef,
    query: &str,
) -> Result<(), Failure> {
    let mut context = Context::new(exec, shelf, base, &Access::All);
    for (name, text) in url::pairs(query) {
        super::parse::condition(&mut context, def, &name, &text).await?;
    }
    Ok(())
}

pub(super) fn within(def: &'static ResourceDef, numbers: &Arc<Numbers>) -> Clause {
    match numbers.rids.as_slice() {
        [] => Clause::Nothing,
        [one] if links(def).is_empty() => Clause::Compartment {
            k: def.k(),
            patient: *one,
        },
        _ => Clause::Within {
            def,
            rids: Arc::clone(numbers),
        },
    }
}

async fn codes(context: &mut Context<'_, '_>, barriers: &[Barrier]) -> Result<HashMap<String, Vec<i64>>, Failure> {
    let mut labels: Vec<&String> = barriers.iter().flat_map(|b| &b.labels).collect();
    labels.sort_unstable();
    labels.dedup();
    let mut codes: HashMap<String, Vec<i64>> = HashMap::new();
    if labels.is_empty() {
        return Ok(codes);
    }
    let marks: Vec<String> = (0..labels.len()).map(|i| format!("${}", i + 2)).collect();
    let args: Vec<_> = labels.into_iter().map(Into::into).collect();
    let text = format!("{CODES}{})", marks.join(", "));
    for row in context.exec.query(db::Sql::built(text), &args).await? {
        codes.entry(row.string(1)?).or_default().push(row.i64(0)?);
    }
    Ok(codes)
}

/// What the barrier hides; `None` when it can hide nothing, since nothing of the clinic carries such a label.
fn hides(
    def: &'static ResourceDef,
    barrier: &Barrier,
    numbers: &Arc<Numbers>,
    codes: &HashMap<String, Vec<i64>>,
) -> Option<Clause> {
    let mut all = Vec::new();
    if !barrier.labels.is_empty() {
        let ids: Vec<i64> = barrier
            .labels
            .iter()
            .filter_map(|l| codes.get(l))
            .flatten()
            .copied()
            .collect();
        let k = def.param("_security").map(|p| p.k).filter(|_| !ids.is_empty())?;
        all.push(Clause::Token {
            k,
            codes: ids,
            systems: Vec::new(),
        });
    }
    let among = within(def, numbers);
    all.push(if barrier.except {
        Clause::Not(Box::new(among))
    } else {
        among
    });
    Some(Clause::All(all))
}
