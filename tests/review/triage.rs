//! Who looks after conflicts: the same on every replica, whatever the order in which notes come, and
//! whatever strangers write where notes are.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::collections::BTreeSet;

use automerge::{
    ActorId, Author, Automerge, ObjId, ObjType, ROOT, ReadDoc as _, ScalarValue,
    transaction::Transactable as _,
};
use concord::review::{
    ConflictId, Detector,
    triage::{
        self, Act, COMMENTS_MAX, Entry, Refused, State, TEXT_BYTES_MAX, Triage, begin, read,
        review_document_id, standings,
    },
};
use quickcheck::{Arbitrary, Gen, QuickCheck};

fn conflict(number: u8) -> ConflictId {
    format!("{number:02x}").repeat(16).parse().unwrap()
}

/// The review document as somebody has it.
struct Desk {
    doc: Automerge,
    who: &'static str,
    device: u8,
    written: u64,
}

impl Desk {
    fn of(who: &'static str, device: u8) -> Self {
        let mut doc = Automerge::new();
        begin(&mut doc).unwrap();
        doc.set_actor(ActorId::from([device; 16]));
        Self { doc, who, device, written: 0 }
    }

    fn act_on(&mut self, conflict: ConflictId, act: &Act, time_s: i64) -> Result<bool, Refused> {
        self.written += 1;
        let mut unique = [self.device; 16];
        unique[8..].copy_from_slice(&self.written.to_be_bytes());
        let entry = Entry { conflict, act, who: self.who, time_s, unique };
        let mut tx = self.doc.transaction();
        let done = triage::write(&mut tx, &entry);
        match &done {
            Ok(_) => _ = tx.commit(),
            Err(_) => _ = tx.rollback(),
        }
        done
    }

    fn act(&mut self, act: &Act, time_s: i64) -> Triage {
        self.act_on(conflict(1), act, time_s).unwrap();
        self.triage()
    }

    fn triage(&self) -> Triage {
        read(&self.doc, conflict(1))
    }

    fn meet(&mut self, other: &mut Self) {
        self.doc.merge(&mut other.doc).unwrap();
        other.doc.merge(&mut self.doc).unwrap();
        assert_eq!(self.triage(), other.triage());
        assert_eq!(standings(&self.doc), standings(&other.doc));
    }
}

fn text(text: &str) -> Act {
    Act::Comment(text.to_owned())
}

#[test]
fn who_claims_first_holds_it_and_both_are_named() {
    let (mut ann, mut ben) = (Desk::of("ann", 1), Desk::of("ben", 2));
    ben.act(&Act::Claim { take: false }, 100);
    ann.act(&Act::Claim { take: false }, 200);
    ann.meet(&mut ben);
    let triage = ann.triage();
    assert_eq!(triage.holder(), Some("ben"));
    let claims: Vec<(&str, i64)> =
        triage.claims.iter().map(|claim| (claim.who.as_str(), claim.since)).collect();
    assert_eq!(claims, [("ben", 100), ("ann", 200)]);
    // Ann gives way; Carl, who comes later, is told, and takes it over.
    ann.act(&Act::Release, 300);
    ann.meet(&mut ben);
    assert_eq!(ben.triage().claims.len(), 1);
    let mut carl = Desk::of("carl", 3);
    carl.meet(&mut ann);
    let refused = carl.act_on(conflict(1), &Act::Claim { take: false }, 400).unwrap_err();
    assert!(matches!(&refused, Refused::Held { who } if who == "ben"), "{refused}");
    assert!(!ben.act_on(conflict(1), &Act::Claim { take: false }, 400).unwrap(), "he has it");
    assert_eq!(carl.act(&Act::Claim { take: true }, 400).holder(), Some("carl"));
    assert_eq!(carl.triage().claims.len(), 1);
    // Somebody who claims it meanwhile on another device stays beside that.
    ben.act(&Act::Release, 410);
    ben.act(&Act::Claim { take: false }, 420);
    carl.meet(&mut ben);
    let holders: Vec<&str> = ben.doc_claims();
    assert_eq!(holders, ["carl", "ben"]);
    assert_eq!(ben.triage().state(1_000), State::Claimed);
}

impl Desk {
    fn doc_claims(&self) -> Vec<&'static str> {
        let names = ["ann", "ben", "carl"];
        let claims = self.triage().claims;
        claims.iter().map(|claim| *names.iter().find(|name| **name == claim.who).unwrap()).collect()
    }
}

