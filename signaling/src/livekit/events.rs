//! What happened in rooms, for the parts of the product that keep the record (visits, audit).

use livekit_protocol::DisconnectReason;

use super::TenantId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomEvent {
    pub tenant: TenantId,
    pub room: String,
    pub identity: String,
    /// One connection's id; a participant who comes again has another.
    pub sid: String,
    /// Unix milliseconds.
    pub at: i64,
    pub kind: RoomEventKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomEventKind {
    /// Signalling stands.
    Joined,
    /// Media can flow.
    Active,
    /// Signalling was lost; the participant may come back and resume.
    Interrupted,
    /// The participant came back before it was given up.
    Resumed,
    Left {
        reason: LeaveReason,
    },
    TrackPublished {
        sid: String,
        video: bool,
        source: &'static str,
    },
    TrackUnpublished {
        sid: String,
    },
}

/// Why a participant's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveReason {
    ClientInitiated,
    DuplicateIdentity,
    Removed,
    RoomClosed,
    ConnectionLost,
    ServerShutdown,
}

impl LeaveReason {
    pub(super) fn to_proto(self) -> DisconnectReason {
        match self {
            LeaveReason::ClientInitiated => DisconnectReason::ClientInitiated,
            LeaveReason::DuplicateIdentity => DisconnectReason::DuplicateIdentity,
            LeaveReason::Removed => DisconnectReason::ParticipantRemoved,
            LeaveReason::RoomClosed => DisconnectReason::RoomDeleted,
            LeaveReason::ConnectionLost => DisconnectReason::SignalClose,
            LeaveReason::ServerShutdown => DisconnectReason::ServerShutdown,
        }
    }
}
