//! Conflicts at the end of a world: all who hold a document find the same, each from its own
//! changes in an order of its own, and nothing that a user wrote is lost without one.

use std::collections::{BTreeMap, BinaryHeap};

use automerge::{Automerge, Change};
use concord::review::{Code, Conflict, Detector};
use concord_protocol::ChangeHash;

use super::{NodeId, World};
use crate::{
    checks::loss::{self, Decided},
    coverage::State,
    ledger::Invariant,
    opaque::Hashes,
    random::fate,
};

impl World<'_> {
    /// Checks the conflicts of a document that is the same everywhere; `held` says what each has.
    pub(super) fn check_disputes(
        &mut self,
        document: u8,
        doc: &Automerge,
        held: &[(NodeId, Hashes)],
    ) {
        let changes = doc.get_changes(&[]);
        let mut first: Option<(String, Vec<Conflict>)> = None;
        for (id, hashes) in held.iter().filter(|(_, hashes)| !hashes.is_empty()) {
            let who = self.nodes[*id].label();
            let open = match self.disputes(*id, document, hashes, &changes) {
                None => continue,
                Some(Ok(open)) => open,
                Some(Err(reason)) => {
                    let detail = format!("{who} finds no conflicts in {document}: {reason}");
                    return self.broken(Invariant::Convergence, detail);
                }
            };
            match &first {
                None => first = Some((who, open)),
                Some((other, theirs)) if *theirs != open => {
                    let detail = format!(
                        "{other} and {who} have the same changes of document {document} and find \
                         different conflicts:\n{theirs:?}\n{open:?}"
                    );
                    return self.broken(Invariant::Convergence, detail);
                }
                Some(_) => {}
            }
        }
        let Some((who, open)) = first else { return };
        if let Some(odd) = open.iter().find(|conflict| conflict.sides.len() < 2) {
            let detail = format!("{who} finds a conflict with less than two sides: {odd:?}");
            return self.broken(Invariant::Convergence, detail);
        }
        self.note_disputes(document, &open, &changes);
        let decisions = self.ledger.decisions.iter().filter(|one| one.document == document);
        let decided: Vec<Decided<'_>> = decisions
            .map(|one| Decided { change: automerge::ChangeHash(one.change.0), place: &one.place })
            .collect();
        let is_of_user =
            |hash: &automerge::ChangeHash| self.ledger.who(&ChangeHash(hash.0)).is_some();
        if let Some(lost) = loss::lost(doc, &changes, is_of_user, &open, &decided) {
            let detail = format!("document {document}: {lost}, and nobody was asked");
            return self.broken(Invariant::NoSilentLoss, detail);
        }
        self.check_entity(document, doc, &changes);
    }

    /// The conflicts that a node finds: a peer as it followed the document, a relay from what it
    /// has on disk. `None` of a peer that does not have it open.
    fn disputes(
        &mut self,
        id: NodeId,
        document: u8,
        hashes: &Hashes,
        changes: &[Change],
    ) -> Option<Result<Vec<Conflict>, String>> {
        let name = self.documents[usize::from(document)].clone();
        let stream = 0xD15 + id as u64;
        let process = self.nodes[id].process.as_mut()?;
        if let Some(peer) = process.brain.as_peer() {
            return peer.conflicts(&name).map(|open| open.map_err(|error| error.to_string()));
        }
        let theirs = changes.iter().filter(|change| hashes.contains(&ChangeHash(change.hash().0)));
        let mut detector = Detector::default();
        for change in in_some_order(theirs, self.plan.seed ^ stream) {
            if let Err(error) = detector.take_in(change) {
                return Some(Err(error.to_string()));
            }
        }
        Some(Ok(detector.open(&name)))
    }

    fn note_disputes(&mut self, document: u8, open: &[Conflict], changes: &[Change]) {
        for conflict in open {
            match conflict.code {
                Code::Value => self.met(State::ValuesDisputed),
                Code::EditDelete => self.met(State::EditOfDeleted),
                Code::Twin => self.met(State::TwinsMade),
                Code::Resolution => self.met(State::DecisionsDisputed),
                _ => {}
            }
        }
        let decisions = self.ledger.decisions.iter().filter(|one| one.document == document);
        let closed = decisions
            .filter(|one| open.iter().all(|conflict| conflict.id != one.conflict))
            .filter(|one| changes.iter().any(|change| change.hash().0 == one.change.0))
            .count();
        for _ in 0..closed {
            self.met(State::DecisionClosed);
        }
    }
}

/// The changes so that each comes after what it builds on, else as the seed has it.
pub(super) fn in_some_order<'c>(
    changes: impl Iterator<Item = &'c Change>,
    seed: u64,
) -> Vec<&'c Change> {
    let changes: Vec<&Change> = changes.collect();
    let numbers: BTreeMap<automerge::ChangeHash, usize> =
        changes.iter().enumerate().map(|(number, change)| (change.hash(), number)).collect();
    let mut waits_for = vec![0_usize; changes.len()];
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); changes.len()];
    for (number, change) in changes.iter().enumerate() {
        for dep in change.deps().iter().filter_map(|dep| numbers.get(dep)) {
            waits_for[number] += 1;
            waiting[*dep].push(number);
        }
    }
    let drawn = |number: usize| (fate(seed, 1, number as u64), number);
    let mut ready: BinaryHeap<(u64, usize)> =
        (0..changes.len()).filter(|number| waits_for[*number] == 0).map(drawn).collect();
    let mut order = Vec::with_capacity(changes.len());
    while let Some((_, number)) = ready.pop() {
        order.push(changes[number]);
        for next in &waiting[number] {
            waits_for[*next] -= 1;
            if waits_for[*next] == 0 {
                ready.push(drawn(*next));
            }
        }
    }
    order
}
