//! Which single elements a writer may change, and what happens to those they cannot see. Pure.
//!
//! An update replaces the whole resource (R4 3.1.0.7). So what is hidden from its writer, and therefore missing in what they
//! send, is kept as it was; what they see and may not change must be sent as it was.

use crate::{Issue, outcome::Failure};
use medtech_kernel::{error::Kind, policy::Fields};
use serde_json::{Map, Value};

/// The resource to be stored, where it differs from the one that was sent; 403 naming the elements that may not be changed.
pub(crate) fn settle(
    kind: &str,
    old: Option<&Value>,
    new: &Value,
    hidden: &[&str],
    limit: Option<&Fields>,
) -> Result<Option<Value>, Failure> {
    let none = Map::new();
    let before = old.and_then(Value::as_object).unwrap_or(&none);
    let after = new.as_object().unwrap_or(&none);
    let mut kept = Vec::new();
    let mut wrong = Vec::new();
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let element = name.trim_start_matches('_');
        let (was, is) = (before.get(name), after.get(name));
        if matches!(element, "resourceType" | "id") {
            continue;
        }
        if hidden.contains(&element) {
            match (was, is) {
                (Some(was), None) => kept.push((name.clone(), was.clone())),
                (_, Some(_)) if was != is => wrong.push(element),
                _ => {}
            }
            continue;
        }
        let Some(limit) = limit else { continue };
        let closed = match element {
            // Labels decide who sees the resource; versions and times are ours.
            "meta" => was.and_then(|m| m.get("security")) != is.and_then(|m| m.get("security")),
            "extension" => others(was, limit) != others(is, limit),
            _ => was != is && !limit.elements.contains(&element),
        };
        if closed {
            wrong.push(element);
        }
    }
    if !wrong.is_empty() {
        wrong.dedup();
        let issue = |element: &str| {
            let path = format!("{kind}.{element}");
            Issue::new("forbidden", &path, format!("your role may not change {path}"))
        };
        return Err(Failure::Issues(Kind::Forbidden, wrong.into_iter().map(issue).collect()));
    }
    if kept.is_empty() {
        return Ok(None);
    }
    let mut whole = after.clone();
    whole.extend(kept);
    Ok(Some(Value::Object(whole)))
}

/// The extensions that are not the writer's to change.
fn others<'a>(extensions: Option<&'a Value>, limit: &Fields) -> Vec<&'a Value> {
    let all = extensions.and_then(Value::as_array).into_iter().flatten();
    let address = |e: &Value| e.get("url").and_then(Value::as_str).unwrap_or_default().to_owned();
    all.filter(|e| !limit.extensions.contains(&address(e).as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LIMIT: Fields = Fields {
        kind: "Patient",
        elements: &["name", "telecom"],
        extensions: &["urn:place"],
    };

    fn refused(old: Value, new: Value) -> Vec<String> {
        match settle("Patient", Some(&old), &new, &[], Some(&LIMIT)) {
            Err(Failure::Issues(Kind::Forbidden, issues)) => issues.into_iter().map(|i| i.expression).collect(),
            Ok(None) => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_seen_is_kept_and_not_erased() {
        let old = json!({"resourceType": "Encounter", "status": "planned", "reasonCode": [{"text": "why"}], "_type": [null], "class": {"code": "VR"}});
        let new = json!({"resourceType": "Encounter", "status": "arrived", "class": {"code": "VR"}});
        let kept = settle("Encounter", Some(&old), &new, &["reasonCode", "type"], None)
            .expect("may be written")
            .expect("completed");
        assert_eq!(kept["status"], "arrived");
        assert_eq!(
            (&kept["reasonCode"], &kept["_type"]),
            (&old["reasonCode"], &old["_type"])
        );
        let guess = json!({"resourceType": "Encounter", "status": "arrived", "class": {"code": "VR"}, "reasonCode": [{"text": "a guess"}]});
        assert!(settle("Encounter", Some(&old), &guess, &["reasonCode", "type"], None).is_err());
    }

    #[test]
    fn only_open_elements_may_differ() {
        let old = json!({"resourceType": "Patient", "id": "p", "name": [{"family": "A"}], "link": [{"type": "seealso"}],
            "extension": [{"url": "urn:blood", "valueString": "0"}, {"url": "urn:place", "valueString": "x"}], "meta": {"security": [{"code": "R"}], "versionId": "1"}});
        let with = |change: &dyn Fn(&mut Value)| {
            let mut new = old.clone();
            change(&mut new);
            refused(old.clone(), new)
        };
        assert_eq!(with(&|p| p["name"] = json!([{"family": "B"}])), Vec::<String>::new());
        assert_eq!(
            with(&|p| p["extension"] = json!([{"url": "urn:blood", "valueString": "0"}])),
            Vec::<String>::new()
        );
        assert_eq!(
            with(&|p| p["meta"] = json!({"security": [{"code": "R"}]})),
            Vec::<String>::new()
        );
        assert_eq!(with(&|p| p["extension"] = json!([])), ["Patient.extension"]);
        assert_eq!(with(&|p| p["meta"] = json!({})), ["Patient.meta"]);
        assert_eq!(
            with(&|p| drop(p.as_object_mut().expect("object").remove("link"))),
            ["Patient.link"]
        );
        assert_eq!(with(&|p| p["gender"] = json!("female")), ["Patient.gender"]);
    }
}
