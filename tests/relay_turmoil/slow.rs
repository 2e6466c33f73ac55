//! Readers that do not read what they subscribed to, or hardly.

use std::time::Duration;

use concord_protocol::CloseCode;

use crate::{
    log::{Log, converge, noise},
    raw::Raw,
    world::{World, ms, secs},
};

/// Bytes queued for a reader at which the relay makes no more for it, and one message on top.
const QUEUE_BYTES: u64 = 1024 * 1024 + 64 * 1024;
/// Without any progress for so long, a reader is cut off: the relay's default.
const STALLED: Duration = secs(30);
/// Edits of so many bytes, which do not compress: more than is queued and on its way.
const EDITS: u32 = 45;
const EDIT_BYTES: u32 = 40_000;

#[test]
fn readers_that_stop_are_bounded_then_cut_off_and_nobody_else_notices() {
    let mut world = World::with_buffers(14, 8, |_| {});
    world.start_relay();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| world.peer(name));
    let all = [&alice, &bob, &carol];
    world.until("all online", secs(5), || all.iter().all(|home| home.is_online()));
    let mut hers = Log::create(&mut world, &alice);
    let mut his = Log::find(&mut world, &bob, &hers);
    let mut slow = Log::find(&mut world, &carol, &hers);
    world.host("stuck");
    let document = hers.document.id().clone();
    // Subscribes and never reads again.
    let _stuck = world.run("stuck", secs(1), async move {
        let mut client = Raw::join("stuck").await;
        client.request(&document).await;
        client
    });
    carol.net.stick(true);

    for edit in 0..EDITS {
        hers.write_with(&noise(edit, EDIT_BYTES));
        let words = edit as usize + 1;
        let took = world.until("it arrives", secs(1), || his.words().len() == words);
        assert!(took <= ms(200), "edit {edit} took {took:?} to the reader who reads");
        if edit % 10 == 9 {
            let queued = world.metrics().get("concord_queue_bytes");
            assert!(queued <= 2 * QUEUE_BYTES, "{queued} bytes queued after edit {edit}");
        }
    }
    let metrics = world.metrics();
    assert!(metrics.get("concord_queue_bytes") > QUEUE_BYTES, "both are full");
    assert_eq!(metrics.closed(CloseCode::Backpressure.code()), 0);

    // Nobody writes any more; the two are cut off all the same, and their ends waited for 2 s.
    world.pass(STALLED + secs(2));
    let metrics = world.metrics();
    assert_eq!(metrics.closed(CloseCode::Backpressure.code()), 2);
    assert_eq!(metrics.get("concord_queue_bytes"), 0);
    assert_eq!(metrics.get("concord_connections"), 2);
    assert!(alice.is_online() && bob.is_online());

    // The one that reads again hears that it was cut off, and catches up.
    let before = carol.net.dialled().len();
    carol.net.stick(false);
    world.until("carol dials", secs(1), || carol.net.dialled().len() > before);
    converge(&mut world, &mut [&mut hers, &mut his, &mut slow], secs(3));
}

#[test]
fn a_reader_that_reads_a_little_now_and_then_is_not_cut_off() {
    let mut world = World::with_buffers(15, 8, |_| {});
    world.start_relay();
    let (alice, bob) = (world.peer("alice"), world.peer("bob"));
    world.until("both online", secs(5), || alice.is_online() && bob.is_online());
    let mut hers = Log::create(&mut world, &alice);
    let mut his = Log::find(&mut world, &bob, &hers);
    bob.net.stick(true);
    for edit in 0..EDITS {
        hers.write_with(&noise(edit, EDIT_BYTES));
        world.pass(ms(100));
    }
    // Some packets, then nothing for most of the time that is allowed.
    let mut breaths = 0;
    while his.words().len() < EDITS as usize {
        world.pass(STALLED - secs(6));
        bob.net.stick(false);
        let from = bob.net.read();
        world.until("it reads", secs(1), || {
            bob.net.read() > from + 300_000 || his.words().len() == EDITS as usize
        });
        bob.net.stick(true);
        breaths += 1;
        assert!(breaths < 20, "it gets on");
    }
    assert!(breaths > 3, "{breaths}");
    bob.net.stick(false);
    converge(&mut world, &mut [&mut hers, &mut his], secs(1));
    assert_eq!(bob.net.dialled().len(), 1, "in one connection");
    assert_eq!(world.metrics().closed(CloseCode::Backpressure.code()), 0);
}
