//! Connections that are dead on both sides, and nobody is told.

use std::time::Duration;

use concord_protocol::CloseCode;

use crate::{
    log::{Log, converge},
    world::{Home, World, secs},
};

/// Without a frame for so long, either side takes the other for dead (DESIGN).
const DEAD: Duration = secs(60);
/// A peer looks at every ping only.
const PING: Duration = secs(15);

struct Scene {
    world: World,
    alice: Home,
    bob: Home,
    hers: Log,
    his: Log,
}

fn scene(seed: u64) -> Scene {
    let mut world = World::new(seed, |_| {});
    world.start_relay();
    let (alice, bob) = (world.peer("alice"), world.peer("bob"));
    world.until("both online", secs(5), || alice.is_online() && bob.is_online());
    let mut hers = Log::create(&mut world, &alice);
    let mut his = Log::find(&mut world, &bob, &hers);
    hers.write();
    his.write();
    // Long enough for some pings.
    world.pass(secs(50));
    converge(&mut world, &mut [&mut hers, &mut his], secs(1));
    Scene { world, alice, bob, hers, his }
}

impl Scene {
    /// Both sides write into the dead connection, and notice in time that it is dead.
    fn notice(&mut self) {
        let Self { world, alice, bob, hers, his } = self;
        let cut = world.now();
        for _ in 0..5 {
            hers.write();
            his.write();
            world.pass(secs(2));
        }
        assert!(alice.is_online(), "nothing is noticed within 10 s");
        let relay_dead = |world: &mut World| world.metrics().closed(CloseCode::Dead.code());
        assert_eq!(relay_dead(world), 0);
        world.until("alice notices", DEAD + PING, || !alice.is_online());
        assert!(world.now() - cut >= DEAD - PING, "after {:?}", world.now() - cut);
        let left = (cut + DEAD + secs(3)).saturating_sub(world.now());
        world.pass(left);
        assert_eq!(relay_dead(world), 1, "the relay notices, and only alice is dead");
        assert!(bob.is_online());
        hers.write();
        his.write();
        world.pass(secs(30));
        assert!(!alice.is_online());
    }

    /// The network is whole again: all that was written meanwhile arrives.
    fn heal(&mut self, within: Duration) {
        let Self { world, alice, hers, his, .. } = self;
        world.until("alice is back", within, || alice.is_online());
        converge(world, &mut [hers, his], secs(3));
        hers.write();
        his.write();
        converge(world, &mut [hers, his], secs(1));
        // Nothing of the dead connections is left.
        world.pass(secs(20));
        let metrics = world.metrics();
        assert_eq!(metrics.get("concord_connections"), 2);
        assert_eq!(metrics.get("concord_queue_bytes"), 0);
        assert_eq!(hers.words().len(), 16);
    }
}

#[test]
fn packets_that_are_lost_are_noticed_and_their_content_sent_again() {
    let mut scene = scene(6);
    scene.world.sim.partition("alice", "relay");
    scene.notice();
    scene.world.sim.repair("alice", "relay");
    // The longest wait of the backoff.
    scene.heal(secs(31));
}

#[test]
fn packets_that_come_much_too_late_do_no_harm() {
    let mut scene = scene(7);
    scene.world.sim.hold("alice", "relay");
    scene.notice();
    // What both sides wrote into the dead connection arrives now.
    scene.world.sim.release("alice", "relay");
    // A dial that hangs is given up after 10 s, and then the longest wait comes.
    scene.heal(secs(41));
}
