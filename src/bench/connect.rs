//! Connections that join and then do nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use super::{
    BenchError, Context, Report,
    client::Client,
    doing, progress,
    server_usage::Meter,
    stats::{Latencies, per_second, to_f64},
};

#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    /// Connections to open
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// Connections that are being opened at one time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    at_once: u32,
    /// Seconds to stay connected before memory is measured
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    hold: u32,
    /// Seconds after everybody left before memory is measured once more
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    settle: u32,
}

pub(super) async fn run(args: &ConnectArgs, context: &Context) -> Result<Report, BenchError> {
    let look = || context.meter.map(Meter::look).transpose();
    let idle = look()?;
    let bar = progress(args.connections as usize, "connecting");
    let turns = Arc::new(Semaphore::new(args.at_once as usize));
    let (stop, stopped) = watch::channel(false);
    let (joined, mut joins) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    for _ in 0..args.connections {
        tasks.spawn(stay(context.clone(), turns.clone(), joined.clone(), stopped.clone()));
    }
    drop(joined);
    let mut latencies = Latencies::new();
    let (mut open, mut elapsed) = (0_usize, Duration::ZERO);
    let mut report = Report::new("connect");
    for _ in 0..args.connections {
        // Each says once that it joined, or why not.
        match joins.recv().await {
            Some(Ok(latency)) => {
                latencies.record(latency);
                open += 1;
                elapsed = started.elapsed();
                bar.inc(1);
            }
            Some(Err(error)) => report.failure(error),
            None => break,
        }
    }
    bar.finish_and_clear();
    if args.hold > 0 {
        let _holding = doing("staying connected");
        tokio::time::sleep(Duration::from_secs(args.hold.into())).await;
    }
    let held = look()?;
    // Those that failed have ended already.
    let _ = stop.send(true);
    let mut dropped = 0_usize;
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended? {
            dropped += 1;
            report.failure(error.to_string());
        }
    }
    if args.settle > 0 {
        let _settling = doing("letting the server settle");
        tokio::time::sleep(Duration::from_secs(args.settle.into())).await;
    }
    let settled = look()?;

    report.setting("connections", args.connections);
    report.setting("at_once", args.at_once);
    report.latency(latencies.percentiles());
    report.figure("elapsed_s", elapsed.as_secs_f64());
    report.figure("connections_per_s", per_second(open, elapsed));
    report.figure("connections_dropped", to_f64(dropped));
    report.undelivered(args.connections as usize - open);
    report.server("idle", idle, None);
    report.server("held", held, idle);
    if args.settle > 0 {
        report.server("settled", settled, None);
    }
    if let (Some(idle), Some(held)) = (idle, held)
        && open > 0
    {
        let added_kib = (held.rss_mib - idle.rss_mib) * 1024.0;
        report.figure("memory_a_connection_kib", added_kib / to_f64(open));
    }
    Ok(report)
}

/// Joins and stays until told to go. Fails when the server ends it first.
async fn stay(
    context: Context,
    turns: Arc<Semaphore>,
    joined: mpsc::UnboundedSender<Result<Duration, String>>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), BenchError> {
    // It is never closed, so there is always a turn to come.
    let turn = turns.acquire().await.ok();
    let started = Instant::now();
    let opened = Client::open(&context).await;
    drop(turn);
    let said = opened.as_ref().map(|_| started.elapsed()).map_err(ToString::to_string);
    // The counter outlives this task.
    let _ = joined.send(said);
    let Ok(mut client) = opened else {
        return Ok(());
    };
    let mut messages = Vec::new();
    loop {
        tokio::select! {
            received = client.receive(&mut messages) => received?,
            _ = stopped.changed() => break,
        }
        messages.clear();
    }
    client.close().await;
    Ok(())
}
