//! A plain HTTP/1.1 client over one kept connection.

use crate::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::TcpStream;

/// One connection to a server on the loopback.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: Option<String>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answer {
    /// The JSON body of a success; anything else is a failure that quotes the answer.
    pub fn json(&self) -> Result<Value> {
        let text = || {
            String::from_utf8_lossy(&self.body)
                .chars()
                .take(500)
                .collect::<String>()
        };
        if !self.status.is_success() {
            return Err(format!("{}: {}", self.status, text()).into());
        }
        serde_json::from_slice(&self.body).context(format!("the answer is no JSON: {}", text()))
    }
}

impl Client {
    pub async fn connect(port: u16, token: Option<&str>) -> Result<Self> {
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .await
            .context("connecting")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("connecting")?;
        // Its errors come back to the requests.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Self {
            sender,
            host: format!("localhost:{port}"),
            token: token.map(str::to_owned),
        })
    }

    pub async fn send(&mut self, method: Method, path: &str, body: Option<Bytes>) -> Result<Answer> {
        let kind = if path.starts_with("/fhir") {
            "application/fhir+json"
        } else {
            "application/json"
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let request = request.body(Full::new(body.unwrap_or_default()))?;
        self.sender.ready().await.context(path)?;
        let response = self.sender.send_request(request).await.context(path)?;
        let status = response.status();
        let body = response.into_body().collect().await.context(path)?.to_bytes();
        Ok(Answer { status, body })
    }

    pub async fn get(&mut self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, None)
            .await?
            .json()
            .context(format!("GET {path}"))
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let answer = self.send(Method::POST, path, Some(body.to_string().into())).await?;
        answer.json().context(format!("POST {path}"))
    }
}
