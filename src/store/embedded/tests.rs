//! The writer, with an engine that waits, fails and panics when told to.

use std::{
    io,
    pin::pin,
    sync::{Condvar, atomic::AtomicBool, atomic::Ordering::SeqCst},
    task::{Context, Poll, Waker},
};

use super::{
    super::backend::{Batch, Visit},
    super::memory::MemoryBackend,
    *,
};
use crate::replica::Kind;

/// Rows in memory behind a gate.
#[derive(Default)]
struct Gate {
    rows: MemoryBackend,
    closed: Mutex<bool>,
    /// Signalled when the gate opens and when somebody comes to it.
    changed: Condvar,
    waiting: Mutex<bool>,
    fail: AtomicBool,
    panic: AtomicBool,
}

#[derive(Clone, Default)]
struct Gated(Arc<Gate>);

impl Gated {
    fn shut(&self) {
        *self.0.closed.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.0.closed.lock().unwrap() = false;
        self.0.changed.notify_all();
    }

    /// Waits until the writer is at its flush.
    fn until_flushing(&self) {
        let mut closed = self.0.closed.lock().unwrap();
        while !*self.0.waiting.lock().unwrap() {
            closed = self.0.changed.wait(closed).unwrap();
        }
    }
}

impl Backend for Gated {
    fn apply(&self, batch: Batch) -> Result<(), BackendError> {
        self.0.rows.apply(batch)
    }

    fn flush(&self) -> Result<(), BackendError> {
        let mut closed = self.0.closed.lock().unwrap();
        *self.0.waiting.lock().unwrap() = true;
        self.0.changed.notify_all();
        while *closed {
            closed = self.0.changed.wait(closed).unwrap();
        }
        *self.0.waiting.lock().unwrap() = false;
        drop(closed);
        assert!(!self.0.panic.load(SeqCst), "told to panic");
        if self.0.fail.load(SeqCst) {
            return Err(BackendError::new("flush", "told to fail"));
        }
        self.0.rows.flush()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        self.0.rows.get(key)
    }

