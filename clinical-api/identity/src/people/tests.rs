//! People on both engines: asked in, given roles, locked; proxies; what one clinic's people are to another's.

use crate::tests::{PASSWORD, call};
use crate::{Identity, NewUser};
use ::http::StatusCode;
use axum::{Extension, Router};
use medtech_fhir::{Access, Fhir};
use medtech_kernel::{
    Migration, Module, Result, Tenant,
    auth::{FRESH, Role},
    bus::Event,
    tenant::Quotas,
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

const NORTH: &str = "north.localhost";
const DAY: i64 = 24 * 3_600_000;

fn tables() -> [&'static [Migration]; 2] {
    [medtech_fhir::MIGRATIONS, Identity::migrations()]
}

struct House {
    identity: Arc<Identity>,
    fhir: Fhir,
    app: Router,
    admin: String,
    admin_id: String,
    mails: Arc<Mutex<Vec<Value>>>,
    _stop: watch::Sender<bool>,
}

async fn house(w: &World) -> Result<House> {
    w.ctx.bus.register("mails", &["account.mail"]);
    let fhir = Fhir::new(w.ctx.clone());
    let identity = Arc::new(Identity::new(w.ctx.clone()).with_records(fhir.clone()));
    let app = identity.clone().routes().layer(Extension(w.ctx.clone()));
    let (admin_id, admin) = sign_in(&identity, &w.north, "boss@north.example", Role::Admin, None).await?;
    let (stop, stopped) = watch::channel(false);
    let mails = Arc::new(Mutex::new(Vec::new()));
    let sink = mails.clone();
    w.ctx
        .bus
        .consume("mails", w.ctx.tenants.clone(), stopped, move |event: Event| {
            let mail: Value = event.parse().unwrap();
            if mail["letter"] == "invitation" {
                sink.lock().unwrap().push(mail);
            }
            async { Ok(()) }
        });
    Ok(House {
        identity,
        fhir,
        app,
        admin,
        admin_id,
        mails,
        _stop: stop,
    })
}

async fn sign_in(
    identity: &Identity,
    clinic: &Tenant,
    email: &str,
    role: Role,
    patient: Option<&str>,
) -> Result<(String, String)> {
    let new = NewUser {
        email: email.into(),
        name: format!("Person {email}"),
        roles: vec![role],
        password: Some(PASSWORD.into()),
        practitioner: None,
        patient: patient.map(str::to_owned),
    };
    let user = identity.create_user(clinic.id, new).await?;
    let token = identity.issue_token(clinic.id, user.id, 40 * DAY, "test").await?;
    Ok((user.id.to_string(), token))
}

impl House {
    async fn ask(&self, token: &str, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let body = Some(body).filter(|b| !b.is_null());
        call(&self.app, method, NORTH, path, Some(token), body).await
    }

    async fn admin(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask(&self.admin, method, path, body).await
    }

    /// The secret of the newest mail to an address, once `count` mails have come.
    async fn link(&self, count: usize) -> String {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            if let Some(mail) = self.mails.lock().unwrap().get(count - 1) {
                assert!(mail["origin"].as_str().unwrap().starts_with("http://"), "{mail}");
                return mail["path"]
                    .as_str()
                    .unwrap()
                    .strip_prefix("/enter#")
                    .unwrap()
                    .to_owned();
            }
            assert!(std::time::Instant::now() < end, "mail {count} has not come");
            tokio::task::yield_now().await;
        }
    }

    async fn enter(&self, link: &str) -> (StatusCode, Value) {
        call(
            &self.app,
            "POST",
            NORTH,
            "/links/exchange",
            None,
            Some(json!({"link": link})),
        )
        .await
    }
}

