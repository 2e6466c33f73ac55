use automerge::{
    AutoCommit, ObjType, ROOT, ReadDoc as _, ScalarValue, Value, transaction::Transactable as _,
};
use quickcheck::{Arbitrary, Gen, quickcheck};

use super::*;
use crate::{
    history::{self, Stamp},
    json,
};

fn names() -> impl FnMut() -> ActorId {
    let mut next = 100_u8;
    move || {
        next += 1;
        ActorId::from([next; 16])
    }
}

fn commit(doc: &mut AutoCommit) -> ChangeHash {
    ChangeHash(doc.commit().unwrap().0)
}

fn shown(doc: &Automerge) -> serde_json::Value {
    json::to_json(doc, &Value::Object(ObjType::Map), &ROOT).unwrap()
}

/// Without that change, and loaded from what is stored of it.
fn after(doc: &mut AutoCommit, gone: ChangeHash) -> (Rebased, Automerge) {
    let rebased = without(doc.document(), gone, names()).unwrap();
    let made = rebased.document().unwrap();
    let limits = concord_protocol::Limits::default();
    for change in rebased.changes() {
        let bytes = bytes::Bytes::copy_from_slice(change.raw_bytes());
        concord_protocol::guard::check_change(&bytes, &limits).unwrap();
    }
    let loaded = Automerge::load(&made.save()).unwrap();
    assert_eq!(shown(&loaded), shown(&made));
    history::verify_document(&made).unwrap();
    (rebased, made)
}

#[test]
fn what_was_made_after_it_stays() {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    doc.put(ROOT, "title", "Shopping").unwrap();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, "milk").unwrap();
    commit(&mut doc);
    doc.put(ROOT, "title", "refused").unwrap();
    doc.splice_text(&text, 4, 0, ", and far too much").unwrap();
    let gone = commit(&mut doc);
    doc.splice_text(&text, 0, 0, "bread, ").unwrap();
    doc.put(ROOT, "done", true).unwrap();
    let next = commit(&mut doc);
    doc.splice_text(&text, text_length(&doc, &text), 0, "; eggs").unwrap();
    commit(&mut doc);

    let (rebased, made) = after(&mut doc, gone);
    let expected = serde_json::json!({
        "title": "Shopping", "text": "bread, milk; eggs", "done": true,
    });
    assert_eq!(shown(&made), expected);
    assert_eq!((rebased.kept.len(), rebased.rewritten.len()), (1, 2));
    assert_eq!(rebased.rewritten[0].0, next);
    assert!(rebased.lost.is_empty());
}

fn text_length(doc: &AutoCommit, text: &automerge::ObjId) -> usize {
    doc.length(text)
}

#[test]
fn what_was_done_to_what_it_made_is_gone_with_it_and_counted() {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
    doc.insert(&list, 0, "a").unwrap();
    doc.insert(&list, 1, "b").unwrap();
    commit(&mut doc);
    let item = doc.insert_object(&list, 1, ObjType::Map).unwrap();
    doc.put(ROOT, "count", ScalarValue::counter(5)).unwrap();
    doc.delete(&list, 0).unwrap();
    let gone = commit(&mut doc);
    doc.put(&item, "name", "x").unwrap();
    doc.increment(ROOT, "count", 2).unwrap();
    doc.insert(&list, 1, "c").unwrap();
    let next = commit(&mut doc);
    let (rebased, made) = after(&mut doc, gone);
    assert_eq!(shown(&made), serde_json::json!({ "list": ["a", "c", "b"] }));
    assert_eq!(rebased.lost, BTreeMap::from([(next, 2)]));
}

#[test]
fn a_value_over_one_that_is_gone_is_over_what_was_there_before() {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    doc.put(ROOT, "a", 1).unwrap();
    doc.put(ROOT, "b", 1).unwrap();
    commit(&mut doc);
    doc.put(ROOT, "a", 2).unwrap();
    doc.delete(ROOT, "b").unwrap();
    let gone = commit(&mut doc);
    doc.put(ROOT, "a", 3).unwrap();
    doc.put(ROOT, "b", 3).unwrap();
    commit(&mut doc);
    doc.delete(ROOT, "a").unwrap();
    commit(&mut doc);
    let (_, made) = after(&mut doc, gone);
    assert_eq!(shown(&made), serde_json::json!({ "b": 3 }));
    assert_eq!(made.get_all(ROOT, "b").unwrap().len(), 1, "nothing is in dispute");
}

