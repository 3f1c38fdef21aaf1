//! An upload in progress: a local file that is appended to. What is acknowledged has been flushed to the disk.

use super::sealed::{CHUNK, Sealer};
use aws_lc_rs::digest;
use medtech_kernel::vault::{OVERHEAD, aad};
use std::{
    io::{Error, ErrorKind, Result, SeekFrom},
    path::{Path, PathBuf},
};
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};

/// An upload on the disk: `{id}.part` has the whole chunks, sealed; `{id}.tail` the bytes behind them, sealed, in two places
/// that are written in turn, so that a crash while one is written leaves the other. What they hold together has been
/// acknowledged.
pub(crate) struct Partial {
    file: File,
    tail: File,
    path: PathBuf,
    sealer: Sealer,
    /// Whole chunks in the file, the last and shorter one included.
    chunks: u64,
    /// The bytes behind them.
    rest: Vec<u8>,
    sha: digest::Context,
    /// How often the tail was written.
    turns: u64,
    held: Option<(u64, Vec<u8>, digest::Context)>,
}

/// Bytes of a place in the tail: turn, chunks and length, then the sealed bytes.
const PLACE: usize = HEAD + CHUNK + OVERHEAD;
const HEAD: usize = 20;

/// What a place in the tail says: (turn, chunks, bytes behind them).
type Noted = (u64, u64, Vec<u8>);

impl Partial {
    /// Makes an empty upload; its names are durable when this returns.
    pub(crate) async fn create(path: &Path, sealer: Sealer) -> Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).await?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let (file, tail) = (options.open(path).await?, options.open(tail_path(path)).await?);
        file.sync_all().await?;
        tail.sync_all().await?;
        sync_dir(path).await?;
        Ok(Self {
            file,
            tail,
            path: path.to_owned(),
            sealer,
            chunks: 0,
            rest: Vec::new(),
            sha: digest::Context::new(&digest::SHA256),
            turns: 0,
            held: None,
        })
    }

    /// Opens what an earlier process left. Bytes of a request that was never verified are cut off, and so is what a crash
    /// left half written; what was acknowledged and does not open is an error.
    pub(crate) async fn open(path: &Path, sealer: Sealer) -> Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let mut file = match options.open(path).await {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        // The crash came between the two names: nothing was acknowledged.
        let mut tail = options.create(true).truncate(false).open(tail_path(path)).await?;
        let on_trial = read_hold(path).await?.is_some();
        let (turns, sure, mut rest) = read_tail(&mut tail, &sealer).await?;
        let mut sha = digest::Context::new(&digest::SHA256);
        let (mut chunks, mut end) = (0, 0_u64);
        while chunks < sealer.chunks() && !(on_trial && chunks == sure) {
            let mut sealed = vec![0; sealer.length(chunks) + OVERHEAD];
            let found = match file.read_exact(&mut sealed).await {
                Ok(_) => sealer.open(chunks, &sealed).ok(),
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => None,
                Err(e) => return Err(e),
            };
            let Some(plain) = found else { break };
            sha.update(&plain);
            end += sealed.len() as u64;
            chunks += 1;
        }
        if chunks < sure {
            return Err(Error::new(ErrorKind::InvalidData, "an upload is not as it was written"));
        }
        if chunks > sure {
            rest.clear();
        }
        sha.update(&rest);
        file.set_len(end).await?;
        file.seek(SeekFrom::Start(end)).await?;
        file.sync_all().await?;
        let mut partial = Self {
            file,
            tail,
            path: path.to_owned(),
            sealer,
            chunks,
            rest,
            sha,
            turns,
            held: None,
        };
        // What is told to the client from here on is noted first.
        partial.note().await?;
        remove_hold(path).await?;
        Ok(Some(partial))
    }

    pub(crate) fn len(&self) -> u64 {
        (self.chunks * CHUNK as u64 + self.rest.len() as u64).min(self.sealer.size)
    }

    /// From here on bytes are on trial: until [`Partial::keep`] they count for nothing, even across a crash.
    pub(crate) async fn hold(&mut self) -> Result<()> {
        let path = hold_path(&self.path);
        let mut note = File::create(&path).await?;
        note.write_all(format!("{}\n", self.len()).as_bytes()).await?;
        note.flush().await?;
        note.sync_all().await?;
        sync_dir(&path).await?;
        self.held = Some((self.chunks, self.rest.clone(), self.sha.clone()));
        Ok(())
    }

    /// Never more than a chunk is in memory.
    pub(crate) async fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.sha.update(bytes);
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.rest.len()));
            self.rest.extend_from_slice(now);
            bytes = later;
            if self.rest.len() == CHUNK {
                self.write_chunk().await?;
            }
        }
        Ok(())
    }

    async fn write_chunk(&mut self) -> Result<()> {
        let sealed = self.sealer.seal(self.chunks, &self.rest).map_err(Error::other)?;
        self.file.write_all(&sealed).await?;
        self.chunks += 1;
        self.rest.clear();
        Ok(())
    }

    /// Flushes everything to the disk; what was on trial is now part of the file.
    pub(crate) async fn keep(&mut self) -> Result<()> {
        // The chunks first: the note says that they are there.
        self.file.flush().await?;
        self.file.sync_all().await?;
        self.note().await?;
        if self.held.take().is_some() {
            remove_hold(&self.path).await?;
        }
        Ok(())
    }

    /// Writes where the upload stands, and the bytes behind the last whole chunk.
    async fn note(&mut self) -> Result<()> {
        let turn = self.turns + 1;
        let head = head(turn, self.chunks, self.rest.len());
        let mut place = head.to_vec();
        let aad = tail_aad(&self.sealer, &head);
        let sealed = self.sealer.key.seal(&aad, &self.rest).map_err(Error::other)?;
        place.extend(sealed);
        self.tail.seek(SeekFrom::Start((turn % 2) * PLACE as u64)).await?;
        self.tail.write_all(&place).await?;
        self.tail.flush().await?;
        self.tail.sync_data().await?;
        self.turns = turn;
        Ok(())
    }

    /// Cuts off what was on trial; without a trial, the same as [`Partial::keep`].
    pub(crate) async fn settle(&mut self) -> Result<()> {
        if let Some((chunks, rest, sha)) = self.held.take() {
            self.file.flush().await?;
            let end = chunks * (CHUNK + OVERHEAD) as u64;
            self.file.set_len(end).await?;
            self.file.seek(SeekFrom::Start(end)).await?;
            self.file.sync_all().await?;
            (self.chunks, self.rest, self.sha) = (chunks, rest, sha);
            remove_hold(&self.path).await?;
            return Ok(());
        }
        self.keep().await
    }

    /// All bytes are there: the last chunk goes to the others, durably, and the tail away. Answers the SHA-256 of the file.
    pub(crate) async fn complete(mut self) -> Result<Vec<u8>> {
        if self.chunks < self.sealer.chunks() {
            self.write_chunk().await?;
        }
        self.file.flush().await?;
        self.file.sync_all().await?;
        Ok(self.sha.finish().as_ref().to_vec())
    }
}

