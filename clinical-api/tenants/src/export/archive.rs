//! The archive: a tar of named parts, a manifest at its end, sealed or plain, on the disk before it is said to be there.
//! Written by a thread of its own, behind a short queue.

use super::age::{self, Sealed};
use aws_lc_rs::digest::{Context, SHA256};
use medtech_kernel::{Error, Result};
use serde::Serialize;
use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// Parts that may wait for the disk; whoever reads the clinic's data waits in line then.
const QUEUE: usize = 4;

/// One file of the archive, for the manifest.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Item {
    pub(super) path: String,
    /// Lines of an NDJSON file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    pub(super) size: u64,
    pub(super) sha256: String,
}

enum Order {
    /// The beginning of a file whose size is known.
    Begin(String, u64),
    Bytes(Vec<u8>),
}

/// The way in.
pub(super) struct Archive {
    orders: mpsc::Sender<Order>,
    done: JoinHandle<io::Result<(u64, String)>>,
    pub(super) items: Vec<Item>,
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Counts and hashes what passes.
struct Counted<W> {
    out: W,
    size: u64,
    sha: Context,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.size += n as u64;
        self.sha.update(bytes.get(..n).unwrap_or_default());
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

enum Out {
    Plain(Counted<File>),
    Sealed(Box<Sealed<Counted<File>>>),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Sealed(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Sealed(out) => out.flush(),
        }
    }
}

/// The body of one file, which comes in pieces.
struct Incoming<'a> {
    orders: &'a mut mpsc::Receiver<Order>,
    piece: Vec<u8>,
    at: usize,
}

impl io::Read for Incoming<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.orders.blocking_recv() {
                Some(Order::Bytes(piece)) => (self.piece, self.at) = (piece, 0),
                _ => return Err(io::Error::other("a file of the archive was cut short")),
            }
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let n = rest.len().min(into.len());
        if let (Some(into), Some(from)) = (into.get_mut(..n), rest.get(..n)) {
            into.copy_from_slice(from);
        }
        self.at += n;
        Ok(n)
    }
}

impl Archive {
    /// Begins at `path`, which must not be there.
    pub(super) fn begin(path: PathBuf, passphrase: Option<String>, at: i64) -> Self {
        let (orders, inbox) = mpsc::channel(QUEUE);
        let done = tokio::task::spawn_blocking(move || write(&path, passphrase, at, inbox));
        Self {
            orders,
            done,
            items: Vec::new(),
        }
    }

    async fn order(&mut self, order: Order) -> Result<()> {
        // A closed inbox: the writer has failed, and says why at the end.
        self.orders
            .send(order)
            .await
            .map_err(|_| Error::internal("tenants.archive", "the writer has ended"))
    }

    /// A file whose bytes are at hand.
    pub(super) async fn add(&mut self, path: String, count: Option<u64>, bytes: Vec<u8>) -> Result<()> {
        let mut sha = Context::new(&SHA256);
        sha.update(&bytes);
        let item = Item {
            path: path.clone(),
            count,
            size: bytes.len() as u64,
            sha256: hex(sha.finish().as_ref()),
        };
        self.order(Order::Begin(path, item.size)).await?;
        if !bytes.is_empty() {
            self.order(Order::Bytes(bytes)).await?;
        }
        self.items.push(item);
        Ok(())
    }

    /// A file whose bytes come in pieces; exactly `size` of them follow by [`Archive::piece`].
    pub(super) async fn open(&mut self, path: String, size: u64) -> Result<()> {
        self.order(Order::Begin(path, size)).await
    }

    pub(super) async fn piece(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.order(Order::Bytes(bytes)).await
    }

    /// Waits until all of it is on the disk; answers size and SHA-256 of the archive.
    pub(super) async fn finish(self) -> Result<(u64, String)> {
        drop(self.orders);
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::unavailable("tenants.disk_full", "The server has no room for the export.")
            }
            _ => Error::internal("tenants.archive", e),
        };
        self.done
            .await
            .map_err(|e| Error::internal("tenants.archive", e))?
            .map_err(failed)
    }
}

fn write(
    path: &Path,
    passphrase: Option<String>,
    at: i64,
    mut orders: mpsc::Receiver<Order>,
) -> io::Result<(u64, String)> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = Counted {
        out: options.open(path)?,
        size: 0,
        sha: Context::new(&SHA256),
    };
    let out = match passphrase {
        None => Out::Plain(file),
        Some(passphrase) => Out::Sealed(Box::new(Sealed::new(file, &passphrase, age::WORK)?)),
    };
    let mut tar = tar::Builder::new(out);
    while let Some(order) = orders.blocking_recv() {
        let Order::Begin(name, size) = order else {
            return Err(io::Error::other("bytes before a file"));
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(at / 1000).unwrap_or(0));
        let body = Incoming {
            orders: &mut orders,
            piece: Vec::new(),
            at: 0,
        };
        tar.append_data(&mut header, name, io::Read::take(body, size))?;
    }
    let counted = match tar.into_inner()? {
        Out::Plain(out) => out,
        Out::Sealed(out) => out.finish()?,
    };
    counted.out.sync_all()?;
    Ok((counted.size, hex(counted.sha.finish().as_ref())))
}
