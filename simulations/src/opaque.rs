//! Documents whose operations nobody looks at: how the fast profile writes changes, and the
//! materialiser that makes snapshots of them.
//!
//! Changes are real change chunks: they pass the guard and are admitted as any others. A snapshot
//! is a document chunk in its frame only: inside are the names of its changes, and of large ones a
//! part of their bytes, so that it is smaller than they are, as a real one is. The library has them
//! by name.

mod chunk;
mod done;
mod materialiser;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
};

use bytes::Bytes;
use concord_protocol::{ActorId, ChangeHash, Limits, guard};

pub(crate) use self::chunk::{Value, junk, noise, poison, write};
use self::{
    chunk::{is_snapshot, names},
    done::{Done, JobKey},
};
use crate::plan::Profile;

/// A change as the header tells it, with its bytes.
#[derive(Debug)]
pub(crate) struct Change {
    /// Its name.
    pub(crate) hash: ChangeHash,
    /// What it builds on.
    pub(crate) deps: Vec<ChangeHash>,
    /// Its writer.
    pub(crate) actor: ActorId,
    /// Its number among its writer's.
    pub(crate) seq: u32,
    /// Its first operation's counter.
    pub(crate) start_op: u32,
    /// Its operations.
    pub(crate) ops: u32,
    /// Objects made by it, as counters: hostile ones may be real changes of automerge.
    pub(crate) objects_made: Vec<u32>,
    /// When.
    pub(crate) time: i64,
    /// The chunk.
    pub(crate) bytes: Bytes,
}

/// Hashes keys that are hashes already.
#[derive(Debug, Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut first = [0; 8];
        for (to, from) in first.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.0 ^= u64::from_le_bytes(first);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn write_usize(&mut self, _: usize) {}
}

/// A set of changes. Its order follows from its members alone, and nobody goes by it.
pub(crate) type Hashes = HashSet<ChangeHash, BuildHasherDefault<Identity>>;

/// A map by what is a hash already. Its order follows from its keys alone, and nobody goes by it.
pub(crate) type ByHash<K, V> = HashMap<K, V, BuildHasherDefault<Identity>>;

/// Reads change chunks, each once however many nodes hold it.
#[derive(Debug, Default)]
pub(crate) struct Library {
    members: RefCell<ByHash<u64, Rc<Members>>>,
    done: RefCell<BTreeMap<JobKey, Done>>,
    changes: RefCell<ByHash<u64, Rc<Change>>>,
    by_name: RefCell<ByHash<ChangeHash, Rc<Change>>>,
    snapshots: RefCell<ByHash<u64, Rc<[Rc<Change>]>>>,
    breaking: RefCell<Hashes>,
}

/// Changes in a chunk.
#[derive(Debug)]
pub(crate) struct Members {
    /// Each, with what it builds on.
    pub(crate) changes: Vec<(ChangeHash, Vec<ChangeHash>)>,
    /// 64 bits of them, whatever their order: those of several chunks are added up.
    key: u64,
}

/// 64 bits of bytes; a chunk has a SHA-256 of its own in it, so this cannot be unlucky often.
fn fingerprint(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let add = |to: u64, word: u64| {
        let mixed = (to ^ word).wrapping_mul(ODD);
        mixed ^ (mixed >> 29)
    };
    // Four at a time, of which none waits for another.
    let mut lanes = [0xcbf2_9ce4_8422_2325, ODD, 0x94D0_49BB_1331_11EB, bytes.len() as u64];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = add(*lane, u64::from_le_bytes(*word));
        }
    }
    let (words, rest) = rest.as_chunks::<8>();
    for (lane, word) in lanes.iter_mut().zip(words) {
        *lane = add(*lane, u64::from_le_bytes(*word));
    }
    let mut hash = lanes.into_iter().fold(0, add);
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^ (hash >> 32)
}

