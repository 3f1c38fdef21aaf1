//! The write-ahead log: frames sealed for their place in one generation of the log, and what recovery may believe.

use crate::{
    Refusal,
    codec::{
        FRAME, FRAME_HEADER, FrameBytes, LOG_HEADER, LogHeader, PAGE, PageBytes, RESERVE, open_frame, seal_frame,
        tag_of,
    },
    database::require_free,
    disk::{Disk, Fault},
    freshness::{Fresh, Point},
    keys::Ring,
    seal::Salts,
};
use rusqlite::ffi::{SQLITE_IOERR_READ, SQLITE_IOERR_WRITE};
use std::sync::Arc;

const FIRST: u64 = LOG_HEADER as u64;
const STEP: u64 = FRAME as u64;

pub(crate) struct Log {
    pub(crate) ring: Ring,
    frame: Box<FrameBytes>,
    /// A frame's header that waits for its page: SQLite writes them one after the other, and they are sealed as one.
    waiting: Option<(u64, [u8; FRAME_HEADER])>,
    doing: Doing,
    /// Where the plain frame in `frame` comes from, while `doing` is `Rewriting`.
    kept: Option<u64>,
    /// None for a file whose freshness is not kept.
    fresh: Option<Arc<Fresh>>,
    /// The commit written last, durable with the next sync.
    commit: Option<Point>,
}

/// What SQLite is about: the same read of a whole frame means two things.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// It looks for the end of the log. It begins with the log's header.
    Recovering,
    /// It has overwritten pages of its own unfinished transaction and will write their headers anew: after the
    /// read of a frame comes the header for that frame.
    Rewriting,
}

/// Frame number (from 1) and offset within the frame.
fn place(offset: u64) -> Option<(u32, usize)> {
    let from = offset.checked_sub(FIRST)?;
    let number = u32::try_from(from / STEP).ok()?.checked_add(1)?;
    Some((number, usize::try_from(from % STEP).ok()?))
}

pub(crate) fn offset_of(number: u32) -> u64 {
    FIRST + u64::from(number - 1) * STEP
}

/// What an offset means, for errors.
pub(crate) fn describe(offset: u64) -> String {
    match place(offset) {
        Some((number, _)) => format!("log frame {number}"),
        None => "log header".into(),
    }
}

impl Log {
    pub(crate) fn new(ring: Ring) -> Self {
        Self {
            ring,
            frame: Box::new([0; FRAME]),
            waiting: None,
            doing: Doing::Recovering,
            kept: None,
            fresh: None,
            commit: None,
        }
    }

    pub(crate) fn with(self, fresh: Option<Arc<Fresh>>) -> Self {
        Self { fresh, ..self }
    }

    /// After the log's sync, or when that failed.
    pub(crate) fn synced(&mut self, done: bool) {
        let commit = self.commit.take();
        if let Some(fresh) = self.fresh.as_ref().filter(|_| done) {
            fresh.log_synced(commit);
        }
    }

    /// The log is cut. Before it ends, the newest state of the database's pages must be known without it.
    pub(crate) fn truncate(&mut self, disk: &mut impl Disk, size: u64) -> Result<(), Fault> {
        if size == 0
            && let Some(fresh) = &self.fresh
        {
            fresh.log_ends()?;
        }
        disk.truncate(size)
    }

