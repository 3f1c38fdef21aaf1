//! What an older release wrote in clear is sealed beside the work of the day, clinic by clinic.

use medtech_fhir::Fhir;
use medtech_kernel::{
    Ctx, Result, TenantId,
    vault::{self, Sheet},
};
use medtech_messaging::Messaging;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How often it is looked for what is left; also an older server beside this one may have written meanwhile.
const EVERY: Duration = Duration::from_secs(6 * 3600);

/// Every column of every part that is sealed by itself.
pub(crate) const SHEETS: [&[Sheet]; 5] = [
    medtech_kernel::SHEETS,
    medtech_identity::SHEETS,
    medtech_messaging::SHEETS,
    medtech_notifications::SHEETS,
    medtech_signaling::visits::SHEETS,
];

/// Looks after every clinic at once and then a few times a day, until `stop` turns true.
pub(crate) async fn run(ctx: Ctx, fhir: Fhir, messaging: Arc<Messaging>, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        for tenant in ctx.tenants.all() {
            let sweep = sweep(&ctx, &fhir, &messaging, tenant.id);
            let swept = tokio::select! {
                swept = sweep => swept,
                // Whatever is half done is one batch, and that is all or nothing.
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match swept {
                Ok(0) => {}
                Ok(rows) => tracing::info!(tenant = %tenant.id, rows, "sealed what was written in clear before"),
                Err(e) => tracing::warn!(tenant = %tenant.id, error = ?e, "sealing older rows will be tried again"),
            }
        }
    }
}

/// Seals everything of a clinic that is not; answers how many rows were not.
pub(crate) async fn sweep(ctx: &Ctx, fhir: &Fhir, messaging: &Messaging, tenant: TenantId) -> Result<u64> {
    let mut rows = 0;
    for sheets in SHEETS {
        rows += vault::sweep(&ctx.db, tenant, sheets).await?;
    }
    rows += fhir.reseal(tenant).await?;
    rows += messaging.reseal(tenant).await?;
    Ok(rows)
}

/// A clinic's progress in a few words: nothing left, or what has still to be gone through.
pub(crate) async fn progress(ctx: &Ctx, tenant: TenantId) -> Result<String> {
    let all = vault::progress(&ctx.db, tenant).await?;
    let rows: i64 = all.iter().map(|p| p.rows).sum();
    let open: Vec<&str> = all
        .iter()
        .filter(|p| p.done_at.is_none())
        .map(|p| p.sheet.as_str())
        .collect();
    Ok(match (all.is_empty(), open.is_empty()) {
        (true, _) => "older rows: not looked at yet".to_owned(),
        (false, true) => format!("older rows: all sealed ({rows} were not)"),
        (false, false) => format!("older rows: {rows} sealed, not through with {}", open.join(", ")),
    })
}
