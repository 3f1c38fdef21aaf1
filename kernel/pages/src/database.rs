//! The database file: pages in place, each sealed for its number.

use crate::{
    Refusal,
    codec::{CLEAR, PAGE, PageBytes, RESERVE, epoch_of, open_page, seal_page, tag_of},
    disk::{Disk, Fault},
    freshness::Fresh,
    keys::Ring,
};
use rusqlite::ffi::{SQLITE_IOERR_READ, SQLITE_IOERR_WRITE};
use std::sync::Arc;

const STEP: u64 = PAGE as u64;
/// The page that SQLite never uses, since its locks lie there.
pub(crate) const LOCK_PAGE: u64 = (1 << 30) / STEP;

pub(crate) struct Database {
    pub(crate) ring: Ring,
    /// SQLite's own buffer is its page cache and must never hold sealed bytes.
    scratch: Box<PageBytes>,
    /// Which version of each page is the newest. None where that is not kept: in a copy, or while a file is built.
    pub(crate) fresh: Option<Arc<Fresh>>,
}

/// Page number (from 1) and offset within the page.
fn place(offset: u64) -> Option<(u32, usize)> {
    let number = u32::try_from(offset / STEP).ok()?.checked_add(1)?;
    Some((number, usize::try_from(offset % STEP).ok()?))
}

/// `what` an offset means, for errors.
pub(crate) fn describe(offset: u64) -> String {
    format!("page {}", offset / STEP + 1)
}

impl Database {
    pub(crate) fn new(ring: Ring) -> Self {
        Self {
            ring,
            scratch: Box::new([0; PAGE]),
            fresh: None,
        }
    }

    pub(crate) fn read(&mut self, disk: &mut impl Disk, buf: &mut [u8], offset: u64) -> Result<(), Fault> {
        if offset == 0 && buf.len() == CLEAR {
            return read_beginning(disk, buf);
        }
        let (number, inner) = place(offset).ok_or(Fault::Io(SQLITE_IOERR_READ))?;
        if inner + buf.len() > PAGE {
            return Err(Fault::Io(SQLITE_IOERR_READ));
        }
        match disk.read(&mut *self.scratch, offset - inner as u64) {
            Err(Fault::Short) if disk.size()? <= offset - inner as u64 => {
                // SQLite takes what lies behind the end for empty.
                if self.fresh.as_ref().is_some_and(|f| f.knows(number)) {
                    return Err(Refusal::Stale.into());
                }
                buf.fill(0);
                return Err(Fault::Short);
            }
            Err(Fault::Short) => return Err(Refusal::NotAuthentic.into()),
            other => other?,
        }
        let tag = tag_of(&*self.scratch);
        self.open(number)?;
        if let Some(fresh) = &self.fresh {
            fresh.check(number, &tag)?;
        }
        let part = self.scratch.get(inner..inner + buf.len());
        buf.copy_from_slice(part.ok_or(Fault::Io(SQLITE_IOERR_READ))?);
        Ok(())
    }

