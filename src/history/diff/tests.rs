use quickcheck::quickcheck;
use serde_json::json;

use super::{
    super::{
        json_at,
        tests::{Step, heads, heads_of, written},
    },
    *,
};

/// Does it, and checks that what is told of before was there.
fn apply(to: &mut Json, difference: &Difference) {
    let Difference { path, what } = difference;
    let whole = matches!(what, What::Splice { .. } | What::Mark { .. });
    let (last, above) = match path.split_last() {
        Some((last, above)) if !whole => (Some(last), above),
        _ => (None, path.as_slice()),
    };
    let place = above.iter().fold(to, |at, step| match step {
        Prop::Map(key) => at.get_mut(key).unwrap(),
        Prop::Seq(index) => at.get_mut(index).unwrap(),
    });
    match (what, last) {
        (What::Put { before, after }, Some(Prop::Map(key))) => {
            let map = place.as_object_mut().unwrap();
            assert_eq!(map.insert(key.clone(), after.clone()), *before, "{difference:?}");
        }
        (What::Put { before, after }, Some(Prop::Seq(index))) => {
            let was = std::mem::replace(&mut place[*index], after.clone());
            assert_eq!(Some(was), *before, "{difference:?}");
        }
        (What::Delete { before }, Some(Prop::Map(key))) => {
            assert_eq!(place.as_object_mut().unwrap().remove(key), *before);
        }
        (What::Insert { values }, Some(Prop::Seq(index))) => {
            place.as_array_mut().unwrap().splice(index..index, values.clone());
        }
        (What::Remove { values }, Some(Prop::Seq(index))) => {
            let list = place.as_array_mut().unwrap();
            let was: Vec<Json> = list.drain(*index..index + values.len()).collect();
            assert_eq!(was, *values);
        }
        (What::Splice { index, removed, inserted }, None) => {
            let text: Vec<char> = place.as_str().unwrap().chars().collect();
            let (first, rest) = text.split_at(*index);
            let rest: String = rest.iter().collect();
            let rest = rest.strip_prefix(removed.as_str()).unwrap();
            let first: String = first.iter().collect();
            *place = json!(format!("{first}{inserted}{rest}"));
        }
        (What::Increment { by }, Some(Prop::Map(key))) => {
            place[key] = json!(place[key].as_i64().unwrap() + by);
        }
        (What::Conflict | What::Mark { .. }, _) => {}
        other => panic!("not of a kind that is written: {other:?}"),
    }
}

quickcheck! {
    /// Between any two states, in either direction, also of which neither came first.
    fn what_is_different_done_to_what_was_gives_what_is(
        steps: Vec<Step>,
        before: u8,
        after: u8
    ) -> bool {
        let doc = written(&steps);
        let (before, after) = (heads_of(&doc, before), heads_of(&doc, after));
        let mut json = json_at(&doc, &before, &[]).unwrap();
        for difference in diff(&doc, &before, &after).unwrap() {
            apply(&mut json, &difference);
        }
        json == json_at(&doc, &after, &[]).unwrap()
    }

    fn a_state_does_not_differ_from_itself(steps: Vec<Step>, at: u8) -> bool {
        let doc = written(&steps);
        let heads = heads_of(&doc, at);
        diff(&doc, &heads, &heads).unwrap().is_empty()
    }
}

#[test]
fn what_is_different_is_told_in_whole_words() {
    use automerge::{ROOT, transaction::Transactable as _};
    let mut doc = Automerge::new();
    let text = doc
        .transact(|tx| {
            tx.put(ROOT, "title", "Shopping")?;
            tx.put(ROOT, "gone", 1)?;
            let text = tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, "Milk and bread")?;
            Ok::<_, automerge::AutomergeError>(text)
        })
        .unwrap()
        .result;
    let before = heads(&doc);
    doc.transact(|tx| {
        tx.put(ROOT, "title", "Errands")?;
        tx.delete(ROOT, "gone")?;
        tx.splice_text(&text, 9, 5, "cheese")?;
        let list = tx.put_object(ROOT, "items", ObjType::List)?;
        let item = tx.insert_object(&list, 0, ObjType::Map)?;
        tx.put(&item, "done", true)
    })
    .unwrap();
    let shown = json!(diff(&doc, &before, &heads(&doc)).unwrap());
    let expected = json!([
        {"path": "gone", "kind": "delete", "before": 1},
        {"path": "items", "kind": "put", "before": null, "after": [{"done": true}]},
        {"path": "title", "kind": "put", "before": "Shopping", "after": "Errands"},
        {"path": "text", "kind": "splice", "index": 9, "removed": "bread", "inserted": "cheese"},
    ]);
    assert_eq!(shown, expected);
}

#[test]
fn states_that_are_not_in_the_document_are_refused() {
    let doc = written(&[]);
    let unknown = [ChangeHash([1; 32])];
    assert!(matches!(diff(&doc, &unknown, &[]), Err(HistoryError::NoChange(_))));
    assert!(matches!(diff(&doc, &[], &unknown), Err(HistoryError::NoChange(_))));
}
