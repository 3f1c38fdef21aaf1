//! `prompt=none`, and the hints about who is meant (OpenID Connect Core, 3.1.2.1).

use super::kit::{Answer, Kit, Pairs, TABLES, public, query};
use crate::oauth::{DAY, HOUR, MINUTE, OFFLINE, SECOND};
use axum::body::Body;
use http::{Request, StatusCode};
use medtech_kernel::{auth::Role, testkit::on_both_engines};
use serde_json::Value;

fn with(pairs: &Pairs<'static>, more: &[(&'static str, &str)]) -> Pairs<'static> {
    let mut all: Pairs<'static> = pairs
        .iter()
        .filter(|(n, _)| more.iter().all(|(m, _)| m != n))
        .cloned()
        .collect();
    all.extend(more.iter().map(|(n, v)| (*n, (*v).to_owned())));
    all
}

/// What the page of the web client gets, by whoever is signed in there.
async fn silently(kit: &Kit<'_>, token: Option<&str>, pairs: &Pairs<'static>) -> Result<Answer, String> {
    let to = kit.authorize(&with(pairs, &[("prompt", "none")])).await;
    let handle = to
        .location()
        .strip_prefix("/app/authorize/silent?request=")
        .ok_or_else(|| to.location().to_owned())?;
    let path = format!("/api/identity/authorizations/{handle}/silent");
    Ok(match token {
        Some(token) => kit.api("POST", &path, token, None).await,
        None => {
            let request = Request::builder()
                .method("POST")
                .uri(path)
                .header("host", super::kit::HOST);
            kit.send(request.body(Body::empty()).unwrap()).await
        }
    })
}

async fn error(kit: &Kit<'_>, token: Option<&str>, pairs: &Pairs<'static>) -> String {
    let answer = silently(kit, token, pairs).await.expect("a page");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let back = query(&answer.get("redirect"));
    assert_eq!(back["state"], "the state");
    assert_eq!(back["iss"], super::kit::ISSUER);
    assert!(back.contains_key("error") != back.contains_key("code"));
    back.get("error").cloned().unwrap_or_default()
}

