//! Who asks: principals, and the opaque access tokens that name them.

mod ends;

use crate::{
    Clock, Error, Result, TenantId, Tx,
    bus::{Bus, Event},
    clock::Millis,
    db::{Db, Row},
    id,
    policy::own::{self, Narrowed},
    tenant::{self, Status, Tenants},
    vault::{Cell, Field, Sheet},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, sync::Arc};
use uuid::Uuid;

/// A bundle of permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Admin,
    Clinician,
    Staff,
    Patient,
    /// Someone who came by a visit link: that visit, and nothing else.
    Guest,
    Device,
    /// One of the clinic's own (see [`crate::policy::own`]), written `own:UUID`. By itself it is none of the others.
    Own(Uuid),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(id) => write!(f, "own:{id}"),
            fixed => f.write_str(fixed.name()),
        }
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Self::parse(&name).ok_or_else(|| serde::de::Error::custom("no such role"))
    }
}

impl Role {
    /// Its number, of one of the clinic's own.
    #[must_use]
    pub fn own(self) -> Option<Uuid> {
        match self {
            Self::Own(id) => Some(id),
            _ => None,
        }
    }

    /// Of the clinic's own people, and not of those it cares for.
    #[must_use]
    pub fn is_staff(self) -> bool {
        matches!(self, Self::Admin | Self::Clinician | Self::Staff | Self::Own(_))
    }

    /// The word for it; those of a clinic's own have one together.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Clinician => "clinician",
            Self::Staff => "staff",
            Self::Patient => "patient",
            Self::Guest => "guest",
            Self::Device => "device",
            Self::Own(_) => "own",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(id) = name.strip_prefix("own:") {
            return Uuid::try_parse(id).ok().map(Self::Own);
        }
        [
            Self::Admin,
            Self::Clinician,
            Self::Staff,
            Self::Patient,
            Self::Guest,
            Self::Device,
        ]
        .into_iter()
        .find(|r| r.name() == name)
    }
}

/// How surely a person was known when the session began, or when they last proved themselves in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assurance {
    /// A secret that opens one thing: a visit link, a device's credential.
    #[default]
    Bearer,
    /// One factor: a password, or a sign-in link.
    One,
    /// Two: a passkey with user verification, or a password and a one-time code.
    Two,
}

impl Assurance {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::One => "one",
            Self::Two => "two",
        }
    }

    fn parse(name: &str) -> Self {
        match name {
            "one" => Self::One,
            "two" => Self::Two,
            _ => Self::Bearer,
        }
    }
}

/// What a session may be used for: how its owner was known, and what an application that acts for them is limited to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    pub assurance: Assurance,
    /// The OAuth client that acts; `None` for our own web client.
    pub client: Option<String>,
    /// Scopes the client was given, separated by spaces (SMART App Launch 2.2). `None` limits nothing.
    pub scopes: Option<String>,
    /// The patient in context, where the client was launched with one: the identifier of a FHIR Patient.
    pub patient: Option<String>,
    /// The token was taken at the machine, by its operator, in the name of the person (or was given to an application in such
    /// a session): the trail says so of all that is done with it.
    pub machine: bool,
    /// What roles of the clinic's own give, as they are now. Looked up with the session; absent where there are none.
    pub narrowed: Option<Arc<Narrowed>>,
}

impl From<Assurance> for Grant {
    fn from(assurance: Assurance) -> Self {
        Self {
            assurance,
            ..Self::default()
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub tenant: TenantId,
    /// `user:{uuid}`, `guest:{uuid}` or `device:{uuid}`.
    pub subject: String,
    pub roles: Vec<Role>,
    pub session: Uuid,
    pub name: Arc<str>,
    pub grant: Arc<Grant>,
    /// When they last proved themselves in full: what signing, export and break-glass ask to be recent.
    pub proved_at: Millis,
}

/// How old a proof may be for an act that asks for a fresh one.
pub const FRESH: Millis = 10 * 60_000;

impl Principal {
    /// Ok when they proved themselves within [`FRESH`] before `now`, else 403 `auth.step_up`: the client asks them to
    /// do it again and repeats the request.
    pub fn require_fresh(&self, now: Millis) -> Result<()> {
        if now - self.proved_at <= FRESH {
            return Ok(());
        }
        Err(Error::forbidden(
            "auth.step_up",
            "Please confirm that it is you, and try again.",
        ))
    }

    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The identifier behind the colon of the subject.
    #[must_use]
    pub fn subject_id(&self) -> &str {
        self.subject.split_once(':').map_or(self.subject.as_str(), |(_, id)| id)
    }
}

/// What a new session says.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub subject: String,
    pub name: String,
    pub roles: Vec<Role>,
    pub ttl_ms: i64,
    /// Shown to the user in the list of sessions, for instance the browser's name.
    pub note: String,
    pub grant: Grant,
    /// The session ends after this much silence; `None`: only with its time.
    pub idle_ms: Option<i64>,
}

/// A session as its owner sees it.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    pub id: Uuid,
    pub note: String,
    pub grant: Grant,
    pub created_at: Millis,
    pub seen_at: Millis,
    pub expires_at: Millis,
}

