//! Jobs that were done: nodes that have the same ask for the same.

use bytes::Bytes;
use concord::{
    replica::{JobError, JobOutput},
    worker::WorkerJob,
};

use super::{Library, fingerprint};
use crate::plan::Profile;

/// What the outcome of a job follows from: its kind and 128 bits.
pub(super) type JobKey = (u8, u64, u64);

/// What a job gave.
pub(super) type Done = Result<JobOutput, JobError>;

/// Results of jobs that are kept.
const JOBS_KEPT_MAX: usize = 512;

/// A job, byte by byte.
fn key_of_bytes(job: &WorkerJob) -> JobKey {
    let (kind, parts): (u8, Vec<&[u8]>) = match job {
        WorkerJob::Build { base, incoming, explode_max } => {
            let kind = u8::from(*explode_max > 0);
            let base = base.iter().map(AsRef::as_ref);
            (
                kind,
                base.chain([&b"incoming"[..]]).chain(incoming.iter().map(AsRef::as_ref)).collect(),
            )
        }
        WorkerJob::Extract { snapshot, hashes } => {
            (2, [snapshot.as_ref()].into_iter().chain(hashes.iter().map(|h| &h.0[..])).collect())
        }
        WorkerJob::Check { base, incoming } => {
            let base = base.iter().map(AsRef::as_ref);
            (3, base.chain([&b"incoming"[..]]).chain(incoming.iter().map(AsRef::as_ref)).collect())
        }
        WorkerJob::Review { base, asked } => {
            (6, base.iter().chain([asked]).map(AsRef::as_ref).collect())
        }
    };
    let (mut first, mut second) = (0_u64, 1_u64);
    for part in parts {
        let print = fingerprint(part);
        first = (first.rotate_left(9) ^ print).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        second = second.wrapping_mul(0xBF58_476D_1CE4_E5B9).wrapping_add(print ^ (print >> 7));
    }
    (kind, first, second)
}

impl Library {
    /// Has `materialise` do a job, unless the same was done in this world lately: what it gives
    /// follows from what it is given, and nodes that have the same ask for the same.
    ///
    /// # Errors
    /// As `materialise`.
    pub(crate) fn once(
        &self,
        job: &WorkerJob,
        profile: Profile,
        materialise: impl FnOnce(&WorkerJob) -> Result<JobOutput, JobError>,
    ) -> Result<JobOutput, JobError> {
        let by_changes = self.key_of_changes(job, profile);
        if let Some(known) = by_changes.and_then(|key| self.done.borrow().get(&key).cloned()) {
            return known;
        }
        let by_bytes = key_of_bytes(job);
        if let Some(known) = self.done.borrow().get(&by_bytes) {
            return known.clone();
        }
        let done = materialise(job);
        let mut kept = self.done.borrow_mut();
        if kept.len() >= JOBS_KEPT_MAX {
            kept.clear();
        }
        // Why it fails may be in how the bytes are laid out.
        let by_changes = by_changes.filter(|_| done.is_ok());
        kept.insert(by_changes.unwrap_or(by_bytes), done.clone());
        done
    }

    /// What the outcome of a job follows from if it goes well, where that is which changes it is
    /// given: in which chunks, and in which order, makes no difference then.
    fn key_of_changes(&self, job: &WorkerJob, profile: Profile) -> Option<JobKey> {
        let sum = |chunks: &[Bytes]| {
            let mut sum = 0_u64;
            for chunk in chunks {
                sum = sum.wrapping_add(self.members(chunk, profile).ok()?.key);
            }
            Some(sum)
        };
        match job {
            WorkerJob::Build { base, incoming, explode_max: 0 } if incoming.is_empty() => {
                Some((4, sum(base)?, 0))
            }
            WorkerJob::Check { base, incoming } => {
                Some((5, sum(base)?.wrapping_add(sum(incoming)?), 0))
            }
            _ => None,
        }
    }
}
