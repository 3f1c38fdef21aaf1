//! Hostile assertions of backend services, and secrets.

use super::{Cases, with, without};
use crate::oauth::tests::{
    backend::{asserts, claims},
    kit::{HOST, ISSUER, Key, Kit, backend, public},
};
use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use http::StatusCode;
use medtech_kernel::{Result, testkit::World};
use serde_json::{Value, json};

/// Assertions of a backend service, and secrets.
pub(super) async fn assertions(kit: &Kit<'_>, cases: &mut Cases, w: &World, public_client: &str) -> Result<()> {
    let (ec, rsa, stranger) = (Key::ec(), Key::rsa(), Key::ec());
    let jwks = json!({"keys": [ec.jwk("e1"), rsa.jwk("r1")]});
    let (client, _) = kit.register(backend(jwks)).await;
    let (second, _) = kit.register(backend(json!({"keys": [stranger.jwk("e1")]}))).await;
    let header = json!({"alg": "ES384", "kid": "e1", "typ": "JWT"});
    let come = async |assertion: String| kit.form("/oauth2/token", &asserts(assertion)).await;
    let now = w.ctx.clock.now_ms() / 1000;
    let set = |name: &str, value: Value| {
        let mut all = claims(kit, &client);
        match value {
            Value::Null => {
                all.as_object_mut().unwrap().remove(name);
            }
            value => all[name] = value,
        }
        all
    };
    let good = ec.sign(&header, &claims(kit, &client));
    assert_eq!(come(good.clone()).await.status, StatusCode::OK);
    cases.token("assertion replayed", &come(good.clone()).await);
    let token_url = format!("{ISSUER}/oauth2/token");
    let wrong = [
        ("iss of another", set("iss", json!(second))),
        ("sub of another", set("sub", json!(second))),
        ("sub of nobody", set("sub", json!("nobody"))),
        ("no sub", set("sub", Value::Null)),
        ("no iss", set("iss", Value::Null)),
        (
            "aud of another server",
            set("aud", json!("https://evil.example/oauth2/token")),
        ),
        (
            "aud of the other clinic",
            set("aud", json!("http://south.localhost/oauth2/token")),
        ),
        (
            "aud of two servers",
            set("aud", json!([token_url, "https://evil.example/token"])),
        ),
        ("aud with a slash", set("aud", json!(format!("{token_url}/")))),
        ("aud of none", set("aud", json!([]))),
        ("aud of numbers", set("aud", json!([1]))),
        ("no aud", set("aud", Value::Null)),
        ("expired", set("exp", json!(now - 1))),
        ("expires in six minutes", set("exp", json!(now + 360))),
        ("expires in a hundred years", set("exp", json!(now + 3_000_000_000_i64))),
        ("expires as text", set("exp", json!("soon"))),
        ("expires beyond numbers", set("exp", json!(1e300))),
        ("no exp", set("exp", Value::Null)),
        ("not yet", set("nbf", json!(now + 120))),
        ("issued in the future", set("iat", json!(now + 120))),
        ("no jti", set("jti", Value::Null)),
        ("empty jti", set("jti", json!(""))),
        ("jti of 300 characters", set("jti", json!("x".repeat(300)))),
    ];
    for (name, claims) in wrong {
        cases.token(&format!("assertion: {name}"), &come(ec.sign(&header, &claims)).await);
    }
    let fresh = || claims(kit, &client);
    let secret = |bytes: Vec<u8>| Key::Secret(bytes);
    let forged = [
        (
            "alg none",
            Key::None.sign(&json!({"alg": "none", "kid": "e1"}), &fresh()),
        ),
        (
            "alg None",
            Key::None.sign(&json!({"alg": "None", "kid": "e1"}), &fresh()),
        ),
        (
            "HS256 with the EC key",
            secret(ec.public_bytes()).sign(&json!({"alg": "HS256", "kid": "e1"}), &fresh()),
        ),
        (
            "HS256 with the RSA key",
            secret(rsa.public_bytes()).sign(&json!({"alg": "HS256", "kid": "r1"}), &fresh()),
        ),
        (
            "HS256 with the JWK as text",
            secret(ec.jwk("e1").to_string().into_bytes()).sign(&json!({"alg": "HS256", "kid": "e1"}), &fresh()),
        ),
        (
            "HS384",
            secret(ec.public_bytes()).sign(&json!({"alg": "HS384", "kid": "e1"}), &fresh()),
        ),
        (
            "ES256 named, ES384 signed",
            ec.sign(&json!({"alg": "ES256", "kid": "e1"}), &fresh()),
        ),
        (
            "RS384 named, EC key",
            ec.sign(&json!({"alg": "RS384", "kid": "e1"}), &fresh()),
        ),
        (
            "ES384 named, RSA key",
            rsa.sign(&json!({"alg": "ES384", "kid": "r1"}), &fresh()),
        ),
        (
            "RS256 named, RS384 signed",
            rsa.sign(&json!({"alg": "RS256", "kid": "r1"}), &fresh()),
        ),
        ("PS384", rsa.sign(&json!({"alg": "PS384", "kid": "r1"}), &fresh())),
        ("a stranger's key under our kid", stranger.sign(&header, &fresh())),
        ("kid unknown", ec.sign(&json!({"alg": "ES384", "kid": "e2"}), &fresh())),
        ("no kid", ec.sign(&json!({"alg": "ES384"}), &fresh())),
        (
            "kid that is a path",
            stranger.sign(&json!({"alg": "ES384", "kid": "../../dev/null"}), &fresh()),
        ),
        (
            "kid that is SQL",
            stranger.sign(&json!({"alg": "ES384", "kid": "x' UNION SELECT 1 --"}), &fresh()),
        ),
        (
            "key in the header",
            stranger.sign(
                &json!({"alg": "ES384", "kid": "e1", "jwk": stranger.jwk("e1")}),
                &fresh(),
            ),
        ),
        (
            "key address in the header",
            stranger.sign(
                &json!({"alg": "ES384", "kid": "e1", "jku": "https://evil.example/keys"}),
                &fresh(),
            ),
        ),
        (
            "critical header",
            ec.sign(&json!({"alg": "ES384", "kid": "e1", "crit": ["exp"]}), &fresh()),
        ),
        (
            "an ID token of ours",
            kit.signed_in(public_client).await.get("id_token"),
        ),
        ("no token at all", "x".to_owned()),
        ("empty parts", "..".to_owned()),
        ("too long", format!("{good}{}", "A".repeat(9000))),
        ("a sixth of a signature", good[..good.len() - 80].to_owned()),
        ("claims changed", {
            let parts: Vec<&str> = good.split('.').collect();
            format!(
                "{}.{}.{}",
                parts[0],
                B64.encode(claims(kit, &second).to_string()),
                parts[2]
            )
        }),
    ];
    for (name, assertion) in forged {
        cases.token(&format!("assertion: {name}"), &come(assertion).await);
    }
    let pairs = asserts(ec.sign(&header, &fresh()));
    cases.token(
        "assertion with another client_id",
        &kit.form("/oauth2/token", &with(&pairs, "client_id", &second)).await,
    );
    cases.token(
        "assertion of another type",
        &kit.form("/oauth2/token", &with(&pairs, "client_assertion_type", "urn:x"))
            .await,
    );
    cases.token(
        "assertion without type",
        &kit.form("/oauth2/token", &without(&pairs, "client_assertion_type"))
            .await,
    );
    cases.token(
        "assertion and a password",
        &kit.form_to(HOST, "/oauth2/token", Some("Basic eDp5"), &pairs).await,
    );
    cases.token(
        "assertion at another clinic",
        &kit.form_to("south.localhost", "/oauth2/token", None, &pairs).await,
    );
    cases.token(
        "a keyed client by name alone",
        &kit.form(
            "/oauth2/token",
            &[
                ("grant_type", "client_credentials".into()),
                ("client_id", client.clone()),
                ("scope", "system/*.rs".into()),
            ],
        )
        .await,
    );
    cases.token(
        "a backend asks for a user's scopes",
        &kit.form(
            "/oauth2/token",
            &with(
                &asserts(ec.sign(&header, &fresh())),
                "scope",
                "user/*.rs patient/*.rs openid",
            ),
        )
        .await,
    );
    cases.token(
        "a backend asks for more letters",
        &kit.form(
            "/oauth2/token",
            &with(&asserts(ec.sign(&header, &fresh())), "scope", "system/*.cruds"),
        )
        .await,
    );
    cases.token("a backend redeems a code", &{
        let code = kit.code(public_client).await;
        let mut pairs = kit.redeems(&client, &code);
        pairs.extend(asserts(ec.sign(&header, &fresh())).into_iter().skip(2));
        kit.form("/oauth2/token", &pairs).await
    });
    let asked = kit.authorize(&kit.asks(&client)).await;
    cases.refused("a backend asks for consent", asked.status.is_redirection());

    // Secrets.
    let mut metadata = public();
    metadata["token_endpoint_auth_method"] = "client_secret_basic".into();
    let (with_secret, secret) = kit.register(metadata).await;
    let code = kit.code(&with_secret).await;
    let redeems = kit.redeems(&with_secret, &code);
    let basic = |id: &str, secret: &str| format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    for (name, auth) in [
        ("wrong secret", basic(&with_secret, "wrong")),
        ("empty secret", basic(&with_secret, "")),
        ("secret of another client", basic(&client, &secret)),
        (
            "secret without a colon",
            format!("Basic {}", STANDARD.encode(&with_secret)),
        ),
        ("secret as bearer", format!("Bearer {secret}")),
        ("basic that is no base64", "Basic ???".to_owned()),
    ] {
        let answer = kit.form_to(HOST, "/oauth2/token", Some(&auth), &redeems).await;
        assert_eq!(answer.get("error"), "invalid_client", "{name}: {}", answer.text);
        cases.token(name, &answer);
    }
    cases.token(
        "a client with a secret by name alone",
        &kit.form("/oauth2/token", &redeems).await,
    );
    cases.token(
        "secret in the body",
        &kit.form("/oauth2/token", &with(&redeems, "client_secret", &secret))
            .await,
    );
    let given = kit
        .form_to(HOST, "/oauth2/token", Some(&basic(&with_secret, &secret)), &redeems)
        .await;
    assert_eq!(given.status, StatusCode::OK, "{}", given.text);
    let silent = without(&kit.refreshes("", &given.get("refresh_token")), "client_id");
    cases.token(
        "refresh of a client with a secret by nobody",
        &kit.form("/oauth2/token", &silent).await,
    );
    let code = kit.code(&with_secret).await;
    let redeems = kit.redeems(&with_secret, &code);
    let rotated = kit
        .api(
            "POST",
            &format!("/api/identity/clients/{with_secret}/secret"),
            &kit.admin,
            Some(json!({})),
        )
        .await;
    assert_eq!(rotated.status, StatusCode::OK, "{}", rotated.text);
    cases.token(
        "the secret of before",
        &kit.form_to(HOST, "/oauth2/token", Some(&basic(&with_secret, &secret)), &redeems)
            .await,
    );
    Ok(())
}
