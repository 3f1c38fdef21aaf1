//! The file beside a database (`<db>-seal`) that says which version of each page is the present one. Pure: bytes in and out.
//!
//! ```text
//! record:  "mtseal1" kind 1 | epoch 4 | generation 8 | outside 8 | log 8 | before 8 | pages 4 | count 4
//!          count × (page number 4 | tag 16) | mac 32
//! ```
//! The first record names every page, each later one those that changed, and is appended. The mac (HMAC-SHA256 under a key
//! derived from the page key) runs over the mac before it and the record: none can be changed, left out or exchanged; only
//! cutting the end is possible, and gives an older generation. A record torn by a power cut does not check and does not count.

use crate::{Refusal, keys::Ring};
use aws_lc_rs::hmac;

/// The tag of a sealed page: it differs for each sealing.
pub(crate) type Tag = [u8; 16];
/// The salts in a log's header, which name one life of the log. Zeros: none.
pub(crate) type Salts = [u8; 8];
type Mac = [u8; 32];

pub(crate) const NO_LOG: Salts = [0; 8];
const MAGIC: &[u8; 7] = b"mtseal1";
const HEAD: usize = 52;
const ENTRY: usize = 20;

/// What the records of a seal say when they are read to their end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) epoch: u32,
    /// Grows by one with each record.
    pub(crate) generation: u64,
    /// A number of the world outside that was known when the record was written.
    pub(crate) outside: u64,
    /// The log that may lie beside the database, and the one that may still lie there if that one was not begun.
    pub(crate) log: Salts,
    pub(crate) before: Salts,
    /// Pages of the file.
    pub(crate) pages: u32,
    /// Of page 1, 2, ...
    pub(crate) tags: Vec<Tag>,
    /// Bytes of the records that check; of these, the first record.
    pub(crate) length: u64,
    pub(crate) base: u64,
    mac: Mac,
}

/// What a new record says, beside the pages.
#[derive(Clone, Copy)]
pub(crate) struct News {
    pub(crate) outside: u64,
    pub(crate) log: Salts,
    pub(crate) before: Salts,
}

impl Seal {
    /// The first record of a file, for pages with these tags; the state after it, without the tags.
    pub(crate) fn first(ring: &Ring, generation: u64, tags: &[Tag], news: News) -> Result<(Self, Vec<u8>), Refusal> {
        let before = Self {
            generation: generation.saturating_sub(1),
            ..Self::default()
        };
        before.anew(tags, news, ring)
    }

    /// A record that names every page, to begin the file anew with, in the ring's epoch.
    pub(crate) fn anew(&self, tags: &[Tag], news: News, ring: &Ring) -> Result<(Self, Vec<u8>), Refusal> {
        let mut seal = Self {
            epoch: ring.epoch(),
            generation: self.generation,
            ..Self::default()
        };
        let pages = u32::try_from(tags.len()).map_err(|_| Refusal::Malformed)?;
        let bytes = seal.record(b'B', (1..).zip(tags.iter().copied()), pages, news, ring)?;
        seal.base = bytes.len() as u64;
        seal.length = seal.base;
        Ok((seal, bytes))
    }

    /// The next record, naming `changed` pages, to be written at `self.length`; the state after it, without the tags.
    pub(crate) fn next(
        &self,
        changed: impl Iterator<Item = (u32, Tag)>,
        pages: u32,
        news: News,
        ring: &Ring,
    ) -> Result<(Self, Vec<u8>), Refusal> {
        let mut seal = Self {
            tags: Vec::new(),
            ..*self
        };
        let bytes = seal.record(b'S', changed, pages, news, ring)?;
        seal.length = self.length + bytes.len() as u64;
        Ok((seal, bytes))
    }

