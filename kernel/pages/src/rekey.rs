//! Rotation: new pages are sealed in the new epoch at once, the others are written anew a few at a time.

use crate::{
    Ring,
    codec::{PAGE, epoch_of},
    store::Result,
};
use rusqlite::Connection;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

/// Pages rewritten in one transaction.
pub const BATCH: u32 = 64;

/// The page where SQLite's locks lie; it has no content.
const LOCK_PAGE: u32 = (1 << 30) / PAGE as u32 + 1;

/// Writes `BATCH` pages from `from` on through the log, unchanged, so that they are sealed in the ring's epoch now. Answers
/// where to go on; nothing when all are done. The caller's transaction is around it; readers and other writers go on
/// between the batches.
pub fn rewrite(conn: &Connection, from: u32) -> Result<Option<u32>> {
    let pages: u32 = conn.query_row("PRAGMA page_count", [], |r| r.get(0))?;
    let next = from.saturating_add(BATCH);
    // One statement for each page: a range would make SQLite walk through all pages.
    let mut one = conn.prepare_cached("UPDATE sqlite_dbpage SET data = data WHERE pgno = ?1 AND schema = 'main'")?;
    for number in (from..next.min(pages.saturating_add(1))).filter(|n| *n != LOCK_PAGE) {
        one.execute([number])?;
    }
    Ok((next <= pages).then_some(next))
}

/// The epochs in which the pages of a file lie on the disk. Frames that still wait in the log are not among them.
pub fn epochs(path: &Path) -> Result<BTreeSet<u32>> {
    let mut file = std::io::BufReader::with_capacity(64 * PAGE, File::open(path)?);
    let mut page = [0; PAGE];
    let mut found = BTreeSet::new();
    loop {
        match file.read_exact(&mut page) {
            Ok(()) if page == [0; PAGE] => {}
            Ok(()) => drop(found.insert(epoch_of(&page))),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(found),
            Err(e) => return Err(e.into()),
        }
    }
}

/// The epoch after the one in use.
#[must_use]
pub fn next_epoch(ring: &Ring) -> u32 {
    ring.epoch().saturating_add(1)
}
