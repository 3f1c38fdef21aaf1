//! Where parts that must not know each other meet: visits with the media service, visits with messaging, API keys
//! with the root key.

use medtech_fhir::{Access, Fhir};
use medtech_identity::{BirthDates, Identity};
use medtech_kernel::{
    BoxFuture, Error, Result, TenantId, Tx,
    auth::Revoked,
    clock::{Millis, rfc3339},
    secret::Root,
    tenant::{Status, Tenants},
};
use medtech_messaging::{After, Messaging};
use medtech_signaling::{
    channels::{Hub, PresenceChange},
    livekit::{
        ApiKey, ApiKeys, LeaveReason, LiveKit, LiveKitError, Permission, RoomEvent, RoomEventKind, TokenRequest,
    },
    visits::{
        self, Conversations, Visits,
        media::{Media, MediaEvent, Present, Rights},
    },
};
use medtech_tenants::{FirstAdmin, House, Page, Part, Usage};
use std::{ops::Range, sync::Arc};
use tokio::sync::{broadcast, mpsc, watch};
use uuid::Uuid;

/// A media token opens a connection for this long; a standing connection does not end with it.
const TOKEN_LIFE_MS: Millis = 6 * 3_600_000;

/// LiveKit API keys, one a tenant, derived from the root key: `mt{tenant}`.
pub(crate) struct TenantKeys {
    pub(crate) root: Root,
    pub(crate) tenants: Tenants,
}

impl ApiKeys for TenantKeys {
    fn by_key(&self, key: &str) -> Option<ApiKey> {
        self.of_tenant(TenantId::from_number(key.strip_prefix("mt")?.parse().ok()?))
    }

    fn of_tenant(&self, tenant: TenantId) -> Option<ApiKey> {
        // Nobody enters the rooms of a clinic that is closed, whatever token they hold.
        let tenant = self.tenants.by_id(tenant).filter(|t| t.status == Status::Active)?.id;
        let secret = self.root.derive("livekit api secret", tenant);
        Some(ApiKey {
            tenant,
            key: format!("mt{tenant}").into(),
            secret: Arc::from(secret.as_slice()),
        })
    }
}

/// Dates of birth as sign-in links ask for them: of the record, nothing else is read.
pub(crate) struct Births(pub(crate) Fhir);

impl BirthDates for Births {
    fn birth_date<'a>(&'a self, tenant: TenantId, patient: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(async move {
            let read = self.0.read(tenant, &Access::All, "Patient", patient).await;
            let Ok(patient) = read.and_then(|r| r.value().map_err(Into::into)) else {
                // Without a record there is no date to compare with.
                tracing::warn!(%tenant, "a date of birth could not be read");
                return Ok(None);
            };
            let born = patient.get("birthDate").and_then(|b| b.as_str());
            // A year or a month alone proves too little.
            Ok(born.filter(|b| b.len() == 10).map(str::to_owned))
        })
    }
}

/// The media service as visits see it.
pub(crate) struct Rooms(pub(crate) LiveKit);

fn permission(rights: Rights) -> Permission {
    if rights == Rights::NONE {
        return Permission::waiting();
    }
    Permission {
        can_publish: rights.publish,
        can_subscribe: rights.subscribe,
        can_publish_data: rights.publish_data,
        ..Permission::full()
    }
}

fn media(error: LiveKitError) -> Error {
    Error::internal("media.service", error)
}

/// Somebody or something that is not there needs no change.
fn absent_is_fine<T>(outcome: Result<T, LiveKitError>) -> Result<()> {
    match outcome {
        Ok(_) | Err(LiveKitError::NotFound) => Ok(()),
        Err(e) => Err(media(e)),
    }
}

impl Media for Rooms {
    fn token(&self, tenant: TenantId, room: &str, identity: &str, name: &str, rights: Rights) -> Result<String> {
        let request = TokenRequest {
            tenant,
            room: room.to_owned(),
            identity: identity.to_owned(),
            name: name.to_owned(),
            permission: permission(rights),
            ttl_ms: TOKEN_LIFE_MS,
        };
        self.0.token(&request).map_err(media)
    }

