use super::*;
use ::http::{Request, StatusCode};
use axum::{Extension, body::Body};
use http_body_util::BodyExt;
use medtech_kernel::{
    Tenant,
    auth::Role,
    clock::rfc3339,
    policy,
    testkit::{START, World, on_both_engines},
};
use serde_json::json;
use tower::ServiceExt;

const TABLES: &[&[Migration]] = &[medtech_fhir::MIGRATIONS, store::MIGRATIONS];
const HOST: &str = "user:0190a000-0000-7000-8000-000000000001";
const MINUTE: Millis = 60_000;

struct House {
    appointments: Appointments,
    app: Router,
    token: String,
    practitioner: String,
    patient: String,
}

impl House {
    async fn open(w: &World, tenant: &Tenant) -> Result<Self> {
        w.ctx.bus.register("probe", &["visit.requested"]);
        let fhir = Fhir::new(w.ctx.clone());
        let appointments = Appointments::new(w.ctx.clone(), fhir.clone());
        let app = Arc::new(appointments.clone()).routes().layer(Extension(w.ctx.clone()));
        let practitioner =
            json!({"resourceType": "Practitioner", "name": [{"prefix": ["Dr."], "given": ["Ann"], "family": "Host"}]});
        let practitioner = fhir.create(tenant.id, "test", practitioner).await?.id;
        let patient = json!({"resourceType": "Patient", "name": [{"text": "Pat Guest"}], "birthDate": "1980-02-29", "gender": "female"});
        let patient = fhir.create(tenant.id, "test", patient).await?.id;
        let object = format!("practitioner:{practitioner}");
        w.ctx
            .db
            .write(tenant.id, move |tx| {
                Box::pin(async move { policy::relate(tx, HOST, "self", &object, None).await })
            })
            .await?;
        let (_, token) = w.sign_in(tenant, HOST, Role::Clinician).await?;
        Ok(Self {
            appointments,
            app,
            token,
            practitioner,
            patient,
        })
    }

    async fn call(
        &self,
        method: &str,
        host: &str,
        path: &str,
        token: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .header("content-type", "application/json");
        request = request.header("authorization", format!("Bearer {token}"));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = body.map_or_else(Body::empty, |b| Body::from(b.to_string()));
        let answer = self.app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn book(&self, start: Millis, minutes: i64, key: Option<&str>) -> (StatusCode, Value) {
        let ask = json!({"patient_id": self.patient, "practitioner_id": self.practitioner, "reason": "Cough",
            "start": rfc3339(start), "end": rfc3339(start + minutes * MINUTE)});
        self.call("POST", "north.localhost", "/", &self.token, key, Some(&ask))
            .await
    }

    async fn today(&self, host: &str, token: &str, query: &str) -> Vec<Value> {
        let (status, body) = self
            .call("GET", host, &format!("/today{query}"), token, None, None)
            .await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["appointments"].as_array().unwrap().clone()
    }

    /// Delivers the event twice, as the bus may.
    async fn twice(&self, w: &World, kind: &'static str, body: Value) -> Result<()> {
        let event = Event::new(&w.ctx.clock, w.north.id, kind, "k", &body)?;
        self.appointments.on_event(event.clone()).await?;
        self.appointments.on_event(event).await
    }
}

async fn requested(w: &World) -> Vec<Value> {
    let events = w.ctx.bus.waiting(w.north.id, "probe").await.unwrap();
    events
        .iter()
        .map(|e| serde_json::from_str(e.body.get()).unwrap())
        .collect()
}

#[tokio::test]
async fn a_booking_is_an_appointment_a_visit_and_the_clinicians_time_or_nothing() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let house = House::open(w, &w.north).await?;
            let (status, made) = house.book(START + 10 * MINUTE, 30, Some("k")).await;
            assert_eq!(status, StatusCode::CREATED, "{made}");
            let link = made["visit_link"].as_str().unwrap();
            let token = link.strip_prefix("/visit#").unwrap();
            let asked = requested(w).await;
            assert_eq!(asked.len(), 1);
            assert_eq!(asked[0]["link_hash"], link::hash(token));
            assert_eq!(
                (&asked[0]["host"]["subject"], &asked[0]["visit_id"]),
                (&json!(HOST), &made["visit_id"])
            );
            assert_eq!(
                asked[0]["context_ref"],
                format!("Appointment/{}", made["id"].as_str().unwrap())
            );
            assert!(!asked[0].to_string().contains(token), "the secret does not travel");

