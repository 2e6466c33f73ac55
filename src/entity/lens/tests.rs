use automerge::{ActorId, Automerge, ROOT, ReadDoc as _, transaction::Transactable as _};
use quickcheck::{Arbitrary, Gen, QuickCheck};

use super::{
    How, Kept, Lens, Why,
    convert::{Passage, convert, is_total, passage},
};
use crate::entity::{Entity, EntityType, Kind, Literal, Schema, Value, write::Writer};

const FIRST: &str = r#"
[types.person.fields]
about = "string"
name = "string"
size = "string"
effort = "integer"
notes = "text"
title = "string"
street = "string"
town = "string"
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
notes = "string"
title = "text"
address = "string"
color = "string"
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
retype = "notes"
kind = "text"
[[types.person.migrations]]
version = 2
retype = "title"
kind = "string"
[[types.person.migrations]]
version = 2
merge = ["street", "town"]
into = "address"
separator = ", "
[[types.person.migrations]]
version = 2
add = "color"
"#;

fn third() -> String {
    SECOND
        .replace("version = 2\n[types.person.fields]", "version = 3\n[types.person.fields]")
        .replace("first = \"string\"", "first = { kind = \"enum\", values = [\"Ann\", \"Ben\"] }")
        .replace("last = \"string\"", "last = \"integer\"")
        .replace("size = \"integer\"", "size = \"boolean\"")
        + r#"
[[types.person.migrations]]
version = 3
retype = "first"
kind = "string"
[[types.person.migrations]]
version = 3
retype = "last"
kind = "string"
[[types.person.migrations]]
version = 3
retype = "size"
kind = "integer"
"#
}

