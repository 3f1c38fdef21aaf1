//! A participant: its rights, its connections, what it wants to receive, and the sections it receives on.

use std::collections::BTreeMap;

use crate::engine::PeerKey;
use crate::ids::{Layer, MediaKind, TrackId};
use crate::messages::Permission;
use crate::packet::Mid;
use crate::path::Path;

#[derive(Debug)]
pub(crate) struct Participant {
    pub permission: Permission,
    pub publisher: Option<PeerKey>,
    pub subscriber: Receiving,
    /// Tracks that signalling subscribed it to; whether they flow is a matter of rights and sections.
    pub wanted: BTreeMap<TrackId, Wish>,
    pub slots: Vec<Slot>,
    /// Published tracks that no section was found for yet, in order of their announcement.
    pub unbound: Vec<TrackId>,
    /// Receiving sections asked of the client and not seen yet.
    pub asked_audio: u32,
    pub asked_video: u32,
    /// The path to it.
    pub path: Path,
}

/// Where a participant receives.
#[derive(Debug)]
pub(crate) enum Receiving {
    /// On its publisher connection.
    Single,
    /// On a second connection, where the server makes the offers.
    Dual {
        peer: PeerKey,
        offer_id: u32,
        in_flight: bool,
        again: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    pub max_layer: Layer,
    pub enabled: bool,
}

impl Default for Wish {
    fn default() -> Wish {
        Wish {
            max_layer: Layer::HIGH,
            enabled: true,
        }
    }
}

/// A media section on which the participant receives.
#[derive(Debug)]
pub(crate) struct Slot {
    pub mid: Mid,
    pub kind: MediaKind,
    pub state: SlotState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotState {
    Free,
    /// Released; must be announced as inactive once before another track may use it, or the client would not notice.
    Draining,
    Carries(TrackId),
}

impl Participant {
    pub(crate) fn new(permission: Permission) -> Participant {
        Participant {
            permission,
            publisher: None,
            subscriber: Receiving::Single,
            wanted: BTreeMap::new(),
            slots: Vec::new(),
            unbound: Vec::new(),
            asked_audio: 0,
            asked_video: 0,
            path: Path::default(),
        }
    }

    /// The connection on which it receives.
    pub(crate) fn receiving_peer(&self) -> Option<PeerKey> {
        match self.subscriber {
            Receiving::Single => self.publisher,
            Receiving::Dual { peer, .. } => Some(peer),
        }
    }

    pub(crate) fn slot_of(&self, track: TrackId) -> Option<&Slot> {
        self.slots.iter().find(|s| s.state == SlotState::Carries(track))
    }

    pub(crate) fn track_on(&self, mid: Mid) -> Option<TrackId> {
        self.slots.iter().find(|s| s.mid == mid).and_then(|s| match s.state {
            SlotState::Carries(track) => Some(track),
            _ => None,
        })
    }

    pub(crate) fn free_slots(&self, kind: MediaKind) -> usize {
        self.slots
            .iter()
            .filter(|s| s.kind == kind && s.state == SlotState::Free)
            .count()
    }
}
