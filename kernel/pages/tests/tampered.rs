//! What somebody with access to the disk can do to a sealed file, and what we answer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test panics"
)]

use crate::common::{Dice, Taken, add, check, count, crash_copy, fresh, log_of, reader, writer};
use medtech_pages::{Refusal, Ring, store, take_refused};
use rusqlite::{Connection, OpenFlags};
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

const PAGE: usize = 4096;
const FRAME: usize = 4120;
const LOG_HEADER: usize = 32;

/// Reads the whole file, as rows and as pages.
fn read_all(ring: &Ring, path: &Path) -> store::Result<i64> {
    let conn = store::open(ring, path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let found: String = conn.query_row("PRAGMA integrity_check", [], |r| r.get(0))?;
    if found != "ok" {
        // The check goes on over pages it cannot read and names them.
        return Err(store::Error::Refused(
            take_refused().expect("damage that nobody refused"),
        ));
    }
    let bytes: i64 = conn.query_row("SELECT SUM(LENGTH(body)) FROM note NOT INDEXED", [], |r| r.get(0))?;
    assert!(bytes > 0);
    Ok(conn.query_row("SELECT COUNT(*) FROM note", [], |r| r.get(0))?)
}

fn refused(outcome: store::Result<i64>, what: &str) {
    match outcome {
        Err(store::Error::Refused(_)) => {}
        // The very first bytes: SQLite itself sees that this is no database.
        Err(store::Error::Sqlite(e)) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn a_file_is_not_made_while_its_key_is_not_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.db");
    let (known, asks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (knows, asked) = (known.clone(), asks.clone());
    let ring = Ring::new("new.db", move |_| {
        asked.store(true, Ordering::Relaxed);
        knows.load(Ordering::Relaxed).then_some([5; 32])
    });
    let refused = store::create(&ring, &path).expect_err("there is no key");
    assert!(refused.to_string().contains("key is not known"), "{refused}");
    assert!(asks.load(Ordering::Relaxed) && !path.exists());
    known.store(true, Ordering::Relaxed);
    store::create(&ring, &path).unwrap();
    add(&writer(&ring, &path), 1);
}

#[test]
fn a_flipped_bit_anywhere_in_the_database_is_refused() {
    let (_dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    add(&conn, 200);
    drop(conn);
    let good = fs::read(&path).unwrap();
    let mut dice = Dice(0x5eed_0001);
    let edges = [0, 15, 16, 20, 24, 28, 60, 99, 100, 4063, 4064, 4080, 4092, 4095, 4096];
    let random: Vec<_> = (0..150).map(|_| dice.below(good.len())).collect();
    for at in edges.into_iter().chain(random) {
        let mut bad = good.clone();
        bad[at] ^= 1 << dice.below(8);
        fs::write(&path, bad).unwrap();
        refused(read_all(&ring, &path), &format!("byte {at}"));
    }
    fs::write(&path, good).unwrap();
    assert_eq!(read_all(&ring, &path).unwrap(), 200);
}

#[test]
fn a_page_in_another_place_is_refused() {
    let (_dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    add(&conn, 200);
    drop(conn);
    let good = fs::read(&path).unwrap();
    let pages = good.len() / PAGE;
    for (from, to) in [(2, 3), (3, 2), (pages - 1, 1), (1, pages - 1), (4, 0)] {
        let mut bad = good.clone();
        bad.copy_within(from * PAGE..(from + 1) * PAGE, to * PAGE);
        fs::write(&path, bad).unwrap();
        refused(read_all(&ring, &path), &format!("page {from} over {to}"));
    }
    // The same place in the file of somebody else.
    let other = tempfile::tempdir().unwrap();
    let (foreign, keys) = (other.path().join("foreign.db"), crate::common::ring(2));
    store::create(&keys, &foreign).unwrap();
    let conn = writer(&keys, &foreign);
    add(&conn, 200);
    drop(conn);
    let mut mixed = good.clone();
    mixed[2 * PAGE..3 * PAGE].copy_from_slice(&fs::read(&foreign).unwrap()[2 * PAGE..3 * PAGE]);
    fs::write(&path, mixed).unwrap();
    refused(read_all(&ring, &path), "a page of another tenant");
}

/// A log of `commits` transactions of `rows` rows, as a crash leaves it, and the frame where each of them ends.
fn crashed(commits: usize, rows: usize) -> (tempfile::TempDir, std::path::PathBuf, Ring, Vec<usize>) {
    let (dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    conn.execute_batch("PRAGMA wal_autocheckpoint=0; PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    let mut ends = Vec::new();
    for _ in 0..commits {
        add(&conn, rows);
        ends.push((fs::metadata(log_of(&path)).unwrap().len() as usize - LOG_HEADER) / FRAME);
    }
    let copy = crash_copy(&path, &dir.path().join("crashed"));
    (dir, copy, ring, ends)
}

#[test]
fn a_flipped_bit_in_the_log_is_refused_and_only_its_last_moments_can_pass_for_a_crash() {
    let (_dir, path, ring, ends) = crashed(8, 20);
    let (whole, log) = (Taken::of(&path), fs::read(log_of(&path)).unwrap());
    let mut dice = Dice(0x5eed_0002);
    let (mut refusals, mut cuts) = (0, 0);
    for round in 0..200 {
        // The last eight bytes of the log's header are SQLite's checksum of it, checked as the rest.
        let at = if round < LOG_HEADER {
            round
        } else {
            dice.below(log.len())
        };
        let mut bad = log.clone();
        bad[at] ^= 1 << dice.below(8);
        whole.put(&path);
        fs::write(log_of(&path), bad).unwrap();
        let frame = at.checked_sub(LOG_HEADER).map(|b| b / FRAME + 1);
        // Ends of transactions behind the bad frame, and whole transactions before it.
        let behind = frame.map_or(8, |f| ends.iter().filter(|e| **e > f).count());
        let before = frame.map_or(0, |f| ends.iter().filter(|e| **e < f).count());
        match read_all(&ring, &path) {
            Ok(rows) => {
                assert!(behind < 2, "byte {at}, {behind} commits behind it");
                assert_eq!(rows as usize, before * 20);
                cuts += 1;
            }
            Err(store::Error::Refused(r)) => {
                assert!(behind >= 2, "byte {at}: {r}");
                assert_eq!(r.why, Refusal::LogBroken);
                assert!(log_of(&path).exists(), "a refused log must stay for whoever mends it");
                refusals += 1;
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
    assert!(refusals > 100 && cuts > 10, "{refusals} {cuts}");
    whole.put(&path);
    assert_eq!(read_all(&ring, &path).unwrap(), 160);
}

#[test]
fn frames_of_the_log_that_changed_places_are_refused() {
    let (_dir, path, ring, ends) = crashed(8, 20);
    let (whole, log) = (Taken::of(&path), fs::read(log_of(&path)).unwrap());
    for (a, b) in [(1, 2), (2, ends[3]), (ends[0], ends[1]), (1, ends[7])] {
        let mut bad = log.clone();
        let span = |n: usize| LOG_HEADER + (n - 1) * FRAME..LOG_HEADER + n * FRAME;
        bad[span(a)].copy_from_slice(&log[span(b)]);
        bad[span(b)].copy_from_slice(&log[span(a)]);
        whole.put(&path);
        fs::write(log_of(&path), bad).unwrap();
        refused(read_all(&ring, &path), &format!("frames {a} and {b}"));
    }
}

#[test]
fn damage_under_a_running_server_is_refused_when_it_is_read() {
    let (_dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    add(&conn, 300);
    let watching = reader(&ring, &path);
    let log = fs::read(log_of(&path)).unwrap();
    let mut bad = log.clone();
    for frame in 0..(log.len() - LOG_HEADER) / FRAME {
        bad[LOG_HEADER + frame * FRAME + 500] ^= 1;
    }
    fs::write(log_of(&path), bad).unwrap();
    let failed = store::Error::from(
        watching
            .query_row("SELECT SUM(LENGTH(body)) FROM note", [], |r| r.get::<_, i64>(0))
            .unwrap_err(),
    );
    let store::Error::Refused(refused) = failed else {
        panic!("{failed}")
    };
    assert_eq!((refused.file.as_str(), refused.why), ("test.db", Refusal::NotAuthentic));
    assert!(refused.place.starts_with("log frame "), "{}", refused.place);
    fs::write(log_of(&path), log).unwrap();
    assert_eq!(count(&watching), 300);
}

#[test]
fn a_wrong_key_is_told_and_harms_nothing() {
    let (_dir, path, ring, _) = crashed(3, 20);
    let wrong = crate::common::ring(2);
    let none = Ring::new("test.db", |_| None);
    for keys in [&wrong, &none] {
        for _ in 0..2 {
            let Err(store::Error::Refused(refused)) = read_all(keys, &path) else {
                panic!("opened")
            };
            assert!(
                matches!(refused.why, Refusal::NotAuthentic | Refusal::KeyUnknown(1)),
                "{refused}"
            );
        }
        assert!(log_of(&path).exists());
    }
    assert_eq!(read_all(&ring, &path).unwrap(), 60);
    refused(read_all(&wrong, &path), "closed file");
    assert!(!log_of(&path).exists());
    assert_eq!(read_all(&ring, &path).unwrap(), 60);
}

#[test]
fn a_plain_file_put_in_the_place_of_a_sealed_one_is_refused() {
    let (_dir, path, ring) = fresh();
    drop(writer(&ring, &path));
    fs::remove_file(&path).unwrap();
    let plain = Connection::open(&path).unwrap();
    plain
        .execute_batch("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)")
        .unwrap();
    add(&plain, 3);
    check(&plain);
    drop(plain);
    let Err(store::Error::Refused(refused)) = read_all(&ring, &path) else {
        panic!("opened")
    };
    assert_eq!(refused.why, Refusal::NotSealed);
}
