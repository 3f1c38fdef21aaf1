//! The record of a demo patient: one transaction bundle, the same on every machine but for the day it is made on.

use super::people::{PROBLEMS, Person};
use medtech_kernel::clock::{Millis, rfc3339};
use serde_json::{Value, json};

pub(super) const DAY: Millis = 86_400_000;
/// Our own identifiers: the record numbers of the demo clinic.
pub(super) const NUMBERS: &str = "urn:medtech:demo:record-number";
const LOINC: &str = "http://loinc.org";
const UCUM: &str = "http://unitsofmeasure.org";
const TERMINOLOGY: &str = "http://terminology.hl7.org/CodeSystem";

/// A laboratory panel: key, LOINC code, name, tests.
type Panel = (&'static str, &'static str, &'static str, &'static [Test]);

struct Test {
    code: &'static str,
    name: &'static str,
    unit: &'static str,
    low: f64,
    high: f64,
    digits: i32,
}

const fn test(code: &'static str, name: &'static str, unit: &'static str, low: f64, high: f64, digits: i32) -> Test {
    Test {
        code,
        name,
        unit,
        low,
        high,
        digits,
    }
}

const PANELS: &[Panel] = &[
    (
        "metabolic",
        "24321-2",
        "Basic metabolic panel",
        &[
            test("2951-2", "Sodium", "mmol/L", 136.0, 145.0, 0),
            test("2823-3", "Potassium", "mmol/L", 3.5, 5.1, 1),
            test("2345-7", "Glucose", "mg/dL", 70.0, 99.0, 0),
            test("3094-0", "Urea nitrogen", "mg/dL", 7.0, 20.0, 0),
            test("2160-0", "Creatinine", "mg/dL", 0.6, 1.2, 2),
        ],
    ),
    (
        "lipids",
        "24331-1",
        "Lipid panel",
        &[
            test("2093-3", "Cholesterol", "mg/dL", 120.0, 200.0, 0),
            test("2085-9", "HDL cholesterol", "mg/dL", 40.0, 90.0, 0),
            test("13457-7", "LDL cholesterol (calculated)", "mg/dL", 50.0, 130.0, 0),
            test("2571-8", "Triglyceride", "mg/dL", 40.0, 150.0, 0),
        ],
    ),
    (
        "blood",
        "58410-2",
        "Blood count",
        &[
            test("718-7", "Haemoglobin", "g/dL", 12.0, 16.0, 1),
            test("6690-2", "Leukocytes", "10*3/uL", 4.0, 11.0, 1),
            test("777-3", "Platelets", "10*3/uL", 150.0, 400.0, 0),
            test("4544-3", "Haematocrit", "%", 36.0, 47.0, 1),
        ],
    ),
    (
        "hba1c",
        "4548-4",
        "Haemoglobin A1c",
        &[test("4548-4", "Haemoglobin A1c", "%", 4.0, 5.6, 1)],
    ),
    (
        "thyroid",
        "3016-3",
        "Thyrotropin",
        &[test("3016-3", "Thyrotropin", "m[IU]/L", 0.4, 4.0, 2)],
    ),
];

/// Collects entries; each resource has a name of its own inside the bundle.
struct Bundle {
    entries: Vec<Value>,
    number: usize,
}

impl Bundle {
    /// Adds a resource; answers the reference to it.
    fn add(&mut self, resource: Value) -> String {
        let name = format!(
            "urn:uuid:00000000-0000-4000-8000-{:06x}{:06x}",
            self.number,
            self.entries.len()
        );
        let url = resource.get("resourceType").cloned().unwrap_or_default();
        self.entries
            .push(json!({"fullUrl": name, "resource": resource, "request": {"method": "POST", "url": url}}));
        name
    }
}

