//! Policies of a schema: what they decide is decided by the same change on every replica, and what
//! they do not is left to a person.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test that fails here says where, and quickcheck gives values"
)]

use automerge::{
    ActorId, AutoCommit, Automerge, Change, ObjType, ROOT, ReadDoc as _, Value,
    transaction::{CommitOptions, Transactable as _},
};
use concord::{
    entity::Schema,
    review::{
        Conflict, Detector, Follower, Settled,
        desk::{self, Answer, Asked, Decision, Order, Question, Wanted},
        settle,
    },
};
use concord_protocol::DocumentId;
use quickcheck::{Arbitrary, Gen, QuickCheck};

const SCHEMA: &str = r#"
[types.task.fields]
labels = { kind = "set", items = "string" }
points = { kind = "integer", policy = "max" }
owner = { kind = "string", policy = "latest" }
first = { kind = "string", policy = "earliest" }
title = "string"
files = { kind = "json", policy = "union" }

[types.task.fields.status]
kind = "enum"
values = ["todo", "doing", "done"]
policy = "ladder"
ladder = ["todo", "doing", "done"]
"#;

fn id() -> DocumentId {
    DocumentId::from_bytes(b"task")
}

fn actor(n: u8) -> ActorId {
    ActorId::from([n; 16])
}

fn task() -> AutoCommit {
    let mut doc = AutoCommit::new().with_actor(actor(0));
    doc.put(ROOT, "type", "task").unwrap();
    doc.put(ROOT, "points", 0).unwrap();
    doc.put(ROOT, "owner", "nobody").unwrap();
    doc.put(ROOT, "first", "nobody").unwrap();
    doc.put(ROOT, "title", "?").unwrap();
    doc.put(ROOT, "status", "todo").unwrap();
    let labels = doc.put_object(ROOT, "labels", ObjType::Map).unwrap();
    doc.put(&labels, "old", true).unwrap();
    doc.commit();
    doc
}

/// One of the things that people do to a task.
#[derive(Debug, Clone, Copy)]
enum Edit {
    Points(i8),
    Owner(bool),
    First(bool),
    Title(bool),
    Status(u8),
    Label(bool),
    Unlabel,
    Files(u8),
    Drop,
}

impl Arbitrary for Edit {
    fn arbitrary(g: &mut Gen) -> Self {
        match u8::arbitrary(g) % 9 {
            0 => Self::Points(i8::arbitrary(g)),
            1 => Self::Owner(bool::arbitrary(g)),
            2 => Self::First(bool::arbitrary(g)),
            3 => Self::Title(bool::arbitrary(g)),
            4 => Self::Status(u8::arbitrary(g) % 3),
            5 => Self::Label(bool::arbitrary(g)),
            6 => Self::Unlabel,
            7 => Self::Files(u8::arbitrary(g) % 3),
            _ => Self::Drop,
        }
    }
}

fn edit(doc: &mut AutoCommit, what: Edit, time_s: i64) {
    let name = |other: bool| if other { "ben" } else { "ann" };
    match what {
        Edit::Points(points) => doc.put(ROOT, "points", i64::from(points)).unwrap(),
        Edit::Owner(other) => doc.put(ROOT, "owner", name(other)).unwrap(),
        Edit::First(other) => doc.put(ROOT, "first", name(other)).unwrap(),
        Edit::Title(other) => doc.put(ROOT, "title", name(other)).unwrap(),
        Edit::Status(step) => {
            doc.put(ROOT, "status", ["todo", "doing", "done"][usize::from(step)]).unwrap();
        }
        Edit::Label(new) => {
            let (_, labels) = doc.get(ROOT, "labels").unwrap().unwrap();
            doc.put(&labels, if new { "new" } else { "old" }, true).unwrap();
        }
        Edit::Unlabel => {
            let (_, labels) = doc.get(ROOT, "labels").unwrap().unwrap();
            doc.delete(&labels, "old").unwrap();
        }
        Edit::Files(file) => {
            let files = doc.put_object(ROOT, "files", ObjType::List).unwrap();
            doc.insert(&files, 0, format!("{file}.txt")).unwrap();
        }
        Edit::Drop => doc.delete(ROOT, "owner").unwrap(),
    }
    doc.commit_with(CommitOptions::default().with_time(time_s));
}

/// A few people who do things, and sometimes hear of each other.
#[derive(Debug, Clone)]
struct Story(Vec<(usize, Edit, i64, Option<usize>)>);

