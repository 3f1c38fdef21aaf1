//! RP-initiated logout: an application signs its user out here as well. The ID token says whose session it is.

use super::{
    OAuth, authorize,
    form::{Form, Visited},
    issuer::Site,
    jwt,
    refusal::{Outcome, Refusal},
    store,
};
use axum::{extract::State, response::Response};
use http::StatusCode;
use jsonwebtoken::{Algorithm, jwk::JwkSet};
use medtech_kernel::{Result, TenantId};
use serde::Deserialize;
use std::sync::Arc;
use url::form_urlencoded;

/// What an ID token of ours says when it comes back: whose it was, and of which grant.
#[derive(Deserialize)]
pub(crate) struct Hint {
    iss: String,
    pub(crate) sub: String,
    pub(crate) aud: String,
    sid: uuid::Uuid,
}

pub(crate) async fn leave(State(oauth): State<Arc<OAuth>>, site: Site, Visited(form): Visited) -> Response {
    oauth.logged_out(&site, form).await
}

impl OAuth {
    async fn logged_out(&self, site: &Site, form: Outcome<Form>) -> Response {
        let outcome = match form {
            Ok(form) => self.log_out(site, &form).await,
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(address) => authorize::see_other(&address),
            Err(refusal) => {
                tracing::info!(tenant = %site.id(), error = refusal.error, "logout refused");
                authorize::page(StatusCode::BAD_REQUEST)
            }
        }
    }

    /// Ends the grant and the session it was allowed in; answers where to go.
    async fn log_out(&self, site: &Site, form: &Form) -> Outcome<String> {
        let hint = self.hinted(site, form.require("id_token_hint")?).await?;
        let wrong = || Refusal::request("The id_token_hint is not good.");
        if form.get("client_id").is_some_and(|named| named != hint.aud) {
            return Err(wrong());
        }
        let client = store::client(&self.ctx.db, site.id(), &hint.aud)
            .await?
            .ok_or_else(wrong)?;
        let address = match form.get("post_logout_redirect_uri") {
            None => "/".to_owned(),
            Some(uri) if client.metadata.post_logout_redirect_uris.iter().any(|u| u == uri) => {
                with(uri, form.get("state"))
            }
            Some(_) => return Err(Refusal::request("The address is not registered.")),
        };
        let sessions = self.ctx.sessions.clone();
        let ended = self.ctx.db.write(site.id(), move |tx| {
            Box::pin(async move {
                let grant = store::grant_in(tx, hint.sid).await?;
                let Some(grant) = grant.filter(|g| g.client == hint.aud) else {
                    return Ok(());
                };
                store::end_grant(tx, &sessions, grant.id).await?;
                if let Some(session) = grant.session {
                    sessions.revoke(tx, session).await?;
                }
                let target = format!("oauth_client:{}", grant.client);
                crate::audited(
                    tx,
                    &grant.subject,
                    "execute",
                    &target,
                    "success",
                    "sign-out by application",
                )
                .await
            })
        });
        ended.await?;
        Ok(address)
    }

    /// An ID token of ours. Its time may be over, its key retired: it only says who.
    pub(crate) async fn hinted(&self, site: &Site, token: &str) -> Outcome<Hint> {
        let keys = self.ever_published(site.id()).await?;
        // A logout token is signed by the same keys, and is no ID token.
        let typed = |t: &str| jsonwebtoken::decode_header(t).is_ok_and(|h| h.typ.as_deref() == Some("JWT"));
        let hint =
            jwt::verify(token, &keys, &[Algorithm::ES384]).filter(|h: &Hint| h.iss == site.issuer && typed(token));
        hint.ok_or_else(|| Refusal::request("The id_token_hint is not good."))
    }

    async fn ever_published(&self, tenant: TenantId) -> Result<JwkSet> {
        let keys = store::keys(&self.ctx.db, tenant).await?;
        let keys = keys.into_iter().filter_map(|k| serde_json::from_value(k.jwk).ok());
        Ok(JwkSet { keys: keys.collect() })
    }
}

fn with(uri: &str, state: Option<&str>) -> String {
    let Some(state) = state else { return uri.to_owned() };
    let sign = if uri.contains('?') { '&' } else { '?' };
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("state", state);
    format!("{uri}{sign}{}", query.finish())
}
