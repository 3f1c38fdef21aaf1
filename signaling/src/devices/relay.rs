//! The way to a broker on another machine by our own TLS: the MQTT client, which knows none, connects to a socket in a
//! directory of ours alone, and everything goes on from there encrypted, to a broker whose certificate and name are checked.

use medtech_kernel::{Error, Result, config::Config};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener, UnixStream},
    task::AbortHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A broker that has not finished its handshake by then is left.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Dropping it ends the way; connections that stand go on.
pub(super) struct Relay {
    place: String,
    task: AbortHandle,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.place);
    }
}

impl Relay {
    pub(super) fn open(config: &Config, host: &str, port: u16) -> Result<Self> {
        let way = Way::to(config, host, port)?;
        let folder = config.data_dir.join("run");
        let socket = folder.join("broker.sock");
        let failed = |e: io::Error| {
            let what = format!(
                "{} cannot be opened (a path of at most 100 bytes): {e}",
                socket.display()
            );
            Error::unavailable("devices.broker", what)
        };
        // Nobody else's programs may go through it.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(failed)?;
        // What a server that was killed left.
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        let place = socket
            .to_str()
            .ok_or_else(|| Error::bad("config.invalid", "data_dir is not UTF-8"))?
            .to_owned();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(way.clone().carry(near));
            }
        });
        let task = task.abort_handle();
        Ok(Self { place, task })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }
}

/// Where the broker is, and whom we believe that it is.
#[derive(Clone)]
pub(super) struct Way {
    tls: TlsConnector,
    name: ServerName<'static>,
    target: (String, u16),
}

impl Way {
    pub(super) fn to(config: &Config, host: &str, port: u16) -> Result<Self> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|e| Error::bad("config.invalid", format!("mqtt.broker: {e}")))?;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(client(config.mqtt.broker_root_cert.as_ref())?)),
            name,
            target: (host.to_owned(), port),
        })
    }

    /// A connection to the broker that it is; fails with what is wrong with the network, or with who answered.
    pub(super) async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let connect = async {
            let far = TcpStream::connect(self.target.clone()).await?;
            far.set_nodelay(true)?;
            self.tls.connect(self.name.clone(), far).await
        };
        timeout(CONNECT_WITHIN, connect).await?
    }

    async fn carry(self, mut near: UnixStream) {
        match self.connect().await {
            Ok(mut far) => {
                // How it ends, its two ends notice.
                let _ = copy_bidirectional(&mut near, &mut far).await;
            }
            Err(e) => tracing::warn!(error = %e, "mqtt broker: no connection by TLS"),
        }
    }
}

/// Believes the authorities of the file, and no others; without one, those of the system.
fn client(roots: Option<&PathBuf>) -> Result<ClientConfig> {
    let mut store = RootCertStore::empty();
    match roots {
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(file) => {
            let wrong = |e: &dyn std::fmt::Display| {
                let what = format!("mqtt.broker_root_cert: {}: {e}", file.display());
                Error::bad("config.invalid", what)
            };
            let certificates = CertificateDer::pem_file_iter(file).map_err(|e| wrong(&e))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|e| wrong(&e))?;
                store.add(certificate).map_err(|e| wrong(&e))?;
            }
            if store.is_empty() {
                return Err(wrong(&"no certificate in PEM"));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("devices.broker_tls", e))?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}
