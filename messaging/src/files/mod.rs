//! Files of conversations: a tus 1.0 server, and downloads by range for members.
//!
//! [`tus`] reads and writes headers, [`partial`] is an upload on disk, [`sealed`] how bytes
//! lie there, [`objects`] the store of finished files, [`kind`] what a file is by its bytes, [`scan`] who looks for harm, [`http`]
//! and [`download`] the routes. This file owns the uploads in progress: one writer for each, resumable after a crash.

mod download;
mod http;
mod kind;
mod objects;
mod partial;
pub mod scan;
mod sealed;
pub(crate) mod store;
mod tus;

pub(crate) use http::routes;
pub(crate) use store::{FileRow, hex};

use aws_lc_rs::digest;
use futures_util::TryStreamExt;
use medtech_kernel::{
    Clock, Ctx, Db, Error, Result, TenantId, audit,
    auth::{Principal, Role},
    clock::Millis,
    id,
    tenant::Tenants,
    vault::{self, Door},
};
use objects::Objects;
use partial::Partial;
use sealed::{Plain, Sealer};
use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{MutexGuard, watch};
use tus::{LOCKED, Metadata, Outcome};
use uuid::Uuid;

/// What uploads may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one file.
    pub max_file: u64,
    /// Bytes of all files of one owner.
    pub max_owned: u64,
    /// The same of someone who came by a link, without an account.
    pub max_owned_by_guest: u64,
    /// Unfinished uploads of one owner.
    pub max_pending: u64,
    /// How long an unfinished upload is kept.
    pub keep_pending: Millis,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file: 5 << 30,
            max_owned: 50 << 30,
            max_owned_by_guest: 6 << 30,
            max_pending: 50,
            keep_pending: 48 * 3_600_000,
        }
    }
}

/// Uploads whose file stays open between requests; past that idle ones are closed, and read again when they go on.
const MAX_OPEN: usize = 256;
/// How long a request waits for the one before it to let go of an upload.
const PATIENCE: Duration = Duration::from_secs(5);
/// Expired uploads removed at each creation.
const SWEEP: i64 = 8;

/// The uploads in progress and the finished files.
pub struct Files {
    db: Db,
    tenants: Tenants,
    clock: Clock,
    objects: Objects,
    scanner: scan::Scanner,
    open: Mutex<HashMap<(TenantId, Uuid), Arc<Upload>>>,
    pub limits: Limits,
}

/// One upload in progress. A new request bumps `turn`, at which a running one stops, keeps what has come and lets go:
/// the older is nearly always a connection that died without a word.
struct Upload {
    turn: watch::Sender<u64>,
    partial: tokio::sync::Mutex<Option<Partial>>,
}

/// The right to write to an upload, until a later request asks for it.
struct Turn<'a> {
    partial: MutexGuard<'a, Option<Partial>>,
    later: watch::Receiver<u64>,
    mine: u64,
}

impl Turn<'_> {
    /// Resolves when a later request wants the upload.
    async fn is_over(&mut self) {
        let mine = self.mine;
        if self.later.wait_for(|n| *n > mine).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Upload {
    async fn take_turn(&self) -> Outcome<Turn<'_>> {
        let mut mine = 0;
        self.turn.send_modify(|n| {
            *n += 1;
            mine = *n;
        });
        let later = self.turn.subscribe();
        let partial = tokio::time::timeout(PATIENCE, self.partial.lock())
            .await
            .map_err(|_| LOCKED)?;
        Ok(Turn { partial, later, mine })
    }
}

impl Files {
    pub(crate) fn open(ctx: &Ctx) -> Result<Self> {
        Ok(Self {
            db: ctx.db.clone(),
            tenants: ctx.tenants.clone(),
            clock: ctx.clock.clone(),
            objects: Objects::open(ctx.config.data_dir.join("files"))?,
            scanner: scan::Scanner::open(&ctx.config)?,
            open: Mutex::default(),
            limits: Limits::default(),
        })
    }

