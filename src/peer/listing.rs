//! Telling relays of what is stored, once each has nothing else to be told of: page by page, so that
//! none is told of all at once.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use concord_protocol::DocumentId;

use super::core::{Action, Core};
use crate::replica::{ConnectionId, Event, StorageFailure};

/// Relays of which a page is being read, and what has gone since it was asked for: the page may have
/// it, and to tell of it would be to ask for it.
#[derive(Debug, Default)]
pub(super) struct Listing(BTreeMap<ConnectionId, BTreeSet<DocumentId>>);

impl Listing {
    /// A document is purged.
    pub(super) fn went(&mut self, document: &DocumentId) {
        for gone in self.0.values_mut() {
            gone.insert(document.clone());
        }
    }

    /// A document is opened, which may be there again.
    pub(super) fn came(&mut self, document: &DocumentId) {
        for gone in self.0.values_mut() {
            gone.remove(document);
        }
    }

    /// A page is there, or not wanted any more. What has gone since it was asked for, if one was.
    pub(super) fn end(&mut self, connection: ConnectionId) -> Option<BTreeSet<DocumentId>> {
        self.0.remove(&connection)
    }
}

impl Core {
    /// Tells a relay of the stored documents, page by page, from the one behind this on.
    pub(super) fn list(&mut self, connection: ConnectionId, after: Option<DocumentId>) {
        self.listing.0.entry(connection).or_default();
        self.push(Action::List(connection, after));
    }

    /// Tells a relay of a page of the stored documents, and asks for the next page.
    pub(super) fn listed(
        &mut self,
        connection: ConnectionId,
        page: Result<Vec<DocumentId>, StorageFailure>,
    ) {
        let Some(gone) = self.listing.end(connection) else {
            return;
        };
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "stored documents cannot be listed");
                return;
            }
        };
        let Some(last) = page.last().cloned() else {
            return;
        };
        let mut left_out = 0;
        for document in page {
            if gone.contains(&document) || self.is_leaving(&document) {
                continue;
            }
            if !self.replica.follows(connection, &document) {
                if self.replica.documents_of(connection) >= self.stored_max {
                    left_out += 1;
                    continue;
                }
                if self.find(&document).is_none() {
                    self.crowd.told(connection);
                }
            }
            self.handle(Event::SyncWith(connection, document));
        }
        self.left_out(connection, left_out);
        self.list(connection, Some(last));
    }
}
