//! On the wire: what the engine's hello of DTLS offers or chooses, and media that somebody else made or sends again.

use super::*;

/// RTP, not RTCP (RFC 5761 section 4).
pub(crate) fn is_rtp(datagram: &[u8]) -> bool {
    datagram.len() > 12 && (128..192).contains(&datagram[0]) && !(192..224).contains(&datagram[1])
}

/// The engine's hello: versions, suites, curves and SRTP profiles, in its order of preference or the one it chose.
#[derive(Debug, Default)]
struct Hello {
    versions: Vec<u16>,
    suites: Vec<u16>,
    groups: Vec<u16>,
    profiles: Vec<u16>,
}

/// The last hello among the datagrams (a first one may only have asked for a cookie).
fn hello(datagrams: &[Vec<u8>]) -> Hello {
    let found = datagrams.iter().rev().find_map(|d| {
        // A record's header has 13 bytes, a handshake's 12 more (RFC 6347 section 4.2.2).
        matches!(d.get(13), Some(1 | 2)).then(|| read(d[13], &d[25..]))
    });
    found.unwrap()
}

fn pairs(bytes: &[u8]) -> Vec<u16> {
    bytes
        .chunks_exact(2)
        .map(|two| u16::from_be_bytes([two[0], two[1]]))
        .collect()
}

fn read(kind: u8, body: &[u8]) -> Hello {
    let client = kind == 1;
    let number = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
    let mut hello = Hello {
        versions: pairs(&body[..2]),
        ..Hello::default()
    };
    let mut at = 34 + 1 + usize::from(body[34]);
    if client {
        at += 1 + usize::from(body[at]); // the cookie
        let length = number(at);
        hello.suites = pairs(&body[at + 2..at + 2 + length]);
        at += 2 + length;
        at += 1 + usize::from(body[at]); // compression
    } else {
        hello.suites = pairs(&body[at..at + 2]);
        at += 3;
    }
    let end = at + 2 + number(at);
    at += 2;
    while at + 4 <= end {
        let (kind, length) = (number(at), number(at + 2));
        let data = &body[at + 4..at + 4 + length];
        match (kind, client) {
            (10, true) => hello.groups = pairs(&data[2..]),
            (51, false) => hello.groups = pairs(&data[..2]),
            (14, _) => hello.profiles = pairs(&data[2..data.len() - 1]),
            (43, true) => hello.versions = pairs(&data[1..]),
            (43, false) => hello.versions = pairs(data),
            _ => {}
        }
        at += 4 + length;
    }
    hello
}

#[test]
fn the_handshake_offers_strong_means_alone() {
    /// AEAD with ephemeral elliptic curves: ECDHE-ECDSA with AES-GCM or ChaCha20, and those of 1.3.
    const SUITES: [u16; 6] = [0xc02b, 0xc02c, 0xcca9, 0x1301, 0x1302, 0x1303];
    /// P-256, P-384, X25519, and X25519 with ML-KEM.
    const GROUPS: [u16; 4] = [0x17, 0x18, 0x1d, 0x11ec];
    /// AES-CM with HMAC-SHA1 of 80 bits, which RFC 8827 demands, and AES-GCM. Not the tag of 32 bits, nor no cipher.
    const PROFILES: [u16; 3] = [1, 7, 8];
    /// DTLS 1.2 and 1.3.
    const VERSIONS: [u16; 2] = [0xfefd, 0xfefc];
    for version in [DtlsVersion::Dtls12, DtlsVersion::Dtls13] {
        let mut stage = Stage::new();
        let (ann, _, _, _) = meet_by(&mut stage, false, version);
        let hello = hello(&ann.handshake);
        let all = |have: &[u16], good: &[u16]| !have.is_empty() && have.iter().all(|one| good.contains(one));
        // RFC 5746's signal is no suite.
        let suites: Vec<u16> = hello.suites.iter().copied().filter(|s| *s != 0x00ff).collect();
        assert!(all(&suites, &SUITES), "{version} {hello:x?}");
        assert!(all(&hello.versions, &VERSIONS), "{version} {hello:x?}");
        assert!(hello.groups.iter().all(|g| GROUPS.contains(g)), "{version} {hello:x?}");
        // In 1.3 a server says it sealed.
        assert!(
            hello.profiles.iter().all(|p| PROFILES.contains(p)),
            "{version} {hello:x?}"
        );
        if version == DtlsVersion::Dtls12 {
            assert!(matches!(hello.profiles[0], 7 | 8), "AES-GCM goes first: {hello:x?}");
            // The certificate goes in clear: a key on P-256, signed by ECDSA with SHA-256.
            let all = ann.handshake.concat();
            let has = |oid: &[u8]| all.windows(oid.len()).any(|w| w == oid);
            assert!(has(&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]));
            assert!(has(&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]));
        }
        stage.sfu.stop();
    }
}

