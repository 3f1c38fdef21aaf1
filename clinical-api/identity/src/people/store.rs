//! Every SQL text of people.

use super::Standing;
use crate::{
    User,
    store::{EMAIL_SHOWN, NAME, user},
};
use medtech_kernel::{
    Db, Result, Row, TenantId, Tx, Val,
    auth::Role,
    clock::Millis,
    vault::{Cell, Field, Sheet},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// By the user's id.
const PHONE: Field = Field::new("identity_profile", "phone");
const PRONOUNS: Field = Field::new("identity_profile", "pronouns");
pub(crate) const SHEET: Sheet = Sheet {
    table: "identity_profile",
    key: &["user_id"],
    cells: &[Cell::Sealed(PHONE), Cell::Sealed(PRONOUNS)],
};

/// Names and addresses can be sealed, so the list is searched and ordered here: so many rows at a time.
const AT_ONCE: i64 = 1000;
const PAGE: &str =
    "SELECT u.id, COALESCE(u.email_sealed, u.email), u.name, u.roles, u.active, u.practitioner, u.patient, u.password,
    u.created_at, i.sent_at, i.expires_at, i.accepted_at FROM identity_user u
    LEFT JOIN identity_invitation i ON i.tenant = u.tenant AND i.user_id = u.id
    WHERE u.tenant = $1 AND u.id > $2 AND ($3 = '' OR ' ' || u.roles || ' ' LIKE $3) ORDER BY u.id LIMIT $4";
const ONE: &str =
    "SELECT u.id, COALESCE(u.email_sealed, u.email), u.name, u.roles, u.active, u.practitioner, u.patient, u.password,
    u.created_at, i.sent_at, i.expires_at, i.accepted_at FROM identity_user u
    LEFT JOIN identity_invitation i ON i.tenant = u.tenant AND i.user_id = u.id WHERE u.tenant = $1 AND u.id = $2";
const COUNT: &str = "SELECT COUNT(*) FROM identity_user WHERE tenant = $1 AND active";
const UPDATE: &str = "UPDATE identity_user SET name = $3, roles = $4, practitioner = $5, patient = $6
    WHERE tenant = $1 AND id = $2";
const ACTIVE: &str = "UPDATE identity_user SET active = $3 WHERE tenant = $1 AND id = $2";
const PASSWORD: &str = "UPDATE identity_user SET password = $3 WHERE tenant = $1 AND id = $2";
const DROP_LINKS: &str = "DELETE FROM identity_link WHERE tenant = $1 AND user_id = $2";
// Somebody who was asked in and has not come cannot look after the clinic yet.
const OTHER_ADMINS: &str = "SELECT COUNT(*) FROM identity_user u
    LEFT JOIN identity_invitation i ON i.tenant = u.tenant AND i.user_id = u.id
    WHERE u.tenant = $1 AND u.id <> $2 AND u.active AND ' ' || u.roles || ' ' LIKE '% admin %'
    AND (i.user_id IS NULL OR i.accepted_at IS NOT NULL)";
const WITH_ROLE: &str = "SELECT COUNT(*) FROM identity_user WHERE tenant = $1 AND ' ' || roles || ' ' LIKE $2";
const INVITE: &str = "INSERT INTO identity_invitation (tenant, user_id, sent_at, sent_by, sends, expires_at)
    VALUES ($1, $2, $3, $4, 1, $5) ON CONFLICT (tenant, user_id) DO UPDATE SET sent_at = excluded.sent_at,
    sent_by = excluded.sent_by, sends = identity_invitation.sends + 1, expires_at = excluded.expires_at,
    withdrawn_at = NULL";
const ACCEPT: &str = "UPDATE identity_invitation SET accepted_at = $3
    WHERE tenant = $1 AND user_id = $2 AND accepted_at IS NULL AND withdrawn_at IS NULL";
const WITHDRAW: &str = "UPDATE identity_invitation SET withdrawn_at = $3
    WHERE tenant = $1 AND user_id = $2 AND accepted_at IS NULL";
const OPEN: &str = "SELECT 1 FROM identity_invitation WHERE tenant = $1 AND user_id = $2 AND accepted_at IS NULL AND withdrawn_at IS NULL";
const PROFILE: &str =
    "SELECT language, zone, phone, pronouns, preferences FROM identity_profile WHERE tenant = $1 AND user_id = $2";
const PUT_PROFILE: &str =
    "INSERT INTO identity_profile (tenant, user_id, language, zone, phone, pronouns, preferences, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (tenant, user_id) DO UPDATE SET language = excluded.language,
    zone = excluded.zone, phone = excluded.phone, pronouns = excluded.pronouns, preferences = excluded.preferences,
    updated_at = excluded.updated_at";
const ALL: &str = "SELECT id, COALESCE(email_sealed, email), name, roles, active, practitioner, patient, created_at FROM identity_user
    WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3";

/// A person as administrators see them.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) user: User,
    pub(crate) created_at: Millis,
    pub(crate) sent_at: Option<Millis>,
    pub(crate) expires_at: Option<Millis>,
    pub(crate) standing: Standing,
}

