//! All rooms of this process: who joins, who leaves, who may see and hear whom. Pure bookkeeping: what follows from it
//! is handed to connections, to the media engine and to the event stream without waiting for any of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use livekit_protocol as proto;
use medtech_media_sfu::{Command, DataKind, ParticipantId, RoomId, Sfu, TrackId};
use proto::signal_response::Message as Response;
use tokio::sync::{mpsc, oneshot};

use super::Clock;
use super::events::{LeaveReason, RoomEvent, RoomEventKind};
use super::grants::Permission;
use super::join::JoinParams;
use super::participant::{Connection, ConnectionId, Participant};
use super::room::{Room, RoomKey};

/// A lost signalling connection may be resumed for this long.
const RESUME_MS: i64 = 15_000;
/// A closed room refuses old tokens for this long, longer than any token lives.
const CLOSED_MS: i64 = 24 * 3600 * 1000;
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
    pub params: JoinParams,
    pub connection: Connection,
}

/// Why a join was refused; said to the client before the connection is closed.
pub(super) type Refusal = proto::LeaveRequest;

pub(super) struct State {
    pub(super) rooms: HashMap<RoomId, Room>,
    pub(super) by_key: HashMap<RoomKey, RoomId>,
    pub(super) connections: HashMap<ConnectionId, (RoomId, ParticipantId)>,
    pub(super) clock: Clock,
    engine: Arc<Sfu>,
    events: mpsc::Sender<RoomEvent>,
    /// Rights set by the server, which count more than what a token says, also for a participant who comes later.
    rights: HashMap<(RoomKey, String), Permission>,
    closed: HashMap<RoomKey, i64>,
    next: u64,
}

impl State {
    pub(super) fn new(engine: Arc<Sfu>, events: mpsc::Sender<RoomEvent>, clock: Clock) -> State {
        State {
            rooms: HashMap::new(),
            by_key: HashMap::new(),
            connections: HashMap::new(),
            clock,
            engine,
            events,
            rights: HashMap::new(),
            closed: HashMap::new(),
            next: 1,
        }
    }