    fn set_rights<'a>(
        &'a self,
        tenant: TenantId,
        room: &'a str,
        identity: &'a str,
        rights: Rights,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { absent_is_fine(self.0.set_permission(tenant, room, identity, permission(rights)).await) })
    }

    fn remove<'a>(&'a self, tenant: TenantId, room: &'a str, identity: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { absent_is_fine(self.0.remove(tenant, room, identity, LeaveReason::Removed).await) })
    }

    fn present(&self, tenant: TenantId) -> BoxFuture<'_, Result<Vec<Present>>> {
        Box::pin(async move {
            let all = self.0.present(tenant).await.map_err(media)?;
            let present = |(room, identity, connection)| Present {
                room,
                identity,
                connection,
            };
            Ok(all.into_iter().map(present).collect())
        })
    }

    fn close<'a>(&'a self, tenant: TenantId, room: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { absent_is_fine(self.0.close_room(tenant, room).await) })
    }
}

/// Messaging as visits see it.
pub(crate) struct VisitChats(pub(crate) Arc<Messaging>);

impl Conversations for VisitChats {
    fn create_in<'a>(
        &'a self,
        tx: &'a mut Tx,
        topic: &'a str,
        title: &'a str,
        members: &'a [(String, String)],
    ) -> BoxFuture<'a, Result<Uuid>> {
        Box::pin(self.0.create_conversation_in(tx, topic, title, members))
    }

    fn add_in<'a>(
        &'a self,
        tx: &'a mut Tx,
        conversation: Uuid,
        subject: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.add_member_in(tx, conversation, subject, name))
    }

    fn remove_in<'a>(&'a self, tx: &'a mut Tx, conversation: Uuid, subject: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.remove_member_in(tx, conversation, subject))
    }
}

/// What a clinic as a whole is to those who hold a part of it.
pub(crate) struct Household {
    pub(crate) identity: Arc<Identity>,
    pub(crate) messaging: Arc<Messaging>,
}

/// Rows of an export read at once.
const EXPORTED: i64 = 500;

impl House for Household {
    fn first_admin<'a>(
        &'a self,
        tenant: TenantId,
        actor: &'a str,
        email: String,
        name: String,
    ) -> BoxFuture<'a, Result<FirstAdmin>> {
        Box::pin(async move {
            let invited = self.identity.invite_first(tenant, actor, email, name).await?;
            Ok(FirstAdmin {
                link: invited.link,
                email: invited.user.email,
                expires_at: rfc3339(invited.expires_at),
            })
        })
    }

    fn usage(&self, tenant: TenantId, today: Millis) -> BoxFuture<'_, Result<Usage>> {
        Box::pin(async move {
            let (storage_bytes, messages_today) = self.messaging.usage(tenant, today).await?;
            Ok(Usage {
                users: u64::try_from(self.identity.count(tenant).await?).unwrap_or(0),
                storage_bytes,
                messages_today,
            })
        })
    }

    fn page(&self, tenant: TenantId, part: Part, after: Option<String>) -> BoxFuture<'_, Result<Page>> {
        Box::pin(async move {
            let from = after.as_deref().map_or(Ok(After::default()), place)?;
            let m = &self.messaging;
            let rows = match part {
                Part::Users => {
                    let users = self.identity.export(tenant, from.id, EXPORTED).await?;
                    users
                        .into_iter()
                        .map(|(id, user)| (After { id, seq: 0 }, user))
                        .collect()
                }
                Part::Conversations => m.all_conversations(tenant, from, EXPORTED).await?,
                Part::Messages => m.all_messages(tenant, from, EXPORTED).await?,
                Part::Files => m.all_files(tenant, from, EXPORTED).await?,
            };
            let next = rows.last().map(|(after, _)| format!("{} {}", after.id, after.seq));
            Ok(Page {
                rows: rows.into_iter().map(|(_, row)| row).collect(),
                next,
            })
        })
    }

    fn file(&self, tenant: TenantId, id: Uuid, range: Range<u64>) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(self.messaging.file_part(tenant, id, range))
    }

    fn erase_files(&self, tenant: TenantId) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.messaging.erase_files(tenant))
    }
}

