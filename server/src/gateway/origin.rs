//! Another site's page in a signed-in person's browser must not act for them.
//!
//! Nothing here is authorised by a cookie alone, so a forged request carries no right to begin with. This is the second
//! lock: what changes something at our own doors, and every live connection, comes from our own pages or from no page.
//! FHIR and the token doors are for applications of other origins: those authorise by a bearer token.

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, header};
use medtech_kernel::Error;

/// The doors that only our own pages use from a browser.
const OWN: [&str; 3] = ["/api/", "/files", "/connection/"];

/// Refuses requests that a browser made for another site's page.
pub(crate) async fn own_pages(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let upgrade = request.headers().contains_key(header::UPGRADE);
    if OWN.iter().any(|door| path.starts_with(door)) && (!safe || upgrade) && is_foreign(request.headers()) {
        return Error::forbidden("http.origin", "This request came from another site's page.").into_response();
    }
    next.run(request).await
}

/// What a browser says about the page behind a request. Programs that are no browser say nothing, or send our own name.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    // Fetch metadata is the browser's own word, which no page can alter.
    match text("sec-fetch-site") {
        Some("same-origin" | "none") => return false,
        Some("cross-site") => return true,
        _ => {}
    }
    let Some(origin) = text("origin") else { return false };
    let host = text("host").unwrap_or_default();
    let of_origin = origin.split_once("://").map_or(origin, |(_, host)| host);
    // On one's own machine the same server has several names.
    let local = |host: &str| {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        name == "localhost" || name == "127.0.0.1" || name == "[::1]" || name.ends_with(".localhost")
    };
    let port = |host: &str| host.rsplit_once(':').map(|(_, port)| port.to_owned());
    !(of_origin.eq_ignore_ascii_case(host) || local(of_origin) && local(host) && port(of_origin) == port(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().expect("a header"));
        }
        is_foreign(&headers)
    }

    #[test]
    fn only_our_own_pages_and_programs_that_are_no_page_come_through() {
        let host = ("host", "clinic.example");
        assert!(!foreign(&[host]));
        assert!(!foreign(&[host, ("origin", "https://clinic.example")]));
        assert!(!foreign(&[
            host,
            ("sec-fetch-site", "same-origin"),
            ("origin", "https://clinic.example")
        ]));
        assert!(foreign(&[host, ("origin", "https://evil.example")]));
        assert!(foreign(&[host, ("origin", "https://clinic.example.evil.example")]));
        assert!(foreign(&[host, ("origin", "https://clinic.example:8443")]));
        assert!(foreign(&[host, ("origin", "null")]));
        assert!(foreign(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(foreign(&[
            host,
            ("sec-fetch-site", "same-site"),
            ("origin", "https://other.example")
        ]));
        assert!(!foreign(&[
            ("host", "localhost:8080"),
            ("origin", "http://127.0.0.1:8080")
        ]));
        assert!(foreign(&[
            ("host", "localhost:8080"),
            ("origin", "http://127.0.0.1:9090")
        ]));
    }
}
