//! Events of the media engine.

use std::collections::HashMap;

use bytes::Bytes;
use livekit_protocol as proto;
use medtech_media_sfu::{Answer, ClosedReason, Command, DataKind, Event, ParticipantId, RoomId, SpeakerLevel};
use prost::Message;
use proto::leave_request::Action;
use proto::signal_response::Message as Response;

use super::events::{LeaveReason, RoomEventKind};
use super::state::{State, leave};

impl State {
    pub(super) fn media(&mut self, event: Event) {
        match event {
            Event::Answered {
                room,
                participant,
                offer_id,
                result,
            } => match result {
                Ok(answer) => self.answered(room, participant, offer_id, answer),
                Err(error) => {
                    tracing::info!(%participant, %error, "an offer was refused");
                    self.start_over(room, participant);
                }
            },
            Event::Offered {
                room,
                participant,
                offer_id,
                offer,
            } => {
                self.tell(
                    room,
                    participant,
                    Response::Offer(description("offer", offer.sdp, offer_id, offer.mid_to_track)),
                );
            }
            Event::Connected { room, participant, .. } => self.connected(room, participant),
            Event::Recovered { room, participant, .. } => {
                self.quality(room, participant, proto::ConnectionQuality::Excellent);
            }
            Event::Disconnected { room, participant, .. } => {
                self.quality(room, participant, proto::ConnectionQuality::Lost);
            }
            Event::Closed {
                room,
                participant,
                reason,
                ..
            } => self.closed(room, participant, reason),
            Event::NegotiationNeeded {
                room,
                participant,
                audio,
                video,
            } => {
                let need = proto::MediaSectionsRequirement {
                    num_audios: audio,
                    num_videos: video,
                };
                self.tell(room, participant, Response::MediaSectionsRequirement(need));
            }
            Event::StreamPaused {
                room,
                participant,
                track,
                paused,
            } => {
                let Some((owner, sid)) = self.rooms.get(&room).and_then(|r| {
                    r.participants
                        .values()
                        .find_map(|p| Some((p.sid.clone(), p.tracks.get(&track)?.info.sid.clone())))
                }) else {
                    return;
                };
                let state = if paused {
                    proto::StreamState::Paused
                } else {
                    proto::StreamState::Active
                };
                let info = proto::StreamStateInfo {
                    participant_sid: owner,
                    track_sid: sid,
                    state: state.into(),
                };
                let update = proto::StreamStateUpdate {
                    stream_states: vec![info],
                };
                self.tell(room, participant, Response::StreamStateUpdate(update));
            }
            Event::TrackStarted { .. } => {}
            Event::Data {
                room,
                participant,
                kind,
                payload,
            } => self.data(room, participant, kind, &payload),
            Event::Speakers { room, speakers } => self.speakers(room, speakers),
        }
    }

    fn tell(&mut self, room: RoomId, id: ParticipantId, message: Response) {
        if let Some(p) = self.participant(room, id) {
            p.send(message);
        }
    }

    fn start_over(&mut self, room: RoomId, id: ParticipantId) {
        self.tell(
            room,
            id,
            Response::Leave(leave(proto::DisconnectReason::MediaFailure, Action::Reconnect)),
        );
    }

    fn answered(&mut self, room: RoomId, id: ParticipantId, offer_id: u32, answer: Answer) {
        self.tell(
            room,
            id,
            Response::Answer(description("answer", answer.sdp, offer_id, answer.mid_to_track)),
        );
        for track in answer.unbound {
            self.remove_track(room, id, track);
        }
        let mut events = Vec::new();
        for bound in &answer.bound {
            let Some(published) = self.participant(room, id).and_then(|p| p.tracks.get_mut(&bound.track)) else {
                continue;
            };
            published.live = true;
            published.info.mid.clone_from(&bound.mid);
            if !bound.mime.is_empty() {
                published.info.mime_type.clone_from(&bound.mime);
            }
            events.push(RoomEventKind::TrackPublished {
                sid: published.info.sid.clone(),
                video: published.info.r#type() == proto::TrackType::Video,
                source: published.info.source().as_str_name(),
            });
        }
        if events.is_empty() {
            return;
        }
        events.into_iter().for_each(|event| self.emit(room, id, event));
        self.changed(room, id);
        let Some(r) = self.rooms.get(&room) else { return };
        let viewers = r
            .participants
            .values()
            .filter(|v| v.auto_subscribe && v.sees.contains(&id));
        let commands: Vec<Command> = viewers
            .flat_map(|v| {
                answer.bound.iter().map(|b| Command::Subscribe {
                    room,
                    participant: v.id,
                    track: b.track,
                })
            })
            .collect();
        commands.into_iter().for_each(|command| self.engine(command));
    }

