//! `strict`: a materialiser applies changes before they are taken in. One job does for all that
//! came together, and what the graph alone can say no to, or has to keep waiting, takes none.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use concord_protocol::{ActorId, ChangeHash, RefuseCode, guard::ChangeHeader};

use super::{
    ChunkSource, ConnectionId, Counted, Job, JobError, JobOutput,
    admission::Verdict,
    core::{Core, Wake},
    document::{Document, Inbound},
    index::Missing,
    jobs::{Purpose, RETRY_MS, sources},
};

impl Document {
    /// Has changes materialised before they are taken in. Whether to go on with what came after.
    pub(super) fn check_first(
        &mut self,
        core: &mut Core,
        from: Option<ConnectionId>,
        mut changes: VecDeque<(ChangeHeader, Bytes)>,
    ) -> Result<bool, Missing> {
        let is_busy = self.jobs.running.is_some() || self.jobs.adopting.is_some();
        if is_busy || core.now.mono_ms < self.jobs.admit_not_before_ms {
            mark!(AdmissionWaited);
            self.put_back(Inbound::Changes { from, changes, checked: false });
            return Ok(false);
        }
        let mut batch = Batch::default();
        while let Some((header, bytes)) = changes.pop_front() {
            match self.judge(&header) {
                Err(missing) => {
                    changes.push_front((header, bytes));
                    let changes = batch.unjudged(changes);
                    self.put_back(Inbound::Changes { from, changes, checked: false });
                    return Err(missing);
                }
                Ok(Verdict::Known) => {
                    mark!(Duplicate);
                }
                // The next of the batch may depend on many heads and leave one.
                Ok(Verdict::Accept(_) | Verdict::Refuse(RefuseCode::Quota, _)) => {
                    batch.take(header, bytes);
                }
                Ok(Verdict::Orphan(missing)) => {
                    if missing.iter().all(|dep| batch.arriving.contains(dep)) {
                        batch.take(header, bytes);
                    } else {
                        core.count(Counted::Orphaned);
                        self.wait_for_deps(core, header, bytes, from, missing);
                    }
                }
                Ok(Verdict::Refuse(code, reason)) => {
                    self.refuse(core, from, header.hash, code, &reason);
                }
            }
        }
        let Batch { taken, later, .. } = batch;
        if !later.is_empty() {
            self.put_back(Inbound::Changes { from, changes: later, checked: false });
        }
        let Some(graph) = self.graph().filter(|_| !taken.is_empty()) else {
            return Ok(true);
        };
        let incoming = taken.iter().map(|(_, bytes)| ChunkSource::Inline(bytes.clone())).collect();
        let job = Job::Check { base: sources(graph, |_| true), incoming };
        self.start(core, Purpose::Admit { from, changes: taken }, job);
        Ok(false)
    }

    /// A materialiser has applied these, or says why it cannot.
    pub(super) fn admit_done(
        &mut self,
        core: &mut Core,
        from: Option<ConnectionId>,
        mut changes: VecDeque<(ChangeHeader, Bytes)>,
        result: Result<JobOutput, JobError>,
    ) {
        match result {
            Ok(_) => self.put_back(Inbound::Changes { from, changes, checked: true }),
            Err(JobError::Breaks { hash, reason }) => {
                changes.retain(|(header, _)| header.hash != hash);
                self.refuse(core, from, hash, RefuseCode::Unmaterialisable, &reason);
                self.put_back(Inbound::Changes { from, changes, checked: false });
            }
            Err(JobError::Unavailable(_) | JobError::Storage(_)) => {
                // Not its writer's fault: try again.
                mark!(AdmissionAgain);
                self.put_back(Inbound::Changes { from, changes, checked: false });
                if self.graph().is_some() {
                    self.jobs.admit_not_before_ms = core.now.mono_ms + RETRY_MS;
                    core.wake_at(self.jobs.admit_not_before_ms, &self.id, Wake::Check);
                }
            }
            Err(JobError::Base(_)) if !self.jobs.searched => {
                // Nor this: somebody else's change has to be found first.
                self.put_back(Inbound::Changes { from, changes, checked: false });
                self.search(core);
            }
            Err(error) => {
                for (header, _) in changes {
                    self.refuse(
                        core,
                        from,
                        header.hash,
                        RefuseCode::Unmaterialisable,
                        &error.to_string(),
                    );
                }
            }
        }
    }
}

/// Changes of one sender, as far as they were judged.
#[derive(Default)]
struct Batch {
    /// The hashes of `taken`.
    arriving: BTreeSet<ChangeHash>,
    /// Whose which changes `taken` are.
    numbers: BTreeSet<(ActorId, u32)>,
    /// For the materialiser. What they build on is here or among those before.
    taken: VecDeque<(ChangeHeader, Bytes)>,
    /// Of the same writer and number as one of `taken`: judged when that is in or refused, as a
    /// materialiser would name one such change only, and many of them would take as many jobs.
    later: VecDeque<(ChangeHeader, Bytes)>,
}

impl Batch {
    fn take(&mut self, header: ChangeHeader, bytes: Bytes) {
        if self.arriving.contains(&header.hash) {
            return;
        }
        if self.numbers.insert((header.actor.clone(), header.seq)) {
            self.arriving.insert(header.hash);
            self.taken.push_back((header, bytes));
        } else {
            self.later.push_back((header, bytes));
        }
    }

    /// All that was taken, and what was not judged, to be judged again.
    fn unjudged(
        self,
        mut rest: VecDeque<(ChangeHeader, Bytes)>,
    ) -> VecDeque<(ChangeHeader, Bytes)> {
        let mut all = self.taken;
        all.extend(self.later);
        all.append(&mut rest);
        all
    }
}
