//! The port without TLS is for this machine and for trusted proxies. Whoever else comes to it is sent to https, or
//! refused: nothing is served to them in clear, unless the operator says so (`http.allow_plain`).

use super::{Peer, door::Secure};
use crate::tls::acme::answer::PAGES;
use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::Authority};
use ipnet::IpNet;
use medtech_kernel::{Error, config::Config};
use std::sync::Arc;

/// What probes ask, from wherever they come; it tells nobody anything. Pages that prove a name ([`PAGES`]) are the same.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Who is served in clear, and where the others are sent.
pub(crate) struct Rule {
    trusted: Vec<IpNet>,
    allowed: bool,
    /// Whether people reach us by https, and by which port if it is not the usual one.
    https: Option<Option<u16>>,
}

impl Rule {
    pub(crate) fn new(config: &Config) -> Self {
        let public = config.public_url.as_deref().and_then(|url| url::Url::parse(url).ok());
        let https = match public {
            Some(url) if url.scheme() == "https" => Some(url.port()),
            _ if config.tls.is_on() => Some(Some(config.http.tls_bind.port()).filter(|port| *port != 443)),
            _ => None,
        };
        Self {
            trusted: config.http.trusted_proxies.clone(),
            allowed: config.http.allow_plain,
            https,
        }
    }

    /// May this request be answered in clear?
    fn is_served(&self, peer: Peer, path: &str, headers: &HeaderMap) -> bool {
        let address = peer.0.ip().to_canonical();
        if self.allowed || PROBES.contains(&path) || path.starts_with(PAGES) {
            return true;
        }
        if self.trusted.iter().any(|net| net.contains(&address)) {
            // A proxy that also takes people in by http says so, if it says anything.
            let by = headers.get("x-forwarded-proto").and_then(|v| v.to_str().ok());
            let plain = by.is_some_and(|by| by.split(',').next().is_some_and(|by| by.trim() == "http"));
            return !(plain && self.https.is_some());
        }
        address.is_loopback()
    }

    /// The same place by https.
    fn elsewhere(&self, request: &Request) -> Option<HeaderValue> {
        let port = self.https?;
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if !reads || request.headers().contains_key(header::UPGRADE) {
            return None;
        }
        let asked = request.headers().get(header::HOST)?.to_str().ok()?;
        let asked: Authority = asked.parse().ok()?;
        let host = asked.host();
        if host.is_empty() || asked.as_str().contains('@') {
            return None;
        }
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        HeaderValue::try_from(format!("https://{host}{port}{path}")).ok()
    }
}

/// Serves those who may be served in clear, and everyone who came by TLS.
pub(crate) async fn guard(State(rule): State<Arc<Rule>>, request: Request, next: Next) -> Response {
    let secure = request.extensions().get::<Secure>().is_some();
    let peer = request.extensions().get::<Peer>().copied();
    // Without a peer there is no connection: a test.
    let served = peer.is_none_or(|peer| rule.is_served(peer, request.uri().path(), request.headers()));
    if secure || served {
        return next.run(request).await;
    }
    match rule.elsewhere(&request) {
        Some(place) => (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, place)]).into_response(),
        None => Error::forbidden("http.plain", "This door is for https alone.").into_response(),
    }
}

