//! Every SQL text of identity.

use crate::cost::Cost;
use medtech_kernel::{
    Db, Error, Migration, Result, Row, TenantId, Tx, Val,
    auth::Role,
    clock::Millis,
    db::Script,
    vault::{Blind, Cell, Field, Sheet},
};
use uuid::Uuid;

pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        module: "identity",
        number: 1,
        sql: Script::Both(include_str!("../migrations/0001_init.sql")),
    },
    Migration {
        module: "identity",
        number: 2,
        sql: Script::Both(include_str!("../migrations/0002_credentials.sql")),
    },
    Migration {
        module: "identity",
        number: 3,
        sql: Script::Both(include_str!("../migrations/0003_oauth.sql")),
    },
    Migration {
        module: "identity",
        number: 4,
        sql: Script::Both(include_str!("../migrations/0004_sso.sql")),
    },
    Migration {
        module: "identity",
        number: 5,
        sql: Script::Both(include_str!("../migrations/0005_people.sql")),
    },
    Migration {
        module: "identity",
        number: 6,
        sql: Script::Both(include_str!("../migrations/0006_sealed.sql")),
    },
    Migration {
        module: "identity",
        number: 7,
        sql: Script::Both(include_str!("../migrations/0007_guesses.sql")),
    },
    Migration {
        module: "identity",
        number: 8,
        sql: Script::Both(include_str!("../migrations/0008_oauth_bound.sql")),
    },
    Migration {
        module: "identity",
        number: 9,
        sql: Script::Both(include_str!("../migrations/0009_sso_session.sql")),
    },
    Migration {
        module: "identity",
        number: 10,
        sql: Script::Both(include_str!("../migrations/0010_recovery.sql")),
    },
    Migration {
        module: "identity",
        number: 11,
        sql: Script::Both(include_str!("../migrations/0011_address.sql")),
    },
];

/// What names a person, or their devices.
pub const SHEETS: &[Sheet] = &[
    Sheet {
        table: "identity_user",
        key: &["id"],
        cells: &[Cell::Sealed(NAME), Cell::Blind(EMAIL, Some(EMAIL_SHOWN))],
    },
    crate::people::store::SHEET,
    crate::address::store::SHEET,
    crate::passkeys::store::SHEET,
    crate::sso::store::SHEET,
];

/// By the user's id.
pub(crate) const NAME: Field = Field::new("identity_user", "name");
pub(crate) const EMAIL: Blind = Blind::new("identity_user", "email");
pub(crate) const EMAIL_SHOWN: Field = Field::new("identity_user", "email_sealed");

/// Someone who can sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: Uuid,
    pub email: String,
    pub name: String,
    pub roles: Vec<Role>,
    pub active: bool,
    /// Logical id of the FHIR Practitioner this person is.
    pub practitioner: Option<String>,
    /// Logical id of the FHIR Patient this person is.
    pub patient: Option<String>,
}

impl User {
    /// As in `Principal::subject`.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("user:{}", self.id)
    }
}

const INSERT: &str =
    "INSERT INTO identity_user (tenant, id, email, name, roles, password, active, practitioner, patient, created_at,
    email_sealed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING";
const BY_ID: &str = "SELECT id, COALESCE(email_sealed, email), name, roles, active, practitioner, patient, password
    FROM identity_user WHERE tenant = $1 AND id = $2";
// Blinded, or as an older release wrote it.
const BY_EMAIL: &str = "SELECT id, COALESCE(email_sealed, email), name, roles, active, practitioner, patient, password
    FROM identity_user WHERE tenant = $1 AND (email = $2 OR email = $3)";
const LINK: &str =
    "INSERT INTO identity_link (tenant, hash, user_id, created_at, expires_at, uses_left, browser, birth_date, reset)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const USE_LINK: &str = "UPDATE identity_link SET uses_left = uses_left - 1
    WHERE tenant = $1 AND hash = $2 AND uses_left > 0 AND expires_at > $3 RETURNING user_id";
const FIND_LINK: &str = "SELECT user_id, expires_at, uses_left, browser, birth_date, reset FROM identity_link WHERE tenant = $1 AND hash = $2";
// The last wrong date of birth burns the link.
const TRY_LINK: &str = "UPDATE identity_link SET tries = tries + 1
    WHERE tenant = $1 AND hash = $2 AND tries < $3 AND uses_left > 0 AND expires_at > $4";
