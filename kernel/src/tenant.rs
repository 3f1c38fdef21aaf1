//! Tenants: whose data a request is about. The tenant of a request is its host name.

use crate::{BoxFuture, Db, Error, Result, Tx, clock::Millis};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::watch;

/// The number of a tenant: the first column of every key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(i64);

impl TenantId {
    /// The installation itself: the register of tenants, and nothing clinical.
    pub const SYSTEM: Self = Self(0);

    /// For numbers that come from our own storage and tokens; whether such a tenant exists is the register's answer.
    #[must_use]
    pub const fn from_number(number: i64) -> Self {
        Self(number)
    }

    #[must_use]
    pub const fn number(self) -> i64 {
        self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A clinic or hospital group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    pub id: TenantId,
    /// Lower-case letters, digits and hyphens; the first label of its development address.
    pub slug: Arc<str>,
    pub name: Arc<str>,
    /// IANA time zone.
    pub zone: Arc<str>,
    pub status: Status,
    pub settings: Arc<Settings>,
    /// Which version of the settings that is; 0 where nothing was ever chosen.
    pub settings_version: i64,
    pub quotas: Quotas,
    /// When everything of it is deleted, where that has been decided.
    pub delete_at: Option<Millis>,
}

pub(crate) const CLOSED: &str = "This clinic is closed at the moment. Its data stands; please ask whoever runs it.";

impl Tenant {
    /// Ok while it is served, else 403 `tenant.suspended`.
    pub fn require_open(&self) -> Result<()> {
        match self.status {
            Status::Active => Ok(()),
            Status::Suspended | Status::Deleting => Err(Error::forbidden("tenant.suspended", CLOSED)),
        }
    }

    /// The day of its own calendar, as `YYYY-MM-DD`.
    #[must_use]
    pub fn day(&self, at: Millis) -> String {
        let zone = jiff::tz::TimeZone::get(&self.zone).unwrap_or(jiff::tz::TimeZone::UTC);
        let at = jiff::Timestamp::from_millisecond(at).unwrap_or_default();
        at.to_zoned(zone).date().to_string()
    }
}

/// What a tenant may use; nothing set is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// People who can sign in, patients included.
    pub users: Option<u32>,
    /// Bytes of all files.
    pub storage_bytes: Option<u64>,
    /// Chat messages a day, by the clinic's calendar.
    pub messages_per_day: Option<u32>,
}

/// Whether a tenant is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Active,
    /// Its data stands, and nobody comes in.
    Suspended,
    /// Will be deleted: nothing of it is served any more.
    Deleting,
}

/// The stored word of a tenant that is gone. Its number is never given out again: keys, files and tokens carry it.
const DELETED: &str = "deleted";

impl Status {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleting => "deleting",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        match name {
            "active" => Ok(Self::Active),
            "suspended" => Ok(Self::Suspended),
            "deleting" => Ok(Self::Deleting),
            other => Err(Error::internal("tenant.status", other.to_owned())),
        }
    }
}

/// What a tenant has chosen. A field that is not set stands at its default, which is the safe one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Clinical data is only for sessions of two factors ([`crate::auth::Assurance::Two`]).
    pub require_two_factors: bool,
    /// Clinicians see the records of the patients they treat; without it, of all the clinic's.
    pub relationship_required: bool,
    /// Sessions of staff end after this many minutes of silence.
    pub idle_minutes: u32,
    /// A sign-in link that a patient asked for asks for the date of birth.
    pub link_birth_date: bool,
    /// At this age a patient speaks for themselves, and whoever acted for the child no longer does.
    pub majority_age: u32,
    /// The language of mails and screens for those who have not chosen one (BCP 47).
    pub language: String,
    /// Days within which an invitation can be accepted.
    pub invitation_days: u32,
}

impl Settings {
    /// Every bound, with the words for whoever crossed it.
    pub fn check(&self) -> Result<()> {
        let within = |name: &str, value: u32, range: std::ops::RangeInclusive<u32>| {
            if range.contains(&value) {
                return Ok(());
            }
            let text = format!("`{name}` is {} to {}.", range.start(), range.end());
            Err(Error::unprocessable("tenant.settings_bounds", text))
        };
        within("idle_minutes", self.idle_minutes, 1..=720)?;
        within("majority_age", self.majority_age, 12..=25)?;
        within("invitation_days", self.invitation_days, 1..=30)?;
        if !LANGUAGES.contains(&self.language.as_str()) {
            let text = format!("`language` is one of {}.", LANGUAGES.join(", "));
            return Err(Error::unprocessable("tenant.settings_bounds", text));
        }
        Ok(())
    }
}

/// The languages of the product.
pub const LANGUAGES: &[&str] = &["en", "es"];

