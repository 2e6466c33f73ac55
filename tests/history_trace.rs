//! The history of a real text: a program that one person typed, as it was recorded. Everything that
//! is read from the history is the same text.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{
    env,
    path::{Path, PathBuf},
    time::Instant,
};

use automerge::{
    Automerge, ObjId, ObjType, Prop, ROOT, ReadDoc as _,
    transaction::{CommitOptions, Transactable as _},
};
use concord::{
    bench::trace::{Patch, Trace},
    history::{
        Entry, Order, Relation, Shown, VectorClock, What, at, blame, cursor, diff, events, json_at,
        log, restore, verify_document,
    },
};
use concord_protocol::ChangeHash;
use serde_json::json;

/// Transactions of the recording that are typed, and how many of them are one change: so that the
/// test takes seconds.
const TRANSACTIONS: usize = 4_000;
const IN_A_CHANGE: usize = 20;

/// What was typed; where the recordings are not there, something that is made up.
fn recorded() -> Trace {
    let shared = env::var_os("CONCORD_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = shared.join("traces/sveltecomponent.json.gz");
    if path.exists() {
        return Trace::read(&path).unwrap();
    }
    println!("skipped: {} is not there; a trace of its shape instead", path.display());
    Trace::generate(1, 5_000)
}

fn begun() -> (Automerge, ObjId) {
    let mut doc = Automerge::new();
    let text = doc.transact(|tx| tx.put_object(ROOT, "text", ObjType::Text)).unwrap().result;
    (doc, text)
}

fn heads(doc: &Automerge) -> Vec<ChangeHash> {
    doc.get_heads().iter().map(|head| ChangeHash(head.0)).collect()
}

#[test]
fn what_is_read_from_a_history_is_the_text_that_was_typed() {
    let Trace { start_content, mut transactions, .. } = recorded();
    transactions.truncate(TRANSACTIONS);
    let mut typed: Vec<char> = start_content.chars().collect();
    assert!(typed.is_empty() && transactions.len() == TRANSACTIONS);
    let (mut doc, text) = begun();
    let (mut states, mut time) = (Vec::new(), 1_000);
    for some in transactions.chunks(IN_A_CHANGE) {
        let mut tx = doc.transaction();
        for Patch(from, gone, new) in some.iter().flat_map(|transaction| &transaction.patches) {
            tx.splice_text(&text, *from, gone.cast_signed(), new).unwrap();
            typed.splice(*from..from + gone, new.chars());
        }
        time += 1;
        tx.commit_with(CommitOptions::default().with_time(time));
        states.push((heads(&doc), doc.text(&text).unwrap()));
    }
    let end: String = typed.into_iter().collect();
    assert_eq!(doc.text(&text).unwrap(), end);
    let last = heads(&doc);
    assert_eq!(verify_document(&doc).unwrap(), states.len() + 1);

    // The log in pages.
    let (mut all, mut seen) = (Vec::new(), Vec::new());
    while seen != last {
        let page = log(&doc, &seen, Order::OldestFirst, 100).unwrap();
        seen = cursor(&seen, &page);
        all.extend(page);
    }
    assert_eq!(all.len(), states.len() + 1);
    let is_next = |(entry, (heads, _)): (&Entry, &(Vec<_>, _))| *heads == [entry.stamp.change];
    assert!(all[1..].iter().zip(&states).all(is_next));

    // Who wrote what: all of the text, in order.
    let path = [Prop::from("text")];
    let mut written = String::new();
    for run in blame(&doc, &path).unwrap() {
        if let Shown::Run { text, .. } = run.shown {
            written.push_str(&text);
        }
    }
    assert_eq!(written, end);

    // What it was, and what is different since.
    for (then, was) in states.iter().step_by(states.len() / 7) {
        assert_eq!(json_at(&doc, then, &path).unwrap(), json!(was));
        let forth = diff(&doc, then, &last).unwrap();
        let mut text: Vec<char> = was.chars().collect();
        for difference in &forth {
            let What::Splice { index, removed, inserted } = &difference.what else {
                panic!("no edit of a text: {difference:?}");
            };
            let gone = *index..index + removed.chars().count();
            let removed_there: String = text.splice(gone, inserted.chars()).collect();
            assert_eq!(&removed_there, removed);
        }
        assert_eq!(text.into_iter().collect::<String>(), end);
        let clock = |heads: &[ChangeHash]| VectorClock::at(&doc, heads).unwrap();
        let expected = if *then == last { Relation::Equal } else { Relation::Before };
        assert_eq!(clock(then).compare(&clock(&last)), expected);
    }

    // Half of it is had again, with what somebody types at the end meanwhile; and all of it again.
    let (half, was) = &states[states.len() / 2];
    let mut other = doc.fork();
    other.transact(|tx| tx.splice_text(&text, end.chars().count(), 0, "<!-- end -->")).unwrap();
    let restored = |doc: &mut Automerge, to: &[ChangeHash]| {
        let mut tx = doc.transaction();
        restore(&mut tx, to, &[]).unwrap();
        tx.commit();
    };
    restored(&mut doc, half);
    assert_eq!(doc.text(&text).unwrap(), *was);
    assert_eq!(at(&doc, half).unwrap().text(&text).unwrap(), *was);
    let mut both = doc.fork();
    both.merge(&mut other).unwrap();
    let merged = both.text(&text).unwrap();
    assert_eq!(merged.replace("<!-- end -->", ""), *was);
    restored(&mut doc, &last);
    assert_eq!(doc.text(&text).unwrap(), end);

    // The last things that happened.
    let since = &states[states.len() - 5].0;
    let happened = events(&doc, None, since, 4).unwrap();
    assert_eq!(happened.cursor, last);
    assert!(happened.events.iter().all(|event| event.name == "document.text_edited"));
}

fn measured<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    println!("{what}: {:?}", start.elapsed());
    done
}

/// What it takes with a long history. Run with
/// `cargo test --release --test history_trace -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement of 100,000 changes"]
fn a_long_history_is_read() {
    const CHANGES: usize = 100_000;
    let (mut doc, text) = begun();
    for n in 0..CHANGES {
        let mut tx = doc.transaction();
        tx.splice_text(&text, if n % 50 == 0 { n / 2 } else { n }, 0, "a").unwrap();
        tx.commit_with(CommitOptions::default().with_time(i64::try_from(n).unwrap()));
    }
    let last = heads(&doc);
    let half = log(&doc, &[], Order::OldestFirst, CHANGES / 2).unwrap().pop().unwrap();
    let half = [half.stamp.change];
    measured("log, the last 50", || log(&doc, &[], Order::NewestFirst, 50).unwrap());
    measured("log, all", || log(&doc, &[], Order::OldestFirst, usize::MAX).unwrap());
    let runs = measured("blame", || blame(&doc, &[]).unwrap());
    println!("{} runs", runs.len());
    measured("json at half", || json_at(&doc, &half, &[]).unwrap());
    measured("fork at half", || at(&doc, &half).unwrap());
    measured("diff from half", || diff(&doc, &half, &last).unwrap());
    measured("vector clock", || VectorClock::of(&doc));
    measured("vector clock at half", || VectorClock::at(&doc, &half).unwrap());
    measured("events of 100 changes", || events(&doc, None, &half, 100).unwrap());
    measured("verify", || verify_document(&doc).unwrap());
    measured("restore half", || {
        let mut tx = doc.transaction();
        restore(&mut tx, &half, &[]).unwrap();
        tx.commit()
    });
}
