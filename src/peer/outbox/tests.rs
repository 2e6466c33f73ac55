use concord_protocol::ChangeHash;
use quickcheck::{Arbitrary, Gen, quickcheck};
use tokio::sync::watch;

use super::*;

fn document(n: u8) -> DocumentId {
    DocumentId::from_bytes(&[n; 16])
}

fn at(ms: u64) -> Now {
    Now { mono_ms: ms, wall_ms: 1_000_000 + ms }
}

fn outbox() -> (Outbox, watch::Receiver<OutboxCounts>) {
    let board = Arc::new(Board::default());
    let seen = board.counts.subscribe();
    (Outbox::new(board), seen)
}

/// What is on a disk that does as it is told.
#[derive(Default)]
struct Disk(BTreeMap<DocumentId, Bytes>);

impl Disk {
    fn note(&mut self, note: Option<Note>) {
        match note {
            None => {}
            Some(Note::Put(document, row)) => _ = self.0.insert(document, row),
            Some(Note::Delete(document)) => _ = self.0.remove(&document),
        }
    }

    fn restart(&self) -> (Outbox, watch::Receiver<OutboxCounts>) {
        let (mut outbox, seen) = outbox();
        for (document, row) in &self.0 {
            outbox.recalled(document, row);
        }
        outbox.complete(at(0));
        (outbox, seen)
    }
}

#[test]
fn what_is_sent_again_is_not_refused_for_what_builds_on_it() {
    let (mut outbox, seen) = outbox();
    let [first, second] = [1, 2].map(|n| ChangeHash([n; 32]));
    let refused = |outbox: &mut Outbox, hash, code| {
        outbox.refused(at(5), &document(1), (hash, code, "why"));
        let counts = *seen.borrow();
        (counts.refused, counts.waiting())
    };
    outbox.edited(at(1), &document(1), Level::NORMAL, Heads::new);
    assert_eq!(refused(&mut outbox, first, RefuseCode::Malformed), (1, 0));
    assert_eq!(refused(&mut outbox, second, RefuseCode::OutOfSequence), (1, 0));
    assert!(outbox.retried(&document(1)).is_some());
    // That of the first is to come.
    assert_eq!(refused(&mut outbox, second, RefuseCode::OutOfSequence), (0, 1));
    assert_eq!(outbox.list()[0].state, OutboxState::Pending);
    assert_eq!(refused(&mut outbox, first, RefuseCode::Malformed), (1, 0));
    let state = outbox.list().remove(0).state;
    assert!(matches!(state, OutboxState::Refused { code: RefuseCode::Malformed, .. }), "{state:?}");
}

#[test]
fn many_edits_are_one_entry_and_one_row() {
    let (mut outbox, seen) = outbox();
    let note = outbox.edited(at(5), &document(1), Level::NORMAL, Heads::new);
    assert!(matches!(note, Some(Note::Put(of, _)) if of == document(1)));
    for ms in 6..1_000 {
        assert_eq!(outbox.edited(at(ms), &document(1), Level::NORMAL, Heads::new), None);
    }
    let since_ms = at(5).wall_ms;
    let entry = OutboxEntry {
        document: document(1),
        since_ms,
        level: Level::NORMAL,
        state: OutboxState::Pending,
    };
    assert_eq!(outbox.list(), [entry]);
    assert_eq!(seen.borrow().pending, 1);
}

#[test]
fn a_row_lingers_and_costs_whoever_types_nothing() {
    let (mut outbox, seen) = outbox();
    outbox.came(at(0));
    assert!(outbox.edited(at(0), &document(1), Level::NORMAL, Heads::new).is_some());
    assert_eq!(seen.borrow().sending, 1);
    assert_eq!(outbox.confirmed(at(10), &document(1)), None);
    assert!(outbox.list().is_empty() && seen.borrow().waiting() == 0);
    assert_eq!(outbox.wakes_at(), Some(10 + LINGER_MS));
    assert_eq!(outbox.due(at(9 + LINGER_MS), false), []);
    // The row that is there still says what it has to.
    assert_eq!(outbox.edited(at(500), &document(1), Level::NORMAL, Heads::new), None);
    assert_eq!(outbox.list()[0].since_ms, at(500).wall_ms);
    assert_eq!(outbox.due(at(10 + LINGER_MS), false), [], "it is on its way again");
    // But it says that relays have less than they had: that is put right when there is time.
    let anew = outbox.due(at(500 + LINGER_MS), false);
    assert!(matches!(&anew[..], [Note::Put(of, _)] if *of == document(1)), "{anew:?}");
    assert_eq!(outbox.due(at(900 + LINGER_MS), true), [], "once");
    outbox.confirmed(at(600), &document(1));
    assert_eq!(outbox.due(at(600 + LINGER_MS), false), [Note::Delete(document(1))]);
    assert!(
        outbox.edited(at(9_000), &document(1), Level::NORMAL, Heads::new).is_some(),
        "the row is gone"
    );
}

