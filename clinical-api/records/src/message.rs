//! A chat message of a visit becomes a Communication; a file that came with it, a DocumentReference too. Pure.

use crate::{
    encounter::Person,
    fhirish::{Time, reference, uri_identifier},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use medtech_kernel::clock::rfc3339;
use serde::Deserialize;
use serde_json::{Value, json};

/// The body of `message.created`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct MessageCreated {
    #[serde(default)]
    pub topic: Option<String>,
    pub message: Message,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Message {
    pub id: String,
    pub sender: Person,
    pub at: Time,
    #[serde(default)]
    pub body: Content,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Content {
    pub text: Option<String>,
    pub file: Option<File>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct File {
    pub id: String,
    #[serde(default)]
    pub name: String,
    #[serde(default, rename = "type")]
    pub media_type: String,
    #[serde(default)]
    pub size: Option<u64>,
    /// Hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// Whose record a message goes into, and who is who.
pub(crate) struct Context<'a> {
    pub patient: &'a str,
    pub encounter: Option<&'a str>,
    /// Reference of the sender, where they have one in the record.
    pub sender: Option<&'a str>,
}

pub(crate) fn communication(message: &Message, context: &Context<'_>) -> Value {
    let mut payload = Vec::with_capacity(2);
    if let Some(words) = message.body.text.as_deref().filter(|t| !t.is_empty()) {
        payload.push(json!({"contentString": words}));
    }
    if let Some(file) = &message.body.file {
        payload.push(json!({"contentAttachment": attachment(file, message)}));
    }
    let mut resource = json!({
        "resourceType": "Communication",
        "identifier": [uri_identifier(&format!("urn:uuid:{}", message.id))],
        "status": "completed",
        "subject": reference(&format!("Patient/{}", context.patient)),
        "sent": rfc3339(message.at.0),
        "sender": person(&message.sender, context),
    });
    if let Some(encounter) = context.encounter {
        resource["encounter"] = reference(&format!("Encounter/{encounter}"));
    }
    if !payload.is_empty() {
        resource["payload"] = Value::Array(payload);
    }
    resource
}

/// The DocumentReference of the message's file; `None` when it has none.
pub(crate) fn document(message: &Message, context: &Context<'_>) -> Option<Value> {
    let file = message.body.file.as_ref()?;
    let mut resource = json!({
        "resourceType": "DocumentReference",
        "masterIdentifier": uri_identifier(&format!("urn:uuid:{}", file.id)),
        "status": "current",
        "subject": reference(&format!("Patient/{}", context.patient)),
        "date": rfc3339(message.at.0),
        "author": [person(&message.sender, context)],
        "content": [{"attachment": attachment(file, message)}],
    });
    // Attachment.hash is SHA-1 in R4; the stronger digest stands as an identifier (RFC 6920).
    if let Some(digest) = file.sha256.as_deref().and_then(unhex) {
        let name = format!("ni:///sha-256;{}", URL_SAFE_NO_PAD.encode(digest));
        resource["identifier"] = json!([uri_identifier(&name)]);
    }
    if let Some(encounter) = context.encounter {
        resource["context"] = json!({"encounter": [reference(&format!("Encounter/{encounter}"))]});
    }
    Some(resource)
}

fn person(who: &Person, context: &Context<'_>) -> Value {
    let mut out = json!({});
    if let Some(sender) = context.sender {
        out["reference"] = json!(sender);
    }
    out["display"] = json!(if who.name.is_empty() { "Participant" } else { &who.name });
    out
}

fn attachment(file: &File, message: &Message) -> Value {
    let mut out = json!({"url": format!("/files/{}", file.id), "creation": rfc3339(message.at.0)});
    if !file.media_type.is_empty() {
        out["contentType"] = json!(file.media_type);
    }
    if !file.name.is_empty() {
        out["title"] = json!(file.name);
    }
    // R4's unsignedInt ends at 2^31 - 1; larger files say their size through the file door.
    if let Some(size) = file.size.filter(|s| *s <= 0x7fff_ffff) {
        out["size"] = json!(size);
    }
    out
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let digits = digits.filter(|d| d.len() == 64)?;
    Some(
        digits
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |n, d| n << 4 | d))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_document_with_its_digest_and_an_attachment() {
        let m: Message = serde_json::from_value(json!({
            "id": "0190a000-0000-7000-8000-0000000000bb", "seq": 1, "sender": {"subject": "guest:g", "name": "Pat"},
            "at": "2026-03-02T09:10:00.500Z",
            "body": {"file": {"id": "f1", "name": "rash.jpg", "type": "image/jpeg", "size": 10,
                "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}},
        }))
        .unwrap();
        let context = Context {
            patient: "p1",
            encounter: Some("e1"),
            sender: Some("Patient/p1"),
        };
        let c = communication(&m, &context);
        assert_eq!(c["payload"][0]["contentAttachment"]["url"], "/files/f1");
        assert_eq!(c["encounter"]["reference"], "Encounter/e1");
        assert_eq!(c["sender"], json!({"reference": "Patient/p1", "display": "Pat"}));
        let d = document(&m, &context).unwrap();
        assert_eq!(
            d["identifier"][0]["value"],
            "ni:///sha-256;47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
        );
        assert_eq!(d["content"][0]["attachment"]["contentType"], "image/jpeg");
    }
}