// What was right is no try.
const RIGHT_TRY: &str = "UPDATE identity_link SET tries = tries - 1 WHERE tenant = $1 AND hash = $2 AND tries > 0";
const BURN_LINKS: &str = "UPDATE identity_link SET uses_left = 0 WHERE tenant = $1 AND user_id = $2 AND uses_left > 0";
const OLD_LINKS: &str = "DELETE FROM identity_link WHERE tenant = $1 AND expires_at < $2";
const ATTEMPT: &str = "INSERT INTO identity_attempt (tenant, account, failures, until_at) VALUES ($1, $2, 1, $3)
    ON CONFLICT (tenant, account) DO UPDATE SET failures = identity_attempt.failures + 1 RETURNING failures, until_at";
const FORGET: &str = "DELETE FROM identity_attempt WHERE tenant = $1 AND account = $2";
const TAKE_BACK: &str =
    "UPDATE identity_attempt SET failures = failures - 1 WHERE tenant = $1 AND account = $2 AND failures > 0";
const KNOWN_BROWSER: &str =
    "SELECT seen_at FROM identity_browser WHERE tenant = $1 AND user_id = $2 AND browser = $3 AND seen_at > $4";
const KNOW_BROWSER: &str = "INSERT INTO identity_browser (tenant, user_id, browser, seen_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (tenant, user_id, browser) DO UPDATE SET seen_at = excluded.seen_at";
const BROWSERS: &str =
    "SELECT browser FROM identity_browser WHERE tenant = $1 AND user_id = $2 ORDER BY seen_at DESC, browser";
const DROP_BROWSER: &str = "DELETE FROM identity_browser WHERE tenant = $1 AND user_id = $2 AND browser = $3";
const DROP_BROWSERS: &str = "DELETE FROM identity_browser WHERE tenant = $1 AND user_id = $2";
const HASH_COST: &str = "SELECT memory, passes, took_ms FROM identity_hash_cost WHERE tenant = $1";
const SET_HASH_COST: &str =
    "INSERT INTO identity_hash_cost (tenant, memory, passes, took_ms, measured_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant) DO UPDATE SET memory = excluded.memory, passes = excluded.passes, took_ms = excluded.took_ms,
    measured_at = excluded.measured_at";
const OLD_ATTEMPTS: &str = "DELETE FROM identity_attempt WHERE tenant = $1 AND until_at <= $2";

pub(crate) fn user(row: &Row) -> Result<User> {
    let id = row.uuid(0)?;
    Ok(User {
        id,
        email: EMAIL_SHOWN.open(row, 1, id)?,
        name: NAME.open(row, 2, id)?,
        roles: row.text(3)?.split(' ').filter_map(Role::parse).collect(),
        active: row.bool(4)?,
        practitioner: row.opt_text(5)?.map(str::to_owned),
        patient: row.opt_text(6)?.map(str::to_owned),
    })
}

/// `false` when the address is taken.
pub(crate) async fn insert(tx: &mut Tx, u: &User, password: Option<&str>) -> Result<bool> {
    let roles: Vec<String> = u.roles.iter().map(ToString::to_string).collect();
    // A row of an older release has the address in a form that does not clash with ours.
    if by_email_in(tx, &u.email).await?.is_some() {
        return Ok(false);
    }
    let now = tx.now();
    let args: [Val; 10] = [
        u.id.into(),
        EMAIL.of(&u.email),
        NAME.seal(u.id, &u.name),
        roles.join(" ").into(),
        password.map(str::to_owned).into(),
        u.active.into(),
        u.practitioner.clone().into(),
        u.patient.clone().into(),
        now.into(),
        EMAIL_SHOWN.seal(u.id, &u.email),
    ];
    Ok(tx.exec(INSERT, &args).await? == 1)
}

pub(crate) async fn by_id(db: &Db, tenant: TenantId, id: Uuid) -> Result<Option<User>> {
    db.query_opt(tenant, BY_ID, &[id.into()])
        .await?
        .as_ref()
        .map(user)
        .transpose()
}

