//! Conflicts: what is one, what is none, and that every replica finds the same.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    reason = "test code: small numbers, and a panic is the report"
)]

use automerge::{
    ActorId, AutoCommit, Automerge, ObjId, ObjType, ROOT, ReadDoc as _, ScalarValue, Value,
    marks::{ExpandMark, Mark},
    transaction::{CommitOptions, Transactable as _},
};
use concord::review::{
    Choice, Code, Conflict, Content, Detector, Kept, Resolution, SlotKey, history,
};
use concord_protocol::DocumentId;
use quickcheck::{Arbitrary, Gen, QuickCheck};

fn document() -> DocumentId {
    DocumentId::from_bytes(&[7; 16])
}

fn actor(number: u8) -> ActorId {
    ActorId::from([number; 16])
}

fn open(doc: &mut AutoCommit) -> Vec<Conflict> {
    detector(doc).open(&document())
}

fn detector(doc: &mut AutoCommit) -> Detector {
    let mut detector = Detector::default();
    for change in doc.get_changes(&[]) {
        detector.take_in(&change).unwrap();
    }
    detector
}

#[test]
fn counters_made_in_one_place_are_sides_each_where_one_was_counted_in() {
    let mut one = AutoCommit::new().with_actor(actor(1));
    one.put(ROOT, "other", 1).unwrap();
    one.commit();
    let mut two = one.fork().with_actor(actor(2));
    for doc in [&mut one, &mut two] {
        doc.put(ROOT, "counter", ScalarValue::counter(0)).unwrap();
        doc.commit();
    }
    let mut equal = one.fork();
    equal.merge(&mut two).unwrap();
    assert_eq!(open(&mut equal), [], "nobody lost anything");
    one.increment(ROOT, "counter", 3).unwrap();
    one.commit();
    two.merge(&mut one).unwrap();
    let open = open(&mut two);
    assert_eq!((open.len(), open[0].code, open[0].sides.len()), (1, Code::Value, 2));
    let doc = two.document();
    let counted = open[0].sides.iter().map(|side| match side.content(doc, &open[0].place) {
        Ok(Content::Single(value)) => value.as_i64(),
        other => panic!("{other:?}"),
    });
    let mut counted: Vec<Option<i64>> = counted.collect();
    counted.sort_unstable();
    assert_eq!(counted, [Some(0), Some(3)]);
}

#[test]
fn who_goes_on_with_both_counters_does_not_hide_what_was_counted_in_one() {
    let mut one = AutoCommit::new().with_actor(actor(1));
    let mut two = one.fork().with_actor(actor(2));
    for doc in [&mut one, &mut two] {
        doc.put(ROOT, "counter", ScalarValue::counter(0)).unwrap();
        doc.commit();
    }
    one.increment(ROOT, "counter", 5).unwrap();
    one.commit();
    one.merge(&mut two).unwrap();
    let asked = open(&mut one);
    assert_eq!(asked.len(), 1);
    one.increment(ROOT, "counter", 1).unwrap();
    one.commit();
    assert_eq!(one.get(ROOT, "counter").unwrap().unwrap().0.as_i64(), Some(1), "the five hide");
    assert_eq!(open(&mut one), asked, "whoever counts has decided nothing");
}

fn at(doc: &AutoCommit, path: &[&str]) -> Option<ObjId> {
    path.iter().try_fold(ROOT, |object, step| {
        let found = match step.parse::<usize>() {
            Ok(index) => doc.get(&object, index),
            Err(_) => doc.get(&object, *step),
        };
        found.ok()?.map(|(_, object)| object)
    })
}

