//! What lies beside a database when it is opened: whether others have it open, what its seal tells, which log counts; and
//! the making of seals.

use crate::{
    Refusal, Ring,
    codec::PAGE,
    database::LOCK_PAGE,
    log,
    seal::{NO_LOG, News, Salts, Seal, Tag},
    survey::Survey,
};
use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long something that another process is doing may take.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) type Place = (u64, u64);

/// The seal's name beside its database.
#[must_use]
pub fn seal_of(database: &Path) -> PathBuf {
    with_suffix(database, "-seal")
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The lock of a seal's file, until it is dropped.
pub(crate) struct Locked(pub(crate) File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Not left to closing: a process that is just being started from this one shares the handle.
        let _ = self.0.unlock();
    }
}

/// Says that this process has the file open. `true`: it is the only one, and keeps others out until it shares the lock.
pub(crate) fn lives(ring: &Ring, database: &Path, seal: &Path) -> Result<(File, bool), Refusal> {
    let failed = |_| Refusal::NotAuthentic;
    if !seal.try_exists().map_err(failed)? {
        return Err(Refusal::SealMissing);
    }
    let live = live(database).map_err(failed)?;
    let begun = Instant::now();
    loop {
        match live.try_lock() {
            Ok(()) => return Ok((live, true)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(_)) => return Err(Refusal::InUse),
        }
        // While its owner lives a log that has ended is there for a moment only. A dead owner's lock may be shared for a
        // moment by a process that was just being started from it.
        let (_, now) = taken_up(ring, seal)?;
        match log_there(database).map_err(failed)? {
            Some(log) if log != now.log => {}
            _ => {
                live.lock_shared().map_err(|_| Refusal::InUse)?;
                return Ok((live, false));
            }
        }
        if begun.elapsed() > PATIENCE {
            return Err(Refusal::InUse);
        }
        pause();
    }
}

/// Waits until no process has the file open, and keeps it so.
pub(crate) fn alone(database: &Path) -> Result<File, Refusal> {
    let live = live(database).map_err(|_| Refusal::InUse)?;
    let begun = Instant::now();
    while live.try_lock().is_err() {
        if begun.elapsed() > PATIENCE {
            return Err(Refusal::InUse);
        }
        pause();
    }
    Ok(live)
}

#[expect(
    clippy::disallowed_methods,
    reason = "on opening, on a thread of the database's own, while another process closes"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// The lock that every process holds while it has the file open.
fn live(database: &Path) -> io::Result<File> {
    let path = with_suffix(database, "-lock");
    File::options().create(true).append(true).open(path)
}

/// Reads a seal.
pub(crate) fn taken_up(ring: &Ring, path: &Path) -> Result<(File, Seal), Refusal> {
    let mut file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(Refusal::SealMissing),
        Err(_) => return Err(Refusal::NotAuthentic),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|_| Refusal::NotAuthentic)?;
    Ok((file, Seal::read(ring, &bytes)?))
}

/// The generation that a seal tells.
pub(crate) fn told(ring: &Ring, database: &Path) -> Option<u64> {
    taken_up(ring, &seal_of(database)).ok().map(|(_, seal)| seal.generation)
}

/// The name of the log beside a database, if its header is there.
pub(crate) fn log_there(database: &Path) -> io::Result<Option<Salts>> {
    match File::open(with_suffix(database, "-wal")) {
        Ok(mut log) => log::named(&mut log).map_err(|_| io::Error::other("the log cannot be read")),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Begins the seal of a file that has none, or takes what lies there for the newest (`generation` says after what): every
/// page must be authentic. Nobody may have the file open, and its log must be empty.
pub(crate) fn begin_seal(ring: &Ring, database: &Path, generation: u64) -> Result<(), Begun> {
    let main = File::open(database)?;
    let length = main.metadata()?.len();
    if !length.is_multiple_of(PAGE as u64) {
        return Err(Begun::Refused("end of the file".into(), Refusal::NotAuthentic));
    }
    let mut tags = Vec::new();
    let mut page = Box::new([0; PAGE]);
    for at in 0..length / PAGE as u64 {
        let number = u32::try_from(at + 1).map_err(io::Error::other)?;
        if at == LOCK_PAGE {
            tags.push(Tag::default());
            continue;
        }
        main.read_exact_at(&mut *page, at * PAGE as u64)?;
        let tag = crate::codec::tag_of(&*page);
        let opened = crate::codec::open_page(ring, number, &mut page);
        opened.map_err(|why| Begun::Refused(format!("page {number}"), why))?;
        tags.push(tag);
    }
    let news = News {
        outside: ring.outside(),
        log: NO_LOG,
        before: NO_LOG,
    };
    let (_, bytes) = Seal::first(ring, generation, &tags, news).map_err(|why| Begun::Refused("seal".into(), why))?;
    begin(&seal_of(database), &bytes)?;
    Ok(())
}

/// Why a seal could not be begun.
pub(crate) enum Begun {
    Refused(String, Refusal),
    Io(io::Error),
}

impl From<io::Error> for Begun {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What recovery will find; a log that has ended already is removed.
pub(crate) fn survey(ring: &Ring, database: &Path, seal: &Seal) -> Result<Option<Survey>, (&'static str, Refusal)> {
    let path = with_suffix(database, "-wal");
    let failed = |_| ("log", Refusal::NotAuthentic);
    let mut log = match File::open(&path) {
        Ok(log) => log,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let Some(found) = Survey::of(ring, &mut log).map_err(|_| ("log", Refusal::NotAuthentic))? else {
        return Ok(None);
    };
    if found.log == seal.log && seal.log != NO_LOG {
        // A killed process may have left it unsynced; from here on it counts as being on the disk.
        log.sync_all().map_err(failed)?;
        return Ok(Some(found));
    }
    if found.log != seal.before || seal.before == NO_LOG {
        return Err(("log", Refusal::Stale));
    }
    fs::remove_file(&path).map_err(failed)?;
    sync_dir(&path).map_err(failed)?;
    Ok(None)
}

/// Every page that recovery will not find in the log must lie in the file, and be known.
pub(crate) fn require_length(seal: &Seal, survey: Option<&Survey>, length: u64) -> Result<(), Refusal> {
    let sealed = seal.tags.len() as u64;
    let Some(survey) = survey.filter(|s| s.end.is_some()) else {
        return if length == sealed * PAGE as u64 {
            Ok(())
        } else {
            Err(Refusal::Stale)
        };
    };
    let covered = survey.covered();
    let last = (1..=survey.pages)
        .rev()
        .find(|n| !covered.contains(n) && u64::from(*n) != LOCK_PAGE + 1);
    match last.map(u64::from) {
        Some(last) if last > sealed || last * PAGE as u64 > length => Err(Refusal::Stale),
        _ => Ok(()),
    }
}

pub(crate) fn place(path: &Path) -> io::Result<Place> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let here = file.metadata().ok().map(|m| (m.dev(), m.ino()));
    here.is_some() && here == place(path).ok()
}

/// Writes a seal of one record under its name, whole or not at all.
pub(crate) fn begin(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let new = with_suffix(path, ".new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = File::options().read(true).write(true).create_new(true).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_dir(path)?;
    Ok(file)
}

pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
