//! That whoever keeps documents open answers as one who opens them anew.

use automerge::{ActorId, AutoCommit, ObjType, ROOT, transaction::Transactable as _};
use bytes::Bytes;
use concord_protocol::DocumentId;
use quickcheck::{Arbitrary, Gen, QuickCheck};
use serde_json::Value as Json;

use super::*;
use crate::{
    replica::JobOutput,
    review::{
        ConflictId,
        desk::{Answer, Asked, Decision, Order, Question, Wanted},
    },
    worker::{WorkerJob, WorkerLimits, materialise::run_noting},
};

const SCHEMA: &str = r#"
    [types.task.fields]
    title = "string"
    points = { kind = "integer", policy = "max" }
"#;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// One of two writes a title or points.
    Write(usize, &'static str, i64),
    /// They hear of each other.
    Meet,
    /// What is stored is one snapshot from now on.
    Compact,
    /// The first conflict is decided; the decision is stored, or not.
    Decide(bool),
    /// What policies decide is stored, or not.
    Look(bool),
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let who = usize::arbitrary(g) % 2;
        match u8::arbitrary(g) % 8 {
            0 | 1 => Self::Write(who, "title", i64::arbitrary(g)),
            2 | 3 => Self::Write(who, "points", i64::from(i8::arbitrary(g))),
            4 => Self::Meet,
            5 => Self::Compact,
            6 => Self::Decide(bool::arbitrary(g)),
            _ => Self::Look(bool::arbitrary(g)),
        }
    }
}

/// A document that two people write and a relay stores.
struct Stored {
    people: [AutoCommit; 2],
    whole: AutoCommit,
    base: Vec<Bytes>,
    kept: Kept,
    decisions: u8,
}

fn id() -> DocumentId {
    DocumentId::from_bytes(&[7; 16])
}

impl Stored {
    fn new() -> Self {
        let mut first = AutoCommit::new().with_actor(ActorId::from([1; 16]));
        first.put(ROOT, "type", "task").unwrap();
        let text = first.put_object(ROOT, "text", ObjType::Text).unwrap();
        first.splice_text(&text, 0, 0, &"long ".repeat(300)).unwrap();
        let base = vec![Bytes::from(first.save())];
        let whole = first.fork().with_actor(ActorId::from([9; 16]));
        let second = first.fork().with_actor(ActorId::from([2; 16]));
        Self { people: [first, second], whole, base, kept: Kept::default(), decisions: 0 }
    }

    fn store(&mut self, change: &[u8]) {
        self.whole.load_incremental(change).unwrap();
        self.base.push(Bytes::copy_from_slice(change));
    }

    /// What is answered is the same for who opens it anew.
    fn ask(&mut self, question: Question) -> Answer {
        let asked =
            Asked { document: id().as_str().to_owned(), schema: Some(SCHEMA.into()), question };
        let asked = Bytes::from(serde_json::to_vec(&asked).unwrap());
        let job = WorkerJob::Review { base: self.base.clone(), asked };
        let limits = WorkerLimits::default();
        let [one, other] = [&mut self.kept, &mut Kept::default()].map(|kept| {
            let Ok(JobOutput::Reviewed(answer)) = run_noting(&job, &limits, kept, || ()) else {
                panic!("no answer")
            };
            serde_json::from_slice::<Json>(&answer).unwrap()
        });
        assert_eq!(one, other);
        assert!(self.kept.holds(id().as_str()));
        serde_json::from_value(one).unwrap()
    }

    fn look(&mut self) -> (Vec<ConflictId>, Vec<Vec<u8>>) {
        let Answer::Listed { open, settled, .. } = self.ask(Question::List) else { panic!() };
        let settled = settled.into_iter().map(|(.., change)| change).collect();
        (open.iter().map(|summary| summary.id).collect(), settled)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(who, key, value) => {
                let person = &mut self.people[who];
                match key {
                    "title" => person.put(ROOT, key, value.to_string()).unwrap(),
                    _ => person.put(ROOT, key, value).unwrap(),
                }
                if let Some(change) = self.people[who].get_last_local_change() {
                    let change = change.raw_bytes().to_vec();
                    self.store(&change);
                }
                self.look();
            }
            Step::Meet => {
                for person in &mut self.people {
                    person.merge(&mut self.whole).unwrap();
                }
            }
            Step::Compact => self.base = vec![Bytes::from(self.whole.save())],
            Step::Decide(stored) => {
                let (open, _) = self.look();
                let Some(conflict) = open.first().copied() else { return };
                self.decisions += 1;
                let decision = Decision { choice: Wanted::Latest, reason: None };
                let actor = vec![100, self.decisions];
                let order = Order { conflict, slot: None, decision, actor, time_s: 1, bulk: None };
                let Answer::Decided(change) = self.ask(Question::Decide(order)) else { return };
                if stored {
                    self.store(&change);
                }
                self.look();
            }
            Step::Look(stored) => {
                let (_, settled) = self.look();
                if stored {
                    for change in settled {
                        self.store(&change);
                    }
                }
                self.look();
            }
        }
    }
}

#[test]
fn what_was_kept_answers_as_what_is_opened_anew() {
    fn property(steps: Vec<Step>) {
        let mut stored = Stored::new();
        for step in steps {
            stored.step(step);
        }
    }
    QuickCheck::new().rng(Gen::new(25)).tests(40).quickcheck(property as fn(Vec<Step>));
}

/// A stored document in which a title is in dispute, and that was looked at.
fn looked_at() -> Stored {
    let mut stored = Stored::new();
    for who in 0..2 {
        stored.step(Step::Write(who, "title", i64::try_from(who).unwrap()));
    }
    stored
}

#[test]
fn what_is_new_is_added_to_what_was_seen() {
    let mut stored = looked_at();
    stored.people[0].put(ROOT, "points", 3).unwrap();
    let change = stored.people[0].get_last_local_change().unwrap().raw_bytes().to_vec();
    stored.store(&change);
    let limits = WorkerLimits::default().own_changes();
    let open = stored.kept.open(id().as_str(), &stored.base, &limits).unwrap();
    assert_eq!(open.doc.get_heads(), stored.whole.get_heads());
    assert_eq!(open.follower.open(&id()).len(), 1, "it was not looked at anew");
}

#[test]
fn what_was_decided_and_not_stored_is_forgotten() {
    let mut stored = looked_at();
    stored.step(Step::Decide(false));
    let (open, _) = stored.look();
    assert_eq!(open.len(), 1);
}

#[test]
fn there_is_a_bound() {
    let mut kept = Kept::default();
    let limits = WorkerLimits::default().own_changes();
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, &"x".repeat(usize::try_from(OPS_MAX).unwrap() / 3)).unwrap();
    let base = [Bytes::from(doc.save())];
    for name in ["a", "b", "c", "d"] {
        let open = kept.open(name, &base, &limits).unwrap();
        kept.keep(open);
    }
    let held: Vec<bool> = ["a", "b", "c", "d"].map(|name| kept.holds(name)).into();
    assert_eq!(held, [false, false, true, true], "two fit beside each other");
    let small = [Bytes::from(AutoCommit::new().save())];
    let open = kept.open("small", &small, &limits).unwrap();
    kept.keep(open);
    assert!(!kept.holds("small"));
}
