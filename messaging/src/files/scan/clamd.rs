//! The INSTREAM command of ClamAV's daemon (clamd(8)): a file is sent in pieces, the answer is one line.

use super::super::sealed::Plain;
use futures_util::TryStreamExt;
use std::{
    io::{Error, ErrorKind, Result},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// The daemon takes a connection, or a piece, within this time.
const PATIENCE: Duration = Duration::from_secs(20);
/// It has looked at the whole within this time after the last piece.
const LOOK: Duration = Duration::from_secs(300);
/// Bytes of an answer that are read.
const ANSWER: usize = 4096;

/// Where the scanner listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(String),
    Unix(PathBuf),
}

/// What it says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Harmful,
    /// It did not look at the whole: too large for its settings, or a failure of its own.
    Unread,
}

impl Address {
    /// Reads `tcp://host:port` or `unix:/path`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(at) = text.strip_prefix("tcp://") {
            let (host, port) = at.rsplit_once(':')?;
            let fine = !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) && !at.contains('/');
            return (fine || at.parse::<SocketAddr>().is_ok()).then(|| Self::Tcp(at.to_owned()));
        }
        let path = text.strip_prefix("unix:")?;
        let path = path.strip_prefix("//").unwrap_or(path);
        path.starts_with('/').then(|| Self::Unix(path.into()))
    }

    /// Sends the file. An error means that the scanner is away; what the file itself cannot give is `Err` inside.
    pub(crate) async fn scan(&self, file: Plain) -> Result<medtech_kernel::Result<Found>> {
        match self {
            Self::Tcp(at) => exchange(within(PATIENCE, TcpStream::connect(at)).await?, file).await,
            Self::Unix(path) => exchange(within(PATIENCE, UnixStream::connect(path)).await?, file).await,
        }
    }

    /// Is anybody there?
    pub(crate) async fn ping(&self) -> Result<()> {
        let answer = match self {
            Self::Tcp(at) => ask(within(PATIENCE, TcpStream::connect(at)).await?).await?,
            Self::Unix(path) => ask(within(PATIENCE, UnixStream::connect(path)).await?).await?,
        };
        match answer.as_slice() {
            b"PONG" => Ok(()),
            _ => Err(Error::new(ErrorKind::InvalidData, "this is no clamd")),
        }
    }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Vec<u8>> {
    within(PATIENCE, stream.write_all(b"zPING\0")).await?;
    within(PATIENCE, line(&mut stream)).await
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut file: Plain,
) -> Result<medtech_kernel::Result<Found>> {
    within(PATIENCE, stream.write_all(b"zINSTREAM\0")).await?;
    loop {
        let piece = match file.try_next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(e) => return Ok(Err(e)),
        };
        // A piece of no bytes would end the stream.
        if piece.is_empty() {
            continue;
        }
        let length = u32::try_from(piece.len()).map_err(Error::other)?;
        let sent = async {
            stream.write_all(&length.to_be_bytes()).await?;
            stream.write_all(&piece).await
        };
        if let Err(e) = within(PATIENCE, sent).await {
            return early(&mut stream, e).await;
        }
    }
    if let Err(e) = within(PATIENCE, stream.write_all(&0_u32.to_be_bytes())).await {
        return early(&mut stream, e).await;
    }
    let answer = within(LOOK, line(&mut stream)).await?;
    if answer.is_empty() {
        return Err(Error::new(ErrorKind::UnexpectedEof, "no answer"));
    }
    Ok(Ok(read(&answer)))
}

/// A file too large for it is answered before its end, and the connection closed.
async fn early(stream: &mut (impl AsyncRead + Unpin), broken: Error) -> Result<medtech_kernel::Result<Found>> {
    match within(PATIENCE, line(stream)).await {
        Ok(answer) if !answer.is_empty() => Ok(Ok(read(&answer))),
        _ => Err(broken),
    }
}

/// Only the plain word lets a file through.
fn read(answer: &[u8]) -> Found {
    match answer {
        b"stream: OK" => Found::Nothing,
        other if other.starts_with(b"stream: ") && other.ends_with(b" FOUND") => Found::Harmful,
        _ => Found::Unread,
    }
}

/// To the end of the line and no further: behind it may come nothing but a reset of the connection.
async fn line(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut piece = [0; 256];
    while all.len() < ANSWER {
        let read = stream.read(&mut piece).await?;
        let read = piece.get(..read).unwrap_or_default();
        if let Some(end) = read.iter().position(|b| matches!(b, 0 | b'\n')) {
            all.extend(read.iter().take(end));
            break;
        }
        if read.is_empty() {
            break;
        }
        all.extend(read);
    }
    Ok(all)
}

async fn within<T>(time: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(time, work)
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::TimedOut, "the scanner does not answer")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_port_or_a_path() {
        assert_eq!(
            Address::parse("tcp://127.0.0.1:3310"),
            Some(Address::Tcp("127.0.0.1:3310".into()))
        );
        assert_eq!(
            Address::parse("tcp://[::1]:3310"),
            Some(Address::Tcp("[::1]:3310".into()))
        );
        assert_eq!(
            Address::parse("unix:/run/clamav/clamd.ctl"),
            Some(Address::Unix("/run/clamav/clamd.ctl".into()))
        );
        for wrong in [
            "",
            "tcp://",
            "tcp://host",
            "tcp://host:0",
            "tcp://:1",
            "tcp://h:1/x",
            "unix:",
            "unix:x",
            "http://h:1",
        ] {
            assert_eq!(Address::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_the_plain_word_lets_a_file_through() {
        assert_eq!(read(b"stream: OK"), Found::Nothing);
        assert_eq!(read(b"stream: Eicar-Test-Signature FOUND"), Found::Harmful);
        for other in [
            "",
            "OK",
            "stream: OK ",
            "INSTREAM size limit exceeded. ERROR",
            "stream: x ERROR",
            "UNKNOWN COMMAND",
        ] {
            assert_eq!(read(other.as_bytes()), Found::Unread, "{other}");
        }
    }
    #[tokio::test]
    async fn an_answer_ends_with_its_line_and_not_with_the_connection() {
        for (sent, read) in [
            (&b"stream: OK\0"[..], &b"stream: OK"[..]),
            (b"stream: OK\nmore", b"stream: OK"),
        ] {
            // The other end stays open: whoever waits for its end waits for ever.
            let (mut here, mut there) = tokio::io::duplex(64);
            there.write_all(sent).await.expect("written");
            let answer = timeout(Duration::from_secs(5), line(&mut here)).await;
            assert_eq!(answer.expect("in time").expect("read"), read);
        }
        let (mut here, mut there) = tokio::io::duplex(64);
        there.write_all(b"cut off").await.expect("written");
        drop(there);
        assert_eq!(line(&mut here).await.expect("read"), b"cut off");
    }
}
