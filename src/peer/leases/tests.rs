use std::ops::{Deref, DerefMut};

use concord_protocol::{Features, PeerMetadata};
use tokio::sync::mpsc;

use super::*;
use crate::peer::home::System;

fn us() -> SessionInfo {
    SessionInfo { session: "ours".parse().unwrap(), user: None, device: None }
}

fn other() -> SessionInfo {
    SessionInfo { session: "theirs".parse().unwrap(), user: Some("ben".to_owned()), device: None }
}

fn document() -> DocumentId {
    DocumentId::from_bytes(&[1; 16])
}

fn relay(features: Features) -> PeerInfo {
    let metadata = PeerMetadata { features, ..PeerMetadata::default() };
    PeerInfo { peer: "relay".parse().unwrap(), metadata, concord: true, dialled: true }
}

fn holder(who: SessionInfo, fence: u64, left_ms: u32) -> LeaseHolder {
    LeaseHolder { who, fence, left_ms }
}

const HERE: ConnectionId = ConnectionId(1);
const THERE: ConnectionId = ConnectionId(2);

/// The leases of a peer, and what its handles tell it.
struct Of {
    leases: Leases,
    commands: mpsc::UnboundedReceiver<Command>,
    _sender: mpsc::UnboundedSender<Command>,
}

impl Deref for Of {
    type Target = Leases;

    fn deref(&self) -> &Leases {
        &self.leases
    }
}

impl DerefMut for Of {
    fn deref_mut(&mut self) -> &mut Leases {
        &mut self.leases
    }
}

impl Of {
    /// Hears of handles that were dropped.
    fn hear(&mut self, now_ms: u64) {
        while let Ok(command) = self.commands.try_recv() {
            let Command::Unlease(document, holding) = command else { panic!("{command:?}") };
            self.leases.dropped(now_ms, &document, holding);
        }
    }
}

/// A peer that is connected to a relay.
fn online() -> Of {
    let (sender, commands) = mpsc::unbounded_channel();
    let leases = Leases::new(Some(us()), Home::new(&sender, Arc::new(System)));
    let mut leases = Of { leases, commands, _sender: sender };
    leases.connected(0, HERE, &relay(Features::NONE.with(Feature::Leases)));
    leases
}

/// The one thing that is said.
fn said(leases: &mut Of) -> Option<(ConnectionId, LeaseRequest)> {
    leases.hear(0);
    let (said, _) = leases.take_said();
    leases.tell_programs();
    assert!(said.len() <= 1, "{said:?}");
    said.into_iter().next().map(|(over, _, request)| (over, request))
}

fn answer(leases: &mut Of, now_ms: u64, holder: Option<LeaseHolder>, id: u32) {
    let state = LeaseState { id: Some(id), why: None, holder };
    leases.told(now_ms, HERE, &document(), state);
    leases.tell_programs();
}

/// Holds it from 0 for 30 s, fence 7.
fn held() -> (Of, Granted) {
    let mut leases = online();
    let (done, mut asked) = oneshot::channel();
    leases.ask(0, document(), LeaseAction::Acquire, 30_000, done);
    let (_, request) = said(&mut leases).unwrap();
    answer(&mut leases, 100, Some(holder(us(), 7, 30_000)), request.id);
    let answered = asked.try_recv().unwrap().unwrap();
    (leases, answered.granted.unwrap())
}

#[test]
fn it_counts_from_when_it_was_asked_for_and_no_longer_than_a_relay_waits_unheard() {
    let (mut leases, mut lease) = held();
    assert_eq!(leases.wakes_at(), Some(5_100), "it is asked again at a third of that");
    leases.time(5_100);
    let (over, request) = said(&mut leases).unwrap();
    assert_eq!((over, request.action, request.fence), (HERE, LeaseAction::Renew, 7));
    // No answer: it is asked again, and then its time is up by our clock.
    leases.time(14_999);
    assert_eq!(said(&mut leases).unwrap().1.action, LeaseAction::Renew);
    assert_eq!(*lease.standing.borrow_and_update(), LeaseStanding::Held);
    leases.time(15_000);
    assert_eq!(*lease.standing.borrow_and_update(), LeaseStanding::Lapsed);
    answer(&mut leases, 15_500, Some(holder(us(), 8, 30_000)), request.id);
    assert_eq!(*lease.standing.borrow_and_update(), LeaseStanding::Held);
    assert_eq!(leases.wakes_at(), Some(20_100), "granted from when it was asked for");
}

