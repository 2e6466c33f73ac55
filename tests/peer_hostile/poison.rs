//! Changes that keep every rule and that automerge cannot apply, and other lies.

use std::sync::Arc;

use bytes::Bytes;
use concord::{
    peer::{DocumentEvent, FindError},
    replica::{JobError, JobOutput},
    worker::{BoxFuture, Materialiser, WorkerJob},
};
use concord_protocol::{Ack, Message, sync::SyncVersion};

use crate::{
    SOON, chunks,
    made_up::{carrying, made_up_head},
    mallory::{Heard, Mallory},
    victim::{Victim, honest_with, new_document},
};

/// A change that keeps every rule and that automerge 0.12 cannot apply: found by changing honest
/// ones at random.
const POISON: &[u8] = include_bytes!("poison.change");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_document_is_usable_again_without_a_restart() {
    let poison = Bytes::from_static(POISON);
    let mut mallory = Mallory::start().await;
    let mut victim = Victim::simple(&mallory.url).await;
    victim.online(&mallory).await;
    let mut watcher = victim.document.watch();
    for _ in 0..3 {
        victim.edit().await;
    }
    let head = made_up_head();
    mallory.forget();
    mallory.sync(victim.document.id(), carrying(SyncVersion::V1, head, vec![poison]));
    // At once, and not only when a worker has found the same.
    victim.edit().await;
    // The program is told, and the document is there again, without what broke it.
    let told = async {
        loop {
            match watcher.next().await {
                DocumentEvent::Withheld { reason, .. } => break reason,
                DocumentEvent::Quarantined { reason } => panic!("given up: {reason}"),
                _ => {}
            }
        }
    };
    let reason = tokio::time::timeout(SOON, told).await.expect("the program is told");
    assert!(reason.contains("assertion failed"), "{reason}");
    // An edit waits until it is.
    victim.edit().await;
    victim.has_only_its_own();
    victim.recovers().await;
}

/// All of its workers have other things to do.
struct Busy;

impl Materialiser for Busy {
    fn run(&self, _: WorkerJob) -> BoxFuture<Result<JobOutput, JobError>> {
        Box::pin(async { Err(JobError::Unavailable("busy".to_owned())) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_document_is_shown_without_does_not_keep_it_from_being_confirmed() {
    let mut mallory = Mallory::start().await;
    let mut victim = Victim::new(&mallory.url, Arc::new(Busy)).await;
    victim.online(&mallory).await;
    let head = made_up_head();
    mallory.forget();
    let poison = Bytes::from_static(POISON);
    mallory.sync(victim.document.id(), carrying(SyncVersion::V1, head, vec![poison]));
    mallory.until(|heard| matches!(heard, Heard::Message(_)).then_some(())).await;
    victim.edit().await;
    // Nobody has checked the poison, so it is passed on, stored, and named as a head.
    let relay = honest_with(Arc::new(Busy)).await;
    victim.peer.connect(&format!("ws://{}", relay.addr())).unwrap();
    victim.document.wait_confirmed(SOON).await.unwrap();
    victim.has_only_its_own();
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_and_costly_changes_are_refused_and_the_relay_told() {
    let mut mallory = Mallory::start().await;
    let mut victim = Victim::simple(&mallory.url).await;
    let honest = chunks::first_change(&[8], 1, vec![]);
    let mut forged = honest.to_vec();
    forged[4] ^= 1;
    let attacks = [
        ("a checksum", forged.into()),
        ("ten million nulls", chunks::nulls(10_000_000)),
        ("a gigabyte of zeros", chunks::bomb()),
        ("a counter", chunks::with_start_op((1 << 32) - 1)),
    ];
    for (what, change) in attacks {
        for version in [SyncVersion::V1, SyncVersion::V2] {
            victim.online(&mallory).await;
            mallory.forget();
            let data = carrying(version, made_up_head(), vec![change.clone()]);
            assert!(mallory.sync(victim.document.id(), data));
            mallory
                .until(|heard| match heard {
                    Heard::Message(Message::Ack { ack, .. }) => {
                        (!ack.refused.is_empty()).then_some(())
                    }
                    Heard::Message(_) => None,
                    Heard::Closed(code) => panic!("{what}: closed with {code}"),
                })
                .await;
            victim.edit().await;
            victim.has_only_its_own();
        }
    }
    victim.recovers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_s_word_on_what_nobody_has_confirms_nothing() {
    let mallory = Mallory::start().await;
    let mut victim = Victim::simple(&mallory.url).await;
    victim.online(&mallory).await;
    let document = victim.document.id().clone();
    let lie = || {
        let durable = vec![made_up_head()];
        let ack = Ack { applied: durable.clone(), durable, refused: Vec::new() };
        let document = document.clone();
        mallory.say(|sender, target| Message::Ack { document, sender, target, ack })
    };
    for _ in 0..20 {
        assert!(lie());
        mallory.sync(&document, carrying(SyncVersion::V1, made_up_head(), vec![]));
        victim.edit().await;
        assert!(!victim.document.confirmed());
    }
    victim.has_only_its_own();
    victim.recovers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_nobody_asked_for_are_not_kept() {
    let mallory = Mallory::start().await;
    let mut victim = Victim::simple(&mallory.url).await;
    victim.online(&mallory).await;
    let mut pushed = Vec::new();
    for n in 0..50_u8 {
        let document = new_document();
        let change = chunks::first_change(&[n], 1, vec![]);
        mallory.sync(&document, carrying(SyncVersion::V1, made_up_head(), vec![change]));
        pushed.push(document);
    }
    victim.edit().await;
    // After all of that was taken in: an answer to what came behind it.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let kept = victim.peer.documents().await.unwrap();
    assert_eq!(kept, [victim.document.id().clone()]);
    let found = victim.peer.find_within(pushed[0].as_str(), SOON / 100).await;
    assert!(!matches!(found, Ok(_) | Err(FindError::Broken { .. })), "{found:?}");
    victim.recovers().await;
}
