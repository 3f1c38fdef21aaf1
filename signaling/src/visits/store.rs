//! The visit's tables. Every change is one transaction that first takes the visit's row, so changes follow one another.

use super::{
    machine::{self, Interval, Presence, State},
    model::{Consent, Person, Record, Requested, Rescheduled},
};
use medtech_kernel::{
    Db, Error, Result, Row, TenantId, Tx, Val,
    clock::Millis,
    policy,
    vault::{Cell, Field, Sheet},
};
use std::collections::HashSet;
use uuid::Uuid;

/// What names a person, their device, or says why they come.
pub const SHEETS: &[Sheet] = &[
    Sheet {
        table: "visit",
        key: &["id"],
        cells: &[
            Cell::Sealed(TITLE),
            Cell::Sealed(HOST),
            Cell::Sealed(GUEST),
            Cell::Sealed(CHECK),
        ],
    },
    Sheet {
        table: "visit_link",
        key: &["hash"],
        cells: &[Cell::Sealed(DEVICE)],
    },
];
const TITLE: Field = Field::new("visit", "title");
const HOST: Field = Field::new("visit", "host_name");
const GUEST: Field = Field::new("visit", "guest_name");
const CHECK: Field = Field::new("visit", "device_check");
/// By the link's hash, in hexadecimal.
const DEVICE: Field = Field::new("visit_link", "device_name");

macro_rules! columns {
    () => {
        "id, rev, state, title, start_at, host, host_name, guest, guest_name, subject_ref, context_ref, conversation, \
         checked_at, device_check, consented_at, consent_version, consent_language, arrived_at, admitted_at, ended_at, \
         cancelled_at"
    };
}

const CREATE: &str = "INSERT INTO visit (tenant, id, rev, state, title, start_at, host, host_name, guest, guest_name,
    subject_ref, context_ref, conversation) VALUES ($1, $2, 0, 'scheduled', $3, $4, $5, $6, $7, $8, $9, $10, $11)
    ON CONFLICT (tenant, id) DO NOTHING";
const ADD_LINK: &str = "INSERT INTO visit_link (tenant, hash, visit, expires_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (tenant, hash) DO NOTHING";
const ADD_PARTICIPANT: &str = "INSERT INTO visit_participant (tenant, visit, subject) VALUES ($1, $2, $3)
    ON CONFLICT (tenant, visit, subject) DO NOTHING";
/// Taking the row is an update, so that on both engines a second change of the visit waits for the first.
const TAKE: &str = concat!(
    "UPDATE visit SET rev = rev + 1 WHERE tenant = $1 AND id = $2 RETURNING ",
    columns!()
);
const READ: &str = concat!("SELECT ", columns!(), " FROM visit WHERE tenant = $1 AND id = $2");
const OF_HOST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM visit WHERE tenant = $1 AND host = $2 AND state <> 'ended' AND (arrived_at IS NOT NULL OR start_at > $3) ORDER BY start_at, id LIMIT 200"
);
const OF_TENANT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM visit WHERE tenant = $1 AND state <> 'ended' AND (arrived_at IS NOT NULL OR start_at > $2) ORDER BY start_at, id LIMIT 500"
);
const WAITING: &str =
    "SELECT id FROM visit WHERE tenant = $1 AND host = $2 AND state = 'waiting' ORDER BY arrived_at, id LIMIT 200";
const PRESENCE: &str = "SELECT subject, connection, last_seen FROM visit_participant WHERE tenant = $1 AND visit = $2";
const INTERVALS: &str =
    "SELECT subject, from_at, to_at FROM visit_interval WHERE tenant = $1 AND visit = $2 ORDER BY subject, n";
const SAVE: &str =
    "UPDATE visit SET state = $3, checked_at = $4, device_check = $5, consented_at = $6, consent_version = $7,
    consent_language = $8, arrived_at = $9, admitted_at = $10, ended_at = $11, cancelled_at = $12
    WHERE tenant = $1 AND id = $2";
const RESCHEDULE: &str =
    "UPDATE visit SET start_at = $3, subject_ref = $4, guest_name = $5 WHERE tenant = $1 AND id = $2";
const RENEW_LINK: &str = "UPDATE visit_link SET expires_at = $3 WHERE tenant = $1 AND visit = $2";
const CONNECT: &str =
    "UPDATE visit_participant SET connection = $4, last_seen = $5 WHERE tenant = $1 AND visit = $2 AND subject = $3";
const SPEND: &str =
    "INSERT INTO visit_interval (tenant, visit, subject, n, from_at, to_at) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (tenant, visit, subject, n) DO UPDATE SET from_at = excluded.from_at, to_at = excluded.to_at";
