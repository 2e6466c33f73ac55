use std::collections::{BTreeMap, BTreeSet};

use quickcheck::quickcheck;

use super::{Rule, RuleError, Verdict};
use crate::entity::{Field, Schema, Value};

fn fields() -> BTreeMap<String, Field> {
    let text = r#"
[types.a.fields]
name = "text"
status = { kind = "enum", values = ["todo", "done"] }
stock = "integer"
votes = "counter"
limit = "number"
price = "number"
start = "timestamp"
end = "timestamp"
open = "boolean"
tags = { kind = "set", items = "string" }
codes = { kind = "set", items = "integer" }
sizes = { kind = "list", items = "integer" }
lines = { kind = "list", items = { kind = "map", fields = { what = "string", amount = "number" } } }
shelf = { kind = "map", items = { kind = "map", fields = { count = "integer" } } }
box = { kind = "map", fields = { width = "number", inner = { kind = "map", fields = { x = "integer" } } } }
any = "json"
"#;
    Schema::parse(text).unwrap().types.remove("a").unwrap().fields
}

fn map(entries: &[(&str, Value)]) -> BTreeMap<String, Value> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

fn line(amount: f64) -> Value {
    Value::Map(map(&[("amount", Value::Number(amount))]))
}

fn values() -> BTreeMap<String, Value> {
    let count = |count| Value::Map(map(&[("count", Value::Integer(count))]));
    map(&[
        ("name", Value::String("Bolts".to_owned())),
        ("status", Value::String("todo".to_owned())),
        ("stock", Value::Integer(3)),
        ("votes", Value::Integer(-1)),
        ("limit", Value::Number(10.0)),
        ("start", Value::Timestamp(1_000)),
        ("end", Value::Timestamp(5_000)),
        ("open", Value::Boolean(true)),
        ("tags", Value::Set(BTreeSet::from(["red".to_owned(), "new".to_owned()]))),
        ("codes", Value::Set(BTreeSet::from(["7".to_owned(), "-12".to_owned()]))),
        ("sizes", Value::List(vec![Value::Integer(4), Value::Integer(2)])),
        ("lines", Value::List(vec![line(4.5), line(5.0), Value::Map(BTreeMap::new())])),
        ("shelf", Value::Map(map(&[("a", count(1)), ("b", count(2))]))),
        ("box", Value::Map(map(&[("width", Value::Number(2.0))]))),
    ])
}

fn check(text: &str) -> Result<Verdict, RuleError> {
    Rule::parse(text, &fields()).unwrap_or_else(|error| panic!("{text}: {error}")).check(&values())
}

#[test]
fn what_holds_holds() {
    for text in [
        "start < end",
        "stock >= 0",
        "sum(lines.amount) <= limit",
        "sum(lines.amount) == 9.5",
        "size(lines) == 3 && size(tags) == 2 && size(name) == 5",
        "max(sizes) == 4 && min(sizes) == 2 && sum(sizes) == 6",
        "sum(shelf.count) == stock",
        "'red' in tags && !('blue' in tags)",
        "7 in codes && !(8 in codes) && sum(codes) == -5 && has(this.codes)",
        "status in ['todo', 'doing']",
        "status == 'todo' ? stock > 0 : stock == 0",
        "end - start == 4000 && start + 4000 == end",
        "has(this.end) && !has(this.price) && !has(this.box.inner.x)",
        "this.stock == 3",
        "stock / 2 == 1 && stock % 2 == 1 && stock / 2.0 == 1.5",
        "abs(votes) == 1 && -votes == 1",
        "box.width * 2 > 3",
        "open || price > 1",
        "price > 1 || open",
        "name + '!' == \"Bolts!\"",
        "stock < limit",
    ] {
        assert_eq!(check(text), Ok(Verdict::Holds), "{text}");
        assert_eq!(check(&format!("!({text})")), Ok(Verdict::Broken), "{text}");
    }
}

#[test]
fn a_rule_does_not_apply_where_a_field_has_no_value() {
    for text in
        ["price > 1", "price > 1 && open", "box.inner.x == 1", "!(price > 1)", "price in [1]"]
    {
        assert_eq!(check(text), Ok(Verdict::DoesNotApply), "{text}");
    }
    assert_eq!(check("price > 1 && !open"), Ok(Verdict::Broken), "false whatever the price is");
}

