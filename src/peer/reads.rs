//! Entities from the index: get, list, query, count; and put, which writes one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use automerge::Automerge;
use concord_protocol::DocumentId;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::oneshot, time::timeout};

use super::{
    ChangeError, Changed, Cursor, Document, EntityError, Peer, Query, ReadError, Row, TypeCount,
    index::{entry::Entry, project::asked, query::Plan},
    locked,
};
use crate::entity::{self, EntityType, TypedError, Value, note_key};

/// How long a query waits for what changed just now to be in the index. It says what is not.
const SETTLE: Duration = Duration::from_millis(250);
/// Documents yet to be read that a query waits for; more would take longer than it waits.
const BACKLOG_MAX: usize = 64;
/// How long closing waits for the index to be written; what is not is read again at the next start.
const WRITE_MAX: Duration = Duration::from_secs(2);

/// A page of entities.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// In the order of the query.
    pub rows: Vec<Row>,
    /// Where to go on: give it to [`Query::after`]. `None`: there are no more.
    pub next: Option<Cursor>,
    /// What the index does not know yet.
    pub behind: Behind,
}

/// Documents that the index has not read, or not lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Behind {
    /// Documents that it is yet to read for the first time, or by the schema in force.
    pub building: usize,
    /// Of so many in all, as long as there are some.
    pub total: usize,
    /// Documents that changed since they were read.
    pub changed: usize,
    /// Documents that cannot be read; what they said before may be shown.
    pub unreadable: usize,
}

impl Behind {
    /// Whether the index has all that is stored here.
    pub fn is_nothing(&self) -> bool {
        self.building == 0 && self.changed == 0 && self.unreadable == 0
    }
}

/// An entity, read from its document.
#[derive(Debug)]
#[non_exhaustive]
pub struct Got {
    /// Its document, which stays open as long as this is there.
    pub document: Document,
    /// The values of its fields.
    pub values: BTreeMap<String, Value>,
    /// Those that show what no relay has yet: see [`Document::unconfirmed`].
    pub unconfirmed: BTreeSet<String>,
    /// It is deleted, and still there.
    pub is_deleted: bool,
}

