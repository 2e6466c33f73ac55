//! What is counted, in the `OpenMetrics` text form. No labels by document or peer: their number
//! is up to strangers.

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::replica::{Counted, Stats};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    kind: &'static str,
    outcome: &'static str,
}

/// All metrics of a relay. Cheap to count from anywhere.
pub(super) struct Metrics {
    registry: Registry,
    pub(super) connections: Gauge,
    pub(super) accepted: Counter,
    pub(super) turned_away: Counter,
    pub(super) foreign_pages: Counter,
    pub(super) messages_received: Counter,
    pub(super) messages_sent: Counter,
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) pauses: Counter,
    pub(super) foreign_sender: Counter,
    pub(super) calls: Counter,
    peers: Gauge,
    documents: Gauge,
    chunks: Gauge,
    queue: Gauge,
    orphans: Gauge,
    jobs_running: Gauge,
    bad_frames: Family<ByKind, Counter>,
    closes: Family<ByCode, Counter>,
    changes_accepted: Counter,
    changes_refused: Family<ByReason, Counter>,
    orphaned: Counter,
    sync: Family<ByDirection, Counter>,
    ephemerals: Family<ByFate, Counter>,
    bad_messages: Counter,
    loaded: Counter,
    evicted: Counter,
    quarantined: Counter,
    compacted: Counter,
    purged: Counter,
    postponed: Counter,
    corrupt_rows: Counter,
    salvages: Family<ByFate, Counter>,
    flush_seconds: Histogram,
    store_failures: Family<ByKind, Counter>,
    jobs: Family<ByOutcome, Counter>,
    job_seconds: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFate {
    outcome: &'static str,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// With what `surroundings` adds at each scrape.
    pub(super) fn new(surroundings: impl Collector) -> Self {
        let mut registry = Registry::with_prefix("concord");
        registry.register_collector(Box::new(surroundings));
        let r = &mut registry;
        r.register(
            "build",
            "The version that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        Self {
            connections: gauge(r, "connections", "Open connections", None),
            peers: gauge(r, "peers", "Connections that have joined", None),
            accepted: counter(r, "connections_accepted", "Connections accepted", None),
            turned_away: counter(
                r,
                "connections_turned_away",
                "Connections refused: too many, or not serving",
                None,
            ),
            foreign_pages: counter(
                r,
                "foreign_page_requests",
                "WebSocket requests refused because the web page's origin is not allowed",
                None,
            ),
            messages_received: counter(r, "messages_received", "WebSocket messages in", None),
            messages_sent: counter(r, "messages_sent", "WebSocket messages out", None),
            received: counter(r, "received", "Payload in", Some(Unit::Bytes)),
            sent: counter(r, "sent", "Payload out", Some(Unit::Bytes)),
            pauses: counter(
                r,
                "read_pauses",
                "Times that a connection was read later because it sent too much",
                None,
            ),
            foreign_sender: counter(
                r,
                "foreign_sender_messages",
                "Messages dropped because their sender is not who joined",
                None,
            ),
            calls: counter(r, "calls", "Requests that came over sockets", None),
            documents: gauge(r, "documents", "Documents in memory", None),
            chunks: gauge(r, "chunks", "Chunks in memory", Some(Unit::Bytes)),
            queue: gauge(r, "queue", "Sent but not yet on the network", Some(Unit::Bytes)),
            orphans: gauge(r, "orphans", "Changes that wait for their dependencies", None),
            jobs_running: gauge(r, "jobs_running", "Worker jobs at work", None),
            bad_frames: family(r, "bad_frames", "Frames that are no message"),
            closes: family(r, "closes", "Connections ended, by WebSocket close code"),
            changes_accepted: counter(r, "changes_accepted", "Changes accepted from peers", None),
            changes_refused: family(r, "changes_refused", "Changes refused"),
            orphaned: counter(r, "changes_orphaned", "Changes that had to wait", None),
            sync: family(r, "sync_messages", "Sync messages"),
            ephemerals: family(r, "ephemerals", "Ephemeral messages passed on or dropped"),
            bad_messages: counter(r, "bad_messages", "Messages not understood or allowed", None),
            loaded: counter(r, "documents_loaded", "Documents put into memory", None),
            evicted: counter(r, "documents_evicted", "Documents that left memory", None),
            quarantined: counter(r, "documents_quarantined", "Documents quarantined", None),
            compacted: counter(r, "snapshots_built", "Snapshots built", None),
            purged: counter(
                r,
                "documents_purged",
                "Documents purged, as their types say, some time after they were deleted",
                None,
            ),
            postponed: counter(r, "jobs_postponed", "Background jobs to be tried again", None),
            corrupt_rows: counter(r, "corrupt_rows", "Rows that failed their checksum", None),
            salvages: family(r, "salvages", "Documents that went on after rows were damaged"),
            flush_seconds: histogram(
                r,
                "store_flush",
                "From a write to its being on disk",
                exponential_buckets(0.000_25, 2.0, 16),
            ),
            store_failures: family(r, "store_failures", "Requests that the store failed"),
            jobs: family(r, "worker_jobs", "Worker jobs done"),
            job_seconds: histogram(
                r,
                "worker_job",
                "From a worker job to its result",
                exponential_buckets(0.001, 2.0, 16),
            ),
            registry,
        }
    }

    /// Counts what a replica asked to count.
    pub(super) fn count(&self, counted: Counted) {
        match counted {
            Counted::ChangesAccepted(n) => _ = self.changes_accepted.inc_by(n),
            Counted::ChangeRefused(code) => {
                let label = ByReason { code: code.as_str() };
                self.changes_refused.get_or_create(&label).inc();
            }
            Counted::Orphaned => _ = self.orphaned.inc(),
            Counted::SyncReceived => self.count_sync("received"),
            Counted::SyncSent => self.count_sync("sent"),
            Counted::EphemeralForwarded(n) => self.count_ephemerals("forwarded", n),
            Counted::EphemeralDropped(n) => self.count_ephemerals("dropped", n),
            Counted::BadMessage => _ = self.bad_messages.inc(),
            Counted::DocumentLoaded => _ = self.loaded.inc(),
            Counted::DocumentEvicted => _ = self.evicted.inc(),
            Counted::Quarantined => _ = self.quarantined.inc(),
            Counted::Compacted => _ = self.compacted.inc(),
            Counted::Purged => _ = self.purged.inc(),
            Counted::JobPostponed => _ = self.postponed.inc(),
            Counted::CorruptRow => _ = self.corrupt_rows.inc(),
            Counted::IndexRebuilt => self.count_salvage("index-rebuilt"),
            Counted::SnapshotLost => self.count_salvage("snapshot-lost"),
        }
    }

    fn count_salvage(&self, outcome: &'static str) {
        self.salvages.get_or_create(&ByFate { outcome }).inc();
    }

    fn count_sync(&self, direction: &'static str) {
        self.sync.get_or_create(&ByDirection { direction }).inc();
    }

    fn count_ephemerals(&self, outcome: &'static str, n: u64) {
        self.ephemerals.get_or_create(&ByFate { outcome }).inc_by(n);
    }

    pub(super) fn bad_frame(&self, kind: &'static str) {
        self.bad_frames.get_or_create(&ByKind { kind }).inc();
    }

    /// Counts the end of a connection; 1006 where there was no close frame.
    pub(super) fn closed(&self, code: u16) {
        self.closes.get_or_create(&ByCode { code }).inc();
    }

    pub(super) fn flushed(&self, took: Duration) {
        self.flush_seconds.observe(took.as_secs_f64());
    }

    pub(super) fn store_failed(&self, kind: &'static str) {
        self.store_failures.get_or_create(&ByKind { kind }).inc();
    }

    pub(super) fn job_done(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.jobs.get_or_create(&ByOutcome { kind, outcome }).inc();
        self.job_seconds.observe(took.as_secs_f64());
    }

    /// The text of a scrape, with what the shards hold together.
    pub(super) fn render(&self, peers: usize, stats: &Stats) -> Result<String, fmt::Error> {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.peers.set(count(peers));
        self.documents.set(count(stats.documents));
        self.chunks.set(count(stats.chunk_bytes));
        self.queue.set(count(stats.queued_bytes));
        self.orphans.set(count(stats.orphans));
        self.jobs_running.set(count(stats.jobs));
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

fn counter(r: &mut Registry, name: &str, help: &str, unit: Option<Unit>) -> Counter {
    let metric = Counter::<u64, AtomicU64>::default();
    match unit {
        Some(unit) => r.register_with_unit(name, help, unit, metric.clone()),
        None => r.register(name, help, metric.clone()),
    }
    metric
}

fn gauge(r: &mut Registry, name: &str, help: &str, unit: Option<Unit>) -> Gauge {
    let metric = Gauge::default();
    match unit {
        Some(unit) => r.register_with_unit(name, help, unit, metric.clone()),
        None => r.register(name, help, metric.clone()),
    }
    metric
}

fn family<L>(r: &mut Registry, name: &str, help: &str) -> Family<L, Counter>
where
    L: Clone + Eq + std::hash::Hash + EncodeLabelSet + fmt::Debug + Send + Sync + 'static,
{
    let metric = Family::<L, Counter>::default();
    r.register(name, help, metric.clone());
    metric
}

fn histogram(
    r: &mut Registry,
    name: &str,
    help: &str,
    buckets: impl Iterator<Item = f64>,
) -> Histogram {
    let metric = Histogram::new(buckets);
    r.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

#[cfg(test)]
mod tests {
    use concord_protocol::RefuseCode;
    use prometheus_client::encoding::DescriptorEncoder;

    use super::*;

    #[derive(Debug)]
    struct Nothing;

    impl Collector for Nothing {
        fn encode(&self, _: DescriptorEncoder<'_>) -> fmt::Result {
            Ok(())
        }
    }

    #[test]
    fn every_metric_has_our_prefix_and_labels_are_few() {
        let metrics = Metrics::new(Nothing);
        metrics.count(Counted::ChangesAccepted(7));
        metrics.count(Counted::ChangeRefused(RefuseCode::Equivocation));
        metrics.count(Counted::EphemeralDropped(2));
        metrics.count(Counted::SnapshotLost);
        metrics.closed(4409);
        metrics.received.inc_by(11);
        metrics.flushed(Duration::from_millis(2));
        let stats = Stats { documents: 3, ..Stats::default() };
        let text = metrics.render(1, &stats).unwrap();
        for line in [
            "concord_changes_accepted_total 7",
            "concord_changes_refused_total{code=\"equivocation\"} 1",
            "concord_ephemerals_total{outcome=\"dropped\"} 2",
            "concord_salvages_total{outcome=\"snapshot-lost\"} 1",
            "concord_closes_total{code=\"4409\"} 1",
            "concord_received_bytes_total 11",
            "concord_store_flush_seconds_count 1",
            "concord_documents 3",
            "concord_peers 1",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("concord_build_info{version="));
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        assert!(samples.clone().count() > 30);
        assert!(samples.clone().all(|line| line.starts_with("concord_")));
    }
}
