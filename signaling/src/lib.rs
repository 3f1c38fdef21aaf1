//! medtech-signaling

pub mod livekit;
