//! One stream to one receiver: numbered, sealed, remembered, reported.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::header::{Fields, Template};
use super::history::History;
use super::rtcp::{Reception, Sending};
use super::srtp::Sealer;
use super::window::Window;
use crate::munger::Rewrite;
use crate::packet::{Codec, MediaPacket, Mid, patched};

/// Kept until the connection stands. What comes beyond is remembered as sent, and the receiver asks for it.
const WAITING: usize = 256;
/// Of what is sent, at most this share is resent, percent; on a path that loses more it would only do harm.
const RESENT_PERCENT: u64 = 25;
/// Bytes that may be resent whatever was sent before.
const RESENT_FREE: u64 = 20_000;

/// The numbers of a codec on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub codec: Codec,
    pub payload_type: u8,
    /// Of repeated packets (RFC 4588), where negotiated.
    pub repeat_type: Option<u8>,
}

#[derive(Debug)]
pub(crate) struct Leg {
    pub mid: Mid,
    pub ssrc: u32,
    pub repeat_ssrc: Option<u32>,
    pub name: String,
    pub clock_rate: u32,
    pub format: Option<Format>,
    template: Template,
    /// What was sealed under the main SSRC, and how many under the other: no number is used twice.
    sealed: Window,
    repeats: u64,
    waiting: VecDeque<(Arc<MediaPacket>, Rewrite)>,
    history: History,
    packets: u32,
    octets: u32,
    /// Timestamp of the newest packet, and when it came from its publisher.
    clock: Option<(u32, Instant)>,
    pub report_due: Option<Instant>,
    /// The receiver has said something of this stream, so it knows the section.
    known: bool,
    repeats_known: bool,
    resent: Resent,
    reported: Option<Reported>,
    highest: u64,
}

/// Bits a second between two reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Measured {
    pub sent: u64,
    pub came: u64,
}

/// Bytes sent and resent in the running second.
#[derive(Debug, Default)]
struct Resent {
    since: Option<Instant>,
    sent: u64,
    resent: u64,
}

/// Where the last report stood.
#[derive(Debug, Clone, Copy)]
struct Reported {
    at: Instant,
    highest: u32,
    lost_ever: i32,
    octets: u32,
    packets: u32,
}

impl Leg {
    pub(crate) fn new(
        mid: Mid,
        ssrc: u32,
        repeat_ssrc: Option<u32>,
        template: Template,
        name: String,
        clock_rate: u32,
    ) -> Leg {
        Leg {
            mid,
            ssrc,
            repeat_ssrc,
            name,
            clock_rate,
            format: None,
            template,
            sealed: Window::default(),
            repeats: 0,
            waiting: VecDeque::new(),
            history: History::default(),
            packets: 0,
            octets: 0,
            clock: None,
            report_due: None,
            known: false,
            repeats_known: false,
            resent: Resent::default(),
            reported: None,
            highest: 0,
        }
    }

    /// Whether anything was written to it.
    pub(crate) fn is_fresh(&self) -> bool {
        self.highest == 0
    }

    /// Take a packet; it is sent at once by [`Leg::send`], or once the connection stands by [`Leg::send_waiting`].
    pub(crate) fn wait(&mut self, packet: &Arc<MediaPacket>, rewrite: Rewrite) {
        self.note(packet, rewrite);
        if self.waiting.len() < WAITING {
            self.waiting.push_back((packet.clone(), rewrite));
        }
    }

    pub(crate) fn next_waiting(&mut self) -> Option<(Arc<MediaPacket>, Rewrite)> {
        self.waiting.pop_front()
    }

    pub(crate) fn note(&mut self, packet: &Arc<MediaPacket>, rewrite: Rewrite) {
        self.highest = self.highest.max(rewrite.seq);
        if packet.codec != Codec::Opus && self.repeat_ssrc.is_some() {
            self.history.keep(packet.clone(), rewrite);
        }
    }

