//! What a browser may rely on. The tests hold with and without a built client.

use crate::{
    encoding::{Coding, accepts},
    files, router,
};
use axum::{body::Body, response::Response};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use tower::ServiceExt;

async fn ask(method: Method, path: &str, extra: &[(&str, &str)]) -> Response {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "clinic.example:8080");
    for (name, value) in extra {
        request = request.header(*name, *value);
    }
    router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

fn value<'a>(response: &'a Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map(|v| v.to_str().unwrap())
        .unwrap_or_default()
}

#[tokio::test]
async fn a_page_carries_the_strict_policy_with_its_own_nonce() {
    let first = ask(Method::GET, "/visit", &[]).await;
    let policy = value(&first, "content-security-policy").to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"));
    assert!(policy.contains("wss://clinic.example:8080"));
    assert!(!policy.contains("unsafe"));
    assert!(value(&first, "permissions-policy").starts_with("camera=(self), microphone=(self)"));
    assert_eq!(value(&first, "cache-control"), "no-cache");
    let nonce = policy
        .split("'nonce-")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap()
        .to_owned();
    let body = first.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.contains(&nonce), "the page must carry the nonce of its policy");
    assert!(!body.contains("%CSP_NONCE%"));

    let second = ask(Method::GET, "/visit", &[]).await;
    assert!(
        !value(&second, "content-security-policy").contains(&nonce),
        "a nonce is used once"
    );
}

#[tokio::test]
async fn a_hostile_host_header_does_not_reach_the_policy() {
    let request = Request::builder()
        .uri("/")
        .header(header::HOST, "a; script-src *")
        .body(Body::empty())
        .unwrap();
    let response = router().oneshot(request).await.unwrap();
    let policy = value(&response, "content-security-policy");
    assert!(!policy.contains("script-src *"), "{policy}");
}

#[tokio::test]
async fn pages_never_answer_for_the_api_or_for_missing_files() {
    let api = ask(Method::GET, "/api/nothing-here", &[]).await;
    assert_eq!(api.status(), StatusCode::NOT_FOUND);
    assert_eq!(value(&api, "content-type"), "application/problem+json");
    assert_eq!(
        ask(Method::GET, "/assets/gone-12345678.js", &[]).await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        ask(Method::GET, "/../Cargo.toml", &[]).await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        ask(Method::POST, "/visit", &[]).await.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test]
async fn an_unbuilt_client_says_so() {
    let response = ask(Method::GET, "/app/today", &[]).await;
    let built = files::page_source().is_some();
    assert_eq!(
        response.status(),
        if built {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        }
    );
    assert_eq!(value(&response, "content-type"), "text/html; charset=utf-8");
}

#[tokio::test]
async fn a_built_file_is_revalidated_by_its_hash() {
    let Some(page) = files::page_source() else { return };
    let script = page.split("src=\"/").nth(1).unwrap().split('"').next().unwrap();
    let path = format!("/{script}");
    let first = ask(Method::GET, &path, &[("accept-encoding", "gzip;q=0, br")]).await;
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(value(&first, "content-encoding"), "br");
    assert!(value(&first, "cache-control").contains("immutable"));
    let tag = value(&first, "etag").to_owned();
    let again = ask(
        Method::GET,
        &path,
        &[("accept-encoding", "br"), ("if-none-match", &tag)],
    )
    .await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let plain = ask(Method::GET, &path, &[]).await;
    assert_eq!(value(&plain, "content-encoding"), "");
    assert_ne!(value(&plain, "etag"), tag, "each encoding has its own tag");
}

#[test]
fn encodings_follow_the_weights() {
    assert!(accepts("gzip, deflate, br", Coding::Brotli));
    assert!(!accepts("gzip, br;q=0", Coding::Brotli));
    assert!(accepts("*", Coding::Gzip));
    assert!(!accepts("gzip;q=0, *", Coding::Gzip));
    assert!(!accepts("", Coding::Gzip));
    assert!(accepts("", Coding::Plain));
}
