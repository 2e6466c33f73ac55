//! One writer, many readers, one document.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::Args;
use concord_protocol::{ChangeHash, DocumentId};
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{
    BenchError, Context, Report,
    changes::{Run, typed_document},
    doing,
    light::LightDocument,
    progress,
    server_usage::Meter,
    session::{Session, random_document_id, uploaded},
    stats::{Latencies, per_second},
};

/// Sent one after the other before the clock runs, so that lazy work of the first is not counted.
const WARM_UP: usize = 3;
/// Readers that fetch the document at one time, before the clock runs.
const JOINING_AT_ONCE: usize = 8;

#[derive(Debug, Args)]
pub(super) struct FanoutArgs {
    /// Clients that follow the document
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    readers: u32,
    /// Characters in the document beforehand, each typed as its own change
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=2_000_000))]
    operations: u32,
    /// Changes a second, evenly spaced: measures the latency of each to each reader
    #[arg(long, default_value_t = 10.0, conflicts_with = "saturate")]
    rate: f64,
    /// Changes to send in all at --rate
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    changes: u32,
    /// Instead of a rate: as fast as all readers take it, for so many seconds
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    saturate: Option<u32>,
    /// With --saturate: changes that are on their way at most
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    window: u32,
    /// With --saturate: changes made beforehand; it ends early when they are used up
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    prepared: u32,
}

/// What the writer and the readers know of each other.
struct Board {
    started: Instant,
    /// Nanoseconds after `started` at which each change was sent.
    sent_ns: Vec<AtomicU64>,
    /// How many changes each reader has.
    delivered: Vec<AtomicUsize>,
    /// How many readers have the document, or will never have it.
    ready: AtomicUsize,
    /// Some reader got further.
    moved: Notify,
}

impl Board {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// How many changes all readers have.
    fn delivered_to_all(&self) -> usize {
        self.delivered.iter().map(|count| count.load(Relaxed)).min().unwrap_or(0)
    }

    fn delivered_in_all(&self) -> usize {
        self.delivered.iter().map(|count| count.load(Relaxed)).sum()
    }
}

pub(super) async fn run(args: &FanoutArgs, context: &Context) -> Result<Report, BenchError> {
    let count =
        WARM_UP + if args.saturate.is_some() { args.prepared } else { args.changes } as usize;
    let id = random_document_id()?;
    let making = doing("making the document");
    let (mut typist, document) = typed_document(&[0xB0; 16], args.operations as usize)?;
    drop(making);
    let bar = progress(count, "preparing changes");
    let changes = Arc::new(Run::generate(&mut typist, count, || bar.inc(1)));
    bar.finish_and_clear();

    let meter = context.meter;
    let look = || meter.map(Meter::look).transpose();
    let idle = look()?;
    let uploading = doing("uploading the document");
    let mut writer = uploaded(context, &id, &document, Some(changes.clone())).await?;
    drop(uploading);
    let board = Arc::new(Board {
        started: Instant::now(),
        sent_ns: (0..count).map(|_| AtomicU64::new(0)).collect(),
        delivered: (0..args.readers).map(|_| AtomicUsize::new(0)).collect(),
        ready: AtomicUsize::new(0),
        moved: Notify::new(),
    });
    let (stop, stopped) = watch::channel(false);
    let turns = Arc::new(Semaphore::new(JOINING_AT_ONCE));
    let mut tasks = JoinSet::new();
    for number in 0..args.readers as usize {
        let reader = Reader {
            context: context.clone(),
            id: id.clone(),
            number,
            board: board.clone(),
            stopped: stopped.clone(),
        };
        tasks.spawn(reader.run(document.heads.clone(), changes.clone(), turns.clone()));
    }
    let mut sender = Writer {
        session: &mut writer,
        id: &id,
        board: &board,
        sent: 0,
        to_all: 0,
        arrived: Instant::now(),
    };
    sender.wait_for_readers(context).await?;
    for _ in 0..WARM_UP {
        sender.send_one().await?;
        sender.drain(context.timeout).await?;
    }
    let before = look()?;
    let clock = Clock::start(&board);
    match args.saturate {
        Some(seconds) => {
            sender.saturate(Duration::from_secs(seconds.into()), args.window).await?;
        }
        None => sender.spaced(args.rate).await?,
    }
    sender.drain(context.timeout).await?;
    // Until the last arrival: some servers deliver in bursts seconds apart, and what they still
    // owe when the sending ends takes its time too.
    let timed = clock.stop(&board, sender.arrived);
    let sent = sender.sent;
    let after = look()?;

    // A reader that has ended already needs no telling.
    let _ = stop.send(true);
    let mut latencies = Latencies::new();
    let mut report = Report::new("fanout");
    while let Some(ended) = tasks.join_next().await {
        let (seen, failure) = ended?;
        latencies.merge(&seen);
        if let Some(error) = failure {
            report.failure(error.to_string());
        }
    }
    writer.close().await;

    report.setting("readers", args.readers);
    report.setting("operations", args.operations);
    match args.saturate {
        Some(seconds) => {
            report.setting("saturate_s", seconds);
            report.setting("window", args.window);
        }
        None => report.setting("rate_per_s", args.rate),
    }
    report.latency(latencies.percentiles());
    report.figure("changes_sent", super::stats::to_f64(sent - WARM_UP));
    report.figure("delivered_changes_per_s", per_second(timed.to_all, timed.elapsed));
    report.figure("deliveries_per_s", per_second(timed.deliveries, timed.elapsed));
    report.undelivered(sent * board.delivered.len() - board.delivered_in_all());
    report.server("idle", idle, None);
    report.server("joined", before, None);
    report.server("after", after, before);
    Ok(report)
}

