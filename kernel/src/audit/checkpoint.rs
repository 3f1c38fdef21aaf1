//! Signed checkpoints: "at this time the chain ended with this entry". A cut tail leaves a chain that is right in itself;
//! only such a statement shows that there was more. Each stands in a table and in a file outside of the database, signed with
//! a key (Ed25519, RFC 8032) that is derived from the root key, so whoever has only the database can make none.

use super::{LAST, as_hash, verify::Walk};
use crate::{
    Ctx, Error, Result, TenantId,
    clock::{Millis, parse_rfc3339, rfc3339},
    secret::Root,
};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

/// A checkpoint is due after so many entries, or after so long where there is any new entry.
pub(super) const EVERY_ENTRIES: i64 = 10_000;
pub(super) const EVERY: Millis = 3_600_000;
/// How often each tenant is looked at.
const LOOK: Duration = Duration::from_secs(15);

/// A statement that the chain ended with entry `seq`, whose hash is `hash`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub seq: i64,
    pub at: Millis,
    pub hash: [u8; 32],
    pub signature: Vec<u8>,
}

/// What became of a look at one tenant's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Written(Checkpoint),
    NothingDue,
    /// The chain does not follow from what was signed last: signing it would hide that.
    Refused(String),
}

const NEWEST: &str =
    "SELECT seq, at, hash, signature FROM audit_checkpoint WHERE tenant = $1 ORDER BY seq DESC LIMIT 1";
const ALL: &str = "SELECT seq, at, hash, signature FROM audit_checkpoint WHERE tenant = $1 ORDER BY seq";
const ADD: &str = "INSERT INTO audit_checkpoint (tenant, seq, at, hash, signature) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING";

/// Looks at every tenant's chain until `stop` turns true.
pub fn keep(ctx: Ctx, mut stop: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut told = HashSet::new();
        loop {
            for tenant in ctx.tenants.all() {
                report(tenant.id, checkpoint(&ctx, tenant.id, false).await, &mut told);
            }
            if let Err(e) = ctx.db.anchor().await {
                tracing::warn!(error = ?e, "where the database files stand could not be noted");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    })
}

/// A checkpoint at the end of every chain: at a clean stop, after the last entry.
pub async fn checkpoint_all(ctx: &Ctx) {
    let mut told = HashSet::new();
    for tenant in ctx.tenants.all() {
        report(tenant.id, checkpoint(ctx, tenant.id, true).await, &mut told);
    }
    if let Err(e) = ctx.db.settle().await {
        tracing::warn!(error = ?e, "where the database files stand at the end could not be noted");
    }
}

/// Said once for each tenant and process: `medtech audit verify` says where.
fn report(tenant: TenantId, outcome: Result<Outcome>, told: &mut HashSet<TenantId>) {
    match outcome {
        Ok(Outcome::Refused(why)) if told.insert(tenant) => {
            tracing::error!(%tenant, why, "the audit trail is not intact; no checkpoint was signed");
        }
        Err(e) => tracing::warn!(%tenant, error = ?e, "no checkpoint of the audit trail could be written"),
        Ok(_) => {}
    }
}

/// Signs the end of a tenant's chain, when that is due (or `now`) and everything since the last checkpoint follows from it.
pub async fn checkpoint(ctx: &Ctx, tenant: TenantId, now: bool) -> Result<Outcome> {
    let Some(head) = ctx.db.query_opt(tenant, LAST, &[]).await? else {
        let signed = newest(ctx, tenant).await?.is_some() || !Log::of(ctx, tenant).read()?.checkpoints.is_empty();
        return Ok(if signed {
            Outcome::Refused("there is no entry, but there are checkpoints".into())
        } else {
            Outcome::NothingDue
        });
    };
    let head = head.i64(0)?;
    let (log, time) = (Log::of(ctx, tenant), ctx.clock.now_ms());
    let stored = newest(ctx, tenant).await?;
    if let Some(last) = &stored
        && !now
        && (last.seq..last.seq + EVERY_ENTRIES).contains(&head)
        && (head == last.seq || time - last.at < EVERY)
    {
        // What another server has signed meanwhile stands in a file here, too.
        if last.is_ours(&ctx.root, tenant) && !log.has_at_end(last.seq)? {
            learn(ctx, tenant, &log).await?;
        }
        return Ok(Outcome::NothingDue);
    }
    learn(ctx, tenant, &log).await?;
    let file = log.read()?;
    let in_file = file.checkpoints.iter().max_by_key(|c| c.seq);
    let last = match (&stored, in_file) {
        (Some(s), Some(f)) if f.seq > s.seq => Some(f),
        (Some(s), _) => Some(s),
        (None, f) => f,
    };
    let mut walk = Walk::default();
    if let Some(last) = last {
        if !last.is_ours(&ctx.root, tenant) {
            return Ok(Outcome::Refused(format!("checkpoint {} is not signed by us", last.seq)));
        }
        if head < last.seq {
            return Ok(Outcome::Refused(format!("the end is {head}, and was {}", last.seq)));
        }
        walk = Walk::from(last.seq, last.hash);
        if !walk.confirms(&ctx.db, tenant).await? {
            return Ok(Outcome::Refused(format!("entry {} is not the one signed", last.seq)));
        }
    }
    // The file is written first: a stop in between leaves a line that the table learns now.
    if let Some(line) = in_file.filter(|f| stored.as_ref().is_none_or(|s| s.seq < f.seq)) {
        insert(ctx, tenant, line.clone()).await?;
    }
    walk.run(&ctx.db, tenant, |_, _| {}).await?;
    if let Some(broken) = walk.findings.first() {
        return Ok(Outcome::Refused(broken.to_string()));
    }
    if last.is_some_and(|l| l.seq == walk.seq) {
        return Ok(Outcome::NothingDue);
    }
    let made = Checkpoint::sign(&ctx.root, tenant, walk.seq, time, walk.hash)?;
    log.append(tenant, &made, &public_key(&ctx.root, tenant)?)?;
    insert(ctx, tenant, made.clone()).await?;
    // One that signed at the same time.
    learn(ctx, tenant, &log).await?;
    Ok(Outcome::Written(made))
}

