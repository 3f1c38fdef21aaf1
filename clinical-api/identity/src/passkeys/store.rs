//! Every SQL text of passkeys and of ceremonies.

use super::ceremony::Registered;
use medtech_kernel::{
    Db, Error, Result, Row, TenantId, Tx, Val,
    clock::Millis,
    id,
    vault::{Cell, Field, Sheet},
};
use uuid::Uuid;

/// What somebody calls their device; by the passkey's id.
const NAME: Field = Field::new("identity_passkey", "name");
pub(crate) const SHEET: Sheet = Sheet {
    table: "identity_passkey",
    key: &["id"],
    cells: &[Cell::Sealed(NAME)],
};

const INSERT: &str = "INSERT INTO identity_passkey (tenant, id, user_id, credential, public_key, rp_id, sign_count,
    backup_eligible, backed_up, aaguid, transports, name, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING";
const OF_USER: &str =
    "SELECT id, user_id, credential, public_key, rp_id, sign_count, backup_eligible, backed_up, transports, name,
    created_at, used_at FROM identity_passkey WHERE tenant = $1 AND user_id = $2 ORDER BY created_at, id";
const BY_CREDENTIAL: &str =
    "SELECT id, user_id, credential, public_key, rp_id, sign_count, backup_eligible, backed_up, transports, name,
    created_at, used_at FROM identity_passkey WHERE tenant = $1 AND credential = $2";
const COUNT: &str = "SELECT COUNT(*) FROM identity_passkey WHERE tenant = $1 AND user_id = $2";
// The count only grows, also when two servers are asked at once; authenticators that do not count stay at nought.
const USED: &str = "UPDATE identity_passkey SET sign_count = $3, backed_up = $4, used_at = $5
    WHERE tenant = $1 AND id = $2 AND (sign_count < $3 OR (sign_count = 0 AND $3 = 0))";
const RENAME: &str = "UPDATE identity_passkey SET name = $4 WHERE tenant = $1 AND id = $2 AND user_id = $3";
const REMOVE: &str = "DELETE FROM identity_passkey WHERE tenant = $1 AND id = $2 AND user_id = $3";
const REMOVE_ALL: &str = "DELETE FROM identity_passkey WHERE tenant = $1 AND user_id = $2";

const BEGIN: &str =
    "INSERT INTO identity_ceremony (tenant, hash, kind, user_id, session, challenge, rp_id, origins, tries, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9)";
const OLD: &str = "DELETE FROM identity_ceremony WHERE tenant = $1 AND expires_at <= $2";
const BEGUN: &str = "SELECT COUNT(*) FROM identity_ceremony WHERE tenant = $1 AND kind = $2";
const TAKE: &str = "DELETE FROM identity_ceremony WHERE tenant = $1 AND hash = $2 AND kind = $3 AND expires_at > $4
    RETURNING user_id, session, challenge, rp_id, origins";
const TRY: &str = "UPDATE identity_ceremony SET tries = tries + 1
    WHERE tenant = $1 AND hash = $2 AND kind = $3 AND expires_at > $4 AND tries < $5 RETURNING user_id";

const OWNER: &str =
    "SELECT user_id FROM identity_ceremony WHERE tenant = $1 AND hash = $2 AND kind = $3 AND expires_at > $4";

/// Ceremonies of one kind that may be under way in a tenant: strangers can begin one, and each is a row.
const MOST: i64 = 10_000;

/// A stored passkey.
#[derive(Clone, Debug)]
pub(crate) struct Passkey {
    pub(crate) id: Uuid,
    pub(crate) user: Uuid,
    pub(crate) credential: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
    pub(crate) rp_id: String,
    pub(crate) sign_count: u32,
    pub(crate) backup_eligible: bool,
    pub(crate) backed_up: bool,
    pub(crate) transports: Vec<String>,
    pub(crate) name: String,
    pub(crate) created_at: Millis,
    pub(crate) used_at: Option<Millis>,
}

fn passkey(row: &Row) -> Result<Passkey> {
    Ok(Passkey {
        id: row.uuid(0)?,
        user: row.uuid(1)?,
        credential: row.blob(2)?.to_vec(),
        public_key: row.blob(3)?.to_vec(),
        rp_id: row.string(4)?,
        sign_count: u32::try_from(row.i64(5)?).map_err(|e| Error::internal("passkey.count", e))?,
        backup_eligible: row.bool(6)?,
        backed_up: row.bool(7)?,
        transports: row.text(8)?.split_whitespace().map(str::to_owned).collect(),
        name: NAME.open(row, 9, row.uuid(0)?)?,
        created_at: row.i64(10)?,
        used_at: row.opt_i64(11)?,
    })
}

/// `None` when the credential is registered already, to anyone.
pub(crate) async fn insert(
    tx: &mut Tx,
    user: Uuid,
    new: &Registered,
    rp_id: &str,
    transports: &str,
    name: &str,
) -> Result<Option<Uuid>> {
    let (passkey, now) = (id::uuid_v7(tx.now()), tx.now());
    let args: [Val; 12] = [
        passkey.into(),
        user.into(),
        new.credential.clone().into(),
        new.public_key.clone().into(),
        rp_id.into(),
        new.sign_count.into(),
        new.backup_eligible.into(),
        new.backed_up.into(),
        Uuid::from_bytes(new.aaguid).into(),
        transports.into(),
        NAME.seal(passkey, name),
        now.into(),
    ];
    Ok((tx.exec(INSERT, &args).await? == 1).then_some(passkey))
}

