//! Proxy access: a parent, guardian or carer acts for a patient, as far and as long as was agreed, and no longer than the
//! patient is a minor where that was the reason. Granted by the patient or an administrator, accepted by the one who acts,
//! ended by any of the three.

use super::{records::human_name, roles, store};
use crate::{Identity, NewUser, audited};
use jiff::{ToSpan, civil::Date, tz::TimeZone};
use medtech_fhir::Access;
use medtech_kernel::{
    Error, Result, Tenant, Tx,
    auth::{Principal, Role},
    bus::{Bus, Event},
    clock::{Millis, rfc3339},
    id,
    policy::{self, Action, PROXY_SCOPES, Resource},
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::Proxy;
use uuid::Uuid;

/// Relationships, with their codes of HL7 v3 RoleCode where it has one. Those of `true` end when the patient comes of age.
const RELATIONSHIPS: [(&str, &str, bool); 6] = [
    ("mother", "MTH", true),
    ("father", "FTH", true),
    ("guardian", "GUARD", true),
    ("partner", "DOMPART", false),
    ("child", "CHILD", false),
    ("carer", "", false),
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grant {
    /// Absent: the caller's own record.
    pub(crate) patient_id: Option<String>,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) relationship: String,
    pub(crate) scope: Vec<String>,
    /// The last day, by the clinic's calendar.
    pub(crate) until: Option<String>,
}

/// When somebody born then comes of age, by a calendar; of a date known in part, the earliest it can mean. `None` for
/// what is no date.
pub(crate) fn of_age(born: &str, years: u32, zone: &TimeZone) -> Option<Millis> {
    let whole = match born.len() {
        4 => format!("{born}-01-01"),
        7 => format!("{born}-01"),
        _ => born.to_owned(),
    };
    let date: Date = whole.parse().ok()?;
    // Who was born on a 29 February comes of age on the 28th, or rather at its end: the 1 March.
    let mut day = date.checked_add(i64::from(years).years()).ok()?;
    if date.day() != day.day() {
        day = day.tomorrow().ok()?;
    }
    Some(day.to_zoned(zone.clone()).ok()?.timestamp().as_millisecond())
}

fn zone_of(clinic: &Tenant) -> TimeZone {
    TimeZone::get(&clinic.zone).unwrap_or(TimeZone::UTC)
}

fn unknown() -> Error {
    Error::not_found("proxy.unknown", "There is no such access.")
}

impl Identity {
    /// Asks somebody to act for a patient. Who has no account yet is asked in by the same mail.
    pub(crate) async fn grant(&self, who: &Principal, grant: Grant) -> Result<Proxy> {
        who.require_fresh(self.ctx.clock.now_ms())?;
        let clinic = self.clinic(who.tenant)?;
        let own = self.own_patient(who).await?;
        let patient = match grant.patient_id {
            Some(id) if own.as_deref() != Some(id.as_str()) => {
                self.require_admin(who).await?;
                id
            }
            _ => own.ok_or_else(|| Error::forbidden("identity.no_record", "There is no record of yours here."))?,
        };
        let Some((relationship, _, of_minor)) = RELATIONSHIPS.iter().find(|(name, ..)| *name == grant.relationship)
        else {
            let text = "The relationship is mother, father, guardian, partner, child or carer.";
            return Err(Error::unprocessable("proxy.relationship", text));
        };
        let scope: Vec<String> = PROXY_SCOPES
            .iter()
            .filter(|s| grant.scope.iter().any(|g| g == s.name))
            .map(|s| s.name.to_owned())
            .collect();
        if scope.is_empty() || grant.scope.iter().any(|g| !scope.contains(g)) {
            let text = "Say what they may see: appointments, results or messages.";
            return Err(Error::unprocessable("proxy.scope", text));
        }
        let now = self.ctx.clock.now_ms();
        let resource = self.patient(who.tenant, &patient).await?;
        let born = resource.get("birthDate").and_then(Value::as_str);
        let comes_of_age = born.and_then(|b| of_age(b, clinic.settings.majority_age, &zone_of(&clinic)));
        if *of_minor {
            match comes_of_age {
                None => {
                    let text = "The patient's date of birth is not known, so this access could not end in time.";
                    return Err(Error::unprocessable("proxy.birth_date", text));
                }
                Some(at) if at <= now => {
                    let text = "The patient is of age. Choose another relationship, and let the patient grant it.";
                    return Err(Error::unprocessable("proxy.of_age", text));
                }
                Some(_) => {}
            }
        }
        let until = grant
            .until
            .as_deref()
            .map(|day| last_moment(day, &clinic))
            .transpose()?;
        if until.is_some_and(|u| u <= now) {
            return Err(Error::unprocessable("proxy.until", "The last day lies in the past."));
        }
        let known = self.find_by_email(who.tenant, &grant.email).await?;
        if known.as_ref().and_then(|u| u.patient.as_deref()) == Some(patient.as_str()) {
            return Err(Error::unprocessable("proxy.self", "This is the patient's own account."));
        }
        let new = match &known {
            Some(_) => None,
            None => Some(self.draft(&NewUser {
                email: grant.email,
                name: grant.name,
                roles: roles(vec![Role::Patient])?,
                password: None,
                practitioner: None,
                patient: None,
            })?),
        };
        let user = known.or_else(|| new.clone()).ok_or_else(unknown)?;
        let proxy = Proxy {
            id: id::new_id(&self.ctx.clock),
            patient,
            user: user.id,
            relationship: (*relationship).to_owned(),
            scope,
            until,
            of_age: comes_of_age.filter(|at| *at > now),
            granted_by: who.subject.clone(),
            granted_at: now,
            accepted_at: None,
            ended_at: None,
            related_person: None,
            name: user.name,
            email: user.email,
        };
        let (parts, actor, made) = (self.clone_parts(&clinic), who.subject.clone(), proxy.clone());
        self.ctx
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    if let Some(user) = &new {
                        parts.add_in(tx, user, None, &actor).await?;
                        parts.send_in(tx, user, &actor, &id::token()).await?;
                    }
                    store::add_proxy(tx, &made).await?;
                    noted(tx, &actor, "create", &made, "granted").await
                })
            })
            .await?;
        Ok(proxy)
    }

    /// The one who was asked accepts: from now on they may. The record learns of it as a RelatedPerson.
    pub(crate) async fn accept_proxy(&self, who: &Principal, id: Uuid) -> Result<Proxy> {
        let fhir = self.records()?.clone();
        let (bus, who) = (self.ctx.bus.clone(), who.clone());
        self.ctx
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    let proxy = store::proxy_in(tx, id).await?;
                    let proxy = proxy
                        .filter(|p| format!("user:{}", p.user) == who.subject)
                        .ok_or_else(unknown)?;
                    let over = proxy.ends().is_some_and(|at| at <= tx.now());
                    if proxy.ended_at.is_some() || over {
                        return Err(Error::gone("proxy.ended", "This access has ended."));
                    }
                    if proxy.accepted_at.is_some() {
                        return Ok(proxy);
                    }
                    let resource = related_person(&proxy, tx.now());
                    let written = fhir.create_in(tx, &who.subject, resource).await?;
                    store::accept_proxy(tx, id, &written.id).await?;
                    for relation in relations(&proxy) {
                        let object = format!("patient:{}", proxy.patient);
                        policy::relate(tx, &who.subject, relation, &object, proxy.ends()).await?;
                    }
                    noted(tx, &who.subject, "update", &proxy, "accepted").await?;
                    changed(&bus, tx, &who.subject)?;
                    store::proxy_in(tx, id).await?.ok_or_else(unknown)
                })
            })
            .await
    }

    /// Ends it: the patient, an administrator, or the one who acts.
    pub(crate) async fn end_proxy(&self, who: &Principal, id: Uuid) -> Result<()> {
        let own = self.own_patient(who).await?;
        let admin = self.require_admin(who).await.is_ok();
        let fhir = self.records()?.clone();
        let (bus, who) = (self.ctx.bus.clone(), who.clone());
        self.ctx
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    let proxy = store::proxy_in(tx, id).await?.ok_or_else(unknown)?;
                    let subject = format!("user:{}", proxy.user);
                    if !admin && own.as_deref() != Some(proxy.patient.as_str()) && subject != who.subject {
                        return Err(unknown());
                    }
                    if !store::end_proxy(tx, id, &who.subject).await? {
                        return Ok(());
                    }
                    for relation in relations(&proxy) {
                        policy::unrelate(tx, &subject, relation, &format!("patient:{}", proxy.patient)).await?;
                    }
                    if let Some(related) = &proxy.related_person {
                        let mut resource = related_person(&proxy, proxy.accepted_at.unwrap_or(proxy.granted_at));
                        resource["id"] = json!(related);
                        resource["active"] = json!(false);
                        resource["period"]["end"] = json!(rfc3339(tx.now()));
                        fhir.update_in(tx, &who.subject, related, resource, None).await?;
                    }
                    noted(tx, &who.subject, "delete", &proxy, "ended").await?;
                    changed(&bus, tx, &subject)
                })
            })
            .await
    }

    /// Who may act for a patient, or was asked to, or could once: for the patient, and for administrators.
    pub(crate) async fn proxies_of(&self, who: &Principal, patient: Option<String>) -> Result<Vec<Proxy>> {
        let own = self.own_patient(who).await?;
        let patient = match patient {
            Some(id) if own.as_deref() != Some(id.as_str()) => {
                self.require_admin(who).await?;
                id
            }
            _ => match own {
                Some(own) => own,
                None => return Ok(Vec::new()),
            },
        };
        store::proxies(&self.ctx.db, who.tenant, store::Whose::Patient(&patient)).await
    }

    /// For whom the caller acts, with the patients' names; to one who has not accepted yet, too.
    pub(crate) async fn acting_for(&self, who: &Principal) -> Result<Vec<(Proxy, String)>> {
        let Some(id) = who.subject.strip_prefix("user:").and_then(|id| id.parse().ok()) else {
            return Ok(Vec::new());
        };
        let mut all = Vec::new();
        for proxy in store::proxies(&self.ctx.db, who.tenant, store::Whose::User(id)).await? {
            if proxy.ended_at.is_some() || proxy.ends().is_some_and(|at| at <= self.ctx.clock.now_ms()) {
                continue;
            }
            let read = self
                .records()?
                .read(who.tenant, &Access::All, "Patient", &proxy.patient)
                .await;
            let name = match read {
                Ok(resource) => human_name(&resource.value()?),
                Err(_) => None,
            };
            all.push((proxy, name.unwrap_or_default()));
        }
        Ok(all)
    }

    pub(crate) async fn own_patient(&self, who: &Principal) -> Result<Option<String>> {
        let own = self.ctx.policy.objects_of(who.tenant, &who.subject, "self").await?;
        Ok(own.iter().find_map(|o| o.strip_prefix("patient:")).map(str::to_owned))
    }

    pub(crate) async fn require_admin(&self, who: &Principal) -> Result<()> {
        let all = Resource::new("user", "*");
        self.ctx.policy.require(who, Action::Administer, &all).await
    }
}

