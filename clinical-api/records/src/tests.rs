use super::*;
use ::http::{Request, StatusCode};
use axum::{Extension, body::Body};
use http_body_util::BodyExt;
use medtech_kernel::{
    Tenant,
    auth::Role,
    policy,
    testkit::{START, World, on_both_engines},
};
use serde_json::{Value, json};
use tower::ServiceExt;

mod devices;

const TABLES: &[&[Migration]] = &[medtech_fhir::MIGRATIONS, store::MIGRATIONS];
const VISIT: &str = "0190a000-0000-7000-8000-0000000000aa";
const HOST: &str = "user:0190a000-0000-7000-8000-000000000001";
const GUEST: &str = "guest:0190a000-0000-7000-8000-000000000002";

struct House {
    records: Records,
    live: tokio::sync::mpsc::Receiver<Event>,
    practitioner: String,
    patient: String,
}

impl House {
    async fn open(w: &World) -> Result<Self> {
        w.ctx
            .bus
            .register_wanting("records", Records::consumes(), Records::wants);
        w.ctx.bus.register("probe", &["alert.raised"]);
        let live = w.ctx.bus.attach_live()?;
        let fhir = Fhir::new(w.ctx.clone());
        let t = w.north.id;
        let practitioner = fhir
            .create(
                t,
                "test",
                json!({"resourceType": "Practitioner", "name": [{"text": "Dr Host"}]}),
            )
            .await?
            .id;
        let patient = json!({"resourceType": "Patient", "name": [{"given": ["Pat"], "family": "Guest"}], "birthDate": "1980-02-29", "gender": "female"});
        let patient = fhir.create(t, "test", patient).await?.id;
        let object = format!("practitioner:{practitioner}");
        w.ctx
            .db
            .write(t, move |tx| {
                Box::pin(async move { policy::relate(tx, HOST, "self", &object, None).await })
            })
            .await?;
        Ok(Self {
            records: Records::new(w.ctx.clone(), fhir),
            live,
            practitioner,
            patient,
        })
    }

    /// Delivers the event twice, as the bus may.
    async fn twice(&self, w: &World, kind: &'static str, key: &str, body: Value) -> Result<()> {
        let event = Event::new(&w.ctx.clock, w.north.id, kind, key, &body)?;
        self.records.on_event(event.clone()).await?;
        self.records.on_event(event).await
    }

    async fn visit(&self, w: &World, kind: &'static str, stays: Value) -> Result<()> {
        let arrived = (kind != "visit.requested").then_some("2026-03-02T09:00:00Z");
        let body = json!({
            "visit_id": VISIT, "title": "Video visit", "start": "2026-03-02T09:00:00Z", "context_ref": "Appointment/a1",
            "subject_ref": format!("Patient/{}", self.patient), "conversation_id": "0190a000-0000-7000-8000-0000000000cc",
            "host": {"subject": HOST, "name": "Dr Host"}, "guest": {"subject": GUEST, "name": "Pat Guest"},
            "arrived_at": arrived, "admitted_at": null, "ended_at": null, "participants": stays,
        });
        self.twice(w, kind, &format!("visit:{VISIT}"), body).await
    }

    async fn found(&self, t: &Tenant, kind: &str, query: &str) -> Vec<Value> {
        self.records.fhir.list(t.id, kind, query).await.unwrap()
    }
}

fn app(w: &World, records: &Records) -> Router {
    Arc::new(records.clone()).routes().layer(Extension(w.ctx.clone()))
}

