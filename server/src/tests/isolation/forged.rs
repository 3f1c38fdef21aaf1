//! Every route that may take a body stands in the test of forged fields (tests/e2e/specs/forged.test.mjs), or here with the
//! reason why it has no row there.

use super::{app, house, table};
use medtech_kernel::{Result, testkit::World};
use std::{collections::BTreeSet, path::Path};

/// Method and path, with `{}` wherever a value stands.
type Door = (String, String);

/// `{id}` of the router and `${made.user}` of the specification, each as `{}`.
fn shape(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path;
    while let Some((head, tail)) = rest.split_once('{') {
        out.push_str(head.strip_suffix('$').unwrap_or(head));
        out.push_str("{}");
        rest = tail.split_once('}').map_or("", |(_, tail)| tail);
    }
    out + rest
}

/// The doors that the specification knocks at: `[who, "POST", "/path" or () => `/path`, …`.
fn tried(spec: &str) -> BTreeSet<Door> {
    let (_, rest) = spec.split_once("const doors = () => [").expect("the table of doors");
    let (rows, _) = rest.split_once("\n];").expect("its end");
    let mut doors = BTreeSet::new();
    for row in rows.lines().map(str::trim).filter(|row| row.starts_with('[')) {
        let (_, rest) = row.split_once(", \"").expect("who knocks");
        let (method, rest) = rest.split_once("\", ").expect("a method");
        let rest = rest.trim_start_matches("() => ");
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '`')).expect(row);
        let path = rest.split(quote).nth(1).expect("a path");
        doors.insert((method.to_owned(), shape(path)));
    }
    doors
}

/// The route answers this path: segment by segment, a value of either side standing for any of the other.
fn answers(route: &str, path: &str) -> bool {
    let (route, path): (Vec<&str>, Vec<&str>) = (route.split('/').collect(), path.split('/').collect());
    if let Some(("{*rest}", head)) = route.split_last().map(|(last, head)| (*last, head)) {
        return path.len() > head.len() && path.starts_with(head);
    }
    route.len() == path.len()
        && route
            .iter()
            .zip(&path)
            .all(|(r, p)| if r.starts_with('{') { !p.is_empty() } else { r == p })
}

const NO_BODY: &str = "its handler reads no body";
const ONE_PROOF: &str = "the answer to a challenge of an authenticator or a code: read, compared, not kept";
const FORM: &str = "a form of RFC 6749 and its kin, not JSON; clinical-api/identity/src/oauth/tests/negative.rs";
const NO_INTERACTION: &str = "refused whatever the body says";
const BYTES: &str = "bytes of a file (tus 1.0.0); its metadata: messaging/tests/tus.rs";

