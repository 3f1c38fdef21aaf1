//! The accept loops: connections without and with TLS, which may not take for ever.

use super::Peer;
use crate::tls::Gate;
use axum::{Router, body::Body};
use http::Request;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use std::time::Duration;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tower::ServiceExt;

/// Bytes of a request's line and headers.
const HEADERS: usize = 64 * 1024;
/// A client that has not finished its handshake by then is cut.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Put into every request that came by our own TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secure;

/// A port.
pub(crate) struct Door {
    listener: TcpListener,
    tls: Option<Gate>,
}

impl Door {
    pub(crate) fn plain(listener: TcpListener) -> Self {
        Self { listener, tls: None }
    }

    pub(crate) fn secured(listener: TcpListener, tls: Gate) -> Self {
        Self {
            listener,
            tls: Some(tls),
        }
    }
}

/// Serves until `stop` turns true and the requests under way have ended.
pub(crate) async fn serve(doors: Vec<Door>, router: Router, patience: Duration, stop: watch::Receiver<bool>) {
    let mut all = JoinSet::new();
    for door in doors {
        all.spawn(accept(door, router.clone(), patience, stop.clone()));
    }
    all.join_all().await;
}

async fn accept(door: Door, router: Router, patience: Duration, mut stop: watch::Receiver<bool>) {
    // HTTP/1 alone: to tell it from HTTP/2, the first bytes would be waited for without limit.
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(HEADERS);
    // Every connection holds a receiver; when the last is gone, so are they.
    let (open, held) = watch::channel(());
    loop {
        let accepted = tokio::select! {
            accepted = door.listener.accept() => accepted,
            () = told(&mut stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, Peer(peer)),
            // Out of descriptors: others end soon.
            Err(e) => {
                tracing::warn!(error = %e, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (http, router, held, stop) = (http.clone(), router.clone(), held.clone(), stop.clone());
        let tls = door.tls.clone();
        tokio::spawn(async move {
            match tls {
                // hyper's own limit begins with the first byte.
                None => {
                    if let Ok(Ok(_)) = timeout(patience, stream.peek(&mut [0])).await {
                        attend(stream, &http, router, peer, None, stop).await;
                    }
                }
                Some(tls) => {
                    let Ok(Some(mut stream)) = timeout(HANDSHAKE, tls.accept(stream)).await else {
                        return;
                    };
                    if let Ok(Ok(_)) = timeout(patience, stream.fill_buf()).await {
                        attend(stream, &http, router, peer, Some(Secure), stop).await;
                    }
                }
            }
            drop(held);
        });
    }
    drop(held);
    open.closed().await;
}

/// One connection, to its end.
async fn attend<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    http: &Builder<TokioExecutor>,
    router: Router,
    peer: Peer,
    secure: Option<Secure>,
    mut stop: watch::Receiver<bool>,
) {
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        if let Some(secure) = secure {
            request.extensions_mut().insert(secure);
        }
        router.clone().oneshot(request.map(Body::new))
    });
    let mut connection = std::pin::pin!(http.serve_connection_with_upgrades(TokioIo::new(stream), service));
    // What goes wrong on a connection is between it and its client.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = told(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Resolves when it is time to stop; when the sender is gone, it is too.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
