//! Every SQL text of changes of an e-mail address.

use crate::store::{EMAIL, EMAIL_SHOWN};
use medtech_kernel::{
    Db, Error, Result, Row, TenantId, Tx,
    clock::Millis,
    vault::{Cell, Field, Sheet},
};
use uuid::Uuid;

/// By the change's id.
const NEW: Field = Field::new("identity_address", "email");
const OLD: Field = Field::new("identity_address", "old_email");
pub(crate) const SHEET: Sheet = Sheet {
    table: "identity_address",
    key: &["id"],
    cells: &[Cell::Sealed(NEW), Cell::Sealed(OLD)],
};

const INSERT: &str = "INSERT INTO identity_address
    (tenant, id, user_id, email, old_email, browser, asked_at, expires_at, undo_until)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const COLUMNS: &str =
    "SELECT a.id, a.user_id, a.email, a.old_email, a.browser, a.expires_at, a.confirmed_at, a.ended_at,
    a.undo_until FROM identity_address a";
// What was asked for before is asked for no more. What was confirmed can still be taken back.
const END_OPEN: &str = "UPDATE identity_address SET ended_at = $3
    WHERE tenant = $1 AND user_id = $2 AND confirmed_at IS NULL AND ended_at IS NULL";
const END_ALL: &str = "UPDATE identity_address SET ended_at = $3
    WHERE tenant = $1 AND user_id = $2 AND ended_at IS NULL";
const CONFIRM: &str = "UPDATE identity_address SET confirmed_at = $3
    WHERE tenant = $1 AND id = $2 AND confirmed_at IS NULL AND ended_at IS NULL AND expires_at > $3";
const USE_LINK: &str =
    "UPDATE identity_address_link SET used_at = $3 WHERE tenant = $1 AND hash = $2 AND used_at IS NULL";
const LINK: &str = "INSERT INTO identity_address_link (tenant, hash, address_id, undo) VALUES ($1, $2, $3, $4)";
const OLD_LINKS: &str = "DELETE FROM identity_address_link WHERE tenant = $1 AND address_id IN (
    SELECT id FROM identity_address WHERE tenant = $1 AND undo_until < $2)";
const OLD_CHANGES: &str = "DELETE FROM identity_address WHERE tenant = $1 AND undo_until < $2";
const MOVE: &str = "UPDATE identity_user SET email = $3, email_sealed = $4 WHERE tenant = $1 AND id = $2";

/// A change that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) id: Uuid,
    pub(super) user: Uuid,
    pub(super) new: String,
    pub(super) old: String,
    pub(super) browser: [u8; 32],
    pub(super) expires_at: Millis,
    pub(super) confirmed_at: Option<Millis>,
    pub(super) ended_at: Option<Millis>,
    pub(super) undo_until: Millis,
}

impl Change {
    pub(super) fn is_open(&self, now: Millis) -> bool {
        self.confirmed_at.is_none() && self.ended_at.is_none() && self.expires_at > now
    }
}

fn change(row: &Row) -> Result<Change> {
    let id = row.uuid(0)?;
    let browser = <[u8; 32]>::try_from(row.blob(4)?).map_err(|e| Error::internal("identity.address", e))?;
    Ok(Change {
        id,
        user: row.uuid(1)?,
        new: NEW.open(row, 2, id)?,
        old: OLD.open(row, 3, id)?,
        browser,
        expires_at: row.i64(5)?,
        confirmed_at: row.opt_i64(6)?,
        ended_at: row.opt_i64(7)?,
        undo_until: row.i64(8)?,
    })
}

pub(super) async fn insert(tx: &mut Tx, c: &Change) -> Result<()> {
    let now = tx.now();
    let long_ago = now - 30 * 86_400_000;
    tx.exec(OLD_LINKS, &[long_ago.into()]).await?;
    tx.exec(OLD_CHANGES, &[long_ago.into()]).await?;
    end_open(tx, c.user).await?;
    let args = [
        c.id.into(),
        c.user.into(),
        NEW.seal(c.id, &c.new),
        OLD.seal(c.id, &c.old),
        c.browser.into(),
        now.into(),
        c.expires_at.into(),
        c.undo_until.into(),
    ];
    tx.exec(INSERT, &args).await.map(drop)
}

