//! Tests of the engine on a network and a clock that are simulated: paths that are clear, narrow, or woken late.

mod own_path;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpApi, SdpPendingOffer};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind as Kind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite};
use str0m::{Candidate, Event as RtcEvent, Input, Output, Rtc};

use crate::engine::Engine;
use crate::ids::{MediaKind, ParticipantId, RoomId, TrackId};
use crate::messages::{Answer, Command, Event, Permission, TrackSpec};
use crate::peer::PeerFactory;

const ROOM: RoomId = RoomId(1);
const ANN: ParticipantId = ParticipantId(1);
const BOB: ParticipantId = ParticipantId(2);
const CAMERA: TrackId = TrackId(10);
const MICROPHONE: TrackId = TrackId(11);
const STEP: Duration = Duration::from_micros(250);
const VIDEO_BYTES: usize = 1100;
const PACKETS_PER_FRAME: usize = 6;
const FRAME_EVERY: Duration = Duration::from_micros(33_333);

/// One direction of a path: a queue in front of a wire.
struct Wire {
    delay: Duration,
    /// Bits a second; none is as much as comes.
    rate: Option<u64>,
    /// What the queue holds at most before it drops.
    limit: Duration,
    /// Everything arrives at the end of such a time, as at a receiver that is seldom scheduled.
    clump: Duration,
    free_at: Option<Instant>,
    queue: VecDeque<(Instant, Vec<u8>)>,
    /// Of large packets, each of this number is lost.
    lose_every: Option<usize>,
    large: usize,
    lost: usize,
}

impl Wire {
    fn clear() -> Wire {
        Wire {
            delay: Duration::from_micros(500),
            rate: None,
            limit: Duration::from_millis(200),
            clump: Duration::ZERO,
            free_at: None,
            queue: VecDeque::new(),
            lose_every: None,
            large: 0,
            lost: 0,
        }
    }

    fn push(&mut self, now: Instant, bytes: Vec<u8>) {
        let mut at = now;
        self.large += usize::from(bytes.len() > VIDEO_BYTES);
        if bytes.len() > VIDEO_BYTES && self.lose_every.is_some_and(|every| self.large.is_multiple_of(every)) {
            self.lost += 1;
            return;
        }
        if let Some(rate) = self.rate {
            let begin = self.free_at.unwrap_or(now).max(now);
            if begin - now > self.limit {
                return;
            }
            at = begin + Duration::from_secs_f64((bytes.len() + 28) as f64 * 8.0 / rate as f64);
            self.free_at = Some(at);
        }
        self.queue.push_back((at + self.delay, bytes));
    }

    fn pop(&mut self, now: Instant, start: Instant) -> Option<Vec<u8>> {
        let (at, _) = self.queue.front()?;
        let mut due = *at;
        if !self.clump.is_zero() {
            let since = (due - start).as_micros();
            let clump = self.clump.as_micros();
            due = start + Duration::from_micros((since.div_ceil(clump) * clump) as u64);
        }
        (due <= now).then(|| self.queue.pop_front().unwrap().1)
    }
}

struct Client {
    rtc: Rtc,
    addr: SocketAddr,
    next: Instant,
    connected: bool,
    keyframes_wanted: usize,
    received: Vec<(Instant, RtpPacket)>,
    pending: Option<SdpPendingOffer>,
    up: Wire,
    down: Wire,
}

impl Client {
    fn new(port: u16, now: Instant) -> Client {
        let addr: SocketAddr = ([10, 0, 0, 1], port).into();
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(now);
        rtc.add_local_candidate(Candidate::host(addr, Protocol::Udp).unwrap());
        Client {
            rtc,
            addr,
            next: now,
            connected: false,
            keyframes_wanted: 0,
            received: Vec::new(),
            pending: None,
            up: Wire::clear(),
            down: Wire::clear(),
        }
    }

