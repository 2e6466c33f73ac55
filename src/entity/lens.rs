//! Lenses: what a migration makes of the values of an earlier version, and back.
//!
//! A field that is retyped, split or merged gets places of its own in the document, and the old
//! ones stay: peers of the earlier version read and write those, and know nothing of the new.
//! Whoever knows both does all the carrying. Who writes the new fields writes, in the same change,
//! what the old ones are then (*companions*), and a *mark*: which values of the old fields this
//! change leaves. So whoever reads knows from what is visible alone, without clocks and without
//! looking through the history, which of both stands:
//!
//! - every old value is named by a mark: the new fields stand;
//! - none is: somebody who had seen the mark wrote over its companion, so the old fields stand, and
//!   the new ones are what the lens makes of them (unless somebody wrote in those without a mark,
//!   which the mark tells too, for it also names the new values);
//! - some are: somebody wrote the old fields without knowing of the new. Where both mean the same
//!   that is so; else they are *apart*: the new ones are shown, the old ones are parked, and it is
//!   a conflict.
//!
//! What has no counterpart in the other version is never dropped: an old value that cannot be read
//! is parked, and shown as such; a new value that the old kind cannot hold leaves the old one as it
//! is, which is shown as being behind.
//!
//! Fields that came of each other by several migrations are a [`Chain`], and are looked at from the
//! oldest on.

mod convert;
mod put;
mod standing;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use automerge::ReadDoc;

use self::convert::convert;
pub(super) use self::{
    convert::{Passage, is_total, passage},
    standing::{Standing, Stands},
};
pub(crate) use self::{
    put::{Brought, Meant, Standings},
    standing::is_mark,
};
use super::{Kind, Value};

/// What the keys of marks begin with, at the root of a document. No field is called so.
pub(crate) const MARK: &str = "concord:lens:";

/// A place of a field, at some version.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    /// The key in documents.
    pub(super) slot: String,
    /// What is there.
    pub(super) kind: Kind,
    /// What the field was called.
    pub(super) field: String,
}

/// What a migration does to values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum How {
    /// One becomes another kind.
    Retype,
    /// One is cut at a separator; what is left over stays in the last.
    Split(String),
    /// Several are joined with a separator.
    Merge(String),
}

/// One migration.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lens {
    /// The version that it leads to.
    pub(super) version: u32,
    pub(super) how: How,
    pub(super) older: Vec<Kept>,
    pub(super) newer: Vec<Kept>,
}

/// Fields that came of each other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chain {
    /// From the first migration to the last.
    lenses: Vec<Lens>,
    /// Every place, as the last version that had it declares it.
    slots: BTreeMap<String, Kept>,
    /// The places that nothing came of.
    newest: BTreeSet<String>,
}

/// What is left of a value in another version: parked, for the version in force cannot have it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("field `{field}` of version {version} is {}{why}", .value.to_json())]
pub struct Parked {
    /// What the field is called in its version.
    pub field: String,
    /// The last version that has this field.
    pub version: u32,
    /// What was written there, as it is.
    pub value: Value,
    /// Why it is not simply the value of a field.
    pub why: Why,
}

/// Why a value is parked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// The version in force cannot read it.
    #[error(", {0}")]
    Unreadable(String),
    /// It was written while somebody wrote otherwise in a newer version: a conflict.
    #[error(", written while a newer version was written otherwise")]
    Apart,
    /// Its version cannot have what stands now, and still shows this.
    #[error(" still: it cannot have what stands now, {0}")]
    Behind(String),
}

/// What a lens makes of a value; of none, none.
type Made = Result<Option<Value>, String>;

impl Lens {
    /// What the newer fields are, by the older ones.
    fn forward(&self, older: &[Option<Value>]) -> Vec<Made> {
        match &self.how {
            How::Retype => carried(older, &self.newer),
            How::Split(separator) => cut(older.first(), separator, &self.newer, false),
            How::Merge(separator) => vec![Ok(joined(older, separator, false))],
        }
    }

    /// What the older fields are, by the newer ones.
    fn backward(&self, newer: &[Option<Value>]) -> Vec<Made> {
        match &self.how {
            How::Retype => carried(newer, &self.older),
            How::Split(separator) => vec![Ok(joined(newer, separator, true))],
            How::Merge(separator) => cut(newer.first(), separator, &self.older, true),
        }
    }

    /// What the keys of its marks begin with.
    fn mark(&self) -> String {
        let first = self.older.first().map_or("", |kept| kept.slot.as_str());
        format!("{MARK}{}:{first}:", self.version)
    }
}

fn carried(values: &[Option<Value>], to: &[Kept]) -> Vec<Made> {
    let one = |(value, kept): (&Option<Value>, &Kept)| match value {
        None => Ok(None),
        Some(value) => convert(value, &kept.kind).map(Some),
    };
    values.iter().zip(to).map(one).collect()
}

/// The parts of a string: the last has what is left, and where there are too few, the others have
/// none. A part without a letter is none, unless it is to be joined again.
fn cut(
    whole: Option<&Option<Value>>,
    separator: &str,
    into: &[Kept],
    keep_empty: bool,
) -> Vec<Made> {
    let text = match whole {
        Some(Some(Value::String(text))) => Some(text.as_str()),
        _ => None,
    };
    let parts = text.map(|text| text.splitn(into.len().max(1), separator));
    let mut parts = parts.into_iter().flatten().map(str::to_owned);
    let part = |_: &Kept| {
        let part = parts.next().filter(|part| keep_empty || !part.is_empty());
        Ok(part.map(Value::String))
    };
    into.iter().map(part).collect()
}

