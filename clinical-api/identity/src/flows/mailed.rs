//! Links by mail, and the forgotten password.

use super::*;

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