    fn offer(&mut self, change: impl FnOnce(&mut SdpApi<'_>)) -> String {
        let mut api = self.rtc.sdp_api();
        change(&mut api);
        let (offer, pending) = api.apply().unwrap();
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    fn turn(&mut self, now: Instant, start: Instant, server: SocketAddr) {
        self.drain(now);
        while let Some(bytes) = self.down.pop(now, start) {
            let receive = Receive::new(Protocol::Udp, server, self.addr, &bytes).unwrap();
            self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
            self.drain(now);
        }
        if self.next <= now {
            self.rtc.handle_input(Input::Timeout(now)).unwrap();
            self.drain(now);
        }
    }

    fn drain(&mut self, now: Instant) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.next = at;
                    return;
                }
                Output::Transmit(t) => self.up.push(now, t.contents.into()),
                Output::Event(RtcEvent::Connected) => self.connected = true,
                Output::Event(RtcEvent::RtpPacket(packet)) => self.received.push((now, packet)),
                Output::Event(RtcEvent::KeyframeRequest(_)) => self.keyframes_wanted += 1,
                Output::Event(_) => {}
            }
        }
    }

    fn write(&mut self, mid: Mid, seq: u64, timestamp: u32, marker: bool, payload: Arc<[u8]>, now: Instant) {
        let pt = self.rtc.media(mid).unwrap().remote_pts()[0];
        let write = RtpWrite::new(pt, seq.into(), timestamp, now, payload).marker(marker);
        let mut direct = self.rtc.direct_api();
        direct.stream_tx_by_mid(mid, None).unwrap().write_rtp(write);
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        self.drain(now);
    }

    /// Packets of video and of audio that came in this time.
    fn came(&self, from: Instant, to: Instant) -> (usize, usize) {
        let within = |at: &Instant| (from..to).contains(at);
        let lately = || self.received.iter().filter(|(at, _)| within(at));
        let video = lately().filter(|(_, p)| p.payload.len() == VIDEO_BYTES).count();
        (video, lately().count() - video)
    }
}

/// Ann publishes as a camera and a microphone do; Bob receives.
struct World {
    engine: Engine,
    server: SocketAddr,
    start: Instant,
    now: Instant,
    /// Timers of the media thread fire at multiples of this after it went to sleep.
    coarse: Duration,
    wake: Instant,
    ann: Client,
    bob: Client,
    camera: Mid,
    microphone: Mid,
    /// What Ann has sent.
    frames: u64,
    voices: u64,
    /// Ann publishes: one key frame a second, and none when asked, so that a subscriber waits for its first picture.
    video_on: bool,
    events: Vec<(Instant, Event)>,
    /// Datagrams of the size of a video packet that went to Bob.
    video_sent: usize,
}

impl World {
    /// Both are connected; the media has not begun.
    fn new(coarse: Duration) -> World {
        str0m::crypto::from_feature_flags().install_process_default();
        let start = Instant::now();
        let server: SocketAddr = ([10, 0, 0, 9], 7882).into();
        let mut engine = Engine::new(PeerFactory::new(), vec![server], start);
        let permission = Permission {
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
        };
        for participant in [ANN, BOB] {
            engine.command(
                start,
                Command::Join {
                    room: ROOM,
                    participant,
                    permission,
                },
            );
        }
        for (track, kind, cid) in [(CAMERA, MediaKind::Video, "cam"), (MICROPHONE, MediaKind::Audio, "mic")] {
            let spec = TrackSpec {
                track,
                kind,
                cid: cid.into(),
                stream_label: "ann".into(),
                track_label: format!("TR_{track}"),
            };
            engine.command(
                start,
                Command::AddTrack {
                    room: ROOM,
                    participant: ANN,
                    spec,
                },
            );
            engine.command(
                start,
                Command::Subscribe {
                    room: ROOM,
                    participant: BOB,
                    track,
                },
            );
        }
        let mut ann = Client::new(1, start);
        let mut mids = None;
        let sdp = ann.offer(|api| {
            let mut add =
                |kind, id: &str| api.add_media(kind, Direction::SendOnly, Some("s".into()), Some(id.into()), None);
            mids = Some((add(Kind::Video, "cam"), add(Kind::Audio, "mic")));
        });
        let (camera, microphone) = mids.unwrap();
        let mut world = World {
            engine,
            server,
            start,
            now: start,
            coarse,
            wake: start,
            ann,
            bob: Client::new(2, start),
            camera,
            microphone,
            frames: 0,
            voices: 0,
            video_on: false,
            events: Vec::new(),
            video_sent: 0,
        };
        world.negotiate(ANN, sdp);
        world
    }

