//! Networks that go away in the middle of a large document.

use crate::{
    log::{Log, converge, noise},
    world::{Home, World, secs},
};

/// Changes of the document, and incompressible bytes in each.
const CHANGES: u32 = 75;
const BYTES: u32 = 20_000;
const TOTAL: u64 = CHANGES as u64 * BYTES as u64;
/// Cuts on the way up, and again on the way down.
const CUTS: u64 = 4;

/// Cuts the network whenever so many more bytes have gone over it, until both sides have noticed.
fn cut_often(world: &mut World, home: &Home, carried: impl Fn(&Home) -> u64) {
    for cut in 0..CUTS {
        let from = carried(home);
        world.until("some of it has gone over", secs(40), || carried(home) > from + TOTAL / 10);
        // Lost, or as good as lost.
        match cut % 2 {
            0 => world.sim.partition("relay", home.name.as_str()),
            _ => world.sim.hold("relay", home.name.as_str()),
        }
        world.until("it is noticed", secs(77), || !home.is_online());
        world.sim.release("relay", home.name.as_str());
    }
}

#[test]
fn a_large_document_gets_through_a_network_that_keeps_breaking() {
    let mut world = World::with_buffers(12, 8, |_| {});
    let alice = world.peer("alice");
    let mut hers = Log::create(&mut world, &alice);
    for n in 0..CHANGES {
        hers.write_with(&noise(n, BYTES));
        world.step();
    }
    world.start_relay();
    cut_often(&mut world, &alice, |home| home.net.written());
    world.until("the relay has all of it", secs(41), || hers.document.confirmed());
    let sent = alice.net.written();
    assert!(sent < TOTAL * 2, "{sent} bytes for {TOTAL}");

    let bob = world.peer("bob");
    let (peer, id) = (bob.peer.clone(), hers.document.id().to_string());
    let finding = world.start("bob", async move {
        peer.find_within(&id, secs(1_000)).await.unwrap();
    });
    cut_often(&mut world, &bob, |home| home.net.read());
    world.finish(finding, secs(41));
    let mut his = Log::find_stored(&mut world, &bob, &hers);
    converge(&mut world, &mut [&mut hers, &mut his], secs(41));
    let read = bob.net.read();
    assert!(read < TOTAL * 2, "{read} bytes for {TOTAL}");
    assert_eq!(his.words().len(), CHANGES as usize);
    // And it is quiet afterwards: pings only.
    let before = (alice.net.written(), bob.net.read());
    world.pass(secs(10));
    let after = (alice.net.written(), bob.net.read());
    assert!(after.0 - before.0 < 1_000 && after.1 - before.1 < 1_000, "{before:?} {after:?}");
}
