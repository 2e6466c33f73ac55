//! What becomes of a stranger's changes: each is taken, waits for what it builds on, or is
//! refused by name; or its connection ends. None is dropped in silence.

use std::collections::BTreeMap;

use concord_protocol::{ChangeHash, Message};

use crate::opaque::Hashes;

/// Changes of strangers that a relay has said nothing of, by relay.
#[derive(Debug, Default)]
pub(crate) struct Answers(BTreeMap<usize, Owed>);

#[derive(Debug, Default)]
struct Owed {
    /// Which run of the relay.
    life: u32,
    changes: Hashes,
}

impl Answers {
    /// A stranger sent a change to this run of a relay.
    pub(crate) fn sent(&mut self, relay: usize, life: u32, change: ChangeHash) {
        let owed = self.0.entry(relay).or_default();
        if owed.life != life {
            *owed = Owed { life, ..Owed::default() };
        }
        owed.changes.insert(change);
    }

    /// The relay said something to a stranger.
    pub(crate) fn told(&mut self, relay: usize, message: &Message) {
        let Some(owed) = self.0.get_mut(&relay) else { return };
        match message {
            Message::Ack { ack, .. } => {
                for hash in ack.refused.iter().filter_map(|refused| refused.hash) {
                    owed.changes.remove(&hash);
                }
            }
            // To those who speak version 1 only, a refusal is a sentence that names the change.
            Message::Error { message, .. } => {
                for hash in message.split([' ', ':']).filter_map(hash_of) {
                    owed.changes.remove(&hash);
                }
            }
            _ => {}
        }
    }

    /// The connection ended: whoever sent them would send them again.
    pub(crate) fn gone(&mut self, relay: usize) {
        self.0.remove(&relay);
    }

    /// Changes that this run of a relay has said nothing of.
    pub(crate) fn owed(&self, relay: usize, life: u32) -> impl Iterator<Item = &ChangeHash> {
        let owed = self.0.get(&relay).filter(|owed| owed.life == life);
        owed.into_iter().flat_map(|owed| owed.changes.iter())
    }
}

/// The hash that a word is.
pub(crate) fn hash_of(word: &str) -> Option<ChangeHash> {
    let mut hash = [0; 32];
    if word.len() != 2 * hash.len() || !word.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(word.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(ChangeHash(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: String) -> Message {
        let (sender, target) = ("relay".parse().unwrap(), "stranger".parse().unwrap());
        Message::Error { sender, target, message: text }
    }

    #[test]
    fn what_is_refused_by_name_is_owed_no_longer() {
        let (one, two, three) = (ChangeHash([1; 32]), ChangeHash([2; 32]), ChangeHash([3; 32]));
        let mut answers = Answers::default();
        for hash in [one, two, three] {
            answers.sent(0, 1, hash);
        }
        answers.told(0, &error(format!("automerge:x: {two} was refused (quota): it builds on")));
        answers.told(1, &error(format!("automerge:x: {one} was refused (quota): it builds on")));
        let mut owed: Vec<_> = answers.owed(0, 1).copied().collect();
        owed.sort_unstable();
        assert_eq!(owed, [one, three]);
        assert_eq!(answers.owed(0, 2).count(), 0);
        answers.sent(0, 2, two);
        assert_eq!(answers.owed(0, 2).count(), 1);
        answers.gone(0);
        assert_eq!(answers.owed(0, 2).count(), 0);
    }
}
