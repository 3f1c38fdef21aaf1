//! What stands once somebody is in: their sessions, what they sign in with, and everybody at once.

use super::*;

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
