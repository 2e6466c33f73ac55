#![allow(clippy::needless_pass_by_value, reason = "what quickcheck draws is given away")]

use std::collections::BTreeMap;

use quickcheck::{Arbitrary, Gen, QuickCheck};

use super::{moves::RETURN_MS, *};
use crate::peer::dialer::{OPEN_MS, STAYED_MS};

/// Milliseconds between two looks at the world.
const STEP_MS: u64 = 50;

/// How a relay behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Well,
    /// Nothing listens: attempts fail at once, connections end.
    Dead,
    /// Its machine is there, and it does not answer.
    Silent,
    /// It takes connections in and ends them a second later.
    Throws,
}

/// What happens in a world that is played.
#[derive(Debug)]
enum Doing {
    Dialled(RelayKey),
    Checked(RelayKey),
    Left(RelayKey),
    Thrown(RelayKey),
    Noticed(RelayKey),
}

/// Relays as they would be, in virtual time.
struct World {
    now_ms: u64,
    relays: Relays,
    manners: Vec<Manner>,
    trips_ms: Vec<u64>,
    agenda: BTreeMap<(u64, u64), Doing>,
    count: u64,
    /// What was dialled, and when.
    dials: Vec<(u64, RelayKey)>,
    checks: Vec<(u64, RelayKey)>,
    random: u64,
    /// By how many thousandths of it a trip varies.
    noise: u64,
}

impl World {
    fn new(at_once: usize, priorities: &[u32]) -> Self {
        let mut relays = Relays::new(at_once);
        for priority in priorities {
            relays.add(*priority);
        }
        Self {
            now_ms: 0,
            relays,
            manners: vec![Manner::Well; priorities.len()],
            trips_ms: vec![20; priorities.len()],
            agenda: BTreeMap::new(),
            count: 0,
            dials: Vec::new(),
            checks: Vec::new(),
            random: 1,
            noise: 0,
        }
    }

    fn draw(&mut self) -> u64 {
        // Knuth's MMIX generator; the low bits are poor.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.random >> 33
    }

    fn trip(&mut self, key: RelayKey) -> Duration {
        let mean = self.trips_ms[key.0] * 1_000;
        let width = mean * self.noise / 1_000;
        let drawn = self.draw() % (2 * width + 1);
        Duration::from_micros(mean - width + drawn)
    }

    fn later(&mut self, in_ms: u64, doing: Doing) {
        self.count += 1;
        self.agenda.insert((self.now_ms + in_ms, self.count), doing);
    }

    fn decide(&mut self) {
        self.relays.decide(self.now_ms);
        while let Some(order) = self.relays.poll() {
            match order {
                Order::Dial(key) => {
                    self.dials.push((self.now_ms, key));
                    let takes_ms = match self.manners[key.0] {
                        Manner::Silent => 10_000,
                        Manner::Dead => 1,
                        Manner::Well | Manner::Throws => self.trips_ms[key.0] * 3,
                    };
                    self.later(takes_ms, Doing::Dialled(key));
                }
                Order::Check(key) => {
                    self.checks.push((self.now_ms, key));
                    let takes_ms = match self.manners[key.0] {
                        Manner::Silent => 5_000,
                        _ => self.trips_ms[key.0] * 3,
                    };
                    self.later(takes_ms, Doing::Checked(key));
                }
                Order::Leave(key) => self.later(100, Doing::Left(key)),
            }
        }
        self.laws();
    }

    /// What is so after every decision.
    fn laws(&self) {
        let up: Vec<&Relay> = self.relays.all.iter().filter(|relay| relay.is_up()).collect();
        let good = up.iter().filter(|relay| relay.is_good()).count();
        let at_once = self.relays.at_once;
        assert!(good <= at_once, "{good} in use, and {at_once} are asked for");
        assert!(good < at_once || up.len() == good, "others are kept beside enough that are well");
        if let Some(at) = self.relays.wakes_at() {
            assert!(at > self.now_ms, "it would spin");
        }
    }

