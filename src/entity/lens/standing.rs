//! Which of the versions of a field stands: worked out of what is visible in a document.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ROOT, ReadDoc, Value as Stored};

use super::{Chain, Kept, Lens, MARK, Made, Parked, Why};
use crate::{
    digest::digest,
    entity::{Kind, Value, read},
};

/// Which fields of a lens stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::entity) enum Stands {
    /// The newer ones.
    Newer,
    /// The older ones: the newer ones are made of them.
    Older,
    /// Both were written, by people who did not know of each other.
    Apart,
}

/// What stands in a chain.
#[derive(Debug)]
pub(in crate::entity) struct Standing {
    /// What each place means, or why it means nothing.
    pub(in crate::entity) values: BTreeMap<String, Made>,
    /// Of each lens.
    pub(in crate::entity) lenses: Vec<Stands>,
    /// Of each lens, whether several wrote its older fields otherwise.
    pub(in crate::entity) disputed: Vec<bool>,
    /// What is left over.
    pub(in crate::entity) parked: Vec<Parked>,
}

/// One value that is visible at a place.
#[derive(Debug)]
struct Seen {
    /// The operation that wrote it; of a text, with what it says.
    token: String,
    /// As it is.
    raw: Value,
    /// As its kind means it.
    value: Made,
    /// It is what several people edit at once.
    is_text: bool,
}

/// All values that are visible at a place; the last is the one that automerge shows.
type Raw = Vec<Seen>;

/// What marks of one lens say.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) keys: Vec<String>,
    named: BTreeSet<String>,
    /// The same of the newer fields, each with its place.
    newer: BTreeSet<(String, String)>,
    /// How many were made while a text was written as the older fields say.
    brought: usize,
}

/// What a mark says beside names: that a text was written as the older fields say.
pub(super) const BROUGHT: &str = "brought";

impl Marks {
    fn read(&mut self, text: &str) {
        for word in text.split(' ') {
            match word.split_once('=') {
                Some((slot, token)) => {
                    self.newer.insert((slot.to_owned(), token.to_owned()));
                }
                None if word == BROUGHT => self.brought += 1,
                None => {
                    self.named.insert(word.to_owned());
                }
            }
        }
    }

    /// Whether nobody who carried knew of a value, or several wrote it into one text, where it is
    /// twice now.
    fn is_apart(&self, seen: &Seen) -> bool {
        self.brought > 1 || !self.named.contains(&seen.token)
    }

    /// Whether something was written in a newer place without a mark.
    fn is_besides(&self, slot: &str, raw: &Raw) -> bool {
        let is_named = |seen: &Seen| self.newer.contains(&(slot.to_owned(), seen.token.clone()));
        // What several wrote in one text is none that one of them left.
        let is_mixed = |seen: &Seen| seen.is_text && self.keys.len() > 1;
        if raw.is_empty() {
            return self.newer.iter().any(|(named, _)| named == slot);
        }
        !raw.iter().all(|seen| is_named(seen) || is_mixed(seen))
    }
}

impl Chain {
    /// What stands in a document, or a transaction in one.
    pub(in crate::entity) fn standing(&self, doc: &impl ReadDoc) -> Standing {
        let raw: BTreeMap<&str, Raw> =
            self.slots.values().map(|kept| (kept.slot.as_str(), raw(doc, kept))).collect();
        let own = |slot: &str| shown(raw.get(slot));
        let mut values: BTreeMap<String, Made> =
            self.slots.keys().map(|slot| (slot.clone(), own(slot))).collect();
        let (mut stands, mut parked, mut disputed) = (Vec::new(), Vec::new(), Vec::new());
        for (number, lens) in self.lenses.iter().enumerate() {
            let marks = lens.marks(doc);
            // Where an older field is what it came of makes of it, that counts.
            let before = self.sources(number, |it| stands.get(it) == Some(&Stands::Older));
            let older: Vec<Made> = lens.older.iter().map(|it| taken(&values, &it.slot)).collect();
            let mut found = stand(lens, &marks, &before, &raw);
            if found == Stands::Apart && agree(lens, &marks, &before, &older, &values, &raw) {
                found = Stands::Newer;
            }
            match found {
                Stands::Newer => parked.extend(behind(lens, &values, &raw)),
                Stands::Older => {
                    let made = forward(doc, lens, &older, &raw, &mut parked);
                    for (kept, made) in lens.newer.iter().zip(made) {
                        values.insert(kept.slot.clone(), made);
                    }
                }
                Stands::Apart => parked.extend(unseen(lens, &marks, &raw)),
            }
            stands.push(found);
            let differ = |raw: &Raw| raw.windows(2).any(|pair| pair[0].value != pair[1].value);
            let older = lens.older.iter().filter_map(|kept| raw.get(kept.slot.as_str()));
            disputed.push(older.into_iter().any(differ));
        }
        Standing { values, lenses: stands, disputed, parked }
    }
}

impl Standing {
    /// Whether this is what a place means already.
    pub(in crate::entity) fn is_now(&self, slot: &str, value: Option<&Value>) -> bool {
        matches!(self.values.get(slot), Some(Ok(now)) if now.as_ref() == value)
    }
}

