//! Hostile authorization requests, and what happens between the request and the code.

use super::{Cases, with, without};
use crate::oauth::{
    MINUTE, REQUEST, SECOND,
    tests::kit::{Answer, HOST, ISSUER, Kit, REDIRECT, encoded, query},
};
use axum::body::Body;
use http::{Request, StatusCode};
use medtech_kernel::{Result, auth::Role, testkit::World};
use serde_json::json;

/// Requests to `/oauth2/authorize`.
pub(super) async fn authorizations(kit: &Kit<'_>, cases: &mut Cases, client: &str) -> Result<()> {
    let good = kit.asks(client);
    assert!(
        kit.authorize(&good).await.location().starts_with("/app/authorize?"),
        "the good one"
    );
    // Nothing is sent to an address that is not registered.
    let nowhere = [
        (
            "redirect elsewhere",
            with(&good, "redirect_uri", "https://evil.example/cb"),
        ),
        (
            "redirect below",
            with(&good, "redirect_uri", "https://app.example/cb/more"),
        ),
        (
            "redirect with a query",
            with(&good, "redirect_uri", "https://app.example/cb?x=1"),
        ),
        (
            "redirect with a fragment",
            with(&good, "redirect_uri", "https://app.example/cb#x"),
        ),
        (
            "redirect in capitals",
            with(&good, "redirect_uri", "https://APP.example/cb"),
        ),
        (
            "redirect with a port",
            with(&good, "redirect_uri", "https://app.example:443/cb"),
        ),
        ("redirect by http", with(&good, "redirect_uri", "http://app.example/cb")),
        (
            "redirect with a user",
            with(&good, "redirect_uri", "https://app.example@evil.example/cb"),
        ),
        (
            "redirect by a sub domain",
            with(&good, "redirect_uri", "https://app.example.evil.example/cb"),
        ),
        (
            "redirect with dots",
            with(&good, "redirect_uri", "https://app.example/x/../cb"),
        ),
        (
            "redirect with a slash",
            with(&good, "redirect_uri", "https://app.example/cb/"),
        ),
        (
            "redirect encoded",
            with(&good, "redirect_uri", "https://app.example/%63b"),
        ),
        (
            "redirect to a script",
            with(&good, "redirect_uri", "javascript:alert(1)"),
        ),
        ("no redirect", without(&good, "redirect_uri")),
        ("unknown client", with(&good, "client_id", "nobody")),
        ("no client", without(&good, "client_id")),
        ("client with NUL", with(&good, "client_id", "a\0b")),
        ("client of SQL", with(&good, "client_id", "' OR '1'='1")),
        (
            "request_uri from outside",
            with(&good, "request_uri", "https://evil.example/request"),
        ),
        (
            "request_uri unknown",
            with(&good, "request_uri", "urn:ietf:params:oauth:request_uri:x"),
        ),
        (
            "redirect twice",
            [good.clone(), vec![("redirect_uri", "https://evil.example/".into())]].concat(),
        ),
        ("scope twice", [good.clone(), vec![("scope", "openid".into())]].concat()),
    ];
    for (name, pairs) in nowhere {
        let answer = kit.authorize(&pairs).await;
        assert_eq!(
            (answer.status, answer.location()),
            (StatusCode::BAD_REQUEST, ""),
            "{name}"
        );
        cases.refused(name, answer.status.is_redirection());
    }
    // These are told to the client, at its own address.
    let told = [
        (
            "no PKCE",
            without(&without(&good, "code_challenge"), "code_challenge_method"),
        ),
        ("PKCE plain", with(&good, "code_challenge_method", "plain")),
        ("PKCE without method", without(&good, "code_challenge_method")),
        ("PKCE challenge too short", with(&good, "code_challenge", "abc")),
        (
            "PKCE challenge of other characters",
            with(&good, "code_challenge", &"+".repeat(43)),
        ),
        ("implicit token", with(&good, "response_type", "token")),
        ("implicit ID token", with(&good, "response_type", "id_token")),
        ("hybrid", with(&good, "response_type", "code id_token")),
        ("no response type", without(&good, "response_type")),
        ("fragment mode", with(&good, "response_mode", "fragment")),
        ("form_post mode", with(&good, "response_mode", "form_post")),
        ("no aud", without(&good, "aud")),
        (
            "aud of another server",
            with(&good, "aud", "https://evil.example/fhir/R4"),
        ),
        (
            "aud of another clinic",
            with(&good, "aud", "http://south.localhost/fhir/R4"),
        ),
        ("no state in SMART", without(&good, "state")),
        ("no scope", without(&good, "scope")),
        ("scopes of the system", with(&good, "scope", "system/*.rs")),
        (
            "scopes it is not registered for",
            with(&good, "scope", "user/*.cruds patient/*.cud"),
        ),
        ("scopes that are none", with(&good, "scope", "patient/*.sr admin *")),
        (
            "scope narrowed by what is no search",
            with(&good, "scope", "patient/Observation.rs?nonsense=laboratory"),
        ),
        (
            "scope of every type narrowed",
            with(&good, "scope", "patient/*.rs?category=laboratory"),
        ),
        (
            "scope with two queries",
            with(
                &good,
                "scope",
                "patient/Observation.rs?category=laboratory?status=final",
            ),
        ),
        ("ID token hint that is none", with(&good, "id_token_hint", "a.b.c")),
        ("key that is no thumbprint", with(&good, "dpop_jkt", "x")),
        (
            "login hint of 400 characters",
            with(&good, "login_hint", &"x".repeat(400)),
        ),
        ("signed request", with(&good, "request", "eyJhbGciOiJub25lIn0.e30.")),
        ("prompt none with others", with(&good, "prompt", "none login")),
        ("max_age of words", with(&good, "max_age", "soon")),
        ("max_age below zero", with(&good, "max_age", "-1")),
        ("launch scope without launch", with(&good, "scope", "launch openid")),
        (
            "launch unknown",
            with(&with(&good, "scope", "launch openid"), "launch", "made-up"),
        ),
        ("state of 3,000 characters", with(&good, "state", &"x".repeat(3000))),
    ];
    for (name, pairs) in told {
        let answer = kit.authorize(&pairs).await;
        let to = answer.location();
        assert!(to.starts_with(&format!("{REDIRECT}?")) || to.is_empty(), "{name}: {to}");
        let back = query(to);
        assert!(
            back.contains_key("error") && back["iss"] == ISSUER && !back.contains_key("code"),
            "{name}: {to}"
        );
        if pairs.iter().any(|(n, v)| *n == "state" && v.len() < 100) {
            assert_eq!(back["state"], "the state", "{name}");
        }
        cases.refused(name, false);
    }
    // Another clinic does not know the client.
    let uri = format!("/oauth2/authorize?{}", encoded(&good));
    let foreign = Request::builder()
        .uri(uri)
        .header("host", "south.localhost")
        .body(Body::empty())
        .unwrap();
    let foreign = kit.send(foreign).await;
    cases.refused("client of another clinic", foreign.status.is_redirection());
    Ok(())
}

