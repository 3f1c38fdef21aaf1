//! What the provider says beside who somebody is: how surely it knows them, and that it is over.

use super::{Fake, Stand, stand};
use crate::oauth::{
    LOGOUT_EVENT,
    tests::kit::{Answer, HOST, Key, Kit, TABLES, encoded, query},
};
use axum::{Json, Router, body::Body, response::Redirect, routing::get};
use http::{Request, StatusCode};
use medtech_kernel::{Result, auth::Assurance, testkit::on_both_engines};
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

fn header() -> Value {
    json!({"alg": "ES384", "kid": "k1"})
}

impl Stand<'_> {
    async fn describe(&self, more: Value) {
        let mut settings = super::settings(&self.fake.issuer, Some("staff"));
        for (name, value) in more.as_object().unwrap() {
            settings[name] = value.clone();
        }
        let body = json!({"active": true, "client_secret": "the secret", "settings": settings});
        let path = format!("/api/identity/sso-providers/{}", self.provider);
        let done = self.kit.api("PUT", &path, &self.kit.admin, Some(body)).await;
        assert!(done.status.is_success(), "{}", done.text);
    }

    async fn tells(&self, pairs: &[(&str, String)]) -> Answer {
        let request = Request::builder()
            .method("POST")
            .uri(format!("/api/identity/sso/{}/logout", self.provider))
            .header("host", HOST)
            .header("content-type", "application/x-www-form-urlencoded");
        self.kit.send(request.body(Body::from(encoded(pairs))).unwrap()).await
    }

    fn message(&self, sub: Option<&str>, sid: Option<&str>) -> Value {
        let now = self.kit.w.ctx.clock.now_ms() / 1000;
        let mut claims = json!({"iss": self.fake.issuer, "aud": "us", "iat": now, "exp": now + 120, "jti": medtech_kernel::id::token(), "events": {LOGOUT_EVENT: {}}});
        for (name, value) in [("sub", sub), ("sid", sid)] {
            if let Some(value) = value {
                claims[name] = value.into();
            }
        }
        claims
    }
}

async fn assurance(s: &Stand<'_>, come: &Answer) -> Result<Assurance> {
    assert_eq!(come.status, StatusCode::OK, "{}", come.text);
    let who = s
        .kit
        .w
        .ctx
        .sessions
        .verify(s.kit.w.north.id, &come.get("access_token"))
        .await?;
    Ok(who.grant.assurance)
}

