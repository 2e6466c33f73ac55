//! Which engine, with which bounds, and how a store on disk is opened.

use std::{fmt, fs, path::Path, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Store, StoreError,
    backend::{Backend, Batch},
    directory::{Directory, sync_tree},
    embedded::Embedded,
    fjall::FjallBackend,
    key,
    sled::SledBackend,
    value::{self, Assembly},
};

/// An embedded engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Engine {
    /// sled 0.34: the default.
    #[default]
    Sled,
    /// fjall 3: several times the write rate, a third of the disk.
    Fjall,
}

impl Engine {
    /// Its name, as in the marker file and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Fjall => "fjall",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "sled" => Ok(Self::Sled),
            "fjall" => Ok(Self::Fjall),
            _ => Err(format!("{name:?} is not a storage engine: expected sled or fjall")),
        }
    }
}

/// Bounds of a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the engine may keep in memory of what is on disk, in bytes, roughly: sled keeps up
    /// to six times that (measured).
    pub cache_bytes: u64,
    /// How long a write waits for others to share its flush. Nothing by default: while one
    /// group is flushed the next gathers, so waiting only helps disks with very slow flushes.
    /// At most 5 ms is sensible.
    pub group_window: Duration,
    /// Bytes of writes that may wait; more are refused with [`StoreError::Busy`]. Four of the
    /// largest messages.
    pub queue_bytes_max: usize,
    /// Bytes that must stay free on the disk; with less, writes are refused with
    /// [`StoreError::Full`] before the engine comes to know a full disk, which it may not
    /// survive.
    pub reserve_bytes: u64,
    /// Acknowledges what is not on disk, to show that a test would find it.
    #[doc(hidden)]
    pub unsafe_skip_fsync_for_tests: bool,
    /// Called with the engine's directory after each fsync of a flush, before what it made
    /// durable is acknowledged: where a test may copy the files as a power loss would leave them.
    #[doc(hidden)]
    pub after_fsync_for_tests: Option<fn(&Path)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 16 << 20,
            group_window: Duration::ZERO,
            queue_bytes_max: 256 << 20,
            reserve_bytes: 64 << 20,
            unsafe_skip_fsync_for_tests: false,
            after_fsync_for_tests: None,
        }
    }
}

/// Opens or makes a store.
pub(super) fn open(
    root: &Path,
    engine: Engine,
    options: &Options,
) -> Result<Arc<dyn Store>, StoreError> {
    let mut directory = Directory::lock(root, engine)?;
    let data = directory.data();
    let failed =
        |reason: String| StoreError::Io { what: "open the database", path: data.clone(), reason };
    fs::create_dir_all(&data).map_err(|error| failed(error.to_string()))?;
    // sled panics on some damaged files.
    let opened = std::panic::catch_unwind(|| -> Result<Box<dyn Backend>, _> {
        Ok(match engine {
            Engine::Sled => Box::new(SledBackend::open(&data, options)?),
            Engine::Fjall => Box::new(FjallBackend::open(&data, options)?),
        })
    });
    let backend = match opened {
        Ok(opened) => opened.map_err(|error: super::backend::BackendError| failed(error.reason))?,
        Err(panic) => return Err(failed(format!("it panicked: {}", panic_text(&*panic)))),
    };
    let io = |error: super::backend::BackendError| StoreError::Io {
        what: error.what,
        path: data.clone(),
        reason: error.reason,
    };
    let id = directory.id().as_str().to_owned();
    if directory.is_new() {
        backend.apply(sentinel(&id)).map_err(io)?;
        backend.flush().map_err(io)?;
    } else {
        let value = backend.get(key::SENTINEL).map_err(io)?;
        let vanished = |reason: String| StoreError::Vanished { directory: root.into(), reason };
        match value.as_deref().map(read_sentinel) {
            None => return Err(vanished("the database is empty or was replaced".to_owned())),
            Some(Ok(found)) if found == id.as_bytes() => {}
            Some(Ok(found)) => {
                let found = String::from_utf8_lossy(&found).into_owned();
                return Err(vanished(format!("the database is of store {found}, not {id}")));
            }
            Some(Err(reason)) => {
                return Err(vanished(format!("its first row is damaged: {reason}")));
            }
        }
    }
    // What an earlier process wrote but did not sync comes out of the page cache now; it is
    // served, so it must be on disk.
    if !options.unsafe_skip_fsync_for_tests {
        sync_tree(&data)?;
    }
    directory.finish()?;
    let id = directory.id().clone();
    Ok(Arc::new(Embedded::threaded(backend, Some(directory), id, options)?))
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

fn sentinel(id: &str) -> Batch {
    let crc = crc32c::crc32c(id.as_bytes());
    let value = value::seal(key::SENTINEL, 0, id.as_bytes(), id.as_bytes(), crc);
    Batch::from([(key::SENTINEL.to_vec(), Some(value))])
}

fn read_sentinel(value: &[u8]) -> Result<Bytes, String> {
    let mut assembly = Assembly::default();
    assembly.add(key::SENTINEL, 0, value);
    assembly.finish().unwrap_or_else(|| Err("it is empty".to_owned()))
}
