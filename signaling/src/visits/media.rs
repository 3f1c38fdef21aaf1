//! What visits ask of the media part, and what they are told by it. The media part implements [`Media`].

use medtech_kernel::{BoxFuture, Result, TenantId, clock::Millis};
use uuid::Uuid;

/// What a participant may do in a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    pub publish: bool,
    pub subscribe: bool,
    pub publish_data: bool,
}

impl Rights {
    /// Connected, and nothing more: the lobby.
    pub const NONE: Self = Self {
        publish: false,
        subscribe: false,
        publish_data: false,
    };
    pub const FULL: Self = Self {
        publish: true,
        subscribe: true,
        publish_data: true,
    };
}

/// Rooms, as visits see them. The room's name is the visit's id, the identity is the subject.
pub trait Media: Send + Sync + 'static {
    /// A token with which `identity` connects to `room` under `rights`.
    fn token(&self, tenant: TenantId, room: &str, identity: &str, name: &str, rights: Rights) -> Result<String>;

    /// Changes the rights of someone connected, at once and without a re-join. Nothing happens when nobody is there.
    fn set_rights<'a>(
        &'a self,
        tenant: TenantId,
        room: &'a str,
        identity: &'a str,
        rights: Rights,
    ) -> BoxFuture<'a, Result<()>>;

    /// Disconnects someone.
    fn remove<'a>(&'a self, tenant: TenantId, room: &'a str, identity: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Who is in which room of a tenant.
    fn present(&self, tenant: TenantId) -> BoxFuture<'_, Result<Vec<Present>>>;

    /// Disconnects everyone and forgets the room.
    fn close<'a>(&'a self, tenant: TenantId, room: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// Somebody in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    pub room: String,
    pub identity: String,
    /// The connection, as [`MediaEvent::connection`] names it, when it is active.
    pub connection: Option<String>,
}

/// A participant's connection to a room became active, or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaEvent {
    pub tenant: TenantId,
    pub room: String,
    pub identity: String,
    /// Tells one connection of the identity from the next (LiveKit's participant sid).
    pub connection: String,
    pub active: bool,
    pub at: Millis,
}

impl MediaEvent {
    /// The visit, if the room is one's.
    #[must_use]
    pub fn visit(&self) -> Option<Uuid> {
        self.room.parse().ok()
    }
}