#[test]
fn what_is_refused_is_told_until_it_is_taken() {
    let (mut outbox, seen) = outbox();
    let mut disk = Disk::default();
    disk.note(outbox.edited(at(0), &document(1), Level::NORMAL, Heads::new));
    let refused = (ChangeHash([7; 32]), RefuseCode::Quota, "too much");
    disk.note(outbox.refused(at(1), &document(1), refused));
    assert_eq!(outbox.refused(at(2), &document(1), refused), None, "it is known");
    let state = |is_current| {
        let reason = "too much".to_owned();
        OutboxState::Refused { code: RefuseCode::Quota, reason, changes: 1, is_current }
    };
    assert_eq!(outbox.list()[0].state, state(false), "no relay is connected");
    assert_eq!((seen.borrow().refused, seen.borrow().waiting()), (1, 0));
    let (mut again, seen) = disk.restart();
    assert_eq!(again.list()[0].state, state(false));
    assert_eq!(seen.borrow().refused, 1);
    again.came(at(3));
    assert_eq!(again.list()[0].state, state(false), "a relay that has just come may take it");
    assert_eq!(again.refused(at(4), &document(1), refused), None);
    assert_eq!(again.list()[0].state, state(true));
    again.went(at(5), false);
    assert_eq!(again.list()[0].state, state(true), "another went");
    again.went(at(5), true);
    assert_eq!(again.list()[0].state, state(false));
    disk.note(again.confirmed(at(6), &document(1)));
    assert_eq!(again.due(at(6), true), [Note::Delete(document(1))]);
}

#[test]
fn what_is_taken_out_is_kept_until_it_is_forgotten() {
    let (mut outbox, seen) = outbox();
    let mut disk = Disk::default();
    let hash = |n: u8| ChangeHash([n; 32]);
    disk.note(outbox.edited(at(0), &document(1), Level::NORMAL, Heads::new));
    for n in 1..4 {
        disk.note(outbox.refused(at(1), &document(1), (hash(n), RefuseCode::Quota, "no")));
    }
    let behind = BTreeSet::from([hash(2)]);
    let (note, refused) = outbox.discarded(at(2), &document(1), hash(1), &behind, "ann").unwrap();
    disk.note(Some(note));
    assert_eq!((refused.hash, refused.reason.as_str()), (hash(1).0, "no"));
    assert_eq!(seen.borrow().refused, 1);
    let (mut outbox, _seen) = disk.restart();
    let (_, row) = outbox.letters().remove(0);
    assert_eq!((row.refused.len(), row.letters.len()), (1, 1), "another is still refused");
    assert!(outbox.discarded(at(3), &document(1), hash(1), &behind, "ann").is_none());
    disk.note(outbox.confirmed(at(4), &document(1)));
    assert_eq!(outbox.wakes_at(), None, "the row stays for what is kept");
    assert_eq!((outbox.list(), outbox.letters().len()), (vec![], 1));
    assert_eq!(outbox.forgotten(&document(1), hash(3)), None);
    disk.note(outbox.forgotten(&document(1), hash(1)));
    assert!(disk.0.is_empty() && outbox.letters().is_empty());
}

#[test]
fn a_row_that_cannot_be_read_stands_for_edits() {
    let (mut outbox, seen) = outbox();
    outbox.recalled(&document(3), b"\x01nonsense");
    assert_eq!((outbox.list().len(), seen.borrow().pending), (1, 1));
}