fn head(turn: u64, chunks: u64, length: usize) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let parts = turn
        .to_be_bytes()
        .into_iter()
        .chain(chunks.to_be_bytes())
        .chain(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    for (to, from) in head.iter_mut().zip(parts) {
        *to = from;
    }
    head
}

fn tail_aad(sealer: &Sealer, head: &[u8]) -> Vec<u8> {
    aad(&[b"medtech file tail 1", sealer.id.as_bytes(), head])
}

/// The newest of the two places that opens; a new upload has none.
async fn read_tail(tail: &mut File, sealer: &Sealer) -> Result<Noted> {
    let mut all = Vec::with_capacity(2 * PLACE);
    tail.read_to_end(&mut all).await?;
    let mut newest = (0, 0, Vec::new());
    for start in [0, PLACE] {
        if let Some(found) = all.get(start..).and_then(|place| read_place(place, sealer))
            && found.0 > newest.0
        {
            newest = found;
        }
    }
    Ok(newest)
}

fn read_place(place: &[u8], sealer: &Sealer) -> Option<Noted> {
    let (head, sealed) = place.split_at_checked(HEAD)?;
    let (turn, rest) = head.split_first_chunk()?;
    let (chunks, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()?;
    let sealed = sealed.get(..length.checked_add(OVERHEAD)?)?;
    let plain = sealer.key.open(&tail_aad(sealer, head), sealed).ok()?;
    Some((u64::from_be_bytes(*turn), u64::from_be_bytes(*chunks), plain))
}

/// Removes a partial file; absent is fine.
pub(crate) async fn remove(path: &Path) -> Result<()> {
    for path in [path.to_owned(), tail_path(path), hold_path(path)] {
        remove_file(&path).await?;
    }
    Ok(())
}

/// Removes what stands beside a partial file that was published.
pub(crate) async fn clear(path: &Path) -> Result<()> {
    remove_file(&tail_path(path)).await?;
    remove_file(&hold_path(path)).await
}

fn tail_path(path: &Path) -> PathBuf {
    path.with_extension("tail")
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
    use medtech_kernel::vault::Key;
    use std::sync::Arc;
    use uuid::Uuid;

    fn sha(bytes: &[u8]) -> Vec<u8> {
        digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
    }

    fn of(size: usize) -> Sealer {
        Sealer {
            key: Arc::new(Key::new(&[1; 32]).unwrap()),
            id: Uuid::from_u128(1),
            size: size as u64,
        }
    }

    async fn open(path: &Path, size: usize) -> Partial {
        Partial::open(path, of(size)).await.unwrap().unwrap()
    }

    fn bytes(from: usize, to: usize) -> Vec<u8> {
        (from..to).map(|n| (n * 37 % 241) as u8).collect()
    }

    /// What a finished file holds.
    fn plain(path: &Path, size: usize) -> Vec<u8> {
        let (sealer, disk) = (of(size), std::fs::read(path).unwrap());
        assert_eq!(disk.len() as u64, sealer.sealed_size());
        let parts = disk.chunks(CHUNK + OVERHEAD).enumerate();
        parts
            .flat_map(|(n, part)| sealer.open(n as u64, part).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_new_process_goes_on_where_the_disk_stands() {
        let dir = tempfile::tempdir().unwrap();
        for size in [11, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 77] {
            let path = dir.path().join(format!("deep/er/{size}"));
            drop(Partial::create(&path, of(size)).await.unwrap());
            let mut at = 0_usize;
            // Every request of another length, and a new process for each.
            for step in [1, 5, CHUNK - 7, 1, 2, CHUNK, CHUNK + 3, usize::MAX] {
                let mut p = open(&path, size).await;
                assert_eq!(p.len(), at as u64);
                let to = at.saturating_add(step).min(size);
                p.append(&bytes(at, to)).await.unwrap();
                p.keep().await.unwrap();
                at = to;
            }
            let p = open(&path, size).await;
            assert_eq!(
                (p.len(), p.complete().await.unwrap()),
                (size as u64, sha(&bytes(0, size)))
            );
            assert_eq!(plain(&path, size), bytes(0, size));
            let tail = std::fs::read(path.with_extension("tail")).unwrap();
            assert!(!tail.windows(8).any(|w| w == &bytes(0, 8)[..]));
        }
        assert!(
            Partial::open(&dir.path().join("absent"), of(1))
                .await
                .unwrap()
                .is_none()
        );
    }

    #[tokio::test]
    async fn bytes_on_trial_do_not_survive_a_crash_or_a_refusal() {
        let dir = tempfile::tempdir().unwrap();
        for good in [4, CHUNK, CHUNK + 4] {
            let (path, size) = (dir.path().join(good.to_string()), good + 3 * CHUNK);
            let mut p = Partial::create(&path, of(size)).await.unwrap();
            let first = sha(&bytes(0, good));
            p.append(&bytes(0, good)).await.unwrap();
            p.keep().await.unwrap();
            p.hold().await.unwrap();
            p.append(&vec![0; 2 * CHUNK]).await.unwrap();
            p.file.flush().await.unwrap();
            drop(p); // the crash
            let mut p = open(&path, size).await;
            assert_eq!((p.len(), p.sha.clone().finish().as_ref()), (good as u64, &*first));
            p.hold().await.unwrap();
            p.append(&vec![1; 2 * CHUNK + 9]).await.unwrap();
            p.settle().await.unwrap();
            assert_eq!((p.len(), p.sha.clone().finish().as_ref()), (good as u64, &*first));
            p.hold().await.unwrap();
            p.append(&bytes(good, size)).await.unwrap();
            p.keep().await.unwrap();
            drop(p);
            let p = open(&path, size).await;
            assert_eq!(p.complete().await.unwrap(), sha(&bytes(0, size)));
        }
    }

    /// The crash comes while a request is under way: whole chunks may be there or not, the note may be torn.
    #[tokio::test]
    async fn what_was_acknowledged_survives_any_torn_write_and_what_was_tampered_with_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, size) = (dir.path().join("x"), 4 * CHUNK);
        let mut p = Partial::create(&path, of(size)).await.unwrap();
        let acknowledged = CHUNK + 100;
        p.append(&bytes(0, acknowledged)).await.unwrap();
        p.keep().await.unwrap();
        p.append(&bytes(acknowledged, 3 * CHUNK)).await.unwrap();
        p.file.flush().await.unwrap();
        drop(p);
        let (disk, tail) = (
            std::fs::read(&path).unwrap(),
            std::fs::read(path.with_extension("tail")).unwrap(),
        );
        let record = CHUNK + OVERHEAD;
        let restore = |disk: &[u8], tail: &[u8]| {
            std::fs::write(&path, disk).unwrap();
            std::fs::write(path.with_extension("tail"), tail).unwrap();
        };
        for cut in [record, record + 1, 2 * record - 1, 2 * record, 3 * record] {
            restore(&disk[..cut], &tail);
            let p = open(&path, size).await;
            let reached = if cut < 2 * record {
                acknowledged
            } else {
                cut / record * CHUNK
            };
            assert_eq!(
                (p.len(), p.sha.clone().finish().as_ref()),
                (reached as u64, &*sha(&bytes(0, reached)))
            );
        }
        // A chunk that the disk never really got.
        let mut torn = disk.clone();
        torn[record + 50..2 * record].fill(0);
        restore(&torn, &tail);
        assert_eq!(open(&path, size).await.len(), acknowledged as u64);
        // The other place in the tail, half written over.
        let mut half = tail.clone();
        let turn = u64::from_be_bytes(half[PLACE..PLACE + 8].try_into().unwrap());
        let other = if turn > u64::from_be_bytes(half[..8].try_into().unwrap()) {
            0
        } else {
            PLACE
        };
        half[other + 3..other + HEAD].fill(0xee);
        restore(&disk[..record], &half);
        assert_eq!(open(&path, size).await.len(), acknowledged as u64);
        // What was acknowledged and is not there any more.
        restore(&disk[..record - 1], &tail);
        assert!(Partial::open(&path, of(size)).await.is_err());
        let mut changed = disk.clone();
        changed[7] ^= 1;
        restore(&changed, &tail);
        assert!(Partial::open(&path, of(size)).await.is_err());
    }
}