/// One who follows the document.
struct Reader {
    context: Context,
    id: DocumentId,
    number: usize,
    board: Arc<Board>,
    stopped: watch::Receiver<bool>,
}

impl Reader {
    /// Fetches the document, then reads until told to stop, and notes when each change came.
    async fn run(
        mut self,
        heads: Vec<ChangeHash>,
        changes: Arc<Run>,
        turns: Arc<Semaphore>,
    ) -> (Latencies, Option<BenchError>) {
        // It is never closed, so there is always a turn to come.
        let turn = turns.acquire().await.ok();
        let joined = self.join(&heads, changes).await;
        drop(turn);
        self.board.ready.fetch_add(1, Relaxed);
        self.board.moved.notify_one();
        let mut latencies = Latencies::new();
        let failure = match joined {
            Ok(session) => self.follow(session, &mut latencies).await.err(),
            Err(error) => Some(error),
        };
        (latencies, failure)
    }

    async fn join(&self, heads: &[ChangeHash], changes: Arc<Run>) -> Result<Session, BenchError> {
        let mut session = Session::open(&self.context).await?;
        session.request(&self.id, LightDocument::expecting(Some(changes))).await?;
        while !session.document(&self.id).is_some_and(|document| document.is_at(heads)) {
            session.exchange("fetching the document").await?;
        }
        Ok(session)
    }

    async fn follow(
        &mut self,
        mut session: Session,
        latencies: &mut Latencies,
    ) -> Result<(), BenchError> {
        let mut seen = 0;
        loop {
            let touched = tokio::select! {
                touched = session.receive() => touched?,
                _ = self.stopped.changed() => break,
            };
            let now = self.board.now_ns();
            let delivered = session.document(&self.id).map_or(seen, LightDocument::delivered);
            for sent in self.board.sent_ns.iter().take(delivered).skip(seen.max(WARM_UP)) {
                let latency = now.saturating_sub(sent.load(Relaxed));
                latencies.record(Duration::from_nanos(latency));
            }
            if delivered > seen {
                seen = delivered;
                if let Some(count) = self.board.delivered.get(self.number) {
                    count.store(delivered, Relaxed);
                }
                self.board.moved.notify_one();
            }
            session.answer(&touched).await?;
        }
        session.close().await;
        Ok(())
    }
}

/// What happened until the last change came to all.
struct Timed {
    elapsed: Duration,
    /// Changes that came to all readers.
    to_all: usize,
    /// Changes that came to a reader, each reader counted.
    deliveries: usize,
}

/// The one who types.
struct Writer<'a> {
    session: &'a mut Session,
    id: &'a DocumentId,
    board: &'a Board,
    sent: usize,
    /// How many changes all readers had when last looked.
    to_all: usize,
    /// When that last rose.
    arrived: Instant,
}

