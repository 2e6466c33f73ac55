//! What a document said once, written anew.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use automerge::{
    ChangeHash as Native, ObjId, ObjType, Prop, ROOT, ScalarValue, TextEncoding, Value,
    marks::{ExpandMark, Mark},
    transaction::Transactable,
};
use concord_protocol::ChangeHash;

use super::{
    HistoryError,
    hash::known_in,
    state::{Found, below, find, no_path},
};
use crate::json::{DEPTH_MAX, JsonError};

/// Writes what makes the document say again what it said at these heads, or what it said at a path
/// (`&[]`: all of it), into a transaction. The history stays; this is one more change.
///
/// What does not differ is not written, so edits that others make at the same time merge: texts and
/// lists by their characters and elements, counters by the difference, and objects that are still
/// there by what is in them. What was put there since and was not there then is deleted; whoever
/// edits it at the same time is not overruled in silence, for that is a conflict like any other.
/// Formats of text are restored too.
///
/// An index in the path is that at which the element was then; it is found where it is now, and put
/// there again if it was deleted.
///
/// # Errors
/// [`HistoryError::NoChange`]; [`HistoryError::NoPath`] if there was nothing at the path and there
/// is nothing, or what it was in is not there any more: restore that.
pub fn restore(
    tx: &mut impl Transactable,
    heads: &[ChangeHash],
    path: &[Prop],
) -> Result<(), HistoryError> {
    let heads = known_in(tx, heads)?;
    let mut restorer = Restorer { tx, heads: &heads };
    let Some((last, above)) = path.split_last() else {
        return restorer.map(&ROOT, &ROOT, DEPTH_MAX);
    };
    let (then, now) = restorer.parents(path, above)?;
    let wanted = below(restorer.tx, &then, last, Some(&heads))?;
    match last {
        Prop::Map(_) => {
            let there = below(restorer.tx, &now, last, None)?;
            match (there, wanted) {
                (None, None) => Err(no_path(path, Some(&heads))),
                (Some(_), None) => Ok(restorer.tx.delete(&now.id, last.clone())?),
                (there, Some(wanted)) => {
                    restorer.slot(&now.id, last.clone(), there.as_ref(), &wanted, DEPTH_MAX)
                }
            }
        }
        Prop::Seq(index) => {
            let wanted = wanted.ok_or_else(|| no_path(path, Some(&heads)))?;
            let (at, is_there) = restorer.place_now(&then.id, *index)?;
            if !is_there {
                return restorer.insert(&now.id, at, &wanted, DEPTH_MAX);
            }
            let there = below(restorer.tx, &now, &Prop::Seq(at), None)?;
            restorer.slot(&now.id, Prop::Seq(at), there.as_ref(), &wanted, DEPTH_MAX)
        }
    }
}

/// Writes what was there at these heads.
pub(super) struct Restorer<'a, T> {
    pub(super) tx: &'a mut T,
    pub(super) heads: &'a [Native],
}

