//! Making, opening and converting sealed files.
//!
//! A sealed file appears under its name whole or not at all: it is built under another name, synced, and renamed. So page 1
//! of a file that exists was always once on the disk, and its opening proves a key (`log` leans on that).

use crate::{
    Refused, Ring,
    codec::{PAGE, RESERVE},
    opening::{Begun, alone, begin_seal, seal_of, sync_dir, told, with_suffix},
    take_refused, vfs,
};
use rusqlite::{Connection, OpenFlags, ffi};
use std::{
    ffi::{c_int, c_void},
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// What can go wrong with a sealed file.
#[derive(Debug)]
pub enum Error {
    Refused(Refused),
    Sqlite(rusqlite::Error),
    Io(io::Error),
    /// A path that no URI can name, or a layout SQLite did not accept.
    Unusable(&'static str),
}

pub type Result<T> = std::result::Result<T, Error>;

impl From<rusqlite::Error> for Error {
    /// A refusal on this thread explains SQLite's code better than SQLite does.
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error().map(|e| e.extended_code);
        match take_refused() {
            Some(refused) if matches!(code, Some(ffi::SQLITE_IOERR_DATA | ffi::SQLITE_CANTOPEN)) => {
                Self::Refused(refused)
            }
            _ => Self::Sqlite(error),
        }
    }
}

impl Error {
    fn begun(ring: &Ring) -> impl FnOnce(Begun) -> Self {
        move |error| match error {
            Begun::Io(e) => Self::Io(e),
            Begun::Refused(place, why) => Self::Refused(Refused {
                file: ring.name().to_owned(),
                place,
                why,
            }),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(e) => e.fmt(f),
            Self::Sqlite(e) => e.fmt(f),
            Self::Io(e) => e.fmt(f),
            Self::Unusable(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

/// What lies under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Absent,
    /// A database that any SQLite can read.
    Plain,
    /// Anything else: a sealed database, or one too damaged to tell.
    Sealed,
}

impl Form {
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut header = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(21).read_to_end(&mut header)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::Absent),
            Err(e) => return Err(e),
        };
        let plain = match header.as_slice() {
            // SQLite makes an empty file when it opens one for the first time.
            [] => true,
            [.., reserve] if header.len() == 21 => {
                header.starts_with(b"SQLite format 3\0") && usize::from(*reserve) != RESERVE
            }
            _ => false,
        };
        Ok(if plain { Self::Plain } else { Self::Sealed })
    }
}

/// Opens a sealed file that exists. Everything SQLite might put into files of its own is kept in memory.
pub fn open(ring: &Ring, path: &Path, flags: OpenFlags) -> Result<Connection> {
    open_as(ring, path, flags, "")
}

/// The URI's word for a file whose freshness is not kept.
const UNKEPT: &str = "&seal=none";

fn open_as(ring: &Ring, path: &Path, flags: OpenFlags, extra: &str) -> Result<Connection> {
    vfs::register().map_err(|_| Error::Unusable("the sealed file system layer could not be registered"))?;
    let flags = flags.difference(OpenFlags::SQLITE_OPEN_CREATE) | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags_and_vfs(uri(ring, path, extra)?, flags, vfs::VFS)?;
    conn.execute_batch("PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0;")?;
    Ok(conn)
}

/// Takes the file and the log that lie there for the newest: a database of an earlier build, which has no seal, or one that
/// an operator has put back. The seal's generation becomes `generation`. Every page must be authentic, `agree` may look
/// into the database first, and nobody may have it open. Nothing is lost when this fails or is killed; it can be repeated.
pub fn adopt(
    ring: &Ring,
    path: &Path,
    generation: u64,
    agree: impl FnOnce(&Connection) -> Result<bool>,
) -> Result<bool> {
    let _lock = Setup::lock(path)?;
    let _live = alone(path).map_err(|_| Error::Unusable("the database is in use"))?;
    let conn = open_as(ring, path, OpenFlags::SQLITE_OPEN_READ_WRITE, UNKEPT)?;
    if !agree(&conn)? {
        return Ok(false);
    }
    let busy: bool = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    conn.close().map_err(|(_, e)| e)?;
    if busy || fs::metadata(with_suffix(path, "-wal")).is_ok_and(|log| log.len() > 0) {
        return Err(Error::Unusable("the database is in use"));
    }
    begin_seal(ring, path, generation).map_err(Error::begun(ring))?;
    Ok(true)
}

/// The generation that a file's seal tells, whatever else is wrong.
#[must_use]
pub fn generation(ring: &Ring, path: &Path) -> Option<u64> {
    told(ring, path)
}

/// Whether a seal lies beside a file.
pub fn has_seal(path: &Path) -> io::Result<bool> {
    seal_of(path).try_exists()
}

/// Makes an empty sealed file in log mode. Where one exists already, that one stays.
pub fn create(ring: &Ring, path: &Path) -> Result<()> {
    let _lock = Setup::lock(path)?;
    if Form::of(path)? != Form::Absent {
        return Ok(());
    }
    let building = Building::start(path)?;
    let conn = begin(ring, &building.0)?;
    enter_log_mode(&conn)?;
    conn.close().map_err(|(_, e)| e)?;
    building.finish(ring, path)
}

/// Seals a plain file of an earlier build under its own name. After a kill at any point the plain file or the sealed one
/// is there, whole, and the next call goes on. `Ok(false)`: there was no plain file.
pub fn convert(ring: &Ring, path: &Path) -> Result<bool> {
    let _lock = Setup::lock(path)?;
    if Form::of(path)? != Form::Plain {
        return Ok(false);
    }
    vfs::register().map_err(|_| Error::Unusable("the sealed file system layer could not be registered"))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let plain = Connection::open_with_flags(path, flags)?;
    // Takes in the old log and deletes it; then keeps everybody else out until the connection closes. In this order, since
    // in exclusive mode the journal of the first step would stay beside the file.
    plain.execute_batch(
        "PRAGMA busy_timeout=2000; PRAGMA temp_store=MEMORY; PRAGMA journal_mode=DELETE;
         PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT;",
    )?;
    let mode: String = plain.query_row("PRAGMA journal_mode", [], |r| r.get(0))?;
    if mode != "delete" || with_suffix(path, "-wal").exists() || with_suffix(path, "-journal").exists() {
        return Err(Error::Unusable("another process uses the plain database"));
    }
    let building = Building::start(path)?;
    reserve(&plain)?;
    copy(&plain, ring, &building.0)?;
    let sealed = open_as(ring, &building.0, OpenFlags::SQLITE_OPEN_READ_WRITE, UNKEPT)?;
    let found: String = sealed.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
    if found != "ok" {
        return Err(Error::Unusable("the sealed copy does not check"));
    }
    enter_log_mode(&sealed)?;
    sealed.close().map_err(|(_, e)| e)?;
    building.finish(ring, path)?;
    drop(plain);
    Ok(true)
}

/// Writes a sealed copy of what `conn` sees, as one file, for a backup: under the same ring or another one. It has no seal
/// of its own: whoever puts it in a file's place says so by [`adopt`].
pub fn copy(conn: &Connection, ring: &Ring, to: &Path) -> Result<()> {
    let extra = format!("&vfs=medtech-pages{UNKEPT}");
    conn.execute("VACUUM INTO ?1", [uri(ring, to, &extra)?])?;
    File::open(to)?.sync_all()?;
    Ok(())
}

/// A file to build in, with room for our trailer in each page.
fn begin(ring: &Ring, path: &Path) -> Result<Connection> {
    vfs::register().map_err(|_| Error::Unusable("the sealed file system layer could not be registered"))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags_and_vfs(uri(ring, path, UNKEPT)?, flags, vfs::VFS)?;
    conn.execute_batch(&format!("PRAGMA page_size={PAGE};"))?;
    reserve(&conn)?;
    Ok(conn)
}

#[allow(unsafe_code, reason = "rusqlite has no call for this file control")]
fn reserve(conn: &Connection) -> Result<()> {
    let mut bytes = c_int::try_from(RESERVE).map_err(|_| Error::Unusable("reserve"))?;
    let to: *mut c_void = (&raw mut bytes).cast();
    // SAFETY: the connection is open; for this operation the argument is an integer, which lives until the call ends.
    let rc = unsafe { ffi::sqlite3_file_control(conn.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_RESERVE_BYTES, to) };
    if rc == ffi::SQLITE_OK {
        Ok(())
    } else {
        Err(Error::Unusable("SQLite reserves no room in its pages"))
    }
}

/// Before the log exists SQLite wants a rollback journal, which would be a plain file: it is kept in memory. The file is
/// one nobody knows yet.
fn enter_log_mode(conn: &Connection) -> Result<()> {
    conn.execute_batch("PRAGMA temp_store=MEMORY; PRAGMA journal_mode=MEMORY; PRAGMA synchronous=FULL;")?;
    let mut statement = conn.prepare("PRAGMA journal_mode=WAL")?;
    let mut rows = statement.query([])?;
    let mode: String = match rows.next()? {
        Some(row) => row.get(0)?,
        None => String::new(),
    };
    // The first page is written when the statement ends, after its one row: only here is told that it could not be.
    while rows.next()?.is_some() {}
    if mode == "wal" {
        Ok(())
    } else {
        Err(Error::Unusable("SQLite does not enter log mode"))
    }
}

fn uri(ring: &Ring, path: &Path, extra: &str) -> Result<String> {
    let path = std::path::absolute(path)?;
    let path = path.to_str().ok_or(Error::Unusable("the path is not UTF-8"))?;
    let mut uri = String::from("file:");
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str(&format!("?ring={}{extra}", ring.id()));
    Ok(uri)
}

/// The file that is being built; what an earlier attempt left is removed first.
struct Building(PathBuf);

impl Building {
    fn start(target: &Path) -> Result<Self> {
        let building = Self(with_suffix(target, ".sealing"));
        building.clear()?;
        Ok(building)
    }

    fn clear(&self) -> io::Result<()> {
        for suffix in ["", "-wal", "-shm", "-journal", "-seal", "-seal.new"] {
            match fs::remove_file(with_suffix(&self.0, suffix)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Content first, then the seal's name, then the file's: after each step a power cut leaves something whole. A seal
    /// without its file is written over by the next attempt.
    fn finish(self, ring: &Ring, target: &Path) -> Result<()> {
        File::open(&self.0)?.sync_all()?;
        begin_seal(ring, &self.0, 1).map_err(Error::begun(ring))?;
        fs::rename(seal_of(&self.0), seal_of(target))?;
        sync_dir(target)?;
        fs::rename(&self.0, target)?;
        sync_dir(target)?;
        Ok(())
    }
}

/// One process at a time makes or converts files of a directory.
struct Setup(#[expect(dead_code, reason = "the lock ends when the file closes")] File);

impl Setup {
    fn lock(target: &Path) -> Result<Self> {
        let path = target.parent().unwrap_or(Path::new(".")).join("setup.lock");
        let file = File::options().create(true).append(true).open(path)?;
        file.lock()?;
        Ok(Self(file))
    }
}
