//! Small builders and readers for resources as JSON values, and a lenient time for event bodies.

use medtech_kernel::clock::{Millis, parse_rfc3339};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Value, json};

/// A time in an event's body: RFC 3339, or milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub Millis);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match Value::deserialize(d)? {
            Value::String(text) => parse_rfc3339(&text).map(Self),
            Value::Number(n) => n.as_i64().map(Self),
            _ => None,
        }
        .ok_or_else(|| D::Error::custom("expected an RFC 3339 time or milliseconds"))
    }
}

pub(crate) fn coding(system: &str, code: &str, display: &str) -> Value {
    json!({"system": system, "code": code, "display": display})
}

pub(crate) fn reference(to: &str) -> Value {
    json!({"reference": to})
}

/// `urn:uuid:` as an identifier (R4: system `urn:ietf:rfc:3986` for URIs).
pub(crate) fn uri_identifier(uri: &str) -> Value {
    json!({"system": "urn:ietf:rfc:3986", "value": uri})
}

/// The items of an array field; none where it is absent or something else.
pub(crate) fn items<'a>(of: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    of.get(field).and_then(Value::as_array).into_iter().flatten()
}

pub(crate) fn text<'a>(of: &'a Value, field: &str) -> Option<&'a str> {
    of.get(field).and_then(Value::as_str)
}

/// The logical id in a relative or absolute reference to a resource of type `kind`.
pub(crate) fn target<'a>(reference: &'a Value, kind: &str) -> Option<&'a str> {
    let mut parts = text(reference, "reference")?.rsplit('/');
    let (id, found) = (parts.next()?, parts.next()?);
    (found == kind && !id.is_empty()).then_some(id)
}

/// What a CodeableConcept should be called on a screen.
pub(crate) fn concept_name(concept: &Value) -> Option<&str> {
    let coded = || items(concept, "coding").find_map(|c| text(c, "display").or_else(|| text(c, "code")));
    text(concept, "text").filter(|t| !t.is_empty()).or_else(coded)
}

/// Does any coding of the concept have one of these codes?
pub(crate) fn has_code(concept: &Value, codes: &[&str]) -> bool {
    items(concept, "coding")
        .filter_map(|c| text(c, "code"))
        .any(|c| codes.contains(&c))
}
