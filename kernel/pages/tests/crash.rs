//! Killed processes and lost power: nothing acknowledged is lost, nothing half written is seen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test panics"
)]

use crate::common::{
    Dice, MARKER, add, check, contains, count, crash_copy, files, fresh, log_of, ring, seal_of, writer,
};
use medtech_pages::{Form, store};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const SECTOR: usize = 512;

/// The child: commits rows, one transaction after another, and says each number once it is durable.
#[test]
#[ignore = "runs only as the child of the test below"]
fn writes_until_it_is_killed() {
    let Ok(path) = std::env::var("MEDTECH_PAGES_CHILD") else {
        return;
    };
    let conn = writer(&ring(1), Path::new(&path));
    conn.execute_batch("PRAGMA wal_autocheckpoint=40; PRAGMA cache_size=20")
        .unwrap();
    let mut next: i64 = conn
        .query_row("SELECT COALESCE(MAX(id), 0) FROM note", [], |r| r.get(0))
        .unwrap();
    let mut out = std::io::stdout().lock();
    loop {
        next += 1;
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        conn.execute(
            "INSERT INTO note (id, body) VALUES (?1, ?2)",
            (next, "x".repeat(next as usize * 37 % 3000)),
        )
        .unwrap();
        if next % 9 == 0 {
            // Larger than the cache: pages spill into the log before the commit.
            conn.execute("UPDATE note SET body = body || '.' WHERE id > ?1", [next - 60])
                .unwrap();
        }
        conn.execute_batch("COMMIT").unwrap();
        writeln!(out, "ack {next}").unwrap();
        out.flush().unwrap();
    }
}

/// `MEDTECH_KILL_ROUNDS=150` for the long run.
#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let rounds = std::env::var("MEDTECH_KILL_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20);
    let (_dir, path, ring) = fresh();
    let mut dice = Dice(0x5eed_0003 ^ u64::from(std::process::id()));
    let mut acknowledged = 0_i64;
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "crash::writes_until_it_is_killed",
                "--nocapture",
            ])
            .env("MEDTECH_PAGES_CHILD", &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = 1 + dice.below(60);
        let (mut seen, mut killed) = (0, false);
        let mut killer = Some(child);
        for line in lines.map_while(Result::ok) {
            // The first line of the child follows the harness's own words on the same line.
            let Some((_, number)) = line.split_once("ack ") else {
                continue;
            };
            acknowledged = acknowledged.max(number.parse().unwrap());
            seen += 1;
            if seen == wanted && !killed {
                let mut child = killer.take().unwrap();
                // At some moment within the next commits, not between two.
                let pause = Duration::from_micros(dice.below(3000) as u64);
                std::thread::spawn(move || {
                    let (_keep, wait) = std::sync::mpsc::channel::<()>();
                    let _ = wait.recv_timeout(pause);
                    child.kill().unwrap();
                    child.wait().unwrap();
                });
                killed = true;
            }
        }
        assert!(killed, "round {round}: the child ended by itself after {seen}");
        let conn = writer(&ring, &path);
        let (rows, last): (i64, i64) = conn
            .query_row("SELECT COUNT(*), MAX(id) FROM note", [], |r| Ok((r.get(0)?, r.get(1)?)))
            .unwrap();
        assert!(
            last >= acknowledged,
            "round {round}: {acknowledged} acknowledged, {last} there"
        );
        assert_eq!(rows, last, "round {round}: a hole");
        check(&conn);
    }
    println!("{rounds} rounds, {acknowledged} acknowledged, none lost");
}

/// The child: says that it begins, and seals a plain file.
#[test]
#[ignore = "runs only as the child of the test below"]
fn seals_a_plain_file() {
    let Ok(path) = std::env::var("MEDTECH_PAGES_CHILD") else {
        return;
    };
    println!("begin ");
    store::convert(&ring(1), Path::new(&path)).unwrap();
}