impl Lens {
    /// What its marks say.
    pub(super) fn marks(&self, doc: &impl ReadDoc) -> Marks {
        let prefix = self.mark();
        let mut marks = Marks::default();
        for item in doc.map_range(ROOT, prefix.clone()..) {
            if !item.key.starts_with(&prefix) {
                break;
            }
            marks.keys.push(item.key.to_string());
            if let Stored::Scalar(value) = Stored::from(item.value.clone())
                && let Some(text) = value.as_str()
            {
                marks.read(text);
            }
        }
        marks
    }
}

/// The values that are visible at some places, by name.
pub(super) fn tokens(doc: &impl ReadDoc, slots: &BTreeSet<&str>) -> Vec<String> {
    let all = slots.iter().flat_map(|slot| doc.get_all(ROOT, *slot).unwrap_or_default());
    all.map(|(value, id)| token(doc, &value, &id)).collect()
}

fn token(doc: &impl ReadDoc, value: &Stored<'_>, id: &automerge::ObjId) -> String {
    match value {
        Stored::Object(automerge::ObjType::Text) => {
            let says = digest(["concord lens 1", &doc.text(id).unwrap_or_default()]);
            format!("{id}#{:016x}", u128::from_be_bytes(says) >> 64)
        }
        _ => id.to_string(),
    }
}

fn raw(doc: &impl ReadDoc, kept: &Kept) -> Raw {
    let all = doc.get_all(ROOT, kept.slot.as_str()).unwrap_or_default();
    let shown = doc.get(ROOT, kept.slot.as_str()).ok().flatten().map(|(_, id)| id);
    let mut seen: Vec<(bool, Seen)> = (all.into_iter())
        .map(|(value, id)| {
            let token = token(doc, &value, &id);
            let is_text = matches!(kept.kind, Kind::Text { .. }) && value.is_object();
            let raw = read::anything(doc, &value, &id);
            let meant = meant(doc, &kept.kind, &value, &id);
            (shown.as_ref() == Some(&id), Seen { token, raw, value: meant, is_text })
        })
        .collect();
    seen.sort_by_key(|(is_shown, _)| *is_shown);
    seen.into_iter().map(|(_, seen)| seen).collect()
}

/// What a stored value is as one of a kind. A text in which nothing is, is nothing.
pub(super) fn meant(
    doc: &impl ReadDoc,
    kind: &Kind,
    value: &Stored<'_>,
    id: &automerge::ObjId,
) -> Made {
    match read::alone(doc, kind, value, id) {
        Ok(Some(Value::String(text))) if text.is_empty() && matches!(kind, Kind::Text { .. }) => {
            Ok(None)
        }
        other => other,
    }
}

fn shown(raw: Option<&Raw>) -> Made {
    raw.and_then(|raw| raw.last()).map_or(Ok(None), |seen| seen.value.clone())
}

fn taken(values: &BTreeMap<String, Made>, slot: &str) -> Made {
    values.get(slot).cloned().unwrap_or(Ok(None))
}

/// What of a place became of it since its companion was written.
enum Since {
    Nothing,
    Overwritten,
    Apart,
}

fn since(marks: &Marks, raw: &Raw) -> Since {
    let is_named = |seen: &&Seen| marks.named.contains(&seen.token);
    let (named, all) = (raw.iter().filter(is_named).count(), raw.len());
    if marks.brought > 1 {
        return Since::Apart;
    }
    if named > 0 && named == all {
        return Since::Nothing;
    }
    // A text is one value, whatever people write in it; of two who left it otherwise, neither knew
    // what it says now.
    let is_mixed = marks.keys.len() > 1 && raw.iter().any(|seen| seen.is_text);
    if named > 0 || is_mixed { Since::Apart } else { Since::Overwritten }
}

fn stand(lens: &Lens, marks: &Marks, before: &BTreeSet<&str>, raw: &BTreeMap<&str, Raw>) -> Stands {
    let older: Vec<&Raw> = before.iter().filter_map(|slot| raw.get(slot)).collect();
    let newer: Vec<&Raw> = lens.newer.iter().filter_map(|it| raw.get(it.slot.as_str())).collect();
    let is_blank = |all: &[&Raw]| {
        all.iter().flat_map(|raw| raw.iter()).all(|seen| matches!(seen.value, Ok(None)))
    };
    if marks.keys.is_empty() {
        // Nobody carried anything yet.
        return match (is_blank(&older), is_blank(&newer)) {
            (_, true) => Stands::Older,
            (true, false) => Stands::Newer,
            (false, false) => Stands::Apart,
        };
    }
    let all: Vec<Since> = older.iter().map(|raw| since(marks, raw)).collect();
    if all.iter().any(|since| matches!(since, Since::Apart)) {
        return Stands::Apart;
    }
    if all.iter().all(|since| matches!(since, Since::Nothing)) {
        return Stands::Newer;
    }
    // Whoever overwrote a companion had seen all of its change. What was written in the newer fields
    // without a mark is another matter: it may be earlier, later or neither.
    let besides = |kept: &Kept| {
        raw.get(kept.slot.as_str()).is_some_and(|raw| marks.is_besides(&kept.slot, raw))
    };
    if lens.newer.iter().any(besides) { Stands::Apart } else { Stands::Older }
}