/// Takes over from the table what another server has signed, or what the file has lost: only what carries our signature and
/// vouches for an entry as it stands. A file that is not there begins with the newest, and [`super::Report`] says that it
/// begins late.
async fn learn(ctx: &Ctx, tenant: TenantId, log: &Log) -> Result<()> {
    let table = in_table(ctx, tenant).await?;
    let file = log.read()?;
    let begins = match file.checkpoints.first() {
        Some(first) => first.seq,
        None => table.last().map_or(0, |c| c.seq),
    };
    if !file.exists && !table.is_empty() {
        tracing::error!(%tenant, "the file of audit checkpoints is not here; a new one begins");
    }
    let missing = table
        .iter()
        .filter(|t| t.seq >= begins && !file.checkpoints.iter().any(|f| f.seq == t.seq));
    for checkpoint in missing.filter(|c| c.is_ours(&ctx.root, tenant)) {
        if !Walk::from(checkpoint.seq, checkpoint.hash)
            .confirms(&ctx.db, tenant)
            .await?
        {
            continue;
        }
        tracing::info!(%tenant, seq = checkpoint.seq, "a checkpoint that the file lacked was taken over from the table");
        log.append(tenant, checkpoint, &public_key(&ctx.root, tenant)?)?;
    }
    Ok(())
}

async fn newest(ctx: &Ctx, tenant: TenantId) -> Result<Option<Checkpoint>> {
    let row = ctx.db.query_opt(tenant, NEWEST, &[]).await?;
    row.as_ref().map(of_row).transpose()
}

/// Every checkpoint of the table, oldest first.
pub(super) async fn in_table(ctx: &Ctx, tenant: TenantId) -> Result<Vec<Checkpoint>> {
    ctx.db.query(tenant, ALL, &[]).await?.iter().map(of_row).collect()
}

fn of_row(row: &crate::Row) -> Result<Checkpoint> {
    Ok(Checkpoint {
        seq: row.i64(0)?,
        at: row.i64(1)?,
        hash: as_hash(row.blob(2)?),
        signature: row.blob(3)?.to_vec(),
    })
}

async fn insert(ctx: &Ctx, tenant: TenantId, c: Checkpoint) -> Result<()> {
    ctx.db
        .write(tenant, move |tx| {
            Box::pin(async move {
                let args = [c.seq.into(), c.at.into(), c.hash.into(), c.signature.into()];
                tx.exec(ADD, &args).await.map(|_| ())
            })
        })
        .await
}

impl Checkpoint {
    fn sign(root: &Root, tenant: TenantId, seq: i64, at: Millis, hash: [u8; 32]) -> Result<Self> {
        let signature = pair(root, tenant)?
            .sign(&message(tenant, seq, at, &hash))
            .as_ref()
            .to_vec();
        Ok(Self {
            seq,
            at,
            hash,
            signature,
        })
    }

    /// Was it signed with this installation's key for this tenant?
    pub(super) fn is_ours(&self, root: &Root, tenant: TenantId) -> bool {
        let Ok(pair) = pair(root, tenant) else { return false };
        UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref())
            .verify(&message(tenant, self.seq, self.at, &self.hash), &self.signature)
            .is_ok()
    }
}