/// Doors without a row, each with its reason.
const WITHOUT: [(&str, &str, &str); 52] = [
    ("POST", "/api/identity/authorizations/{request}/silent", NO_BODY),
    ("POST", "/api/identity/clients/{id}/secret", NO_BODY),
    (
        "POST",
        "/api/identity/email/confirm",
        "only a mail's link; what changes was asked for by me/email, which has a row",
    ),
    (
        "POST",
        "/api/identity/email/undo",
        "only a mail's link; unknown fields are refused",
    ),
    (
        "POST",
        "/api/identity/me/invitation",
        "only a name and a password, as of me/profile and me/password, which have rows",
    ),
    ("POST", "/api/identity/passkeys/authenticate/finish", ONE_PROOF),
    ("POST", "/api/identity/passkeys/authenticate/start", NO_BODY),
    ("POST", "/api/identity/passkeys/register/finish", ONE_PROOF),
    ("POST", "/api/identity/passkeys/register/start", NO_BODY),
    (
        "PATCH",
        "/api/identity/passkeys/{id}",
        "only a name, of the owner's key; needs an authenticator",
    ),
    (
        "POST",
        "/api/identity/password/reset",
        "only a mail's link and a password, as of me/password, which has a row",
    ),
    ("POST", "/api/identity/proxies/{id}/accept", NO_BODY),
    ("POST", "/api/identity/recovery", NO_BODY),
    ("POST", "/api/identity/sessions/end-others", NO_BODY),
    ("POST", "/api/identity/sign-in/second", ONE_PROOF),
    ("POST", "/api/identity/sign-in/second/passkey", ONE_PROOF),
    ("POST", "/api/identity/sign-out", NO_BODY),
    ("POST", "/api/identity/sso/finish", ONE_PROOF),
    ("POST", "/api/identity/sso/{id}/logout", FORM),
    ("POST", "/api/identity/sso/{id}/start", NO_BODY),
    ("POST", "/api/identity/step-up/passkey", ONE_PROOF),
    ("POST", "/api/identity/step-up/passkey/start", NO_BODY),
    ("POST", "/api/identity/step-up/totp", ONE_PROOF),
    ("POST", "/api/identity/totp/confirm", ONE_PROOF),
    ("POST", "/api/identity/totp/start", NO_BODY),
    ("POST", "/api/identity/users/{id}/{act}", NO_BODY),
    ("POST", "/api/notifications/alerts/{id}/acknowledge", NO_BODY),
    ("POST", "/api/notifications/{id}/read", NO_BODY),
    ("POST", "/api/operations/keys/rotate", NO_BODY),
    (
        "POST",
        "/api/operations/unseal",
        "only a passphrase, of nobody, before there is a clinic",
    ),
    ("POST", "/api/records/patients/{id}/break-glass/end", NO_BODY),
    ("POST", "/api/tenants/audit/verify", NO_BODY),
    ("POST", "/api/tenants/{id}/resume", NO_BODY),
    ("POST", "/api/tenants/{id}/suspend", NO_BODY),
    ("POST", "/api/visits/{id}/colleagues", NO_BODY),
    ("POST", "/api/visits/{id}/end", NO_BODY),
    ("POST", "/api/visits/{id}/leave", NO_BODY),
    ("POST", "/api/visits/{id}/media", NO_BODY),
    ("POST", "/files", BYTES),
    ("POST", "/files/{id}", BYTES),
    ("PATCH", "/files/{id}", BYTES),
    ("PATCH", "/fhir/R4", NO_INTERACTION),
    ("PUT", "/fhir/R4", NO_INTERACTION),
    ("PATCH", "/fhir/R4/{*rest}", NO_INTERACTION),
    ("POST", "/oauth2/authorize", FORM),
    ("POST", "/oauth2/introspect", FORM),
    ("POST", "/oauth2/logout", FORM),
    ("POST", "/oauth2/par", FORM),
    ("POST", "/oauth2/revoke", FORM),
    ("POST", "/oauth2/token", FORM),
    ("POST", "/oauth2/userinfo", NO_BODY),
    (
        "POST",
        "/twirp/livekit.RoomService/{method}",
        "protobuf of LiveKit's server API, under a key of the clinic; no session opens it",
    ),
];

#[tokio::test]
async fn every_route_with_a_body_is_tried_with_forged_fields() -> Result<()> {
    let tables = app::migrations();
    let w = World::sqlite(tables.get(1..).unwrap_or_default()).await?;
    let house = house(&w).await?;
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/e2e/specs/forged.test.mjs");
    let tried = tried(&std::fs::read_to_string(spec).expect("the specification"));
    let mut doors = BTreeSet::new();
    for route in table::of(&house.running.router) {
        let writes = route.methods.iter().filter(|m| matches!(**m, "POST" | "PUT" | "PATCH"));
        // Routes answer with and without the last slash alike.
        let path = route.path.trim_end_matches('/');
        doors.extend(writes.map(|m| (*m, path.to_owned())));
    }
    let all = |t: &(String, String)| doors.iter().any(|(m, route)| *m == t.0 && answers(route, &t.1));
    let unknown: Vec<&Door> = tried.iter().filter(|t| !all(t)).collect();
    assert!(unknown.is_empty(), "rows that knock at no door: {unknown:?}");
    assert!(tried.len() >= 35, "{} doors have rows", tried.len());
    let (mut missing, mut reasons) = (Vec::new(), BTreeSet::from(WITHOUT.map(|(m, p, _)| (m, p))));
    for (method, route) in &doors {
        let row = tried.iter().any(|(m, p)| m == method && answers(route, p));
        let reason = reasons.remove(&(*method, route.as_str()));
        match (row, reason) {
            (false, false) => missing.push(format!("{method} {route}")),
            (true, true) => panic!("{method} {route} has a row, so it needs no reason"),
            _ => {}
        }
    }
    assert!(
        missing.is_empty(),
        "neither a row in forged.test.mjs nor a reason here: {missing:#?}"
    );
    assert!(reasons.is_empty(), "reasons for doors that are not there: {reasons:?}");
    Ok(())
}
