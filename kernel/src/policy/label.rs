//! Security labels (`meta.security`, HL7 v3 Confidentiality and ActCode): what a label asks of whoever looks.

/// Shown to those who treat the patient.
pub const RELATED: &[&str] = &[
    "R", "PSY", "MH", "BH", "PSYTHPN", "HIV", "SEX", "STD", "SDV", "GDIS", "ADOL", "PREGNANT", "minors",
];

/// Shown to those whom the patient's Consent names (42 CFR Part 2: substance use), and in an emergency. That they treat
/// the patient is not enough.
pub const NAMED: &[&str] = &["V", "ETH", "SUD", "ETHUD", "OPIOIDUD", "ALCUD", "42CFRPart2"];

/// Does a label stand on it that hides it from anyone who may else see the patient's record?
#[must_use]
pub fn is_sensitive(label: &str) -> bool {
    RELATED.contains(&label) || NAMED.contains(&label)
}

/// The labels of a resource.
pub fn of(resource: &serde_json::Value) -> impl Iterator<Item = &str> {
    let security = resource.pointer("/meta/security").and_then(serde_json::Value::as_array);
    security
        .into_iter()
        .flatten()
        .filter_map(|c| c.get("code").and_then(serde_json::Value::as_str))
}
