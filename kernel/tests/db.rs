//! The door, on both engines: round trips, walls between tenants, rollback, bulk rows, durable events.

use medtech_kernel::{
    BoxFuture, Error, Migration, Result, TenantId, Val, audit,
    auth::Role,
    bus::{self, Event},
    db::{Engine, Insert, Script, Ty},
    error::Kind,
    tenant::{Status, Tenants},
    testkit::{World, on_both_engines},
    upkeep,
};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tokio::sync::watch;

const THINGS: &[Migration] = &[Migration {
    module: "things",
    number: 1,
    sql: Script::Both(
        "CREATE TABLE thing (tenant BIGINT NOT NULL, id BIGINT NOT NULL, name TEXT, weight DOUBLE PRECISION, ok BOOLEAN, raw BYTEA, u UUID,
         PRIMARY KEY (tenant, id))",
    ),
}];
const ADD: &str = "INSERT INTO thing (tenant, id, name, weight, ok, raw, u) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const ALL: &str = "SELECT id, name, weight, ok, raw, u FROM thing WHERE tenant = $1 ORDER BY id";
const COUNT: &str = "SELECT COUNT(*) FROM thing WHERE tenant = $1";
const COUNT_ANY: &str = "SELECT COUNT(*) FROM thing WHERE tenant = $1 OR tenant <> $1";
static THING: Insert = Insert::new("thing", &[("id", Ty::I64), ("name", Ty::Text)]);
static THING_OR_SKIP: Insert = Insert::new("thing", &[("id", Ty::I64), ("name", Ty::Text)]).or_skip();

async fn both(body: impl for<'a> Fn(&'a World) -> BoxFuture<'a, Result<()>>) {
    on_both_engines(&[THINGS], body).await;
}

async fn add(w: &World, tenant: TenantId, id: i64) -> Result<u64> {
    let args: Vec<Val> = vec![
        id.into(),
        "n".into(),
        1.5.into(),
        true.into(),
        vec![1_u8, 0, 255].into(),
        uuid::Uuid::from_u128(9).into(),
    ];
    w.ctx
        .db
        .write(tenant, move |tx| Box::pin(async move { tx.exec(ADD, &args).await }))
        .await
}

async fn count(w: &World, tenant: TenantId, sql: &'static str) -> Result<i64> {
    w.ctx.db.query_one(tenant, sql, &[]).await?.i64(0)
}

