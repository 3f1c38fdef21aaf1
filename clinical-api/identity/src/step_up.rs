//! Proving oneself again in the middle of a session: what signing, exporting and changing credentials ask for.

use crate::{
    Identity, audited,
    factors::{store as factors, wrong_code},
    http::{Secret, secret},
    passkeys::{self, Assertion, http::site, store::Kind},
};
use axum::{Json, Router, extract::State, routing::post};
use http::HeaderMap;
use medtech_kernel::{
    Error, Result, Tx,
    auth::{Assurance, Principal},
    http::{Body, TenantCtx},
    policy::Action,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

pub(crate) fn routes() -> Router<Arc<Identity>> {
    Router::new()
        .route("/step-up/password", post(password))
        .route("/step-up/totp", post(totp))
        .route("/step-up/passkey/start", post(passkey_start))
        .route("/step-up/passkey", post(passkey))
}

/// What can lift this session: a password does not stand for the second factor that its owner has chosen.
pub(crate) fn methods(who: &Principal, standing: factors::Standing) -> Vec<&'static str> {
    let password = standing.password && (who.grant.assurance == Assurance::Two || !standing.second());
    [
        (standing.passkeys > 0, "passkey"),
        (password, "password"),
        (standing.totp, "totp"),
    ]
    .into_iter()
    .filter(|(has, _)| *has)
    .map(|(_, name)| name)
    .collect()
}

/// The token of the same session from now on.
#[derive(Serialize)]
pub(crate) struct Proved {
    access_token: String,
    assurance: Assurance,
}

impl Identity {
    /// The session goes on under a new token (ASVS 7.2.4): one that was taken before opens nothing any more.
    async fn stepped_up(&self, tx: &mut Tx, who: &Principal, reached: Assurance, how: &str) -> Result<Proved> {
        let assurance = reached.max(who.grant.assurance);
        let access_token = self.ctx.sessions.renew(tx, who.session, assurance).await?;
        audited(tx, &who.subject, "execute", "step-up", "success", how).await?;
        Ok(Proved {
            access_token,
            assurance,
        })
    }

    async fn step_up_denied(&self, who: Principal, how: &'static str) -> Result<()> {
        let noted = self.ctx.db.write(who.tenant, move |tx| {
            Box::pin(async move { audited(tx, &who.subject, "execute", "step-up", "denied", how).await })
        });
        noted.await
    }
}

#[derive(Deserialize)]
struct Password {
    password: String,
}

async fn password(
    State(identity): State<Arc<Identity>>,
    who: Principal,
    Body(body): Body<Password>,
) -> Result<Secret<Proved>> {
    let user = identity.owner(&who, Action::Write, "credential").await?;
    let standing = factors::standing(&identity.ctx.db, who.tenant, user).await?;
    if !methods(&who, standing).contains(&"password") {
        return Err(Error::forbidden(
            "identity.step_up_method",
            "Please confirm with your passkey or a code.",
        ));
    }
    if !identity.own_password_is_right(&who, user, &body.password).await? {
        identity.step_up_denied(who, "password").await?;
        return Err(Error::unprocessable(
            "identity.password_wrong",
            "The password is not right.",
        ));
    }
    let this = identity.clone();
    let done = identity.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move { this.stepped_up(tx, &who, Assurance::One, "password").await })
    });
    done.await.map(secret)
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

async fn totp(State(identity): State<Arc<Identity>>, who: Principal, Body(body): Body<Code>) -> Result<Secret<Proved>> {
    let user = identity.owner(&who, Action::Write, "credential").await?;
    identity.limit_second(who.tenant, user).await?;
    let this = identity.clone();
    let right = identity.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move {
            if !this.totp_is_right(tx, user, &body.code).await? {
                audited(tx, &who.subject, "execute", "step-up", "denied", "code").await?;
                return Ok(None);
            }
            this.forget_second(tx, user).await?;
            this.stepped_up(tx, &who, Assurance::Two, "code").await.map(Some)
        })
    });
    right.await?.map(secret).ok_or_else(wrong_code)
}

async fn passkey_start(
    State(identity): State<Arc<Identity>>,
    TenantCtx(tenant): TenantCtx,
    who: Principal,
    headers: HeaderMap,
) -> Result<Json<Value>> {
    let user = identity.owner(&who, Action::Write, "credential").await?;
    let site = site(&identity, &tenant, &headers)?;
    identity
        .request(tenant.id, site, Kind::StepUp, Some(user), Some(who.session))
        .await
        .map(Json)
}

async fn passkey(
    State(identity): State<Arc<Identity>>,
    who: Principal,
    Body(body): Body<Assertion>,
) -> Result<Secret<Proved>> {
    let user = identity.owner(&who, Action::Write, "credential").await?;
    let found = identity.assertion(who.tenant, Kind::StepUp, &body, Some(user)).await?;
    let this = identity.clone();
    let right = identity.ctx.db.write(who.tenant, move |tx| {
        Box::pin(async move {
            let why = match found {
                Err(refusal) => refusal,
                Ok(used) if used.count(tx).await? => {
                    return this.stepped_up(tx, &who, Assurance::Two, "passkey").await.map(Some);
                }
                Ok(_) => passkeys::ceremony::Refusal::Counter,
            };
            let why = format!("passkey: {}", why.name());
            audited(tx, &who.subject, "execute", "step-up", "denied", &why).await?;
            Ok(None)
        })
    });
    right.await?.map(secret).ok_or_else(|| {
        Error::unprocessable(
            "identity.passkey_refused",
            "This passkey was not accepted. Please try again.",
        )
    })
}
