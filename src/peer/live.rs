//! Queries that go on: the page that is there, then what becomes different in it.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use concord_protocol::DocumentId;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{Page, Peer, Query, ReadError, Row};

/// How long changes gather before they are told.
const GATHER: Duration = Duration::from_millis(20);

/// What became different in the page of a [`LiveQuery`]. Whoever does to a list of rows what the
/// events say, one after another, has the page as it is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LiveEvent {
    /// All of it: first, and whenever the schema in force is another.
    Page(Page),
    /// The row at this place is gone: deleted, not asked for any more, or behind the end of the page.
    Removed {
        /// Where it was, from 0.
        at: usize,
        /// Whose.
        document: DocumentId,
    },
    /// A row came in before the one at this place.
    Added {
        /// Where it is.
        at: usize,
        /// What it says.
        row: Row,
    },
    /// A row is elsewhere: taken out at one place, then put in at another. It may say something
    /// else, too.
    Moved {
        /// Where it was.
        from: usize,
        /// Where it is, once it was taken out.
        to: usize,
        /// What it says.
        row: Row,
    },
    /// The row at this place says something else.
    Changed {
        /// Where it is.
        at: usize,
        /// What it says.
        row: Row,
    },
}

/// A query that goes on; from [`Peer::live`].
///
/// What is told is the difference between the page that was told of and the one that is there when
/// [`LiveQuery::next`] is called: whoever is slow hears less, and misses nothing.
#[derive(Debug)]
pub struct LiveQuery {
    peer: Peer,
    query: Query,
    rows: Vec<Row>,
    told: VecDeque<LiveEvent>,
    changes: watch::Receiver<u64>,
    progress: watch::Receiver<super::indexing::Progress>,
    /// Of the type, when the page was made.
    version: Option<u64>,
    schema: watch::Receiver<super::SchemaStatus>,
    /// What making the page took.
    cost: Duration,
}

impl Peer {
    /// The page that a query asks for, and what becomes different in it from then on.
    pub fn live(&self, query: Query) -> LiveQuery {
        LiveQuery {
            peer: self.clone(),
            query,
            rows: Vec::new(),
            told: VecDeque::new(),
            changes: self.0.index.changes.subscribe(),
            progress: self.0.index.progress.subscribe(),
            version: None,
            schema: self.watch_schema(),
            cost: Duration::ZERO,
        }
    }
}

impl LiveQuery {
    /// The next event; waits for it. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// As [`Peer::query`]: of a query that does not fit its type, and once the peer is closed.
    pub async fn next(&mut self) -> Result<LiveEvent, ReadError> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Ok(event);
            }
            if self.version.is_some() {
                self.wait().await?;
            }
            self.look().await?;
        }
    }

    /// Waits until something of the type may be different.
    async fn wait(&mut self) -> Result<(), ReadError> {
        let peer = self.peer.clone();
        loop {
            let version = peer.0.index.read(|table| table.version(&self.query.of));
            if Some(version) != self.version || self.schema.has_changed().unwrap_or(true) {
                return Ok(());
            }
            tokio::select! {
                changed = self.changes.changed() => changed.map_err(|_| ReadError::Closed)?,
                changed = self.progress.changed() => changed.map_err(|_| ReadError::Closed)?,
                changed = self.schema.changed() => {
                    self.schema.mark_changed();
                    changed.map_err(|_| ReadError::Closed)?;
                }
                () = peer.0.engine.closed() => return Err(ReadError::Closed),
            }
            // Of a large type a page takes its time: no more than a fifth of all.
            sleep(GATHER.max(4 * self.cost)).await;
        }
    }

    async fn look(&mut self) -> Result<(), ReadError> {
        let is_new = self.version.is_none() || self.schema.has_changed().unwrap_or(true);
        self.schema.mark_unchanged();
        self.changes.mark_unchanged();
        self.progress.mark_unchanged();
        let of = self.peer.settled(&self.query).await?;
        // Before the page is made: what changes meanwhile is looked at once more.
        let version = self.peer.0.index.read(|table| table.version(&self.query.of));
        let started = Instant::now();
        let page = self.peer.page(&self.query, of.as_deref()).await?;
        self.cost = started.elapsed();
        self.version = Some(version);
        if is_new {
            self.rows.clone_from(&page.rows);
            self.told.push_back(LiveEvent::Page(page));
        } else {
            let before = std::mem::replace(&mut self.rows, page.rows);
            self.told.extend(differences(before, &self.rows));
        }
        Ok(())
    }
}

/// What makes one list of rows the other.
pub(super) fn differences(mut list: Vec<Row>, now: &[Row]) -> Vec<LiveEvent> {
    let mut events = Vec::new();
    let kept: BTreeSet<&DocumentId> = now.iter().map(|row| &row.document).collect();
    for at in (0..list.len()).rev() {
        if !kept.contains(&list[at].document) {
            let document = list.remove(at).document;
            events.push(LiveEvent::Removed { at, document });
        }
    }
    let old: BTreeSet<DocumentId> = list.iter().map(|row| row.document.clone()).collect();
    for (at, row) in now.iter().enumerate() {
        match list.get(at) {
            Some(there) if there.document == row.document => {
                if there != row {
                    events.push(LiveEvent::Changed { at, row: row.clone() });
                }
            }
            _ if old.contains(&row.document) => {
                // It is behind this place: what is before is as it is to be.
                let is_it = |there: &Row| there.document == row.document;
                let Some(from) = list.iter().position(is_it) else { continue };
                list.remove(from);
                list.insert(at, row.clone());
                events.push(LiveEvent::Moved { from, to: at, row: row.clone() });
            }
            _ => {
                list.insert(at, row.clone());
                events.push(LiveEvent::Added { at, row: row.clone() });
            }
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;
    use crate::peer::index::{
        cell::Cell,
        entry::{Entry, Parts},
    };

    fn rows(numbers: Vec<(u8, i64)>) -> Vec<Row> {
        let mut seen = BTreeSet::new();
        let numbers = numbers.into_iter().map(|(id, changed)| (id % 8, changed % 2));
        let row = |(id, changed): (u8, i64)| {
            let parts = Parts {
                id: &DocumentId::from_bytes(&[id + 1; 16]),
                type_name: "",
                key: None,
                reading: 0,
                heads: 0,
                changed,
                is_deleted: false,
                conflicts: 0,
                cells: vec![Cell::Unset],
            };
            Row::new(&Entry::new(&parts), None).unwrap()
        };
        numbers.filter(|(id, _)| seen.insert(*id)).map(row).collect()
    }

    quickcheck! {
        fn what_is_told_makes_one_page_the_other(before: Vec<(u8, i64)>, now: Vec<(u8, i64)>) -> bool {
            let (mut list, now) = (rows(before), rows(now));
            for event in differences(list.clone(), &now) {
                match event {
                    LiveEvent::Page(page) => list = page.rows,
                    LiveEvent::Removed { at, document } => {
                        assert_eq!(list.remove(at).document, document);
                    }
                    LiveEvent::Added { at, row } => list.insert(at, row),
                    LiveEvent::Moved { from, to, row } => {
                        assert_eq!(list.remove(from).document, row.document);
                        list.insert(to, row);
                    }
                    LiveEvent::Changed { at, row } => {
                        assert!(list[at] != row, "it says something else");
                        list[at] = row;
                    }
                }
            }
            list == now && differences(now.clone(), &now).is_empty()
        }
    }
}
