use std::collections::BTreeMap;

use automerge::{ActorId, Automerge, ROOT, ReadDoc as _};
use quickcheck::quickcheck;

use super::{WriteError, Writer, place_between};
use crate::entity::{EntityType, Problem, Schema, Value};

const SCHEMA: &str = r#"
[types.board]
[types.board.fields]
title = { kind = "string", required = true, max_length = 10 }
body = "text"
tags = { kind = "set", items = "string" }
sizes = { kind = "list", items = "integer" }
votes = "counter"
state = { kind = "enum", values = ["open", "shut"], default = "open" }
limit = "number"
due = "timestamp"
address = { kind = "map", fields = { street = "string", remarks = "text" } }
any = "json"
[types.board.fields.cards]
kind = "map"
items = { kind = "map", fields = { name = "string", place = "position" } }
[types.board.invariants]
few = "size(tags) <= 3"
"#;

fn board() -> EntityType {
    Schema::parse(SCHEMA).unwrap().types.remove("board").unwrap()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn write(
    doc: &mut Automerge,
    of: &EntityType,
    work: impl FnOnce(
        &mut Writer<'_, automerge::transaction::Transaction<'_>>,
    ) -> Result<(), WriteError>,
) {
    let mut tx = doc.transaction();
    work(&mut Writer::new(of, &mut tx)).unwrap();
    tx.commit();
}

/// Two replicas of one entity.
fn two(of: &EntityType) -> (Automerge, Automerge) {
    let mut ann = Automerge::new().with_actor(ActorId::from(&[1][..]));
    of.begin(&mut ann).unwrap();
    let ben = ann.fork().with_actor(ActorId::from(&[2][..]));
    (ann, ben)
}

fn meet(ann: &mut Automerge, ben: &mut Automerge) {
    ann.merge(ben).unwrap();
    ben.merge(ann).unwrap();
}

#[test]
fn what_is_written_is_read() {
    let of = board();
    let (mut doc, _) = two(&of);
    let address =
        BTreeMap::from([("street".to_owned(), text("Elm")), ("remarks".to_owned(), text("rear"))]);
    let values = [
        ("title", text("Plan")),
        ("body", text("Hello")),
        ("tags", Value::Set(["a", "b"].map(str::to_owned).into())),
        ("sizes", Value::List([1, 2, 3].map(Value::Integer).into())),
        ("votes", Value::Integer(7)),
        ("state", text("shut")),
        ("limit", Value::Number(2.0)),
        ("due", Value::Timestamp(5)),
        ("address", Value::Map(address)),
        (
            "any",
            Value::List(vec![
                Value::Null,
                Value::Map([("x".to_owned(), Value::Boolean(true))].into()),
            ]),
        ),
    ];
    for _ in 0..2 {
        for (name, value) in &values {
            write(&mut doc, &of, |it| it.set(&[name], value));
        }
    }
    let entity = of.read(&doc);
    assert_eq!(entity.misfits, []);
    for (name, value) in &values {
        assert_eq!(entity.get(name), Some(value), "{name}");
    }
    assert_eq!(of.validate(&doc), Ok(()));
    write(&mut doc, &of, |it| {
        it.set(&["sizes"], &Value::List([1, 9, 8, 3].map(Value::Integer).into()))?;
        it.set(&["sizes", "0"], &Value::Integer(0))?;
        it.insert(&["sizes"], 99, &Value::Integer(4))?;
        it.set(&["address", "street"], &text("Oak"))?;
        it.clear(&["state"])?;
        it.clear(&["body"])?;
        it.clear(&["votes"])
    });
    let entity = of.read(&doc);
    assert_eq!(entity.get("sizes"), Some(&Value::List([0, 9, 8, 3, 4].map(Value::Integer).into())));
    assert_eq!(entity.get("state"), Some(&text("open")), "the default");
    assert_eq!(
        (entity.get("body"), entity.get("votes")),
        (Some(&text("")), Some(&Value::Integer(0)))
    );
    assert_eq!(doc.get_all(ROOT, "body").unwrap().len(), 1, "it is emptied and stays");
}

#[test]
fn a_type_is_recognised_also_where_javascript_wrote_it() {
    use automerge::{ObjType, transaction::Transactable as _};
    let schema = Schema::parse(SCHEMA).unwrap();
    let mut doc = Automerge::new();
    assert!(schema.recognise(&doc).is_none());
    let mut tx = doc.transaction();
    for (key, value) in [("type", "board"), ("title", "Plan"), ("state", "shut")] {
        let object = tx.put_object(ROOT, key, ObjType::Text).unwrap();
        tx.splice_text(&object, 0, 0, value).unwrap();
    }
    tx.put(ROOT, "limit", 3).unwrap();
    tx.put(ROOT, "due", "soon").unwrap();
    tx.commit();
    let of = schema.recognise(&doc).unwrap();
    let entity = of.read(&doc);
    assert_eq!(
        (entity.get("title"), entity.get("state")),
        (Some(&text("Plan")), Some(&text("shut")))
    );
    assert_eq!(entity.get("limit"), Some(&Value::Number(3.0)));
    let misfits: Vec<_> = entity.misfits.iter().map(ToString::to_string).collect();
    assert_eq!(
        misfits,
        ["field `due` is a string: write what a field of kind `timestamp` may have"]
    );
}

#[test]
fn what_is_wrong_is_told_by_its_field() {
    let of = board();
    let (mut doc, _) = two(&of);
    assert_eq!(of.validate(&doc).unwrap_err().0, [Problem::Missing { field: "title".to_owned() }]);
    let mut tx = doc.transaction();
    let mut it = Writer::new(&of, &mut tx);
    let said = |result: Result<(), WriteError>| result.unwrap_err().to_string();
    assert_eq!(
        said(it.set(&["title"], &text("much too long"))),
        "field `title` has 13 characters, of 10 at most: write what a field of kind `string` may have"
    );
    assert_eq!(
        said(it.set(&["titel"], &text("x"))),
        "type `board` has no field `titel`: did you mean `title`?"
    );
    assert!(
        said(it.set(&["votes"], &text("x"))).starts_with("field `votes` is \"x\", and not of kind")
    );
    assert!(said(it.increment(&["title"], 1)).contains("only counters are added to"));
    assert!(said(it.add(&["body"], "x")).contains("only sets have members"));
    assert!(
        said(it.set(&["sizes", "0"], &Value::Integer(1))).contains("0 elements, and none at 0")
    );
    assert!(said(it.set(&["address", "town"], &text("x"))).contains("no field `address.town`"));
    assert!(said(it.set(&["cards", "a", "place"], &text("-"))).contains("`cards.a.place`"));
    for tag in ["a", "b", "c", "d"] {
        it.add(&["tags"], tag).unwrap();
    }
    let problems = of.validate(&tx).unwrap_err().to_string();
    assert_eq!(
        problems,
        "field `title` is required and has no value: write one; rule `few` does not hold: change \
         the fields of `size(tags) <= 3`"
    );
    tx.rollback();
    assert!(of.read(&doc).get("tags") == Some(&Value::Set([].into())));
}

#[test]
fn texts_that_are_set_merge_by_what_changed() {
    let of = board();
    let (mut ann, mut ben) = two(&of);
    write(&mut ann, &of, |it| it.set(&["body"], &text("The cat sat.")));
    meet(&mut ann, &mut ben);
    write(&mut ann, &of, |it| it.set(&["body"], &text("The black cat sat.")));
    write(&mut ben, &of, |it| it.set(&["body"], &text("The cat sat down.")));
    meet(&mut ann, &mut ben);
    assert_eq!(of.read(&ann).get("body"), Some(&text("The black cat sat down.")));
}

fn members(doc: &Automerge, of: &EntityType) -> std::collections::BTreeSet<String> {
    match of.read(doc).get("tags") {
        Some(Value::Set(members)) => members.clone(),
        other => panic!("{other:?}"),
    }
}

quickcheck! {
    /// Whoever adds is heard, also where the member was there; removes that met no add count.
    fn what_is_added_stays(before: Vec<u8>, here: Vec<(bool, u8)>, there: Vec<(bool, u8)>) -> bool {
        let of = board();
        let (mut ann, mut ben) = two(&of);
        let name = |member: u8| format!("m{}", member % 5);
        write(&mut ann, &of, |it| before.iter().try_for_each(|member| it.add(&["tags"], &name(*member))));
        meet(&mut ann, &mut ben);
        let base = members(&ann, &of);
        for (doc, steps) in [(&mut ann, &here), (&mut ben, &there)] {
            for (adds, member) in steps {
                write(doc, &of, |it| match adds {
                    true => it.add(&["tags"], &name(*member)),
                    false => it.remove(&["tags"], &name(*member)).map(|_| ()),
                });
            }
        }
        meet(&mut ann, &mut ben);
        let found = members(&ann, &of);
        let last = |steps: &[(bool, u8)], member: &str| {
            steps.iter().rev().find(|(_, it)| name(*it) == member).map(|(adds, _)| *adds)
        };
        found == members(&ben, &of) && (0..5).map(name).all(|member| {
            let wanted = match (last(&here, &member), last(&there, &member)) {
                (Some(true), _) | (_, Some(true)) => true,
                (None, None) => base.contains(&member),
                _ => false,
            };
            found.contains(&member) == wanted
        })
    }

    fn counters_sum_what_everybody_adds(here: Vec<i16>, there: Vec<i16>) -> bool {
        let of = board();
        let (mut ann, mut ben) = two(&of);
        for (doc, steps) in [(&mut ann, &here), (&mut ben, &there)] {
            for by in steps {
                write(doc, &of, |it| it.increment(&["votes"], i64::from(*by)));
            }
        }
        meet(&mut ann, &mut ben);
        let sum = here.iter().chain(&there).map(|by| i64::from(*by)).sum();
        of.read(&ann).get("votes") == Some(&Value::Integer(sum))
    }

    /// However cards are dragged, each is there once, and both see the same order.
    fn what_is_moved_is_there_once(here: Vec<(u8, u8)>, there: Vec<(u8, u8)>) -> bool {
        let of = board();
        let (mut ann, mut ben) = two(&of);
        let mut place = None;
        for card in ["a", "b", "c", "d"] {
            let next = place_between(place.as_deref(), None, 1).unwrap();
            write(&mut ann, &of, |it| it.set(&["cards", card, "place"], &text(&next)));
            place = Some(next);
        }
        meet(&mut ann, &mut ben);
        for (doc, moves, salt) in [(&mut ann, &here, 1), (&mut ben, &there, 2)] {
            for (card, to) in moves {
                let order = order(doc, &of);
                let card = &order[usize::from(*card) % order.len()].1;
                let others: Vec<_> = order.iter().filter(|(_, name)| name != card).collect();
                let to = usize::from(*to) % (others.len() + 1);
                let after = to.checked_sub(1).map(|at| others[at].0.as_str());
                let before = others.get(to).map(|(place, _)| place.as_str());
                let next = place_between(after, before, salt).unwrap();
                write(doc, &of, |it| it.set(&["cards", card, "place"], &text(&next)));
            }
        }
        meet(&mut ann, &mut ben);
        let (one, other) = (order(&ann, &of), order(&ben, &of));
        let mut names: Vec<_> = one.iter().map(|(_, name)| name.as_str()).collect();
        names.sort_unstable();
        one == other && names == ["a", "b", "c", "d"]
    }

    /// A list that is set is what was set, whatever was there.
    fn lists_become_what_they_are_set_to(before: Vec<i8>, after: Vec<i8>) -> bool {
        let of = board();
        let (mut doc, _) = two(&of);
        let list = |values: &[i8]| Value::List(values.iter().map(|it| Value::Integer(i64::from(*it))).collect());
        write(&mut doc, &of, |it| it.set(&["sizes"], &list(&before)));
        write(&mut doc, &of, |it| it.set(&["sizes"], &list(&after)));
        of.read(&doc).get("sizes") == Some(&list(&after))
    }
}

/// Cards by place.
fn order(doc: &Automerge, of: &EntityType) -> Vec<(String, String)> {
    let Some(Value::Map(cards)) = of.read(doc).get("cards").cloned() else { panic!() };
    let mut order: Vec<_> = cards
        .into_iter()
        .map(|(name, card)| match card {
            Value::Map(fields) => match &fields["place"] {
                Value::String(place) => (place.clone(), name),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect();
    order.sort();
    order
}
