//! Is one resource in a view? Told from its own body and the view's patients as row numbers, which are looked up once and
//! kept with the view. The answer is that of the conditions which [`super::access`] makes of the view for searches.

use super::access::links;
use crate::{
    codec,
    definitions::{Definitions, ResourceDef},
    extract::Reference,
    outcome::Failure,
    store::{self, Exec, Shelf},
};
use medtech_kernel::policy::{Patients, Reach, View, label};
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// Row numbers of patients, in order.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) rids: Vec<i64>,
    text: OnceLock<String>,
}

impl Numbers {
    /// As they stand in a statement: our own, written out; a list of any length, and the same text for the same person.
    pub(super) fn text(&self) -> &str {
        self.text.get_or_init(|| numbers_text(&self.rids))
    }

    fn hold(&self, some: &[i64]) -> bool {
        some.iter().any(|rid| self.rids.binary_search(rid).is_ok())
    }
}

pub(super) fn numbers_text(all: &[i64]) -> String {
    let all: Vec<String> = all.iter().map(i64::to_string).collect();
    if all.is_empty() {
        "NULL".to_owned()
    } else {
        all.join(", ")
    }
}

/// The patients of a view, place by place.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Empty where the reach names nobody.
    pub(super) reach: Vec<Arc<Numbers>>,
    pub(super) barriers: Vec<Arc<Numbers>>,
    /// Those whose resources are shown whole.
    pub(super) whole: Arc<Numbers>,
}

/// The row numbers of a view's patients. Somebody of whom no row is known yet has nothing, and is looked for again.
pub(super) async fn numbers(exec: &mut Exec<'_>, shelf: &Shelf, view: &View) -> Result<Arc<Resolved>, Failure> {
    if let Some(known) = view.beside.get::<Resolved>() {
        return Ok(known);
    }
    Box::pin(look_up(exec, shelf, view)).await
}

async fn look_up(exec: &mut Exec<'_>, shelf: &Shelf, view: &View) -> Result<Arc<Resolved>, Failure> {
    let (mut all, mut whole) = (true, Arc::default());
    let (mut reach, mut barriers) = (Vec::new(), Vec::new());
    for one in &view.reach {
        reach.push(match one {
            Reach::Of(patients) => resolve(exec, shelf, patients, &mut all).await?,
            Reach::Everything | Reach::Nobodys => Arc::default(),
        });
    }
    for barrier in &view.barriers {
        barriers.push(resolve(exec, shelf, &barrier.patients, &mut all).await?);
    }
    if let Some(redaction) = &view.redaction {
        whole = resolve(exec, shelf, &redaction.whole, &mut all).await?;
    }
    let resolved = Arc::new(Resolved { reach, barriers, whole });
    // A number read inside of a transaction may be one that is never given.
    if all && matches!(exec, Exec::Db(..)) {
        view.beside.put(Arc::clone(&resolved));
    }
    Ok(resolved)
}

/// The row numbers of these patients, as far as they are known.
pub(super) async fn numbers_of(
    exec: &mut Exec<'_>,
    shelf: &Shelf,
    patients: &Patients,
) -> Result<Arc<Numbers>, Failure> {
    resolve(exec, shelf, patients, &mut true).await
}

async fn resolve(
    exec: &mut Exec<'_>,
    shelf: &Shelf,
    patients: &Patients,
    all: &mut bool,
) -> Result<Arc<Numbers>, Failure> {
    let Some(def) = Definitions::get().resource("Patient") else {
        return Ok(Arc::default());
    };
    let mut rids = Vec::with_capacity(patients.len());
    for id in patients {
        match store::resolve(exec, shelf, def, id).await? {
            Some(rid) => rids.push(rid),
            None => *all = false,
        }
    }
    rids.sort_unstable();
    Ok(Arc::new(Numbers {
        rids,
        text: OnceLock::new(),
    }))
}

/// Whose a resource is, and its labels, as its body says it.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    /// Logical ids of the patients in whose compartments it is by its references.
    inside: Vec<String>,
    /// Of those it belongs to though R4 places it in no compartment.
    linked: Vec<String>,
    labels: Vec<String>,
}

