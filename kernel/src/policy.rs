//! May they? One function answers for REST, search, live channels, rooms and devices.
//!
//! Roles give permissions over kinds of resource; *relations* (tuples of subject, relation and object, written by the
//! modules in their own transactions) give them over single ones. What neither gives is denied.

use crate::{
    Clock, Error, Result, Tx,
    auth::{Principal, Role},
    clock::Millis,
    db::Db,
};
use std::fmt;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Read,
    Write,
    Subscribe,
    Publish,
    /// Lead a visit: admit, send back, end.
    Admit,
    Join,
    Administer,
}

/// What it is asked for: a kind (`patient`, `visit`, `conversation`, `board`, ...) and an identifier in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: &'static str,
    pub id: String,
}

impl Resource {
    pub fn new(kind: &'static str, id: impl Into<String>) -> Self {
        Self { kind, id: id.into() }
    }

    fn object(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

/// The answer, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allow: bool,
    /// For the audit trail and the administrator; never shown to the one who was refused.
    pub why: &'static str,
}

/// What the roles and the shape of the resource say, before any look-up.
#[derive(Debug, PartialEq, Eq)]
enum Rule {
    Allow(&'static str),
    Deny(&'static str),
    /// Allowed when the subject has one of these relations to the resource.
    Related(&'static [&'static str]),
}

/// The whole of the rules: a pure function of who, what and which.
fn rule(who: &Principal, action: Action, what: &Resource) -> Rule {
    use Action::{Administer, Admit, Join, Publish, Read, Subscribe, Write};
    let clinical = who.has(Role::Clinician) || who.has(Role::Admin);
    let staff = clinical || who.has(Role::Staff);
    match (what.kind, action) {
        ("user" | "queue", Read | Subscribe) if who.subject_id() == what.id => Rule::Allow("own"),
        ("queue", Read | Subscribe) if staff => Rule::Allow("staff see queues"),
        // What one signs in with is one's own business, and no application's.
        ("session" | "credential", Read | Write) if who.subject_id() == what.id && who.grant.client.is_none() => {
            Rule::Allow("own")
        }
        ("user", Administer) if who.has(Role::Admin) => Rule::Allow("administrator"),
        ("patient", Read | Subscribe) if staff => Rule::Allow("staff of the clinic"),
        ("patient", Write) if clinical => Rule::Allow("clinician of the clinic"),
        ("patient", Read | Subscribe) => Rule::Related(&["self", "proxy"]),
        ("board" | "alert", Read | Subscribe | Write) if staff => Rule::Allow("staff of the clinic"),
        ("visit" | "encounter", Read | Subscribe) if staff => Rule::Allow("staff of the clinic"),
        ("visit" | "encounter", Read | Subscribe | Join) => Rule::Related(&["participant", "host"]),
        ("visit", Admit) => Rule::Related(&["host"]),
        ("conversation", Read | Subscribe | Write | Publish) => Rule::Related(&["member"]),
        ("device", Publish | Subscribe) if who.has(Role::Device) && who.subject_id() == what.id => {
            Rule::Allow("own device")
        }
        ("device", Read | Subscribe | Write) if clinical => Rule::Allow("clinician of the clinic"),
        ("appointment", Read) if staff => Rule::Allow("staff of the clinic"),
        ("appointment", Write) if staff => Rule::Allow("staff of the clinic"),
        ("tenant" | "outbox" | "metrics", Read | Administer) if who.has(Role::Admin) => Rule::Allow("administrator"),
        _ => Rule::Deny("nothing allows it"),
    }
}

/// Decides with the relations at hand. Clones share it.
#[derive(Clone)]
pub struct Policy {
    db: Db,
    clock: Clock,
}

const RELATED: &str = "SELECT relation FROM relation WHERE tenant = $1 AND subject = $2 AND object = $3 AND (until_at IS NULL OR until_at > $4)";
const RELATE: &str = "INSERT INTO relation (tenant, subject, relation, object, until_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant, subject, relation, object) DO UPDATE SET until_at = excluded.until_at";
const UNRELATE: &str = "DELETE FROM relation WHERE tenant = $1 AND subject = $2 AND relation = $3 AND object = $4";
const OBJECTS: &str = "SELECT object FROM relation WHERE tenant = $1 AND subject = $2 AND relation = $3
    AND (until_at IS NULL OR until_at > $4) ORDER BY object";
const SUBJECTS: &str = "SELECT subject FROM relation WHERE tenant = $1 AND object = $2 AND relation = $3
    AND (until_at IS NULL OR until_at > $4) ORDER BY subject";

impl Policy {
    #[must_use]
    pub fn new(db: Db, clock: Clock) -> Self {
        Self { db, clock }
    }

