//! Messaging: conversations with a gapless sequence, receipts as cursors, and files by tus.
//!
//! [`service`] has the acts, [`model`] their values and limits, [`files`] the resumable uploads.

mod erase;
pub mod files;
mod http;
pub mod model;
mod reseal;
pub mod rpc;
pub mod service;
mod store;
mod whole;

pub use store::SHEETS;
pub use whole::{After, Rows};

use axum::Router;
use files::Files;
use medtech_kernel::{ChannelRule, Ctx, Migration, Module, Result, audit::Lists, db::Script, policy::Action};
use std::sync::Arc;

/// The module. Made once; shared.
pub struct Messaging {
    pub(crate) ctx: Ctx,
    pub files: Files,
    /// Files that sessions were shown parts of.
    pub(crate) shown: Lists,
}

impl Messaging {
    /// Opens the files below the data directory.
    pub fn new(ctx: Ctx) -> Result<Self> {
        let files = Files::open(&ctx)?;
        let shown = Lists::new(ctx.db.clone());
        Ok(Self { ctx, files, shown })
    }

    /// The tus server: `/files` and `/files/{id}`, to be merged at the root.
    pub fn file_routes(self: Arc<Self>) -> Router {
        files::routes(self)
    }
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        module: "messaging",
        number: 1,
        sql: Script::Both(include_str!("../migrations/0001_init.sql")),
    },
    Migration {
        module: "messaging",
        number: 2,
        sql: Script::Both(include_str!("../migrations/0002_sealed.sql")),
    },
    Migration {
        module: "messaging",
        number: 4,
        sql: Script::Both(include_str!("../migrations/0004_verdicts.sql")),
    },
];

const CHANNELS: &[ChannelRule] = &[ChannelRule {
    kind: "conversation",
    subscribe: Action::Subscribe,
    history: 200,
    ttl_ms: 10 * 60 * 1000,
    presence: true,
}];

impl Module for Messaging {
    const NAME: &'static str = "messaging";

    fn migrations() -> &'static [Migration] {
        MIGRATIONS
    }

    fn routes(self: Arc<Self>) -> Router {
        http::routes(self)
    }

    fn channels() -> &'static [ChannelRule] {
        CHANNELS
    }
}
