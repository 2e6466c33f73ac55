//! Leases at a relay: what clocks have to do with it, and whose changes are taken while one is held.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use automerge::{AutoCommit, ROOT, transaction::Transactable as _};
use bytes::Bytes;
use concord::replica::{Config, ConnectionId, Event, PeerInfo, Replica};
use concord_protocol::{
    ChangeHash, Feature, Features, LeaseAction, LeaseRefusal, LeaseRequest, LeaseState, Message,
    PeerMetadata, RefuseCode, SessionInfo,
    limits::{LEASE_GRACE_MS, LEASE_MS},
};

use crate::replica_common::{World, WorldOptions, sync_message, writer::Writer};

const HOUR_MS: u64 = 3_600_000;

/// A relay that was started for the so many-th time, and which requires leases of documents that
/// begin with this.
fn relay(number: u64, leased_types: Vec<ChangeHash>) -> World {
    let options = WorldOptions { compact_changes: 10_000, ..WorldOptions::default() };
    let mut world = World::new(options);
    start(&mut world, number, leased_types);
    world
}

fn start(world: &mut World, number: u64, leased_types: Vec<ChangeHash>) {
    let features = Features::NONE.with(Feature::Leases);
    let metadata = PeerMetadata { features, ..PeerMetadata::default() };
    let config = Config::new("relay".parse().unwrap(), metadata);
    world.relay = Replica::new(Config { check_ms: 500, leased_types, ..config });
    world.handle(Event::Numbered(number));
}

/// A connection of a session of this name.
fn session(world: &mut World, name: &str, number: u64) -> ConnectionId {
    let connection = ConnectionId(2_000_000 + number);
    let user = Some(name.to_owned());
    let session = SessionInfo { session: name.parse().unwrap(), user, device: None };
    let metadata = PeerMetadata {
        features: Features::NONE.with(Feature::Leases),
        session: Some(session),
        ..PeerMetadata::default()
    };
    let peer = format!("peer-{name}").parse().unwrap();
    let info = PeerInfo { peer, metadata, concord: true, dialled: false };
    world.handle(Event::Connected(connection, info));
    connection
}

/// What a relay answers.
fn ask(world: &mut World, over: ConnectionId, action: LeaseAction, fence: u64) -> LeaseState {
    let request = LeaseRequest { id: 7, action, for_ms: 0, fence };
    let (sender, target) = ("x".parse().unwrap(), "relay".parse().unwrap());
    let document = world.document.clone();
    let message = Message::Lease { document, sender, target, request };
    world.handle(Event::Received(over, message));
    let states = states(world, over);
    states.into_iter().find(|state| state.id == Some(7)).unwrap()
}

/// What a connection was told of the lease.
fn states(world: &mut World, over: ConnectionId) -> Vec<LeaseState> {
    let state = |message| match message {
        Message::LeaseState { state, .. } => Some(state),
        _ => None,
    };
    world.taken(over).into_iter().filter_map(state).collect()
}

fn fence(state: &LeaseState) -> u64 {
    assert_eq!(state.why, None);
    state.holder.as_ref().unwrap().fence
}

fn said(world: &mut World, over: ConnectionId, head: ChangeHash, changes: Vec<Bytes>) {
    let document = world.document.clone();
    world.say(over, &document, &sync_message(vec![head], changes));
    world.finish_all();
}

/// The codes with which changes of this connection were refused.
fn refused(world: &mut World, over: ConnectionId) -> Vec<(ChangeHash, RefuseCode)> {
    let refused = |message| match message {
        Message::Ack { ack, .. } => ack.refused,
        _ => Vec::new(),
    };
    let all = world.taken(over).into_iter().flat_map(refused);
    all.map(|refused| (refused.hash.unwrap(), refused.code)).collect()
}

