//! Tests of the ways in, through the real doors: second step, recovery, links by mail, sessions, proving oneself again.

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

#[tokio::test]
async fn a_mailed_link_opens_once_in_the_browser_that_asked() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            w.ctx.bus.register("identity", Identity::consumes());
            w.ctx.bus.register("mail", &["account.mail"]);
            identity
                .create_user(w.north.id, patient("p@north.example", "p1"))
                .await?;
            let staff = identity.create_user(w.north.id, clinician("dr@north.example")).await?;
            let both = NewUser {
                roles: vec![Role::Patient, Role::Admin],
                ..patient("both@north.example", "p2")
            };
            identity.create_user(w.north.id, both).await?;
            let browser = id::token();

            // Known, unknown and staff leave the request in the same way: nobody is looked up before the answer.
            for email in ["p@north.example", "nobody@north.example", "dr@north.example"] {
                let body = json!({"email": email, "browser": browser});
                assert_eq!(post(&app, "/links/request", None, body).await, (202, Value::Null));
                let left = taken(w, "identity").await?;
                assert_eq!(left.len(), 1);
                assert_eq!(left[0].1["origin"], "http://north.localhost");
                assert!(
                    !left[0].1.to_string().contains(&browser),
                    "only a hash of the browser's secret is kept"
                );
            }
            assert_eq!(
                mailed(w, &identity, &app, "nobody@north.example", &browser).await?,
                Vec::<Value>::new()
            );
            let mails = mailed(w, &identity, &app, "dr@north.example", &browser).await?;
            assert_eq!(
                (&mails[0]["letter"], mails[0].get("path")),
                (&json!("sign_in_link_refused"), None)
            );
            // A request that calls itself by another name does not get that name into a mail.
            let poisoned = json!({"email": "p@north.example", "browser": browser});
            let (status, _) = call(&app, "POST", "evil.example", "/links/request", None, Some(poisoned)).await;
            assert_eq!(status, StatusCode::ACCEPTED);
            assert_eq!(taken(w, "identity").await?[0].1["origin"], Value::Null);

            let mails = mailed(w, &identity, &app, "P@north.example ", &browser).await?;
            let link = link_of(&mails[0]);
            // Mail scanners follow links: there is nothing to follow by GET.
            let (status, _) = call(&app, "GET", NORTH, "/links/exchange", None, None).await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
            for other in [None, Some(id::token())] {
                let (status, body) = post(&app, "/links/exchange", None, json!({"link": link, "browser": other})).await;
                assert_eq!(
                    (status, &body["code"]),
                    (403, &json!("link.other_browser")),
                    "forwarded"
                );
            }
            let open =
                async |link: &str| post(&app, "/links/exchange", None, json!({"link": link, "browser": browser})).await;
            let (one, two) = tokio::join!(open(&link), open(&link));
            let mut statuses = [one.0, two.0];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 410]);
            let opened = if one.0 == 200 { one.1 } else { two.1 };
            assert_eq!(
                (&opened["assurance"], &opened["user"]["roles"]),
                (&json!("one"), &json!(["patient"]))
            );
            assert_eq!(open(&link).await.1["code"], "link.used");
            // A mailbox opens the patient's door only, also of someone who has others.
            let mails = mailed(w, &identity, &app, "both@north.example", &browser).await?;
            let (_, opened) = open(&link_of(&mails[0])).await;
            assert_eq!(opened["user"]["roles"], json!(["patient"]));
            let who = w
                .ctx
                .sessions
                .verify(w.north.id, opened["access_token"].as_str().unwrap())
                .await?;
            assert_eq!(who.roles, [Role::Patient]);
            let mails = mailed(w, &identity, &app, "p@north.example", &browser).await?;
            w.ctx.clock.advance(10 * 60_000);
            assert_eq!(open(&link_of(&mails[0])).await.1["code"], "link.expired");
            // Six within a quarter of an hour: the sixth is answered alike and sends nothing.
            w.ctx.clock.advance(WINDOW);
            for sent in [1, 1, 1, 1, 1, 0] {
                assert_eq!(
                    mailed(w, &identity, &app, "p@north.example", &browser).await?.len(),
                    sent
                );
            }
            // An operator's link is bound to no browser.
            let link = identity.issue_link(w.north.id, staff.id, 60_000, 1).await?;
            assert_eq!(post(&app, "/links/exchange", None, json!({"link": link})).await.0, 200);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn where_the_clinic_asks_a_link_alone_is_not_enough() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let identity = Arc::new(Identity::new(w.ctx.clone()).with_birth_dates(Arc::new(Born)));
            let app = identity.clone().routes().layer(axum::Extension(w.ctx.clone()));
            w.ctx.bus.register("identity", Identity::consumes());
            w.ctx.bus.register("mail", &["account.mail"]);
            identity
                .create_user(w.north.id, patient("p@north.example", "p1"))
                .await?;
            let browser = id::token();
            let open = async |link: &str, born: Option<&str>| {
                let body = json!({"link": link, "browser": browser, "birth_date": born});
                let (status, body) = post(&app, "/links/exchange", None, body).await;
                (status, body["code"].as_str().unwrap_or_default().to_owned())
            };
            let mails = mailed(w, &identity, &app, "p@north.example", &browser).await?;
            let link = link_of(&mails[0]);
            assert_eq!(open(&link, None).await, (403, "link.birth_date".into()));
            assert_eq!(
                open(&link, Some("1980-03-01")).await,
                (403, "link.birth_date_wrong".into())
            );
            assert_eq!(open(&link, Some("1980-02-29")).await.0, 200);
            let mails = mailed(w, &identity, &app, "p@north.example", &browser).await?;
            let link = link_of(&mails[0]);
            for _ in 0..5 {
                assert_eq!(open(&link, Some("1980-03-01")).await.1, "link.birth_date_wrong");
            }
            assert_eq!(
                open(&link, Some("1980-02-29")).await,
                (410, "link.used".into()),
                "five tries"
            );
            let mut settings = (*w.north.settings).clone();
            settings.link_birth_date = false;
            w.ctx.tenants.set_settings(w.north.id, &settings).await?;
            let mails = mailed(w, &identity, &app, "p@north.example", &browser).await?;
            assert_eq!(open(&link_of(&mails[0]), None).await.0, 200, "the clinic has chosen so");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_forgotten_password_is_replaced_by_mail_and_the_second_factor_stays() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            w.ctx.bus.register("identity", Identity::consumes());
            w.ctx.bus.register("mail", &["account.mail"]);
            let (identity, app) = door(w);
            identity.create_user(w.north.id, clinician("a@north.example")).await?;
            let (token, secret) = with_codes(w, &app, "a@north.example").await;
            let keyless = NewUser {
                password: None,
                ..clinician("key@north.example")
            };
            identity.create_user(w.north.id, keyless).await?;
            taken(w, "mail").await?;
            let browser = id::token();
            let forgotten = async |email: &str| -> Result<Vec<Value>> {
                let asked = json!({"email": email, "browser": browser});
                let (status, body) = post(&app, "/password/forgotten", None, asked).await;
                assert_eq!((status, body), (202, Value::Null), "known or not");
                for (kind, body) in taken(w, "identity").await? {
                    let event = Event::new(&w.ctx.clock, w.north.id, kind, "link", &body)?;
                    identity.on_event(event).await?;
                }
                Ok(taken(w, "mail").await?.into_iter().map(|(_, body)| body).collect())
            };
            assert!(forgotten("nobody@north.example").await?.is_empty());
            let mails = forgotten("key@north.example").await?;
            assert_eq!(
                (&mails[0]["letter"], mails[0].get("path")),
                (&json!("sign_in_link_refused"), None)
            );
            let mails = forgotten("a@north.example").await?;
            assert_eq!(mails[0]["letter"], "password_reset");
            let link = link_of(&mails[0]);
            // It is no way in, and nothing in another browser or for another clinic.
            let (status, body) = post(&app, "/links/exchange", None, json!({"link": link, "browser": browser})).await;
            assert_eq!((status, &body["code"]), (403, &json!("link.reset")));
            let good = "a kite over the harbour";
            let reset = async |host: &str, body: Value| {
                let (status, body) = call(&app, "POST", host, "/password/reset", None, Some(body)).await;
                (status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
            };
            let with = |new: &str, browser: Option<&str>| json!({"link": link, "browser": browser, "new": new});
            assert_eq!(reset(NORTH, with(good, None)).await, (403, "link.other_browser".into()));
            assert_eq!(
                reset("south.localhost", with(good, Some(&browser))).await,
                (403, "link.unknown".into())
            );
            assert_eq!(
                reset(NORTH, with("Password1234", Some(&browser))).await,
                (422, "identity.password_weak".into())
            );
            let operators = identity
                .issue_link(
                    w.north.id,
                    identity.find_by_email(w.north.id, "a@north.example").await?.unwrap().id,
                    60_000,
                    1,
                )
                .await?;
            assert_eq!(
                reset(NORTH, json!({"link": operators, "browser": browser, "new": good})).await,
                (403, "link.unknown".into()),
                "a link of another kind"
            );
            assert_eq!(reset(NORTH, with(good, Some(&browser))).await.0, 204);
            assert_eq!(
                reset(NORTH, with("another long sentence", Some(&browser))).await,
                (410, "link.used".into())
            );
            // Sessions are over, the old password too; the new one is a first step, and the code is asked for as ever.
            assert_eq!(call(&app, "GET", NORTH, "/me", Some(&token), None).await.0, 401);
            assert_eq!(password(&app, "a@north.example").await.0, 401);
            let (status, asked) = post(
                &app,
                "/sign-in",
                None,
                json!({"email": "a@north.example", "password": good}),
            )
            .await;
            assert_eq!((status, asked.get("access_token")), (200, None), "{asked}");
            w.ctx.clock.advance(30_000);
            let body = json!({"ticket": asked["second_factor"]["ticket"], "totp": shown(w, &secret)});
            assert_eq!(post(&app, "/sign-in/second", None, body).await.0, 200);
            let told = taken(w, "mail").await?;
            assert_eq!(told.last().unwrap().1["letter"], "security_changed");
            // A link lives ten minutes.
            let late = link_of(&forgotten("a@north.example").await?[0]);
            w.ctx.clock.advance(10 * 60_000);
            let body = json!({"link": late, "browser": browser, "new": "another long sentence"});
            assert_eq!(reset(NORTH, body).await, (403, "link.expired".into()));
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_mailbox_alone_replaces_no_password_but_a_patients_who_says_their_date_of_birth() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let identity = Arc::new(Identity::new(w.ctx.clone()).with_birth_dates(Arc::new(Born)));
            let app = identity.clone().routes().layer(axum::Extension(w.ctx.clone()));
            w.ctx.bus.register("identity", Identity::consumes());
            w.ctx.bus.register("mail", &["account.mail"]);
            let p = identity
                .create_user(w.north.id, patient("p@north.example", "p1"))
                .await?;
            let both = NewUser {
                roles: vec![Role::Patient, Role::Admin],
                ..patient("both@north.example", "p1")
            };
            identity.create_user(w.north.id, both).await?;
            identity.create_user(w.north.id, clinician("dr@north.example")).await?;
            let browser = id::token();
            let forgotten = async |email: &str| -> Result<String> {
                let asked = json!({"email": email, "browser": browser});
                assert_eq!(post(&app, "/password/forgotten", None, asked).await.0, 202);
                for (kind, body) in taken(w, "identity").await? {
                    let event = Event::new(&w.ctx.clock, w.north.id, kind, "link", &body)?;
                    identity.on_event(event).await?;
                }
                Ok(link_of(&taken(w, "mail").await?.last().unwrap().1))
            };
            let reset = async |link: &str, new: &str, born: Option<&str>| {
                let body = json!({"link": link, "browser": browser, "new": new, "birth_date": born});
                let (status, body) = post(&app, "/password/reset", None, body).await;
                (status, body["code"].as_str().unwrap_or_default().to_owned())
            };
            let good = "a kite over the harbour";
            // Whose second factor would not be asked for afterwards is helped by a person, whatever is said of a birth.
            for email in ["both@north.example", "dr@north.example"] {
                let link = forgotten(email).await?;
                for born in [None, Some("1980-02-29")] {
                    assert_eq!(
                        reset(&link, good, born).await,
                        (403, "password.ask_administrator".into()),
                        "{email}"
                    );
                }
                assert_eq!(password(&app, email).await.0, 200, "the old one stands");
            }
            let (older, link) = (forgotten("p@north.example").await?, forgotten("p@north.example").await?);
            let opens = mailed(w, &identity, &app, "p@north.example", &browser).await?;
            let operators = identity.issue_link(w.north.id, p.id, 60_000, 1).await?;
            assert_eq!(reset(&link, good, None).await, (403, "link.birth_date".into()));
            for _ in 0..6 {
                // A right date of birth with a password that is refused uses up no try.
                assert_eq!(
                    reset(&link, "Password1234", Some("1980-02-29")).await,
                    (422, "identity.password_weak".into())
                );
            }
            for _ in 0..5 {
                assert_eq!(
                    reset(&older, good, Some("1980-03-01")).await,
                    (403, "link.birth_date_wrong".into())
                );
            }
            assert_eq!(
                reset(&older, good, Some("1980-02-29")).await,
                (410, "link.used".into()),
                "five tries"
            );
            assert_eq!(password(&app, "p@north.example").await.0, 200, "the old one stands");
            let other = forgotten("p@north.example").await?;
            assert_eq!(reset(&link, good, Some("1980-02-29")).await, (204, String::new()));
            // Whatever was mailed before opens nothing any more.
            assert_eq!(
                reset(&other, "another long sentence", Some("1980-02-29")).await,
                (410, "link.used".into())
            );
            let body = json!({"link": link_of(&opens[0]), "browser": browser, "birth_date": "1980-02-29"});
            assert_eq!(post(&app, "/links/exchange", None, body).await.0, 410);
            let body = json!({"link": operators});
            assert_eq!(post(&app, "/links/exchange", None, body).await.0, 410);
            assert_eq!(password(&app, "p@north.example").await.0, 401);
            // Where the clinic does not ask for it, it is not asked for here either.
            w.ctx.clock.advance(WINDOW);
            let mut settings = (*w.north.settings).clone();
            settings.link_birth_date = false;
            w.ctx.tenants.set_settings(w.north.id, &settings).await?;
            let link = forgotten("p@north.example").await?;
            assert_eq!(reset(&link, "another long sentence", None).await.0, 204);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn sessions_are_seen_and_ended_by_their_owner_only() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            for email in ["a@north.example", "b@north.example"] {
                identity.create_user(w.north.id, clinician(email)).await?;
            }
            let mut tokens = Vec::new();
            for email in [
                "a@north.example",
                "a@north.example",
                "a@north.example",
                "b@north.example",
            ] {
                let (_, body) = password(&app, email).await;
                tokens.push(body["access_token"].as_str().unwrap().to_owned());
                w.ctx.clock.advance(1000);
            }
            let list = async |token: &str| {
                call(&app, "GET", NORTH, "/sessions", Some(token), None).await.1["sessions"].clone()
            };
            let mine = list(&tokens[0]).await;
            let current: Vec<bool> = mine.as_array().unwrap().iter().map(|s| s["current"] == true).collect();
            assert_eq!(current, [false, false, true], "{mine}");
            let other = mine[0]["id"].as_str().unwrap();
            let path = format!("/sessions/{other}");
            // Someone else's and one that never was answer alike.
            let (_, theirs) = call(&app, "DELETE", NORTH, &path, Some(&tokens[3]), None).await;
            let (_, never) = call(
                &app,
                "DELETE",
                NORTH,
                "/sessions/0190a000-0000-7000-8000-000000000001",
                Some(&tokens[3]),
                None,
            )
            .await;
            assert_eq!(theirs["code"], "identity.session_unknown");
            assert_eq!(
                (&theirs["detail"], &theirs["status"]),
                (&never["detail"], &never["status"])
            );
            assert_eq!(
                call(&app, "DELETE", NORTH, &path, Some(&tokens[0]), None).await.0,
                StatusCode::NO_CONTENT
            );
            assert_eq!(
                call(&app, "GET", NORTH, "/me", Some(&tokens[2]), None).await.0,
                StatusCode::UNAUTHORIZED
            );
            let (_, ended) = post(&app, "/sessions/end-others", Some(&tokens[0]), json!({})).await;
            assert_eq!(ended["ended"], 1);
            assert_eq!(list(&tokens[0]).await.as_array().unwrap().len(), 1);
            assert_eq!(
                list(&tokens[3]).await.as_array().unwrap().len(),
                1,
                "others keep theirs"
            );
            // Another's end asks for a fresh proof; the own session can always be put away.
            w.ctx.clock.advance(FRESH + 1);
            call(&app, "GET", NORTH, "/me", Some(&tokens[0]), None).await;
            let (_, body) = password(&app, "a@north.example").await;
            let second = w
                .ctx
                .sessions
                .verify(w.north.id, body["access_token"].as_str().unwrap())
                .await?;
            let ends = [
                ("DELETE", format!("/sessions/{}", second.session)),
                ("POST", "/sessions/end-others".into()),
            ];
            for (method, path) in &ends {
                let (status, refused) = call(&app, method, NORTH, path, Some(&tokens[0]), Some(json!({}))).await;
                assert_eq!(
                    (status, &refused["code"]),
                    (StatusCode::FORBIDDEN, &json!("auth.step_up")),
                    "{path}"
                );
            }
            let (_, proved) = post(
                &app,
                "/step-up/password",
                Some(&tokens[0]),
                json!({"password": PASSWORD}),
            )
            .await;
            tokens[0] = proved["access_token"].as_str().unwrap().to_owned();
            let (method, path) = &ends[0];
            assert_eq!(
                call(&app, method, NORTH, path, Some(&tokens[0]), None).await.0,
                StatusCode::NO_CONTENT
            );
            // Fifteen minutes of silence end it.
            w.ctx.clock.advance(15 * 60_000);
            let (status, body) = call(&app, "GET", NORTH, "/me", Some(&tokens[0]), None).await;
            assert_eq!(
                (status, &body["code"]),
                (StatusCode::UNAUTHORIZED, &json!("auth.token_expired"))
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn changing_credentials_asks_for_a_fresh_proof_of_the_right_kind() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            let user = identity.create_user(w.north.id, clinician("a@north.example")).await?;
            let mut settings = (*w.north.settings).clone();
            settings.idle_minutes = 720;
            w.ctx.tenants.set_settings(w.north.id, &settings).await?;
            let (_, first) = password(&app, "a@north.example").await;
            let mut weak = first["access_token"].as_str().unwrap().to_owned();
            w.ctx.clock.advance(FRESH + 1);
            for path in ["/totp/start", "/passkeys/register/start", "/recovery"] {
                let (status, body) = post(&app, path, Some(&weak), json!({})).await;
                assert_eq!((status, &body["code"]), (403, &json!("auth.step_up")), "{path}");
            }
            let (status, body) = post(
                &app,
                "/step-up/password",
                Some(&weak),
                json!({"password": "not this one"}),
            )
            .await;
            assert_eq!((status, &body["code"]), (422, &json!("identity.password_wrong")));
            let (status, proved) = post(&app, "/step-up/password", Some(&weak), json!({"password": PASSWORD})).await;
            assert_eq!((status, &proved["assurance"]), (200, &json!("one")), "{proved}");
            // The session goes on under a new token, and the old one opens nothing any more.
            let session = w
                .ctx
                .sessions
                .verify(w.north.id, proved["access_token"].as_str().unwrap())
                .await?
                .session;
            let old = std::mem::replace(&mut weak, proved["access_token"].as_str().unwrap().to_owned());
            assert_eq!(call(&app, "GET", NORTH, "/me", Some(&old), None).await.0, 401);
            let (_, sessions) = call(&app, "GET", NORTH, "/sessions", Some(&weak), None).await;
            assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1, "{sessions}");
            assert_eq!(sessions["sessions"][0]["id"], json!(session));
            assert_eq!(post(&app, "/totp/start", Some(&weak), json!({})).await.0, 200);

            // With a second factor, a password alone changes nothing any more: not in an old session, not as a step-up.
            let mut device = Authenticator::new(Signer::es256());
            let strong = identity.issue_token(w.north.id, user.id, 3_600_000, "test").await?;
            let (_, started) = post(&app, "/passkeys/register/start", Some(&strong), json!({})).await;
            let made = device.create(&started, "http://north.localhost", |_| {});
            let (status, passkey) = post(&app, "/passkeys/register/finish", Some(&strong), made).await;
            assert_eq!(status, 201);
            assert_eq!(
                post(&app, "/totp/start", Some(&weak), json!({})).await.1["code"],
                "auth.step_up"
            );
            let (_, security) = call(&app, "GET", NORTH, "/me/security", Some(&weak), None).await;
            assert_eq!(security["step_up"], json!(["passkey"]));
            let (status, body) = post(&app, "/step-up/password", Some(&weak), json!({"password": PASSWORD})).await;
            assert_eq!((status, &body["code"]), (403, &json!("identity.step_up_method")));
            let (_, started) = post(&app, "/step-up/passkey/start", Some(&weak), json!({})).await;
            let proof = device.get(&started, "http://north.localhost", |_| {});
            let (status, proved) = post(&app, "/step-up/passkey", Some(&weak), proof).await;
            assert_eq!((status, &proved["assurance"]), (200, &json!("two")), "{proved}");
            let weak = proved["access_token"].as_str().unwrap().to_owned();
            assert_eq!(post(&app, "/totp/start", Some(&weak), json!({})).await.0, 200);

            // The passkey as a second step after the password.
            let (_, asked) = password(&app, "a@north.example").await;
            let ticket = &asked["second_factor"]["ticket"];
            let (_, started) = post(&app, "/sign-in/second/passkey", None, json!({"ticket": ticket})).await;
            let proof = device.get(&started, "http://north.localhost", |_| {});
            let body = json!({"ticket": ticket, "passkey": proof});
            let (status, opened) = post(&app, "/sign-in/second", None, body).await;
            assert_eq!((status, &opened["assurance"]), (200, &json!("two")), "{opened}");

            // A new password ends the other sessions, and is not a guessable one.
            let (status, body) = post(
                &app,
                "/me/password",
                Some(&strong),
                json!({"current": PASSWORD, "new": "Password1234"}),
            )
            .await;
            assert_eq!((status, &body["code"]), (422, &json!("identity.password_weak")));
            let good = "a kite over the harbour";
            let (status, _) = post(
                &app,
                "/me/password",
                Some(&strong),
                json!({"current": "wrong", "new": good}),
            )
            .await;
            assert_eq!(status, 422);
            assert_eq!(
                post(
                    &app,
                    "/me/password",
                    Some(&strong),
                    json!({"current": PASSWORD, "new": good})
                )
                .await
                .0,
                204
            );
            assert_eq!(
                call(&app, "GET", NORTH, "/me", Some(&weak), None).await.0,
                StatusCode::UNAUTHORIZED
            );
            assert_eq!(
                call(&app, "GET", NORTH, "/me", Some(&strong), None).await.0,
                StatusCode::OK
            );
            assert_eq!(password(&app, "a@north.example").await.0, 401);
            // What is left to sign in with is not taken away; another's passkey is not known.
            let path = format!("/passkeys/{}", passkey["id"].as_str().unwrap());
            let body = json!({"name": "Phone"});
            let (_, stranger) = w
                .sign_in(&w.north, "user:0190a000-0000-7000-8000-000000000009", Role::Admin)
                .await?;
            for method in ["DELETE", "PATCH"] {
                let (status, _) = call(&app, method, NORTH, &path, Some(&stranger), Some(body.clone())).await;
                assert_eq!(status, StatusCode::NOT_FOUND, "{method}");
            }
            assert_eq!(
                call(&app, "PATCH", NORTH, &path, Some(&strong), Some(body)).await.0,
                StatusCode::NO_CONTENT
            );
            assert_eq!(
                call(&app, "DELETE", NORTH, &path, Some(&strong), None).await.0,
                StatusCode::NO_CONTENT
            );
            // Applications that act for a person never touch what the person signs in with.
            let sessions = w.ctx.sessions.clone();
            let app_token = w
                .ctx
                .db
                .write(w.north.id, move |tx| {
                    Box::pin(async move {
                        let grant = medtech_kernel::auth::Grant {
                            client: Some("app".into()),
                            ..Assurance::Two.into()
                        };
                        let new = NewSession {
                            subject: user.subject(),
                            name: user.name.clone(),
                            roles: user.roles.clone(),
                            ttl_ms: 60_000,
                            note: String::new(),
                            grant,
                            idle_ms: None,
                        };
                        sessions.issue(tx, new).await.map(|(token, _)| token)
                    })
                })
                .await?;
            for path in [
                "/totp/start",
                "/recovery",
                "/passkeys/register/start",
                "/sessions/end-others",
            ] {
                assert_eq!(post(&app, path, Some(&app_token), json!({})).await.0, 403, "{path}");
            }
            Ok(())
        })
    })
    .await;
}

