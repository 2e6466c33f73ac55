//! Attachments in a store: rows beside documents, written in order and confirmed when they are on disk.
//!
//! Three kinds of rows, none of them a document's. The entry of an attachment and its outline stand
//! under its name; its pieces under a *place*, a name that is drawn for them. So what is removed is gone
//! with one row, and may come again while its pieces are being cleared; and a place that no entry
//! names, which a crash may leave, is cleared at the next start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use concord_protocol::{
    BlobHash, DocumentId, Limits,
    limits::{BLOB_CHUNK_BYTES, BLOB_PIECES_MAX},
};
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::OnceCell,
};

use super::{
    catalogue::{Catalogue, Entry, Place},
    coming::Coming,
    outline::{Outline, OutlineError, Outlining, pieces},
};
use crate::{
    record::RecordError,
    replica::{Kind, RowKey, RowWrite},
    store::{DocumentKey, Store, StoreError, Tenant},
};

/// The row of an entry, and that of its outline.
const ENTRY_ROW: RowKey = RowKey { kind: Kind::Meta, id: [0; 32], part: 0 };
const OUTLINE_ROW: RowKey = RowKey { kind: Kind::IndexPage, id: [0; 32], part: 0 };
/// Names that are listed at once.
const PAGE: usize = 500;
/// Pieces that are on their way to the disk at once: 256 KiB.
const WRITES_MAX: usize = 4;

const fn piece_row(at: u32) -> RowKey {
    RowKey { kind: Kind::Snapshot, id: [0; 32], part: at }
}

