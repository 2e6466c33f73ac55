//! The processes of a trial: one that writes and says what was acknowledged, one that looks
//! whether it is there. Both are this test's own program, started again.

use std::{
    collections::VecDeque,
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use concord::{
    replica::{Kind, RowKey, RowWrite},
    store::{self, DocumentKey, Engine, Options, Store, Tenant},
};
use concord_protocol::DocumentId;

const ROLE: &str = "CONCORD_TEST_STORE_ROLE";

/// Writes under way at once.
const AT_ONCE: usize = 16;

/// A writer stops after this many bytes, so that images stay small.
const BYTES_MAX: usize = 20 << 20;

/// Every fourth row is deleted when this many more were written.
const KEPT: usize = 64;

/// What a writer does, and what is then looked for.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) engine: Engine,
    pub(super) size: usize,
    pub(super) sync: bool,
    pub(super) root: PathBuf,
    /// Where to copy the files after each fsync, where there is no disk image.
    pub(super) copy_to: Option<PathBuf>,
}

impl Work {
    pub(super) fn spawn_writer(&self) -> Child {
        self.command("write", 0).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn command(&self, role: &str, acknowledged: usize) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "child_process", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env("STORE_ENGINE", self.engine.as_str())
            .env("STORE_SIZE", self.size.to_string())
            .env("STORE_SYNC", self.sync.to_string())
            .env("STORE_ROOT", &self.root)
            .env("STORE_ACKNOWLEDGED", acknowledged.to_string())
            .stdin(Stdio::null());
        if let Some(copy_to) = &self.copy_to {
            command.env("STORE_COPY_TO", copy_to);
        }
        command
    }

    fn from_env() -> Self {
        let var = |name| env::var(name).unwrap();
        Self {
            engine: var("STORE_ENGINE").parse().unwrap(),
            size: var("STORE_SIZE").parse().unwrap(),
            sync: var("STORE_SYNC").parse().unwrap(),
            root: var("STORE_ROOT").into(),
            copy_to: env::var_os("STORE_COPY_TO").map(Into::into),
        }
    }

    fn open(&self) -> Result<Arc<dyn Store>, String> {
        let options = Options {
            cache_bytes: 8 << 20,
            reserve_bytes: 1 << 20,
            unsafe_skip_fsync_for_tests: !self.sync,
            after_fsync_for_tests: self.copy_to.as_ref().map(|_| copy_files as fn(&Path)),
            ..Options::default()
        };
        store::open(&self.root, self.engine, &options).map_err(|error| error.to_string())
    }
}

/// Opens the store in a process of its own and looks for what was acknowledged. `Err` says what
/// is not there.
pub(super) fn verify(work: &Work, acknowledged: usize) -> Result<(), String> {
    let work = Work { sync: true, copy_to: None, ..work.clone() };
    let output = work.command("verify", acknowledged).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().find_map(|line| line.strip_prefix("verified: ")) {
        Some("all there") => Ok(()),
        Some(lost) => Err(lost.to_owned()),
        None => {
            Err(format!("the verifier died: {text}{}", String::from_utf8_lossy(&output.stderr)))
        }
    }
}

pub(super) fn run_if_asked() {
    let Ok(role) = env::var(ROLE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    match role.as_str() {
        "write" => runtime.block_on(write(&Work::from_env())),
        "verify" => {
            let acknowledged = env::var("STORE_ACKNOWLEDGED").unwrap().parse().unwrap();
            let found = runtime.block_on(look(&Work::from_env(), acknowledged));
            println!("\nverified: {}", found.err().unwrap_or_else(|| "all there".to_owned()));
        }
        _ => panic!("{ROLE}={role}"),
    }
}

async fn write(work: &Work) {
    let store = work.open().unwrap();
    let mut waiting = VecDeque::new();
    let mut out = std::io::stdout();
    // The harness printed something without an end of line.
    out.write_all(b"\n").unwrap();
    for n in 0..(BYTES_MAX / work.size).min(20_000) {
        waiting.push_back(store.write(document(n), writes(n, work.size)));
        if waiting.len() == AT_ONCE {
            waiting.pop_front().unwrap().await.unwrap();
            out.write_all(b"acknowledged\n").unwrap();
        }
    }
    for write in waiting {
        write.await.unwrap();
        out.write_all(b"acknowledged\n").unwrap();
    }
    // Whoever started this ends it.
    loop {
        std::thread::park();
    }
}

async fn look(work: &Work, acknowledged: usize) -> Result<(), String> {
    let store = work.open()?;
    let mut lost = Vec::new();
    for n in 0..acknowledged {
        let found =
            store.read(document(n), vec![change(n)]).await.map_err(|e| e.to_string())?.remove(0);
        let deleter = n + deletes_after();
        let good = match found {
            Some(bytes) => bytes == value(n, work.size) && (n % 4 != 0 || deleter >= acknowledged),
            // Deletes may have been under way when the power went.
            None => n % 4 == 0 && deleter < acknowledged + AT_ONCE,
        };
        if !good {
            lost.push(n);
        }
    }
    for first in 0..acknowledged.min(5) {
        let newest = first + (acknowledged - 1 - first) / 5 * 5;
        let stored = store.load(document(first)).await.map_err(|e| e.to_string())?;
        if !stored.corrupt.is_empty() {
            return Err(format!("{} corrupt rows", stored.corrupt.len()));
        }
        let at = stored.meta.map_or(0, |meta| usize::from_le_bytes(meta[..8].try_into().unwrap()));
        if at < newest {
            return Err(format!("the meta row is that of write {at}, acknowledged was {newest}"));
        }
    }
    if lost.is_empty() {
        Ok(())
    } else {
        Err(format!("{} of {acknowledged} rows are wrong, the first is {}", lost.len(), lost[0]))
    }
}

fn deletes_after() -> usize {
    // A multiple of the number of documents, so that both writes are of one document.
    KEPT.next_multiple_of(5)
}

fn document(n: usize) -> DocumentKey {
    let document = DocumentId::from_bytes(&[(n % 5).to_le_bytes()[0]; 16]);
    DocumentKey { tenant: Tenant::default(), document }
}

fn change(n: usize) -> RowKey {
    let mut id = [0x5a; 32];
    // The low byte first, so that neighbours in time are not neighbours in the tree.
    id[..8].copy_from_slice(&n.to_le_bytes());
    RowKey { kind: Kind::Change, id, part: 0 }
}

fn value(n: usize, size: usize) -> Bytes {
    (0..size)
        .map(|i| (n.wrapping_mul(31) ^ i.wrapping_mul(7) ^ (i >> 8)).to_le_bytes()[0])
        .collect()
}

fn writes(n: usize, size: usize) -> Vec<RowWrite> {
    let meta = RowKey { kind: Kind::Meta, id: [0; 32], part: 0 };
    let at = [&n.to_le_bytes()[..], &[0; 92]].concat();
    let mut writes = vec![RowWrite::Put(change(n), value(n, size)), RowWrite::Put(meta, at.into())];
    if let Some(old) = n.checked_sub(deletes_after())
        && old % 4 == 0
    {
        writes.push(RowWrite::Delete(change(old)));
    }
    writes
}

/// Copies the store, for [`Options::after_fsync_for_tests`].
fn copy_files(data: &Path) {
    let to = PathBuf::from(env::var_os("STORE_COPY_TO").unwrap());
    let next = to.with_extension("next");
    let _ = fs::remove_dir_all(&next);
    copy_tree(data.parent().unwrap(), &next);
    let _ = fs::remove_dir_all(&to);
    fs::rename(&next, &to).unwrap();
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
