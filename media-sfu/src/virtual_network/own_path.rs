//! What is sent without the library's help, received by the library: nothing is lost by the change of hands.

use super::*;

/// Numbers of the video packets that came, in order.
fn numbers(world: &World) -> Vec<u64> {
    let video = |(_, p): &&(Instant, RtpPacket)| p.payload.len() == VIDEO_BYTES;
    let mut numbers: Vec<u64> = world
        .bob
        .received
        .iter()
        .filter(video)
        .map(|(_, p)| *p.seq_no)
        .collect();
    numbers.sort_unstable();
    numbers
}

fn gaps(numbers: &[u64]) -> usize {
    numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count()
}

fn video_ssrc(world: &World) -> u32 {
    let last = world
        .bob
        .received
        .iter()
        .rev()
        .find(|(_, p)| p.payload.len() == VIDEO_BYTES);
    *last.unwrap().1.header.ssrc
}

fn ours(world: &World) -> usize {
    let legs = |entry: &crate::engine::PeerEntry| entry.peer.egress.legs().iter().filter(|leg| !leg.is_fresh()).count();
    world.engine.peers.values().map(legs).sum()
}

#[test]
fn what_is_lost_on_the_way_comes_again() {
    let mut world = World::new(Duration::from_millis(1));
    world.video_on = true;
    world.run(2);
    world.subscribe();
    world.run(2);
    world.bob.down.lose_every = Some(50);
    world.run(5);
    world.bob.down.lose_every = None;
    world.run(1);
    let numbers = numbers(&world);
    assert!(world.bob.down.lost >= 10, "{} were lost", world.bob.down.lost);
    assert!(
        numbers.len() > 1000 && gaps(&numbers) == 0,
        "{} came, {} gaps",
        numbers.len(),
        gaps(&numbers)
    );
    assert_eq!(ours(&world), 2, "picture and voice go this way");
}

/// The receiver counts the wraps of the sequence number by itself, and opens nothing when it counts otherwise than we do.
#[test]
fn the_sequence_number_wraps() {
    let mut world = World::new(Duration::from_millis(1));
    world.subscribe();
    let track = world.engine.track(ROOM, CAMERA).unwrap();
    track.subscriptions[0].forwarder.number_from(65_300);
    world.video_on = true;
    world.run(5);
    let numbers = numbers(&world);
    assert_eq!(gaps(&numbers), 0);
    assert!(
        numbers[0] < 65_536 && *numbers.last().unwrap() > 65_536 + 100,
        "{numbers:?}"
    );
}

#[test]
fn a_new_description_leaves_the_streams_alone() {
    let mut world = World::new(Duration::from_millis(1));
    world.video_on = true;
    world.run(2);
    world.subscribe();
    world.run(2);
    let before = video_ssrc(&world);
    for _ in 0..3 {
        let sdp = world.bob.offer(|api| {
            api.add_media(Kind::Audio, Direction::RecvOnly, None, None, None);
        });
        assert!(!sdp.is_empty());
        world.negotiate(BOB, sdp);
        world.run(1);
    }
    assert_eq!(video_ssrc(&world), before);
    assert_eq!(gaps(&numbers(&world)), 0);
    assert!(world.share(1).0 >= 99, "{:?}", world.share(1));
}

/// From Wi-Fi to a mobile network: another address, new credentials of ICE, the same streams.
#[test]
fn who_moves_is_followed() {
    let mut world = World::new(Duration::from_millis(1));
    world.video_on = true;
    world.run(2);
    world.subscribe();
    world.run(2);
    let before = video_ssrc(&world);
    world.bob.addr = ([10, 0, 0, 2], 22).into();
    // The old address is forgotten; the server learns the new one from the checks that come from it.
    let sdp = world.bob.offer(|api| {
        api.ice_restart(false);
    });
    world.negotiate(BOB, sdp);
    let candidate = Candidate::host(world.bob.addr, Protocol::Udp).unwrap();
    world.bob.rtc.add_local_candidate(candidate);
    world.run(5);
    assert_eq!(video_ssrc(&world), before);
    assert!(world.share(2).0 >= 99, "{:?}", world.share(2));
}

/// The library's own way, which tracks in several sizes still go, is what ours is held against.
#[test]
fn both_ways_deliver_the_same() {
    let [own, library] = [false, true].map(|layered| {
        let mut world = World::new(Duration::from_millis(1));
        world.engine.track(ROOM, CAMERA).unwrap().layered = layered;
        world.subscribe();
        world.video_on = true;
        world.run(4);
        assert_eq!(ours(&world), if layered { 1 } else { 2 });
        let mut came: Vec<RtpPacket> = world.bob.received.drain(..).map(|(_, p)| p).collect();
        came.sort_unstable_by_key(|p| (p.payload.len(), *p.seq_no));
        let first = |length: usize| {
            came.iter()
                .find(|p| p.payload.len() == length)
                .unwrap()
                .header
                .timestamp
        };
        let (voice, picture) = (first(100), first(VIDEO_BYTES));
        let told = |p: &RtpPacket| {
            let begin = if p.payload.len() == VIDEO_BYTES { picture } else { voice };
            let header = &p.header;
            let since = header.timestamp.wrapping_sub(begin);
            (*p.seq_no, header.payload_type, since, header.marker, p.payload.clone())
        };
        [100, VIDEO_BYTES].map(|length| {
            came.iter()
                .filter(|p| p.payload.len() == length)
                .map(told)
                .collect::<Vec<_>>()
        })
    });
    for (own, library) in own.iter().zip(&library) {
        let both = own.len().min(library.len());
        assert!(both >= 150, "{both}");
        // The first numbers of the voice depend on when the connection stood.
        assert!(own.iter().zip(library).take(both).all(|(a, b)| a == b));
    }
}

/// Where a wider path would bring nothing, and nothing is lost, every packet is sent once: no probes.
#[test]
fn a_clear_path_gets_nothing_twice() {
    let mut world = World::new(Duration::from_millis(1));
    world.video_on = true;
    world.run(2);
    world.subscribe();
    world.run(10);
    let (video, _) = world.bob.came(world.start, world.now);
    assert!(video > 1000, "{video}");
    // What is under way at the end has not come.
    let twice = world.video_sent - video;
    assert!(twice <= PACKETS_PER_FRAME, "{twice} repeated");
}
