//! SQLite behind the door: one sealed file and one writer thread for each tenant, group commits, readers inline.

use super::{
    Insert, Job, Migration, Row, Sql, Tx, Ty, Val, anchors, migrate,
    pages::{self, PageKeys, Rekeyed},
    tx::{CHUNK, TxInner},
};
use crate::{Clock, Error, Result, TenantId, clock::Millis, id};
use medtech_pages::{Ring, rekey};
use rusqlite::{Connection, config::DbConfig, types::ValueRef};
use std::{
    any::Any,
    cell::RefCell,
    collections::{HashMap, HashSet},
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Jobs that may wait for a writer; past that the writing task waits in line, so nothing grows without bound.
const QUEUE: usize = 1024;
/// Jobs of one commit.
const GROUP: usize = 64;
/// Virtual machine steps a read may take on the caller's thread before it moves to the blocking pool.
const INLINE_STEPS: i32 = 200_000;
/// Read connections each thread keeps open.
const READERS_PER_THREAD: usize = 16;

pub(crate) struct Sqlite {
    pub(super) dir: PathBuf,
    pub(super) keys: PageKeys,
    clock: Clock,
    migrations: Vec<&'static Migration>,
    writers: Mutex<HashMap<TenantId, Writer>>,
    /// Tenants whose file is gone: asking for one must not make an empty one.
    erased: Mutex<HashSet<TenantId>>,
    /// Tells the stores of one process apart in the threads' reader caches.
    store: u64,
    reads_for_ms: AtomicU64,
}

#[derive(Clone)]
pub(super) struct Writer {
    jobs: tokio::sync::mpsc::Sender<WriterJob>,
    pub(super) path: Arc<Path>,
    pub(super) ring: Ring,
}

type Answer = Result<Box<dyn Any + Send>>;

struct WriterJob {
    run: Job<Box<dyn Any + Send>>,
    answer: oneshot::Sender<Answer>,
}

static STORES: AtomicU64 = AtomicU64::new(0);

impl Sqlite {
    pub(crate) fn open(
        dir: PathBuf,
        keys: PageKeys,
        clock: Clock,
        migrations: Vec<&'static Migration>,
    ) -> Result<Self> {
        std::fs::create_dir_all(&dir).map_err(|e| Error::internal("db.directory", e))?;
        pages::seal_system(&dir, &keys)?;
        let store = STORES.fetch_add(1, Ordering::Relaxed);
        let db = Self {
            dir,
            keys,
            clock,
            migrations,
            writers: Mutex::default(),
            erased: Mutex::default(),
            store,
            reads_for_ms: AtomicU64::new(u64::try_from(super::READS_FOR.as_millis()).unwrap_or(u64::MAX)),
        };
        db.writer(TenantId::SYSTEM)?;
        Ok(db)
    }

    /// The writer of a tenant's file; the file is made and migrated on first use.
    pub(super) fn writer(&self, tenant: TenantId) -> Result<Writer> {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writers.get(&tenant) {
            return Ok(writer.clone());
        }
        if self
            .erased
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&tenant)
        {
            return Err(gone());
        }
        let name = pages::file_name(tenant);
        let path: Arc<Path> = self.dir.join(&name).into();
        let ring = self.keys.ring(tenant, &name);
        let system = writers.get(&TenantId::SYSTEM).cloned();
        if let Some(system) = &system
            && self.is_erased(tenant, system)?
        {
            let mut erased = self.erased.lock().unwrap_or_else(PoisonError::into_inner);
            erased.insert(tenant);
            return Err(gone());
        }
        let stood = match &system {
            Some(system) => self.anchor_of(tenant, system)?,
            None => None,
        };
        let mut conn = pages::open_writer(&ring, &path, stood, |conn| conn.table_exists(None, "page_anchor"))?;
        configure(&conn)?;
        match &system {
            Some(system) => anchors::require_system(&system.path, &path)?,
            None => conn.execute_batch(anchors::TABLE).map_err(sql_error)?,
        }
        run_migrations(&mut conn, &self.migrations, self.clock.now_ms())?;
        let (jobs, inbox) = tokio::sync::mpsc::channel(QUEUE);
        let clock = self.clock.clone();
        std::thread::Builder::new()
            .name(format!("db-writer-{tenant}"))
            .spawn(move || write_loop(conn, tenant, &clock, inbox))
            .map_err(|e| Error::internal("db.writer_thread", e))?;
        let writer = Writer { jobs, path, ring };
        writers.insert(tenant, writer.clone());
        Ok(writer)
    }

    pub(super) fn open_writers(&self) -> Vec<(TenantId, Writer)> {
        let writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers
            .iter()
            .map(|(tenant, writer)| (*tenant, writer.clone()))
            .collect()
    }

    /// A query on the system's file, on this thread.
    pub(super) fn query_system(&self, system: &Writer, sql: &Sql, args: &[Val]) -> Result<Vec<Row>> {
        let at = Place {
            store: self.store,
            tenant: TenantId::SYSTEM,
        };
        let patience = Patience::Until(Instant::now() + super::READS_FOR);
        read(at, &system.ring, &system.path, sql, args, patience).map_err(ReadError::into_error)
    }

    pub(crate) fn seal_plain_files(&self) -> Result<()> {
        pages::seal_plain_files(&self.dir, &self.keys)
    }

    pub(crate) fn close(&self, tenant: TenantId) -> Result<()> {
        self.writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&tenant);
        Ok(())
    }

    /// Ends the writer and unlinks the file and what SQLite keeps beside it. Written down first, so that whatever stops it in
    /// between, it can be asked for again, and nobody makes an empty file in its place. Harmless when it is done already.
    pub(crate) async fn erase(&self, tenant: TenantId) -> Result<()> {
        let path = self.dir.join(pages::file_name(tenant));
        self.bury(tenant).await?;
        self.erased
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(tenant);
        self.close(tenant)?;
        for tail in ["", "-wal", "-shm", "-journal", "-seal", "-seal.new", "-lock"] {
            let mut name = path.as_os_str().to_owned();
            name.push(tail);
            match std::fs::remove_file(&name) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::internal("db.erase", e)),
                _ => {}
            }
        }
        let sync = std::fs::File::open(&self.dir).and_then(|dir| dir.sync_all());
        sync.map_err(|e| Error::internal("db.erase", e))
    }

    pub(crate) async fn write<T: Send + 'static>(&self, tenant: TenantId, work: Job<T>) -> Result<T> {
        let (answer, done) = oneshot::channel();
        let run: Job<Box<dyn Any + Send>> = Box::new(move |tx| {
            Box::pin(async move { work(tx).await.map(|value| Box::new(value) as Box<dyn Any + Send>) })
        });
        let writer = self.writer(tenant)?;
        let gone = |_| Error::unavailable("db.stopping", "The server is stopping. Try again in a moment.");
        writer
            .jobs
            .send(WriterJob { run, answer })
            .await
            .map_err(|_| gone(()))?;
        let value = done.await.map_err(|_| gone(()))??;
        value
            .downcast::<T>()
            .map(|v| *v)
            .map_err(|_| Error::internal("db.answer_type", "another type than asked"))
    }

    /// How long one question may take.
    fn reads_for(&self) -> Duration {
        Duration::from_millis(self.reads_for_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn limit_reads(&self, most: Duration) {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        self.reads_for_ms.store(most, Ordering::Relaxed);
    }

    pub(crate) async fn query(&self, tenant: TenantId, sql: Sql, args: &[Val]) -> Result<Vec<Row>> {
        let Writer { path, ring, .. } = self.writer(tenant)?;
        let at = Place {
            store: self.store,
            tenant,
        };
        match read(at, &ring, &path, &sql, args, Patience::Steps(INLINE_STEPS)) {
            Err(ReadError::TooLong) => {
                let args = args.to_vec();
                let end = Instant::now() + self.reads_for();
                tokio::task::spawn_blocking(move || read(at, &ring, &path, &sql, &args, Patience::Until(end)))
                    .await
                    .map_err(|e| Error::internal("db.read_task", e))?
                    .map_err(ReadError::into_error)
            }
            other => other.map_err(ReadError::into_error),
        }
    }

    /// Seals under `to` from now on (without one: the next epoch) and writes every page anew, a few in each transaction,
    /// between the other jobs of the tenant's writer.
    pub(crate) async fn rekey(&self, tenant: TenantId, to: Option<u32>) -> Result<Rekeyed> {
        let Writer { path, ring, .. } = self.writer(tenant)?;
        let epoch = to.unwrap_or_else(|| rekey::next_epoch(&ring));
        if epoch < ring.epoch() {
            return Err(Error::conflict(
                "db.epoch_past",
                "The pages are sealed with a later key already.",
            ));
        }
        ring.set_epoch(epoch).map_err(|e| Error::internal("db.page_key", e))?;
        let mut next = Some(1);
        while let Some(from) = next {
            let batch: Job<Option<u32>> = Box::new(move |tx| {
                Box::pin(async move {
                    match &tx.inner {
                        TxInner::Sqlite(open) => rekey::rewrite(&open.conn, from).map_err(pages::page_error),
                        TxInner::Postgres(_) => Ok(None),
                    }
                })
            });
            next = self.write(tenant, batch).await?;
        }
        tokio::task::spawn_blocking(move || pages::finish_rekey(&ring, &path))
            .await
            .map_err(|e| Error::internal("db.rekey_task", e))?
    }
}

fn gone() -> Error {
    Error::gone("db.tenant_erased", "This clinic has been deleted.")
}

fn configure(conn: &Connection) -> Result<()> {
    keep_plans(conn).map_err(sql_error)?;
    conn.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-16000;
         PRAGMA wal_autocheckpoint=1000; PRAGMA journal_size_limit=4194304; PRAGMA foreign_keys=ON;
         PRAGMA temp_store=MEMORY; PRAGMA busy_timeout=10000;",
    )
    .map_err(sql_error)
}