impl Default for Settings {
    fn default() -> Self {
        Self {
            require_two_factors: true,
            relationship_required: true,
            idle_minutes: 15,
            majority_age: 18,
            language: "en".to_owned(),
            invitation_days: 7,
            link_birth_date: true,
        }
    }
}

/// The register of tenants, cached whole: it is read at every request and changes rarely. [`Tenants::follow`] notices
/// what other processes changed.
#[derive(Clone)]
pub struct Tenants {
    db: Db,
    cache: Arc<RwLock<Register>>,
    /// The number of the last change that was read.
    seen: Arc<watch::Sender<i64>>,
}

#[derive(Default)]
struct Register {
    by_id: HashMap<TenantId, Tenant>,
    by_slug: HashMap<Arc<str>, TenantId>,
    by_host: HashMap<String, TenantId>,
    default: Option<TenantId>,
}

/// A version of a tenant's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub version: i64,
    pub settings: Settings,
    pub actor: String,
    pub at: Millis,
}

/// A tenant to be made.
#[derive(Clone, Debug, Default)]
pub struct NewTenant {
    pub slug: String,
    pub name: String,
    pub zone: String,
    pub domains: Vec<String>,
}

/// How often another process's changes are looked for.
const LOOK: Duration = Duration::from_secs(1);

mod store;

impl Tenants {
    pub async fn open(db: Db) -> Result<Self> {
        let tenants = Self {
            db,
            cache: Arc::default(),
            seen: Arc::new(watch::channel(0).0),
        };
        tenants.reload().await?;
        Ok(tenants)
    }

    /// Reads the register again.
    pub async fn reload(&self) -> Result<()> {
        // The number first: a change in between is read twice rather than never.
        let changes = store::changes(&self.db).await?;
        let mut fresh = Register::default();
        for tenant in store::all(&self.db).await? {
            fresh.default.get_or_insert(tenant.id);
            fresh.by_slug.insert(tenant.slug.clone(), tenant.id);
            fresh.by_id.insert(tenant.id, tenant);
        }
        fresh.by_host = store::domains(&self.db).await?.into_iter().collect();
        // Whoever finds a tenant here may serve it at once: its keys are at hand before it is shown.
        if let Ok(vault) = self.db.vault() {
            vault.reload(&self.db).await?;
        }
        *self.cache.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.seen.send_replace(changes);
        Ok(())
    }

