//! What the caller tells a media thread and what it hears back.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::{Layer, MediaKind, ParticipantId, RoomId, TrackId, Transport};

/// What a participant may do. Withdrawing a right stops forwarding with the next packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    pub can_publish: bool,
    pub can_subscribe: bool,
    pub can_publish_data: bool,
}

/// A track that a participant is about to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackSpec {
    pub track: TrackId,
    pub kind: MediaKind,
    /// The client's own id of the track, found again in the `a=msid` of its offer.
    pub cid: String,
    /// The media stream id that subscribers see in `a=msid`.
    pub stream_label: String,
    /// The track id that subscribers see in `a=msid` and in the map of an answer.
    pub track_label: String,
}

/// Commands to the thread that owns a room.
#[derive(Debug)]
pub enum Command {
    Join {
        room: RoomId,
        participant: ParticipantId,
        permission: Permission,
    },
    Leave {
        room: RoomId,
        participant: ParticipantId,
    },
    /// An offer of the client for its publisher connection; answered by [`Event::Answered`].
    Offer {
        room: RoomId,
        participant: ParticipantId,
        offer_id: u32,
        sdp: String,
    },
    /// The client's answer to [`Event::Offered`].
    Answer {
        room: RoomId,
        participant: ParticipantId,
        offer_id: u32,
        sdp: String,
    },
    /// The client receives on a second connection, for which the server makes the offers.
    OpenSubscriber {
        room: RoomId,
        participant: ParticipantId,
    },
    /// Offer the subscriber connection again with new ICE credentials.
    RestartSubscriber {
        room: RoomId,
        participant: ParticipantId,
    },
    AddTrack {
        room: RoomId,
        participant: ParticipantId,
        spec: TrackSpec,
    },
    RemoveTrack {
        room: RoomId,
        track: TrackId,
    },
    Mute {
        room: RoomId,
        track: TrackId,
        muted: bool,
    },
    Subscribe {
        room: RoomId,
        participant: ParticipantId,
        track: TrackId,
    },
    Unsubscribe {
        room: RoomId,
        participant: ParticipantId,
        track: TrackId,
    },
    /// What a subscriber wants of a track: the largest layer useful to it, and whether it wants it at all now.
    TrackSettings {
        room: RoomId,
        participant: ParticipantId,
        track: TrackId,
        max_layer: Layer,
        enabled: bool,
    },
    SetPermission {
        room: RoomId,
        participant: ParticipantId,
        permission: Permission,
    },
    SendData {
        room: RoomId,
        to: Vec<ParticipantId>,
        kind: DataKind,
        payload: Bytes,
    },
    CloseRoom {
        room: RoomId,
    },
}

impl Command {
    pub(crate) fn room(&self) -> RoomId {
        match self {
            Command::Join { room, .. }
            | Command::Leave { room, .. }
            | Command::Offer { room, .. }
            | Command::Answer { room, .. }
            | Command::OpenSubscriber { room, .. }
            | Command::RestartSubscriber { room, .. }
            | Command::AddTrack { room, .. }
            | Command::RemoveTrack { room, .. }
            | Command::Mute { room, .. }
            | Command::Subscribe { room, .. }
            | Command::Unsubscribe { room, .. }
            | Command::TrackSettings { room, .. }
            | Command::SetPermission { room, .. }
            | Command::SendData { room, .. }
            | Command::CloseRoom { room } => *room,
        }
    }
}

/// Reliability of a data message, LiveKit's two channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataKind {
    Reliable,
    Lossy,
}

/// A track bound to a media section of its publisher's offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackBinding {
    pub track: TrackId,
    pub mid: String,
    /// The first codec of the section, as a MIME type (`video/VP8`).
    pub mime: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub sdp: String,
    /// Media section to the label of the track that is sent on it.
    pub mid_to_track: BTreeMap<String, String>,
    pub bound: Vec<TrackBinding>,
    /// Tracks whose section no longer sends: the client has unpublished them.
    pub unbound: Vec<TrackId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub sdp: String,
    pub mid_to_track: BTreeMap<String, String>,
}

/// Why the engine gave a participant's connection up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClosedReason {
    /// The other side said goodbye (DTLS close).
    Remote,
    /// The connection broke a rule of a protocol, or our own code failed on it.
    Failed,
    /// The participant did not read its reliable data fast enough.
    DataOverflow,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpeakerLevel {
    pub participant: ParticipantId,
    /// 0 (silence) to 1 (loudest).
    pub level: f32,
}

/// Events from the media threads.
#[derive(Debug)]
pub enum Event {
    Answered {
        room: RoomId,
        participant: ParticipantId,
        offer_id: u32,
        result: Result<Answer, String>,
    },
    Offered {
        room: RoomId,
        participant: ParticipantId,
        offer_id: u32,
        offer: Offer,
    },
    /// ICE and DTLS are up.
    Connected {
        room: RoomId,
        participant: ParticipantId,
        transport: Transport,
    },
    /// No sign of life on the path; it may come back by itself or by an ICE restart.
    Disconnected {
        room: RoomId,
        participant: ParticipantId,
        transport: Transport,
    },
    /// The path came back.
    Recovered {
        room: RoomId,
        participant: ParticipantId,
        transport: Transport,
    },
    Closed {
        room: RoomId,
        participant: ParticipantId,
        transport: Transport,
        reason: ClosedReason,
    },
    /// The client must offer again, with this many more receiving sections.
    NegotiationNeeded {
        room: RoomId,
        participant: ParticipantId,
        audio: u32,
        video: u32,
    },
    /// The path to a subscriber has no room for the picture of a track, or has again.
    StreamPaused {
        room: RoomId,
        participant: ParticipantId,
        track: TrackId,
        paused: bool,
    },
    /// The first packet of a track arrived.
    TrackStarted { room: RoomId, track: TrackId },
    Data {
        room: RoomId,
        participant: ParticipantId,
        kind: DataKind,
        payload: Bytes,
    },
    /// The loud ones, loudest first; sent when the list or a level changed.
    Speakers { room: RoomId, speakers: Vec<SpeakerLevel> },
}

impl Event {
    /// Whether losing the event would leave the caller with a wrong picture for good.
    pub(crate) fn must_arrive(&self) -> bool {
        !matches!(
            self,
            Event::Speakers { .. }
                | Event::Data {
                    kind: DataKind::Lossy,
                    ..
                }
        )
    }
}
