use quickcheck::{Arbitrary, Gen, quickcheck};

use super::*;

fn document(n: u32) -> DocumentId {
    DocumentId::from_bytes(&n.to_be_bytes())
}

fn online(debounce: Debounce) -> Schedule {
    let mut schedule = Schedule::new(debounce);
    assert!(schedule.online(true).is_empty());
    schedule
}

/// All that may go now.
fn given(schedule: &mut Schedule, now_ms: u64) -> Vec<DocumentId> {
    std::iter::from_fn(|| schedule.next(now_ms)).collect()
}

const BULK: Level = Level::BACKGROUND;

#[test]
fn an_edit_rests_until_nobody_has_edited_for_a_moment() {
    let mut schedule = online(Debounce::DEFAULT);
    for ms in [0, 100, 250] {
        assert_eq!(schedule.edited(ms, &document(1), Level::NORMAL), Verdict::Later);
        assert_eq!(schedule.wakes_at(), Some(ms + 200));
        assert_eq!(schedule.next(ms), None);
    }
    assert_eq!(schedule.next(449), None);
    assert_eq!(schedule.next(450), Some(document(1)));
    assert_eq!(schedule.next(450), None);
}

#[test]
fn who_never_pauses_is_sent_after_two_seconds() {
    let mut schedule = online(Debounce::DEFAULT);
    let mut sent = Vec::new();
    for ms in (0..10_000).step_by(50) {
        schedule.edited(ms, &document(1), Level::NORMAL);
        if schedule.next(ms).is_some() {
            sent.push(ms);
            schedule.done(&document(1));
        }
    }
    let gaps: Vec<_> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(sent[0] == 2_000 && gaps.iter().all(|gap| (2_000..=2_050).contains(gap)), "{sent:?}");
}

#[test]
fn what_is_critical_goes_at_once_with_what_rested() {
    let mut schedule = online(Debounce::DEFAULT);
    assert_eq!(schedule.edited(0, &document(1), Level::CRITICAL), Verdict::Now);
    schedule.edited(0, &document(1), Level::NORMAL);
    assert_eq!(schedule.edited(10, &document(1), Level::CRITICAL), Verdict::NowWithTheRest);
    assert_eq!(given(&mut schedule, 5_000), []);
    let mut at_once = online(Debounce::NONE);
    assert_eq!(at_once.edited(0, &document(1), BULK), Verdict::Now);
    assert_eq!(at_once.wakes_at(), None, "nothing is kept of it");
}

#[test]
fn a_document_that_is_on_its_way_goes_once_more_however_often_it_is_asked_for() {
    let mut schedule = online(Debounce::DEFAULT);
    schedule.offer(&document(1), Level::NORMAL);
    assert_eq!(given(&mut schedule, 0), [document(1)]);
    for ms in 1..100 {
        schedule.offer(&document(1), Level::NORMAL);
        schedule.edited(ms, &document(1), Level::LOW);
        assert_eq!(schedule.next(ms), None);
    }
    schedule.heard(&document(1));
    assert_eq!(given(&mut schedule, 100), [document(1)]);
    schedule.done(&document(1));
    assert_eq!(given(&mut schedule, 100_000), []);
    assert!(!schedule.knows(&document(1)));
}

/// Met as a document whose second edit was confirmed ten seconds later: the relay had answered for
/// the first as the second was made, and had nothing more to say.
#[test]
fn what_is_edited_after_an_answer_does_not_wait_for_another() {
    let mut schedule = online(Debounce::DEFAULT);
    schedule.offer(&document(1), Level::NORMAL);
    assert_eq!(given(&mut schedule, 0), [document(1)]);
    schedule.heard(&document(1));
    assert!(schedule.knows(&document(1)), "it is not confirmed");
    assert_eq!(schedule.edited(1, &document(1), Level::NORMAL), Verdict::Later);
    assert_eq!(given(&mut schedule, 200), []);
    assert_eq!(given(&mut schedule, 201), [document(1)]);
    schedule.heard(&document(1));
    schedule.offer(&document(1), Level::NORMAL);
    assert_eq!(given(&mut schedule, 202), [document(1)]);
}

#[test]
fn who_is_not_answered_gives_the_place_free() {
    let mut schedule = online(Debounce::DEFAULT);
    for n in 0..2 * u32::try_from(FLYING_MAX).unwrap() {
        schedule.offer(&document(n), BULK);
    }
    assert_eq!(given(&mut schedule, 0).len(), FLYING_MAX);
    assert_eq!(given(&mut schedule, ANSWER_MS - 1), []);
    assert_eq!(schedule.wakes_at(), Some(ANSWER_MS));
    assert_eq!(given(&mut schedule, ANSWER_MS).len(), FLYING_MAX);
}

