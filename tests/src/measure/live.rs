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
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use uuid::Uuid;

const SUBSCRIBERS: usize = 200;
const MESSAGES: u64 = 400;
const MESSAGE_EVERY: Duration = Duration::from_micros(12_500);
const SETTLE: Duration = Duration::from_millis(500);
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
    let alone = messages(server, &token, conversation, 0).await.context("messages")?;
    let heard = messages(server, &token, conversation, SUBSCRIBERS)
        .await
        .context("deliveries")?;
    Ok(Live {
        ms_per_message: alone * 1e3 / MESSAGES as f64,
        deliveries_per_cpu_second: (MESSAGES * SUBSCRIBERS as u64) as f64 / (heard - alone).max(0.01),
        kib_per_idle_connection,
    })
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

/// The server's CPU seconds for all messages and their deliveries to so many subscribers.
async fn messages(server: &Medtech, token: &str, conversation: &str, subscribers: usize) -> Result<f64> {
    let received = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..subscribers {
        let mut socket = connect(server.port, token).await?;
        let channel = format!("conversation:{conversation}");
        command(&mut socket, json!({"id": 2, "subscribe": {"channel": channel}})).await?;
        readers.spawn(read(socket, received.clone()));
    }
    let mut sender = Client::connect(server.port, Some(token)).await?;
    let path = format!("/api/messaging/conversations/{conversation}/messages");
    let mut tick = interval(MESSAGE_EVERY);
    let before = server.process.cpu()?;
    for n in 0..MESSAGES {
        tick.tick().await;
        let text =
            format!("message {n:03} of a length as people write it, a line or two about how the day has been so far");
        sender
            .post(&path, &json!({"client_id": Uuid::now_v7(), "body": {"text": text}}))
            .await?;
    }
    let wanted = MESSAGES * subscribers as u64;
    let all = timeout(ANSWER_WITHIN, async {
        while received.load(Relaxed) < wanted {
            sleep(Duration::from_millis(5)).await;
        }
    });
    all.await
        .map_err(|_| format!("{} of {wanted} deliveries came", received.load(Relaxed)))?;
    // Consumers of the durable events come after the last delivery.
    sleep(SETTLE).await;
    let cpu = server.process.cpu()? - before;
    readers.abort_all();
    Ok(cpu)
}

/// Counts messages, answers pings.
async fn read(mut socket: Socket, received: Arc<AtomicU64>) {
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        // Several replies may come in one frame, a line each.
        for line in text.lines() {
            if line.contains("message.created") {
                received.fetch_add(1, Relaxed);
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
