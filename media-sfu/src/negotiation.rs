//! Offers and answers, and which section of a subscriber carries which track.
//!
//! A client with one connection makes all offers; it brings receiving sections along, and is asked for more when they
//! run out. For a client with two connections see [`crate::offering`].

use std::collections::HashMap;

use crate::engine::{Engine, PeerKey};
use crate::forwarder::Forwarder;
use crate::ids::{MediaKind, ParticipantId, RoomId, TrackId, Transport};
use crate::messages::{Answer, Event, TrackBinding};
use crate::packet::Mid;
use crate::participant::{Receiving, Slot, SlotState};
use crate::sdp::{self, Direction, Label, Section};
use crate::track::Subscription;

impl Engine {
    pub(crate) fn client_offer(&mut self, room: RoomId, participant: ParticipantId, offer_id: u32, sdp: &str) {
        let result = self.answer(room, participant, sdp);
        self.events.push_back(Event::Answered {
            room,
            participant,
            offer_id,
            result,
        });
        self.ask_all_keyframes(room);
        self.reconcile(room, participant);
    }

    fn answer(&mut self, room: RoomId, participant: ParticipantId, offer: &str) -> Result<Answer, String> {
        let existing = self
            .participant(room, participant)
            .ok_or("no such participant")?
            .publisher;
        let key = match existing {
            Some(key) => key,
            None => {
                let key = self
                    .create_peer(room, participant, Transport::Publisher)
                    .ok_or("no connection")?;
                if let Some(p) = self.participant(room, participant) {
                    p.publisher = Some(key);
                }
                key
            }
        };
        let mut refused = None;
        let answer = self
            .drive(key, |peer, now, sink| {
                // A description that we cannot read is the client's mistake, and no reason to end its connection.
                Ok(peer
                    .accept_offer(offer, now, sink)
                    .map_err(|error| refused = Some(error.to_string()))
                    .ok())
            })
            .ok_or("the connection failed")?
            .ok_or_else(|| refused.take().unwrap_or_default())?;
        if let Some(ufrag) = sdp::ice_ufrag(&answer) {
            self.register_ufrag(key, ufrag);
        }
        let sections = sdp::sections(offer);
        let unbound = self.unbind_ended(room, key, &sections);
        let bound = self.bind_published(room, participant, key, &sections);
        let labels = self.assign_slots(room, participant, key, &sections);
        let mid_to_track = labels
            .iter()
            .map(|(mid, label)| (mid.clone(), label.track.clone()))
            .collect();
        Ok(Answer {
            sdp: sdp::label_sections(&answer, &labels),
            mid_to_track,
            bound,
            unbound,
        })
    }

    /// Sections that carried a track and do not send any more.
    fn unbind_ended(&mut self, room: RoomId, key: PeerKey, sections: &[Section]) -> Vec<TrackId> {
        let Some(entry) = self.peers.get_mut(&key) else {
            return Vec::new();
        };
        let ended: Vec<TrackId> = sections
            .iter()
            .filter(|s| s.rejected || matches!(s.direction, Direction::Inactive | Direction::RecvOnly))
            .filter_map(|s| entry.inbound.remove(&Mid::from(s.mid.as_str())))
            .collect();
        for track in &ended {
            if let Some(t) = self.track(room, *track) {
                t.source = None;
            }
        }
        ended
    }

    /// Find the announced tracks in the sending sections of an offer: by the client's id, else in order of announcement
    /// (some browsers write other ids into the description than they give to the page).
    fn bind_published(
        &mut self,
        room: RoomId,
        participant: ParticipantId,
        key: PeerKey,
        sections: &[Section],
    ) -> Vec<TrackBinding> {
        let mut bound = Vec::new();
        let Some(r) = self.rooms.get_mut(&room) else {
            return bound;
        };
        let Some(owner) = r.participants.get_mut(&participant) else {
            return bound;
        };
        let Some(entry) = self.peers.get_mut(&key) else {
            return bound;
        };
        for section in sections.iter().filter(|s| !s.rejected) {
            let sends = matches!(section.direction, Direction::SendOnly | Direction::SendRecv);
            let mid = Mid::from(section.mid.as_str());
            if !sends || entry.inbound.contains_key(&mid) {
                continue;
            }
            let of_kind = |id: &TrackId| r.tracks.get(id).filter(|t| t.kind() == section.kind);
            let named = owner.unbound.iter().position(|id| {
                of_kind(id).is_some_and(|t| section.track.as_ref().is_some_and(|track| *track == t.spec.cid))
            });
            let at = named.or_else(|| owner.unbound.iter().position(|id| of_kind(id).is_some()));
            let Some(at) = at else { continue };
            let track = owner.unbound.remove(at);
            entry.inbound.insert(mid, track);
            if let Some(t) = r.tracks.get_mut(&track) {
                t.source = Some((key, mid));
                t.layered = section.layered;
            }
            bound.push(TrackBinding {
                track,
                mid: section.mid.clone(),
                mime: section.mime.clone(),
            });
        }
        bound
    }

