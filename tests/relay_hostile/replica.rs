//! What an honest client keeps of a document.

use std::collections::BTreeSet;

use automerge::{
    Automerge, ROOT, ReadDoc as _,
    sync::{self, SyncDoc as _},
    transaction::Transactable as _,
};
use bytes::Bytes;
use concord_protocol::{
    ChangeHash, Limits,
    sync::{Have, SyncFlags, SyncMessage, SyncVersion},
};

/// The name and value of one edit; all are of one length.
pub(crate) fn key(round: usize) -> String {
    format!("{KEY}{round:06}")
}

const KEY: &str = "honest-";
const KEY_LEN: usize = KEY.len() + 6;

/// One document as one client has it.
pub(crate) trait Replica: Default + Send + 'static {
    /// Writes this key.
    fn edit(&mut self, key: &str);
    /// Whether it, or another, was written.
    fn has(&self, key: &str) -> bool;
    /// Takes a sync message in.
    fn receive(&mut self, data: &Bytes);
    /// The next sync message to send.
    fn say(&mut self) -> Option<Bytes>;
}

/// Automerge itself.
#[derive(Default)]
pub(crate) struct Real {
    pub(crate) doc: Automerge,
    state: sync::State,
}

impl Replica for Real {
    fn edit(&mut self, key: &str) {
        put(&mut self.doc, key);
    }

    fn has(&self, key: &str) -> bool {
        let values = self.doc.get_all(ROOT, key).unwrap();
        let key = automerge::Value::from(key);
        values.iter().any(|(value, _)| *value == key)
    }

    fn receive(&mut self, data: &Bytes) {
        let message = sync::Message::decode(data).expect("the relay speaks automerge");
        self.doc
            .receive_sync_message(&mut self.state, message)
            .expect("what the relay passes on can be applied");
    }

    fn say(&mut self) -> Option<Bytes> {
        let message = self.doc.generate_sync_message(&mut self.state)?;
        Some(message.encode().into())
    }
}

/// Writes with automerge, and of what others wrote notes only what it is looking for: a change
/// that automerge cannot apply does it no harm.
#[derive(Default)]
pub(crate) struct Light {
    /// Its own changes alone.
    doc: Automerge,
    keys: BTreeSet<String>,
    theirs: BTreeSet<ChangeHash>,
    unsent: Vec<Bytes>,
    said: Option<Vec<ChangeHash>>,
}

impl Replica for Light {
    fn edit(&mut self, key: &str) {
        put(&mut self.doc, key);
        self.keys.insert(key.to_owned());
        let change = self.doc.get_changes(&[]).pop().unwrap();
        self.unsent.push(Bytes::copy_from_slice(change.raw_bytes()));
    }

    fn has(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    fn receive(&mut self, data: &Bytes) {
        let message = SyncMessage::decode(data, &Limits::default()).unwrap();
        for change in &message.changes {
            let keys = change
                .windows(KEY_LEN)
                .filter(|bytes| bytes.starts_with(KEY.as_bytes()))
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            self.keys.extend(keys);
        }
        self.theirs = message.heads.into_iter().collect();
    }

    fn say(&mut self) -> Option<Bytes> {
        let own = self.doc.get_heads().into_iter();
        let heads: BTreeSet<_> =
            own.map(|head| ChangeHash(head.0)).chain(self.theirs.iter().copied()).collect();
        let heads: Vec<_> = heads.into_iter().collect();
        if self.unsent.is_empty() && self.said.as_ref() == Some(&heads) {
            return None;
        }
        self.said = Some(heads.clone());
        let have = Have { last_sync: heads.clone(), ..Have::default() };
        let message = SyncMessage {
            version: SyncVersion::V1,
            heads,
            need: vec![],
            have: vec![have],
            changes: std::mem::take(&mut self.unsent),
            flags: Some(SyncFlags::default()),
        };
        Some(message.encode())
    }
}

fn put(doc: &mut Automerge, key: &str) {
    doc.transact(|tx| tx.put(ROOT, key, key)).expect("an honest document can be edited");
}