#[test]
fn what_is_said_at_the_same_time_is_all_there() {
    let (mut ann, mut ben) = (Desk::of("ann", 1), Desk::of("ben", 2));
    for n in 0..5 {
        ann.act(&text(&format!("ann {n}")), 100 + n);
        ben.act(&text(&format!("ben {n}")), 100 + n);
    }
    ann.act(&Act::Assign(Some("carl".to_owned())), 110);
    ben.act(&Act::Assign(Some("dora".to_owned())), 120);
    ann.act(&Act::Snooze(5_000), 130);
    ben.act(&Act::Dismiss(Some("a test".to_owned())), 140);
    ann.meet(&mut ben);
    let triage = ann.triage();
    assert_eq!(triage.comments.len(), 10);
    assert!(triage.comments.is_sorted_by_key(|comment| comment.time));
    assert_eq!(triage.assigned.as_ref().unwrap().to, "dora", "the latest");
    assert_eq!(triage.dismissed.as_ref().unwrap().why.as_deref(), Some("a test"));
    assert_eq!(triage.state(200), State::Dismissed);
    assert_eq!(ann.act(&Act::Reopen, 300).state(301), State::Open);
    assert_eq!(ann.act(&Act::Snooze(5_000), 310).state(400), State::Snoozed);
    assert_eq!(ann.triage().state(5_000), State::Open, "the time has come");
    assert_eq!(ann.act(&Act::Assign(None), 320).assigned, None);
    assert_eq!(read(&ann.doc, conflict(2)), Triage::default());
    let told = standings(&ann.doc);
    assert_eq!((told.len(), told[&conflict(1)].0.comments), (1, 10));
}

#[test]
fn nothing_in_it_is_a_conflict() {
    let (mut ann, mut ben) = (Desk::of("ann", 1), Desk::of("ben", 2));
    ann.act(&Act::Claim { take: false }, 1);
    ann.meet(&mut ben);
    let acts = [
        Act::Claim { take: true },
        Act::Assign(Some("carl".to_owned())),
        Act::Snooze(900),
        Act::Dismiss(None),
        Act::Reopen,
        Act::Release,
        Act::Assign(None),
        text("so it is"),
    ];
    for act in &acts {
        for desk in [&mut ann, &mut ben] {
            desk.act_on(conflict(1), act, 10).ok();
        }
    }
    ann.meet(&mut ben);
    let open = |doc: &Automerge| {
        let detector = Detector::of(&doc.get_changes(&[])).unwrap();
        detector.open(&review_document_id("default"))
    };
    assert_eq!(open(&ann.doc), []);
}

#[test]
fn what_is_no_act_is_refused() {
    let mut ann = Desk::of("ann", 1);
    let mut refused = |act: &Act| ann.act_on(conflict(1), act, 100).unwrap_err();
    assert!(matches!(refused(&text(" \n")), Refused::Empty));
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    assert!(matches!(refused(&text(&long)), Refused::Long { bytes } if bytes == long.len()));
    assert!(matches!(refused(&Act::Dismiss(Some(long))), Refused::Long { .. }));
    assert!(matches!(refused(&Act::Assign(Some("\u{1b}[2J".to_owned()))), Refused::Name(_)));
    for time in [100, 0, i64::MIN, i64::MAX] {
        assert!(matches!(refused(&Act::Snooze(time)), Refused::Time), "{time}");
    }
    // What is as long as can be, and grows most in JSON, is read again.
    let most = "\u{1}".repeat(TEXT_BYTES_MAX);
    assert_eq!(ann.act(&text(&most), 100).comments[0].text, most);
    for n in 1..COMMENTS_MAX {
        ann.act(&text(&format!("comment {n}")), 100);
    }
    let full = ann.act_on(conflict(1), &text("one more"), 100).unwrap_err();
    assert!(matches!(full, Refused::Full), "{full}");
    assert!(ann.act_on(conflict(2), &text("elsewhere"), 100).unwrap());
    let entry =
        Entry { conflict: conflict(1), act: &text("a"), who: "ann", time_s: 1, unique: [1; 16] };
    let mut none = Automerge::new();
    let refused = triage::write(&mut none.transaction(), &entry).unwrap_err();
    assert!(matches!(refused, Refused::Document), "{refused}");
}

