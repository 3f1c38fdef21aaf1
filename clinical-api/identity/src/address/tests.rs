//! A new e-mail address on both engines: proved, told, taken back; and the ways to come by somebody's account through it.

use super::*;
use crate::{
    flows::{link_of, post, taken, with_codes},
    tests::{PASSWORD, TABLES, call, clinician, door},
};
use axum::Router;
use medtech_kernel::{
    auth::FRESH,
    testkit::{World, on_both_engines},
};
use serde_json::{Value, json};

const NORTH: &str = "north.localhost";
const OLD: &str = "old@north.example";
const NEW: &str = "new@north.example";

struct House<'a> {
    w: &'a World,
    identity: Arc<Identity>,
    app: Router,
    user: Uuid,
    browser: String,
}

async fn house(w: &World) -> Result<House<'_>> {
    w.ctx.bus.register("identity", Identity::consumes());
    w.ctx.bus.register("mail", &["account.mail"]);
    w.ctx.bus.register("told", &["user.changed"]);
    let (identity, app) = door(w);
    let user = identity.create_user(w.north.id, clinician(OLD)).await?.id;
    taken(w, "told").await?;
    Ok(House {
        w,
        identity,
        app,
        user,
        browser: id::token(),
    })
}

impl House<'_> {
    async fn enter(&self, email: &str) -> Option<String> {
        let body = json!({"email": email, "password": PASSWORD});
        let (_, body) = post(&self.app, "/sign-in", None, body).await;
        body["access_token"].as_str().map(str::to_owned)
    }

    /// Asks, and answers the letters that this made, by kind.
    async fn ask(&self, token: &str, email: &str) -> Result<Vec<Value>> {
        let (status, body) = self.asked(token, email).await;
        assert_eq!((status, body), (202, Value::Null));
        self.letters().await
    }

    async fn asked(&self, token: &str, email: &str) -> (u16, Value) {
        let body = json!({"email": email, "browser": self.browser});
        post(&self.app, "/me/email", Some(token), body).await
    }

    async fn letters(&self) -> Result<Vec<Value>> {
        for (kind, body) in taken(self.w, "identity").await? {
            let event = Event::new(&self.w.ctx.clock, self.w.north.id, kind, "address", &body)?;
            self.identity.on_event(event).await?;
        }
        let all = taken(self.w, "mail").await?;
        Ok(all.into_iter().map(|(_, body)| body).collect())
    }

    async fn confirm(&self, link: &str) -> (u16, String) {
        self.at(NORTH, "/email/confirm", json!({"link": link, "browser": self.browser}))
            .await
    }

    async fn undo(&self, link: &str) -> (u16, String) {
        self.at(NORTH, "/email/undo", json!({"link": link})).await
    }

    async fn at(&self, host: &str, path: &str, body: Value) -> (u16, String) {
        let (status, body) = call(&self.app, "POST", host, path, None, Some(body)).await;
        (status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
    }

    async fn works(&self, token: &str) -> bool {
        call(&self.app, "GET", NORTH, "/me", Some(token), None).await.0 == 200
    }
}

fn letter<'a>(all: &'a [Value], kind: &str) -> &'a Value {
    all.iter()
        .find(|l| l["letter"] == kind)
        .unwrap_or_else(|| panic!("no {kind} among {all:?}"))
}

