//! An application as it is registered: its metadata in the names of RFC 7591, and what is accepted of them.

use super::jwt;
use medtech_kernel::{
    Error, Result,
    clock::Millis,
    scope::{Level, Scopes},
};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// Names that are no clinical scope and mean something here.
pub(crate) const NAMED: [&str; 9] = [
    "openid",
    "profile",
    "email",
    "fhirUser",
    "launch",
    "launch/patient",
    "launch/encounter",
    "offline_access",
    "online_access",
];

/// How a client shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Method {
    /// A public client: an app in a browser or on a phone. It has no secret, PKCE stands in.
    None,
    /// A secret, in the `Authorization` header.
    ClientSecretBasic,
    /// An assertion signed with a key of its own.
    PrivateKeyJwt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GrantType {
    AuthorizationCode,
    RefreshToken,
    /// A backend service: no user, `system/` scopes.
    ClientCredentials,
}

/// What an administrator says of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metadata {
    pub(crate) client_name: String,
    pub(crate) token_endpoint_auth_method: Method,
    pub(crate) grant_types: Vec<GrantType>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) redirect_uris: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) post_logout_redirect_uris: Vec<String>,
    /// What it may ask for.
    pub(crate) scope: String,
    /// Where it is opened from within the EHR (SMART App Launch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) initiate_login_uri: Option<String>,
    /// Where it is told that its user's session here is over (OpenID Connect Back-Channel Logout).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backchannel_logout_uri: Option<String>,
    /// Whether it needs the session's name in that message; it always has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) backchannel_logout_session_required: bool,
    /// It has no token that is not bound to a key of its own (RFC 9449).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) dpop_bound_access_tokens: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jwks: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jwks_uri: Option<String>,
}

/// An application.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) metadata: Metadata,
    /// SHA-256 of the secret.
    pub(crate) secret: Option<[u8; 32]>,
    pub(crate) active: bool,
    pub(crate) created_at: Millis,
    pub(crate) updated_at: Millis,
}

impl Client {
    pub(crate) fn may(&self, grant: GrantType) -> bool {
        self.metadata.grant_types.contains(&grant)
    }

    /// The words of a request that this client may have and that we know, in their order.
    pub(crate) fn allowed(&self, asked: &str, levels: &[Level]) -> Vec<String> {
        let ours = Scopes::parse(&self.metadata.scope);
        let mut given: Vec<String> = Vec::new();
        for word in asked.split(' ').filter(|w| !w.is_empty()) {
            let one = Scopes::parse(word);
            let known = match one.clinical.first() {
                Some(scope) => levels.contains(&scope.level),
                None => NAMED.contains(&word) && levels.contains(&Level::User),
            };
            if known && ours.includes(word) && !given.iter().any(|g| g == word) {
                given.push(word.to_owned());
            }
        }
        given
    }

    /// The web origins of its redirect addresses.
    pub(crate) fn origins(&self) -> Vec<String> {
        let mut all: Vec<String> = (self.metadata.redirect_uris.iter())
            .filter_map(|uri| Url::parse(uri).ok())
            .filter(|u| matches!(u.scheme(), "http" | "https"))
            .map(|u| u.origin().ascii_serialization())
            .collect();
        all.sort();
        all.dedup();
        all
    }
}

fn wrong(what: &'static str) -> Error {
    Error::unprocessable("oauth.client", what)
}

