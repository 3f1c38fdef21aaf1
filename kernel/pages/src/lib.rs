//! SQLite files sealed page by page, the write-ahead log included: AES-256-GCM under a key for each file and epoch.
//!
//! Read in this order: [`codec`] (what a sealed page and frame look like), [`keys`] and `nonce`, `database` and `log` (where
//! pages and frames lie, what recovery may believe; safe code over a `Disk`), [`freshness`] and `seal` (which version of a
//! page is the newest), `file` and `vfs` (the C interface, thin), [`store`] (making, opening, converting files), [`rekey`]
//! (rotation of keys), [`scrub`] (looking for damage before somebody needs the page).
//!
//! What holds: no plain byte of a table reaches the disk; a page or frame that was changed, moved, sealed with another key, or
//! is an older version of itself, is refused with [`Refused`]; what was committed survives a crash as with plain SQLite.
//! File, log and seal put back together need a witness outside to be noticed ([`Ring::expect`]).
//! The `-shm` file, which SQLite needs while it runs, holds page numbers and a checksum.

pub mod codec;
mod database;
mod disk;
mod file;
pub mod freshness;
pub mod keys;
mod log;
mod nonce;
mod opening;
mod refusal;
pub mod rekey;
pub mod scrub;
mod seal;
pub mod store;
mod survey;
mod vfs;

pub use freshness::Standing;
pub use keys::Ring;
pub use refusal::{Refusal, Refused, take_refused};
pub use store::{Error, Form, Result};
