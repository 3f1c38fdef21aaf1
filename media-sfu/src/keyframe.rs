//! Key frames: how often one may be asked for, and how the start of one is recognised in each codec.

use std::time::{Duration, Instant};

use crate::packet::{Codec, vp8_starts_keyframe};

/// At most one request in this time for each layer of a track: a key frame costs many times a normal frame.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// Merges the key frame requests of all subscribers of one layer.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct KeyframeThrottle {
    last: Option<Instant>,
}

impl KeyframeThrottle {
    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        let due = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= MIN_INTERVAL);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// Whether this payload starts a key frame. Only descriptors and the first header bytes are looked at, which end-to-end
/// encrypted frames leave in clear.
pub(crate) fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Opus => true,
        Codec::Vp8 => vp8_starts_keyframe(payload),
        Codec::Vp9 => vp9(payload),
        Codec::H264 => h264(payload),
        Codec::Av1 => av1(payload),
    }
}

/// RFC 9628 section 4.2: not inter-predicted (P clear), beginning of a frame (B set), lowest spatial layer.
fn vp9(payload: &[u8]) -> bool {
    const I: u8 = 0x80;
    const P: u8 = 0x40;
    const L: u8 = 0x20;
    const B: u8 = 0x08;
    let Some(&first) = payload.first() else { return false };
    if first & P != 0 || first & B == 0 {
        return false;
    }
    if first & L == 0 {
        return true;
    }
    let mut at = 1;
    if first & I != 0 {
        at += match payload.get(at) {
            Some(id) if id & 0x80 != 0 => 2,
            Some(_) => 1,
            None => return false,
        };
    }
    payload.get(at).is_some_and(|layer| (layer >> 1) & 0x07 == 0)
}

/// RFC 6184: a sequence parameter set or an IDR slice, alone, aggregated (STAP-A) or the start of a fragment (FU-A).
fn h264(payload: &[u8]) -> bool {
    const IDR: u8 = 5;
    const SPS: u8 = 7;
    let key = |nal: u8| matches!(nal & 0x1f, IDR | SPS);
    let Some(&first) = payload.first() else { return false };
    match first & 0x1f {
        24 => {
            let mut at = 1;
            while let (Some(&hi), Some(&lo), Some(&nal)) = (payload.get(at), payload.get(at + 1), payload.get(at + 2)) {
                if key(nal) {
                    return true;
                }
                at += 2 + usize::from(u16::from_be_bytes([hi, lo]));
            }
            false
        }
        28 => payload.get(1).is_some_and(|fu| fu & 0x80 != 0 && key(*fu)),
        _ => key(first),
    }
}

/// The N bit of the aggregation header: first packet of a coded video sequence.
fn av1(payload: &[u8]) -> bool {
    payload.first().is_some_and(|header| header & 0x08 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_starts() {
        assert!(starts_keyframe(Codec::Vp8, &[0x10, 0x00, 0x9d]));
        assert!(!starts_keyframe(Codec::Vp8, &[0x10, 0x01, 0x9d]));
        assert!(starts_keyframe(Codec::H264, &[0x67, 1, 2]));
        assert!(starts_keyframe(Codec::H264, &[0x78, 0, 1, 0x67]));
        assert!(starts_keyframe(Codec::H264, &[0x7c, 0x85]));
        assert!(!starts_keyframe(Codec::H264, &[0x7c, 0x05]));
        assert!(!starts_keyframe(Codec::H264, &[0x61, 1]));
        assert!(starts_keyframe(Codec::Vp9, &[0x88, 0x01]));
        assert!(!starts_keyframe(Codec::Vp9, &[0xc8, 0x01]));
    }

    #[test]
    fn requests_are_merged() {
        let start = Instant::now();
        let mut throttle = KeyframeThrottle::default();
        assert!(throttle.allow(start));
        assert!(!throttle.allow(start + Duration::from_millis(499)));
        assert!(throttle.allow(start + Duration::from_millis(500)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            for codec in [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
                starts_keyframe(codec, &payload);
            }
        }
    }
}
