//! What is sent: 30 frames of six packets a second shaped as VP8, 50 packets a second shaped as Opus. Each packet ends in
//! a stamp (mark, number, time of sending), which passes any server that does not read payloads.

use bytes::{BufMut, Bytes, BytesMut};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(super) const FRAMES_PER_SECOND: u64 = 30;
pub(super) const PACKETS_PER_FRAME: u64 = 6;
pub(super) const VIDEO_PER_SECOND: u64 = FRAMES_PER_SECOND * PACKETS_PER_FRAME;
pub(super) const AUDIO_PER_SECOND: u64 = 50;
pub(super) const FRAME_EVERY: Duration = Duration::from_nanos(1_000_000_000 / FRAMES_PER_SECOND);
pub(super) const AUDIO_EVERY: Duration = Duration::from_millis(1000 / AUDIO_PER_SECOND);

const VIDEO_BYTES: usize = 1100;
const AUDIO_BYTES: usize = 100;
const MARK: &[u8; 4] = b"mtbn";
const STAMP_BYTES: usize = 4 + 4 + 8;
/// A key frame each second, as if every subscriber's request for one were answered with patience.
const KEY_FRAME_EVERY: u64 = FRAMES_PER_SECOND;

/// One packet of frame `frame`, the `index`th of its six, with `number` in the stamp.
pub(super) fn video_payload(frame: u64, index: u64, number: u32) -> Bytes {
    let mut payload = BytesMut::with_capacity(VIDEO_BYTES);
    // RFC 7741: extended, start of partition in the first packet; a picture id of 15 bits follows.
    payload.put_u8(if index == 0 { 0x90 } else { 0x80 });
    payload.put_u8(0x80);
    payload.put_u16(0x8000 | (frame & 0x7fff) as u16);
    if index == 0 {
        // RFC 6386, 9.1: frame tag (bit 0: not a key frame; bit 4: shown); a key frame has a start code and its size.
        if frame.is_multiple_of(KEY_FRAME_EVERY) {
            payload.put_slice(&[0x10, 0x00, 0x00, 0x9d, 0x01, 0x2a]);
            payload.put_u16_le(640);
            payload.put_u16_le(480);
        } else {
            payload.put_slice(&[0x11, 0x00, 0x00]);
        }
    }
    payload.resize(VIDEO_BYTES - STAMP_BYTES, 0xa5);
    stamp(payload, number)
}

pub(super) fn audio_payload(number: u32) -> Bytes {
    let mut payload = BytesMut::with_capacity(AUDIO_BYTES);
    // RFC 6716, 3.1: CELT, full band, 20 ms, stereo, one frame.
    payload.put_u8(0xfc);
    payload.resize(AUDIO_BYTES - STAMP_BYTES, 0x5a);
    stamp(payload, number)
}

fn stamp(mut payload: BytesMut, number: u32) -> Bytes {
    payload.put_slice(MARK);
    payload.put_u32(number);
    payload.put_u64(now_ns());
    payload.freeze()
}

/// The packet's number and its way's duration so far; none for a packet that no publisher of ours sent (padding).
pub(super) fn read_stamp(payload: &[u8]) -> Option<(u32, Duration)> {
    let at = payload.len().checked_sub(STAMP_BYTES)?;
    let (mark, rest) = payload.get(at..)?.split_first_chunk::<4>()?;
    let (number, time) = rest.split_first_chunk::<4>()?;
    let sent = u64::from_be_bytes(time.try_into().ok()?);
    (mark == MARK).then(|| {
        (
            u32::from_be_bytes(*number),
            Duration::from_nanos(now_ns().saturating_sub(sent)),
        )
    })
}

/// One clock for sender and receiver, which are one process.
fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_and_nothing_else_is_taken_for_one() {
        for payload in [video_payload(0, 0, 7), video_payload(31, 5, 7), audio_payload(7)] {
            assert_eq!(read_stamp(&payload).map(|(number, _)| number), Some(7));
        }
        assert_eq!(video_payload(1, 1, 0).len(), VIDEO_BYTES);
        for not_ours in [&[][..], &[0; 15], &[0; 1100]] {
            assert_eq!(read_stamp(not_ours), None);
        }
    }
}