#[test]
fn without_a_relay_nothing_waits() {
    let mut schedule = online(Debounce::DEFAULT);
    schedule.edited(0, &document(1), Level::NORMAL);
    schedule.offer(&document(2), Level::NORMAL);
    assert_eq!(schedule.next(0), Some(document(2)));
    schedule.offer(&document(3), Level::NORMAL);
    let mut left = schedule.online(false);
    left.sort();
    let mut waited = vec![document(1), document(3)];
    waited.sort();
    assert_eq!(left, waited, "what is on its way is not held");
    assert_eq!(schedule.edited(1, &document(1), Level::NORMAL), Verdict::Now);
    assert_eq!(schedule.wakes_at(), None);
}

/// A relay that confirms this many documents at each step; gives the order in which they were.
fn confirmed(
    schedule: &mut Schedule,
    steps: u64,
    each: usize,
    mut edit: impl FnMut(u64, &mut Schedule),
) -> Vec<DocumentId> {
    let (mut given, mut done) = (std::collections::VecDeque::new(), Vec::new());
    for step in 0..steps {
        edit(step, schedule);
        given.extend(std::iter::from_fn(|| schedule.next(step)));
        for document in given.drain(..each.min(given.len())) {
            schedule.done(&document);
            done.push(document);
        }
    }
    done
}

#[test]
fn one_critical_edit_overtakes_ten_thousand_in_the_background() {
    let mut schedule = online(Debounce::DEFAULT);
    for n in 0..10_000 {
        schedule.offer(&document(n), BULK);
    }
    // Written while the others are on their way, and offered as those of an outbox are.
    let order = confirmed(&mut schedule, 200, 100, |step, schedule| {
        if step == 10 {
            schedule.offer(&document(99_999), Level::CRITICAL);
        }
    });
    let place = order.iter().position(|one| *one == document(99_999)).unwrap();
    assert_eq!(order.len(), 10_001);
    assert!(place < 1_000 + 2 * FLYING_MAX, "{place}");
}

#[test]
fn nothing_waits_for_ever_behind_what_matters_more() {
    let mut schedule = online(Debounce::DEFAULT);
    for n in 0..100 {
        schedule.offer(&document(n), BULK);
    }
    // More than the relay takes, for ever.
    let mut next = 1_000;
    let order = confirmed(&mut schedule, 200, 10, |_, schedule| {
        for _ in 0..20 {
            next += 1;
            schedule.offer(&document(next), Level::CRITICAL);
        }
    });
    let bulk = (0..100).filter(|n| order.contains(&document(*n))).count();
    assert_eq!(bulk, 100, "of {}", order.len());
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    Edit(u8, u8),
    Offer(u8, u8),
    Heard(u8),
    Done(u8),
    Hurry,
    Pass(u16),
    Offline,
}

impl Arbitrary for Happens {
    fn arbitrary(g: &mut Gen) -> Self {
        let (n, level) = (u8::arbitrary(g) % 8, u8::arbitrary(g) % 5 + 1);
        match u8::arbitrary(g) % 12 {
            0..4 => Self::Edit(n, level),
            4..6 => Self::Offer(n, level),
            6 => Self::Heard(n),
            7 => Self::Done(n),
            8 => Self::Hurry,
            9..11 => Self::Pass(u16::arbitrary(g) % 3_000),
            _ => Self::Offline,
        }
    }
}

quickcheck! {
    /// Whatever happens: what was told to wait is given, if only time passes; and all lists agree.
    fn what_waits_is_given(happens: Vec<Happens>) -> bool {
        let mut schedule = online(Debounce::DEFAULT);
        let (mut now_ms, mut owed) = (0, BTreeSet::new());
        for happens in happens {
            match happens {
                Happens::Edit(n, level) => {
                    let level = Level::new(level).unwrap();
                    match schedule.edited(now_ms, &document(n.into()), level) {
                        Verdict::Later => _ = owed.insert(document(n.into())),
                        Verdict::Now => {}
                        Verdict::NowWithTheRest => _ = owed.remove(&document(n.into())),
                    }
                }
                Happens::Offer(n, level) => {
                    schedule.offer(&document(n.into()), Level::new(level).unwrap());
                    owed.insert(document(n.into()));
                }
                Happens::Heard(n) => schedule.heard(&document(n.into())),
                Happens::Done(n) => schedule.done(&document(n.into())),
                Happens::Hurry => schedule.hurry(),
                Happens::Pass(ms) => {
                    now_ms += u64::from(ms);
                    for document in given(&mut schedule, now_ms) {
                        owed.remove(&document);
                    }
                }
                Happens::Offline => {
                    for document in schedule.online(false) {
                        owed.remove(&document);
                    }
                    assert!(owed.is_empty(), "{owed:?}");
                    schedule.online(true);
                }
            }
            let Schedule { places, resting, by_level, by_age, flying, .. } = &schedule;
            assert_eq!(places.len(), resting.len() + by_level.len() + flying.len());
            assert_eq!(by_age.len(), by_level.len());
        }
        for _ in 0..4 {
            now_ms += ANSWER_MS;
            for document in given(&mut schedule, now_ms) {
                owed.remove(&document);
            }
        }
        owed.is_empty()
    }
}