pub(crate) async fn by_id_in(tx: &mut Tx, id: Uuid) -> Result<Option<User>> {
    tx.query_opt(BY_ID, &[id.into()]).await?.as_ref().map(user).transpose()
}

/// The user of an address, and the stored hash.
pub(crate) async fn by_email(db: &Db, tenant: TenantId, email: &str) -> Result<Option<(User, Option<String>)>> {
    match db.query_opt(tenant, BY_EMAIL, &[EMAIL.of(email), email.into()]).await? {
        None => Ok(None),
        Some(row) => Ok(Some((user(&row)?, row.opt_text(7)?.map(str::to_owned)))),
    }
}

pub(crate) async fn by_email_in(tx: &mut Tx, email: &str) -> Result<Option<User>> {
    tx.query_opt(BY_EMAIL, &[EMAIL.of(email), email.into()])
        .await?
        .as_ref()
        .map(user)
        .transpose()
}

/// A link to be made.
pub(crate) struct NewLink {
    pub(crate) user: Uuid,
    pub(crate) expires_at: Millis,
    pub(crate) uses: i64,
    /// SHA-256 of the secret of the browser that asked.
    pub(crate) browser: Option<[u8; 32]>,
    /// It asks for the date of birth.
    pub(crate) birth_date: bool,
    /// It leads to a new password, and opens no session.
    pub(crate) reset: bool,
}

pub(crate) async fn insert_link(tx: &mut Tx, hash: [u8; 32], link: &NewLink) -> Result<()> {
    let now = tx.now();
    // What ended a month ago need not be told from what never was.
    tx.exec(OLD_LINKS, &[(now - 30 * 86_400_000).into()]).await?;
    let args: [Val; 8] = [
        hash.into(),
        link.user.into(),
        now.into(),
        link.expires_at.into(),
        link.uses.into(),
        link.browser.into(),
        link.birth_date.into(),
        link.reset.into(),
    ];
    tx.exec(LINK, &args).await.map(|_| ())
}

/// A stored link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) user: Uuid,
    expires_at: Millis,
    uses_left: i64,
    pub(crate) browser: Option<[u8; 32]>,
    pub(crate) birth_date: bool,
    pub(crate) reset: bool,
}

impl Link {
    /// Ok while it can be used.
    pub(crate) fn standing(&self, now: Millis) -> Result<()> {
        if self.expires_at <= now {
            return Err(Error::forbidden(
                "link.expired",
                "This sign-in link has expired. Please ask for a new one.",
            ));
        }
        if self.uses_left <= 0 {
            return Err(used_link());
        }
        Ok(())
    }
}

pub(crate) fn used_link() -> Error {
    Error::gone(
        "link.used",
        "This sign-in link has been used. Please ask for a new one.",
    )
}

fn unknown_link() -> Error {
    Error::forbidden(
        "link.unknown",
        "This sign-in link is not valid. Please ask for a new one.",
    )
}

fn read_link(row: &Row) -> Result<Link> {
    let browser = row.opt_blob(3)?.map(<[u8; 32]>::try_from).transpose();
    Ok(Link {
        user: row.uuid(0)?,
        expires_at: row.i64(1)?,
        uses_left: row.i64(2)?,
        browser: browser.map_err(|e| Error::internal("link.browser", e))?,
        birth_date: row.bool(4)?,
        reset: row.bool(5)?,
    })
}

pub(crate) async fn link(db: &Db, tenant: TenantId, hash: [u8; 32]) -> Result<Option<Link>> {
    let row = db.query_opt(tenant, FIND_LINK, &[hash.into()]).await?;
    row.as_ref().map(read_link).transpose()
}

/// Counts a try at what a link asks for; `false` when there were too many, or the link is over.
pub(crate) async fn try_link(tx: &mut Tx, hash: [u8; 32], most: i64) -> Result<bool> {
    let now = tx.now();
    Ok(tx.exec(TRY_LINK, &[hash.into(), most.into(), now.into()]).await? == 1)
}

/// A right try does not count.
pub(crate) async fn right_try(tx: &mut Tx, hash: [u8; 32]) -> Result<()> {
    tx.exec(RIGHT_TRY, &[hash.into()]).await.map(drop)
}

