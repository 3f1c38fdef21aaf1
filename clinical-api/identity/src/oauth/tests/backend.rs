//! Backend services: keys inline, keys by address, and how often that address is asked.

use super::kit::{HOST, ISSUER, Key, Kit, TABLES, backend};
use crate::oauth::{MINUTE, authenticate::ASSERTION};
use axum::{Json, Router, routing::get};
use http::StatusCode;
use medtech_kernel::{id, testkit::on_both_engines};
use serde_json::{Value, json};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

pub(super) fn claims(kit: &Kit<'_>, client: &str) -> Value {
    let now = kit.w.ctx.clock.now_ms() / 1000;
    json!({"iss": client, "sub": client, "aud": format!("{ISSUER}/oauth2/token"), "exp": now + 240, "iat": now, "jti": id::token()})
}

pub(super) fn asserts(assertion: String) -> Vec<(&'static str, String)> {
    vec![
        ("grant_type", "client_credentials".into()),
        ("scope", "system/*.rs".into()),
        ("client_assertion_type", ASSERTION.into()),
        ("client_assertion", assertion),
    ]
}

#[tokio::test]
async fn both_algorithms_and_the_scopes_it_has() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let (ec, rsa) = (Key::ec(), Key::rsa());
            let jwks = json!({"keys": [ec.jwk("e1"), rsa.jwk("r1")]});
            let (client, _) = kit.register(backend(jwks)).await;
            for (key, alg, kid) in [(&ec, "ES384", "e1"), (&rsa, "RS384", "r1")] {
                let assertion = key.sign(&json!({"alg": alg, "kid": kid, "typ": "JWT"}), &claims(&kit, &client));
                let mut pairs = asserts(assertion);
                pairs[1].1 = "system/Patient.rs system/Patient.cruds user/Patient.rs openid".into();
                let answer = kit.form("/oauth2/token", &pairs).await;
                assert_eq!(answer.status, StatusCode::OK, "{alg}: {}", answer.text);
                assert_eq!(answer.get("scope"), "system/Patient.rs");
                assert!(answer.json.get("refresh_token").is_none() && answer.json.get("id_token").is_none());
                let who = w.ctx.sessions.verify(w.north.id, &answer.get("access_token")).await?;
                assert_eq!(who.subject, format!("client:{client}"));
                assert!(who.roles.is_empty());
                assert_eq!(who.grant.scopes.as_deref(), Some("system/Patient.rs"));
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn keys_by_address_are_asked_for_seldom() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let (old, new) = (Key::ec(), Key::ec());
            let shown = Arc::new(Mutex::new(json!({"keys": [old.jwk("old")]})));
            let asked = Arc::new(AtomicUsize::new(0));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
            let address = format!("http://{}/keys", listener.local_addr().expect("address"));
            let routes = {
                let (shown, asked) = (shown.clone(), asked.clone());
                Router::new().route(
                    "/keys",
                    get(move || {
                        asked.fetch_add(1, Ordering::SeqCst);
                        let body = shown.lock().unwrap().clone();
                        async move { Json(body) }
                    }),
                )
            };
            let server = tokio::spawn(async move { axum::serve(listener, routes).await });
            let mut metadata = backend(Value::Null);
            metadata.as_object_mut().unwrap().remove("jwks");
            metadata["jwks_uri"] = address.into();
            let (client, _) = kit.register(metadata).await;
            let come = async |key: &Key, kid: &str| {
                let assertion = key.sign(&json!({"alg": "ES384", "kid": kid}), &claims(&kit, &client));
                kit.form_to(HOST, "/oauth2/token", None, &asserts(assertion))
                    .await
                    .status
            };
            // Several at once ask once.
            let (a, b, c) = tokio::join!(come(&old, "old"), come(&old, "old"), come(&old, "old"));
            assert_eq!([a, b, c], [StatusCode::OK; 3]);
            assert_eq!(asked.load(Ordering::SeqCst), 1);
            // A flood of names that are not there is no flood for others.
            for n in 0..50 {
                assert_eq!(come(&new, &format!("unknown-{n}")).await, StatusCode::UNAUTHORIZED);
            }
            assert_eq!(asked.load(Ordering::SeqCst), 1);
            // A key that is published later is found after the cool-down; the old one goes on until then.
            *shown.lock().unwrap() = json!({"keys": [new.jwk("new")]});
            assert_eq!(come(&old, "old").await, StatusCode::OK);
            w.ctx.clock.advance(MINUTE);
            assert_eq!(come(&new, "new").await, StatusCode::OK);
            assert_eq!(asked.load(Ordering::SeqCst), 2);
            assert_eq!(
                come(&old, "old").await,
                StatusCode::UNAUTHORIZED,
                "it is published no more"
            );
            server.abort();
            Ok(())
        })
    })
    .await;
}
