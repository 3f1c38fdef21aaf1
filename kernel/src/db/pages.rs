//! Tenant files are sealed: where their keys come from, how a file is opened, how a tenant's pages get a new key.

use crate::{Error, Result, TenantId, secret::Root, vault::Vault};
use medtech_pages::{Form, Refusal, Refused, Ring, Standing, rekey, store, take_refused};
use rusqlite::{Connection, OpenFlags, ffi};
use std::{fmt, fs, path::Path, sync::Arc};

type Source = dyn Fn(TenantId, u32) -> Option<[u8; 32]> + Send + Sync;

/// Gives the 256-bit key of a tenant's pages in an epoch: always the same one, or nothing when there is none (any more).
#[derive(Clone)]
pub struct PageKeys(Arc<Source>);

impl PageKeys {
    #[must_use]
    pub fn new(source: impl Fn(TenantId, u32) -> Option<[u8; 32]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// The keys that a vault holds: of a tenant, once it has been loaded.
    #[must_use]
    pub fn of_vault(vault: &Vault) -> Self {
        let vault = vault.clone();
        Self::new(move |tenant, epoch| vault.page_key(tenant, epoch).ok())
    }

    /// None: for PostgreSQL, which has no pages of ours.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|_, _| None)
    }

    /// Keys derived from the root key.
    #[must_use]
    pub fn of(root: &Root) -> Self {
        let root = root.clone();
        Self::new(move |tenant, epoch| Some(root.derive(&format!("sqlite pages {epoch}"), tenant)))
    }

    pub(crate) fn ring(&self, tenant: TenantId, file: &str) -> Ring {
        let source = self.0.clone();
        Ring::new(file, move |epoch| source(tenant, epoch))
    }
}

impl fmt::Debug for PageKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageKeys(..)")
    }
}

/// What a rotation of a tenant's page keys did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekeyed {
    /// The epoch in which pages are sealed now.
    pub epoch: u32,
    /// Nothing of an older epoch is left in the database or its log. `false`: a reader kept the log from being emptied, or
    /// another process wrote with the old key; asking again finishes the work.
    pub complete: bool,
}

pub(crate) const SYSTEM_FILE: &str = "system.db";

pub(crate) fn file_name(tenant: TenantId) -> String {
    if tenant == TenantId::SYSTEM {
        SYSTEM_FILE.to_owned()
    } else {
        format!("tenant-{tenant}.db")
    }
}

/// What the system's file says (`user_version`) while plain files of tenants may stand beside it.
const UNFINISHED: i64 = 1;

/// Seals the system's plain file of an earlier build, and notes in it that those of tenants are to follow: their keys are
/// read from it.
pub(crate) fn seal_system(dir: &Path, keys: &PageKeys) -> Result<()> {
    let system = dir.join(SYSTEM_FILE);
    if Form::of(&system).map_err(|e| Error::internal("db.directory", e))? != Form::Plain {
        return Ok(());
    }
    let plain = Connection::open(&system).map_err(sql_page_error)?;
    plain
        .pragma_update(None, "user_version", UNFINISHED)
        .map_err(sql_page_error)?;
    drop(plain);
    seal_plain_file(&system, &keys.ring(TenantId::SYSTEM, SYSTEM_FILE))
}

/// Seals the plain files of tenants, where the system's file says that there may be some.
pub(crate) fn seal_plain_files(dir: &Path, keys: &PageKeys) -> Result<()> {
    let failed = |e| Error::internal("db.directory", e);
    let ring = keys.ring(TenantId::SYSTEM, SYSTEM_FILE);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let system = store::open(&ring, &dir.join(SYSTEM_FILE), flags).map_err(page_error)?;
    let says: i64 = system
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(sql_page_error)?;
    if says != UNFINISHED {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let tenant = name.strip_prefix("tenant-").and_then(|n| n.strip_suffix(".db"));
        if let Some(tenant) = tenant.and_then(|n| n.parse().ok()) {
            seal_plain_file(&path, &keys.ring(TenantId::from_number(tenant), name))?;
        }
    }
    system.pragma_update(None, "user_version", 0).map_err(sql_page_error)
}

fn seal_plain_file(path: &Path, ring: &Ring) -> Result<()> {
    if store::convert(ring, path).map_err(page_error)? {
        tracing::info!(
            file = ring.name(),
            "the database of an earlier version is encrypted now"
        );
    }
    Ok(())
}

