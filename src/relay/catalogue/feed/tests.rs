use std::collections::BTreeMap;

use concord_protocol::ChangeHash;
use quickcheck::{Arbitrary, Gen, quickcheck};

use super::*;
use crate::{
    relay::catalogue::{http, row::recall},
    replica::{Kind, StoredDocument},
};

const DOCUMENTS: u8 = 5;

fn id(n: u8) -> DocumentId {
    DocumentId::from_bytes(&[n + 1; 16])
}

fn fresh(run: u64) -> Feed {
    let mut feed = Feed::new(run);
    feed.recalled(Recalled::default());
    feed
}

fn type_name(is_task: bool) -> &'static str {
    if is_task { "task" } else { "note" }
}

fn look(feed: &mut Feed, n: u8, of: &str, is_deleted: bool) -> bool {
    let is_news = feed.looking(&id(n), of, is_deleted).is_some();
    if is_news {
        feed.looked_at(&id(n), of, is_deleted);
    }
    is_news
}

fn change(feed: &mut Feed, n: u8) {
    feed.writing(&id(n), None);
    feed.written(&id(n), News { heads: 7, ..News::default() });
}

/// What happens to a relay.
#[derive(Debug, Clone, Copy)]
enum Happens {
    /// More of a document is given to the store.
    Change(u8),
    /// The relay hears of the oldest write that it has not heard of.
    Heard,
    /// Its type is found out.
    Look(u8, bool),
    Checkpoint(u8),
    /// A part of what was given to the store is on disk, and the relay is gone. It starts again.
    Crash(u8),
    /// Somebody asks for a page.
    Follow(u8),
}

impl Arbitrary for Happens {
    fn arbitrary(g: &mut Gen) -> Self {
        let n = u8::arbitrary(g);
        match u8::arbitrary(g) % 16 {
            0..=4 => Self::Change(n % DOCUMENTS),
            5..=8 => Self::Heard,
            9 => Self::Look(n % DOCUMENTS, bool::arbitrary(g)),
            10 | 11 => Self::Checkpoint(n % 4),
            12 => Self::Crash(n),
            _ => Self::Follow(n),
        }
    }
}

/// One write, as the store was given it.
#[derive(Debug, Clone)]
enum Write {
    Rows(Vec<RowWrite>),
    Change(u8),
    /// Behind this the mark for a look is on disk.
    Looked(u8, bool),
}

/// A relay whose documents say how often they changed, its disk, and somebody who follows it.
struct World {
    feed: Feed,
    run: u64,
    disk: Vec<Write>,
    /// Of these the relay has heard.
    heard: usize,
    cursor: Option<Cursor>,
    /// How often a document had changed when it was told of last.
    seen: BTreeMap<DocumentId, usize>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            feed: Feed::new(1),
            run: 1,
            disk: Vec::new(),
            heard: 0,
            cursor: None,
            seen: BTreeMap::new(),
        };
        world.start();
        world
    }

    fn give(&mut self, rows: impl IntoIterator<Item = RowWrite>) {
        self.disk.push(Write::Rows(rows.into_iter().collect()));
    }

    fn changes(&self, n: u8, writes: usize) -> usize {
        let is_it = |write: &&Write| matches!(write, Write::Change(document) if *document == n);
        self.disk[..writes].iter().filter(is_it).count()
    }

    fn start(&mut self) {
        let mut stored = StoredDocument::default();
        for row in self.disk.iter().flat_map(|write| match write {
            Write::Rows(rows) => rows.clone(),
            Write::Change(_) | Write::Looked(..) => Vec::new(),
        }) {
            match row {
                RowWrite::Put(key, bytes) if key.kind == Kind::Meta => stored.meta = Some(bytes),
                RowWrite::Put(key, bytes) => {
                    stored.changes.retain(|(known, _)| known.0 != key.id);
                    stored.changes.push((ChangeHash(key.id), bytes));
                }
                other => panic!("the catalogue removes nothing: {other:?}"),
            }
        }
        self.heard = self.disk.len();
        self.feed = Feed::new(self.run);
        let root = self.feed.recalled(recall(stored));
        self.give(root);
        let there: Vec<_> = (0..DOCUMENTS).filter(|n| self.changes(*n, self.heard) > 0).collect();
        if !self.feed.is_complete() {
            self.feed.stored(&there.into_iter().map(id).collect::<Vec<_>>());
            let rows: Vec<_> = self.feed.checkpoint(100).into_iter().map(|(_, row)| row).collect();
            self.give(rows);
            let root = self.feed.complete();
            self.give(root);
        }
    }

    fn happens(&mut self, what: Happens) {
        match what {
            Happens::Change(n) => {
                let mark = self.feed.writing(&id(n), None);
                self.give(mark);
                self.disk.push(Write::Change(n));
            }
            Happens::Heard => {
                while let Some(write) = self.disk.get(self.heard) {
                    self.heard += 1;
                    match *write {
                        Write::Change(n) => return self.feed.written(&id(n), News::default()),
                        Write::Looked(n, is_task) => {
                            return self.feed.looked_at(&id(n), type_name(is_task), false);
                        }
                        Write::Rows(_) => {}
                    }
                }
            }
            Happens::Look(n, is_task) => {
                if self.changes(n, self.heard) > 0
                    && let Some(mark) = self.feed.looking(&id(n), type_name(is_task), false)
                {
                    self.give([mark]);
                    self.disk.push(Write::Looked(n, is_task));
                }
            }
            Happens::Checkpoint(max) => {
                let rows = self.feed.checkpoint(usize::from(max));
                self.give(rows.into_iter().map(|(_, row)| row));
            }
            Happens::Crash(n) => {
                // What the relay heard of is on disk, and a part of what follows.
                let more = self.disk.len() - self.heard;
                self.disk.truncate(self.heard + usize::from(n) % (more + 1));
                self.run += 1;
                self.start();
            }
            Happens::Follow(limit) => {
                self.follow(usize::from(limit % 3) + 1);
            }
        }
    }

    fn follow(&mut self, limit: usize) -> bool {
        let page = self.feed.list(None, self.cursor, limit);
        self.cursor = Some(page.cursor);
        for listed in page.documents {
            let n = (0..DOCUMENTS).find(|n| id(*n) == listed.document).unwrap();
            self.seen.insert(listed.document, self.changes(n, self.heard));
        }
        page.has_more
    }
}

