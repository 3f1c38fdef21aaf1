//! Every SQL text of the appointments module.

use medtech_kernel::{Db, Error, Migration, Result, Row, TenantId, Tx, clock::Millis, db::Script};
use uuid::Uuid;

pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    module: "appointments",
    number: 1,
    sql: Script::Both(include_str!("../migrations/0001_init.sql")),
}];

/// Time taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Booking {
    /// Logical id of the Appointment.
    pub appointment: String,
    /// Logical id of the Practitioner.
    pub practitioner: String,
    pub start: Millis,
    /// Exclusive.
    pub end: Millis,
    pub active: bool,
    /// The visit it was booked with.
    pub visit: Option<Uuid>,
}

const LOCK: &str = "INSERT INTO appointments_calendar (tenant, practitioner, bookings) VALUES ($1, $2, 1)
    ON CONFLICT (tenant, practitioner) DO UPDATE SET bookings = appointments_calendar.bookings + 1";
const CLASH: &str = "SELECT appointment FROM appointments_booking
    WHERE tenant = $1 AND practitioner = $2 AND active AND start_at < $4 AND end_at > $3 LIMIT 1";
const SAVE: &str =
    "INSERT INTO appointments_booking (tenant, appointment, practitioner, start_at, end_at, active, visit)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant, appointment, practitioner) DO UPDATE SET
        start_at = excluded.start_at, end_at = excluded.end_at, active = excluded.active,
        visit = COALESCE(appointments_booking.visit, excluded.visit)";
const DROP: &str = "DELETE FROM appointments_booking WHERE tenant = $1 AND appointment = $2";
const OF: &str = "SELECT appointment, practitioner, start_at, end_at, active, visit FROM appointments_booking
    WHERE tenant = $1 AND appointment = $2";
const OWN: &str = "SELECT appointment, practitioner, start_at, end_at, active, visit FROM appointments_booking
    WHERE tenant = $1 AND practitioner = $2 AND start_at >= $3 AND start_at < $4 ORDER BY start_at, appointment LIMIT 500";
const EVERY: &str = "SELECT appointment, practitioner, start_at, end_at, active, visit FROM appointments_booking
    WHERE tenant = $1 AND start_at >= $2 AND start_at < $3 ORDER BY start_at, appointment LIMIT 500";

fn booking(row: &Row) -> Result<Booking> {
    Ok(Booking {
        appointment: row.string(0)?,
        practitioner: row.string(1)?,
        start: row.i64(2)?,
        end: row.i64(3)?,
        active: row.bool(4)?,
        visit: row.opt_uuid(5)?,
    })
}

/// Refuses what overlaps an active booking. Until the transaction ends, nobody else books this Practitioner's time, so
/// the answer stays true.
pub(crate) async fn reserve(tx: &mut Tx, practitioner: &str, start: Millis, end: Millis) -> Result<()> {
    tx.exec(LOCK, &[practitioner.into()]).await?;
    match tx
        .query_opt(CLASH, &[practitioner.into(), start.into(), end.into()])
        .await?
    {
        None => Ok(()),
        Some(_) => Err(Error::conflict(
            "appointments.clash",
            "This clinician already has an appointment at that time.",
        )),
    }
}

pub(crate) async fn save(tx: &mut Tx, b: &Booking) -> Result<()> {
    let args = [
        (&b.appointment).into(),
        (&b.practitioner).into(),
        b.start.into(),
        b.end.into(),
        b.active.into(),
        b.visit.into(),
    ];
    tx.exec(SAVE, &args).await.map(|_| ())
}

/// What was booked by an appointment.
pub(crate) async fn of(tx: &mut Tx, appointment: &str) -> Result<Vec<Booking>> {
    tx.query(OF, &[appointment.into()]).await?.iter().map(booking).collect()
}

pub(crate) async fn clear(tx: &mut Tx, appointment: &str) -> Result<()> {
    tx.exec(DROP, &[appointment.into()]).await.map(|_| ())
}

/// Bookings that start in `from..to`: of one Practitioner, or of all.
pub(crate) async fn between(
    db: &Db,
    tenant: TenantId,
    practitioner: Option<&str>,
    from: Millis,
    to: Millis,
) -> Result<Vec<Booking>> {
    let rows = match practitioner {
        Some(practitioner) => {
            db.query(tenant, OWN, &[practitioner.into(), from.into(), to.into()])
                .await?
        }
        None => db.query(tenant, EVERY, &[from.into(), to.into()]).await?,
    };
    rows.iter().map(booking).collect()
}
