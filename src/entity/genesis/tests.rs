use automerge::{Automerge, ROOT, ReadDoc as _, transaction::Transactable as _};
use concord_protocol::{Limits, guard};

use crate::entity::{EntityType, Schema};

const EXAMPLE: &str = include_str!("../../../schema/example.toml");

const FIRST: &str = r#"
[types.note]
[types.note.fields]
title = "text"
likes = "counter"
address = { kind = "map", fields = { street = "string" } }
"#;

const SECOND: &str = r#"
[types.note]
version = 2
[types.note.fields]
name = "text"
likes = "counter"
address = { kind = "map", fields = { street = "string", remarks = "text" } }
tags = { kind = "set", items = "string" }
[[types.note.migrations]]
version = 2
rename = "title"
to = "name"
[[types.note.migrations]]
version = 2
add = "tags"
[[types.note.migrations]]
version = 2
add = "address.remarks"
"#;

fn only(text: &str) -> EntityType {
    Schema::parse(text).unwrap().types.into_values().next().unwrap()
}

fn hashes(of: &EntityType) -> Vec<String> {
    of.genesis().unwrap().iter().map(|change| change.hash().to_string()).collect()
}

#[test]
fn every_replica_makes_the_same_bytes_for_ever() {
    assert_eq!(
        hashes(&only(FIRST)),
        ["ee3856ece37021058037cb6a87f51191e4cfee3cb7a411e5d81f118e66f9e212"]
    );
    assert_eq!(
        hashes(&only(SECOND)),
        [
            "ee3856ece37021058037cb6a87f51191e4cfee3cb7a411e5d81f118e66f9e212",
            "0d2cc931c03058c71889037c591ec2a4a02868605d964be603e6cae20a3ab50a"
        ]
    );
    let task = &Schema::parse(EXAMPLE).unwrap().types["task"];
    let bytes: Vec<_> = task.genesis().unwrap().iter().map(|it| it.raw_bytes().to_vec()).collect();
    let again: Vec<_> = task.genesis().unwrap().iter().map(|it| it.raw_bytes().to_vec()).collect();
    assert_eq!(bytes, again);
}

#[test]
fn the_guard_lets_it_pass_and_it_is_made_at_no_time_by_nobody() {
    let task = &Schema::parse(EXAMPLE).unwrap().types["task"];
    for change in task.genesis().unwrap() {
        let header =
            guard::check_change(&change.raw_bytes().to_vec().into(), &Limits::default()).unwrap();
        assert_eq!(header.seq, 1);
        assert_eq!((change.timestamp(), change.message()), (0, None));
        let read = automerge::Change::from_bytes(change.raw_bytes().to_vec()).unwrap();
        assert_eq!(read.hash(), change.hash());
    }
}

#[test]
fn two_who_begin_apart_have_one_of_each() {
    let of = only(FIRST);
    let (mut ann, mut ben) = (Automerge::new(), Automerge::new());
    for (doc, text) in [(&mut ann, "Ann"), (&mut ben, "Ben")] {
        assert!(of.begin(doc).unwrap());
        assert!(!of.begin(doc).unwrap(), "once");
        let mut tx = doc.transaction();
        let (_, title) = tx.get(ROOT, "title").unwrap().unwrap();
        tx.splice_text(&title, 0, 0, text).unwrap();
        tx.increment(ROOT, "likes", 2).unwrap();
        tx.commit();
    }
    ann.merge(&mut ben).unwrap();
    assert_eq!(ann.get_all(ROOT, "title").unwrap().len(), 1);
    let (_, title) = ann.get(ROOT, "title").unwrap().unwrap();
    assert_eq!(ann.text(&title).unwrap().len(), 6, "both texts are there");
    assert_eq!(ann.get(ROOT, "likes").unwrap().unwrap().0.as_i64(), Some(4));
    assert_eq!(ann.get(ROOT, "type").unwrap().unwrap().0.into_string().unwrap(), "note");
}

#[test]
fn a_newer_version_goes_on_from_the_older_in_any_order() {
    let (first, second) = (only(FIRST), only(SECOND));
    assert_eq!(second.genesis().unwrap().len(), 2);
    assert_eq!(hashes(&first)[0], hashes(&second)[0], "the first is the same in both");

    let (mut old, mut new) = (Automerge::new(), Automerge::new());
    first.begin(&mut old).unwrap();
    second.begin(&mut new).unwrap();
    let mut changes = second.genesis().unwrap();
    changes.reverse();
    let mut backwards = Automerge::new();
    for change in changes {
        backwards.apply_changes([change]).unwrap();
    }
    // Both edit, then the old one is brought up to date, by itself and by the other.
    let mut tx = old.transaction();
    let (_, title) = tx.get(ROOT, "title").unwrap().unwrap();
    tx.splice_text(&title, 0, 0, "old").unwrap();
    tx.commit();
    second.begin(&mut old).unwrap();
    old.merge(&mut new).unwrap();
    backwards.merge(&mut old).unwrap();
    new.merge(&mut backwards).unwrap();
    assert_eq!(old.get_heads(), new.get_heads());
    assert_eq!(backwards.get_heads(), new.get_heads());
    for slot in ["title", "likes", "address", "tags"] {
        assert_eq!(new.get_all(ROOT, slot).unwrap().len(), 1, "{slot}");
    }
    let (_, address) = new.get(ROOT, "address").unwrap().unwrap();
    assert_eq!(new.get_all(&address, "remarks").unwrap().len(), 1);
    assert!(new.get(ROOT, "name").unwrap().is_none(), "a renamed field stays where it was");
}

#[test]
fn what_plain_clients_made_is_left_alone() {
    let mut doc = Automerge::new();
    let mut tx = doc.transaction();
    tx.put(ROOT, "type", "note").unwrap();
    tx.put_object(ROOT, "title", automerge::ObjType::Text).unwrap();
    tx.commit();
    assert!(!only(FIRST).begin(&mut doc).unwrap());
    assert_eq!(doc.get_all(ROOT, "title").unwrap().len(), 1);
}

#[test]
fn schemas_that_differ_make_no_change_twice_by_one_actor() {
    let other = only(&FIRST.replace("likes = \"counter\"", "likes = \"text\""));
    let (one, other) = (only(FIRST).genesis().unwrap(), other.genesis().unwrap());
    assert_ne!(one[0].actor_id(), other[0].actor_id());
}
