//! One media thread's world, without sockets and clocks: datagrams, commands and time in; datagrams and events out.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::ids::{Layer, ParticipantId, RoomId, TrackId, Transport};
use crate::messages::{ClosedReason, Command, Event, Permission};
use crate::participant::Participant;
use crate::peer::{Datagram, MediaPacket, Mid, Peer, PeerError, PeerEvent, PeerFactory, Sink};
use crate::room::Room;
use crate::stats::Stats;
use crate::stun;
use crate::track::Track;

/// How often speakers are judged and unanswered key frame requests repeated.
const TICK: Duration = Duration::from_millis(400);

/// A connection of this thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PeerKey(u64);

pub(crate) struct PeerEntry {
    pub peer: Peer,
    pub room: RoomId,
    pub participant: ParticipantId,
    pub transport: Transport,
    /// What arrives on which section.
    pub inbound: HashMap<Mid, TrackId>,
    addrs: Vec<SocketAddr>,
    ufrags: Vec<String>,
    /// The deadline its newest timer stands for; older timers are ignored when they fire.
    timer: Option<Instant>,
    dirty: bool,
}

pub(crate) struct Engine {
    pub(crate) rooms: HashMap<RoomId, Room>,
    pub(crate) peers: HashMap<PeerKey, PeerEntry>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) stats: Stats,
    pub(crate) now: Instant,
    pub(crate) sink: Sink,
    factory: PeerFactory,
    local: Vec<SocketAddr>,
    by_addr: HashMap<SocketAddr, PeerKey>,
    by_ufrag: HashMap<String, PeerKey>,
    timers: BinaryHeap<Reverse<(Instant, PeerKey)>>,
    dirty: Vec<PeerKey>,
    queue: VecDeque<(PeerKey, PeerEvent)>,
    next_key: u64,
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

    /// A datagram from `remote` that arrived at the candidate address `local`.
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
        self.settle();
    }

    fn learn_address(&mut self, key: PeerKey, remote: SocketAddr) {
        /// A connection has few paths; more is somebody replaying its requests from everywhere.
        const MAX_ADDRESSES: usize = 16;
        let Some(entry) = self.peers.get_mut(&key) else { return };
        if entry.addrs.len() >= MAX_ADDRESSES {
            let oldest = entry.addrs.remove(0);
            self.by_addr.remove(&oldest);
        }
        entry.addrs.push(remote);
        if let Some(previous) = self.by_addr.insert(remote, key)
            && let Some(entry) = self.peers.get_mut(&previous)
        {
            entry.addrs.retain(|a| *a != remote);
        }
    }

    pub(crate) fn command(&mut self, now: Instant, command: Command) {
        self.now = now;
        match command {
            Command::Join {
                room,
                participant,
                permission,
            } => {
                self.rooms
                    .entry(room)
                    .or_default()
                    .participants
                    .insert(participant, Participant::new(permission));
            }
            Command::Leave { room, participant } => self.leave(room, participant),
            Command::Offer {
                room,
                participant,
                offer_id,
                sdp,
            } => self.client_offer(room, participant, offer_id, &sdp),
            Command::Answer {
                room,
                participant,
                offer_id,
                sdp,
            } => self.client_answer(room, participant, offer_id, &sdp),
            Command::OpenSubscriber { room, participant } => self.open_subscriber(room, participant),
            Command::RestartSubscriber { room, participant } => self.offer_subscriber(room, participant, true),
            Command::AddTrack {
                room,
                participant,
                spec,
            } => {
                if let Some(room) = self.rooms.get_mut(&room)
                    && let Some(owner) = room.participants.get_mut(&participant)
                {
                    owner.unbound.push(spec.track);
                    let open = owner.permission.can_publish;
                    room.tracks.insert(spec.track, Track::new(spec, participant, open));
                }
            }
            Command::RemoveTrack { room, track } => self.remove_track(room, track),
            Command::Mute { room, track, muted } => {
                if let Some(track) = self.track(room, track) {
                    track.muted = muted;
                }
            }
            Command::Subscribe {
                room,
                participant,
                track,
            } => {
                if let Some(p) = self.participant(room, participant) {
                    p.wanted.entry(track).or_default();
                }
                self.reconcile(room, participant);
            }
            Command::Unsubscribe {
                room,
                participant,
                track,
            } => {
                if let Some(p) = self.participant(room, participant) {
                    p.wanted.remove(&track);
                }
                self.reconcile(room, participant);
            }
            Command::TrackSettings {
                room,
                participant,
                track,
                max_layer,
                enabled,
            } => {
                if let Some(wish) = self
                    .participant(room, participant)
                    .and_then(|p| p.wanted.get_mut(&track))
                {
                    wish.max_layer = max_layer;
                    wish.enabled = enabled;
                }
                if let Some(t) = self.track(room, track) {
                    t.configure(participant, max_layer, enabled);
                }
                self.ask_keyframes(room, track);
            }
            Command::SetPermission {
                room,
                participant,
                permission,
            } => self.set_permission(room, participant, permission),
            Command::SendData {
                room,
                to,
                kind,
                payload,
            } => {
                for participant in to {
                    let peer = self
                        .rooms
                        .get(&room)
                        .and_then(|r| r.participants.get(&participant)?.receiving_peer());
                    if let Some(key) = peer {
                        let payload = payload.clone();
                        self.drive(key, |peer, now, sink| peer.send_data(kind, payload, now, sink));
                    }
                }
            }
            Command::CloseRoom { room } => self.close_room(room),
        }
        self.settle();
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
            self.drive(key, |peer, now, sink| peer.retry_data(now, sink));
        }
    }

    /// Send what was gathered, hand on what was reported, until nothing is left.
    fn settle(&mut self) {
        loop {
            while let Some((key, event)) = self.queue.pop_front() {
                self.peer_event(key, event);
            }
            let Some(key) = self.dirty.pop() else { break };
            if let Some(entry) = self.peers.get_mut(&key) {
                entry.dirty = false;
            }
            self.drive(key, |peer, now, sink| peer.flush(now, sink));
        }
        self.stats.peers = self.peers.len() as u64;
        self.stats.rooms = self.rooms.len() as u64;
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

    /// The packet path: one packet from a publisher to everybody who gets it.
    fn media(&mut self, key: PeerKey, packet: &MediaPacket) {
        let Some(entry) = self.peers.get(&key) else { return };
        let room_id = entry.room;
        let Some(id) = entry.inbound.get(&packet.mid).copied() else {
            return;
        };
        let Some(track) = self.rooms.get_mut(&room_id).and_then(|r| r.tracks.get_mut(&id)) else {
            return;
        };
        if !track.open {
            return;
        }
        if !track.started {
            self.events.push_back(Event::TrackStarted {
                room: room_id,
                track: id,
            });
        }
        track.observe(packet);
        let mut broken = Vec::new();
        for subscription in track.subscriptions.iter_mut().filter(|s| s.enabled) {
            let Some(rewrite) = subscription.forwarder.forward(packet) else {
                continue;
            };
            let Some(to) = self.peers.get_mut(&subscription.peer) else {
                continue;
            };
            match catch_unwind(AssertUnwindSafe(|| to.peer.write(subscription.mid, packet, rewrite))) {
                Ok(true) => {
                    self.stats.forwarded += 1;
                    if !std::mem::replace(&mut to.dirty, true) {
                        self.dirty.push(subscription.peer);
                    }
                }
                Ok(false) => {}
                Err(_) => broken.push(subscription.peer),
            }
        }
        let due = track.keyframes_due(self.now);
        for layer in due {
            self.drive(key, |peer, now, sink| {
                peer.request_keyframe(packet.mid, layer, now, sink)
            });
        }
        for key in broken {
            tracing::error!("panic while writing to a media connection; it is closed");
            self.drop_peer(key, Some(ClosedReason::Failed));
        }
    }

    fn subscriber_wants_keyframe(&mut self, room: RoomId, participant: ParticipantId, mid: Mid) {
        let now = self.now;
        let Some(id) = self.participant(room, participant).and_then(|p| p.track_on(mid)) else {
            return;
        };
        let Some(track) = self.track(room, id) else { return };
        let layer = track
            .subscriptions
            .iter()
            .find(|s| s.participant == participant)
            .and_then(|s| s.forwarder.current().or(s.forwarder.wants_keyframe()));
        let Some(layer) = layer else { return };
        if track.open && track.keyframe_allowed(layer, now) {
            self.request_keyframe(room, id, layer);
        }
    }

    /// Ask for the key frames that subscribers of a track wait for.
    pub(crate) fn ask_keyframes(&mut self, room: RoomId, id: TrackId) {
        let now = self.now;
        let due = self.track(room, id).map(|t| t.keyframes_due(now)).unwrap_or_default();
        for layer in due {
            self.request_keyframe(room, id, layer);
        }
    }

    fn request_keyframe(&mut self, room: RoomId, id: TrackId, layer: Layer) {
        if let Some((key, mid)) = self.track(room, id).and_then(|t| t.source) {
            self.drive(key, |peer, now, sink| peer.request_keyframe(mid, layer, now, sink));
        }
    }

    fn set_permission(&mut self, room: RoomId, participant: ParticipantId, permission: Permission) {
        let Some(r) = self.rooms.get_mut(&room) else { return };
        let Some(p) = r.participants.get_mut(&participant) else {
            return;
        };
        let before = std::mem::replace(&mut p.permission, permission);
        if before.can_publish != permission.can_publish {
            for track in r.tracks.values_mut().filter(|t| t.owner == participant) {
                track.set_open(permission.can_publish);
            }
            let everybody: Vec<ParticipantId> = r.participants.keys().copied().collect();
            for other in everybody {
                self.reconcile(room, other);
            }
        } else if before.can_subscribe != permission.can_subscribe {
            self.reconcile(room, participant);
        }
    }

    fn remove_track(&mut self, room: RoomId, id: TrackId) {
        let Some(r) = self.rooms.get_mut(&room) else { return };
        let Some(track) = r.tracks.get_mut(&id) else { return };
        track.set_open(false);
        if let Some((key, mid)) = track.source
            && let Some(entry) = self.peers.get_mut(&key)
        {
            entry.inbound.remove(&mid);
        }
        let owner = track.owner;
        if let Some(p) = r.participants.get_mut(&owner) {
            p.unbound.retain(|t| *t != id);
        }
        let everybody: Vec<ParticipantId> = r.participants.keys().copied().collect();
        for participant in everybody {
            if let Some(p) = self.participant(room, participant) {
                p.wanted.remove(&id);
            }
            self.reconcile(room, participant);
        }
        if let Some(r) = self.rooms.get_mut(&room) {
            r.tracks.remove(&id);
        }
    }

    fn leave(&mut self, room: RoomId, participant: ParticipantId) {
        let Some(r) = self.rooms.get_mut(&room) else { return };
        let tracks: Vec<TrackId> = r
            .tracks
            .values()
            .filter(|t| t.owner == participant)
            .map(Track::id)
            .collect();
        for track in r.tracks.values_mut() {
            track.detach(participant);
        }
        for track in tracks {
            self.remove_track(room, track);
        }
        let Some(r) = self.rooms.get_mut(&room) else { return };
        r.participants.remove(&participant);
        if r.participants.is_empty() {
            self.rooms.remove(&room);
        }
        let keys: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, e)| e.participant == participant)
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.drive(key, |peer, now, sink| {
                peer.close(now, sink);
                Ok(())
            });
            self.drop_peer(key, None);
        }
    }

    fn close_room(&mut self, room: RoomId) {
        let everybody: Vec<ParticipantId> = self
            .rooms
            .get(&room)
            .map(|r| r.participants.keys().copied().collect())
            .unwrap_or_default();
        for participant in everybody {
            self.leave(room, participant);
        }
        self.rooms.remove(&room);
    }

    pub(crate) fn create_peer(
        &mut self,
        room: RoomId,
        participant: ParticipantId,
        transport: Transport,
    ) -> Option<PeerKey> {
        let (now, local) = (self.now, &self.local);
        let peer = catch_unwind(AssertUnwindSafe(|| self.factory.create(local, now))).ok()?;
        let key = PeerKey(self.next_key);
        self.next_key += 1;
        let entry = PeerEntry {
            peer,
            room,
            participant,
            transport,
            inbound: HashMap::new(),
            addrs: Vec::new(),
            ufrags: Vec::new(),
            timer: None,
            dirty: false,
        };
        self.peers.insert(key, entry);
        Some(key)
    }

    /// Make the connection findable under the ICE user fragment of a description of ours.
    pub(crate) fn register_ufrag(&mut self, key: PeerKey, ufrag: &str) {
        let Some(entry) = self.peers.get_mut(&key) else { return };
        if !entry.ufrags.iter().any(|u| u == ufrag) {
            entry.ufrags.push(ufrag.to_owned());
            self.by_ufrag.insert(ufrag.to_owned(), key);
        }
    }

    /// Forget a connection. With a reason the caller is told.
    fn drop_peer(&mut self, key: PeerKey, reason: Option<ClosedReason>) {
        let Some(entry) = self.peers.remove(&key) else { return };
        for addr in &entry.addrs {
            self.by_addr.remove(addr);
        }
        for ufrag in &entry.ufrags {
            self.by_ufrag.remove(ufrag);
        }
        let (room, participant, transport) = (entry.room, entry.participant, entry.transport);
        if let Some(r) = self.rooms.get_mut(&room) {
            for track in r.tracks.values_mut() {
                track.subscriptions.retain(|s| s.peer != key);
                if track.source.is_some_and(|(source, _)| source == key) {
                    track.source = None;
                }
            }
            if let Some(p) = r.participants.get_mut(&participant)
                && p.publisher == Some(key)
            {
                p.publisher = None;
            }
        }
        if let Some(reason) = reason {
            self.events.push_back(Event::Closed {
                room,
                participant,
                transport,
                reason,
            });
        }
    }

    /// Everything to send, once.
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
