//! Roles of a clinic's own: each a choice of the permissions that the fixed roles have, by the same tables. What a role of the
//! clinic's own gives is asked of the fixed role's rule and then of the choice, so it can never be more than that role has, and
//! relation, Consent and labels hold as ever. Running the clinic is not divided: nothing of an administrator can be chosen, nor
//! the emergency access.

use super::{
    Action, Class,
    table::{self, Breadth},
};
use crate::{
    Db, Error, Result, Row, TenantId, Tx,
    auth::{Principal, Role},
    clock::Millis,
    scope::Letter,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};
use uuid::Uuid;

/// Roles of its own that one clinic may have.
pub const MOST: usize = 50;
/// Letters of its name.
const LONGEST: usize = 60;

/// What can be done with a class of the record, in the steps in which it is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Read and search.
    See,
    Create,
    Change,
    Delete,
}

impl Step {
    pub const ALL: [Self; 4] = [Self::See, Self::Create, Self::Change, Self::Delete];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::See => "see",
            Self::Create => "create",
            Self::Change => "change",
            Self::Delete => "delete",
        }
    }

    /// Of `cruds`.
    #[must_use]
    pub const fn letters(self) -> &'static str {
        match self {
            Self::See => "rs",
            Self::Create => "c",
            Self::Change => "u",
            Self::Delete => "d",
        }
    }

    fn of(letter: Letter) -> Self {
        match letter {
            Letter::Read | Letter::Search => Self::See,
            Letter::Create => Self::Create,
            Letter::Update => Self::Change,
            Letter::Delete => Self::Delete,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    Record(Class, Step),
    Thing(&'static str, Action),
}

/// One permission of a fixed role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    pub of: Role,
    pub what: What,
}

/// `clinician.record.clinical.see`, `staff.thing.board.read`.
impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.of.name();
        match self.what {
            What::Record(class, step) => write!(f, "{of}.record.{}.{}", class.name(), step.name()),
            What::Thing(kind, action) => write!(f, "{of}.thing.{kind}.{}", action.name()),
        }
    }
}

/// Whose permissions can be chosen.
const BASES: [Role; 2] = [Role::Clinician, Role::Staff];

/// Acts that go round a relation on purpose.
fn is_never_chosen(kind: &str) -> bool {
    kind == "glass"
}

/// Everything that a role of the clinic's own can be made of, in the order of the tables.
#[must_use]
pub fn choosable() -> Vec<Permission> {
    let mut all = Vec::new();
    for of in BASES {
        for (role, class, letters, breadth) in table::BUNDLES {
            if *role != of || *breadth == Breadth::Broken {
                continue;
            }
            let steps = Step::ALL
                .into_iter()
                .filter(|s| s.letters().chars().all(|l| letters.contains(l)));
            all.extend(steps.map(|step| Permission {
                of,
                what: What::Record(*class, step),
            }));
        }
        for kind in table::KINDS.iter().filter(|kind| !is_never_chosen(kind)) {
            for action in Action::ALL {
                if table::is_given_by(of, kind, action) {
                    all.push(Permission {
                        of,
                        what: What::Thing(kind, action),
                    });
                }
            }
        }
    }
    all
}

/// How far a permission over a class goes; `None` for a thing.
#[must_use]
pub fn breadth(of: Role, what: What) -> Option<&'static str> {
    let What::Record(class, _) = what else { return None };
    let row = table::BUNDLES.iter().find(|(r, c, ..)| (*r, *c) == (of, class));
    row.map(|(.., breadth)| breadth.name())
}

/// What somebody has of fixed roles through roles of the clinic's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowed(BTreeMap<Role, BTreeSet<What>>);

impl Narrowed {
    fn has(&self, role: Role, what: What) -> bool {
        self.0.get(&role).is_some_and(|all| all.contains(&what))
    }
}

impl Principal {
    /// Fixed roles that they have whole or in part.
    pub(super) fn held(&self) -> impl Iterator<Item = Role> {
        let fixed = self.roles.iter().copied().filter(|r| !matches!(r, Role::Own(_)));
        let narrowed = self.grant.narrowed.iter().flat_map(|n| n.0.keys().copied());
        fixed.chain(narrowed.filter(|r| !self.has(*r)))
    }

    /// Of a fixed role, whole or in part.
    pub(super) fn acts_as(&self, role: Role) -> bool {
        self.held().any(|r| r == role)
    }

