//! Starting, stopping and talking to the media threads.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use mio::net::UdpSocket;
use mio::{Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

use crate::batch::Sender;
use crate::messages::{Command, Event};
use crate::peer::PeerFactory;
use crate::stats::{SharedStats, Stats};
use crate::thread::{Listener, MediaThread, WAKER};

/// Commands waiting for a media thread. When full, [`Sfu::send`] refuses: the caller decides what to give up.
const COMMANDS: usize = 4096;
/// Events waiting for the caller; see [`Sfu::start`] for what happens beyond.
const EVENTS: usize = 4096;
const SOCKET_BUFFER: usize = 4 << 20;

#[derive(Debug, Clone, Default)]
pub struct SfuConfig {
    /// First UDP port; thread `i` uses `udp_port + i`. 0 takes any free ones.
    pub udp_port: u16,
    /// Media threads; 0 is one for each core.
    pub threads: usize,
    /// Addresses under which clients reach this machine. Empty: loopback and the machine's own addresses.
    /// An address that is not the machine's own (one-to-one NAT) is served by a socket bound to all addresses.
    pub advertise: Vec<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum SfuError {
    #[error("UDP socket {addr}: {source}")]
    Bind { addr: SocketAddr, source: io::Error },
    #[error("media thread: {0}")]
    Thread(#[from] io::Error),
    #[error("no address to be reached at")]
    NoAddress,
    /// The command queue of the room's thread is full or the thread has ended.
    #[error("the media engine is overloaded")]
    Busy,
}

/// The running engine.
#[derive(Debug)]
pub struct Sfu {
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    commands: Option<SyncSender<Command>>,
    waker: Waker,
    join: Option<JoinHandle<()>>,
    stats: Arc<SharedStats>,
    addresses: Vec<SocketAddr>,
}

impl Sfu {
    /// Open the sockets and start the threads. Events come out of the receiver; when it is not read, lossy events
    /// (speakers, lossy data) are dropped first, and the others are kept up to a bound.
    pub fn start(config: &SfuConfig) -> Result<(Sfu, mpsc::Receiver<Event>), SfuError> {
        let count = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n,
        };
        let advertise = if config.advertise.is_empty() {
            own_addresses()
        } else {
            config.advertise.clone()
        };
        if advertise.is_empty() {
            return Err(SfuError::NoAddress);
        }
        let (events, receiver) = mpsc::channel(EVENTS);
        let factory = PeerFactory::new();
        let mut threads = Vec::with_capacity(count);
        for i in 0..count {
            let port = if config.udp_port == 0 {
                0
            } else {
                config.udp_port.saturating_add(i as u16)
            };
            threads.push(Thread::start(i, port, &advertise, events.clone(), factory.clone())?);
        }
        Ok((Sfu { threads }, receiver))
    }

    /// Hand a command to the thread that owns its room.
    pub fn send(&self, command: Command) -> Result<(), SfuError> {
        let index = (command.room().0 % self.threads.len().max(1) as u64) as usize;
        let thread = self.threads.get(index).ok_or(SfuError::Busy)?;
        let sender = thread.commands.as_ref().ok_or(SfuError::Busy)?;
        sender.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => SfuError::Busy,
        })?;
        thread.waker.wake()?;
        Ok(())
    }

    /// UDP addresses in use, thread by thread.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.threads.iter().flat_map(|t| t.addresses.iter().copied()).collect()
    }

    pub fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        self.threads.iter().for_each(|t| t.stats.add_to(&mut sum));
        sum
    }

    /// End the threads and wait for them. Connections are not told: the caller says goodbye by closing rooms first.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        for thread in &mut self.threads {
            thread.commands = None;
            if let Err(error) = thread.waker.wake() {
                tracing::debug!(%error, "a media thread could not be woken");
            }
        }
        for thread in &mut self.threads {
            if thread.join.take().is_some_and(|join| join.join().is_err()) {
                tracing::error!("a media thread had ended by a panic");
            }
        }
    }
}

impl Drop for Sfu {
    fn drop(&mut self) {
        self.end();
    }
}

impl Thread {
    fn start(
        index: usize,
        port: u16,
        advertise: &[IpAddr],
        events: mpsc::Sender<Event>,
        factory: PeerFactory,
    ) -> Result<Thread, SfuError> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let mut listeners = Vec::new();
        let mut port = port;
        for ip in advertise {
            let mut listener = match listen(SocketAddr::new(*ip, port)) {
                Err(SfuError::Bind { source, .. }) if source.kind() == io::ErrorKind::AddrNotAvailable => {
                    let any = if ip.is_ipv4() {
                        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
                    } else {
                        Ipv6Addr::UNSPECIFIED.into()
                    };
                    listen(SocketAddr::new(any, port))?
                }
                other => other?,
            };
            // With any free port, the first address chooses for all.
            port = listener.advertised.port();
            listener.advertised.set_ip(*ip);
            poll.registry()
                .register(&mut listener.socket, Token(listeners.len()), Interest::READABLE)?;
            listeners.push(listener);
        }
        let addresses = listeners.iter().map(|l| l.advertised).collect();
        let (sender, commands) = sync_channel(COMMANDS);
        let stats = Arc::new(SharedStats::default());
        let thread = MediaThread {
            poll,
            listeners,
            commands,
            events,
            stats: stats.clone(),
            factory,
        };
        let join = std::thread::Builder::new()
            .name(format!("media-{index}"))
            .spawn(move || thread.run())?;
        Ok(Thread {
            commands: Some(sender),
            waker,
            join: Some(join),
            stats,
            addresses,
        })
    }
}

fn listen(addr: SocketAddr) -> Result<Listener, SfuError> {
    let open = || -> io::Result<Listener> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        // Best effort: the system may allow less.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        let socket = UdpSocket::from_std(socket.into());
        let advertised = socket.local_addr()?;
        Ok(Listener {
            socket,
            advertised,
            sender: Sender::default(),
        })
    };
    open().map_err(|source| SfuError::Bind { addr, source })
}

/// Loopback, and the addresses from which this machine would reach the world. No packet is sent to find out.
fn own_addresses() -> Vec<IpAddr> {
    let mut found = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let probes: [(SocketAddr, SocketAddr); 2] = [
        (
            (Ipv4Addr::UNSPECIFIED, 0).into(),
            (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        ),
        (
            (Ipv6Addr::UNSPECIFIED, 0).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
        ),
    ];
    for (from, to) in probes {
        let seen = std::net::UdpSocket::bind(from).and_then(|s| s.connect(to).and_then(|()| s.local_addr()));
        if let Ok(addr) = seen
            && !addr.ip().is_unspecified()
            && !found.contains(&addr.ip())
        {
            found.push(addr.ip());
        }
    }
    found
}