quickcheck! {
    /// Whatever happens in which order, who follows has seen every document as it is.
    fn nothing_that_changed_is_missed(story: Vec<Happens>) -> bool {
        let mut world = World::new();
        for what in story {
            world.happens(what);
        }
        // All is on disk and heard of, and followed to the end.
        while world.heard < world.disk.len() {
            world.happens(Happens::Heard);
        }
        while world.follow(2) {}
        (0..DOCUMENTS).all(|n| {
            let changes = world.changes(n, world.heard);
            changes == world.seen.get(&id(n)).copied().unwrap_or_default()
        })
    }
}

/// A number that was given for a look was lost in a crash, and the one before it had been passed by.
#[test]
fn what_was_looked_at_before_a_crash_is_told_of_after_it() {
    use Happens::{Change, Checkpoint, Crash, Follow, Heard, Look};
    let mut world = World::new();
    for what in [
        Change(3),
        Change(1),
        Heard,
        Heard,
        Checkpoint(3),
        Look(3, true),
        Heard,
        Follow(0),
        Crash(0),
        Follow(2),
        Follow(2),
    ] {
        world.happens(what);
    }
    assert_eq!(world.seen.len(), 2);
}

#[test]
fn who_is_up_to_date_hears_only_of_what_changes() {
    let mut feed = fresh(1);
    change(&mut feed, 0);
    change(&mut feed, 1);
    let all = feed.list(None, None, 10);
    assert_eq!((all.documents.len(), all.has_more, all.reset, all.total), (2, false, false, 2));
    assert!(feed.list(None, Some(all.cursor), 10).documents.is_empty());
    change(&mut feed, 0);
    let news = feed.list(None, Some(all.cursor), 10);
    assert_eq!(news.documents.iter().map(|it| &it.document).collect::<Vec<_>>(), [&id(0)]);
}

#[test]
fn what_is_of_a_type_only_now_is_told_to_those_who_follow_the_type() {
    let mut feed = fresh(1);
    change(&mut feed, 0);
    let before = feed.list(Some("task"), None, 10);
    assert!(before.documents.is_empty());
    assert!(look(&mut feed, 0, "task", false));
    assert!(!look(&mut feed, 0, "task", false), "that is known");
    let after = feed.list(Some("task"), Some(before.cursor), 10);
    assert_eq!(after.documents.len(), 1);
    assert_eq!(after.documents[0].heads, 7, "it has what it had");
    assert!(look(&mut feed, 0, "task", true));
    let deleted = feed.list(Some("task"), Some(after.cursor), 10);
    assert_eq!(deleted.documents[0].standing, Standing::Deleted);
}

