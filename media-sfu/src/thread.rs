//! A media thread: sockets, the clock and the wake-up around an [`Engine`].

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Poll, Token};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::batch::{Sender as BatchSender, Sent};
use crate::engine::Engine;
use crate::messages::{Command, Event};
use crate::peer::PeerFactory;
use crate::stats::SharedStats;

pub(crate) const WAKER: Token = Token(usize::MAX);
/// Datagrams taken from one socket before the others and the timers get their turn.
const BURST: usize = 64;
/// The largest datagram that a peer may send us.
const DATAGRAM: usize = 2048;
/// Events kept while the caller's channel is full. Beyond it they are lost and counted: the caller is dead or stuck.
const EVENT_BACKLOG: usize = 65_536;

/// A socket and the address by which clients know it.
pub(crate) struct Listener {
    pub socket: UdpSocket,
    pub advertised: SocketAddr,
    pub sender: BatchSender,
}

pub(crate) struct MediaThread {
    pub poll: Poll,
    pub listeners: Vec<Listener>,
    pub commands: Receiver<Command>,
    pub events: Sender<Event>,
    pub stats: Arc<SharedStats>,
    pub factory: PeerFactory,
}

impl MediaThread {
    /// Run until the command channel is closed.
    pub(crate) fn run(mut self) {
        let local = self.listeners.iter().map(|l| l.advertised).collect();
        let mut engine = Engine::new(self.factory.clone(), local, Instant::now());
        let mut ready = Events::with_capacity(64);
        let mut buffer = vec![0; DATAGRAM];
        let mut backlog = VecDeque::new();
        loop {
            let wait = engine
                .deadline()
                .saturating_duration_since(Instant::now())
                .max(Duration::from_micros(200));
            if let Err(error) = self.poll.poll(&mut ready, Some(wait))
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%error, "the media thread cannot wait for its sockets");
                return;
            }
            loop {
                match self.commands.try_recv() {
                    Ok(command) => engine.command(Instant::now(), command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let mut again = true;
            while again {
                again = false;
                for at in 0..self.listeners.len() {
                    again |= self.receive(at, &mut engine, &mut buffer);
                }
                engine.time(Instant::now());
                self.send(&mut engine);
                if again && !matches!(self.pump_commands(&mut engine), Pump::Running) {
                    return;
                }
            }
            self.publish(&mut engine, &mut backlog);
        }
    }

    fn pump_commands(&mut self, engine: &mut Engine) -> Pump {
        match self.commands.try_recv() {
            Ok(command) => engine.command(Instant::now(), command),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Pump::Stopped,
        }
        Pump::Running
    }

    /// Take datagrams from one socket; true when there may be more.
    fn receive(&mut self, at: usize, engine: &mut Engine, buffer: &mut [u8]) -> bool {
        let Some(listener) = self.listeners.get(at) else {
            return false;
        };
        for _ in 0..BURST {
            match listener.socket.recv_from(buffer) {
                Ok((length, from)) => {
                    if let Some(datagram) = buffer.get(..length) {
                        engine.datagram(Instant::now(), from, listener.advertised, datagram);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // On Linux a socket reports that an earlier datagram found no receiver; it concerns nobody here.
                Err(_) => {}
            }
        }
        true
    }

    fn send(&mut self, engine: &mut Engine) {
        let Engine { sink, stats, .. } = engine;
        let mut rest = &sink.datagrams[..];
        while let Some(first) = rest.first() {
            let listener = self.listeners.iter_mut().find(|l| l.advertised == first.local);
            let (count, result) = match listener {
                Some(Listener { socket, sender, .. }) => sender.send(socket, rest),
                None => (1, Sent { sent: 0, dropped: 1 }),
            };
            stats.datagrams_out += result.sent;
            stats.dropped += result.dropped;
            rest = rest.get(count..).unwrap_or_default();
        }
        sink.sent();
    }

    fn publish(&mut self, engine: &mut Engine, backlog: &mut VecDeque<Event>) {
        backlog.append(&mut engine.events);
        while let Some(event) = backlog.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    backlog.push_front(event);
                    let before = backlog.len();
                    backlog.retain(Event::must_arrive);
                    while backlog.len() > EVENT_BACKLOG {
                        backlog.pop_front();
                    }
                    engine.stats.events_lost += (before - backlog.len()) as u64;
                    break;
                }
                Err(TrySendError::Closed(_)) => backlog.clear(),
            }
        }
        self.stats.publish(&engine.stats);
    }
}

enum Pump {
    Running,
    Stopped,
}
