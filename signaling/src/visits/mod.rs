//! Visits: one guest, one host, one room, held together by a state machine on the server.
//!
//! [`machine`] decides, [`store`] keeps, [`routes`] and [`rpc`] ask, [`media`] is what the rooms must offer. Every change
//! is one transaction: state, durable event, audit, relations; live views go out after its commit.
//!
//! A visit carries `subject_ref` and `context_ref` unread: what they mean is the business of whoever asked for the visit.
//!
//! After a crash visits are read back as they were. Connections did not survive, so an interval that was open ends at
//! the last time its participant was seen connected, which is written every [`background::BEAT`].

mod background;
mod colleagues;
mod intake;
pub mod machine;
pub mod media;
pub mod model;
mod open;
mod plan;
mod presence;
mod recheck;
mod rooms;
mod routes;
pub mod rpc;
mod store;
#[cfg(test)]
mod tests;

pub use store::SHEETS;

use machine::{Effect, Input, Refusal, Side, State};
use media::{Media, MediaEvent};
use medtech_kernel::{
    BoxFuture, ChannelRule, Ctx, Error, Migration, Module, Result, TenantId, Tx,
    audit::{self, Lists, Origin},
    auth::Principal,
    bus::{Event, once},
    clock::Millis,
    db::Script,
    http::{remember, remembered},
    policy::{Action, patient_of, relate, unrelate},
};
use model::{Record, Requested, View};
use presence::Presence;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::mpsc;
use uuid::Uuid;

/// Tables of visits.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        module: "visits",
        number: 1,
        sql: Script::Both(include_str!("../../migrations/0001_visits.sql")),
    },
    Migration {
        module: "visits",
        number: 2,
        sql: Script::Both(include_str!("../../migrations/0002_cancelled.sql")),
    },
];

/// After the end the guest may read the summary page this long.
pub const FAREWELL_MS: Millis = 15 * 60_000;
/// A link works until this long after the start, unless the request says otherwise.
const LINK_LIFE_MS: Millis = 24 * 3_600_000;
/// Rooms that wait to be brought in line. When it is full a command waits: nothing is dropped.
const SYNC_QUEUE: usize = 1024;

/// Makes the visit's conversation in the visit's own transaction. Messaging implements it.
pub trait Conversations: Send + Sync + 'static {
    /// `members` are (subject, name). Answers the conversation's id.
    fn create_in<'a>(
        &'a self,
        tx: &'a mut Tx,
        topic: &'a str,
        title: &'a str,
        members: &'a [(String, String)],
    ) -> BoxFuture<'a, Result<Uuid>>;

    /// Somebody joins it, in the transaction in which they join the visit.
    fn add_in<'a>(
        &'a self,
        tx: &'a mut Tx,
        conversation: Uuid,
        subject: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<()>>;

    /// Somebody's part in it ends; what was said stays.
    fn remove_in<'a>(&'a self, tx: &'a mut Tx, conversation: Uuid, subject: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// The visits of all tenants. Clones share them.
#[derive(Clone)]
pub struct Visits(Arc<Inner>);

struct Inner {
    ctx: Ctx,
    media: Arc<dyn Media>,
    conversations: Arc<dyn Conversations>,
    seen: Presence,
    lists: Lists,
    recheck: recheck::Recheck,
    sync: mpsc::Sender<rooms::Sync>,
    sync_inbox: std::sync::Mutex<Option<mpsc::Receiver<rooms::Sync>>>,
}

/// A command of somebody, perhaps with the key that makes a retry harmless.
#[derive(Clone, Debug)]
pub struct Command {
    pub actor: String,
    pub name: &'static str,
    pub key: Option<String>,
}

impl Command {
    #[must_use]
    pub fn new(actor: &str, name: &'static str, key: Option<String>) -> Self {
        Self {
            actor: actor.to_owned(),
            name,
            key,
        }
    }
}

impl Visits {
    /// Call [`Visits::start`] before serving.
    #[must_use]
    pub fn new(ctx: Ctx, media: Arc<dyn Media>, conversations: Arc<dyn Conversations>) -> Self {
        let (sync, inbox) = mpsc::channel(SYNC_QUEUE);
        let sync_inbox = std::sync::Mutex::new(Some(inbox));
        let lists = Lists::new(ctx.db.clone());
        Self(Arc::new(Inner {
            ctx,
            media,
            conversations,
            seen: Presence::default(),
            lists,
            recheck: recheck::Recheck::default(),
            sync,
            sync_inbox,
        }))
    }

