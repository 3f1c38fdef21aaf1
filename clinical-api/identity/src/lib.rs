//! Identity: who people are, and how they come in. Users, passwords, sign-in links, and the sessions they open.
//!
//! What a person is in the record (a Practitioner, a Patient) is written as the kernel relation `self`
//! (`user:U self practitioner:ID`), which is how the other modules find the person behind a reference.

mod access_log;
mod decide;
mod http;
mod password;
mod store;

pub use store::User;

use axum::Router;
use medtech_kernel::{
    Ctx, Error, Migration, Module, Result, TenantId, Tx,
    audit::{self, Entry},
    auth::{Assurance, NewSession, Role},
    bus::Event,
    clock::Millis,
    id, policy,
};
use password::Hasher;
use serde::Serialize;
use std::sync::Arc;
use uuid::Uuid;

/// How long a session opened by password or link lasts: a long working day.
pub const SESSION: Millis = 12 * 3_600_000;
/// Attempts at one account within [`WINDOW`].
const ATTEMPTS: i64 = 10;
const WINDOW: Millis = 15 * 60_000;

/// A user to be made.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub email: String,
    pub name: String,
    pub roles: Vec<Role>,
    /// `None`: this person comes in by link only.
    pub password: Option<String>,
    pub practitioner: Option<String>,
    pub patient: Option<String>,
}

/// The module.
pub struct Identity {
    ctx: Ctx,
    hasher: Hasher,
}

/// A session just opened; the token is given once.
#[derive(Debug)]
pub(crate) struct Opened {
    pub token: String,
    pub expires_at: Millis,
    pub user: User,
}

/// Body of `user.changed`.
#[derive(Serialize)]
struct UserChanged<'a> {
    id: Uuid,
    name: &'a str,
    email: &'a str,
    roles: &'a [Role],
    active: bool,
}

impl Identity {
    #[must_use]
    pub fn new(ctx: Ctx) -> Self {
        Self {
            ctx,
            hasher: Hasher::new(),
        }
    }

