//! Which attachments documents name, as they were when they were looked at.

use std::collections::{BTreeMap, BTreeSet};

use concord_protocol::{BlobHash, DocumentId};

/// See the module. Documents that name none take no room.
#[derive(Debug, Default)]
pub(in crate::relay) struct References(BTreeMap<DocumentId, Box<[BlobHash]>>);

impl References {
    /// A document names these.
    pub(in crate::relay) fn set(&mut self, document: &DocumentId, named: Vec<BlobHash>) {
        if named.is_empty() {
            self.0.remove(document);
        } else {
            self.0.insert(document.clone(), named.into());
        }
    }

    /// What any document names.
    pub(in crate::relay) fn all(&self) -> BTreeSet<BlobHash> {
        self.0.values().flatten().copied().collect()
    }
}
