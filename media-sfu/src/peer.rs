//! One WebRTC connection, on the library (`str0m`); see [`crate::packet`] for where it is named.
//!
//! The library's rule is: after every change, drain its output before the next change. Every method of [`Peer`] does so; only
//! outgoing RTP may be gathered ([`Peer::write`] marks, [`Peer::flush`] drains once).

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use str0m::bwe::Bitrate;
use str0m::change::{SdpAnswer, SdpApi, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind as LibraryKind, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpWrite, Ssrc};
use str0m::{Candidate, Input, Output, Rtc, RtcError};

use crate::egress::{Egress, Format, is_rtcp, keys};
use crate::ids::{Layer, MediaKind};
use crate::messages::DataKind;
use crate::munger::Rewrite;
use crate::packet::{Codec, Datagram, MediaPacket, Mid, Sink, vp8_patch};

pub(crate) const RELIABLE_LABEL: &str = "_reliable";
pub(crate) const LOSSY_LABEL: &str = "_lossy";
/// Reliable data waiting for the association; beyond it the participant is told to start over.
const DATA_QUEUE_BYTES: usize = 1 << 20;

/// How often receiver reports are looked at.
const REPORTS: Duration = Duration::from_secs(1);
/// Sooner than this the library is not asked again: a deadline in the past would spin.
const SOONEST: Duration = Duration::from_micros(500);
/// After each packet the library wants to be asked again at once. The packets of a picture share one such wake-up; what may
/// be due then, the next step of a probe, is not spaced closer.
const AFTER_MEDIA: Duration = Duration::from_millis(2);
/// Rounds that the library gets at one moment; it sends one paced packet in each.
const ROUNDS: usize = 64;

/// Sender of a report that is made to see where the library would send it, and is not sent.
const SOUNDING: u32 = 0x736f_756e;

/// Bits a second assumed of a path that was not measured yet.
const INITIAL_ESTIMATE: u64 = 2_000_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("{0}")]
    Library(#[from] RtcError),
    #[error("session description: {0}")]
    Sdp(String),
    #[error("reliable data is not read")]
    DataOverflow,
}

/// What all connections of the process share.
#[derive(Debug, Clone)]
pub(crate) struct PeerFactory {
    crypto: Arc<CryptoProvider>,
    certificate: Option<DtlsCert>,
}

impl PeerFactory {
    pub(crate) fn new() -> PeerFactory {
        let crypto = Arc::new(keys::observed(str0m::crypto::from_feature_flags()));
        let certificate = crypto.dtls_provider.generate_certificate();
        PeerFactory { crypto, certificate }
    }

    /// A connection reachable at `local` addresses.
    pub(crate) fn create(&self, local: &[SocketAddr], now: Instant) -> Peer {
        let mut config = Rtc::builder()
            .set_crypto_provider(self.crypto.clone())
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .set_dtls_version(DtlsVersion::Auto)
            .set_stats_interval(Some(REPORTS))
            .enable_bwe(Some(Bitrate::bps(INITIAL_ESTIMATE)))
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .enable_h264(true)
            .enable_vp9(true)
            .enable_av1(true);
        if let Some(certificate) = &self.certificate {
            config = config.set_dtls_cert(certificate.clone());
        }
        let mut rtc = config.build(now);
        for addr in local {
            if let Ok(candidate) = Candidate::host(*addr, Protocol::Udp) {
                rtc.add_local_candidate(candidate);
            }
        }
        Peer {
            rtc,
            deadline: now,
            wanted: now,
            written: 0,
            connected: false,
            sources: HashMap::new(),
            formats: HashMap::new(),
            channels: HashMap::new(),
            waiting_data: Vec::new(),
            waiting_bytes: 0,
            pending_offer: None,
            egress: Egress::default(),
            library: HashSet::new(),
        }
    }
}

pub(crate) struct Peer {
    pub(crate) rtc: Rtc,
    deadline: Instant,
    /// The deadline as the library named it.
    wanted: Instant,
    /// RTP packets that were written and not drained yet.
    written: usize,
    pub(crate) connected: bool,
    /// SSRC to section and layer, so that the library's lookup is done once a stream.
    pub(crate) sources: HashMap<u32, (Mid, Layer)>,
    pub(crate) formats: HashMap<(Mid, Codec), Format>,
    pub(crate) channels: HashMap<DataKind, ChannelId>,
    waiting_data: Vec<Bytes>,
    waiting_bytes: usize,
    pending_offer: Option<SdpPendingOffer>,
    /// What is sent without the library's help.
    pub(crate) egress: Egress,
    /// Video sections on which the library sends: of tracks with several sizes, for which it measures the path.
    pub(crate) library: HashSet<Mid>,
}

