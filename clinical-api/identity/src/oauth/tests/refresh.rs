//! Refresh tokens: whatever the clients do, in whatever order, at most one is live.

use super::kit::{Kit, TABLES};
use crate::oauth::{GRACE, store};
use http::StatusCode;
use medtech_kernel::{Result, id, testkit::on_both_engines};

/// How many of these tokens could be used now.
async fn live(kit: &Kit<'_>, tokens: &[String]) -> Result<usize> {
    let mut count = 0;
    for token in tokens {
        let hash = id::sha256(token.as_bytes());
        if let Some(found) = store::refresh(&kit.w.ctx.db, kit.w.north.id, hash).await? {
            let grant = store::grant(&kit.w.ctx.db, kit.w.north.id, found.grant).await?;
            count += usize::from(found.used_at.is_none() && grant.is_some_and(|g| g.ended_at.is_none()));
        }
    }
    Ok(count)
}

#[tokio::test]
async fn a_lost_answer_is_given_again_and_a_replay_ends_the_family() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.public().await;
            let first = kit.signed_in(&client).await;
            let refresh = async |token: &str| kit.form("/oauth2/token", &kit.refreshes(&client, token)).await;
            // Without its name: a public client is known by its token.
            let silent = [
                ("grant_type", "refresh_token".into()),
                ("refresh_token", first.get("refresh_token")),
            ];
            let unnamed = kit.form("/oauth2/token", &silent).await;
            assert_eq!(unnamed.status, StatusCode::OK, "{}", unnamed.text);
            let second = refresh(&first.get("refresh_token")).await;
            assert_eq!(second.status, StatusCode::OK, "{}", second.text);
            assert_ne!(second.get("refresh_token"), first.get("refresh_token"));
            w.ctx.clock.advance(GRACE);
            let again = refresh(&first.get("refresh_token")).await;
            assert_eq!(
                again.get("refresh_token"),
                second.get("refresh_token"),
                "the same successor"
            );
            // Gone on from: the grace is over for the one before.
            let third = refresh(&second.get("refresh_token")).await;
            assert_eq!(refresh(&first.get("refresh_token")).await.get("error"), "invalid_grant");
            assert!(!kit.is_good(&third.get("refresh_token")).await);
            w.ctx.clock.advance(GRACE + 1);
            assert_eq!(
                refresh(&second.get("refresh_token")).await.get("error"),
                "invalid_grant"
            );
            for answer in [&first, &second, &again, &third] {
                assert!(!kit.is_good(&answer.get("access_token")).await);
            }
            assert_eq!(refresh(&third.get("refresh_token")).await.get("error"), "invalid_grant");
            Ok(())
        })
    })
    .await;
}

/// Three parties that each hold some of the tokens use them in random order at random times.
#[tokio::test]
async fn any_interleaving_leaves_one_live_token_or_none() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.public().await;
            let mut seed = 0x2545_f491_4f6c_dd1d_u64;
            let mut next = move |below: u64| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed % below
            };
            let (mut ended, mut lived) = (0, 0);
            for _ in 0..12 {
                let first = kit.signed_in(&client).await.get("refresh_token");
                let mut all = vec![first.clone()];
                let mut hands = [first.clone(), first.clone(), first];
                for _ in 0..10 {
                    let hand = next(3) as usize;
                    // Mostly the newest they know of, sometimes an old one.
                    let token = match next(5) {
                        0 => all[next(all.len() as u64) as usize].clone(),
                        _ => hands[hand].clone(),
                    };
                    let answer = kit.form("/oauth2/token", &kit.refreshes(&client, &token)).await;
                    if answer.status == StatusCode::OK {
                        hands[hand] = answer.get("refresh_token");
                        all.push(hands[hand].clone());
                        all.sort();
                        all.dedup();
                    }
                    assert!(live(&kit, &all).await? <= 1);
                    w.ctx.clock.advance([0, 1_000, 4_000, GRACE + 1][next(4) as usize]);
                }
                match live(&kit, &all).await? {
                    0 => ended += 1,
                    _ => lived += 1,
                }
            }
            assert!(ended > 0, "the mix never met a replay: {lived} lived");
            Ok(())
        })
    })
    .await;
}

/// The same token at the same time from many places: one successor.
#[tokio::test]
async fn at_once() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.public().await;
            let token = kit.signed_in(&client).await.get("refresh_token");
            let pairs = kit.refreshes(&client, &token);
            let one = || kit.form("/oauth2/token", &pairs);
            let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
            let mut successors: Vec<String> = [a, b, c, d].iter().map(|x| x.get("refresh_token")).collect();
            successors.sort();
            successors.dedup();
            assert_eq!(successors.len(), 1, "{successors:?}");
            assert_eq!(live(&kit, &[token, successors[0].clone()]).await?, 1);
            Ok(())
        })
    })
    .await;
}
