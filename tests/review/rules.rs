//! What a schema says and a merge breaks: rules that each writer kept, and values that cannot be
//! read. Each is in the queue, with all that was written, until it is put right or let be.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    reason = "test code: small numbers, and a panic is the report"
)]

use std::sync::Arc;

use automerge::{
    ActorId, AutoCommit, Automerge, ObjType, ROOT, ReadDoc as _, ScalarValue,
    transaction::{CommitOptions, Transactable as _, Transaction},
};
use concord::{
    entity::{self, Schema},
    peer::{Document, Peer},
    relay::Relay,
    review::{self, Choice, Code, Conflict, Detector, Refused, Resolution, View},
    store::{self, Engine, Options, Store},
    worker::{InProcess, WorkerLimits},
};
use concord_protocol::DocumentId;
use quickcheck::{Arbitrary, Gen, QuickCheck};
use serde_json::{Value as Json, json};
use tokio::time::{sleep, timeout};

use crate::http_common::{Http, SOON, relay_with};

const SCHEMA: &str = r#"
[types.item]
version = 1
invariants = { stock = "stock >= 0", dates = "start <= end", total = "sum(lines.amount) <= 100" }

[types.item.fields]
title = { kind = "string", required = true, max_length = 20 }
notes = { kind = "text", max_length = 12 }
state = { kind = "enum", values = ["new", "sold"] }
stock = "counter"
start = "integer"
end = "integer"

[types.item.fields.lines]
kind = "list"
items = { kind = "map", fields = { amount = "integer" } }
"#;

fn schema() -> Schema {
    Schema::parse(SCHEMA).unwrap_or_else(|errors| panic!("{errors}"))
}

fn id() -> DocumentId {
    DocumentId::from_bytes(&[7; 16])
}

fn actor(number: u8) -> ActorId {
    ActorId::from([number; 16])
}

/// An item that keeps every rule.
fn item() -> AutoCommit {
    let mut doc = AutoCommit::new().with_actor(actor(1));
    fill(&mut doc).unwrap();
    doc.commit();
    doc
}

fn fill(
    tx: &mut impl automerge::transaction::Transactable,
) -> Result<(), automerge::AutomergeError> {
    tx.put(ROOT, "type", "item")?;
    tx.put(ROOT, "title", "Chair")?;
    tx.put(ROOT, "stock", ScalarValue::counter(5))?;
    tx.put(ROOT, "start", 1)?;
    tx.put(ROOT, "end", 9)?;
    let notes = tx.put_object(ROOT, "notes", ObjType::Text)?;
    tx.splice_text(&notes, 0, 0, "blue")?;
    let lines = tx.put_object(ROOT, "lines", ObjType::List)?;
    let line = tx.insert_object(&lines, 0, ObjType::Map)?;
    tx.put(&line, "amount", 40)
}

fn open(doc: &Automerge) -> Vec<Conflict> {
    let detector = Detector::of(&doc.get_changes(&[])).unwrap();
    review::open(doc, &detector, &id(), Some(&schema()))
}

fn view(doc: &Automerge, conflict: &Conflict) -> View {
    View::of(doc, &id(), conflict).unwrap()
}

/// What two write who know nothing of each other, merged.
fn merged(edits: [&dyn Fn(&mut AutoCommit); 2]) -> Automerge {
    let base = item();
    let mut all = base.clone();
    for (number, edit) in (2..).zip(edits) {
        let mut doc = base.clone().with_actor(actor(number));
        edit(&mut doc);
        doc.commit();
        all.merge(&mut doc).unwrap();
    }
    all.document().clone()
}

fn add_line(doc: &mut AutoCommit, amount: impl Into<ScalarValue>) {
    let (_, lines) = doc.get(ROOT, "lines").unwrap().unwrap();
    let line = doc.insert_object(&lines, doc.length(&lines), ObjType::Map).unwrap();
    doc.put(&line, "amount", amount).unwrap();
}

fn decide(doc: &mut Automerge, conflict: &Conflict, choice: &Choice) -> Result<(), Refused> {
    let resolution = Resolution::prepare(doc, conflict, choice, None)?;
    let options = || CommitOptions::default().with_message(resolution.message());
    let mut tx = doc.transaction();
    resolution.write(&mut tx).unwrap();
    if tx.commit_with(options()).0.is_none() {
        doc.empty_commit(options());
    }
    Ok(())
}

