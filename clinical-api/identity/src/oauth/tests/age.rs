//! What ends by its age, by a sign-out, and by a user who may come in no more.

use super::kit::{HOST, Key, Kit, TABLES};
use crate::oauth::{DAY, OFFLINE, REFRESH};
use axum::body::Body;
use http::{Request, StatusCode};
use medtech_kernel::{
    auth::{Assurance, Role},
    testkit::on_both_engines,
};
use serde_json::{Value, json};

#[tokio::test]
async fn a_family_renewed_in_time_ends_after_a_year() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.public().await;
            let mut token = kit.signed_in(&client).await.get("refresh_token");
            let begun = w.ctx.clock.now_ms();
            let renew = async |token: &str| kit.form("/oauth2/token", &kit.refreshes(&client, token)).await;
            while w.ctx.clock.now_ms() + REFRESH / 2 < begun + OFFLINE {
                w.ctx.clock.advance(REFRESH / 2);
                let answer = renew(&token).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
                token = answer.get("refresh_token");
            }
            w.ctx.clock.advance(begun + OFFLINE - w.ctx.clock.now_ms() - 1);
            let last = renew(&token).await;
            assert_eq!(last.status, StatusCode::OK, "a moment before: {}", last.text);
            assert_eq!(
                last.json["expires_in"], 0,
                "an access token lives no longer than its family"
            );
            w.ctx.clock.advance(1);
            assert_eq!(renew(&last.get("refresh_token")).await.get("error"), "invalid_grant");
            assert!(!kit.is_good(&last.get("access_token")).await);
            // One that nobody renews is over long before.
            let idle = kit.signed_in(&client).await.get("refresh_token");
            w.ctx.clock.advance(REFRESH + DAY);
            assert_eq!(renew(&idle).await.get("error"), "invalid_grant");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_sign_out_needs_a_hint_that_is_ours() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.public().await;
            let signed = kit.signed_in(&client).await;
            let leave = async |query: String| {
                let request = Request::builder()
                    .uri(format!("/oauth2/logout{query}"))
                    .header("host", HOST);
                kit.send(request.body(Body::empty()).unwrap()).await
            };
            let encoded = |pairs: &[(&str, String)]| format!("?{}", super::kit::encoded(pairs));
            let good: Value = jsonwebtoken::dangerous::insecure_decode_claims(signed.get("id_token")).expect("claims");
            let forger = Key::ec();
            let forged = |header: Value| forger.sign(&header, &good);
            let kid = crate::oauth::jwt::header(&signed.get("id_token"))
                .expect("a header")
                .kid;
            let bad: [(&str, String); 9] = [
                ("no hint", String::new()),
                (
                    "no hint, with an address",
                    encoded(&[("post_logout_redirect_uri", "https://app.example/bye".into())]),
                ),
                ("no token", encoded(&[("id_token_hint", "x".into())])),
                (
                    "another key",
                    encoded(&[(
                        "id_token_hint",
                        forged(json!({"alg": "ES384", "kid": kid, "typ": "JWT"})),
                    )]),
                ),
                (
                    "no key",
                    encoded(&[(
                        "id_token_hint",
                        Key::None.sign(&json!({"alg": "none", "kid": kid, "typ": "JWT"}), &good),
                    )]),
                ),
                (
                    "a key of its own",
                    encoded(&[(
                        "id_token_hint",
                        forged(json!({"alg": "ES384", "kid": "mine", "typ": "JWT", "jwk": forger.jwk("mine")})),
                    )]),
                ),
                (
                    "altered",
                    encoded(&[("id_token_hint", format!("{}x", signed.get("id_token")))]),
                ),
                (
                    "an access token",
                    encoded(&[("id_token_hint", signed.get("access_token"))]),
                ),
                (
                    "another client",
                    encoded(&[("id_token_hint", signed.get("id_token")), ("client_id", "other".into())]),
                ),
            ];
            for (name, query) in bad {
                let answer = leave(query).await;
                assert_eq!(
                    (answer.status, answer.location()),
                    (StatusCode::BAD_REQUEST, ""),
                    "{name}"
                );
                assert!(
                    kit.is_good(&kit.doctor).await && kit.is_good(&signed.get("access_token")).await,
                    "{name}"
                );
            }
            let elsewhere = leave(encoded(&[
                ("id_token_hint", signed.get("id_token")),
                ("post_logout_redirect_uri", "https://evil.example/".into()),
            ]))
            .await;
            assert_eq!(elsewhere.status, StatusCode::BAD_REQUEST);
            assert!(kit.is_good(&kit.doctor).await);
            let done = leave(encoded(&[
                ("id_token_hint", signed.get("id_token")),
                ("post_logout_redirect_uri", "https://app.example/bye".into()),
                ("state", "s".into()),
            ]))
            .await;
            assert_eq!(done.location(), "https://app.example/bye?state=s");
            assert!(!kit.is_good(&kit.doctor).await && !kit.is_good(&signed.get("access_token")).await);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_locked_user_keeps_no_token_and_renews_none() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.public().await;
            let signed = kit.signed_in(&client).await;
            let code = kit.code(&client).await;
            let path = format!("/api/identity/users/{}/lock", kit.doctor_id);
            let locked = kit.api("POST", &path, &kit.admin, Some(json!({}))).await;
            assert!(locked.status.is_success(), "{}", locked.text);
            assert!(!kit.is_good(&signed.get("access_token")).await && !kit.is_good(&kit.doctor).await);
            let renewed = kit
                .form("/oauth2/token", &kit.refreshes(&client, &signed.get("refresh_token")))
                .await;
            assert_eq!(renewed.get("error"), "invalid_grant");
            let redeemed = kit.form("/oauth2/token", &kit.redeems(&client, &code)).await;
            assert_eq!(redeemed.get("error"), "invalid_grant");
            // Unlocked, it is not as if nothing had been.
            let open = kit
                .api(
                    "POST",
                    &format!("/api/identity/users/{}/unlock", kit.doctor_id),
                    &kit.admin,
                    Some(json!({})),
                )
                .await;
            assert!(open.status.is_success(), "{}", open.text);
            let renewed = kit
                .form("/oauth2/token", &kit.refreshes(&client, &signed.get("refresh_token")))
                .await;
            assert_eq!(renewed.get("error"), "invalid_grant", "{}", renewed.text);
            Ok(())
        })
    })
    .await;
}

