//! The handle of the media service: what the rest of the server calls.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use livekit_protocol as proto;
use medtech_media_sfu::{Sfu, SfuConfig, SfuError, Stats};
use tokio::sync::{mpsc, oneshot};

use super::events::{LeaveReason, RoomEvent};
use super::grants::Permission;
use super::hub::{self, INPUTS, Input};
use super::participant::ConnectionId;
use super::room::RoomKey;
use super::state::State;
use super::token::{self, ApiKey, ApiKeys, Claims, TokenError};
use super::{Clock, TenantId, twirp, ws};

/// Room events waiting for their reader.
const EVENTS: usize = 4096;

pub struct LiveKitConfig {
    pub media: SfuConfig,
    pub keys: Arc<dyn ApiKeys>,
    pub clock: Clock,
}

#[derive(Debug, thiserror::Error)]
pub enum LiveKitError {
    #[error(transparent)]
    Media(#[from] SfuError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the tenant has no API key")]
    NoKey,
    #[error("no such room or participant")]
    NotFound,
    #[error("the media service has ended")]
    Stopped,
}

/// A token to be made.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    pub tenant: TenantId,
    pub room: String,
    pub identity: String,
    pub name: String,
    pub permission: Permission,
    /// How long a connection may be opened with it. A standing connection does not end with its token.
    pub ttl_ms: i64,
}

/// The media service. Clones are the same service.
#[derive(Clone)]
pub struct LiveKit(Arc<Inner>);

struct Inner {
    inputs: mpsc::Sender<Input>,
    keys: Arc<dyn ApiKeys>,
    clock: Clock,
    engine: Arc<Sfu>,
    connections: AtomicU64,
}

/// An access token signed with `key`. `now`: unix milliseconds.
pub fn mint(key: &ApiKey, request: &TokenRequest, now: i64) -> Result<String, TokenError> {
    let now = u64::try_from(now / 1000).unwrap_or_default();
    let claims = Claims {
        iss: key.key.to_string(),
        sub: request.identity.clone(),
        exp: now.saturating_add(u64::try_from(request.ttl_ms / 1000).unwrap_or_default()),
        nbf: Some(now),
        name: request.name.clone(),
        video: request.permission.to_grant(&request.room),
        metadata: String::new(),
        attributes: HashMap::new(),
    };
    token::sign(key, &claims)
}

impl LiveKit {
    /// Open the media ports and start. Must be called inside a Tokio runtime. The receiver gives room events; it is
    /// bounded, and what its reader is too slow for is lost and logged.
    pub fn start(config: LiveKitConfig) -> Result<(LiveKit, mpsc::Receiver<RoomEvent>), LiveKitError> {
        token::install_crypto();
        let (engine, media) = Sfu::start(&config.media)?;
        let engine = Arc::new(engine);
        let (inputs, receiver) = mpsc::channel(INPUTS);
        let (events, room_events) = mpsc::channel(EVENTS);
        tokio::spawn(hub::run(engine.clone(), media, receiver, events, config.clock.clone()));
        let inner = Inner {
            inputs,
            keys: config.keys,
            clock: config.clock,
            engine,
            connections: AtomicU64::new(0),
        };
        Ok((LiveKit(Arc::new(inner)), room_events))
    }

    /// `/rtc`, `/rtc/v1`, their `/validate`, and `/twirp/livekit.RoomService/*`.
    pub fn router(&self) -> Router {
        ws::router(self.clone()).merge(twirp::router(self.clone()))
    }

    /// A LiveKit access token for a room of the tenant.
    pub fn token(&self, request: &TokenRequest) -> Result<String, LiveKitError> {
        let key = self.0.keys.of_tenant(request.tenant).ok_or(LiveKitError::NoKey)?;
        Ok(mint(&key, request, self.0.clock.now_ms())?)
    }

