//! Tenants: whose data a request is about. The tenant of a request is its host name.

use crate::{Db, Error, Result, Val, clock::Millis};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

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
}

/// Whether a tenant is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Active,
    /// Its data stands, and nobody comes in.
    Suspended,
    /// Being deleted: nothing of it is served any more.
    Deleting,
}

impl Status {
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
    /// Sessions of staff end after this many minutes of silence; 0: only with their time.
    pub idle_minutes: u32,
    /// A sign-in link that a patient asked for asks for the date of birth.
    pub link_birth_date: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            require_two_factors: true,
            idle_minutes: 15,
            link_birth_date: true,
        }
    }
}

/// The register of tenants, cached whole: it is read at every request and changes rarely.
#[derive(Clone)]
pub struct Tenants {
    db: Db,
    cache: Arc<RwLock<Register>>,
}

#[derive(Default)]
struct Register {
    by_id: HashMap<TenantId, Tenant>,
    by_slug: HashMap<Arc<str>, TenantId>,
    by_host: HashMap<String, TenantId>,
    default: Option<TenantId>,
}

const ALL: &str = "SELECT id, slug, name, zone, status, settings FROM tenant WHERE tenant = $1 ORDER BY id";
const DOMAINS: &str = "SELECT host, owner FROM tenant_domain WHERE tenant = $1";
const NEXT: &str = "SELECT COALESCE(MAX(id), 0) + 1 FROM tenant WHERE tenant = $1";
const CREATE: &str = "INSERT INTO tenant (tenant, id, slug, name, zone, created_at) VALUES ($1, $2, $3, $4, $5, $6)";
const SETTINGS: &str = "UPDATE tenant SET settings = $3 WHERE tenant = $1 AND id = $2";
const STATUS: &str = "UPDATE tenant SET status = $3 WHERE tenant = $1 AND id = $2";
const ADD_DOMAIN: &str = "INSERT INTO tenant_domain (tenant, host, owner) VALUES ($1, $2, $3)";

impl Tenants {
    pub async fn open(db: Db) -> Result<Self> {
        let tenants = Self {
            db,
            cache: Arc::default(),
        };
        tenants.reload().await?;
        Ok(tenants)
    }

    /// Reads the register again.
    pub async fn reload(&self) -> Result<()> {
        let mut fresh = Register::default();
        for row in self.db.query(TenantId::SYSTEM, ALL, &[]).await? {
            let id = TenantId(row.i64(0)?);
            let tenant = Tenant {
                id,
                slug: row.text(1)?.into(),
                name: row.text(2)?.into(),
                zone: row.text(3)?.into(),
                status: Status::parse(row.text(4)?)?,
                settings: Arc::new(
                    serde_json::from_str(row.text(5)?).map_err(|e| Error::internal("tenant.settings", e))?,
                ),
            };
            fresh.default.get_or_insert(id);
            fresh.by_slug.insert(tenant.slug.clone(), id);
            fresh.by_id.insert(id, tenant);
        }
        for row in self.db.query(TenantId::SYSTEM, DOMAINS, &[]).await? {
            fresh.by_host.insert(row.string(0)?, TenantId(row.i64(1)?));
        }
        *self.cache.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
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

    /// Replaces what a tenant has chosen. Whoever calls writes the audit entry in the tenant's own trail.
    pub async fn set_settings(&self, id: TenantId, settings: &Settings) -> Result<()> {
        let text = serde_json::to_string(settings).map_err(|e| Error::internal("tenant.settings", e))?;
        self.update(id, SETTINGS, text).await
    }

    pub async fn set_status(&self, id: TenantId, status: Status) -> Result<()> {
        let name = match status {
            Status::Active => "active",
            Status::Suspended => "suspended",
            Status::Deleting => "deleting",
        };
        self.update(id, STATUS, name.to_owned()).await
    }

    async fn update(&self, id: TenantId, sql: &'static str, value: String) -> Result<()> {
        let changed = self.db.write(TenantId::SYSTEM, move |tx| {
            Box::pin(async move { tx.exec(sql, &[id.number().into(), value.into()]).await })
        });
        if changed.await? == 0 {
            return Err(Error::not_found("tenant.unknown", "There is no such clinic."));
        }
        self.reload().await
    }

    /// Registers a tenant. `zone` must be an IANA time zone; `slug` a DNS label.
    pub async fn create(&self, slug: &str, name: &str, zone: &str, domains: &[String]) -> Result<Tenant> {
        let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if slug.is_empty()
            || slug.len() > 63
            || slug.starts_with('-')
            || slug.ends_with('-')
            || !slug.bytes().all(label)
        {
            return Err(Error::bad(
                "tenant.slug",
                "A tenant's short name is 1 to 63 lower-case letters, digits or hyphens.",
            ));
        }
        if jiff::tz::TimeZone::get(zone).is_err() {
            return Err(Error::bad(
                "tenant.zone",
                "The time zone is not one of the IANA database.",
            ));
        }
        let (owned_slug, owned_name, owned_zone) = (slug.to_owned(), name.to_owned(), zone.to_owned());
        let domains: Vec<String> = domains
            .iter()
            .map(|d| d.strip_suffix('.').unwrap_or(d).to_ascii_lowercase())
            .collect();
        let id = self
            .db
            .write(TenantId::SYSTEM, move |tx| {
                Box::pin(async move {
                    let id = tx.query_one(NEXT, &[]).await?.i64(0)?;
                    let now: Millis = tx.now();
                    tx.exec(
                        CREATE,
                        &[
                            id.into(),
                            owned_slug.into(),
                            owned_name.into(),
                            owned_zone.into(),
                            now.into(),
                        ],
                    )
                    .await?;
                    for domain in domains {
                        tx.exec(ADD_DOMAIN, &[domain.into(), Val::from(id)]).await?;
                    }
                    Ok(id)
                })
            })
            .await?;
        self.reload().await?;
        self.by_id(TenantId(id))
            .ok_or_else(|| Error::internal("tenant.vanished", "the new tenant is not in the register"))
    }
}