const LINK: &str = "SELECT visit, expires_at, device FROM visit_link WHERE tenant = $1 AND hash = $2";
const BIND: &str = "UPDATE visit_link SET device = $3, device_name = $4, bound_at = $5 WHERE tenant = $1 AND hash = $2";
const BEAT: &str = "UPDATE visit_participant SET last_seen = $2 WHERE tenant = $1 AND connection IS NOT NULL";
/// The part of the policy's table that says who takes part as a colleague.
const COLLEAGUES: &str =
    "SELECT subject, label FROM relation WHERE tenant = $1 AND object = $2 AND relation = 'colleague' ORDER BY subject";
/// Visits that ended have none.
const ALL_COLLEAGUES: &str = "SELECT object, subject FROM relation WHERE tenant = $1 AND object LIKE 'visit:%'
    AND relation = 'colleague' ORDER BY object, subject";
const UNDER_WAY: &str = "SELECT id FROM visit WHERE tenant = $1 AND state <> 'scheduled' AND state <> 'ended'";
const OPEN_SUBJECTS: &str =
    "SELECT id, subject_ref FROM visit WHERE tenant = $1 AND state <> 'ended' AND subject_ref LIKE 'Patient/%'";
const ABOUT_SOMEBODY: &str = "SELECT subject FROM relation WHERE tenant = $1 AND relation = 'about'";
const CONNECTIONS: &str =
    "SELECT visit, subject, connection FROM visit_participant WHERE tenant = $1 AND connection IS NOT NULL";
const CONNECTED: &str = "SELECT DISTINCT visit FROM visit_participant WHERE tenant = $1 AND connection IS NOT NULL";

/// Makes a visit with its link and participants. `false`: it is there already.
pub(crate) async fn create(
    tx: &mut Tx,
    r: &Requested,
    hash: [u8; 32],
    expires: Millis,
    conversation: Option<Uuid>,
) -> Result<bool> {
    let made = tx
        .exec(
            CREATE,
            &[
                r.visit_id.into(),
                TITLE.seal(r.visit_id, &r.title),
                r.start.into(),
                (&r.host.subject).into(),
                HOST.seal(r.visit_id, &r.host.name),
                (&r.guest.subject).into(),
                GUEST.seal(r.visit_id, &r.guest.name),
                r.subject_ref.clone().into(),
                r.context_ref.clone().into(),
                conversation.into(),
            ],
        )
        .await?;
    if made == 0 {
        return Ok(false);
    }
    tx.exec(ADD_LINK, &[hash.into(), r.visit_id.into(), expires.into()])
        .await?;
    for subject in [&r.host.subject, &r.guest.subject] {
        tx.exec(ADD_PARTICIPANT, &[r.visit_id.into(), subject.into()]).await?;
    }
    Ok(true)
}

/// The visit, taken for change until the transaction ends.
pub(crate) async fn take(tx: &mut Tx, id: Uuid) -> Result<Option<Record>> {
    let Some(row) = tx.query_opt(TAKE, &[id.into()]).await? else {
        return Ok(None);
    };
    finish(tx, &row).await.map(Some)
}

/// The visit as this transaction sees it, for showing.
pub(crate) async fn peek(tx: &mut Tx, id: Uuid) -> Result<Option<Record>> {
    let Some(row) = tx.query_opt(READ, &[id.into()]).await? else {
        return Ok(None);
    };
    finish(tx, &row).await.map(Some)
}

async fn finish(tx: &mut Tx, row: &Row) -> Result<Record> {
    let mut record = record(row)?;
    let presence = tx.query(PRESENCE, &[record.id.into()]).await?;
    let intervals = tx.query(INTERVALS, &[record.id.into()]).await?;
    join(&mut record, &presence, &intervals)?;
    let visit = format!("visit:{}", record.id);
    record.colleagues = people(&tx.query(COLLEAGUES, &[visit.as_str().into()]).await?, &visit)?;
    Ok(record)
}

fn people(rows: &[Row], visit: &str) -> Result<Vec<Person>> {
    let all = policy::labels(rows, policy::COLLEAGUE, visit)?;
    let person = |(subject, name): (String, Option<String>)| Person {
        subject,
        name: name.unwrap_or_default(),
    };
    Ok(all.into_iter().map(person).collect())
}

/// Who takes part as a colleague, and in which visit.
pub(super) async fn colleagues(db: &Db, tenant: TenantId) -> Result<Vec<(Uuid, String)>> {
    let mut all = Vec::new();
    for row in db.query(tenant, ALL_COLLEAGUES, &[]).await? {
        if let Some(Ok(visit)) = row.text(0)?.strip_prefix("visit:").map(str::parse) {
            all.push((visit, row.string(1)?));
        }
    }
    Ok(all)
}

pub(crate) async fn read(db: &Db, tenant: TenantId, id: Uuid) -> Result<Option<Record>> {
    let Some(row) = db.query_opt(tenant, READ, &[id.into()]).await? else {
        return Ok(None);
    };
    complete(db, tenant, &row).await.map(Some)
}

