//! The materialiser of the fast profile.

use std::{cmp::Reverse, collections::BinaryHeap, rc::Rc, sync::Arc};

use bytes::Bytes;
use concord::{
    replica::{
        JobError, JobOutput,
        index::{IndexEntry, SnapshotIndex},
    },
    worker::WorkerJob,
};
use concord_protocol::{ActorId, ChangeHash, Limits, guard};

use super::{ByHash, Change, Hashes, Library, chunk::close, fingerprint};

impl Library {
    /// Does what a materialiser does.
    ///
    /// # Errors
    /// As a materialiser.
    pub(crate) fn run(&self, job: &WorkerJob) -> Result<JobOutput, JobError> {
        match job {
            WorkerJob::Build { base, incoming, explode_max } => {
                let base = self.read_all(base).map_err(JobError::Base)?;
                let incoming = self.split(incoming).map_err(JobError::Incoming)?;
                for (changes, error) in
                    [(&base, JobError::Base as fn(String) -> _), (&incoming, JobError::Incoming)]
                {
                    if let Some(hash) = self.first_to_break(changes) {
                        return Err(error(broken_by(&hash)));
                    }
                }
                self.build(&base, &incoming, *explode_max)
            }
            WorkerJob::Extract { snapshot, hashes } => {
                let inside = self.read_all([snapshot]).map_err(JobError::Base)?;
                let inside: ByHash<ChangeHash, &Bytes> =
                    inside.iter().map(|change| (change.hash, &change.bytes)).collect();
                let found = hashes.iter().map(|hash| inside.get(hash).copied().cloned());
                let found: Option<Vec<Bytes>> = found.collect();
                found.map(JobOutput::Extracted).ok_or_else(|| JobError::Base("not in it".into()))
            }
            WorkerJob::Check { base, incoming } => {
                let base = self.read_all(base).map_err(JobError::Base)?;
                if let Some(hash) = self.first_to_break(&base) {
                    return Err(JobError::Base(broken_by(&hash)));
                }
                let incoming = self.read_all(incoming).map_err(JobError::Incoming)?;
                match self.first_to_break(&incoming) {
                    Some(hash) => Err(JobError::Breaks { hash, reason: broken_by(&hash) }),
                    None => Ok(JobOutput::Checked),
                }
            }
            // Replicas do not ask for it, and there are no operations to look at.
            WorkerJob::Review { .. } => Err(JobError::Unavailable("opaque documents".into())),
        }
    }

    /// Changes in runs of chunks, as peers send them.
    fn split(&self, runs: &[Bytes]) -> Result<Vec<Rc<Change>>, String> {
        let mut changes = Vec::new();
        for run in runs {
            let chunks = guard::split(run, &Limits::default()).map_err(|e| e.to_string())?;
            changes.extend(self.read_all(chunks.iter().map(|chunk| &chunk.bytes))?);
        }
        Ok(changes)
    }

    fn build(
        &self,
        base: &[Rc<Change>],
        incoming: &[Rc<Change>],
        explode_max: u32,
    ) -> Result<JobOutput, JobError> {
        let Some(all) = in_order(base.iter().chain(incoming)) else {
            let why = "a dependency is missing".to_owned();
            return Err(if incoming.is_empty() {
                JobError::Base(why)
            } else {
                JobError::Incoming(why)
            });
        };
        if explode_max > 0 && incoming.len() <= explode_max as usize {
            let ours: Hashes = base.iter().map(|change| change.hash).collect();
            let new = all.iter().filter(|change| !ours.contains(&change.hash));
            return Ok(JobOutput::Changes(new.map(|change| change.bytes.clone()).collect()));
        }
        let snapshot = close(&all);
        let index = index(&all, snapshot.len() as u64)?;
        self.snapshots.borrow_mut().insert(fingerprint(&snapshot), all.into());
        Ok(JobOutput::Built { snapshot, index: Arc::new(index) })
    }

    /// The first of some changes that breaks its document.
    fn first_to_break(&self, changes: &[Rc<Change>]) -> Option<ChangeHash> {
        changes.iter().map(|change| change.hash).find(|hash| self.breaks(hash))
    }
}

fn broken_by(change: &ChangeHash) -> String {
    format!("change {change} cannot be applied")
}

