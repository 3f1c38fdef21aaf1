//! Somebody who could until a moment ago: a colleague whose sight ran out, a session that has just ended, an emergency that is
//! over, the parent of a child that came of age, a Consent that was taken back. They ask every route, and are told what their
//! twin is told, who never could. Each state is held by the clock, which stands still while it is asked about.

use super::{
    Caller, HOUR,
    probes::{Ids, Probe, filled},
    shape,
    walk::{DRAWN, OWN_DOING, Walk, plain},
    world::{NAME_OUT, NEAR, OUT, Outside, SEALED, forbidden},
};
use medtech_identity::NewUser;
use medtech_kernel::{
    Error, Result,
    auth::{Assurance, NewSession, Role},
    policy::{self, Treatment},
};
use serde_json::{Value, json};
use std::collections::HashSet;

const MINOR: &str = "ClinMinor";
/// As often as the rooms are looked at again (signaling's `visits/recheck.rs`).
const LOOK: i64 = 30_000;
const TAKES_PART: &str = "SELECT COUNT(*) FROM relation WHERE tenant = $1 AND subject = $2 AND relation = 'colleague'";
/// What is one's own and the session's: when each was begun, and the key that is made for one's device.
const OWN: [&str; 2] = ["/api/identity/sessions", "/api/identity/me/device-key"];
/// Who takes part in a visit is told so, and why they may do nothing there; a stranger is told only that they may not.
const VISIT: &str = "/api/visits/";

/// Somebody made for a state.
struct Person {
    caller: Caller,
    /// With what they come in again; `None`: as they are, they stay.
    again: Option<NewSession>,
    /// By what answers call them.
    called: Vec<String>,
}

impl Person {
    fn subject(&self) -> &str {
        self.again.as_ref().map_or("", |s| &s.subject)
    }
}

/// A state that has passed, and somebody who was never in it.
struct Passed {
    name: &'static str,
    who: Person,
    twin: Person,
    /// What they must not find (any more).
    never: Vec<&'static str>,
    /// With what they ask.
    ids: Vec<Ids>,
    /// Where they are still let in until the next look at the rooms; every other route asks the policy itself.
    until_looked: &'static [&'static str],
}

