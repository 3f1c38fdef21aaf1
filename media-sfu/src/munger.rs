//! Rewriting of sequence numbers, timestamps and VP8 picture ids, so that a subscriber sees one unbroken stream while
//! the source behind it changes (another layer, a pause).
//!
//! Inside one source the mapping is a constant offset, so that reordered packets come out in the same relation. A
//! change of source sets new offsets.

use std::time::{Duration, Instant};

/// The last things sent.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    /// Highest sequence number sent, extended; 0 when nothing was sent yet.
    seq: u64,
    timestamp: u32,
    at: Option<Instant>,
    picture_id: u16,
    tl0: u8,
}

/// What a packet becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rewrite {
    pub seq: u64,
    pub timestamp: u32,
    pub vp8: Option<Vp8Ids>,
}

/// The two running numbers of a VP8 payload descriptor (RFC 7741): picture id (15 bits) and TL0PICIDX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vp8Ids {
    pub picture_id: u16,
    pub tl0: Option<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Offsets {
    /// First sequence number taken from this source; older ones belong to the time before the switch.
    base: u64,
    /// Added (wrapping) to the source's numbers.
    seq: u64,
    timestamp: u32,
    picture_id: u16,
    tl0: u8,
}

const PICTURE_ID_MASK: u16 = 0x7fff;

#[derive(Debug, Clone)]
pub(crate) struct Munger {
    clock_rate: u32,
    sent: Sent,
    source: Option<Offsets>,
}

impl Munger {
    pub(crate) fn new(clock_rate: u32) -> Munger {
        Munger {
            clock_rate,
            sent: Sent::default(),
            source: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn number_from(&mut self, seq: u64) {
        self.sent.seq = seq;
    }

    /// Continue with another source, beginning with this packet.
    pub(crate) fn switch(&mut self, seq: u64, timestamp: u32, vp8: Option<Vp8Ids>, now: Instant) {
        let sent = self.sent;
        // A receiver derives time from timestamps: they advance by the wall clock that passed, at least by one tick.
        let next_timestamp = match sent.at {
            Some(at) => sent
                .timestamp
                .wrapping_add(ticks(now.saturating_duration_since(at), self.clock_rate).max(1)),
            None => timestamp,
        };
        self.source = Some(Offsets {
            base: seq,
            seq: (sent.seq + 1).wrapping_sub(seq),
            timestamp: next_timestamp.wrapping_sub(timestamp),
            picture_id: vp8.map_or(0, |v| {
                (sent.picture_id + 1).wrapping_sub(v.picture_id) & PICTURE_ID_MASK
            }),
            tl0: vp8
                .and_then(|v| v.tl0)
                .map_or(0, |tl0| sent.tl0.wrapping_add(1).wrapping_sub(tl0)),
        });
    }

    /// Forget the source; the next packet must come with a [`Munger::switch`].
    pub(crate) fn stop(&mut self) {
        self.source = None;
    }

    /// `None` for packets from before the switch, or when there is no source.
    pub(crate) fn map(&mut self, seq: u64, timestamp: u32, vp8: Option<Vp8Ids>, now: Instant) -> Option<Rewrite> {
        let source = self.source.filter(|s| seq >= s.base)?;
        let out = Rewrite {
            seq: seq.wrapping_add(source.seq),
            timestamp: timestamp.wrapping_add(source.timestamp),
            vp8: vp8.map(|v| Vp8Ids {
                picture_id: v.picture_id.wrapping_add(source.picture_id) & PICTURE_ID_MASK,
                tl0: v.tl0.map(|tl0| tl0.wrapping_add(source.tl0)),
            }),
        };
        if out.seq > self.sent.seq {
            self.sent.seq = out.seq;
            self.sent.timestamp = out.timestamp;
            self.sent.at = Some(now);
            if let Some(vp8) = out.vp8 {
                self.sent.picture_id = vp8.picture_id;
                self.sent.tl0 = vp8.tl0.unwrap_or(self.sent.tl0);
            }
        }
        Some(out)
    }
}

fn ticks(elapsed: Duration, clock_rate: u32) -> u32 {
    // Truncation is meant: RTP time is modulo 2^32.
    (elapsed.as_micros().saturating_mul(u128::from(clock_rate)) / 1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(picture_id: u16, tl0: u8) -> Option<Vp8Ids> {
        Some(Vp8Ids {
            picture_id: picture_id & PICTURE_ID_MASK,
            tl0: Some(tl0),
        })
    }

    proptest! {
        /// However often the source changes, the subscriber sees sequence numbers without a gap, picture ids that
        /// advance by one for each picture, and timestamps that never go back.
        #[test]
        fn switches_leave_no_gap(
            sources in proptest::collection::vec((0u64..1 << 40, any::<u32>(), any::<u16>(), any::<u8>(), 1usize..20), 1..12)
        ) {
            let mut now = Instant::now();
            let mut munger = Munger::new(90_000);
            let mut last: Option<Rewrite> = None;
            for (seq, timestamp, picture, tl0, packets) in sources {
                for i in 0..packets {
                    now += Duration::from_millis(33);
                    let (s, t) = (seq + i as u64, timestamp.wrapping_add(2970 * i as u32));
                    let vp8 = ids(picture.wrapping_add(i as u16), tl0.wrapping_add(i as u8));
                    if i == 0 {
                        munger.switch(s, t, vp8, now);
                    }
                    let out = munger.map(s, t, vp8, now).expect("inside the source");
                    match last {
                        // The first number is small: the roll-over counter of SRTP starts at zero at the receiver.
                        None => prop_assert_eq!(out.seq, 1),
                        Some(before) => {
                            prop_assert_eq!(out.seq, before.seq + 1);
                            let step = out.timestamp.wrapping_sub(before.timestamp);
                            prop_assert!((1..=3000).contains(&step), "step {}", step);
                            let (a, b) = (before.vp8.unwrap(), out.vp8.unwrap());
                            prop_assert_eq!(b.picture_id, (a.picture_id + 1) & PICTURE_ID_MASK);
                            prop_assert_eq!(b.tl0.unwrap(), a.tl0.unwrap().wrapping_add(1));
                        }
                    }
                    last = Some(out);
                }
            }
        }

        /// Reordering and loss inside a source are passed on exactly, and nothing from before the switch gets through.
        #[test]
        fn order_inside_a_source_is_kept(base in 100u64..1 << 40, order in Just((0u64..50).collect::<Vec<_>>()).prop_shuffle()) {
            let now = Instant::now();
            let mut munger = Munger::new(48_000);
            munger.switch(base, 0, None, now);
            for i in order {
                let out = munger.map(base + i, 960 * i as u32, None, now).expect("inside the source");
                prop_assert_eq!(out.seq, 1 + i);
            }
            prop_assert!(munger.map(base - 1, 0, None, now).is_none());
        }
    }

    #[test]
    fn a_stopped_munger_forwards_nothing() {
        let now = Instant::now();
        let mut munger = Munger::new(90_000);
        assert!(munger.map(5, 5, None, now).is_none());
        munger.switch(5, 5, None, now);
        assert!(munger.map(5, 5, None, now).is_some());
        munger.stop();
        assert!(munger.map(6, 6, None, now).is_none());
    }
}
