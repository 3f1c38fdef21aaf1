//! Datagrams to the network, many at once: what goes to one receiver in pieces of one size is one call of the system
//! (UDP segmentation offload, on Linux), and everything else a call each.

use std::io::{self, ErrorKind};

use mio::net::UdpSocket;

use crate::packet::Datagram;

/// What the kernel takes at once (`UDP_MAX_SEGMENTS` of older ones), and the largest that an IP packet can say.
const SEGMENTS: usize = 64;
const BYTES: usize = 64_000;

/// How many datagrams from the first on may go as one: to the same address, of one size, only the last may be shorter.
pub(crate) fn together(datagrams: &[Datagram]) -> usize {
    let Some(first) = datagrams.first() else { return 0 };
    let size = first.contents.len();
    let (mut count, mut bytes, mut open) = (0, 0, true);
    for next in datagrams.iter().take(SEGMENTS) {
        let length = next.contents.len();
        bytes += length;
        let fits = (next.local, next.remote) == (first.local, first.remote) && length <= size && bytes <= BYTES;
        if !open || !fits {
            break;
        }
        count += 1;
        open = length == size;
    }
    // One that is larger than can be counted goes alone.
    count.max(1)
}

/// What became of the datagrams of a turn.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub sent: u64,
    /// A full socket buffer or no way to the receiver: real-time media is dropped, not queued.
    pub dropped: u64,
}

/// Sends from one socket, in as few calls as the system allows.
#[derive(Debug)]
pub(crate) struct Sender {
    segments: bool,
}

impl Default for Sender {
    fn default() -> Sender {
        Sender {
            segments: cfg!(target_os = "linux"),
        }
    }
}

impl Sender {
    /// Send the first datagrams as far as they go together. How many those were, and what became of them.
    pub(crate) fn send(&mut self, socket: &UdpSocket, datagrams: &[Datagram]) -> (usize, Sent) {
        let count = if self.segments { together(datagrams) } else { 1 };
        let Some(group) = datagrams.get(..count) else {
            return (datagrams.len(), Sent::default());
        };
        if count > 1 {
            match segmented(socket, group) {
                Ok(()) => {
                    let sent = Sent {
                        sent: count as u64,
                        dropped: 0,
                    };
                    return (count, sent);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let sent = Sent {
                        sent: 0,
                        dropped: count as u64,
                    };
                    return (count, sent);
                }
                // A network card without checksums (EIO), an old kernel: never again. A path whose packets must be smaller,
                // a receiver that is gone: only now.
                Err(error) => {
                    self.segments = error.kind() != ErrorKind::InvalidInput && error.raw_os_error() != Some(EIO);
                }
            }
        }
        let mut result = Sent::default();
        for datagram in group {
            match socket.send_to(&datagram.contents, datagram.remote) {
                Ok(_) => result.sent += 1,
                Err(_) => result.dropped += 1,
            }
        }
        (count, result)
    }
}

const EIO: i32 = 5;

#[cfg(target_os = "linux")]
fn segmented(socket: &UdpSocket, group: &[Datagram]) -> io::Result<()> {
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

    let Some((first, size)) = group
        .first()
        .and_then(|first| Some((first, u16::try_from(first.contents.len()).ok()?)))
    else {
        return Err(ErrorKind::InvalidData.into());
    };
    let mut pieces = [IoSlice::new(&[]); SEGMENTS];
    for (piece, datagram) in pieces.iter_mut().zip(group) {
        *piece = IoSlice::new(&datagram.contents);
    }
    let pieces = pieces.get(..group.len()).unwrap_or_default();
    let to = SockaddrStorage::from(first.remote);
    let segments = [ControlMessage::UdpGsoSegments(&size)];
    sendmsg(socket.as_raw_fd(), pieces, &segments, MsgFlags::MSG_DONTWAIT, Some(&to))?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn segmented(_: &UdpSocket, _: &[Datagram]) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::{Duration, Instant};

    fn datagram(remote: SocketAddr, length: usize, fill: u8) -> Datagram {
        Datagram {
            local: (Ipv4Addr::LOCALHOST, 1).into(),
            remote,
            contents: vec![fill; length],
        }
    }

    proptest! {
        #[test]
        fn one_message_has_one_receiver_and_one_size(pieces in proptest::collection::vec((0u16..2, 0usize..3), 1..150)) {
            let sizes = [100, 1200, 65_000];
            let all: Vec<Datagram> = pieces
                .iter()
                .map(|(to, size)| datagram((Ipv4Addr::LOCALHOST, 5000 + to).into(), sizes[*size], 0))
                .collect();
            let mut rest = &all[..];
            while !rest.is_empty() {
                let count = together(rest);
                prop_assert!((1..=SEGMENTS.min(rest.len())).contains(&count));
                let (group, after) = rest.split_at(count);
                let length = |d: &Datagram| d.contents.len();
                prop_assert!(group.iter().all(|d| d.remote == group[0].remote));
                prop_assert!(group.iter().rev().skip(1).all(|d| length(d) == length(&group[0])));
                prop_assert!(length(&group[count - 1]) <= length(&group[0]));
                prop_assert!(count == 1 || group.iter().map(length).sum::<usize>() <= BYTES);
                rest = after;
            }
        }
    }

    /// Over a real socket, both ways: every datagram arrives as itself, in order.
    #[test]
    fn what_is_sent_at_once_arrives_one_by_one() {
        for segments in [true, false] {
            let to = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            to.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let from = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            let remote = to.local_addr().unwrap();
            let lengths = [1100, 1100, 1100, 700, 1100, 50, 50, 1300];
            let all: Vec<Datagram> = (0u8..)
                .zip(lengths)
                .map(|(i, length)| datagram(remote, length, i))
                .collect();
            let mut sender = Sender {
                segments: segments && cfg!(target_os = "linux"),
            };
            let (mut rest, mut sent) = (&all[..], 0);
            let begun = Instant::now();
            while !rest.is_empty() {
                assert!(begun.elapsed() < Duration::from_secs(20));
                let (count, result) = sender.send(&from, rest);
                sent += result.sent;
                rest = &rest[count..];
            }
            assert_eq!(sent, all.len() as u64);
            let mut buffer = [0; 2048];
            for datagram in &all {
                let length = to.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], &datagram.contents[..]);
            }
        }
    }
}