    fn record(
        &mut self,
        kind: u8,
        changed: impl Iterator<Item = (u32, Tag)>,
        pages: u32,
        news: News,
        ring: &Ring,
    ) -> Result<Vec<u8>, Refusal> {
        self.generation = self.generation.saturating_add(1);
        (self.outside, self.log, self.before) = (news.outside, news.log, news.before);
        self.pages = pages;
        let mut bytes = Vec::with_capacity(HEAD);
        bytes.extend_from_slice(MAGIC);
        bytes.push(kind);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.outside.to_be_bytes());
        bytes.extend_from_slice(&self.log);
        bytes.extend_from_slice(&self.before);
        bytes.extend_from_slice(&pages.to_be_bytes());
        let count_at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        let mut count = 0_u32;
        for (number, tag) in changed {
            bytes.extend_from_slice(&number.to_be_bytes());
            bytes.extend_from_slice(&tag);
            count += 1;
        }
        if let Some(at) = bytes.get_mut(count_at..HEAD) {
            at.copy_from_slice(&count.to_be_bytes());
        }
        self.mac = mac(ring, self.epoch, &self.mac, &bytes)?;
        bytes.extend_from_slice(&self.mac);
        Ok(bytes)
    }

    /// Reads the records of a file. What does not check ends them; that there is none is refused.
    pub(crate) fn read(ring: &Ring, bytes: &[u8]) -> Result<Self, Refusal> {
        let mut seal = Self::default();
        let mut tags = Vec::new();
        seal.follow(ring, bytes, |number, tag| put(&mut tags, number, tag))?;
        if seal.length == 0 {
            return Err(Refusal::NotAuthentic);
        }
        tags.resize(seal.pages as usize, Tag::default());
        seal.tags = tags;
        Ok(seal)
    }

    /// Goes on with records that were written behind `self.length`; `changed` gets each page they name. The tags in `self`
    /// stay as they are.
    pub(crate) fn follow(
        &mut self,
        ring: &Ring,
        bytes: &[u8],
        mut changed: impl FnMut(u32, Tag),
    ) -> Result<(), Refusal> {
        let mut rest = bytes;
        while let Some(record) = Record::split(&mut rest) {
            let first = self.length == 0;
            let fits = if first {
                record.kind == b'B'
            } else {
                record.kind == b'S'
                    && record.epoch == self.epoch
                    && Some(record.generation) == self.generation.checked_add(1)
            };
            if !fits {
                break;
            }
            let made = mac(ring, record.epoch, &self.mac, record.bytes)?;
            if aws_lc_rs::constant_time::verify_slices_are_equal(&made, record.mac).is_err() {
                break;
            }
            self.epoch = record.epoch;
            self.generation = record.generation;
            self.outside = record.outside;
            (self.log, self.before) = (record.log, record.before);
            self.mac = made;
            self.pages = record.pages;
            self.length += (record.bytes.len() + record.mac.len()) as u64;
            if first {
                self.base = self.length;
            }
            for entry in record.entries.chunks_exact(ENTRY) {
                if let Some((number, tag)) = entry.split_first_chunk::<4>()
                    && let Ok(tag) = Tag::try_from(tag)
                    && (1..=record.pages).contains(&u32::from_be_bytes(*number))
                {
                    changed(u32::from_be_bytes(*number), tag);
                }
            }
        }
        Ok(())
    }
}

/// Sets the tag of a page; pages before it that have none yet get an impossible one.
pub(crate) fn put(tags: &mut Vec<Tag>, number: u32, tag: Tag) {
    let Some(at) = usize::try_from(number).ok().and_then(|n| n.checked_sub(1)) else {
        return;
    };
    if tags.len() <= at {
        tags.resize(at + 1, Tag::default());
    }
    if let Some(place) = tags.get_mut(at) {
        *place = tag;
    }
}

struct Record<'a> {
    kind: u8,
    epoch: u32,
    generation: u64,
    outside: u64,
    log: Salts,
    before: Salts,
    pages: u32,
    entries: &'a [u8],
    /// All but the mac.
    bytes: &'a [u8],
    mac: &'a [u8],
}

impl<'a> Record<'a> {
    /// The next record, where one is there whole.
    fn split(rest: &mut &'a [u8]) -> Option<Self> {
        let all = *rest;
        let mut head = all.get(..HEAD)?.strip_prefix(MAGIC)?;
        let [kind] = take(&mut head)?;
        let epoch = u32::from_be_bytes(take(&mut head)?);
        let generation = u64::from_be_bytes(take(&mut head)?);
        let outside = u64::from_be_bytes(take(&mut head)?);
        let (log, before) = (take(&mut head)?, take(&mut head)?);
        let pages = u32::from_be_bytes(take(&mut head)?);
        let count = u32::from_be_bytes(take(&mut head)?);
        let end = (count as usize).checked_mul(ENTRY)?.checked_add(HEAD)?;
        let entries = all.get(HEAD..end)?;
        let (bytes, after) = all.split_at(end);
        let (mac, after) = after.split_at_checked(size_of::<Mac>())?;
        // A base names every page, so what is not authenticated yet cannot make us reserve more than the file holds.
        if kind == b'B' && pages != count {
            return None;
        }
        *rest = after;
        Some(Self {
            kind,
            epoch,
            generation,
            outside,
            log,
            before,
            pages,
            entries,
            bytes,
            mac,
        })
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*first)
}