/// The same guard around a router of its own.
pub(crate) fn no_strangers(router: Router, config: &Config) -> Router {
    router.layer(middleware::from_fn_with_state(Arc::new(Rule::new(config)), guard))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, routing::get};
    use tower::ServiceExt;

    struct Asked<'a> {
        peer: &'a str,
        method: &'a str,
        path: &'a str,
        headers: &'a [(&'static str, &'static str)],
        secure: bool,
    }

    const STRANGER: Asked<'static> = Asked {
        peer: "203.0.113.9:40000",
        method: "GET",
        path: "/a?b=c",
        headers: &[("host", "north.example:8080")],
        secure: false,
    };

    /// Status, and where to.
    async fn answer(pairs: &[(&str, &str)], asked: Asked<'_>) -> (u16, String) {
        let pairs = pairs.iter().map(|(k, v)| (format!("MEDTECH_{k}"), (*v).to_owned()));
        let config = Config::load(None, pairs).expect("a configuration");
        let routes = Router::new().fallback(get(|| async { "here" }).post(|| async { "here" }));
        let mut request = Request::builder().method(asked.method).uri(asked.path);
        for (name, value) in asked.headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).expect("a request");
        request
            .extensions_mut()
            .insert(Peer(asked.peer.parse().expect("an address")));
        if asked.secure {
            request.extensions_mut().insert(Secure);
        }
        let response = no_strangers(routes, &config).oneshot(request).await.expect("an answer");
        let to = response.headers().get(header::LOCATION);
        let to = to.map(|v| v.to_str().unwrap_or("?").to_owned()).unwrap_or_default();
        (response.status().as_u16(), to)
    }

    #[tokio::test]
    async fn strangers_are_sent_to_https_or_away() {
        let own = ("TLS_DIRECTORY", "d");
        let behind = [
            ("PUBLIC_URL", "https://clinic.example"),
            ("HTTP_TRUSTED_PROXIES", "10.0.0.0/8"),
        ];
        let to = |port: &str| (308, format!("https://north.example{port}/a?b=c"));
        assert_eq!(answer(&[own], STRANGER).await, to(":8443"));
        assert_eq!(answer(&[own, ("HTTP_TLS_BIND", "0.0.0.0:443")], STRANGER).await, to(""));
        assert_eq!(answer(&behind, STRANGER).await, to(""));
        // What they send, and what they would hold open, is not for the wire in clear.
        let post = || Asked {
            method: "POST",
            ..STRANGER
        };
        assert_eq!(answer(&[own], post()).await.0, 403);
        let socket = Asked {
            headers: &[("host", "north.example"), ("upgrade", "websocket")],
            ..STRANGER
        };
        assert_eq!(answer(&[own], socket).await.0, 403);
        assert_eq!(answer(&[("HTTP_TRUSTED_PROXIES", "10.0.0.0/8")], STRANGER).await.0, 403);
        for host in ["", "a@b", "x y"] {
            let headers: &'static [(&str, &str)] = Vec::leak(vec![("host", host)]);
            assert_eq!(answer(&[own], Asked { headers, ..STRANGER }).await.0, 403, "{host}");
        }
        // Their own word does not help them.
        let forged = [
            ("host", "north.example"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "127.0.0.1"),
        ];
        assert_eq!(
            answer(
                &behind,
                Asked {
                    headers: Vec::leak(forged.to_vec()),
                    ..STRANGER
                }
            )
            .await
            .0,
            308
        );
    }

    #[tokio::test]
    async fn this_machine_proxies_tls_and_probes_are_served() {
        let behind = [
            ("PUBLIC_URL", "https://clinic.example"),
            ("HTTP_TRUSTED_PROXIES", "10.0.0.0/8"),
        ];
        let own = [("TLS_DIRECTORY", "d")];
        for peer in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(answer(&own, Asked { peer, ..STRANGER }).await.0, 200, "{peer}");
        }
        assert_eq!(
            answer(
                &own,
                Asked {
                    secure: true,
                    ..STRANGER
                }
            )
            .await
            .0,
            200
        );
        for path in PROBES.into_iter().chain(["/.well-known/acme-challenge/token"]) {
            assert_eq!(answer(&own, Asked { path, ..STRANGER }).await.0, 200, "{path}");
        }
        assert_eq!(answer(&[("HTTP_ALLOW_PLAIN", "true")], STRANGER).await.0, 200);
        let peer = "10.1.2.3:1";
        assert_eq!(answer(&behind, Asked { peer, ..STRANGER }).await.0, 200);
        let https = &[("host", "north.example"), ("x-forwarded-proto", "https")];
        assert_eq!(
            answer(
                &behind,
                Asked {
                    peer,
                    headers: https,
                    ..STRANGER
                }
            )
            .await
            .0,
            200
        );
        let http = &[("host", "north.example"), ("x-forwarded-proto", "http")];
        assert_eq!(
            answer(
                &behind,
                Asked {
                    peer,
                    headers: http,
                    ..STRANGER
                }
            )
            .await
            .0,
            308
        );
    }
}
