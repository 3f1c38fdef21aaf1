//! LiveKit signalling as a client's socket sees it: tokens, tenants, the lobby, resuming, the room service.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use medtech_media_sfu::SfuConfig;
use medtech_signaling::livekit::{
    ApiKey, ApiKeys, Claims, Clock, LeaveReason, LiveKit, LiveKitConfig, Permission, RoomEvent, RoomEventKind,
    TenantId, TokenRequest, VideoGrant,
};
use prost::Message as _;
use proto::signal_response::Message as Response;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const CLINIC: TenantId = TenantId::from_number(1);
const OTHER: TenantId = TenantId::from_number(2);

/// Two tenants, a key each.
struct Keys;

impl ApiKeys for Keys {
    fn by_key(&self, key: &str) -> Option<ApiKey> {
        [CLINIC, OTHER]
            .into_iter()
            .filter_map(|t| self.of_tenant(t))
            .find(|k| &*k.key == key)
    }
    fn of_tenant(&self, tenant: TenantId) -> Option<ApiKey> {
        let n = tenant.number();
        (n == 1 || n == 2).then(|| ApiKey {
            tenant,
            key: format!("key-{n}").into(),
            secret: format!("the secret of tenant {n}, long enough").into_bytes().into(),
        })
    }
}

struct House {
    service: LiveKit,
    events: mpsc::Receiver<RoomEvent>,
    addr: SocketAddr,
}

impl House {
    async fn open() -> House {
        House::at(Clock::system()).await
    }

    async fn at(clock: Clock) -> House {
        let media = SfuConfig {
            udp_port: 0,
            threads: 1,
            advertise: vec![Ipv4Addr::LOCALHOST.into()],
        };
        let config = LiveKitConfig {
            media,
            keys: Arc::new(Keys),
            clock,
        };
        let (service, events) = LiveKit::start(config).unwrap();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let app = service.router();
        tokio::spawn(async move { axum::serve(listener, app).await });
        House { service, events, addr }
    }

    fn token(&self, tenant: TenantId, identity: &str, permission: Permission) -> String {
        self.token_for("visit", tenant, identity, permission)
    }

    fn token_for(&self, room: &str, tenant: TenantId, identity: &str, permission: Permission) -> String {
        let (room, identity, name) = (room.to_owned(), identity.to_owned(), String::new());
        self.service
            .token(&TokenRequest {
                tenant,
                room,
                identity,
                name,
                permission,
                ttl_ms: 60_000,
            })
            .unwrap()
    }

    async fn join(&self, token: &str) -> Client {
        let mut client = Client::connect(&format!("ws://{}/rtc?access_token={token}", self.addr)).await;
        match client.next().await {
            Response::Join(join) => client.join = join,
            other => panic!("not a join: {other:?}"),
        }
        client
    }

    async fn enter(&self, tenant: TenantId, identity: &str, permission: Permission) -> Client {
        self.join(&self.token(tenant, identity, permission)).await
    }

    async fn set(&self, identity: &str, permission: Permission) {
        assert!(
            self.service
                .set_permission(CLINIC, "visit", identity, permission)
                .await
                .unwrap()
        );
    }

    /// Wait for an event of one participant.
    async fn event(&mut self, identity: &str, kind: RoomEventKind) {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(10), self.events.recv())
                .await
                .unwrap()
                .unwrap();
            if event.identity == identity && event.kind == kind {
                return;
            }
        }
    }

    async fn twirp(&self, method: &str, grant: VideoGrant, tenant: TenantId, body: &str) -> (u16, serde_json::Value) {
        let key = Keys.of_tenant(tenant).unwrap();
        let exp = u64::try_from(Clock::system().now_ms() / 1000).unwrap() + 60;
        let claims = Claims {
            iss: key.key.to_string(),
            exp,
            video: grant,
            ..Claims::default()
        };
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        let token =
            jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_secret(&key.secret)).unwrap();
        let request = format!(
            "POST /twirp/livekit.RoomService/{method} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let (status, body) = self.http(&request).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.http(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
            .await
    }

    async fn http(&self, request: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut socket = TcpStream::connect(self.addr).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    join: proto::JoinResponse,
    /// What this client was told about others, by identity: are they there?
    others: HashMap<String, bool>,
}

impl Client {
    async fn connect(url: &str) -> Client {
        let (socket, _) = connect_async(url).await.unwrap();
        Client {
            socket,
            join: proto::JoinResponse::default(),
            others: HashMap::new(),
        }
    }

