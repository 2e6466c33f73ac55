//! Peers of several versions of a schema edit the same entities: each in its own terms, and nothing
//! of it is lost, whatever was written at once.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test that fails here says where, and quickcheck gives values"
)]

mod http_common;

use std::sync::Arc;

use automerge::{ActorId, Automerge, ChangeHash, ROOT, ReadDoc as _, transaction::CommitOptions};
use concord::{
    entity::{EntityType, Schema, Value, Why, write::Writer},
    peer::{Document, Peer},
    review::{self, Choice, Code, Conflict, Detector, Resolution, SlotKey, View},
    store,
    worker::{InProcess, WorkerLimits},
};
use concord_protocol::DocumentId;
use quickcheck::{Arbitrary, Gen, QuickCheck};
use serde_json::{Value as Json, json};
use tokio::time::{sleep, timeout};

use crate::http_common::{SOON, relay_with};

const FIRST: &str = r#"
[types.person.fields]
about = "string"
name = "string"
size = "string"
effort = "integer"
title = "string"
notes = "text"
"#;

const SECOND: &str = r#"
[types.person]
version = 2
[types.person.fields]
story = "string"
first = "string"
last = "string"
size = "integer"
effort = "number"
title = "text"
notes = "string"
"#;

const TO_SECOND: &str = r#"
[[types.person.migrations]]
version = 2
rename = "about"
to = "story"
[[types.person.migrations]]
version = 2
split = "name"
into = ["first", "last"]
[[types.person.migrations]]
version = 2
retype = "size"
kind = "string"
[[types.person.migrations]]
version = 2
retype = "effort"
kind = "integer"
[[types.person.migrations]]
version = 2
retype = "title"
kind = "string"
[[types.person.migrations]]
version = 2
retype = "notes"
kind = "text"
"#;

const TO_THIRD: &str = r#"
[[types.person.migrations]]
version = 3
retype = "last"
kind = "string"
[[types.person.migrations]]
version = 3
retype = "size"
kind = "integer"
"#;

