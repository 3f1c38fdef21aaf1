//! What sealing costs, beside plain SQLite in the same run: `cargo run --release -p medtech-pages --example cost [rounds]`.
//!
//! Each round does the same work on a sealed and on a plain file, the first of them in turns; the table shows means of
//! CPU time (some systems count it in steps of milliseconds) and medians of wall time.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a measuring tool")]

use medtech_pages::{Ring, store};
use rusqlite::{Connection, OpenFlags};
use std::{error::Error, fs, path::Path, time::Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Commits, and cached reads, of one sample.
const COMMITS: usize = 40;
const READS: usize = 4_000;
/// Rows of the large transaction, and of the table that uncached reads walk.
const BULK: usize = 2_640;

/// CPU and wall time of one sample, in microseconds for one unit of work.
#[derive(Clone, Copy)]
struct Cost {
    cpu: f64,
    wall: f64,
}

/// Nanoseconds this thread has run, as Linux counts them.
fn cpu() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
}

fn sample(units: usize, work: impl FnOnce() -> rusqlite::Result<()>) -> Result<Cost> {
    let (from, start) = (cpu()?, Instant::now());
    work()?;
    let wall = start.elapsed().as_secs_f64() * 1e6;
    Ok(Cost {
        cpu: (cpu()? - from) as f64 / 1e3 / units as f64,
        wall: wall / units as f64,
    })
}

fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-16000; PRAGMA wal_autocheckpoint=500;
         PRAGMA journal_size_limit=2097152; PRAGMA temp_store=MEMORY;
         CREATE TABLE row (id INTEGER PRIMARY KEY, kind INTEGER, body BLOB); CREATE INDEX row_kind ON row (kind, id);",
    )
}

fn insert(conn: &Connection, rows: usize) -> rusqlite::Result<()> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let mut add = conn.prepare_cached("INSERT INTO row (kind, body) VALUES (abs(random()) % 500, randomblob(250))")?;
    for _ in 0..rows {
        add.execute([])?;
    }
    conn.execute_batch("COMMIT")
}

/// The four kinds of work on one file.
fn round(conn: &Connection, cold: &Connection) -> Result<[Cost; 4]> {
    let commits = sample(COMMITS, || (0..COMMITS).try_for_each(|_| insert(conn, 12)))?;
    let bulk = sample(1, || insert(conn, BULK))?;
    let read = |conn: &Connection, n: usize, spread: i64| {
        let mut one = conn.prepare_cached("SELECT body FROM row WHERE id = ?1")?;
        (0..n as i64).try_for_each(|i| one.query_row([i * spread % BULK as i64 + 1], |r| r.get(0).map(|_: Vec<u8>| ())))
    };
    read(conn, READS, 7)?;
    let cached = sample(READS, || read(conn, READS, 7))?;
    // With its cache given back, each page of the first rows is taken from the file once.
    cold.execute_batch("PRAGMA shrink_memory")?;
    let uncached = sample(BULK * 270 / 4096, || {
        cold.query_row(
            "SELECT SUM(LENGTH(body)) FROM row NOT INDEXED WHERE id <= ?1",
            [BULK as i64],
            |_| Ok(()),
        )
    })?;
    Ok([commits, bulk, cached, uncached])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn mean(values: Vec<f64>) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(15);
    // Beside the program, so that it is a disk and not memory.
    let dir = tempfile::tempdir_in(std::env::current_exe()?.parent().unwrap_or(Path::new(".")))?;
    let ring = Ring::new("cost", |_| Some([5; 32]));
    let sealed_path = dir.path().join("sealed.db");
    let plain_path = dir.path().join("plain.db");
    store::create(&ring, &sealed_path)?;
    let sealed = store::open(&ring, &sealed_path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let plain = Connection::open(&plain_path)?;
    for conn in [&sealed, &plain] {
        prepare(conn)?;
        insert(conn, BULK)?;
        conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    }
    let reading = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let cold = [
        store::open(&ring, &sealed_path, reading)?,
        Connection::open_with_flags(&plain_path, reading)?,
    ];
    let mut all: [Vec<[Cost; 4]>; 2] = [Vec::new(), Vec::new()];
    for number in 0..=rounds {
        let mut order = [(0, &sealed, &cold[0]), (1, &plain, &cold[1])];
        order.rotate_left(number % 2);
        for (which, conn, cold) in order {
            let costs = round(conn, cold)?;
            // The first round warms up.
            if number > 0 {
                all[which].push(costs);
            }
        }
    }
    println!("{rounds} rounds, µs                     CPU sealed   plain   ratio    wall sealed   plain   ratio");
    for (i, name) in [
        "12-row commit",
        "2,640-row transaction",
        "cached point read",
        "page scanned from the file",
    ]
    .into_iter()
    .enumerate()
    {
        let all_of = |which: usize, pick: fn(&Cost) -> f64| all[which].iter().map(|costs| pick(&costs[i])).collect();
        let (sealed_cpu, plain_cpu) = (mean(all_of(0, |c| c.cpu)), mean(all_of(1, |c| c.cpu)));
        let (sealed_wall, plain_wall) = (median(all_of(0, |c| c.wall)), median(all_of(1, |c| c.wall)));
        println!(
            "{name:<28} {sealed_cpu:>15.2} {plain_cpu:>9.2} {:>6.2} {sealed_wall:>13.2} {plain_wall:>9.2} {:>6.2}",
            sealed_cpu / plain_cpu,
            sealed_wall / plain_wall
        );
    }
    let size = |path: &Path| fs::metadata(path).map(|m| m.len());
    println!(
        "file {} bytes sealed, {} plain",
        size(&sealed_path)?,
        size(&plain_path)?
    );
    Ok(())
}
