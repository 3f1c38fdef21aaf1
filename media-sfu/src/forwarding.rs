//! The packet path, and the key frames that it needs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::engine::{Engine, PeerKey};
use crate::ids::{Layer, ParticipantId, RoomId, TrackId};
use crate::messages::{ClosedReason, Event};
use crate::packet::{MediaPacket, Mid};

impl Engine {
    /// The packet path: one packet from a publisher to everybody who gets it.
    pub(crate) fn media(&mut self, key: PeerKey, packet: &Arc<MediaPacket>) {
        let Some(entry) = self.peers.get(&key) else { return };
        let room_id = entry.room;
        let Some(id) = entry.inbound.get(&packet.mid).copied() else {
            return;
        };
        let Some(track) = self.rooms.get_mut(&room_id).and_then(|r| r.tracks.get_mut(&id)) else {
            return;
        };
        if !track.open {
            return;
        }
        if !track.started {
            self.events.push_back(Event::TrackStarted {
                room: room_id,
                track: id,
            });
        }
        track.observe(packet);
        let mut broken = Vec::new();
        let (now, layered) = (self.now, track.layered);
        for subscription in track.subscriptions.iter_mut().filter(|s| s.enabled) {
            let Some(rewrite) = subscription.forwarder.forward(packet) else {
                continue;
            };
            let Some(to) = self.peers.get_mut(&subscription.peer) else {
                continue;
            };
            let sink = &mut self.sink;
            let write = || to.peer.write(subscription.mid, layered, packet, rewrite, now, sink);
            match catch_unwind(AssertUnwindSafe(write)) {
                Ok(true) => {
                    self.stats.forwarded += 1;
                    if !std::mem::replace(&mut to.dirty, true) {
                        self.dirty.push(subscription.peer);
                    }
                }
                Ok(false) => {}
                Err(_) => broken.push(subscription.peer),
            }
        }
        let due = track.keyframes_due(self.now);
        for layer in due {
            self.drive(key, |peer, now, sink| {
                peer.request_keyframe(packet.mid, layer, now, sink)
            });
        }
        for key in broken {
            tracing::error!("panic while writing to a media connection; it is closed");
            self.drop_peer(key, Some(ClosedReason::Failed));
        }
    }

    pub(crate) fn subscriber_wants_keyframe(&mut self, room: RoomId, participant: ParticipantId, mid: Mid) {
        let now = self.now;
        let Some(id) = self.participant(room, participant).and_then(|p| p.track_on(mid)) else {
            return;
        };
        let Some(track) = self.track(room, id) else { return };
        if !track.open {
            return;
        }
        let layers = track.layers_asked_by(participant);
        let due: Vec<Layer> = layers.into_iter().filter(|l| track.keyframe_allowed(*l, now)).collect();
        for layer in due {
            self.request_keyframe(room, id, layer);
        }
    }

    /// Ask for the key frames that subscribers of a track wait for.
    pub(crate) fn ask_keyframes(&mut self, room: RoomId, id: TrackId) {
        let now = self.now;
        let due = self.track(room, id).map(|t| t.keyframes_due(now)).unwrap_or_default();
        for layer in due {
            self.request_keyframe(room, id, layer);
        }
    }

    fn request_keyframe(&mut self, room: RoomId, id: TrackId, layer: Layer) {
        if let Some((key, mid)) = self.track(room, id).and_then(|t| t.source) {
            self.drive(key, |peer, now, sink| peer.request_keyframe(mid, layer, now, sink));
        }
    }
}
