//! One connection: reads packets, keeps acknowledgements in order until their readings are durable, answers.

use super::{
    super::{Devices, Durable, senml},
    connect::{Device, from_error, greet},
    registry::End,
    wire::{Granted, In, RECEIVE_MAX, Reason, Refusal, Version, Wire},
};
use bytes::{Bytes, BytesMut};
use medtech_kernel::Result as KernelResult;
use rmqtt_codec::types::{Publish, QoS};
use std::{
    cell::RefCell,
    collections::{HashSet, VecDeque},
    future::{pending, poll_fn},
    io,
    num::NonZeroU16,
    pin::Pin,
    sync::atomic::Ordering,
    task::ready,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

/// From the first byte to a whole, accepted CONNECT.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A client that does not take its answers this long is cut.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// The credential is looked up again this often, in case its withdrawal was not heard of.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// How long what the device feeds is believed.
const FEEDS_FOR: Duration = Duration::from_secs(5);
const MAX_PENDING: usize = RECEIVE_MAX as usize;

thread_local! {
    /// One read buffer a thread: an idle connection holds none.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 64 * 1024].into());
}

/// Why a connection ended.
enum Ended {
    /// Said goodbye.
    Bye,
    /// The network or the client went away.
    Lost,
    /// We end it, and say why where the version can.
    Refused(Refusal),
}

impl From<Refusal> for Ended {
    fn from(r: Refusal) -> Self {
        Self::Refused(r)
    }
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

/// Serves one connection to its end.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(devices: Devices, mut io: S, peer: &str) {
    let mut buf = BytesMut::new();
    let Ok(Some((wire, device))) = timeout(CONNECT_WITHIN, greet(&devices, &mut io, &mut buf, peer)).await else {
        return;
    };
    tracing::debug!(tenant = %device.tenant, device = device.id, peer, "mqtt: connected");
    let (tenant, id, serial) = (device.tenant, device.id.clone(), device.seat.serial);
    let mut session = Session::new(devices, wire, device, buf);
    let why = session.run(&mut io).await;
    session.devices.0.registry.leave(tenant, &id, serial);
    if let Ended::Refused(refusal) = &why {
        tracing::info!(%tenant, device = id, peer, reason = refusal.1, "mqtt: connection refused to go on");
        session.wire.bye(&mut session.out, *refusal);
        let _ = session.flush(&mut io).await;
    }
    if !matches!(why, Ended::Bye)
        && let (Some(will), Some(feeds)) = (session.device.will.take(), session.feeds().await.ok().flatten())
    {
        let now = session.devices.0.ctx.clock.now_ms();
        drop(
            session
                .devices
                .take(tenant, &id, Some(session.device.session), &feeds, now, will)
                .await,
        );
    }
    let _ = timeout(WRITE_WITHIN, io.shutdown()).await;
}

/// More bytes; an end of the stream is an error.
pub(super) async fn read<S: AsyncRead + Unpin>(io: &mut S, buf: &mut BytesMut) -> io::Result<()> {
    poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut space = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut space))?;
            if space.filled().is_empty() {
                return io::Result::Err(io::ErrorKind::UnexpectedEof.into()).into();
            }
            buf.extend_from_slice(space.filled());
            Ok(()).into()
        })
    })
    .await
}

/// A publication whose answer is due, in the order of arrival.
struct Pending {
    /// Absent for QoS 0: no answer, but a failure to record still ends the connection.
    id: Option<NonZeroU16>,
    exactly_once: bool,
    fate: Fate,
}

enum Fate {
    Durable(Durable),
    /// A repeated QoS 2 publication: the first one counts.
    Repeated,
    Refused(Refusal),
}

struct Session {
    devices: Devices,
    wire: Wire,
    device: Device,
    buf: BytesMut,
    out: BytesMut,
    pending: VecDeque<Pending>,
    /// QoS 2 packet ids between PUBLISH and PUBREL.
    held: HashSet<NonZeroU16>,
    /// QoS of the commands, when subscribed.
    listens: Option<u8>,
    unacknowledged_commands: u16,
    next_command: u16,
    /// Asked when, at which count of devices moved, and the answer.
    feeds: Option<(Instant, u64, Option<String>)>,
}

