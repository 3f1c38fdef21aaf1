//! Relations, written by the modules in their own transactions: single ones, and who treats whom as resources say it.

use super::table::PROXY_SCOPES;
use crate::{Result, Tx, clock::Millis};

const RELATE: &str = "INSERT INTO relation (tenant, subject, relation, object, until_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant, subject, relation, object) DO UPDATE SET until_at = excluded.until_at";
const UNRELATE: &str = "DELETE FROM relation WHERE tenant = $1 AND subject = $2 AND relation = $3 AND object = $4";
const OTHERS: &str = "DELETE FROM relation WHERE tenant = $1 AND subject = $2 AND relation = $3 AND object <> $4
    RETURNING object";
const STANDS: &str =
    "SELECT until_at FROM relation WHERE tenant = $1 AND subject = $2 AND relation = $3 AND object = $4";
const SAID: &str = "SELECT who, patient, from_at, until_at FROM treatment WHERE tenant = $1 AND source = $2";
const FORGET: &str = "DELETE FROM treatment WHERE tenant = $1 AND source = $2";
const TREAT: &str =
    "INSERT INTO treatment (tenant, source, who, patient, from_at, until_at) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (tenant, source, who, patient) DO UPDATE SET from_at = excluded.from_at, until_at = excluded.until_at";
/// The epoch's lower 32 bits count what was given, the upper what was taken: who keeps facts looks at all of it, who
/// holds something open at the upper half. What carries over is one look too many.
const GIVEN: &str = "INSERT INTO access_epoch (tenant, epoch) VALUES ($1, 1)
    ON CONFLICT (tenant) DO UPDATE SET epoch = access_epoch.epoch + 1";
const TAKEN: &str = "INSERT INTO access_epoch (tenant, epoch) VALUES ($1, 4294967296)
    ON CONFLICT (tenant) DO UPDATE SET epoch = access_epoch.epoch + 4294967296";

/// Does a relation say something of a patient's record, or of who somebody is?
fn is_of_sight(relation: &str) -> bool {
    matches!(relation, "self" | "treats" | "break_glass") || PROXY_SCOPES.iter().any(|s| s.relation == relation)
}

/// How often access was withdrawn, of an epoch.
pub(super) fn taken(epoch: i64) -> i64 {
    epoch >> 32
}

/// Writes a relation, or moves its end.
pub async fn relate(tx: &mut Tx, subject: &str, relation: &str, object: &str, until: Option<Millis>) -> Result<()> {
    tx.exec(RELATE, &[subject.into(), relation.into(), object.into(), until.into()])
        .await?;
    // An end that was moved may have been moved nearer.
    if until.is_some() {
        withdrawn(tx).await
    } else {
        if is_of_sight(relation) {
            tx.at_last(GIVEN);
        }
        Ok(())
    }
}

/// Removes a relation; nothing happens when it is not there.
pub async fn unrelate(tx: &mut Tx, subject: &str, relation: &str, object: &str) -> Result<()> {
    if tx
        .exec(UNRELATE, &[subject.into(), relation.into(), object.into()])
        .await?
        > 0
    {
        withdrawn(tx).await?;
    }
    Ok(())
}

/// Makes this the only relation of its kind that the subject has, without an end; `None`: it has none. Answers the objects that it
/// no longer has.
pub async fn relate_only(tx: &mut Tx, subject: &str, relation: &str, object: Option<&str>) -> Result<Vec<String>> {
    let args = [subject.into(), relation.into(), object.unwrap_or_default().into()];
    let rows = tx.query(OTHERS, &args).await?;
    let lost: Vec<String> = rows.iter().map(|row| row.string(0)).collect::<Result<_>>()?;
    if !lost.is_empty() {
        withdrawn(tx).await?;
    }
    if let Some(object) = object {
        let stands = tx.query_opt(STANDS, &args).await?;
        if stands.is_none_or(|row| !matches!(row.opt_i64(0), Ok(None))) {
            relate(tx, subject, relation, object, None).await?;
        }
    }
    Ok(lost)
}

/// Someone of a patient's care team, for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Treatment {
    /// `practitioner:ID`, or a subject.
    pub who: String,
    /// Logical id.
    pub patient: String,
    pub from: Millis,
    /// Exclusive.
    pub until: Millis,
}

impl Treatment {
    fn covers(&self, other: &Self, at: Millis) -> bool {
        self.who == other.who && self.patient == other.patient && self.from <= at && at < self.until
    }
}

/// Who treats whom by one resource (`Appointment/ID`), in place of what it said before. Answers whether somebody has
/// lost what it gave them.
pub async fn treat(tx: &mut Tx, source: &str, all: &[Treatment]) -> Result<bool> {
    let rows = tx.query(SAID, &[source.into()]).await?;
    let read = |row: &crate::Row| {
        Ok(Treatment {
            who: row.string(0)?,
            patient: row.string(1)?,
            from: row.i64(2)?,
            until: row.i64(3)?,
        })
    };
    let before: Vec<Treatment> = rows.iter().map(read).collect::<Result<_>>()?;
    if before.len() == all.len() && before.iter().all(|t| all.contains(t)) {
        return Ok(false);
    }
    if !before.is_empty() {
        tx.exec(FORGET, &[source.into()]).await?;
    }
    for t in all {
        let (who, patient) = (t.who.as_str(), t.patient.as_str());
        let args = [source.into(), who.into(), patient.into(), t.from.into(), t.until.into()];
        tx.exec(TREAT, &args).await?;
    }
    let now = tx.now();
    let lost = before
        .iter()
        .any(|b| b.covers(b, now) && !all.iter().any(|t| t.covers(b, now)));
    if lost {
        withdrawn(tx).await?;
    } else {
        tx.at_last(GIVEN);
    }
    Ok(lost)
}

/// Access may have been withdrawn in this transaction: whoever holds something open looks again.
pub async fn withdrawn(tx: &mut Tx) -> Result<()> {
    tx.at_last(TAKEN);
    Ok(())
}
