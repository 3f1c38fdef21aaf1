//! What one found value gives to the index, by the parameter's kind and the element's type.

use super::{
    dates::{self, Range},
    values::{Extracted, Reference, hash, local_reference, string_row},
};
use crate::definitions::Kind;
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Emit {
    Code,
    Coding,
    Concept,
    Identifier,
    Contact,
    Boolean,
    Text,
    Presence,
    Reference,
    Canonical,
    Inline,
    Date,
    Period,
    Timing,
    String,
    Name,
    Address,
    Quantity,
    Money,
    QuantityRange,
    Number,
    Uri,
}

impl Emit {
    /// `None` where such a type carries no value for such a parameter.
    pub(super) fn of(kind: Kind, ty: &str) -> Option<Self> {
        Some(match (kind, ty) {
            (Kind::Token, "code") => Self::Code,
            (Kind::Token, "Coding") => Self::Coding,
            (Kind::Token, "CodeableConcept") => Self::Concept,
            (Kind::Token, "Identifier") => Self::Identifier,
            (Kind::Token, "ContactPoint") => Self::Contact,
            (Kind::Token, "boolean") => Self::Boolean,
            (Kind::Token, "string" | "id" | "uri" | "canonical" | "oid") => Self::Text,
            (Kind::Reference, "Reference") => Self::Reference,
            (Kind::Reference, "canonical" | "uri") => Self::Canonical,
            (Kind::Reference, "Resource") => Self::Inline,
            (Kind::Date, "date" | "dateTime" | "instant") => Self::Date,
            (Kind::Date, "Period") => Self::Period,
            (Kind::Date, "Timing") => Self::Timing,
            (Kind::String, "string" | "markdown" | "code" | "uri") => Self::String,
            (Kind::String, "HumanName") => Self::Name,
            (Kind::String, "Address") => Self::Address,
            (Kind::Quantity, "Quantity" | "Age" | "Duration" | "Count" | "Distance") => Self::Quantity,
            (Kind::Quantity, "Money") => Self::Money,
            (Kind::Quantity, "Range") => Self::QuantityRange,
            (Kind::Number, "decimal" | "integer" | "positiveInt" | "unsignedInt") => Self::Number,
            (Kind::Number, "Range") => Self::QuantityRange,
            (Kind::Uri, "uri" | "url" | "canonical" | "oid" | "uuid") => Self::Uri,
            _ => return None,
        })
    }

    /// Does it yield hashes, not codes?
    pub(super) fn hashes(self) -> bool {
        matches!(self, Self::Identifier | Self::Contact | Self::Text)
    }

    pub(super) fn run(self, k: i64, only: Option<&'static str>, value: &Value, base: &str, out: &mut Extracted) {
        let text = |field: &str| value.get(field).and_then(Value::as_str);
        match self {
            Self::Code => {
                if let Some(code) = value.as_str() {
                    out.codes.push((k, code.to_owned(), String::new()));
                }
            }
            Self::Coding => coding(k, value, out),
            Self::Concept => {
                for c in value.get("coding").and_then(Value::as_array).into_iter().flatten() {
                    coding(k, c, out);
                }
            }
            Self::Boolean => {
                if let Some(yes) = value.as_bool() {
                    out.codes.push((k, yes.to_string(), String::new()));
                }
            }
            Self::Presence => {
                if *value != Value::Bool(false) && !value.is_null() {
                    out.codes.push((k, "true".to_owned(), String::new()));
                }
            }
            Self::Identifier => identifier(k, text("system"), text("value"), out),
            Self::Contact => {
                if let Some(number) = text("value") {
                    identifier(k, text("system"), Some(&number.to_lowercase()), out);
                }
            }
            Self::Text => identifier(k, None, value.as_str(), out),
            Self::Reference => reference(k, only, value, base, out),
            Self::Canonical => {
                if let Some(url) = value.as_str() {
                    canonical(k, url, base, out);
                }
            }
            Self::Inline => {
                let ty = text("resourceType").and_then(|t| crate::definitions::Definitions::get().resource(t));
                if let (Some(ty), Some(id)) = (ty, text("id")) {
                    out.references.push((k, Reference::Local(ty.name, id.to_owned())));
                }
            }
            Self::Date => out.dates.extend(value.as_str().and_then(dates::point).map(|r| (k, r))),
            Self::Period => out
                .dates
                .extend(dates::period(text("start"), text("end")).map(|r| (k, r))),
            Self::Timing => out.dates.extend(timing(value).map(|r| (k, r))),
            Self::String => string(k, value.as_str(), out),
            Self::Name => {
                for part in [text("text"), text("family")] {
                    string(k, part, out);
                }
                for list in ["given", "prefix", "suffix"] {
                    strings(k, value.get(list), out);
                }
            }
            Self::Address => {
                for part in ["text", "city", "district", "state", "postalCode", "country"] {
                    string(k, text(part), out);
                }
                strings(k, value.get("line"), out);
            }
            Self::Quantity => quantity(k, value, out),
            Self::Money => {
                if let Some(v) = number(value.get("value")) {
                    let currency = text("currency").map(|c| (c.to_owned(), "urn:iso:std:iso:4217".to_owned()));
                    out.quantities.push((k, None, v));
                    out.quantities.extend(currency.map(|c| (k, Some(c), v)));
                }
            }
            Self::QuantityRange => {
                for end in ["low", "high"] {
                    if let Some(q) = value.get(end) {
                        quantity(k, q, out);
                    }
                }
            }
            Self::Number => out.quantities.extend(number(Some(value)).map(|v| (k, None, v))),
            Self::Uri => out.uris.extend(
                value
                    .as_str()
                    .map(|u| (k, u.chars().take(super::values::LONGEST * 2).collect())),
            ),
        }
    }
}

