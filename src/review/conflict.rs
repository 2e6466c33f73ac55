//! What a conflict is, and its name.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use automerge::{ChangeHash, ObjType, ScalarValue};
use concord_protocol::DocumentId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    Through,
    causality::ChangeNumber,
    detector::{Detector, State},
    operation::{Id, Key, Slot, What},
};
use crate::{digest::digest, entity::DELETED_KEY};

/// The kinds of conflicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Code {
    /// Different values were written to one slot.
    Value,
    /// Something was edited while somebody else deleted or overwrote it, or what it is in.
    EditDelete,
    /// Two objects were made in one slot.
    Twin,
    /// One conflict was resolved in different ways.
    Resolution,
    /// A rule of the schema does not hold, though everybody may have kept it.
    Invariant,
    /// A value cannot be read as what the schema says it is.
    Schema,
    /// Two live entities have one unique key.
    Unique,
    /// A reference to something that is deleted.
    Dangling,
    /// One thing was moved to two places, or things below each other.
    Move,
}

impl Code {
    /// Its name, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::EditDelete => "edit_delete",
            Self::Twin => "twin",
            Self::Resolution => "resolution",
            Self::Invariant => "invariant",
            Self::Schema => "schema",
            Self::Unique => "unique",
            Self::Dangling => "dangling",
            Self::Move => "move",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a conflict: a hash of the document, the code, the slot and the operations that are
/// in conflict, so that every replica gives it the same. 32 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConflictId([u8; 16]);

impl fmt::Display for ConflictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ConflictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ConflictId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConflictId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl FromStr for ConflictId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not the id of a conflict: 32 hexadecimal digits");
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(wrong());
        }
        let mut id = [0; 16];
        for (byte, at) in id.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(id))
    }
}

/// A part of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotKey {
    /// A key of a map.
    Map(String),
    /// An element of a list or text, by the operation that inserted it.
    Element(String),
    /// The keys of a map that something which a schema says is about.
    Rule {
        /// What says it: a name that is the same for whoever has the schema.
        name: String,
        /// Which keys, sorted.
        keys: Vec<String>,
        /// How they are carried between versions of the schema.
        through: Through,
    },
    /// Whether the entity is deleted, and what was edited meanwhile.
    Tombstone {
        /// The keys that were edited, sorted.
        edited: Vec<String>,
    },
}

/// A slot, by names that are the same on every replica.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The object's id as automerge writes it; `_root` for the document itself.
    pub object: String,
    /// Which part of it.
    pub key: SlotKey,
}

/// What a side wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Kept {
    /// This value.
    Put(ScalarValue),
    /// The object that it made.
    Made(ObjType),
    /// That nothing is there.
    Deleted,
    /// What it edited: an object that is no longer there, or a counter (`None`).
    Edited(Option<ObjType>),
    /// The fields of a rule as it left them.
    Fields,
}

/// One of the intents that cannot all be kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// What it wants.
    pub kept: Kept,
    /// The operations that wrote it, by their names, sorted. Of an edit, the one that had made
    /// what was edited; of the fields of a rule, none.
    pub operations: Vec<String>,
    /// The changes in which that was done, sorted; of edits, the last of each actor.
    pub changes: Vec<ChangeHash>,
}

/// A disagreement that cannot be merged without losing somebody's intent.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// Its name.
    pub id: ConflictId,
    /// What kind it is of.
    pub code: Code,
    /// Where.
    pub place: Place,
    /// The sides, in an order that is the same on every replica.
    pub sides: Vec<Side>,
    /// Heads of what all sides had seen: the document as it was before.
    pub before: Vec<ChangeHash>,
    /// What a schema says that is not so, in words.
    pub problem: Option<String>,
    /// How what it is about is carried between versions of the schema.
    pub(super) through: Through,
}

impl Detector {
    /// The conflicts that are open, in an order that is the same on every replica.
    pub fn open(&self, document: &DocumentId) -> Vec<Conflict> {
        let mut open: Vec<Conflict> = self
            .disputed
            .iter()
            .filter_map(|slot| Some((slot, self.slots.get(slot)?)))
            .filter_map(|(slot, state)| self.conflict(document, slot, state))
            .collect();
        open.sort_by(|one, other| (&one.place, one.id).cmp(&(&other.place, other.id)));
        open
    }

