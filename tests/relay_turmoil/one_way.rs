//! Networks that carry packets one way only.

use concord_protocol::CloseCode;

use crate::{
    log::{Log, converge},
    world::{World, secs},
};

#[test]
fn a_peer_that_hears_nothing_does_not_take_its_own_words_for_answers() {
    let mut world = World::new(8, |_| {});
    world.start_relay();
    let (alice, bob) = (world.peer("alice"), world.peer("bob"));
    world.until("both online", secs(5), || alice.is_online() && bob.is_online());
    let mut hers = Log::create(&mut world, &alice);
    let mut his = Log::find(&mut world, &bob, &hers);

    world.sim.partition_oneway("relay", "alice");
    hers.write();
    his.write();
    world.until("hers arrive", secs(1), || his.words().len() == 2);
    assert_eq!(hers.words().len(), 1);
    assert!(!hers.document.confirmed(), "nobody has said so");
    world.until("alice notices", secs(76), || !alice.is_online());
    for _ in 0..10 {
        hers.write();
        his.write();
        world.pass(secs(10));
        assert!(!alice.is_online(), "a relay that is not heard is not there");
    }
    // Her attempts reach the relay, which waits for none of them for ever.
    let connections = world.metrics().get("concord_connections");
    assert!(connections <= 3, "{connections} connections");

    world.sim.repair_oneway("relay", "alice");
    world.until("alice is back", secs(41), || alice.is_online());
    converge(&mut world, &mut [&mut hers, &mut his], secs(3));
    world.pass(secs(13));
    assert_eq!(world.metrics().get("concord_connections"), 2);
}

#[test]
fn a_peer_that_is_not_heard_is_told_so_and_comes_back() {
    let mut world = World::new(9, |_| {});
    world.start_relay();
    let (alice, bob) = (world.peer("alice"), world.peer("bob"));
    world.until("both online", secs(5), || alice.is_online() && bob.is_online());
    let mut hers = Log::create(&mut world, &alice);
    let mut his = Log::find(&mut world, &bob, &hers);

    world.sim.partition_oneway("alice", "relay");
    hers.write();
    his.write();
    world.until("his arrive", secs(1), || hers.words().len() == 2);
    assert_eq!(his.words().len(), 1);
    world.until("alice is told", secs(61), || !alice.is_online());
    assert_eq!(world.metrics().closed(CloseCode::Dead.code()), 1);
    for _ in 0..10 {
        hers.write();
        his.write();
        world.pass(secs(5));
    }
    assert_eq!(his.words().len(), 11);

    world.sim.repair_oneway("alice", "relay");
    world.until("alice is back", secs(31), || alice.is_online());
    converge(&mut world, &mut [&mut hers, &mut his], secs(3));
}