/// Statements are parsed once for each connection. Without this setting SQLite plans some of them anew whenever a value
/// is bound, which costs more than running them.
fn keep_plans(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(256);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
}

/// A statement without arguments, parsed once.
fn command(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.raw_execute().map(drop)
}

fn run_migrations(conn: &mut Connection, migrations: &[&'static Migration], now: Millis) -> Result<()> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS migration (module TEXT NOT NULL, number BIGINT NOT NULL, hash BYTEA NOT NULL,
         at BIGINT NOT NULL, PRIMARY KEY (module, number))",
    )
    .map_err(sql_error)?;
    for m in migrations {
        let text = m.sqlite();
        let recorded: Option<Vec<u8>> = conn
            .query_row(
                "SELECT hash FROM migration WHERE module = ?1 AND number = ?2",
                (m.module, m.number),
                |r| r.get(0),
            )
            .map(Some)
            .or_else(|e| {
                if e == rusqlite::Error::QueryReturnedNoRows {
                    Ok(None)
                } else {
                    Err(e)
                }
            })
            .map_err(sql_error)?;
        if migrate::wanted(m, text, recorded.as_deref())? {
            let tx = conn.transaction().map_err(sql_error)?;
            tx.execute_batch(text)
                .map_err(|e| Error::internal("db.migration", format!("{} {}: {e}", m.module, m.number)))?;
            tx.execute(
                "INSERT INTO migration (module, number, hash, at) VALUES (?1, ?2, ?3, ?4)",
                (m.module, m.number, id::sha256(text.as_bytes()).to_vec(), now),
            )
            .map_err(sql_error)?;
            tx.commit().map_err(sql_error)?;
        }
    }
    Ok(())
}

