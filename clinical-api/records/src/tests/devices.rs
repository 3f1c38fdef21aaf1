use super::*;

/// A registered device: its id and its password.
async fn registered(app: &Router, token: &str, patient: &str) -> (String, String) {
    let bearer = format!("Bearer {token}");
    let headers = [("host", "north.localhost"), ("authorization", bearer.as_str())];
    let ask = json!({"patient_id": patient, "name": "Cuff", "kind": "cuff"});
    let (code, made) = call(app, "POST", "/devices", &headers, Some(ask)).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let of = |field: &str| made[field].as_str().unwrap().to_owned();
    (of("id"), of("password"))
}

#[tokio::test]
async fn a_device_writes_to_whom_its_resource_names_and_ends_with_it() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let mut house = House::open(w).await?;
            let (app, t, fhir) = (app(w, &house.records), w.north.id, house.records.fhir.clone());
            let (_, clinician) = w.sign_in(&w.north, HOST, Role::Clinician).await?;
            let other = json!({"resourceType": "Patient", "name": [{"family": "Other"}]});
            let other = fhir.create(t, "test", other).await?.id;
            let feeds = async |id: &str| {
                w.ctx
                    .policy
                    .objects_of(t, &format!("device:{id}"), "feeds")
                    .await
                    .unwrap()
            };
            let stands = async |password: &str| w.ctx.sessions.verify(t, password).await.is_ok();
            let change = async |id: &str, field: &str, value: Value| {
                let mut device = fhir.find(t, "Device", id).await.unwrap().unwrap();
                device[field] = value;
                fhir.update(t, HOST, id, device, None).await.unwrap();
            };
            let mine = || vec![format!("patient:{}", house.patient)];

            // Given to somebody else, to nobody, to somebody of elsewhere: its credential stands meanwhile.
            let (id, password) = registered(&app, &clinician, &house.patient).await;
            assert_eq!(feeds(&id).await, mine());
            change(&id, "patient", json!({"reference": format!("Patient/{other}")})).await;
            assert_eq!(feeds(&id).await, [format!("patient:{other}")]);
            let abroad = format!("https://elsewhere.example/fhir/Patient/{}", house.patient);
            change(&id, "patient", json!({"reference": abroad})).await;
            assert!(feeds(&id).await.is_empty());
            change(
                &id,
                "patient",
                json!({"reference": format!("Patient/{}", house.patient)}),
            )
            .await;
            assert_eq!(feeds(&id).await, mine());
            assert!(stands(&password).await);

            // Retired, never right, removed: neither feeds nor gets in, and the trail says so.
            for end in ["inactive", "entered-in-error", "deleted"] {
                let (id, password) = registered(&app, &clinician, &house.patient).await;
                assert!(stands(&password).await);
                while house.live.try_recv().is_ok() {}
                match end {
                    "deleted" => fhir.delete(t, HOST, "Device", &id).await?,
                    status => change(&id, "status", json!(status)).await,
                }
                assert!(feeds(&id).await.is_empty(), "{end}");
                assert!(!stands(&password).await, "{end}");
                let mut ended = Vec::new();
                while let Ok(event) = house.live.try_recv() {
                    ended.push((event.kind.to_string(), event.key.to_string()));
                }
                let subject = format!("device:{id}");
                for kind in ["access.changed", "session.revoked"] {
                    assert!(ended.contains(&(kind.to_owned(), subject.clone())), "{end}: {ended:?}");
                }
                let trail = medtech_kernel::audit::about(&w.ctx.db, t, &house.patient, None, 50).await?;
                let told = trail.iter().filter(|e| {
                    (e.target.as_str(), e.action.as_str(), e.actor.as_str()) == (&*subject, "delete", HOST)
                });
                assert_eq!(told.count(), 1, "{end}");
            }
            // What is of another clinic is left alone.
            let foreign = json!({"resourceType": "Device", "id": id, "status": "inactive"});
            fhir.update(w.south.id, "test", &id, foreign, None).await?;
            assert!(feeds(&id).await == mine() && stands(&password).await);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_credential_is_withdrawn_by_those_who_may_write_the_record() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let house = House::open(w).await?;
            let app = app(w, &house.records);
            let (_, clinician) = w.sign_in(&w.north, HOST, Role::Clinician).await?;
            let (_, staff) = w.sign_in(&w.north, "user:staff", Role::Staff).await?;
            let (_, south) = w.sign_in(&w.south, "user:s", Role::Clinician).await?;
            let (id, password) = registered(&app, &clinician, &house.patient).await;
            let withdraw = async |host: &str, token: &str, id: &str| {
                let bearer = format!("Bearer {token}");
                let headers = [("host", host), ("authorization", bearer.as_str())];
                call(&app, "DELETE", &format!("/devices/{id}/credential"), &headers, None).await
            };
            assert_eq!(
                withdraw("north.localhost", &clinician, "nothing").await.0,
                StatusCode::NOT_FOUND
            );
            let (elsewhere, unknown) = (
                withdraw("south.localhost", &south, &id).await,
                withdraw("south.localhost", &south, "nothing").await,
            );
            assert_eq!(elsewhere.0, StatusCode::NOT_FOUND);
            assert_eq!(elsewhere.1["code"], unknown.1["code"]);
            // Those who see no devices learn of none.
            for token in [&staff, &password] {
                assert_eq!(withdraw("north.localhost", token, &id).await.0, StatusCode::NOT_FOUND);
            }
            assert!(w.ctx.sessions.verify(w.north.id, &password).await.is_ok());

            assert_eq!(
                withdraw("north.localhost", &clinician, &id).await.0,
                StatusCode::NO_CONTENT
            );
            assert!(w.ctx.sessions.verify(w.north.id, &password).await.is_err());
            let trail = medtech_kernel::audit::about(&w.ctx.db, w.north.id, &house.patient, None, 50).await?;
            let told = |e: &&_| {
                matches!(e, medtech_kernel::audit::Found { actor, action, target, .. }
                if actor == HOST && action == "delete" && *target == format!("device:{id}"))
            };
            assert_eq!(trail.iter().filter(told).count(), 1);
            Ok(())
        })
    })
    .await;
}

