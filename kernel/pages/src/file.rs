//! The methods of an open file, as SQLite calls them: each hands its bytes to [`Database`] or [`Log`] and the rest below.
#![allow(unsafe_code, reason = "the interface of SQLite's files is C")]

use crate::{
    Refusal,
    database::{self, Database},
    disk::{Disk, Fault},
    freshness::Fresh,
    keys::Ring,
    log::{self, Log},
    refusal::note,
    vfs::below_at,
};
use rusqlite::ffi::{
    SQLITE_FCNTL_CHUNK_SIZE, SQLITE_FCNTL_CKPT_DONE, SQLITE_FCNTL_MMAP_SIZE, SQLITE_FCNTL_SIZE_HINT,
    SQLITE_IOCAP_IMMUTABLE, SQLITE_IOCAP_POWERSAFE_OVERWRITE, SQLITE_IOCAP_SAFE_APPEND,
    SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN, SQLITE_IOERR, SQLITE_IOERR_DATA, SQLITE_IOERR_SHORT_READ, SQLITE_OK,
    sqlite3_file, sqlite3_io_methods,
};
use rusqlite::{Connection, ffi};
use std::{
    ffi::{c_int, c_void},
    ptr, slice,
    sync::Arc,
};

/// What SQLite knows as a file. The file below follows in the same memory, at [`below_at`].
#[repr(C)]
pub(crate) struct File {
    pub(crate) base: sqlite3_file,
    /// From `Box::into_raw`, freed on closing. SQLite uses a file from one thread at a time.
    pub(crate) kind: *mut Kind,
}

pub(crate) enum Kind {
    Database(Database),
    /// With its database, which is closed after it.
    Log(Log, *mut File),
    /// The journal of a database that is still empty: headers, one for each time it is synced, and nothing else.
    Journal(Ring),
}

/// Bytes of a journal's header, given that we promise power-safe overwriting. A page would be a longer write.
const JOURNAL_HEADER: usize = 512;

/// What we do ourselves; every other method is the one below. Version 2: SQLite never maps such a file into memory.
pub(crate) static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The file below.
///
/// # Safety
/// `file` is memory that SQLite has given for one of our files.
pub(crate) unsafe fn below(file: *mut File) -> *mut sqlite3_file {
    // SAFETY: `szOsFile` is `below_at()` and what the layer below asks for.
    unsafe { file.cast::<u8>().add(below_at()).cast() }
}

/// Calls a method below; the file has none of that name: an I/O error.
macro_rules! forward {
    ($file:expr, $method:ident $(, $arg:expr)*) => {{
        // SAFETY: SQLite calls us with an open file of ours, so memory of that size is there.
        let under = unsafe { below($file.cast()) };
        forward_raw!(under, $method $(, $arg)*)
    }};
}

macro_rules! forward_raw {
    ($under:expr, $method:ident $(, $arg:expr)*) => {{
        // SAFETY: the file of the layer below is open; arguments pass as they came.
        unsafe {
            match (*(*$under).pMethods).$method {
                Some(method) => method($under $(, $arg)*),
                None => SQLITE_IOERR,
            }
        }
    }};
}

/// The file below as a place for sealed bytes.
fn sealed_bytes(file: *mut File) -> Raw {
    // SAFETY: called with open files of ours alone.
    Raw(unsafe { below(file) })
}

fn checked(rc: c_int) -> Result<(), Fault> {
    match rc {
        SQLITE_OK => Ok(()),
        SQLITE_IOERR_SHORT_READ => Err(Fault::Short),
        other => Err(Fault::Io(other)),
    }
}

