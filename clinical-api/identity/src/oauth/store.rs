//! Every SQL text of the authorization server.

use super::{
    DAY,
    client::{Client, Metadata},
    keys::Stored,
};
use medtech_kernel::{
    Db, Error, Result, Row, TenantId, Tx, Val,
    auth::{Assurance, Sessions},
    clock::Millis,
};
use uuid::Uuid;

type Hash = [u8; 32];

fn broken(e: serde_json::Error) -> Error {
    Error::internal("oauth.stored", e)
}

// ---- Clients

const CLIENT: &str =
    "SELECT id, body, secret, active, created_at, updated_at FROM oauth_client WHERE tenant = $1 AND id = $2";
const CLIENTS: &str = "SELECT id, body, secret, active, created_at, updated_at FROM oauth_client WHERE tenant = $1 ORDER BY created_at, id";
const SAVE_CLIENT: &str =
    "INSERT INTO oauth_client (tenant, id, body, secret, active, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (tenant, id) DO UPDATE SET body = excluded.body, secret = excluded.secret, active = excluded.active, updated_at = excluded.updated_at";
const DELETE_CLIENT: &str = "DELETE FROM oauth_client WHERE tenant = $1 AND id = $2";
const ADD_ORIGIN: &str = "INSERT INTO oauth_origin (tenant, origin, client) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const NO_ORIGINS: &str = "DELETE FROM oauth_origin WHERE tenant = $1 AND client = $2";
const ORIGIN: &str = "SELECT 1 FROM oauth_origin o JOIN oauth_client c ON c.tenant = o.tenant AND c.id = o.client
    WHERE o.tenant = $1 AND o.origin = $2 AND c.active LIMIT 1";

fn read_client(row: &Row) -> Result<Client> {
    let metadata: Metadata = serde_json::from_str(row.text(1)?).map_err(broken)?;
    Ok(Client {
        id: row.string(0)?,
        metadata,
        secret: row.opt_blob(2)?.and_then(|s| s.try_into().ok()),
        active: row.bool(3)?,
        created_at: row.i64(4)?,
        updated_at: row.i64(5)?,
    })
}

pub(crate) async fn client(db: &Db, tenant: TenantId, id: &str) -> Result<Option<Client>> {
    // What cannot be stored is not there.
    if id.contains('\0') {
        return Ok(None);
    }
    let row = db.query_opt(tenant, CLIENT, &[id.into()]).await?;
    row.as_ref().map(read_client).transpose()
}

pub(crate) async fn client_in(tx: &mut Tx, id: &str) -> Result<Option<Client>> {
    let row = tx.query_opt(CLIENT, &[id.into()]).await?;
    row.as_ref().map(read_client).transpose()
}

pub(crate) async fn clients(db: &Db, tenant: TenantId) -> Result<Vec<Client>> {
    db.query(tenant, CLIENTS, &[]).await?.iter().map(read_client).collect()
}

pub(crate) async fn save_client(tx: &mut Tx, c: &Client) -> Result<()> {
    let body = serde_json::to_string(&c.metadata).map_err(broken)?;
    let args: [Val; 6] = [
        (&c.id).into(),
        body.into(),
        c.secret.map(|s| s.to_vec()).into(),
        c.active.into(),
        c.created_at.into(),
        c.updated_at.into(),
    ];
    tx.exec(SAVE_CLIENT, &args).await?;
    tx.exec(NO_ORIGINS, &[(&c.id).into()]).await?;
    for origin in c.origins() {
        tx.exec(ADD_ORIGIN, &[origin.into(), (&c.id).into()]).await?;
    }
    Ok(())
}

pub(crate) async fn delete_client(tx: &mut Tx, id: &str) -> Result<()> {
    tx.exec(NO_ORIGINS, &[id.into()]).await?;
    tx.exec(DELETE_CLIENT, &[id.into()]).await.map(|_| ())
}

/// Is this the web origin of a registered application?
pub(crate) async fn is_origin(db: &Db, tenant: TenantId, origin: &str) -> Result<bool> {
    Ok(db.query_opt(tenant, ORIGIN, &[origin.into()]).await?.is_some())
}

// ---- Requests and launches

const OLD_REQUESTS: &str = "DELETE FROM oauth_request WHERE tenant = $1 AND expires_at <= $2";
const ADD_REQUEST: &str =
    "INSERT INTO oauth_request (tenant, hash, client, pushed, body, expires_at) VALUES ($1, $2, $3, $4, $5, $6)";