fn schema(version: usize) -> Schema {
    let text = match version {
        1 => FIRST.to_owned(),
        2 => format!("{SECOND}{TO_SECOND}"),
        _ => {
            let third = SECOND.replace("version = 2", "version = 3");
            let third = third.replace("last = \"string\"", "last = \"integer\"");
            let third = third.replace("size = \"integer\"", "size = \"number\"");
            format!("{third}{TO_SECOND}{TO_THIRD}")
        }
    };
    Schema::parse(&text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn of(version: usize) -> EntityType {
    schema(version).types.remove("person").unwrap()
}

fn id() -> DocumentId {
    DocumentId::from_bytes(&[7; 16])
}

fn text(text: impl Into<String>) -> Value {
    Value::String(text.into())
}

fn open(doc: &Automerge, schema: &Schema) -> Vec<Conflict> {
    let detector = Detector::of(&doc.get_changes(&[])).unwrap();
    review::open(doc, &detector, &id(), Some(schema))
}

fn set(doc: &mut Automerge, of: &EntityType, field: &str, value: &Value) -> Option<ChangeHash> {
    let mut tx = doc.transaction();
    Writer::new(of, &mut tx).set(&[field], value).unwrap();
    tx.commit().0
}

fn decide(doc: &mut Automerge, conflict: &Conflict, choice: &Choice) {
    let resolution = Resolution::prepare(doc, conflict, choice, None).unwrap();
    let options = || CommitOptions::default().with_message(resolution.message());
    let mut tx = doc.transaction();
    resolution.write(&mut tx).unwrap();
    if tx.commit_with(options()).0.is_none() {
        doc.empty_commit(options());
    }
}

/// A document that each of these people has, who know nothing of each other from here on.
fn apart<const N: usize>() -> [Automerge; N] {
    let mut doc = Automerge::new().with_actor(ActorId::from(&[0][..]));
    of(1).begin(&mut doc).unwrap();
    set(&mut doc, &of(1), "name", &text("Ann Lee"));
    set(&mut doc, &of(1), "effort", &Value::Integer(1));
    let mut number = 0;
    [(); N].map(|()| {
        number += 1;
        doc.fork().with_actor(ActorId::from(&[number][..]))
    })
}

#[test]
fn two_of_the_newer_version_disagree_once() {
    let (second, schema) = (of(2), schema(2));
    let [mut ann, mut ben] = apart();
    set(&mut ann, &second, "effort", &Value::Number(2.0));
    set(&mut ben, &second, "effort", &Value::Number(3.0));
    set(&mut ann, &second, "first", &text("Eva"));
    set(&mut ben, &second, "last", &text("Major"));
    ann.merge(&mut ben).unwrap();
    let found = open(&ann, &schema);
    let places: Vec<_> = found.iter().map(|it| (it.code, it.place.key.clone())).collect();
    // Both fields of a name were carried from the name of version 1, by both.
    assert!(places.contains(&(Code::Value, SlotKey::Map("effort@2".to_owned()))), "{places:?}");
    assert!(!places.iter().any(|(_, key)| *key == SlotKey::Map("effort".to_owned())), "{places:?}");
    assert!(!places.iter().any(|(_, key)| *key == SlotKey::Map("name".to_owned())), "{places:?}");
    let effort = found.iter().find(|it| it.place.key == SlotKey::Map("effort@2".to_owned()));
    let side = effort.unwrap().sides.iter().position(|side| {
        side.content(&ann, &effort.unwrap().place).unwrap().to_json().unwrap() == Some(json!(3.0))
    });
    decide(&mut ann, effort.unwrap(), &Choice::Side(side.unwrap()));
    assert_eq!(of(1).read(&ann).get("effort"), Some(&Value::Integer(3)), "version 1 is told");
    assert_eq!(second.read(&ann).get("effort"), Some(&Value::Number(3.0)));
    assert_eq!(ann.get_all(ROOT, "effort").unwrap().len(), 1);
}

#[test]
fn versions_that_are_apart_are_decided_for_both() {
    let (first, second, schema) = (of(1), of(2), schema(2));
    let [mut ann, mut ben] = apart();
    set(&mut ann, &first, "name", &text("Ann Major"));
    set(&mut ben, &second, "first", &text("Eva"));
    set(&mut ann, &first, "effort", &Value::Integer(5));
    set(&mut ben, &second, "effort", &Value::Number(2.5));
    ann.merge(&mut ben).unwrap();
    let found = open(&ann, &schema);
    assert_eq!(found.iter().map(|it| it.code).collect::<Vec<_>>(), [Code::Schema, Code::Schema]);
    let shown: Vec<View> =
        found.iter().map(|conflict| View::of(&ann, &id(), conflict).unwrap()).collect();
    let sides: Vec<Vec<Json>> = shown
        .iter()
        .map(|view| view.sides.iter().map(|side| side.value.clone().unwrap()).collect())
        .collect();
    let effort = shown.iter().position(|it| it.path.as_deref() == Some("effort, effort@2"));
    let effort = effort.unwrap_or_else(|| panic!("{shown:#?}"));
    let name = 1 - effort;
    for wanted in [json!({"effort": 5, "effort@2": 5.0}), json!({"effort": 1, "effort@2": 2.5})] {
        assert!(sides[effort].contains(&wanted), "{:?}", sides[effort]);
    }
    for wanted in [
        json!({"name": "Ann Major", "first": "Ann", "last": "Major"}),
        json!({"name": "Eva Lee", "first": "Eva", "last": "Lee"}),
    ] {
        assert!(sides[name].contains(&wanted), "{:?}", sides[name]);
    }
    assert_eq!(
        shown[effort].problem.as_deref(),
        Some(
            "field `effort` of version 1 is 5, written while a newer version was written otherwise"
        )
    );
    for (number, side) in sides[effort].iter().enumerate() {
        let mut doc = ann.clone();
        decide(&mut doc, &found[effort], &Choice::Side(number));
        let read = second.read(&doc);
        assert_eq!(read.get("effort").unwrap().to_json(), side["effort@2"]);
        assert_eq!(first.read(&doc).get("effort").unwrap().to_json(), side["effort"]);
        assert_eq!(open(&doc, &schema).len(), 1, "the other is open");
    }
    for (number, side) in sides[name].iter().enumerate() {
        let mut doc = ann.clone();
        decide(&mut doc, &found[name], &Choice::Side(number));
        let read = second.read(&doc);
        assert_eq!(read.get("first").unwrap().to_json(), side["first"]);
        assert_eq!(read.get("last").unwrap().to_json(), side["last"]);
        assert_eq!(first.read(&doc).get("name").unwrap().to_json(), side["name"]);
        assert_eq!(read.parked.iter().filter(|it| it.field == "name").count(), 0);
    }
    let other = [
        (json!({"name": "Ida Ray"}), "Ida", "Ray", "Ida Ray"),
        (json!({"first": "Ida"}), "Ida", "Lee", "Ida Lee"),
    ];
    for (value, one, two, whole) in other {
        let mut doc = ann.clone();
        let choice = Choice::value(value, &found[name]).unwrap();
        decide(&mut doc, &found[name], &choice);
        let read = second.read(&doc);
        assert_eq!((read.get("first"), read.get("last")), (Some(&text(one)), Some(&text(two))));
        assert_eq!(first.read(&doc).get("name"), Some(&text(whole)));
        assert_eq!(open(&doc, &schema).len(), 1);
    }
    let mut doc = ann.clone();
    decide(&mut doc, &found[effort], &Choice::Now);
    assert_eq!(open(&doc, &schema).len(), 1);
    assert!(second.read(&doc).parked.iter().all(|it| it.field != "effort" || it.why != Why::Apart));
}

#[test]
fn what_cannot_be_read_is_in_the_queue_until_it_is_put_right_or_let_be() {
    let (first, second, schema) = (of(1), of(2), schema(2));
    let [mut ann] = apart();
    set(&mut ann, &second, "size", &Value::Integer(4));
    set(&mut ann, &first, "size", &text("many"));
    let found = open(&ann, &schema);
    assert_eq!((found.len(), found[0].code, found[0].sides.len()), (1, Code::Schema, 1));
    let shown = View::of(&ann, &id(), &found[0]).unwrap();
    assert_eq!(shown.now, Some(json!({"size": "many", "size@2": 4})));
    assert_eq!(shown.before, Some(json!({"size": "4", "size@2": 4})));
    let mut right = ann.clone();
    decide(&mut right, &found[0], &Choice::value(json!({"size@2": 9}), &found[0]).unwrap());
    assert_eq!(open(&right, &schema), []);
    assert_eq!(first.read(&right).get("size"), Some(&text("9")));
    let mut before = ann.clone();
    decide(&mut before, &found[0], &Choice::Before);
    assert_eq!(open(&before, &schema), []);
    assert_eq!(second.read(&before).get("size"), Some(&Value::Integer(4)));
    decide(&mut ann, &found[0], &Choice::Now);
    assert_eq!(open(&ann, &schema), [], "it is let be");
    assert_eq!(first.read(&ann).get("size"), Some(&text("many")));
    assert_eq!(second.read(&ann).parked.len(), 1, "and shown");
}

#[test]
fn a_text_that_two_bring_up_to_date_at_once_is_not_there_twice_unseen() {
    let (first, second, schema) = (of(1), of(2), schema(2));
    let [mut base] = apart();
    set(&mut base, &second, "title", &text("Hello"));
    set(&mut base, &first, "title", &text("Good bye"));
    let mut ben = base.fork().with_actor(ActorId::from(&[9][..]));
    set(&mut base, &second, "title", &text("Good bye!"));
    set(&mut ben, &second, "title", &text("Good bye?"));
    base.merge(&mut ben).unwrap();
    let found = open(&base, &schema);
    assert_eq!((found.len(), found[0].code), (1, Code::Schema), "{found:?}");
    let shown = View::of(&base, &id(), &found[0]).unwrap();
    let sides: Vec<&Json> =
        shown.sides.iter().map(|side| &side.value.as_ref().unwrap()["title@2"]).collect();
    assert!(
        sides.contains(&&json!("Good bye!")) && sides.contains(&&json!("Good bye?")),
        "{sides:?}"
    );
    decide(&mut base, &found[0], &Choice::value(json!({"title@2": "Bye."}), &found[0]).unwrap());
    assert_eq!(open(&base, &schema), []);
    assert_eq!(second.read(&base).get("title"), Some(&text("Bye.")));
    assert_eq!(first.read(&base).get("title"), Some(&text("Bye.")));
}

#[test]
fn history_tells_of_what_was_written_once_and_not_of_what_was_carried() {
    let (first, second) = (of(1), of(2));
    let [mut ann] = apart();
    let before: Vec<_> =
        ann.get_heads().iter().map(|it| concord_protocol::ChangeHash(it.0)).collect();
    set(&mut ann, &second, "effort", &Value::Number(2.0));
    set(&mut ann, &first, "effort", &Value::Integer(3));
    let told = concord::history::events(&ann, Some(&schema(2)), &before, 10).unwrap();
    let told: Vec<_> =
        told.events.iter().map(|event| (event.name.as_str(), event.after.clone())).collect();
    assert_eq!(
        told,
        [("person.effort_set", Some(json!(2.0))), ("person.effort_changed", Some(json!(3)))]
    );
}

#[test]
fn what_is_brought_back_is_what_it_was_in_both_versions() {
    let (first, second) = (of(1), of(2));
    let [mut ann] = apart();
    set(&mut ann, &second, "effort", &Value::Number(2.0));
    let heads = ann.get_heads();
    let then: Vec<_> = heads.iter().map(|it| concord_protocol::ChangeHash(it.0)).collect();
    for later in [&first, &second] {
        let mut doc = ann.clone();
        let nine = if later.version == 1 { Value::Integer(9) } else { Value::Number(9.0) };
        set(&mut doc, later, "effort", &nine);
        let mut tx = doc.transaction();
        concord::history::restore(&mut tx, &then, &[]).unwrap();
        tx.commit();
        let read = second.read(&doc);
        assert_eq!((read.get("effort"), &*read.parked), (Some(&Value::Number(2.0)), &[][..]));
        assert_eq!(first.read(&doc).get("effort"), Some(&Value::Integer(2)));
    }
}

/// What somebody does: who, what, and whom they hear from first.
#[derive(Debug, Clone)]
struct Step {
    who: usize,
    field: usize,
    value: u8,
    hears: Option<usize>,
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let hears = u8::arbitrary(g).is_multiple_of(3).then(|| usize::arbitrary(g) % 3);
        let (who, field) = (usize::arbitrary(g) % 3, usize::arbitrary(g) % 6);
        Self { who, field, value: u8::arbitrary(g) % 6, hears }
    }
}

/// Who has which version.
const VERSIONS: [[usize; 3]; 4] = [[1, 2, 2], [1, 1, 2], [1, 2, 3], [2, 3, 3]];

/// A field of a version, a value for it, the fields of version 3 that it is about, and which it
/// belongs to.
fn edit(version: usize, field: usize, value: u8) -> (&'static str, Value, &'static [&'static str]) {
    let number = i64::from(value);
    let word = || match value {
        0 => text("Eva 7"),
        1 => text("Ida"),
        2 => text("8"),
        _ => text(format!("Ann {number}")),
    };
    match (version, field) {
        (1, 0) => ("about", word(), &["story"]),
        (_, 0) => ("story", word(), &["story"]),
        (1, 1 | 2) => ("name", word(), &["first", "last"]),
        (_, 1) => ("first", text(if value < 3 { "Eva" } else { "Ben" }), &["first"]),
        (2, 2) => ("last", word(), &["last"]),
        (_, 2) => ("last", Value::Integer(number), &["last"]),
        (1, 3) => ("size", word(), &["size"]),
        (2, 3) => ("size", Value::Integer(number), &["size"]),
        (_, 3) => ("size", Value::Number(f64::from(value) / 2.0), &["size"]),
        (1, 4) => ("effort", Value::Integer(number), &["effort"]),
        (_, 4) => ("effort", Value::Number(f64::from(value) / 2.0), &["effort"]),
        (_, _) => (
            "title",
            text(["", "one", "two", "three", "four", "five"][usize::from(value)]),
            &["title"],
        ),
    }
}

/// A write that was made.
#[derive(Debug)]
struct Write {
    change: ChangeHash,
    version: usize,
    about: &'static [&'static str],
}

/// What people did, each on their own replica.
fn tell(versions: [usize; 3], steps: &[Step]) -> (Vec<Automerge>, Vec<Write>) {
    let mut docs: Vec<Automerge> = apart::<3>().into();
    let types = [of(1), of(2), of(3)];
    let mut writes = Vec::new();
    for Step { who, field, value, hears } in steps.iter().take(16) {
        if let Some(other) = hears.filter(|other| other != who) {
            let mut other = docs[other].clone();
            docs[*who].merge(&mut other).unwrap();
        }
        let version = versions[*who];
        let (name, value, about) = edit(version, *field, *value);
        if let Some(change) = set(&mut docs[*who], &types[version - 1], name, &value) {
            writes.push(Write { change, version, about });
        }
    }
    (docs, writes)
}

fn merged(docs: &[Automerge], backwards: bool) -> Automerge {
    let mut docs: Vec<Automerge> = docs.to_vec();
    if backwards {
        docs.reverse();
    }
    let mut all = Automerge::new();
    for doc in &mut docs {
        all.merge(doc).unwrap();
    }
    all
}

/// Whether who made `later` had seen `earlier`, or it is the same.
fn saw(doc: &Automerge, later: ChangeHash, earlier: ChangeHash) -> bool {
    let known = doc.fork_at(&[later]).unwrap();
    known.get_change_meta_by_hash(&earlier).is_some()
}

/// Whether a conflict is about a field of version 3.
fn is_about(conflict: &Conflict, field: &str) -> bool {
    let keys: Vec<&str> = match &conflict.place.key {
        SlotKey::Map(key) => vec![key.as_str()],
        SlotKey::Rule { keys, .. } => keys.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    keys.into_iter().any(|key| match key.split('@').next().unwrap() {
        "name" => matches!(field, "first" | "last"),
        "about" => field == "story",
        key => key == field,
    })
}

fn nothing_is_lost(versions: [usize; 3], steps: &[Step]) -> Result<(), String> {
    let (docs, writes) = tell(versions, steps);
    let (newest, schema) = (of(3), schema(3));
    let all = merged(&docs, false);
    let found = open(&all, &schema);
    let read = newest.read(&all);
    let back = merged(&docs, true);
    if found != open(&back, &schema) || read != newest.read(&back) {
        return Err("it depends on the order".to_owned());
    }
    for (number, write) in writes.iter().enumerate() {
        for field in write.about {
            let is_later = |later: &Write| {
                later.change != write.change
                    && later.about.contains(field)
                    && saw(&all, later.change, write.change)
            };
            if writes.iter().any(is_later) {
                continue;
            }
            let then = all.fork_at(&[write.change]).unwrap();
            let then = newest.read(&then);
            let parked = |value: &Value| read.parked.iter().any(|it| it.value == *value);
            let is_shown = read.get(field) == then.get(field)
                && then.parked.iter().all(|it| {
                    !matches!(it.why, Why::Unreadable(_)) || it.field != *field || parked(&it.value)
                });
            let in_conflict = found.iter().any(|conflict| {
                let mut changes = conflict.sides.iter().flat_map(|side| &side.changes);
                is_about(conflict, field) && changes.any(|it| saw(&all, *it, write.change))
            });
            // What several wrote into one text is there together.
            let others = |it: &&Write| {
                it.about == write.about
                    && it.version > 1
                    && it.change != write.change
                    && !saw(&all, it.change, write.change)
                    && !saw(&all, write.change, it.change)
            };
            let is_merged =
                *field == "title" && write.version > 1 && writes.iter().any(|it| others(&it));
            if !is_shown && !in_conflict && !is_merged {
                return Err(format!(
                    "write {number} of `{field}`, {:?}, is lost: {:?} {:?} {found:#?}",
                    then.get(field),
                    read.get(field),
                    read.parked
                ));
            }
        }
    }
    Ok(())
}

#[test]
fn no_write_is_lost_between_versions() {
    fn law(versions: usize, steps: Vec<Step>) -> Result<bool, String> {
        nothing_is_lost(VERSIONS[versions % VERSIONS.len()], &steps).map(|()| true)
    }
    QuickCheck::new().tests(200).quickcheck(law as fn(usize, Vec<Step>) -> Result<bool, String>);
}

/// Who, what, and whom they hear from first, as in a [`Step`].
type Told = (usize, usize, u8, Option<usize>);

/// What the law found before it held.
#[test]
fn no_write_is_lost_that_was_lost_once() {
    let step = |(who, field, value, hears): Told| Step { who, field, value, hears };
    let cases: [(usize, &[Told]); 10] = [
        (
            2,
            &[
                (2, 2, 1, None),
                (1, 2, 1, Some(1)),
                (1, 3, 5, Some(2)),
                (0, 2, 0, Some(1)),
                (2, 1, 5, Some(0)),
            ],
        ),
        (
            1,
            &[
                (0, 4, 4, None),
                (0, 1, 3, None),
                (2, 5, 5, Some(0)),
                (1, 2, 0, None),
                (2, 1, 1, Some(1)),
            ],
        ),
        (
            0,
            &[
                (1, 4, 0, None),
                (2, 4, 4, None),
                (0, 0, 5, Some(2)),
                (0, 4, 2, Some(1)),
                (2, 4, 5, None),
            ],
        ),
        (0, &[(2, 3, 2, None), (1, 3, 3, None)]),
        (1, &[(2, 1, 0, Some(0)), (1, 1, 4, Some(2)), (0, 1, 2, None), (2, 1, 3, Some(0))]),
        (
            3,
            &[
                (0, 2, 3, None),
                (1, 3, 4, Some(0)),
                (1, 1, 2, Some(2)),
                (1, 1, 1, None),
                (0, 4, 3, None),
                (2, 1, 3, Some(0)),
                (1, 2, 3, None),
            ],
        ),
        (0, &[(0, 2, 2, Some(2)), (2, 2, 2, None), (1, 3, 5, Some(0)), (1, 1, 0, None)]),
        (
            0,
            &[
                (2, 4, 3, None),
                (0, 4, 5, None),
                (2, 4, 3, Some(0)),
                (1, 2, 2, Some(0)),
                (1, 4, 5, None),
            ],
        ),
        (
            3,
            &[
                (2, 3, 0, None),
                (2, 2, 1, None),
                (0, 1, 3, Some(1)),
                (2, 4, 2, Some(0)),
                (1, 2, 3, Some(0)),
                (1, 1, 2, None),
                (0, 1, 3, Some(1)),
                (2, 1, 5, None),
            ],
        ),
        (
            0,
            &[
                (1, 3, 0, None),
                (0, 3, 2, Some(1)),
                (0, 3, 0, None),
                (2, 3, 4, None),
                (1, 1, 0, Some(0)),
                (1, 3, 0, None),
            ],
        ),
    ];
    for (versions, steps) in cases {
        let steps: Vec<Step> = steps.iter().copied().map(step).collect();
        nothing_is_lost(VERSIONS[versions], &steps).unwrap();
    }
}

#[test]
fn whatever_is_decided_all_versions_see_the_same_then() {
    fn law(versions: usize, steps: Vec<Step>, choices: Vec<u8>) -> Result<bool, String> {
        let (docs, _) = tell(VERSIONS[versions % VERSIONS.len()], &steps);
        let schema = schema(3);
        let mut all = merged(&docs, false);
        all.set_actor(ActorId::from(&[42][..]));
        let mut choices = choices.into_iter().chain(std::iter::repeat(1));
        for _ in 0..40 {
            let Some(conflict) = open(&all, &schema).into_iter().next() else { break };
            let sides = conflict.sides.len();
            let choice = match choices.next().unwrap() {
                0 => Choice::Before,
                1 => Choice::Now,
                side => Choice::Side(usize::from(side) % sides),
            };
            decide(&mut all, &conflict, &choice);
            if open(&all, &schema).iter().any(|open| open.id == conflict.id) {
                return Err(format!("{choice:?} does not close {conflict:#?}"));
            }
        }
        if let Some(left) = open(&all, &schema).first() {
            return Err(format!("there is no end of {left:#?}"));
        }
        let (second, third) = (of(2), of(3));
        let (old, new) = (second.read(&all), third.read(&all));
        let apart = new.parked.iter().find(|parked| parked.why == Why::Apart);
        if let Some(apart) = apart {
            return Err(format!("still apart: {apart}"));
        }
        if old.get("first") != new.get("first") {
            return Err(format!("{:?} {:?}", old.get("first"), new.get("first")));
        }
        Ok(true)
    }
    let law = law as fn(usize, Vec<Step>, Vec<u8>) -> Result<bool, String>;
    QuickCheck::new().tests(100).quickcheck(law);
}

#[test]
fn what_strangers_write_is_read_without_a_panic() {
    #[derive(Debug, Clone)]
    struct Junk(u8, u8, String);
    impl Arbitrary for Junk {
        fn arbitrary(g: &mut Gen) -> Self {
            Self(u8::arbitrary(g), u8::arbitrary(g), String::arbitrary(g))
        }
    }
    fn law(junk: Vec<Junk>) -> bool {
        use automerge::{ObjType, ScalarValue, transaction::Transactable as _};
        let [mut doc] = apart();
        let keys = [
            "name",
            "first",
            "last",
            "last@3",
            "size",
            "size@2",
            "size@3",
            "title",
            "title@2",
            "notes",
            "notes@2",
            "concord:lens:2:name:",
            "concord:lens:2:size:1",
            "concord:lens:",
        ];
        let mut tx = doc.transaction();
        for Junk(key, what, text) in junk {
            let key = keys[usize::from(key) % keys.len()];
            match what % 7 {
                0 => drop(tx.put_object(ROOT, key, ObjType::Map)),
                1 => tx.put(ROOT, key, text).unwrap(),
                2 => tx.put(ROOT, key, f64::NAN).unwrap(),
                3 => tx.put(ROOT, key, ScalarValue::counter(3)).unwrap(),
                4 => tx.delete(ROOT, key).unwrap(),
                5 => {
                    let object = tx.put_object(ROOT, key, ObjType::Text).unwrap();
                    tx.splice_text(&object, 0, 0, &text).unwrap();
                }
                _ => tx.put(ROOT, key, i64::MIN).unwrap(),
            }
        }
        tx.commit();
        for version in 1..=3 {
            let of = of(version);
            let _ = (of.read(&doc).problems(), open(&doc, &schema(version)));
        }
        let last = Value::Integer(7);
        set(&mut doc, &of(3), "last", &last);
        of(3).read(&doc).get("last") == Some(&last)
    }
    QuickCheck::new().tests(300).quickcheck(law as fn(Vec<Junk>) -> bool);
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn write(of: &EntityType, document: &Document, field: &str, value: Value) {
    let edit = |tx: &mut automerge::transaction::Transaction<'_>| {
        Ok(Writer::new(of, tx).set(&[field], &value)?)
    };
    document.change(edit).await.unwrap();
}

fn sees(of: &EntityType, document: &Document, field: &str, value: &Value) -> bool {
    document.read(|doc| of.read(doc).get(field) == Some(value)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_version_one_and_a_peer_of_version_two_edit_one_entity_through_a_relay() {
    let (first, second) = (of(1), of(2));
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let newer = format!("{SECOND}{TO_SECOND}");
    let (relay, http) = relay_with(store::memory().unwrap(), worker, |config| {
        config.schema = Some(newer);
    })
    .await;
    let peer = |version| {
        let builder = Peer::builder("memory").store(store::memory().unwrap());
        builder.schema(schema(version)).relay(format!("ws://{}", http.0)).open().unwrap()
    };
    let (ann, ben) = (peer(1), peer(2));
    let hers = ann.entity(&first, "42").await.unwrap();
    let his = ben.entity(&second, "42").await.unwrap();
    assert_eq!(hers.id(), his.id());

    // Each sees what the other writes, in its own terms: renamed, split, retyped.
    write(&first, &hers, "about", text("A life")).await;
    write(&first, &hers, "name", text("Ann Lee")).await;
    write(&first, &hers, "size", text("42")).await;
    write(&first, &hers, "title", text("Dr")).await;
    let there = [
        ("story", text("A life")),
        ("first", text("Ann")),
        ("last", text("Lee")),
        ("size", Value::Integer(42)),
        ("title", text("Dr")),
    ];
    for (field, value) in there {
        until(field, || sees(&second, &his, field, &value)).await;
    }
    write(&second, &his, "story", text("Two lives")).await;
    write(&second, &his, "last", text("Major")).await;
    write(&second, &his, "size", Value::Integer(43)).await;
    write(&second, &his, "title", text("Dr X")).await;
    let here = [
        ("about", text("Two lives")),
        ("name", text("Ann Major")),
        ("size", text("43")),
        ("title", text("Dr X")),
    ];
    for (field, value) in here {
        until(field, || sees(&first, &hers, field, &value)).await;
    }
    assert_eq!(hers.conflicts().unwrap(), []);
    assert_eq!(his.conflicts().unwrap(), []);

    // At once, and not to be reconciled: nobody has heard of the other.
    until("both have both", || hers.heads().unwrap() == his.heads().unwrap()).await;
    let before = hers.heads().unwrap();
    let many = text("many");
    let old = |tx: &mut automerge::transaction::Transaction<'_>| {
        Ok(Writer::new(&first, tx).set(&["size"], &many)?)
    };
    let new = |tx: &mut automerge::transaction::Transaction<'_>| {
        Ok(Writer::new(&second, tx).set(&["size"], &Value::Integer(44))?)
    };
    hers.change_at(&before, old).await.unwrap();
    his.change_at(&before, new).await.unwrap();
    for document in [&hers, &his] {
        document.wait_confirmed(SOON).await.unwrap();
    }
    until("both have both", || hers.heads().unwrap() == his.heads().unwrap()).await;
    let open = http.open(1).await.remove(0);
    assert_eq!((&open["code"], &open["side_count"]), (&json!("schema"), &json!(2)));
    let found = his.conflicts().unwrap();
    assert_eq!(json!([found[0].id]), json!([open["id"]]), "the same on the relay and the peer");
    let id = open["id"].as_str().unwrap();
    let (status, shown) = http.get(&format!("/v1/conflicts/{id}")).await;
    assert_eq!(status, 200);
    let sides: Vec<&Json> =
        shown["sides"].as_array().unwrap().iter().map(|side| &side["value"]).collect();
    assert!(sides.contains(&&json!({"size": "44", "size@2": 44})), "{sides:?}");
    assert!(sides.iter().any(|side| side["size"] == "many"), "{sides:?}");
    assert!(his.read(|doc| second.read(doc).parked.len()).unwrap() == 1, "it is parked meanwhile");

    let decision = json!({"choice": {"value": {"size@2": 50}}, "reason": "counted again"});
    let (status, said) = http.resolve(id, &decision).await;
    assert_eq!(status, 200, "{said}");
    until("he sees it", || sees(&second, &his, "size", &Value::Integer(50))).await;
    until("she sees it", || sees(&first, &hers, "size", &text("50"))).await;
    assert_eq!(http.open(0).await, Vec::<Json>::new());
    assert_eq!(his.conflicts().unwrap(), []);
    assert_eq!(hers.conflicts().unwrap(), []);
    assert!(his.read(|doc| second.read(doc).parked.is_empty()).unwrap());
    for peer in [ann, ben] {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}
