//! Conversations that nobody reads again: their keys and those of their files are destroyed, the files' bytes go, and then what
//! their rows still say. Each step can be done again: a crash between two of them is mended by doing all of them.

use crate::{Messaging, model::Mode, store};
use medtech_kernel::{
    Result, TenantId, Tx,
    vault::{Class, Scope},
};
use uuid::Uuid;

const OF_TOPIC: &str = "SELECT id FROM conversation WHERE tenant = $1 AND topic = $2 AND mode <> $3 ORDER BY id";
const FILES: &str = "SELECT id FROM shared_file
    WHERE tenant = $1 AND conversation = $2 AND (sha256 IS NULL OR LENGTH(sha256) > 0) ORDER BY id";
const CLOSE: &str = "UPDATE conversation SET mode = $3, title = $4 WHERE tenant = $1 AND id = $2";
/// The numbers stay: whoever catches up by them finds no gap.
const SAID: &str = "UPDATE message SET body = '{}' WHERE tenant = $1 AND conversation = $2";
const SENDER: &str = "UPDATE message SET sender_name = '' WHERE tenant = $1 AND conversation = $2 AND sender = $3";
const MEMBER: &str =
    "UPDATE conversation_member SET name = $4 WHERE tenant = $1 AND conversation = $2 AND subject = $3";
const VERDICTS: &str = "DELETE FROM file_verdict WHERE tenant = $1
    AND file IN (SELECT id FROM shared_file WHERE tenant = $1 AND conversation = $2)";
const UPLOADS: &str = "DELETE FROM shared_file WHERE tenant = $1 AND conversation = $2 AND sha256 IS NULL";
/// A finished file without a hash is one that was erased.
const FINISHED: &str = "UPDATE shared_file SET name = '', metadata = '', size = 0, sha256 = $3
    WHERE tenant = $1 AND conversation = $2";

impl Messaging {
    /// The conversations of a topic that are not erased.
    pub async fn standing(&self, tenant: TenantId, topic: &str) -> Result<Vec<Uuid>> {
        let args = [topic.into(), Mode::Erased.as_str().into()];
        let rows = self.ctx.db.query(tenant, OF_TOPIC, &args).await?;
        rows.iter().map(|row| row.uuid(0)).collect()
    }

    /// Destroys the keys of a conversation and of its files, with a line of the ledger for each, and removes the files' bytes.
    /// Answers the files.
    pub async fn shred(&self, tenant: TenantId, conversation: Uuid, actor: &str) -> Result<Vec<Uuid>> {
        let rows = self.ctx.db.query(tenant, FILES, &[conversation.into()]).await?;
        let files: Vec<Uuid> = rows.iter().map(|row| row.uuid(0)).collect::<Result<_>>()?;
        let all = files.iter().map(|file| (Class::File, *file));
        for (class, id) in [(Class::Conversation, conversation)].into_iter().chain(all) {
            let subject = id.to_string();
            let scope = Scope {
                class,
                subject: &subject,
            };
            self.ctx.vault.shred(&self.ctx.db, tenant, scope, actor).await?;
        }
        for file in &files {
            self.files.erase_one(tenant, *file).await?;
        }
        Ok(files)
    }

    /// The last step, in the caller's transaction: what was said and sent, and how these subjects are called. `false`, and
    /// nothing done, when a file came after [`Messaging::shred`] answered: it has to be done again.
    pub async fn blank_in(
        &self,
        tx: &mut Tx,
        conversation: Uuid,
        shredded: &[Uuid],
        subjects: &[String],
    ) -> Result<bool> {
        store::hold(tx, conversation).await?;
        for row in tx.query(FILES, &[conversation.into()]).await? {
            if !shredded.contains(&row.uuid(0)?) {
                return Ok(false);
            }
        }
        for sql in [SAID, VERDICTS, UPLOADS] {
            tx.exec(sql, &[conversation.into()]).await?;
        }
        for subject in subjects {
            tx.exec(SENDER, &[conversation.into(), subject.into()]).await?;
            let name = store::MEMBER.seal(format!("{conversation}/{subject}"), "");
            tx.exec(MEMBER, &[conversation.into(), subject.into(), name]).await?;
        }
        tx.exec(FINISHED, &[conversation.into(), Vec::<u8>::new().into()])
            .await?;
        let (mode, title) = (Mode::Erased.as_str(), store::TITLE.seal(conversation, ""));
        tx.exec(CLOSE, &[conversation.into(), mode.into(), title]).await?;
        Ok(true)
    }
}
