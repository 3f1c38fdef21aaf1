//! Tokens bound to a key (RFC 9449): the good way, and every way around it.

use super::kit::{Answer, HOST, ISSUER, Kit, Pairs, TABLES, public, query};
use crate::oauth::{HOUR, MINUTE};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use axum::body::Body;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use http::{Request, StatusCode};
use medtech_kernel::{id, testkit::on_both_engines};
use serde_json::{Value, json};

struct Prover(EcdsaKeyPair);

impl Prover {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "x": B64.encode(x), "y": B64.encode(y)})
    }

    fn jkt(&self) -> String {
        let jwk = self.jwk();
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
        B64.encode(id::sha256(canonical.as_bytes()))
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", B64.encode(signature.as_ref()))
    }

    fn proof(&self, claims: &Value) -> String {
        self.sign(&json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()}), claims)
    }
}

fn says(kit: &Kit<'_>, method: &str, path: &str, nonce: &str, token: Option<&str>) -> Value {
    let mut claims = json!({"jti": id::token(), "htm": method, "htu": format!("{ISSUER}{path}"), "iat": kit.w.ctx.clock.now_ms() / 1000, "nonce": nonce});
    if let Some(token) = token {
        claims["ath"] = B64.encode(id::sha256(token.as_bytes())).into();
    }
    claims
}

async fn form(kit: &Kit<'_>, path: &str, proofs: &[String], pairs: &[(&str, String)]) -> Answer {
    let mut request = Request::builder().method("POST").uri(path).header("host", HOST);
    for proof in proofs {
        request = request.header("dpop", proof);
    }
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    kit.send(request.body(Body::from(super::kit::encoded(pairs))).unwrap())
        .await
}

async fn ask(kit: &Kit<'_>, path: &str, scheme: &str, token: &str, proofs: &[String]) -> Answer {
    let mut request = Request::builder()
        .uri(path)
        .header("host", HOST)
        .header("authorization", format!("{scheme} {token}"));
    for proof in proofs {
        request = request.header("dpop", proof);
    }
    kit.send(request.body(Body::empty()).unwrap()).await
}

fn nonce(answer: &Answer) -> String {
    answer.headers["dpop-nonce"].to_str().unwrap().to_owned()
}

/// The nonce of now, as a client learns it.
async fn learned(kit: &Kit<'_>, key: &Prover, client: &str) -> String {
    let first = key.proof(&says(kit, "POST", "/oauth2/token", "", None));
    let answer = form(kit, "/oauth2/token", &[first], &kit.redeems(client, "x")).await;
    assert_eq!(
        (answer.status, answer.get("error")),
        (StatusCode::BAD_REQUEST, "use_dpop_nonce".into()),
        "{}",
        answer.text
    );
    nonce(&answer)
}

async fn redeem(kit: &Kit<'_>, key: &Prover, pairs: &Pairs<'_>, nonce: &str) -> Answer {
    let proof = key.proof(&says(kit, "POST", "/oauth2/token", nonce, None));
    form(kit, "/oauth2/token", &[proof], pairs).await
}

const RECORD: &str = "/fhir/R4/Observation";