#[test]
fn a_plain_file_survives_a_kill_at_any_moment_of_its_sealing() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain.db");
    let conn = rusqlite::Connection::open(&plain).unwrap();
    conn.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT NOT NULL)")
        .unwrap();
    add(&conn, 6000);
    let mut dice = Dice(0x5eed_0006 ^ u64::from(std::process::id()));
    let (mut before, mut after) = (0, 0);
    for round in 0..12 {
        let path = crash_copy(&plain, &dir.path().join(format!("round {round}")));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "crash::seals_a_plain_file", "--nocapture"])
            .env("MEDTECH_PAGES_CHILD", &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().map_while(Result::ok).any(|l| l.contains("begin ")));
        let (_keep, wait) = std::sync::mpsc::channel::<()>();
        let _ = wait.recv_timeout(Duration::from_millis(dice.below(80) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        match Form::of(&path).unwrap() {
            Form::Plain => before += 1,
            Form::Sealed => after += 1,
            Form::Absent => panic!("round {round}: the file is gone"),
        }
        store::convert(&ring(1), &path).unwrap();
        let sealed = writer(&ring(1), &path);
        assert_eq!(count(&sealed), 6000, "round {round}");
        check(&sealed);
        drop(sealed);
        for file in files(path.parent().unwrap()) {
            assert!(
                !contains(&fs::read(&file).unwrap(), MARKER.as_bytes()),
                "{}",
                file.display()
            );
        }
    }
    println!("{before} killed before the new file had the name, {after} after");
}

#[test]
fn an_unsynced_tail_of_the_log_may_be_cut_zeroed_or_garbled() {
    let (dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    conn.execute_batch("PRAGMA wal_autocheckpoint=0").unwrap();
    for _ in 0..5 {
        add(&conn, 10);
    }
    let before = count(&conn);
    let synced = fs::metadata(log_of(&path)).unwrap().len() as usize;
    add(&conn, 100);
    let after = count(&conn);
    let log = fs::read(log_of(&path)).unwrap();
    assert!(log.len() > synced + 20 * 4120);
    let mut dice = Dice(0x5eed_0004);
    let mut whole = 0;
    for round in 0..120 {
        let copy = crash_copy(&path, &dir.path().join("power"));
        let mut left = log.clone();
        match round % 4 {
            0 => left.truncate(synced + dice.below(log.len() - synced)),
            1 => left[synced..].fill(0),
            _ => {
                // Sectors arrive in any order: some did, some hold zeros or what was there before.
                for sector in left[synced..].chunks_mut(SECTOR) {
                    match dice.below(if round % 4 == 2 { 4 } else { 400 }) {
                        0 => sector.fill(0),
                        1 => sector.iter_mut().for_each(|b| *b = dice.below(256) as u8),
                        _ => {}
                    }
                }
            }
        }
        fs::write(log_of(&copy), left).unwrap();
        let opened = writer(&ring, &copy);
        let rows = count(&opened);
        assert!(rows == before || rows == after, "round {round}: {rows}");
        whole += usize::from(rows == after);
        check(&opened);
        // And work goes on where the log broke off.
        add(&opened, 1);
        drop(opened);
        assert_eq!(count(&writer(&ring, &copy)), rows + 1);
    }
    assert!(whole > 0, "some rounds must have lost nothing, or the dice are wrong");
}

#[test]
fn pages_torn_while_the_log_was_taken_in_are_mended_from_the_log() {
    let (dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    add(&conn, 100);
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_autocheckpoint=0")
        .unwrap();
    let old = fs::read(&path).unwrap();
    conn.execute_batch("UPDATE note SET body = UPPER(body)").unwrap();
    add(&conn, 100);
    let log = fs::read(log_of(&path)).unwrap();
    conn.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    let new = fs::read(&path).unwrap();
    assert!(new.len() > old.len());
    let mut dice = Dice(0x5eed_0005);
    for round in 0..40 {
        let to = dir.path().join("power");
        fs::create_dir_all(&to).unwrap();
        let copy = to.join("torn.db");
        let mut torn = new[..old.len() + dice.below(new.len() - old.len() + 1)].to_vec();
        for (i, sector) in torn.chunks_mut(SECTOR).enumerate() {
            if dice.below(2) == 0 {
                let was = old.get(i * SECTOR..i * SECTOR + sector.len());
                sector.copy_from_slice(was.unwrap_or(&[0; SECTOR][..sector.len()]));
            }
        }
        fs::write(&copy, torn).unwrap();
        fs::write(log_of(&copy), &log).unwrap();
        fs::copy(seal_of(&path), seal_of(&copy)).unwrap();
        let opened = store::open(&ring, &copy, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)
            .unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(count(&opened), 200);
        check(&opened);
    }
}
