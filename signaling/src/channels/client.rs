//! One connection: reads commands in order and answers them, itself or through the shard that owns the channel.

use super::{
    bucket::Bucket,
    counters::{add, sub},
    hub::Inner,
    members::Member,
    protocol::{self, Command, Disconnect, Failure, json, one_line},
    shard::{self, Ask, Conn, Info, Key, Msg, PING_SECONDS, Question, Subscribe},
};
use crate::websocket::{End, Message, Reader, Socket};
use bytes::Bytes;
use futures_util::FutureExt;
use medtech_kernel::{Error, TenantId, audit::Origin, auth::Principal, clock::Millis, error::Kind, id};
use serde_json::value::RawValue;
use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

/// Refused commands in a row after which a client is cut: it does not listen.
const PATIENCE: u32 = 200;

/// How often a connection that lives on is looked at again.
const RECHECK: Millis = 300_000;

/// What a command leads to.
type Step = Result<(), Disconnect>;

/// Serves a connection to its end.
pub(super) async fn run(hub: Arc<Inner>, tenant: TenantId, reader: Reader) {
    let mut client = Client::new(hub, tenant, reader);
    // Boxed: the task of an idle connection keeps only the state of waiting for the next frame.
    let mut result = Box::pin(client.enter()).await;
    while let Ok(true) = result {
        result = client.next_frames().await;
    }
    if let Err(why) = result {
        shard::close(&client.socket, why);
    }
    Box::pin(client.reader.finish()).await;
}

struct Client {
    hub: Arc<Inner>,
    tenant: TenantId,
    conn: u64,
    socket: Arc<Socket>,
    reader: Reader,
    identity: Option<Box<Identity>>,
    /// Every channel that a shard may hold us in.
    channels: HashSet<Arc<str>>,
    bucket: Bucket,
    /// Rung when access may have been withdrawn.
    again: Arc<Notify>,
}

struct Identity {
    principal: Principal,
    info: Arc<Info>,
    token: Box<str>,
    /// When the token and the subscriptions were last looked at, and how often the hub had been in doubt by then.
    checked: Millis,
    doubts: u64,
}

impl Client {
    fn new(hub: Arc<Inner>, tenant: TenantId, reader: Reader) -> Self {
        add(&hub.counters.connections, 1);
        add(&hub.counters.accepted, 1);
        let conn = hub.next_conn.fetch_add(1, Ordering::Relaxed);
        let socket = Arc::clone(reader.socket());
        let bucket = Bucket::new(&hub.options, hub.ctx.clock.now_ms());
        Self {
            hub,
            tenant,
            conn,
            socket,
            reader,
            identity: None,
            channels: HashSet::new(),
            bucket,
            again: Arc::default(),
        }
    }

    /// Up to the connect command, which must come in time.
    async fn enter(&mut self) -> Result<bool, Disconnect> {
        let deadline = Instant::now() + self.hub.options.connect_deadline;
        while self.identity.is_none() {
            match timeout_at(deadline, self.next_frames()).await {
                Ok(Ok(true)) => {}
                Ok(other) => return other,
                Err(_) => return Err(Disconnect::STALE),
            }
        }
        Ok(true)
    }

    /// Handles what arrives next; `false` at the end of the connection.
    async fn next_frames(&mut self) -> Result<bool, Disconnect> {
        let mut inbox = Vec::new();
        let read = tokio::select! {
            read = self.reader.next(&mut inbox) => read,
            () = self.again.notified() => {
                Box::pin(self.recheck()).await?;
                return Ok(true);
            }
        };
        if let Err(end) = read {
            if let End::Fault(_) = end {
                add(&self.hub.counters.malformed, 1);
            }
            return Ok(false);
        }
        if self.is_due() {
            Box::pin(self.recheck()).await?;
        }
        for message in inbox {
            match message {
                // The pong: by far the most frequent frame.
                Message::Text(text) if text.trim_ascii() == "{}" => self.admit(0)?,
                Message::Text(text) => Box::pin(self.frame(&text)).await?,
                Message::Pong(_) => {}
                _ => return Err(self.malformed()),
            }
        }
        Ok(true)
    }