#[test]
fn a_row_that_was_not_written_is_written_with_the_next_edit() {
    let (mut outbox, _) = outbox();
    outbox.edited(at(0), &document(1), Level::NORMAL, Heads::new);
    outbox.not_noted(at(0), &document(1));
    assert!(outbox.edited(at(1), &document(1), Level::NORMAL, Heads::new).is_some());
    outbox.not_noted(at(2), &document(1));
    assert_eq!(outbox.wakes_at(), Some(RETRY_MS), "or in a while");
    assert_eq!(outbox.due(at(2 + RETRY_MS), false).len(), 1);
    assert_eq!(outbox.due(at(3 + RETRY_MS), false), []);
}

#[derive(Debug, Clone)]
enum Step {
    Edit(u8),
    Confirm(u8),
    Refuse(u8, u8),
    Fail(u8, bool),
    Forget(u8),
    Wait(u16),
    Online(bool),
    Restart,
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let document = u8::arbitrary(g) % 3;
        match u8::arbitrary(g) % 12 {
            0..=3 => Self::Edit(document),
            4..=6 => Self::Confirm(document),
            7 => Self::Refuse(document, u8::arbitrary(g) % 3),
            8 => Self::Fail(document, bool::arbitrary(g)),
            9 => Self::Wait(u16::arbitrary(g) % 4_000),
            10 => Self::Online(bool::arbitrary(g)),
            _ if bool::arbitrary(g) => Self::Forget(document),
            _ => Self::Restart,
        }
    }
}

quickcheck! {
    /// Whatever happens, and wherever it ends: what was edited and not confirmed since is in the
    /// outbox, nothing else is, and the numbers are those of the list.
    fn the_outbox_is_what_was_edited_and_not_confirmed(steps: Vec<Step>) -> bool {
        let (mut outbox, mut seen) = outbox();
        let (mut disk, mut now) = (Disk::default(), 0);
        let mut expected = BTreeSet::new();
        for step in steps {
            now += 1;
            match step {
                Step::Edit(n) => {
                    disk.note(outbox.edited(at(now), &document(n), Level::NORMAL, Heads::new));
                    expected.insert(document(n));
                }
                Step::Confirm(n) => {
                    disk.note(outbox.confirmed(at(now), &document(n)));
                    expected.remove(&document(n));
                }
                Step::Refuse(n, hash) => {
                    let refused = (ChangeHash([hash; 32]), RefuseCode::Quota, "no");
                    disk.note(outbox.refused(at(now), &document(n), refused));
                    expected.insert(document(n));
                }
                Step::Fail(n, fails) => outbox.failed(&document(n), fails.then_some("broken")),
                Step::Forget(n) => {
                    disk.note(outbox.forget(&document(n)));
                    expected.remove(&document(n));
                }
                Step::Wait(ms) => {
                    now += u64::from(ms);
                    for note in outbox.due(at(now), false) {
                        disk.note(Some(note));
                    }
                }
                Step::Online(true) => outbox.came(at(now)),
                Step::Online(false) => outbox.went(at(now), true),
                Step::Restart => {
                    (outbox, seen) = disk.restart();
                    let listed: BTreeSet<_> =
                        outbox.list().into_iter().map(|entry| entry.document).collect();
                    if !listed.is_superset(&expected) {
                        return false;
                    }
                    // A row that had not gone yet is confirmed anew.
                    expected = listed;
                }
            }
            let list = outbox.list();
            let listed: BTreeSet<_> = list.iter().map(|entry| entry.document.clone()).collect();
            let of = |is: fn(&OutboxState) -> bool| list.iter().filter(|e| is(&e.state)).count();
            let counts = *seen.borrow();
            if listed != expected
                || counts.pending != of(|state| *state == OutboxState::Pending)
                || counts.sending != of(|state| *state == OutboxState::Sending)
                || counts.refused != of(|state| matches!(state, OutboxState::Refused { .. }))
                || counts.failed != of(|state| matches!(state, OutboxState::Failed { .. }))
                || !expected.iter().all(|of| disk.0.contains_key(of))
            {
                return false;
            }
        }
        true
    }
}
