//! What was erased stays erased: a line for each, in a file that no backup holds and that every start carries out again.
//! A restored database has the destroyed keys in it, until this takes them out.

use super::{Class, Scope, Vault};
use crate::{
    Db, Error, Result, TenantId,
    audit::{self, Entry},
    clock::Millis,
};
use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

const NOTE: &str = "INSERT INTO erasure (tenant, owner, class, subject, at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING";
const NOTED: &str = "SELECT owner, class, subject, at FROM erasure WHERE tenant = $1";

/// One erasure.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Erasure {
    pub at: Millis,
    pub owner: TenantId,
    /// A [`Class`], or `tenant` with no subject for the whole of one.
    pub class: String,
    pub subject: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    what: Erasure,
    /// HMAC-SHA256 under the root key: nobody else's line erases anything.
    mac: String,
}

/// The file. Clones share it.
#[derive(Clone)]
pub struct Ledger(Arc<Mutex<PathBuf>>);

impl Ledger {
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Mutex::new(path.into())))
    }

    /// Appends a line and returns when it is durable. A line that a crash cut short is taken away first.
    fn append(&self, what: &Erasure, key: &hmac::Key) -> Result<()> {
        let path = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Line {
            mac: STANDARD_NO_PAD.encode(hmac::sign(key, &bytes(what))),
            what: what.clone(),
        };
        let mut text = serde_json::to_vec(&line).map_err(|e| Error::internal("vault.ledger", e))?;
        text.push(b'\n');
        write(&path, &text).map_err(|e| Error::internal("vault.ledger", e))
    }

    /// Says beside the file that an erasure is under way, for as long as what it answers is held: also to other processes.
    fn busy(&self) -> Result<File> {
        let path = self.beside();
        let failed = |e| Error::internal("vault.ledger", e);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(failed)?;
        file.lock_shared().map_err(failed)?;
        Ok(file)
    }

    fn is_busy(&self) -> Result<bool> {
        let failed = |e| Error::internal("vault.ledger", e);
        let file = match File::open(self.beside()) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(failed(e)),
        };
        match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(e)) => Err(failed(e)),
        }
    }

    fn beside(&self) -> PathBuf {
        let path = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut name = path.as_os_str().to_owned();
        name.push(".busy");
        name.into()
    }

    /// Every whole line with a true MAC, and how many have a wrong one.
    fn read(&self, key: &hmac::Key) -> Result<(Vec<Erasure>, usize)> {
        let path = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match std::fs::read_to_string(&*path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(e) => return Err(Error::internal("vault.ledger", e)),
        };
        let (mut all, mut wrong) = (Vec::new(), 0);
        let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
        for line in whole.lines() {
            let found = serde_json::from_str::<Line>(line).ok().filter(|l| {
                let mac = STANDARD_NO_PAD.decode(&l.mac).unwrap_or_default();
                hmac::verify(key, &bytes(&l.what), &mac).is_ok()
            });
            match found {
                Some(line) => all.push(line.what),
                None => wrong += 1,
            }
        }
        Ok((all, wrong))
    }
}

