//! A shard: the one owner of its channels and of the connections whose home it is. One thread, one bounded inbox.

use super::{
    answers::{answer_of, subscribed},
    counters::{Counters, add},
    history::Stream,
    members::{Member, Members},
    protocol::{self, Disconnect, Failure, Position, json},
};
use crate::websocket::{Sent, Socket, frame};
use bytes::Bytes;
use medtech_kernel::{ChannelRule, Clock, TenantId, clock::Millis, id};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use uuid::Uuid;

/// Seconds between two pings of one connection, and slots of the wheel.
pub(super) const PING_SECONDS: usize = 25;
/// Seconds a client has for its pong.
const PONG_SECONDS: usize = 10;
/// How long a channel without members keeps its epoch, so that a client that missed nothing is told so.
const MEMORY: Millis = 3_600_000;
/// Ticks between two sweeps over forgotten channels.
const SWEEP: usize = 60;
/// Bytes of history in a shard. Beyond, the channel that grows loses its own, and recovery there truthfully fails.
const MAX_HISTORY: usize = 64 * 1024 * 1024;

/// A channel's full name. Clients see only `name`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) tenant: TenantId,
    pub(super) name: Arc<str>,
}

/// Who a connection is, as others may see it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) client: Uuid,
    pub(super) subject: String,
    pub(super) name: Arc<str>,
}

impl Info {
    pub(super) fn json(&self) -> String {
        let (client, user, name) = (json(&self.client), json(&self.subject), json(&self.name));
        format!(r#"{{"client":{client},"user":{user},"conn_info":{{"name":{name}}}}}"#)
    }
}

/// Someone present in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// The connection; one subject may have several.
    pub client: Uuid,
    pub subject: String,
    pub name: Arc<str>,
}

/// A connection joined or left a channel with presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceChange {
    pub tenant: TenantId,
    pub channel: Arc<str>,
    pub subject: String,
    pub client: Uuid,
    pub joined: bool,
}

/// A connection at its home shard: pinged, and found when its session ends.
pub(super) struct Conn {
    pub(super) conn: u64,
    pub(super) tenant: TenantId,
    pub(super) session: Uuid,
    pub(super) subject: String,
    /// Makes the connection ask again whether it may be where it is.
    pub(super) again: Arc<Notify>,
    pub(super) socket: Arc<Socket>,
}

pub(super) struct Subscribe {
    pub(super) key: Key,
    pub(super) rule: &'static ChannelRule,
    pub(super) member: Member,
    pub(super) id: u32,
    pub(super) recover: Option<Position>,
}

/// A question about a channel, answered straight to the socket. Only subscribers are answered.
pub(super) struct Ask {
    pub(super) key: Key,
    pub(super) conn: u64,
    pub(super) socket: Arc<Socket>,
    pub(super) id: u32,
    pub(super) what: Question,
}

pub(super) enum Question {
    Presence,
    PresenceStats,
    History {
        limit: i64,
        since: Option<Position>,
        reverse: bool,
    },
}

pub(super) enum Msg {
    Enter(Conn),
    /// The connection is gone. Its subscriptions are ended one by one before.
    Exit(u64),
    Subscribe(Box<Subscribe>),
    /// With a command's id and socket when the client asked for it.
    Unsubscribe {
        key: Key,
        conn: u64,
        reply: Option<(u32, Arc<Socket>)>,
    },
    Ask(Box<Ask>),
    /// `data` is JSON on one line.
    Publish {
        key: Key,
        rule: &'static ChannelRule,
        data: String,
    },
    Present {
        key: Key,
        answer: oneshot::Sender<Vec<Present>>,
    },
    /// Ends a subject's subscriptions to a channel: access was withdrawn.
    Expel {
        key: Key,
        subject: String,
    },
    Revoke {
        tenant: TenantId,
        session: Uuid,
    },
    /// Access may have been withdrawn: whoever is meant asks again.
    LookAgain {
        tenant: TenantId,
        subject: Option<String>,
    },
    Tick,
    /// Publications were lost before they came here.
    Lost,
    Drain,
    Stop,
}

/// What a shard shares with the hub.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) counters: Arc<Counters>,
    pub(super) changes: broadcast::Sender<PresenceChange>,
    /// Set by a publisher that found the inbox full.
    pub(super) lossy: Arc<AtomicBool>,
}