/// One value of every kind, and something to edit in each.
fn base() -> AutoCommit {
    let mut doc = AutoCommit::new().with_actor(actor(1));
    doc.put(ROOT, "scalar", 1).unwrap();
    doc.put(ROOT, "counter", ScalarValue::counter(5)).unwrap();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, "hello").unwrap();
    let map = doc.put_object(ROOT, "map", ObjType::Map).unwrap();
    doc.put(&map, "x", 1).unwrap();
    let inner = doc.put_object(&map, "inner", ObjType::Map).unwrap();
    doc.put(&inner, "y", 1).unwrap();
    let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
    doc.insert(&list, 0, 1).unwrap();
    let item = doc.insert_object(&list, 1, ObjType::Map).unwrap();
    doc.put(&item, "z", 1).unwrap();
    doc.insert(&list, 2, ScalarValue::counter(1)).unwrap();
    doc.commit();
    doc
}

/// What an edit does to its slot.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    Put(i64),
    Make,
    MakeEmpty,
    Delete,
    Increment,
    /// Makes a slot of its own below the path.
    Adds,
    /// Changes the formatting of text.
    Marks,
}

/// An edit: the slot's path, what it does, and the doing.
struct Edit {
    path: &'static [&'static str],
    does: Does,
    run: fn(&mut AutoCommit) -> Option<()>,
}

const fn edit(
    path: &'static [&'static str],
    does: Does,
    run: fn(&mut AutoCommit) -> Option<()>,
) -> Edit {
    Edit { path, does, run }
}

fn edits() -> Vec<Edit> {
    vec![
        edit(&["scalar"], Does::Put(2), |d| d.put(ROOT, "scalar", 2).ok()),
        edit(&["scalar"], Does::Put(3), |d| d.put(ROOT, "scalar", 3).ok()),
        edit(&["scalar"], Does::Delete, |d| d.delete(ROOT, "scalar").ok()),
        edit(&["scalar"], Does::Make, |d| {
            let made = d.put_object(ROOT, "scalar", ObjType::Map).ok()?;
            d.put(&made, "in", 1).ok()?;
            Some(())
        }),
        edit(&["new"], Does::Put(2), |d| d.put(ROOT, "new", 2).ok()),
        edit(&["new"], Does::Put(3), |d| d.put(ROOT, "new", 3).ok()),
        edit(&["new"], Does::Make, |d| {
            let made = d.put_object(ROOT, "new", ObjType::Text).ok()?;
            d.splice_text(&made, 0, 0, "x").ok()?;
            Some(())
        }),
        edit(&["new"], Does::MakeEmpty, |d| {
            d.put_object(ROOT, "new", ObjType::List).ok()?;
            Some(())
        }),
        edit(&["counter"], Does::Increment, |d| d.increment(ROOT, "counter", 2).ok()),
        edit(&["counter"], Does::Put(4), |d| d.put(ROOT, "counter", 4).ok()),
        edit(&["counter"], Does::Delete, |d| d.delete(ROOT, "counter").ok()),
        edit(&["text", "-"], Does::Adds, |d| {
            let text = at(d, &["text"])?;
            d.splice_text(&text, 2, 0, "new").ok()?;
            Some(())
        }),
        edit(&["text", "-"], Does::Adds, |d| {
            let text = at(d, &["text"])?;
            d.splice_text(&text, 1, 3, "").ok()?;
            Some(())
        }),
        edit(&["text", "-"], Does::Marks, |d| {
            let text = at(d, &["text"])?;
            let bold = Mark::new("bold".into(), true, 0, 3);
            d.mark(&text, bold, ExpandMark::Both).ok()?;
            Some(())
        }),
        edit(&["text"], Does::Put(1), |d| d.put(ROOT, "text", 1).ok()),
        edit(&["text"], Does::Delete, |d| d.delete(ROOT, "text").ok()),
        edit(&["map", "x"], Does::Put(2), |d| {
            let map = at(d, &["map"])?;
            d.put(&map, "x", 2).ok()?;
            Some(())
        }),
        edit(&["map", "x"], Does::Delete, |d| {
            let map = at(d, &["map"])?;
            d.delete(&map, "x").ok()?;
            Some(())
        }),
        edit(&["map", "inner", "y"], Does::Put(2), |d| {
            let inner = at(d, &["map", "inner"])?;
            d.put(&inner, "y", 2).ok()?;
            Some(())
        }),
        edit(&["map", "inner"], Does::Delete, |d| {
            let map = at(d, &["map"])?;
            d.delete(&map, "inner").ok()?;
            Some(())
        }),
        edit(&["map", "inner"], Does::Make, |d| {
            let map = at(d, &["map"])?;
            let made = d.put_object(&map, "inner", ObjType::Map).ok()?;
            d.put(&made, "y", 9).ok()?;
            Some(())
        }),
        edit(&["map"], Does::Delete, |d| d.delete(ROOT, "map").ok()),
        edit(&["map"], Does::Put(1), |d| d.put(ROOT, "map", 1).ok()),
        edit(&["list", "-"], Does::Adds, |d| {
            let list = at(d, &["list"])?;
            d.insert(&list, 0, 7).ok()?;
            Some(())
        }),
        edit(&["list", "0"], Does::Put(2), |d| {
            let list = at(d, &["list"])?;
            d.put(&list, 0, 2).ok()?;
            Some(())
        }),
        edit(&["list", "0"], Does::Delete, |d| {
            let list = at(d, &["list"])?;
            d.delete(&list, 0).ok()?;
            Some(())
        }),
        edit(&["list", "0"], Does::Make, |d| {
            let list = at(d, &["list"])?;
            let made = d.put_object(&list, 0, ObjType::Map).ok()?;
            d.put(&made, "in", 1).ok()?;
            Some(())
        }),
        edit(&["list", "1", "z"], Does::Put(2), |d| {
            let item = at(d, &["list", "1"])?;
            d.put(&item, "z", 2).ok()?;
            Some(())
        }),
        edit(&["list", "1"], Does::Delete, |d| {
            let list = at(d, &["list"])?;
            d.delete(&list, 1).ok()?;
            Some(())
        }),
        edit(&["list", "2"], Does::Increment, |d| {
            let list = at(d, &["list"])?;
            d.increment(&list, 2, 1).ok()?;
            Some(())
        }),
        edit(&["list", "2"], Does::Delete, |d| {
            let list = at(d, &["list"])?;
            d.delete(&list, 2).ok()?;
            Some(())
        }),
        edit(&["list"], Does::Delete, |d| d.delete(ROOT, "list").ok()),
        edit(&["list"], Does::Make, |d| {
            let made = d.put_object(ROOT, "list", ObjType::List).ok()?;
            d.insert(&made, 0, 5).ok()?;
            Some(())
        }),
    ]
}