    fn conflict(&self, document: &DocumentId, slot: &Slot, state: &State) -> Option<Conflict> {
        let place = self.place(slot);
        let mut parties: BTreeSet<ChangeNumber> =
            state.writes.iter().map(|write| write.change).collect();
        let mut sides = self.written(state);
        for (of, changes) in self.edited(state) {
            let kind = self.objects.get(&of).map(|made| made.kind);
            sides.push(Side {
                kept: Kept::Edited(kind),
                operations: vec![self.causality.name(of)],
                changes: self.hashes(&changes),
            });
            parties.extend(changes);
        }
        if !mutant!(SidesAsTheyCome) {
            sides.sort_by(|one, other| {
                (rank(one), &one.operations).cmp(&(rank(other), &other.operations))
            });
        }
        if mutant!(ForgetSide) {
            sides.pop();
        }
        let code = self.code(state);
        let id = name(document, code, &place, &sides);
        if self.is_decided(&id, &parties) {
            return None;
        }
        let before = self.causality.seen_by_all(&parties);
        let through = Through::default();
        Some(Conflict { id, code, place, sides, before, problem: None, through })
    }

    /// Whether somebody decided this who had seen all of it.
    pub(super) fn is_decided(&self, id: &ConflictId, parties: &BTreeSet<ChangeNumber>) -> bool {
        let saw_all =
            |change: &ChangeNumber| parties.iter().all(|party| self.causality.saw(*change, *party));
        self.decided.get(id).is_some_and(|decided| decided.iter().any(saw_all))
    }

    /// The sides that wrote to the slot itself: those that wrote the same are one.
    fn written(&self, state: &State) -> Vec<Side> {
        let mut sides: Vec<(Side, BTreeSet<ChangeNumber>)> = Vec::new();
        for write in &state.writes {
            let kept = match &write.what {
                What::Put(value) => Kept::Put(value.clone()),
                What::Make(kind) => Kept::Made(*kind),
                _ => Kept::Deleted,
            };
            let operation = self.causality.name(write.id);
            // Objects and counters are what was done in them since: two are never the same.
            let is_thing = matches!(kept, Kept::Made(_) | Kept::Put(ScalarValue::Counter(_)));
            let same = |side: &Side| side.kept == kept && !is_thing;
            if let Some((side, changes)) = sides.iter_mut().find(|(side, _)| same(side)) {
                side.operations.push(operation);
                changes.insert(write.change);
            } else {
                let side = Side { kept, operations: vec![operation], changes: Vec::new() };
                sides.push((side, BTreeSet::from([write.change])));
            }
        }
        let finish = |(mut side, changes): (Side, BTreeSet<ChangeNumber>)| {
            side.operations.sort_unstable();
            side.changes = self.hashes(&changes);
            side
        };
        sides.into_iter().map(finish).collect()
    }

    /// What was edited though it is gone, and by which changes.
    fn edited(&self, state: &State) -> BTreeMap<Id, BTreeSet<ChangeNumber>> {
        let mut edited: BTreeMap<Id, BTreeSet<ChangeNumber>> = BTreeMap::new();
        for touch in self.lost_touches(state) {
            edited.entry(touch.of).or_default().insert(touch.change);
        }
        for changes in edited.values_mut() {
            let mut last = BTreeMap::new();
            // In the order in which they came, which is that of each actor.
            for change in changes.iter() {
                last.insert(self.causality.actor_of(*change), *change);
            }
            *changes = last.into_values().collect();
        }
        edited
    }

    fn code(&self, state: &State) -> Code {
        if !self.differ(state) {
            return Code::EditDelete;
        }
        let mut decided = BTreeSet::new();
        let mut decisions = state.writes.iter().filter_map(|w| self.decisions.get(&w.change));
        if decisions.any(|conflict| !decided.insert(*conflict)) {
            return Code::Resolution;
        }
        let kept = || state.writes.iter().filter(|write| write.what != What::Delete);
        if kept().all(|write| matches!(write.what, What::Make(_))) {
            return Code::Twin;
        }
        Code::Value
    }

