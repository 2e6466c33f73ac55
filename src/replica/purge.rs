//! Documents of which nothing is left but a record that they were deleted and purged.
//!
//! A document is purged only as it was seen, and only while nothing in it waits: what is purged
//! was on disk, and somebody looked at it. The record goes to disk before the rows go, so that a
//! crash in between leaves it; the rest goes when the document is read next.
//!
//! After that it is served to nobody: who asks is told that there is none. Who offers what is
//! known to have been there is told that it is on disk, for there is nothing of it to lose. What
//! was there is known by the heads that the record names and by nothing else, for the history is
//! gone: whoever offers anything else is refused, be it older or newer, and keeps it. Clients
//! without `concord.v1` cannot be refused anything; theirs stays with them, too.
//!
//! The name is not used again. Whoever begins the document anew cannot be told from somebody who
//! was away and still has the old one: what both wrote would run together.

use std::collections::BTreeSet;

use concord_protocol::{Ack, ChangeHash, Message, RefuseCode, guard::ChangeHeader};

use super::{
    ConnectionId, Counted, Effect, Leaving, LocalError, RowWrite, Ticket,
    core::{Core, refused},
    document::{Document, Inbound, State, meta_row},
    graph::Graph,
    index::Missing,
    meta::{Meta, Purged},
    reader::Reader,
    readers::Readers,
};

/// Changes that are refused in one message; who has more of them learns enough from these.
const REFUSED_AT_ONCE: usize = 64;

/// What those who are refused are told.
const REASON: &str = "the document was deleted long ago and nothing of it is kept here; its name is \
                      not used again. What you have stays with you: to go on, make a new document \
                      of it";

impl Document {
    /// Leaves nothing of the document, or a record, if it is what was seen.
    pub(super) fn purge(
        &mut self,
        core: &mut Core,
        ticket: Ticket,
        heads: Vec<ChangeHash>,
        leaving: Leaving,
    ) -> Result<bool, Missing> {
        let why_not = match self.why_not_purged(&heads, leaving) {
            Ok(why_not) => why_not,
            Err(missing) => {
                self.put_back(Inbound::Purge(ticket, heads, leaving));
                return Err(missing);
            }
        };
        if let Some(reason) = why_not {
            let error = LocalError::NotPurged(reason.to_owned());
            core.effect(Effect::LocalDone(ticket, Err(error)));
            return Ok(true);
        }
        self.leave_memory();
        self.unchecked.clear();
        self.refused.clear();
        self.news.clear();
        self.unsaid = None;
        self.state = State::Ready(Graph::default());
        self.meta = Meta::default();
        match leaving {
            Leaving::Record => {
                core.count(Counted::Purged);
                let heads = heads.iter().map(|head| head.0).collect();
                let when_ms = core.now.wall_ms;
                self.meta.purged = Some(Purged { when_ms, heads, is_cleared: false });
                self.write_meta();
                self.clear_purged();
                self.readers.values_mut().for_each(|reader| *reader = Reader::default());
            }
            Leaving::Nothing => {
                self.writes.extend([RowWrite::Clear, RowWrite::Delete(meta_row())]);
                // What a relay says of it from now on is of a document that nobody here wants.
                for connection in std::mem::take(&mut self.readers).keys() {
                    if let Some(state) = core.connections.get_mut(connection) {
                        state.documents.remove(&self.id);
                        state.held_back.remove(&self.id);
                    }
                }
                self.readers = Readers::default();
            }
        }
        self.writing.locals.push(ticket);
        Ok(true)
    }