#[tokio::test]
async fn a_bound_token_opens_the_record_with_its_key_and_nothing_without() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let (client, key, thief) = (kit.public().await, Prover::new(), Prover::new());
            let now = learned(&kit, &key, &client).await;
            let code = kit.code(&client).await;
            let answer = redeem(&kit, &key, &kit.redeems(&client, &code), &now).await;
            assert_eq!(
                (answer.status, answer.get("token_type")),
                (StatusCode::OK, "DPoP".into()),
                "{}",
                answer.text
            );
            let token = answer.get("access_token");
            let proved = |key: &Prover, claims: &Value| vec![key.proof(claims)];
            let good = || says(&kit, "GET", RECORD, &now, Some(&token));
            let opened = ask(
                &kit,
                &format!("{RECORD}?_count=1"),
                "DPoP",
                &token,
                &proved(&key, &good()),
            )
            .await;
            assert_eq!(opened.status, StatusCode::OK, "{}", opened.text);
            assert_eq!(nonce(&opened), now);
            let info = says(&kit, "GET", "/oauth2/userinfo", &now, Some(&token));
            assert_eq!(
                ask(&kit, "/oauth2/userinfo", "DPoP", &token, &proved(&key, &info))
                    .await
                    .status,
                StatusCode::OK
            );

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
            let seconds = w.ctx.clock.now_ms() / 1000;
            let head = |more: Value| {
                let mut head = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": key.jwk()});
                for (name, value) in more.as_object().unwrap() {
                    head[name] = value.clone();
                }
                vec![key.sign(&head, &good())]
            };
            let mut private = key.jwk();
            private["d"] = "x".into();
            let once = key.proof(&good());
            assert_eq!(
                ask(&kit, RECORD, "DPoP", &token, std::slice::from_ref(&once))
                    .await
                    .status,
                StatusCode::OK
            );
            let mut other_curve = key.jwk();
            other_curve["crv"] = "P-384".into();
            let cases: Vec<(&str, &str, String, Vec<String>)> = vec![
                ("no proof", "DPoP", token.clone(), vec![]),
                ("another key", "DPoP", token.clone(), proved(&thief, &good())),
                ("a proof used before", "DPoP", token.clone(), vec![once]),
                (
                    "two proofs",
                    "DPoP",
                    token.clone(),
                    vec![key.proof(&good()), key.proof(&good())],
                ),
                ("as a bearer token", "Bearer", token.clone(), vec![]),
                (
                    "as a bearer token with a proof",
                    "Bearer",
                    token.clone(),
                    proved(&key, &good()),
                ),
                (
                    "another method",
                    "DPoP",
                    token.clone(),
                    proved(&key, &changed("htm", json!("POST"))),
                ),
                (
                    "another address",
                    "DPoP",
                    token.clone(),
                    proved(&key, &changed("htu", json!(format!("{ISSUER}/fhir/R4/Patient")))),
                ),
                (
                    "another host",
                    "DPoP",
                    token.clone(),
                    proved(
                        &key,
                        &changed("htu", json!("http://south.localhost/fhir/R4/Observation")),
                    ),
                ),
                (
                    "another scheme",
                    "DPoP",
                    token.clone(),
                    proved(
                        &key,
                        &changed("htu", json!("https://north.localhost/fhir/R4/Observation")),
                    ),
                ),
                (
                    "no address",
                    "DPoP",
                    token.clone(),
                    proved(&key, &changed("htu", Value::Null)),
                ),
                (
                    "no ath",
                    "DPoP",
                    token.clone(),
                    proved(&key, &changed("ath", Value::Null)),
                ),
                (
                    "ath of another token",
                    "DPoP",
                    token.clone(),
                    proved(&key, &changed("ath", json!(B64.encode([0; 32])))),
                ),
                (
                    "no nonce",
                    "DPoP",
                    token.clone(),
                    proved(&key, &changed("nonce", Value::Null)),
                ),
                (
                    "a nonce of its own",
                    "DPoP",
                    token.clone(),
                    proved(&key, &changed("nonce", json!("mine"))),
                ),
                (
                    "no jti",
                    "DPoP",
                    token.clone(),
                    proved(&key, &changed("jti", Value::Null)),
                ),
                (
                    "an empty jti",
                    "DPoP",
                    token.clone(),
                    proved(&key, &changed("jti", json!(""))),
                ),
                (
                    "too old",
                    "DPoP",
                    token.clone(),
                    proved(&key, &changed("iat", json!(seconds - 301))),
                ),
                (
                    "from the future",
                    "DPoP",
                    token.clone(),
                    proved(&key, &changed("iat", json!(seconds + 301))),
                ),
                (
                    "a time that is none",
                    "DPoP",
                    token.clone(),
                    proved(&key, &changed("iat", json!("now"))),
                ),
                (
                    "a private key inside",
                    "DPoP",
                    token.clone(),
                    head(json!({"jwk": private})),
                ),
                ("another type", "DPoP", token.clone(), head(json!({"typ": "JWT"}))),
                ("alg none", "DPoP", token.clone(), head(json!({"alg": "none"}))),
                ("alg HS256", "DPoP", token.clone(), head(json!({"alg": "HS256"}))),
                ("alg ES384", "DPoP", token.clone(), head(json!({"alg": "ES384"}))),
                (
                    "another curve",
                    "DPoP",
                    token.clone(),
                    head(json!({"jwk": other_curve})),
                ),
                (
                    "something critical",
                    "DPoP",
                    token.clone(),
                    head(json!({"crit": ["x"]})),
                ),
                ("no key", "DPoP", token.clone(), head(json!({"jwk": {}}))),
                ("no proof but words", "DPoP", token.clone(), vec!["x.y.z".into()]),
                (
                    "another's thumbprint in the token",
                    "DPoP",
                    token.replace(&key.jkt(), &thief.jkt()),
                    {
                        let token = token.replace(&key.jkt(), &thief.jkt());
                        proved(&thief, &says(&kit, "GET", RECORD, &now, Some(&token)))
                    },
                ),
            ];
            for (name, scheme, token, proofs) in cases {
                let answer = ask(&kit, RECORD, scheme, &token, &proofs).await;
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{name}: {}", answer.text);
                assert!(answer.headers.contains_key("www-authenticate"), "{name}");
                if name.contains("nonce") {
                    assert!(
                        answer.headers["www-authenticate"]
                            .to_str()
                            .unwrap()
                            .contains("use_dpop_nonce")
                    );
                    assert_eq!(nonce(&answer), now);
                }
            }
            // Nor is it a token at any door that asks for no proof; and a plain token is none here.
            assert!(!kit.is_good(&token).await);
            let plain = kit.signed_in(&client).await.get("access_token");
            let claims = says(&kit, "GET", RECORD, &now, Some(&plain));
            assert_eq!(
                ask(&kit, RECORD, "DPoP", &plain, &proved(&key, &claims)).await.status,
                StatusCode::UNAUTHORIZED
            );
            // A nonce is good for its turn and the next one.
            w.ctx.clock.advance(5 * MINUTE);
            assert_eq!(
                ask(&kit, RECORD, "DPoP", &token, &proved(&key, &good())).await.status,
                StatusCode::OK
            );
            w.ctx.clock.advance(5 * MINUTE);
            assert_eq!(
                ask(&kit, RECORD, "DPoP", &token, &proved(&key, &good())).await.status,
                StatusCode::UNAUTHORIZED
            );
            // And the token for its hour.
            w.ctx.clock.advance(HOUR);
            let now = learned(&kit, &key, &client).await;
            let late = says(&kit, "GET", RECORD, &now, Some(&token));
            let over = ask(&kit, RECORD, "DPoP", &token, &proved(&key, &late)).await;
            assert_eq!(over.status, StatusCode::UNAUTHORIZED);
            assert!(
                over.headers["www-authenticate"]
                    .to_str()
                    .unwrap()
                    .starts_with("DPoP error=\"invalid_token\"")
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn codes_and_refresh_tokens_are_bound_as_well() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let (client, key, thief) = (kit.public().await, Prover::new(), Prover::new());
            let now = learned(&kit, &key, &client).await;
            let bound = async |jkt: &str| {
                let mut pairs = kit.asks(&client);
                pairs.push(("dpop_jkt", jkt.to_owned()));
                query(&kit.allow(&kit.request(&pairs).await).await)["code"].clone()
            };
            // A code that names a key is redeemed with that key.
            for proofs in [
                vec![],
                vec![thief.proof(&says(&kit, "POST", "/oauth2/token", &now, None))],
            ] {
                let code = bound(&key.jkt()).await;
                let answer = form(&kit, "/oauth2/token", &proofs, &kit.redeems(&client, &code)).await;
                assert_eq!(answer.get("error"), "invalid_grant", "{}", answer.text);
            }
            let code = bound(&key.jkt()).await;
            let first = redeem(&kit, &key, &kit.redeems(&client, &code), &now).await;
            assert_eq!(first.status, StatusCode::OK, "{}", first.text);
            // So is a refresh token, and a thief ends nothing.
            let renews = kit.refreshes(&client, &first.get("refresh_token"));
            assert_eq!(
                form(&kit, "/oauth2/token", &[], &renews).await.get("error"),
                "invalid_grant"
            );
            assert_eq!(redeem(&kit, &thief, &renews, &now).await.get("error"), "invalid_grant");
            let second = redeem(&kit, &key, &renews, &now).await;
            assert_eq!(
                (second.status, second.get("token_type")),
                (StatusCode::OK, "DPoP".into()),
                "{}",
                second.text
            );
            // Pushed with a proof, it is bound without a word; with another key's word it is refused.
            let push = says(&kit, "POST", "/oauth2/par", &now, None);
            let pushed = form(&kit, "/oauth2/par", &[key.proof(&push)], &kit.asks(&client)).await;
            assert_eq!(pushed.status, StatusCode::CREATED, "{}", pushed.text);
            let asks = vec![
                ("client_id", client.clone()),
                ("request_uri", pushed.get("request_uri")),
            ];
            let code = query(&kit.allow(&kit.request(&asks).await).await)["code"].clone();
            assert_eq!(
                kit.form("/oauth2/token", &kit.redeems(&client, &code))
                    .await
                    .get("error"),
                "invalid_grant"
            );
            let mut named = kit.asks(&client);
            named.push(("dpop_jkt", thief.jkt()));
            let push = says(&kit, "POST", "/oauth2/par", &now, None);
            assert_eq!(
                form(&kit, "/oauth2/par", &[key.proof(&push)], &named)
                    .await
                    .get("error"),
                "invalid_dpop_proof"
            );
            // An application that is registered so has no other token.
            let mut metadata = public();
            metadata["dpop_bound_access_tokens"] = true.into();
            let strict = kit.register(metadata).await.0;
            let code = kit.code(&strict).await;
            assert_eq!(
                kit.form("/oauth2/token", &kit.redeems(&strict, &code))
                    .await
                    .get("error"),
                "invalid_dpop_proof"
            );
            assert_eq!(
                redeem(&kit, &key, &kit.redeems(&strict, &code), &now).await.status,
                StatusCode::OK
            );
            Ok(())
        })
    })
    .await;
}

