//! `medtech audit`: the trail proved and exported, at the machine.

mod event;

use crate::{app, cli::Audit, say};
use medtech_fhir::Fhir;
use medtech_kernel::{
    Ctx, Error, Result, Tenant, TenantId,
    audit::{self, Entry, Held},
    clock::{Millis, parse_rfc3339, rfc3339},
    config::Config,
};
use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
    time::Instant,
};

/// Entries read at once.
const PAGE: i64 = 1000;

pub(crate) async fn run(config: Config, what: Audit) -> Result<ExitCode> {
    let ctx = app::open(config).await?;
    match what {
        Audit::Verify { tenant, records } => verify(&ctx, tenant.as_deref(), records).await,
        Audit::Export { tenant, from, to } => {
            let tenant = clinic(&ctx, &tenant)?;
            let times = time("--from", from.as_deref())?.unwrap_or(0)..time("--to", to.as_deref())?.unwrap_or(i64::MAX);
            export(&ctx, &tenant, times, BufWriter::new(io::stdout())).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn clinic(ctx: &Ctx, slug: &str) -> Result<Tenant> {
    let unknown = || Error::not_found("tenant.unknown", format!("There is no clinic `{slug}` here."));
    ctx.tenants.by_slug(slug).ok_or_else(unknown)
}

/// Says of each chain whether it is as it was written, and if not, where; exit code 1 when one is not.
async fn verify(ctx: &Ctx, slug: Option<&str>, records: bool) -> Result<ExitCode> {
    let tenants = match slug {
        Some(slug) => vec![clinic(ctx, slug)?],
        None => ctx.tenants.all(),
    };
    let mut intact = true;
    for tenant in tenants {
        let start = Instant::now();
        let report = audit::examine(ctx, tenant.id).await?;
        let seconds = start.elapsed().as_secs_f64();
        intact &= report.intact;
        let word = if report.intact { "ok    " } else { "BROKEN" };
        say(&format!(
            "{word} {}: {} entries, {} checkpoints, {seconds:.2} s",
            tenant.slug, report.entries, report.checkpoints
        ));
        for finding in &report.findings {
            say(&format!("       {finding}"));
        }
        match report.vouched_at {
            Some(at) => say(&format!(
                "       vouched for up to entry {} (signed {}); a cut behind it cannot be seen",
                report.vouched,
                rfc3339(at)
            )),
            None if report.entries > 0 => say("       no checkpoint yet: a cut of the end cannot be seen"),
            None => {}
        }
        if report.file_begins_late {
            say("       the file of checkpoints was begun anew: older ones stand in the table alone");
        }
        if report.beyond_file > 0 {
            say("       the newest checkpoints stand in the table alone: another server's, or not in this file yet");
        }
        if records {
            let start = Instant::now();
            for (name, held) in stores(ctx, tenant.id).await? {
                intact &= held.wrong == 0;
                said_of(name, &held, start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(if intact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every store whose writings have digests in the trail, held against it.
async fn stores(ctx: &Ctx, tenant: TenantId) -> Result<Vec<(&'static str, Held)>> {
    Ok(vec![("records", Fhir::new(ctx.clone()).held(tenant).await?)])
}

fn said_of(name: &str, held: &Held, seconds: f64) {
    let word = if held.wrong == 0 { "ok    " } else { "BROKEN" };
    say(&format!(
        "{word} {name}: {} as written, {} deleted or erased, {} of before digests were kept (not covered), {} wrong, {seconds:.2} s",
        held.right, held.erased, held.uncovered, held.wrong
    ));
    for difference in &held.differences {
        say(&format!("       {difference}"));
    }
}

/// FHIR R4 AuditEvents, one a line, oldest first. That it was exported is audited first.
async fn export(ctx: &Ctx, tenant: &Tenant, times: std::ops::Range<Millis>, mut out: impl Write + Send) -> Result<()> {
    ctx.db
        .write(tenant.id, |tx| {
            Box::pin(async move {
                let entry = Entry {
                    actor: "system",
                    action: "read",
                    target: "audit",
                    outcome: "success",
                    detail: "export",
                };
                audit::write(tx, entry).await
            })
        })
        .await?;
    let mut after = 0;
    loop {
        let found = audit::range(&ctx.db, tenant.id, after, times.clone(), PAGE).await?;
        let (Some(first), Some(last)) = (found.first(), found.last()) else {
            break;
        };
        let lists = audit::concerned(&ctx.db, tenant.id, first.seq..=last.seq).await?;
        after = last.seq;
        for entry in &found {
            let patients = lists.get(&entry.seq).map_or(&[][..], Vec::as_slice);
            match writeln!(out, "{}", event::of(tenant, entry, patients)) {
                Ok(()) => {}
                // Who reads has had enough.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(e) => return Err(Error::internal("audit.export", e)),
            }
        }
    }
    match out.flush() {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::internal("audit.export", e)),
        _ => Ok(()),
    }
}

/// An RFC 3339 time, or a day (which begins at midnight UTC).
fn time(name: &str, text: Option<&str>) -> Result<Option<Millis>> {
    let Some(text) = text else { return Ok(None) };
    let found = parse_rfc3339(text).or_else(|| parse_rfc3339(&format!("{text}T00:00:00Z")));
    let wrong = || {
        Error::bad(
            "audit.time",
            format!("{name} is a day (2026-03-02) or an RFC 3339 time."),
        )
    };
    found.ok_or_else(wrong).map(Some)
}

#[cfg(test)]
mod tests;
