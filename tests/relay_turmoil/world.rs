//! A relay, peers and the network between them, in one thread and in simulated time.
//!
//! A peer takes in changes of others on a thread of its own. The simulation stands still while
//! that thread works, so that a busy machine makes nothing late.

use std::{
    cell::RefCell, collections::BTreeMap, future::Future, rc::Rc, sync::Arc, time::Duration,
};

use bytes::Bytes;
use concord::{
    peer::{Peer, Status},
    relay::{Listeners, Relay, RelayConfig},
    replica::{JobError, JobOutput},
    store::{self, MemoryFaults, Store},
    worker::{BoxFuture, Materialiser, WorkerJob, WorkerLimits, materialise},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use turmoil::Sim;

use crate::{
    host::{Host, Task},
    net::{Dial, Listening, Net},
};

/// Where the relay is.
pub(crate) const URL: &str = "ws://relay:3030";
/// Simulated time of one step.
const TICK: Duration = Duration::from_millis(10);
/// What a materialiser takes.
const WORK: Duration = ms(100);
/// Longest that a packet takes; a step may come on top.
pub(crate) const LATENCY: Duration = Duration::from_millis(20);

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// `CONCORD_SEED=7 cargo test --test relay_turmoil` has packets come at other times. Names, and
/// with them hashes, and the waits of the backoff are random in every run.
fn varied() -> u64 {
    std::env::var("CONCORD_SEED").map_or(0, |seed| seed.parse().unwrap())
}

/// Materialises in this thread, in as much simulated time as a worker may take.
struct Inline(WorkerLimits);

impl Materialiser for Inline {
    fn run(&self, job: WorkerJob) -> BoxFuture<Result<JobOutput, JobError>> {
        let done = materialise::run(&job, &self.0);
        Box::pin(async {
            tokio::time::sleep(WORK).await;
            done
        })
    }
}

fn inline() -> Arc<dyn Materialiser> {
    Arc::new(Inline(WorkerLimits::default()))
}

/// A peer on a machine of its own.
pub(crate) struct Home {
    pub(crate) name: String,
    pub(crate) peer: Peer,
    pub(crate) net: Arc<Net>,
}

impl Home {
    pub(crate) fn is_online(&self) -> bool {
        self.peer.status().borrow().is_online()
    }

    /// Why it is offline, if it is.
    pub(crate) fn offline(&self) -> Option<String> {
        match &*self.peer.status().borrow() {
            Status::Offline { reason, .. } => Some(reason.clone()),
            _ => None,
        }
    }
}

/// The metrics of the relay at one time; those that are whole numbers.
pub(crate) struct Metrics(BTreeMap<String, u64>);

impl Metrics {
    /// Zero where it is not there yet.
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Connections that ended with this code.
    pub(crate) fn closed(&self, code: u16) -> u64 {
        self.get(&format!("concord_closes_total{{code=\"{code}\"}}"))
    }
}

pub(crate) struct World {
    pub(crate) sim: Sim<'static>,
    hosts: BTreeMap<String, Host>,
    config: RelayConfig,
    store: Arc<dyn Store>,
    faults: MemoryFaults,
    relay: Rc<RefCell<Option<Relay>>>,
    /// All peers, and how much each had read when it was last waited for.
    peers: Vec<(Peer, Arc<Net>, u64)>,
    /// For what is awaited while the simulation stands still.
    outside: tokio::runtime::Runtime,
}

impl World {
    /// A relay that is not started yet.
    pub(crate) fn new(seed: u64, change: impl FnOnce(&mut RelayConfig)) -> Self {
        Self::with_buffers(seed, 64, change)
    }

    /// As [`World::new`], with room for so many writes in each direction of a connection.
    pub(crate) fn with_buffers(
        seed: u64,
        buffers: usize,
        change: impl FnOnce(&mut RelayConfig),
    ) -> Self {
        let logged = tracing_subscriber::EnvFilter::try_from_default_env();
        let logged = logged.unwrap_or_else(|_| "off".into());
        // The first test of the process has set it.
        let _ = tracing_subscriber::fmt().with_env_filter(logged).with_test_writer().try_init();
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed ^ varied())
            .tick_duration(TICK)
            .min_message_latency(ms(1))
            .max_message_latency(LATENCY)
            .tcp_capacity(buffers)
            .build();
        let mut hosts = BTreeMap::new();
        for name in ["relay", "operator"] {
            hosts.insert(name.to_owned(), Host::new(&mut sim, name));
        }
        let mut config = RelayConfig { shards: 2, ..RelayConfig::default() };
        change(&mut config);
        let id = "b5c0f1f4-8d1c-4d7e-9a52-3a2b9b9b0002".parse().unwrap();
        let (store, faults) = store::memory_with_faults(id);
        let outside = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (relay, peers) = (Rc::default(), Vec::new());
        let mut world = Self { sim, hosts, config, store, faults, relay, peers, outside };
        world.step();
        world
    }

    /// Simulated time since the beginning.
    pub(crate) fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// One more machine.
    pub(crate) fn host(&mut self, name: &str) {
        self.hosts.insert(name.to_owned(), Host::new(&mut self.sim, name));
        self.step();
    }

    /// A peer that keeps the relay connected, on a machine of its own.
    pub(crate) fn peer(&mut self, name: &str) -> Home {
        self.host(name);
        self.peer_at(name)
    }

    /// As [`World::peer`], on a machine that is there.
    pub(crate) fn peer_at(&mut self, name: &str) -> Home {
        let net = Arc::new(Net::default());
        let dial = Arc::new(Dial(Arc::clone(&net)));
        let peer = self.run(name, secs(1), async move {
            let store = store::memory().unwrap();
            let builder = Peer::builder("in memory").store(store).materialiser(inline());
            // What is measured here is how long others take.
            let builder = builder.debounce(Duration::ZERO, Duration::ZERO);
            builder.transport(dial).relay(URL).open().unwrap()
        });
        self.peers.push((peer.clone(), Arc::clone(&net), 0));
        Home { name: name.to_owned(), peer, net }
    }

    pub(crate) fn start_relay(&mut self) {
        let (slot, config) = (Rc::clone(&self.relay), self.config.clone());
        let store = Arc::clone(&self.store);
        self.run("relay", secs(1), async move {
            let clients = Listening::on(3030).await;
            let admin = Some(Listening::on(9090).await);
            let listeners = Listeners { clients, admin };
            slot.replace(Some(Relay::start_with(config, listeners, store, inline()).unwrap()));
        });
    }

    /// Begins to end the relay as SIGTERM does.
    pub(crate) fn shut_down_relay(&mut self) -> Task<()> {
        let relay = self.relay.take().unwrap();
        self.start("relay", async move { relay.shutdown().await.unwrap() })
    }

    /// Ends the relay's process, now; its store has what was flushed.
    pub(crate) fn kill_relay(&mut self) {
        self.sim.crash("relay");
        drop(self.relay.take());
        (self.store, self.faults) = self.faults.after_crash();
        self.sim.bounce("relay");
    }

    /// Begins something on a machine.
    pub(crate) fn start<T: 'static>(
        &mut self,
        host: &str,
        work: impl Future<Output = T> + 'static,
    ) -> Task<T> {
        self.hosts[host].start(work)
    }

    /// Does something on a machine, within this time.
    pub(crate) fn run<T: 'static>(
        &mut self,
        host: &str,
        within: Duration,
        work: impl Future<Output = T> + 'static,
    ) -> T {
        let task = self.start(host, work);
        self.finish(task, within)
    }

    /// Waits for the end of something.
    pub(crate) fn finish<T>(&mut self, mut task: Task<T>, within: Duration) -> T {
        let until = self.now() + within;
        loop {
            if let Some(done) = task.poll() {
                return done;
            }
            assert!(self.now() < until, "not done within {within:?}");
            self.step();
            // It may be reading a document.
            self.apply(true);
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now() + time;
        while self.now() < until {
            self.step();
        }
        self.apply(false);
    }

    /// Lets time pass until something is so; how much it was.
    pub(crate) fn until(
        &mut self,
        what: &str,
        within: Duration,
        is_so: impl FnMut() -> bool,
    ) -> Duration {
        let took = self.until_or(within, is_so);
        took.unwrap_or_else(|| panic!("not within {within:?}: {what}"))
    }

    /// As [`World::until`]; nothing if it did not become so in time.
    pub(crate) fn until_or(
        &mut self,
        within: Duration,
        mut is_so: impl FnMut() -> bool,
    ) -> Option<Duration> {
        let start = self.now();
        loop {
            self.apply(false);
            if is_so() {
                return Some(self.now() - start);
            }
            if self.now() - start >= within {
                return None;
            }
            self.step();
        }
    }

    /// What the relay counted, as its operator sees it.
    pub(crate) fn metrics(&mut self) -> Metrics {
        let text = self.run("operator", secs(2), async {
            let mut stream = turmoil::net::TcpStream::connect(("relay", 9090)).await.unwrap();
            let request = b"GET /metrics HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        });
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
        let whole =
            samples.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        Metrics(whole.collect())
    }

    pub(crate) fn step(&mut self) {
        self.sim.step().unwrap();
    }

    /// Waits, in no simulated time, until every peer has taken in what came; only those to which
    /// something came, unless told to wait for all.
    fn apply(&mut self, all: bool) {
        for (peer, net, read) in &mut self.peers {
            if net.read() == *read && !all {
                continue;
            }
            *read = net.read();
            // The thread that takes in changes looks at these bytes after all else it was given.
            let looked = self.outside.block_on(peer.import(Bytes::from_static(b"nothing")));
            assert!(looked.is_err());
        }
    }
}
