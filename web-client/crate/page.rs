//! The client's one page, with a fresh nonce for each answer; or a notice, where the client has not been built.

use crate::{files, headers};
use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

/// Stands in the page's source where the nonce belongs.
const PLACE: &str = "%CSP_NONCE%";

pub(crate) fn answer(request: &HeaderMap) -> Response {
    let host = request.get(header::HOST).and_then(|v| v.to_str().ok());
    let Some(nonce) = nonce() else {
        return headers::empty(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let (status, body) = match files::page_source() {
        Some(source) => (StatusCode::OK, source.replace(PLACE, &nonce)),
        None => (StatusCode::SERVICE_UNAVAILABLE, NOTICE.replace(PLACE, &nonce)),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let out = response.headers_mut();
    out.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers::secure_page(out, host, &nonce);
    response
}

/// 128 random bits as hexadecimal text.
fn nonce() -> Option<String> {
    use std::fmt::Write;
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    let mut text = String::with_capacity(32);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}

const NOTICE: &str = include_str!("notice.html");
