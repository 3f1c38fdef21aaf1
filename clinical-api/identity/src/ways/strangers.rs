//! Guessing: strangers keep nobody out, and get in nowhere.

use super::*;

#[tokio::test]
async fn a_thousand_guesses_from_fifty_networks_do_not_keep_the_owner_out() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            let email = "a@north.example";
            identity.create_user(w.north.id, clinician(email)).await?;
            let mut owner = Visitor::new(&app, "198.51.100.0/24");
            assert_eq!(owner.password(email, PASSWORD).await.0, 200);
            let device = passkey(&owner).await;
            // A passkey makes the password a first step: its right answer is a ticket.
            let before = identity.hasher.filled();
            let mut refused = 0;
            for n in 0..1000 {
                let mut stranger = Visitor::new(&app, &format!("203.0.{}.0/24", n % 50));
                let (status, body) = stranger.password(email, "not the password").await;
                assert!(status == 401 || status == 429, "{body}");
                refused += i64::from(status == 429);
                w.ctx.clock.advance(60_000);
            }
            let tried = guesses(&identity, before);
            assert_eq!(tried + refused, 1000);
            assert!(tried <= OF_STRANGERS, "{tried} guesses within a day");
            // The owner, where they signed in before: by password, although every stranger is refused now.
            let (status, body) = Visitor::new(&app, "203.0.113.0/24").password(email, PASSWORD).await;
            assert_eq!((status, &body["code"]), (429, &json!("identity.too_many_attempts")));
            let (status, body) = owner.password(email, PASSWORD).await;
            assert_eq!(status, 200, "{body}");
            assert_eq!(body["second_factor"]["methods"], json!(["passkey"]));
            // And by passkey from anywhere, a browser that nobody has seen.
            let mut device = device;
            let elsewhere = Visitor::new(&app, "203.0.7.0/24");
            let (status, body) = by_passkey(&elsewhere, &mut device).await;
            assert_eq!((status, &body["assurance"]), (200, &json!("two")), "{body}");
            // A day later strangers are heard again.
            w.ctx.clock.advance(DAY);
            let (status, _) = Visitor::new(&app, "203.0.113.0/24").password(email, PASSWORD).await;
            assert_eq!(status, 200);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_known_browser_has_limits_of_its_own_and_a_borrowed_secret_is_no_key() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            for email in ["a@north.example", "b@north.example"] {
                identity.create_user(w.north.id, clinician(email)).await?;
            }
            let mut owner = Visitor::new(&app, "198.51.100.0/24");
            owner.password("a@north.example", PASSWORD).await;
            // Its own guesses end too: ten in a quarter of an hour, fifty in a day.
            let before = identity.hasher.filled();
            for n in 0..100 {
                owner.password("a@north.example", "not the password").await;
                if n % 10 == 9 {
                    w.ctx.clock.advance(WINDOW);
                }
            }
            assert_eq!(guesses(&identity, before), OF_BROWSER);
            // For another account the same browser is a stranger, and so is what is no secret at all.
            for secret in [owner.secret.clone(), "short".into(), String::new()] {
                let mut thief = Visitor {
                    secret,
                    ..Visitor::new(&app, "203.0.113.0/24")
                };
                let mut last = 0;
                for _ in 0..=ATTEMPTS {
                    last = thief.password("b@north.example", "not the password").await.0;
                }
                assert_eq!(last, 429);
            }
            // A right password gives the strangers' attempts back.
            let mut friend = Visitor::new(&app, "192.0.2.0/24");
            for _ in 0..3 * OF_STRANGERS {
                friend.token = None;
                friend.secret = URL_SAFE_NO_PAD.encode(id::random::<32>());
                assert_eq!(friend.password("b@north.example", PASSWORD).await.0, 200);
            }
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn who_is_signed_in_is_not_reached_by_strangers_guesses() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            let email = "a@north.example";
            identity.create_user(w.north.id, clinician(email)).await?;
            let mut owner = Visitor::new(&app, "198.51.100.0/24");
            owner.password(email, PASSWORD).await;
            for n in 0..200 {
                Visitor::new(&app, &format!("203.0.{n}.0/24"))
                    .password(email, "wrong, wrong")
                    .await;
            }
            let (status, proved) = owner.post("/step-up/password", json!({"password": PASSWORD})).await;
            assert_eq!(status, 200, "{proved}");
            owner.token = proved["access_token"].as_str().map(str::to_owned);
            // In an open session there are ten tries.
            for _ in 0..ATTEMPTS {
                assert_eq!(owner.post("/step-up/password", json!({"password": "no"})).await.0, 422);
            }
            assert_eq!(
                owner.post("/step-up/password", json!({"password": PASSWORD})).await.0,
                429
            );
            Ok(())
        })
    })
    .await;
}
