//! Tests over all ways in: how strong each is, how guessing is hindered, which session ends with which, what the trail says.

mod secrets;
mod strangers;

use super::*;
use crate::{
    caller::BROWSER,
    cost::{Cost, FLOOR},
    guesses::{ATTEMPTS, OF_BROWSER, OF_STRANGERS, WINDOW},
    passkeys::authenticator::{Authenticator, Signer},
    tests::{PASSWORD, TABLES, clinician, door},
};
use ::http::{HeaderMap, Request, header};
use axum::body::Body;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http_body_util::BodyExt;
use medtech_kernel::{
    auth::FRESH,
    http::Network,
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};
use tower::ServiceExt;

const DAY: Millis = 86_400_000;
const ORIGIN: &str = "http://north.localhost";

/// A browser somewhere.
#[derive(Clone)]
struct Visitor {
    app: Router,
    secret: String,
    network: String,
    token: Option<String>,
}

impl Visitor {
    fn new(app: &Router, network: &str) -> Self {
        Self {
            app: app.clone(),
            secret: URL_SAFE_NO_PAD.encode(id::random::<32>()),
            network: network.to_owned(),
            token: None,
        }
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value, HeaderMap) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "north.localhost")
            .header(BROWSER, &self.secret)
            .extension(Network(self.network.parse().unwrap()));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = match body {
            Value::Null => Body::empty(),
            json => {
                request = request.header("content-type", "application/json");
                Body::from(json.to_string())
            }
        };
        let answer = self.app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null), headers)
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let (status, body, _) = self.ask("POST", path, body).await;
        (status, body)
    }

    /// Signs in by password, and holds the session.
    async fn password(&mut self, email: &str, password: &str) -> (u16, Value) {
        let answer = self
            .post("/sign-in", json!({"email": email, "password": password}))
            .await;
        if let Some(token) = answer.1["access_token"].as_str() {
            self.token = Some(token.to_owned());
        }
        answer
    }

    async fn is_in(&self) -> bool {
        self.ask("GET", "/me", Value::Null).await.0 == 200
    }
}

/// A passkey for whoever is signed in here.
async fn passkey(who: &Visitor) -> Authenticator {
    let mut device = Authenticator::new(Signer::es256());
    let (_, started) = who.post("/passkeys/register/start", json!({})).await;
    let made = device.create(&started, ORIGIN, |_| {});
    assert_eq!(who.post("/passkeys/register/finish", made).await.0, 201);
    device
}

async fn by_passkey(who: &Visitor, device: &mut Authenticator) -> (u16, Value) {
    let (_, started) = who.post("/passkeys/authenticate/start", json!({})).await;
    let proof = device.get(&started, ORIGIN, |_| {});
    who.post("/passkeys/authenticate/finish", proof).await
}

/// Hashing is the work of a guess: counted by what it fills.
fn guesses(identity: &Identity, since: u64) -> i64 {
    i64::try_from((identity.hasher.filled() - since) / FLOOR.work()).unwrap()
}

#[tokio::test]
async fn a_password_is_hashed_anew_when_more_is_asked_and_never_expires() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            let email = "a@north.example";
            identity.create_user(w.north.id, clinician(email)).await?;
            let stored = async || -> Result<String> {
                let sql = "SELECT password FROM identity_user WHERE tenant = $1";
                w.ctx.db.query_one(w.north.id, sql, &[]).await?.string(0)
            };
            let at_first = stored().await?;
            identity.hasher.set(Cost {
                memory: 20_000,
                passes: 3,
            });
            let mut owner = Visitor::new(&app, "198.51.100.0/24");
            assert_eq!(owner.password(email, "not the password").await.0, 401);
            assert_eq!(stored().await?, at_first, "a wrong one renews nothing");
            assert_eq!(owner.password(email, PASSWORD).await.0, 200);
            let renewed = stored().await?;
            assert!(renewed.starts_with("$argon2id$v=19$m=20000,t=3,p=1$"), "{renewed}");
            assert_eq!(owner.password(email, PASSWORD).await.0, 200);
            assert_eq!(stored().await?, renewed);
            // Two years later it still signs in, and nobody is asked for another one.
            w.ctx.clock.advance(731 * DAY);
            let (status, body) = owner.password(email, PASSWORD).await;
            assert_eq!((status, &body["assurance"]), (200, &json!("one")), "{body}");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn what_was_measured_is_kept_and_shared() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, _) = door(w);
            assert!(store::hash_cost(&w.ctx.db).await?.is_none());
            identity.calibrate().await?;
            let (cost, took) = store::hash_cost(&w.ctx.db).await?.expect("measured");
            assert!(cost.work() >= FLOOR.work() && took >= 0, "{cost:?}");
            // Another server, or the next start, takes it as it is; a cheaper one measured later does not take its place.
            let dear = Cost {
                memory: FLOOR.memory,
                passes: 4,
            };
            let change = w.ctx.db.write(TenantId::SYSTEM, move |tx| {
                Box::pin(async move { store::set_hash_cost(tx, dear, 1).await })
            });
            change.await?;
            let (next, _) = door(w);
            next.calibrate().await?;
            let hash = next.hasher.hash([0; 32], "correct horse battery", &[]).await?;
            assert!(hash.contains("m=19456,t=4,p=1"), "{hash}");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn signing_in_anew_ends_the_session_of_before_and_twenty_stand_at_most() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            let email = "a@north.example";
            let user = identity.create_user(w.north.id, clinician(email)).await?;
            let mut tab = Visitor::new(&app, "198.51.100.0/24");
            tab.password(email, PASSWORD).await;
            let before = tab.clone();
            assert!(before.is_in().await);
            tab.password(email, PASSWORD).await;
            assert_ne!(tab.token, before.token);
            assert!(tab.is_in().await && !before.is_in().await);
            // A wrong password ends nothing, neither does a token that is none.
            tab.password(email, "not the password").await;
            assert!(tab.is_in().await);
            let mut odd = Visitor::new(&app, "198.51.100.0/24");
            odd.token = Some("mt_1_none".into());
            assert_eq!(odd.password(email, PASSWORD).await.0, 200);

            let mut tabs = vec![tab, odd];
            while tabs.len() < SESSIONS + 3 {
                w.ctx.clock.advance(1000);
                let mut next = Visitor::new(&app, "198.51.100.0/24");
                assert_eq!(next.password(email, PASSWORD).await.0, 200);
                tabs.push(next);
            }
            let mut stand = Vec::new();
            for tab in &tabs {
                stand.push(tab.is_in().await);
            }
            let oldest = stand.iter().take_while(|s| !**s).count();
            assert_eq!(
                (oldest, stand.iter().filter(|s| **s).count()),
                (3, SESSIONS),
                "{stand:?}"
            );
            assert_eq!(w.ctx.sessions.list(w.north.id, &user.subject()).await?.len(), SESSIONS);
            Ok(())
        })
    })
    .await;
}