#[test]
fn what_is_over_can_go() {
    let mut ann = Desk::of("ann", 1);
    for n in 1..=3 {
        ann.act_on(conflict(n), &text("so"), 100).unwrap();
        ann.act_on(conflict(n), &Act::Claim { take: false }, 100).unwrap();
    }
    let mut tx = ann.doc.transaction();
    let gone = BTreeSet::from([conflict(1), conflict(3), conflict(9)]);
    assert_eq!(triage::forget(&mut tx, &gone).unwrap(), 4);
    tx.commit();
    assert_eq!(standings(&ann.doc).into_keys().collect::<Vec<_>>(), [conflict(2)]);
}

/// Something that one of three does.
#[derive(Debug, Clone)]
struct Done {
    by: usize,
    about: u8,
    act: Act,
    time_s: i64,
    /// With whom they meet then, if with anybody.
    meets: Option<usize>,
}

impl Arbitrary for Done {
    fn arbitrary(g: &mut Gen) -> Self {
        let name = |g: &mut Gen| (*g.choose(&["ann", "ben", "carl"]).unwrap()).to_owned();
        let act = match u8::arbitrary(g) % 8 {
            0 => Act::Claim { take: false },
            1 => Act::Claim { take: true },
            2 => Act::Release,
            3 => Act::Assign(bool::arbitrary(g).then(|| name(g))),
            4 => Act::Comment(format!("comment {}", u8::arbitrary(g))),
            5 => Act::Snooze(i64::from(u8::arbitrary(g))),
            6 => Act::Dismiss(bool::arbitrary(g).then(|| name(g))),
            _ => Act::Reopen,
        };
        Self {
            by: usize::arbitrary(g) % 3,
            about: u8::arbitrary(g) % 2,
            act,
            time_s: i64::from(u8::arbitrary(g) % 16),
            meets: (u8::arbitrary(g) % 4 == 0).then(|| usize::arbitrary(g) % 3),
        }
    }
}

#[test]
fn whoever_has_the_same_notes_sees_the_same() {
    fn law(done: Vec<Done>) -> bool {
        let mut desks = ["ann", "ben", "carl"].map(|who| Desk::of(who, who.as_bytes()[0]));
        for Done { by, about, act, time_s, meets } in done {
            // What is refused is not done.
            let _ = desks[by].act_on(conflict(about), &act, time_s);
            if let Some(with) = meets.filter(|with| *with != by) {
                let mut theirs = desks[with].doc.clone();
                desks[by].doc.merge(&mut theirs).unwrap();
            }
        }
        let seen = |order: [usize; 3]| {
            let mut doc = Automerge::new();
            for number in order {
                doc.merge(&mut desks[number].doc.clone()).unwrap();
            }
            let about = [0, 1].map(|number| read(&doc, conflict(number)));
            let told = standings(&doc);
            for (number, triage) in (0..).zip(&about) {
                let told = told.get(&conflict(number)).map(|(standing, _)| standing.clone());
                assert_eq!(told.unwrap_or_default(), triage.standing());
            }
            let loaded = Automerge::load(&doc.save()).unwrap();
            assert_eq!(read(&loaded, conflict(0)), about[0]);
            let detector = Detector::of(&doc.get_changes(&[])).unwrap();
            assert_eq!(detector.open(&review_document_id("default")), []);
            (about, told)
        };
        seen([0, 1, 2]) == seen([2, 0, 1]) && seen([0, 1, 2]) == seen([1, 2, 0])
    }
    QuickCheck::new().tests(300).quickcheck(law as fn(Vec<Done>) -> bool);
}

/// Something that a stranger writes where notes are.
#[derive(Debug, Clone)]
struct Nonsense {
    key: String,
    value: Wrong,
}

#[derive(Debug, Clone)]
enum Wrong {
    Scalar(ScalarValue),
    Object(ObjType),
    Json(String),
}

impl Arbitrary for Nonsense {
    fn arbitrary(g: &mut Gen) -> Self {
        let id = conflict(u8::arbitrary(g) % 2).to_string();
        let letter = g.choose(&["a", "c", "t", "d", "s", "x", ""]).unwrap();
        let unique = format!("{:032x}", u64::arbitrary(g));
        let key = match u8::arbitrary(g) % 6 {
            0 => String::arbitrary(g),
            1 => format!("{id} {letter} "),
            2 => format!("{} {letter} {unique}", id.to_uppercase()),
            _ => format!("{id} {letter} {unique}"),
        };
        let key = if key.is_empty() { "k".to_owned() } else { key };
        let value = match u8::arbitrary(g) % 5 {
            0 => Wrong::Scalar(ScalarValue::Int(i64::arbitrary(g))),
            1 => Wrong::Scalar(ScalarValue::counter(3)),
            2 => Wrong::Object(*g.choose(&[ObjType::Map, ObjType::Text, ObjType::List]).unwrap()),
            3 => Wrong::Json(String::arbitrary(g)),
            _ => {
                let who = g.choose(&["\"ann\"", "\"\"", "7", "\"\\u001b\""]).unwrap();
                let at = g.choose(&["5", "0", "-9223372036854775808", "1e300", "null"]).unwrap();
                let rest = g.choose(&["", ",\"text\":\"t\"", ",\"to\":\"b\"", ",\"until\":9"]);
                Wrong::Json(format!("{{\"who\":{who},\"at\":{at}{}}}", rest.unwrap()))
            }
        };
        Self { key, value }
    }
}

