//! The door on SQLite: a clinic's files of an earlier time are refused, the others go on, and an operator can put one back.

use medtech_kernel::{
    Clock, Db, Error, Migration, Result, TenantId,
    db::{Location, PageKeys, Script},
    secret::Root,
    testkit::START,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const NOTES: &[Migration] = &[Migration {
    module: "notes",
    number: 1,
    sql: Script::Both(
        "CREATE TABLE note (tenant BIGINT NOT NULL, id BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (tenant, id))",
    ),
}];
const ADD: &str = "INSERT INTO note (tenant, id, body) VALUES ($1, $2, $3)";
const COUNT: &str = "SELECT COUNT(*) FROM note WHERE tenant = $1";

/// Files, and what was in them.
type Copy = Vec<(PathBuf, Vec<u8>)>;

fn io(e: std::io::Error) -> Error {
    Error::internal("test.io", e)
}

/// On a thread of its own, whose readers end with it: as another process.
fn visit<T: Send + 'static>(dir: &Path, work: impl AsyncFnOnce(Db) -> Result<T> + Send + 'static) -> Result<T> {
    let dir = dir.to_owned();
    let visit = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(io)?;
        let outcome = runtime.block_on(async {
            let keys = PageKeys::of(&Root::from_bytes([1; 32]));
            let all = vec![medtech_kernel::MIGRATIONS, NOTES];
            let db = Db::open(Location::Sqlite(dir), keys, Clock::manual(START), all).await?;
            work(db).await
        });
        drop(runtime);
        outcome
    });
    let outcome = visit.join().map_err(|_| Error::internal("test.thread", "panicked"))?;
    // The writers' threads close their files after the door is gone.
    outcome
}

async fn add(db: &Db, tenant: TenantId, ids: std::ops::Range<i64>) -> Result<()> {
    for id in ids {
        db.write(tenant, move |tx| {
            Box::pin(async move { tx.exec(ADD, &[id.into(), "x".repeat(2000).into()]).await })
        })
        .await?;
    }
    Ok(())
}

async fn count(db: &Db, tenant: TenantId) -> Result<i64> {
    db.query_one(tenant, COUNT, &[]).await?.i64(0)
}

fn files(dir: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if file.starts_with(name) && !file.ends_with("-shm") && !file.ends_with("-lock") {
            found.push(path);
        }
    }
    Ok(found)
}

/// What somebody with the disk in hand can copy, and put back: a clinic's files, all of them.
fn take(dir: &Path, name: &str) -> Result<Copy> {
    let read = |path: PathBuf| match fs::read(&path) {
        Ok(bytes) => Some(Ok((path, bytes))),
        // A log goes away when its writer's thread has ended.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => Some(Err(io(e))),
    };
    files(dir, name)?.into_iter().filter_map(read).collect()
}

fn put_back(dir: &Path, name: &str, taken: &[(PathBuf, Vec<u8>)]) -> Result<()> {
    for path in files(dir, name)? {
        match fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
    }
    for (path, bytes) in taken {
        fs::write(path, bytes).map_err(io)?;
    }
    Ok(())
}

fn code<T>(outcome: Result<T>) -> Option<&'static str> {
    outcome.err().map(|e| e.code)
}

const ONE: TenantId = TenantId::from_number(1);
const TWO: TenantId = TenantId::from_number(2);

/// Two clinics, stopped cleanly twice; what lay there at the first stop.
fn two_clinics(dir: &Path) -> Result<(Copy, Copy)> {
    visit(dir, async |db| {
        add(&db, ONE, 0..20).await?;
        add(&db, TWO, 0..20).await?;
        db.settle().await
    })?;
    let old = (take(dir, "tenant-1.db")?, take(dir, "system.db")?);
    visit(dir, async |db| {
        add(&db, ONE, 20..30).await?;
        add(&db, TWO, 20..30).await?;
        db.settle().await
    })?;
    Ok(old)
}

