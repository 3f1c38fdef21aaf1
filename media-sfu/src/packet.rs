//! What passes between connections and the engine: packets, reports, datagrams. With [`crate::peer`], [`crate::ingress`],
//! [`crate::streams`] and [`crate::egress::keys`] the only file that names the library.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use str0m::format::Codec as LibraryCodec;
use str0m::rtp::{ExtensionValues, Vp8Descriptor, Vp8Patch};

pub(crate) use str0m::media::Mid;

use crate::egress::MediaExtensions;
use crate::ids::Layer;
use crate::messages::DataKind;
use crate::munger::Vp8Ids;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Codec {
    Opus,
    Vp8,
    Vp9,
    H264,
    Av1,
}

impl Codec {
    pub(crate) fn from_library(codec: LibraryCodec) -> Option<Codec> {
        match codec {
            LibraryCodec::Opus => Some(Codec::Opus),
            LibraryCodec::Vp8 => Some(Codec::Vp8),
            LibraryCodec::Vp9 => Some(Codec::Vp9),
            LibraryCodec::H264 => Some(Codec::H264),
            LibraryCodec::Av1 => Some(Codec::Av1),
            _ => None,
        }
    }
}

/// A packet from a publisher. The payload is shared, never copied, by all who get it.
#[derive(Debug)]
pub(crate) struct MediaPacket {
    pub mid: Mid,
    pub layer: Layer,
    pub codec: Codec,
    pub seq: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Arc<[u8]>,
    /// When it arrived.
    pub at: Instant,
    /// RFC 6464: 0 loudest, 127 silence.
    pub audio_level: Option<u8>,
    /// Header extensions that belong to the media and not to the leg it came on.
    pub extensions: ExtensionValues,
    /// The same, as they are written.
    pub wire: MediaExtensions,
}

#[cfg(test)]
impl MediaPacket {
    pub(crate) fn for_tests(at: Instant) -> MediaPacket {
        MediaPacket {
            mid: Mid::from("v"),
            layer: Layer::LOW,
            codec: Codec::Vp8,
            seq: 0,
            timestamp: 0,
            marker: false,
            payload: Arc::new([0x90, 0x80, 0x80, 0, 1]),
            at,
            audio_level: None,
            extensions: ExtensionValues::default(),
            wire: MediaExtensions::default(),
        }
    }
}

/// What a connection reports.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    Media(Arc<MediaPacket>),
    Paused {
        mid: Mid,
        layer: Layer,
        paused: bool,
    },
    /// The subscriber needs a key frame on this section.
    KeyframeWanted {
        mid: Mid,
    },
    /// What the path to the subscriber carries, bits a second; `None` when that cannot be known.
    Estimate(Option<u64>),
    /// What the subscriber reported of the packets sent to it: fraction lost, round trip.
    Reported {
        loss: Option<f32>,
        rtt: Option<Duration>,
    },
    /// What was sent to the subscriber and what of it came, by its last reports, bits a second.
    Measured {
        sent: u64,
        came: u64,
    },
    Connected,
    Disconnected,
    Recovered,
    Closed,
    Data {
        kind: DataKind,
        payload: Bytes,
    },
}

#[derive(Debug)]
pub(crate) struct Datagram {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub contents: Vec<u8>,
}

/// Where a connection puts what it produces; scratch space of the thread.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub datagrams: Vec<Datagram>,
    pub events: Vec<PeerEvent>,
    /// Of datagrams that were sent, to be filled again.
    spare: Vec<Vec<u8>>,
}

impl Sink {
    /// An empty buffer.
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        /// Larger than any packet of media, so that it need not grow.
        const ROOM: usize = 1500;
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(ROOM))
    }

    pub(crate) fn give_back(&mut self, mut buffer: Vec<u8>) {
        /// What is kept; a turn seldom needs more.
        const KEPT: usize = 1024;
        if self.spare.len() < KEPT {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Everything was sent.
    pub(crate) fn sent(&mut self) {
        let mut datagrams = std::mem::take(&mut self.datagrams);
        datagrams.drain(..).for_each(|d| self.give_back(d.contents));
        self.datagrams = datagrams;
    }
}

pub(crate) fn vp8_starts_keyframe(payload: &[u8]) -> bool {
    Vp8Descriptor::parse(payload).is_ok_and(|d| d.starts_keyframe(payload))
}

/// The running numbers of a VP8 payload, if it has a picture id.
pub(crate) fn vp8_ids(payload: &[u8]) -> Option<Vp8Ids> {
    let descriptor = Vp8Descriptor::parse(payload).ok()?;
    Some(Vp8Ids {
        picture_id: descriptor.picture_id()?,
        tl0: descriptor.tl0_pic_idx(),
    })
}

/// Append the payload with its running numbers exchanged (RFC 7741 section 4.2). Where the new number does not fit the form
/// of the old one, none is.
pub(crate) fn patched(payload: &[u8], ids: Option<Vp8Ids>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(payload);
    let Some(ids) = ids else { return };
    let Some([first, second, rest @ ..]) = out.get_mut(start..) else {
        return;
    };
    let (extended, picture, tl0) = (*first & 0x80 != 0, *second & 0x80 != 0, *second & 0x40 != 0);
    if !extended || !picture {
        return;
    }
    let [high, low] = ids.picture_id.to_be_bytes();
    let after = match rest {
        [long, next, after @ ..] if *long & 0x80 != 0 => {
            (*long, *next) = (high | 0x80, low);
            after
        }
        [short, after @ ..] if *short & 0x80 == 0 && ids.picture_id < 0x80 => {
            *short = low;
            after
        }
        _ => return,
    };
    if let (true, Some(new), Some(place)) = (tl0, ids.tl0, after.first_mut()) {
        *place = new;
    }
}

pub(crate) fn vp8_patch(payload: &[u8], ids: Vp8Ids) -> Option<Vp8Patch> {
    let descriptor = Vp8Descriptor::parse(payload).ok()?;
    let mut patch = descriptor.patch().picture_id(ids.picture_id);
    if let Some(tl0) = ids.tl0 {
        patch = patch.tl0_pic_idx(tl0);
    }
    patch.build().ok()
}
