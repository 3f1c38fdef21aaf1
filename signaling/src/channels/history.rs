//! A channel's stream: the ring of late publications, their offsets, and the epoch they belong to. Pure.

use super::protocol::Position;
use bytes::Bytes;
use medtech_kernel::clock::Millis;
use std::collections::VecDeque;

/// Bytes of publications in one answer; one publication is always shorter. A client that missed more is told that it was
/// not recovered and reads the present state instead.
const MAX_RECOVERED: usize = 512 * 1024;

pub(super) struct Stream {
    epoch: String,
    /// Offset of the newest publication; 0 before the first.
    offset: u64,
    ring: VecDeque<Entry>,
    bytes: usize,
    size: usize,
    ttl: Millis,
}

struct Entry {
    at: Millis,
    entry: Bytes,
}

impl Stream {
    /// `epoch` must never have been used for this channel before.
    pub(super) fn new(epoch: String, size: usize, ttl: Millis) -> Self {
        Self {
            epoch,
            offset: 0,
            ring: VecDeque::new(),
            bytes: 0,
            size,
            ttl,
        }
    }

    pub(super) fn position(&self) -> Position {
        Position {
            offset: self.offset,
            epoch: self.epoch.clone(),
        }
    }

    /// Bytes kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The offset of the next publication.
    pub(super) fn next_offset(&self) -> u64 {
        self.offset + 1
    }

    /// Appends the publication of [`Stream::next_offset`].
    pub(super) fn append(&mut self, now: Millis, entry: Bytes) {
        self.offset += 1;
        self.bytes += entry.len();
        self.ring.push_back(Entry { at: now, entry });
        while self.ring.len() > self.size {
            self.pop();
        }
        self.expire(now);
    }

    /// Drops what is older than the rule keeps.
    pub(super) fn expire(&mut self, now: Millis) {
        while self.ring.front().is_some_and(|e| now - e.at > self.ttl) {
            self.pop();
        }
    }

    /// Forgets the publications but not the offset: recovery over them will truthfully fail.
    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.bytes = 0;
    }

    fn pop(&mut self) {
        if let Some(old) = self.ring.pop_front() {
            self.bytes -= old.entry.len();
        }
    }

    fn first_offset(&self) -> u64 {
        self.offset + 1 - self.ring.len() as u64
    }

    /// Everything after `from`, or `None` when any of it is no longer here.
    pub(super) fn since(&mut self, from: &Position, now: Millis) -> Option<impl Iterator<Item = &Bytes> + Clone> {
        self.expire(now);
        if from.epoch != self.epoch || from.offset > self.offset || from.offset + 1 < self.first_offset() {
            return None;
        }
        let skip = usize::try_from(from.offset + 1 - self.first_offset()).ok()?;
        Some(self.ring.iter().skip(skip).map(|e| &e.entry))
    }

    /// As [`Stream::since`], but also `None` when it is too much to send at once.
    pub(super) fn recover(&mut self, from: &Position, now: Millis) -> Option<impl Iterator<Item = &Bytes> + Clone> {
        let missed = self.since(from, now)?;
        let bytes: usize = missed.clone().map(Bytes::len).sum();
        (bytes <= MAX_RECOVERED).then_some(missed)
    }

    /// Publications before `from` (all, when absent), newest first.
    pub(super) fn backwards(&mut self, from: Option<&Position>, now: Millis) -> Option<impl Iterator<Item = &Bytes>> {
        self.expire(now);
        let newer = match from {
            None => 0,
            Some(from) if from.epoch != self.epoch => return None,
            Some(from) => usize::try_from((self.offset + 1).saturating_sub(from.offset)).ok()?,
        };
        Some(self.ring.iter().rev().skip(newer).map(|e| &e.entry))
    }

    /// All that is kept, oldest first.
    pub(super) fn forwards(&mut self, now: Millis) -> impl Iterator<Item = &Bytes> {
        self.expire(now);
        self.ring.iter().map(|e| &e.entry)
    }
}

/// The first of `entries`, at most `limit` and no more than fits one answer: whoever wants the rest asks on from there.
pub(super) fn page<'a>(entries: impl Iterator<Item = &'a Bytes>, limit: usize) -> impl Iterator<Item = &'a Bytes> {
    let mut bytes = 0;
    entries.take(limit).take_while(move |entry| {
        bytes += entry.len();
        bytes <= MAX_RECOVERED
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(offset: u64) -> Position {
        Position {
            offset,
            epoch: "e".into(),
        }
    }

    fn stream(size: usize, ttl: Millis, times: &[Millis]) -> Stream {
        let mut stream = Stream::new("e".into(), size, ttl);
        for now in times {
            let entry = stream.next_offset().to_string().into();
            stream.append(*now, entry);
        }
        stream
    }

    fn recovered(stream: &mut Stream, from: &Position, now: Millis) -> Option<Vec<u64>> {
        Some(
            stream
                .recover(from, now)?
                .map(|e| std::str::from_utf8(e).unwrap().parse().unwrap())
                .collect(),
        )
    }

    #[test]
    fn recovery_is_exact_or_refused() {
        let mut s = stream(3, 1000, &[0, 1, 2, 3, 4]);
        assert_eq!(recovered(&mut s, &at(5), 4), Some(vec![]));
        assert_eq!(recovered(&mut s, &at(2), 4), Some(vec![3, 4, 5]));
        assert_eq!(recovered(&mut s, &at(1), 4), None, "2 fell out of the ring");
        assert_eq!(recovered(&mut s, &at(6), 4), None, "an offset that was never given");
        assert_eq!(
            recovered(
                &mut s,
                &Position {
                    offset: 4,
                    epoch: "f".into()
                },
                4
            ),
            None
        );
        assert_eq!(recovered(&mut s, &at(2), 1003), None, "3 is too old");
        assert_eq!(recovered(&mut s, &at(3), 1003), Some(vec![4, 5]));
    }

    #[test]
    fn more_than_fits_one_answer_is_refused() {
        let mut s = Stream::new("e".into(), 10, 1000);
        s.append(0, vec![b'x'; MAX_RECOVERED].into());
        assert!(s.recover(&at(0), 0).is_some());
        s.append(0, vec![b'x'; 1].into());
        assert!(s.recover(&at(0), 0).is_none());
        assert!(s.recover(&at(1), 0).is_some());
        assert_eq!(page(s.forwards(0), 10).count(), 1);
        s.append(0, vec![b'x'; 1].into());
        assert_eq!(page(s.backwards(None, 0).unwrap(), 10).count(), 2);
        assert_eq!(page(s.backwards(None, 0).unwrap(), 1).count(), 1);
    }

    proptest! {
        #[test]
        fn whatever_is_answered_has_no_gap(
            size in 1_usize..6, ttl in 0_i64..50, gaps in prop::collection::vec(0_i64..20, 0..20), from in 0_u64..25, later in 0_i64..60,
        ) {
            let times: Vec<i64> = gaps.iter().scan(0, |t, g| { *t += g; Some(*t) }).collect();
            let now = times.last().copied().unwrap_or(0) + later;
            let mut s = stream(size, ttl, &times);
            let top = times.len() as u64;
            if let Some(got) = recovered(&mut s, &at(from), now) {
                prop_assert_eq!(got, (from + 1..=top).collect::<Vec<_>>());
            } else {
                // Refused only when something really is missing.
                let missing = (from + 1..=top).any(|o| o + (size as u64) <= top || now - times[usize::try_from(o).unwrap() - 1] > ttl);
                prop_assert!(from > top || missing);
            }
        }
    }
}