    /// `proves_key` tells whether the database file itself opens with our keys.
    pub(crate) fn read<D: Disk>(
        &mut self,
        disk: &mut D,
        buf: &mut [u8],
        offset: u64,
        proves_key: impl FnOnce() -> bool,
    ) -> Result<(), Fault> {
        self.kept = None;
        let Some((number, inner)) = place(offset) else {
            return self.read_header(disk, buf, offset);
        };
        if inner + buf.len() > FRAME {
            return Err(Fault::Io(SQLITE_IOERR_READ));
        }
        let log = generation(disk)?;
        match self.load(disk, &log, number) {
            Err(Fault::Refused(why)) if buf.len() == FRAME && self.doing == Doing::Recovering => {
                self.require_end(disk, &log, number, why, proves_key)?;
                buf.fill(0);
                return Ok(());
            }
            Err(Fault::Short) => {
                buf.fill(0);
                return Err(Fault::Short);
            }
            other => other?,
        }
        let part = self.frame.get(inner..inner + buf.len());
        buf.copy_from_slice(part.ok_or(Fault::Io(SQLITE_IOERR_READ))?);
        if buf.len() == FRAME && self.doing == Doing::Rewriting {
            self.kept = Some(offset);
        }
        Ok(())
    }

    fn read_header(&mut self, disk: &mut impl Disk, buf: &mut [u8], offset: u64) -> Result<(), Fault> {
        if offset + buf.len() as u64 > FIRST {
            return Err(Fault::Io(SQLITE_IOERR_READ));
        }
        disk.read(buf, offset)?;
        if let Ok(header) = <&LogHeader>::try_from(&*buf) {
            self.doing = Doing::Recovering;
            // SQLite takes a header that does not check for an empty log. The header is synced before the first frame
            // counts and fits a sector: a crash leaves it whole or all zero, anything else is damage.
            if *header != [0; LOG_HEADER] && !header_checks(header) {
                return Err(Refusal::LogBroken.into());
            }
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, disk: &mut impl Disk, buf: &[u8], offset: u64) -> Result<(), Fault> {
        let outcome = self.put(disk, buf, offset);
        if outcome.is_err() {
            self.commit = None;
        }
        outcome
    }

    fn put(&mut self, disk: &mut impl Disk, buf: &[u8], offset: u64) -> Result<(), Fault> {
        let kept = self.kept.take();
        let waiting = self.waiting.take();
        if let (0, Ok(header)) = (offset, <&LogHeader>::try_from(buf)) {
            if let Some(fresh) = &self.fresh {
                fresh.log_begins(salts(header))?;
            }
            self.commit = None;
            return disk.write(buf, 0);
        }
        let unknown = Fault::Io(SQLITE_IOERR_WRITE);
        let (number, inner) = place(offset).ok_or(unknown)?;
        if inner == 0 {
            let header = <[u8; FRAME_HEADER]>::try_from(buf).map_err(|_| unknown)?;
            if kept != Some(offset) {
                self.waiting = Some((offset, header));
                return Ok(());
            }
            let log = generation(disk)?;
            self.frame.first_chunk_mut().map(|h| *h = header).ok_or(unknown)?;
            return self.store(disk, &log, number);
        }
        let page = <&PageBytes>::try_from(buf).map_err(|_| unknown)?;
        if inner != FRAME_HEADER {
            return Err(unknown);
        }
        require_free(page)?;
        let log = generation(disk)?;
        let start = offset - FRAME_HEADER as u64;
        match waiting {
            Some((at, header)) if at == start => self.frame.first_chunk_mut().map(|h| *h = header).ok_or(unknown)?,
            // A page of the running transaction is written once more: its header stays until the commit rewrites it.
            _ => {
                self.doing = Doing::Rewriting;
                self.load(disk, &log, number)?;
            }
        }
        self.frame.last_chunk_mut().map(|p| *p = *page).ok_or(unknown)?;
        self.store(disk, &log, number)
    }

    fn load(&mut self, disk: &mut impl Disk, log: &LogHeader, number: u32) -> Result<(), Fault> {
        disk.read(&mut *self.frame, offset_of(number))?;
        Ok(open_frame(&self.ring, number, log, &mut self.frame)?)
    }

    fn store(&mut self, disk: &mut impl Disk, log: &LogHeader, number: u32) -> Result<(), Fault> {
        let commit = is_commit(&self.frame);
        seal_frame(&self.ring, number, log, &mut self.frame)?;
        if commit {
            self.commit = Some(Point {
                log: salts(log),
                frame: number,
                tag: tag_of(&*self.frame),
            });
        }
        disk.write(&*self.frame, offset_of(number))
    }

    /// Frame `bad` does not open. A crash leaves such a frame only in the last transaction, since the next one begins
    /// after the sync: so the log ends there, unless what follows is more than one transaction, or nothing shows that
    /// the key is right at all. (An ended log is deleted by SQLite: with a wrong key that would lose everything in it.)
    fn require_end<D: Disk>(
        &mut self,
        disk: &mut D,
        log: &LogHeader,
        bad: u32,
        why: Refusal,
        proves_key: impl FnOnce() -> bool,
    ) -> Result<(), Fault> {
        let mut proved = bad > 1;
        let (mut commits, mut before) = (0, None);
        for number in bad.saturating_add(1).. {
            match self.load(disk, log, number) {
                Ok(()) => proved = true,
                Err(Fault::Refused(_)) => {
                    (commits, before) = (0, None);
                    continue;
                }
                Err(Fault::Short) => break,
                Err(fault) => return Err(fault),
            }
            // Frames of a transaction that failed earlier may lie here too; only what SQLite would chain counts.
            let chain = chain(log, before, &self.frame);
            if before.is_some_and(|_| chain != sum_of(&self.frame)) {
                commits = 0;
            }
            before = Some(sum_of(&self.frame));
            if is_commit(&self.frame) {
                commits += 1;
            }
            if commits > 1 {
                return Err(Refusal::LogBroken.into());
            }
        }
        if proved || proves_key() {
            Ok(())
        } else {
            Err(why.into())
        }
    }
}

/// The name of a log, if its header is there and checks.
pub(crate) fn named(disk: &mut impl Disk) -> Result<Option<Salts>, Fault> {
    let mut header = [0; LOG_HEADER];
    match disk.read(&mut header, 0) {
        Err(Fault::Short) => return Ok(None),
        other => other?,
    }
    let there = header != [0; LOG_HEADER] && header_checks(&header);
    Ok(there.then(|| salts(&header)))
}

fn salts(header: &LogHeader) -> Salts {
    header
        .get(16..24)
        .and_then(|b| b.first_chunk())
        .copied()
        .unwrap_or_default()
}

/// The log's header, which every frame is bound to.
fn generation(disk: &mut impl Disk) -> Result<LogHeader, Fault> {
    let mut header = [0; LOG_HEADER];
    disk.read(&mut header, 0)?;
    Ok(header)
}

pub(crate) fn number_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u32::from_be_bytes(*b))
}

