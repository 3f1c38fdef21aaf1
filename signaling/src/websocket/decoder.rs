//! The receiving half of the protocol without input or output: bytes in, whole messages out.

use super::frame::{self, MAX_CONTROL, MAX_HEADER, Opcode};
use std::mem;

/// A whole message from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Nothing after it is read.
    Close(Option<(u16, String)>),
}

/// Why a peer is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Protocol(&'static str),
    #[error("text is not UTF-8")]
    Utf8,
    #[error("message is too big")]
    TooBig,
}

impl Fault {
    /// The close code of the fault (section 7.4.1).
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::Utf8 => 1007,
            Self::TooBig => 1009,
        }
    }
}

/// Takes a client's bytes in pieces of any size. Holds memory only while a message is incomplete, and never more than the
/// limit: an announced length alone reserves nothing.
pub struct Decoder {
    limit: usize,
    header: [u8; MAX_HEADER],
    header_len: usize,
    frame: Option<Frame>,
    /// The message whose fragments are being collected.
    message: Option<Opcode>,
    data: Vec<u8>,
    /// How much of `data` is known to be UTF-8.
    valid: usize,
    control: Vec<u8>,
    closed: bool,
}

#[derive(Clone, Copy)]
struct Frame {
    fin: bool,
    opcode: Opcode,
    mask: [u8; 4],
    remaining: usize,
    phase: usize,
}

impl Decoder {
    /// `limit` bounds a whole message, all fragments together.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            header: [0; MAX_HEADER],
            header_len: 0,
            frame: None,
            message: None,
            data: Vec::new(),
            valid: 0,
            control: Vec::new(),
            closed: false,
        }
    }

    /// Decodes `input`, unmasking it in place, and appends the messages that it completes. After a fault or a close frame
    /// the decoder takes nothing more.
    pub fn decode(&mut self, input: &mut [u8], out: &mut Vec<Message>) -> Result<(), Fault> {
        let result = self.run(input, out);
        self.closed |= result.is_err();
        result
    }

    fn run(&mut self, mut input: &mut [u8], out: &mut Vec<Message>) -> Result<(), Fault> {
        while !self.closed {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => {
                    let (frame, used) = self.take_header(input)?;
                    input = input.split_at_mut(used).1;
                    match frame {
                        Some(frame) => frame,
                        None => return Ok(()),
                    }
                }
            };
            let take = frame.remaining.min(input.len());
            let (piece, rest) = input.split_at_mut(take);
            input = rest;
            frame::apply_mask(piece, frame.mask, frame.phase);
            frame.phase = (frame.phase + take) % 4;
            frame.remaining -= take;
            self.append(frame, piece)?;
            if frame.remaining > 0 {
                self.frame = Some(frame);
                return Ok(());
            }
            self.finish(frame, out)?;
        }
        Ok(())
    }

    /// Collects header bytes; answers the frame once the header is whole, and how many input bytes it used.
    fn take_header(&mut self, input: &[u8]) -> Result<(Option<Frame>, usize), Fault> {
        for (used, byte) in input.iter().enumerate() {
            if let Some(place) = self.header.get_mut(self.header_len) {
                *place = *byte;
            }
            self.header_len += 1;
            if let Some(frame) = self.parse_header()? {
                self.header_len = 0;
                return Ok((Some(frame), used + 1));
            }
        }
        Ok((None, input.len()))
    }

    fn parse_header(&mut self) -> Result<Option<Frame>, Fault> {
        let (header, got) = (self.header, self.header_len);
        let [first, second, ..] = header;
        if first & 0x70 != 0 {
            return Err(Fault::Protocol("reserved bits are set"));
        }
        let opcode = Opcode::from_bits(first & 0x0F).ok_or(Fault::Protocol("reserved opcode"))?;
        let fin = first & 0x80 != 0;
        if opcode.is_control() && !fin {
            return Err(Fault::Protocol("control frame in fragments"));
        }
        match (opcode, self.message) {
            (Opcode::Continuation, None) => return Err(Fault::Protocol("continuation without a start")),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Fault::Protocol("new message inside another")),
            _ => {}
        }
        if got < 2 {
            return Ok(None);
        }
        if second & 0x80 == 0 {
            return Err(Fault::Protocol("client frame without mask"));
        }
        let short = second & 0x7F;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL {
            return Err(Fault::Protocol("control frame too long"));
        }
        let [_, _, a, b, c, d, e, f, g, h, i, j, k, l] = header;
        let (length, mask, size) = match short {
            126 => (u64::from(u16::from_be_bytes([a, b])), [c, d, e, f], 8),
            127 => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), [i, j, k, l], 14),
            short => (u64::from(short), [a, b, c, d], 6),
        };
        if got < size {
            return Ok(None);
        }
        if (short == 126 && length < 126) || (short == 127 && length <= u64::from(u16::MAX)) {
            return Err(Fault::Protocol("length is not in its shortest form"));
        }
        if short == 127 && length >> 63 != 0 {
            return Err(Fault::Protocol("length has its top bit set"));
        }
        let remaining = usize::try_from(length).map_err(|_| Fault::TooBig)?;
        if !opcode.is_control() {
            if remaining > self.limit.saturating_sub(self.data.len()) {
                return Err(Fault::TooBig);
            }
            if opcode != Opcode::Continuation {
                self.message = Some(opcode);
            }
        }
        Ok(Some(Frame {
            fin,
            opcode,
            mask,
            remaining,
            phase: 0,
        }))
    }

    fn append(&mut self, frame: Frame, piece: &[u8]) -> Result<(), Fault> {
        if frame.opcode.is_control() {
            self.control.extend_from_slice(piece);
            return Ok(());
        }
        self.data.extend_from_slice(piece);
        if self.message == Some(Opcode::Text) {
            // Text is checked as it arrives, so that a bad byte is refused before the rest is waited for.
            match std::str::from_utf8(self.data.get(self.valid..).unwrap_or_default()) {
                Ok(_) => self.valid = self.data.len(),
                Err(e) if e.error_len().is_none() => self.valid += e.valid_up_to(),
                Err(_) => return Err(Fault::Utf8),
            }
        }
        Ok(())
    }

    fn finish(&mut self, frame: Frame, out: &mut Vec<Message>) -> Result<(), Fault> {
        if frame.opcode.is_control() {
            let payload = mem::take(&mut self.control);
            out.push(match frame.opcode {
                Opcode::Ping => Message::Ping(payload),
                Opcode::Pong => Message::Pong(payload),
                _ => {
                    self.closed = true;
                    Message::Close(parse_close(&payload)?)
                }
            });
            return Ok(());
        }
        if !frame.fin {
            return Ok(());
        }
        let data = mem::take(&mut self.data);
        self.valid = 0;
        out.push(match self.message.take() {
            Some(Opcode::Text) => Message::Text(String::from_utf8(data).map_err(|_| Fault::Utf8)?),
            _ => Message::Binary(data),
        });
        Ok(())
    }
}

fn parse_close(payload: &[u8]) -> Result<Option<(u16, String)>, Fault> {
    match payload {
        [] => Ok(None),
        [_] => Err(Fault::Protocol("close code in one byte")),
        [a, b, reason @ ..] => {
            let code = u16::from_be_bytes([*a, *b]);
            if !frame::is_valid_close_code(code) {
                return Err(Fault::Protocol("close code is not for the wire"));
            }
            let reason = std::str::from_utf8(reason).map_err(|_| Fault::Utf8)?;
            Ok(Some((code, reason.to_owned())))
        }
    }
}