const REQUEST: &str =
    "SELECT body FROM oauth_request WHERE tenant = $1 AND hash = $2 AND NOT pushed AND expires_at > $3";
const TAKE_REQUEST: &str =
    "DELETE FROM oauth_request WHERE tenant = $1 AND hash = $2 AND pushed = $3 AND expires_at > $4
    RETURNING body, client";
const OLD_LAUNCHES: &str = "DELETE FROM oauth_launch WHERE tenant = $1 AND expires_at <= $2";
const ADD_LAUNCH: &str = "INSERT INTO oauth_launch (tenant, hash, client, subject, patient, encounter, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const TAKE_LAUNCH: &str = "DELETE FROM oauth_launch WHERE tenant = $1 AND hash = $2 AND client = $3 AND expires_at > $4
    RETURNING subject, patient, encounter";

/// A request under way, by the hash of its handle.
pub(crate) async fn add_request(
    tx: &mut Tx,
    hash: Hash,
    client: &str,
    pushed: bool,
    body: &str,
    expires_at: Millis,
) -> Result<()> {
    let now = tx.now();
    tx.exec(OLD_REQUESTS, &[now.into()]).await?;
    let args = [
        hash.into(),
        client.into(),
        pushed.into(),
        body.into(),
        expires_at.into(),
    ];
    tx.exec(ADD_REQUEST, &args).await.map(|_| ())
}

pub(crate) async fn request(db: &Db, tenant: TenantId, hash: Hash, now: Millis) -> Result<Option<String>> {
    let row = db.query_opt(tenant, REQUEST, &[hash.into(), now.into()]).await?;
    row.map(|r| r.string(0)).transpose()
}

/// Takes a request out: (its body, its client).
pub(crate) async fn take_request(tx: &mut Tx, hash: Hash, pushed: bool) -> Result<Option<(String, String)>> {
    let now = tx.now();
    let row = tx
        .query_opt(TAKE_REQUEST, &[hash.into(), pushed.into(), now.into()])
        .await?;
    row.map(|r| Ok((r.string(0)?, r.string(1)?))).transpose()
}

/// The context of an EHR launch.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Launch {
    /// Who opened the application: nobody else may go on.
    pub(crate) subject: String,
    pub(crate) patient: String,
    pub(crate) encounter: Option<String>,
}

pub(crate) async fn add_launch(tx: &mut Tx, hash: Hash, client: &str, l: &Launch, expires_at: Millis) -> Result<()> {
    let now = tx.now();
    tx.exec(OLD_LAUNCHES, &[now.into()]).await?;
    let args: [Val; 6] = [
        hash.into(),
        client.into(),
        (&l.subject).into(),
        (&l.patient).into(),
        l.encounter.clone().into(),
        expires_at.into(),
    ];
    tx.exec(ADD_LAUNCH, &args).await.map(|_| ())
}

pub(crate) async fn take_launch(tx: &mut Tx, hash: Hash, client: &str) -> Result<Option<Launch>> {
    let now = tx.now();
    let row = tx
        .query_opt(TAKE_LAUNCH, &[hash.into(), client.into(), now.into()])
        .await?;
    row.map(|r| {
        Ok(Launch {
            subject: r.string(0)?,
            patient: r.string(1)?,
            encounter: r.opt_text(2)?.map(str::to_owned),
        })
    })
    .transpose()
}

// ---- Grants

/// What a user allowed a client.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) id: Uuid,
    pub(crate) client: String,
    pub(crate) subject: String,
    pub(crate) scopes: String,
    pub(crate) patient: Option<String>,
    pub(crate) encounter: Option<String>,
    /// By an EHR launch.
    pub(crate) launched: bool,
    /// The session in which the user allowed it.
    pub(crate) session: Option<Uuid>,
    pub(crate) assurance: Assurance,
    /// When the user had last proved who they are.
    pub(crate) auth_time: Millis,
    pub(crate) created_at: Millis,
    pub(crate) used_at: Millis,
    pub(crate) ends_at: Millis,
    pub(crate) ended_at: Option<Millis>,
    /// The key its tokens are bound to.
    pub(crate) jkt: Option<String>,
}