/// Everything the clinic knows of a person. `number` makes the values differ from patient to patient; `practitioner` is
/// who saw them; `now` is when "three months ago" counts from.
pub(super) fn bundle(person: &Person, number: usize, practitioner: &str, now: Millis) -> Value {
    let mut b = Bundle {
        entries: Vec::new(),
        number,
    };
    let patient = b.add(json!({
        "resourceType": "Patient",
        "identifier": [{"use": "usual", "system": NUMBERS, "value": record_number(number)}],
        "active": true,
        "name": [{"use": "official", "family": person.family, "given": [person.given]}],
        "gender": person.sex,
        "birthDate": person.birth,
        "telecom": [{"system": "phone", "value": format!("+1 555 01{:02}", number), "use": "mobile"}],
        "address": [{"use": "home", "line": [format!("{} Quay Street", 3 + number * 2)], "city": "Harbour Town"}],
        "generalPractitioner": [{"reference": practitioner}],
    }));
    let subject = json!({"reference": patient});
    for (i, problem) in person
        .problems
        .iter()
        .filter_map(|k| PROBLEMS.iter().find(|p| p.key == *k))
        .enumerate()
    {
        let years = 2 + (number * 3 + i * 5) % 12;
        let condition = b.add(json!({
            "resourceType": "Condition",
            "clinicalStatus": concept("condition-clinical", "active", "Active"),
            "verificationStatus": concept("condition-ver-status", "confirmed", "Confirmed"),
            "category": [concept("condition-category", "problem-list-item", "Problem List Item")],
            "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": problem.code, "display": problem.name}], "text": problem.name},
            "subject": subject,
            "onsetDateTime": date(now - days(years * 365)),
        }));
        for (medication, dosage) in problem.medications {
            b.add(json!({
                "resourceType": "MedicationRequest",
                "status": "active",
                "intent": "order",
                "medicationCodeableConcept": {"text": medication},
                "subject": subject,
                "authoredOn": rfc3339(at_ten(now - days(90 + number))),
                "requester": {"reference": practitioner},
                "reasonReference": [{"reference": condition}],
                "dosageInstruction": [{"text": dosage}],
            }));
        }
    }
    for (substance, reaction, severity) in person.allergies {
        b.add(json!({
            "resourceType": "AllergyIntolerance",
            "clinicalStatus": concept("allergyintolerance-clinical", "active", "Active"),
            "verificationStatus": concept("allergyintolerance-verification", "confirmed", "Confirmed"),
            "type": "allergy",
            "criticality": if *severity == "severe" { "high" } else { "low" },
            "code": {"text": substance},
            "patient": subject,
            "reaction": [{"manifestation": [{"text": reaction}], "severity": severity}],
        }));
    }
    for (visit, ago) in [31_usize, 122, 245].into_iter().enumerate() {
        let start = at_ten(now - days(ago + number % 9)) + 1_800_000 * (number as i64 % 8);
        seen(&mut b, person, &subject, practitioner, (number, visit), start);
    }
    for key in person.panels {
        for (round, ago) in [24_usize, 203].into_iter().enumerate() {
            if let Some(panel) = PANELS.iter().find(|p| p.0 == *key) {
                results(
                    &mut b,
                    panel,
                    &subject,
                    practitioner,
                    (number, round),
                    at_ten(now - days(ago + number % 7)),
                );
            }
        }
    }
    json!({"resourceType": "Bundle", "type": "transaction", "entry": b.entries})
}

pub(super) fn record_number(number: usize) -> String {
    format!("HC-{:04}", 1001 + number)
}

/// A past consultation at the clinic, with what was measured.
fn seen(
    b: &mut Bundle,
    person: &Person,
    subject: &Value,
    practitioner: &str,
    (number, visit): (usize, usize),
    start: Millis,
) {
    let end = start + 20 * 60_000;
    let reason = ["Follow-up", "Medication review", "Routine check"]
        .get(visit)
        .copied()
        .unwrap_or("Check");
    let encounter = b.add(json!({
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"system": format!("{TERMINOLOGY}/v3-ActCode"), "code": "AMB", "display": "ambulatory"},
        "subject": subject,
        "participant": [{"individual": {"reference": practitioner}, "period": {"start": rfc3339(start), "end": rfc3339(end)}}],
        "period": {"start": rfc3339(start), "end": rfc3339(end)},
        "reasonCode": [{"text": reason}],
    }));
    let child = person.birth > "2008";
    let pressure = if person.problems.contains(&"hypertension") {
        138.0
    } else {
        118.0
    };
    let vary = |salt: usize, span: f64| (wobble(number, visit * 16 + salt) - 0.5) * span;
    let quantity =
        |value: f64, unit: &str, code: &str| json!({"value": value, "unit": unit, "system": UCUM, "code": code});
    let mut vital = |profile: &str, code: &str, name: &str, value: Value, parts: Option<Value>| {
        let mut o = json!({
            "resourceType": "Observation",
            "meta": {"profile": [format!("http://hl7.org/fhir/StructureDefinition/{profile}")]},
            "status": "final",
            "category": [concept("observation-category", "vital-signs", "Vital Signs")],
            "code": {"coding": [{"system": LOINC, "code": code, "display": name}], "text": name},
            "subject": subject,
            "encounter": {"reference": encounter},
            "effectiveDateTime": rfc3339(start + 5 * 60_000),
            "performer": [{"reference": practitioner}],
        });
        match parts {
            Some(parts) => o["component"] = parts,
            None => o["valueQuantity"] = value,
        }
        b.add(o);
    };
    let rate = if child { 96.0 } else { 72.0 };
    vital(
        "heartrate",
        "8867-4",
        "Heart rate",
        quantity((rate + vary(1, 16.0)).round(), "beats/minute", "/min"),
        None,
    );
    vital(
        "bodytemp",
        "8310-5",
        "Body temperature",
        quantity(round(36.7 + vary(2, 0.8), 1), "°C", "Cel"),
        None,
    );
    if !child {
        let half = |code: &str, name: &str, value: f64| json!({"code": {"coding": [{"system": LOINC, "code": code, "display": name}], "text": name}, "valueQuantity": quantity(value.round(), "mmHg", "mm[Hg]")});
        let parts = json!([
            half("8480-6", "Systolic blood pressure", pressure + vary(3, 18.0)),
            half("8462-4", "Diastolic blood pressure", pressure * 0.62 + vary(4, 10.0)),
        ]);
        vital("bp", "85354-9", "Blood pressure", Value::Null, Some(parts));
        let weight = if person.sex == "male" { 82.0 } else { 68.0 };
        vital(
            "bodyweight",
            "29463-7",
            "Body weight",
            quantity(round(weight + wobble(number, 99) * 14.0 + vary(5, 2.0), 1), "kg", "kg"),
            None,
        );
    }
}

