//! One participant: the signalling connection, the peer connections it asks for, and what is published.
//! Two peer connections as `/rtc` wants them: one for each direction.

use super::count::Counts;
use super::peer::{AUDIO_PT, Peer, VIDEO_PT};
use super::shape::{self, AUDIO_EVERY, FRAME_EVERY, PACKETS_PER_FRAME};
use crate::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use webrtc::media_stream::track_local::{TrackLocal, static_rtp::TrackLocalStaticRTP};
use webrtc::peer_connection::RTCPeerConnectionState;

const PING_EVERY: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(20);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a participant does in its room.
#[derive(Clone)]
pub enum Role {
    Publish,
    /// Counts what comes.
    Subscribe(Arc<Counts>),
}

/// A participant in a room. It leaves when told; dropped, it is cut.
pub struct Participant {
    leave: watch::Sender<bool>,
    session: JoinHandle<()>,
    /// Why the session ended before its time.
    failed: Arc<Mutex<Option<String>>>,
}

impl Participant {
    /// Joins; answers when the server has said welcome, and for a publisher when media flows to the server.
    pub async fn join(server: &str, token: &str, role: Role) -> Result<Self> {
        let subscribe = matches!(role, Role::Subscribe(_));
        let address = format!(
            "{server}/rtc?access_token={token}&auto_subscribe={}&sdk=rust&version=1&protocol=15",
            u8::from(subscribe)
        );
        let (socket, _) = connect_async(address)
            .await
            .context("opening the signalling connection")?;
        let (leave, left) = watch::channel(false);
        let (ready_tx, mut ready) = watch::channel(false);
        let failed = Arc::new(Mutex::new(None));
        let mut session = Session::new(socket, role, ready_tx).await?;
        let why = failed.clone();
        let session = tokio::spawn(async move {
            if let Err(error) = session.run(left).await {
                *why.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
            session.close().await;
        });
        let participant = Self { leave, session, failed };
        let joined = tokio::time::timeout(CONNECT_WITHIN, ready.wait_for(|r| *r))
            .await
            .is_ok_and(|r| r.is_ok());
        participant.check()?;
        if joined {
            Ok(participant)
        } else {
            Err("joining a room took too long".into())
        }
    }

    /// A failure if the session has ended before its time.
    pub fn check(&self) -> Result<()> {
        match self.failed.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(why) => Err(why.clone().into()),
            None => Ok(()),
        }
    }

    pub async fn leave(self) {
        self.leave.send_replace(true);
        // A session that does not end in time is cut when its task is.
        let abort = self.session.abort_handle();
        if tokio::time::timeout(Duration::from_secs(2), self.session)
            .await
            .is_err()
        {
            abort.abort();
        }
    }
}

struct Session {
    socket: Socket,
    receiving: Peer,
    sending: Option<Peer>,
    role: Role,
    tracks: Vec<(RtpCodecKind, u32, Arc<TrackLocalStaticRTP>)>,
    announced: usize,
    sender: Option<JoinHandle<()>>,
    ready: watch::Sender<bool>,
}

impl Session {
    async fn new(socket: Socket, role: Role, ready: watch::Sender<bool>) -> Result<Self> {
        let counts = match &role {
            Role::Publish => None,
            Role::Subscribe(counts) => Some(counts.clone()),
        };
        let receiving = Peer::new(counts).await?;
        Ok(Self {
            socket,
            receiving,
            sending: None,
            role,
            tracks: Vec::new(),
            announced: 0,
            sender: None,
            ready,
        })
    }

    async fn run(&mut self, mut left: watch::Receiver<bool>) -> Result<()> {
        let mut ping = interval(PING_EVERY);
        loop {
            tokio::select! {
                () = told(&mut left) => {
                    let leave = proto::LeaveRequest { reason: proto::DisconnectReason::ClientInitiated.into(), ..Default::default() };
                    return self.say(Request::Leave(leave)).await;
                }
                _ = ping.tick() => self.say(Request::PingReq(proto::Ping::default())).await?,
                message = self.socket.next() => match message.context("the server closed the signalling connection")?? {
                    Message::Binary(bytes) => {
                        let response = proto::SignalResponse::decode(bytes).context("a signalling message")?;
                        if let Some(message) = response.message {
                            self.heard(message).await?;
                        }
                    }
                    Message::Close(why) => return Err(format!("the server closed the signalling connection: {why:?}").into()),
                    _ => {}
                },
            }
        }
    }

    async fn heard(&mut self, message: Response) -> Result<()> {
        match message {
            Response::Join(_) => match self.role {
                Role::Publish => self.announce().await?,
                Role::Subscribe(_) => {
                    self.ready.send_replace(true);
                }
            },
            Response::TrackPublished(_) => {
                self.announced += 1;
                if self.announced == self.tracks.len() {
                    self.offer().await?;
                }
            }
            Response::Offer(offer) => {
                let sdp = self.receiving.answer(offer.sdp).await?;
                let answer = proto::SessionDescription {
                    r#type: "answer".into(),
                    sdp,
                    id: offer.id,
                    ..Default::default()
                };
                self.say(Request::Answer(answer)).await?;
            }
            Response::Answer(answer) => {
                if let Some(peer) = &mut self.sending {
                    peer.accept(answer.sdp).await?;
                }
            }
            Response::Trickle(trickle) => {
                let peer = match (trickle.target(), &mut self.sending) {
                    (proto::SignalTarget::Publisher, Some(peer)) => peer,
                    _ => &mut self.receiving,
                };
                // An empty candidate says that there are no more.
                let candidate =
                    serde_json::from_str::<webrtc::peer_connection::RTCIceCandidateInit>(&trickle.candidate_init);
                if let Some(candidate) = candidate.ok().filter(|c| !c.candidate.is_empty()) {
                    peer.candidate(candidate).await?;
                }
            }
            Response::Leave(leave) => return Err(format!("the server ended the session: {:?}", leave.reason()).into()),
            _ => {}
        }
        Ok(())
    }