impl Writer<'_> {
    async fn send_one(&mut self) -> Result<bool, BenchError> {
        let sent = self.put_one().await?;
        self.session.flush().await?;
        Ok(sent)
    }

    async fn put_one(&mut self) -> Result<bool, BenchError> {
        let Some(sent_ns) = self.board.sent_ns.get(self.sent) else {
            return Ok(false);
        };
        sent_ns.store(self.board.now_ns(), Relaxed);
        let written = self.session.write(self.id).await?;
        self.sent += usize::from(written);
        Ok(written)
    }

    /// Takes the server's answers until some reader got further.
    async fn listen(&mut self) -> Result<(), BenchError> {
        loop {
            tokio::select! {
                () = self.board.moved.notified() => {
                    let to_all = self.board.delivered_to_all();
                    if to_all > self.to_all {
                        self.to_all = to_all;
                        self.arrived = Instant::now();
                    }
                    return Ok(());
                }
                touched = self.session.receive() => {
                    let touched = touched?;
                    self.session.answer(&touched).await?;
                }
            }
        }
    }

    /// Waits until every reader has the document, or has said why not. Answers the server
    /// meanwhile: it drops who does not.
    async fn wait_for_readers(&mut self, context: &Context) -> Result<(), BenchError> {
        let bar = progress(self.board.delivered.len(), "joining readers");
        loop {
            let ready = self.board.ready.load(Relaxed);
            bar.set_position(u64::try_from(ready).unwrap_or(0));
            if ready == self.board.delivered.len() {
                bar.finish_and_clear();
                return Ok(());
            }
            context.within("joining readers", self.listen()).await?;
        }
    }

    /// Waits, at most so long, until everything that was sent has come to everybody.
    async fn drain(&mut self, patience: Duration) -> Result<(), BenchError> {
        let arrived = async {
            while self.board.delivered_to_all() < self.sent {
                self.listen().await?;
            }
            Ok(())
        };
        tokio::time::timeout(patience, arrived).await.unwrap_or(Ok(()))
    }

    /// One change at a time, evenly spaced.
    async fn spaced(&mut self, rate: f64) -> Result<(), BenchError> {
        let bar = progress(self.board.sent_ns.len(), "spaced changes");
        let mut ticks = interval(Duration::from_secs_f64(1.0 / rate.clamp(0.01, 100_000.0)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.sent < self.board.sent_ns.len() {
            tokio::select! {
                _ = ticks.tick() => {
                    self.send_one().await?;
                    bar.inc(1);
                }
                listened = Self::listen(self) => listened?,
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// As many as the readers take, with a bounded number on their way.
    async fn saturate(&mut self, span: Duration, window: u32) -> Result<(), BenchError> {
        let window = window as usize;
        let bar = progress(self.board.sent_ns.len(), "changes at full speed");
        let end = Instant::now() + span;
        'timed: while Instant::now() < end {
            let to_all = self.board.delivered_to_all();
            bar.set_position(u64::try_from(to_all).unwrap_or(0));
            let mut fed = false;
            while self.sent < to_all + window {
                if !self.put_one().await? {
                    break 'timed;
                }
                fed = true;
            }
            if fed {
                self.session.flush().await?;
            }
            let left = end.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.listen()).await {
                Ok(listened) => listened?,
                Err(_) => break,
            }
        }
        self.session.flush().await?;
        bar.finish_and_clear();
        Ok(())
    }
}

/// Counts what is delivered from a moment on.
struct Clock {
    started: Instant,
    to_all: usize,
    deliveries: usize,
}

impl Clock {
    fn start(board: &Board) -> Self {
        Self {
            started: Instant::now(),
            to_all: board.delivered_to_all(),
            deliveries: board.delivered_in_all(),
        }
    }

    fn stop(&self, board: &Board, last_arrival: Instant) -> Timed {
        Timed {
            elapsed: last_arrival.saturating_duration_since(self.started),
            to_all: board.delivered_to_all() - self.to_all,
            deliveries: board.delivered_in_all() - self.deliveries,
        }
    }
}
