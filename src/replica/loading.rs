//! How a document comes into memory: its rows, the order of its changes, and the index pages that
//! are asked for on the way.

use std::collections::VecDeque;

use bytes::Bytes;
use concord_protocol::{ChangeHash, CloseCode, guard};

use super::{
    ConnectionId, Counted, Effect, Kind, Published, RowKey, RowWrite, StorageFailure,
    StoredDocument, Ticket,
    admission::missing_deps,
    core::{Core, Wake},
    document::{Document, Inbound, PagesRead, State, change_row},
    index::Missing,
    jobs::RETRY_MS,
    meta::Meta,
    salvage::Roots,
};

/// Failed reads, one after another, after which programs in this process are told. Peers wait on:
/// they lack nothing that they had.
const PATIENCE: u32 = 3;

/// How reading from storage goes.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Failures since something was read.
    failures: u32,
    /// Nothing is read before this.
    not_before_ms: u64,
}

impl Document {
    /// Makes sure that the document is in memory or on its way.
    pub(super) fn ensure_loading(&mut self, core: &mut Core) {
        if matches!(self.state, State::Absent) && self.may_read(core) {
            self.used(core);
            let ticket = core.ticket(&self.id);
            self.state = State::Loading(ticket);
            core.effect(Effect::Load(ticket, self.id.clone()));
        }
    }

    /// Whether reading did not fail just now. Whoever may not read is woken when it may.
    pub(super) fn may_read(&self, core: &Core) -> bool {
        core.now.mono_ms >= self.reading.not_before_ms
    }

    /// Reading failed, and may go well later: it is tried again.
    pub(super) fn read_failed(&mut self, core: &mut Core, failure: &StorageFailure) {
        self.reading.failures += 1;
        self.reading.not_before_ms = core.now.mono_ms + RETRY_MS;
        core.wake_at(self.reading.not_before_ms, &self.id, Wake::Check);
        if self.reading.failures < PATIENCE {
            return;
        }
        self.fail_locals(core, failure);
        let is_opening = |inbound: &Inbound| matches!(inbound, Inbound::Open);
        if self.opening || self.inbox.iter().any(is_opening) {
            let told = Published::Unreadable(failure.to_string());
            core.effect(Effect::Publish(self.id.clone(), told));
        }
    }

    /// Tries again what failed.
    pub(super) fn try_again(&mut self, core: &mut Core) {
        if !self.may_read(core) {
            return;
        }
        if let Some(read) = self.pages.take_if(|read| read.ticket.is_none()) {
            self.read_parts(core, read.snapshot, read.parts);
        }
        self.publish_opened(core);
        self.rebuild(core);
    }

    pub(super) fn read_pages(&mut self, core: &mut Core, missing: Missing) {
        let snapshot = match &self.state {
            State::Ready(graph) | State::Sorting(graph, _) => graph.snapshot.as_ref(),
            _ => None,
        };
        let Some(snapshot) = snapshot.map(|snapshot| snapshot.id) else { return };
        mark!(PagesToSort, if matches!(self.state, State::Sorting(..)));
        let parts: Vec<u32> = missing.0.into_iter().collect();
        if self.may_read(core) {
            self.read_parts(core, snapshot, parts);
        } else {
            self.pages = Some(PagesRead { ticket: None, snapshot, parts });
        }
    }

    fn read_parts(&mut self, core: &mut Core, snapshot: [u8; 32], parts: Vec<u32>) {
        let row = |&part| RowKey { kind: Kind::IndexPage, id: snapshot, part };
        let rows = parts.iter().map(row).collect();
        let ticket = core.ticket(&self.id);
        self.pages = Some(PagesRead { ticket: Some(ticket), snapshot, parts });
        core.effect(Effect::Read(ticket, self.id.clone(), rows));
    }