/// The parts as one string. `in_place`: each is to be found where it was, so what is missing before
/// one that is there counts as empty.
fn joined(parts: &[Option<Value>], separator: &str, in_place: bool) -> Option<Value> {
    let text = |part: &Option<Value>| match part {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    let mut texts: Vec<Option<String>> = parts.iter().map(text).collect();
    while texts.last().is_some_and(|last| last.as_ref().is_none_or(String::is_empty) && in_place) {
        texts.pop();
    }
    let there: Vec<String> = if in_place {
        texts.into_iter().map(Option::unwrap_or_default).collect()
    } else {
        texts.into_iter().flatten().collect()
    };
    (!there.is_empty()).then(|| Value::String(there.join(separator)))
}

impl Chain {
    /// The chains that these migrations make, which go from the first to the last. `now` are the
    /// places as the version in force has them.
    pub(super) fn all(lenses: Vec<Lens>, now: &BTreeMap<String, Kept>) -> Vec<Self> {
        let mut chains: Vec<Self> = Vec::new();
        for lens in lenses {
            let is_in = |chain: &Self, kept: &Kept| chain.slots.contains_key(&kept.slot);
            let mut of: Vec<Self> = Vec::new();
            let all = lens.older.iter().chain(&lens.newer);
            let (met, apart) =
                chains.into_iter().partition(|chain| all.clone().any(|kept| is_in(chain, kept)));
            of.extend::<Vec<Self>>(met);
            chains = apart;
            let mut one =
                Self { lenses: Vec::new(), slots: BTreeMap::new(), newest: BTreeSet::new() };
            for chain in of {
                one.lenses.extend(chain.lenses);
                one.slots.extend(chain.slots);
                one.newest.extend(chain.newest);
            }
            for kept in &lens.older {
                one.newest.remove(&kept.slot);
                one.slots.insert(kept.slot.clone(), kept.clone());
            }
            for kept in &lens.newer {
                let kept = now.get(&kept.slot).unwrap_or(kept).clone();
                one.newest.insert(kept.slot.clone());
                one.slots.insert(kept.slot.clone(), kept);
            }
            one.lenses.push(lens);
            // Two that became one were each in order.
            one.lenses.sort_by_key(|lens| lens.version);
            chains.push(one);
        }
        chains
    }

    /// What is left over of it in a document.
    pub(crate) fn parked(&self, doc: &impl ReadDoc) -> Vec<Parked> {
        self.standing(doc).parked
    }

    /// What the fields of the version in force are; nothing for what cannot be read.
    pub(crate) fn meaning(&self, doc: &impl ReadDoc) -> Vec<Option<Value>> {
        let values = self.standing(doc).values;
        let newest = values.into_iter().filter(|(slot, _)| self.is_newest(slot));
        newest.map(|(_, value)| value.unwrap_or(None)).collect()
    }

    /// What every place means, old ones too.
    pub(crate) fn meant(&self, doc: &impl ReadDoc) -> Meant {
        Meant(self.standing(doc).values)
    }

    /// Whether versions were written otherwise at once.
    pub(crate) fn is_apart(&self, doc: &impl ReadDoc) -> bool {
        self.standing(doc).lenses.contains(&Stands::Apart)
    }

    /// Whether there is something in a document that a later version cannot read.
    pub(crate) fn is_unread(&self, doc: &impl ReadDoc) -> bool {
        self.parked(doc).iter().any(|parked| matches!(parked.why, Why::Unreadable(_)))
    }

    /// Whether something is kept there.
    pub(crate) fn has(&self, slot: &str) -> bool {
        self.slots.contains_key(slot)
    }

    /// Every place, old ones too.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &str> {
        self.slots.keys().map(String::as_str)
    }

    /// Whether a place is one of the version in force.
    pub(crate) fn is_newest(&self, slot: &str) -> bool {
        self.newest.contains(slot)
    }

    /// Whether a place is one of earlier versions.
    pub(crate) fn has_older(&self, slot: &str) -> bool {
        self.has(slot) && !self.is_newest(slot)
    }

    /// What the keys of marks begin with that are made where an older place is carried on.
    pub(crate) fn mark_of(&self, slot: &str) -> Option<String> {
        let is_older = |lens: &&Lens| lens.older.iter().any(|kept| kept.slot == slot);
        self.lenses.iter().find(is_older).map(Lens::mark)
    }

    /// Every place that a lens looks back on: what its older fields are, and what they came of.
    fn before(&self, number: usize) -> BTreeSet<&str> {
        self.passed(number, |_| true, |_, _| {})
    }

    /// The places that say what the older fields of a lens are: where what those came of makes of
    /// them stands, that does, and not they.
    fn sources(&self, number: usize, is_older: impl Fn(usize) -> bool) -> BTreeSet<&str> {
        self.passed(number, is_older, |lens, all| {
            all.retain(|slot| !lens.newer.iter().any(|kept| kept.slot == *slot));
        })
    }

    fn passed(
        &self,
        number: usize,
        is_passed: impl Fn(usize) -> bool,
        pass: impl Fn(&Lens, &mut BTreeSet<&str>),
    ) -> BTreeSet<&str> {
        let (earlier, rest) = self.lenses.split_at(number.min(self.lenses.len()));
        let mut all: BTreeSet<&str> = BTreeSet::new();
        all.extend(
            rest.first().into_iter().flat_map(|lens| &lens.older).map(|it| it.slot.as_str()),
        );
        for (number, lens) in earlier.iter().enumerate().rev() {
            let is_met = lens.newer.iter().any(|kept| all.contains(kept.slot.as_str()));
            if is_met && is_passed(number) {
                pass(lens, &mut all);
                all.extend(lens.older.iter().map(|kept| kept.slot.as_str()));
            }
        }
        all
    }
}