/// What happens between the request and the code.
pub(super) async fn decisions(kit: &Kit<'_>, cases: &mut Cases, w: &World, client: &str) -> Result<()> {
    let good = kit.asks(client);
    let yes = json!({"allow": true, "scopes": ["patient/*.rs"], "patient": "p1"});
    let given = |a: &Answer| a.get("redirect").contains("code=");
    let token = kit.signed_in(client).await.get("access_token");

    let request = kit.request(&good).await;
    cases.refused(
        "an application consents for its user",
        given(&kit.decide(&token, &request, yes.clone()).await),
    );
    cases.refused(
        "consent of nobody",
        given(&kit.decide("mt_1_x", &request, yes.clone()).await),
    );
    cases.refused(
        "consent to what is not there",
        given(&kit.decide(&kit.doctor, "made-up", yes.clone()).await),
    );
    let mut more = yes.clone();
    more["scopes"] = json!(["patient/*.rs", "patient/*.cruds", "user/*.cruds", "system/*.cruds"]);
    let to = kit.decide(&kit.doctor, &request, more).await.get("redirect");
    let answer = kit
        .form("/oauth2/token", &kit.redeems(client, &query(&to)["code"]))
        .await;
    cases.refused(
        "scopes added on the consent screen",
        answer.get("scope").contains("cruds"),
    );
    cases.refused(
        "one request decided twice",
        given(&kit.decide(&kit.doctor, &request, yes.clone()).await),
    );

    let request = kit.request(&good).await;
    for (name, patient) in [
        ("no patient chosen", json!(null)),
        ("a patient that is a path", json!("../x")),
        ("a patient of 100 characters", json!("x".repeat(100))),
    ] {
        let mut body = yes.clone();
        body["patient"] = patient;
        cases.refused(name, given(&kit.decide(&kit.doctor, &request, body).await));
    }
    let (_, patient) = kit.person(&w.north, "patient@north.example", Role::Patient).await?;
    cases.refused(
        "a patient chooses another's record",
        given(&kit.decide(&patient, &request, yes.clone()).await),
    );
    let no = kit.decide(&kit.doctor, &request, json!({"allow": false})).await;
    cases.refused(
        "a user who refuses",
        given(&no) || !no.get("redirect").contains("error=access_denied"),
    );

    w.ctx.clock.advance(SECOND);
    let later = kit.request(&with(&good, "prompt", "login")).await;
    cases.refused(
        "prompt=login by an older proof",
        given(&kit.decide(&kit.doctor, &later, yes.clone()).await),
    );
    w.ctx.clock.advance(MINUTE);
    let request = kit.request(&with(&good, "max_age", "30")).await;
    let stale = kit.decide(&kit.doctor, &request, yes.clone()).await;
    assert_eq!(stale.get("code"), "auth.step_up");
    cases.refused("max_age exceeded", given(&stale));
    let request = kit.request(&good).await;
    w.ctx.clock.advance(REQUEST);
    cases.refused(
        "a decision too late",
        given(&kit.decide(&kit.doctor, &request, yes.clone()).await),
    );

    // Another clinic's user, another clinic's host.
    let request = kit.request(&good).await;
    let (_, south) = kit.person(&w.south, "dr@south.example", Role::Clinician).await?;
    let path = format!("/api/identity/authorizations/{request}/decision");
    for (name, host, token) in [
        ("consent by another clinic's user", HOST, &south),
        ("consent at another clinic", "south.localhost", &south),
    ] {
        let call = Request::builder().method("POST").uri(&path).header("host", host);
        let call = call
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        let answer = kit.send(call.body(Body::from(yes.to_string())).unwrap()).await;
        cases.refused(name, given(&answer));
    }
    for (name, subject, patient) in [
        ("launch by nobody", "mt_1_x", "p1"),
        ("launch by an application", token.as_str(), "p1"),
        ("launch for another's record", patient.as_str(), "p1"),
    ] {
        let body = json!({"client_id": client, "patient": patient});
        let answer = kit.api("POST", "/api/identity/launches", subject, Some(body)).await;
        cases.refused(name, answer.status.is_success());
    }
    Ok(())
}
