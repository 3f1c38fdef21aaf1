//! Every SQL text of the records module.

use crate::vitals::Draft;
use medtech_kernel::{Db, Migration, Result, Row, TenantId, Tx, clock::Millis, db::Script};
use uuid::Uuid;

pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        module: "records",
        number: 1,
        sql: Script::Both(include_str!("../migrations/0001_init.sql")),
    },
    Migration {
        module: "records",
        number: 2,
        sql: Script::Both(include_str!("../migrations/0002_told.sql")),
    },
    Migration {
        module: "records",
        number: 3,
        sql: Script::Both(include_str!("../migrations/0003_taken.sql")),
    },
];

/// A visit and what it became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    pub id: Uuid,
    /// Logical id of its Encounter, once there is one.
    pub encounter: Option<String>,
    /// Logical id of its Patient.
    pub patient: Option<String>,
    /// What it was asked for by: `Appointment/{id}`.
    pub context: Option<String>,
    pub host: String,
    pub guest: String,
    pub started_at: Option<Millis>,
    pub ended_at: Option<Millis>,
}

const VISIT: &str = "SELECT visit, encounter, patient, context, host, guest, started_at, ended_at FROM records_visit
    WHERE tenant = $1 AND visit = $2";
/// Nobody else may fold an event into the visit until this transaction ends.
const TOUCH: &str = "UPDATE records_visit SET host = host WHERE tenant = $1 AND visit = $2";
const SAVE: &str = "INSERT INTO records_visit (tenant, visit, encounter, patient, context, host, guest, started_at, ended_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (tenant, visit) DO UPDATE SET encounter = excluded.encounter,
        patient = excluded.patient, context = excluded.context, host = excluded.host, guest = excluded.guest,
        started_at = excluded.started_at, ended_at = excluded.ended_at";
const AROUND: &str = "SELECT visit, encounter, patient, context, host, guest, started_at, ended_at FROM records_visit
    WHERE tenant = $1 AND patient = $2 AND started_at IS NOT NULL ORDER BY started_at DESC LIMIT 50";
/// Of readings of an older release nothing is known but that they were.
const CLAIMED: &str =
    "SELECT digest, received FROM records_taken WHERE tenant = $1 AND device = $2 AND code = $3 AND at = $4
    UNION ALL SELECT NULL, NULL FROM records_reading WHERE tenant = $1 AND device = $2 AND code = $3 AND at = $4";
const CLAIM: &str =
    "INSERT INTO records_taken (tenant, device, code, at, digest, received) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (tenant, device, code, at, digest) DO UPDATE SET received = excluded.received
    WHERE records_taken.received <= $7";
/// A device whose clock is wrong, and which sends the same value at the same time of its clock, repeats itself within this
/// time; after it, it has measured again.
const AGAIN: Millis = 3_600_000;
const ANNOUNCED: &str = "INSERT INTO records_result (tenant, resource, state, told) VALUES ($1, $2, $3, $4)
    ON CONFLICT (tenant, resource) DO UPDATE SET state = excluded.state, told = excluded.told
    WHERE records_result.state <> excluded.state";
const TOLD: &str = "SELECT told FROM records_result WHERE tenant = $1 AND resource = $2 AND state = $3";

fn visit(row: &Row) -> Result<Visit> {
    let text = |i| row.opt_text(i).map(|t| t.map(str::to_owned));
    Ok(Visit {
        id: row.uuid(0)?,
        encounter: text(1)?,
        patient: text(2)?,
        context: text(3)?,
        host: row.string(4)?,
        guest: row.string(5)?,
        started_at: row.opt_i64(6)?,
        ended_at: row.opt_i64(7)?,
    })
}

/// The visit, held for this transaction.
pub(crate) async fn take(tx: &mut Tx, id: Uuid) -> Result<Option<Visit>> {
    tx.exec(TOUCH, &[id.into()]).await?;
    tx.query_opt(VISIT, &[id.into()]).await?.as_ref().map(visit).transpose()
}

pub(crate) async fn find(db: &Db, tenant: TenantId, id: Uuid) -> Result<Option<Visit>> {
    db.query_opt(tenant, VISIT, &[id.into()])
        .await?
        .as_ref()
        .map(visit)
        .transpose()
}

pub(crate) async fn save(tx: &mut Tx, v: &Visit) -> Result<()> {
    let args = [
        v.id.into(),
        v.encounter.clone().into(),
        v.patient.clone().into(),
        v.context.clone().into(),
        (&v.host).into(),
        (&v.guest).into(),
        v.started_at.into(),
        v.ended_at.into(),
    ];
    tx.exec(SAVE, &args).await.map(|_| ())
}

/// The patient's latest visits that began, newest first.
pub(crate) async fn visits_of(tx: &mut Tx, patient: &str) -> Result<Vec<Visit>> {
    tx.query(AROUND, &[patient.into()]).await?.iter().map(visit).collect()
}

/// What a reading is to those that came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    First,
    /// The device has given this time to another reading before.
    SameTime,
    /// It is here already.
    Repeat,
}

/// Takes a reading in, unless it is here already.
pub(crate) async fn claim_reading(tx: &mut Tx, device: &str, draft: &Draft) -> Result<Claim> {
    let digest = tx.vault()?.blind(tx.tenant(), "records.reading", &draft.measured)?;
    let mut claim = Claim::First;
    // By a clock that is right, a moment comes once.
    let since = if draft.is_clock_believed() { Millis::MAX } else { AGAIN };
    let key = [device.into(), draft.code.as_str().into(), draft.device_time.into()];
    for row in tx.query(CLAIMED, &key).await? {
        claim = match row.opt_blob(0)? {
            None if draft.is_clock_believed() => return Ok(Claim::Repeat),
            Some(known) if known == digest => {
                if draft.received_at.saturating_sub(row.i64(1)?) < since {
                    return Ok(Claim::Repeat);
                }
                Claim::SameTime
            }
            _ => Claim::SameTime,
        };
    }
    let [device, code, at] = key;
    let before = draft.received_at.saturating_sub(since);
    let args = [device, code, at, digest.into(), draft.received_at.into(), before.into()];
    // Taken in by another server in this moment.
    let taken = tx.exec(CLAIM, &args).await? == 1;
    Ok(if taken { claim } else { Claim::Repeat })
}

/// `false`: the resource was announced in this very state before.
pub(crate) async fn announce(tx: &mut Tx, resource: &str, state: &str, told: &[String]) -> Result<bool> {
    let args = [resource.into(), state.into(), told.join(" ").into()];
    Ok(tx.exec(ANNOUNCED, &args).await? == 1)
}

/// The subjects who were told of a resource in this very state, if it was announced.
pub(crate) async fn told_of(tx: &mut Tx, resource: &str, state: &str) -> Result<Option<Vec<String>>> {
    let row = tx.query_opt(TOLD, &[resource.into(), state.into()]).await?;
    row.map(|row| Ok(row.text(0)?.split_whitespace().map(str::to_owned).collect()))
        .transpose()
}
