//! A forgotten password: a mailed link, in the browser that asked, leads to a new one. It opens no session and takes no factor
//! away: whoever has a second factor is asked for it at the next sign-in, as ever.

use crate::{
    Identity, User, audited,
    caller::Caller,
    factors::store as factors,
    links::{self, Asked, LIFE},
    mail::Letter,
    sign_in::active,
    store,
};
use axum::{Router, extract::State, routing::post};
use http::{HeaderMap, StatusCode};
use medtech_kernel::{
    Error, Result, Tx,
    auth::Role,
    clock::Millis,
    http::{Body, TenantCtx},
    id,
};
use serde::Deserialize;
use std::sync::Arc;

pub(crate) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/password/forgotten", post(forgotten))
        .route("/password/reset", post(reset))
}

/// Always 202, as for a sign-in link.
async fn forgotten(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    headers: HeaderMap,
    Body(body): Body<Asked>,
) -> Result<StatusCode> {
    links::ask(&identity, &tenant, &headers, body, true).await
}

#[derive(Deserialize)]
struct Reset {
    link: String,
    #[serde(default)]
    browser: Option<String>,
    new: String,
    #[serde(default)]
    birth_date: Option<String>,
}

/// A mailbox opens the patient's own door and no other: for everything else a second factor is asked for behind it.
fn by_mail_alone(user: &User, standing: factors::Standing) -> bool {
    standing.second() || user.roles.iter().all(|r| *r == Role::Patient)
}

fn by_administrator() -> Error {
    Error::forbidden(
        "password.ask_administrator",
        "This account has no second factor, so its password cannot be replaced by mail. Please ask an administrator of your clinic.",
    )
}

/// The new password ends every session, and every other link. What is refused here uses nothing up but the tries at a date
/// of birth.
async fn reset(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    caller: Caller,
    Body(body): Body<Reset>,
) -> Result<StatusCode> {
    let hash = id::sha256(body.link.trim().as_bytes());
    let unknown = || Error::forbidden("link.unknown", "This link is not valid. Please ask for a new one.");
    let link = store::link(&identity.ctx.db, tenant.id, hash).await?;
    let link = link.filter(|l| l.reset).ok_or_else(unknown)?;
    link.standing(identity.ctx.clock.now_ms())?;
    if link.browser != body.browser.as_deref().map(|b| id::sha256(b.as_bytes())) {
        identity
            .refuse_link(tenant.id, link.user, "password link in another browser")
            .await?;
        return Err(links::other_browser());
    }
    let person = store::by_id(&identity.ctx.db, tenant.id, link.user).await?;
    let person = person.filter(|u| u.active).ok_or_else(unknown)?;
    if !by_mail_alone(
        &person,
        factors::standing(&identity.ctx.db, tenant.id, person.id).await?,
    ) {
        identity
            .refuse_link(tenant.id, link.user, "password link without a second factor")
            .await?;
        return Err(by_administrator());
    }
    if link.birth_date {
        identity
            .birth_date_is_right(tenant.id, hash, link.user, body.birth_date.as_deref())
            .await?;
    }
    let password = identity.new_password(tenant.id, &body.new, &person).await?;
    let this = identity.clone();
    let done = identity.ctx.db.write(tenant.id, move |tx| {
        Box::pin(async move {
            let owner = store::use_link(tx, hash).await?;
            let user = active(tx, owner).await?;
            // As it is now, and not as it was when the password was hashed.
            if !by_mail_alone(&user, factors::standing_in(tx, user.id).await?) {
                return Err(by_administrator());
            }
            store::burn_links(tx, user.id).await?;
            factors::set_password(tx, user.id, &password).await?;
            this.ctx.sessions.revoke_subject(tx, &user.subject()).await?;
            if let Some(browser) = caller.browser {
                // Who holds the mailbox here is not kept out by what strangers guess elsewhere.
                store::know_browser(tx, user.id, browser).await?;
            }
            let subject = user.subject();
            audited(tx, &subject, "update", &subject, "success", "password reset by mail").await?;
            this.tell_changed(tx, user.id).await
        })
    });
    done.await.map(|()| StatusCode::NO_CONTENT)
}

impl Identity {
    /// The link for a new password, to whoever has one; who signs in otherwise is told so.
    pub(crate) async fn mail_reset(
        &self,
        tx: &mut Tx,
        user: &User,
        asked_at: Millis,
        browser: [u8; 32],
        ask_birth: bool,
        origin: Option<&str>,
    ) -> Result<()> {
        let subject = user.subject();
        if !factors::standing_in(tx, user.id).await?.password {
            audited(tx, &subject, "create", "sign-in", "denied", "password link").await?;
            return self.mail(tx, user, Letter::SignInLinkRefused, origin, None).await;
        }
        let secret = id::token();
        let link = store::NewLink {
            user: user.id,
            expires_at: asked_at + LIFE,
            uses: 1,
            browser: Some(browser),
            birth_date: ask_birth && user.patient.is_some(),
            reset: true,
        };
        store::insert_link(tx, id::sha256(secret.as_bytes()), &link).await?;
        audited(tx, &subject, "create", "sign-in", "success", "password link").await?;
        let path = format!("/enter#{secret}");
        self.mail(tx, user, Letter::PasswordReset, origin, Some(&path)).await
    }
}
