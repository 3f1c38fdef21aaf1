//! What SQLite does with a file, done with a sealed one; and what lies on the disk meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test panics"
)]

use crate::common::{MARKER, add, check, contains, count, files, fresh, log_of, reader, ring, writer};
use medtech_pages::{Form, Ring, rekey, store};
use rusqlite::{Connection, OpenFlags};
use std::{collections::BTreeSet, fs, path::Path};

fn no_plain_text(dir: &Path) {
    let all = files(dir);
    assert!(all.iter().any(|f| f.to_str().unwrap().ends_with("-wal")));
    assert!(all.iter().any(|f| f.to_str().unwrap().ends_with("-shm")));
    for file in all {
        let bytes = fs::read(&file).unwrap();
        for text in [MARKER, "plain text", "CREATE TABLE", "note_body"] {
            assert!(!contains(&bytes, text.as_bytes()), "{text:?} in {}", file.display());
        }
    }
}

#[test]
fn nothing_that_was_written_can_be_read_on_the_disk() {
    let (dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    add(&conn, 3000);
    no_plain_text(dir.path());
    conn.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    add(&conn, 10);
    // Sorters, temporary tables, statement journals, a vacuum: nothing may leave a file of its own.
    conn.execute_batch(
        "CREATE TEMP TABLE t AS SELECT * FROM note ORDER BY body DESC; UPDATE note SET body = body || id; VACUUM;",
    )
    .unwrap();
    no_plain_text(dir.path());
    assert_eq!(count(&conn), 3010);
    check(&conn);
    assert_eq!(Form::of(&path).unwrap(), Form::Sealed);
    drop(conn);
    assert_eq!(count(&reader(&ring, &path)), 3010);
    let names: BTreeSet<_> = files(dir.path())
        .into_iter()
        .map(|f| f.file_name().unwrap().to_owned())
        .collect();
    // The database, its log, its shared memory, its seal, its lock, and the lock of those who make files here.
    assert!(names.len() <= 6, "{names:?}");
}

#[test]
fn several_readers_see_whole_commits_while_a_writer_spills_rolls_back_and_checkpoints() {
    let (_dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    // A cache this small makes every larger transaction spill pages into the log and overwrite them there.
    conn.execute_batch("PRAGMA cache_size=10; CREATE TABLE sum (n INTEGER); INSERT INTO sum VALUES (0);")
        .unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let conn = reader(&ring, &path);
                    conn.execute_batch("PRAGMA cache_size=20").unwrap();
                    let mut rounds = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) || rounds == 0 {
                        let (rows, sum): (i64, i64) = conn
                            .query_row(
                                "SELECT (SELECT COUNT(*) FROM note NOT INDEXED), (SELECT n FROM sum)",
                                [],
                                |r| Ok((r.get(0)?, r.get(1)?)),
                            )
                            .unwrap();
                        assert_eq!(rows, sum);
                        rounds += 1;
                    }
                })
            })
            .collect();
        for round in 0..40 {
            conn.execute_batch("BEGIN IMMEDIATE; SAVEPOINT s").unwrap();
            for i in 0..200 {
                conn.execute(
                    "INSERT INTO note (body) VALUES (?1)",
                    [format!("{round} {i} {}", "x".repeat(500))],
                )
                .unwrap();
            }
            conn.execute_batch("UPDATE note SET body = body || '.' WHERE id % 7 = 0")
                .unwrap();
            if round % 5 == 4 {
                conn.execute_batch("ROLLBACK TO s").unwrap();
            } else {
                conn.execute_batch("UPDATE sum SET n = n + 200").unwrap();
            }
            conn.execute_batch(if round % 7 == 6 { "ROLLBACK" } else { "COMMIT" })
                .unwrap();
            if round % 10 == 3 {
                let _: i64 = conn
                    .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |r| r.get(0))
                    .unwrap();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    check(&conn);
    let before = count(&conn);
    assert!(before > 4000);
    drop(conn);
    let again = writer(&ring, &path);
    assert_eq!(count(&again), before);
    check(&again);
}