#[test]
fn a_rule_that_both_kept_and_the_merge_breaks_has_both_sides() {
    let take = |by: i64| move |doc: &mut AutoCommit| doc.increment(ROOT, "stock", -by).unwrap();
    let doc = merged([&take(3), &take(4)]);
    let open = open(&doc);
    assert_eq!(open.iter().map(|conflict| conflict.code).collect::<Vec<_>>(), [Code::Invariant]);
    let seen = view(&doc, &open[0]);
    assert_eq!(seen.path.as_deref(), Some("stock"));
    assert_eq!(
        seen.problem.as_deref(),
        Some("rule `stock` does not hold: change the fields of `stock >= 0`")
    );
    assert_eq!((seen.before, seen.now), (Some(json!({"stock": 5})), Some(json!({"stock": -2}))));
    let mut sides: Vec<Json> = seen.sides.iter().filter_map(|side| side.value.clone()).collect();
    sides.sort_by_key(|side| side["stock"].as_i64());
    assert_eq!(sides, [json!({"stock": 1}), json!({"stock": 2})]);
    // The schema says it; without one nothing is wrong.
    let detector = Detector::of(&doc.get_changes(&[])).unwrap();
    assert_eq!(review::open(&doc, &detector, &id(), None), []);
}

#[test]
fn what_is_put_right_is_closed_and_what_is_let_be_stays_so_until_it_is_written_again() {
    let start = |doc: &mut AutoCommit| doc.put(ROOT, "start", 8).unwrap();
    let end = |doc: &mut AutoCommit| doc.put(ROOT, "end", 3).unwrap();
    let doc = merged([&start, &end]);
    let conflict = open(&doc).remove(0);
    assert_eq!(conflict.sides.len(), 2);
    let field = |doc: &Automerge, key: &str| doc.get(ROOT, key).unwrap().unwrap().0.as_i64();

    for number in 0..2 {
        let mut decided = doc.clone();
        let side = view(&doc, &conflict).sides[number].value.clone().unwrap();
        decide(&mut decided, &conflict, &Choice::Side(number)).unwrap();
        assert_eq!(open(&decided), []);
        assert_eq!(field(&decided, "start"), side["start"].as_i64());
        assert_eq!(field(&decided, "end"), side["end"].as_i64());
    }
    let mut decided = doc.clone();
    let value = Choice::value(json!({"end": 12}), &conflict).unwrap();
    decide(&mut decided, &conflict, &value).unwrap();
    assert_eq!((open(&decided), field(&decided, "start")), (vec![], Some(8)));
    for wrong in [json!({"title": "x"}), json!({}), json!(4)] {
        let choice = Choice::value(wrong, &conflict).unwrap();
        let refused = decide(&mut doc.clone(), &conflict, &choice).unwrap_err();
        assert_eq!(refused, Refused::NotFields { keys: "end, start".to_owned() });
    }

    let mut let_be = doc.clone();
    decide(&mut let_be, &conflict, &Choice::Now).unwrap();
    assert_eq!(open(&let_be), []);
    let mut tx = let_be.transaction();
    tx.put(ROOT, "title", "Table").unwrap();
    tx.commit();
    assert_eq!(open(&let_be), [], "it is not about the title");
    let mut tx = let_be.transaction();
    tx.put(ROOT, "end", 2).unwrap();
    tx.commit();
    assert_eq!(open(&let_be).len(), 1);
}

type Edit<'a> = &'a dyn Fn(&mut AutoCommit);

