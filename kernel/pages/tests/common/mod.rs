//! Sealed files in a temporary directory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed test panics"
)]

use medtech_pages::{Ring, store};
use rusqlite::{Connection, OpenFlags};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

pub(crate) const MARKER: &str = "Marker-Hypertension-4711";

/// A ring whose keys follow from one byte and the epoch.
pub(crate) fn ring(key: u8) -> Ring {
    Ring::new("test.db", move |epoch| {
        let mut bytes = [key; 32];
        bytes[..4].copy_from_slice(&epoch.to_be_bytes());
        Some(bytes)
    })
}

pub(crate) fn fresh() -> (TempDir, PathBuf, Ring) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("te st?#%.db");
    let ring = ring(1);
    store::create(&ring, &path).unwrap();
    (dir, path, ring)
}

pub(crate) fn writer(ring: &Ring, path: &Path) -> Connection {
    let conn = store::open(ring, path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    conn.execute_batch(
        "PRAGMA synchronous=FULL; PRAGMA busy_timeout=10000; PRAGMA cache_size=-2000; PRAGMA journal_size_limit=2097152;
         CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
         CREATE INDEX IF NOT EXISTS note_body ON note (body);",
    )
    .unwrap();
    conn
}

pub(crate) fn reader(ring: &Ring, path: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    store::open(ring, path, flags).unwrap()
}

/// `count` rows of about 400 bytes, each with the marker, in one transaction.
pub(crate) fn add(conn: &Connection, count: usize) {
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    for i in 0..count {
        conn.prepare_cached("INSERT INTO note (body) VALUES (?1)")
            .unwrap()
            .execute([format!("{MARKER} {i} {}", "plain text ".repeat(32))])
            .unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
}

pub(crate) fn count(conn: &Connection) -> i64 {
    conn.query_row("SELECT COUNT(*) FROM note", [], |r| r.get(0)).unwrap()
}

pub(crate) fn check(conn: &Connection) {
    let found: String = conn.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!(found, "ok");
}

pub(crate) fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

pub(crate) fn seal_of(path: &Path) -> PathBuf {
    medtech_pages::freshness::seal_of(path)
}

/// Database, log and seal as a crash at this moment would leave them.
#[derive(Clone)]
pub(crate) struct Taken {
    pub(crate) main: Vec<u8>,
    pub(crate) log: Option<Vec<u8>>,
    pub(crate) seal: Vec<u8>,
}

impl Taken {
    pub(crate) fn of(path: &Path) -> Self {
        Self {
            main: fs::read(path).unwrap(),
            log: fs::read(log_of(path)).ok(),
            seal: fs::read(seal_of(path)).unwrap(),
        }
    }

    pub(crate) fn put(&self, path: &Path) {
        fs::write(path, &self.main).unwrap();
        fs::write(seal_of(path), &self.seal).unwrap();
        match &self.log {
            Some(log) => fs::write(log_of(path), log).unwrap(),
            None => drop(fs::remove_file(log_of(path))),
        }
    }
}

/// Copies database, log and seal as a crash at this moment would leave them.
pub(crate) fn crash_copy(path: &Path, to: &Path) -> PathBuf {
    fs::create_dir_all(to).unwrap();
    let copy = to.join(path.file_name().unwrap());
    fs::copy(path, &copy).unwrap();
    for (from, to) in [(log_of(path), log_of(&copy)), (seal_of(path), seal_of(&copy))] {
        if from.exists() {
            fs::copy(from, to).unwrap();
        }
    }
    copy
}

/// Every file below `dir`.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found
}

pub(crate) fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|w| w == what)
}

/// A small generator, so that a failing round can be repeated: xorshift64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}