    /// Set what a participant may do: at once for one who is connected, and for every later connection of that
    /// identity to this room, whatever its token says. True when the participant is connected.
    pub async fn set_permission(
        &self,
        tenant: TenantId,
        room: &str,
        identity: &str,
        permission: Permission,
    ) -> Result<bool, LiveKitError> {
        let (key, identity) = (room_key(tenant, room), identity.to_owned());
        self.call(move |state| state.set_permission(&key, &identity, permission))
            .await
    }

    /// End a participant's connection. It may come back with a valid token unless its rights or the room say otherwise.
    pub async fn remove(
        &self,
        tenant: TenantId,
        room: &str,
        identity: &str,
        reason: LeaveReason,
    ) -> Result<(), LiveKitError> {
        let (key, identity) = (room_key(tenant, room), identity.to_owned());
        self.call(move |state| {
            let room = state.by_key.get(&key).copied().ok_or(LiveKitError::NotFound)?;
            let found = state
                .rooms
                .get(&room)
                .and_then(|r| r.by_identity(&identity))
                .map(|p| p.id);
            state.leave(room, found.ok_or(LiveKitError::NotFound)?, reason);
            Ok(())
        })
        .await?
    }

    /// A session of this subject ended: end its connections in all rooms of the tenant at once. Tokens handed out until
    /// now open nothing any more; a new one does. How many connections ended.
    pub async fn remove_subject(&self, tenant: TenantId, identity: &str) -> Result<usize, LiveKitError> {
        let identity = identity.to_owned();
        self.call(move |state| state.remove_subject(tenant, &identity)).await
    }

    /// End the room for everybody. Nobody enters it again, whatever token they hold.
    pub async fn close_room(&self, tenant: TenantId, room: &str) -> Result<(), LiveKitError> {
        let key = room_key(tenant, room);
        self.call(move |state| state.close_room(&key)).await
    }

    /// Who is connected, hidden ones included.
    pub async fn participants(
        &self,
        tenant: TenantId,
        room: &str,
    ) -> Result<Vec<proto::ParticipantInfo>, LiveKitError> {
        let key = room_key(tenant, room);
        self.call(move |state| {
            let room = state.by_key.get(&key).and_then(|id| state.rooms.get(id));
            room.map(|r| r.participants.values().map(|p| p.info()).collect())
                .unwrap_or_default()
        })
        .await
    }

    /// Who is in which room of a tenant: room, identity, and the sid where the connection is active.
    pub async fn present(&self, tenant: TenantId) -> Result<Vec<(String, String, Option<String>)>, LiveKitError> {
        self.call(move |state| {
            let mut all = Vec::new();
            for room in state.rooms.values().filter(|r| r.key.tenant == tenant) {
                for p in room.participants.values() {
                    let active = p.active && p.connection.is_some();
                    let sid = active.then(|| p.sid.clone());
                    all.push((room.key.name.clone(), p.identity.clone(), sid));
                }
            }
            all
        })
        .await
    }

    /// Counters of the media engine.
    pub fn stats(&self) -> Stats {
        self.0.engine.stats()
    }

    /// Say goodbye to everybody.
    pub async fn shut_down(&self) -> Result<(), LiveKitError> {
        self.call(State::shut_down).await
    }

    pub(super) fn check_token(&self, token: &str) -> Result<(ApiKey, Claims), TokenError> {
        token::verify(&*self.0.keys, token, self.now_s())
    }

    pub(super) fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.0.connections.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) async fn input(&self, input: Input) -> Result<(), LiveKitError> {
        self.0.inputs.send(input).await.map_err(|_| LiveKitError::Stopped)
    }

    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, LiveKitError> {
        let (reply, answer) = oneshot::channel();
        let call: hub::Call = Box::new(move |state| {
            // Nobody waits any more: the answer is of no use.
            let _ = reply.send(work(state));
        });
        self.input(Input::Call(call)).await?;
        answer.await.map_err(|_| LiveKitError::Stopped)
    }

    fn now_s(&self) -> u64 {
        u64::try_from(self.0.clock.now_ms() / 1000).unwrap_or_default()
    }
}

pub(super) fn room_key(tenant: TenantId, room: &str) -> RoomKey {
    RoomKey {
        tenant,
        name: room.to_owned(),
    }
}
