//! What a log holds that counts, found as SQLite's recovery does, before SQLite reads it.

use crate::{
    codec::{FRAME, LOG_HEADER, open_frame, tag_of},
    disk::{Disk, Fault},
    freshness::Point,
    keys::Ring,
    log::{chain, is_commit, named, number_at, offset_of, sum_of},
    seal::Salts,
};
use std::collections::HashSet;

/// What a recovery will find in a log.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) log: Salts,
    /// The last frame that counts; none when nothing does.
    pub(crate) end: Option<Point>,
    /// Pages of the database after that frame.
    pub(crate) pages: u32,
    /// The frames that count, and what each holds.
    pub(crate) frames: Vec<([u8; 16], u32)>,
}

impl Survey {
    /// Reads a log as SQLite's recovery does. Nothing for one that is absent, empty, or whose header does not check (which
    /// is refused when SQLite reads it).
    pub(crate) fn of(ring: &Ring, disk: &mut impl Disk) -> Result<Option<Self>, Fault> {
        let mut header = [0; LOG_HEADER];
        match disk.read(&mut header, 0) {
            Err(Fault::Short) => return Ok(None),
            other => other?,
        }
        let Some(log) = named(disk)? else { return Ok(None) };
        let mut found = Self { log, ..Self::default() };
        let mut before = Some((number_at(&header, 24), number_at(&header, 28)));
        let mut frame = Box::new([0; FRAME]);
        let mut count = 0;
        for number in 1.. {
            match disk.read(&mut *frame, offset_of(number)) {
                Err(Fault::Short) => break,
                other => other?,
            }
            let tag = tag_of(&*frame);
            let opened = open_frame(ring, number, &header, &mut frame).is_ok();
            if !opened || chain(&header, before, &frame) != sum_of(&frame) {
                break;
            }
            before = Some(sum_of(&frame));
            found.frames.push((tag, number_at(&*frame, 0)));
            if is_commit(&frame) {
                count = found.frames.len();
                found.pages = number_at(&*frame, 4);
                found.end = Some(Point {
                    log: found.log,
                    frame: number,
                    tag,
                });
            }
        }
        found.frames.truncate(count);
        Ok(Some(found))
    }

    /// Whether the log still holds a commit that was seen in it.
    pub(crate) fn holds(&self, point: &Point) -> bool {
        let at = usize::try_from(point.frame).ok().and_then(|n| n.checked_sub(1));
        self.log == point.log
            && at
                .and_then(|i| self.frames.get(i))
                .is_some_and(|(tag, _)| *tag == point.tag)
    }

    /// The pages it holds.
    pub(crate) fn covered(&self) -> HashSet<u32> {
        self.frames.iter().map(|(_, page)| *page).collect()
    }
}
