//! The audit trail for administrators: pages of it, and the proof that nobody changed it. Looking is itself audited, and so is
//! being refused.

use crate::TenantsModule;
use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
};
use medtech_kernel::{
    Error, Result, TenantId,
    audit::{self, Entry, Filter, Finding},
    auth::{Principal, Role},
    clock::{Millis, parse_rfc3339, rfc3339},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};
use uuid::Uuid;

/// Entries of a page, unless asked otherwise, and at most.
const PAGE: i64 = 50;
const LONGEST: i64 = 200;
const MACHINE: &str = "machine";

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ask {
    /// `next` of the page before.
    after: Option<i64>,
    actor: Option<String>,
    target: Option<String>,
    action: Option<String>,
    outcome: Option<String>,
    session: Option<Uuid>,
    /// `machine`: what was done with a token that was taken at the machine.
    issued: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<i64>,
}

#[derive(Serialize)]
pub(crate) struct Page {
    entries: Vec<Shown>,
    /// Pass this as `after` for what is older; null at the end.
    next: Option<i64>,
}

#[derive(Serialize)]
struct Shown {
    seq: i64,
    at: String,
    actor: String,
    action: String,
    target: String,
    outcome: String,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    patient: Option<String>,
    /// It is about so many patients, whom `/audit/{seq}/patients` names.
    #[serde(skip_serializing_if = "is_zero")]
    patients: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<Uuid>,
    /// The network that it was asked from, cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    /// `machine`: with a token that was taken at the machine, in the name of the actor.
    #[serde(skip_serializing_if = "Option::is_none")]
    issued: Option<&'static str>,
    /// SHA-256 of what was written, in hexadecimal, in the order of the detail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    digests: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// `GET /audit`: newest first.
pub(crate) async fn page(
    State(this): State<Arc<TenantsModule>>,
    who: Principal,
    ask: Result<Query<Ask>, QueryRejection>,
) -> Result<Json<Page>> {
    allowed(&this, &who, "read").await?;
    let Query(ask) = ask.map_err(|e| Error::bad("audit.query", format!("This is not understood: {e}")))?;
    let limit = ask.limit.unwrap_or(PAGE);
    if !(1..=LONGEST).contains(&limit) {
        let text = format!("A page has 1 to {LONGEST} entries.");
        return Err(Error::bad("audit.limit", text));
    }
    // The shape of the question, never its values.
    let names = [
        ("actor", ask.actor.is_some()),
        ("target", ask.target.is_some()),
        ("action", ask.action.is_some()),
        ("outcome", ask.outcome.is_some()),
        ("session", ask.session.is_some()),
        ("issued", ask.issued.is_some()),
        ("from", ask.from.is_some()),
        ("to", ask.to.is_some()),
    ];
    let names: Vec<&str> = names.iter().filter(|(_, given)| *given).map(|(n, _)| *n).collect();
    let detail = format!("search {}", names.join(" "));
    let filter = Filter {
        before: ask.after,
        actor: given(ask.actor),
        target: given(ask.target),
        action: given(ask.action),
        outcome: given(ask.outcome),
        session: ask.session,
        machine: issued(ask.issued)?,
        from: time("from", ask.from)?,
        to: time("to", ask.to)?,
    };
    let mut found = audit::page(&this.ctx.db, who.tenant, &filter, limit + 1).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > wanted;
    found.truncate(wanted);
    note(&this, &who, "read", "success", detail.trim_end().to_owned()).await?;
    Ok(Json(Page {
        next: found.last().filter(|_| more).map(|f| f.seq),
        entries: found
            .into_iter()
            .map(|f| Shown {
                seq: f.seq,
                at: rfc3339(f.at),
                actor: f.actor,
                action: f.action,
                target: f.target,
                outcome: f.outcome,
                detail: f.detail,
                patient: f.patient,
                patients: f.patients,
                session: f.origin.session,
                network: f.origin.network,
                issued: f.origin.machine.then_some(MACHINE),
                digests: f.digest.iter().flat_map(|d| d.chunks(32)).map(hex).collect(),
            })
            .collect(),
    }))
}

#[derive(Serialize)]
pub(crate) struct Concerned {
    patients: Vec<String>,
}

/// `GET /audit/{seq}/patients`: whose records an entry is about, where there are several.
pub(crate) async fn patients(
    State(this): State<Arc<TenantsModule>>,
    who: Principal,
    Path(seq): Path<i64>,
) -> Result<Json<Concerned>> {
    allowed(&this, &who, "read").await?;
    let mut found = audit::concerned(&this.ctx.db, who.tenant, seq..=seq).await?;
    note(&this, &who, "read", "success", format!("patients of entry {seq}")).await?;
    Ok(Json(Concerned {
        patients: found.remove(&seq).unwrap_or_default(),
    }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn issued(asked: Option<String>) -> Result<bool> {
    match given(asked).as_deref() {
        None => Ok(false),
        Some(MACHINE) => Ok(true),
        Some(_) => Err(Error::bad("audit.issued", "`issued` is `machine`.")),
    }
}

#[derive(Serialize)]
pub(crate) struct Verdict {
    intact: bool,
    entries: i64,
    findings: Vec<Named>,
    checkpoints: usize,
    /// The last entry a signed checkpoint vouches for, and when it was signed.
    vouched: i64,
    vouched_at: Option<String>,
    file_begins_late: bool,
}

#[derive(Serialize)]
struct Named {
    #[serde(flatten)]
    finding: Finding,
    text: String,
}

/// `POST /audit/verify`: walks the whole chain. One walk of a clinic at a time.
pub(crate) async fn verify(State(this): State<Arc<TenantsModule>>, who: Principal) -> Result<Json<Verdict>> {
    allowed(&this, &who, "execute").await?;
    let _turn = Turn::take(&this.verifying, who.tenant)?;
    let report = audit::examine(&this.ctx, who.tenant).await?;
    let detail = format!("verify {}", if report.intact { "intact" } else { "broken" });
    note(&this, &who, "execute", "success", detail).await?;
    Ok(Json(Verdict {
        intact: report.intact,
        entries: report.entries,
        checkpoints: report.checkpoints,
        vouched: report.vouched,
        vouched_at: report.vouched_at.map(rfc3339),
        file_begins_late: report.file_begins_late,
        findings: report
            .findings
            .into_iter()
            .map(|finding| Named {
                text: finding.to_string(),
                finding,
            })
            .collect(),
    }))
}

async fn allowed(this: &TenantsModule, who: &Principal, action: &'static str) -> Result<()> {
    if who.has(Role::Admin) {
        return Ok(());
    }
    note(this, who, action, "denied", String::new()).await?;
    Err(Error::forbidden("policy.denied", "You do not have access to this."))
}

async fn note(
    this: &TenantsModule,
    who: &Principal,
    action: &'static str,
    outcome: &'static str,
    detail: String,
) -> Result<()> {
    let actor = who.subject.clone();
    this.ctx
        .db
        .write(who.tenant, move |tx| {
            Box::pin(async move {
                let entry = Entry {
                    actor: &actor,
                    action,
                    target: "audit",
                    outcome,
                    detail: &detail,
                };
                audit::write(tx, entry).await
            })
        })
        .await
}

fn given(text: Option<String>) -> Option<String> {
    text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
}

fn time(name: &str, text: Option<String>) -> Result<Option<Millis>> {
    match given(text) {
        None => Ok(None),
        // A plus sign that was not escaped arrives as a space.
        Some(text) => parse_rfc3339(&text.replace(' ', "+"))
            .map(Some)
            .ok_or_else(|| Error::bad("audit.time", format!("`{name}` is an RFC 3339 time."))),
    }
}

/// The right to walk a clinic's chain, given back when dropped.
struct Turn<'a>(&'a Mutex<HashSet<TenantId>>, TenantId);

impl<'a> Turn<'a> {
    fn take(all: &'a Mutex<HashSet<TenantId>>, tenant: TenantId) -> Result<Self> {
        if all.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant) {
            Ok(Self(all, tenant))
        } else {
            Err(Error::too_many(
                "audit.verifying",
                "The trail is being verified already. Try again in a moment.",
            ))
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}