#[test]
fn whatever_strangers_write_is_read_and_written_beside() {
    fn law(nonsense: Vec<Nonsense>, over: bool) -> bool {
        let mut ann = Desk::of("ann", 1);
        let (_, notes) = ann.doc.get(ROOT, "notes").unwrap().unwrap();
        let mut stranger = ann.doc.fork().with_actor(ActorId::from([9; 16]));
        let mut tx = stranger.transaction();
        for Nonsense { key, value } in nonsense {
            match value {
                Wrong::Scalar(value) => tx.put(&notes, key, value).unwrap(),
                Wrong::Object(kind) => _ = tx.put_object(&notes, key, kind).unwrap(),
                Wrong::Json(json) => tx.put(&notes, key, json).unwrap(),
            }
        }
        if over {
            tx.put(ROOT, "notes", "mine").unwrap();
        }
        tx.commit();
        ann.act(&text("still here"), 50);
        ann.doc.merge(&mut stranger).unwrap();
        let triage = ann.act(&Act::Claim { take: true }, 60);
        assert_eq!(triage.holder(), Some("ann"));
        assert!(triage.comments.iter().any(|comment| comment.text == "still here"));
        assert!(triage.claims.iter().all(|claim| !claim.who.contains('\u{1b}')));
        let told = standings(&ann.doc);
        told[&conflict(1)].0 == triage.standing() && told.len() <= 2
    }
    QuickCheck::new().tests(500).quickcheck(law as fn(Vec<Nonsense>, bool) -> bool);
}

#[test]
fn many_notes_of_one_kind_do_not_hide_the_others() {
    let mut ann = Desk::of("ann", 1);
    ann.act(&Act::Claim { take: false }, 10);
    let notes: ObjId = ann.doc.get(ROOT, "notes").unwrap().unwrap().1;
    let mut tx = ann.doc.transaction();
    for n in 0..5_000 {
        for letter in ["a", "t"] {
            let key = format!("{} {letter} {n:032x}", conflict(1));
            let note = r#"{"who":"eve","at":5,"to":"eve","text":"spam"}"#;
            tx.put(&notes, key, note).unwrap();
        }
    }
    tx.commit();
    let triage = ann.triage();
    assert_eq!((triage.holder(), triage.comments.len()), (Some("ann"), COMMENTS_MAX));
    assert_eq!(standings(&ann.doc)[&conflict(1)].0, triage.standing());
}

#[test]
fn the_author_of_a_change_is_who_did_it() {
    use triage::desk::{Answer, Order, Question, answer};
    let mut doc = Automerge::new();
    let order = Order {
        conflict: conflict(1),
        act: Act::Claim { take: false },
        who: "ann@example.org".to_owned(),
        actor: [5; 16],
        time_s: 77,
    };
    let Answer::Written { changes, triage } =
        answer(&mut doc, &Question::Write(order.clone())).unwrap()
    else {
        panic!("it is written")
    };
    assert_eq!((changes.len(), triage.holder()), (2, Some("ann@example.org")));
    let mut other = Automerge::new();
    for change in changes {
        other.load_incremental(&change).unwrap();
    }
    assert_eq!(read(&other, conflict(1)), triage);
    let author = other.get_author_for_actor(&ActorId::from([5; 16])).unwrap();
    assert_eq!(author, Author::from(b"ann@example.org".to_vec()));
    let again = Order { actor: [6; 16], ..order.clone() };
    let Answer::Written { changes, .. } = answer(&mut other, &Question::Write(again)).unwrap()
    else {
        panic!("it is so already")
    };
    assert!(changes.is_empty());
    let late = Order { actor: [7; 16], who: "ben".to_owned(), ..order };
    let refused = answer(&mut other, &Question::Write(late)).unwrap();
    assert!(matches!(refused, Answer::Refused { is_held: true, .. }), "{refused:?}");
}
