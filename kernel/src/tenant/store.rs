//! The tables of the register, which stand in the system tenant's own file: every statement, and nothing else.

use super::{DELETED, NewTenant, Status, Tenant, TenantId, Version};
use crate::{
    Db, Error, Result, Tx, Val,
    audit::{self, Entry},
    clock::Millis,
};
use std::sync::Arc;

const ALL: &str = "SELECT id, slug, name, zone, status, settings, settings_version, quotas, delete_at FROM tenant
    WHERE tenant = $1 AND status <> $2 ORDER BY id";
const DOMAINS: &str = "SELECT host, owner FROM tenant_domain WHERE tenant = $1";
const NEXT: &str = "SELECT COALESCE(MAX(id), 0) + 1 FROM tenant WHERE tenant = $1";
const CREATE: &str = "INSERT INTO tenant (tenant, id, slug, name, zone, created_at) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT DO NOTHING";
const DESCRIBE: &str = "UPDATE tenant SET name = $3, zone = $4 WHERE tenant = $1 AND id = $2 AND status <> $5";
const STATE: &str = "UPDATE tenant SET status = $3, delete_at = $4 WHERE tenant = $1 AND id = $2 AND status <> $5";
const QUOTAS: &str = "UPDATE tenant SET quotas = $3 WHERE tenant = $1 AND id = $2 AND status <> $4";
const SETTINGS: &str = "UPDATE tenant SET settings = $3, settings_version = $4
    WHERE tenant = $1 AND id = $2 AND status <> $5";
const NEWEST: &str = "SELECT settings_version FROM tenant WHERE tenant = $1 AND id = $2 AND status <> $3";
const KEEP_SETTINGS: &str = "INSERT INTO tenant_settings (tenant, owner, version, settings, actor, at)
    VALUES ($1, $2, $3, $4, $5, $6)";
const VERSIONS: &str = "SELECT version, settings, actor, at FROM tenant_settings
    WHERE tenant = $1 AND owner = $2 ORDER BY version DESC";
const ADD_DOMAIN: &str = "INSERT INTO tenant_domain (tenant, host, owner) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const REMOVE_DOMAIN: &str = "DELETE FROM tenant_domain WHERE tenant = $1 AND owner = $2 AND host = $3";
const REMOVE_DOMAINS: &str = "DELETE FROM tenant_domain WHERE tenant = $1 AND owner = $2";
const REMOVE_VERSIONS: &str = "DELETE FROM tenant_settings WHERE tenant = $1 AND owner = $2";
// No valid short name begins with a hyphen, so the old one is free again and this one never in the way.
const BURY: &str =
    "UPDATE tenant SET status = $3, slug = $4, name = '', settings = '{}', quotas = '{}', delete_at = NULL
    WHERE tenant = $1 AND id = $2 AND status <> $3";
const CHANGES: &str = "SELECT changes FROM tenant_register WHERE tenant = $1";
const COUNT: &str = "INSERT INTO tenant_register (tenant, changes) VALUES ($1, 1)
    ON CONFLICT (tenant) DO UPDATE SET changes = tenant_register.changes + 1";
const SPEND: &str = "INSERT INTO tenant_spent (tenant, what, day, n) VALUES ($1, $2, $3, 1)
    ON CONFLICT (tenant, what, day) DO UPDATE SET n = tenant_spent.n + 1 RETURNING n";
const OLD_DAYS: &str = "DELETE FROM tenant_spent WHERE tenant = $1 AND what = $2 AND day < $3";

fn unknown() -> Error {
    Error::not_found("tenant.unknown", "There is no such clinic.")
}

pub(super) async fn all(db: &Db) -> Result<Vec<Tenant>> {
    let rows = db.query(TenantId::SYSTEM, ALL, &[DELETED.into()]).await?;
    let json = |e: serde_json::Error| Error::internal("tenant.settings", e);
    rows.iter()
        .map(|row| {
            Ok(Tenant {
                id: TenantId::from_number(row.i64(0)?),
                slug: row.text(1)?.into(),
                name: row.text(2)?.into(),
                zone: row.text(3)?.into(),
                status: Status::parse(row.text(4)?)?,
                settings: Arc::new(serde_json::from_str(row.text(5)?).map_err(json)?),
                settings_version: row.i64(6)?,
                quotas: serde_json::from_str(row.text(7)?).map_err(json)?,
                delete_at: row.opt_i64(8)?,
            })
        })
        .collect()
}

pub(super) async fn domains(db: &Db) -> Result<Vec<(String, TenantId)>> {
    let rows = db.query(TenantId::SYSTEM, DOMAINS, &[]).await?;
    rows.iter()
        .map(|row| Ok((row.string(0)?, TenantId::from_number(row.i64(1)?))))
        .collect()
}

pub(super) async fn changes(db: &Db) -> Result<i64> {
    match db.query_opt(TenantId::SYSTEM, CHANGES, &[]).await? {
        Some(row) => row.i64(0),
        None => Ok(0),
    }
}

pub(super) async fn count(tx: &mut Tx) -> Result<()> {
    tx.exec(COUNT, &[]).await.map(drop)
}

