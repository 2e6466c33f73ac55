//! A document as it was.

use std::collections::BTreeSet;

use automerge::{Automerge, AutomergeError, ObjId, ObjType, Prop, ROOT, ReadDoc, Value};
use concord_protocol::ChangeHash;
use serde_json::Value as Json;

use super::{
    HistoryError,
    hash::{known, native},
    log::in_order,
};
use crate::json;

/// As the end of a sentence.
pub(super) const NOW: &str = "as it is now";
const THEN: &str = "as it was then";

/// What is found at a path, with the object that it is in.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) value: Value<'static>,
    pub(super) id: ObjId,
}

impl Found {
    /// The document itself.
    pub(super) fn root() -> Self {
        Self { value: Value::Object(ObjType::Map), id: ROOT }
    }
}

/// The document as it was at these heads, as one of its own: with the history up to there. Takes as
/// long as to load that; [`json_at`] is for a look.
///
/// # Errors
/// [`HistoryError::NoChange`].
pub fn at(doc: &Automerge, heads: &[ChangeHash]) -> Result<Automerge, HistoryError> {
    Ok(doc.fork_at(&known(doc, heads)?)?)
}

/// What the document said at these heads, or what it said at a path.
///
/// # Errors
/// [`HistoryError`].
pub fn json_at(doc: &Automerge, heads: &[ChangeHash], path: &[Prop]) -> Result<Json, HistoryError> {
    let heads = known(doc, heads)?;
    let Found { value, id } = find(doc, path, Some(&heads))?;
    Ok(json::to_json_at(doc, &value, &id, &heads)?)
}

/// The heads of what there was at a time (in seconds since 1970), by the clocks of those who wrote
/// it: the changes of that time and before that build on no later one.
pub fn heads_when(doc: &Automerge, time_s: i64) -> Vec<ChangeHash> {
    let changes = doc.get_changes_meta(&[]);
    let mut there = BTreeSet::new();
    let mut heads = BTreeSet::new();
    for place in in_order(&changes) {
        let change = &changes[place];
        if change.timestamp <= time_s && change.deps.iter().all(|dep| there.contains(dep)) {
            there.insert(change.hash);
            heads.insert(ChangeHash(change.hash.0));
            for dep in &change.deps {
                heads.remove(&ChangeHash(dep.0));
            }
        }
    }
    heads.into_iter().collect()
}

/// The heads of what a change builds on: what its author saw.
///
/// # Errors
/// [`HistoryError::NoChange`].
pub fn builds_on(doc: &Automerge, change: ChangeHash) -> Result<Vec<ChangeHash>, HistoryError> {
    let found = doc.get_change_meta_by_hash(&native(&change));
    let deps = found.ok_or(HistoryError::NoChange(change))?.deps;
    Ok(deps.into_iter().map(|dep| ChangeHash(dep.0)).collect())
}

/// What is at a path: now, or at some heads.
pub(super) fn find(
    doc: &impl ReadDoc,
    path: &[Prop],
    heads: Option<&[automerge::ChangeHash]>,
) -> Result<Found, HistoryError> {
    let mut found = Found::root();
    for step in path {
        found = below(doc, &found, step, heads)?.ok_or_else(|| no_path(path, heads))?;
    }
    Ok(found)
}

/// That there is nothing at a path.
pub(super) fn no_path(path: &[Prop], heads: Option<&[automerge::ChangeHash]>) -> HistoryError {
    let when = if heads.is_some() { THEN } else { NOW };
    HistoryError::NoPath { path: json::path(path.iter()), when }
}

