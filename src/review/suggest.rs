//! Suggestions: what people chose of conflicts like one that is open. Told with their counts, and
//! never applied by themselves.
//!
//! Of a decision that was made, [`Chosen`] says what it was about, and all the ways in which what
//! was chosen can be said: the side that wrote last, or Ann's. Of many of those, [`suggest`] says
//! which way was taken most often. It is a pure function of the decisions that it is given.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, ReadDoc as _};
use concord_protocol::DocumentId;
use serde::{Deserialize, Serialize};

use super::{
    Conflict, ConflictId, Kept, Past, Side, bulk::without_indexes, history, look::latest,
    pick::latest_side, summary::shortened,
};
use crate::{digest::digest, entity::Schema};

/// Decisions of one document that are looked at again, the last ones: for each, the document is
/// opened as it was then.
pub const DECISIONS_MAX: usize = 8;
/// A document with more changes than this is not opened as it was: it takes too long.
const CHANGES_MAX: u64 = 2_000;
/// Decisions of a kind that make a suggestion, and how many in a hundred of them must agree.
const TIMES_MIN: usize = 3;
const PERCENT_MIN: usize = 60;
/// Authors and kinds of values that are named for one conflict.
const NAMES_MAX: usize = 8;

/// What a conflict is about, as far as others can be like it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Likeness {
    /// The type of the document, if it says one, and the field: `task.status`, `lines.amount`.
    pub field: String,
    /// The kinds of values of its sides, each once.
    pub values: BTreeSet<String>,
    /// Who wrote its sides, each once.
    pub authors: BTreeSet<String>,
}

/// A way in which something was chosen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Took {
    /// What was written last.
    Latest,
    /// What was written first.
    Earliest,
    /// What this author wanted.
    Author(String),
    /// What was there before.
    Before,
    /// What was shown until then.
    Now,
    /// Nothing.
    Delete,
    /// Something else.
    Value,
}

/// A decision, as an example for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// On which conflict.
    pub conflict: ConflictId,
    /// What it was about.
    pub likeness: Likeness,
    /// All the ways in which what was chosen can be said.
    pub took: BTreeSet<Took>,
}

/// How much the decisions that a suggestion is made of have in common with the conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alike {
    /// The field, the kinds of values and the authors.
    All,
    /// The field and the kinds of values.
    Values,
    /// The field.
    Field,
}

/// What was chosen most often of conflicts that were alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suggestion {
    /// What.
    pub take: Took,
    /// In so many decisions.
    pub times: usize,
    /// Of so many that were made.
    pub of: usize,
    /// About which field.
    pub field: String,
    /// What they have in common with this one.
    pub alike: Alike,
}

impl Likeness {
    /// What a conflict of this document is about. `None` if its place is gone.
    pub fn of(doc: &Automerge, type_name: Option<&str>, conflict: &Conflict) -> Option<Self> {
        let path = without_indexes(&conflict.path_text(doc)?);
        let field = type_name.map_or(path.clone(), |of| format!("{of}.{path}"));
        let values = conflict.sides.iter().take(NAMES_MAX).map(|side| kind(side).to_owned());
        let authors = conflict.sides.iter().flat_map(|side| names(doc, side)).take(NAMES_MAX);
        Some(Self {
            field: shortened(&field),
            values: values.collect(),
            authors: authors.collect(),
        })
    }
}

/// The decisions that people made in a document and that stand, as examples: the last
/// [`DECISIONS_MAX`]. None of a document that is too long to look back in.
pub fn chosen(
    doc: &Automerge,
    document: &DocumentId,
    schema: Option<&Schema>,
    type_name: Option<&str>,
) -> Vec<Chosen> {
    let made = made(doc, history::decisions(doc));
    let made = made.iter();
    made.filter_map(|past| {
        let id = past.decided.conflict;
        let (conflict, then) = history::decided(doc, document, schema, id).ok()?;
        let likeness = Likeness::of(&then, type_name, &conflict)?;
        let took = took(&then, &conflict, &past.decided.choice);
        Some(Chosen { conflict: id, likeness, took })
    })
    .collect()
}

/// What [`chosen`] says of a document with these decisions, in a word: while this is the same, that
/// is. `None` if it says nothing.
pub fn mark(doc: &Automerge, decisions: Vec<Past>) -> Option<String> {
    let made = made(doc, decisions);
    let changes = made.iter().map(|past| past.who.change.to_string());
    let mark = u128::from_be_bytes(digest(changes));
    (!made.is_empty()).then(|| format!("{mark:032x}"))
}