#[test]
fn a_clock_that_is_an_hour_off_is_of_no_consequence() {
    for (first, then) in [(HOUR_MS, 0), (0, HOUR_MS), (5 * HOUR_MS, 4 * HOUR_MS)] {
        let base = 1_700_000_000_000;
        let mut world = relay(1, Vec::new());
        let (ann, ben) = (session(&mut world, "ann", 1), session(&mut world, "ben", 2));
        world.now.wall_ms = base + first;
        let hers = fence(&ask(&mut world, ann, LeaseAction::Acquire, 0));
        // The clock jumps; her time is what it was.
        world.now.wall_ms = base + then;
        let refused = ask(&mut world, ben, LeaseAction::Acquire, 0);
        assert_eq!(refused.why, Some(LeaseRefusal::Held));
        assert_eq!(refused.holder.unwrap().left_ms, LEASE_MS);
        world.pass_time(u64::from(LEASE_MS) - 1);
        world.now.wall_ms = base;
        let refused = ask(&mut world, ben, LeaseAction::Acquire, 0);
        assert_eq!(refused.why, Some(LeaseRefusal::Held));
        world.pass_time(1);
        let his = fence(&ask(&mut world, ben, LeaseAction::Acquire, 0));
        assert!(his > hers);

        // It starts again, an hour earlier by the clock: fences go up all the same.
        world.now.wall_ms = base - HOUR_MS;
        start(&mut world, 2, Vec::new());
        let (ann, ben) = (session(&mut world, "ann", 3), session(&mut world, "ben", 4));
        let settling = ask(&mut world, ann, LeaseAction::TakeOver, 0);
        assert_eq!(settling.why, Some(LeaseRefusal::Settling));
        let again = fence(&ask(&mut world, ben, LeaseAction::Renew, his));
        assert!(again > his);
        world.pass_time(u64::from(LEASE_GRACE_MS));
        assert!(fence(&ask(&mut world, ann, LeaseAction::TakeOver, 0)) > again);
    }
}

#[test]
fn those_who_have_the_document_open_are_told_and_no_client_without_leases() {
    let mut world = relay(1, Vec::new());
    let (ann, ben) = (session(&mut world, "ann", 1), session(&mut world, "ben", 2));
    let plain = world.bare(1, PeerMetadata::default());
    let mut writer = Writer::new(1);
    let (head, change) = writer.put(1);
    said(&mut world, ben, head, vec![change]);
    said(&mut world, plain, head, vec![]);
    world.taken(ben);
    world.taken(plain);
    let hers = fence(&ask(&mut world, ann, LeaseAction::Acquire, 0));
    let told = states(&mut world, ben);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].id, told[0].holder.as_ref().unwrap().fence), (None, hers));
    // Who opens it later is told then.
    let carl = session(&mut world, "carl", 3);
    said(&mut world, carl, head, vec![]);
    assert_eq!(states(&mut world, carl).len(), 1);
    world.pass_time(u64::from(LEASE_MS));
    for told in [ann, ben, carl] {
        let holders: Vec<_> = states(&mut world, told).into_iter().map(|s| s.holder).collect();
        assert_eq!(holders, [None], "its time was up");
    }
    let of_concord = |message: &Message| matches!(message, Message::LeaseState { .. });
    assert!(!world.taken(plain).iter().any(of_concord));
    // Nor can one that does not say that it knows of leases have one.
    let request = LeaseRequest { id: 1, action: LeaseAction::Acquire, for_ms: 0, fence: 0 };
    let (sender, target) = ("x".parse().unwrap(), "relay".parse().unwrap());
    let document = world.document.clone();
    let message = Message::Lease { document, sender, target, request };
    world.handle(Event::Received(plain, message));
    assert!(ask(&mut world, ann, LeaseAction::Show, 0).holder.is_none());
}

