//! Emergency access: one patient, one hour, with a reason, told to the administrators and reviewed.

use crate::{
    Error, Result, Row, TenantId, Tx,
    audit::{self, Entry},
    bus::{Bus, Event},
    clock::{Millis, rfc3339},
    db::Db,
    id,
    vault::{Cell, Field, Sheet},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How long a broken glass stays open.
pub const OPEN: Millis = 60 * 60_000;
/// Within this time someone may break the glass [`OFTEN`] times before that is told, too.
pub const WEEK: Millis = 7 * 86_400_000;
pub const OFTEN: i64 = 3;

/// It is reviewed within so many working days of the clinic (Monday to Friday), by the end of the last one.
pub const REVIEW_DAYS: u32 = 3;

/// When the review of what began at `at` is due: the first instant of the day after the last working day, in the clinic's
/// time zone.
#[must_use]
pub fn due(at: Millis, zone: &str) -> Millis {
    use jiff::{Timestamp, civil::Weekday, tz::TimeZone};
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    let mut day = Timestamp::from_millisecond(at)
        .unwrap_or_default()
        .to_zoned(zone.clone())
        .date();
    let mut left = REVIEW_DAYS;
    while left > 0 {
        day = day.saturating_add(jiff::Span::new().days(1));
        if !matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday) {
            left -= 1;
        }
    }
    let end = day.saturating_add(jiff::Span::new().days(1)).to_zoned(zone);
    // Only a date at the end of all calendars has no such instant.
    end.map_or(Millis::MAX, |z| z.timestamp().as_millisecond())
}

/// Reasons to choose from, by code.
pub const REASONS: &[&str] = &["emergency", "covering", "patient_request", "safety", "unlisted"];

/// Who asks for it, for whom, and why.
pub struct Ask<'a> {
    pub subject: &'a str,
    pub name: &'a str,
    /// Logical id.
    pub patient: &'a str,
    /// One of [`REASONS`].
    pub reason: &'a str,
    /// In their own words.
    pub note: &'a str,
}

/// One breaking of the glass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    pub id: Uuid,
    pub subject: String,
    pub name: String,
    pub patient: String,
    pub reason: String,
    pub note: String,
    pub at: Millis,
    pub until: Millis,
    pub ended_at: Option<Millis>,
    /// Until when it is to be reviewed.
    pub due: Millis,
    /// The administrator who looks into it, a subject.
    pub assignee: Option<String>,
    pub reviewed_at: Option<Millis>,
    pub reviewed_by: Option<String>,
    pub review: Option<String>,
}

/// Body of the durable event `break_glass.begun`: no clinical content, not even the reason's text.
#[derive(Serialize)]
struct Begun<'a> {
    id: Uuid,
    subject: &'a str,
    name: &'a str,
    patient: &'a str,
    reason: &'a str,
    until: String,
    /// How many times within a week, this one among them.
    times: i64,
    often: bool,
}

/// By the id.
const NAME: Field = Field::new("break_glass", "name");
const NOTE: Field = Field::new("break_glass", "note");
const FINDING: Field = Field::new("break_glass", "review");
pub(crate) const SHEET: Sheet = Sheet {
    table: "break_glass",
    key: &["id"],
    cells: &[Cell::Sealed(NAME), Cell::Sealed(NOTE), Cell::Sealed(FINDING)],
};

/// Body of the durable event `break_glass.due`, which comes when the review should be done.
#[derive(Serialize, Deserialize)]
pub struct Due {
    pub id: Uuid,
}

const COLUMNS: &str = "id, subject, name, patient, reason, note, at, until_at, ended_at, reviewed_at, reviewed_by, review, due_at, assignee";
const INSERT: &str = "INSERT INTO break_glass (tenant, id, subject, name, patient, reason, note, at, until_at, due_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const ASSIGN: &str = "UPDATE break_glass SET assignee = $3 WHERE tenant = $1 AND id = $2 AND reviewed_at IS NULL RETURNING subject, patient";
/// Tells once: nobody has told it, it was not reviewed, and its time is over.
const LATE: &str = "UPDATE break_glass SET overdue_told_at = $3 WHERE tenant = $1 AND id = $2 AND reviewed_at IS NULL
    AND overdue_told_at IS NULL AND due_at <= $3 RETURNING patient";
const TIMES: &str = "SELECT COUNT(*) FROM break_glass WHERE tenant = $1 AND subject = $2 AND at > $3";
const END: &str =
    "UPDATE break_glass SET ended_at = $4, until_at = $4 WHERE tenant = $1 AND subject = $2 AND patient = $3
    AND ended_at IS NULL AND until_at > $4";
