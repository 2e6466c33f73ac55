//! A network that comes and goes while both sides write.

use crate::{
    log::{Log, converge},
    world::{World, ms, secs},
};

/// What the network does for a moment.
#[derive(Debug, Clone, Copy)]
enum Flap {
    /// Packets are late.
    Late,
    /// Packets are lost, both ways.
    Lost,
    /// Packets to the peer are lost.
    LostDown,
    /// Packets of the peer are lost.
    LostUp,
}

const FLAPS: [Flap; 5] = [Flap::Lost, Flap::Late, Flap::LostDown, Flap::Late, Flap::LostUp];

#[test]
fn fifty_short_partitions_lose_and_repeat_nothing() {
    // The relay notices within 2 s; a lost packet is never sent again here, unlike by real TCP.
    let mut world = World::new(13, |config| {
        config.ping_ms = 500;
        config.pong_timeout_ms = 2_000;
    });
    world.start_relay();
    let (alice, bob) = (world.peer("alice"), world.peer("bob"));
    world.until("both online", secs(5), || alice.is_online() && bob.is_online());
    let mut hers = Log::create(&mut world, &alice);
    let mut his = Log::find(&mut world, &bob, &hers);
    for (round, flap) in (0..50_u64).zip(FLAPS.into_iter().cycle()) {
        let name = if round % 3 == 0 { "bob" } else { "alice" };
        match flap {
            Flap::Late => world.sim.hold("relay", name),
            Flap::Lost => world.sim.partition("relay", name),
            Flap::LostDown => world.sim.partition_oneway("relay", name),
            Flap::LostUp => world.sim.partition_oneway(name, "relay"),
        }
        for _ in 0..3 {
            hers.write();
            his.write();
            world.pass(ms(20 + round * 7 % 130));
        }
        world.sim.release("relay", name);
        for _ in 0..=(round % 4) {
            hers.write();
            his.write();
            world.pass(ms(50 + round * 311 % 900));
        }
    }
    // What a peer does not hear any more, it notices after 75 s.
    let took = converge(&mut world, &mut [&mut hers, &mut his], secs(75 + 31));
    let words = hers.words().len() as u64;
    let metrics = world.metrics();
    // The list itself, and the document, are a change each.
    let accepted = metrics.get("concord_changes_accepted_total");
    assert_eq!(accepted, words + 2, "each was taken in once ({took:?})");
    let dialled = alice.net.dialled().len() + bob.net.dialled().len();
    assert!(dialled > 10, "{dialled} dials: some of it ended connections");
}
