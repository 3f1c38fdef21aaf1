//! One media thread's world, without sockets and clocks: datagrams, commands and time in; datagrams and events out.
//!
//! Here is what drives it. What it does: orders ([`crate::commands`]), the packet path ([`crate::forwarding`]),
//! connections ([`crate::connections`]), descriptions ([`crate::negotiation`], [`crate::offering`]), shares of a path
//! ([`crate::bandwidth`]).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::ids::{ParticipantId, RoomId, TrackId, Transport};
use crate::messages::{ClosedReason, Event};
#[cfg(test)]
use crate::packet::Datagram;
use crate::packet::{Mid, PeerEvent, Sink};
use crate::participant::Participant;
use crate::peer::{Peer, PeerError, PeerFactory};
use crate::room::Room;
use crate::stats::Stats;
use crate::stun;
use crate::track::Track;

/// How often speakers are judged and unanswered key frame requests repeated.
const TICK: Duration = Duration::from_millis(400);

/// A connection of this thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PeerKey(pub(crate) u64);

pub(crate) struct PeerEntry {
    pub peer: Peer,
    pub room: RoomId,
    pub participant: ParticipantId,
    pub transport: Transport,
    /// What arrives on which section.
    pub inbound: HashMap<Mid, TrackId>,
    pub addrs: Vec<SocketAddr>,
    pub ufrags: Vec<String>,
    /// The deadline its newest timer stands for; older timers are ignored when they fire.
    timer: Option<Instant>,
    pub dirty: bool,
}

impl PeerEntry {
    pub(crate) fn new(peer: Peer, room: RoomId, participant: ParticipantId, transport: Transport) -> PeerEntry {
        PeerEntry {
            peer,
            room,
            participant,
            transport,
            inbound: HashMap::new(),
            addrs: Vec::new(),
            ufrags: Vec::new(),
            timer: None,
            dirty: false,
        }
    }
}

pub(crate) struct Engine {
    pub(crate) rooms: HashMap<RoomId, Room>,
    pub(crate) peers: HashMap<PeerKey, PeerEntry>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) stats: Stats,
    pub(crate) now: Instant,
    pub(crate) sink: Sink,
    pub(crate) factory: PeerFactory,
    pub(crate) local: Vec<SocketAddr>,
    pub(crate) by_addr: HashMap<SocketAddr, PeerKey>,
    pub(crate) by_ufrag: HashMap<String, PeerKey>,
    timers: BinaryHeap<Reverse<(Instant, PeerKey)>>,
    pub(crate) dirty: Vec<PeerKey>,
    queue: VecDeque<(PeerKey, PeerEvent)>,
    pub(crate) next_key: u64,
    next_tick: Instant,
}

impl Engine {
    /// `local`: the addresses put into candidates, by which this thread is reached.
    pub(crate) fn new(factory: PeerFactory, local: Vec<SocketAddr>, now: Instant) -> Engine {
        Engine {
            rooms: HashMap::new(),
            peers: HashMap::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
            now,
            sink: Sink::default(),
            factory,
            local,
            by_addr: HashMap::new(),
            by_ufrag: HashMap::new(),
            timers: BinaryHeap::new(),
            dirty: Vec::new(),
            queue: VecDeque::new(),
            next_key: 0,
            next_tick: now + TICK,
        }
    }

    /// A datagram from `remote` that arrived at the candidate address `local`. What is to be sent because of it waits for
    /// [`Engine::time`], which ends a turn: the packets of a picture that came together leave together.
    pub(crate) fn datagram(&mut self, now: Instant, remote: SocketAddr, local: SocketAddr, bytes: &[u8]) {
        self.now = now;
        self.stats.datagrams_in += 1;
        // A binding request names its agent, and a known address can come to mean another connection.
        let named = stun::addressed_ufrag(bytes).and_then(|ufrag| self.by_ufrag.get(ufrag).copied());
        let Some(key) = named.or_else(|| self.by_addr.get(&remote).copied()) else {
            self.stats.dropped += 1;
            return;
        };
        if named.is_some() && self.by_addr.get(&remote) != Some(&key) {
            self.learn_address(key, remote);
        }
        self.drive(key, |peer, now, sink| peer.receive(now, remote, local, bytes, sink));
        self.hand_on();
    }

    /// When [`Engine::time`] wants to be called at the latest.
    pub(crate) fn deadline(&self) -> Instant {
        self.timers
            .peek()
            .map_or(self.next_tick, |Reverse((at, _))| (*at).min(self.next_tick))
    }

    pub(crate) fn time(&mut self, now: Instant) {
        self.now = now;
        while let Some(Reverse((at, key))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            if self.peers.get(&key).is_some_and(|e| e.timer == Some(at)) {
                self.drive(key, |peer, now, sink| peer.tick(now, sink));
            }
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick();
        }
        self.settle();
    }

