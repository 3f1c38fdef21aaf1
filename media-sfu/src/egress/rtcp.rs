//! RTCP: what receivers report of the streams we send, and what we report of them (RFC 3550 section 6, RFC 4585, RFC 5104).

/// One thing that a receiver says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Feedback {
    /// A block of a sender's or receiver's report.
    Reception(Reception),
    /// Sequence numbers that did not come.
    Missing { ssrc: u32, numbers: Vec<u16> },
    /// A whole picture is needed (PLI or FIR).
    Keyframe { ssrc: u32 },
    /// Anything else: not for us.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reception {
    pub ssrc: u32,
    /// Of the packets since the last report, in 256ths.
    pub lost: u8,
    /// Of all; signed, because repeated packets count as received.
    pub lost_ever: i32,
    /// Highest sequence number, with 16 bits of cycles.
    pub highest: u32,
    /// The middle of the time in the last sender's report that came, and the time since (1/65536 s); 0 when none came.
    pub last_report: u32,
    pub since: u32,
}

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

/// Everything in a compound packet; what is broken ends it.
pub(crate) fn read(mut compound: &[u8]) -> Vec<Feedback> {
    let mut found = Vec::new();
    while let Some(([first, kind, high, low], _)) = compound.split_first_chunk() {
        let length = 4 * (1 + usize::from(u16::from_be_bytes([*high, *low])));
        let Some((packet, rest)) = compound.split_at_checked(length) else {
            break;
        };
        if first >> 6 != 2 || read_one(first & 0x1f, *kind, packet, &mut found).is_none() {
            break;
        }
        compound = rest;
    }
    found
}

/// `count` is the number of reports, or the format of a feedback.
fn read_one(count: u8, kind: u8, packet: &[u8], found: &mut Vec<Feedback>) -> Option<()> {
    match (kind, count) {
        (RECEIVER_REPORT, _) => reception(count, packet.get(8..)?, found),
        (SENDER_REPORT, _) => {
            // The other side sends too, which is not our matter.
            found.push(Feedback::Other);
            reception(count, packet.get(28..)?, found)
        }
        // Names; we know whom we talk to.
        (DESCRIPTION, _) => Some(()),
        (TRANSPORT_FEEDBACK, 1) => {
            let mut numbers = Vec::new();
            for entry in packet.get(12..)?.chunks_exact(4) {
                let first = word16(entry, 0)?;
                let mask = word16(entry, 2)?;
                numbers.push(first);
                numbers.extend(
                    (0..16)
                        .filter(|bit| mask >> bit & 1 == 1)
                        .map(|bit| first.wrapping_add(bit + 1)),
                );
            }
            let ssrc = word32(packet, 8)?;
            found.push(Feedback::Missing { ssrc, numbers });
            Some(())
        }
        (PAYLOAD_FEEDBACK, 1) => {
            found.push(Feedback::Keyframe {
                ssrc: word32(packet, 8)?,
            });
            Some(())
        }
        // RFC 5104 section 4.3.1: whom it is for stands in the entries.
        (PAYLOAD_FEEDBACK, 4) => {
            for entry in packet.get(12..)?.chunks_exact(8) {
                found.push(Feedback::Keyframe {
                    ssrc: word32(entry, 0)?,
                });
            }
            Some(())
        }
        _ => {
            found.push(Feedback::Other);
            Some(())
        }
    }
}

fn reception(count: u8, blocks: &[u8], found: &mut Vec<Feedback>) -> Option<()> {
    for block in blocks.chunks_exact(24).take(count.into()) {
        let loss = word32(block, 4)?;
        found.push(Feedback::Reception(Reception {
            ssrc: word32(block, 0)?,
            // Truncations are meant: fields of one word.
            lost: (loss >> 24) as u8,
            lost_ever: (loss << 8) as i32 >> 8,
            highest: word32(block, 8)?,
            last_report: word32(block, 16)?,
            since: word32(block, 20)?,
        }));
    }
    Some(())
}

/// What we tell of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending<'a> {
    pub ssrc: u32,
    /// Seconds since 1900, with 32 bits of fraction.
    pub ntp: u64,
    /// The stream's own clock at that moment.
    pub timestamp: u32,
    pub packets: u32,
    pub octets: u32,
    /// The same for all streams that are to be shown in step.
    pub name: &'a str,
}

