//! A patient's FHIR Consent as rules (R4 Consent.provision). Pure but for the two statements at the end.
//!
//! What is not understood errs on the side of the patient: a denial narrowed by something we do not evaluate (a code, a
//! data period) denies all it could mean, a permission narrowed so permits nothing.

use crate::{
    Result, Tx,
    clock::{Millis, parse_rfc3339},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Treatment, and emergency treatment: the purposes of use (v3 ActReason) under which records are read here.
pub const TREATMENT: &str = "TREAT";
pub const EMERGENCY: &str = "ETREAT";

/// One provision, with the exceptions to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provision {
    pub permit: bool,
    pub from: Option<Millis>,
    /// Exclusive.
    pub until: Option<Millis>,
    /// References, for instance `Practitioner/1`. Empty: everyone.
    pub actors: Vec<String>,
    pub purposes: Vec<String>,
    /// FHIR types. Empty: all.
    pub kinds: Vec<String>,
    pub labels: Vec<String>,
    /// It is narrowed by something that is not evaluated.
    pub narrowed: bool,
    pub inner: Vec<Self>,
}

/// The rules of one Consent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub patient: String,
    pub root: Provision,
}

/// Who asks, for what, when.
pub struct Question<'a> {
    /// References by which a Consent may name them.
    pub actors: &'a [String],
    pub purpose: &'a str,
    pub kind: &'a str,
    pub now: Millis,
}

/// What a Consent says to a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The whole type is denied.
    pub denied: bool,
    /// What carries one of these is denied.
    pub denied_labels: Vec<String>,
    /// It names the one who asks, and permits. Empty labels: whatever the label.
    pub named: Option<Vec<String>>,
}

impl Provision {
    fn applies(&self, q: &Question<'_>) -> bool {
        let in_time = self.from.is_none_or(|f| f <= q.now) && self.until.is_none_or(|u| q.now < u);
        let purpose = if q.purpose == EMERGENCY {
            // An emergency is not what a general refusal is about: only one that names it holds.
            (self.permit && self.purposes.is_empty()) || self.purposes.iter().any(|p| p == EMERGENCY)
        } else {
            self.purposes.is_empty() || self.purposes.iter().any(|p| p == q.purpose)
        };
        let kind = self.kinds.is_empty() || self.kinds.iter().any(|k| k == q.kind);
        in_time && purpose && kind && self.means(q.actors)
    }

    /// A permission means those it names; a denial those, and groups of whom we do not know who is in them.
    fn means(&self, actors: &[String]) -> bool {
        let group = |a: &String| {
            ["Organization/", "CareTeam/", "Group/", "PractitionerRole/"]
                .iter()
                .any(|p| a.starts_with(p))
        };
        self.actors.is_empty()
            || self
                .actors
                .iter()
                .any(|a| actors.contains(a) || (!self.permit && group(a)))
    }

    fn answer(&self, q: &Question<'_>, outer: bool, into: &mut Answer) -> bool {
        if !self.applies(q) || (self.permit && self.narrowed) {
            return outer;
        }
        if !self.labels.is_empty() {
            if self.permit {
                if !self.actors.is_empty() {
                    into.named.get_or_insert_default().extend(self.labels.iter().cloned());
                }
            } else {
                into.denied_labels.extend(self.labels.iter().cloned());
            }
            return outer;
        }
        if self.permit && !self.actors.is_empty() {
            into.named = Some(Vec::new());
        }
        let inside: Vec<bool> = self.inner.iter().map(|p| p.answer(q, self.permit, into)).collect();
        // Of exceptions that differ, the denial wins.
        if self.permit {
            inside.iter().all(|permit| *permit)
        } else {
            let excepted = self
                .inner
                .iter()
                .zip(&inside)
                .any(|(p, permit)| p.permit && *permit && p.applies(q));
            let denied = self
                .inner
                .iter()
                .any(|p| !p.permit && p.labels.is_empty() && p.applies(q));
            excepted && !denied
        }
    }

    /// When, after `now`, the time of it or of something in it begins or ends first.
    pub(super) fn changes_after(&self, now: Millis) -> Millis {
        let own = [self.from, self.until].into_iter().flatten().filter(|at| *at > now);
        let inner = self.inner.iter().map(|p| p.changes_after(now));
        own.chain(inner).min().unwrap_or(Millis::MAX)
    }

    /// Every time at which it, or something in it, begins or ends.
    pub(super) fn times(&self, into: &mut Vec<Millis>) {
        into.extend([self.from, self.until].into_iter().flatten());
        self.inner.iter().for_each(|p| p.times(into));
    }

    /// Does it deny anything, or name anyone? Otherwise it changes nothing here.
    #[must_use]
    pub fn matters(&self) -> bool {
        !self.permit || !self.actors.is_empty() || self.inner.iter().any(Self::matters)
    }

