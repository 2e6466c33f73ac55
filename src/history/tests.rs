//! Documents with any history, for the laws of this module.

use automerge::{
    ActorId, Automerge, ObjId, ObjType, ROOT, ReadDoc as _, ScalarValue, Value,
    transaction::{CommitOptions, Transactable as _, Transaction},
};
use concord_protocol::ChangeHash;
use quickcheck::{Arbitrary, Gen};
use serde_json::Value as Json;

use crate::json::{path, to_json};

/// Replicas that write in a history.
const REPLICAS: usize = 3;

/// One thing that happens on one of the replicas.
#[derive(Debug, Clone)]
pub(super) struct Step {
    replica: usize,
    what: u8,
    key: u8,
    at: usize,
    value: u8,
    time: u8,
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        Self {
            replica: usize::arbitrary(g) % REPLICAS,
            what: u8::arbitrary(g),
            key: u8::arbitrary(g),
            at: usize::arbitrary(g),
            value: u8::arbitrary(g),
            time: u8::arbitrary(g),
        }
    }
}

/// A document in which three replicas did all this, and met now and then.
pub(super) fn written(steps: &[Step]) -> Automerge {
    let mut base = Automerge::new().with_actor(ActorId::from([9; 16]));
    base.transact::<_, _, automerge::AutomergeError>(|tx| {
        for (key, kind) in [("text", ObjType::Text), ("list", ObjType::List), ("map", ObjType::Map)]
        {
            tx.put_object(ROOT, key, kind)?;
        }
        tx.put(ROOT, "counter", ScalarValue::counter(1))
    })
    .unwrap();
    let mut replicas: Vec<Automerge> = (0..REPLICAS)
        .map(|number| {
            let number = u8::try_from(number).unwrap();
            base.fork().with_actor(ActorId::from([number; 16]))
        })
        .collect();
    for step in steps {
        if step.what % 8 == 7 {
            let mut other = replicas[(step.replica + 1) % REPLICAS].clone();
            replicas[step.replica].merge(&mut other).unwrap();
            continue;
        }
        let mut tx = replicas[step.replica].transaction();
        edit(&mut tx, step);
        tx.commit_with(CommitOptions::default().with_time(i64::from(step.time % 4)));
    }
    let mut all = replicas.remove(0);
    for mut other in replicas {
        all.merge(&mut other).unwrap();
    }
    all
}

fn edit(tx: &mut Transaction<'_>, step: &Step) {
    let Step { what, key, at, value, .. } = step;
    let find = |tx: &Transaction<'_>, key: &str| match tx.get(ROOT, key).unwrap() {
        Some((Value::Object(kind), id)) => Some((kind, id)),
        _ => None,
    };
    let name = ["text", "list", "map", "counter", "other"][usize::from(*key) % 5];
    match (what % 8, find(tx, name)) {
        (0..=4, Some((ObjType::Text, id))) => {
            let length = tx.length(&id);
            let from = at % (length + 1);
            let gone = usize::from(value % 3).min(length - from);
            let new = ["", "a", "bc", "xyz"][usize::from(*value) / 3 % 4];
            tx.splice_text(&id, from, isize::try_from(gone).unwrap(), new).unwrap();
        }
        (0..=4, Some((ObjType::List, id))) => in_list(tx, &id, *at, *value),
        (0..=4, Some((_, id))) => {
            let key = format!("k{}", at % 3);
            match value % 5 {
                0 => tx.put(&id, key, i64::from(*value)).unwrap(),
                1 => drop(tx.put_object(&id, key, ObjType::Map).unwrap()),
                2 => tx.delete(&id, key).unwrap(),
                3 => {
                    let text = tx.put_object(&id, key, ObjType::Text).unwrap();
                    tx.splice_text(&text, 0, 0, "new").unwrap();
                }
                _ => tx.put(&id, key, "word").unwrap(),
            }
        }
        (0..=4, None) => {
            let is_counter = matches!(tx.get(ROOT, name).unwrap(),
                Some((Value::Scalar(value), _)) if value.is_counter());
            if is_counter {
                tx.increment(ROOT, name, i64::from(*value) - 100).unwrap();
            } else {
                tx.put(ROOT, name, i64::from(*value)).unwrap();
            }
        }
        (5, _) => tx.delete(ROOT, name).unwrap(),
        (_, found) => {
            let kind = [ObjType::Text, ObjType::List, ObjType::Map][at % 3];
            if found.is_none_or(|(there, _)| there != kind) {
                tx.put_object(ROOT, name, kind).unwrap();
            }
        }
    }
}