/// A session in which somebody was known by one factor alone.
async fn by_one_factor(kit: &Kit<'_>) -> medtech_kernel::Result<String> {
    let user = crate::store::by_id(&kit.w.ctx.db, kit.w.north.id, kit.doctor_id)
        .await?
        .expect("the doctor");
    let sessions = kit.w.ctx.sessions.clone();
    let issued = kit.w.ctx.db.write(kit.w.north.id, move |tx| {
        Box::pin(async move {
            let new = crate::session(&user, DAY, Assurance::One, "test".into());
            sessions.issue(tx, new).await.map(|(token, _)| token)
        })
    });
    issued.await
}

#[tokio::test]
async fn an_application_is_as_sure_of_its_user_as_the_sign_in_was() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let mut kit = Kit::new(w).await?;
            let client = kit.public().await;
            let strong = kit.signed_in(&client).await.get("access_token");
            let mut settings = (*w.north.settings).clone();
            (settings.relationship_required, settings.require_two_factors) = (false, false);
            w.ctx.tenants.set_settings(w.north.id, &settings).await?;
            kit.doctor = by_one_factor(&kit).await?;
            let weak = kit.signed_in(&client).await;
            let reads = async |token: &str| kit.api("GET", "/fhir/R4/Observation", token, None).await;
            assert_eq!(
                reads(&weak.get("access_token")).await.status,
                StatusCode::OK,
                "where the clinic asks for one"
            );
            settings.require_two_factors = true;
            w.ctx.tenants.set_settings(w.north.id, &settings).await?;
            let renewed = kit
                .form("/oauth2/token", &kit.refreshes(&client, &weak.get("refresh_token")))
                .await;
            for token in [weak.get("access_token"), renewed.get("access_token")] {
                let refused = reads(&token).await;
                assert_eq!(refused.status, StatusCode::FORBIDDEN);
                assert!(refused.text.contains("second step"), "{}", refused.text);
            }
            assert_eq!(reads(&strong).await.status, StatusCode::OK);
            // Nor does it prove anything anew for its user.
            let own = kit
                .api(
                    "POST",
                    "/api/identity/step-up/password",
                    &strong,
                    Some(json!({"password": "x"})),
                )
                .await;
            assert_eq!(own.get("code"), "auth.application");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_subject_is_one_person_for_ever() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.public().await;
            let claims =
                |token: &str| -> Value { jsonwebtoken::dangerous::insecure_decode_claims(token).expect("claims") };
            let first = claims(&kit.signed_in(&client).await.get("id_token"));
            assert_eq!(first["sub"], kit.doctor_id.to_string());
            // Locked out, their address is still theirs.
            let path = format!("/api/identity/users/{}/lock", kit.doctor_id);
            assert!(
                kit.api("POST", &path, &kit.admin, Some(json!({})))
                    .await
                    .status
                    .is_success()
            );
            let taken = kit
                .person(&w.north, "dr@north.example", Role::Clinician)
                .await
                .expect_err("refused");
            assert_eq!(taken.code, "identity.email_taken");
            // The same address in another clinic is another person.
            let (south, _) = kit.person(&w.south, "dr@north.example", Role::Clinician).await?;
            assert_ne!(first["sub"], south.to_string());
            Ok(())
        })
    })
    .await;
}
