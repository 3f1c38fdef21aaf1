//! What sealing pages costs: the same statements on a sealed file and on one of plain SQLite, in turns.

use crate::Result;
use medtech_pages::{Ring, store};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// Turns; the median counts.
const TURNS: usize = 9;
const COMMITS: i64 = 300;
const ROWS: i64 = 12;
const READS: i64 = 20_000;

/// CPU of this process, in microseconds: sealed, and plain.
pub struct Pages {
    pub commit: [f64; 2],
    pub read: [f64; 2],
}

/// The settings are those of the server's writers.
const SETTINGS: &str = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-16000;
    PRAGMA wal_autocheckpoint=500; PRAGMA journal_size_limit=2097152; PRAGMA temp_store=MEMORY;
    CREATE TABLE note (id INTEGER PRIMARY KEY, patient INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE INDEX note_patient ON note (patient, id);";

pub fn measure() -> Result<Pages> {
    let dir = tempfile::tempdir()?;
    let ring = Ring::new("bench.db", |_| Some([7; 32]));
    let sealed = dir.path().join("sealed.db");
    store::create(&ring, &sealed)?;
    let files = [
        store::open(&ring, &sealed, OpenFlags::SQLITE_OPEN_READ_WRITE)?,
        Connection::open(dir.path().join("plain.db"))?,
    ];
    for conn in &files {
        conn.execute_batch(SETTINGS)?;
    }
    let (mut commits, mut reads) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for turn in 0..=TURNS {
        for (i, conn) in files.iter().enumerate() {
            let commit = cpu_of(COMMITS, || (0..COMMITS).try_for_each(|n| commit(conn, n)))?;
            let read = cpu_of(READS, || (0..READS).try_for_each(|n| read(conn, n)))?;
            // The first turn warms up.
            if let (true, Some(c), Some(r)) = (turn > 0, commits.get_mut(i), reads.get_mut(i)) {
                c.push(commit);
                r.push(read);
            }
        }
    }
    Ok(Pages {
        commit: commits.map(super::median),
        read: reads.map(super::median),
    })
}

/// One transaction of a few rows, spread over the table.
fn commit(conn: &Connection, n: i64) -> rusqlite::Result<()> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let mut insert = conn.prepare_cached("INSERT INTO note (patient, body) VALUES (?1, ?2)")?;
    for row in 0..ROWS {
        let body = format!("{n} {row} {}", "an observation of a patient ".repeat(12));
        insert.execute(((n * 7919 + row * 131) % 1000, body))?;
    }
    conn.execute_batch("COMMIT")
}

fn read(conn: &Connection, n: i64) -> rusqlite::Result<()> {
    let mut one = conn.prepare_cached("SELECT body FROM note WHERE id = ?1")?;
    let body: String = one.query_row([n % 1000 + 1], |row| row.get(0))?;
    std::hint::black_box(body);
    Ok(())
}

/// Microseconds of CPU for each of `count` things.
fn cpu_of(count: i64, work: impl FnOnce() -> rusqlite::Result<()>) -> Result<f64> {
    let before = cpu_ns()?;
    work()?;
    Ok((cpu_ns()? - before) / 1000.0 / count as f64)
}

/// CPU time of this thread, in nanoseconds: to the nanosecond, where `/proc/PID/stat` has hundredths of a second.
fn cpu_ns() -> Result<f64> {
    let text = std::fs::read_to_string(Path::new("/proc/thread-self/schedstat"))?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}