#[test]
fn authors_times_and_words_stay() {
    let mut doc = Automerge::new().with_actor(ActorId::from([1; 16]));
    doc.set_author(Some(history::author("ann").unwrap())).set_actor(ActorId::from([2; 16]));
    let put = |doc: &mut Automerge, key: &str, time: i64| {
        let mut tx = doc.transaction();
        tx.put(ROOT, key, 1).unwrap();
        let options = automerge::transaction::CommitOptions::default();
        let words = format!("wrote {key}");
        ChangeHash(tx.commit_with(options.with_time(time).with_message(words)).0.unwrap().0)
    };
    put(&mut doc, "a", 10);
    let gone = put(&mut doc, "b", 20);
    put(&mut doc, "c", 30);
    let made = without(&doc, gone, names()).unwrap().document().unwrap();
    let told: Vec<_> = made
        .get_changes(&[])
        .iter()
        .map(|change| {
            let stamp = Stamp::of(&made, &ChangeHash(change.hash().0)).unwrap();
            (stamp.author, stamp.time_s, stamp.message)
        })
        .collect();
    assert_eq!(told.len(), 2);
    for (author, time, message) in told {
        assert_eq!(author.as_deref(), Some("ann"));
        let key = if time == 10 { "a" } else { "c" };
        assert_eq!(message.as_deref(), Some(&*format!("wrote {key}")));
    }
}

/// One edit, of things that have names: what it means is the same wherever it is made.
#[derive(Debug, Clone)]
enum Edit {
    Put(u8, i64),
    Delete(u8),
    Add(i64),
    /// At the end of the list.
    Push(u8),
    Letter(char),
}

impl Arbitrary for Edit {
    fn arbitrary(g: &mut Gen) -> Self {
        match u8::arbitrary(g) % 6 {
            0 | 1 => Self::Put(u8::arbitrary(g) % 3, i64::arbitrary(g)),
            2 => Self::Delete(u8::arbitrary(g) % 3),
            3 => Self::Add(i64::from(i8::arbitrary(g))),
            4 => Self::Push(u8::arbitrary(g)),
            _ => Self::Letter(*g.choose(&['a', 'b', 'c']).unwrap()),
        }
    }
}

/// A document of these edits; and the change of each that wrote anything. To delete what is not
/// there, or put what is, says nothing that could be kept.
fn played<'a>(edits: impl Iterator<Item = &'a Edit>) -> (AutoCommit, Vec<Option<ChangeHash>>) {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.put(ROOT, "count", ScalarValue::counter(0)).unwrap();
    commit(&mut doc);
    let mut made = Vec::new();
    for edit in edits {
        match edit {
            Edit::Put(key, value) => doc.put(ROOT, format!("k{key}"), *value).unwrap(),
            Edit::Delete(key) => {
                let key = format!("k{key}");
                if doc.get(ROOT, &key).unwrap().is_some() {
                    doc.delete(ROOT, &key).unwrap();
                }
            }
            Edit::Add(by) => doc.increment(ROOT, "count", *by).unwrap(),
            Edit::Push(n) => doc.insert(&list, doc.length(&list), i64::from(*n)).unwrap(),
            Edit::Letter(c) => {
                let end = doc.length(&text);
                doc.splice_text(&text, end, 0, &c.to_string()).unwrap();
            }
        }
        made.push(doc.commit().map(|hash| ChangeHash(hash.0)));
    }
    (doc, made)
}

quickcheck! {
    /// Without a change a document is what it would be had the change never been made.
    fn a_document_is_as_if_the_change_had_never_been(edits: Vec<Edit>, which: usize) -> bool {
        if edits.is_empty() {
            return true;
        }
        let which = which % edits.len();
        let (mut doc, made) = played(edits.iter());
        let Some(gone) = made[which] else { return true };
        let said = edits.iter().zip(&made).filter(|(_, made)| made.is_some_and(|it| it != gone));
        let (mut expected, _) = played(said.map(|(edit, _)| edit));
        let (_, without_it) = after(&mut doc, gone);
        shown(&without_it) == shown(expected.document())
    }

    /// Nor does it matter in which order several are taken out.
    fn two_that_go_go_in_any_order(edits: Vec<Edit>, one: usize, other: usize) -> bool {
        if edits.len() < 2 {
            return true;
        }
        let (one, other) = (one % edits.len(), other % edits.len());
        let (mut doc, made) = played(edits.iter());
        let (Some(one), Some(other)) = (made[one], made[other]) else { return true };
        if one == other {
            return true;
        }
        let mut both = |first: ChangeHash, second: ChangeHash| {
            let rebased = without(doc.document(), first, names()).unwrap();
            let again = rebased.rewritten.iter().find(|(was, _)| *was == second);
            let second = again.map_or(second, |(_, change)| ChangeHash(change.hash().0));
            let made = rebased.document().unwrap();
            if made.get_change_meta_by_hash(&Hash(second.0)).is_none() {
                // All that it did is gone already.
                return shown(&made);
            }
            let mut next = 200_u8;
            let names = || { next += 1; ActorId::from([next; 16]) };
            shown(&without(&made, second, names).unwrap().document().unwrap())
        };
        both(one, other) == both(other, one)
    }
}
