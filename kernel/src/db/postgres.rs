//! PostgreSQL behind the door: one shared schema, forced row-level security, the tenant set for each transaction.

use super::{Insert, Job, Migration, Row, Sql, Tx, Ty, Val, migrate, tx::TxInner};
use crate::{Clock, Error, Result, TenantId, clock::Millis, id};
use sqlx::{
    AssertSqlSafe, Column as _, Executor, Postgres as Pg, Row as _, TypeInfo, ValueRef,
    pool::PoolConnection,
    postgres::{PgArguments, PgPool, PgPoolOptions, PgRow},
    query::Query,
};
use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Tables that the application's role may only add to and read.
const APPEND_ONLY: &str = "audit, audit_about, audit_checkpoint";
/// Connections of one process.
const POOL: u32 = 16;
/// Key of the advisory lock under which one process migrates.
const MIGRATION_LOCK: i64 = 0x6d65_6474_6563_6800;

/// High half of the advisory locks under which a tenant's writers take turns; the low half is the tenant's number.
const WRITER_LOCK: i64 = 0x6d65_6477_0000_0000;
/// How long a writer waits for its turn, and anyone for a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the server is to do by itself when we are not heard of any more: a connection that was cut inside of a transaction
/// would hold a clinic's writer lock for hours. Our own transactions never stand idle for longer than a job computes.
const SESSION: &str = "SET idle_in_transaction_session_timeout = '60s'; SET tcp_keepalives_idle = 30;
    SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3";

pub(crate) struct Postgres {
    pool: PgPool,
    clock: Clock,
    /// The role that owns the tables, where it is another one.
    owner_url: Option<String>,
    /// Whose turn it is to write, by tenant: whoever waits holds no connection meanwhile. As many entries as tenants.
    turns: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
    reads_for_ms: AtomicI32,
}

/// The pool's rules. A connection that comes back inside a transaction, or with a tenant still set, is thrown away: it
/// must never serve another tenant.
fn safe(options: PgPoolOptions) -> PgPoolOptions {
    plain(options).after_release(|conn, _| {
        Box::pin(async move {
            conn.execute("ROLLBACK").await?;
            let row = conn
                .fetch_one("SELECT COALESCE(current_setting('app.tenant', true), '')")
                .await?;
            Ok(row.try_get::<String, _>(0)?.is_empty())
        })
    })
}

fn plain(options: PgPoolOptions) -> PgPoolOptions {
    options
        .max_connections(POOL)
        .acquire_timeout(PATIENCE)
        .test_before_acquire(false)
        .after_connect(|conn, _| Box::pin(async move { conn.execute(SESSION).await.map(drop) }))
}

/// What a writer waits for after its transaction has begun, and how long at most. The number is ours.
fn its_turn(tenant: TenantId, patience: Duration) -> String {
    let (most, lock) = (patience.as_millis(), WRITER_LOCK | tenant.number());
    format!("; SET LOCAL lock_timeout = {most}; SELECT pg_advisory_xact_lock({lock})")
}

fn busy() -> Error {
    Error::unavailable("db.busy", "The database is busy. Try again in a moment.")
}