#[test]
fn where_it_is_required_only_the_holder_writes() {
    for is_required in [true, false] {
        let mut genesis = Writer::new(1);
        let (begins, first) = genesis.put(0);
        let mut world = relay(1, if is_required { vec![begins] } else { Vec::new() });
        let (ann, ben) = (session(&mut world, "ann", 1), session(&mut world, "ben", 2));
        said(&mut world, ann, begins, vec![first]);
        fence(&ask(&mut world, ann, LeaseAction::Acquire, 0));
        let (hers, change) = genesis.put(1);
        said(&mut world, ann, hers, vec![change]);
        assert_eq!(refused(&mut world, ann), []);

        let (his, change) = genesis.put(2);
        said(&mut world, ben, his, vec![change.clone()]);
        let expected = if is_required { vec![(his, RefuseCode::Leased)] } else { Vec::new() };
        assert_eq!(refused(&mut world, ben), expected);

        // He takes over: what she wrote before she knew is taken, and then nothing more.
        let stolen = fence(&ask(&mut world, ben, LeaseAction::TakeOver, 0));
        said(&mut world, ben, his, vec![change]);
        assert_eq!(refused(&mut world, ben), [], "sent again, it is taken");
        let lost = states(&mut world, ann);
        assert_eq!(lost.last().unwrap().holder.as_ref().unwrap().fence, stolen);
        let (late, change) = genesis.put(3);
        said(&mut world, ann, late, vec![change]);
        assert_eq!(refused(&mut world, ann), []);
        ask(&mut world, ann, LeaseAction::Release, stolen - 1);
        let (later, change) = genesis.put(4);
        said(&mut world, ann, later, vec![change]);
        let expected = if is_required { vec![(later, RefuseCode::Leased)] } else { Vec::new() };
        assert_eq!(refused(&mut world, ann), expected);
    }
}

/// A client that knows nothing of leases is told in words, and asked for what it wrote when the
/// lease is over: it does not stay apart.
#[test]
fn a_plain_client_is_refused_and_asked_again_when_it_is_over() {
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "type", "page").unwrap();
    doc.commit();
    let begins = ChangeHash(doc.get_heads()[0].0);
    for v1_only in [true, false] {
        let mut world = relay(1, vec![begins]);
        world.add_client(doc.clone(), v1_only);
        world.add_client(AutoCommit::new(), v1_only);
        world.settle().unwrap();
        let ann = session(&mut world, "ann", 1);
        let hers = fence(&ask(&mut world, ann, LeaseAction::Acquire, 0));
        world.edit(0, |doc| {
            doc.put(ROOT, "title", "apart").unwrap();
            doc.commit();
        });
        assert!(world.settle().is_err(), "the relay has not taken it");
        let words = std::mem::take(&mut world.clients[0].errors).concat();
        assert!(words.contains("(leased)") && words.contains("ann holds the lease"), "{words}");
        world.pass_time(5_000);
        assert!(world.settle().is_err());
        ask(&mut world, ann, LeaseAction::Release, hers);
        world.settle().unwrap();
    }
}

/// A document that is uploaded whole is judged change by change, too.
#[test]
fn an_upload_does_not_get_around_it() {
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "type", "page").unwrap();
    doc.commit();
    let begins = ChangeHash(doc.get_heads()[0].0);
    let mut world = relay(1, vec![begins]);
    let (ann, ben) = (session(&mut world, "ann", 1), session(&mut world, "ben", 2));
    let first = Bytes::from(doc.get_changes(&[])[0].raw_bytes().to_vec());
    said(&mut world, ann, begins, vec![first]);
    fence(&ask(&mut world, ann, LeaseAction::Acquire, 0));
    for value in 0..300 {
        doc.put(ROOT, "title", value).unwrap();
        doc.commit();
    }
    let head = ChangeHash(doc.get_heads()[0].0);
    said(&mut world, ben, head, vec![doc.save().into()]);
    let refused = refused(&mut world, ben);
    assert_eq!(refused.len(), 300);
    assert!(refused.iter().all(|(_, code)| *code == RefuseCode::Leased));
    assert_eq!(
        world.rows().len(),
        1 + usize::from(
            world.rows().iter().any(|row| { row.kind == concord::replica::Kind::Meta })
        )
    );
}