            // The same command again is the same booking; the key with another command is refused.
            let (status, again) = house.book(START + 10 * MINUTE, 30, Some("k")).await;
            assert_eq!((status, &again), (StatusCode::CREATED, &made));
            assert_eq!(
                house.book(START + 90 * MINUTE, 30, Some("k")).await.0,
                StatusCode::CONFLICT
            );

            for (start, minutes) in [(0, 11), (10, 30), (20, 5), (39, 60), (5, 60)] {
                let (status, body) = house.book(START + start * MINUTE, minutes, None).await;
                assert_eq!(
                    (status, &body["code"]),
                    (StatusCode::CONFLICT, &json!("appointments.clash")),
                    "{start}"
                );
            }
            assert_eq!(requested(w).await.len(), 1, "a refused booking leaves nothing");
            // Side by side is no clash.
            assert_eq!(house.book(START + 40 * MINUTE, 10, None).await.0, StatusCode::CREATED);
            assert_eq!(house.book(START, 10, None).await.0, StatusCode::CREATED);

            let list = house.today("north.localhost", &house.token, "").await;
            let starts: Vec<&str> = list.iter().map(|a| a["start"].as_str().unwrap()).collect();
            assert_eq!(
                starts,
                [
                    "2026-03-02T09:00:00.000Z",
                    "2026-03-02T09:10:00.000Z",
                    "2026-03-02T09:40:00.000Z"
                ]
            );
            assert_eq!(list[1]["visit_link"], made["visit_link"]);
            assert_eq!(
                (&list[1]["reason"], &list[1]["patient"]["name"]),
                (&json!("Cough"), &json!("Pat Guest"))
            );
            let treats = w
                .ctx
                .policy
                .subjects_of(w.north.id, &format!("patient:{}", house.patient), "treats")
                .await?;
            assert_eq!(treats, [HOST]);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn of_many_who_want_one_time_exactly_one_gets_it() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let house = Arc::new(House::open(w, &w.north).await?);
            let mut tasks = tokio::task::JoinSet::new();
            for i in 0..40_i64 {
                let house = house.clone();
                // Each overlaps each other.
                tasks.spawn(async move { house.book(START + i * MINUTE / 2, 30, None).await.0.as_u16() });
            }
            let mut codes = Vec::new();
            while let Some(code) = tasks.join_next().await {
                codes.push(code.unwrap());
            }
            codes.sort_unstable();
            assert_eq!(codes.iter().filter(|c| **c == 201).count(), 1, "{codes:?}");
            assert!(codes[1..].iter().all(|c| *c == 409), "{codes:?}");
            assert_eq!(requested(w).await.len(), 1);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn the_appointment_follows_its_visit_and_the_calendar_its_appointment() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let house = House::open(w, &w.north).await?;
            let (_, made) = house.book(START, 30, None).await;
            let id = made["id"].as_str().unwrap().to_owned();
            let fact = |arrived: Value| json!({"visit_id": made["visit_id"], "context_ref": format!("Appointment/{id}"), "arrived_at": arrived});
            let changed = json!({"type": "Appointment", "id": id, "version": 1, "op": "update"});
            let status = async || house.today("north.localhost", &house.token, "").await[0]["status"].clone();
            house.twice(w, "fhir.Appointment.changed", changed.clone()).await?;
            house.twice(w, "visit.arrived", fact(json!("2026-03-02T09:00:00Z"))).await?;
            assert_eq!(status().await, "arrived");
            house.twice(w, "visit.admitted", fact(json!("2026-03-02T09:00:00Z"))).await?;
            assert_eq!(status().await, "arrived");
            assert_eq!(house.book(START + 20 * MINUTE, 10, None).await.0, StatusCode::CONFLICT);
            house.twice(w, "visit.ended", fact(json!("2026-03-02T09:00:00Z"))).await?;
            assert_eq!(status().await, "fulfilled");
            let after = house.today("north.localhost", &house.token, "").await;
            assert!(after[0].get("visit_link").is_none(), "no link to a visit that is over");
            let version = house.appointments.fhir.read(w.north.id, &medtech_fhir::Access::All, "Appointment", &id).await?.version;
            assert_eq!(version, 3, "booked, arrived, fulfilled: each once");
            house.twice(w, "visit.arrived", fact(json!("2026-03-02T09:00:00Z"))).await?;
            assert_eq!(status().await, "fulfilled", "never back");

