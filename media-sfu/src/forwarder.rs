//! One subscription's view of a track: which layer it gets, and the rewriting that hides every switch.

use crate::allocator::Grant;
use crate::ids::{Layer, MediaKind};
use crate::keyframe::starts_keyframe;
use crate::layers::{AliveLayers, choose};
use crate::munger::{Munger, Rewrite};
use crate::packet::{Codec, MediaPacket, vp8_ids};

#[derive(Debug)]
pub(crate) struct Forwarder {
    kind: MediaKind,
    /// The largest layer the subscriber has a use for.
    max: Layer,
    /// What the path allows.
    grant: Grant,
    /// The layer it shall get, and the one it gets until the next key frame of the other.
    target: Option<Layer>,
    current: Option<Layer>,
    munger: Munger,
}

impl Forwarder {
    pub(crate) fn new(kind: MediaKind, max: Layer) -> Forwarder {
        let clock_rate = if kind == MediaKind::Audio { 48_000 } else { 90_000 };
        Forwarder {
            kind,
            max,
            grant: Grant::UpTo(Layer::HIGH),
            target: None,
            current: None,
            munger: Munger::new(clock_rate),
        }
    }

    /// The next packet gets a number after this one.
    #[cfg(test)]
    pub(crate) fn number_from(&mut self, seq: u64) {
        self.munger.number_from(seq);
    }

    pub(crate) fn set_max(&mut self, max: Layer) {
        self.max = max;
    }

    pub(crate) fn max(&self) -> Layer {
        self.max
    }

    pub(crate) fn grant(&self) -> Grant {
        self.grant
    }

    /// What the path allows changed; [`Forwarder::retarget`] puts it into effect.
    pub(crate) fn set_grant(&mut self, grant: Grant) {
        if grant == Grant::Paused {
            self.pause();
        }
        self.grant = grant;
    }

    /// Choose again after a layer appeared, died, or the wish changed.
    pub(crate) fn retarget(&mut self, alive: AliveLayers) {
        self.target = match self.grant {
            Grant::UpTo(layer) => choose(alive, self.max.min(layer)),
            Grant::Paused => None,
        };
    }

    /// The layer of which a key frame is needed before anything (better) can be shown.
    pub(crate) fn wants_keyframe(&self) -> Option<Layer> {
        self.target
            .filter(|target| self.kind == MediaKind::Video && self.current != Some(*target))
    }

    pub(crate) fn current(&self) -> Option<Layer> {
        self.current
    }

    /// Forget the source: what comes next starts with a key frame.
    pub(crate) fn pause(&mut self) {
        self.current = None;
        self.munger.stop();
    }

    /// The rewritten numbers if this packet is for the subscriber.
    pub(crate) fn forward(&mut self, packet: &MediaPacket) -> Option<Rewrite> {
        let wanted = self.target == Some(packet.layer) && self.current != self.target;
        if !wanted && self.current != Some(packet.layer) {
            return None;
        }
        let vp8 = if packet.codec == Codec::Vp8 {
            vp8_ids(&packet.payload)
        } else {
            None
        };
        if wanted {
            if starts_keyframe(packet.codec, &packet.payload) {
                self.current = Some(packet.layer);
                self.munger.switch(packet.seq, packet.timestamp, vp8, packet.at);
            } else if self.current != Some(packet.layer) {
                return None;
            }
        }
        self.munger.map(packet.seq, packet.timestamp, vp8, packet.at)
    }
}
