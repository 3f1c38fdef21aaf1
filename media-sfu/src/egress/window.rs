//! Which of the last numbers of a sequence were seen: nothing is taken, and nothing is sealed, twice.

/// How far back it reaches.
const REACH: u64 = 1024;

#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// One above the highest number seen; 0 when none was.
    next: u64,
    seen: [u64; (REACH / 64) as usize],
}

impl Default for Window {
    fn default() -> Window {
        Window {
            next: 0,
            seen: [0; (REACH / 64) as usize],
        }
    }
}

impl Window {
    /// True when the number is seen for the first time; a number too old to tell counts as seen.
    pub(crate) fn take(&mut self, number: u64) -> bool {
        if number >= self.next {
            // What lies between was not seen.
            for skipped in self.next.max(number.saturating_sub(REACH - 1))..number {
                self.set(skipped, false);
            }
            self.next = number + 1;
            self.set(number, true);
            return true;
        }
        if number + REACH < self.next || self.is_set(number) {
            return false;
        }
        self.set(number, true);
        true
    }

    fn is_set(&self, number: u64) -> bool {
        let word = self.seen.get((number / 64 % (REACH / 64)) as usize);
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn set(&mut self, number: u64, value: bool) {
        if let Some(word) = self.seen.get_mut((number / 64 % (REACH / 64)) as usize) {
            *word = *word & !(1 << (number % 64)) | u64::from(value) << (number % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn as_a_set_would(steps in proptest::collection::vec((any::<bool>(), 0u64..3000), 1..400), start in 0u64..1 << 40) {
            let mut window = Window::default();
            let (mut seen, mut highest, mut at) = (HashSet::new(), None::<u64>, start);
            for (forward, step) in steps {
                at = if forward { at + step % 1500 } else { at.saturating_sub(step) };
                let known = highest.is_none_or(|highest| at + REACH > highest);
                let fresh = known && seen.insert(at);
                prop_assert_eq!(window.take(at), fresh, "{} of {:?}", at, highest);
                highest = highest.max(Some(at));
            }
        }
    }
}