            // It ended early: the rest of the time is free again.
            house.twice(w, "fhir.Appointment.changed", changed).await?;
            assert_eq!(house.book(START + 20 * MINUTE, 10, None).await.0, StatusCode::CREATED);

            // An Appointment written through the FHIR door takes time too, and gives it back when it is cancelled.
            let mut foreign = json!({"resourceType": "Appointment", "status": "booked", "start": rfc3339(START + 60 * MINUTE), "end": rfc3339(START + 90 * MINUTE),
                "participant": [{"status": "accepted", "actor": {"reference": format!("Practitioner/{}", house.practitioner)}}]});
            let written = house.appointments.fhir.create(w.north.id, "x", foreign.clone()).await?.id;
            let event = json!({"type": "Appointment", "id": written, "version": 1, "op": "create"});
            house.twice(w, "fhir.Appointment.changed", event.clone()).await?;
            assert_eq!(house.book(START + 70 * MINUTE, 10, None).await.0, StatusCode::CONFLICT);
            foreign["status"] = json!("cancelled");
            house.appointments.fhir.update(w.north.id, "x", &written, foreign, None).await?;
            house.twice(w, "fhir.Appointment.changed", event).await?;
            assert_eq!(house.book(START + 70 * MINUTE, 10, None).await.0, StatusCode::CREATED);
            Ok(())
        })
    })
    .await;
}

/// What was said of visits since they were asked for.
async fn told(w: &World) -> Vec<(String, Value)> {
    let events = w.ctx.bus.waiting(w.north.id, "later").await.unwrap();
    events
        .iter()
        .map(|e| (e.kind.to_string(), serde_json::from_str(e.body.get()).unwrap()))
        .collect()
}