/// Where a page of an export begins, as [`Household::page`] wrote it.
fn place(text: &str) -> Result<After> {
    let wrong = || Error::internal("joints.place", "not a place of an export");
    let (id, seq) = text.split_once(' ').ok_or_else(wrong)?;
    Ok(After {
        id: id.parse().map_err(|_| wrong())?,
        seq: seq.parse().map_err(|_| wrong())?,
    })
}

/// Tells visits who is connected to their rooms, in the order of the events.
pub(crate) async fn follow_rooms(events: mpsc::Receiver<RoomEvent>, visits: Visits, stop: watch::Receiver<bool>) {
    visits.follow_media(events, connection, stop).await;
}

/// A room's event as visits see it, when it says that somebody's connection came or went.
fn connection(event: RoomEvent) -> Option<MediaEvent> {
    let active = match event.kind {
        RoomEventKind::Active | RoomEventKind::Resumed => true,
        RoomEventKind::Interrupted | RoomEventKind::Left { .. } => false,
        _ => return None,
    };
    Some(MediaEvent {
        tenant: event.tenant,
        room: event.room,
        identity: event.identity,
        connection: event.sid,
        active,
        at: event.at,
    })
}

/// Tells visits whose browsers are connected to their channel: a patient who waits without media is there too.
pub(crate) async fn follow_presence(
    mut changes: broadcast::Receiver<PresenceChange>,
    visits: Visits,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let change = match change {
            Ok(change) => change,
            // What was missed turns up at the next change or by the browser's own requests.
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let Some(visit) = change.channel.strip_prefix("encounter:").and_then(|id| id.parse().ok()) else {
            continue;
        };
        if let Err(e) = visits
            .on_presence(change.tenant, visit, &change.subject, change.joined)
            .await
        {
            tracing::warn!(error = ?e, "a presence change was not taken in");
        }
    }
}

/// A session that ends takes its media with it: rooms know nobody's session, so the subject leaves them all, and comes
/// back with a new token where another session still stands.
pub(crate) fn end_media_with_session(hub: &Hub, livekit: &LiveKit) {
    let livekit = livekit.clone();
    hub.listen(move |event| {
        if event.kind != "session.revoked" {
            return;
        }
        let (livekit, tenant) = (livekit.clone(), event.tenant);
        let Ok(revoked) = event.parse::<Revoked>() else { return };
        // Silence at one screen does not take somebody out of the call that they hold at another.
        if revoked.elsewhere {
            return;
        }
        tokio::spawn(async move {
            if let Err(e) = livekit.remove_subject(tenant, &revoked.subject).await {
                tracing::error!(%tenant, error = %e, "media of an ended session goes on");
            }
        });
    });
}

/// Access that was withdrawn closes rooms as it closes channels.
pub(crate) fn recheck_rooms_on_withdrawal(hub: &Hub, visits: &Visits) {
    let visits = visits.clone();
    hub.listen(move |event| {
        if event.kind == "access.changed" {
            visits.look_again(event.tenant);
        }
    });
}

/// The commands of the live channels.
pub(crate) fn rpc(hub: &Hub, messaging: &Arc<Messaging>, visits: &Visits) {
    use medtech_messaging::rpc;
    let m = messaging.clone();
    hub.rpc("message.send", move |who, params| {
        rpc::message_send(m.clone(), who, params)
    });
    let m = messaging.clone();
    hub.rpc("message.receipt", move |who, params| {
        rpc::message_receipt(m.clone(), who, params)
    });
    let m = messaging.clone();
    hub.rpc("typing", move |who, params| rpc::typing(m.clone(), who, params));
    for method in visits::rpc::METHODS {
        let visits = visits.clone();
        hub.rpc(method, move |who, params| {
            let visits = visits.clone();
            async move { visits::rpc::handle(&visits, method, &who, &params).await }
        });
    }
}
