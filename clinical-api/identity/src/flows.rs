//! Tests of the ways in, through the real doors: second step, recovery, links by mail, sessions, proving oneself again.

mod mailed;
mod standing;

use super::*;
use crate::{
    guesses::WINDOW,
    passkeys::authenticator::{Authenticator, Signer},
    tests::{PASSWORD, TABLES, call, clinician, door},
};
use ::http::StatusCode;
use medtech_kernel::{
    BoxFuture,
    auth::FRESH,
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

const NORTH: &str = "north.localhost";

pub(crate) async fn post(app: &Router, path: &str, token: Option<&str>, body: Value) -> (u16, Value) {
    let (status, body) = call(app, "POST", NORTH, path, token, Some(body)).await;
    (status.as_u16(), body)
}

/// What an authenticator app shows at the world's time.
fn shown(w: &World, secret: &str) -> String {
    let totp = Builder::new()
        .with_secret(Secret::try_from_base32(secret).unwrap())
        .build()
        .unwrap();
    totp.generate(u64::try_from(w.ctx.clock.now_ms()).unwrap() / 1000)
        .to_string()
}

async fn password(app: &Router, email: &str) -> (u16, Value) {
    post(app, "/sign-in", None, json!({"email": email, "password": PASSWORD})).await
}

/// Signs in by password and adds one-time codes: (token, secret).
pub(crate) async fn with_codes(w: &World, app: &Router, email: &str) -> (String, String) {
    let (_, first) = password(app, email).await;
    let token = first["access_token"].as_str().unwrap().to_owned();
    let (_, started) = post(app, "/totp/start", Some(&token), json!({})).await;
    let secret = started["secret"].as_str().unwrap().to_owned();
    assert!(started["uri"].as_str().unwrap().contains(&secret));
    let (status, _) = post(app, "/totp/confirm", Some(&token), json!({"code": shown(w, &secret)})).await;
    assert_eq!(status, 204);
    w.ctx.clock.advance(30_000);
    (token, secret)
}

#[tokio::test]
async fn a_code_is_asked_for_after_the_password_and_is_good_once() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            identity.create_user(w.north.id, clinician("a@north.example")).await?;
            let (token, secret) = with_codes(w, &app, "a@north.example").await;
            // Enrolling proved the second factor.
            let (_, me) = call(&app, "GET", NORTH, "/me", Some(&token), None).await;
            assert_eq!(
                (&me["session"]["assurance"], &me["session"]["idle_minutes"]),
                (&json!("two"), &json!(15))
            );
            let stored = w
                .ctx
                .db
                .query(w.north.id, "SELECT secret FROM identity_totp WHERE tenant = $1", &[])
                .await?;
            let raw = Secret::try_from_base32(&secret).unwrap();
            assert!(
                !stored[0].blob(0)?.windows(20).any(|part| part == raw.as_bytes()),
                "sealed at rest"
            );

            let (status, asked) = password(&app, "a@north.example").await;
            assert_eq!((status, asked.get("access_token")), (200, None), "{asked}");
            assert_eq!(asked["second_factor"]["methods"], json!(["totp"]));
            let ticket = &asked["second_factor"]["ticket"];
            let code = shown(w, &secret);
            let body = json!({"ticket": ticket, "totp": code});
            // Two servers on one database, the same ticket and code: one comes in.
            let second_server = Arc::new(Identity::new(
                w.another_server().await?.unwrap_or_else(|| w.ctx.clone()),
            ));
            let elsewhere = second_server
                .clone()
                .routes()
                .layer(axum::Extension(second_server.ctx.clone()));
            let (one, two) = tokio::join!(
                post(&app, "/sign-in/second", None, body.clone()),
                post(&elsewhere, "/sign-in/second", None, body.clone())
            );
            let mut statuses = [one.0, two.0];
            statuses.sort_unstable();
            assert_eq!(statuses[0], 200, "{one:?} {two:?}");
            assert!(statuses[1] == 401 || statuses[1] == 422, "{one:?} {two:?}");
            let opened = if one.0 == 200 { one.1 } else { two.1 };
            assert_eq!(opened["assurance"], "two");
            // The same code with a new ticket; the next code works.
            let (_, asked) = password(&app, "a@north.example").await;
            let ticket = asked["second_factor"]["ticket"].clone();
            let (status, body) = post(&app, "/sign-in/second", None, json!({"ticket": ticket, "totp": code})).await;
            assert_eq!((status, &body["code"]), (422, &json!("identity.code_wrong")));
            w.ctx.clock.advance(30_000);
            let again = json!({"ticket": ticket, "totp": shown(w, &secret)});
            assert_eq!(post(&app, "/sign-in/second", None, again.clone()).await.0, 200);
            assert_eq!(
                post(&app, "/sign-in/second", None, again).await.0,
                401,
                "a ticket signs in once"
            );
            // Tickets end, belong to their tenant, and stand five wrong codes.
            let (_, asked) = password(&app, "a@north.example").await;
            let ticket = asked["second_factor"]["ticket"].clone();
            let body = json!({"ticket": ticket, "totp": "000000"});
            let (status, _) = call(
                &app,
                "POST",
                "south.localhost",
                "/sign-in/second",
                None,
                Some(body.clone()),
            )
            .await;
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            for _ in 0..5 {
                assert_eq!(post(&app, "/sign-in/second", None, body.clone()).await.0, 422);
            }
            w.ctx.clock.advance(30_000);
            let right = json!({"ticket": ticket, "totp": shown(w, &secret)});
            assert_eq!(post(&app, "/sign-in/second", None, right).await.0, 401, "burned");
            let (_, asked) = password(&app, "a@north.example").await;
            w.ctx.clock.advance(5 * 60_000);
            let late = json!({"ticket": asked["second_factor"]["ticket"], "totp": shown(w, &secret)});
            assert_eq!(post(&app, "/sign-in/second", None, late).await.0, 401, "five minutes");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn wrong_codes_are_limited_over_all_tickets() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            identity.create_user(w.north.id, clinician("a@north.example")).await?;
            let (_, secret) = with_codes(w, &app, "a@north.example").await;
            let mut seen = Vec::new();
            for _ in 0..3 {
                let (_, asked) = password(&app, "a@north.example").await;
                for _ in 0..4 {
                    let body = json!({"ticket": asked["second_factor"]["ticket"], "totp": "000000"});
                    seen.push(post(&app, "/sign-in/second", None, body).await.0);
                }
            }
            assert_eq!(seen, [[422; 10].as_slice(), &[429, 429]].concat());
            let (_, asked) = password(&app, "a@north.example").await;
            let right = json!({"ticket": asked["second_factor"]["ticket"], "totp": shown(w, &secret)});
            assert_eq!(
                post(&app, "/sign-in/second", None, right).await.0,
                429,
                "the right one waits too"
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn recovery_codes_are_shown_once_and_good_once() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            identity.create_user(w.north.id, clinician("a@north.example")).await?;
            let (_, first) = password(&app, "a@north.example").await;
            let bare = first["access_token"].as_str().unwrap();
            let (status, body) = post(&app, "/recovery", Some(bare), json!({})).await;
            assert_eq!((status, &body["code"]), (409, &json!("identity.no_second_factor")));
            let (token, _) = with_codes(w, &app, "a@north.example").await;
            let (_, old) = post(&app, "/recovery", Some(&token), json!({})).await;
            let (_, made) = post(&app, "/recovery", Some(&token), json!({})).await;
            let codes = made["codes"].as_array().unwrap();
            assert_eq!(codes.len(), 10);
            let use_one = async |code: &Value| {
                let (_, asked) = password(&app, "a@north.example").await;
                assert_eq!(asked["second_factor"]["methods"], json!(["totp", "recovery"]));
                let body = json!({"ticket": asked["second_factor"]["ticket"], "recovery": code});
                let (status, body) = post(&app, "/sign-in/second", None, body).await;
                (status, body["assurance"].clone())
            };
            assert_eq!(
                use_one(&old["codes"][0]).await.0,
                422,
                "new codes make the old ones void"
            );
            let typed = codes[0].as_str().unwrap().to_uppercase().replace('-', " ");
            assert_eq!(use_one(&json!(typed)).await, (200, json!("two")));
            let before = identity.hasher.filled();
            assert_eq!(use_one(&codes[0]).await.0, 422, "used");
            let floor = cost::FLOOR.work();
            assert_eq!(
                identity.hasher.filled() - before,
                2 * floor,
                "a password, and one hash for ten codes"
            );
            let (_, security) = call(&app, "GET", NORTH, "/me/security", Some(&token), None).await;
            assert_eq!(security["recovery"], 9);
            let rows = w
                .ctx
                .db
                .query(
                    w.north.id,
                    "SELECT hash, salt FROM identity_recovery WHERE tenant = $1",
                    &[],
                )
                .await?;
            assert_eq!(rows.len(), 10);
            // Stretched as passwords are, under a salt of the set and a key that is not in the database.
            let pepper = identity.ctx.root.derive("identity recovery code 2", w.north.id);
            for code in codes {
                let plain = code.as_str().unwrap().replace('-', "");
                let salt = rows[0].blob(1)?;
                let hash = password::derive(&pepper, &plain, salt, cost::FLOOR)?;
                assert!(rows.iter().any(|r| r.blob(0).is_ok_and(|h| h == hash)), "{code}");
            }
            assert!(rows.iter().all(|r| r.blob(1).is_ok_and(|s| s.len() == 16)));
            Ok(())
        })
    })
    .await;
}

