//! Hostile codes and refresh tokens at the token endpoint.

use super::{Cases, with, without};
use crate::oauth::{
    CODE, DAY, GRACE,
    tests::kit::{HOST, Kit, Pairs, VERIFIER, challenge, encoded},
};
use axum::body::Body;
use http::{Request, StatusCode, header};
use medtech_kernel::{Result, testkit::World};

/// Codes at `/oauth2/token`.
pub(super) async fn codes(kit: &Kit<'_>, cases: &mut Cases, w: &World, client: &str, other: &str) -> Result<()> {
    let token = async |pairs: &Pairs<'_>| kit.form("/oauth2/token", pairs).await;
    // Each with a fresh code, which the attempt burns.
    let changes: [(&str, &str, Option<&str>); 8] = [
        (
            "wrong verifier",
            "code_verifier",
            Some("another-verifier-of-at-least-forty-three-chars"),
        ),
        ("no verifier", "code_verifier", None),
        ("the challenge as verifier", "code_verifier", Some("C")),
        ("short verifier", "code_verifier", Some("short")),
        ("another redirect", "redirect_uri", Some("https://app.example/other")),
        ("no redirect at the token", "redirect_uri", None),
        ("another client's code", "client_id", Some("O")),
        ("a code of nothing", "code", Some("made-up")),
    ];
    for (name, field, value) in changes {
        let code = kit.code(client).await;
        let good = kit.redeems(client, &code);
        let challenge = challenge(VERIFIER);
        let pairs = match value {
            None => without(&good, field),
            Some("C") => with(&good, field, &challenge),
            Some("O") => with(&good, field, other),
            Some(value) => with(&good, field, value),
        };
        cases.token(name, &token(&pairs).await);
        // A parameter that is not there is a mistake; a wrong one burns the code.
        if value.is_some_and(|v| v != "made-up") {
            cases.token(&format!("{name}, then the right one"), &token(&good).await);
        }
    }
    let good = kit.redeems(client, &kit.code(client).await);
    w.ctx.clock.advance(CODE);
    cases.token("code after a minute", &token(&good).await);

    let good = kit.redeems(client, &kit.code(client).await);
    let first = token(&good).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text);
    cases.token("code replayed", &token(&good).await);
    cases.refused(
        "access token after a replay",
        kit.is_good(&first.get("access_token")).await,
    );
    cases.token(
        "refresh token after a replay",
        &token(&kit.refreshes(client, &first.get("refresh_token"))).await,
    );

    let good = kit.redeems(client, &kit.code(client).await);
    let foreign = kit.form_to("south.localhost", "/oauth2/token", None, &good).await;
    cases.token("code at another clinic", &foreign);

    let twice = [good.clone(), vec![("code", "x".into())]].concat();
    cases.token("code given twice", &token(&twice).await);
    cases.token(
        "grant type given twice",
        &token(&[good.clone(), vec![("grant_type", "authorization_code".into())]].concat()).await,
    );
    cases.token("no grant type", &token(&without(&good, "grant_type")).await);
    cases.token(
        "password grant",
        &token(&vec![
            ("grant_type", "password".into()),
            ("client_id", client.into()),
            ("username", "dr@north.example".into()),
            ("password", "x".into()),
        ])
        .await,
    );
    cases.token(
        "JWT bearer grant",
        &token(&with(
            &good,
            "grant_type",
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
        ))
        .await,
    );
    cases.token(
        "client credentials of a public client",
        &token(&vec![
            ("grant_type", "client_credentials".into()),
            ("client_id", client.into()),
            ("scope", "system/*.rs".into()),
        ])
        .await,
    );
    cases.token(
        "client with a secret it has not",
        &token(&with(&good, "client_secret", "x")).await,
    );

    let body = encoded(&good);
    for (name, method, uri, kind) in [
        (
            "token by GET",
            "GET",
            format!("/oauth2/token?{body}"),
            "application/x-www-form-urlencoded",
        ),
        (
            "token by PUT",
            "PUT",
            "/oauth2/token".to_owned(),
            "application/x-www-form-urlencoded",
        ),
        (
            "form called JSON",
            "POST",
            "/oauth2/token".to_owned(),
            "application/json",
        ),
        ("form called text", "POST", "/oauth2/token".to_owned(), "text/plain"),
        ("form of no kind", "POST", "/oauth2/token".to_owned(), ""),
        (
            "parameters in the address",
            "POST",
            format!("/oauth2/token?{body}"),
            "application/x-www-form-urlencoded",
        ),
    ] {
        let mut request = Request::builder().method(method).uri(uri).header("host", HOST);
        if !kind.is_empty() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        cases.token(name, &kit.send(request.body(Body::from(body.clone())).unwrap()).await);
    }
    Ok(())
}

/// Refresh tokens.
pub(super) async fn refreshes(kit: &Kit<'_>, cases: &mut Cases, w: &World, client: &str, other: &str) -> Result<()> {
    let token = async |pairs: &Pairs<'_>| kit.form("/oauth2/token", pairs).await;
    let first = kit.signed_in(client).await;
    let good = kit.refreshes(client, &first.get("refresh_token"));
    cases.token(
        "refresh by another client",
        &token(&with(&good, "client_id", other)).await,
    );
    cases.token(
        "refresh at another clinic",
        &kit.form_to("south.localhost", "/oauth2/token", None, &good).await,
    );
    for (name, scope) in [
        ("more at refresh: letters", "patient/*.cruds"),
        ("more at refresh: level", "user/Patient.rs"),
        ("more at refresh: system", "system/*.rs"),
        ("more at refresh: a name", "openid email"),
    ] {
        cases.token(name, &token(&with(&good, "scope", scope)).await);
    }
    cases.token(
        "an access token as refresh token",
        &token(&with(&good, "refresh_token", &first.get("access_token"))).await,
    );
    cases.token(
        "a code as refresh token",
        &token(&with(&good, "refresh_token", &kit.code(client).await)).await,
    );
    let narrowed = token(&with(&good, "scope", "patient/Observation.r")).await;
    assert_eq!(narrowed.get("scope"), "patient/Observation.r", "{}", narrowed.text);
    w.ctx.clock.advance(GRACE + 1);
    cases.token("refresh token replayed", &token(&good).await);
    cases.token(
        "the successor after a replay",
        &token(&kit.refreshes(client, &narrowed.get("refresh_token"))).await,
    );
    cases.refused(
        "access token after a refresh replay",
        kit.is_good(&narrowed.get("access_token")).await,
    );
    cases.refused("access token as our own session", {
        let live = kit.signed_in(client).await.get("access_token");
        kit.api("GET", "/api/identity/me", &live, None)
            .await
            .status
            .is_success()
    });

    let first = kit.signed_in(client).await;
    w.ctx.clock.advance(91 * DAY);
    cases.token(
        "refresh token after its time",
        &token(&kit.refreshes(client, &first.get("refresh_token"))).await,
    );
    cases.refused(
        "access token after its time",
        kit.is_good(&first.get("access_token")).await,
    );
    Ok(())
}