/// Lengths here are those of a page or a frame, offsets those of a file.
fn at(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

impl Disk for Raw {
    fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<(), Fault> {
        let length = c_int::try_from(buf.len()).map_err(|_| Fault::Io(SQLITE_IOERR))?;
        checked(forward_raw!(self.0, xRead, buf.as_mut_ptr().cast(), length, at(offset)))
    }
    fn write(&mut self, buf: &[u8], offset: u64) -> Result<(), Fault> {
        let length = c_int::try_from(buf.len()).map_err(|_| Fault::Io(SQLITE_IOERR))?;
        checked(forward_raw!(self.0, xWrite, buf.as_ptr().cast(), length, at(offset)))
    }
    fn truncate(&mut self, size: u64) -> Result<(), Fault> {
        checked(forward_raw!(self.0, xTruncate, at(size)))
    }
    fn size(&mut self) -> Result<u64, Fault> {
        let mut size = 0_i64;
        checked(forward_raw!(self.0, xFileSize, &raw mut size))?;
        u64::try_from(size).map_err(|_| Fault::Io(SQLITE_IOERR))
    }
}

/// # Safety
/// `file` is an open file of ours, and no other reference to its kind is alive.
unsafe fn kind<'a>(file: *mut File) -> &'a mut Kind {
    // SAFETY: set on opening, freed on closing; the caller's promise makes it the only reference.
    unsafe { &mut *(*file).kind }
}

fn answer(kind: &Kind, offset: u64, outcome: Result<(), Fault>) -> c_int {
    match outcome {
        Ok(()) => SQLITE_OK,
        Err(Fault::Short) => SQLITE_IOERR_SHORT_READ,
        Err(Fault::Io(rc)) => rc,
        Err(Fault::Refused(why)) => {
            let (ring, place) = match kind {
                Kind::Database(d) => (&d.ring, database::describe(offset)),
                Kind::Log(l, _) => (&l.ring, log::describe(offset)),
                Kind::Journal(ring) => (ring, "journal".into()),
            };
            note(ring.name(), place, why);
            SQLITE_IOERR_DATA
        }
    }
}

unsafe extern "C" fn read(file: *mut sqlite3_file, buf: *mut c_void, length: c_int, offset: i64) -> c_int {
    let (Ok(length), Ok(offset)) = (usize::try_from(length), u64::try_from(offset)) else {
        return SQLITE_IOERR;
    };
    let file = file.cast::<File>();
    // SAFETY: SQLite's buffer has `length` bytes and is its own; it may be fresh memory, so it is zeroed before a
    // reference to it exists. The file is open and used by this thread alone.
    let (buf, kind) = unsafe {
        ptr::write_bytes(buf.cast::<u8>(), 0, length);
        (slice::from_raw_parts_mut(buf.cast::<u8>(), length), kind(file))
    };
    let outcome = match kind {
        Kind::Database(d) => d.read(&mut sealed_bytes(file), buf, offset),
        // SAFETY: the database belongs to the same connection, is open, and nothing of it is borrowed meanwhile.
        Kind::Log(l, main) => l.read(&mut sealed_bytes(file), buf, offset, || unsafe { proves_key(*main) }),
        Kind::Journal(_) => sealed_bytes(file).read(buf, offset),
    };
    answer(kind, offset, outcome)
}

/// # Safety
/// `main` is null or an open database file of ours of which nothing is borrowed.
unsafe fn proves_key(main: *mut File) -> bool {
    if main.is_null() {
        return false;
    }
    // SAFETY: the caller's promise.
    match unsafe { kind(main) } {
        Kind::Database(d) => d.proves_key(&mut sealed_bytes(main)),
        Kind::Log(..) | Kind::Journal(_) => false,
    }
}

/// The freshness of a database, for its log.
///
/// # Safety
/// `main` is null or an open file of ours of which nothing is borrowed.
pub(crate) unsafe fn fresh_of(main: *mut File) -> Option<Arc<Fresh>> {
    if main.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    match unsafe { kind(main) } {
        Kind::Database(d) => d.fresh.clone(),
        Kind::Log(..) | Kind::Journal(_) => None,
    }
}

/// Whether nothing was written to a database yet.
///
/// # Safety
/// `main` is null or an open file of ours.
pub(crate) unsafe fn is_empty(main: *mut File) -> bool {
    !main.is_null() && sealed_bytes(main).size() == Ok(0)
}

/// A file just opened goes on in the epoch its first page is in, so that a rotation lasts.
///
/// # Safety
/// `file` is an open file of ours of which nothing is borrowed.
pub(crate) unsafe fn adopt_epoch(file: *mut File) {
    // SAFETY: the caller's promise.
    if let Kind::Database(d) = unsafe { kind(file) }
        && let Some(epoch) = d.epoch(&mut sealed_bytes(file))
    {
        d.ring.raise(epoch);
    }
}

unsafe extern "C" fn write(file: *mut sqlite3_file, buf: *const c_void, length: c_int, offset: i64) -> c_int {
    let (Ok(length), Ok(offset)) = (usize::try_from(length), u64::try_from(offset)) else {
        return SQLITE_IOERR;
    };
    let file = file.cast::<File>();
    // SAFETY: SQLite's buffer has `length` bytes of content; the file is open and used by this thread alone.
    let (buf, kind) = unsafe { (slice::from_raw_parts(buf.cast::<u8>(), length), kind(file)) };
    let outcome = match kind {
        Kind::Database(d) => d.write(&mut sealed_bytes(file), buf, offset),
        Kind::Log(l, _) => l.write(&mut sealed_bytes(file), buf, offset),
        Kind::Journal(_) if length <= JOURNAL_HEADER => sealed_bytes(file).write(buf, offset),
        Kind::Journal(_) => Err(Refusal::Malformed.into()),
    };
    answer(kind, offset, outcome)
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    let Ok(size) = u64::try_from(size) else {
        return SQLITE_IOERR;
    };
    let file = file.cast::<File>();
    // SAFETY: the file is open and used by this thread alone.
    let kind = unsafe { kind(file) };
    let outcome = match kind {
        Kind::Database(d) => d.truncate(&mut sealed_bytes(file), size),
        Kind::Log(l, _) => l.truncate(&mut sealed_bytes(file), size),
        Kind::Journal(_) => sealed_bytes(file).truncate(size),
    };
    answer(kind, size, outcome)
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let rc = forward!(file, xClose);
    // SAFETY: made by `Box::into_raw` on opening; SQLite uses the file no more.
    unsafe {
        let file = file.cast::<File>();
        drop(Box::from_raw((*file).kind));
        (*file).kind = ptr::null_mut();
        (*file).base.pMethods = ptr::null();
    }
    rc
}

unsafe extern "C" fn control(file: *mut sqlite3_file, op: c_int, arg: *mut c_void) -> c_int {
    match op {
        // Growth in advance would leave unsealed pages.
        SQLITE_FCNTL_SIZE_HINT | SQLITE_FCNTL_CHUNK_SIZE => SQLITE_OK,
        SQLITE_FCNTL_MMAP_SIZE => {
            // SAFETY: for this operation the argument is a 64-bit integer: the limit asked for, and the answer.
            unsafe { *arg.cast::<i64>() = 0 };
            SQLITE_OK
        }
        SQLITE_FCNTL_CKPT_DONE => {
            // SAFETY: the file is open and used by this thread alone.
            if let Kind::Database(Database { fresh: Some(fresh), .. }) = unsafe { kind(file.cast()) } {
                fresh.settle();
            }
            forward!(file, xFileControl, op, arg)
        }
        _ => forward!(file, xFileControl, op, arg),
    }
}

/// A file of the layer below, open, as sealed bytes.
pub(crate) struct Raw(pub(crate) *mut sqlite3_file);

/// The database file of a connection, below the sealing; nothing for one that is not ours.
pub(crate) fn raw_of(conn: &Connection) -> Option<Raw> {
    let mut file: *mut sqlite3_file = ptr::null_mut();
    let to: *mut c_void = (&raw mut file).cast();
    // SAFETY: the connection is open; for this operation the argument is where a pointer is to be put.
    let rc = unsafe { ffi::sqlite3_file_control(conn.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_FILE_POINTER, to) };
    // SAFETY: SQLite has given the connection's own file, which lives as long as it.
    let ours = rc == SQLITE_OK && !file.is_null() && unsafe { ptr::eq((*file).pMethods, &raw const METHODS) };
    // SAFETY: the methods are ours, so the file is.
    ours.then(|| Raw(unsafe { below(file.cast()) }))
}

/// Pages are sealed whole: no part of one can be read, and no layer below may take a batch of them as one write. Without the
/// power-safe promise SQLite would pad the log to whole sectors and cut a frame's write in two; told that writes are sequential
/// it would not sync the log's header before the frames, which `freshness` leans on.
unsafe extern "C" fn characteristics(file: *mut sqlite3_file) -> c_int {
    let kept = SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN | SQLITE_IOCAP_IMMUTABLE;
    (forward!(file, xDeviceCharacteristics) & kept) | SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    let rc = forward!(file, xSync, flags);
    // SAFETY: the file is open and used by this thread alone.
    if let Kind::Log(log, _) = unsafe { kind(file.cast()) } {
        log.synced(rc == SQLITE_OK);
    }
    rc
}

unsafe extern "C" fn size(file: *mut sqlite3_file, size: *mut i64) -> c_int {
    forward!(file, xFileSize, size)
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    forward!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    forward!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, found: *mut c_int) -> c_int {
    forward!(file, xCheckReservedLock, found)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    forward!(file, xSectorSize)
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    to: *mut *mut c_void,
) -> c_int {
    forward!(file, xShmMap, region, size, extend, to)
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    forward!(file, xShmLock, offset, n, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    // SAFETY: as in `forward!`; a barrier has no answer.
    unsafe {
        let under = below(file.cast());
        if let Some(barrier) = (*(*under).pMethods).xShmBarrier {
            barrier(under);
        }
    }
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    forward!(file, xShmUnmap, delete)
}
