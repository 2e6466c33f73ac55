//! A disk: rows that are flushed, rows that are not, and what goes wrong with them.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use concord::store::{
    Options,
    simulation::{Backend, BackendError, Batch, Visit},
};

use crate::plan::Keep;

/// What a disk has room for that is almost full, in bytes: a snapshot of most documents, and no
/// large change.
const TIGHT_BYTES: u64 = 150 * 1024;

type Rows = BTreeMap<Vec<u8>, Bytes>;

/// One batch that was applied and not flushed: key, value before, value after.
type Applied = Vec<(Vec<u8>, Option<Bytes>, Option<Bytes>)>;

#[derive(Debug, Default)]
struct Inner {
    /// What a read sees.
    rows: Rows,
    /// What is in `rows` and not flushed, oldest first.
    unflushed: Vec<Applied>,
    fail_writes: bool,
    fail_flushes: bool,
    fail_reads: bool,
    full: bool,
    tight: bool,
    batch_bytes: usize,
    flushes: u64,
}

/// A disk. Clones are the same disk: it outlives the process that writes to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Inner>>);

impl Disk {
    /// An empty disk whose stores apply a batch from so many bytes on.
    pub(crate) fn new(batch_bytes: usize) -> Self {
        let disk = Self::default();
        disk.lock().batch_bytes = batch_bytes;
        disk
    }

    /// From now on writes fail, or no longer.
    pub(crate) fn fail_writes(&self, fail: bool) {
        self.lock().fail_writes = fail;
    }

    /// From now on flushes fail, or no longer.
    pub(crate) fn fail_flushes(&self, fail: bool) {
        self.lock().fail_flushes = fail;
    }

    /// From now on reads fail, or no longer.
    pub(crate) fn fail_reads(&self, fail: bool) {
        self.lock().fail_reads = fail;
    }

    /// The checks of a world look at what is on the disk, whether its owner can read it or not.
    pub(crate) fn look<T>(&self, look: impl FnOnce() -> T) -> T {
        let fails = std::mem::take(&mut self.lock().fail_reads);
        let seen = look();
        self.lock().fail_reads = fails;
        seen
    }

    /// Whether there is no room.
    pub(crate) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Whether there is room for small writes only.
    pub(crate) fn set_tight(&self, tight: bool) {
        self.lock().tight = tight;
    }

    /// Ends every fault.
    pub(crate) fn heal(&self) {
        let mut inner = self.lock();
        inner.fail_writes = false;
        inner.fail_flushes = false;
        inner.fail_reads = false;
        inner.full = false;
        inner.tight = false;
    }

    /// The power is gone: of what was not flushed, this is left. Gives whether that is a part.
    pub(crate) fn lose_power(&self, keep: Keep) -> bool {
        let mut inner = self.lock();
        let applied = inner.unflushed.len();
        let kept = match keep {
            Keep::Nothing => 0,
            Keep::Everything => applied,
            Keep::Prefix(thousandths) => applied * usize::from(thousandths) / 1_000,
        };
        let lost = inner.unflushed.split_off(kept.min(applied));
        for (key, before, _) in lost.into_iter().rev().flat_map(|batch| batch.into_iter().rev()) {
            put(&mut inner.rows, key, before);
        }
        // What is left is there from now on.
        inner.unflushed.clear();
        (1..applied).contains(&kept)
    }

    /// Flips a bit in the value that `choice` chooses; gives its key.
    pub(crate) fn rot(&self, choice: u64) -> Option<Vec<u8>> {
        let mut inner = self.lock();
        let count = inner.rows.len() as u64;
        let at = usize::try_from(choice.checked_rem(count)?).ok()?;
        let (key, value) = inner.rows.iter_mut().nth(at)?;
        let mut bytes = value.to_vec();
        let bit = usize::try_from((choice >> 20) % (bytes.len() as u64 * 8).max(1)).ok()?;
        *bytes.get_mut(bit / 8)? ^= 1 << (bit % 8);
        *value = bytes.into();
        Some(key.clone())
    }

    /// Flushes so far.
    pub(crate) fn flushes(&self) -> u64 {
        self.lock().flushes
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(rows: &mut Rows, key: Vec<u8>, value: Option<Bytes>) -> Option<Bytes> {
    match value {
        Some(value) => rows.insert(key, value),
        None => rows.remove(&key),
    }
}

impl Backend for Disk {
    fn apply(&self, batch: Batch) -> Result<(), BackendError> {
        let mut inner = self.lock();
        if inner.fail_writes {
            return Err(BackendError::new("write", "the disk fails"));
        }
        let mut applied = Vec::with_capacity(batch.len());
        for (key, value) in batch {
            let value = value.map(Bytes::from);
            let before = put(&mut inner.rows, key.clone(), value.clone());
            applied.push((key, before, value));
        }
        inner.unflushed.push(applied);
        Ok(())
    }

    fn flush(&self) -> Result<(), BackendError> {
        let mut inner = self.lock();
        if inner.fail_flushes {
            return Err(BackendError::new("flush", "the disk fails"));
        }
        inner.flushes += 1;
        inner.unflushed.clear();
        Ok(())
    }

    fn batch_bytes_max(&self) -> usize {
        self.lock().batch_bytes
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let inner = self.lock();
        if inner.fail_reads {
            return Err(BackendError::new("read", "the disk fails"));
        }
        Ok(inner.rows.get(key).cloned())
    }

    fn scan(&self, from: &[u8], prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        let inner = self.lock();
        if inner.fail_reads {
            return Err(BackendError::new("read", "the disk fails"));
        }
        for (key, value) in inner.rows.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if !key.starts_with(prefix) || visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let inner = self.lock();
        let tight = inner.tight.then(|| Options::default().reserve_bytes + TIGHT_BYTES);
        Ok(if inner.full { Some(0) } else { tight })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(key: u8, value: Option<u8>) -> Batch {
        Batch::from([(vec![key], value.map(|value| vec![value]))])
    }

    fn read(disk: &Disk, key: u8) -> Option<u8> {
        disk.get(&[key]).unwrap().map(|value| value[0])
    }

    #[test]
    fn power_takes_what_was_not_flushed() {
        let disk = Disk::new(1);
        disk.apply(batch(1, Some(1))).unwrap();
        disk.flush().unwrap();
        disk.apply(batch(1, Some(2))).unwrap();
        disk.apply(batch(2, Some(2))).unwrap();
        disk.apply(batch(1, None)).unwrap();
        assert_eq!((read(&disk, 1), read(&disk, 2)), (None, Some(2)));
        disk.lose_power(Keep::Prefix(400));
        assert_eq!((read(&disk, 1), read(&disk, 2)), (Some(2), None));
        disk.apply(batch(3, Some(3))).unwrap();
        disk.lose_power(Keep::Nothing);
        assert_eq!((read(&disk, 1), read(&disk, 3)), (Some(2), None));
    }

    #[test]
    fn a_failed_flush_leaves_what_it_did_not_flush_to_the_next_power_loss() {
        let disk = Disk::new(1);
        disk.fail_flushes(true);
        disk.apply(batch(1, Some(1))).unwrap();
        assert!(disk.flush().is_err());
        assert_eq!(read(&disk, 1), Some(1));
        disk.lose_power(Keep::Nothing);
        assert_eq!(read(&disk, 1), None);
    }
}
