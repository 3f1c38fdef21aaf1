//! The web server's edge: every answer's headers and form, connections that may not take for ever, and who may ask how
//! often and from where.

mod address;
mod door;
mod limits;
mod origin;
mod plain;
mod query;

use crate::{
    ops::{self, Metrics},
    tls::acme::answer,
};
pub(crate) use address::Peer;
use axum::{
    Extension, Json, Router,
    body::to_bytes,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
pub(crate) use door::{Door, serve};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use medtech_kernel::{Ctx, id};
pub(crate) use plain::no_strangers;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// A request's headers arrive within this time, and a connection is idle no longer: above the minute for which proxies
/// keep theirs, so that none is closed under a request.
pub(crate) const PATIENCE: Duration = Duration::from_secs(65);
/// Text of a refusal that is taken over into its problem document.
const REASON: usize = 1024;

/// The routes with what surrounds them all.
pub(crate) fn around(routes: Router, metrics: Arc<Metrics>, ctx: Ctx) -> Router {
    let plain = Arc::new(plain::Rule::new(&ctx.config));
    let limits = limits::Limits::new(&ctx.config.limits, ctx.config.http.trusted_proxies.clone());
    routes
        .merge(ops::routes(metrics.clone()))
        .merge(answer::routes(ctx.clone()))
        .layer(middleware::from_fn(query::once))
        .layer(middleware::from_fn(origin::own_pages))
        .layer(middleware::from_fn_with_state(limits, limits::limit))
        .layer(middleware::from_fn_with_state(plain, plain::guard))
        .layer(middleware::from_fn_with_state(metrics, ops::observe))
        .layer(middleware::from_fn_with_state(secure_transport(&ctx), form))
        .layer(Extension(ctx))
}

/// Headers that every answer carries, whatever made it; and a refusal that the framework words by itself, or leaves
/// empty, becomes a problem document with a code. FHIR and LiveKit have forms of their own.
async fn form(State(secure): State<bool>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let foreign = ["/fhir/", "/rtc", "/twirp/"].iter().any(|p| path.starts_with(p));
    let mut response = next.run(request).await;
    let status = response.status();
    if !foreign && (status.is_client_error() || status.is_server_error()) && is_bare(response.headers()) {
        response = problem(response).await;
    }
    let headers = response.headers_mut();
    let mut put = |name, value| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(header::REFERRER_POLICY, "no-referrer");
    put(header::X_FRAME_OPTIONS, "DENY");
    put(header::CACHE_CONTROL, "no-store");
    // An answer that is no page needs nothing: opened as one, it may neither load nor run anything.
    put(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox",
    );
    if secure {
        put(header::STRICT_TRANSPORT_SECURITY, "max-age=63072000; includeSubDomains");
    }
    response
}

/// People reach us by https, by what the operator says: then browsers are told to stay with it.
fn secure_transport(ctx: &Ctx) -> bool {
    let url = ctx.config.public_url.as_deref();
    url.is_some_and(|url| url.starts_with("https://"))
}

fn is_bare(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"))
}

async fn problem(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let code = match parts.status {
        StatusCode::NOT_FOUND => "http.not_found",
        StatusCode::METHOD_NOT_ALLOWED => "http.method",
        StatusCode::UPGRADE_REQUIRED => "http.upgrade",
        StatusCode::PAYLOAD_TOO_LARGE => "http.body_too_large",
        s if s.is_client_error() => "http.request",
        _ => "internal",
    };
    let title = parts.status.canonical_reason().unwrap_or("Error");
    let text = to_bytes(body, REASON).await.unwrap_or_default();
    let detail = std::str::from_utf8(&text).unwrap_or_default().trim();
    let document = json!({
        "type": format!("urn:medtech:problem:{code}"),
        "title": title,
        "status": parts.status.as_u16(),
        "detail": if detail.is_empty() { title } else { detail },
        "code": code,
        "correlation": id::uuid_v7(medtech_kernel::Clock::system().now_ms()),
    });
    let mut answer = (parts.status, Json(document)).into_response();
    for (name, value) in &parts.headers {
        if ![header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name) {
            answer.headers_mut().append(name, value.clone());
        }
    }
    let kind = HeaderValue::from_static("application/problem+json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::watch,
    };

    #[tokio::test]
    async fn slow_headers_and_idle_connections_end_and_others_are_served() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (stop, stopped) = watch::channel(false);
        let router = Router::new().route("/", axum::routing::get(|| async { "here" }));
        let server = tokio::spawn(serve(
            vec![Door::plain(listener)],
            router,
            Duration::from_millis(300),
            stopped,
        ));
        let ask = async |request: &'static [u8]| {
            let mut stream = TcpStream::connect(address).await.expect("connect");
            stream.write_all(request).await.expect("write");
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            String::from_utf8_lossy(&all).into_owned()
        };
        let answers = async {
            tokio::join!(
                ask(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "),
                ask(b""),
                ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
                ask(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            )
        };
        let (slow, silent, idle, whole) = tokio::time::timeout(Duration::from_secs(60), answers)
            .await
            .expect("every connection ends");
        assert!(
            !slow.contains("200 OK") && !silent.contains("200 OK"),
            "{slow} {silent}"
        );
        assert!(idle.ends_with("here") && whole.ends_with("here"), "{idle} {whole}");
        stop.send(true).expect("the server listens");
        server.await.expect("the server ends");
    }
}
