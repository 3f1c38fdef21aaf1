//! What a sealed page and a sealed log frame look like. Pure: bytes and keys in, bytes out.
//!
//! ```text
//! page of the database:  ciphertext 4064 | tag 16 | nonce 12 | epoch 4      page 1: bytes 0..100 clear, authenticated
//! frame of the log:      page number 4, size 4 | ciphertext 16 + 4064 | tag 16 | nonce 12 | epoch 4
//! ```
//! The additional data says where the piece belongs, so one copied to another place does not open. Of a frame's 24-byte
//! header the salts and the checksum are encrypted too: SQLite's checksum is over the plain page and would tell about it.

use crate::{Refusal, keys::Ring, nonce};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bytes at the end of each page that SQLite leaves to us.
pub const RESERVE: usize = 32;
/// The beginning of page 1 that stays readable: SQLite asks for it before it knows anything of the file.
pub const CLEAR: usize = 100;
/// Bytes of a frame's header in the log.
pub const FRAME_HEADER: usize = 24;
/// A frame of the log: header and page.
pub const FRAME: usize = FRAME_HEADER + PAGE;
/// Bytes of the log's own header.
pub const LOG_HEADER: usize = 32;

const TAG: usize = 16;
/// The part of a frame's header that stays readable: page number and size of the database.
const FRAME_CLEAR: usize = 8;
/// The part of the log's header that a frame is bound to: all but its checksum.
const GENERATION: usize = 24;
/// Domain, format, epoch, and the place in the file.
const PLACE: usize = 1 + 1 + 4 + 4;

pub type PageBytes = [u8; PAGE];
pub type FrameBytes = [u8; FRAME];
pub type LogHeader = [u8; LOG_HEADER];

/// The key of one epoch, ready for use.
pub struct PageKey {
    pub(crate) epoch: u32,
    aead: LessSafeKey,
    /// For the records of the seal.
    pub(crate) seal: hmac::Key,
}

impl PageKey {
    pub(crate) fn new(epoch: u32, key: &[u8; 32]) -> Result<Self, Refusal> {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"medtech pages seal 1");
        let seal = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| Refusal::KeyUnknown(epoch))?;
        Ok(Self {
            epoch,
            aead: LessSafeKey::new(key),
            seal,
        })
    }

    /// Seals in place; the last 32 bytes of `piece` are overwritten, the first `clear` stay as they are.
    fn seal(&self, piece: &mut [u8], clear: usize, place: &[u8]) -> Result<(), Refusal> {
        let nonce = nonce::next()?;
        let Some((content, trailer)) = piece.split_last_chunk_mut::<RESERVE>() else {
            return Err(Refusal::Malformed);
        };
        let Some(content) = content.get_mut(clear..) else {
            return Err(Refusal::Malformed);
        };
        let (tag_at, rest) = trailer.split_at_mut(TAG);
        let (nonce_at, epoch_at) = rest.split_at_mut(NONCE_LEN);
        nonce_at.copy_from_slice(&nonce);
        epoch_at.copy_from_slice(&self.epoch.to_be_bytes());
        let tag = self
            .aead
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), content)
            .map_err(|_| Refusal::Malformed)?;
        tag_at.copy_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens in place and zeroes the last 32 bytes.
    fn open(&self, piece: &mut [u8], clear: usize, place: &[u8]) -> Result<(), Refusal> {
        let Some((_, trailer)) = piece.split_last_chunk::<RESERVE>() else {
            return Err(Refusal::Malformed);
        };
        let (_, rest) = trailer.split_at(TAG);
        let nonce = Nonce::try_assume_unique_for_key(rest.split_at(NONCE_LEN).0).map_err(|_| Refusal::Malformed)?;
        let end_of_tag = piece.len() - RESERVE + TAG;
        let sealed = piece.get_mut(clear..end_of_tag).ok_or(Refusal::Malformed)?;
        self.aead
            .open_in_place(nonce, Aad::from(place), sealed)
            .map_err(|_| Refusal::NotAuthentic)?;
        if let Some(end) = piece.last_chunk_mut::<RESERVE>() {
            end.fill(0);
        }
        Ok(())
    }
}