/// The last decisions of people that stand.
fn made(doc: &Automerge, decisions: Vec<Past>) -> Vec<Past> {
    if doc.stats().num_changes > CHANGES_MAX {
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let standing = decisions.into_iter().rev();
    let standing = standing.filter(|past| seen.insert(past.decided.conflict));
    standing.filter(|past| !past.is_automatic()).take(DECISIONS_MAX).collect()
}

/// All the ways in which a choice can be said, of a conflict of this document.
fn took(then: &Automerge, conflict: &Conflict, choice: &str) -> BTreeSet<Took> {
    let mut took = BTreeSet::new();
    let side = choice.strip_prefix("side-").and_then(|number| number.parse::<usize>().ok());
    match (side, choice) {
        (Some(number), _) => {
            let number = number.wrapping_sub(1);
            let Some(side) = conflict.sides.get(number) else { return took };
            took.extend((latest_side(then, conflict) == number).then_some(Took::Latest));
            let time = latest(then, &side.changes);
            let is_first = |other: &Side| latest(then, &other.changes) > time;
            let mut others = conflict.sides.iter().enumerate().filter(|(n, _)| *n != number);
            took.extend(others.all(|(_, other)| is_first(other)).then_some(Took::Earliest));
            took.extend(names(then, side).take(NAMES_MAX).map(Took::Author));
        }
        (None, "before") => _ = took.insert(Took::Before),
        (None, "now") => _ = took.insert(Took::Now),
        (None, "delete") => _ = took.insert(Took::Delete),
        (None, "value") => _ = took.insert(Took::Value),
        (None, _) => {}
    }
    took
}

fn names(doc: &Automerge, side: &Side) -> impl Iterator<Item = String> {
    side.who(doc).into_iter().map(|who| shortened(who.name()))
}

/// The kind of what a side wants.
fn kind(side: &Side) -> &'static str {
    match &side.kept {
        Kept::Put(value) => {
            use automerge::ScalarValue as Scalar;
            match value {
                Scalar::Bytes(_) => "bytes",
                Scalar::Str(_) => "string",
                Scalar::Int(_) | Scalar::Uint(_) | Scalar::F64(_) => "number",
                Scalar::Counter(_) => "counter",
                Scalar::Timestamp(_) => "timestamp",
                Scalar::Boolean(_) => "boolean",
                Scalar::Unknown { .. } => "unknown",
                Scalar::Null => "null",
            }
        }
        Kept::Made(_) => "object",
        Kept::Edited(_) => "edited",
        Kept::Deleted => "deleted",
        Kept::Fields => "fields",
    }
}

/// What was chosen most often of conflicts like this one; `None` if there were too few, or people
/// chose now this and now that. What is most alike comes first, and the same whatever the order of
/// the examples.
pub fn suggest<'a>(
    open: &Likeness,
    past: impl IntoIterator<Item = &'a Chosen>,
) -> Option<Suggestion> {
    let mut counted: BTreeMap<Alike, (usize, BTreeMap<&Took, usize>)> = BTreeMap::new();
    for chosen in past {
        let (one, other) = (&chosen.likeness, open);
        let levels = [
            (Alike::Field, one.field == other.field),
            (Alike::Values, one.field == other.field && one.values == other.values),
            (Alike::All, one == other),
        ];
        for (alike, _) in levels.into_iter().filter(|(_, is_so)| *is_so) {
            let (of, times) = counted.entry(alike).or_default();
            *of += 1;
            for took in &chosen.took {
                *times.entry(took).or_default() += 1;
            }
        }
    }
    // What can be said of this conflict at all: one by an author who has no side is nobody's.
    let can_be = |took: &Took| match took {
        Took::Author(name) => open.authors.contains(name),
        // Which value is not said.
        Took::Value => false,
        _ => true,
    };
    counted.into_iter().find_map(|(alike, (of, times))| {
        let most = times.into_iter().filter(|(took, _)| can_be(took));
        // Of equals the first: what can be said without a name.
        let (take, times) = most.min_by_key(|(took, times)| (std::cmp::Reverse(*times), *took))?;
        let is_clear = times >= TIMES_MIN && times * 100 >= of * PERCENT_MIN;
        let field = open.field.clone();
        is_clear.then(|| Suggestion { take: take.clone(), times, of, field, alike })
    })
}