    /// Applies an input to a visit. The work goes on when the caller goes away, so nothing after the commit is skipped.
    async fn change(
        &self,
        tenant: TenantId,
        id: Uuid,
        command: Command,
        input: Input,
        note: impl FnOnce(&mut Record) + Send + 'static,
    ) -> Result<Record> {
        let this = self.clone();
        let work = async move {
            let (inner, leaving) = (this.clone(), input == Input::Leave);
            let record = this
                .0
                .ctx
                .db
                .write(tenant, move |tx| {
                    Box::pin(async move { inner.change_in(tx, id, &command, &input, note).await })
                })
                .await?;
            if record.now.state == State::Ended {
                this.0.recheck.forget(tenant, id);
                this.0.seen.forget((tenant, id));
            }
            let remove = leaving.then(|| record.guest.subject.clone());
            this.sync(rooms::Sync {
                remove,
                ..rooms::Sync::new(tenant, id)
            })
            .await;
            Ok(record)
        };
        tokio::spawn(Origin::current().scope(work))
            .await
            .map_err(|e| Error::internal("visit.task", e))?
    }

    async fn change_in(
        &self,
        tx: &mut Tx,
        id: Uuid,
        command: &Command,
        input: &Input,
        note: impl FnOnce(&mut Record),
    ) -> Result<Record> {
        let before = store::take(tx, id).await?.ok_or_else(not_found)?;
        if let Some(key) = &command.key {
            let route = format!("visits/{}", command.name);
            let request = id.to_string();
            if remembered(tx, &command.actor, &route, key, request.as_bytes())
                .await?
                .is_some()
            {
                return Ok(before);
            }
            remember(tx, &command.actor, &route, key, request.as_bytes(), &()).await?;
        }
        self.step(tx, before, command, input, note).await
    }

    /// One step of a visit already taken: decide, save, record, audit, show.
    async fn step(
        &self,
        tx: &mut Tx,
        before: Record,
        command: &Command,
        input: &Input,
        note: impl FnOnce(&mut Record),
    ) -> Result<Record> {
        let (now, effects) = machine::apply(&before.now, input, tx.now()).map_err(refused)?;
        let mut after = Record { now, ..before.clone() };
        note(&mut after);
        if after == before {
            return Ok(after);
        }
        store::save(tx, &before, &after).await?;
        let key = format!("visit:{}", after.id);
        for effect in &effects {
            let kind = match effect {
                Effect::Arrived => "visit.arrived",
                Effect::Admitted => "visit.admitted",
                Effect::Held => "visit.held",
                Effect::Ended => "visit.ended",
                Effect::Left => "visit.left",
            };
            self.0
                .ctx
                .bus
                .record(tx, Event::of(tx, kind, key.clone(), &after.fact())?.by(&*command.actor))
                .await?;
            if *effect == Effect::Ended {
                // Under a key of its own: a row that waits holds back the later rows of its key.
                let farewell = Event::of(
                    tx,
                    "visit.farewell",
                    format!("farewell:{}", after.id),
                    &Farewell { visit_id: after.id },
                )?;
                let due = tx.now() + FAREWELL_MS;
                self.0.ctx.bus.record_at(tx, farewell, due).await?;
            }
        }
        if !matches!(input, Input::Joined { .. } | Input::Dropped { .. }) {
            let entry = audit::Entry {
                actor: &command.actor,
                action: "update",
                target: &key,
                outcome: "success",
                detail: command.name,
            };
            // Whoever asks who saw their record finds the steps of their visits, too.
            let patient = patient_of(tx, &key).await?;
            audit::write_all(tx, &[(entry, patient.as_deref())]).await?;
        }
        if effects.contains(&Effect::Ended) {
            for colleague in std::mem::take(&mut after.colleagues) {
                self.dismiss_in(tx, &after, &colleague.subject).await?;
            }
        }
        self.show(tx, &after, !effects.is_empty()).await?;
        Ok(after)
    }

    /// Sends the visit's views out after the commit; when the queue moved, those of the others who wait too.
    async fn show(&self, tx: &mut Tx, record: &Record, queue_moved: bool) -> Result<()> {
        let queue = store::waiting(tx, &record.host.subject).await?;
        self.show_one(tx, record, &queue)?;
        if queue_moved {
            for id in queue.iter().filter(|id| **id != record.id) {
                if let Some(other) = store::peek(tx, *id).await? {
                    self.show_one(tx, &other, &queue)?;
                }
            }
        }
        Ok(())
    }

