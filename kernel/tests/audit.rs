//! The audit trail against somebody who writes into the database: every edit, deletion, exchange and cut is found, on both
//! engines, and the neighbours' chains stay right.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use medtech_kernel::{
    Result, TenantId, Val,
    audit::{self, Entry, Finding, Outcome},
    testkit::{World, on_both_engines},
};

/// A generator with a stated beginning (SplitMix64), so that a failure can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

async fn fill(w: &World, tenant: TenantId, count: usize) -> Result<()> {
    w.ctx
        .db
        .write(tenant, move |tx| {
            Box::pin(async move {
                for n in 0..count {
                    let (actor, patient) = (format!("user:{}", n % 7), format!("p{}", n % 5));
                    let target = format!("Observation/o{n}");
                    let entry = Entry {
                        actor: &actor,
                        action: "read",
                        target: &target,
                        outcome: "success",
                        detail: "read",
                    };
                    audit::write_all(tx, &[(entry, (n % 3 > 0).then_some(patient.as_str()))]).await?;
                }
                Ok(())
            })
        })
        .await
}

async fn run(w: &World, tenant: TenantId, sql: &'static str, args: Vec<Val>) -> Result<u64> {
    w.forge(tenant, sql, args).await
}

const ROWS: &str =
    "SELECT seq, at, actor, action, target, outcome, detail, hash, patient FROM audit WHERE tenant = $1 ORDER BY seq";
const POINTS: &str = "SELECT seq, at, hash, signature FROM audit_checkpoint WHERE tenant = $1 ORDER BY seq";
const EMPTY: &str = "DELETE FROM audit WHERE tenant = $1";
const FORGET: &str = "DELETE FROM audit_checkpoint WHERE tenant = $1";
const FORGET_LATE: &str = "DELETE FROM audit_checkpoint WHERE tenant = $1 AND seq >= $2";
const POINT: &str = "INSERT INTO audit_checkpoint (tenant, seq, at, hash, signature) VALUES ($1, $2, $3, $4, $5)";
const ROW: &str = "INSERT INTO audit (tenant, seq, at, actor, action, target, outcome, detail, hash, patient)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const CUT: &str = "DELETE FROM audit WHERE tenant = $1 AND seq >= $2";
const TAKE: &str = "DELETE FROM audit WHERE tenant = $1 AND seq = $2";
const MOVE: &str = "UPDATE audit SET seq = $3 WHERE tenant = $1 AND seq = $2";
/// One column each, in the order of [`ROWS`] from the second on.
const EDITS: [&str; 8] = [
    "UPDATE audit SET at = $3 WHERE tenant = $1 AND seq = $2",
    "UPDATE audit SET actor = $3 WHERE tenant = $1 AND seq = $2",
    "UPDATE audit SET action = $3 WHERE tenant = $1 AND seq = $2",
    "UPDATE audit SET target = $3 WHERE tenant = $1 AND seq = $2",
    "UPDATE audit SET outcome = $3 WHERE tenant = $1 AND seq = $2",
    "UPDATE audit SET detail = $3 WHERE tenant = $1 AND seq = $2",
    "UPDATE audit SET hash = $3 WHERE tenant = $1 AND seq = $2",
    "UPDATE audit SET patient = $3 WHERE tenant = $1 AND seq = $2",
];

/// The value with one bit (of a text, one letter) changed; a patient may also be taken away or put in.
fn bent(value: &Val, column: usize, dice: &mut Dice) -> Val {
    match value {
        Val::I64(v) => Val::from(v ^ (1 << dice.roll(40))),
        Val::Text(_) if column == 7 && dice.roll(2) == 0 => Val::from(None::<String>),
        Val::Text(t) => {
            let mut bytes = t.as_bytes().to_vec();
            let at = usize::try_from(dice.roll(bytes.len() as u64)).unwrap();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            Val::from(String::from_utf8(bytes).unwrap())
        }
        Val::Blob(b) => {
            let mut bytes = b.to_vec();
            let at = usize::try_from(dice.roll(bytes.len() as u64)).unwrap();
            bytes[at] ^= 1 << dice.roll(8);
            Val::from(bytes)
        }
        _ => Val::from("p9"),
    }
}