/// SQLite's running checksum as a frame's header records it.
pub(crate) fn sum_of(frame: &FrameBytes) -> (u32, u32) {
    (number_at(frame, 16), number_at(frame, 20))
}

pub(crate) fn is_commit(frame: &FrameBytes) -> bool {
    number_at(frame, 4) != 0
}

/// The checksum this frame must record when the frame before it recorded `before`.
pub(crate) fn chain(log: &LogHeader, before: Option<(u32, u32)>, frame: &FrameBytes) -> (u32, u32) {
    let (head, page) = frame.split_at(FRAME_HEADER);
    let sum = checksum(log, before.unwrap_or_default(), head.split_at(8).0);
    checksum(log, sum, page)
}

fn header_checks(header: &LogHeader) -> bool {
    let (content, sum) = header.split_at(LOG_HEADER - 8);
    checksum(header, (0, 0), content) == (number_at(sum, 0), number_at(sum, 4))
}

/// SQLite's checksum of the log (its file format, section 4.2), in the byte order that the log's magic number names.
fn checksum(log: &LogHeader, from: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let big = number_at(log, 0) & 1 == 1;
    let word = |b: [u8; 4]| {
        if big {
            u32::from_be_bytes(b)
        } else {
            u32::from_le_bytes(b)
        }
    };
    let (mut a, mut b) = from;
    let (pairs, _) = bytes.as_chunks::<8>();
    for &[p, q, r, s, t, u, v, w] in pairs {
        a = a.wrapping_add(word([p, q, r, s])).wrapping_add(b);
        b = b.wrapping_add(word([t, u, v, w])).wrapping_add(a);
    }
    (a, b)
}