    fn connected(&mut self, room: RoomId, id: ParticipantId) {
        let Some(p) = self.participant(room, id) else { return };
        if !std::mem::replace(&mut p.active, true) {
            self.emit(room, id, RoomEventKind::Active);
            self.changed(room, id);
        }
        self.quality(room, id, proto::ConnectionQuality::Excellent);
    }

    fn closed(&mut self, room: RoomId, id: ParticipantId, reason: ClosedReason) {
        let Some(p) = self.participant(room, id) else { return };
        match (&p.connection, reason) {
            // The page went away without a word.
            (None, _) => self.leave(room, id, LeaveReason::ConnectionLost),
            // A client that closes its own connection is about to leave or to start over; if not, it notices itself.
            (Some(_), ClosedReason::Remote) => {}
            (Some(_), ClosedReason::Failed | ClosedReason::DataOverflow) => self.start_over(room, id),
        }
    }

    fn quality(&mut self, room: RoomId, id: ParticipantId, quality: proto::ConnectionQuality) {
        let Some(r) = self.rooms.get_mut(&room) else { return };
        let Some(participant_sid) = r.participants.get(&id).map(|p| p.sid.clone()) else {
            return;
        };
        let score = if quality == proto::ConnectionQuality::Lost {
            0.0
        } else {
            5.0
        };
        let info = proto::ConnectionQualityInfo {
            participant_sid,
            quality: quality.into(),
            score,
        };
        let update = proto::ConnectionQualityUpdate { updates: vec![info] };
        for p in r
            .participants
            .values_mut()
            .filter(|p| p.id == id || p.sees.contains(&id))
        {
            p.send(Response::ConnectionQuality(update.clone()));
        }
    }

    /// Clients hear about changes only: who speaks now, how loud, and who stopped.
    fn speakers(&mut self, room: RoomId, speakers: Vec<SpeakerLevel>) {
        let Some(r) = self.rooms.get_mut(&room) else { return };
        let before = std::mem::replace(&mut r.speaking, speakers);
        let now: HashMap<ParticipantId, f32> = r.speaking.iter().map(|s| (s.participant, s.level)).collect();
        let stopped = before
            .iter()
            .filter(|s| !now.contains_key(&s.participant))
            .map(|s| (s.participant, 0.0));
        let changes: Vec<(ParticipantId, proto::SpeakerInfo)> = now
            .iter()
            .map(|(id, level)| (*id, *level))
            .chain(stopped)
            .filter_map(|(id, level)| {
                let sid = r.participants.get(&id)?.sid.clone();
                Some((
                    id,
                    proto::SpeakerInfo {
                        sid,
                        level,
                        active: level > 0.0,
                    },
                ))
            })
            .collect();
        for p in r.participants.values_mut() {
            let speakers: Vec<proto::SpeakerInfo> = changes
                .iter()
                .filter(|(id, _)| *id == p.id || p.sees.contains(id))
                .map(|(_, info)| info.clone())
                .collect();
            if !speakers.is_empty() {
                p.send(Response::SpeakersChanged(proto::SpeakersChanged { speakers }));
            }
        }
    }

    /// Pass a data message on, signed with who really sent it.
    fn data(&mut self, room: RoomId, from: ParticipantId, kind: DataKind, payload: &Bytes) {
        let Ok(mut packet) = proto::DataPacket::decode(&**payload) else {
            return;
        };
        let Some(r) = self.rooms.get(&room) else { return };
        let Some(sender) = r.participants.get(&from) else {
            return;
        };
        packet.participant_identity.clone_from(&sender.identity);
        packet.participant_sid.clone_from(&sender.sid);
        if let Some(proto::data_packet::Value::User(user)) = &mut packet.value {
            #[expect(deprecated, reason = "clients in use still read these fields")]
            {
                user.participant_identity.clone_from(&sender.identity);
                user.participant_sid.clone_from(&sender.sid);
                if packet.destination_identities.is_empty() {
                    packet.destination_identities = std::mem::take(&mut user.destination_identities);
                }
            }
        }
        let named = &packet.destination_identities;
        let to: Vec<ParticipantId> = r
            .participants
            .values()
            .filter(|p| p.sees.contains(&from) && (named.is_empty() || named.contains(&p.identity)))
            .map(|p| p.id)
            .collect();
        self.send_data(room, to, kind, &packet);
    }
}

fn description(
    kind: &str,
    sdp: String,
    id: u32,
    mid_to_track: std::collections::BTreeMap<String, String>,
) -> proto::SessionDescription {
    proto::SessionDescription {
        r#type: kind.to_owned(),
        sdp,
        id,
        mid_to_track_id: mid_to_track.into_iter().collect(),
    }
}
