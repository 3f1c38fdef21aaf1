//! Where completed files lie: the only place that knows the object store. Today a local directory, in which publishing
//! is a rename of the partial file; a remote store would upload it here instead.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use medtech_kernel::{Error, Result, TenantId};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path as Key};
use std::{ops::Range, path::PathBuf};
use uuid::Uuid;

/// Bytes of an object, as they come from the disk.
pub(crate) type Bits = BoxStream<'static, object_store::Result<Bytes>>;

pub(crate) struct Objects {
    root: PathBuf,
    store: LocalFileSystem,
}

impl Objects {
    pub(crate) fn open(root: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&root).map_err(|e| Error::internal("file.directory", e))?;
        let store = LocalFileSystem::new_with_prefix(&root)
            .map_err(failed)?
            .with_fsync(true);
        Ok(Self { root, store })
    }

    /// The local file an upload is appended to.
    pub(crate) fn partial(&self, tenant: TenantId, id: Uuid) -> PathBuf {
        self.root
            .join(format!("tenant-{tenant}"))
            .join("partial")
            .join(format!("{id}.part"))
    }

    /// Turns the flushed partial file into the object, durably.
    pub(crate) async fn publish(&self, tenant: TenantId, id: Uuid) -> Result<()> {
        let from = Key::from(format!("tenant-{tenant}/partial/{id}.part"));
        self.store.rename(&from, &key(tenant, id)).await.map_err(failed)
    }

    /// Bytes of the object, if there is one.
    pub(crate) async fn size(&self, tenant: TenantId, id: Uuid) -> Result<Option<u64>> {
        match self.store.head(&key(tenant, id)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }

    /// Streams a part of the object.
    pub(crate) async fn read(&self, tenant: TenantId, id: Uuid, range: Range<u64>) -> Result<Bits> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let found = self.store.get_opts(&key(tenant, id), options).await.map_err(failed)?;
        Ok(found.into_stream())
    }

    /// Deletes everything of a tenant, finished and not.
    pub(crate) async fn erase(&self, tenant: TenantId) -> std::io::Result<()> {
        match tokio::fs::remove_dir_all(self.root.join(format!("tenant-{tenant}"))).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        tokio::fs::File::open(&self.root).await?.sync_all().await
    }

    /// Deletes the object; absent is fine.
    pub(crate) async fn delete(&self, tenant: TenantId, id: Uuid) -> Result<()> {
        match self.store.delete(&key(tenant, id)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failed(e)),
        }
    }
}

fn key(tenant: TenantId, id: Uuid) -> Key {
    Key::from(format!("tenant-{tenant}/object/{id}"))
}

fn failed(e: object_store::Error) -> Error {
    Error::internal("file.store", e)
}
