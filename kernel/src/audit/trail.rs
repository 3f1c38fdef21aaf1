//! Reading the trail: pages for administrators, what was done with one patient's record, and stretches for export.

use super::Origin;
use crate::{Db, Result, Row, TenantId, Val, clock::Millis, db::Sql};
use std::collections::BTreeMap;
use uuid::Uuid;

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
    /// Whose records it is about, where there are several: so many, see [`concerned`].
    pub patients: i64,
    pub hash: [u8; 32],
    pub origin: Origin,
    /// SHA-256 of what was written, 32 bytes each, in the order of the detail.
    pub digest: Option<Vec<u8>>,
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
    pub session: Option<Uuid>,
    /// Only what was done with a token that was taken at the machine.
    pub machine: bool,
    /// Not earlier than this.
    pub from: Option<Millis>,
    /// Earlier than this.
    pub to: Option<Millis>,
}

/// The columns of [`found`]. A macro, because statements are constants.
macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT seq, at, actor, action, target, outcome, detail, patient, hash, session, network, issued, digest,
            CASE WHEN concerned IS NULL THEN 0 ELSE (SELECT COUNT(*) FROM audit_about p
            WHERE p.tenant = audit.tenant AND p.seq = audit.seq) END FROM audit WHERE tenant = $1",
            $rest
        )
    };
}
const COLUMNS: &str = columns!("");
/// By patient `$2`: the entries about one, and those about several, each by its own index.
const ONE_PATIENT: &str = columns!(" AND patient = $2");
const AMONG_OTHERS: &str = columns!(
    " AND concerned IS NOT NULL AND seq IN (SELECT l.seq FROM audit_about l WHERE l.tenant = $1 AND l.patient = $2)"
);
const RANGE: &str = columns!(" AND seq > $2 AND at >= $3 AND at < $4 ORDER BY seq LIMIT $5");
const CONCERNED: &str = "SELECT seq, patient FROM audit_about WHERE tenant = $1 AND seq >= $2 AND seq <= $3";

/// The newest entries that pass the filter, newest first.
pub async fn page(db: &Db, tenant: TenantId, filter: &Filter, limit: i64) -> Result<Vec<Found>> {
    let (patient, target) = match &filter.target {
        Some(target) => match target.strip_prefix("Patient/").filter(|id| !id.contains('/')) {
            Some(id) => (Some(id), None),
            None => (None, Some(target)),
        },
        None => (None, None),
    };
    let mut args: Vec<Val> = patient.map(Val::from).into_iter().collect();
    let mut conditions = String::new();
    let mut and = |condition: &str, value: Val| {
        args.push(value);
        conditions.push_str(&format!(" AND {condition} ${}", args.len() + 1));
    };
    if let Some(before) = filter.before {
        and("seq <", before.into());
    }
    for (condition, value) in [
        ("target =", target.map(String::as_str)),
        ("actor =", filter.actor.as_deref()),
        ("action =", filter.action.as_deref()),
        ("outcome =", filter.outcome.as_deref()),
        ("issued =", filter.machine.then_some(super::origin::MACHINE)),
    ] {
        if let Some(value) = value {
            and(condition, value.into());
        }
    }
    if let Some(session) = filter.session {
        and("session =", session.into());
    }
    for (condition, at) in [("at >=", filter.from), ("at <", filter.to)] {
        if let Some(at) = at {
            and(condition, at.into());
        }
    }
    args.push(limit.into());
    let text = match patient {
        Some(_) => format!("{ONE_PATIENT}{conditions} UNION ALL {AMONG_OTHERS}{conditions}"),
        None => format!("{COLUMNS}{conditions}"),
    };
    let text = format!("{text} ORDER BY seq DESC LIMIT ${}", args.len() + 1);
    found(&db.query(tenant, Sql::built(text), &args).await?)
}

/// What was done with a patient's record, newest first, before entry number `before`.
pub async fn about(db: &Db, tenant: TenantId, patient: &str, before: Option<i64>, limit: i64) -> Result<Vec<Found>> {
    let filter = Filter {
        before,
        target: Some(format!("Patient/{patient}")),
        ..Filter::default()
    };
    page(db, tenant, &filter, limit).await
}

/// Whose records the entries `seqs` are about, where they are about several; by entry, in the order of their ids.
pub async fn concerned(
    db: &Db,
    tenant: TenantId,
    seqs: std::ops::RangeInclusive<i64>,
) -> Result<BTreeMap<i64, Vec<String>>> {
    let args = [(*seqs.start()).into(), (*seqs.end()).into()];
    let mut all: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for row in db.query(tenant, CONCERNED, &args).await? {
        all.entry(row.i64(0)?).or_default().push(row.string(1)?);
    }
    // By bytes, which a database's own order need not be.
    for patients in all.values_mut() {
        patients.sort_unstable();
    }
    Ok(all)
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
                origin: Origin {
                    session: r.opt_uuid(9)?,
                    network: r.opt_text(10)?.map(str::to_owned),
                    machine: r.opt_text(11)?.is_some(),
                },
                digest: r.opt_blob(12)?.map(<[u8]>::to_vec),
                patients: r.i64(13)?,
            })
        })
        .collect()
}