impl Grant {
    /// Was the same allowed, of the same and in the same session, by the same proof of who that is?
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        let of = |g: &Self| {
            let session = (g.session, g.assurance, g.auth_time);
            let whose = (g.patient.clone(), g.encounter.clone(), g.launched, g.jkt.clone());
            (g.client.clone(), g.subject.clone(), g.scopes.clone(), session, whose)
        };
        of(self) == of(other)
    }
}

const ADD_GRANT: &str =
    "INSERT INTO oauth_grant (tenant, id, client, subject, scopes, patient, encounter, launched, session, assurance,
    auth_time, created_at, used_at, ends_at, jkt)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14)";
const GRANT: &str = "SELECT id, client, subject, scopes, patient, encounter, launched, session, assurance, auth_time, created_at, used_at,
    ends_at, ended_at, jkt FROM oauth_grant WHERE tenant = $1 AND id = $2";
const GRANT_OF_SESSION: &str =
    "SELECT g.id, g.client, g.subject, g.scopes, g.patient, g.encounter, g.launched, g.session, g.assurance,
    g.auth_time, g.created_at, g.used_at, g.ends_at, g.ended_at, g.jkt FROM oauth_grant g
    JOIN oauth_access a ON a.tenant = g.tenant AND a.grant_id = g.id WHERE g.tenant = $1 AND a.session = $2";
const GRANTS_OF: &str =
    "SELECT id, client, subject, scopes, patient, encounter, launched, session, assurance, auth_time, created_at,
    used_at, ends_at, ended_at, jkt FROM oauth_grant WHERE tenant = $1 AND subject = $2 AND ended_at IS NULL AND ends_at > $3
    ORDER BY created_at DESC, id";
const GRANTS_OF_CLIENT: &str =
    "SELECT id FROM oauth_grant WHERE tenant = $1 AND client = $2 AND ended_at IS NULL AND ends_at > $3";
const GRANT_USED: &str = "UPDATE oauth_grant SET used_at = $3 WHERE tenant = $1 AND id = $2";
const PROLONG_GRANT: &str = "UPDATE oauth_grant SET ends_at = $3 WHERE tenant = $1 AND id = $2 AND ends_at < $3";
const BIND_GRANT: &str = "UPDATE oauth_grant SET jkt = $3 WHERE tenant = $1 AND id = $2";
const NARROW_GRANT: &str = "UPDATE oauth_grant SET scopes = $3 WHERE tenant = $1 AND id = $2";
const END_GRANT: &str = "UPDATE oauth_grant SET ended_at = $3 WHERE tenant = $1 AND id = $2 AND ended_at IS NULL";
const OLD_GRANTS: &str = "DELETE FROM oauth_grant WHERE tenant = $1 AND ends_at < $2";
const ADD_ACCESS: &str = "INSERT INTO oauth_access (tenant, session, grant_id, expires_at) VALUES ($1, $2, $3, $4)";
const OLD_ACCESS: &str = "DELETE FROM oauth_access WHERE tenant = $1 AND expires_at <= $2";
const NO_ACCESS: &str = "DELETE FROM oauth_access WHERE tenant = $1 AND grant_id = $2 RETURNING session";

fn assurance(name: &str) -> Assurance {
    [Assurance::Two, Assurance::One]
        .into_iter()
        .find(|a| a.name() == name)
        .unwrap_or_default()
}

fn read_grant(row: &Row) -> Result<Grant> {
    let text = |at| row.opt_text(at).map(|t| t.map(str::to_owned));
    Ok(Grant {
        id: row.uuid(0)?,
        client: row.string(1)?,
        subject: row.string(2)?,
        scopes: row.string(3)?,
        patient: text(4)?,
        encounter: text(5)?,
        launched: row.bool(6)?,
        session: row.opt_uuid(7)?,
        assurance: assurance(row.text(8)?),
        auth_time: row.i64(9)?,
        created_at: row.i64(10)?,
        used_at: row.i64(11)?,
        ends_at: row.i64(12)?,
        ended_at: row.opt_i64(13)?,
        jkt: text(14)?,
    })
}

pub(crate) async fn add_grant(tx: &mut Tx, g: &Grant) -> Result<()> {
    let now = tx.now();
    // Kept a while longer, so that a late replay is still known for what it is.
    tx.exec(OLD_GRANTS, &[(now - 30 * DAY).into()]).await?;
    let args: [Val; 13] = [
        g.id.into(),
        (&g.client).into(),
        (&g.subject).into(),
        (&g.scopes).into(),
        g.patient.clone().into(),
        g.encounter.clone().into(),
        g.launched.into(),
        g.session.into(),
        g.assurance.name().into(),
        g.auth_time.into(),
        g.created_at.into(),
        g.ends_at.into(),
        g.jkt.clone().into(),
    ];
    tx.exec(ADD_GRANT, &args).await.map(|_| ())
}

