//! The index against one that is plain to see: all entries in a list.

#![allow(clippy::needless_pass_by_value, reason = "quickcheck gives values")]

use std::collections::BTreeMap;

use concord_protocol::DocumentId;
use quickcheck::{Arbitrary, Gen, QuickCheck};

use super::{
    cell::Cell,
    entry::{Entry, Parts},
    query::{Cursor, Query},
    table::Table,
    *,
};
use crate::entity::{EntityType, Schema, Value};

fn task() -> EntityType {
    let schema = r#"
        [types.task.fields]
        due = "timestamp"
        late = "boolean"
        name = "string"
        votes = "integer"
    "#;
    Schema::parse(schema).unwrap().types.remove("task").unwrap()
}

/// One entity: few values, so that many are alike.
#[derive(Debug, Clone)]
struct Sample {
    id: u8,
    key: Option<u8>,
    is_deleted: bool,
    values: [Option<u8>; 4],
}

impl Arbitrary for Sample {
    fn arbitrary(g: &mut Gen) -> Self {
        let mut small = || Option::<u8>::arbitrary(g).map(|number| number % 4);
        let values = [small(), small(), small(), small()];
        let (id, key) = (u8::arbitrary(g) % 32, Option::arbitrary(g));
        Self { id, key, is_deleted: u8::arbitrary(g) % 5 == 0, values }
    }
}

impl Sample {
    fn id(&self) -> DocumentId {
        DocumentId::from_bytes(&[self.id + 1; 16])
    }

    fn values(&self) -> BTreeMap<String, Value> {
        let [due, late, name, votes] = self.values;
        let mut values = BTreeMap::new();
        let mut add = |name: &str, value: Option<Value>| {
            values.extend(value.map(|value| (name.to_owned(), value)));
        };
        add("due", due.map(|due| Value::Timestamp(due.into())));
        add("late", late.map(|late| Value::Boolean(late > 1)));
        add("name", name.map(|name| Value::String("ab".repeat(name.into()))));
        add("votes", votes.map(|votes| Value::Integer(votes.into())));
        values
    }

    fn entry(&self) -> Entry {
        let values = self.values();
        let key = self.key.map(|key| key.to_string());
        Entry::new(&Parts {
            id: &self.id(),
            type_name: "task",
            key: key.as_deref(),
            reading: 0,
            heads: 0,
            changed: 0,
            is_deleted: self.is_deleted,
            conflicts: self.id.into(),
            cells: task().fields.keys().map(|name| Cell::of(values.get(name))).collect(),
        })
    }
}

/// One query.
#[derive(Debug, Clone)]
struct Asked {
    tests: Vec<(u8, u8, u8)>,
    sort: Vec<(u8, bool)>,
    with_deleted: bool,
}

impl Arbitrary for Asked {
    fn arbitrary(g: &mut Gen) -> Self {
        let mut some = |most: u8| (0..u8::arbitrary(g) % most).collect::<Vec<u8>>();
        let (tests, sort) = (some(3), some(3));
        let tests = tests.iter().map(|_| Arbitrary::arbitrary(g)).collect();
        let sort = sort.iter().map(|_| Arbitrary::arbitrary(g)).collect();
        Self { tests, sort, with_deleted: bool::arbitrary(g) }
    }
}

const FIELDS: [&str; 4] = ["due", "late", "name", "votes"];

impl Asked {
    fn query(&self) -> Query {
        let mut query = Query::of("task");
        for (field, test, number) in &self.tests {
            let field = FIELDS[usize::from(field % 4)];
            let number = number % 4;
            let constant = match field {
                "due" => Value::Timestamp(number.into()),
                "late" => Value::Boolean(number > 1),
                "name" => Value::String("ab".repeat(number.into())),
                _ => Value::Integer(number.into()),
            };
            let is_ordered = field != "late";
            let test = match test % 9 {
                0 => Test::Is(constant),
                1 => Test::IsNot(constant),
                2 if is_ordered => Test::Below(constant),
                3 if is_ordered => Test::AtMost(constant),
                4 if is_ordered => Test::Above(constant),
                5 if is_ordered => Test::AtLeast(constant),
                6 if field == "name" => Test::Contains("ba".to_owned()),
                7 => Test::Set,
                _ => Test::Unset,
            };
            query = query.filter(field, test);
        }
        for (field, descending) in &self.sort {
            let field = FIELDS[usize::from(field % 4)];
            query = if *descending { query.descending(field) } else { query.ascending(field) };
        }
        if self.with_deleted { query.with_deleted() } else { query }
    }

