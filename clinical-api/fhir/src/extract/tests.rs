use super::*;
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn every_expression_of_r4_is_understood() {
    let all = Definitions::get();
    let mut unusable = BTreeSet::new();
    let mut unanswered = BTreeSet::new();
    for r in all.resources() {
        let plan = r.plan();
        assert_eq!(plan.failed, Vec::<String>::new());
        unusable.extend(plan.unusable.iter().cloned());
        unanswered.extend(
            r.params
                .iter()
                .filter(|p| !p.supported() && p.kind != Kind::Composite)
                .map(|p| p.code),
        );
    }
    // Not answered at all, and refused by name when asked for.
    assert_eq!(
        unanswered.into_iter().collect::<Vec<_>>(),
        ["_content", "_query", "_text", "near"]
    );
    // Types that hold nothing such a parameter could compare, by the published expressions themselves.
    let expected: BTreeSet<String> = include_str!("unusable.txt").lines().map(str::to_owned).collect();
    assert_eq!(unusable, expected);
}

#[test]
fn a_patient_gives_its_values() {
    let patient = json!({
        "resourceType": "Patient", "birthDate": "1970-01-01", "gender": "female", "active": true,
        "name": [{"family": "Müller", "given": ["Ada"]}],
        "telecom": [{"system": "phone", "value": "+49 1"}, {"system": "email", "value": "A@x.org"}],
        "identifier": [{"system": "urn:mrn", "value": "7"}],
        "generalPractitioner": [{"reference": "Practitioner/9"}, {"reference": "Organization/4"}]
    });
    let def = Definitions::get().resource("Patient").expect("Patient");
    let k = |code: &str| def.param(code).expect("param").k;
    let out = def.plan().run(&patient, "");
    assert!(out.codes.contains(&(k("gender"), "female".into(), String::new())));
    assert!(out.codes.contains(&(k("deceased"), "false".into(), String::new())));
    assert!(out.strings.contains(&(k("family"), "muller\u{1}Müller".into())));
    assert!(out.strings.contains(&(k("name"), "ada\u{1}Ada".into())));
    assert!(out.dates.contains(&(k("birthdate"), Range { lo: 0, hi: 86_399_999 })));
    assert!(out.hashes.contains(&(k("identifier"), hash(&["both", "urn:mrn", "7"]))));
    assert!(out.hashes.contains(&(k("email"), hash(&["value", "a@x.org"]))));
    assert!(!out.hashes.contains(&(k("phone"), hash(&["value", "a@x.org"]))));
    assert_eq!(
        out.references
            .iter()
            .filter(|(key, _)| *key == k("general-practitioner"))
            .count(),
        2
    );
    assert!(def.plan().is_single(k("birthdate")));
}

#[test]
fn references_are_told_apart_by_type() {
    let def = Definitions::get().resource("Observation").expect("Observation");
    let k = |code: &str| def.param(code).expect("param").k;
    let out = def.plan().run(&json!({"resourceType": "Observation", "subject": {"reference": "Group/1"}, "valueQuantity": {"value": 1.50, "unit": "mg", "code": "mg", "system": "u"}}), "");
    assert!(
        out.references
            .contains(&(k("subject"), Reference::Local("Group", "1".into())))
    );
    assert!(!out.references.iter().any(|(key, _)| *key == k("patient")));
    assert!(
        out.quantities
            .contains(&(k("value-quantity"), Some(("mg".into(), "u".into())), 1.5))
    );
}
