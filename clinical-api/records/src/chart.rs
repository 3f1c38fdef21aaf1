//! The chart panel's view of a patient, made from resources. Pure.

use crate::{
    fhirish::{concept_name, has_code, items, text},
    results::{Card, unit_of, value_of},
};
use medtech_kernel::clock::{Millis, parse_rfc3339, rfc3339};
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;

#[derive(Debug, Serialize)]
pub(crate) struct Chart {
    pub patient: Patient,
    pub allergies: Vec<Entry>,
    pub conditions: Vec<Entry>,
    pub medications: Vec<Entry>,
    pub vitals: Vec<Vital>,
    pub results: Vec<Card>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Patient {
    pub id: String,
    pub name: String,
    pub birth_date: Option<String>,
    pub sex: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    pub id: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
}

/// The newest value of a code.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Vital {
    pub code: String,
    pub name: String,
    pub value: Value,
    pub unit: Option<String>,
    pub at: String,
}

pub(crate) fn patient(p: &Value) -> Patient {
    Patient {
        id: text(p, "id").unwrap_or_default().to_owned(),
        name: human_name(p).unwrap_or_else(|| "Unnamed patient".to_owned()),
        birth_date: text(p, "birthDate").map(str::to_owned),
        sex: text(p, "gender").map(str::to_owned),
    }
}