/// While every hashing thread is held and sign-ins queue up behind them, other work goes on; then they are all answered.
#[tokio::test]
async fn a_storm_of_sign_ins_holds_up_nothing_else() {
    let world = World::sqlite(TABLES).await.unwrap();
    let w = &world;
    let (identity, app) = door(w);
    identity
        .create_user(w.north.id, clinician("a@north.example"))
        .await
        .unwrap();
    let held = identity.hasher.hold_all().await;
    let mut live = w.ctx.bus.attach_live().unwrap();
    let storm: Vec<_> = (0..64)
        .map(|n| {
            let app = app.clone();
            tokio::spawn(async move { password(&app, &format!("{n}@north.example")).await.0 })
        })
        .collect();
    while identity.hasher.queued() < 64 {
        tokio::task::yield_now().await;
    }
    // One thread serves this test: a hash on it would have held up what follows until after the hash.
    for n in 0..100 {
        let event = Event::new(&w.ctx.clock, w.north.id, "ping", "k", &n).unwrap();
        w.ctx.bus.publish(event);
        assert_eq!(live.recv().await.unwrap().parse::<i32>().unwrap(), n);
    }
    assert!(storm.iter().all(|s| !s.is_finished()), "no sign-in was answered yet");
    drop(held);
    for one in storm {
        assert_eq!(one.await.unwrap(), 401);
    }
}
