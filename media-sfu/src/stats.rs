//! Counters of the engine. Threads add to plain numbers and publish them once a turn.

use std::sync::atomic::{AtomicU64, Ordering};

/// A sum over all media threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    /// Datagrams that named no peer of ours, or that the socket would not take.
    pub dropped: u64,
    /// RTP packets forwarded to subscribers.
    pub forwarded: u64,
    pub peers: u64,
    pub rooms: u64,
    /// Events that found the event channel full and were dropped.
    pub events_lost: u64,
}

#[derive(Debug, Default)]
pub(crate) struct SharedStats([AtomicU64; 7]);

impl SharedStats {
    pub(crate) fn publish(&self, s: &Stats) {
        let values = [
            s.datagrams_in,
            s.datagrams_out,
            s.dropped,
            s.forwarded,
            s.peers,
            s.rooms,
            s.events_lost,
        ];
        for (cell, value) in self.0.iter().zip(values) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn add_to(&self, sum: &mut Stats) {
        let [a, b, c, d, e, f, g] = self.0.each_ref().map(|cell| cell.load(Ordering::Relaxed));
        sum.datagrams_in += a;
        sum.datagrams_out += b;
        sum.dropped += c;
        sum.forwarded += d;
        sum.peers += e;
        sum.rooms += f;
        sum.events_lost += g;
    }
}