/// The name to call someone by: the usual or official one, as given or put together.
pub(crate) fn human_name(p: &Value) -> Option<String> {
    let names: Vec<&Value> = items(p, "name").collect();
    let by_use = |wanted: &str| names.iter().find(|n| text(n, "use") == Some(wanted));
    let name = by_use("usual")
        .or_else(|| by_use("official"))
        .or_else(|| names.first())?;
    if let Some(whole) = text(name, "text") {
        return Some(whole.to_owned());
    }
    let given = items(name, "given").filter_map(Value::as_str);
    let parts: Vec<&str> = given.chain(text(name, "family")).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// An allergy, unless it was refuted or entered in error.
pub(crate) fn allergy(a: &Value) -> Option<Entry> {
    if ruled_out(a) {
        return None;
    }
    let reactions: Vec<&str> = items(a, "reaction")
        .flat_map(|r| items(r, "manifestation"))
        .filter_map(concept_name)
        .collect();
    let worst = items(a, "reaction")
        .filter_map(|r| text(r, "severity"))
        .max_by_key(|s| match *s {
            "severe" => 3,
            "moderate" => 2,
            _ => 1,
        });
    Some(Entry {
        detail: (!reactions.is_empty()).then(|| reactions.join(", ")),
        severity: worst.map(str::to_owned),
        ..entry(a, "code")
    })
}

/// A condition that is of concern now.
pub(crate) fn condition(c: &Value) -> Option<Entry> {
    let over = c
        .get("clinicalStatus")
        .is_some_and(|s| has_code(s, &["inactive", "remission", "resolved"]));
    if over || ruled_out(c) {
        return None;
    }
    Some(Entry {
        detail: text(c, "onsetDateTime").map(|d| format!("since {d}")),
        ..entry(c, "code")
    })
}

/// A medication being taken: an active request or statement.
pub(crate) fn medication(m: &Value) -> Option<Entry> {
    if text(m, "status") != Some("active") {
        return None;
    }
    let dosage = |field| items(m, field).find_map(|d| text(d, "text"));
    let detail = dosage("dosageInstruction")
        .or_else(|| dosage("dosage"))
        .map(str::to_owned);
    let mut out = Entry {
        detail,
        ..entry(m, "medicationCodeableConcept")
    };
    if let Some(display) = m.get("medicationReference").and_then(|r| text(r, "display")) {
        display.clone_into(&mut out.name);
    }
    Some(out)
}

fn entry(of: &Value, code: &str) -> Entry {
    let status = of
        .get("clinicalStatus")
        .and_then(|s| items(s, "coding").find_map(|c| text(c, "code")))
        .or_else(|| text(of, "status"));
    Entry {
        id: text(of, "id").unwrap_or_default().to_owned(),
        name: of.get(code).and_then(concept_name).unwrap_or("Unnamed").to_owned(),
        detail: None,
        status: status.map(str::to_owned),
        severity: None,
    }
}

fn ruled_out(of: &Value) -> bool {
    of.get("verificationStatus")
        .is_some_and(|s| has_code(s, &["refuted", "entered-in-error"]))
}

/// The newest value of each code by the time it was taken, not by the time it arrived. The parts of a panel (blood
/// pressure) stand for themselves.
pub(crate) fn latest(observations: &[Value]) -> Vec<Vital> {
    let mut order: Vec<String> = Vec::new();
    let mut newest: HashMap<String, (Millis, Vital)> = HashMap::new();
    for observation in observations {
        if !matches!(
            text(observation, "status"),
            Some("final" | "amended" | "corrected" | "preliminary")
        ) {
            continue;
        }
        let Some(at) = taken_at(observation) else { continue };
        for part in std::iter::once(observation).chain(items(observation, "component")) {
            let (Some(value), Some(code)) = (value_of(part), part.get("code")) else {
                continue;
            };
            let Some(key) = items(code, "coding")
                .find_map(|c| text(c, "code"))
                .or_else(|| text(code, "text"))
            else {
                continue;
            };
            let vital = Vital {
                code: key.to_owned(),
                name: concept_name(code).unwrap_or(key).to_owned(),
                value,
                unit: unit_of(part),
                at: rfc3339(at),
            };
            match newest.get(key) {
                Some((known, _)) if *known >= at => {}
                Some(_) => drop(newest.insert(key.to_owned(), (at, vital))),
                None => {
                    order.push(key.to_owned());
                    newest.insert(key.to_owned(), (at, vital));
                }
            }
        }
    }
    order
        .iter()
        .filter_map(|key| newest.remove(key).map(|(_, vital)| vital))
        .collect()
}

fn taken_at(observation: &Value) -> Option<Millis> {
    let field = observation
        .get("effectiveDateTime")
        .or_else(|| observation.get("effectiveInstant"))?
        .as_str()?;
    // A date without a time counts from its start, in UTC.
    parse_rfc3339(field).or_else(|| parse_rfc3339(&format!("{field}T00:00:00Z")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn heart_rate(at: &str, value: i64) -> Value {
        json!({"status": "final", "code": {"coding": [{"code": "8867-4"}], "text": "Heart rate"}, "effectiveDateTime": at,
            "valueQuantity": {"value": value, "unit": "beats/minute"}})
    }

    #[test]
    fn the_latest_is_by_the_time_taken_whatever_the_order() {
        let (early, late) = (
            heart_rate("2026-03-02T09:00:00Z", 60),
            heart_rate("2026-03-02T11:00:00+01:00", 70),
        );
        for list in [[early.clone(), late.clone()], [late, early]] {
            let v = latest(&list);
            assert_eq!(
                (v.len(), v[0].value.as_i64(), v[0].at.as_str()),
                (1, Some(70), "2026-03-02T10:00:00.000Z")
            );
        }
        let mut wrong = heart_rate("2026-03-02T12:00:00Z", 300);
        wrong["status"] = json!("entered-in-error");
        assert!(latest(&[wrong]).is_empty());
    }

    #[test]
    fn blood_pressure_shows_as_its_two_numbers() {
        let panel = json!({"status": "final", "code": {"coding": [{"code": "85354-9"}]}, "effectiveDateTime": "2026-03-02T09:00:00Z", "component": [
            {"code": {"coding": [{"code": "8480-6"}]}, "valueQuantity": {"value": 121, "unit": "mmHg"}},
            {"code": {"coding": [{"code": "8462-4"}]}, "valueQuantity": {"value": 78, "unit": "mmHg"}}]});
        let codes: Vec<String> = latest(&[panel]).into_iter().map(|v| v.code).collect();
        assert_eq!(codes, ["8480-6", "8462-4"]);
    }

    #[test]
    fn what_was_refuted_resolved_or_stopped_is_not_on_the_chart() {
        let coded = |c: &str| json!({"coding": [{"code": c}]});
        assert!(allergy(&json!({"verificationStatus": coded("refuted")})).is_none());
        assert!(condition(&json!({"clinicalStatus": coded("resolved")})).is_none());
        assert!(medication(&json!({"status": "stopped"})).is_none());
        let m = medication(
            &json!({"id": "m", "status": "active", "medicationCodeableConcept": {"text": "Metformin 500 mg"},
            "dosageInstruction": [{"text": "1 tablet twice a day"}]}),
        )
        .unwrap();
        assert_eq!(
            (m.name.as_str(), m.detail.as_deref()),
            ("Metformin 500 mg", Some("1 tablet twice a day"))
        );
    }

    #[test]
    fn names_prefer_what_the_patient_is_called() {
        let p = json!({"name": [{"use": "official", "given": ["Ada", "M"], "family": "Quill"}, {"use": "usual", "text": "Addie Quill"}]});
        assert_eq!(human_name(&p).as_deref(), Some("Addie Quill"));
    }
}