#[test]
fn one_clinics_files_put_back_are_refused_and_the_other_clinic_goes_on() -> Result<()> {
    let dir = tempfile::tempdir().map_err(io)?;
    let (one, _) = two_clinics(dir.path())?;
    put_back(dir.path(), "tenant-1.db", &one)?;
    let said = visit(dir.path(), async |db| {
        let refused = count(&db, ONE).await.err();
        assert_eq!(count(&db, TWO).await?, 30);
        add(&db, TWO, 30..31).await?;
        let said = refused
            .as_ref()
            .and_then(|e| e.source.as_ref())
            .map(ToString::to_string);
        assert_eq!(refused.map(|e| e.code), Some("db.page_stale"));
        Ok(said.unwrap_or_default())
    })?;
    assert!(
        said.contains("tenant-1.db") && said.contains("accept-restored"),
        "{said}"
    );
    // Nor does it help to take away what remembers, or everything.
    for gone in ["tenant-1.db-seal", "tenant-1.db"] {
        fs::remove_file(dir.path().join(gone)).map_err(io)?;
        let refused = visit(dir.path(), async |db| Ok(code(count(&db, ONE).await)))?;
        assert_eq!(refused, Some("db.page_stale"), "{gone}");
    }
    Ok(())
}

#[test]
fn the_systems_file_put_back_is_betrayed_by_every_clinics() -> Result<()> {
    let dir = tempfile::tempdir().map_err(io)?;
    let (one, system) = two_clinics(dir.path())?;
    put_back(dir.path(), "system.db", &system)?;
    put_back(dir.path(), "tenant-1.db", &one)?;
    let refused = visit(dir.path(), async |db| Ok(count(&db, TWO).await.err()))?;
    let said = refused
        .as_ref()
        .and_then(|e| e.source.as_ref())
        .map(ToString::to_string);
    assert_eq!(refused.as_ref().map(|e| e.code), Some("db.page_stale"));
    assert!(said.is_some_and(|s| s.contains("system.db")));
    Ok(())
}

#[test]
fn a_file_restored_from_a_backup_is_accepted_by_an_explicit_step_alone() -> Result<()> {
    let dir = tempfile::tempdir().map_err(io)?;
    let (one, _) = two_clinics(dir.path())?;
    put_back(dir.path(), "tenant-1.db", &one)?;
    visit(dir.path(), async |db| {
        assert_eq!(code(count(&db, ONE).await), Some("db.page_stale"));
        assert!(db.accept_restored(ONE).await?);
        assert_eq!(count(&db, ONE).await?, 20);
        add(&db, ONE, 100..101).await?;
        db.settle().await
    })?;
    visit(dir.path(), async |db| {
        assert_eq!((count(&db, ONE).await?, count(&db, TWO).await?), (21, 30));
        Ok(())
    })?;
    // And from then on the same backup is an old one again.
    put_back(dir.path(), "tenant-1.db", &one)?;
    let refused = visit(dir.path(), async |db| Ok(code(count(&db, ONE).await)))?;
    assert_eq!(refused, Some("db.page_stale"));
    Ok(())
}

#[test]
fn a_database_of_an_earlier_build_gets_its_seal_once() -> Result<()> {
    let dir = tempfile::tempdir().map_err(io)?;
    two_clinics(dir.path())?;
    // As an earlier build left it: no seals, and nobody remembers any.
    let fresh = tempfile::tempdir().map_err(io)?;
    for name in ["system.db", "tenant-1.db"] {
        fs::copy(dir.path().join(name), fresh.path().join(name)).map_err(io)?;
    }
    let refused = visit(fresh.path(), async |_| Ok(()));
    // This one's system file remembers that it was sealed before.
    assert_eq!(code(refused), Some("db.page_stale"));
    fs::remove_file(fresh.path().join("system.db")).map_err(io)?;
    visit(fresh.path(), async |db| {
        assert_eq!(count(&db, ONE).await?, 30);
        db.settle().await
    })?;
    fs::remove_file(fresh.path().join("tenant-1.db-seal")).map_err(io)?;
    let refused = visit(fresh.path(), async |db| Ok(code(count(&db, ONE).await)))?;
    assert_eq!(refused, Some("db.page_stale"));
    Ok(())
}

#[test]
fn a_scrub_names_the_pages_that_are_damaged_before_anybody_reads_them() -> Result<()> {
    let dir = tempfile::tempdir().map_err(io)?;
    two_clinics(dir.path())?;
    let path = dir.path().join("tenant-1.db");
    let mut bytes = fs::read(&path).map_err(io)?;
    let page = bytes.len() / 4096 - 1;
    bytes[page * 4096 + 77] ^= 1;
    fs::write(&path, bytes).map_err(io)?;
    visit(dir.path(), async move |db| {
        let found = db.scrub(ONE, Duration::ZERO, |_, _| {}).await?.unwrap_or_default();
        assert_eq!((found.bad, found.places.len()), (1, 1));
        assert_eq!(found.places[0].0, format!("page {}", page + 1));
        let found = db.scrub(TWO, Duration::ZERO, |_, _| {}).await?.unwrap_or_default();
        assert_eq!(found.bad, 0);
        assert!(found.pages > 10 && found.places.is_empty());
        Ok(())
    })
}

