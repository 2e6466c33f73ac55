//! The schema in force: the program's own, or else the one that a relay told of last, which is kept
//! on this disk and holds without a network too.
//!
//! Of several relays the one that told speaks for its schema: whatever it says later takes the place
//! of that, also an older version. Another relay is believed where its schema is newer (some type has
//! a higher version, and none a lower one), or, if it is not older, where the relay that told has not
//! been seen since the start. So what is kept goes back and forth between no two relays.
//!
//! What decides is here, without I/O; the core has it kept and read by actions.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use concord_protocol::{SchemaHash, StorageId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Peer;
use crate::{
    entity::Schema,
    record::{self, RecordError},
    replica::{ConnectionId, StorageFailure},
};

/// What is known of the schema: see [`Peer::schema`].
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct SchemaStatus {
    /// The one in force: that of the program, else the one that is kept.
    pub in_force: Option<Arc<Schema>>,
    /// What a relay told, and is kept here.
    pub kept: Option<KeptSchema>,
    /// Why what a relay told last cannot be used. What was kept before is kept still.
    pub problem: Option<String>,
}

/// A schema that a relay told of.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct KeptSchema {
    /// The hash of its text.
    pub hash: SchemaHash,
    /// What its file says.
    pub text: Arc<str>,
    /// The same, read.
    pub schema: Arc<Schema>,
}

impl Peer {
    /// The schema in force, and what a relay said of it. Waits for this disk the first time.
    pub async fn schema(&self) -> SchemaStatus {
        self.schema_is_known().await;
        self.0.schemas.status.borrow().clone()
    }

    /// The same now and from now on. The first value may be from before this disk was read.
    pub fn watch_schema(&self) -> watch::Receiver<SchemaStatus> {
        self.0.schemas.subscribe()
    }

    /// Waits until it is known what was kept, or the peer is closed.
    pub(super) async fn schema_is_known(&self) {
        let mut known = self.0.schemas.known.subscribe();
        tokio::select! {
            _ = known.wait_for(|known| *known) => {}
            () = self.0.engine.closed() => {}
        }
    }
}

/// What all of a peer see of the schema.
#[derive(Debug)]
pub(super) struct Schemas {
    own: Option<Arc<Schema>>,
    status: watch::Sender<SchemaStatus>,
    known: watch::Sender<bool>,
}

impl Schemas {
    /// Of a program that has this schema, or none.
    pub(super) fn new(own: Option<Arc<Schema>>) -> Self {
        let status = SchemaStatus { in_force: own.clone(), ..SchemaStatus::default() };
        Self { own, status: watch::Sender::new(status), known: watch::Sender::new(false) }
    }

    pub(super) fn in_force(&self) -> Option<Arc<Schema>> {
        self.status.borrow().in_force.clone()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<SchemaStatus> {
        self.status.subscribe()
    }

    /// Waits until it is known what was kept.
    pub(super) async fn is_known(&self) {
        // The sender is here.
        let _ = self.known.subscribe().wait_for(|known| *known).await;
    }

    /// The one that need not be told again, once that is known.
    pub(super) async fn held(&self) -> Option<SchemaHash> {
        self.is_known().await;
        self.status.borrow().kept.as_ref().map(|kept| kept.hash)
    }

    fn keep(&self, kept: KeptSchema) {
        self.status.send_modify(|status| {
            status.in_force = Some(self.own.as_ref().unwrap_or(&kept.schema).clone());
            status.kept = Some(kept);
            status.problem = None;
        });
    }

    fn complain(&self, problem: Option<String>) {
        self.status.send_if_modified(|status| {
            let is_other = status.problem != problem;
            status.problem = problem;
            is_other
        });
    }
}

/// The row that is kept.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    text: String,
    /// The store of the relay that told.
    teller: Option<String>,
}

/// A schema that was told or kept, before anybody has looked at it.
#[derive(Debug)]
pub(super) struct Unread {
    from: Source,
    hash: SchemaHash,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// This disk, which had it from this relay.
    Disk(Option<StorageId>),
    /// A relay, over this connection.
    Relay(ConnectionId, Option<StorageId>),
}

/// What came of looking at it.
#[derive(Debug)]
pub(super) struct Judged {
    from: Source,
    schema: Result<KeptSchema, String>,
}

impl Unread {
    /// Looks at it. Takes milliseconds, and recurses over what strangers wrote: for the applier.
    pub(super) fn judge(self) -> Judged {
        let Self { from, hash, text } = self;
        let read = || {
            if SchemaHash::of(&text) != hash {
                return Err("it is not the one that its hash names".to_owned());
            }
            Schema::parse(&text).map_err(|errors| errors.to_string())
        };
        let read = catch_unwind(AssertUnwindSafe(read));
        let schema = read.unwrap_or_else(|_| Err("reading it failed".to_owned()));
        let schema = schema.map(|schema| {
            let (text, schema) = (Arc::from(text), Arc::new(schema));
            KeptSchema { hash, text, schema }
        });
        Judged { from, schema }
    }
}

/// Decides which schema is kept.
#[derive(Debug)]
pub(super) struct Keeper {
    schemas: Arc<Schemas>,
    /// The stores of the relays that are connected.
    relays: BTreeMap<ConnectionId, Option<StorageId>>,
    /// The one that told what is kept.
    teller: Option<StorageId>,
    /// It was connected since the start.
    is_seen: bool,
    /// What relays told meanwhile, the last of each.
    waiting: BTreeMap<ConnectionId, (SchemaHash, String)>,
    is_judging: bool,
    /// Whose word cannot be used.
    wrong: BTreeSet<ConnectionId>,
}