/// Whether what was written apart means the same.
fn agree(
    lens: &Lens,
    marks: &Marks,
    before: &BTreeSet<&str>,
    older: &[Made],
    values: &BTreeMap<String, Made>,
    raw: &BTreeMap<&str, Raw>,
) -> bool {
    let newer: Vec<Made> = lens.newer.iter().map(|kept| taken(values, &kept.slot)).collect();
    let same = |older: &[Made]| {
        let older: Result<Vec<_>, _> = older.iter().cloned().collect();
        older.is_ok_and(|older| lens.forward(&older) == newer)
    };
    // Somebody took the older one away.
    let is_gone = |kept: &Kept| raw.get(kept.slot.as_str()).is_none_or(Vec::is_empty);
    let is_made = |kept: &Kept| !before.contains(kept.slot.as_str());
    let is_by_itself = !lens.older.iter().any(is_made);
    let is_taken = !marks.keys.is_empty() && lens.older.iter().any(is_gone);
    if (is_taken || !is_by_itself) && !same(older) {
        return false;
    }
    lens.older.iter().enumerate().all(|(at, kept)| {
        let seen = raw.get(kept.slot.as_str()).into_iter().flatten();
        let mut apart = seen.filter(|seen| marks.is_apart(seen));
        apart.all(|seen| {
            let mut with = older.to_vec();
            if let Some(it) = with.get_mut(at) {
                it.clone_from(&seen.value);
            }
            same(&with)
        })
    })
}

/// What was written in the older fields without knowing of the newer ones.
fn unseen(lens: &Lens, marks: &Marks, raw: &BTreeMap<&str, Raw>) -> Vec<Parked> {
    let of = |kept: &Kept| {
        let seen = raw.get(kept.slot.as_str()).into_iter().flatten();
        let apart = seen.filter(|seen| marks.is_apart(seen));
        apart.map(|seen| lens.parked(kept, &seen.raw, Why::Apart)).collect::<Vec<_>>()
    };
    lens.older.iter().flat_map(of).collect()
}

/// The older fields that cannot have what stands.
fn behind(lens: &Lens, values: &BTreeMap<String, Made>, raw: &BTreeMap<&str, Raw>) -> Vec<Parked> {
    let newer = lens.newer.iter().map(|kept| taken(values, &kept.slot).unwrap_or(None));
    let newer: Vec<Option<Value>> = newer.collect();
    let back = lens.backward(&newer);
    let of = |(kept, back): (&Kept, Made)| {
        let why = back.err()?;
        let stands = newer.iter().flatten().next()?.to_json();
        let shown = raw.get(kept.slot.as_str())?.last()?;
        Some(lens.parked(kept, &shown.raw, Why::Behind(format!("{stands}, {why}"))))
    };
    lens.older.iter().zip(back).filter_map(of).collect()
}

/// What the newer fields are by the older ones, where those stand.
fn forward(
    doc: &impl ReadDoc,
    lens: &Lens,
    older: &[Made],
    raw: &BTreeMap<&str, Raw>,
    parked: &mut Vec<Parked>,
) -> Vec<Made> {
    let readable: Result<Vec<Option<Value>>, &String> =
        older.iter().map(|value| value.as_ref().cloned()).collect();
    let mut made = match readable {
        Ok(older) => lens.forward(&older),
        Err(why) => lens.newer.iter().map(|_| Err(why.clone())).collect(),
    };
    // Programs that know no schema write what they mean where it always was.
    if let ([Err(_)], [from], [to]) = (&*made, &*lens.older, &*lens.newer)
        && let Ok(Some((value, id))) = doc.get(ROOT, from.slot.as_str())
        && let Ok(Some(value)) = meant(doc, &to.kind, &value, &id)
    {
        made = vec![Ok(Some(value))];
    }
    if let Some(Err(why)) = made.iter().find(|made| made.is_err()) {
        for (kept, value) in lens.older.iter().zip(older) {
            // What it came of, in turn, is parked there already if that was not to be read.
            let shown = raw.get(kept.slot.as_str()).and_then(|raw| raw.last());
            let value = match value {
                Ok(Some(value)) => Some(value),
                _ => shown.map(|seen| &seen.raw),
            };
            if let Some(value) = value.filter(|value| **value != Value::Null) {
                parked.push(lens.parked(kept, value, Why::Unreadable(why.clone())));
            }
        }
    }
    made
}

impl Lens {
    fn parked(&self, kept: &Kept, value: &Value, why: Why) -> Parked {
        let version = self.version.saturating_sub(1);
        Parked { field: kept.field.clone(), version, value: value.clone(), why }
    }
}

/// Whether a key at the root of a document is a mark.
pub(crate) fn is_mark(key: &str) -> bool {
    key.starts_with(MARK)
}