#[tokio::test]
async fn a_resource_server_is_told_the_key_and_the_token_can_be_ended() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let (client, key) = (kit.public().await, Prover::new());
            let now = learned(&kit, &key, &client).await;
            let code = kit.code(&client).await;
            let token = redeem(&kit, &key, &kit.redeems(&client, &code), &now)
                .await
                .get("access_token");
            let mut server = public();
            server["token_endpoint_auth_method"] = "client_secret_basic".into();
            let (id, secret) = kit.register(server).await;
            let auth = format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"))
            );
            let about = async || {
                kit.form_to(HOST, "/oauth2/introspect", Some(&auth), &[("token", token.clone())])
                    .await
                    .json
            };
            let said = about().await;
            assert_eq!(
                (&said["active"], &said["token_type"], &said["cnf"]["jkt"]),
                (&json!(true), &json!("DPoP"), &json!(key.jkt()))
            );
            let other = kit.public().await;
            kit.form("/oauth2/revoke", &[("client_id", other), ("token", token.clone())])
                .await;
            assert_eq!(about().await["active"], true, "another client ends nothing");
            kit.form("/oauth2/revoke", &[("client_id", client), ("token", token.clone())])
                .await;
            assert_eq!(about().await["active"], false);
            let claims = says(&kit, "GET", RECORD, &now, Some(&token));
            assert_eq!(
                ask(&kit, RECORD, "DPoP", &token, &[key.proof(&claims)]).await.status,
                StatusCode::UNAUTHORIZED
            );
            Ok(())
        })
    })
    .await;
}