#[test]
fn what_several_made_together_is_of_all_of_them_and_what_one_wrote_is_that_ones() {
    let texts = |text: &'static str| {
        move |doc: &mut AutoCommit| {
            let (_, notes) = doc.get(ROOT, "notes").unwrap().unwrap();
            doc.splice_text(&notes, 4, 0, text).unwrap();
        }
    };
    let untitled = |doc: &mut AutoCommit| doc.delete(ROOT, "title").unwrap();
    let sold = |doc: &mut AutoCommit| doc.put(ROOT, "state", "lent").unwrap();
    let quiet = |doc: &mut AutoCommit| doc.put(ROOT, "end", 7).unwrap();
    let lines = |doc: &mut AutoCommit| add_line(doc, 50);
    let words = |doc: &mut AutoCommit| add_line(doc, "many");
    let cases: [(&str, [Edit<'_>; 2], Code, usize); 5] = [
        ("texts too long", [&texts(" and red"), &texts(" or grey")], Code::Invariant, 2),
        ("sum", [&lines, &lines], Code::Invariant, 2),
        ("no title", [&untitled, &quiet], Code::Invariant, 1),
        ("no such state", [&sold, &quiet], Code::Schema, 1),
        ("no number", [&words, &lines], Code::Schema, 2),
    ];
    for (what, edits, code, sides) in cases {
        let doc = merged(edits);
        let open = open(&doc);
        assert_eq!(open.len(), 1, "{what}: {open:?}");
        assert_eq!((open[0].code, open[0].sides.len()), (code, sides), "{what}");
        let mut before = doc.clone();
        decide(&mut before, &open[0], &Choice::Before).unwrap();
        assert_eq!(self::open(&before), [], "{what}");
    }
    let seen = merged([&sold, &quiet]);
    let conflict = open(&seen).remove(0);
    let seen = view(&seen, &conflict);
    // Nothing is dropped for not being understood.
    assert_eq!(seen.now, Some(json!({"state": "lent"})));
    assert_eq!(
        seen.problem.as_deref(),
        Some(
            "field `state` is \"lent\", which is none of new, sold: write what a field of kind \
             `enum` may have"
        )
    );
}

#[test]
fn what_nobody_wrote_is_nobody_s_conflict() {
    let of = &schema().types["item"];
    let mut begun = Automerge::new();
    begun.apply_changes(of.genesis().unwrap()).unwrap();
    assert_ne!(of.read(&begun).problems(), [], "it has no title yet");
    assert_eq!(open(&begun), []);
}

#[test]
fn a_text_is_put_right_where_it_is_and_later_edits_of_it_stay() {
    let add = |text: &'static str| {
        move |doc: &mut AutoCommit| {
            let (_, notes) = doc.get(ROOT, "notes").unwrap().unwrap();
            doc.splice_text(&notes, 4, 0, text).unwrap();
        }
    };
    let mut doc = merged([&add(" and red"), &add(" or grey")]);
    let conflict = open(&doc).remove(0);
    let mut elsewhere = doc.fork().with_actor(actor(9));
    let (_, notes) = elsewhere.get(ROOT, "notes").unwrap().unwrap();
    let mut tx = elsewhere.transaction();
    tx.splice_text(&notes, 0, 0, "* ").unwrap();
    tx.commit();
    decide(&mut doc, &conflict, &Choice::value(json!("blue"), &conflict).unwrap()).unwrap();
    doc.merge(&mut elsewhere).unwrap();
    assert_eq!(doc.text(&notes).unwrap(), "* blue");
    assert_eq!(open(&doc), []);
}

/// What one of three does: a field, and a value for it.
#[derive(Debug, Clone, Copy)]
struct Step {
    who: usize,
    field: u8,
    value: i64,
    /// Whom it hears from first.
    hears: Option<usize>,
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let hears = bool::arbitrary(g).then(|| usize::arbitrary(g) % 3);
        let (who, field) = (usize::arbitrary(g) % 3, u8::arbitrary(g) % 5);
        Self { who, field, value: i64::from(i8::arbitrary(g) % 12), hears }
    }
}

#[test]
fn every_replica_finds_the_same_in_whatever_order_changes_come() {
    fn law(steps: Vec<Step>, order: u64) -> bool {
        let base = item();
        let mut docs: Vec<AutoCommit> =
            (2..5).map(|number| base.clone().with_actor(actor(number))).collect();
        for Step { who, field, value, hears } in steps.into_iter().take(24) {
            if let Some(other) = hears.filter(|other| *other != who) {
                let mut other = docs[other].clone();
                docs[who].merge(&mut other).unwrap();
            }
            let doc = &mut docs[who];
            match field {
                0 => doc.put(ROOT, "start", value).unwrap(),
                1 => doc.put(ROOT, "end", value).unwrap(),
                2 => doc.increment(ROOT, "stock", value).unwrap(),
                3 => add_line(doc, value * 8),
                _ => doc.put(ROOT, "state", if value > 0 { "sold" } else { "lost" }).unwrap(),
            }
            doc.commit();
        }
        let mut forth = base.clone();
        for doc in &mut docs {
            forth.merge(doc).unwrap();
        }
        let forth = forth.document().clone();
        // The same changes, each as soon as what it builds on is there, in another order.
        let mut waiting = forth.get_changes(&[]);
        let (mut back, mut random) = (Automerge::new(), order);
        let mut detector = Detector::default();
        while !waiting.is_empty() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (random >> 33) as usize % waiting.len();
            let knows = |dep: &automerge::ChangeHash| back.get_change_meta_by_hash(dep).is_some();
            if waiting[at].deps().iter().all(knows) {
                let change = waiting.swap_remove(at);
                detector.take_in(&change).unwrap();
                back.apply_changes([change]).unwrap();
            }
        }
        let found = review::open(&back, &detector, &id(), Some(&schema()));
        // And from disk.
        let restarted = Automerge::load(&forth.save()).unwrap();
        let views = |doc: &Automerge, open: &[Conflict]| {
            open.iter().map(|conflict| view(doc, conflict)).collect::<Vec<_>>()
        };
        found == open(&forth)
            && views(&back, &found) == views(&forth, &found)
            && found == open(&restarted)
    }
    QuickCheck::new().tests(150).quickcheck(law as fn(Vec<Step>, u64) -> bool);
}

