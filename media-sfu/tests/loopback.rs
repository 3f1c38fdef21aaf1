//! Two clients through the running engine over real sockets: forwarding, layers, rights, data, hostile input.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

#[path = "loopback/wire.rs"]
mod wire;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use medtech_media_sfu::{
    Answer, Command, DataKind, Event, Layer, MediaKind, ParticipantId, Permission, RoomId, Sfu, SfuConfig, TrackId,
    TrackSpec,
};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::config::DtlsVersion;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind as Kind, Mid, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite};
use str0m::{Candidate, Event as RtcEvent, Input, Output, Rtc};
use tokio::sync::mpsc;

const ROOM: RoomId = RoomId(1);
const ANN: ParticipantId = ParticipantId(1);
const BOB: ParticipantId = ParticipantId(2);
const CAMERA: TrackId = TrackId(10);
const MICROPHONE: TrackId = TrackId(11);
const FULL: Permission = Permission {
    can_publish: true,
    can_subscribe: true,
    can_publish_data: true,
};
const NOTHING: Permission = Permission {
    can_publish: false,
    can_subscribe: false,
    can_publish_data: false,
};
const PATIENCE: Duration = Duration::from_secs(20);

/// A browser's part, played by the library itself.
struct Client {
    rtc: Rtc,
    socket: UdpSocket,
    addr: SocketAddr,
    connected: bool,
    received: Vec<RtpPacket>,
    keyframes_wanted: Vec<Option<Rid>>,
    channel: Option<ChannelId>,
    /// Sections to receive on.
    receiving: Vec<Mid>,
    data: Vec<Vec<u8>>,
    pending: Option<SdpPendingOffer>,
    sequence: HashMap<(Mid, Option<Rid>), u64>,
    /// The datagrams of the handshake that came, and those of media that went.
    handshake: Vec<Vec<u8>>,
    media: Vec<Vec<u8>>,
}

impl Client {
    fn new(version: DtlsVersion) -> Client {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let addr = socket.local_addr().unwrap();
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .set_dtls_version(version)
            .build(Instant::now());
        rtc.add_local_candidate(Candidate::host(addr, Protocol::Udp).unwrap());
        Client {
            rtc,
            socket,
            addr,
            connected: false,
            received: Vec::new(),
            keyframes_wanted: Vec::new(),
            channel: None,
            receiving: Vec::new(),
            data: Vec::new(),
            pending: None,
            sequence: HashMap::new(),
            handshake: Vec::new(),
            media: Vec::new(),
        }
    }

    /// Take everything that arrived, hand out everything that is due.
    fn turn(&mut self) {
        let mut buffer = [0; 2048];
        loop {
            self.drain();
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    if buffer[0] == 22 {
                        self.handshake.push(buffer[..length].to_vec());
                    }
                    let receive = Receive::new(Protocol::Udp, from, self.addr, &buffer[..length]).unwrap();
                    self.rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
                }
                Err(_) => break,
            }
        }
        self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(_) => return,
                Output::Transmit(t) => {
                    if wire::is_rtp(&t.contents) {
                        self.media.push(t.contents.to_vec());
                    }
                    drop(self.socket.send_to(&t.contents, t.destination));
                }
                Output::Event(event) => match event {
                    RtcEvent::Connected => self.connected = true,
                    RtcEvent::RtpPacket(packet) => self.received.push(packet),
                    RtcEvent::KeyframeRequest(request) => self.keyframes_wanted.push(request.rid),
                    RtcEvent::ChannelOpen(id, label) if label == "_reliable" => self.channel = Some(id),
                    RtcEvent::ChannelData(data) => self.data.push(data.data),
                    _ => {}
                },
            }
        }
    }

    /// One VP8 or Opus packet; `key` starts a key frame.
    fn send(&mut self, mid: Mid, rid: Option<Rid>, key: bool) {
        let count = self.sequence.entry((mid, rid)).or_insert(1);
        *count += 1;
        let (sequence, picture) = (*count, (*count % 0x8000) as u16);
        let audio = self.rtc.media(mid).unwrap().kind() == Kind::Audio;
        let [high, low] = (picture | 0x8000).to_be_bytes();
        let layer = rid
            .and_then(|rid| ["q", "h", "f"].iter().position(|r| *r == &*rid))
            .unwrap_or(0) as u8;
        let payload: Arc<[u8]> = match audio {
            true => Arc::new([7; 20]),
            false => Arc::new([0x90, 0x80, high, low, u8::from(!key), layer, 2, 3]),
        };
        let pt = self.rtc.media(mid).unwrap().remote_pts()[0];
        let step = if audio { 960 } else { 3000 };
        let extensions = ExtensionValues {
            audio_level: audio.then_some(-10),
            voice_activity: audio.then_some(true),
            ..Default::default()
        };
        let write = RtpWrite::new(pt, sequence.into(), (sequence * step) as u32, Instant::now(), payload)
            .marker(true)
            .ext_vals(extensions);
        let mut direct = self.rtc.direct_api();
        direct.stream_tx_by_mid(mid, rid).unwrap().write_rtp(write);
        self.turn();
    }
}

