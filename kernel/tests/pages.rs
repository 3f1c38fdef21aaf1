//! The door on SQLite: what lies on the disk is sealed, with the right key only, since ever or since this version.

use medtech_kernel::{
    Clock, Db, Error, Migration, Result, TenantId,
    db::{Engine, Location, PageKeys, Script},
    secret::Root,
    testkit::{START, World},
};
use rusqlite::Connection;
use std::{
    fs,
    path::{Path, PathBuf},
};

const MARKER: &str = "Marker-Diabetes-0815";
const NOTES: &[Migration] = &[Migration {
    module: "notes",
    number: 1,
    sql: Script::Both(
        "CREATE TABLE note (tenant BIGINT NOT NULL, id BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (tenant, id))",
    ),
}];
const ADD: &str = "INSERT INTO note (tenant, id, body) VALUES ($1, $2, $3)";
const COUNT: &str = "SELECT COUNT(*) FROM note WHERE tenant = $1";
const OLD: &str = "SELECT body FROM old WHERE tenant = $1 ORDER BY body";

async fn add(db: &Db, tenant: TenantId, id: i64) -> Result<u64> {
    db.write(tenant, move |tx| {
        Box::pin(async move { tx.exec(ADD, &[id.into(), format!("{MARKER} {id}").into()]).await })
    })
    .await
}

async fn count(db: &Db, tenant: TenantId) -> Result<i64> {
    db.query_one(tenant, COUNT, &[]).await?.i64(0)
}

async fn open(dir: &Path, key: u8) -> Result<Db> {
    let keys = PageKeys::of(&Root::from_bytes([key; 32]));
    let all = vec![medtech_kernel::MIGRATIONS, NOTES];
    Db::open(Location::Sqlite(dir.to_owned()), keys, Clock::manual(START), all).await
}

fn io(e: std::io::Error) -> Error {
    Error::internal("test.io", e)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(dir)
        .map_err(io)?
        .map(|e| Ok(e.map_err(io)?.path()))
        .collect()
}

/// The files below `dir` that hold `text`.
fn holding(dir: &Path, text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in files(dir)? {
        let bytes = fs::read(&path).map_err(io)?;
        if bytes.windows(text.len()).any(|w| w == text.as_bytes()) {
            found.push(path);
        }
    }
    Ok(found)
}

