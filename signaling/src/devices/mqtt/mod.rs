//! A narrow MQTT endpoint (3.1.1 and 5): devices publish readings up and hear their own commands, nothing else.
//!
//! Nothing is processed before the credential is checked: user name is the device's id, password its token. QoS 0 and 1
//! by both versions, QoS 2 by 3.1.1 (5 is told that the maximum is 1). No retained messages, no topic aliases, no
//! wildcards, no stored sessions. A PUBACK means: durable.

mod connect;
pub(super) mod registry;
mod session;
pub(super) mod websocket;
mod wire;

use super::Devices;
use std::time::Duration;
use tokio::{net::TcpListener, time::timeout};
use tokio_rustls::TlsAcceptor;

/// A client that has not finished its handshake by then is cut.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Takes connections until the process stops, by TLS where it is given.
pub(super) async fn listen(devices: Devices, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let mut stop = devices.0.stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|s| *s) => return,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of descriptors, most likely: leave those who are connected some time to end.
                tracing::warn!(error = %e, "mqtt: cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = devices.0.slots.clone().try_acquire_owned() else {
            tracing::warn!(%peer, "mqtt: refused, too many connections");
            continue;
        };
        let _ = socket.set_nodelay(true);
        let (devices, tls) = (devices.clone(), tls.clone());
        tokio::spawn(async move {
            let peer = peer.to_string();
            match tls {
                None => session::serve(devices, socket, &peer).await,
                Some(tls) => match timeout(HANDSHAKE_WITHIN, tls.accept(socket)).await {
                    Ok(Ok(stream)) => session::serve(devices, stream, &peer).await,
                    Ok(Err(e)) => tracing::debug!(peer, error = %e, "mqtt: no TLS"),
                    Err(_) => tracing::debug!(peer, "mqtt: the TLS handshake took too long"),
                },
            }
            drop(slot);
        });
    }
}