async fn call(
    app: &Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> (StatusCode, Value) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = body.map_or_else(Body::empty, |b| Body::from(b.to_string()));
    let answer = app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn reading(name: &str, value: i64, at: i64, received: i64) -> Value {
    let time = medtech_kernel::clock::rfc3339;
    json!({"name": name, "unit": "", "value": value, "at": time(at), "received_at": time(received)})
}

#[tokio::test]
async fn a_visit_is_in_the_record_once_with_its_chat_and_its_readings() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let house = House::open(w).await?;
            let minute = 60_000;
            house.visit(w, "visit.requested", json!([])).await?;
            assert!(house.found(&w.north, "Encounter", "").await.is_empty(), "nothing happened yet");
            let message = |n: u8, sender: &str, body: Value| {
                json!({"conversation_id": "c", "topic": format!("visit:{VISIT}"), "message": {
                    "seq": n, "id": format!("0190a000-0000-7000-8000-0000000001{n:02}"), "client_id": "x", "conversation_id": "c",
                    "sender": {"subject": sender, "name": "Somebody"}, "at": "2026-03-02T09:03:00Z", "body": body}})
            };
            // A word before the patient comes.
            house.twice(w, "message.created", "conversation:c", message(1, HOST, json!({"text": "I am a little late"}))).await?;
            let planned = house.found(&w.north, "Encounter", "").await;
            assert_eq!((planned.len(), &planned[0]["status"]), (1, &json!("planned")));

            w.ctx.clock.advance(minute);
            house.visit(w, "visit.arrived", json!([])).await?;
            w.ctx.clock.advance(minute);
            let open = json!([{"subject": HOST, "name": "Dr Host", "intervals": [{"from": "2026-03-02T09:02:00Z", "to": null}]}]);
            house.visit(w, "visit.admitted", open).await?;
            let file = json!({"file": {"id": "f1", "name": "a.pdf", "type": "application/pdf", "size": 3}});
            house.twice(w, "message.created", "conversation:c", message(2, GUEST, file)).await?;
            // During the visit, before it, and one that is already known.
            let device = "0190a000-0000-7000-8000-0000000000dd";
            let feeds = format!("patient:{}", house.patient);
            let first = json!({"device": device, "feeds": feeds, "readings": [
                reading("heart-rate", 71, START + 3 * minute, START + 3 * minute), reading("heart-rate", 64, START - minute, START + 3 * minute)]});
            house.twice(w, "device.readings", "device:d", first).await?;
            let again = json!({"device": format!("device:{device}"), "feeds": feeds, "readings": [
                reading("heart-rate", 71, START + 3 * minute, START + 4 * minute), reading("spo2", 97, START + 3 * minute, START + 4 * minute)]});
            house.twice(w, "device.readings", "device:d", again).await?;
            w.ctx.clock.advance(8 * minute);
            let stays = json!([
                {"subject": HOST, "name": "Dr Host", "intervals": [{"from": "2026-03-02T09:02:00Z", "to": "2026-03-02T09:10:00Z"}]},
                {"subject": GUEST, "name": "Pat Guest", "intervals": [{"from": "2026-03-02T09:02:30Z", "to": "2026-03-02T09:09:59.500Z"}]}]);
            house.visit(w, "visit.ended", stays).await?;
            // Late: taken during the visit, come after it.
            let late = json!({"device": device, "feeds": feeds, "readings": [reading("heart-rate", 80, START + 9 * minute, START + 20 * minute)]});
            house.twice(w, "device.readings", "device:d", late).await?;

            let encounters = house.found(&w.north, "Encounter", &format!("identifier=urn:uuid:{VISIT}")).await;
            assert_eq!(encounters.len(), 1);
            let (e, id) = (&encounters[0], encounters[0]["id"].as_str().unwrap());
            assert_eq!((&e["status"], &e["class"]["code"]), (&json!("finished"), &json!("VR")));
            assert_eq!(e["period"], json!({"start": "2026-03-02T09:02:00.000Z", "end": "2026-03-02T09:10:00.000Z"}));
            assert_eq!(e["participant"][0]["individual"]["reference"], format!("Practitioner/{}", house.practitioner));
            assert_eq!(e["participant"][1]["period"], json!({"start": "2026-03-02T09:02:30.000Z", "end": "2026-03-02T09:09:59.500Z"}));

            let chat = house.found(&w.north, "Communication", &format!("encounter=Encounter/{id}&_sort=_id")).await;
            assert_eq!(chat.len(), 2);
            let of = |text: &str| chat.iter().find(|c| c["sender"]["reference"] == text).unwrap();
            assert_eq!(of(&format!("Practitioner/{}", house.practitioner))["payload"][0]["contentString"], "I am a little late");
            assert_eq!(of(&format!("Patient/{}", house.patient))["payload"][0]["contentAttachment"]["url"], "/files/f1");
            assert_eq!(house.found(&w.north, "DocumentReference", &format!("encounter=Encounter/{id}")).await.len(), 1);

            let all = house.found(&w.north, "Observation", &format!("patient={}&device=Device/{device}", house.patient)).await;
            assert_eq!(all.len(), 4, "71 and 64, then 97, then 80: the repeated 71 fell");
            let mut linked: Vec<String> = all.iter().filter(|o| o["encounter"]["reference"] == format!("Encounter/{id}"))
                .map(|o| o["valueQuantity"]["value"].to_string()).collect();
            linked.sort();
            assert_eq!(linked, ["71", "80", "97"]);
            for other in [&w.south, &w.east] {
                for kind in ["Encounter", "Communication", "Observation"] {
                    assert!(house.found(other, kind, "").await.is_empty());
                }
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn events_that_make_no_sense_are_errors_and_change_nothing() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let house = House::open(w).await?;
            let send = async |kind: &'static str, body: Value| {
                let event = Event::new(&w.ctx.clock, w.north.id, kind, "k", &body).unwrap();
                house.records.on_event(event).await.map_err(|e| e.code)
            };
            assert_eq!(send("visit.arrived", json!({"visit_id": "x"})).await, Err("bus.body"));
            assert_eq!(send("device.readings", json!({"device": "d", "feeds": "room:1", "readings": []})).await, Err("records.feeds"));
            // A message of a visit whose own event is still under way is tried again; one of another topic is not ours.
            let message = |topic: &str| json!({"conversation_id": "c", "topic": topic, "message": {
                "id": "0190a000-0000-7000-8000-000000000101", "sender": {"subject": HOST, "name": "x"}, "at": "2026-03-02T09:00:00Z", "body": {"text": "t"}}});
            assert_eq!(send("message.created", message(&format!("visit:{VISIT}"))).await, Err("records.visit_unknown"));
            assert_eq!(send("message.created", message("team:1")).await, Ok(()));
            assert_eq!(send("fhir.Observation.changed", json!({"type": "Observation", "id": "none", "version": 1, "op": "create"})).await, Ok(()));
            for kind in ["Encounter", "Communication", "Observation"] {
                assert!(house.found(&w.north, kind, "").await.is_empty());
            }
            Ok(())
        })
    })
    .await;
}

