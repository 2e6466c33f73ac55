//! The directory of a store: a lock, a marker that says whose it is, and the engine's files.
//!
//! ```text
//! CONCORD   format, engine and id of the store, written with rename and fsync
//! LOCK      locked by the process that has it
//! sled/     or fjall/: the engine's own
//! ```
//! The marker says `creating` until the database holds its sentinel row; until then nothing was
//! acknowledged, so what a crash left is thrown away.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use concord_protocol::StorageId;

use super::{Engine, StoreError};

/// The format of the directory and of all keys and values in it that this version writes.
pub const FORMAT: u32 = 1;

const MARKER: &str = "CONCORD";
const MARKER_HEAD: &str = "concord store";

/// Longest marker that is read, in bytes.
const MARKER_BYTES_MAX: u64 = 4096;

/// Directories within directories that are synced; engines use three.
const DEPTH_MAX: u32 = 8;

/// A directory that this process has.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    engine: Engine,
    id: StorageId,
    ready: bool,
    /// Locked as long as it is open.
    _lock: File,
}

impl Directory {
    /// Takes the directory, or makes it, for an engine.
    pub(super) fn lock(root: &Path, engine: Engine) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(|error| failed("make the directory", root, &error))?;
        let path = root.join("LOCK");
        let lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| failed("open the lock file", &path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { directory: root.into() });
            }
            Err(TryLockError::Error(error)) => {
                return Err(failed("lock the directory", &path, &error));
            }
        }
        let Some(text) = read_marker(root)? else {
            return Self::claim(root, engine, lock);
        };
        let marker = Marker::parse(root, &text)?;
        if marker.engine != engine {
            return Err(StoreError::OtherEngine {
                directory: root.into(),
                found: marker.engine,
                asked: engine,
            });
        }
        let directory =
            Self { root: root.into(), engine, id: marker.id, ready: marker.ready, _lock: lock };
        let data = directory.data();
        if directory.ready && !data.is_dir() {
            let reason = format!("{} is missing", data.display());
            return Err(StoreError::Vanished { directory: root.into(), reason });
        }
        if !directory.ready && data.exists() {
            fs::remove_dir_all(&data)
                .map_err(|error| failed("remove a half made database", &data, &error))?;
        }
        Ok(directory)
    }

    /// Makes a directory ours that has no marker.
    fn claim(root: &Path, engine: Engine, lock: File) -> Result<Self, StoreError> {
        // `db` and `conf` are sled's, `keyspaces` is fjall's, if somebody put them right here.
        for name in ["sled", "fjall", "db", "conf", "keyspaces"] {
            if root.join(name).exists() {
                let reason = format!("it holds {name:?}, but no marker file {MARKER:?}");
                return Err(StoreError::NotOurs { directory: root.into(), reason });
            }
        }
        let id = new_storage_id(root)?;
        let directory = Self { root: root.into(), engine, id, ready: false, _lock: lock };
        directory.write_marker()?;
        let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            sync_one(parent)?;
        }
        Ok(directory)
    }

    /// Where the engine's files are.
    pub(super) fn data(&self) -> PathBuf {
        self.root.join(self.engine.as_str())
    }

    /// The id of the store.
    pub(super) fn id(&self) -> &StorageId {
        &self.id
    }

    /// Whether there is no database yet.
    pub(super) fn is_new(&self) -> bool {
        !self.ready
    }

    /// The database is there, with its sentinel, on disk: from now on it must be found.
    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
        if self.ready {
            return Ok(());
        }
        self.ready = true;
        self.write_marker()
    }

    fn write_marker(&self) -> Result<(), StoreError> {
        let state = if self.ready { "ready" } else { "creating" };
        let text = format!(
            "{MARKER_HEAD}\nformat {FORMAT}\nengine {}\nid {}\nstate {state}\n",
            self.engine, self.id
        );
        let (path, temporary) = (self.root.join(MARKER), self.root.join("CONCORD.tmp"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|error| failed("write the marker file", &path, &error))?;
        sync_one(&self.root)
    }
}

struct Marker {
    engine: Engine,
    id: StorageId,
    ready: bool,
}

impl Marker {
    fn parse(root: &Path, text: &str) -> Result<Self, StoreError> {
        let bad = |reason: &str| StoreError::NotOurs {
            directory: root.into(),
            reason: format!("its marker file {MARKER:?} {reason}"),
        };
        let mut lines = text.lines();
        if lines.next() != Some(MARKER_HEAD) {
            return Err(bad("is not of concord"));
        }
        let mut field =
            |name: &str| lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let found = field("format")
            .and_then(|format| format.parse::<u32>().ok())
            .filter(|format| *format > 0)
            .ok_or_else(|| bad("has no format"))?;
        if found > FORMAT {
            // All after this line may be different there.
            return Err(StoreError::Newer { directory: root.into(), found, known: FORMAT });
        }
        let engine = field("engine").and_then(|name| name.parse().ok());
        let id = field("id").and_then(|id| id.parse().ok());
        let ready = match field("state") {
            Some("ready") => true,
            Some("creating") => false,
            _ => return Err(bad("has no state")),
        };
        Ok(Self {
            engine: engine.ok_or_else(|| bad("names no engine that is known"))?,
            id: id.ok_or_else(|| bad("has no id"))?,
            ready,
        })
    }
}

fn read_marker(root: &Path) -> Result<Option<String>, StoreError> {
    let path = root.join(MARKER);
    let mut bytes = Vec::new();
    match File::open(&path).and_then(|file| file.take(MARKER_BYTES_MAX).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read the marker file", &path, &error)),
    }
}

/// Fsyncs all files below a directory, then the directories.
pub(super) fn sync_tree(path: &Path) -> Result<(), StoreError> {
    fn walk(path: &Path, depth: u32) -> Result<(), StoreError> {
        if depth > DEPTH_MAX {
            return Ok(());
        }
        let unreadable = |error| failed("list the directory", path, &error);
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() {
                walk(&entry.path(), depth + 1)?;
            } else if kind.is_file() {
                match sync_one(&entry.path()) {
                    // The engine may tidy up behind us.
                    Err(_) if !entry.path().exists() => {}
                    synced => synced?,
                }
            }
        }
        sync_one(path)
    }
    walk(path, 0)?;
    path.parent().map_or(Ok(()), sync_one)
}

fn sync_one(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| failed("fsync", path, &error))
}

/// Bytes that are free for us on the file system of a path.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A new id: a UUID of version 4, as automerge-repo has them.
pub(super) fn new_storage_id(root: &Path) -> Result<StorageId, StoreError> {
    let failed = |reason: String| StoreError::Io {
        what: "make an id for the store",
        path: root.into(),
        reason,
    };
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| failed(error.to_string()))?;
    // Version 4, variant 1 (RFC 9562).
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    let text = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    text.parse().map_err(|error: concord_protocol::IdError| failed(error.to_string()))
}

fn failed(what: &'static str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io { what, path: path.into(), reason: error.to_string() }
}