/// Each change once, after what it builds on, in an order that depends on the set alone; nothing if
/// something is missing that one of them builds on.
fn in_order<'a>(changes: impl Iterator<Item = &'a Rc<Change>>) -> Option<Vec<Rc<Change>>> {
    let mut positions: ByHash<ChangeHash, usize> = ByHash::default();
    let mut all: Vec<&Rc<Change>> = Vec::new();
    for change in changes {
        positions.entry(change.hash).or_insert_with(|| {
            all.push(change);
            all.len() - 1
        });
    }
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); all.len()];
    let mut missing: Vec<usize> = Vec::with_capacity(all.len());
    let mut ready = BinaryHeap::new();
    for (at, change) in all.iter().enumerate() {
        for dep in &change.deps {
            dependents[*positions.get(dep)?].push(at);
        }
        missing.push(change.deps.len());
        if change.deps.is_empty() {
            ready.push(Reverse((change.start_op, change.hash, at)));
        }
    }
    let mut ordered = Vec::with_capacity(all.len());
    while let Some(Reverse((_, _, at))) = ready.pop() {
        ordered.push(Rc::clone(all[at]));
        for dependent in &dependents[at] {
            missing[*dependent] -= 1;
            if missing[*dependent] == 0 {
                let change = all[*dependent];
                ready.push(Reverse((change.start_op, change.hash, *dependent)));
            }
        }
    }
    Some(ordered)
}

fn index(changes: &[Rc<Change>], snapshot_bytes: u64) -> Result<SnapshotIndex, JobError> {
    let mut actors: Vec<&ActorId> = changes.iter().map(|change| &change.actor).collect();
    actors.sort_unstable();
    actors.dedup();
    let actors: Vec<ActorId> = actors.into_iter().cloned().collect();
    let positions: ByHash<ChangeHash, u32> =
        (0..).zip(changes).map(|(at, change)| (change.hash, at)).collect();
    // All were collected above.
    let actor_of = |change: &Change| {
        let at = actors.binary_search(&change.actor);
        at.map_or(0, |at| u32::try_from(at).unwrap_or(u32::MAX))
    };
    let entries: Vec<IndexEntry> = changes
        .iter()
        .map(|change| IndexEntry {
            hash: change.hash.0,
            deps: change.deps.iter().filter_map(|dep| positions.get(dep).copied()).collect(),
            actor: actor_of(change),
            seq: change.seq,
            start_op: change.start_op,
            ops: change.ops,
            bytes: u32::try_from(change.bytes.len()).unwrap_or(u32::MAX),
            time: change.time,
        })
        .collect();
    let made = |change: &Rc<Change>| {
        let actor = actor_of(change);
        change.objects_made.clone().into_iter().map(move |counter| (counter, actor))
    };
    let objects = changes.iter().flat_map(made).collect();
    SnapshotIndex::build(&entries, &actors, objects, snapshot_bytes)
        .map_err(|error| JobError::Base(error.to_string()))
}

#[cfg(test)]
mod tests {
    use concord::worker::WorkerLimits;

    use super::*;
    use crate::opaque::{poison, write};

    #[test]
    fn poison_passes_the_guard_under_any_name_and_no_materialiser_applies_it() {
        let library = Library::default();
        let chunks = [poison(&[7; 16]), poison(&[8; 16])];
        let [one, two] = chunks.each_ref().map(|chunk| library.read(chunk).unwrap());
        assert_ne!(one.hash, two.hash);
        for (change, chunk) in [(&one, &chunks[0]), (&two, &chunks[1])] {
            let job = WorkerJob::Check { base: vec![], incoming: vec![chunk.clone()] };
            let real = concord::worker::materialise::run(&job, &WorkerLimits::default());
            let Err(JobError::Breaks { hash, .. }) = real else { panic!("{real:?}") };
            assert_eq!(hash, change.hash);
            // That of the opaque profile names it when it is told.
            assert!(matches!(library.run(&job), Ok(JobOutput::Checked)));
            library.spoil(hash);
            let told = library.run(&job);
            assert!(matches!(told, Err(JobError::Breaks { hash: named, .. }) if named == hash));
        }
    }

    #[test]
    fn a_snapshot_holds_its_changes_and_passes_the_guard() {
        let library = Library::default();
        let first = write(&[1; 16], 1, 1, 0, &[], 7);
        let first_hash = library.read(&first).unwrap().hash;
        let second = write(&[2; 16], 1, 2, 0, &[first_hash], 8);
        let job = WorkerJob::Build {
            base: vec![second.clone(), first.clone()],
            incoming: vec![],
            explode_max: 0,
        };
        let Ok(JobOutput::Built { snapshot, index }) = library.run(&job) else { panic!() };
        guard::check_document(&snapshot, &Limits::default()).unwrap();
        assert_eq!(index.root.changes, 2);
        let inside = library.read_all([&snapshot]).unwrap();
        assert_eq!(inside.iter().map(|c| c.bytes.clone()).collect::<Vec<_>>(), [first, second]);
        let lacks = WorkerJob::Build {
            base: vec![inside[1].bytes.clone()],
            incoming: vec![],
            explode_max: 0,
        };
        assert!(matches!(library.run(&lacks), Err(JobError::Base(_))));
    }
}