impl std::fmt::Display for Suggestion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { take, times, of, field, alike } = self;
        match take {
            Took::Latest => f.write_str("what was written last")?,
            Took::Earliest => f.write_str("what was written first")?,
            Took::Author(name) => write!(f, "what {name} wanted")?,
            Took::Before => f.write_str("what was there before")?,
            Took::Now => f.write_str("what was shown")?,
            Took::Delete => f.write_str("nothing")?,
            Took::Value => f.write_str("something else")?,
        }
        write!(f, " was taken in {times} of {of} decisions on {field}")?;
        match alike {
            Alike::All => f.write_str(" between the same people"),
            Alike::Values => f.write_str(" with such values"),
            Alike::Field => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::{Arbitrary, Gen, QuickCheck};

    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn like(field: &str, values: &[&str], authors: &[&str]) -> Likeness {
        Likeness { field: field.to_owned(), values: set(values), authors: set(authors) }
    }

    fn made(likeness: &Likeness, took: &[Took]) -> Chosen {
        let conflict = "0".repeat(32).parse().unwrap();
        Chosen { conflict, likeness: likeness.clone(), took: took.iter().cloned().collect() }
    }

    #[test]
    fn what_was_taken_most_often_is_told_with_its_counts() {
        let open = like("task.status", &["string"], &["ann", "ben"]);
        let ann = Took::Author("ann".to_owned());
        let mut past = vec![made(&open, &[Took::Latest, ann.clone()]); 14];
        past.push(made(&open, &[Took::Before]));
        let said = suggest(&open, &past).unwrap();
        assert_eq!((said.take.clone(), said.times, said.of), (Took::Latest, 14, 15));
        let words = "what was written last was taken in 14 of 15 decisions on task.status between \
                     the same people";
        assert_eq!(said.to_string(), words);
        // Of other people, the field and the values are what is alike.
        let others = like("task.status", &["string"], &["carl"]);
        let said = suggest(&others, &past).unwrap();
        assert_eq!((said.alike, said.take), (Alike::Values, Took::Latest));
        let object = like("task.status", &["object"], &["carl"]);
        assert_eq!(suggest(&object, &past).unwrap().alike, Alike::Field);
        assert_eq!(suggest(&like("task.title", &["string"], &["ann"]), &past), None);
    }

    #[test]
    fn too_few_or_too_different_decisions_suggest_nothing() {
        let open = like("f", &["number"], &["ann"]);
        assert_eq!(suggest(&open, &[]), None);
        assert_eq!(suggest(&open, &vec![made(&open, &[Took::Before]); 2]), None);
        let mixed = [Took::Before, Took::Now, Took::Latest, Took::Delete, Took::Earliest];
        let past: Vec<Chosen> = mixed
            .iter()
            .flat_map(|took| vec![made(&open, std::slice::from_ref(took)); 3])
            .collect();
        assert_eq!(suggest(&open, &past), None);
        // A value that somebody typed is no advice, and neither is somebody who has no side here.
        let ben = Took::Author("ben".to_owned());
        for took in [Took::Value, ben] {
            assert_eq!(suggest(&open, &vec![made(&open, &[took]); 9]), None);
        }
    }

    impl Arbitrary for Chosen {
        fn arbitrary(g: &mut Gen) -> Self {
            let few = |g: &mut Gen, names: &[&str]| {
                let count = usize::arbitrary(g) % 2 + 1;
                (0..count).map(|_| (*g.choose(names).unwrap()).to_owned()).collect()
            };
            let field = (*g.choose(&["a", "b"]).unwrap()).to_owned();
            let (values, authors) = (few(g, &["number", "string"]), few(g, &["ann", "ben"]));
            let all = [Took::Latest, Took::Before, Took::Value, Took::Author("ann".to_owned())];
            let count = usize::arbitrary(g) % 2;
            let took = (0..=count).map(|_| g.choose(&all).unwrap().clone()).collect();
            Self {
                conflict: format!("{:032x}", u64::arbitrary(g)).parse().unwrap(),
                took,
                likeness: Likeness { field, values, authors },
            }
        }
    }

    #[test]
    fn the_order_of_the_decisions_does_not_matter_and_counts_are_true() {
        fn law(open: Chosen, past: Vec<Chosen>) -> bool {
            let Chosen { likeness, .. } = open;
            let said = suggest(&likeness, &past);
            let is_true = said.as_ref().is_none_or(|said| {
                let took = past.iter().filter(|past| past.took.contains(&said.take)).count();
                said.times <= took && said.times <= said.of && said.of <= past.len()
            });
            let mut turned = past;
            turned.reverse();
            is_true && suggest(&likeness, &turned) == said
        }
        QuickCheck::new().tests(2_000).quickcheck(law as fn(Chosen, Vec<Chosen>) -> bool);
    }
}
