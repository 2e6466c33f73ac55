//! Who is connected: one live connection a peer id. No I/O.

use std::collections::HashMap;

use concord_protocol::PeerId;

use crate::replica::ConnectionId;

/// Peer ids and their connections; `H` is what it takes to end one.
#[derive(Debug)]
pub(super) struct Directory<H> {
    peers: HashMap<PeerId, (ConnectionId, H)>,
}

impl<H> Default for Directory<H> {
    fn default() -> Self {
        Self { peers: HashMap::new() }
    }
}

impl<H> Directory<H> {
    /// Enters a connection, and gives back the one whose place it takes: a client that lost its
    /// network comes again with the same peer id long before the old socket is known to be dead.
    /// The caller ends that one, and waits for its end before the new one is told to anybody.
    pub(super) fn join(&mut self, peer: PeerId, connection: ConnectionId, handle: H) -> Option<H> {
        let before = self.peers.insert(peer, (connection, handle));
        before.map(|(_, handle)| handle)
    }

    /// Takes a connection out, unless another has taken its place.
    pub(super) fn leave(&mut self, peer: &PeerId, connection: ConnectionId) {
        if self.peers.get(peer).is_some_and(|(there, _)| *there == connection) {
            self.peers.remove(peer);
        }
    }

    /// All of them, in any order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &H)> {
        self.peers.iter().map(|(peer, (_, handle))| (peer, handle))
    }

    /// How many are in it.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> PeerId {
        name.parse().unwrap()
    }

    #[test]
    fn the_newest_connection_takes_the_place() {
        let mut directory = Directory::default();
        assert_eq!(directory.join(peer("ann"), ConnectionId(1), "first"), None);
        assert_eq!(directory.join(peer("bob"), ConnectionId(2), "bob's"), None);
        assert_eq!(directory.join(peer("ann"), ConnectionId(3), "second"), Some("first"));
        assert_eq!(directory.len(), 2);
    }

    #[test]
    fn who_was_replaced_does_not_take_the_new_one_along() {
        let mut directory = Directory::default();
        directory.join(peer("ann"), ConnectionId(1), ());
        directory.join(peer("ann"), ConnectionId(2), ());
        directory.leave(&peer("ann"), ConnectionId(1));
        assert_eq!(directory.len(), 1);
        directory.leave(&peer("ann"), ConnectionId(2));
        directory.leave(&peer("nobody"), ConnectionId(9));
        assert_eq!(directory.len(), 0);
    }
}