    fn show_one(&self, tx: &mut Tx, record: &Record, queue: &[Uuid]) -> Result<()> {
        let online = self.0.seen.online((tx.tenant(), record.id), tx.now());
        let place = place(queue, record.id);
        let host = record
            .host
            .subject
            .split_once(':')
            .map_or(&*record.host.subject, |(_, id)| id);
        for (channel, for_host) in [
            (format!("queue:{host}"), true),
            (format!("encounter:{}", record.id), false),
        ] {
            let body = Shown {
                visit: record.view(for_host, place, online),
            };
            let event = Event::of(tx, "visit.updated", format!("visit:{}", record.id), &body)?.on(channel);
            self.0.ctx.bus.publish_after(tx, event);
        }
        Ok(())
    }

    /// The visit as `who` may see it.
    async fn view(&self, who: &Principal, record: &Record) -> Result<View> {
        let queue = store::waiting_now(&self.0.ctx.db, who.tenant, &record.host.subject).await?;
        let online = self.0.seen.online((who.tenant, record.id), self.0.ctx.clock.now_ms());
        let staff = record.side(&who.subject) != Some(Side::Guest);
        let mut view = record.view(staff, place(&queue, record.id), online);
        if staff {
            view.may = Some(self.may(who, record).await?);
        }
        Ok(view)
    }

