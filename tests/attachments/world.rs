//! A relay in this process, peers in directories of their own, and bytes to attach.

use std::{sync::Arc, time::Duration};

use concord::{
    entity::Attachment,
    peer::{AttachmentError, Peer, PeerBuilder},
    relay::{Relay, RelayConfig},
    store,
    worker::{InProcess, WorkerLimits},
};
use tokio::io::AsyncReadExt as _;

/// Long enough for a busy machine; nothing waits for it where all is well.
pub(crate) const SOON: Duration = Duration::from_mins(1);
pub(crate) const MIB: usize = 1 << 20;

pub(crate) async fn relay_with(change: impl FnOnce(&mut RelayConfig)) -> Relay {
    let mut config = RelayConfig { port: 0, admin: None, ..RelayConfig::default() };
    change(&mut config);
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    Relay::start(config, store::memory().unwrap(), worker).await.unwrap()
}

pub(crate) struct Home {
    pub(crate) peer: Peer,
    pub(crate) directory: tempfile::TempDir,
}

pub(crate) fn home(url: &str) -> Home {
    home_with(|builder| builder.relay(url))
}

pub(crate) fn home_with(change: impl FnOnce(PeerBuilder) -> PeerBuilder) -> Home {
    let directory = tempfile::tempdir().unwrap();
    // Bytes are counted on their way.
    let builder = Peer::builder(directory.path()).compression(false);
    let peer = change(builder).open().unwrap();
    Home { peer, directory }
}

/// Bytes that look like noise, none of which is in ASCII: the words of messages are.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3] | 0x80
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub(crate) async fn bytes_of(
    peer: &Peer,
    attachment: &Attachment,
) -> Result<Vec<u8>, AttachmentError> {
    let mut bytes = Vec::new();
    let reader = peer.open_attachment_within(attachment, SOON, |_, _| ()).await?;
    { reader }.read_to_end(&mut bytes).await.unwrap();
    Ok(bytes)
}

/// Waits until it is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("never {what}"));
}
