//! The tables of certificates that an authority issues, in the system tenant's own store: every statement, and nothing
//! else. Keys stand there sealed.

use medtech_kernel::{
    Db, Error, Result, Row, TenantId, Tx, Val,
    audit::{self, Entry},
    clock::{Millis, rfc3339},
    vault::{Scope, Texts},
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

const ACCOUNT: &str = "SELECT credentials FROM acme_account WHERE tenant = $1 AND directory = $2";
const ADD_ACCOUNT: &str = "INSERT INTO acme_account (tenant, directory, credentials, made_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (tenant, directory) DO UPDATE SET credentials = $3, made_at = $4";
const FORGET_ACCOUNT: &str = "DELETE FROM acme_account WHERE tenant = $1 AND directory = $2";
const HOSTS: &str = "SELECT host, next_at, claimed_until, failures, why, issued_at FROM acme_host
    WHERE tenant = $1 ORDER BY next_at, host";
const ADD: &str = "INSERT INTO acme_host (tenant, host, next_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const REMOVE: &str = "DELETE FROM acme_host WHERE tenant = $1 AND host = $2";
const CLAIM: &str = "UPDATE acme_host SET claimed_until = $3
    WHERE tenant = $1 AND host = $2 AND next_at <= $4 AND claimed_until <= $4";
const ISSUED: &str =
    "UPDATE acme_host SET pair = $3, issued_at = $4, next_at = $5, claimed_until = 0, failures = 0, why = ''
    WHERE tenant = $1 AND host = $2";
const FAILED: &str = "UPDATE acme_host SET next_at = $3, claimed_until = 0, failures = failures + 1, why = $4
    WHERE tenant = $1 AND host = $2";
const WAIT: &str = "UPDATE acme_host SET next_at = $2 WHERE tenant = $1 AND next_at < $2";
const PAIRS: &str = "SELECT host, pair FROM acme_host WHERE tenant = $1 AND pair IS NOT NULL ORDER BY host";
const VERSIONS: &str = "SELECT host, issued_at FROM acme_host WHERE tenant = $1 AND pair IS NOT NULL ORDER BY host";
const ANSWER: &str = "INSERT INTO acme_answer (tenant, kind, name, answer, ends_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant, kind, name) DO UPDATE SET answer = $4, ends_at = $5";
const ANSWERED: &str = "SELECT answer FROM acme_answer WHERE tenant = $1 AND kind = $2 AND name = $3 AND ends_at > $4";
const OVER: &str = "DELETE FROM acme_answer WHERE tenant = $1 AND (kind = $2 AND name = $3 OR ends_at <= $4)";

/// How it stands with one name.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) host: String,
    pub(crate) next_at: Millis,
    pub(super) claimed_until: Millis,
    /// In a row.
    pub(crate) failures: i64,
    pub(crate) why: String,
    /// 0 before the first.
    pub(crate) issued_at: Millis,
}

/// A certificate's chain and its key, in PEM.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

fn place(kind: &str, name: &str) -> String {
    format!("acme {kind} {name}")
}

fn json(e: serde_json::Error) -> Error {
    Error::internal("acme.json", e)
}

pub(super) async fn account(db: &Db, directory: &str) -> Result<Option<Zeroizing<String>>> {
    let rows = db.query(TenantId::SYSTEM, ACCOUNT, &[directory.into()]).await?;
    let texts = Texts::of(db, TenantId::SYSTEM, &rows, 0).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let text = texts.open(&place("account", directory), row.text(0)?)?;
    Ok(Some(Zeroizing::new(text)))
}

pub(super) async fn keep_account(db: &Db, directory: &str, credentials: Zeroizing<String>) -> Result<()> {
    let directory = directory.to_owned();
    let work = db.write(TenantId::SYSTEM, move |tx| {
        Box::pin(async move {
            let place = place("account", &directory);
            let sealed = tx.seal_json(Scope::TENANT, &place, &credentials).await?;
            let now = tx.now();
            tx.exec(ADD_ACCOUNT, &[(&directory).into(), sealed.into(), now.into()])
                .await?;
            noted(tx, "create", "acme-account", "success", &directory).await
        })
    });
    work.await
}

/// The authority does not know it any more.
pub(super) async fn forget_account(db: &Db, directory: &str) -> Result<()> {
    let directory = directory.to_owned();
    let work = db.write(TenantId::SYSTEM, move |tx| {
        Box::pin(async move {
            tx.exec(FORGET_ACCOUNT, &[(&directory).into()]).await?;
            noted(tx, "delete", "acme-account", "success", &directory).await
        })
    });
    work.await
}

/// Every name, whichever is due first before the others.
pub(crate) async fn hosts(db: &Db) -> Result<Vec<Host>> {
    let one = |row: &Row| {
        Ok(Host {
            host: row.string(0)?,
            next_at: row.i64(1)?,
            claimed_until: row.i64(2)?,
            failures: row.i64(3)?,
            why: row.string(4)?,
            issued_at: row.i64(5)?,
        })
    };
    db.query(TenantId::SYSTEM, HOSTS, &[]).await?.iter().map(one).collect()
}