#[tokio::test]
async fn two_factors_are_what_the_provider_states_and_the_clinic_accepts() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let key = Key::ec();
            let s = stand(&kit, &key, Some("staff")).await;
            let strong = |c: &mut Value| (c["acr"], c["amr"]) = ("urn:mfa".into(), json!(["pwd", "otp"]));
            // What nobody has said to count does not count.
            assert_eq!(assurance(&s, &s.come(&key, &header(), strong).await).await?, Assurance::One);
            s.describe(json!({"two_factor_acr": ["urn:mfa"]})).await;
            assert_eq!(assurance(&s, &s.come(&key, &header(), strong).await).await?, Assurance::Two);
            for other in [json!("urn:pwd"), json!("urn:mfa2"), json!("")] {
                let come = s.come(&key, &header(), |c| c["acr"] = other.clone()).await;
                assert_eq!(assurance(&s, &come).await?, Assurance::One, "{other}");
            }
            assert_eq!(assurance(&s, &s.come(&key, &header(), |_| ()).await).await?, Assurance::One, "silence is one");
            s.describe(json!({"two_factor_amr": ["mfa", "otp"]})).await;
            assert_eq!(assurance(&s, &s.come(&key, &header(), strong).await).await?, Assurance::Two);
            let password = s.come(&key, &header(), |c| c["amr"] = json!(["pwd"])).await;
            assert_eq!(assurance(&s, &password).await?, Assurance::One);
            // When they proved themselves there is when they did so; not later, and not tomorrow.
            let now = w.ctx.clock.now_ms();
            let old = s.come(&key, &header(), |c| c["auth_time"] = (now / 1000 - 3600).into()).await;
            let who = w.ctx.sessions.verify(w.north.id, &old.get("access_token")).await?;
            assert_eq!(who.proved_at, (now / 1000 - 3600) * 1000);
            assert!(who.require_fresh(now).is_err());
            let tomorrow = s.come(&key, &header(), |c| c["auth_time"] = (now / 1000 + 86_400).into()).await;
            assert_eq!(tomorrow.status, StatusCode::UNAUTHORIZED);
            // Who has nothing else to prove themselves with here is sent there to prove it anew.
            for (asked, expected) in [("", None), ("?fresh=false", None), ("?fresh=true", Some("login"))] {
                let path = format!("/api/identity/sso/{}/start{asked}", s.provider);
                let started = kit.api("POST", &path, "", None).await;
                let to = query(&started.get("redirect"));
                assert_eq!(to.get("prompt").map(String::as_str), expected, "{asked}");
                assert_eq!(to.get("max_age").map(String::as_str), expected.map(|_| "0"), "{asked}");
            }
            // Values that are none are not taken.
            let settings = json!({"name": "H", "issuer": s.fake.issuer, "client_id": "us", "domains": ["north.example"], "two_factor_amr": ["a b"]});
            let body = json!({"active": true, "settings": settings});
            let answer = kit.api("POST", "/api/identity/sso-providers", &kit.admin, Some(body)).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn the_same_identifier_at_two_providers_is_two_people() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let key = Key::ec();
            let (one, two) = (
                stand(&kit, &key, Some("staff")).await,
                stand(&kit, &key, Some("staff")).await,
            );
            let person =
                |email: &'static str| move |c: &mut Value| (c["sub"], c["email"]) = ("same".into(), email.into());
            let first = one.come(&key, &header(), person("a@north.example")).await;
            let second = two.come(&key, &header(), person("b@north.example")).await;
            assert_eq!(
                (first.status, second.status),
                (StatusCode::OK, StatusCode::OK),
                "{}",
                second.text
            );
            assert_ne!(first.json["user"]["id"], second.json["user"]["id"]);
            // And each stays who they are, also with the other's address.
            let again = two.come(&key, &header(), person("a@north.example")).await;
            assert_eq!(again.json["user"]["id"], second.json["user"]["id"]);
            // Nor does one provider end the other's sessions.
            let message = key.sign(&header(), &two.message(Some("same"), None));
            assert_eq!(two.tells(&[("logout_token", message)]).await.status, StatusCode::OK);
            assert!(kit.is_good(&first.get("access_token")).await && !kit.is_good(&second.get("access_token")).await);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_provider_ends_the_sessions_that_came_of_its_own() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let (key, stranger) = (Key::ec(), Key::ec());
            let s = stand(&kit, &key, Some("staff")).await;
            let come = async |sub: &'static str, sid: &'static str| {
                let email = format!("{sub}@north.example");
                let answer = s
                    .come(&key, &header(), |c| {
                        (c["sub"], c["sid"], c["email"]) = (sub.into(), sid.into(), email.clone().into())
                    })
                    .await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
                answer.get("access_token")
            };
            let (desk, phone, other) = (
                come("s-1", "desk").await,
                come("s-1", "phone").await,
                come("s-2", "desk2").await,
            );
            let typed = json!({"alg": "ES384", "kid": "k1", "typ": "logout+jwt"});
            let told = |claims: &Value| vec![("logout_token", key.sign(&typed, claims))];
            let good = || s.message(Some("s-1"), Some("desk"));
            let changed = |name: &str, value: Value| {
                let mut claims = good();
                match value {
                    Value::Null => {
                        claims.as_object_mut().unwrap().remove(name);
                    }
                    value => claims[name] = value,
                }
                claims
            };
            let now = w.ctx.clock.now_ms() / 1000;
            let mut nobody = good();
            for name in ["sub", "sid"] {
                nobody.as_object_mut().unwrap().remove(name);
            }
            let cases: Vec<(&str, Vec<(&str, String)>)> = vec![
                ("nothing", vec![]),
                ("no token", vec![("logout_token", "x".into())]),
                ("twice", [told(&good()), told(&good())].concat()),
                ("another issuer", told(&changed("iss", json!("https://evil.example")))),
                ("another audience", told(&changed("aud", json!("them")))),
                ("no audience", told(&changed("aud", Value::Null))),
                ("old", told(&changed("iat", json!(now - 3600)))),
                ("from the future", told(&changed("iat", json!(now + 3600)))),
                ("expired", told(&changed("exp", json!(now - 3600)))),
                ("no time", told(&changed("iat", Value::Null))),
                ("no jti", told(&changed("jti", Value::Null))),
                ("no events", told(&changed("events", Value::Null))),
                (
                    "other events",
                    told(&changed("events", json!({"http://schemas.openid.net/event/other": {}}))),
                ),
                (
                    "an event that is no object",
                    told(&changed("events", json!({LOGOUT_EVENT: true}))),
                ),
                ("a nonce", told(&changed("nonce", json!("n")))),
                ("nobody", told(&nobody)),
                (
                    "a stranger's key",
                    vec![("logout_token", stranger.sign(&typed, &good()))],
                ),
                (
                    "alg none",
                    vec![(
                        "logout_token",
                        Key::None.sign(&json!({"alg": "none", "kid": "k1", "typ": "logout+jwt"}), &good()),
                    )],
                ),
                (
                    "the key as a secret",
                    vec![(
                        "logout_token",
                        Key::Secret(key.public_bytes()).sign(&json!({"alg": "HS256", "kid": "k1"}), &good()),
                    )],
                ),
                (
                    "another type",
                    vec![(
                        "logout_token",
                        key.sign(&json!({"alg": "ES384", "kid": "k1", "typ": "at+jwt"}), &good()),
                    )],
                ),
                (
                    "an ID token",
                    vec![(
                        "logout_token",
                        key.sign(&json!({"alg": "ES384", "kid": "k1", "typ": "JWT"}), &s.claims("n")),
                    )],
                ),
            ];
            for (name, pairs) in cases {
                let answer = s.tells(&pairs).await;
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}: {}", answer.text);
                assert_eq!(answer.headers["cache-control"], "no-store", "{name}");
                for token in [&desk, &phone, &other] {
                    assert!(kit.is_good(token).await, "{name}");
                }
            }
            // One session of theirs.
            let message = told(&good());
            let done = s.tells(&message).await;
            assert_eq!(
                (done.status, done.headers["cache-control"].to_str().unwrap()),
                (StatusCode::OK, "no-store"),
                "{}",
                done.text
            );
            assert!(!kit.is_good(&desk).await && kit.is_good(&phone).await && kit.is_good(&other).await);
            // The same message again is refused, and a session that is over is over.
            assert_eq!(s.tells(&message).await.status, StatusCode::BAD_REQUEST);
            assert_eq!(s.tells(&told(&good())).await.status, StatusCode::OK);
            // A session that somebody else has there.
            assert_eq!(
                s.tells(&told(&s.message(Some("s-1"), Some("desk2")))).await.status,
                StatusCode::OK
            );
            assert!(kit.is_good(&other).await);
            // All of theirs; by the session's name alone.
            assert_eq!(
                s.tells(&told(&s.message(Some("s-1"), None))).await.status,
                StatusCode::OK
            );
            assert!(!kit.is_good(&phone).await && kit.is_good(&other).await);
            assert_eq!(
                s.tells(&told(&s.message(None, Some("desk2")))).await.status,
                StatusCode::OK
            );
            assert!(!kit.is_good(&other).await);
            // Of a provider that is not there, no other answer.
            let request = Request::builder()
                .method("POST")
                .uri("/api/identity/sso/made-up/logout")
                .header("host", HOST);
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            let answer = kit
                .send(request.body(Body::from(encoded(&told(&good())))).unwrap())
                .await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            Ok(())
        })
    })
    .await;
}

