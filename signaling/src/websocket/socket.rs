//! The sending side of a connection. No writer task, no channel: a frame is written at once, and only a socket that would
//! block gets a queue and one flusher, both gone when the queue is empty.

use super::{frame, wire::Wire};
use bytes::{Buf, Bytes};
use socket2::SockRef;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    mem,
    net::Shutdown,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::runtime::Handle;

/// What one connection may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one incoming message, all fragments together.
    pub message: usize,
    /// Bytes waiting to be sent. A frame that would pass it cuts the client ([`Sent::Slow`]).
    pub queue: usize,
    /// How long a closing handshake may take before the connection is reset.
    pub closing: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: 64 * 1024,
            queue: 1024 * 1024,
            closing: Duration::from_secs(5),
        }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// In the kernel's buffer.
    Written,
    /// In the queue.
    Queued,
    /// The queue is full: the caller should close with its protocol's code for that.
    Slow,
    /// The connection is closing or gone.
    Gone,
}

/// A connection, as its senders see it.
pub struct Socket {
    pub(super) wire: Wire,
    out: Mutex<Out>,
    heard: AtomicBool,
    runtime: Handle,
    limits: Limits,
}

enum Out {
    Open(Option<Box<Queue>>),
    /// A close frame is the last thing that was written or queued.
    Closing(Option<Box<Queue>>),
    Closed,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// The first frame is partly on the wire, so it must be finished whatever happens.
    head_begun: bool,
}

impl Queue {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// Drops what no byte was sent of.
    fn keep_begun(&mut self) {
        self.frames.truncate(usize::from(self.head_begun));
        self.bytes = self.frames.iter().map(Bytes::len).sum();
    }

    fn advance(&mut self, mut n: usize) {
        self.bytes = self.bytes.saturating_sub(n);
        while let Some(head) = self.frames.front_mut() {
            if n < head.len() {
                head.advance(n);
                self.head_begun |= n > 0;
                return;
            }
            n -= head.len();
            self.frames.pop_front();
            self.head_begun = false;
        }
    }
}

enum Drained {
    Empty,
    Blocked,
    Failed,
}

impl Socket {
    pub(super) fn new(wire: Wire, limits: Limits) -> io::Result<Arc<Self>> {
        wire.tcp().set_nodelay(true)?;
        // The kernel would otherwise hold megabytes for a slow reader, outside of our bound.
        SockRef::from(wire.tcp()).set_send_buffer_size(64 * 1024)?;
        Ok(Arc::new(Self {
            wire,
            out: Mutex::new(Out::Open(None)),
            heard: AtomicBool::new(true),
            runtime: Handle::current(),
            limits,
        }))
    }

    /// Sends an encoded frame. Never blocks.
    pub fn send(self: &Arc<Self>, frame: &Bytes) -> Sent {
        let mut out = self.lock();
        match &mut *out {
            Out::Open(Some(queue)) => {
                if queue.bytes + frame.len() > self.limits.queue {
                    return Sent::Slow;
                }
                queue.push(frame.clone());
                Sent::Queued
            }
            Out::Open(idle) => match self.write_or_queue(frame) {
                Ok(None) => Sent::Written,
                Ok(queue) => {
                    *idle = queue;
                    drop(out);
                    self.spawn_flusher();
                    Sent::Queued
                }
                Err(_) => {
                    *out = Out::Closed;
                    Sent::Gone
                }
            },
            Out::Closing(_) | Out::Closed => Sent::Gone,
        }
    }