const _: () = assert!(FRAME == FRAME_HEADER + PAGE && RESERVE < PAGE);

#[cfg(test)]
mod tests {
    use super::*;

    type Header = [u8; FRAME_HEADER];

    fn ring(key: u8) -> Ring {
        Ring::new("t", move |_| Some([key; 32]))
    }

    /// A log's header with SQLite's own checksum, in little-endian words.
    fn log_header(salt: u8) -> LogHeader {
        let mut header = [0; LOG_HEADER];
        header[..4].copy_from_slice(&0x377f_0682_u32.to_be_bytes());
        header[16..24].fill(salt);
        let (a, b) = checksum(&header, (0, 0), &header[..24]);
        header[24..28].copy_from_slice(&a.to_be_bytes());
        header[28..].copy_from_slice(&b.to_be_bytes());
        header
    }

    fn page(fill: u8) -> PageBytes {
        let mut page = [fill; PAGE];
        page[PAGE - RESERVE..].fill(0);
        page
    }

    /// The header SQLite would write for this page after a frame with the checksum `before`.
    fn header(
        log: &LogHeader,
        before: (u32, u32),
        number: u32,
        commit: bool,
        page: &PageBytes,
    ) -> (Header, (u32, u32)) {
        let mut header = [0; FRAME_HEADER];
        header[..4].copy_from_slice(&number.to_be_bytes());
        header[4..8].copy_from_slice(&u32::from(commit).to_be_bytes());
        let (a, b) = checksum(log, checksum(log, before, &header[..8]), page);
        header[8..16].copy_from_slice(&log[16..24]);
        header[16..20].copy_from_slice(&a.to_be_bytes());
        header[20..].copy_from_slice(&b.to_be_bytes());
        (header, (a, b))
    }

    /// A log of six frames, each a transaction.
    fn written(log: &mut Log) -> Vec<u8> {
        let (mut disk, head) = (Vec::new(), log_header(7));
        log.write(&mut disk, &head, 0).unwrap();
        let mut sum = checksum(&head, (0, 0), &head[..24]);
        for number in 1..=6 {
            let content = page(number as u8);
            let (frame, next) = header(&head, sum, number, true, &content);
            sum = next;
            log.write(&mut disk, &frame, offset_of(number)).unwrap();
            log.write(&mut disk, &content, offset_of(number) + 24).unwrap();
        }
        disk
    }

    fn frame(log: &mut Log, disk: &mut Vec<u8>, number: u32, proved: bool) -> Result<FrameBytes, Fault> {
        let mut whole = [0xee; FRAME];
        log.read(disk, &mut whole, offset_of(number), || proved)?;
        Ok(whole)
    }

    #[test]
    fn header_and_page_come_back_together_and_apart() {
        let mut log = Log::new(ring(1));
        let mut disk = written(&mut log);
        assert_eq!(disk.len() as u64, offset_of(7));
        let whole = frame(&mut log, &mut disk, 3, false).unwrap();
        assert_eq!(whole[FRAME_HEADER..], page(3));
        let mut content = [0; PAGE];
        log.read(&mut disk, &mut content, offset_of(3) + 24, || false).unwrap();
        assert_eq!(content, page(3));
        let mut sum = [0; 8];
        log.read(&mut disk, &mut sum, offset_of(3) + 16, || false).unwrap();
        assert_eq!(sum, whole[16..24]);
        assert_eq!(frame(&mut log, &mut disk, 7, false), Err(Fault::Short));
    }

