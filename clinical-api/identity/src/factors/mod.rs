//! What a person proves themselves with: which of it stands, changing it, and telling them that it changed.

pub(crate) mod recovery;
pub(crate) mod store;
pub(crate) mod totp;

use crate::{
    Identity, audited,
    guesses::{ATTEMPTS, WINDOW},
    mail::Letter,
    store as users,
};
use medtech_kernel::{
    Error, Result, TenantId, Tx,
    auth::{Assurance, Principal},
    id,
    policy::{Action, Resource},
};
use uuid::Uuid;

/// What was changed, as the audit trail says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    PasskeyAdded,
    PasskeyRemoved,
    TotpAdded,
    TotpRemoved,
    RecoveryRenewed,
    RecoveryUsed,
    Password,
}

impl Changed {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PasskeyAdded => "passkey added",
            Self::PasskeyRemoved => "passkey removed",
            Self::TotpAdded => "one-time codes added",
            Self::TotpRemoved => "one-time codes removed",
            Self::RecoveryRenewed => "recovery codes renewed",
            Self::RecoveryUsed => "recovery code used",
            Self::Password => "password changed",
        }
    }
}

pub(crate) fn wrong_code() -> Error {
    Error::unprocessable("identity.code_wrong", "This code is not right, or was used before.")
}

impl Identity {
    /// The user behind a session, where it is about the own credentials: never for an application that acts for them.
    pub(crate) async fn owner(&self, who: &Principal, action: Action, kind: &'static str) -> Result<Uuid> {
        let own = who.subject.strip_prefix("user:").and_then(|id| id.parse().ok());
        let Some(user) = own.filter(|_| who.grant.client.is_none()) else {
            return Err(Error::forbidden("policy.denied", "You do not have access to this."));
        };
        let what = Resource::new(kind, who.subject_id());
        self.ctx.policy.require(who, action, &what).await?;
        Ok(user)
    }

    /// The user, when they may change what they sign in with: proved a moment ago, and with the second factor where
    /// there is one, so that neither a borrowed screen nor a stolen password is enough.
    pub(crate) async fn may_change(&self, who: &Principal) -> Result<Uuid> {
        let user = self.owner(who, Action::Write, "credential").await?;
        who.require_fresh(self.ctx.clock.now_ms())?;
        if who.grant.assurance < Assurance::Two && store::standing(&self.ctx.db, who.tenant, user).await?.second() {
            return Err(Error::forbidden(
                "auth.step_up",
                "Please confirm with your passkey or a code, and try again.",
            ));
        }
        Ok(user)
    }

    /// Takes away what someone proves a second step with, and ends their sessions: for whoever lost it all. The password
    /// stays. Whoever calls writes the audit entry.
    pub async fn reset_second_factors(&self, tx: &mut Tx, user: Uuid) -> Result<()> {
        crate::passkeys::store::remove_all(tx, user).await?;
        store::remove_totp(tx, user).await?;
        store::remove_codes(tx, user).await?;
        users::drop_browsers(tx, user).await?;
        self.ctx.sessions.revoke_subject(tx, &format!("user:{user}")).await?;
        self.tell_changed(tx, user).await
    }

    /// Writes down a change of credentials, and tells their owner by mail.
    pub(crate) async fn changed(&self, tx: &mut Tx, who: &Principal, user: Uuid, what: Changed) -> Result<()> {
        audited(
            tx,
            &who.subject,
            "update",
            &format!("user:{user}"),
            "success",
            what.name(),
        )
        .await?;
        self.tell_changed(tx, user).await
    }

    pub(crate) async fn tell_changed(&self, tx: &mut Tx, user: Uuid) -> Result<()> {
        match users::by_id_in(tx, user).await? {
            Some(user) => self.mail(tx, &user, Letter::SecurityChanged, None, None).await,
            None => Ok(()),
        }
    }

    /// Counts a try at someone's second factor before it is made; 429 when there were too many.
    pub(crate) async fn limit_second(&self, tenant: TenantId, user: Uuid) -> Result<()> {
        let counted = self.ctx.db.write(tenant, move |tx| {
            Box::pin(async move { users::attempt(tx, second(user), WINDOW).await })
        });
        let (count, until) = counted.await?;
        if count > ATTEMPTS {
            return Err(crate::too_many(until - self.ctx.clock.now_ms()));
        }
        Ok(())
    }

    pub(crate) async fn forget_second(&self, tx: &mut Tx, user: Uuid) -> Result<()> {
        users::forget_attempts(tx, second(user)).await
    }
}

fn second(user: Uuid) -> [u8; 32] {
    id::sha256(format!("second:{user}").as_bytes())
}