impl Keeper {
    pub(super) fn new(schemas: Arc<Schemas>) -> Self {
        Self {
            schemas,
            relays: BTreeMap::new(),
            teller: None,
            is_seen: false,
            waiting: BTreeMap::new(),
            is_judging: false,
            wrong: BTreeSet::new(),
        }
    }

    /// A relay is there.
    pub(super) fn connected(&mut self, id: ConnectionId, store: Option<StorageId>) {
        self.is_seen |= self.teller.is_some() && store == self.teller;
        self.relays.insert(id, store);
    }

    /// It is gone.
    pub(super) fn disconnected(&mut self, id: ConnectionId) {
        self.relays.remove(&id);
        self.waiting.remove(&id);
        if self.wrong.remove(&id) && self.wrong.is_empty() {
            // If it is still so, it is told again.
            self.schemas.complain(None);
        }
    }

    /// What the disk has. Nothing, where there is nothing to look at.
    pub(super) fn recalled(
        &mut self,
        row: Result<Option<Bytes>, StorageFailure>,
    ) -> Option<Unread> {
        let row = row.map_err(|error| error.to_string()).and_then(|row| {
            let read = |row: Bytes| record::decode::<Row>(&row);
            row.map(read).transpose().map_err(|error: RecordError| error.to_string())
        });
        match row {
            Ok(Some(Row { text, teller })) => {
                let teller = teller.and_then(|teller| teller.parse().ok());
                self.is_judging = true;
                Some(Unread { from: Source::Disk(teller), hash: SchemaHash::of(&text), text })
            }
            nothing => {
                if let Err(reason) = nothing {
                    tracing::warn!(reason, "the schema that was kept cannot be read");
                }
                self.schemas.known.send_replace(true);
                self.next()
            }
        }
    }

    /// A relay told. One at a time is looked at, and of each relay what it told last.
    pub(super) fn told(
        &mut self,
        id: ConnectionId,
        hash: SchemaHash,
        text: String,
    ) -> Option<Unread> {
        if self.relays.contains_key(&id) {
            self.waiting.insert(id, (hash, text));
        }
        self.next()
    }

    fn next(&mut self) -> Option<Unread> {
        if self.is_judging || !*self.schemas.known.borrow() {
            return None;
        }
        let (id, (hash, text)) = self.waiting.pop_first()?;
        self.is_judging = true;
        let from = Source::Relay(id, self.relays.get(&id).cloned().flatten());
        Some(Unread { from, hash, text })
    }

    /// What is to be kept on the disk now, if anything, and what is to be looked at next.
    pub(super) fn judged(&mut self, judged: Judged) -> (Option<Bytes>, Option<Unread>) {
        self.is_judging = false;
        let Judged { from, schema } = judged;
        let row = match (from, schema) {
            (Source::Disk(teller), schema) => {
                self.is_seen = teller.is_some() && self.relays.values().any(|it| *it == teller);
                self.teller = teller;
                match schema {
                    Ok(kept) => self.schemas.keep(kept),
                    Err(reason) => {
                        tracing::warn!(reason, "the schema that was kept cannot be used");
                    }
                }
                self.schemas.known.send_replace(true);
                None
            }
            (Source::Relay(id, _), Err(reason)) => {
                tracing::warn!(reason, "the schema of a relay cannot be used");
                if self.relays.contains_key(&id) {
                    self.wrong.insert(id);
                    self.schemas.complain(Some(reason));
                }
                None
            }
            (Source::Relay(id, teller), Ok(told)) => {
                self.wrong.remove(&id);
                self.weigh(told, teller)
            }
        };
        (row, self.next())
    }

    /// Takes it or leaves it.
    fn weigh(&mut self, told: KeptSchema, teller: Option<StorageId>) -> Option<Bytes> {
        let kept = self.schemas.status.borrow().kept.clone();
        if let Some(kept) = kept {
            let is_same_relay = teller.is_some() && teller == self.teller;
            let takes = is_same_relay
                || match compare(&told.schema, &kept.schema) {
                    Some(Ordering::Greater) => true,
                    Some(Ordering::Less) => false,
                    Some(Ordering::Equal) | None => !self.is_seen,
                };
            if kept.hash == told.hash || !takes {
                if self.wrong.is_empty() {
                    self.schemas.complain(None);
                }
                if kept.hash != told.hash {
                    tracing::info!("another relay has another schema, which is not newer");
                }
                return None;
            }
        }
        let row = Row {
            text: told.text.as_ref().to_owned(),
            teller: teller.as_ref().map(|teller| teller.as_str().to_owned()),
        };
        tracing::info!(hash = %told.hash, "a relay's schema is in force");
        self.schemas.keep(told);
        self.is_seen = teller.is_some();
        self.teller = teller;
        match record::encode(&row) {
            Ok(row) => Some(row.into()),
            Err(error) => {
                tracing::error!(%error, "a schema cannot be kept");
                None
            }
        }
    }
}

/// Which of two schemas is newer, by the versions of their types; neither, where each has something
/// that is newer.
fn compare(one: &Schema, other: &Schema) -> Option<Ordering> {
    let version = |schema: &Schema, name| schema.types.get(name).map_or(0, |of| of.version);
    let names: BTreeSet<&String> = one.types.keys().chain(other.types.keys()).collect();
    let found: BTreeSet<Ordering> =
        names.into_iter().map(|name| version(one, name).cmp(&version(other, name))).collect();
    match (found.contains(&Ordering::Greater), found.contains(&Ordering::Less)) {
        (true, true) => None,
        (true, false) => Some(Ordering::Greater),
        (false, true) => Some(Ordering::Less),
        (false, false) => Some(Ordering::Equal),
    }
}

#[cfg(test)]
mod tests;
