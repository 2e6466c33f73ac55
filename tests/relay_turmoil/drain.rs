//! The end of a relay while its clients write.

use std::{collections::BTreeSet, time::Duration};

use concord_protocol::CloseCode;

use crate::{
    log::{Log, converge},
    world::{Home, World, ms, secs},
};

/// What a relay that goes asks its clients to wait (`GO_AWAY_RETRY_MS`).
const RETRY_AFTER: Duration = secs(1);
/// What comes on top at the first attempt: the first wait of the backoff.
const FIRST_WAIT: Duration = ms(500);

#[test]
fn a_relay_that_drains_loses_nothing_and_is_given_the_time_that_it_asked_for() {
    let mut world = World::new(5, |_| {});
    world.start_relay();
    let homes: Vec<Home> = ["alice", "bob", "carol"].map(|name| world.peer(name)).into();
    world.until("all online", secs(5), || homes.iter().all(Home::is_online));
    let mut logs = vec![Log::create(&mut world, &homes[0])];
    for home in &homes[1..] {
        let log = Log::find(&mut world, home, &logs[0]);
        logs.push(log);
    }
    let mut acknowledged: BTreeSet<String> = BTreeSet::new();
    let mut write_and_look = |world: &mut World, logs: &mut Vec<Log>, pause: u64| {
        logs.iter_mut().for_each(Log::write);
        world.pass(ms(pause));
        for log in logs.iter().filter(|log| log.document.confirmed()) {
            acknowledged.extend(log.set());
        }
    };
    for round in 0..20 {
        // Pauses let some be acknowledged.
        write_and_look(&mut world, &mut logs, if round % 2 == 0 { 30 } else { 300 });
    }

    // They write on through all of it.
    let mut ending = world.shut_down_relay();
    let begun = world.now();
    while ending.poll().is_none() {
        write_and_look(&mut world, &mut logs, 30);
        assert!(world.now() - begun < secs(10), "a relay ends within 10 s");
    }
    let ended = world.now();
    // Whoever waits without having been asked to dials in half a second.
    for home in &homes {
        assert!(!home.is_online());
        let reason = home.offline().unwrap();
        assert!(reason.contains(&CloseCode::Draining.code().to_string()), "{reason}");
    }
    world.kill_relay();
    for _ in 0..10 {
        write_and_look(&mut world, &mut logs, 30);
    }
    assert!(acknowledged.len() >= 30, "{} words were acknowledged", acknowledged.len());

    // What was acknowledged comes from the store alone.
    for home in &homes {
        world.sim.partition("relay", home.name.as_str());
    }
    world.start_relay();
    let reader = world.peer("reader");
    let mut copy = Log::find_stored(&mut world, &reader, &logs[0]);
    let stored = copy.set();
    assert!(acknowledged.is_subset(&stored), "{:?} are lost", &acknowledged - &stored);

    world.pass(RETRY_AFTER + FIRST_WAIT);
    for home in &homes {
        let again = home.net.dialled().into_iter().find(|at| *at > begun).unwrap();
        let waited = again - begun;
        assert!(waited >= RETRY_AFTER, "{} was back after {waited:?}", home.name);
        assert!(again - ended <= RETRY_AFTER + FIRST_WAIT, "{}: {again:?}", home.name);
        world.sim.repair("relay", home.name.as_str());
    }
    world.until("all are back", secs(31), || homes.iter().all(Home::is_online));
    let mut logs: Vec<&mut Log> = logs.iter_mut().chain([&mut copy]).collect();
    converge(&mut world, &mut logs, secs(5));
}