pub(super) struct Shard {
    shared: Shared,
    channels: HashMap<Key, Channel>,
    wheel: Vec<HashMap<u64, Conn>>,
    ping: Bytes,
    tick: usize,
    history_bytes: usize,
}

pub(super) struct Channel {
    pub(super) rule: &'static ChannelRule,
    pub(super) stream: Stream,
    members: Members,
    /// The last publication, joining or leaving.
    touched: Millis,
}

impl Channel {
    fn new(rule: &'static ChannelRule, now: Millis) -> Self {
        let stream = Stream::new(fresh_epoch(), rule.history, rule.ttl_ms);
        Self {
            rule,
            stream,
            members: Members::default(),
            touched: now,
        }
    }

    /// Who is there, as far as the rule shows it.
    pub(super) fn present(&self) -> impl Iterator<Item = &Info> {
        let shown = if self.rule.presence { self.members.all() } else { &[] };
        shown.iter().map(|m| &*m.info)
    }

    pub(super) fn is_positioned(&self) -> bool {
        self.rule.history > 0
    }
}

/// An epoch is never used twice, so an offset of another life of the channel is never taken for one of this.
fn fresh_epoch() -> String {
    id::random::<6>().iter().map(|b| format!("{b:02x}")).collect()
}

/// Runs a shard on the calling thread until it is told to stop or nobody is left to send to it.
pub(super) fn run(shared: Shared, mut inbox: mpsc::Receiver<Msg>) {
    let mut shard = Shard::new(shared);
    // What was lost came after the messages that waited then, so these are handled before the epochs change: whoever
    // subscribes in between must be told as well.
    let mut lost_in = None;
    while let Some(msg) = inbox.blocking_recv() {
        if matches!(msg, Msg::Stop) {
            return;
        }
        if shard.shared.lossy.swap(false, Ordering::AcqRel) {
            lost_in = Some(inbox.len());
        }
        // A fault in one message must not end the channels of everyone else for good: the shard starts afresh.
        if catch_unwind(AssertUnwindSafe(|| shard.handle(msg))).is_err() {
            tracing::error!("live: a shard failed and starts afresh");
            // Those who watch the presence learn that nobody is left, and clients come again.
            let _ = catch_unwind(AssertUnwindSafe(|| shard.lost()));
            shard.drain(Disconnect::SERVER_ERROR);
            shard = Shard::new(shard.shared);
        }
        lost_in = match lost_in {
            Some(0) => {
                shard.lost();
                None
            }
            waiting => waiting.map(|n| n - 1),
        };
    }
}

impl Shard {
    fn new(shared: Shared) -> Self {
        Self {
            shared,
            channels: HashMap::new(),
            wheel: (0..PING_SECONDS).map(|_| HashMap::new()).collect(),
            ping: frame::text("{}"),
            tick: 0,
            history_bytes: 0,
        }
    }

    fn handle(&mut self, msg: Msg) {
        match msg {
            Msg::Publish { key, rule, data } => self.publish(key, rule, &data),
            Msg::Subscribe(ask) => self.subscribe(*ask),
            Msg::Unsubscribe { key, conn, reply } => {
                self.leave(&key, conn);
                if let Some((id, socket)) = reply {
                    self.send(&socket, &protocol::reply(id, "unsubscribe", "{}"));
                }
            }
            Msg::Ask(ask) => self.answer(&ask),
            Msg::Enter(conn) => {
                if let Some(slot) = self.slot(conn.conn) {
                    slot.insert(conn.conn, conn);
                }
            }
            Msg::Exit(conn) => {
                if let Some(slot) = self.slot(conn) {
                    slot.remove(&conn);
                }
            }
            Msg::Present { key, answer } => {
                let infos = self.channels.get(&key).into_iter().flat_map(Channel::present);
                let present = infos.map(|i| Present {
                    client: i.client,
                    subject: i.subject.clone(),
                    name: i.name.clone(),
                });
                let _ = answer.send(present.collect());
            }
            Msg::Expel { key, subject } => self.expel(&key, &subject),
            Msg::Revoke { tenant, session } => {
                for conn in self.wheel.iter().flat_map(HashMap::values) {
                    if conn.tenant == tenant && conn.session == session {
                        close(&conn.socket, Disconnect::REVOKED);
                    }
                }
            }
            Msg::LookAgain { tenant, subject } => {
                for conn in self.wheel.iter().flat_map(HashMap::values) {
                    if conn.tenant == tenant && subject.as_ref().is_none_or(|s| *s == conn.subject) {
                        conn.again.notify_one();
                    }
                }
            }
            Msg::Tick => self.turn(),
            Msg::Lost => self.lost(),
            Msg::Drain => self.drain(Disconnect::SHUTDOWN),
            Msg::Stop => {}
        }
    }