    /// What it gives, by looking at every entity.
    fn oracle(&self, all: &BTreeMap<u8, Sample>) -> Vec<String> {
        let plan = self.query().prepare(Some(&task())).unwrap();
        let is_wanted = |sample: &&Sample| {
            (self.with_deleted || !sample.is_deleted) && plan.holds(&sample.values())
        };
        let mut found: Vec<&Sample> = all.values().filter(is_wanted).collect();
        let name = |sample: &Sample| {
            let id = sample.id().as_str().to_owned();
            (sample.key.map_or_else(|| id.clone(), |key| key.to_string()), id)
        };
        found.sort_by(|one, two| {
            for (field, descending) in &self.sort {
                let field = FIELDS[usize::from(field % 4)];
                let number = |sample: &Sample| match sample.values().get(field)? {
                    Value::Timestamp(number) | Value::Integer(number) => Some(*number),
                    Value::Boolean(yes) => Some(i64::from(*yes)),
                    // As long as they are, for they are of the same letters.
                    Value::String(text) if text.is_empty() => None,
                    Value::String(text) => i64::try_from(text.len()).ok(),
                    _ => None,
                };
                let order = match (number(one), number(two)) {
                    (Some(one), Some(two)) if *descending => two.cmp(&one),
                    (Some(one), Some(two)) => one.cmp(&two),
                    (one, two) => one.is_none().cmp(&two.is_none()),
                };
                if order.is_ne() {
                    return order;
                }
            }
            name(one).cmp(&name(two))
        });
        found.into_iter().map(|sample| sample.id().as_str().to_owned()).collect()
    }
}

fn ids(entries: Vec<(Entry, bool)>) -> Vec<String> {
    entries.into_iter().map(|(entry, _)| entry.id().to_owned()).collect()
}

fn filled(samples: &[Sample]) -> (Table, BTreeMap<u8, Sample>) {
    let (mut table, mut all) = (Table::default(), BTreeMap::new());
    for (turn, sample) in samples.iter().enumerate() {
        // Some are taken away, and most are written over by others later.
        if turn % 7 == 6 {
            table.remove(&sample.id());
            all.remove(&sample.id);
        } else {
            table.put(sample.entry());
            all.insert(sample.id, sample.clone());
        }
    }
    (table, all)
}

#[test]
fn what_the_index_gives_is_what_looking_at_every_entity_gives() {
    fn law(samples: Vec<Sample>, asked: Asked, size: u8) -> bool {
        let (table, all) = filled(&samples);
        let wanted = asked.oracle(&all);
        let mut plan = asked.query().prepare(Some(&task())).unwrap();
        let (count, open) = table.count(&plan);
        let at_once = ids(table.candidates(&plan, usize::MAX));
        // Page by page, each entity is seen once and at its place.
        let size = usize::from(size % 5) + 1;
        let mut paged = Vec::new();
        loop {
            let page = table.candidates(&plan, size);
            let Some((last, _)) = page.last().cloned() else { break };
            paged.extend(ids(page));
            let cursor = Cursor::new(plan.position(&last)).to_string();
            let again = asked.query().after(cursor.parse().unwrap());
            plan = again.prepare(Some(&task())).unwrap();
        }
        at_once == wanted && paged == wanted && count == wanted.len() && open.is_empty()
    }
    QuickCheck::new().tests(500).quickcheck(law as fn(Vec<Sample>, Asked, u8) -> bool);
}

#[test]
fn an_index_that_is_made_anew_is_the_one_that_was_kept() {
    fn law(samples: Vec<Sample>) -> bool {
        let (kept, all) = filled(&samples);
        let mut anew = Table::default();
        for sample in all.values() {
            anew.put(sample.entry());
        }
        let at_once = Table::of(all.values().rev().map(Sample::entry).collect());
        let plan = Query::of("task").with_deleted().prepare(Some(&task())).unwrap();
        let entries = |table: &Table| table.entries().cloned().collect::<Vec<_>>();
        let by_name = |table: &Table| ids(table.candidates(&plan, usize::MAX));
        [anew, at_once].iter().all(|other| {
            entries(&kept) == entries(other)
                && by_name(&kept) == by_name(other)
                && kept.counts() == other.counts()
                && kept.conflicts() == other.conflicts()
                && other.len() == all.len()
        })
    }
    QuickCheck::new().tests(300).quickcheck(law as fn(Vec<Sample>) -> bool);
}