    /// The sealed packet, in `out`. `None` when that number was sealed before.
    pub(crate) fn send(
        &mut self,
        packet: &MediaPacket,
        rewrite: Rewrite,
        now: Instant,
        sealer: &Sealer,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let format = self.format?;
        if !self.sealed.take(rewrite.seq) {
            return None;
        }
        self.template.ssrc = self.ssrc;
        self.template.payload_type = format.payload_type;
        let header = self
            .template
            .write(self.fields(packet, rewrite, rewrite.seq, !self.known), out);
        patched(&packet.payload, rewrite.vp8, out);
        sealer.rtp(out, header, rewrite.seq)?;
        // Truncations are meant: both count modulo 2³² (RFC 3550 section 6.4.1).
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(packet.payload.len() as u32);
        self.resent.begin(now).sent += packet.payload.len() as u64;
        if self.clock.is_none_or(|(_, at)| packet.at >= at) {
            self.clock = Some((rewrite.timestamp, packet.at));
        }
        self.report_due.get_or_insert(now);
        Some(())
    }

    /// A packet that the receiver misses, sealed as one of the stream of repeats (RFC 4588), in `out`.
    pub(crate) fn resend(
        &mut self,
        number: u16,
        now: Instant,
        round_trip: Duration,
        sealer: &Sealer,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let (ssrc, payload_type) = (self.repeat_ssrc?, self.format?.repeat_type?);
        if self.resent.begin(now).is_spent() {
            return None;
        }
        let kept = self.history.missing(number, now, round_trip)?.clone();
        self.repeats += 1;
        let repeat = self.repeats;
        self.template.ssrc = ssrc;
        self.template.payload_type = payload_type;
        let header = self.template.write(
            self.fields(&kept.packet, kept.rewrite, repeat, !self.repeats_known),
            out,
        );
        // Truncation is meant: the number that it had on the wire.
        out.extend((kept.rewrite.seq as u16).to_be_bytes());
        patched(&kept.packet.payload, kept.rewrite.vp8, out);
        sealer.rtp(out, header, repeat)?;
        self.resent.resent += kept.packet.payload.len() as u64;
        Some(())
    }

    fn fields(&self, packet: &MediaPacket, rewrite: Rewrite, sequence: u64, with_mid: bool) -> Fields {
        Fields {
            // Truncation is meant: the roll-over counter is not sent.
            sequence: sequence as u16,
            timestamp: rewrite.timestamp,
            marker: packet.marker,
            extensions: packet.wire,
            with_mid,
        }
    }

    /// What a report says of the stream now.
    pub(crate) fn sending(&self, now: Instant, ntp: u64) -> Option<Sending<'_>> {
        let (timestamp, at) = self.clock?;
        let passed = now.saturating_duration_since(at).as_micros() * u128::from(self.clock_rate) / 1_000_000;
        Some(Sending {
            ssrc: self.ssrc,
            ntp,
            // Truncation is meant: RTP time is modulo 2³².
            timestamp: timestamp.wrapping_add(passed as u32),
            packets: self.packets,
            octets: self.octets,
            name: &self.name,
        })
    }

    /// The receiver's report, held against what was sent since the last one.
    pub(crate) fn reported(&mut self, report: Reception, now: Instant) -> Option<Measured> {
        if Some(report.ssrc) == self.repeat_ssrc {
            self.repeats_known = true;
            return None;
        }
        self.known = true;
        let new = Reported {
            at: now,
            highest: report.highest,
            lost_ever: report.lost_ever,
            octets: self.octets,
            packets: self.packets,
        };
        let old = self.reported.replace(new)?;
        let micros = u64::try_from(now.saturating_duration_since(old.at).as_micros()).ok()?;
        // Two reports in one compound, or too soon after another, measure nothing.
        if micros < 100_000 {
            self.reported = Some(old);
            return None;
        }
        let came = i64::from(report.highest.wrapping_sub(old.highest))
            - i64::from(report.lost_ever.wrapping_sub(old.lost_ever));
        let sent = u64::from(new.packets.wrapping_sub(old.packets));
        let bytes = u64::from(new.octets.wrapping_sub(old.octets)) + sent * OVERHEAD;
        let rate = |packets: u64| (bytes * packets).checked_div(sent).unwrap_or(0) * 8_000_000 / micros;
        // What was under way at the last report comes in this one; twice as much did not.
        let came = u64::try_from(came).unwrap_or(0).min(sent.saturating_mul(2));
        Some(Measured {
            sent: rate(sent),
            came: rate(came),
        })
    }
}