    /// Answers and says why.
    pub async fn decide(&self, who: &Principal, action: Action, what: &Resource) -> Result<Decision> {
        match rule(who, action, what) {
            Rule::Allow(why) => Ok(Decision { allow: true, why }),
            Rule::Deny(why) => Ok(Decision { allow: false, why }),
            Rule::Related(wanted) => {
                let args = [
                    who.subject.as_str().into(),
                    what.object().into(),
                    self.clock.now_ms().into(),
                ];
                let rows = self.db.query(who.tenant, RELATED, &args).await?;
                for row in &rows {
                    let relation = row.text(0)?;
                    if let Some(why) = wanted.iter().find(|w| **w == relation) {
                        return Ok(Decision { allow: true, why });
                    }
                }
                Ok(Decision {
                    allow: false,
                    why: "not related",
                })
            }
        }
    }

    /// `Ok` or 403. The message is the same whether the thing exists or not.
    pub async fn require(&self, who: &Principal, action: Action, what: &Resource) -> Result<()> {
        if self.decide(who, action, what).await?.allow {
            Ok(())
        } else {
            Err(Error::forbidden("policy.denied", "You do not have access to this."))
        }
    }

    /// Objects to which the subject stands in the relation, for instance the patients a person is.
    pub async fn objects_of(&self, tenant: crate::TenantId, subject: &str, relation: &str) -> Result<Vec<String>> {
        let rows = self
            .db
            .query(
                tenant,
                OBJECTS,
                &[subject.into(), relation.into(), self.clock.now_ms().into()],
            )
            .await?;
        rows.iter().map(|r| r.string(0)).collect()
    }

    /// Subjects that stand in the relation to the object.
    pub async fn subjects_of(&self, tenant: crate::TenantId, object: &str, relation: &str) -> Result<Vec<String>> {
        let rows = self
            .db
            .query(
                tenant,
                SUBJECTS,
                &[object.into(), relation.into(), self.clock.now_ms().into()],
            )
            .await?;
        rows.iter().map(|r| r.string(0)).collect()
    }
}

/// Writes a relation, or moves its end.
pub async fn relate(tx: &mut Tx, subject: &str, relation: &str, object: &str, until: Option<Millis>) -> Result<()> {
    tx.exec(RELATE, &[subject.into(), relation.into(), object.into(), until.into()])
        .await
        .map(|_| ())
}

/// Removes a relation; nothing happens when it is not there.
pub async fn unrelate(tx: &mut Tx, subject: &str, relation: &str, object: &str) -> Result<()> {
    tx.exec(UNRELATE, &[subject.into(), relation.into(), object.into()])
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TenantId;
    use uuid::Uuid;

    fn who(subject: &str, role: Role) -> Principal {
        Principal {
            tenant: TenantId::from_number(1),
            subject: subject.into(),
            roles: vec![role],
            session: Uuid::nil(),
            name: "x".into(),
            grant: Default::default(),
            proved_at: 0,
        }
    }

    #[test]
    fn a_guest_is_never_allowed_by_role() {
        let guest = who("guest:g", Role::Guest);
        for kind in [
            "patient",
            "visit",
            "encounter",
            "conversation",
            "board",
            "queue",
            "device",
            "appointment",
            "tenant",
            "user",
            "alert",
        ] {
            for action in [
                Action::Read,
                Action::Write,
                Action::Subscribe,
                Action::Publish,
                Action::Admit,
                Action::Join,
                Action::Administer,
            ] {
                assert!(
                    !matches!(rule(&guest, action, &Resource::new(kind, "1")), Rule::Allow(_)),
                    "{kind} {action:?}"
                );
            }
        }
    }

    #[test]
    fn a_device_reaches_only_itself() {
        let device = who("device:d", Role::Device);
        assert!(matches!(
            rule(&device, Action::Publish, &Resource::new("device", "d")),
            Rule::Allow(_)
        ));
        assert!(matches!(
            rule(&device, Action::Publish, &Resource::new("device", "e")),
            Rule::Deny(_)
        ));
        assert!(matches!(
            rule(&device, Action::Write, &Resource::new("patient", "p")),
            Rule::Deny(_)
        ));
    }

    #[test]
    fn conversations_are_for_members_whatever_the_role() {
        let admin = who("user:a", Role::Admin);
        assert_eq!(
            rule(&admin, Action::Read, &Resource::new("conversation", "c")),
            Rule::Related(&["member"])
        );
    }
}
