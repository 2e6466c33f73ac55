//! The readers of a document, by connection. A sorted list: most documents have one or two, for
//! which a tree takes room for eleven. Connections come in their order, so they are added at the
//! end.

use std::slice;

use super::{ConnectionId, reader::Reader};

type Entry = (ConnectionId, Box<Reader>);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Readers(Vec<Entry>);

#[expect(clippy::trivially_copy_pass_by_ref, reason = "keys are given as to a map")]
impl Readers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains_key(&self, connection: &ConnectionId) -> bool {
        self.place(connection).is_ok()
    }

    pub(super) fn get(&self, connection: &ConnectionId) -> Option<&Reader> {
        let place = self.place(connection).ok()?;
        self.0.get(place).map(|(_, reader)| &**reader)
    }

    pub(super) fn get_mut(&mut self, connection: &ConnectionId) -> Option<&mut Reader> {
        let place = self.place(connection).ok()?;
        self.0.get_mut(place).map(|(_, reader)| &mut **reader)
    }

    /// Adds a reader that has said nothing yet, unless it is there.
    pub(super) fn add(&mut self, connection: ConnectionId) {
        if let Err(place) = self.place(&connection) {
            if self.0.len() == self.0.capacity() {
                // Half as many again: a list of two is not a list of four.
                self.0.reserve_exact(1 + self.0.len() / 2);
            }
            self.0.insert(place, (connection, Box::default()));
        }
    }

    pub(super) fn remove(&mut self, connection: &ConnectionId) {
        if let Ok(place) = self.place(connection) {
            self.0.remove(place);
        }
    }

    pub(super) fn iter(&self) -> Iter<'_> {
        self.0.iter().map(|(connection, reader)| (connection, &**reader))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ConnectionId> {
        self.0.iter().map(|(connection, _)| connection)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Reader> {
        self.0.iter().map(|(_, reader)| &**reader)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Reader> {
        self.0.iter_mut().map(|(_, reader)| &mut **reader)
    }

    fn place(&self, connection: &ConnectionId) -> Result<usize, usize> {
        self.0.binary_search_by_key(connection, |(connection, _)| *connection)
    }
}

type Iter<'a> = std::iter::Map<slice::Iter<'a, Entry>, fn(&Entry) -> (&ConnectionId, &Reader)>;
type IterMut<'a> =
    std::iter::Map<slice::IterMut<'a, Entry>, fn(&mut Entry) -> (&ConnectionId, &mut Reader)>;

impl<'a> IntoIterator for &'a Readers {
    type Item = (&'a ConnectionId, &'a Reader);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Readers {
    type Item = (&'a ConnectionId, &'a mut Reader);
    type IntoIter = IterMut<'a>;

    fn into_iter(self) -> IterMut<'a> {
        self.0.iter_mut().map(|(connection, reader)| (&*connection, &mut **reader))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_is_there_once_and_in_order() {
        fn holds(steps: Vec<(u8, bool)>) -> bool {
            let (mut readers, mut model) = (Readers::default(), BTreeSet::new());
            steps.into_iter().all(|(number, adds)| {
                let connection = ConnectionId(u64::from(number % 16));
                if adds {
                    readers.add(connection);
                    model.insert(connection);
                } else {
                    readers.remove(&connection);
                    model.remove(&connection);
                }
                readers.keys().eq(&model)
                    && readers.iter().map(|(connection, _)| connection).eq(&model)
                    && readers.is_empty() == model.is_empty()
                    && readers.contains_key(&connection) == adds
                    && readers.get(&connection).is_some() == adds
                    && readers.get_mut(&connection).is_some() == adds
            })
        }
        quickcheck::quickcheck(holds as fn(Vec<(u8, bool)>) -> bool);
    }
}
