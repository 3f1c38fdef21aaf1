//! Reading the trail: pages for administrators, what was done with one patient's record, and stretches for export.

use crate::{Db, Result, Row, TenantId, Val, clock::Millis, db::Sql};

/// An entry as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub seq: i64,
    pub at: Millis,
    pub actor: String,
    pub action: String,
    pub target: String,
    pub outcome: String,
    pub detail: String,
    /// Whose record it is about.
    pub patient: Option<String>,
    pub hash: [u8; 32],
}

/// Which entries; all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only entries before this number.
    pub before: Option<i64>,
    pub actor: Option<String>,
    /// Exactly this target; `Patient/{id}` means everything about that patient.
    pub target: Option<String>,
    pub action: Option<String>,
    pub outcome: Option<String>,
    /// Not earlier than this.
    pub from: Option<Millis>,
    /// Earlier than this.
    pub to: Option<Millis>,
}

const COLUMNS: &str =
    "SELECT seq, at, actor, action, target, outcome, detail, patient, hash FROM audit WHERE tenant = $1";
const ABOUT: &str = "SELECT seq, at, actor, action, target, outcome, detail, patient, hash FROM audit
    WHERE tenant = $1 AND patient = $2 AND seq < $3 ORDER BY seq DESC LIMIT $4";
const RANGE: &str = "SELECT seq, at, actor, action, target, outcome, detail, patient, hash FROM audit
    WHERE tenant = $1 AND seq > $2 AND at >= $3 AND at < $4 ORDER BY seq LIMIT $5";

/// The newest entries that pass the filter, newest first.
pub async fn page(db: &Db, tenant: TenantId, filter: &Filter, limit: i64) -> Result<Vec<Found>> {
    let mut text = COLUMNS.to_owned();
    let mut args: Vec<Val> = Vec::new();
    let mut and = |condition: &str, value: Val| {
        args.push(value);
        text.push_str(&format!(" AND {condition} ${}", args.len() + 1));
    };
    if let Some(before) = filter.before {
        and("seq <", before.into());
    }
    let (patient, target) = match &filter.target {
        Some(target) => match target.strip_prefix("Patient/").filter(|id| !id.contains('/')) {
            Some(id) => (Some(id), None),
            None => (None, Some(target)),
        },
        None => (None, None),
    };
    for (condition, value) in [
        ("patient =", patient),
        ("target =", target.map(String::as_str)),
        ("actor =", filter.actor.as_deref()),
        ("action =", filter.action.as_deref()),
        ("outcome =", filter.outcome.as_deref()),
    ] {
        if let Some(value) = value {
            and(condition, value.into());
        }
    }
    for (condition, at) in [("at >=", filter.from), ("at <", filter.to)] {
        if let Some(at) = at {
            and(condition, at.into());
        }
    }
    args.push(limit.into());
    text.push_str(&format!(" ORDER BY seq DESC LIMIT ${}", args.len() + 1));
    found(&db.query(tenant, Sql::built(text), &args).await?)
}

/// What was done with a patient's record, newest first, before entry number `before`.
pub async fn about(db: &Db, tenant: TenantId, patient: &str, before: Option<i64>, limit: i64) -> Result<Vec<Found>> {
    let args = [patient.into(), before.unwrap_or(i64::MAX).into(), limit.into()];
    found(&db.query(tenant, ABOUT, &args).await?)
}

/// Entries after number `after` whose time is in `from..to`, oldest first.
pub async fn range(
    db: &Db,
    tenant: TenantId,
    after: i64,
    times: std::ops::Range<Millis>,
    limit: i64,
) -> Result<Vec<Found>> {
    let args = [after.into(), times.start.into(), times.end.into(), limit.into()];
    found(&db.query(tenant, RANGE, &args).await?)
}

fn found(rows: &[Row]) -> Result<Vec<Found>> {
    rows.iter()
        .map(|r| {
            Ok(Found {
                seq: r.i64(0)?,
                at: r.i64(1)?,
                actor: r.string(2)?,
                action: r.string(3)?,
                target: r.string(4)?,
                outcome: r.string(5)?,
                detail: r.string(6)?,
                patient: r.opt_text(7)?.map(str::to_owned),
                hash: super::as_hash(r.blob(8)?),
            })
        })
        .collect()
}
