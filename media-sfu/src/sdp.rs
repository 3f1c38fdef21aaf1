//! The few things that are read from and changed in session descriptions as text: which section carries what, and
//! under which labels a receiver sees it. Negotiation itself is the WebRTC library's.

use std::collections::HashMap;

use crate::ids::MediaKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// One `m=` section of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub mid: String,
    pub kind: MediaKind,
    pub direction: Direction,
    /// The second word of `a=msid`.
    pub track: Option<String>,
    /// MIME type of the first payload type.
    pub mime: String,
    /// Whether it is sent in several sizes (RFC 8853).
    pub layered: bool,
    /// Port 0 outside a bundle: the section is dead.
    pub rejected: bool,
}

/// The audio and video sections, in order. Sections without a mid are left out.
pub(crate) fn sections(sdp: &str) -> Vec<Section> {
    split(sdp).skip(1).filter_map(parse_section).collect()
}

fn parse_section(text: &str) -> Option<Section> {
    let mut lines = text.lines();
    let mut m = lines.next()?.strip_prefix("m=")?.split_ascii_whitespace();
    let kind = match m.next()? {
        "audio" => MediaKind::Audio,
        "video" => MediaKind::Video,
        _ => return None,
    };
    let port = m.next()?;
    let first_payload = m.nth(1)?;
    let mut section = Section {
        mid: String::new(),
        kind,
        direction: Direction::SendRecv,
        track: None,
        mime: String::new(),
        layered: false,
        rejected: port == "0",
    };
    for line in lines {
        let Some(attribute) = line.strip_prefix("a=") else {
            continue;
        };
        match attribute {
            "sendrecv" => section.direction = Direction::SendRecv,
            "sendonly" => section.direction = Direction::SendOnly,
            "recvonly" => section.direction = Direction::RecvOnly,
            "inactive" => section.direction = Direction::Inactive,
            "bundle-only" => section.rejected = false,
            _ => {
                if let Some(mid) = attribute.strip_prefix("mid:") {
                    section.mid = mid.trim().to_owned();
                } else if attribute.starts_with("simulcast:") {
                    section.layered = true;
                } else if let Some(msid) = attribute.strip_prefix("msid:") {
                    section.track = msid.split_ascii_whitespace().nth(1).map(str::to_owned);
                } else if let Some((payload, codec)) = attribute.strip_prefix("rtpmap:").and_then(|r| r.split_once(' '))
                    && payload == first_payload
                {
                    let name = codec.split('/').next().unwrap_or_default();
                    let top = if kind == MediaKind::Audio { "audio" } else { "video" };
                    section.mime = format!("{top}/{name}");
                }
            }
        }
    }
    (!section.mid.is_empty()).then_some(section)
}

/// What we send on a section, as the receiver shall see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    pub stream: String,
    pub track: String,
}

/// Rewrite a description of ours: sections named in `sending` carry these labels; all others send nothing, so that the
/// receiver does not announce a track that does not exist, and a label that moved to another section is there only once.
pub(crate) fn label_sections(sdp: &str, sending: &HashMap<String, Label>) -> String {
    let mut out = String::with_capacity(sdp.len());
    for text in split(sdp) {
        let mid = text.lines().find_map(|l| l.strip_prefix("a=mid:")).map(str::trim);
        let is_media = text.starts_with("m=audio") || text.starts_with("m=video");
        let label = mid.and_then(|mid| sending.get(mid));
        for line in text.lines() {
            match (is_media, label) {
                (false, _) => push(&mut out, line),
                (true, Some(label)) => push(&mut out, &relabel(line, label)),
                (true, None) => match line {
                    "a=sendonly" => push(&mut out, "a=inactive"),
                    "a=sendrecv" => push(&mut out, "a=recvonly"),
                    _ if line.starts_with("a=msid:") || line.starts_with("a=ssrc") => {}
                    _ => push(&mut out, line),
                },
            }
        }
    }
    out
}

fn relabel(line: &str, label: &Label) -> String {
    if line.starts_with("a=msid:") {
        return format!("a=msid:{} {}", label.stream, label.track);
    }
    match line.strip_prefix("a=ssrc:").and_then(|rest| rest.split_once(' ')) {
        Some((ssrc, attribute)) if attribute.starts_with("msid:") => {
            format!("a=ssrc:{ssrc} msid:{} {}", label.stream, label.track)
        }
        Some((ssrc, attribute)) if attribute.starts_with("cname:") => format!("a=ssrc:{ssrc} cname:{}", label.stream),
        _ => line.to_owned(),
    }
}

/// The local ICE user fragment of a description of ours.
pub(crate) fn ice_ufrag(sdp: &str) -> Option<&str> {
    sdp.lines().find_map(|l| l.strip_prefix("a=ice-ufrag:")).map(str::trim)
}

fn push(out: &mut String, line: &str) {
    out.push_str(line);
    out.push_str("\r\n");
}

/// The session part, then each `m=` section.
fn split(sdp: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(sdp);
    std::iter::from_fn(move || {
        let text = rest?;
        match text.get(1..).and_then(|t| t.find("\nm=")) {
            Some(at) => {
                let (head, tail) = text.split_at(at + 2);
                rest = Some(tail);
                Some(head)
            }
            None => {
                rest = None;
                Some(text)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 9\r\na=mid:1\r\na=recvonly\r\na=rtpmap:111 opus/48000/2\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:2\r\na=sendonly\r\na=msid:- cam-1\r\na=rtpmap:96 VP8/90000\r\n";

    #[test]
    fn reads_sections() {
        let got = sections(OFFER);
        assert_eq!(got.len(), 2);
        assert_eq!(
            (got[0].mid.as_str(), got[0].kind, got[0].direction),
            ("1", MediaKind::Audio, Direction::RecvOnly)
        );
        assert_eq!(got[0].mime, "audio/opus");
        assert_eq!(got[1].track.as_deref(), Some("cam-1"));
        assert_eq!(got[1].mime, "video/VP8");
    }

    #[test]
    fn labels_only_what_is_sent() {
        let answer = "v=0\r\ns=-\r\nm=audio 9 X 111\r\na=mid:1\r\na=sendonly\r\na=msid:x y\r\na=ssrc:7 cname:c\r\na=ssrc:7 msid:x y\r\nm=audio 9 X 111\r\na=mid:2\r\na=sendonly\r\na=msid:x z\r\na=ssrc:8 cname:c\r\n";
        let label = Label {
            stream: "PA_1|TR_2".into(),
            track: "TR_2".into(),
        };
        let out = label_sections(answer, &HashMap::from([("1".to_owned(), label)]));
        assert!(out.contains("a=msid:PA_1|TR_2 TR_2\r\n"));
        assert!(out.contains("a=ssrc:7 msid:PA_1|TR_2 TR_2\r\n"));
        let second = out.split("m=audio").nth(2).unwrap();
        assert!(second.contains("a=inactive") && !second.contains("ssrc") && !second.contains("msid"));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[a-z=:0-9 \r\n]{0,200}", junk in any::<String>()) {
            sections(&text);
            sections(&junk);
            label_sections(&junk, &HashMap::new());
        }

        #[test]
        fn splitting_loses_nothing(text in any::<String>()) {
            prop_assert_eq!(split(&text).collect::<String>(), text);
        }
    }
}
