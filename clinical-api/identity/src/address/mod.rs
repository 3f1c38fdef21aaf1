//! A new e-mail address for oneself. Asked for with a fresh proof; proved by a link that goes there and opens in the browser
//! that asked; told to the old address, which can take it back for three days. Whether the new one is somebody else's is told to
//! that somebody and to nobody else.

pub(crate) mod store;

use crate::{
    Identity, User, audited,
    guesses::WINDOW,
    links,
    mail::{self, AccountMail, Letter},
    passkeys::Site,
    sign_in::active,
    store as users,
};
use axum::{Router, extract::State, routing::post};
use http::{HeaderMap, StatusCode, header};
use medtech_kernel::{
    Error, Module, Result, TenantId, Tx,
    auth::Principal,
    bus::{self, Event},
    clock::Millis,
    http::{Body, TenantCtx},
    id,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Change;
use uuid::Uuid;

/// How long whoever holds the old address can take the change back, from when it was asked for.
pub(crate) const UNDO: Millis = 3 * 86_400_000;
/// Changes that one person asks for, and letters that one address gets of them, within [`WINDOW`].
const ASKED: i64 = 5;
/// The event by which a request leaves the request: whether the address is known is looked up after the answer.
pub(crate) const REQUESTED: &str = "identity.address_requested";

pub(crate) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/me/email", post(ask).delete(give_up))
        .route("/email/confirm", post(confirm))
        .route("/email/undo", post(undo))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    email: String,
    /// A secret that this browser keeps: 32 bytes in URL-safe base64.
    browser: String,
}

/// Body of [`REQUESTED`].
#[derive(Serialize, Deserialize)]
struct Requested {
    change: Uuid,
    origin: Option<String>,
}

/// 202 after the same work, whether the address is free or somebody's.
async fn ask(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    who: Principal,
    headers: HeaderMap,
    Body(body): Body<Ask>,
) -> Result<StatusCode> {
    let user = identity.may_change(&who).await?;
    let browser = links::browser_hash(&body.browser)?;
    let new = crate::address(&body.email)?;
    let host = headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or_default();
    let origin = Site::of(&identity.ctx, &tenant, host).and_then(|site| site.origins.into_iter().next());
    let change = id::new_id(&identity.ctx.clock);
    let bus = identity.ctx.bus.clone();
    let asked = identity.ctx.db.write(tenant.id, move |tx| {
        Box::pin(async move {
            let owner = active(tx, user).await?;
            if owner.email == new {
                return Err(Error::unprocessable(
                    "identity.email_same",
                    "This is your address already.",
                ));
            }
            let (count, until) = users::attempt(tx, id::sha256(format!("address:{user}").as_bytes()), WINDOW).await?;
            if count > ASKED {
                return Err(crate::too_many(until - tx.now()));
            }
            let now = tx.now();
            let asked = Change {
                id: change,
                user,
                new,
                old: owner.email,
                browser,
                expires_at: now + links::LIFE,
                confirmed_at: None,
                ended_at: None,
                undo_until: now + UNDO,
            };
            store::insert(tx, &asked).await?;
            audited(
                tx,
                &who.subject,
                "update",
                &who.subject,
                "success",
                "e-mail address asked for",
            )
            .await?;
            let event = Event::of(tx, REQUESTED, format!("address:{user}"), &Requested { change, origin })?;
            bus.record(tx, event).await
        })
    });
    asked.await.map(|()| StatusCode::ACCEPTED)
}

