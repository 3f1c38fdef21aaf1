//! From clauses to a page: the clause that leaves fewest rows leads, the others test its rows, the order is the
//! posting list's own where the lead allows it.

use super::{
    Clause,
    parse::{Request, Sort},
    sql::Sql,
};
use crate::{
    definitions::ResourceDef,
    store::{Exec, Stored, stored_all},
};
use medtech_kernel::{Result, db, policy};

/// A resource found, with its place in the order.
pub(crate) struct Hit {
    pub(crate) place: i64,
    pub(crate) stored: Stored,
}

pub(crate) struct Page {
    pub(crate) hits: Vec<Hit>,
    /// Is there more behind the last?
    pub(crate) more: bool,
}

/// ` AND test AND test` for rows of alias `at`.
pub(super) fn tests(sql: &mut Sql, _def: &'static ResourceDef, clauses: &[Clause], at: &str) -> String {
    clauses.iter().map(|c| format!(" AND {}", c.test(sql, at))).collect()
}

/// A statement that yields the `rid`s of a type that fit all clauses.
pub(super) fn rids(sql: &mut Sql, def: &'static ResourceDef, clauses: &[Clause]) -> String {
    let own = Clause::Token {
        k: def.k(),
        codes: vec![0],
        systems: Vec::new(),
    };
    let (lead, rest) = lead(clauses, &own);
    if rest.is_empty()
        && let Some(rids) = lead.rids(sql)
    {
        return rids;
    }
    let from = source(sql, lead, Sort::Main);
    let rest: String = rest
        .iter()
        .map(|c| format!(" AND {}", c.test(sql, from.alias)))
        .collect();
    format!(
        "SELECT {}.rid FROM {} WHERE {}{rest}",
        from.alias, from.tables, from.condition
    )
}

/// Splits off the clause that leads.
fn lead<'a>(clauses: &'a [Clause], own: &'a Clause) -> (&'a Clause, Vec<&'a Clause>) {
    let best = clauses
        .iter()
        .enumerate()
        .filter(|(_, c)| c.rank() < u8::MAX)
        .min_by_key(|(_, c)| c.rank());
    match best {
        Some((at, lead)) => (
            lead,
            clauses
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != at)
                .map(|(_, c)| c)
                .collect(),
        ),
        None => (own, clauses.iter().collect()),
    }
}

struct Source {
    tables: String,
    condition: String,
    /// The alias that has `ord` and `rid`.
    alias: &'static str,
    /// The column of the row number that the order goes by.
    rid: &'static str,
    /// The column that places a row in the order.
    place: &'static str,
    distinct: bool,
}

fn source(sql: &mut Sql, lead: &Clause, sort: Sort) -> Source {
    if sort == Sort::Main
        && let Some((table, condition, distinct)) = lead.ordered(sql)
    {
        let condition = format!("d.tenant = $1 AND {condition}");
        return Source {
            tables: format!("{table} d"),
            condition,
            alias: "d",
            rid: "d.rid",
            place: "d.ord",
            distinct,
        };
    }
    let rids = lead.rids(sql).unwrap_or_default();
    Source {
        tables: format!("(SELECT DISTINCT i.rid FROM ({rids}) i) e CROSS JOIN fhir_res r"),
        condition: "r.tenant = $1 AND r.rid = e.rid".to_owned(),
        alias: "r",
        rid: "r.rid",
        place: match sort {
            Sort::Main => "r.ord",
            Sort::Updated => "r.upd",
            Sort::Id => "r.rid",
        },
        distinct: false,
    }
}

/// The statement of all matches, without order and limit: (select list excluded) tables, condition, and the rest.
fn matches(sql: &mut Sql, request: &Request) -> Source {
    let def = request.def;
    let own = Clause::Token {
        k: def.k(),
        codes: vec![0],
        systems: Vec::new(),
    };
    let together = patient_and_code(def, &request.clauses);
    let (first, rest) = lead(&request.clauses, &own);
    let mut from = match together {
        // Patient and main code stand together in one list: scan that, and let every clause test it.
        Some((patient, code)) if request.sort == Sort::Main => {
            let condition = format!(
                "d.tenant = $1 AND d.pt = {} AND d.k = {} AND d.code = {}",
                sql.arg(patient),
                sql.arg(def.k()),
                sql.arg(code)
            );
            let mut from = Source {
                tables: "fhir_pc d".to_owned(),
                condition,
                alias: "d",
                rid: "d.rid",
                place: "d.ord",
                distinct: false,
            };
            let tests = tests(sql, def, &request.clauses, "d");
            from.condition.push_str(&tests);
            return from;
        }
        // Nothing narrows: the dates of the last change are a list in order.
        _ if request.sort == Sort::Updated && request.clauses.iter().all(|c| c.rank() == u8::MAX) => Source {
            tables: "fhir_dat u CROSS JOIN fhir_res r".to_owned(),
            condition: format!(
                "u.tenant = $1 AND u.k = {} AND r.tenant = $1 AND r.rid = u.rid",
                sql.arg(def.k_updated())
            ),
            alias: "r",
            rid: "u.rid",
            place: "u.lo",
            distinct: false,
        },
        _ => source(sql, first, request.sort),
    };
    for clause in rest {
        let test = clause.test(sql, from.alias);
        from.condition.push_str(" AND ");
        from.condition.push_str(&test);
    }
    from
}

