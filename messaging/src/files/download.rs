//! Reading a finished file: members of its conversation only, whole or in part, never as something a browser would run.

use super::{
    FileRow,
    store::hex,
    tus::{Outcome, Part, disposition, range, text},
};
use crate::Messaging;
use axum::{
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use medtech_kernel::{Error, auth::Principal, policy::Action};
use std::sync::Arc;
use uuid::Uuid;

pub(super) async fn get(
    State(m): State<Arc<Messaging>>,
    who: Principal,
    Path(id): Path<String>,
    asked: HeaderMap,
) -> Outcome<Response> {
    let unknown = || Error::not_found("file.unknown", "There is no such file.");
    let id = Uuid::try_parse(&id).map_err(|_| unknown())?;
    let file = FileRow::find(&m.files.db, who.tenant, id).await?.ok_or_else(unknown)?;
    m.require(&who, Action::Read, file.conversation)
        .await
        .map_err(|_| unknown())?;
    let sha256 = file
        .sha256
        .as_deref()
        .ok_or_else(|| Error::not_found("file.incomplete", "The file is not complete yet."))?;
    if sha256.is_empty() {
        return Err(crate::model::erased().into());
    }
    m.files.require_clean(who.tenant, file.id).await?;
    let etag = format!("\"{}\"", hex(sha256));
    if text(&asked, "if-none-match")
        .is_some_and(|tags| tags == "*" || tags.split(',').any(|t| t.trim().trim_start_matches("W/") == etag))
    {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    // If-Range with anything but our strong tag asks for the whole.
    let wanted = text(&asked, "range").filter(|_| text(&asked, "if-range").is_none_or(|tag| tag == etag));
    let (status, bytes) = match range(wanted, file.size) {
        Part::Whole => (StatusCode::OK, 0..file.size),
        Part::Bytes(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
        Part::Unsatisfiable => {
            let whole = format!("bytes */{}", file.size);
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, whole)]).into_response());
        }
    };
    let target = format!("File/{id}");
    if status == StatusCode::OK {
        m.noted_read(&who, file.conversation, target, "download").await?;
    } else if m.shown.is_new(&who, "file parts", &target) {
        // A preview asks for many parts: the first one speaks for a while.
        let part = "download, a part";
        m.noted_read(&who, file.conversation, target.clone(), part).await?;
        m.shown.told(&who, "file parts", target);
    }
    let length = bytes.end - bytes.start;
    let body = match length {
        0 => Body::empty(),
        _ => {
            let mut pieces = m.files.read(who.tenant, &file, bytes.clone()).await?;
            // The first piece before the answer begins: what does not open is an error, not a broken connection.
            let first = pieces.try_next().await?;
            Body::from_stream(stream::iter(first.map(Ok)).chain(pieces))
        }
    };
    let value = |text: String| HeaderValue::from_str(&text).map_err(|e| Error::internal("file.header", e));
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    if status == StatusCode::PARTIAL_CONTENT {
        let part = format!("bytes {}-{}/{}", bytes.start, bytes.end - 1, file.size);
        headers.insert(header::CONTENT_RANGE, value(part)?);
    }
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CONTENT_TYPE, value(served(&file.media_type))?);
    headers.insert(header::CONTENT_DISPOSITION, value(disposition(&file.name))?);
    headers.insert(header::ETAG, value(etag)?);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; sandbox; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    );
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    Ok(response)
}

/// The type with its character set: every text is kept as UTF-8, and one of an older release that is no text we know is
/// a file of unknown bytes.
fn served(media_type: &str) -> String {
    match media_type {
        "text/plain" | "text/csv" | "text/markdown" | "text/calendar" | "text/vcard" => {
            format!("{media_type}; charset=utf-8")
        }
        other if other.starts_with("text/") || is_xml(other) || other.contains("script") => {
            super::kind::UNKNOWN.to_owned()
        }
        other => other.to_owned(),
    }
}

/// RFC 7303, 4.2. A name with `openxml` in it is a packed document, which no browser runs.
fn is_xml(media_type: &str) -> bool {
    media_type.ends_with("/xml") || media_type.ends_with("+xml")
}
