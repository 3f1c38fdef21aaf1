//! How the authority is called: HTTPS whose certificate is checked, one connection a request, bounded in time and size.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use medtech_kernel::{Result, config};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A request and its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// A chain of certificates has some thousands of bytes.
const LARGEST: usize = 1 << 20;

#[derive(Clone)]
pub(super) struct Caller(Arc<ClientConfig>);

impl Caller {
    pub(super) fn new(tls: &config::Tls) -> Result<Self> {
        let wrong = |e: String| medtech_kernel::Error::bad("config.tls", e);
        let mut roots = RootCertStore::empty();
        match &tls.acme_root_cert {
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Some(path) => {
                let told = |e| wrong(format!("tls.acme_root_cert {}: {e}", path.display()));
                let read = CertificateDer::pem_file_iter(path).map_err(|e| told(e.to_string()))?;
                for root in read {
                    let root = root.map_err(|e| told(e.to_string()))?;
                    roots.add(root).map_err(|e| told(e.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(told("holds no certificate in PEM".to_owned()));
                }
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(super::super::provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|e| wrong(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> std::result::Result<BytesResponse, Error> {
        let uri = request.uri().clone();
        let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(Error::Str("an https address"));
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443)));
        let stream = stream.await.map_err(other)?;
        let name = ServerName::try_from(host).map_err(other)?;
        let stream = TlsConnector::from(self.0).connect(name, stream).await.map_err(other)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(other)?;
        let driver = tokio::spawn(connection);
        let answer = async {
            let response = sender.send_request(addressed(request, &uri)?).await.map_err(other)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, LARGEST).collect().await.map_err(Error::Other)?;
            Ok(BytesResponse::from(Response::from_parts(
                parts,
                Full::new(body.to_bytes()),
            )))
        };
        let answer = answer.await;
        driver.abort();
        answer
    }
}

/// The host goes into its header, and the path alone onto the line (RFC 9112, 3.2.1).
fn addressed(
    mut request: Request<BodyWrapper<Bytes>>,
    uri: &Uri,
) -> std::result::Result<Request<BodyWrapper<Bytes>>, Error> {
    let authority = uri.authority().map_or("", |a| a.as_str());
    let host = HeaderValue::try_from(authority).map_err(other)?;
    request.headers_mut().insert(header::HOST, host);
    *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    Ok(request)
}

fn other(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(e))
}

impl HttpClient for Caller {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = std::result::Result<BytesResponse, Error>> + Send>> {
        let asked = self.clone().ask(request);
        Box::pin(async move { tokio::time::timeout(PATIENCE, asked).await.map_err(other)? })
    }
}
