use automerge::{ObjType, ROOT, ReadDoc as _, ScalarValue, transaction::Transactable as _};
use quickcheck::quickcheck;
use serde_json::json;

use super::{
    super::tests::{Step, heads, written},
    *,
};

/// Name, path, before and after of each.
fn shown(events: &Events) -> Vec<Json> {
    let shown = |event: &Event| {
        let path = crate::json::path(event.path.iter());
        json!([event.name, path, event.before, event.after])
    };
    events.events.iter().map(shown).collect()
}

fn task() -> Automerge {
    let mut doc = Automerge::new();
    doc.transact(|tx| {
        tx.put(ROOT, "type", "task")?;
        tx.put(ROOT, "status", "todo")?;
        tx.put(ROOT, "likes", ScalarValue::counter(1))?;
        tx.put_object(ROOT, "labels", ObjType::Map)?;
        tx.put_object(ROOT, "items", ObjType::List)?;
        let notes = tx.put_object(ROOT, "notes", ObjType::Text)?;
        tx.splice_text(&notes, 0, 0, "Milk")
    })
    .unwrap();
    doc
}

#[test]
fn what_happens_has_a_name() {
    let mut doc = task();
    let since = heads(&doc);
    let object = |doc: &Automerge, key: &str| doc.get(ROOT, key).unwrap().unwrap().1;
    let (labels, items, notes) =
        (object(&doc, "labels"), object(&doc, "items"), object(&doc, "notes"));
    doc.transact(|tx| tx.put(ROOT, "status", "done")).unwrap();
    doc.transact(|tx| tx.increment(ROOT, "likes", 2)).unwrap();
    doc.transact(|tx| tx.put(&labels, "home", true)).unwrap();
    doc.transact(|tx| tx.insert(&items, 0, 5)).unwrap();
    doc.transact(|tx| tx.delete(&items, 0)).unwrap();
    doc.transact(|tx| tx.splice_text(&notes, 1, 3, "eat")).unwrap();
    doc.transact(|tx| tx.delete(&labels, "home")).unwrap();
    doc.transact(|tx| tx.delete(ROOT, "status")).unwrap();
    doc.transact(|tx| tx.put(ROOT, "due", 7)).unwrap();
    let schema = r#"
        [types.task.fields]
        status = "string"
        likes = "counter"
        labels = { kind = "set", items = "string" }
    "#;
    let schema = Schema::parse(schema).unwrap();
    let some = events(&doc, Some(&schema), &since, 99).unwrap();
    let expected = [
        json!(["task.status_changed", "status", "todo", "done"]),
        json!(["task.likes_counted", "likes", 1, 3]),
        json!(["task.labels_added", "labels.home", null, true]),
        json!(["task.items_added", "items[0]", null, [5]]),
        json!(["task.items_removed", "items[0]", [5], null]),
        json!(["task.notes_edited", "notes", "ilk", "eat"]),
        json!(["task.labels_removed", "labels.home", true, null]),
        json!(["task.status_deleted", "status", "done", null]),
        json!(["task.due_set", "due", null, 7]),
    ];
    assert_eq!(shown(&some), expected);
    assert_eq!(some.cursor, heads(&doc));
    let causes: Vec<_> = some.events.iter().map(|event| event.cause.change).collect();
    let log = log(&doc, &since, Order::OldestFirst, 99).unwrap();
    assert_eq!(causes, log.iter().map(|entry| entry.stamp.change).collect::<Vec<_>>());
    // Without a schema, members of a set are fields of a map.
    let plain = events(&doc, None, &since, 3).unwrap();
    assert_eq!(shown(&plain)[2], json!(["task.labels_changed", "labels.home", null, true]));
}

#[test]
fn a_document_begins_and_one_without_a_type_has_events_too() {
    let all = events(&task(), None, &[], 9).unwrap();
    let names: Vec<&str> = all.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names[0], "task.created");
    assert!(names[1..].iter().all(|name| name.ends_with("_set")), "{names:?}");
    let mut doc = Automerge::new();
    doc.transact(|tx| tx.put(ROOT, "type", "no name")).unwrap();
    let all = events(&doc, None, &[], 9).unwrap();
    assert_eq!(shown(&all)[1], json!(["document.type_set", "type", null, "no name"]));
}

quickcheck! {
    /// In pages, and on another replica, they are what they are at once.
    fn events_are_the_same_in_pages(steps: Vec<Step>, page: usize) -> bool {
        let doc = written(&steps);
        let all = events(&doc, None, &[], usize::MAX).unwrap();
        let (mut paged, mut at) = (Vec::new(), Vec::new());
        while at != heads(&doc) {
            let next = events(&doc, None, &at, page % 5 + 1).unwrap();
            at = next.cursor;
            paged.extend(next.events);
        }
        let ids: std::collections::BTreeSet<_> = paged.iter().map(|event| &event.id).collect();
        ids.len() == paged.len() && paged == all.events
    }
}
