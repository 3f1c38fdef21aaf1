//! Every SQL text of sign-in through outside providers.

use super::provider::Provider;
use medtech_kernel::{
    Db, Error, Result, Row, TenantId, Tx, Val,
    clock::Millis,
    vault::{Blind, Cell, Sheet},
};
use uuid::Uuid;

type Hash = [u8; 32];

/// Who somebody is at a provider: often an address of theirs.
const SUB: Blind = Blind::new("sso_identity", "sub");
pub(crate) const SHEET: Sheet = Sheet {
    table: "sso_identity",
    key: &["provider", "sub"],
    cells: &[Cell::Blind(SUB, None)],
};

const PROVIDERS: &str =
    "SELECT id, body, sealed, active, created_at FROM sso_provider WHERE tenant = $1 ORDER BY created_at, id";
const PROVIDER: &str = "SELECT id, body, sealed, active, created_at FROM sso_provider WHERE tenant = $1 AND id = $2";
const SAVE: &str =
    "INSERT INTO sso_provider (tenant, id, body, sealed, active, created_at) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (tenant, id) DO UPDATE SET body = excluded.body, sealed = excluded.sealed, active = excluded.active";
const DELETE: &str = "DELETE FROM sso_provider WHERE tenant = $1 AND id = $2";
const NO_IDENTITIES: &str = "DELETE FROM sso_identity WHERE tenant = $1 AND provider = $2";
const OLD: &str = "DELETE FROM sso_state WHERE tenant = $1 AND expires_at <= $2";
const BEGIN: &str = "INSERT INTO sso_state (tenant, hash, provider, browser, nonce, verifier, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
const TAKE: &str = "DELETE FROM sso_state WHERE tenant = $1 AND hash = $2 AND expires_at > $3
    RETURNING provider, browser, nonce, verifier";
const WHO: &str = "SELECT user_id FROM sso_identity WHERE tenant = $1 AND provider = $2
    AND (sub = $3 OR sub = $4)";
// As an older release wrote it; where blind and plain values are the same, it stands already.
const MOVE: &str = "UPDATE sso_identity SET sub = $3 WHERE tenant = $1 AND provider = $2 AND sub = $4
    AND NOT EXISTS (SELECT 1 FROM sso_identity known WHERE known.tenant = $1 AND known.provider = $2 AND known.sub = $3)";
const LINK: &str = "INSERT INTO sso_identity (tenant, provider, sub, user_id, created_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING";

fn provider_of(row: &Row) -> Result<Provider> {
    Ok(Provider {
        id: row.string(0)?,
        settings: serde_json::from_str(row.text(1)?).map_err(|e| Error::internal("sso.stored", e))?,
        sealed: row.opt_blob(2)?.map(<[u8]>::to_vec),
        active: row.bool(3)?,
        created_at: row.i64(4)?,
    })
}

pub(super) async fn providers(db: &Db, tenant: TenantId) -> Result<Vec<Provider>> {
    db.query(tenant, PROVIDERS, &[])
        .await?
        .iter()
        .map(provider_of)
        .collect()
}

pub(super) async fn provider(db: &Db, tenant: TenantId, id: &str) -> Result<Option<Provider>> {
    let row = db.query_opt(tenant, PROVIDER, &[id.into()]).await?;
    row.as_ref().map(provider_of).transpose()
}

pub(super) async fn save(tx: &mut Tx, p: &Provider) -> Result<()> {
    let body = serde_json::to_string(&p.settings).map_err(|e| Error::internal("sso.stored", e))?;
    let args: [Val; 5] = [
        (&p.id).into(),
        body.into(),
        p.sealed.clone().into(),
        p.active.into(),
        p.created_at.into(),
    ];
    tx.exec(SAVE, &args).await.map(|_| ())
}

/// Forgets who somebody was at a provider: it, or the issuer behind it, is another now.
pub(super) async fn forget(tx: &mut Tx, provider: &str) -> Result<()> {
    tx.exec(NO_IDENTITIES, &[provider.into()]).await.map(|_| ())
}

pub(super) async fn delete(tx: &mut Tx, id: &str) -> Result<()> {
    forget(tx, id).await?;
    tx.exec(DELETE, &[id.into()]).await.map(|_| ())
}

/// A sign-in under way.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) provider: String,
    pub(super) browser: Hash,
    pub(super) nonce: String,
    pub(super) verifier: String,
}

pub(super) async fn begin(tx: &mut Tx, hash: Hash, s: &State, expires_at: Millis) -> Result<()> {
    let now = tx.now();
    tx.exec(OLD, &[now.into()]).await?;
    let args: [Val; 6] = [
        hash.into(),
        (&s.provider).into(),
        s.browser.into(),
        (&s.nonce).into(),
        (&s.verifier).into(),
        expires_at.into(),
    ];
    tx.exec(BEGIN, &args).await.map(|_| ())
}

pub(super) async fn take(tx: &mut Tx, hash: Hash) -> Result<Option<State>> {
    let now = tx.now();
    let row = tx.query_opt(TAKE, &[hash.into(), now.into()]).await?;
    row.map(|r| {
        Ok(State {
            provider: r.string(0)?,
            browser: r.blob(1)?.try_into().unwrap_or_default(),
            nonce: r.string(2)?,
            verifier: r.string(3)?,
        })
    })
    .transpose()
}

