//! The last packets of a stream, for a receiver that says that they did not come. Payloads are the publisher's own, shared
//! by all who got them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::munger::Rewrite;
use crate::packet::MediaPacket;

/// How many are remembered: more than two seconds of a large picture.
const PACKETS: u64 = 512;
/// What is older comes too late for any receiver.
const OLDEST: Duration = Duration::from_secs(3);
/// A receiver that goes on asking for a packet that it got another way is not answered for ever.
const RESENDS: u8 = 3;
/// Not sooner again than this, or a round trip.
const SOONEST: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub packet: Arc<MediaPacket>,
    pub rewrite: Rewrite,
    resends: u8,
    resent: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct History {
    ring: Vec<Option<Kept>>,
    highest: u64,
}

impl History {
    pub(crate) fn keep(&mut self, packet: Arc<MediaPacket>, rewrite: Rewrite) {
        if self.ring.is_empty() {
            self.ring.resize(PACKETS as usize, None);
        }
        self.highest = self.highest.max(rewrite.seq);
        if let Some(place) = self.ring.get_mut((rewrite.seq % PACKETS) as usize) {
            *place = Some(Kept {
                packet,
                rewrite,
                resends: 0,
                resent: None,
            });
        }
    }

    /// The packet that a receiver misses, if it may be sent (again) now.
    pub(crate) fn missing(&mut self, sequence: u16, now: Instant, round_trip: Duration) -> Option<&Kept> {
        // Truncation is meant: the number on the wire is the end of the whole one.
        let behind = (self.highest as u16).wrapping_sub(sequence);
        let whole = self.highest.checked_sub(behind.into())?;
        let kept = self.ring.get_mut((whole % PACKETS) as usize)?.as_mut()?;
        let old = now.saturating_duration_since(kept.packet.at) > OLDEST;
        let gap = round_trip.max(SOONEST);
        let soon = kept.resent.is_some_and(|at| now.saturating_duration_since(at) < gap);
        if kept.rewrite.seq != whole || kept.resends >= RESENDS || old || soon {
            return None;
        }
        kept.resends += 1;
        kept.resent = Some(now);
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(seq: u64) -> Rewrite {
        Rewrite {
            seq,
            timestamp: 0,
            vp8: None,
        }
    }

    #[test]
    fn what_was_sent_lately_is_found_over_the_wrap() {
        let now = Instant::now();
        let packet = Arc::new(MediaPacket::for_tests(now));
        let mut history = History::default();
        assert!(history.missing(5, now, SOONEST).is_none());
        for seq in 65_000..=66_000 {
            history.keep(packet.clone(), rewrite(seq));
        }
        let found = |history: &mut History, seq: u64| {
            let kept = history.missing(seq as u16, now, SOONEST);
            kept.map(|kept| kept.rewrite.seq)
        };
        assert_eq!(found(&mut history, 66_000), Some(66_000));
        assert_eq!(found(&mut history, 65_536), Some(65_536));
        assert_eq!(found(&mut history, 65_489), Some(65_489));
        assert_eq!(found(&mut history, 65_488), None, "too far back");
        assert_eq!(found(&mut history, 66_001), None, "never sent");
    }

    #[test]
    fn resends_are_counted_and_spaced() {
        let start = Instant::now();
        let mut history = History::default();
        history.keep(Arc::new(MediaPacket::for_tests(start)), rewrite(7));
        let ms = Duration::from_millis;
        let mut ask = |at: u64| history.missing(7, start + ms(at), ms(40)).is_some();
        assert!(ask(0) && !ask(39) && ask(40) && !ask(79) && ask(80));
        assert!(!ask(200), "three times at most");
        history.keep(Arc::new(MediaPacket::for_tests(start)), rewrite(8));
        assert!(history.missing(8, start + OLDEST + ms(1), ms(40)).is_none(), "too old");
    }
}
