//! Freshness: an authentic page, log or file of an earlier time is not taken for the present one.
//!
//! What is kept: for every page the tag of its newest sealing, in memory and in the [`seal`](crate::seal) beside the file, with
//! a generation that grows by one with each record. A page read from the database must carry that tag.
//!
//! # Why a crash at any moment refuses nothing healthy
//!
//! In log mode SQLite writes the database file in checkpoints alone, and only pages that the log holds, committed and synced.
//! Until the log ends (its header is overwritten, it is emptied, or deleted), recovery finds those pages in it and reads
//! them there, never from the database file. So the seal may be *behind* the file as long as the log covers the difference, and
//! the one rule is: **before a log ends, a record is durable that names every page written since the last record.** SQLite has
//! synced the database file by then. With that, at every moment each page of the file on the disk either carries the
//! tag of the last durable record, or lies in the log on the disk.
//!
//! A crash between record and end of the log leaves a log of which everything is in the database file. So that this one can
//! be told from an old one put back, a record also names the log that may follow (by the salts in its header, drawn anew for
//! each) and the one `before`. On opening: the log that is named counts; the one before has ended and is removed; any
//! other is refused. `before` is the last log whose header is known to be on the disk, since a header is synced before
//! frames follow; one that never got there leaves its predecessor's name standing.
//!
//! A record is one write at the end of the file, and a sync where the rule asks for it. Torn, it does not check and the state
//! before holds, in which the log still covers everything. When the records have grown too long, or the page keys are
//! new, a file with one record is written, synced and renamed.
//!
//! # Several processes
//!
//! A command beside a running server opens the same files. So every checkpoint ends with a record (unsynced: the log covers it),
//! written before SQLite lets anybody read those pages from the file; and whoever reads a page that does not fit looks first
//! whether others have written records. Records are written under the lock of the seal's file, after reading what is new in it.
//! What is examined on opening is the work of the first process, which has the file `<db>-lock` alone while it does so;
//! those that come while it lives share that lock and trust it.
//!
//! The database file itself is read through SQLite's own handle only: closing another one would drop SQLite's locks on it.
//!
//! # What is noticed
//!
//! * A page put back, or swapped with its own older self, in a file at rest or in use: when it is read, or by [`scrub`](crate::scrub).
//! * A file cut or grown, an older file beside a newer seal, an older seal beside a newer file: on opening or reading.
//! * A log of an earlier life put back: on opening.
//! * File, log and seal all of an earlier time: consistent in themselves. Somebody outside must remember where the file
//!   stood: [`Ring::expect`] with a [`Standing`] that [`standing`] gave. An older generation is refused.
//! * The log cut at the end of a transaction: refused where it loses a commit that the expected [`Standing`] names. What
//!   was committed after it was taken can be cut off unnoticed; after a clean stop nothing can.

use crate::{
    Refusal, Refused, Ring,
    codec::CLEAR,
    database::require_layout,
    disk::{Disk, Fault},
    opening::{self, Locked, Place, begin, is_at, lives, log_there, place, require_length, taken_up, with_suffix},
    seal::{self, NO_LOG, News, Salts, Seal, Tag},
    survey::Survey,
};
use rusqlite::ffi::{SQLITE_FULL, SQLITE_IOERR_WRITE};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
};

pub use crate::opening::seal_of;

/// A durable commit in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The salts of the log's header.
    pub log: [u8; 8],
    /// Number of the commit's last frame, from 1, and its tag.
    pub frame: u32,
    pub tag: [u8; 16],
}

/// Where a file stands: durable when it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub generation: u64,
    /// The last commit of its log; none when all is in the database file, or nothing is known of it yet.
    pub log: Option<Point>,
    /// See [`Ring::remember`].
    pub outside: u64,
    /// The epoch whose key the seal needs.
    pub epoch: u32,
}

/// The freshness of one file, shared by everything in this process that has it open.
pub(crate) struct Fresh {
    ring: Ring,
    database: PathBuf,
    path: PathBuf,
    state: Mutex<State>,
    tags: RwLock<Vec<Tag>>,
    /// Held while a page and its tag change, so that a scrub sees both or neither.
    writing: Mutex<()>,
    /// Tells other processes that this one lives.
    _live: File,
}

struct State {
    file: File,
    /// As the file has it; its tags are kept apart.
    seal: Seal,
    /// Pages written since.
    changed: BTreeSet<u32>,
    /// Pages that a crash may have left torn or newer than the record: the log has them, and nobody reads them elsewhere.
    covered: HashSet<u32>,
    /// The log named in the last record has its header on the disk.
    begun: bool,
    /// All records are on the disk.
    synced: bool,
    point: Option<Point>,
}

