//! An outside provider as an administrator describes it, and what it says of itself.

use super::{Sso, exchange::Person};
use medtech_kernel::{
    Error, Result,
    auth::{Assurance, Role},
    clock::Millis,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::{Arc, PoisonError};
use url::Url;

/// Discovery documents are read again after this time, failures after the shorter one.
const FRESH: Millis = 10 * 60_000;
const AGAIN: Millis = 30_000;
const MOST: usize = 64;

/// What an administrator says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// As on the button: "Sign in with …".
    pub(crate) name: String,
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    /// Mail domains whose people it vouches for.
    pub(crate) domains: Vec<String>,
    /// People of these domains that are not known here are made users with this role; absent: they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) create: Option<Role>,
    /// It asks for two factors itself: its word counts for both.
    #[serde(default)]
    pub(crate) two_factors: bool,
    /// Where it asks for them of some only: values of `acr` and of `amr` in its ID token that mean two factors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) two_factor_acr: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) two_factor_amr: Vec<String>,
}

impl Settings {
    /// How surely somebody is known who came this way.
    pub(super) fn assurance(&self, person: &Person) -> Assurance {
        let acr = person.acr.as_ref().is_some_and(|acr| self.two_factor_acr.contains(acr));
        let amr = person.amr.iter().any(|amr| self.two_factor_amr.contains(amr));
        match self.two_factors || acr || amr {
            true => Assurance::Two,
            false => Assurance::One,
        }
    }
}

/// A provider.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    pub(crate) id: String,
    pub(crate) settings: Settings,
    pub(crate) sealed: Option<Vec<u8>>,
    pub(crate) active: bool,
    pub(crate) created_at: Millis,
}

fn wrong(what: &'static str) -> Error {
    Error::unprocessable("sso.provider", what)
}

impl Settings {
    pub(crate) fn check(&mut self, development: bool) -> Result<()> {
        let name = self.name.trim();
        if name.is_empty() || name.chars().count() > 60 || name.chars().any(char::is_control) {
            return Err(wrong("A provider's name has 1 to 60 characters."));
        }
        let url = Url::parse(&self.issuer).map_err(|_| wrong("The issuer is an address."))?;
        let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        if !plain || !(url.scheme() == "https" || (development && url.scheme() == "http")) || self.issuer.len() > 300 {
            return Err(wrong("The issuer begins with https, without a query."));
        }
        if self.client_id.is_empty() || self.client_id.len() > 300 {
            return Err(wrong("The client ID is what the provider gave you."));
        }
        for domain in &mut self.domains {
            *domain = domain.trim().trim_start_matches('@').to_ascii_lowercase();
        }
        let domain = |d: &String| {
            d.contains('.') && d.len() <= 253 && d.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        };
        if self.domains.is_empty() || self.domains.len() > 50 || !self.domains.iter().all(domain) {
            return Err(wrong("Mail domains say for whom the provider speaks, at least one."));
        }
        let named =
            |v: &String| !v.is_empty() && v.len() <= 200 && !v.chars().any(|c| c.is_control() || c.is_whitespace());
        let values = [&self.two_factor_acr, &self.two_factor_amr];
        if !values.iter().all(|v| v.len() <= 20 && v.iter().all(named)) {
            return Err(wrong("Values of acr and amr are words, at most 20 of each."));
        }
        if self
            .create
            .is_some_and(|role| !matches!(role, Role::Staff | Role::Clinician | Role::Patient))
        {
            return Err(wrong("New people become staff, clinicians or patients."));
        }
        Ok(())
    }
}

impl Sso {
    /// The discovery document of an issuer, which must say that it is that issuer's.
    pub(super) async fn document(&self, issuer: &str) -> Result<Arc<Value>> {
        let now = self.oauth.ctx.clock.now_ms();
        let away = || {
            Error::unavailable(
                "sso.unreachable",
                "The sign-in provider cannot be reached. Please try again in a moment.",
            )
        };
        {
            let kept = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
            match kept.get(issuer) {
                Some((at, Some(document))) if now < at + FRESH => return Ok(document.clone()),
                Some((at, None)) if now < at + AGAIN => return Err(away()),
                _ => {}
            }
        }
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let found = self.oauth.jwks.outbound().get_json(&address, None).await;
        let found = match found {
            Ok(document) if document.get("issuer").and_then(Value::as_str) == Some(issuer) => Some(Arc::new(document)),
            Ok(_) => {
                tracing::warn!("a sign-in provider names another issuer");
                None
            }
            Err(e) => {
                tracing::warn!(code = e.code, "a sign-in provider cannot be reached");
                None
            }
        };
        let mut kept = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST && !kept.contains_key(issuer) {
            kept.clear();
        }
        kept.insert(issuer.to_owned(), (now, found.clone()));
        found.ok_or_else(away)
    }
}

/// An address in a discovery document.
pub(super) fn endpoint(document: &Value, name: &str) -> Result<String> {
    let address = document.get(name).and_then(Value::as_str);
    address.map(str::to_owned).ok_or_else(|| {
        Error::unavailable(
            "sso.incomplete",
            "The sign-in provider does not say all that is needed.",
        )
    })
}