/// The class of a pair, from what the edits are and not from their operations.
fn expected(one: &Edit, other: &Edit) -> Option<Code> {
    use Does::{Adds, Delete, Increment, Make, MakeEmpty, Marks, Put};
    if one.path != other.path {
        let above = |high: &Edit, low: &Edit| {
            low.path.starts_with(high.path) && !matches!(high.does, Adds | Marks | Increment)
        };
        return (above(one, other) || above(other, one)).then_some(Code::EditDelete);
    }
    match (one.does, other.does) {
        (Adds | Marks, _)
        | (_, Adds | Marks)
        | (Delete, Delete)
        | (Increment, Increment)
        | (MakeEmpty, MakeEmpty) => None,
        (Put(one), Put(other)) if one == other => None,
        (Delete | Increment, _) | (_, Delete | Increment) => Some(Code::EditDelete),
        (Make | MakeEmpty, Make | MakeEmpty) => Some(Code::Twin),
        _ => Some(Code::Value),
    }
}

#[test]
fn every_pair_of_concurrent_edits_is_of_one_class() {
    let (edits, mut classes) = (edits(), std::collections::BTreeMap::new());
    let mut start = base();
    for (number, one) in edits.iter().enumerate() {
        for (other_number, other) in edits.iter().enumerate() {
            let mut left = start.fork().with_actor(actor(2));
            let mut right = start.fork().with_actor(actor(3));
            (one.run)(&mut left).unwrap();
            (other.run)(&mut right).unwrap();
            left.commit();
            right.commit();
            left.merge(&mut right).unwrap();
            right.merge(&mut left).unwrap();
            let (found, same) = (open(&mut left), open(&mut right));
            let what = format!(
                "{number} {:?} {:?} with {other_number} {:?} {:?}",
                one.path, one.does, other.path, other.does
            );
            assert_eq!(found, same, "{what}: the replicas differ");
            let codes: Vec<Code> = found.iter().map(|conflict| conflict.code).collect();
            let expected: Vec<Code> = expected(one, other).into_iter().collect();
            assert_eq!(codes, expected, "{what}: {found:?}");
            *classes.entry(codes).or_insert(0) += 1;
        }
    }
    assert_eq!(classes.len(), 4, "all classes are met: {classes:?}");
}

