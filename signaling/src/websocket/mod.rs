//! WebSocket (RFC 6455, version 13) on the raw TCP (or TLS) stream behind an axum route: our own 101, our own frame codec, no task
//! and no buffer for an idle connection.
//!
//! * [`Upgrade`] is the extractor: it checks the handshake and hands over the stream once the 101 is on the wire.
//! * [`Socket`] is the sending side, shared by whoever has something to say. A frame is encoded once into [`bytes::Bytes`]
//!   and written to each socket directly; only a socket that would block gets a queue, bounded by bytes.
//! * [`Reader`] is the receiving side: whole messages, with pings answered and the closing handshake done.
//! * [`frame`] and [`Decoder`] are the protocol itself, without input or output.
//!
//! Extensions are never negotiated: compression is state for each socket and forbids sharing a frame.

mod decoder;
pub mod frame;
mod reader;
mod socket;
#[cfg(test)]
mod tests;
mod upgrade;
mod wire;

pub use decoder::{Decoder, Fault, Message};
pub use reader::{End, Reader};
pub use socket::{Limits, Sent, Socket};
pub use upgrade::Upgrade;