    fn slot(&mut self, conn: u64) -> Option<&mut HashMap<u64, Conn>> {
        // Connections are numbered in turn, so any residue spreads them evenly.
        let slot = usize::try_from(conn / 64 % PING_SECONDS as u64).unwrap_or(0);
        self.wheel.get_mut(slot)
    }

    fn publish(&mut self, key: Key, rule: &'static ChannelRule, data: &str) {
        add(&self.shared.counters.published, 1);
        let now = self.shared.clock.now_ms();
        if rule.history == 0 {
            if let Some(channel) = self.channels.get(&key) {
                let (frame, _) = protocol::publication(&key.name, data, None);
                fan_out(&self.shared.counters, channel.members.all(), &frame);
            }
            return;
        }
        let name = Arc::clone(&key.name);
        let channel = self.channels.entry(key).or_insert_with(|| Channel::new(rule, now));
        channel.touched = now;
        let (frame, entry) = protocol::publication(&name, data, Some(channel.stream.next_offset()));
        let before = channel.stream.bytes();
        if self.history_bytes + entry.len() > MAX_HISTORY {
            channel.stream.clear();
        }
        channel.stream.append(now, entry);
        self.history_bytes = (self.history_bytes + channel.stream.bytes()).saturating_sub(before);
        fan_out(&self.shared.counters, channel.members.all(), &frame);
    }