const REVIEW: &str = "UPDATE break_glass SET reviewed_at = $3, reviewed_by = $4, review = $5
    WHERE tenant = $1 AND id = $2 AND reviewed_at IS NULL";

pub(super) async fn begin(tx: &mut Tx, bus: &Bus, zone: &str, ask: &Ask<'_>) -> Result<Broken> {
    let broken = Broken {
        id: id::uuid_v7(tx.now()),
        subject: ask.subject.to_owned(),
        name: ask.name.to_owned(),
        patient: ask.patient.to_owned(),
        reason: ask.reason.to_owned(),
        note: ask.note.to_owned(),
        at: tx.now(),
        until: tx.now() + OPEN,
        ended_at: None,
        due: due(tx.now(), zone),
        assignee: None,
        reviewed_at: None,
        reviewed_by: None,
        review: None,
    };
    let args = [
        broken.id.into(),
        ask.subject.into(),
        NAME.seal(broken.id, ask.name),
        ask.patient.into(),
        ask.reason.into(),
        NOTE.seal(broken.id, ask.note),
        broken.at.into(),
        broken.until.into(),
        broken.due.into(),
    ];
    tx.exec(INSERT, &args).await?;
    let object = format!("patient:{}", ask.patient);
    super::relate(tx, ask.subject, "break_glass", &object, Some(broken.until)).await?;
    let since = tx.now() - WEEK;
    let times = tx.query_one(TIMES, &[ask.subject.into(), since.into()]).await?.i64(0)?;
    let body = Begun {
        id: broken.id,
        subject: ask.subject,
        name: ask.name,
        patient: ask.patient,
        reason: ask.reason,
        until: rfc3339(broken.until),
        times,
        often: times > OFTEN,
    };
    let event = Event::of(tx, "break_glass.begun", format!("break_glass:{}", broken.id), &body)?.by(ask.subject);
    bus.record(tx, event).await?;
    // Under a key of its own: a row that waits holds back the later rows of its key.
    let late = Event::of(
        tx,
        "break_glass.due",
        format!("break_glass_due:{}", broken.id),
        &Due { id: broken.id },
    )?;
    bus.record_at(tx, late, broken.due).await?;
    noted(
        tx,
        ask.subject,
        &format!("break-glass begun: {}", ask.reason),
        ask.patient,
    )
    .await?;
    Ok(broken)
}

pub(super) async fn end(tx: &mut Tx, subject: &str, patient: &str) -> Result<bool> {
    let now = tx.now();
    let ended = tx.exec(END, &[subject.into(), patient.into(), now.into()]).await? > 0;
    if ended {
        super::unrelate(tx, subject, "break_glass", &format!("patient:{patient}")).await?;
        noted(tx, subject, "break-glass ended", patient).await?;
    }
    Ok(ended)
}

/// An administrator has looked into it. 404 when there is nothing (left) to review under the id; nobody reviews
/// what they did themselves.
pub async fn review(tx: &mut Tx, which: Uuid, reviewer: &str, text: &str) -> Result<()> {
    let one = format!("SELECT {COLUMNS} FROM break_glass WHERE tenant = $1 AND id = $2");
    let unknown = || Error::not_found("break_glass.unknown", "There is no such emergency access to review.");
    let row = tx
        .query_opt(crate::db::Sql::built(one), &[which.into()])
        .await?
        .ok_or_else(unknown)?;
    let broken = read(&row)?;
    if broken.subject == reviewer {
        return Err(Error::forbidden(
            "break_glass.own",
            "Somebody else reviews what you did yourself.",
        ));
    }
    let now = tx.now();
    if tx
        .exec(
            REVIEW,
            &[which.into(), now.into(), reviewer.into(), FINDING.seal(which, text)],
        )
        .await?
        == 0
    {
        return Err(unknown());
    }
    noted(tx, reviewer, &format!("break-glass reviewed: {which}"), &broken.patient).await
}

/// Gives a review to somebody, or to nobody. 404 when there is nothing (left) to review under the id; nobody is given
/// what they did themselves.
pub async fn assign(tx: &mut Tx, which: Uuid, actor: &str, to: Option<&str>) -> Result<()> {
    let row = tx.query_opt(ASSIGN, &[which.into(), to.into()]).await?;
    let row =
        row.ok_or_else(|| Error::not_found("break_glass.unknown", "There is no such emergency access to review."))?;
    if to == Some(row.text(0)?) {
        return Err(Error::forbidden(
            "break_glass.own",
            "Somebody else reviews what you did yourself.",
        ));
    }
    let patient = row.string(1)?;
    noted(
        tx,
        actor,
        &format!("break-glass review given to {}: {which}", to.unwrap_or("nobody")),
        &patient,
    )
    .await
}