    fn may(&self, role: Role, what: What) -> bool {
        self.has(role) || self.grant.narrowed.as_ref().is_some_and(|n| n.has(role, what))
    }

    /// Is this letter over the class among what they have of a fixed role?
    pub(super) fn may_record(&self, role: Role, class: Class, letter: Letter) -> bool {
        self.may(role, What::Record(class, Step::of(letter)))
    }

    pub(super) fn may_thing(&self, role: Role, kind: &'static str, action: Action) -> bool {
        self.may(role, What::Thing(kind, action))
    }
}

/// A role of a clinic's own, as of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRole {
    pub id: Uuid,
    pub version: i64,
    pub name: String,
    pub permissions: BTreeSet<Permission>,
    pub at: Millis,
    pub actor: String,
    pub gone: bool,
}

const COLUMNS: &str =
    "SELECT r.id, r.version, r.name, r.permissions, r.at, r.actor, r.gone FROM own_role r WHERE r.tenant = $1";
const NEWEST: &str =
    "AND NOT r.gone AND r.version = (SELECT MAX(m.version) FROM own_role m WHERE m.tenant = $1 AND m.id = r.id)";
const INSERT: &str = "INSERT INTO own_role (tenant, id, version, name, permissions, at, actor, gone)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

fn sql(more: &str) -> crate::db::Sql {
    crate::db::Sql::built(format!("{COLUMNS} {more}"))
}

fn read(row: &Row) -> Result<OwnRole> {
    let known = choosable();
    // A permission that the tables do not have any more is none.
    let find = |text: &str| known.iter().find(|p| p.to_string() == text).copied();
    Ok(OwnRole {
        id: row.uuid(0)?,
        version: row.i64(1)?,
        name: row.string(2)?,
        permissions: row.text(3)?.split(' ').filter_map(find).collect(),
        at: row.i64(4)?,
        actor: row.string(5)?,
        gone: row.bool(6)?,
    })
}

/// The roles of a clinic's own, by name.
pub async fn all(db: &Db, tenant: TenantId) -> Result<Vec<OwnRole>> {
    let rows = db
        .query(tenant, sql(&format!("{NEWEST} ORDER BY r.name, r.id")), &[])
        .await?;
    rows.iter().map(read).collect()
}

pub async fn all_in(tx: &mut Tx) -> Result<Vec<OwnRole>> {
    let rows = tx.query(sql(&format!("{NEWEST} ORDER BY r.name, r.id")), &[]).await?;
    rows.iter().map(read).collect()
}

/// Every version of one, the newest first.
pub async fn versions(db: &Db, tenant: TenantId, id: Uuid) -> Result<Vec<OwnRole>> {
    let rows = db
        .query(
            tenant,
            sql("AND r.id = $2 ORDER BY r.version DESC LIMIT 100"),
            &[id.into()],
        )
        .await?;
    rows.iter().map(read).collect()
}

/// The principal, with what the roles of the clinic's own give them now. Whoever has none costs nothing.
pub async fn resolved(db: &Db, mut who: Principal) -> Result<Principal> {
    let ids: BTreeSet<Uuid> = who.roles.iter().filter_map(|r| r.own()).collect();
    if ids.is_empty() {
        return Ok(who);
    }
    let mut narrowed = Narrowed::default();
    for role in all(db, who.tenant).await?.into_iter().filter(|r| ids.contains(&r.id)) {
        for p in role.permissions {
            narrowed.0.entry(p.of).or_default().insert(p.what);
        }
    }
    Arc::make_mut(&mut who.grant).narrowed = Some(Arc::new(narrowed));
    Ok(who)
}

/// Fixed roles that those of the clinic's own among `roles` are made of: which pages a client shows. Opens nothing.
pub async fn bases(db: &Db, tenant: TenantId, roles: &[Role]) -> Result<BTreeSet<Role>> {
    let ids: BTreeSet<Uuid> = roles.iter().filter_map(|r| r.own()).collect();
    if ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    Ok(of_what(all(db, tenant).await?, &ids))
}

pub async fn bases_in(tx: &mut Tx, roles: &[Role]) -> Result<BTreeSet<Role>> {
    let ids: BTreeSet<Uuid> = roles.iter().filter_map(|r| r.own()).collect();
    if ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    Ok(of_what(all_in(tx).await?, &ids))
}

