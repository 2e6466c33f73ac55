//! Keeping up with a document: what it costs to know its conflicts follows what is new in it.

use automerge::{Automerge, Change, ChangeHash};
use concord_protocol::DocumentId;

use super::{Conflict, Detector, Settled, Unreadable, settle};
use crate::entity::Schema;

/// A [`Detector`] that knows how much of a document it has seen.
#[derive(Debug, Default)]
pub struct Follower {
    detector: Detector,
    heads: Vec<ChangeHash>,
}

/// What is new in a document.
#[derive(Debug)]
pub struct News {
    changes: Vec<Change>,
    heads: Vec<ChangeHash>,
    /// The document is another one now: what was seen of it before counts for nothing.
    anew: bool,
}

impl Follower {
    /// What is in the document that was not taken in yet.
    pub fn news(&self, doc: &Automerge) -> News {
        // Where something that was there is not any more, the document was put together again
        // without it.
        let anew = self.heads.iter().any(|head| doc.get_change_meta_by_hash(head).is_none());
        let since: &[ChangeHash] = if anew { &[] } else { &self.heads };
        let heads = doc.get_heads();
        let changes = if heads == since { Vec::new() } else { doc.get_changes(since) };
        News { changes, heads, anew }
    }

    /// Takes in what is new.
    ///
    /// # Errors
    /// [`Unreadable`]; then nothing is known of the document.
    pub fn take_in(&mut self, news: News) -> Result<(), Unreadable> {
        let News { changes, heads, anew } = news;
        if anew {
            *self = Self::default();
        }
        for change in &changes {
            if let Err(error) = self.detector.take_in(change) {
                *self = Self::default();
                return Err(error);
            }
        }
        self.heads = heads;
        Ok(())
    }

    /// Decides what a schema decides, in the document itself, of which all was taken in.
    pub fn settle(
        &mut self,
        doc: &mut Automerge,
        document: &DocumentId,
        schema: &Schema,
    ) -> Vec<Settled> {
        let settled = settle(doc, &mut self.detector, document, schema);
        self.heads = doc.get_heads();
        settled
    }

    /// What was taken in.
    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// The conflicts that are open; see [`Detector::open`].
    pub fn open(&self, document: &DocumentId) -> Vec<Conflict> {
        self.detector.open(document)
    }
}