    fn place(&self, slot: &Slot) -> Place {
        let object = slot.object.map_or_else(|| "_root".to_owned(), |id| self.causality.name(id));
        let key = match &slot.key {
            Key::Map(key) => SlotKey::Map(key.to_string()),
            Key::Element(id) => SlotKey::Element(self.causality.name(*id)),
        };
        Place { object, key }
    }

    fn hashes(&self, changes: &BTreeSet<ChangeNumber>) -> Vec<ChangeHash> {
        let mut hashes: Vec<_> =
            changes.iter().map(|change| self.causality.hash(*change)).collect();
        hashes.sort_unstable();
        hashes
    }
}

fn rank(side: &Side) -> u8 {
    match side.kept {
        Kept::Put(_) | Kept::Made(_) | Kept::Fields => 0,
        Kept::Edited(_) => 1,
        Kept::Deleted => 2,
    }
}

impl SlotKey {
    /// The keys that a decision may write, where the place is not one slot.
    pub(super) fn keys(&self) -> Option<Cow<'_, [String]>> {
        match self {
            Self::Map(_) | Self::Element(_) => None,
            Self::Rule { keys, .. } => Some(Cow::Borrowed(keys)),
            Self::Tombstone { .. } => Some(Cow::Owned(vec![DELETED_KEY.to_owned()])),
        }
    }

    /// The keys that are shown, where the place is not one slot.
    pub(super) fn shown(&self) -> Option<Vec<String>> {
        let keys = self.keys()?.into_owned().into_iter();
        Some(match self {
            Self::Tombstone { edited } => keys.chain(edited.iter().cloned()).collect(),
            _ => keys.collect(),
        })
    }
}

impl Place {
    /// A short name for it, the same on every replica: 16 hexadecimal digits.
    pub fn digest(&self) -> String {
        format!("{:016x}", u128::from_be_bytes(digest(self.parts())) >> 64)
    }

    fn parts(&self) -> [&str; 3] {
        let (kind, key) = match &self.key {
            SlotKey::Map(key) => ("map", key.as_str()),
            SlotKey::Element(id) => ("element", id.as_str()),
            SlotKey::Rule { name, .. } => ("rule", name.as_str()),
            SlotKey::Tombstone { .. } => ("tombstone", ""),
        };
        [&self.object, kind, key]
    }
}

pub(super) fn name(document: &DocumentId, code: Code, place: &Place, sides: &[Side]) -> ConflictId {
    let mut done: Vec<[Cow<'_, str>; 2]> = Vec::new();
    for side in sides {
        let how = match side.kept {
            Kept::Edited(_) => "edited",
            Kept::Fields => "left",
            _ => "written",
        };
        if side.kept == Kept::Fields {
            done.extend(side.changes.iter().map(|hash| [how.into(), hash.to_string().into()]));
        } else {
            done.extend(side.operations.iter().map(|name| [how.into(), name.into()]));
        }
    }
    done.sort_unstable();
    let place = place.parts().into_iter().map(Cow::Borrowed);
    name_of(document, code, place.chain(done.into_iter().flatten()).map(Cow::into_owned))
}

/// The name of a conflict that these parts tell from all others of its code and document.
pub(super) fn name_of(
    document: &DocumentId,
    code: Code,
    parts: impl IntoIterator<Item = String>,
) -> ConflictId {
    let of = ["concord conflict 1", document.as_str(), code.as_str()].map(str::to_owned);
    ConflictId(digest(of.into_iter().chain(parts)))
}

#[cfg(test)]
mod tests {
    use automerge::{ActorId, AutoCommit, ROOT, transaction::Transactable as _};

    use super::*;

    #[test]
    fn names_are_for_ever() {
        let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
        let mut other = AutoCommit::new().with_actor(ActorId::from([2; 16]));
        doc.put(ROOT, "k", "one").unwrap();
        other.put(ROOT, "k", "other").unwrap();
        doc.merge(&mut other).unwrap();
        let document = DocumentId::from_bytes(&[7; 16]);
        let open = Detector::of(&doc.get_changes(&[])).unwrap().open(&document);
        // Worked out by hand, from what `name` says.
        assert_eq!(open[0].id.to_string(), "edaedeca3b84a9f9615382f860c3ccdb");
    }
}
