//! Rotation: new pages are sealed in the new epoch at once, the others are written anew a few at a time.

use crate::{
    Ring,
    codec::{PAGE, epoch_of},
    disk::{Disk, Fault},
    file::raw_of,
    store::{Error, Result},
};
use rusqlite::Connection;
use std::collections::BTreeSet;

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

/// The epochs in which the pages of a connection's file lie on the disk. Frames that still wait in the log are not among
/// them. (Read through the connection: closing another handle of the file would drop SQLite's locks.)
pub fn epochs(conn: &Connection) -> Result<BTreeSet<u32>> {
    let mut file = raw_of(conn).ok_or(Error::Unusable("not a sealed database"))?;
    let mut page = [0; PAGE];
    let mut found = BTreeSet::new();
    for at in (0..).step_by(PAGE) {
        match file.read(&mut page, at) {
            Ok(()) if page == [0; PAGE] => {}
            Ok(()) => drop(found.insert(epoch_of(&page))),
            Err(Fault::Short) => break,
            Err(_) => return Err(Error::Io(std::io::Error::other("the database cannot be read"))),
        }
    }
    Ok(found)
}

/// The epoch after the one in use.
#[must_use]
pub fn next_epoch(ring: &Ring) -> u32 {
    ring.epoch().saturating_add(1)
}