/// A cuff without a battery for its clock: each time it is switched on, it is the first of January 2000.
#[tokio::test]
async fn a_clock_that_begins_anew_costs_no_reading() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            const NEW_YEAR: i64 = 946_684_800_000;
            const DAY: i64 = 86_400_000;
            let house = House::open(w).await?;
            let app = app(w, &house.records);
            let (_, clinician) = w.sign_in(&w.north, HOST, Role::Clinician).await?;
            let (id, _) = registered(&app, &clinician, &house.patient).await;
            let feeds = format!("patient:{}", house.patient);
            let cuff = async |systolic: i64, diastolic: i64, received: i64| {
                let both = json!([
                    reading("systolic", systolic, NEW_YEAR, received),
                    reading("diastolic", diastolic, NEW_YEAR, received)
                ]);
                let pack = json!({"device": id, "feeds": feeds, "readings": both});
                house.twice(w, "device.readings", "device:d", pack).await.unwrap();
                house.found(&w.north, "Observation", "_sort=date&_count=50").await
            };
            assert_eq!(cuff(121, 78, START).await.len(), 1);
            assert_eq!(
                cuff(121, 78, START + 60_000).await.len(),
                1,
                "sent again for want of an answer"
            );
            assert_eq!(cuff(134, 78, START + 120_000).await.len(), 2, "another value");
            assert_eq!(cuff(121, 78, START + 180_000).await.len(), 2, "both are known by now");
            let all = cuff(121, 78, START + DAY).await;
            assert_eq!(
                all.len(),
                3,
                "the same value on the next day is a measurement of its own"
            );
            for (observation, at) in all.iter().zip([START, START + 120_000, START + DAY]) {
                assert_eq!(observation["effectiveDateTime"], medtech_kernel::clock::rfc3339(at));
                assert!(
                    observation["note"][0]["text"]
                        .as_str()
                        .unwrap()
                        .contains("2000-01-01T00:00:00")
                );
            }

            // A clock that is right: a moment comes once, however late it is said again, and another value of it is not lost.
            let pulse = async |value: i64, received: i64| {
                let one = json!([reading("heart-rate", value, START, received)]);
                let pack = json!({"device": id, "feeds": feeds, "readings": one});
                house.twice(w, "device.readings", "device:d", pack).await.unwrap();
                house.found(&w.north, "Observation", "code=8867-4").await.len()
            };
            assert_eq!(pulse(70, START).await, 1);
            assert_eq!(pulse(70, START + 3 * DAY).await, 1);
            assert_eq!(pulse(71, START + 3 * DAY).await, 2);
            // Of what an older release took in, only the key is known.
            let sql = "INSERT INTO records_reading (tenant, device, code, at) VALUES ($1, $2, '8867-4', $3)";
            for at in [START + 1, NEW_YEAR] {
                let args = [id.as_str().into(), at.into()];
                w.ctx
                    .db
                    .write(w.north.id, move |tx| Box::pin(async move { tx.exec(sql, &args).await }))
                    .await?;
                let one = json!([reading("heart-rate", 70, at, START + 5)]);
                let pack = json!({"device": id, "feeds": feeds, "readings": one});
                house.twice(w, "device.readings", "device:d", pack).await?;
            }
            let pulses = house.found(&w.north, "Observation", "code=8867-4").await;
            assert_eq!(pulses.len(), 3, "one of the year 2000 might be any");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn what_a_device_wrote_names_the_session_it_came_by() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let house = House::open(w).await?;
            let app = app(w, &house.records);
            let (_, clinician) = w.sign_in(&w.north, HOST, Role::Clinician).await?;
            let (id, password) = registered(&app, &clinician, &house.patient).await;
            let session = w.ctx.sessions.verify(w.north.id, &password).await?.session;
            for (value, session) in [(70, Some(session)), (71, None)] {
                let mut pack = json!({"device": id, "feeds": format!("patient:{}", house.patient),
                    "readings": [reading("heart-rate", value, START + value, START + value)]});
                if let Some(session) = session {
                    pack["session"] = json!(session);
                }
                house.twice(w, "device.readings", "device:d", pack).await?;
            }
            let trail = medtech_kernel::audit::about(&w.ctx.db, w.north.id, &house.patient, None, 50).await?;
            let written = trail.iter().filter(|e| e.actor == format!("device:{id}"));
            let from: Vec<_> = written.map(|e| e.origin.session).collect();
            assert_eq!(from, [None, Some(session)], "newest first; a broker's has none");
            Ok(())
        })
    })
    .await;
}