fn person(row: &Row, now: Millis) -> Result<Person> {
    let user = user(row)?;
    let (sent_at, expires_at, accepted) = (row.opt_i64(9)?, row.opt_i64(10)?, row.opt_i64(11)?);
    let standing = match expires_at {
        _ if !user.active => Standing::Locked,
        Some(_) if accepted.is_some() => Standing::Active,
        Some(until) if until <= now => Standing::Expired,
        Some(_) => Standing::Invited,
        None => Standing::Active,
    };
    Ok(Person {
        user,
        created_at: row.i64(8)?,
        sent_at,
        expires_at: expires_at.filter(|_| accepted.is_none()),
        standing,
    })
}

/// What is asked of the list.
pub(crate) struct Ask<'a> {
    pub(crate) search: &'a str,
    pub(crate) role: &'a str,
    pub(crate) after: Option<Uuid>,
    pub(crate) limit: i64,
}

pub(crate) async fn page(db: &Db, tenant: TenantId, ask: &Ask<'_>, now: Millis) -> Result<Vec<Person>> {
    let role = match ask.role {
        "" => String::new(),
        role => format!("% {role} %"),
    };
    let after = match ask.after {
        // Somebody who is gone meanwhile: nobody comes after them.
        Some(id) => match one(db, tenant, id, now).await? {
            Some(last) => Some((last.user.name.to_lowercase(), id)),
            None => return Ok(Vec::new()),
        },
        None => None,
    };
    let (search, limit) = (ask.search.to_lowercase(), usize::try_from(ask.limit).unwrap_or(0));
    let (mut found, mut from) = (BTreeMap::new(), Uuid::nil());
    loop {
        let args: [Val; 3] = [from.into(), (&role).into(), AT_ONCE.into()];
        let rows = db.query(tenant, PAGE, &args).await?;
        for row in &rows {
            let person = person(row, now)?;
            from = person.user.id;
            let name = person.user.name.to_lowercase();
            if !(name.contains(&search) || person.user.email.contains(&search)) {
                continue;
            }
            let place = (name, from);
            if after.as_ref().is_none_or(|after| place > *after) {
                found.insert(place, person);
            }
            if found.len() > limit {
                found.pop_last();
            }
        }
        if rows.len() < usize::try_from(AT_ONCE).unwrap_or(usize::MAX) {
            return Ok(found.into_values().collect());
        }
    }
}

pub(crate) async fn one(db: &Db, tenant: TenantId, id: Uuid, now: Millis) -> Result<Option<Person>> {
    let row = db.query_opt(tenant, ONE, &[id.into()]).await?;
    row.as_ref().map(|row| person(row, now)).transpose()
}

pub(crate) async fn one_in(tx: &mut Tx, id: Uuid) -> Result<Option<Person>> {
    let now = tx.now();
    let row = tx.query_opt(ONE, &[id.into()]).await?;
    row.as_ref().map(|row| person(row, now)).transpose()
}

/// How many people can sign in.
pub(crate) async fn count_in(tx: &mut Tx) -> Result<i64> {
    tx.query_one(COUNT, &[]).await?.i64(0)
}

pub(crate) async fn count(db: &Db, tenant: TenantId) -> Result<i64> {
    db.query_one(tenant, COUNT, &[]).await?.i64(0)
}

pub(crate) async fn update(tx: &mut Tx, u: &User) -> Result<()> {
    let args = [
        u.id.into(),
        NAME.seal(u.id, &u.name),
        super::words(&u.roles).into(),
        u.practitioner.clone().into(),
        u.patient.clone().into(),
    ];
    tx.exec(UPDATE, &args).await.map(drop)
}

pub(crate) async fn set_active(tx: &mut Tx, id: Uuid, active: bool) -> Result<()> {
    tx.exec(ACTIVE, &[id.into(), active.into()]).await.map(drop)
}

