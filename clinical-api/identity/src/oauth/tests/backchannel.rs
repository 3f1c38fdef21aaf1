//! Applications are told that a session is over: by sign-out, by lock, by time; durably, once, and nobody else.

use super::kit::{ISSUER, Kit, TABLES, public};
use crate::oauth::{DAY, LOGOUT_EVENT, LOGOUT_GROUP, jwt};
use axum::{Router, body::Body, extract::State, routing::post};
use http::{Request, StatusCode};
use jsonwebtoken::{Algorithm, jwk::JwkSet};
use medtech_kernel::{Result, auth::Role, testkit::on_both_engines};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// An application's endpoint: what it was sent, and what it answers.
#[derive(Clone)]
struct Told {
    bodies: Arc<Mutex<Vec<String>>>,
    status: Arc<Mutex<StatusCode>>,
    address: String,
}

impl Told {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let told = Self {
            bodies: Arc::default(),
            status: Arc::new(Mutex::new(StatusCode::OK)),
            address: format!("http://{}/bye", listener.local_addr().expect("address")),
        };
        let take = async |State(told): State<Self>, body: String| {
            told.bodies.lock().unwrap().push(body);
            *told.status.lock().unwrap()
        };
        let routes = Router::new().route("/bye", post(take)).with_state(told.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        told
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.bodies.lock().unwrap())
    }
}

async fn application(kit: &Kit<'_>, told: &Told) -> String {
    let mut metadata = public();
    metadata["backchannel_logout_uri"] = told.address.clone().into();
    metadata["backchannel_logout_session_required"] = true.into();
    kit.register(metadata).await.0
}

/// Looks, as the server does after a session ended, and sends what waits for the first time.
async fn deliver(kit: &Kit<'_>) -> Result<Vec<bool>> {
    kit.identity.oauth.tell(kit.w.north.id).await?;
    let mut done = Vec::new();
    for event in kit.w.ctx.bus.waiting(kit.w.north.id, LOGOUT_GROUP).await? {
        done.push(kit.identity.oauth.deliver(event).await.is_ok());
    }
    Ok(done)
}

async fn claims(kit: &Kit<'_>, body: &str) -> Value {
    let token = url::form_urlencoded::parse(body.as_bytes())
        .find(|(n, _)| n == "logout_token")
        .expect("a token")
        .1
        .into_owned();
    let header = jsonwebtoken::decode_header(&token).expect("a header");
    assert_eq!(header.typ.as_deref(), Some("logout+jwt"));
    let request = Request::builder().uri("/oauth2/jwks").header("host", super::kit::HOST);
    let keys: JwkSet = serde_json::from_value(kit.send(request.body(Body::empty()).unwrap()).await.json).expect("keys");
    jwt::verify(&token, &keys, &[Algorithm::ES384]).expect("signed by the published keys")
}

