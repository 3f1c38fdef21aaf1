//! Structural validation from the published definitions: elements, types, cardinality, formats, required codes.

mod narrative;
mod primitive;

pub(crate) use primitive::is_id;

use crate::{
    definitions::{Definitions, TypeDef, TypeRef},
    outcome::Issue,
};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// More than a client can use at once.
const MOST_ISSUES: usize = 40;

/// All that is wrong with a resource; empty when nothing is.
pub(crate) fn resource(value: &Value) -> Vec<Issue> {
    let mut check = Check { issues: Vec::new() };
    check.resource(value, None);
    check.issues
}

struct Check {
    issues: Vec<Issue>,
}

impl Check {
    fn say(&mut self, code: &'static str, path: &str, what: impl Into<String>) {
        if self.issues.len() < MOST_ISSUES {
            self.issues.push(Issue::new(code, path, what));
        }
    }

    fn resource(&mut self, value: &Value, path: Option<&str>) {
        let Value::Object(map) = value else {
            return self.say("structure", path.unwrap_or(""), "a resource is a JSON object");
        };
        let Some(ty) = map.get("resourceType").and_then(Value::as_str) else {
            return self.say("structure", path.unwrap_or(""), "resourceType is missing");
        };
        let all = Definitions::get();
        let (Some(_), Some(def)) = (all.resource(ty), all.type_def(ty)) else {
            return self.say(
                "structure",
                path.unwrap_or(""),
                format!("{ty:.60} is not a resource type of R4"),
            );
        };
        self.object(map, def, path.unwrap_or(ty), true);
    }

    fn object(&mut self, map: &Map<String, Value>, def: &TypeDef, path: &str, is_resource: bool) {
        if map.is_empty() {
            self.say("structure", path, "an object may not be empty");
        }
        let mut present: HashSet<usize> = HashSet::with_capacity(map.len());
        for (key, value) in map {
            if is_resource && key == "resourceType" {
                continue;
            }
            let (name, shadow) = match key.strip_prefix('_') {
                Some(name) => (name, true),
                None => (key.as_str(), false),
            };
            let Some(((e, t), element)) = def.fields.get(name).and_then(|f| Some((*f, def.elements.get(f.0)?))) else {
                self.say("structure", path, format!("unknown element {key:.80}"));
                continue;
            };
            let Some(ty) = element.types.get(t) else { continue };
            let at = format!("{path}.{}", element.name);
            let primitive = ty.code.starts_with(|c: char| c.is_ascii_lowercase());
            // `x` and `_x` are one element; two choices of one element are not.
            let twin = if shadow {
                map.contains_key(name)
            } else {
                map.contains_key(&format!("_{name}"))
            };
            if !present.insert(e) && !twin {
                self.say("structure", &at, "only one of the types of a choice may be given");
            }
            if shadow && !primitive {
                self.say("structure", path, format!("{key:.80} stands beside no primitive"));
                continue;
            }
            let one = |check: &mut Self, value: &Value, at: &str| {
                if shadow {
                    check.shadow(value, at)
                } else {
                    check.value(value, ty, element.codes, at)
                }
            };
            match (element.many, value) {
                (true, Value::Array(items)) => {
                    if items.is_empty() {
                        self.say("structure", &at, "an array may not be empty");
                    }
                    for (i, item) in items.iter().enumerate() {
                        // A null keeps a place for the other half of a primitive.
                        if !(item.is_null() && primitive && twin) {
                            one(self, item, &format!("{at}[{i}]"));
                        }
                    }
                }
                (true, _) => self.say("structure", &at, "this element repeats: an array is needed"),
                (false, Value::Array(_)) => self.say("structure", &at, "this element does not repeat: no array"),
                (false, value) => one(self, value, &at),
            }
        }
        for (e, element) in def.elements.iter().enumerate() {
            if element.required && !present.contains(&e) {
                self.say(
                    "required",
                    &format!("{path}.{}", element.name),
                    "this element is required",
                );
            }
        }
    }

    /// The `_x` beside a primitive `x`: an id and extensions.
    fn shadow(&mut self, value: &Value, at: &str) {
        match (value, Definitions::get().type_def("Element")) {
            (Value::Object(map), Some(def)) => self.object(map, def, at, false),
            _ => self.say("structure", at, "an object with id or extension is needed"),
        }
    }

    fn value(&mut self, value: &Value, ty: &TypeRef, codes: Option<&'static HashSet<&'static str>>, at: &str) {
        if ty.code.starts_with(|c: char| c.is_ascii_lowercase()) {
            if let Err(why) = primitive::check(ty.code, value) {
                self.say("value", at, why);
            } else if let ("xhtml", Some(text)) = (ty.code, value.as_str()) {
                if let Err(why) = narrative::check(text) {
                    self.say("invariant", at, why);
                }
            } else if let (Some(codes), Some(code)) = (codes, value.as_str())
                && !codes.contains(code)
            {
                self.say(
                    "code-invalid",
                    at,
                    format!("{code:.60} is not in the required value set"),
                );
            }
            return;
        }
        if ty.code == "Resource" {
            return self.resource(value, Some(at));
        }
        let (Value::Object(map), Some(def)) = (value, Definitions::get().type_def(ty.code)) else {
            return self.say("structure", at, format!("an object of type {} is needed", ty.code));
        };
        self.object(map, def, at, false);
        if ty.code == "Reference" {
            self.reference(map, ty, at);
        }
    }

    fn reference(&mut self, map: &Map<String, Value>, ty: &TypeRef, at: &str) {
        let Some(to) = map.get("reference").and_then(Value::as_str) else {
            return;
        };
        if to.starts_with('#') || to.contains("://") || to.starts_with("urn:") {
            return;
        }
        match crate::extract::local_reference(to, "") {
            None => self.say(
                "value",
                &format!("{at}.reference"),
                "expected Type/id, an absolute address, urn:uuid: or #id",
            ),
            Some((target, _)) if !ty.targets.is_empty() && !ty.targets.contains(&target) => self.say(
                "value",
                &format!("{at}.reference"),
                format!("{target} is not allowed here; allowed: {}", ty.targets.join(", ")),
            ),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
