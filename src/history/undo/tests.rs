//! What one writer undoes and redoes, while another goes on.

#![allow(clippy::needless_pass_by_value, reason = "what quickcheck draws is given away")]

use automerge::{AutoCommit, ROOT};
use quickcheck::{Arbitrary, Gen, QuickCheck};
use serde_json::{Value as Json, json};

use super::*;
use crate::json::to_json;

fn writer(n: u8) -> AutoCommit {
    AutoCommit::new().with_actor(ActorId::from([n; 16]))
}

fn said(doc: &AutoCommit) -> Json {
    to_json(doc, &Value::Object(ObjType::Map), &ROOT).unwrap()
}

fn steps(doc: &mut AutoCommit, n: u8) -> Steps {
    let actor = ActorId::from([n; 16]).to_string();
    Steps::of(doc.document(), |stamp| stamp.actor == actor)
}

/// Undoes, or redoes, what somebody did last; whether there was anything.
fn step(doc: &mut AutoCommit, n: u8, is_redo: bool) -> bool {
    let steps = steps(doc, n);
    let Some(change) = (if is_redo { steps.redo } else { steps.undo }).pop() else { return false };
    let mut inner = doc.document().clone();
    inner.set_actor(ActorId::from([n; 16]));
    let actor = ActorId::from([n; 16]).to_string();
    let undo = Undo::of(&inner, &change, |stamp| stamp.actor == actor).unwrap();
    let message = if is_redo { undo.redo_message() } else { undo.message() };
    let options = || automerge::transaction::CommitOptions::default().with_message(message.clone());
    let mut tx = inner.transaction();
    undo.write(&mut tx).unwrap();
    if tx.commit_with(options()).0.is_none() {
        inner.empty_commit(options());
    }
    doc.load_incremental(&inner.save()).unwrap();
    true
}

#[test]
fn what_others_wrote_in_the_same_text_stays() {
    let mut ann = writer(1);
    let text = ann.put_object(ROOT, "text", ObjType::Text).unwrap();
    ann.splice_text(&text, 0, 0, "the fox").unwrap();
    ann.commit();
    ann.splice_text(&text, 4, 0, "quick ").unwrap();
    ann.commit();
    let mut ben = ann.fork().with_actor(ActorId::from([2; 16]));
    ben.splice_text(&text, 9, 0, "est").unwrap();
    ben.splice_text(&text, 16, 0, " runs").unwrap();
    ben.commit();
    ann.merge(&mut ben).unwrap();
    assert_eq!(said(&ann), json!({"text": "the quickest fox runs"}));
    assert!(step(&mut ann, 1, false));
    assert_eq!(said(&ann), json!({"text": "the estfox runs"}));
    assert!(step(&mut ann, 1, true));
    assert_eq!(said(&ann), json!({"text": "the quickest fox runs"}));
}

#[test]
fn what_others_wrote_over_it_stays() {
    let mut ann = writer(1);
    ann.put(ROOT, "title", "a").unwrap();
    ann.put(ROOT, "other", "a").unwrap();
    ann.commit();
    ann.put(ROOT, "title", "b").unwrap();
    ann.put(ROOT, "other", "b").unwrap();
    ann.delete(ROOT, "gone").ok();
    ann.commit();
    let mut ben = ann.fork().with_actor(ActorId::from([2; 16]));
    ben.put(ROOT, "title", "ben's").unwrap();
    ben.commit();
    ann.merge(&mut ben).unwrap();
    assert!(step(&mut ann, 1, false));
    assert_eq!(said(&ann), json!({"title": "ben's", "other": "a"}));
    assert_eq!(ann.get_all(ROOT, "title").unwrap().len(), 1, "nobody disagrees");
    assert!(step(&mut ann, 1, true));
    assert_eq!(said(&ann), json!({"title": "ben's", "other": "b"}));
    // All of it back to the beginning.
    while step(&mut ann, 1, false) {}
    assert_eq!(said(&ann), json!({"title": "ben's"}));
}

#[test]
fn a_new_change_ends_what_can_be_redone() {
    let mut ann = writer(1);
    for value in 0..3 {
        ann.put(ROOT, "value", value).unwrap();
        ann.commit();
    }
    assert!(step(&mut ann, 1, false) && step(&mut ann, 1, false));
    assert_eq!(said(&ann), json!({"value": 0}));
    assert_eq!(steps(&mut ann, 1).redo.len(), 2);
    ann.put(ROOT, "value", 7).unwrap();
    ann.commit();
    assert!(!step(&mut ann, 1, true));
    assert!(step(&mut ann, 1, false));
    assert_eq!(said(&ann), json!({"value": 0}));
    assert!(!step(&mut ann, 2, false), "others have steps of their own");
}

#[derive(Debug, Clone)]
enum Edit {
    Put(u8, i64),
    Delete(u8),
    Type(usize, String),
    Cut(usize, usize),
    Insert(usize, i64),
    Take(usize),
    Nest(u8),
    Count(i64),
}

