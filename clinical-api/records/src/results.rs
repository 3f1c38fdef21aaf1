//! Laboratory results: the card shown in the patient's channel and on the chart, and whether it is critical. Pure.

use crate::fhirish::{concept_name, has_code, items, target, text};
use medtech_kernel::clock::{parse_rfc3339, rfc3339};
use serde::Serialize;
use serde_json::Value;

/// Critical by HL7's interpretation codes (v3 ObservationInterpretation; v2 table 0078 has the same letters).
const CRITICAL: [&str; 3] = ["HH", "LL", "AA"];
const SYSTEMS: [&str; 3] = [
    "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation",
    "http://terminology.hl7.org/CodeSystem/v2-0078",
    "http://hl7.org/fhir/v2/0078",
];
/// `laboratory` of the observation categories, `LAB` and its sections of v2 table 0074.
const LABORATORY: [&str; 12] = [
    "laboratory",
    "LAB",
    "CH",
    "HM",
    "MB",
    "SR",
    "IMM",
    "BLB",
    "SP",
    "TX",
    "VR",
    "MCB",
];

/// What a screen shows of a result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Card {
    pub id: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    pub status: String,
    pub critical: bool,
    pub observations: Vec<Line>,
    /// The Observations it is made of: cards of their own give way to this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub name: String,
    pub value: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// The interpretation code: `H`, `LL`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
}

/// The card of a report with its observations, or of an observation that stands alone.
pub(crate) fn card(of: &Value, observations: &[Value]) -> Card {
    let alone = text(of, "resourceType") == Some("Observation");
    let mut lines = Vec::new();
    if alone {
        lines_of(of, &mut lines);
    }
    for observation in observations {
        lines_of(observation, &mut lines);
    }
    Card {
        id: text(of, "id").unwrap_or_default().to_owned(),
        name: of.get("code").and_then(concept_name).unwrap_or("Result").to_owned(),
        at: time_of(of),
        status: text(of, "status").unwrap_or("unknown").to_owned(),
        critical: is_critical(of) || observations.iter().any(is_critical),
        observations: lines,
        parts: observations
            .iter()
            .filter_map(|o| text(o, "id").map(str::to_owned))
            .collect(),
    }
}

/// Is it from a laboratory? A report without a category counts as one: laboratories often leave it out.
pub(crate) fn is_laboratory(of: &Value) -> bool {
    let mut categories = items(of, "category").peekable();
    match categories.peek() {
        None => text(of, "resourceType") == Some("DiagnosticReport"),
        Some(_) => categories.any(|c| has_code(c, &LABORATORY)),
    }
}

/// Is one of its categories' codes a laboratory's?
pub(crate) fn is_laboratory_code(code: &str) -> bool {
    LABORATORY.contains(&code)
}

/// Has it something to say? Registered, cancelled and mistaken results have not.
pub(crate) fn has_result(of: &Value) -> bool {
    matches!(
        text(of, "status"),
        Some("partial" | "preliminary" | "final" | "amended" | "corrected" | "appended")
    )
}

/// HH, LL or AA on the observation or on one of its components.
pub(crate) fn is_critical(observation: &Value) -> bool {
    std::iter::once(observation)
        .chain(items(observation, "component"))
        .any(|o| {
            items(o, "interpretation").flat_map(|i| items(i, "coding")).any(|c| {
                text(c, "code").is_some_and(|code| CRITICAL.contains(&code))
                    && text(c, "system").is_none_or(|system| SYSTEMS.contains(&system))
            })
        })
}

/// Practitioners to be told, as named by the result: who interprets it, who performed it, who asked for it.
pub(crate) fn practitioners<'a>(of: &'a Value, requests: &'a [Value]) -> Vec<&'a str> {
    let named = ["resultsInterpreter", "performer"]
        .into_iter()
        .flat_map(|f| items(of, f));
    let mut out: Vec<&str> = requests
        .iter()
        .filter_map(|r| r.get("requester"))
        .chain(named)
        .filter_map(|r| target(r, "Practitioner"))
        .collect();
    out.sort_unstable();
    out.dedup();
    out
}

/// When the result was true: the clinically relevant time, else the time it was issued.
pub(crate) fn time_of(of: &Value) -> Option<String> {
    let period = || {
        of.pointer("/effectivePeriod/end")
            .or_else(|| of.pointer("/effectivePeriod/start"))
    };
    [
        of.get("effectiveDateTime"),
        of.get("effectiveInstant"),
        period(),
        of.get("issued"),
    ]
    .into_iter()
    .flatten()
    .filter_map(Value::as_str)
    .next()
    .map(|t| parse_rfc3339(t).map_or_else(|| t.to_owned(), rfc3339))
}

fn lines_of(observation: &Value, out: &mut Vec<Line>) {
    let has_parts = items(observation, "component").next().is_some();
    if value_of(observation).is_some() || !has_parts {
        out.push(line(observation));
    }
    out.extend(items(observation, "component").map(line));
}

fn line(o: &Value) -> Line {
    Line {
        name: o.get("code").and_then(concept_name).unwrap_or("Result").to_owned(),
        value: value_of(o).unwrap_or(Value::Null),
        unit: unit_of(o),
        range: items(o, "referenceRange").find_map(range),
        flag: items(o, "interpretation")
            .flat_map(|i| items(i, "coding"))
            .find_map(|c| text(c, "code"))
            .map(str::to_owned),
    }
}

