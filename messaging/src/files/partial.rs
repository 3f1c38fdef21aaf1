//! An upload in progress: a local file that is appended to. What is acknowledged has been flushed to the disk.

use aws_lc_rs::digest;
use std::{
    io::{ErrorKind, Result, SeekFrom},
    path::{Path, PathBuf},
};
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};

/// Bytes read at a time when a file is hashed again after a restart.
const READ: usize = 256 * 1024;

/// The file, its length and the running SHA-256 of all of it.
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
    len: u64,
    sha: digest::Context,
    held: Option<(u64, digest::Context)>,
}

impl Partial {
    /// Makes an empty file; its name is durable when this returns.
    pub(crate) async fn create(path: &Path) -> Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).await?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .await?;
        file.sync_all().await?;
        sync_dir(path).await?;
        Ok(Self {
            file,
            path: path.to_owned(),
            len: 0,
            sha: digest::Context::new(&digest::SHA256),
            held: None,
        })
    }

    /// Opens what an earlier process left. Bytes of a request that was never verified are cut off; the rest is flushed
    /// before its length is told to anyone.
    pub(crate) async fn open(path: &Path) -> Result<Option<Self>> {
        let mut file = match OpenOptions::new().read(true).write(true).open(path).await {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        if let Some(verified) = read_hold(path).await? {
            if file.metadata().await?.len() > verified {
                file.set_len(verified).await?;
            }
            file.sync_all().await?;
            remove_hold(path).await?;
        } else {
            file.sync_all().await?;
        }
        let mut sha = digest::Context::new(&digest::SHA256);
        let mut len = 0_u64;
        let mut buffer = vec![0_u8; READ];
        loop {
            let n = file.read(&mut buffer).await?;
            if n == 0 {
                break;
            }
            sha.update(buffer.get(..n).unwrap_or_default());
            len += n as u64;
        }
        Ok(Some(Self {
            file,
            path: path.to_owned(),
            len,
            sha,
            held: None,
        }))
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// From here on bytes are on trial: until [`Partial::keep`] they count for nothing, even across a crash.
    pub(crate) async fn hold(&mut self) -> Result<()> {
        let path = hold_path(&self.path);
        let mut note = File::create(&path).await?;
        note.write_all(format!("{}\n", self.len).as_bytes()).await?;
        note.flush().await?;
        note.sync_all().await?;
        sync_dir(&path).await?;
        self.held = Some((self.len, self.sha.clone()));
        Ok(())
    }

    pub(crate) async fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).await?;
        self.sha.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Flushes everything to the disk; what was on trial is now part of the file.
    pub(crate) async fn keep(&mut self) -> Result<()> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        if self.held.take().is_some() {
            remove_hold(&self.path).await?;
        }
        Ok(())
    }

    /// Cuts off what was on trial; without a trial, the same as [`Partial::keep`].
    pub(crate) async fn settle(&mut self) -> Result<()> {
        if let Some((len, sha)) = self.held.take() {
            self.file.flush().await?;
            self.file.set_len(len).await?;
            self.file.seek(SeekFrom::Start(len)).await?;
            self.file.sync_all().await?;
            (self.len, self.sha) = (len, sha);
            remove_hold(&self.path).await?;
            return Ok(());
        }
        self.keep().await
    }

    /// SHA-256 of the whole file.
    pub(crate) fn sha256(&self) -> Vec<u8> {
        self.sha.clone().finish().as_ref().to_vec()
    }
}

/// Removes a partial file; absent is fine.
pub(crate) async fn remove(path: &Path) -> Result<()> {
    remove_file(path).await?;
    remove_file(&hold_path(path)).await
}

fn hold_path(path: &Path) -> PathBuf {
    path.with_extension("hold")
}

/// The verified length a crashed request left. A note without its line end was never finished, so nothing was appended
/// after it: then the file stands as it is.
async fn read_hold(path: &Path) -> Result<Option<u64>> {
    match fs::read_to_string(hold_path(path)).await {
        Ok(text) => Ok(text.strip_suffix('\n').and_then(|n| n.parse().ok())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

async fn remove_hold(path: &Path) -> Result<()> {
    let note = hold_path(path);
    remove_file(&note).await?;
    sync_dir(&note).await
}

async fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path).await {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

async fn sync_dir(path: &Path) -> Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir).await?.sync_all().await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha(bytes: &[u8]) -> Vec<u8> {
        digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
    }

    #[tokio::test]
    async fn a_new_process_goes_on_where_the_disk_stands() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/x");
        let mut p = Partial::create(&path).await.unwrap();
        p.append(b"hello ").await.unwrap();
        p.keep().await.unwrap();
        drop(p);
        let mut p = Partial::open(&path).await.unwrap().unwrap();
        assert_eq!(p.len(), 6);
        p.append(b"world").await.unwrap();
        p.keep().await.unwrap();
        assert_eq!(p.sha256(), sha(b"hello world"));
        assert_eq!(std::fs::read(&path).unwrap(), b"hello world");
        assert!(Partial::open(&dir.path().join("absent")).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn bytes_on_trial_do_not_survive_a_crash_or_a_refusal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut p = Partial::create(&path).await.unwrap();
        p.append(b"good").await.unwrap();
        p.keep().await.unwrap();
        p.hold().await.unwrap();
        p.append(b"unverified").await.unwrap();
        p.file.flush().await.unwrap();
        drop(p); // the crash
        let mut p = Partial::open(&path).await.unwrap().unwrap();
        assert_eq!((p.len(), p.sha256()), (4, sha(b"good")));
        p.hold().await.unwrap();
        p.append(b"bad").await.unwrap();
        p.settle().await.unwrap();
        assert_eq!((p.len(), p.sha256()), (4, sha(b"good")));
        p.hold().await.unwrap();
        p.append(b"!").await.unwrap();
        p.keep().await.unwrap();
        drop(p);
        let p = Partial::open(&path).await.unwrap().unwrap();
        assert_eq!((p.len(), p.sha256()), (5, sha(b"good!")));
    }
}