/// The access tokens. A token is `mt_{tenant}_{43 characters}`; only its SHA-256 is stored.
#[derive(Clone)]
pub struct Sessions {
    db: Db,
    bus: Bus,
    clock: Clock,
    tenants: Option<Tenants>,
}

/// By the session's id.
const NAME: Field = Field::new("session", "name");
/// Names a browser and a device.
const NOTE: Field = Field::new("session", "note");
pub(crate) const SHEET: Sheet = Sheet {
    table: "session",
    key: &["id"],
    cells: &[Cell::Sealed(NAME), Cell::Sealed(NOTE)],
};

const ISSUE: &str = "INSERT INTO session (tenant, hash, id, subject, name, roles, note, created_at, expires_at,
    assurance, proved_at, client, scopes, patient, idle_ms, seen_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $8, $11, $12, $13, $14, $8)";
const FIND: &str =
    "SELECT subject, name, roles, id, expires_at, assurance, client, scopes, patient, proved_at, idle_ms,
    seen_at, created_at, (SELECT COUNT(*) FROM session_machine m WHERE m.tenant = $1 AND m.session = session.id)
    FROM session WHERE tenant = $1 AND hash = $2";
const SEEN: &str = "UPDATE session SET seen_at = $3 WHERE tenant = $1 AND id = $2";
const MACHINE: &str = "INSERT INTO session_machine (tenant, session) VALUES ($1, $2)";
const AT_MACHINE: &str = "SELECT 1 FROM session_machine WHERE tenant = $1 AND session = $2";
const LIST: &str = "SELECT id, note, created_at, seen_at, expires_at, assurance, client, scopes, patient,
    (SELECT COUNT(*) FROM session_machine m WHERE m.tenant = $1 AND m.session = session.id) FROM session
    WHERE tenant = $1 AND subject = $2 AND expires_at > $3 AND (idle_ms IS NULL OR seen_at + idle_ms > $3)
    ORDER BY seen_at DESC, id";
// Not those of applications: there may be any number, and nobody is in a call by them.
const STANDING: &str = "SELECT subject, name, roles, id, expires_at, assurance, client, scopes, patient, proved_at,
    (SELECT COUNT(*) FROM session_machine m WHERE m.tenant = $1 AND m.session = session.id) FROM session
    WHERE tenant = $1 AND subject = $2 AND client IS NULL AND expires_at > $3 ORDER BY seen_at DESC, id LIMIT 50";
const PROVE: &str = "UPDATE session SET assurance = $3, proved_at = $4 WHERE tenant = $1 AND id = $2";
const PROVED_AT: &str = "UPDATE session SET proved_at = $3 WHERE tenant = $1 AND id = $2 AND proved_at > $3";
const ALL: &str = "SELECT subject, id FROM session WHERE tenant = $1 AND expires_at > $2";
const REVOKE_ID: &str = "DELETE FROM session WHERE tenant = $1 AND id = $2 RETURNING subject, id, client";
const REVOKE_SUBJECT: &str = "DELETE FROM session WHERE tenant = $1 AND subject = $2 RETURNING subject, id, client";
const REVOKE_OWN: &str =
    "DELETE FROM session WHERE tenant = $1 AND subject = $2 AND id = $3 RETURNING subject, id, client";
const REVOKE_OTHERS: &str =
    "DELETE FROM session WHERE tenant = $1 AND subject = $2 AND id <> $3 RETURNING subject, id, client";

/// How exactly it is known when a session was last seen: a request within this time of the last one writes nothing.
const SEEN_EVERY: Millis = 60_000;

/// Body of the live event `session.revoked`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Revoked {
    pub session: Uuid,
    pub subject: String,
    /// What belongs to the subject as a whole, such as a call, goes on: the session was an application's, or it ended by
    /// itself and another one of the subject's own still stands.
    #[serde(default)]
    pub elsewhere: bool,
}

impl Sessions {
    #[must_use]
    pub fn new(db: Db, bus: Bus, clock: Clock) -> Self {
        Self {
            db,
            bus,
            clock,
            tenants: None,
        }
    }

    /// Tokens of a tenant that is not served hold at no door, whatever way they come.
    #[must_use]
    pub fn guarded(mut self, tenants: Tenants) -> Self {
        self.tenants = Some(tenants);
        self
    }