impl Arbitrary for Story {
    fn arbitrary(g: &mut Gen) -> Self {
        let steps = (0..usize::arbitrary(g) % 25).map(|_| {
            let hears = u8::arbitrary(g).is_multiple_of(4).then(|| usize::arbitrary(g) % 3);
            let time_s = i64::from(u8::arbitrary(g) % 5);
            (usize::arbitrary(g) % 3, Edit::arbitrary(g), time_s, hears)
        });
        Self(steps.collect())
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let steps = self.0.clone();
        Box::new((0..steps.len()).map(move |without| {
            let mut fewer = steps.clone();
            fewer.remove(without);
            Self(fewer)
        }))
    }
}

fn tell(story: &Story) -> Vec<AutoCommit> {
    let start = task();
    let mut people: Vec<AutoCommit> = (1..=3).map(|n| start.clone().with_actor(actor(n))).collect();
    for &(who, what, time_s, hears) in &story.0 {
        if let Some(other) = hears.filter(|other| *other != who) {
            let mut other = people[other].clone();
            people[who].merge(&mut other).unwrap();
        }
        edit(&mut people[who], what, time_s);
    }
    people
}

fn look(doc: &mut Automerge, schema: &Schema) -> (Vec<Settled>, Vec<String>) {
    let mut detector = Detector::of(&doc.get_changes(&[])).unwrap();
    let settled = settle(doc, &mut detector, &id(), schema);
    let again = Detector::of(&doc.get_changes(&[])).unwrap().open(&id());
    assert_eq!(again, detector.open(&id()), "the detector has taken in what was decided");
    let left = again.iter().map(|open| open.path(doc).unwrap()[0].to_string()).collect();
    (settled, left)
}

/// A document of the same changes that came in another order, with other actors known before.
fn other_way(changes: &[Change]) -> Automerge {
    let mut doc = Automerge::new().with_actor(actor(200));
    for change in changes.iter().rev() {
        doc.apply_changes([change.clone()]).unwrap();
    }
    doc
}

fn settles_alike(story: &Story) -> bool {
    let schema = Schema::parse(SCHEMA).unwrap();
    let mut all = task();
    for mut person in tell(story) {
        all.merge(&mut person).unwrap();
    }
    let changes: Vec<Change> = all.get_changes(&[]).into_iter().collect();
    let (mut one, mut other) = (Automerge::load(&all.save()).unwrap(), other_way(&changes));
    let (settled, left) = look(&mut one, &schema);
    assert_eq!(look(&mut other, &schema), (settled.clone(), left.clone()));
    assert_eq!(one.get_heads(), other.get_heads());
    // Once is enough, and twice is once.
    assert_eq!(look(&mut one, &schema), (Vec::new(), left.clone()));
    // What a person has to decide is what no policy names, or has no order.
    left.iter().all(|field| ["title", "files"].contains(&field.as_str()))
}

/// Somebody sees two values and writes the one that is shown: automerge deletes the other one, and
/// that is no wish that nothing be there.
#[test]
fn who_writes_what_is_shown_deletes_nothing() {
    let (todo, doing, done) = (Edit::Status(0), Edit::Status(1), Edit::Status(2));
    for story in [
        vec![(0, doing, 2, None), (1, done, 0, None), (1, done, 0, Some(0)), (2, done, 1, None)],
        vec![
            (1, doing, 2, None),
            (0, doing, 1, None),
            (0, doing, 4, Some(1)),
            (1, todo, 1, Some(2)),
        ],
        vec![(0, doing, 1, None), (1, done, 1, None), (1, done, 1, Some(0)), (1, todo, 2, None)],
    ] {
        assert!(settles_alike(&Story(story)));
    }
}

#[test]
fn every_replica_settles_the_same_with_the_same_changes() {
    fn law(story: Story) -> bool {
        settles_alike(&story)
    }
    QuickCheck::new().tests(300).quickcheck(law as fn(Story) -> bool);
}

#[test]
fn who_settles_before_it_has_heard_of_everything_agrees_in_the_end() {
    fn law(story: Story) -> bool {
        let schema = Schema::parse(SCHEMA).unwrap();
        // Each settles what it knows of two of the three, then they meet, and go on until nothing
        // is left to settle.
        let people = tell(&story);
        let mut replicas: Vec<Automerge> = (0..3)
            .map(|who| {
                let mut doc = people[who].clone();
                doc.merge(&mut people[(who + 1) % 3].clone()).unwrap();
                Automerge::load(&doc.save()).unwrap()
            })
            .collect();
        for _ in 0..8 {
            for replica in &mut replicas {
                look(replica, &schema);
            }
            let all: Vec<Change> =
                replicas.iter().flat_map(|replica| replica.get_changes(&[])).collect();
            for replica in &mut replicas {
                replica.apply_changes(all.clone()).unwrap();
            }
        }
        let (settled, left) = look(&mut replicas[0], &schema);
        settled.is_empty() && left.iter().all(|field| ["title", "files"].contains(&field.as_str()))
    }
    QuickCheck::new().tests(150).quickcheck(law as fn(Story) -> bool);
}