    /// Announces both tracks; the offer follows when the server knows them.
    async fn announce(&mut self) -> Result<()> {
        static SSRC: AtomicU32 = AtomicU32::new(0x1000_0000);
        let peer = Peer::new(None).await?;
        for (id, kind) in [("camera", RtpCodecKind::Video), ("microphone", RtpCodecKind::Audio)] {
            let ssrc = SSRC.fetch_add(1, Relaxed);
            self.tracks.push((kind, ssrc, peer.add_track(id, kind, ssrc).await?));
            let video = kind == RtpCodecKind::Video;
            let (width, height) = if video { (640, 480) } else { (0, 0) };
            let request = proto::AddTrackRequest {
                cid: id.into(),
                name: id.into(),
                r#type: if video {
                    proto::TrackType::Video
                } else {
                    proto::TrackType::Audio
                }
                .into(),
                source: if video {
                    proto::TrackSource::Camera
                } else {
                    proto::TrackSource::Microphone
                }
                .into(),
                width,
                height,
                disable_red: true,
                ..Default::default()
            };
            self.say(Request::AddTrack(request)).await?;
        }
        self.sending = Some(peer);
        Ok(())
    }

    async fn offer(&mut self) -> Result<()> {
        let Some(peer) = &mut self.sending else { return Ok(()) };
        let sdp = peer.offer().await?;
        let (mut state, tracks, ready) = (peer.state(), self.tracks.clone(), self.ready.clone());
        let offer = proto::SessionDescription {
            r#type: "offer".into(),
            sdp,
            id: 1,
            ..Default::default()
        };
        self.say(Request::Offer(offer)).await?;
        self.sender = Some(tokio::spawn(async move {
            if state
                .wait_for(|s| *s == RTCPeerConnectionState::Connected)
                .await
                .is_ok()
            {
                ready.send_replace(true);
                publish(tracks).await;
            }
        }));
        Ok(())
    }

    async fn say(&mut self, message: Request) -> Result<()> {
        let bytes = proto::SignalRequest { message: Some(message) }.encode_to_vec();
        self.socket
            .send(Message::Binary(bytes.into()))
            .await
            .context("sending a signalling message")
    }

    async fn close(&mut self) {
        if let Some(sender) = &self.sender {
            sender.abort();
        }
        self.receiving.close().await;
        if let Some(peer) = &self.sending {
            peer.close().await;
        }
        // The peer may be gone already.
        let _ = self.socket.close(None).await;
    }
}

/// Until the participant is told to leave, or dropped.
async fn told(left: &mut watch::Receiver<bool>) {
    // An error says that the participant is gone: that is a leave too.
    let _ = left.wait_for(|left| *left).await;
}

/// Sends at the pace of a camera and a microphone until the connection ends.
async fn publish(tracks: Vec<(RtpCodecKind, u32, Arc<TrackLocalStaticRTP>)>) {
    let mut sending = tokio::task::JoinSet::new();
    for (kind, ssrc, track) in tracks {
        sending.spawn(async move {
            match kind {
                RtpCodecKind::Video => video(ssrc, &track).await,
                _ => audio(ssrc, &track).await,
            }
        });
    }
    // The connection has ended when a track ends.
    let _ = sending.join_next().await;
}

async fn video(ssrc: u32, track: &TrackLocalStaticRTP) -> Result<()> {
    let mut tick = interval(FRAME_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut number, mut timestamp) = (0u32, 0u32);
    for frame in 0.. {
        tick.tick().await;
        for index in 0..PACKETS_PER_FRAME {
            let mut packet = packet(ssrc, VIDEO_PT, number, timestamp);
            packet.header.marker = index + 1 == PACKETS_PER_FRAME;
            packet.payload = shape::video_payload(frame, index, number);
            track.write_rtp(packet).await?;
            number = number.wrapping_add(1);
        }
        timestamp = timestamp.wrapping_add(90_000 / 30);
    }
    Ok(())
}

async fn audio(ssrc: u32, track: &TrackLocalStaticRTP) -> Result<()> {
    let mut tick = interval(AUDIO_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0u32.. {
        tick.tick().await;
        let mut packet = packet(ssrc, AUDIO_PT, number, number.wrapping_mul(960));
        packet.payload = shape::audio_payload(number);
        track.write_rtp(packet).await?;
    }
    Ok(())
}

fn packet(ssrc: u32, payload_type: u8, number: u32, timestamp: u32) -> rtc::rtp::Packet {
    let header = rtc::rtp::Header {
        version: 2,
        payload_type,
        sequence_number: number as u16,
        timestamp,
        ssrc,
        ..Default::default()
    };
    rtc::rtp::Packet {
        header,
        ..Default::default()
    }
}
