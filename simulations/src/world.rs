//! A world: nodes, links, disks and users, in one thread, in virtual time.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod author;
mod brain;
mod disputes;
mod entities;
mod entity;
mod failover;
mod faults;
mod finish;
mod hostile;
mod kept;
mod lease;
mod network;
mod node;
mod outbox;
mod process;
mod quarrel;
mod refusals;
mod rot;
mod spoken;
mod storage;
mod user;

use std::{
    collections::{BTreeMap, BinaryHeap},
    panic::{AssertUnwindSafe, catch_unwind},
};

use concord::{replica::Event, review::Facts};
use concord_protocol::DocumentId;

use self::{brain::News, hostile::Strangers, network::Network, node::Node};
use crate::{
    coverage::{Coverage, State},
    ledger::{Failure, Invariant, Ledger},
    opaque::Library,
    plan::{Name, Plan},
    trace::{Entry, Kind, Trace},
};

/// Microseconds of a millisecond.
const MS: u64 = 1_000;
/// How often what is in memory is looked at, in events.
const LOOK_EVERY: u64 = 512;
/// Events after which a world is taken to run in circles.
const EVENTS_MAX: u64 = 40_000_000;

/// What came of a world.
#[derive(Debug)]
pub struct Report {
    /// Things that happened: arrivals, timers, answers of disks and materialisers, calls.
    pub events: u64,
    /// Milliseconds of the world's time.
    pub simulated_ms: u64,
    /// Changes that users made.
    pub changes: u64,
    /// Messages that were sent.
    pub messages: u64,
    /// How often each kind of fault struck.
    pub faults: BTreeMap<&'static str, u64>,
    /// Rare states that were met.
    pub coverage: Coverage,
    /// The same for two runs of the same plan, or one of them is not determined by it.
    pub digest: u64,
    /// The rule that was broken, if one was.
    pub failure: Option<Failure>,
    /// What happened, if it was asked for.
    pub trace: Vec<Entry>,
    /// Names of the nodes in the trace.
    pub nodes: Vec<String>,
}

/// Where a node is in [`World::nodes`].
pub(crate) type NodeId = usize;
/// Where a link is in [`Network`].
pub(crate) type LinkId = usize;

/// What is still to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    /// An action of the plan.
    Act(usize),
    /// A node takes in what waits for it.
    Wake(NodeId),
    /// The timer of a node's engine.
    Timer(NodeId, u32, u64),
    /// Something that this side of a link sent has come to the other.
    Arrive(LinkId, usize),
    /// The link can carry more of what this side has to send.
    Transmit(LinkId, usize),
    /// The two sides of a link have greeted each other.
    Joined(LinkId),
    /// This side of a link learns that it is gone.
    Lost(LinkId, usize),
    /// A peer dials a relay.
    Dial(NodeId, u32, u8),
    /// A peer that may use any relay decides which.
    Decide(NodeId, u32),
    /// A relay that is not in use has answered to a check, or not.
    Checked(NodeId, u32, u8),
    /// A group of writes is flushed.
    Flushed(NodeId, u32),
    /// A read, a listing or a job has come to its end, as far as time goes.
    Done(NodeId, u32, u64),
    /// A node starts.
    Start(NodeId),
    /// A drained relay ends.
    Stop(NodeId, u32, u64),
    /// A node reads its sockets again.
    Unstall(NodeId),
    /// A disk is well again.
    Heal(NodeId, u64),
    /// Faults end.
    Calm,
}

#[derive(Debug, PartialEq, Eq)]
struct Scheduled {
    at_us: u64,
    number: u64,
    what: Happening,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The heap gives the greatest first; the earliest is wanted.
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// See the module.
pub(crate) struct World<'p> {
    plan: &'p Plan,
    now_us: u64,
    queue: BinaryHeap<Scheduled>,
    scheduled: u64,
    nodes: Vec<Node>,
    documents: Vec<DocumentId>,
    /// What entities say that concerns others, as found at the end.
    entities: BTreeMap<DocumentId, Facts>,
    network: Network,
    strangers: Strangers,
    library: Library,
    ledger: Ledger,
    coverage: Coverage,
    faults: BTreeMap<&'static str, u64>,
    trace: Trace,
    events: u64,
    messages: u64,
    last_message_us: u64,
    /// Bytes of the largest message so far.
    largest_message: usize,
    is_calm: bool,
    /// All have met, and meet again.
    is_reunion: bool,
    /// Relays take every change from now on.
    is_wide: bool,
    failure: Option<Failure>,
}

