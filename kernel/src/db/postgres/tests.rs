//! What the wall between tenants rests on in PostgreSQL: no connection keeps a tenant, no table lacks the wall, no role of
//! ours rewrites the trail.

#![expect(clippy::print_stdout, reason = "the figures of the run")]

use super::*;
use crate::{MIGRATIONS, audit, testkit};
use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, Waker},
};

async fn addresses() -> Option<(String, String)> {
    let server = std::env::var("MEDTECH_TEST_PG").ok()?;
    Some(testkit::pg::fresh(&server).await.expect("a database"))
}

async fn open() -> Option<(Postgres, String, String)> {
    let (url, owner) = addresses().await?;
    let all: Vec<&'static Migration> = MIGRATIONS.iter().collect();
    let db = Postgres::open(&url, Some(&owner), Clock::system(), &all).await;
    Some((db.expect("the store opens"), url, owner))
}

/// Drives a future a number of times and drops it where it stands: what a client does that goes away.
async fn drop_after<F: Future>(future: F, polls: u32) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        let done = matches!(
            future.as_mut().poll(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(_)
        );
        if done {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

/// A request is dropped at every point of its life, ten thousand times over, for changing tenants; whatever connection is
/// looked at between them is outside of every transaction and names no tenant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_dropped_requests_leave_no_connection_with_a_tenant() {
    const DROPS: u32 = 10_000;
    const TASKS: u32 = 8;
    let Some((db, ..)) = open().await else { return };
    let db = Arc::new(db);
    let (dropped, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (db, dropped, seen) = (db.clone(), dropped.clone(), seen.clone());
        tasks.spawn(async move {
            let (mut n, mut own) = (0_u32, 0);
            while own < DROPS / TASKS {
                n += 1;
                let tenant = TenantId::from_number(i64::from(1 + (n + task) % 3));
                let sql = Sql::from("SELECT COUNT(*) FROM session WHERE tenant = $1");
                if !drop_after(db.query(tenant, &sql, &[]), n % 24).await {
                    own += 1;
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
                if n % 8 == 0 {
                    assert_clean(&db.pool).await;
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    let all = async { while tasks.join_next().await.transpose().expect("no task panics").is_some() {} };
    tokio::time::timeout(Duration::from_secs(240), all)
        .await
        .expect("the storm ends");
    let held = all_of(&db.pool).await;
    assert_eq!(held, vec![String::new(); held.len()]);
    println!(
        "{} requests dropped under way, {} connections looked at, 0 with a tenant",
        dropped.load(Ordering::Relaxed),
        seen.load(Ordering::Relaxed)
    );
    assert_eq!(dropped.load(Ordering::Relaxed), u64::from(DROPS));
}

async fn tenant_of(conn: &mut PoolConnection<Pg>) -> String {
    let row = conn
        .fetch_one("SELECT COALESCE(current_setting('app.tenant', true), '') || CASE WHEN now() = statement_timestamp() THEN '' ELSE '!' END")
        .await
        .expect("a connection answers");
    row.try_get(0).expect("a text")
}

async fn assert_clean(pool: &PgPool) {
    let mut conn = pool.acquire().await.expect("a connection");
    assert_eq!(tenant_of(&mut conn).await, "");
}

/// Every connection of the pool at once.
async fn all_of(pool: &PgPool) -> Vec<String> {
    let mut held = Vec::new();
    for _ in 0..POOL {
        held.push(pool.acquire().await.expect("a connection"));
    }
    let mut all = Vec::new();
    for conn in &mut held {
        all.push(tenant_of(conn).await);
    }
    all
}

/// The same storm without the rule of the pool: the trap is real, and this test would see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_rule_a_dropped_begin_leaks_its_tenant() {
    let Some((url, _)) = addresses().await else { return };
    let pool = plain(PgPoolOptions::new())
        .max_connections(1)
        .connect(&url)
        .await
        .expect("a pool");
    // Which moment leaks depends on how fast the server answers: every one is tried, again and again, until one does.
    for n in 0..20_000_u32 {
        let _ = drop_after(begin(&pool, TenantId::from_number(7), ""), n % 20).await;
        let mut conn = pool.acquire().await.expect("a connection");
        if !tenant_of(&mut conn).await.is_empty() {
            println!("without the rule: the connection came back with a tenant at the {n}th drop");
            return;
        }
        conn.execute("ROLLBACK").await.expect("a rollback");
    }
    panic!("no dropped BEGIN leaked: the storm above proves nothing");
}

#[tokio::test]
async fn every_table_with_a_tenant_has_the_wall_and_it_is_forced() {
    const BARE: &str = "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant'
        WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND NOT (c.relrowsecurity AND c.relforcerowsecurity
          AND (SELECT COUNT(*) FROM pg_policy p WHERE p.polrelid = c.oid AND p.polcmd = '*' AND p.polqual IS NOT NULL
               AND p.polwithcheck IS NOT NULL) = 1)";
    let Some((db, ..)) = open().await else { return };
    let bare: Vec<String> = sqlx::query_scalar(BARE)
        .fetch_all(&db.pool)
        .await
        .expect("the catalogue");
    assert_eq!(bare, Vec::<String>::new());
    let walled: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM pg_policy")
        .fetch_one(&db.pool)
        .await
        .expect("the catalogue");
    assert!(walled > 10, "{walled}");
    let above: bool = sqlx::query_scalar("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
        .fetch_one(&db.pool)
        .await
        .expect("the role");
    assert!(!above, "the application's role stands under the wall");
}

#[tokio::test]
async fn the_applications_role_adds_to_the_trail_and_cannot_change_it() {
    let Some((db, _, owner)) = open().await else { return };
    let tenant = TenantId::from_number(1);
    let entry = audit::Entry {
        actor: "user:1",
        action: "read",
        target: "Patient/p",
        outcome: "success",
        detail: "",
    };
    let add: Job<()> = Box::new(move |tx| Box::pin(async move { audit::write(tx, entry).await }));
    db.write(tenant, add).await.expect("an entry is added");
    for sql in [
        "UPDATE audit SET actor = 'user:2' WHERE tenant = $1",
        "DELETE FROM audit WHERE tenant = $1",
        "UPDATE audit_checkpoint SET seq = 1 WHERE tenant = $1",
        "DELETE FROM audit_checkpoint WHERE tenant = $1",
        "INSERT INTO audit (tenant, seq, at, actor, action, target, outcome, detail, hash)
            VALUES ($1, 1, 0, '', '', '', '', '', '') ON CONFLICT (tenant, seq) DO UPDATE SET actor = 'user:2'",
    ] {
        let forge: Job<u64> = Box::new(move |tx| Box::pin(async move { tx.exec(sql, &[]).await }));
        let refused = db.write(tenant, forge).await.expect_err("refused");
        let why = refused.source.map(|s| s.to_string()).unwrap_or_default();
        assert!(why.contains("permission denied"), "{sql}: {why}");
    }
    for sql in [
        "TRUNCATE audit",
        "DROP TABLE audit",
        "ALTER TABLE audit NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY tenant_wall ON audit",
    ] {
        assert!(db.pool.execute(sql).await.is_err(), "{sql}");
    }
    // Another start grants again, and what was taken away stays away.
    let all: Vec<&'static Migration> = MIGRATIONS.iter().collect();
    let again = PgPoolOptions::new().connect(&owner).await.expect("the owner");
    let role: String = sqlx::query_scalar("SELECT current_user::text")
        .fetch_one(&db.pool)
        .await
        .expect("a role");
    run_migrations(&again, &all, 0, Some(&role)).await.expect("migrations");
    let may: bool =
        sqlx::query_scalar("SELECT has_table_privilege('audit', 'UPDATE') OR has_table_privilege('audit', 'DELETE')")
            .fetch_one(&db.pool)
            .await
            .expect("privileges");
    assert!(!may);
    // And only the owner's role deletes a tenant, with its trail.
    let gone = db.erase(tenant).await.expect("erased");
    assert!(gone.contains(&("audit".to_owned(), 1)), "{gone:?}");
}

/// What was written before has an earlier time, however long one waited for one's turn.
#[tokio::test]
async fn a_transactions_time_is_that_of_its_turn() {
    let Some((url, owner)) = addresses().await else { return };
    let (clock, all) = (Clock::manual(testkit::START), MIGRATIONS.iter().collect::<Vec<_>>());
    let db = Postgres::open(&url, Some(&owner), clock.clone(), &all).await;
    let (db, tenant) = (db.expect("the store opens"), TenantId::from_number(1));
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let (begun, started) = tokio::sync::oneshot::channel::<()>();
    let slow: Job<Millis> = Box::new(move |tx| {
        Box::pin(async move {
            let _ = (begun.send(()), wait.await);
            Ok(tx.now())
        })
    });
    let quick: Job<Millis> = Box::new(move |tx| Box::pin(async move { Ok(tx.now()) }));
    let then = async {
        started.await.expect("the first has its turn");
        // By now the second waits for it.
        clock.advance(5_000);
        go.send(()).expect("the first waits");
    };
    let (first, second, ()) = tokio::join!(biased; db.write(tenant, slow), db.write(tenant, quick), then);
    assert_eq!(first.expect("written"), testkit::START);
    assert_eq!(second.expect("written"), testkit::START + 5_000);
}

/// Whose connection was cut inside of a transaction is given up by the server; meanwhile the others are told to come again.
#[tokio::test]
async fn a_lock_that_nobody_lets_go_of_is_waited_for_a_while_and_ends_by_itself() {
    let Some((db, ..)) = open().await else { return };
    let tenant = TenantId::from_number(1);
    let lost = begin(&db.pool, tenant, &its_turn(tenant, PATIENCE))
        .await
        .expect("a turn");
    let waited = begin(&db.pool, tenant, &its_turn(tenant, Duration::from_millis(50))).await;
    assert_eq!(
        waited.err().map(|e| (e.kind, e.code)),
        Some((crate::error::Kind::Unavailable, "db.busy"))
    );
    // Another clinic's writers are not kept.
    let other = TenantId::from_number(2);
    assert!(begin(&db.pool, other, &its_turn(other, PATIENCE)).await.is_ok());
    drop(lost);
    let mut tx = begin(&db.pool, tenant, "; SET LOCAL idle_in_transaction_session_timeout = 50")
        .await
        .expect("a turn");
    let ask = "SELECT name || ' ' || setting FROM pg_settings WHERE $1 > 0 AND name IN ('idle_in_transaction_session_timeout',
        'tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count') ORDER BY 1";
    let rows = tx.query(tenant, &Sql::from(ask), &[]).await.expect("the settings");
    let set: Vec<_> = rows.iter().map(|r| r.string(0).expect("a text")).collect();
    assert_eq!(
        set,
        [
            "idle_in_transaction_session_timeout 50",
            "tcp_keepalives_count 3",
            "tcp_keepalives_idle 30",
            "tcp_keepalives_interval 10"
        ]
    );
    // The server ends it, and whoever comes back to it is told to try again.
    let mut watching = db.pool.acquire().await.expect("a connection");
    loop {
        let idle: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
        )
        .fetch_one(&mut *watching)
        .await
        .expect("the activity");
        if idle == 0 {
            break;
        }
    }
    let late = tx.query(tenant, &Sql::from("SELECT $1::bigint"), &[]).await;
    assert_eq!(late.err().map(|e| e.code), Some("db.away"));
    let timeout: String = sqlx::query_scalar("SHOW idle_in_transaction_session_timeout")
        .fetch_one(&mut *watching)
        .await
        .expect("a setting");
    assert_eq!(timeout, "1min");
}
