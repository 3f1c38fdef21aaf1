//! The authorization server: OAuth 2.1, OpenID Connect, SMART App Launch 2.2. No implicit grant, no passwords.
//!
//! Read in this order: [`client`] (applications, as registered), [`authorize`] (a request comes in), [`consent`] (the
//! user decides, in our own web client), [`token`] (codes and refresh tokens become access tokens, which are sessions of
//! the kernel), [`store`] (what is kept). A *grant* is what one user allowed one client: the family of every token that
//! came of it; when a code or an old refresh token is used twice, the whole family ends.

mod apps;
mod assertion;
mod authenticate;
mod authorize;
mod backchannel;
mod client;
mod clients;
mod consent;
mod cors;
mod discovery;
mod dpop;
mod form;
mod inspect;
mod issuer;
mod jwks;
pub(crate) mod jwt;
mod keys;
mod launch;
mod logout;
mod narrow;
mod outbound;
mod refusal;
mod silent;
mod store;
mod token;

pub(crate) use backchannel::{EVENT as LOGOUT_EVENT, GROUP as LOGOUT_GROUP, KINDS as LOGOUT_KINDS};
pub(crate) use consent::person;
pub(crate) use issuer::Site;
pub(crate) use jwt::Audience;
pub(crate) use outbound::Outbound;
pub(crate) use store::use_jti;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use medtech_fhir::Fhir;
use medtech_kernel::{Ctx, clock::Millis};
use std::sync::{Arc, OnceLock};

const SECOND: Millis = 1000;
const MINUTE: Millis = 60 * SECOND;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;

/// An access token lives this long, and an ID token as well.
const ACCESS: Millis = HOUR;
/// A code is redeemed at once or never (RFC 9700, 2.1.1; SMART App Launch asks for a minute at most).
const CODE: Millis = 60 * SECOND;
/// A user decides within this time; a launched application comes back within it.
const REQUEST: Millis = 10 * MINUTE;
/// A pushed request is taken up within this time.
const PUSHED: Millis = 90 * SECOND;
/// A refresh token that nobody uses for this long is dead; `offline_access`.
const REFRESH: Millis = 90 * DAY;
/// However often it is refreshed, the user is asked again after this time; `offline_access`.
const OFFLINE: Millis = 365 * DAY;
/// With `online_access`: while the user stays signed in, and no longer than this.
const ONLINE: Millis = 12 * HOUR;
/// A client that did not hear the answer may ask with the same refresh token again within this time.
const GRACE: Millis = 10 * SECOND;
/// Form bodies of the protocol are small.
const BODY: usize = 64 * 1024;

/// The service.
pub(crate) struct OAuth {
    pub(crate) ctx: Ctx,
    pub(crate) jwks: jwks::Remote,
    /// The records that scopes are about, as soon as they are known.
    records: OnceLock<Fhir>,
}

impl OAuth {
    pub(crate) fn new(ctx: Ctx) -> Arc<Self> {
        // Harmless when the process has chosen already; there is one choice.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let outbound = Outbound::new(ctx.config.public_url.is_none());
        Arc::new(Self {
            ctx,
            jwks: jwks::Remote::new(outbound),
            records: OnceLock::new(),
        })
    }

    /// The protocol's own addresses, which stand at the root.
    pub(crate) fn routes(self: Arc<Self>) -> Router {
        let open = Router::new()
            .route("/.well-known/openid-configuration", get(discovery::openid))
            .route("/.well-known/oauth-authorization-server", get(discovery::openid))
            .route("/fhir/R4/.well-known/smart-configuration", get(discovery::smart))
            .route("/oauth2/jwks", get(discovery::jwks));
        let called = Router::new()
            .route("/oauth2/token", post(token::token))
            .route("/oauth2/par", post(authorize::push))
            .route("/oauth2/introspect", post(inspect::introspect))
            .route("/oauth2/revoke", post(inspect::revoke))
            .route("/oauth2/userinfo", get(inspect::userinfo).post(inspect::userinfo));
        let visited = Router::new()
            .route("/oauth2/authorize", get(authorize::ask).post(authorize::ask))
            .route("/oauth2/logout", get(logout::leave).post(logout::leave));
        cors::public(open)
            .merge(self.cors(self.bound(called)))
            .merge(visited)
            .layer(DefaultBodyLimit::max(BODY))
            .with_state(self)
    }

    /// What the web client calls, below `/api/identity`.
    pub(crate) fn api(self: Arc<Self>) -> Router {
        Router::new()
            .route("/authorizations/{request}", get(consent::show))
            .route("/authorizations/{request}/decision", post(consent::decide))
            .route("/authorizations/{request}/silent", post(silent::answer))
            .route("/launches", post(launch::launch))
            .route("/clients", get(clients::list).post(clients::create))
            .route(
                "/clients/{id}",
                get(clients::get).put(clients::update).delete(clients::delete),
            )
            .route("/clients/{id}/secret", post(clients::new_secret))
            .route("/me/apps", get(apps::list))
            .route(
                "/me/apps/{client}",
                axum::routing::delete(apps::end).patch(apps::narrow),
            )
            .with_state(self)
    }
}

#[cfg(test)]
pub(crate) mod tests;