/// An entity was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// It was not opened.
    #[error(transparent)]
    Entity(#[from] EntityError),
    /// What was to be written does not fit its type. Nothing is written.
    #[error(transparent)]
    Typed(#[from] TypedError),
    /// It is not on disk.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl Peer {
    /// Opens the entity of this type with this key, or begins it ([`Peer::entity`]), and changes it
    /// as [`EntityType::edit`] does, in one change. Its key is noted in its document, so that lists
    /// show it, here and wherever the document goes.
    ///
    /// # Errors
    /// [`PutError`].
    pub async fn put<E: Serialize + DeserializeOwned, R>(
        &self,
        of: &EntityType,
        key: &str,
        change: impl FnOnce(&mut E) -> R,
    ) -> Result<(Document, Changed<R>), PutError> {
        let (document, is_there) = self.hold_entity(of, key).await?;
        if !is_there {
            let changed = self.begin_with(&document, of, key, change).await?;
            return Ok((document, changed));
        }
        self.complete(&document, is_there, of).await?;
        let edited = document.change(|tx| {
            let given = of.edit(tx, change)?;
            note_key(tx, key)?;
            Ok(given)
        });
        let changed = edited.await.map_err(typed)?;
        Ok((document, changed))
    }

    /// Begins an entity with what is to be written into it, unless that does not fit its type: then
    /// there is no entity.
    async fn begin_with<E: Serialize + DeserializeOwned, R>(
        &self,
        document: &Document,
        of: &EntityType,
        key: &str,
        change: impl FnOnce(&mut E) -> R,
    ) -> Result<Changed<R>, PutError> {
        let mut rehearsal = Automerge::new();
        of.begin(&mut rehearsal).map_err(|source| EntityError::begin(of, source))?;
        let found = of.read(&rehearsal);
        let (edits, value) = of.edits(&found, change)?;
        let mut tx = rehearsal.transaction();
        of.write_edits(&mut tx, &found, &edits)?;
        tx.rollback();
        self.complete(document, false, of).await?;
        let edited = document.change(|tx| {
            let found = of.read(tx);
            of.write_edits(tx, &found, &edits)?;
            note_key(tx, key)?;
            Ok(())
        });
        let change = edited.await.map_err(typed)?.change;
        Ok(Changed { value, change })
    }

    /// The entity of this type with this key, if there is something of it here. Asks no relay:
    /// [`Peer::find`] does.
    ///
    /// # Errors
    /// [`EntityError`] if its document cannot be read.
    pub async fn get(&self, of: &EntityType, key: &str) -> Result<Option<Got>, EntityError> {
        let document = self.hold(&self.entity_id(&of.name, key));
        if !self.known(&document).await? {
            return Ok(None);
        }
        let unconfirmed = document.unconfirmed_fields(of)?;
        let read = |doc: &automerge::Automerge| (of.read(doc).values, entity::is_deleted(doc));
        let (values, is_deleted) = document.read(read)?;
        Ok(Some(Got { document, values, unconfirmed, is_deleted }))
    }

    /// The type and the key of a document, as the index has them: what to show of a reference. `None`
    /// of what is not stored here, is no entity, or is yet to be read ([`Peer::indexed`]).
    pub fn entity_name(&self, document: &DocumentId) -> Option<(String, String)> {
        self.0.index.read(|table| {
            let entry = table.get(document)?;
            Some((entry.type_name().to_owned(), entry.key()?.to_owned()))
        })
    }

    /// The entities of a type in the order of their keys, those after a page, so many at most.
    /// Documents that say no type are of the type that has no name; of a type that no schema
    /// declares only the documents are listed.
    ///
    /// # Errors
    /// As [`Peer::query`].
    pub async fn list(
        &self,
        type_name: &str,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let mut query = Query::of(type_name).limit(limit);
        query.after = after;
        self.query(&query).await
    }

    /// The entities that a query asks for, as they are here. What was written before the call is in
    /// it, or [`Page::behind`] says that it is not. Opens no document, but for filters that only one
    /// can decide: of parts of a set or list, and of strings longer than the index has them.
    ///
    /// # Errors
    /// [`ReadError`] where the query does not fit its type, and for a peer that is closed.
    pub async fn query(&self, query: &Query) -> Result<Page, ReadError> {
        let of = self.settled(query).await?;
        self.page(query, of.as_deref()).await
    }

    /// How many entities a query would give without a limit, wherever its page begins.
    ///
    /// # Errors
    /// As [`Peer::query`].
    pub async fn count(&self, query: &Query) -> Result<usize, ReadError> {
        let of = self.settled(query).await?;
        let of = of.as_deref();
        let plan = query.prepare(of.map(Declared::of))?;
        let (mut count, open) = self.0.index.read(|table| table.count(&plan));
        for entry in open {
            count += usize::from(self.holds(&plan, of, &entry).await?);
        }
        Ok(count)
    }

    /// The types of which something is stored here, with how much of each. Documents that say no
    /// type are of one without a name.
    ///
    /// # Errors
    /// [`ReadError::NoIndex`] and [`ReadError::Closed`].
    pub async fn types(&self) -> Result<(Vec<TypeCount>, Behind), ReadError> {
        self.settle().await?;
        let counts = self.0.index.read(super::index::table::Table::counts);
        Ok((counts, self.behind()))
    }

    /// Waits until the index has read all that is stored here, or cannot be.
    ///
    /// # Errors
    /// [`ReadError::NoIndex`] and [`ReadError::Closed`].
    pub async fn indexed(&self) -> Result<(), ReadError> {
        self.settle().await?;
        let mut progress = self.0.index.progress.subscribe();
        let built = progress.wait_for(|progress| progress.is_recalled && progress.backlog == 0);
        tokio::select! {
            built = built => drop(built.map_err(|_| ReadError::Closed)?),
            () = self.0.engine.closed() => return Err(ReadError::Closed),
        }
        let asked = self.0.index.marks().asked();
        self.looked_at(asked).await
    }

    pub(super) async fn page(
        &self,
        query: &Query,
        of: Option<&Declared>,
    ) -> Result<Page, ReadError> {
        let mut plan = query.prepare(of.map(Declared::of))?;
        let (mut found, mut last) = (Vec::new(), None);
        // One more than asked for says whether there are more.
        while found.len() <= query.limit {
            let limit = query.limit + 1 - found.len();
            let candidates = self.0.index.read(|table| table.candidates(&plan, limit));
            let is_end = candidates.len() < limit;
            for (entry, is_certain) in candidates {
                last = Some(plan.position(&entry));
                if is_certain || self.holds(&plan, of, &entry).await? {
                    found.push(entry);
                }
            }
            match last.take() {
                Some(last) if !is_end => plan.go_on_after(last),
                _ => break,
            }
        }
        let is_more = found.len() > query.limit;
        found.truncate(query.limit);
        let next = found.last().filter(|_| is_more);
        let next = next.map(|entry| Cursor::new(plan.position(entry)));
        let of = of.map(Declared::of);
        let rows = found.iter().filter_map(|entry| Row::new(entry, of)).collect();
        Ok(Page { rows, next, behind: self.behind() })
    }

    /// What only the document of an entry says.
    async fn holds(
        &self,
        plan: &Plan,
        of: Option<&Declared>,
        entry: &Entry,
    ) -> Result<bool, ReadError> {
        let (Some(of), Ok(id)) = (of, entry.id().parse::<DocumentId>()) else { return Ok(false) };
        let document = self.hold(&id);
        if !self.known(&document).await? {
            return Ok(false);
        }
        let wanted = |field: &str| plan.asks_about(field);
        Ok(document.read(|doc| plan.holds(&asked(of.of(), doc, wanted)))?)
    }

    /// Waits for the index, and gives the type that is asked about if it is declared.
    pub(super) async fn settled(&self, query: &Query) -> Result<Option<Arc<Declared>>, ReadError> {
        self.settle().await?;
        let projector = self.0.index.projector();
        let Some(schema) = projector.schema() else {
            return if query.is_plain() { Ok(None) } else { Err(undeclared(query, Vec::new())) };
        };
        if schema.types.contains_key(query.type_name()) {
            let name = query.type_name().to_owned();
            return Ok(Some(Arc::new(Declared { schema: Arc::clone(schema), name })));
        }
        let known = || schema.types.keys().cloned().collect();
        if !query.is_plain() {
            return Err(undeclared(query, known()));
        }
        let (name, index) = (query.type_name(), &self.0.index);
        // Of a type that documents have they are listed; any other is mistyped.
        let is_there = name.is_empty()
            || index.read(|table| table.counts().iter().any(|of| of.type_name == name));
        if is_there { Ok(None) } else { Err(undeclared(query, known())) }
    }

    /// Waits until what changed before the call is in the index, but not for long.
    pub(super) async fn settle(&self) -> Result<(), ReadError> {
        let index = &self.0.index;
        if !index.is_on() {
            return Err(ReadError::NoIndex);
        }
        if self.0.engine.is_closed() {
            return Err(ReadError::Closed);
        }
        let mut progress = index.progress.subscribe();
        tokio::select! {
            recalled = progress.wait_for(|progress| progress.is_recalled) => {
                drop(recalled.map_err(|_| ReadError::Closed)?);
            }
            () = self.0.engine.closed() => return Err(ReadError::Closed),
        }
        // A few documents that are yet to be read, as after a crash, are waited for, too.
        let backlog = progress.borrow_and_update().backlog;
        let is_built = backlog == 0 || backlog > BACKLOG_MAX;
        let asked = {
            let marks = index.marks();
            if is_built && marks.waiting() == 0 && *index.done.borrow() >= marks.asked() {
                return Ok(());
            }
            marks.asked()
        };
        let all = async {
            self.looked_at(asked).await?;
            // To look at a document that nobody has open is to open it, which tells of it anew.
            let anew = {
                let marks = index.marks();
                (marks.waiting() > 0).then(|| marks.asked())
            };
            if let Some(asked) = anew {
                self.looked_at(asked).await?;
            }
            if !is_built {
                drop(progress.wait_for(|progress| progress.backlog == 0).await);
            }
            Ok(())
        };
        // What is not done by then is said to be behind.
        timeout(SETTLE, all).await.unwrap_or(Ok(()))
    }

    async fn looked_at(&self, asked: u64) -> Result<(), ReadError> {
        let index = &self.0.index;
        let mut done = index.done.subscribe();
        index.wake.notify_one();
        index.hurry.notify_one();
        tokio::select! {
            looked = done.wait_for(|done| *done >= asked) => {
                drop(looked.map_err(|_| ReadError::Closed)?);
                Ok(())
            }
            () = self.0.engine.closed() => Err(ReadError::Closed),
        }
    }

    fn behind(&self) -> Behind {
        let index = &self.0.index;
        let progress = *index.progress.borrow();
        Behind {
            building: progress.backlog,
            total: if progress.backlog == 0 { 0 } else { progress.total },
            changed: index.marks().waiting(),
            unreadable: locked(&index.unreadable).len(),
        }
    }

    /// Before the store closes.
    pub(super) async fn index_is_written(&self) {
        if !self.0.index.is_on() {
            return;
        }
        let (done, written) = oneshot::channel();
        let write = async {
            if self.0.flushes.send(done).await.is_ok() {
                // Where the task has ended there is nothing to wait for.
                let _ = written.await;
            }
        };
        let _ = timeout(WRITE_MAX, write).await;
    }
}

/// What does not fit is said as that.
fn typed(error: ChangeError) -> PutError {
    match error {
        ChangeError::Edit(error) => match error.downcast::<TypedError>() {
            Ok(error) => (*error).into(),
            Err(error) => ChangeError::Edit(error).into(),
        },
        error => error.into(),
    }
}

fn undeclared(query: &Query, known: Vec<String>) -> ReadError {
    ReadError::NoType { type_name: query.type_name().to_owned(), known }
}

/// A type of a schema.
#[derive(Debug)]
pub(super) struct Declared {
    schema: Arc<entity::Schema>,
    name: String,
}

impl Declared {
    /// Whether a query can be asked of it.
    pub(super) fn fits(&self, query: &Query) -> Result<(), ReadError> {
        query.prepare(Some(self.of())).map(drop)
    }

    fn of(&self) -> &EntityType {
        &self.schema.types[&self.name]
    }
}