/// Something was not kept, or is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ShelfError {
    #[error("an attachment of {length} bytes is larger than the {max} allowed")]
    TooLarge { length: u64, max: u64 },
    #[error(
        "{length} bytes more would be over the {max} that all attachments may have: remove some"
    )]
    NoRoom { length: u64, max: u64 },
    #[error("attachment {0} is not here")]
    NotHere(BlobHash),
    #[error("the bytes are not those of attachment {hash}{}", at.map(|at| format!(", piece {at}")).unwrap_or_default())]
    Wrong { hash: BlobHash, at: Option<u32> },
    #[error("piece {have} is wanted first")]
    OutOfOrder { have: u32 },
    #[error("attachment {hash} is being brought with another length, {length}")]
    OtherLength { hash: BlobHash, length: u64 },
    #[error(transparent)]
    Outline(#[from] OutlineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a row of an attachment cannot be read: {0}")]
    Record(#[from] RecordError),
    #[error("the system has no random bytes for a name: {0}")]
    NoRandomness(String),
    #[error("what was to be kept could not be read: {0}")]
    Source(String),
}

/// See the module.
pub(crate) struct Shelf {
    pub(super) store: Arc<dyn Store>,
    limits: Limits,
    is_read: OnceCell<()>,
    catalogue: Mutex<Catalogue>,
    /// What is on its way in, as long as somebody brings it.
    coming: Mutex<BTreeMap<BlobHash, Weak<Coming>>>,
    /// What somebody reads at the moment.
    held: Mutex<BTreeMap<BlobHash, usize>>,
    /// One change of entries at a time, so that rows come in the order of what is in memory.
    changing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

impl Shelf {
    pub(crate) fn new(store: Arc<dyn Store>, limits: Limits) -> Self {
        Self {
            store,
            limits,
            is_read: OnceCell::new(),
            catalogue: Mutex::default(),
            coming: Mutex::default(),
            held: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Reads what is there, the first time.
    pub(crate) async fn ready(&self) -> Result<(), ShelfError> {
        self.is_read.get_or_try_init(|| self.recall()).await.copied()
    }

    async fn recall(&self) -> Result<(), ShelfError> {
        let mut places = BTreeSet::new();
        let mut after = None;
        loop {
            let page = self.store.documents(Tenant::blobs(), after, PAGE).await?;
            let Some(last) = page.last().cloned() else { break };
            for document in page {
                let key = DocumentKey { tenant: Tenant::blobs(), document };
                let row = self.store.read(key, vec![ENTRY_ROW]).await?.into_iter().next().flatten();
                // Without its entry an outline is of no use; it is written again with one.
                let Some(row) = row else { continue };
                let entry = Entry::recall(&row)?;
                places.insert(pieces_key(&entry.place).document);
                self.catalogue().put(entry);
            }
            after = Some(last);
        }
        self.clear_all_but(&places).await
    }

    /// Clears what a crash left of pieces that nobody has named, or that were removed.
    async fn clear_all_but(&self, places: &BTreeSet<DocumentId>) -> Result<(), ShelfError> {
        let mut after = None;
        loop {
            let page = self.store.documents(Tenant::pieces(), after, PAGE).await?;
            let Some(last) = page.last().cloned() else { return Ok(()) };
            for document in page.into_iter().filter(|document| !places.contains(document)) {
                let key = DocumentKey { tenant: Tenant::pieces(), document };
                self.store.write(key, vec![RowWrite::Clear]).await?;
            }
            after = Some(last);
        }
    }

    /// What is known of an attachment, whole or not.
    pub(crate) async fn find(&self, hash: &BlobHash) -> Result<Option<Entry>, ShelfError> {
        self.ready().await?;
        Ok(self.catalogue().get(hash).cloned())
    }

    /// All that is here, whole or not, in the order of their names.
    pub(crate) async fn list(&self) -> Result<Vec<(BlobHash, Entry)>, ShelfError> {
        self.ready().await?;
        Ok(self.catalogue().entries().map(|entry| (entry.hash(), entry.clone())).collect())
    }

    /// The outline of an attachment that is here whole.
    pub(crate) async fn outline(&self, hash: &BlobHash) -> Result<Outline, ShelfError> {
        let entry = self.whole(hash).await?;
        self.read_outline(hash, entry.length).await
    }

    async fn read_outline(&self, hash: &BlobHash, length: u64) -> Result<Outline, ShelfError> {
        let rows = self.store.read(entry_key(hash), vec![OUTLINE_ROW]).await?;
        Ok(Outline::read(*hash, length, &rows.into_iter().next().flatten().unwrap_or_default())?)
    }

    /// A piece of an attachment that is here whole.
    pub(crate) async fn piece(&self, hash: &BlobHash, at: u32) -> Result<Bytes, ShelfError> {
        let entry = self.whole(hash).await?;
        let piece = self.read_piece(&entry.place, at).await?;
        piece.ok_or(ShelfError::NotHere(*hash))
    }

    async fn whole(&self, hash: &BlobHash) -> Result<Entry, ShelfError> {
        let entry = self.find(hash).await?.filter(|entry| entry.is_whole);
        entry.ok_or(ShelfError::NotHere(*hash))
    }

    async fn read_piece(&self, place: &Place, at: u32) -> Result<Option<Bytes>, ShelfError> {
        let rows = self.store.read(pieces_key(place), vec![piece_row(at)]).await?;
        Ok(rows.into_iter().next().flatten())
    }

    /// Begins to take an attachment in, or goes on with it. `None`: it is here.
    ///
    /// Without an outline its bytes are checked when all of them are there; what was brought so far is
    /// then lost if one is wrong. One with an outline takes the place of one without.
    pub(crate) async fn begin(
        &self,
        hash: BlobHash,
        length: u64,
        outline: Option<Outline>,
    ) -> Result<Option<Arc<Coming>>, ShelfError> {
        self.ready().await?;
        let max = self.limits.blob_bytes;
        let count = pieces(length).filter(|_| length <= max);
        let count = count.ok_or(ShelfError::TooLarge { length, max })?;
        let _changing = self.changing.lock().await;
        let known = self.catalogue().get(&hash).cloned();
        if let Some(entry) = known.as_ref().filter(|entry| entry.is_whole) {
            if entry.length != length {
                return Err(ShelfError::OtherLength { hash, length: entry.length });
            }
            self.wanted(entry.clone()).await?;
            return Ok(None);
        }
        if let Some(coming) = self.coming().get(&hash).and_then(Weak::upgrade)
            && coming.length == length
            && !coming.is_broken()
            && (coming.outline.is_some() || outline.is_none())
        {
            return Ok(Some(coming));
        }
        let before = known.as_ref().map_or(0, |entry| entry.length);
        let max = self.limits.blob_total_bytes;
        if !self.catalogue().has_room(length.saturating_sub(before), max) {
            return Err(ShelfError::NoRoom { length, max });
        }
        // Pieces that were checked are those of the attachment, whatever length was said to be its: a
        // wrong one finds no bytes. Those that were not checked are begun anew.
        let goes_on = known.filter(|entry| match (&outline, entry.is_outlined) {
            (Some(_), is_outlined) => is_outlined,
            (None, _) => entry.length == length,
        });
        let (place, outline) = match &goes_on {
            Some(entry) if outline.is_none() && entry.is_outlined => {
                (entry.place, Some(self.read_outline(&hash, length).await?))
            }
            Some(entry) => (entry.place, outline),
            None => (self.fresh_place(&hash).await?, outline),
        };
        let mut entry = Entry::coming(hash, length, place, now_ms());
        entry.is_outlined = outline.is_some();
        let mut writes = Vec::with_capacity(2);
        // The entry last: one that says it has an outline has it.
        writes.extend(outline.as_ref().map(|it| RowWrite::Put(OUTLINE_ROW, it.to_bytes())));
        writes.push(RowWrite::Put(ENTRY_ROW, entry.row()?));
        self.store.write(entry_key(&hash), writes).await?;
        self.catalogue().put(entry);
        let have = if goes_on.is_some() { self.count(&place, count).await? } else { 0 };
        let coming = Arc::new(Coming::new((hash, length, count), place, outline, have));
        let mut all = self.coming();
        all.retain(|_, coming| coming.strong_count() > 0);
        all.insert(hash, Arc::downgrade(&coming));
        Ok(Some(coming))
    }

    /// A new place for the pieces of an attachment; those that it has now are cleared.
    async fn fresh_place(&self, hash: &BlobHash) -> Result<Place, ShelfError> {
        let before = self.catalogue().get(hash).map(|entry| entry.place);
        if let Some(before) = before {
            self.store.write(pieces_key(&before), vec![RowWrite::Clear]).await?;
        }
        random_place()
    }

    /// How many of so many pieces are there, from the first: they were written in order, and a crash
    /// keeps the first of what was written. Should it not be so, it is found out at the end.
    async fn count(&self, place: &Place, pieces: u32) -> Result<u32, ShelfError> {
        let (mut have, mut end) = (0, pieces);
        while have < end {
            let middle = have + (end - have) / 2;
            match self.read_piece(place, middle).await {
                Ok(Some(_)) => have = middle + 1,
                // A damaged one is written again.
                Ok(None) | Err(ShelfError::Store(StoreError::Corrupt { .. })) => end = middle,
                Err(error) => return Err(error),
            }
        }
        Ok(have)
    }

    /// Takes in a piece, in its place in the order at the time of the call; answers with how many are
    /// on disk, when this one is.
    ///
    /// # Errors
    /// [`ShelfError::Wrong`] for bytes that are none of its, [`ShelfError::OutOfOrder`] if another
    /// piece is wanted first.
    pub(crate) fn add(
        self: &Arc<Self>,
        coming: &Arc<Coming>,
        at: u32,
        data: Bytes,
    ) -> impl Future<Output = Result<u32, ShelfError>> + Send + use<> {
        let written = coming.take(at, &data).map(|is_new| {
            let write = RowWrite::Put(piece_row(at), data);
            is_new.then(|| self.store.write(pieces_key(&coming.place), vec![write]))
        });
        let (this, coming) = (Arc::clone(self), Arc::clone(coming));
        async move {
            let Some(writing) = written? else { return Ok(coming.have()) };
            let stored = writing.await;
            let have = coming.stored(at, stored.is_ok());
            stored?;
            if have == coming.pieces {
                return this.finish(&coming).await;
            }
            Ok(have)
        }
    }

    /// All pieces are there: reads them once more, and is it the attachment, it is here from now on.
    pub(crate) async fn finish(&self, coming: &Coming) -> Result<u32, ShelfError> {
        let Coming { hash, place, pieces, .. } = coming;
        let mut outlining = Outlining::default();
        for at in 0..*pieces {
            let piece = match self.read_piece(place, at).await {
                Ok(piece) => piece,
                Err(ShelfError::Store(StoreError::Corrupt { .. })) => None,
                Err(error) => return Err(error),
            };
            let is_right = |piece: &Bytes| {
                coming.outline.as_ref().is_none_or(|outline| outline.is_piece(at, piece))
            };
            let Some(piece) = piece.filter(is_right) else {
                coming.back_to(at);
                return Err(ShelfError::OutOfOrder { have: at });
            };
            outlining.push(&piece);
        }
        let outline = outlining.finish();
        if outline.hash() != *hash {
            self.remove(hash).await?;
            return Err(ShelfError::Wrong { hash: *hash, at: None });
        }
        let _changing = self.changing.lock().await;
        // It may have been finished, or removed, by somebody else meanwhile.
        let entry = self.catalogue().get(hash).filter(|entry| entry.place == *place).cloned();
        let mut entry = entry.ok_or(ShelfError::NotHere(*hash))?;
        if !entry.is_whole {
            (entry.is_whole, entry.is_outlined) = (true, true);
            entry.length = outline.length();
            entry.unused_since_ms = now_ms();
            self.keep(entry, Some(&outline)).await?;
        }
        Ok(*pieces)
    }

    /// Takes in bytes whose name is not known yet, to their end.
    pub(crate) async fn take_in(
        &self,
        mut from: impl AsyncRead + Unpin,
        is_sent: bool,
    ) -> Result<Outline, ShelfError> {
        self.ready().await?;
        let place = random_place()?;
        let mut reserved = Reserved { shelf: self, bytes: 0 };
        let taken = self.take_pieces(&mut from, &place, &mut reserved).await;
        let kept = match taken {
            Ok(outline) => self.take_name(outline, place, is_sent).await,
            Err(error) => Err(error),
        };
        let is_kept_elsewhere = |outline: &Outline| {
            self.catalogue().get(&outline.hash()).is_none_or(|entry| entry.place != place)
        };
        if kept.as_ref().map_or(true, is_kept_elsewhere) {
            // Nobody knows of this place; should it fail, the next start clears it.
            let _ = self.store.write(pieces_key(&place), vec![RowWrite::Clear]).await;
        }
        kept
    }

    async fn take_pieces(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        place: &Place,
        reserved: &mut Reserved<'_>,
    ) -> Result<Outline, ShelfError> {
        let (one_max, max) = (self.limits.blob_bytes, self.limits.blob_total_bytes);
        let mut outlining = Outlining::default();
        let mut writes = FuturesOrdered::new();
        for at in 0.. {
            let mut piece = Vec::with_capacity(BLOB_CHUNK_BYTES);
            let mut one = (&mut *from).take(BLOB_CHUNK_BYTES as u64);
            one.read_to_end(&mut piece)
                .await
                .map_err(|error| ShelfError::Source(error.to_string()))?;
            if piece.is_empty() && at > 0 {
                break;
            }
            let is_last = piece.len() < BLOB_CHUNK_BYTES;
            let length = outlining.length() + piece.len() as u64;
            if length > one_max || pieces(length).is_none() {
                return Err(ShelfError::TooLarge { length, max: one_max });
            }
            reserved.add(piece.len() as u64, max)?;
            outlining.push(&piece);
            let write = RowWrite::Put(piece_row(at), piece.into());
            writes.push_back(self.store.write(pieces_key(place), vec![write]));
            if writes.len() >= WRITES_MAX {
                writes.next().await.transpose()?;
            }
            if is_last {
                break;
            }
        }
        while let Some(written) = writes.next().await {
            written?;
        }
        Ok(outlining.finish())
    }

    /// Pieces that are there are an attachment from now on, if it was not here before.
    async fn take_name(
        &self,
        outline: Outline,
        place: Place,
        is_sent: bool,
    ) -> Result<Outline, ShelfError> {
        let _changing = self.changing.lock().await;
        let known = self.catalogue().get(&outline.hash()).cloned();
        if let Some(entry) = known.as_ref().filter(|entry| entry.is_whole) {
            self.wanted(entry.clone()).await?;
            return Ok(outline);
        }
        let mut entry = Entry::coming(outline.hash(), outline.length(), place, now_ms());
        (entry.is_whole, entry.is_outlined, entry.is_sent) = (true, true, is_sent);
        self.keep(entry, Some(&outline)).await?;
        if let Some(before) = known {
            // What somebody else had brought of it so far.
            self.coming().remove(&outline.hash());
            self.store.write(pieces_key(&before.place), vec![RowWrite::Clear]).await?;
        }
        Ok(outline)
    }

    /// A relay has it.
    pub(crate) async fn sent(&self, hash: &BlobHash) -> Result<(), ShelfError> {
        let _changing = self.changing.lock().await;
        let entry = self.catalogue().get(hash).filter(|entry| !entry.is_sent).cloned();
        let Some(mut entry) = entry else { return Ok(()) };
        entry.is_sent = true;
        self.keep(entry, None).await
    }

    /// Somebody brings or makes it again: it is not removed for a while.
    async fn wanted(&self, mut entry: Entry) -> Result<(), ShelfError> {
        if entry.unused_since_ms == 0 {
            return Ok(());
        }
        entry.unused_since_ms = now_ms();
        self.keep(entry, None).await
    }

    pub(super) async fn keep(
        &self,
        entry: Entry,
        outline: Option<&Outline>,
    ) -> Result<(), ShelfError> {
        let mut writes = Vec::with_capacity(2);
        writes.extend(outline.map(|outline| RowWrite::Put(OUTLINE_ROW, outline.to_bytes())));
        writes.push(RowWrite::Put(ENTRY_ROW, entry.row()?));
        self.store.write(entry_key(&entry.hash()), writes).await?;
        self.catalogue().put(entry);
        Ok(())
    }

    /// Takes an attachment away, whole or not. Says whether there was one.
    pub(crate) async fn remove(&self, hash: &BlobHash) -> Result<bool, ShelfError> {
        self.ready().await?;
        let _changing = self.changing.lock().await;
        self.remove_locked(hash).await
    }

    pub(super) async fn remove_locked(&self, hash: &BlobHash) -> Result<bool, ShelfError> {
        let Some(entry) = self.catalogue().get(hash).cloned() else { return Ok(false) };
        let rows = vec![RowWrite::Delete(ENTRY_ROW), RowWrite::Clear];
        self.store.write(entry_key(hash), rows).await?;
        self.coming().remove(hash);
        self.catalogue().remove(hash);
        self.store.write(pieces_key(&entry.place), vec![RowWrite::Clear]).await?;
        Ok(true)
    }

    /// Keeps an attachment from being removed as long as what is given is there.
    pub(crate) fn hold(self: &Arc<Self>, hash: BlobHash) -> Hold {
        *self.held().entry(hash).or_default() += 1;
        Hold { shelf: Arc::clone(self), hash }
    }

    pub(super) fn is_held(&self, hash: &BlobHash) -> bool {
        self.held().contains_key(hash)
            || self.coming().get(hash).is_some_and(|coming| coming.strong_count() > 0)
    }

    pub(super) async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    pub(super) fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        // Nothing in here panics half way through a change; so with the others.
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn coming(&self) -> MutexGuard<'_, BTreeMap<BlobHash, Weak<Coming>>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<BlobHash, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Shelf::hold`].
#[derive(Debug)]
pub(crate) struct Hold {
    shelf: Arc<Shelf>,
    hash: BlobHash,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.shelf.held();
        if let Some(count) = held.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.hash);
            }
        }
    }
}

/// Room for bytes that have no name yet.
struct Reserved<'s> {
    shelf: &'s Shelf,
    bytes: u64,
}

impl Reserved<'_> {
    fn add(&mut self, length: u64, max: u64) -> Result<(), ShelfError> {
        let mut catalogue = self.shelf.catalogue();
        if !catalogue.has_room(length, max) {
            return Err(ShelfError::NoRoom { length: self.bytes + length, max });
        }
        catalogue.reserve(length);
        self.bytes += length;
        Ok(())
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.shelf.catalogue().release(self.bytes);
    }
}

fn entry_key(hash: &BlobHash) -> DocumentKey {
    DocumentKey { tenant: Tenant::blobs(), document: DocumentId::from_bytes(&hash.0) }
}

fn pieces_key(place: &Place) -> DocumentKey {
    DocumentKey { tenant: Tenant::pieces(), document: DocumentId::from_bytes(place) }
}

fn random_place() -> Result<Place, ShelfError> {
    let mut place = [0; 16];
    getrandom::fill(&mut place).map_err(|error| ShelfError::NoRandomness(error.to_string()))?;
    Ok(place)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

const _: () = assert!(WRITES_MAX <= BLOB_PIECES_MAX);

#[cfg(test)]
mod tests;