/// The patient, where the review is late and nobody was told so before.
pub async fn late(tx: &mut Tx, which: Uuid) -> Result<Option<String>> {
    let now = tx.now();
    let row = tx.query_opt(LATE, &[which.into(), now.into()]).await?;
    row.map(|r| r.string(0)).transpose()
}

/// Which of them a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show<'a> {
    Waiting,
    /// Waiting, and past their time.
    Overdue,
    /// Waiting, and given to this subject.
    Of(&'a str),
    All,
}

/// Those that wait: what is due first comes first; all: the newest first.
pub async fn list(db: &Db, tenant: TenantId, show: Show<'_>, now: Millis, limit: i64) -> Result<Vec<Broken>> {
    // A row of an older release has no due time: what is due follows from when it was.
    let (which, order) = match show {
        Show::Waiting => ("reviewed_at IS NULL AND $3 >= 0 AND $4 = ''", "at, id"),
        Show::Overdue => (
            "reviewed_at IS NULL AND $4 = '' AND (due_at <= $3 OR due_at IS NULL)",
            "at, id",
        ),
        Show::Of(_) => ("reviewed_at IS NULL AND $3 >= 0 AND assignee = $4", "at, id"),
        Show::All => ("$3 >= 0 AND $4 = ''", "at DESC, id"),
    };
    let who = if let Show::Of(who) = show { who } else { "" };
    let text = format!("SELECT {COLUMNS} FROM break_glass WHERE tenant = $1 AND {which} ORDER BY {order} LIMIT $2");
    let args = [limit.into(), now.into(), who.into()];
    let rows = db.query(tenant, crate::db::Sql::built(text), &args).await?;
    rows.iter().map(read).collect()
}

/// What someone holds open now.
pub async fn open(db: &Db, tenant: TenantId, subject: &str, now: Millis) -> Result<Vec<Broken>> {
    let text = format!(
        "SELECT {COLUMNS} FROM break_glass WHERE tenant = $1 AND subject = $2 AND ended_at IS NULL AND until_at > $3 ORDER BY at"
    );
    let rows = db
        .query(tenant, crate::db::Sql::built(text), &[subject.into(), now.into()])
        .await?;
    rows.iter().map(read).collect()
}

async fn noted(tx: &mut Tx, actor: &str, detail: &str, patient: &str) -> Result<()> {
    let target = format!("Patient/{patient}");
    let entry = Entry {
        actor,
        action: "execute",
        target: &target,
        outcome: "success",
        detail,
    };
    audit::write_all(tx, &[(entry, Some(patient))]).await
}

fn read(row: &Row) -> Result<Broken> {
    let id = row.uuid(0)?;
    Ok(Broken {
        id,
        subject: row.string(1)?,
        name: NAME.open(row, 2, id)?,
        patient: row.string(3)?,
        reason: row.string(4)?,
        note: NOTE.open(row, 5, id)?,
        at: row.i64(6)?,
        until: row.i64(7)?,
        ended_at: row.opt_i64(8)?,
        due: row
            .opt_i64(12)?
            .map_or_else(|| row.i64(6).map(|at| due(at, "UTC")), Ok)?,
        assignee: row.opt_text(13)?.map(str::to_owned),
        reviewed_at: row.opt_i64(9)?,
        reviewed_by: row.opt_text(10)?.map(str::to_owned),
        review: FINDING.open_opt(row, 11, id)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::parse_rfc3339;

    #[test]
    fn a_review_is_due_after_three_working_days_of_the_clinic() {
        // Calendar of 2026: the 2nd of March is a Monday, the 29th the day clocks change in Berlin, the 8th in New York.
        for (zone, at, until) in [
            ("Europe/Berlin", "2026-03-02T09:00:00Z", "2026-03-05T23:00:00.000Z"),
            ("Europe/Berlin", "2026-03-05T09:00:00Z", "2026-03-10T23:00:00.000Z"),
            ("Europe/Berlin", "2026-03-27T09:00:00Z", "2026-04-01T22:00:00.000Z"),
            ("Europe/Berlin", "2026-03-07T09:00:00Z", "2026-03-11T23:00:00.000Z"),
            // Late on Sunday in UTC is Monday in Kathmandu.
            ("Asia/Kathmandu", "2026-03-01T20:00:00Z", "2026-03-05T18:15:00.000Z"),
            ("America/New_York", "2026-03-05T12:00:00Z", "2026-03-11T04:00:00.000Z"),
        ] {
            let at = parse_rfc3339(at).expect("a time");
            assert_eq!(rfc3339(due(at, zone)), until, "{zone}");
        }
    }
}
