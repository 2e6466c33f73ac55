//! Peers whose relay is not there, and all of them coming back at once.

use std::time::Duration;

use crate::{
    log::{Log, converge},
    world::{Home, URL, World, ms, secs},
};

/// The longest waits between attempts, one after the other (DESIGN: 0.5 s doubling to 30 s).
const CEILINGS: [u64; 7] = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000];

fn ceiling(failures: usize) -> Duration {
    ms(CEILINGS[failures.min(CEILINGS.len() - 1)])
}

/// Every wait is within the schedule, `attempt` being what an attempt itself takes.
fn assert_schedule(home: &Home, from: usize, attempt: Duration) {
    let dialled = home.net.dialled();
    for (failures, pair) in dialled[from..].windows(2).enumerate() {
        let gap = pair[1] - pair[0];
        let most = attempt + ceiling(failures) + ms(50);
        assert!(gap >= attempt && gap <= most, "attempt {failures}: {gap:?} of {most:?}");
    }
}

#[test]
fn a_relay_that_is_down_is_dialled_ever_less_often_and_found_when_it_is_up() {
    let mut world = World::new(2, |_| {});
    let home = world.peer("alice");
    let mut log = Log::create(&mut world, &home);
    for _ in 0..20 {
        log.write();
        world.pass(secs(6));
    }
    let attempts = home.net.dialled().len();
    // Without jitter it would be eight in these two minutes; forty would take a one in a million
    // run of short waits, thrice.
    assert!((8..40).contains(&attempts), "{attempts} attempts in two minutes");
    assert_schedule(&home, 0, Duration::ZERO);
    assert!(home.offline().is_none_or(|reason| reason.contains(URL)), "{:?}", home.offline());

    world.start_relay();
    world.until("online", secs(31), || home.is_online());
    converge(&mut world, &mut [&mut log], secs(1));

    // After ten seconds online it starts anew with the first wait.
    world.pass(secs(11));
    let before = home.net.dialled().len();
    world.kill_relay();
    world.start_relay();
    world.until("noticed", secs(1), || home.net.dialled().len() > before || !home.is_online());
    world.until("online again", ms(1_000), || home.is_online());
}

#[test]
fn a_network_that_swallows_everything_is_tried_one_dial_at_a_time() {
    let mut world = World::new(3, |_| {});
    world.start_relay();
    world.host("alice-to-be");
    world.sim.hold("relay", "alice-to-be");
    let home = world.peer_at("alice-to-be");
    world.pass(secs(120));
    // A dial is given up after 10 s.
    assert_schedule(&home, 0, secs(10));
    assert!(home.net.dialled().len() >= 4);
    assert!(home.offline().is_none_or(|reason| reason.contains("does not answer")));
    world.sim.release("relay", "alice-to-be");
    world.until("online", secs(41), || home.is_online());
    world.pass(secs(13));
    let metrics = world.metrics();
    assert_eq!(metrics.get("concord_connections"), 1, "of the late dials nothing is left");
}

#[test]
fn ten_peers_come_back_to_a_relay_that_restarts() {
    let mut world = World::new(4, |_| {});
    world.start_relay();
    let homes: Vec<Home> = (0..10).map(|n| world.peer(&format!("peer{n}"))).collect();
    world.until("all online", secs(5), || homes.iter().all(Home::is_online));
    let mut logs = vec![Log::create(&mut world, &homes[0])];
    for home in &homes[1..] {
        let log = Log::find(&mut world, home, &logs[0]);
        logs.push(log);
    }
    for round in 0..3 {
        let before: usize = homes.iter().map(|home| home.net.dialled().len()).sum();
        logs.iter_mut().for_each(Log::write);
        world.pass(ms(100 * round));
        world.kill_relay();
        logs.iter_mut().for_each(Log::write);
        world.pass(secs(3));
        logs.iter_mut().for_each(Log::write);
        world.start_relay();
        let all_online = || homes.iter().all(Home::is_online);
        let took = world.until("all are back", secs(31), all_online);
        let after: usize = homes.iter().map(|home| home.net.dialled().len()).sum();
        let attempts = after - before;
        assert!(attempts <= 10 * 12, "{attempts} attempts in {took:?} and 3 s");
        let mut logs: Vec<&mut Log> = logs.iter_mut().collect();
        converge(&mut world, &mut logs, secs(3));
    }
    assert_eq!(logs[0].words().len(), 90);
}
