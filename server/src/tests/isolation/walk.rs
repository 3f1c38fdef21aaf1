//! Every route, every role, every place where an id may stand: what is another clinic's is not there, what is the own
//! clinic's but not one's own to see is not there either, and nothing changes where nobody may change anything.
#![allow(clippy::print_stdout, reason = "the run prints probes, leaks and bugs noticed")]

use super::{
    Caller, HOUR, House, Stand, app, house,
    probes::{Ids, Probe, filled, probes},
    shape, table,
    world::{Outside, forbidden},
};
use medtech_kernel::{
    Result, Tenant,
    auth::NewSession,
    db::{Script, Sql},
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What the walk found.
#[derive(Default)]
pub(super) struct Found {
    probes: usize,
    leaks: Vec<String>,
}

/// As long and of the same form, and nobody's.
fn unknown(ids: &Ids) -> Ids {
    let other = |id: &String| match Uuid::try_parse(id) {
        Ok(_) => Uuid::from_bytes(medtech_kernel::id::random::<16>()).to_string(),
        Err(_) => id.chars().rev().collect(),
    };
    ids.iter().map(|(kind, id)| (*kind, other(id))).collect()
}

/// Answers that grow with what the caller did: they are looked through for marks, not compared.
pub(super) const OWN_DOING: [&str; 2] = ["/api/tenants/audit", "/api/identity/me/access-log"];
/// Answers drawn at random, or counted on with each asking: of them the status is compared.
pub(super) const DRAWN: [&str; 7] = [
    "/api/identity/passkeys/authenticate/start",
    "/api/identity/passkeys/register/start",
    "/api/identity/step-up/passkey/start",
    "/api/identity/totp/start",
    "/api/identity/recovery",
    "/api/identity/sessions/end-others",
    "/api/operations/keys/rotate",
];

/// Without what the parser says of a text that has not the form of an id.
pub(super) fn plain(said: &str) -> String {
    let mut out = String::new();
    let mut rest = said;
    while let Some((head, tail)) = rest.split_once("UUID parsing failed") {
        out.push_str(head);
        rest = tail.find('"').map_or("", |end| &tail[end..]);
    }
    out + rest
}

/// The register of clinics without what it is there to say of each.
fn without_register(answer: &str) -> String {
    let Ok(mut all) = serde_json::from_str::<Value>(answer) else {
        return answer.to_owned();
    };
    let clinics = all["clinics"].as_array_mut().into_iter().flatten();
    for clinic in clinics.filter_map(|c| c.as_object_mut()) {
        for said in ["slug", "name", "address", "domains"] {
            clinic.remove(said);
        }
    }
    all.to_string()
}

pub(super) struct Walk<'a> {
    pub(super) w: &'a World,
    pub(super) house: &'a House,
    pub(super) tenant: &'a Tenant,
    pub(super) own: &'a mut Stand,
    found: Found,
    /// Stop at the first leak: enough to show that a bug is noticed.
    first: bool,
}

