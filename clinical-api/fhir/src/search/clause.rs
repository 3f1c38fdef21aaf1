//! What a search asks, with names already turned into numbers, and how each question reads in SQL.

use super::{
    access::links,
    gate::{Numbers, numbers_text},
    sql::Sql,
};
use crate::definitions::ResourceDef;
use std::sync::Arc;

/// One condition. Values inside a clause are alternatives; clauses are all demanded.
#[derive(Clone, Debug)]
pub(crate) enum Clause {
    /// Codes and hashes; whole systems.
    Token {
        k: i64,
        codes: Vec<i64>,
        systems: Vec<String>,
    },
    Reference {
        k: i64,
        targets: Vec<i64>,
        patient: Option<i64>,
    },
    Date {
        k: i64,
        main: bool,
        any: Vec<(Compare, i64, i64)>,
    },
    String {
        k: i64,
        any: Vec<Text>,
    },
    Quantity {
        k: i64,
        any: Vec<Amount>,
    },
    Uri {
        k: i64,
        any: Vec<Address>,
    },
    Ids {
        ty: i64,
        rids: Vec<i64>,
    },
    /// Belongs to the patient.
    Compartment {
        k: i64,
        patient: i64,
    },
    /// Refers by `k` to a resource that fits.
    Chain {
        k: i64,
        def: &'static ResourceDef,
        inner: Vec<Clause>,
    },
    /// Is referred to by `k` from a resource that fits.
    Has {
        k: i64,
        def: &'static ResourceDef,
        inner: Vec<Clause>,
    },
    /// Has any value at all.
    Present {
        table: &'static str,
        k: i64,
    },
    /// Belongs to one of these patients.
    Within {
        def: &'static ResourceDef,
        rids: Arc<Numbers>,
    },
    /// Belongs to no patient.
    Nobodys,
    All(Vec<Clause>),
    Any(Vec<Clause>),
    Not(Box<Clause>),
    Nothing,
}

/// Up to so many patients a search begins with them; with more it goes through the type and asks of each row.
const FEW: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    StartsAfter,
    EndsBefore,
}

#[derive(Clone, Debug)]
pub(crate) enum Text {
    /// Folded beginning.
    Prefix(String),
    /// Folded part.
    Contains(String),
    /// The whole row.
    Exact(String),
}

/// A number with the range its digits span, under a unit (0: any).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    pub(crate) compare: Compare,
    pub(crate) unit: i64,
    pub(crate) value: f64,
    pub(crate) lo: f64,
    pub(crate) hi: f64,
}

#[derive(Clone, Debug)]
pub(crate) enum Address {
    Exact(String),
    Below(String),
}

const HI: &str = "CASE WHEN x.hi = 0 THEN x.lo ELSE x.hi END";