    /// Makes a user; 409 `identity.email_taken` when the address is in use.
    pub async fn create_user(&self, tenant: TenantId, new: NewUser) -> Result<User> {
        let email = address(&new.email)?;
        if new.name.trim().is_empty() || new.name.chars().count() > 200 {
            return Err(Error::unprocessable("identity.name", "A name has 1 to 200 characters."));
        }
        if new.roles.is_empty() || new.roles.iter().any(|r| matches!(r, Role::Guest | Role::Device)) {
            return Err(Error::unprocessable(
                "identity.roles",
                "A user is an administrator, clinician, member of staff or patient.",
            ));
        }
        let password = match &new.password {
            Some(password) => Some(self.hasher.hash(self.pepper(tenant), password).await?),
            None => None,
        };
        let user = User {
            id: id::new_id(&self.ctx.clock),
            email,
            name: new.name.trim().to_owned(),
            roles: new.roles,
            active: true,
            practitioner: new.practitioner,
            patient: new.patient,
        };
        let (bus, made) = (self.ctx.bus.clone(), user.clone());
        self.ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    if !store::insert(tx, &made, password.as_deref()).await? {
                        return Err(Error::conflict(
                            "identity.email_taken",
                            "There is a user with this address already.",
                        ));
                    }
                    let subject = made.subject();
                    let linked = [("practitioner", &made.practitioner), ("patient", &made.patient)];
                    for (kind, id) in linked {
                        if let Some(id) = id {
                            policy::relate(tx, &subject, "self", &format!("{kind}:{id}"), None).await?;
                        }
                    }
                    let body = UserChanged {
                        id: made.id,
                        name: &made.name,
                        email: &made.email,
                        roles: &made.roles,
                        active: made.active,
                    };
                    let event = Event::of(tx, "user.changed", subject.clone(), &body)?;
                    bus.record(tx, event).await?;
                    audited(tx, "system", "create", &subject, "success", "user").await
                })
            })
            .await?;
        Ok(user)
    }

    /// A sign-in link's secret, for `/enter#SECRET`: good for `uses` sign-ins within `ttl` milliseconds.
    pub async fn issue_link(&self, tenant: TenantId, user: Uuid, ttl: Millis, uses: u32) -> Result<String> {
        let secret = id::token();
        let hash = id::sha256(secret.as_bytes());
        self.ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    let found = store::by_id_in(tx, user).await?.filter(|u| u.active);
                    let subject = found.ok_or_else(unknown_user)?.subject();
                    let expires_at = tx.now() + ttl;
                    store::insert_link(tx, hash, user, expires_at, uses.into()).await?;
                    audited(tx, "system", "create", &subject, "success", "sign-in link").await
                })
            })
            .await?;
        Ok(secret)
    }

    /// The user of an address.
    pub async fn find_by_email(&self, tenant: TenantId, email: &str) -> Result<Option<User>> {
        Ok(store::by_email(&self.ctx.db, tenant, &address(email)?)
            .await?
            .map(|(user, _)| user))
    }

    /// An access token for a user, without password or link: for the operator at the machine.
    pub async fn issue_token(&self, tenant: TenantId, user: Uuid, ttl: Millis, note: &str) -> Result<String> {
        let (this, note) = (self.ctx.sessions.clone(), note.to_owned());
        self.ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    let user = store::by_id_in(tx, user)
                        .await?
                        .filter(|u| u.active)
                        .ok_or_else(unknown_user)?;
                    audited(tx, "system", "execute", &user.subject(), "success", "access token").await?;
                    this.issue(tx, session(&user, ttl, Assurance::Two, note))
                        .await
                        .map(|(token, _)| token)
                })
            })
            .await
    }

    /// A session for an address and its password. One answer, and one amount of work, for an unknown address and for a
    /// wrong password.
    pub(crate) async fn sign_in(&self, tenant: TenantId, email: &str, password: &str) -> Result<Opened> {
        let email = email.trim().to_lowercase();
        let account = id::sha256(email.as_bytes());
        let (count, until) = self
            .ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move { store::attempt(tx, account, WINDOW).await })
            })
            .await?;
        if count > ATTEMPTS {
            let minutes = (until - self.ctx.clock.now_ms()).max(0) / 60_000 + 1;
            let text = format!("Too many attempts. Please try again in {minutes} minutes, or ask for a sign-in link.");
            return Err(Error::too_many("identity.too_many_attempts", text));
        }
        let found = store::by_email(&self.ctx.db, tenant, &email).await?;
        let (user, stored) = found.map_or((None, None), |(user, stored)| (Some(user), stored));
        let right = self
            .hasher
            .verify(self.pepper(tenant), password, stored.as_deref())
            .await?;
        let user = user.filter(|u| right && u.active);
        let sessions = self.ctx.sessions.clone();
        let opened = self
            .ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    let Some(user) = user else {
                        audited(tx, "anonymous", "execute", "sign-in", "denied", "password").await?;
                        return Ok(None);
                    };
                    store::forget_attempts(tx, account).await?;
                    audited(tx, &user.subject(), "execute", "sign-in", "success", "password").await?;
                    let (token, _) = sessions
                        .issue(tx, session(&user, SESSION, Assurance::One, "password".into()))
                        .await?;
                    Ok(Some(Opened {
                        token,
                        expires_at: tx.now() + SESSION,
                        user,
                    }))
                })
            })
            .await?;
        opened
            .ok_or_else(|| Error::unauthorized("identity.sign_in_failed", "The address or the password is not right."))
    }

    /// A session for a sign-in link.
    pub(crate) async fn exchange(&self, tenant: TenantId, link: &str) -> Result<Opened> {
        let hash = id::sha256(link.trim().as_bytes());
        let sessions = self.ctx.sessions.clone();
        self.ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    let user = store::use_link(tx, hash).await?;
                    let user = store::by_id_in(tx, user)
                        .await?
                        .filter(|u| u.active)
                        .ok_or_else(unknown_user)?;
                    audited(tx, &user.subject(), "execute", "sign-in", "success", "link").await?;
                    let (token, _) = sessions
                        .issue(tx, session(&user, SESSION, Assurance::One, "link".into()))
                        .await?;
                    Ok(Opened {
                        token,
                        expires_at: tx.now() + SESSION,
                        user,
                    })
                })
            })
            .await
    }

    fn pepper(&self, tenant: TenantId) -> [u8; 32] {
        self.ctx.root.derive("identity password pepper 1", tenant)
    }
}

impl Module for Identity {
    const NAME: &'static str = "identity";

    fn migrations() -> &'static [Migration] {
        store::MIGRATIONS
    }

    fn routes(self: Arc<Self>) -> Router {
        http::routes(self)
    }
}

fn session(user: &User, ttl_ms: Millis, assurance: Assurance, note: String) -> NewSession {
    NewSession {
        subject: user.subject(),
        name: user.name.clone(),
        roles: user.roles.clone(),
        ttl_ms,
        note,
        grant: assurance.into(),
        idle_ms: None,
    }
}

fn unknown_user() -> Error {
    Error::not_found("identity.user_unknown", "There is no such user.")
}

async fn audited(
    tx: &mut Tx,
    actor: &str,
    action: &'static str,
    target: &str,
    outcome: &'static str,
    detail: &str,
) -> Result<()> {
    audit::write(
        tx,
        Entry {
            actor,
            action,
            target,
            outcome,
            detail,
        },
    )
    .await
}

/// An address in the form it is compared in. Whether mail reaches it is not for us to guess.
fn address(email: &str) -> Result<String> {
    let email = email.trim().to_lowercase();
    let parts = email
        .rsplit_once('@')
        .filter(|(local, domain)| !local.is_empty() && !domain.is_empty());
    if parts.is_none() || email.len() > 254 || email.contains(char::is_whitespace) {
        return Err(Error::unprocessable("identity.email", "This is not an e-mail address."));
    }
    Ok(email)
}

#[cfg(test)]
mod tests;
