//! The table of files: every statement, and nothing else.

use crate::model::FileRef;
use medtech_kernel::{
    Db, Result, Row, TenantId, Tx,
    clock::Millis,
    vault::{Cell, Class, Field, Scope, Sheet},
};
use uuid::Uuid;

/// By the file's id. `metadata` holds the name once more.
pub(crate) const NAME: Field = Field::new("shared_file", "name");
const METADATA: Field = Field::new("shared_file", "metadata");
pub(crate) const SHEET: Sheet = Sheet {
    table: "shared_file",
    key: &["id"],
    cells: &[Cell::Sealed(NAME), Cell::Sealed(METADATA)],
};

const CREATE: &str = "INSERT INTO shared_file
    (tenant, id, conversation, owner, name, type, size, sha256, metadata, created_at, expires_at, data_key)
    VALUES ($1, $2, $3, $4, $5, $6, $7, NULL, $8, $9, $10, $11)";
const GIVE_KEY: &str = "UPDATE shared_file SET data_key = $3 WHERE tenant = $1 AND id = $2 AND sha256 IS NULL";
const FIND: &str = "SELECT id, conversation, owner, name, type, size, sha256, expires_at, metadata, data_key
    FROM shared_file WHERE tenant = $1 AND id = $2";
const COMPLETE: &str = "UPDATE shared_file SET sha256 = $3, type = $4 WHERE tenant = $1 AND id = $2 AND sha256 IS NULL";
const DELETE: &str = "DELETE FROM shared_file WHERE tenant = $1 AND id = $2";
const USED: &str = "SELECT 1 FROM message WHERE tenant = $1 AND file = $2 LIMIT 1";
const USAGE: &str = "SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT),
    CAST(COALESCE(SUM(CASE WHEN sha256 IS NULL THEN 1 ELSE 0 END), 0) AS BIGINT)
    FROM shared_file WHERE tenant = $1 AND owner = $2";
const STORED: &str = "SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM shared_file WHERE tenant = $1";
const EXPIRED: &str = "SELECT id, conversation, owner, name, type, size, sha256, expires_at, metadata, data_key
    FROM shared_file WHERE tenant = $1 AND sha256 IS NULL AND expires_at <= $2 ORDER BY expires_at LIMIT $3";

/// A file as the table knows it.
#[derive(Clone, Debug)]
pub(crate) struct FileRow {
    pub(crate) id: Uuid,
    pub(crate) conversation: Uuid,
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) media_type: String,
    pub(crate) size: u64,
    /// Known when the upload is complete.
    pub(crate) sha256: Option<Vec<u8>>,
    pub(crate) expires_at: Millis,
    /// `Upload-Metadata` as the client gave it.
    pub(crate) metadata: String,
    /// What its bytes are sealed with; absent in files of older releases.
    pub(crate) data_key: Option<i64>,
}

impl FileRow {
    pub(crate) async fn find(db: &Db, tenant: TenantId, id: Uuid) -> Result<Option<Self>> {
        db.query_opt(tenant, FIND, &[id.into()])
            .await?
            .as_ref()
            .map(Self::read)
            .transpose()
    }

    pub(crate) async fn find_in(tx: &mut Tx, id: Uuid) -> Result<Option<Self>> {
        tx.query_opt(FIND, &[id.into()])
            .await?
            .as_ref()
            .map(Self::read)
            .transpose()
    }

    pub(crate) async fn create(&self, tx: &mut Tx) -> Result<()> {
        let args = [
            self.id.into(),
            self.conversation.into(),
            (&self.owner).into(),
            NAME.seal(self.id, &self.name),
            (&self.media_type).into(),
            i64::try_from(self.size).unwrap_or(i64::MAX).into(),
            METADATA.seal(self.id, &self.metadata),
            tx.now().into(),
            self.expires_at.into(),
            self.data_key.into(),
        ];
        tx.exec(CREATE, &args).await.map(drop)
    }

    /// For an upload of an older release, which begins anew.
    pub(crate) async fn give_key(tx: &mut Tx, id: Uuid) -> Result<i64> {
        let key = tx.data_key_id(scope(&id.to_string())).await?;
        tx.exec(GIVE_KEY, &[id.into(), key.into()]).await?;
        Ok(key)
    }

    /// `false` when it was complete already, or is gone.
    pub(crate) async fn complete(tx: &mut Tx, id: Uuid, sha256: &[u8], media_type: &str) -> Result<bool> {
        Ok(tx
            .exec(COMPLETE, &[id.into(), sha256.into(), media_type.into()])
            .await?
            == 1)
    }

    pub(crate) async fn delete(tx: &mut Tx, id: Uuid) -> Result<bool> {
        Ok(tx.exec(DELETE, &[id.into()]).await? == 1)
    }

    /// Does a message refer to it?
    pub(crate) async fn is_used(tx: &mut Tx, id: Uuid) -> Result<bool> {
        Ok(tx.query_opt(USED, &[id.into()]).await?.is_some())
    }

    /// (bytes, uploads in progress) of an owner.
    pub(crate) async fn usage(tx: &mut Tx, owner: &str) -> Result<(u64, u64)> {
        let row = tx.query_one(USAGE, &[owner.into()]).await?;
        Ok((
            u64::try_from(row.i64(0)?).unwrap_or(0),
            u64::try_from(row.i64(1)?).unwrap_or(0),
        ))
    }

    /// Bytes of all files of the tenant.
    pub(crate) async fn stored(tx: &mut Tx) -> Result<u64> {
        Ok(u64::try_from(tx.query_one(STORED, &[]).await?.i64(0)?).unwrap_or(0))
    }

    pub(crate) async fn expired(db: &Db, tenant: TenantId, now: Millis, limit: i64) -> Result<Vec<Self>> {
        db.query(tenant, EXPIRED, &[now.into(), limit.into()])
            .await?
            .iter()
            .map(Self::read)
            .collect()
    }

    /// The file as a message shows it; `None` until it is complete.
    pub(crate) fn reference(&self) -> Option<FileRef> {
        Some(FileRef {
            id: self.id,
            name: self.name.clone(),
            media_type: self.media_type.clone(),
            size: i64::try_from(self.size).unwrap_or(i64::MAX),
            sha256: hex(self.sha256.as_deref()?),
            state: None,
        })
    }

    fn read(row: &Row) -> Result<Self> {
        let id = row.uuid(0)?;
        Ok(Self {
            id,
            conversation: row.uuid(1)?,
            owner: row.string(2)?,
            name: NAME.open(row, 3, id)?,
            media_type: row.string(4)?,
            size: u64::try_from(row.i64(5)?).unwrap_or(0),
            sha256: row.opt_blob(6)?.map(<[u8]>::to_vec),
            expires_at: row.i64(7)?,
            metadata: METADATA.open(row, 8, id)?,
            data_key: row.opt_i64(9)?,
        })
    }
}

/// A file's own key.
pub(crate) fn scope(id: &str) -> Scope<'_> {
    Scope {
        class: Class::File,
        subject: id,
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