/// The tag in the trailer of a sealed page or frame.
pub(crate) fn tag_of(piece: &[u8]) -> [u8; TAG] {
    let trailer = piece.last_chunk::<RESERVE>();
    trailer.and_then(|t| t.first_chunk()).copied().unwrap_or_default()
}

/// The epoch in the trailer of a sealed page or frame.
#[must_use]
pub fn epoch_of(piece: &[u8]) -> u32 {
    piece.last_chunk::<4>().map_or(0, |end| u32::from_be_bytes(*end))
}

fn place(domain: u8, epoch: u32, number: u32) -> [u8; PLACE] {
    let mut place = [0; PLACE];
    let (kind, rest) = place.split_at_mut(2);
    kind.copy_from_slice(&[domain, 1]);
    let (epoch_at, number_at) = rest.split_at_mut(4);
    epoch_at.copy_from_slice(&epoch.to_be_bytes());
    number_at.copy_from_slice(&number.to_be_bytes());
    place
}

/// Where a page belongs: its number, and for page 1 the clear beginning.
fn page_place(epoch: u32, number: u32, page: &PageBytes) -> (usize, [u8; PLACE + CLEAR], usize) {
    let mut all = [0; PLACE + CLEAR];
    let (head, clear) = all.split_at_mut(PLACE);
    head.copy_from_slice(&place(b'D', epoch, number));
    if number == 1 {
        clear.copy_from_slice(page.first_chunk::<CLEAR>().unwrap_or(&[0; CLEAR]));
        (CLEAR, all, PLACE + CLEAR)
    } else {
        (0, all, PLACE)
    }
}

/// Where a frame belongs: its number, the generation of the log, and the clear part of its header.
fn frame_place(epoch: u32, number: u32, log: &LogHeader, frame: &FrameBytes) -> [u8; PLACE + GENERATION + FRAME_CLEAR] {
    let mut all = [0; PLACE + GENERATION + FRAME_CLEAR];
    let (head, rest) = all.split_at_mut(PLACE);
    head.copy_from_slice(&place(b'L', epoch, number));
    let (generation, clear) = rest.split_at_mut(GENERATION);
    generation.copy_from_slice(log.first_chunk::<GENERATION>().unwrap_or(&[0; GENERATION]));
    clear.copy_from_slice(frame.first_chunk::<FRAME_CLEAR>().unwrap_or(&[0; FRAME_CLEAR]));
    all
}

/// Seals page `number` (from 1) for the database file.
pub fn seal_page(ring: &Ring, number: u32, page: &mut PageBytes) -> Result<(), Refusal> {
    let key = ring.current()?;
    let (clear, place, length) = page_place(key.epoch, number, page);
    key.seal(page, clear, place.get(..length).unwrap_or(&place))
}

/// Opens what [`seal_page`] made. On an error the bytes are worthless.
pub fn open_page(ring: &Ring, number: u32, page: &mut PageBytes) -> Result<(), Refusal> {
    let key = ring.key(epoch_of(page))?;
    let (clear, place, length) = page_place(key.epoch, number, page);
    key.open(page, clear, place.get(..length).unwrap_or(&place))
}

/// Seals frame `number` (from 1) of the log that begins with `log`.
pub fn seal_frame(ring: &Ring, number: u32, log: &LogHeader, frame: &mut FrameBytes) -> Result<(), Refusal> {
    let key = ring.current()?;
    let place = frame_place(key.epoch, number, log, frame);
    key.seal(frame, FRAME_CLEAR, &place)
}