impl Walk<'_> {
    pub(super) fn over(&self) -> bool {
        self.first && !self.found.leaks.is_empty()
    }

    pub(super) fn leak(&mut self, what: String) {
        self.found.leaks.push(what);
    }

    pub(super) async fn ask(&mut self, who: &Caller, probe: &Probe, ids: &Ids) -> (u16, String) {
        self.found.probes += 1;
        let body = probe.body.as_ref().map(|b| filled(b, ids));
        self.house
            .ask(who, probe.method, &filled(&probe.path, ids), body.as_deref())
            .await
    }

    /// A route may have ended the caller's session (sign-out does): they come in again.
    async fn awake(&mut self, name: &'static str, new: &Option<NewSession>) -> Result<Caller> {
        let who = self.own.caller(name).clone();
        let Some(new) = new else { return Ok(who) };
        let token = who.token.clone().unwrap_or_default();
        if self.w.ctx.sessions.verify(self.tenant.id, &token).await.is_ok() {
            return Ok(who);
        }
        let fresh = Caller {
            token: Some(self.house.issue(self.tenant, new.clone()).await?),
            ..who
        };
        for (n, caller) in &mut self.own.callers {
            if *n == name {
                *caller = fresh.clone();
            }
        }
        Ok(fresh)
    }

    /// One caller through every probe: with another clinic's ids and nobody's, and with what is out of reach at home.
    async fn caller(
        &mut self,
        name: &'static str,
        session: Option<NewSession>,
        probes: &[Probe],
        foreign: &Stand,
        outside: &Outside,
    ) -> Result<()> {
        let with = |ids: &Ids, mrn: &str, code: &str, why: &str, sealed: &str| -> Ids {
            let more = [("mrn", mrn), ("code", code), ("why", why), ("sealed", sealed)];
            ids.iter()
                .cloned()
                .chain(more.map(|(k, v)| (k, v.to_owned())))
                .collect()
        };
        let theirs = with(&foreign.ids, "nomrn", "nocode", "nowhy", "noseal");
        let nobodys = with(&unknown(&foreign.ids), "nomrx", "nocodx", "nowhx", "noseax");
        let mut rest: Ids = outside.ids.clone();
        rest.extend(
            self.own
                .ids
                .iter()
                .filter(|(k, _)| !outside.ids.iter().any(|(o, _)| o == k))
                .cloned(),
        );
        let near_kinds = ["practitioner", "appointment", "device", "conversation"];
        let absent: Ids = unknown(&outside.ids)
            .into_iter()
            .chain(rest.iter().filter(|(k, _)| near_kinds.contains(k)).cloned())
            .collect();
        let limited = !matches!(name, "staff" | "admin");
        // Why their own patients came is for clinicians and patients to ask.
        let why = if limited { "code-WhyOut" } else { "code-WhyNear" };
        let sealed = if name == "patient" {
            "code-ClinSeax"
        } else {
            "code-ClinSeal"
        };
        let hidden = with(&rest, "NameOut", "code-ClinOut", why, sealed);
        let absent = with(&absent, "NameXxx", "code-XlinXxx", "code-XhyXxxx", "code-ClinSeay");
        self.members_only(name).await;
        let awake = self.awake(name, &session).await?;
        self.closed_elements(name, awake).await;
        for probe in probes {
            if self.over() {
                return Ok(());
            }
            let pairs = [(&theirs, &nobodys, true), (&hidden, &absent, limited)];
            for (there, nowhere, alike) in pairs {
                // What a body or a path of its own id could change is only asked with what is not one's own.
                let own_id = near_kinds.iter().any(|k| {
                    probe.path.contains(&format!("{{{k}}}"))
                        || probe.body.as_ref().is_some_and(|b| b.contains(&format!("{{{k}}}")))
                });
                // Breaking the glass is the one way out of one's own patients, and is told and reviewed.
                let way_out = probe.path.ends_with("/break-glass");
                if !std::ptr::eq(there, &theirs) && (own_id || way_out) {
                    continue;
                }
                let who = self.awake(name, &session).await?;
                let (status, text) = self.ask(&who, probe, there).await;
                let who = self.awake(name, &session).await?;
                let (expected, empty) = self.ask(&who, probe, nowhere).await;
                let both: Ids = there
                    .iter()
                    .chain(nowhere)
                    .filter(|(_, id)| id.len() > 4)
                    .cloned()
                    .collect();
                let at = format!("{name} {} {}", probe.method, filled(&probe.path, there));
                if status >= 500 && status != 501 {
                    self.leak(format!("{at}: {status} {text}"));
                }
                let (said, other) = (plain(&shape(&text, &both)), plain(&shape(&empty, &both)));
                let alike =
                    (alike || probe.path.contains("{why}")) && !OWN_DOING.iter().any(|p| probe.path.starts_with(p));
                let drawn = DRAWN.iter().any(|p| probe.path.starts_with(p));
                if alike && (status != expected || !drawn && said != other) {
                    self.leak(format!("{at}: {status} is not {expected}, or {said} is not {other}"));
                }
                // What was asked may be said again.
                let answer = said
                    .replace("NameOut", "")
                    .replace("code-ClinOut", "")
                    .replace("code-WhyNear", "")
                    .replace("code-ClinSeal", "");
                let marks = [foreign.mark.clone(), "east".to_owned()];
                // Who runs the installation (the first clinic's administrators) sees which clinics there are, and no more.
                let register =
                    name == "admin" && probe.method == "GET" && probe.path.split('?').next() == Some("/api/tenants");
                let answer = if register { without_register(&answer) } else { answer };
                if marks.iter().any(|m| answer.contains(m.as_str()))
                    || (name == "app" && !probe.path.starts_with("/fhir") && self.only_for_members(&answer))
                {
                    self.leak(format!("{at}: {answer}"));
                }
                for mark in forbidden(name) {
                    if text.contains(&format!("{mark}{}", self.tenant.slug)) {
                        self.leak(format!("{at}: {mark} in {text}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Who writes single elements of a resource writes no others.
    async fn closed_elements(&mut self, name: &'static str, who: Caller) {
        let blood = |id: &str| {
            json!({"resourceType": "Patient", "id": id, "extension": [{"url": "urn:blood", "valueString": "0"}]})
                .to_string()
        };
        let near = self.own.id("patient").to_owned();
        let (path, body) = match name {
            "patient" => (format!("/fhir/R4/Patient/{near}"), blood(&near)),
            "staff" => ("/fhir/R4/Patient/outsider".to_owned(), blood("outsider")),
            _ => return,
        };
        let (method, body) = ("PUT", Some(body));
        let probe = Probe { method, path, body };
        let ids = self.own.ids.clone();
        let (status, text) = self.ask(&who, &probe, &ids).await;
        if status != 403 {
            self.leak(format!("{name} {} {}: {status} {text}", probe.method, probe.path));
        }
    }

    /// A conversation of one's own clinic is for its members, whatever the role.
    async fn members_only(&mut self, name: &'static str) {
        if matches!(name, "clinician" | "guest") {
            return;
        }
        let probe = Probe {
            method: "GET",
            path: "/api/messaging/conversations/{conversation}/messages".into(),
            body: None,
        };
        let (who, ids) = (self.own.caller(name).clone(), self.own.ids.clone());
        let (status, text) = self.ask(&who, &probe, &ids).await;
        if status < 400 {
            self.leak(format!("{name} {}: {status} {text}", probe.path));
        }
    }

    fn only_for_members(&self, answer: &str) -> bool {
        answer.contains(&self.own.mark)
    }

    pub(super) async fn session(&self, name: &'static str) -> Result<Option<NewSession>> {
        let who = self.own.caller(name).clone();
        if who.token.is_none() {
            return Ok(None);
        }
        let p = self.house.principal(self.w, self.tenant, &who).await?;
        Ok(Some(NewSession {
            subject: p.subject,
            name: p.name.to_string(),
            roles: p.roles,
            ttl_ms: HOUR * 12,
            note: "walk".into(),
            grant: (*p.grant).clone(),
            idle_ms: None,
        }))
    }

    /// A token at another clinic's address opens nothing there, and nothing of its own clinic's.
    async fn abroad(&mut self, name: &'static str, probes: &[Probe], foreign: &Stand) {
        let host = foreign.caller("nobody").host.clone();
        let (who, nobody) = (
            Caller {
                host: host.clone(),
                token: self.own.caller(name).token.clone(),
            },
            foreign.caller("nobody").clone(),
        );
        for probe in probes {
            if self.over() || who.token.is_none() {
                return;
            }
            let ids = self.own.ids.clone();
            let (status, text) = self.ask(&who, probe, &ids).await;
            let (expected, _) = self.ask(&nobody, probe, &ids).await;
            if status < 300 && expected >= 400 || text.contains(&self.own.mark) && !probe.path.contains("of=") {
                self.leak(format!(
                    "{name} abroad {} {}: {status} {text}",
                    probe.method, probe.path
                ));
            }
        }
    }
}

/// Every row a clinic has, but for when its sessions were seen.
async fn rows(w: &World, tenant: &Tenant) -> Result<BTreeMap<String, Vec<String>>> {
    let mut all = BTreeMap::new();
    for migration in app::migrations().into_iter().flatten() {
        let text = match migration.sql {
            Script::Both(text) | Script::Each { sqlite: text, .. } => text,
        };
        for part in text.split("CREATE TABLE ").skip(1) {
            let name = part.split([' ', '(']).next().unwrap_or_default();
            if name == "session" || !part.split(';').next().unwrap_or_default().contains("tenant BIGINT") {
                continue;
            }
            let found = w
                .ctx
                .db
                .query(
                    tenant.id,
                    Sql::built(format!("SELECT * FROM {name} WHERE tenant = $1")),
                    &[],
                )
                .await;
            let mut lines: Vec<String> = found?.iter().map(|r| format!("{r:?}")).collect();
            if name == "visit" {
                // The hub itself notes that a guest has gone quiet: the third column counts that.
                for line in &mut lines {
                    let parts: Vec<&str> = line
                        .split(", ")
                        .enumerate()
                        .filter(|(i, _)| *i != 2)
                        .map(|(_, p)| p)
                        .collect();
                    *line = parts.join(", ");
                }
            }
            lines.sort();
            all.insert(name.to_owned(), lines);
        }
    }
    Ok(all)
}

/// A bug that is switched on is on in the whole process: nobody else walks meanwhile.
static WALKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn walk(w: &World, first: bool) -> Result<Found> {
    for tenant in [&w.north, &w.south, &w.east] {
        w.demand_relationships(tenant).await?;
    }
    let house = house(w).await?;
    let mut north = house.stand(w, &w.north).await?;
    let mut south = house.stand(w, &w.south).await?;
    let mut east = house.stand(w, &w.east).await?;
    let outside = house.furnish(w, &w.north, &mut north).await?;
    house.furnish(w, &w.south, &mut south).await?;
    house.furnish(w, &w.east, &mut east).await?;
    for tenant in [&w.north, &w.south, &w.east] {
        house.settle(tenant).await?;
    }
    let probes = probes(&table::of(&house.running.router));
    let before = (rows(w, &w.south).await?, rows(w, &w.east).await?);
    let names: Vec<&'static str> = north.callers.iter().map(|(name, _)| *name).collect();
    let mut walk = Walk {
        w,
        house: &house,
        tenant: &w.north,
        own: &mut north,
        found: Found::default(),
        first,
    };
    // Before anyone has walked: administrators may end everyone's sessions on their way.
    let mut sessions = Vec::new();
    for name in &names {
        sessions.push(walk.session(name).await?);
    }
    for (name, session) in names.into_iter().zip(sessions) {
        walk.caller(name, session, &probes, &south, &outside).await?;
        walk.abroad(name, &probes, &south).await;
    }
    walk.passing(&probes, &outside).await?;
    let mut found = walk.found;
    // What is audited as refused at another clinic's address belongs there, and so does what anyone may begin at its open
    // doors (a sign-in; the first look at its public keys makes them). Nothing else may have come.
    let after = (rows(w, &w.south).await?, rows(w, &w.east).await?);
    for (was, is) in [(&before.0, &after.0), (&before.1, &after.1)] {
        for (table, lines) in was {
            if is.get(table) != Some(lines)
                && ![
                    "audit",
                    "audit_checkpoint",
                    "identity_attempt",
                    "identity_ceremony",
                    "oauth_key",
                ]
                .contains(&table.as_str())
            {
                found.leaks.push(format!(
                    "{table} of another clinic has changed: {lines:?} {:?}",
                    is.get(table)
                ));
            }
        }
    }
    house.stop.send_replace(true);
    house.running.stop().await;
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_every_role_every_place_of_an_id() {
    let _alone = WALKING.lock().await;
    let tables = app::migrations();
    on_both_engines(tables.get(1..).unwrap_or_default(), |w| {
        Box::pin(async move {
            let found = walk(w, false).await?;
            println!(
                "{:?}: {} probes, {} leaks",
                w.ctx.db.engine(),
                found.probes,
                found.leaks.len()
            );
            assert!(
                found.leaks.is_empty(),
                "{}",
                BTreeSet::from_iter(&found.leaks)
                    .into_iter()
                    .take(40)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("\n")
            );
            assert!(found.probes > 5_000, "{}", found.probes);
            Ok(())
        })
    })
    .await;
}

/// Each check is dropped once; the same walk notices each. Run by itself: what is dropped is dropped for the process.
#[cfg(feature = "seeded-bugs")]
#[tokio::test(flavor = "multi_thread")]
async fn every_seeded_bug_is_noticed() {
    use medtech_kernel::policy::{BUGS, seed};
    let _alone = WALKING.lock().await;
    let tables = app::migrations();
    let (mut caught, mut missed, mut probes) = (0, Vec::new(), 0);
    for bug in BUGS {
        let w = World::sqlite(tables.get(1..).unwrap_or_default())
            .await
            .expect("a world");
        seed(bug);
        let found = walk(&w, true).await.expect("a walk");
        seed("");
        probes += found.probes;
        match found.leaks.first() {
            Some(leak) => {
                caught += 1;
                println!("{bug}: {:.160}", leak.replace('\n', " "));
            }
            None => missed.push(*bug),
        }
    }
    println!("{probes} probes, {caught} of {} seeded bugs noticed", BUGS.len());
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
