//! How fast the audit trail is written and verified here: `cargo run --release --features testkit --example audit_speed [rows]`.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a measuring tool")]

use medtech_kernel::{
    Result,
    audit::{self, Entry},
    testkit::World,
};
use std::time::Instant;

/// Entries of one transaction, as the audit of reads writes them.
const BATCH: usize = 250;

#[tokio::main]
async fn main() -> Result<()> {
    let rows = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(200_000);
    measure("SQLite", &World::sqlite(&[]).await?, rows).await?;
    if let Some(world) = World::postgres(&[]).await? {
        measure("PostgreSQL", &world, rows).await?;
    }
    Ok(())
}

async fn measure(name: &str, w: &World, rows: usize) -> Result<()> {
    let start = Instant::now();
    for _ in 0..rows / BATCH {
        w.ctx
            .db
            .write(w.north.id, |tx| {
                Box::pin(async move {
                    let entry = Entry {
                        actor: "user:0190a000-0000-7000-8000-000000000001",
                        action: "read",
                        target: "Observation/0190a000-0000-7000-8000-000000000002",
                        outcome: "success",
                        detail: "search patient category date _sort _count",
                    };
                    let patient = Some("0190a000-0000-7000-8000-000000000003");
                    audit::write_all(tx, &[(entry, patient); BATCH]).await
                })
            })
            .await?;
    }
    let written = start.elapsed().as_secs_f64();
    audit::checkpoint(&w.ctx, w.north.id, true).await?;
    let start = Instant::now();
    let report = audit::examine(&w.ctx, w.north.id).await?;
    let walked = start.elapsed().as_secs_f64();
    let count = report.entries as f64;
    println!(
        "{name}: {count} entries, intact {}; written {:.0} a second, verified {:.0} a second",
        report.intact,
        count / written,
        count / walked
    );
    Ok(())
}