pub(crate) async fn set_password(tx: &mut Tx, id: Uuid, phc: Option<String>) -> Result<()> {
    tx.exec(PASSWORD, &[id.into(), phc.into()]).await.map(drop)
}

/// Links that were sent and not used open nothing any more.
pub(crate) async fn drop_links(tx: &mut Tx, id: Uuid) -> Result<()> {
    crate::address::store::end_open(tx, id).await?;
    tx.exec(DROP_LINKS, &[id.into()]).await.map(drop)
}

pub(crate) async fn has_other_admins(tx: &mut Tx, id: Uuid) -> Result<bool> {
    Ok(tx.query_one(OTHER_ADMINS, &[id.into()]).await?.i64(0)? > 0)
}

/// How many people have a role, locked ones too.
pub(crate) async fn with_role(db: &Db, tenant: TenantId, role: Role) -> Result<i64> {
    db.query_one(tenant, WITH_ROLE, &[format!("% {role} %").into()])
        .await?
        .i64(0)
}

pub(crate) async fn with_role_in(tx: &mut Tx, role: Role) -> Result<i64> {
    tx.query_one(WITH_ROLE, &[format!("% {role} %").into()]).await?.i64(0)
}

pub(crate) async fn invite(tx: &mut Tx, id: Uuid, by: &str, expires_at: Millis) -> Result<()> {
    let now = tx.now();
    let args = [id.into(), now.into(), by.into(), expires_at.into()];
    tx.exec(INVITE, &args).await.map(drop)
}

/// `false` when there was no open one.
pub(crate) async fn accept(tx: &mut Tx, id: Uuid) -> Result<bool> {
    let now = tx.now();
    Ok(tx.exec(ACCEPT, &[id.into(), now.into()]).await? == 1)
}

/// `false` when there was none to withdraw.
pub(crate) async fn withdraw(tx: &mut Tx, id: Uuid) -> Result<bool> {
    let now = tx.now();
    Ok(tx.exec(WITHDRAW, &[id.into(), now.into()]).await? == 1)
}

pub(crate) async fn has_open_invitation(db: &Db, tenant: TenantId, id: Uuid) -> Result<bool> {
    Ok(db.query_opt(tenant, OPEN, &[id.into()]).await?.is_some())
}

/// What a person has chosen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    pub(crate) language: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) phone: Option<String>,
    pub(crate) pronouns: Option<String>,
    /// A JSON object.
    pub(crate) preferences: Option<String>,
}

fn profile_of(id: Uuid, row: Option<Row>) -> Result<Profile> {
    let Some(row) = row else { return Ok(Profile::default()) };
    let text = |i| row.opt_text(i).map(|t| t.map(str::to_owned));
    Ok(Profile {
        language: text(0)?,
        zone: text(1)?,
        phone: PHONE.open_opt(&row, 2, id)?,
        pronouns: PRONOUNS.open_opt(&row, 3, id)?,
        preferences: text(4)?,
    })
}

pub(crate) async fn profile(db: &Db, tenant: TenantId, id: Uuid) -> Result<Profile> {
    profile_of(id, db.query_opt(tenant, PROFILE, &[id.into()]).await?)
}

pub(crate) async fn profile_in(tx: &mut Tx, id: Uuid) -> Result<Profile> {
    profile_of(id, tx.query_opt(PROFILE, &[id.into()]).await?)
}

pub(crate) async fn put_profile(tx: &mut Tx, id: Uuid, p: &Profile) -> Result<()> {
    let now = tx.now();
    let args = [
        id.into(),
        p.language.clone().into(),
        p.zone.clone().into(),
        PHONE.seal_opt(id, p.phone.as_deref()),
        PRONOUNS.seal_opt(id, p.pronouns.as_deref()),
        p.preferences.clone().unwrap_or_else(|| "{}".to_owned()).into(),
        now.into(),
    ];
    tx.exec(PUT_PROFILE, &args).await.map(drop)
}

/// Users by number, for an export: with when they came, without what proves them.
pub(crate) async fn all(db: &Db, tenant: TenantId, after: Uuid, limit: i64) -> Result<Vec<(User, Millis)>> {
    let rows = db.query(tenant, ALL, &[after.into(), limit.into()]).await?;
    rows.iter().map(|row| Ok((user(row)?, row.i64(7)?))).collect()
}

