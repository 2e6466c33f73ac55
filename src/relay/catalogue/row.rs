//! The catalogue on disk: a row of nobody's for each document, and one with the runs of the relay.

use bytes::Bytes;
use concord_protocol::DocumentId;
use serde::{Deserialize, Serialize};

use super::table::Standing;
use crate::{
    digest::digest,
    record,
    replica::{Kind, RowKey, RowWrite, StoredDocument},
};

/// The format of rows: what is of another is as if it were not there.
const VERSION: u32 = 1;

/// What is kept of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) version: u32,
    pub(super) document: String,
    /// Nothing for none.
    pub(super) type_name: String,
    pub(super) standing: u8,
    pub(super) number: u64,
    pub(super) heads: u64,
    /// It is about to change, or has: its number is another by now.
    pub(super) is_mark: bool,
}

/// A start of the relay, which gave numbers up to this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) id: u64,
    pub(super) ceiling: u64,
}

/// What is kept of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Root {
    version: u32,
    /// All documents have a row.
    pub(super) is_complete: bool,
    pub(super) runs: Vec<Run>,
}

const ROOT: RowKey = RowKey { kind: Kind::Meta, id: [0; 32], part: 0 };

fn key(document: &str) -> RowKey {
    let mut id = [0; 32];
    id[..16].copy_from_slice(&digest(["concord catalogue row", document]));
    RowKey { kind: Kind::Change, id, part: 0 }
}

impl Row {
    pub(super) fn new(document: &DocumentId, type_name: &str) -> Self {
        Self {
            version: VERSION,
            document: document.as_str().to_owned(),
            type_name: type_name.to_owned(),
            standing: 0,
            number: 0,
            heads: 0,
            is_mark: true,
        }
    }

    /// In place of the row that was there of the document.
    pub(super) fn write(&self) -> Option<RowWrite> {
        // Names are bounded far below what a record may have.
        let bytes = record::encode(self).ok()?;
        Some(RowWrite::Put(key(&self.document), Bytes::from(bytes)))
    }
}

impl Root {
    pub(super) fn new(is_complete: bool, runs: Vec<Run>) -> Self {
        Self { version: VERSION, is_complete, runs }
    }

    pub(super) fn write(&self) -> Option<RowWrite> {
        Some(RowWrite::Put(ROOT, Bytes::from(record::encode(self).ok()?)))
    }
}

impl Standing {
    pub(super) fn to_byte(self) -> u8 {
        self as u8
    }

    pub(super) fn of_byte(byte: u8) -> Option<Self> {
        [Self::Live, Self::Deleted, Self::Purged].into_iter().find(|it| it.to_byte() == byte)
    }
}

/// What was kept.
#[derive(Debug, Default)]
pub(super) struct Recalled {
    pub(super) rows: Vec<Row>,
    pub(super) runs: Vec<Run>,
    /// Those are the rows of all documents.
    pub(super) is_complete: bool,
}

/// Reads all rows. Those that cannot be read are left out, and then it is not all.
pub(super) fn recall(stored: StoredDocument) -> Recalled {
    let root = stored.meta.and_then(|bytes| record::decode::<Root>(&bytes).ok());
    let Some(root) = root.filter(|root| root.version == VERSION) else {
        // Whose numbers they are is not known.
        return Recalled::default();
    };
    let mut is_complete = root.is_complete && stored.corrupt.is_empty();
    let mut rows = Vec::with_capacity(stored.changes.len());
    for (id, bytes) in stored.changes {
        let is_sound = |row: &Row| row.version == VERSION && key(&row.document).id == id.0;
        match record::decode::<Row>(&bytes).ok().filter(is_sound) {
            Some(row) => rows.push(row),
            None => is_complete = false,
        }
    }
    Recalled { rows, runs: root.runs, is_complete }
}