/// Opens what [`seal_frame`] made. On an error the bytes are worthless.
pub fn open_frame(ring: &Ring, number: u32, log: &LogHeader, frame: &mut FrameBytes) -> Result<(), Refusal> {
    let key = ring.key(epoch_of(frame))?;
    let place = frame_place(key.epoch, number, log, frame);
    key.open(frame, FRAME_CLEAR, &place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(key: u8) -> Ring {
        Ring::new("t", move |epoch| {
            let mut bytes = [key; 32];
            bytes[0] = epoch as u8;
            Some(bytes)
        })
    }

    fn page(seed: u8) -> PageBytes {
        let mut page: PageBytes = std::array::from_fn(|i| (i as u8).wrapping_mul(7).wrapping_add(seed));
        page[PAGE - RESERVE..].fill(0);
        page
    }

    proptest! {
        #[test]
        fn a_page_comes_back_and_no_changed_or_moved_page_does(
            seed in any::<u8>(), number in 1_u32..5, other in 1_u32..5, at in 0..PAGE, bit in 0..8_u32,
        ) {
            let ring = ring(1);
            let mut sealed = page(seed);
            seal_page(&ring, number, &mut sealed).unwrap();
            let mut opened = sealed;
            open_page(&ring, number, &mut opened).unwrap();
            prop_assert_eq!(opened, page(seed));
            let mut flipped = sealed;
            flipped[at] ^= 1 << bit;
            prop_assert!(open_page(&ring, number, &mut flipped).is_err());
            if other != number {
                prop_assert!(open_page(&ring, other, &mut sealed.clone()).is_err());
            }
            prop_assert!(open_page(&self::ring(2), number, &mut sealed).is_err());
        }

        #[test]
        fn a_frame_comes_back_and_no_changed_or_moved_frame_does(
            seed in any::<u8>(), number in 1_u32..5, at in 0..FRAME, bit in 0..8_u32, salt in 0..GENERATION,
        ) {
            let ring = ring(1);
            let log: LogHeader = std::array::from_fn(|i| i as u8);
            let mut plain: FrameBytes = std::array::from_fn(|i| (i as u8).wrapping_mul(seed));
            plain[FRAME - RESERVE..].fill(0);
            let mut sealed = plain;
            seal_frame(&ring, number, &log, &mut sealed).unwrap();
            prop_assert_ne!(&sealed[FRAME_CLEAR..FRAME_HEADER], &plain[FRAME_CLEAR..FRAME_HEADER]);
            let mut opened = sealed;
            open_frame(&ring, number, &log, &mut opened).unwrap();
            prop_assert_eq!(opened, plain);
            let mut flipped = sealed;
            flipped[at] ^= 1 << bit;
            prop_assert!(open_frame(&ring, number, &log, &mut flipped).is_err());
            prop_assert!(open_frame(&ring, number + 1, &log, &mut sealed.clone()).is_err());
            let mut later = log;
            later[salt] ^= 1;
            prop_assert!(open_frame(&ring, number, &later, &mut sealed).is_err());
        }
    }

    #[test]
    fn page_one_keeps_its_beginning_readable_and_bound() {
        let ring = ring(1);
        let mut sealed = page(3);
        seal_page(&ring, 1, &mut sealed).unwrap();
        assert_eq!(sealed[..CLEAR], page(3)[..CLEAR]);
        assert_ne!(sealed[CLEAR..PAGE - RESERVE], page(3)[CLEAR..PAGE - RESERVE]);
        sealed[CLEAR - 1] ^= 1;
        assert!(matches!(open_page(&ring, 1, &mut sealed), Err(Refusal::NotAuthentic)));
    }

    #[test]
    fn a_page_tells_its_epoch_and_old_epochs_stay_readable() {
        let ring = ring(1);
        let mut old = page(1);
        seal_page(&ring, 2, &mut old).unwrap();
        ring.set_epoch(7).unwrap();
        let mut new = page(2);
        seal_page(&ring, 2, &mut new).unwrap();
        assert_eq!((epoch_of(&old), epoch_of(&new)), (1, 7));
        open_page(&ring, 2, &mut old).unwrap();
        open_page(&ring, 2, &mut new).unwrap();
    }
}
