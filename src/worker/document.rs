//! Chunks into one automerge document, and a document into one chunk that is known to load.
//!
//! Everything here may panic inside automerge: call it only from [`super::materialise`].

use std::collections::{HashMap, HashSet};

use automerge::{Automerge, Change, ReadDoc as _, SaveOptions};
use bytes::Bytes;
use concord_protocol::{
    ActorId, ChangeHash, Limits,
    guard::{self, ChangeHeader, ChunkKind},
};

use crate::replica::index::{IndexEntry, IndexError, SnapshotIndex};

/// What went wrong, before it is known whose fault it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The bytes are at fault.
    Content(String),
    /// More than can be counted.
    TooLarge(String),
}

impl Fault {
    pub(super) fn content(error: impl std::fmt::Display) -> Self {
        Self::Content(error.to_string())
    }
}

/// Adds runs of chunks. Every change in them is in the document afterwards: automerge answers
/// `Ok` for chunks that it could not parse and for changes that wait for others.
///
/// Gives the chunk where the document is now what was loaded from one chunk, and nothing else.
pub(super) fn add(
    doc: &mut Automerge,
    runs: &[Bytes],
    limits: &Limits,
) -> Result<Option<Bytes>, Fault> {
    let mut changes: Vec<Change> = Vec::new();
    let mut given = Vec::new();
    let mut loaded_from = None;
    for run in runs {
        for chunk in guard::split(run, limits).map_err(Fault::content)? {
            match chunk.kind {
                ChunkKind::Document => {
                    guard::check_document(&chunk.bytes, limits).map_err(Fault::content)?;
                    let loaded = Automerge::load(&chunk.bytes).map_err(Fault::content)?;
                    if doc.is_empty() && changes.is_empty() {
                        *doc = loaded;
                        loaded_from = Some(chunk.bytes);
                    } else {
                        changes.extend(doc.get_changes_added(&loaded));
                        loaded_from = None;
                    }
                }
                ChunkKind::Change | ChunkKind::CompressedChange => {
                    let header =
                        guard::check_change(&chunk.bytes, limits).map_err(Fault::content)?;
                    given.push(header.hash);
                    changes.push(Change::try_from(&chunk.bytes[..]).map_err(Fault::content)?);
                }
                ChunkKind::Bundle => {
                    return Err(Fault::Content("a bundle, which no client sends".into()));
                }
            }
        }
    }
    if changes.is_empty() {
        return Ok(loaded_from);
    }
    doc.apply_changes(changes).map_err(Fault::content)?;
    match given.into_iter().find(|hash| !holds(doc, *hash)) {
        Some(hash) => Err(Fault::Content(format!(
            "change {hash} was not applied: changes that it depends on are missing"
        ))),
        None => Ok(None),
    }
}

/// Whether the change is in the document.
pub(super) fn holds(doc: &Automerge, hash: ChangeHash) -> bool {
    doc.get_change_meta_by_hash(&automerge::ChangeHash(hash.0)).is_some()
}

/// A document chunk that was loaded again, and what it was loaded to.
pub(super) struct Sealed {
    /// The chunk.
    pub(super) snapshot: Bytes,
    /// What it holds.
    pub(super) doc: Automerge,
}

/// Saves, and proves that the chunk loads to the same changes: automerge 0.12 can save what it
/// cannot load. Loading rebuilds every change and compares the heads; heads name all that is
/// below them, so equal heads are equal bytes.
///
/// `loaded_from`: the chunk that this very document was loaded from, if it is one. Where it is
/// saved as that chunk again, the proof was given already.
pub(super) fn seal(doc: Automerge, loaded_from: Option<&Bytes>) -> Result<Sealed, Fault> {
    let snapshot =
        doc.save_with_options(SaveOptions { retain_orphans: false, ..SaveOptions::default() });
    if loaded_from.is_some_and(|chunk| *chunk == snapshot) {
        return Ok(Sealed { snapshot: snapshot.into(), doc });
    }
    let doc = load_again(doc, &snapshot)?;
    Ok(Sealed { snapshot: snapshot.into(), doc })
}

/// The document as [`seal`] would leave it, where nobody keeps the chunk: it is not deflated, which
/// takes longer than all the rest and is no part of what automerge gets wrong.
pub(super) fn sealed_for_trial(doc: Automerge) -> Result<Automerge, Fault> {
    let chunk = doc.save_with_options(SaveOptions { retain_orphans: false, deflate: false });
    load_again(doc, &chunk)
}