/// One deletes the item, the other writes its title; and what a schema says of that.
fn deleted_and_edited(policy: &str) -> (Automerge, Schema) {
    let delete = |doc: &mut AutoCommit| entity::delete(doc, 1_000).unwrap();
    let edit = |doc: &mut AutoCommit| doc.put(ROOT, "title", "Throne").unwrap();
    let text =
        SCHEMA.replace("version = 1", &format!("version = 1\nedits_of_deleted = \"{policy}\""));
    (merged([&delete, &edit]), Schema::parse(&text).unwrap())
}

fn settled(doc: &mut Automerge, schema: &Schema) -> (Vec<review::Settled>, Vec<Conflict>) {
    let mut detector = Detector::of(&doc.get_changes(&[])).unwrap();
    let settled = review::settle(doc, &mut detector, &id(), schema);
    let open = review::open(doc, &detector, &id(), Some(schema));
    (settled, open)
}

fn title(doc: &Automerge) -> Option<String> {
    doc.get(ROOT, "title").unwrap()?.0.as_str().map(str::to_owned)
}

#[test]
fn an_edit_of_what_somebody_deleted_meanwhile_keeps_it() {
    let (mut doc, schema) = deleted_and_edited("keep");
    assert!(entity::is_deleted(&doc));
    let mut other = doc.clone();
    let (made, open) = settled(&mut doc, &schema);
    assert_eq!((made.len(), &*made[0].policy, open), (1, "keep", vec![]));
    assert!(!entity::is_deleted(&doc));
    assert_eq!(title(&doc).as_deref(), Some("Throne"));
    assert_eq!(settled(&mut other, &schema).0, made, "the same bytes wherever it is decided");
    assert_eq!(settled(&mut doc, &schema), (vec![], vec![]));
    // Who has seen all of it deletes it for good.
    let mut tx = doc.transaction();
    entity::delete(&mut tx, 2_000).unwrap();
    tx.commit();
    assert_eq!(settled(&mut doc, &schema), (vec![], vec![]));
    assert!(entity::is_deleted(&doc));
}

#[test]
fn where_a_person_is_to_say_both_sides_of_a_delete_are_shown() {
    let (doc, schema) = deleted_and_edited("review");
    let (made, open) = settled(&mut doc.clone(), &schema);
    assert_eq!((made, open.len(), open[0].code), (vec![], 1, Code::EditDelete));
    let seen = view(&doc, &open[0]);
    assert_eq!(seen.problem.as_deref(), Some("it was deleted while others edited `title`"));
    let is_editor = |side: &review::SideView| side.value == Some(json!({"title": "Throne"}));
    let editor = seen.sides.iter().position(is_editor).unwrap();
    assert_eq!(seen.sides[1 - editor].value.as_ref().unwrap()["title"], "Chair");
    let nothing = || Choice::Other(review::Content::Nothing);
    let cases = [
        (Choice::Side(editor), false),
        (Choice::Before, false),
        (Choice::Side(1 - editor), true),
        (Choice::Now, true),
        (nothing(), true),
    ];
    for (choice, deleted) in cases {
        let mut doc = doc.clone();
        decide(&mut doc, &open[0], &choice).unwrap();
        assert_eq!(entity::is_deleted(&doc), deleted, "{choice:?}");
        assert_eq!(title(&doc).as_deref(), Some("Throne"), "{choice:?}");
        assert_eq!(settled(&mut doc, &schema), (vec![], vec![]), "{choice:?}");
    }
}

#[test]
fn two_who_delete_agree_and_who_edits_what_is_deleted_knows_it() {
    let delete = |at: i64| move |doc: &mut AutoCommit| entity::delete(doc, at).unwrap();
    let mut doc = merged([&delete(1_000), &delete(2_000)]);
    let (made, open) = settled(&mut doc, &schema());
    assert_eq!((made.len(), open), (1, vec![]));
    assert!(entity::is_deleted(&doc));
    let mut tx = doc.transaction();
    tx.put(ROOT, "title", "Stool").unwrap();
    tx.commit();
    assert_eq!(settled(&mut doc, &schema()), (vec![], vec![]));
    assert!(entity::is_deleted(&doc));
}

