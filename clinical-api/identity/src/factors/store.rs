//! Every SQL text of one-time codes, recovery codes and the password itself.

use medtech_kernel::{Db, Result, TenantId, Tx, clock::Millis};
use uuid::Uuid;

const PENDING: &str = "INSERT INTO identity_totp (tenant, user_id, pending, last_step) VALUES ($1, $2, $3, -1)
    ON CONFLICT (tenant, user_id) DO UPDATE SET pending = excluded.pending";
const TOTP: &str = "SELECT secret, pending FROM identity_totp WHERE tenant = $1 AND user_id = $2";
// `$3` is the pending secret that was read: of two that confirm at once the one whose secret stands wins.
const CONFIRM: &str = "UPDATE identity_totp SET secret = pending, pending = NULL, last_step = $4, confirmed_at = $5
    WHERE tenant = $1 AND user_id = $2 AND pending = $3";
// Each step once: the row's lock decides between two servers.
const SPEND: &str = "UPDATE identity_totp SET last_step = $3
    WHERE tenant = $1 AND user_id = $2 AND last_step < $3 AND secret IS NOT NULL";
const REMOVE_TOTP: &str = "DELETE FROM identity_totp WHERE tenant = $1 AND user_id = $2 RETURNING confirmed_at";

const ADD_CODE: &str = "INSERT INTO identity_recovery (tenant, user_id, hash, created_at, salt) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
const SALTS: &str =
    "SELECT DISTINCT salt FROM identity_recovery WHERE tenant = $1 AND user_id = $2 AND used_at IS NULL";
const USE_CODE: &str = "UPDATE identity_recovery SET used_at = $4
    WHERE tenant = $1 AND user_id = $2 AND hash = $3 AND used_at IS NULL";
const REMOVE_CODES: &str = "DELETE FROM identity_recovery WHERE tenant = $1 AND user_id = $2";

const STANDING: &str = "SELECT
    (SELECT COUNT(*) FROM identity_user WHERE tenant = $1 AND id = $2 AND password IS NOT NULL),
    (SELECT COUNT(*) FROM identity_passkey WHERE tenant = $1 AND user_id = $2),
    (SELECT COUNT(*) FROM identity_totp WHERE tenant = $1 AND user_id = $2 AND secret IS NOT NULL),
    (SELECT COUNT(*) FROM identity_recovery WHERE tenant = $1 AND user_id = $2 AND used_at IS NULL)";

const SET_PASSWORD: &str = "UPDATE identity_user SET password = $3 WHERE tenant = $1 AND id = $2";

// Unless it was changed meanwhile.
const RENEW_PASSWORD: &str = "UPDATE identity_user SET password = $4 WHERE tenant = $1 AND id = $2 AND password = $3";

/// What a person can prove themselves with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) password: bool,
    pub(crate) passkeys: i64,
    pub(crate) totp: bool,
    /// Recovery codes that are left.
    pub(crate) recovery: i64,
}

impl Standing {
    /// A password alone does not sign in any more.
    pub(crate) fn second(self) -> bool {
        self.totp || self.passkeys > 0
    }
}

pub(crate) async fn standing(db: &Db, tenant: TenantId, user: Uuid) -> Result<Standing> {
    read(&db.query_one(tenant, STANDING, &[user.into()]).await?)
}

pub(crate) async fn standing_in(tx: &mut Tx, user: Uuid) -> Result<Standing> {
    read(&tx.query_one(STANDING, &[user.into()]).await?)
}

fn read(row: &medtech_kernel::Row) -> Result<Standing> {
    Ok(Standing {
        password: row.i64(0)? > 0,
        passkeys: row.i64(1)?,
        totp: row.i64(2)? > 0,
        recovery: row.i64(3)?,
    })
}

pub(crate) async fn put_pending(tx: &mut Tx, user: Uuid, sealed: Vec<u8>) -> Result<()> {
    tx.exec(PENDING, &[user.into(), sealed.into()]).await.map(drop)
}

/// The sealed secrets: (the one in use, the one that waits for its first code).
pub(crate) type Sealed = (Option<Vec<u8>>, Option<Vec<u8>>);

pub(crate) async fn totp(tx: &mut Tx, user: Uuid) -> Result<Sealed> {
    match tx.query_opt(TOTP, &[user.into()]).await? {
        None => Ok((None, None)),
        Some(row) => Ok((
            row.opt_blob(0)?.map(<[u8]>::to_vec),
            row.opt_blob(1)?.map(<[u8]>::to_vec),
        )),
    }
}

pub(crate) async fn confirm(tx: &mut Tx, user: Uuid, pending: Vec<u8>, step: i64) -> Result<bool> {
    let now: Millis = tx.now();
    let args = [user.into(), pending.into(), step.into(), now.into()];
    Ok(tx.exec(CONFIRM, &args).await? == 1)
}

/// `false`: this step, or a later one, was used before.
pub(crate) async fn spend(tx: &mut Tx, user: Uuid, step: i64) -> Result<bool> {
    Ok(tx.exec(SPEND, &[user.into(), step.into()]).await? == 1)
}

/// Whether there was one in use.
pub(crate) async fn remove_totp(tx: &mut Tx, user: Uuid) -> Result<bool> {
    let row = tx.query_opt(REMOVE_TOTP, &[user.into()]).await?;
    Ok(match row {
        Some(row) => row.opt_i64(0)?.is_some(),
        None => false,
    })
}

/// Replaces all codes of a person.
pub(crate) async fn put_codes(tx: &mut Tx, user: Uuid, salt: [u8; 16], hashes: &[[u8; 32]]) -> Result<()> {
    remove_codes(tx, user).await?;
    let now = tx.now();
    for hash in hashes {
        let args = [user.into(), (*hash).into(), now.into(), salt.to_vec().into()];
        tx.exec(ADD_CODE, &args).await?;
    }
    Ok(())
}

/// The salts of somebody's codes that are left: one, or none; `None` for codes of before.
pub(crate) async fn code_salts(db: &Db, tenant: TenantId, user: Uuid) -> Result<Vec<Option<[u8; 16]>>> {
    let rows = db.query(tenant, SALTS, &[user.into()]).await?;
    let salt = |row: &medtech_kernel::Row| {
        let salt = row.opt_blob(0)?.map(<[u8; 16]>::try_from).transpose();
        salt.map_err(|e| medtech_kernel::Error::internal("identity.recovery_salt", e))
    };
    rows.iter().map(salt).collect()
}

pub(crate) async fn use_code(tx: &mut Tx, user: Uuid, hash: [u8; 32]) -> Result<bool> {
    let now = tx.now();
    Ok(tx.exec(USE_CODE, &[user.into(), hash.into(), now.into()]).await? == 1)
}

pub(crate) async fn remove_codes(tx: &mut Tx, user: Uuid) -> Result<()> {
    tx.exec(REMOVE_CODES, &[user.into()]).await.map(drop)
}

pub(crate) async fn set_password(tx: &mut Tx, user: Uuid, hash: &str) -> Result<()> {
    tx.exec(SET_PASSWORD, &[user.into(), hash.into()]).await.map(drop)
}

/// The same password under a new hash.
pub(crate) async fn renew_password(tx: &mut Tx, user: Uuid, old: &str, hash: &str) -> Result<()> {
    tx.exec(RENEW_PASSWORD, &[user.into(), old.into(), hash.into()])
        .await
        .map(drop)
}