pub(crate) async fn grant_in(tx: &mut Tx, id: Uuid) -> Result<Option<Grant>> {
    let row = tx.query_opt(GRANT, &[id.into()]).await?;
    row.as_ref().map(read_grant).transpose()
}

pub(crate) async fn grant(db: &Db, tenant: TenantId, id: Uuid) -> Result<Option<Grant>> {
    let row = db.query_opt(tenant, GRANT, &[id.into()]).await?;
    row.as_ref().map(read_grant).transpose()
}

pub(crate) async fn grant_of_session(db: &Db, tenant: TenantId, session: Uuid) -> Result<Option<Grant>> {
    let row = db.query_opt(tenant, GRANT_OF_SESSION, &[session.into()]).await?;
    row.as_ref().map(read_grant).transpose()
}

/// The grants of a subject that stand, the newest first.
pub(crate) async fn grants_of(db: &Db, tenant: TenantId, subject: &str, now: Millis) -> Result<Vec<Grant>> {
    let rows = db.query(tenant, GRANTS_OF, &[subject.into(), now.into()]).await?;
    rows.iter().map(read_grant).collect()
}

/// The same, in the transaction that goes by them.
pub(crate) async fn grants_of_in(tx: &mut Tx, subject: &str) -> Result<Vec<Grant>> {
    let now = tx.now();
    let rows = tx.query(GRANTS_OF, &[subject.into(), now.into()]).await?;
    rows.iter().map(read_grant).collect()
}

/// A grant that stands goes on until then.
pub(crate) async fn prolong_grant(tx: &mut Tx, id: Uuid, ends_at: Millis) -> Result<()> {
    tx.exec(PROLONG_GRANT, &[id.into(), ends_at.into()]).await.map(|_| ())
}

pub(crate) async fn grants_of_client(tx: &mut Tx, client: &str) -> Result<Vec<Uuid>> {
    let now = tx.now();
    let rows = tx.query(GRANTS_OF_CLIENT, &[client.into(), now.into()]).await?;
    rows.iter().map(|r| r.uuid(0)).collect()
}

pub(crate) async fn grant_used(tx: &mut Tx, id: Uuid) -> Result<()> {
    let now = tx.now();
    tx.exec(GRANT_USED, &[id.into(), now.into()]).await.map(|_| ())
}

/// Binds a grant to a key, from its first token on.
pub(crate) async fn bind_grant(tx: &mut Tx, id: Uuid, jkt: &str) -> Result<()> {
    tx.exec(BIND_GRANT, &[id.into(), jkt.into()]).await.map(|_| ())
}

/// Leaves a grant with fewer scopes.
pub(crate) async fn narrow_grant(tx: &mut Tx, id: Uuid, scopes: &str) -> Result<()> {
    tx.exec(NARROW_GRANT, &[id.into(), scopes.into()]).await.map(|_| ())
}

/// Ends the access tokens of a grant; its refresh token goes on.
pub(crate) async fn end_access(tx: &mut Tx, sessions: &Sessions, id: Uuid) -> Result<()> {
    for row in tx.query(NO_ACCESS, &[id.into()]).await? {
        sessions.revoke(tx, row.uuid(0)?).await?;
    }
    Ok(())
}

/// Ends a grant with every token that came of it. `false` when it had ended before.
pub(crate) async fn end_grant(tx: &mut Tx, sessions: &Sessions, id: Uuid) -> Result<bool> {
    let now = tx.now();
    let ended = tx.exec(END_GRANT, &[id.into(), now.into()]).await? == 1;
    end_access(tx, sessions, id).await?;
    Ok(ended)
}

pub(crate) async fn add_access(tx: &mut Tx, session: Uuid, grant: Uuid, expires_at: Millis) -> Result<()> {
    let now = tx.now();
    tx.exec(OLD_ACCESS, &[now.into()]).await?;
    let args = [session.into(), grant.into(), expires_at.into()];
    tx.exec(ADD_ACCESS, &args).await.map(|_| ())
}

