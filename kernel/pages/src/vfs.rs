//! The shell around SQLite's own file system layer: a VFS of our name whose files seal what passes through them.
//!
//! Locks, shared memory, names and syncs stay the work of the layer below. Opened are the database and its log, nothing
//! else: a rollback journal or a temporary file would hold plain pages. One exception: while a database is still empty,
//! a journal has nothing to hold but its headers, and `VACUUM INTO` insists on one.
#![allow(unsafe_code, reason = "the interface of SQLite's VFS is C")]

use crate::{
    Refusal,
    database::Database,
    file::{File, Kind, METHODS, Raw, adopt_epoch, below, fresh_of, is_empty},
    freshness::Fresh,
    keys::Ring,
    log::Log,
    refusal::note,
};
use rusqlite::ffi::{
    self, SQLITE_CANTOPEN, SQLITE_IOERR, SQLITE_OK, SQLITE_OPEN_MAIN_DB, SQLITE_OPEN_MAIN_JOURNAL, SQLITE_OPEN_WAL,
    sqlite3_file, sqlite3_vfs,
};
use std::{
    ffi::{CStr, OsStr, c_char, c_int},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr,
    sync::OnceLock,
};

/// The name to open connections with.
pub(crate) const VFS: &CStr = c"medtech-pages";
/// The URI parameter that names the ring.
pub(crate) const RING: &CStr = c"ring";
/// The URI parameter of a file whose freshness is not kept: one that is being built, or a copy.
const SEAL: &CStr = c"seal";

struct Registered {
    /// SQLite's own layer, alive for as long as the process.
    below: *mut sqlite3_vfs,
}
// SAFETY: the layer below is a static of SQLite, which calls it from any thread itself.
unsafe impl Send for Registered {}
// SAFETY: as above; we only read its fields, which never change after SQLite's start.
unsafe impl Sync for Registered {}

static REGISTERED: OnceLock<Option<Registered>> = OnceLock::new();

/// Makes the VFS known to SQLite; once for the process.
pub(crate) fn register() -> Result<(), Refusal> {
    REGISTERED
        .get_or_init(make)
        .as_ref()
        .map(|_| ())
        .ok_or(Refusal::Malformed)
}

fn make() -> Option<Registered> {
    // SAFETY: no argument but "the default one"; SQLite initialises itself on this call.
    let below = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
    // SAFETY: a VFS found is valid for ever, and its fields are plain data.
    let mut ours = unsafe { below.as_ref() }.copied()?;
    ours.szOsFile += c_int::try_from(below_at()).ok()?;
    ours.pNext = ptr::null_mut();
    ours.zName = VFS.as_ptr();
    ours.xOpen = Some(open);
    ours.xDelete = Some(delete);
    // SAFETY: leaked, so it outlives every connection; not made the default.
    let rc = unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 0) };
    (rc == SQLITE_OK).then_some(Registered { below })
}

/// Where the file below begins in the memory that SQLite gives us for a file.
pub(crate) const fn below_at() -> usize {
    size_of::<File>().next_multiple_of(16)
}

/// `xOpen`.
unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let file = file.cast::<File>();
    // SAFETY: SQLite gives `szOsFile` bytes for the file; null methods tell it that nothing needs closing.
    unsafe { (*file).base.pMethods = ptr::null() };
    if name.is_null() || flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL) == 0 {
        note("SQLite", "temporary file".into(), Refusal::PlainFile);
        return SQLITE_CANTOPEN;
    }
    // SAFETY: the name is one that SQLite made for a database or its log, as both functions demand.
    let Some(ring) = (unsafe { ring_of(name) }) else {
        note("SQLite", "database".into(), Refusal::NotSealed);
        return SQLITE_CANTOPEN;
    };
    let mut kind = if flags & SQLITE_OPEN_MAIN_DB != 0 {
        Kind::Database(Database::new(ring))
    } else {
        // SAFETY: as above; the database of a log or journal is a file of ours and lives longer than it.
        let database = unsafe { ffi::sqlite3_database_file_object(name) }.cast();
        if flags & SQLITE_OPEN_WAL != 0 {
            // SAFETY: the same file, and nothing of it is borrowed.
            Kind::Log(Log::new(ring).with(unsafe { fresh_of(database) }), database)
        // SAFETY: the same file, and nothing of it is borrowed.
        } else if unsafe { is_empty(database) } {
            Kind::Journal(ring)
        } else {
            note(ring.name(), "journal".into(), Refusal::PlainFile);
            return SQLITE_CANTOPEN;
        }
    };
    let Some(Some(Registered { below: vfs })) = REGISTERED.get() else {
        return SQLITE_CANTOPEN;
    };
    // SAFETY: the layer below gets its own VFS, the unchanged name and its own part of the file's memory.
    unsafe {
        let Some(open_below) = (**vfs).xOpen else {
            return SQLITE_CANTOPEN;
        };
        let under = below(file);
        (*under).pMethods = ptr::null();
        let mut rc = open_below(*vfs, name, under, flags, out_flags);
        if rc == SQLITE_OK
            && let Kind::Database(database) = &mut kind
            && is_kept(name)
        {
            match Fresh::of(&database.ring, Path::new(path_of(name)), &mut Raw(under)) {
                Ok(fresh) => database.fresh = Some(fresh),
                Err(refused) => {
                    note(&refused.file, refused.place, refused.why);
                    rc = SQLITE_CANTOPEN;
                }
            }
        }
        if rc != SQLITE_OK {
            if let Some(close) = (*under).pMethods.as_ref().and_then(|m| m.xClose) {
                close(under);
            }
            return rc;
        }
        (*file).kind = Box::into_raw(Box::new(kind));
        (*file).base.pMethods = &raw const METHODS;
        adopt_epoch(file);
    }
    SQLITE_OK
}

/// `xDelete`: before a log goes, the newest state of its database's pages must be known without it.
unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    let Some(Some(Registered { below: vfs })) = REGISTERED.get() else {
        return SQLITE_IOERR;
    };
    // SAFETY: SQLite names the file.
    if let Some(database) = unsafe { path_of(name) }.as_bytes().strip_suffix(b"-wal")
        && let Some(fresh) = Fresh::open(Path::new(OsStr::from_bytes(database)))
        && fresh.log_ends().is_err()
    {
        return SQLITE_IOERR;
    }
    // SAFETY: the layer below gets its own VFS and the unchanged name.
    match unsafe { (**vfs).xDelete } {
        // SAFETY: as above.
        Some(delete) => unsafe { delete(*vfs, name, sync) },
        None => SQLITE_IOERR,
    }
}

/// # Safety
/// `name` is a string that lives as long as the answer is used.
unsafe fn path_of<'a>(name: *const c_char) -> &'a OsStr {
    // SAFETY: the caller's promise.
    OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())
}

/// Whether a file's freshness is kept.
///
/// # Safety
/// `name` was made by SQLite for a database.
unsafe fn is_kept(name: *const c_char) -> bool {
    // SAFETY: the caller's promise; the answer is null or a string.
    unsafe { ffi::sqlite3_uri_parameter(name, SEAL.as_ptr()).is_null() }
}

/// # Safety
/// `name` was made by SQLite for a database or its log.
unsafe fn ring_of(name: *const c_char) -> Option<Ring> {
    // SAFETY: the caller's promise; the answer is null or a string within the name's own memory.
    let id = unsafe {
        let text = ffi::sqlite3_uri_parameter(name, RING.as_ptr());
        if text.is_null() {
            return None;
        }
        CStr::from_ptr(text)
    };
    Ring::find(id.to_str().ok()?.parse().ok()?)
}
