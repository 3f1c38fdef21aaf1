//! The headers of tus 1.0 and of range requests, read and written. Pure.

use aws_lc_rs::digest;
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use medtech_kernel::{Error, clock::Millis};
use std::ops::Range;
use uuid::Uuid;

pub(crate) const VERSION: &str = "1.0.0";
pub(crate) const EXTENSIONS: &str = "creation,creation-with-upload,expiration,checksum,termination";
pub(crate) const ALGORITHMS: &str = "sha256,sha1";
pub(crate) const OFFSET_TYPE: &str = "application/offset+octet-stream";
/// Bytes of `Upload-Metadata` that are read.
const MAX_METADATA: usize = 4096;
/// Bytes of a file's name; what most file systems of our users take.
const MAX_NAME: usize = 255;

/// A refusal: one of the kernel's, or a status that only this protocol has.
#[derive(Debug)]
pub(crate) enum Refusal {
    Kernel(Error),
    Status(u16, &'static str, &'static str),
}

pub(crate) type Outcome<T> = Result<T, Refusal>;

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Kernel(error)
    }
}

pub(crate) const WRONG_OFFSET: Refusal = Refusal::Status(
    409,
    "file.offset_mismatch",
    "Upload-Offset is not where this upload stands. Ask with HEAD.",
);
pub(crate) const CHECKSUM_MISMATCH: Refusal = Refusal::Status(
    460,
    "file.checksum_mismatch",
    "The bytes differ from Upload-Checksum. They were not kept.",
);
pub(crate) const LOCKED: Refusal = Refusal::Status(
    423,
    "file.locked",
    "Another request is writing to this upload. Try again in a moment.",
);
pub(crate) const WRONG_TYPE: Refusal = Refusal::Status(
    415,
    "file.content_type",
    "Content-Type must be application/offset+octet-stream.",
);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Kernel(error) => error.into_response(),
            Self::Status(status, code, detail) => {
                let body = serde_json::json!({
                    "type": format!("urn:medtech:problem:{code}"), "title": "File transfer", "status": status,
                    "detail": detail, "code": code,
                });
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let mut response = (status, Json(body)).into_response();
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/problem+json"),
                );
                response
            }
        }
    }
}

/// Refuses any protocol version but 1.0.0 (412, and the answer names ours).
pub(crate) fn require_version(headers: &HeaderMap) -> Outcome<()> {
    match text(headers, "tus-resumable") {
        Some(VERSION) => Ok(()),
        _ => Err(Error::precondition("file.tus_version", "This server speaks tus 1.0.0.").into()),
    }
}

/// A header whose value is a number of bytes.
pub(crate) fn number(headers: &HeaderMap, name: &'static str) -> Outcome<u64> {
    text(headers, name)
        .filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|v| v.parse::<u64>().ok())
        .filter(|n| i64::try_from(*n).is_ok())
        .ok_or_else(|| Error::bad("file.header", format!("{name} must be a number of bytes.")).into())
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim)
}

/// What the client says of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) media_type: String,
    pub(crate) conversation: Uuid,
    /// The header itself, which HEAD gives back.
    pub(crate) given: String,
}

/// Reads `Upload-Metadata`: pairs `key base64`, separated by commas. Unknown keys are passed over.
pub(crate) fn metadata(header: &str) -> Outcome<Metadata> {
    let malformed = || {
        Error::bad(
            "file.metadata",
            "Upload-Metadata must be pairs of a key and base64 text.",
        )
    };
    if header.len() > MAX_METADATA {
        return Err(Error::bad("file.metadata_long", "Upload-Metadata is longer than 4 KiB.").into());
    }
    let (mut name, mut media_type, mut conversation) = (None, None, None);
    for pair in header.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        let value = STANDARD.decode(value.trim()).map_err(|_| malformed())?;
        let value = String::from_utf8(value).map_err(|_| malformed())?;
        let slot = match key {
            "filename" | "name" => &mut name,
            "filetype" | "type" => &mut media_type,
            "conversation" => &mut conversation,
            _ => continue,
        };
        slot.get_or_insert(value);
    }
    let conversation = conversation
        .and_then(|c| Uuid::try_parse(c.trim()).ok())
        .ok_or_else(|| {
            Error::bad(
                "file.conversation",
                "Upload-Metadata must name the conversation the file is for.",
            )
        })?;
    Ok(Metadata {
        name: clean_name(name.as_deref().unwrap_or_default()),
        media_type: clean_type(media_type.as_deref().unwrap_or_default()),
        conversation,
        given: header.to_owned(),
    })
}

