//! The facts behind a decision, loaded in one statement, and the decision made of them.

use super::{
    Action, Decision, Obligation, Resource, Sight, Trace,
    consent::{Provision, Rules},
    glass,
    kept::Kept,
    sight::Patients,
    table::{self, PROXY_SCOPES, Rule},
    ties::taken,
};
use crate::{
    Clock, Error, Result, TenantId, Tx,
    audit::{Refusal, Refusals},
    auth::Principal,
    bus::{Bus, Event},
    clock::Millis,
    db::{Db, Row},
    scope::{Letter, Scopes},
    tenant::{Status, Tenant, Tenants},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Decides with the relations at hand. Clones share it.
#[derive(Clone)]
pub struct Policy {
    pub(super) db: Db,
    bus: Bus,
    pub(super) clock: Clock,
    pub(super) tenants: Tenants,
    refusals: Refusals,
    kept: Arc<Kept>,
}

/// Body of the live event `access.changed`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessChanged {
    /// Whose access may be less than before; `None`: anyone's of the clinic.
    pub subject: Option<String>,
}

const RELATED: &str = "SELECT relation FROM relation WHERE tenant = $1 AND subject = $2 AND object = $3 AND (until_at IS NULL OR until_at > $4)";
/// The clinic's epoch; relations of a person to patients, by resources and by themselves, and what they are; the rules of
/// Consents. One statement, so that all of it is as of one moment. What has not begun yet comes along, for its time.
const FACTS: &str = "SELECT 'epoch', '', '', epoch, NULL FROM access_epoch WHERE tenant = $1
    UNION ALL SELECT relation, object, '', 0, until_at FROM relation WHERE tenant = $1 AND subject = $2
        AND relation IN ('self', 'treats', 'break_glass', 'proxy.appointments', 'proxy.results', 'proxy.messages') AND (until_at IS NULL OR until_at > $3)
    UNION ALL SELECT 'treats', 'patient:' || t.patient, '', t.from_at, t.until_at FROM treatment t WHERE t.tenant = $1
        AND t.until_at > $3 AND (t.who = $2 OR t.who IN (
            SELECT s.object FROM relation s WHERE s.tenant = $1 AND s.subject = $2 AND s.relation = 'self'))
    UNION ALL SELECT 'consent', c.patient, c.body, 0, NULL FROM consent_rule c WHERE c.tenant = $1";
const OBJECTS: &str = "SELECT object FROM relation WHERE tenant = $1 AND subject = $2 AND relation = $3
    AND (until_at IS NULL OR until_at > $4) ORDER BY object";
const SUBJECTS: &str = "SELECT subject FROM relation WHERE tenant = $1 AND object = $2 AND relation = $3
    AND (until_at IS NULL OR until_at > $4) ORDER BY subject";
const TREATED_BY: &str = "SELECT subject FROM relation WHERE tenant = $1 AND object = $2 AND relation = 'treats'
        AND (until_at IS NULL OR until_at > $4)
    UNION SELECT s.subject FROM treatment t JOIN relation s ON s.tenant = $1 AND s.object = t.who AND s.relation = 'self'
        WHERE t.tenant = $1 AND t.patient = $3 AND t.from_at <= $4 AND t.until_at > $4 ORDER BY 1";
const FEEDS: &str = "SELECT object FROM relation WHERE tenant = $1 AND subject = $2 AND relation = 'feeds'
    AND (until_at IS NULL OR until_at > $3) ORDER BY object";
const EPOCH: &str = "SELECT COALESCE(MAX(epoch), 0) FROM access_epoch WHERE tenant = $1";
const CONSENTS: &str = "SELECT body FROM consent_rule WHERE tenant = $1";
/// Whether the time of anything that gives access ended in between.
const RAN_OUT: &str =
    "SELECT COUNT(*) FROM (SELECT 1 FROM relation WHERE tenant = $1 AND until_at > $2 AND until_at <= $3
    UNION ALL SELECT 1 FROM treatment WHERE tenant = $1 AND until_at > $2 AND until_at <= $3) ended";

fn denied() -> Error {
    Error::forbidden("policy.denied", "You do not have access to this.")
}

impl Policy {
    #[must_use]
    pub fn new(db: Db, bus: Bus, clock: Clock, tenants: Tenants) -> Self {
        Self {
            refusals: Refusals::new(db.clone()),
            db,
            bus,
            clock,
            tenants,
            kept: Arc::default(),
        }
    }

