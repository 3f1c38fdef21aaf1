//! The security of one's own account at a glance, and the password.

use crate::{
    Identity,
    factors::{self, Changed, store as standing},
    step_up, store,
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use http::StatusCode;
use medtech_kernel::{
    Error, Result,
    auth::{Assurance, FRESH, Principal},
    clock::serde_rfc3339,
    http::{Body, TenantCtx},
    policy::Action,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(crate) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/me/security", get(security))
        .route("/me/password", post(password))
        .route("/totp/start", post(factors::totp::start))
        .route("/totp/confirm", post(factors::totp::confirm))
        .route("/totp", axum::routing::delete(factors::totp::remove))
        .route("/recovery", post(factors::recovery::renew))
}

#[derive(Serialize)]
struct Security {
    password: bool,
    passkeys: i64,
    totp: bool,
    /// Codes that are left.
    recovery: i64,
    assurance: Assurance,
    /// The clinic asks for a second step before clinical data.
    required: bool,
    /// What confirms that it is you, the best first.
    step_up: Vec<&'static str>,
    /// Until then no new proof is asked for.
    #[serde(with = "serde_rfc3339")]
    fresh_until: i64,
}

async fn security(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    who: Principal,
) -> Result<Json<Security>> {
    let user = identity.owner(&who, Action::Read, "credential").await?;
    let s = standing::standing(&identity.ctx.db, who.tenant, user).await?;
    let staff = who.roles.iter().any(|r| r.is_staff());
    Ok(Json(Security {
        password: s.password,
        passkeys: s.passkeys,
        totp: s.totp,
        recovery: s.recovery,
        assurance: who.grant.assurance,
        required: staff && tenant.settings.require_two_factors,
        step_up: step_up::methods(&who, s),
        fresh_until: who.proved_at + FRESH,
    }))
}

#[derive(Deserialize)]
struct NewPassword {
    /// The old one; without it, a fresh proof of another kind.
    #[serde(default)]
    current: Option<String>,
    new: String,
}

/// `POST /me/password`: every other session ends with the old password.
async fn password(
    State(identity): State<Arc<Identity>>,
    who: Principal,
    Body(body): Body<NewPassword>,
) -> Result<StatusCode> {
    let user = match &body.current {
        None => identity.may_change(&who).await?,
        Some(current) => {
            let user = identity.owner(&who, Action::Write, "credential").await?;
            if !identity.own_password_is_right(&who, user, current).await? {
                return Err(Error::unprocessable(
                    "identity.password_wrong",
                    "The password is not right.",
                ));
            }
            user
        }
    };
    let person = store::by_id(&identity.ctx.db, who.tenant, user)
        .await?
        .filter(|u| u.active)
        .ok_or_else(crate::unknown_user)?;
    let hash = identity.new_password(who.tenant, &body.new, &person).await?;
    let this = identity.clone();
    let changed = identity.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move {
            standing::set_password(tx, user, &hash).await?;
            this.ctx.sessions.revoke_others(tx, &who.subject, who.session).await?;
            this.changed(tx, &who, user, Changed::Password).await
        })
    });
    changed.await.map(|()| StatusCode::NO_CONTENT)
}
