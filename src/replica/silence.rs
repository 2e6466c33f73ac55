//! What is done when a server that we dialled does not say that it has what we have.
//!
//! automerge's own speaker has nothing to say to one whose heads are its own, and automerge-repo
//! keeps its state over a cut connection. Where its last word was lost on the way, or was not
//! said before we said the same, both sides are at rest, and nobody here ever hears that what was
//! written has arrived. So a server that is quiet is asked after a while, in a form that all
//! versions answer: one that says less than it knows of us. Relays with `concord.v1` say it by
//! themselves, but for one whose word was forgotten here when the document was replaced.

use concord_protocol::{ChangeHash, sync::SyncMessage};

use super::{
    ConnectionId,
    core::{Core, Wake},
    document::Document,
    graph::Graph,
    heads::Heads,
    index::Missing,
    reader::Reader,
};

/// Milliseconds of rest after which a server is asked; twice that the next time, and so on.
const ASK_MS: u64 = 1_000;

/// Times that a server is asked about the same. Connections are reliable: who does not answer
/// then does not want to, or has something else than we have for good.
const ASK_MAX: u8 = 6;

/// What is on disk here, and a server has not said that it has.
#[derive(Debug)]
pub(super) struct Unsaid {
    heads: Heads,
    /// When it is asked.
    at_ms: u64,
}

impl Document {
    /// Looks again after a while, if a server has not said that it has what is on disk here.
    pub(super) fn await_word(&mut self, core: &mut Core) {
        let Some(ours) = self.graph().map(|graph| graph.durable_heads().clone()) else { return };
        let owing = self.owing(core, &ours);
        let Some(asked) = owing.map(|(_, reader)| reader.insisted).min() else { return };
        let at_ms = core.now.mono_ms + (ASK_MS << asked);
        // Somebody else may be asked already, and be given longer.
        if self.unsaid.as_ref().is_none_or(|unsaid| at_ms < unsaid.at_ms) {
            core.wake_at(at_ms, &self.id, Wake::Silence);
            self.unsaid = Some(Unsaid { heads: ours, at_ms });
        }
    }

    /// Asks the servers that have not said it, if nothing has changed here meanwhile.
    pub(super) fn break_silence(&mut self, core: &Core) {
        let is_due = |unsaid: &mut Unsaid| unsaid.at_ms <= core.now.mono_ms;
        let Some(before) = self.unsaid.take_if(is_due) else { return };
        let Some(ours) = self.graph().map(|graph| graph.durable_heads().clone()) else { return };
        if before.heads != ours {
            return;
        }
        let owing: Vec<ConnectionId> = self.owing(core, &ours).map(|(owing, _)| *owing).collect();
        for connection in owing {
            if let Some(reader) = self.readers.get_mut(&connection) {
                if reader.is_forgotten {
                    // It takes us to have what it had from us, and has to begin again.
                    reader.forget_sent();
                }
                reader.insists = true;
                reader.dirty = true;
            }
        }
    }

    fn owing<'a>(
        &'a self,
        core: &'a Core,
        ours: &'a Heads,
    ) -> impl Iterator<Item = (&'a ConnectionId, &'a Reader)> {
        let owes = |(connection, reader): &(&ConnectionId, &Reader)| {
            reader.owes_word(ours, self.opened)
                && core.connections.get(connection).is_some_and(|state| {
                    let may_be_silent = !state.info.concord || reader.is_forgotten;
                    state.info.dialled && may_be_silent && !state.closing
                })
        };
        self.readers.iter().filter(owes)
    }
}

impl Reader {
    /// Whether it was told something and has not said that it has just what we have. Who has said
    /// nothing at all has nothing for us: then its word matters only to a program that waits.
    fn owes_word(&self, ours: &Heads, opened: bool) -> bool {
        let unsaid = self.their_heads.as_ref().map_or(opened, |theirs| theirs != ours);
        unsaid
            && self.has_been_told()
            && !ours.is_empty()
            && !self.uploading
            && self.insisted < ASK_MAX
    }
}

/// Makes of a message one that is answered by whoever has what we have.
pub(super) fn insist(graph: &Graph, message: &mut SyncMessage) -> Result<(), Missing> {
    let fewer = fewer(graph, &message.heads)?;
    if !fewer.is_empty() {
        message.heads = fewer;
    } else if message.need.is_empty() {
        // The very first change, which is small. To have nothing would be answered with more.
        message.need.clone_from(&message.heads);
    }
    Ok(())
}

/// Heads that say less than these.
fn fewer(graph: &Graph, heads: &[ChangeHash]) -> Result<Vec<ChangeHash>, Missing> {
    match heads {
        [] => Ok(Vec::new()),
        [only] => {
            let Some(position) = graph.position(only)? else { return Ok(Vec::new()) };
            let deps = graph.deps_at(position)?.iter();
            let mut hashes = deps.map(|dep| graph.hash_at(*dep)).collect::<Result<Vec<_>, _>>()?;
            hashes.sort_unstable();
            Ok(hashes)
        }
        [fewer @ .., _] => Ok(fewer.to_vec()),
    }
}
