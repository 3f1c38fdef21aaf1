//! SQLite files sealed page by page, the write-ahead log included: AES-256-GCM under a key for each file and epoch.
//!
//! Read in this order: [`codec`] (what a sealed page and frame look like), [`keys`] and `nonce`, `database` and `log` (where
//! pages and frames lie, what recovery may believe; safe code over a `Disk`), `file` and `vfs` (the C interface, thin),
//! [`store`] (making, opening, converting files), [`rekey`] (rotation of keys).
//!
//! What holds: no plain byte of a table reaches the disk; a page or frame that was changed, moved, or sealed with
//! another key is refused with [`Refused`]; what was committed survives a crash as with plain SQLite.
//! What does not: an older version of the same page put back in its place is accepted, and so is a whole file put back, or a log
//! cut at the end of a transaction. The `-shm` file, which SQLite needs while it runs, holds page numbers and a checksum.

pub mod codec;
mod database;
mod disk;
mod file;
pub mod keys;
mod log;
mod nonce;
mod refusal;
pub mod rekey;
pub mod store;
mod vfs;

pub use keys::Ring;
pub use refusal::{Refusal, Refused, take_refused};
pub use store::{Error, Form, Result};
