//! The writers of a document by position, each with its last sequence number.

use std::collections::BTreeMap;

use concord_protocol::ActorId;

/// Up to this many writers are looked through one by one: most documents have one or two, and a
/// tree takes room for eleven.
const FEW: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Writers {
    list: Vec<(ActorId, u32)>,
    /// Positions by name, where there are more than [`FEW`].
    by_id: BTreeMap<ActorId, u32>,
}

impl Writers {
    /// Where a writer is, and the number of its last change.
    pub(super) fn find(&self, actor: &ActorId) -> Option<(u32, u32)> {
        let position = if self.list.len() <= FEW {
            let at = self.list.iter().position(|(id, _)| id == actor)?;
            u32::try_from(at).ok()?
        } else {
            *self.by_id.get(actor)?
        };
        Some((position, self.list.get(position as usize)?.1))
    }

    /// The writer at a position.
    pub(super) fn id(&self, position: u32) -> Option<&ActorId> {
        self.list.get(position as usize).map(|(id, _)| id)
    }

    /// Takes note of a change of a writer, perhaps its first; gives the writer's position.
    pub(super) fn wrote(&mut self, actor: &ActorId, seq: u32) -> u32 {
        if let Some((position, last)) = self.find(actor) {
            if let Some(entry) = self.list.get_mut(position as usize) {
                entry.1 = last.max(seq);
            }
            return position;
        }
        // Fewer writers than changes, and positions are checked to stay below 2^31.
        let position = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        if self.list.is_empty() {
            self.list.reserve_exact(1);
        }
        self.list.push((actor.clone(), seq));
        if self.list.len() > FEW {
            let known = if self.by_id.is_empty() { 0 } else { position };
            let new = (known..).zip(self.list.iter().skip(known as usize));
            self.by_id.extend(new.map(|(at, (id, _))| (id.clone(), at)));
        }
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_keeps_its_place_and_its_last_number_few_or_many() {
        let actor = |n: u32| ActorId::from(n.to_be_bytes().as_slice());
        let mut writers = Writers::default();
        for count in 0..40 {
            assert_eq!(writers.find(&actor(count)), None);
            assert_eq!(writers.wrote(&actor(count), 1), count);
            for known in 0..=count {
                assert_eq!(writers.wrote(&actor(known), count + 1), known);
                assert_eq!(writers.wrote(&actor(known), 1), known);
                assert_eq!(writers.find(&actor(known)), Some((known, count + 1)));
                assert_eq!(writers.id(known), Some(&actor(known)));
            }
        }
    }
}
