//! An entry of the trail as a FHIR R4 AuditEvent, after the patterns of IHE BALP 1.1: who, what, whose, when, how it ended.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use medtech_kernel::{Tenant, audit::Found, clock::rfc3339};
use serde_json::{Map, Value, json};

const DCM: &str = "http://dicom.nema.org/resources/ontology/DCM";
const TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-event-type";
const INTERACTION: &str = "http://hl7.org/fhir/restful-interaction";
const ENTITY: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
const ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";

/// The AuditEvent of an entry. Its number and hash go along, so that the export can be held against the chain.
/// `patients` are those whom an entry about several names.
pub(super) fn of(tenant: &Tenant, f: &Found, patients: &[String]) -> Value {
    let (kind, subtype) = kind(f);
    let mut event = json!({
        "resourceType": "AuditEvent",
        "id": format!("{}-{}", tenant.slug, f.seq),
        "type": kind,
        "action": match f.action.as_str() {
            "create" => "C",
            "read" => "R",
            "update" => "U",
            "delete" => "D",
            _ => "E",
        },
        "recorded": rfc3339(f.at),
        "outcome": if f.outcome == "success" { "0" } else { "4" },
        "outcomeDesc": f.outcome,
        "agent": agents(f),
        "source": {
            "observer": {"display": format!("MedTech, {}", tenant.name)},
            "type": [coding("http://terminology.hl7.org/CodeSystem/security-source-type", "4", "Application Server")],
        },
        "entity": entities(f, patients),
    });
    if let (Some(subtype), Some(event)) = (subtype, event.as_object_mut()) {
        event.insert("subtype".into(), json!([subtype]));
    }
    event
}

/// Who asked, from where; and the operator who took the token in that person's name, where it was so (RFC 8693's actor).
fn agents(f: &Found) -> Value {
    let mut asked = json!({
        "type": coded(DCM, "110153", "Source Role ID"),
        "who": {"identifier": {"value": f.actor}},
        "requestor": true,
    });
    if let (Some(network), Some(asked)) = (&f.origin.network, asked.as_object_mut()) {
        asked.insert("network".into(), json!({"address": network, "type": "2"}));
    }
    let mut all = vec![asked];
    if f.origin.machine {
        all.push(json!({
            "type": coded("http://terminology.hl7.org/CodeSystem/provenance-participant-type", "enterer", "Enterer"),
            "who": {"display": "The operator at the machine, by a token taken there in the name of the other agent"},
            "requestor": false,
        }));
    }
    Value::Array(all)
}

fn coding(system: &str, code: &str, display: &str) -> Value {
    json!({"system": system, "code": code, "display": display})
}

fn coded(system: &str, code: &str, display: &str) -> Value {
    json!({"coding": [coding(system, code, display)]})
}

/// Type and subtype.
fn kind(f: &Found) -> (Value, Option<Value>) {
    match f.target.as_str() {
        "sign-in" => (
            coding(DCM, "110114", "User Authentication"),
            Some(coding(DCM, "110122", "Login")),
        ),
        "sign-out" => (
            coding(DCM, "110114", "User Authentication"),
            Some(coding(DCM, "110123", "Logout")),
        ),
        "audit" => (coding(DCM, "110101", "Audit Log Used"), None),
        "Bundle" => (
            coding(TYPE, "rest", "RESTful Operation"),
            Some(coding(INTERACTION, "transaction", "transaction")),
        ),
        _ if is_resource(&f.target) => (coding(TYPE, "rest", "RESTful Operation"), interaction(f)),
        _ => (coding(DCM, "110100", "Application Activity"), None),
    }
}

fn interaction(f: &Found) -> Option<Value> {
    let first = f.detail.split(' ').next().unwrap_or("");
    let code = match (f.action.as_str(), first) {
        ("create", _) => "create",
        ("update", _) => "update",
        ("delete", _) => "delete",
        ("read", "vread") => "vread",
        ("read", "search") => "search-type",
        ("read", "history") if f.target.contains('/') => "history-instance",
        ("read", "history") => "history-type",
        ("read", _) => "read",
        _ => return None,
    };
    Some(coding(INTERACTION, code, code))
}

/// `Type` or `Type/id` of FHIR, in the form of its references; messages and files of our own are none.
fn is_resource(target: &str) -> bool {
    let (ty, id) = target.split_once('/').unwrap_or((target, ""));
    ty.starts_with(|c: char| c.is_ascii_uppercase())
        && ty.bytes().all(|b| b.is_ascii_alphanumeric())
        && !matches!(ty, "Message" | "File")
        && id.len() <= 64
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

fn entities(f: &Found, patients: &[String]) -> Value {
    let mut what = Map::new();
    if is_resource(&f.target) && f.target.contains('/') {
        what.insert("reference".into(), json!(f.target));
    } else {
        what.insert("identifier".into(), json!({"value": f.target}));
    }
    let mut detail = vec![
        json!({"type": "sequence", "valueString": f.seq.to_string()}),
        json!({"type": "hash", "valueBase64Binary": BASE64.encode(f.hash)}),
    ];
    if let Some(session) = f.origin.session {
        detail.push(json!({"type": "session", "valueString": session}));
    }
    for digest in f.digest.iter().flat_map(|d| d.chunks(32)) {
        detail.push(json!({"type": "sha256", "valueBase64Binary": BASE64.encode(digest)}));
    }
    if !f.detail.is_empty() {
        detail.push(json!({"type": "detail", "valueString": f.detail}));
    }
    let mut all = vec![json!({
        "what": what,
        "type": coding(ENTITY, "2", "System Object"),
        "role": coding(ROLE, "4", "Domain Resource"),
        "detail": detail,
    })];
    for patient in f.patient.iter().chain(patients) {
        all.push(json!({
            "what": {"reference": format!("Patient/{patient}")},
            "type": coding(ENTITY, "1", "Person"),
            "role": coding(ROLE, "1", "Patient"),
        }));
    }
    Value::Array(all)
}
