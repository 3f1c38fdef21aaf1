//! Conditions asked of one resource as it stood in a version, which no index row tells any more: its search values are
//! taken out of it again and compared. What leads on to other resources (chains, `_has`) is not told by it.

use super::{
    Clause,
    clause::{Address, Amount, Compare, Text},
};
use crate::{
    definitions::{Definitions, ResourceDef},
    extract::{Extracted, Reference, SEPARATOR},
    index::{Numbers, Rows, clip},
    outcome::Failure,
    store::{Exec, Shelf, Stored, resolve},
};
use medtech_kernel::db;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

const CODES: &str = "SELECT id, code, sys FROM fhir_code WHERE tenant = $1 AND code IN (";

/// `false` also where it cannot be told.
pub(super) async fn fits(
    exec: &mut Exec<'_>,
    shelf: &Shelf,
    base: &str,
    def: &'static ResourceDef,
    clause: &Clause,
    version: &Stored,
    body: &Value,
) -> Result<bool, Failure> {
    let mut found = def.plan().run(body, base);
    let known = known(exec, shelf, &found).await?;
    // Questions about blinded rows are blinded, so the values are as well.
    if let Some(veil) = &shelf.veil {
        veil.over(crate::store::Cover::ALL, def, &mut found)?;
    }
    let rows = Rows::build(def, version.rid, version.updated, &found, &known);
    let this = This {
        rid: version.rid,
        found,
        rows,
    };
    Ok(this.fits(clause) == Some(true))
}

/// Numbers of codes and resources, as far as they have one.
#[derive(Default)]
struct Known {
    codes: HashMap<(String, String), i64>,
    targets: HashMap<(&'static str, String), i64>,
}

impl Numbers for Known {
    fn code(&self, code: &str, system: &str) -> i64 {
        let key = (clip(code).to_owned(), clip(system).to_owned());
        self.codes.get(&key).copied().unwrap_or(NOBODY)
    }