/// Nothing that was mailed to this person before opens anything any more; what takes a new address back does.
pub(crate) async fn burn_links(tx: &mut Tx, user: Uuid) -> Result<()> {
    crate::address::store::end_open(tx, user).await?;
    tx.exec(BURN_LINKS, &[user.into()]).await.map(drop)
}

/// Takes one use of a link, or says why there is none to take.
pub(crate) async fn use_link(tx: &mut Tx, hash: [u8; 32]) -> Result<Uuid> {
    let now = tx.now();
    if let Some(row) = tx.query_opt(USE_LINK, &[hash.into(), now.into()]).await? {
        return row.uuid(0);
    }
    let row = tx
        .query_opt(FIND_LINK, &[hash.into()])
        .await?
        .ok_or_else(unknown_link)?;
    read_link(&row)?.standing(now)?;
    Err(used_link())
}

/// Counts an attempt before it is made, so that many at once cannot slip past the limit: (how many, when they are forgotten).
pub(crate) async fn attempt(tx: &mut Tx, account: [u8; 32], window: Millis) -> Result<(i64, Millis)> {
    let now = tx.now();
    tx.exec(OLD_ATTEMPTS, &[now.into()]).await?;
    let row = tx.query_one(ATTEMPT, &[account.into(), (now + window).into()]).await?;
    Ok((row.i64(0)?, row.i64(1)?))
}

pub(crate) async fn forget_attempts(tx: &mut Tx, account: [u8; 32]) -> Result<()> {
    tx.exec(FORGET, &[account.into()]).await.map(|_| ())
}

/// A right one does not count.
pub(crate) async fn take_back_attempt(tx: &mut Tx, account: [u8; 32]) -> Result<()> {
    tx.exec(TAKE_BACK, &[account.into()]).await.map(|_| ())
}

/// A browser in which somebody has not signed in for so long is a stranger again.
const BROWSER_KEPT: Millis = 180 * 86_400_000;
/// Browsers of one person that are known; the one used longest ago goes.
const BROWSERS_MOST: usize = 10;

/// Has the owner of an account signed in in this browser? Asked alike for accounts that are not there.
pub(crate) async fn is_known_browser(
    db: &Db,
    tenant: TenantId,
    user: Option<Uuid>,
    browser: Option<[u8; 32]>,
    now: Millis,
) -> Result<bool> {
    let (user, browser) = (user.unwrap_or_default(), browser.unwrap_or_default());
    let args = [user.into(), browser.into(), (now - BROWSER_KEPT).into()];
    Ok(db.query_opt(tenant, KNOWN_BROWSER, &args).await?.is_some())
}

pub(crate) async fn know_browser(tx: &mut Tx, user: Uuid, browser: [u8; 32]) -> Result<()> {
    let now = tx.now();
    tx.exec(KNOW_BROWSER, &[user.into(), browser.into(), now.into()])
        .await?;
    for row in tx.query(BROWSERS, &[user.into()]).await?.iter().skip(BROWSERS_MOST) {
        let old = row.blob(0)?.to_vec();
        tx.exec(DROP_BROWSER, &[user.into(), old.into()]).await?;
    }
    Ok(())
}

pub(crate) async fn drop_browsers(tx: &mut Tx, user: Uuid) -> Result<()> {
    tx.exec(DROP_BROWSERS, &[user.into()]).await.map(|_| ())
}

/// What a password hash costs on this installation, and how many milliseconds it took when that was measured.
pub(crate) async fn hash_cost(db: &Db) -> Result<Option<(Cost, Millis)>> {
    let Some(row) = db.query_opt(TenantId::SYSTEM, HASH_COST, &[]).await? else {
        return Ok(None);
    };
    let parameter = |n: i64| u32::try_from(n).map_err(|e| Error::internal("identity.hash_cost", e));
    let cost = Cost {
        memory: parameter(row.i64(0)?)?,
        passes: parameter(row.i64(1)?)?,
    };
    Ok(Some((cost, row.i64(2)?)))
}

pub(crate) async fn set_hash_cost(tx: &mut Tx, cost: Cost, took_ms: Millis) -> Result<()> {
    let now = tx.now();
    let args = [
        i64::from(cost.memory).into(),
        i64::from(cost.passes).into(),
        took_ms.into(),
        now.into(),
    ];
    tx.exec(SET_HASH_COST, &args).await.map(|_| ())
}