    pub(super) fn join(&mut self, join: JoinRequest, reply: oneshot::Sender<Result<(), Box<Refusal>>>) {
        let now = self.clock.now_ms();
        if self.closed.get(&join.key).is_some_and(|until| *until > now) {
            // The client gave up if nobody receives.
            let _ = reply.send(Err(Box::new(leave(
                proto::DisconnectReason::RoomDeleted,
                Action::Disconnect,
            ))));
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

    /// The signalling connection ended. The session may be resumed for a while.
    pub(super) fn disconnected(&mut self, connection: ConnectionId) {
        let Some((room, id)) = self.connections.remove(&connection) else {
            return;
        };
        let now = self.clock.now_ms();
        let Some(participant) = self.participant(room, id) else {
            return;
        };
        if participant.connection.as_ref().is_none_or(|c| c.id == connection) {
            participant.connection = None;
            participant.lost_at = Some(now);
            self.emit(room, id, RoomEventKind::Interrupted);
        }
    }

    /// Give up those who did not come back.
    pub(super) fn tick(&mut self) {
        let now = self.clock.now_ms();
        self.closed.retain(|_, until| *until > now);
        let mut gone = Vec::new();
        for (room, r) in &mut self.rooms {
            for participant in r.participants.values_mut() {
                if participant.connection.is_none() && participant.lost_at.is_none() {
                    participant.lost_at = Some(now);
                }
                if participant.lost_at.is_some_and(|at| now - at > RESUME_MS) {
                    gone.push((*room, participant.id));
                }
            }
        }
        for (room, id) in gone {
            self.leave(room, id, LeaveReason::ConnectionLost);
        }
    }

    pub(super) fn leave(&mut self, room_id: RoomId, id: ParticipantId, reason: LeaveReason) {
        let Some(room) = self.rooms.get_mut(&room_id) else {
            return;
        };
        let Some(mut gone) = room.participants.remove(&id) else {
            return;
        };
        if reason != LeaveReason::ClientInitiated {
            gone.send(Response::Leave(leave(reason.to_proto(), Action::Disconnect)));
        }
        if let Some(connection) = gone.connection.take() {
            // Dropping the sender closes the socket after what is queued.
            self.connections.remove(&connection.id);
        }
        let info = gone.gone_info(reason.to_proto());
        let Some(room) = self.rooms.get_mut(&room_id) else {
            return;
        };
        for other in room.participants.values_mut() {
            if other.sees.remove(&id) {
                other.send(Response::Update(proto::ParticipantUpdate {
                    participants: vec![info.clone()],
                }));
            }
        }
        room.speaking.retain(|s| s.participant != id);
        let event = RoomEvent {
            tenant: room.key.tenant,
            room: room.key.name.clone(),
            identity: gone.identity,
            sid: gone.sid,
            at: self.clock.now_ms(),
            kind: RoomEventKind::Left { reason },
        };
        let empty = room.participants.is_empty();
        self.engine(Command::Leave {
            room: room_id,
            participant: id,
        });
        self.publish(event);
        if empty && let Some(room) = self.rooms.remove(&room_id) {
            self.by_key.remove(&room.key);
        }
    }

    /// Set what a participant may do, now and whenever it comes back.
    pub(super) fn set_permission(&mut self, key: &RoomKey, identity: &str, permission: Permission) -> bool {
        self.rights
            .insert((key.clone(), identity.to_owned()), permission.clone());
        let Some(room_id) = self.by_key.get(key).copied() else {
            return false;
        };
        let Some(id) = self
            .rooms
            .get(&room_id)
            .and_then(|r| r.by_identity(identity))
            .map(|p| p.id)
        else {
            return false;
        };
        let Some(participant) = self.participant(room_id, id) else {
            return false;
        };
        if participant.permission == permission {
            return true;
        }
        participant.permission = permission.clone();
        let refused: Vec<(TrackId, String)> = participant
            .tracks
            .iter()
            .filter(|(_, t)| permission.can_publish && !permission.may_publish(t.info.source))
            .map(|(id, t)| (*id, t.info.sid.clone()))
            .collect();
        // First stop what must stop, then tell.
        self.engine(Command::SetPermission {
            room: room_id,
            participant: id,
            permission: permission.to_engine(),
        });
        for (track, track_sid) in refused {
            self.remove_track(room_id, id, track);
            if let Some(participant) = self.participant(room_id, id) {
                participant.send(Response::TrackUnpublished(proto::TrackUnpublishedResponse {
                    track_sid,
                }));
            }
        }
        self.changed(room_id, id);
        true
    }

    /// A participant changed: tell its own client and everybody who sees it, or who begins or ceases to.
    pub(super) fn changed(&mut self, room_id: RoomId, id: ParticipantId) {
        let Some(participant) = self.participant(room_id, id) else {
            return;
        };
        participant.version += 1;
        let info = participant.info();
        participant.send(update(info.clone()));
        let Some(room) = self.rooms.get_mut(&room_id) else {
            return;
        };
        for other in room.participants.values_mut().filter(|p| p.sees.contains(&id)) {
            other.send(update(info.clone()));
        }
        self.refresh_sight(room_id);
    }

    /// Bring what everybody knows of everybody in line with what they may know. Rooms are small; sight changes are rare.
    pub(super) fn refresh_sight(&mut self, room_id: RoomId) {
        let mut commands = Vec::new();
        let Some(room) = self.rooms.get_mut(&room_id) else {
            return;
        };
        let ids: Vec<ParticipantId> = room.participants.keys().copied().collect();
        for viewer in &ids {
            for target in ids.iter().filter(|t| *t != viewer) {
                let (Some(v), Some(t)) = (room.participants.get(viewer), room.participants.get(target)) else {
                    continue;
                };
                let (may, does) = (v.may_see(t), v.sees.contains(target));
                if may == does {
                    continue;
                }
                let info = if may {
                    t.info()
                } else {
                    t.gone_info(proto::DisconnectReason::UnknownReason)
                };
                let tracks: Vec<TrackId> = t.tracks.iter().filter(|(_, t)| t.live).map(|(id, _)| *id).collect();
                let subscribe = may && v.auto_subscribe;
                for track in tracks {
                    let (room, participant) = (room_id, *viewer);
                    if subscribe {
                        commands.push(Command::Subscribe {
                            room,
                            participant,
                            track,
                        });
                    } else if !may {
                        commands.push(Command::Unsubscribe {
                            room,
                            participant,
                            track,
                        });
                    }
                }
                if let Some(v) = room.participants.get_mut(viewer) {
                    if may {
                        v.sees.insert(*target);
                    } else {
                        v.sees.remove(target);
                    }
                    v.send(update(info));
                }
            }
        }
        for command in commands {
            self.engine(command);
        }
    }

    pub(super) fn close_room(&mut self, key: &RoomKey) {
        let until = self.clock.now_ms() + CLOSED_MS;
        self.closed.insert(key.clone(), until);
        self.rights.retain(|(k, _), _| k != key);
        let Some(room_id) = self.by_key.get(key).copied() else {
            return;
        };
        let everybody: Vec<ParticipantId> = self
            .rooms
            .get(&room_id)
            .map(|r| r.participants.keys().copied().collect())
            .unwrap_or_default();
        for id in everybody {
            self.leave(room_id, id, LeaveReason::RoomClosed);
        }
    }

    /// Everybody is told that the server goes; sessions end.
    pub(super) fn shut_down(&mut self) {
        let everybody: Vec<(RoomId, ParticipantId)> = self
            .rooms
            .iter()
            .flat_map(|(room, r)| r.participants.keys().map(|id| (*room, *id)))
            .collect();
        for (room, id) in everybody {
            self.leave(room, id, LeaveReason::ServerShutdown);
        }
    }

    /// A data message of the server itself.
    pub(super) fn send_data(
        &mut self,
        room_id: RoomId,
        to: Vec<ParticipantId>,
        kind: DataKind,
        packet: &proto::DataPacket,
    ) {
        use prost::Message;
        if !to.is_empty() {
            self.engine(Command::SendData {
                room: room_id,
                to,
                kind,
                payload: packet.encode_to_vec().into(),
            });
        }
    }

    fn open_room(&mut self, key: &RoomKey) -> RoomId {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        let id = RoomId(self.number());
        let room = Room {
            key: key.clone(),
            sid: sid("RM_"),
            created_at: self.clock.now_ms(),
            participants: Default::default(),
            speaking: Vec::new(),
        };
        self.rooms.insert(id, room);
        self.by_key.insert(key.clone(), id);
        id
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn participant(&mut self, room: RoomId, id: ParticipantId) -> Option<&mut Participant> {
        self.rooms.get_mut(&room)?.participants.get_mut(&id)
    }

    /// Tell the engine. When it is overloaded the command is lost and said so: the clients concerned will notice by
    /// their own timeouts and reconnect.
    pub(super) fn engine(&self, command: Command) {
        if let Err(error) = self.engine.send(command) {
            tracing::error!(%error, "a command to the media engine was lost");
        }
    }

    pub(super) fn emit(&mut self, room: RoomId, id: ParticipantId, kind: RoomEventKind) {
        let at = self.clock.now_ms();
        let Some(r) = self.rooms.get(&room) else { return };
        let Some(p) = r.participants.get(&id) else { return };
        let event = RoomEvent {
            tenant: r.key.tenant,
            room: r.key.name.clone(),
            identity: p.identity.clone(),
            sid: p.sid.clone(),
            at,
            kind,
        };
        self.publish(event);
    }

    /// The stream of room events is bounded; when its reader is stuck, events are dropped and said so.
    fn publish(&self, event: RoomEvent) {
        if let Err(error) = self.events.try_send(event) {
            tracing::error!(%error, "a room event was lost");
        }
    }
}

use proto::leave_request::Action;

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

pub(super) fn leave(reason: proto::DisconnectReason, action: Action) -> proto::LeaveRequest {
    proto::LeaveRequest {
        can_reconnect: action != Action::Disconnect,
        reason: reason.into(),
        action: action.into(),
        regions: None,
    }
}

pub(super) fn update(info: proto::ParticipantInfo) -> Response {
    Response::Update(proto::ParticipantUpdate {
        participants: vec![info],
    })
}

/// A public id: a prefix and 72 random bits.
pub(super) fn sid(prefix: &str) -> String {
    use base64::Engine;
    let mut bytes = [0u8; 9];
    // The system's generator does not fail after start; if it did, ids would collide visibly, not silently leak.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    format!("{prefix}{}", text.replace(['-', '_'], "x"))
}
