//! People who write the same documents while they are away from each other: how much of it merges
//! by itself, what becomes a conflict, whether anything is lost, and how soon all have the same.
//!
//! Every write is one half of an episode of a known class, in a place of its own, so that it is
//! known what must come of it: either both halves are there afterwards, or one conflict with both.

mod class;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clap::Args;
use tokio::time::sleep;

use self::class::{CLASSES, Class};
use super::{
    BenchError, Context, doing, live::failed, progress, queue::Http, report::Report,
    scratch::Scratch,
};
use crate::{
    peer::{Document, Peer},
    review::Conflict,
};

/// How often it is looked whether all have the same.
const ASK: Duration = Duration::from_millis(5);

#[derive(Debug, Args)]
pub(super) struct DivergenceArgs {
    /// People, each with a replica on disk
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=64))]
    peers: u16,
    /// Documents; how often each is written to follows Zipf's law
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    documents: u32,
    /// Times that all are away from each other
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    partitions: u32,
    /// Pairs of writes in each of these times
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pairs: u32,
    /// What is drawn is the same for the same number
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Two writes of different people into one place.
#[derive(Debug, Clone, Copy)]
struct Episode {
    class: Class,
    document: usize,
    /// Names the place.
    number: usize,
    who: [usize; 2],
}

/// What came of it, in numbers.
#[derive(Debug, Default)]
struct Found {
    writes: u64,
    merged: u64,
    conflicts: u64,
    lost: u64,
    unexpected: u64,
}

struct Group<'a> {
    url: &'a str,
    context: &'a Context,
    scratch: Scratch,
    peers: Vec<Peer>,
    documents: Vec<String>,
}

pub(super) async fn run(
    args: &DivergenceArgs,
    url: &str,
    context: &Context,
) -> Result<Report, BenchError> {
    let mut http = Http::connect(url).await?;
    let count = async |http: &mut Http| {
        let page = http.ask("GET /v1/conflicts?limit=1", "").await?;
        let is_complete = page["complete"] == true;
        Ok::<_, BenchError>((page["open"].as_u64().unwrap_or_default(), is_complete))
    };
    let (before, _) = count(&mut http).await?;
    let mut random = Random(args.seed);
    let mut group = Group::new(args, url, context).await?;
    let mut episodes: Vec<Episode> = Vec::new();
    let mut converged = Vec::new();
    for _ in 0..args.partitions {
        let drawn: Vec<Episode> =
            (0..args.pairs as usize).map(|n| random.episode(args, episodes.len() + n)).collect();
        group.prepare(&drawn).await?;
        group.part().await?;
        group.write(&drawn).await?;
        converged.push(group.meet().await?);
        episodes.extend(drawn);
    }
    let found = group.look(&episodes).await?;
    let started = Instant::now();
    let waiting = doing("the relay looks for conflicts");
    let in_queue = loop {
        let (open, is_complete) = count(&mut http).await?;
        if is_complete || started.elapsed() > context.timeout {
            break open.saturating_sub(before);
        }
        sleep(ASK).await;
    };
    drop(waiting);
    group.part().await?;
    Ok(report(args, &found, &converged, in_queue))
}

fn report(args: &DivergenceArgs, found: &Found, converged: &[Duration], in_queue: u64) -> Report {
    let mut report = Report::new("divergence");
    report.setting("peers", args.peers);
    report.setting("documents", args.documents);
    report.setting("partitions", args.partitions);
    report.setting("pairs", args.pairs);
    report.setting("seed", args.seed);
    let number = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let writes = number(found.writes).max(1.0);
    report.figure("writes", number(found.writes));
    report.figure("merged_percent", 100.0 * number(found.merged) / writes);
    report.figure("conflicts_per_1000_writes", 1_000.0 * number(found.conflicts) / writes);
    report.figure("lost_writes", number(found.lost));
    report.figure("false_conflicts", number(found.unexpected));
    report.figure("conflicts_of_a_peer", number(found.conflicts + found.unexpected));
    report.figure("conflicts_of_the_relay", number(in_queue));
    let longest = converged.iter().max().copied().unwrap_or_default();
    let total: Duration = converged.iter().sum();
    report.figure("converged_mean_s", total.as_secs_f64() / f64::from(args.partitions));
    report.figure("converged_max_s", longest.as_secs_f64());
    report
}

impl<'a> Group<'a> {
    async fn new(
        args: &DivergenceArgs,
        url: &'a str,
        context: &'a Context,
    ) -> Result<Self, BenchError> {
        let mut group = Self {
            url,
            context,
            scratch: Scratch::new()?,
            peers: Vec::new(),
            documents: Vec::new(),
        };
        group.open(args.peers as usize)?;
        group.connect()?;
        let bar = progress(args.documents as usize, "documents");
        for _ in 0..args.documents {
            let document = group.peers[0].create().await.map_err(failed)?;
            document.change(|tx| Ok(Class::begin(tx)?)).await.map_err(failed)?;
            group.documents.push(document.id().as_str().to_owned());
            bar.inc(1);
        }
        bar.finish_and_clear();
        // The relay says of what it has not got yet that there is no such document.
        group.peers[0].flush(context.timeout).await.map_err(failed)?;
        Ok(group)
    }

    fn open(&mut self, count: usize) -> Result<(), BenchError> {
        for n in 0..count {
            let directory = self.scratch.path().join(format!("peer-{n}"));
            self.peers.push(Peer::open(directory).map_err(failed)?);
        }
        Ok(())
    }

    fn connect(&self) -> Result<(), BenchError> {
        self.peers.iter().try_for_each(|peer| peer.connect(self.url).map_err(failed))
    }