/// The events that were recorded for a group, with their bodies; they are taken.
pub(crate) async fn taken(w: &World, group: &'static str) -> Result<Vec<(String, Value)>> {
    let events = w.ctx.bus.waiting(w.north.id, group).await?;
    w.ctx
        .db
        .write(w.north.id, move |tx| {
            Box::pin(async move {
                tx.exec("DELETE FROM outbox WHERE tenant = $1 AND grp = $2", &[group.into()])
                    .await
            })
        })
        .await?;
    events.iter().map(|e| Ok((e.kind.to_string(), e.parse()?))).collect()
}

struct Born;

impl BirthDates for Born {
    fn birth_date<'a>(&'a self, _: TenantId, patient: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(async move { Ok((patient == "p1").then(|| "1980-02-29".to_owned())) })
    }
}

pub(crate) fn patient(email: &str, id: &str) -> NewUser {
    NewUser {
        roles: vec![Role::Patient],
        practitioner: None,
        patient: Some(id.into()),
        ..clinician(email)
    }
}

/// Asks for a link and answers what was mailed: the link, where there is one.
async fn mailed(w: &World, identity: &Identity, app: &Router, email: &str, browser: &str) -> Result<Vec<Value>> {
    let (status, body) = post(app, "/links/request", None, json!({"email": email, "browser": browser})).await;
    assert_eq!((status, body), (202, Value::Null));
    for (kind, body) in taken(w, "identity").await? {
        let event = Event::new(&w.ctx.clock, w.north.id, kind, "link", &body)?;
        identity.on_event(event).await?;
    }
    Ok(taken(w, "mail").await?.into_iter().map(|(_, body)| body).collect())
}

pub(crate) fn link_of(mail: &Value) -> String {
    mail["path"].as_str().unwrap().split_once('#').unwrap().1.to_owned()
}