fn patient_and_code(def: &ResourceDef, clauses: &[Clause]) -> Option<(i64, i64)> {
    let main = def.main_code.and_then(|c| def.param(c))?.k;
    let patient = clauses.iter().find_map(|c| match c {
        Clause::Reference {
            k, patient: Some(p), ..
        } if places_in_compartment(def, *k) => Some(*p),
        Clause::Compartment { patient, .. } => Some(*patient),
        _ => None,
    })?;
    let code = clauses.iter().find_map(|c| match c {
        Clause::Token { k, codes, systems } if *k == main && systems.is_empty() => match codes.as_slice() {
            [one] if *one > 0 => Some(*one),
            _ => None,
        },
        _ => None,
    })?;
    Some((patient, code))
}

/// Does a reference to a patient by this parameter always place the resource in the patient's compartment?
fn places_in_compartment(def: &ResourceDef, k: i64) -> bool {
    let Some(param) = def.params.iter().find(|p| p.k == k) else {
        return false;
    };
    // `patient` is often `subject.where(resolve() is Patient)`: the same references, fewer of them.
    let plain = param.expression.trim_end_matches(".where(resolve() is Patient)");
    def.compartment
        .iter()
        .filter_map(|c| def.param(c))
        .any(|p| p.k == k || p.expression == plain)
}

/// One page, bodies included.
pub(crate) async fn page(exec: &mut Exec<'_>, request: &Request) -> Result<Page> {
    let mut sql = Sql::default();
    let from = matches(&mut sql, request);
    let (direction, sign) = if request.ascending { ("ASC", ">") } else { ("DESC", "<") };
    let (rid, place) = (from.rid, from.place);
    let after = match request.cursor {
        Some((at, last)) => format!(" AND ({place}, {rid}) {sign} ({}, {})", sql.arg(at), sql.arg(last)),
        None => String::new(),
    };
    let limit = i64::try_from(request.count).unwrap_or(i64::MAX - 1) + 1;
    let text = format!(
        "WITH p AS (SELECT {} {place} AS place, {rid} AS rid FROM {} WHERE {}{after} ORDER BY {place} {direction}, {rid} {direction} LIMIT {})
         SELECT r.rid, r.ver, r.upd, r.del, r.ord, r.dict, r.body, p.place FROM p CROSS JOIN fhir_res r
         WHERE r.tenant = $1 AND r.rid = p.rid ORDER BY p.place {direction}, p.rid {direction}",
        if from.distinct { "DISTINCT" } else { "" },
        from.tables,
        from.condition,
        sql.arg(limit),
    );
    let rows = exec.query(db::Sql::built(text), &sql.args).await?;
    let more = rows.len() > request.count;
    let rows = rows.get(..request.count).unwrap_or(&rows);
    let found = stored_all(exec, rows).await?;
    let mut hits = Vec::with_capacity(found.len());
    // One whose key was destroyed is as if deleted.
    for (row, stored) in rows.iter().zip(found).filter(|(_, s)| !s.deleted) {
        hits.push(Hit {
            place: row.i64(7)?,
            stored,
        });
    }
    Ok(Page { hits, more })
}

/// Does the living resource fit all of these?
pub(crate) async fn sees(exec: &mut Exec<'_>, rid: i64, clauses: &[Clause]) -> Result<bool> {
    let mut sql = Sql::default();
    let rid = sql.arg(rid);
    let tests: String = clauses
        .iter()
        .map(|c| format!(" AND {}", c.test(&mut sql, "r")))
        .collect();
    let text = format!("SELECT 1 FROM fhir_res r WHERE r.tenant = $1 AND r.rid = {rid} AND r.del = 0{tests}");
    Ok(exec.query_opt(db::Sql::built(text), &sql.args).await?.is_some())
}

/// How many match in all.
pub(crate) async fn count(exec: &mut Exec<'_>, request: &Request) -> Result<i64> {
    let mut sql = Sql::default();
    let bare;
    let request = if policy::seeded("count") {
        bare = request.without_guard();
        &bare
    } else {
        request
    };
    let from = matches(&mut sql, request);
    let what = if from.distinct {
        format!("DISTINCT {}.rid", from.alias)
    } else {
        "*".to_owned()
    };
    let text = format!("SELECT COUNT({what}) FROM {} WHERE {}", from.tables, from.condition);
    exec.query(db::Sql::built(text), &sql.args)
        .await?
        .first()
        .map_or(Ok(0), |row| row.i64(0))
}
