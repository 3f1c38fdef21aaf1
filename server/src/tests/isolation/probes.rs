//! What is asked: every route with every kind of id at each place, and the ways out of the record.

use super::table;
use serde_json::{Value, json};
use uuid::Uuid;

/// A request; in its path and body `{kind}` stands for an id.
#[derive(Clone)]
pub(super) struct Probe {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: Option<String>,
}

const KINDS: [&str; 7] = [
    "patient",
    "practitioner",
    "observation",
    "visit",
    "appointment",
    "device",
    "conversation",
];

/// Every route of the table with every kind of id at each place, and what a catch-all can be asked.
pub(super) fn probes(routes: &[table::Route]) -> Vec<Probe> {
    let mut all = Vec::new();
    for route in routes {
        for method in &route.methods {
            if route.path.ends_with("{*rest}") {
                continue;
            }
            for kind in KINDS {
                let mut path = String::new();
                let mut rest = route.path.as_str();
                while let Some((head, tail)) = rest.split_once('{') {
                    path.push_str(head);
                    path.push_str(&format!("{{{kind}}}"));
                    rest = tail.split_once('}').map_or("", |(_, tail)| tail);
                }
                path.push_str(rest);
                let places = route.path.contains('{') || *method != "GET";
                // Where nothing names an id, one request is enough, and one with the id in the query.
                let queries: &[&str] = if places {
                    &[""]
                } else {
                    &[
                        "",
                        "?id={X}&patient={X}&subject={X}&of=user:{X}&board={X}&after={X}&all=1",
                    ]
                };
                for query in queries {
                    let query = query.replace("{X}", &format!("{{{kind}}}"));
                    let body = matches!(*method, "POST" | "PUT" | "PATCH").then(|| body(kind));
                    all.push(Probe {
                        method,
                        path: format!("{path}{query}"),
                        body,
                    });
                }
                if !route.path.contains('{') && *method == "GET" && kind != KINDS[0] {
                    continue;
                }
            }
        }
    }
    all.extend(fhir());
    all
}

/// A body that names the id wherever a route may look for one.
fn body(kind: &str) -> String {
    let id = format!("{{{kind}}}");
    json!({
        "id": id, "patient_id": id, "patient": id, "practitioner_id": id, "conversation_id": id, "visit_id": id, "user": id, "subject": format!("user:{id}"),
        "client_id": Uuid::from_u128(9), "name": "x", "kind": "x", "body": {"text": "x"}, "delivered_upto": 1, "read_upto": 1, "link": id,
        "device": {"id": id, "name": "x"}, "camera": "ok", "microphone": "ok", "speaker": "ok", "accepted": true, "text_version": "1", "language": "en",
        "start": "2027-01-01T10:00:00Z", "end": "2027-01-01T10:20:00Z", "reason": "x", "reason_code": "emergency", "text": "walk through the isolation",
        "email": "x@y.example", "password": "x", "action": "read", "resource": {"kind": "patient", "id": id}, "slug": "x y", "zone": "UTC", "review": "seen",
    })
    .to_string()
}

/// Ways out of the record (R4): read, versions, criteria, chains, `_has`, includes, counts, sorting, conditions, bundles.
fn fhir() -> Vec<Probe> {
    let mut all = Vec::new();
    let mut add = |method: &'static str, path: String, body: Option<Value>| {
        all.push(Probe {
            method,
            path: format!("/fhir/R4{path}"),
            body: body.map(|b| b.to_string()),
        });
    };
    let types = [
        ("Patient", "patient"),
        ("Observation", "observation"),
        ("Appointment", "appointment"),
        ("Device", "device"),
        ("Practitioner", "practitioner"),
        ("Encounter", "visit"),
        ("Consent", "visit"),
    ];
    for (ty, kind) in types {
        for path in [
            format!("/{ty}/{{{kind}}}"),
            format!("/{ty}/{{{kind}}}/_history"),
            format!("/{ty}/{{{kind}}}/_history/1"),
            format!("/{ty}?_id={{{kind}}}"),
            format!("/{ty}?_id={{{kind}}}&_summary=count"),
            format!("/{ty}?_id={{{kind}}}&_total=accurate&_include=*&_revinclude=Observation:subject"),
            format!("/{ty}"),
            format!("/{ty}?_sort=-_lastUpdated"),
            format!("/{ty}/_history"),
        ] {
            add("GET", path, None);
        }
        add("DELETE", format!("/{ty}/{{{kind}}}"), None);
        add("PATCH", format!("/{ty}/{{{kind}}}"), None);
    }
    for path in [
        "/Observation?patient={patient}",
        "/Observation?subject=Patient/{patient}&_summary=count",
        "/Observation?subject:Patient._id={patient}&_summary=count",
        "/Observation?subject:Patient.identifier={mrn}",
        "/Observation?has-member:Observation._id={observation}",
        "/Observation?has-member:Observation.code={code}",
        "/Observation?_include=Observation:has-member",
        "/Observation?_include=Observation:subject&_sort=date",
        "/Encounter?patient={patient}&_revinclude=Observation:encounter",
        "/Encounter?reason-code={code}",
        "/Encounter?reason-code={why}",
        "/Patient?_has:Observation:patient:_id={observation}",
        "/Patient?_has:Observation:patient:code={code}",
        "/Patient?_has:Encounter:patient:reason-code={code}",
        "/Patient?_has:Observation:patient:code={sealed}",
        "/Patient?identifier={mrn}&_summary=count",
        "/Patient?birthdate=1977-07-07",
        "/Patient?_revinclude=Observation:subject&_revinclude=Encounter:subject",
        "/Observation/o-moved/_history",
        "/Observation/o-moved/_history/1",
        "/Observation/o-sealed",
        "/Observation?_security=V",
        "/Observation/o-denied",
        "/Patient/denier",
        "/Observation?patient=denier",
        "/Encounter/e-near",
        "/Encounter/e-near/_history",
        "/Encounter",
    ] {
        add("GET", path.to_owned(), None);
    }
    let about = json!({"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/{patient}"}});
    add("POST", "/Observation".into(), Some(about.clone()));
    let mut own = about.clone();
    own["id"] = json!("{observation}");
    add("PUT", "/Observation/{observation}".into(), Some(own));
    add("POST", "/Observation/_search?patient={patient}".into(), None);
    add(
        "POST",
        String::new(),
        Some(json!({"resourceType": "Bundle", "type": "batch", "entry": [
            {"request": {"method": "GET", "url": "Patient/{patient}"}}, {"request": {"method": "GET", "url": "Observation?patient={patient}"}},
            {"request": {"method": "DELETE", "url": "Observation/{observation}"}}]})),
    );
    add(
        "POST",
        String::new(),
        Some(json!({"resourceType": "Bundle", "type": "transaction", "entry": [
            {"resource": about, "request": {"method": "POST", "url": "Observation"}}, {"request": {"method": "GET", "url": "Patient/{patient}"}}]})),
    );
    add(
        "POST",
        String::new(),
        Some(
            json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": {"resourceType": "Patient", "active": true},
            "request": {"method": "POST", "url": "Patient", "ifNoneExist": "identifier={mrn}&birthdate=1977-07-07"}}]}),
        ),
    );
    all
}

pub(super) type Ids = Vec<(&'static str, String)>;

pub(super) fn filled(text: &str, ids: &Ids) -> String {
    let mut text = text.to_owned();
    for (kind, id) in ids {
        text = text.replace(&format!("{{{kind}}}"), id);
    }
    text
}