#[tokio::test]
async fn a_new_address_is_proved_told_and_holds_from_then_on() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let h = house(w).await?;
            let (token, other) = (h.enter(OLD).await.unwrap(), h.enter(OLD).await.unwrap());
            let letters = h.ask(&token, "  New@North.example ").await?;
            assert_eq!(letters.len(), 2, "{letters:?}");
            let (to_new, to_old) = (letter(&letters, "address_confirm"), letter(&letters, "address_asked"));
            assert_eq!((&to_new["address"], &to_old["address"]), (&json!(NEW), &json!(OLD)));
            assert!(
                !to_old.to_string().contains(NEW),
                "the old mailbox is not told the new one"
            );
            // Nothing is changed by asking.
            let (_, me) = call(&h.app, "GET", NORTH, "/me/profile", Some(&token), None).await;
            assert_eq!((&me["email"], &me["new_email"]), (&json!(OLD), &json!(NEW)));
            assert!(h.enter(NEW).await.is_none());

            // Sign-in links of before lead nowhere afterwards.
            let before = h.identity.issue_link(w.north.id, h.user, 3_600_000, 1).await?;
            assert_eq!(h.confirm(&link_of(to_new)).await, (204, String::new()));
            for token in [&token, &other] {
                assert!(!h.works(token).await, "every session is over");
            }
            assert!(h.enter(OLD).await.is_none(), "the old name opens nothing");
            let token = h.enter(NEW).await.unwrap();
            let (_, me) = call(&h.app, "GET", NORTH, "/me/profile", Some(&token), None).await;
            assert_eq!((&me["email"], &me["new_email"]), (&json!(NEW), &Value::Null));
            assert_eq!(h.at(NORTH, "/links/exchange", json!({"link": before})).await.0, 410);
            assert_eq!(h.identity.find_by_email(w.north.id, NEW).await?.unwrap().id, h.user);
            assert!(h.identity.find_by_email(w.north.id, OLD).await?.is_none());
            // Whoever sends mails writes to the new one, and the old one is told.
            assert_eq!(taken(w, "told").await?.last().unwrap().1["email"], NEW);
            let letters = h.letters().await?;
            assert_eq!(letter(&letters, "address_changed")["address"], OLD);
            // Once; and the old address is free for somebody else.
            assert_eq!(h.confirm(&link_of(to_new)).await, (410, "link.used".into()));
            h.identity.create_user(w.north.id, clinician(OLD)).await?;
            let rows = w
                .ctx
                .db
                .query(
                    w.north.id,
                    "SELECT detail FROM audit WHERE tenant = $1 ORDER BY seq",
                    &[],
                )
                .await?;
            let details: Vec<String> = rows.iter().map(|r| r.string(0)).collect::<Result<_>>()?;
            for expected in ["e-mail address asked for", "address link", "e-mail address"] {
                assert!(details.iter().any(|d| d == expected), "{expected}: {details:?}");
            }
            assert!(details.iter().all(|d| !d.contains('@')), "{details:?}");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn whoever_holds_the_old_address_takes_it_back_before_and_after() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let h = house(w).await?;
            // Before it is confirmed.
            let token = h.enter(OLD).await.unwrap();
            let letters = h.ask(&token, NEW).await?;
            let back = link_of(letter(&letters, "address_asked"));
            assert_eq!(
                h.confirm(&back).await,
                (403, "link.unknown".into()),
                "a link of the other kind"
            );
            assert_eq!(
                h.undo(&link_of(letter(&letters, "address_confirm"))).await,
                (403, "link.unknown".into())
            );
            assert_eq!(h.undo(&back).await, (204, String::new()));
            assert!(!h.works(&token).await, "whoever asked is out");
            assert_eq!(
                h.confirm(&link_of(letter(&letters, "address_confirm"))).await,
                (410, "link.used".into())
            );
            assert_eq!(h.undo(&back).await, (410, "link.used".into()));
            h.letters().await?;

            // After it, and after one more: the first old address stands again, and nothing leads away from it.
            let token = h.enter(OLD).await.unwrap();
            let letters = h.ask(&token, NEW).await?;
            let asked = link_of(letter(&letters, "address_asked"));
            assert_eq!(h.confirm(&link_of(letter(&letters, "address_confirm"))).await.0, 204);
            let changed = link_of(letter(&h.letters().await?, "address_changed"));
            let token = h.enter(NEW).await.unwrap();
            let letters = h.ask(&token, "third@north.example").await?;
            let thirds = link_of(letter(&letters, "address_asked"));
            assert_eq!(h.confirm(&link_of(letter(&letters, "address_confirm"))).await.0, 204);
            h.letters().await?;
            let token = h.enter("third@north.example").await.unwrap();
            let waits = h.ask(&token, "fourth@north.example").await?;
            assert_eq!(h.undo(&changed).await, (204, String::new()));
            assert!(!h.works(&token).await);
            assert!(h.enter(OLD).await.is_some());
            assert!(h.enter("third@north.example").await.is_none());
            assert_eq!(letter(&h.letters().await?, "security_changed")["address"], OLD);
            for link in [&asked, &thirds, &changed] {
                assert_eq!(h.undo(link).await, (410, "link.used".into()));
            }
            assert_eq!(
                h.confirm(&link_of(letter(&waits, "address_confirm"))).await,
                (410, "link.used".into())
            );
            // Three days, and no longer.
            let token = h.enter(OLD).await.unwrap();
            let letters = h.ask(&token, NEW).await?;
            assert_eq!(h.confirm(&link_of(letter(&letters, "address_confirm"))).await.0, 204);
            let late = link_of(letter(&h.letters().await?, "address_changed"));
            w.ctx.clock.advance(UNDO);
            assert_eq!(h.undo(&late).await, (403, "link.expired".into()));
            assert!(h.enter(NEW).await.is_some());
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn who_has_an_account_is_told_to_nobody_but_them() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let h = house(w).await?;
            let theirs = "theirs@north.example";
            h.identity.create_user(w.north.id, clinician(theirs)).await?;
            let token = h.enter(OLD).await.unwrap();
            let free = h.asked(&token, NEW).await;
            let (_, waits) = call(&h.app, "GET", NORTH, "/me/profile", Some(&token), None).await;
            h.letters().await?;
            assert_eq!(h.asked(&token, theirs).await, free);
            let (_, waits_too) = call(&h.app, "GET", NORTH, "/me/profile", Some(&token), None).await;
            assert_eq!(
                (&waits["new_email"], &waits_too["new_email"]),
                (&json!(NEW), &json!(theirs))
            );
            let letters = h.letters().await?;
            let told = letter(&letters, "address_taken");
            assert_eq!((&told["address"], told.get("path")), (&json!(theirs), None));
            assert!(letters.iter().all(|l| l["letter"] != "address_confirm"), "{letters:?}");
            assert_eq!(letter(&letters, "address_asked")["address"], OLD, "as for a free one");

            // A mailbox of a stranger gets no more letters than a few, and nobody asks without end.
            for n in 0..3 {
                assert_eq!(h.ask(&token, theirs).await?.len(), 2, "{n}");
            }
            assert_eq!(h.asked(&token, theirs).await.0, 429);
            let another = h
                .identity
                .create_user(w.north.id, clinician("third@north.example"))
                .await?;
            let second = h.enter("third@north.example").await.unwrap();
            assert_eq!(h.ask(&second, theirs).await?.len(), 2, "the fifth");
            let letters = h.ask(&second, theirs).await?;
            assert_eq!(letters.len(), 1, "the sixth is not sent: {letters:?}");
            assert_eq!(another.email, "third@north.example");
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn no_way_round_leads_to_somebody_elses_account() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let h = house(w).await?;
            let token = h.enter(OLD).await.unwrap();
            for wrong in ["", "no address", "a@", "@b", "a b@c.example"] {
                assert_eq!(h.asked(&token, wrong).await.0, 422, "{wrong}");
            }
            let (status, body) = h.asked(&token, OLD).await;
            assert_eq!((status, &body["code"]), (422, &json!("identity.email_same")));
            let body = json!({"email": NEW, "browser": "short"});
            assert_eq!(post(&h.app, "/me/email", Some(&token), body).await.0, 400);
            assert_eq!(
                post(&h.app, "/me/email", None, json!({"email": NEW, "browser": h.browser}))
                    .await
                    .0,
                401
            );

            // Another browser, another clinic, a made-up link.
            let letters = h.ask(&token, NEW).await?;
            let link = link_of(letter(&letters, "address_confirm"));
            for browser in [json!(null), json!(id::token())] {
                let body = json!({"link": link, "browser": browser});
                assert_eq!(
                    h.at(NORTH, "/email/confirm", body).await,
                    (403, "link.other_browser".into())
                );
            }
            let body = json!({"link": link, "browser": h.browser});
            assert_eq!(
                h.at("south.localhost", "/email/confirm", body).await,
                (403, "link.unknown".into())
            );
            let back = json!({"link": link_of(letter(&letters, "address_asked"))});
            assert_eq!(
                h.at("south.localhost", "/email/undo", back).await,
                (403, "link.unknown".into())
            );
            assert_eq!(h.confirm(&id::token()).await, (403, "link.unknown".into()));
            assert_eq!(
                h.at(NORTH, "/links/exchange", json!({"link": link})).await.0,
                403,
                "no way in"
            );
            assert_eq!(h.identity.find_by_email(w.north.id, OLD).await?.unwrap().id, h.user);

            // A later request takes the place of this one; given up, neither leads anywhere.
            let later = h.ask(&token, "later@north.example").await?;
            assert_eq!(h.confirm(&link).await, (410, "link.used".into()));
            let gone = call(&h.app, "DELETE", NORTH, "/me/email", Some(&token), None).await;
            assert_eq!(gone.0, 204);
            assert_eq!(
                h.confirm(&link_of(letter(&later, "address_confirm"))).await,
                (410, "link.used".into())
            );
            // Ten minutes.
            let letters = h.ask(&token, NEW).await?;
            w.ctx.clock.advance(links::LIFE);
            assert_eq!(
                h.confirm(&link_of(letter(&letters, "address_confirm"))).await,
                (403, "link.expired".into())
            );
            // A proof of some time ago is none, nor is a password where there is a second factor.
            const {
                assert!(
                    links::LIFE + 60_000 > FRESH,
                    "no longer fresh, and not silent for a quarter of an hour"
                )
            };
            w.ctx.clock.advance(60_000);
            let (status, body) = h.asked(&token, NEW).await;
            assert_eq!((status, &body["code"]), (403, &json!("auth.step_up")));
            w.ctx.clock.advance(WINDOW);
            let (strong, _) = with_codes(w, &h.app, OLD).await;
            let (_, first) = post(&h.app, "/sign-in", None, json!({"email": OLD, "password": PASSWORD})).await;
            assert_eq!(first.get("access_token"), None, "a password alone is no session there");

            // Locked meanwhile.
            let letters = h.ask(&strong, NEW).await?;
            w.ctx
                .db
                .write(w.north.id, {
                    let user = h.user;
                    move |tx| Box::pin(async move { crate::people::store::set_active(tx, user, false).await })
                })
                .await?;
            assert_eq!(
                h.confirm(&link_of(letter(&letters, "address_confirm"))).await,
                (403, "link.unknown".into())
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn two_who_want_one_address_and_one_link_opened_twice() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let h = house(w).await?;
            let rival = h
                .identity
                .create_user(w.north.id, clinician("rival@north.example"))
                .await?
                .id;
            let (mine, theirs) = (
                h.enter(OLD).await.unwrap(),
                h.enter("rival@north.example").await.unwrap(),
            );
            let elsewhere = match w.another_server().await? {
                Some(ctx) => {
                    let there = Arc::new(Identity::new(ctx.clone()));
                    there.routes().layer(axum::Extension(ctx))
                }
                None => h.app.clone(),
            };
            let confirm = async |app: &Router, link: &str| {
                let body = json!({"link": link, "browser": h.browser});
                post(app, "/email/confirm", None, body).await.0
            };
            // The same link on two servers.
            let link = link_of(letter(&h.ask(&mine, "first@north.example").await?, "address_confirm"));
            let (one, two) = tokio::join!(confirm(&h.app, &link), confirm(&elsewhere, &link));
            let mut both = [one, two];
            both.sort_unstable();
            assert!(both[0] == 204 && matches!(both[1], 410 | 503), "{both:?}");
            h.letters().await?;
            // One address for two people.
            let mine = {
                drop(mine);
                h.enter("first@north.example").await.unwrap()
            };
            let a = link_of(letter(&h.ask(&mine, NEW).await?, "address_confirm"));
            let b = link_of(letter(&h.ask(&theirs, NEW).await?, "address_confirm"));
            let (one, two) = tokio::join!(confirm(&h.app, &a), confirm(&elsewhere, &b));
            let mut both = [one, two];
            both.sort_unstable();
            assert!(both[0] == 204 && matches!(both[1], 409 | 503), "{both:?}");
            let owner = h.identity.find_by_email(w.north.id, NEW).await?.unwrap().id;
            assert_eq!(owner, if one == 204 { h.user } else { rival });
            let loser = if one == 204 {
                "rival@north.example"
            } else {
                "first@north.example"
            };
            assert!(h.enter(loser).await.is_some(), "nothing is lost by losing");
            Ok(())
        })
    })
    .await;
}
