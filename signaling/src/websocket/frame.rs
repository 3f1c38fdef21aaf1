//! Frames on the wire (RFC 6455 section 5): encoding, masking, close codes.

use bytes::{BufMut, Bytes, BytesMut};

/// What a frame carries (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

impl Opcode {
    /// `None` for the reserved ones.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    #[must_use]
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Longest header: 2 bytes, 8 of length, 4 of mask.
pub const MAX_HEADER: usize = 14;

/// Longest payload of a control frame (section 5.5).
pub const MAX_CONTROL: usize = 125;

/// A whole message in one frame, as a server sends it: unmasked.
#[must_use]
pub fn encode(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + MAX_HEADER);
    put_header(&mut out, true, opcode, payload.len(), None);
    out.put_slice(payload);
    out.freeze()
}

/// A text message.
#[must_use]
pub fn text(payload: &str) -> Bytes {
    encode(Opcode::Text, payload.as_bytes())
}

/// A binary message.
#[must_use]
pub fn binary(payload: &[u8]) -> Bytes {
    encode(Opcode::Binary, payload)
}

/// A close frame. The reason is cut at a character boundary to fit a control frame.
#[must_use]
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut payload = BytesMut::with_capacity(2 + reason.len());
    payload.put_u16(code);
    let cut = reason.floor_char_boundary(MAX_CONTROL - 2);
    payload.put_slice(reason.get(..cut).unwrap_or_default().as_bytes());
    encode(Opcode::Close, &payload)
}

/// Writes a header; `mask` is what a client must send and a server must not.
pub fn put_header(out: &mut BytesMut, fin: bool, opcode: Opcode, len: usize, mask: Option<[u8; 4]>) {
    out.put_u8(if fin { 0x80 } else { 0 } | opcode as u8);
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short), _) if short < 126 => out.put_u8(masked | short),
        (_, Ok(medium)) => {
            out.put_u8(masked | 126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(len as u64);
        }
    }
    if let Some(mask) = mask {
        out.put_slice(&mask);
    }
}

/// Masks or unmasks in place (section 5.3); `phase` is how many bytes of the payload came before.
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4], phase: usize) {
    let mut mask = mask;
    mask.rotate_left(phase % 4);
    let word = u32::from_ne_bytes(mask);
    let (words, rest) = payload.as_chunks_mut::<4>();
    for chunk in words {
        *chunk = (u32::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// May a peer send this close code (section 7.4, and the registry)?
#[must_use]
pub fn is_valid_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
