//! How a peer is opened.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64},
    },
    time::Duration,
};

use concord_protocol::{
    Feature, Features, Limits, PeerId, PeerMetadata, SessionId, SessionInfo,
    limits::SESSION_NAME_BYTES_MAX,
};
use tokio::{runtime::Handle, sync::mpsc, time::Instant};

use super::{
    ATTACHMENT_GRACE_MS, Inner, Peer, PeerError, Tcp, Transport, applier,
    blobs::{Courier, Lines, Sweeper},
    collections::Collections,
    core::Core,
    engine::{self, Engine},
    home::{Home, System},
    index::row,
    indexer::Indexer,
    indexing::Indexing,
    link::LinkContext,
    links::Links,
    options::RelayOptions,
    overview::Board,
    random_number,
    registry::Registry,
    schedule::Debounce,
    schema::Schemas,
    transport::RelayUrl,
};
use crate::{
    blobs::Shelf,
    entity::Schema,
    history,
    replica::Config,
    store::{self, DocumentKey, Options, Store},
    tls::Trust,
    worker::{InProcess, Materialiser, WorkerLimits},
};

/// Options of a [`Peer`].
pub struct PeerBuilder {
    directory: PathBuf,
    engine: store::Engine,
    store: Option<Arc<dyn Store>>,
    relays: Vec<RelayOptions>,
    at_once: usize,
    materialiser: Option<Arc<dyn Materialiser>>,
    transport: Arc<dyn Transport>,
    trusted: Vec<Vec<u8>>,
    limits: Limits,
    schema: Option<Arc<Schema>>,
    author: Option<String>,
    device: Option<String>,
    session: Option<SessionId>,
    index: bool,
    compression: bool,
    debounce: Debounce,
    attachment_grace: Duration,
    attachments_ahead: bool,
}

impl PeerBuilder {
    /// The defaults: the default engine, TCP, no relay, materialising in this process.
    pub fn new(directory: impl AsRef<Path>) -> Self {
        Self {
            directory: directory.as_ref().to_owned(),
            engine: store::Engine::default(),
            store: None,
            relays: Vec::new(),
            at_once: 1,
            materialiser: None,
            transport: Arc::new(Tcp),
            trusted: Vec::new(),
            limits: Limits::default(),
            schema: None,
            author: None,
            device: host_name(),
            session: None,
            index: true,
            compression: true,
            debounce: Debounce::DEFAULT,
            attachment_grace: Duration::from_millis(ATTACHMENT_GRACE_MS),
            attachments_ahead: false,
        }
    }

    /// Which engine keeps the directory.
    #[must_use]
    pub fn engine(mut self, engine: store::Engine) -> Self {
        self.engine = engine;
        self
    }

    /// A store that is already open; the directory is then only a name.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// A relay to keep in step with. Of several one is connected: the fastest that works, unless
    /// [`PeerBuilder::relay_with`] says which are preferred.
    #[must_use]
    pub fn relay(self, url: impl Into<String>) -> Self {
        self.relay_with(RelayOptions::new(url))
    }

    /// A relay with more than the defaults.
    #[must_use]
    pub fn relay_with(mut self, relay: RelayOptions) -> Self {
        self.relays.push(relay);
        self
    }

    /// How many relays are connected at the same time, at least one; the default is one. What
    /// comes from one of them goes to the others, too.
    #[must_use]
    pub fn at_once(mut self, relays: usize) -> Self {
        self.at_once = relays;
        self
    }

    /// Who opens documents of others, for instance a [`crate::worker::ProcessPool`], which no
    /// input can take down. The default does it in this process.
    #[must_use]
    pub fn materialiser(mut self, materialiser: Arc<dyn Materialiser>) -> Self {
        self.materialiser = Some(materialiser);
        self
    }

