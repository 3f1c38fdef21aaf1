use super::*;
use crate::guesses::{ATTEMPTS, WINDOW};
use ::http::{Request, StatusCode};
use axum::{Extension, body::Body};
use http_body_util::BodyExt;
use medtech_kernel::testkit::{World, on_both_engines};
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) const TABLES: &[&[Migration]] = &[store::MIGRATIONS];
pub(crate) const PASSWORD: &str = "a long enough password";

pub(crate) fn door(world: &World) -> (Arc<Identity>, Router) {
    let identity = Arc::new(Identity::new(world.ctx.clone()));
    (identity.clone(), identity.routes().layer(Extension(world.ctx.clone())))
}

pub(crate) async fn call(
    app: &Router,
    method: &str,
    host: &str,
    path: &str,
    token: Option<&str>,
    body: Option<Value>,
) -> (StatusCode, Value) {
    let mut request = Request::builder().method(method).uri(path).header("host", host);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = match body {
        Some(json) => {
            request = request.header("content-type", "application/json");
            Body::from(json.to_string())
        }
        None => Body::empty(),
    };
    let answer = app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

pub(crate) fn clinician(email: &str) -> NewUser {
    NewUser {
        email: email.into(),
        name: "Dr Test".into(),
        roles: vec![Role::Clinician],
        password: Some(PASSWORD.into()),
        practitioner: Some("pr1".into()),
        patient: None,
    }
}

#[tokio::test]
async fn password_me_and_sign_out() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            let user = identity.create_user(w.north.id, clinician("Dr@North.example")).await?;
            let relation = w.ctx.policy.subjects_of(w.north.id, "practitioner:pr1", "self").await?;
            assert_eq!(relation, [user.subject()]);
            let again = identity.create_user(w.north.id, clinician("dr@north.EXAMPLE")).await;
            assert_eq!(again.err().map(|e| e.code), Some("identity.email_taken"));

            let good = json!({"email": " dr@north.example ", "password": PASSWORD});
            let (status, body) = call(&app, "POST", "north.localhost", "/sign-in", None, Some(good.clone())).await;
            assert_eq!(status, StatusCode::OK, "{body}");
            let token = body["access_token"].as_str().unwrap();
            let (_, me) = call(&app, "GET", "north.localhost", "/me", Some(token), None).await;
            assert_eq!(me["user"]["practitioner_id"], "pr1");
            assert_eq!(me["user"]["roles"], json!(["clinician"]));
            assert_eq!(me["tenant"]["zone"], "Europe/Berlin");

            // Another tenant knows neither the account nor the token.
            for other in ["south.localhost", "east.localhost"] {
                assert_eq!(
                    call(&app, "POST", other, "/sign-in", None, Some(good.clone())).await.0,
                    StatusCode::UNAUTHORIZED
                );
                assert_eq!(
                    call(&app, "GET", other, "/me", Some(token), None).await.0,
                    StatusCode::UNAUTHORIZED
                );
            }
            assert_eq!(
                call(&app, "POST", "north.localhost", "/sign-out", Some(token), None)
                    .await
                    .0,
                StatusCode::NO_CONTENT
            );
            assert_eq!(
                call(&app, "GET", "north.localhost", "/me", Some(token), None).await.0,
                StatusCode::UNAUTHORIZED
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn unknown_and_wrong_answer_alike_and_are_limited_alike() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            identity.create_user(w.north.id, clinician("dr@north.example")).await?;
            let mut answers = Vec::new();
            for email in ["dr@north.example", "nobody@north.example"] {
                let body = json!({"email": email, "password": "not the password"});
                let mut seen = Vec::new();
                for _ in 0..ATTEMPTS + 1 {
                    let (status, mut answer) =
                        call(&app, "POST", "north.localhost", "/sign-in", None, Some(body.clone())).await;
                    answer.as_object_mut().unwrap().remove("correlation");
                    seen.push((status, answer));
                }
                assert_eq!(seen[0].0, StatusCode::UNAUTHORIZED);
                assert_eq!(seen.last().unwrap().0, StatusCode::TOO_MANY_REQUESTS);
                answers.push(seen);
            }
            assert_eq!(answers[0], answers[1]);
            // Even the right password waits now, and only until the window has passed.
            let good = json!({"email": "dr@north.example", "password": PASSWORD});
            assert_eq!(
                call(&app, "POST", "north.localhost", "/sign-in", None, Some(good.clone()))
                    .await
                    .0,
                StatusCode::TOO_MANY_REQUESTS
            );
            w.ctx.clock.advance(WINDOW);
            assert_eq!(
                call(&app, "POST", "north.localhost", "/sign-in", None, Some(good))
                    .await
                    .0,
                StatusCode::OK
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn links_open_as_often_as_they_say_and_no_longer() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            let user = identity.create_user(w.north.id, clinician("dr@north.example")).await?;
            let link = identity.issue_link(w.north.id, user.id, 60_000, 2).await?;
            let body = |link: &str| Some(json!({"link": link}));
            let open = async |link: &str| {
                let (status, body) = call(&app, "POST", "north.localhost", "/links/exchange", None, body(link)).await;
                (status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
            };
            let mut altered = link.clone();
            altered.replace_range(0..1, if link.starts_with('A') { "B" } else { "A" });
            assert_eq!(open(&altered).await, (403, "link.unknown".into()));
            assert_eq!(open("").await, (403, "link.unknown".into()));
            let (status, _) = call(&app, "POST", "south.localhost", "/links/exchange", None, body(&link)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "a link of another tenant");
            let both = tokio::join!(open(&link), open(&link), open(&link));
            let mut codes = [both.0.0, both.1.0, both.2.0];
            codes.sort_unstable();
            assert_eq!(codes, [200, 200, 410], "two uses, three at once");
            assert_eq!(open(&link).await, (410, "link.used".into()));
            let late = identity.issue_link(w.north.id, user.id, 60_000, 1).await?;
            w.ctx.clock.advance(60_000);
            assert_eq!(open(&late).await, (403, "link.expired".into()));
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn bad_input_is_refused_at_the_door() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            for body in [json!([]), json!({"email": "x"}), json!({"email": 7, "password": "x"})] {
                assert_eq!(
                    call(&app, "POST", "north.localhost", "/sign-in", None, Some(body))
                        .await
                        .0,
                    StatusCode::BAD_REQUEST
                );
            }
            assert_eq!(
                call(&app, "GET", "north.localhost", "/me", None, None).await.0,
                StatusCode::UNAUTHORIZED
            );
            assert_eq!(
                call(&app, "GET", "nowhere.localhost", "/me", Some("x"), None).await.0,
                StatusCode::NOT_FOUND
            );
            for (email, name, roles, code) in [
                ("not an address", "X", vec![Role::Staff], "identity.email"),
                ("a@b.c", " ", vec![Role::Staff], "identity.name"),
                ("a@b.c", "X", vec![Role::Guest], "identity.roles"),
            ] {
                let new = NewUser {
                    email: email.into(),
                    name: name.into(),
                    roles,
                    password: None,
                    practitioner: None,
                    patient: None,
                };
                assert_eq!(
                    identity.create_user(w.north.id, new).await.err().map(|e| e.code),
                    Some(code)
                );
            }
            // Someone without a password can't come in with an empty one.
            let new = NewUser {
                password: None,
                ..clinician("link@north.example")
            };
            identity.create_user(w.north.id, new).await?;
            let empty = json!({"email": "link@north.example", "password": ""});
            assert_eq!(
                call(&app, "POST", "north.localhost", "/sign-in", None, Some(empty))
                    .await
                    .0,
                StatusCode::UNAUTHORIZED
            );
            Ok(())
        })
    })
    .await;
}

