//! Why a page was not accepted, and the way this news takes around SQLite, whose own codes say little.

use std::{cell::RefCell, fmt};

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The tag does not fit: damaged, changed or moved from outside, or sealed with another key.
    NotAuthentic,
    /// The source has no key of this epoch.
    KeyUnknown(u32),
    /// A file that is not one of our sealed databases.
    NotSealed,
    /// A rollback journal (one lies beside the file, or is asked for) or a temporary file: both would hold plain pages.
    PlainFile,
    /// The log breaks off, and yet whole commits follow: no crash leaves that behind.
    LogBroken,
    /// Authentic, and not the newest that was written: an older page, file or log put back, or a part gone.
    Stale,
    /// The file that says which pages are the newest is not there.
    SealMissing,
    /// Another process has the database open.
    InUse,
    /// SQLite asked for something that this layout has no room for.
    Malformed,
    NoRandomness,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAuthentic => {
                f.write_str("not authentic: damaged, changed from outside, or sealed with another key")
            }
            Self::KeyUnknown(epoch) => write!(f, "sealed in epoch {epoch}, whose key is not known"),
            Self::NotSealed => f.write_str("not a sealed database"),
            Self::PlainFile => f.write_str("a journal or temporary file would hold plain pages"),
            Self::LogBroken => f.write_str("the write-ahead log is damaged before its end"),
            Self::Stale => f.write_str("older than what was last written: put back from an earlier time, or cut off"),
            Self::SealMissing => f.write_str("the file that tells the newest pages from older ones is gone"),
            Self::InUse => f.write_str("another process has this database open"),
            Self::Malformed => f.write_str("an access outside of the sealed layout"),
            Self::NoRandomness => f.write_str("the system gives no random bytes"),
        }
    }
}

impl std::error::Error for Refusal {}

/// A refusal with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The ring's name.
    pub file: String,
    /// `page 7`, `log frame 12`.
    pub place: String,
    pub why: Refusal,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {}", self.file, self.place, self.why)
    }
}

impl std::error::Error for Refused {}

thread_local! {
    static LAST: RefCell<Option<Refused>> = const { RefCell::new(None) };
}

/// The last refusal on this thread, where SQLite has just answered `SQLITE_IOERR_DATA`. Taking it clears it.
#[must_use]
pub fn take_refused() -> Option<Refused> {
    LAST.with_borrow_mut(Option::take)
}

pub(crate) fn note(file: &str, place: String, why: Refusal) {
    LAST.set(Some(Refused {
        file: file.to_owned(),
        place,
        why,
    }));
}