    fn scan(&self, from: &[u8], prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        self.0.rows.scan(from, prefix, visit)
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

fn store(options: &Options) -> (Embedded, Gated) {
    let gate = Gated::default();
    let id = "gated".parse().unwrap();
    (Embedded::threaded(Box::new(gate.clone()), None, id, options).unwrap(), gate)
}

fn document(n: u8) -> DocumentKey {
    DocumentKey { tenant: Tenant::default(), document: DocumentId::from_bytes(&[n; 16]) }
}

fn put(id: u8, len: usize) -> Vec<RowWrite> {
    let row = RowKey { kind: Kind::Change, id: [id; 32], part: 0 };
    vec![RowWrite::Put(row, vec![id; len].into())]
}

fn is_waiting<T>(future: &mut BoxFuture<T>) -> bool {
    let poll = pin!(future).as_mut().poll(&mut Context::from_waker(Waker::noop()));
    matches!(poll, Poll::Pending)
}

#[tokio::test]
async fn writes_called_during_a_flush_share_the_next() {
    let (store, gate) = store(&Options::default());
    gate.shut();
    let first = store.write(document(0), put(0, 10));
    gate.until_flushing();
    let rest = (1..100).map(|n| store.write(document(n), put(n, 10))).collect::<Vec<_>>();
    gate.open();
    first.await.unwrap();
    for write in rest {
        write.await.unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.writes, stats.rows, stats.flushes), (100, 100, 2));
}

#[tokio::test]
async fn a_large_write_ends_its_group() {
    let (store, gate) = store(&Options::default());
    gate.shut();
    let first = store.write(document(0), put(0, 10));
    gate.until_flushing();
    let lens = [10, 9 << 20, 10, 10];
    let rest =
        (1..).zip(lens).map(|(n, len)| store.write(document(n), put(n, len))).collect::<Vec<_>>();
    gate.open();
    first.await.unwrap();
    for write in rest {
        write.await.unwrap();
    }
    assert_eq!(store.stats().flushes, 3);
}

#[tokio::test]
async fn a_window_gathers_writes() {
    let window = Duration::from_hours(1);
    let (store, _) = store(&Options { group_window: window, ..Options::default() });
    let writes = (0..50).map(|n| store.write(document(n), put(n, 10))).collect::<Vec<_>>();
    // Ends the window.
    store.close().await.unwrap();
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(store.stats().flushes, 1);
}

#[tokio::test]
async fn writes_that_are_held_share_a_flush_and_wait_for_nobody_who_closes() {
    let (store, _) = store(&Options::default());
    let many = |from: u8| (from..from + 20).map(|n| store.write(document(n), put(n, 10)));
    store.hold(true);
    store.hold(true);
    let mut writes = many(0).collect::<Vec<_>>();
    std::thread::sleep(Duration::from_millis(50));
    assert!(writes.iter_mut().all(is_waiting));
    store.hold(false);
    std::thread::sleep(Duration::from_millis(50));
    assert!(writes.iter_mut().all(is_waiting), "somebody else holds them");
    store.hold(false);
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(store.stats().flushes, 1);
    store.hold(true);
    let writes = many(20).collect::<Vec<_>>();
    store.close().await.unwrap();
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(store.stats().flushes, 2);
}

#[tokio::test]
async fn nothing_is_acknowledged_or_loaded_before_its_flush() {
    let (store, gate) = store(&Options::default());
    gate.shut();
    let mut write = store.write(document(1), put(1, 10));
    gate.until_flushing();
    let mut load = store.load(document(1));
    assert!(is_waiting(&mut write));
    assert!(is_waiting(&mut load));
    let other = store.load(document(2)).await.unwrap();
    assert!(other.changes.is_empty(), "another document is not waited for");
    gate.open();
    write.await.unwrap();
    assert_eq!(load.await.unwrap().changes.len(), 1);
}

#[tokio::test]
async fn a_failed_flush_refuses_its_group_and_all_that_wait() {
    let (store, gate) = store(&Options::default());
    store.write(document(0), put(0, 10)).await.unwrap();
    gate.shut();
    let group = store.write(document(1), put(1, 10));
    gate.until_flushing();
    let waiting = store.write(document(2), put(2, 10));
    let load = store.load(document(1));
    gate.0.fail.store(true, SeqCst);
    gate.open();
    assert!(matches!(group.await, Err(StoreError::Poisoned(_))));
    assert!(matches!(waiting.await, Err(StoreError::Poisoned(_))));
    assert!(matches!(load.await, Err(StoreError::Poisoned(_))), "it may not be on disk");
    gate.0.fail.store(false, SeqCst);
    let later = store.write(document(3), put(3, 10)).await;
    assert!(matches!(later, Err(StoreError::Poisoned(_))));
    assert_eq!(store.load(document(0)).await.unwrap().changes.len(), 1);
    assert_eq!(store.load(document(2)).await.unwrap().changes.len(), 0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_engine_that_panics_poisons_the_store() {
    let (store, gate) = store(&Options::default());
    gate.0.panic.store(true, SeqCst);
    let error = store.write(document(1), put(1, 10)).await.unwrap_err();
    assert!(error.to_string().contains("told to panic"), "{error}");
    let later = store.write(document(1), put(1, 10)).await;
    assert!(matches!(later, Err(StoreError::Poisoned(_))));
}

#[tokio::test]
async fn the_queue_is_bounded_by_bytes() {
    let (store, gate) = store(&Options { queue_bytes_max: 10_000, ..Options::default() });
    // Larger than the queue, but nothing else waits.
    store.write(document(0), put(0, 50_000)).await.unwrap();
    gate.shut();
    let first = store.write(document(1), put(1, 5_000));
    let second = store.write(document(2), put(2, 4_000));
    let third = store.write(document(3), put(3, 5_000));
    assert!(matches!(third.await, Err(StoreError::Busy { limit: 10_000, .. })));
    gate.open();
    first.await.unwrap();
    second.await.unwrap();
    store.write(document(3), put(3, 5_000)).await.unwrap();
    assert_eq!(store.stats().writes, 4);
}