    /// Told of every reading of the register, whoever changed it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.seen.subscribe()
    }

    /// Reads the register again whenever any process has changed it, until `stop` turns true.
    pub async fn follow(&self, mut stop: watch::Receiver<bool>) {
        let mut every = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let seen = *self.seen.borrow();
            let outcome = match store::changes(&self.db).await {
                Ok(now) if now == seen => continue,
                Ok(_) => self.reload().await,
                Err(e) => Err(e),
            };
            if let Err(e) = outcome {
                tracing::warn!(error = %e, "the register of tenants could not be read again");
            }
        }
    }

    /// The tenant of a `Host` header: its own domain, else `{slug}.localhost`, else the first tenant (the default).
    #[must_use]
    pub fn by_host(&self, host: &str) -> Option<Tenant> {
        let host = host.rsplit_once(':').map_or(host, |(name, port)| {
            if port.bytes().all(|b| b.is_ascii_digit()) {
                name
            } else {
                host
            }
        });
        // With the root's dot it is the same name (RFC 3986, 3.2.2).
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let register = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        let id = match register.by_host.get(&host) {
            Some(id) => *id,
            None => match host.strip_suffix(".localhost") {
                Some(slug) => *register.by_slug.get(slug)?,
                None => register.default?,
            },
        };
        register.by_id.get(&id).cloned()
    }

    /// Whether this tenant has registered the domain (a host name without port, in lower case).
    #[must_use]
    pub fn has_domain(&self, id: TenantId, name: &str) -> bool {
        let register = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        register.by_host.get(name.strip_suffix('.').unwrap_or(name)) == Some(&id)
    }

    #[must_use]
    pub fn by_id(&self, id: TenantId) -> Option<Tenant> {
        self.cache
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_id
            .get(&id)
            .cloned()
    }

    #[must_use]
    pub fn by_slug(&self, slug: &str) -> Option<Tenant> {
        let register = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        register
            .by_slug
            .get(slug)
            .and_then(|id| register.by_id.get(id))
            .cloned()
    }

    /// Every tenant, by number.
    #[must_use]
    pub fn all(&self) -> Vec<Tenant> {
        let mut all: Vec<Tenant> = self
            .cache
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_id
            .values()
            .cloned()
            .collect();
        all.sort_by_key(|t| t.id);
        all
    }

    /// The first tenant: whoever runs it runs the installation. Its administrators hold the permission
    /// `installation`: they see, make, close and delete the other tenants, and never what is in them.
    #[must_use]
    pub fn is_home(&self, id: TenantId) -> bool {
        let register = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        register.default == Some(id)
    }

    /// Host names of a tenant's own.
    #[must_use]
    pub fn domains_of(&self, id: TenantId) -> Vec<String> {
        let register = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        let own = register.by_host.iter().filter(|(_, owner)| **owner == id);
        let mut hosts: Vec<String> = own.map(|(host, _)| host.clone()).collect();
        hosts.sort();
        hosts
    }

    /// Where people open a tenant: its own host name, the installation's address for the first tenant, else the
    /// development address. Without a slash at the end.
    #[must_use]
    pub fn address_of(&self, tenant: &Tenant, public_url: &str) -> String {
        if let Some(host) = self.domains_of(tenant.id).first() {
            return format!("https://{host}");
        }
        let base = public_url.trim_end_matches('/');
        if self.is_home(tenant.id) {
            return base.to_owned();
        }
        let port = base.rsplit_once(':').map_or("", |(_, port)| port);
        let port = if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            String::new()
        } else {
            format!(":{port}")
        };
        format!("http://{}.localhost{port}", tenant.slug)
    }

    /// Replaces what a tenant has chosen. Whoever calls writes the audit entry in the tenant's own trail.
    pub async fn set_settings(&self, id: TenantId, settings: &Settings) -> Result<()> {
        self.change_settings(id, settings, "system", None).await.map(|_| ())
    }

    /// The same for someone; `expected` names the version that must stand (412 `tenant.settings_changed`). Answers the
    /// new version.
    pub async fn change_settings(
        &self,
        id: TenantId,
        settings: &Settings,
        actor: &str,
        expected: Option<i64>,
    ) -> Result<i64> {
        settings.check()?;
        let text = serde_json::to_string(settings).map_err(|e| Error::internal("tenant.settings", e))?;
        let actor = actor.to_owned();
        self.change(move |tx| Box::pin(async move { store::put_settings(tx, id, &text, &actor, expected).await }))
            .await
    }

    /// Every version of a tenant's settings that was ever chosen, the newest first.
    pub async fn versions(&self, id: TenantId) -> Result<Vec<Version>> {
        store::versions(&self.db, id).await
    }

    pub async fn set_status(&self, id: TenantId, status: Status) -> Result<()> {
        self.set_state(id, status, None, "system").await
    }

    /// Moves a tenant to a status, for someone. `delete_at` goes with [`Status::Deleting`].
    pub async fn set_state(&self, id: TenantId, status: Status, delete_at: Option<Millis>, actor: &str) -> Result<()> {
        let actor = actor.to_owned();
        self.change(move |tx| Box::pin(async move { store::put_state(tx, id, status, delete_at, &actor).await }))
            .await
    }

    pub async fn set_quotas(&self, id: TenantId, quotas: &Quotas, actor: &str) -> Result<()> {
        let text = serde_json::to_string(quotas).map_err(|e| Error::internal("tenant.quotas", e))?;
        let actor = actor.to_owned();
        self.change(move |tx| Box::pin(async move { store::put_quotas(tx, id, &text, &actor).await }))
            .await
    }

    /// Renames a tenant and moves it to a time zone.
    pub async fn describe(&self, id: TenantId, name: &str, zone: &str, actor: &str) -> Result<()> {
        require_name(name)?;
        require_zone(zone)?;
        let (name, zone, actor) = (name.trim().to_owned(), zone.to_owned(), actor.to_owned());
        self.change(move |tx| Box::pin(async move { store::describe(tx, id, &name, &zone, &actor).await }))
            .await
    }

    /// Adds a host name; 409 `tenant.domain_taken` when any tenant has it.
    pub async fn add_domain(&self, id: TenantId, host: &str, actor: &str) -> Result<String> {
        let (host, actor) = (domain(host)?, actor.to_owned());
        let added = host.clone();
        self.change(move |tx| Box::pin(async move { store::add_domain(tx, id, &host, &actor).await }))
            .await?;
        Ok(added)
    }

    /// Takes a host name away; 404 when the tenant has no such.
    pub async fn remove_domain(&self, id: TenantId, host: &str, actor: &str) -> Result<()> {
        let (host, actor) = (host.to_ascii_lowercase(), actor.to_owned());
        self.change(move |tx| Box::pin(async move { store::remove_domain(tx, id, &host, &actor).await }))
            .await
    }

    /// A tenant is gone for good: out of the register, with what is left to say about it in the system's own trail.
    pub async fn bury(&self, id: TenantId, certificate: String, actor: &str) -> Result<()> {
        let actor = actor.to_owned();
        self.change(move |tx| Box::pin(async move { store::bury(tx, id, &certificate, &actor).await }))
            .await
    }

    /// Registers a tenant. `zone` must be an IANA time zone; `slug` a DNS label.
    pub async fn create(&self, slug: &str, name: &str, zone: &str, domains: &[String]) -> Result<Tenant> {
        let new = NewTenant {
            slug: slug.to_owned(),
            name: name.to_owned(),
            zone: zone.to_owned(),
            domains: domains.to_vec(),
        };
        self.create_by(new, "system").await
    }

    /// The same, for someone.
    pub async fn create_by(&self, mut new: NewTenant, actor: &str) -> Result<Tenant> {
        require_slug(&new.slug)?;
        require_name(&new.name)?;
        require_zone(&new.zone)?;
        if new.domains.len() > MOST_DOMAINS {
            let text = format!("A clinic has at most {MOST_DOMAINS} host names.");
            return Err(Error::unprocessable("tenant.domains", text));
        }
        for host in &mut new.domains {
            *host = domain(host)?;
        }
        let actor = actor.to_owned();
        let id = self
            .change(move |tx| Box::pin(async move { store::create(tx, &new, &actor).await }))
            .await?;
        self.by_id(id)
            .ok_or_else(|| Error::internal("tenant.vanished", "the new tenant is not in the register"))
    }

    /// A change of the register, counted, and read again.
    async fn change<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T>> + Send + 'static,
    {
        let done = self
            .db
            .write(TenantId::SYSTEM, move |tx| {
                Box::pin(async move {
                    let done = work(tx).await?;
                    store::count(tx).await?;
                    Ok(done)
                })
            })
            .await?;
        self.reload().await?;
        Ok(done)
    }
}

