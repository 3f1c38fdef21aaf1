//! A room of one tenant.

use std::collections::BTreeMap;

use livekit_protocol as proto;
use medtech_media_sfu::{ParticipantId, SpeakerLevel, TrackId};

use super::TenantId;
use super::participant::Participant;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RoomKey {
    pub tenant: TenantId,
    pub name: String,
}

#[derive(Debug)]
pub(super) struct Room {
    pub key: RoomKey,
    pub sid: String,
    pub created_at: i64,
    pub participants: BTreeMap<ParticipantId, Participant>,
    pub speaking: Vec<SpeakerLevel>,
}

impl Room {
    pub(super) fn info(&self) -> proto::Room {
        let seen = self.participants.values().filter(|p| !p.permission.hidden);
        proto::Room {
            sid: self.sid.clone(),
            name: self.key.name.clone(),
            creation_time: self.created_at / 1000,
            creation_time_ms: self.created_at,
            num_participants: seen.clone().count() as u32,
            num_publishers: seen.filter(|p| p.tracks.values().any(|t| t.live)).count() as u32,
            ..proto::Room::default()
        }
    }

    pub(super) fn by_identity(&self, identity: &str) -> Option<&Participant> {
        self.participants.values().find(|p| p.identity == identity)
    }

    /// A track by its public id, whoever published it.
    pub(super) fn track_by_sid(&self, sid: &str) -> Option<(ParticipantId, TrackId)> {
        self.participants
            .values()
            .find_map(|p| Some((p.id, p.track_by_sid(sid)?)))
    }
}
