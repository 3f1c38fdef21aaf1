//! Numbers by which the engine knows rooms, participants and tracks. The caller mints them.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// A room. Its number chooses the media thread, so numbers should be handed out in sequence.
    RoomId
);
id!(
    /// A participant, unique in the process, not only in its room.
    ParticipantId
);
id!(
    /// A published track, unique in the process.
    TrackId
);

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    Audio,
    Video,
}

/// Which peer connection of a participant a description belongs to (LiveKit's signal target).
///
/// A client that uses one connection for both directions knows only `Publisher`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// The client offers: it publishes here, and receives here too when it uses a single connection.
    Publisher,
    /// The server offers: the client only receives here.
    Subscriber,
}

/// A simulcast layer, 0 the smallest (RID `q`), 2 the largest (RID `f`). A track without simulcast has layer 0 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Layer(pub u8);

impl Layer {
    pub const LOW: Layer = Layer(0);
    pub const HIGH: Layer = Layer(2);

    /// The layer a restriction identifier stands for; `None` is a stream without simulcast.
    pub(crate) fn from_rid(rid: Option<&str>) -> Layer {
        match rid {
            Some("h") => Layer(1),
            Some("f") => Layer(2),
            _ => Layer(0),
        }
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0.min(2))
    }
}