#[test]
fn copies_are_sealed_under_the_same_ring_or_another_one() {
    let (dir, path, here) = fresh();
    let conn = writer(&here, &path);
    add(&conn, 500);
    let other = ring(2);
    for (name, keys) in [("same.db", &here), ("other.db", &other)] {
        let to = dir.path().join(name);
        store::copy(&conn, keys, &to).unwrap();
        assert!(store::adopt(keys, &to, 1, |_| Ok(true)).unwrap());
        let copy = store::open(keys, &to, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        check(&copy);
        assert_eq!(count(&copy), 500);
    }
    // SQLite's online backup, page by page.
    let to = dir.path().join("backup.db");
    store::create(&other, &to).unwrap();
    let mut copy = store::open(&other, &to, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let backup = rusqlite::backup::Backup::new(&conn, &mut copy).unwrap();
    backup.run_to_completion(100, std::time::Duration::ZERO, None).unwrap();
    drop(backup);
    assert_eq!(count(&copy), 500);
    check(&copy);
    no_plain_text(dir.path());
}

#[test]
fn a_rotation_leaves_no_page_of_the_old_epoch_and_lasts() {
    let (_dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    add(&conn, 1000);
    conn.execute_batch("DELETE FROM note WHERE id % 3 = 0; PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    assert_eq!(rekey::epochs(&conn).unwrap(), BTreeSet::from([1]));
    let watching = reader(&ring, &path);
    let rows = count(&watching);
    ring.set_epoch(rekey::next_epoch(&ring)).unwrap();
    let mut from = 1;
    loop {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        let next = rekey::rewrite(&conn, from).unwrap();
        conn.execute_batch("COMMIT").unwrap();
        assert_eq!(count(&watching), rows);
        let Some(next) = next else { break };
        from = next;
    }
    drop(watching);
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    assert_eq!(rekey::epochs(&conn).unwrap(), BTreeSet::from([2]));
    check(&conn);
    drop(conn);
    // Another start knows the epoch from the file, and the old key is needed no more.
    let only_new = Ring::new("test.db", |epoch| {
        let mut bytes = [1; 32];
        bytes[..4].copy_from_slice(&epoch.to_be_bytes());
        (epoch == 2).then_some(bytes)
    });
    let conn = writer(&only_new, &path);
    assert_eq!(only_new.epoch(), 2);
    add(&conn, 1);
    assert_eq!(count(&conn), rows + 1);
    check(&conn);
}

#[test]
fn a_plain_file_of_an_earlier_build_is_sealed_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT NOT NULL); PRAGMA user_version=7;")
        .unwrap();
    add(&old, 300);
    // As a kill leaves it: rows in the log only, and pieces of an earlier attempt.
    let crashed = dir.path().join("crashed");
    let path = crate::common::crash_copy(&path, &crashed);
    drop(old);
    for junk in [".sealing", ".sealing-wal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(junk);
        fs::write(&name, b"half a page").unwrap();
    }
    assert!(fs::metadata(log_of(&path)).unwrap().len() > 0);
    assert_eq!(Form::of(&path).unwrap(), Form::Plain);
    let ring = ring(3);
    assert!(store::convert(&ring, &path).unwrap());
    assert!(!store::convert(&ring, &path).unwrap());
    let conn = writer(&ring, &path);
    assert_eq!(count(&conn), 300);
    assert_eq!(
        conn.query_row("PRAGMA user_version", [], |r| r.get::<_, i64>(0))
            .unwrap(),
        7
    );
    check(&conn);
    add(&conn, 1);
    no_plain_text(&crashed);
    let mode: String = conn.query_row("PRAGMA journal_mode", [], |r| r.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[test]
fn a_plain_file_that_is_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT NOT NULL); BEGIN; SELECT * FROM note;")
        .unwrap();
    let ring = ring(3);
    assert!(store::convert(&ring, &path).is_err());
    old.execute_batch("COMMIT").unwrap();
    add(&old, 1);
    assert_eq!(Form::of(&path).unwrap(), Form::Plain);
}

#[test]
fn files_that_would_hold_plain_pages_cannot_be_opened() {
    let (_dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    add(&conn, 2000);
    // Back to a rollback journal, or to temporary files: SQLite asks for a file that the layer does not open.
    assert!(conn.execute_batch("PRAGMA journal_mode=DELETE").is_err());
    conn.execute_batch("PRAGMA temp_store=FILE; PRAGMA temp.cache_size=10")
        .unwrap();
    assert!(conn.execute_batch("CREATE TEMP TABLE t AS SELECT * FROM note").is_err());
    assert_eq!(count(&conn), 2000);
}
