//! The audit of reads: entries wait in a bounded queue of their clinic and are written in batches. What cannot be written is
//! tried again until it is; when the queue is full, the readers of the clinic wait: no read goes unrecorded while the server runs.

use medtech_kernel::{
    Db, TenantId,
    audit::{self, Entry, Origin, Record},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

const QUEUE: usize = 4096;
const BATCH: usize = 256;
/// Between two attempts to write what could not be written.
const PAUSE: Duration = Duration::from_millis(500);
/// How long whoever stops the server waits for what cannot be written.
const PATIENCE: Duration = Duration::from_secs(20);
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
    Read(Box<Read>),
    Flush(oneshot::Sender<()>),
}

/// A queue for each clinic of whose record somebody read: one whose store fails holds up its own readers only.
pub(crate) struct Reads {
    db: Db,
    queues: Mutex<HashMap<TenantId, mpsc::Sender<Message>>>,
}

impl Reads {
    pub(crate) fn start(db: Db) -> Self {
        Self {
            db,
            queues: Mutex::default(),
        }
    }

    fn queue(&self, tenant: TenantId) -> mpsc::Sender<Message> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || {
            let (tx, rx) = mpsc::channel(QUEUE);
            tokio::spawn(run(self.db.clone(), tenant, rx));
            tx
        };
        queues.entry(tenant).or_insert_with(begin).clone()
    }

    pub(crate) async fn note(&self, read: Read) {
        // Fails only when the runtime is going down.
        let _ = self.queue(read.tenant).send(Message::Read(Box::new(read))).await;
    }

    /// Returns when everything noted before is durable, or cannot be made so for a while.
    pub(crate) async fn flush(&self) {
        let mut all = JoinSet::new();
        for (tenant, queue) in self.queues.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            all.spawn(flush(*tenant, queue.clone()));
        }
        all.join_all().await;
    }
}

async fn flush(tenant: TenantId, queue: mpsc::Sender<Message>) {
    let (tx, rx) = oneshot::channel();
    let written = async {
        if queue.send(Message::Flush(tx)).await.is_ok() {
            let _ = rx.await;
        }
    };
    if tokio::time::timeout(PATIENCE, written).await.is_err() {
        tracing::error!(%tenant, "audit entries of reads are still not written");
    }
}

async fn run(db: Db, tenant: TenantId, mut inbox: mpsc::Receiver<Message>) {
    let mut batch = Vec::with_capacity(BATCH);
    while inbox.recv_many(&mut batch, BATCH).await > 0 {
        let (mut reads, mut waiting) = (Vec::new(), Vec::new());
        for message in batch.drain(..) {
            match message {
                Message::Read(read) => reads.push(*read),
                Message::Flush(done) => waiting.push(done),
            }
        }
        write(&db, tenant, reads.into()).await;
        for done in waiting {
            let _ = done.send(());
        }
    }
}

/// Returns when they are written. Meanwhile the queue fills, and readers wait.
async fn write(db: &Db, tenant: TenantId, reads: Arc<[Read]>) {
    let (count, mut failed) = (reads.len(), false);
    if count == 0 {
        return;
    }
    loop {
        let these = reads.clone();
        let written = db.write(tenant, move |tx| {
            Box::pin(async move { audit::record(tx, these.iter().flat_map(records).collect()).await })
        });
        match written.await {
            Ok(()) if failed => return tracing::info!(%tenant, count, "audit entries of reads are written now"),
            Ok(()) => return,
            // Once, not at each attempt.
            Err(e) if !failed => {
                tracing::error!(%tenant, count, code = e.code, "audit entries of reads could not be written, and wait");
            }
            Err(_) => {}
        }
        failed = true;
        tokio::time::sleep(PAUSE).await;
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
