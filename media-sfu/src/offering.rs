//! A client with two connections is offered what it shall receive, on the second.

use std::collections::HashMap;

use crate::engine::{Engine, PeerKey};
use crate::forwarder::Forwarder;
use crate::ids::{MediaKind, ParticipantId, RoomId, TrackId, Transport};
use crate::messages::{Event, Offer};
use crate::packet::Mid;
use crate::participant::{Receiving, Slot, SlotState};
use crate::sdp::{self, Label};
use crate::track::Subscription;

impl Engine {
    /// Begin to offer: the client receives on a second connection.
    pub(crate) fn open_subscriber(&mut self, room: RoomId, participant: ParticipantId) {
        let Some(peer) = self.create_peer(room, participant, Transport::Subscriber) else {
            return;
        };
        let Some(p) = self.participant(room, participant) else {
            return;
        };
        p.subscriber = Receiving::Dual {
            peer,
            offer_id: 0,
            in_flight: false,
            again: false,
        };
        self.offer_subscriber(room, participant, false);
    }

    /// Offer all that is missing and withdraw all that was released. One offer is under way at a time.
    pub(crate) fn offer_subscriber(&mut self, room: RoomId, participant: ParticipantId, restart: bool) {
        if restart {
            self.forget_unanswered(room, participant);
        }
        let Some(r) = self.rooms.get(&room) else { return };
        let Some(p) = r.participants.get(&participant) else {
            return;
        };
        let Receiving::Dual {
            peer: key,
            offer_id,
            in_flight,
            ..
        } = p.subscriber
        else {
            return;
        };
        // A restart replaces whatever is under way: its answer may have been lost with the path.
        if in_flight && !restart {
            if let Some(Receiving::Dual { again, .. }) = self.participant(room, participant).map(|p| &mut p.subscriber)
            {
                *again = true;
            }
            return;
        }
        let missing: Vec<(TrackId, MediaKind, String, String)> = r
            .missing(p)
            .into_iter()
            .filter_map(|(id, kind)| {
                let spec = &r.tracks.get(&id)?.spec;
                Some((id, kind, spec.stream_label.clone(), spec.track_label.clone()))
            })
            .collect();
        let draining: Vec<Mid> = p
            .slots
            .iter()
            .filter(|s| s.state == SlotState::Draining)
            .map(|s| s.mid)
            .collect();
        let first = offer_id == 0;
        let made = self.drive(key, |peer, now, sink| {
            peer.offer(now, sink, |changes| {
                if first {
                    changes.add_data_channels();
                }
                if restart && !first {
                    changes.restart_ice();
                }
                draining.iter().for_each(|mid| changes.stop_sending(*mid));
                missing
                    .iter()
                    .map(|(id, kind, stream, track)| (*id, *kind, changes.add_sending(*kind, stream, track)))
                    .collect::<Vec<_>>()
            })
        });
        let Some((added, Some(offer))) = made else { return };
        if let Some(ufrag) = sdp::ice_ufrag(&offer) {
            self.register_ufrag(key, ufrag);
        }
        let Some(r) = self.rooms.get_mut(&room) else { return };
        let Some(p) = r.participants.get_mut(&participant) else {
            return;
        };
        p.slots.retain(|s| s.state != SlotState::Draining);
        p.slots.extend(added.into_iter().map(|(track, kind, mid)| Slot {
            mid,
            kind,
            state: SlotState::Carries(track),
        }));
        let offer_id = offer_id + 1;
        p.subscriber = Receiving::Dual {
            peer: key,
            offer_id,
            in_flight: true,
            again: false,
        };
        let labels: HashMap<String, Label> = p
            .slots
            .iter()
            .filter_map(|slot| match slot.state {
                SlotState::Carries(track) => Some((slot.mid.to_string(), r.tracks.get(&track)?.label())),
                _ => None,
            })
            .collect();
        let mid_to_track = labels
            .iter()
            .map(|(mid, label)| (mid.clone(), label.track.clone()))
            .collect();
        let offer = Offer {
            sdp: sdp::label_sections(&offer, &labels),
            mid_to_track,
        };
        self.events.push_back(Event::Offered {
            room,
            participant,
            offer_id,
            offer,
        });
    }

    /// An offer that replaces an unanswered one takes its sections back.
    fn forget_unanswered(&mut self, room: RoomId, participant: ParticipantId) {
        let Some(r) = self.rooms.get_mut(&room) else { return };
        let Some(p) = r.participants.get_mut(&participant) else {
            return;
        };
        p.slots.retain(|slot| match slot.state {
            SlotState::Carries(track) => r
                .tracks
                .get(&track)
                .is_some_and(|t| t.subscriptions.iter().any(|s| s.participant == participant)),
            _ => true,
        });
    }

    pub(crate) fn client_answer(&mut self, room: RoomId, participant: ParticipantId, answered: u32, sdp: &str) {
        let Some(p) = self.participant(room, participant) else {
            return;
        };
        let Receiving::Dual {
            peer: key,
            offer_id,
            in_flight,
            again,
        } = p.subscriber
        else {
            return;
        };
        // Old clients do not number their answers.
        if !in_flight || (answered != 0 && answered != offer_id) {
            return;
        }
        p.subscriber = Receiving::Dual {
            peer: key,
            offer_id,
            in_flight: false,
            again: false,
        };
        if self
            .drive(key, |peer, now, sink| peer.accept_answer(sdp, now, sink))
            .is_none()
        {
            return;
        }
        self.attach_offered(room, participant, key);
        self.ask_all_keyframes(room);
        if again {
            self.offer_subscriber(room, participant, false);
        }
        self.reconcile(room, participant);
    }

    /// Start sending on the sections that the client has accepted.
    fn attach_offered(&mut self, room: RoomId, participant: ParticipantId, key: PeerKey) {
        let Some(r) = self.rooms.get_mut(&room) else { return };
        let Some(p) = r.participants.get_mut(&participant) else {
            return;
        };
        for slot in &p.slots {
            let SlotState::Carries(track) = slot.state else {
                continue;
            };
            let Some(t) = r.tracks.get_mut(&track) else { continue };
            if t.subscriptions.iter().any(|s| s.participant == participant) {
                continue;
            }
            let wish = p.wanted.get(&track).copied().unwrap_or_default();
            t.attach(Subscription {
                participant,
                peer: key,
                mid: slot.mid,
                enabled: wish.enabled,
                forwarder: Forwarder::new(slot.kind, wish.max_layer),
            });
        }
    }
}
