//! The hub's front door: live channels, media signalling, visits, devices.

pub mod channels;
pub mod devices;
pub mod livekit;
pub mod visits;
pub mod websocket;