#[tokio::test]
async fn every_type_comes_back_as_it_went_in() {
    both(|w| {
        Box::pin(async move {
            add(w, w.north.id, 1).await?;
            let nulls: Vec<Val> = vec![
                2_i64.into(),
                None::<String>.into(),
                None::<f64>.into(),
                None::<bool>.into(),
                None::<Vec<u8>>.into(),
                None::<uuid::Uuid>.into(),
            ];
            w.ctx
                .db
                .write(w.north.id, move |tx| {
                    Box::pin(async move { tx.exec(ADD, &nulls).await })
                })
                .await?;
            let rows = w.ctx.db.query(w.north.id, ALL, &[]).await?;
            let r = &rows[0];
            assert_eq!((r.i64(0)?, r.text(1)?, r.f64(2)?, r.bool(3)?), (1, "n", 1.5, true));
            assert_eq!(
                (r.blob(4)?, r.uuid(5)?),
                (&[1_u8, 0, 255][..], uuid::Uuid::from_u128(9))
            );
            let r = &rows[1];
            assert_eq!(
                (
                    r.opt_text(1)?,
                    r.opt_f64(2)?,
                    r.opt_bool(3)?,
                    r.opt_blob(4)?,
                    r.opt_uuid(5)?
                ),
                (None, None, None, None, None)
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_tenant_sees_only_its_own_rows_even_when_the_statement_asks_for_all() {
    both(|w| {
        Box::pin(async move {
            for (tenant, rows) in [(&w.north, 3), (&w.south, 2)] {
                for id in 0..rows {
                    add(w, tenant.id, id).await?;
                }
            }
            assert_eq!(count(w, w.north.id, COUNT_ANY).await?, 3);
            assert_eq!(count(w, w.south.id, COUNT_ANY).await?, 2);
            assert_eq!(count(w, w.east.id, COUNT_ANY).await?, 0);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn text_that_one_engine_cannot_hold_is_refused_by_both() {
    both(|w| {
        Box::pin(async move {
            let asked = w.ctx.db.query(w.north.id, "SELECT $1, $2", &["a\0b".into()]).await;
            let sent = w.ctx.db.write(w.north.id, |tx| {
                Box::pin(async move { tx.insert(&THING, &[1_i64.into(), "\0".into()]).await })
            });
            for outcome in [asked.map(|_| 0), sent.await] {
                assert_eq!(
                    outcome.err().map(|e| (e.kind, e.code)),
                    Some((Kind::Unprocessable, "text.nul"))
                );
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn writers_that_touch_the_same_rows_in_opposite_order_all_come_through() {
    const TOUCH: &str = "UPDATE thing SET weight = 1.5 WHERE tenant = $1 AND id = $2";
    both(|w| {
        Box::pin(async move {
            add(w, w.north.id, 1).await?;
            add(w, w.north.id, 2).await?;
            let touch = |first: i64, second: i64| {
                w.ctx.db.write(w.north.id, move |tx| {
                    Box::pin(async move {
                        tx.exec(TOUCH, &[first.into()]).await?;
                        tx.exec(TOUCH, &[second.into()]).await
                    })
                })
            };
            for _ in 0..20 {
                let all = tokio::join!(touch(1, 2), touch(2, 1), touch(1, 2), touch(2, 1));
                for outcome in [all.0, all.1, all.2, all.3] {
                    assert_eq!(outcome?, 1);
                }
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_failed_job_leaves_nothing_and_its_neighbours_stay() {
    both(|w| {
        Box::pin(async move {
            let failing = w.ctx.db.write(w.north.id, |tx| {
                Box::pin(async move {
                    tx.insert(&THING, &[1_i64.into(), "a".into()]).await?;
                    Err::<(), _>(Error::bad("test.refused", "no"))
                })
            });
            let (failed, added) = tokio::join!(failing, add(w, w.north.id, 2));
            assert_eq!(failed.err().map(|e| e.code), Some("test.refused"));
            added?;
            let clash = add(w, w.north.id, 2).await;
            assert_eq!(clash.err().map(|e| e.code), Some("db.constraint"));
            assert_eq!(count(w, w.north.id, COUNT).await?, 1);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_panicking_job_ends_alone() {
    both(|w| {
        Box::pin(async move {
            let outcome: Result<()> = w
                .ctx
                .db
                .write(w.north.id, |_| Box::pin(async { panic!("on purpose") }))
                .await;
            assert_eq!(outcome.err().map(|e| e.code), Some("db.job_panicked"));
            add(w, w.north.id, 1).await?;
            assert_eq!(count(w, w.north.id, COUNT).await?, 1);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn bulk_rows_of_any_number_arrive_and_existing_ones_can_be_skipped() {
    both(|w| {
        Box::pin(async move {
            for (tenant, n) in [(&w.north, 1_i64), (&w.south, 64), (&w.east, 200)] {
                let values: Vec<Val> = (0..n).flat_map(|i| [i.into(), format!("n{i}").into()]).collect();
                let again = values.clone();
                w.ctx
                    .db
                    .write(tenant.id, move |tx| {
                        Box::pin(async move { tx.insert(&THING, &values).await })
                    })
                    .await?;
                w.ctx
                    .db
                    .write(tenant.id, move |tx| {
                        Box::pin(async move { tx.insert(&THING_OR_SKIP, &again).await })
                    })
                    .await?;
                assert_eq!(count(w, tenant.id, COUNT).await?, n);
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_statement_without_the_tenant_is_refused() {
    both(|w| {
        Box::pin(async move {
            let refused = w.ctx.db.query(w.north.id, "SELECT id FROM thing", &[]).await;
            assert_eq!(refused.err().map(|e| e.code), Some("db.statement_without_tenant"));
            Ok(())
        })
    })
    .await;
}

async fn record(w: &World, key: &str, n: i64) -> Result<()> {
    let (bus, key) = (w.ctx.bus.clone(), key.to_owned());
    w.ctx
        .db
        .write(w.north.id, move |tx| {
            Box::pin(async move {
                let event = Event::of(tx, "thing.made", key, &n)?;
                bus.record(tx, event).await
            })
        })
        .await
}

#[tokio::test]
async fn of_writes_that_wait_together_each_stands_or_falls_alone() {
    both(|w| {
        Box::pin(async move {
            w.ctx.bus.register("probe", &["thing.made"]);
            // Those that fail first, last, alone and in a row among those that stand.
            let fails = |n: i64| n < 3 || n % 3 == 0 || (40..50).contains(&n) || n > 75;
            let mut all = tokio::task::JoinSet::new();
            for n in 0..80 {
                let (db, bus, tenant) = (w.ctx.db.clone(), w.ctx.bus.clone(), w.north.id);
                all.spawn(async move {
                    let work = db.write(tenant, move |tx| {
                        Box::pin(async move {
                            let event = Event::of(tx, "thing.made", format!("k{n}"), &n)?;
                            bus.record(tx, event).await?;
                            match fails(n) {
                                true => Err(Error::conflict("test.no", "no")),
                                false => Ok(n),
                            }
                        })
                    });
                    (n, work.await)
                });
            }
            while let Some(done) = all.join_next().await {
                let (n, outcome) = done.expect("a task");
                assert_eq!(outcome.is_err(), fails(n), "{n}: {outcome:?}");
            }
            let mut stand = Vec::new();
            for event in w.ctx.bus.waiting(w.north.id, "probe").await? {
                stand.push(event.parse::<i64>()?);
            }
            stand.sort_unstable();
            assert_eq!(stand, (0..80).filter(|n| !fails(*n)).collect::<Vec<_>>());
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn durable_events_come_in_order_of_their_key_and_a_failing_key_holds_no_other() {
    both(|w| {
        Box::pin(async move {
            w.ctx.bus.register("probe", &["thing.made"]);
            for n in 0..5 {
                record(w, "a", n).await?;
                record(w, "b", n).await?;
            }
            let (seen, mut got) = tokio::sync::mpsc::unbounded_channel();
            let failures = Arc::new(AtomicU32::new(0));
            let (stop, stopped) = watch::channel(false);
            let worker = w.ctx.bus.consume("probe", w.ctx.tenants.clone(), stopped, {
                let failures = failures.clone();
                move |event| {
                    let (seen, failures) = (seen.clone(), failures.clone());
                    async move {
                        let n: i64 = event.parse()?;
                        if event.key == "a" && n == 2 && failures.fetch_add(1, Ordering::SeqCst) < 2 {
                            return Err(Error::unavailable("test.later", "later"));
                        }
                        let _ = seen.send((event.key, n));
                        Ok(())
                    }
                }
            });
            let mut all = Vec::new();
            // The clock stands still unless moved: a row that backs off becomes due only this way.
            let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
            while all.len() < 10 {
                tokio::select! {
                    one = got.recv() => all.extend(one),
                    _ = tick.tick() => w.ctx.clock.advance(1_000),
                }
            }
            for key in ["a", "b"] {
                let of_key: Vec<i64> = all.iter().filter(|(k, _)| k == key).map(|(_, n)| *n).collect();
                assert_eq!(of_key, [0, 1, 2, 3, 4]);
            }
            let _ = stop.send(true);
            let _ = worker.await;
            Ok(())
        })
    })
    .await;
}

/// Delivers `thing.made` to the group `probe` until stopped; `refuse` says which events fail.
fn probe(
    w: &World,
    refuse: fn(&str, i64) -> bool,
) -> (
    tokio::sync::mpsc::UnboundedReceiver<(String, i64)>,
    watch::Sender<bool>,
    tokio::task::JoinHandle<()>,
) {
    let (seen, got) = tokio::sync::mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let worker = w
        .ctx
        .bus
        .consume("probe", w.ctx.tenants.clone(), stopped, move |event| {
            let seen = seen.clone();
            async move {
                let n: i64 = event.parse()?;
                let refused = refuse(&event.key, n);
                let _ = seen.send((event.key, n));
                if refused {
                    return Err(Error::unavailable("test.later", "later"));
                }
                Ok(())
            }
        });
    (got, stop, worker)
}

#[tokio::test]
async fn more_events_than_a_batch_are_handled_once_each_and_leave_nothing() {
    both(|w| {
        Box::pin(async move {
            w.ctx.bus.register("probe", &["thing.made"]);
            let bus = w.ctx.bus.clone();
            w.ctx
                .db
                .write(w.south.id, move |tx| {
                    Box::pin(async move {
                        for n in 0..250_i64 {
                            let event = Event::of(tx, "thing.made", "a", &n)?;
                            bus.record(tx, event).await?;
                        }
                        Ok(())
                    })
                })
                .await?;
            let (mut got, stop, worker) = probe(w, |_, _| false);
            for n in 0..250 {
                assert_eq!(got.recv().await, Some(("a".into(), n)));
            }
            // What comes while the worker waits wakes it, in another tenant too.
            record(w, "b", 1).await?;
            assert_eq!(got.recv().await, Some(("b".into(), 1)));
            let _ = stop.send(true);
            let _ = worker.await;
            assert!(got.try_recv().is_err());
            for tenant in [&w.north, &w.south] {
                assert!(w.ctx.bus.backlog(tenant.id).await?.is_empty());
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn an_event_that_always_fails_holds_its_key_until_it_is_a_dead_letter() {
    both(|w| {
        Box::pin(async move {
            w.ctx.bus.register("probe", &["thing.made"]);
            for n in 0..5 {
                record(w, "a", n).await?;
                record(w, "b", n).await?;
            }
            let (mut got, stop, worker) = probe(w, |key, n| key == "a" && n == 2);
            let mut first = Vec::new();
            while first.len() < 8 {
                first.extend(got.recv().await);
            }
            let of = |all: &[(String, i64)], key: &str| -> Vec<i64> {
                all.iter().filter(|(k, _)| k == key).map(|(_, n)| *n).collect()
            };
            assert_eq!((of(&first, "a"), of(&first, "b")), (vec![0, 1, 2], vec![0, 1, 2, 3, 4]));
            // Seven more attempts, each when its time has come; other keys go on in between.
            let mut later = Vec::new();
            for n in 5..12 {
                w.ctx.clock.advance(60_000);
                record(w, "b", n).await?;
                while !later.contains(&("b".to_owned(), n)) {
                    later.extend(got.recv().await);
                }
            }
            while of(&later, "a").len() < 9 {
                later.extend(got.recv().await);
            }
            assert_eq!(of(&later, "a"), [2, 2, 2, 2, 2, 2, 2, 3, 4]);
            assert_eq!(of(&later, "b"), [5, 6, 7, 8, 9, 10, 11]);
            let _ = stop.send(true);
            let _ = worker.await;
            assert!(w.ctx.bus.backlog(w.north.id).await?.is_empty());
            let dead = w.ctx.bus.dead_letters(w.north.id).await?;
            assert_eq!(
                dead.iter().map(|d| (&*d.key, &*d.error)).collect::<Vec<_>>(),
                [("a", "test.later")]
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn the_second_handling_of_an_event_is_seen() {
    both(|w| {
        Box::pin(async move {
            let id = uuid::Uuid::from_u128(5);
            for expected in [true, false] {
                let first = w
                    .ctx
                    .db
                    .write(w.north.id, move |tx| {
                        Box::pin(async move { bus::once(tx, "g", id).await })
                    })
                    .await?;
                assert_eq!(first, expected);
            }
            Ok(())
        })
    })
    .await;
}

const FORGE: &str = "UPDATE audit SET actor = $2 WHERE tenant = $1 AND seq = 2";

#[tokio::test]
async fn an_edited_audit_entry_is_found() {
    both(|w| {
        Box::pin(async move {
            for _ in 0..3 {
                w.ctx
                    .db
                    .write(w.north.id, |tx| {
                        Box::pin(async move {
                            let entry = audit::Entry {
                                actor: "user:1",
                                action: "read",
                                target: "Patient/1",
                                outcome: "success",
                                detail: "",
                            };
                            audit::write(tx, entry).await
                        })
                    })
                    .await?;
            }
            assert_eq!(audit::verify(&w.ctx.db, w.north.id).await?, Ok(3));
            w.forge(w.north.id, FORGE, vec!["user:2".into()]).await?;
            assert_eq!(audit::verify(&w.ctx.db, w.north.id).await?, Err(2));
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_token_opens_its_own_tenant_only_and_ends_when_revoked_or_old() {
    both(|w| {
        Box::pin(async move {
            let (who, token) = w.sign_in(&w.north, "user:1", Role::Clinician).await?;
            assert_eq!(who.roles, [Role::Clinician]);
            let elsewhere = w.ctx.sessions.verify(w.south.id, &token).await;
            assert_eq!(elsewhere.err().map(|e| e.code), Some("auth.token_unknown"));
            w.ctx.clock.advance(3_600_000);
            assert_eq!(
                w.ctx.sessions.verify(w.north.id, &token).await.err().map(|e| e.code),
                Some("auth.token_expired")
            );
            let (who, token) = w.sign_in(&w.north, "user:1", Role::Clinician).await?;
            let sessions = w.ctx.sessions.clone();
            w.ctx
                .db
                .write(w.north.id, move |tx| {
                    Box::pin(async move { sessions.revoke(tx, who.session).await })
                })
                .await?;
            assert_eq!(
                w.ctx.sessions.verify(w.north.id, &token).await.err().map(|e| e.code),
                Some("auth.token_unknown")
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn housekeeping_keeps_what_is_still_needed() {
    both(|w| {
        Box::pin(async move {
            let (who, token) = w.sign_in(&w.north, "user:1", Role::Clinician).await?;
            let first = uuid::Uuid::from_u128(5);
            let mark = |id| {
                w.ctx.db.write(w.north.id, move |tx| {
                    Box::pin(async move { bus::once(tx, "g", id).await })
                })
            };
            mark(first).await?;
            assert_eq!(upkeep::tidy(&w.ctx.db, w.north.id).await?, 0);
            assert_eq!(w.ctx.sessions.verify(w.north.id, &token).await?, who);
            w.ctx.clock.advance(30 * 24 * 3_600_000 + 1_800_000);
            mark(uuid::Uuid::from_u128(6)).await?;
            assert_eq!(upkeep::tidy(&w.ctx.db, w.north.id).await?, 1, "the old event");
            assert!(!mark(uuid::Uuid::from_u128(6)).await?, "the new one is still known");
            w.ctx.clock.advance(3_600_000);
            assert_eq!(
                upkeep::tidy(&w.ctx.db, w.north.id).await?,
                1,
                "the session that ended a month ago"
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn an_erased_tenant_leaves_nothing_and_its_neighbours_everything() {
    both(|w| {
        Box::pin(async move {
            for tenant in [w.north.id, w.south.id] {
                for id in 0..3 {
                    add(w, tenant, id).await?;
                }
                w.sign_in(w.ctx.tenants.by_id(tenant).as_ref().unwrap(), "user:1", Role::Admin)
                    .await?;
            }
            let gone = w.ctx.db.erase_tenant(w.north.id).await?;
            assert!(
                gone.contains(&("thing".to_owned(), 3)) && gone.contains(&("session".to_owned(), 1)),
                "{gone:?}"
            );
            assert_eq!(count(w, w.south.id, COUNT).await?, 3);
            match w.ctx.db.engine() {
                Engine::Postgres => assert_eq!(count(w, w.north.id, COUNT).await?, 0),
                Engine::Sqlite => {
                    assert_eq!(
                        count(w, w.north.id, COUNT).await.err().map(|e| e.code),
                        Some("db.tenant_erased")
                    );
                    let left = std::fs::read_dir(w.dir.path().join("db")).unwrap();
                    let left: Vec<_> = left.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
                    let north = format!("tenant-{}.db", w.north.id);
                    assert!(!left.iter().any(|f| f.starts_with(&north)), "{left:?}");
                }
            }
            assert_eq!(
                w.ctx.db.erase_tenant(TenantId::SYSTEM).await.err().map(|e| e.code),
                Some("db.erase_system")
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn the_register_of_another_process_follows() {
    both(|w| {
        Box::pin(async move {
            let other = Tenants::open(w.ctx.db.clone()).await?;
            let (stop, stopped) = watch::channel(false);
            let (follower, mut told) = (other.clone(), other.subscribe());
            let task = tokio::spawn(async move { follower.follow(stopped).await });
            let (_, token) = w.sign_in(&w.south, "user:1", Role::Admin).await?;

            w.ctx.tenants.set_status(w.south.id, Status::Suspended).await?;
            told.wait_for(|_| other.by_id(w.south.id).is_some_and(|t| t.status == Status::Suspended))
                .await
                .unwrap();
            let closed = w.ctx.sessions.verify(w.south.id, &token).await.err().map(|e| e.code);
            assert_eq!(closed, Some("tenant.suspended"));
            w.ctx.tenants.set_status(w.south.id, Status::Active).await?;
            assert!(
                w.ctx.sessions.verify(w.south.id, &token).await.is_ok(),
                "the session has stood"
            );

            // A number that was given out is not given out again.
            let last = w.ctx.tenants.create("west", "West", "UTC", &[]).await?;
            w.ctx.tenants.bury(last.id, "{}".into(), "user:1").await?;
            assert!(w.ctx.tenants.by_id(last.id).is_none() && w.ctx.tenants.by_slug("west").is_none());
            let next = w.ctx.tenants.create("west", "West", "UTC", &[]).await?;
            assert!(next.id > last.id);
            told.wait_for(|_| other.by_slug("west").is_some_and(|t| t.id == next.id))
                .await
                .unwrap();
            stop.send_replace(true);
            task.await.unwrap();
            Ok(())
        })
    })
    .await;
}

/// A question without an end is ended, and nobody else waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_takes_too_long_is_ended() {
    const ENDLESS: &str = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000000000000)
        SELECT COUNT(*) FROM n WHERE $1 = $1";
    on_both_engines(&[], |w| {
        Box::pin(async move {
            w.ctx.db.limit_reads(std::time::Duration::from_millis(300));
            let north = w.north.id;
            let db = w.ctx.db.clone();
            let endless = tokio::spawn(async move { db.query(north, ENDLESS, &[]).await.map(|rows| rows.len()) });
            let quick = "SELECT COUNT(*) FROM tenant WHERE tenant = $1";
            for _ in 0..20 {
                w.ctx.db.query_one(north, quick, &[]).await?;
            }
            let error = endless.await.expect("no panic").expect_err("it has no end");
            assert_eq!((error.status().as_u16(), error.code), (503, "db.query_too_long"));
            // What is asked after it is answered, on the same connections.
            for _ in 0..40 {
                w.ctx.db.query_one(north, quick, &[]).await?;
            }
            Ok(())
        })
    })
    .await;
}
