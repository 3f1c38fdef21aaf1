//! The hub's front door: live channels, and what others attach to the same door.

pub mod channels;
pub mod livekit;
pub mod websocket;
