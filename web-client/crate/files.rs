//! The files of the build: found by path, sent in the best stored encoding, revalidated by their hash.

use crate::{
    encoding::{self, Coding},
    headers,
};
use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rust_embed::{EmbeddedFile, RustEmbed};

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/dist"]
struct Dist;

/// Names with a content hash, made by the build: they never change.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const SHORT: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// The page's source, where the client has been built.
pub(crate) fn page_source() -> Option<String> {
    let file = Dist::get("index.html")?;
    String::from_utf8(file.data.into_owned()).ok()
}

/// The file at this path, if there is one. Pages and stored encodings are not files of their own.
pub(crate) fn find(path: &str, request: &HeaderMap) -> Option<Response> {
    if path.is_empty() || path.ends_with(".html") || path.ends_with(".br") || path.ends_with(".gz") {
        return None;
    }
    let plain = Dist::get(path)?;
    let (file, coding) = best(path, plain, request);
    let etag = etag(&file);
    let mut response = if revalidated(request, &etag) {
        headers::empty(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = Response::new(Body::from(file.data.into_owned()));
        response.headers_mut().insert(header::CONTENT_TYPE, content_type(path));
        if let Some(name) = coding.name() {
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        response
    };
    let out = response.headers_mut();
    out.insert(
        header::CACHE_CONTROL,
        if path.starts_with("assets/") { IMMUTABLE } else { SHORT },
    );
    out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(value) = HeaderValue::from_str(&etag) {
        out.insert(header::ETAG, value);
    }
    headers::secure(out);
    Some(response)
}

fn best(path: &str, plain: EmbeddedFile, request: &HeaderMap) -> (EmbeddedFile, Coding) {
    let accepted = request
        .get(header::ACCEPT_ENCODING)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    for coding in [Coding::Brotli, Coding::Gzip] {
        if encoding::accepts(accepted, coding)
            && let Some(file) = Dist::get(&format!("{path}.{}", coding.extension()))
        {
            return (file, coding);
        }
    }
    (plain, Coding::Plain)
}

/// Half of the SHA-256 is enough to tell versions apart.
fn etag(file: &EmbeddedFile) -> String {
    use std::fmt::Write;
    let mut tag = String::with_capacity(34);
    tag.push('"');
    for byte in file.metadata.sha256_hash().iter().take(16) {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

/// RFC 9110, 13.1.2: weak comparison, and `*` matches whatever is there.
fn revalidated(request: &HeaderMap, etag: &str) -> bool {
    let Some(value) = request.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()) else {
        return false;
    };
    value
        .split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

fn content_type(path: &str) -> HeaderValue {
    let extension = path.rsplit('.').next().unwrap_or_default();
    HeaderValue::from_static(match extension {
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    })
}