#[tokio::test]
async fn without_a_screen_a_code_or_what_is_missing() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let (client, other) = (kit.public().await, kit.public().await);
            let (good, doctor) = (kit.asks(&client), Some(kit.doctor.as_str()));
            assert_eq!(error(&kit, None, &good).await, "login_required");
            assert_eq!(error(&kit, Some("mt_1_x"), &good).await, "login_required");
            assert_eq!(error(&kit, doctor, &good).await, "consent_required");
            let first = kit.signed_in(&client).await;
            assert_eq!(
                error(&kit, Some(&first.get("access_token")), &good).await,
                "login_required",
                "an application is nobody"
            );
            let answer = silently(&kit, doctor, &good).await.expect("a page");
            let back = query(&answer.get("redirect"));
            let token = kit.form("/oauth2/token", &kit.redeems(&client, &back["code"])).await;
            assert_eq!(token.status, StatusCode::OK, "{}", token.text);
            assert_eq!(
                (token.get("patient"), token.get("scope")),
                (first.get("patient"), first.get("scope"))
            );
            // Allowed is what was allowed: by this user, this application, so much.
            assert_eq!(error(&kit, doctor, &kit.asks(&other)).await, "consent_required");
            assert_eq!(error(&kit, Some(&kit.admin), &good).await, "consent_required");
            assert_eq!(
                error(
                    &kit,
                    doctor,
                    &with(&good, &[("scope", "openid patient/*.rs user/Patient.rs")])
                )
                .await,
                "consent_required"
            );
            assert_eq!(
                error(
                    &kit,
                    doctor,
                    &with(&good, &[("scope", "openid patient/Observation.rs?category=laboratory")])
                )
                .await,
                ""
            );
            // How fresh.
            w.ctx.clock.advance(MINUTE);
            assert_eq!(
                error(&kit, doctor, &with(&good, &[("max_age", "30")])).await,
                "login_required"
            );
            assert_eq!(
                error(&kit, doctor, &with(&good, &[("max_age", "0")])).await,
                "login_required"
            );
            assert_eq!(error(&kit, doctor, &with(&good, &[("max_age", "90")])).await, "");
            // Who is meant.
            let (_, colleague) = kit.person(&w.north, "dr2@north.example", Role::Clinician).await?;
            let hint = first.get("id_token");
            assert_eq!(error(&kit, doctor, &with(&good, &[("id_token_hint", &hint)])).await, "");
            assert_eq!(
                error(&kit, Some(&colleague), &with(&good, &[("id_token_hint", &hint)])).await,
                "login_required"
            );
            assert_eq!(
                error(&kit, doctor, &with(&good, &[("login_hint", "DR@north.example")])).await,
                ""
            );
            assert_eq!(
                error(&kit, doctor, &with(&good, &[("login_hint", "dr2@north.example")])).await,
                "login_required"
            );
            let foreign = kit
                .authorize(&with(
                    &kit.asks(&other),
                    &[("id_token_hint", &hint), ("prompt", "none")],
                ))
                .await;
            assert_eq!(
                query(foreign.location())["error"],
                "invalid_request",
                "a hint for another application"
            );
            for broken in [format!("{hint}x"), "a.b.c".to_owned()] {
                let to = silently(&kit, doctor, &with(&good, &[("id_token_hint", &broken)]))
                    .await
                    .err()
                    .expect("refused");
                assert_eq!(query(&to)["error"], "invalid_request");
            }
            let two = kit.authorize(&with(&good, &[("prompt", "none login")])).await;
            assert_eq!(query(two.location())["error"], "invalid_request");
            // Taken back, it is no longer allowed.
            kit.api("DELETE", &format!("/api/identity/me/apps/{client}"), &kit.doctor, None)
                .await;
            assert_eq!(error(&kit, doctor, &good).await, "consent_required");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn asking_silently_moves_no_end() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.public().await;
            let (good, doctor) = (kit.asks(&client), Some(kit.doctor.as_str()));
            kit.signed_in(&client).await;
            for _ in 0..12 {
                w.ctx.clock.advance(30 * DAY);
                assert_eq!(error(&kit, doctor, &good).await, "");
            }
            w.ctx.clock.advance(OFFLINE - 360 * DAY);
            assert_eq!(
                error(&kit, doctor, &good).await,
                "consent_required",
                "asked again after a year"
            );
            // What was to last no longer than the sitting is allowed in that sitting alone.
            let brief = with(&good, &[("scope", "openid launch/patient patient/*.rs")]);
            let request = kit.request(&brief).await;
            kit.allow(&request).await;
            assert_eq!(error(&kit, doctor, &brief).await, "");
            let user = crate::store::by_id(&w.ctx.db, w.north.id, kit.doctor_id)
                .await?
                .expect("the doctor");
            let elsewhere = kit.session(&w.north, &user).await?;
            assert_eq!(error(&kit, Some(&elsewhere), &brief).await, "consent_required");
            w.ctx.clock.advance(HOUR + MINUTE);
            assert_eq!(error(&kit, doctor, &brief).await, "consent_required");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_request_answers_in_its_own_way_only() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.register(public()).await.0;
            kit.signed_in(&client).await;
            // One that asks for a screen is not answered without one.
            for prompt in ["consent", "login", "login consent"] {
                let request = kit.request(&with(&kit.asks(&client), &[("prompt", prompt)])).await;
                let silent = kit
                    .api(
                        "POST",
                        &format!("/api/identity/authorizations/{request}/silent"),
                        &kit.doctor,
                        None,
                    )
                    .await;
                assert_eq!(silent.status, StatusCode::NOT_FOUND, "{prompt}");
            }
            // prompt=login: by a proof from before, no.
            w.ctx.clock.advance(SECOND);
            let request = kit.request(&with(&kit.asks(&client), &[("prompt", "login")])).await;
            let yes = serde_json::json!({"allow": true, "scopes": ["patient/*.rs"], "patient": "p1"});
            assert_eq!(
                kit.decide(&kit.doctor, &request, yes.clone()).await.get("code"),
                "auth.step_up"
            );
            // A hint at another user closes the screen to this one.
            let hint = kit.signed_in(&client).await.get("id_token");
            let (_, colleague) = kit.person(&w.north, "dr2@north.example", Role::Clinician).await?;
            let request = kit
                .request(&with(&kit.asks(&client), &[("id_token_hint", &hint)]))
                .await;
            assert_eq!(
                kit.decide(&colleague, &request, yes).await.get("code"),
                "oauth.other_user"
            );
            let shown = kit
                .api(
                    "GET",
                    &format!("/api/identity/authorizations/{request}"),
                    &kit.doctor,
                    None,
                )
                .await;
            assert_eq!(shown.status, StatusCode::OK);
            // How long is said: an access token, and all of it.
            assert_eq!(shown.json["expires_in"], Value::from(3600));
            assert_eq!(shown.json["lasts"], Value::from(OFFLINE / 1000));
            // auth_time is when the user proved themselves, not when the token was made.
            let proved = w.ctx.sessions.verify(w.north.id, &kit.doctor).await?.proved_at;
            let token = kit.signed_in(&client).await.get("id_token");
            let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(&token).expect("claims");
            assert_eq!(claims["auth_time"].as_i64(), Some(proved / 1000));
            // The address that is meant stands where no server sees it.
            let to = kit
                .authorize(&with(&kit.asks(&client), &[("login_hint", "dr@north.example")]))
                .await;
            let (before, after) = to.location().split_once('#').expect("a fragment");
            assert!(
                !before.contains("north.example") && after == "login_hint=dr%40north.example",
                "{}",
                to.location()
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn asking_again_and_again_adds_no_grants() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.public().await;
            let grants = async || -> medtech_kernel::Result<i64> {
                let sql = "SELECT COUNT(*) FROM oauth_grant WHERE tenant = $1";
                w.ctx.db.query_one(w.north.id, sql, &[]).await?.i64(0)
            };
            let brief = with(&kit.asks(&client), &[("scope", "openid launch/patient patient/*.rs")]);
            let again = async |pairs: &Pairs<'static>| {
                let answer = silently(&kit, Some(&kit.doctor), pairs).await.expect("a page");
                let code = query(&answer.get("redirect"))["code"].clone();
                let answer = kit.form("/oauth2/token", &kit.redeems(&client, &code)).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
                answer
            };
            let first = kit.signed_in(&client).await;
            assert_eq!(grants().await?, 1);
            for _ in 0..3 {
                w.ctx.clock.advance(MINUTE);
                let answer = again(&kit.asks(&client)).await;
                assert_eq!(answer.get("patient"), first.get("patient"));
            }
            assert_eq!(grants().await?, 1, "the one that was allowed on the screen");
            // Fewer scopes are another grant; what does not last goes on for as long as it is asked for, as before.
            for _ in 0..4 {
                w.ctx.clock.advance(50 * MINUTE);
                let answer = again(&brief).await;
                assert_eq!(
                    answer.json["expires_in"],
                    HOUR / SECOND,
                    "not cut short by the one before"
                );
            }
            assert_eq!(grants().await?, 2);
            // Another proof of who is here, or another key, is another grant.
            let jkt = "k".repeat(43);
            let bound = with(&kit.asks(&client), &[("dpop_jkt", &jkt)]);
            for _ in 0..2 {
                assert_eq!(error(&kit, Some(&kit.doctor), &bound).await, "");
            }
            assert_eq!(grants().await?, 3);
            let who = w.ctx.sessions.verify(w.north.id, &kit.doctor).await?;
            let (sessions, proved) = (w.ctx.sessions.clone(), who.proved_at - SECOND);
            let proves = w.ctx.db.write(w.north.id, move |tx| {
                Box::pin(async move { sessions.proved_at(tx, who.session, proved).await })
            });
            proves.await?;
            let answer = again(&kit.asks(&client)).await;
            let id: Value = jsonwebtoken::dangerous::insecure_decode_claims(answer.get("id_token")).expect("claims");
            assert_eq!(id["auth_time"], proved / 1000);
            assert_eq!(grants().await?, 4);
            Ok(())
        })
    })
    .await;
}
