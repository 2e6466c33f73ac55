//! A disk that fills up, of a peer and of its relay: what cannot be kept is refused and said, what
//! returned is there, and all goes on when there is room again.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]
#![allow(clippy::print_stdout, reason = "whoever reads the tests is told what was not tested")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::support::Relay;
use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::{
    peer::{ChangeError, ConfirmError, Document, OutboxState, Peer},
    store::{self, Engine},
};
use tempfile::TempDir;

/// Long enough for a busy machine; nothing waits for it where all is well.
const SOON: Duration = Duration::from_mins(1);

/// MiB of the disk. Stores refuse writes when less than 64 of them are free.
const DISK_MIB: usize = 192;
/// MiB that are left when it is full: enough for what a store was given already.
const LEFT_MIB: usize = 40;

/// A small disk in memory.
struct Disk(TempDir);

impl Disk {
    /// `None` where this process may not mount one.
    fn new() -> Option<Self> {
        let disk = tempfile::tempdir().unwrap();
        let size = format!("size={DISK_MIB}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "concord-test"]).arg(disk.path());
        let is_mounted = mount.output().is_ok_and(|output| output.status.success());
        if !is_mounted {
            println!("skipped: a full disk needs the right to mount one");
        }
        is_mounted.then_some(Self(disk))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Leaves no room on it.
    fn fill(&self) {
        let used: u64 = walk(self.path());
        let used_mib = usize::try_from(used >> 20).unwrap();
        fs::write(self.filler(), vec![1; (DISK_MIB - LEFT_MIB - used_mib) << 20]).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is left of it goes with this machine.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

/// Bytes that files take, not those that they claim to have.
fn walk(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let bytes = entries.map(|entry| {
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path())
        } else {
            // A file may go while we look.
            entry.metadata().map_or(0, |file| file.blocks() * 512)
        }
    });
    bytes.sum()
}

async fn put(document: &Document, n: i64) -> Result<(), ChangeError> {
    document.change(|tx| Ok(tx.put(ROOT, "n", n)?)).await.map(drop)
}

fn number(document: &Document) -> Option<i64> {
    document.read(|doc| doc.get(ROOT, "n").unwrap().and_then(|(n, _)| n.as_i64())).unwrap()
}

#[tokio::test]
async fn a_peer_without_room_refuses_edits_and_goes_on_when_there_is_room() {
    for engine in [Engine::Sled, Engine::Fjall] {
        let Some(disk) = Disk::new() else { return };
        let relay_home = tempfile::tempdir().unwrap();
        let relay = Relay::start(&[], relay_home.path());
        let home = disk.path().join("replica");
        let open = || Peer::builder(&home).engine(engine).relay(relay.url()).open().unwrap();
        let peer = open();
        let (one, other) = (peer.create().await.unwrap(), peer.create().await.unwrap());
        for n in 0..20 {
            put(&one, n).await.unwrap();
            put(&other, n).await.unwrap();
        }
        peer.flush(SOON).await.unwrap();

        disk.fill();
        let error = put(&one, 100).await.unwrap_err();
        assert!(matches!(error, ChangeError::NotDurable(_)), "{engine}: {error}");
        assert!(error.to_string().contains("bytes"), "{engine}: {error}");
        assert!(peer.create().await.is_err(), "{engine}");
        assert_eq!(number(&other), Some(19), "{engine}: it can be read all the same");
        let outbox = peer.outbox().await.unwrap();
        let is_told = |state: &OutboxState| matches!(state, OutboxState::Failed { .. });
        assert!(outbox.iter().any(|entry| is_told(&entry.state)), "{engine}: {outbox:?}");

        disk.make_room();
        put(&other, 20).await.unwrap();
        other.wait_confirmed(SOON).await.unwrap();
        let third = peer.create().await.unwrap();
        put(&third, 7).await.unwrap();
        third.wait_confirmed(SOON).await.unwrap();
        let names = [&one, &other, &third].map(|document| document.url().to_string());
        peer.close().await.unwrap();
        drop((one, other, third, peer));

        let peer = open();
        for (name, n) in names.iter().zip([19, 20, 7]) {
            let document = peer.find(name).await.unwrap();
            // What was refused may have come to the relay before, and back.
            let found = number(&document);
            assert!(found == Some(n) || (n, found) == (19, Some(100)), "{engine}: {found:?}");
            put(&document, 1_000).await.unwrap();
        }
        let flushed = peer.flush(SOON).await;
        assert_eq!((flushed, peer.outbox().await.unwrap()), (Ok(()), vec![]), "{names:?}");
        peer.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_a_relay_without_room_does_not_take_waits_and_arrives_later() {
    let Some(disk) = Disk::new() else { return };
    let home = tempfile::tempdir().unwrap();
    let relay = Relay::start(&["--store", "fjall"], &disk.path().join("relay"));
    let peer = Peer::builder(home.path()).relay(relay.url()).open().unwrap();
    let document = peer.create().await.unwrap();
    put(&document, 1).await.unwrap();
    peer.flush(SOON).await.unwrap();

    disk.fill();
    for n in 2..50 {
        put(&document, n).await.unwrap();
    }
    let error = peer.flush(Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(error, ConfirmError::TimedOut { pending: 1, .. }), "{error}");
    let outbox = peer.outbox().await.unwrap();
    let [entry] = &outbox[..] else { panic!("{outbox:?}") };
    assert!(matches!(entry.state, OutboxState::Pending | OutboxState::Sending), "{outbox:?}");
    assert_eq!(peer.dead_letters().await.unwrap(), [], "a disk can be full, and then not be");
    assert!(!document.confirmed());

    disk.make_room();
    peer.flush(SOON).await.unwrap();
    let reader = Peer::builder("memory").store(store::memory().unwrap()).relay(relay.url());
    let reader = reader.open().unwrap();
    let theirs = reader.find_within(&document.url().to_string(), SOON).await.unwrap();
    assert_eq!(number(&theirs), Some(49));
    peer.close().await.unwrap();
    reader.close().await.unwrap();
}