pub(super) async fn create(tx: &mut Tx, new: &NewTenant, actor: &str) -> Result<TenantId> {
    let (number, now) = (tx.query_one(NEXT, &[]).await?.i64(0)?, tx.now());
    let args = [
        number.into(),
        (&new.slug).into(),
        new.name.trim().into(),
        (&new.zone).into(),
        now.into(),
    ];
    if tx.exec(CREATE, &args).await? == 0 {
        return Err(Error::conflict(
            "tenants.slug_taken",
            "There is a clinic with this short name already.",
        ));
    }
    let id = TenantId::from_number(number);
    noted(tx, id, "create", actor, "tenant").await?;
    for host in &new.domains {
        add_domain(tx, id, host, actor).await?;
    }
    if let Ok(vault) = tx.vault().cloned() {
        vault.provide(tx, id).await?;
    }
    Ok(id)
}

pub(super) async fn describe(tx: &mut Tx, id: TenantId, name: &str, zone: &str, actor: &str) -> Result<()> {
    let args = [id.number().into(), name.into(), zone.into(), DELETED.into()];
    found(tx.exec(DESCRIBE, &args).await?)?;
    noted(tx, id, "update", actor, "name and zone").await
}

pub(super) async fn put_state(
    tx: &mut Tx,
    id: TenantId,
    status: Status,
    delete_at: Option<Millis>,
    actor: &str,
) -> Result<()> {
    let args = [
        id.number().into(),
        status.name().into(),
        delete_at.into(),
        DELETED.into(),
    ];
    found(tx.exec(STATE, &args).await?)?;
    noted(tx, id, "update", actor, status.name()).await
}

pub(super) async fn put_quotas(tx: &mut Tx, id: TenantId, quotas: &str, actor: &str) -> Result<()> {
    let args = [id.number().into(), quotas.into(), DELETED.into()];
    found(tx.exec(QUOTAS, &args).await?)?;
    noted(tx, id, "update", actor, &format!("quotas {quotas}")).await
}

pub(super) async fn put_settings(
    tx: &mut Tx,
    id: TenantId,
    settings: &str,
    actor: &str,
    expected: Option<i64>,
) -> Result<i64> {
    let row = tx.query_opt(NEWEST, &[id.number().into(), DELETED.into()]).await?;
    let stands = row.ok_or_else(unknown)?.i64(0)?;
    if expected.is_some_and(|e| e != stands) {
        return Err(Error::precondition(
            "tenant.settings_changed",
            "Someone has changed the settings meanwhile. Look at them again.",
        ));
    }
    let (next, now) = (stands + 1, tx.now());
    let args = [id.number().into(), settings.into(), next.into(), DELETED.into()];
    found(tx.exec(SETTINGS, &args).await?)?;
    let args = [
        id.number().into(),
        next.into(),
        settings.into(),
        actor.into(),
        now.into(),
    ];
    tx.exec(KEEP_SETTINGS, &args).await?;
    noted(tx, id, "update", actor, &format!("settings, version {next}")).await?;
    Ok(next)
}

pub(super) async fn versions(db: &Db, id: TenantId) -> Result<Vec<Version>> {
    let rows = db.query(TenantId::SYSTEM, VERSIONS, &[id.number().into()]).await?;
    rows.iter()
        .map(|row| {
            Ok(Version {
                version: row.i64(0)?,
                settings: serde_json::from_str(row.text(1)?).map_err(|e| Error::internal("tenant.settings", e))?,
                actor: row.string(2)?,
                at: row.i64(3)?,
            })
        })
        .collect()
}

pub(super) async fn add_domain(tx: &mut Tx, id: TenantId, host: &str, actor: &str) -> Result<()> {
    if tx.exec(ADD_DOMAIN, &[host.into(), Val::from(id.number())]).await? == 0 {
        return Err(Error::conflict(
            "tenant.domain_taken",
            "This host name belongs to a clinic already.",
        ));
    }
    noted(tx, id, "update", actor, &format!("domain {host} added")).await
}

pub(super) async fn remove_domain(tx: &mut Tx, id: TenantId, host: &str, actor: &str) -> Result<()> {
    if tx.exec(REMOVE_DOMAIN, &[id.number().into(), host.into()]).await? == 0 {
        return Err(Error::not_found(
            "tenant.domain_unknown",
            "The clinic has no such host name.",
        ));
    }
    noted(tx, id, "update", actor, &format!("domain {host} removed")).await
}

pub(super) async fn bury(tx: &mut Tx, id: TenantId, certificate: &str, actor: &str) -> Result<()> {
    let slug = format!("-{id}");
    found(
        tx.exec(BURY, &[id.number().into(), DELETED.into(), slug.into()])
            .await?,
    )?;
    tx.exec(REMOVE_DOMAINS, &[id.number().into()]).await?;
    tx.exec(REMOVE_VERSIONS, &[id.number().into()]).await?;
    noted(tx, id, "delete", actor, certificate).await
}

/// One more of something today; answers how many that makes.
pub(super) async fn spend(tx: &mut Tx, what: &'static str, day: &str) -> Result<i64> {
    let n = tx.query_one(SPEND, &[what.into(), day.into()]).await?.i64(0)?;
    if n == 1 {
        tx.exec(OLD_DAYS, &[what.into(), day.into()]).await?;
    }
    Ok(n)
}

fn found(changed: u64) -> Result<()> {
    if changed == 0 { Err(unknown()) } else { Ok(()) }
}

async fn noted(tx: &mut Tx, id: TenantId, action: &'static str, actor: &str, detail: &str) -> Result<()> {
    let target = format!("tenant:{id}");
    let entry = Entry {
        actor,
        action,
        target: &target,
        outcome: "success",
        detail,
    };
    audit::write(tx, entry).await
}
