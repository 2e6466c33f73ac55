use automerge::{Automerge, AutomergeError, ReadDoc as _, transaction::CommitOptions};
use quickcheck::quickcheck;
use serde_json::json;

use super::{
    super::{
        json_at,
        tests::{Step, heads, heads_of, json as all, written},
    },
    *,
};

fn restored(doc: &mut Automerge, to: &[ChangeHash], path: &[Prop]) -> bool {
    let mut tx = doc.transaction();
    restore(&mut tx, to, path).unwrap();
    tx.commit_with(CommitOptions::default()).0.is_some()
}

quickcheck! {
    /// Restored is as it was; and then there is nothing to restore any more.
    fn what_is_restored_is_as_it_was(steps: Vec<Step>, then: u8) -> bool {
        let mut doc = written(&steps);
        let then = heads_of(&doc, then);
        let was = json_at(&doc, &then, &[]).unwrap();
        restored(&mut doc, &then, &[]);
        all(&doc) == was && !restored(&mut doc, &then, &[])
    }

    /// Back and forth again.
    fn what_was_undone_can_be_redone(steps: Vec<Step>, then: u8) -> bool {
        let mut doc = written(&steps);
        let (then, last) = (heads_of(&doc, then), heads(&doc));
        let was = all(&doc);
        restored(&mut doc, &then, &[]);
        restored(&mut doc, &last, &[]);
        all(&doc) == was
    }

    /// One field, and no other.
    fn a_field_is_restored_alone(steps: Vec<Step>, then: u8, key: u8) -> bool {
        let mut doc = written(&steps);
        let then = heads_of(&doc, then);
        let key = ["text", "list", "map", "counter"][usize::from(key) % 4];
        let (was, mut is) = (json_at(&doc, &then, &[]).unwrap(), all(&doc));
        if was.get(key).is_none() && is.get(key).is_none() {
            return true;
        }
        restored(&mut doc, &then, &[Prop::from(key)]);
        match was.get(key) {
            Some(value) => is[key] = value.clone(),
            None => drop(is.as_object_mut().unwrap().remove(key)),
        }
        all(&doc) == is
    }
}

type Done<T> = Result<T, AutomergeError>;

#[test]
fn edits_that_others_make_meanwhile_stay() {
    let mut doc = Automerge::new();
    let (text, list) = doc
        .transact(|tx| -> Done<_> {
            let text = tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, "Milk and bread")?;
            let list = tx.put_object(ROOT, "list", ObjType::List)?;
            tx.insert(&list, 0, "one")?;
            tx.insert(&list, 1, "two")?;
            tx.put(ROOT, "count", ScalarValue::counter(3))?;
            Ok((text, list))
        })
        .unwrap()
        .result;
    let then = heads(&doc);
    doc.transact(|tx| -> Done<_> {
        tx.splice_text(&text, 0, 4, "Beer")?;
        tx.delete(&list, 0)?;
        tx.increment(ROOT, "count", 5)
    })
    .unwrap();
    let mut other = doc.fork();
    other
        .transact(|tx| -> Done<_> {
            tx.splice_text(&text, 14, 0, " and jam")?;
            tx.insert(&list, 1, "three")?;
            tx.increment(ROOT, "count", 100)
        })
        .unwrap();
    restored(&mut doc, &then, &[]);
    doc.merge(&mut other).unwrap();
    let expected =
        json!({"count": 103, "list": ["one", "two", "three"], "text": "Milk and bread and jam"});
    assert_eq!(all(&doc), expected);
}

#[test]
fn an_element_is_found_where_it_is_now() {
    let mut doc = Automerge::new();
    let list = doc
        .transact(|tx| -> Done<_> {
            let list = tx.put_object(ROOT, "list", ObjType::List)?;
            for (at, title) in ["a", "b", "c"].into_iter().enumerate() {
                let item = tx.insert_object(&list, at, ObjType::Map)?;
                tx.put(&item, "title", title)?;
            }
            Ok(list)
        })
        .unwrap()
        .result;
    let then = heads(&doc);
    doc.transact(|tx| -> Done<_> {
        tx.insert(&list, 0, "new")?;
        let (_, item) = tx.get(&list, 2)?.unwrap();
        tx.put(&item, "title", "other")?;
        tx.delete(&list, 3)
    })
    .unwrap();
    let at = |steps: &[Prop]| [&[Prop::from("list")], steps].concat();
    let title = at(&[Prop::Seq(1), Prop::from("title")]);
    assert!(restored(&mut doc, &then, &title));
    assert_eq!(all(&doc), json!({"list": ["new", {"title": "a"}, {"title": "b"}]}));
    assert!(restored(&mut doc, &then, &at(&[Prop::Seq(2)])));
    let expected = json!({"list": ["new", {"title": "a"}, {"title": "b"}, {"title": "c"}]});
    assert_eq!(all(&doc), expected);
    // What was deleted and is to be restored in parts is not there.
    doc.transact(|tx| tx.delete(&list, 3)).unwrap();
    let gone = at(&[Prop::Seq(2), Prop::from("title")]);
    let refused = restore(&mut doc.transaction(), &then, &gone).unwrap_err();
    assert_eq!(refused.to_string(), "list[2] is not in the document as it is now");
}

#[test]
fn formats_are_restored() {
    let mut doc = Automerge::new();
    let bold = |start, end| Mark::new("bold".to_owned(), true, start, end);
    let text = doc
        .transact(|tx| -> Done<_> {
            let text = tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, "Milk and bread")?;
            tx.mark(&text, bold(0, 4), ExpandMark::After)?;
            Ok(text)
        })
        .unwrap()
        .result;
    let then = heads(&doc);
    let was = doc.marks(&text).unwrap();
    doc.transact(|tx| -> Done<_> {
        tx.unmark(&text, "bold", 0, 4, ExpandMark::After)?;
        tx.mark(&text, bold(9, 14), ExpandMark::After)
    })
    .unwrap();
    restored(&mut doc, &then, &[]);
    assert_eq!(doc.marks(&text).unwrap(), was);
}

#[test]
fn what_is_not_there_is_refused() {
    let mut doc = written(&[]);
    let (then, mut tx) = (heads(&doc), doc.transaction());
    let unknown = restore(&mut tx, &[ChangeHash([1; 32])], &[]);
    assert!(matches!(unknown, Err(HistoryError::NoChange(_))));
    for path in [
        vec![Prop::from("nothing")],
        vec![Prop::from("list"), Prop::Seq(0)],
        vec![Prop::from("text"), Prop::Seq(0)],
        vec![Prop::from("list"), Prop::Seq(7), Prop::from("a")],
        vec![Prop::Seq(0)],
        vec![Prop::from("counter"), Prop::from("a")],
    ] {
        let refused = restore(&mut tx, &then, &path);
        assert!(matches!(refused, Err(HistoryError::NoPath { .. })), "{path:?} {refused:?}");
    }
    tx.rollback();
}
