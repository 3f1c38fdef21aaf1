//! A published track and those who receive it.

use crate::engine::PeerKey;
use crate::forwarder::Forwarder;
use crate::ids::{Layer, MediaKind, ParticipantId, TrackId};
use crate::keyframe::KeyframeThrottle;
use crate::layers::AliveLayers;
use crate::messages::TrackSpec;
use crate::peer::{MediaPacket, Mid};
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
    pub started: bool,
    pub meter: SpeakerMeter,
    pub subscriptions: Vec<Subscription>,
    alive: AliveLayers,
    throttles: [KeyframeThrottle; 3],
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
            started: false,
            meter: SpeakerMeter::default(),
            subscriptions: Vec::new(),
            alive: AliveLayers::default(),
            throttles: Default::default(),
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

    pub(crate) fn attach(&mut self, mut subscription: Subscription) {
        subscription.forwarder.retarget(self.alive);
        self.subscriptions.push(subscription);
    }

    pub(crate) fn detach(&mut self, participant: ParticipantId) -> Option<Subscription> {
        let at = self.subscriptions.iter().position(|s| s.participant == participant)?;
        Some(self.subscriptions.swap_remove(at))
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

    pub(crate) fn keyframe_allowed(&mut self, layer: Layer, now: std::time::Instant) -> bool {
        self.throttles
            .get_mut(layer.index())
            .is_some_and(|throttle| throttle.allow(now))
    }
}