impl Session {
    fn new(devices: Devices, wire: Wire, device: Device, buf: BytesMut) -> Self {
        Self {
            devices,
            wire,
            device,
            buf,
            out: BytesMut::new(),
            pending: VecDeque::new(),
            held: HashSet::new(),
            listens: None,
            unacknowledged_commands: 0,
            next_command: 0,
            feeds: None,
        }
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&mut self, io: &mut S) -> Ended {
        loop {
            if let Err(ended) = self.turn(io).await {
                // What was taken in before is answered all the same: the device must not send it twice for nothing.
                let waiting = timeout(Duration::from_secs(2), async {
                    while !self.pending.is_empty() && self.settle_next().await.is_ok() {}
                });
                let _ = waiting.await;
                let _ = self.flush(io).await;
                return ended;
            }
        }
    }

    /// Everything until the next goodbye, cut or loss.
    async fn turn<S: AsyncRead + AsyncWrite + Unpin>(&mut self, io: &mut S) -> Result<(), Ended> {
        let mut heard = Instant::now();
        let mut check = heard + CHECK_EVERY.min(self.device.silence);
        let mut stop = self.devices.0.stop.clone();
        loop {
            while self.pending.len() < MAX_PENDING
                && let Some(packet) = self.wire.read(&mut self.buf)?
            {
                self.take(packet).await?;
            }
            self.flush(io).await?;
            if self.buf.is_empty() {
                self.buf = BytesMut::new();
            }
            let room = self.pending.len() < MAX_PENDING;
            let commands = self.unacknowledged_commands < self.device.receive_max;
            tokio::select! {
                got = read(io, &mut self.buf), if room => {
                    got?;
                    heard = Instant::now();
                }
                settled = settle(&mut self.pending) => {
                    self.answer(settled)?;
                    self.settle_ready()?;
                }
                Some(payload) = self.device.seat.commands.recv(), if commands => self.command(payload),
                why = ended(&mut self.device.seat.end) => {
                    return Err(Ended::Refused(match why {
                        Some(End::TakenOver) => Refusal(Reason::TakenOver, "this client id connected again"),
                        _ => Refusal(Reason::Administrative, "the device's credential was withdrawn"),
                    }));
                }
                () = sleep_until(check) => {
                    // While we do not read, silence is ours and not the client's.
                    if !room {
                        heard = Instant::now();
                    }
                    if heard.elapsed() >= self.device.silence {
                        return Err(Refusal(Reason::KeepAlive, "nothing heard for one and a half keep-alive intervals").into());
                    }
                    check = Instant::now() + CHECK_EVERY.min(self.device.silence);
                    let verified = self.devices.0.ctx.sessions.verify(self.device.tenant, &self.device.token).await;
                    if let Err(e) = verified && !e.is_transient() {
                        return Err(from_error(&e).into());
                    }
                }
                () = stopped(&mut stop) => return Err(Refusal(Reason::ShuttingDown, "the server is stopping").into()),
            }
        }
    }

    async fn take(&mut self, packet: In) -> Result<(), Ended> {
        match packet {
            In::Publish(publish) => self.publish(*publish).await,
            In::Release(id) => {
                self.held.remove(&id);
                self.wire.complete(&mut self.out, id);
                Ok(())
            }
            In::Acknowledged => {
                self.unacknowledged_commands = self.unacknowledged_commands.saturating_sub(1);
                Ok(())
            }
            In::Subscribe(id, filters) => {
                let granted: Vec<Granted> = filters
                    .iter()
                    .map(|(filter, qos)| self.subscribe(filter, *qos))
                    .collect();
                self.wire.subscribed(&mut self.out, id, &granted);
                Ok(())
            }
            In::Unsubscribe(id, filters) => {
                let mut existed = Vec::with_capacity(filters.len());
                for filter in &filters {
                    let own = **filter == *self.device.commands;
                    existed.push(own && self.listens.take().is_some());
                }
                self.devices.0.registry.listen(
                    self.device.tenant,
                    &self.device.id,
                    self.device.seat.serial,
                    self.listens.is_some(),
                );
                self.wire.unsubscribed(&mut self.out, id, &existed);
                Ok(())
            }
            In::Ping => {
                self.wire.pong(&mut self.out);
                Ok(())
            }
            In::Bye(false) => Err(Ended::Bye),
            In::Bye(true) => Err(Ended::Lost),
            In::Hello(_) => Err(Refusal(Reason::Protocol, "a second CONNECT").into()),
            In::Unexpected => Err(Refusal(Reason::Protocol, "a packet that a client does not send").into()),
        }
    }