/// The writer thread: takes what waits, runs all of it in one transaction, each job so that it can fail alone, commits, then
/// answers all.
fn write_loop(conn: Connection, tenant: TenantId, clock: &Clock, mut inbox: tokio::sync::mpsc::Receiver<WriterJob>) {
    let mut conn = Some(conn);
    while let Some(first) = inbox.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP {
            match inbox.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        let Some(open) = conn.take() else { return };
        conn = Some(commit_group(open, tenant, clock, group));
    }
}

/// Jobs of a group that were not begun, since the transaction ended before them, are the next group.
fn commit_group(mut conn: Connection, tenant: TenantId, clock: &Clock, mut group: Vec<WriterJob>) -> Connection {
    while !group.is_empty() {
        (conn, group) = commit_some(conn, tenant, clock, group);
    }
    conn
}

fn commit_some(
    conn: Connection,
    tenant: TenantId,
    clock: &Clock,
    group: Vec<WriterJob>,
) -> (Connection, Vec<WriterJob>) {
    if let Err(e) = command(&conn, "BEGIN IMMEDIATE") {
        refuse(group, &e);
        return (conn, Vec::new());
    }
    // Now, not before: another process may have had its turn meanwhile, and time does not run backwards in a trail.
    let now = clock.now_ms();
    let mut conn = conn;
    let mut done = Vec::with_capacity(group.len());
    let (mut jobs, mut ended) = (group.into_iter(), None);
    // While nothing stands that must stay, the transaction itself can be taken back: a savepoint would copy every page
    // that a job touches for nothing.
    let mut kept = false;
    while ended.is_none()
        && let Some(job) = jobs.next()
    {
        let saved = kept;
        if saved && let Err(e) = command(&conn, "SAVEPOINT job") {
            done.push((job.answer, Err(sql_error(e)), Vec::new()));
            continue;
        }
        let mut tx = Tx::new(TxInner::Sqlite(SqliteTx { conn }), tenant, now);
        let outcome = catch_unwind(AssertUnwindSafe(|| poll_once((job.run)(&mut tx))))
            .unwrap_or_else(|_| Err(Error::internal("db.job_panicked", "a write closure panicked")));
        let TxInner::Sqlite(SqliteTx { conn: back }) = tx.inner else {
            unreachable!("a SQLite transaction stays one")
        };
        conn = back;
        // An unreadable page, a full disk: SQLite rolls back all of it by itself, and what is run after that commits alone.
        let outcome = if conn.is_autocommit() {
            ended = Some(done.len());
            outcome.and(Err(Error::internal("db.commit", "the engine ended the transaction")))
        } else if saved {
            end_job(&conn, outcome)
        } else {
            outcome
        };
        kept |= outcome.is_ok();
        done.push((job.answer, outcome, tx.hooks));
        if !kept {
            break;
        }
    }
    let committed = match (ended, kept) {
        (Some(_), _) => Err("the engine ended the transaction".to_owned()),
        (None, true) => command(&conn, "COMMIT").map_err(|e| e.to_string()),
        (None, false) => Ok(()),
    };
    if ended.is_none() && (!kept || committed.is_err()) {
        // Refused where the engine has rolled back by itself, as on a full disk.
        let _ = command(&conn, "ROLLBACK");
    }
    for (n, (answer, outcome, hooks)) in done.into_iter().enumerate() {
        let outcome = match (&committed, outcome) {
            (Ok(()), Ok(value)) => {
                for hook in hooks {
                    let _ = catch_unwind(AssertUnwindSafe(hook));
                }
                Ok(value)
            }
            (Ok(()), Err(e)) => Err(e),
            // Whose doing it was is told why.
            (Err(_), Err(e)) if ended == Some(n) => Err(e),
            (Err(e), _) => Err(Error::internal("db.commit", e.clone())),
        };
        let _ = answer.send(outcome);
    }
    (conn, jobs.collect())
}