    fn read(of: &Value, default: bool) -> Self {
        let list = |name: &str| of.get(name).and_then(Value::as_array).into_iter().flatten();
        let codes = |name: &str| -> Vec<String> { list(name).filter_map(|c| text(c, "code")).collect() };
        let period = |edge: &str| of.pointer(&format!("/period/{edge}")).and_then(Value::as_str);
        let refs = list("actor").filter_map(|a| a.pointer("/reference/reference").and_then(Value::as_str));
        let actors: Vec<String> = refs.map(local).collect();
        let permit = match of.get("type").and_then(Value::as_str) {
            Some("permit") => true,
            Some("deny") => false,
            _ => default,
        };
        let narrow = |name: &str| of.get(name).is_some_and(|v| !v.is_null());
        // An actor without a reference we can read: a permission must not become one for everybody.
        let nameless = list("actor").count() != actors.len();
        let actions: Vec<String> = list("action")
            .flat_map(|a| a.get("coding").and_then(Value::as_array).into_iter().flatten())
            .filter_map(|c| text(c, "code"))
            .collect();
        let no_access = !actions.is_empty() && !actions.iter().any(|a| matches!(a.as_str(), "access" | "use"));
        Self {
            permit,
            from: period("start").and_then(|t| instant(t, false)),
            until: period("end").and_then(|t| instant(t, true)),
            actors: if nameless && !permit { Vec::new() } else { actors },
            purposes: codes("purpose"),
            kinds: codes("class"),
            labels: codes("securityLabel"),
            narrowed: nameless || no_access || ["code", "data", "dataPeriod"].iter().any(|n| narrow(n)),
            inner: list("provision").map(|p| Self::read(p, !permit)).collect(),
        }
    }
}

