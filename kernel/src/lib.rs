//! The shared kernel: what every other crate of the product stands on.
//!
//! Read in this order: [`tenant`] (whose data), [`db`] (the one door to storage), [`bus`] (the two kinds of event),
//! [`auth`] and [`policy`] (who asks, and may they), [`vault`] (keys, and what is sealed), [`audit`], [`error`], [`module`] (how a clinical module attaches).

pub mod audit;
pub mod auth;
pub mod bus;
pub mod clock;
pub mod config;
pub mod db;
pub mod error;
pub mod http;
pub mod id;
pub mod module;
pub mod policy;
pub mod scope;
pub mod secret;
pub mod tenant;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod upkeep;
pub mod vault;

use std::{future::Future, pin::Pin};

pub use clock::Clock;
pub use db::{Db, Migration, Row, Tx, Val};
pub use error::{Error, Result};
pub use module::{ChannelRule, Ctx, Module};
pub use tenant::{Tenant, TenantId};

/// The kernel's own columns that are sealed one by one.
pub const SHEETS: &[vault::Sheet] = &[auth::SHEET, policy::glass::SHEET];

/// A boxed future, for closures that cannot name their future's type.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The kernel's own tables.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        module: "kernel",
        number: 1,
        sql: db::Script::Both(include_str!("../migrations/0001_init.sql")),
    },
    Migration {
        module: "kernel",
        number: 2,
        sql: db::Script::Both(include_str!("../migrations/0002_audit.sql")),
    },
    Migration {
        module: "kernel",
        number: 3,
        sql: db::Script::Both(include_str!("../migrations/0003_sessions_and_settings.sql")),
    },
    Migration {
        module: "kernel",
        number: 4,
        sql: db::Script::Both(include_str!("../migrations/0004_policy.sql")),
    },
    Migration {
        module: "kernel",
        number: 5,
        sql: db::Script::Both(include_str!("../migrations/0005_vault.sql")),
    },
    Migration {
        module: "kernel",
        number: 6,
        sql: db::Script::Both(include_str!("../migrations/0006_tenants.sql")),
    },
    Migration {
        module: "kernel",
        number: 7,
        sql: db::Script::Both(include_str!("../migrations/0007_sealing.sql")),
    },
    Migration {
        module: "kernel",
        number: 8,
        sql: db::Script::Both(include_str!("../migrations/0008_policy.sql")),
    },
    Migration {
        module: "kernel",
        number: 9,
        sql: db::Script::Both(include_str!("../migrations/0009_ended_sessions.sql")),
    },
    Migration {
        module: "kernel",
        number: 10,
        sql: db::Script::Both(include_str!("../migrations/0010_trail.sql")),
    },
    Migration {
        module: "kernel",
        number: 11,
        sql: db::Script::Both(include_str!("../migrations/0011_own_roles.sql")),
    },
    Migration {
        module: "kernel",
        number: 12,
        sql: db::Script::Both(include_str!("../migrations/0012_acme.sql")),
    },
];