impl<T: Transactable> Restorer<'_, T> {
    /// The object at a path, then and now.
    fn parents(&self, path: &[Prop], above: &[Prop]) -> Result<(Found, Found), HistoryError> {
        let then = find(self.tx, above, Some(self.heads)).map_err(|_| self.not_then(path))?;
        let (mut was, mut is) = (Found::root(), Found::root());
        for step in above {
            let here = match step {
                Prop::Map(_) => Some(step.clone()),
                Prop::Seq(index) => {
                    let (at, is_there) = self.place_now(&was.id, *index)?;
                    is_there.then_some(Prop::Seq(at))
                }
            };
            let next = here.map(|step| below(self.tx, &is, &step, None)).transpose()?.flatten();
            is = next.ok_or_else(|| no_path(above, None))?;
            was =
                below(self.tx, &was, step, Some(self.heads))?.ok_or_else(|| self.not_then(path))?;
        }
        if was.value != is.value {
            return Err(no_path(above, None));
        }
        Ok((then, is))
    }

    fn not_then(&self, path: &[Prop]) -> HistoryError {
        no_path(path, Some(self.heads))
    }

    /// Where an element of a list is now, or would be, and whether it is there.
    fn place_now(&self, list: &ObjId, index: usize) -> Result<(usize, bool), HistoryError> {
        // Automerge can say where an element is, but fails on some that were deleted.
        let mut places = BTreeMap::new();
        for at in 0..self.tx.length(list) {
            places.insert(self.tx.get_cursor(list, at, None)?.to_string(), at);
        }
        for before in (0..=index).rev() {
            let element = self.tx.get_cursor(list, before, Some(self.heads))?;
            if let Some(at) = places.get(&element.to_string()) {
                return Ok(if before == index { (*at, true) } else { (at + 1, false) });
            }
        }
        Ok((0, false))
    }

    fn map(&mut self, now: &ObjId, then: &ObjId, depth: usize) -> Result<(), HistoryError> {
        let wanted = self.tx.map_range_at(then, .., self.heads);
        let wanted: BTreeMap<String, Found> = wanted
            .map(|item| (item.key.to_string(), found(item.value.clone(), item.id())))
            .collect();
        let there = self.tx.map_range(now, ..);
        let mut there: BTreeMap<String, Found> = there
            .map(|item| (item.key.to_string(), found(item.value.clone(), item.id())))
            .collect();
        for (key, wanted) in wanted {
            let there = there.remove(&key);
            self.slot(now, Prop::Map(key), there.as_ref(), &wanted, depth)?;
        }
        for key in there.into_keys() {
            self.tx.delete(now, key)?;
        }
        Ok(())
    }

    /// Makes a slot say what it said. What is in a list has a slot already.
    pub(super) fn slot(
        &mut self,
        parent: &ObjId,
        prop: Prop,
        there: Option<&Found>,
        wanted: &Found,
        depth: usize,
    ) -> Result<(), HistoryError> {
        match (&wanted.value, there.map(|there| (&there.value, &there.id))) {
            (Value::Object(kind), Some((Value::Object(is), id))) if kind == is => {
                self.object(*kind, id, &wanted.id, depth)
            }
            (Value::Object(kind), _) => {
                let id = self.tx.put_object(parent, prop, *kind)?;
                self.object(*kind, &id, &wanted.id, depth)
            }
            (Value::Scalar(value), Some((Value::Scalar(is), _))) if value == is => Ok(()),
            (Value::Scalar(value), is) => {
                let is = is.and_then(|(value, _)| value.as_scalar());
                if let (ScalarValue::Counter(value), Some(ScalarValue::Counter(is))) =
                    (value.as_ref(), is)
                {
                    let by = i64::from(value).wrapping_sub(i64::from(is));
                    return Ok(self.tx.increment(parent, prop, by)?);
                }
                Ok(self.tx.put(parent, prop, single(value))?)
            }
        }
    }

    pub(super) fn insert(
        &mut self,
        list: &ObjId,
        at: usize,
        wanted: &Found,
        depth: usize,
    ) -> Result<(), HistoryError> {
        match &wanted.value {
            Value::Object(kind) => {
                let id = self.tx.insert_object(list, at, *kind)?;
                self.object(*kind, &id, &wanted.id, depth)
            }
            Value::Scalar(value) => Ok(self.tx.insert(list, at, single(value))?),
        }
    }

    fn object(
        &mut self,
        kind: ObjType,
        now: &ObjId,
        then: &ObjId,
        depth: usize,
    ) -> Result<(), HistoryError> {
        let below = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
        match kind {
            ObjType::Map | ObjType::Table => self.map(now, then, below),
            ObjType::List => self.sequence(now, then, false, below),
            ObjType::Text => {
                self.sequence(now, then, true, below)?;
                self.formats(now, then)
            }
        }
    }

    /// A list or a text. What is in both was never anywhere else in between, so it is in the same
    /// order in both; only what is between is written, from the end on, which leaves the places of
    /// the rest as they are.
    fn sequence(
        &mut self,
        now: &ObjId,
        then: &ObjId,
        is_text: bool,
        depth: usize,
    ) -> Result<(), HistoryError> {
        let wanted = self.tx.list_range_at(then, .., self.heads);
        let wanted: Vec<Found> = wanted.map(|item| found(item.value.clone(), item.id())).collect();
        let there = self.tx.list_range(now, ..);
        let there: Vec<Found> = there.map(|item| found(item.value.clone(), item.id())).collect();
        let was: BTreeSet<&ObjId> = wanted.iter().map(|item| &item.id).collect();
        let kept: BTreeSet<&ObjId> =
            there.iter().map(|item| &item.id).filter(|id| was.contains(id)).collect();
        let encoding = self.tx.text_encoding();
        let places = places(&there, is_text, encoding);
        let (mut is, mut should) = (there.len(), wanted.len());
        loop {
            let (end, wanted_end) = (is, should);
            while is > 0 && !kept.contains(&there[is - 1].id) {
                is -= 1;
            }
            while should > 0 && !kept.contains(&wanted[should - 1].id) {
                should -= 1;
            }
            let gap = Gap {
                there: &there[is..end],
                wanted: &wanted[should..wanted_end],
                places: &places[is..=end],
            };
            self.gap(now, is_text, &gap, depth)?;
            if is == 0 || should == 0 {
                return Ok(());
            }
            is -= 1;
            should -= 1;
            // The same element; if it is an object or a counter, it may say something else.
            self.slot(now, Prop::Seq(places[is]), Some(&there[is]), &wanted[should], depth)?;
        }
    }

    /// What is between two elements that stay.
    fn gap(
        &mut self,
        now: &ObjId,
        is_text: bool,
        gap: &Gap<'_>,
        depth: usize,
    ) -> Result<(), HistoryError> {
        let Gap { there, wanted, places } = gap;
        let mut first = 0;
        while first < there.len().min(wanted.len())
            && self.is_like(&there[first], &wanted[first], depth)?
        {
            first += 1;
        }
        let (mut there, mut wanted, places) = (&there[first..], &wanted[first..], &places[first..]);
        while let (Some((is, rest)), Some((was, others))) =
            (there.split_last(), wanted.split_last())
            && self.is_like(is, was, depth)?
        {
            (there, wanted) = (rest, others);
        }
        let at = places[0];
        if is_text {
            let gone = isize::try_from(places[there.len()] - at).unwrap_or(isize::MAX);
            return self.splice(now, at, gone, wanted, depth);
        }
        let is_single = |item: &Found| item.value.is_scalar();
        if there.len() == wanted.len() && there.iter().chain(wanted).all(is_single) {
            for (index, (is, wanted)) in (at..).zip(there.iter().zip(wanted)) {
                self.slot(now, Prop::Seq(index), Some(is), wanted, depth)?;
            }
            return Ok(());
        }
        for _ in there {
            self.tx.delete(now, at)?;
        }
        for (index, wanted) in (at..).zip(wanted) {
            self.insert(now, index, wanted, depth)?;
        }
        Ok(())
    }

    /// Whether what is there says what was there, so that it can stay.
    fn is_like(&self, is: &Found, was: &Found, depth: usize) -> Result<bool, HistoryError> {
        let below = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
        let kind = match (&is.value, &was.value) {
            (Value::Object(kind), Value::Object(other)) if kind == other => kind,
            (is, was) => return Ok(is == was),
        };
        match kind {
            ObjType::Text => Ok(self.tx.text(&is.id)? == self.tx.text_at(&was.id, self.heads)?),
            ObjType::Map | ObjType::Table => {
                let item =
                    |key: Cow<'_, str>, value: Value<'_>, id| (key.into_owned(), found(value, id));
                let is = self.tx.map_range(&is.id, ..);
                let is = is.map(|it| item(it.key.clone(), it.value.clone().into(), it.id()));
                let was = self.tx.map_range_at(&was.id, .., self.heads);
                let was = was.map(|it| item(it.key.clone(), it.value.clone().into(), it.id()));
                self.are_like(is, was, below)
            }
            ObjType::List => {
                let item = |value: Value<'_>, id| (String::new(), found(value, id));
                let is = self.tx.list_range(&is.id, ..);
                let is = is.map(|it| item(it.value.clone().into(), it.id()));
                let was = self.tx.list_range_at(&was.id, .., self.heads);
                let was = was.map(|it| item(it.value.clone().into(), it.id()));
                self.are_like(is, was, below)
            }
        }
    }

    fn are_like(
        &self,
        mut is: impl Iterator<Item = (String, Found)>,
        mut was: impl Iterator<Item = (String, Found)>,
        depth: usize,
    ) -> Result<bool, HistoryError> {
        loop {
            match (is.next(), was.next()) {
                (None, None) => return Ok(true),
                (Some((key, is)), Some((other, was)))
                    if key == other && self.is_like(&is, &was, depth)? => {}
                _ => return Ok(false),
            }
        }
    }

    /// Characters, and objects in between.
    pub(super) fn splice(
        &mut self,
        now: &ObjId,
        at: usize,
        mut gone: isize,
        wanted: &[Found],
        depth: usize,
    ) -> Result<(), HistoryError> {
        let (mut at, mut text) = (at, String::new());
        let encoding = self.tx.text_encoding();
        for item in wanted {
            if let Some(piece) = item.value.as_str() {
                text.push_str(piece);
                continue;
            }
            let length: usize = units(&text, encoding);
            self.tx.splice_text(now, at, gone, &text)?;
            (at, gone) = (at + length, 0);
            text.clear();
            self.insert(now, at, item, depth)?;
            at += 1;
        }
        if gone > 0 || !text.is_empty() {
            self.tx.splice_text(now, at, gone, &text)?;
        }
        Ok(())
    }

    /// Formats of a text that says again what it said.
    fn formats(&mut self, now: &ObjId, then: &ObjId) -> Result<(), HistoryError> {
        let wanted = self.tx.marks_at(then, self.heads)?;
        let there = self.tx.marks(now)?;
        // What follows what is typed is not said of a mark; this is the default of clients.
        let expand = ExpandMark::After;
        for Mark { start, end, name, .. } in there.iter().filter(|mark| !wanted.contains(mark)) {
            self.tx.unmark(now, name, *start, *end, expand)?;
        }
        let lacking = |mark: &&Mark| !there.contains(mark);
        for mark in wanted.iter().filter(lacking) {
            self.tx.mark(now, mark.clone(), expand)?;
        }
        Ok(())
    }
}