#[tokio::test]
async fn two_hundred_random_tamperings_are_all_found() {
    const ENTRIES: usize = 120;
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let mut dice = Dice(20_260_302);
            let tenants = [w.north.id, w.south.id, w.east.id];
            for tenant in tenants {
                for part in [50, ENTRIES - 50] {
                    fill(w, tenant, part).await?;
                    let done = audit::checkpoint(&w.ctx, tenant, true).await?;
                    assert!(matches!(done, Outcome::Written(_)), "{done:?}");
                }
                let report = audit::examine(&w.ctx, tenant).await?;
                assert_eq!(
                    (report.intact, report.entries, report.vouched),
                    (true, 120, 120),
                    "{report:?}"
                );
            }
            let mut found = 0;
            for round in 0..200 {
                let tenant = tenants[round % 3];
                let rows = w.ctx.db.query(tenant, ROWS, &[]).await?;
                let points = w.ctx.db.query(tenant, POINTS, &[]).await?;
                let seq = i64::try_from(dice.roll(ENTRIES as u64)).unwrap() + 1;
                let row = &rows[usize::try_from(seq - 1).unwrap()];
                let expected = match round % 5 {
                    0 => {
                        let column = usize::try_from(dice.roll(8)).unwrap();
                        let new = bent(row.get(column + 1).unwrap(), column, &mut dice);
                        run(w, tenant, EDITS[column], vec![seq.into(), new]).await?;
                        "edit"
                    }
                    1 => {
                        run(w, tenant, TAKE, vec![seq.into()]).await?;
                        "deletion"
                    }
                    2 => {
                        let other = (seq + i64::try_from(dice.roll(ENTRIES as u64 - 1)).unwrap()) % 120 + 1;
                        let other = if other == seq { seq % 120 + 1 } else { other };
                        for (from, to) in [(seq, 9999), (other, seq), (9999, other)] {
                            run(w, tenant, MOVE, vec![from.into(), to.into()]).await?;
                        }
                        "exchange"
                    }
                    3 => {
                        run(w, tenant, CUT, vec![seq.into()]).await?;
                        "cut"
                    }
                    // The tail together with the checkpoints that saw it: only the file knows.
                    _ => {
                        run(w, tenant, CUT, vec![seq.into()]).await?;
                        run(w, tenant, FORGET_LATE, vec![seq.into()]).await?;
                        "cut with its checkpoints"
                    }
                };
                let report = audit::examine(&w.ctx, tenant).await?;
                assert!(!report.intact, "round {round}: {expected} at {seq} was not found");
                let named = report.findings.iter().any(|f| match f {
                    Finding::Altered { seq: at } => expected == "exchange" || *at == seq || *at == seq + 1,
                    Finding::Missing { seq: at, .. } | Finding::Truncated { seq: at, .. } => *at == seq,
                    _ => false,
                });
                assert!(
                    named,
                    "round {round}: {expected} at {seq} was misplaced: {:?}",
                    report.findings
                );
                let refused = audit::checkpoint(&w.ctx, tenant, true).await?;
                assert!(!matches!(refused, Outcome::Written(_)), "round {round}: {refused:?}");
                for other in tenants.iter().filter(|t| **t != tenant) {
                    assert!(
                        audit::examine(&w.ctx, *other).await?.intact,
                        "round {round}: a neighbour was blamed"
                    );
                }
                found += 1;
                // Everything back as it was.
                run(w, tenant, EMPTY, vec![]).await?;
                run(w, tenant, FORGET, vec![]).await?;
                let back: Vec<Vec<Val>> = rows
                    .iter()
                    .map(|r| (0..9).map(|i| r.get(i).cloned().unwrap()).collect())
                    .collect();
                let signed: Vec<Vec<Val>> = points
                    .iter()
                    .map(|r| (0..4).map(|i| r.get(i).cloned().unwrap()).collect())
                    .collect();
                w.ctx
                    .db
                    .write(tenant, move |tx| {
                        Box::pin(async move {
                            for args in &back {
                                tx.exec(ROW, args).await?;
                            }
                            for args in &signed {
                                tx.exec(POINT, args).await?;
                            }
                            Ok(())
                        })
                    })
                    .await?;
                assert!(
                    audit::examine(&w.ctx, tenant).await?.intact,
                    "round {round}: not restored"
                );
            }
            assert_eq!(found, 200);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_chain_written_anew_is_found_and_a_stranger_cannot_sign_it() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let north = w.north.id;
            fill(w, north, 30).await?;
            audit::checkpoint(&w.ctx, north, true).await?;
            // The hashes alone are made again by anyone: this chain is right in itself.
            run(w, north, EMPTY, vec![]).await?;
            w.ctx.clock.advance(1);
            fill(w, north, 40).await?;
            assert_eq!(audit::verify(&w.ctx.db, north).await?, Ok(40));
            let report = audit::examine(&w.ctx, north).await?;
            assert_eq!(report.findings, [Finding::Rewritten { seq: 30 }]);
            // Nor does a checkpoint help that another tenant's key has signed.
            fill(w, w.south.id, 40).await?;
            audit::checkpoint(&w.ctx, w.south.id, true).await?;
            let foreign = w.ctx.db.query(w.south.id, POINTS, &[]).await?;
            let args = (0..4).map(|i| foreign[0].get(i).cloned().unwrap()).collect();
            run(w, north, POINT, args).await?;
            let report = audit::examine(&w.ctx, north).await?;
            assert!(report.findings.contains(&Finding::Forged { seq: 40 }), "{report:?}");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn entries_put_before_the_first_or_behind_the_last_are_found() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let north = w.north.id;
            fill(w, north, 5).await?;
            audit::checkpoint(&w.ctx, north, true).await?;
            let model = w.ctx.db.query(north, ROWS, &[]).await?;
            for (seq, until) in [
                (0, 1),
                (-7, 1),
                (i64::MIN + 1, 1),
                (6, 6),
                (5000, 5000),
                (i64::MAX, i64::MAX),
            ] {
                let mut args: Vec<Val> = (0..9).map(|i| model[4].get(i).cloned().unwrap()).collect();
                args[0] = Val::I64(seq);
                run(w, north, ROW, args).await?;
                let report = audit::examine(&w.ctx, north).await?;
                assert!(!report.intact && report.entries == 6, "{seq}: {report:?}");
                assert!(
                    audit::verify(&w.ctx.db, north).await?.is_err_and(|at| at <= until),
                    "{seq}"
                );
                run(w, north, TAKE, vec![seq.into()]).await?;
                assert!(audit::examine(&w.ctx, north).await?.intact);
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn checkpoints_are_due_by_the_hour_and_by_ten_thousand() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let north = w.north.id;
            let due = || audit::checkpoint(&w.ctx, north, false);
            assert_eq!(due().await?, Outcome::NothingDue);
            fill(w, north, 1).await?;
            assert!(matches!(due().await?, Outcome::Written(c) if c.seq == 1));
            fill(w, north, 5).await?;
            assert_eq!(due().await?, Outcome::NothingDue);
            w.ctx.clock.advance(3_600_000);
            assert!(matches!(due().await?, Outcome::Written(c) if c.seq == 6));
            w.ctx.clock.advance(3_600_000);
            assert_eq!(due().await?, Outcome::NothingDue);
            fill(w, north, 10_000).await?;
            assert!(matches!(due().await?, Outcome::Written(c) if c.seq == 10_006));
            let report = audit::examine(&w.ctx, north).await?;
            assert_eq!((report.intact, report.checkpoints), (true, 3), "{report:?}");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn checkpoints_themselves_are_watched() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let north = w.north.id;
            for _ in 0..3 {
                fill(w, north, 10).await?;
                audit::checkpoint(&w.ctx, north, true).await?;
            }
            let path = w
                .ctx
                .config
                .data_dir
                .join("audit")
                .join(format!("checkpoints-{north}.log"));
            let text = std::fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let examine = || audit::examine(&w.ctx, north);
            // A line taken out, a line bent, a line spoilt, the file gone.
            std::fs::write(&path, format!("{}\n{}\n", lines[0], lines[2])).unwrap();
            assert_eq!(examine().await?.findings, [Finding::CheckpointGoneFromFile { seq: 20 }]);
            std::fs::write(&path, text.replace("\"seq\":20", "\"seq\":19")).unwrap();
            assert!(examine().await?.findings.contains(&Finding::Forged { seq: 19 }));
            std::fs::write(&path, format!("{}\n{}\n{}\n", lines[0], &lines[1][..40], lines[2])).unwrap();
            assert!(examine().await?.findings.contains(&Finding::Unreadable { line: 2 }));
            std::fs::remove_file(&path).unwrap();
            assert_eq!(examine().await?.findings.len(), 3);
            std::fs::write(&path, &text).unwrap();
            assert!(examine().await?.intact);
            // Stopped between file and table: no alarm, and the table learns it.
            run(w, north, FORGET_LATE, vec![30_i64.into()]).await?;
            assert!(examine().await?.intact);
            fill(w, north, 1).await?;
            audit::checkpoint(&w.ctx, north, true).await?;
            assert_eq!(w.ctx.db.query(north, POINTS, &[]).await?.len(), 4);
            assert!(examine().await?.intact);
            // Deleted from the table: found.
            run(w, north, FORGET_LATE, vec![20_i64.into()]).await?;
            assert!(
                examine()
                    .await?
                    .findings
                    .contains(&Finding::CheckpointGoneFromTable { seq: 20 })
            );
            Ok(())
        })
    })
    .await;
}