fn pair(root: &Root, tenant: TenantId) -> Result<Ed25519KeyPair> {
    Ed25519KeyPair::from_seed_unchecked(&root.derive("audit checkpoint ed25519 1", tenant))
        .map_err(|e| Error::internal("audit.key", e))
}

/// The public half of a tenant's checkpoint key, for witnesses who have no root key.
pub fn public_key(root: &Root, tenant: TenantId) -> Result<Vec<u8>> {
    Ok(pair(root, tenant)?.public_key().as_ref().to_vec())
}

/// The bytes that are signed: a label, then tenant, number and time as big-endian 64-bit integers, then the hash.
fn message(tenant: TenantId, seq: i64, at: Millis, hash: &[u8; 32]) -> Vec<u8> {
    let mut bytes = b"medtech audit checkpoint 1\0".to_vec();
    for number in [tenant.number(), seq, at] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(hash);
    bytes
}

/// No line is longer.
const LINE: u64 = 1024;

/// A tenant's file of checkpoints: one JSON object a line, only ever appended to.
pub(super) struct Log(PathBuf);

/// What was found in the file.
#[derive(Default)]
pub(super) struct InFile {
    pub(super) exists: bool,
    /// As they stand, in the order of the file.
    pub(super) checkpoints: Vec<Checkpoint>,
    /// Numbers (from 1) of the lines that are no checkpoint.
    pub(super) damaged: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    tenant: i64,
    seq: i64,
    at: String,
    hash: String,
    signature: String,
    /// For witnesses; we use our own.
    #[serde(default)]
    public_key: String,
}

impl Log {
    pub(super) fn of(ctx: &Ctx, tenant: TenantId) -> Self {
        let dir = ctx.config.data_dir.join("audit");
        Self(dir.join(format!("checkpoints-{tenant}.log")))
    }

    /// Is the last line that of entry `seq`, or of a later one? Reads the end of the file alone.
    fn has_at_end(&self, seq: i64) -> Result<bool> {
        let failed = |e| Error::internal("audit.checkpoints_unreadable", e);
        let mut file = match fs::File::open(&self.0) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(failed(e)),
        };
        let length = file.metadata().map_err(failed)?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LINE)))
            .map_err(failed)?;
        let mut end = Vec::new();
        file.read_to_end(&mut end).map_err(failed)?;
        let last = end.split(|b| *b == b'\n').rev().find(|line| !line.is_empty());
        Ok(last.and_then(parse).is_some_and(|c| c.seq >= seq))
    }

    pub(super) fn read(&self) -> Result<InFile> {
        let text = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(InFile::default()),
            Err(e) => return Err(Error::internal("audit.checkpoints_unreadable", e)),
        };
        let mut found = InFile {
            exists: true,
            ..InFile::default()
        };
        let lines = text.split(|b| *b == b'\n').enumerate().filter(|(_, l)| !l.is_empty());
        for (i, line) in lines {
            match parse(line) {
                Some(checkpoint) => found.checkpoints.push(checkpoint),
                None => found.damaged.push(i + 1),
            }
        }
        Ok(found)
    }

    fn append(&self, tenant: TenantId, c: &Checkpoint, public_key: &[u8]) -> Result<()> {
        let line = Line {
            tenant: tenant.number(),
            seq: c.seq,
            at: rfc3339(c.at),
            hash: BASE64.encode(c.hash),
            signature: BASE64.encode(&c.signature),
            public_key: BASE64.encode(public_key),
        };
        let mut text = serde_json::to_string(&line).map_err(|e| Error::internal("audit.checkpoint", e))?;
        text.push('\n');
        write(&self.0, text.as_bytes()).map_err(|e| Error::internal("audit.checkpoints_unwritable", e))
    }
}

fn parse(line: &[u8]) -> Option<Checkpoint> {
    let line: Line = serde_json::from_slice(line).ok()?;
    Some(Checkpoint {
        seq: line.seq,
        at: parse_rfc3339(&line.at)?,
        hash: BASE64.decode(&line.hash).ok()?.try_into().ok()?,
        signature: BASE64.decode(&line.signature).ok()?,
    })
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = !path.exists();
    let dir = path.parent();
    if let Some(dir) = dir {
        fs::create_dir_all(dir)?;
    }
    let mut options = fs::OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    // A line that a power cut left half written is closed, so that the next one is not lost with it.
    if !new && !ends_with_newline(&mut file)? {
        file.write_all(b"\n")?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    // The name must survive a power cut as well as the bytes.
    match dir.filter(|_| new) {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn ends_with_newline(file: &mut fs::File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
