//! The web client inside the binary: static files with their caching and security headers, and the page for every
//! address that belongs to the client's own router. Knows nothing of the rest of the product.

mod encoding;
mod files;
mod headers;
mod page;

use axum::{Router, extract::Request, response::Response};
use http::{HeaderMap, Method, StatusCode, Uri};

/// Serves the client for every path that no other route has taken. Meant as the fallback of the product's router.
pub fn router() -> Router {
    Router::new().fallback(|request: Request| async move {
        let (parts, _body) = request.into_parts();
        if parts.method != Method::GET && parts.method != Method::HEAD {
            return headers::empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        serve(&parts.uri, &parts.headers).await
    })
}

/// Answers one request for a file or a page. Unknown addresses of the API get 404 as a problem document, missing files
/// get 404, and everything else gets the client's page, whose own router decides.
pub async fn serve(uri: &Uri, headers: &HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    if let Some(found) = files::find(path, headers) {
        return found;
    }
    if is_api(uri.path()) {
        return headers::problem_not_found();
    }
    if looks_like_file(path) {
        return headers::empty(StatusCode::NOT_FOUND);
    }
    page::answer(headers)
}

/// Doors of the server. A page is never the answer to a program that asks one of them.
const DOORS: &[&str] = &[
    "api",
    "auth",
    "cds-services",
    "connection",
    "dev",
    "dicomweb",
    "fhir",
    "files",
    "healthz",
    "metrics",
    "mqtt",
    "oauth2",
    "readyz",
    "rtc",
    "twirp",
    "whep",
    "whip",
    ".well-known",
];

fn is_api(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    DOORS.contains(&first)
}

/// A part with a dot names a file or a hidden folder; the client's own routes have none.
fn looks_like_file(path: &str) -> bool {
    path.starts_with("assets/") || path.contains('.') || path.contains("%2e") || path.contains("%2E")
}

#[cfg(test)]
mod tests;
