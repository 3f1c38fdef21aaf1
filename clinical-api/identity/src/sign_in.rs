//! Signing in: a password, where it is asked for a second step, or a link; and the session that it opens.

use crate::{
    Identity, Opened, SESSION, SESSIONS, User, audited,
    caller::Caller,
    factors::{Changed, store as factors, wrong_code},
    guesses::{self, Bucket},
    passkeys::{Assertion, Site, ceremony::Refusal, store as ceremonies},
    password::Verdict,
    store, unknown_user,
};
use medtech_kernel::{
    Error, Result, TenantId, Tx,
    auth::{Assurance, Grant, NewSession, Principal},
    clock::Millis,
    policy::own,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Wrong codes that a ticket stands; after them the password is asked for again.
const TRIES: i64 = 5;

/// How a right password was answered.
pub(crate) enum Step {
    In(Box<Opened>),
    Second(Ticket),
}

/// A password was right, and a second proof is asked for.
#[derive(Debug, Serialize)]
pub(crate) struct Ticket {
    /// Opaque; good for five minutes and one sign-in.
    pub(crate) ticket: String,
    pub(crate) methods: Vec<&'static str>,
}

/// The second step: one of these.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Proof {
    Totp(String),
    Recovery(String),
    Passkey(Assertion),
}

impl Identity {
    /// Opens a session. Staff's ends after the silence that their clinic has chosen. It takes the place of the one that this
    /// browser's tab held, and of the oldest where there are too many.
    pub(crate) async fn open(
        &self,
        tx: &mut Tx,
        user: User,
        grant: impl Into<Grant> + Send,
        how: &str,
        caller: &Caller,
    ) -> Result<Opened> {
        let grant = grant.into();
        let assurance = grant.assurance;
        audited(tx, &user.subject(), "execute", "sign-in", "success", how).await?;
        let tenant = self.ctx.tenants.by_id(tx.tenant());
        let staff = user.roles.iter().any(|r| r.is_staff());
        let idle_ms = tenant
            .filter(|_| staff)
            .map(|t| Millis::from(t.settings.idle_minutes) * 60_000)
            .filter(|ms| *ms > 0);
        let new = NewSession {
            subject: user.subject(),
            name: user.name.clone(),
            roles: user.roles.clone(),
            ttl_ms: SESSION,
            note: caller.device.clone(),
            grant,
            idle_ms,
        };
        let sessions = &self.ctx.sessions;
        let (token, session) = sessions.issue(tx, new).await?;
        if let Some(held) = &caller.holds
            && let Some(whose) = sessions.revoke_token(tx, held).await?
        {
            audited(tx, &whose, "execute", "sign-out", "success", "signed in anew").await?;
        }
        if sessions.keep_newest(tx, &user.subject(), SESSIONS).await? > 0 {
            audited(tx, "system", "delete", &user.subject(), "success", "oldest sessions").await?;
        }
        if let Some(browser) = caller.browser {
            store::know_browser(tx, user.id, browser).await?;
        }
        Ok(Opened {
            token,
            session,
            expires_at: tx.now() + SESSION,
            acts_as: own::bases_in(tx, &user.roles).await?.into_iter().collect(),
            user,
            assurance,
        })
    }

    /// Is it the password? One answer, and one amount of work, for an unknown address and for a wrong password. A hash of
    /// when less was asked is made anew.
    async fn password_is_right(
        &self,
        tenant: TenantId,
        found: Option<(User, Option<String>)>,
        password: &str,
    ) -> Result<Option<User>> {
        let (user, stored) = found.map_or((None, None), |(user, stored)| (Some(user), stored));
        let pepper = self.pepper(tenant);
        let verdict = self.hasher.verify(pepper, password, stored.as_deref()).await?;
        let user = user.filter(|u| u.active && verdict != Verdict::Wrong);
        if let (Some(user), Verdict::Renewed(hash), Some(old)) = (&user, verdict, stored) {
            let id = user.id;
            let kept = self.ctx.db.write(tenant, move |tx| {
                Box::pin(async move { factors::renew_password(tx, id, &old, &hash).await })
            });
            kept.await?;
        }
        Ok(user)
    }

    /// The first step.
    pub(crate) async fn sign_in(&self, tenant: TenantId, email: &str, password: &str, caller: Caller) -> Result<Step> {
        let email = email.trim().to_lowercase();
        let found = store::by_email(&self.ctx.db, tenant, &email).await?;
        let (id, now) = (found.as_ref().map(|(user, _)| user.id), self.ctx.clock.now_ms());
        let known = store::is_known_browser(&self.ctx.db, tenant, id, caller.browser, now).await?;
        let buckets = guesses::buckets(&email, &caller, known);
        self.count_attempt(tenant, buckets.clone()).await?;
        let user = self.password_is_right(tenant, found, password).await?;
        let this = self.clone();
        let step = self.ctx.db.write(tenant, move |tx| {
            Box::pin(async move {
                let Some(user) = user else {
                    audited(tx, "anonymous", "execute", "sign-in", "denied", "password").await?;
                    return Ok(None);
                };
                guesses::forget(tx, &buckets).await?;
                let standing = factors::standing_in(tx, user.id).await?;
                if !standing.second() {
                    let opened = this.open(tx, user, Assurance::One, "password", &caller).await?;
                    return Ok(Some(Step::In(Box::new(opened))));
                }
                let begun = ceremonies::Ceremony {
                    user: Some(user.id),
                    ..Default::default()
                };
                let ticket = ceremonies::begin(tx, ceremonies::Kind::Ticket, &begun).await?;
                audited(tx, &user.subject(), "execute", "sign-in", "success", "first step").await?;
                let methods = [
                    (standing.passkeys > 0, "passkey"),
                    (standing.totp, "totp"),
                    (standing.recovery > 0, "recovery"),
                ];
                let methods = methods
                    .into_iter()
                    .filter(|(has, _)| *has)
                    .map(|(_, name)| name)
                    .collect();
                Ok(Some(Step::Second(Ticket { ticket, methods })))
            })
        });
        step.await?
            .ok_or_else(|| Error::unauthorized("identity.sign_in_failed", "The address or the password is not right."))
    }