    /// Registers an upload for a conversation whose membership has been checked.
    async fn create(&self, who: &Principal, meta: Metadata, size: u64) -> Outcome<FileRow> {
        self.sweep(who.tenant).await?;
        let limits = self.limits;
        let now = self.clock.now_ms();
        let file = FileRow {
            id: id::new_id(&self.clock),
            conversation: meta.conversation,
            owner: who.subject.clone(),
            name: meta.name,
            media_type: meta.media_type,
            size,
            sha256: None,
            expires_at: now + limits.keep_pending,
            metadata: meta.given,
            data_key: None,
        };
        let mut row = file;
        let room = if who.has(Role::Guest) {
            limits.max_owned_by_guest
        } else {
            limits.max_owned
        };
        let most = self.tenants.by_id(who.tenant).and_then(|t| t.quotas.storage_bytes);
        let file = self
            .db
            .write(who.tenant, move |tx| {
                Box::pin(async move {
                    crate::store::hold(tx, row.conversation).await?;
                    if let Some(most) = most
                        && FileRow::stored(tx).await?.saturating_add(row.size) > most
                    {
                        return Err(Error::too_large(
                            "tenant.quota_storage",
                            "Your clinic's files would take more room than it has.",
                        ));
                    }
                    let (owned, pending) = FileRow::usage(tx, &row.owner).await?;
                    if owned.saturating_add(row.size) > room {
                        return Err(Error::too_large(
                            "file.quota",
                            "Your files would take more room than you have.",
                        ));
                    }
                    if pending >= limits.max_pending {
                        return Err(Error::too_many(
                            "file.pending",
                            "Too many uploads are unfinished. Finish or cancel some.",
                        ));
                    }
                    row.data_key = Some(tx.data_key_id(store::scope(&row.id.to_string())).await?);
                    row.create(tx).await?;
                    Ok(row)
                })
            })
            .await?;
        let sealer = self.sealer(who.tenant, &file).await?;
        let partial = Partial::create(&self.objects.partial(who.tenant, file.id), sealer)
            .await
            .map_err(disk)?;
        let upload = self.upload(who.tenant, file.id)?;
        *upload.partial.lock().await = Some(partial);
        Ok(file)
    }

