//! A parameter that comes twice means one thing to who checks it and another to who uses it: at our own doors it is
//! refused. FHIR repeats parameters by its rules, OAuth refuses them by its own.

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use medtech_kernel::Error;
use std::collections::HashSet;

/// The doors whose parameters are single.
const OWN: [&str; 3] = ["/api/", "/files", "/connection/"];

pub(crate) async fn once(request: Request, next: Next) -> Response {
    let own = OWN.iter().any(|door| request.uri().path().starts_with(door));
    if own && request.uri().query().is_some_and(repeats) {
        return Error::bad(
            "http.query_twice",
            "A parameter of the address is given more than once.",
        )
        .into_response();
    }
    next.run(request).await
}

/// Names are compared as they are read: `a`, `%61`.
fn repeats(query: &str) -> bool {
    let mut seen = HashSet::new();
    !url::form_urlencoded::parse(query.as_bytes()).all(|(name, _)| seen.insert(name))
}

#[cfg(test)]
mod tests {
    use super::repeats;

    #[test]
    fn a_name_comes_once_however_it_is_written() {
        for query in ["a=1&a=2", "a=1&b=2&%61=3", "a&a", "a=&a=", "=1&=2", "a+b=1&a%20b=2"] {
            assert!(repeats(query), "{query}");
        }
        for query in ["", "a=1", "a=1&b=1", "a=1&A=2", "a=a&aa=a", "a=%26a%3D2"] {
            assert!(!repeats(query), "{query}");
        }
    }
}
