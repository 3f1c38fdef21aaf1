//! The receiving side of a connection: whole messages, with pings answered and the closing handshake done.

use super::{
    decoder::{Decoder, Fault, Message},
    frame::{self, Opcode},
    socket::{Sent, Socket},
};
use bytes::Bytes;
use std::{cell::RefCell, io::ErrorKind, sync::Arc};

/// Bytes read at once. One buffer for each thread of the runtime, none for a connection.
const CHUNK: usize = 16 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer closed, in good order or by vanishing, or we did.
    Closed,
    /// The peer broke the protocol; the close frame with the fault's code is on its way.
    Fault(Fault),
}

/// Reads one connection. Dropping it ends the connection.
pub struct Reader {
    socket: Arc<Socket>,
    decoder: Decoder,
    /// What the client sent before it saw our 101.
    early: Bytes,
    /// The peer's close frame has been read.
    ended: bool,
}

impl Reader {
    pub(super) fn new(socket: Arc<Socket>, early: Bytes) -> Self {
        let decoder = Decoder::new(socket.limits().message);
        // Even empty it would keep the 8 KiB of the HTTP connection alive for as long as the reader lives.
        let early = if early.is_empty() { Bytes::new() } else { early };
        Self {
            socket,
            decoder,
            early,
            ended: false,
        }
    }

    #[must_use]
    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// Waits for messages and appends them: only [`Message::Text`], [`Message::Binary`] and [`Message::Pong`]. Once the
    /// connection is closing, what still comes in is dropped.
    pub async fn next(&mut self, out: &mut Vec<Message>) -> Result<(), End> {
        if !self.early.is_empty() {
            let mut early = std::mem::take(&mut self.early).to_vec();
            self.take(&mut early, out)?;
        }
        while out.is_empty() {
            if self.ended {
                return Err(End::Closed);
            }
            self.socket.wire.readable().await.map_err(|_| End::Closed)?;
            BUFFER.with_borrow_mut(|buffer| match self.socket.wire.try_read(buffer) {
                Ok(0) => Err(End::Closed),
                Ok(n) => self.take(buffer.get_mut(..n).unwrap_or_default(), out),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
                Err(_) => Err(End::Closed),
            })?;
        }
        Ok(())
    }

    /// After a fault or a close of ours: gives the peer the time to answer, so that our close frame reaches it before the
    /// connection ends. Bounded by [`super::Limits::closing`].
    pub async fn finish(&mut self) {
        let mut dropped = Vec::new();
        while self.socket.is_closing() && self.next(&mut dropped).await.is_ok() {
            dropped.clear();
        }
    }

    fn take(&mut self, input: &mut [u8], out: &mut Vec<Message>) -> Result<(), End> {
        self.socket.note_heard();
        let from = out.len();
        let result = self.decoder.decode(input, out);
        let closing = self.socket.is_closing();
        let mut pongs = Vec::new();
        let mut index = 0;
        out.retain(|message| {
            index += 1;
            if index <= from {
                return true;
            }
            match message {
                Message::Ping(payload) => {
                    pongs.push(frame::encode(Opcode::Pong, payload));
                    false
                }
                Message::Close(close) => {
                    // The same code back (section 5.5.1). When we closed first, this is the answer.
                    let code = close.as_ref().map_or(1000, |(code, _)| *code);
                    self.socket.close(code, "");
                    self.ended = true;
                    false
                }
                _ => !closing,
            }
        });
        for pong in pongs {
            if self.socket.send(&pong) == Sent::Slow {
                self.socket.close(1008, "pings without reading");
            }
        }
        if let Err(fault) = result {
            self.socket.close(fault.code(), &fault.to_string());
            self.socket.end_if_flushed();
            return Err(End::Fault(fault));
        }
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.socket.shut();
    }
}