// ---- Applications that are told of a session's end

const TELL_OF: &str = "INSERT INTO oauth_told (tenant, grant_id, session, client, subject, issuer, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
/// Sessions are the kernel's; that one is not there, or is over, is all that is asked of them.
const TOLD_OF_ENDED: &str = "SELECT o.grant_id, o.client, o.subject, o.issuer FROM oauth_told o
    LEFT JOIN session s ON s.tenant = o.tenant AND s.id = o.session
    WHERE o.tenant = $1 AND (s.id IS NULL OR s.expires_at <= $2 OR (s.idle_ms IS NOT NULL AND s.seen_at + s.idle_ms <= $2))
    ORDER BY o.created_at, o.grant_id LIMIT 200";
const NOT_TOLD: &str = "DELETE FROM oauth_told WHERE tenant = $1 AND grant_id = $2";

/// Who is to be told that a session is over.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Told {
    pub(crate) grant: Uuid,
    pub(crate) client: String,
    pub(crate) subject: String,
    pub(crate) issuer: String,
}

pub(crate) async fn tell_of(tx: &mut Tx, g: &Grant, session: Uuid, issuer: &str) -> Result<()> {
    let args: [Val; 6] = [
        g.id.into(),
        session.into(),
        (&g.client).into(),
        (&g.subject).into(),
        issuer.into(),
        g.created_at.into(),
    ];
    tx.exec(TELL_OF, &args).await.map(|_| ())
}

fn read_told(row: &Row) -> Result<Told> {
    Ok(Told {
        grant: row.uuid(0)?,
        client: row.string(1)?,
        subject: row.string(2)?,
        issuer: row.string(3)?,
    })
}

pub(crate) async fn told_of_ended(db: &Db, tenant: TenantId, now: Millis) -> Result<Vec<Told>> {
    let rows = db.query(tenant, TOLD_OF_ENDED, &[now.into()]).await?;
    rows.iter().map(read_told).collect()
}

/// `false` when another server has taken it.
pub(crate) async fn take_told(tx: &mut Tx, grant: Uuid) -> Result<bool> {
    Ok(tx.exec(NOT_TOLD, &[grant.into()]).await? == 1)
}

// ---- Codes and refresh tokens

/// A code, as it was given out.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    pub(crate) grant: Uuid,
    pub(crate) client: String,
    pub(crate) redirect_uri: String,
    pub(crate) challenge: String,
    pub(crate) nonce: Option<String>,
    pub(crate) expires_at: Millis,
}

const OLD_CODES: &str = "DELETE FROM oauth_code WHERE tenant = $1 AND expires_at < $2";
const ADD_CODE: &str =
    "INSERT INTO oauth_code (tenant, hash, grant_id, client, redirect_uri, challenge, nonce, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const CODE: &str = "SELECT grant_id, client, redirect_uri, challenge, nonce, expires_at FROM oauth_code
    WHERE tenant = $1 AND hash = $2";
const USE_CODE: &str = "UPDATE oauth_code SET used_at = $3 WHERE tenant = $1 AND hash = $2 AND used_at IS NULL";
const OLD_REFRESH: &str = "DELETE FROM oauth_refresh WHERE tenant = $1 AND expires_at < $2";
const ADD_REFRESH: &str = "INSERT INTO oauth_refresh (tenant, hash, grant_id, expires_at) VALUES ($1, $2, $3, $4)";
const FIND_REFRESH: &str = "SELECT grant_id, expires_at, used_at FROM oauth_refresh WHERE tenant = $1 AND hash = $2";
const USE_REFRESH: &str = "UPDATE oauth_refresh SET used_at = $3 WHERE tenant = $1 AND hash = $2 AND used_at IS NULL";
const OLD_JTI: &str = "DELETE FROM oauth_jti WHERE tenant = $1 AND expires_at < $2";
const USE_JTI: &str =
    "INSERT INTO oauth_jti (tenant, client, jti, expires_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";

pub(crate) async fn add_code(tx: &mut Tx, hash: Hash, c: &Code) -> Result<()> {
    let now = tx.now();
    // A used code is known as used for a day.
    tx.exec(OLD_CODES, &[(now - DAY).into()]).await?;
    let args: [Val; 7] = [
        hash.into(),
        c.grant.into(),
        (&c.client).into(),
        (&c.redirect_uri).into(),
        (&c.challenge).into(),
        c.nonce.clone().into(),
        c.expires_at.into(),
    ];
    tx.exec(ADD_CODE, &args).await.map(|_| ())
}

