//! A published track and those who receive it.

use crate::allocator::{Grant, Rates};
use crate::engine::PeerKey;
use crate::forwarder::Forwarder;
use crate::ids::{Layer, MediaKind, ParticipantId, TrackId};
use crate::keyframe::KeyframeThrottle;
use crate::layers::AliveLayers;
use crate::messages::TrackSpec;
use crate::packet::{MediaPacket, Mid};
use crate::sdp::Label;
use crate::speaker::SpeakerMeter;

#[derive(Debug)]
pub(crate) struct Track {
    pub spec: TrackSpec,
    pub owner: ParticipantId,
    /// Connection and section it arrives on, once negotiated.
    pub source: Option<(PeerKey, Mid)>,
    /// Whether its owner may publish now.
    pub open: bool,
    pub muted: bool,
    /// Whether it comes in several sizes, of which the path decides.
    pub layered: bool,
    pub started: bool,
    pub meter: SpeakerMeter,
    pub subscriptions: Vec<Subscription>,
    alive: AliveLayers,
    throttles: [KeyframeThrottle; 3],
    /// Payload bytes of the running interval, and the smoothed rate in bits a second, of each layer.
    bytes: [u64; 3],
    rates: [u64; 3],
}

/// A subscriber's section on which the track is sent.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub participant: ParticipantId,
    pub peer: PeerKey,
    pub mid: Mid,
    pub enabled: bool,
    pub forwarder: Forwarder,
}

impl Track {
    pub(crate) fn new(spec: TrackSpec, owner: ParticipantId, open: bool) -> Track {
        Track {
            spec,
            owner,
            source: None,
            open,
            muted: false,
            layered: false,
            started: false,
            meter: SpeakerMeter::default(),
            subscriptions: Vec::new(),
            alive: AliveLayers::default(),
            throttles: Default::default(),
            bytes: [0; 3],
            rates: [0; 3],
        }
    }

    pub(crate) fn id(&self) -> TrackId {
        self.spec.track
    }

    pub(crate) fn kind(&self) -> MediaKind {
        self.spec.kind
    }

    /// How subscribers see it.
    pub(crate) fn label(&self) -> Label {
        Label {
            stream: self.spec.stream_label.clone(),
            track: self.spec.track_label.clone(),
        }
    }

    /// Note an arriving packet.
    pub(crate) fn observe(&mut self, packet: &MediaPacket) {
        self.started = true;
        if let Some(bytes) = self.bytes.get_mut(packet.layer.index()) {
            // Headers, encryption and their like are paid for too.
            *bytes += packet.payload.len() as u64 + 40;
        }
        if let Some(level) = packet.audio_level {
            self.meter.observe(level);
        }
        self.set_alive(packet.layer, true);
    }

    pub(crate) fn set_alive(&mut self, layer: Layer, alive: bool) {
        if self.alive.set(layer, alive) {
            for subscription in &mut self.subscriptions {
                subscription.forwarder.retarget(self.alive);
            }
        }
    }

    /// Close a measuring interval of this length.
    pub(crate) fn measure(&mut self, interval: std::time::Duration) {
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        for (bytes, rate) in self.bytes.iter_mut().zip(&mut self.rates) {
            let now = std::mem::take(bytes) * 8 * 1000 / millis;
            *rate = if *rate == 0 { now } else { (*rate * 3 + now) / 4 };
        }
    }

    /// What each living layer costs.
    pub(crate) fn rates(&self) -> Rates {
        let mut out = Rates::default();
        for layer in self.alive.iter() {
            if let (Some(out), Some(rate)) = (out.get_mut(layer.index()), self.rates.get(layer.index())) {
                *out = Some(*rate);
            }
        }
        out
    }

    /// The path to a subscriber allows this much. True when its picture was paused or came back.
    pub(crate) fn grant(&mut self, participant: ParticipantId, grant: Grant) -> bool {
        let alive = self.alive;
        let Some(subscription) = self.subscriptions.iter_mut().find(|s| s.participant == participant) else {
            return false;
        };
        let before = subscription.forwarder.grant();
        if before == grant {
            return false;
        }
        subscription.forwarder.set_grant(grant);
        subscription.forwarder.retarget(alive);
        (before == Grant::Paused) != (grant == Grant::Paused)
    }

    pub(crate) fn attach(&mut self, mut subscription: Subscription) {
        subscription.forwarder.retarget(self.alive);
        self.subscriptions.push(subscription);
    }

    pub(crate) fn detach(&mut self, participant: ParticipantId) {
        self.subscriptions.retain(|s| s.participant != participant);
    }

    pub(crate) fn configure(&mut self, participant: ParticipantId, max: Layer, enabled: bool) {
        for subscription in self.subscriptions.iter_mut().filter(|s| s.participant == participant) {
            if subscription.enabled && !enabled {
                subscription.forwarder.pause();
            }
            subscription.enabled = enabled;
            subscription.forwarder.set_max(max);
            subscription.forwarder.retarget(self.alive);
        }
    }

    /// Forwarding stops at once, and starts again only with a key frame.
    pub(crate) fn set_open(&mut self, open: bool) {
        self.open = open;
        for subscription in &mut self.subscriptions {
            subscription.forwarder.pause();
        }
    }

    /// Layers for which a key frame should be asked now.
    pub(crate) fn keyframes_due(&mut self, now: std::time::Instant) -> Vec<Layer> {
        if !self.open || self.kind() == MediaKind::Audio {
            return Vec::new();
        }
        let mut due: Vec<Layer> = self
            .subscriptions
            .iter()
            .filter(|s| s.enabled)
            .filter_map(|s| s.forwarder.wants_keyframe())
            .collect();
        due.sort_unstable();
        due.dedup();
        due.retain(|layer| self.keyframe_allowed(*layer, now));
        due
    }

    /// Layers that a subscriber's own request for a key frame is about. Of a silent track it is about all: the request may
    /// be what wakes the publisher, and no packet will come that could be waited for. A picture that is withheld needs none.
    pub(crate) fn layers_asked_by(&self, participant: ParticipantId) -> Vec<Layer> {
        let Some(subscription) = self.subscriptions.iter().find(|s| s.participant == participant) else {
            return Vec::new();
        };
        let forwarder = &subscription.forwarder;
        match forwarder.current().or(forwarder.wants_keyframe()) {
            Some(layer) => vec![layer],
            None if self.alive.iter().next().is_none() => (0u8..3).map(Layer).collect(),
            None => Vec::new(),
        }
    }

    pub(crate) fn keyframe_allowed(&mut self, layer: Layer, now: std::time::Instant) -> bool {
        self.throttles
            .get_mut(layer.index())
            .is_some_and(|throttle| throttle.allow(now))
    }
}
