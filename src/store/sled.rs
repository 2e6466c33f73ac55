//! The one place that knows sled 0.34.
//!
//! sled's own `flush` does not fsync on Linux, its blob files are never synced, and some damage
//! makes it panic; killed while it opens, it does not open again. So values are small (a large one
//! would go to a blob file), its background flusher is off, every flush is followed by an fsync of
//! our own, there is one writer, and what it left half written is cleared first.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    backend::{Backend, BackendError, Batch, Visit},
    directory,
    engine::Options,
};

/// How long sled may take to let go of its files, and how often we look. It was under 10 ms.
const CLOSING_MAX: Duration = Duration::from_secs(5);
const CLOSING_STEP: Duration = Duration::from_millis(1);

/// sled in a directory of its own.
pub(super) struct SledBackend {
    db: sled::Db,
    /// Open from the start: a handle reports the write errors that came after it was opened.
    log: File,
    path: PathBuf,
    sync: bool,
    after_fsync: Option<fn(&Path)>,
}

impl SledBackend {
    /// Opens or makes it.
    pub(super) fn open(path: &Path, options: &Options) -> Result<Self, BackendError> {
        wait_until_free(&path.join("db"))?;
        clear_unfinished(path)?;
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(options.cache_bytes)
            .flush_every_ms(None)
            .open()
            .map_err(|error| BackendError::new("open sled", error))?;
        let log = File::open(path.join("db"))
            .map_err(|error| BackendError::new("open sled's log", error))?;
        Ok(Self {
            db,
            log,
            path: path.into(),
            sync: !options.unsafe_skip_fsync_for_tests,
            after_fsync: options.after_fsync_for_tests,
        })
    }
}

/// sled's threads let go of its files a little after it was dropped, so a store that was just
/// closed in this process is waited for. No other process has it: we hold the directory.
fn wait_until_free(log: &Path) -> Result<(), BackendError> {
    let until = Instant::now() + CLOSING_MAX;
    let Ok(file) = File::open(log) else {
        return Ok(());
    };
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                // A lock that can be waited for has no time limit.
                thread::sleep(CLOSING_STEP);
            }
            Err(error) => return Err(BackendError::new("lock sled's log", error)),
        }
    }
}

/// Removes what sled was writing of a snapshot of its log when its process was killed. It takes that
/// for one that is whole, and refuses to open: `get_snapshot_files` leaves out `.in___motion`, and
/// what it writes ends in `.generating`. Without it the log is read from the snapshot before.
fn clear_unfinished(path: &Path) -> Result<(), BackendError> {
    let failed = |error: io::Error| BackendError::new("clear sled's directory", error);
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::info!(?name, "sled was killed while it wrote this, and does without");
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Bytes that may be on their way to the disk unsynced. When the power goes in the middle of some
/// 300 KB, sled 0.34.7 now and then cannot find pages of its tree afterwards, older ones included
/// ("cannot find pid"): it trusts the order of writes that only an fsync keeps.
const BATCH_BYTES_MAX: usize = 32 * 1024;

impl Backend for SledBackend {
    fn apply(&self, batch: Batch) -> Result<(), BackendError> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        self.db.apply_batch(changes).map_err(|error| BackendError::new("write to sled", error))
    }

    fn flush(&self) -> Result<(), BackendError> {
        self.db.flush().map_err(|error| BackendError::new("flush sled", error))?;
        if self.sync {
            self.log.sync_all().map_err(|error| BackendError::new("fsync sled's log", error))?;
            if let Some(after) = self.after_fsync {
                after(&self.path);
            }
        }
        Ok(())
    }

    fn batch_bytes_max(&self) -> usize {
        BATCH_BYTES_MAX
    }

    fn settle(&self) -> Result<(), BackendError> {
        self.flush()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        match self.db.get(key) {
            Ok(value) => Ok(value.map(|value| Bytes::copy_from_slice(&value))),
            Err(error) => Err(BackendError::new("read from sled", error)),
        }
    }

    fn scan(&self, from: &[u8], prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        for item in self.db.range(from..) {
            let (key, value) = item.map_err(|error| BackendError::new("read from sled", error))?;
            if !key.starts_with(prefix) || visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        directory::free_bytes(&self.path).map(Some)
    }
}