/// Proofs that are noted as used.
async fn noted(kit: &Kit<'_>) -> medtech_kernel::Result<i64> {
    let counted = kit
        .w
        .ctx
        .db
        .query_one(
            kit.w.north.id,
            "SELECT COUNT(*) FROM oauth_jti WHERE tenant = $1 AND client LIKE 'dpop:%'",
            &[],
        )
        .await?;
    counted.i64(0)
}

#[tokio::test]
async fn a_stranger_has_nothing_written_by_proofs_of_a_key_of_their_own() {
    on_both_engines(TABLES, |w| {
        Box::pin(async move {
            let kit = Kit::new(w).await?;
            let (client, key, thief) = (kit.public().await, Prover::new(), Prover::new());
            let now = learned(&kit, &key, &client).await;
            let code = kit.code(&client).await;
            let token = redeem(&kit, &key, &kit.redeems(&client, &code), &now)
                .await
                .get("access_token");
            let before = noted(&kit).await?;
            assert_eq!(before, 1, "the one that redeemed the code");
            // At the record: a token that is not ours, one that is somebody else's, and the own one for another key.
            let forged = format!("md_{}_{}.{}", w.north.id, thief.jkt(), B64.encode([7; 64]));
            for token in ["x", &forged, &token] {
                let proof = thief.proof(&says(&kit, "GET", RECORD, &now, Some(token)));
                assert_eq!(
                    ask(&kit, RECORD, "DPoP", token, &[proof]).await.status,
                    StatusCode::UNAUTHORIZED
                );
            }
            // At the token endpoint: an application that is none, and a way to a token that is none.
            let answer = redeem(&kit, &thief, &kit.redeems("nobody", "x"), &now).await;
            assert_eq!(answer.get("error"), "invalid_client", "{}", answer.text);
            let answer = redeem(&kit, &thief, &[("grant_type", "password".into())].to_vec(), &now).await;
            assert_eq!(answer.get("error"), "unsupported_grant_type", "{}", answer.text);
            let answer = redeem(&kit, &thief, &kit.refreshes("nobody", "x"), &now).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text);
            assert_eq!(noted(&kit).await?, before);
            Ok(())
        })
    })
    .await;
}