fn of_what(all: Vec<OwnRole>, ids: &BTreeSet<Uuid>) -> BTreeSet<Role> {
    let own = all.into_iter().filter(|r| ids.contains(&r.id));
    own.flat_map(|r| r.permissions).map(|p| p.of).collect()
}

/// What is to be a role.
#[derive(Clone, Debug)]
pub struct Wanted {
    name: String,
    permissions: BTreeSet<Permission>,
}

impl Wanted {
    /// 422 for a name or a permission that cannot be.
    pub fn check(name: &str, permissions: &[String]) -> Result<Self> {
        let name = name.trim();
        let letters = name.chars().count();
        let fixed = Role::parse(&name.to_lowercase()).is_some();
        if letters == 0 || letters > LONGEST || fixed || name.chars().any(char::is_control) {
            return Err(Error::unprocessable(
                "policy.role_name",
                format!("A role has a name of 1 to {LONGEST} letters that is not one of the fixed roles."),
            ));
        }
        let known = choosable();
        let mut chosen = BTreeSet::new();
        for text in permissions {
            let found = known.iter().find(|p| p.to_string() == *text);
            chosen.insert(*found.ok_or_else(|| {
                Error::unprocessable(
                    "policy.role_permission",
                    "This permission cannot be given by a role of the clinic's own.",
                )
            })?);
        }
        if chosen.is_empty() {
            return Err(Error::unprocessable(
                "policy.role_permission",
                "A role has at least one permission.",
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            permissions: chosen,
        })
    }
}

fn stale() -> Error {
    Error::conflict(
        "policy.role_version",
        "Somebody changed this role meanwhile. Please look again.",
    )
}

async fn add(tx: &mut Tx, role: OwnRole) -> Result<OwnRole> {
    let permissions: Vec<String> = role.permissions.iter().map(ToString::to_string).collect();
    let args = [
        role.id.into(),
        role.version.into(),
        role.name.as_str().into(),
        permissions.join(" ").into(),
        role.at.into(),
        role.actor.as_str().into(),
        role.gone.into(),
    ];
    match tx.exec(INSERT, &args).await {
        // Two servers at the same moment.
        Err(e) if e.code == "db.constraint" => Err(stale()),
        Err(e) => Err(e),
        Ok(_) => {
            // Of whoever has it, something may be less than before.
            super::withdrawn(tx).await?;
            Ok(role)
        }
    }
}

/// A new one (`None`), or the next version of one. The caller has checked who asks, and writes the audit entry.
pub async fn put(tx: &mut Tx, id: Option<(Uuid, i64)>, wanted: Wanted, actor: &str) -> Result<OwnRole> {
    let all = all_in(tx).await?;
    let same =
        |r: &&OwnRole| r.name.to_lowercase() == wanted.name.to_lowercase() && id.is_none_or(|(id, _)| id != r.id);
    if all.iter().any(|r| same(&r)) {
        return Err(Error::conflict(
            "policy.role_name_taken",
            "There is a role of this name already.",
        ));
    }
    let (id, version) = match id {
        None if all.len() >= MOST => {
            return Err(Error::conflict(
                "policy.role_limit",
                format!("A clinic has at most {MOST} roles of its own."),
            ));
        }
        None => (crate::id::uuid_v7(tx.now()), 1),
        Some((id, seen)) => match all.iter().find(|r| r.id == id) {
            None => return Err(unknown()),
            Some(r) if r.version != seen => return Err(stale()),
            Some(r) => (id, r.version + 1),
        },
    };
    let role = OwnRole {
        id,
        version,
        name: wanted.name,
        permissions: wanted.permissions,
        at: tx.now(),
        actor: actor.to_owned(),
        gone: false,
    };
    add(tx, role).await
}

/// It gives nobody anything any more. The caller has checked that nobody has it.
pub async fn remove(tx: &mut Tx, id: Uuid, actor: &str) -> Result<OwnRole> {
    let last = all_in(tx).await?.into_iter().find(|r| r.id == id).ok_or_else(unknown)?;
    let gone = OwnRole {
        version: last.version + 1,
        at: tx.now(),
        actor: actor.to_owned(),
        gone: true,
        ..last
    };
    add(tx, gone).await
}

#[must_use]
pub fn unknown() -> Error {
    Error::not_found("policy.role_unknown", "There is no such role.")
}

#[cfg(test)]
mod tests;