    /// How streams to relays are opened.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = transport;
        self
    }

    /// Trusts the certificates of `wss://` relays that these authorities signed (certificates in
    /// PEM, one or more), besides those that Mozilla's authorities did.
    #[must_use]
    pub fn trust(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.trusted.push(pem.into());
        self
    }

    /// Who makes the changes that are made here, as in `ann@example.org`: it goes with every one of
    /// them, to everybody, and is what [`history`](crate::history) shows. Without it changes name
    /// no author. Nobody checks that it is true.
    #[must_use]
    pub fn author(mut self, name: impl Into<String>) -> Self {
        self.author = Some(name.into());
        self
    }

    /// Where this runs, as others are to read it: a device, a window. The name of the host if it is
    /// not said. Relays are told of it, and whoever has the same documents open.
    #[must_use]
    pub fn device(mut self, name: impl Into<String>) -> Self {
        self.device = Some(name.into());
        self
    }

    /// The name of this session, where it is to go on with the leases of an earlier run. It is new in
    /// every run if it is not said. No two programs that run may have the same.
    #[must_use]
    pub fn session(mut self, name: SessionId) -> Self {
        self.session = Some(name);
        self
    }

    /// Caps on what comes from outside.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The schema in force: what it says of documents and is not so is found as conflicts, too.
    /// Without one it is that which a relay told last ([`Peer::schema`]); with one that is kept for
    /// when there is none.
    #[must_use]
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = Some(Arc::new(schema));
        self
    }

    /// Whether to keep the index that [`Peer::list`] and [`Peer::query`] read; it is kept by default.
    /// A peer without one writes a small row less at each edit, and takes away the one that is
    /// there: whoever wants it later has it made anew.
    #[must_use]
    pub fn index(mut self, keep: bool) -> Self {
        self.index = keep;
        self
    }

    /// How long edits rest before relays are given them: until nobody has edited the document for as
    /// long as `after` (200 ms by default), and `at_most` so long after the first (two seconds). They
    /// are on this disk at once all the same. What is critical does not rest ([`Level::CRITICAL`]), nor
    /// does anything with zero; [`Peer::flush`] and others that wait for relays end it.
    ///
    /// [`Level::CRITICAL`]: crate::entity::Level::CRITICAL
    #[must_use]
    pub fn debounce(mut self, after: Duration, at_most: Duration) -> Self {
        self.debounce = Debounce::new(after, at_most);
        self
    }

    /// Whether large frames are compressed (zstd) where the relay can; they are by default.
    #[must_use]
    pub fn compression(mut self, compress: bool) -> Self {
        self.compression = compress;
        self
    }

    /// How long an attachment is kept that no document names: a day by default, see
    /// [`ATTACHMENT_GRACE_MS`].
    #[must_use]
    pub fn attachment_grace(mut self, grace: Duration) -> Self {
        self.attachment_grace = grace;
        self
    }

    /// Whether attachments are fetched as soon as a document that is here names them, to be there
    /// offline; they are fetched when they are wanted by default. Needs the index, which hears of what
    /// documents say.
    #[must_use]
    pub fn attachments_ahead(mut self, ahead: bool) -> Self {
        self.attachments_ahead = ahead;
        self
    }

    /// Opens the peer. Reads the directory, which takes from milliseconds to a second.
    ///
    /// # Errors
    /// As [`Peer::open`], and for a relay URL, a trusted certificate or an author that is none.
    #[allow(
        clippy::too_many_lines,
        reason = "each part once, in the order in which they are needed"
    )]
    pub fn open(self) -> Result<Peer, PeerError> {
        let runtime = Handle::try_current().map_err(|_| PeerError::NoRuntime)?;
        let parsed = |relay: RelayOptions| Ok((RelayUrl::parse(&relay.url)?, relay.priority));
        let relays = self.relays.into_iter().map(parsed).collect::<Result<Vec<_>, PeerError>>()?;
        let author = self.author.as_deref().map(history::author).transpose()?;
        let trust = Trust::with(&self.trusted)
            .map_err(|error| PeerError::Certificate(error.to_string()))?;
        let store = match self.store {
            Some(store) => store,
            None => store::open(&self.directory, self.engine, &Options::default())
                .map_err(|source| PeerError::Store { directory: self.directory.clone(), source })?,
        };
        let materialiser = match self.materialiser {
            Some(materialiser) => materialiser,
            None => in_process(&self.limits)?,
        };
        let tasks = applier::start()
            .map_err(|error| PeerError::System { what: "a thread", reason: error.to_string() })?;
        // New at every start: a name that is reused takes the place of its earlier connection.
        let us: PeerId = name("peer")?;
        // Ephemeral messages are numbered in it: a name of an earlier run would have them dropped.
        let session: SessionId = name("session")?;
        let who = SessionInfo {
            session: self.session.unwrap_or_else(|| session.clone()),
            user: self.author.as_deref().map(cut),
            device: self.device.as_deref().map(cut),
        };
        let metadata = PeerMetadata {
            storage_id: Some(store.storage_id()),
            is_ephemeral: Some(false),
            features: Features::NONE
                .with(Feature::Blobs)
                .with(Feature::Leases)
                .with(Feature::Unsubscribe)
                .with_if(Feature::Zstd, self.compression),
            session: Some(who.clone()),
            ..PeerMetadata::default()
        };
        let mut config = Config::new(us.clone(), metadata.clone());
        config.limits = self.limits.clone();
        let (engine_sender, local) = mpsc::unbounded_channel();
        let index = Arc::new(Indexing::new(self.index));
        let home = Home::new(&engine_sender, Arc::new(System)).of(author);
        let schemas = Arc::new(Schemas::new(self.schema));
        let home = home.with_index(Arc::clone(&index)).with_schemas(Arc::clone(&schemas));
        let registry = Arc::new(Registry::new(home));
        let outbox = Arc::new(Board::default());
        let (answers, sockets) = mpsc::channel(engine::SOCKET_EVENTS_MAX);
        let lines = Arc::new(Lines::new(self.attachments_ahead));
        let sweeper = Sweeper::new(Arc::clone(&store), Arc::clone(&registry), &engine_sender);
        let shelf = Shelf::new(Arc::clone(&store), self.limits.clone());
        let (attachments, courier) =
            Courier::new(shelf, Arc::clone(&lines), sweeper, self.attachment_grace);
        runtime.spawn(courier.run());
        let started = Instant::now();
        let engine = Engine {
            core: Core::new(
                config,
                Arc::clone(&registry),
                Arc::clone(&schemas),
                Arc::clone(&outbox),
                self.debounce,
            ),
            store: Arc::clone(&store),
            materialiser,
            tasks: tasks.clone(),
            answers: answers.clone(),
            started,
            state: engine::State::default(),
            lines: Arc::clone(&lines),
        };
        let (flushes, flushed) = mpsc::channel(1);
        if self.index {
            let indexer = Indexer {
                index: Arc::clone(&index),
                registry: Arc::clone(&registry),
                store: Arc::clone(&store),
                schemas: Arc::clone(&schemas),
                lines: Arc::clone(&lines),
            };
            runtime.spawn(indexer.run(flushed));
        } else {
            // Before anything else is written, which it would not know of. Should it fail, so does
            // all that follows.
            drop(store.write(DocumentKey::index(), row::nothing()));
        }
        let next_call = Arc::new(AtomicU32::new(1));
        let collections = Collections::start(
            &runtime,
            (&registry, &store, &schemas, &index, &outbox),
            Arc::clone(&next_call),
            self.limits.documents_per_connection,
        );
        runtime.spawn(engine.run(local, sockets));
        let link = Arc::new(LinkContext {
            us,
            metadata,
            limits: self.limits,
            transport: self.transport,
            trust,
            engine: answers,
            next_connection: AtomicU64::new(1),
            schemas: Arc::clone(&schemas),
        });
        let links = Links::start(&runtime, link, relays, self.at_once);
        // It is the first, and the only one.
        let _ = outbox.meter.set(links.meter());
        Ok(Peer(Arc::new(Inner {
            directory: self.directory,
            store,
            registry,
            engine: engine_sender,
            started,
            tasks,
            links,
            session,
            who,
            next_broadcast: AtomicU64::new(1),
            schemas,
            outbox,
            replacing: tokio::sync::Mutex::new(()),
            next_call,
            author: self.author,
            index,
            flushes,
            attachments,
            collections,
        })))
    }
}

impl std::fmt::Debug for PeerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerBuilder")
            .field("directory", &self.directory)
            .field("engine", &self.engine)
            .field("relays", &self.relays)
            .finish_non_exhaustive()
    }
}

/// As much of a name as is told to others.
fn cut(name: &str) -> String {
    name[..name.floor_char_boundary(SESSION_NAME_BYTES_MAX)].to_owned()
}

/// What this host is called, where the system says so in a file.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok())?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

fn in_process(limits: &Limits) -> Result<Arc<dyn Materialiser>, PeerError> {
    let worker_limits = WorkerLimits { changes: limits.clone(), ..WorkerLimits::default() };
    let worker = InProcess::start(worker_limits)
        .map_err(|error| PeerError::System { what: "a thread", reason: error.to_string() })?;
    Ok(Arc::new(worker))
}

fn name<T: std::str::FromStr<Err = concord_protocol::IdError>>(kind: &str) -> Result<T, PeerError> {
    format!("{kind}-{:016x}", random_number()).parse().map_err(
        |error: concord_protocol::IdError| PeerError::System {
            what: "a name",
            reason: error.to_string(),
        },
    )
}
