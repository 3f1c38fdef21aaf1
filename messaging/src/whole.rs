//! A clinic's messages and files as a whole: how much they take, all of them for an export, none of them after it is
//! deleted. For whoever looks after the clinics; no person asks this way.

use crate::{
    Messaging,
    files::{FileRow, store::NAME},
    store::{MEMBER, SENDER, TITLE, place},
};
use futures_util::TryStreamExt;
use medtech_kernel::{
    Error, Result, TenantId,
    clock::{Millis, rfc3339},
    vault::Texts,
};
use serde_json::{Value, json};
use std::ops::Range;
use uuid::Uuid;

const STORED: &str = "SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT), COUNT(*) FROM shared_file WHERE tenant = $1";
const SINCE: &str = "SELECT COUNT(*) FROM message WHERE tenant = $1 AND at >= $2";
const CONVERSATIONS: &str = "SELECT id, topic, title, mode, created_at FROM conversation
    WHERE tenant = $1 AND id > $2 AND mode <> 'erased' ORDER BY id LIMIT $3";
const MEMBERS: &str = "SELECT subject, name, joined_at FROM conversation_member
    WHERE tenant = $1 AND conversation = $2 ORDER BY joined_at, subject";
const MESSAGES: &str = "SELECT id, conversation, seq, sender, sender_name, at, body FROM message
    WHERE tenant = $1 AND (conversation > $2 OR (conversation = $2 AND seq > $3))
      AND conversation NOT IN (SELECT id FROM conversation WHERE tenant = $1 AND mode = 'erased') ORDER BY conversation, seq LIMIT $4";
const FILES: &str = "SELECT id, conversation, owner, name, type, size, sha256, created_at FROM shared_file
    WHERE tenant = $1 AND id > $2 AND LENGTH(sha256) > 0
      AND id NOT IN (SELECT file FROM file_verdict WHERE tenant = $1 AND verdict = 'harmful') ORDER BY id LIMIT $3";

/// Where the next page begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct After {
    pub id: Uuid,
    pub seq: i64,
}

/// Rows in their order, each with where the one after it begins.
pub type Rows = Vec<(After, Value)>;

impl Messaging {
    /// Bytes of all files, and messages since a time.
    pub async fn usage(&self, tenant: TenantId, since: Millis) -> Result<(u64, u64)> {
        let stored = self.ctx.db.query_one(tenant, STORED, &[]).await?.i64(0)?;
        let sent = self.ctx.db.query_one(tenant, SINCE, &[since.into()]).await?.i64(0)?;
        Ok((u64::try_from(stored).unwrap_or(0), u64::try_from(sent).unwrap_or(0)))
    }

    /// Conversations with their members.
    pub async fn all_conversations(&self, tenant: TenantId, after: After, limit: i64) -> Result<Rows> {
        let mut all = Vec::new();
        for row in self
            .ctx
            .db
            .query(tenant, CONVERSATIONS, &[after.id.into(), limit.into()])
            .await?
        {
            let id = row.uuid(0)?;
            let members = self.ctx.db.query(tenant, MEMBERS, &[id.into()]).await?;
            let members: Result<Vec<Value>> = members
                .iter()
                .map(|m| {
                    let subject = m.text(0)?;
                    let name = MEMBER.open(m, 1, format_args!("{id}/{subject}"))?;
                    Ok(json!({"subject": subject, "name": name, "joined_at": rfc3339(m.i64(2)?)}))
                })
                .collect();
            let value = json!({
                "id": id, "topic": row.text(1)?, "title": TITLE.open(&row, 2, id)?, "mode": row.text(3)?,
                "created_at": rfc3339(row.i64(4)?), "members": members?,
            });
            all.push((After { id, seq: 0 }, value));
        }
        Ok(all)
    }

    /// Messages, by conversation and number.
    pub async fn all_messages(&self, tenant: TenantId, after: After, limit: i64) -> Result<Rows> {
        let args = [after.id.into(), after.seq.into(), limit.into()];
        let rows = self.ctx.db.query(tenant, MESSAGES, &args).await?;
        let texts = Texts::of(&self.ctx.db, tenant, &rows, 6).await?;
        rows.iter()
            .map(|row| {
                let (id, conversation, seq) = (row.uuid(0)?, row.uuid(1)?, row.i64(2)?);
                let body = texts.open(&place(conversation, id), row.text(6)?)?;
                let body: Value = serde_json::from_str(&body).map_err(|e| Error::internal("message.body", e))?;
                let name = SENDER.open(row, 4, format_args!("{conversation}/{seq}"))?;
                let value = json!({
                    "id": id, "conversation_id": conversation, "seq": seq,
                    "sender": {"subject": row.text(3)?, "name": name}, "at": rfc3339(row.i64(5)?), "body": body,
                });
                Ok((After { id: conversation, seq }, value))
            })
            .collect()
    }

    /// The finished files, without their bytes.
    pub async fn all_files(&self, tenant: TenantId, after: After, limit: i64) -> Result<Rows> {
        let rows = self
            .ctx
            .db
            .query(tenant, FILES, &[after.id.into(), limit.into()])
            .await?;
        rows.iter()
            .map(|row| {
                let id = row.uuid(0)?;
                let sha256: String = row.blob(6)?.iter().map(|b| format!("{b:02x}")).collect();
                let value = json!({
                    "id": id, "conversation_id": row.uuid(1)?, "owner": row.text(2)?, "name": NAME.open(row, 3, id)?,
                    "type": row.text(4)?, "size": row.i64(5)?, "sha256": sha256, "created_at": rfc3339(row.i64(7)?),
                });
                Ok((After { id, seq: 0 }, value))
            })
            .collect()
    }

    /// A part of a file's bytes, in clear. 410 when its key was destroyed.
    pub async fn file_part(&self, tenant: TenantId, id: Uuid, range: Range<u64>) -> Result<Vec<u8>> {
        let unknown = || Error::not_found("file.unknown", "There is no such file.");
        let file = FileRow::find(&self.ctx.db, tenant, id).await?.ok_or_else(unknown)?;
        let mut bits = self.files.read(tenant, &file, range).await?;
        let mut bytes = Vec::new();
        while let Some(part) = bits.try_next().await? {
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }

    /// Deletes everything of a clinic that lies outside of the database; answers how many files there were.
    pub async fn erase_files(&self, tenant: TenantId) -> Result<u64> {
        // They go also where they cannot be counted (any more).
        let stored = self.ctx.db.query_one(tenant, STORED, &[]).await;
        self.files.erase(tenant).await?;
        Ok(u64::try_from(stored?.i64(1)?).unwrap_or(0))
    }
}