#[test]
fn a_mark_is_written_once_until_its_number_is() {
    let mut feed = fresh(1);
    assert!(feed.writing(&id(0), Some("task")).is_some());
    assert!(feed.writing(&id(0), None).is_none(), "one is on its way");
    feed.written(&id(0), News::default());
    assert!(feed.checkpoint(10).is_empty(), "more of it is on its way");
    feed.written(&id(0), News::default());
    assert_eq!(feed.list(Some("task"), None, 10).documents.len(), 1);
    assert_eq!(feed.checkpoint(10).len(), 1);
    assert!(feed.checkpoint(10).is_empty());
    assert!(feed.writing(&id(0), None).is_some(), "its row is a number again");
}

#[test]
fn cursors_of_another_time_are_told_to_begin_anew() {
    let mut feed = fresh(1);
    change(&mut feed, 0);
    let cursor = feed.list(None, None, 10).cursor;
    let runs = feed.runs.clone();
    let again = |run, runs| {
        let mut feed = Feed::new(run);
        feed.recalled(Recalled { rows: Vec::new(), runs, is_complete: true });
        feed
    };
    let mut next = again(2, runs.clone());
    assert!(!next.list(None, Some(cursor), 10).reset, "of the run before");
    change(&mut next, 1);
    let later = next.list(None, None, 10).cursor;
    // The directory is as it was before the second run: its numbers are given anew.
    let mut restored = again(3, runs);
    change(&mut restored, 2);
    change(&mut restored, 3);
    let page = restored.list(None, Some(later), 10);
    assert!(page.reset && page.documents.len() == 2);
    assert!(!restored.list(None, Some(page.cursor), 10).reset);
    // The catalogue is lost.
    assert!(again(4, Vec::new()).list(None, Some(cursor), 10).reset);
    // Beyond what was given.
    let beyond = Cursor { number: cursor.number + 1, ..cursor };
    assert!(feed.list(None, Some(beyond), 10).reset);
}

#[test]
fn what_came_before_the_disk_was_read_is_told_and_kept_apart() {
    let mut feed = fresh(1);
    change(&mut feed, 0);
    let rows = feed.checkpoint(10);
    assert_eq!(rows.len(), 1);
    let mut next = Feed::new(2);
    assert!(next.writing(&id(1), Some("task")).is_some());
    next.written(&id(1), News::default());
    assert!(!next.is_ready() && next.checkpoint(10).is_empty());
    let row = Row { number: 5, is_mark: false, ..Row::new(&id(0), "note") };
    next.recalled(Recalled { rows: vec![row], runs: feed.runs.clone(), is_complete: true });
    let page = next.list(None, None, 10);
    let names: Vec<_> = page.documents.iter().map(|it| it.type_name.as_str()).collect();
    assert_eq!(names, ["note", "task"]);
    assert!(page.is_complete);
}

#[test]
fn more_numbers_are_written_before_those_that_may_be_given_end() {
    let mut feed = fresh(1);
    assert!(feed.raised().is_none());
    feed.next += CEILING_STEP / 2 + 10;
    assert!(feed.raised().is_some());
    assert!(feed.raised().is_none());
}

/// So many documents, with names in no order.
fn many(count: u32) -> Feed {
    let mut feed = fresh(1);
    for n in 0..count {
        let name = crate::digest::digest([n.to_be_bytes()]);
        let document = DocumentId::from_bytes(&name);
        feed.written(&document, News { type_name: Some("task".to_owned()), ..News::default() });
        if n % 1_000 == 999 {
            feed.checkpoint(usize::MAX);
        }
    }
    feed
}

/// Run alone: `cargo test --release --lib -- --ignored --nocapture catalogue::feed`.
#[test]
#[ignore = "measures what a document takes in memory, and how long listing takes"]
fn what_a_hundred_thousand_take() {
    const COUNT: u32 = 100_000;
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
    };
    let before = resident();
    let feed = many(COUNT);
    let bytes = (resident() - before) / COUNT as usize;
    let start = std::time::Instant::now();
    let (mut cursor, mut has_more, mut said) = (None, true, 0);
    while has_more {
        let page = feed.list(Some("task"), cursor, 1_000);
        (cursor, has_more) = (Some(page.cursor), page.has_more);
        said += http::page(&page).to_string().len();
    }
    println!("{bytes} bytes each; {} KB of pages in {:?}", said / 1_000, start.elapsed());
    assert!(bytes < 200, "{bytes}");
}

#[test]
fn all_of_many_are_listed_in_pages() {
    let feed = many(20_000);
    let (mut cursor, mut listed, mut pages) = (None, 0, 0);
    loop {
        let page = feed.list(Some("task"), cursor, 1_000);
        listed += page.documents.len();
        pages += 1;
        cursor = Some(page.cursor);
        if !page.has_more {
            break;
        }
    }
    assert_eq!((listed, pages), (20_000, 20));
    assert_eq!(feed.list(Some("note"), None, 1_000).documents.len(), 0);
}