struct Stage {
    sfu: Sfu,
    events: mpsc::Receiver<Event>,
    answers: HashMap<ParticipantId, Answer>,
    needs: Vec<ParticipantId>,
    other: Vec<Event>,
}

impl Stage {
    fn new() -> Stage {
        let config = SfuConfig {
            udp_port: 0,
            threads: 1,
            advertise: vec![Ipv4Addr::LOCALHOST.into()],
        };
        let (sfu, events) = Sfu::start(&config).unwrap();
        Stage {
            sfu,
            events,
            answers: HashMap::new(),
            needs: Vec::new(),
            other: Vec::new(),
        }
    }

    fn tell(&self, command: Command) {
        self.sfu.send(command).unwrap();
    }

    fn listen(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Answered {
                    participant, result, ..
                } => drop(self.answers.insert(participant, result.unwrap())),
                Event::NegotiationNeeded { participant, .. } => self.needs.push(participant),
                other => self.other.push(other),
            }
        }
    }

    /// Let everybody work until the condition holds.
    fn until(
        &mut self,
        what: &str,
        clients: &mut [&mut Client],
        mut done: impl FnMut(&mut Stage, &mut [&mut Client]) -> bool,
    ) {
        let start = Instant::now();
        while !done(self, clients) {
            assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
            clients.iter_mut().for_each(|c| c.turn());
            self.listen();
            std::thread::yield_now();
        }
    }

    fn negotiate(&mut self, who: ParticipantId, clients: &mut [&mut Client], at: usize, offer: String) -> Answer {
        self.tell(Command::Offer {
            room: ROOM,
            participant: who,
            offer_id: 1,
            sdp: offer,
        });
        self.until("an answer", clients, |stage, _| stage.answers.contains_key(&who));
        let answer = self.answers.remove(&who).unwrap();
        let pending = clients[at].pending.take().unwrap();
        let sdp = SdpAnswer::from_sdp_string(&answer.sdp).unwrap();
        clients[at].rtc.sdp_api().accept_answer(pending, sdp).unwrap();
        clients[at].turn();
        answer
    }

    fn add_track(&self, owner: ParticipantId, track: TrackId, kind: MediaKind, cid: &str) {
        let spec = TrackSpec {
            track,
            kind,
            cid: cid.into(),
            stream_label: "PA_ann|camera".into(),
            track_label: format!("TR_{track}"),
        };
        self.tell(Command::AddTrack {
            room: ROOM,
            participant: owner,
            spec,
        });
        self.tell(Command::Subscribe {
            room: ROOM,
            participant: BOB,
            track,
        });
    }
}

fn simulcast() -> Simulcast {
    let mut simulcast = Simulcast::new();
    ["q", "h", "f"]
        .map(SimulcastLayer::new)
        .into_iter()
        .for_each(|layer| simulcast.add_send_layer(layer));
    simulcast
}