/// Why a record is written.
enum Cause {
    /// Pages were written, or there is something new to remember.
    Written,
    /// A log begins, whatever log was there ends.
    Begins(Salts),
    /// The log ends.
    Ends,
}

/// Bytes of records beyond which, besides the size of the first one, a file is begun anew.
const ROOM: u64 = 1 << 16;

static OPEN: Mutex<Option<HashMap<Place, Weak<Fresh>>>> = Mutex::new(None);

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a file stands that this process has open.
pub fn standing(database: &Path) -> io::Result<Option<Standing>> {
    Fresh::open(database).map(|fresh| fresh.standing()).transpose()
}

/// Writes a record at once, when the ring has something new to remember.
pub fn remember_now(database: &Path) -> io::Result<()> {
    let Some(fresh) = Fresh::open(database) else {
        return Ok(());
    };
    let mut state = hold(&fresh.state);
    if fresh.ring.outside() > state.seal.outside {
        fresh.record(&mut state, &Cause::Written, true)?;
    }
    Ok(())
}

impl Fresh {
    /// The one of a file that is open in this process.
    pub(crate) fn open(database: &Path) -> Option<Arc<Self>> {
        let open = hold(&OPEN);
        open.as_ref()?.get(&place(database).ok()?)?.upgrade()
    }

    /// That of a file being opened as `main`: taken up from its seal, if it is the first time in this process.
    pub(crate) fn of(ring: &Ring, database: &Path, main: &mut impl Disk) -> Result<Arc<Self>, Refused> {
        let refused = |place: &str, why| Refused {
            file: ring.name().to_owned(),
            place: place.to_owned(),
            why,
        };
        let at = place(database).map_err(|_| refused("file", Refusal::NotSealed))?;
        let mut open = hold(&OPEN);
        let open = open.get_or_insert_default();
        open.retain(|_, fresh| fresh.strong_count() > 0);
        if let Some(fresh) = open.get(&at).and_then(Weak::upgrade) {
            let generation = hold(&fresh.state).seal.generation;
            return match ring.expected() {
                Some(stood) if generation < stood.generation => Err(refused("seal", Refusal::Stale)),
                _ => Ok(fresh),
            };
        }
        let fresh = Arc::new(Self::load(ring, database, main).map_err(|(place, why)| refused(place, why))?);
        open.insert(at, Arc::downgrade(&fresh));
        Ok(fresh)
    }

    fn load(ring: &Ring, database: &Path, main: &mut impl Disk) -> Result<Self, (&'static str, Refusal)> {
        // A plain file is told as one.
        let mut beginning = [0; CLEAR];
        if main.read(&mut beginning, 0).is_ok() && beginning.starts_with(b"SQLite format 3\0") {
            require_layout(&beginning).map_err(|why| ("page 1", why))?;
        }
        let path = seal_of(database);
        let (live, alone) = lives(ring, database, &path).map_err(|why| ("seal", why))?;
        let (file, mut seal) = taken_up(ring, &path).map_err(|why| ("seal", why))?;
        let expected = ring.expected();
        if expected
            .as_ref()
            .is_some_and(|stood| seal.generation < stood.generation)
        {
            return Err(("seal", Refusal::Stale));
        }
        let mut survey = None;
        if alone {
            survey = opening::survey(ring, database, &seal)?;
            // A point in a log that has ended since is in the database file.
            if let Some(point) = expected.and_then(|stood| stood.log).filter(|p| p.log == seal.log)
                && !survey.as_ref().is_some_and(|s| s.holds(&point))
            {
                return Err(("log", Refusal::Stale));
            }
            let length = main.size().map_err(|_| ("file", Refusal::NotAuthentic))?;
            require_length(&seal, survey.as_ref(), length).map_err(|why| ("length of the file", why))?;
            live.lock_shared().map_err(|_| ("seal", Refusal::InUse))?;
        }
        ring.remember(seal.outside);
        let tags = std::mem::take(&mut seal.tags);
        Ok(Self {
            ring: ring.clone(),
            database: database.to_owned(),
            path,
            tags: RwLock::new(tags),
            writing: Mutex::default(),
            state: Mutex::new(State {
                file,
                begun: survey.is_some(),
                synced: false,
                covered: survey.as_ref().map(Survey::covered).unwrap_or_default(),
                point: survey.and_then(|s| s.end),
                seal,
                changed: BTreeSet::new(),
            }),
            _live: live,
        })
    }

    fn standing(&self) -> io::Result<Standing> {
        let mut state = hold(&self.state);
        if !state.synced {
            state.file.sync_data()?;
            state.synced = true;
        }
        Ok(Standing {
            generation: state.seal.generation,
            log: state.point.clone(),
            outside: state.seal.outside,
            epoch: state.seal.epoch,
        })
    }