/// A name fit to be shown and to go into a header; it is never a path of ours.
fn clean_name(name: &str) -> String {
    // Direction overrides can make "exe.pdf" out of "fdp.exe".
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut clean: String = base.chars().filter(|c| !hidden(*c)).collect();
    while clean.len() > MAX_NAME {
        clean.pop();
    }
    match clean.trim().trim_matches('.').is_empty() {
        true => "file".to_owned(),
        false => clean.trim().to_owned(),
    }
}

/// `type/subtype` of RFC 9110 tokens without parameters, else the type of unknown bytes.
fn clean_type(given: &str) -> String {
    let bare = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let token = |t: &str| {
        !t.is_empty()
            && t.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    match bare.split_once('/') {
        Some((kind, sub)) if bare.len() <= 127 && token(kind) && token(sub) => bare,
        _ => "application/octet-stream".to_owned(),
    }
}

/// A promised checksum of one request's bytes.
pub(crate) struct Checksum {
    running: digest::Context,
    promised: Vec<u8>,
}

impl Checksum {
    /// Reads `Upload-Checksum`: an algorithm and base64.
    pub(crate) fn parse(header: &str) -> Outcome<Self> {
        let malformed = || {
            Error::bad(
                "file.checksum",
                "Upload-Checksum must be sha256 or sha1, a space and base64.",
            )
        };
        let (name, value) = header.split_once(' ').ok_or_else(malformed)?;
        let algorithm = match name {
            "sha256" => &digest::SHA256,
            "sha1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            _ => return Err(malformed().into()),
        };
        let promised = STANDARD.decode(value.trim()).map_err(|_| malformed())?;
        if promised.len() != algorithm.output_len() {
            return Err(malformed().into());
        }
        Ok(Self {
            running: digest::Context::new(algorithm),
            promised,
        })
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.running.update(bytes);
    }

    pub(crate) fn holds(self) -> bool {
        self.running.finish().as_ref() == self.promised
    }
}

/// What part of a file a request wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Bytes(Range<u64>),
    Unsatisfiable,
}

/// Reads `Range` (RFC 9110, 14.1.2). Several ranges, other units and malformed values are ignored, as the RFC allows.
pub(crate) fn range(header: Option<&str>, size: u64) -> Part {
    let Some(spec) = header.and_then(|h| h.strip_prefix("bytes=")).map(str::trim) else {
        return Part::Whole;
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Part::Whole;
    };
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return Part::Whole;
    }
    // A number past u64 is past the end of any file.
    let value = |t: &str| t.parse::<u64>().unwrap_or(u64::MAX);
    match (first.is_empty(), last.is_empty()) {
        (true, true) => Part::Whole,
        (true, false) => match value(last) {
            0 => Part::Unsatisfiable,
            _ if size == 0 => Part::Unsatisfiable,
            n => Part::Bytes(size.saturating_sub(n)..size),
        },
        (false, open) => {
            let (from, to) = (value(first), if open { u64::MAX } else { value(last) });
            if to < from {
                Part::Whole
            } else if from >= size {
                Part::Unsatisfiable
            } else {
                Part::Bytes(from..to.saturating_add(1).min(size))
            }
        }
    }
}

