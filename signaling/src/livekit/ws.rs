//! The signalling WebSocket: `/rtc` and `/rtc/v1`, and the addresses where a client asks why it was refused.

use std::collections::HashMap;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State as Extracted};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, StatusCode, header};
use livekit_protocol as proto;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};

use super::entry::{JoinRequest, PING_TIMEOUT_S};
use super::grants::Permission;
use super::hub::Input;
use super::join::{self, JoinParams};
use super::participant::{Connection, encode};
use super::service::{LiveKit, room_key};
use super::token::{ApiKey, Claims};

/// Messages waiting for a client that reads slowly; beyond it the connection is cut.
const OUTGOING: usize = 256;
/// A session description with many sections is the largest thing a client sends.
const MAX_MESSAGE: usize = 512 * 1024;
/// Messages that one connection may send at once, and how many a second come back. A client that joins a full room and
/// subscribes to everybody sends some dozens; who sends more than this keeps the room's one task from the others.
const BURST: u32 = 500;
const PER_SECOND: u32 = 50;

type Parameters = Query<HashMap<String, String>>;

pub(super) fn router(service: LiveKit) -> Router {
    Router::new()
        .route("/rtc", get(|s, q, h, u| connect(s, q, h, u, false)))
        .route("/rtc/v1", get(|s, q, h, u| connect(s, q, h, u, true)))
        .route("/rtc/validate", get(|s, q, h| validate(s, q, h, false)))
        .route("/rtc/v1/validate", get(|s, q, h| validate(s, q, h, true)))
        .with_state(service)
}

/// Said as plain text, which clients show.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], self.1).into_response()
    }
}

struct Checked {
    key: ApiKey,
    claims: Claims,
    params: JoinParams,
}

fn check(
    service: &LiveKit,
    query: &HashMap<String, String>,
    headers: &HeaderMap,
    v1: bool,
) -> Result<Checked, Refused> {
    let header = headers
        .get(header::AUTHORIZATION)
        .and_then(|h| h.to_str().ok())
        .and_then(|h| h.strip_prefix("Bearer "));
    let token = header
        .or_else(|| query.get("access_token").map(String::as_str))
        .unwrap_or_default();
    let (key, claims) = service
        .check_token(token)
        .map_err(|e| Refused(StatusCode::UNAUTHORIZED, e.to_string()))?;
    if !claims.video.room_join || claims.video.room.is_empty() || claims.sub.is_empty() {
        let why = "the token does not allow to join a room".to_owned();
        return Err(Refused(StatusCode::UNAUTHORIZED, why));
    }
    let params = join::parse(query, v1).map_err(|e| Refused(StatusCode::BAD_REQUEST, e.to_string()))?;
    Ok(Checked { key, claims, params })
}