    fn target(&self, ty: &'static str, id: &str) -> i64 {
        self.targets.get(&(ty, id.to_owned())).copied().unwrap_or(NOBODY)
    }
}

/// The number of nothing.
const NOBODY: i64 = i64::MAX;

async fn known(exec: &mut Exec<'_>, shelf: &Shelf, found: &Extracted) -> Result<Known, Failure> {
    let mut known = Known::default();
    let units = found.quantities.iter().filter_map(|(_, unit, _)| unit.as_ref());
    let codes: BTreeSet<&str> = (found.codes.iter().map(|(_, code, _)| clip(code)))
        .chain(units.map(|(code, _)| clip(code)))
        .collect();
    let codes: Vec<&str> = codes.into_iter().collect();
    for some in codes.chunks(500) {
        let marks: Vec<String> = (0..some.len()).map(|i| format!("${}", i + 2)).collect();
        let args: Vec<_> = some.iter().map(|c| (*c).into()).collect();
        let text = format!("{CODES}{})", marks.join(", "));
        for row in exec.query(db::Sql::built(text), &args).await? {
            known.codes.insert((row.string(1)?, row.string(2)?), row.i64(0)?);
        }
    }
    for (_, to) in &found.references {
        let Reference::Local(ty, id) = to else { continue };
        let Some(def) = Definitions::get().resource(ty) else {
            continue;
        };
        if let Some(rid) = resolve(exec, shelf, def, id).await? {
            known.targets.insert((*ty, id.clone()), rid);
        }
    }
    Ok(known)
}

struct This {
    rid: i64,
    found: Extracted,
    rows: Rows,
}

impl This {
    /// `None`: its own values do not tell.
    fn fits(&self, clause: &Clause) -> Option<bool> {
        Some(match clause {
            Clause::Token { k, codes, systems } => {
                let of_system =
                    |(at, _, system): &(i64, String, String)| at == k && systems.iter().any(|s| s == clip(system));
                self.rows.tok.iter().any(|(at, code)| at == k && codes.contains(code))
                    || self.found.codes.iter().any(of_system)
            }
            Clause::Reference { k, targets, .. } => {
                self.rows.refs.iter().any(|(to, at)| at == k && targets.contains(to))
            }
            Clause::Date { k, any, .. } => (self.rows.dat.iter())
                .filter(|(at, ..)| at == k)
                .any(|(_, lo, hi)| any.iter().any(|(c, s, e)| date(*c, *s, *e, *lo, *hi))),
            Clause::String { k, any } => {
                let of = |row: &String| any.iter().any(|t| text(t, row));
                self.rows.strings.iter().any(|(at, row)| at == k && of(row))
            }
            Clause::Quantity { k, any } => (self.rows.qty.iter())
                .filter(|(at, ..)| at == k)
                .any(|(_, unit, v)| any.iter().any(|a| amount(a, *unit, *v))),
            Clause::Uri { k, any } => {
                let of = |uri: &String| any.iter().any(|a| address(a, uri));
                self.rows.uri.iter().any(|(at, uri)| at == k && of(uri))
            }
            Clause::Ids { rids, .. } => rids.contains(&self.rid),
            Clause::Compartment { patient, .. } => self.rows.pc.iter().any(|(p, _, code)| p == patient && *code == 0),
            Clause::Nobodys => self.rows.pc.is_empty(),
            Clause::Present { table, k } => match *table {
                "fhir_tok" => self.rows.tok.iter().any(|(at, _)| at == k),
                "fhir_ref" => self.rows.refs.iter().any(|(_, at)| at == k),
                "fhir_dat" => self.rows.dat.iter().any(|(at, ..)| at == k),
                "fhir_str" => self.rows.strings.iter().any(|(at, _)| at == k),
                "fhir_qty" => self.rows.qty.iter().any(|(at, ..)| at == k),
                "fhir_uri" => self.rows.uri.iter().any(|(at, _)| at == k),
                _ => return None,
            },
            Clause::Within { def, rids } => {
                let links = super::access::links(def);
                let ks: Vec<i64> = links.iter().filter_map(|c| def.param(c)).map(|p| p.k).collect();
                match (def.name, ks.is_empty()) {
                    ("Patient", _) => rids.rids.contains(&self.rid),
                    (_, true) => self
                        .rows
                        .pc
                        .iter()
                        .any(|(p, _, code)| rids.rids.contains(p) && *code == 0),
                    (_, false) => self
                        .rows
                        .refs
                        .iter()
                        .any(|(to, at)| ks.contains(at) && rids.rids.contains(to)),
                }
            }
            Clause::All(all) => {
                let told: Vec<_> = all.iter().map(|c| self.fits(c)).collect();
                return match () {
                    () if told.contains(&Some(false)) => Some(false),
                    () if told.contains(&None) => None,
                    () => Some(true),
                };
            }
            Clause::Any(any) => {
                let told: Vec<_> = any.iter().map(|c| self.fits(c)).collect();
                return match () {
                    () if told.contains(&Some(true)) => Some(true),
                    () if told.contains(&None) => None,
                    () => Some(false),
                };
            }
            Clause::Not(inner) => return self.fits(inner).map(|fits| !fits),
            Clause::Nothing => false,
            Clause::Chain { .. } | Clause::Has { .. } => return None,
        })
    }
}

/// As in SQL: R4 search.html#prefix.
fn date(compare: Compare, s: i64, e: i64, lo: i64, stored_hi: i64) -> bool {
    let hi = if stored_hi == 0 { lo } else { stored_hi };
    let inside = lo >= s && lo <= e && hi <= e;
    match compare {
        Compare::Eq => inside,
        Compare::Ne => !inside,
        Compare::Gt => hi > e,
        Compare::Lt => lo < s,
        Compare::Ge => hi > e || inside,
        Compare::Le => lo < s || inside,
        Compare::StartsAfter => lo > e,
        Compare::EndsBefore => hi < s,
    }
}

fn text(text: &Text, row: &str) -> bool {
    match text {
        Text::Prefix(p) => row.starts_with(p.as_str()),
        Text::Exact(exact) => row == exact,
        Text::Contains(part) => (row.split(SEPARATOR).next()).is_some_and(|folded| folded.contains(part.as_str())),
    }
}

fn amount(a: &Amount, unit: i64, v: f64) -> bool {
    let fits = match a.compare {
        Compare::Eq => v >= a.lo && v < a.hi,
        Compare::Ne => !(v >= a.lo && v < a.hi),
        Compare::Gt | Compare::StartsAfter => v > a.value,
        Compare::Lt | Compare::EndsBefore => v < a.value,
        Compare::Ge => v >= a.value,
        Compare::Le => v <= a.value,
    };
    unit == a.unit && fits
}

fn address(a: &Address, uri: &str) -> bool {
    match a {
        Address::Exact(exact) => uri == exact,
        Address::Below(begin) => uri.starts_with(begin.as_str()),
    }
}