/// What is at a part of an object; nothing, if there are no parts of such names.
pub(super) fn below(
    doc: &impl ReadDoc,
    found: &Found,
    step: &Prop,
    heads: Option<&[automerge::ChangeHash]>,
) -> Result<Option<Found>, AutomergeError> {
    let fits = matches!(
        (&found.value, step),
        (Value::Object(ObjType::Map | ObjType::Table), Prop::Map(_))
            | (Value::Object(ObjType::List), Prop::Seq(_))
    );
    let is_beyond = |index: usize| match heads {
        None => index >= doc.length(&found.id),
        Some(heads) => index >= doc.length_at(&found.id, heads),
    };
    if !fits || matches!(step, Prop::Seq(index) if is_beyond(*index)) {
        return Ok(None);
    }
    let below = match heads {
        None => doc.get(&found.id, step.clone())?,
        Some(heads) => doc.get_at(&found.id, step.clone(), heads)?,
    };
    Ok(below.map(|(value, id)| Found { value: value.into_owned(), id }))
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable as _;
    use quickcheck::quickcheck;
    use serde_json::json;

    use super::{
        super::tests::{Step, heads, heads_of, json as all, written},
        *,
    };

    quickcheck! {
        /// To look back and to go back are the same.
        fn what_is_read_at_heads_is_what_it_was(steps: Vec<Step>, then: u8) -> bool {
            let doc = written(&steps);
            let heads = heads_of(&doc, then);
            json_at(&doc, &heads, &[]).unwrap() == all(&at(&doc, &heads).unwrap())
        }
    }

    #[test]
    fn a_moment_is_what_was_written_until_then() {
        let mut doc = Automerge::new();
        let write = |doc: &mut Automerge, time: i64| {
            let mut tx = doc.transaction();
            tx.put(ROOT, "n", time).unwrap();
            let options = automerge::transaction::CommitOptions::default().with_time(time);
            ChangeHash(tx.commit_with(options).0.unwrap().0)
        };
        let first = write(&mut doc, 10);
        let mut fork = doc.fork();
        let second = write(&mut doc, 30);
        // By a clock that was behind: it is not there before what it builds on.
        let third = write(&mut doc, 20);
        let beside = write(&mut fork, 20);
        doc.merge(&mut fork).unwrap();
        let mut both = vec![third, beside];
        both.sort_unstable();
        for (time, there) in [(9, vec![]), (10, vec![first]), (29, vec![beside]), (30, both)] {
            assert_eq!(heads_when(&doc, time), there, "{time}");
        }
        assert_eq!(builds_on(&doc, third).unwrap(), [second]);
        assert_eq!(builds_on(&doc, first).unwrap(), []);
        assert!(builds_on(&doc, ChangeHash([0; 32])).is_err());
    }

    #[test]
    fn a_path_is_read_as_it_was() {
        let mut doc = Automerge::new();
        doc.transact(|tx| {
            let list = tx.put_object(ROOT, "list", ObjType::List)?;
            tx.insert(&list, 0, "first")
        })
        .unwrap();
        let then = heads(&doc);
        doc.transact(|tx| tx.delete(ROOT, "list")).unwrap();
        let path = |steps: &[Prop]| json_at(&doc, &then, steps);
        let (list, first) = (Prop::from("list"), Prop::Seq(0));
        assert_eq!(path(std::slice::from_ref(&list)).unwrap(), json!(["first"]));
        assert_eq!(path(&[list.clone(), first.clone()]).unwrap(), json!("first"));
        for wrong in [
            vec![first.clone()],
            vec![list.clone(), Prop::Seq(1)],
            vec![list.clone(), Prop::Seq(usize::MAX)],
            vec![list.clone(), Prop::from("a")],
            vec![list.clone(), first.clone(), first],
        ] {
            let refused = path(&wrong).unwrap_err().to_string();
            assert!(refused.ends_with("is not in the document as it was then"), "{refused}");
        }
        let gone = json_at(&doc, &heads(&doc), &[list]);
        assert!(matches!(gone, Err(HistoryError::NoPath { .. })));
        let unknown = at(&doc, &[ChangeHash([3; 32])]);
        assert!(matches!(unknown, Err(HistoryError::NoChange(_))));
    }
}
