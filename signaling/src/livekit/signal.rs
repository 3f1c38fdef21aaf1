//! Requests of a client.

use livekit_protocol as proto;
use medtech_media_sfu::{Command, MediaKind, ParticipantId, RoomId, TrackId, TrackSpec};
use proto::request_response::Reason;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;

use super::events::{LeaveReason, RoomEventKind};
use super::participant::{ConnectionId, Published, media_kind, stream_of, track_info, wanted_layer};
use super::state::{State, leave, sid};

/// Tracks that one participant may have announced at a time.
const MAX_TRACKS: usize = 32;

impl State {
    pub(super) fn request(&mut self, connection: ConnectionId, request: proto::SignalRequest) {
        let Some((room, id)) = self.connections.get(&connection).copied() else {
            return;
        };
        let Some(message) = request.message else { return };
        match message {
            Request::Offer(d) => {
                self.engine(Command::Offer {
                    room,
                    participant: id,
                    offer_id: d.id,
                    sdp: d.sdp,
                });
            }
            Request::Answer(d) => {
                self.engine(Command::Answer {
                    room,
                    participant: id,
                    offer_id: d.id,
                    sdp: d.sdp,
                });
            }
            Request::AddTrack(request) => self.add_track(room, id, &request),
            Request::Mute(mute) => self.mute(room, id, &mute),
            Request::Subscription(update) => self.update_subscription(room, id, &update),
            Request::TrackSetting(settings) => self.track_settings(room, id, &settings),
            Request::Leave(_) => self.leave(room, id, LeaveReason::ClientInitiated),
            Request::UpdateMetadata(update) => self.update_metadata(room, id, update),
            Request::UpdateAudioTrack(update) => {
                if let Some(p) = self.participant(room, id)
                    && let Some(track) = p.track_by_sid(&update.track_sid).and_then(|t| p.tracks.get_mut(&t))
                {
                    track.info.audio_features = update.features;
                    self.changed(room, id);
                }
            }
            Request::Ping(_) => {
                let now = self.clock.now_ms();
                self.reply(room, id, Response::Pong(now));
            }
            Request::PingReq(ping) => {
                let pong = proto::Pong {
                    last_ping_timestamp: ping.timestamp,
                    timestamp: self.clock.now_ms(),
                };
                self.reply(room, id, Response::PongResp(pong));
            }
            Request::Simulate(scenario) => self.simulate(room, id, scenario),
            // ICE-lite: the client's checks reach us and teach us its addresses. The state of a resumed session is
            // still here. Layers are seen on the wire.
            Request::Trickle(_) | Request::SyncState(_) => {}
            other => tracing::debug!(request = name(&other), "a signalling request is not supported"),
        }
    }

    fn reply(&mut self, room: RoomId, id: ParticipantId, message: Response) {
        if let Some(p) = self.participant(room, id) {
            p.send(message);
        }
    }