    fn tick(&mut self) {
        let mut wanting = Vec::new();
        for (id, room) in &mut self.rooms {
            if let Some(speakers) = room.close_interval() {
                self.events.push_back(Event::Speakers { room: *id, speakers });
            }
            wanting.extend(room.tracks.keys().map(|track| (*id, *track)));
        }
        let mut subscribers = Vec::new();
        for (id, room) in &mut self.rooms {
            room.tracks.values_mut().for_each(|track| track.measure(TICK));
            subscribers.extend(room.participants.keys().map(|participant| (*id, *participant)));
        }
        for (room, participant) in subscribers {
            self.share_bandwidth(room, participant);
        }
        for (room, track) in wanting {
            self.ask_keyframes(room, track);
        }
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            self.drive(key, |peer, now, sink| {
                peer.report(now, sink);
                peer.retry_data(now, sink)
            });
        }
    }

    /// Send what was gathered, hand on what was reported, until nothing is left.
    pub(crate) fn settle(&mut self) {
        loop {
            self.hand_on();
            let Some(key) = self.dirty.pop() else { break };
            if let Some(entry) = self.peers.get_mut(&key) {
                entry.dirty = false;
            }
            self.drive(key, |peer, now, sink| peer.flush(now, sink));
        }
        self.stats.peers = self.peers.len() as u64;
        self.stats.rooms = self.rooms.len() as u64;
    }

    fn hand_on(&mut self) {
        while let Some((key, event)) = self.queue.pop_front() {
            self.peer_event(key, event);
        }
    }

    /// Run something on one connection. Whatever goes wrong there, a panic included, ends that connection only.
    pub(crate) fn drive<T>(
        &mut self,
        key: PeerKey,
        work: impl FnOnce(&mut Peer, Instant, &mut Sink) -> Result<T, PeerError>,
    ) -> Option<T> {
        let entry = self.peers.get_mut(&key)?;
        let (now, sink) = (self.now, &mut self.sink);
        let done = catch_unwind(AssertUnwindSafe(|| work(&mut entry.peer, now, sink)));
        self.queue.extend(self.sink.events.drain(..).map(|event| (key, event)));
        let reason = match done {
            Ok(Ok(value)) => {
                self.arm(key);
                return Some(value);
            }
            Ok(Err(PeerError::DataOverflow)) => ClosedReason::DataOverflow,
            Ok(Err(error)) => {
                tracing::info!(participant = %entry.participant, %error, "media connection failed");
                ClosedReason::Failed
            }
            Err(_) => {
                crate::egress::keys::take();
                tracing::error!(participant = %entry.participant, "panic in a media connection; it is closed");
                ClosedReason::Failed
            }
        };
        self.drop_peer(key, Some(reason));
        None
    }

    /// Keep a timer for the connection's deadline. An earlier timer that still stands is good enough.
    fn arm(&mut self, key: PeerKey) {
        let Some(entry) = self.peers.get_mut(&key) else { return };
        let deadline = entry.peer.deadline();
        let stands = entry.timer.is_some_and(|at| at > self.now && at <= deadline);
        if !stands {
            entry.timer = Some(deadline);
            self.timers.push(Reverse((deadline, key)));
        }
    }

    fn peer_event(&mut self, key: PeerKey, event: PeerEvent) {
        let Some(entry) = self.peers.get(&key) else { return };
        let (room, participant, transport) = (entry.room, entry.participant, entry.transport);
        match event {
            PeerEvent::Media(packet) => self.media(key, &packet),
            PeerEvent::Paused { mid, layer, paused } => {
                let track = entry.inbound.get(&mid).copied();
                if let Some(id) = track {
                    if let Some(track) = self.track(room, id) {
                        track.set_alive(layer, !paused);
                    }
                    self.ask_keyframes(room, id);
                }
            }
            PeerEvent::KeyframeWanted { mid } => self.subscriber_wants_keyframe(room, participant, mid),
            PeerEvent::Estimate(estimate) => self.estimated(room, participant, key, estimate),
            PeerEvent::Reported { loss, rtt } => {
                let now = self.now;
                let path = self
                    .participant(room, participant)
                    .filter(|p| p.receiving_peer() == Some(key))
                    .map(|p| &mut p.path);
                if let Some(path) = path {
                    path.reported(now, loss, rtt);
                }
            }
            PeerEvent::Measured { sent, came } => self.measured(room, participant, key, sent, came),
            PeerEvent::Connected => self.events.push_back(Event::Connected {
                room,
                participant,
                transport,
            }),
            PeerEvent::Disconnected => self.events.push_back(Event::Disconnected {
                room,
                participant,
                transport,
            }),
            PeerEvent::Recovered => self.events.push_back(Event::Recovered {
                room,
                participant,
                transport,
            }),
            PeerEvent::Closed => self.drop_peer(key, Some(ClosedReason::Remote)),
            PeerEvent::Data { kind, payload } => {
                let allowed = self
                    .rooms
                    .get(&room)
                    .and_then(|r| r.participants.get(&participant))
                    .is_some_and(|p| p.permission.can_publish_data);
                if allowed {
                    self.events.push_back(Event::Data {
                        room,
                        participant,
                        kind,
                        payload,
                    });
                }
            }
        }
    }

    /// Everything to send, once.
    #[cfg(test)]
    pub(crate) fn take_datagrams(&mut self) -> std::vec::Drain<'_, Datagram> {
        self.sink.datagrams.drain(..)
    }

    pub(crate) fn participant(&mut self, room: RoomId, participant: ParticipantId) -> Option<&mut Participant> {
        self.rooms.get_mut(&room)?.participants.get_mut(&participant)
    }

    pub(crate) fn track(&mut self, room: RoomId, track: TrackId) -> Option<&mut Track> {
        self.rooms.get_mut(&room)?.tracks.get_mut(&track)
    }
}
