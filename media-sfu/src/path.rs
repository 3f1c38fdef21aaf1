//! What is known of the path to a subscriber, and whether it is bad enough to withhold a picture.
//!
//! The estimate alone is no proof of a narrow path: probes that a busy machine sent late, or a receiver that read them in
//! clumps, measure the machine. So pictures are made smaller by the estimate, but the last one is taken away only while
//! receiver reports show loss or growing delay; and when taken away, it is tried again after a while, because a path on
//! which hardly anything is sent cannot be measured well.

use std::time::{Duration, Instant};

/// Loss and delay reported this long ago still count.
const STRAIN_LASTS: Duration = Duration::from_secs(3);
/// Fraction of packets lost from which on a path counts as strained. Congestion control reacts to less.
const LOSS: f32 = 0.05;
/// A round trip this much above the least one seen says that queues are filling.
const DELAY: Duration = Duration::from_millis(150);
/// The first wait before a picture is tried again; it doubles with each failure.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A picture that held this long has shown that the path is good again.
const PROVEN: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Path {
    /// Bits a second that it carries, if known.
    pub estimate: Option<u64>,
    least_rtt: Option<Duration>,
    strained: Option<Instant>,
    withheld: Option<Instant>,
    resumed: Option<Instant>,
    failures: u32,
}

impl Path {
    /// A receiver report: the fraction of packets lost, and the round trip.
    pub(crate) fn reported(&mut self, now: Instant, loss: Option<f32>, rtt: Option<Duration>) {
        let mut strained = loss.is_some_and(|loss| loss >= LOSS);
        if let Some(rtt) = rtt {
            let least = self.least_rtt.map_or(rtt, |least| least.min(rtt));
            self.least_rtt = Some(least);
            strained |= rtt > least + DELAY;
        }
        if strained {
            self.strained = Some(now);
        }
    }

    pub(crate) fn is_strained(&self, now: Instant) -> bool {
        self.strained
            .is_some_and(|at| now.saturating_duration_since(at) < STRAIN_LASTS)
    }

    /// Whether a picture that is withheld shall be tried again, whatever the estimate says.
    pub(crate) fn try_again(&self, now: Instant) -> bool {
        let wait = FIRST_WAIT
            .saturating_mul(1 << self.failures.saturating_sub(1).min(8))
            .min(LONGEST_WAIT);
        self.withheld
            .is_some_and(|since| now.saturating_duration_since(since) >= wait)
    }

    pub(crate) fn is_withholding(&self) -> bool {
        self.withheld.is_some()
    }

    /// Whether any picture is withheld from now on.
    pub(crate) fn withholds(&mut self, now: Instant, any: bool) {
        match (self.withheld, any) {
            (None, true) => {
                let proven = self
                    .resumed
                    .is_none_or(|at| now.saturating_duration_since(at) >= PROVEN);
                self.failures = if proven { 1 } else { self.failures + 1 };
                self.withheld = Some(now);
            }
            (Some(_), false) => {
                self.withheld = None;
                self.resumed = Some(now);
                // What was reported of the time before says nothing about this attempt.
                self.strained = None;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn loss_and_growing_delay_strain_and_it_passes() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut path = Path::default();
        path.reported(start, Some(0.04), Some(ms(40)));
        path.reported(start, Some(0.0), Some(ms(189)));
        assert!(!path.is_strained(start));
        path.reported(start, None, Some(ms(191)));
        assert!(path.is_strained(start + 2 * SECOND));
        assert!(!path.is_strained(start + 3 * SECOND));
        path.reported(start + 4 * SECOND, Some(0.05), None);
        assert!(path.is_strained(start + 4 * SECOND));
    }

    #[test]
    fn attempts_become_rarer_until_one_holds() {
        let start = Instant::now();
        let mut path = Path::default();
        assert!(!path.try_again(start));
        let mut at = start;
        for wait in [5, 10, 20, 40, 60, 60] {
            path.withholds(at, true);
            assert!(!path.try_again(at + (wait - 1) * SECOND), "{wait}");
            at += wait * SECOND;
            assert!(path.try_again(at), "{wait}");
            path.withholds(at, false);
            at += 2 * SECOND;
        }
        path.withholds(at + PROVEN, true);
        assert!(path.try_again(at + PROVEN + 5 * SECOND));
    }
}
