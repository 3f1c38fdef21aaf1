//! Live channels: deliveries for each second of the server's CPU time, and what a connection that only waits holds.

use crate::http::Client;
use crate::servers::Medtech;
use crate::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use uuid::Uuid;

const SUBSCRIBERS: usize = 200;
/// Of each half: long enough that what is between two runs of the same is small beside what the deliveries cost.
const MESSAGES: u64 = 1200;
/// Sent before: what grows once (buffers, the log of the database) is no part of a message's cost.
const WARM_UP: u64 = 200;
const MESSAGE_EVERY: Duration = Duration::from_micros(12_500);
const SETTLE: Duration = Duration::from_millis(500);
const QUIET: Duration = Duration::from_secs(3);
/// The half with deliveries costs so much more, or nothing was measured.
const SURELY: f64 = 1.1;
const IDLE: usize = 1000;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What was measured.
pub struct Live {
    /// CPU milliseconds of one chat message that nobody listens to: request, storage, durable events.
    pub ms_per_message: f64,
    /// What the same messages cost more with all subscribers.
    pub deliveries_per_cpu_second: f64,
    pub kib_per_idle_connection: f64,
}

/// `conversation`: one that the demo clinic's clinician is a member of.
pub async fn measure(server: &Medtech, conversation: &str) -> Result<Live> {
    let token = server.user_token("clinician").await?;
    let kib_per_idle_connection = idle(server, &token).await.context("idle connections")?;
    // The same connections are there in both halves; in the second they listen.
    let received = Arc::new(Received::default());
    let (begin, begun) = watch::channel(false);
    let channel = format!("conversation:{conversation}");
    let mut readers = JoinSet::new();
    for _ in 0..SUBSCRIBERS {
        let socket = connect(server.port, &token).await?;
        readers.spawn(read(socket, channel.clone(), received.clone(), begun.clone()));
    }
    // What ended with the part before is not part of this one.
    sleep(QUIET).await;
    messages(server, &token, conversation, &received, WARM_UP, 0)
        .await
        .context("first messages")?;
    let alone = messages(server, &token, conversation, &received, MESSAGES, 0)
        .await
        .context("messages")?;
    begin.send(true)?;
    received
        .reach(&received.subscribed, SUBSCRIBERS as u64, "subscriptions")
        .await?;
    let deliveries = MESSAGES * SUBSCRIBERS as u64;
    let heard = messages(server, &token, conversation, &received, MESSAGES, deliveries)
        .await
        .context("deliveries")?;
    readers.abort_all();
    if heard < alone * SURELY {
        return Err(format!("{deliveries} deliveries are not told from none: {heard:.3} s beside {alone:.3} s").into());
    }
    Ok(Live {
        ms_per_message: alone * 1e3 / MESSAGES as f64,
        deliveries_per_cpu_second: received.frames.load(Relaxed) as f64 / (heard - alone),
        kib_per_idle_connection,
    })
}

/// What the subscribers have seen.
#[derive(Default)]
struct Received {
    subscribed: AtomicU64,
    messages: AtomicU64,
    /// Those that came together count once: on a machine with much else to do the server sends several in one.
    frames: AtomicU64,
}

impl Received {
    async fn reach(&self, counter: &AtomicU64, wanted: u64, what: &str) -> Result<()> {
        let all = timeout(ANSWER_WITHIN, async {
            while counter.load(Relaxed) < wanted {
                sleep(Duration::from_millis(5)).await;
            }
        });
        let failed = |_| format!("{} of {wanted} {what} came", counter.load(Relaxed));
        all.await.map_err(failed)?;
        Ok(())
    }
}

async fn idle(server: &Medtech, token: &str) -> Result<f64> {
    // Buffers that grow once and stay belong to no connection: the first hundred are not counted.
    let mut sockets = Vec::new();
    for _ in 0..IDLE / 10 {
        sockets.push(connect(server.port, token).await?);
    }
    sleep(Duration::from_secs(1)).await;
    let before = server.process.rss_kib()?;
    for _ in 0..IDLE {
        sockets.push(connect(server.port, token).await?);
    }
    sleep(Duration::from_secs(1)).await;
    Ok((server.process.rss_kib()? - before) / IDLE as f64)
}

/// The server's CPU seconds for so many messages and so many deliveries of them.
async fn messages(
    server: &Medtech,
    token: &str,
    conversation: &str,
    received: &Received,
    count: u64,
    deliveries: u64,
) -> Result<f64> {
    let mut sender = Client::connect(server.port, Some(token)).await?;
    let path = format!("/api/messaging/conversations/{conversation}/messages");
    let mut tick = interval(MESSAGE_EVERY);
    let before = server.process.cpu()?;
    for n in 0..count {
        tick.tick().await;
        let text =
            format!("message {n:03} of a length as people write it, a line or two about how the day has been so far");
        sender
            .post(&path, &json!({"client_id": Uuid::now_v7(), "body": {"text": text}}))
            .await?;
    }
    received.reach(&received.messages, deliveries, "deliveries").await?;
    // Consumers of the durable events come after the last delivery.
    sleep(SETTLE).await;
    Ok(server.process.cpu()?.since(&before))
}

/// Answers pings; subscribes when told to, and counts messages.
async fn read(mut socket: Socket, channel: String, received: Arc<Received>, mut begun: watch::Receiver<bool>) {
    let mut listening = false;
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            told = async { begun.wait_for(|told| *told).await.is_ok() }, if !listening => {
                listening = true;
                let ask = json!({"id": 2, "subscribe": {"channel": channel}});
                if !told || socket.send(Message::text(ask.to_string())).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let Some(Ok(message)) = message else { return };
        let Message::Text(text) = message else { continue };
        received
            .frames
            .fetch_add(u64::from(text.contains("message.created")), Relaxed);
        // Several replies may come in one frame, a line each.
        for line in text.lines() {
            if line.contains("message.created") {
                received.messages.fetch_add(1, Relaxed);
            } else if line.contains("\"subscribe\"") {
                received.subscribed.fetch_add(1, Relaxed);
            } else if line == "{}" && socket.send(Message::text("{}")).await.is_err() {
                return;
            }
        }
    }
}

async fn connect(port: u16, token: &str) -> Result<Socket> {
    let config = WebSocketConfig::default()
        .read_buffer_size(1024)
        .write_buffer_size(0)
        .max_write_buffer_size(64 * 1024);
    let address = format!("ws://localhost:{port}/connection/websocket");
    let (mut socket, _) = connect_async_with_config(address, Some(config), true)
        .await
        .context("the live channels' door")?;
    command(
        &mut socket,
        json!({"id": 1, "connect": {"token": token, "name": "bench"}}),
    )
    .await?;
    Ok(socket)
}

/// Sends a command and waits for its reply.
async fn command(socket: &mut Socket, command: Value) -> Result<()> {
    socket.send(Message::text(command.to_string())).await?;
    let reply = async {
        while let Some(message) = socket.next().await {
            let Message::Text(text) = message? else { continue };
            for line in text.lines() {
                let reply: Value = serde_json::from_str(line).context("a reply")?;
                if reply.get("id") == command.get("id") {
                    return match reply.get("error") {
                        Some(error) => Err(error.to_string().into()),
                        None => Ok(()),
                    };
                }
            }
        }
        Err("the connection was closed".into())
    };
    timeout(ANSWER_WITHIN, reply).await.context("no reply")?
}
