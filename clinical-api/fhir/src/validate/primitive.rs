//! Formats of the primitive types (R4, datatypes.html).

use crate::extract::point;
use serde_json::Value;

/// FHIR `id`: letters, digits, hyphen and dot, at most 64.
pub(crate) fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

/// Checks one value; the error says what is expected.
pub(super) fn check(ty: &str, value: &Value) -> Result<(), &'static str> {
    match (ty, value) {
        ("boolean", Value::Bool(_)) => Ok(()),
        ("boolean", _) => Err("expected true or false"),
        ("integer", Value::Number(n)) => number(
            n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            "expected a whole number of 32 bits",
        ),
        ("unsignedInt", Value::Number(n)) => number(
            n.as_i64().is_some_and(|n| n >= 0 && i32::try_from(n).is_ok()),
            "expected a whole number, zero or more",
        ),
        ("positiveInt", Value::Number(n)) => number(
            n.as_i64().is_some_and(|n| n > 0 && i32::try_from(n).is_ok()),
            "expected a whole number above zero",
        ),
        ("decimal", Value::Number(n)) => number(n.as_f64().is_some_and(f64::is_finite), "a number out of range"),
        ("integer" | "unsignedInt" | "positiveInt" | "decimal", _) => Err("expected a number"),
        (_, Value::String(text)) => string(ty, text),
        _ => Err("expected a string"),
    }
}

fn number(fine: bool, why: &'static str) -> Result<(), &'static str> {
    if fine { Ok(()) } else { Err(why) }
}

fn string(ty: &str, text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("a string may not be empty");
    }
    // No store keeps this character in a text.
    if text.contains('\0') {
        return Err("the character U+0000 is not allowed");
    }
    let fine = match ty {
        "id" => is_id(text),
        "code" => {
            !text.starts_with(' ') && !text.ends_with(' ') && !text.contains("  ") && !text.contains(['\t', '\n', '\r'])
        }
        "date" => !text.contains('T') && point(text).is_some(),
        "dateTime" => point(text).is_some() && offset_is_fine(text) && seconds_are_given(text),
        "instant" => text.contains('T') && point(text).is_some() && has_offset(text) && seconds_are_given(text),
        "time" => {
            text.len() >= 8
                && text.as_bytes().get(8).is_none_or(|b| *b == b'.')
                && point(&format!("1970-01-01T{text}")).is_some()
        }
        "uri" | "url" | "canonical" => !text.contains(char::is_whitespace),
        "oid" => text
            .strip_prefix("urn:oid:")
            .is_some_and(|o| o.bytes().all(|b| b.is_ascii_digit() || b == b'.')),
        "uuid" => text
            .strip_prefix("urn:uuid:")
            .is_some_and(|u| u.len() == 36 && uuid::Uuid::parse_str(u).is_ok()),
        "base64Binary" => text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=') || b.is_ascii_whitespace()),
        "xhtml" => text.trim_start().starts_with("<div"),
        _ => !text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')),
    };
    if fine { Ok(()) } else { Err(expected(ty)) }
}

fn time_of(text: &str) -> &str {
    text.split_once('T').map_or("", |(_, time)| time)
}

fn has_offset(text: &str) -> bool {
    time_of(text).contains(['Z', '+', '-'])
}

fn offset_is_fine(text: &str) -> bool {
    !text.contains('T') || has_offset(text)
}

fn seconds_are_given(text: &str) -> bool {
    time_of(text).is_empty() || time_of(text).as_bytes().get(5) == Some(&b':')
}

fn expected(ty: &str) -> &'static str {
    match ty {
        "id" => "expected an id: letters, digits, - and ., at most 64",
        "code" => "expected a code without leading, trailing or double white space",
        "date" => "expected a date: YYYY, YYYY-MM or YYYY-MM-DD",
        "dateTime" => "expected a dateTime; with a time, the seconds and the offset are needed",
        "instant" => "expected an instant: YYYY-MM-DDThh:mm:ss with fraction and offset",
        "time" => "expected a time: hh:mm:ss",
        "uri" | "url" | "canonical" => "expected an address without white space",
        "oid" => "expected urn:oid:",
        "uuid" => "expected urn:uuid:",
        "base64Binary" => "expected base64",
        "xhtml" => "expected a div element",
        _ => "control characters are not allowed",
    }
}