/// RFC 6266 with RFC 8187: an ASCII name for old clients, the true one for the others.
pub(crate) fn disposition(name: &str) -> String {
    let ascii: String = name
        .chars()
        .map(|c| {
            if c.is_ascii() && !c.is_ascii_control() && !"\"\\%".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

/// IMF-fixdate, the form of `Upload-Expires`.
pub(crate) fn http_date(at: Millis) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(at).ok()?;
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&at)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: &str = "0190c1b0-0000-7000-8000-000000000001";

    fn meta(pairs: &[(&str, &str)]) -> Outcome<Metadata> {
        let text: Vec<String> = pairs
            .iter()
            .map(|(k, v)| format!("{k} {}", STANDARD.encode(v)))
            .collect();
        metadata(&text.join(","))
    }

    #[test]
    fn metadata_is_read_and_names_cannot_be_paths() {
        let m = meta(&[
            ("filename", "../../etc/pass\r\nwd\u{202e}.pdf"),
            ("filetype", "Application/PDF; x=1"),
            ("conversation", CONVERSATION),
        ])
        .unwrap();
        assert_eq!(
            (m.name.as_str(), m.media_type.as_str()),
            ("passwd.pdf", "application/pdf")
        );
        let m = meta(&[
            ("filename", ".."),
            ("filetype", "text/html\r\nX: y"),
            ("conversation", CONVERSATION),
        ])
        .unwrap();
        assert_eq!(
            (m.name.as_str(), m.media_type.as_str()),
            ("file", "application/octet-stream")
        );
        let long = meta(&[("filename", &"é".repeat(300)), ("conversation", CONVERSATION)]).unwrap();
        assert!(long.name.len() <= MAX_NAME && long.name.chars().all(|c| c == 'é'));
        assert!(meta(&[("filename", "a")]).is_err());
        assert!(metadata("filename !!!").is_err());
        assert!(
            metadata(&format!(
                "is_confidential,conversation {}",
                STANDARD.encode(CONVERSATION)
            ))
            .is_ok()
        );
    }

    #[test]
    fn ranges_follow_rfc_9110() {
        // The examples of section 14.1.2, for a file of 10,000 bytes.
        for (header, expected) in [
            ("bytes=0-499", Part::Bytes(0..500)),
            ("bytes=500-999", Part::Bytes(500..1000)),
            ("bytes=-500", Part::Bytes(9500..10_000)),
            ("bytes=9500-", Part::Bytes(9500..10_000)),
            ("bytes=0-99999999999999999999999", Part::Bytes(0..10_000)),
            ("bytes=10000-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=5-4", Part::Whole),
            ("bytes=0-0,-1", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=a-b", Part::Whole),
        ] {
            assert_eq!(range(Some(header), 10_000), expected, "{header}");
        }
        assert_eq!(range(None, 10), Part::Whole);
        assert_eq!(range(Some("bytes=0-"), 0), Part::Unsatisfiable);
        assert_eq!(range(Some("bytes=-5"), 0), Part::Unsatisfiable);
        assert_eq!(range(Some("bytes=-500"), 100), Part::Bytes(0..100));
    }

    #[test]
    fn checksums_hold_or_not() {
        // FIPS 180-2: SHA-256 and SHA-1 of "abc".
        for header in [
            "sha256 ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
            "sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=",
        ] {
            let mut right = Checksum::parse(header).unwrap();
            right.update(b"a");
            right.update(b"bc");
            assert!(right.holds());
            let mut wrong = Checksum::parse(header).unwrap();
            wrong.update(b"abd");
            assert!(!wrong.holds());
        }
        assert!(Checksum::parse("md5 kAFQmDzST7DWlj99KOF/cg==").is_err());
        assert!(Checksum::parse("sha256 kAFQmDzST7DWlj99KOF/cg==").is_err());
        assert!(Checksum::parse("sha256").is_err());
    }

    #[test]
    fn headers_cannot_be_broken_out_of() {
        let value = disposition("a\"b\\c % Ergebnis für Zoë.pdf");
        assert_eq!(
            value,
            "attachment; filename=\"a_b_c _ Ergebnis f_r Zo_.pdf\"; filename*=UTF-8''a%22b%5Cc%20%25%20Ergebnis%20f%C3%BCr%20Zo%C3%AB.pdf"
        );
        assert!(HeaderValue::from_str(&value).is_ok());
        assert_eq!(http_date(0).unwrap(), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
