//! Entities at the end of a world: whoever knows the schema finds the same, in whatever order changes
//! came, policies decide alike, and nothing is lost without somebody being asked.

use std::collections::BTreeMap;

use automerge::{Automerge, Change};
use concord::review::{
    self, Code, Conflict, Detector, Facts, SlotKey,
    between::{Apart, Between},
    settle,
};
use concord_protocol::{ChangeHash, DocumentId};

use super::{World, disputes::in_some_order, entity::SCHEMA};
use crate::{
    checks::loss::{self, Decided},
    coverage::State,
    ledger::Invariant,
};

/// What is found of an entity under the schema.
struct Found {
    doc: Automerge,
    open: Vec<Conflict>,
    facts: Facts,
    /// What policies decided: the change, and where.
    decided: Vec<(automerge::ChangeHash, Conflict)>,
}

impl World<'_> {
    /// Checks a document that is the same everywhere, if it is an entity.
    pub(super) fn check_entity(&mut self, document: u8, doc: &Automerge, changes: &[Change]) {
        if SCHEMA.recognise(doc).is_none() {
            return;
        }
        let name = self.documents[usize::from(document)].clone();
        let seed = self.plan.seed ^ 0xE47 ^ u64::from(document);
        let found = found(&name, doc, changes, seed);
        let other = self::found(&name, doc, changes, seed ^ 1);
        let (found, other) = match (found, other) {
            (Ok(found), Ok(other)) => (found, other),
            (Err(reason), _) | (_, Err(reason)) => {
                let detail = format!("entity {document} cannot be looked at: {reason}");
                return self.broken(Invariant::Convergence, detail);
            }
        };
        let hashes = |found: &Found| -> Vec<automerge::ChangeHash> {
            found.decided.iter().map(|(change, _)| *change).collect()
        };
        if (&found.open, &found.facts, hashes(&found))
            != (&other.open, &other.facts, hashes(&other))
        {
            let detail = format!(
                "entity {document} depends on the order of its changes:\n{:?}\n{:?}",
                found.open, other.open
            );
            return self.broken(Invariant::Convergence, detail);
        }
        self.note_entity(&found);
        let decisions = self.ledger.decisions.iter().filter(|one| one.document == document);
        let people = decisions.map(|one| Decided { change: native(one.change), place: &one.place });
        let policies = (found.decided.iter())
            .map(|(change, conflict)| Decided { change: *change, place: &conflict.place });
        let decided: Vec<Decided<'_>> = people.chain(policies).collect();
        let is_of_user =
            |hash: &automerge::ChangeHash| self.ledger.who(&ChangeHash(hash.0)).is_some();
        let all = found.doc.get_changes(&[]);
        if let Some(lost) = loss::lost(&found.doc, &all, is_of_user, &found.open, &decided) {
            let detail = format!("entity {document}: {lost}, and nobody was asked");
            return self.broken(Invariant::NoSilentLoss, detail);
        }
        self.entities.insert(name, found.facts);
    }

    /// Checks what is between the entities that were checked.
    pub(super) fn check_between(&mut self) {
        let entities = std::mem::take(&mut self.entities);
        let in_order = open_between(entities.iter());
        let turned = open_between(entities.iter().rev());
        if in_order != turned {
            let detail = format!("what is between entities depends on their order:\n{in_order:?}");
            return self.broken(Invariant::Convergence, detail);
        }
        for code in in_order.values() {
            match code {
                Code::Unique => self.met(State::ClaimedTwice),
                Code::Dangling => self.met(State::Dangling),
                Code::Move => self.met(State::RoundInACircle),
                _ => {}
            }
        }
    }

    fn note_entity(&mut self, found: &Found) {
        if !found.decided.is_empty() {
            self.met(State::PolicyDecided);
        }
        for conflict in &found.open {
            match (conflict.code, &conflict.place.key) {
                (Code::Invariant, _) => self.met(State::RuleBroken),
                (Code::Schema, _) => self.met(State::Misfit),
                (Code::Move, _) => self.met(State::MovedTwice),
                (Code::EditDelete, SlotKey::Tombstone { .. }) => self.met(State::EntityBuried),
                _ => {}
            }
        }
    }
}

fn native(hash: ChangeHash) -> automerge::ChangeHash {
    automerge::ChangeHash(hash.0)
}

/// What somebody finds to whom the changes came in this order.
fn found(
    name: &DocumentId,
    doc: &Automerge,
    changes: &[Change],
    seed: u64,
) -> Result<Found, String> {
    let mut detector = Detector::default();
    for change in in_some_order(changes.iter(), seed) {
        detector.take_in(change).map_err(|error| error.to_string())?;
    }
    let before = review::open(doc, &detector, name, Some(&SCHEMA));
    let mut doc = doc.clone();
    let settled = settle(&mut doc, &mut detector, name, &SCHEMA);
    let decided = settled.iter().filter_map(|settled| {
        let conflict = before.iter().find(|conflict| conflict.id == settled.conflict)?;
        Some((settled.change, conflict.clone()))
    });
    let decided = decided.collect();
    let open = review::open(&doc, &detector, name, Some(&SCHEMA));
    let of = SCHEMA.recognise(&doc).ok_or("it is no entity any more")?;
    let facts = Facts::of(&doc, &detector, of);
    Ok(Found { doc, open, facts, decided })
}

fn open_between<'a>(
    entities: impl Iterator<Item = (&'a DocumentId, &'a Facts)>,
) -> BTreeMap<String, Code> {
    let mut between = Between::default();
    for (document, facts) in entities {
        between.update(document, Some(facts.clone()));
    }
    let code = |apart: &Apart| match apart.view.code.as_str() {
        "unique" => Code::Unique,
        "dangling" => Code::Dangling,
        _ => Code::Move,
    };
    between.open().map(|apart| (apart.view.id.to_string(), code(&apart))).collect()
}