    fn behave(&mut self, key: RelayKey, manner: Manner) {
        self.manners[key.0] = manner;
        match manner {
            Manner::Well => self.relays.silent(key, false),
            Manner::Dead if self.relays.all[key.0].is_up() => {
                let random = self.draw();
                self.relays.ended(self.now_ms, key, Ended::transient("dead"), random);
            }
            // As the heartbeat of a connection in use finds out.
            Manner::Silent => self.later(2_250, Doing::Noticed(key)),
            Manner::Throws => self.later(1_000, Doing::Thrown(key)),
            Manner::Dead => {}
        }
        self.decide();
    }

    fn run(&mut self, for_ms: u64) {
        let end = self.now_ms + for_ms;
        self.decide();
        while self.now_ms < end {
            self.now_ms += STEP_MS;
            while let Some(entry) = self.agenda.first_entry()
                && entry.key().0 <= self.now_ms
            {
                let doing = entry.remove();
                self.happens(doing);
                self.decide();
            }
            if self.now_ms.is_multiple_of(1_000) {
                for at in 0..self.manners.len() {
                    let key = RelayKey(at);
                    if self.relays.is_good(key) && self.manners[at] == Manner::Well {
                        let trip = self.trip(key);
                        self.relays.measured(self.now_ms, key, trip);
                    }
                }
                self.decide();
            }
            if self.relays.wakes_at().is_some_and(|at| at <= self.now_ms) {
                self.decide();
            }
        }
    }

    fn happens(&mut self, doing: Doing) {
        let random = self.draw();
        match doing {
            Doing::Dialled(key) => match self.relays.all[key.0].stage {
                Stage::Dialling { .. } if self.manners[key.0] == Manner::Well => {
                    self.relays.opened(self.now_ms, key);
                }
                Stage::Dialling { .. } if self.manners[key.0] == Manner::Throws => {
                    self.relays.opened(self.now_ms, key);
                    self.later(1_000, Doing::Thrown(key));
                }
                Stage::Dialling { .. } => {
                    self.relays.ended(self.now_ms, key, Ended::transient("no answer"), random);
                }
                // It was left meanwhile.
                _ => {}
            },
            Doing::Checked(key) if matches!(self.manners[key.0], Manner::Well | Manner::Throws) => {
                let trip = self.trip(key);
                self.relays.checked(self.now_ms, key, trip);
            }
            Doing::Checked(key) => {
                let ended = Ended::transient("no answer");
                self.relays.check_failed(self.now_ms, key, ended, random);
            }
            Doing::Left(key) => self.relays.left(self.now_ms, key, random),
            Doing::Thrown(key) => {
                if self.manners[key.0] == Manner::Throws && self.relays.all[key.0].is_up() {
                    let thrown = Ended::transient("thrown out");
                    self.relays.ended(self.now_ms, key, thrown, random);
                }
            }
            Doing::Noticed(key) => {
                self.relays.silent(key, self.manners[key.0] == Manner::Silent);
            }
        }
    }

    fn in_use(&self) -> Vec<usize> {
        self.relays.good().into_iter().map(|key| key.0).collect()
    }
}

const A: RelayKey = RelayKey(0);
const B: RelayKey = RelayKey(1);

#[test]
fn the_preferred_relay_is_dialled_and_no_other() {
    let mut world = World::new(1, &[2, 1, 1]);
    world.run(1_000_000);
    assert_eq!(world.in_use(), [1]);
    assert_eq!(world.dials, [(0, B)]);
    assert!(world.checks.len() <= 8, "few wake anybody: {:?}", world.checks);
}

#[test]
fn another_takes_over_at_once_and_the_preferred_one_is_returned_to_when_it_stayed_well() {
    let mut world = World::new(1, &[1, 2]);
    world.run(30_000);
    world.behave(A, Manner::Dead);
    world.run(100);
    assert_eq!(world.in_use(), [1]);
    world.run(5_000);
    world.behave(A, Manner::Well);
    let back_ms = world.now_ms;
    while world.in_use() != [0] {
        assert!(!world.relays.good().is_empty(), "the old one is left behind the new one");
        world.run(STEP_MS);
    }
    let after_ms = world.now_ms - back_ms;
    assert!((RETURN_MS..RETURN_MS + 25_000).contains(&after_ms), "{after_ms}");
}

