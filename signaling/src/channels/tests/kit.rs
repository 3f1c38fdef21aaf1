//! A hub on a free port, and clients for it.

use super::super::{Hub, Options};
use crate::websocket::Limits;
use futures_util::{SinkExt, StreamExt};
use medtech_kernel::{ChannelRule, Tenant, TenantId, auth::Role, policy::Action, testkit::World};
use serde_json::{Value, json};
use std::{collections::VecDeque, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};

pub(super) const CHANNEL: &str = "board:main";
/// Keeps five publications.
pub(super) const SHORT: &str = "patient:1";

/// Keeps nothing, and is for members only.
pub(super) const CONVERSATION: &str = "conversation:1";

const fn rule(kind: &'static str, history: usize, presence: bool) -> ChannelRule {
    ChannelRule {
        kind,
        subscribe: Action::Subscribe,
        history,
        ttl_ms: 60_000,
        presence,
    }
}

static RULES: [ChannelRule; 3] = [
    rule("board", 1000, true),
    rule("patient", 5, false),
    rule("conversation", 0, false),
];

/// Two shards whatever the machine, a wheel that is turned by hand, a short patience with those who do not close.
pub(super) fn options() -> Options {
    let socket = Limits {
        closing: Duration::from_secs(2),
        ..Limits::default()
    };
    Options {
        shards: 2,
        second: None,
        socket,
        ..Options::default()
    }
}

pub(super) struct Bench {
    pub(super) world: World,
    pub(super) hub: Hub,
    pub(super) port: u16,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Bench {
    pub(super) async fn start(options: Options) -> Self {
        let world = World::sqlite(&[]).await.unwrap();
        let hub = Hub::start_with(world.ctx.clone(), RULES.iter().collect(), options).unwrap();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = hub.router();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            world,
            hub,
            port,
            server,
        }
    }

    pub(super) fn tenants(&self) -> [TenantId; 3] {
        [self.world.north.id, self.world.south.id, self.world.east.id]
    }

    pub(super) fn tenant(&self, slug: &str) -> &Tenant {
        match slug {
            "north" => &self.world.north,
            "south" => &self.world.south,
            _ => &self.world.east,
        }
    }

    pub(super) async fn token(&self, tenant: &str, role: Role) -> String {
        let subject = format!("user:{}", medtech_kernel::id::new_id(&self.world.ctx.clock));
        self.world.sign_in(self.tenant(tenant), &subject, role).await.unwrap().1
    }

    /// An open socket that has said nothing yet.
    pub(super) async fn dial(&self, tenant: &str) -> Client {
        let mut request = format!("ws://{tenant}.localhost:{}/connection/websocket", self.port)
            .into_client_request()
            .unwrap();
        let origin = format!("http://{tenant}.localhost:{}", self.port);
        request.headers_mut().insert("origin", origin.parse().unwrap());
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (ws, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        Client {
            ws,
            id: 0,
            subject: String::new(),
            waiting: VecDeque::new(),
        }
    }

    pub(super) async fn enter_with(&self, tenant: &str, token: &str) -> Client {
        let mut client = self.dial(tenant).await;
        let reply = client
            .ask(json!({ "connect": { "token": token, "name": "test" } }))
            .await;
        assert_eq!(
            (&reply["connect"]["ping"], &reply["connect"]["pong"]),
            (&json!(25), &json!(true)),
            "{reply}"
        );
        client.subject = self
            .world
            .ctx
            .sessions
            .verify(self.tenant(tenant).id, token)
            .await
            .unwrap()
            .subject;
        client
    }

    /// A new clinician of the tenant, connected.
    pub(super) async fn enter(&self, tenant: &str) -> Client {
        let token = self.token(tenant, Role::Clinician).await;
        self.enter_with(tenant, &token).await
    }

    pub(super) fn publish(&self, tenant: &str, channel: &str, data: &Value) {
        self.hub
            .publish(self.tenant(tenant).id, channel, data.to_string())
            .unwrap();
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        self.hub.counters().into_iter().find(|(n, _)| *n == name).unwrap().1
    }

    /// The status line of a handshake, by hand.
    pub(super) async fn refusal(&self, tenant: &str, origin: Option<&str>) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream
            .write_all(handshake(tenant, self.port, origin).as_bytes())
            .await
            .unwrap();
        let mut answer = [0; 64];
        let n = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..n]).lines().next().unwrap().to_owned()
    }
}

pub(super) fn handshake(tenant: &str, port: u16, origin: Option<&str>) -> String {
    let origin = origin.map(|o| format!("Origin: {o}\r\n")).unwrap_or_default();
    format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {tenant}.localhost:{port}\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{origin}\r\n"
    )
}

pub(super) struct Client {
    pub(super) ws: WebSocketStream<TcpStream>,
    pub(super) subject: String,
    id: u64,
    /// Pushes that came while a reply was waited for.
    waiting: VecDeque<Value>,
}

/// The longest a test waits before it fails; nothing is asserted about speed.
const PATIENCE: Duration = Duration::from_secs(20);

impl Client {
    pub(super) async fn text(&mut self, text: &str) {
        self.ws.send(Message::text(text)).await.unwrap();
    }

    pub(super) async fn command(&mut self, command: Value) {
        self.text(&command.to_string()).await;
    }

    /// The next message, whatever it is.
    pub(super) async fn next(&mut self) -> Value {
        if let Some(value) = self.waiting.pop_front() {
            return value;
        }
        match self.read().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("unexpected {other:?}"),
        }
    }

    async fn read(&mut self) -> Message {
        tokio::time::timeout(PATIENCE, self.ws.next())
            .await
            .expect("an answer")
            .expect("an open socket")
            .unwrap()
    }

    /// Sends a command with a fresh number and answers its reply.
    pub(super) async fn ask(&mut self, mut command: Value) -> Value {
        self.id += 1;
        command["id"] = json!(self.id);
        self.command(command).await;
        let mut pushes = VecDeque::new();
        loop {
            let value = self.next().await;
            if value["id"] == json!(self.id) {
                self.waiting.extend(pushes);
                return value;
            }
            pushes.push_back(value);
        }
    }

    pub(super) async fn subscribe(&mut self, channel: &str) -> Value {
        let reply = self.ask(json!({ "subscribe": { "channel": channel } })).await;
        assert!(reply["subscribe"].is_object(), "{reply}");
        reply["subscribe"].clone()
    }

    /// The next push of this kind; others before it are passed over.
    pub(super) async fn push(&mut self, kind: &str) -> Value {
        loop {
            let value = self.next().await;
            if value["push"][kind].is_object() {
                return value["push"].clone();
            }
        }
    }
}

/// The close code and reason that the server ends with; what comes before is read past.
pub(super) async fn closed(client: &mut Client) -> (u16, String) {
    loop {
        match client.read().await {
            Message::Close(Some(frame)) => {
                // Lets the client's own library answer the close frame.
                let _ = client.ws.next().await;
                return (frame.code.into(), frame.reason.to_string());
            }
            Message::Close(None) => panic!("closed without a code"),
            _ => {}
        }
    }
}
