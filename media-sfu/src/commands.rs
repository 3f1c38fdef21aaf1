//! Orders of the caller: who is in a room, what is published, and who may do what.

use std::time::Instant;

use crate::engine::{Engine, PeerKey};
use crate::ids::{ParticipantId, RoomId, TrackId};
use crate::messages::{Command, Permission};
use crate::participant::Participant;
use crate::track::Track;

impl Engine {
    pub(crate) fn command(&mut self, now: Instant, command: Command) {
        self.now = now;
        match command {
            Command::Join {
                room,
                participant,
                permission,
            } => {
                self.rooms
                    .entry(room)
                    .or_default()
                    .participants
                    .insert(participant, Participant::new(permission));
            }
            Command::Leave { room, participant } => self.leave(room, participant),
            Command::Offer {
                room,
                participant,
                offer_id,
                sdp,
            } => self.client_offer(room, participant, offer_id, &sdp),
            Command::Answer {
                room,
                participant,
                offer_id,
                sdp,
            } => self.client_answer(room, participant, offer_id, &sdp),
            Command::OpenSubscriber { room, participant } => self.open_subscriber(room, participant),
            Command::RestartSubscriber { room, participant } => self.offer_subscriber(room, participant, true),
            Command::AddTrack {
                room,
                participant,
                spec,
            } => {
                if let Some(room) = self.rooms.get_mut(&room)
                    && let Some(owner) = room.participants.get_mut(&participant)
                {
                    owner.unbound.push(spec.track);
                    let open = owner.permission.can_publish;
                    room.tracks.insert(spec.track, Track::new(spec, participant, open));
                }
            }
            Command::RemoveTrack { room, track } => self.remove_track(room, track),
            Command::Mute { room, track, muted } => {
                if let Some(track) = self.track(room, track) {
                    track.muted = muted;
                }
            }
            Command::Subscribe {
                room,
                participant,
                track,
            } => {
                if let Some(p) = self.participant(room, participant) {
                    p.wanted.entry(track).or_default();
                }
                self.reconcile(room, participant);
            }
            Command::Unsubscribe {
                room,
                participant,
                track,
            } => {
                if let Some(p) = self.participant(room, participant) {
                    p.wanted.remove(&track);
                }
                self.reconcile(room, participant);
            }
            Command::TrackSettings {
                room,
                participant,
                track,
                max_layer,
                enabled,
            } => {
                if let Some(wish) = self
                    .participant(room, participant)
                    .and_then(|p| p.wanted.get_mut(&track))
                {
                    wish.max_layer = max_layer;
                    wish.enabled = enabled;
                }
                if let Some(t) = self.track(room, track) {
                    t.configure(participant, max_layer, enabled);
                }
                self.ask_keyframes(room, track);
            }
            Command::SetPermission {
                room,
                participant,
                permission,
            } => self.set_permission(room, participant, permission),
            Command::SendData {
                room,
                to,
                kind,
                payload,
            } => {
                for participant in to {
                    let peer = self
                        .rooms
                        .get(&room)
                        .and_then(|r| r.participants.get(&participant)?.receiving_peer());
                    if let Some(key) = peer {
                        let payload = payload.clone();
                        self.drive(key, |peer, now, sink| peer.send_data(kind, payload, now, sink));
                    }
                }
            }
            Command::CloseRoom { room } => self.close_room(room),
        }
        self.settle();
    }

    fn set_permission(&mut self, room: RoomId, participant: ParticipantId, permission: Permission) {
        let Some(r) = self.rooms.get_mut(&room) else { return };
        let Some(p) = r.participants.get_mut(&participant) else {
            return;
        };
        let before = std::mem::replace(&mut p.permission, permission);
        if before.can_publish != permission.can_publish {
            for track in r.tracks.values_mut().filter(|t| t.owner == participant) {
                track.set_open(permission.can_publish);
            }
            let everybody: Vec<ParticipantId> = r.participants.keys().copied().collect();
            for other in everybody {
                self.reconcile(room, other);
            }
        } else if before.can_subscribe != permission.can_subscribe {
            self.reconcile(room, participant);
        }
    }

    fn remove_track(&mut self, room: RoomId, id: TrackId) {
        let Some(r) = self.rooms.get_mut(&room) else { return };
        let Some(track) = r.tracks.get_mut(&id) else { return };
        track.set_open(false);
        if let Some((key, mid)) = track.source
            && let Some(entry) = self.peers.get_mut(&key)
        {
            entry.inbound.remove(&mid);
        }
        let owner = track.owner;
        if let Some(p) = r.participants.get_mut(&owner) {
            p.unbound.retain(|t| *t != id);
        }
        let everybody: Vec<ParticipantId> = r.participants.keys().copied().collect();
        for participant in everybody {
            if let Some(p) = self.participant(room, participant) {
                p.wanted.remove(&id);
            }
            self.reconcile(room, participant);
        }
        if let Some(r) = self.rooms.get_mut(&room) {
            r.tracks.remove(&id);
        }
    }

    fn leave(&mut self, room: RoomId, participant: ParticipantId) {
        let Some(r) = self.rooms.get_mut(&room) else { return };
        let tracks: Vec<TrackId> = r
            .tracks
            .values()
            .filter(|t| t.owner == participant)
            .map(Track::id)
            .collect();
        for track in r.tracks.values_mut() {
            track.detach(participant);
        }
        for track in tracks {
            self.remove_track(room, track);
        }
        let Some(r) = self.rooms.get_mut(&room) else { return };
        r.participants.remove(&participant);
        if r.participants.is_empty() {
            self.rooms.remove(&room);
        }
        let keys: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, e)| e.participant == participant)
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.drive(key, |peer, now, sink| {
                peer.close(now, sink);
                Ok(())
            });
            self.drop_peer(key, None);
        }
    }

    fn close_room(&mut self, room: RoomId) {
        let everybody: Vec<ParticipantId> = self
            .rooms
            .get(&room)
            .map(|r| r.participants.keys().copied().collect())
            .unwrap_or_default();
        for participant in everybody {
            self.leave(room, participant);
        }
        self.rooms.remove(&room);
    }
}