/// Headers, encryption and their like, bytes of each packet.
const OVERHEAD: u64 = 40;

impl Resent {
    fn begin(&mut self, now: Instant) -> &mut Resent {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= Duration::from_secs(1) {
            *self = Resent {
                since: Some(now),
                // Half of what was, so that the share does not begin anew each second.
                sent: self.sent / 2,
                resent: self.resent / 2,
            };
        }
        self
    }

    fn is_spent(&self) -> bool {
        self.resent > RESENT_FREE && self.resent * 100 > self.sent * RESENT_PERCENT
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may fail")]
mod tests {
    use super::super::header::{ExtensionIds, MediaExtensions};
    use super::super::srtp::Profile;
    use super::*;
    use crate::munger::Vp8Ids;
    use proptest::prelude::*;
    use rtc::rtp::packet::Packet;
    use rtc::shared::marshal::Unmarshal;
    use rtc::srtp::context::Context;
    use rtc::srtp::protection_profile::ProtectionProfile;

    const PROFILES: [(Profile, ProtectionProfile); 3] = [
        (Profile::Counter, ProtectionProfile::Aes128CmHmacSha1_80),
        (Profile::Gcm128, ProtectionProfile::AeadAes128Gcm),
        (Profile::Gcm256, ProtectionProfile::AeadAes256Gcm),
    ];

    /// Our sealer, and the load client's stack, which shares no line with it, as the one who opens.
    fn ends(at: usize) -> (Sealer, Context) {
        let (ours, theirs) = PROFILES[at];
        let (key, salt) = ours.lengths();
        let (key, salt): (Vec<u8>, Vec<u8>) = ((0..key as u8).collect(), (100..100 + salt as u8).collect());
        let provider = rtc::crypto::default_provider().unwrap();
        let context = Context::new(&key, &salt, theirs, None, None, provider.crypto()).unwrap();
        (Sealer::new(ours, &key, &salt).unwrap(), context)
    }

    fn leg() -> Leg {
        let ids = ExtensionIds {
            mid: Some(4),
            audio_level: Some(1),
            orientation: Some(13),
        };
        let template = Template {
            ssrc: 0,
            payload_type: 0,
            ids,
            mid: "m7".into(),
        };
        let mut leg = Leg::new(Mid::from("m7"), 0xa1b2_c3d4, Some(77), template, "ann".into(), 90_000);
        leg.format = Some(Format {
            codec: Codec::Vp8,
            payload_type: 96,
            repeat_type: Some(97),
        });
        leg
    }

    proptest! {
        /// Over the wrap of the sequence number, with repeats: what an independent receiver opens is what was forwarded.
        #[test]
        fn another_stack_opens_what_is_sealed(
            at in 0usize..3,
            first in 65_000u64..65_536,
            packets in proptest::collection::vec((1u64..30, any::<u32>(), any::<bool>(), proptest::option::of(any::<u8>()), 6usize..1200, any::<bool>()), 1..60)
        ) {
            let (sealer, mut receiver) = ends(at);
            let (mut leg, now) = (leg(), Instant::now());
            let mut seq = first;
            for (step, timestamp, marker, level, length, again) in packets {
                let mut payload = vec![0x5a; length];
                payload[..6].copy_from_slice(&[0x90, 0xc0, 0x80, 1, 2, 0x33]);
                let packet = Arc::new(MediaPacket {
                    marker,
                    payload: payload.clone().into(),
                    wire: MediaExtensions { audio_level: level, orientation: None },
                    ..MediaPacket::for_tests(now)
                });
                let vp8 = Some(Vp8Ids { picture_id: 0x1234, tl0: Some(9) });
                let rewrite = Rewrite { seq, timestamp, vp8 };
                leg.note(&packet, rewrite);
                let mut sealed = Vec::new();
                prop_assert!(leg.send(&packet, rewrite, now, &sealer, &mut sealed).is_some());
                prop_assert!(leg.send(&packet, rewrite, now, &sealer, &mut Vec::new()).is_none(), "never twice");
                payload[2..5].copy_from_slice(&[0x92, 0x34, 9]);
                let open = |receiver: &mut Context, sealed: &[u8]| {
                    let opened = receiver.decrypt_rtp(sealed).unwrap();
                    Packet::unmarshal(&mut opened.freeze()).unwrap()
                };
                let got = open(&mut receiver, &sealed);
                let header = &got.header;
                prop_assert_eq!(
                    (header.ssrc, header.payload_type, header.sequence_number, header.timestamp, header.marker),
                    (leg.ssrc, 96, seq as u16, timestamp, marker)
                );
                prop_assert_eq!(header.get_extension(4).map(|v| v.to_vec()), Some(b"m7".to_vec()));
                prop_assert_eq!(header.get_extension(1).map(|v| v.to_vec()), level.map(|v| vec![v]));
                prop_assert_eq!(&got.payload[..], &payload[..]);
                let mut sealed = Vec::new();
                if again && leg.resend(seq as u16, now, Duration::ZERO, &sealer, &mut sealed).is_some() {
                    let got = open(&mut receiver, &sealed);
                    let header = &got.header;
                    prop_assert_eq!((header.ssrc, header.payload_type, header.timestamp), (77, 97, timestamp));
                    prop_assert_eq!(&got.payload[..2], &(seq as u16).to_be_bytes()[..]);
                    prop_assert_eq!(&got.payload[2..], &payload[..]);
                }
                seq += step;
            }
        }
    }

    #[test]
    fn another_stack_opens_reports_and_ours_are_opened() {
        for at in 0..3 {
            let (sealer, mut receiver) = ends(at);
            let mut leg = leg();
            let now = Instant::now();
            assert!(leg.sending(now, 0).is_none(), "nothing was sent");
            let packet = Arc::new(MediaPacket::for_tests(now));
            let rewrite = Rewrite {
                seq: 1,
                timestamp: 9000,
                vp8: None,
            };
            leg.send(&packet, rewrite, now, &sealer, &mut Vec::new()).unwrap();
            let report = super::super::rtcp::sender_report(leg.sending(now + Duration::from_millis(100), 7).unwrap());
            let mut sealed = report.clone();
            sealer.rtcp(&mut sealed, 3).unwrap();
            assert_eq!(receiver.decrypt_rtcp(&sealed).unwrap()[..], report[..]);
            assert_eq!(report[16..20], 18_000u32.to_be_bytes(), "a tenth of a second later");
        }
    }

    #[test]
    fn a_path_is_measured_by_what_came() {
        let mut leg = leg();
        let start = Instant::now();
        let report = |highest, lost_ever| Reception {
            ssrc: leg.ssrc,
            lost: 0,
            lost_ever,
            highest,
            last_report: 0,
            since: 0,
        };
        let (first, second) = (report(10, 0), report(110, 20));
        assert_eq!(leg.reported(first, start), None);
        (leg.packets, leg.octets) = (100, 100 * 960);
        // 80 of 100 packets of 960 and 40 bytes in two seconds.
        assert_eq!(
            leg.reported(second, start + Duration::from_secs(2)),
            Some(Measured {
                sent: 400_000,
                came: 320_000
            })
        );
    }
}