/// Open visits: a host's, or the whole tenant's. One to which nobody came is left out when it began before `since`.
pub(crate) async fn open(db: &Db, tenant: TenantId, host: Option<&str>, since: Millis) -> Result<Vec<Record>> {
    let rows = match host {
        Some(host) => db.query(tenant, OF_HOST, &[host.into(), since.into()]).await?,
        None => db.query(tenant, OF_TENANT, &[since.into()]).await?,
    };
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        records.push(complete(db, tenant, row).await?);
    }
    Ok(records)
}

async fn complete(db: &Db, tenant: TenantId, row: &Row) -> Result<Record> {
    let mut record = record(row)?;
    let presence = db.query(tenant, PRESENCE, &[record.id.into()]).await?;
    let intervals = db.query(tenant, INTERVALS, &[record.id.into()]).await?;
    join(&mut record, &presence, &intervals)?;
    let visit = format!("visit:{}", record.id);
    record.colleagues = people(&db.query(tenant, COLLEAGUES, &[visit.as_str().into()]).await?, &visit)?;
    Ok(record)
}

/// The queue of a host, first to arrive first.
pub(crate) async fn waiting(tx: &mut Tx, host: &str) -> Result<Vec<Uuid>> {
    tx.query(WAITING, &[host.into()])
        .await?
        .iter()
        .map(|r| r.uuid(0))
        .collect()
}

pub(crate) async fn waiting_now(db: &Db, tenant: TenantId, host: &str) -> Result<Vec<Uuid>> {
    db.query(tenant, WAITING, &[host.into()])
        .await?
        .iter()
        .map(|r| r.uuid(0))
        .collect()
}

/// Writes what changed.
pub(crate) async fn save(tx: &mut Tx, before: &Record, after: &Record) -> Result<()> {
    let check = after
        .check
        .as_ref()
        .map(serde_json::to_string)
        .transpose()
        .map_err(|e| Error::internal("visit.json", e))?;
    let (version, language) = after.consent.as_ref().map_or((None, None), |c| {
        (Some(c.text_version.clone()), Some(c.language.clone()))
    });
    tx.exec(
        SAVE,
        &[
            after.id.into(),
            after.now.state.as_str().into(),
            after.now.checked_at.into(),
            CHECK.seal_opt(after.id, check.as_deref()),
            after.now.consented_at.into(),
            version.into(),
            language.into(),
            after.now.arrived_at.into(),
            after.now.admitted_at.into(),
            after.now.ended_at.into(),
            after.now.cancelled_at.into(),
        ],
    )
    .await?;
    let now = tx.now();
    for (subject, old, new) in [
        (&after.host.subject, &before.now.host, &after.now.host),
        (&after.guest.subject, &before.now.guest, &after.now.guest),
    ] {
        if old.connection != new.connection {
            tx.exec(
                CONNECT,
                &[
                    after.id.into(),
                    subject.into(),
                    new.connection.clone().into(),
                    now.into(),
                ],
            )
            .await?;
        }
        for (n, interval) in new.intervals.iter().enumerate() {
            if old.intervals.get(n) != Some(interval) {
                let args: [Val; 5] = [
                    after.id.into(),
                    subject.into(),
                    i64::try_from(n).unwrap_or(i64::MAX).into(),
                    interval.from.into(),
                    interval.to.into(),
                ];
                tx.exec(SPEND, &args).await?;
            }
        }
    }
    Ok(())
}

/// Another time, perhaps another patient. The link stays the same and works as long as it would have had it been so from the start.
pub(super) async fn reschedule(tx: &mut Tx, before: &Record, plan: &Rescheduled) -> Result<()> {
    let subject = plan.subject_ref.as_ref().or(before.subject_ref.as_ref());
    let name = plan.guest_name.as_ref().unwrap_or(&before.guest.name);
    let args: [Val; 4] = [
        before.id.into(),
        plan.start.into(),
        subject.cloned().into(),
        GUEST.seal(before.id, name),
    ];
    tx.exec(RESCHEDULE, &args).await?;
    tx.exec(RENEW_LINK, &[before.id.into(), plan.link_expires.into()])
        .await?;
    Ok(())
}

/// A link as it is stored.
pub(crate) struct Link {
    pub visit: Uuid,
    pub expires_at: Millis,
    pub device: Option<Uuid>,
}

pub(crate) async fn link(tx: &mut Tx, hash: [u8; 32]) -> Result<Option<Link>> {
    let Some(row) = tx.query_opt(LINK, &[hash.into()]).await? else {
        return Ok(None);
    };
    Ok(Some(Link {
        visit: row.uuid(0)?,
        expires_at: row.i64(1)?,
        device: row.opt_uuid(2)?,
    }))
}

