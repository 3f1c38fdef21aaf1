//! The R4 engine: store, search, history, validation. It knows no module.

mod bundle;
mod capability;
mod codec;
mod definitions;
mod engine;
mod extract;
mod http;
mod ids;
mod index;
mod outcome;
mod reads;
mod search;
mod store;
mod validate;

pub use engine::{Fhir, Found, PATH, Resource};
use medtech_kernel::{Migration, db::Script};
pub use outcome::{Failure, Issue};
pub use search::Access;

/// The tables of the engine.
pub const MIGRATIONS: &[Migration] = &[Migration {
    module: "fhir",
    number: 1,
    sql: Script::Each {
        sqlite: include_str!("../migrations/0001_sqlite.sql"),
        postgres: include_str!("../migrations/0001_postgres.sql"),
    },
}];