    async fn frame(&mut self) -> Option<Message> {
        tokio::time::timeout(Duration::from_secs(10), self.socket.next())
            .await
            .unwrap()
            .and_then(Result::ok)
    }

    async fn next(&mut self) -> Response {
        loop {
            match self.frame().await.unwrap() {
                Message::Binary(bytes) => {
                    let message = proto::SignalResponse::decode(bytes).unwrap().message.unwrap();
                    if let Response::Update(update) = &message {
                        for p in &update.participants {
                            let there = p.state() != proto::participant_info::State::Disconnected;
                            self.others.insert(p.identity.clone(), there);
                        }
                    }
                    return message;
                }
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    async fn until(&mut self, found: impl Fn(&Response) -> bool) -> Response {
        loop {
            let message = self.next().await;
            if found(&message) {
                return message;
            }
        }
    }

    /// Everything that was queued for this client before it asked is read.
    async fn settle(&mut self) {
        self.send(proto::signal_request::Message::PingReq(proto::Ping::default()))
            .await;
        self.until(|m| matches!(m, Response::PongResp(_))).await;
    }

    async fn sees(&mut self, identity: &str) -> bool {
        self.settle().await;
        self.others.get(identity).copied().unwrap_or(false)
    }

    async fn send(&mut self, message: proto::signal_request::Message) {
        let bytes = proto::SignalRequest { message: Some(message) }.encode_to_vec();
        self.socket.send(Message::Binary(bytes.into())).await.unwrap();
    }

    fn sid(&self) -> String {
        self.join.participant.as_ref().unwrap().sid.clone()
    }
}

#[tokio::test]
async fn bad_tokens_are_refused_with_a_reason() {
    let house = House::open().await;
    let good = house.token(CLINIC, "ann", Permission::full());
    assert_eq!(house.get(&format!("/rtc/validate?access_token={good}")).await.0, 200);
    let (status, text) = house.get(&format!("/rtc/v1/validate?access_token={good}")).await;
    assert!(status == 400 && text.contains("join_request"), "{status} {text}");
    let mut altered = good.clone();
    let last = altered.pop().unwrap();
    altered.push(if last == 'A' { 'Q' } else { 'A' });
    altered.insert(good.find('.').unwrap() + 3, 'x');
    for token in ["", "nonsense", &altered] {
        let (status, text) = house.get(&format!("/rtc/validate?access_token={token}")).await;
        assert!(status == 401 && text.contains("token"), "{status} {text}");
        assert!(
            connect_async(format!("ws://{}/rtc?access_token={token}", house.addr))
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn the_lobby_cannot_be_passed_and_admission_needs_no_rejoin() {
    let mut house = House::open().await;
    let mut host = house.enter(CLINIC, "host", Permission::full()).await;
    let mut guest = house.enter(CLINIC, "guest", Permission::waiting()).await;
    house.event("guest", RoomEventKind::Joined).await;
    assert!(
        guest.join.other_participants.is_empty(),
        "a waiting guest is told of nobody"
    );
    assert!(!host.sees("guest").await && !guest.sees("host").await);

    let camera = proto::AddTrackRequest {
        cid: "cam".into(),
        r#type: proto::TrackType::Video.into(),
        ..Default::default()
    };
    guest
        .send(proto::signal_request::Message::AddTrack(camera.clone()))
        .await;
    let refused = guest.until(|m| matches!(m, Response::RequestResponse(_))).await;
    let Response::RequestResponse(refused) = refused else {
        unreachable!()
    };
    assert_eq!(refused.reason(), proto::request_response::Reason::NotAllowed);

    house.set("guest", Permission::full()).await;
    assert!(
        host.sees("guest").await && guest.sees("host").await,
        "admitted on the same connection"
    );
    guest.send(proto::signal_request::Message::AddTrack(camera)).await;
    guest.until(|m| matches!(m, Response::TrackPublished(_))).await;

    house.set("guest", Permission::waiting()).await;
    assert!(
        !host.sees("guest").await && !guest.sees("host").await,
        "sent back on the same connection"
    );

    // A token from the time of admission does not open the door again.
    let mut again = house.enter(CLINIC, "guest", Permission::full()).await;
    let left = guest.until(|m| matches!(m, Response::Leave(_))).await;
    let Response::Leave(left) = left else { unreachable!() };
    assert_eq!(left.reason(), proto::DisconnectReason::DuplicateIdentity);
    assert!(again.join.other_participants.is_empty());
    assert!(
        !again
            .join
            .participant
            .as_ref()
            .unwrap()
            .permission
            .as_ref()
            .unwrap()
            .can_subscribe
    );
    assert!(!host.sees("guest").await && !again.sees("host").await);
    house
        .event(
            "guest",
            RoomEventKind::Left {
                reason: LeaveReason::DuplicateIdentity,
            },
        )
        .await;
}

#[tokio::test]
async fn equal_room_names_of_two_tenants_never_meet() {
    let house = House::open().await;
    let mut ann = house.enter(CLINIC, "ann", Permission::full()).await;
    let mut eve = house.enter(OTHER, "eve", Permission::full()).await;
    assert!(eve.join.other_participants.is_empty());
    assert!(!ann.sees("eve").await && !eve.sees("ann").await);
    let all = VideoGrant {
        room_list: true,
        room_admin: true,
        room: "visit".into(),
        ..VideoGrant::default()
    };
    let (status, rooms) = house.twirp("ListRooms", all.clone(), OTHER, "{}").await;
    assert_eq!((status, rooms["rooms"].as_array().unwrap().len()), (200, 1));
    let (_, people) = house
        .twirp("ListParticipants", all.clone(), OTHER, r#"{"room":"visit"}"#)
        .await;
    assert_eq!(people["participants"][0]["identity"], "eve");
    assert_eq!(people["participants"].as_array().unwrap().len(), 1);
    let (status, error) = house
        .twirp("RemoveParticipant", all, OTHER, r#"{"room":"visit","identity":"ann"}"#)
        .await;
    assert_eq!((status, error["code"].as_str().unwrap()), (404, "not_found"));
    assert_eq!(house.service.participants(CLINIC, "visit").await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_room_service_changes_rooms_for_those_who_may() {
    let house = House::open().await;
    let mut ann = house.enter(CLINIC, "ann", Permission::full()).await;
    let mut bob = house.enter(CLINIC, "bob", Permission::full()).await;
    let person = r#"{"room":"visit","identity":"bob"}"#;
    let joiner = VideoGrant {
        room_join: true,
        room: "visit".into(),
        ..VideoGrant::default()
    };
    let elsewhere = VideoGrant {
        room_admin: true,
        room: "other".into(),
        ..VideoGrant::default()
    };
    for grant in [joiner, elsewhere] {
        assert_eq!(house.twirp("RemoveParticipant", grant, CLINIC, person).await.0, 403);
    }
    let admin = VideoGrant {
        room_admin: true,
        room: "visit".into(),
        ..VideoGrant::default()
    };
    let rights = r#"{"room":"visit","identity":"bob","permission":{"canSubscribe":true},"name":"Robert"}"#;
    let (status, info) = house.twirp("UpdateParticipant", admin.clone(), CLINIC, rights).await;
    assert_eq!((status, info["name"].as_str().unwrap()), (200, "Robert"));
    assert!(!info["permission"]["canPublish"].as_bool().unwrap_or_default());
    assert_eq!(
        house.twirp("RemoveParticipant", admin.clone(), CLINIC, person).await.0,
        200
    );
    bob.until(|m| matches!(m, Response::Leave(l) if l.reason() == proto::DisconnectReason::ParticipantRemoved))
        .await;
    assert!(!ann.sees("bob").await);
    assert_eq!(
        house
            .twirp("DeleteRoom", admin.clone(), CLINIC, r#"{"room":"visit"}"#)
            .await
            .0,
        200
    );
    ann.until(|m| matches!(m, Response::Leave(l) if l.reason() == proto::DisconnectReason::RoomDeleted))
        .await;
    assert_eq!(house.twirp("ListParticipants", admin, CLINIC, "{nonsense").await.0, 400);

    // A closed room refuses old tokens.
    let token = house.token(CLINIC, "ann", Permission::full());
    let mut late = Client::connect(&format!("ws://{}/rtc?access_token={token}", house.addr)).await;
    assert!(matches!(late.next().await, Response::Leave(l) if l.reason() == proto::DisconnectReason::RoomDeleted));
}

#[tokio::test]
async fn an_ended_session_takes_its_subject_out_of_all_rooms() {
    let time = Clock::manual(Clock::system().now_ms());
    let house = House::at(time.clone()).await;
    let second = house.token_for("team", CLINIC, "bob", Permission::full());
    let old = house.token(CLINIC, "bob", Permission::full());
    let mut ann = house.enter(CLINIC, "ann", Permission::full()).await;
    let mut bob = house.join(&old).await;
    let mut bob_too = house.join(&second).await;
    let mut namesake = house.enter(OTHER, "bob", Permission::full()).await;
    assert!(ann.sees("bob").await);

    assert_eq!(house.service.remove_subject(CLINIC, "bob").await.unwrap(), 2);
    let removed =
        |m: &Response| matches!(m, Response::Leave(l) if l.reason() == proto::DisconnectReason::ParticipantRemoved);
    bob.until(removed).await;
    bob_too.until(removed).await;
    assert!(!ann.sees("bob").await);
    assert_eq!(house.service.participants(CLINIC, "visit").await.unwrap().len(), 1);
    namesake.settle().await;

    // Tokens of the ended session, or of the same second, open nothing, not even as a resumption.
    for (token, rest) in [
        (&old, String::new()),
        (&second, String::new()),
        (&old, format!("&reconnect=1&sid={}", bob.sid())),
    ] {
        let url = format!("ws://{}/rtc?access_token={token}{rest}", house.addr);
        let refused = Client::connect(&url).await.next().await;
        assert!(removed(&refused), "{refused:?}");
    }
    time.advance(1_000);
    house.enter(CLINIC, "bob", Permission::full()).await;
    assert!(ann.sees("bob").await, "a new session comes in");
}

/// Also pings, which are answered one by one, and frames of no request at all.
#[tokio::test]
async fn a_flood_of_messages_ends_its_own_connection_and_the_others_go_on() {
    let mut house = House::open().await;
    let mut ann = house.enter(CLINIC, "ann", Permission::full()).await;
    let mut bob = house.enter(CLINIC, "bob", Permission::full()).await;
    assert!(ann.sees("bob").await);
    let ping = proto::SignalRequest {
        message: Some(proto::signal_request::Message::Ping(1)),
    };
    let bytes = prost::Message::encode_to_vec(&ping);
    for _ in 0..5_000 {
        if bob.socket.send(Message::Binary(bytes.clone().into())).await.is_err() {
            break;
        }
    }
    let closed = loop {
        match bob.frame().await {
            Some(Message::Close(frame)) => break frame,
            Some(_) => {}
            None => break None,
        }
    };
    // Cut in good order, or because the answers were not read either.
    assert!(closed.is_none_or(|frame| u16::from(frame.code) == 1008));
    house.event("bob", RoomEventKind::Interrupted).await;
    ann.socket.send(Message::Binary(bytes.into())).await.unwrap();
    loop {
        if matches!(ann.next().await, Response::Pong(_)) {
            break;
        }
    }
}

#[tokio::test]
async fn a_lost_socket_resumes_and_a_malformed_frame_ends_only_its_own() {
    let mut house = House::open().await;
    let mut ann = house.enter(CLINIC, "ann", Permission::full()).await;
    let mut bob = house.enter(CLINIC, "bob", Permission::full()).await;
    assert!(ann.sees("bob").await);
    bob.socket.send(Message::Binary(vec![0xff; 9].into())).await.unwrap();
    let closed = loop {
        match bob.frame().await {
            Some(Message::Close(frame)) => break frame.unwrap(),
            Some(_) => {}
            None => panic!("no reason given"),
        }
    };
    assert_eq!(u16::from(closed.code), 1007);
    house.event("bob", RoomEventKind::Interrupted).await;
    assert!(ann.sees("bob").await, "the place is kept");

    let token = house.token(CLINIC, "bob", Permission::full());
    let url = |sid: &str| format!("ws://{}/rtc?access_token={token}&reconnect=1&sid={sid}", house.addr);
    let mut wrong = Client::connect(&url("PA_nobody")).await;
    let refused = wrong.next().await;
    assert!(
        matches!(&refused, Response::Leave(l) if l.action() == proto::leave_request::Action::Reconnect),
        "a session that is not here is started over: {refused:?}"
    );
    let mut back = Client::connect(&url(&bob.sid())).await;
    assert!(
        matches!(back.next().await, Response::Reconnect(_)),
        "the reconnect response comes first"
    );
    assert!(back.sees("ann").await);
    house.event("bob", RoomEventKind::Resumed).await;
}