pub(crate) async fn of_user(db: &Db, tenant: TenantId, user: Uuid) -> Result<Vec<Passkey>> {
    db.query(tenant, OF_USER, &[user.into()])
        .await?
        .iter()
        .map(passkey)
        .collect()
}

pub(crate) async fn by_credential(db: &Db, tenant: TenantId, credential: &[u8]) -> Result<Option<Passkey>> {
    db.query_opt(tenant, BY_CREDENTIAL, &[credential.into()])
        .await?
        .as_ref()
        .map(passkey)
        .transpose()
}

pub(crate) async fn count(tx: &mut Tx, user: Uuid) -> Result<i64> {
    tx.query_one(COUNT, &[user.into()]).await?.i64(0)
}

/// `false`: the counter did not grow.
pub(crate) async fn used(tx: &mut Tx, passkey: Uuid, sign_count: u32, backed_up: bool) -> Result<bool> {
    let now = tx.now();
    let args = [passkey.into(), sign_count.into(), backed_up.into(), now.into()];
    Ok(tx.exec(USED, &args).await? == 1)
}

pub(crate) async fn rename(tx: &mut Tx, passkey: Uuid, user: Uuid, name: &str) -> Result<bool> {
    Ok(tx
        .exec(RENAME, &[passkey.into(), user.into(), NAME.seal(passkey, name)])
        .await?
        == 1)
}

pub(crate) async fn remove(tx: &mut Tx, passkey: Uuid, user: Uuid) -> Result<bool> {
    Ok(tx.exec(REMOVE, &[passkey.into(), user.into()]).await? == 1)
}

pub(crate) async fn remove_all(tx: &mut Tx, user: Uuid) -> Result<u64> {
    tx.exec(REMOVE_ALL, &[user.into()]).await
}

/// What a ceremony is for. One kind never finishes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Register,
    SignIn,
    /// The passkey as the second step after a password.
    Second,
    StepUp,
    /// Not a passkey's: the ticket between a password and its second step.
    Ticket,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::SignIn => "sign_in",
            Self::Second => "second",
            Self::StepUp => "step_up",
            Self::Ticket => "ticket",
        }
    }
}

/// What has begun.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ceremony {
    pub(crate) user: Option<Uuid>,
    pub(crate) session: Option<Uuid>,
    pub(crate) challenge: Vec<u8>,
    pub(crate) rp_id: String,
    pub(crate) origins: Vec<String>,
}

/// How long there is to finish.
pub(crate) const LIFE: Millis = 5 * 60_000;

/// Begins; the secret that finishes it is given once.
pub(crate) async fn begin(tx: &mut Tx, kind: Kind, c: &Ceremony) -> Result<String> {
    let (secret, now) = (id::token(), tx.now());
    tx.exec(OLD, &[now.into()]).await?;
    if tx.query_one(BEGUN, &[kind.name().into()]).await?.i64(0)? >= MOST {
        return Err(Error::unavailable(
            "identity.busy",
            "Many people are signing in. Please try again in a moment.",
        ));
    }
    let args: [Val; 8] = [
        id::sha256(secret.as_bytes()).into(),
        kind.name().into(),
        c.user.into(),
        c.session.into(),
        c.challenge.clone().into(),
        (&c.rp_id).into(),
        c.origins.join(" ").into(),
        (now + LIFE).into(),
    ];
    tx.exec(BEGIN, &args).await?;
    Ok(secret)
}

/// Takes a ceremony for good, whatever becomes of it.
pub(crate) async fn take(tx: &mut Tx, kind: Kind, secret: &str) -> Result<Option<Ceremony>> {
    let now = tx.now();
    let args = [id::sha256(secret.as_bytes()).into(), kind.name().into(), now.into()];
    let Some(row) = tx.query_opt(TAKE, &args).await? else {
        return Ok(None);
    };
    Ok(Some(Ceremony {
        user: row.opt_uuid(0)?,
        session: row.opt_uuid(1)?,
        challenge: row.blob(2)?.to_vec(),
        rp_id: row.string(3)?,
        origins: row.text(4)?.split_whitespace().map(str::to_owned).collect(),
    }))
}

/// Counts a try at a ticket that stands; whose it is.
pub(crate) async fn attempt(tx: &mut Tx, secret: &str, most: i64) -> Result<Option<Uuid>> {
    let now = tx.now();
    let args = [
        id::sha256(secret.as_bytes()).into(),
        Kind::Ticket.name().into(),
        now.into(),
        most.into(),
    ];
    match tx.query_opt(TRY, &args).await? {
        Some(row) => row.opt_uuid(0),
        None => Ok(None),
    }
}

/// Whose ticket it is, while it stands.
pub(crate) async fn owner(db: &Db, tenant: TenantId, secret: &str, now: Millis) -> Result<Option<Uuid>> {
    let args = [
        id::sha256(secret.as_bytes()).into(),
        Kind::Ticket.name().into(),
        now.into(),
    ];
    match db.query_opt(tenant, OWNER, &args).await? {
        Some(row) => row.opt_uuid(0),
        None => Ok(None),
    }
}
