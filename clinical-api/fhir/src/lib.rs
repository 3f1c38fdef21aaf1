//! The R4 engine: store, search, history, validation. It knows no module.
//!
//! Read in this order: `engine` (the face for modules), `definitions` (R4 as tables), `extract` (a resource's search
//! values), `index` (their rows), `store` (the write path, reads, history), `search`, `bundle`, `http`.
//!
//! What is not answered, and refused by name: composite parameters, `near`, `_text`, `_content`, `_query`, `:text`, `:in`
//! and the like, `ap`, chains of more than one step, `:iterate`, sorting by anything but the main date, `_lastUpdated`
//! and `_id`, patch, conditional delete, system-wide search and history, XML.

mod backfill;
mod bundle;
mod capability;
mod codec;
mod definitions;
mod devices;
mod engine;
mod erase;
mod extract;
mod held;
mod http;
mod ids;
mod index;
mod outcome;
mod reads;
mod records;
mod reseal;
mod search;
mod store;
mod ties;
mod validate;

pub use engine::{Fhir, Found, PATH, Resource, resource_types};
pub use erase::Elsewhere;
use medtech_kernel::{Migration, db::Script};
pub use outcome::{Failure, Issue};
pub use search::Access;

/// The tables of the engine.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        module: "fhir",
        number: 1,
        sql: Script::Each {
            sqlite: include_str!("../migrations/0001_sqlite.sql"),
            postgres: include_str!("../migrations/0001_postgres.sql"),
        },
    },
    Migration {
        module: "fhir",
        number: 2,
        sql: Script::Both(include_str!("../migrations/0002_owners.sql")),
    },
];
