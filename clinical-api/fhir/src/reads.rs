//! The audit of reads: entries wait in a bounded queue and are written in batches. When the queue is full, the reader
//! waits: no read goes unrecorded while the server runs.

use medtech_kernel::{
    Db, TenantId,
    audit::{self, Entry, Origin, Record},
};
use std::collections::HashMap;
use tokio::sync::{mpsc, oneshot};

const QUEUE: usize = 4096;
const BATCH: usize = 256;
/// Patients of one read who have an entry each.
const EACH: usize = 4;

pub(crate) struct Read {
    pub(crate) tenant: TenantId,
    pub(crate) actor: String,
    /// `Type/id`, or `Type` for a search.
    pub(crate) target: String,
    /// The shape of the question, never its values.
    pub(crate) detail: String,
    pub(crate) outcome: &'static str,
    /// Patients of whom something was shown.
    pub(crate) patients: Vec<String>,
    pub(crate) origin: Origin,
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
                    let records: Vec<_> = reads.iter().flat_map(records).collect();
                    audit::record(tx, records).await
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

/// An entry for each patient; for many, one that names them all in the trail's own list: a page of a search may show hundreds.
fn records(read: &Read) -> Vec<Record<'_>> {
    let entry = Entry {
        actor: &read.actor,
        action: "read",
        target: &read.target,
        outcome: read.outcome,
        detail: &read.detail,
    };
    let one = Record::new(entry).from(&read.origin);
    let patients = read.patients.iter().map(String::as_str);
    match read.patients.len() {
        0 => vec![one],
        1..=EACH => patients.map(|p| one.clone().about([p])).collect(),
        _ => vec![one.about(patients)],
    }
}