fn code(answer: &(StatusCode, Value)) -> (u16, &str) {
    (answer.0.as_u16(), answer.1["code"].as_str().unwrap_or(""))
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_asked_in_comes_and_chooses_a_password() {
    on_both_engines(&tables(), |w| {
        Box::pin(async move {
            let h = house(w).await?;
            let new = json!({"email": "Nina@North.example", "name": " Nina Nowak ", "roles": ["staff"]});
            let (status, made) = h.admin("POST", "/users", new.clone()).await;
            assert_eq!(
                (status, &made["standing"], &made["name"]),
                (StatusCode::CREATED, &json!("invited"), &json!("Nina Nowak")),
                "{made}"
            );
            assert_eq!(
                code(&h.admin("POST", "/users", new).await),
                (409, "identity.email_taken")
            );
            let path = format!("/users/{}", made["id"].as_str().unwrap());

            // Sent again: the first link is dead, the second opens once.
            let first = h.link(1).await;
            assert_eq!(
                h.admin("POST", &format!("{path}/invite"), Value::Null).await.0,
                StatusCode::OK
            );
            let second = h.link(2).await;
            assert_eq!(code(&h.enter(&first).await), (403, "link.unknown"));
            let (status, opened) = h.enter(&second).await;
            assert_eq!(status, StatusCode::OK, "{opened}");
            let nina = opened["access_token"].as_str().unwrap().to_owned();
            let (_, profile) = h.ask(&nina, "GET", "/me/profile", Value::Null).await;
            assert_eq!(
                (&profile["invited"], &profile["defaults"]["language"]),
                (&json!(true), &json!("en"))
            );
            let weak = h
                .ask(&nina, "POST", "/me/invitation", json!({"password": "short"}))
                .await;
            assert_eq!(weak.0, StatusCode::UNPROCESSABLE_ENTITY, "{weak:?}");
            let (status, profile) = h
                .ask(
                    &nina,
                    "POST",
                    "/me/invitation",
                    json!({"name": "Nina N.", "password": PASSWORD}),
                )
                .await;
            assert_eq!(
                (status, &profile["invited"], &profile["name"]),
                (StatusCode::OK, &json!(false), &json!("Nina N."))
            );
            assert_eq!(
                code(&h.ask(&nina, "POST", "/me/invitation", json!({})).await),
                (409, "identity.not_invited")
            );
            let by_password = json!({"email": "nina@north.example", "password": PASSWORD});
            assert_eq!(
                call(&h.app, "POST", NORTH, "/sign-in", None, Some(by_password)).await.0,
                StatusCode::OK
            );
            assert_eq!(
                code(&h.admin("POST", &format!("{path}/invite"), Value::Null).await),
                (409, "identity.not_invited")
            );

            // Taken back before they come: nothing opens.
            let (_, other) = h
                .admin(
                    "POST",
                    "/users",
                    json!({"email": "o@north.example", "name": "O", "roles": ["patient"]}),
                )
                .await;
            let link = h.link(3).await;
            let path = format!("/users/{}", other["id"].as_str().unwrap());
            let (_, gone) = h.admin("POST", &format!("{path}/withdraw"), Value::Null).await;
            assert_eq!(gone["standing"], "locked");
            assert_eq!(code(&h.enter(&link).await), (403, "link.unknown"));
            // And one whose time is over.
            h.admin("POST", &format!("{path}/invite"), Value::Null).await;
            let link = h.link(4).await;
            w.ctx.clock.advance(7 * DAY);
            assert_eq!(code(&h.enter(&link).await), (403, "link.expired"));
            let (_, late) = h.admin("GET", &path, Value::Null).await;
            assert_eq!(late["standing"], "expired");
            Ok(())
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_person_has_nothing_left_that_opens() {
    on_both_engines(&tables(), |w| {
        Box::pin(async move {
            let h = house(w).await?;
            let (id, token) = sign_in(&h.identity, &w.north, "dr@north.example", Role::Clinician, None).await?;
            let link = h.identity.issue_link(w.north.id, id.parse().unwrap(), DAY, 3).await?;
            let password = json!({"email": "dr@north.example", "password": PASSWORD});
            let (status, locked) = h.admin("POST", &format!("/users/{id}/lock"), Value::Null).await;
            assert_eq!((status, &locked["standing"]), (StatusCode::OK, &json!("locked")));
            assert_eq!(
                h.ask(&token, "GET", "/me", Value::Null).await.0,
                StatusCode::UNAUTHORIZED
            );
            assert_eq!(h.enter(&link).await.0, StatusCode::FORBIDDEN);
            assert_eq!(
                call(&h.app, "POST", NORTH, "/sign-in", None, Some(password.clone()))
                    .await
                    .0,
                StatusCode::UNAUTHORIZED
            );
            let (_, back) = h.admin("POST", &format!("/users/{id}/unlock"), Value::Null).await;
            assert_eq!(back["standing"], "active");
            assert_eq!(
                call(&h.app, "POST", NORTH, "/sign-in", None, Some(password.clone()))
                    .await
                    .0,
                StatusCode::OK
            );
            assert_eq!(h.enter(&link).await.0, StatusCode::FORBIDDEN, "the link stays dead");

            // Reset: the password is gone, a new link comes by mail.
            assert_eq!(
                h.admin("POST", &format!("/users/{id}/reset"), Value::Null).await.0,
                StatusCode::OK
            );
            assert_eq!(
                call(&h.app, "POST", NORTH, "/sign-in", None, Some(password)).await.0,
                StatusCode::UNAUTHORIZED
            );
            let (status, opened) = h.enter(&h.link(1).await).await;
            assert_eq!(status, StatusCode::OK, "{opened}");

            // The last administrator cannot go, and a second one can.
            let me = format!("/users/{}", h.admin_id);
            for (method, path, body) in [
                ("POST", format!("{me}/lock"), Value::Null),
                ("PATCH", me.clone(), json!({"roles": ["staff"]})),
            ] {
                assert_eq!(code(&h.admin(method, &path, body).await), (409, "identity.last_admin"));
            }
            let asked = json!({"email": "a2@north.example", "name": "A2", "roles": ["admin"]});
            assert_eq!(h.admin("POST", "/users", asked).await.0, StatusCode::CREATED);
            assert_eq!(
                code(&h.admin("POST", &format!("{me}/lock"), Value::Null).await),
                (409, "identity.last_admin"),
                "asked is not here"
            );
            sign_in(&h.identity, &w.north, "a3@north.example", Role::Admin, None).await?;
            assert_eq!(
                h.admin("POST", &format!("{me}/lock"), Value::Null).await.0,
                StatusCode::OK
            );
            assert_eq!(h.admin("GET", "/users", Value::Null).await.0, StatusCode::UNAUTHORIZED);
            Ok(())
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_ask_for_a_fresh_proof_end_old_sessions_and_are_told_in_the_trail() {
    on_both_engines(&tables(), |w| {
        Box::pin(async move {
            let h = house(w).await?;
            let (id, token) = sign_in(&h.identity, &w.north, "dr@north.example", Role::Staff, None).await?;
            let path = format!("/users/{id}");
            let record = h
                .fhir
                .create(
                    w.north.id,
                    "system",
                    json!({"resourceType": "Practitioner", "name": [{"family": "Ørsted", "given": ["Åse"]}]}),
                )
                .await?;
            w.ctx.clock.advance(FRESH + 1);
            let edit = json!({"roles": ["clinician", "admin", "clinician"]});
            assert_eq!(
                code(&h.admin("PATCH", &path, edit.clone()).await),
                (403, "auth.step_up")
            );
            assert_eq!(
                h.admin("PATCH", &path, json!({"name": "Dr D"})).await.0,
                StatusCode::OK,
                "a name needs no proof"
            );
            let admin = h
                .identity
                .issue_token(w.north.id, h.admin_id.parse().unwrap(), DAY, "test")
                .await?;
            let (status, now) = h.ask(&admin, "PATCH", &path, edit).await;
            assert_eq!(
                (status, &now["roles"]),
                (StatusCode::OK, &json!(["admin", "clinician"])),
                "{now}"
            );
            assert_eq!(
                h.ask(&token, "GET", "/me", Value::Null).await.0,
                StatusCode::UNAUTHORIZED
            );
            for bad in [json!([]), json!(["guest"]), json!(["device"])] {
                assert_eq!(
                    h.ask(&admin, "PATCH", &path, json!({"roles": bad})).await.0,
                    StatusCode::UNPROCESSABLE_ENTITY
                );
            }

            // Who they are in the record is looked for by name, and must be there.
            let (_, found) = h
                .ask(
                    &admin,
                    "GET",
                    "/records?kind=practitioner&search=%C3%B8rst",
                    Value::Null,
                )
                .await;
            assert_eq!(
                (&found["records"][0]["id"], &found["records"][0]["name"]),
                (&json!(record.id), &json!("Åse Ørsted")),
                "{found}"
            );
            assert_eq!(
                code(
                    &h.ask(&admin, "PATCH", &path, json!({"practitioner_id": "nobody"}))
                        .await
                ),
                (422, "identity.record_unknown")
            );
            assert_eq!(
                h.ask(&admin, "PATCH", &path, json!({"practitioner_id": record.id}))
                    .await
                    .0,
                StatusCode::OK
            );
            let selves = w
                .ctx
                .policy
                .subjects_of(w.north.id, &format!("practitioner:{}", record.id), "self")
                .await?;
            assert_eq!(selves, [format!("user:{id}")]);
            h.ask(&admin, "PATCH", &path, json!({"practitioner_id": ""})).await;
            assert!(
                w.ctx
                    .policy
                    .subjects_of(w.north.id, &format!("practitioner:{}", record.id), "self")
                    .await?
                    .is_empty()
            );

            let trail = medtech_kernel::audit::page(&w.ctx.db, w.north.id, &Default::default(), 50).await?;
            let told: Vec<&str> = trail
                .iter()
                .filter(|e| e.target == format!("user:{id}"))
                .map(|e| e.detail.as_str())
                .collect();
            assert!(told.contains(&"roles staff -> admin clinician"), "{told:?}");

            // To nobody else; and another clinic's people are not there.
            let (_, clinician) = sign_in(&h.identity, &w.north, "c@north.example", Role::Clinician, None).await?;
            let (stranger, _) = sign_in(&h.identity, &w.south, "s@south.example", Role::Staff, None).await?;
            for (method, p) in [
                ("GET", "/users".to_owned()),
                ("GET", path.clone()),
                ("PATCH", path.clone()),
                ("POST", format!("{path}/lock")),
                ("POST", "/users".into()),
                ("GET", "/records?kind=patient&search=a".into()),
            ] {
                let body = if method == "GET" {
                    Value::Null
                } else {
                    json!({"email": "x@y.z", "name": "x", "roles": ["staff"]})
                };
                let body = if method == "PATCH" { json!({}) } else { body };
                assert_eq!(
                    h.ask(&clinician, method, &p, body).await.0,
                    StatusCode::FORBIDDEN,
                    "{method} {p}"
                );
            }
            for foreign in [stranger.as_str(), "0190a000-0000-7000-8000-00000000dead", "nonsense"] {
                for (method, tail) in [
                    ("GET", ""),
                    ("POST", "/lock"),
                    ("POST", "/reset"),
                    ("POST", "/withdraw"),
                ] {
                    let answer = h
                        .ask(&admin, method, &format!("/users/{foreign}{tail}"), Value::Null)
                        .await;
                    assert_eq!(code(&answer), (404, "identity.user_unknown"), "{foreign}{tail}");
                }
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_searched_and_paged_and_has_a_limit() {
    on_both_engines(&tables(), |w| {
        Box::pin(async move {
            let h = house(w).await?;
            for n in 0..7 {
                let name = ["anna", "Anne", "bert", "Carl", "d%d", "Émile", "zoe"][n];
                let new = json!({"email": format!("p{n}@north.example"), "name": name, "roles": ["patient"]});
                assert_eq!(h.admin("POST", "/users", new).await.0, StatusCode::CREATED);
            }
            let mut seen = Vec::new();
            let mut after = String::new();
            loop {
                let (status, page) = h
                    .admin("GET", &format!("/users?limit=3&role=patient{after}"), Value::Null)
                    .await;
                assert_eq!(status, StatusCode::OK, "{page}");
                seen.extend(
                    page["users"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|u| u["name"].as_str().unwrap().to_owned()),
                );
                match page["next"].as_str() {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
            assert_eq!(seen.len(), 7, "{seen:?}");
            assert_eq!(seen[..5], ["anna", "Anne", "bert", "Carl", "d%d"].map(str::to_owned));
            let names = async |search: &str| -> Vec<String> {
                let (_, page) = h.admin("GET", &format!("/users?search={search}"), Value::Null).await;
                page["users"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|u| u["name"].as_str().unwrap().to_owned())
                    .collect()
            };
            assert_eq!(names("ANN").await, ["anna", "Anne"]);
            assert_eq!(names("%25").await, ["d%d"], "a sign is a sign");
            assert_eq!(names("p2@").await, ["bert"]);
            assert!(names("_").await.is_empty());

            let quotas = Quotas {
                users: Some(9),
                ..Quotas::default()
            };
            w.ctx.tenants.set_quotas(w.north.id, &quotas, "test").await?;
            let new = |n| json!({"email": format!("q{n}@north.example"), "name": "Q", "roles": ["patient"]});
            assert_eq!(h.admin("POST", "/users", new(1)).await.0, StatusCode::CREATED);
            assert_eq!(
                code(&h.admin("POST", "/users", new(2)).await),
                (403, "tenant.quota_users")
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_acts_for_a_child_until_it_comes_of_age() {
    on_both_engines(&tables(), |w| {
        Box::pin(async move {
            let h = house(w).await?;
            // The clock stands at 2 March 2026; the child comes of age on the 1 April.
            let child = h.fhir.create(w.north.id, "system", json!({"resourceType": "Patient", "birthDate": "2008-04-01", "name": [{"text": "Kim"}]})).await?.id;
            let grown = h.fhir.create(w.north.id, "system", json!({"resourceType": "Patient", "birthDate": "1990-01-01", "name": [{"text": "Gus"}]})).await?.id;
            let (mother_id, mother) = sign_in(&h.identity, &w.north, "mum@north.example", Role::Patient, None).await?;
            let (_, gus) = sign_in(&h.identity, &w.north, "gus@north.example", Role::Patient, Some(&grown)).await?;
            let grant = |patient: &str, relationship: &str| json!({"patient_id": patient, "email": "mum@north.example", "name": "Mum", "relationship": relationship, "scope": ["results", "appointments"]});
            assert_eq!(h.ask(&gus, "POST", "/proxies", grant(&child, "mother")).await.0, StatusCode::FORBIDDEN, "another's record");
            assert_eq!(code(&h.admin("POST", "/proxies", grant(&grown, "mother")).await), (422, "proxy.of_age"));
            let (status, made) = h.admin("POST", "/proxies", grant(&child, "mother")).await;
            assert_eq!((status, &made["state"], &made["ends_with_childhood"]), (StatusCode::CREATED, &json!("asked"), &json!(true)), "{made}");
            let id = made["id"].as_str().unwrap();
            let object = format!("patient:{child}");
            let mum = format!("user:{mother_id}");
            let relations = async |relation: &str| w.ctx.policy.objects_of(w.north.id, &mum, relation).await;
            assert!(relations("proxy").await?.is_empty(), "asked is not accepted");
            assert_eq!(h.ask(&gus, "POST", &format!("/proxies/{id}/accept"), Value::Null).await.0, StatusCode::NOT_FOUND);
            let (_, mine) = h.ask(&mother, "GET", "/proxies/mine", Value::Null).await;
            assert_eq!(mine["proxies"][0]["patient_name"], "Kim");
            let (status, now) = h.ask(&mother, "POST", &format!("/proxies/{id}/accept"), Value::Null).await;
            assert_eq!((status, &now["state"]), (StatusCode::OK, &json!("active")), "{now}");
            assert_eq!(relations("proxy").await?, [object.as_str()]);
            assert_eq!((relations("proxy.results").await?.len(), relations("proxy.messages").await?.len()), (1, 0));
            let found = h.fhir.search(w.north.id, &Access::All, "RelatedPerson", &format!("patient=Patient/{child}")).await?;
            let related = found.resources[0].value()?;
            assert_eq!((&related["relationship"][0]["coding"][0]["code"], &related["active"]), (&json!("MTH"), &json!(true)));

            // On the birthday it is over, whatever was agreed.
            w.ctx.clock.advance(31 * DAY);
            assert!(relations("proxy").await?.is_empty());
            let (_, mine) = h.ask(&mother, "GET", "/proxies/mine", Value::Null).await;
            assert_eq!(mine["proxies"], json!([]));

            // A grown patient lets a carer in, sees it, and ends it.
            let gus = h.identity.issue_token(w.north.id, h.identity.find_by_email(w.north.id, "gus@north.example").await?.unwrap().id, DAY, "t").await?;
            let mut carer = grant(&grown, "carer");
            carer["until"] = json!("2026-06-30");
            carer.as_object_mut().unwrap().remove("patient_id");
            let (status, made) = h.ask(&gus, "POST", "/proxies", carer).await;
            assert_eq!((status, &made["ends_at"]), (StatusCode::CREATED, &json!("2026-06-30T22:00:00.000Z")), "{made}");
            let id = made["id"].as_str().unwrap().to_owned();
            h.ask(&mother, "POST", &format!("/proxies/{id}/accept"), Value::Null).await;
            assert_eq!(relations("proxy").await?, [format!("patient:{grown}")]);
            let (_, listed) = h.ask(&gus, "GET", "/proxies", Value::Null).await;
            assert_eq!((&listed["proxies"][0]["name"], &listed["proxies"][0]["state"]), (&json!("Person mum@north.example"), &json!("active")));
            assert_eq!(h.ask(&gus, "DELETE", &format!("/proxies/{id}"), Value::Null).await.0, StatusCode::NO_CONTENT);
            assert!(relations("proxy").await?.is_empty() && relations("proxy.results").await?.is_empty());
            let found = h.fhir.search(w.north.id, &Access::All, "RelatedPerson", &format!("patient=Patient/{grown}")).await?;
            assert_eq!(found.resources[0].value()?["active"], false);
            // Nobody can bring it back, nor end another's.
            assert_eq!(code(&h.ask(&mother, "POST", &format!("/proxies/{id}/accept"), Value::Null).await), (410, "proxy.ended"));
            let (_, stranger) = sign_in(&h.identity, &w.north, "x@north.example", Role::Patient, None).await?;
            assert_eq!(h.ask(&stranger, "DELETE", &format!("/proxies/{id}"), Value::Null).await.0, StatusCode::NOT_FOUND);
            Ok(())
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn profile_and_preferences_are_typed_and_change_what_is_sent() {
    on_both_engines(&tables(), |w| {
        Box::pin(async move {
            let h = house(w).await?;
            let (status, p) = h.admin("PUT", "/me/profile", json!({"name": "Boss", "language": "es", "zone": "Asia/Tokyo", "phone": "+49 30 1234567", "pronouns": ""})).await;
            assert_eq!((status, &p["language"], &p["zone"], &p["pronouns"]), (StatusCode::OK, &json!("es"), &json!("Asia/Tokyo"), &Value::Null), "{p}");
            for bad in [
                json!({"name": ""}),
                json!({"name": "B", "language": "tlh"}),
                json!({"name": "B", "zone": "Mars/Base"}),
                json!({"name": "B", "phone": "call me"}),
            ] {
                assert_eq!(h.admin("PUT", "/me/profile", bad.clone()).await.0, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
            }
            let (_, p) = h.admin("GET", "/me/preferences", Value::Null).await;
            assert_eq!((&p["theme"], &p["mail_notices"], &p["clock"]), (&json!("auto"), &json!(true), &json!("auto")));
            let (status, p) = h.admin("PUT", "/me/preferences", json!({"theme": "dark", "mail_notices": false, "clock": "24"})).await;
            assert_eq!((status, &p["theme"], &p["arrival_sound"]), (StatusCode::OK, &json!("dark"), &json!(true)));
            assert_eq!(h.admin("GET", "/me/preferences", Value::Null).await.1, p);
            for bad in [json!({"theme": "pink"}), json!({"colour": "red"}), json!({"mail_notices": "yes"})] {
                assert_eq!(h.admin("PUT", "/me/preferences", bad).await.0, StatusCode::BAD_REQUEST);
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_end_sessions_and_a_reset_takes_every_factor_and_goes_round_none() {
    on_both_engines(&tables(), |w| {
        Box::pin(async move {
            let h = house(w).await?;
            let (id, token) = sign_in(&h.identity, &w.north, "dr@north.example", Role::Clinician, None).await?;
            let (other_id, other) = sign_in(&h.identity, &w.north, "b@north.example", Role::Clinician, None).await?;
            let user: uuid::Uuid = id.parse().unwrap();
            let second = h.identity.issue_token(w.north.id, user, DAY, "a phone").await?;

            // All sessions of one person, and of nobody else; they come back with what they sign in with.
            let (status, _) = h.admin("POST", &format!("/users/{id}/end-sessions"), Value::Null).await;
            assert_eq!(status, StatusCode::OK);
            for token in [&token, &second] {
                assert_eq!(
                    h.ask(token, "GET", "/me", Value::Null).await.0,
                    StatusCode::UNAUTHORIZED
                );
            }
            assert_eq!(h.ask(&other, "GET", "/me", Value::Null).await.0, StatusCode::OK);
            let password = json!({"email": "dr@north.example", "password": PASSWORD});
            let (status, first) = call(&h.app, "POST", NORTH, "/sign-in", None, Some(password.clone())).await;
            assert_eq!(status, StatusCode::OK);
            let token = first["access_token"].as_str().unwrap().to_owned();

            // A second factor and recovery codes; a password alone is a ticket now.
            let mut device =
                crate::passkeys::authenticator::Authenticator::new(crate::passkeys::authenticator::Signer::es256());
            let (_, started) = h.ask(&token, "POST", "/passkeys/register/start", json!({})).await;
            let made = device.create(&started, "http://north.localhost", |_| {});
            assert_eq!(
                h.ask(&token, "POST", "/passkeys/register/finish", made).await.0,
                StatusCode::CREATED
            );
            let (_, codes) = h.ask(&token, "POST", "/recovery", json!({})).await;
            let (_, asked) = call(&h.app, "POST", NORTH, "/sign-in", None, Some(password.clone())).await;
            let ticket = asked["second_factor"]["ticket"].clone();
            assert!(ticket.is_string() && asked.get("access_token").is_none(), "{asked}");

            // A reset asks the administrator for a fresh proof.
            w.ctx.clock.advance(FRESH + 1);
            let reset = format!("/users/{id}/reset");
            assert_eq!(code(&h.admin("POST", &reset, Value::Null).await), (403, "auth.step_up"));
            let admin = h
                .identity
                .issue_token(w.north.id, h.admin_id.parse().unwrap(), DAY, "test")
                .await?;
            assert_eq!(h.ask(&admin, "POST", &reset, Value::Null).await.0, StatusCode::OK);

            // Nothing of before opens: session, password, passkey, recovery code, a ticket that was open.
            assert_eq!(
                h.ask(&token, "GET", "/me", Value::Null).await.0,
                StatusCode::UNAUTHORIZED
            );
            let (status, _) = call(&h.app, "POST", NORTH, "/sign-in", None, Some(password)).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            let recovery = json!({"ticket": ticket, "recovery": codes["codes"][0]});
            let (status, _) = call(&h.app, "POST", NORTH, "/sign-in/second", None, Some(recovery)).await;
            assert!(status.is_client_error(), "{status}");
            let (_, started) = call(
                &h.app,
                "POST",
                NORTH,
                "/passkeys/authenticate/start",
                None,
                Some(json!({})),
            )
            .await;
            let proof = device.get(&started, "http://north.localhost", |_| {});
            let (status, _) = call(
                &h.app,
                "POST",
                NORTH,
                "/passkeys/authenticate/finish",
                None,
                Some(proof),
            )
            .await;
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            // They come in as at the beginning, by the mailed invitation, with one factor.
            let (status, opened) = h.enter(&h.link(1).await).await;
            assert_eq!(
                (status, &opened["assurance"]),
                (StatusCode::OK, &json!("one")),
                "{opened}"
            );
            let fresh = opened["access_token"].as_str().unwrap();
            let (_, security) = h.ask(fresh, "GET", "/me/security", Value::Null).await;
            assert_eq!(
                (
                    &security["password"],
                    &security["passkeys"],
                    &security["totp"],
                    &security["recovery"]
                ),
                (&json!(false), &json!(0), &json!(false), &json!(0))
            );
            // Nobody but an administrator does any of this.
            for act in ["reset", "end-sessions", "lock"] {
                let path = format!("/users/{other_id}/{act}");
                assert_eq!(
                    h.ask(fresh, "POST", &path, Value::Null).await.0,
                    StatusCode::FORBIDDEN,
                    "{act}"
                );
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_the_clinics_own_is_made_given_changed_at_once_and_deleted_when_unused() {
    on_both_engines(&tables(), |w| {
        Box::pin(async move {
            let h = house(w).await?;
            let (see, board) = ("clinician.record.directory.see", "staff.thing.board.read");
            let (_, all) = h.admin("GET", "/roles", Value::Null).await;
            assert_eq!(all["roles"], json!([]));
            let choices: Vec<&str> = all["choices"].as_array().unwrap().iter().map(|c| c["permission"].as_str().unwrap()).collect();
            assert!(choices.contains(&see) && choices.contains(&board), "{choices:?}");
            assert!(!choices.iter().any(|c| c.contains("glass") || c.starts_with("admin")), "{choices:?}");
            let body = |permissions: &[&str], version: Value| json!({"name": "Nurse", "permissions": permissions, "version": version});
            for (wrong, expected) in [
                (json!({"name": "admin", "permissions": [see]}), (422, "policy.role_name")),
                (body(&["admin.thing.user.administer"], Value::Null), (422, "policy.role_permission")),
                (body(&["clinician.thing.glass.write"], Value::Null), (422, "policy.role_permission")),
                (body(&[], Value::Null), (422, "policy.role_permission")),
            ] {
                assert_eq!(code(&h.admin("POST", "/roles", wrong.clone()).await), expected, "{wrong}");
            }
            let (status, made) = h.admin("POST", "/roles", body(&[see, board], Value::Null)).await;
            assert_eq!((status.as_u16(), &made["version"]), (201, &json!(1)), "{made}");
            assert_eq!(code(&h.admin("POST", "/roles", body(&[see], Value::Null)).await), (409, "policy.role_name_taken"));
            let (role, at) = (made["role"].clone(), format!("/roles/{}", made["id"].as_str().unwrap()));

            // Given: signed in, they have it, and are of the staff; to code outside the policy they are nobody.
            let (id, _) = sign_in(&h.identity, &w.north, "n@north.example", Role::Patient, None).await?;
            let foreign = json!({"roles": ["own:0190a0b0-0000-7000-8000-000000000000"]});
            assert_eq!(code(&h.admin("PATCH", &format!("/users/{id}"), foreign).await), (422, "identity.roles"));
            let (status, person) = h.admin("PATCH", &format!("/users/{id}"), json!({"roles": [role]})).await;
            assert_eq!((status.as_u16(), &person["roles"]), (200, &json!([role])), "{person}");
            let ask = json!({"email": "n@north.example", "password": PASSWORD});
            let (_, entered) = call(&h.app, "POST", NORTH, "/sign-in", None, Some(ask)).await;
            assert_eq!(entered["user"]["acts_as"], json!(["clinician", "staff"]), "{entered}");
            let token = entered["access_token"].as_str().unwrap().to_owned();
            let (_, me) = h.ask(&token, "GET", "/me", Value::Null).await;
            assert_eq!((&me["user"]["roles"], &me["session"]["idle_minutes"]), (&json!([role]), &json!(15)), "{me}");
            let may = async || -> Result<bool> {
                let who = w.ctx.sessions.still(w.north.id, &token).await?;
                let what = medtech_kernel::policy::Resource::new("board", "x");
                let rule = w.ctx.policy.decide(&who, medtech_kernel::policy::Action::Read, &what).await?;
                // The second factor is another question.
                Ok(rule.allow || rule.why == "auth.second_factor" && who.grant.narrowed.is_some())
            };
            assert!(may().await?);
            for (method, path) in [("GET", "/users"), ("GET", "/roles"), ("POST", "/roles"), ("DELETE", at.as_str())] {
                let body = if method == "POST" { body(&[see], Value::Null) } else { Value::Null };
                assert_eq!(h.ask(&token, method, path, body).await.0.as_u16(), 403, "{method} {path}");
            }
            // "What can they see", and the rules, show it.
            let (_, sees) = h.admin("POST", "/decide", json!({"user": id, "action": "read", "resource": {"kind": "board", "id": "x"}})).await;
            assert_eq!(sees["decision"]["allow"], true, "{sees}");
            let reach = |sees: &Value, kind: &str| sees["sees"].as_array().unwrap().iter().find(|s| s["kind"] == kind).unwrap()["read"].clone();
            assert_eq!((reach(&sees, "Practitioner"), reach(&sees, "Observation")), (json!("everyone"), json!("none")));
            let (_, rules) = h.admin("GET", "/access/rules", Value::Null).await;
            let shown = rules["roles"].as_array().unwrap().iter().find(|r| r["role"] == role).unwrap().clone();
            assert_eq!((&shown["name"], &shown["records"][0]["class"]), (&json!("Nurse"), &json!("directory")), "{shown}");

            // Changed: at once, in the session that stands; and by one administrator at a time.
            assert_eq!(code(&h.admin("PUT", &at, json!({"name": "Nurse", "permissions": [see]})).await), (422, "policy.role_version"));
            let (status, _) = h.admin("PUT", &at, body(&[see], json!(1))).await;
            assert_eq!(status.as_u16(), 200);
            assert_eq!(code(&h.admin("PUT", &at, body(&[board], json!(1))).await), (409, "policy.role_version"));
            let (_, sees) = h.admin("POST", "/decide", json!({"user": id, "action": "read", "resource": {"kind": "board", "id": "x"}})).await;
            assert_eq!(sees["decision"]["allow"], false, "{sees}");
            // Another clinic's administrator finds nothing there.
            let (_, south) = sign_in(&h.identity, &w.south, "boss@south.example", Role::Admin, None).await?;
            for (method, given) in [("GET", Value::Null), ("PUT", body(&[see], json!(2))), ("DELETE", Value::Null)] {
                let given = Some(given).filter(|b| !b.is_null());
                let answer = call(&h.app, method, "south.localhost", &at, Some(&south), given).await;
                assert_eq!(code(&answer), (404, "policy.role_unknown"), "{method}");
            }
            // Deleted when nobody has it.
            assert_eq!(code(&h.admin("DELETE", &at, Value::Null).await), (409, "policy.role_used"));
            let (status, _) = h.admin("PATCH", &format!("/users/{id}"), json!({"roles": ["patient"]})).await;
            assert_eq!(status.as_u16(), 200);
            assert_eq!(h.admin("DELETE", &at, Value::Null).await.0.as_u16(), 204);
            assert_eq!(code(&h.admin("PUT", &at, body(&[see], json!(3))).await), (404, "policy.role_unknown"));
            let (_, told) = h.admin("GET", &at, Value::Null).await;
            let versions: Vec<_> = told["versions"].as_array().unwrap().iter().map(|v| (v["version"].as_i64(), v["gone"].as_bool())).collect();
            assert_eq!(versions, [(Some(3), Some(true)), (Some(2), Some(false)), (Some(1), Some(false))]);
            // An old proof is none.
            w.ctx.clock.advance(FRESH + 1);
            assert_eq!(code(&h.admin("POST", "/roles", body(&[see], Value::Null)).await), (403, "auth.step_up"));
            Ok(())
        })
    })
    .await;
}
