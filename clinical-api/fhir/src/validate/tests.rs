use super::*;
use serde_json::json;

fn expressions(value: &Value) -> Vec<String> {
    resource(value).into_iter().map(|i| i.expression).collect()
}

#[test]
fn what_r4_allows_passes() {
    let fine = [
        json!({"resourceType": "Patient"}),
        json!({"resourceType": "Patient", "birthDate": "1970-05", "_birthDate": {"extension": [{"url": "u", "valueDateTime": "1970-05-01T10:00:00Z"}]}}),
        json!({"resourceType": "Patient", "name": [{"given": ["A", null], "_given": [null, {"id": "x"}]}]}),
        json!({"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/1"}, "valueQuantity": {"value": 1.0}}),
        json!({"resourceType": "Questionnaire", "status": "draft", "item": [{"linkId": "1", "type": "group", "item": [{"linkId": "1.1", "type": "string"}]}]}),
        json!({"resourceType": "Patient", "contained": [{"resourceType": "Organization", "id": "o", "name": "O"}], "managingOrganization": {"reference": "#o"}}),
    ];
    for value in fine {
        assert_eq!(resource(&value), Vec::new(), "{value}");
    }
}

#[test]
fn what_r4_forbids_is_named() {
    let wrong = [
        (json!({"resourceType": "Patient", "nickname": "x"}), "Patient"),
        (json!({"resourceType": "Patient", "active": "yes"}), "Patient.active"),
        (
            json!({"resourceType": "Patient", "name": {"family": "x"}}),
            "Patient.name",
        ),
        (
            json!({"resourceType": "Patient", "birthDate": ["1970"]}),
            "Patient.birthDate",
        ),
        (
            json!({"resourceType": "Patient", "birthDate": "1970-13-01"}),
            "Patient.birthDate",
        ),
        (json!({"resourceType": "Patient", "gender": "robot"}), "Patient.gender"),
        (json!({"resourceType": "Patient", "name": []}), "Patient.name"),
        (json!({"resourceType": "Patient", "name": [{}]}), "Patient.name[0]"),
        (
            json!({"resourceType": "Patient", "deceasedBoolean": true, "deceasedDateTime": "2020"}),
            "Patient.deceased",
        ),
        (
            json!({"resourceType": "Patient", "generalPractitioner": [{"reference": "Device/1"}]}),
            "Patient.generalPractitioner[0].reference",
        ),
        (
            json!({"resourceType": "Observation", "code": {"text": "x"}}),
            "Observation.status",
        ),
        (
            json!({"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "issued": "2020-01-01"}),
            "Observation.issued",
        ),
        (
            json!({"resourceType": "Patient", "multipleBirthInteger": 1.5}),
            "Patient.multipleBirth",
        ),
        (json!({"resourceType": "Patient", "id": "a b"}), "Patient.id"),
        (
            json!({"resourceType": "Patient", "contained": [{"resourceType": "Nobody"}]}),
            "Patient.contained[0]",
        ),
        (json!({"resourceType": "Nobody"}), ""),
        (json!([1]), ""),
        (json!({"resourceType": "Patient", "_name": [{"id": "x"}]}), "Patient"),
        (json!({"resourceType": "Patient", "active": null}), "Patient.active"),
    ];
    for (value, expression) in wrong {
        let found = expressions(&value);
        assert!(found.iter().any(|e| e == expression), "{value}: {found:?}");
    }
}
