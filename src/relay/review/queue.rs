//! Which documents are to be looked at, and when: soon after a change, and not all the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use concord_protocol::DocumentId;

/// From a change to the look at it: what is written together is looked at together.
pub(super) const DELAY: Duration = Duration::from_millis(200);
/// A document rests so many times as long as looking at it took.
const REST: u32 = 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    due: BTreeMap<DocumentId, Instant>,
    order: BTreeSet<(Instant, DocumentId)>,
    resting: BTreeMap<DocumentId, Instant>,
    /// One is being looked at.
    is_looking: bool,
}

impl Queue {
    /// A document was changed.
    pub(super) fn changed(&mut self, document: &DocumentId, now: Instant) {
        let rested = self.resting.get(document).copied();
        self.add(document, rested.map_or(now + DELAY, |rested| rested.max(now + DELAY)));
    }

    /// A document is to be looked at then, whether it was changed or not.
    pub(super) fn unknown(&mut self, document: &DocumentId, at: Instant) {
        self.add(document, at);
    }

    fn add(&mut self, document: &DocumentId, at: Instant) {
        if !self.due.contains_key(document) {
            self.due.insert(document.clone(), at);
            self.order.insert((at, document.clone()));
        }
    }

    /// The next document, if one is due; else when the next will be.
    pub(super) fn next(&mut self, now: Instant) -> Result<DocumentId, Option<Instant>> {
        self.resting.retain(|_, rested| *rested > now);
        match self.order.first() {
            Some((at, _)) if *at <= now => {}
            Some((at, _)) => return Err(Some(*at)),
            None => return Err(None),
        }
        let (_, document) = self.order.pop_first().ok_or(None)?;
        self.due.remove(&document);
        self.is_looking = true;
        Ok(document)
    }

    /// A document was looked at, which took so long.
    pub(super) fn looked_at(&mut self, document: &DocumentId, took: Duration, now: Instant) {
        self.is_looking = false;
        if took * REST > DELAY {
            self.resting.insert(document.clone(), now + took * REST);
        }
    }

    /// When the next document is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// How many documents wait, or are being looked at.
    pub(super) fn len(&self) -> usize {
        self.due.len() + usize::from(self.is_looking)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_takes_long_is_looked_at_seldom() {
        let document = |n| DocumentId::from_bytes(&[n; 16]);
        let (mut queue, start) = (Queue::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        queue.changed(&document(1), start);
        queue.changed(&document(1), at(150));
        queue.changed(&document(2), at(10));
        assert_eq!(queue.next(at(199)), Err(Some(at(200))));
        assert_eq!(queue.next(at(200)), Ok(document(1)));
        queue.looked_at(&document(1), Duration::from_millis(100), at(300));
        queue.changed(&document(1), at(310));
        assert_eq!(queue.next(at(400)), Ok(document(2)));
        queue.looked_at(&document(2), Duration::from_millis(1), at(401));
        queue.changed(&document(2), at(402));
        assert_eq!(queue.next(at(602)), Ok(document(2)));
        assert_eq!(queue.next(at(602)), Err(Some(at(2_300))));
        assert_eq!(queue.len(), 2, "one waits, and one is being looked at");
        queue.looked_at(&document(2), Duration::from_millis(1), at(603));
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.next(at(2_300)), Ok(document(1)));
        assert_eq!(queue.next(at(2_300)), Err(None));
    }
}
