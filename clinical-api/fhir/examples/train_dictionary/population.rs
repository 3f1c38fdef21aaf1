//! A small synthetic population, the same for the same seed: for the dictionary and for tests. Nobody in it exists.

#![allow(clippy::indexing_slicing, reason = "lists of this file")]

use serde_json::{Value, json};

/// A generator of numbers (SplitMix64): enough for made-up people.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn date(&mut self, from: usize, years: usize) -> String {
        format!(
            "{:04}-{:02}-{:02}",
            from + self.below(years),
            1 + self.below(12),
            1 + self.below(28)
        )
    }

    fn instant(&mut self) -> String {
        format!(
            "{}T{:02}:{:02}:{:02}+02:00",
            self.date(2019, 7),
            self.below(24),
            self.below(60),
            self.below(60)
        )
    }
}

const FAMILIES: &[&str] = &[
    "Müller",
    "Smith",
    "Smythe",
    "Okafor",
    "Nguyễn",
    "García",
    "O'Brien",
    "Ångström",
    "Kowalska",
    "Haddad",
    "Tanaka",
    "Rossi",
];
const GIVEN: &[&str] = &[
    "Ada", "Noah", "Léa", "Mateo", "Yuki", "Amara", "Zoë", "Ivan", "Fatima", "Jonas", "Chloé", "Raj",
];
const CITIES: &[&str] = &["Berlin", "Leipzig", "Zürich", "Wien", "Hamburg", "Genève"];
const CONDITIONS: &[(&str, &str)] = &[
    ("38341003", "Hypertensive disorder"),
    ("44054006", "Diabetes mellitus type 2"),
    ("195967001", "Asthma"),
    ("55822004", "Hyperlipidemia"),
    ("35489007", "Depressive disorder"),
];
const VITALS: &[(&str, &str, &str, &str, usize, usize)] = &[
    ("8867-4", "Heart rate", "beats/minute", "/min", 50, 60),
    (
        "59408-5",
        "Oxygen saturation in Arterial blood by Pulse oximetry",
        "%",
        "%",
        88,
        12,
    ),
    ("8310-5", "Body temperature", "C", "Cel", 35, 5),
    ("9279-1", "Respiratory rate", "breaths/minute", "/min", 10, 16),
    ("29463-7", "Body weight", "kg", "kg", 45, 70),
    ("8302-2", "Body height", "cm", "cm", 150, 50),
    ("2339-0", "Glucose [Mass/volume] in Blood", "mg/dL", "mg/dL", 60, 160),
    ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%", "%", 4, 8),
    (
        "2160-0",
        "Creatinine [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        0,
        3,
    ),
];
const DRUGS: &[(&str, &str)] = &[
    ("314076", "lisinopril 10 MG Oral Tablet"),
    ("860975", "metformin hydrochloride 500 MG Oral Tablet"),
    ("617314", "atorvastatin 20 MG Oral Tablet"),
    ("745679", "albuterol 90 MCG/ACTUAT Inhaler"),
];

fn coding(system: &str, code: &str, display: &str) -> Value {
    json!({"coding": [{"system": system, "code": code, "display": display}], "text": display})
}

