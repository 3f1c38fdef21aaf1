//! Sign-in through an outside OpenID provider, one or more a clinic: code, PKCE, nonce, and the answer's issuer checked.
//!
//! Read in this order: [`provider`] (what an administrator says of one), [`exchange`] (a code becomes who somebody says
//! they are), [`enter`] (who that is here), [`http`]; and [`logout`] (the provider says that it is over).

mod enter;
mod exchange;
mod http;
mod logout;
mod provider;
pub(crate) mod store;

pub(crate) use self::http::routes;

use crate::oauth::OAuth;
use medtech_kernel::clock::Millis;
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// A sign-in at the provider ends within this time.
const PATIENCE: Millis = 10 * 60_000;

/// What an issuer says of itself, and when it was asked; `None`: it did not answer.
type Document = (Millis, Option<Arc<Value>>);

/// The service.
pub(crate) struct Sso {
    oauth: Arc<OAuth>,
    /// Discovery documents by issuer.
    documents: Mutex<HashMap<String, Document>>,
}

impl Sso {
    pub(crate) fn new(oauth: Arc<OAuth>) -> Arc<Self> {
        Arc::new(Self {
            oauth,
            documents: Mutex::default(),
        })
    }
}

#[cfg(test)]
mod tests;