/// The edits without two that end in failed checks which automerge 0.12 makes of itself in debug
/// builds: formatting, then inserting into a list; the place of a counter in a list that was deleted
/// and counted at the same time.
fn plain_edits() -> Vec<Edit> {
    let fails = |edit: &Edit| edit.does == Does::Marks || edit.path == ["list", "2"];
    edits().into_iter().filter(|edit| !fails(edit)).collect()
}

/// What three replicas do.
#[derive(Debug, Clone)]
struct Story(Vec<(u8, u8, bool)>);

impl Arbitrary for Story {
    fn arbitrary(g: &mut Gen) -> Self {
        Self(Vec::arbitrary(g))
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        Box::new(self.0.shrink().map(Self))
    }
}

impl Story {
    /// The replicas at its end, each with a detector that took changes in as they came.
    fn live(&self) -> Vec<(AutoCommit, Detector)> {
        let (edits, mut start) = (plain_edits(), base());
        let mut replicas: Vec<_> = (0..3)
            .map(|number| (start.fork().with_actor(actor(2 + number)), detector(&mut start)))
            .collect();
        for &(who, what, meets) in &self.0 {
            let who = usize::from(who) % replicas.len();
            if meets {
                let other = (who + 1 + usize::from(what) % 2) % replicas.len();
                let mut other = replicas[other].0.clone();
                replicas[who].0.merge(&mut other).unwrap();
            } else {
                let edit = &edits[usize::from(what) % edits.len()];
                // What it would edit may be gone.
                let _ = (edit.run)(&mut replicas[who].0);
                replicas[who].0.commit();
            }
            catch_up(&mut replicas[who]);
        }
        replicas
    }
}

fn catch_up((doc, detector): &mut (AutoCommit, Detector)) {
    for change in doc.get_changes(&[]) {
        detector.take_in(&change).unwrap();
    }
}

fn merge_all(replicas: &mut [(AutoCommit, Detector)]) {
    for _ in 0..2 {
        for who in 0..replicas.len() {
            let mut other = replicas[(who + 1) % replicas.len()].0.clone();
            replicas[who].0.merge(&mut other).unwrap();
        }
    }
    replicas.iter_mut().for_each(catch_up);
}

#[test]
fn every_replica_derives_the_same_queue_whatever_came_when() {
    fn law(story: Story) -> bool {
        let mut replicas = story.live();
        merge_all(&mut replicas);
        let expected = replicas[0].1.open(&document());
        replicas.iter_mut().all(|(doc, detector)| {
            // As it grew, and from the start again, in the order that this replica has.
            detector.open(&document()) == expected && open(doc) == expected
        })
    }
    QuickCheck::new().tests(400).quickcheck(law as fn(Story) -> bool);
}

#[test]
fn who_always_knows_of_everything_is_never_in_conflict() {
    fn law(story: Story) -> bool {
        let (edits, mut doc) = (plain_edits(), base());
        for (who, what, _) in story.0 {
            doc = doc.with_actor(actor(2 + who % 3));
            let _ = (edits[usize::from(what) % edits.len()].run)(&mut doc);
            doc.commit();
        }
        open(&mut doc).is_empty()
    }
    QuickCheck::new().tests(200).quickcheck(law as fn(Story) -> bool);
}