#[tokio::test]
async fn the_visit_hears_what_becomes_of_its_appointment() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            w.ctx.bus.register("later", &["visit.rescheduled", "visit.cancelled"]);
            let house = House::open(w, &w.north).await?;
            let fhir = &house.appointments.fhir;
            let (_, made) = house.book(START, 30, None).await;
            let (id, visit) = (made["id"].as_str().unwrap().to_owned(), made["visit_id"].clone());
            let changed = json!({"type": "Appointment", "id": id, "version": 1, "op": "update"});
            let mut appointment = fhir.find(w.north.id, "Appointment", &id).await?.unwrap();
            let write = async |appointment: &Value| -> Result<()> {
                fhir.update(w.north.id, "user:desk", &id, appointment.clone(), None).await?;
                house.twice(w, "fhir.Appointment.changed", changed.clone()).await
            };
            house.twice(w, "fhir.Appointment.changed", changed.clone()).await?;
            appointment["description"] = json!("Bring the old letters");
            write(&appointment).await?;
            assert_eq!(told(w).await, [], "nothing of it is the visit's");

            let thursday = START + 72 * 60 * MINUTE;
            appointment["start"] = json!(rfc3339(thursday));
            appointment["end"] = json!(rfc3339(thursday + 30 * MINUTE));
            write(&appointment).await?;
            let moved = json!({"visit_id": visit, "start": rfc3339(thursday), "link_expires": rfc3339(thursday + (30 + 12 * 60) * MINUTE),
                "subject_ref": null, "guest_name": null});
            assert_eq!(told(w).await, [("visit.rescheduled".to_owned(), moved.clone())], "once");

            let right = json!({"resourceType": "Patient", "name": [{"text": "Sam Right"}], "birthDate": "1981-01-01"});
            let right = fhir.create(w.north.id, "test", right).await?.id;
            appointment["participant"][0]["actor"] = json!({"reference": format!("Patient/{right}")});
            write(&appointment).await?;
            let mut corrected = moved;
            corrected["subject_ref"] = json!(format!("Patient/{right}"));
            corrected["guest_name"] = json!("Sam Right");
            assert_eq!(told(w).await[1], ("visit.rescheduled".to_owned(), corrected));

            let before = told(w).await.len();
            appointment["status"] = json!("cancelled");
            write(&appointment).await?;
            let off = ("visit.cancelled".to_owned(), json!({"visit_id": visit}));
            assert_eq!(told(w).await[before..].first(), Some(&off));

            // Deleted is as good as cancelled; an Appointment without a visit tells nobody.
            let (_, made) = house.book(START, 30, None).await;
            let id = made["id"].as_str().unwrap();
            let before = told(w).await.len();
            fhir.delete(w.north.id, "user:desk", "Appointment", id).await?;
            let gone = json!({"type": "Appointment", "id": id, "version": 2, "op": "delete"});
            house.twice(w, "fhir.Appointment.changed", gone).await?;
            let off = ("visit.cancelled".to_owned(), json!({"visit_id": made["visit_id"]}));
            assert_eq!(told(w).await[before..], [off]);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn days_are_the_clinics_own_and_clinics_see_only_theirs() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let house = House::open(w, &w.north).await?;
            // Berlin, the last Sunday of March 2026: 00:30 is winter time, 23:30 summer time, the day has 23 hours.
            let berlin = |text: &str| medtech_kernel::clock::parse_rfc3339(text).unwrap();
            for start in ["2026-03-29T00:30:00+01:00", "2026-03-29T23:30:00+02:00", "2026-03-30T00:00:00+02:00", "2026-03-28T23:50:00+01:00"] {
                assert_eq!(house.book(berlin(start), 10, None).await.0, StatusCode::CREATED, "{start}");
            }
            let list = house.today("north.localhost", &house.token, "?date=2026-03-29").await;
            let starts: Vec<&str> = list.iter().map(|a| a["start"].as_str().unwrap()).collect();
            assert_eq!(starts, ["2026-03-28T23:30:00.000Z", "2026-03-29T21:30:00.000Z"]);
            for other in [&w.south, &w.east] {
                let (_, token) = w.sign_in(other, "user:other", Role::Staff).await?;
                let host = format!("{}.localhost", other.slug);
                assert!(house.today(&host, &token, "?date=2026-03-29").await.is_empty());
                let ask = json!({"patient_id": house.patient, "practitioner_id": house.practitioner, "start": rfc3339(START), "end": rfc3339(START + MINUTE)});
                let (status, body) = house.call("POST", &host, "/", &token, None, Some(&ask)).await;
                assert_eq!((status, &body["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("appointments.participant")));
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn bad_input_is_refused_at_the_door() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let house = House::open(w, &w.north).await?;
            let good = json!({"patient_id": house.patient, "practitioner_id": house.practitioner, "start": rfc3339(START + MINUTE), "end": rfc3339(START + 30 * MINUTE)});
            for (field, value, code) in [
                ("end", json!(rfc3339(START + MINUTE)), "appointments.times"),
                ("end", json!(rfc3339(START + 13 * 60 * MINUTE)), "appointments.times"),
                ("reason", json!("x".repeat(1001)), "appointments.reason"),
                ("patient_id", json!("none"), "appointments.participant"),
                ("practitioner_id", json!("../x"), "appointments.participant"),
                ("start", json!("2026-03-29T02:30:00"), "http.body"),
                ("start", json!(7), "http.body"),
            ] {
                let mut bad = good.clone();
                bad[field] = value;
                let (_, body) = house.call("POST", "north.localhost", "/", &house.token, None, Some(&bad)).await;
                assert_eq!(body["code"], code, "{field} {body}");
            }
            let mut past = good.clone();
            past["start"] = json!(rfc3339(START - 60 * MINUTE));
            past["end"] = json!(rfc3339(START));
            assert_eq!(house.call("POST", "north.localhost", "/", &house.token, None, Some(&past)).await.1["code"], "appointments.past");
            // A clinician nobody signs in as can't host a visit.
            let alone = house.appointments.fhir.create(w.north.id, "x", json!({"resourceType": "Practitioner"})).await?.id;
            let mut unhosted = good.clone();
            unhosted["practitioner_id"] = json!(alone);
            assert_eq!(house.call("POST", "north.localhost", "/", &house.token, None, Some(&unhosted)).await.1["code"], "appointments.no_account");
            let (_, guest) = w.sign_in(&w.north, "guest:g", Role::Guest).await?;
            assert_eq!(house.call("POST", "north.localhost", "/", &guest, None, Some(&good)).await.0, StatusCode::FORBIDDEN);
            assert_eq!(house.call("GET", "north.localhost", "/today", &guest, None, None).await.0, StatusCode::FORBIDDEN);
            assert_eq!(house.call("GET", "north.localhost", "/today?date=soon", &house.token, None, None).await.0, StatusCode::BAD_REQUEST);
            assert!(requested(w).await.is_empty());
            Ok(())
        })
    })
    .await;
}