fn mac(ring: &Ring, epoch: u32, before: &Mac, bytes: &[u8]) -> Result<Mac, Refusal> {
    let key = ring.key(epoch)?;
    let mut context = hmac::Context::with_key(&key.seal);
    context.update(before);
    context.update(bytes);
    Mac::try_from(context.sign().as_ref()).map_err(|_| Refusal::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NEWS: News = News {
        outside: 5,
        log: [1; 8],
        before: [2; 8],
    };

    fn ring(key: u8) -> Ring {
        Ring::new("t", move |epoch| Some([key ^ epoch as u8; 32]))
    }

    /// A file of a base and steps, its states after each record.
    fn written(ring: &Ring, steps: &[Vec<(u8, u8)>]) -> (Vec<u8>, Vec<Seal>) {
        let (mut now, mut file) = Seal::first(ring, 7, &[[9; 16]; 3], NEWS).unwrap();
        now.tags = vec![[9; 16]; 3];
        let mut states = vec![now.clone()];
        for (i, step) in steps.iter().enumerate() {
            let mut tags = now.tags.clone();
            tags.resize(3 + i, [0; 16]);
            let changed: Vec<_> = step
                .iter()
                .map(|(n, t)| (u32::from(*n) % tags.len() as u32 + 1, [*t; 16]))
                .collect();
            for (number, tag) in &changed {
                tags[*number as usize - 1] = *tag;
            }
            let (next, bytes) = now.next(changed.into_iter(), tags.len() as u32, NEWS, ring).unwrap();
            assert_eq!(file.len() as u64, now.length);
            file.extend(bytes);
            now = Seal { tags, ..next };
            states.push(now.clone());
        }
        (file, states)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_a_cut_or_flipped_end_gives_an_earlier_state(
            steps in prop::collection::vec(prop::collection::vec(any::<(u8, u8)>(), 0..5), 0..5),
            at in any::<prop::sample::Index>(), bit in 0..8_u32,
        ) {
            let ring = ring(1);
            let (file, states) = written(&ring, &steps);
            prop_assert_eq!(&Seal::read(&ring, &file).unwrap(), states.last().unwrap());
            prop_assert_eq!(states.last().unwrap().generation, 7 + steps.len() as u64);
            let at = at.index(file.len());
            let before = states.iter().rev().find(|s| s.length <= at as u64);
            for spoiled in [file[..at].to_vec(), {
                let mut f = file.clone();
                f[at] ^= 1 << bit;
                f
            }] {
                match (Seal::read(&ring, &spoiled), before) {
                    (Ok(found), Some(wanted)) => prop_assert_eq!(&found, wanted),
                    (Err(_), None) => {}
                    (found, wanted) => prop_assert!(false, "{:?} {:?}", found, wanted),
                }
            }
            prop_assert!(Seal::read(&self::ring(2), &file).is_err());
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), begun in any::<bool>()) {
            let mut file = if begun { b"mtseal1B".to_vec() } else { Vec::new() };
            file.extend(bytes);
            prop_assert!(Seal::read(&ring(1), &file).is_err());
        }
    }

    #[test]
    fn a_record_of_another_place_or_life_of_the_file_does_not_count() {
        let ring = ring(1);
        let (file, states) = written(&ring, &[vec![(1, 1)], vec![(1, 2)]]);
        let (one, two) = (states[0].length as usize, states[1].length as usize);
        // The first step left out, or put twice; the base of another file before them.
        for mixed in [
            [&file[..one], &file[two..]].concat(),
            [&file[..two], &file[one..]].concat(),
        ] {
            let found = Seal::read(&ring, &mixed).unwrap();
            assert!(found.generation < states[2].generation, "{found:?}");
        }
        let (_, other) = Seal::first(&ring, 7, &[[8; 16]; 3], NEWS).unwrap();
        let found = Seal::read(&ring, &[&other, &file[one..]].concat()).unwrap();
        assert_eq!((found.generation, found.length), (7, other.len() as u64));
    }
}