impl Arbitrary for Edit {
    fn arbitrary(g: &mut Gen) -> Self {
        let n = |g: &mut Gen| usize::from(u8::arbitrary(g));
        let key = u8::arbitrary(g) % 3;
        match u8::arbitrary(g) % 8 {
            0 => Self::Put(key, i64::arbitrary(g)),
            1 => Self::Delete(key),
            2 => Self::Type(n(g), ["a", "bc", "déf"][n(g) % 3].to_owned()),
            3 => Self::Cut(n(g), n(g) % 4),
            4 => Self::Insert(n(g), i64::arbitrary(g)),
            5 => Self::Take(n(g)),
            6 => Self::Nest(key),
            _ => Self::Count(i64::from(i8::arbitrary(g))),
        }
    }
}

/// What there is at first: a text, a list and a counter, of a third writer.
fn begun() -> AutoCommit {
    let mut doc = writer(9);
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, "begun").unwrap();
    doc.put_object(ROOT, "list", ObjType::List).unwrap();
    doc.put(ROOT, "count", ScalarValue::counter(0)).unwrap();
    doc.commit();
    doc
}

fn edit(doc: &mut AutoCommit, edit: &Edit) {
    let object = |doc: &AutoCommit, key: &str| doc.get(ROOT, key).unwrap().unwrap().1;
    match edit {
        Edit::Put(key, value) => doc.put(ROOT, format!("key {key}"), *value).unwrap(),
        Edit::Delete(key) => _ = doc.delete(ROOT, format!("key {key}")),
        Edit::Type(at, what) => {
            let text = object(doc, "text");
            let at = at % (doc.length(&text) + 1);
            doc.splice_text(&text, at, 0, what).unwrap();
        }
        Edit::Cut(at, length) => {
            let text = object(doc, "text");
            let at = at % (doc.length(&text) + 1);
            let length = (*length).min(doc.length(&text) - at);
            doc.splice_text(&text, at, length.cast_signed(), "").unwrap();
        }
        Edit::Insert(at, value) => {
            let list = object(doc, "list");
            let at = at % (doc.length(&list) + 1);
            doc.insert(&list, at, *value).unwrap();
        }
        Edit::Take(at) => {
            let list = object(doc, "list");
            if doc.length(&list) > 0 {
                doc.delete(&list, at % doc.length(&list)).unwrap();
            }
        }
        Edit::Nest(key) => {
            let map = doc.put_object(ROOT, format!("key {key}"), ObjType::Map).unwrap();
            let list = doc.put_object(&map, "in", ObjType::List).unwrap();
            doc.insert(&list, 0, 1).unwrap();
        }
        Edit::Count(by) => doc.increment(ROOT, "count", *by).unwrap(),
    }
    doc.commit();
}

#[test]
fn alone_all_can_be_undone_and_redone() {
    fn property(edits: Vec<Edit>) {
        let mut doc = begun().with_actor(ActorId::from([1; 16]));
        let mut states = vec![said(&doc)];
        for one in &edits {
            let before = doc.get_heads();
            edit(&mut doc, one);
            if doc.get_heads() != before {
                states.push(said(&doc));
            }
        }
        for state in states.iter().rev().skip(1) {
            assert!(step(&mut doc, 1, false));
            assert_eq!(said(&doc), *state);
        }
        assert!(!step(&mut doc, 1, false));
        for state in states.iter().skip(1) {
            assert!(step(&mut doc, 1, true));
            assert_eq!(said(&doc), *state);
        }
        assert!(!step(&mut doc, 1, true));
    }
    QuickCheck::new().rng(Gen::new(12)).tests(60).quickcheck(property as fn(Vec<Edit>));
}

#[test]
fn undoing_leaves_others_alone_and_opens_no_conflict() {
    /// What the other one's text says is there, letter by letter, and nothing is in dispute.
    fn property(hers: Vec<Edit>, his: Vec<String>) {
        let mut ann = begun().with_actor(ActorId::from([1; 16]));
        let mut ben = ann.fork().with_actor(ActorId::from([2; 16]));
        for one in &hers {
            edit(&mut ann, one);
        }
        let text = ben.get(ROOT, "text").unwrap().unwrap().1;
        for (number, _) in his.iter().enumerate() {
            ben.splice_text(&text, 2, 0, "#").unwrap();
            ben.put(ROOT, format!("his {number}"), 1).unwrap();
            ben.commit();
        }
        ann.merge(&mut ben).unwrap();
        while step(&mut ann, 1, false) {}
        let said = said(&ann);
        assert_eq!(said["text"].as_str().unwrap().matches('#').count(), his.len());
        assert!((0..his.len()).all(|number| said[format!("his {number}")] == 1));
        for key in ann.keys(ROOT).collect::<Vec<_>>() {
            assert_eq!(ann.get_all(ROOT, key.as_str()).unwrap().len(), 1);
        }
    }
    QuickCheck::new().rng(Gen::new(8)).tests(40).quickcheck(property as fn(Vec<Edit>, Vec<String>));
}
