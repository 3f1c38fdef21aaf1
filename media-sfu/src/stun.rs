//! Just enough STUN (RFC 8489) to see for whom a binding request is meant.

const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const USERNAME: u16 = 0x0006;

/// The user fragment of the addressed agent: the part of USERNAME before the colon (RFC 8445 section 7.2.2).
pub(crate) fn addressed_ufrag(datagram: &[u8]) -> Option<&str> {
    let (header, mut rest) = datagram.split_at_checked(20)?;
    let length = usize::from(u16::from_be_bytes([*header.get(2)?, *header.get(3)?]));
    if *header.first()? > 3 || header.get(4..8)? != MAGIC || length > rest.len() {
        return None;
    }
    rest = rest.get(..length)?;
    while let Some((head, tail)) = rest.split_at_checked(4) {
        let [t0, t1, l0, l1] = head else { return None };
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        let value = tail.get(..len)?;
        if u16::from_be_bytes([*t0, *t1]) == USERNAME {
            return std::str::from_utf8(value).ok()?.split(':').next();
        }
        rest = tail.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_the_first_half_of_the_username() {
        let name = b"ours:theirs";
        let mut message = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        message.extend([7u8; 12]);
        message.extend([0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]); // SOFTWARE, padded
        message.extend([0, 6, 0, name.len() as u8]);
        message.extend(name);
        message.push(0);
        let length = (message.len() - 20) as u16;
        message[2..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(addressed_ufrag(&message), Some("ours"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            addressed_ufrag(&bytes);
        }
    }
}