impl Owned {
    pub(crate) fn of(def: &'static ResourceDef, stored: &str, base: &str) -> Self {
        // Most bodies without either are told apart without parsing them.
        let (places, labelled) = (stored.contains("Patient/"), stored.contains(r#""security""#));
        let wanted = |key: &str| (labelled && key == "meta") || (places && def.places().begins_with(key));
        if !(labelled || places) {
            return Self::default();
        }
        let Some(value) = codec::part(stored, wanted) else {
            return Self::default();
        };
        let found = def.places().run(&value, base);
        let mut owned = Self {
            inside: store::patients(def, &found).map(str::to_owned).collect(),
            linked: Vec::new(),
            labels: label::of(&value).map(str::to_owned).collect(),
        };
        if !links(def).is_empty() {
            owned.linked = linked(def, stored, base);
        }
        owned.inside.sort_unstable();
        owned.inside.dedup();
        owned
    }

    /// The patients whose record it is in, for the audit of a look at it.
    pub(crate) fn about(self, def: &'static ResourceDef, id: &str) -> Vec<String> {
        match def.name {
            "Patient" => vec![id.to_owned()],
            _ => self.inside,
        }
    }

    /// Is the living row `rid`, whose body says this, in the view? Says nothing of [`View::narrowed`].
    pub(super) async fn is_in(
        &self,
        exec: &mut Exec<'_>,
        shelf: &Shelf,
        def: &'static ResourceDef,
        view: &View,
        numbers: &Resolved,
        rid: i64,
    ) -> Result<bool, Failure> {
        let of = Of {
            rid,
            is_patient: def.name == "Patient",
            is_linked: !links(def).is_empty(),
            inside: Box::pin(rows(exec, shelf, &self.inside)).await?,
            linked: Box::pin(rows(exec, shelf, &self.linked)).await?,
        };
        let reached = view.reach.iter().zip(&numbers.reach).any(|(reach, set)| match reach {
            Reach::Everything => true,
            Reach::Of(_) => of.is_among(set),
            Reach::Nobodys => of.inside.is_empty() && !of.is_patient,
        });
        let hidden = view.barriers.iter().zip(&numbers.barriers).any(|(barrier, set)| {
            let labelled = barrier.labels.is_empty() || barrier.labels.iter().any(|l| self.labels.contains(l));
            labelled && of.is_among(set) != barrier.except
        });
        Ok(reached && !hidden)
    }
}

/// Whose a row is, in row numbers.
struct Of {
    rid: i64,
    is_patient: bool,
    is_linked: bool,
    inside: Vec<i64>,
    linked: Vec<i64>,
}

impl Of {
    /// As [`super::access::within`] has it.
    fn is_among(&self, set: &Numbers) -> bool {
        match set.rids.as_slice() {
            _ if self.is_linked => set.hold(&self.linked),
            // Of one patient everything in the compartment, where Patients that link to them are, too.
            [_] => set.hold(&self.inside) || (self.is_patient && set.hold(&[self.rid])),
            _ if self.is_patient => set.hold(&[self.rid]),
            _ => set.hold(&self.inside),
        }
    }
}

async fn rows(exec: &mut Exec<'_>, shelf: &Shelf, ids: &[String]) -> Result<Vec<i64>, Failure> {
    let Some(def) = Definitions::get().resource("Patient").filter(|_| !ids.is_empty()) else {
        return Ok(Vec::new());
    };
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        rows.extend(store::resolve(exec, shelf, def, id).await?);
    }
    Ok(rows)
}

fn linked(def: &'static ResourceDef, stored: &str, base: &str) -> Vec<String> {
    let Ok(value) = serde_json::from_str::<Value>(stored) else {
        return Vec::new();
    };
    let ks: Vec<i64> = links(def)
        .iter()
        .filter_map(|code| def.param(code))
        .map(|p| p.k)
        .collect();
    let found = def.plan().run(&value, base);
    let ours = found.references.into_iter().filter_map(|(k, to)| match to {
        Reference::Local("Patient", id) if ks.contains(&k) => Some(id),
        _ => None,
    });
    ours.collect()
}
