//! LiveKit signalling on top of the media engine, for clients that we did not write.
//!
//! One task owns all rooms ([`hub`]); WebSockets ([`ws`]), the room service ([`twirp`]), the engine's events and the
//! server's own calls ([`LiveKit`]) reach it through bounded channels. It never waits for any of them.
//!
//! A room belongs to a tenant: the API key of a token names the tenant, so equal room names of two tenants never meet.

mod entry;
mod events;
mod exit;
mod grants;
mod hub;
mod join;
mod media;
mod overdue;
mod participant;
mod room;
mod service;
mod sight;
mod signal;
mod state;
mod token;
mod twirp;
mod ws;

pub use events::{LeaveReason, RoomEvent, RoomEventKind};
pub use grants::Permission;
pub use medtech_kernel::{Clock, TenantId};
pub use service::{LiveKit, LiveKitConfig, LiveKitError, TokenRequest, mint};
pub use token::{ApiKey, ApiKeys, Claims, TokenError, VideoGrant, install_crypto};
