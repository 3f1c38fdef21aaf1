//! MQTT over WebSocket (subprotocol `mqtt`): the same session on a byte stream made of frames.

use super::{super::Devices, session};
use axum::{
    Router,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    response::Response,
    routing::get,
};
use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use medtech_kernel::Error;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(in super::super) fn routes(devices: Devices) -> Router {
    Router::new().route("/mqtt", get(upgrade)).with_state(devices)
}

async fn upgrade(State(devices): State<Devices>, ws: WebSocketUpgrade) -> Result<Response, Error> {
    let slot = devices.0.slots.clone().try_acquire_owned();
    let slot = slot.map_err(|_| Error::unavailable("devices.full", "Too many devices are connected."))?;
    let ws = ws
        .protocols(["mqtt"])
        .max_message_size(128 * 1024)
        .max_frame_size(128 * 1024);
    Ok(ws.on_upgrade(move |socket| async move {
        session::serve(
            devices,
            Frames {
                socket,
                rest: Bytes::new(),
            },
            "websocket",
        )
        .await;
        drop(slot);
    }))
}

/// Binary frames as a byte stream. Frames need not align with packets (MQTT 5, section 6.0).
struct Frames {
    socket: WebSocket,
    rest: Bytes,
}

impl AsyncRead for Frames {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                // The standard: anything but binary closes the connection.
                Some(Ok(Message::Text(_) | Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(e)) => return Poll::Ready(Err(io::Error::other(e))),
            }
        }
        let n = self.rest.len().min(out.remaining());
        out.put_slice(self.rest.get(..n).unwrap_or_default());
        self.rest.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Frames {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io::Error::other)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.socket)
            .start_send(message)
            .map_err(io::Error::other)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(io::Error::other)
    }
}