    /// Everything known of a principal, as of now. What was read before is used again while nothing that gives or takes
    /// access was written in the clinic since, and no time in it has come.
    pub async fn sight(&self, who: &Principal) -> Result<Arc<Sight>> {
        let now = self.clock.now_ms();
        let tenant = self.tenants.by_id(who.tenant);
        let epoch = self.db.query_one(who.tenant, EPOCH, &[]).await?.i64(0)?;
        if let Some(sight) = self.kept.get(who, tenant.as_ref(), epoch, now) {
            return Ok(sight);
        }
        let args = [who.subject.as_str().into(), now.into()];
        let rows = self.db.query(who.tenant, FACTS, &args).await?;
        let (sight, epoch, until) = self.seen(who, tenant, now, &rows)?;
        let sight = Arc::new(sight);
        self.kept.put(&sight, epoch, until);
        Ok(sight)
    }

    /// The sight that rows of [`FACTS`] give, their epoch, and until when they hold.
    fn seen(&self, who: &Principal, tenant: Option<Tenant>, now: Millis, rows: &[Row]) -> Result<(Sight, i64, Millis)> {
        let settings = tenant.as_ref().map(|t| (*t.settings).clone()).unwrap_or_default();
        let mut sight = Sight {
            who: who.clone(),
            // Whom the register does not know is not served.
            status: tenant.map_or(Status::Suspended, |t| t.status),
            two_factors: settings.require_two_factors,
            relationship_required: settings.relationship_required,
            now,
            own: Patients::new(),
            proxied: Patients::new(),
            parts: Default::default(),
            treated: Patients::new(),
            broken: Patients::new(),
            names: Vec::new(),
            consents: Arc::default(),
            scopes: who.grant.scopes.as_deref().map(|s| Arc::new(Scopes::parse(s))),
            views: Default::default(),
        };
        let (mut consents, mut epoch, mut until) = (Vec::new(), 0, Millis::MAX);
        for row in rows {
            let (relation, object) = (row.text(0)?, row.text(1)?);
            if relation == "epoch" {
                epoch = row.i64(3)?;
                continue;
            }
            if relation == "consent" {
                let root: Provision =
                    serde_json::from_str(row.text(2)?).map_err(|e| Error::internal("policy.consent", e))?;
                until = until.min(root.changes_after(now));
                consents.push(Rules {
                    patient: object.to_owned(),
                    root,
                });
                continue;
            }
            let begins = row.i64(3)?;
            if begins > now {
                until = until.min(begins);
                continue;
            }
            until = until.min(row.opt_i64(4)?.unwrap_or(Millis::MAX));
            if let Some(id) = object.strip_prefix("practitioner:").filter(|_| relation == "self") {
                sight.names.push(format!("Practitioner/{id}"));
            }
            let Some(patient) = object.strip_prefix("patient:") else {
                continue;
            };
            let set = match relation {
                "self" => &mut sight.own,
                "treats" => &mut sight.treated,
                "break_glass" => &mut sight.broken,
                _ => {
                    let part = PROXY_SCOPES.iter().position(|s| s.relation == relation);
                    let Some(set) = part.and_then(|at| sight.parts.get_mut(at)) else {
                        continue;
                    };
                    set
                }
            };
            set.insert(patient.to_owned());
        }
        let [first, others @ ..] = &sight.parts;
        let whole = |p: &&String| others.iter().all(|of| of.contains(*p));
        sight.proxied = first.iter().filter(whole).cloned().collect();
        // A Consent names people of the clinic by their Practitioner and others by their RelatedPerson or Patient.
        sight.names.extend(sight.own.iter().map(|p| format!("Patient/{p}")));
        sight.consents = self.kept.shared(who.tenant, consents);
        Ok((sight, epoch, until))
    }

    /// Answers and says why.
    pub async fn decide(&self, who: &Principal, action: Action, what: &Resource) -> Result<Decision> {
        let rule = if super::seeded("rule table") && !matches!(what.kind, "patient" | "device") {
            Rule::Allow("nobody looked")
        } else {
            table::rule(who, action, what)
        };
        let mut decision = Decision::default();
        if !self.may_ask(who, what, &mut decision) {
            return Ok(decision);
        }
        match rule {
            Rule::Allow(why) => decision.step("role", true, why),
            Rule::Deny(why) => decision.step("role", false, why),
            Rule::Related(wanted) => {
                let args = [
                    who.subject.as_str().into(),
                    what.object().into(),
                    self.clock.now_ms().into(),
                ];
                let rows = self.db.query(who.tenant, RELATED, &args).await?;
                let mut found = None;
                for row in &rows {
                    let relation = row.text(0)?;
                    found = found.or(wanted.iter().find(|w| **w == relation));
                }
                match found {
                    Some(why) => decision.step("relation", true, why),
                    None => decision.step("relation", false, "not related"),
                }
                if let (Some(relation), true) = (found, table::is_in_the_room(action, what)) {
                    self.still_present(who, what, relation, &mut decision).await?;
                }
            }
            Rule::Attend => self.may_attend(who, what, &mut decision).await?,
            Rule::Clinical(kinds, letter) => {
                let every = action != Action::Read;
                self.sight(who)
                    .await?
                    .decide(kinds, every, letter, &what.id, &mut decision);
            }
            Rule::Feeds(letter) => {
                let sight = self.sight(who).await?;
                let args = [what.object().into(), self.clock.now_ms().into()];
                let rows = self.db.query(who.tenant, FEEDS, &args).await?;
                match rows
                    .first()
                    .map(|r| r.text(0))
                    .transpose()?
                    .and_then(|o| o.strip_prefix("patient:"))
                {
                    Some(patient) => sight.decide(&["Observation"], true, letter, patient, &mut decision),
                    None => decision.step("relation", false, "a device of nobody"),
                }
            }
        }
        Ok(decision)
    }

