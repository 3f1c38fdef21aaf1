//! Whose a stream that a connection sends is: the library's, or ours ([`crate::egress`]).

use str0m::Rtc;
use str0m::media::MediaKind as LibraryKind;
use str0m::rtp::{Extension, Ssrc};

use crate::egress::{ExtensionIds, Format, Leg, Template};
use crate::packet::{Codec, Mid};
use crate::peer::Peer;
use crate::sdp;

impl Peer {
    /// The payload types of a codec differ from leg to leg.
    pub(crate) fn format(&mut self, mid: Mid, codec: Codec) -> Option<Format> {
        if let Some(format) = self.formats.get(&(mid, codec)) {
            return Some(*format);
        }
        let accepted = self.rtc.media(mid)?.remote_pts();
        let params = self.rtc.codec_config().params();
        let params = params
            .iter()
            .find(|p| accepted.contains(&p.pt()) && Codec::from_library(p.spec().codec) == Some(codec))?;
        let format = Format {
            codec,
            payload_type: *params.pt(),
            repeat_type: params.resend().map(|pt| *pt),
        };
        self.formats.insert((mid, codec), format);
        Some(format)
    }

    /// Read or make a description. It names the streams that we send, so the library has them for that moment, and what
    /// it made new is ours then.
    pub(crate) fn describe<T>(&mut self, sdp: &str, work: impl FnOnce(&mut Rtc) -> T) -> T {
        let ours = |leg: &Leg| (leg.mid, Ssrc::from(leg.ssrc), leg.repeat_ssrc.map(Ssrc::from));
        let lent: Vec<(Mid, Ssrc, Option<Ssrc>)> = self.egress.legs().iter().map(ours).collect();
        for (mid, ssrc, repeats) in &lent {
            if self.rtc.media(*mid).is_some() {
                self.rtc.direct_api().declare_stream_tx(*ssrc, *repeats, *mid, None);
            }
        }
        let out = work(&mut self.rtc);
        for (_, ssrc, _) in &lent {
            self.rtc.direct_api().remove_stream_tx(*ssrc);
        }
        for section in sdp::sections(sdp) {
            self.take_stream(Mid::from(section.mid.as_str()));
        }
        self.formats.clear();
        self.egress.forget_formats();
        out
    }

    /// Make the stream sent on a section ours, before the library has sent on it.
    fn take_stream(&mut self, mid: Mid) {
        if self.library.contains(&mid) || self.egress.leg(mid).is_some() {
            return;
        }
        let Some(media) = self.rtc.media(mid).filter(|media| media.direction().is_sending()) else {
            return;
        };
        let numbers = media.remote_extmap();
        let template = Template {
            ssrc: 0,
            payload_type: 0,
            ids: ExtensionIds {
                mid: numbers.id_of(Extension::RtpMid),
                audio_level: numbers.id_of(Extension::AudioLevel),
                orientation: numbers.id_of(Extension::VideoOrientation),
            },
            mid: mid.to_string(),
        };
        let clock_rate = if media.kind() == LibraryKind::Audio {
            48_000
        } else {
            90_000
        };
        let name = media.cname().to_owned();
        let mut direct = self.rtc.direct_api();
        let Some((ssrc, repeats)) = direct
            .stream_tx_by_mid(mid, None)
            .map(|stream| (stream.ssrc(), stream.rtx()))
        else {
            return;
        };
        direct.remove_stream_tx(ssrc);
        self.egress.add(Leg::new(
            mid,
            *ssrc,
            repeats.map(|ssrc| *ssrc),
            template,
            name,
            clock_rate,
        ));
    }

    /// Give a stream that we have not sent on back to the library, for good.
    pub(crate) fn leave_to_library(&mut self, mid: Mid) {
        let Some(leg) = self.egress.remove(mid) else { return };
        let (ssrc, repeats) = (Ssrc::from(leg.ssrc), leg.repeat_ssrc.map(Ssrc::from));
        self.rtc.direct_api().declare_stream_tx(ssrc, repeats, mid, None);
        self.library.insert(mid);
    }
}