async fn validate(
    Extracted(service): Extracted<LiveKit>,
    Query(query): Parameters,
    headers: HeaderMap,
    v1: bool,
) -> Response {
    match check(&service, &query, &headers, v1) {
        Ok(_) => ([(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], "success").into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn connect(
    Extracted(service): Extracted<LiveKit>,
    Query(query): Parameters,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
    v1: bool,
) -> Response {
    match check(&service, &query, &headers, v1) {
        Ok(checked) => upgrade
            .max_message_size(MAX_MESSAGE)
            .on_upgrade(move |socket| serve(service, socket, checked)),
        Err(refused) => refused.into_response(),
    }
}

async fn serve(service: LiveKit, socket: WebSocket, checked: Checked) {
    let id = service.next_connection();
    let (out, mut outgoing) = mpsc::channel(OUTGOING);
    let Checked { key, claims, params } = checked;
    let request = Box::new(JoinRequest {
        key: room_key(key.tenant, &claims.video.room),
        permission: Permission::from_grant(&claims.video),
        issued_s: claims.nbf.and_then(|at| i64::try_from(at).ok()).unwrap_or_default(),
        identity: claims.sub,
        name: claims.name,
        metadata: claims.metadata,
        attributes: claims.attributes,
        params,
        connection: Connection { id, out },
    });
    let (mut sink, mut stream) = socket.split();
    let (reply, answer) = oneshot::channel();
    if service.input(Input::Join { request, reply }).await.is_err() {
        return;
    }
    if let Ok(Err(refusal)) = answer.await {
        let bytes = encode(proto::signal_response::Message::Leave(*refusal));
        // A client that is gone already needs no reason.
        let _ = sink.send(Message::Binary(bytes)).await;
        let _ = sink.send(close(close_code::POLICY, "refused")).await;
        return;
    }
    // Whichever half ends first ends the other: the client closed, or the hub dropped its sender.
    let farewell = tokio::select! {
        farewell = write(&mut outgoing, &mut sink) => farewell,
        farewell = read(&service, id, &mut stream) => farewell,
    };
    if let Some(farewell) = farewell {
        // A client that is gone already needs no reason.
        let _ = sink.send(farewell).await;
    }
    // The hub has ended if it does not listen.
    let _ = service.input(Input::Disconnected { connection: id }).await;
}

async fn write(outgoing: &mut mpsc::Receiver<Bytes>, sink: &mut (impl SinkExt<Message> + Unpin)) -> Option<Message> {
    while let Some(bytes) = outgoing.recv().await {
        if sink.send(Message::Binary(bytes)).await.is_err() {
            return None;
        }
    }
    Some(close(close_code::NORMAL, "the session ended"))
}

async fn read(
    service: &LiveKit,
    connection: super::participant::ConnectionId,
    stream: &mut (impl StreamExt<Item = Result<Message, axum::Error>> + Unpin),
) -> Option<Message> {
    // Clients ping; silence means that the path is gone although nobody said so.
    let silence = std::time::Duration::from_secs(PING_TIMEOUT_S.unsigned_abs().into());
    let mut allowance = Allowance::new(Instant::now());
    loop {
        let message = match tokio::time::timeout(silence, stream.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(_)) | None) => return None,
            Err(_) => return Some(close(close_code::POLICY, "no ping")),
        };
        if !allowance.take(Instant::now()) {
            tracing::info!("a media signalling connection sent too much");
            return Some(close(close_code::POLICY, "too many messages"));
        }
        let request = match message {
            Message::Binary(bytes) => proto::SignalRequest::decode(bytes).ok(),
            Message::Text(text) => serde_json::from_str(&text).ok(),
            // A close is answered by reading on to the end.
            Message::Close(_) | Message::Ping(_) | Message::Pong(_) => continue,
        };
        let Some(request) = request else {
            tracing::debug!("a signalling message could not be read");
            return Some(close(close_code::INVALID, "malformed signalling message"));
        };
        if service
            .input(Input::Request {
                connection,
                request: Box::new(request),
            })
            .await
            .is_err()
        {
            return Some(close(close_code::AWAY, "the server stops"));
        }
    }
}

/// What one connection may still send.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(at: Instant) -> Self {
        let left = f64::from(BURST);
        Self { left, at }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * f64::from(PER_SECOND)).min(f64::from(BURST));
        let taken = self.left >= 1.0;
        if taken {
            self.left -= 1.0;
        }
        taken
    }
}

fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame {
        code,
        reason: reason.into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_allowed_and_a_flood_is_not() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert!((0..BURST).all(|_| allowance.take(start)));
        assert!(!allowance.take(start));
        assert!(!allowance.take(start + Duration::from_millis(10)));
        let later = start + Duration::from_secs(1);
        assert_eq!(
            (0..BURST).filter(|_| allowance.take(later)).count(),
            PER_SECOND as usize
        );
        let much_later = start + Duration::from_secs(1_000_000);
        assert_eq!(
            (0..BURST * 2).filter(|_| allowance.take(much_later)).count(),
            BURST as usize
        );
    }
}
