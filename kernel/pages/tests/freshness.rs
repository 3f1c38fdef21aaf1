//! What is authentic and old: pages, files and logs put back, and crashes that must not be taken for that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed test panics"
)]

use crate::common::{Dice, Taken, add, check, count, fresh, log_of, ring, seal_of, writer};
use medtech_pages::{Refusal, Ring, Standing, freshness, rekey, scrub::Scrub, store};
use rusqlite::{Connection, OpenFlags};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

type Rows = Vec<(i64, String)>;

const PAGE: usize = 4096;
const FRAME: usize = 4120;
const SECTOR: usize = 512;

/// Everything in a file, and whether its pages and indexes fit together.
fn content(ring: &Ring, path: &Path) -> store::Result<Vec<(i64, String)>> {
    let conn = store::open(ring, path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut rows = conn.prepare("SELECT id, body FROM note NOT INDEXED ORDER BY id")?;
    let found = rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
    let found = found.collect::<rusqlite::Result<_>>()?;
    drop(rows);
    let sound: String = conn.query_row("PRAGMA integrity_check", [], |r| r.get(0))?;
    if sound == "ok" {
        Ok(found)
    } else {
        Err(store::Error::Unusable("not sound"))
    }
}

fn stale(outcome: store::Result<Vec<(i64, String)>>, what: &str) {
    match outcome {
        Err(store::Error::Refused(r)) if r.why == Refusal::Stale => {}
        other => panic!("{what}: {:?}", other.map(|rows| rows.len())),
    }
}

fn stand(path: &Path) -> Standing {
    freshness::standing(path).unwrap().unwrap()
}

fn command(conn: &Connection, sql: &str) {
    conn.execute_batch(sql).unwrap();
}

/// A file whose every page was written anew: as it was, and as it is.
fn twice() -> (tempfile::TempDir, PathBuf, Ring, Taken, Taken) {
    let (dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    add(&conn, 300);
    command(&conn, "UPDATE note SET body = REPLACE(body, 'plain', 'older')");
    command(&conn, "UPDATE note SET body = REPLACE(body, 'older', 'plain')");
    command(&conn, "UPDATE note SET body = REPLACE(body, 'plain', 'older')");
    drop(conn);
    let old = Taken::of(&path);
    let conn = writer(&ring, &path);
    command(&conn, "UPDATE note SET body = REPLACE(body, 'older', 'plain')");
    drop(conn);
    let new = Taken::of(&path);
    assert_eq!(old.main.len(), new.main.len());
    assert!(old.log.is_none() && new.log.is_none());
    (dir, path, ring, old, new)
}

#[test]
fn an_older_version_of_a_page_is_refused_wherever_it_lies() {
    let (_dir, path, ring, old, new) = twice();
    let mut refusals = 0;
    for page in 0..new.main.len() / PAGE {
        let span = page * PAGE..(page + 1) * PAGE;
        if old.main[span.clone()] == new.main[span.clone()] {
            continue;
        }
        let mut mixed = new.clone();
        mixed.main[span.clone()].copy_from_slice(&old.main[span]);
        mixed.put(&path);
        // Every page of this file is reached by the check of its rows and indexes.
        match content(&ring, &path) {
            Err(store::Error::Refused(r)) => assert_eq!(r.why, Refusal::Stale, "page {}", page + 1),
            Err(store::Error::Unusable(_)) => {}
            other => panic!("page {}: {:?}", page + 1, other.map(|r| r.len())),
        }
        refusals += 1;
    }
    assert!(refusals > 30, "{refusals}");
    new.put(&path);
    assert_eq!(content(&ring, &path).unwrap().len(), 300);
}

#[test]
fn an_older_page_put_back_under_a_running_server_is_refused() {
    let (_dir, path, ring, old, new) = twice();
    let conn = store::open(&ring, &path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    assert_eq!(count(&conn), 300);
    let changed: Vec<_> = (0..new.main.len() / PAGE)
        .filter(|p| old.main[p * PAGE..(p + 1) * PAGE] != new.main[p * PAGE..(p + 1) * PAGE])
        .collect();
    let mut mixed = new.main.clone();
    for page in &changed {
        mixed[page * PAGE..(page + 1) * PAGE].copy_from_slice(&old.main[page * PAGE..(page + 1) * PAGE]);
    }
    fs::write(&path, mixed).unwrap();
    let mut scrub = Scrub::begin(&ring, &path).unwrap();
    let found = std::iter::repeat_with(|| scrub.step(7)).flatten().next().unwrap();
    assert_eq!(found.bad as usize, changed.len());
    assert!(found.places.iter().all(|(_, why)| *why == Refusal::Stale));
    let other = store::open(&ring, &path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let failed = other.query_row("SELECT SUM(LENGTH(body)) FROM note NOT INDEXED", [], |r| {
        r.get::<_, i64>(0)
    });
    let Err(store::Error::Refused(refused)) = failed.map_err(store::Error::from) else {
        panic!("read")
    };
    assert_eq!(refused.why, Refusal::Stale);
    fs::write(&path, &new.main).unwrap();
    let mut scrub = Scrub::begin(&ring, &path).unwrap();
    let found = scrub.step(u32::MAX).unwrap();
    assert_eq!((found.bad, found.pages as usize), (0, new.main.len() / PAGE));
}

#[test]
fn an_older_file_an_older_seal_and_a_cut_file_are_refused() {
    let (_dir, path, ring, old, new) = twice();
    for (what, main, seal) in [
        ("older file", &old.main, &new.seal),
        ("older seal", &new.main, &old.seal),
    ] {
        let mixed = Taken {
            main: main.clone(),
            seal: seal.clone(),
            log: None,
        };
        mixed.put(&path);
        stale(content(&ring, &path), what);
    }
    for pages in [0, 1, new.main.len() / PAGE - 1, new.main.len() / PAGE + 1] {
        let mut cut = new.clone();
        cut.main.resize(pages * PAGE, 0);
        cut.put(&path);
        stale(content(&ring, &path), &format!("{pages} pages"));
    }
    new.put(&path);
    fs::remove_file(seal_of(&path)).unwrap();
    match content(&ring, &path) {
        Err(store::Error::Refused(r)) => assert_eq!(r.why, Refusal::SealMissing),
        other => panic!("{:?}", other.map(|r| r.len())),
    }
    new.put(&path);
    assert_eq!(content(&ring, &path).unwrap().len(), 300);
}

#[test]
fn everything_put_back_together_is_refused_by_who_remembers_where_the_file_stood() {
    let (_dir, path, ring, old, new) = twice();
    let conn = store::open(&ring, &path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let stood = stand(&path);
    drop(conn);
    old.put(&path);
    let witness = self::ring(1);
    witness.expect(stood.clone());
    stale(content(&witness, &path), "everything older");
    new.put(&path);
    assert_eq!(content(&witness, &path).unwrap().len(), 300);
    // What an operator puts back is taken in by an explicit step, and stands above what was remembered from then on.
    old.put(&path);
    stale(content(&witness, &path), "not accepted yet");
    assert!(!store::adopt(&witness, &path, stood.generation + 1, |_| Ok(false)).unwrap());
    stale(content(&witness, &path), "not agreed to");
    assert!(store::adopt(&witness, &path, stood.generation + 1, |_| Ok(true)).unwrap());
    assert!(
        content(&witness, &path)
            .unwrap()
            .iter()
            .all(|(_, b)| b.contains("older text"))
    );
}

#[test]
fn a_log_cut_before_a_remembered_commit_or_of_an_earlier_life_is_refused() {
    let (_dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    command(&conn, "PRAGMA wal_autocheckpoint=0");
    add(&conn, 20);
    let first_life = Taken::of(&path);
    command(&conn, "PRAGMA wal_checkpoint(TRUNCATE)");
    let (mut ends, mut stood): (Vec<usize>, Vec<Standing>) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        add(&conn, 10);
        ends.push(fs::metadata(log_of(&path)).unwrap().len() as usize);
        stood.push(stand(&path));
    }
    assert_eq!(
        stood[5].log.as_ref().map(|p| 32 + p.frame as usize * FRAME),
        Some(ends[5])
    );
    let now = Taken::of(&path);
    drop(conn);
    for (remembered, standing) in stood.iter().enumerate() {
        let witness = self::ring(1);
        witness.expect(standing.clone());
        for cut in 0..=6 {
            let mut less = now.clone();
            less.log
                .as_mut()
                .unwrap()
                .truncate(if cut == 0 { 0 } else { ends[cut - 1] });
            less.put(&path);
            let what = format!("{remembered} remembered, {cut} left");
            if cut > remembered {
                assert_eq!(content(&witness, &path).unwrap().len(), 20 + cut * 10, "{what}");
            } else {
                stale(content(&witness, &path), &what);
            }
        }
        // Damage before the remembered commit ends the log for SQLite as well.
        let mut damaged = now.clone();
        let log = damaged.log.as_mut().unwrap();
        log.truncate(ends[remembered]);
        let at = log.len() - 100;
        log[at] ^= 1;
        damaged.put(&path);
        stale(content(&witness, &path), &format!("{remembered} damaged"));
    }
    // The log before this one is known to have ended: it is taken for none, and so loses what is remembered.
    let mut earlier = now.clone();
    earlier.log.clone_from(&first_life.log);
    earlier.put(&path);
    let witness = self::ring(1);
    witness.expect(stood[0].clone());
    stale(content(&witness, &path), "the log before this one");
    now.put(&path);
    let conn = store::open(&ring, &path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    assert_eq!(count(&conn), 80);
    command(&conn, "PRAGMA wal_checkpoint(TRUNCATE)");
    add(&conn, 1);
    let mut later = Taken::of(&path);
    drop(conn);
    later.log = first_life.log;
    later.put(&path);
    stale(content(&ring, &path), "the log of an earlier life");
    assert!(log_of(&path).exists());
}

/// States of a file as a kill leaves them, through statements, checkpoints, new logs, growth and vacuum.
fn history(ring: &Ring, path: &Path, dice: &mut Dice, steps: usize) -> Vec<(Taken, Rows, Standing)> {
    let mut states = Vec::new();
    let mut conn = writer(ring, path);
    command(&conn, "PRAGMA wal_autocheckpoint=12; PRAGMA cache_size=10");
    let mut idle = None;
    for step in 0..steps {
        match dice.below(10) {
            0 => command(&conn, "PRAGMA wal_checkpoint(TRUNCATE)"),
            1 => command(&conn, "PRAGMA wal_checkpoint(PASSIVE)"),
            2 => command(&conn, "DELETE FROM note WHERE id % 3 = 1; VACUUM"),
            3 => {
                command(&conn, "BEGIN IMMEDIATE; UPDATE note SET body = body || '!'; ROLLBACK");
            }
            4 => {
                // Closed and opened: the log is deleted, unless a reader stays.
                drop(idle.take());
                drop(conn);
                conn = writer(ring, path);
                command(&conn, "PRAGMA wal_autocheckpoint=12; PRAGMA cache_size=10");
            }
            5 => {
                // A reader that keeps the log from being taken in whole.
                let reader = crate::common::reader(ring, path);
                command(&reader, "BEGIN");
                let _ = count(&reader);
                idle = Some(reader);
            }
            6 => command(&conn, "UPDATE note SET body = body || '.' WHERE id % 4 = 2"),
            _ => add(&conn, 1 + dice.below(12)),
        }
        command(&conn, &format!("INSERT INTO note (body) VALUES ('step {step}')"));
        let mut rows = conn
            .prepare("SELECT id, body FROM note NOT INDEXED ORDER BY id")
            .unwrap();
        let rows = rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
        let rows = rows.collect::<rusqlite::Result<_>>().unwrap();
        states.push((Taken::of(path), rows, stand(path)));
    }
    states
}

fn mixed(a: &[u8], b: &[u8], piece: usize, dice: &mut Dice) -> Vec<u8> {
    let mut out = b.to_vec();
    for (i, to) in out.chunks_mut(piece).enumerate() {
        if dice.below(2) == 0
            && let Some(from) = a.get(i * piece..i * piece + to.len())
        {
            to.copy_from_slice(from);
        }
    }
    out
}

/// `MEDTECH_FRESH_ROUNDS` for the long run.
fn rounds(few: u64) -> u64 {
    let wanted = std::env::var("MEDTECH_FRESH_ROUNDS").ok();
    wanted.and_then(|n| n.parse().ok()).unwrap_or(few)
}

#[test]
fn a_kill_at_any_moment_refuses_nothing_and_loses_nothing() {
    for seed in 0..rounds(3) {
        let (dir, path, ring) = fresh();
        let mut dice = Dice(0x5eed_0100 + seed);
        let states = history(&ring, &path, &mut dice, 40);
        let copy = dir.path().join("after the crash.db");
        for (i, (state, rows, stood)) in states.iter().enumerate() {
            state.put(&copy);
            let witness = self::ring(1);
            witness.expect(stood.clone());
            let found = content(&witness, &copy).unwrap_or_else(|e| panic!("seed {seed}, step {i}: {e}"));
            assert_eq!(found, *rows, "seed {seed}, step {i}");
        }
    }
}

#[test]
fn a_power_cut_while_a_log_is_taken_in_or_begun_anew_refuses_nothing() {
    for seed in 0..rounds(6) {
        let (dir, path, ring) = fresh();
        let mut dice = Dice(0x5eed_0200 + seed);
        let conn = writer(&ring, &path);
        command(&conn, "PRAGMA wal_autocheckpoint=0");
        add(&conn, 50 + dice.below(100));
        command(&conn, "PRAGMA wal_checkpoint(TRUNCATE)");
        add(&conn, 1 + dice.below(100));
        command(&conn, "UPDATE note SET body = body || 'x' WHERE id % 3 = 0");
        if dice.below(2) == 0 {
            command(&conn, "DELETE FROM note WHERE id % 2 = 0; VACUUM");
        }
        let (full, rows) = (Taken::of(&path), count(&conn));
        command(&conn, "PRAGMA wal_checkpoint(PASSIVE)");
        let taken_in = Taken::of(&path);
        assert!(taken_in.seal.starts_with(&full.seal));
        let emptied = match dice.below(3) {
            0 => {
                command(&conn, "PRAGMA wal_checkpoint(TRUNCATE)");
                Taken::of(&path)
            }
            _ => {
                add(&conn, 1);
                Taken::of(&path)
            }
        };
        let after = count(&conn);
        assert!(emptied.seal.len() > full.seal.len() && emptied.seal.starts_with(&full.seal));
        let copy = dir.path().join("after the cut.db");
        for round in 0..30 {
            // While pages are written: any of their sectors, the record not there or torn, the log whole.
            let tail = &emptied.seal[full.seal.len()..];
            let mut main = mixed(&full.main, &taken_in.main, SECTOR, &mut dice);
            if full.main.len() > main.len() && dice.below(2) == 0 {
                main.extend_from_slice(&full.main[main.len()..]);
            }
            let mut seal = full.seal.clone();
            seal.extend_from_slice(&tail[..dice.below(tail.len())]);
            let log = full.log.clone();
            Taken { main, seal, log }.put(&copy);
            assert_eq!(count(&writer(&ring, &copy)), rows, "seed {seed}, round {round}");
            // Once the record is durable: the log as it was, emptied, or with a beginning and no synced commit.
            let mut lost = emptied.clone();
            lost.log = match round % 3 {
                0 => full.log.clone(),
                1 => emptied.log.clone(),
                _ => emptied.log.clone().map(|log| log[..log.len().min(32)].to_vec()),
            };
            lost.put(&copy);
            let opened = writer(&ring, &copy);
            let found = count(&opened);
            assert!(
                found == rows || (round % 3 == 1 && found == after),
                "seed {seed}, round {round}: {found}"
            );
            check(&opened);
            add(&opened, 1);
            drop(opened);
            assert_eq!(count(&writer(&ring, &copy)), found + 1);
        }
    }
}

#[test]
fn whatever_is_put_back_from_any_earlier_moment_is_refused_or_changes_nothing() {
    let mut outcomes = BTreeMap::new();
    for seed in 0..rounds(2) {
        let (dir, path, ring) = fresh();
        let mut dice = Dice(0x5eed_0300 + seed);
        let states = history(&ring, &path, &mut dice, 40);
        let (now, rows, stood) = states.last().unwrap();
        let witness = self::ring(1);
        witness.expect(stood.clone());
        let copy = dir.path().join("forged.db");
        for round in 0..80 {
            let old = |dice: &mut Dice| &states[dice.below(states.len())].0;
            let mut forged = now.clone();
            let parts = 1 + dice.below(31);
            if parts & 1 != 0 {
                forged.main.clone_from(&old(&mut dice).main);
            }
            if parts & 2 != 0 {
                forged.seal.clone_from(&old(&mut dice).seal);
            }
            if parts & 4 != 0 {
                forged.log.clone_from(&old(&mut dice).log);
            }
            if parts & 8 != 0 {
                forged.main = mixed(&old(&mut dice).main, &forged.main, PAGE, &mut dice);
            }
            if let Some(log) = forged.log.as_mut().filter(|l| parts & 16 != 0 && l.len() > 32) {
                let frames = (log.len() - 32) / FRAME;
                log.truncate(32 + dice.below(frames + 1) * FRAME);
            }
            forged.put(&copy);
            let outcome = match content(&witness, &copy) {
                Ok(found) => {
                    assert_eq!(
                        found, *rows,
                        "seed {seed}, round {round}, parts {parts}: an older state was accepted"
                    );
                    "nothing changed".to_owned()
                }
                Err(store::Error::Refused(r)) => format!("{:?}", r.why),
                Err(_) => "SQLite".to_owned(),
            };
            *outcomes.entry(outcome).or_insert(0) += 1;
        }
    }
    println!("{outcomes:?}");
    assert!(outcomes["Stale"] > 60, "{outcomes:?}");
}

#[test]
fn records_are_gathered_and_a_new_key_needs_the_old_one_no_more() {
    let (_dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    let mut longest = 0;
    for _ in 0..300 {
        add(&conn, 3);
        command(
            &conn,
            "UPDATE note SET body = body || '.' WHERE id < 40; PRAGMA wal_checkpoint(TRUNCATE)",
        );
        longest = longest.max(fs::metadata(seal_of(&path)).unwrap().len());
    }
    let pages = fs::metadata(&path).unwrap().len() / PAGE as u64;
    assert!(longest < 3 * 20 * pages + 80_000, "{longest} bytes for {pages} pages");
    ring.set_epoch(rekey::next_epoch(&ring)).unwrap();
    let mut next = Some(1);
    while let Some(from) = next {
        next = rekey::rewrite(&conn, from).unwrap();
    }
    command(&conn, "PRAGMA wal_checkpoint(TRUNCATE)");
    assert_eq!(stand(&path).epoch, 2);
    drop(conn);
    let only_new = Ring::new("test.db", |epoch| {
        let mut bytes = [1; 32];
        bytes[..4].copy_from_slice(&epoch.to_be_bytes());
        (epoch == 2).then_some(bytes)
    });
    assert_eq!(count(&writer(&only_new, &path)), 900);
}

#[test]
fn a_number_of_the_world_outside_is_remembered_and_only_grows() {
    let (_dir, path, ring) = fresh();
    let conn = writer(&ring, &path);
    ring.remember(7);
    freshness::remember_now(&path).unwrap();
    ring.remember(3);
    add(&conn, 1);
    drop(conn);
    let again = self::ring(1);
    let conn = writer(&again, &path);
    assert_eq!(stand(&path).outside, 7);
    drop(conn);
}
