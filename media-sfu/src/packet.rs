//! What passes between connections and the engine: packets, reports, datagrams. With [`crate::peer`] the only file that
//! names the library.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use str0m::format::Codec as LibraryCodec;
use str0m::rtp::{ExtensionValues, Vp8Descriptor, Vp8Patch};

pub(crate) use str0m::media::Mid;

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
}

/// What a connection reports.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    Media(Box<MediaPacket>),
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

pub(crate) fn vp8_patch(payload: &[u8], ids: Vp8Ids) -> Option<Vp8Patch> {
    let descriptor = Vp8Descriptor::parse(payload).ok()?;
    let mut patch = descriptor.patch().picture_id(ids.picture_id);
    if let Some(tl0) = ids.tl0 {
        patch = patch.tl0_pic_idx(tl0);
    }
    patch.build().ok()
}