/// What is between two elements that stay: there, then, and where each begins and the last ends.
struct Gap<'a> {
    there: &'a [Found],
    wanted: &'a [Found],
    places: &'a [usize],
}

pub(super) fn found<'a>(value: impl Into<Value<'a>>, id: ObjId) -> Found {
    Found { value: value.into().into_owned(), id }
}

/// A counter begins anew with what it had come to.
fn single(value: &ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Counter(counter) => ScalarValue::counter(i64::from(counter)),
        value => value.clone(),
    }
}

/// Where each element of a list or text begins, and the last ends.
pub(super) fn places(items: &[Found], is_text: bool, encoding: TextEncoding) -> Vec<usize> {
    let width = |item: &Found| match item.value.as_str() {
        Some(text) if is_text => units(text, encoding),
        _ => 1,
    };
    let ends = items.iter().scan(0, |end, item| {
        *end += width(item);
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

/// How long automerge takes a string to be.
fn units(text: &str, encoding: TextEncoding) -> usize {
    match encoding {
        TextEncoding::Utf8CodeUnit => text.len(),
        TextEncoding::Utf16CodeUnit => text.encode_utf16().count(),
        TextEncoding::UnicodeCodePoint | TextEncoding::GraphemeCluster => text.chars().count(),
    }
}

#[cfg(test)]
mod tests;
