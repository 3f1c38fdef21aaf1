//! The keys of one database file: asked of their source by epoch, kept ready, found by the files through a number.

use crate::{Refusal, Standing, codec::PageKey};
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

/// The epoch a new file begins with.
pub const FIRST_EPOCH: u32 = 1;
/// Keys kept ready for one file; a forged epoch number in a page must not make this grow.
const READY: usize = 8;

type Source = dyn Fn(u32) -> Option<[u8; 32]> + Send + Sync;

/// The keys of one database file. Clones share it. Keys live in process memory only: a file names its ring by a number
/// in its URI, which says nothing outside of this process.
#[derive(Clone)]
pub struct Ring(Arc<Inner>);

struct Inner {
    /// What errors call the file.
    name: String,
    id: u64,
    source: Box<Source>,
    ready: RwLock<Vec<Arc<PageKey>>>,
    /// The epoch under which pages are sealed from now on.
    current: AtomicU32,
    /// What was last seen of the file, from a place that is not put back together with it.
    expected: Mutex<Option<Standing>>,
    /// What the file shall remember of the world outside, with its next record.
    outside: AtomicU64,
}

static RINGS: RwLock<Option<HashMap<u64, Weak<Inner>>>> = RwLock::new(None);
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Ring {
    /// `source` gives the 256-bit key of an epoch, always the same one, or nothing when it has none (any more).
    #[must_use]
    pub fn new(name: &str, source: impl Fn(u32) -> Option<[u8; 32]> + Send + Sync + 'static) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            id,
            source: Box::new(source),
            ready: RwLock::default(),
            current: AtomicU32::new(FIRST_EPOCH),
            expected: Mutex::default(),
            outside: AtomicU64::new(0),
        });
        RINGS
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_default()
            .insert(id, Arc::downgrade(&inner));
        Self(inner)
    }

    pub(crate) fn find(id: u64) -> Option<Self> {
        let rings = RINGS.read().unwrap_or_else(PoisonError::into_inner);
        rings.as_ref()?.get(&id)?.upgrade().map(Self)
    }

    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    /// The file's name in errors.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The epoch of pages written from now on.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.0.current.load(Ordering::Acquire)
    }

    /// Seals under `epoch` from now on. Pages of other epochs stay readable as long as the source knows their keys.
    pub fn set_epoch(&self, epoch: u32) -> Result<(), Refusal> {
        self.key(epoch)?;
        self.0.current.store(epoch, Ordering::Release);
        Ok(())
    }

    /// Takes up an epoch found in the file; an older one changes nothing.
    pub(crate) fn raise(&self, epoch: u32) {
        self.0.current.fetch_max(epoch, Ordering::AcqRel);
    }

    /// The file must be at least where it `stood` when it was last seen; else opening it is refused.
    pub fn expect(&self, stood: Standing) {
        *self.0.expected.lock().unwrap_or_else(PoisonError::into_inner) = Some(stood);
    }

    pub(crate) fn expected(&self) -> Option<Standing> {
        self.0.expected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A number that only grows, such as the generation of another file, to be remembered with the file's next record: a
    /// witness if that other one is put back. It must be durable already.
    pub fn remember(&self, outside: u64) {
        self.0.outside.fetch_max(outside, Ordering::AcqRel);
    }

    pub(crate) fn outside(&self) -> u64 {
        self.0.outside.load(Ordering::Acquire)
    }

    pub(crate) fn current(&self) -> Result<Arc<PageKey>, Refusal> {
        self.key(self.epoch())
    }

    pub(crate) fn key(&self, epoch: u32) -> Result<Arc<PageKey>, Refusal> {
        let known = |ready: &[Arc<PageKey>]| ready.iter().find(|k| k.epoch == epoch).cloned();
        if let Some(key) = known(&self.0.ready.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(key);
        }
        let bytes = (self.0.source)(epoch).ok_or(Refusal::KeyUnknown(epoch))?;
        let key = Arc::new(PageKey::new(epoch, &bytes)?);
        let mut ready = self.0.ready.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = known(&ready) {
            return Ok(key);
        }
        if ready.len() >= READY {
            let current = self.epoch();
            ready.retain(|k| k.epoch == current);
        }
        ready.push(key.clone());
        Ok(key)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(rings) = RINGS.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
            rings.remove(&self.id);
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({}, epoch {})", self.name(), self.epoch())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_found_by_its_number_while_it_lives_and_keeps_few_keys() {
        let ring = Ring::new("t", |epoch| (epoch < 100).then_some([epoch as u8; 32]));
        let id = ring.id();
        assert_eq!(Ring::find(id).map(|r| r.id()), Some(id));
        for epoch in 1..60 {
            ring.key(epoch).unwrap();
        }
        assert!(ring.0.ready.read().unwrap().len() <= READY);
        assert!(matches!(ring.key(100), Err(Refusal::KeyUnknown(100))));
        assert!(ring.set_epoch(100).is_err());
        assert_eq!(ring.epoch(), FIRST_EPOCH);
        drop(ring);
        assert!(Ring::find(id).is_none());
    }
}