/// What a choice leaves at a place, as JSON; `None` if nothing.
fn shown(doc: &mut AutoCommit, conflict: &Conflict) -> Option<serde_json::Value> {
    let content = conflict.provisional(doc.document()).unwrap();
    json(&content)
}

fn json(content: &Content) -> Option<serde_json::Value> {
    match content {
        Content::Nothing => None,
        Content::Single(value) => Some(serde_json::json!(value.to_string())),
        Content::Fields { .. } => panic!("there is no schema"),
        Content::Object { doc, object, .. } => {
            let mut shown = Vec::new();
            walk(doc, object, &mut shown);
            Some(serde_json::json!(shown))
        }
    }
}

fn walk(doc: &Automerge, object: &ObjId, shown: &mut Vec<String>) {
    match doc.object_type(object).unwrap() {
        ObjType::Text => return shown.push(doc.text(object).unwrap()),
        ObjType::List => {}
        ObjType::Map | ObjType::Table => shown.extend(doc.keys(object)),
    }
    for (value, id) in doc.values(object) {
        match value {
            Value::Scalar(value) => shown.push(value.to_string()),
            Value::Object(_) => walk(doc, &id, shown),
        }
    }
}

fn resolve(doc: &mut AutoCommit, conflict: &Conflict, choice: &Choice) {
    let mut content = doc.document().clone();
    let resolution = Resolution::prepare(&content, conflict, choice, None).unwrap();
    let options = CommitOptions::default().with_message(resolution.message());
    let mut tx = content.transaction();
    if resolution.write(&mut tx).unwrap() {
        tx.commit_with(options);
    } else {
        tx.rollback();
        content.empty_commit(options);
    }
    doc.merge(&mut AutoCommit::load(&content.save()).unwrap()).unwrap();
}

/// What is shown once a decision was taken back; an error if something is open there then.
fn take_back(
    doc: &mut AutoCommit,
    conflict: &Conflict,
) -> Result<Option<serde_json::Value>, &'static str> {
    let prepared =
        history::again(doc.document(), &document(), None, conflict.id, &Choice::Now, None)
            .map_err(|_| "it cannot be taken back")?;
    let mut plain = doc.document().clone();
    let mut tx = plain.transaction();
    prepared.write(&mut tx).unwrap();
    let options = || CommitOptions::default().with_message(prepared.message());
    if tx.commit_with(options()).0.is_none() {
        plain.empty_commit(options());
    }
    let mut taken_back = AutoCommit::load(&plain.save()).unwrap();
    let is_open = open(&mut taken_back).iter().any(|other| other.place == conflict.place);
    if is_open { Err("it is open") } else { Ok(shown(&mut taken_back, conflict)) }
}