    fn open(&mut self, number: u32) -> Result<(), Fault> {
        open_page(&self.ring, number, &mut self.scratch)?;
        if number == 1 {
            require_layout(&*self.scratch)?;
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, disk: &mut impl Disk, buf: &[u8], offset: u64) -> Result<(), Fault> {
        let (number, inner) = place(offset).ok_or(Fault::Io(SQLITE_IOERR_WRITE))?;
        let page = <&PageBytes>::try_from(buf).map_err(|_| Fault::Io(SQLITE_IOERR_WRITE))?;
        if inner != 0 {
            return Err(Fault::Io(SQLITE_IOERR_WRITE));
        }
        require_free(page)?;
        if number == 1 {
            require_layout(page)?;
        }
        self.fill_up(disk, offset)?;
        *self.scratch = *page;
        self.put(disk, number, offset)
    }

    /// Seals and writes the page in `scratch`.
    fn put(&mut self, disk: &mut impl Disk, number: u32, offset: u64) -> Result<(), Fault> {
        seal_page(&self.ring, number, &mut self.scratch)?;
        match &self.fresh {
            None => disk.write(&*self.scratch, offset),
            Some(fresh) => fresh.write(number, tag_of(&*self.scratch), || disk.write(&*self.scratch, offset)),
        }
    }

    pub(crate) fn truncate(&mut self, disk: &mut impl Disk, size: u64) -> Result<(), Fault> {
        if size > disk.size()? {
            return self.fill_up(disk, size);
        }
        disk.truncate(size)?;
        if let Some(fresh) = &self.fresh {
            fresh.cut(u32::try_from(size.div_ceil(STEP)).unwrap_or(u32::MAX))?;
        }
        Ok(())
    }

    /// SQLite leaves holes where free pages lie. A hole reads as zeros, which no key has sealed: they are filled with
    /// sealed empty pages.
    fn fill_up(&mut self, disk: &mut impl Disk, to: u64) -> Result<(), Fault> {
        let mut at = disk.size()?.next_multiple_of(STEP);
        while at < to {
            if at / STEP != LOCK_PAGE {
                let (number, _) = place(at).ok_or(Fault::Io(SQLITE_IOERR_WRITE))?;
                self.scratch.fill(0);
                self.put(disk, number, at)?;
            }
            at += STEP;
        }
        Ok(())
    }

    /// Whether page 1 opens: proof that the keys are this file's.
    pub(crate) fn proves_key(&mut self, disk: &mut impl Disk) -> bool {
        disk.read(&mut *self.scratch, 0).is_ok() && self.open(1).is_ok()
    }

    /// The epoch page 1 was last sealed in, if it opens. New writes go on in it.
    pub(crate) fn epoch(&mut self, disk: &mut impl Disk) -> Option<u32> {
        disk.read(&mut *self.scratch, 0).ok()?;
        let epoch = epoch_of(&*self.scratch);
        self.open(1).is_ok().then_some(epoch)
    }
}

/// The first question of SQLite: the 100 bytes that stay clear. A page torn in a power cut may still lie here while the
/// log has it whole, so nothing is authenticated yet; the page itself is, before it is used.
fn read_beginning(disk: &mut impl Disk, buf: &mut [u8]) -> Result<(), Fault> {
    disk.read(buf, 0)?;
    if buf.starts_with(b"SQLite format 3\0") {
        require_layout(buf)?;
    }
    Ok(())
}

/// Page size 4096 and our reserve, as the header tells.
pub(crate) fn require_layout(page: &[u8]) -> Result<(), Refusal> {
    match page.get(16..21) {
        Some(&[0x10, 0x00, _, _, reserve]) if usize::from(reserve) == RESERVE => Ok(()),
        _ => Err(Refusal::NotSealed),
    }
}

/// The end of a page, where the trailer goes, must be unused: whatever lay there would be lost.
pub(crate) fn require_free(page: &PageBytes) -> Result<(), Refusal> {
    if page.last_chunk() == Some(&[0; RESERVE]) {
        Ok(())
    } else {
        Err(Refusal::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Database {
        Database::new(Ring::new("t", |_| Some([9; 32])))
    }

    fn page(fill: u8) -> PageBytes {
        let mut page = [fill; PAGE];
        page[..16].copy_from_slice(b"SQLite format 3\0");
        page[16..21].copy_from_slice(&[0x10, 0, 2, 2, RESERVE as u8]);
        page[PAGE - RESERVE..].fill(0);
        page
    }

    #[test]
    fn holes_are_filled_and_read_as_empty_pages() {
        let (mut db, mut disk) = (database(), Vec::new());
        db.write(&mut disk, &page(1), 0).unwrap();
        db.write(&mut disk, &page(4), 3 * STEP).unwrap();
        db.truncate(&mut disk, 6 * STEP).unwrap();
        assert_eq!(disk.len() as u64, 6 * STEP);
        let mut buf = [7; PAGE];
        for (number, content) in [
            (0, page(1)),
            (1, [0; PAGE]),
            (2, [0; PAGE]),
            (3, page(4)),
            (5, [0; PAGE]),
        ] {
            db.read(&mut disk, &mut buf, number * STEP).unwrap();
            assert_eq!(buf, content);
        }
        assert_eq!(db.read(&mut disk, &mut buf, 6 * STEP), Err(Fault::Short));
        assert_eq!(buf, [0; PAGE]);
        db.truncate(&mut disk, STEP).unwrap();
        assert_eq!(disk.len() as u64, STEP);
    }

    #[test]
    fn a_page_in_another_place_and_a_cut_page_are_refused() {
        let (mut db, mut disk) = (database(), Vec::new());
        for number in 0..3 {
            db.write(&mut disk, &page(number as u8), number * STEP).unwrap();
        }
        let second = disk[PAGE..2 * PAGE].to_vec();
        disk[2 * PAGE..].copy_from_slice(&second);
        let refused = Err(Fault::Refused(Refusal::NotAuthentic));
        assert_eq!(db.read(&mut disk, &mut [0; PAGE], 2 * STEP), refused);
        disk.resize(2 * PAGE - 1, 0);
        assert_eq!(db.read(&mut disk, &mut [0; PAGE], STEP), refused);
        // A hole that nobody sealed, as a sparse copy or an attacker makes it.
        disk[PAGE..].fill(0);
        disk.resize(2 * PAGE, 0);
        assert!(matches!(
            db.read(&mut disk, &mut [0; PAGE], STEP),
            Err(Fault::Refused(_))
        ));
    }

    #[test]
    fn other_layouts_and_other_sizes_are_refused() {
        let (mut db, mut disk) = (database(), Vec::new());
        let mut plain = page(1);
        plain[20] = 0;
        let refused = Err(Fault::Refused(Refusal::NotSealed));
        assert_eq!(db.write(&mut disk, &plain, 0), refused);
        plain.to_vec().clone_into(&mut disk);
        assert_eq!(db.read(&mut disk, &mut [0; CLEAR], 0), refused);
        let mut full = page(1);
        full[PAGE - 1] = 1;
        assert_eq!(
            db.write(&mut disk, &full, STEP),
            Err(Fault::Refused(Refusal::Malformed))
        );
        for (length, offset) in [(512, STEP), (PAGE, 10)] {
            assert_eq!(
                db.write(&mut disk, &vec![0; length], offset),
                Err(Fault::Io(SQLITE_IOERR_WRITE))
            );
        }
        assert_eq!(
            db.read(&mut disk, &mut [0; 100], STEP - 50),
            Err(Fault::Io(SQLITE_IOERR_READ))
        );
    }
}