    /// A media connection became active or ended. For one participant, call in the order of the events.
    pub async fn on_media_event(&self, event: MediaEvent) -> Result<()> {
        let Some(id) = event.visit() else { return Ok(()) };
        let key = (event.tenant, id);
        let Some(record) = store::read(&self.0.ctx.db, event.tenant, id).await? else {
            return Ok(());
        };
        let Some(side) = record.side(&event.identity) else {
            return Ok(());
        };
        let MediaEvent {
            connection, active, at, ..
        } = event;
        if side == Side::Guest && (active || record.now.guest.connection.as_ref() == Some(&connection)) {
            self.0.seen.media(key, active, self.0.ctx.clock.now_ms());
        }
        let input = if active {
            Input::Joined { side, connection, at }
        } else {
            Input::Dropped { side, connection, at }
        };
        let command = Command::new(&record.person(side).subject, "media", None);
        match self.change(event.tenant, id, command, input, |_| {}).await {
            Ok(after) => {
                let connected = after.now.host.connection.is_some() || after.now.guest.connection.is_some();
                self.0
                    .seen
                    .set_connected(key, connected && after.now.state != State::Ended);
                Ok(())
            }
            // Someone connected to a visit that had just ended: the room is being closed.
            Err(e) if e.code == "visit.ended" => {
                self.sync(rooms::Sync::new(event.tenant, id)).await;
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// A live-channel connection of `subject` to `encounter:{visit}` came or went.
    pub async fn on_presence(&self, tenant: TenantId, visit: Uuid, subject: &str, joined: bool) -> Result<()> {
        if let Some(record) = store::read(&self.0.ctx.db, tenant, visit).await?
            && record.side(subject) == Some(Side::Guest)
            && record.now.state != State::Ended
        {
            self.0.seen.channel((tenant, visit), joined, self.0.ctx.clock.now_ms());
        }
        Ok(())
    }

    async fn requested(&self, event: &Event) -> Result<()> {
        let request: Requested = event.parse()?;
        let hash = model::parse_hash(&request.link_hash)
            .ok_or_else(|| Error::bad("visit.link_hash", "The link's hash is not a SHA-256."))?;
        let expires = request.link_expires.unwrap_or(request.start + LINK_LIFE_MS);
        let (this, event_id) = (self.clone(), event.id);
        self.0
            .ctx
            .db
            .write(event.tenant, move |tx| {
                Box::pin(this.requested_in(tx, event_id, request, hash, expires))
            })
            .await
    }

    async fn requested_in(self, tx: &mut Tx, event: Uuid, r: Requested, hash: [u8; 32], expires: Millis) -> Result<()> {
        if !once(tx, Self::NAME, event).await? || store::peek(tx, r.visit_id).await?.is_some() {
            return Ok(());
        }
        let target = format!("visit:{}", r.visit_id);
        let members: Vec<(String, String)> = [&r.host, &r.guest].map(|p| (p.subject.clone(), p.name.clone())).into();
        let conversation = self.0.conversations.create_in(tx, &target, &r.title, &members).await?;
        store::create(tx, &r, hash, expires, Some(conversation)).await?;
        relate(tx, &r.host.subject, "host", &target, None).await?;
        relate(tx, &r.guest.subject, "participant", &target, None).await?;
        for (subject, relation) in [(&r.host.subject, "host"), (&r.guest.subject, "participant")] {
            relate(tx, subject, relation, &format!("encounter:{}", r.visit_id), None).await?;
        }
        audit::write(
            tx,
            audit::Entry {
                actor: &r.host.subject,
                action: "create",
                target: &target,
                outcome: "success",
                detail: "requested",
            },
        )
        .await?;
        if let Some(record) = store::peek(tx, r.visit_id).await? {
            self.show(tx, &record, false).await?;
        }
        Ok(())
    }

    /// The grace after the end is over: the guest's session and access go.
    async fn farewell(&self, event: &Event) -> Result<()> {
        let Farewell { visit_id } = event.parse()?;
        let Some(record) = store::read(&self.0.ctx.db, event.tenant, visit_id).await? else {
            return Ok(());
        };
        let sessions = self.0.ctx.sessions.clone();
        self.0
            .ctx
            .db
            .write(event.tenant, move |tx| {
                Box::pin(async move {
                    // Only what the link gave: somebody who signed in otherwise keeps that session.
                    if record.guest.subject.starts_with("guest:") {
                        sessions.revoke_subject(tx, &record.guest.subject).await?;
                    }
                    for kind in ["visit", "encounter"] {
                        unrelate(tx, &record.guest.subject, "participant", &format!("{kind}:{visit_id}")).await?;
                    }
                    Ok(())
                })
            })
            .await
    }
}

#[derive(Serialize)]
struct Shown {
    visit: View,
}

#[derive(Serialize, serde::Deserialize)]
struct Farewell {
    visit_id: Uuid,
}

/// Place in the queue, from 1.
fn place(queue: &[Uuid], id: Uuid) -> Option<i64> {
    queue
        .iter()
        .position(|q| *q == id)
        .and_then(|p| i64::try_from(p + 1).ok())
}

fn not_found() -> Error {
    Error::not_found("visit.unknown", "There is no such visit.")
}

fn ended() -> Error {
    Error::gone("visit.ended", "This visit has ended.")
}

/// Why an ended visit opens no more.
fn over(record: &Record) -> Error {
    match record.now.cancelled_at {
        Some(_) => Error::gone("visit.cancelled", "The clinic has cancelled this visit."),
        None => ended(),
    }
}

fn refused(why: Refusal) -> Error {
    match why {
        Refusal::Ended => ended(),
        Refusal::NotOpened => Error::conflict("visit.not_opened", "The visit link has not been opened yet."),
        Refusal::NoDeviceCheck => Error::conflict(
            "visit.device_check_missing",
            "Check camera and microphone first. Each check may be skipped.",
        ),
        Refusal::NoConsent => Error::conflict("visit.consent_missing", "The patient has not consented yet."),
        Refusal::NotWaiting => Error::conflict("visit.not_waiting", "The patient is not in the waiting room yet."),
        Refusal::NotAdmitted => Error::conflict("visit.not_admitted", "The patient has not been admitted."),
    }
}

impl Module for Visits {
    const NAME: &'static str = "visits";

    fn migrations() -> &'static [Migration] {
        MIGRATIONS
    }

    fn routes(self: Arc<Self>) -> axum::Router {
        routes::routes(Self::clone(&self))
    }

    fn channels() -> &'static [ChannelRule] {
        const HOUR: Millis = 3_600_000;
        &[
            ChannelRule {
                kind: "encounter",
                subscribe: Action::Subscribe,
                history: 100,
                ttl_ms: 4 * HOUR,
                presence: true,
            },
            ChannelRule {
                kind: "queue",
                subscribe: Action::Subscribe,
                history: 200,
                ttl_ms: HOUR,
                presence: false,
            },
        ]
    }

    fn consumes() -> &'static [&'static str] {
        &[
            "visit.requested",
            "visit.rescheduled",
            "visit.cancelled",
            "visit.farewell",
        ]
    }

    async fn on_event(&self, event: Event) -> Result<()> {
        match &*event.kind {
            "visit.requested" => self.requested(&event).await,
            "visit.rescheduled" => self.rescheduled(&event).await,
            "visit.cancelled" => self.cancelled(&event).await,
            "visit.farewell" => self.farewell(&event).await,
            _ => Ok(()),
        }
    }
}
