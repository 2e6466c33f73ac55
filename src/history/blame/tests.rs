use automerge::{ActorId, ROOT, transaction::Transactable as _};
use quickcheck::quickcheck;

use super::{
    super::tests::{Step, written},
    *,
};
use crate::review::Detector;

fn by(name: &str) -> Automerge {
    let author = super::super::author(name).unwrap();
    let actor = ActorId::from([name.as_bytes()[0]; 4]);
    Automerge::new().with_author(Some(author)).with_actor(actor)
}

/// What is shown, by whom, as lines.
fn lines(doc: &Automerge, path: &[Prop]) -> Vec<String> {
    let line = |blame: Blame| {
        let name = blame.by.and_then(|by| by.author.clone()).unwrap_or_default();
        let shown = match blame.shown {
            Shown::Value { value } => value.to_string(),
            Shown::Counter { value } => format!("={value}"),
            Shown::Run { start, text } => format!("{start}:{text}"),
            other => format!("{other:?}"),
        };
        format!("{} {shown} {name}", json::path(blame.path.iter()))
    };
    blame(doc, path).unwrap().into_iter().map(line).collect()
}

#[test]
fn everything_names_who_wrote_it() {
    let (mut ann, mut bob) = (by("ann"), by("bob"));
    let (text, list) = ann
        .transact(|tx| {
            tx.put(ROOT, "title", "Shopping")?;
            tx.put(ROOT, "count", ScalarValue::counter(1))?;
            tx.put(ROOT, "idle", ScalarValue::counter(7))?;
            let list = tx.put_object(ROOT, "list", ObjType::List)?;
            tx.insert(&list, 0, "one")?;
            tx.insert(&list, 1, "two")?;
            let text = tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, "Milk and bread")?;
            Ok::<_, automerge::AutomergeError>((text, list))
        })
        .unwrap()
        .result;
    bob.merge(&mut ann).unwrap();
    bob.transact(|tx| {
        tx.splice_text(&text, 5, 3, "or")?;
        tx.increment(ROOT, "count", 4)?;
        tx.put(&list, 1, "zwei")?;
        let item = tx.insert_object(&list, 2, ObjType::Map)?;
        tx.put(&item, "done", true)
    })
    .unwrap();
    let expected = [
        "count =5 bob",
        "idle =7 ann",
        "list List ann",
        "list[0] \"one\" ann",
        "list[1] \"zwei\" bob",
        "list[2] Map bob",
        "list[2].done true bob",
        "text Text ann",
        "text 0:Milk  ann",
        "text 5:or bob",
        "text 7: bread ann",
        "title \"Shopping\" ann",
    ];
    assert_eq!(lines(&bob, &[]), expected);
    let path = [Prop::from("list"), Prop::Seq(2)];
    assert_eq!(lines(&bob, &path), expected[5..7]);
    let nowhere = blame(&bob, &[Prop::from("list"), Prop::Seq(3)]);
    assert!(matches!(nowhere, Err(HistoryError::NoPath { .. })));
}

#[test]
fn of_two_who_count_at_once_one_is_named_and_the_same_everywhere() {
    let (mut ann, mut bob) = (by("ann"), by("bob"));
    ann.transact(|tx| tx.put(ROOT, "count", ScalarValue::counter(0))).unwrap();
    bob.merge(&mut ann).unwrap();
    ann.transact(|tx| tx.increment(ROOT, "count", 1)).unwrap();
    bob.transact(|tx| tx.increment(ROOT, "count", 2)).unwrap();
    ann.merge(&mut bob).unwrap();
    bob.merge(&mut ann).unwrap();
    assert_eq!(lines(&ann, &[]), ["count =3 bob"]);
    assert_eq!(lines(&bob, &[]), ["count =3 bob"]);
}

quickcheck! {
    /// The change that is named is one that wrote there: it has an operation of that id.
    fn what_is_named_is_a_change_of_the_document(steps: Vec<Step>) -> bool {
        let doc = written(&steps);
        // That all of it can be read is what the detector finds.
        Detector::of(&doc.get_changes(&[])).unwrap();
        blame(&doc, &[]).unwrap().iter().all(|blame| {
            let by = blame.by.as_ref().unwrap();
            let of_it = doc.get_change_by_hash(&super::super::hash::native(&by.change));
            of_it.is_some_and(|change| change.actor_id().to_string() == by.actor)
        })
    }

    /// The runs of a text are the text.
    fn runs_are_the_text(steps: Vec<Step>) -> bool {
        let doc = written(&steps);
        let Ok(Some((Value::Object(ObjType::Text), text))) = doc.get(ROOT, "text") else {
            return true;
        };
        let mut all = String::new();
        for blame in blame(&doc, &[Prop::from("text")]).unwrap() {
            if let Shown::Run { start, text } = blame.shown {
                assert_eq!(start, all.chars().count());
                all.push_str(&text);
            }
        }
        all == doc.text(&text).unwrap()
    }
}

#[test]
fn a_document_that_is_nested_too_deeply_is_refused_and_its_parts_are_not() {
    let mut doc = Automerge::new();
    doc.transact(|tx| {
        let mut at = ROOT;
        for _ in 0..200 {
            at = tx.put_object(&at, "in", ObjType::Map)?;
        }
        tx.put(&at, "end", 1)
    })
    .unwrap();
    let Err(HistoryError::Json(refused)) = blame(&doc, &[]) else { panic!("not refused") };
    assert!(matches!(*refused, JsonError::TooDeep));
    let path = vec![Prop::from("in"); 200];
    assert_eq!(blame(&doc, &path).unwrap().len(), 2);
}