    #[test]
    fn a_page_overwritten_before_its_commit_gets_its_new_header_at_the_commit() {
        let mut log = Log::new(ring(1));
        let mut disk = written(&mut log);
        let old = frame(&mut log, &mut disk, 5, false).unwrap();
        log.write(&mut disk, &page(0x55), offset_of(5) + 24).unwrap();
        let between = frame(&mut log, &mut disk, 5, false).unwrap();
        assert_eq!((&between[..24], &between[24..]), (&old[..24], &page(0x55)[..]));
        let new = [3; FRAME_HEADER];
        log.write(&mut disk, &new, offset_of(5)).unwrap();
        let after = frame(&mut log, &mut disk, 5, false).unwrap();
        assert_eq!((&after[..24], &after[24..]), (&new[..], &page(0x55)[..]));
        // A frame that does not open must never be given a header: its content would be lost for good.
        disk[offset_of(6) as usize + 100] ^= 1;
        assert_eq!(
            frame(&mut log, &mut disk, 6, true),
            Err(Fault::Refused(Refusal::NotAuthentic))
        );
    }

    #[test]
    fn recovery_ends_at_a_torn_frame_unless_two_transactions_follow() {
        let mut log = Log::new(ring(1));
        let good = written(&mut log);
        for (torn, ends) in [(6, true), (5, true), (4, false), (1, false)] {
            let mut disk = good.clone();
            disk[offset_of(torn) as usize + 2000] ^= 1;
            log.read(&mut disk, &mut [0; LOG_HEADER], 0, || false).unwrap();
            let found = frame(&mut log, &mut disk, torn, false);
            let wanted = if ends {
                Ok([0; FRAME])
            } else {
                Err(Fault::Refused(Refusal::LogBroken))
            };
            assert_eq!(found, wanted, "frame {torn}");
        }
    }

    #[test]
    fn frames_of_an_earlier_log_end_the_new_one_and_a_wrong_key_ends_nothing() {
        let mut log = Log::new(ring(1));
        let mut disk = written(&mut log);
        disk[..LOG_HEADER].copy_from_slice(&log_header(8));
        // None of the frames belongs to this log: only the database can prove the key.
        assert_eq!(frame(&mut log, &mut disk, 1, true), Ok([0; FRAME]));
        let mut disk = written(&mut log);
        let mut wrong = Log::new(ring(2));
        let refused = Err(Fault::Refused(Refusal::NotAuthentic));
        assert_eq!(frame(&mut wrong, &mut disk, 1, false), refused);
    }

    #[test]
    fn a_damaged_log_header_is_refused_and_an_empty_one_is_an_empty_log() {
        let mut log = Log::new(ring(1));
        let mut disk = written(&mut log);
        for at in 0..LOG_HEADER {
            disk[at] ^= 4;
            let read = log.read(&mut disk, &mut [0; LOG_HEADER], 0, || true);
            assert_eq!(read, Err(Fault::Refused(Refusal::LogBroken)), "byte {at}");
            disk[at] ^= 4;
        }
        disk[..LOG_HEADER].fill(0);
        log.read(&mut disk, &mut [0; LOG_HEADER], 0, || true).unwrap();
    }

    #[test]
    fn accesses_outside_of_the_layout_are_errors() {
        let mut log = Log::new(ring(1));
        let mut disk = written(&mut log);
        let io = Err(Fault::Io(SQLITE_IOERR_WRITE));
        assert_eq!(log.write(&mut disk, &[0; 10], offset_of(1)), io);
        assert_eq!(log.write(&mut disk, &page(1), offset_of(1) + 8), io);
        assert_eq!(log.write(&mut disk, &[0; 16], 8), io);
        let io = Err(Fault::Io(SQLITE_IOERR_READ));
        assert_eq!(log.read(&mut disk, &mut [0; PAGE], offset_of(1) + 25, || true), io);
        assert_eq!(log.read(&mut disk, &mut [0; 64], 0, || true), io);
    }
}