const ADD_PROXY: &str = "INSERT INTO identity_proxy
    (tenant, id, patient, user_id, relationship, scope, until_at, of_age_at, granted_by, granted_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const PROXY_COLUMNS: &str = "SELECT p.id, p.patient, p.user_id, p.relationship, p.scope, p.until_at, p.of_age_at,
    p.granted_by, p.granted_at, p.accepted_at, p.ended_at, p.ended_by, p.related_person, u.name, COALESCE(u.email_sealed, u.email)
    FROM identity_proxy p JOIN identity_user u ON u.tenant = p.tenant AND u.id = p.user_id WHERE p.tenant = $1";
const END_PROXY: &str = "UPDATE identity_proxy SET ended_at = $3, ended_by = $4
    WHERE tenant = $1 AND id = $2 AND ended_at IS NULL";
const ACCEPT_PROXY: &str = "UPDATE identity_proxy SET accepted_at = $3, related_person = $4
    WHERE tenant = $1 AND id = $2 AND accepted_at IS NULL AND ended_at IS NULL";

/// Somebody who may act for a patient, or was asked to.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) id: Uuid,
    pub(crate) patient: String,
    pub(crate) user: Uuid,
    pub(crate) relationship: String,
    pub(crate) scope: Vec<String>,
    pub(crate) until: Option<Millis>,
    /// When the patient comes of age, where that is to come.
    pub(crate) of_age: Option<Millis>,
    pub(crate) granted_by: String,
    pub(crate) granted_at: Millis,
    pub(crate) accepted_at: Option<Millis>,
    pub(crate) ended_at: Option<Millis>,
    pub(crate) related_person: Option<String>,
    pub(crate) name: String,
    pub(crate) email: String,
}

impl Proxy {
    /// The earlier of the end that was agreed and the patient's coming of age.
    pub(crate) fn ends(&self) -> Option<Millis> {
        match (self.until, self.of_age) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

fn proxy(row: &Row) -> Result<Proxy> {
    let user = row.uuid(2)?;
    Ok(Proxy {
        id: row.uuid(0)?,
        patient: row.string(1)?,
        user,
        relationship: row.string(3)?,
        scope: row.text(4)?.split(' ').map(str::to_owned).collect(),
        until: row.opt_i64(5)?,
        of_age: row.opt_i64(6)?,
        granted_by: row.string(7)?,
        granted_at: row.i64(8)?,
        accepted_at: row.opt_i64(9)?,
        ended_at: row.opt_i64(10)?,
        related_person: row.opt_text(12)?.map(str::to_owned),
        name: NAME.open(row, 13, user)?,
        email: EMAIL_SHOWN.open(row, 14, user)?,
    })
}

pub(crate) async fn add_proxy(tx: &mut Tx, p: &Proxy) -> Result<()> {
    let args = [
        p.id.into(),
        (&p.patient).into(),
        p.user.into(),
        (&p.relationship).into(),
        p.scope.join(" ").into(),
        p.until.into(),
        p.of_age.into(),
        (&p.granted_by).into(),
        p.granted_at.into(),
    ];
    tx.exec(ADD_PROXY, &args).await.map(drop)
}

/// Of a patient, of a person, or one: the newest first.
pub(crate) enum Whose<'a> {
    Patient(&'a str),
    User(Uuid),
}

pub(crate) async fn proxies(db: &Db, tenant: TenantId, whose: Whose<'_>) -> Result<Vec<Proxy>> {
    let (column, value): (_, Val) = match whose {
        Whose::Patient(id) => ("p.patient", id.into()),
        Whose::User(id) => ("p.user_id", id.into()),
    };
    let text = format!("{PROXY_COLUMNS} AND {column} = $2 ORDER BY p.granted_at DESC, p.id DESC LIMIT 200");
    let rows = db.query(tenant, medtech_kernel::db::Sql::built(text), &[value]).await?;
    rows.iter().map(proxy).collect()
}

pub(crate) async fn proxy_in(tx: &mut Tx, id: Uuid) -> Result<Option<Proxy>> {
    let text = format!("{PROXY_COLUMNS} AND p.id = $2");
    let row = tx.query_opt(medtech_kernel::db::Sql::built(text), &[id.into()]).await?;
    row.as_ref().map(proxy).transpose()
}

pub(crate) async fn end_proxy(tx: &mut Tx, id: Uuid, by: &str) -> Result<bool> {
    let now = tx.now();
    Ok(tx.exec(END_PROXY, &[id.into(), now.into(), by.into()]).await? == 1)
}

pub(crate) async fn accept_proxy(tx: &mut Tx, id: Uuid, related_person: &str) -> Result<bool> {
    let now = tx.now();
    let args = [id.into(), now.into(), related_person.into()];
    Ok(tx.exec(ACCEPT_PROXY, &args).await? == 1)
}