    /// The clinic, how surely they are known, and the client that acts for them.
    fn may_ask(&self, who: &Principal, what: &Resource, decision: &mut Decision) -> bool {
        let tenant = self.tenants.by_id(who.tenant);
        let served = tenant.as_ref().is_some_and(|t| t.status == Status::Active);
        if !served {
            decision.step("tenant", false, "tenant.suspended");
            return false;
        }
        decision.step("tenant", true, "served");
        let two = tenant.is_some_and(|t| t.settings.require_two_factors);
        let one = who.grant.assurance < crate::auth::Assurance::Two;
        if two && one && who.subject.starts_with("user:") && table::is_clinical(what.kind) {
            decision.step("lock", false, "auth.second_factor");
            return false;
        }
        decision.step("lock", true, "known surely enough");
        // What scopes are about is the record alone: nothing else is open to a client.
        let scoped = who.grant.scopes.is_some() || who.subject.starts_with("client:");
        if scoped && !matches!(what.kind, "patient" | "device") && !super::seeded("scopes") {
            decision.step("scopes", false, "auth.scope");
            return false;
        }
        true
    }

    /// Refusals on their way into the trail.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// `Ok` or 403, which the trail keeps. The message is the same whether the thing exists or not.
    pub async fn require(&self, who: &Principal, action: Action, what: &Resource) -> Result<()> {
        let decision = self.decide(who, action, what).await?;
        if decision.allow {
            return Ok(());
        }
        self.refusals.note(Refusal {
            tenant: who.tenant,
            actor: &who.subject,
            session: Some(who.session),
            act: action.name(),
            kind: what.kind,
            id: &what.id,
            why: decision.why,
        });
        Err(match decision.why {
            "auth.second_factor" => Error::forbidden(
                "auth.second_factor",
                "Please set up a second step to see clinical data.",
            ),
            "tenant.suspended" => Error::forbidden("tenant.suspended", "This clinic is not served at the moment."),
            "auth.scope" => Error::forbidden("auth.scope", "The application was not given access to this."),
            "policy.relationship" => {
                Error::forbidden("policy.relationship", "You are not in this patient's care team.")
            }
            _ => denied(),
        })
    }

    /// Objects to which the subject stands in the relation, for instance the patients a person is.
    pub async fn objects_of(&self, tenant: TenantId, subject: &str, relation: &str) -> Result<Vec<String>> {
        let args = [subject.into(), relation.into(), self.clock.now_ms().into()];
        let rows = self.db.query(tenant, OBJECTS, &args).await?;
        rows.iter().map(|r| r.string(0)).collect()
    }

    /// Subjects that stand in the relation to the object. Who treats a patient follows from resources, too.
    pub async fn subjects_of(&self, tenant: TenantId, object: &str, relation: &str) -> Result<Vec<String>> {
        let now = self.clock.now_ms();
        let rows = match (relation, object.strip_prefix("patient:")) {
            ("treats", Some(patient)) => {
                self.db
                    .query(tenant, TREATED_BY, &[object.into(), patient.into(), now.into()])
                    .await?
            }
            _ => {
                self.db
                    .query(tenant, SUBJECTS, &[object.into(), relation.into(), now.into()])
                    .await?
            }
        };
        rows.iter().map(|r| r.string(0)).collect()
    }

    /// Tells whoever holds something open, after the commit, that this subject's access may have become less; `None`:
    /// anyone's. What is lost of it is noticed by [`Policy::epoch`].
    pub fn announce(&self, tx: &mut Tx, subject: Option<&str>) -> Result<()> {
        announce(&self.bus, tx, subject)
    }