    /// Makes a session; the token is given once and cannot be read again.
    pub async fn issue(&self, tx: &mut Tx, new: NewSession) -> Result<(String, Uuid)> {
        let token = format!("mt_{}_{}", tx.tenant(), id::token());
        let (session, now) = (id::uuid_v7(tx.now()), tx.now());
        let roles: Vec<String> = new.roles.iter().map(ToString::to_string).collect();
        tx.exec(
            ISSUE,
            &[
                id::sha256(token.as_bytes()).into(),
                session.into(),
                new.subject.into(),
                NAME.seal(session, &new.name),
                roles.join(" ").into(),
                NOTE.seal(session, &new.note),
                now.into(),
                (now + new.ttl_ms).into(),
                new.grant.assurance.name().into(),
                new.grant.client.into(),
                new.grant.scopes.into(),
                new.grant.patient.into(),
                new.idle_ms.into(),
            ],
        )
        .await?;
        if new.grant.machine {
            tx.exec(MACHINE, &[session.into()]).await?;
        }
        Ok((token, session))
    }

    /// Was this session's token taken at the machine? Also of one that has ended.
    pub async fn at_machine(&self, tx: &mut Tx, session: Uuid) -> Result<bool> {
        Ok(tx.query_opt(AT_MACHINE, &[session.into()]).await?.is_some())
    }

    /// The principal of a token, who is here: the session's time of silence begins anew. The token's tenant and the
    /// request's must agree.
    pub async fn verify(&self, tenant: TenantId, token: &str) -> Result<Principal> {
        let (principal, seen) = self.look_up(tenant, token).await?;
        let now = self.clock.now_ms();
        if seen + SEEN_EVERY <= now {
            let session = principal.session;
            let noted = self.db.write(principal.tenant, move |tx| {
                Box::pin(async move { tx.exec(SEEN, &[session.into(), now.into()]).await.map(|_| ()) })
            });
            // A full disk must not keep anyone from reading.
            if let Err(e) = noted.await {
                tracing::warn!(error = %e, "when a session was seen could not be noted");
            }
        }
        Ok(principal)
    }

    /// The principal of a token that something open was begun with. A machine asks here and nobody is at it: the silence
    /// goes on.
    pub async fn still(&self, tenant: TenantId, token: &str) -> Result<Principal> {
        self.look_up(tenant, token).await.map(|(principal, _)| principal)
    }

    /// The principal, and when the session was last seen.
    async fn look_up(&self, tenant: TenantId, token: &str) -> Result<(Principal, Millis)> {
        let unknown = || Error::unauthorized("auth.token_unknown", "Please sign in again.");
        let mut tenant = tenant;
        if crate::policy::seeded("token tenant") {
            tenant = tenant_of(token).unwrap_or(tenant);
        } else if tenant_of(token) != Some(tenant) {
            return Err(unknown());
        }
        if let Some(register) = &self.tenants
            && register.by_id(tenant).is_none_or(|t| t.status != Status::Active)
        {
            // 401 and not 403: a live channel that asks again must end. Over HTTP the door has answered 403 before.
            return Err(Error::unauthorized("tenant.suspended", tenant::CLOSED));
        }
        let hash = id::sha256(token.as_bytes());
        let row = self
            .db
            .query_opt(tenant, FIND, &[hash.into()])
            .await?
            .ok_or_else(unknown)?;
        let (now, seen) = (self.clock.now_ms(), row.i64(11)?.max(row.i64(12)?));
        let silent = row.opt_i64(10)?.is_some_and(|idle| seen + idle <= now);
        if row.i64(4)? <= now || silent {
            return Err(Error::unauthorized(
                "auth.token_expired",
                "Your session has ended. Please sign in again.",
            ));
        }
        let who = own::resolved(&self.db, principal(tenant, &row, 13)?).await?;
        Ok((who, seen))
    }

    /// The sessions of a subject that still stand, the last seen first.
    pub async fn list(&self, tenant: TenantId, subject: &str) -> Result<Vec<SessionInfo>> {
        let args = [subject.into(), self.clock.now_ms().into()];
        let rows = self.db.query(tenant, LIST, &args).await?;
        rows.iter()
            .map(|row| {
                Ok(SessionInfo {
                    id: row.uuid(0)?,
                    note: NOTE.open(row, 1, row.uuid(0)?)?,
                    created_at: row.i64(2)?,
                    seen_at: row.i64(3)?,
                    expires_at: row.i64(4)?,
                    grant: grant(row, 5, 9)?,
                })
            })
            .collect()
    }

