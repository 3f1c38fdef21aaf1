//! The CapabilityStatement, made from the same tables the engine runs on: it claims what is answered, nothing else.

use crate::definitions::{Definitions, Kind, ResourceDef};
use medtech_kernel::clock;
use serde_json::{Value, json};

pub(crate) fn statement(base: &str, now: i64) -> Value {
    let resources: Vec<Value> = Definitions::get().resources().iter().map(resource).collect();
    json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": clock::rfc3339(now),
        "kind": "instance",
        "software": {"name": "NextGen MedTech", "version": env!("CARGO_PKG_VERSION")},
        "implementation": {"description": "NextGen MedTech FHIR R4", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [{
            "mode": "server",
            "security": {
                "description": "Bearer tokens (RFC 6750). The clinic's people see the clinic's records, a patient the own record.",
            },
            "resource": resources,
            "interaction": [{"code": "transaction"}, {"code": "batch"}],
        }],
    })
}

fn resource(def: &'static ResourceDef) -> Value {
    let interactions = [
        "read",
        "vread",
        "update",
        "delete",
        "history-instance",
        "history-type",
        "create",
        "search-type",
    ];
    let supported = || def.params.iter().filter(|p| p.supported());
    let params: Vec<Value> = supported()
        .map(|p| json!({"name": p.code, "type": p.kind.name()}))
        .collect();
    let references = supported()
        .filter(|p| p.kind == Kind::Reference)
        .map(|p| format!("{}:{}", def.name, p.code));
    let reverse = Definitions::get().resources().iter().flat_map(|from| {
        let to_us = from
            .params
            .iter()
            .filter(|p| p.supported() && p.kind == Kind::Reference && p.targets.contains(&def.name));
        to_us.map(move |p| format!("{}:{}", from.name, p.code))
    });
    json!({
        "type": def.name,
        "interaction": interactions.map(|code| json!({"code": code})),
        "versioning": "versioned-update",
        "readHistory": true,
        "updateCreate": true,
        "conditionalCreate": true,
        "conditionalRead": "not-match",
        "conditionalUpdate": true,
        "conditionalDelete": "not-supported",
        "referencePolicy": ["literal", "logical", "local"],
        "searchInclude": references.collect::<Vec<_>>(),
        "searchRevInclude": reverse.collect::<Vec<_>>(),
        "searchParam": params,
    })
}
