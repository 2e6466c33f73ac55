//! A job, done here and now. Pure: bytes in, bytes out.
//!
//! Call it on a thread with a large stack ([`WorkerLimits::stack_bytes`]), and in a process of
//! its own where the bytes are a stranger's.

use std::{
    any::Any,
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use automerge::{Automerge, Change, ReadDoc as _};
use bytes::Bytes;
use concord_protocol::{ChangeHash, guard};

use super::{
    WorkerJob, WorkerLimits,
    document::{self, Fault},
    kept::Kept,
    prefix::PrefixSearch,
};
use crate::{
    replica::{JobError, JobOutput},
    review::desk::{self, Asked},
};

/// Bytes of a reason in words. Automerge's errors can quote their input.
const REASON_BYTES_MAX: usize = 400;

/// Up to how many changes of a snapshot are rebuilt one by one; beyond, all are, once.
const EXTRACT_SINGLY_MAX: usize = 4;

thread_local! {
    /// Where the last panic of this thread was, if the process notes panics.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does a job. A panic inside automerge becomes an error; a stack overflow does not.
///
/// # Errors
/// [`JobError`], by whose bytes are at fault.
pub fn run(job: &WorkerJob, limits: &WorkerLimits) -> Result<JobOutput, JobError> {
    run_noting(job, limits, &mut Kept::default(), || ())
}

/// As [`run`]; calls `base_opened` once what is ours is loaded and only what came from outside
/// is left to do. What is asked of documents again is answered of what was kept.
///
/// # Errors
/// As [`run`].
pub(super) fn run_noting(
    job: &WorkerJob,
    limits: &WorkerLimits,
    kept: &mut Kept,
    base_opened: impl FnOnce(),
) -> Result<JobOutput, JobError> {
    match job {
        WorkerJob::Build { base, incoming, explode_max } => {
            let new = Incoming { runs: incoming, explode_max: *explode_max };
            build(base, &new, limits, base_opened)
        }
        WorkerJob::Extract { snapshot, hashes } => extract(snapshot, hashes, limits),
        WorkerJob::Check { base, incoming } => check(base, incoming, limits, base_opened),
        WorkerJob::Review { base, asked } => review(base, asked, limits, kept),
    }
}

fn review(
    base: &[Bytes],
    asked: &Bytes,
    limits: &WorkerLimits,
    kept: &mut Kept,
) -> Result<JobOutput, JobError> {
    let asked: Asked =
        serde_json::from_slice(asked).map_err(|error| JobError::Base(error.to_string()))?;
    let was_kept = kept.holds(&asked.document);
    let mut attempt = || {
        caught(|| {
            let mut open = kept.open(&asked.document, base, &limits.own_changes())?;
            let before = open.doc.get_heads();
            let answer = desk::answer(&mut open.doc, &mut open.follower, &asked);
            let answer = serde_json::to_vec(&answer.map_err(Fault::content)?);
            open.wrote(&before);
            kept.keep(open);
            answer.map_err(Fault::content)
        })
    };
    // What is wrong may be wrong with what was kept, which is gone now.
    let answer = attempt().or_else(|fault| if was_kept { attempt() } else { Err(fault) });
    Ok(JobOutput::Reviewed(answer.map_err(JobError::from_base)?.into()))
}

/// Has a panic hook note where a panic was, for the reason that [`run`] gives.
pub(super) fn note_panic(place: String) {
    PANIC.with_borrow_mut(|noted| *noted = Some(place));
}

/// What a peer sent, and up to how many new changes of it are wanted one by one.
struct Incoming<'a> {
    runs: &'a [Bytes],
    explode_max: u32,
}

impl Incoming<'_> {
    const NOTHING: Self = Self { runs: &[], explode_max: 0 };
}