impl Clause {
    /// How few rows it likely leaves: the lowest leads the statement.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Nothing | Self::Ids { .. } => 0,
            Self::Token { codes, systems, .. } if systems.is_empty() && codes.iter().all(|c| *c < 0) => 1,
            Self::Reference { .. } => 2,
            Self::Compartment { .. } => 3,
            Self::Uri { .. } => 4,
            Self::String { .. } => 5,
            Self::Chain { .. } => 6,
            Self::Token { .. } => 7,
            Self::Quantity { .. } => 8,
            Self::Date { main: false, .. } => 9,
            Self::Within { rids, .. } if rids.rids.len() <= FEW => 10,
            Self::Date { .. }
            | Self::Has { .. }
            | Self::Present { .. }
            | Self::Within { .. }
            | Self::Nobodys
            | Self::All(_)
            | Self::Any(_)
            | Self::Not(_) => u8::MAX,
        }
    }

    /// The clustered table whose rows carry `ord` and answer this clause alone, and the condition on its alias `d`. The
    /// flag says that a resource may come more than once.
    pub(super) fn ordered(&self, sql: &mut Sql) -> Option<(&'static str, String, bool)> {
        match self {
            Self::Token { k, codes, systems } => {
                let many = codes.len() + systems.len() != 1 || !systems.is_empty();
                Some((
                    "fhir_tok",
                    format!("d.k = {} AND {}", sql.arg(*k), token(sql, "d", codes, systems)),
                    many,
                ))
            }
            Self::Reference { k, targets, .. } => {
                let list = sql.list("d.tgt", targets);
                Some((
                    "fhir_ref",
                    format!("{list} AND d.k = {}", sql.arg(*k)),
                    targets.len() != 1,
                ))
            }
            Self::Compartment { k, patient } => Some((
                "fhir_pc",
                format!("d.pt = {} AND d.k = {} AND d.code = 0", sql.arg(*patient), sql.arg(*k)),
                false,
            )),
            _ => None,
        }
    }

    /// A statement that yields the `rid`s that fit.
    pub(super) fn rids(&self, sql: &mut Sql) -> Option<String> {
        let select =
            |table: &str, condition: String| format!("SELECT x.rid FROM {table} x WHERE x.tenant = $1 AND {condition}");
        Some(match self {
            Self::Token { k, codes, systems } => select(
                "fhir_tok",
                format!("x.k = {} AND {}", sql.arg(*k), token(sql, "x", codes, systems)),
            ),
            Self::Reference { k, targets, .. } => {
                let list = sql.list("x.tgt", targets);
                select("fhir_ref", format!("{list} AND x.k = {}", sql.arg(*k)))
            }
            Self::Compartment { k, patient } => select(
                "fhir_pc",
                format!("x.pt = {} AND x.k = {} AND x.code = 0", sql.arg(*patient), sql.arg(*k)),
            ),
            Self::Date { k, any, .. } => {
                let k = sql.arg(*k);
                let any: Vec<String> = any.iter().map(|(c, s, e)| date(sql, *c, *s, *e)).collect();
                select("fhir_dat", format!("x.k = {k} AND ({})", any.join(" OR ")))
            }
            Self::String { k, any } => {
                let k = sql.arg(*k);
                let any: Vec<String> = any.iter().map(|t| text(sql, t)).collect();
                select("fhir_str", format!("x.k = {k} AND ({})", any.join(" OR ")))
            }
            Self::Quantity { k, any } => {
                let k = sql.arg(*k);
                let any: Vec<String> = any.iter().map(|a| amount(sql, a)).collect();
                select("fhir_qty", format!("x.k = {k} AND ({})", any.join(" OR ")))
            }
            Self::Uri { k, any } => {
                let k = sql.arg(*k);
                let any: Vec<String> = any.iter().map(|a| address(sql, a)).collect();
                select("fhir_uri", format!("x.k = {k} AND ({})", any.join(" OR ")))
            }
            Self::Ids { ty, rids } => {
                let list = sql.list("x.rid", rids);
                select("fhir_res", format!("{list} AND x.ty = {} AND x.del = 0", sql.arg(*ty)))
            }
            Self::Chain { k, def, inner } => {
                let inner = super::run::rids(sql, def, inner);
                let k = sql.arg(*k);
                format!(
                    "SELECT x.rid FROM ({inner}) s CROSS JOIN fhir_ref x WHERE x.tenant = $1 AND x.tgt = s.rid AND x.k = {k}"
                )
            }
            Self::Within { def, rids } if def.name == "Patient" => {
                let ty = sql.arg(def.number);
                select(
                    "fhir_res",
                    format!("x.rid IN ({}) AND x.ty = {ty} AND x.del = 0", rids.text()),
                )
            }
            Self::Within { def, rids } if links(def).is_empty() => select(
                "fhir_pc",
                format!(
                    "x.pt IN ({}) AND x.k = {} AND x.code = 0",
                    rids.text(),
                    sql.arg(def.k())
                ),
            ),
            Self::Within { def, rids } => {
                let ks: Vec<i64> = links(def).iter().filter_map(|c| def.param(c)).map(|p| p.k).collect();
                select(
                    "fhir_ref",
                    format!("x.tgt IN ({}) AND x.k IN ({})", rids.text(), numbers_text(&ks)),
                )
            }
            Self::Has { .. } | Self::Present { .. } | Self::Nobodys | Self::All(_) | Self::Any(_) | Self::Not(_) => {
                return None;
            }
            Self::Nothing => "SELECT r.rid FROM fhir_res r WHERE r.tenant = $1 AND 1 = 0".to_owned(),
        })
    }

    /// A condition on a row of alias `at` that has `ord` and `rid`.
    pub(super) fn test(&self, sql: &mut Sql, at: &str) -> String {
        let exists = |table: &str, condition: String| {
            format!(
                "EXISTS (SELECT 1 FROM {table} x WHERE x.tenant = $1 AND {condition} AND x.ord = {at}.ord AND x.rid = {at}.rid)"
            )
        };
        match self {
            Self::Token { k, codes, systems } => exists(
                "fhir_tok",
                format!("x.k = {} AND {}", sql.arg(*k), token(sql, "x", codes, systems)),
            ),
            Self::Reference { k, targets, .. } => {
                let list = sql.list("x.tgt", targets);
                exists("fhir_ref", format!("{list} AND x.k = {}", sql.arg(*k)))
            }
            Self::Compartment { k, patient } => exists(
                "fhir_pc",
                format!("x.pt = {} AND x.k = {} AND x.code = 0", sql.arg(*patient), sql.arg(*k)),
            ),
            // The main date is the order itself: its row is found by it.
            Self::Date { k, main: true, any } => {
                let k = sql.arg(*k);
                let bounds = bounds(sql, at, any);
                let any: Vec<String> = any.iter().map(|(c, s, e)| date(sql, *c, *s, *e)).collect();
                format!(
                    "{bounds}EXISTS (SELECT 1 FROM fhir_dat x WHERE x.tenant = $1 AND x.k = {k} AND x.lo = {at}.ord AND x.rid = {at}.rid AND ({}))",
                    any.join(" OR ")
                )
            }
            Self::Ids { rids, .. } => sql.list(&format!("{at}.rid"), rids),
            Self::Present { table, k } => {
                format!(
                    "{at}.rid IN (SELECT p.rid FROM {table} p WHERE p.tenant = $1 AND p.k = {})",
                    sql.arg(*k)
                )
            }
            Self::Has { k, def, inner } => {
                let k = sql.arg(*k);
                let inner = super::run::tests(sql, def, inner, "h");
                format!(
                    "EXISTS (SELECT 1 FROM fhir_ref h WHERE h.tenant = $1 AND h.tgt = {at}.rid AND h.k = {k}{inner})"
                )
            }
            Self::Within { def, rids } if def.name == "Patient" => format!("{at}.rid IN ({})", rids.text()),
            // By the resource, of which few are anyone's, and not by the patients, who may be many.
            Self::Within { def, rids } if links(def).is_empty() => format!(
                "EXISTS (SELECT 1 FROM fhir_pc x WHERE x.tenant = $1 AND x.rid = {at}.rid AND x.code = 0 AND +x.pt IN ({}))",
                rids.text()
            ),
            Self::Nobodys => {
                format!("NOT EXISTS (SELECT 1 FROM fhir_pc x WHERE x.tenant = $1 AND x.rid = {at}.rid AND x.code = 0)")
            }
            Self::All(all) => together(all.iter().map(|c| c.test(sql, at)).collect(), " AND ", "1 = 1"),
            Self::Any(any) => together(any.iter().map(|c| c.test(sql, at)).collect(), " OR ", "1 = 0"),
            Self::Not(inner) => format!("NOT ({})", inner.test(sql, at)),
            Self::Nothing => "1 = 0".to_owned(),
            other => match other.rids(sql) {
                Some(rids) => format!("{at}.rid IN ({rids})"),
                None => "1 = 0".to_owned(),
            },
        }
    }
}