#[tokio::test]
async fn nothing_of_a_tenant_or_of_the_system_is_readable_in_the_directory() -> Result<()> {
    let world = World::sqlite(&[NOTES]).await?;
    for id in 0..200 {
        add(&world.ctx.db, world.north.id, id).await?;
    }
    assert_eq!(world.ctx.db.engine(), Engine::Sqlite);
    let dir = world.dir.path().join("db");
    let names: Vec<_> = files(&dir)?
        .iter()
        .filter_map(|p| Some(p.file_name()?.to_str()?.to_owned()))
        .collect();
    for wanted in ["system.db", "tenant-1.db", "tenant-1.db-wal", "tenant-1.db-shm"] {
        assert!(names.iter().any(|n| n == wanted), "{wanted} in {names:?}");
    }
    for text in [MARKER, "North Clinic", "CREATE TABLE"] {
        assert_eq!(holding(&dir, text)?, Vec::<PathBuf>::new(), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn another_root_key_is_refused_and_says_so() -> Result<()> {
    let dir = tempfile::tempdir().map_err(io)?;
    let db = open(dir.path(), 1).await?;
    add(&db, TenantId::from_number(1), 1).await?;
    // While the first one has everything open, its rows still in the log: a wrong key must not cost them.
    let Err(refused) = open(dir.path(), 2).await else {
        return Err(Error::internal("test", "opened with a wrong key"));
    };
    assert_eq!(refused.code, "db.page_refused");
    let said = refused.source.map(|s| s.to_string()).unwrap_or_default();
    assert!(said.contains("system.db") && said.contains("another key"), "{said}");
    assert_eq!(count(&db, TenantId::from_number(1)).await?, 1);
    let again = open(dir.path(), 1).await?;
    assert_eq!(count(&again, TenantId::from_number(1)).await?, 1);
    Ok(())
}

#[tokio::test]
async fn one_tenants_file_in_the_place_of_another_is_refused() -> Result<()> {
    let dir = tempfile::tempdir().map_err(io)?;
    let (one, two) = (TenantId::from_number(1), TenantId::from_number(2));
    let db = open(dir.path(), 1).await?;
    add(&db, one, 1).await?;
    db.close_tenant(one).await?;
    drop(db);
    fs::copy(dir.path().join("tenant-1.db"), dir.path().join("tenant-2.db")).map_err(io)?;
    let db = open(dir.path(), 1).await?;
    assert_eq!(count(&db, two).await.err().map(|e| e.code), Some("db.page_refused"));
    assert_eq!(count(&db, one).await?, 1);
    Ok(())
}

/// A database as the version before encryption left it, still open in its own process.
fn plain(path: &Path, tenant: i64) -> rusqlite::Result<Connection> {
    let conn = Connection::open(path)?;
    conn.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE old (tenant BIGINT NOT NULL, body TEXT NOT NULL)")?;
    conn.execute(
        "INSERT INTO old VALUES (?1, ?2)",
        (tenant, format!("{MARKER} of {tenant}")),
    )?;
    Ok(conn)
}

#[tokio::test]
async fn the_files_of_an_earlier_version_are_sealed_at_the_first_start_and_never_again() -> Result<()> {
    let dir = tempfile::tempdir().map_err(io)?;
    let old = dir.path().join("old");
    let now = dir.path().join("now");
    for d in [&old, &now] {
        fs::create_dir(d).map_err(io)?;
    }
    let sql = |e: rusqlite::Error| Error::internal("test.sql", e);
    let mut open_there = Vec::new();
    for (name, tenant) in [("system.db", 0), ("tenant-1.db", 1), ("tenant-2.db", 2)] {
        open_there.push(plain(&old.join(name), tenant).map_err(sql)?);
    }
    // As a kill leaves them: rows in the logs. A kill between two conversions: one tenant is done, a piece lies about.
    for path in files(&old)? {
        if !path.to_string_lossy().ends_with("-shm") {
            fs::copy(&path, now.join(path.file_name().unwrap_or_default())).map_err(io)?;
        }
    }
    drop(open_there);
    fs::write(now.join("tenant-2.db.sealing"), MARKER).map_err(io)?;
    assert!(!holding(&now, MARKER)?.is_empty());
    let db = open(&now, 1).await?;
    db.seal_plain_files()?;
    for tenant in [0, 1, 2] {
        let rows = db.query(TenantId::from_number(tenant), OLD, &[]).await?;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].text(0)?, format!("{MARKER} of {tenant}"));
    }
    add(&db, TenantId::from_number(1), 1).await?;
    assert_eq!(holding(&now, MARKER)?, Vec::<PathBuf>::new());
    drop(db);
    // From then on a plain file is one that somebody has put there.
    let planted = plain(&now.join("tenant-3.db"), 3).map_err(sql)?;
    drop(planted);
    let db = open(&now, 1).await?;
    db.seal_plain_files()?;
    let refused = count(&db, TenantId::from_number(3)).await.err();
    assert_eq!(refused.as_ref().map(|e| e.code), Some("db.page_refused"));
    assert_eq!(count(&db, TenantId::from_number(1)).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_tenant_gets_a_new_page_key_while_others_read_and_write() -> Result<()> {
    let dir = tempfile::tempdir().map_err(io)?;
    let (one, two) = (TenantId::from_number(1), TenantId::from_number(2));
    let db = open(dir.path(), 1).await?;
    for id in 0..300 {
        add(&db, one, id).await?;
    }
    add(&db, two, 1).await?;
    let traffic = async {
        for id in 300..500 {
            add(&db, one, id).await?;
            assert_eq!(count(&db, one).await?, id + 1);
        }
        Ok::<(), Error>(())
    };
    let (rekeyed, busy) = tokio::join!(db.rekey_tenant(one, None), traffic);
    busy?;
    assert_eq!(rekeyed?.map(|r| r.epoch), Some(2));
    let after = db.rekey_tenant(one, Some(2)).await?.map(|r| (r.epoch, r.complete));
    assert_eq!(after, Some((2, true)));
    assert_eq!(
        db.rekey_tenant(one, Some(1)).await.err().map(|e| e.code),
        Some("db.epoch_past")
    );
    assert_eq!(count(&db, one).await?, 500);
    drop(db);
    // The old key is needed no more, and the neighbour kept its own.
    let root = Root::from_bytes([1; 32]);
    let only_new = PageKeys::new(move |tenant, epoch| {
        (tenant != one || epoch == 2).then(|| root.derive(&format!("sqlite pages {epoch}"), tenant))
    });
    let all = vec![medtech_kernel::MIGRATIONS, NOTES];
    let db = Db::open(
        Location::Sqlite(dir.path().to_owned()),
        only_new,
        Clock::manual(START),
        all,
    )
    .await?;
    assert_eq!((count(&db, one).await?, count(&db, two).await?), (500, 1));
    add(&db, one, 1000).await?;
    Ok(())
}
