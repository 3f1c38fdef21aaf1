//! References inside a bundle: from `urn:uuid:` and full addresses to `Type/id`, and conditional ones to their match.

use crate::definitions::Definitions;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// `Type?query`
fn is_conditional(text: &str) -> bool {
    text.split_once('?')
        .is_some_and(|(ty, _)| Definitions::get().resource(ty).is_some())
}

fn each(value: &mut Value, key: &str, visit: &mut impl FnMut(&str, &mut String)) {
    match value {
        Value::String(text) => visit(key, text),
        Value::Array(items) => items.iter_mut().for_each(|i| each(i, key, visit)),
        Value::Object(map) => map.iter_mut().for_each(|(k, v)| each(v, k, visit)),
        _ => {}
    }
}

pub(super) fn has_conditional(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_conditional),
        Value::Object(map) => {
            map.get("reference").and_then(Value::as_str).is_some_and(is_conditional)
                || map.values().any(has_conditional)
        }
        _ => false,
    }
}

/// References under our own address become relative.
pub(crate) fn relative(resource: &mut Value, base: &str) {
    each(resource, "", &mut |key, text| {
        if key == "reference"
            && let Some(rest) = text.strip_prefix(base).and_then(|rest| rest.strip_prefix('/'))
        {
            *text = rest.to_owned();
        }
    });
}

/// The conditional references of a resource. A `urn:uuid:` reference to nothing in the bundle is an error.
pub(super) fn collect(
    resource: &mut Value,
    places: &HashMap<String, String>,
    wanted: &mut HashSet<String>,
) -> Result<(), String> {
    let mut lost = None;
    each(resource, "", &mut |key, text| {
        if key == "reference" && is_conditional(text) {
            wanted.insert(text.clone());
        }
        if key == "reference" && text.starts_with("urn:uuid:") && !places.contains_key(text.as_str()) {
            lost = Some(format!("{text:.60} is the fullUrl of no entry"));
        }
    });
    lost.map_or(Ok(()), Err)
}

pub(super) fn replace(resource: &mut Value, places: &HashMap<String, String>) {
    each(resource, "", &mut |key, text| {
        let urn = text.starts_with("urn:uuid:") || text.starts_with("urn:oid:");
        if (key == "reference" || (urn && key != "value" && key != "system"))
            && let Some(place) = places.get(text.as_str())
        {
            place.clone_into(text);
        }
    });
}