impl Peer {
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// A datagram for this connection. Garbage is ignored; an error means that the connection is lost.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: SocketAddr,
        datagram: &[u8],
        sink: &mut Sink,
    ) -> Result<(), PeerError> {
        self.settle(now, sink)?;
        let ours = self.egress.receive(datagram, now, !self.library_sends_video(), sink);
        self.egress.flush(now, sink);
        if ours {
            return Ok(());
        }
        let Ok(receive) = Receive::new(Protocol::Udp, remote, local, datagram) else {
            return Ok(());
        };
        self.rtc.handle_input(Input::Receive(now, receive))?;
        self.drain(now, sink)?;
        // A check of a path may have moved us to another.
        if matches!(datagram, [0..=3, ..]) {
            self.sound(now, sink)?;
        }
        Ok(())
    }

    /// Learn where to send: the library knows, and says so by sending something, which is caught.
    fn sound(&mut self, now: Instant, sink: &mut Sink) -> Result<(), PeerError> {
        if !self.connected || self.egress.is_empty() {
            return Ok(());
        }
        let nobody = Ssrc::from(SOUNDING);
        self.rtc
            .direct_api()
            .send_app_specific_feedback(nobody, nobody, Vec::new());
        self.drain(now, sink)
    }

    pub(crate) fn library_sends_video(&self) -> bool {
        !self.library.is_empty()
    }

    /// Sender's reports of our own streams.
    pub(crate) fn report(&mut self, now: Instant, sink: &mut Sink) {
        self.egress.report(now);
        self.egress.flush(now, sink);
    }

    /// Time passed. The library sends one packet of a burst at a time and wants to be asked again at once; a burst that
    /// is drawn out would measure us and not the path.
    pub(crate) fn tick(&mut self, now: Instant, sink: &mut Sink) -> Result<(), PeerError> {
        for _ in 0..ROUNDS {
            self.rtc.handle_input(Input::Timeout(now))?;
            self.drain(now, sink)?;
            if self.wanted > now + Duration::from_micros(1) {
                break;
            }
        }
        Ok(())
    }

    /// Queue one RTP packet of a track (in several sizes or not) on a section; true when it was taken. Sent by the next
    /// [`Peer::flush`].
    pub(crate) fn write(
        &mut self,
        mid: Mid,
        layered: bool,
        packet: &Arc<MediaPacket>,
        rewrite: Rewrite,
        now: Instant,
        sink: &mut Sink,
    ) -> bool {
        if let Some(leg) = self.egress.leg(mid) {
            let (fresh, known) = (leg.is_fresh(), leg.format.is_some_and(|f| f.codec == packet.codec));
            let video = packet.codec != Codec::Opus;
            if !fresh || !video || !(layered || self.library_sends_video()) {
                if !known {
                    let Some(format) = self.format(mid, packet.codec) else {
                        return false;
                    };
                    if let Some(leg) = self.egress.leg(mid) {
                        leg.format = Some(format);
                    }
                }
                return self.egress.write(mid, packet, rewrite, now, sink);
            }
            self.leave_to_library(mid);
        }
        let Some(Format { payload_type, .. }) = self.format(mid, packet.codec) else {
            return false;
        };
        let pt = Pt::from(payload_type);
        let mut direct = self.rtc.direct_api();
        let Some(stream) = direct.stream_tx_by_mid(mid, None) else {
            return false;
        };
        // A publisher paces what it sends, and so does what is forwarded. Held up again, it would only come later.
        stream.set_unpaced(true);
        let mut out = RtpWrite::new(
            pt,
            rewrite.seq.into(),
            rewrite.timestamp,
            packet.at,
            packet.payload.clone(),
        )
        .marker(packet.marker)
        .nackable(packet.codec != Codec::Opus)
        .ext_vals(packet.extensions.clone());
        if let Some(patch) = rewrite.vp8.and_then(|ids| vp8_patch(&packet.payload, ids)) {
            out = out.vp8_patch(patch);
        }
        stream.write_rtp(out);
        self.written += 1;
        true
    }

    /// End the stream sent on a section. The next description that sends on it carries new SSRCs: a browser takes a
    /// stream that comes back under its old SSRC for one that it still shows, decodes it and shows nothing.
    pub(crate) fn end_stream(&mut self, mid: Mid, now: Instant, sink: &mut Sink) -> Result<(), PeerError> {
        self.settle(now, sink)?;
        self.egress.remove(mid);
        self.library.remove(&mid);
        let mut direct = self.rtc.direct_api();
        if let Some(ssrc) = direct.stream_tx_by_mid(mid, None).map(|stream| stream.ssrc()) {
            direct.remove_stream_tx(ssrc);
        }
        self.tick(now, sink)
    }

    pub(crate) fn flush(&mut self, now: Instant, sink: &mut Sink) -> Result<(), PeerError> {
        for _ in 0..std::mem::take(&mut self.written) {
            self.rtc.handle_input(Input::Timeout(now))?;
            self.drain(now, sink)?;
            self.deadline = self.deadline.max(now + AFTER_MEDIA);
        }
        self.egress.flush(now, sink);
        Ok(())
    }

    pub(crate) fn request_keyframe(
        &mut self,
        mid: Mid,
        layer: Layer,
        now: Instant,
        sink: &mut Sink,
    ) -> Result<(), PeerError> {
        let ssrc = self
            .sources
            .iter()
            .find(|(_, source)| **source == (mid, layer))
            .map(|(ssrc, _)| *ssrc);
        let Some(ssrc) = ssrc else { return Ok(()) };
        self.settle(now, sink)?;
        if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc.into()) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
        self.tick(now, sink)
    }

    /// Tell the estimator how much would be of use, so that it looks for it.
    pub(crate) fn set_desired(&mut self, bits: u64, now: Instant, sink: &mut Sink) -> Result<(), PeerError> {
        if !self.library_sends_video() {
            return Ok(());
        }
        self.settle(now, sink)?;
        self.rtc.bwe().set_bitrate(Bitrate::ZERO, Bitrate::bps(bits));
        self.tick(now, sink)
    }

    /// The client's offer in, our answer out.
    pub(crate) fn accept_offer(&mut self, sdp: &str, now: Instant, sink: &mut Sink) -> Result<String, PeerError> {
        let offer = SdpOffer::from_sdp_string(sdp).map_err(|e| PeerError::Sdp(e.to_string()))?;
        self.settle(now, sink)?;
        let answer = self.describe(sdp, |rtc| rtc.sdp_api().accept_offer(offer))?;
        self.tick(now, sink)?;
        Ok(answer.to_sdp_string())
    }

    /// Make an offer of ours; `None` when nothing changed. `change` gets the list of changes to fill.
    pub(crate) fn offer<T>(
        &mut self,
        now: Instant,
        sink: &mut Sink,
        change: impl FnOnce(&mut OfferChanges<'_>) -> T,
    ) -> Result<(T, Option<String>), PeerError> {
        self.settle(now, sink)?;
        let (out, made) = self.describe("", |rtc| {
            let mut changes = OfferChanges(rtc.sdp_api());
            let out = change(&mut changes);
            (out, changes.0.apply())
        });
        let sdp = made.map(|(offer, pending)| {
            self.pending_offer = Some(pending);
            offer.to_sdp_string()
        });
        self.tick(now, sink)?;
        Ok((out, sdp))
    }

    pub(crate) fn accept_answer(&mut self, sdp: &str, now: Instant, sink: &mut Sink) -> Result<(), PeerError> {
        let Some(pending) = self.pending_offer.take() else {
            return Err(PeerError::Sdp("an answer without an offer".to_owned()));
        };
        let answer = SdpAnswer::from_sdp_string(sdp).map_err(|e| PeerError::Sdp(e.to_string()))?;
        self.settle(now, sink)?;
        self.describe(sdp, |rtc| rtc.sdp_api().accept_answer(pending, answer))?;
        self.tick(now, sink)
    }

    /// Send a data message. Lossy messages that find no room are dropped; reliable ones wait, up to a bound.
    pub(crate) fn send_data(
        &mut self,
        kind: DataKind,
        payload: Bytes,
        now: Instant,
        sink: &mut Sink,
    ) -> Result<(), PeerError> {
        self.settle(now, sink)?;
        let must_wait = kind == DataKind::Reliable && !self.waiting_data.is_empty();
        if !must_wait && self.try_send(kind, &payload)? {
            return self.tick(now, sink);
        }
        if kind == DataKind::Reliable {
            self.waiting_bytes += payload.len();
            if self.waiting_bytes > DATA_QUEUE_BYTES {
                return Err(PeerError::DataOverflow);
            }
            self.waiting_data.push(payload);
        }
        Ok(())
    }

    /// Try waiting reliable data again.
    pub(crate) fn retry_data(&mut self, now: Instant, sink: &mut Sink) -> Result<(), PeerError> {
        while let Some(payload) = self.waiting_data.first().cloned() {
            self.settle(now, sink)?;
            if !self.try_send(DataKind::Reliable, &payload)? {
                break;
            }
            self.waiting_data.remove(0);
            self.waiting_bytes = self.waiting_bytes.saturating_sub(payload.len());
            self.tick(now, sink)?;
        }
        Ok(())
    }

    fn try_send(&mut self, kind: DataKind, payload: &[u8]) -> Result<bool, PeerError> {
        let Some(id) = self.channels.get(&kind).copied() else {
            return Ok(false);
        };
        let Some(mut channel) = self.rtc.channel(id) else {
            return Ok(false);
        };
        Ok(channel.write(true, payload)?)
    }

    /// Say goodbye; the farewell goes into the sink.
    pub(crate) fn close(&mut self, now: Instant, sink: &mut Sink) {
        self.egress.goodbye();
        let closed = self
            .settle(now, sink)
            .and_then(|()| Ok(self.rtc.close()?))
            .and_then(|()| self.drain(now, sink));
        if let Err(error) = closed {
            tracing::debug!(%error, "farewell of a media connection failed");
        }
    }

    fn settle(&mut self, now: Instant, sink: &mut Sink) -> Result<(), PeerError> {
        self.flush(now, sink)
    }

    fn drain(&mut self, now: Instant, sink: &mut Sink) -> Result<(), PeerError> {
        loop {
            let output = self.rtc.poll_output();
            if self.egress.wants_keys()
                && let Some(keys) = keys::take()
            {
                self.egress.set_keys(keys);
            }
            match output? {
                Output::Timeout(at) => {
                    self.wanted = at;
                    // A far deadline is of no use.
                    self.deadline = at.clamp(now + SOONEST, now + Duration::from_secs(10));
                    return Ok(());
                }
                Output::Transmit(t) => {
                    let contents: &[u8] = &t.contents;
                    // Answers to checks go to where the checks came from; all else to where media goes.
                    if !matches!(contents, [0..=3, ..]) {
                        self.egress.set_way((t.source, t.destination));
                    }
                    if is_rtcp(contents) && contents.get(4..8) == Some(&SOUNDING.to_be_bytes()) {
                        continue;
                    }
                    sink.datagrams.push(Datagram {
                        local: t.source,
                        remote: t.destination,
                        contents: t.contents.into(),
                    });
                }
                Output::Event(event) => self.event(event, now, sink),
            }
        }
    }
}

/// Changes of an offer that the server makes.
pub(crate) struct OfferChanges<'a>(SdpApi<'a>);

impl OfferChanges<'_> {
    pub(crate) fn add_sending(&mut self, kind: MediaKind, stream: &str, track: &str) -> Mid {
        let kind = match kind {
            MediaKind::Audio => LibraryKind::Audio,
            MediaKind::Video => LibraryKind::Video,
        };
        self.0.add_media(
            kind,
            Direction::SendOnly,
            Some(stream.to_owned()),
            Some(track.to_owned()),
            None,
        )
    }

    pub(crate) fn stop_sending(&mut self, mid: Mid) {
        self.0.set_direction(mid, Direction::Inactive);
    }

    pub(crate) fn add_data_channels(&mut self) {
        self.0.add_channel(RELIABLE_LABEL.to_owned());
        self.0.add_channel_with_config(ChannelConfig {
            label: LOSSY_LABEL.to_owned(),
            ordered: false,
            reliability: Reliability::MaxRetransmits { retransmits: 0 },
            ..ChannelConfig::default()
        });
    }

    pub(crate) fn restart_ice(&mut self) {
        self.0.ice_restart(true);
    }
}
