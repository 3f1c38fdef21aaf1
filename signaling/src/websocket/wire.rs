//! The bytes under a connection: TCP as it is, or TLS on it. Both are written and read without waiting, from any task,
//! and what TLS needs beside the TCP stream lies in one box, so that a plain connection does not grow by it.

use rustls::ServerConnection;
use socket2::SockRef;
use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::Shutdown,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::net::TcpStream;

/// Bytes encrypted before the socket is asked to take them: one record of TLS, which bounds what waits unsent.
const RECORD: usize = 16 * 1024;
/// Times that the socket is asked for more within one reading, so that a peer that sends records without content does
/// not hold the thread.
const ROUNDS: usize = 8;

/// The connection under a WebSocket.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

pub(super) struct Tls {
    tcp: TcpStream,
    session: Mutex<ServerConnection>,
    /// There may be something to read although the socket has nothing new.
    more: AtomicBool,
}

impl Wire {
    pub(super) fn tls(tcp: TcpStream, session: ServerConnection) -> Self {
        Self::Tls(Box::new(Tls {
            tcp,
            session: Mutex::new(session),
            // What came with the end of the request was decrypted with it.
            more: AtomicBool::new(true),
        }))
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.tcp,
        }
    }

    /// Waits until [`Wire::try_read`] is worth a try.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.readable().await,
            Self::Tls(tls) => {
                if tls.more.swap(false, Ordering::Relaxed) {
                    // Others have their turn, however much this peer sends.
                    tokio::task::yield_now().await;
                    return Ok(());
                }
                tls.tcp.readable().await
            }
        }
    }

    /// Zero is the end.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_read(buffer),
            Self::Tls(tls) => tls.try_read(buffer),
        }
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write(bytes),
            Self::Tls(tls) => tls.try_write(bytes),
        }
    }

    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write_vectored(slices),
            Self::Tls(tls) => {
                let mut written = 0;
                for slice in slices {
                    match tls.try_write(slice) {
                        Ok(n) => {
                            written += n;
                            if n < slice.len() {
                                break;
                            }
                        }
                        Err(e) if e.kind() == ErrorKind::WouldBlock && written > 0 => break,
                        Err(e) => return Err(e),
                    }
                }
                Ok(written)
            }
        }
    }

    /// Is all that was taken in the kernel's buffer? Where not, `WouldBlock`.
    pub(super) fn try_flush(&self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(&mut tls.session()),
        }
    }

    /// Ends our direction.
    pub(super) fn shut_down_writing(&self) {
        if let Self::Tls(tls) = self {
            tls.say_goodbye();
        }
        let _ = SockRef::from(self.tcp()).shutdown(Shutdown::Write);
    }
}

/// The TCP stream as rustls wants it: it answers `WouldBlock` where it would wait.
struct Now<'a>(&'a TcpStream);

impl Read for Now<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Tls {
    fn session(&self) -> MutexGuard<'_, ServerConnection> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut session = self.session();
        for _ in 0..ROUNDS {
            match session.reader().read(buffer) {
                Ok(n) => {
                    if n == buffer.len() {
                        self.more.store(true, Ordering::Relaxed);
                    }
                    return Ok(n);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            if session.read_tls(&mut Now(&self.tcp))? == 0 {
                // Without a goodbye: somebody else may have cut it. For a WebSocket its own close frame counts.
                return Ok(0);
            }
            let outcome = session.process_new_packets();
            // Answers of the protocol itself: a new key, or the alert that says what was wrong.
            let _ = self.flush(&mut session);
            outcome.map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
        }
        self.more.store(true, Ordering::Relaxed);
        Err(ErrorKind::WouldBlock.into())
    }

    /// Takes as much as the socket does, and never more than a record beyond.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut session = self.session();
        self.flush(&mut session)?;
        let mut taken = 0;
        for record in bytes.chunks(RECORD) {
            taken += session.writer().write(record)?;
            match self.flush(&mut session) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(taken)
    }

    fn flush(&self, session: &mut ServerConnection) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(&mut Now(&self.tcp))?;
        }
        Ok(())
    }

    fn say_goodbye(&self) {
        let mut session = self.session();
        session.send_close_notify();
        let _ = self.flush(&mut session);
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}
