use std::sync::Arc;

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use concord_protocol::{Limits, guard};
use tokio::sync::mpsc;

use super::*;
use crate::peer::home::System;

fn nobody() -> Home {
    Home::new(&mpsc::unbounded_channel().0, Arc::new(System))
}

fn held() -> Held {
    Held::created(DocumentId::from_bytes(&[7; 16]), nobody())
}

fn edit(held: &Held, value: i64) -> ChangeHash {
    let mut ready = held.ready().unwrap();
    let hash = ready.doc().transact(|tx| tx.put(ROOT, "n", value)).unwrap().hash.unwrap();
    ChangeHash(hash.0)
}

/// All of it, after an edit.
fn whole(held: &Held) -> Incoming {
    edit(held, 1);
    Incoming::Snapshot(held.ready().unwrap().doc().save().into())
}

/// Names what is stored, and loads it if it is to be.
fn load(held: &Held, chunks: Vec<Incoming>) {
    held.name(chunks);
    held.load();
}

#[test]
fn confirmed_is_what_a_relay_has_and_nothing_less() {
    let held = held();
    let first = edit(&held, 1);
    assert!(!held.confirmed());
    let has = |of, means, heads| held.relay_has(ConnectionId(of), means, heads);
    has(1, Acknowledged::Durable, vec![first]);
    assert!(held.confirmed());
    let second = edit(&held, 2);
    assert!(!held.confirmed());
    has(1, Acknowledged::Applied, vec![second]);
    assert_eq!(held.acknowledged(), Some(Acknowledged::Applied));
    has(2, Acknowledged::Durable, vec![first]);
    assert_eq!(held.acknowledged(), Some(Acknowledged::Applied), "one relay is enough");
    has(2, Acknowledged::Durable, vec![second]);
    assert_eq!(held.acknowledged(), Some(Acknowledged::Durable), "the most that one says");
    has(1, Acknowledged::Applied, vec![second, ChangeHash([9; 32])]);
    has(2, Acknowledged::Durable, vec![second, ChangeHash([9; 32])]);
    assert!(!held.confirmed(), "relays have something that we do not");
}

#[test]
fn what_is_taken_out_is_neither_shown_nor_mixed_with_what_comes_until_it_is_made_anew() {
    let source = held();
    let first = whole(&source);
    let before = source.ready().unwrap().doc().get_heads();
    edit(&source, 2);
    let second: Vec<Incoming> = source
        .ready()
        .unwrap()
        .doc()
        .get_changes(&before)
        .iter()
        .map(|change| Incoming::Change(change.raw_bytes().to_vec().into()))
        .collect();
    let held = Held::new(DocumentId::from_bytes(&[7; 16]), nobody());
    load(&held, vec![first.clone()]);
    assert!(!held.take().unwrap().is_empty());
    assert!(held.take().is_none());
    held.put_in(second);
    held.take_in();
    assert!(held.ready().is_none(), "of what is missing a part is not shown");
    load(&held, vec![first]);
    let shown = held.ready().unwrap().doc().get(ROOT, "n").unwrap().unwrap().0.as_i64();
    assert_eq!(shown, Some(2));

    held.take().unwrap();
    held.start_over();
    assert!(held.ready().unwrap().doc().is_empty());
}

#[test]
fn what_comes_while_loading_is_taken_in_after_it() {
    let source = held();
    edit(&source, 1);
    let chunks: Vec<_> = source
        .ready()
        .unwrap()
        .doc()
        .get_changes(&[])
        .iter()
        .map(|change| Incoming::Change(change.raw_bytes().to_vec().into()))
        .collect();
    let target = Held::new(source.id.clone(), nobody());
    assert!(target.put_in(chunks.clone()));
    assert!(!target.put_in(chunks), "one task is enough");
    target.take_in();
    assert!(target.ready().is_none());
    load(&target, Vec::new());
    assert_eq!(*target.phase().borrow(), Phase::Ready);
}

#[test]
fn what_came_since_is_there_however_often_what_is_stored_is_named() {
    let source = held();
    let stored = vec![whole(&source)];
    let heads = source.ready().unwrap().doc().get_heads();
    let news = edit(&source, 2);
    let news = {
        let mut source = source.ready().unwrap();
        let change = source.doc().get_change_by_hash(&automerge::ChangeHash(news.0)).unwrap();
        Incoming::Change(change.raw_bytes().to_vec().into())
    };
    let held = Held::new(source.id.clone(), nobody());
    assert!(held.name(stored.clone()));
    held.reset();
    held.load();
    assert!(held.is_loading(), "what was named before is not all that there is, or too much");
    assert!(held.name(stored.clone()) && held.name(stored.clone()));
    held.put_in([news]);
    held.load();
    held.load();
    assert_eq!(held.ready().unwrap().doc().get_heads(), source.ready().unwrap().doc().get_heads());

    // One that was made while another was named.
    let earlier = locked(&held.content).naming;
    held.reset();
    held.name(stored);
    held.loaded(Automerge::new(), earlier);
    assert!(held.is_loading());
    held.load();
    assert_eq!(held.ready().unwrap().doc().get_heads(), heads);
}

#[test]
fn a_document_that_keeps_breaking_is_given_up() {
    let held = held();
    held.reset();
    let mut events = held.events();
    for _ in 0..=RELOADS_MAX {
        assert_eq!(held.phase().borrow().reason(), None);
        load(&held, vec![Incoming::Snapshot(bytes::Bytes::from_static(b"broken"))]);
    }
    assert!(matches!(*held.phase().borrow(), Phase::Broken(_)));
    assert!(matches!(events.try_recv(), Ok(DocumentEvent::Quarantined { .. })));
    assert!(held.ready().is_none());
}

#[test]
fn a_document_that_was_given_up_is_revived_but_not_one_whose_disk_failed() {
    let held = held();
    let chunks = vec![whole(&held)];
    for _ in 0..=RELOADS_MAX {
        held.broken("whatever");
    }
    assert_eq!(held.phase().borrow().reason(), Some("whatever"));
    held.revive();
    load(&held, chunks.clone());
    assert!(held.ready().is_some());
    held.fail("the disk");
    held.revive();
    load(&held, chunks);
    assert!(held.ready().is_none());
    assert_eq!(held.phase().borrow().reason(), Some("the disk"));
}

#[test]
fn what_was_blamed_for_a_change_that_is_withheld_is_shown_again() {
    let held = held();
    edit(&held, 1);
    edit(&held, 2);
    let changes = content::all_changes(held.ready().unwrap().doc()).unwrap();
    let blamed = changes.last().unwrap();
    let header = guard::check_change(blamed, &Limits::default()).unwrap();
    let hash = header.hash;
    let shown = || held.ready().unwrap().doc().get_heads().contains(&automerge::ChangeHash(hash.0));
    let load = || load(&held, changes.iter().cloned().map(Incoming::Change).collect());
    assert!(locked(&held.content).left_out.add(header));
    held.reset();
    load();
    assert!(!shown(), "it breaks with something else that is there");
    held.revive();
    load();
    assert!(shown());
}

#[test]
fn what_breaks_a_document_is_left_out_however_often_it_comes() {
    const POISON: &[u8] = include_bytes!("../../../tests/peer_hostile/poison.change");
    let poison = Incoming::Change(bytes::Bytes::from_static(POISON));
    let held = held();
    let chunks = [whole(&held)];
    for n in 0..2 * RELOADS_MAX {
        held.put_in([poison.clone()]);
        held.take_in();
        if held.is_loading() {
            load(&held, chunks.iter().cloned().chain([poison.clone()]).collect());
        }
        edit(&held, 2 + i64::from(n));
    }
}
