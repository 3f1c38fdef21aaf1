//! Entering a room: joining, and coming back to a session whose connection was lost.

use std::collections::{BTreeSet, HashMap};

use livekit_protocol as proto;
use medtech_media_sfu::{Command, ParticipantId, RoomId, TrackId};
use proto::leave_request::Action;
use proto::signal_response::Message as Response;
use tokio::sync::oneshot;

use super::events::{LeaveReason, RoomEventKind};
use super::grants::Permission;
use super::join::JoinParams;
use super::participant::{Connection, Participant};
use super::room::RoomKey;
use super::state::{State, leave, sid};

pub(super) const PING_INTERVAL_S: i32 = 5;
pub(super) const PING_TIMEOUT_S: i32 = 15;

/// A checked wish to enter a room.
#[derive(Debug)]
pub(super) struct JoinRequest {
    pub key: RoomKey,
    pub identity: String,
    pub name: String,
    pub metadata: String,
    pub attributes: HashMap<String, String>,
    pub permission: Permission,
    /// When its token was made, unix seconds; 0 if the token does not say.
    pub issued_s: i64,
    pub params: JoinParams,
    pub connection: Connection,
}

/// Why a join was refused; said to the client before the connection is closed.
pub(super) type Refusal = proto::LeaveRequest;

impl State {
    pub(super) fn join(&mut self, join: JoinRequest, reply: oneshot::Sender<Result<(), Box<Refusal>>>) {
        if let Some(reason) = self.barred(&join) {
            // The client gave up if nobody receives.
            let _ = reply.send(Err(Box::new(leave(reason, Action::Disconnect))));
            return;
        }
        if let Some(sid) = join.params.resume.clone() {
            let resumed = self.resume(&join, &sid);
            let answer = if resumed {
                Ok(())
            } else {
                Err(Box::new(leave(
                    proto::DisconnectReason::StateMismatch,
                    Action::Reconnect,
                )))
            };
            let _ = reply.send(answer);
            return;
        }
        let _ = reply.send(Ok(()));
        self.enter(join);
    }

    /// Why a token that is good in itself opens nothing any more.
    fn barred(&self, join: &JoinRequest) -> Option<proto::DisconnectReason> {
        let now = self.clock.now_ms();
        if self.closed.get(&join.key).is_some_and(|until| *until > now) {
            return Some(proto::DisconnectReason::RoomDeleted);
        }
        let subject = (join.key.tenant, join.identity.clone());
        // Tokens count in seconds: one of the same second is taken for the older.
        let ended = self.revoked.get(&subject).is_some_and(|at| join.issued_s <= *at / 1000);
        ended.then_some(proto::DisconnectReason::ParticipantRemoved)
    }

    fn enter(&mut self, join: JoinRequest) {
        let now = self.clock.now_ms();
        let room_id = self.open_room(&join.key);
        let existing = self
            .rooms
            .get(&room_id)
            .and_then(|r| r.by_identity(&join.identity))
            .map(|p| p.id);
        if let Some(existing) = existing {
            self.leave(room_id, existing, LeaveReason::DuplicateIdentity);
        }
        // The room may have been emptied by that.
        let room_id = self.open_room(&join.key);
        let id = ParticipantId(self.number());
        let permission = self
            .rights
            .get(&(join.key.clone(), join.identity.clone()))
            .cloned()
            .unwrap_or(join.permission);
        let participant = Participant {
            id,
            sid: sid("PA_"),
            identity: join.identity,
            name: join.name,
            metadata: join.metadata,
            attributes: join.attributes,
            permission,
            joined_at: now,
            version: 1,
            active: false,
            auto_subscribe: join.params.auto_subscribe,
            single: join.params.single,
            client_protocol: join.params.client_protocol,
            capabilities: join.params.capabilities,
            connection: Some(join.connection.clone()),
            lost_at: None,
            tracks: Default::default(),
            sees: BTreeSet::new(),
        };
        self.connections.insert(join.connection.id, (room_id, id));
        self.engine(Command::Join {
            room: room_id,
            participant: id,
            permission: participant.permission.to_engine(),
        });
        let single = participant.single;
        let Some(room) = self.rooms.get_mut(&room_id) else {
            return;
        };
        room.participants.insert(id, participant);
        self.greet(room_id, id);
        self.emit(room_id, id, RoomEventKind::Joined);
        self.refresh_sight(room_id);
        for request in join.params.add_tracks {
            self.add_track(room_id, id, &request);
        }
        if let Some(offer) = join.params.publisher_offer {
            self.engine(Command::Offer {
                room: room_id,
                participant: id,
                offer_id: offer.id,
                sdp: offer.sdp,
            });
        }
        if !single {
            self.engine(Command::OpenSubscriber {
                room: room_id,
                participant: id,
            });
        }
    }

