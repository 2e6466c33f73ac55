//! Who wrote what a document shows.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use automerge::{
    Automerge, ChangeHash as Native, ObjId, ObjType, Prop, ReadDoc as _, ScalarValue, Value,
    legacy::{OpId, OpType},
};
use serde::Serialize;
use serde_json::Value as Json;

use super::{
    HistoryError, Stamp,
    diff::as_written,
    state::{Found, find},
};
use crate::json::{self, DEPTH_MAX, JsonError};

/// Something that is shown, and who wrote it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Blame {
    /// Where it is.
    #[serde(serialize_with = "as_written")]
    pub path: Vec<Prop>,
    /// What is shown there.
    #[serde(flatten)]
    pub shown: Shown,
    /// Who wrote it; `None` for the document itself.
    pub by: Option<Arc<Stamp>>,
}

/// Part of what a document shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Shown {
    /// A value: who put it there.
    Value {
        /// It.
        value: Json,
    },
    /// A counter: who last added to it, or made it if nobody has.
    Counter {
        /// What it has come to.
        value: i64,
    },
    /// A map: who made it. What is in it follows.
    Map,
    /// A list: who made it. What is in it follows.
    List,
    /// A text: who made it. What is in it follows.
    Text,
    /// Characters of the text at the path, all written by one change.
    Run {
        /// Characters before them.
        start: usize,
        /// They.
        text: String,
    },
}

/// Who wrote what the document shows at a path (`&[]`: all of it), each thing with the change that
/// it is there by. In the order of keys, elements and characters.
///
/// Of values that several people put at one place at the same time, that which is shown is told of.
/// Where there are counters, the operations of the whole history are looked through.
///
/// # Errors
/// [`HistoryError::NoPath`] if there is nothing at the path, and [`HistoryError::Json`] if it is
/// nested too deeply.
pub fn blame(doc: &Automerge, path: &[Prop]) -> Result<Vec<Blame>, HistoryError> {
    let found = find(doc, path, None)?;
    let mut reader = Reader { doc, stamps: BTreeMap::new(), counters: vec![], out: vec![] };
    reader.take(path.to_vec(), &found, DEPTH_MAX)?;
    reader.count();
    Ok(reader.out)
}

struct Reader<'a> {
    doc: &'a Automerge,
    stamps: BTreeMap<Native, Arc<Stamp>>,
    /// Counters, by the operations that made them and where they are told of.
    counters: Vec<(String, usize)>,
    out: Vec<Blame>,
}

impl Reader<'_> {
    fn take(&mut self, path: Vec<Prop>, found: &Found, depth: usize) -> Result<(), HistoryError> {
        let Found { value, id } = found;
        let below = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
        let change = self.doc.hash_for_opid(id);
        let by = change.and_then(|change| self.stamp(change));
        let kind = match value {
            Value::Scalar(value) => {
                let shown = match value.as_ref() {
                    ScalarValue::Counter(counter) => {
                        self.counters.push((id.to_string(), self.out.len()));
                        Shown::Counter { value: i64::from(counter) }
                    }
                    value => {
                        let value = Value::Scalar(std::borrow::Cow::Borrowed(value));
                        Shown::Value { value: json::to_json(self.doc, &value, id)? }
                    }
                };
                self.out.push(Blame { path, shown, by });
                return Ok(());
            }
            Value::Object(kind) => *kind,
        };
        let shown = match kind {
            ObjType::Map | ObjType::Table => Shown::Map,
            ObjType::List => Shown::List,
            ObjType::Text => Shown::Text,
        };
        let doc = self.doc;
        if *id != automerge::ROOT {
            self.out.push(Blame { path: path.clone(), shown, by });
        }
        match kind {
            ObjType::Map | ObjType::Table => {
                for item in doc.map_range(id, ..) {
                    let found = Found { value: item.value.clone().into(), id: item.id() };
                    let path = with(&path, Prop::Map(item.key.into_owned()));
                    self.take(path, &Found { value: found.value.into_owned(), ..found }, below)?;
                }
            }
            ObjType::List => {
                for item in doc.list_range(id, ..) {
                    let value: Value<'_> = item.value.clone().into();
                    let found = Found { value: value.into_owned(), id: item.id() };
                    self.take(with(&path, Prop::Seq(item.index)), &found, below)?;
                }
            }
            ObjType::Text => self.runs(&path, id),
        }
        Ok(())
    }

    /// The characters of a text. An object in it is one, as text has it.
    fn runs(&mut self, path: &[Prop], id: &ObjId) {
        const OBJECT: &str = "\u{fffc}";
        let (mut start, mut length, mut text) = (0, 0, String::new());
        let mut last: Option<Native> = None;
        let doc = self.doc;
        let tell = |reader: &mut Self, change: Option<Native>, start, text: &mut String| {
            if let Some(change) = change {
                let (path, text) = (path.to_vec(), std::mem::take(text));
                let by = reader.stamp(change);
                reader.out.push(Blame { path, shown: Shown::Run { start, text }, by });
            }
        };
        for item in doc.list_range(id, ..) {
            let change = doc.hash_for_opid(&item.id());
            if change != last {
                tell(self, last, start, &mut text);
                (start, last) = (start + length, change);
                length = 0;
            }
            let value: Value<'_> = item.value.clone().into();
            let piece = value.as_str().unwrap_or(OBJECT);
            text.push_str(piece);
            length += piece.chars().count();
        }
        tell(self, last, start, &mut text);
    }

    fn stamp(&mut self, change: Native) -> Option<Arc<Stamp>> {
        if let Some(stamp) = self.stamps.get(&change) {
            return Some(Arc::clone(stamp));
        }
        let meta = self.doc.get_change_meta_by_hash(&change)?;
        let stamp = Arc::new(Stamp::from(&meta));
        self.stamps.insert(change, Arc::clone(&stamp));
        Some(stamp)
    }

    /// Finds who last added to each counter: of additions at the same time the one that is ordered
    /// last, as automerge orders operations.
    fn count(&mut self) {
        if self.counters.is_empty() {
            return;
        }
        let counters = std::mem::take(&mut self.counters);
        let mut last: BTreeMap<String, Option<(u64, String, Native)>> =
            counters.iter().map(|(counter, _)| (counter.clone(), None)).collect();
        for change in self.doc.get_changes(&[]) {
            // Its reader panics on what it does not know.
            let Ok(expanded) = catch_unwind(AssertUnwindSafe(|| change.decode())) else { continue };
            let actor = expanded.actor_id.to_string();
            for (number, op) in (expanded.start_op.get()..).zip(&expanded.operations) {
                if !matches!(op.action, OpType::Increment(_)) {
                    continue;
                }
                for OpId(made, by) in op.pred.iter() {
                    if let Some(last) = last.get_mut(&format!("{made}@{by}")) {
                        let this = (number, actor.clone(), change.hash());
                        if last.as_ref().is_none_or(|last| *last < this) {
                            *last = Some(this);
                        }
                    }
                }
            }
        }
        for (counter, place) in counters {
            if let Some(Some((.., change))) = last.get(&counter) {
                self.out[place].by = self.stamp(*change);
            }
        }
    }
}

fn with(path: &[Prop], step: Prop) -> Vec<Prop> {
    path.iter().cloned().chain([step]).collect()
}

#[cfg(test)]
mod tests {
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
}