/// A provider that describes itself as the test says.
async fn describes(document: impl Fn(&str) -> Value + Clone + Send + Sync + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let issuer = format!("http://{}", listener.local_addr().expect("address"));
    let own = issuer.clone();
    let routes = Router::new().route(
        "/.well-known/openid-configuration",
        get(async move || Json(document(&own))),
    );
    tokio::spawn(async move { axum::serve(listener, routes).await });
    issuer
}

#[tokio::test]
async fn metadata_of_another_issuer_and_a_redirect_are_not_followed() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let key = Key::ec();
            let honest = Fake::start().await;
            *honest.keys.lock().unwrap() = json!({"keys": [key.jwk("k1")]});
            let add = async |issuer: &str| {
                let body = json!({"active": true, "settings": super::settings(issuer, Some("staff"))});
                kit.api("POST", "/api/identity/sso-providers", &kit.admin, Some(body)).await.get("id")
            };
            let begins = async |provider: &str| {
                kit.api("POST", &format!("/api/identity/sso/{provider}/start"), "", Some(json!({}))).await
            };
            let document = |issuer: &str| json!({"issuer": issuer, "authorization_endpoint": format!("{issuer}/auth"), "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/keys")});
            let honest_issuer = honest.issuer.clone();
            for (name, issuer) in [
                ("another's name", describes(move |_| document(&honest_issuer)).await),
                ("a name with a slash", describes(move |own| document(&format!("{own}/"))).await),
                ("no name", describes(|_| json!({"authorization_endpoint": "http://127.0.0.1/auth"})).await),
            ] {
                let answer = begins(&add(&issuer).await).await;
                assert_eq!((answer.status, answer.get("code")), (StatusCode::SERVICE_UNAVAILABLE, "sso.unreachable".into()), "{name}");
            }
            // One that sends us on: nobody goes there.
            let visits = Arc::new(AtomicUsize::new(0));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
            let issuer = format!("http://{}", listener.local_addr().expect("address"));
            let (seen, own) = (visits.clone(), issuer.clone());
            let routes = Router::new()
                .route("/.well-known/openid-configuration", get(async || Redirect::temporary("/elsewhere")))
                .route("/elsewhere", get(async move || {
                    seen.fetch_add(1, Ordering::SeqCst);
                    Json(document(&own))
                }));
            tokio::spawn(async move { axum::serve(listener, routes).await });
            let answer = begins(&add(&issuer).await).await;
            assert_eq!(answer.get("code"), "sso.unreachable", "{}", answer.text);
            assert_eq!(visits.load(Ordering::SeqCst), 0, "a redirect was followed");
            // The honest one, then, is let in.
            assert_eq!(begins(&add(&honest.issuer).await).await.status, StatusCode::OK);
            Ok(())
        })
    })
    .await;
}