/// Notes names that are new, to be asked for at once, and lets those go that nobody has any more.
pub(super) async fn change(db: &Db, new: Vec<String>, gone: Vec<String>) -> Result<()> {
    let work = db.write(TenantId::SYSTEM, move |tx| {
        Box::pin(async move {
            let now = tx.now();
            for host in &new {
                if tx.exec(ADD, &[host.into(), now.into()]).await? > 0 {
                    noted(tx, "create", &format!("certificate:{host}"), "success", "wanted").await?;
                }
            }
            for host in &gone {
                if tx.exec(REMOVE, &[host.into()]).await? > 0 {
                    noted(
                        tx,
                        "delete",
                        &format!("certificate:{host}"),
                        "success",
                        "no clinic's name",
                    )
                    .await?;
                }
            }
            Ok(())
        })
    });
    work.await
}

/// One server asks for a name at a time: false when it is not ours to ask now.
pub(super) async fn claim(db: &Db, host: &str, until: Millis, now: Millis) -> Result<bool> {
    let args: [Val; 3] = [host.into(), until.into(), now.into()];
    let work = db.write(TenantId::SYSTEM, move |tx| {
        Box::pin(async move { Ok(tx.exec(CLAIM, &args).await? > 0) })
    });
    work.await
}

pub(super) async fn issued(db: &Db, host: &str, pair: Stored, next_at: Millis, ends: Millis) -> Result<()> {
    let host = host.to_owned();
    let work = db.write(TenantId::SYSTEM, move |tx| {
        Box::pin(async move {
            let text = Zeroizing::new(serde_json::to_string(&pair).map_err(json)?);
            let sealed = tx.seal_json(Scope::TENANT, &place("pair", &host), &text).await?;
            let now = tx.now();
            let args = [(&host).into(), sealed.into(), now.into(), next_at.into()];
            tx.exec(ISSUED, &args).await?;
            let detail = format!("issued, ends {}", rfc3339(ends));
            noted(tx, "update", &format!("certificate:{host}"), "success", &detail).await
        })
    });
    work.await
}

pub(super) async fn failed(db: &Db, host: &str, next_at: Millis, why: &str) -> Result<()> {
    let (host, why) = (host.to_owned(), why.to_owned());
    let work = db.write(TenantId::SYSTEM, move |tx| {
        Box::pin(async move {
            tx.exec(FAILED, &[(&host).into(), next_at.into(), (&why).into()])
                .await?;
            noted(tx, "update", &format!("certificate:{host}"), "failure", "not issued").await
        })
    });
    work.await
}

/// Nobody asks for anything before then.
pub(super) async fn wait(db: &Db, until: Millis) -> Result<()> {
    let work = db.write(TenantId::SYSTEM, move |tx| {
        Box::pin(async move { tx.exec(WAIT, &[until.into()]).await.map(drop) })
    });
    work.await
}

/// What tells which certificates there are.
pub(super) async fn versions(db: &Db) -> Result<String> {
    let rows = db.query(TenantId::SYSTEM, VERSIONS, &[]).await?;
    let one = |row: &Row| Ok(format!("{} {}", row.text(0)?, row.i64(1)?));
    Ok(rows.iter().map(one).collect::<Result<Vec<_>>>()?.join("\n"))
}

pub(super) async fn pairs(db: &Db) -> Result<Vec<(String, Stored)>> {
    let rows = db.query(TenantId::SYSTEM, PAIRS, &[]).await?;
    let texts = Texts::of(db, TenantId::SYSTEM, &rows, 1).await?;
    let one = |row: &Row| {
        let host = row.string(0)?;
        let text = Zeroizing::new(texts.open(&place("pair", &host), row.text(1)?)?);
        Ok((host, serde_json::from_str(&text).map_err(json)?))
    };
    rows.iter().map(one).collect()
}

pub(super) async fn put_answer(db: &Db, kind: &'static str, name: &str, answer: &str, ends: Millis) -> Result<()> {
    let args: [Val; 4] = [kind.into(), name.into(), answer.into(), ends.into()];
    let work = db.write(TenantId::SYSTEM, move |tx| {
        Box::pin(async move { tx.exec(ANSWER, &args).await.map(drop) })
    });
    work.await
}

pub(super) async fn answer(db: &Db, kind: &'static str, name: &str, now: Millis) -> Result<Option<String>> {
    let args = [kind.into(), name.into(), now.into()];
    let row = db.query_opt(TenantId::SYSTEM, ANSWERED, &args).await?;
    row.map(|row| row.string(0)).transpose()
}

/// This one is over, and those that were forgotten.
pub(super) async fn end_answer(db: &Db, kind: &'static str, name: &str) -> Result<()> {
    let name = name.to_owned();
    let work = db.write(TenantId::SYSTEM, move |tx| {
        Box::pin(async move {
            let now = tx.now();
            tx.exec(OVER, &[kind.into(), name.into(), now.into()]).await.map(drop)
        })
    });
    work.await
}

async fn noted(tx: &mut Tx, action: &'static str, target: &str, outcome: &'static str, detail: &str) -> Result<()> {
    let entry = Entry {
        actor: "system",
        action,
        target,
        outcome,
        detail,
    };
    audit::write(tx, entry).await
}
