//! Looking through a whole file for pages that are damaged, changed or put back, before somebody needs them.

use crate::{
    Refusal, Ring,
    codec::{PAGE, open_page, tag_of},
    database::LOCK_PAGE,
    disk::{Disk, Fault},
    file::raw_of,
    freshness::{Fresh, seal_of},
    store::{self, Error, Result},
};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// Places named at most; there may be more.
pub const MOST: usize = 20;

/// What a look at a file has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Pages read and opened.
    pub pages: u32,
    /// Pages whose newest version waits in the log, which was read when the file was opened.
    pub in_log: u32,
    /// Pages that were refused.
    pub bad: u32,
    /// The first of them, and what else is wrong: `page 7`, and why.
    pub places: Vec<(String, Refusal)>,
}

/// A look through a file that this process has open, a few pages at a time, beside everything that goes on.
pub struct Scrub {
    ring: Ring,
    fresh: std::sync::Arc<Fresh>,
    conn: Connection,
    next: u32,
    found: Found,
}

impl Scrub {
    pub fn begin(ring: &Ring, database: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = store::open(ring, database, flags)?;
        let fresh = Fresh::open(database).ok_or(Error::Unusable("the database is not open here"))?;
        let mut found = Found::default();
        if !fresh.seal_stands() {
            let name = seal_of(database);
            let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.places.push((name, Refusal::NotAuthentic));
        }
        Ok(Self {
            ring: ring.clone(),
            conn,
            fresh,
            next: 1,
            found,
        })
    }

    /// Pages looked at so far, and pages of the file.
    #[must_use]
    pub fn progress(&self) -> (u32, u32) {
        (self.next - 1, self.fresh.pages())
    }

    /// Looks at `count` pages more; answers what was found when all are done.
    pub fn step(&mut self, count: u32) -> Option<Found> {
        let end = self.next.saturating_add(count);
        while self.next < end {
            let number = self.next;
            if number > self.fresh.pages() {
                return Some(std::mem::take(&mut self.found));
            }
            self.next += 1;
            if u64::from(number) != LOCK_PAGE + 1 {
                self.look(number);
            }
        }
        None
    }

    fn look(&mut self, number: u32) {
        let mut page = Box::new([0; PAGE]);
        let read = self.fresh.still(number, |newest| {
            let at = u64::from(number - 1) * PAGE as u64;
            match raw_of(&self.conn).map(|mut main| main.read(&mut *page, at)) {
                Some(Ok(())) => Ok(newest == tag_of(&*page)),
                // The end of the file is not where it was.
                Some(Err(Fault::Short)) => Err(Refusal::Stale),
                _ => Err(Refusal::NotAuthentic),
            }
        });
        let outcome = match read {
            None => {
                self.found.in_log += 1;
                return;
            }
            Some(Err(why)) => Err(why),
            Some(Ok(newest)) => match open_page(&self.ring, number, &mut page) {
                Ok(()) if !newest => Err(Refusal::Stale),
                other => other,
            },
        };
        match outcome {
            Ok(()) => self.found.pages += 1,
            Err(why) => {
                self.found.bad += 1;
                if self.found.places.len() < MOST {
                    self.found.places.push((format!("page {number}"), why));
                }
            }
        }
    }
}