/// The table of docs/security/sign-in.md: every way in, and how surely it says who somebody is.
#[tokio::test]
async fn every_way_in_gives_the_assurance_that_is_written_down() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            let mut found: Vec<(&str, String)> = Vec::new();
            let user = identity.create_user(w.north.id, clinician("a@north.example")).await?;
            let mut here = Visitor::new(&app, "198.51.100.0/24");
            let (_, body) = here.password("a@north.example", PASSWORD).await;
            found.push(("password", body["assurance"].as_str().unwrap().into()));
            let mut device = passkey(&here).await;
            let (_, body) = by_passkey(&here, &mut device).await;
            found.push(("passkey", body["assurance"].as_str().unwrap().into()));
            here.token = body["access_token"].as_str().map(str::to_owned);
            let (_, codes) = here.post("/recovery", json!({})).await;
            let fresh = Visitor::new(&app, "198.51.100.0/24");
            let ask = json!({"email": "a@north.example", "password": PASSWORD});
            let (_, asked) = fresh.post("/sign-in", ask.clone()).await;
            assert!(
                asked.get("access_token").is_none(),
                "with a second factor a password opens nothing: {asked}"
            );
            let body = json!({"ticket": asked["second_factor"]["ticket"], "recovery": codes["codes"][0]});
            let (_, body) = fresh.post("/sign-in/second", body).await;
            found.push(("password and recovery code", body["assurance"].as_str().unwrap().into()));
            let (_, asked) = fresh.post("/sign-in", ask).await;
            let ticket = &asked["second_factor"]["ticket"];
            let (_, started) = fresh.post("/sign-in/second/passkey", json!({"ticket": ticket})).await;
            let proof = device.get(&started, ORIGIN, |_| {});
            let (_, body) = fresh
                .post("/sign-in/second", json!({"ticket": ticket, "passkey": proof}))
                .await;
            found.push(("password and passkey", body["assurance"].as_str().unwrap().into()));
            let link = identity.issue_link(w.north.id, user.id, 60_000, 1).await?;
            let (_, body) = fresh.post("/links/exchange", json!({"link": link})).await;
            found.push(("link", body["assurance"].as_str().unwrap().into()));
            let token = identity.issue_token(w.north.id, user.id, 60_000, "test").await?;
            let who = w.ctx.sessions.verify(w.north.id, &token).await?;
            found.push(("`medtech token`", who.grant.assurance.name().into()));
            // A factor that was there before any second factor is asked for: the session that set it up has proved it.
            let page = include_str!("../../../docs/security/sign-in.md");
            for (way, assurance) in &found {
                let row = page.lines().find(|line| line.starts_with(&format!("| {way} |")));
                let row = row.unwrap_or_else(|| panic!("the page does not tell of {way}"));
                assert!(
                    row.contains(&format!("| {assurance} |")),
                    "{way} gives {assurance}: {row}"
                );
            }
            // No way leads past the page: what opens a session says one of these in the trail.
            for line in page.lines().filter(|l| l.starts_with("| ") && l.contains("| one |")) {
                assert!(!line.contains("| two |"), "{line}");
            }
            let figures = [
                format!("{ATTEMPTS} in 15 minutes"),
                format!("{OF_BROWSER} a day"),
                format!("{OF_STRANGERS} a day"),
                format!("{} in 15 minutes", guesses::OF_NETWORK),
                format!("{} hours", SESSION / 3_600_000),
                format!("{SESSIONS} sessions"),
                format!("{} minutes", FRESH / 60_000),
            ];
            for figure in figures {
                assert!(page.contains(&figure), "the page does not say {figure}");
            }
            for word in password::WORDS {
                assert!(page.contains(&format!("`{word}`")), "{word}");
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn every_sign_in_stands_in_the_trail_also_the_failed_and_the_refused() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            let user = identity.create_user(w.north.id, clinician("a@north.example")).await?;
            let mut here = Visitor::new(&app, "198.51.100.0/24");
            here.password("a@north.example", PASSWORD).await;
            let (status, _, headers) = here.ask("POST", "/sign-out", Value::Null).await;
            assert_eq!(
                (status, headers["clear-site-data"].to_str().ok()),
                (204, Some("\"cache\""))
            );
            assert!(!here.is_in().await);
            for _ in 0..=ATTEMPTS {
                here.password("a@north.example", "not the password").await;
            }
            let stranger = Visitor::new(&app, "203.0.113.0/24");
            stranger
                .post("/sign-in", json!({"email": "nobody@north.example", "password": "x"}))
                .await;
            let trail = audit::page(&w.ctx.db, w.north.id, &Default::default(), 50).await?;
            let told: Vec<(String, String, String)> = trail
                .iter()
                .filter(|e| e.target == "sign-in" || e.target == "sign-out")
                .map(|e| (e.target.clone(), e.outcome.clone(), e.detail.clone()))
                .collect();
            let count = |target: &str, outcome: &str, detail: &str| {
                let wanted = (target.to_owned(), outcome.to_owned(), detail.to_owned());
                told.iter().filter(|t| **t == wanted).count()
            };
            assert_eq!(count("sign-in", "success", "password"), 1, "{told:?}");
            assert_eq!(count("sign-out", "success", "session"), 1);
            assert_eq!(
                count("sign-in", "denied", "password"),
                usize::try_from(ATTEMPTS).unwrap() + 1
            );
            assert_eq!(count("sign-in", "denied", "password, too many attempts"), 1);
            let own = trail.iter().filter(|e| e.actor == user.subject()).count();
            assert!(own >= 2, "who came in is named");
            let all = format!("{trail:?}");
            assert!(!all.contains(PASSWORD) && !all.contains("not the password"));
            Ok(())
        })
    })
    .await;
}

