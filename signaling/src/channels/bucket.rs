//! How many commands a client may send.

use super::hub::Options;
use medtech_kernel::clock::Millis;

/// A token bucket of commands.
pub(super) struct Bucket {
    tokens: u32,
    at: Millis,
    /// Refusals since the client last kept to the pace.
    pub(super) refused: u32,
}

impl Bucket {
    pub(super) fn new(options: &Options, now: Millis) -> Self {
        Self {
            tokens: options.burst,
            at: now,
            refused: 0,
        }
    }

    /// May another command pass?
    pub(super) fn take(&mut self, options: &Options, now: Millis) -> bool {
        let earned = (now - self.at).max(0) * i64::from(options.commands_per_second) / 1000;
        if earned > 0 {
            self.tokens = u32::try_from(earned)
                .unwrap_or(u32::MAX)
                .saturating_add(self.tokens)
                .min(options.burst);
            self.at = now;
        }
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        // Patience is renewed by anyone who slows down to the pace for a while.
        if self.tokens > options.burst / 2 {
            self.refused = 0;
        }
        true
    }
}
