//! Lists and texts: what a change put in is taken out, and what it took out is put in again, where
//! that is now.

use std::{collections::BTreeMap, ops::Range};

use automerge::{
    ChangeHash as Native, ObjId, Prop, ReadDoc as _, Value, transaction::Transactable as _,
};
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::{HistoryError, Writer};
use crate::{
    history::{
        restore::{Restorer, found, places},
        state::Found,
    },
    json,
};

/// Comparisons of elements that are there under other names, in one gap between those that are not;
/// where there would be more, they are taken for others.
const COMPARED_MAX: usize = 1_000_000;

/// The elements of a list or text before, after, and now.
struct Elements {
    before: Vec<Found>,
    after: Vec<Found>,
    now: Vec<Found>,
    /// Where each element from after is now.
    at: Vec<Option<usize>>,
    /// Where each from now begins, and the last ends.
    places: Vec<usize>,
}

/// What to compare elements by; the number is for those that are like no other.
type Key = (String, usize);

impl Writer<'_, '_> {
    pub(super) fn sequence(
        &mut self,
        before: &ObjId,
        after: &ObjId,
        now: &ObjId,
        is_text: bool,
        depth: usize,
    ) -> Result<(), HistoryError> {
        let elements = self.elements((before, after, now), is_text)?;
        let Elements { before, after, at, .. } = &elements;
        let was: BTreeMap<&ObjId, usize> =
            before.iter().enumerate().map(|(at, item)| (&item.id, at)).collect();
        // Elements do not move: those that were there before and after are in one order. From the
        // end on, so that the places of the rest stay as they are.
        let (mut was_end, mut is_end) = (before.len(), after.len());
        for (is, item) in after.iter().enumerate().rev() {
            let Some(was) = was.get(&item.id).copied() else { continue };
            self.gap(now, &elements, (was + 1..was_end, is + 1..is_end), is_text, depth)?;
            (was_end, is_end) = (was, is);
            if let Some(at) = at[is] {
                let slot = Prop::Seq(elements.places[at]);
                let both = (Some(&before[was]), Some(item));
                self.slot(now, slot, both, Some(&elements.now[at]), depth)?;
            }
        }
        self.gap(now, &elements, (0..was_end, 0..is_end), is_text, depth)
    }

    /// What was before, and after, between two elements that were there both times.
    fn gap(
        &mut self,
        now: &ObjId,
        elements: &Elements,
        (was, is): (Range<usize>, Range<usize>),
        is_text: bool,
        depth: usize,
    ) -> Result<(), HistoryError> {
        let (before, after) = (&elements.before[was], &elements.after[is.clone()]);
        let are_single = before.iter().chain(after).all(|item| item.value.is_scalar());
        if !is_text && before.len() == after.len() && are_single {
            for (index, before) in is.zip(before).rev() {
                if let Some(at) = elements.at[index] {
                    let slot = Prop::Seq(elements.places[at]);
                    let both = (Some(before), Some(&elements.after[index]));
                    self.slot(now, slot, both, Some(&elements.now[at]), depth)?;
                }
            }
            return Ok(());
        }
        for index in is.clone().rev() {
            let Some(at) = elements.at[index] else { continue };
            let (place, there) = (elements.places[at], &elements.now[at]);
            if is_text {
                let width = elements.places[at + 1] - place;
                self.tx.splice_text(now, place, width.cast_signed(), "")?;
            } else if self.is_still_there(Some(&elements.after[index]), Some(there))? {
                self.tx.delete(now, place)?;
            }
        }
        let behind = elements.at[..is.start].iter().rev().find_map(|at| *at);
        let place = behind.map_or(0, |at| elements.places[at + 1]);
        let mut restorer = Restorer { tx: &mut *self.tx, heads: &self.undo.before };
        if is_text {
            return restorer.splice(now, place, 0, before, depth);
        }
        for (place, item) in (place..).zip(before) {
            restorer.insert(now, place, item, depth)?;
        }
        Ok(())
    }

    fn elements(
        &self,
        (before, after, now): (&ObjId, &ObjId, &ObjId),
        is_text: bool,
    ) -> Result<Elements, HistoryError> {
        let then = |of: &ObjId, heads: &[Native]| -> Vec<Found> {
            let items = self.tx.list_range_at(of, .., heads);
            items.map(|item| found(item.value.clone(), item.id())).collect()
        };
        let (before, after) = (then(before, &self.undo.before), then(after, &self.after));
        let now = self.tx.list_range(now, ..);
        let now: Vec<Found> = now.map(|item| found(item.value.clone(), item.id())).collect();
        let places = places(&now, is_text, self.tx.text_encoding());
        let mut elements = Elements { before, at: Vec::new(), after, now, places };
        self.find(&mut elements, is_text)?;
        Ok(elements)
    }

    /// Finds out where the elements from after are now.
    fn find(&self, elements: &mut Elements, is_text: bool) -> Result<(), HistoryError> {
        let Elements { after, now, at, .. } = elements;
        let named: BTreeMap<&ObjId, usize> =
            now.iter().enumerate().map(|(at, item)| (&item.id, at)).collect();
        *at = after.iter().map(|item| named.get(&item.id).copied()).collect();
        let (mut start, mut now_start) = (0, 0);
        while start < after.len() {
            if let Some(is) = at[start] {
                (start, now_start) = (start + 1, is + 1);
                continue;
            }
            let end = (start..after.len()).find(|index| at[*index].is_some());
            let now_end = end.and_then(|end| at[end]).unwrap_or(now.len());
            let end = end.unwrap_or(after.len());
            let (gone, there) = (&after[start..end], &now[now_start..now_end]);
            for (index, is) in self.alike(gone, there, is_text)? {
                at[start + index] = Some(now_start + is);
            }
            (start, now_start) = (end, now_end);
        }
        Ok(())
    }

    /// Which of those that are gone are there under other names.
    fn alike(
        &self,
        gone: &[Found],
        there: &[Found],
        is_text: bool,
    ) -> Result<Vec<(usize, usize)>, HistoryError> {
        if gone.len().saturating_mul(there.len()) > COMPARED_MAX || there.is_empty() {
            return Ok(Vec::new());
        }
        let said = |item: &Found, heads: Option<&[Native]>| -> Result<String, HistoryError> {
            if is_text && let Value::Scalar(value) = &item.value {
                return Ok(value.to_string());
            }
            let json = match heads {
                Some(heads) => json::to_json_at(&*self.tx, &item.value, &item.id, heads)?,
                None => json::to_json(&*self.tx, &item.value, &item.id)?,
            };
            Ok(json.to_string())
        };
        let gone = gone.iter().map(|item| Ok((said(item, Some(&self.after))?, 0)));
        let gone = gone.collect::<Result<Vec<Key>, HistoryError>>()?;
        let there = there.iter().enumerate().map(|(at, item)| {
            let is_theirs = self.undo.is_theirs(&item.id);
            Ok(if is_theirs { (said(item, None)?, 0) } else { (String::new(), at + 1) })
        });
        let there = there.collect::<Result<Vec<Key>, HistoryError>>()?;
        let mut alike = Vec::new();
        for op in capture_diff_slices(Algorithm::Myers, &gone, &there) {
            if let DiffOp::Equal { old_index, new_index, len } = op {
                alike.extend((0..len).map(|at| (old_index + at, new_index + at)));
            }
        }
        Ok(alike)
    }
}
