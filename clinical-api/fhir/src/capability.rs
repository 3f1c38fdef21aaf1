//! The CapabilityStatement, made from the same tables the engine runs on: it claims what is answered, nothing else.

use crate::definitions::{Definitions, Kind, ResourceDef};
use medtech_kernel::clock;
use serde_json::{Value, json};

/// The extension by which clients of the first SMART versions find the authorization server.
const OAUTH_URIS: &str = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris";

/// `origin`: the clinic's address, where the authorization server stands beside the engine.
pub(crate) fn statement(origin: &str, now: i64) -> Value {
    let resources: Vec<Value> = Definitions::get().resources().iter().map(resource).collect();
    let uris = ["authorize", "token", "introspect", "revoke"]
        .map(|name| json!({"url": name, "valueUri": format!("{origin}/oauth2/{name}")}));
    json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": clock::rfc3339(now),
        "kind": "instance",
        "software": {"name": "NextGen MedTech", "version": env!("CARGO_PKG_VERSION")},
        "implementation": {"description": "NextGen MedTech FHIR R4", "url": format!("{origin}{}", crate::PATH)},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [{
            "mode": "server",
            "security": {
                "cors": true,
                "service": [{
                    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/restful-security-service", "code": "SMART-on-FHIR"}],
                    "text": "OAuth 2.1 by SMART App Launch 2.2",
                }],
                "description": "Access tokens of the authorization server, as bearer (RFC 6750) or bound to a key (RFC 9449). The clinic's people see the clinic's records, a patient the own record, an application what it was allowed.",
                "extension": [{
                    "url": OAUTH_URIS,
                    "extension": uris,
                }],
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
