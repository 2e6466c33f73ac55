//! Up and down, cut and resumed, offline and wrong.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use automerge::{ROOT, transaction::Transactable as _};
use concord::{
    entity::Attachment,
    peer::{AttachmentError, ConfirmError, Peer},
};
use concord_protocol::BlobHash;

use crate::{
    proxy::Proxy,
    support,
    world::{MIB, SOON, bytes_of, home, home_with, noise, relay_with, until},
};

const LENGTH: usize = 20 * MIB;
/// What may be sent again after a cut: what was under way, and what was not on the disk yet; and the
/// messages around all pieces.
const AGAIN: u64 = 3 * MIB as u64;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_megabytes_go_up_and_down_and_go_on_where_they_were_cut() {
    let relay = relay_with(|_| ()).await;
    let proxy = Proxy::to(relay.addr()).await;
    let bytes = noise(LENGTH, 1);
    proxy.up.cut_at.store(8 * MIB as u64, SeqCst);
    let alice = home(&proxy.url());
    let attachment = alice.peer.attach(&bytes[..]).await.unwrap();
    assert_eq!(attachment.length, LENGTH as u64);
    alice.peer.flush(SOON).await.unwrap();
    assert_eq!(proxy.up.cut_at.load(SeqCst), u64::MAX, "it was cut");
    let up = proxy.up.bytes();
    assert!(up >= LENGTH as u64 && up < LENGTH as u64 + AGAIN, "{up} bytes went up");

    let before = proxy.down.bytes();
    proxy.down.cut_at.store(before + 8 * MIB as u64, SeqCst);
    let bob = home(&proxy.url());
    let mut told = Vec::new();
    let opened = bob.peer.open_attachment_within(&attachment, SOON, |here, of| {
        assert!(here <= of && of == LENGTH as u64);
        told.push(here);
    });
    drop(opened.await.unwrap());
    assert_eq!(proxy.down.cut_at.load(SeqCst), u64::MAX, "it was cut");
    assert_eq!(told.last(), Some(&(LENGTH as u64)));
    let down = proxy.down.bytes() - before;
    assert!(down >= LENGTH as u64 && down < LENGTH as u64 + AGAIN, "{down} bytes came down");
    assert_eq!(bytes_of(&bob.peer, &attachment).await, Ok(bytes));
    assert!(proxy.down.bytes() - before < LENGTH as u64 + AGAIN, "it was here");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_attached_offline_is_brought_later_and_waited_for() {
    let relay = relay_with(|_| ()).await;
    let url = format!("ws://{}", relay.addr());
    let alice = home_with(|builder| builder);
    let bytes = noise(300_000, 2);
    let attachment = alice.peer.attach(&bytes[..]).await.unwrap();
    let early = alice.peer.flush(Duration::from_millis(50)).await;
    assert!(matches!(early, Err(ConfirmError::Attachments { pending: 1, .. })), "{early:?}");
    assert_eq!(alice.peer.overview().attachments.waiting_bytes, 300_000);
    assert_eq!(bytes_of(&alice.peer, &attachment).await.as_ref(), Ok(&bytes));
    alice.peer.close().await.unwrap();

    // The document is there before the bytes are.
    let bob = home(&url);
    let note = bob.peer.create().await.unwrap();
    let named = attachment.to_string();
    note.change(|tx| Ok(tx.put(ROOT, "photo", named)?)).await.unwrap();
    bob.peer.flush(SOON).await.unwrap();
    assert_eq!(
        bytes_of(&bob.peer, &attachment).await,
        Err(AttachmentError::Unavailable(attachment.hash))
    );
    assert_eq!(bob.peer.prefetch(&note, SOON).await.unwrap().missing.len(), 1);

    let again = Peer::builder(alice.directory.path()).relay(&url).open().unwrap();
    again.flush(SOON).await.unwrap();
    assert!(again.attachments().await.unwrap()[0].is_sent);
    let fetched = bob.peer.prefetch(&note, SOON).await.unwrap();
    assert_eq!((fetched.here, fetched.missing.len()), (1, 0));
    assert_eq!(bytes_of(&bob.peer, &attachment).await, Ok(bytes));
    let nobody = home_with(|builder| builder);
    let offline = nobody.peer.open_attachment(&attachment).await;
    assert!(matches!(offline, Err(AttachmentError::Offline { .. })), "{offline:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_of_a_relay_are_not_taken_and_what_was_right_is_kept() {
    let relay = relay_with(|_| ()).await;
    let proxy = Proxy::to(relay.addr()).await;
    let length = 4 * MIB;
    let bytes = noise(length, 3);
    let alice = home(&proxy.url());
    let attachment = alice.peer.attach(&bytes[..]).await.unwrap();
    alice.peer.flush(SOON).await.unwrap();
    let bob = home(&proxy.url());
    until("online", || async { bob.peer.overview().status.is_online() }).await;
    let before = proxy.down.bytes();
    proxy.down.spoil_at.store(before + 2 * MIB as u64, SeqCst);
    assert_eq!(
        bytes_of(&bob.peer, &attachment).await,
        Err(AttachmentError::Wrong(attachment.hash))
    );
    assert!(!bob.peer.has_attachment(&attachment).await.unwrap());
    assert_eq!(bytes_of(&bob.peer, &attachment).await, Ok(bytes));
    let down = proxy.down.bytes() - before;
    assert!(down < (length + MIB) as u64, "{down} bytes came down");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_killed_goes_on_behind_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = support::Relay::start(&[], directory.path());
    let addr = relay.url().trim_start_matches("ws://").parse().unwrap();
    let proxy = Proxy::to(addr).await;
    let bytes = noise(LENGTH, 4);
    let alice = home(&proxy.url());
    let attachment = alice.peer.attach(&bytes[..]).await.unwrap();
    until("half of it", || async { proxy.up.bytes() > 8 * MIB as u64 }).await;
    relay.kill9();
    relay.restart();
    alice.peer.flush(SOON).await.unwrap();
    let up = proxy.up.bytes();
    assert!(up < LENGTH as u64 + AGAIN, "{up} bytes went up");
    relay.kill9();
    relay.restart();
    let bob = home(&proxy.url());
    assert_eq!(bytes_of(&bob.peer, &attachment).await, Ok(bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_documents_name_is_fetched_ahead_where_that_is_wanted() {
    let relay = relay_with(|_| ()).await;
    let url = format!("ws://{}", relay.addr());
    let alice = home(&url);
    let note = alice.peer.create().await.unwrap();
    let mut named = Vec::new();
    for (n, key) in [(15, "before"), (16, "after")] {
        named.push(alice.peer.attach(&noise(100_000, n)[..]).await.unwrap());
        let text = named[named.len() - 1].to_string();
        note.change(|tx| Ok(tx.put(ROOT, key, text)?)).await.unwrap();
    }
    alice.peer.flush(SOON).await.unwrap();
    let bob = home_with(|builder| builder.relay(&url).attachments_ahead(true));
    let _his = bob.peer.find_within(note.id().as_str(), SOON).await.unwrap();
    until("all are here", || async {
        let all = bob.peer.attachments().await.unwrap();
        all.iter().filter(|one| one.is_whole).count() == 2
    })
    .await;
    bob.peer.close().await.unwrap();
    let again = Peer::builder(bob.directory.path()).open().unwrap();
    assert_eq!(bytes_of(&again, &named[0]).await, Ok(noise(100_000, 15)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_what_nobody_attached() {
    let relay = relay_with(|_| ()).await;
    let alice = home(&format!("ws://{}", relay.addr()));
    let attachment = Attachment::new(BlobHash([5; 32]), 7);
    let opened = alice.peer.open_attachment_within(&attachment, SOON, |_, _| ()).await;
    assert!(matches!(opened, Err(AttachmentError::Unavailable(_))));
}