pub(super) async fn who(db: &Db, tenant: TenantId, provider: &str, sub: &str) -> Result<Option<Uuid>> {
    let row = db
        .query_opt(tenant, WHO, &[provider.into(), SUB.of(sub), sub.into()])
        .await?;
    row.map(|r| r.uuid(0)).transpose()
}

pub(super) async fn link(tx: &mut Tx, provider: &str, sub: &str, user: Uuid) -> Result<()> {
    let now = tx.now();
    // One row a person: with two of them, neither could be sealed later.
    tx.exec(MOVE, &[provider.into(), SUB.of(sub), sub.into()]).await?;
    tx.exec(LINK, &[provider.into(), SUB.of(sub), user.into(), now.into()])
        .await
        .map(|_| ())
}

/// The same, as it stands beside the session that came of it.
const SESSION_SUB: Blind = Blind::new("sso_session", "sub");
const OPENED: &str =
    "INSERT INTO sso_session (tenant, session, provider, sub, sid, created_at) VALUES ($1, $2, $3, $4, $5, $6)";
const OLD_SESSIONS: &str = "DELETE FROM sso_session WHERE tenant = $1 AND created_at < $2";
const BY_SID: &str = "SELECT session FROM sso_session WHERE tenant = $1 AND provider = $2 AND sid = $3";
const BY_SUB: &str = "SELECT session FROM sso_session WHERE tenant = $1 AND provider = $2 AND sub = $3";
const BY_BOTH: &str = "SELECT session FROM sso_session WHERE tenant = $1 AND provider = $2 AND sub = $3 AND sid = $4";
const NO_SESSION: &str = "DELETE FROM sso_session WHERE tenant = $1 AND session = $2";

/// A session of ours came of one at the provider.
pub(super) async fn opened(tx: &mut Tx, session: Uuid, provider: &str, sub: &str, sid: Option<&str>) -> Result<()> {
    let now = tx.now();
    // None lives longer than this.
    tx.exec(OLD_SESSIONS, &[(now - 2 * crate::SESSION).into()]).await?;
    let args: [Val; 5] = [
        session.into(),
        provider.into(),
        SESSION_SUB.of(sub),
        sid.map(str::to_owned).into(),
        now.into(),
    ];
    tx.exec(OPENED, &args).await.map(|_| ())
}

/// The sessions of ours that a provider means: of its session, of its user, or of both where it names both.
pub(super) async fn sessions(tx: &mut Tx, provider: &str, sub: Option<&str>, sid: Option<&str>) -> Result<Vec<Uuid>> {
    let rows = match (sub, sid) {
        (Some(sub), Some(sid)) => {
            tx.query(BY_BOTH, &[provider.into(), SESSION_SUB.of(sub), sid.into()])
                .await?
        }
        (Some(sub), None) => tx.query(BY_SUB, &[provider.into(), SESSION_SUB.of(sub)]).await?,
        (None, Some(sid)) => tx.query(BY_SID, &[provider.into(), sid.into()]).await?,
        (None, None) => Vec::new(),
    };
    rows.iter().map(|r| r.uuid(0)).collect()
}

pub(super) async fn no_sessions(tx: &mut Tx, sessions: &[Uuid]) -> Result<()> {
    for session in sessions {
        tx.exec(NO_SESSION, &[(*session).into()]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use medtech_kernel::{db::Engine, testkit::on_both_engines, vault};

    const OLD_LINK: &str =
        "INSERT INTO sso_identity (tenant, provider, sub, user_id, created_at) VALUES ($1, $2, $3, $4, $5)";
    const SHEETS: &[Sheet] = &[SHEET];
    const LINKS: &str = "SELECT sub, user_id FROM sso_identity WHERE tenant = $1 ORDER BY user_id";

    #[tokio::test]
    async fn whoever_signs_in_before_the_sweep_has_one_row_and_the_sweep_goes_through() {
        on_both_engines(&[crate::store::MIGRATIONS, medtech_fhir::MIGRATIONS], |w| {
            Box::pin(async move {
                let north = w.north.id;
                let (ada, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
                let linked = w.ctx.db.write(north, move |tx| {
                    Box::pin(async move {
                        for (sub, user) in [("ada@quill", ada), ("bob@quill", bob)] {
                            tx.exec(OLD_LINK, &["p".into(), sub.into(), user.into(), 0_i64.into()])
                                .await?;
                        }
                        // Twice, as people do.
                        link(tx, "p", "ada@quill", ada).await?;
                        link(tx, "p", "ada@quill", ada).await
                    })
                });
                linked.await?;
                let links = w.ctx.db.query(north, LINKS, &[]).await?;
                let whose: Vec<Uuid> = links.iter().map(|r| r.uuid(1)).collect::<Result<_>>()?;
                assert_eq!(whose, [ada, bob]);
                let left = u64::from(w.ctx.db.engine() == Engine::Postgres);
                assert_eq!(vault::sweep(&w.ctx.db, north, SHEETS).await?, left);
                for (sub, user) in [("ada@quill", ada), ("bob@quill", bob)] {
                    assert_eq!(who(&w.ctx.db, north, "p", sub).await?, Some(user));
                }
                Ok(())
            })
        })
        .await;
    }
}
