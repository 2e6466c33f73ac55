//! Fields that wait for a decision: readers see the value that stands, and that it is in review.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::collections::BTreeSet;

use automerge::{
    ActorId, Automerge, AutomergeError, ObjType, ROOT, ReadDoc as _,
    transaction::{Transactable as _, Transaction},
};
use concord::{
    entity::{Impact, Schema},
    review::{Detector, hold::in_review, open},
};
use concord_protocol::DocumentId;

const SCHEMA: &str = r#"
    [types.task.fields]
    title = { kind = "string", hold = true }
    notes = { kind = "text", hold = true }
    count = "integer"
    start = { kind = "integer", hold = true }
    end = "integer"

    [types.task.fields.address]
    kind = "map"
    fields = { street = { kind = "string", hold = true }, city = "string" }

    [types.task.fields.lines]
    kind = "list"
    [types.task.fields.lines.items]
    kind = "map"
    fields = { amount = { kind = "integer", hold = true }, what = "string" }

    [types.task.invariants]
    dates = "start < end"
"#;

type Edit = fn(&mut Transaction<'_>) -> Result<(), AutomergeError>;

/// What is in review after two did this, not knowing of each other.
fn held(one: Edit, other: Edit) -> BTreeSet<String> {
    let schema = Schema::parse(SCHEMA).unwrap();
    let of = &schema.types["task"];
    let mut doc = Automerge::new().with_actor(ActorId::from([1; 16]));
    of.begin(&mut doc).unwrap();
    let edit = |doc: &mut Automerge, edit: Edit| {
        let mut tx = doc.transaction();
        edit(&mut tx).unwrap();
        tx.commit();
    };
    edit(&mut doc, |tx| {
        tx.put(ROOT, "title", "Trip")?;
        tx.put(ROOT, "start", 1)?;
        tx.put(ROOT, "end", 5)?;
        let (_, address) = tx.get(ROOT, "address")?.unwrap();
        tx.put(&address, "street", "Via Appia")?;
        let (_, lines) = tx.get(ROOT, "lines")?.unwrap();
        let line = tx.insert_object(&lines, 0, ObjType::Map)?;
        tx.put(&line, "amount", 3)
    });
    let mut theirs = doc.fork().with_actor(ActorId::from([2; 16]));
    edit(&mut doc, one);
    edit(&mut theirs, other);
    doc.merge(&mut theirs).unwrap();
    let detector = Detector::of(&doc.get_changes(&[])).unwrap();
    let open = open(&doc, &detector, &DocumentId::from_bytes(&[7; 16]), Some(&schema));
    assert!(!open.is_empty(), "they disagree");
    in_review(&doc, of, &open).into_keys().collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn a_field_is_held_where_somebody_disagrees_about_it_or_about_what_it_is_in() {
    let both = held(|tx| tx.put(ROOT, "title", "To Rome"), |tx| tx.put(ROOT, "title", "To Paris"));
    assert_eq!(both, set(&["title"]));
    let other = held(|tx| tx.put(ROOT, "count", 1), |tx| tx.put(ROOT, "count", 2));
    assert_eq!(other, set(&[]), "what is not held is not");
    let inside = held(
        |tx| {
            let (_, address) = tx.get(ROOT, "address")?.unwrap();
            tx.put(&address, "street", "one")
        },
        |tx| {
            let (_, address) = tx.get(ROOT, "address")?.unwrap();
            tx.put(&address, "street", "other")
        },
    );
    assert_eq!(inside, set(&["address.street"]));
    let beside = held(
        |tx| {
            let (_, address) = tx.get(ROOT, "address")?.unwrap();
            tx.put(&address, "city", "one")
        },
        |tx| {
            let (_, address) = tx.get(ROOT, "address")?.unwrap();
            tx.put(&address, "city", "other")
        },
    );
    assert_eq!(beside, set(&[]));
    let around = held(
        |tx| tx.delete(ROOT, "address"),
        |tx| {
            let (_, address) = tx.get(ROOT, "address")?.unwrap();
            tx.put(&address, "city", "Rome")
        },
    );
    assert_eq!(around, set(&["address.street"]), "what it is in may go");
    let line = held(
        |tx| {
            let (_, lines) = tx.get(ROOT, "lines")?.unwrap();
            let (_, line) = tx.get(&lines, 0)?.unwrap();
            tx.put(&line, "amount", 7)
        },
        |tx| {
            let (_, lines) = tx.get(ROOT, "lines")?.unwrap();
            let (_, line) = tx.get(&lines, 0)?.unwrap();
            tx.put(&line, "amount", 8)
        },
    );
    assert_eq!(line, set(&["lines.amount"]));
    let rule = held(|tx| tx.put(ROOT, "start", 4), |tx| tx.put(ROOT, "end", 2));
    assert_eq!(rule, set(&["start"]), "of a rule that is broken, what is held");
    let lost = held(
        |tx| tx.delete(ROOT, "notes"),
        |tx| {
            let (_, notes) = tx.get(ROOT, "notes")?.unwrap();
            tx.splice_text(&notes, 0, 0, "so it is")
        },
    );
    assert_eq!(lost, set(&["notes"]));
}

#[test]
fn what_a_policy_decides_is_not_held_and_a_difference_is_told() {
    let wrong = "[types.a.fields]\nb = { kind = \"integer\", policy = \"max\", hold = true }";
    let errors = Schema::parse(wrong).unwrap_err().to_string();
    assert!(errors.contains("held for people, and decided by the policy `max`"), "{errors}");
    let [old, new] = ["b = \"integer\"", "b = { kind = \"integer\", hold = true }"]
        .map(|field| Schema::parse(&format!("[types.a.fields]\n{field}")).unwrap());
    for (one, other, what) in
        [(&old, &new, "is held while people disagree"), (&new, &old, "is not held any more")]
    {
        let found = one.diff(other);
        assert_eq!((found.len(), found[0].impact), (1, Impact::Compatible));
        assert_eq!(found[0].what, what);
    }
}