    fn subscribe(&mut self) {
        let sdp = self.bob.offer(|api| {
            for kind in [Kind::Audio, Kind::Video] {
                api.add_media(kind, Direction::RecvOnly, None, None, None);
            }
        });
        self.negotiate(BOB, sdp);
    }

    fn negotiate(&mut self, participant: ParticipantId, sdp: String) {
        let offer = Command::Offer {
            room: ROOM,
            participant,
            offer_id: 1,
            sdp,
        };
        self.engine.command(self.now, offer);
        self.keep_events();
        let answered = self.events.iter().rev().find_map(|(_, event)| match event {
            Event::Answered { result: Ok(answer), .. } => Some(answer.clone()),
            _ => None,
        });
        let Answer { sdp, .. } = answered.unwrap();
        let client = if participant == ANN {
            &mut self.ann
        } else {
            &mut self.bob
        };
        let pending = client.pending.take().unwrap();
        let answer = SdpAnswer::from_sdp_string(&sdp).unwrap();
        client.rtc.sdp_api().accept_answer(pending, answer).unwrap();
        client.drain(self.now);
        for _ in 0..8000 {
            let client = if participant == ANN { &self.ann } else { &self.bob };
            if client.connected {
                return;
            }
            self.step();
        }
        panic!("no connection");
    }

    fn keep_events(&mut self) {
        let now = self.now;
        self.events
            .extend(self.engine.events.drain(..).map(|event| (now, event)));
    }

    fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        if self.video_on {
            self.publish();
        }
        for client in [&mut self.ann, &mut self.bob] {
            client.turn(now, self.start, self.server);
        }
        let mut woken = now >= self.wake;
        for client in [&mut self.ann, &mut self.bob] {
            while let Some(bytes) = client.up.pop(now, self.start) {
                self.engine.datagram(now, client.addr, self.server, &bytes);
                woken = true;
            }
        }
        if !woken {
            return;
        }
        self.engine.time(now);
        for datagram in self.engine.take_datagrams() {
            let client = if datagram.remote == self.ann.addr {
                &mut self.ann
            } else if datagram.remote == self.bob.addr {
                self.video_sent += usize::from(datagram.contents.len() > VIDEO_BYTES);
                &mut self.bob
            } else {
                continue;
            };
            client.down.push(now, datagram.contents);
        }
        let wait = self.engine.deadline().saturating_duration_since(now).max(STEP);
        let grain = self.coarse.as_micros().max(1);
        self.wake = now + Duration::from_micros((wait.as_micros().div_ceil(grain) * grain) as u64);
        self.keep_events();
    }

    /// What the camera and the microphone have produced by now.
    fn publish(&mut self) {
        let elapsed = self.now - self.start;
        let due = (elapsed.as_micros() / FRAME_EVERY.as_micros()) as u64;
        if self.frames == 0 {
            self.frames = due;
            self.voices = (elapsed.as_millis() / 20) as u64;
        }
        while self.frames < due {
            self.frames += 1;
            let key = self.frames.is_multiple_of(30);
            for index in 0..PACKETS_PER_FRAME {
                let seq = self.frames * PACKETS_PER_FRAME as u64 + index as u64;
                let mut payload = vec![0xa5; VIDEO_BYTES];
                let [high, low] = ((self.frames & 0x7fff) as u16 | 0x8000).to_be_bytes();
                let first = if index == 0 { 0x90 } else { 0x80 };
                payload[..5].copy_from_slice(&[first, 0x80, high, low, u8::from(!key)]);
                let last = index + 1 == PACKETS_PER_FRAME;
                let timestamp = (self.frames * 3000) as u32;
                self.ann
                    .write(self.camera, seq, timestamp, last, payload.into(), self.now);
            }
        }
        let due = (elapsed.as_millis() / 20) as u64;
        while self.voices < due {
            self.voices += 1;
            let (seq, timestamp) = (self.voices, (self.voices * 960) as u32);
            self.ann
                .write(self.microphone, seq, timestamp, true, Arc::new([7; 100]), self.now);
        }
    }

    fn run(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while self.now < until {
            self.step();
        }
    }

    /// Bob's share of the video and the audio of the last seconds, in percent.
    fn share(&self, seconds: u64) -> (usize, usize) {
        let from = self.now - Duration::from_secs(seconds);
        let (video, audio) = self.bob.came(from, self.now);
        let expected = seconds as usize * 30 * PACKETS_PER_FRAME;
        (video * 100 / expected, audio * 100 / (seconds as usize * 50))
    }

    fn pauses(&self) -> usize {
        let paused = |event: &Event| matches!(event, Event::StreamPaused { paused: true, .. });
        self.events.iter().filter(|(_, event)| paused(event)).count()
    }
}

