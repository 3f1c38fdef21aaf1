//! The shell around SQLite's own file system layer: a VFS of our name whose files seal what passes through them.
//!
//! Locks, shared memory, names and syncs stay the work of the layer below. Opened are the database and its log, nothing
//! else: a rollback journal or a temporary file would hold plain pages. One exception: while a database is still empty,
//! a journal has nothing to hold but its headers, and `VACUUM INTO` insists on one.
#![allow(unsafe_code, reason = "the interface of SQLite's VFS is C")]

use crate::{
    Refusal,
    database::Database,
    file::{File, Kind, METHODS, adopt_epoch, below, is_empty},
    keys::Ring,
    log::Log,
    refusal::note,
};
use rusqlite::ffi::{
    self, SQLITE_CANTOPEN, SQLITE_OK, SQLITE_OPEN_MAIN_DB, SQLITE_OPEN_MAIN_JOURNAL, SQLITE_OPEN_WAL, sqlite3_file,
    sqlite3_vfs,
};
use std::{
    ffi::{CStr, c_char, c_int},
    ptr,
    sync::OnceLock,
};

/// The name to open connections with.
pub(crate) const VFS: &CStr = c"medtech-pages";
/// The URI parameter that names the ring.
pub(crate) const RING: &CStr = c"ring";

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
    let kind = if flags & SQLITE_OPEN_MAIN_DB != 0 {
        Kind::Database(Database::new(ring))
    } else {
        // SAFETY: as above; the database of a log or journal is a file of ours and lives longer than it.
        let database = unsafe { ffi::sqlite3_database_file_object(name) }.cast();
        if flags & SQLITE_OPEN_WAL != 0 {
            Kind::Log(Log::new(ring), database)
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
        let rc = open_below(*vfs, name, under, flags, out_flags);
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
