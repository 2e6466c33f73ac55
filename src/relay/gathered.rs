//! What the store, the worker processes and the reviewer count themselves, read at each scrape.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Unit,
};

use super::{
    catalogue::Catalogue,
    review::{ReviewStatus, Reviewer, false_ratio},
};
use crate::{
    store::{Store, StoreStats},
    worker::{Materialiser, PoolStatus},
};

/// Gathers from a store and from whoever opens documents.
pub(super) struct Gathered {
    store: Arc<dyn Store>,
    materialiser: Arc<dyn Materialiser>,
    reviewer: Option<Arc<Reviewer>>,
    catalogue: Arc<Catalogue>,
}

impl fmt::Debug for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathered").finish_non_exhaustive()
    }
}

impl Gathered {
    pub(super) fn of(
        store: &Arc<dyn Store>,
        materialiser: &Arc<dyn Materialiser>,
        reviewer: Option<Arc<Reviewer>>,
        catalogue: Arc<Catalogue>,
    ) -> Self {
        Self { store: store.clone(), materialiser: materialiser.clone(), reviewer, catalogue }
    }
}

impl Collector for Gathered {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        store(&mut encoder, &self.store.stats())?;
        if let Some(status) = self.materialiser.processes() {
            workers(&mut encoder, &status)?;
        }
        let help = "Documents that the catalogue knows, about 240 bytes of memory each";
        gauge(&mut encoder, "catalogue_documents", help, None, count(self.catalogue.documents()))?;
        match &self.reviewer {
            Some(reviewer) => review(&mut encoder, &reviewer.status()),
            None => Ok(()),
        }
    }
}

fn store(e: &mut DescriptorEncoder<'_>, stats: &StoreStats) -> fmt::Result {
    let StoreStats { writes, rows, bytes, flushes, corrupt_reads, .. } = *stats;
    counter(e, "store_writes", "Writes that are on disk", None, writes)?;
    counter(e, "store_rows", "Rows written or removed", None, rows)?;
    let help = "Keys and values given to the store's engine";
    counter(e, "store_written", help, Some(&Unit::Bytes), bytes)?;
    let help = "Flushes of the store's engine, each of which serves a group of writes";
    counter(e, "store_syncs", help, None, flushes)?;
    let seconds = stats.flush_time.as_secs_f64();
    let help = "Time in flushes of the store's engine, all together";
    counter(e, "store_sync", help, Some(&Unit::Seconds), seconds)?;
    let longest = stats.flush_time_max.as_secs_f64();
    let help = "The longest flush of the store's engine since the start";
    gauge(e, "store_sync_longest", help, Some(&Unit::Seconds), longest)?;
    let help = "Reads of rows that are corrupt, repeated ones too";
    counter(e, "store_corrupt_reads", help, None, corrupt_reads)?;
    let help = "Different rows found corrupt since the start, 1000 at most; the log names them";
    gauge(e, "store_corrupt_rows", help, None, count(stats.corrupt.len()))
}

fn workers(e: &mut DescriptorEncoder<'_>, status: &PoolStatus) -> fmt::Result {
    let PoolStatus { idle, jobs, started } = status;
    let help = "Worker processes that have nothing to do";
    gauge(e, "worker_processes_idle", help, None, count(idle.len()))?;
    let help = "Worker processes started, those that replace one that died too";
    counter(e, "worker_processes_started", help, None, *started as u64)?;
    let help = "Jobs that wait for a worker process or are in one";
    gauge(e, "worker_jobs_pending", help, None, count(*jobs))
}

fn review(e: &mut DescriptorEncoder<'_>, status: &ReviewStatus) -> fmt::Result {
    let ReviewStatus { open, states, unlisted, waiting, looks, failures, settled, ended } = status;
    let by_code = Family::<ByCode, Gauge>::default();
    for (code, open) in open {
        by_code.get_or_create(&ByCode { code: code.clone() }).set(count(*open));
    }
    let help = "Conflicts that are open and listed";
    metric(e, "conflicts_open", help, None, &by_code)?;
    let by_state = Family::<ByState, Gauge>::default();
    for (state, open) in states {
        by_state.get_or_create(&ByState { state: state.as_str().to_owned() }).set(count(*open));
    }
    let help = "Conflicts that are not decided, by who looks after them";
    metric(e, "conflicts_undecided", help, None, &by_state)?;
    let help = "Conflicts that are open and not listed: of documents with very many";
    gauge(e, "conflicts_unlisted", help, None, count(*unlisted))?;
    let help = "Documents that wait to be looked at for conflicts";
    gauge(e, "review_waiting", help, None, count(*waiting))?;
    counter(e, "review_looks", "Looks at documents for conflicts", None, *looks)?;
    let help = "Looks that failed: the log says which document and why";
    counter(e, "review_failures", help, None, *failures)?;
    let by_policy = Family::<ByPolicy, Counter>::default();
    for (policy, settled) in settled {
        by_policy.get_or_create(&ByPolicy { policy: policy.clone() }).inc_by(*settled);
    }
    let help = "Conflicts that a policy of the schema decided here";
    metric(e, "conflicts_settled", help, None, &by_policy)?;
    let by_end = Family::<ByEnd, Counter>::default();
    for (code, how, count) in ended {
        by_end.get_or_create(&ByEnd { code: code.clone(), how: how.as_str() }).inc_by(*count);
    }
    let help = "Conflicts that ended: resolved by people, dismissed as none to decide, superseded \
                by more that was written, or decided by the schema (auto)";
    metric(e, "conflicts_closed", help, None, &by_end)?;
    let Some(ratio) = false_ratio(ended.iter().map(|(_, how, count)| (*how, *count))) else {
        return Ok(());
    };
    let help = "Part of the conflicts with which people were done since the start that they \
                dismissed: dismissed / (dismissed + resolved)";
    gauge(e, "conflicts_false_ratio", help, None, ratio)
}

/// Codes are ours and few.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: String,
}

/// So are the states of conflicts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: String,
}

/// So are the ways in which conflicts end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEnd {
    code: String,
    how: &'static str,
}

/// So are policies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPolicy {
    policy: String,
}

fn counter<N>(
    e: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: N,
) -> fmt::Result
where
    ConstCounter<N>: EncodeMetric,
{
    metric(e, name, help, unit, &ConstCounter::new(value))
}

fn gauge<N>(
    e: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: N,
) -> fmt::Result
where
    ConstGauge<N>: EncodeMetric,
{
    metric(e, name, help, unit, &ConstGauge::new(value))
}

fn metric(
    e: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: &impl EncodeMetric,
) -> fmt::Result {
    value.encode(e.encode_descriptor(name, help, unit, value.metric_type())?)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
