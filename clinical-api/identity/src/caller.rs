//! Who is at a door before it is known who they are: the browser in plain words, the secret that it keeps, the network it
//! comes from, and the session that it holds already.

use crate::agent;
use axum::extract::FromRequestParts;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, request::Parts};
use ipnet::IpNet;
use medtech_kernel::{
    http::{Network, bearer},
    id,
};
use std::convert::Infallible;

/// Carries 32 random bytes in URL-safe base64, which a browser makes once and keeps. Guesses from a browser in which the owner
/// has signed in are counted apart.
pub(crate) const BROWSER: &str = "medtech-browser";

#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    /// For the list of sessions: "Firefox, Windows".
    pub(crate) device: String,
    /// SHA-256 of the browser's secret; absent where there is none, or what came is none.
    pub(crate) browser: Option<[u8; 32]>,
    pub(crate) network: Option<IpNet>,
    /// The token of the session that this one takes the place of.
    pub(crate) holds: Option<String>,
}

impl Caller {
    pub(crate) fn of(headers: &HeaderMap, network: Option<Network>) -> Self {
        let secret = headers
            .get(BROWSER)
            .and_then(|v| v.to_str().ok())
            .filter(|text| URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32));
        Self {
            device: agent::describe(headers),
            browser: secret.map(|text| id::sha256(text.as_bytes())),
            network: network.map(|n| n.0),
            holds: bearer(headers).map(str::to_owned),
        }
    }
}

/// Known by its name alone.
impl From<String> for Caller {
    fn from(device: String) -> Self {
        Self {
            device,
            ..Self::default()
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers, parts.extensions.get::<Network>().copied()))
    }
}