fn together(all: Vec<String>, sign: &str, none: &str) -> String {
    if all.is_empty() {
        return none.to_owned();
    }
    format!("({})", all.join(sign))
}

fn token(sql: &mut Sql, at: &str, codes: &[i64], systems: &[String]) -> String {
    let mut any = Vec::new();
    if !codes.is_empty() {
        any.push(sql.list(&format!("{at}.code"), codes));
    }
    for system in systems {
        let system = sql.arg(system.as_str());
        any.push(format!(
            "{at}.code IN (SELECT c.id FROM fhir_code c WHERE c.tenant = $1 AND c.sys = {system})"
        ));
    }
    match any.len() {
        0 => "1 = 0".to_owned(),
        1 => any.remove(0),
        _ => format!("({})", any.join(" OR ")),
    }
}

/// R4 search.html#prefix: the range of the question beside the range of the value.
fn date(sql: &mut Sql, compare: Compare, start: i64, end: i64) -> String {
    let (s, e) = (sql.arg(start), sql.arg(end));
    let inside = format!("(x.lo >= {s} AND x.lo <= {e} AND {HI} <= {e})");
    match compare {
        Compare::Eq => inside,
        Compare::Ne => format!("NOT {inside}"),
        Compare::Gt => format!("({HI} > {e} AND {s} = {s})"),
        Compare::Lt => format!("(x.lo < {s} AND {e} = {e})"),
        Compare::Ge => format!("({HI} > {e} OR {inside})"),
        Compare::Le => format!("(x.lo < {s} OR {inside})"),
        Compare::StartsAfter => format!("(x.lo > {e} AND {s} = {s})"),
        Compare::EndsBefore => format!("({HI} < {s} AND {e} = {e})"),
    }
}