async fn give_up(State(identity): State<Arc<Identity>>, who: Principal) -> Result<StatusCode> {
    let user = identity
        .owner(&who, medtech_kernel::policy::Action::Write, "credential")
        .await?;
    let ended = identity.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move {
            if store::end_open(tx, user).await? > 0 {
                audited(
                    tx,
                    &who.subject,
                    "update",
                    &who.subject,
                    "success",
                    "e-mail address given up",
                )
                .await?;
            }
            Ok(())
        })
    });
    ended.await.map(|()| StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirm {
    link: String,
    #[serde(default)]
    browser: Option<String>,
}

fn unknown() -> Error {
    Error::forbidden("link.unknown", "This link is not valid. Please ask for a new one.")
}

fn expired() -> Error {
    Error::forbidden("link.expired", "This link has expired. Please ask for a new one.")
}

fn used() -> Error {
    Error::gone("link.used", "This link has been used, or was taken back.")
}

/// The address is the person's from now on, every session of theirs is over, and so is every other link.
async fn confirm(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    headers: HeaderMap,
    Body(body): Body<Confirm>,
) -> Result<StatusCode> {
    let hash = id::sha256(body.link.trim().as_bytes());
    let change = store::by_link(&identity.ctx.db, tenant.id, hash, false).await?;
    let change = change.ok_or_else(unknown)?;
    if change.confirmed_at.is_some() || change.ended_at.is_some() {
        return Err(used());
    }
    if change.expires_at <= identity.ctx.clock.now_ms() {
        return Err(expired());
    }
    if body.browser.as_deref().map(|b| id::sha256(b.as_bytes())) != Some(change.browser) {
        identity
            .refuse_link(tenant.id, change.user, "address link in another browser")
            .await?;
        return Err(links::other_browser());
    }
    let host = headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or_default();
    let origin = Site::of(&identity.ctx, &tenant, host).and_then(|site| site.origins.into_iter().next());
    let this = identity.clone();
    let done = identity.ctx.db.write(tenant.id, move |tx| {
        Box::pin(async move {
            if !store::confirm(tx, change.id).await? {
                return Err(used());
            }
            let before = active(tx, change.user).await.map_err(|_| unknown())?;
            let after = this.move_in(tx, &before, &change.new).await?;
            let secret = id::token();
            store::add_link(tx, id::sha256(secret.as_bytes()), change.id, true).await?;
            let path = format!("/address/undo#{secret}");
            this.mail(tx, &before, Letter::AddressChanged, origin.as_deref(), Some(&path))
                .await?;
            let subject = after.subject();
            audited(tx, &subject, "update", &subject, "success", "e-mail address").await
        })
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Undo {
    link: String,
}

/// "This was not me", from the old address: nothing is changed, or it is changed back; every session is over, whoever holds it.
async fn undo(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    Body(body): Body<Undo>,
) -> Result<StatusCode> {
    let hash = id::sha256(body.link.trim().as_bytes());
    let change = store::by_link(&identity.ctx.db, tenant.id, hash, true).await?;
    let change = change.ok_or_else(unknown)?;
    if change.undo_until <= identity.ctx.clock.now_ms() {
        return Err(expired());
    }
    let this = identity.clone();
    let done = identity.ctx.db.write(tenant.id, move |tx| {
        Box::pin(async move {
            // As it is now. A request that was replaced by a later one can be taken back: that one was not theirs either.
            let change = store::by_id_in(tx, change.id).await?.ok_or_else(unknown)?;
            let over = change.confirmed_at.is_some() && change.ended_at.is_some();
            if over || !store::use_link(tx, hash).await? {
                return Err(used());
            }
            let user = active(tx, change.user).await.map_err(|_| unknown())?;
            store::end_all(tx, user.id).await?;
            let user = if user.email == change.old {
                users::burn_links(tx, user.id).await?;
                this.ctx.sessions.revoke_subject(tx, &user.subject()).await?;
                user
            } else {
                this.move_in(tx, &user, &change.old).await?
            };
            let subject = user.subject();
            audited(tx, &subject, "update", &subject, "success", "e-mail address taken back").await?;
            this.tell_changed(tx, user.id).await
        })
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}

impl Identity {
    /// Makes it somebody's address. Whoever calls writes the audit entry and the letters.
    pub(crate) async fn move_in(&self, tx: &mut Tx, user: &User, email: &str) -> Result<User> {
        store::set_email(tx, user.id, email).await?;
        users::burn_links(tx, user.id).await?;
        let moved = User {
            email: email.to_owned(),
            ..user.clone()
        };
        self.ctx.sessions.revoke_subject(tx, &moved.subject()).await?;
        crate::tell(&self.ctx.bus, tx, &moved).await?;
        Ok(moved)
    }

    /// The address that waits for its link, for its owner's page.
    pub(crate) async fn address_to_be(&self, tenant: TenantId, user: Uuid) -> Result<Option<String>> {
        let now = self.ctx.clock.now_ms();
        Ok(store::open_of(&self.ctx.db, tenant, user, now).await?.map(|c| c.new))
    }

    /// `identity.address_requested`: the link to the new address, or a word to whose it is; the notice to the old one.
    pub(crate) async fn address_requested(&self, event: Event) -> Result<()> {
        let asked: Requested = event.parse()?;
        let this = self.clone();
        let sent = self.ctx.db.write(event.tenant, move |tx| {
            Box::pin(async move {
                if !bus::once(tx, Self::NAME, event.id).await? {
                    return Ok(());
                }
                let now = tx.now();
                let Some(change) = store::by_id_in(tx, asked.change).await?.filter(|c| c.is_open(now)) else {
                    return Ok(());
                };
                let Some(user) = users::by_id_in(tx, change.user).await?.filter(|u| u.active) else {
                    return Ok(());
                };
                let secret = id::token();
                store::add_link(tx, id::sha256(secret.as_bytes()), change.id, true).await?;
                let path = format!("/address/undo#{secret}");
                this.mail(tx, &user, Letter::AddressAsked, asked.origin.as_deref(), Some(&path))
                    .await?;
                // However many accounts ask: one mailbox gets so many letters.
                let to = id::sha256(format!("address-to:{}", change.new).as_bytes());
                if users::attempt(tx, to, WINDOW).await?.0 > ASKED {
                    return audited(tx, &user.subject(), "create", "e-mail", "denied", "address link").await;
                }
                if let Some(holder) = users::by_email_in(tx, &change.new).await? {
                    audited(tx, &user.subject(), "create", "e-mail", "denied", "address in use").await?;
                    return this
                        .mail(tx, &holder, Letter::AddressTaken, asked.origin.as_deref(), None)
                        .await;
                }
                let secret = id::token();
                store::add_link(tx, id::sha256(secret.as_bytes()), change.id, false).await?;
                let path = format!("/address/confirm#{secret}");
                let letter = AccountMail {
                    address: &change.new,
                    origin: asked.origin.as_deref(),
                    path: Some(&path),
                    ..AccountMail::to(&user, Letter::AddressConfirm)
                };
                mail::record(&this.ctx.bus, tx, &user, &letter).await?;
                audited(tx, &user.subject(), "create", "e-mail", "success", "address link").await
            })
        });
        sent.await
    }
}

#[cfg(test)]
mod tests;