    /// The second step of the ticket's owner. A ticket lives through a few wrong codes, and signs in once.
    pub(crate) async fn second(
        &self,
        tenant: TenantId,
        ticket: String,
        proof: Proof,
        caller: Caller,
    ) -> Result<Opened> {
        let secret = ticket.clone();
        let tried = self.ctx.db.write(tenant, move |tx| {
            Box::pin(async move { ceremonies::attempt(tx, &secret, TRIES).await })
        });
        let user = tried.await?.ok_or_else(ended)?;
        // A passkey cannot be guessed: wrong codes of somebody else do not stand in its way.
        if !matches!(proof, Proof::Passkey(_)) {
            self.limit_second(tenant, user).await?;
        }
        let recovery = match &proof {
            Proof::Recovery(code) => self.recovery_hashes(tenant, user, code).await?,
            _ => Vec::new(),
        };
        let passkey = match &proof {
            Proof::Passkey(assertion) => Some(
                self.assertion(tenant, ceremonies::Kind::Second, assertion, Some(user))
                    .await?,
            ),
            _ => None,
        };
        let this = self.clone();
        let opened = self.ctx.db.write(tenant, move |tx| {
            Box::pin(async move {
                let (right, how) = match (&proof, passkey) {
                    (Proof::Totp(code), _) => (this.totp_is_right(tx, user, code).await?, "password and code"),
                    (Proof::Recovery(_), _) => (
                        this.recovery_is_right(tx, user, &recovery).await?,
                        "password and recovery code",
                    ),
                    (Proof::Passkey(_), Some(Ok(passkey))) => (passkey.count(tx).await?, "password and passkey"),
                    (Proof::Passkey(_), _) => (false, "password and passkey"),
                };
                let subject = format!("user:{user}");
                if !right {
                    audited(tx, &subject, "execute", "sign-in", "denied", how).await?;
                    return Ok(Err(wrong_code()));
                }
                // Of two at once with the same ticket only one comes in.
                if ceremonies::take(tx, ceremonies::Kind::Ticket, &ticket).await?.is_none() {
                    return Err(ended());
                }
                this.forget_second(tx, user).await?;
                if matches!(proof, Proof::Recovery(_)) {
                    audited(
                        tx,
                        &subject,
                        "update",
                        &subject,
                        "success",
                        Changed::RecoveryUsed.name(),
                    )
                    .await?;
                    this.tell_changed(tx, user).await?;
                }
                let user = active(tx, user).await?;
                this.open(tx, user, Assurance::Two, how, &caller).await.map(Ok)
            })
        });
        opened.await?
    }

    /// Options for the passkey as the second step of a ticket's owner.
    pub(crate) async fn second_passkey(&self, tenant: TenantId, ticket: &str, site: Site) -> Result<serde_json::Value> {
        let owner = ceremonies::owner(&self.ctx.db, tenant, ticket, self.ctx.clock.now_ms()).await?;
        let user = owner.ok_or_else(ended)?;
        self.request(tenant, site, ceremonies::Kind::Second, Some(user), None)
            .await
    }

    /// A session for a passkey alone: possession, and the owner's verification on it.
    pub(crate) async fn sign_in_passkey(
        &self,
        tenant: TenantId,
        assertion: &Assertion,
        caller: Caller,
    ) -> Result<Opened> {
        let found = self
            .assertion(tenant, ceremonies::Kind::SignIn, assertion, None)
            .await?;
        let this = self.clone();
        let opened = self.ctx.db.write(tenant, move |tx| {
            Box::pin(async move {
                let refused = match found {
                    Err(refusal) => refusal,
                    Ok(used) => match store::by_id_in(tx, used.user).await?.filter(|u| u.active) {
                        None => Refusal::Account,
                        Some(_) if !used.count(tx).await? => Refusal::Counter,
                        Some(user) => return this.open(tx, user, Assurance::Two, "passkey", &caller).await.map(Ok),
                    },
                };
                let why = format!("passkey: {}", refused.name());
                audited(tx, "anonymous", "execute", "sign-in", "denied", &why).await?;
                Ok(Err(crate::passkeys::refused()))
            })
        });
        opened.await?
    }

    /// The password of someone who is signed in; tries are counted in their session.
    pub(crate) async fn own_password_is_right(&self, who: &Principal, user: Uuid, password: &str) -> Result<bool> {
        let tenant = who.tenant;
        let email = store::by_id(&self.ctx.db, tenant, user)
            .await?
            .ok_or_else(unknown_user)?
            .email;
        let buckets: Vec<Bucket> = guesses::of_session(who.session);
        self.count_attempt(tenant, buckets.clone()).await?;
        let found = store::by_email(&self.ctx.db, tenant, &email).await?;
        let right = self.password_is_right(tenant, found, password).await?.is_some();
        if right {
            let forgotten = self.ctx.db.write(tenant, move |tx| {
                Box::pin(async move { guesses::forget(tx, &buckets).await })
            });
            forgotten.await?;
        }
        Ok(right)
    }
}

fn ended() -> Error {
    Error::unauthorized("identity.ticket_ended", "This took too long. Please sign in again.")
}

/// A user whose account is open.
pub(crate) async fn active(tx: &mut Tx, user: Uuid) -> Result<User> {
    store::by_id_in(tx, user)
        .await?
        .filter(|u| u.active)
        .ok_or_else(unknown_user)
}
