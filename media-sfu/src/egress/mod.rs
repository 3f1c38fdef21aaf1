//! What a connection sends of the media it forwards, on a path of our own: the library negotiates, receives and keeps the
//! connection alive; packets to receivers are numbered, sealed, repeated and reported here.
//!
//! A stream is ours or the library's for all its life, because no number may be sealed twice under one key: it is taken
//! from the library before that has sent anything on it, and may be given back before we have.

mod header;
mod history;
pub(crate) mod keys;
mod leg;
mod rtcp;
mod srtp;
mod window;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use self::header::{ExtensionIds, MediaExtensions, Template};
pub(crate) use self::keys::Keys;
pub(crate) use self::leg::{Format, Leg, Measured};
use self::rtcp::{Feedback, Reception};
use self::window::Window;
use crate::munger::Rewrite;
use crate::packet::{Datagram, MediaPacket, Mid, PeerEvent, Sink};

/// How often a stream is reported.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Assumed until a report tells.
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// A rate that was reported this long ago is not the path's any more.
const RATE_LASTS: Duration = Duration::from_secs(6);
/// Senders of reports whose packets are counted. Only the authentic ones are; more are refused.
const REPORTERS: usize = 32;

/// Where packets go: our address and theirs.
pub(crate) type Way = (SocketAddr, SocketAddr);

#[derive(Debug, Default)]
pub(crate) struct Egress {
    keys: Option<Keys>,
    way: Option<Way>,
    /// The library says that the other side is who it should be.
    connected: bool,
    legs: Vec<Leg>,
    /// Whether packets wait for the connection.
    waiting: bool,
    out: Vec<Datagram>,
    /// Numbers our RTCP packets.
    reports: u32,
    /// The numbers of theirs, by sender.
    reporters: HashMap<u32, Window>,
    round_trip: Option<Duration>,
    /// What was last known of each stream.
    rates: HashMap<u32, (Instant, Measured)>,
}

impl Egress {
    pub(crate) fn wants_keys(&self) -> bool {
        self.keys.is_none()
    }

    pub(crate) fn set_keys(&mut self, keys: Keys) {
        self.keys = Some(keys);
    }

    pub(crate) fn set_way(&mut self, way: Way) {
        self.way = Some(way);
    }

    pub(crate) fn set_connected(&mut self) {
        self.connected = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.legs.is_empty()
    }

    pub(crate) fn legs(&self) -> &[Leg] {
        &self.legs
    }

