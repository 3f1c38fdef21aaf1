//! How sessions change hands and end: a new token, silence, time, too many at once.
#![allow(clippy::expect_used, reason = "a failed test panics")]

use medtech_kernel::{
    Result, TenantId,
    auth::{Assurance, FRESH, Grant, NewSession, Revoked, Role},
    bus::Event,
    testkit::{World, on_both_engines},
};
use tokio::sync::mpsc;

const IDLE: i64 = 15 * 60_000;

async fn issue(w: &World, subject: &str, idle_ms: Option<i64>) -> Result<String> {
    issue_to(w, subject, idle_ms, Assurance::One.into()).await
}

/// A token of an application that acts for the subject.
async fn issue_to_application(w: &World, subject: &str) -> Result<String> {
    let grant = Grant {
        client: Some("app".into()),
        scopes: Some("patient/*.rs".into()),
        ..Grant::from(Assurance::One)
    };
    issue_to(w, subject, None, grant).await
}

async fn issue_to(w: &World, subject: &str, idle_ms: Option<i64>, grant: Grant) -> Result<String> {
    let (sessions, subject) = (w.ctx.sessions.clone(), subject.to_owned());
    let issued = w.ctx.db.write(w.north.id, move |tx| {
        Box::pin(async move {
            let new = NewSession {
                name: subject.clone(),
                subject,
                roles: vec![Role::Clinician],
                ttl_ms: 12 * 3_600_000,
                note: "test".into(),
                grant,
                idle_ms,
            };
            sessions.issue(tx, new).await.map(|(token, _)| token)
        })
    });
    issued.await
}

async fn code(w: &World, token: &str) -> Option<&'static str> {
    w.ctx.sessions.verify(w.north.id, token).await.err().map(|e| e.code)
}

/// The ends that were announced, in order.
async fn announced(live: &mut mpsc::Receiver<Event>, count: usize) -> Vec<Revoked> {
    let mut ends = Vec::new();
    while ends.len() < count {
        let event = live.recv().await.expect("an event");
        if event.kind == "session.revoked" {
            ends.push(event.parse().expect("a body"));
        }
    }
    ends
}

