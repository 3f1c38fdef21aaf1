//! For tests: temporary stores on both engines, a clock that stands still, a ready context.

pub mod scan;

use crate::{
    BoxFuture, Clock, Ctx, Db, Migration, Result, Tenant, TenantId, Val,
    auth::{Assurance, NewSession, Principal, Role, Sessions},
    bus::Bus,
    config::Config,
    db::{Engine, Location, PageKeys},
    id,
    policy::Policy,
    secret::Root,
    tenant::{Settings, Tenants},
    vault::{Ledger, Vault},
};
use std::sync::Arc;

/// The time at which a test's clock starts: 2026-03-02 09:00 UTC, a Monday.
pub const START: i64 = 1_772_442_000_000;

/// A context over a fresh store with three tenants, `north`, `south` and `east`.
pub struct World {
    pub ctx: Ctx,
    pub north: Tenant,
    pub south: Tenant,
    pub east: Tenant,
    /// Deleted when dropped.
    pub dir: tempfile::TempDir,
    owner_url: Option<String>,
    location: Location,
    migrations: Vec<&'static [Migration]>,
}

impl World {
    /// On SQLite, in a temporary directory.
    pub async fn sqlite(migrations: &[&'static [Migration]]) -> Result<Self> {
        let dir = tempfile::tempdir().map_err(|e| crate::Error::internal("testkit.dir", e))?;
        let location = Location::Sqlite(dir.path().join("db"));
        Self::build(dir, location, None, migrations).await
    }

    /// On PostgreSQL, in a database of its own; `None` when `MEDTECH_TEST_PG` (an owner's URL) is not set.
    pub async fn postgres(migrations: &[&'static [Migration]]) -> Result<Option<Self>> {
        let Ok(server) = std::env::var("MEDTECH_TEST_PG") else {
            return Ok(None);
        };
        let dir = tempfile::tempdir().map_err(|e| crate::Error::internal("testkit.dir", e))?;
        let (url, owner_url) = pg::fresh(&server).await?;
        let location = Location::Postgres {
            url,
            owner_url: Some(owner_url.clone()),
        };
        Self::build(dir, location, Some(owner_url), migrations).await.map(Some)
    }

    async fn build(
        dir: tempfile::TempDir,
        location: Location,
        owner_url: Option<String>,
        migrations: &[&'static [Migration]],
    ) -> Result<Self> {
        let clock = Clock::manual(START);
        let mut all = vec![crate::MIGRATIONS];
        all.extend_from_slice(migrations);
        let config = Config {
            data_dir: dir.path().to_owned(),
            ..Config::default()
        };
        let ctx = ground(
            location.clone(),
            clock,
            all.clone(),
            Root::from_bytes([7; 32]),
            Arc::new(config),
        )
        .await?;
        let tenants = &ctx.tenants;
        let north = tenants.create("north", "North Clinic", "Europe/Berlin", &[]).await?;
        let south = tenants.create("south", "South Clinic", "America/New_York", &[]).await?;
        let east = tenants.create("east", "East Clinic", "Asia/Kathmandu", &[]).await?;
        // Tests of who treats whom ask for it: see `World::demand_relationships`.
        let settings = Settings {
            relationship_required: false,
            ..Settings::default()
        };
        for tenant in [&north, &south, &east] {
            tenants.set_settings(tenant.id, &settings).await?;
        }
        Ok(Self {
            ctx,
            north,
            south,
            east,
            dir,
            owner_url,
            location,
            migrations: all,
        })
    }

    /// Writes what the application itself may not: as whoever has the file or the owner's password could.
    pub async fn forge(&self, tenant: TenantId, sql: &'static str, args: Vec<Val>) -> Result<u64> {
        let db = match &self.owner_url {
            None => self.ctx.db.clone(),
            Some(url) => {
                let location = Location::Postgres {
                    url: url.clone(),
                    owner_url: None,
                };
                Db::open(location, PageKeys::none(), self.ctx.clock.clone(), Vec::new()).await?
            }
        };
        db.write(tenant, move |tx| Box::pin(async move { tx.exec(sql, &args).await }))
            .await
    }

    /// From now on the tenant stands as a new one does: clinicians see the patients they treat.
    pub async fn demand_relationships(&self, tenant: &Tenant) -> Result<()> {
        self.ctx.tenants.set_settings(tenant.id, &Settings::default()).await
    }

    /// The context of another server on the same database, with the same clock; `None` on SQLite, which has one server.
    pub async fn another_server(&self) -> Result<Option<Ctx>> {
        if self.ctx.db.engine() == Engine::Sqlite {
            return Ok(None);
        }
        let (location, migrations) = (self.location.clone(), self.migrations.clone());
        let (clock, root, config) = (self.ctx.clock.clone(), self.ctx.root.clone(), self.ctx.config.clone());
        ground(location, clock, migrations, root, config).await.map(Some)
    }

    /// Someone of a tenant, signed in: the principal and the bearer token.
    pub async fn sign_in(&self, tenant: &Tenant, subject: &str, role: Role) -> Result<(Principal, String)> {
        let (sessions, subject) = (self.ctx.sessions.clone(), subject.to_owned());
        let token = self
            .ctx
            .db
            .write(tenant.id, move |tx| {
                Box::pin(async move {
                    let new = NewSession {
                        name: subject.clone(),
                        subject,
                        roles: vec![role],
                        ttl_ms: 3_600_000,
                        note: "test".into(),
                        grant: Assurance::Two.into(),
                        idle_ms: None,
                    };
                    sessions.issue(tx, new).await.map(|(token, _)| token)
                })
            })
            .await?;
        let principal = self.ctx.sessions.verify(tenant.id, &token).await?;
        Ok((principal, token))
    }
}

/// What a server stands on.
async fn ground(
    location: Location,
    clock: Clock,
    migrations: Vec<&'static [Migration]>,
    root: Root,
    config: Arc<Config>,
) -> Result<Ctx> {
    let vault = Vault::new(root.clone(), Ledger::at(config.data_dir.join("erasures.jsonl")));
    let db = Db::open(location, PageKeys::of_vault(&vault), clock.clone(), migrations)
        .await?
        .with_vault(vault.clone());
    vault.load(&db).await?;
    let bus = Bus::new(db.clone(), clock.clone());
    let tenants = Tenants::open(db.clone()).await?;
    Ok(Ctx {
        policy: Policy::new(db.clone(), bus.clone(), clock.clone(), tenants.clone()),
        sessions: Sessions::new(db.clone(), bus.clone(), clock.clone()).guarded(tenants.clone()),
        db,
        bus,
        clock,
        tenants,
        root,
        vault,
        config,
    })
}

/// Runs `body` on SQLite and, where `MEDTECH_TEST_PG` is set, on PostgreSQL too.
///
/// # Panics
/// When the body fails: this is a test.
#[expect(clippy::panic, reason = "a failed test panics")]
pub async fn on_both_engines(
    migrations: &[&'static [Migration]],
    body: impl for<'a> Fn(&'a World) -> BoxFuture<'a, Result<()>>,
) {
    let mut worlds = Vec::new();
    match World::sqlite(migrations).await {
        Ok(world) => worlds.push(world),
        Err(e) => panic!("SQLite: {e:?}"),
    }
    match World::postgres(migrations).await {
        Ok(world) => worlds.extend(world),
        Err(e) => panic!("PostgreSQL: {e:?}"),
    }
    for world in worlds {
        let engine = world.ctx.db.engine();
        if let Err(e) = body(&world).await {
            panic!(
                "{}: {e:?}",
                if engine == Engine::Sqlite {
                    "SQLite"
                } else {
                    "PostgreSQL"
                }
            );
        }
    }
}

/// Databases of their own on the server of `MEDTECH_TEST_PG`.
pub(crate) mod pg {
    use super::{Result, id};
    use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

    /// A new database with C collation, and in it an application role that is neither owner nor above row security.
    pub(crate) async fn fresh(server: &str) -> Result<(String, String)> {
        let failed = |e: sqlx::Error| crate::Error::internal("testkit.postgres", e);
        let name: String = id::random::<8>().iter().map(|b| format!("{b:02x}")).collect();
        let name = format!("t{name}");
        let mut admin = PgConnection::connect(server).await.map_err(failed)?;
        for text in [
            format!("CREATE DATABASE {name} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'"),
            format!("CREATE ROLE {name} LOGIN PASSWORD '{name}' NOSUPERUSER NOBYPASSRLS"),
        ] {
            admin.execute(AssertSqlSafe(text)).await.map_err(failed)?;
        }
        admin.close().await.map_err(failed)?;
        let (base, _) = server.rsplit_once('/').unwrap_or((server, ""));
        let host = base
            .rsplit_once('@')
            .map_or(base, |(_, host)| host)
            .trim_start_matches("postgres://");
        Ok((
            format!("postgres://{name}:{name}@{host}/{name}"),
            format!("{base}/{name}"),
        ))
    }
}