/// What follows for the order from a question about the main date; keeps the scan of the posting list short.
fn bounds(sql: &mut Sql, at: &str, any: &[(Compare, i64, i64)]) -> String {
    let [(compare, start, end)] = any else {
        return String::new();
    };
    match compare {
        Compare::Eq => format!("{at}.ord >= {} AND {at}.ord <= {} AND ", sql.arg(*start), sql.arg(*end)),
        Compare::Lt => format!("{at}.ord < {} AND ", sql.arg(*start)),
        Compare::Le | Compare::EndsBefore => format!("{at}.ord <= {} AND ", sql.arg(*end)),
        Compare::StartsAfter => format!("{at}.ord > {} AND ", sql.arg(*end)),
        Compare::Ne | Compare::Gt | Compare::Ge => String::new(),
    }
}

fn text(sql: &mut Sql, text: &Text) -> String {
    match text {
        Text::Prefix(p) => format!(
            "(x.norm >= {} AND x.norm < {})",
            sql.arg(p.as_str()),
            sql.arg(format!("{p}\u{10ffff}"))
        ),
        Text::Exact(row) => format!("x.norm = {}", sql.arg(row.as_str())),
        Text::Contains(part) => {
            let escaped = part.replace('!', "!!").replace('%', "!%").replace('_', "!_");
            format!("x.norm LIKE {} ESCAPE '!'", sql.arg(format!("%{escaped}%\u{1}%")))
        }
    }
}

fn amount(sql: &mut Sql, a: &Amount) -> String {
    let unit = sql.arg(a.unit);
    let value = match a.compare {
        Compare::Eq => format!("x.v >= {} AND x.v < {}", sql.arg(a.lo), sql.arg(a.hi)),
        Compare::Ne => format!("NOT (x.v >= {} AND x.v < {})", sql.arg(a.lo), sql.arg(a.hi)),
        Compare::Gt | Compare::StartsAfter => format!("x.v > {}", sql.arg(a.value)),
        Compare::Lt | Compare::EndsBefore => format!("x.v < {}", sql.arg(a.value)),
        Compare::Ge => format!("x.v >= {}", sql.arg(a.value)),
        Compare::Le => format!("x.v <= {}", sql.arg(a.value)),
    };
    format!("(x.unit = {unit} AND {value})")
}

fn address(sql: &mut Sql, a: &Address) -> String {
    match a {
        Address::Exact(uri) => format!("x.uri = {}", sql.arg(uri.as_str())),
        Address::Below(uri) => format!(
            "(x.uri >= {} AND x.uri < {})",
            sql.arg(uri.as_str()),
            sql.arg(format!("{uri}\u{10ffff}"))
        ),
    }
}