    /// A frame holds one or more commands, separated by newlines.
    async fn frame(&mut self, text: &str) -> Step {
        for command in serde_json::Deserializer::from_str(text).into_iter::<Command<'_>>() {
            // A session may end while its commands wait.
            if self.socket.is_closing() {
                return Ok(());
            }
            let Ok(command) = command else {
                return Err(self.malformed());
            };
            self.command(command).await?;
        }
        Ok(())
    }

    async fn command(&mut self, command: Command<'_>) -> Step {
        add(&self.hub.counters.commands, 1);
        let id = command.id;
        if !self.take() {
            return self.admit(id);
        }
        if let Some(connect) = command.connect {
            return if self.identity.is_some() || id == 0 {
                Err(self.malformed())
            } else {
                self.connect(id, &connect.token).await
            };
        }
        if self.identity.is_none() {
            return Err(self.malformed());
        }
        // Messages without an answer; an empty command is a pong.
        if id == 0 {
            let pong = command.subscribe.is_none() && command.unsubscribe.is_none() && command.rpc.is_none();
            return if pong { Ok(()) } else { Err(self.malformed()) };
        }
        if let Some(ask) = command.subscribe {
            return self.subscribe(id, &ask).await;
        }
        if let Some(ask) = command.unsubscribe {
            return self.unsubscribe(id, &ask.channel).await;
        }
        if let Some(rpc) = command.rpc {
            return self.rpc(id, &rpc.method, rpc.data).await;
        }
        if let Some(ask) = command.presence {
            return self.ask(id, &ask.channel, Question::Presence).await;
        }
        if let Some(ask) = command.presence_stats {
            return self.ask(id, &ask.channel, Question::PresenceStats).await;
        }
        if let Some(ask) = command.history {
            let what = Question::History {
                limit: ask.limit,
                since: ask.since,
                reverse: ask.reverse,
            };
            return self.ask(id, &ask.channel, what).await;
        }
        if let Some(refresh) = command.refresh {
            return self.refresh(id, &refresh.token).await;
        }
        if command.publish.is_some() {
            // What changes something goes over rpc, where a module answers for it.
            self.fail(id, &Failure::PERMISSION_DENIED);
        } else if command.ping.is_some() {
            self.send(&protocol::reply(id, "ping", "{}"));
        } else if command.sub_refresh.is_some() {
            self.fail(id, &Failure::NOT_AVAILABLE);
        } else if command.send.is_none() {
            self.fail(id, &Failure::METHOD_NOT_FOUND);
        }
        Ok(())
    }

    /// Without a token left in the bucket a command is refused, and after too many refusals the client is cut. A pong
    /// (`id` 0) costs nothing unless it comes in floods.
    fn admit(&mut self, id: u32) -> Step {
        if id == 0 && self.take() {
            return Ok(());
        }
        self.bucket.refused += 1;
        if self.bucket.refused > PATIENCE {
            return Err(Disconnect::TOO_MANY);
        }
        if id != 0 {
            self.fail(id, &Failure::TOO_MANY);
        }
        Ok(())
    }

    fn take(&mut self) -> bool {
        self.bucket.take(&self.hub.options, self.hub.ctx.clock.now_ms())
    }

    async fn connect(&mut self, id: u32, token: &str) -> Step {
        let hub = Arc::clone(&self.hub);
        let before = hub.revocations.load(Ordering::Acquire);
        let Some(principal) = self.verify(id, token).await? else {
            return Ok(());
        };
        let client = id::new_id(&hub.ctx.clock);
        let info = Info {
            client,
            subject: principal.subject.clone(),
            name: principal.name.clone(),
        };
        self.identity = Some(Box::new(Identity {
            principal,
            info: Arc::new(info),
            token: token.into(),
            checked: hub.ctx.clock.now_ms(),
            doubts: hub.doubts.load(Ordering::Acquire),
        }));
        self.enter_home().await?;
        // A session that ended between the look-up and the entry would be missed by the revocation: look again.
        if hub.revocations.load(Ordering::Acquire) != before && self.verify(id, token).await?.is_none() {
            return Err(Disconnect::REVOKED);
        }
        let body = format!(
            r#"{{"client":{},"version":{},"ping":{PING_SECONDS},"pong":true}}"#,
            json(&client),
            json(concat!("medtech ", env!("CARGO_PKG_VERSION"))),
        );
        self.send(&protocol::reply(id, "connect", &body));
        Ok(())
    }

    /// A token for a connection that lives on, of the same subject.
    async fn refresh(&mut self, id: u32, token: &str) -> Step {
        let Some(fresh) = self.verify(id, token).await? else {
            return Ok(());
        };
        let Some(identity) = &mut self.identity else {
            return Err(Disconnect::BAD_REQUEST);
        };
        if fresh.subject != identity.principal.subject {
            self.fail(id, &Failure::PERMISSION_DENIED);
            return Ok(());
        }
        let client = identity.info.client;
        (identity.principal, identity.token) = (fresh, token.into());
        self.enter_home().await?;
        let body = format!(
            r#"{{"client":{},"version":{},"expires":false}}"#,
            json(&client),
            json("medtech")
        );
        self.send(&protocol::reply(id, "refresh", &body));
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.identity.as_ref().is_some_and(|identity| {
            identity.doubts != self.hub.doubts.load(Ordering::Acquire)
                || self.hub.ctx.clock.now_ms() - identity.checked >= RECHECK
        })
    }

    /// Does the token still hold, and may its owner still be in every channel? What ends without an event, as a session
    /// or a relation whose time is over, ends here.
    async fn recheck(&mut self) -> Step {
        let Some(identity) = &mut self.identity else {
            return Ok(());
        };
        identity.doubts = self.hub.doubts.load(Ordering::Acquire);
        identity.checked = self.hub.ctx.clock.now_ms();
        match self.hub.ctx.sessions.still(self.tenant, &identity.token).await {
            Ok(principal) => identity.principal = principal,
            Err(e) if e.code == "auth.token_expired" => return Err(Disconnect::EXPIRED),
            Err(e) if e.kind == Kind::Unauthorized => return Err(Disconnect::REVOKED),
            // The store is out of reach: that says nothing about the session. The next round asks again.
            Err(e) => tracing::warn!(code = e.code, "live: a session could not be looked at again"),
        }
        let names: Vec<Arc<str>> = self.channels.iter().cloned().collect();
        for name in names {
            self.expel_unless_allowed(&name).await?;
        }
        Ok(())
    }

    async fn expel_unless_allowed(&self, channel: &str) -> Step {
        let Some(identity) = &self.identity else { return Ok(()) };
        let Some((rule, resource)) = self.hub.rule_of(channel) else {
            return Ok(());
        };
        match self
            .hub
            .ctx
            .policy
            .require(&identity.principal, rule.subscribe, &resource)
            .await
        {
            Err(e) if e.kind == Kind::Forbidden => {
                let key = self.key(channel);
                let subject = identity.principal.subject.clone();
                self.hub
                    .to_channel(
                        &key,
                        Msg::Expel {
                            key: key.clone(),
                            subject,
                        },
                    )
                    .await
            }
            _ => Ok(()),
        }
    }

    /// `None` when the failure has been answered and the client may try again.
    async fn verify(&self, id: u32, token: &str) -> Result<Option<Principal>, Disconnect> {
        match self.hub.ctx.sessions.verify(self.tenant, token).await {
            Ok(principal) => Ok(Some(principal)),
            Err(e) if e.code == "auth.token_expired" => {
                self.fail(id, &Failure::TOKEN_EXPIRED);
                Ok(None)
            }
            Err(e) if e.kind == Kind::Unauthorized => Err(Disconnect::INVALID_TOKEN),
            Err(e) => {
                self.refuse(id, &e);
                Ok(None)
            }
        }
    }

    /// Tells the home shard who we are now.
    async fn enter_home(&self) -> Step {
        let Some(identity) = &self.identity else { return Ok(()) };
        let conn = Conn {
            conn: self.conn,
            tenant: self.tenant,
            session: identity.principal.session,
            subject: identity.principal.subject.clone(),
            again: Arc::clone(&self.again),
            socket: Arc::clone(&self.socket),
        };
        self.hub.to_home(self.conn, Msg::Enter(conn)).await
    }

    async fn subscribe(&mut self, id: u32, ask: &protocol::Subscribe<'_>) -> Step {
        let Some((rule, resource)) = self.hub.rule_of(&ask.channel) else {
            self.fail(id, &Failure::UNKNOWN_CHANNEL);
            return Ok(());
        };
        let known = self.channels.contains(&*ask.channel);
        if !known && self.channels.len() >= self.hub.options.channels_per_client {
            self.fail(id, &Failure::LIMIT_EXCEEDED);
            return Ok(());
        }
        let Some(identity) = &self.identity else {
            return Err(Disconnect::BAD_REQUEST);
        };
        let before = self.hub.withdrawals.load(Ordering::Acquire);
        if let Err(e) = self
            .hub
            .ctx
            .policy
            .require(&identity.principal, rule.subscribe, &resource)
            .await
        {
            self.refuse(id, &e);
            return Ok(());
        }
        let info = Arc::clone(&identity.info);
        let key = self.key(&ask.channel);
        // Noted before the shard knows, so that the end of this connection always takes it out again.
        self.channels.insert(Arc::clone(&key.name));
        let recover = ask.recover.then(|| protocol::Position {
            offset: ask.offset,
            epoch: ask.epoch.to_string(),
        });
        let member = Member {
            conn: self.conn,
            socket: Arc::clone(&self.socket),
            info,
        };
        let subscribe = Subscribe {
            key: key.clone(),
            rule,
            member,
            id,
            recover,
        };
        self.hub.to_channel(&key, Msg::Subscribe(Box::new(subscribe))).await?;
        // Access that was withdrawn between the question and the entry would be missed: ask again.
        if self.hub.withdrawals.load(Ordering::Acquire) != before {
            return self.expel_unless_allowed(&key.name).await;
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, id: u32, channel: &str) -> Step {
        self.channels.remove(channel);
        let key = self.key(channel);
        let reply = Some((id, Arc::clone(&self.socket)));
        self.hub
            .to_channel(
                &key,
                Msg::Unsubscribe {
                    key: key.clone(),
                    conn: self.conn,
                    reply,
                },
            )
            .await
    }

    async fn ask(&mut self, id: u32, channel: &str, what: Question) -> Step {
        let key = self.key(channel);
        let ask = Ask {
            key: key.clone(),
            conn: self.conn,
            socket: Arc::clone(&self.socket),
            id,
            what,
        };
        self.hub.to_channel(&key, Msg::Ask(Box::new(ask))).await
    }

    /// Calls run one after the other, so that a client's messages keep their order; while one runs, the client is not read.
    async fn rpc(&mut self, id: u32, method: &str, data: Option<&RawValue>) -> Step {
        let Some(identity) = &self.identity else {
            return Err(Disconnect::BAD_REQUEST);
        };
        let Some(handler) = self.hub.handler(method) else {
            self.fail(id, &Failure::METHOD_NOT_FOUND);
            return Ok(());
        };
        let data = data.map_or_else(|| RawValue::NULL.to_owned(), ToOwned::to_owned);
        let principal = identity.principal.clone();
        // The call itself is inside as well: a handler may fail before its first wait.
        let origin = Origin::of(&principal);
        let call = AssertUnwindSafe(origin.scope(async move { handler(principal, data).await })).catch_unwind();
        match timeout(self.hub.options.rpc_timeout, call).await {
            Ok(Ok(Ok(answer))) => {
                let body = format!(r#"{{"data":{}}}"#, one_line(answer.get()));
                self.send(&protocol::reply(id, "rpc", &body));
            }
            Ok(Ok(Err(e))) => self.refuse(id, &e),
            Ok(Err(_)) => {
                tracing::error!(method, "live: a call failed by panic");
                self.fail(id, &Failure::INTERNAL);
            }
            Err(_) => {
                tracing::warn!(method, "live: a call took too long");
                self.fail(id, &Failure::INTERNAL);
            }
        }
        Ok(())
    }

    fn key(&self, channel: &str) -> Key {
        Key {
            tenant: self.tenant,
            name: channel.into(),
        }
    }

    fn malformed(&self) -> Disconnect {
        add(&self.hub.counters.malformed, 1);
        Disconnect::BAD_REQUEST
    }

    fn refuse(&self, id: u32, e: &Error) {
        if e.kind == Kind::Internal {
            tracing::error!(
                code = e.code,
                source = e.source.as_ref().map(tracing::field::display),
                "live: command failed"
            );
        }
        self.fail(id, &Failure::from(e));
    }

    fn fail(&self, id: u32, failure: &Failure) {
        add(&self.hub.counters.failed, 1);
        self.send(&protocol::failure(id, failure));
    }

    fn send(&self, frame: &Bytes) {
        shard::send(&self.hub.counters, &self.socket, frame);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Also after a panic: what the shards hold of this connection is always taken out.
        for name in self.channels.drain() {
            let key = Key {
                tenant: self.tenant,
                name,
            };
            self.hub.must_reach_channel(
                &key,
                Msg::Unsubscribe {
                    key: key.clone(),
                    conn: self.conn,
                    reply: None,
                },
            );
        }
        if self.identity.is_some() {
            self.hub.must_reach_home(self.conn, Msg::Exit(self.conn));
        }
        sub(&self.hub.counters.connections, 1);
        self.hub.gone.notify_waiters();
    }
}
