//! How a file lies on the disk: chunks of 64 KiB, each sealed by the file's own key for its place, so that a part can be
//! read without the rest. A chunk that was changed, moved, or is not the last where the last should be, does not open.

use super::objects::Bits;
use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt, stream::BoxStream};
use medtech_kernel::{
    Error, Result,
    vault::{Key, OVERHEAD, aad},
};
use std::{ops::Range, sync::Arc};
use uuid::Uuid;

/// Bytes of a chunk before it is sealed.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Bytes of a file, as they come.
pub(crate) type Plain = BoxStream<'static, Result<Bytes>>;

/// Seals and opens the chunks of one file, whose length is known from the start.
#[derive(Clone)]
pub(crate) struct Sealer {
    pub(crate) key: Arc<Key>,
    pub(crate) id: Uuid,
    pub(crate) size: u64,
}

impl Sealer {
    /// How many chunks the whole has; an empty file has an empty one, so that nothing is told from nothing.
    pub(crate) fn chunks(&self) -> u64 {
        self.size.div_ceil(CHUNK as u64).max(1)
    }

    /// Bytes of the whole on the disk.
    pub(crate) fn sealed_size(&self) -> u64 {
        self.size + self.chunks() * OVERHEAD as u64
    }

    /// Bytes of a chunk before it is sealed.
    pub(crate) fn length(&self, index: u64) -> usize {
        let left = self.size.saturating_sub(index.saturating_mul(CHUNK as u64));
        usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)
    }

    fn place(&self, index: u64) -> Vec<u8> {
        let last = [u8::from(index + 1 == self.chunks())];
        aad(&[b"medtech file chunk 1", self.id.as_bytes(), &index.to_be_bytes(), &last])
    }

    pub(crate) fn seal(&self, index: u64, plain: &[u8]) -> Result<Vec<u8>> {
        self.key.seal(&self.place(index), plain)
    }

    pub(crate) fn open(&self, index: u64, sealed: &[u8]) -> Result<Vec<u8>> {
        self.key.open(&self.place(index), sealed)
    }

    /// Where the chunks that hold `range` lie on the disk.
    pub(crate) fn on_disk(&self, range: &Range<u64>) -> Range<u64> {
        let (first, last) = covering(range);
        let start = first * record();
        start..((last + 1) * record()).min(self.sealed_size())
    }

    /// Opens what was read from [`Sealer::on_disk`], one chunk in memory at a time.
    pub(crate) fn read(self, bits: Bits, range: Range<u64>) -> Plain {
        let (first, last) = covering(&range);
        let start = (self, bits, BytesMut::with_capacity(CHUNK + OVERHEAD), first);
        let next = move |(sealer, mut bits, mut held, index): (Self, Bits, BytesMut, u64)| {
            let range = range.clone();
            async move {
                if index > last {
                    return Ok(None);
                }
                let whole = sealer.length(index) + OVERHEAD;
                while held.len() < whole {
                    match bits.try_next().await.map_err(|e| Error::internal("file.read", e))? {
                        Some(bytes) => held.extend_from_slice(&bytes),
                        None => return Err(Error::internal("file.truncated", "a chunk is missing")),
                    }
                }
                let plain = Bytes::from(sealer.open(index, &held.split_to(whole))?);
                let at = index * CHUNK as u64;
                let cut = |place: u64| {
                    usize::try_from(place.saturating_sub(at))
                        .unwrap_or(usize::MAX)
                        .min(plain.len())
                };
                let part = plain.slice(cut(range.start)..cut(range.end));
                Ok(Some((part, (sealer, bits, held, index + 1))))
            }
        };
        Box::pin(futures_util::stream::try_unfold(start, next))
    }
}

fn record() -> u64 {
    (CHUNK + OVERHEAD) as u64
}

/// First and last chunk of a range; of an empty one, the chunk it stands in.
fn covering(range: &Range<u64>) -> (u64, u64) {
    let chunk = CHUNK as u64;
    (
        range.start / chunk,
        range.end.saturating_sub(1).max(range.start) / chunk,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealer(size: usize) -> Sealer {
        Sealer {
            key: Arc::new(Key::new(&[3; 32]).unwrap()),
            id: Uuid::from_u128(7),
            size: size as u64,
        }
    }

    fn write(s: &Sealer, plain: &[u8]) -> Vec<u8> {
        let mut disk = Vec::new();
        let mut rest = plain;
        for index in 0..s.chunks() {
            let (now, later) = rest.split_at(s.length(index));
            disk.extend(s.seal(index, now).unwrap());
            rest = later;
        }
        assert_eq!((rest.len(), disk.len() as u64), (0, s.sealed_size()));
        disk
    }

    fn read(s: &Sealer, disk: &[u8], range: Range<u64>, piece: usize) -> Result<Vec<u8>> {
        let place = s.on_disk(&range);
        let end = usize::try_from(place.end).unwrap().min(disk.len());
        let part = disk[usize::try_from(place.start).unwrap().min(end)..end].to_vec();
        let pieces: Vec<_> = part.chunks(piece).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        let bits: Bits = Box::pin(futures_util::stream::iter(pieces));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found: Vec<Bytes> = runtime.block_on(s.clone().read(bits, range).try_collect())?;
        Ok(found.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_part_reads_as_it_was_written(size in 0_usize..300_000, a in 0_usize..300_000, b in 0_usize..300_000, piece in 1_usize..100_000) {
            let plain: Vec<u8> = (0..size).map(|n| (n * 31 % 251) as u8).collect();
            let s = sealer(size);
            let disk = write(&s, &plain);
            let (from, to) = (a.min(b).min(size), a.max(b).min(size));
            prop_assert_eq!(read(&s, &disk, from as u64..to as u64, piece).unwrap(), &plain[from..to]);
        }
    }

    #[test]
    fn what_was_changed_moved_or_cut_is_refused() {
        for size in [0, 10, CHUNK, 3 * CHUNK, 3 * CHUNK + 5] {
            let s = sealer(size);
            let plain = vec![9; size];
            let disk = write(&s, &plain);
            let all = 0..size as u64;
            assert_eq!(read(&s, &disk, all.clone(), 5000).unwrap(), plain);
            for at in [0, disk.len() / 2, disk.len() - 1] {
                let mut changed = disk.clone();
                changed[at] ^= 0x80;
                assert!(read(&s, &changed, all.clone(), 5000).is_err(), "{size} {at}");
            }
            assert!(read(&s, &disk[..disk.len() - 1], all.clone(), 5000).is_err());
            // A shorter file whose row was shortened with it.
            if size > CHUNK {
                let short = sealer(CHUNK);
                assert!(read(&short, &disk, 0..CHUNK as u64, 5000).is_err());
                let record = CHUNK + OVERHEAD;
                let mut swapped = disk.clone();
                let (one, two) = swapped.split_at_mut(record);
                one.swap_with_slice(&mut two[..record]);
                assert!(read(&s, &swapped, all.clone(), 5000).is_err());
            }
            let other = Sealer {
                id: Uuid::from_u128(8),
                ..s
            };
            assert!(read(&other, &disk, all, 5000).is_err());
        }
    }
}