fn build(
    base: &[Bytes],
    incoming: &Incoming<'_>,
    limits: &WorkerLimits,
    base_opened: impl FnOnce(),
) -> Result<JobOutput, JobError> {
    let doc = open(base, limits).map_err(JobError::from_base)?;
    base_opened();
    let failed = match caught(|| finish(doc, base, incoming, limits)) {
        Ok(output) => return Ok(output),
        Err(failed) => failed,
    };
    if incoming.runs.is_empty() {
        return Err(JobError::from_base(failed));
    }
    if !base.is_empty() {
        // Both were there when it failed. Whether ours fails alone says whose fault it is.
        let alone = open(base, limits)
            .and_then(|doc| caught(|| finish(doc, base, &Incoming::NOTHING, limits)));
        alone.map_err(JobError::from_base)?;
    }
    Err(JobError::from_incoming(failed))
}

/// Our own chunks as a document.
fn open(base: &[Bytes], limits: &WorkerLimits) -> Result<Automerge, Fault> {
    caught(|| {
        let mut doc = Automerge::new();
        document::add(&mut doc, base, &limits.own_changes())?;
        Ok(doc)
    })
}

fn finish(
    mut doc: Automerge,
    base: &[Bytes],
    incoming: &Incoming<'_>,
    limits: &WorkerLimits,
) -> Result<JobOutput, Fault> {
    let (known, before) = (doc.stats().num_changes, doc.get_heads());
    let loaded_from = document::add(&mut doc, incoming.runs, &limits.changes)?;
    let sealed = document::seal(doc, loaded_from.as_ref())?;
    let new = sealed.doc.stats().num_changes - known;
    // Whoever asked checks each, and says no to those alone that are wrong.
    let one_by_one =
        || -> Vec<Bytes> { sealed.doc.get_changes(&before).into_iter().map(chunk).collect() };
    if incoming.explode_max > 0 && new <= u64::from(incoming.explode_max) {
        return Ok(JobOutput::Changes(one_by_one()));
    }
    let own_changes = limits.own_changes();
    // Loaded only if a change is over a peer's limits: it may be ours, from other days.
    let mut ours: Option<Automerge> = None;
    let mut is_over = false;
    let index = document::index(&sealed, |bytes| {
        if incoming.runs.is_empty() {
            return guard::check_change(bytes, &own_changes).map_err(Fault::content);
        }
        let error = match guard::check_change(bytes, &limits.changes) {
            Ok(header) => return Ok(header),
            Err(error) => error,
        };
        let header = guard::check_change(bytes, &own_changes).map_err(Fault::content)?;
        // One that comes alone is measured as it comes, which is mostly the shorter form.
        let change = Change::try_from(&bytes[..]).map_err(Fault::content)?;
        if guard::check_change(&chunk(change), &limits.changes).is_ok() {
            return Ok(header);
        }
        let doc = match &mut ours {
            Some(doc) => doc,
            none => none.insert(open(base, limits)?),
        };
        if document::holds(doc, header.hash) {
            return Ok(header);
        }
        is_over = true;
        Err(Fault::content(error))
    });
    match index {
        Ok(index) => Ok(JobOutput::Built { snapshot: sealed.snapshot, index: Arc::new(index) }),
        // One is too large: the others need not be refused with it.
        Err(_) if is_over && new <= SPLIT_MAX => Ok(JobOutput::Changes(one_by_one())),
        Err(fault) => Err(fault),
    }
}

fn extract(
    snapshot: &Bytes,
    hashes: &[ChangeHash],
    limits: &WorkerLimits,
) -> Result<JobOutput, JobError> {
    let doc = open(std::slice::from_ref(snapshot), limits).map_err(JobError::from_base)?;
    let changes = caught(|| {
        if hashes.len() <= EXTRACT_SINGLY_MAX {
            return (hashes.iter())
                .map(|hash| {
                    doc.get_change_by_hash(&automerge::ChangeHash(hash.0))
                        .filter(|change| change.hash().0 == hash.0)
                        .map(chunk)
                        .ok_or_else(|| not_there(*hash))
                })
                .collect();
        }
        let mut all: Vec<([u8; 32], Change)> =
            (doc.get_changes(&[]).into_iter()).map(|change| (change.hash().0, change)).collect();
        all.sort_unstable_by_key(|(hash, _)| *hash);
        (hashes.iter())
            .map(|hash| {
                all.binary_search_by_key(&hash.0, |(hash, _)| *hash)
                    .map(|place| chunk(all[place].1.clone()))
                    .map_err(|_| not_there(*hash))
            })
            .collect::<Result<Vec<Bytes>, Fault>>()
    });
    Ok(JobOutput::Extracted(changes.map_err(JobError::from_base)?))
}