/// Keeps what a job did, or takes it back and leaves its neighbours' work.
fn end_job<T>(conn: &Connection, outcome: Result<T>) -> Result<T> {
    outcome
        .and_then(|value| command(conn, "RELEASE job").map(|()| value).map_err(sql_error))
        .inspect_err(|_| {
            // If even that fails, the commit fails for all.
            let _ = command(conn, "ROLLBACK TO job").and_then(|()| command(conn, "RELEASE job"));
        })
}

fn refuse(group: Vec<WriterJob>, error: &rusqlite::Error) {
    for job in group {
        let _ = job.answer.send(Err(Error::internal("db.begin", error.to_string())));
    }
}

/// Drives a future that never waits. One that does is refused: it awaited something other than its transaction.
fn poll_once<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(Error::internal(
            "db.foreign_wait",
            "a write closure awaited something else than its transaction",
        )),
    }
}

/// An open transaction: owns the connection while a job runs.
pub(crate) struct SqliteTx {
    conn: Connection,
}

impl SqliteTx {
    pub(crate) fn exec(&mut self, tenant: TenantId, sql: &Sql, args: &[Val]) -> Result<u64> {
        let text = numbered(sql);
        let mut statement = self.conn.prepare_cached(&text).map_err(sql_error)?;
        bind(&mut statement, tenant, args)?;
        statement.raw_execute().map(|n| n as u64).map_err(sql_error)
    }