#[test]
fn a_silent_relay_is_kept_until_another_stands() {
    let mut world = World::new(1, &[1, 2]);
    world.run(30_000);
    world.behave(B, Manner::Silent);
    world.behave(A, Manner::Silent);
    world.run(8_000);
    assert!(world.relays.all[A.0].is_up(), "there is no better one");
    world.behave(B, Manner::Well);
    world.run(40_000);
    assert_eq!(world.in_use(), [1]);
    assert!(!world.relays.all[A.0].is_up());
}

#[test]
fn silence_that_was_none_costs_nothing() {
    let mut world = World::new(1, &[1, 2]);
    world.run(30_000);
    world.relays.silent(A, true);
    world.decide();
    assert_eq!(world.dials.last(), Some(&(30_000, B)));
    world.relays.silent(A, false);
    world.decide();
    world.run(5_000);
    assert_eq!(world.in_use(), [0]);
    assert!(!world.relays.all[B.0].is_up());
}

#[test]
fn an_attempt_that_takes_long_has_the_next_beside_it() {
    let mut world = World::new(1, &[1, 2, 3]);
    world.manners[A.0] = Manner::Silent;
    world.manners[B.0] = Manner::Silent;
    world.run(2_500);
    let dials = [(0, A), (STAGGER_MS, B), (2 * STAGGER_MS, RelayKey(2))];
    assert_eq!(world.dials, dials);
    assert_eq!(world.in_use(), [2]);
}

#[test]
fn a_relay_that_goes_away_is_left_at_once_and_not_asked_before_its_time() {
    let mut world = World::new(1, &[1, 2]);
    world.run(30_000);
    world.relays.going(A, 60_000);
    world.decide();
    world.run(500);
    assert_eq!(world.in_use(), [1]);
    world.run(59_000);
    assert!(world.checks.iter().all(|(_, key)| *key != A), "{:?}", world.checks);
    world.run(40_000);
    assert_eq!(world.in_use(), [0]);
    // Alone it is stayed with until the end.
    let mut alone = World::new(1, &[1]);
    alone.run(1_000);
    alone.relays.going(A, 60_000);
    alone.decide();
    assert!(alone.relays.all[A.0].is_up());
    let ended = Ended { retry_after_ms: Some(60_000), ..Ended::transient("draining") };
    alone.relays.ended(alone.now_ms, A, ended, 0);
    alone.decide();
    alone.run(59_900);
    assert_eq!(alone.dials.len(), 1);
    alone.run(1_000);
    assert_eq!(alone.dials.len(), 2);
}

#[test]
fn who_refuses_for_good_is_not_asked_again_until_somebody_asks() {
    let mut world = World::new(1, &[1, 2]);
    world.run(1_000);
    world.relays.ended(1_000, A, Ended::closed(4403, "not you"), 0);
    world.decide();
    world.run(1_000_000);
    assert_eq!(world.in_use(), [1]);
    assert_eq!(world.dials.iter().filter(|(_, key)| *key == A).count(), 1);
    assert!(world.checks.iter().all(|(_, key)| *key != A));
    assert!(matches!(world.relays.standing(A), Standing::Stopped { .. }));
    world.relays.ask(A);
    world.decide();
    world.run(20_000);
    assert_eq!(world.in_use(), [0]);
}

#[test]
fn of_equals_one_that_is_clearly_faster_for_a_while_is_moved_to() {
    let mut world = World::new(1, &[1, 1]);
    world.trips_ms = vec![200, 40];
    world.run(20_000);
    assert_eq!(world.in_use(), [0], "not at the first look");
    world.run(40_000);
    assert_eq!(world.in_use(), [1]);
    // Only a little faster is not enough, ever.
    world.trips_ms = vec![32, 40];
    world.run(2_000_000);
    assert_eq!(world.in_use(), [1]);
}

#[test]
fn latencies_that_vary_have_nobody_move() {
    for seed in 1..20 {
        let mut world = World::new(1, &[1, 1, 1]);
        world.random = seed;
        world.trips_ms = vec![60; 3];
        world.noise = 600;
        world.run(3_600_000);
        assert_eq!(world.dials, [(0, A)], "seed {seed}");
    }
}

