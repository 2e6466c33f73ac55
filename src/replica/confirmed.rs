//! Whether a relay that we dialled has all that is here: told to the program in this process of
//! every document, whether or not it has it open.
//!
//! It is found out when all that was taken in together has been dealt with, so that what is told
//! holds of every change that was taken in before.

use concord_protocol::ChangeHash;

use super::{
    ConnectionId, Effect, Published, core::Core, document::Document, graph::Graph, reader::Reader,
};

impl Document {
    /// Tells it, once.
    pub(super) fn tell_confirmed(&mut self, core: &mut Core) {
        if self.unconfirmed && self.is_confirmed(core) {
            self.unconfirmed = false;
            core.effect(Effect::Publish(self.id.clone(), Published::Confirmed));
        }
    }

    /// Whether a connection named what is not here.
    pub(super) fn awaits(&self, connection: ConnectionId) -> bool {
        let theirs = self.readers.get(&connection).and_then(|reader| reader.their_heads.as_ref());
        let (Some(theirs), Some(graph)) = (theirs, self.graph()) else { return false };
        let is_ours = |head: &ChangeHash| graph.heads().iter().any(|ours| ours == head);
        !theirs.iter().all(is_ours)
    }

    fn is_confirmed(&self, core: &Core) -> bool {
        let Some(graph) = self.graph() else { return false };
        let is_all_written = graph.heads() == graph.durable_heads() && self.inbox.is_empty();
        // Of an edit that never came to the disk there is nothing that a relay could lack.
        let is_nothing = graph.is_empty() && !self.damaged;
        is_all_written
            && self.readers.iter().any(|(connection, reader)| {
                let state = core.connections.get(connection);
                let has_all = is_nothing || !graph.is_empty() && reader.has_heads_of(graph);
                state.is_some_and(|state| state.info.dialled) && has_all
            })
    }
}

impl Reader {
    /// Whether every head of ours is one of theirs. Where they have more than that, we are about to
    /// get it.
    fn has_heads_of(&self, graph: &Graph) -> bool {
        let Some(theirs) = &self.their_heads else { return false };
        graph.durable_heads().iter().all(|ours| theirs.iter().any(|head| head == ours))
    }
}