    fn subscribe(&mut self, filter: &str, qos: u8) -> Granted {
        if filter.contains(['+', '#', '\0']) {
            tracing::info!(tenant = %self.device.tenant, device = self.device.id, "mqtt: a wildcard subscription was refused");
            return Granted::Wildcard;
        }
        if filter != self.device.commands {
            tracing::info!(tenant = %self.device.tenant, device = self.device.id, "mqtt: a subscription to another topic was refused");
            return Granted::NotAuthorized;
        }
        let qos = qos.min(1);
        self.listens = Some(qos);
        self.devices
            .0
            .registry
            .listen(self.device.tenant, &self.device.id, self.device.seat.serial, true);
        Granted::QoS(qos)
    }

    async fn publish(&mut self, publish: Publish) -> Result<(), Ended> {
        let (id, exactly_once) = (publish.packet_id, publish.qos == QoS::ExactlyOnce);
        if publish.topic.contains(['+', '#', '\0']) {
            return Err(Refusal(Reason::TopicName, "a topic name has no wildcards").into());
        }
        if self.wire.version == Version::V5 {
            if publish.properties.as_ref().is_some_and(|p| p.topic_alias.is_some()) {
                return Err(Refusal(Reason::TopicAlias, "topic aliases are not used here").into());
            }
            if publish.retain {
                return Err(Refusal(Reason::Retain, "retained messages are not kept here").into());
            }
            if exactly_once {
                return Err(Refusal(Reason::QoS, "the maximum QoS is 1").into());
            }
        }
        if let Some(id) = id.filter(|_| exactly_once) {
            if self.held.contains(&id) {
                self.pending.push_back(Pending {
                    id: Some(id),
                    exactly_once,
                    fate: Fate::Repeated,
                });
                return Ok(());
            }
            if self.held.len() >= MAX_PENDING {
                return Err(Refusal(Reason::Quota, "too many QoS 2 publications without PUBREL").into());
            }
        }
        match self.accept(&publish).await? {
            Ok(durable) => {
                self.held.extend(id.filter(|_| exactly_once));
                self.pending.push_back(Pending {
                    id,
                    exactly_once,
                    fate: Fate::Durable(durable),
                });
                Ok(())
            }
            // 3.1.1 has no way to say no to one publication, nor has QoS 0: the connection ends.
            Err(refusal) if self.wire.version == Version::V3 || id.is_none() => Err(refusal.into()),
            Err(refusal) => {
                tracing::info!(tenant = %self.device.tenant, device = self.device.id, reason = refusal.1, "mqtt: publication refused");
                self.pending.push_back(Pending {
                    id,
                    exactly_once,
                    fate: Fate::Refused(refusal),
                });
                Ok(())
            }
        }
    }

    /// The door for one publication: topic, payload, whom it is about.
    async fn accept(&mut self, publish: &Publish) -> Result<Result<Durable, Refusal>, Ended> {
        if *publish.topic != *self.device.readings {
            return Ok(Err(Refusal(
                Reason::NotAuthorized,
                "a device publishes to its own readings only",
            )));
        }
        let now = self.devices.0.ctx.clock.now_ms();
        let readings = match senml::parse(&publish.payload, now) {
            Ok(readings) => readings,
            Err(why) => return Ok(Err(Refusal(Reason::Payload, payload_text(why)))),
        };
        let feeds = self.feeds().await.map_err(|e| {
            tracing::error!(tenant = %self.device.tenant, device = self.device.id, error = ?e, "mqtt: cannot look up what the device feeds");
            Ended::Refused(Refusal(Reason::Busy, "try again later"))
        })?;
        let Some(feeds) = feeds else {
            return Ok(Err(Refusal(
                Reason::NotAuthorized,
                "the device is not assigned to anyone",
            )));
        };
        let devices = self.devices.clone();
        Ok(Ok(devices
            .take(
                self.device.tenant,
                &self.device.id,
                Some(self.device.session),
                &feeds,
                now,
                readings,
            )
            .await))
    }