/// A laboratory report of the past. None of them is critical: the demo begins with a quiet board.
fn results(
    b: &mut Bundle,
    panel: &Panel,
    subject: &Value,
    practitioner: &str,
    (number, round_no): (usize, usize),
    at: Millis,
) {
    let (key, code, name, tests) = panel;
    let category = concept("observation-category", "laboratory", "Laboratory");
    let mut list = Vec::new();
    for (i, t) in tests.iter().enumerate() {
        // From a little under to a little over the reference range.
        let place = wobble(number * 7 + i, round_no + key.len() * 31) * 1.3 - 0.12;
        let value = round(t.low + (t.high - t.low) * place, t.digits);
        let flag = match value {
            v if v < t.low => ("L", "Low"),
            v if v > t.high => ("H", "High"),
            _ => ("N", "Normal"),
        };
        let limit = |v: f64| json!({"value": v, "unit": t.unit, "system": UCUM, "code": t.unit});
        let observation = b.add(json!({
            "resourceType": "Observation",
            "status": "final",
            "category": [category],
            "code": {"coding": [{"system": LOINC, "code": t.code}], "text": t.name},
            "subject": subject,
            "effectiveDateTime": rfc3339(at),
            "issued": rfc3339(at + 4 * 3_600_000),
            "valueQuantity": limit(value),
            "interpretation": [concept("v3-ObservationInterpretation", flag.0, flag.1)],
            "referenceRange": [{"low": limit(t.low), "high": limit(t.high)}],
        }));
        list.push(json!({"reference": observation}));
    }
    b.add(json!({
        "resourceType": "DiagnosticReport",
        "status": "final",
        "category": [concept("v2-0074", "LAB", "Laboratory")],
        "code": {"coding": [{"system": LOINC, "code": code}], "text": name},
        "subject": subject,
        "effectiveDateTime": rfc3339(at),
        "issued": rfc3339(at + 4 * 3_600_000),
        "resultsInterpreter": [{"reference": practitioner}],
        "result": list,
    }));
}

fn concept(system: &str, code: &str, display: &str) -> Value {
    json!({"coding": [{"system": format!("{TERMINOLOGY}/{system}"), "code": code, "display": display}]})
}

fn days(n: usize) -> Millis {
    i64::try_from(n).unwrap_or(0) * DAY
}

/// Ten o'clock (UTC) of the day.
fn at_ten(at: Millis) -> Millis {
    at - at.rem_euclid(DAY) + 10 * 3_600_000
}

fn date(at: Millis) -> String {
    rfc3339(at).chars().take(10).collect()
}

/// Between 0 and 1, and the same every time.
fn wobble(a: usize, b: usize) -> f64 {
    let mut x = (a as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (b as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
    x ^= x >> 31;
    x = x.wrapping_mul(0x94D0_49BB_1331_11EB);
    (x >> 40) as f64 / (1_u64 << 24) as f64
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::people::PATIENTS;

    const NOW: Millis = 1_772_442_000_000;

    #[test]
    fn every_reference_inside_leads_somewhere_and_nothing_lies_ahead() {
        for (number, person) in PATIENTS.iter().enumerate() {
            let bundle = bundle(person, number, "Practitioner/p", NOW);
            let entries = bundle["entry"].as_array().unwrap();
            let names: Vec<&str> = entries.iter().map(|e| e["fullUrl"].as_str().unwrap()).collect();
            let text = bundle.to_string();
            for reference in text
                .split("\"reference\":\"")
                .skip(1)
                .map(|t| t.split('"').next().unwrap())
            {
                assert!(
                    reference == "Practitioner/p" || names.contains(&reference),
                    "{reference}"
                );
            }
            for e in entries {
                for field in ["effectiveDateTime", "issued"] {
                    if let Some(at) = e["resource"][field]
                        .as_str()
                        .and_then(medtech_kernel::clock::parse_rfc3339)
                    {
                        assert!(at < NOW - DAY, "{field}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_key_of_a_patient_is_known_and_no_result_is_critical() {
        for (number, p) in PATIENTS.iter().enumerate() {
            assert!(
                p.problems.iter().all(|k| PROBLEMS.iter().any(|x| x.key == *k)),
                "{}",
                p.family
            );
            assert!(
                p.panels.iter().all(|k| PANELS.iter().any(|x| x.0 == *k)),
                "{}",
                p.family
            );
            let text = bundle(p, number, "Practitioner/p", NOW).to_string();
            assert!(
                ["HH", "LL", "AA"]
                    .iter()
                    .all(|flag| !text.contains(&format!("\"code\":\"{flag}\"")))
            );
        }
        assert_eq!(PATIENTS.len(), 25);
    }
}