/// Nothing that waits for its link becomes so any more.
pub(crate) async fn end_open(tx: &mut Tx, user: Uuid) -> Result<u64> {
    let now = tx.now();
    tx.exec(END_OPEN, &[user.into(), now.into()]).await
}

/// Nor is anything taken back.
pub(crate) async fn end_all(tx: &mut Tx, user: Uuid) -> Result<()> {
    let now = tx.now();
    tx.exec(END_ALL, &[user.into(), now.into()]).await.map(drop)
}

pub(super) async fn add_link(tx: &mut Tx, hash: [u8; 32], change: Uuid, undo: bool) -> Result<()> {
    let args = [hash.into(), change.into(), undo.into()];
    tx.exec(LINK, &args).await.map(drop)
}

pub(super) async fn by_id_in(tx: &mut Tx, id: Uuid) -> Result<Option<Change>> {
    let text = format!("{COLUMNS} WHERE a.tenant = $1 AND a.id = $2");
    let row = tx.query_opt(medtech_kernel::db::Sql::built(text), &[id.into()]).await?;
    row.as_ref().map(change).transpose()
}

/// The change a link is of.
pub(super) async fn by_link(db: &Db, tenant: TenantId, hash: [u8; 32], undo: bool) -> Result<Option<Change>> {
    let text = format!(
        "{COLUMNS} JOIN identity_address_link l ON l.tenant = a.tenant AND l.address_id = a.id
        WHERE a.tenant = $1 AND l.hash = $2 AND l.undo = $3"
    );
    let args = [hash.into(), undo.into()];
    let row = db
        .query_opt(tenant, medtech_kernel::db::Sql::built(text), &args)
        .await?;
    row.as_ref().map(change).transpose()
}

/// What waits for its link, of a person.
pub(super) async fn open_of(db: &Db, tenant: TenantId, user: Uuid, now: Millis) -> Result<Option<Change>> {
    let text = format!(
        "{COLUMNS} WHERE a.tenant = $1 AND a.user_id = $2 AND a.confirmed_at IS NULL AND a.ended_at IS NULL
        AND a.expires_at > $3 ORDER BY a.asked_at DESC LIMIT 1"
    );
    let args = [user.into(), now.into()];
    let row = db
        .query_opt(tenant, medtech_kernel::db::Sql::built(text), &args)
        .await?;
    row.as_ref().map(change).transpose()
}

/// `false` when somebody was faster, or its time is over.
pub(super) async fn confirm(tx: &mut Tx, id: Uuid) -> Result<bool> {
    let now = tx.now();
    Ok(tx.exec(CONFIRM, &[id.into(), now.into()]).await? == 1)
}

/// `false` when it was used before.
pub(super) async fn use_link(tx: &mut Tx, hash: [u8; 32]) -> Result<bool> {
    let now = tx.now();
    Ok(tx.exec(USE_LINK, &[hash.into(), now.into()]).await? == 1)
}

/// Another address for a user: what is compared, and what is shown. 409 when it is somebody else's.
pub(crate) async fn set_email(tx: &mut Tx, user: Uuid, email: &str) -> Result<()> {
    if crate::store::by_email_in(tx, email)
        .await?
        .is_some_and(|u| u.id != user)
    {
        return Err(taken());
    }
    let args = [user.into(), EMAIL.of(email), EMAIL_SHOWN.seal(user, email)];
    match tx.exec(MOVE, &args).await {
        // Two servers at the same moment: the second one finds it in the unique index.
        Err(e) if e.code == "db.constraint" => Err(taken()),
        other => other.map(drop),
    }
}

pub(crate) fn taken() -> Error {
    Error::conflict("identity.email_taken", "There is a user with this address already.")
}