fn write(path: &Path, line: &[u8]) -> std::io::Result<()> {
    let dir = path
        .parent()
        .filter(|d| !d.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    file.set_len(whole as u64)?;
    file.seek(SeekFrom::End(0))?;
    file.write_all(line)?;
    file.sync_all()?;
    File::open(dir)?.sync_all()
}

fn bytes(what: &Erasure) -> Vec<u8> {
    super::aad(&[
        b"medtech erasure 1",
        &what.at.to_be_bytes(),
        &what.owner.number().to_be_bytes(),
        what.class.as_bytes(),
        what.subject.as_bytes(),
    ])
}

impl Vault {
    fn ledger_key(&self) -> hmac::Key {
        hmac::Key::new(
            hmac::HMAC_SHA256,
            &self.0.root.derive("vault ledger 1", TenantId::SYSTEM),
        )
    }

    /// How many lines of the ledger are true, and how many are not ours.
    pub fn ledger(&self) -> Result<(usize, usize)> {
        let (all, wrong) = self.0.ledger.read(&self.ledger_key())?;
        Ok((all.len(), wrong))
    }

    /// What the ledger says was erased of a tenant.
    pub fn erased(&self, owner: TenantId) -> Result<Vec<Erasure>> {
        let (mut all, _) = self.0.ledger.read(&self.ledger_key())?;
        all.retain(|e| e.owner == owner);
        Ok(all)
    }

    /// Destroys the key of a patient, a file or a conversation, for good: in the ledger first, so that no crash and no
    /// restored backup brings it back. The audit entry names `actor`. The table is told last: other servers carry out at
    /// once what it says, and it is this one that knows who asked.
    pub async fn shred(&self, db: &Db, owner: TenantId, scope: Scope<'_>, actor: &str) -> Result<bool> {
        let under_way = self.announce(db, owner, scope).await?;
        let done = destroy(db, owner, scope, actor).await?;
        tell(db, &under_way.what).await?;
        Ok(done)
    }

    /// The ledger's line alone: for those who have more to take away before they destroy the key by [`Vault::shred`]. While
    /// what it answers is held nobody else destroys it; after a crash the next start does.
    pub async fn announce(&self, db: &Db, owner: TenantId, scope: Scope<'_>) -> Result<UnderWay> {
        let busy = self.0.ledger.busy()?;
        let what = line(self, db, owner, scope.class.name(), scope.subject)?;
        Ok(UnderWay { what, _busy: busy })
    }

    /// Carries out again what the ledger says was erased: after a file was put back.
    pub async fn erase_again(&self, db: &Db) -> Result<()> {
        replay(self, db).await
    }
}

/// An erasure that has begun.
#[must_use = "the erasure is under way for as long as this is held"]
pub struct UnderWay {
    what: Erasure,
    _busy: File,
}

/// Writes an erasure down: in the file, then in the table that other servers look at.
pub(super) async fn note(vault: &Vault, db: &Db, owner: TenantId, class: &str, subject: &str) -> Result<()> {
    tell(db, &line(vault, db, owner, class, subject)?).await
}

/// The file's line of an erasure, written unless it stands there.
fn line(vault: &Vault, db: &Db, owner: TenantId, class: &str, subject: &str) -> Result<Erasure> {
    let (known, _) = vault.0.ledger.read(&vault.ledger_key())?;
    let is_it = |e: &Erasure| e.owner == owner && e.class == class && e.subject == subject;
    if let Some(known) = known.into_iter().find(is_it) {
        return Ok(known);
    }
    let what = Erasure {
        at: db.now(),
        owner,
        class: class.to_owned(),
        subject: subject.to_owned(),
    };
    vault.0.ledger.append(&what, &vault.ledger_key())?;
    Ok(what)
}

async fn tell(db: &Db, what: &Erasure) -> Result<()> {
    let args = [
        what.owner.number().into(),
        what.class.clone().into(),
        what.subject.clone().into(),
        what.at.into(),
    ];
    db.write(TenantId::SYSTEM, move |tx| {
        Box::pin(async move { tx.exec(NOTE, &args).await.map(drop) })
    })
    .await
}

async fn destroy(db: &Db, owner: TenantId, scope: Scope<'_>, actor: &str) -> Result<bool> {
    let (class, subject, actor) = (scope.class, scope.subject.to_owned(), actor.to_owned());
    db.write(owner, move |tx| {
        Box::pin(async move {
            let scope = Scope {
                class,
                subject: &subject,
            };
            let done = tx.destroy(scope).await?;
            if done {
                let target = format!("key:{}/{subject}", class.name());
                let entry = Entry {
                    actor: &actor,
                    action: "delete",
                    target: &target,
                    outcome: "success",
                    detail: "erased",
                };
                audit::write_all(tx, &[(entry, (class == Class::Patient).then_some(&*subject))]).await?;
            }
            Ok(done)
        })
    })
    .await
}

/// Brings file and table together and carries out what either says. A clinic whose file is refused keeps no other from
/// being served, nor the operator from mending it: it is passed over, and nothing of it can be read.
pub(super) async fn replay(vault: &Vault, db: &Db) -> Result<()> {
    // Looked at first: whatever is announced after this is not among the lines.
    let busy = vault.0.ledger.is_busy()?;
    let (listed, wrong) = vault.0.ledger.read(&vault.ledger_key())?;
    if wrong > 0 {
        tracing::error!(
            wrong,
            "lines of the erasure ledger are not this installation's; they are passed over"
        );
    }
    let name = |e: &Erasure| (e.owner, e.class.clone(), e.subject.clone());
    let in_file: HashSet<_> = listed.iter().map(name).collect();
    let mut all = listed;
    let mut in_table = HashSet::new();
    for row in db.query(TenantId::SYSTEM, NOTED, &[]).await? {
        let what = Erasure {
            owner: TenantId::from_number(row.i64(0)?),
            class: row.string(1)?,
            subject: row.string(2)?,
            at: row.i64(3)?,
        };
        in_table.insert(name(&what));
        if !in_file.contains(&name(&what)) {
            vault.0.ledger.append(&what, &vault.ledger_key())?;
            all.push(what);
        }
    }
    let mut refused = HashSet::new();
    for what in all {
        let told = in_table.contains(&name(&what));
        // Known to the file alone while somebody erases: theirs. The end of theirs is told to the table, and that calls for
        // the next look; what a crash cut short is done then at the latest.
        if (busy && !told) || refused.contains(&what.owner) {
            continue;
        }
        match carry_out(vault, db, &what).await {
            Err(e) if e.is_refused_file() => {
                tracing::error!(tenant = %what.owner, error = ?e,
                    "what was erased of a clinic could not be carried out again: its database file is refused");
                refused.insert(what.owner);
            }
            done => done?,
        }
        if !told {
            tell(db, &what).await?;
        }
    }
    Ok(())
}

async fn carry_out(vault: &Vault, db: &Db, what: &Erasure) -> Result<()> {
    if vault.tenant(what.owner).is_err() {
        return Ok(());
    }
    // A key of class `tenant` has a subject; without one it is the whole of it.
    if what.class == Class::Tenant.name() && what.subject.is_empty() {
        return vault.destroy_tenant(db, what.owner).await;
    }
    let Some(class) = Class::parse(&what.class) else {
        return Ok(());
    };
    let scope = Scope {
        class,
        subject: &what.subject,
    };
    if destroy(db, what.owner, scope, "system").await? {
        tracing::warn!(tenant = %what.owner, class = class.name(), "erased again what a restore had brought back");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
