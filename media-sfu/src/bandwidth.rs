//! From the estimate of a path to what is sent on it.

use crate::allocator::{Demand, Grant, allocate, desired, settled};
use crate::engine::{Engine, PeerKey};
use crate::ids::{Layer, MediaKind, ParticipantId, RoomId, TrackId};
use crate::messages::Event;

/// Set aside for the voice of each subscribed track, bits a second.
const VOICE: u64 = 48_000;

impl Engine {
    pub(crate) fn estimated(&mut self, room: RoomId, participant: ParticipantId, key: PeerKey, estimate: Option<u64>) {
        let Some(p) = self.participant(room, participant) else {
            return;
        };
        if p.receiving_peer() != Some(key) {
            return;
        }
        let before = std::mem::replace(&mut p.path.estimate, estimate);
        // Falling is acted on at once; rising can wait for the next measurement.
        if estimate.is_none() || before.is_none_or(|before| estimate.is_some_and(|now| now < before)) {
            self.share_bandwidth(room, participant);
        }
    }

    /// What came of what was sent. Where much less came, on a strained path, that is what the path carries. Where nearly all
    /// did, it could be any more, which only counts while all is sent.
    pub(crate) fn measured(&mut self, room: RoomId, participant: ParticipantId, key: PeerKey, sent: u64, came: u64) {
        /// Percent of what was sent, below which the path is full and not only uneven.
        const FULL: u64 = 85;
        let now = self.now;
        let Some(p) = self.participant(room, participant) else {
            return;
        };
        let (strained, withholds) = (p.path.is_strained(now), p.path.is_withholding());
        if strained && came * 100 < sent * FULL {
            self.estimated(room, participant, key, Some(came));
        } else if !withholds && p.path.estimate.is_some() {
            self.estimated(room, participant, key, None);
        }
    }

    /// Give every subscription of a participant its share.
    pub(crate) fn share_bandwidth(&mut self, room: RoomId, participant: ParticipantId) {
        let now = self.now;
        let Some(r) = self.rooms.get(&room) else { return };
        let Some(p) = r.participants.get(&participant) else {
            return;
        };
        let (estimate, peer) = (p.path.estimate, p.receiving_peer());
        let (strained, try_again) = (p.path.is_strained(now), p.path.try_again(now));
        let (mut voices, mut tracks, mut demands) = (0, Vec::<TrackId>::new(), Vec::<Demand>::new());
        // In the order of publication, so that the outcome does not depend on chance.
        for id in p.wanted.keys() {
            let Some(track) = r.tracks.get(id) else { continue };
            let Some(s) = track
                .subscriptions
                .iter()
                .find(|s| s.participant == participant && s.enabled)
            else {
                continue;
            };
            if track.kind() == MediaKind::Audio {
                voices += 1;
                continue;
            }
            tracks.push(*id);
            demands.push(Demand {
                rates: track.rates(),
                max: s.forwarder.max(),
                granted: match s.forwarder.grant() {
                    Grant::Paused if try_again => Grant::UpTo(Layer::LOW),
                    granted => granted,
                },
            });
        }
        if tracks.is_empty() {
            return;
        }
        let voice = voices * VOICE;
        let grants = match estimate {
            Some(estimate) => allocate(estimate.saturating_sub(voice), &demands, strained),
            None => vec![Grant::UpTo(Layer::HIGH); demands.len()],
        };
        let withheld = grants.contains(&Grant::Paused);
        // What is looked for is looked for with packets that repeat others.
        let wish = if settled(&demands, &grants) {
            0
        } else {
            (desired(&demands) + voice) * 5 / 4
        };
        if let Some(p) = self.participant(room, participant) {
            p.path.withholds(now, withheld);
        }
        for (track, grant) in tracks.into_iter().zip(grants) {
            if self.track(room, track).is_some_and(|t| t.grant(participant, grant)) {
                let paused = grant == Grant::Paused;
                tracing::debug!(%participant, %track, paused, estimate, "a picture is withheld or comes back");
                self.events.push_back(Event::StreamPaused {
                    room,
                    participant,
                    track,
                    paused,
                });
            }
        }
        if let (Some(_), Some(key)) = (estimate, peer) {
            self.drive(key, |peer, now, sink| peer.set_desired(wish, now, sink));
        }
    }
}
