//! Carries out what is decided of relays: one task for each that is connected, dialled or checked,
//! and one that hears of all of them.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    link::{self, LinkContext, Wish},
    locked,
    overview::Meter,
    passes::Bytes,
    relays::{Order, RelayKey, Relays},
    status::{RelayStatus, Status, StatusBoard},
    traffic::Traffic,
    transport::RelayUrl,
};

/// The relays of a peer, kept connected.
pub(super) struct Links {
    shared: Arc<Shared>,
    driver: AbortHandle,
}

/// What the tasks share.
pub(super) struct Shared {
    known: Mutex<Known>,
    changed: Notify,
    started: Instant,
}

struct Known {
    relays: Relays,
    about: Vec<About>,
    board: StatusBoard,
}

impl Known {
    fn find(&self, url: &RelayUrl) -> Option<RelayKey> {
        self.about.iter().position(|about| about.url == *url).map(RelayKey)
    }

    fn add(&mut self, url: RelayUrl, priority: u32) {
        self.relays.add(priority);
        self.about.push(About { url, traffic: Arc::default() });
    }
}

/// What is fixed of a relay.
struct About {
    url: RelayUrl,
    traffic: Arc<Traffic>,
}

impl Links {
    /// These, with their priorities; so many are to be connected at the same time.
    pub(super) fn start(
        runtime: &Handle,
        context: Arc<LinkContext>,
        relays: Vec<(RelayUrl, u32)>,
        at_once: usize,
    ) -> Self {
        let known = Known {
            relays: Relays::new(at_once),
            about: Vec::new(),
            board: StatusBoard::default(),
        };
        let shared = Arc::new(Shared {
            known: Mutex::new(known),
            changed: Notify::new(),
            started: Instant::now(),
        });
        // All of them before the first is dialled, which is to be the preferred one.
        shared.tell(|known, _| {
            for (url, priority) in relays {
                match known.find(&url) {
                    Some(key) => known.relays.prefer(key, priority),
                    None => known.add(url, priority),
                }
            }
        });
        let driver = runtime.spawn(drive(Arc::clone(&shared), context)).abort_handle();
        Self { shared, driver }
    }

    /// One more relay, after all that are there, or of this priority if that is later. One that is
    /// known is tried at once if it is not connected.
    pub(super) fn connect(&self, url: RelayUrl, priority: u32) {
        self.shared.tell(|known, _| {
            if let Some(key) = known.find(&url) {
                known.relays.ask(key);
            } else {
                let last = known.relays.last_priority().unwrap_or(priority);
                known.add(url, last.max(priority));
            }
        });
    }

    /// Every relay that is not connected is tried at once.
    pub(super) fn ask(&self) {
        self.shared.tell(|known, _| {
            for key in 0..known.about.len() {
                known.relays.ask(RelayKey(key));
            }
        });
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        locked(&self.shared.known).board.subscribe()
    }

    pub(super) fn relays(&self) -> watch::Receiver<Vec<RelayStatus>> {
        locked(&self.shared.known).board.subscribe_relays()
    }

    /// Says how many bytes went to all of them, and came.
    pub(super) fn meter(&self) -> Meter {
        let shared = Arc::clone(&self.shared);
        Arc::new(move || {
            let known = locked(&shared.known);
            known.about.iter().fold(Bytes::default(), |sum, About { traffic, .. }| Bytes {
                sent: sum.sent + traffic.sent(),
                received: sum.received + traffic.received(),
            })
        })
    }

    /// Whether any relay was ever configured and is not given up.
    pub(super) fn may_come_online(&self) -> bool {
        locked(&self.shared.known).board.may_come_online()
    }

    /// Dials nothing more: the peer closes, and says goodbye to those that are there.
    pub(super) fn close(&self) {
        self.shared.tell(|known, _| known.relays.close());
    }

    /// Ends all connections.
    pub(super) fn end(&self) {
        self.driver.abort();
    }
}

impl Shared {
    /// Tells of something, and has it acted upon.
    pub(super) fn report(&self, tell: impl FnOnce(&mut Relays, u64)) {
        self.tell(|known, now_ms| tell(&mut known.relays, now_ms));
    }

    fn tell(&self, tell: impl FnOnce(&mut Known, u64)) {
        let mut known = locked(&self.known);
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tell(&mut known, now_ms);
        known.relays.decide(now_ms);
        let Known { relays, about, board } = &mut *known;
        board.show(relays, now_ms, |key| {
            let About { url, traffic } = &about[key.0];
            (url.as_str(), traffic.sent(), traffic.received())
        });
        drop(known);
        self.changed.notify_one();
    }
}

/// What is to be done now, when to look again, and which relays are to be watched closely.
struct Plan {
    orders: Vec<(Order, RelayUrl, Arc<Traffic>)>,
    wakes_at: Option<Instant>,
    watched: Vec<bool>,
}

impl Shared {
    fn plan(&self) -> Plan {
        let mut known = locked(&self.known);
        let mut orders = Vec::new();
        while let Some(order) = known.relays.poll() {
            let (Order::Dial(key) | Order::Check(key) | Order::Leave(key)) = order;
            let About { url, traffic } = &known.about[key.0];
            orders.push((order, url.clone(), Arc::clone(traffic)));
        }
        let at = |ms| self.started + Duration::from_millis(ms);
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let watched =
            (0..known.about.len()).map(|at| known.relays.is_watched(now_ms, RelayKey(at)));
        let watched = watched.collect();
        Plan { orders, wakes_at: known.relays.wakes_at().map(at), watched }
    }
}

async fn drive(shared: Arc<Shared>, context: Arc<LinkContext>) {
    // They end with this task.
    let mut tasks = JoinSet::new();
    let mut wishes: BTreeMap<RelayKey, watch::Sender<Wish>> = BTreeMap::new();
    loop {
        let plan = shared.plan();
        for (order, url, traffic) in plan.orders {
            let (shared, context) = (Arc::clone(&shared), Arc::clone(&context));
            match order {
                Order::Dial(key) => {
                    let is_watched = plan.watched.get(key.0).copied().unwrap_or_default();
                    let (tell, wish) = watch::channel(Wish { is_watched, leaves: false });
                    wishes.insert(key, tell);
                    tasks.spawn(link::keep(context, shared, key, url, traffic, wish));
                }
                Order::Check(key) => {
                    tasks.spawn(link::check(context, shared, key, url, traffic));
                }
                Order::Leave(key) => {
                    if let Some(wish) = wishes.get(&key) {
                        wish.send_modify(|wish| wish.leaves = true);
                    }
                }
            }
        }
        for (key, wish) in &wishes {
            let is_watched = plan.watched.get(key.0).copied().unwrap_or_default();
            wish.send_if_modified(|wish| {
                let is_other = wish.is_watched != is_watched;
                wish.is_watched = is_watched;
                is_other
            });
        }
        let over = async {
            match plan.wakes_at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = shared.changed.notified() => {}
            () = over => shared.report(|_, _| {}),
            Some(_) = tasks.join_next() => {}
        }
    }
}
