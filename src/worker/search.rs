//! Which change ends processes: found from outside, with a process for each try.

use bytes::Bytes;

use super::{
    WorkerJob, WorkerLimits,
    child::{Death, Ended},
    materialise::blame,
    prefix::PrefixSearch,
};
use crate::replica::JobError;

/// Processes that may die in the search for one change: enough for a million changes.
const TRIES_MAX: u32 = 24;

/// Does jobs in processes.
pub(super) trait Attempt {
    /// Does a job once.
    fn attempt(&self, job: WorkerJob) -> impl Future<Output = Result<Ended, JobError>> + Send;
}

/// Names the first change of `incoming` that ends the process, known to happen with all of them.
pub(super) async fn search(
    base: &[Bytes],
    incoming: &[Bytes],
    mut reason: String,
    limits: &WorkerLimits,
    processes: &impl Attempt,
) -> JobError {
    let mut search = PrefixSearch::new(incoming.len());
    for _ in 0..TRIES_MAX {
        let Some(length) = search.next() else {
            break;
        };
        let ended = processes.attempt(WorkerJob::Check {
            base: base.to_vec(),
            incoming: incoming[..length].to_vec(),
        });
        match ended.await {
            Ok(Ended::Answered(Ok(_))) => search.tell(length, false),
            Ok(Ended::Died(Death { over_limit: false, reason: said, .. })) => {
                reason = said;
                search.tell(length, true);
            }
            // It breaks without ending the process: the worker knows more than we do.
            Ok(Ended::Answered(Err(error))) | Err(error) => return error,
            // Nobody is blamed for what a limit ended.
            Ok(Ended::OverLimit(said) | Ended::Died(Death { reason: said, .. })) => {
                return JobError::OverLimit(said);
            }
            Ok(Ended::NotStarted(said)) => return JobError::Unavailable(said),
        }
    }
    if search.next().is_some() {
        return JobError::Base(reason);
    }
    blame(search.culprit().map(|place| &incoming[place]), reason, limits)
}

#[cfg(test)]
mod tests {
    use automerge::{AutoCommit, ROOT, transaction::Transactable as _};
    use concord_protocol::ChangeHash;

    use super::*;
    use crate::replica::JobOutput;

    /// Processes that end in this way from `fatal` changes on.
    struct Fatal {
        fatal: usize,
        ended: fn() -> Ended,
    }

    impl Attempt for Fatal {
        async fn attempt(&self, job: WorkerJob) -> Result<Ended, JobError> {
            match job {
                WorkerJob::Check { incoming, .. } if incoming.len() < self.fatal => {
                    Ok(Ended::Answered(Ok(JobOutput::Checked)))
                }
                _ => Ok((self.ended)()),
            }
        }
    }

    /// Twenty changes, with their hashes.
    fn changes() -> (Vec<ChangeHash>, Vec<Bytes>) {
        let mut doc = AutoCommit::new();
        for value in 0..20 {
            doc.put(ROOT, "a", value).unwrap();
            doc.commit();
        }
        (doc.get_changes(&[]).iter())
            .map(|change| {
                let bytes = Bytes::copy_from_slice(change.raw_bytes());
                (ChangeHash(change.hash().0), bytes)
            })
            .unzip()
    }

    async fn searched(incoming: &[Bytes], fatal: usize, ended: fn() -> Ended) -> JobError {
        let limits = WorkerLimits::default();
        let processes = Fatal { fatal, ended };
        let reason = "overflowed its stack".to_owned();
        search(&[], incoming, reason, &limits, &processes).await
    }

    fn died(over_limit: bool) -> Ended {
        Ended::Died(Death {
            base_opened: true,
            over_limit,
            reason: "overflowed its stack".to_owned(),
        })
    }

    #[tokio::test]
    async fn the_change_that_ends_processes_is_named() {
        let (hashes, incoming) = changes();
        for fatal in 1..=incoming.len() {
            let error = searched(&incoming, fatal, || died(false)).await;
            let reason = "overflowed its stack".to_owned();
            let hash = hashes[fatal - 1];
            assert_eq!(error, JobError::Breaks { hash, reason });
        }
    }

    #[tokio::test]
    async fn a_base_that_ends_processes_blames_no_change() {
        let error = searched(&changes().1, 0, || died(false)).await;
        assert!(matches!(error, JobError::Base(_)), "{error:?}");
    }

    #[tokio::test]
    async fn limits_and_failed_starts_blame_nobody() {
        let error = searched(&changes().1, 7, || died(true)).await;
        assert!(matches!(error, JobError::OverLimit(_)), "{error:?}");
        let error = searched(&changes().1, 7, || Ended::OverLimit(String::new())).await;
        assert!(matches!(error, JobError::OverLimit(_)), "{error:?}");
        let error = searched(&changes().1, 7, || Ended::NotStarted(String::new())).await;
        assert!(matches!(error, JobError::Unavailable(_)), "{error:?}");
    }
}
