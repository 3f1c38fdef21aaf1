//! The file below, as the sealed files see it.

use crate::Refusal;
use rusqlite::ffi::{SQLITE_IOERR_READ, SQLITE_IOERR_WRITE};
use std::{io::ErrorKind, os::unix::fs::FileExt};

/// Why an access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The code of the file below, or one of SQLite's for an access we do not know.
    Io(i32),
    /// Less was there than asked; the rest of the buffer is zero.
    Short,
    Refused(Refusal),
}

impl From<Refusal> for Fault {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}

/// A file that holds sealed bytes.
pub(crate) trait Disk {
    /// Fills `buf`; [`Fault::Short`] when the file ends before, with zeros for what is missing.
    fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<(), Fault>;
    fn write(&mut self, buf: &[u8], offset: u64) -> Result<(), Fault>;
    fn truncate(&mut self, size: u64) -> Result<(), Fault>;
    fn size(&mut self) -> Result<u64, Fault>;
}

impl Disk for std::fs::File {
    fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<(), Fault> {
        buf.fill(0);
        match self.read_exact_at(buf, offset) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Err(Fault::Short),
            other => other.map_err(|_| Fault::Io(SQLITE_IOERR_READ)),
        }
    }
    fn write(&mut self, buf: &[u8], offset: u64) -> Result<(), Fault> {
        self.write_all_at(buf, offset)
            .map_err(|_| Fault::Io(SQLITE_IOERR_WRITE))
    }
    fn truncate(&mut self, size: u64) -> Result<(), Fault> {
        self.set_len(size).map_err(|_| Fault::Io(SQLITE_IOERR_WRITE))
    }
    fn size(&mut self) -> Result<u64, Fault> {
        Ok(self.metadata().map_err(|_| Fault::Io(SQLITE_IOERR_READ))?.len())
    }
}

#[cfg(test)]
impl Disk for Vec<u8> {
    fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<(), Fault> {
        let there = self.get(offset as usize..).unwrap_or(&[]);
        let n = there.len().min(buf.len());
        buf[..n].copy_from_slice(&there[..n]);
        buf[n..].fill(0);
        if n < buf.len() { Err(Fault::Short) } else { Ok(()) }
    }
    fn write(&mut self, buf: &[u8], offset: u64) -> Result<(), Fault> {
        let end = offset as usize + buf.len();
        if self.len() < end {
            self.resize(end, 0);
        }
        self[offset as usize..end].copy_from_slice(buf);
        Ok(())
    }
    fn truncate(&mut self, size: u64) -> Result<(), Fault> {
        self.resize(size as usize, 0);
        Ok(())
    }
    fn size(&mut self) -> Result<u64, Fault> {
        Ok(self.len() as u64)
    }
}