/// `value[x]`, as a number where it is a plain quantity and as text else.
pub(crate) fn value_of(o: &Value) -> Option<Value> {
    if let Some(quantity) = o.get("valueQuantity") {
        let value = quantity.get("value")?;
        return Some(match text(quantity, "comparator") {
            Some(comparator) => Value::String(format!("{comparator}{value}")),
            None => value.clone(),
        });
    }
    if let Some(concept) = o.get("valueCodeableConcept") {
        return concept_name(concept).map(|t| Value::String(t.to_owned()));
    }
    [
        "valueString",
        "valueInteger",
        "valueBoolean",
        "valueDateTime",
        "valueTime",
    ]
    .iter()
    .find_map(|f| o.get(*f).cloned())
    .or_else(|| {
        let (numerator, denominator) = (
            o.pointer("/valueRatio/numerator/value")?,
            o.pointer("/valueRatio/denominator/value")?,
        );
        Some(Value::String(format!("{numerator}:{denominator}")))
    })
    .or_else(|| {
        let (low, high) = (
            o.pointer("/valueRange/low/value")?,
            o.pointer("/valueRange/high/value")?,
        );
        Some(Value::String(format!("{low}–{high}")))
    })
    .or_else(|| {
        o.get("dataAbsentReason")
            .and_then(concept_name)
            .map(|t| Value::String(t.to_owned()))
    })
}

pub(crate) fn unit_of(o: &Value) -> Option<String> {
    let quantity = o.get("valueQuantity")?;
    text(quantity, "unit")
        .or_else(|| text(quantity, "code"))
        .map(str::to_owned)
}

fn range(range: &Value) -> Option<String> {
    if let Some(words) = text(range, "text") {
        return Some(words.to_owned());
    }
    match (range.pointer("/low/value"), range.pointer("/high/value")) {
        (Some(low), Some(high)) => Some(format!("{low}–{high}")),
        (Some(low), None) => Some(format!("≥ {low}")),
        (None, Some(high)) => Some(format!("≤ {high}")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn potassium(flag: &str, system: Option<&str>) -> Value {
        let mut coding = json!({"code": flag});
        if let Some(system) = system {
            coding["system"] = json!(system);
        }
        json!({"resourceType": "Observation", "id": "k", "status": "final",
            "category": [{"coding": [{"code": "laboratory"}]}],
            "code": {"coding": [{"system": "http://loinc.org", "code": "2823-3", "display": "Potassium [Moles/volume] in Serum or Plasma"}]},
            "effectiveDateTime": "2026-03-02T10:00:00+01:00",
            "valueQuantity": {"value": 6.9, "unit": "mmol/L"},
            "referenceRange": [{"low": {"value": 3.5}, "high": {"value": 5.1}}],
            "interpretation": [{"coding": [coding]}]})
    }

    #[test]
    fn critical_is_decided_by_the_interpretation_codes_of_hl7_alone() {
        assert!(is_critical(&potassium("HH", Some(SYSTEMS[0]))));
        assert!(is_critical(&potassium("AA", Some(SYSTEMS[1]))));
        assert!(is_critical(&potassium("LL", None)));
        assert!(!is_critical(&potassium("H", Some(SYSTEMS[0]))));
        assert!(!is_critical(&potassium("HH", Some("http://example.org/our-own"))));
        assert!(is_critical(&json!({"component": [potassium("HH", None)]})));
    }

    #[test]
    fn a_card_shows_value_unit_range_flag_and_time_in_utc() {
        let report = json!({"resourceType": "DiagnosticReport", "id": "r", "status": "final", "code": {"text": "Electrolytes"},
            "effectiveDateTime": "2026-03-02T10:00:00+01:00"});
        let c = serde_json::to_value(card(&report, &[potassium("HH", None)])).unwrap();
        assert_eq!(
            (&c["name"], &c["critical"], &c["at"]),
            (&json!("Electrolytes"), &json!(true), &json!("2026-03-02T09:00:00.000Z"))
        );
        let line = &c["observations"][0];
        assert_eq!(
            (
                line["value"].to_string().as_str(),
                &line["unit"],
                &line["range"],
                &line["flag"]
            ),
            ("6.9", &json!("mmol/L"), &json!("3.5–5.1"), &json!("HH"))
        );
    }

    #[test]
    fn laboratories_are_told_from_vital_signs() {
        assert!(is_laboratory(&potassium("N", None)));
        assert!(!is_laboratory(
            &json!({"resourceType": "Observation", "category": [{"coding": [{"code": "vital-signs"}]}]})
        ));
        assert!(!is_laboratory(&json!({"resourceType": "Observation"})));
        assert!(is_laboratory(&json!({"resourceType": "DiagnosticReport"})));
        assert!(!is_laboratory(
            &json!({"resourceType": "DiagnosticReport", "category": [{"coding": [{"code": "RAD"}]}]})
        ));
    }

    #[test]
    fn the_asking_and_the_interpreting_clinician_are_found_once() {
        let report = json!({"resultsInterpreter": [{"reference": "Practitioner/b"}],
            "performer": [{"reference": "Organization/lab"}, {"reference": "https://x.example/fhir/Practitioner/a"}]});
        let requests = [json!({"requester": {"reference": "Practitioner/b"}})];
        assert_eq!(practitioners(&report, &requests), ["a", "b"]);
    }
}