fn coding(k: i64, value: &Value, out: &mut Extracted) {
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    if let Some(code) = text("code") {
        out.codes
            .push((k, code.to_owned(), text("system").unwrap_or("").to_owned()));
    }
}

/// An identifier is found by system and value, by value alone, and by system alone.
fn identifier(k: i64, system: Option<&str>, value: Option<&str>, out: &mut Extracted) {
    if let Some(value) = value {
        out.hashes.push((k, hash(&["value", value])));
        out.hashes.push((k, hash(&["both", system.unwrap_or(""), value])));
    }
    if let Some(system) = system {
        out.hashes.push((k, hash(&["system", system])));
    }
}

fn reference(k: i64, only: Option<&'static str>, value: &Value, base: &str, out: &mut Extracted) {
    if let Some(to) = value.get("reference").and_then(Value::as_str) {
        match local_reference(to, base) {
            Some((ty, id)) => {
                if only.is_none_or(|wanted| wanted == ty) {
                    out.references.push((k, Reference::Local(ty, id)));
                }
            }
            None if to.starts_with('#') || to.is_empty() => {}
            None => {
                let fits = only.is_none_or(|wanted| to.split('/').any(|part| part == wanted));
                if fits {
                    out.references.push((k, Reference::Foreign(hash(&["url", to]))));
                }
            }
        }
    }
    if let Some(id) = value.get("identifier") {
        let text = |field: &str| id.get(field).and_then(Value::as_str);
        identifier(k, text("system"), text("value"), out);
    }
}

fn canonical(k: i64, url: &str, base: &str, out: &mut Extracted) {
    if let Some((ty, id)) = local_reference(url, base) {
        out.references.push((k, Reference::Local(ty, id)));
        return;
    }
    out.references.push((k, Reference::Foreign(hash(&["url", url]))));
    if let Some((bare, _)) = url.split_once('|') {
        out.references.push((k, Reference::Foreign(hash(&["url", bare]))));
    }
}

/// All a timing names, as one span.
fn timing(value: &Value) -> Option<Range> {
    let events = value.get("event").and_then(Value::as_array).into_iter().flatten();
    let events = events.filter_map(|e| dates::point(e.as_str()?));
    let bounds = value.get("repeat").and_then(|r| r.get("boundsPeriod")).and_then(|p| {
        let text = |field: &str| p.get(field).and_then(Value::as_str);
        dates::period(text("start"), text("end"))
    });
    events.chain(bounds).reduce(|a, b| Range {
        lo: a.lo.min(b.lo),
        hi: a.hi.max(b.hi),
    })
}

fn string(k: i64, value: Option<&str>, out: &mut Extracted) {
    out.strings
        .extend(value.filter(|v| !v.is_empty()).map(|v| (k, string_row(v))));
}

fn strings(k: i64, value: Option<&Value>, out: &mut Extracted) {
    for item in value.and_then(Value::as_array).into_iter().flatten() {
        string(k, item.as_str(), out);
    }
}

/// A quantity stands under its coded unit, under the unit as written, and under none.
fn quantity(k: i64, value: &Value, out: &mut Extracted) {
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    let Some(v) = number(value.get("value")) else { return };
    out.quantities.push((k, None, v));
    let coded = text("code").map(|c| (c.to_owned(), text("system").unwrap_or("").to_owned()));
    let written = text("unit")
        .filter(|u| coded.as_ref().is_none_or(|(c, _)| c != u))
        .map(|u| (u.to_owned(), String::new()));
    for unit in [coded, written].into_iter().flatten() {
        out.quantities.push((k, Some(unit), v));
    }
}

fn number(value: Option<&Value>) -> Option<f64> {
    value.and_then(Value::as_f64).filter(|v| v.is_finite())
}