/// A deletion that was killed between the file's end and the register's: it can be asked for again, and harms nobody.
#[test]
fn a_clinic_whose_file_is_gone_already_can_be_erased_to_the_end() -> Result<()> {
    let dir = tempfile::tempdir().map_err(io)?;
    two_clinics(dir.path())?;
    put_back(dir.path(), "tenant-1.db", &[])?;
    visit(dir.path(), async |db| {
        for _ in 0..2 {
            assert!(db.erase_tenant(ONE).await?.is_empty());
            let refused = count(&db, ONE).await.err();
            assert!(refused.is_some_and(|e| e.code == "db.tenant_erased" && e.is_refused_file()));
        }
        assert!(!db.erase_tenant(TWO).await?.is_empty());
        assert!(db.erase_tenant(TWO).await?.is_empty());
        db.anchor().await?;
        db.settle().await
    })?;
    // Nor is an empty file made in the place of either later.
    visit(dir.path(), async |db| {
        for tenant in [ONE, TWO] {
            assert_eq!(code(count(&db, tenant).await), Some("db.tenant_erased"));
            assert!(db.erase_tenant(tenant).await?.is_empty());
        }
        Ok(())
    })?;
    assert!(files(dir.path(), "tenant-")?.is_empty());
    Ok(())
}

/// SQLite ends the whole transaction when a page cannot be read. What the group did before is lost and said so; what comes
/// after is not committed behind the back of whoever was told that it failed.
#[test]
fn a_damaged_page_in_a_group_leaves_nobody_told_the_opposite_of_what_is() -> Result<()> {
    let dir = tempfile::tempdir().map_err(io)?;
    two_clinics(dir.path())?;
    let path = dir.path().join("tenant-1.db");
    let mut bytes = fs::read(&path).map_err(io)?;
    // In the middle: rows come and go at the end.
    let page = bytes.len() / 4096 - 8;
    bytes[page * 4096 + 77] ^= 1;
    fs::write(&path, bytes).map_err(io)?;
    visit(dir.path(), async |db| {
        let (begun, started) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel();
        // Holds the writer until the others wait in line, so that they are one group.
        let holder = tokio::spawn({
            let db = db.clone();
            async move {
                db.write(ONE, move |_| {
                    Box::pin(async move {
                        let _ = begun.send(());
                        let _ = wait.recv();
                        Ok(())
                    })
                })
                .await
            }
        });
        while started.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        let hooks = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let put = |id: i64| {
            let hooks = hooks.clone();
            db.write(ONE, move |tx| {
                Box::pin(async move {
                    tx.after_commit(move || hooks.lock().unwrap().push(id));
                    tx.exec(ADD, &[id.into(), "x".into()]).await
                })
            })
        };
        let read = db.write(ONE, |tx| {
            Box::pin(async move {
                tx.query("SELECT SUM(LENGTH(body)) FROM note WHERE tenant = $1", &[])
                    .await
            })
        });
        let (before, damaged, after, later, _) = tokio::join!(biased; put(-1), read, put(-2), put(-3), async {
            let _ = go.send(());
        });
        holder.await.map_err(|e| Error::internal("test.task", e))??;
        let told = (code(damaged), before.is_err(), after.is_ok(), later.is_ok());
        for (id, told) in [(-1, before), (-2, after), (-3, later)] {
            let there = "SELECT COUNT(*) FROM note WHERE tenant = $1 AND id = $2";
            let there = db.query_one(ONE, there, &[id.into()]).await?.i64(0)? == 1;
            assert_eq!(there, told.is_ok(), "{id}: {told:?}");
            assert_eq!(there, hooks.lock().unwrap().contains(&id), "{id}");
        }
        // Whose doing it was is told why; what was done before it goes with it; what comes after is a transaction of its own.
        assert_eq!(told, (Some("db.page_refused"), true, true, true));
        add(&db, ONE, -9..-8).await
    })
}
