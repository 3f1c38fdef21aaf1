//! Requests of ours to addresses that somebody else named. They cannot be turned against our own network: https only,
//! every address of the name is looked at, and the connection goes to the very address that was looked at; no redirect
//! is followed, no proxy asked; little time, little to read.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use medtech_kernel::{Error, Result};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

const PATIENCE: Duration = Duration::from_secs(10);
const LARGEST: usize = 1 << 20;

/// The way out. Clones share it.
#[derive(Clone)]
pub(crate) struct Outbound {
    tls: Arc<ClientConfig>,
    /// In development http to this machine is allowed.
    development: bool,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: http::StatusCode,
    pub(crate) body: Bytes,
}

fn failed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let mut e = Error::unavailable("outbound.failed", "Another server did not answer as it should.");
    e.source = Some(why.into());
    e
}

fn refused() -> Error {
    Error::unprocessable("outbound.refused", "This address is not one that we call.")
}

impl Outbound {
    pub(crate) fn new(development: bool) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        #[expect(
            clippy::expect_used,
            reason = "invariant: the provider supports the default protocol versions"
        )]
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS versions of the provider");
        Self {
            tls: Arc::new(builder.with_root_certificates(roots).with_no_client_auth()),
            development,
        }
    }

    /// GET, expecting JSON.
    pub(crate) async fn get_json(&self, address: &str, bearer: Option<&str>) -> Result<serde_json::Value> {
        let mut request = Request::builder().method(Method::GET);
        if let Some(token) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = self.send(address, request, Bytes::new()).await?;
        if answer.status != http::StatusCode::OK {
            return Err(failed(format!("status {}", answer.status)));
        }
        serde_json::from_slice(&answer.body).map_err(failed)
    }

    /// Sends a request to an address, all within the time allowed.
    pub(crate) async fn send(&self, address: &str, request: http::request::Builder, body: Bytes) -> Result<Answer> {
        tokio::time::timeout(PATIENCE, self.exchange(address, request, body))
            .await
            .map_err(failed)?
    }

    async fn exchange(&self, address: &str, request: http::request::Builder, body: Bytes) -> Result<Answer> {
        let url = url::Url::parse(address).map_err(|_| refused())?;
        let host = url.host_str().ok_or_else(refused)?.to_owned();
        let https = match url.scheme() {
            "https" => true,
            "http" if self.development => false,
            _ => return Err(refused()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused());
        }
        let port = url.port_or_known_default().ok_or_else(refused)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let found: Vec<SocketAddr> = tokio::net::lookup_host((bare.as_str(), port))
            .await
            .map_err(failed)?
            .collect();
        // One bad address spoils the name: an answer that mixes them is meant to slip through.
        let good = |a: &SocketAddr| is_public(a.ip()) || (self.development && a.ip().is_loopback());
        let plain = |a: &SocketAddr| https || a.ip().is_loopback();
        if found.is_empty() || !found.iter().all(|a| good(a) && plain(a)) {
            return Err(refused());
        }
        let stream = TcpStream::connect(found.as_slice()).await.map_err(failed)?;
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        let mut request = request
            .uri(path.parse::<Uri>().map_err(|_| refused())?)
            .header(header::HOST, authority)
            .header(header::USER_AGENT, "medtech")
            .body(Full::new(body))
            .map_err(failed)?;
        request
            .headers_mut()
            .entry(header::ACCEPT)
            .or_insert(HeaderValue::from_static("application/json"));
        if https {
            let name = ServerName::try_from(bare).map_err(failed)?;
            let stream = tokio_rustls::TlsConnector::from(self.tls.clone())
                .connect(name, stream)
                .await
                .map_err(failed)?;
            converse(stream, request).await
        } else {
            converse(stream, request).await
        }
    }
}

async fn converse<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let driver = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST)
            .collect()
            .await
            .map_err(failed)?;
        Ok(Answer {
            status,
            body: body.to_bytes(),
        })
    };
    let answer = answer.await;
    driver.abort();
    answer
}

/// Is this an address of the open internet? Not ours, not a neighbour's, not one that stands for another.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224.., _, _)
    );
    !special
}

/// Global unicast alone (2000::/3), without the ranges that carry an IPv4 address or are for documents.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let global = a & 0xe000 == 0x2000;
    let special = matches!(
        (a, b),
        (0x2001, 0..=0x01ff | 0x0db8) | (0x2002, _) | (0x3fff, 0..=0x0fff)
    );
    global && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_never_called() {
        let never = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "169.254.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.168.255.255",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2001:10::1",
            "2002:7f00:1::1",
            "3fff::1",
            "5f00::1",
            "4000::1",
        ];
        for text in never {
            assert!(!is_public(text.parse().expect(text)), "{text}");
        }
        for text in [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860::8888",
        ] {
            assert!(is_public(text.parse().expect(text)), "{text}");
        }
    }

    /// However the address is written, this machine is not called; in development by loopback alone.
    #[tokio::test]
    async fn ways_to_write_this_machine() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let strict = Outbound::new(false);
        let written = [
            "https://127.0.0.1:P/",
            "https://localhost:P/",
            "https://LOCALHOST.:P/",
            "https://0x7f000001:P/",
            "https://0x7f.1:P/",
            "https://0177.0.0.1:P/",
            "https://2130706433:P/",
            "https://127.1:P/",
            "https://[::1]:P/",
            "https://[::ffff:127.0.0.1]:P/",
            "https://[0:0:0:0:0:ffff:7f00:1]:P/",
            "https://0:P/",
            "https://0.0.0.0:P/",
            "https://①②⑦.0.0.1:P/",
            "https://127。0。0。1:P/",
            "https://user@127.0.0.1:P/",
            "https://8.8.8.8@127.0.0.1:P/",
            "http://127.0.0.1:P/",
            "http://localhost:P/",
            "ftp://127.0.0.1:P/",
            "file:///etc/passwd",
            "gopher://127.0.0.1:P/",
            "//127.0.0.1:P/",
            "",
            "https://",
            "https://[::1%25lo]:P/",
            "https://169.254.169.254/latest/",
            "https://[fe80::1]/",
            "https://10.0.0.1/",
            "https://[fd00::1]/",
        ];
        for text in written {
            let address = text.replace('P', &port.to_string());
            let outcome = strict.send(&address, Request::builder(), Bytes::new()).await;
            assert!(outcome.is_err(), "{address}");
        }
        // Nobody connected.
        let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(accepted.is_err(), "a connection was made");
        // In development http goes to this machine, and nowhere else.
        let lenient = Outbound::new(true);
        for away in [
            "http://10.0.0.1/",
            "http://8.8.8.8/",
            "https://192.168.1.1/",
            "http://169.254.169.254/",
        ] {
            let outcome = lenient.send(away, Request::builder(), Bytes::new()).await;
            assert_eq!(outcome.err().map(|e| e.code), Some("outbound.refused"), "{away}");
        }
    }
}