async fn alerts(w: &World) -> Vec<Value> {
    let events = w.ctx.bus.waiting(w.north.id, "probe").await.unwrap();
    events
        .iter()
        .map(|e| serde_json::from_str(e.body.get()).unwrap())
        .collect()
}

#[tokio::test]
async fn results_are_announced_once_and_again_when_they_change() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let mut house = House::open(w).await?;
            let (t, fhir) = (w.north.id, house.records.fhir.clone());
            let subject = json!({"reference": format!("Patient/{}", house.patient)});
            let treats = format!("patient:{}", house.patient);
            w.ctx.db.write(t, move |tx| Box::pin(async move { policy::relate(tx, "user:other", "treats", &treats, None).await })).await?;
            let potassium = |flag: &str, value: f64| json!({"resourceType": "Observation", "status": "final", "subject": subject,
                "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
                "code": {"coding": [{"system": "http://loinc.org", "code": "2823-3"}], "text": "Potassium"},
                "valueQuantity": {"value": value, "unit": "mmol/L", "system": "http://unitsofmeasure.org", "code": "mmol/L"},
                "interpretation": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "code": flag}]}]});
            let request = json!({"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": subject,
                "requester": {"reference": format!("Practitioner/{}", house.practitioner)}});
            let request = fhir.create(t, "lab", request).await?.reference();
            let observation = fhir.create(t, "lab", potassium("HH", 6.9)).await?;
            let report = json!({"resourceType": "DiagnosticReport", "status": "final", "subject": subject, "code": {"text": "Electrolytes"},
                "basedOn": [{"reference": request}], "result": [{"reference": observation.reference()}]});
            let report = fhir.create(t, "lab", report).await?;
            let changed = |kind: &str, id: &str, op: &str| json!({"type": kind, "id": id, "version": 1, "op": op});

            house.twice(w, "fhir.Observation.changed", "o", changed("Observation", &observation.id, "create")).await?;
            assert!(alerts(w).await.is_empty(), "its report speaks for it");
            house.twice(w, "fhir.DiagnosticReport.changed", "r", changed("DiagnosticReport", &report.id, "create")).await?;
            // Another event, the same state.
            house.twice(w, "fhir.DiagnosticReport.changed", "r", changed("DiagnosticReport", &report.id, "update")).await?;
            let raised = alerts(w).await;
            assert_eq!(raised.len(), 1);
            assert_eq!((&raised[0]["alert"]["severity"], &raised[0]["alert"]["board"]), (&json!("critical"), &json!("main")));
            assert_eq!(raised[0]["recipients"], json!([HOST]));
            let words = raised[0].to_string();
            assert!(!words.contains("Potassium") && !words.contains("6.9") && !words.contains("Electrolytes"), "no clinical content: {words}");
            let card = house.live.try_recv().expect("a live card");
            assert_eq!((card.kind.as_ref(), card.channel.as_deref()), ("result.card", Some(format!("patient:{}", house.patient).as_str())));
            let card: Value = card.parse()?;
            assert_eq!((&card["report"]["critical"], &card["report"]["observations"][0]["flag"]), (&json!(true), &json!("HH")));
            assert!(house.live.try_recv().is_err());

            // Corrected: no longer critical. The report's card says so.
            let mut corrected = potassium("N", 4.1);
            corrected["status"] = json!("corrected");
            fhir.update(t, "lab", &observation.id, corrected, None).await?;
            house.twice(w, "fhir.Observation.changed", "o", changed("Observation", &observation.id, "update")).await?;
            assert_eq!(alerts(w).await.len(), 2);
            assert_eq!(house.live.try_recv().unwrap().parse::<Value>()?["report"]["critical"], false);

            // Alone, not critical, from nobody: those who treat the patient hear of it.
            let alone = fhir.create(t, "lab", potassium("H", 5.3)).await?;
            house.twice(w, "fhir.Observation.changed", "o2", changed("Observation", &alone.id, "create")).await?;
            let last = alerts(w).await.pop().unwrap();
            assert_eq!((&last["alert"]["severity"], &last["recipients"]), (&json!("info"), &json!(["user:other"])));

            // Each value by itself, then the report over them, to the same people: one alert, and the card shows the report.
            let mut asked = potassium("HH", 7.1);
            asked["performer"] = json!([{"reference": format!("Practitioner/{}", house.practitioner)}]);
            let single = fhir.create(t, "lab", asked).await?;
            house.twice(w, "fhir.Observation.changed", "o4", changed("Observation", &single.id, "create")).await?;
            let before = alerts(w).await.len();
            let over = json!({"resourceType": "DiagnosticReport", "status": "final", "subject": subject, "code": {"text": "Panel"},
                "basedOn": [{"reference": request}], "result": [{"reference": single.reference()}]});
            let over = fhir.create(t, "lab", over).await?;
            while house.live.try_recv().is_ok() {}
            house.twice(w, "fhir.DiagnosticReport.changed", "r4", changed("DiagnosticReport", &over.id, "create")).await?;
            assert_eq!(alerts(w).await.len(), before);
            let card: Value = house.live.try_recv().unwrap().parse()?;
            assert_eq!((&card["report"]["name"], &card["report"]["parts"]), (&json!("Panel"), &json!([single.id])));
            // To somebody who has not heard of it, it is news.
            let alone = fhir.create(t, "lab", potassium("HH", 7.2)).await?;
            house.twice(w, "fhir.Observation.changed", "o5", changed("Observation", &alone.id, "create")).await?;
            let before = alerts(w).await.len();
            let over = json!({"resourceType": "DiagnosticReport", "status": "final", "subject": subject, "code": {"text": "Panel"},
                "basedOn": [{"reference": request}], "result": [{"reference": alone.reference()}]});
            let over = fhir.create(t, "lab", over).await?;
            house.twice(w, "fhir.DiagnosticReport.changed", "r5", changed("DiagnosticReport", &over.id, "create")).await?;
            let raised = alerts(w).await;
            assert_eq!((raised.len(), &raised[before]["recipients"]), (before + 1, &json!([HOST])));

            // History that is brought in stays quiet, unless it is critical.
            let before = raised.len();
            for (flag, heard) in [("H", before), ("LL", before + 1)] {
                let mut old = potassium(flag, 5.4);
                old["issued"] = json!("2020-01-01T00:00:00Z");
                let old = fhir.create(t, "lab", old).await?;
                house.twice(w, "fhir.Observation.changed", "old", changed("Observation", &old.id, "create")).await?;
                assert_eq!(alerts(w).await.len(), heard);
            }

            // Neither a vital sign nor a report without a result is news.
            let mut vital = potassium("HH", 1.0);
            vital["category"] = json!([{"coding": [{"code": "vital-signs"}]}]);
            let vital = fhir.create(t, "x", vital).await?;
            // What cannot be news is not even written for us; what may be is, be its category the second one or in older letters.
            let key = format!("Observation/{}", vital.id);
            let waits = |key: String| async move { Ok::<_, medtech_kernel::Error>(w.ctx.bus.waiting(t, "records").await?.iter().any(|e| e.key == key)) };
            assert!(!waits(key).await?);
            for category in [json!([{"coding": [{"code": "LAB"}]}]), json!([{"text": "x"}, {"coding": [{"code": "exam"}, {"code": "laboratory"}]}])] {
                let mut lab = potassium("N", 4.0);
                lab["category"] = json!([{"coding": [{"code": "vital-signs"}]}]);
                let made = fhir.create(t, "x", lab.clone()).await?;
                assert!(!waits(made.reference()).await?);
                lab["category"] = category;
                fhir.update(t, "x", &made.id, lab, None).await?;
                assert!(waits(made.reference()).await?, "from now on it is a laboratory's");
            }
            house.twice(w, "fhir.Observation.changed", "o3", changed("Observation", &vital.id, "create")).await?;
            let registered = json!({"resourceType": "DiagnosticReport", "status": "registered", "subject": subject, "code": {"text": "x"}});
            let registered = fhir.create(t, "x", registered).await?;
            house.twice(w, "fhir.DiagnosticReport.changed", "r2", changed("DiagnosticReport", &registered.id, "create")).await?;
            assert_eq!(alerts(w).await.len(), before + 1);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn the_chart_shows_what_is_current_to_those_who_may_see_it() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let house = House::open(w).await?;
            let (t, fhir, app) = (w.north.id, house.records.fhir.clone(), app(w, &house.records));
            let subject = json!({"reference": format!("Patient/{}", house.patient)});
            let status = |system: &str, code: &str| json!({"coding": [{"system": format!("http://terminology.hl7.org/CodeSystem/{system}"), "code": code}]});
            for condition in ["active", "resolved"] {
                fhir.create(t, "x", json!({"resourceType": "Condition", "subject": subject, "clinicalStatus": status("condition-clinical", condition),
                    "code": {"text": format!("Asthma {condition}")}})).await?;
            }
            fhir.create(t, "x", json!({"resourceType": "AllergyIntolerance", "patient": subject, "code": {"text": "Penicillin"},
                "clinicalStatus": status("allergyintolerance-clinical", "active"),
                "reaction": [{"manifestation": [{"text": "Hives"}], "severity": "severe"}]})).await?;
            // The newest first, by when each was taken or, where that is not said, issued; also a value without a report.
            let lab = json!([{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}]);
            let value = json!({"resourceType": "Observation", "status": "final", "subject": subject, "category": lab, "code": {"text": "Alone"},
                "effectiveDateTime": "2026-02-02T00:00:00Z", "valueString": "seen"});
            fhir.create(t, "x", value.clone()).await?;
            let mut part = value;
            part["effectiveDateTime"] = json!("2026-02-03T00:00:00Z");
            let part = fhir.create(t, "x", part).await?.reference();
            for (name, field, at) in [("Taken", "effectiveDateTime", "2026-02-01T00:00:00Z"), ("Issued", "issued", "2026-02-03T00:00:00Z")] {
                let mut report = json!({"resourceType": "DiagnosticReport", "status": "final", "subject": subject, "code": {"text": name}, "result": [{"reference": part}]});
                report[field] = json!(at);
                fhir.create(t, "x", report).await?;
            }
            let feeds = format!("patient:{}", house.patient);
            let readings = json!({"device": "d", "feeds": feeds, "readings": [
                reading("heart-rate", 90, START, START), reading("heart-rate", 60, START - 1000, START + 5), reading("systolic", 120, START, START), reading("diastolic", 80, START, START)]});
            house.twice(w, "device.readings", "device:d", readings).await?;

            let (_, clinician) = w.sign_in(&w.north, HOST, Role::Clinician).await?;
            let (_, own) = w.sign_in(&w.north, "user:self", Role::Patient).await?;
            let (_, stranger) = w.sign_in(&w.north, "user:stranger", Role::Patient).await?;
            let (_, guest) = w.sign_in(&w.north, GUEST, Role::Guest).await?;
            let (_, south) = w.sign_in(&w.south, "user:south", Role::Clinician).await?;
            let object = feeds.clone();
            w.ctx.db.write(t, move |tx| Box::pin(async move { policy::relate(tx, "user:self", "self", &object, None).await })).await?;
            let path = format!("/patients/{}/chart", house.patient);
            let get = async |host: &str, token: &str, path: &str| {
                call(&app, "GET", path, &[("host", host), ("authorization", &format!("Bearer {token}"))], None).await
            };
            let (code, chart) = get("north.localhost", &clinician, &path).await;
            assert_eq!(code, StatusCode::OK, "{chart}");
            assert_eq!(chart["patient"], json!({"id": house.patient, "name": "Pat Guest", "birth_date": "1980-02-29", "sex": "female"}));
            assert_eq!(chart["conditions"].as_array().unwrap().len(), 1);
            assert_eq!((&chart["allergies"][0]["name"], &chart["allergies"][0]["severity"]), (&json!("Penicillin"), &json!("severe")));
            let vitals: Vec<(String, String)> = chart["vitals"].as_array().unwrap().iter()
                .map(|v| (v["code"].as_str().unwrap().to_owned(), v["value"].to_string())).collect();
            assert_eq!(vitals, [("8867-4".into(), "90".into()), ("8480-6".into(), "120".into()), ("8462-4".to_owned(), "80".to_owned())]);
            let results: Vec<&str> = chart["results"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
            assert_eq!(results, ["Issued", "Alone", "Taken"]);
            assert_eq!(get("north.localhost", &own, &path).await.0, StatusCode::OK);
            assert_eq!(get("north.localhost", &stranger, &path).await.0, StatusCode::FORBIDDEN);
            assert_eq!(get("north.localhost", &guest, &path).await.0, StatusCode::FORBIDDEN);
            assert_eq!(get("south.localhost", &south, &path).await.0, StatusCode::NOT_FOUND);
            for odd in ["/patients/none/chart", "/patients/a%26_id=b/chart", "/patients/%00/chart"] {
                assert_eq!(get("north.localhost", &clinician, odd).await.0, StatusCode::NOT_FOUND, "{odd}");
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_device_has_a_credential_of_its_own_shown_once() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let house = House::open(w).await?;
            let app = app(w, &house.records);
            let (_, clinician) = w.sign_in(&w.north, HOST, Role::Clinician).await?;
            let (_, staff) = w.sign_in(&w.north, "user:staff", Role::Staff).await?;
            let post = async |host: &str, token: &str, key: Option<&str>, body: Value| {
                let bearer = format!("Bearer {token}");
                let mut headers = vec![("host", host), ("authorization", bearer.as_str())];
                headers.extend(key.map(|k| ("idempotency-key", k)));
                call(&app, "POST", "/devices", &headers, Some(body)).await
            };
            let ask = json!({"patient_id": house.patient, "name": "Wrist band", "kind": "wearable"});
            let (code, made) = post("north.localhost", &clinician, Some("k1"), ask.clone()).await;
            assert_eq!(code, StatusCode::CREATED, "{made}");
            let (id, password) = (made["id"].as_str().unwrap(), made["password"].as_str().unwrap());
            assert_eq!(
                (&made["topic"], &made["username"]),
                (&json!(format!("devices/{id}/readings")), &json!(id))
            );
            let device = w.ctx.sessions.verify(w.north.id, password).await?;
            assert_eq!(
                (device.subject.as_str(), device.roles.as_slice()),
                (format!("device:{id}").as_str(), &[Role::Device][..])
            );
            assert_eq!(
                w.ctx.policy.objects_of(w.north.id, &device.subject, "feeds").await?,
                [format!("patient:{}", house.patient)]
            );
            let stored = house.records.fhir.find(w.north.id, "Device", id).await?.unwrap();
            assert_eq!(stored["patient"]["reference"], format!("Patient/{}", house.patient));
            assert!(!stored.to_string().contains(password));

            let (code, again) = post("north.localhost", &clinician, Some("k1"), ask.clone()).await;
            assert_eq!((code, &again["id"]), (StatusCode::CREATED, &made["id"]));
            assert!(
                w.ctx.sessions.verify(w.north.id, password).await.is_err(),
                "the first secret ended"
            );
            assert!(
                w.ctx
                    .sessions
                    .verify(w.north.id, again["password"].as_str().unwrap())
                    .await
                    .is_ok()
            );
            assert_eq!(house.found(&w.north, "Device", "").await.len(), 1);
            let other = json!({"patient_id": house.patient, "name": "Other", "kind": "wearable"});
            assert_eq!(
                post("north.localhost", &clinician, Some("k1"), other).await.0,
                StatusCode::CONFLICT
            );

            assert_eq!(
                post("north.localhost", &staff, None, ask.clone()).await.0,
                StatusCode::FORBIDDEN
            );
            assert_eq!(
                post("south.localhost", &clinician, None, ask.clone()).await.0,
                StatusCode::UNAUTHORIZED
            );
            let (_, south) = w.sign_in(&w.south, "user:s", Role::Clinician).await?;
            assert_eq!(
                post("south.localhost", &south, None, ask.clone()).await.0,
                StatusCode::NOT_FOUND
            );
            for (field, value, code) in [
                ("name", json!(""), 422),
                ("kind", json!("x".repeat(101)), 422),
                ("patient_id", json!("none"), 404),
                ("name", json!(1), 400),
            ] {
                let mut bad = ask.clone();
                bad[field] = value;
                assert_eq!(post("north.localhost", &clinician, None, bad).await.0.as_u16(), code);
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_broken_glass_opens_one_record_for_an_hour_and_is_told() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let house = House::open(w).await?;
            w.demand_relationships(&w.north).await?;
            let app = app(w, &house.records);
            let officer = json!({"id": VISIT, "roles": ["admin"], "active": true});
            house.twice(w, "user.changed", "user:boss", officer).await?;
            let (_, token) = w.sign_in(&w.north, "user:stranger", Role::Clinician).await?;
            let (_, boss) = w.sign_in(&w.north, "user:boss", Role::Admin).await?;
            let (_, desk) = w.sign_in(&w.north, "user:desk", Role::Staff).await?;
            let ask = async |token: &str, method: &str, path: &str, body: Option<Value>| {
                call(
                    &app,
                    method,
                    path,
                    &[
                        ("host", "north.localhost"),
                        ("authorization", &format!("Bearer {token}")),
                    ],
                    body,
                )
                .await
            };
            let chart = format!("/patients/{}/chart", house.patient);
            let glass = format!("/patients/{}/break-glass", house.patient);
            let why = json!({"reason_code": "emergency", "text": "unconscious in the waiting room"});
            let refused = ask(&token, "GET", &chart, None).await;
            assert_eq!(
                (refused.0, &refused.1["code"]),
                (StatusCode::FORBIDDEN, &json!("policy.relationship"))
            );
            // Whether there is such a patient is not told before.
            let nobody = ask(&token, "GET", "/patients/nobody/chart", None).await;
            assert_eq!((nobody.0, &nobody.1["code"]), (refused.0, &refused.1["code"]));
            for bad in [
                json!({"reason_code": "curious", "text": "just looking around"}),
                json!({"reason_code": "emergency", "text": "short"}),
            ] {
                assert_eq!(
                    ask(&token, "POST", &glass, Some(bad)).await.0,
                    StatusCode::UNPROCESSABLE_ENTITY
                );
            }
            assert_eq!(
                ask(&desk, "POST", &glass, Some(why.clone())).await.0,
                StatusCode::FORBIDDEN
            );
            assert_eq!(
                ask(&token, "POST", "/patients/nobody/break-glass", Some(why.clone()))
                    .await
                    .0,
                StatusCode::NOT_FOUND
            );
            let (code, made) = ask(&token, "POST", &glass, Some(why.clone())).await;
            assert_eq!(code, StatusCode::CREATED, "{made}");
            assert_eq!(ask(&token, "GET", &chart, None).await.0, StatusCode::OK);
            assert_eq!(ask(&desk, "GET", &chart, None).await.0, StatusCode::FORBIDDEN);
            // One patient: the record of a second one stays closed meanwhile, by every door.
            let second = json!({"resourceType": "Patient", "name": [{"family": "Second"}]});
            let second = house
                .records
                .fhir
                .create(w.north.id, "system", second)
                .await
                .map_err(medtech_kernel::Error::from)?
                .id;
            let path = format!("/patients/{second}/chart");
            let other = ask(&token, "GET", &path, None).await;
            assert_eq!(
                (other.0, &other.1["code"]),
                (StatusCode::FORBIDDEN, &json!("policy.relationship"))
            );
            let stranger = w.ctx.sessions.verify(w.north.id, &token).await?;
            let sight = house.records.fhir.access(&stranger).await?;
            let mut found = Vec::new();
            for patient in house.records.fhir.list_for(w.north.id, &sight, "Patient", "").await? {
                found.push(patient["id"].as_str().unwrap().to_owned());
            }
            assert_eq!(found, std::slice::from_ref(&house.patient));
            let trail = medtech_kernel::audit::about(&w.ctx.db, w.north.id, &house.patient, None, 50).await?;
            assert!(
                trail
                    .iter()
                    .any(|e| e.detail == "chart; break-glass" && e.actor == "user:stranger"),
                "the patient sees it"
            );
            assert_eq!(
                ask(&token, "GET", "/break-glass/mine", None).await.1["accesses"]
                    .as_array()
                    .unwrap()
                    .len(),
                1
            );
            // The administrators review it; nobody else, and nobody their own.
            assert_eq!(ask(&token, "GET", "/break-glass", None).await.0, StatusCode::FORBIDDEN);
            let waiting = ask(&boss, "GET", "/break-glass", None).await.1;
            // Begun on a Monday in Berlin: until the end of Thursday.
            assert_eq!(waiting["accesses"][0]["due"], "2026-03-05T23:00:00.000Z");
            let assign = format!("/break-glass/{}/assign", made["id"].as_str().unwrap());
            let to = |who: &str| Some(json!({"assignee": who}));
            assert_eq!(
                ask(&token, "POST", &assign, to("user:boss")).await.0,
                StatusCode::FORBIDDEN
            );
            for nobody in ["user:desk", "user:stranger", "guest:x"] {
                assert_eq!(
                    ask(&boss, "POST", &assign, to(nobody)).await.0,
                    StatusCode::UNPROCESSABLE_ENTITY
                );
            }
            let count = async |show: &str| {
                let (code, list) = ask(&boss, "GET", &format!("/break-glass?show={show}"), None).await;
                assert_eq!(code, StatusCode::OK);
                list["accesses"].as_array().unwrap().len()
            };
            assert_eq!(
                (count("mine").await, count("overdue").await, count("waiting").await),
                (0, 0, 1)
            );
            assert_eq!(
                ask(&boss, "POST", &assign, to("user:boss")).await.0,
                StatusCode::NO_CONTENT
            );
            assert_eq!((count("mine").await, count("all").await), (1, 1));
            assert_eq!(
                ask(&boss, "GET", "/break-glass?show=some", None).await.0,
                StatusCode::BAD_REQUEST
            );
            assert_eq!(waiting["accesses"][0]["text"], "unconscious in the waiting room");
            let review = format!("/break-glass/{}/review", made["id"].as_str().unwrap());
            assert_eq!(
                ask(&boss, "POST", &review, Some(json!({"review": "justified"})))
                    .await
                    .0,
                StatusCode::NO_CONTENT
            );
            assert_eq!(
                ask(&boss, "POST", &review, Some(json!({"review": "again"}))).await.0,
                StatusCode::NOT_FOUND
            );
            assert_eq!(ask(&boss, "GET", "/break-glass", None).await.1["accesses"], json!([]));
            // Ended early, and ended by time.
            assert_eq!(
                ask(&token, "POST", &format!("{glass}/end"), None).await.0,
                StatusCode::NO_CONTENT
            );
            assert_eq!(ask(&token, "GET", &chart, None).await.0, StatusCode::FORBIDDEN);
            for _ in 0..3 {
                assert_eq!(
                    ask(&token, "POST", &glass, Some(why.clone())).await.0,
                    StatusCode::CREATED
                );
            }
            w.ctx.clock.advance(11 * 60_000);
            let stale = ask(&token, "POST", &glass, Some(why.clone())).await;
            assert_eq!(
                (stale.0, &stale.1["code"]),
                (StatusCode::FORBIDDEN, &json!("auth.step_up"))
            );
            assert_eq!(ask(&token, "GET", &chart, None).await.0, StatusCode::OK);
            w.ctx.clock.advance(48 * 60_000);
            let (_, late) = w.sign_in(&w.north, "user:stranger", Role::Clinician).await?;
            assert_eq!(ask(&late, "GET", &chart, None).await.0, StatusCode::OK);
            w.ctx.clock.advance(60_000);
            assert_eq!(ask(&late, "GET", &chart, None).await.0, StatusCode::FORBIDDEN);
            // The fourth within a week was told as such, to the administrators.
            for (often, title) in [
                (false, "Emergency access to a record"),
                (true, "Emergency access again and again by one person"),
            ] {
                house
                    .twice(
                        w,
                        "break_glass.begun",
                        "break_glass:x",
                        json!({"patient": house.patient, "often": often}),
                    )
                    .await?;
                let raised = alerts(w).await.pop().unwrap();
                assert_eq!(
                    (&raised["alert"]["title"], &raised["recipients"]),
                    (&json!(title), &json!(["user:boss"]))
                );
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_late_review_is_marked_and_told_once() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let house = House::open(w).await?;
            w.demand_relationships(&w.north).await?;
            let app = app(w, &house.records);
            let officer = json!({"id": VISIT, "roles": ["admin"], "active": true});
            house.twice(w, "user.changed", "user:boss", officer).await?;
            let (_, token) = w.sign_in(&w.north, "user:stranger", Role::Clinician).await?;
            let ask = async |token: &str, method: &str, path: &str, body: Option<Value>| {
                let token = format!("Bearer {token}");
                call(
                    &app,
                    method,
                    path,
                    &[("host", "north.localhost"), ("authorization", &token)],
                    body,
                )
                .await
            };
            let glass = format!("/patients/{}/break-glass", house.patient);
            let why = json!({"reason_code": "emergency", "text": "unconscious in the waiting room"});
            let (_, first) = ask(&token, "POST", &glass, Some(why.clone())).await;
            let (_, second) = ask(&token, "POST", &glass, Some(why)).await;
            let due = |made: &Value| json!({"id": made["id"]});
            let overdue = async |boss: &str| {
                let list = ask(boss, "GET", "/break-glass?show=overdue", None).await.1;
                list["accesses"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|a| a["id"].clone())
                    .collect::<Vec<_>>()
            };
            let late = "The review of an emergency access is overdue";
            let told = async || alerts(w).await.iter().filter(|a| a["alert"]["title"] == late).count();

            let (_, boss) = w.sign_in(&w.north, "user:boss", Role::Admin).await?;
            let review = format!("/break-glass/{}/review", second["id"].as_str().unwrap());
            let done = ask(&boss, "POST", &review, Some(json!({"review": "justified"})))
                .await
                .0;
            assert_eq!(done, StatusCode::NO_CONTENT);
            assert_eq!(overdue(&boss).await, Vec::<Value>::new());
            // Came before its time, as nothing does: nothing is told.
            house
                .twice(w, "break_glass.due", "break_glass_due:a", due(&first))
                .await?;
            assert_eq!(told().await, 0);

            // Monday 10:00 in Berlin, and Thursday is over.
            w.ctx.clock.advance(3 * 86_400_000 + 14 * 3_600_000);
            let (_, boss) = w.sign_in(&w.north, "user:boss", Role::Admin).await?;
            assert_eq!(overdue(&boss).await, [first["id"].clone()]);
            for made in [&first, &second, &first] {
                house
                    .twice(w, "break_glass.due", "break_glass_due:b", due(made))
                    .await?;
            }
            assert_eq!(told().await, 1, "the late one, once; the reviewed one never");
            let (_, south) = w.sign_in(&w.south, "user:boss", Role::Admin).await?;
            let token = format!("Bearer {south}");
            let headers = [("host", "south.localhost"), ("authorization", &*token)];
            let elsewhere = call(&app, "GET", "/break-glass?show=all", &headers, None).await;
            assert_eq!(elsewhere.1["accesses"], json!([]));
            Ok(())
        })
    })
    .await;
}
