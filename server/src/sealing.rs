//! What an older release wrote in clear is sealed beside the work of the day, clinic by clinic.

use medtech_fhir::Fhir;
use medtech_kernel::{
    Ctx, Result, TenantId,
    vault::{self, Sheet},
};
use medtech_messaging::Messaging;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::sync::watch;

/// How often it is looked for what could not be gone through. What an older server beside this one writes meanwhile is
/// found at the next start, until a look a day after a clean end has found nothing either: no older server runs by then.
const EVERY: Duration = Duration::from_secs(6 * 3600);
/// The stores that seal by themselves.
const RECORDS: &str = "fhir";
const MESSAGES: &str = "message.body";

/// Every column of every part that is sealed by itself.
pub(crate) const SHEETS: [&[Sheet]; 5] = [
    medtech_kernel::SHEETS,
    medtech_identity::SHEETS,
    medtech_messaging::SHEETS,
    medtech_notifications::SHEETS,
    medtech_signaling::visits::SHEETS,
];

/// What has been gone through to its end since the start, which is not looked at again.
type Through = HashSet<(TenantId, &'static str)>;

/// Looks after every clinic at once and then a few times a day, until `stop` turns true.
pub(crate) async fn run(ctx: Ctx, fhir: Fhir, messaging: Arc<Messaging>, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(EVERY);
    let mut through = Through::new();
    loop {
        tokio::select! {
            _ = every.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        for tenant in ctx.tenants.all() {
            let sweep = sweep(&ctx, &fhir, &messaging, tenant.id, &mut through);
            let rows = tokio::select! {
                rows = sweep => rows,
                // Whatever is half done is one batch, and that is all or nothing.
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if rows > 0 {
                tracing::info!(tenant = %tenant.id, rows, "sealed what was written in clear before");
            }
        }
    }
}

/// Seals everything of a clinic that is not; answers how many rows were not. A table or store that fails keeps no other
/// from being sealed, and is tried again the next time.
async fn sweep(ctx: &Ctx, fhir: &Fhir, messaging: &Messaging, tenant: TenantId, through: &mut Through) -> u64 {
    let mut rows = 0;
    for sheet in SHEETS.into_iter().flatten() {
        if !through.contains(&(tenant, sheet.table)) {
            let swept = vault::sweep(&ctx.db, tenant, std::slice::from_ref(sheet)).await;
            rows += counted(tenant, sheet.table, swept, through);
        }
    }
    if !through.contains(&(tenant, RECORDS)) {
        rows += counted(tenant, RECORDS, fhir.reseal(tenant).await, through);
    }
    if !through.contains(&(tenant, MESSAGES)) {
        rows += counted(tenant, MESSAGES, messaging.reseal(tenant).await, through);
    }
    rows
}

fn counted(tenant: TenantId, part: &'static str, swept: Result<u64>, through: &mut Through) -> u64 {
    match swept {
        Ok(rows) => {
            through.insert((tenant, part));
            rows
        }
        Err(e) => {
            tracing::warn!(tenant = %tenant, part, error = ?e, "sealing older rows will be tried again");
            0
        }
    }
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