/// A sender's report and the source's name.
pub(crate) fn sender_report(of: Sending<'_>) -> Vec<u8> {
    let mut out = vec![0x80, SENDER_REPORT, 0, 6];
    out.extend(of.ssrc.to_be_bytes());
    out.extend(of.ntp.to_be_bytes());
    for word in [of.timestamp, of.packets, of.octets] {
        out.extend(word.to_be_bytes());
    }
    let name = of.name.as_bytes().get(..255).unwrap_or(of.name.as_bytes());
    // The list of items ends with at least one zero byte.
    let words = (2 + name.len() + 1).div_ceil(4);
    out.extend([0x81, DESCRIPTION, 0, 1 + words as u8]);
    out.extend(of.ssrc.to_be_bytes());
    out.extend([1, name.len() as u8]);
    out.extend_from_slice(name);
    out.resize(out.len() + words * 4 - 2 - name.len(), 0);
    out
}

/// An empty report (a compound packet begins with one) and that a stream has ended.
pub(crate) fn goodbye(ssrc: u32) -> Vec<u8> {
    let ssrc = ssrc.to_be_bytes();
    let mut out = vec![0x80, RECEIVER_REPORT, 0, 1];
    out.extend(ssrc);
    out.extend([0x81, GOODBYE, 0, 1]);
    out.extend(ssrc);
    out
}

fn word16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_receivers_report_is_read() {
        let mut packet = vec![0x81, RECEIVER_REPORT, 0, 7, 0, 0, 0, 1];
        packet.extend([
            0, 0, 0, 5, 64, 0xff, 0xff, 0xfe, 0, 1, 0, 9, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 1, 0,
        ]);
        let want = Reception {
            ssrc: 5,
            lost: 64,
            lost_ever: -2,
            highest: 0x1_0009,
            last_report: 0x0102_0304,
            since: 256,
        };
        assert_eq!(read(&packet), [Feedback::Reception(want)]);
    }

    #[test]
    fn what_is_missing_and_what_is_wanted_is_read() {
        // RFC 4585 section 6.2.1: the mask names the 16 that follow, the lowest bit the next.
        let mut packet = vec![
            0x81,
            TRANSPORT_FEEDBACK,
            0,
            3,
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            7,
            0xff,
            0xfe,
            0x80,
            0x01,
        ];
        packet.extend([0x81, PAYLOAD_FEEDBACK, 0, 2, 0, 0, 0, 1, 0, 0, 0, 8]);
        packet.extend([
            0x84,
            PAYLOAD_FEEDBACK,
            0,
            4,
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            9,
            3,
            0,
            0,
            0,
        ]);
        packet.extend([0x8f, TRANSPORT_FEEDBACK, 0, 2, 0, 0, 0, 1, 0, 0, 0, 8]);
        let numbers = vec![0xfffe, 0xffff, 14];
        let want = [
            Feedback::Missing { ssrc: 7, numbers },
            Feedback::Keyframe { ssrc: 8 },
            Feedback::Keyframe { ssrc: 9 },
            Feedback::Other,
        ];
        assert_eq!(read(&packet), want);
        // Cut off: what is whole is read.
        assert_eq!(read(&packet[..packet.len() - 1]), want[..3]);
    }

    #[test]
    fn a_senders_report_is_written() {
        let of = Sending {
            ssrc: 1,
            ntp: 2,
            timestamp: 3,
            packets: 4,
            octets: 5,
            name: "abc",
        };
        let want = [
            [0x80, 200, 0, 6, 0, 0, 0, 1].as_slice(),
            &[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5],
            &[0x81, 202, 0, 3, 0, 0, 0, 1, 1, 3, b'a', b'b', b'c', 0, 0, 0],
        ];
        assert_eq!(sender_report(of), want.concat());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            read(&bytes);
            let mut framed = vec![0x81, bytes.first().copied().unwrap_or(200), 0, (cut / 4) as u8];
            framed.extend(&bytes);
            read(&framed);
        }

        #[test]
        fn names_of_any_length_are_framed(name in "[a-z]{0,300}") {
            let of = Sending { ssrc: 1, ntp: 0, timestamp: 0, packets: 0, octets: 0, name: &name };
            let bytes = sender_report(of);
            prop_assert_eq!(bytes.len() % 4, 0);
            let words = usize::from(u16::from_be_bytes([bytes[30], bytes[31]]));
            prop_assert_eq!(28 + 4 * (words + 1), bytes.len());
            prop_assert_eq!(bytes.last(), Some(&0));
        }
    }
}