async fn seen(
    w: &World,
    actor: String,
    target: &'static str,
    detail: &'static str,
    patient: Option<&'static str>,
) -> Result<()> {
    w.ctx
        .db
        .write(w.north.id, move |tx| {
            Box::pin(async move {
                let entry = Entry {
                    actor: &actor,
                    action: "read",
                    target,
                    outcome: "success",
                    detail,
                };
                audit::write_all(tx, &[(entry, patient)]).await
            })
        })
        .await
}

#[tokio::test]
async fn a_patient_sees_who_saw_the_own_record_and_no_other() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            let doctor = identity.create_user(w.north.id, clinician("dr@north.example")).await?;
            let mut patients = Vec::new();
            for p in ["p1", "p2"] {
                let new = NewUser {
                    email: format!("{p}@north.example"),
                    name: format!("Patient {p}"),
                    roles: vec![Role::Patient],
                    password: None,
                    practitioner: None,
                    patient: Some(p.into()),
                };
                let user = identity.create_user(w.north.id, new).await?;
                let token = identity.issue_token(w.north.id, user.id, 3_600_000, "test").await?;
                patients.push((user, token));
            }
            seen(w, doctor.subject(), "Observation/o1", "read", Some("p1")).await?;
            seen(
                w,
                doctor.subject(),
                "Bundle",
                "create Condition/c1, update Encounter/e1",
                Some("p1"),
            )
            .await?;
            seen(w, "device:d1".into(), "Observation/o2", "read", Some("p1")).await?;
            seen(w, doctor.subject(), "Patient/p2", "chart", None).await?;
            seen(w, patients[0].0.subject(), "Patient/p1", "read", None).await?;
            let get = |path: &'static str, token: String| {
                let app = app.clone();
                async move { call(&app, "GET", "north.localhost", path, Some(&token), None).await }
            };
            let (status, log) = get("/me/access-log", patients[0].1.clone()).await;
            assert_eq!(status, StatusCode::OK, "{log}");
            let lines: Vec<(Value, Value, Value, Value)> = log["entries"]
                .as_array()
                .unwrap()
                .iter()
                .map(|e| {
                    (
                        e["who"]["name"].clone(),
                        e["who"]["role"].clone(),
                        e["who"]["you"].clone(),
                        e["what"].clone(),
                    )
                })
                .collect();
            assert_eq!(
                lines,
                [
                    (json!("Patient p1"), json!("patient"), json!(true), json!(["Patient"])),
                    (Value::Null, json!("device"), json!(false), json!(["Observation"])),
                    (
                        json!("Dr Test"),
                        json!("clinician"),
                        json!(false),
                        json!(["Condition", "Encounter"])
                    ),
                    (
                        json!("Dr Test"),
                        json!("clinician"),
                        json!(false),
                        json!(["Observation"])
                    ),
                ]
            );
            assert!(!log.to_string().contains("p2"));
            let (_, first) = get("/me/access-log?limit=2", patients[1].1.clone()).await;
            assert_eq!(
                (first["entries"].as_array().unwrap().len(), &first["next"]),
                (1, &Value::Null),
                "{first}"
            );
            // The clinic's people have no record here; neither do strangers.
            let dr = identity.issue_token(w.north.id, doctor.id, 3_600_000, "test").await?;
            let (status, body) = get("/me/access-log", dr.clone()).await;
            assert_eq!(
                (status, &body["code"]),
                (StatusCode::FORBIDDEN, &json!("identity.no_record"))
            );
            assert_eq!(
                call(&app, "GET", "north.localhost", "/me/access-log", None, None)
                    .await
                    .0,
                StatusCode::UNAUTHORIZED
            );
            assert_eq!(
                call(
                    &app,
                    "GET",
                    "south.localhost",
                    "/me/access-log",
                    Some(&patients[0].1),
                    None
                )
                .await
                .0,
                StatusCode::UNAUTHORIZED
            );
            // Names of subjects are for administrators.
            let path = format!(
                "/names?of={},user:0190a000-0000-7000-8000-000000000001,device:d1",
                doctor.subject()
            );
            for token in [&dr, &patients[0].1] {
                assert_eq!(
                    call(&app, "GET", "north.localhost", &path, Some(token), None).await.0,
                    StatusCode::FORBIDDEN
                );
            }
            let (_, admin) = w
                .sign_in(&w.north, "user:0190a000-0000-7000-8000-000000000009", Role::Admin)
                .await?;
            let (_, names) = call(&app, "GET", "north.localhost", &path, Some(&admin), None).await;
            assert_eq!(
                names["people"],
                json!({doctor.subject(): {"name": "Dr Test", "roles": ["clinician"]}})
            );
            let (_, elsewhere) = w
                .sign_in(&w.south, "user:0190a000-0000-7000-8000-000000000008", Role::Admin)
                .await?;
            let (_, names) = call(&app, "GET", "south.localhost", &path, Some(&elsewhere), None).await;
            assert_eq!(names["people"], json!({}));
            Ok(())
        })
    })
    .await;
}
