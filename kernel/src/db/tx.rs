//! A transaction: what a write closure is given.

use super::{Engine, Row, Sql, Ty, Val, postgres::PgTx, require_tenant, sqlite::SqliteTx, value::require_storable};
use crate::{
    Error, Result, TenantId,
    audit::Origin,
    clock::Millis,
    vault::{Vault, coming_out, going_in},
};
use std::sync::OnceLock;

/// One open transaction of one tenant.
pub struct Tx {
    pub(crate) inner: TxInner,
    pub(crate) tenant: TenantId,
    pub(crate) now: Millis,
    pub(crate) hooks: Vec<Box<dyn FnOnce() + Send>>,
    /// See [`Tx::at_last`].
    pub(crate) last: Vec<&'static str>,
    pub(crate) vault: Option<Vault>,
    /// From where the act came, for the trail.
    pub(crate) origin: Origin,
}

pub(crate) enum TxInner {
    Sqlite(SqliteTx),
    Postgres(PgTx),
}

impl Tx {
    pub(crate) fn new(inner: TxInner, tenant: TenantId, now: Millis) -> Self {
        Self {
            inner,
            tenant,
            now,
            hooks: Vec::new(),
            last: Vec::new(),
            vault: None,
            origin: Origin::default(),
        }
    }

    /// What seals and opens for this store.
    pub fn vault(&self) -> Result<&Vault> {
        self.vault
            .as_ref()
            .ok_or_else(|| Error::internal("db.no_vault", "the store was opened without its keys"))
    }

    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The time of this transaction, by the context's clock.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.now
    }

    #[must_use]
    pub fn engine(&self) -> Engine {
        match self.inner {
            TxInner::Sqlite(_) => Engine::Sqlite,
            TxInner::Postgres(_) => Engine::Postgres,
        }
    }

    /// Runs a statement; answers how many rows it changed.
    pub async fn exec(&mut self, sql: impl Into<Sql> + Send, args: &[Val]) -> Result<u64> {
        let sql = sql.into();
        require_tenant(sql.as_str())?;
        require_storable(args)?;
        let concealed = self.conceal(args)?;
        let args = concealed.as_deref().unwrap_or(args);
        match &mut self.inner {
            TxInner::Sqlite(tx) => tx.exec(self.tenant, &sql, args),
            TxInner::Postgres(tx) => tx.exec(self.tenant, &sql, args).await,
        }
    }

    /// All rows of a query (or of a statement with `RETURNING`).
    pub async fn query(&mut self, sql: impl Into<Sql> + Send, args: &[Val]) -> Result<Vec<Row>> {
        let sql = sql.into();
        require_tenant(sql.as_str())?;
        require_storable(args)?;
        let concealed = self.conceal(args)?;
        let args = concealed.as_deref().unwrap_or(args);
        let mut rows = match &mut self.inner {
            TxInner::Sqlite(tx) => tx.query(self.tenant, &sql, args),
            TxInner::Postgres(tx) => tx.query(self.tenant, &sql, args).await,
        }?;
        coming_out(self.engine(), self.vault.as_ref(), self.tenant, &mut rows);
        Ok(rows)
    }

    fn conceal(&self, args: &[Val]) -> Result<Option<Vec<Val>>> {
        going_in(self.engine(), self.vault.as_ref(), self.tenant, self.now, args)
    }

    pub async fn query_opt(&mut self, sql: impl Into<Sql> + Send, args: &[Val]) -> Result<Option<Row>> {
        Ok(self.query(sql, args).await?.into_iter().next())
    }

    pub async fn query_one(&mut self, sql: impl Into<Sql> + Send, args: &[Val]) -> Result<Row> {
        self.query_opt(sql, args)
            .await?
            .ok_or_else(|| Error::internal("db.no_row", "a row was expected"))
    }

    /// Many rows at once: `values` holds the columns of the first row, then of the second, and so on, without the tenant.
    pub async fn insert(&mut self, into: &'static Insert, values: &[Val]) -> Result<u64> {
        if values.is_empty() {
            return Ok(0);
        }
        require_storable(values)?;
        let concealed = self.conceal(values)?;
        let values = concealed.as_deref().unwrap_or(values);
        match &mut self.inner {
            TxInner::Sqlite(tx) => tx.insert(self.tenant, into, values),
            TxInner::Postgres(tx) => tx.insert(self.tenant, into, values).await,
        }
    }

    /// A statement without arguments that is run once, as the last of the transaction: for a row that many write, so that its
    /// lock is held for a moment only and nothing is waited for while it is held.
    pub fn at_last(&mut self, sql: &'static str) {
        if !self.last.contains(&sql) {
            self.last.push(sql);
        }
    }

    /// Runs what was kept for the end.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        for sql in std::mem::take(&mut self.last) {
            self.exec(sql, &[]).await?;
        }
        Ok(())
    }

    /// Runs after the commit is durable, never after a rollback. Must be quick and must not fail.
    pub fn after_commit(&mut self, hook: impl FnOnce() + Send + 'static) {
        self.hooks.push(Box::new(hook));
    }
}

/// A column of a bulk insert.
pub type Column = (&'static str, Ty);

/// A bulk insert into one table, its texts made once: `static TOK: Insert = Insert::new("tok", &[("k", Ty::I64), ..]);`
pub struct Insert {
    table: &'static str,
    pub(crate) columns: &'static [Column],
    skip_existing: bool,
    texts: OnceLock<(String, String, String)>,
}

/// Rows of one SQLite statement.
pub(crate) const CHUNK: usize = 64;

impl Insert {
    #[must_use]
    pub const fn new(table: &'static str, columns: &'static [Column]) -> Self {
        Self {
            table,
            columns,
            skip_existing: false,
            texts: OnceLock::new(),
        }
    }

    /// Rows whose key is already there are passed over.
    #[must_use]
    pub const fn or_skip(mut self) -> Self {
        self.skip_existing = true;
        self
    }

    /// (SQLite for one row, SQLite for [`CHUNK`] rows, PostgreSQL with one array a column).
    pub(crate) fn texts(&self) -> &(String, String, String) {
        self.texts.get_or_init(|| {
            let names: Vec<&str> = self.columns.iter().map(|(n, _)| *n).collect();
            let tail = if self.skip_existing {
                " ON CONFLICT DO NOTHING"
            } else {
                ""
            };
            let head = format!("INSERT INTO {} (tenant, {})", self.table, names.join(", "));
            let values = |rows: usize| {
                let one = |r: usize| {
                    let marks: Vec<String> = (0..names.len())
                        .map(|c| format!("?{}", 2 + r * names.len() + c))
                        .collect();
                    format!("(?1, {})", marks.join(", "))
                };
                let all: Vec<String> = (0..rows).map(one).collect();
                format!("{head} VALUES {}{tail}", all.join(", "))
            };
            let arrays: Vec<String> = self
                .columns
                .iter()
                .enumerate()
                .map(|(i, (_, ty))| format!("${}::{}[]", i + 2, pg_name(*ty)))
                .collect();
            let pg = format!("{head} SELECT $1, u.* FROM UNNEST({}) AS u{tail}", arrays.join(", "));
            (values(1), values(CHUNK), pg)
        })
    }
}

fn pg_name(ty: Ty) -> &'static str {
    match ty {
        Ty::I64 => "bigint",
        Ty::F64 => "double precision",
        Ty::Bool => "boolean",
        Ty::Text => "text",
        Ty::Blob => "bytea",
        Ty::Uuid => "uuid",
    }
}