/// A media thread that wakes late, a receiver that is seldom scheduled: bursts come out slowly and arrive in clumps, and
/// the estimate falls below what flows. Nothing is lost, so nothing may be withheld.
#[test]
fn a_clear_path_keeps_its_picture_however_late_threads_wake() {
    for (coarse, clump) in [(250, 0), (1_000, 0), (4_000, 0), (1_000, 8_000), (4_000, 15_000)] {
        let mut world = World::new(Duration::from_micros(coarse));
        world.video_on = true;
        world.run(1);
        world.bob.down.clump = Duration::from_micros(clump);
        world.subscribe();
        world.run(3);
        world.run(20);
        let (video, audio) = world.share(20);
        let pauses = world.pauses();
        assert!(
            video >= 99 && audio >= 99 && pauses == 0,
            "timers of {coarse} µs, arrivals each {clump} µs: {video} % of video, {audio} % of audio, {pauses} pauses"
        );
    }
}

/// A path that carries the voice but not the picture keeps the voice; when it widens, the picture comes back.
#[test]
fn a_narrow_path_keeps_the_voice_and_a_widened_one_gets_the_picture_back() {
    let mut world = World::new(Duration::from_millis(1));
    world.video_on = true;
    world.run(2);
    world.subscribe();
    world.run(5);
    assert!(world.share(3).0 >= 99, "{:?}", world.share(3));
    world.bob.down.rate = Some(500_000);
    world.run(10);
    world.run(20);
    let (video, audio) = world.share(20);
    assert!(
        video <= 35 && audio >= 85,
        "narrow: {video} % of video, {audio} % of audio"
    );
    world.bob.down.rate = None;
    world.run(45);
    world.run(5);
    let (video, audio) = world.share(5);
    assert!(
        video >= 99 && audio >= 99,
        "wide: {video} % of video, {audio} % of audio"
    );
}

/// A picture that was withheld, and whose publisher then fell silent: the subscriber's request still reaches it.
#[test]
fn a_request_for_a_key_frame_reaches_a_silent_publisher() {
    let mut world = World::new(Duration::from_millis(1));
    world.video_on = true;
    world.run(2);
    world.subscribe();
    world.run(3);
    world.bob.down.rate = Some(300_000);
    while world.pauses() == 0 {
        world.step();
    }
    world.video_on = false;
    world.run(5);
    let ssrc = world.bob.received.iter().find(|(_, p)| p.payload.len() == VIDEO_BYTES);
    let ssrc = ssrc.unwrap().1.header.ssrc;
    let before = world.ann.keyframes_wanted;
    let mut direct = world.bob.rtc.direct_api();
    direct
        .stream_rx(&ssrc)
        .unwrap()
        .request_keyframe(KeyframeRequestKind::Pli);
    world.bob.drain(world.now);
    world.run(1);
    assert!(world.ann.keyframes_wanted > before);
}
