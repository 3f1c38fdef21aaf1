//! All rooms of this process. Pure bookkeeping: what follows from it is handed to connections, to the media engine and
//! to the event stream without waiting for any of them. How it changes: [`super::entry`], [`super::exit`],
//! [`super::sight`], [`super::signal`] (requests of clients), [`super::media`] (events of the engine).

use std::collections::HashMap;
use std::sync::Arc;

use livekit_protocol as proto;
use medtech_media_sfu::{Command, DataKind, ParticipantId, RoomId, Sfu, SfuError};
use proto::leave_request::Action;
use proto::signal_response::Message as Response;
use tokio::sync::mpsc;

use super::events::{RoomEvent, RoomEventKind};
use super::grants::Permission;
use super::overdue::{Order, Overdue};
use super::participant::{ConnectionId, Participant};
use super::room::{Room, RoomKey};
use super::{Clock, TenantId};

/// The media engine as rooms see it: takes a command, or is too busy for it.
pub(super) trait Engine: Send + Sync {
    fn send(&self, command: Command) -> Result<(), SfuError>;
}

impl Engine for Sfu {
    fn send(&self, command: Command) -> Result<(), SfuError> {
        Sfu::send(self, command)
    }
}

pub(super) struct State {
    pub(super) rooms: HashMap<RoomId, Room>,
    pub(super) by_key: HashMap<RoomKey, RoomId>,
    pub(super) connections: HashMap<ConnectionId, (RoomId, ParticipantId)>,
    pub(super) clock: Clock,
    pub(super) engine: Arc<dyn Engine>,
    overdue: Overdue,
    pub(super) events: mpsc::Sender<RoomEvent>,
    /// Rights set by the server, which count more than what a token says, also for a participant who comes later.
    pub(super) rights: HashMap<(RoomKey, String), Permission>,
    /// Rooms that nobody enters again, and until when that is remembered.
    pub(super) closed: HashMap<RoomKey, i64>,
    /// When a subject's sessions were ended, unix milliseconds: tokens from before open nothing.
    pub(super) revoked: HashMap<(TenantId, String), i64>,
    pub(super) next: u64,
}

impl State {
    pub(super) fn new(engine: Arc<dyn Engine>, events: mpsc::Sender<RoomEvent>, clock: Clock) -> State {
        State {
            rooms: HashMap::new(),
            by_key: HashMap::new(),
            connections: HashMap::new(),
            clock,
            engine,
            overdue: Overdue::default(),
            events,
            rights: HashMap::new(),
            closed: HashMap::new(),
            revoked: HashMap::new(),
            next: 1,
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

    pub(super) fn open_room(&mut self, key: &RoomKey) -> RoomId {
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

    /// Tell the engine. When it is overloaded, rights and departures wait for the next [`State::settle`]; any other command is
    /// lost and said so: the clients concerned will notice by their own timeouts and reconnect.
    pub(super) fn engine(&mut self, command: Command) {
        let order = Order::of(&command);
        let error = match order {
            Some((who, _)) if self.overdue.waits(who) => SfuError::Busy,
            _ => match self.engine.send(command) {
                Ok(()) => return,
                Err(error) => error,
            },
        };
        if !order.is_some_and(|(who, order)| self.overdue.keep(who, order)) {
            tracing::error!(%error, "a command to the media engine was lost");
        }
    }

    /// Tries again what the engine must hear.
    pub(super) fn settle(&mut self) {
        let engine = self.engine.clone();
        self.overdue.settle(|command| engine.send(command).is_ok());
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
    pub(super) fn publish(&self, event: RoomEvent) {
        if let Err(error) = self.events.try_send(event) {
            tracing::error!(%error, "a room event was lost");
        }
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