fn of(text: &str) -> EntityType {
    let schema = Schema::parse(text).unwrap_or_else(|errors| panic!("{errors}"));
    schema.types.into_values().next().unwrap()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn actor(number: u8) -> ActorId {
    ActorId::from(&[number][..])
}

/// A document that begins as one of version 1.
fn begun() -> Automerge {
    let mut doc = Automerge::new().with_actor(actor(1));
    of(FIRST).begin(&mut doc).unwrap();
    doc
}

fn set(doc: &mut Automerge, of: &EntityType, field: &str, value: &Value) {
    let mut tx = doc.transaction();
    Writer::new(of, &mut tx).set(&[field], value).unwrap();
    tx.commit();
}

fn clear(doc: &mut Automerge, of: &EntityType, field: &str) {
    let mut tx = doc.transaction();
    Writer::new(of, &mut tx).clear(&[field]).unwrap();
    tx.commit();
}

fn see<'a>(entity: &'a Entity<'_>, fields: &[&str]) -> Vec<Option<&'a Value>> {
    fields.iter().map(|field| entity.get(field)).collect()
}

fn parked(entity: &Entity<'_>) -> Vec<String> {
    entity.parked.iter().map(ToString::to_string).collect()
}

#[test]
fn each_version_sees_what_the_other_wrote_in_its_own_terms() {
    let (first, second) = (of(FIRST), of(SECOND));
    let mut doc = begun();
    for (field, value) in [
        ("about", text("A life")),
        ("name", text("Ann Lee Major")),
        ("size", text("42")),
        ("effort", Value::Integer(3)),
        ("notes", text("Some")),
        ("title", text("Dr")),
        ("street", text("Elm 1")),
        ("town", text("Rome")),
    ] {
        set(&mut doc, &first, field, &value);
    }
    let fields = ["story", "first", "last", "size", "effort", "notes", "title", "address"];
    second.begin(&mut doc).unwrap();
    let read = second.read(&doc);
    let mut wanted = [
        text("A life"),
        text("Ann"),
        text("Lee Major"),
        Value::Integer(42),
        Value::Number(3.0),
        text("Some"),
        text("Dr"),
        text("Elm 1, Rome"),
    ];
    assert_eq!(see(&read, &fields), wanted.each_ref().map(Some));
    assert_eq!((&*read.misfits, &*read.parked), (&[][..], &[][..]));

    let there = ["story", "last", "size", "effort", "notes", "title", "address"];
    let new = [
        text("Lives"),
        text("Minor"),
        Value::Integer(43),
        Value::Number(4.0),
        text("Some more"),
        text("Prof"),
        text("Oak 2, Bonn"),
    ];
    for (field, value) in there.iter().zip(&new) {
        set(&mut doc, &second, field, value);
    }
    let old = first.read(&doc);
    assert_eq!((&*old.misfits, &*old.parked), (&[][..], &[][..]));
    let names = ["about", "name", "size", "effort", "notes", "title", "street", "town"];
    let olds = [
        text("Lives"),
        text("Ann Minor"),
        text("43"),
        Value::Integer(4),
        text("Some more"),
        text("Prof"),
        text("Oak 2"),
        text("Bonn"),
    ];
    assert_eq!(see(&old, &names), olds.each_ref().map(Some));
    [wanted[0], wanted[2], wanted[3], wanted[4], wanted[5], wanted[6], wanted[7]] = new;
    assert_eq!(see(&second.read(&doc), &fields), wanted.each_ref().map(Some));

    // Version 1 goes on, and takes one away.
    set(&mut doc, &first, "name", &text("Eva Lang"));
    set(&mut doc, &first, "town", &text("Kiel"));
    set(&mut doc, &first, "notes", &text("Some more still"));
    set(&mut doc, &first, "title", &text("Mr"));
    clear(&mut doc, &first, "size");
    let read = second.read(&doc);
    let fields = ["first", "last", "size", "effort", "notes", "title", "address"];
    assert_eq!(
        see(&read, &fields),
        [
            Some(&text("Eva")),
            Some(&text("Lang")),
            None,
            Some(&Value::Number(4.0)),
            Some(&text("Some more still")),
            Some(&text("Mr")),
            Some(&text("Oak 2, Kiel")),
        ]
    );
    assert_eq!((&*read.misfits, &*read.parked), (&[][..], &[][..]));
    // And version 2 on that.
    set(&mut doc, &second, "first", &text("Ida"));
    set(&mut doc, &second, "title", &text("Mr X"));
    assert_eq!(first.read(&doc).get("name"), Some(&text("Ida Lang")));
    assert_eq!(first.read(&doc).get("title"), Some(&text("Mr X")));
    assert_eq!(second.read(&doc).get("last"), Some(&text("Lang")));
}

#[test]
fn what_the_newer_version_cannot_read_is_parked_until_it_is_written() {
    let (first, second) = (of(FIRST), of(SECOND));
    let mut doc = begun();
    set(&mut doc, &first, "size", &text("many"));
    set(&mut doc, &first, "name", &text("Ann"));
    let read = second.read(&doc);
    assert_eq!(see(&read, &["size", "first", "last"]), [None, Some(&text("Ann")), None]);
    assert_eq!(parked(&read), ["field `size` of version 1 is \"many\", which is no whole number"]);
    let said = second.validate(&doc).unwrap_err().to_string();
    assert_eq!(
        said,
        "field `size` cannot be read from an earlier version: it has a value which is no whole \
         number: write what a field of kind `integer` may have"
    );
    // Other fields are written, and it stays.
    set(&mut doc, &second, "first", &text("Eva"));
    assert_eq!(parked(&second.read(&doc)).len(), 1);
    assert_eq!(first.read(&doc).get("size"), Some(&text("many")));
    set(&mut doc, &second, "size", &Value::Integer(7));
    let read = second.read(&doc);
    assert_eq!((parked(&read).len(), read.get("size")), (0, Some(&Value::Integer(7))));
    assert_eq!(first.read(&doc).get("size"), Some(&text("7")));
}

#[test]
fn what_the_older_version_cannot_have_leaves_it_behind_and_is_shown() {
    let (first, second) = (of(FIRST), of(SECOND));
    let mut doc = begun();
    set(&mut doc, &first, "effort", &Value::Integer(2));
    set(&mut doc, &second, "effort", &Value::Number(2.5));
    assert_eq!(first.read(&doc).get("effort"), Some(&Value::Integer(2)));
    let read = second.read(&doc);
    assert_eq!(read.get("effort"), Some(&Value::Number(2.5)));
    assert_eq!(
        parked(&read),
        [
            "field `effort` of version 1 is 2 still: it cannot have what stands now, 2.5, which is no \
          whole number"
        ]
    );
    assert_eq!(second.validate(&doc), Ok(()));
    set(&mut doc, &first, "effort", &Value::Integer(3));
    let read = second.read(&doc);
    assert_eq!((read.get("effort"), parked(&read).len()), (Some(&Value::Number(3.0)), 0));
}

#[test]
fn what_version_one_does_not_know_it_does_not_touch() {
    let (first, second) = (of(FIRST), of(SECOND));
    let mut doc = begun();
    second.begin(&mut doc).unwrap();
    set(&mut doc, &second, "color", &text("red"));
    let mut tx = doc.transaction();
    tx.put(ROOT, "of_nobody", 7).unwrap();
    tx.commit();
    for (field, value) in [("name", text("Ann")), ("effort", Value::Integer(1))] {
        set(&mut doc, &first, field, &value);
        clear(&mut doc, &first, field);
    }
    assert_eq!(second.read(&doc).get("color"), Some(&text("red")));
    assert_eq!(doc.get(ROOT, "of_nobody").unwrap().unwrap().0.as_i64(), Some(7));
}

#[test]
fn what_two_write_at_once_who_have_other_versions_is_apart_unless_it_is_the_same() {
    let (first, second) = (of(FIRST), of(SECOND));
    let mut ann = begun();
    set(&mut ann, &second, "size", &Value::Integer(1));
    set(&mut ann, &second, "effort", &Value::Number(1.0));
    let mut ben = ann.fork().with_actor(actor(2));
    set(&mut ann, &first, "size", &text("5"));
    set(&mut ann, &first, "effort", &Value::Integer(6));
    set(&mut ben, &second, "size", &Value::Integer(5));
    set(&mut ben, &second, "effort", &Value::Number(7.0));
    ann.merge(&mut ben).unwrap();
    let read = second.read(&ann);
    assert_eq!(
        see(&read, &["size", "effort"]),
        [Some(&Value::Integer(5)), Some(&Value::Number(7.0))]
    );
    assert_eq!(read.parked.len(), 1, "{:?}", read.parked);
    assert_eq!((&read.parked[0].value, &read.parked[0].why), (&Value::Integer(6), &Why::Apart));
    // Whoever has seen both decides.
    set(&mut ann, &second, "effort", &Value::Number(8.0));
    assert_eq!(second.read(&ann).parked, []);
    assert_eq!(first.read(&ann).get("effort"), Some(&Value::Integer(8)));
}

#[test]
fn a_part_that_is_taken_away_is_so_for_whoever_writes_it_at_once() {
    let (first, second) = (of(FIRST), of(SECOND));
    let mut ann = begun();
    set(&mut ann, &first, "name", &text("Ann Lee"));
    let mut ben = ann.fork().with_actor(actor(2));
    set(&mut ann, &first, "name", &text("Ann"));
    set(&mut ann, &second, "first", &text("Eva"));
    set(&mut ben, &second, "last", &text("Major"));
    ann.merge(&mut ben).unwrap();
    assert_eq!(ann.get_all(ROOT, "last").unwrap().len(), 2, "that there is none is one of them");
}

#[test]
fn steps_chain_over_versions() {
    let (first, second, third) = (of(FIRST), of(SECOND), of(&third()));
    let mut doc = begun();
    set(&mut doc, &first, "name", &text("Ann 7"));
    set(&mut doc, &first, "size", &text("1"));
    let fields = ["first", "last", "size"];
    let wanted = [text("Ann"), Value::Integer(7), Value::Boolean(true)];
    assert_eq!(see(&third.read(&doc), &fields), wanted.each_ref().map(Some));
    set(&mut doc, &third, "last", &Value::Integer(8));
    set(&mut doc, &third, "size", &Value::Boolean(false));
    assert_eq!(see(&first.read(&doc), &["name", "size"]), [Some(&text("Ann 8")), Some(&text("0"))]);
    assert_eq!(
        see(&second.read(&doc), &["last", "size"]),
        [Some(&text("8")), Some(&Value::Integer(0))]
    );
    // Version 2 in between, then version 1, then what version 3 cannot read.
    set(&mut doc, &second, "last", &text("9"));
    assert_eq!(third.read(&doc).get("last"), Some(&Value::Integer(9)));
    assert_eq!(first.read(&doc).get("name"), Some(&text("Ann 9")));
    set(&mut doc, &first, "name", &text("Ben 10"));
    assert_eq!(
        see(&third.read(&doc), &["first", "last"]),
        [Some(&text("Ben")), Some(&Value::Integer(10))]
    );
    set(&mut doc, &first, "name", &text("Ben Lee"));
    let read = third.read(&doc);
    assert_eq!(see(&read, &["first", "last"]), [Some(&text("Ben")), None]);
    assert_eq!(parked(&read), ["field `last` of version 2 is \"Lee\", which is no whole number"]);
    set(&mut doc, &third, "first", &text("Ann"));
    let read = third.read(&doc);
    assert_eq!((read.get("first"), read.parked.len()), (Some(&text("Ann")), 1));
    assert_eq!(first.read(&doc).get("name"), Some(&text("Ann Lee")), "what is parked stays");
    assert_eq!(second.read(&doc).get("last"), Some(&text("Lee")));
}

#[test]
fn plain_clients_may_write_either() {
    let second = of(SECOND);
    let mut doc = begun();
    let mut tx = doc.transaction();
    // As JavaScript writes them: strings as texts, and a number where an integer was.
    let name = tx.put_object(ROOT, "name", automerge::ObjType::Text).unwrap();
    tx.splice_text(&name, 0, 0, "Ann Lee").unwrap();
    tx.put(ROOT, "effort", 2.5).unwrap();
    tx.put(ROOT, "size", vec![1, 2]).unwrap();
    tx.commit();
    let read = second.read(&doc);
    let fields = ["first", "last", "effort", "size"];
    let wanted = [Some(&text("Ann")), Some(&text("Lee")), Some(&Value::Number(2.5)), None];
    assert_eq!(see(&read, &fields), wanted);
    assert_eq!(parked(&read), ["field `size` of version 1 is [1,2], which is bytes"]);
    // The new field only, without a mark.
    let mut tx = doc.transaction();
    tx.put(ROOT, "size@2", 9).unwrap();
    tx.commit();
    let read = second.read(&doc);
    assert_eq!(read.get("size"), Some(&Value::Integer(9)));
    assert_eq!(read.parked.len(), 1, "what was there is shown still");
    set(&mut doc, &second, "size", &Value::Integer(10));
    assert_eq!(second.read(&doc).parked, []);
}

/// Kinds that are carried, and values of them.
fn kinds() -> Vec<Kind> {
    let values = ["1", "true", "a"].map(str::to_owned).to_vec();
    vec![
        Kind::Text { max_length: None },
        Kind::String { max_length: None, pattern: None },
        Kind::Enum { values },
        Kind::Integer { min: None, max: None },
        Kind::Number { min: None, max: None },
        Kind::Boolean,
        Kind::Timestamp { min: None, max: None },
    ]
}

#[derive(Debug, Clone)]
struct Of(Kind, Value);

impl Arbitrary for Of {
    fn arbitrary(g: &mut Gen) -> Self {
        let kind = g.choose(&kinds()).unwrap().clone();
        let value = match &kind {
            Kind::Integer { .. } => {
                let small = i64::from(i8::arbitrary(g) % 3);
                Value::Integer(if bool::arbitrary(g) { small } else { i64::arbitrary(g) })
            }
            Kind::Number { .. } => match u8::arbitrary(g) % 3 {
                0 => Value::Number(f64::from(i8::arbitrary(g) % 3)),
                1 => Value::Number(
                    Some(f64::arbitrary(g)).filter(|it| it.is_finite()).unwrap_or(1e300),
                ),
                _ => Value::Number(f64::from(i16::arbitrary(g)) / 4.0),
            },
            Kind::Boolean => Value::Boolean(bool::arbitrary(g)),
            Kind::Timestamp { .. } => Value::Timestamp(i64::arbitrary(g)),
            Kind::Enum { values } => Value::String(g.choose(values).unwrap().clone()),
            _ => match u8::arbitrary(g) % 4 {
                0 => Value::String(i64::arbitrary(g).to_string()),
                1 => text(
                    g.choose(&["true", "1", "0", " 7", "2026-11-22T03:00:00Z", "é x"]).unwrap(),
                ),
                _ => Value::String(String::arbitrary(g)),
            },
        };
        Self(kind, value)
    }
}

#[test]
fn what_is_carried_there_and_back_is_what_it_was() {
    fn law(value: Of, at: usize) -> bool {
        let Of(from, value) = value;
        let to = &kinds()[at % kinds().len()];
        if passage(&from, to) != Passage::Lens {
            return true;
        }
        match convert(&value, to) {
            // Nothing was rounded: it comes back. Strings are read more freely than they are
            // written, so of those what comes of it stays the same from then on.
            Ok(there) => match convert(&there, &from) {
                Ok(back) if matches!(value, Value::String(_)) => convert(&back, to) == Ok(there),
                Ok(back) => back == value,
                Err(_) => matches!(from, Kind::Enum { .. }),
            },
            Err(why) => {
                !why.is_empty() && (!is_total(&from, to) || matches!(to, Kind::Number { .. }))
            }
        }
    }
    QuickCheck::new().tests(20_000).quickcheck(law as fn(Of, usize) -> bool);
}

#[test]
fn every_passage_goes_both_ways() {
    for from in kinds() {
        for to in kinds() {
            assert_eq!(passage(&from, &to), passage(&to, &from), "{from} {to}");
            assert!(
                from.problem(&Literal::Boolean(true)).is_none() == matches!(from, Kind::Boolean)
            );
        }
    }
}

fn kept(names: &[&str]) -> Vec<Kept> {
    let kind = Kind::String { max_length: None, pattern: None };
    let one = |name: &&str| Kept {
        slot: (*name).to_owned(),
        kind: kind.clone(),
        field: (*name).to_owned(),
    };
    names.iter().map(one).collect()
}

/// Words with few letters, so that separators meet.
#[derive(Debug, Clone)]
struct Words(Vec<Option<Value>>);

impl Arbitrary for Words {
    fn arbitrary(g: &mut Gen) -> Self {
        let word = |g: &mut Gen| {
            let letters =
                (0..u8::arbitrary(g) % 5).map(|_| *g.choose(&['a', 'b', ' ', 'é']).unwrap());
            let word: String = letters.collect();
            (!u8::arbitrary(g).is_multiple_of(4)).then_some(Value::String(word))
        };
        Self((0..3).map(|_| word(g)).collect())
    }
}

fn unwrapped(made: Vec<super::Made>) -> Vec<Option<Value>> {
    made.into_iter().map(Result::unwrap).collect()
}

#[test]
fn lenses_of_several_keep_their_laws() {
    fn law(words: Words) -> bool {
        let (one, several) = (kept(&["one"]), kept(&["a", "b", "c"]));
        let (older, newer) = (one.clone(), several.clone());
        let split = Lens { version: 2, how: How::Split(" ".to_owned()), older, newer };
        let how = How::Merge(" ".to_owned());
        let merge = Lens { version: 2, how, older: several, newer: one };
        let Words(words) = words;
        let single = &words[..1];
        // What is cut is joined again, to the letter: in a merge always, in a split but for what is
        // missing at its end.
        let parts = unwrapped(merge.backward(single));
        let is_back = unwrapped(merge.forward(&parts)) == single;
        let cut = unwrapped(split.forward(single));
        let joined = unwrapped(split.backward(&cut));
        let is_stable = unwrapped(split.forward(&joined)) == cut;
        // What is joined is cut as it was, where no part but the last has the separator in it.
        let has = |it: &Option<Value>| matches!(it, Some(Value::String(it)) if it.contains(' '));
        let plain = words.iter().map(|part| part.clone().filter(|part| *part != text("")));
        let plain: Vec<Option<Value>> = plain.collect();
        let is_exact = plain[..2].iter().any(has)
            || unwrapped(split.forward(&unwrapped(split.backward(&plain)))) == plain;
        is_back && is_stable && is_exact
    }
    QuickCheck::new().tests(20_000).quickcheck(law as fn(Words) -> bool);
}