impl Metadata {
    /// Refuses what could not be served safely.
    pub(crate) fn check(&self, development: bool) -> Result<()> {
        let name = self.client_name.trim();
        if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
            return Err(wrong("An application's name has 1 to 100 characters."));
        }
        let interactive = self.grant_types.contains(&GrantType::AuthorizationCode);
        let backend = self.grant_types.contains(&GrantType::ClientCredentials);
        if interactive == backend {
            return Err(wrong(
                "An application signs people in (authorization_code), or it is a backend service (client_credentials).",
            ));
        }
        if backend && self.token_endpoint_auth_method != Method::PrivateKeyJwt {
            return Err(wrong("A backend service shows who it is by private_key_jwt."));
        }
        if backend && self.grant_types.len() > 1 {
            return Err(wrong("A backend service has no refresh tokens."));
        }
        if interactive == self.redirect_uris.is_empty() {
            return Err(wrong(
                "Redirect addresses are for applications that sign people in, at least one.",
            ));
        }
        if self.redirect_uris.len() > 20 || self.post_logout_redirect_uris.len() > 20 {
            return Err(wrong("An application has at most 20 redirect addresses."));
        }
        for uri in self.redirect_uris.iter().chain(&self.post_logout_redirect_uris) {
            redirect(uri)?;
        }
        if let Some(uri) = &self.initiate_login_uri {
            web(uri, "The launch address")?;
        }
        if let Some(uri) = &self.backchannel_logout_uri {
            let here = |url: &Url| development && url.scheme() == "http" && is_loopback(url);
            let url = Url::parse(uri).ok().filter(|_| uri.len() <= 1000 && !uri.contains('#'));
            if !url.is_some_and(|url| url.scheme() == "https" || here(&url)) || backend {
                return Err(wrong("The address for sign-outs begins with https."));
            }
        }
        self.check_scope(backend)?;
        self.check_keys(development)
    }

    fn check_scope(&self, backend: bool) -> Result<()> {
        if self.scope.len() > 4000 {
            return Err(wrong("The scopes are too long."));
        }
        let scopes = Scopes::parse(&self.scope);
        if scopes.named.iter().any(|n| !NAMED.contains(&n.as_str())) {
            return Err(wrong("One of the scopes is not known."));
        }
        let system = |level| level == Level::System;
        let fits = scopes.clinical.iter().all(|s| system(s.level) == backend);
        if !fits || (backend && !scopes.named.is_empty()) {
            return Err(wrong("Backend services have system/ scopes, and they alone have them."));
        }
        if scopes.clinical.is_empty() && scopes.named.is_empty() {
            return Err(wrong("An application has at least one scope."));
        }
        Ok(())
    }

    fn check_keys(&self, development: bool) -> Result<()> {
        let keyed = self.token_endpoint_auth_method == Method::PrivateKeyJwt;
        if keyed != (self.jwks.is_some() != self.jwks_uri.is_some()) || (!keyed && self.jwks.is_some()) {
            return Err(wrong(
                "Keys, or the address of keys, are for private_key_jwt: one of the two.",
            ));
        }
        if let Some(uri) = &self.jwks_uri {
            let url = Url::parse(uri).map_err(|_| wrong("The address of the keys is not one."))?;
            if url.scheme() != "https" && !(development && url.scheme() == "http" && is_loopback(&url)) {
                return Err(wrong("The address of the keys begins with https."));
            }
        }
        let Some(jwks) = &self.jwks else { return Ok(()) };
        let private = |key: &serde_json::Value| key.get("d").is_some() || key.get("k").is_some();
        if jwks
            .get("keys")
            .and_then(|k| k.as_array())
            .is_some_and(|k| k.iter().any(private))
        {
            return Err(wrong(
                "These keys hold a private or secret part. Only the public part belongs here.",
            ));
        }
        match jwt::key_set(jwks) {
            Some(set) if !set.keys.is_empty() && set.keys.len() <= 20 && jwks.to_string().len() <= 40_000 => Ok(()),
            _ => Err(wrong("The keys are not a JSON Web Key Set.")),
        }
    }
}

/// https, http on this machine, or the private scheme of a native app (RFC 8252: a reversed domain name).
fn redirect(uri: &str) -> Result<()> {
    let url = Url::parse(uri).map_err(|_| wrong("A redirect address is not an address."))?;
    let fine = match url.scheme() {
        "https" => url.host().is_some(),
        "http" => is_loopback(&url),
        scheme => scheme.contains('.'),
    };
    let plain =
        uri.len() <= 1000 && uri.bytes().all(|b| b.is_ascii_graphic()) && !uri.contains(['"', '<', '>', '\\', '*']);
    if !fine || !plain || uri.contains('#') || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "A redirect address begins with https (or http on this machine, or an app's own reversed domain name), without a fragment.",
        ));
    }
    Ok(())
}

fn web(uri: &str, what: &str) -> Result<()> {
    let url = Url::parse(uri).ok().filter(|_| uri.len() <= 1000 && !uri.contains('#'));
    match url {
        Some(url) if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) => Ok(()),
        _ => Err(Error::unprocessable(
            "oauth.client",
            format!("{what} begins with https, or with http on this machine."),
        )),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_addresses() {
        for good in [
            "https://app.example/cb",
            "https://app.example:8443/cb?x=1",
            "http://localhost:3000/cb",
            "http://127.0.0.1/cb",
            "http://[::1]:9/cb",
            "com.example.app:/cb",
        ] {
            assert!(redirect(good).is_ok(), "{good}");
        }
        for bad in [
            "http://app.example/cb",
            "http://127.0.0.1.evil.example/cb",
            "http://localhost@evil.example/cb",
            "https://user:pw@app.example/cb",
            "https://app.example/cb#x",
            "https://app.example/*",
            "https://app.example\\@evil.example/",
            "javascript:alert(1)",
            "data:text/html,x",
            "myapp:/cb",
            "//app.example/cb",
            "/cb",
            "",
            "https://app.example/ cb",
            "file:///etc/passwd",
        ] {
            assert!(redirect(bad).is_err(), "{bad}");
        }
    }
}