/// The writing connection; the file is made where there is none and none was ever seen. `stood` is where it was last seen to
/// stand. A file of an earlier build, without a seal, gets one once: `sealed_before` may look whether that has been.
pub(crate) fn open_writer(
    ring: &Ring,
    path: &Path,
    stood: Option<Standing>,
    sealed_before: impl FnOnce(&Connection) -> rusqlite::Result<bool>,
) -> Result<Connection> {
    let failed = |e| Error::internal("db.directory", e);
    let gone = |what| stale(format!("{}: {what} is gone", ring.name()));
    let seen = stood.is_some();
    if let Some(stood) = stood {
        ring.expect(stood);
    }
    if seen && !path.try_exists().map_err(failed)? {
        return Err(gone("the file"));
    }
    store::create(ring, path).map_err(page_error)?;
    // A plain file is told as one when it is opened.
    if !store::has_seal(path).map_err(failed)? && Form::of(path).map_err(failed)? == Form::Sealed {
        let agree = |conn: &Connection| Ok(!seen && !sealed_before(conn)?);
        if !store::adopt(ring, path, 1, agree).map_err(page_error)? {
            return Err(gone("the seal"));
        }
        tracing::info!(
            file = ring.name(),
            "older pages of this database will be told from its newest from now on"
        );
    }
    store::open(ring, path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(page_error)
}

pub(crate) fn open_reader(ring: &Ring, path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    store::open(ring, path, flags).map_err(page_error)
}

/// Takes the log in and empties it; `false` when a reader kept it from that.
pub(crate) fn empty_log(ring: &Ring, path: &Path) -> Result<(Connection, bool)> {
    let conn = store::open(ring, path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(page_error)?;
    let busy = conn
        .execute_batch("PRAGMA busy_timeout=2000")
        .and_then(|()| conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, bool>(0)))
        .map_err(sql_page_error)?;
    Ok((conn, !busy))
}

/// Takes the log in and empties it, then looks whether any page of an older epoch is left.
pub(crate) fn finish_rekey(ring: &Ring, path: &Path) -> Result<Rekeyed> {
    let (conn, emptied) = empty_log(ring, path)?;
    let epoch = ring.epoch();
    let only = rekey::epochs(&conn)
        .map_err(page_error)?
        .into_iter()
        .all(|e| e == epoch);
    let seal = medtech_pages::freshness::standing(path).map_err(|e| Error::internal("db.seal", e))?;
    Ok(Rekeyed {
        epoch,
        complete: only && emptied && seal.is_some_and(|s| s.epoch == epoch),
    })
}

fn refused(refused: Refused) -> Error {
    match refused.why {
        Refusal::Stale | Refusal::SealMissing => stale(refused.to_string()),
        _ => Error::internal("db.page_refused", refused),
    }
}

/// Authentic, and not the newest. Nothing of the file is used until an operator has looked.
pub(crate) fn stale(what: String) -> Error {
    let mend = "put the newest files back; or, where they were restored from a backup on purpose, stop the server and run \
                `medtech keys accept-restored`";
    Error::internal("db.page_stale", format!("{what}; to mend it: {mend}"))
}

pub(crate) fn page_error(error: store::Error) -> Error {
    match error {
        store::Error::Refused(r) => refused(r),
        store::Error::Sqlite(e) => sql_page_error(e),
        store::Error::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => disk_full(),
        other => Error::internal("db.file", other),
    }
}

pub(crate) fn disk_full() -> Error {
    Error::unavailable("db.disk_full", "The disk is full. Nothing was saved.")
}

/// An error of SQLite; where a page was refused on this thread, that one.
pub(crate) fn sql_page_error(error: rusqlite::Error) -> Error {
    let found = take_refused();
    match (error.sqlite_error().map(|e| e.extended_code), found) {
        (Some(ffi::SQLITE_IOERR_DATA | ffi::SQLITE_CANTOPEN), Some(r)) => refused(r),
        (Some(ffi::SQLITE_IOERR_DATA | ffi::SQLITE_NOTADB), _) => Error::internal("db.page_refused", error.to_string()),
        _ => Error::internal("db.sqlite", error.to_string()),
    }
}
