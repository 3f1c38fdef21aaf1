//! The audit of reads: entries wait in a bounded queue and are written in batches. When the queue is full, the reader
//! waits: no read goes unrecorded while the server runs.

use medtech_kernel::{Db, TenantId, audit};
use std::collections::HashMap;
use tokio::sync::{mpsc, oneshot};

const QUEUE: usize = 4096;
const BATCH: usize = 256;

pub(crate) struct Read {
    pub(crate) tenant: TenantId,
    pub(crate) actor: String,
    /// `Type/id`, or `Type` for a search.
    pub(crate) target: String,
    /// The shape of the question, never its values.
    pub(crate) detail: String,
    pub(crate) outcome: &'static str,
    /// Patients of whom something was shown; an entry for each.
    pub(crate) patients: Vec<String>,
}

enum Message {
    Read(Read),
    Flush(oneshot::Sender<()>),
}

pub(crate) struct Reads(mpsc::Sender<Message>);

impl Reads {
    pub(crate) fn start(db: Db) -> Self {
        let (tx, rx) = mpsc::channel(QUEUE);
        tokio::spawn(run(db, rx));
        Self(tx)
    }

    pub(crate) async fn note(&self, read: Read) {
        // Fails only when the runtime is going down.
        let _ = self.0.send(Message::Read(read)).await;
    }

    /// Returns when everything noted before is durable.
    pub(crate) async fn flush(&self) {
        let (tx, rx) = oneshot::channel();
        if self.0.send(Message::Flush(tx)).await.is_ok() {
            let _ = rx.await;
        }
    }
}

async fn run(db: Db, mut inbox: mpsc::Receiver<Message>) {
    let mut batch = Vec::with_capacity(BATCH);
    while inbox.recv_many(&mut batch, BATCH).await > 0 {
        let mut by_tenant: HashMap<TenantId, Vec<Read>> = HashMap::new();
        let mut waiting = Vec::new();
        for message in batch.drain(..) {
            match message {
                Message::Read(read) => by_tenant.entry(read.tenant).or_default().push(read),
                Message::Flush(done) => waiting.push(done),
            }
        }
        for (tenant, reads) in by_tenant {
            let count = reads.len();
            let written = db.write(tenant, move |tx| {
                Box::pin(async move {
                    let entries: Vec<_> = reads.iter().flat_map(entries).collect();
                    audit::write_all(tx, &entries).await
                })
            });
            if let Err(e) = written.await {
                tracing::error!(%tenant, count, code = e.code, "audit entries of reads could not be written");
            }
        }
        for done in waiting {
            let _ = done.send(());
        }
    }
}

fn entries(read: &Read) -> Vec<(audit::Entry<'_>, Option<&str>)> {
    let entry = audit::Entry {
        actor: &read.actor,
        action: "read",
        target: &read.target,
        outcome: read.outcome,
        detail: &read.detail,
    };
    if read.patients.is_empty() {
        return vec![(entry, None)];
    }
    read.patients.iter().map(|p| (entry, Some(p.as_str()))).collect()
}