    fn tag(&self, number: u32) -> Option<Tag> {
        let tags = self.tags.read().unwrap_or_else(PoisonError::into_inner);
        tags.get(index(number)?).copied()
    }

    /// Whether a page is one of the file's.
    pub(crate) fn knows(&self, number: u32) -> bool {
        self.tag(number).is_some()
    }

    /// Whether a page just read is the newest of its number.
    pub(crate) fn check(&self, number: u32, tag: &Tag) -> Result<(), Refusal> {
        if self.tag(number) == Some(*tag) {
            return Ok(());
        }
        // Another process may have written it.
        self.catch_up(&mut hold(&self.state)).map_err(|_| Refusal::Stale)?;
        if self.tag(number) == Some(*tag) {
            Ok(())
        } else {
            Err(Refusal::Stale)
        }
    }

    /// A page is written to the database file.
    pub(crate) fn write(&self, number: u32, tag: Tag, write: impl FnOnce() -> Result<(), Fault>) -> Result<(), Fault> {
        let _writing = hold(&self.writing);
        write()?;
        seal::put(
            &mut self.tags.write().unwrap_or_else(PoisonError::into_inner),
            number,
            tag,
        );
        let mut state = hold(&self.state);
        state.changed.insert(number);
        state.covered.remove(&number);
        Ok(())
    }

    /// The database file has only so many pages now.
    pub(crate) fn cut(&self, pages: u32) -> Result<(), Fault> {
        let _writing = hold(&self.writing);
        let mut state = hold(&self.state);
        {
            let mut tags = self.tags.write().unwrap_or_else(PoisonError::into_inner);
            if tags.len() <= pages as usize {
                return Ok(());
            }
            tags.truncate(pages as usize);
        }
        state.changed.retain(|n| *n <= pages);
        state.covered.retain(|n| *n <= pages);
        let written = self.record(&mut state, &Cause::Written, false);
        written.map_err(|e| fault(&e))
    }

    /// A checkpoint has written its pages; what cannot be recorded now is recorded with the next.
    pub(crate) fn settle(&self) {
        let mut state = hold(&self.state);
        if !state.changed.is_empty() {
            let _ = self.record(&mut state, &Cause::Written, false);
        }
    }

    /// A log's header is about to be written: whatever log was there ends.
    pub(crate) fn log_begins(&self, log: Salts) -> Result<(), Fault> {
        let written = self.record(&mut hold(&self.state), &Cause::Begins(log), true);
        written.map_err(|e| fault(&e))
    }

    /// The log is about to be emptied or deleted.
    pub(crate) fn log_ends(&self) -> Result<(), Fault> {
        let written = self.record(&mut hold(&self.state), &Cause::Ends, true);
        written.map_err(|e| fault(&e))
    }

    /// The log was synced, with this commit as its last.
    pub(crate) fn log_synced(&self, commit: Option<Point>) {
        let mut state = hold(&self.state);
        if let Some(point) = commit {
            state.begun |= state.seal.log == point.log;
            state.point = Some(point);
        }
    }

    /// Writes a record, if there is a need for one, and waits until it is on the disk if it must be `durable`. After an error
    /// nothing has changed.
    fn record(&self, state: &mut State, cause: &Cause, durable: bool) -> io::Result<()> {
        let locked = self.locked(state)?;
        self.catch_up(state)?;
        let begun = self.has_begun(state)?;
        let last = if begun { state.seal.log } else { state.seal.before };
        let aged = state.seal.epoch != self.ring.epoch();
        let (log, before) = match cause {
            Cause::Written => (state.seal.log, state.seal.before),
            // Nothing was committed under this header yet: it is written once more after a rollback.
            Cause::Begins(log) if begun && *log == state.seal.log => return Ok(()),
            Cause::Begins(log) => (*log, last),
            Cause::Ends if state.seal.log == NO_LOG && state.changed.is_empty() && !aged && state.synced => {
                return Ok(());
            }
            Cause::Ends => (NO_LOG, last),
        };
        let news = News {
            outside: self.ring.outside(),
            log,
            before,
        };
        let same = log == state.seal.log;
        let tags = self.tags.read().unwrap_or_else(PoisonError::into_inner);
        let pages = u32::try_from(tags.len()).map_err(io::Error::other)?;
        let long = state.seal.length > state.seal.base.saturating_mul(2).saturating_add(ROOM);
        if long || aged {
            let (seal, bytes) = state.seal.anew(&tags, news, &self.ring).map_err(io::Error::other)?;
            state.file = begin(&self.path, &bytes)?;
            (state.seal, state.synced) = (seal, true);
        } else {
            let changed = state.changed.iter().filter_map(|n| Some((*n, *tags.get(index(*n)?)?)));
            let (seal, bytes) = state
                .seal
                .next(changed, pages, news, &self.ring)
                .map_err(io::Error::other)?;
            // What a failed attempt left behind is overwritten; its rest does not check.
            state.file.write_all_at(&bytes, state.seal.length)?;
            if durable {
                state.file.sync_data()?;
            }
            (state.seal, state.synced) = (seal, durable);
        }
        drop(tags);
        drop(locked);
        state.changed.clear();
        if !same {
            state.begun = false;
            state.point = None;
        }
        Ok(())
    }