    /// The principals of a subject's sessions that still stand, the last seen first: for looking again at what goes on
    /// without requests (whoever is in a call is not silent). None in a clinic that is not served.
    pub async fn standing(&self, tenant: TenantId, subject: &str) -> Result<Vec<Principal>> {
        if let Some(register) = &self.tenants
            && register.by_id(tenant).is_none_or(|t| t.status != Status::Active)
        {
            return Ok(Vec::new());
        }
        let args = [subject.into(), self.clock.now_ms().into()];
        let rows = self.db.query(tenant, STANDING, &args).await?;
        let mut standing = Vec::with_capacity(rows.len());
        for row in &rows {
            standing.push(own::resolved(&self.db, principal(tenant, row, 10)?).await?);
        }
        Ok(standing)
    }

    /// Their owner proved themselves again in this session, with this assurance.
    pub async fn proved(&self, tx: &mut Tx, session: Uuid, assurance: Assurance) -> Result<()> {
        let now = tx.now();
        tx.exec(PROVE, &[session.into(), assurance.name().into(), now.into()])
            .await
            .map(|_| ())
    }

    /// They proved themselves elsewhere, at a time before the session began: no later proof is made of it.
    pub async fn proved_at(&self, tx: &mut Tx, session: Uuid, at: Millis) -> Result<()> {
        tx.exec(PROVED_AT, &[session.into(), at.into()]).await.map(|_| ())
    }

    /// Ends one session; its sockets and media close at once.
    pub async fn revoke(&self, tx: &mut Tx, session: Uuid) -> Result<()> {
        self.ended(tx, REVOKE_ID, &[session.into()]).await.map(drop)
    }

    /// Ends one session, where it is the subject's; `false` where it is not.
    pub async fn revoke_own(&self, tx: &mut Tx, subject: &str, session: Uuid) -> Result<bool> {
        let ended = self.ended(tx, REVOKE_OWN, &[subject.into(), session.into()]).await?;
        Ok(!ended.is_empty())
    }

    /// Ends every session of a subject but one; how many there were.
    pub async fn revoke_others(&self, tx: &mut Tx, subject: &str, keep: Uuid) -> Result<u64> {
        let ended = self.ended(tx, REVOKE_OTHERS, &[subject.into(), keep.into()]).await?;
        Ok(u64::try_from(ended.len()).unwrap_or(u64::MAX))
    }

    /// Ends every session of a subject; how many there were.
    pub async fn revoke_subject(&self, tx: &mut Tx, subject: &str) -> Result<usize> {
        Ok(self.ended(tx, REVOKE_SUBJECT, &[subject.into()]).await?.len())
    }

    /// Closes what every session of a tenant holds open, and lets the sessions stand: for a tenant that is served no more.
    pub async fn close_all(&self, tenant: TenantId) -> Result<usize> {
        let rows = self.db.query(tenant, ALL, &[self.clock.now_ms().into()]).await?;
        for row in &rows {
            let body = Revoked {
                subject: row.string(0)?,
                session: row.uuid(1)?,
                elsewhere: false,
            };
            let event = Event::new(&self.clock, tenant, "session.revoked", body.subject.clone(), &body)?;
            self.bus.publish(event);
        }
        Ok(rows.len())
    }

    /// Whose sessions ended, by somebody's will.
    async fn ended(&self, tx: &mut Tx, sql: &'static str, which: &[crate::Val]) -> Result<Vec<String>> {
        self.ended_as(tx, sql, which, ends::Why::Wanted).await
    }
}

/// The tenant a token names; says nothing about its being valid.
#[must_use]
pub fn tenant_of(token: &str) -> Option<TenantId> {
    let (tenant, secret) = token.strip_prefix("mt_")?.split_once('_')?;
    if secret.len() != 43 || tenant.starts_with('+') {
        return None;
    }
    tenant.parse::<Millis>().ok().map(TenantId::from_number)
}

/// `machine`: the column that says where the token was taken.
fn principal(tenant: TenantId, row: &Row, machine: usize) -> Result<Principal> {
    let session = row.uuid(3)?;
    Ok(Principal {
        tenant,
        subject: row.string(0)?,
        name: NAME.open(row, 1, session)?.into(),
        roles: row.text(2)?.split(' ').filter_map(Role::parse).collect(),
        session,
        grant: Arc::new(grant(row, 5, machine)?),
        proved_at: row.i64(9)?,
    })
}

/// Reads assurance, client, scopes and patient, which stand in this order from column `at`.
fn grant(row: &Row, at: usize, machine: usize) -> Result<Grant> {
    Ok(Grant {
        assurance: Assurance::parse(row.text(at)?),
        client: row.opt_text(at + 1)?.map(str::to_owned),
        scopes: row.opt_text(at + 2)?.map(str::to_owned),
        patient: row.opt_text(at + 3)?.map(str::to_owned),
        machine: row.i64(machine)? > 0,
        narrowed: None,
    })
}
