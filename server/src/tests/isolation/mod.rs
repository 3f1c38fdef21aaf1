//! Three clinics in one server: what is another clinic's is not there, whoever asks, at whatever route, however it is named.

mod columns;
mod erased;
mod forged;
mod passing;
mod probes;
mod table;
mod walk;
mod world;

use crate::{
    app::{self, Clinic, Running},
    gateway, ops,
};
use axum::{Router, body::Body};
use http::Request;
use http_body_util::BodyExt;
use medtech_appointments::NewAppointment;
use medtech_identity::NewUser;
use medtech_kernel::{
    Error, Result, Tenant,
    auth::{Principal, Role},
    config::Config,
    id,
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc};
use tokio::sync::watch;
use tower::ServiceExt;
use uuid::Uuid;

const HOUR: i64 = 3_600_000;

/// Somebody of a clinic.
#[derive(Clone)]
struct Caller {
    host: String,
    token: Option<String>,
}

/// A clinic with one of everything, each with the clinic's mark in its text.
struct Stand {
    mark: String,
    callers: Vec<(&'static str, Caller)>,
    /// What a path or a body may name, by its kind.
    ids: Vec<(&'static str, String)>,
    link: String,
}

impl Stand {
    fn caller(&self, name: &str) -> &Caller {
        &self.callers.iter().find(|(n, _)| *n == name).expect("a caller").1
    }

    fn id(&self, kind: &str) -> &str {
        &self.ids.iter().find(|(k, _)| *k == kind).expect("a kind").1
    }
}

struct House {
    router: Router,
    clinic: Clinic,
    running: Running,
    stop: watch::Sender<bool>,
}

async fn house(w: &World) -> Result<House> {
    // Once for the process; another test may have been first.
    let _ = crate::install_crypto();
    let mut ctx = w.ctx.clone();
    let mut config = Config {
        data_dir: w.dir.path().to_owned(),
        ..Config::default()
    };
    config.mqtt.bind = SocketAddr::from(([127, 0, 0, 1], 0));
    config.media.udp_port = 0;
    config.media.threads = 1;
    config.media.advertise = vec![[127, 0, 0, 1].into()];
    ctx.config = Arc::new(config);
    app::register_consumers(&ctx);
    let clinic = app::clinic(ctx.clone());
    let (stop, stopped) = watch::channel(false);
    let running = app::start(&clinic, None, stopped).await?;
    let router = gateway::around(running.router.clone(), ops::Metrics::new(ctx.clone(), None), ctx);
    Ok(House {
        router,
        clinic,
        running,
        stop,
    })
}

impl House {
    async fn ask(&self, who: &Caller, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &who.host)
            .header("tus-resumable", "1.0.0")
            .header("upload-offset", "0");
        let kind = match path {
            p if p.starts_with("/fhir") => "application/fhir+json",
            p if p.starts_with("/files") => "application/offset+octet-stream",
            _ => "application/json",
        };
        if let Some(token) = &who.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = body.map_or_else(Body::empty, |b| Body::from(b.to_owned()));
        let request = request.header("content-type", kind).body(body).expect("a request");
        let answer = self.router.clone().oneshot(request).await.expect("infallible");
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn json(&self, who: &Caller, method: &str, path: &str, body: Value) -> Value {
        let text = body.to_string();
        let (status, answer) = self.ask(who, method, path, (!body.is_null()).then_some(&*text)).await;
        assert!(status < 300, "{method} {path}: {status} {answer}");
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }

    async fn stand(&self, w: &World, tenant: &Tenant) -> Result<Stand> {
        let mark = format!("Mark{}", tenant.slug);
        let host = format!("{}.localhost", tenant.slug);
        let fhir = |resource: Value| async move {
            let made = self.clinic.fhir.create(tenant.id, "system", resource).await;
            made.map_err(Error::from).map(|r| r.id)
        };
        let person = json!([{"family": mark, "given": ["Ada"]}]);
        let patient = fhir(json!({"resourceType": "Patient", "name": person})).await?;
        let practitioner = fhir(json!({"resourceType": "Practitioner", "name": person})).await?;
        let observation = fhir(json!({
            "resourceType": "Observation", "status": "final", "code": {"text": mark},
            "subject": {"reference": format!("Patient/{patient}")},
            "performer": [{"reference": format!("Practitioner/{practitioner}")}],
        }))
        .await?;
        let mut callers = vec![(
            "nobody",
            Caller {
                host: host.clone(),
                token: None,
            },
        )];
        for role in [Role::Admin, Role::Clinician, Role::Staff, Role::Patient] {
            let new = NewUser {
                email: format!("{}@{}.example", role.name(), tenant.slug),
                name: format!("{mark} {}", role.name()),
                roles: vec![role],
                password: None,
                practitioner: (role == Role::Clinician).then(|| practitioner.clone()),
                patient: (role == Role::Patient).then(|| patient.clone()),
            };
            let user = self.clinic.identity.create_user(tenant.id, new).await?;
            let token = self
                .clinic
                .identity
                .issue_token(tenant.id, user.id, HOUR, "test")
                .await?;
            callers.push((
                role.name(),
                Caller {
                    host: host.clone(),
                    token: Some(token),
                },
            ));
        }
        let mut stand = Stand {
            mark: mark.clone(),
            callers,
            ids: vec![
                ("patient", patient.clone()),
                ("practitioner", practitioner.clone()),
                ("observation", observation),
            ],
            link: String::new(),
        };
        let now = w.ctx.clock.now_ms();
        let new = NewAppointment {
            patient_id: patient.clone(),
            practitioner_id: practitioner,
            start: now,
            end: now + HOUR,
            reason: mark.clone(),
        };
        let booked = self.clinic.appointments.book(tenant.id, "system", None, new).await?;
        stand.link = booked.visit_link.rsplit('#').next().unwrap_or_default().to_owned();
        stand.ids.push(("visit", booked.visit_id.to_string()));
        stand.ids.push(("appointment", booked.id));
        self.arrive(&mut stand, &host).await;
        Ok(stand)
    }

    /// The patient comes, waits and writes; a device and an alert are made.
    async fn arrive(&self, stand: &mut Stand, host: &str) {
        let nobody = stand.caller("nobody").clone();
        let open = json!({"link": stand.link, "device": {"id": Uuid::nil(), "name": "d"}}).to_string();
        // The visit is made by a durable event.
        let opened = loop {
            let (status, text) = self.ask(&nobody, "POST", "/api/visits/open", Some(&open)).await;
            if status == 200 {
                break serde_json::from_str::<Value>(&text).expect("json");
            }
            tokio::task::yield_now().await;
        };
        let guest = Caller {
            host: host.to_owned(),
            token: opened["access_token"].as_str().map(str::to_owned),
        };
        let visit = format!("/api/visits/{}", stand.id("visit"));
        let check = json!({"camera": "ok", "microphone": "ok", "speaker": "ok"});
        self.json(&guest, "POST", &format!("{visit}/device-check"), check).await;
        let consent = json!({"accepted": true, "text_version": "1", "language": "en"});
        self.json(&guest, "POST", &format!("{visit}/consent"), consent).await;
        let conversation = opened["visit"]["conversation_id"].as_str().expect("id").to_owned();
        let message = json!({"client_id": Uuid::nil(), "body": {"text": stand.mark}});
        let path = format!("/api/messaging/conversations/{conversation}/messages");
        self.json(&guest, "POST", &path, message).await;
        let clinician = stand.caller("clinician").clone();
        let device = json!({"patient_id": stand.id("patient"), "name": stand.mark, "kind": "band"});
        let device = self.json(&clinician, "POST", "/api/records/devices", device).await;
        stand
            .ids
            .push(("device", device["id"].as_str().expect("id").to_owned()));
        stand.ids.push(("conversation", conversation));
        stand.callers.push(("guest", guest));
    }

    /// Waits until every durable event that is due has been taken in. What is meant for later stays, and the clock moves only
    /// to when something that failed is tried again.
    async fn settle(&self, tenant: &Tenant) -> Result<()> {
        let (bus, clock) = (&self.clinic.ctx.bus, &self.clinic.ctx.clock);
        while let Some(due) = bus.unsettled(tenant.id).await? {
            clock.advance((due - clock.now_ms()).max(0));
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Waits until the hub has noted that the guest is there, which it does at its own next beat: the fourth change of the
    /// visit, after its opening, the check of the devices and the consent.
    async fn noted(&self, stand: &Stand) {
        let path = format!("/api/visits/{}", stand.id("visit"));
        let begun = std::time::Instant::now();
        loop {
            let (_, text) = self.ask(stand.caller("clinician"), "GET", &path, None).await;
            let visit: Value = serde_json::from_str(&text).expect("json");
            if visit["rev"] == 4 {
                return;
            }
            assert!(begun.elapsed().as_secs() < 60, "never noted: {visit}");
            tokio::task::yield_now().await;
        }
    }

    /// Everything of a clinic that its own people can see.
    async fn picture(&self, stand: &Stand) -> Vec<(u16, String)> {
        let (visit, conversation, patient) = (stand.id("visit"), stand.id("conversation"), stand.id("patient"));
        let mut seen = Vec::new();
        for (who, path) in [
            ("clinician", format!("/api/visits/{visit}")),
            ("guest", format!("/api/messaging/conversations/{conversation}")),
            ("guest", format!("/api/messaging/conversations/{conversation}/messages")),
            ("clinician", format!("/api/records/patients/{patient}/chart")),
            ("clinician", format!("/fhir/R4/Patient/{patient}/_history")),
            (
                "clinician",
                "/fhir/R4/Observation?_include=Observation:subject".to_owned(),
            ),
            ("clinician", "/fhir/R4/Device".to_owned()),
            ("clinician", "/fhir/R4/Appointment".to_owned()),
            ("staff", "/api/notifications/alerts?board=main".to_owned()),
            ("clinician", "/api/appointments/today".to_owned()),
        ] {
            let (status, text) = self.ask(stand.caller(who), "GET", &path, None).await;
            assert!(status == 200, "{who} {path}: {status} {text}");
            seen.push((status, text));
        }
        // The mark is where somebody of the clinic looks, or its absence elsewhere would prove nothing.
        assert!(
            seen.iter().filter(|(_, text)| text.contains(&stand.mark)).count() >= 7,
            "{seen:?}"
        );
        seen
    }
}

/// The same request with an id of another clinic and with one of nobody.
fn requests(
    s: &Stand,
    own: &Stand,
    id: &dyn Fn(&'static str) -> String,
) -> Vec<(&'static str, String, Option<String>)> {
    let (visit, conversation, patient, practitioner) =
        (id("visit"), id("conversation"), id("patient"), id("practitioner"));
    let (observation, device, appointment) = (id("observation"), id("device"), id("appointment"));
    let own_patient = own.id("patient");
    let body = |v: Value| Some(v.to_string());
    let mut all = vec![
        ("GET", format!("/api/visits/{visit}"), None),
        ("GET", "/api/visits?all=1".to_owned(), None),
        ("GET", format!("/api/messaging/conversations/{conversation}"), None),
        (
            "GET",
            format!("/api/messaging/conversations/{conversation}/messages"),
            None,
        ),
        (
            "POST",
            format!("/api/messaging/conversations/{conversation}/messages"),
            body(json!({"client_id": Uuid::from_u128(7), "body": {"text": "x"}})),
        ),
        (
            "POST",
            format!("/api/messaging/conversations/{conversation}/receipts"),
            body(json!({"read_upto": 1})),
        ),
        (
            "POST",
            format!("/api/visits/{visit}/device-check"),
            body(json!({"camera": "denied", "microphone": "ok", "speaker": "ok"})),
        ),
        (
            "POST",
            format!("/api/visits/{visit}/consent"),
            body(json!({"accepted": true, "text_version": "9", "language": "xx"})),
        ),
        ("GET", format!("/api/records/patients/{patient}/chart"), None),
        (
            "POST",
            "/api/records/devices".to_owned(),
            body(json!({"patient_id": patient, "name": "x", "kind": "x"})),
        ),
        (
            "POST",
            "/api/appointments".to_owned(),
            body(
                json!({"patient_id": patient, "practitioner_id": practitioner, "start": "2027-01-01T10:00:00Z", "end": "2027-01-01T10:20:00Z"}),
            ),
        ),
        ("GET", format!("/fhir/R4/Patient/{patient}"), None),
        ("GET", format!("/fhir/R4/Patient/{patient}/_history"), None),
        ("GET", format!("/fhir/R4/Patient/{patient}/_history/1"), None),
        ("GET", format!("/fhir/R4/Observation/{observation}"), None),
        ("GET", format!("/fhir/R4/Appointment/{appointment}"), None),
        ("GET", format!("/fhir/R4/Device/{device}"), None),
        ("DELETE", format!("/fhir/R4/Observation/{observation}"), None),
        (
            "GET",
            format!("/fhir/R4/Observation?subject=Patient/{patient}&_include=*"),
            None,
        ),
        (
            "GET",
            format!("/fhir/R4/Patient?_id={patient}&_revinclude=Observation:subject"),
            None,
        ),
        (
            "GET",
            format!("/fhir/R4/Patient?_has:Observation:patient:_id={observation}"),
            None,
        ),
        (
            "GET",
            format!("/fhir/R4/Observation?subject:Patient.name={}", s.mark),
            None,
        ),
        ("GET", format!("/fhir/R4/Patient?name={}", s.mark), None),
        (
            "POST",
            "/fhir/R4".to_owned(),
            body(
                json!({"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": format!("Patient/{patient}")}}, {"request": {"method": "DELETE", "url": format!("Observation/{observation}")}}]}),
            ),
        ),
        ("POST", format!("/api/notifications/{observation}/read"), None),
        (
            "POST",
            format!("/api/notifications/alerts/{observation}/acknowledge"),
            None,
        ),
        ("GET", "/fhir/R4/Patient/_history".to_owned(), None),
        (
            "GET",
            format!("/fhir/R4/Observation?subject=Patient/{own_patient}&_include=Observation:subject"),
            None,
        ),
    ];
    for step in ["admit", "hold", "end", "leave", "media"] {
        all.push(("POST", format!("/api/visits/{visit}/{step}"), None));
    }
    for method in ["GET", "HEAD", "PATCH", "DELETE"] {
        all.push((method, format!("/files/{conversation}"), None));
    }
    all
}

/// What an answer says, without what differs between any two answers: ids that were named, times, correlations.
fn shape(text: &str, names: &[(&'static str, String)]) -> String {
    let mut text = text.to_owned();
    for (_, id) in names {
        text = text.replace(id, "ID");
    }
    let mut value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    forget(&mut value);
    value.to_string()
}

fn forget(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for key in [
                "correlation",
                "location",
                "lastModified",
                "lastUpdated",
                "id",
                "access_token",
                "password",
                "token",
            ] {
                map.remove(key);
            }
            map.values_mut().for_each(forget);
        }
        Value::Array(all) => all.iter_mut().for_each(forget),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clinics_things_are_not_there() {
    let tables = app::migrations();
    on_both_engines(tables.get(1..).unwrap_or_default(), |w| {
        Box::pin(async move {
            let house = house(w).await?;
            let (north, south) = (house.stand(w, &w.north).await?, house.stand(w, &w.south).await?);
            let east = house.stand(w, &w.east).await?;
            for tenant in [&w.north, &w.south, &w.east] {
                house.settle(tenant).await?;
            }
            for stand in [&south, &east] {
                house.noted(stand).await;
            }
            let before = (house.picture(&south).await, house.picture(&east).await);
            // As long as the true ones, so that nothing but their absence can tell.
            let unknown: Vec<(&'static str, String)> = south
                .ids
                .iter()
                .map(|(kind, id)| {
                    let made = Uuid::try_parse(id).map_or_else(
                        |_| id.chars().rev().collect(),
                        |_| Uuid::from_bytes(id::random::<16>()).to_string(),
                    );
                    (*kind, made)
                })
                .collect();
            let strange = |kind: &'static str| unknown.iter().find(|(k, _)| *k == kind).expect("a kind").1.clone();
            let own = requests(&north, &north, &|kind| north.id(kind).to_owned());
            let mut there = 0;
            for (_, path, _) in own.iter().filter(|(method, ..)| *method == "GET") {
                let (status, text) = house.ask(north.caller("clinician"), "GET", path, None).await;
                there += usize::from(status == 200 && text.contains(&north.mark));
            }
            assert!(there >= 10, "the same requests find what is one's own: {there}");
            for (name, who) in &north.callers {
                let foreign = requests(&south, &north, &|kind| south.id(kind).to_owned());
                let absent = requests(&south, &north, &strange);
                for ((method, path, body), (_, nowhere, nothing)) in foreign.iter().zip(&absent) {
                    let (status, text) = house.ask(who, method, path, body.as_deref()).await;
                    let (expected, empty) = house.ask(who, method, nowhere, nothing.as_deref()).await;
                    assert_eq!(
                        (status, shape(&text, &south.ids)),
                        (expected, shape(&empty, &unknown)),
                        "{name} {method} {path}"
                    );
                    assert!(status < 500, "{name} {method} {path}: {status} {text}");
                    // A search says in its own link what was asked.
                    let asked = path.contains(&south.mark);
                    for other in [&south, &east] {
                        assert!(asked || !text.contains(&other.mark), "{name} {method} {path}: {text}");
                    }
                }
                // The own token at another clinic's address, and another clinic's link at the own one.
                let abroad = Caller {
                    host: "south.localhost:8080".into(),
                    token: who.token.clone(),
                };
                for (method, path, body) in &foreign {
                    let (status, text) = house.ask(&abroad, method, path, body.as_deref()).await;
                    assert!(status == 401, "{name} abroad {method} {path}: {status} {text}");
                }
            }
            let nobody = north.caller("nobody");
            let open = |link: &str| json!({"link": link, "device": {"id": Uuid::nil()}, "take_over": true}).to_string();
            let (status, text) = house
                .ask(nobody, "POST", "/api/visits/open", Some(&open(&south.link)))
                .await;
            let (expected, same) = house.ask(nobody, "POST", "/api/visits/open", Some(&open("x"))).await;
            assert_eq!((status, shape(&text, &[])), (expected, shape(&same, &[])));
            let after = (house.picture(&south).await, house.picture(&east).await);
            assert_eq!(before, after, "nothing changed");
            channels(w, &house, &north, &south).await?;
            house.stop.send_replace(true);
            house.running.stop().await;
            Ok(())
        })
    })
    .await;
}

/// The policy that live channels ask, and the keys of media rooms: the same names, other clinics.
async fn channels(w: &World, house: &House, north: &Stand, south: &Stand) -> Result<()> {
    use medtech_kernel::policy::{Action, Resource};
    use medtech_signaling::livekit::ApiKeys;
    let token = north.caller("guest").token.clone().unwrap_or_default();
    let guest: Principal = house.clinic.ctx.sessions.verify(w.north.id, &token).await?;
    for (kind, named) in [
        ("conversation", "conversation"),
        ("encounter", "visit"),
        ("visit", "visit"),
        ("patient", "patient"),
    ] {
        let foreign = house
            .clinic
            .ctx
            .policy
            .decide(&guest, Action::Subscribe, &Resource::new(kind, south.id(named)))
            .await?;
        assert!(!foreign.allow, "{kind}");
    }
    assert!(house.clinic.ctx.sessions.verify(w.south.id, &token).await.is_err());
    let keys = crate::joints::TenantKeys {
        root: house.clinic.ctx.root.clone(),
        tenants: house.clinic.ctx.tenants.clone(),
    };
    let secret = |tenant: &Tenant| keys.of_tenant(tenant.id).map(|k| k.secret);
    assert!(secret(&w.north).is_some() && secret(&w.north) != secret(&w.south));
    Ok(())
}
