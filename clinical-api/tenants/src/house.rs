//! What the rest of the product does for a clinic as a whole. The modules do not know each other: the server joins them.

use medtech_kernel::{BoxFuture, Result, TenantId, clock::Millis};
use serde::Serialize;
use serde_json::Value;
use std::ops::Range;
use uuid::Uuid;

/// A new clinic's first administrator was asked in.
#[derive(Clone, Debug, Serialize)]
pub struct FirstAdmin {
    /// Told once, to whoever made the clinic; the mail carries it, too.
    pub link: String,
    pub email: String,
    pub expires_at: String,
}

/// What a clinic uses.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Usage {
    pub users: u64,
    pub storage_bytes: u64,
    pub messages_today: u64,
}

/// A part of an export that others hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Users,
    Conversations,
    Messages,
    /// Descriptions of the files, each with its `id`, `name`, `size` and `sha256`; the bytes come by [`House::file`].
    Files,
}

impl Part {
    pub(crate) const ALL: [Self; 4] = [Self::Users, Self::Conversations, Self::Messages, Self::Files];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Conversations => "conversations",
            Self::Messages => "messages",
            Self::Files => "files",
        }
    }
}

/// Some rows, and where the next ones begin.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub rows: Vec<Value>,
    /// Pass this on; `None` at the end.
    pub next: Option<String>,
}

pub trait House: Send + Sync + 'static {
    fn first_admin<'a>(
        &'a self,
        tenant: TenantId,
        actor: &'a str,
        email: String,
        name: String,
    ) -> BoxFuture<'a, Result<FirstAdmin>>;

    /// `today` is when the clinic's day began.
    fn usage(&self, tenant: TenantId, today: Millis) -> BoxFuture<'_, Result<Usage>>;

    fn page(&self, tenant: TenantId, part: Part, after: Option<String>) -> BoxFuture<'_, Result<Page>>;

    /// Bytes of a file.
    fn file(&self, tenant: TenantId, id: Uuid, range: Range<u64>) -> BoxFuture<'_, Result<Vec<u8>>>;

    /// Deletes what lies outside of the database; answers how many files.
    fn erase_files(&self, tenant: TenantId) -> BoxFuture<'_, Result<u64>>;
}
