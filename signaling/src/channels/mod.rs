//! Live channels: the Centrifugo client protocol, version 2, in JSON, at `/connection/websocket`.
//!
//! A connection is a small task that reads commands ([`client`]). Channels live in shards ([`shard`]): each shard is one
//! thread that owns its channels whole - history, offset, epoch, subscribers, presence - and takes everything through one
//! bounded inbox, so there is no lock, and a subscriber sees its reply before the first publication. Publishers only put a
//! message into that inbox. [`Hub`] ties them together and is what the rest of the product sees.
//!
//! Invariants:
//! * A channel belongs to a tenant; clients neither see nor name tenants.
//! * Offsets of an epoch have no gaps. When something was lost (an inbox overflowed, the bus dropped), the epoch changes
//!   and subscribers are told to subscribe again, so `recovered: true` is never a lie.
//! * Nothing waits for a slow client: its queue is bounded, and then it is cut with 3008.

mod answers;
mod bucket;
mod client;
mod counters;
mod history;
mod hub;
mod live;
mod members;
mod protocol;
mod rules;
mod shard;
#[cfg(test)]
mod tests;

pub use hub::{Hub, Options};
pub use shard::{PresenceChange, Present};