#[tokio::test]
async fn a_fresh_proof_gives_a_new_token_and_the_old_one_opens_nothing() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let token = issue(w, "user:1", None).await?;
            let before = w.ctx.sessions.verify(w.north.id, &token).await?;
            w.ctx.clock.advance(FRESH + 1);
            assert!(before.require_fresh(w.ctx.clock.now_ms()).is_err());
            let sessions = w.ctx.sessions.clone();
            let renewed = w.ctx.db.write(w.north.id, move |tx| {
                Box::pin(async move { sessions.renew(tx, before.session, Assurance::Two).await })
            });
            let renewed = renewed.await?;
            assert_ne!(renewed, token);
            assert_eq!(code(w, &token).await, Some("auth.token_unknown"));
            let after = w.ctx.sessions.verify(w.north.id, &renewed).await?;
            assert_eq!((after.session, after.grant.assurance), (before.session, Assurance::Two));
            assert!(after.require_fresh(w.ctx.clock.now_ms()).is_ok());
            assert_eq!(w.ctx.sessions.list(w.north.id, "user:1").await?.len(), 1);
            assert!(
                w.ctx.sessions.still(w.north.id, &token).await.is_err(),
                "nor what was opened with it"
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn silence_ends_a_session_activity_keeps_it_and_a_standing_connection_is_no_activity() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let (active, open) = (
                issue(w, "user:1", Some(IDLE)).await?,
                issue(w, "user:2", Some(IDLE)).await?,
            );
            let forever = issue(w, "user:3", None).await?;
            for minute in 1..=60 {
                w.ctx.clock.advance(60_000);
                // Somebody moves here, and only a machine asks there.
                assert_eq!(code(w, &active).await, None, "minute {minute}");
                let still = w.ctx.sessions.still(w.north.id, &open).await.err().map(|e| e.code);
                assert_eq!(still, (minute >= 15).then_some("auth.token_expired"), "minute {minute}");
            }
            assert_eq!(
                code(w, &open).await,
                Some("auth.token_expired"),
                "asking does not bring it back"
            );
            assert_eq!(code(w, &forever).await, None);
            w.ctx.clock.advance(IDLE);
            assert_eq!(code(w, &active).await, Some("auth.token_expired"));
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn what_ends_by_silence_or_time_is_told_once_and_says_whether_its_owner_is_elsewhere() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let mut live = w.ctx.bus.attach_live()?;
            let at = || w.ctx.clock.now_ms();
            let begin = at();
            let one = issue(w, "user:1", Some(IDLE)).await?;
            let away = issue(w, "user:2", Some(IDLE)).await?;
            let here = issue(w, "user:2", Some(IDLE)).await?;
            let close = async |since: i64, until: i64| w.ctx.sessions.close_over(w.north.id, since, until).await;
            w.ctx.clock.advance(IDLE - 60_000);
            assert!(code(w, &here).await.is_none());
            assert_eq!(close(begin, at()).await?, 0, "nothing is over");
            let since = at();
            w.ctx.clock.advance(60_000);
            assert_eq!(close(since, at()).await?, 2);
            let mut told = announced(&mut live, 2).await;
            told.sort_by(|a, b| a.subject.cmp(&b.subject));
            assert_eq!((&*told[0].subject, told[0].elsewhere), ("user:1", false));
            assert_eq!(
                (&*told[1].subject, told[1].elsewhere),
                ("user:2", true),
                "at work at the other screen"
            );
            assert_eq!(close(at(), at() + 30_000).await?, 0, "told once");
            assert_eq!(close(since, at()).await?, 2, "again where it was not told");
            for token in [&one, &away] {
                assert_eq!(code(w, token).await, Some("auth.token_expired"));
            }
            assert!(code(w, &here).await.is_none());
            // Time ends what silence does not.
            let guest = issue(w, "user:3", None).await?;
            let since = at();
            w.ctx.clock.advance(12 * 3_600_000);
            assert_eq!(
                close(at() - 60_000, at()).await?,
                1,
                "the one whose time is over; silence was longer ago"
            );
            assert_eq!(close(since, at()).await?, 2);
            assert_eq!(code(w, &guest).await, Some("auth.token_expired"));
            assert_eq!(w.ctx.sessions.close_over(TenantId::SYSTEM, 0, at()).await?, 0);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn the_oldest_sessions_go_when_there_are_too_many() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let mut tokens = Vec::new();
            for _ in 0..5 {
                tokens.push(issue(w, "user:1", None).await?);
                w.ctx.clock.advance(1000);
            }
            let other = issue(w, "user:2", None).await?;
            let sessions = w.ctx.sessions.clone();
            let gone = w.ctx.db.write(w.north.id, move |tx| {
                Box::pin(async move { sessions.keep_newest(tx, "user:1", 3).await })
            });
            assert_eq!(gone.await?, 2);
            let mut stand = Vec::new();
            for token in &tokens {
                stand.push(code(w, token).await.is_none());
            }
            assert_eq!(stand, [false, false, true, true, true]);
            assert_eq!(code(w, &other).await, None);
            // A token puts its own session away, of whoever it is, and no other.
            let sessions = w.ctx.sessions.clone();
            let held = tokens[4].clone();
            let whose = w.ctx.db.write(w.north.id, move |tx| {
                Box::pin(async move {
                    let first = sessions.revoke_token(tx, &held).await?;
                    let again = sessions.revoke_token(tx, &held).await?;
                    Ok((first, again))
                })
            });
            assert_eq!(whose.await?, (Some("user:1".into()), None));
            assert_eq!(code(w, &tokens[3]).await, None);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn the_tokens_of_applications_push_nobody_out_of_what_goes_on_without_requests() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let web = issue(w, "user:1", None).await?;
            let web = w.ctx.sessions.verify(w.north.id, &web).await?;
            w.ctx.clock.advance(1);
            let sessions = w.ctx.sessions.clone();
            let issued = w.ctx.db.write(w.north.id, move |tx| {
                Box::pin(async move {
                    for _ in 0..60 {
                        let new = NewSession {
                            subject: "user:1".into(),
                            name: "1".into(),
                            roles: vec![Role::Clinician],
                            ttl_ms: 3_600_000,
                            note: "an application".into(),
                            grant: Grant {
                                client: Some("app".into()),
                                ..Assurance::One.into()
                            },
                            idle_ms: None,
                        };
                        sessions.issue(tx, new).await?;
                    }
                    Ok(())
                })
            });
            issued.await?;
            let standing = w.ctx.sessions.standing(w.north.id, "user:1").await?;
            let standing: Vec<_> = standing.iter().map(|p| p.session).collect();
            assert_eq!(standing, [web.session]);
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn what_ends_a_call_is_the_end_of_its_owners_own_session() {
    on_both_engines(&[], |w| {
        Box::pin(async move {
            let mut live = w.ctx.bus.attach_live()?;
            let own = issue(w, "user:1", None).await?;
            let revoke = async |token: &str| {
                let (sessions, session) = (
                    w.ctx.sessions.clone(),
                    w.ctx.sessions.verify(w.north.id, token).await?.session,
                );
                let done = w.ctx.db.write(w.north.id, move |tx| {
                    Box::pin(async move { sessions.revoke(tx, session).await })
                });
                done.await
            };
            let put_away = async |token: &str| {
                let (sessions, token) = (w.ctx.sessions.clone(), token.to_owned());
                let done = w.ctx.db.write(w.north.id, move |tx| {
                    Box::pin(async move { sessions.revoke_token(tx, &token).await.map(drop) })
                });
                done.await
            };
            // An application was never in the room.
            revoke(&issue_to_application(w, "user:1").await?).await?;
            assert!(
                announced(&mut live, 1).await[0].elsewhere,
                "the call at the web session goes on"
            );
            // Their own session is what the call hangs on, whatever an application still may.
            let application = issue_to_application(w, "user:1").await?;
            let other = issue(w, "user:1", None).await?;
            revoke(&own).await?;
            assert!(!announced(&mut live, 1).await[0].elsewhere, "ended on purpose");
            // Signing in anew in a tab: the new session stands before the old one is put away.
            let anew = issue(w, "user:1", None).await?;
            put_away(&other).await?;
            assert!(announced(&mut live, 1).await[0].elsewhere, "the same person goes on");
            put_away(&anew).await?;
            assert!(
                !announced(&mut live, 1).await[0].elsewhere,
                "an application's token holds no call"
            );
            assert_eq!(code(w, &application).await, None);
            // Too many: the newest go on.
            let oldest = issue(w, "user:1", None).await?;
            w.ctx.clock.advance(1000);
            issue(w, "user:1", None).await?;
            let sessions = w.ctx.sessions.clone();
            let gone = w.ctx.db.write(w.north.id, move |tx| {
                Box::pin(async move { sessions.keep_newest(tx, "user:1", 1).await })
            });
            assert_eq!((gone.await?, code(w, &oldest).await), (1, Some("auth.token_unknown")));
            assert!(announced(&mut live, 1).await[0].elsewhere);
            // All at once, as for somebody who is locked out: the web session says the call ends.
            let sessions = w.ctx.sessions.clone();
            let locked = w.ctx.db.write(w.north.id, move |tx| {
                Box::pin(async move { sessions.revoke_subject(tx, "user:1").await.map(drop) })
            });
            locked.await?;
            let mut told: Vec<bool> = announced(&mut live, 2).await.iter().map(|r| r.elsewhere).collect();
            told.sort_unstable();
            assert_eq!(told, [false, true]);
            // An application's time runs out beside a call; and silence ends a call though an application goes on.
            let (_quiet, _app) = (
                issue(w, "user:2", Some(IDLE)).await?,
                issue_to_application(w, "user:2").await?,
            );
            let since = w.ctx.clock.now_ms();
            w.ctx.clock.advance(IDLE);
            let until = w.ctx.clock.now_ms();
            assert_eq!(w.ctx.sessions.close_over(w.north.id, since, until).await?, 1);
            assert!(
                !announced(&mut live, 1).await[0].elsewhere,
                "silent, and only an application stands"
            );
            w.ctx.clock.advance(12 * 3_600_000 - IDLE);
            let at = w.ctx.clock.now_ms();
            assert_eq!(w.ctx.sessions.close_over(w.north.id, at - 1000, at).await?, 1);
            assert!(
                announced(&mut live, 1).await[0].elsewhere,
                "the application's token ran out"
            );
            Ok(())
        })
    })
    .await;
}
