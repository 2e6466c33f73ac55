//! Documents go on while an attachment is brought.

use std::sync::atomic::Ordering::SeqCst;

use automerge::{ROOT, transaction::Transactable as _};

use crate::{
    proxy::Proxy,
    world::{MIB, SOON, home, noise, relay_with},
};

/// On a line of 2 MiB/s an attachment takes 4 s, and what is under way of it an eighth of one: an edit
/// waits for no more than that.
#[tokio::test(flavor = "multi_thread")]
async fn documents_do_not_wait_for_an_attachment() {
    let relay = relay_with(|_| ()).await;
    let proxy = Proxy::to(relay.addr()).await;
    let alice = home(&proxy.url());
    let note = alice.peer.create().await.unwrap();
    note.wait_confirmed(SOON).await.unwrap();
    proxy.rate.store(2 * MIB as u64, SeqCst);
    alice.peer.attach(&noise(8 * MIB, 6)[..]).await.unwrap();
    let flushing = alice.peer.flush(SOON);
    let editing = async {
        let mut edits = 0_i64;
        loop {
            note.change(|tx| Ok(tx.put(ROOT, "n", edits)?)).await.unwrap();
            note.wait_confirmed(SOON).await.unwrap();
            edits += 1;
            tokio::task::yield_now().await;
            if alice.peer.attachment_counts().borrow().waiting == 0 {
                return edits;
            }
        }
    };
    let (flushed, edits) = tokio::join!(flushing, editing);
    flushed.unwrap();
    assert!(edits >= 8, "{edits} edits were confirmed while an attachment was brought");
}
