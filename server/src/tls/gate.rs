//! The handshake of the web port. An authority that looks whether a name leads here speaks a protocol of its own, which
//! carries nothing else (RFC 8737): it is answered, and the connection is over.

use super::acme::answer;
use medtech_kernel::Ctx;
use rustls::{ServerConfig, server::Acceptor};
use std::sync::{Arc, OnceLock};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

#[derive(Clone)]
pub(crate) struct Gate {
    pub(super) config: Arc<ServerConfig>,
    /// Where the answers to an authority lie, from when the storage is open; `None` where there is no authority.
    pub(super) answers: Option<Arc<OnceLock<Ctx>>>,
}

impl Gate {
    /// `None` when there is nobody to serve.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await.ok()?;
        let Some(answers) = self.answers.as_ref().filter(|_| asks_for_proof(&hello)) else {
            return hello.into_stream(self.config.clone()).await.ok();
        };
        let host = hello.client_hello().server_name()?.to_ascii_lowercase();
        let config = answer::handshake(answers.get()?, &host).await?;
        let mut stream = hello.into_stream(config).await.ok()?;
        let _ = stream.shutdown().await;
        None
    }
}

/// Is that protocol the only one that is offered?
fn asks_for_proof(hello: &tokio_rustls::StartHandshake<TcpStream>) -> bool {
    let hello = hello.client_hello();
    hello
        .alpn()
        .is_some_and(|mut offered| offered.next() == Some(answer::PROTOCOL) && offered.next().is_none())
}
