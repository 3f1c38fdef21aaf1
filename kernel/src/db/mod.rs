//! The one door to storage: one SQL text, two engines.
//!
//! * **SQLite**: a sealed file for each tenant ([`PageKeys`]); writes on that file's writer thread in group commits ([`sqlite`]), reads inline
//!   on the caller's thread.
//! * **PostgreSQL**: one shared schema behind forced row-level security ([`postgres`]).
//!
//! `$1` is always the tenant and the door binds it, so no statement can be run without one; a caller's own arguments
//! start at `$2`. A statement that does not name `$1` is refused.

mod anchors;
mod migrate;
mod pages;
mod postgres;
mod row;
mod sqlite;
mod transport;
mod tx;
mod value;

pub use medtech_pages::scrub::Found;
pub use migrate::{Migration, Script};
pub use pages::{PageKeys, Rekeyed};
pub use row::Row;
pub use transport::is_guarded;
pub use tx::{Column, Insert, Tx};
pub use value::{Ty, Val};

use crate::{
    BoxFuture, Clock, Error, Result, TenantId,
    audit::Origin,
    clock::Millis,
    upkeep::Scrubbed,
    vault::{Vault, coming_out, going_in},
};
use std::{borrow::Cow, path::PathBuf, sync::Arc, time::Duration};

/// Which engine stands behind the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// Where the data lies.
#[derive(Clone, Debug)]
pub enum Location {
    /// A directory with one file for each tenant.
    Sqlite(PathBuf),
    /// `url` is the application's role; `owner_url`, where given, the role that migrates.
    Postgres { url: String, owner_url: Option<String> },
}