    async fn feeds(&mut self) -> KernelResult<Option<String>> {
        let moved = self.devices.0.moved.load(Ordering::Relaxed);
        if let Some((since, at, feeds)) = &self.feeds
            && *at == moved
            && since.elapsed() < FEEDS_FOR
        {
            return Ok(feeds.clone());
        }
        let feeds = self.devices.feeds(self.device.tenant, &self.device.id).await?;
        self.feeds = Some((Instant::now(), moved, feeds.clone()));
        Ok(feeds)
    }

    async fn settle_next(&mut self) -> Result<(), Ended> {
        let settled = settle(&mut self.pending).await;
        self.answer(settled)
    }

    /// All that are durable already, without waiting: a group is committed together, so it is answered together.
    fn settle_ready(&mut self) -> Result<(), Ended> {
        while let Some(first) = self.pending.front_mut() {
            let settled = match &mut first.fate {
                Fate::Durable(durable) => match durable.try_recv() {
                    Ok(outcome) => outcome.is_ok(),
                    Err(tokio::sync::oneshot::error::TryRecvError::Empty) => return Ok(()),
                    Err(tokio::sync::oneshot::error::TryRecvError::Closed) => false,
                },
                Fate::Repeated | Fate::Refused(_) => true,
            };
            self.answer(settled)?;
        }
        Ok(())
    }

    /// Answers the oldest publication. Not recorded means no answer: the connection ends and the device sends it again.
    fn answer(&mut self, recorded: bool) -> Result<(), Ended> {
        let Some(Pending { id, exactly_once, fate }) = self.pending.pop_front() else {
            return Ok(());
        };
        if !recorded {
            self.pending.clear();
            return Err(Refusal(Reason::Busy, "readings cannot be recorded now; send them again").into());
        }
        if let Some(id) = id {
            let refusal = if let Fate::Refused(refusal) = fate {
                Some(refusal)
            } else {
                None
            };
            self.wire.acknowledge(&mut self.out, id, exactly_once, refusal);
        }
        Ok(())
    }

    fn command(&mut self, payload: Bytes) {
        let Some(qos) = self.listens else { return };
        let id = (qos > 0).then(|| {
            self.next_command = self.next_command.checked_add(1).unwrap_or(1);
            self.unacknowledged_commands += 1;
            self.next_command
        });
        self.wire.command(
            &mut self.out,
            &self.device.commands,
            id.and_then(NonZeroU16::new),
            payload,
        );
    }

    async fn flush<S: AsyncWrite + Unpin>(&mut self, io: &mut S) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        timeout(WRITE_WITHIN, async {
            io.write_all(&out).await?;
            io.flush().await
        })
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

async fn ended(end: &mut watch::Receiver<Option<End>>) -> Option<End> {
    end.wait_for(Option::is_some).await.ok().and_then(|e| *e)
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|s| *s).await;
}

/// Waits until the oldest publication can be answered; forever when there is none. Safe to drop and call again.
async fn settle(waiting: &mut VecDeque<Pending>) -> bool {
    match waiting.front_mut().map(|p| &mut p.fate) {
        Some(Fate::Durable(durable)) => matches!(durable.await, Ok(Ok(()))),
        Some(Fate::Repeated | Fate::Refused(_)) => true,
        None => pending().await,
    }
}

/// The refusal's sentence as a constant: reason strings are never built from what was sent.
fn payload_text(why: senml::Refused) -> &'static str {
    use senml::Refused;
    match why {
        Refused::NotAPack => "the payload is not a JSON array of SenML records",
        Refused::Count => "a pack holds 1 to 200 records with measurements",
        Refused::Type => "a field has the wrong type",
        Refused::Name => "a name is missing, too long or has characters that RFC 8428 does not allow",
        Refused::Unit => "a unit is too long or not printable",
        Refused::Value => "only numeric measurements (v) are taken",
        Refused::Time => "a time is out of range",
        Refused::MustUnderstand => "a field that must be understood is not",
        Refused::Version => "the pack's version is newer than 10",
    }
}