#[tokio::test]
async fn whatever_ends_the_session_the_application_hears_of_it() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            crate::Identity::register(&w.ctx.bus);
            let kit = Kit::new(w).await?;
            let (told, other) = (Told::start().await, Told::start().await);
            let (client, silent) = (application(&kit, &told).await, kit.public().await);
            let (_, _) = (application(&kit, &other).await, kit.signed_in(&silent).await);
            let signed = kit.signed_in(&client).await;
            assert!(deliver(&kit).await?.is_empty(), "while it stands nobody is told");
            let id: Value = jsonwebtoken::dangerous::insecure_decode_claims(signed.get("id_token")).expect("claims");
            // Signed out here.
            let who = w.ctx.sessions.verify(w.north.id, &kit.doctor).await?;
            let sessions = w.ctx.sessions.clone();
            w.ctx
                .db
                .write(w.north.id, move |tx| {
                    Box::pin(async move { sessions.revoke(tx, who.session).await })
                })
                .await?;
            assert_eq!(deliver(&kit).await?, [true]);
            let sent = told.taken();
            assert_eq!(sent.len(), 1);
            let said = claims(&kit, &sent[0]).await;
            assert_eq!((&said["iss"], &said["aud"]), (&json!(ISSUER), &json!(client)));
            assert_eq!((&said["sub"], &said["sid"]), (&id["sub"], &id["sid"]));
            assert_eq!(said["events"], json!({ LOGOUT_EVENT: {} }));
            assert!(said.get("nonce").is_none() && said["jti"].as_str().is_some_and(|j| j.len() > 20));
            assert!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap() <= 120);
            assert!(other.taken().is_empty());
            assert_eq!(kit.identity.oauth.tell(w.north.id).await?, 0, "told once");
            // It cannot be taken for an ID token.
            let hint = url::form_urlencoded::parse(sent[0].as_bytes())
                .next()
                .expect("a pair")
                .1
                .into_owned();
            let request = Request::builder()
                .uri(format!("/oauth2/logout?id_token_hint={hint}"))
                .header("host", super::kit::HOST);
            assert_eq!(
                kit.send(request.body(Body::empty()).unwrap()).await.status,
                StatusCode::BAD_REQUEST
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_lock_and_the_end_of_time_are_told_as_well() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            crate::Identity::register(&w.ctx.bus);
            let kit = Kit::new(w).await?;
            let told = Told::start().await;
            let client = application(&kit, &told).await;
            kit.signed_in(&client).await;
            kit.signed_in(&client).await;
            let path = format!("/api/identity/users/{}/lock", kit.doctor_id);
            assert!(
                kit.api("POST", &path, &kit.admin, Some(json!({})))
                    .await
                    .status
                    .is_success()
            );
            // An application that does not take it is tried again.
            *told.status.lock().unwrap() = StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(deliver(&kit).await?, [false, false]);
            *told.status.lock().unwrap() = StatusCode::NO_CONTENT;
            assert_eq!(deliver(&kit).await?, [true, true]);
            assert_eq!(told.taken().len(), 4);
            // By time alone.
            let (doctor_id, doctor) = kit.person(&w.north, "dr2@north.example", Role::Clinician).await?;
            let kit = Kit {
                doctor,
                doctor_id,
                ..kit
            };
            kit.signed_in(&client).await;
            w.ctx.clock.advance(399 * DAY);
            assert_eq!(kit.identity.oauth.tell(w.north.id).await?, 0);
            w.ctx.clock.advance(2 * DAY);
            assert_eq!(kit.identity.oauth.tell(w.north.id).await?, 1);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn only_addresses_that_may_be_called_are_registered() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            for bad in [
                "http://app.example/bye",
                "javascript:alert(1)",
                "https://app.example/bye#x",
                "bye",
                "ftp://app.example/",
            ] {
                let mut metadata = public();
                metadata["backchannel_logout_uri"] = bad.into();
                let answer = kit
                    .api("POST", "/api/identity/clients", &kit.admin, Some(metadata))
                    .await;
                assert_eq!(
                    answer.status,
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "{bad}: {}",
                    answer.text
                );
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn messages_wait_behind_those_to_the_same_application_and_no_other() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            crate::Identity::register(&w.ctx.bus);
            let kit = Kit::new(w).await?;
            let told = Told::start().await;
            let (dead, alive) = (application(&kit, &told).await, application(&kit, &told).await);
            for client in [&dead, &dead, &alive] {
                kit.signed_in(client).await;
            }
            let who = w.ctx.sessions.verify(w.north.id, &kit.doctor).await?;
            let sessions = w.ctx.sessions.clone();
            let ends = w.ctx.db.write(w.north.id, move |tx| {
                Box::pin(async move { sessions.revoke(tx, who.session).await })
            });
            ends.await?;
            assert_eq!(kit.identity.oauth.tell(w.north.id).await?, 3);
            // The bus holds back what has the key of one that failed: so an application that is down costs one try a turn.
            let mut keys: Vec<String> = (w.ctx.bus.waiting(w.north.id, LOGOUT_GROUP).await?.iter())
                .map(|event| event.key.clone())
                .collect();
            keys.sort();
            let mut expected = [&dead, &dead, &alive].map(|client| format!("oauth_client:{client}"));
            expected.sort();
            assert_eq!(keys, expected);
            Ok(())
        })
    })
    .await;
}