fn in_list(tx: &mut Transaction<'_>, id: &ObjId, at: usize, value: u8) {
    let length = tx.length(id);
    match value % 5 {
        0 if length > 0 => tx.delete(id, at % length).unwrap(),
        1 if length > 0 => tx.put(id, at % length, i64::from(value)).unwrap(),
        2 => {
            let map = tx.insert_object(id, at % (length + 1), ObjType::Map).unwrap();
            tx.put(&map, "in", i64::from(value)).unwrap();
        }
        3 if length > 0 => {
            if let Some((Value::Object(ObjType::Map), map)) = tx.get(id, at % length).unwrap() {
                tx.put(&map, "more", i64::from(value)).unwrap();
            }
        }
        _ => tx.insert(id, at % (length + 1), i64::from(value)).unwrap(),
    }
}

/// The heads of a document.
pub(super) fn heads(doc: &Automerge) -> Vec<ChangeHash> {
    doc.get_heads().iter().map(|head| ChangeHash(head.0)).collect()
}

/// Heads of a state that the document was in, or could have been in.
pub(super) fn heads_of(doc: &Automerge, number: u8) -> Vec<ChangeHash> {
    let changes = doc.get_changes_meta(&[]);
    match usize::from(number) % (changes.len() + 2) {
        0 => Vec::new(),
        1 => heads(doc),
        at => vec![ChangeHash(changes[at - 2].hash.0)],
    }
}

/// All that a document says.
pub(super) fn json(doc: &Automerge) -> Json {
    to_json(doc, &Value::Object(ObjType::Map), &ROOT).unwrap()
}

/// What strangers write: nothing overflows the stack, and what cannot be shown is refused.
#[test]
fn a_document_that_is_nested_deeper_than_any_stack_is_no_danger() {
    const DEPTH: usize = 5_000;
    let mut doc = Automerge::new();
    doc.transact(|tx| {
        let mut at = ROOT;
        for depth in 0..DEPTH {
            at = if depth % 2 == 0 {
                tx.put_object(&at, "in", ObjType::List)?
            } else {
                tx.insert_object(&at, 0, ObjType::Map)?
            };
        }
        Ok::<_, automerge::AutomergeError>(())
    })
    .unwrap();
    let last = heads(&doc);
    let (_, list) = doc.get(ROOT, "in").unwrap().unwrap();
    let (_, map) = doc.get(&list, 0).unwrap().unwrap();
    doc.transact(|tx| {
        tx.put(&map, "more", 2)?;
        tx.put(ROOT, "other", 1)
    })
    .unwrap();
    let now = heads(&doc);
    // What follows what happens is not stopped by it; who asks for it is told.
    assert!(super::at(&doc, &last).is_ok());
    let paths = super::diff(&doc, &last, &now).unwrap().into_iter();
    let paths: Vec<_> = paths.map(|difference| path(difference.path.iter())).collect();
    assert_eq!(paths, ["other", "in[0].more"]);
    let whole = super::diff(&doc, &[], &now).unwrap();
    assert!(matches!(&whole[0].what, super::What::Put { after: Json::Null, .. }), "{whole:?}");
    assert!(super::json_at(&doc, &last, &[]).is_err());
    assert!(super::blame(&doc, &[]).is_err());
    assert_eq!(super::events(&doc, None, &[], 9).unwrap().events.len(), 4);
    assert_eq!(super::log(&doc, &[], super::Order::default(), 9).unwrap().len(), 2);
    assert_eq!(super::verify_document(&doc), Ok(2));
    let mut tx = doc.transaction();
    assert!(super::restore(&mut tx, &last, &[]).is_err());
    tx.rollback();
    let mut tx = doc.transaction();
    super::restore(&mut tx, &last, &["other".into()]).unwrap();
    tx.rollback();
}