fn decimal(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// A patient and what belongs to them. References are `Type/id` with the ids given here.
pub(crate) fn patient(dice: &mut Dice, n: usize) -> Vec<Value> {
    let id = format!("pat-{n}");
    let subject = json!({"reference": format!("Patient/{id}"), "display": "Patient"});
    let doctor = json!({"reference": format!("Practitioner/doc-{}", dice.below(3))});
    let mut out = vec![json!({
        "resourceType": "Patient", "id": id,
        "text": {"status": "generated", "div": "<div xmlns=\"http://www.w3.org/1999/xhtml\">Generated summary of a patient</div>"},
        "identifier": [
            {"use": "usual", "type": coding("http://terminology.hl7.org/CodeSystem/v2-0203", "MR", "Medical record number"), "system": "urn:oid:1.2.36.146.595.217.0.1", "value": format!("MRN{:06}", n * 7)},
            {"system": "http://hl7.org/fhir/sid/us-ssn", "value": format!("999-{:02}-{:04}", dice.below(99), n)}],
        "active": dice.below(10) > 0,
        "name": [{"use": "official", "family": dice.pick(FAMILIES), "given": [dice.pick(GIVEN), dice.pick(GIVEN)]}],
        "telecom": [{"system": "phone", "value": format!("+49 30 {:07}", dice.below(9_999_999)), "use": "home"}, {"system": "email", "value": format!("p{n}@example.org")}],
        "gender": dice.pick(&["male", "female", "other", "unknown"]), "birthDate": dice.date(1930, 90),
        "address": [{"use": "home", "line": [format!("Hauptstraße {}", dice.below(200))], "city": dice.pick(CITIES), "postalCode": format!("{:05}", dice.below(99_999)), "country": "DE"}],
        "maritalStatus": coding("http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", "M", "Married"),
        "communication": [{"language": coding("urn:ietf:bcp:47", "de", "German")}],
        "generalPractitioner": [doctor.clone()], "managingOrganization": {"reference": "Organization/clinic"}
    })];
    let mut seq = 0;
    let mut next = |kind: &str| {
        seq += 1;
        format!("{kind}-{n}-{seq}")
    };
    for _ in 0..2 + dice.below(2) {
        let encounter = next("enc");
        let start = dice.instant();
        let context = json!({"reference": format!("Encounter/{encounter}")});
        out.push(json!({"resourceType": "Encounter", "id": encounter, "status": dice.pick(&["finished", "in-progress", "planned"]),
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": dice.pick(&["AMB", "VR"]), "display": "ambulatory"},
            "type": [coding("http://snomed.info/sct", "185349003", "Encounter for check up (procedure)")], "subject": subject,
            "participant": [{"type": [coding("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "PPRF", "primary performer")], "individual": doctor}],
            "period": {"start": start, "end": format!("{}T23:59:59+02:00", &start[..10])}, "serviceProvider": {"reference": "Organization/clinic"}}));
        for _ in 0..4 + dice.below(5) {
            let (code, name, unit, ucum, low, span) = dice.pick(VITALS);
            let value = decimal(&format!(
                "{}.{}{}",
                low + dice.below(span),
                dice.below(10),
                dice.pick(&["", "0"])
            ));
            out.push(json!({"resourceType": "Observation", "id": next("obs"), "status": dice.pick(&["final", "final", "preliminary", "amended"]),
                "category": [coding("http://terminology.hl7.org/CodeSystem/observation-category", dice.pick(&["vital-signs", "laboratory"]), "Vital Signs")],
                "code": coding("http://loinc.org", code, name), "subject": subject, "encounter": context,
                "effectiveDateTime": dice.instant(), "issued": dice.instant().replace("+02:00", ".123+02:00"), "performer": [doctor],
                "valueQuantity": {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": ucum}}));
        }
        let (systolic, diastolic) = (100 + dice.below(70), 60 + dice.below(40));
        let part = |code: &str, name: &str, v: usize| json!({"code": coding("http://loinc.org", code, name), "valueQuantity": {"value": v, "unit": "mm[Hg]", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"}});
        out.push(json!({"resourceType": "Observation", "id": next("obs"), "status": "final", "category": [coding("http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs", "Vital Signs")],
            "code": coding("http://loinc.org", "85354-9", "Blood pressure panel with all children optional"), "subject": subject, "encounter": context, "effectiveDateTime": dice.instant(),
            "component": [part("8480-6", "Systolic blood pressure", systolic), part("8462-4", "Diastolic blood pressure", diastolic)]}));
        let (code, name) = dice.pick(CONDITIONS);
        out.push(json!({"resourceType": "Condition", "id": next("con"), "clinicalStatus": coding("http://terminology.hl7.org/CodeSystem/condition-clinical", dice.pick(&["active", "resolved"]), "Active"),
            "verificationStatus": coding("http://terminology.hl7.org/CodeSystem/condition-ver-status", "confirmed", "Confirmed"),
            "category": [coding("http://terminology.hl7.org/CodeSystem/condition-category", "encounter-diagnosis", "Encounter Diagnosis")],
            "code": coding("http://snomed.info/sct", code, name), "subject": subject, "encounter": context, "onsetDateTime": dice.date(2000, 24), "recordedDate": dice.instant()}));
        let (code, name) = dice.pick(DRUGS);
        out.push(json!({"resourceType": "MedicationRequest", "id": next("med"), "status": dice.pick(&["active", "stopped", "completed"]), "intent": "order",
            "medicationCodeableConcept": coding("http://www.nlm.nih.gov/research/umls/rxnorm", code, name), "subject": subject, "encounter": context, "authoredOn": dice.instant(), "requester": doctor,
            "dosageInstruction": [{"sequence": 1, "text": "Take one tablet daily", "timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}}, "asNeededBoolean": false,
                "doseAndRate": [{"type": coding("http://terminology.hl7.org/CodeSystem/dose-rate-type", "ordered", "Ordered"), "doseQuantity": {"value": 1}}]}],
            "dispenseRequest": {"numberOfRepeatsAllowed": dice.below(5), "quantity": {"value": 30, "unit": "tablets"}}}));
        out.push(json!({"resourceType": "DiagnosticReport", "id": next("rep"), "status": "final", "category": [coding("http://terminology.hl7.org/CodeSystem/v2-0074", "LAB", "Laboratory")],
            "code": coding("http://loinc.org", "58410-2", "CBC panel - Blood by Automated count"), "subject": subject, "encounter": context, "effectiveDateTime": dice.instant(), "issued": dice.instant(),
            "performer": [{"reference": "Organization/clinic"}], "result": [{"reference": format!("Observation/obs-{n}-2"), "display": "Heart rate"}], "conclusion": "Within normal limits"}));
        out.push(json!({"resourceType": "Appointment", "id": next("apt"), "status": dice.pick(&["booked", "arrived", "fulfilled", "cancelled"]), "description": "Video consultation",
            "start": dice.instant(), "end": dice.instant(), "minutesDuration": 20, "participant": [{"actor": subject, "status": "accepted"}, {"actor": doctor, "status": "accepted"}]}));
    }
    out.push(json!({"resourceType": "AllergyIntolerance", "id": next("all"), "clinicalStatus": coding("http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "active", "Active"),
        "type": "allergy", "category": ["food"], "criticality": "low", "code": coding("http://snomed.info/sct", "91935009", "Allergy to peanuts"), "patient": subject, "recordedDate": dice.instant(),
        "reaction": [{"manifestation": [coding("http://snomed.info/sct", "271807003", "Eruption of skin")], "severity": "mild"}]}));
    out.push(json!({"resourceType": "Immunization", "id": next("imm"), "status": "completed", "vaccineCode": coding("http://hl7.org/fhir/sid/cvx", "140", "Influenza, seasonal, injectable, preservative free"),
        "patient": subject, "occurrenceDateTime": dice.instant(), "primarySource": true, "lotNumber": format!("L{}", dice.below(9999))}));
    out
}

/// What patients refer to.
#[allow(dead_code, reason = "the dictionary is trained on patients alone")]
pub(crate) fn house() -> Vec<Value> {
    let mut out = vec![
        json!({"resourceType": "Organization", "id": "clinic", "active": true, "name": "Clinic", "type": [coding("http://terminology.hl7.org/CodeSystem/organization-type", "prov", "Healthcare Provider")]}),
    ];
    for n in 0..3 {
        out.push(json!({"resourceType": "Practitioner", "id": format!("doc-{n}"), "identifier": [{"system": "http://hl7.org/fhir/sid/us-npi", "value": format!("99999{n:05}")}], "active": true,
            "name": [{"family": FAMILIES[n], "given": [GIVEN[n]], "prefix": ["Dr."]}], "gender": "female"}));
    }
    out
}
