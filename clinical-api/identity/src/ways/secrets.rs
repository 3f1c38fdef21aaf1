//! Tokens and seeds are long, drawn at random, and kept by nobody on the way.

use super::*;

#[test]
fn secrets_are_long_of_one_alphabet_and_never_the_same() {
    let all: std::collections::HashSet<String> = (0..1000).map(|_| id::token()).collect();
    assert_eq!(all.len(), 1000);
    let mut used = std::collections::HashSet::new();
    for token in &all {
        // 256 bits in 43 characters of URL-safe base64.
        assert_eq!(URL_SAFE_NO_PAD.decode(token).expect("base64url").len(), 32, "{token}");
        used.extend(token.chars());
    }
    assert_eq!(used.len(), 64, "every character comes up");
    let seeds: std::collections::HashSet<[u8; 20]> = (0..1000).map(|_| id::random()).collect();
    assert_eq!(seeds.len(), 1000);
    let ones: u32 = seeds.iter().flatten().map(|b| b.count_ones()).sum();
    // 160,000 fair bits: within six standard deviations of a half.
    assert!((78_800..=81_200).contains(&ones), "{ones}");
}

#[tokio::test]
async fn tokens_and_seeds_of_sessions_are_unguessable() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let (identity, app) = door(w);
            identity.create_user(w.north.id, clinician("a@north.example")).await?;
            let (mut tokens, mut seeds) = (std::collections::HashSet::new(), std::collections::HashSet::new());
            let mut here = Visitor::new(&app, "198.51.100.0/24");
            for _ in 0..12 {
                here.password("a@north.example", PASSWORD).await;
                let token = here.token.clone().unwrap();
                let secret = token.rsplit_once('_').map(|(_, s)| s.to_owned());
                let prefix = format!("mt_{}_", w.north.id);
                let secret = token.strip_prefix(&prefix).or(secret.as_deref()).unwrap();
                assert_eq!(URL_SAFE_NO_PAD.decode(secret).expect("base64url").len(), 32, "{token}");
                let (_, started) = here.post("/totp/start", json!({})).await;
                let seed = totp_rs::Secret::try_from_base32(started["secret"].as_str().unwrap()).unwrap();
                assert_eq!(seed.as_bytes().len(), 20, "160 bits (RFC 4226, section 4)");
                tokens.insert(token);
                seeds.insert(seed.as_bytes().to_vec());
            }
            assert_eq!((tokens.len(), seeds.len()), (12, 12));
            // Only their hashes are kept.
            let rows = w
                .ctx
                .db
                .query(w.north.id, "SELECT hash FROM session WHERE tenant = $1", &[])
                .await?;
            let now = id::sha256(here.token.as_deref().unwrap().as_bytes());
            assert!(rows.iter().any(|r| r.blob(0).is_ok_and(|h| h == now)));
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn an_answer_with_a_token_is_kept_by_nobody() {
    let world = World::sqlite(TABLES).await.unwrap();
    let (identity, app) = door(&world);
    identity
        .create_user(world.north.id, clinician("a@north.example"))
        .await
        .unwrap();
    let mut here = Visitor::new(&app, "198.51.100.0/24");
    here.password("a@north.example", PASSWORD).await;
    for (path, body) in [
        ("/sign-in", json!({"email": "a@north.example", "password": PASSWORD})),
        ("/step-up/password", json!({"password": PASSWORD})),
        ("/totp/start", json!({})),
    ] {
        let (status, answer, headers) = here.ask("POST", path, body).await;
        assert_eq!(
            (status, headers[header::CACHE_CONTROL].to_str().ok()),
            (200, Some("no-store")),
            "{path}: {answer}"
        );
        if let Some(token) = answer["access_token"].as_str() {
            here.token = Some(token.to_owned());
        }
    }
}
