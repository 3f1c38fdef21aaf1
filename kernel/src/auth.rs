//! Who asks: principals, and the opaque access tokens that name them.

use crate::{
    Clock, Error, Result, TenantId, Tx,
    bus::{Bus, Event},
    clock::Millis,
    db::{Db, Row},
    id,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// A bundle of permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Admin,
    Clinician,
    Staff,
    Patient,
    /// Someone who came by a visit link: that visit, and nothing else.
    Guest,
    Device,
}

impl Role {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Clinician => "clinician",
            Self::Staff => "staff",
            Self::Patient => "patient",
            Self::Guest => "guest",
            Self::Device => "device",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
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

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub tenant: TenantId,
    /// `user:{uuid}`, `guest:{uuid}` or `device:{uuid}`.
    pub subject: String,
    pub roles: Vec<Role>,
    pub session: Uuid,
    pub name: Arc<str>,
}

impl Principal {
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
}

/// The access tokens. A token is `mt_{tenant}_{43 characters}`; only its SHA-256 is stored.
#[derive(Clone)]
pub struct Sessions {
    db: Db,
    bus: Bus,
    clock: Clock,
}

const ISSUE: &str = "INSERT INTO session (tenant, hash, id, subject, name, roles, note, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const FIND: &str = "SELECT subject, name, roles, id, expires_at FROM session WHERE tenant = $1 AND hash = $2";
const REVOKE_ID: &str = "DELETE FROM session WHERE tenant = $1 AND id = $2 RETURNING subject, id";
const REVOKE_SUBJECT: &str = "DELETE FROM session WHERE tenant = $1 AND subject = $2 RETURNING subject, id";

/// Body of the live event `session.revoked`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Revoked {
    pub session: Uuid,
    pub subject: String,
}

impl Sessions {
    #[must_use]
    pub fn new(db: Db, bus: Bus, clock: Clock) -> Self {
        Self { db, bus, clock }
    }

    /// Makes a session; the token is given once and cannot be read again.
    pub async fn issue(&self, tx: &mut Tx, new: NewSession) -> Result<(String, Uuid)> {
        let token = format!("mt_{}_{}", tx.tenant(), id::token());
        let (session, now) = (id::uuid_v7(tx.now()), tx.now());
        let roles: Vec<&str> = new.roles.iter().map(|r| r.name()).collect();
        tx.exec(
            ISSUE,
            &[
                id::sha256(token.as_bytes()).into(),
                session.into(),
                new.subject.into(),
                new.name.into(),
                roles.join(" ").into(),
                new.note.into(),
                now.into(),
                (now + new.ttl_ms).into(),
            ],
        )
        .await?;
        Ok((token, session))
    }

    /// The principal of a token. The token's tenant and the request's must agree.
    pub async fn verify(&self, tenant: TenantId, token: &str) -> Result<Principal> {
        let unknown = || Error::unauthorized("auth.token_unknown", "Please sign in again.");
        if tenant_of(token) != Some(tenant) {
            return Err(unknown());
        }
        let hash = id::sha256(token.as_bytes());
        let row = self
            .db
            .query_opt(tenant, FIND, &[hash.into()])
            .await?
            .ok_or_else(unknown)?;
        if row.i64(4)? <= self.clock.now_ms() {
            return Err(Error::unauthorized(
                "auth.token_expired",
                "Your session has ended. Please sign in again.",
            ));
        }
        principal(tenant, &row)
    }

    /// Ends one session; its sockets and media close at once.
    pub async fn revoke(&self, tx: &mut Tx, session: Uuid) -> Result<()> {
        self.ended(tx, REVOKE_ID, session.into()).await
    }

    /// Ends every session of a subject.
    pub async fn revoke_subject(&self, tx: &mut Tx, subject: &str) -> Result<()> {
        self.ended(tx, REVOKE_SUBJECT, subject.into()).await
    }

    async fn ended(&self, tx: &mut Tx, sql: &'static str, who: crate::Val) -> Result<()> {
        for row in tx.query(sql, &[who]).await? {
            let body = Revoked {
                subject: row.string(0)?,
                session: row.uuid(1)?,
            };
            let event = Event::of(tx, "session.revoked", body.subject.clone(), &body)?;
            self.bus.publish_after(tx, event);
        }
        Ok(())
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

fn principal(tenant: TenantId, row: &Row) -> Result<Principal> {
    Ok(Principal {
        tenant,
        subject: row.string(0)?,
        name: row.text(1)?.into(),
        roles: row.text(2)?.split(' ').filter_map(Role::parse).collect(),
        session: row.uuid(3)?,
    })
}
