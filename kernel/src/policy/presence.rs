//! Who may be in a visit's room: asked before a media token is given, and again as long as somebody is there.
//!
//! Being related to the visit is not enough for people of the clinic. The host must still be of its staff and not be denied
//! by the patient; a colleague must still see the patient's chart: by role, treatment, Consent and labels.

use super::{Action, Decision, Policy, Resource, table};
use crate::{
    Result, Tx,
    auth::{Principal, Role},
    scope::Letter,
    vault::Field,
};

/// How a subject is called to the others of the thing it is related to. By subject, relation and object.
const LABEL: Field = Field::new("relation", "label");
const ABOUT: &str = "SELECT object FROM relation WHERE tenant = $1 AND subject = $2 AND relation = 'about'";
const LABELLED: &str =
    "UPDATE relation SET label = $5 WHERE tenant = $1 AND subject = $2 AND relation = $3 AND object = $4";
/// A relation by which a colleague takes part in somebody else's visit.
pub const COLLEAGUE: &str = "colleague";

/// Is the subject there as one of the clinic's own people, and not as the patient?
fn is_staff(who: &Principal) -> bool {
    [Role::Clinician, Role::Admin, Role::Staff]
        .into_iter()
        .any(|r| who.acts_as(r))
}

impl Policy {
    /// The patient a visit is about; `None` where whoever asked for the visit said none.
    async fn patient_of_visit(&self, who: &Principal, what: &Resource) -> Result<Option<String>> {
        let visit = format!("visit:{}", what.id);
        let rows = self.db.query(who.tenant, ABOUT, &[visit.into()]).await?;
        let object = rows.first().map(|r| r.string(0)).transpose()?;
        Ok(object.and_then(|o| o.strip_prefix("patient:").map(str::to_owned)))
    }

    /// What a relation to the visit is worth now, after the relation itself was found.
    pub(super) async fn still_present(
        &self,
        who: &Principal,
        what: &Resource,
        relation: &str,
        decision: &mut Decision,
    ) -> Result<()> {
        if relation == "participant" || super::seeded("media re-check") {
            return Ok(());
        }
        if !is_staff(who) {
            decision.step("role", false, "no longer of the clinic's staff");
            return Ok(());
        }
        let patient = self.patient_of_visit(who, what).await?;
        match (relation, patient) {
            (COLLEAGUE, patient) => self.sees_chart(who, patient.as_deref(), decision).await?,
            (_, Some(patient)) if self.sight(who).await?.is_denied(&patient) => {
                decision.step("consent", false, "consent")
            }
            _ => decision.step("role", true, "leads the visit"),
        }
        Ok(())
    }

    /// May they join somebody else's visit as a colleague? Those who may see the patient's chart may.
    pub(super) async fn may_attend(&self, who: &Principal, what: &Resource, decision: &mut Decision) -> Result<()> {
        let patient = self.patient_of_visit(who, what).await?;
        self.sees_chart(who, patient.as_deref(), decision).await
    }

    async fn sees_chart(&self, who: &Principal, patient: Option<&str>, decision: &mut Decision) -> Result<()> {
        let Some(patient) = patient else {
            decision.step("relation", false, "a visit of nobody's record");
            return Ok(());
        };
        let sight = self.sight(who).await?;
        sight.decide(table::CHART, false, Letter::Read, patient, decision);
        Ok(())
    }

    /// May any session of a subject be in the room of a visit? For looking again at those who are there: a room knows
    /// subjects, not sessions.
    pub async fn may_stay(&self, sessions: &[Principal], visit: &Resource) -> Result<bool> {
        for who in sessions {
            if self.decide(who, Action::Join, visit).await?.allow {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The patient whose record a visit is about, as this transaction sees it: for the trail.
pub async fn patient_of(tx: &mut Tx, visit: &str) -> Result<Option<String>> {
    let rows = tx.query(ABOUT, &[visit.into()]).await?;
    let object = rows.first().map(|r| r.string(0)).transpose()?;
    Ok(object.and_then(|o| o.strip_prefix("patient:").map(str::to_owned)))
}

/// A relation, and how the subject is called to the others.
pub async fn relate_as(tx: &mut Tx, subject: &str, relation: &str, object: &str, label: &str) -> Result<()> {
    super::relate(tx, subject, relation, object, None).await?;
    tx.exec(
        LABELLED,
        &[
            subject.into(),
            relation.into(),
            object.into(),
            LABEL.seal(place(subject, relation, object), label),
        ],
    )
    .await
    .map(|_| ())
}

fn place(subject: &str, relation: &str, object: &str) -> String {
    format!("{subject}/{relation}/{object}")
}

/// Who stands in a relation to a thing, and how they are called there.
pub fn labels(rows: &[crate::Row], relation: &str, object: &str) -> Result<Vec<(String, Option<String>)>> {
    let one = |row: &crate::Row| {
        let subject = row.string(0)?;
        let label = LABEL.open_opt(row, 1, place(&subject, relation, object))?;
        Ok((subject, label))
    };
    rows.iter().map(one).collect()
}