    /// Keeps other processes from writing records; takes up the file that has the name now.
    fn locked(&self, state: &mut State) -> io::Result<Locked> {
        loop {
            let file = match File::options().read(true).write(true).open(&self.path) {
                Ok(file) => file,
                // Gone from under us: it is written anew from what is known here.
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    let tags = self.tags.read().unwrap_or_else(PoisonError::into_inner);
                    let news = News {
                        outside: self.ring.outside(),
                        log: state.seal.log,
                        before: state.seal.before,
                    };
                    let (seal, bytes) = state.seal.anew(&tags, news, &self.ring).map_err(io::Error::other)?;
                    state.file = begin(&self.path, &bytes)?;
                    (state.seal, state.synced) = (seal, true);
                    continue;
                }
                Err(e) => return Err(e),
            };
            file.lock()?;
            if is_at(&file, &self.path) {
                return Ok(Locked(file));
            }
        }
    }

    /// Takes up the records that other processes have written.
    fn catch_up(&self, state: &mut State) -> io::Result<()> {
        let mut seal = state.seal.clone();
        let mut named = Vec::new();
        if is_at(&state.file, &self.path) {
            let length = state.file.metadata()?.len();
            if length <= seal.length {
                return Ok(());
            }
            let mut bytes = vec![0; usize::try_from(length - seal.length).map_err(io::Error::other)?];
            state.file.read_exact_at(&mut bytes, seal.length)?;
            seal.follow(&self.ring, &bytes, |number, tag| named.push((number, tag)))
                .map_err(io::Error::other)?;
        } else {
            let (file, mut found) = taken_up(&self.ring, &self.path).map_err(io::Error::other)?;
            if found.generation < state.seal.generation {
                return Err(io::Error::other(Refusal::Stale));
            }
            named.extend((1..).zip(std::mem::take(&mut found.tags)));
            (state.file, seal) = (file, found);
        }
        if seal.generation == state.seal.generation && seal.length == state.seal.length {
            return Ok(());
        }
        let mut tags = self.tags.write().unwrap_or_else(PoisonError::into_inner);
        let own: Vec<_> = state
            .changed
            .iter()
            .filter_map(|n| Some((*n, *tags.get(index(*n)?)?)))
            .collect();
        tags.truncate(seal.pages as usize);
        for (number, tag) in named.into_iter().chain(own) {
            seal::put(&mut tags, number, tag);
        }
        if seal.log != state.seal.log {
            state.begun = false;
            state.point = None;
        }
        (state.seal, state.synced) = (seal, false);
        Ok(())
    }

    /// Whether the log named in the last record is on the disk.
    fn has_begun(&self, state: &mut State) -> io::Result<bool> {
        if !state.begun && state.seal.log != NO_LOG && log_there(&self.database)? == Some(state.seal.log) {
            File::open(with_suffix(&self.database, "-wal"))?.sync_data()?;
            state.begun = true;
        }
        Ok(state.begun)
    }

    /// For a scrub: calls `look` with the newest tag of a page while nobody writes it. Nothing when the page is not of the
    /// file, or the log holds it instead.
    pub(crate) fn still<T>(&self, number: u32, look: impl FnOnce(Tag) -> T) -> Option<T> {
        let _writing = hold(&self.writing);
        let tag = self.tag(number)?;
        if hold(&self.state).covered.contains(&number) {
            return None;
        }
        Some(look(tag))
    }

    pub(crate) fn pages(&self) -> u32 {
        let tags = self.tags.read().unwrap_or_else(PoisonError::into_inner);
        u32::try_from(tags.len()).unwrap_or(u32::MAX)
    }

    /// Whether the seal on the disk is the one in memory.
    pub(crate) fn seal_stands(&self) -> bool {
        let mut state = hold(&self.state);
        if self.catch_up(&mut state).is_err() {
            return false;
        }
        let found = fs::read(&self.path).ok().and_then(|b| Seal::read(&self.ring, &b).ok());
        found.is_some_and(|s| s.generation >= state.seal.generation)
    }
}

fn index(number: u32) -> Option<usize> {
    usize::try_from(number).ok()?.checked_sub(1)
}

fn fault(error: &io::Error) -> Fault {
    Fault::Io(if error.kind() == ErrorKind::StorageFull {
        SQLITE_FULL
    } else {
        SQLITE_IOERR_WRITE
    })
}