fn text(of: &Value, name: &str) -> Option<String> {
    of.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// `Type/id` of a reference, absolute or not.
fn local(reference: &str) -> String {
    let mut parts = reference.rsplit('/');
    match (parts.next(), parts.next()) {
        (Some(id), Some(kind)) => format!("{kind}/{id}"),
        _ => reference.to_owned(),
    }
}

/// A FHIR dateTime of any precision: its first instant, or the first after it.
fn instant(text: &str, end: bool) -> Option<Millis> {
    if let Some(at) = parse_rfc3339(text) {
        return Some(if end { at + 1 } else { at });
    }
    let mut parts = text.splitn(3, '-').map(|p| p.parse::<i16>().ok());
    let year = parts.next()??;
    let (month, day) = (parts.next().flatten(), parts.next().flatten());
    let date = jiff::civil::Date::new(
        year,
        i8::try_from(month.unwrap_or(1)).ok()?,
        i8::try_from(day.unwrap_or(1)).ok()?,
    )
    .ok()?;
    let span = match (end, month, day) {
        (false, ..) => jiff::Span::new(),
        (true, None, _) => jiff::Span::new().years(1),
        (true, Some(_), None) => jiff::Span::new().months(1),
        (true, Some(_), Some(_)) => jiff::Span::new().days(1),
    };
    let date = date.checked_add(span).ok()?;
    Some(
        date.to_zoned(jiff::tz::TimeZone::UTC)
            .ok()?
            .timestamp()
            .as_millisecond(),
    )
}

impl Rules {
    /// The rules of a Consent as it stands; `None` where it has none for us: not active, or about no patient of ours.
    #[must_use]
    pub fn of(consent: &Value) -> Option<Self> {
        if consent.get("status").and_then(Value::as_str) != Some("active") {
            return None;
        }
        let patient = local(consent.pointer("/patient/reference").and_then(Value::as_str)?);
        let opted_out = consent
            .pointer("/policyRule/coding")
            .and_then(Value::as_array)
            .is_some_and(|c| {
                c.iter()
                    .any(|c| c.get("code").and_then(Value::as_str) == Some("OPTOUT"))
            });
        let root = match consent.get("provision") {
            Some(provision) => Provision::read(provision, !opted_out),
            None => Provision {
                permit: !opted_out,
                ..Provision::default()
            },
        };
        Some(Self {
            patient: patient.strip_prefix("Patient/")?.to_owned(),
            root,
        })
    }

    #[must_use]
    pub fn answer(&self, q: &Question<'_>) -> Answer {
        let mut answer = Answer::default();
        answer.denied = !self.root.answer(q, true, &mut answer);
        answer
    }
}

const KEEP: &str = "INSERT INTO consent_rule (tenant, consent, patient, body) VALUES ($1, $2, $3, $4)
    ON CONFLICT (tenant, consent) DO UPDATE SET patient = excluded.patient, body = excluded.body";
const DROP: &str = "DELETE FROM consent_rule WHERE tenant = $1 AND consent = $2";

/// Makes the rules of the Consent what they are now; `None` when it is gone. Call it in the transaction of the write.
pub async fn replace(tx: &mut Tx, id: &str, consent: Option<&Value>) -> Result<()> {
    match consent.and_then(Rules::of).filter(|r| r.root.matters()) {
        Some(rules) => {
            let body = serde_json::to_string(&rules.root).map_err(|e| crate::Error::internal("policy.consent", e))?;
            tx.exec(KEEP, &[id.into(), rules.patient.into(), body.into()]).await?;
        }
        None => {
            tx.exec(DROP, &[id.into()]).await?;
        }
    }
    super::withdrawn(tx).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Millis = 1_772_442_000_000;

    fn ask(provision: Value, actor: &str, kind: &str, purpose: &str) -> Answer {
        let consent = json!({"resourceType": "Consent", "status": "active", "patient": {"reference": "Patient/p"}, "provision": provision});
        let actors = [actor.to_owned()];
        let q = Question {
            actors: &actors,
            purpose,
            kind,
            now: NOW,
        };
        Rules::of(&consent).expect("rules").answer(&q)
    }

    fn actor(reference: &str) -> Value {
        json!([{"role": {"text": "x"}, "reference": {"reference": reference}}])
    }

    #[test]
    fn a_denial_is_of_those_types_people_and_times_it_names() {
        let one = json!({"type": "deny", "actor": actor("Practitioner/1"), "class": [{"code": "Observation"}]});
        assert!(ask(one.clone(), "Practitioner/1", "Observation", TREATMENT).denied);
        assert!(!ask(one.clone(), "Practitioner/1", "Condition", TREATMENT).denied);
        assert!(!ask(one.clone(), "Practitioner/2", "Observation", TREATMENT).denied);
        let over = json!({"type": "deny", "period": {"end": "2026-03-01"}});
        assert!(!ask(over, "Practitioner/1", "Observation", TREATMENT).denied);
        let today = json!({"type": "deny", "period": {"start": "2026-03", "end": "2026-03-02"}});
        assert!(ask(today, "Practitioner/1", "Observation", TREATMENT).denied);
    }

    #[test]
    fn exceptions_hold_and_of_two_the_denial_wins() {
        let but = json!({"type": "deny", "provision": [{"type": "permit", "actor": actor("Practitioner/1")}]});
        assert!(!ask(but.clone(), "Practitioner/1", "Observation", TREATMENT).denied);
        assert!(ask(but, "Practitioner/2", "Observation", TREATMENT).denied);
        let both = json!({"type": "deny", "provision": [
            {"type": "permit", "actor": actor("Practitioner/1")}, {"type": "deny", "actor": actor("Practitioner/1")}]});
        assert!(ask(both, "Practitioner/1", "Observation", TREATMENT).denied);
        let except = json!({"type": "permit", "provision": [{"type": "deny", "class": [{"code": "Condition"}]}]});
        assert!(ask(except.clone(), "Practitioner/1", "Condition", TREATMENT).denied);
        assert!(!ask(except, "Practitioner/1", "Observation", TREATMENT).denied);
    }

    #[test]
    fn an_emergency_is_refused_only_by_name() {
        let any = json!({"type": "deny"});
        assert!(!ask(any, "Practitioner/1", "Observation", EMERGENCY).denied);
        let named = json!({"type": "deny", "purpose": [{"code": "ETREAT"}]});
        assert!(ask(named.clone(), "Practitioner/1", "Observation", EMERGENCY).denied);
        assert!(!ask(named, "Practitioner/1", "Observation", TREATMENT).denied);
    }

    #[test]
    fn what_is_not_understood_errs_on_the_patients_side() {
        let coded = |kind: &str| json!({"type": kind, "code": [{"text": "x"}]});
        assert!(ask(coded("deny"), "Practitioner/1", "Observation", TREATMENT).denied);
        let but = json!({"type": "deny", "provision": [{"type": "permit", "code": [{"text": "x"}]}]});
        assert!(ask(but, "Practitioner/1", "Observation", TREATMENT).denied);
        let group = json!({"type": "deny", "actor": actor("Organization/1")});
        assert!(ask(group, "Practitioner/1", "Observation", TREATMENT).denied);
        let nameless = json!({"type": "deny", "actor": [{"reference": {"display": "my uncle"}}]});
        assert!(ask(nameless, "Practitioner/1", "Observation", TREATMENT).denied);
    }

    #[test]
    fn labels_are_denied_and_permitted_by_name() {
        let psy = json!({"type": "permit", "provision": [{"type": "deny", "securityLabel": [{"code": "PSY"}]}]});
        let answer = ask(psy, "Practitioner/1", "Observation", TREATMENT);
        assert_eq!((answer.denied, answer.denied_labels), (false, vec!["PSY".to_owned()]));
        let sud = json!({"type": "permit", "provision": [{"type": "permit", "actor": actor("Practitioner/1"), "securityLabel": [{"code": "SUD"}]}]});
        assert_eq!(
            ask(sud.clone(), "Practitioner/1", "Observation", TREATMENT).named,
            Some(vec!["SUD".to_owned()])
        );
        assert_eq!(ask(sud, "Practitioner/2", "Observation", TREATMENT).named, None);
    }
}