    pub(crate) fn query(&mut self, tenant: TenantId, sql: &Sql, args: &[Val]) -> Result<Vec<Row>> {
        rows(&self.conn, tenant, sql, args).map_err(sql_error)
    }

    pub(crate) fn insert(&mut self, tenant: TenantId, into: &'static Insert, values: &[Val]) -> Result<u64> {
        let (one, many, _) = into.texts();
        let width = into.columns.len();
        let mut changed = 0;
        let mut chunks = values.chunks(width * CHUNK);
        for chunk in &mut chunks {
            let full = chunk.len() == width * CHUNK;
            for part in chunk.chunks(if full { width * CHUNK } else { width }) {
                let mut statement = self
                    .conn
                    .prepare_cached(if full { many } else { one })
                    .map_err(sql_error)?;
                bind(&mut statement, tenant, part)?;
                changed += statement.raw_execute().map_err(sql_error)? as u64;
            }
        }
        Ok(changed)
    }
}

fn bind(statement: &mut rusqlite::CachedStatement<'_>, tenant: TenantId, args: &[Val]) -> Result<()> {
    let given = args.len() + 1;
    if statement.parameter_count() != given {
        return Err(Error::internal(
            "db.argument_count",
            format!("{} wanted, {given} given", statement.parameter_count()),
        ));
    }
    statement.raw_bind_parameter(1, tenant.number()).map_err(sql_error)?;
    for (i, arg) in args.iter().enumerate() {
        let at = i + 2;
        match arg {
            Val::I64(v) => statement.raw_bind_parameter(at, v),
            Val::F64(v) => statement.raw_bind_parameter(at, v),
            Val::Bool(v) => statement.raw_bind_parameter(at, v),
            Val::Text(v) => statement.raw_bind_parameter(at, &**v),
            Val::Blob(v) => statement.raw_bind_parameter(at, &**v),
            Val::Uuid(v) => statement.raw_bind_parameter(at, v.as_bytes().as_slice()),
            Val::Null(_) => statement.raw_bind_parameter(at, rusqlite::types::Null),
            // The door has put them into the form that this engine stores.
            Val::Secret(_) | Val::Sealed(_) => Err(rusqlite::Error::InvalidParameterCount(at, 0)),
        }
        .map_err(sql_error)?;
    }
    Ok(())
}