impl Postgres {
    pub(crate) async fn open(
        url: &str,
        owner: Option<&str>,
        clock: Clock,
        migrations: &[&'static Migration],
    ) -> Result<Self> {
        let pool = safe(PgPoolOptions::new())
            .connect(url)
            .await
            .map_err(|e| Error::internal("db.connect", e))?;
        match owner {
            Some(owner_url) => {
                let owner = PgPoolOptions::new()
                    .max_connections(1)
                    .connect(owner_url)
                    .await
                    .map_err(|e| Error::internal("db.connect_owner", e))?;
                let role: String = sqlx::query_scalar("SELECT current_user::text")
                    .fetch_one(&pool)
                    .await
                    .map_err(sql_error)?;
                run_migrations(&owner, migrations, clock.now_ms(), Some(&role)).await?;
                owner.close().await;
            }
            None => run_migrations(&pool, migrations, clock.now_ms(), None).await?,
        }
        Ok(Self {
            pool,
            clock,
            owner_url: owner.map(str::to_owned),
            turns: Mutex::default(),
            reads_for_ms: AtomicI32::new(i32::try_from(super::READS_FOR.as_millis()).unwrap_or(i32::MAX)),
        })
    }

    /// Deletes every row of a tenant, in one transaction of the owner's role.
    pub(crate) async fn erase(&self, tenant: TenantId) -> Result<Vec<(String, u64)>> {
        let owner = match &self.owner_url {
            None => self.pool.clone(),
            Some(url) => PgPoolOptions::new()
                .max_connections(1)
                .connect(url)
                .await
                .map_err(|e| Error::internal("db.connect_owner", e))?,
        };
        // In a task of its own: a caller that goes away leaves nothing half begun.
        let task = tokio::spawn(async move {
            let mut tx = begin(&owner, tenant, "").await?;
            let outcome = erase_in(&mut tx, tenant).await;
            tx.end(if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
            outcome
        });
        task.await.map_err(|e| Error::internal("db.job_panicked", e))?
    }

    fn turns(&self, tenant: TenantId) -> Arc<Semaphore> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns
            .entry(tenant)
            .or_insert_with(|| Arc::new(Semaphore::new(1)))
            .clone()
    }

    pub(crate) async fn query(&self, tenant: TenantId, sql: &Sql, args: &[Val]) -> Result<Vec<Row>> {
        let most = self.reads_for_ms.load(Ordering::Relaxed);
        let then = format!("; SET LOCAL statement_timeout = {most}");
        let mut tx = begin(&self.pool, tenant, &then).await?;
        let rows = tx.query(tenant, sql, args).await?;
        tx.end("COMMIT").await?;
        Ok(rows)
    }

    pub(crate) fn limit_reads(&self, most: Duration) {
        let most = i32::try_from(most.as_millis()).unwrap_or(i32::MAX);
        self.reads_for_ms.store(most.max(1), Ordering::Relaxed);
    }

    /// One writer a tenant at a time, as on SQLite, in this process by a turn and among processes by an advisory lock:
    /// nearly every write locks the tenant's event counter and its audit chain, and two that take them in different
    /// order would deadlock.
    ///
    /// The work runs in a task of its own: a caller that goes away cannot leave a transaction half begun.
    pub(crate) async fn write<T: Send + 'static>(&self, tenant: TenantId, work: Job<T>) -> Result<T> {
        let (pool, clock) = (self.pool.clone(), self.clock.clone());
        let turns = self.turns(tenant);
        let task = tokio::spawn(async move {
            // The semaphore is never closed.
            let Ok(Ok(_turn)) = tokio::time::timeout(PATIENCE, turns.acquire()).await else {
                return Err(busy());
            };
            let inner = begin(&pool, tenant, &its_turn(tenant, PATIENCE)).await?;
            // Now, not before: whoever wrote before us took a time of their own, and time does not run backwards in a trail.
            let mut tx = Tx::new(TxInner::Postgres(inner), tenant, clock.now_ms());
            let outcome = AssertUnwindSafe(work(&mut tx)).await;
            let TxInner::Postgres(mut inner) = tx.inner else {
                unreachable!("a PostgreSQL transaction stays one")
            };
            match outcome {
                Ok(value) => {
                    inner.end("COMMIT").await?;
                    for hook in tx.hooks {
                        hook();
                    }
                    Ok(value)
                }
                Err(e) => {
                    inner.end("ROLLBACK").await?;
                    Err(e)
                }
            }
        });
        task.await.map_err(|e| Error::internal("db.job_panicked", e))?
    }

