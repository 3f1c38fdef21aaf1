//! Relations, written by the modules in their own transactions: single ones, and who treats whom as resources say it.

use crate::{Result, Tx, clock::Millis};

const RELATE: &str = "INSERT INTO relation (tenant, subject, relation, object, until_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant, subject, relation, object) DO UPDATE SET until_at = excluded.until_at";
const UNRELATE: &str = "DELETE FROM relation WHERE tenant = $1 AND subject = $2 AND relation = $3 AND object = $4";
const FORGET: &str = "DELETE FROM treatment WHERE tenant = $1 AND source = $2";
const TREAT: &str =
    "INSERT INTO treatment (tenant, source, who, patient, from_at, until_at) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (tenant, source, who, patient) DO UPDATE SET from_at = excluded.from_at, until_at = excluded.until_at";
const GROWN: &str = "INSERT INTO access_epoch (tenant, epoch) VALUES ($1, 1)
    ON CONFLICT (tenant) DO UPDATE SET epoch = access_epoch.epoch + 1";

/// Writes a relation, or moves its end.
pub async fn relate(tx: &mut Tx, subject: &str, relation: &str, object: &str, until: Option<Millis>) -> Result<()> {
    tx.exec(RELATE, &[subject.into(), relation.into(), object.into(), until.into()])
        .await?;
    // An end that was moved may have been moved nearer.
    if until.is_some() { withdrawn(tx).await } else { Ok(()) }
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

/// Who treats whom by one resource (`Appointment/ID`), in place of what it said before.
pub async fn treat(tx: &mut Tx, source: &str, all: &[Treatment]) -> Result<()> {
    let before = tx.exec(FORGET, &[source.into()]).await?;
    for t in all {
        let (who, patient) = (t.who.as_str(), t.patient.as_str());
        tx.exec(
            TREAT,
            &[source.into(), who.into(), patient.into(), t.from.into(), t.until.into()],
        )
        .await?;
    }
    if before > 0 { withdrawn(tx).await } else { Ok(()) }
}

/// Access may have been withdrawn in this transaction: whoever holds something open looks again.
pub async fn withdrawn(tx: &mut Tx) -> Result<()> {
    tx.exec(GROWN, &[]).await.map(|_| ())
}