fn two(one: Edit, other: Edit) -> (Automerge, Vec<Settled>, Vec<String>) {
    let mut ann = task().with_actor(actor(1));
    let mut ben = task().with_actor(actor(2));
    edit(&mut ann, one, 10);
    edit(&mut ben, other, 20);
    ann.merge(&mut ben).unwrap();
    let mut doc = Automerge::load(&ann.save()).unwrap();
    let (settled, left) = look(&mut doc, &Schema::parse(SCHEMA).unwrap());
    (doc, settled, left)
}

fn value(doc: &Automerge, key: &str) -> Option<String> {
    let (value, _) = doc.get(ROOT, key).unwrap()?;
    match value {
        Value::Scalar(value) => Some(value.to_string()),
        Value::Object(_) => None,
    }
}

#[test]
fn each_field_ends_as_its_policy_says_and_it_is_on_record() {
    for (one, other, key, ends, policy) in [
        (Edit::Points(7), Edit::Points(3), "points", "7", "max"),
        (Edit::Points(3), Edit::Points(7), "points", "7", "max"),
        (Edit::Owner(false), Edit::Owner(true), "owner", "\"ben\"", "latest"),
        (Edit::Owner(true), Edit::Owner(false), "owner", "\"ann\"", "latest"),
        (Edit::First(false), Edit::First(true), "first", "\"ann\"", "earliest"),
        (Edit::Status(2), Edit::Status(1), "status", "\"done\"", "ladder"),
        (Edit::Status(1), Edit::Status(2), "status", "\"done\"", "ladder"),
    ] {
        let (doc, settled, left) = two(one, other);
        assert_eq!(value(&doc, key).as_deref(), Some(ends), "{one:?} {other:?}");
        assert_eq!((settled.len(), left.len()), (1, 0), "{one:?} {other:?}");
        assert_eq!(settled[0].policy, policy);
        let change = doc.get_change_by_hash(&settled[0].change).unwrap();
        let said = format!("concord:resolve {} policy-{policy}", settled[0].conflict);
        assert_eq!(change.message().map(String::from), Some(said));
        assert_eq!(change.timestamp(), 20, "the time of the last side");
    }
    let (doc, settled, left) = two(Edit::Label(false), Edit::Unlabel);
    assert!(settled.is_empty() && left.is_empty(), "writing what is there is no write");
    assert!(doc.get(ROOT, "labels").unwrap().is_some());
    let (_, settled, left) = two(Edit::Title(false), Edit::Title(true));
    assert_eq!((settled.len(), left.as_slice()), (0, &["title".to_owned()][..]));
    let (doc, settled, left) = two(Edit::Files(1), Edit::Files(2));
    assert_eq!((settled.len(), left.len()), (1, 0));
    let (_, files) = doc.get(ROOT, "files").unwrap().unwrap();
    assert_eq!(doc.length(&files), 2);
    let (doc, _, left) = two(Edit::Drop, Edit::Owner(true));
    assert_eq!((value(&doc, "owner").as_deref(), left.len()), (Some("\"ben\""), 0));
}

#[test]
fn a_person_s_decision_builds_on_nothing_that_a_policy_has_yet_to_write() {
    let mut ann = task().with_actor(actor(1));
    let mut ben = task().with_actor(actor(2));
    for (doc, points, title) in [(&mut ann, 3, false), (&mut ben, 7, true)] {
        edit(doc, Edit::Points(points), 10);
        edit(doc, Edit::Title(title), 10);
    }
    ann.merge(&mut ben).unwrap();
    let mut doc = Automerge::load(&ann.save()).unwrap();
    let known: Vec<_> = doc.get_changes(&[]).iter().map(Change::hash).collect();
    let open = Detector::of(&doc.get_changes(&[])).unwrap().open(&id());
    let is_title = |open: &&Conflict| open.path(&doc).unwrap()[0].to_string() == "title";
    let conflict = open.iter().find(is_title).unwrap().id;
    let decision = Decision { choice: Wanted::Side(1), reason: None };
    let order =
        Order { conflict, slot: None, decision, actor: vec![9; 16], time_s: 30, bulk: None };
    let asked = Asked {
        document: id().as_str().to_owned(),
        schema: Some(SCHEMA.to_owned()),
        question: Question::Decide(order),
    };
    let Answer::Decided(change) = desk::answer(&mut doc, &mut Follower::default(), &asked).unwrap()
    else {
        panic!("it is open")
    };
    let change = Change::from_bytes(change).unwrap();
    assert!(change.deps().iter().all(|dep| known.contains(dep)), "a relay could not store it");
}
