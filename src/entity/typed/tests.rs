use std::collections::{BTreeMap, BTreeSet};

use automerge::{ActorId, Automerge};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::TypedError;
use crate::entity::{Schema, Value};

const SCHEMA: &str = r#"
[types.order.fields]
title = { kind = "text", required = true }
number = "integer"
price = "number"
due = "timestamp"
paid = { kind = "boolean", default = false }
votes = "counter"
tags = { kind = "set", items = "string" }
lines = { kind = "list", items = { kind = "map", fields = { what = "string", amount = "number" } } }
address = { kind = "map", fields = { street = "string" } }
stock = { kind = "map", items = "integer" }
photo = "blob"
extra = "json"
hidden = "string"
"#;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    #[serde(default)]
    title: String,
    number: Option<i64>,
    price: Option<f64>,
    due: Option<i64>,
    paid: bool,
    votes: i64,
    tags: BTreeSet<String>,
    lines: Vec<Line>,
    address: Address,
    stock: BTreeMap<String, i64>,
    #[serde(default)]
    photo: Vec<u8>,
    #[serde(default)]
    extra: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    what: String,
    amount: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Address {
    street: Option<String>,
}

#[test]
fn a_type_of_the_program_is_read_changed_and_written_by_what_differs() {
    let schema = Schema::parse(SCHEMA).unwrap();
    let of = &schema.types["order"];
    let mut ann = Automerge::new().with_actor(ActorId::from(&[1][..]));
    of.begin(&mut ann).unwrap();
    let edit = |doc: &mut Automerge, change: &dyn Fn(&mut Order)| {
        let mut tx = doc.transaction();
        of.edit(&mut tx, change).unwrap();
        let (hash, _) = tx.commit();
        hash.is_some()
    };
    assert!(edit(&mut ann, &|order| {
        order.title = "Bolts".to_owned();
        order.number = Some(7);
        order.price = Some(3.0);
        order.due = Some(1_000);
        order.votes += 2;
        order.tags.insert("new".to_owned());
        order.lines.push(Line { what: "M4".to_owned(), amount: 2.5 });
        order.address.street = Some("Elm".to_owned());
        order.stock.insert("here".to_owned(), 4);
        order.photo = vec![1, 2, 255];
        order.extra = json!({ "a": [1, null, "x"] });
    }));
    assert!(!edit(&mut ann, &|_| {}), "nothing differs, so nothing is written");
    let mut ben = ann.fork().with_actor(ActorId::from(&[2][..]));
    edit(&mut ann, &|order| {
        order.title.insert_str(0, "Steel ");
        order.votes += 1;
        order.tags.insert("steel".to_owned());
        order.number = None;
    });
    edit(&mut ben, &|order| {
        order.title.push_str(", long");
        order.votes += 10;
        order.tags.remove("new");
        order.lines.push(Line { what: "M5".to_owned(), amount: 1.0 });
    });
    ann.merge(&mut ben).unwrap();
    let order: Order = of.read(&ann).decode().unwrap();
    assert_eq!((order.title.as_str(), order.votes, order.number), ("Steel Bolts, long", 13, None));
    assert_eq!(order.tags, BTreeSet::from(["steel".to_owned()]));
    assert_eq!((order.lines.len(), order.paid), (2, false));
    assert_eq!((order.photo, order.extra), (vec![1, 2, 255], json!({ "a": [1, null, "x"] })));
    assert_eq!(of.read(&ann).get("due"), Some(&Value::Timestamp(1_000)));
}

#[test]
fn what_others_wrote_wrong_keeps_nobody_from_editing() {
    use automerge::{ROOT, transaction::Transactable as _};
    let schema = Schema::parse(SCHEMA).unwrap();
    let of = &schema.types["order"];
    let mut doc = Automerge::new();
    of.begin(&mut doc).unwrap();
    assert!(of.read(&doc).is_blank());
    let mut tx = doc.transaction();
    tx.put(ROOT, "price", "dear").unwrap();
    tx.commit();
    assert!(!of.read(&doc).is_blank());
    let mut tx = doc.transaction();
    of.edit(&mut tx, |order: &mut Order| order.number = Some(1)).unwrap();
    tx.commit();
    assert_eq!(of.validate(&doc).unwrap_err().0.len(), 2, "what was wrong still is");
}

#[test]
fn what_does_not_fit_is_told_by_its_field() {
    let schema = Schema::parse(SCHEMA).unwrap();
    let of = &schema.types["order"];
    let mut doc = Automerge::new();
    of.begin(&mut doc).unwrap();
    let mut tx = doc.transaction();
    let error = of.edit(&mut tx, |order: &mut Order| order.number = Some(1)).unwrap_err();
    assert!(matches!(error, TypedError::Invalid(_)), "{error}");
    assert!(error.to_string().contains("`title` is required"), "{error}");
    for (given, expected) in [
        (json!({ "title": 1, "other": 2 }), "field `other` is not declared"),
        (json!({ "lines": [{ "amount": "x", "what": {} }] }), "field `lines[0].what` is a map"),
        (json!({ "due": 1.5 }), "field `due` is no whole number"),
        (json!({ "photo": [300] }), "field `photo` is a list of something that is no byte"),
        (json!([1]), "field `order` is no map of fields"),
    ] {
        let error = of.encode(&given).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
