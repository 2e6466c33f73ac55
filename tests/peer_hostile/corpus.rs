//! Every file of the hostile corpus, into the document that the peer edits.

use std::{fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use concord::worker::{Materialiser, WorkerLimits};
use concord_protocol::sync::SyncVersion;
use tokio::time::timeout;

use crate::{
    SOON,
    made_up::{carrying, made_up_head},
    mallory::{Heard, Mallory},
    victim::{Victim, new_document},
    worker_common,
};

/// KiB that this process may grow by over the whole corpus. The other tests of this file run in it
/// too, some 100 MiB; one file of the collection makes automerge take 500 MiB and more.
const GROWTH_KIB_MAX: u64 = 320 * 1024;
/// Files that go into one peer: with each its document may get more that it cannot forget.
const BATCH: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Sync,
    Change,
    Document,
}

/// All files of these folders, by name.
fn files() -> Option<Vec<(String, Form, Bytes)>> {
    let root = worker_common::shared("hostile")?;
    let mut files = Vec::new();
    for folder in fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()) {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            files.push((name, form(&path), fs::read(&path).unwrap().into()));
        }
    }
    files.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    assert!(files.len() > 300, "only {} files", files.len());
    Some(files)
}

/// What the corpus's README says that a file is.
fn form(path: &Path) -> Form {
    let is_in = |folder: &str| path.parent().is_some_and(|parent| parent.ends_with(folder));
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("syncmsg") => Form::Sync,
        _ if is_in("sync") => Form::Sync,
        Some("doc") => Form::Document,
        _ if is_in("change") || is_in("handmade") => Form::Change,
        _ => Form::Document,
    }
}

/// As the command has it: documents are opened in processes of their own.
async fn pool() -> Arc<dyn Materialiser> {
    let mut limits = WorkerLimits::default();
    limits.incoming_ms = 200;
    limits.incoming_ms_per_kib = 0;
    limits.memory_bytes = 512 << 20;
    Arc::new(worker_common::pool(limits).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_of_the_corpus_harms_the_peer() {
    let Some(files) = files() else { return };
    let pool = pool().await;
    let rss = || worker_common::status_kib(std::process::id(), "VmRSS").unwrap_or(0);
    let before = rss();
    for batch in files.chunks(BATCH) {
        let mut mallory = Mallory::start().await;
        let mut victim = Victim::new(&mallory.url, pool.clone()).await;
        for (name, form, bytes) in batch {
            for version in [SyncVersion::V1, SyncVersion::V2] {
                victim.online(&mallory).await;
                let head = made_up_head();
                let message = match form {
                    Form::Sync => bytes.clone(),
                    _ => carrying(version, head, vec![bytes.clone()]),
                };
                mallory.forget();
                // Into what the peer edits, and into what it has never heard of.
                mallory.sync(&new_document(), message.clone());
                mallory.sync(victim.document.id(), message);
                victim.edit().await;
                // Until it answers or closes; there may be nothing to say.
                let reaction = mallory.until(|heard| match heard {
                    Heard::Message(_) | Heard::Closed(_) => Some(()),
                });
                if timeout(Duration::from_millis(500), reaction).await.is_err() {
                    println!("silence after {name}");
                }
            }
        }
        victim.edit().await;
        let (first, ..) = &batch[0];
        println!("{first} and {} more: {} visits", batch.len() - 1, mallory.visits());
        timeout(3 * SOON, victim.recovers()).await.unwrap_or_else(|_| panic!("after {first}"));
    }
    let grown = rss().saturating_sub(before);
    println!("{grown} KiB more resident");
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more resident");
}
