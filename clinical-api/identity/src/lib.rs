//! Identity: who people are, and how they come in. Users, passwords, sign-in links, and the sessions they open.
//!
//! What a person is in the record (a Practitioner, a Patient) is written as the kernel relation `self`
//! (`user:U self practitioner:ID`), which is how the other modules find the person behind a reference.

mod access_log;
mod account;
mod address;
mod agent;
mod breached;
mod caller;
mod cost;
mod decide;
mod device_key;
mod factors;
mod forgotten;
mod guesses;
mod http;
mod links;
mod mail;
mod oauth;
mod passkeys;
mod password;
mod people;
mod seal;
mod sessions;
mod sign_in;
mod sso;
mod step_up;
mod store;

pub use cost::Measured;
pub use links::BirthDates;
pub use people::Invited;
pub use store::{SHEETS, User};

use axum::Router;
use medtech_fhir::Fhir;
use medtech_kernel::{
    Ctx, Error, Migration, Module, Result, TenantId, Tx,
    audit::{self, Entry},
    auth::{Assurance, NewSession, Role},
    bus::{Bus, Event},
    clock::Millis,
    id,
};
use password::Hasher;
use serde::Serialize;
use std::sync::Arc;
use tokio::{sync::watch, task::JoinHandle};
use uuid::Uuid;

/// How long a session opened by password or link lasts: a long working day.
pub const SESSION: Millis = 12 * 3_600_000;
/// Sessions of one person at once, beside those of applications; the oldest one ends.
pub(crate) const SESSIONS: usize = 20;

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

/// The module. Clones share it.
#[derive(Clone)]
pub struct Identity {
    ctx: Ctx,
    hasher: Hasher,
    breached: breached::Breached,
    records: Option<Fhir>,
    oauth: Arc<oauth::OAuth>,
    births: Option<Arc<dyn BirthDates>>,
    sso: Arc<sso::Sso>,
}

/// A session just opened; the token is given once.
#[derive(Debug)]
pub(crate) struct Opened {
    pub token: String,
    pub session: Uuid,
    pub expires_at: Millis,
    pub user: User,
    pub assurance: Assurance,
    /// See [`Identity::acts_as`].
    pub acts_as: Vec<Role>,
}

/// Body of `user.changed`.
#[derive(Serialize)]
struct UserChanged<'a> {
    id: Uuid,
    name: &'a str,
    email: &'a str,
    roles: &'a [Role],
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<&'a str>,
}

/// Tells who listens how a user stands now. Whoever wants no notices by mail is told of without an address.
async fn tell(bus: &Bus, tx: &mut Tx, user: &User) -> Result<()> {
    let profile = people::contact_in(tx, user.id).await?;
    let body = UserChanged {
        id: user.id,
        name: &user.name,
        email: if profile.mails { &user.email } else { "" },
        roles: &user.roles,
        active: user.active,
        language: profile.language.as_deref(),
    };
    let event = Event::of(tx, "user.changed", user.subject(), &body)?;
    bus.record(tx, event).await
}

impl Identity {
    #[must_use]
    pub fn new(ctx: Ctx) -> Self {
        let oauth = oauth::OAuth::new(ctx.clone());
        Self {
            sso: sso::Sso::new(oauth.clone()),
            oauth,
            breached: breached::Breached::new(
                ctx.config.identity.breached_passwords_url.as_deref(),
                ctx.config.public_url.is_none(),
            ),
            ctx,
            hasher: Hasher::new(),
            records: None,
            births: None,
        }
    }

    /// With the clinic's records: who a person is in them can be looked up, and who acts for a patient is written there.
    #[must_use]
    pub fn with_records(mut self, records: Fhir) -> Self {
        self.oauth.knows(records.clone());
        self.records = Some(records);
        self
    }

    /// The authorization server's addresses, which stand at the root: `/oauth2/*` and the discovery documents.
    pub fn oauth_routes(&self) -> Router {
        self.oauth.clone().routes()
    }

    /// Lets registered applications call these routes from a browser, from their own origins.
    pub fn for_applications(&self, routes: Router) -> Router {
        self.oauth.cors(self.oauth.bound(routes))
    }

    /// Tells applications of ended sessions until `stop`: the tasks, and whom to tell of live events.
    pub fn tell_applications(
        &self,
        stop: &watch::Receiver<bool>,
    ) -> (Vec<JoinHandle<()>>, impl Fn(&Event) + Send + Sync + use<>) {
        self.oauth.watch(stop)
    }

    /// Registers the group of what [`Identity::tell_applications`] delivers, before the first write.
    pub fn register(bus: &Bus) {
        bus.register(oauth::LOGOUT_GROUP, oauth::LOGOUT_KINDS);
    }

    /// Links that patients ask for will ask for their date of birth, which stands here.
    #[must_use]
    pub fn with_birth_dates(mut self, births: Arc<dyn BirthDates>) -> Self {
        self.births = Some(births);
        self
    }

    /// Makes a user; 409 `identity.email_taken` when the address is in use.
    pub async fn create_user(&self, tenant: TenantId, new: NewUser) -> Result<User> {
        let clinic = self.clinic(tenant)?;
        let user = self.draft(&new)?;
        let password = match &new.password {
            Some(password) => Some(self.new_password(tenant, password, &user).await?),
            None => None,
        };
        let (parts, made) = (self.clone_parts(&clinic), user.clone());
        self.ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move { parts.add_in(tx, &made, password.as_deref(), "system").await })
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
                    let link = store::NewLink {
                        user,
                        expires_at,
                        uses: uses.into(),
                        browser: None,
                        birth_date: false,
                        reset: false,
                    };
                    store::insert_link(tx, hash, &link).await?;
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
                    let mut new = session(&user, ttl, Assurance::Two, note);
                    new.grant.machine = true;
                    this.issue(tx, new).await.map(|(token, _)| token)
                })
            })
            .await
    }

    /// The hash of a password that somebody chose: long enough, not made of what is known of them or their clinic, and in no
    /// list of stolen ones.
    pub(crate) async fn new_password(&self, tenant: TenantId, password: &str, owner: &User) -> Result<String> {
        let clinic = self.clinic(tenant)?;
        let known = [&owner.email, &owner.name, &*clinic.name, &*clinic.slug];
        let hash = self.hasher.hash(self.pepper(tenant), password, &known).await?;
        self.breached.refuse(&password::normal(password)).await?;
        Ok(hash)
    }

    /// Fixed roles that those of the clinic's own are made of, for a client to choose its pages by.
    pub(crate) async fn acts_as(&self, tenant: TenantId, roles: &[Role]) -> Result<Vec<Role>> {
        let bases = medtech_kernel::policy::own::bases(&self.ctx.db, tenant, roles).await?;
        Ok(bases.into_iter().collect())
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

    fn consumes() -> &'static [&'static str] {
        &[links::REQUESTED, address::REQUESTED]
    }

    async fn on_event(&self, event: Event) -> Result<()> {
        match &*event.kind {
            links::REQUESTED => self.link_requested(event).await,
            address::REQUESTED => self.address_requested(event).await,
            _ => Err(Error::internal(
                "identity.event",
                "an event of a kind that was not asked for",
            )),
        }
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

fn too_many(left: Millis) -> Error {
    let minutes = left.max(0) / 60_000 + 1;
    let text = format!("Too many attempts. Please try again in {minutes} minutes.");
    Error::too_many("identity.too_many_attempts", text)
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
mod flows;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod ways;
