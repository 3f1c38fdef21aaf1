//! A room: participants, tracks, and who speaks.

use std::collections::HashMap;

use crate::ids::{MediaKind, ParticipantId, TrackId};
use crate::messages::SpeakerLevel;
use crate::participant::Participant;
use crate::track::Track;

#[derive(Debug, Default)]
pub(crate) struct Room {
    pub participants: HashMap<ParticipantId, Participant>,
    pub tracks: HashMap<TrackId, Track>,
    speakers: Vec<SpeakerLevel>,
}

impl Room {
    /// Whether this track may flow to this participant.
    pub(crate) fn allowed(&self, participant: &Participant, track: TrackId) -> bool {
        participant.permission.can_subscribe && self.tracks.get(&track).is_some_and(|t| t.open)
    }

    /// Tracks that the participant wants, may have, and has no section for.
    pub(crate) fn missing(&self, participant: &Participant) -> Vec<(TrackId, MediaKind)> {
        participant
            .wanted
            .keys()
            .filter(|id| self.allowed(participant, **id) && participant.slot_of(**id).is_none())
            .filter_map(|id| self.tracks.get(id).map(|t| (*id, t.kind())))
            .collect()
    }

    /// Close a listening interval; the new list of speakers if it changed.
    pub(crate) fn close_interval(&mut self) -> Option<Vec<SpeakerLevel>> {
        let mut levels: HashMap<ParticipantId, f32> = HashMap::new();
        for track in self.tracks.values_mut().filter(|t| t.kind() == MediaKind::Audio) {
            let level = track.meter.close();
            if let Some(level) = level.filter(|_| track.open && !track.muted) {
                let loudest = levels.entry(track.owner).or_default();
                *loudest = loudest.max(level);
            }
        }
        let mut speakers: Vec<SpeakerLevel> = levels
            .into_iter()
            .map(|(participant, level)| SpeakerLevel { participant, level })
            .collect();
        speakers.sort_by(|a, b| b.level.total_cmp(&a.level).then(a.participant.cmp(&b.participant)));
        if speakers == self.speakers {
            return None;
        }
        self.speakers.clone_from(&speakers);
        Some(speakers)
    }
}