#[test]
fn forged_and_repeated_media_goes_to_nobody() {
    let mut stage = Stage::new();
    let (mut ann, mut bob, cam, mic) = meet(&mut stage, false);
    let target = stage.sfu.addresses()[0];
    stage.until("a key frame request", &mut [&mut ann, &mut bob], |_, c| {
        c[0].send(cam, None, false);
        !c[0].keyframes_wanted.is_empty()
    });
    ann.send(cam, None, true);
    for _ in 0..20 {
        ann.send(mic, None, false);
    }
    let audio = |c: &Client| c.received.iter().filter(|p| p.payload.len() == 20).count();
    // All of it, so that nothing of this comes while the forged is counted.
    stage.until("video and audio", &mut [&mut ann, &mut bob], |_, c| {
        !video(c[1]).is_empty() && audio(c[1]) >= 20
    });
    let before = bob.received.len();
    let real = std::mem::take(&mut ann.media);
    assert!(real.len() >= 20, "what Ann's machine sent is at hand");
    let attacker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for datagram in &real {
        // The same again; and as the next ones of a live source, with the tag of another: from Ann's address and from elsewhere.
        let mut wrong_tag = datagram.clone();
        *wrong_tag.last_mut().unwrap() ^= 1;
        let mut changed = datagram.clone();
        let middle = changed.len() - 12;
        changed[middle] ^= 0x55;
        let mut next = datagram.clone();
        let sequence = u16::from_be_bytes([next[2], next[3]]).wrapping_add(1000);
        next[2..4].copy_from_slice(&sequence.to_be_bytes());
        for forged in [datagram, &wrong_tag, &changed, &next] {
            ann.socket.send_to(forged, target).unwrap();
            attacker.send_to(forged, target).unwrap();
        }
    }
    // All of it was read before what Ann sends now.
    for _ in 0..10 {
        ann.send(mic, None, false);
    }
    stage.until("Ann's own packets", &mut [&mut ann, &mut bob], |_, c| {
        c[1].received.len() >= before + 10
    });
    assert_eq!(bob.received.len(), before + 10, "nothing forged and nothing twice");
    assert!(audio(&bob) >= 30 && bob.received.iter().all(|p| matches!(p.payload.len(), 8 | 20)));
    assert_eq!(stage.sfu.stats().peers, 2);
    stage.sfu.stop();
}

/// docs/security/keys.md: the certificate of the media engine is made anew at each start and lives as long as the process.
#[test]
fn each_engine_has_a_certificate_of_its_own() {
    let seen = [(); 3].map(|()| {
        let mut stage = Stage::new();
        let (mut ann, mut bob, _, _) = meet(&mut stage, false);
        // Of the certificate that was used in the handshake, which str0m holds against the one in the description.
        let [one, other] = [&mut ann, &mut bob].map(|client| {
            let direct = client.rtc.direct_api();
            let remote = direct.remote_dtls_fingerprint().expect("a handshake is over").clone();
            assert_ne!(&remote, direct.local_dtls_fingerprint());
            remote
        });
        assert_eq!(one, other, "everybody meets the same engine");
        assert_eq!((one.hash_func.as_str(), one.bytes.len()), ("sha-256", 32));
        stage.sfu.stop();
        one.bytes
    });
    let distinct: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "{seen:x?}");
}
