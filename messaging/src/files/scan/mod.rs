//! Files that somebody else's scanner looks at before anybody reads them. Off unless configured. A file waits until the
//! scanner has said that it is clean: a scanner that is away lets nothing through.

mod clamd;
mod store;

use super::{FileRow, Files};
use crate::{Messaging, model::Message};
pub(crate) use clamd::Address;
use clamd::Found;
use medtech_kernel::{Error, Result, TenantId, Tx, audit, bus::Event, clock::Millis, config::Config};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use uuid::Uuid;

/// Files of one clinic looked at before the next clinic has its turn.
const TURN: i64 = 8;
/// Harmful files of which the bytes are looked for at once, at the start.
const SWEPT: i64 = 500;
/// How long a scanner that is away is left alone, and how often the queue is looked at without being called.
const PAUSE: Duration = Duration::from_secs(5);
/// A file that the scanner would not look at is tried again after this long at least, and at most, by its age.
const HOLD: (Millis, Millis) = (5_000, 600_000);

/// What is known of a finished file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Waiting,
    Clean,
    Harmful,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Clean => "clean",
            Self::Harmful => "harmful",
        }
    }

    /// What is not understood is not let through.
    fn parse(text: &str) -> Self {
        match text {
            "clean" => Self::Clean,
            "harmful" => Self::Harmful,
            _ => Self::Waiting,
        }
    }
}

/// The scanner, as the files know it.
#[derive(Default)]
pub(super) struct Scanner {
    address: Option<Address>,
    called: Arc<Notify>,
    away: AtomicBool,
}

impl Scanner {
    pub(super) fn open(config: &Config) -> Result<Self> {
        let address = config.files.scanner.as_deref().map(|text| {
            Address::parse(text).ok_or_else(|| {
                Error::bad(
                    "config.scanner",
                    "files.scanner is tcp://host:port or unix:/path of a clamd.",
                )
            })
        });
        Ok(Self {
            address: address.transpose()?,
            ..Self::default()
        })
    }
}

fn state(scans: bool, known: Option<Verdict>) -> Option<Verdict> {
    match (scans, known) {
        (true, None) => Some(Verdict::Waiting),
        // Without a scanner nothing will ever come of waiting; what was found harmful stays refused.
        (false, Some(Verdict::Waiting)) => None,
        (_, known) => known,
    }
}

/// Asks the configured scanner whether it is there; `None` when none is configured.
pub async fn check(config: &Config) -> Option<std::result::Result<(), String>> {
    match Scanner::open(config) {
        Ok(scanner) => Some(scanner.address?.ping().await.map_err(|e| e.to_string())),
        Err(e) => Some(Err(e.message.into_owned())),
    }
}

impl Files {
    /// In the transaction that completes a file.
    pub(super) async fn queue(scans: bool, tx: &mut Tx, file: Uuid) -> Result<()> {
        match scans {
            true => store::wait(tx, file).await,
            false => Ok(()),
        }
    }

    pub(crate) fn scans(&self) -> bool {
        self.scanner.address.is_some()
    }

    /// A file was completed.
    pub(super) fn call_scanner(&self) {
        self.scanner.called.notify_one();
    }

    pub(super) async fn forget_verdict(tx: &mut Tx, file: Uuid) -> Result<()> {
        store::forget(tx, file).await
    }

    /// What is known of a finished file; `None` where files are not looked at.
    pub(crate) async fn verdict(&self, tenant: TenantId, file: Uuid) -> Result<Option<Verdict>> {
        Ok(state(self.scans(), store::get(&self.db, tenant, file).await?))
    }

    /// The same in a transaction.
    pub(crate) async fn verdict_in(scans: bool, tx: &mut Tx, file: Uuid) -> Result<Option<Verdict>> {
        Ok(state(scans, store::get_in(tx, file).await?))
    }

    /// Says of the files of a page of messages what is known of them.
    pub(crate) async fn with_states(&self, tenant: TenantId, page: &mut [Message]) -> Result<()> {
        let mut files = page.iter().filter(|m| m.body.file.is_some());
        let (Some(first), Some(last)) = (files.clone().next(), files.next_back()) else {
            return Ok(());
        };
        let (conversation, from, to) = (first.conversation_id, first.seq - 1, last.seq);
        let known = store::of_page(&self.db, tenant, conversation, from, to).await?;
        for file in page.iter_mut().filter_map(|m| m.body.file.as_mut()) {
            file.state = state(self.scans(), known.get(&file.id).copied());
        }
        Ok(())
    }