    /// Why the document is not to be purged now.
    fn why_not_purged(
        &self,
        heads: &[ChangeHash],
        leaving: Leaving,
    ) -> Result<Option<&'static str>, Missing> {
        let Some(graph) = self.graph() else { return Ok(Some("it is not there yet")) };
        let durable = graph.durable_heads();
        let seen: BTreeSet<&ChangeHash> = heads.iter().collect();
        let is_written = self.writes.is_empty() && self.written.is_empty();
        Ok(if seen != durable.iter().collect() || seen.is_empty() {
            Some("it is another than was seen")
        } else if graph.heads() != durable || !is_written {
            Some("more of it is being written")
        } else if !self.inbox.is_empty() || self.orphans.len() > 0 {
            Some("more of it is coming")
        } else if !self.meta.withheld.is_empty() {
            Some("some of it is withheld")
        } else if leaving == Leaving::Nothing {
            None
        } else if !self.jobs.is_idle() || self.salvage.is_at_work() {
            Some("it is being worked on")
        } else if self.damaged {
            Some("some of it is damaged")
        } else if self.somebody_has_more(graph)? {
            Some("somebody has more of it")
        } else {
            None
        })
    }

    /// Whether somebody who is connected said that they have what is not here, and may bring it.
    fn somebody_has_more(&self, graph: &Graph) -> Result<bool, Missing> {
        for reader in self.readers.values() {
            for head in reader.their_heads.iter().flat_map(|heads| heads.iter()) {
                let is_refused = self.refused.contains(head) || reader.has_failed_at(head);
                if !is_refused && graph.position(head)?.is_none() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Removes all rows, and notes when that is done.
    fn clear_purged(&mut self) {
        self.writes.push(RowWrite::Clear);
        if let Some(purged) = &mut self.meta.purged {
            purged.is_cleared = true;
        }
        self.write_meta();
    }

    /// The document that is being read was purged: there is nothing else to read.
    pub(super) fn load_purged(&mut self, core: &mut Core) {
        self.damaged = false;
        self.jobs.uploads.clear();
        self.unchecked.clear();
        self.readers.values_mut().for_each(|reader| reader.uploading = false);
        self.state = State::Ready(Graph::default());
        if self.meta.purged.as_ref().is_some_and(|purged| !purged.is_cleared) {
            self.clear_purged();
        }
        self.publish_opened(core);
        self.drive(core);
    }

    pub(super) fn is_purged(&self) -> bool {
        self.meta.purged.is_some()
    }

    /// Takes in what came for a document that was purged: nothing.
    pub(super) fn take_in_purged(&mut self, core: &mut Core, inbound: Inbound) {
        match inbound {
            Inbound::Open => {
                self.opened = true;
                self.opening = true;
                self.publish_opened(core);
            }
            Inbound::Said(connection, message) => {
                self.answer_purged(core, connection, &message.heads, false);
            }
            Inbound::Acked(connection, heads) => {
                self.answer_purged(core, connection, &heads, true);
            }
            Inbound::Changes { from, changes, .. } => {
                let Some(from) = from else { return };
                let headers = changes.iter().map(|(header, _)| header);
                let last = last_of(headers);
                self.refuse_purged(core, from, last);
            }
            Inbound::Local(ticket, ..) => {
                let (code, reason) = (RefuseCode::Deleted, REASON.to_owned());
                let error = LocalError::Refused { code, reason };
                core.effect(Effect::LocalDone(ticket, Err(error)));
            }
            Inbound::Purge(ticket, ..) => core.effect(Effect::LocalDone(ticket, Ok(()))),
        }
    }

    /// Somebody says that they have these heads, or nothing.
    fn answer_purged(
        &mut self,
        core: &mut Core,
        connection: ConnectionId,
        heads: &[ChangeHash],
        is_ack: bool,
    ) {
        let Some(state) = core.connections.get(&connection) else { return };
        let (concord, target) = (state.info.concord, state.info.peer.clone());
        let Some(reader) = self.readers.get_mut(&connection) else { return };
        let is_first = !std::mem::replace(&mut reader.told_purged, true);
        let asks = std::mem::take(&mut reader.asks) || heads.is_empty() && !is_ack;
        let (document, sender) = (self.id.clone(), core.config.us.clone());
        if asks || is_first && !concord {
            let message = Message::DocUnavailable { document, sender, target };
            return core.send_message(connection, &message);
        }
        if !concord || heads.is_empty() {
            return;
        }
        if heads.iter().all(|head| self.was_head(head)) {
            if !is_ack {
                let (applied, durable) = (heads.to_vec(), heads.to_vec());
                let ack = Ack { applied, durable, refused: Vec::new() };
                core.send_message(connection, &Message::Ack { document, sender, target, ack });
            }
            return;
        }
        self.refuse_purged(core, connection, heads.iter().copied());
    }

    /// Whether the document had this head when it was purged.
    fn was_head(&self, hash: &ChangeHash) -> bool {
        self.meta.purged.as_ref().is_some_and(|purged| purged.heads.contains(&hash.0))
    }

    /// Refuses what is not known to have been there, once in each connection.
    fn refuse_purged(
        &mut self,
        core: &mut Core,
        connection: ConnectionId,
        hashes: impl IntoIterator<Item = ChangeHash>,
    ) {
        let concord = core.connections.get(&connection).is_some_and(|state| state.info.concord);
        if !concord {
            return;
        }
        let Some(reader) = self.readers.get(&connection) else { return };
        let is_news = |hash: &ChangeHash| !self.was_head(hash) && !reader.has_failed_at(hash);
        let news: Vec<ChangeHash> =
            hashes.into_iter().filter(is_news).take(REFUSED_AT_ONCE).collect();
        if let Some(reader) = self.readers.get_mut(&connection) {
            reader.refuse(news.iter().copied());
        }
        let no = |hash| refused(Some(hash), RefuseCode::Deleted, REASON);
        core.refuse_all(connection, &self.id, news.into_iter().map(no).collect(), Vec::new());
    }
}

/// Those changes that no other of them builds on.
fn last_of<'a>(headers: impl Iterator<Item = &'a ChangeHeader> + Clone) -> BTreeSet<ChangeHash> {
    let mut last: BTreeSet<ChangeHash> = headers.clone().map(|header| header.hash).collect();
    for dep in headers.flat_map(|header| &header.deps) {
        last.remove(dep);
    }
    last
}
