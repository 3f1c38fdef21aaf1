//! From search values to index rows, and their writing: inserts in key order, updates as differences.

mod batch;

pub(crate) use batch::Batch;

use crate::{
    definitions::ResourceDef,
    extract::{Extracted, Reference},
};

/// The order of a resource without a main date: after all others, newest first.
pub(crate) const UNDATED: i64 = -(1 << 61);

/// The rows of one resource, without what they all share (`rid`, and `ord` where the table has it).
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Rows {
    pub(crate) ord: i64,
    /// (k, code)
    pub(crate) tok: Vec<(i64, i64)>,
    /// (target, k)
    pub(crate) refs: Vec<(i64, i64)>,
    /// (patient, k, code)
    pub(crate) pc: Vec<(i64, i64, i64)>,
    /// (k, lo, hi)
    pub(crate) dat: Vec<(i64, i64, i64)>,
    pub(crate) strings: Vec<(i64, String)>,
    /// (k, unit, value)
    pub(crate) qty: Vec<(i64, i64, f64)>,
    pub(crate) uri: Vec<(i64, String)>,
}

/// The numbers behind names.
pub(crate) trait Numbers {
    fn code(&self, code: &str, system: &str) -> i64;
    fn target(&self, ty: &'static str, id: &str) -> i64;
}

/// `hi` as stored: 0 says "a point, see `lo`".
pub(crate) fn stored_hi(lo: i64, hi: i64) -> i64 {
    match hi {
        hi if hi == lo => 0,
        0 => 1,
        hi => hi,
    }
}

/// Codes and systems longer than this are cut, in rows and in questions alike.
pub(crate) fn clip(text: &str) -> &str {
    let end = text.char_indices().nth(250).map_or(text.len(), |(i, _)| i);
    text.get(..end).unwrap_or(text)
}

impl Rows {
    pub(crate) fn build(
        def: &'static ResourceDef,
        rid: i64,
        updated: i64,
        found: &Extracted,
        numbers: &impl Numbers,
    ) -> Self {
        let k_of = |code: Option<&'static str>| code.and_then(|c| def.param(c)).map_or(-1, |p| p.k);
        let (main_date, main_code) = (k_of(def.main_date), k_of(def.main_code));
        let inside: Vec<i64> = def.compartment.iter().map(|c| k_of(Some(c))).collect();

        let mut rows = Self {
            ord: UNDATED,
            ..Self::default()
        };
        rows.tok.push((def.k(), 0));
        rows.tok.extend(found.hashes.iter().copied());
        let mut codes = Vec::new();
        for (k, code, system) in &found.codes {
            let number = numbers.code(code, system);
            rows.tok.push((*k, number));
            if *k == main_code {
                codes.push(number);
            }
        }
        let mut patients = Vec::new();
        if def.name == "Patient" {
            patients.push(rid);
        }
        for (k, to) in &found.references {
            match to {
                Reference::Foreign(hash) => rows.refs.push((*hash, *k)),
                Reference::Local(ty, id) => {
                    let target = numbers.target(ty, id);
                    rows.refs.push((target, *k));
                    if *ty == "Patient" && inside.contains(k) {
                        patients.push(target);
                    }
                }
            }
        }
        for patient in patients {
            rows.pc.push((patient, def.k(), 0));
            rows.pc.extend(codes.iter().map(|code| (patient, def.k(), *code)));
        }
        rows.dat.push((def.k_updated(), updated, 0));
        for (k, range) in &found.dates {
            rows.dat.push((*k, range.lo, stored_hi(range.lo, range.hi)));
        }
        if let Some(lo) = found
            .dates
            .iter()
            .filter(|(k, _)| *k == main_date)
            .map(|(_, r)| r.lo)
            .min()
        {
            rows.ord = lo;
        }
        rows.strings = found.strings.clone();
        rows.uri = found.uris.clone();
        rows.qty = found
            .quantities
            .iter()
            .map(|(k, unit, v)| {
                (
                    *k,
                    unit.as_ref().map_or(0, |(code, system)| numbers.code(code, system)),
                    *v,
                )
            })
            .collect();
        rows.sort();
        rows
    }

    fn sort(&mut self) {
        self.tok.sort_unstable();
        self.tok.dedup();
        self.refs.sort_unstable();
        self.refs.dedup();
        self.pc.sort_unstable();
        self.pc.dedup();
        self.dat.sort_unstable();
        self.dat.dedup();
        self.strings.sort_unstable();
        self.strings.dedup();
        self.qty
            .sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)));
        self.qty.dedup();
        self.uri.sort_unstable();
        self.uri.dedup();
    }
}
