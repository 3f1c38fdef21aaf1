//! What arrived: packets, gaps in the RTP sequence, and the time that each packet was under way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Width of a class of the histogram of latencies.
const CLASS: Duration = Duration::from_micros(50);
/// The last class takes everything over 200 ms.
const CLASSES: usize = 4000;
/// Sequence numbers remembered, to tell a late packet from a repeated one.
const REMEMBERED: usize = 1024;

/// Shared by all subscribers of one run.
pub struct Counts {
    packets: AtomicU64,
    video: AtomicU64,
    /// Net of packets that came late: sequence numbers that never came.
    missing: AtomicU64,
    /// Packets that had come before: a server probes a path with repetitions of old ones.
    repeated: AtomicU64,
    latency: Vec<AtomicU64>,
    /// Subscribers to whom video came.
    reached: AtomicU64,
    /// No packet has come yet since this was asked for.
    waiting: AtomicBool,
    first: Mutex<Option<Instant>>,
}

/// The counts at one moment, or between two.
#[derive(Debug, Clone)]
pub struct Seen {
    pub packets: u64,
    pub video: u64,
    pub missing: i64,
    pub repeated: u64,
    latency: Vec<u64>,
}

impl Default for Counts {
    fn default() -> Self {
        let zero = AtomicU64::default;
        let latency = (0..CLASSES).map(|_| zero()).collect();
        let first = Mutex::new(None);
        Self {
            packets: zero(),
            video: zero(),
            missing: zero(),
            repeated: zero(),
            latency,
            reached: zero(),
            waiting: true.into(),
            first,
        }
    }
}

impl Counts {
    pub fn reached(&self) -> u64 {
        self.reached.load(Relaxed)
    }

    /// When the first packet of all came.
    pub fn first(&self) -> Option<Instant> {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next packet is the first again.
    pub fn forget_first(&self) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.waiting.store(true, Relaxed);
    }

    pub fn seen(&self) -> Seen {
        Seen {
            packets: self.packets.load(Relaxed),
            video: self.video.load(Relaxed),
            missing: self.missing.load(Relaxed).cast_signed(),
            repeated: self.repeated.load(Relaxed),
            latency: self.latency.iter().map(|c| c.load(Relaxed)).collect(),
        }
    }

    fn arrived(&self, video: bool, latency: Duration) {
        self.packets.fetch_add(1, Relaxed);
        if self.waiting.swap(false, Relaxed) {
            let now = Instant::now();
            self.first
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(now);
        }
        if video {
            self.video.fetch_add(1, Relaxed);
        }
        let class = usize::try_from(latency.as_micros() / CLASS.as_micros())
            .unwrap_or(usize::MAX)
            .min(CLASSES - 1);
        if let Some(count) = self.latency.get(class) {
            count.fetch_add(1, Relaxed);
        }
    }
}

impl Seen {
    /// What came between `earlier` and this moment.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            video: self.video - earlier.video,
            missing: self.missing - earlier.missing,
            repeated: self.repeated - earlier.repeated,
            latency: self
                .latency
                .iter()
                .zip(&earlier.latency)
                .map(|(now, then)| now - then)
                .collect(),
        }
    }

    /// The latency in milliseconds that the given share of the packets did not exceed.
    pub fn latency_ms(&self, share: f64) -> f64 {
        let total: u64 = self.latency.iter().sum();
        let wanted = (total as f64 * share).ceil() as u64;
        let mut passed = 0;
        let class = self.latency.iter().position(|count| {
            passed += count;
            passed >= wanted
        });
        let classes = u32::try_from(class.unwrap_or(CLASSES))
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        (CLASS * classes).as_secs_f64() * 1e3
    }
}

/// One track at one subscriber: keeps the sequence.
pub(super) struct Track<'a> {
    counts: &'a Counts,
    video: bool,
    next: Option<u16>,
    /// Whether media came yet; padding is none.
    began: bool,
    /// The sequence number last seen in each place.
    seen: Box<[Option<u16>; REMEMBERED]>,
}

impl<'a> Track<'a> {
    pub(super) fn new(counts: &'a Counts, video: bool) -> Self {
        Self {
            counts,
            video,
            next: None,
            began: false,
            seen: Box::new([None; REMEMBERED]),
        }
    }

    /// A packet with RTP sequence number `sequence` came; `stamp` is none for padding, which keeps the sequence only.
    pub(super) fn packet(&mut self, sequence: u16, stamp: Option<(u32, Duration)>) {
        let place = self.seen.get_mut(usize::from(sequence) % REMEMBERED);
        if place.is_some_and(|place| place.replace(sequence) == Some(sequence)) {
            self.counts.repeated.fetch_add(1, Relaxed);
            return;
        }
        let ahead = sequence.wrapping_sub(self.next.unwrap_or(sequence));
        if ahead < 0x8000 {
            self.counts.missing.fetch_add(ahead.into(), Relaxed);
            self.next = Some(sequence.wrapping_add(1));
        } else {
            // It had been counted as missing.
            self.counts.missing.fetch_sub(1, Relaxed);
        }
        let Some((_, latency)) = stamp else { return };
        if !std::mem::replace(&mut self.began, true) && self.video {
            self.counts.reached.fetch_add(1, Relaxed);
        }
        self.counts.arrived(self.video, latency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_and_late_packets_close_them() {
        let counts = Counts::default();
        let mut track = Track::new(&counts, true);
        let ms = Duration::from_millis(1);
        for (sequence, number) in [(65_534, 0), (65_535, 1), (1, 3), (0, 2), (4, 6)] {
            track.packet(sequence, Some((number, ms)));
        }
        let seen = counts.seen();
        assert_eq!((seen.packets, seen.missing, seen.repeated), (5, 2, 0));
        track.packet(5, None);
        assert_eq!(counts.seen().since(&seen).packets, 0, "padding is not media");
        for (sequence, number) in [(4, 6), (0, 2), (65_534, 0)] {
            track.packet(sequence, Some((number, ms)));
        }
        let repeated = counts.seen().since(&seen);
        assert_eq!((repeated.packets, repeated.missing, repeated.repeated), (0, 0, 3));
        assert!(
            (0.99..=1.06).contains(&seen.latency_ms(0.5)),
            "{}",
            seen.latency_ms(0.5)
        );
        assert_eq!(counts.reached(), 1);
    }
}