impl Library {
    /// From now on a change is one that breaks its document: it keeps every rule, and no
    /// materialiser can apply it.
    pub(crate) fn spoil(&self, change: ChangeHash) {
        self.breaking.borrow_mut().insert(change);
    }

    /// Whether a change breaks its document by itself.
    pub(crate) fn breaks(&self, change: &ChangeHash) -> bool {
        self.breaking.borrow().contains(change)
    }

    /// The change in a chunk, or why there is none.
    ///
    /// # Errors
    /// What the guard says.
    pub(crate) fn read(&self, chunk: &Bytes) -> Result<Rc<Change>, String> {
        let key = fingerprint(chunk);
        if let Some(known) = self.changes.borrow().get(&key) {
            return Ok(Rc::clone(known));
        }
        let header = guard::check_change(chunk, &Limits::default()).map_err(|e| e.to_string())?;
        let change = Rc::new(Change {
            hash: header.hash,
            deps: header.deps,
            actor: header.actor,
            seq: header.seq,
            start_op: header.start_op,
            objects_made: header.objects_made,
            ops: header.ops,
            time: header.time,
            bytes: Bytes::copy_from_slice(chunk),
        });
        self.changes.borrow_mut().insert(key, Rc::clone(&change));
        self.by_name.borrow_mut().insert(change.hash, Rc::clone(&change));
        Ok(change)
    }

    /// All changes in chunks, snapshots among them, in the order of the chunks.
    ///
    /// # Errors
    /// In words, if one is neither.
    pub(crate) fn read_all<'a>(
        &self,
        chunks: impl IntoIterator<Item = &'a Bytes>,
    ) -> Result<Vec<Rc<Change>>, String> {
        let mut changes = Vec::new();
        for chunk in chunks {
            if is_snapshot(chunk) {
                changes.extend(self.open(chunk)?.iter().cloned());
            } else {
                changes.push(self.read(chunk)?);
            }
        }
        Ok(changes)
    }

    /// Changes in a chunk of either profile, with what they build on.
    ///
    /// # Errors
    /// In words, if it cannot be read.
    pub(crate) fn members(&self, chunk: &Bytes, profile: Profile) -> Result<Rc<Members>, String> {
        let key = fingerprint(chunk);
        if let Some(known) = self.members.borrow().get(&key) {
            return Ok(Rc::clone(known));
        }
        let changes: Vec<_> = if is_snapshot(chunk) && profile == Profile::Automerge {
            let doc = automerge::Automerge::load(chunk).map_err(|error| error.to_string())?;
            let name = |hash: &automerge::ChangeHash| ChangeHash(hash.0);
            let changes = doc.get_changes(&[]);
            changes.iter().map(|c| (name(&c.hash()), c.deps().iter().map(name).collect())).collect()
        } else {
            let changes = self.read_all([chunk])?;
            changes.iter().map(|change| (change.hash, change.deps.clone())).collect()
        };
        let prints = changes.iter().map(|(hash, _)| fingerprint(&hash.0));
        let members = Rc::new(Members { key: prints.fold(0, u64::wrapping_add), changes });
        self.members.borrow_mut().insert(key, Rc::clone(&members));
        Ok(members)
    }

    /// The changes in a snapshot, in order.
    fn open(&self, chunk: &Bytes) -> Result<Rc<[Rc<Change>]>, String> {
        let key = fingerprint(chunk);
        if let Some(known) = self.snapshots.borrow().get(&key) {
            return Ok(Rc::clone(known));
        }
        let by_name = self.by_name.borrow();
        let named = names(chunk).ok_or("a snapshot that ends early")?;
        let changes = named.iter().map(|name| by_name.get(name).cloned());
        let changes: Option<Rc<[_]>> = changes.collect();
        let changes = changes.ok_or("a snapshot of changes that nobody made")?;
        self.snapshots.borrow_mut().insert(key, Rc::clone(&changes));
        Ok(changes)
    }
}