    /// May the file be read?
    pub(super) async fn require_clean(&self, tenant: TenantId, file: Uuid) -> Result<()> {
        match self.verdict(tenant, file).await? {
            None | Some(Verdict::Clean) => Ok(()),
            Some(Verdict::Harmful) => Err(Error::forbidden(
                "file.harmful",
                "This file was refused: the scanner found it harmful.",
            )),
            Some(Verdict::Waiting) if self.scanner.away.load(Ordering::Relaxed) => Err(Error::unavailable(
                "file.scanner_away",
                "This file cannot be opened before it is checked, and the scanner does not answer.",
            )),
            Some(Verdict::Waiting) => Err(Error::conflict(
                "file.checking",
                "This file is being checked. Try again in a moment.",
            )),
        }
    }
}

impl Messaging {
    /// The worker that hands finished files to the scanner; none is needed without one.
    pub async fn start_scanner(self: Arc<Self>, mut stop: watch::Receiver<bool>) -> Result<Option<JoinHandle<()>>> {
        for tenant in self.ctx.tenants.all() {
            if let Err(e) = self.sweep_harmful(tenant.id).await {
                tracing::warn!(tenant = %tenant.id, error = %e, "harmful files that were refused are not known");
            }
        }
        let Some(address) = self.files.scanner.address.clone() else {
            return Ok(None);
        };
        for tenant in self.ctx.tenants.all() {
            // What was finished before there was a scanner waits too.
            let queued = self.ctx.db.write(tenant.id, |tx| Box::pin(store::wait_all(tx))).await;
            if let Err(e) = queued {
                tracing::warn!(tenant = %tenant.id, error = %e, "files that wait for the scanner are not known");
            }
        }
        Ok(Some(tokio::spawn(async move {
            let called = self.files.scanner.called.clone();
            loop {
                let more = tokio::select! {
                    more = self.scan_some(&address) => more,
                    _ = stop.wait_for(|stop| *stop) => return,
                };
                if more {
                    continue;
                }
                let away = self.files.scanner.away.load(Ordering::Relaxed);
                tokio::select! {
                    () = called.notified(), if !away => {}
                    () = tokio::time::sleep(PAUSE) => {}
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
        })))
    }

    /// One turn of every clinic; `true` when there is more to do at once.
    async fn scan_some(&self, address: &Address) -> bool {
        let mut more = false;
        for tenant in self.ctx.tenants.all() {
            let waiting = match store::waiting(&self.ctx.db, tenant.id, TURN).await {
                Ok(waiting) => waiting,
                Err(e) => {
                    tracing::warn!(tenant = %tenant.id, error = %e, "files that wait for the scanner are not known");
                    continue;
                }
            };
            let mut looked = 0;
            for id in waiting {
                match self.scan(address, tenant.id, id).await {
                    Ok(true) => looked += 1,
                    Ok(false) => {}
                    Err(e) => {
                        // Does it choke on this file, or is it away? Either way the others go first.
                        let there = address.ping().await.is_ok();
                        self.put_back(tenant.id, id, there).await;
                        if there {
                            tracing::warn!(file = %id, tenant = %tenant.id, error = %e, "the scanner broke off at a file; it waits");
                        } else if !self.files.scanner.away.swap(true, Ordering::Relaxed) {
                            tracing::warn!(error = %e, "the scanner of files does not answer; files wait");
                        }
                        if !there {
                            return false;
                        }
                    }
                }
                if self.files.scanner.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("the scanner of files answers again");
                }
            }
            more |= looked == TURN;
        }
        more
    }

    /// Looks at one file; `false` when that came to nothing and it goes to the end of the queue.
    async fn scan(&self, address: &Address, tenant: TenantId, id: Uuid) -> std::io::Result<bool> {
        let found = match self.plain(tenant, id).await {
            Ok(Some(bytes)) => address.scan(bytes.1).await?.map(|found| Some((bytes.0, found))),
            // Deleted meanwhile.
            Ok(None) => Ok(None),
            Err(e) => Err(e),
        };
        let done = match found {
            Ok(Some((file, Found::Nothing))) => self.note(tenant, file, Verdict::Clean).await,
            Ok(Some((file, Found::Harmful))) => self.note(tenant, file, Verdict::Harmful).await,
            Ok(Some((_, Found::Unread))) => Err(Error::unprocessable(
                "file.unscanned",
                "the scanner did not look at the whole file",
            )),
            Ok(None) => {
                self.ctx
                    .db
                    .write(tenant, move |tx| Box::pin(store::forget(tx, id)))
                    .await
            }
            Err(e) => Err(e),
        };
        let Err(e) = done else { return Ok(true) };
        tracing::warn!(file = %id, tenant = %tenant, error = %e, "a file was not checked; it waits");
        self.put_back(tenant, id, true).await;
        Ok(false)
    }

    /// To the end of the queue; held there for a while where the fault is the file's own.
    async fn put_back(&self, tenant: TenantId, id: Uuid, own: bool) {
        let later = self.ctx.db.write(tenant, move |tx| {
            Box::pin(async move {
                match own {
                    true => store::hold(tx, id, HOLD.0, HOLD.1).await,
                    false => store::postpone(tx, id).await,
                }
            })
        });
        if let Err(e) = later.await {
            tracing::warn!(file = %id, tenant = %tenant, error = %e, "a file stays where it is in the queue");
        }
    }

    async fn plain(&self, tenant: TenantId, id: Uuid) -> Result<Option<(FileRow, super::sealed::Plain)>> {
        let Some(file) = FileRow::find(&self.ctx.db, tenant, id).await? else {
            return Ok(None);
        };
        let bytes: super::sealed::Plain = match file.size {
            0 => Box::pin(futures_util::stream::empty()),
            size => self.files.read(tenant, &file, 0..size).await?,
        };
        Ok(Some((file, bytes)))
    }

    /// Keeps the verdict, tells those who look, and takes the bytes of a harmful file away.
    async fn note(&self, tenant: TenantId, file: FileRow, verdict: Verdict) -> Result<()> {
        let (ctx, id) = (self.ctx.clone(), file.id);
        self.ctx
            .db
            .write(tenant, move |tx| {
                Box::pin(async move {
                    store::put(tx, file.id, verdict).await?;
                    let (target, detail) = (format!("File/{}", file.id), format!("check:{}", verdict.name()));
                    let entry = audit::Entry {
                        actor: "system",
                        action: "update",
                        target: &target,
                        outcome: "success",
                        detail: &detail,
                    };
                    let patient = crate::store::patient_of(tx, file.conversation).await?;
                    audit::write_all(tx, &[(entry, patient.as_deref())]).await?;
                    let channel = format!("conversation:{}", file.conversation);
                    let body =
                        serde_json::json!({"conversation_id": file.conversation, "file": file.id, "state": verdict});
                    let event = Event::of(tx, "file.checked", channel.clone(), &body)?.on(channel);
                    ctx.bus.publish_after(tx, event);
                    Ok(())
                })
            })
            .await?;
        if verdict == Verdict::Harmful {
            tracing::warn!(file = %id, tenant = %tenant, "a harmful file was refused");
            self.take_away(tenant, id).await;
        }
        Ok(())
    }

    /// The bytes of files found harmful that a crash, or a disk that failed, has left. Also where no scanner is configured
    /// any more.
    async fn sweep_harmful(&self, tenant: TenantId) -> Result<()> {
        let mut after = Uuid::nil();
        loop {
            let some = store::harmful(&self.ctx.db, tenant, after, SWEPT).await?;
            let Some(last) = some.last() else { return Ok(()) };
            after = *last;
            for id in some {
                self.take_away(tenant, id).await;
            }
        }
    }

    /// Refused it is already, so a failure here changes nothing of the verdict.
    async fn take_away(&self, tenant: TenantId, id: Uuid) {
        if let Err(e) = self.files.objects.delete(tenant, id).await {
            tracing::error!(file = %id, tenant = %tenant, error = %e,
                "the bytes of a harmful file could not be deleted; they are tried again at the next start");
        }
    }
}
