//! How a document comes into memory: its rows, the order of its changes, and the index pages that
//! are asked for on the way.

use std::collections::VecDeque;

use bytes::Bytes;
use concord_protocol::{ChangeHash, CloseCode, guard};

use super::{
    Counted, Effect, Kind, RowKey, RowWrite, StorageFailure, StoredDocument, Ticket,
    admission::missing_deps,
    core::Core,
    document::{Document, PagesRead, State, change_row, delete_snapshot},
    graph::Graph,
    index::{IndexRoot, Missing},
};
use crate::record;

impl Document {
    /// Makes sure that the document is in memory or on its way.
    pub(super) fn ensure_loading(&mut self, core: &mut Core) {
        if matches!(self.state, State::Absent) {
            self.used(core);
            let ticket = core.ticket(&self.id);
            self.state = State::Loading(ticket);
            core.effect(Effect::Load(ticket, self.id.clone()));
        }
    }

    pub(super) fn read_pages(&mut self, core: &mut Core, missing: Missing) {
        let snapshot = match &self.state {
            State::Ready(graph) | State::Sorting(graph, _) => graph.snapshot.as_ref(),
            _ => None,
        };
        let Some(snapshot) = snapshot else { return };
        mark!(PagesToSort, if matches!(self.state, State::Sorting(..)));
        let parts: Vec<u32> = missing.0.into_iter().collect();
        let rows = parts
            .iter()
            .map(|&part| RowKey { kind: Kind::IndexPage, id: snapshot.id, part })
            .collect();
        let ticket = core.ticket(&self.id);
        self.pages = Some(PagesRead { ticket, snapshot: snapshot.id, parts });
        core.effect(Effect::Read(ticket, self.id.clone(), rows));
    }

    /// Index pages came.
    pub(super) fn pages_read(
        &mut self,
        core: &mut Core,
        read: &PagesRead,
        rows: Result<Vec<Option<Bytes>>, StorageFailure>,
    ) {
        let (State::Ready(graph) | State::Sorting(graph, _)) = &mut self.state else {
            return;
        };
        let Some(snapshot) = graph.snapshot.as_mut().filter(|now| now.id == read.snapshot) else {
            // Another snapshot took its place: whoever asked looks there.
            mark!(PagesReplaced);
            return self.drive(core);
        };
        let rows = match rows {
            Ok(rows) => rows,
            Err(failure) => return self.fail(core, &failure),
        };
        for (part, row) in read.parts.iter().zip(rows) {
            let inserted = row.map(|bytes| snapshot.index.insert_page(*part, &bytes));
            if !matches!(inserted, Some(Ok(()))) {
                core.count(Counted::CorruptRow);
                let failure = StorageFailure(format!("index page {part} cannot be read"));
                return self.fail(core, &failure);
            }
        }
        self.drive(core);
    }

    /// The rows of the document came.
    pub(super) fn loaded(
        &mut self,
        core: &mut Core,
        ticket: Ticket,
        stored: Result<StoredDocument, StorageFailure>,
    ) {
        if !matches!(self.state, State::Loading(awaited) if awaited == ticket) {
            return;
        }
        let stored = match stored {
            Ok(stored) => stored,
            Err(failure) => return self.fail(core, &failure),
        };
        core.count(Counted::DocumentLoaded);
        for _ in &stored.corrupt {
            core.count(Counted::CorruptRow);
        }
        self.damaged = !stored.corrupt.is_empty();
        self.meta = stored.meta.and_then(|bytes| record::decode(&bytes).ok()).unwrap_or_default();
        let mut roots = Vec::new();
        for (id, bytes) in stored.roots {
            if let Ok(root) = record::decode::<IndexRoot>(&bytes) {
                roots.push((id, root));
            } else {
                self.damaged = true;
                core.count(Counted::CorruptRow);
            }
        }
        roots.sort_by_key(|(id, root)| (root.changes, *id));
        let graph = roots.pop().map_or_else(Graph::default, |(id, root)| {
            // A crash came between writing this snapshot and deleting what it covers.
            for (old, old_root) in &roots {
                if root.covers.contains(old) {
                    mark!(TwoSnapshotsAtStart);
                    self.writes.extend(delete_snapshot(*old, old_root));
                }
            }
            Graph::with_snapshot(id, root)
        });
        let mut changes = VecDeque::with_capacity(stored.changes.len());
        for (hash, bytes) in stored.changes {
            match guard::check_change(&bytes, &core.config.limits) {
                Ok(header) if header.hash == hash => changes.push_back((header, bytes)),
                _ => {
                    self.damaged = true;
                    core.count(Counted::CorruptRow);
                }
            }
        }
        // The sequence number of a change is above those of its dependencies by the same actor,
        // and its operations come after all of theirs: nearly the causal order already.
        changes
            .make_contiguous()
            .sort_by_key(|(header, _)| (header.start_op, header.seq, header.hash));
        if mutant!(IgnoreStoredChange) {
            changes.pop_back();
        }
        self.state = State::Sorting(graph, changes);
        self.drive(core);
    }

    /// Puts what was read into the graph, in causal order.
    pub(super) fn sort(&mut self, core: &mut Core) -> Result<bool, Missing> {
        let State::Sorting(graph, changes) = &mut self.state else {
            return Ok(false);
        };
        let mut left = changes.len();
        while left > 0 {
            let Some((header, _)) = changes.front() else {
                break;
            };
            let covered = header.seq <= graph.actor(&header.actor).map_or(0, |(_, seq)| seq)
                && graph.node_by_hash(&header.hash).is_none()
                && graph.position(&header.hash)?.is_some();
            let mut deps = Vec::with_capacity(header.deps.len());
            for dep in &header.deps {
                deps.extend(graph.position(dep)?);
            }
            let complete = deps.len() == header.deps.len();
            let Some((header, bytes)) = changes.pop_front() else {
                break;
            };
            left -= 1;
            if covered {
                mark!(CoveredRowsAtStart);
                self.writes.push(RowWrite::Delete(change_row(&header.hash)));
            } else if complete {
                graph.insert(header, deps, bytes, true, None);
                left = changes.len();
            } else {
                changes.push_back((header, bytes));
            }
        }
        let orphaned = std::mem::take(changes);
        let State::Sorting(mut graph, _) = std::mem::replace(&mut self.state, State::Absent) else {
            return Ok(false);
        };
        for hash in &self.meta.withheld {
            graph.withhold(&ChangeHash(*hash));
        }
        self.state = State::Ready(graph);
        // What is left lost a dependency to a damaged row: it waits for somebody to bring it.
        for (header, bytes) in orphaned {
            mark!(OrphansAtStart);
            let missing = match &self.state {
                State::Ready(graph) => missing_deps(graph, &header).unwrap_or_default(),
                _ => Vec::new(),
            };
            self.wait_for_deps(core, header, bytes, None, missing);
        }
        if self.damaged {
            self.start_over(core);
        }
        Ok(true)
    }

    /// Has those who were told of heads that are gone begin again: what they think is here would
    /// otherwise be asked for a change at a time, the last first.
    fn start_over(&mut self, core: &mut Core) {
        let durable = self.durable();
        for (connection, reader) in &self.readers {
            if reader.has_been_told() && !reader.was_named(&durable) {
                mark!(BeganAgain);
                let reason = "stored bytes of a document were found damaged; send them again";
                core.close(*connection, CloseCode::StorageFailed, reason);
            }
        }
    }
}