impl World<'_> {
    /// Runs a plan to its end, or to the first broken rule.
    pub(crate) fn run(plan: &Plan, with_trace: bool) -> Report {
        let mut world = World::new(plan, with_trace);
        let ran = catch_unwind(AssertUnwindSafe(|| world.live()));
        if let Err(panic) = ran {
            let words = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            world.broken(Invariant::NoPanic, words);
        }
        world.report()
    }

    fn new(plan: &Plan, with_trace: bool) -> World<'_> {
        let names = (0..plan.relays).map(Name::Relay).chain((0..plan.peers).map(Name::Peer));
        let mut world = World {
            plan,
            now_us: 0,
            queue: BinaryHeap::new(),
            scheduled: 0,
            nodes: names.map(|name| Node::new(name, plan)).collect(),
            documents: (0..plan.documents).map(Plan::document_id).collect(),
            entities: BTreeMap::new(),
            network: Network::new(plan),
            strangers: Strangers::new(plan),
            library: Library::default(),
            ledger: Ledger::default(),
            coverage: Coverage::default(),
            faults: BTreeMap::new(),
            trace: Trace::new(with_trace),
            events: 0,
            messages: 0,
            last_message_us: 0,
            largest_message: 0,
            is_calm: false,
            is_reunion: false,
            is_wide: false,
            failure: None,
        };
        for node in 0..world.nodes.len() {
            world.schedule(0, Happening::Start(node));
        }
        for (number, action) in plan.actions.iter().enumerate() {
            world.schedule(action.at_ms * MS, Happening::Act(number));
        }
        world.schedule(plan.calm_ms * MS, Happening::Calm);
        world
    }

    fn live(&mut self) {
        let calm_us = self.plan.calm_ms * MS;
        self.run_until(calm_us);
        if self.failure.is_none() {
            self.finish();
        }
    }

    /// Lets everything up to this moment happen.
    fn run_until(&mut self, until_us: u64) {
        while self.failure.is_none() && self.queue.peek().is_some_and(|next| next.at_us <= until_us)
        {
            self.step();
        }
        if self.failure.is_none() {
            self.now_us = self.now_us.max(until_us);
        }
    }

    fn step(&mut self) {
        let Some(Scheduled { at_us, what, .. }) = self.queue.pop() else {
            return;
        };
        self.now_us = at_us;
        self.events += 1;
        self.trace.mix(at_us);
        match what {
            Happening::Act(number) => self.act(number),
            Happening::Wake(node) => self.wake(node),
            Happening::Timer(node, life, at_ms) => self.timer(node, life, at_ms),
            Happening::Arrive(link, side) => self.arrive(link, side),
            Happening::Transmit(link, side) => self.transmit(link, side),
            Happening::Joined(link) => self.joined(link),
            Happening::Lost(link, side) => self.lost(link, side),
            Happening::Dial(node, life, relay) => self.dial(node, life, relay),
            Happening::Decide(node, life) => self.decide(node, life),
            Happening::Checked(node, life, relay) => self.checked(node, life, relay),
            Happening::Flushed(node, life) => self.flushed(node, life),
            Happening::Done(node, life, operation) => self.done(node, life, operation),
            Happening::Start(node) => self.start(node),
            Happening::Stop(node, life, down_us) => self.stop(node, life, down_us),
            Happening::Unstall(node) => self.unstall(node),
            Happening::Heal(node, until_us) => self.heal(node, until_us),
            Happening::Calm => self.calm(),
        }
        if self.events.is_multiple_of(LOOK_EVERY) {
            self.look();
        }
        if self.events > EVENTS_MAX {
            self.broken(Invariant::Quiescence, format!("more than {EVENTS_MAX} events"));
        }
    }

    fn schedule(&mut self, at_us: u64, what: Happening) {
        self.scheduled += 1;
        let at_us = at_us.max(self.now_us);
        self.queue.push(Scheduled { at_us, number: self.scheduled, what });
    }

    /// A rule is broken: the first one counts.
    fn broken(&mut self, invariant: Invariant, detail: String) {
        if self.failure.is_none() {
            self.failure = Some(Failure { invariant, at_ms: self.now_us / MS, detail });
        }
    }

    const fn met(&mut self, state: State) {
        self.coverage.met(state);
    }

    fn struck(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    fn did(&mut self, node: NodeId, what: impl FnOnce() -> String) {
        self.trace.note(self.now_us, || Kind::Did { node, what: what() });
    }

    fn node_of(&self, name: Name) -> NodeId {
        match name {
            Name::Relay(number) => usize::from(number),
            Name::Peer(number) => usize::from(self.plan.relays) + usize::from(number),
        }
    }

    /// The number of the user at a node.
    fn peer_number(&self, id: NodeId) -> u8 {
        match self.nodes[id].name {
            Name::Relay(number) | Name::Peer(number) => number,
        }
    }

    fn document_number(&self, document: &DocumentId) -> u8 {
        let at = self.documents.iter().position(|known| known == document);
        at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
    }

    /// Gives a node something to take in.
    fn tell(&mut self, node: NodeId, event: Event) {
        self.tell_news(node, News::Event(event));
    }

    fn tell_news(&mut self, node: NodeId, news: News) {
        let lag_us = u64::from(self.plan.settings.lag_us);
        let this = &mut self.nodes[node];
        if !this.is_up() {
            return;
        }
        this.inbox.push(news);
        if !this.is_woken {
            this.is_woken = true;
            let at_us = (self.now_us + lag_us).max(this.paused_until_us);
            self.schedule(at_us, Happening::Wake(node));
        }
    }

    fn report(self) -> Report {
        let nodes = self.nodes.iter().map(Node::label).chain(self.strangers.labels());
        let nodes = nodes.collect();
        let (trace, digest) = self.trace.finish();
        Report {
            events: self.events,
            simulated_ms: self.now_us / MS,
            changes: self.ledger.len() as u64,
            messages: self.messages,
            faults: self.faults,
            coverage: self.coverage,
            digest,
            failure: self.failure,
            trace,
            nodes,
        }
    }
}

/// The first characters of a hash.
fn short(hash: &concord_protocol::ChangeHash) -> String {
    format!("{:02x}{:02x}{:02x}", hash.0[0], hash.0[1], hash.0[2])
}

/// A message as a frame; hostile ones are none.
#[derive(Debug)]
enum Frame {
    /// A piece of a large message that is not its last.
    Part(usize),
    /// A message, and the bytes of its last piece.
    Message(Vec<concord_protocol::Message>, usize),
    Close(u16, String),
}

impl Frame {
    fn len(&self) -> usize {
        match self {
            Self::Part(len) | Self::Message(_, len) => *len,
            Self::Close(..) => 2,
        }
    }
}