/// What changes how one signs in asks for a proof of a moment ago, every such door.
#[tokio::test]
async fn every_change_of_what_one_signs_in_with_asks_for_a_fresh_proof() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            identity.create_user(w.north.id, clinician("a@north.example")).await?;
            let mut settings = (*w.north.settings).clone();
            settings.idle_minutes = 720;
            w.ctx.tenants.set_settings(w.north.id, &settings).await?;
            let mut here = Visitor::new(&app, "198.51.100.0/24");
            here.password("a@north.example", PASSWORD).await;
            passkey(&here).await;
            let (_, keys, _) = here.ask("GET", "/passkeys", Value::Null).await;
            let (_, sessions, _) = here.ask("GET", "/sessions", Value::Null).await;
            let other = Visitor::new(&app, "198.51.100.0/24");
            let link = identity
                .issue_link(w.north.id, keys_owner(&w.ctx, w).await?, 60_000, 1)
                .await?;
            other.post("/links/exchange", json!({"link": link})).await;
            let own = sessions["sessions"][0]["id"].as_str().unwrap().to_owned();
            let (_, sessions, _) = here.ask("GET", "/sessions", Value::Null).await;
            let theirs = sessions["sessions"]
                .as_array()
                .unwrap()
                .iter()
                .find(|s| s["id"] != json!(own))
                .unwrap();
            w.ctx.clock.advance(FRESH + 1);
            let doors = [
                ("POST", "/passkeys/register/start".to_owned()),
                (
                    "DELETE",
                    format!("/passkeys/{}", keys["passkeys"][0]["id"].as_str().unwrap()),
                ),
                ("POST", "/totp/start".into()),
                ("POST", "/totp/confirm".into()),
                ("DELETE", "/totp".into()),
                ("POST", "/recovery".into()),
                ("POST", "/me/password".into()),
                ("DELETE", format!("/sessions/{}", theirs["id"].as_str().unwrap())),
                ("POST", "/sessions/end-others".into()),
            ];
            for (method, path) in &doors {
                let (status, body, _) = here
                    .ask(
                        method,
                        path,
                        json!({"new": "a kite over the harbour", "code": "000000"}),
                    )
                    .await;
                assert_eq!(
                    (status, &body["code"]),
                    (403, &json!("auth.step_up")),
                    "{method} {path}: {body}"
                );
            }
            Ok(())
        })
    })
    .await;
}

async fn keys_owner(ctx: &Ctx, w: &World) -> Result<Uuid> {
    let row = ctx.db.query_one(
        w.north.id,
        "SELECT user_id FROM identity_passkey WHERE tenant = $1",
        &[],
    );
    row.await?.uuid(0)
}
