//! More documents than a connection may have, in virtual time: what is written into any of them
//! reaches everybody who opens it, though most of them have to wait for room.

use std::collections::BTreeSet;

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::peer::simulation::DocumentState;
use concord_protocol::{DocumentId, Message};

use crate::world::{Settings, World};

const DOCUMENTS: u64 = 24;
/// So many of them a connection may have.
const AT_ONCE: usize = 10;

fn document(number: u64) -> DocumentId {
    let number = u8::try_from(number).unwrap_or(u8::MAX);
    DocumentId::from_bytes(&[number; 16])
}

/// Runs of two who write, each into what they have open, and shut it; with what each document must
/// have in the end.
struct Day {
    world: World,
    open: [BTreeSet<DocumentId>; 2],
    written: Vec<(DocumentId, String)>,
}

impl Day {
    fn new(seed: u64) -> Self {
        let settings = Settings { documents: Some(AT_ONCE), ..Settings::default() };
        let world = World::with(2, seed, settings);
        Self { world, open: Default::default(), written: Vec::new() }
    }

    fn at(&mut self, document: DocumentId) {
        self.world.document = document;
    }

    fn is_open(&self, home: usize) -> bool {
        self.open[home].contains(&self.world.document)
    }

    fn open(&mut self, home: usize) {
        self.world.open(home);
        self.open[home].insert(self.world.document.clone());
    }

    fn shut(&mut self, home: usize) {
        self.world.shut(home);
        self.open[home].remove(&self.world.document);
    }

    fn write(&mut self, home: usize) {
        if !self.is_open(home) || self.world.state(home) != DocumentState::Ready {
            return;
        }
        let key = format!("{home}-{}", self.written.len());
        self.world.edit(home, |tx| Ok(tx.put(ROOT, &key, 1)?)).unwrap();
        self.written.push((self.world.document.clone(), key));
    }

    fn step(&mut self) {
        for home in 0..2 {
            let number = self.world.rng.below(DOCUMENTS);
            self.at(document(number));
            match self.world.rng.below(4) {
                // Few at once: all that are open have a place.
                0 if !self.is_open(home) && self.open[home].len() < AT_ONCE / 2 => self.open(home),
                1 if self.is_open(home) => self.shut(home),
                _ => self.write(home),
            }
        }
        let ms = self.world.rng.below(300);
        self.world.pass(ms);
        match self.world.rng.below(30) {
            0 => self.world.cut(0, None),
            1 => self.world.cut(1, Some(4503)),
            // What is not on its disk is lost; here all is.
            2 => {
                self.world.pass(1_000);
                self.world.crash(1);
                self.open[1].clear();
            }
            _ => {}
        }
    }

    fn shut_all(&mut self) {
        for home in 0..2 {
            for document in self.open[home].clone() {
                self.at(document);
                self.shut(home);
            }
        }
    }

    fn has(&self, home: usize, key: &str) -> bool {
        let has = |doc: &automerge::Automerge| doc.get(ROOT, key).unwrap().is_some();
        self.world.homes[home].peer.read(&self.world.document, has).unwrap()
    }
}

fn a_day(seed: u64) -> Day {
    let mut day = Day::new(seed);
    for number in 0..DOCUMENTS {
        let home = usize::try_from(number % 2).unwrap();
        day.at(document(number));
        day.world.create(home);
        day.open[home].insert(document(number));
        day.world.pass(20);
        day.write(home);
        day.world.pass(100);
        day.shut(home);
    }
    for _ in 0..200 {
        day.step();
    }
    day.shut_all();
    day.world.pass(120_000);
    day
}

#[test]
fn all_that_is_written_is_with_all_who_open_it_though_few_have_a_place_at_once() {
    let (mut written, mut left, mut renewed) = (0, 0, 0);
    for seed in 0..20 {
        let mut day = a_day(seed);
        for home in 0..2 {
            let outbox = day.world.homes[home].peer.outbox();
            assert_eq!(outbox, Some(Vec::new()), "seed {seed}: {:#?}", day.world.tail());
        }
        written += day.written.len();
        for number in 0..DOCUMENTS {
            day.at(document(number));
            (0..2).for_each(|home| day.open(home));
            day.world.pass(20_000);
            let written = day.written.iter().filter(|(of, _)| *of == document(number));
            for (_, key) in written {
                let has = [0, 1].map(|home| day.has(home, key));
                assert_eq!(has, [true; 2], "seed {seed}: {key} of {number}");
            }
            assert!(day.world.confirmed(0) && day.world.confirmed(1), "seed {seed}: {number}");
            assert!(day.world.content(0) == day.world.content(1), "seed {seed}: {number}");
            (0..2).for_each(|home| day.shut(home));
        }
        let is_leave = |(_, sent): &&(usize, Message)| matches!(sent, Message::Unsubscribe { .. });
        left += day.world.sent.iter().filter(is_leave).count();
        renewed += day.world.log.iter().filter(|line| line.contains("closes: renewed")).count();
    }
    assert!(written > 1_000 && left > 100 && renewed > 0, "{written}, {left}, {renewed}");
}