    /// Starts the closing handshake: what has not begun to be sent is dropped, and the connection is reset when the peer
    /// does not answer in time. Does nothing when already closing.
    pub fn close(self: &Arc<Self>, code: u16, reason: &str) {
        let frame = frame::close(code, reason);
        let mut out = self.lock();
        let flush = match &mut *out {
            Out::Closing(_) | Out::Closed => return,
            Out::Open(Some(queue)) => {
                queue.keep_begun();
                queue.push(frame);
                let queue = mem::take(queue);
                *out = Out::Closing(Some(queue));
                false
            }
            Out::Open(None) => {
                let Ok(queue) = self.write_or_queue(&frame) else {
                    *out = Out::Closed;
                    return;
                };
                let flush = queue.is_some();
                *out = Out::Closing(queue);
                flush
            }
        };
        drop(out);
        if flush {
            self.spawn_flusher();
        }
        let (socket, patience) = (Arc::downgrade(self), self.limits.closing);
        self.runtime.spawn(async move {
            tokio::time::sleep(patience).await;
            if let Some(socket) = socket.upgrade() {
                socket.abort();
            }
        });
    }

    /// Ends the connection now: the reader sees its end, and the peer a reset.
    pub fn abort(&self) {
        *self.lock() = Out::Closed;
        // A peer that is stuck would never learn of a plain shutdown, and unsent data would outlive the connection.
        let _ = self.wire.tcp().set_zero_linger();
        let _ = SockRef::from(self.wire.tcp()).shutdown(Shutdown::Read);
    }

    /// Ends our direction once the close frame is on the wire, for a peer that is not expected to answer it in order.
    pub(super) fn end_if_flushed(&self) {
        if matches!(*self.lock(), Out::Closing(None)) {
            self.wire.shut_down_writing();
        }
    }

    /// True from the start of the closing handshake.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        !matches!(*self.lock(), Out::Open(_))
    }

    /// Has anything arrived since the last call? For keep-alive by whoever pings.
    pub fn take_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    pub(super) fn note_heard(&self) {
        // A plain load first: most frames find the flag set, and then no cache line is taken.
        if !self.heard.load(Ordering::Relaxed) {
            self.heard.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// The reader is gone: nothing is sent any more.
    pub(super) fn shut(&self) {
        *self.lock() = Out::Closed;
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `Ok(None)` when all of it went out, else what is left.
    fn write_or_queue(&self, frame: &Bytes) -> io::Result<Option<Box<Queue>>> {
        let written = match self.wire.try_write(frame) {
            // Under TLS all of it may be taken and part of it still wait: a queue without frames then waits for that.
            Ok(n) if n == frame.len() => match self.wire.try_flush() {
                Ok(()) => return Ok(None),
                Err(e) if e.kind() == ErrorKind::WouldBlock => n,
                Err(e) => return Err(e),
            },
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
            Err(e) => return Err(e),
        };
        let mut queue = Box::<Queue>::default();
        queue.push(frame.clone());
        queue.advance(written);
        Ok(Some(queue))
    }

    fn spawn_flusher(self: &Arc<Self>) {
        let socket = Arc::clone(self);
        self.runtime.spawn(async move {
            while socket.wire.tcp().writable().await.is_ok() {
                match socket.drain() {
                    Drained::Empty => return,
                    Drained::Blocked => {}
                    Drained::Failed => break,
                }
            }
            socket.abort();
        });
    }

    fn drain(&self) -> Drained {
        let mut out = self.lock();
        let (Out::Open(slot) | Out::Closing(slot)) = &mut *out else {
            return Drained::Empty;
        };
        let Some(queue) = slot else { return Drained::Empty };
        while !queue.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); 16];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&queue.frames) {
                *slice = IoSlice::new(frame);
                count += 1;
            }
            match self.wire.try_write_vectored(slices.get(..count).unwrap_or_default()) {
                Ok(0) => return Drained::Failed,
                Ok(n) => queue.advance(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Drained::Blocked,
                Err(_) => return Drained::Failed,
            }
        }
        match self.wire.try_flush() {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Drained::Blocked,
            Err(_) => return Drained::Failed,
        }
        // In the same lock, so that whoever sends next sees an idle socket and starts the one flusher.
        *slot = None;
        Drained::Empty
    }
}
