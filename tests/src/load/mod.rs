//! The media load client: LiveKit's signalling, packets of the shape of VP8 video and Opus, and counting at the far end.
//! It is built on the `webrtc` crate, so the engine is measured by a stack that is not its own.

mod count;
mod participant;
mod peer;
mod shape;

pub use count::{Counts, Seen};
pub use participant::{Participant, Role};

/// Packets that one publisher sends in a second.
pub const PUBLISHED_PER_SECOND: u64 = shape::VIDEO_PER_SECOND + shape::AUDIO_PER_SECOND;
