//! Headers that every answer carries, and the policy of the page: nothing from elsewhere, camera and microphone for
//! this origin only.

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

const COMMON: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

const PERMISSIONS: HeaderValue = HeaderValue::from_static(
    "camera=(self), microphone=(self), display-capture=(self), speaker-selection=(self), screen-wake-lock=(self), \
     autoplay=(self), fullscreen=(self), picture-in-picture=(self), geolocation=(), payment=(), usb=(), serial=(), hid=(), midi=()",
);

pub(crate) fn secure(out: &mut HeaderMap) {
    for (name, value) in COMMON {
        out.insert(name, value);
    }
}

/// The headers of a page. `host` is the Host the browser asked for, `nonce` the one written into the page.
pub(crate) fn secure_page(out: &mut HeaderMap, host: Option<&str>, nonce: &str) {
    secure(out);
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    out.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    out.insert(HeaderName::from_static("permissions-policy"), PERMISSIONS);
    out.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    if let Ok(policy) = HeaderValue::from_str(&policy(host, nonce)) {
        out.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
}

/// Sockets are named beside 'self', because not every browser counts `ws:` of the same host as the same origin.
fn policy(host: Option<&str>, nonce: &str) -> String {
    let mut connect = String::from("'self'");
    if let Some(host) = host.filter(|host| is_plain_host(host)) {
        connect.push_str(&format!(" ws://{host} wss://{host}"));
        // On one's own machine, media may be named by the other spelling of the same address.
        let (name, port) = host.rsplit_once(':').map_or((host, ""), |(name, port)| (name, port));
        if name == "localhost" || name.ends_with(".localhost") || name == "127.0.0.1" {
            for other in ["localhost", "127.0.0.1"] {
                let colon = if port.is_empty() { "" } else { ":" };
                connect.push_str(&format!(" http://{other}{colon}{port} ws://{other}{colon}{port}"));
            }
        }
    }
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data: blob:; \
         media-src 'self' blob:; font-src 'self'; connect-src {connect}; worker-src 'self' blob:; manifest-src 'self'; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
}

/// A Host header is the client's own word: only what a host can be made of goes into the policy.
fn is_plain_host(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 255
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
}

pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    secure(response.headers_mut());
    response
}

pub(crate) fn problem_not_found() -> Response {
    let body = r#"{"type":"about:blank","title":"Not Found","status":404,"code":"route.not_found"}"#;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    secure(response.headers_mut());
    response
}
