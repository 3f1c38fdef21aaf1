//! Which client calls: one method, the one it is registered with, and no other.

use super::{
    OAuth,
    client::{Client, Method},
    form::Form,
    issuer::Site,
    refusal::{Outcome, Refusal},
    store,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};
use medtech_kernel::id;
use url::form_urlencoded;

pub(crate) const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn unknown() -> Refusal {
    Refusal::client("The application is not known, or did not show that it is itself.")
}

impl OAuth {
    /// The client of a request, proved by its own method; public clients by name alone.
    pub(crate) async fn client_of(&self, site: &Site, headers: &HeaderMap, form: &Form) -> Outcome<Client> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (basic, again) = (given.next(), given.next());
        let assertion = form.get("client_assertion").or(form.get("client_assertion_type"));
        if again.is_some() || (basic.is_some() && assertion.is_some()) || form.get("client_secret").is_some() {
            return Err(Refusal::client(
                "An application shows who it is in one way: none, client_secret_basic or private_key_jwt.",
            ));
        }
        if let Some(value) = basic {
            let (id, secret) = value.to_str().ok().and_then(credentials).ok_or_else(unknown)?;
            if form.get("client_id").is_some_and(|named| named != id) {
                return Err(unknown());
            }
            let client = self.registered(site, &id, Method::ClientSecretBasic).await?;
            let given = id::sha256(secret.as_bytes());
            let kept = client.secret.ok_or_else(unknown)?;
            return match aws_lc_rs::constant_time::verify_slices_are_equal(&given, &kept) {
                Ok(()) => Ok(client),
                Err(_) => Err(unknown()),
            };
        }
        if assertion.is_some() {
            if form.get("client_assertion_type") != Some(ASSERTION) {
                return Err(unknown());
            }
            let assertion = form.get("client_assertion").ok_or_else(unknown)?;
            return self
                .asserted(site, form.get("client_id"), assertion)
                .await?
                .ok_or_else(unknown);
        }
        let id = form.get("client_id").ok_or_else(unknown)?;
        self.registered(site, id, Method::None).await
    }

    /// A client that stands and uses this method.
    pub(crate) async fn registered(&self, site: &Site, id: &str, method: Method) -> Outcome<Client> {
        store::client(&self.ctx.db, site.id(), id)
            .await?
            .filter(|c| c.active && c.metadata.token_endpoint_auth_method == method)
            .ok_or_else(unknown)
    }
}

/// RFC 6749, 2.3.1: both parts are form-encoded before they become Basic credentials.
fn credentials(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = STANDARD.decode(encoded.trim()).ok()?;
    let (id, secret) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some((decoded(id)?, decoded(secret)?))
}

fn decoded(part: &str) -> Option<String> {
    let text = format!("x={part}");
    let mut pairs = form_urlencoded::parse(text.as_bytes());
    let (_, value) = pairs.next()?;
    pairs.next().is_none().then(|| value.into_owned())
}