#[test]
fn an_answer_that_comes_too_late_makes_it_ours_no_more() {
    let (mut leases, mut lease) = held();
    leases.time(5_100);
    let (_, request) = said(&mut leases).unwrap();
    leases.time(15_000);
    assert_eq!(*lease.standing.borrow_and_update(), LeaseStanding::Lapsed);
    answer(&mut leases, 20_100, Some(holder(us(), 7, 30_000)), request.id);
    assert_eq!(*lease.standing.borrow_and_update(), LeaseStanding::Lapsed);
    leases.take_said();
    leases.time(25_100);
    let (_, request) = said(&mut leases).unwrap();
    assert_eq!(request.action, LeaseAction::Renew, "and is asked for");
    answer(&mut leases, 25_200, Some(holder(us(), 7, 30_000)), request.id);
    assert_eq!(*lease.standing.borrow_and_update(), LeaseStanding::Held);
}

#[test]
fn whoever_takes_over_is_known_and_the_relay_is_told_that_it_is() {
    let (mut leases, lease) = held();
    let state = LeaseState { holder: Some(holder(other(), 9, 20_000)), ..LeaseState::default() };
    leases.told(5_000, HERE, &document(), state);
    let (_, request) = said(&mut leases).unwrap();
    assert!(matches!(&*lease.standing.borrow(), LeaseStanding::Lost(by) if by.fence == 9));
    assert_eq!((request.action, request.fence), (LeaseAction::Release, 7));
    assert_eq!(leases.other(&document()).map(|holder| holder.fence), Some(9));
    drop(lease);
    assert_eq!(said(&mut leases), None, "there is nothing to give back");
    leases.time(24_999);
    assert!(leases.other(&document()).is_some());
    leases.time(25_000);
    assert!(leases.other(&document()).is_none(), "nothing is known any more");
}

#[test]
fn it_stays_ours_over_a_lost_connection_and_is_asked_for_at_once_over_the_next() {
    let (mut leases, lease) = held();
    leases.disconnected(1_000, HERE);
    assert_eq!((said(&mut leases), lease.standing.borrow().clone()), (None, LeaseStanding::Held));
    leases.connected(2_000, ConnectionId(3), &relay(Features::NONE));
    assert_eq!(said(&mut leases), None, "it knows nothing of leases");
    leases.connected(2_000, THERE, &relay(Features::NONE.with(Feature::Leases)));
    let (over, request) = said(&mut leases).unwrap();
    assert_eq!((over, request.action, request.fence), (THERE, LeaseAction::Renew, 7));
    // A relay that has just started may not know yet.
    let why = Some(LeaseRefusal::Settling);
    let state = LeaseState { id: Some(request.id), why, holder: None };
    leases.told(2_100, THERE, &document(), state);
    assert_eq!((said(&mut leases), leases.wakes_at()), (None, Some(2_100 + AGAIN_MS)));
    let standing = lease.standing.clone();
    drop(lease);
    assert_eq!(said(&mut leases).unwrap().1.action, LeaseAction::Release);
    assert_eq!(*standing.borrow(), LeaseStanding::Released);
}

#[test]
fn what_nobody_waits_for_any_more_is_given_back() {
    let mut leases = online();
    let (done, asked) = oneshot::channel();
    leases.ask(0, document(), LeaseAction::Acquire, 0, done);
    let (_, request) = said(&mut leases).unwrap();
    drop(asked);
    answer(&mut leases, 100, Some(holder(us(), 7, 30_000)), request.id);
    assert_eq!(said(&mut leases).unwrap().1.action, LeaseAction::Release);
    assert_eq!(leases.wakes_at(), None);

    // It stopped waiting when the answer was there already.
    let (done, asked) = oneshot::channel();
    leases.ask(200, document(), LeaseAction::Acquire, 0, done);
    let (_, request) = said(&mut leases).unwrap();
    answer(&mut leases, 300, Some(holder(us(), 8, 30_000)), request.id);
    assert_eq!(said(&mut leases), None);
    drop(asked);
    assert_eq!(said(&mut leases).unwrap().1.action, LeaseAction::Release);
    assert_eq!(leases.wakes_at(), None);

    let (done, mut asked) = oneshot::channel();
    leases.ask(0, document(), LeaseAction::Show, 0, done);
    leases.disconnected(10, HERE);
    assert_eq!(asked.try_recv().unwrap().unwrap_err(), LeaseError::Lost);
    let (done, mut asked) = oneshot::channel();
    leases.ask(0, document(), LeaseAction::Show, 0, done);
    assert_eq!(asked.try_recv().unwrap().unwrap_err(), LeaseError::Offline);
}