#[test]
fn a_preferred_relay_that_throws_us_out_is_returned_to_ever_later() {
    let mut world = World::new(1, &[1, 2]);
    world.behave(A, Manner::Throws);
    world.run(3_600_000);
    let dials = world.dials.iter().filter(|(_, key)| *key == A).count();
    assert!((3..30).contains(&dials), "{dials}");
    // Two handovers for each, at most.
    assert!(world.dials.len() <= 2 * dials + 1);
    assert_eq!(world.in_use(), [1]);
}

#[test]
fn two_at_once_are_two_and_a_third_takes_the_place_of_either() {
    let mut world = World::new(2, &[1, 2, 3]);
    world.run(1_000);
    assert_eq!(world.in_use(), [0, 1]);
    world.behave(A, Manner::Dead);
    world.run(200);
    assert_eq!(world.in_use(), [1, 2]);
    world.behave(A, Manner::Well);
    world.run(60_000);
    assert_eq!(world.in_use(), [0, 1]);
}

#[test]
fn nothing_is_dialled_after_closing() {
    let mut world = World::new(1, &[1, 2]);
    world.run(1_000);
    world.relays.close();
    world.behave(A, Manner::Dead);
    world.run(100_000);
    assert_eq!(world.dials, [(0, A)]);
    assert_eq!(world.relays.wakes_at(), None);
}

#[derive(Debug, Clone)]
struct Story {
    at_once: usize,
    priorities: Vec<u32>,
    /// After so many milliseconds a relay behaves so.
    turns: Vec<(u64, usize, u8)>,
    seed: u64,
}

impl Arbitrary for Story {
    fn arbitrary(g: &mut Gen) -> Self {
        let relays = 1 + usize::arbitrary(g) % 4;
        Self {
            at_once: 1 + usize::arbitrary(g) % 2,
            priorities: (0..relays).map(|_| u32::arbitrary(g) % 3).collect(),
            turns: (0..usize::arbitrary(g) % 30)
                .map(|_| (u64::arbitrary(g) % 20_000, usize::arbitrary(g), u8::arbitrary(g)))
                .collect(),
            seed: u64::arbitrary(g),
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let story = self.clone();
        Box::new(self.turns.shrink().map(move |turns| Self { turns, ..story.clone() }))
    }
}

/// Whatever happened: once the relays stay as they are for a while, as many as can be are in use,
/// the preferred ones among those that work, and nobody moves any more. The laws hold all along.
#[test]
fn whatever_happens_those_that_work_are_in_use_in_the_end() {
    fn property(story: Story) -> bool {
        let count = story.priorities.len();
        let mut world = World::new(story.at_once, &story.priorities);
        world.random = story.seed;
        for (wait_ms, relay, manner) in story.turns {
            world.run(wait_ms);
            let manner = match manner % 4 {
                0 | 1 => Manner::Well,
                2 => Manner::Dead,
                _ => Manner::Silent,
            };
            world.behave(RelayKey(relay % count), manner);
        }
        // An open breaker, a check that takes its time, and staying well for as long as it takes.
        world.run(2 * OPEN_MS + STAYED_MS + 16 * RETURN_MS);
        let mut working: Vec<_> =
            (0..count).filter(|at| world.manners[*at] == Manner::Well).collect();
        working.sort_by_key(|at| story.priorities[*at]);
        let expected = working.len().min(story.at_once);
        let mut preferred: Vec<u32> =
            working[..expected].iter().map(|at| story.priorities[*at]).collect();
        let mut in_use: Vec<u32> =
            world.in_use().into_iter().map(|at| story.priorities[at]).collect();
        preferred.sort_unstable();
        in_use.sort_unstable();
        let dials = world.dials.len();
        let is_settled = working.is_empty() || {
            world.run(60_000);
            let alive = |key: &RelayKey| world.manners[key.0] == Manner::Well;
            world.dials[dials..].iter().filter(|(_, key)| alive(key)).count() == 0
        };
        preferred == in_use && is_settled
    }
    QuickCheck::new().tests(300).quickcheck(property as fn(Story) -> bool);
}
