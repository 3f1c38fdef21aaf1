//! For tests: temporary stores on both engines, a clock that stands still, a ready context.

use crate::{
    BoxFuture, Clock, Ctx, Db, Migration, Result, Tenant,
    auth::{Assurance, NewSession, Principal, Role, Sessions},
    bus::Bus,
    config::Config,
    db::{Engine, Location, PageKeys},
    id,
    policy::Policy,
    secret::Root,
    tenant::Tenants,
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
}

impl World {
    /// On SQLite, in a temporary directory.
    pub async fn sqlite(migrations: &[&'static [Migration]]) -> Result<Self> {
        let dir = tempfile::tempdir().map_err(|e| crate::Error::internal("testkit.dir", e))?;
        let location = Location::Sqlite(dir.path().join("db"));
        Self::build(dir, location, migrations).await
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
            owner_url: Some(owner_url),
        };
        Self::build(dir, location, migrations).await.map(Some)
    }

    async fn build(dir: tempfile::TempDir, location: Location, migrations: &[&'static [Migration]]) -> Result<Self> {
        let clock = Clock::manual(START);
        let mut all = vec![crate::MIGRATIONS];
        all.extend_from_slice(migrations);
        let root = Root::from_bytes([7; 32]);
        let db = Db::open(location, PageKeys::of(&root), clock.clone(), all).await?;
        let bus = Bus::new(db.clone(), clock.clone());
        let tenants = Tenants::open(db.clone()).await?;
        let north = tenants.create("north", "North Clinic", "Europe/Berlin", &[]).await?;
        let south = tenants.create("south", "South Clinic", "America/New_York", &[]).await?;
        let east = tenants.create("east", "East Clinic", "Asia/Kathmandu", &[]).await?;
        let config = Config {
            data_dir: dir.path().to_owned(),
            ..Config::default()
        };
        let ctx = Ctx {
            policy: Policy::new(db.clone(), clock.clone()),
            sessions: Sessions::new(db.clone(), bus.clone(), clock.clone()),
            db,
            bus,
            clock,
            tenants,
            root,
            config: Arc::new(config),
        };
        Ok(Self {
            ctx,
            north,
            south,
            east,
            dir,
        })
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

mod pg {
    use super::{Result, id};
    use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

    /// A new database with C collation, and in it an application role that is neither owner nor above row security.
    pub(super) async fn fresh(server: &str) -> Result<(String, String)> {
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