fn not_there(hash: ChangeHash) -> Fault {
    Fault::Content(format!("change {hash} is not in the snapshot"))
}

/// Up to how many changes are given one by one where an upload has one among them that is too large:
/// far more than somebody makes before a relay has said so.
const SPLIT_MAX: u64 = 10_000;

/// The shorter of a change's two forms.
fn chunk(mut change: Change) -> Bytes {
    let raw = change.raw_bytes().len();
    let deflated = change.bytes();
    if deflated.len() < raw {
        return Bytes::copy_from_slice(&deflated);
    }
    Bytes::copy_from_slice(change.raw_bytes())
}

fn check(
    base: &[Bytes],
    incoming: &[Bytes],
    limits: &WorkerLimits,
    base_opened: impl FnOnce(),
) -> Result<JobOutput, JobError> {
    let doc = open(base, limits).map_err(JobError::from_base)?;
    base_opened();
    let mut reason = match caught(|| attempt(doc, incoming, limits)) {
        Ok(()) => return Ok(JobOutput::Checked),
        Err(Fault::TooLarge(reason)) => return Err(JobError::OverLimit(reason)),
        Err(Fault::Content(reason)) => reason,
    };
    let mut search = PrefixSearch::new(incoming.len());
    while let Some(length) = search.next() {
        let tried =
            open(base, limits).and_then(|doc| caught(|| attempt(doc, &incoming[..length], limits)));
        search.tell(length, tried.is_err());
        match tried {
            Err(Fault::Content(said)) => reason = said,
            Err(Fault::TooLarge(said)) => return Err(JobError::OverLimit(said)),
            Ok(()) => {}
        }
    }
    Err(blame(search.culprit().map(|place| &incoming[place]), reason, limits))
}

/// Applies changes as one batch, which costs the same for one as for a hundred.
fn attempt(mut doc: Automerge, incoming: &[Bytes], limits: &WorkerLimits) -> Result<(), Fault> {
    let before = doc.get_heads();
    document::add(&mut doc, incoming, &limits.own_changes())?;
    document::reads_back(&doc, &before, incoming)?;
    let again = document::sealed_for_trial(doc)?;
    document::reads_back(&again, &before, incoming)
}

/// The error that names a change, or the base where there is none to name.
pub(super) fn blame(culprit: Option<&Bytes>, reason: String, limits: &WorkerLimits) -> JobError {
    let Some(bytes) = culprit else {
        return JobError::Base(reason);
    };
    match guard::check_change(bytes, &limits.own_changes()) {
        Ok(header) => JobError::Breaks { hash: header.hash, reason },
        Err(error) => JobError::Incoming(error.to_string()),
    }
}

/// Runs what may panic. Whatever it owned is dropped: automerge is not unwind safe.
fn caught<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Err(Fault::Content(reason))) => Err(Fault::Content(shortened(reason))),
        Ok(result) => result,
        Err(payload) => {
            let place = PANIC.with_borrow_mut(Option::take);
            let said = place.unwrap_or_else(|| said(&*payload));
            Err(Fault::Content(shortened(format!("automerge panicked: {said}"))))
        }
    }
}

fn said(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    match payload.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => "without a word".to_owned(),
    }
}

/// Cut at a character's border.
pub(super) fn shortened(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    }
    reason
}

impl JobError {
    fn from_base(fault: Fault) -> Self {
        match fault {
            Fault::Content(reason) => Self::Base(reason),
            Fault::TooLarge(reason) => Self::OverLimit(reason),
        }
    }

    fn from_incoming(fault: Fault) -> Self {
        match fault {
            Fault::Content(reason) => Self::Incoming(reason),
            Fault::TooLarge(reason) => Self::OverLimit(reason),
        }
    }
}
