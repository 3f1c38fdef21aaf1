//! Migrations: numbered scripts of each crate, one text for both engines where possible.

use crate::{Error, Result, id};
use std::collections::HashSet;

/// One step of one module's schema. Once released it is never edited: its SHA-256 is kept and compared.
#[derive(Debug)]
pub struct Migration {
    pub module: &'static str,
    pub number: i64,
    pub sql: Script,
}

/// The text of a migration.
#[derive(Debug)]
pub enum Script {
    Both(&'static str),
    /// Where the engines need another layout (clustered tables, for one).
    Each {
        sqlite: &'static str,
        postgres: &'static str,
    },
}

impl Migration {
    pub(crate) fn sqlite(&self) -> &'static str {
        match self.sql {
            Script::Both(text) | Script::Each { sqlite: text, .. } => text,
        }
    }

    pub(crate) fn postgres(&self) -> &'static str {
        match self.sql {
            Script::Both(text) | Script::Each { postgres: text, .. } => text,
        }
    }
}

/// Refuses two migrations of one name.
pub(crate) fn check(all: &[&'static Migration]) -> Result<()> {
    let mut seen = HashSet::new();
    for m in all {
        if !seen.insert((m.module, m.number)) {
            return Err(Error::internal(
                "db.migration_twice",
                format!("{} {}", m.module, m.number),
            ));
        }
    }
    Ok(())
}

/// Whether a recorded hash (if any) lets this migration run: `true` to run, `false` when already there.
pub(crate) fn wanted(m: &Migration, text: &str, recorded: Option<&[u8]>) -> Result<bool> {
    match recorded {
        None => Ok(true),
        Some(hash) if hash == id::sha256(text.as_bytes()) => Ok(false),
        Some(_) => Err(Error::internal(
            "db.migration_edited",
            format!(
                "migration {} {} differs from the one this database was made with",
                m.module, m.number
            ),
        )),
    }
}