    pub(super) fn add_track(&mut self, room: RoomId, id: ParticipantId, request: &proto::AddTrackRequest) {
        let track = TrackId(self.number());
        let Some(p) = self.participant(room, id) else { return };
        let kind = media_kind(request.r#type());
        let refused = match kind {
            None => Some(Reason::UnsupportedType),
            Some(_) if !p.permission.may_publish(request.source) => Some(Reason::NotAllowed),
            Some(_) if p.tracks.len() >= MAX_TRACKS => Some(Reason::LimitExceeded),
            Some(_) => None,
        };
        let (Some(kind), None) = (kind, refused) else {
            let reason = refused.unwrap_or(Reason::UnsupportedType).into();
            let request = Some(proto::request_response::Request::AddTrack(request.clone()));
            p.send(Response::RequestResponse(proto::RequestResponse {
                reason,
                request,
                ..Default::default()
            }));
            return;
        };
        let track_sid = sid(if kind == MediaKind::Audio { "TR_A" } else { "TR_V" });
        let info = track_info(&track_sid, request);
        let spec = TrackSpec {
            track,
            kind,
            cid: request.cid.clone(),
            stream_label: format!("{}|{}", p.sid, stream_of(request)),
            track_label: track_sid,
        };
        p.tracks.insert(
            track,
            Published {
                info: info.clone(),
                live: false,
            },
        );
        let muted = request.muted;
        self.engine(Command::AddTrack {
            room,
            participant: id,
            spec,
        });
        if muted {
            self.engine(Command::Mute { room, track, muted });
        }
        let published = proto::TrackPublishedResponse {
            cid: request.cid.clone(),
            track: Some(info),
        };
        self.reply(room, id, Response::TrackPublished(published));
    }

    /// A track is over: its client stopped it, or lost it.
    pub(super) fn remove_track(&mut self, room: RoomId, id: ParticipantId, track: TrackId) {
        let Some(p) = self.participant(room, id) else { return };
        let Some(published) = p.tracks.remove(&track) else {
            return;
        };
        self.engine(Command::RemoveTrack { room, track });
        if published.live {
            self.emit(
                room,
                id,
                RoomEventKind::TrackUnpublished {
                    sid: published.info.sid,
                },
            );
            self.changed(room, id);
        }
    }

    fn mute(&mut self, room: RoomId, id: ParticipantId, mute: &proto::MuteTrackRequest) {
        let Some(p) = self.participant(room, id) else { return };
        let Some(track) = p.track_by_sid(&mute.sid) else { return };
        self.set_muted(room, id, track, mute.muted);
    }

    pub(super) fn set_muted(&mut self, room: RoomId, id: ParticipantId, track: TrackId, muted: bool) {
        let published = self.participant(room, id).and_then(|p| p.tracks.get_mut(&track));
        let Some(published) = published else { return };
        if std::mem::replace(&mut published.info.muted, muted) != muted {
            self.engine(Command::Mute { room, track, muted });
            self.changed(room, id);
        }
    }

    pub(super) fn update_subscription(&mut self, room: RoomId, id: ParticipantId, update: &proto::UpdateSubscription) {
        let sids = update
            .track_sids
            .iter()
            .chain(update.participant_tracks.iter().flat_map(|p| &p.track_sids));
        let Some(r) = self.rooms.get(&room) else { return };
        let Some(me) = r.participants.get(&id) else { return };
        let commands: Vec<Command> = sids
            .filter_map(|sid| r.track_by_sid(sid))
            .filter(|(owner, _)| me.sees.contains(owner))
            .map(|(_, track)| match update.subscribe {
                true => Command::Subscribe {
                    room,
                    participant: id,
                    track,
                },
                false => Command::Unsubscribe {
                    room,
                    participant: id,
                    track,
                },
            })
            .collect();
        commands.into_iter().for_each(|command| self.engine(command));
    }

    fn track_settings(&mut self, room: RoomId, id: ParticipantId, settings: &proto::UpdateTrackSettings) {
        let Some(r) = self.rooms.get(&room) else { return };
        let mut commands = Vec::new();
        for sid in &settings.track_sids {
            let Some((owner, track)) = r.track_by_sid(sid) else {
                continue;
            };
            let Some(published) = r.participants.get(&owner).and_then(|p| p.tracks.get(&track)) else {
                continue;
            };
            commands.push(Command::TrackSettings {
                room,
                participant: id,
                track,
                max_layer: wanted_layer(&published.info, settings),
                enabled: !settings.disabled,
            });
        }
        commands.into_iter().for_each(|command| self.engine(command));
    }

    fn update_metadata(&mut self, room: RoomId, id: ParticipantId, update: proto::UpdateParticipantMetadata) {
        /// Metadata is told to everybody in the room again and again.
        const MAX_METADATA: usize = 64 * 1024;
        let Some(p) = self.participant(room, id) else { return };
        let size = update.metadata.len() + update.attributes.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
        let reason = if !p.permission.can_update_metadata {
            Reason::NotAllowed
        } else if size + update.name.len() > MAX_METADATA {
            Reason::LimitExceeded
        } else {
            Reason::Ok
        };
        let response = proto::RequestResponse {
            request_id: update.request_id,
            reason: reason.into(),
            ..Default::default()
        };
        p.send(Response::RequestResponse(response));
        if reason != Reason::Ok {
            return;
        }
        if !update.metadata.is_empty() {
            p.metadata = update.metadata;
        }
        if !update.name.is_empty() {
            p.name = update.name;
        }
        for (key, value) in update.attributes {
            if value.is_empty() {
                p.attributes.remove(&key);
            } else {
                p.attributes.insert(key, value);
            }
        }
        self.changed(room, id);
    }

    /// What SDKs ask for in their own tests.
    fn simulate(&mut self, room: RoomId, id: ParticipantId, scenario: proto::SimulateScenario) {
        use proto::leave_request::Action;
        use proto::simulate_scenario::Scenario;
        let action = match scenario.scenario {
            Some(Scenario::ServerLeave(_)) => Action::Disconnect,
            Some(Scenario::LeaveRequestFullReconnect(_) | Scenario::NodeFailure(_)) => Action::Reconnect,
            Some(Scenario::Migration(_)) => Action::Resume,
            _ => return,
        };
        self.reply(
            room,
            id,
            Response::Leave(leave(proto::DisconnectReason::UnknownReason, action)),
        );
    }
}

fn name(request: &Request) -> &'static str {
    match request {
        Request::SubscriptionPermission(_) => "subscription_permission",
        Request::UpdateVideoTrack(_) => "update_video_track",
        Request::PublishDataTrackRequest(_) | Request::UnpublishDataTrackRequest(_) => "data_track",
        _ => "other",
    }
}