/// Counts one of what is limited by the day, in the transaction of the act; 429 `tenant.quota` past the limit. Where
/// nothing is limited nothing is counted.
pub async fn spend(tx: &mut Tx, tenant: &Tenant, what: &'static str, limit: Option<u32>) -> Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    if store::spend(tx, what, &tenant.day(tx.now())).await? <= i64::from(limit) {
        return Ok(());
    }
    Err(Error::too_many(
        "tenant.quota",
        "Your clinic has reached its limit for today. It begins anew at midnight.",
    ))
}

const MOST_DOMAINS: usize = 20;

fn require_slug(slug: &str) -> Result<()> {
    if is_label(slug) && slug != "www" {
        return Ok(());
    }
    Err(Error::bad(
        "tenant.slug",
        "A tenant's short name is 1 to 63 lower-case letters, digits or hyphens.",
    ))
}

fn require_name(name: &str) -> Result<()> {
    if name.trim().is_empty() || name.chars().count() > 200 || name.chars().any(char::is_control) {
        return Err(Error::unprocessable(
            "tenants.name",
            "A clinic's name has 1 to 200 characters.",
        ));
    }
    Ok(())
}

fn require_zone(zone: &str) -> Result<()> {
    if jiff::tz::TimeZone::get(zone).is_ok() {
        return Ok(());
    }
    Err(Error::bad(
        "tenant.zone",
        "The time zone is not one of the IANA database.",
    ))
}

/// A label of a host name in lower case (RFC 1123, 2.1).
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A host name as it is compared. Those of the development addresses are not for anyone to take, and an address in
/// numbers is none.
fn domain(host: &str) -> Result<String> {
    let host = host.trim();
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let last = host.rsplit('.').next().unwrap_or_default();
    let good = host.len() <= 253
        && host.contains('.')
        && host.split('.').all(is_label)
        && last != "localhost"
        && !last.bytes().all(|b| b.is_ascii_digit());
    if good {
        return Ok(host);
    }
    Err(Error::unprocessable(
        "tenants.domains",
        "Each address is a full host name such as clinic.example.org, without port or path.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_host_names() {
        assert_eq!(
            domain(" Care.West.Example. ").ok().as_deref(),
            Some("care.west.example")
        );
        for bad in [
            "",
            "localhost",
            "west.localhost",
            "west",
            "a..b",
            "-a.b",
            "a.b-",
            "a_b.c",
            "a.b:80",
            "http://a.b",
            "10.0.0.1",
            "a b.c",
            "[::1]",
            &format!("{}.example", "a".repeat(64)),
        ] {
            assert!(domain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_have_bounds_and_old_ones_are_read() {
        assert!(Settings::default().check().is_ok());
        for bad in [
            r#"{"idle_minutes":0}"#,
            r#"{"idle_minutes":721}"#,
            r#"{"majority_age":11}"#,
            r#"{"invitation_days":31}"#,
            r#"{"language":"xx"}"#,
        ] {
            let settings: Settings = serde_json::from_str(bad).unwrap();
            assert_eq!(
                settings.check().err().map(|e| e.code),
                Some("tenant.settings_bounds"),
                "{bad}"
            );
        }
        let old: Settings = serde_json::from_str(r#"{"require_two_factors":false}"#).unwrap();
        assert!(!old.require_two_factors && old.majority_age == 18);
    }
}