pub(crate) async fn code(tx: &mut Tx, hash: Hash) -> Result<Option<Code>> {
    let row = tx.query_opt(CODE, &[hash.into()]).await?;
    row.map(|r| {
        Ok(Code {
            grant: r.uuid(0)?,
            client: r.string(1)?,
            redirect_uri: r.string(2)?,
            challenge: r.string(3)?,
            nonce: r.opt_text(4)?.map(str::to_owned),
            expires_at: r.i64(5)?,
        })
    })
    .transpose()
}

/// `false` when it was used before.
pub(crate) async fn use_code(tx: &mut Tx, hash: Hash) -> Result<bool> {
    let now = tx.now();
    Ok(tx.exec(USE_CODE, &[hash.into(), now.into()]).await? == 1)
}

/// A refresh token, as it was given out.
#[derive(Clone, Debug)]
pub(crate) struct Refresh {
    pub(crate) grant: Uuid,
    pub(crate) expires_at: Millis,
    pub(crate) used_at: Option<Millis>,
}

fn read_refresh(row: &Row) -> Result<Refresh> {
    Ok(Refresh {
        grant: row.uuid(0)?,
        expires_at: row.i64(1)?,
        used_at: row.opt_i64(2)?,
    })
}

pub(crate) async fn add_refresh(tx: &mut Tx, hash: Hash, grant: Uuid, expires_at: Millis) -> Result<()> {
    let now = tx.now();
    tx.exec(OLD_REFRESH, &[(now - DAY).into()]).await?;
    let args = [hash.into(), grant.into(), expires_at.into()];
    tx.exec(ADD_REFRESH, &args).await.map(|_| ())
}

pub(crate) async fn refresh_in(tx: &mut Tx, hash: Hash) -> Result<Option<Refresh>> {
    let row = tx.query_opt(FIND_REFRESH, &[hash.into()]).await?;
    row.as_ref().map(read_refresh).transpose()
}

pub(crate) async fn refresh(db: &Db, tenant: TenantId, hash: Hash) -> Result<Option<Refresh>> {
    let row = db.query_opt(tenant, FIND_REFRESH, &[hash.into()]).await?;
    row.as_ref().map(read_refresh).transpose()
}

pub(crate) async fn use_refresh(tx: &mut Tx, hash: Hash) -> Result<bool> {
    let now = tx.now();
    Ok(tx.exec(USE_REFRESH, &[hash.into(), now.into()]).await? == 1)
}

/// `false` when this client used it before.
pub(crate) async fn use_jti(tx: &mut Tx, client: &str, jti: Hash, expires_at: Millis) -> Result<bool> {
    let now = tx.now();
    tx.exec(OLD_JTI, &[now.into()]).await?;
    Ok(tx
        .exec(USE_JTI, &[client.into(), jti.into(), expires_at.into()])
        .await?
        == 1)
}

// ---- Signing keys

const KEYS: &str = "SELECT kid, sealed, jwk, active_from FROM oauth_key WHERE tenant = $1 ORDER BY active_from, kid";
const ADD_KEY: &str = "INSERT INTO oauth_key (tenant, kid, sealed, jwk, active_from) VALUES ($1, $2, $3, $4, $5)";

fn read_key(row: &Row) -> Result<Stored> {
    Ok(Stored {
        kid: row.string(0)?,
        sealed: row.blob(1)?.to_vec(),
        jwk: serde_json::from_str(row.text(2)?).map_err(broken)?,
        active_from: row.i64(3)?,
    })
}

pub(crate) async fn keys(db: &Db, tenant: TenantId) -> Result<Vec<Stored>> {
    db.query(tenant, KEYS, &[]).await?.iter().map(read_key).collect()
}

pub(crate) async fn keys_in(tx: &mut Tx) -> Result<Vec<Stored>> {
    tx.query(KEYS, &[]).await?.iter().map(read_key).collect()
}

pub(crate) async fn insert_key(tx: &mut Tx, key: &Stored) -> Result<()> {
    let args: [Val; 4] = [
        (&key.kid).into(),
        key.sealed.as_slice().into(),
        key.jwk.to_string().into(),
        key.active_from.into(),
    ];
    tx.exec(ADD_KEY, &args).await.map(|_| ())
}
