//! The opening handshake (RFC 6455 section 4) as an axum extractor, and the way from hyper's connection to the raw stream.

use super::{Limits, Reader, Socket, wire::Wire};
use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use std::future::Future;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// A request that asks for WebSocket and may have it.
pub struct Upgrade {
    on: OnUpgrade,
    accept: HeaderValue,
    same_origin: bool,
    limits: Limits,
}

/// Why a handshake is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this address speaks WebSocket")]
    NotWebSocket,
    #[error("WebSocket version 13 is the only one")]
    Version,
    #[error("the handshake is malformed")]
    Malformed,
    #[error("this origin may not connect")]
    Origin,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let text = self.to_string();
        match self {
            Self::NotWebSocket => {
                (StatusCode::UPGRADE_REQUIRED, [(header::UPGRADE, "websocket")], text).into_response()
            }
            Self::Version => (
                StatusCode::UPGRADE_REQUIRED,
                [(header::SEC_WEBSOCKET_VERSION, "13")],
                text,
            )
                .into_response(),
            Self::Malformed => (StatusCode::BAD_REQUEST, text).into_response(),
            Self::Origin => (StatusCode::FORBIDDEN, text).into_response(),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let headers = &parts.headers;
        if !has_token(headers, header::CONNECTION, "upgrade") || !has_token(headers, header::UPGRADE, "websocket") {
            return Err(Refused::NotWebSocket);
        }
        if parts.method != Method::GET {
            return Err(Refused::Malformed);
        }
        if headers
            .get(header::SEC_WEBSOCKET_VERSION)
            .is_none_or(|v| v.as_bytes() != b"13")
        {
            return Err(Refused::Version);
        }
        let key = headers
            .get(header::SEC_WEBSOCKET_KEY)
            .ok_or(Refused::Malformed)?
            .as_bytes();
        if STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
            return Err(Refused::Malformed);
        }
        let accept = HeaderValue::try_from(accept_key(key)).map_err(|_| Refused::Malformed)?;
        let same_origin = is_same_origin(headers, &parts.uri);
        // Absent when the server in front cannot upgrade: not HTTP/1.1, or a test without a connection.
        let on = parts.extensions.remove::<OnUpgrade>().ok_or(Refused::NotWebSocket)?;
        Ok(Self {
            on,
            accept,
            same_origin,
            limits: Limits::default(),
        })
    }
}

impl Upgrade {
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Refuses pages of other origins. A client that sends no `Origin` is no browser and passes.
    pub fn require_same_origin(self) -> Result<Self, Refused> {
        if self.same_origin {
            Ok(self)
        } else {
            Err(Refused::Origin)
        }
    }

    /// Answers 101; `run` gets the connection as a task of its own.
    pub fn accept<F, Fut>(self, run: F) -> Response
    where
        F: FnOnce(Reader) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let Self { on, accept, limits, .. } = self;
        tokio::spawn(async move {
            let Ok(upgraded) = on.await else { return };
            let Some((wire, early)) = raw(upgraded) else {
                tracing::error!("websocket: the connection under the upgrade is neither TCP nor TLS on it");
                return;
            };
            let Ok(socket) = Socket::new(wire, limits) else {
                return;
            };
            // A second task, so that the state of the upgrade is freed while the connection lives.
            tokio::spawn(run(Reader::new(socket, early)));
        });
        let headers = [
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_ACCEPT, accept),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }
}

/// The stream under hyper's connection, and what was read beyond the request. `axum::serve` and a listener of our own over
/// `hyper_util`'s automatic or hyper's HTTP/1 connection all hand over TCP, or TLS on it; anything else is a mistake of
/// composition.
fn raw(upgraded: Upgraded) -> Option<(Wire, Bytes)> {
    match under::<TcpStream>(upgraded) {
        Ok((tcp, early)) => Some((Wire::Plain(tcp), early)),
        Err(upgraded) => {
            let (stream, early) = under::<TlsStream<TcpStream>>(upgraded).ok()?;
            let (tcp, session) = stream.into_inner();
            Some((Wire::tls(tcp, session), early))
        }
    }
}

fn under<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(upgraded: Upgraded) -> Result<(T, Bytes), Upgraded> {
    match downcast::<TokioIo<T>>(upgraded) {
        Ok(parts) => Ok((parts.io.into_inner(), parts.read_buf)),
        Err(upgraded) => {
            let parts = upgraded.downcast::<TokioIo<T>>()?;
            Ok((parts.io.into_inner(), parts.read_buf))
        }
    }
}

/// `Sec-WebSocket-Accept` of a key (section 4.2.2).
fn accept_key(key: &[u8]) -> String {
    use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(context.finish())
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.trim().eq_ignore_ascii_case(token))
}

/// Does `Origin` name the host that was asked (section 10.2)?
fn is_same_origin(headers: &HeaderMap, uri: &Uri) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let Some((_, authority)) = origin.to_str().ok().and_then(|o| o.split_once("://")) else {
        return false;
    };
    let host = headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .or_else(|| uri.authority().map(|a| a.as_str()));
    host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_key_is_the_one_of_rfc_6455_section_1_3() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn origin_must_be_the_host_that_was_asked() {
        let ask = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("demo.localhost:8080"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            }
            is_same_origin(&headers, &Uri::from_static("/"))
        };
        assert!(ask(None));
        assert!(ask(Some("http://demo.localhost:8080")));
        assert!(!ask(Some("http://demo.localhost:9090")));
        assert!(!ask(Some("https://demo.localhost.evil.example")));
        assert!(!ask(Some("null")));
    }
}