fn rows(conn: &Connection, tenant: TenantId, sql: &Sql, args: &[Val]) -> rusqlite::Result<Vec<Row>> {
    let text = numbered(sql);
    let mut statement = conn.prepare_cached(&text)?;
    bind(&mut statement, tenant, args).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    let width = statement.column_count();
    let mut found = Vec::new();
    let mut raw = statement.raw_query();
    while let Some(row) = raw.next()? {
        let mut vals = Vec::with_capacity(width);
        for i in 0..width {
            vals.push(match row.get_ref(i)? {
                ValueRef::Null => Val::Null(Ty::Text),
                ValueRef::Integer(v) => Val::I64(v),
                ValueRef::Real(v) => Val::F64(v),
                ValueRef::Text(v) => Val::from(std::str::from_utf8(v).map_err(|e| rusqlite::Error::Utf8Error(i, e))?),
                ValueRef::Blob(v) => Val::from(v),
            });
        }
        found.push(Row(vals));
    }
    Ok(found)
}

enum ReadError {
    TooLong,
    Failed(Error),
}

impl ReadError {
    /// On the reading thread: there SQLite's layer has noted why a page was refused.
    fn of(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::OperationInterrupted) => Self::TooLong,
            _ => Self::Failed(sql_error(error)),
        }
    }

    fn into_error(self) -> Error {
        match self {
            Self::TooLong => super::too_long(),
            Self::Failed(e) => e,
        }
    }
}

/// A tenant in one of the process's stores.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    store: u64,
    tenant: TenantId,
}

thread_local! {
    static READERS: RefCell<HashMap<Place, Connection>> = RefCell::new(HashMap::new());
}

/// How long a query may run before it gives up as `TooLong`.
#[derive(Clone, Copy)]
enum Patience {
    /// Of SQLite's virtual machine.
    Steps(i32),
    Until(Instant),
}

/// Steps after which a long query looks at the clock.
const LOOK_EVERY: i32 = 100_000;

/// Reads on this thread's own read-only connection.
fn read(
    at: Place,
    ring: &Ring,
    path: &Path,
    sql: &Sql,
    args: &[Val],
    patience: Patience,
) -> Result<Vec<Row>, ReadError> {
    READERS.with_borrow_mut(|readers| {
        if !readers.contains_key(&at) {
            if readers.len() >= READERS_PER_THREAD {
                readers.clear();
            }
            let conn = pages::open_reader(ring, path).map_err(ReadError::Failed)?;
            keep_plans(&conn).map_err(ReadError::of)?;
            conn.execute_batch("PRAGMA cache_size=-8000; PRAGMA query_only=ON; PRAGMA busy_timeout=10000;")
                .map_err(ReadError::of)?;
            readers.insert(at, conn);
        }
        let Some(conn) = readers.get(&at) else {
            return Err(ReadError::TooLong);
        };
        match patience {
            Patience::Steps(steps) => conn.progress_handler(steps, Some(|| true)),
            Patience::Until(end) => conn.progress_handler(LOOK_EVERY, Some(move || Instant::now() >= end)),
        }
        .map_err(ReadError::of)?;
        rows(conn, at.tenant, sql, args).map_err(ReadError::of)
    })
}

/// SQLite takes `$1` for a name numbered by first appearance, so `$n` becomes `?n`; kept for each constant text.
fn numbered(sql: &Sql) -> Arc<str> {
    static KNOWN: RwLock<Option<HashMap<usize, Arc<str>>>> = RwLock::new(None);
    let rewrite = |text: &str| -> Arc<str> { text.replace('$', "?").into() };
    let std::borrow::Cow::Borrowed(text) = sql.0 else {
        return rewrite(sql.as_str());
    };
    let key = text.as_ptr() as usize;
    // Two constants may share an address only when one is the other's beginning, so the length is compared.
    if let Some(known) = KNOWN
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .and_then(|k| k.get(&key))
        && known.len() == text.len()
    {
        return known.clone();
    }
    let made = rewrite(text);
    KNOWN
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert_default()
        .insert(key, made.clone());
    made
}

fn sql_error(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::ConstraintViolation) => {
            let mut e = Error::conflict("db.constraint", "This clashes with something that is already there.");
            e.source = Some(error.to_string().into());
            e
        }
        Some(rusqlite::ErrorCode::DiskFull) => pages::disk_full(),
        _ => pages::sql_page_error(error),
    }
}
