//! RTP headers (RFC 3550 section 5.1) with the header extensions that a leg negotiated (RFC 8285).

/// What is the same in all packets of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pub ssrc: u32,
    pub payload_type: u8,
    /// The number of each extension on this leg, where it was negotiated.
    pub ids: ExtensionIds,
    /// Says which section the stream belongs to; sent until the receiver has shown that it knows.
    pub mid: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExtensionIds {
    pub mid: Option<u8>,
    pub audio_level: Option<u8>,
    pub orientation: Option<u8>,
}

/// Header extensions that belong to the media, as their bytes on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MediaExtensions {
    /// RFC 6464.
    pub audio_level: Option<u8>,
    /// 3GPP TS 26.114.
    pub orientation: Option<u8>,
}

/// What differs from packet to packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub extensions: MediaExtensions,
    pub with_mid: bool,
}

impl Template {
    /// Append the header to `out`, and return its length.
    pub(crate) fn write(&self, fields: Fields, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let mid = self.ids.mid.filter(|_| fields.with_mid && self.mid.len() <= 255);
        let level = fields
            .extensions
            .audio_level
            .and_then(|v| Some((self.ids.audio_level?, v)));
        let orientation = fields
            .extensions
            .orientation
            .and_then(|v| Some((self.ids.orientation?, v)));
        let extended = mid.is_some() || level.is_some() || orientation.is_some();
        let marker = u8::from(fields.marker) << 7;
        out.extend([0x80 | (u8::from(extended) << 4), (self.payload_type & 0x7f) | marker]);
        out.extend(fields.sequence.to_be_bytes());
        out.extend(fields.timestamp.to_be_bytes());
        out.extend(self.ssrc.to_be_bytes());
        let header = out.len();
        if !extended {
            return header - start;
        }
        // The short form numbers 1 to 14, and has 1 to 16 bytes.
        let used = [mid, level.map(|l| l.0), orientation.map(|o| o.0)];
        let mid_fits = mid.is_none() || (1..=16).contains(&self.mid.len());
        let short = mid_fits && used.iter().flatten().all(|id| (1..=14).contains(id));
        out.extend(if short { [0xbe, 0xde, 0, 0] } else { [0x10, 0, 0, 0] });
        let mut put = |id: u8, value: &[u8]| {
            // Truncation is meant: lengths were checked above.
            let length = value.len() as u8;
            if short {
                out.push((id << 4) | length.wrapping_sub(1));
            } else {
                out.extend([id, length]);
            }
            out.extend_from_slice(value);
        };
        if let Some((id, level)) = level {
            put(id, &[level]);
        }
        if let Some(id) = mid {
            put(id, self.mid.as_bytes());
        }
        if let Some((id, orientation)) = orientation {
            put(id, &[orientation]);
        }
        let length = out.len() - header - 4;
        let words = length.div_ceil(4);
        out.resize(header + 4 + words * 4, 0);
        if let Some(place) = out.get_mut(header + 2..header + 4) {
            // At most three extensions of 257 bytes.
            place.copy_from_slice(&(words as u16).to_be_bytes());
        }
        out.len() - start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn template() -> Template {
        Template {
            ssrc: 0x0102_0304,
            payload_type: 96,
            ids: ExtensionIds {
                mid: Some(4),
                audio_level: Some(1),
                orientation: Some(13),
            },
            mid: "ab".into(),
        }
    }

    #[test]
    fn a_header_is_written_as_the_standard_draws_it() {
        let mut out = Vec::new();
        let fields = Fields {
            sequence: 0x0506,
            timestamp: 0x0708_090a,
            marker: true,
            extensions: MediaExtensions {
                audio_level: Some(0x8a),
                orientation: None,
            },
            with_mid: true,
        };
        assert_eq!(template().write(fields, &mut out), out.len());
        let expected = [
            0x90,
            0x80 | 96,
            5,
            6,
            7,
            8,
            9,
            10,
            1,
            2,
            3,
            4,
            0xbe,
            0xde,
            0,
            2,
            0x10,
            0x8a,
            0x41,
            b'a',
            b'b',
            0,
            0,
            0,
        ];
        assert_eq!(out, expected);
        let mut bare = Vec::new();
        let fields = Fields {
            extensions: MediaExtensions::default(),
            with_mid: false,
            marker: false,
            ..fields
        };
        assert_eq!(template().write(fields, &mut bare), 12);
        assert_eq!(bare[..2], [0x80, 96]);
    }

    proptest! {
        #[test]
        fn any_numbers_and_names_are_readable(
            ids in any::<[Option<u8>; 3]>(), mid in "[a-z0-9]{0,40}", level in any::<Option<u8>>(), turned in proptest::option::of(0u8..4), with_mid: bool
        ) {
            let ids = ids.map(|id| id.map(|id| 1 + id % 250));
            let template = Template {
                ids: ExtensionIds { mid: ids[0], audio_level: ids[1], orientation: ids[2] },
                mid: mid.clone(),
                ..template()
            };
            let extensions = MediaExtensions { audio_level: level, orientation: turned };
            let mut out = Vec::new();
            let fields = Fields { sequence: 1, timestamp: 2, marker: false, extensions, with_mid };
            let length = template.write(fields, &mut out);
            prop_assert_eq!(length, out.len());
            prop_assert_eq!(length % 4, 0);
            let extended = out[0] & 0x10 != 0;
            prop_assert_eq!(extended, length > 12);
            if extended {
                let words = usize::from(u16::from_be_bytes([out[14], out[15]]));
                prop_assert_eq!(16 + words * 4, length);
            }
        }
    }
}
