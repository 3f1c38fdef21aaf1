//! Connections: made, found by address or ICE user fragment, forgotten.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::{Engine, PeerEntry, PeerKey};
use crate::ids::{ParticipantId, RoomId, Transport};
use crate::messages::{ClosedReason, Event};

impl Engine {
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
        self.peers
            .insert(key, PeerEntry::new(peer, room, participant, transport));
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

    pub(crate) fn learn_address(&mut self, key: PeerKey, remote: SocketAddr) {
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

    /// Forget a connection. With a reason the caller is told.
    pub(crate) fn drop_peer(&mut self, key: PeerKey, reason: Option<ClosedReason>) {
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
}