    /// The shared state of an upload. Idle ones make room when too many are open.
    fn upload(&self, tenant: TenantId, id: Uuid) -> Result<Arc<Upload>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upload) = open.get(&(tenant, id)) {
            return Ok(upload.clone());
        }
        if open.len() >= MAX_OPEN {
            open.retain(|_, u| Arc::strong_count(u) > 1);
        }
        if open.len() >= MAX_OPEN {
            return Err(Error::unavailable(
                "file.busy",
                "Too many uploads at once. Try again in a moment.",
            ));
        }
        let upload = Arc::new(Upload {
            turn: watch::channel(0).0,
            partial: tokio::sync::Mutex::new(None),
        });
        open.insert((tenant, id), upload.clone());
        Ok(upload)
    }

    fn close(&self, tenant: TenantId, id: Uuid) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(tenant, id));
    }

    /// Opens the partial file where this process has not yet. When a crash fell between publishing the object and
    /// noting that, the note is made up for and `None` answered: the upload is complete.
    async fn load(&self, tenant: TenantId, file: &FileRow, slot: &mut Option<Partial>) -> Result<Option<()>> {
        if slot.is_some() {
            return Ok(Some(()));
        }
        let path = self.objects.partial(tenant, file.id);
        if file.data_key.is_none() {
            // Begun by an older release, whose bytes lie in clear: the client is told that it starts anew.
            let id = file.id;
            let key = self
                .db
                .write(tenant, move |tx| Box::pin(FileRow::give_key(tx, id)))
                .await?;
            partial::remove(&path).await.map_err(disk)?;
            let file = FileRow {
                data_key: Some(key),
                ..file.clone()
            };
            *slot = Some(
                Partial::create(&path, self.sealer(tenant, &file).await?)
                    .await
                    .map_err(disk)?,
            );
            return Ok(Some(()));
        }
        let sealer = self.sealer(tenant, file).await?;
        *slot = Partial::open(&path, sealer.clone()).await.map_err(disk)?;
        if slot.is_some() {
            return Ok(Some(()));
        }
        if self.objects.size(tenant, file.id).await? == Some(sealer.sealed_size()) {
            let sha256 = self.hash(tenant, file).await?;
            self.note_complete(tenant, file, sha256).await?;
            self.close(tenant, file.id);
            return Ok(None);
        }
        // The row was committed, the file was not yet made.
        partial::remove(&path).await.map_err(disk)?;
        *slot = Some(Partial::create(&path, sealer).await.map_err(disk)?);
        Ok(Some(()))
    }

    /// The last byte has come: flushed, published, noted.
    async fn finish(&self, tenant: TenantId, file: &FileRow, slot: &mut Option<Partial>) -> Result<()> {
        let Some(partial) = slot.take() else { return Ok(()) };
        let sha256 = partial.complete().await.map_err(disk)?;
        self.objects.publish(tenant, file.id).await?;
        partial::clear(&self.objects.partial(tenant, file.id))
            .await
            .map_err(disk)?;
        self.note_complete(tenant, file, sha256).await?;
        self.close(tenant, file.id);
        Ok(())
    }

    async fn note_complete(&self, tenant: TenantId, file: &FileRow, sha256: Vec<u8>) -> Result<()> {
        let file = file.clone();
        let head = self.head(tenant, &file).await?;
        let media_type = kind::settled(&file.media_type, &file.name, &head);
        let scans = self.scans();
        self.db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    if FileRow::complete(tx, file.id, &sha256, &media_type).await? {
                        Self::queue(scans, tx, file.id).await?;
                        let (target, detail) = (
                            format!("File/{}", file.id),
                            format!("conversation:{}", file.conversation),
                        );
                        let entry = audit::Entry {
                            actor: &file.owner,
                            action: "create",
                            target: &target,
                            outcome: "success",
                            detail: &detail,
                        };
                        let patient = crate::store::patient_of(tx, file.conversation).await?;
                        let told = audit::Record::new(entry).about(patient.as_deref()).wrote(&sha256);
                        audit::record(tx, vec![told]).await?;
                    }
                    Ok(())
                })
            })
            .await?;
        self.call_scanner();
        Ok(())
    }

    /// The first bytes of a published file.
    async fn head(&self, tenant: TenantId, file: &FileRow) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        if file.size > 0 {
            let mut bits = self.read(tenant, file, 0..file.size.min(kind::HEAD)).await?;
            while let Some(bytes) = bits.try_next().await? {
                head.extend_from_slice(&bytes);
            }
        }
        Ok(head)
    }

    /// What seals and opens a file's bytes; 410 when its key was destroyed.
    async fn sealer(&self, tenant: TenantId, file: &FileRow) -> Result<Sealer> {
        let id = file.data_key.unwrap_or_default();
        let keys = vault::keys(Door::Db(&self.db, tenant), [id]).await?;
        Ok(Sealer {
            key: keys.cipher(id)?,
            id: file.id,
            size: file.size,
        })
    }

    /// A part of a finished file, in clear, as it comes from the disk.
    pub(crate) async fn read(&self, tenant: TenantId, file: &FileRow, range: Range<u64>) -> Result<Plain> {
        if file.data_key.is_none() {
            let bits = self.objects.read(tenant, file.id, range).await?;
            return Ok(Box::pin(bits.map_err(|e| Error::internal("file.read", e))));
        }
        let sealer = self.sealer(tenant, file).await?;
        let bits = self.objects.read(tenant, file.id, sealer.on_disk(&range)).await?;
        Ok(sealer.read(bits, range))
    }

    async fn hash(&self, tenant: TenantId, file: &FileRow) -> Result<Vec<u8>> {
        let mut sha = digest::Context::new(&digest::SHA256);
        if file.size > 0 {
            let mut bits = self.read(tenant, file, 0..file.size).await?;
            while let Some(bytes) = bits.try_next().await? {
                sha.update(&bytes);
            }
        }
        Ok(sha.finish().as_ref().to_vec())
    }

    /// Ends an upload or deletes a file that no message refers to. The row goes first: a file without a row is
    /// unreachable, a row without a file would be a lie.
    async fn remove(&self, tenant: TenantId, file: &FileRow, actor: &str) -> Result<()> {
        let (id, conversation, actor) = (file.id, file.conversation, actor.to_owned());
        self.db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    if FileRow::is_used(tx, id).await? {
                        return Err(Error::conflict("file.in_use", "A message refers to this file."));
                    }
                    if FileRow::delete(tx, id).await? {
                        Self::forget_verdict(tx, id).await?;
                        let target = format!("File/{id}");
                        let entry = audit::Entry {
                            actor: &actor,
                            action: "delete",
                            target: &target,
                            outcome: "success",
                            detail: "",
                        };
                        let patient = crate::store::patient_of(tx, conversation).await?;
                        audit::write_all(tx, &[(entry, patient.as_deref())]).await?;
                    }
                    Ok(())
                })
            })
            .await?;
        self.erase_one(tenant, id).await
    }

    /// The bytes of a file, finished or not; absent is fine.
    pub(crate) async fn erase_one(&self, tenant: TenantId, id: Uuid) -> Result<()> {
        self.close(tenant, id);
        partial::remove(&self.objects.partial(tenant, id)).await.map_err(disk)?;
        self.objects.delete(tenant, id).await
    }

    /// Every file of a tenant and every unfinished upload, durably.
    pub(crate) async fn erase(&self, tenant: TenantId) -> Result<()> {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(of, _), _| *of != tenant);
        self.objects.erase(tenant).await.map_err(disk)
    }

    /// Removes some uploads of the tenant that were never finished in time.
    async fn sweep(&self, tenant: TenantId) -> Result<()> {
        for file in FileRow::expired(&self.db, tenant, self.clock.now_ms(), SWEEP).await? {
            let upload = self.upload(tenant, file.id)?;
            let Ok(mut turn) = upload.take_turn().await else {
                continue;
            };
            *turn.partial = None;
            self.remove(tenant, &file, "system").await?;
        }
        Ok(())
    }
}

fn disk(e: std::io::Error) -> Error {
    match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::unavailable(
            "file.disk_full",
            "The server has no room for files. What was confirmed is kept.",
        ),
        _ => Error::internal("file.disk", e),
    }
}