async fn relay(store: Arc<dyn Store>, schema: &str) -> (Relay, Http) {
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    relay_with(store, worker, |config| config.schema = Some(schema.to_owned())).await
}

/// A peer under the schema, connected.
fn peer(http: &Http) -> Peer {
    let builder = Peer::builder("memory").store(store::memory().unwrap()).schema(schema());
    builder.relay(format!("ws://{}", http.0)).open().unwrap()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

fn number(document: &Document, key: &str) -> Option<i64> {
    document.read(|doc| doc.get(ROOT, key).unwrap()?.0.as_i64()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_broken_by_the_sum_of_both_is_in_the_queue_of_all_and_decided_for_all() {
    let (relay, http) = relay(store::memory().unwrap(), SCHEMA).await;
    let (ann, ben) = (peer(&http), peer(&http));
    let hers = ann.create().await.unwrap();
    hers.change(|tx| Ok(fill(tx)?)).await.unwrap();
    hers.wait_confirmed(SOON).await.unwrap();
    let his = ben.find_within(hers.id().as_str(), SOON).await.unwrap();
    let before = hers.heads().unwrap();
    // Neither knows of the other's: each has taken what was there.
    for (document, by) in [(&hers, 3), (&his, 4)] {
        let take = |tx: &mut Transaction<'_>| Ok(tx.increment(ROOT, "stock", -by)?);
        document.change_at(&before, take).await.unwrap();
        document.wait_confirmed(SOON).await.unwrap();
    }
    let open = http.open(1).await.remove(0);
    assert_eq!((&open["code"], &open["path"]), (&json!("invariant"), &json!("stock")));
    until("both have both", || hers.heads().unwrap() == his.heads().unwrap()).await;
    for document in [&hers, &his] {
        let found = document.conflicts().unwrap();
        assert_eq!(json!([found[0].id]), json!([open["id"]]));
    }
    let (status, shown) =
        http.get(&format!("/v1/conflicts/{}", open["id"].as_str().unwrap())).await;
    assert_eq!((status, &shown["now"]), (200, &json!({"stock": -2})));
    let id = open["id"].as_str().unwrap();
    let wrong = json!({"choice": {"value": {"title": "Table"}}});
    assert_eq!(http.resolve(id, &wrong).await.0, 422);
    let decision = json!({"choice": {"value": {"stock": 0}}, "reason": "sold out"});
    let (status, said) = http.resolve(id, &decision).await;
    assert_eq!(status, 200, "{said}");
    until("all see it", || [&hers, &his].iter().all(|doc| number(doc, "stock") == Some(0))).await;
    assert_eq!(http.open(0).await, Vec::<Json>::new());
    assert_eq!(his.conflicts().unwrap(), []);
    // It is still a counter.
    let more = |tx: &mut Transaction<'_>| Ok(tx.increment(ROOT, "stock", 2)?);
    his.change(more).await.unwrap();
    assert_eq!(number(&his, "stock"), Some(2));
    for peer in [ann, ben] {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_schema_brought_is_kept_and_readable_once_the_relay_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let on_disk = || store::open(directory.path(), Engine::Sled, &Options::default()).unwrap();
    let (old, http) = relay(on_disk(), SCHEMA).await;
    let newer = SCHEMA.replace(r#"["new", "sold"]"#, r#"["new", "sold", "lent"]"#);
    let ann = peer(&http);
    let hers = ann.create().await.unwrap();
    hers.change(|tx| Ok(fill(tx)?)).await.unwrap();
    hers.change(|tx| Ok(tx.put(ROOT, "state", "lent")?)).await.unwrap();
    hers.wait_confirmed(SOON).await.unwrap();
    let open = http.open(1).await.remove(0);
    assert_eq!(
        (&open["code"], &open["sides"][0]["value"]),
        (&json!("schema"), &json!("{\"state\":\"lent\"}"))
    );
    old.shutdown().await.unwrap();
    let (new, http) = relay(on_disk(), &newer).await;
    assert_eq!(http.open(0).await, Vec::<Json>::new());
    let state =
        hers.read(|doc| doc.get(ROOT, "state").unwrap().unwrap().0.as_str().map(str::to_owned));
    assert_eq!(state.unwrap().as_deref(), Some("lent"));
    ann.close().await.unwrap();
    new.shutdown().await.unwrap();
}