    /// Use the receiving sections of an offer. Returns what each of them carries.
    fn assign_slots(
        &mut self,
        room: RoomId,
        participant: ParticipantId,
        key: PeerKey,
        sections: &[Section],
    ) -> HashMap<String, Label> {
        let mut labels = HashMap::new();
        let Some(r) = self.rooms.get_mut(&room) else {
            return labels;
        };
        let Some(p) = r.participants.get_mut(&participant) else {
            return labels;
        };
        if !matches!(p.subscriber, Receiving::Single) {
            return labels;
        }
        let receiving = |section: &&Section| section.direction == Direction::RecvOnly && !section.rejected;
        let offered = |mid: Mid| sections.iter().filter(receiving).any(|s| *s.mid == *mid);
        p.slots.retain(|s| s.state != SlotState::Free || offered(s.mid));
        for section in sections.iter().filter(receiving) {
            let mid = Mid::from(section.mid.as_str());
            if p.slots.iter().all(|s| s.mid != mid) {
                let asked = if section.kind == MediaKind::Audio {
                    &mut p.asked_audio
                } else {
                    &mut p.asked_video
                };
                *asked = asked.saturating_sub(1);
                p.slots.push(Slot {
                    mid,
                    kind: section.kind,
                    state: SlotState::Free,
                });
            }
        }
        let Some(p) = r.participants.get(&participant) else {
            return labels;
        };
        let mut missing = r.missing(p);
        let Some(p) = r.participants.get_mut(&participant) else {
            return labels;
        };
        for slot in &mut p.slots {
            match slot.state {
                SlotState::Carries(_) => {}
                // This answer announces it as inactive; the next one may use it.
                SlotState::Draining => {
                    slot.state = SlotState::Free;
                    continue;
                }
                SlotState::Free => {
                    let Some(at) = missing.iter().position(|(_, kind)| *kind == slot.kind) else {
                        continue;
                    };
                    let (track, _) = missing.remove(at);
                    let Some(t) = r.tracks.get_mut(&track) else { continue };
                    let wish = p.wanted.get(&track).copied().unwrap_or_default();
                    slot.state = SlotState::Carries(track);
                    t.attach(Subscription {
                        participant,
                        peer: key,
                        mid: slot.mid,
                        enabled: wish.enabled,
                        forwarder: Forwarder::new(slot.kind, wish.max_layer),
                    });
                }
            }
            if let SlotState::Carries(track) = slot.state
                && let Some(t) = r.tracks.get(&track)
            {
                labels.insert(slot.mid.to_string(), t.label());
            }
        }
        labels
    }

    /// Bring what a participant receives in line with what it wants and may have: release at once, then negotiate.
    pub(crate) fn reconcile(&mut self, room: RoomId, participant: ParticipantId) {
        let released = self.release_slots(room, participant);
        let Some(r) = self.rooms.get(&room) else { return };
        let Some(p) = r.participants.get(&participant) else {
            return;
        };
        let missing = r.missing(p);
        if !released && missing.is_empty() {
            return;
        }
        match p.subscriber {
            Receiving::Dual { .. } => self.offer_subscriber(room, participant, false),
            // Before its first offer a client needs no invitation.
            Receiving::Single if p.publisher.is_none() => {}
            Receiving::Single => {
                let need = |kind: MediaKind, asked: u32| {
                    let wanted = missing.iter().filter(|(_, k)| *k == kind).count();
                    let draining = p
                        .slots
                        .iter()
                        .filter(|s| s.kind == kind && s.state == SlotState::Draining)
                        .count();
                    let have = p.free_slots(kind) + draining + asked as usize;
                    wanted.saturating_sub(have) as u32
                };
                let (audio, video) = (
                    need(MediaKind::Audio, p.asked_audio),
                    need(MediaKind::Video, p.asked_video),
                );
                if let Some(p) = self.participant(room, participant) {
                    p.asked_audio += audio;
                    p.asked_video += video;
                }
                self.events.push_back(Event::NegotiationNeeded {
                    room,
                    participant,
                    audio,
                    video,
                });
            }
        }
    }

    /// Stop sending what is no longer wanted or allowed.
    fn release_slots(&mut self, room: RoomId, participant: ParticipantId) -> bool {
        let Some(r) = self.rooms.get(&room) else { return false };
        let Some(p) = r.participants.get(&participant) else {
            return false;
        };
        let peer = p.receiving_peer();
        let lost: Vec<(usize, TrackId)> = p
            .slots
            .iter()
            .enumerate()
            .filter_map(|(at, slot)| match slot.state {
                SlotState::Carries(track) if !p.wanted.contains_key(&track) || !r.allowed(p, track) => {
                    Some((at, track))
                }
                _ => None,
            })
            .collect();
        for (at, track) in &lost {
            if let Some(t) = self.track(room, *track) {
                t.detach(participant);
            }
            let Some(slot) = self.participant(room, participant).and_then(|p| p.slots.get_mut(*at)) else {
                continue;
            };
            slot.state = SlotState::Draining;
            let mid = slot.mid;
            if let Some(key) = peer {
                self.drive(key, |peer, now, sink| peer.end_stream(mid, now, sink));
            }
        }
        !lost.is_empty()
    }

    pub(crate) fn ask_all_keyframes(&mut self, room: RoomId) {
        let tracks: Vec<TrackId> = self
            .rooms
            .get(&room)
            .map(|r| r.tracks.keys().copied().collect())
            .unwrap_or_default();
        for track in tracks {
            self.ask_keyframes(room, track);
        }
    }
}
