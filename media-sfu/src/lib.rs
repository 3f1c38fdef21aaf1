//! The media engine: rooms of participants whose tracks are forwarded, never decoded.
//!
//! ```text
//!  signalling (tokio)                        media thread i of n (std::thread, own UDP sockets)
//!  ┌──────────────────┐  Command (bounded)  ┌────────────────────────────────────────────────┐
//!  │ rooms, tokens,   │ ──────────────────▶ │ poll → route by address → peer → track          │
//!  │ SDP in, SDP out  │ ◀────────────────── │      → each subscription's forwarder → peer     │
//!  └──────────────────┘  Event (bounded)    └────────────────────────────────────────────────┘
//! ```
//!
//! A room lives on exactly one thread; nothing on the packet path is locked, parsed as JSON or written to a store.
//! The crate knows rooms, participants and tracks by number only: names, tokens and tenants are the caller's.

mod allocator;
mod bandwidth;
mod batch;
mod commands;
mod connections;
mod egress;
mod engine;
mod forwarder;
mod forwarding;
mod ids;
mod ingress;
mod keyframe;
mod layers;
mod messages;
mod munger;
mod negotiation;
mod offering;
mod packet;
mod participant;
mod path;
mod peer;
mod room;
mod sdp;
mod sfu;
mod speaker;
mod stats;
mod streams;
mod stun;
mod thread;
mod track;
#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail")]
mod virtual_network;

pub use ids::{Layer, MediaKind, ParticipantId, RoomId, TrackId, Transport};
pub use messages::{
    Answer, ClosedReason, Command, DataKind, Event, Offer, Permission, SpeakerLevel, TrackBinding, TrackSpec,
};
pub use sfu::{Sfu, SfuConfig, SfuError};
pub use stats::Stats;
