//! The good ways: standalone and EHR launch, a secret, pushed requests, introspection, the end of things.

use super::kit::{HOST, ISSUER, Kit, REDIRECT, TABLES, public, query};
use crate::oauth::HOUR;
use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Request, StatusCode};
use medtech_kernel::{auth::Role, testkit::on_both_engines};
use serde_json::json;

#[tokio::test]
async fn standalone_launch_from_discovery_to_userinfo() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            for path in [
                "/.well-known/openid-configuration",
                "/.well-known/oauth-authorization-server",
                "/fhir/R4/.well-known/smart-configuration",
            ] {
                let request = Request::builder().uri(path).header("host", HOST).body(Body::empty()).unwrap();
                let document = kit.send(request).await;
                assert_eq!(document.get("issuer"), ISSUER);
                assert_eq!(document.get("token_endpoint"), format!("{ISSUER}/oauth2/token"));
                assert_eq!(document.json["code_challenge_methods_supported"], json!(["S256"]));
                assert_eq!(document.headers["access-control-allow-origin"], "*");
            }
            let client = kit.public().await;
            let request = kit.request(&kit.asks(&client)).await;
            let shown = kit
                .api("GET", &format!("/api/identity/authorizations/{request}"), &kit.doctor, None)
                .await;
            assert_eq!(shown.json["client"]["name"], "Growth Chart");
            assert_eq!(shown.json["redirect_host"], "app.example");
            assert_eq!(shown.json["patient"], json!({"needed": true}));
            // The user unticks one thing; what cannot be unticked stays, what was not asked for is not added.
            let body = json!({"allow": true, "patient": "p1", "scopes": ["fhirUser", "profile", "patient/*.rs", "user/Patient.rs"]});
            let to = kit.decide(&kit.doctor, &request, body.clone()).await.get("redirect");
            assert!(to.starts_with(&format!("{REDIRECT}?")), "{to}");
            let back = query(&to);
            assert_eq!((back["state"].as_str(), back["iss"].as_str()), ("the state", ISSUER));
            assert_eq!(kit.decide(&kit.doctor, &request, body).await.status, StatusCode::NOT_FOUND, "once");

            let answer = kit.form("/oauth2/token", &kit.redeems(&client, &back["code"])).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
            assert_eq!(answer.headers["cache-control"], "no-store");
            assert_eq!(answer.get("scope"), "openid fhirUser profile launch/patient patient/*.rs");
            assert_eq!((answer.get("token_type"), answer.json["expires_in"].as_i64()), ("Bearer".into(), Some(3600)));
            assert_eq!((answer.get("patient"), answer.json["need_patient_banner"].as_bool()), ("p1".into(), Some(true)));
            assert!(answer.json.get("refresh_token").is_none(), "offline access was unticked");

            let token = answer.get("access_token");
            let who = w.ctx.sessions.verify(w.north.id, &token).await?;
            assert_eq!(who.subject, format!("user:{}", kit.doctor_id));
            assert_eq!(who.grant.client.as_deref(), Some(client.as_str()));
            assert_eq!(who.grant.patient.as_deref(), Some("p1"));
            assert_eq!(who.grant.scopes.as_deref(), Some("openid fhirUser profile launch/patient patient/*.rs"));
            let info = kit.api("GET", "/oauth2/userinfo", &token, None).await;
            assert_eq!(info.get("sub"), kit.doctor_id.to_string());
            assert_eq!(info.get("fhirUser"), format!("{ISSUER}/fhir/R4/Practitioner/pr1"));
            assert!(info.json.get("email").is_none());
            // It is an application's: our own doors are closed to it.
            for path in ["/api/identity/me", "/api/identity/me/apps", "/api/identity/clients"] {
                let closed = kit.api("GET", path, &token, None).await;
                assert_eq!((closed.status, closed.get("code")), (StatusCode::FORBIDDEN, "auth.application".into()));
            }
            w.ctx.clock.advance(HOUR);
            assert!(!kit.is_good(&token).await);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn ehr_launch_carries_patient_and_encounter() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.public().await;
            let body = json!({"client_id": client, "patient": "p7", "encounter": "e7"});
            let launched = kit.api("POST", "/api/identity/launches", &kit.doctor, Some(body)).await;
            assert_eq!(launched.status, StatusCode::CREATED, "{}", launched.text);
            let url = launched.get("url");
            assert!(url.starts_with("https://app.example/launch?"));
            let (iss, launch) = (query(&url)["iss"].clone(), query(&url)["launch"].clone());
            assert_eq!(iss, format!("{ISSUER}/fhir/R4"));
            let mut asks = kit.asks(&client);
            asks.retain(|(name, _)| *name != "scope");
            asks.push(("scope", "openid launch patient/*.rs".into()));
            asks.push(("launch", launch.clone()));
            let request = kit.request(&asks).await;
            let (_, other) = kit.person(&w.north, "other@north.example", Role::Clinician).await?;
            let refused = kit.decide(&other, &request, json!({"allow": true, "scopes": []})).await;
            assert_eq!(refused.get("code"), "oauth.other_user");
            // The patient is the launch's, whatever the decision says.
            let body = json!({"allow": true, "scopes": ["patient/*.rs"], "patient": "p9"});
            let to = kit.decide(&kit.doctor, &request, body).await.get("redirect");
            let answer = kit
                .form("/oauth2/token", &kit.redeems(&client, &query(&to)["code"]))
                .await;
            assert_eq!(
                (answer.get("patient"), answer.get("encounter")),
                ("p7".into(), "e7".into())
            );
            let again = kit.authorize(&asks).await;
            assert!(
                again.location().contains("error=invalid_request"),
                "a launch is good once"
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_secret_a_pushed_request_introspection_and_revocation() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let mut metadata = public();
            metadata["token_endpoint_auth_method"] = "client_secret_basic".into();
            let (client, secret) = kit.register(metadata).await;
            let basic = format!("Basic {}", STANDARD.encode(format!("{client}:{secret}")));
            let pushed = kit.form_to(HOST, "/oauth2/par", Some(&basic), &kit.asks(&client)).await;
            assert_eq!(pushed.status, StatusCode::CREATED, "{}", pushed.text);
            let short = [
                ("client_id", client.clone()),
                ("request_uri", pushed.get("request_uri")),
            ];
            let request = kit.request(&short).await;
            assert_eq!(kit.authorize(&short).await.status, StatusCode::BAD_REQUEST, "once");
            let code = query(&kit.allow(&request).await)["code"].clone();
            let mut redeems = kit.redeems(&client, &code);
            redeems.retain(|(name, _)| *name != "client_id");
            let answer = kit.form_to(HOST, "/oauth2/token", Some(&basic), &redeems).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
            let (token, refresh) = (answer.get("access_token"), answer.get("refresh_token"));

            let ask = async |token: &str| {
                let pairs = [("token", token.to_owned())];
                kit.form_to(HOST, "/oauth2/introspect", Some(&basic), &pairs).await.json
            };
            let known = ask(&token).await;
            assert_eq!(known["active"], true);
            assert_eq!(known["client_id"], client.as_str());
            assert_eq!(known["patient"], "p1");
            assert_eq!(known["fhirUser"], format!("{ISSUER}/fhir/R4/Practitioner/pr1"));
            assert_eq!(known["scope"], answer.json["scope"]);
            assert_eq!(known["exp"].as_i64(), Some(w.ctx.clock.now_ms() / 1000 + 3600));
            assert_eq!(ask(&refresh).await["active"], true);
            // Our own sessions, and what was never a token, are alike.
            let nothing = json!({"active": false});
            for other in [kit.doctor.as_str(), "mt_1_x", "", "x"] {
                if !other.is_empty() {
                    assert_eq!(ask(other).await, nothing);
                }
            }
            // The user sees it and ends it: access and refresh are gone.
            let apps = kit.api("GET", "/api/identity/me/apps", &kit.doctor, None).await;
            assert_eq!(apps.json["apps"][0]["name"], "Growth Chart");
            assert_eq!(apps.json["apps"][0]["offline"], true);
            let path = format!("/api/identity/me/apps/{client}");
            assert_eq!(
                kit.api("DELETE", &path, &kit.admin, None).await.status,
                StatusCode::NOT_FOUND
            );
            assert_eq!(
                kit.api("DELETE", &path, &kit.doctor, None).await.status,
                StatusCode::NO_CONTENT
            );
            assert_eq!(
                (ask(&token).await, ask(&refresh).await),
                (nothing.clone(), nothing.clone())
            );
            assert!(!kit.is_good(&token).await);

            // The application gives back what it has.
            let mut redeems = kit.redeems(&client, &kit.code(&client).await);
            redeems.retain(|(name, _)| *name != "client_id");
            let answer = kit.form_to(HOST, "/oauth2/token", Some(&basic), &redeems).await;
            let (token, refresh) = (answer.get("access_token"), answer.get("refresh_token"));
            let pairs = [("token", refresh.clone())];
            assert_eq!(
                kit.form_to(HOST, "/oauth2/revoke", Some(&basic), &pairs).await.status,
                StatusCode::OK
            );
            assert!(!kit.is_good(&token).await);
            let refreshes = [("grant_type", "refresh_token".into()), ("refresh_token", refresh)];
            let gone = kit.form_to(HOST, "/oauth2/token", Some(&basic), &refreshes).await;
            assert_eq!(gone.get("error"), "invalid_grant");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn an_application_signs_its_user_out() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.public().await;
            let answer = kit.signed_in(&client).await;
            let ask = async |to: &str| {
                let uri = format!(
                    "/oauth2/logout?id_token_hint={}&state=s&post_logout_redirect_uri={to}",
                    answer.get("id_token")
                );
                let request = Request::builder()
                    .uri(uri)
                    .header("host", HOST)
                    .body(Body::empty())
                    .unwrap();
                kit.send(request).await
            };
            let elsewhere = ask("https://evil.example/").await;
            assert_eq!((elsewhere.status, elsewhere.location()), (StatusCode::BAD_REQUEST, ""));
            assert!(kit.is_good(&kit.doctor).await);
            // Also long after the ID token's own time.
            w.ctx.clock.advance(2 * HOUR);
            let out = ask("https://app.example/bye").await;
            assert_eq!(out.location(), "https://app.example/bye?state=s");
            assert!(!kit.is_good(&kit.doctor).await, "the session in which it was allowed");
            let refresh = kit.refreshes(&client, &answer.get("refresh_token"));
            assert_eq!(kit.form("/oauth2/token", &refresh).await.get("error"), "invalid_grant");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn what_takes_an_application_away_takes_its_tokens() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            // Switched off, its scopes changed, deleted.
            for change in ["off", "scope", "delete"] {
                let client = kit.public().await;
                let answer = kit.signed_in(&client).await;
                let path = format!("/api/identity/clients/{client}");
                let mut body = public();
                body["active"] = (change != "off").into();
                if change == "scope" {
                    body["scope"] = "openid".into();
                }
                let (method, body) = match change {
                    "delete" => ("DELETE", None),
                    _ => ("PUT", Some(body)),
                };
                let done = kit.api(method, &path, &kit.admin, body).await;
                assert!(done.status.is_success(), "{change}: {}", done.text);
                assert!(!kit.is_good(&answer.get("access_token")).await, "{change}");
                let refresh = kit.refreshes(&client, &answer.get("refresh_token"));
                assert!(
                    kit.form("/oauth2/token", &refresh).await.status.is_client_error(),
                    "{change}"
                );
            }
            // The grant that is refreshed online ends with the session it was allowed in.
            let client = kit.public().await;
            let mut asks = kit.asks(&client);
            asks.retain(|(n, _)| *n != "scope");
            asks.push(("scope", "openid online_access".into()));
            let code = query(&kit.allow(&kit.request(&asks).await).await)["code"].clone();
            let answer = kit.form("/oauth2/token", &kit.redeems(&client, &code)).await;
            let next = kit
                .form("/oauth2/token", &kit.refreshes(&client, &answer.get("refresh_token")))
                .await;
            assert_eq!(next.status, StatusCode::OK, "{}", next.text);
            kit.api("POST", "/api/identity/sign-out", &kit.doctor, Some(json!({})))
                .await;
            let over = kit
                .form("/oauth2/token", &kit.refreshes(&client, &next.get("refresh_token")))
                .await;
            assert_eq!(over.get("error"), "invalid_grant");
            assert!(!kit.is_good(&next.get("access_token")).await);
            Ok(())
        })
    })
    .await;
}