    /// The first message: everything the client has to know, and who is there already.
    fn greet(&mut self, room_id: RoomId, id: ParticipantId) {
        let Some(room) = self.rooms.get_mut(&room_id) else {
            return;
        };
        let Some(me) = room.participants.get(&id) else { return };
        let others: Vec<&Participant> = room.participants.values().filter(|p| me.may_see(p)).collect();
        let seen: Vec<ParticipantId> = others.iter().map(|p| p.id).collect();
        let response = proto::JoinResponse {
            room: Some(room.info()),
            participant: Some(me.info()),
            other_participants: others.iter().map(|p| p.info()).collect(),
            server_version: SERVER_VERSION.to_owned(),
            subscriber_primary: !me.single,
            ping_timeout: PING_TIMEOUT_S,
            ping_interval: PING_INTERVAL_S,
            server_info: Some(server_info()),
            enabled_publish_codecs: ["audio/opus", "video/VP8", "video/H264", "video/VP9", "video/AV1"]
                .map(|mime| proto::Codec {
                    mime: mime.to_owned(),
                    ..Default::default()
                })
                .to_vec(),
            ..proto::JoinResponse::default()
        };
        let wanted: Vec<TrackId> = if me.auto_subscribe {
            others
                .iter()
                .flat_map(|p| p.tracks.iter().filter(|(_, t)| t.live).map(|(id, _)| *id))
                .collect()
        } else {
            Vec::new()
        };
        if let Some(me) = room.participants.get_mut(&id) {
            me.sees.extend(seen);
            me.send(Response::Join(response));
        }
        for track in wanted {
            self.engine(Command::Subscribe {
                room: room_id,
                participant: id,
                track,
            });
        }
    }

    fn resume(&mut self, join: &JoinRequest, sid: &str) -> bool {
        let Some(room_id) = self.by_key.get(&join.key).copied() else {
            return false;
        };
        let Some(room) = self.rooms.get_mut(&room_id) else {
            return false;
        };
        let found = room
            .participants
            .values_mut()
            .find(|p| p.identity == join.identity && p.sid == sid);
        let Some(participant) = found else { return false };
        if let Some(old) = participant.connection.replace(join.connection.clone()) {
            self.connections.remove(&old.id);
        }
        participant.lost_at = None;
        let (id, single) = (participant.id, participant.single);
        self.connections.insert(join.connection.id, (room_id, id));
        participant.send(Response::Reconnect(proto::ReconnectResponse {
            server_info: Some(server_info()),
            ..proto::ReconnectResponse::default()
        }));
        // What it missed.
        let infos: Vec<proto::ParticipantInfo> = room.participants.get(&id).map_or_else(Vec::new, |me| {
            let seen = me.sees.iter().filter_map(|other| room.participants.get(other));
            std::iter::once(me).chain(seen).map(Participant::info).collect()
        });
        if let Some(me) = room.participants.get_mut(&id) {
            me.send(Response::Update(proto::ParticipantUpdate { participants: infos }));
        }
        if !single {
            self.engine(Command::RestartSubscriber {
                room: room_id,
                participant: id,
            });
        }
        self.emit(room_id, id, RoomEventKind::Resumed);
        true
    }
}

/// The feature level of the protocol that is spoken here, as clients compare it.
const SERVER_VERSION: &str = "1.9.0";

fn server_info() -> proto::ServerInfo {
    proto::ServerInfo {
        edition: proto::server_info::Edition::Standard.into(),
        version: SERVER_VERSION.to_owned(),
        protocol: 16,
        ..proto::ServerInfo::default()
    }
}