/// That they stand for the patient at all (whom they may choose to act for), and in which parts: what the policy knows.
fn relations(proxy: &Proxy) -> impl Iterator<Item = &'static str> {
    let parts = PROXY_SCOPES
        .iter()
        .filter(|s| proxy.scope.iter().any(|own| own == s.name));
    std::iter::once("proxy").chain(parts.map(|s| s.relation))
}

/// Live channels and whoever else has let this person in look again.
fn changed(bus: &Bus, tx: &mut Tx, subject: &str) -> Result<()> {
    let event = Event::of(tx, "access.changed", subject, &json!({ "subject": subject }))?;
    bus.publish_after(tx, event);
    Ok(())
}

fn related_person(proxy: &Proxy, from: Millis) -> Value {
    let code = RELATIONSHIPS
        .iter()
        .find(|(name, ..)| *name == proxy.relationship)
        .map_or("", |(_, code, _)| code);
    let mut relationship = json!({ "text": proxy.relationship });
    if !code.is_empty() {
        relationship["coding"] = json!([{"system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "code": code}]);
    }
    let mut period = json!({ "start": rfc3339(from) });
    if let Some(end) = proxy.ends() {
        period["end"] = json!(rfc3339(end));
    }
    json!({
        "resourceType": "RelatedPerson",
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": format!("urn:uuid:{}", proxy.user)}],
        "active": true,
        "patient": {"reference": format!("Patient/{}", proxy.patient)},
        "relationship": [relationship],
        "name": [{"text": proxy.name}],
        "telecom": [{"system": "email", "value": proxy.email}],
        "period": period,
    })
}

/// In the patient's own log, too.
async fn noted(tx: &mut Tx, actor: &str, action: &'static str, proxy: &Proxy, what: &str) -> Result<()> {
    let detail = format!("proxy user:{} {what}, {}", proxy.user, proxy.scope.join(" "));
    audited(
        tx,
        actor,
        action,
        &format!("Patient/{}", proxy.patient),
        "success",
        &detail,
    )
    .await
}

/// The end of a day of the clinic's calendar.
fn last_moment(day: &str, clinic: &Tenant) -> Result<Millis> {
    let wrong = || Error::unprocessable("proxy.until", "The last day is a date such as 2027-03-31.");
    let date: Date = day.parse().map_err(|_| wrong())?;
    let next = date.tomorrow().map_err(|_| wrong())?;
    let end = next.to_zoned(zone_of(clinic)).map_err(|_| wrong())?;
    Ok(end.timestamp().as_millisecond())
}

/// The user of a proxy, shown to a patient.
#[must_use]
pub(crate) fn state(proxy: &Proxy, now: Millis) -> &'static str {
    match (proxy.ended_at, proxy.accepted_at) {
        (Some(_), _) => "ended",
        _ if proxy.ends().is_some_and(|at| at <= now) => "over",
        (None, Some(_)) => "active",
        (None, None) => "asked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coming_of_age_follows_the_calendar_of_the_clinic() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let at = |born: &str, years| of_age(born, years, &berlin).map(rfc3339);
        assert_eq!(at("2010-06-15", 18).as_deref(), Some("2028-06-14T22:00:00.000Z"));
        assert_eq!(at("2010-12-15", 16).as_deref(), Some("2026-12-14T23:00:00.000Z"));
        assert_eq!(
            at("2008-02-29", 18).as_deref(),
            Some("2026-02-28T23:00:00.000Z"),
            "the 1 March, not the 28 February"
        );
        assert_eq!(
            at("2008-02-29", 20).as_deref(),
            Some("2028-02-28T23:00:00.000Z"),
            "a leap year has the day"
        );
        assert_eq!(at("2010-06", 18).as_deref(), Some("2028-05-31T22:00:00.000Z"));
        assert_eq!(at("2010", 18).as_deref(), Some("2027-12-31T23:00:00.000Z"));
        assert_eq!(at("someday", 18), None);
    }
}
