//! The resource of the record that a person is: looked for by name or number, so that an account can be linked to it.

use crate::Identity;
use medtech_fhir::{Access, Fhir, Resource};
use medtech_kernel::{Error, Result, TenantId};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write;

/// Candidates shown at once.
const MOST: usize = 10;

/// A Patient or Practitioner, as far as it takes to tell one from another.
#[derive(Debug, Serialize)]
pub(crate) struct Candidate {
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) birth_date: Option<String>,
}

impl Identity {
    pub(crate) fn records(&self) -> Result<&Fhir> {
        let absent = || Error::internal("identity.no_records", "this process has no records");
        self.records.as_ref().ok_or_else(absent)
    }

    pub(crate) async fn candidates(&self, tenant: TenantId, kind: &str, text: &str) -> Result<Vec<Candidate>> {
        let kind = match kind {
            "patient" => "Patient",
            "practitioner" => "Practitioner",
            _ => return Err(Error::bad("identity.kind", "`kind` is patient or practitioner.")),
        };
        let query = format!("name={}&_count={MOST}", escaped(text.trim()));
        let found = self.records()?.search(tenant, &Access::All, kind, &query).await?;
        found.resources.iter().map(candidate).collect()
    }

    pub(crate) async fn patient(&self, tenant: TenantId, id: &str) -> Result<Value> {
        let unknown = |_| Error::not_found("identity.patient_unknown", "There is no such patient.");
        let found = self.records()?.read(tenant, &Access::All, "Patient", id).await;
        found.map_err(unknown)?.value()
    }
}

fn candidate(resource: &Resource) -> Result<Candidate> {
    let value = resource.value()?;
    Ok(Candidate {
        id: resource.id.clone(),
        name: human_name(&value).unwrap_or_else(|| resource.reference()),
        birth_date: value.get("birthDate").and_then(Value::as_str).map(str::to_owned),
    })
}

/// The first name: its text, or its parts in their order.
pub(crate) fn human_name(resource: &Value) -> Option<String> {
    let name = resource.get("name")?.get(0)?;
    if let Some(text) = name.get("text").and_then(Value::as_str) {
        return Some(text.to_owned());
    }
    let many = |field| {
        let parts = name.get(field).and_then(Value::as_array).into_iter().flatten();
        parts.filter_map(Value::as_str)
    };
    let family = name.get("family").and_then(Value::as_str);
    let parts: Vec<&str> = many("prefix").chain(many("given")).chain(family).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// A value as it stands in a query (RFC 3986), with FHIR's own separators escaped.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if matches!(c, ',' | '$' | '|' | '\\') {
            out.push_str("%5C");
        }
        let mut bytes = [0; 4];
        for b in c.encode_utf8(&mut bytes).bytes() {
            if b.is_ascii_alphanumeric() {
                out.push(char::from(b));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{b:02X}");
            }
        }
    }
    out
}