pub(crate) async fn bind(tx: &mut Tx, hash: [u8; 32], device: Uuid, name: &str) -> Result<()> {
    let now = tx.now();
    let key: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    tx.exec(BIND, &[hash.into(), device.into(), DEVICE.seal(key, name), now.into()])
        .await
        .map(|_| ())
}

/// Everyone connected was seen now.
pub(crate) async fn beat(tx: &mut Tx) -> Result<u64> {
    let now = tx.now();
    tx.exec(BEAT, &[now.into()]).await
}

/// Visits that believe somebody is connected.
pub(crate) async fn connected(db: &Db, tenant: TenantId) -> Result<Vec<Uuid>> {
    db.query(tenant, CONNECTED, &[])
        .await?
        .iter()
        .map(|r| r.uuid(0))
        .collect()
}

/// Who is written down as connected: visit, subject, connection.
pub(super) async fn connections(db: &Db, tenant: TenantId) -> Result<Vec<(Uuid, String, String)>> {
    db.query(tenant, CONNECTIONS, &[])
        .await?
        .iter()
        .map(|r| Ok((r.uuid(0)?, r.string(1)?, r.string(2)?)))
        .collect()
}

/// Visits that somebody has come to and that have not ended.
pub(super) async fn under_way(db: &Db, tenant: TenantId) -> Result<Vec<Uuid>> {
    db.query(tenant, UNDER_WAY, &[])
        .await?
        .iter()
        .map(|r| r.uuid(0))
        .collect()
}

/// Open visits that say which patient they are about and are not related to any: the visit, and the patient's id.
pub(super) async fn about_nobody(db: &Db, tenant: TenantId) -> Result<Vec<(Uuid, String)>> {
    let open = db.query(tenant, OPEN_SUBJECTS, &[]).await?;
    let related = db.query(tenant, ABOUT_SOMEBODY, &[]).await?;
    let related: HashSet<&str> = related.iter().map(|row| row.text(0)).collect::<Result<_>>()?;
    let mut all = Vec::new();
    for row in &open {
        let visit = row.uuid(0)?;
        if let Some(patient) = row.text(1)?.strip_prefix("Patient/")
            && !related.contains(format!("visit:{visit}").as_str())
        {
            all.push((visit, patient.to_owned()));
        }
    }
    Ok(all)
}

fn record(row: &Row) -> Result<Record> {
    let state = row.text(2)?;
    let consent = match (row.opt_text(15)?, row.opt_text(16)?) {
        (Some(version), Some(language)) => Some(Consent {
            accepted: true,
            text_version: version.to_owned(),
            language: language.to_owned(),
        }),
        _ => None,
    };
    let id = row.uuid(0)?;
    let check = CHECK
        .open_opt(row, 13, id)?
        .map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|e| Error::internal("visit.json", e))?;
    Ok(Record {
        id,
        rev: row.i64(1)?,
        title: TITLE.open(row, 3, id)?,
        start: row.i64(4)?,
        host: Person {
            subject: row.string(5)?,
            name: HOST.open(row, 6, id)?,
        },
        guest: Person {
            subject: row.string(7)?,
            name: GUEST.open(row, 8, id)?,
        },
        subject_ref: row.opt_text(9)?.map(str::to_owned),
        context_ref: row.opt_text(10)?.map(str::to_owned),
        conversation: row.opt_uuid(11)?,
        check,
        consent,
        host_seen: None,
        guest_seen: None,
        colleagues: Vec::new(),
        now: machine::Visit {
            state: State::parse(state)
                .ok_or_else(|| Error::internal("visit.state", format!("unknown state {state}")))?,
            checked_at: row.opt_i64(12)?,
            consented_at: row.opt_i64(14)?,
            arrived_at: row.opt_i64(17)?,
            admitted_at: row.opt_i64(18)?,
            ended_at: row.opt_i64(19)?,
            cancelled_at: row.opt_i64(20)?,
            host: Presence::default(),
            guest: Presence::default(),
        },
    })
}

fn join(record: &mut Record, presence: &[Row], intervals: &[Row]) -> Result<()> {
    for row in presence {
        let (connection, seen) = (row.opt_text(1)?.map(str::to_owned), row.opt_i64(2)?);
        if row.text(0)? == record.host.subject {
            (record.now.host.connection, record.host_seen) = (connection, seen);
        } else {
            (record.now.guest.connection, record.guest_seen) = (connection, seen);
        }
    }
    for row in intervals {
        let interval = Interval {
            from: row.i64(1)?,
            to: row.opt_i64(2)?,
        };
        let side = if row.text(0)? == record.host.subject {
            &mut record.now.host
        } else {
            &mut record.now.guest
        };
        side.intervals.push(interval);
    }
    Ok(())
}