impl Walk<'_> {
    /// Every state, one after the other: those that pass by themselves last, since the clock is moved for them.
    pub(super) async fn passing(&mut self, probes: &[Probe], outside: &Outside) -> Result<()> {
        if self.over() {
            return Ok(());
        }
        let mut rest = self.own.ids.clone();
        for (kind, id) in &mut rest {
            if let Some((_, out)) = outside.ids.iter().find(|(k, _)| k == kind) {
                id.clone_from(out);
            }
        }
        let named = [
            ("mrn", "NameOut"),
            ("code", "code-ClinOut"),
            ("why", "code-WhyNear"),
            ("sealed", "code-ClinSeal"),
        ];
        let named = |ids: Ids| -> Ids { ids.into_iter().chain(named.map(|(k, v)| (k, v.to_owned()))).collect() };
        let (near, out) = (named(self.own.ids.clone()), named(rest));
        let all = || vec![near.clone(), out.clone()];
        // Whoever may delete has done so on the way here.
        self.furnish_again().await?;

        let state = self.colleague(all()).await?;
        self.asks(state, probes).await?;
        let state = self.signed_out(all()).await?;
        self.asks(state, probes).await?;
        let state = self.glass("glass mended", all(), false).await?;
        self.asks(state, probes).await?;
        let state = self.timed_out(all()).await?;
        self.asks(state, probes).await?;
        let state = self.glass("glass timed out", all(), true).await?;
        self.asks(state, probes).await?;
        let state = self.proxy(all()).await?;
        self.asks(state, probes).await?;
        // Both treat the near patient, so only what is out of reach is asked about, and last: they may change the rest.
        let kept = ["practitioner", "appointment", "device", "conversation"].map(|kind| format!("{{{kind}}}"));
        let names = |probe: &&Probe| {
            let body = probe.body.as_deref().unwrap_or_default();
            kept.iter().any(|id| probe.path.contains(id) || body.contains(id))
        };
        let rest: Vec<Probe> = probes.iter().filter(|probe| !names(probe)).cloned().collect();
        let state = self.consent(vec![out.clone()]).await?;
        self.asks(state, &rest).await
    }

    /// The one and the twin through every probe.
    async fn asks(&mut self, mut state: Passed, probes: &[Probe]) -> Result<()> {
        let (mut entered_again, mut late, mut asked) = (0, Vec::new(), HashSet::new());
        for probe in probes {
            // Breaking the glass is the one way to more, and is told and reviewed.
            if self.over() || probe.path.ends_with("/break-glass") {
                continue;
            }
            if !state.until_looked.is_empty() && probe.path.starts_with(VISIT) {
                late.push(probe.clone());
            }
            if state.until_looked.iter().any(|p| probe.path.starts_with(p)) {
                late.push(probe.clone());
                continue;
            }
            for ids in state.ids.clone() {
                let body = probe.body.as_ref().map(|body| filled(body, &ids));
                // Many a route names nothing, or not what differs.
                if !asked.insert((probe.method, filled(&probe.path, &ids), body)) {
                    continue;
                }
                if !state.until_looked.is_empty() && !self.takes_part(&state.who).await? {
                    // The route before has taken something from somebody, so the rooms were looked at.
                    self.joins(&state.who).await?;
                    entered_again += 1;
                }
                self.alike(&mut state, probe, &ids).await?;
            }
        }
        if state.until_looked.is_empty() || self.over() {
            return Ok(());
        }
        assert!(
            entered_again < probes.len() / 10,
            "{} stood: entered {entered_again} times",
            state.name
        );
        if !self.takes_part(&state.who).await? {
            self.joins(&state.who).await?;
        }
        self.house.clinic.ctx.clock.advance(LOOK);
        while self.takes_part(&state.who).await? {
            tokio::task::yield_now().await;
        }
        state.until_looked = &[];
        Box::pin(self.asks(state, &late)).await
    }

    async fn alike(&mut self, state: &mut Passed, probe: &Probe, ids: &Ids) -> Result<()> {
        let mut answers = Vec::new();
        // Whichever of the two an answer names.
        let called: Vec<String> = [&state.who, &state.twin]
            .into_iter()
            .flat_map(|p| p.called.clone())
            .collect();
        for person in [&mut state.who, &mut state.twin] {
            self.here(person).await?;
            let (status, mut text) = self.ask(&person.caller, probe, ids).await;
            for mark in &state.never {
                if text.contains(&format!("{mark}{}", self.tenant.slug)) {
                    self.leak(format!(
                        "{} {} {}: {mark} in {text}",
                        state.name, probe.method, probe.path
                    ));
                }
            }
            for name in &called {
                text = text.replace(name, "ME");
            }
            let known: Ids = ids.iter().filter(|(_, id)| id.len() > 4).cloned().collect();
            answers.push((status, plain(&shape(&text, &known))));
        }
        let [(status, said), (expected, other)] = &answers[..] else {
            return Ok(());
        };
        let own = |p: &&str| probe.path.starts_with(p);
        let known = !state.until_looked.is_empty() && own(&VISIT);
        // Whose token has run out is told so, and nothing else.
        let status_alone = *status == 401 || known || DRAWN.iter().chain(&OWN_DOING).chain(&OWN).any(own);
        if status != expected || !status_alone && said != other {
            self.leak(format!(
                "{} {} {}: {status} is not {expected}, or {said} is not {other}",
                state.name, probe.method, probe.path
            ));
        }
        Ok(())
    }

    /// Comes in again when the route before ended the session (sign-out does).
    async fn here(&self, person: &mut Person) -> Result<()> {
        if let Some(new) = &person.again {
            let token = person.caller.token.clone().unwrap_or_default();
            if self.w.ctx.sessions.verify(self.tenant.id, &token).await.is_err() {
                person.caller.token = Some(self.house.issue(self.tenant, new.clone()).await?);
            }
        }
        Ok(())
    }

    async fn person(&self, name: &str, role: Role, practitioner: Option<&str>) -> Result<Person> {
        if let Some(id) = practitioner {
            let doctor = json!({"resourceType": "Practitioner", "name": [{"family": "Doctor"}]});
            self.put(id, doctor).await?;
        }
        let new = NewUser {
            email: format!("{name}@passing.example"),
            name: format!("Passing {name}"),
            roles: vec![role],
            password: None,
            practitioner: practitioner.map(str::to_owned),
            patient: None,
        };
        let user = self.house.clinic.identity.create_user(self.tenant.id, new).await?;
        let session = NewSession {
            subject: user.subject(),
            name: user.name.clone(),
            roles: vec![role],
            // Longer than any state: the session goes on, what it could do does not.
            ttl_ms: HOUR * 48,
            note: "walk".into(),
            grant: Assurance::Two.into(),
            idle_ms: None,
        };
        let called = [Some(user.id.to_string()), practitioner.map(str::to_owned)];
        Ok(Person {
            caller: Caller {
                host: self.own.caller("nobody").host.clone(),
                token: Some(self.house.issue(self.tenant, session.clone()).await?),
            },
            again: Some(session),
            called: called.into_iter().flatten().chain([user.email, user.name]).collect(),
        })
    }

    async fn put(&self, id: &str, mut resource: Value) -> Result<()> {
        resource["id"] = json!(id);
        let (fhir, tenant) = (&self.house.clinic.fhir, self.tenant.id);
        let put = fhir.update(tenant, "system", id, resource, None).await;
        put.map_err(Error::from).map(|_| ())
    }

    /// The patient nobody treats, and what is sealed of the one they do.
    async fn furnish_again(&self) -> Result<()> {
        let slug = &self.tenant.slug;
        let name = json!([{"family": format!("{NAME_OUT}{slug}")}]);
        self.put("outsider", json!({"resourceType": "Patient", "name": name}))
            .await?;
        let observation = |mark: &str, patient: &str| {
            json!({"resourceType": "Observation", "status": "final", "code": {"text": format!("{mark}{slug}")},
                "subject": {"reference": format!("Patient/{patient}")}})
        };
        self.put("o-outside", observation(OUT, "outsider")).await?;
        let near = self.own.id("patient");
        self.put("o-near", observation(NEAR, near)).await?;
        let mut sealed = observation(SEALED, near);
        sealed["meta"] =
            json!({"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}]});
        self.put("o-sealed", sealed).await
    }

    /// They can, or the state would be none.
    async fn can(&self, who: &Person, path: &str, mark: &str) {
        let (status, text) = self.house.ask(&who.caller, "GET", path, None).await;
        assert!(status == 200 && text.contains(mark), "{path}: {status} {text}");
    }

    async fn takes_part(&self, who: &Person) -> Result<bool> {
        let db = &self.house.clinic.ctx.db;
        let row = db
            .query_one(self.tenant.id, TAKES_PART, &[who.subject().into()])
            .await?;
        Ok(row.i64(0)? > 0)
    }

    /// Treats the patient, joins the visit, and treats them no longer: nobody is told when a time runs out, so that only the
    /// next look at the rooms notices.
    async fn joins(&self, who: &Person) -> Result<()> {
        let ctx = &self.house.clinic.ctx;
        let treats = Treatment {
            who: who.subject().to_owned(),
            patient: self.own.id("patient").to_owned(),
            from: 0,
            until: ctx.clock.now_ms() + 1,
        };
        let given = ctx.db.write(self.tenant.id, move |tx| {
            Box::pin(async move { policy::treat(tx, "Appointment/passing", &[treats]).await })
        });
        given.await?;
        let visit = self.own.id("visit");
        self.can(who, "/fhir/R4/Observation/o-near", NEAR).await;
        let join = format!("/api/visits/{visit}/colleagues");
        self.house.json(&who.caller, "POST", &join, Value::Null).await;
        ctx.clock.advance(1);
        Ok(())
    }

    async fn colleague(&mut self, ids: Vec<Ids>) -> Result<Passed> {
        let state = Passed {
            name: "colleague",
            who: self.person("colleague", Role::Clinician, None).await?,
            twin: self.person("stranger", Role::Clinician, None).await?,
            never: forbidden("locum"),
            ids,
            // A member of the visit's conversation for as long as they take part in the visit.
            until_looked: &["/api/messaging/"],
        };
        self.joins(&state.who).await?;
        assert!(self.takes_part(&state.who).await?);
        let media = format!("/api/visits/{}/media", self.own.id("visit"));
        let (status, text) = self.house.ask(&state.who.caller, "POST", &media, None).await;
        if status != 403 {
            self.leak(format!("colleague POST {media}: {status} {text}"));
        }
        Ok(state)
    }

    /// The clinician, in a session of their own, which `end` ends.
    async fn session_that(&self, name: &'static str, ttl_ms: i64, ids: Vec<Ids>) -> Result<Passed> {
        let doctor = self.own.caller("clinician").clone();
        let new = NewSession {
            ttl_ms,
            ..self.session("clinician").await?.expect("a clinician has a token")
        };
        let token = self.house.issue(self.tenant, new).await?;
        // As long and of the same form, and of nobody.
        let (head, tail) = token.split_at(token.len() - 12);
        let forged = format!("{head}{}", tail.chars().rev().collect::<String>());
        let person = |token: String| Person {
            caller: Caller {
                token: Some(token),
                ..doctor.clone()
            },
            again: None,
            called: Vec::new(),
        };
        let state = Passed {
            name,
            who: person(token),
            twin: person(forged),
            never: forbidden("nobody"),
            ids,
            until_looked: &[],
        };
        self.can(&state.who, "/fhir/R4/Observation/o-near", NEAR).await;
        Ok(state)
    }

    async fn signed_out(&self, ids: Vec<Ids>) -> Result<Passed> {
        let state = self.session_that("signed out", HOUR, ids).await?;
        let out = "/api/identity/sign-out";
        self.house.json(&state.who.caller, "POST", out, Value::Null).await;
        Ok(state)
    }

    async fn timed_out(&self, ids: Vec<Ids>) -> Result<Passed> {
        let state = self.session_that("session timed out", 1_000, ids).await?;
        self.house.clinic.ctx.clock.advance(1_000);
        Ok(state)
    }

    /// An emergency that is over: said to be, or its hour.
    async fn glass(&self, name: &'static str, ids: Vec<Ids>, by_time: bool) -> Result<Passed> {
        let (one, other) = if by_time {
            ("helper", "onlooker")
        } else {
            ("saver", "watcher")
        };
        let state = Passed {
            name,
            who: self.person(one, Role::Clinician, None).await?,
            twin: self.person(other, Role::Clinician, None).await?,
            never: forbidden("locum"),
            ids,
            until_looked: &[],
        };
        let path = "/api/records/patients/outsider/break-glass";
        let why = json!({"reason_code": "emergency", "text": "walk through the isolation"});
        self.house.json(&state.who.caller, "POST", path, why).await;
        self.can(&state.who, "/fhir/R4/Observation/o-outside", OUT).await;
        if by_time {
            self.house.clinic.ctx.clock.advance(policy::glass::OPEN);
        } else {
            let end = format!("{path}/end");
            self.house.json(&state.who.caller, "POST", &end, Value::Null).await;
        }
        Ok(state)
    }

    /// Named by a patient to see what is sealed, until the patient takes that back.
    async fn consent(&self, ids: Vec<Ids>) -> Result<Passed> {
        let state = Passed {
            name: "consent withdrawn",
            who: self.person("named", Role::Clinician, Some("named-doctor")).await?,
            twin: self.person("other", Role::Clinician, Some("other-doctor")).await?,
            never: forbidden("clinician"),
            ids,
            until_looked: &[],
        };
        let near = format!("Patient/{}", self.own.id("patient"));
        for person in [&state.who, &state.twin] {
            let (subject, object) = (
                person.subject().to_owned(),
                format!("patient:{}", self.own.id("patient")),
            );
            let treats = self.house.clinic.ctx.db.write(self.tenant.id, move |tx| {
                Box::pin(async move { policy::relate(tx, &subject, "treats", &object, None).await })
            });
            treats.await?;
        }
        let says = |status: &str| {
            json!({"resourceType": "Consent", "status": status, "scope": {"text": "privacy"}, "category": [{"text": "x"}],
                "patient": {"reference": near}, "policyRule": {"text": "x"},
                "provision": {"type": "permit", "provision": [{"type": "permit",
                    "actor": [{"role": {"text": "x"}, "reference": {"reference": "Practitioner/named-doctor"}}],
                    "securityLabel": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}]}]}})
        };
        self.put("consent-named", says("active")).await?;
        self.can(&state.who, "/fhir/R4/Observation/o-sealed", SEALED).await;
        self.put("consent-named", says("inactive")).await?;
        Ok(state)
    }

    /// A parent, until the day on which the child comes of age (18 years, at midnight in Berlin).
    async fn proxy(&self, ids: Vec<Ids>) -> Result<Passed> {
        let mut state = Passed {
            name: "proxy aged out",
            who: self.person("parent", Role::Patient, None).await?,
            twin: self.person("neighbour", Role::Patient, None).await?,
            never: forbidden("nobody"),
            ids,
            until_looked: &[],
        };
        state.never.push(MINOR);
        let text = format!("{MINOR}{}", self.tenant.slug);
        let child = json!({"resourceType": "Patient", "name": [{"family": text}], "birthDate": "2008-03-03"});
        self.put("minor", child).await?;
        let result = json!({"resourceType": "Observation", "status": "final", "code": {"text": text}, "subject": {"reference": "Patient/minor"}});
        self.put("o-minor", result).await?;
        let admin = self.person("keeper", Role::Admin, None).await?;
        let grant = json!({"patient_id": "minor", "email": "parent@passing.example", "name": "Passing parent", "relationship": "mother",
            "scope": ["appointments", "results", "messages"]});
        let granted = self
            .house
            .json(&admin.caller, "POST", "/api/identity/proxies", grant)
            .await;
        let id = granted["id"].as_str().unwrap_or_default();
        let accept = format!("/api/identity/proxies/{id}/accept");
        self.house.json(&state.who.caller, "POST", &accept, Value::Null).await;
        self.can(&state.who, "/fhir/R4/Observation/o-minor", MINOR).await;
        self.house.clinic.ctx.clock.advance(HOUR * 18);
        Ok(state)
    }
}