/// Two servers on one database, each with a data directory of its own.
#[tokio::test]
async fn a_checkpoint_of_another_server_is_learnt_and_no_sign_of_tampering() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let north = w.north.id;
            let theirs = tempfile::tempdir().unwrap();
            let other = medtech_kernel::Ctx {
                config: std::sync::Arc::new(medtech_kernel::config::Config {
                    data_dir: theirs.path().to_owned(),
                    ..medtech_kernel::config::Config::default()
                }),
                ..w.ctx.clone()
            };
            for round in 0..3 {
                for ctx in [&w.ctx, &other] {
                    fill(w, north, 10).await?;
                    let made = audit::checkpoint(ctx, north, true).await?;
                    assert!(matches!(made, Outcome::Written(_)), "{made:?}");
                    // Before the other has looked, but for the very first time, and after.
                    for ctx in [&w.ctx, &other].into_iter().filter(|_| round > 0) {
                        let report = audit::examine(ctx, north).await?;
                        assert!(report.intact && report.beyond_file <= 1, "round {round}: {report:?}");
                    }
                    for ctx in [&w.ctx, &other] {
                        assert_eq!(audit::checkpoint(ctx, north, false).await?, Outcome::NothingDue);
                        let report = audit::examine(ctx, north).await?;
                        let told = format!("round {round}: {report:?}");
                        assert!(report.intact && report.findings.is_empty(), "{told}");
                        assert_eq!(Some(report.vouched), Some(report.entries), "{told}");
                    }
                }
            }
            // Each file ends up with what the other has signed, and a line taken out of either is still missed.
            let name = format!("audit/checkpoints-{north}.log");
            let path = w.ctx.config.data_dir.join(name);
            let text = std::fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 6, "{text}");
            std::fs::write(&path, format!("{}\n{}\n", lines[0], lines[2..].join("\n"))).unwrap();
            let report = audit::examine(&w.ctx, north).await?;
            assert_eq!(report.findings, [Finding::CheckpointGoneFromFile { seq: 20 }]);
            assert!(audit::examine(&other, north).await?.intact);
            // Nor does one learn what another key has signed.
            std::fs::write(&path, &text).unwrap();
            fill(w, w.south.id, 61).await?;
            audit::checkpoint(&w.ctx, w.south.id, true).await?;
            let foreign = w.ctx.db.query(w.south.id, POINTS, &[]).await?;
            fill(w, north, 1).await?;
            run(
                w,
                north,
                POINT,
                (0..4).map(|i| foreign[0].get(i).cloned().unwrap()).collect(),
            )
            .await?;
            let refused = audit::checkpoint(&w.ctx, north, true).await?;
            assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            Ok(())
        })
    })
    .await;
}