/// Whatever is chosen for one of the conflicts at the end of a story is there then, and the conflict is
/// none any more, here and elsewhere.
fn leaves_what_was_chosen(story: Story, which: u8) -> bool {
    let mut replicas = story.live();
    merge_all(&mut replicas);
    let all = replicas[0].1.open(&document());
    let Some(conflict) = all.get(usize::from(which) % all.len().max(1)) else { return true };
    let choices = (0..conflict.sides.len()).map(Choice::Side);
    let more = [Content::Nothing, Content::Single(ScalarValue::Int(77))].map(Choice::Other);
    let more = more.into_iter().chain([Choice::Before, Choice::Now]);
    let now = json(&conflict.provisional(replicas[1].0.fork().document()).unwrap());
    choices.chain(more).all(|choice| {
        let mut decided = replicas[1].0.fork().with_actor(actor(9));
        let wanted = match &choice {
            Choice::Side(side) => {
                json(&conflict.sides[*side].content(decided.document(), &conflict.place).unwrap())
            }
            Choice::Before => json(&conflict.base(decided.document()).unwrap()),
            Choice::Now => now.clone(),
            Choice::Other(content) => json(content),
        };
        let is_gone = matches!(conflict.place.key, SlotKey::Element(_)) && now.is_none();
        resolve(&mut decided, conflict, &choice);
        // An element that was gone comes back as another one; one that is deleted is no more.
        let is_shown = is_gone
            || wanted.is_none() && matches!(conflict.place.key, SlotKey::Element(_))
            || shown(&mut decided, conflict) == wanted;
        let mut elsewhere = replicas[2].0.clone();
        elsewhere.merge(&mut decided).unwrap();
        let left = open(&mut decided);
        // Taken back, what was shown before is there again; but an element of a list that came
        // back or went is another one by then.
        let again = take_back(&mut decided.clone(), conflict);
        let is_element = matches!(conflict.place.key, SlotKey::Element(_));
        let is_refused = again == Err("it cannot be taken back");
        (is_element && is_refused || again == Ok(now.clone()))
            && is_shown
            && !left.iter().any(|other| other.id == conflict.id)
            && !left.iter().any(|other| other.place == conflict.place)
            && left == open(&mut elsewhere)
    })
}

#[test]
fn a_decision_leaves_what_was_chosen_and_closes_the_conflict_everywhere() {
    QuickCheck::new().tests(150).quickcheck(leaves_what_was_chosen as fn(Story, u8) -> bool);
}

/// Found by the law above.
#[test]
fn an_element_that_is_gone_shows_nothing_although_a_side_put_something_there() {
    let steps = [(0, 173), (88, 113), (0, 147), (0, 0), (0, 83), (0, 87), (4, 204)];
    let story = Story(steps.map(|(who, what)| (who, what, what == 0)).to_vec());
    assert!(leaves_what_was_chosen(story, 0));
}

#[test]
fn two_who_decide_differently_are_told_of_each_other() {
    let mut start = base();
    let (mut left, mut right) =
        (start.fork().with_actor(actor(2)), start.fork().with_actor(actor(3)));
    left.put(ROOT, "scalar", 2).unwrap();
    right.put(ROOT, "scalar", 3).unwrap();
    left.merge(&mut right).unwrap();
    right.merge(&mut left).unwrap();
    let conflict = open(&mut left).remove(0);
    assert_eq!(conflict.code, Code::Value);
    resolve(&mut left, &conflict, &Choice::Side(0));
    resolve(&mut right, &conflict, &Choice::Side(1));
    assert_eq!((open(&mut left), open(&mut right)), (vec![], vec![]));
    left.merge(&mut right).unwrap();
    let again = open(&mut left);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].code, Code::Resolution);
    assert_ne!(again[0].id, conflict.id);
    resolve(&mut left, &again[0], &Choice::Side(1));
    right.merge(&mut left).unwrap();
    assert_eq!((open(&mut left), open(&mut right)), (vec![], vec![]));
}

#[test]
fn a_later_edit_of_what_was_decided_without_knowing_of_it_is_a_conflict_again() {
    let mut start = base();
    let (mut left, mut right) =
        (start.fork().with_actor(actor(2)), start.fork().with_actor(actor(3)));
    left.delete(ROOT, "map").unwrap();
    let inner = at(&right, &["map", "inner"]).unwrap();
    right.put(&inner, "y", 2).unwrap();
    left.merge(&mut right).unwrap();
    let conflict = open(&mut left).remove(0);
    assert_eq!(conflict.code, Code::EditDelete);
    assert!(conflict.sides.iter().any(|side| side.kept == Kept::Edited(Some(ObjType::Map))));
    resolve(&mut left, &conflict, &Choice::Other(Content::Nothing));
    assert_eq!(open(&mut left), []);
    right.put(&inner, "y", 3).unwrap();
    left.merge(&mut right).unwrap();
    assert_eq!(open(&mut left).len(), 1);
}
