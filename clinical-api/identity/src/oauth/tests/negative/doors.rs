//! The other doors, attacked: pushed requests, introspection, userinfo, CORS, registration.

use super::{Cases, with};
use crate::oauth::{
    HOUR, PUSHED,
    tests::kit::{HOST, Key, Kit, backend, public, query},
};
use axum::body::Body;
use http::{Request, StatusCode};
use medtech_kernel::{Result, testkit::World};
use serde_json::{Value, json};

/// The other doors: pushed requests, introspection, userinfo, CORS, registration.
pub(super) async fn others(kit: &Kit<'_>, cases: &mut Cases, w: &World, client: &str, other: &str) -> Result<()> {
    let pushed = kit.form("/oauth2/par", &kit.asks(client)).await;
    assert_eq!(pushed.status, StatusCode::CREATED, "{}", pushed.text);
    let uri = pushed.get("request_uri");
    let stolen = kit
        .authorize(&[("client_id", other.to_owned()), ("request_uri", uri)])
        .await;
    cases.refused(
        "a pushed request of another client",
        stolen.location().starts_with("/app/"),
    );
    let pushed = kit.form("/oauth2/par", &kit.asks(client)).await.get("request_uri");
    w.ctx.clock.advance(PUSHED);
    let late = kit
        .authorize(&[("client_id", client.to_owned()), ("request_uri", pushed)])
        .await;
    cases.refused("a pushed request too late", late.location().starts_with("/app/"));
    let bad = kit
        .form(
            "/oauth2/par",
            &with(&kit.asks(client), "redirect_uri", "https://evil.example/"),
        )
        .await;
    cases.refused("a pushed request with another redirect", bad.status.is_success());
    let nested = kit
        .form("/oauth2/par", &with(&kit.asks(client), "request_uri", "urn:x"))
        .await;
    cases.refused("a pushed request in a pushed request", nested.status.is_success());

    let access = kit.signed_in(client).await;
    let pairs = [("token", access.get("access_token")), ("client_id", client.to_owned())];
    let asked = kit.form("/oauth2/introspect", &pairs).await;
    cases.refused("introspection by a public client", asked.status.is_success());
    let nobody = kit
        .form("/oauth2/introspect", &[("token", access.get("access_token"))])
        .await;
    cases.refused("introspection by nobody", nobody.status.is_success());
    let theirs = [("token", access.get("access_token")), ("client_id", other.to_owned())];
    kit.form("/oauth2/revoke", &theirs).await;
    let theirs = [("token", access.get("refresh_token")), ("client_id", other.to_owned())];
    kit.form("/oauth2/revoke", &theirs).await;
    cases.refused(
        "revocation by another client",
        !kit.is_good(&access.get("access_token")).await,
    );
    cases.refused(
        "userinfo with our own session",
        kit.api("GET", "/oauth2/userinfo", &kit.doctor, None)
            .await
            .status
            .is_success(),
    );
    cases.refused(
        "userinfo with a refresh token",
        kit.api("GET", "/oauth2/userinfo", &access.get("refresh_token"), None)
            .await
            .status
            .is_success(),
    );
    cases.refused(
        "userinfo with an ID token",
        kit.api("GET", "/oauth2/userinfo", &access.get("id_token"), None)
            .await
            .status
            .is_success(),
    );
    let mut asks = kit.asks(client);
    asks = with(&asks, "scope", "launch/patient patient/*.rs");
    let code = query(&kit.allow(&kit.request(&asks).await).await)["code"].clone();
    let plain = kit.form("/oauth2/token", &kit.redeems(client, &code)).await;
    assert!(plain.json.get("id_token").is_none());
    cases.refused(
        "userinfo without openid",
        kit.api("GET", "/oauth2/userinfo", &plain.get("access_token"), None)
            .await
            .status
            .is_success(),
    );
    let call = Request::builder()
        .uri("/oauth2/userinfo")
        .header("host", "south.localhost");
    let call = call.header("authorization", format!("Bearer {}", access.get("access_token")));
    cases.refused(
        "userinfo at another clinic",
        kit.send(call.body(Body::empty()).unwrap()).await.status.is_success(),
    );

    for (name, origin) in [
        ("CORS from elsewhere", "https://evil.example"),
        ("CORS from null", "null"),
        ("CORS from a like name", "https://app.example.evil.example"),
        ("CORS by http", "http://app.example"),
    ] {
        let call = Request::builder()
            .method("OPTIONS")
            .uri("/oauth2/token")
            .header("host", HOST);
        let call = call
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        let answer = kit.send(call.body(Body::empty()).unwrap()).await;
        cases.refused(name, answer.headers.contains_key("access-control-allow-origin"));
    }
    let call = Request::builder()
        .method("OPTIONS")
        .uri("/oauth2/token")
        .header("host", HOST);
    let call = call
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST");
    let answer = kit.send(call.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
    assert!(!answer.headers.contains_key("access-control-allow-credentials"));

    // Who registers what.
    cases.refused(
        "registration by a clinician",
        kit.api("POST", "/api/identity/clients", &kit.doctor, Some(public()))
            .await
            .status
            .is_success(),
    );
    cases.refused(
        "registration by nobody",
        kit.api("POST", "/api/identity/clients", "mt_1_x", Some(public()))
            .await
            .status
            .is_success(),
    );
    let private = {
        let mut jwk = Key::ec().jwk("e");
        jwk["d"] = "secret".into();
        backend(json!({"keys": [jwk]}))
    };
    let change = |name: &str, value: Value| {
        let mut m = public();
        m[name] = value;
        m
    };
    for (name, body) in [
        ("registered: a private key", private),
        (
            "registered: a script as redirect",
            change("redirect_uris", json!(["javascript:alert(1)"])),
        ),
        (
            "registered: a redirect with a star",
            change("redirect_uris", json!(["https://*.example/cb"])),
        ),
        (
            "registered: http elsewhere",
            change("redirect_uris", json!(["http://app.example/cb"])),
        ),
        ("registered: implicit", change("grant_types", json!(["implicit"]))),
        ("registered: password", change("grant_types", json!(["password"]))),
        (
            "registered: a user's app with system scopes",
            change("scope", json!("system/*.rs")),
        ),
        (
            "registered: a public backend",
            change("grant_types", json!(["client_credentials"])),
        ),
        ("registered: an unknown scope", change("scope", json!("root"))),
        ("registered: an unknown field", change("software_statement", json!("x"))),
        ("registered: no name", change("client_name", json!(" "))),
    ] {
        let answer = kit.api("POST", "/api/identity/clients", &kit.admin, Some(body)).await;
        assert!(answer.status.is_client_error(), "{name}: {}", answer.text);
        cases.refused(name, answer.status.is_success());
    }
    w.ctx.clock.advance(HOUR);
    let old = kit
        .api("POST", "/api/identity/clients", &kit.admin, Some(public()))
        .await;
    assert_eq!(old.get("code"), "auth.step_up");
    cases.refused("registration by an old proof", old.status.is_success());
    Ok(())
}
