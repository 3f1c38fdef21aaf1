//! Sign-in through a provider that lies in every way it can.

mod outside;

use crate::{
    Identity,
    oauth::tests::kit::{Answer, Key, Kit, TABLES, query},
};
use axum::{
    Json, Router,
    extract::{Request as AxumRequest, State},
    http::StatusCode,
    routing::{get, post},
};
use http_body_util::BodyExt;
use medtech_kernel::{Result, testkit::on_both_engines};
use serde_json::{Value, json};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// A provider on this machine, whose answers a test sets.
#[derive(Clone)]
struct Fake {
    issuer: String,
    token: Arc<Mutex<String>>,
    keys: Arc<Mutex<Value>>,
    info: Arc<Mutex<Value>>,
    /// The last token request.
    asked: Arc<Mutex<(String, String)>>,
    fetched: Arc<AtomicUsize>,
}

impl Fake {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let fake = Self {
            issuer: format!("http://{}", listener.local_addr().expect("address")),
            token: Arc::default(),
            keys: Arc::default(),
            info: Arc::default(),
            asked: Arc::default(),
            fetched: Arc::default(),
        };
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(document))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .route("/userinfo", get(info))
            .with_state(fake.clone());
        // Ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, routes).await });
        fake
    }
}

async fn document(State(fake): State<Fake>) -> Json<Value> {
    let i = &fake.issuer;
    Json(json!({
        "issuer": i, "authorization_endpoint": format!("{i}/auth?x=1"), "token_endpoint": format!("{i}/token"),
        "jwks_uri": format!("{i}/keys"), "userinfo_endpoint": format!("{i}/userinfo"),
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn keys(State(fake): State<Fake>) -> Json<Value> {
    fake.fetched.fetch_add(1, Ordering::SeqCst);
    Json(fake.keys.lock().unwrap().clone())
}

async fn token(State(fake): State<Fake>, request: AxumRequest) -> Json<Value> {
    let auth = request
        .headers()
        .get("authorization")
        .map_or("", |v| v.to_str().unwrap())
        .to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    *fake.asked.lock().unwrap() = (auth, String::from_utf8_lossy(&body).into_owned());
    Json(json!({"access_token": "at", "token_type": "Bearer", "id_token": *fake.token.lock().unwrap()}))
}

async fn info(State(fake): State<Fake>) -> Json<Value> {
    Json(fake.info.lock().unwrap().clone())
}

/// Changes claims; knows the time in seconds.
type Lie = fn(&mut Value, i64);

struct Stand<'a> {
    kit: &'a Kit<'a>,
    fake: Fake,
    provider: String,
}

fn settings(issuer: &str, create: Option<&str>) -> Value {
    json!({"name": "Hospital", "issuer": issuer, "client_id": "us", "domains": ["North.example"], "create": create})
}

impl Stand<'_> {
    async fn post(&self, path: &str, body: Value) -> Answer {
        self.kit.api("POST", path, "", Some(body)).await
    }

    /// (state, nonce, browser's secret) of a sign-in just begun.
    async fn begin(&self) -> (String, String, String) {
        let started = self
            .post(&format!("/api/identity/sso/{}/start", self.provider), json!({}))
            .await;
        assert_eq!(started.status, StatusCode::OK, "{}", started.text);
        let to = query(&started.get("redirect"));
        assert_eq!((to["x"].as_str(), to["code_challenge_method"].as_str()), ("1", "S256"));
        assert_eq!(to["redirect_uri"], "http://north.localhost/sso");
        (to["state"].clone(), to["nonce"].clone(), started.get("browser"))
    }

    fn claims(&self, nonce: &str) -> Value {
        let now = self.kit.w.ctx.clock.now_ms() / 1000;
        json!({"iss": self.fake.issuer, "sub": "s-1", "aud": "us", "exp": now + 300, "iat": now, "nonce": nonce,
            "email": "Dr@north.example", "email_verified": true, "name": "Dr. North"})
    }

    async fn finish(&self, state: &str, browser: &str) -> Answer {
        let body = json!({"state": state, "code": "c", "iss": self.fake.issuer, "browser": browser});
        self.post("/api/identity/sso/finish", body).await
    }

    /// A whole sign-in with claims of the test's choice.
    async fn come(&self, key: &Key, header: &Value, change: impl Fn(&mut Value)) -> Answer {
        let (state, nonce, browser) = self.begin().await;
        let mut claims = self.claims(&nonce);
        change(&mut claims);
        *self.fake.token.lock().unwrap() = key.sign(header, &claims);
        self.finish(&state, &browser).await
    }
}

async fn stand<'a>(kit: &'a Kit<'a>, key: &Key, create: Option<&str>) -> Stand<'a> {
    let fake = Fake::start().await;
    *fake.keys.lock().unwrap() = json!({"keys": [key.jwk("k1")]});
    let body = json!({"active": true, "client_secret": "the secret", "settings": settings(&fake.issuer, create)});
    let made = kit
        .api("POST", "/api/identity/sso-providers", &kit.admin, Some(body))
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert!(!made.text.contains("the secret"));
    Stand {
        kit,
        fake,
        provider: made.get("id"),
    }
}

#[tokio::test]
async fn a_person_is_found_made_or_refused_and_stays_who_they_are() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let key = Key::ec();
            let header = json!({"alg": "ES384", "kid": "k1"});
            let s = stand(&kit, &key, None).await;
            let buttons = kit.api("GET", "/api/identity/sso", "", None).await;
            assert_eq!(buttons.json["providers"][0]["name"], "Hospital");
            // Found by the verified address, of a domain the provider speaks for.
            let come = s.come(&key, &header, |_| ()).await;
            assert_eq!(come.status, StatusCode::OK, "{}", come.text);
            assert_eq!(come.json["user"]["id"], kit.doctor_id.to_string());
            let who = w.ctx.sessions.verify(w.north.id, &come.get("access_token")).await?;
            assert_eq!(who.grant.assurance.name(), "one");
            let (auth, body) = s.fake.asked.lock().unwrap().clone();
            assert!(
                auth.starts_with("Basic ") && body.contains("code_verifier="),
                "{auth} {body}"
            );
            // From then on by the identifier there, whatever the address says.
            let moved = s
                .come(&key, &header, |c| c["email"] = "new@elsewhere.example".into())
                .await;
            assert_eq!(moved.json["user"]["id"], kit.doctor_id.to_string());
            // Not known, and nobody is made.
            let stranger = |c: &mut Value| {
                c["sub"] = "s-2".into();
                c["email"] = "new@north.example".into();
            };
            assert_eq!(s.come(&key, &header, stranger).await.get("code"), "sso.unknown_person");
            // Mail from the userinfo endpoint, of the same person alone.
            let silent = |c: &mut Value| {
                c["sub"] = "s-3".into();
                c.as_object_mut().unwrap().remove("email");
            };
            *s.fake.info.lock().unwrap() =
                json!({"sub": "other", "email": "admin@north.example", "email_verified": true});
            assert_eq!(s.come(&key, &header, silent).await.get("code"), "sso.unknown_person");
            *s.fake.info.lock().unwrap() =
                json!({"sub": "s-3", "email": "admin@north.example", "email_verified": true});
            assert_eq!(s.come(&key, &header, silent).await.status, StatusCode::OK);

            let t = stand(&kit, &key, Some("staff")).await;
            let made = t.come(&key, &header, stranger).await;
            assert_eq!(made.json["user"]["roles"], json!(["staff"]), "{}", made.text);
            // Another clinic has no such provider.
            let request = http::Request::builder()
                .uri("/api/identity/sso")
                .header("host", "south.localhost");
            let south = kit.send(request.body(axum::body::Body::empty()).unwrap()).await;
            assert_eq!(south.json, json!({"providers": []}));
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn what_is_not_so_is_not_believed() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let (key, rsa, stranger) = (Key::ec(), Key::rsa(), Key::ec());
            let header = json!({"alg": "ES384", "kid": "k1"});
            let s = stand(&kit, &key, Some("staff")).await;
            let now = w.ctx.clock.now_ms() / 1000;
            let mut seen = 0;
            let lies: [(&str, Lie); 16] = [
                ("another issuer", |c, _| c["iss"] = "https://evil.example".into()),
                ("another audience", |c, _| c["aud"] = "them".into()),
                ("two audiences, no azp", |c, _| c["aud"] = json!(["us", "them"])),
                ("azp of another", |c, _| {
                    (c["aud"], c["azp"]) = (json!(["us", "them"]), "them".into())
                }),
                ("no audience", |c, _| c["aud"] = json!([])),
                ("another nonce", |c, _| c["nonce"] = "x".into()),
                ("no nonce", |c, _| drop(c.as_object_mut().unwrap().remove("nonce"))),
                ("expired", |c, now| c["exp"] = (now - 61).into()),
                ("issued long ago", |c, now| c["iat"] = (now - 3600).into()),
                ("issued in the future", |c, now| c["iat"] = (now + 3600).into()),
                ("no subject", |c, _| c["sub"] = "".into()),
                ("subject with NUL", |c, _| c["sub"] = "a\0b".into()),
                ("address not verified", |c, _| c["email_verified"] = false.into()),
                ("address verified by silence", |c, _| {
                    drop(c.as_object_mut().unwrap().remove("email_verified"))
                }),
                ("address of another domain", |c, _| {
                    c["email"] = "dr@south.example".into()
                }),
                ("address of a like domain", |c, _| {
                    c["email"] = "dr@evil.north.example".into()
                }),
            ];
            for (name, lie) in lies {
                let answer = s.come(&key, &header, |c| lie(c, now)).await;
                assert!(
                    matches!(answer.status.as_u16(), 401 | 403),
                    "{name}: {} {}",
                    answer.status,
                    answer.text
                );
                seen += 1;
            }
            let forged = [
                ("none", Key::None, json!({"alg": "none", "kid": "k1"})),
                (
                    "HS256 with the key",
                    Key::Secret(key.public_bytes()),
                    json!({"alg": "HS256", "kid": "k1"}),
                ),
                ("a stranger's key", stranger, header.clone()),
                ("an unknown kid", Key::ec(), json!({"alg": "ES384", "kid": "k9"})),
                ("RS384 for an EC key", rsa, json!({"alg": "RS384", "kid": "k1"})),
                ("no kid", Key::ec(), json!({"alg": "ES384"})),
            ];
            for (name, key, header) in &forged {
                let answer = s.come(key, header, |_| ()).await;
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{name}: {}", answer.text);
                seen += 1;
            }
            // However many unknown keys are named, the provider is asked at most every half minute.
            let before = s.fake.fetched.load(Ordering::SeqCst);
            for n in 0..20 {
                s.come(&key, &json!({"alg": "ES384", "kid": format!("x{n}")}), |_| ())
                    .await;
            }
            assert!(s.fake.fetched.load(Ordering::SeqCst) <= before + 1);

            // The way back: state, browser, issuer.
            let good = async || {
                let (state, nonce, browser) = s.begin().await;
                *s.fake.token.lock().unwrap() = key.sign(&header, &s.claims(&nonce));
                (state, browser)
            };
            let (state, browser) = good().await;
            assert_eq!(
                s.finish(&state, "another").await.get("code"),
                "sso.over",
                "another browser"
            );
            assert_eq!(
                s.finish(&state, &browser).await.get("code"),
                "sso.over",
                "and then it is over"
            );
            let (state, browser) = good().await;
            let body = json!({"state": state, "code": "c", "iss": "https://evil.example", "browser": browser});
            assert_eq!(
                s.post("/api/identity/sso/finish", body).await.get("code"),
                "sso.over",
                "mix-up"
            );
            let (state, browser) = good().await;
            let body = json!({"state": state, "code": "c", "browser": browser});
            assert_eq!(
                s.post("/api/identity/sso/finish", body).await.get("code"),
                "sso.over",
                "no issuer"
            );
            let (state, browser) = good().await;
            assert_eq!(s.finish(&state, &browser).await.status, StatusCode::OK);
            assert_eq!(s.finish(&state, &browser).await.get("code"), "sso.over", "replayed");
            let (state, browser) = good().await;
            w.ctx.clock.advance(super::PATIENCE);
            assert_eq!(s.finish(&state, &browser).await.get("code"), "sso.over", "too late");
            assert_eq!(s.finish("made-up", "x").await.get("code"), "sso.over");
            seen += 7;
            #[expect(clippy::print_stdout, reason = "the count says how much was tried")]
            {
                println!("outside sign-in: {seen} hostile answers, 0 accepted");
            }
            // Who may describe a provider, and how.
            let token = kit.session(&w.north, &doctor(&kit.identity, w).await?).await?;
            for (who, body, status) in [
                (&token, settings("https://idp.example", None), 403),
                (&kit.admin, settings("http://idp.example?x=1", None), 422),
                (&kit.admin, settings("ftp://idp.example", None), 422),
                (&kit.admin, settings("https://idp.example", Some("admin")), 422),
            ] {
                let admin = kit.session(&w.north, &admin(&kit.identity, w).await?).await?;
                let who = if *who == kit.admin { &admin } else { who };
                let body = json!({"active": true, "settings": body});
                let answer = kit.api("POST", "/api/identity/sso-providers", who, Some(body)).await;
                assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
            }
            Ok(())
        })
    })
    .await;
}

async fn doctor(identity: &Identity, w: &medtech_kernel::testkit::World) -> Result<crate::User> {
    let found = identity.find_by_email(w.north.id, "dr@north.example").await?;
    Ok(found.expect("the doctor"))
}

async fn admin(identity: &Identity, w: &medtech_kernel::testkit::World) -> Result<crate::User> {
    let found = identity.find_by_email(w.north.id, "admin@north.example").await?;
    Ok(found.expect("the administrator"))
}