#[test]
fn what_cannot_be_worked_out_is_an_error() {
    assert_eq!(check("stock * 9223372036854775807 > 0"), Err(RuleError::Overflow));
    assert_eq!(check("stock / (stock - 3) > 0"), Err(RuleError::DivisionByZero));
    assert_eq!(check("limit / 0 > 0"), Err(RuleError::DivisionByZero));
    assert_eq!(check("limit * 1e308 > 0"), Err(RuleError::Overflow));
    let many = Value::List(vec![Value::Integer(1); crate::entity::limits::RULE_ITEMS_MAX + 1]);
    let rule = Rule::parse("sum(sizes) > 0", &fields()).unwrap();
    assert_eq!(rule.check(&map(&[("sizes", many)])), Err(RuleError::TooMany));
}

#[test]
fn what_is_no_rule_is_told_why() {
    for (text, expected) in [
        ("strat < end", "`strat` is no field: did you mean `start`?"),
        ("lines.amuont > 1", "`lines` has no field `amuont`: did you mean `amount`?"),
        ("stock.x > 1", "`stock` has no fields: leave `.x` out"),
        ("stock", "it is an integer, and not true or false: compare"),
        ("stock < name", "`<` is between an integer and a string"),
        ("start < 5", "`<` is between a timestamp and an integer"),
        ("sum(name) > 1", "`sum` is given a string: give it a list of numbers"),
        ("any == 1", "`any` is of kind `json`"),
        ("box > 1", "`box` is a map with fields"),
        ("stock && open", "`&&` is applied to an integer"),
        ("lines.all(l, l.amount > 0)", "it uses `all`"),
        ("foo(stock) > 1", "it uses `foo`"),
        ("name.size() > 1", "it uses `size`"),
        ("stock >", "it cannot be read at character"),
        ("", "it cannot be read at character"),
        ("stock = 1", "it cannot be read at character"),
        ("((((((((((((stock))))))))))))  > 1", "brackets within each other"),
    ] {
        let error = Rule::parse(text, &fields()).unwrap_err().to_string();
        assert!(error.starts_with(expected) || error.contains("brackets"), "{text}: {error}");
    }
    let long = format!("stock > {}", "1 + ".repeat(1_000));
    assert!(Rule::parse(&long, &fields()).unwrap_err().problem.contains("bytes"));
}

#[test]
fn long_rules_take_no_more_stack_than_there_is() {
    for part in [" + stock", " - -stock", " * (stock)"] {
        let text = format!("stock{} > 1", part.repeat(45));
        let _ = Rule::parse(&text, &fields()).map(|rule| rule.check(&values()));
    }
    let choices = format!("{}open", "open ? open : ".repeat(30));
    let _ = Rule::parse(&choices, &fields()).map(|rule| rule.check(&values()));
}

quickcheck! {
    /// Any text is a rule or is not, and any rule can be asked.
    fn nothing_panics(parts: Vec<u8>) -> bool {
        let words = ["stock", "lines.amount", "end", "(", ")", "[", "]", "sum", "has", "this.",
            "&&", "||", "!", "<", "==", "+", "-", "/", "%", "?", ":", "1", "'a'", "in", ",",
            "{", "}", ".", "9223372036854775807", "0.5", "tags", "\u{0}", "é", "limit"];
        let text: Vec<_> = parts.iter().map(|at| words[usize::from(*at) % words.len()]).collect();
        if let Ok(rule) = Rule::parse(&text.join(" "), &fields()) {
            let _ = rule.check(&values());
        }
        true
    }

    /// A rule that is read says the same of the same.
    fn arithmetic_agrees_with_rust(a: i64, b: i64) -> bool {
        let rule = Rule::parse("stock + votes >= 0", &fields()).unwrap();
        let found = rule.check(&map(&[("stock", Value::Integer(a)), ("votes", Value::Integer(b))]));
        match a.checked_add(b) {
            Some(sum) => found == Ok(if sum >= 0 { Verdict::Holds } else { Verdict::Broken }),
            None => found == Err(RuleError::Overflow),
        }
    }
}
