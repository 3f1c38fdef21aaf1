//! OpenID Connect Back-Channel Logout 1.0, as the provider: when a session ends, for whatever reason, the applications that
//! were allowed in it and want to know are told, by a message that is durable and tried again.
//!
//! That a session is over is seen by looking, soon after one was ended and every minute besides, since time ends one too.

use super::{MINUTE, OAuth, jwt, store, store::Told};
use bytes::Bytes;
use http::{Method, Request, header};
use medtech_kernel::{Error, Result, TenantId, bus::Event, id};
use serde::Serialize;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use url::form_urlencoded;

/// The group of its own, and the key of each application its own, so that one that does not answer holds up nothing else.
pub(crate) const GROUP: &str = "oauth-logout";
pub(crate) const KINDS: &[&str] = &[LOGOUT];
const LOGOUT: &str = "oauth.logout";
/// The event's name in a logout token (section 2.4), and the token's type.
pub(crate) const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const TYPE: &str = "logout+jwt";
const EVERY: Duration = Duration::from_secs(60);
/// Clinics waiting for a look; one too many is seen at the next turn.
const WAITING: usize = 256;

#[derive(Serialize)]
struct LogoutToken<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    sid: String,
    iat: i64,
    exp: i64,
    jti: String,
    events: Value,
}

impl OAuth {
    /// Puts on its way what is to be told in a clinic; how much that was.
    pub(crate) async fn tell(&self, tenant: TenantId) -> Result<usize> {
        let ended = store::told_of_ended(&self.ctx.db, tenant, self.ctx.clock.now_ms()).await?;
        let (count, bus) = (ended.len(), self.ctx.bus.clone());
        if count == 0 {
            return Ok(0);
        }
        let done = self.ctx.db.write(tenant, move |tx| {
            Box::pin(async move {
                for told in ended {
                    if store::take_told(tx, told.grant).await? {
                        let event = Event::of(tx, LOGOUT, format!("oauth_client:{}", told.client), &told)?;
                        bus.record(tx, event).await?;
                    }
                }
                Ok(())
            })
        });
        done.await.map(|()| count)
    }

    /// Sends one message. An error has it sent again.
    pub(crate) async fn deliver(&self, event: Event) -> Result<()> {
        let told: Told = event.parse()?;
        let client = store::client(&self.ctx.db, event.tenant, &told.client).await?;
        let address = client.and_then(|c| c.metadata.backchannel_logout_uri);
        let Some(address) = address else { return Ok(()) };
        let now = self.ctx.clock.now_ms();
        let claims = LogoutToken {
            iss: &told.issuer,
            aud: &told.client,
            sub: told.subject.strip_prefix("user:").unwrap_or(&told.subject),
            sid: told.grant.to_string(),
            iat: now / 1000,
            exp: (now + 2 * MINUTE) / 1000,
            jti: id::new_id(&self.ctx.clock).to_string(),
            events: json!({ EVENT: {} }),
        };
        let token = jwt::sign(&self.signer(event.tenant).await?, TYPE, &claims)?;
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("logout_token", &token)
            .finish();
        let request = Request::builder()
            .method(Method::POST)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer = self.jwks.outbound().send(&address, request, Bytes::from(body)).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        tracing::info!(
            client = told.client,
            status = answer.status.as_u16(),
            "an application did not take a logout"
        );
        Err(Error::unavailable(
            "oauth.logout_refused",
            "The application did not take the message.",
        ))
    }

    /// Looks after clinics whose sessions ended, and delivers, until `stop`. The answer is to be told of live events.
    pub(crate) fn watch(
        self: &Arc<Self>,
        stop: &watch::Receiver<bool>,
    ) -> (Vec<JoinHandle<()>>, impl Fn(&Event) + Send + Sync + use<>) {
        let (look, looked) = mpsc::channel(WAITING);
        let this = self.clone();
        let deliver = move |event: Event| {
            let this = this.clone();
            async move { this.deliver(event).await }
        };
        let tasks = vec![
            tokio::spawn(turns(self.clone(), looked, stop.clone())),
            self.ctx
                .bus
                .consume(GROUP, self.ctx.tenants.clone(), stop.clone(), deliver),
        ];
        let listen = move |event: &Event| {
            if &*event.kind == "session.revoked" {
                // Full: the next turn sees it.
                let _ = look.try_send(event.tenant);
            }
        };
        (tasks, listen)
    }
}

async fn turns(oauth: Arc<OAuth>, mut looked: mpsc::Receiver<TenantId>, mut stop: watch::Receiver<bool>) {
    let mut turn = tokio::time::interval(EVERY);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let tenants = tokio::select! {
            _ = stop.wait_for(|s| *s) => return,
            Some(tenant) = looked.recv() => vec![tenant],
            _ = turn.tick() => oauth.ctx.tenants.all().iter().map(|t| t.id).collect(),
        };
        for tenant in tenants {
            if let Err(e) = oauth.tell(tenant).await {
                tracing::warn!(%tenant, error = %e, "ended sessions could not be told");
            }
        }
    }
}
