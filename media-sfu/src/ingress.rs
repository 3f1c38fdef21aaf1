//! What a connection reports and receives: the library's events, and the packets of a publisher.

use std::sync::Arc;
use std::time::Instant;

use str0m::bwe::BweKind;
use str0m::rtp::{ExtensionValues, RtpPacket};
use str0m::{Event, IceConnectionState};

use crate::egress::MediaExtensions;
use crate::ids::Layer;
use crate::messages::DataKind;
use crate::packet::{Codec, MediaPacket, PeerEvent, Sink};
use crate::peer::{LOSSY_LABEL, Peer, RELIABLE_LABEL};

impl Peer {
    pub(crate) fn event(&mut self, event: Event, now: Instant, sink: &mut Sink) {
        let event = match event {
            Event::RtpPacket(packet) => match self.media(packet) {
                Some(packet) => PeerEvent::Media(Arc::new(packet)),
                None => return,
            },
            Event::StreamPaused(p) => PeerEvent::Paused {
                mid: p.mid,
                layer: Layer::from_rid(p.rid.as_deref()),
                paused: p.paused,
            },
            Event::KeyframeRequest(request) => PeerEvent::KeyframeWanted { mid: request.mid },
            Event::MediaEgressStats(stats) if stats.loss.is_some() || stats.rtt.is_some() => PeerEvent::Reported {
                loss: stats.loss,
                rtt: stats.rtt,
            },
            Event::Connected => {
                self.connected = true;
                self.egress.set_connected();
                PeerEvent::Connected
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => PeerEvent::Disconnected,
            Event::IceConnectionStateChange(IceConnectionState::Connected | IceConnectionState::Completed)
                if self.connected =>
            {
                PeerEvent::Recovered
            }
            Event::EgressBitrateEstimate(BweKind::Twcc {
                estimate, can_probe, ..
            }) => {
                // It knows only of what it sends itself.
                if !self.library_sends_video() {
                    return;
                }
                let beside = self.egress.measured(now).came;
                PeerEvent::Estimate(can_probe.then_some(estimate.as_u64() + beside))
            }
            Event::ChannelOpen(id, label) => {
                match label.as_str() {
                    RELIABLE_LABEL => self.channels.insert(DataKind::Reliable, id),
                    LOSSY_LABEL => self.channels.insert(DataKind::Lossy, id),
                    _ => None,
                };
                return;
            }
            Event::ChannelData(data) => {
                let kind = match self.channels.iter().find(|(_, id)| **id == data.id) {
                    Some((kind, _)) => *kind,
                    None => return,
                };
                PeerEvent::Data {
                    kind,
                    payload: data.data.into(),
                }
            }
            Event::Closed => PeerEvent::Closed,
            _ => return,
        };
        sink.events.push(event);
    }

    fn media(&mut self, packet: RtpPacket) -> Option<MediaPacket> {
        let ssrc = packet.header.ssrc;
        let (mid, layer) = match self.sources.get(&*ssrc) {
            Some(known) => *known,
            None => {
                let mut direct = self.rtc.direct_api();
                let stream = direct.stream_rx(&ssrc)?;
                let source = (stream.mid(), Layer::from_rid(stream.rid().as_deref()));
                self.sources.insert(*ssrc, source);
                source
            }
        };
        let pt = packet.header.payload_type;
        let params = self.rtc.codec_config().params().iter().find(|p| p.pt() == pt)?;
        let codec = Codec::from_library(params.spec().codec)?;
        let from = packet.header.ext_vals;
        let extensions = ExtensionValues {
            audio_level: from.audio_level,
            voice_activity: from.voice_activity,
            video_orientation: from.video_orientation,
            video_content_type: from.video_content_type,
            play_delay_min: from.play_delay_min,
            play_delay_max: from.play_delay_max,
            ..ExtensionValues::default()
        };
        let level = extensions.audio_level.map(|level| level.unsigned_abs().min(127));
        let voice = u8::from(extensions.voice_activity.unwrap_or(false)) << 7;
        let wire = MediaExtensions {
            audio_level: level.map(|level| level | voice),
            // Its numbers are the bits on the wire.
            orientation: extensions.video_orientation.map(|turned| turned as u8),
        };
        Some(MediaPacket {
            mid,
            layer,
            codec,
            seq: *packet.seq_no,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            payload: packet.payload,
            at: packet.timestamp,
            audio_level: level,
            extensions,
            wire,
        })
    }
}