    /// Has access been withdrawn in a clinic, come to its time's end, or become less by what the clinic has chosen, since the
    /// last look? `last` is what this answered then.
    pub async fn epoch(&self, tenant: TenantId, last: Option<(i64, i64)>) -> Result<((i64, i64), bool)> {
        let now = self.clock.now_ms();
        let whole = self.db.query_one(tenant, EPOCH, &[]).await?.i64(0)?;
        // What is chosen stands in the register, and moves no epoch: it is part of what is compared.
        let chosen = self.tenants.by_id(tenant).map_or(0, |t| {
            i64::from(t.settings.require_two_factors) | i64::from(t.settings.relationship_required) << 1
        });
        let mark = taken(whole) << 2 | chosen;
        let Some((before, at)) = last else {
            return Ok(((mark, now), false));
        };
        let over = self
            .db
            .query_one(tenant, RAN_OUT, &[at.into(), now.into()])
            .await?
            .i64(0)?;
        let changed = mark != before || over > 0 || self.turns(tenant, whole, at).await? <= now;
        Ok(((mark, now), changed))
    }

    /// When, after `at`, the time of a Consent or of something in it begins or ends first. Consents are read again only when
    /// the epoch has moved, as it does with every one of them.
    async fn turns(&self, tenant: TenantId, epoch: i64, at: Millis) -> Result<Millis> {
        if let Some(next) = self.kept.turn(tenant, epoch, at) {
            return Ok(next);
        }
        let mut all = Vec::new();
        for row in self.db.query(tenant, CONSENTS, &[]).await? {
            let root: Provision =
                serde_json::from_str(row.text(0)?).map_err(|e| Error::internal("policy.consent", e))?;
            root.times(&mut all);
        }
        all.sort_unstable();
        all.dedup();
        Ok(self.kept.keep_turns(tenant, epoch, all, at))
    }

    /// Emergency access to one patient, from now on. The caller has checked who they are and that the patient exists.
    pub async fn break_glass(&self, tx: &mut Tx, ask: &glass::Ask<'_>) -> Result<glass::Broken> {
        let zone = self.tenants.by_id(tx.tenant()).map(|t| t.zone);
        glass::begin(tx, &self.bus, zone.as_deref().unwrap_or("UTC"), ask).await
    }

    pub async fn mend_glass(&self, tx: &mut Tx, subject: &str, patient: &str) -> Result<bool> {
        let ended = glass::end(tx, subject, patient).await?;
        if ended {
            self.announce(tx, Some(subject))?;
        }
        Ok(ended)
    }
}

/// See [`Policy::announce`].
pub fn announce(bus: &Bus, tx: &mut Tx, subject: Option<&str>) -> Result<()> {
    let body = AccessChanged {
        subject: subject.map(str::to_owned),
    };
    let event = Event::of(tx, "access.changed", subject.unwrap_or("*"), &body)?;
    bus.publish_after(tx, event);
    Ok(())
}

impl Sight {
    /// Whether one type of these (`every`: each of them) of this patient is in sight.
    pub(super) fn decide(&self, kinds: &[&str], every: bool, letter: Letter, patient: &str, decision: &mut Decision) {
        let patients = [patient.to_owned()];
        let (mut any, mut all, mut why) = (false, true, "policy.denied");
        for kind in kinds {
            let mut steps = Vec::new();
            let view = self.traced(kind, letter, &mut steps);
            let shown = match letter {
                Letter::Read | Letter::Search => view.shows(&patients, &[]),
                _ => view.takes(&patients),
            };
            // A view that leaves this patient out for want of a relationship.
            if !shown {
                let reached = view.reach.iter().any(|r| match r {
                    super::Reach::Everything => true,
                    super::Reach::Of(set) => set.contains(patient),
                    super::Reach::Nobodys => false,
                });
                why = if reached {
                    "consent"
                } else if view.why.is_empty() {
                    "policy.denied"
                } else {
                    view.why
                };
                steps.push(Trace::new("this patient", false, why));
            }
            (any, all) = (any || shown, all && shown && view.narrowed.is_empty());
            if decision.steps.len() < 16 {
                decision.steps.extend(steps);
            }
            if shown && view.redaction.is_some() {
                decision
                    .obligations
                    .push(Obligation::Redact(view.hidden(&patients).to_vec()));
            }
        }
        if if every { all } else { any } {
            let emergency = self.is_emergency(patient);
            if emergency {
                decision
                    .obligations
                    .extend([Obligation::FlagEmergency, Obligation::NoExport]);
            }
            decision.step("patient", true, if emergency { "break_glass" } else { "in sight" });
        } else {
            decision.step("patient", false, why);
        }
    }
}

impl Decision {
    pub(super) fn step(&mut self, step: &'static str, pass: bool, because: &'static str) {
        (self.allow, self.why) = (pass, because);
        self.steps.push(Trace::new(step, pass, because));
    }
}
