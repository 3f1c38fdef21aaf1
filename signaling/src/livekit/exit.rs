//! Leaving a room: by wish, by order, or by silence.

use livekit_protocol as proto;
use medtech_media_sfu::{Command, ParticipantId, RoomId};
use proto::leave_request::Action;
use proto::signal_response::Message as Response;

use super::TenantId;
use super::events::{LeaveReason, RoomEvent, RoomEventKind};
use super::participant::ConnectionId;
use super::room::RoomKey;
use super::state::{State, leave};

/// A lost signalling connection may be resumed for this long.
const RESUME_MS: i64 = 15_000;
/// Closed rooms and ended sessions are remembered for this long, longer than any token lives.
const REMEMBERED_MS: i64 = 24 * 3600 * 1000;

impl State {
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

    /// Tell the engine what it had no room for, and give up those who did not come back.
    pub(super) fn tick(&mut self) {
        self.settle();
        let now = self.clock.now_ms();
        self.closed.retain(|_, until| *until > now);
        self.revoked.retain(|_, at| now - *at < REMEMBERED_MS);
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

    pub(super) fn close_room(&mut self, key: &RoomKey) {
        let until = self.clock.now_ms() + REMEMBERED_MS;
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

    /// A subject's session ended: out of every room at once, and no token handed out until now lets it in again. How many
    /// connections ended.
    pub(super) fn remove_subject(&mut self, tenant: TenantId, identity: &str) -> usize {
        self.revoked.insert((tenant, identity.to_owned()), self.clock.now_ms());
        let connected: Vec<(RoomId, ParticipantId)> = self
            .rooms
            .iter()
            .filter(|(_, r)| r.key.tenant == tenant)
            .filter_map(|(room, r)| Some((*room, r.by_identity(identity)?.id)))
            .collect();
        for (room, id) in &connected {
            self.leave(*room, *id, LeaveReason::Removed);
        }
        connected.len()
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
}