    /// Index pages came.
    pub(super) fn pages_read(
        &mut self,
        core: &mut Core,
        read: PagesRead,
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
            Err(StorageFailure::Damaged(_)) => return self.index_damaged(core, read.snapshot),
            Err(failure @ StorageFailure::Passing(_)) => {
                self.pages = Some(PagesRead { ticket: None, ..read });
                return self.read_failed(core, &failure);
            }
        };
        self.reading = Reading::default();
        for (part, row) in read.parts.iter().zip(rows) {
            let inserted = row.map(|bytes| snapshot.index.insert_page(*part, &bytes));
            if !matches!(inserted, Some(Ok(()))) {
                return self.index_damaged(core, read.snapshot);
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
            Err(failure) => {
                self.state = State::Absent;
                return self.read_failed(core, &failure);
            }
        };
        self.reading = Reading::default();
        core.count(Counted::DocumentLoaded);
        for _ in &stored.corrupt {
            core.count(Counted::CorruptRow);
        }
        let corrupt = |kind| stored.corrupt.iter().filter(move |row| row.kind == kind);
        // What was found out and not written yet counts too.
        let given_up = std::mem::take(&mut self.meta.damaged);
        self.meta = stored.meta.and_then(|bytes| Meta::read(&bytes)).unwrap_or_default();
        for snapshot in given_up {
            if !self.meta.damaged.contains(&snapshot) {
                self.meta.damaged.push(snapshot);
            }
        }
        if self.is_purged() {
            return self.load_purged(core);
        }
        if corrupt(Kind::Meta).next().is_some() {
            self.write_meta();
        }
        self.damaged = !stored.corrupt.is_empty() || !self.meta.damaged.is_empty();
        self.salvage.changes = corrupt(Kind::Change).map(|row| ChangeHash(row.id)).collect();
        let roots = Roots::new(stored.roots, &stored.corrupt, &self.meta);
        let Some(graph) = self.choose_snapshot(core, roots) else {
            return;
        };
        let mut changes = VecDeque::with_capacity(stored.changes.len());
        for (hash, bytes) in stored.changes {
            match guard::check_change(&bytes, &core.config.limits) {
                Ok(header) if header.hash == hash => changes.push_back((header, bytes)),
                _ => {
                    self.damaged = true;
                    self.salvage.changes.push(hash);
                    core.count(Counted::CorruptRow);
                }
            }
        }
        // The sequence number of a change is above those of its dependencies by the same actor,
        // and its operations come after all of theirs: nearly the causal order already.
        changes
            .make_contiguous()
            .sort_by_cached_key(|(header, _)| (header.start_op, header.seq, header.hash));
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
                let sender = self.unchecked.remove(&header.hash);
                graph.insert(header, deps, bytes, true, sender);
                left = changes.len();
            } else {
                changes.push_back((header, bytes));
            }
        }
        let gone = if self.damaged { self.told_too_much()? } else { Vec::new() };
        self.clear_away()?;
        let State::Sorting(mut graph, orphaned) = std::mem::replace(&mut self.state, State::Absent)
        else {
            return Ok(false);
        };
        for hash in &self.meta.withheld {
            #[cfg_attr(
                not(feature = "simulation"),
                allow(unused_variables, reason = "for the mark")
            )]
            let withheld = graph.withhold(&ChangeHash(*hash));
            mark!(WithheldAtStart, if !withheld.is_empty());
        }
        self.unchecked.clear();
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
            self.start_over(core, gone);
        }
        self.tell_damage(core);
        self.publish_opened(core);
        self.start_upload(core);
        Ok(true)
    }

    /// Who was told of changes that are not here.
    fn told_too_much(&self) -> Result<Vec<ConnectionId>, Missing> {
        let State::Sorting(graph, _) = &self.state else {
            return Ok(Vec::new());
        };
        let mut gone = Vec::new();
        for (connection, reader) in &self.readers {
            for head in reader.named() {
                if graph.position(head)?.is_none() {
                    gone.push(*connection);
                    break;
                }
            }
        }
        Ok(gone)
    }

    /// Has those who were told of heads that are gone begin again: what they think is here would
    /// otherwise be asked for a change at a time, the last first.
    fn start_over(&mut self, core: &mut Core, gone: Vec<ConnectionId>) {
        for connection in gone {
            mark!(BeganAgain);
            let reason = "stored bytes of a document were found damaged; send them again";
            core.close(connection, CloseCode::StorageFailed, reason);
        }
        self.durable_changed(core);
    }
}