/// What was saved of a document, loaded; it must be the same.
fn load_again(doc: Automerge, chunk: &[u8]) -> Result<Automerge, Fault> {
    let heads = doc.get_heads();
    let changes = doc.stats().num_changes;
    drop(doc);
    let again = Automerge::load(chunk).map_err(|error| {
        Fault::Content(format!("the document does not load once saved: {error}"))
    })?;
    if again.get_heads() != heads || again.stats().num_changes != changes {
        return Err(Fault::Content("the document loads to other changes once saved".into()));
    }
    Ok(again)
}

/// Reads changes back and compares them with the bytes that were given: a change in another than
/// the usual encoding applies well, yet cannot be rebuilt.
pub(super) fn reads_back(
    doc: &Automerge,
    since: &[automerge::ChangeHash],
    given: &[Bytes],
) -> Result<(), Fault> {
    let read: HashMap<_, _> =
        doc.get_changes(since).into_iter().map(|change| (change.hash(), change)).collect();
    for bytes in given {
        let change = Change::try_from(&bytes[..]).map_err(Fault::content)?;
        let hash = change.hash();
        let same = match read.get(&hash) {
            Some(rebuilt) => rebuilt.raw_bytes() == change.raw_bytes(),
            // Known before `since`: it was compared when it came.
            None => doc.get_change_meta_by_hash(&hash).is_some(),
        };
        if !same {
            return Err(Fault::Content(format!(
                "change {hash} is not read back as it was written"
            )));
        }
    }
    Ok(())
}

/// The index of a sealed document. `check` is the guard, with the limits that fit the change.
pub(super) fn index(
    sealed: &Sealed,
    mut check: impl FnMut(&Bytes) -> Result<ChangeHeader, Fault>,
) -> Result<SnapshotIndex, Fault> {
    let too_large = |_| Fault::TooLarge("more changes than an index can count".into());
    let changes = sealed.doc.get_changes(&[]);
    let mut positions: HashMap<[u8; 32], u32> = HashMap::with_capacity(changes.len());
    let mut actors: Vec<ActorId> = Vec::new();
    let mut actor_positions: HashMap<ActorId, u32> = HashMap::new();
    let mut objects = Vec::new();
    let mut entries = Vec::with_capacity(changes.len());
    for change in changes {
        let header = check(&Bytes::copy_from_slice(change.raw_bytes()))?;
        let position = u32::try_from(entries.len()).map_err(too_large)?;
        let deps: Option<Vec<u32>> =
            (header.deps.iter()).map(|dep| positions.get(&dep.0).copied()).collect();
        let deps = deps.ok_or_else(|| {
            Fault::Content(format!("change {} comes before its dependency", header.hash))
        })?;
        if positions.insert(header.hash.0, position).is_some() {
            return Err(Fault::Content(format!("change {} is there twice", header.hash)));
        }
        let actor = if let Some(actor) = actor_positions.get(&header.actor) {
            *actor
        } else {
            let actor = u32::try_from(actors.len()).map_err(too_large)?;
            actors.push(header.actor.clone());
            actor_positions.insert(header.actor.clone(), actor);
            actor
        };
        objects.extend(header.objects_made.iter().map(|counter| (*counter, actor)));
        entries.push(IndexEntry {
            hash: header.hash.0,
            deps,
            actor,
            seq: header.seq,
            start_op: header.start_op,
            ops: header.ops,
            bytes: header.inflated_bytes,
            time: header.time,
        });
    }
    let heads: HashSet<[u8; 32]> = sealed.doc.get_heads().iter().map(|head| head.0).collect();
    let whole = sealed.doc.stats().num_changes == entries.len() as u64
        && heads.iter().all(|head| positions.contains_key(head));
    if !whole {
        return Err(Fault::Content("its changes are not read back whole".into()));
    }
    SnapshotIndex::build(&entries, &actors, objects, sealed.snapshot.len() as u64).map_err(
        |error| match error {
            IndexError::TooLarge => Fault::TooLarge(error.to_string()),
            error => Fault::content(error),
        },
    )
}

/// Whether a run of chunks begins with a document chunk: magic bytes, checksum, type 0.
pub(super) fn is_document(run: &[u8]) -> bool {
    run.get(8) == Some(&0)
}
