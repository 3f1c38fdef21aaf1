//! What an extraction yields, and the normal forms of its values.

use aws_lc_rs::digest;
use std::{collections::HashMap, sync::OnceLock};

use super::Range;

/// Search values of one resource, by the parameter's `k`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Extracted {
    /// (k, code, system): interned.
    pub(crate) codes: Vec<(i64, String, String)>,
    /// (k, hash): identifiers, contact points and the like.
    pub(crate) hashes: Vec<(i64, i64)>,
    pub(crate) references: Vec<(i64, Reference)>,
    pub(crate) dates: Vec<(i64, Range)>,
    /// (k, folded + separator + original)
    pub(crate) strings: Vec<(i64, String)>,
    /// (k, unit as code and system, value)
    pub(crate) quantities: Vec<(i64, Option<Unit>, f64)>,
    pub(crate) uris: Vec<(i64, String)>,
}

/// Code and system of a unit.
pub(crate) type Unit = (String, String);

/// Where a reference points.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reference {
    /// A resource of ours: type and logical id.
    Local(&'static str, String),
    /// Anything else, by the hash of its address.
    Foreign(i64),
}

/// Between the folded and the original text of a string row.
pub(crate) const SEPARATOR: char = '\u{1}';
/// Longest text kept in a string or uri row, in characters.
pub(crate) const LONGEST: usize = 200;

/// The row of a string value: folded for matching, original for `:exact`.
pub(crate) fn string_row(text: &str) -> String {
    let clean = |c: &char| *c > SEPARATOR;
    let mut row: String = fold(text).chars().filter(clean).take(LONGEST).collect();
    row.push(SEPARATOR);
    row.extend(text.chars().filter(clean).take(LONGEST));
    row
}

/// Case, accents and combining marks removed, runs of white space made one.
pub(crate) fn fold(text: &str) -> String {
    static TABLE: OnceLock<HashMap<char, &'static str>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let lines = include_str!("../definitions/folding.tsv")
            .lines()
            .filter(|l| !l.starts_with('#'));
        lines
            .filter_map(|l| l.split_once('\t'))
            .filter_map(|(hex, base)| Some((char::from_u32(u32::from_str_radix(hex, 16).ok()?)?, base)))
            .collect()
    });
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            match c.is_ascii_whitespace() {
                true if out.ends_with(' ') || out.is_empty() => {}
                true => out.push(' '),
                false => out.push(c.to_ascii_lowercase()),
            }
        } else if ('\u{300}'..='\u{36f}').contains(&c) {
        } else if let Some(base) = table.get(&c) {
            out.push_str(base);
        } else {
            out.extend(c.to_lowercase());
        }
    }
    out
}

/// A negative number that stands for a text: 63 bits of SHA-256, so that a clash by accident is out of reach.
pub(crate) fn hash(parts: &[&str]) -> i64 {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    let sum = context.finish();
    let head = sum.as_ref().first_chunk::<8>().copied().unwrap_or_default();
    i64::from_be_bytes(head) | i64::MIN
}

/// `Type/id` of a relative reference, or of one under our own address; versions are passed over.
pub(crate) fn local_reference(text: &str, base: &str) -> Option<(&'static str, String)> {
    let path = match text.strip_prefix(base) {
        Some(path) if !base.is_empty() => path.trim_start_matches('/'),
        _ => text,
    };
    let mut parts = path.split('/');
    let ty = crate::definitions::Definitions::get().resource(parts.next()?)?.name;
    let id = parts.next()?;
    let fine = crate::validate::is_id(id)
        && matches!(
            (parts.next(), parts.next(), parts.next()),
            (None, ..) | (Some("_history"), Some(_), None)
        );
    fine.then(|| (ty, id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_takes_case_and_accents_away() {
        assert_eq!(
            fold("Ångström  Müller-Łukasz Çelik ÆØ ß"),
            "angstrom muller-lukasz celik aeo ss"
        );
        assert_eq!(fold("e\u{301}"), "e");
        assert_eq!(fold("Владимир"), "владимир");
        assert!(hash(&["a", "b"]) < 0 && hash(&["a", "b"]) != hash(&["ab"]));
    }

    #[test]
    fn only_our_own_references_are_local() {
        let local = |t| local_reference(t, "https://clinic.example/fhir/R4");
        let expected = Some(("Patient", "1".to_owned()));
        assert_eq!(local("Patient/1"), expected);
        assert_eq!(local("https://clinic.example/fhir/R4/Patient/1"), expected);
        assert_eq!(local("Patient/1/_history/3"), expected);
        for other in [
            "https://other.example/Patient/1",
            "#p",
            "Nobody/1",
            "Patient",
            "Patient/",
            "Patient/a b",
            "urn:uuid:x",
            "Patient/1/2",
        ] {
            assert_eq!(local(other), None, "{other}");
        }
    }
}