    pub(crate) fn leg(&mut self, mid: Mid) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|leg| leg.mid == mid)
    }

    pub(crate) fn add(&mut self, leg: Leg) {
        self.legs.push(leg);
    }

    pub(crate) fn remove(&mut self, mid: Mid) -> Option<Leg> {
        let at = self.legs.iter().position(|leg| leg.mid == mid)?;
        Some(self.legs.swap_remove(at))
    }

    /// Formats are looked up anew after each description.
    pub(crate) fn forget_formats(&mut self) {
        self.legs.iter_mut().for_each(|leg| leg.format = None);
    }

    /// Send a packet on a section whose format is known; true when it was taken. It leaves with [`Egress::flush`].
    pub(crate) fn write(
        &mut self,
        mid: Mid,
        packet: &Arc<MediaPacket>,
        rewrite: Rewrite,
        now: Instant,
        sink: &mut Sink,
    ) -> bool {
        let ready = self.connected.then_some(()).and(self.keys.as_ref()).zip(self.way);
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.mid == mid) else {
            return false;
        };
        let Some((keys, (local, remote))) = ready else {
            leg.wait(packet, rewrite);
            self.waiting = true;
            return true;
        };
        leg.note(packet, rewrite);
        let mut contents = sink.buffer();
        if leg.send(packet, rewrite, now, &keys.sealer, &mut contents).is_some() {
            self.out.push(Datagram {
                local,
                remote,
                contents,
            });
            return true;
        }
        sink.give_back(contents);
        false
    }

    fn send_waiting(&mut self, now: Instant) {
        let ready = self.connected.then_some(()).and(self.keys.as_ref()).zip(self.way);
        let Some((keys, (local, remote))) = ready else { return };
        self.waiting = false;
        for leg in &mut self.legs {
            while let Some((packet, rewrite)) = leg.next_waiting() {
                let mut contents = Vec::new();
                if leg.send(&packet, rewrite, now, &keys.sealer, &mut contents).is_some() {
                    self.out.push(Datagram {
                        local,
                        remote,
                        contents,
                    });
                }
            }
        }
    }

    /// Hand out what was written.
    pub(crate) fn flush(&mut self, now: Instant, sink: &mut Sink) {
        if self.waiting {
            self.send_waiting(now);
        }
        sink.datagrams.append(&mut self.out);
    }

    /// Sender's reports that are due.
    pub(crate) fn report(&mut self, now: Instant) {
        let due: Vec<Vec<u8>> = self
            .legs
            .iter_mut()
            .filter_map(|leg| {
                leg.report_due.filter(|due| *due <= now)?;
                leg.report_due = Some(now + REPORT_EVERY);
                leg.sending(now, ntp(now)).map(rtcp::sender_report)
            })
            .collect();
        due.into_iter().for_each(|report| self.send_rtcp(report));
    }

    /// Tell the receiver that the streams have ended.
    pub(crate) fn goodbye(&mut self) {
        let ended: Vec<u32> = self
            .legs
            .iter()
            .filter(|leg| !leg.is_fresh())
            .map(|leg| leg.ssrc)
            .collect();
        ended.into_iter().for_each(|ssrc| self.send_rtcp(rtcp::goodbye(ssrc)));
    }

    fn send_rtcp(&mut self, mut contents: Vec<u8>) {
        let ready = self.connected.then_some(()).and(self.keys.as_ref()).zip(self.way);
        let Some((keys, (local, remote))) = ready else { return };
        self.reports += 1;
        if keys.sealer.rtcp(&mut contents, self.reports).is_some() {
            self.out.push(Datagram {
                local,
                remote,
                contents,
            });
        }
    }

    /// Reports of the receiver; true when all of it was for us and the library need not see it. `alone`: no video goes
    /// another way, so that what arrived of ours tells of the path.
    pub(crate) fn receive(&mut self, datagram: &[u8], now: Instant, alone: bool, sink: &mut Sink) -> bool {
        if self.legs.is_empty() || !is_rtcp(datagram) {
            return false;
        }
        let Some((index, packet)) = self.keys.as_ref().and_then(|keys| keys.opener.rtcp(datagram)) else {
            return false;
        };
        let sender = datagram.get(4..).and_then(|rest| rest.first_chunk()).copied();
        let sender = u32::from_be_bytes(sender.unwrap_or_default());
        if self.reporters.len() >= REPORTERS && !self.reporters.contains_key(&sender) {
            return false;
        }
        if !self.reporters.entry(sender).or_default().take(index.into()) {
            // Seen before; the library would say the same of it.
            return true;
        }
        let mut all_ours = true;
        let mut measured = false;
        for feedback in rtcp::read(&packet) {
            match feedback {
                Feedback::Reception(report) => match self.reception(report, now, sink) {
                    Some(rate) => measured |= rate,
                    None => all_ours = false,
                },
                Feedback::Missing { ssrc, numbers } => all_ours &= self.resend(ssrc, &numbers, now, sink),
                Feedback::Keyframe { ssrc } => match self.legs.iter().find(|leg| leg.ssrc == ssrc) {
                    Some(leg) => sink.events.push(PeerEvent::KeyframeWanted { mid: leg.mid }),
                    None => all_ours = false,
                },
                Feedback::Other => all_ours = false,
            }
        }
        if measured && alone {
            let Measured { sent, came } = self.measured(now);
            sink.events.push(PeerEvent::Measured { sent, came });
        }
        all_ours
    }

    /// Whether a stream of ours was measured; `None` when it is not ours.
    fn reception(&mut self, report: Reception, now: Instant, sink: &mut Sink) -> Option<bool> {
        let ours = |leg: &&mut Leg| leg.ssrc == report.ssrc || leg.repeat_ssrc == Some(report.ssrc);
        let leg = self.legs.iter_mut().find(ours)?;
        let rate = leg.reported(report, now);
        if leg.ssrc != report.ssrc {
            return Some(false);
        }
        if let Some(rate) = rate {
            self.rates.insert(report.ssrc, (now, rate));
        }
        let round_trip = round_trip(report, now);
        self.round_trip = round_trip.or(self.round_trip);
        sink.events.push(PeerEvent::Reported {
            loss: Some(f32::from(report.lost) / 256.0),
            rtt: round_trip,
        });
        Some(rate.is_some())
    }

    /// All our streams together.
    pub(crate) fn measured(&mut self, now: Instant) -> Measured {
        self.rates
            .retain(|_, (at, _)| now.saturating_duration_since(*at) < RATE_LASTS);
        let add = |sum: Measured, (_, one): &(Instant, Measured)| Measured {
            sent: sum.sent + one.sent,
            came: sum.came + one.came,
        };
        self.rates.values().fold(Measured::default(), add)
    }

    fn resend(&mut self, ssrc: u32, numbers: &[u16], now: Instant, sink: &mut Sink) -> bool {
        let ready = self.connected.then_some(()).and(self.keys.as_ref()).zip(self.way);
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.ssrc == ssrc) else {
            return false;
        };
        let Some((keys, (local, remote))) = ready else {
            return true;
        };
        let round_trip = self.round_trip.unwrap_or(ROUND_TRIP);
        for number in numbers {
            let mut contents = sink.buffer();
            match leg.resend(*number, now, round_trip, &keys.sealer, &mut contents) {
                Some(()) => self.out.push(Datagram {
                    local,
                    remote,
                    contents,
                }),
                None => sink.give_back(contents),
            }
        }
        true
    }
}

/// RFC 5761 section 4.
pub(crate) fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, 192..=223, ..])
}

/// Seconds since 1900, 32 bits of them behind the point (RFC 5905).
fn ntp(at: Instant) -> u64 {
    /// One moment on both clocks: what reports say of different streams is compared by the receiver, and must not jump.
    static MOMENT: LazyLock<(Instant, Duration)> = LazyLock::new(|| {
        #[expect(
            clippy::disallowed_methods,
            reason = "the time of day goes to the wire, nothing is decided by it"
        )]
        let now = SystemTime::now();
        (Instant::now(), now.duration_since(UNIX_EPOCH).unwrap_or_default())
    });
    const UNIX_IN_NTP: u64 = 2_208_988_800;
    let (instant, since_unix) = *MOMENT;
    let time =
        since_unix + at.saturating_duration_since(instant) - instant.saturating_duration_since(at).min(since_unix);
    let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
    ((time.as_secs() + UNIX_IN_NTP) << 32) | fraction
}

/// RFC 3550 section 6.4.1: now, less the moment of our report, less the time that it lay there.
fn round_trip(report: Reception, now: Instant) -> Option<Duration> {
    if report.last_report == 0 {
        return None;
    }
    // Truncation is meant: the middle 32 bits.
    let middle = (ntp(now) >> 16) as u32;
    let ticks = middle.wrapping_sub(report.last_report).wrapping_sub(report.since);
    // Rounding can make it a little less than nothing.
    let ticks = if ticks > u32::MAX / 2 { 0 } else { ticks };
    Some(Duration::from_micros(u64::from(ticks) * 1_000_000 / 65_536))
}