    fn subscribe(&mut self, ask: Subscribe) {
        let Subscribe {
            key,
            rule,
            member,
            id,
            recover,
        } = ask;
        let now = self.shared.clock.now_ms();
        let name = Arc::clone(&key.name);
        let tenant = key.tenant;
        let channel = self.channels.entry(key).or_insert_with(|| Channel::new(rule, now));
        if channel.members.contains(member.conn) {
            self.send(&member.socket, &protocol::failure(id, &Failure::ALREADY_SUBSCRIBED));
            return;
        }
        channel.touched = now;
        let body = if channel.is_positioned() {
            subscribed(&mut channel.stream, recover.as_ref(), now, &self.shared.counters)
        } else {
            let was = if recover.is_some() {
                r#""was_recovering":true"#
            } else {
                ""
            };
            format!("{{{was}}}")
        };
        if rule.presence {
            let info = &member.info;
            let joined = protocol::push(&name, "join", &format!(r#"{{"info":{}}}"#, info.json()));
            fan_out(&self.shared.counters, channel.members.all(), &joined);
            self.shared.changed(tenant, &name, info, true);
        }
        let socket = Arc::clone(&member.socket);
        channel.members.insert(member);
        self.send(&socket, &protocol::reply(id, "subscribe", &body));
    }

    fn leave(&mut self, key: &Key, conn: u64) -> Option<Member> {
        let channel = self.channels.get_mut(key)?;
        let member = channel.members.remove(conn)?;
        channel.touched = self.shared.clock.now_ms();
        if channel.rule.presence {
            let info = &member.info;
            let left = protocol::push(&key.name, "leave", &format!(r#"{{"info":{}}}"#, info.json()));
            fan_out(&self.shared.counters, channel.members.all(), &left);
            self.shared.changed(key.tenant, &key.name, info, false);
        }
        if channel.members.is_empty() && !channel.is_positioned() {
            self.channels.remove(key);
        }
        Some(member)
    }

    fn expel(&mut self, key: &Key, subject: &str) {
        let Some(channel) = self.channels.get(key) else { return };
        let wanted = |m: &&Member| m.info.subject == subject;
        let conns: Vec<u64> = channel.members.all().iter().filter(wanted).map(|m| m.conn).collect();
        // 2000: "unsubscribed by the server"; below 2500 a client does not subscribe again by itself.
        let told = protocol::push(
            &key.name,
            "unsubscribe",
            r#"{"code":2000,"reason":"server unsubscribe"}"#,
        );
        for conn in conns {
            if let Some(member) = self.leave(key, conn) {
                self.send(&member.socket, &told);
            }
        }
    }

    fn answer(&mut self, ask: &Ask) {
        let now = self.shared.clock.now_ms();
        let answer = match self.channels.get_mut(&ask.key) {
            Some(channel) if channel.members.contains(ask.conn) => answer_of(channel, &ask.what, now),
            _ => Err(Failure::PERMISSION_DENIED),
        };
        let frame = match answer {
            Ok(body) => protocol::reply(ask.id, ask.what.method(), &body),
            Err(failure) => {
                add(&self.shared.counters.failed, 1);
                protocol::failure(ask.id, &failure)
            }
        };
        self.send(&ask.socket, &frame);
    }

    /// One second of the wheel: pings one slot, looks for the pongs of another.
    fn turn(&mut self) {
        self.tick += 1;
        let due = (self.tick + PING_SECONDS - PONG_SECONDS) % PING_SECONDS;
        for conn in self.wheel.get(due).into_iter().flat_map(HashMap::values) {
            if self.tick > PONG_SECONDS && !conn.socket.take_heard() {
                add(&self.shared.counters.no_pong, 1);
                close(&conn.socket, Disconnect::NO_PONG);
            }
        }
        for conn in self
            .wheel
            .get(self.tick % PING_SECONDS)
            .into_iter()
            .flat_map(HashMap::values)
        {
            conn.socket.take_heard();
            self.send(&conn.socket, &self.ping);
        }
        if self.tick.is_multiple_of(SWEEP) {
            let now = self.shared.clock.now_ms();
            self.channels.retain(|_, c| {
                c.stream.expire(now);
                !c.members.is_empty() || now - c.touched <= MEMORY.max(c.rule.ttl_ms)
            });
            self.history_bytes = self.channels.values().map(|c| c.stream.bytes()).sum();
        }
    }

    /// Every channel gets a new epoch, and its members are told to subscribe again: they learn that they were not recovered.
    fn lost(&mut self) {
        add(&self.shared.counters.lost, 1);
        tracing::warn!("live: publications were lost; all channels of the shard change their epoch");
        for (key, channel) in &mut self.channels {
            if channel.members.is_empty() || !channel.is_positioned() {
                continue;
            }
            let told = protocol::push(
                &key.name,
                "unsubscribe",
                r#"{"code":2500,"reason":"insufficient state"}"#,
            );
            let members = channel.members.take_all();
            fan_out(&self.shared.counters, &members, &told);
            for member in members.iter().filter(|_| channel.rule.presence) {
                self.shared.changed(key.tenant, &key.name, &member.info, false);
            }
        }
        self.channels.retain(|_, channel| !channel.is_positioned());
        self.history_bytes = 0;
    }

    fn drain(&self, why: Disconnect) {
        for conn in self.wheel.iter().flat_map(HashMap::values) {
            close(&conn.socket, why);
        }
    }

    fn send(&self, socket: &Arc<Socket>, frame: &Bytes) {
        send(&self.shared.counters, socket, frame);
    }
}

impl Shared {
    fn changed(&self, tenant: TenantId, channel: &Arc<str>, info: &Info, joined: bool) {
        let channel = Arc::clone(channel);
        // Nobody listening is fine.
        let change = PresenceChange {
            tenant,
            channel,
            subject: info.subject.clone(),
            client: info.client,
            joined,
        };
        let _ = self.changes.send(change);
    }
}

fn fan_out(counters: &Counters, members: &[Member], frame: &Bytes) {
    for member in members {
        send(counters, &member.socket, frame);
    }
}

/// One frame to one client; who cannot keep up is cut here, wherever the frame came from.
pub(super) fn send(counters: &Counters, socket: &Arc<Socket>, frame: &Bytes) {
    match socket.send(frame) {
        Sent::Written => add(&counters.delivered, 1),
        Sent::Queued => {
            add(&counters.delivered, 1);
            add(&counters.queued, 1);
        }
        Sent::Slow => {
            add(&counters.slow, 1);
            close(socket, Disconnect::SLOW);
        }
        Sent::Gone => {}
    }
}

pub(super) fn close(socket: &Arc<Socket>, Disconnect(code, reason): Disconnect) {
    socket.close(code, reason);
}