    async fn find(&self, who: usize, document: usize) -> Result<Document, BenchError> {
        let found = self.peers[who].find_within(&self.documents[document], self.context.timeout);
        found.await.map_err(failed)
    }

    /// The first writes what the episodes are about, and all get it.
    async fn prepare(&self, episodes: &[Episode]) -> Result<(), BenchError> {
        let mut by_document: BTreeMap<usize, Vec<Episode>> = BTreeMap::new();
        for episode in episodes {
            by_document.entry(episode.document).or_default().push(*episode);
        }
        for (document, episodes) in by_document {
            let document = self.find(0, document).await?;
            let edit = document.change(|tx| {
                for Episode { class, number, .. } in &episodes {
                    class.prepare(tx, &place(*number))?;
                }
                Ok(())
            });
            edit.await.map_err(failed)?;
        }
        self.agree("what is written together").await.map(drop)
    }

    /// All go away; what they have is on their disks.
    async fn part(&mut self) -> Result<(), BenchError> {
        let count = self.peers.len();
        for peer in self.peers.drain(..) {
            peer.close().await.map_err(failed)?;
        }
        self.open(count)
    }

    /// Everybody does their part, knowing nothing of the others'.
    async fn write(&self, episodes: &[Episode]) -> Result<(), BenchError> {
        let bar = progress(episodes.len(), "pairs of writes, apart");
        for Episode { class, document, number, who } in episodes {
            for (half, who) in who.iter().enumerate().take(class.writers()) {
                let document = self.find(*who, *document).await?;
                let edit = document.change(|tx| Ok(class.write(tx, &place(*number), half)?));
                edit.await.map_err(failed)?;
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// All come back. Gives how long it took until all had the same.
    async fn meet(&self) -> Result<Duration, BenchError> {
        let started = Instant::now();
        self.connect()?;
        self.agree("what was written apart").await?;
        Ok(started.elapsed())
    }

    /// Waits until all have the same.
    async fn agree(&self, what: &'static str) -> Result<(), BenchError> {
        let _doing = doing(what);
        let seconds = self.context.timeout.as_secs();
        let stalled = |_| BenchError::Stalled { what: "waiting until all have the same", seconds };
        let all = async {
            for document in 0..self.documents.len() {
                let mut held = Vec::with_capacity(self.peers.len());
                for who in 0..self.peers.len() {
                    held.push(self.find(who, document).await?);
                }
                while !same(&held)? {
                    sleep(ASK).await;
                }
            }
            Ok(())
        };
        tokio::time::timeout(self.context.timeout, all).await.map_err(stalled)?
    }

    /// What came of all that was written.
    async fn look(&self, episodes: &[Episode]) -> Result<Found, BenchError> {
        let mut found = Found::default();
        let bar = progress(self.documents.len(), "documents looked at");
        for number in 0..self.documents.len() {
            let document = self.find(self.peers.len() - 1, number).await?;
            let mut open = document.conflicts().map_err(failed)?;
            for episode in episodes.iter().filter(|episode| episode.document == number) {
                judge(episode, &document, &mut open, &mut found)?;
            }
            found.unexpected += open.len() as u64;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(found)
    }
}

fn judge(
    episode: &Episode,
    document: &Document,
    open: &mut Vec<Conflict>,
    found: &mut Found,
) -> Result<(), BenchError> {
    let (class, place) = (episode.class, place(episode.number));
    let writes = class.writers() as u64;
    found.writes += writes;
    match class.code() {
        None => {
            let is_there = document.read(|doc| class.is_merged(doc, &place)).map_err(failed)?;
            *(if is_there { &mut found.merged } else { &mut found.lost }) += writes;
        }
        Some(code) => {
            let path = |conflict: &Conflict| document.read(|doc| conflict.path(doc));
            let is_it = |conflict: &Conflict| {
                let first = path(conflict).ok().flatten().and_then(|path| path.first().cloned());
                let sides = conflict.sides.len() == 2 && conflict.code == code;
                sides && first == Some(automerge::Prop::Map(place.clone()))
            };
            match open.extract_if(.., |conflict| is_it(conflict)).count() {
                0 => found.lost += writes,
                one_or_more => {
                    found.conflicts += 1;
                    found.unexpected += one_or_more as u64 - 1;
                }
            }
        }
    }
    Ok(())
}

fn same(held: &[Document]) -> Result<bool, BenchError> {
    let first = held[0].heads().map_err(failed)?;
    for other in &held[1..] {
        if other.heads().map_err(failed)? != first {
            return Ok(false);
        }
    }
    Ok(true)
}

fn place(number: usize) -> String {
    format!("place {number}")
}

/// Splitmix64 (Steele, Lea and Flood, 2014): the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end.max(1)).unwrap_or_default()
    }

    fn episode(&mut self, args: &DivergenceArgs, number: usize) -> Episode {
        let peers = u64::from(args.peers);
        let one = self.below(peers);
        let other = (one + 1 + self.below(peers - 1)) % args.peers as usize;
        let class = CLASSES[self.below(CLASSES.len() as u64)];
        Episode { class, document: self.zipf(args.documents), number, who: [one, other] }
    }

    /// The n-th is drawn in proportion to 1/n.
    fn zipf(&mut self, documents: u32) -> usize {
        let weight = |n: u32| 1_000_000 / u64::from(n);
        let total = (1..=documents).map(weight).sum();
        let mut left = self.below(total) as u64;
        for n in 1..documents {
            match left.checked_sub(weight(n)) {
                Some(rest) => left = rest,
                None => return n as usize - 1,
            }
        }
        documents as usize - 1
    }
}
