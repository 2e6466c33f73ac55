//! What was acknowledged is there after a power loss, and after `kill -9`.
//!
//! A writer process is stopped in mid-work and what a disk would hold at that moment is opened
//! by another process. `kill -9` alone shows little: the page cache survives it. Where we are
//! root and have loop devices, the disk is an ext4 image: the file system's page cache is not in
//! it. Elsewhere it is a copy of the files made after each fsync and before its acknowledgement.
//! That this can fail is shown too: a store that skips its fsync must lose data.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod child;
mod disk;
mod full;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout},
};

use child::Work;
use concord::store::Engine;
use disk::Disk;

/// Value sizes, and after how many acknowledged writes the power goes: values in one piece, in
/// two, in many. Large ones are what sled itself does not sync.
const TRIALS: [(usize, [usize; 3]); 4] = [
    (120, [20, 1_000, 4_000]),
    (4_096, [20, 300, 1_500]),
    (65_536, [10, 100, 200]),
    (300_000, [5, 20, 45]),
];

/// What `tests/store_power_loss` is when it is started by itself.
#[test]
fn child_process() {
    child::run_if_asked();
}

#[test]
fn sled_keeps_what_it_acknowledged_through_a_power_loss() {
    survives(Engine::Sled);
}

#[test]
fn fjall_keeps_what_it_acknowledged_through_a_power_loss() {
    survives(Engine::Fjall);
}

#[test]
fn sled_without_our_fsync_is_seen_to_lose() {
    loses_without_fsync(Engine::Sled);
}

#[test]
fn fjall_without_our_fsync_is_seen_to_lose() {
    loses_without_fsync(Engine::Fjall);
}

#[test]
fn sled_keeps_what_it_acknowledged_through_kill() {
    survives_kill(Engine::Sled);
}

#[test]
fn fjall_keeps_what_it_acknowledged_through_kill() {
    survives_kill(Engine::Fjall);
}

#[tokio::test]
async fn sled_on_a_full_disk_refuses_and_goes_on() {
    full::refuses_and_goes_on(Engine::Sled).await;
}

#[tokio::test]
async fn fjall_on_a_full_disk_refuses_and_goes_on() {
    full::refuses_and_goes_on(Engine::Fjall).await;
}

fn survives(engine: Engine) {
    for (size, moments) in TRIALS {
        for stop_after in moments.into_iter().flat_map(|at| [at, at + 3]) {
            let outcome = power_loss(engine, size, stop_after, true);
            assert_eq!(outcome, Ok(()), "{engine}, {size} bytes, after {stop_after} writes");
        }
    }
}

fn loses_without_fsync(engine: Engine) {
    const TRIES: usize = 4;
    let lost = (0..TRIES).find_map(|_| power_loss(engine, 120, 200, false).err());
    println!("{engine} without fsync: {lost:?}");
    assert!(lost.is_some(), "{TRIES} power losses without fsync lost nothing: the test is blind");
}

/// One trial. `Err` says what was lost.
fn power_loss(engine: Engine, size: usize, stop_after: usize, sync: bool) -> Result<(), String> {
    let disk = Disk::new();
    let work = Work { engine, size, sync, root: disk.store(), copy_to: disk.copy_to() };
    let (mut writer, mut acks) = start(&work);
    read_acks(&mut acks, stop_after);
    writer.signal(rustix::process::Signal::STOP);
    let survived = disk.after_power_loss(&mut writer);
    // What the writer said before it stopped is all in the pipe.
    drop(writer);
    let acknowledged = stop_after + read_acks(&mut acks, usize::MAX);
    child::verify(&Work { root: survived.store(), ..work }, acknowledged)
}

fn survives_kill(engine: Engine) {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..10 {
        let size = TRIALS[round % TRIALS.len()].0;
        let root = dir.path().join(size.to_string());
        if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
        let work = Work { engine, size, sync: true, root, copy_to: None };
        let (writer, mut acks) = start(&work);
        let stop_after = 10 + 7 * round;
        read_acks(&mut acks, stop_after);
        drop(writer);
        let all = stop_after + read_acks(&mut acks, usize::MAX);
        assert_eq!(child::verify(&work, all), Ok(()), "{engine}, {size} bytes, round {round}");
        acknowledged += all;
    }
    println!("{engine}: 10 kills, {acknowledged} acknowledged writes, none lost");
}

/// A process that is killed when this goes.
struct Killed(Child);

impl Killed {
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until every thread of a process that was sent a stop is stopped.
    fn wait_stopped(&self) {
        let tasks = format!("/proc/{}/task", self.0.id());
        let stopped = |task: &Path| {
            let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with(['T', 't']))
        };
        while !fs::read_dir(&tasks).unwrap().all(|task| stopped(&task.unwrap().path())) {
            std::thread::yield_now();
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(work: &Work) -> (Killed, BufReader<ChildStdout>) {
    let mut child = work.spawn_writer();
    let acks = BufReader::new(child.stdout.take().unwrap());
    (Killed(child), acks)
}

/// Counts acknowledgements, which come in the order of the writes, up to a number or the end.
fn read_acks(from: &mut BufReader<ChildStdout>, most: usize) -> usize {
    let mut count = 0;
    let mut line = String::new();
    while count < most {
        line.clear();
        if from.read_line(&mut line).unwrap() == 0 {
            assert!(most == usize::MAX, "the writer ended after {count} of {most} writes");
            break;
        }
        assert!(!line.contains("panicked") && !line.contains("FAILED"), "the writer: {line}");
        count += usize::from(line == "acknowledged\n");
    }
    count
}