    pub(crate) async fn is_above_row_security(&self) -> Result<bool> {
        sqlx::query_scalar("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
            .fetch_one(&self.pool)
            .await
            .map_err(sql_error)
    }

    pub(crate) async fn inspect(&self) -> Result<Vec<(String, String)>> {
        let row = sqlx::query(
            "SELECT current_setting('server_version'), rolsuper OR rolbypassrls,
             (SELECT datcollate FROM pg_database WHERE datname = current_database())
             FROM pg_roles WHERE rolname = current_user",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(sql_error)?;
        let get = |i: usize| row.try_get::<String, _>(i).unwrap_or_default();
        let bypass = row.try_get::<bool, _>(1).unwrap_or(true);
        Ok(vec![
            ("engine".into(), format!("PostgreSQL {}", get(0))),
            (
                "row_security".into(),
                if bypass {
                    "BYPASSED by this role: use one without SUPERUSER and BYPASSRLS".into()
                } else {
                    "forced".into()
                },
            ),
            ("collation".into(), get(2)),
        ])
    }
}

const TABLES: &str = "SELECT c.relname::text FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND $1::bigint IS NOT NULL ORDER BY 1";

async fn erase_in(tx: &mut PgTx, tenant: TenantId) -> Result<Vec<(String, u64)>> {
    let mut gone = Vec::new();
    for row in tx.query(tenant, &Sql::from(TABLES), &[]).await? {
        let table = row.string(0)?;
        let text = format!("DELETE FROM \"{table}\" WHERE tenant = $1");
        let rows = tx.exec(tenant, &Sql::built(text), &[]).await;
        let rows = rows.map_err(|e| match &e.source {
            Some(why) if why.to_string().contains("permission denied") => Error::unavailable(
                "db.owner_needed",
                "Deleting a clinic needs the database owner's address (database.owner_url).",
            ),
            _ => e,
        })?;
        gone.push((table, rows));
    }
    Ok(gone)
}

async fn begin(pool: &PgPool, tenant: TenantId, then: &str) -> Result<PgTx> {
    let mut conn = pool.acquire().await.map_err(|e| match e {
        sqlx::Error::PoolTimedOut => busy(),
        other => sql_error(other),
    })?;
    // One simple-protocol round trip for all. The number is ours, so it can stand in the text.
    let text = format!("BEGIN; SELECT set_config('app.tenant', '{tenant}', true){then}");
    conn.execute(AssertSqlSafe(text)).await.map_err(sql_error)?;
    Ok(PgTx { conn: Some(conn) })
}

async fn run_migrations(
    pool: &PgPool,
    migrations: &[&'static Migration],
    now: Millis,
    grant_to: Option<&str>,
) -> Result<()> {
    let mut conn = pool.acquire().await.map_err(sql_error)?;
    conn.execute(AssertSqlSafe(format!("SELECT pg_advisory_lock({MIGRATION_LOCK})")))
        .await
        .map_err(sql_error)?;
    let outcome = migrate_locked(&mut conn, migrations, now, grant_to).await;
    conn.execute(AssertSqlSafe(format!("SELECT pg_advisory_unlock({MIGRATION_LOCK})")))
        .await
        .map_err(sql_error)?;
    outcome
}

async fn migrate_locked(
    conn: &mut PoolConnection<Pg>,
    migrations: &[&'static Migration],
    now: Millis,
    grant_to: Option<&str>,
) -> Result<()> {
    conn.execute(
        "CREATE TABLE IF NOT EXISTS migration (module TEXT NOT NULL, number BIGINT NOT NULL, hash BYTEA NOT NULL,
         at BIGINT NOT NULL, PRIMARY KEY (module, number))",
    )
    .await
    .map_err(sql_error)?;
    for m in migrations {
        let text = m.postgres();
        let recorded: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT hash FROM migration WHERE module = $1 AND number = $2")
                .bind(m.module)
                .bind(m.number)
                .fetch_optional(&mut **conn)
                .await
                .map_err(sql_error)?;
        if !migrate::wanted(m, text, recorded.as_deref())? {
            continue;
        }
        conn.execute("BEGIN").await.map_err(sql_error)?;
        let step = async {
            conn.execute(text).await?;
            sqlx::query("INSERT INTO migration (module, number, hash, at) VALUES ($1, $2, $3, $4)")
                .bind(m.module)
                .bind(m.number)
                .bind(id::sha256(text.as_bytes()).to_vec())
                .bind(now)
                .execute(&mut **conn)
                .await?;
            conn.execute(WALL).await?;
            conn.execute("COMMIT").await
        };
        if let Err(e) = step.await {
            conn.execute("ROLLBACK").await.map_err(sql_error)?;
            return Err(Error::internal(
                "db.migration",
                format!("{} {}: {e}", m.module, m.number),
            ));
        }
    }
    if let Some(role) = grant_to {
        let role = format!("\"{}\"", role.replace('"', "\"\""));
        // What has happened stays: the trail can be added to and read, by this role, and nothing else.
        let text = format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
             REVOKE UPDATE, DELETE, TRUNCATE ON {APPEND_ONLY} FROM {role}; REVOKE ALL ON migration FROM {role};
             GRANT SELECT ON migration TO {role}"
        );
        conn.execute(AssertSqlSafe(text)).await.map_err(sql_error)?;
    }
    Ok(())
}

/// Raises the wall around every table with a `tenant` column that has none yet, so that no table can be forgotten.
const WALL: &str = "
DO $$ DECLARE t TEXT; BEGIN
  FOR t IN SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant'
           WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND NOT c.relforcerowsecurity LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant_wall ON %I
      USING (tenant = (SELECT nullif(current_setting(''app.tenant'', true), '''')::bigint))
      WITH CHECK (tenant = (SELECT nullif(current_setting(''app.tenant'', true), '''')::bigint))', t);
  END LOOP;
END $$";

/// An open transaction on a pooled connection.
pub(crate) struct PgTx {
    conn: Option<PoolConnection<Pg>>,
}

impl PgTx {
    fn conn(&mut self) -> Result<&mut PoolConnection<Pg>> {
        self.conn
            .as_mut()
            .ok_or_else(|| Error::internal("db.transaction_over", "the transaction has ended"))
    }

    async fn end(&mut self, how: &'static str) -> Result<()> {
        self.conn()?.execute(how).await.map_err(sql_error)?;
        self.conn = None;
        Ok(())
    }

    pub(crate) async fn exec(&mut self, tenant: TenantId, sql: &Sql, args: &[Val]) -> Result<u64> {
        let query = bind(tenant, sql, args);
        query
            .execute(&mut **self.conn()?)
            .await
            .map(|done| done.rows_affected())
            .map_err(sql_error)
    }

    pub(crate) async fn query(&mut self, tenant: TenantId, sql: &Sql, args: &[Val]) -> Result<Vec<Row>> {
        let query = bind(tenant, sql, args);
        query
            .fetch_all(&mut **self.conn()?)
            .await
            .map_err(sql_error)?
            .iter()
            .map(convert)
            .collect()
    }

    pub(crate) async fn insert(&mut self, tenant: TenantId, into: &'static Insert, values: &[Val]) -> Result<u64> {
        let width = into.columns.len();
        let mut query = sqlx::query(AssertSqlSafe(into.texts().2.as_str())).bind(tenant.number());
        for (i, (_, ty)) in into.columns.iter().enumerate() {
            let column = values.iter().skip(i).step_by(width);
            query = match ty {
                Ty::I64 => query.bind(
                    column
                        .map(|v| if let Val::I64(v) = v { Some(*v) } else { None })
                        .collect::<Vec<_>>(),
                ),
                Ty::F64 => query.bind(
                    column
                        .map(|v| if let Val::F64(v) = v { Some(*v) } else { None })
                        .collect::<Vec<_>>(),
                ),
                Ty::Bool => query.bind(
                    column
                        .map(|v| if let Val::Bool(v) = v { Some(*v) } else { None })
                        .collect::<Vec<_>>(),
                ),
                Ty::Text => query.bind(
                    column
                        .map(|v| {
                            if let Val::Text(v) = v {
                                Some(v.to_string())
                            } else {
                                None
                            }
                        })
                        .collect::<Vec<_>>(),
                ),
                Ty::Blob => query.bind(
                    column
                        .map(|v| if let Val::Blob(v) = v { Some(v.to_vec()) } else { None })
                        .collect::<Vec<_>>(),
                ),
                Ty::Uuid => query.bind(
                    column
                        .map(|v| if let Val::Uuid(v) = v { Some(*v) } else { None })
                        .collect::<Vec<_>>(),
                ),
            };
        }
        query
            .execute(&mut **self.conn()?)
            .await
            .map(|done| done.rows_affected())
            .map_err(sql_error)
    }
}

fn bind<'q>(tenant: TenantId, sql: &'q Sql, args: &[Val]) -> Query<'q, Pg, PgArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql.as_str())).bind(tenant.number());
    for arg in args {
        query = match arg {
            Val::I64(v) => query.bind(*v),
            Val::F64(v) => query.bind(*v),
            Val::Bool(v) => query.bind(*v),
            Val::Text(v) => query.bind(v.to_string()),
            Val::Blob(v) => query.bind(v.to_vec()),
            Val::Uuid(v) => query.bind(*v),
            Val::Null(Ty::I64) => query.bind(None::<i64>),
            Val::Null(Ty::F64) => query.bind(None::<f64>),
            Val::Null(Ty::Bool) => query.bind(None::<bool>),
            // The door has put secrets into the form that this engine stores; one that slipped by is not written.
            Val::Null(Ty::Text) | Val::Secret(_) | Val::Sealed(_) => query.bind(None::<String>),
            Val::Null(Ty::Blob) => query.bind(None::<Vec<u8>>),
            Val::Null(Ty::Uuid) => query.bind(None::<Uuid>),
        };
    }
    query
}

fn convert(row: &PgRow) -> Result<Row> {
    let mut vals = Vec::with_capacity(row.len());
    for (i, column) in row.columns().iter().enumerate() {
        let raw = row.try_get_raw(i).map_err(sql_error)?;
        let name = column.type_info().name().to_owned();
        let null = raw.is_null();
        let get = match name.as_str() {
            "INT8" => {
                if null {
                    Val::Null(Ty::I64)
                } else {
                    row.try_get::<i64, _>(i).map_err(sql_error)?.into()
                }
            }
            "INT4" => {
                if null {
                    Val::Null(Ty::I64)
                } else {
                    row.try_get::<i32, _>(i).map_err(sql_error)?.into()
                }
            }
            "INT2" => {
                if null {
                    Val::Null(Ty::I64)
                } else {
                    i32::from(row.try_get::<i16, _>(i).map_err(sql_error)?).into()
                }
            }
            "FLOAT8" => {
                if null {
                    Val::Null(Ty::F64)
                } else {
                    row.try_get::<f64, _>(i).map_err(sql_error)?.into()
                }
            }
            "BOOL" => {
                if null {
                    Val::Null(Ty::Bool)
                } else {
                    row.try_get::<bool, _>(i).map_err(sql_error)?.into()
                }
            }
            "TEXT" | "VARCHAR" | "NAME" | "CHAR" => {
                if null {
                    Val::Null(Ty::Text)
                } else {
                    row.try_get::<String, _>(i).map_err(sql_error)?.into()
                }
            }
            "BYTEA" => {
                if null {
                    Val::Null(Ty::Blob)
                } else {
                    row.try_get::<Vec<u8>, _>(i).map_err(sql_error)?.into()
                }
            }
            "UUID" => {
                if null {
                    Val::Null(Ty::Uuid)
                } else {
                    row.try_get::<Uuid, _>(i).map_err(sql_error)?.into()
                }
            }
            "VOID" => Val::Null(Ty::Text),
            other => {
                return Err(Error::internal(
                    "db.column_type",
                    format!("{other} is outside the portable subset"),
                ));
            }
        };
        vals.push(get);
    }
    Ok(Row(vals))
}

fn sql_error(error: sqlx::Error) -> Error {
    if let sqlx::Error::Database(db) = &error {
        match db.code().as_deref() {
            Some("23505" | "23503" | "23514" | "23P01") => {
                let mut e = Error::conflict("db.constraint", "This clashes with something that is already there.");
                e.source = Some(error.to_string().into());
                return e;
            }
            Some("40001" | "40P01") => return Error::unavailable("db.serialization", "Two changes met. Try again."),
            Some("57014") => return super::too_long(),
            // Somebody else has its turn for longer than one waits.
            Some("55P03") => return busy(),
            // It stops, starts, takes no more connections, or has given up on us.
            Some("57P01" | "57P02" | "57P03" | "53300" | "25P03") => return away(&error),
            Some("53100") => return Error::unavailable("db.disk_full", "The disk is full. Nothing was saved."),
            _ => {}
        }
    }
    match error {
        // The connection broke, or none can be made.
        sqlx::Error::Io(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => away(&error),
        other => Error::internal("db.postgres", other.to_string()),
    }
}

/// What was under way is not saved; whoever asks again later is served.
fn away(error: &sqlx::Error) -> Error {
    let mut e = Error::unavailable("db.away", "The database does not answer. Try again in a moment.");
    e.source = Some(error.to_string().into());
    e
}

#[cfg(test)]
mod tests;