fn offer(client: &mut Client, change: impl FnOnce(&mut str0m::change::SdpApi<'_>)) -> String {
    let mut api = client.rtc.sdp_api();
    change(&mut api);
    let (offer, pending) = api.apply().unwrap();
    client.pending = Some(pending);
    client.turn();
    offer.to_sdp_string()
}

/// Ann publishes, Bob has sections to receive on; both are connected.
fn meet(stage: &mut Stage, layers: bool) -> (Client, Client, Mid, Mid) {
    meet_by(stage, layers, DtlsVersion::Dtls12)
}

fn meet_by(stage: &mut Stage, layers: bool, version: DtlsVersion) -> (Client, Client, Mid, Mid) {
    str0m::crypto::from_feature_flags().install_process_default();
    let (mut ann, mut bob) = (Client::new(version), Client::new(version));
    stage.tell(Command::Join {
        room: ROOM,
        participant: ANN,
        permission: FULL,
    });
    stage.tell(Command::Join {
        room: ROOM,
        participant: BOB,
        permission: FULL,
    });
    stage.add_track(ANN, CAMERA, MediaKind::Video, "cam");
    stage.add_track(ANN, MICROPHONE, MediaKind::Audio, "mic");
    let mut mids = None;
    let sdp = offer(&mut ann, |api| {
        api.add_channel("_reliable".into());
        let sim = layers.then(simulcast);
        let video = api.add_media(
            Kind::Video,
            Direction::SendOnly,
            Some("s".into()),
            Some("cam".into()),
            sim,
        );
        let audio = api.add_media(
            Kind::Audio,
            Direction::SendOnly,
            Some("s".into()),
            Some("mic".into()),
            None,
        );
        mids = Some((video, audio));
    });
    let (video, audio) = mids.unwrap();
    let answer = stage.negotiate(ANN, &mut [&mut ann], 0, sdp);
    let bound: Vec<TrackId> = answer.bound.iter().map(|b| b.track).collect();
    assert!(
        bound.contains(&CAMERA) && bound.contains(&MICROPHONE),
        "bound by the client's ids: {bound:?}"
    );

    let mut mids = Vec::new();
    let sdp = offer(&mut bob, |api| {
        api.add_channel("_reliable".into());
        mids = [Kind::Audio, Kind::Video, Kind::Video]
            .map(|kind| api.add_media(kind, Direction::RecvOnly, None, None, None))
            .to_vec();
    });
    bob.receiving = mids;
    let answer = stage.negotiate(BOB, &mut [&mut ann, &mut bob], 1, sdp);
    assert_eq!(answer.mid_to_track.len(), 2, "two of three sections carry something");
    assert!(answer.sdp.contains("a=inactive"), "the third says so");
    stage.until("both connected", &mut [&mut ann, &mut bob], |_, c| {
        c.iter().all(|c| c.connected)
    });
    (ann, bob, video, audio)
}

fn video(bob: &Client) -> Vec<&RtpPacket> {
    bob.received.iter().filter(|p| p.payload.len() == 8).collect()
}

fn is_key(packet: &RtpPacket) -> bool {
    packet.payload[4] & 1 == 0
}

#[test]
fn packets_flow_while_rights_last() {
    let mut stage = Stage::new();
    let (mut ann, mut bob, cam, mic) = meet(&mut stage, false);

    // Nothing is shown before a key frame, and one is asked for.
    stage.until("a key frame request", &mut [&mut ann, &mut bob], |_, c| {
        c[0].send(cam, None, false);
        !c[0].keyframes_wanted.is_empty()
    });
    assert!(video(&bob).is_empty());
    ann.send(cam, None, true);
    for _ in 0..50 {
        ann.send(cam, None, false);
        ann.send(mic, None, false);
    }
    stage.until("video and audio", &mut [&mut ann, &mut bob], |_, c| {
        video(c[1]).len() == 51 && c[1].received.len() >= 101
    });
    assert!(is_key(video(&bob)[0]));
    assert!(
        bob.received.iter().any(|p| p.header.ext_vals.audio_level == Some(-10)),
        "levels pass"
    );
    let mut last = Instant::now();
    stage.until("a speaker", &mut [&mut ann, &mut bob], |stage, c| {
        if last.elapsed() >= Duration::from_millis(10) {
            last = Instant::now();
            c[0].send(mic, None, false);
        }
        stage
            .other
            .iter()
            .any(|e| matches!(e, Event::Speakers { speakers, .. } if speakers[0].participant == ANN))
    });

    // Data goes to the caller, and from the caller to whom it names.
    stage.until("channels", &mut [&mut ann, &mut bob], |_, c| {
        c.iter().all(|c| c.channel.is_some())
    });
    let channel = ann.channel.unwrap();
    assert!(ann.rtc.channel(channel).unwrap().write(true, b"hello").unwrap());
    stage.until("data", &mut [&mut ann, &mut bob], |stage, _| {
        stage
            .other
            .iter()
            .any(|e| matches!(e, Event::Data { participant: ANN, payload, .. } if &payload[..] == b"hello"))
    });
    stage.tell(Command::SendData {
        room: ROOM,
        to: vec![BOB],
        kind: DataKind::Reliable,
        payload: b"for bob"[..].into(),
    });
    stage.until("data for bob", &mut [&mut ann, &mut bob], |_, c| {
        c[1].data.iter().any(|d| d == b"for bob")
    });

    // Rights withdrawn: what the engine has not forwarded yet is not forwarded.
    stage.tell(Command::SetPermission {
        room: ROOM,
        participant: ANN,
        permission: NOTHING,
    });
    stage.until("the section's release", &mut [&mut ann, &mut bob], |stage, _| {
        stage.needs.contains(&BOB)
    });
    let before = stage.sfu.stats();
    (0..30).for_each(|_| ann.send(cam, None, true));
    stage.until("the engine to have seen them", &mut [&mut ann, &mut bob], |stage, _| {
        stage.sfu.stats().datagrams_in >= before.datagrams_in + 30
    });
    assert_eq!(
        stage.sfu.stats().forwarded,
        before.forwarded,
        "nothing is forwarded without the right to publish"
    );

    // And given back: the same connection, first the old section is announced as silent, then a section carries it.
    let mut streams = vec![video(&bob)[0].header.ssrc];
    for _ in 0..3 {
        stage.tell(Command::SetPermission {
            room: ROOM,
            participant: ANN,
            permission: FULL,
        });
        for _ in 0..2 {
            let mids = bob.receiving.clone();
            let sdp = offer(&mut bob, |api| {
                // One more section makes it an offer. A browser's sections stay willing to receive, the library's
                // follow the last answer.
                api.add_media(Kind::Audio, Direction::RecvOnly, None, None, None);
                mids.iter().for_each(|mid| api.set_direction(*mid, Direction::RecvOnly));
            });
            stage.negotiate(BOB, &mut [&mut ann, &mut bob], 1, sdp);
        }
        bob.received.clear();
        let mut last = Instant::now();
        stage.until("video again", &mut [&mut ann, &mut bob], |_, c| {
            if last.elapsed() < Duration::from_millis(10) {
                return false;
            }
            last = Instant::now();
            let wanted = !c[0].keyframes_wanted.is_empty();
            c[0].keyframes_wanted.clear();
            c[0].send(cam, None, wanted);
            !video(c[1]).is_empty()
        });
        let again = video(&bob)[0];
        assert!(is_key(again), "it begins with a key frame");
        // Sections are used again (there are two), streams are not: browsers show nothing on a stream that comes back.
        assert!(!streams.contains(&again.header.ssrc), "a new stream each time");
        streams.push(again.header.ssrc);
        stage.needs.clear();
        stage.tell(Command::SetPermission {
            room: ROOM,
            participant: ANN,
            permission: NOTHING,
        });
        stage.until("the section's release", &mut [&mut ann, &mut bob], |stage, _| {
            stage.needs.contains(&BOB)
        });
    }
    stage.sfu.stop();
}

#[test]
fn one_layer_of_simulcast_is_chosen() {
    let mut stage = Stage::new();
    let (mut ann, mut bob, cam, _) = meet(&mut stage, true);
    // At the pace of a camera, or the estimate of the path would rightly forbid the larger layers.
    let mut last = Instant::now();
    let mut pump = |c: &mut [&mut Client]| {
        if last.elapsed() < Duration::from_millis(10) {
            return;
        }
        last = Instant::now();
        let wanted: Vec<Option<Rid>> = std::mem::take(&mut c[0].keyframes_wanted);
        for rid in ["q", "h", "f"].map(Rid::from) {
            let key = wanted.contains(&Some(rid));
            c[0].send(cam, Some(rid), key);
        }
    };
    // The layer that Bob got lately, if it was one only.
    let layer = |c: &mut [&mut Client]| {
        let mut lately: Vec<(u64, u8)> = video(c[1]).iter().map(|p| (*p.seq_no, p.payload[5])).collect();
        lately.sort_unstable();
        let lately: Vec<u8> = lately.iter().rev().take(30).map(|(_, layer)| *layer).collect();
        (lately.len() == 30 && lately.iter().all(|l| *l == lately[0])).then(|| lately[0])
    };
    stage.until("the largest layer", &mut [&mut ann, &mut bob], |_, c| {
        pump(c);
        layer(c) == Some(2)
    });
    stage.tell(Command::TrackSettings {
        room: ROOM,
        participant: BOB,
        track: CAMERA,
        max_layer: Layer::LOW,
        enabled: true,
    });
    stage.until("the smallest layer", &mut [&mut ann, &mut bob], |_, c| {
        pump(c);
        layer(c) == Some(0)
    });
    // Whatever was switched: one stream, no gap, no number twice.
    let mut numbers: Vec<u64> = video(&bob).iter().map(|p| *p.seq_no).collect();
    numbers.sort_unstable();
    let gaps: Vec<_> = numbers.windows(2).filter(|w| w[1] != w[0] + 1).collect();
    assert!(gaps.is_empty(), "gaps: {gaps:?}");
    let mut pictures: Vec<(u64, u16)> = video(&bob)
        .iter()
        .map(|p| (*p.seq_no, u16::from_be_bytes([p.payload[2], p.payload[3]]) & 0x7fff))
        .collect();
    pictures.sort_unstable();
    assert!(
        pictures.windows(2).all(|w| w[1].1 == (w[0].1 + 1) & 0x7fff),
        "picture ids follow each other"
    );
    let sent = ann.sequence.values().sum::<u64>();
    assert!((video(&bob).len() as u64) < sent / 2, "one layer, not three");
    stage.sfu.stop();
}

#[test]
fn garbage_ends_nobody() {
    let mut stage = Stage::new();
    let (mut ann, mut bob, cam, _) = meet(&mut stage, false);
    let target = stage.sfu.addresses()[0];
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut noise = 0x2545_f491_4f6c_dd1du64;
    for length in 0..400usize {
        let datagram: Vec<u8> = (0..length)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        stranger.send_to(&datagram, target).unwrap();
        // From a known address too: what looks like DTLS, RTP or STUN and is not.
        ann.socket.send_to(&datagram, target).unwrap();
    }
    // A description that nobody can read is refused, and the connection stands.
    stage.tell(Command::Offer {
        room: ROOM,
        participant: ANN,
        offer_id: 9,
        sdp: "v=0\r\nnonsense".into(),
    });
    let start = Instant::now();
    let refused = loop {
        assert!(start.elapsed() < PATIENCE);
        match stage.events.try_recv() {
            Ok(Event::Answered {
                offer_id: 9, result, ..
            }) => break result.is_err(),
            _ => std::thread::yield_now(),
        }
    };
    assert!(refused);
    stage.until("video in spite of it", &mut [&mut ann, &mut bob], |_, c| {
        let wanted = !c[0].keyframes_wanted.is_empty();
        c[0].keyframes_wanted.clear();
        c[0].send(cam, None, wanted);
        video(c[1]).len() > 20
    });
    assert_eq!(stage.sfu.stats().peers, 2);
    // The subscriber's own wish for a key frame reaches the publisher.
    let ssrc = video(&bob)[0].header.ssrc;
    ann.keyframes_wanted.clear();
    stage.until("a forwarded key frame request", &mut [&mut ann, &mut bob], |_, c| {
        if let Some(stream) = c[1].rtc.direct_api().stream_rx(&ssrc) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
        !c[0].keyframes_wanted.is_empty()
    });
    stage.tell(Command::Leave {
        room: ROOM,
        participant: ANN,
    });
    stage.until("only bob", &mut [&mut bob], |stage, _| stage.sfu.stats().peers == 1);
    stage.sfu.stop();
}
