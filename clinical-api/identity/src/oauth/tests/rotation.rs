//! Signing keys change while tokens are given out and verified: no verification fails.

use super::kit::{HOST, ISSUER, Kit, TABLES, public};
use crate::oauth::{ACCESS, DAY, HOUR, MINUTE, jwt};
use axum::body::Body;
use http::Request;
use jsonwebtoken::{Algorithm, jwk::JwkSet};
use medtech_kernel::testkit::on_both_engines;
use serde_json::Value;
use std::collections::BTreeSet;

async fn published(kit: &Kit<'_>) -> JwkSet {
    let request = Request::builder().uri("/oauth2/jwks").header("host", HOST);
    let answer = kit.send(request.body(Body::empty()).unwrap()).await;
    assert!(!answer.text.contains("\"d\""), "no private part");
    serde_json::from_value(answer.json).expect("a key set")
}

#[tokio::test]
async fn tokens_verify_through_every_rotation() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let client = kit.register(public()).await.0;
            let (mut kids, mut failed, mut checked) = (BTreeSet::new(), 0, 0);
            // What a relying party knows that fetches the keys once a day.
            let mut known = published(&kit).await;
            let mut known_at = w.ctx.clock.now_ms();
            let mut held: Vec<(String, i64)> = Vec::new();
            for step in 0..120 {
                w.ctx.clock.advance(if step % 3 == 0 { 3 * DAY } else { 25 * MINUTE });
                let now = w.ctx.clock.now_ms();
                if now - known_at > DAY - HOUR {
                    (known, known_at) = (published(&kit).await, now);
                }
                let answer = kit.signed_in(&client).await;
                held.push((answer.get("id_token"), now));
                held.retain(|(_, at)| at + ACCESS > now);
                for (token, _) in &held {
                    checked += 1;
                    let claims: Option<Value> = jwt::verify(token, &known, &[Algorithm::ES384]);
                    failed += usize::from(claims.is_none());
                }
                kids.insert(jwt::header(&answer.get("id_token")).expect("a header").kid);
                let fresh = published(&kit).await;
                let claims: Value =
                    jwt::verify(&answer.get("id_token"), &fresh, &[Algorithm::ES384]).expect("verifies");
                assert_eq!(claims["iss"], ISSUER);
                assert_eq!(claims["aud"], client.as_str());
                assert_eq!(claims["sub"], kit.doctor_id.to_string());
                assert_eq!(claims["nonce"], "the nonce");
                assert_eq!(claims["fhirUser"], format!("{ISSUER}/fhir/R4/Practitioner/pr1"));
                assert_eq!(claims["exp"].as_i64(), Some((now + ACCESS) / 1000));
            }
            assert!(kids.len() >= 2, "the key changed: {kids:?}");
            assert_eq!(failed, 0, "of {checked} verifications");
            // Another clinic signs with keys of its own.
            let request = Request::builder().uri("/oauth2/jwks").header("host", "south.localhost");
            let south = kit.send(request.body(Body::empty()).unwrap()).await;
            assert!(kids.iter().all(|kid| !south.text.contains(kid.as_str())));
            Ok(())
        })
    })
    .await;
}