/// A statement: a constant, or one built by the search compiler ([`Sql::built`], never from user text).
#[derive(Clone, Debug)]
pub struct Sql(Cow<'static, str>);

impl Sql {
    /// For statements put together from constants at run time. Values go into arguments, never into the text.
    #[must_use]
    pub fn built(text: String) -> Self {
        Self(Cow::Owned(text))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

/// How long one question outside of a transaction may take.
pub const READS_FOR: Duration = Duration::from_secs(20);

fn too_long() -> Error {
    Error::unavailable(
        "db.query_too_long",
        "This question takes too long to answer. Narrow it.",
    )
}

/// Tables with a tenant column.
const SQLITE_TABLES: &str = "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c ON c.name = 'tenant'
    WHERE m.type = 'table' AND $1 = $1 ORDER BY m.name";

pub(crate) type Job<T> = Box<dyn for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T>> + Send>;

/// The door. Clones share it.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
    clock: Clock,
    vault: Option<Vault>,
    scrubbed: Arc<Scrubbed>,
}

enum Inner {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

impl Db {
    /// Opens the store and brings every tenant's schema up to date. `keys` seal the pages of SQLite's files.
    pub async fn open(
        location: Location,
        keys: PageKeys,
        clock: Clock,
        migrations: Vec<&'static [Migration]>,
    ) -> Result<Self> {
        let migrations: Vec<&'static Migration> = migrations.into_iter().flatten().collect();
        migrate::check(&migrations)?;
        let inner = match location {
            Location::Sqlite(dir) => Inner::Sqlite(sqlite::Sqlite::open(dir, keys, clock.clone(), migrations)?),
            Location::Postgres { url, owner_url } => {
                Inner::Postgres(postgres::Postgres::open(&url, owner_url.as_deref(), clock.clone(), &migrations).await?)
            }
        };
        Ok(Self {
            inner: Arc::new(inner),
            clock,
            vault: None,
            scrubbed: Arc::default(),
        })
    }

    /// The same door, whose transactions can seal and open.
    #[must_use]
    pub fn with_vault(mut self, vault: Vault) -> Self {
        self.vault = Some(vault);
        self
    }

    /// What seals and opens for this store.
    pub fn vault(&self) -> Result<&Vault> {
        self.vault
            .as_ref()
            .ok_or_else(|| Error::internal("db.no_vault", "the store was opened without its keys"))
    }

    /// The time, by the store's clock.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.clock.now_ms()
    }

    #[must_use]
    pub fn engine(&self) -> Engine {
        match &*self.inner {
            Inner::Sqlite(_) => Engine::Sqlite,
            Inner::Postgres(_) => Engine::Postgres,
        }
    }

    /// All rows of a query, as of the last commit.
    pub async fn query(&self, tenant: TenantId, sql: impl Into<Sql> + Send, args: &[Val]) -> Result<Vec<Row>> {
        let sql = sql.into();
        require_tenant(sql.as_str())?;
        value::require_storable(args)?;
        let vault = self.vault.as_ref();
        let concealed = going_in(self.engine(), vault, tenant, self.now(), args)?;
        let args = concealed.as_deref().unwrap_or(args);
        let mut rows = match &*self.inner {
            Inner::Sqlite(db) => db.query(tenant, sql, args).await,
            Inner::Postgres(db) => db.query(tenant, &sql, args).await,
        }?;
        coming_out(self.engine(), vault, tenant, &mut rows);
        Ok(rows)
    }

    /// How long one question outside of a transaction may take, [`READS_FOR`] unless said; then it is refused with 503
    /// `db.query_too_long`.
    pub fn limit_reads(&self, most: Duration) {
        match &*self.inner {
            Inner::Sqlite(db) => db.limit_reads(most),
            Inner::Postgres(db) => db.limit_reads(most),
        }
    }

    /// The first row, if any.
    pub async fn query_opt(&self, tenant: TenantId, sql: impl Into<Sql> + Send, args: &[Val]) -> Result<Option<Row>> {
        Ok(self.query(tenant, sql, args).await?.into_iter().next())
    }

    /// The first row; an internal error when there is none.
    pub async fn query_one(&self, tenant: TenantId, sql: impl Into<Sql> + Send, args: &[Val]) -> Result<Row> {
        self.query_opt(tenant, sql, args)
            .await?
            .ok_or_else(|| Error::internal("db.no_row", "a row was expected"))
    }

    /// Runs `work` in one transaction and returns after the commit is durable. When `work` fails, nothing of it stays.
    ///
    /// Inside, await nothing but the transaction's own methods: on SQLite the closure runs on the writer thread and a
    /// foreign wait is refused.
    pub async fn write<T, F>(&self, tenant: TenantId, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        let (vault, origin) = (self.vault.clone(), Origin::current());
        let work: Job<T> = Box::new(move |tx| {
            tx.vault = vault;
            tx.origin = origin;
            Box::pin(async move {
                let done = work(tx).await?;
                tx.finish().await?;
                Ok(done)
            })
        });
        match &*self.inner {
            Inner::Sqlite(db) => db.write(tenant, work).await,
            Inner::Postgres(db) => db.write(tenant, work).await,
        }
    }

    /// Deletes whatever the engine keeps for a tenant outside its rows. Called after the rows are gone.
    pub async fn close_tenant(&self, tenant: TenantId) -> Result<()> {
        match &*self.inner {
            Inner::Sqlite(db) => db.close(tenant),
            Inner::Postgres(_) => Ok(()),
        }
    }

    /// Deletes everything of a tenant, the audit trail included, and answers what there was: rows by table. On SQLite its
    /// file goes; on PostgreSQL the owner's role does it, since the application's own may not touch the trail.
    ///
    /// The tenant must not be served any more, and its number never be given out again. Where it was done before, or was cut
    /// short once the file was gone, there is nothing to count; a file that is refused cannot be counted either, and goes.
    pub async fn erase_tenant(&self, tenant: TenantId) -> Result<Vec<(String, u64)>> {
        if tenant == TenantId::SYSTEM {
            return Err(Error::internal(
                "db.erase_system",
                "the system's own tables are not a tenant's",
            ));
        }
        match &*self.inner {
            Inner::Sqlite(db) => {
                let rows = match self.count_rows(tenant).await {
                    Err(e) if e.is_refused_file() => Vec::new(),
                    counted => counted?,
                };
                db.erase(tenant).await?;
                Ok(rows)
            }
            Inner::Postgres(db) => db.erase(tenant).await,
        }
    }

    /// On SQLite: the rows of a tenant's file by table.
    async fn count_rows(&self, tenant: TenantId) -> Result<Vec<(String, u64)>> {
        let mut rows = Vec::new();
        for row in self.query(tenant, SQLITE_TABLES, &[]).await? {
            let table = row.string(0)?;
            let text = format!("SELECT COUNT(*) FROM \"{table}\" WHERE tenant = $1");
            let n = self.query_one(tenant, Sql::built(text), &[]).await?.i64(0)?;
            rows.push((table, u64::try_from(n).unwrap_or(0)));
        }
        Ok(rows)
    }

    /// Seals the plain files of tenants that an earlier build left, once their keys are at hand. Happens once in the life of
    /// a directory; after that a plain file is one that somebody has put there, and is refused.
    pub fn seal_plain_files(&self) -> Result<()> {
        match &*self.inner {
            Inner::Sqlite(db) => db.seal_plain_files(),
            Inner::Postgres(_) => Ok(()),
        }
    }

    /// Gives a tenant's pages a new key while everything runs: what is written from now on is sealed in epoch `to` (without
    /// one: the next), the rest is written anew. `None` on PostgreSQL, which has no pages of ours. The caller audits it.
    pub async fn rekey_tenant(&self, tenant: TenantId, to: Option<u32>) -> Result<Option<Rekeyed>> {
        match &*self.inner {
            Inner::Sqlite(db) => db.rekey(tenant, to).await.map(Some),
            Inner::Postgres(_) => Ok(None),
        }
    }

    /// Is the role on PostgreSQL one that row security does not bind?
    pub async fn is_above_row_security(&self) -> Result<bool> {
        match &*self.inner {
            Inner::Sqlite(_) => Ok(false),
            Inner::Postgres(db) => db.is_above_row_security().await,
        }
    }

    /// Notes where every open file stands, so that one put back to an earlier time is refused. Now and then, and at once
    /// after what must not be lost unnoticed.
    pub async fn anchor(&self) -> Result<()> {
        match &*self.inner {
            Inner::Sqlite(db) => db.anchor().await,
            Inner::Postgres(_) => Ok(()),
        }
    }

    /// At a clean stop, after the last write: from then on no earlier state of a file passes for the newest.
    pub async fn settle(&self) -> Result<()> {
        match &*self.inner {
            Inner::Sqlite(db) => db.settle().await,
            Inner::Postgres(_) => Ok(()),
        }
    }

    /// Takes a tenant's file for the newest, which an operator has restored from a backup. Nobody else may have it open.
    /// `false` on PostgreSQL, which has no such files. The caller audits it.
    pub async fn accept_restored(&self, tenant: TenantId) -> Result<bool> {
        match &*self.inner {
            Inner::Sqlite(db) => db.accept_restored(tenant).await.map(|()| true),
            Inner::Postgres(_) => Ok(false),
        }
    }

    /// The same for the system's file, before the store can be opened.
    pub async fn accept_restored_system(location: &Location, keys: &PageKeys) -> Result<bool> {
        match location {
            Location::Sqlite(dir) => sqlite::Sqlite::accept_system(dir, keys).await.map(|()| true),
            Location::Postgres { .. } => Ok(false),
        }
    }

    /// Reads every page of a tenant's file and says what is damaged, changed or put back; a few pages at a time, with `pause`
    /// in between. `None` on PostgreSQL.
    pub async fn scrub(
        &self,
        tenant: TenantId,
        pause: Duration,
        progress: impl FnMut(u32, u32) + Send,
    ) -> Result<Option<Found>> {
        match &*self.inner {
            Inner::Sqlite(db) => db.scrub(tenant, pause, progress).await.map(Some),
            Inner::Postgres(_) => Ok(None),
        }
    }

    /// What the daily look through all pages has found.
    #[must_use]
    pub fn scrubbed(&self) -> &Scrubbed {
        &self.scrubbed
    }

    /// Facts for the operator (`medtech doctor`): engine, version, dangers such as a role that bypasses row security.
    pub async fn inspect(&self) -> Result<Vec<(String, String)>> {
        match &*self.inner {
            Inner::Sqlite(_) => Ok(vec![
                ("engine".into(), format!("SQLite {}", rusqlite::version())),
                (
                    "files".into(),
                    "encrypted page by page, the write-ahead log included; older pages are refused".into(),
                ),
            ]),
            Inner::Postgres(db) => db.inspect().await,
        }
    }
}

fn require_tenant(sql: &str) -> Result<()> {
    if sql.contains("$1") {
        Ok(())
    } else {
        Err(Error::internal(
            "db.statement_without_tenant",
            "every statement names $1, the tenant",
        ))
    }
}
